"""What a training step costs under each fusion, compared within one run.

    python experiments/benchmarks/fusion_cost.py --manifest runs/demo/corpus/manifest.csv

Times forward, backward and AdamW of the small preset, labels alone, on the same batches of the demo corpus,
one thread, bf16 autocast. The fusions take turns batch by batch, so that whatever else the machine does falls
on all of them alike; the table gives each one's time as a share of `cross_attention`'s on the same batch.
"""

from __future__ import annotations

import argparse
import time
from itertools import islice

import numpy as np
import torch

from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.model.configuration import MmsrConfig
from mmsr.model.fusion import FUSION_CLASSES
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor


def step(model: MmsrForSentimentReasoning, optimizer: torch.optim.Optimizer, batch: dict) -> float:
    """Seconds of one training step."""
    start = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest", default="runs/demo/corpus/manifest.csv")
    parser.add_argument("--batches", type=int, default=12, help="After two to warm up.")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = MmsrDataModule(args.manifest, batch_seconds=24)
    texts = [text for text in data.train_rows["text"] if text]
    processor = MmsrProcessor.train(texts, rationale_format="none")
    data.attach(processor, rationales=False)
    models = {}
    for fusion in tuple(FUSION_CLASSES):
        settings = {"vocab_size": len(processor.tokenizer), "fusion": fusion, **processor.config_kwargs()}
        model = MmsrForSentimentReasoning(MmsrConfig.from_preset("small", **settings)).train()
        models[fusion] = model, torch.optim.AdamW(model.parameters(), lr=1e-4)
    seconds: dict[str, list[float]] = {fusion: [] for fusion in tuple(FUSION_CLASSES)}
    for batch in islice(data.train_dataloader(), args.batches + 2):
        for fusion, (model, optimizer) in models.items():
            seconds[fusion].append(step(model, optimizer, batch))
    base = np.array(seconds["cross_attention"][2:])
    print("| fusion | weights (in the fusion) | step, share of `cross_attention`'s: median [quartiles] |")
    print("|---|---|---|")
    for fusion, (model, _) in models.items():
        low, middle, high = np.quantile(np.array(seconds[fusion][2:]) / base, [0.25, 0.5, 0.75])
        own = sum(weight.numel() for weight in model.encoder.fusion.parameters())
        size = f"{model.num_parameters() / 1e6:.2f} M ({own / 1e3:.0f} k)"
        print(f"| `{fusion}` | {size} | {middle:.2f} [{low:.2f}, {high:.2f}] |")
    print(f"cross_attention: {np.median(base):.2f} s a step of {base.size} batches")


if __name__ == "__main__":
    main()

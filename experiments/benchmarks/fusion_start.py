"""What a fusion starts from: each modality's share of the memory, and the gradient that reaches each encoder.

    python experiments/benchmarks/fusion_start.py --manifest runs/demo/corpus/manifest.csv

Fresh models of the preset `small`, one for each fusion and seed, over rows of the demo corpus. Voices and
transcripts of `--rows` rows are crossed, each with each, and the variance of the pooled memory is taken apart
as in a two-way analysis of variance: what the voice alone explains, what the words alone explain, and what
only both together do (their interaction). A share near zero is a modality, or a product, that the head cannot
read yet. The gradient is that of the sentiment loss over the rows as they are, its norm over all weights of
an encoder. Prints a Markdown table: means over the seeds.

    python experiments/benchmarks/fusion_start.py --steps 300 --fusions low_rank film

Whether it then learns to use both: fresh models of the preset `tiny` on a made-up task in the demo's manner.
The voice is a direction in noise (states in place of the audio encoder's), the mood of what is said one word
among eight. Where one of them is neutral, the other decides; praise in an upset voice and blame in a cheerful
one are both negative. Of the training rows 40 % lack the voice and 10 % the words, as the demo's do. Prints
the accuracy on fresh rows, which have both, after those steps, for each seed.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from einops import repeat
from torch import Tensor, nn
from transformers import get_cosine_schedule_with_warmup

from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.model.configuration import MmsrConfig
from mmsr.model.fusion import FUSION_CLASSES
from mmsr.model.layers import balance_experts
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.pooling import MeanPooling
from mmsr.model.processing import MmsrProcessor

DROPOUT = (0.4, 0.1)  # of audio and of text, as in experiments/demo.yaml


@torch.no_grad()
def shares(model: MmsrForSentimentReasoning, batch: dict[str, Tensor]) -> list[float]:
    """Voice's, words' and their interaction's share of the variance of the mean memory over crossed rows."""
    encoder, rows = model.encoder, len(batch["input_ids"])
    audio, audio_mask = encoder.audio_stream(
        *encoder.encode_audio(batch["input_values"], batch["input_values_mask"])
    )
    text, text_mask = encoder.text_stream(*encoder.encode_text(batch["input_ids"], batch["attention_mask"]))
    audio, audio_mask = (repeat(one, "a ... -> (a t) ...", t=rows) for one in (audio, audio_mask))
    text, text_mask = (repeat(one, "t ... -> (a t) ...", a=rows) for one in (text, text_mask))
    memory, mask, *_ = encoder.fusion(audio, audio_mask, text, text_mask)
    pooled = MeanPooling(model.config)(memory, mask).unflatten(0, (rows, rows))  # [a, t, d]
    centred = pooled - pooled.mean((0, 1))
    voice, words = centred.mean(1, keepdim=True), centred.mean(0, keepdim=True)
    parts = (voice.expand_as(centred), words.expand_as(centred), centred - voice - words)
    total = centred.square().sum()
    return [float(part.square().sum() / total) for part in parts]


def gradients(model: MmsrForSentimentReasoning, batch: dict[str, Tensor]) -> list[float]:
    """Norm of the sentiment loss's gradient over the audio encoder and over the text encoder."""
    model(**batch).sentiment_loss.backward()
    return [
        float(torch.cat([w.grad.flatten() for w in part.parameters() if w.grad is not None]).norm())
        for part in (model.encoder.audio_encoder, model.encoder.text_encoder)
    ]


def made_up(
    rows: int, draw: torch.Generator, *, dropout: tuple[float, float] = (0.0, 0.0)
) -> dict[str, Tensor]:
    """Rows of the made-up task: twelve frames that tell the voice in noise, eight words, and the label.

    With the probabilities of `dropout` a row loses its audio, or else its words.
    """
    pairs = torch.tensor([(v, w) for v in range(3) for w in range(3) if v == w == 1 or v != w])
    voice, words = pairs[torch.randint(len(pairs), (rows,), generator=draw)].unbind(1)
    label = torch.where(voice == 1, words, torch.where(words == 1, voice, 0))
    frames = torch.randn(rows, 12, 1, 32, generator=draw)
    frames[:, :, 0, :3] += torch.eye(3)[voice][:, None]
    said = torch.randint(40, 256, (rows, 8), generator=draw)
    place = torch.randint(8, (rows, 1), generator=draw)
    mood = 10 + 10 * words[:, None] + torch.randint(10, (rows, 1), generator=draw)  # ten words of each mood
    lost = torch.rand(rows, 1, generator=draw)
    return {
        "audio_features": frames,
        "audio_features_mask": (lost >= dropout[0]).long().expand(rows, 12),
        "input_ids": said.scatter(1, place, mood),
        "attention_mask": (lost < 1 - dropout[1]).long().expand(rows, 8),
        "sentiment_labels": label,
    }


def learned(fusion: str, *, seed: int, steps: int) -> float:
    """Accuracy of a fresh tiny model after so many steps of 32 rows."""
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(seed)
    config = MmsrConfig.from_preset("tiny", fusion=fusion, rationale_format="none")
    model = MmsrForSentimentReasoning(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.01, foreach=True)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 10, steps)
    for _ in range(steps):
        model(**made_up(32, draw, dropout=DROPOUT)).loss.backward()
        balance_experts(model)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    rows = made_up(512, draw)
    with torch.inference_mode():
        logits = model.eval()(**rows).sentiment_logits
    return float((logits.argmax(-1) == rows["sentiment_labels"]).float().mean())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--manifest", default="runs/demo/corpus/manifest.csv")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--fusions", nargs="+", default=[name for name in FUSION_CLASSES if "only" not in name]
    )
    parser.add_argument("--steps", type=int, default=0, help="Of the made-up task, in place of the start.")
    args = parser.parse_args()
    if args.steps:
        for fusion in args.fusions:
            scores = [learned(fusion, seed=seed, steps=args.steps) for seed in args.seeds]
            print("|", " | ".join([f"`{fusion}`", *(f"{value:.3f}" for value in scores)]), "|", flush=True)
        return
    data = MmsrDataModule(args.manifest, batch_rows=args.rows, batch_seconds=1000)
    texts = [text for text in data.train_rows["text"] if text]
    processor = MmsrProcessor.train(texts, rationale_format="none")
    data.attach(processor, rationales=False)
    batch = next(iter(data.train_dataloader()))
    print(
        "| fusion | voice | words | both | gradient, audio encoder | gradient, text encoder |\n"
        + "|---" * 6
        + "|"
    )
    for fusion in args.fusions:
        found = []
        for seed in args.seeds:
            torch.manual_seed(seed)
            config = MmsrConfig.from_preset(
                "small", vocab_size=len(processor.tokenizer), fusion=fusion, decoder_type="none",
                **processor.config_kwargs(),
            )  # fmt: skip
            model = MmsrForSentimentReasoning(config).eval()
            found.append(shares(model, batch) + gradients(model, batch))
        print(
            "|",
            " | ".join([f"`{fusion}`", *(f"{value:.3f}" for value in np.mean(found, 0))]),
            "|",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""Does decoding stall training? 10,000 short FLAC files, from the manifest to the steps of the small preset.

    python experiments/benchmarks/cold_start.py --workers 0 1 2 --steps 60

Makes the files (noise and tones, some 2.5 s each) in a temporary folder that is deleted afterwards. For each
number of workers it times reading the manifest, measuring the files, the first batch, and then in each of
`--steps` steps (the first few left out) how long the loop waits for its batch and how long the step itself
takes (forward, backward, AdamW). Writes runs/cold-start.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import soundfile
import torch

from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.data.manifest.manifest import load_manifest
from mmsr.model.configuration import DEFAULT_LABELS, MmsrConfig
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor

WORDS = "the doctor said it was kind quick slow painful good and they all came back home early late".split()
LABELS = list(DEFAULT_LABELS.values())
LEFT_OUT = 3  # first steps, in which workers start


def make_corpus(folder: Path, rows: int) -> Path:
    """Files of a tone in noise, and their manifest."""
    (folder / "audio").mkdir()

    def write(row: int) -> dict[str, str]:
        rng = np.random.default_rng(row)
        seconds = rng.uniform(1.5, 3.5)
        tone = np.sin(2 * np.pi * rng.uniform(80, 400) * np.arange(int(seconds * 16_000)) / 16_000)
        wave = 0.2 * tone + 0.02 * rng.standard_normal(len(tone))
        soundfile.write(folder / "audio" / f"{row}.flac", wave, 16_000)
        text, why = (" ".join(rng.choice(WORDS, size)) for size in (9, 14))
        split = "dev" if row % 50 == 0 else "train"
        label = LABELS[row % len(LABELS)]
        cells = (str(row), f"audio/{row}.flac", text, why, label, "en", split)
        return dict(
            zip(("id", "audio", "text", "rationale", "label", "language", "split"), cells, strict=True)
        )

    with ThreadPoolExecutor(2) as pool:
        table = list(pool.map(write, range(rows)))
    with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    return folder / "manifest.csv"


def measure(manifest: Path, *, workers: int, steps: int, threads: int) -> dict[str, float]:
    """Seconds of each part of a start and of its first steps."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    figures: dict[str, float] = {}
    clock = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        figures[name], clock = now - clock, now

    # audio is decoded in every epoch, as in a corpus that is too large to keep
    data = MmsrDataModule(str(manifest), num_workers=workers, batch_seconds=64, cache_audio=False)
    rows = data.train_rows
    lap("manifest_s")
    processor = MmsrProcessor.train([*rows["text"][:2000], *rows["rationale"][:2000]], vocab_size=400)
    settings = {**processor.config_kwargs(), "label_token_ids": processor.label_token_ids}
    config = MmsrConfig.from_preset("small", vocab_size=len(processor.tokenizer), **settings)
    model = MmsrForSentimentReasoning(config).train()
    optimizer = torch.optim.AdamW(model.parameters())
    data.attach(processor)
    lap("model_s")
    data._seconds(data.train_rows)
    lap("measuring_files_s")
    loader = data.train_dataloader()
    lap("loader_s")
    batches = iter(loader)
    batch = next(batches)
    lap("first_batch_s")
    waited, worked = [], []
    for step in range(steps + LEFT_OUT):
        optimizer.zero_grad()
        loss = model(**batch, use_cache=False).loss
        assert loss is not None
        loss.backward()
        optimizer.step()
        stepped = time.perf_counter()
        batch = next(batches)
        if step >= LEFT_OUT:
            worked.append(stepped - clock)
            waited.append(time.perf_counter() - stepped)
        clock = time.perf_counter()
    return {
        **figures,
        "step_ms": 1000 * float(np.mean(worked)),
        "waiting_ms": 1000 * float(np.mean(waited)),
        "longest_wait_ms": 1000 * float(np.max(waited)),
        "share_in_step": float(np.sum(worked) / (np.sum(worked) + np.sum(waited))),
    }


def main() -> None:
    """Measure each number of workers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1, help="Threads of the step.")
    parser.add_argument("--out", type=Path, default=Path("runs/cold-start.json"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mmsr-cold-start-") as folder:
        started = time.perf_counter()
        manifest = make_corpus(Path(folder), args.rows)
        print(f"{args.rows:,} files made in {time.perf_counter() - started:.0f} s", flush=True)
        load_manifest(manifest)  # so that no measurement has the first one's imports
        summary = {}
        for workers in args.workers:
            summary[f"{workers} workers"] = found = measure(
                manifest, workers=workers, steps=args.steps, threads=args.threads
            )
            print(workers, {name: round(value, 3) for name, value in found.items()}, flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"rows": args.rows, "steps": args.steps, **summary}, indent=1))


if __name__ == "__main__":
    main()

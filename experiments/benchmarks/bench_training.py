"""Rows of `bench.py` that train, and those of `startup.py`."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import startup
import torch
from harness import Measured, alternate, costs
from material import SHARED, mixed_clips, write_clips
from torch.utils.data import DataLoader
from transformers import (
    AutoConfig,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.data.loading.utterances import Collator
from mmsr.model.configuration import MmsrConfig
from mmsr.model.modeling import MmsrForSentimentReasoning, save_model
from mmsr.model.presets import SHAPES
from mmsr.model.processing import MmsrProcessor
from mmsr.training.losses import LossMean
from mmsr.training.module import MmsrModule
from mmsr.training.run import fit, mixed_precision, quieten
from mmsr.training.settings import TrainingSettings

E5 = SHARED / "models" / "multilingual-e5-small-30k"
TEXTS = SHARED / "data" / "sentiment-text"
Found = Iterator[tuple[str, Measured | str]]
Precision = Literal["32-true", "bf16-mixed"]
_RATE = 1e-5  # so small that the losses of both sides stay finite over all turns


# ---------------------------------------------------------------------- one epoch, by each side


class _Clock(L.Callback):
    """Seconds from the first step to the last."""

    seconds = 0.0

    def on_train_start(self, *_: Any) -> None:
        """Model and data are ready."""
        self.start = time.perf_counter()

    def on_train_end(self, *_: Any) -> None:
        """The last step is done."""
        self.seconds = time.perf_counter() - self.start


class _TrainerClock(TrainerCallback):
    """The same of transformers' Trainer."""

    seconds = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Model and data are ready."""
        self.start = time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """The last step is done."""
        self.seconds = time.perf_counter() - self.start


@dataclass
class Job:
    """One model folder and one manifest, for an epoch of either side.

    Attributes:
        model: Folder of the checkpoint that both start from.
        manifest: Rows to train on.
        rows: Rows of a batch, on average and, with the Trainer, always.
        limits: Of mmsr's batches, as of `MmsrDataModule`.
    """

    model: Path
    manifest: Path
    rows: int
    limits: Mapping[str, float]

    def data(self, processor: MmsrProcessor) -> MmsrDataModule:
        """The rows, in batches by length."""
        limits: dict[str, Any] = dict(self.limits)
        found = MmsrDataModule(str(self.manifest), **limits)
        found.attach(processor, rationales="rationale" in self.manifest.read_text("utf-8")[:200])
        return found

    def mmsr(self, precision: Precision) -> Callable[[], float]:
        """An epoch of `mmsr fit`'s module; returns its seconds."""
        module = MmsrModule(
            TrainingSettings(
                pretrained=str(self.model), learning_rate=_RATE, audio_dropout=0.0, text_dropout=0.0
            )
        )
        limits: dict[str, Any] = dict(self.limits)
        data = MmsrDataModule(str(self.manifest), **limits)

        def epoch() -> float:
            clock = _Clock()
            trainer = L.Trainer(
                accelerator="cpu",
                precision=precision,
                max_epochs=1,
                limit_val_batches=0,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
                gradient_clip_val=1.0,
                callbacks=[clock],
            )
            trainer.fit(module, datamodule=data)
            return clock.seconds

        return epoch

    def trainer(self, precision: Precision) -> Callable[[], float]:
        """An epoch of transformers' Trainer over random batches; returns its seconds."""
        model = MmsrForSentimentReasoning.from_pretrained(self.model).train()
        processor = MmsrProcessor.from_pretrained(self.model)
        data = self.data(processor)
        data.train_dataloader()  # reads the rows
        rows = data._datasets["train"]
        collate = Collator(processor, rationales=model.decoder is not None)

        def epoch() -> float:
            clock = _TrainerClock()
            with tempfile.TemporaryDirectory(prefix="mmsr-bench-") as folder:
                trainer = Trainer(
                    model=model,
                    args=TrainingArguments(
                        folder,
                        per_device_train_batch_size=self.rows,
                        num_train_epochs=1,
                        learning_rate=_RATE,
                        bf16=precision == "bf16-mixed",
                        use_cpu=True,
                        save_strategy="no",
                        report_to=[],
                        disable_tqdm=True,
                        remove_unused_columns=False,
                        dataloader_pin_memory=False,
                        logging_strategy="no",
                    ),
                    train_dataset=rows,
                    data_collator=collate,
                    callbacks=[clock],
                )
                with contextlib.redirect_stdout(io.StringIO()):
                    trainer.train()
            return clock.seconds

        return epoch

    def losses(self) -> tuple[float, float]:
        """The loss on all rows before training, over mmsr's batches and over padded ones in file order."""
        model = MmsrForSentimentReasoning.from_pretrained(self.model).eval()
        processor = MmsrProcessor.from_pretrained(self.model)
        data = self.data(processor)
        ours = data.train_dataloader()
        rows: Any = data._datasets["train"]
        collate = Collator(processor, rationales=model.decoder is not None)
        return _loss(model, ours), _loss(model, DataLoader(rows, self.rows, collate_fn=collate))


@torch.inference_mode()
def _loss(model: MmsrForSentimentReasoning, batches: Any) -> float:
    """Mean loss over all targets of all batches."""
    names = ["sentiment_loss", *(["rationale_loss"] if model.decoder is not None else [])]
    means = {name: LossMean() for name in names}
    for batch in batches:
        batch.pop("ids", None)
        outputs = model(**batch, use_cache=False)
        weights = model.target_weights(labels=batch.get("labels"), sentiment_labels=batch["sentiment_labels"])
        for name, mean in means.items():
            mean.update(outputs[name], weights[name])
    return sum(float(mean.compute()) for mean in means.values())


def _compare(job: Job, *, precision: Precision, repeats: int, note: str, why: str) -> Measured:
    """Epochs of both sides in turns, by the seconds of their steps."""
    quieten()
    sides = (job.mmsr(precision), job.trainer(precision))
    turns = alternate(*sides, repeats=repeats, warm=repeats > 2)
    ours, theirs = job.losses()
    return Measured(
        ratios=turns.ratios,
        same_result=abs(ours - theirs) <= 1e-3 * abs(theirs),
        seconds=turns.medians,
        precision={"32-true": "float32", "bf16-mixed": "bf16"}[precision],
        note=f"{note} Loss on all rows before training {ours:.4f}, {theirs:.4f}.",
        why=why,
        costs=costs(sides[0]),
    )


# ---------------------------------------------------------------------- a text encoder


def _texts(count: int) -> list[dict[str, str]]:
    """Rows of the shared sentiment texts, evenly from its files; else made-up sentences of mixed length."""
    generator = np.random.default_rng(0)
    if not TEXTS.exists():
        words = "the doctor said it was kind quick slow painful good and they came back late".split()
        return [
            {"text": " ".join(generator.choice(words, size)), "label": ("negative", "positive")[size % 2]}
            for size in generator.integers(3, 60, count)
        ]
    found = []
    for name in ("goemotions", "brighter", "topical_chat"):
        with open(TEXTS / f"{name}.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        chosen = generator.permutation(len(rows))[: -(-count // 3)]
        found += [{"text": rows[row]["text"], "label": rows[row]["label"]} for row in chosen]
    generator.shuffle(found)
    return found[:count]


def _manifest(path: Path, rows: Sequence[Mapping[str, str]], *, dev: int = 1) -> Path:
    """The rows as a manifest: the last `dev` for development, the others to train on."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["id", "split", *rows[0]])
        writer.writeheader()
        for number, row in enumerate(rows):
            split = "train" if number < len(rows) - dev else "dev"
            writer.writerow({"id": str(number), "split": split, **row})
    return path


def text_training(quick: bool) -> Found:
    """3: a pretrained text encoder and a head, fine-tuned in bf16."""
    if not E5.exists():
        yield "3", f"no {E5.name} in the shared models"
        return
    count, size = (17, 8) if quick else (97, 16)
    with tempfile.TemporaryDirectory(prefix="mmsr-bench-") as folder:
        rows = _texts(count)
        processor = MmsrProcessor.from_encoders(text=str(E5), rationale_format="none")
        model = MmsrForSentimentReasoning.from_encoders(text=str(E5), fusion="text_only", processor=processor)
        save_model(model, processor, Path(folder) / "model")
        tokens = [len(processor.tokenizer(row["text"])["input_ids"]) for row in rows]
        job = Job(
            model=Path(folder) / "model",
            manifest=_manifest(Path(folder) / "manifest.csv", rows),
            rows=size,
            limits={"batch_tokens": int(size * np.mean(tokens))},
        )
        precision: Precision = "bf16-mixed" if mixed_precision() == "bf16-mixed" else "32-true"
        measured = _compare(
            job,
            precision=precision,
            repeats=1 if quick else 3,
            note=f"{count - 1} rows of 3 corpora, {np.mean(tokens):.0f} tokens on average, at most "
            f"{max(tokens)}; batches of {size} rows, or as many tokens as those have on average.",
            why="short rows differ little in length, so that less of a batch is padding.",
        )
        yield "3", measured


# ---------------------------------------------------------------------- the whole model


def _joint_job(folder: Path, quick: bool) -> tuple[Job, str]:
    """wav2vec2-base and XLM-R-base in width, of fewer layers, cross-attention and a decoder."""
    count, size, layers = (9, 4, 1) if quick else (17, 4, 1)
    longest = 3.0 if quick else 15.0
    clips = mixed_clips(count, seed=11, longest=longest)
    paths = write_clips(clips, folder / "audio")
    rows = [
        {
            "audio": f"audio/{Path(path).name}",
            "text": clip.text,
            "label": clip.label,
            "rationale": f'{clip.label}: "{clip.text.split()[0]}" in this voice',
        }
        for path, clip in zip(paths, clips, strict=True)
    ]
    texts = [row[name] for row in rows for name in ("text", "rationale")]
    processor = MmsrProcessor.train(texts, vocab_size=400)
    shape = SHAPES["base"]
    settings = {**processor.config_kwargs(), "label_token_ids": processor.label_token_ids}
    config: Any = MmsrConfig.from_preset("base", vocab_size=len(processor.tokenizer), **settings)
    front: dict[str, Any] = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
    config.audio_encoder = AutoConfig.for_model(
        "wav2vec2", **shape["audio_encoder"] | front | {"num_hidden_layers": layers}
    )
    config.text_encoder.num_hidden_layers = layers
    config.decoder.decoder_layers = config.decoder.encoder_layers = layers
    config.decoder.num_hidden_layers = layers
    torch.manual_seed(0)
    model = MmsrForSentimentReasoning(config)
    save_model(model, processor, folder / "model")
    seconds = [clip.seconds for clip in clips]
    note = (
        f"{count - 1} rows of 1 to {longest:g} s, {np.mean(seconds):.1f} s on average; batches of {size} "
        f"rows, or as many seconds as those have on average. Random weights, {layers} layer of each encoder "
        "and of the decoder in place of 12, 12 and 6, and a small vocabulary, so that a step takes seconds "
        "on a CPU; layer norm in wav2vec2's front end, which padding does not change."
    )
    manifest = _manifest(folder / "manifest.csv", rows)
    return Job(folder / "model", manifest, size, {"batch_seconds": size * float(np.mean(seconds))}), note


_PADDING = "what is saved is padding, and with these lengths it is less than half of a random batch."


def joint_training(quick: bool) -> Found:
    """1a, 1b: steps over an epoch, in float32 and in bf16."""
    with tempfile.TemporaryDirectory(prefix="mmsr-bench-") as folder:
        job, note = _joint_job(Path(folder), quick)
        repeats = 1 if quick else 2
        yield "1a", _compare(job, precision="32-true", repeats=repeats, note=note, why=_PADDING)
        yield "1b", _compare(job, precision="bf16-mixed", repeats=repeats, note="As 1a.", why=_PADDING)


_MEMORY = """
import sys, resource, pathlib, json
sys.path.insert(0, sys.argv[1])
from bench_training import Job, quieten
quieten()
side, model, manifest, rows, limits = sys.argv[2:]
job = Job(pathlib.Path(model), pathlib.Path(manifest), int(rows), json.loads(limits))
getattr(job, side)("32-true")()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def joint_memory(quick: bool) -> Found:
    """2: the most memory that a process has held after an epoch, without what it holds before training."""
    with tempfile.TemporaryDirectory(prefix="mmsr-bench-") as folder:
        job, note = _joint_job(Path(folder), quick)
        limits = json.dumps(dict(job.limits))

        def peak(side: str) -> float:
            command = [sys.executable, "-c", _MEMORY, str(Path(__file__).parent), side]
            command += [str(job.model), str(job.manifest), str(job.rows), limits]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            return int(printed.split()[-1]) / 1e6

        pairs = [(peak("mmsr"), peak("trainer")) for _ in range(1 if quick else 2)]
        ours, theirs = job.losses()
        shown = ", ".join(f"{np.median(side):.1f} GB" for side in zip(*pairs, strict=True))
        yield (
            "2",
            Measured(
                ratios=[own / other for own, other in pairs],
                same_result=abs(ours - theirs) <= 1e-3 * abs(theirs),
                note=f"Most resident memory of a process that trains one epoch of 1a: {shown}.",
                why="weights, gradients, AdamW's two moments and the libraries are the same on both sides; "
                "only activations differ.",
            ),
        )


# ---------------------------------------------------------------------- an ablation


def stored_ablation(quick: bool) -> Found:
    """4: two fusions by two seeds over frozen encoders, whole runs of `mmsr fit`."""
    with tempfile.TemporaryDirectory(prefix="mmsr-bench-") as name:
        folder = Path(name)
        count, epochs = (9, 1) if quick else (12, 4)
        clips = mixed_clips(count, seed=13, longest=2.0)
        paths = write_clips(clips, folder / "audio")
        rows = [
            {"audio": f"audio/{Path(path).name}", "text": clip.text, "label": clip.label}
            for path, clip in zip(paths, clips, strict=True)
        ]
        for n, clip in enumerate(("negative", "neutral", "positive")):
            rows[n]["label"] = rows[-1 - n]["label"] = clip
        whisper = SHARED / "models" / "whisper-base"
        if not (whisper.exists() and E5.exists()):
            yield "4", "no pretrained encoders in the shared models"
            return
        manifest = _manifest(folder / "manifest.csv", rows, dev=3)
        flags = [f"--data.manifest={manifest}", f"--model.audio={whisper}", f"--model.text={E5}"]
        flags += ["--model.freeze=[audio_encoder,text_encoder]", "--model.rationale_format=none"]
        flags += [f"--trainer.max_epochs={epochs}", "--trainer.precision=32-true"]
        flags += ["--trainer.enable_progress_bar=false", "--model.feature_dtype=float32"]
        turn = iter(range(1000))

        def ablation(*, stored: bool) -> list[float]:
            root, losses = folder / f"run{next(turn)}", []
            for fusion in ("gated", "concat"):
                for seed in (0, 1):
                    out = root / f"{fusion}{seed}"
                    more = [f"--model.feature_store={root / 'store'}"] if stored else []
                    more += [f"--model.fusion={fusion}", f"--seed_everything={seed}"]
                    with contextlib.redirect_stdout(io.StringIO()):
                        fit([*flags, *more, f"--trainer.default_root_dir={out}"])
                    shutil.rmtree(out / "checkpoints")  # which a disk need not hold for all runs
                    history = json.loads((out / "history.json").read_text("utf-8"))
                    losses.append(history[-1]["train_loss"])
            return losses

        turns = alternate(
            lambda: ablation(stored=True),
            lambda: ablation(stored=False),
            repeats=1,
            warm=False,
        )
        ours, theirs = (np.array(side) for side in turns.results)
        apart = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
        yield (
            "4",
            Measured(
                ratios=[1 / ratio for ratio in turns.ratios],
                same_result=apart <= 1e-3,
                seconds=turns.medians,
                note=f"Small: {count - 3} clips of 1 to 2 s, 2 fusions by 2 seeds, {epochs} epochs, Whisper "
                f"base's 30 s window; an empty store. Losses differ by at most {apart:.1e}.",
                why="what is left is loading, saving and evaluating four models, which no store saves.",
                costs=costs(lambda: ablation(stored=True)),
            ),
        )


# ---------------------------------------------------------------------- growth


def growing_training(quick: bool) -> Found:
    """12c: an epoch of `mmsr fit` over clips of 1 s, ten times as many in the second run."""
    few, many = (32, 320) if quick else (1_000, 10_000)
    with tempfile.TemporaryDirectory(prefix="mmsr-bench-") as name:
        folder = Path(name)
        clips = mixed_clips(100, seed=14, longest=1.0)
        paths = write_clips(clips, folder / "audio")
        took = []
        for turn, count in enumerate((few, many, few, many)):
            rows = [
                {
                    "audio": f"audio/{Path(paths[n % 100]).name}",
                    "text": clips[n % 100].text,
                    "label": ("negative", "neutral", "positive")[n % 3],
                }
                for n in range(count + 8)
            ]
            manifest = _manifest(folder / f"{count}.csv", rows, dev=8)
            flags = [f"--data.manifest={manifest}", "--model.preset=tiny", "--model.rationale_format=none"]
            flags += ["--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--data.batch_rows=32"]
            flags += [f"--trainer.default_root_dir={folder / f'run{turn}'}"]
            start = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()):
                fit(flags)
            took.append((time.perf_counter() - start) / count)
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        yield (
            "12c",
            Measured(
                ratios=[took[1] / took[0], took[3] / took[2]],
                same_result=True,
                seconds=(took[1] * many, took[0] * few),
                precision="as of mmsr fit",
                note=f"{few:,} and {many:,} clips of 1 s, preset tiny, whole runs (100,000 not measured); "
                f"the run's fixed cost makes many rows cheaper. Most memory {held:.2f} GB.",
            ),
        )


# ---------------------------------------------------------------------- starting


def starting(quick: bool) -> Found:
    """11 and 13: the rows of `startup.py`."""
    pairs = 1 if quick else 3
    names = iter(("11a", "11b", "11c", "13a", "13b", "13c", "13d"))
    with tempfile.TemporaryDirectory() as folder:
        startup.save_small_bert(folder)
        for row, name in zip(startup.measure(folder, pairs), names, strict=True):
            yield (
                name,
                Measured(
                    ratios=[row["low"], row["ratio"], row["high"]],
                    same_result=row["same_result"],
                    note=f"{pairs} new processes of a side.",
                ),
            )

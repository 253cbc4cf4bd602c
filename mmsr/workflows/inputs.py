"""What workflows read: the rows of a manifest, a checkpoint for them, and the files beside both."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import yaml

from mmsr.data.features.encoders import stored_audio
from mmsr.data.loading.splits import Split, has_splits, select_rows
from mmsr.data.manifest.check.audio import audio_issues
from mmsr.data.manifest.issues import ManifestError
from mmsr.data.manifest.manifest import fingerprint, load_manifest, utterances
from mmsr.evaluation.provenance import Provenance
from mmsr.inference.loading import load_pipeline
from mmsr.inference.pipeline import SentimentReasoningPipeline
from mmsr.languages import language_code
from mmsr.model.packaged import checkpoint, is_packaged
from mmsr.progress import log
from mmsr.records import Utterance
from mmsr.workflows.settings import Rows


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Checked rows for a model.

    Attributes:
        model: The folder or Hub id of a checkpoint, or another name of what answers.
        rows: Which rows.
        labels: The labels of the model.
        table: All rows of the manifest.
        splits: The rows of `train`, `dev` and `test`.
        data_fingerprint: Of all rows (see `fingerprint`).
        started: When loading began, by `time.perf_counter`.
    """

    model: str
    rows: Rows
    labels: Sequence[str]
    table: datasets.Dataset
    splits: Mapping[Split, datasets.Dataset]
    data_fingerprint: str
    started: float

    @classmethod
    def open(
        cls,
        model: str | Path,
        rows: Rows,
        *,
        labels: Sequence[str],
        required: Sequence[Split] = ("test",),
        started: float | None = None,
    ) -> Inputs:
        """Read and check a manifest with the labels of a model, and its audio.

        The audio of the required splits is decoded to its end: a file that is damaged would otherwise end a
        workflow after hours.

        Args:
            model: The model's name.
            rows: Which rows of which manifest.
            labels: The model's labels.
            required: The splits that must have rows.
            started: When loading began, by `time.perf_counter`; by default now.

        Raises:
            ValueError: The manifest or audio cannot be read, or a required split has no rows.
        """
        started = time.perf_counter() if started is None else started
        table = load_manifest(rows.manifest, labels=labels, columns=rows.columns, label_map=rows.label_map)
        splits = select_rows(
            table,
            split=rows.split,
            train_split=rows.train_split,
            dev_split=rows.dev_split,
            fold=rows.fold,
            folds=rows.folds,
            dev_speakers=rows.dev_speakers,
            required=required,
            source=rows.manifest,
        )
        issues = [
            issue for split in required for issue in audio_issues(splits[split], Path(rows.manifest).name)
        ]
        if issues:
            raise ManifestError(issues)
        return cls(
            model=str(model),
            rows=rows,
            labels=labels,
            table=table,
            splits=splits,
            data_fingerprint=fingerprint(table),
            started=started,
        )

    def utterances(self, split: Split) -> list[Utterance]:
        """The rows of a split."""
        return utterances(self.splits[split])

    @property
    def title(self) -> str:
        """The title of a report: checkpoint, manifest and split."""
        part = self.rows.split if self.rows.fold is not None or has_splits(self.table) else "all rows"
        return f"{checkpoint_name(self.model)}: {Path(self.rows.manifest).name}, {part}"

    def provenance(self, *, seed: int) -> Provenance:
        """Provenance of metrics of these rows, with the seconds since loading began."""
        return Provenance(
            seed=seed, data_fingerprint=self.data_fingerprint, seconds=time.perf_counter() - self.started
        )


def open_checkpoint(
    model: str | Path, rows: Rows, *, required: Sequence[Split] = ("test",)
) -> tuple[SentimentReasoningPipeline, Inputs]:
    """Load a checkpoint as a pipeline, and the rows of a manifest for it.

    Raises:
        ValueError: The checkpoint cannot be read, or as `Inputs.open`.
    """
    started = time.perf_counter()
    pipe = load_pipeline(model)
    labels = pipe.model.config.labels
    return pipe, Inputs.open(model, rows, labels=labels, required=required, started=started)


def checkpoint_name(model: str) -> str:
    """The name of a checkpoint in a report: its run's folder, or the given name."""
    return Path(model).resolve().parent.name if (Path(model) / "config.json").is_file() else model


def model_facts(model: str, pipe: SentimentReasoningPipeline) -> dict[str, Any]:
    """Name, fusion and number of weights of a checkpoint.

    Beside the run.yaml of its training also `settings`, a hash that is equal for trainings that differ in
    their seed and folder alone.
    """
    facts: dict[str, Any] = {
        "name": checkpoint_name(model),
        "fusion": pipe.model.config.fusion,
        "parameters": sum(weight.numel() for weight in pipe.model.parameters()),
    }
    if is_packaged(model):
        return facts | {"packaged": True}
    path = Path(model).parent / "run.yaml"
    if path.is_file():
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        trainer = {k: v for k, v in (settings.get("trainer") or {}).items() if k != "default_root_dir"}
        kept = {k: v for k, v in settings.items() if k not in ("seed_everything", "begun_with")}
        content = json.dumps(kept | {"trainer": trainer}, sort_keys=True, default=str)
        facts["settings"] = hashlib.sha256(content.encode()).hexdigest()[:16]
    return facts


def training_seed(model: str) -> dict[str, Any]:
    """The seed of a checkpoint's training as `{"training_seed": seed}`; {} if it is not known.

    It is read from the run.yaml beside the checkpoint, or from the packaged checkpoint's own facts.
    """
    if is_packaged(model):
        facts = json.loads((checkpoint(model) / "checkpoint.json").read_text(encoding="utf-8"))
        return {"training_seed": facts["seed"]}
    path = Path(model).parent / "run.yaml"
    settings = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {"training_seed": settings["seed_everything"]} if "seed_everything" in settings else {}


def stored_states(model: str, pipe: SentimentReasoningPipeline) -> Callable[[str], torch.Tensor] | None:
    """The audio encoder's states by path, from the feature store of the run that trained the checkpoint.

    They are encoded in float32, as without a store, and once for all conditions and evaluations.

    Returns:
        None if that run had no store for its audio encoder, or the store is not there.
    """
    path = Path(model).parent / "run.yaml"
    run = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    settings = run.get("model", {})
    folder, frozen = settings.get("feature_store"), settings.get("freeze") or ()
    if folder is None or "audio_encoder" not in frozen or not Path(folder).is_dir():
        return None
    log(f"states of the audio encoder are read from and written to {folder}, the store of its training")
    dtype = settings.get("feature_dtype", "float16")
    return stored_audio(pipe.model, pipe.processor, folder, bf16=False, dtype=dtype)


def training_history(model: str) -> list[dict[str, Any]] | None:
    """The metrics of each epoch of a checkpoint's training, from the history.json beside it."""
    path = Path(model).parent / "history.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def corpus_beside(manifest: str | Path) -> dict[str, Any]:
    """The content of the corpus.json beside a manifest as `{"corpus": content}`; {} if there is none."""
    path = Path(manifest).with_name("corpus.json")
    return {"corpus": json.loads(path.read_text(encoding="utf-8"))} if path.is_file() else {}


def spread(rows: Sequence[Utterance], count: int) -> list[Utterance]:
    """Up to `count` rows to show, one of each kind in turn, English first: other scripts need other fonts."""
    groups: dict[tuple[bool, str | None], list[Utterance]] = {}
    for row in rows:
        if row.audio or row.text:
            groups.setdefault((language_code(row.language) != "en", row.kind), []).append(row)
    ordered = [groups[key] for key in sorted(groups, key=str)]
    turns = (group[turn] for turn in range(len(rows)) for group in ordered if turn < len(group))
    return [row for row, _ in zip(turns, range(count), strict=False)]

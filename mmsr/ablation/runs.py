"""One run of an ablation: its folder, its training and evaluation, its result.

    Run ─► settings.yaml ─► `mmsr fit` ─► model/ ─► test rows ─► metrics.json, predictions.jsonl
        ─► result.json

A run of a language model trains nothing, and has answers.jsonl in place of model/. A folder with a
result.json is finished. One without is resumed from its last checkpoint.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mmsr.ablation.spec import Evaluation
from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.data.manifest.manifest import utterances
from mmsr.evaluation.provenance import ORIGIN, Provenance
from mmsr.evaluation.run import evaluate, write_run
from mmsr.files import folder_lock, write_file
from mmsr.inference.language_models.answering import open_language_model
from mmsr.inference.language_models.settings import LanguageModelSettings
from mmsr.model.processing import MmsrProcessor
from mmsr.records import Predict, Prediction
from mmsr.training.monitor import LAST_EPOCH, mode_of
from mmsr.training.run import fit, is_bf16

_ASKED = 32  # rows at a time of a language model, or requests to its server

Open = Callable[..., Predict]
"""Opens a finished model's folder; a function at the top of a module, so that it can be pickled.

If the run's audio encoder was frozen, it gets the `feature_store`, and how that keeps states (`bf16`,
`dtype`), by keyword.
"""


@dataclass(frozen=True)
class Run:
    """One training with one seed."""

    variant: str  # its variant; of several with the same settings, the first
    seed: int  # of weights and order
    name: str  # a digest of settings and data, and the seed
    folder: Path
    settings: dict[str, Any]  # content of settings.yaml without seed and folder
    data_fingerprint: str  # of its manifest
    condition: str  # under which it is compared
    evaluation: Evaluation
    fold: int | None = None  # of the speakers; it is in the settings too
    shared: tuple[str, ...] = ()  # conditions of other variants that are the same run
    language_model: LanguageModelSettings | None = None  # answers in place of a trained model

    @property
    def label(self) -> str:
        """Its name for people."""
        return f"{self.variant}, seed {self.seed}" + ("" if self.fold is None else f", fold {self.fold}")

    @property
    def conditions(self) -> list[str]:
        """The conditions under which its variant is shown, `condition` first."""
        return list(dict.fromkeys((self.condition, *self.evaluation.conditions)))

    @property
    def answered(self) -> list[str]:
        """The conditions under which it answers test rows, for all variants that are this run."""
        return list(dict.fromkeys((*self.conditions, *self.shared)))

    @property
    def audio_states(self) -> dict[str, Any] | None:
        """How the feature store keeps the states of the frozen audio encoder; None without such states."""
        model = self.settings.get("model") or {}
        if not model.get("feature_store") or "audio_encoder" not in (model.get("freeze") or ()):
            return None
        bf16 = is_bf16((self.settings.get("trainer") or {}).get("precision"))
        return {"bf16": bf16, "dtype": model.get("feature_dtype") or "float16"}

    def result(self) -> dict[str, Any] | None:
        """The content of result.json, if the run is finished and was evaluated as it is to be now."""
        path = self.folder / "result.json"
        if not path.is_file():
            return None
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        # only whether there was a store: how it keeps states may differ between machines
        from_store = found.get("audio_states") is not None
        answered = set(self.answered) <= set(found["conditions"])
        same = answered and from_store == (self.audio_states is not None)
        return found if same else None

    @property
    def labels(self) -> list[str]:
        """The label set of a finished run."""
        result = self.result()
        assert result is not None
        return result["labels"]

    def data(self) -> MmsrDataModule:
        """The data of a trained run, with the manifest's rationales even if a control replaced them."""
        data = MmsrDataModule(**{**self.settings["data"], "rationales": "given"})
        if self.language_model is None:
            data.attach(MmsrProcessor.from_pretrained(self.folder / "model"))
        return data


def train_and_evaluate(open_model: Open, run: Run) -> None:
    """Write the files of a run that are missing; result.json comes last.

    Raises:
        ValueError: Another process works on the run, or its training or evaluation has a fault.
    """
    with folder_lock(run.folder):
        _train_and_evaluate(open_model, run)


def _train_and_evaluate(open_model: Open, run: Run) -> None:
    started = time.perf_counter()
    model = run.folder / "model"
    trained = _origin_of_training(run) if model.exists() else {}
    if not model.exists() and run.language_model is None:
        train(run)
    data, states = run.data(), run.audio_states
    if run.language_model is not None:
        labels = list(run.language_model.labels)
        metrics, predictions = _ask(data, run, run.language_model)
        cost: dict[str, Any] = {"trained_parameters": 0, "seconds": []}
    else:
        assert data.processor is not None
        labels = data.processor.labels
        kept = {} if states is None else {"feature_store": run.settings["model"]["feature_store"], **states}
        metrics, predictions = _evaluate(open_model(model, **kept), data, run, labels)
        cost = json.loads((run.folder / "cost.json").read_text(encoding="utf-8"))
    write_run(
        run.folder,
        {"test": metrics},
        predictions,
        provenance=Provenance(
            seed=run.seed,
            data_fingerprint=run.data_fingerprint,
            seconds=time.perf_counter() - started,
        ),
        extra={name: value for name, value in (("trained", trained), ("audio_states", states)) if value},
    )
    result = {
        "conditions": run.answered,
        "audio_states": states,
        "labels": labels,
        "trained_parameters": cost["trained_parameters"],
        "epochs": len(cost["seconds"]),
        "seconds_an_epoch": float(np.mean(cost["seconds"])) if cost["seconds"] else None,
        "dev": kept_epoch(run) if run.language_model is None else {},
    }
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)  # each has three times the model's size
    write_file(run.folder / "result.json", json.dumps(result, indent=1).encode())


def _ask(
    data: MmsrDataModule, run: Run, settings: LanguageModelSettings
) -> tuple[dict[str, Any], list[Prediction]]:
    """Metrics and predictions of a language model; its prompt shows training rows alone."""
    held_out = {str(row.id) for rows in (data.test_rows, data.dev_rows) for row in utterances(rows)}
    with open_language_model(
        settings,
        utterances(data.train_rows),
        held_out=held_out,
        journal=run.folder / "answers.jsonl",
        batch_size=_ASKED,
    ) as predict:
        return _evaluate(predict, data, run, list(settings.labels), chunk=_ASKED)


def train(run: Run) -> None:
    """Train a run in its folder, or resume it; the folder is emptied if it has other settings."""
    trainer = run.settings.get("trainer") or {}
    cost = {"class_path": "mmsr.training.callbacks.Cost"}
    settings = {
        **run.settings,
        "seed_everything": run.seed,
        "trainer": {
            **trainer,
            "default_root_dir": str(run.folder),
            "enable_progress_bar": False,
            "callbacks": [*(trainer.get("callbacks") or []), cost],
        },
    }
    file, content = run.folder / "settings.yaml", yaml.safe_dump(settings, allow_unicode=True).encode()
    if file.exists() and file.read_bytes() != content:  # the data has moved: the run starts again
        kept = ("log.txt", ".lock", ".locked_by")
        for left in (path for path in run.folder.iterdir() if path.name not in kept):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    write_file(file, content)
    fit(["-c", str(file), "--trainer.enable_progress_bar", "true"])  # lines in log.txt


def _evaluate(
    predict: Predict, data: MmsrDataModule, run: Run, labels: list[str], *, chunk: int = 128
) -> tuple[dict[str, Any], list[Prediction]]:
    """Metrics by condition, and predictions, of the test rows."""
    rows = utterances(data.test_rows)
    options: dict[str, Any] = {"labels": labels, "chunk": chunk}
    plain = [name for name in run.answered if name != "shuffled_audio"]
    metrics, predictions = evaluate(predict, rows, conditions=plain, **options)
    if "shuffled_audio" in run.answered:  # with the transcript that the variant reads
        read = [replace(row, text=getattr(row, data.text_column)) for row in rows]
        more, answered = evaluate(predict, read, conditions=["shuffled_audio"], **options)
        metrics, predictions = {**metrics, **more}, [*predictions, *answered]
    return metrics, predictions


def _origin_of_training(run: Run) -> dict[str, Any]:
    """Command, versions and machine that trained a model which is evaluated again; empty if unknown.

    They are those of its first evaluation, which followed the training.
    """
    path = run.folder / "metrics.json"
    if not path.is_file():
        return {}
    before = json.loads(path.read_text(encoding="utf-8"))
    return before.get("trained") or {name: before[name] for name in ORIGIN}


def kept_epoch(run: Run) -> dict[str, float]:
    """The finite metrics of the epoch that the model is of; empty if the run diverged."""
    history = json.loads((run.folder / "history.json").read_text(encoding="utf-8"))
    monitor = run.settings.get("monitor", "dev_loss")
    kept: dict[str, float]
    if monitor == LAST_EPOCH:
        kept = history[-1] if history else {}
    else:
        best = max if mode_of(monitor) == "max" else min
        rows = [row for row in history if math.isfinite(row.get(monitor, math.nan))]
        kept = best(rows, key=lambda row: row[monitor], default={})
    return {name: value for name, value in kept.items() if math.isfinite(value)}

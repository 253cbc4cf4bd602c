"""One run of an ablation: its settings, its folder, its result and its data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.evaluation.metrics import METRICS
from mmsr.model.processing import MmsrProcessor
from mmsr.training.run import is_bf16

OWN = "own"  # the condition under which a variant was trained


@dataclass(frozen=True)
class Evaluation:
    """How runs are compared.

    Attributes:
        metric: The metric of the table, the differences and the plot, a comparable one of METRICS.
        condition: One of `evaluation.run.CONDITIONS`, or `own`: the modalities of the variant's fusion, with
            the transcript that it was trained on.
        conditions: Further ones, such as shuffled_audio (for a variant that reads the ASR's transcript: that
            with another row's audio).
        also: Further metrics of METRICS to show, such as rougeL, without differences.
        by_language: Show the metric of each language as well.
        cluster: Column of the manifest whose values are drawn as wholes in the intervals and tests over test
            rows, such as the recording; rows without a value stand alone. Without it, the speakers are.
        block_rows: Instead of a column: blocks of so many consecutive rows of the manifest, where neighbours
            are of one recording, or a sentence and its translation.
        bertscore: folder or Hub id of the text encoder of BERTScore, for `also: [bertscore_f1]`.
    """

    metric: str = "macro_f1"
    condition: str = OWN
    conditions: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    by_language: bool = False
    cluster: str | None = None
    block_rows: int | None = None
    bertscore: str | None = None

    @property
    def rationales(self) -> list[str]:
        """Those of `metric` and `also` that are of rationales."""
        return [name for name in (self.metric, *self.also) if METRICS[name].kind == "rationale"]


@dataclass(frozen=True)
class Run:
    """One training with one seed.

    Attributes:
        variant: Its variant; of several with the same settings, the first.
        seed: Of weights and order.
        name: A digest of settings and data, and the seed.
        folder: Its own.
        settings: As in settings.yaml, without seed and folder.
        data_fingerprint: Of its manifest.
        condition: Under which it is compared.
        evaluation: How it is compared.
        fold: Of the speakers, where the ablation goes over folds; it is in the settings too.
    """

    variant: str
    seed: int
    name: str
    folder: Path
    settings: dict[str, Any]
    data_fingerprint: str
    condition: str
    evaluation: Evaluation
    fold: int | None = None

    @property
    def label(self) -> str:
        """Its name for people."""
        return f"{self.variant}, seed {self.seed}" + ("" if self.fold is None else f", fold {self.fold}")

    def result(self) -> dict[str, Any] | None:
        """The content of result.json, where the run is finished and was evaluated as asked for now."""
        path = self.folder / "result.json"
        if not path.is_file():
            return None
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        # whether there was a store, not how it keeps states: a report may be made on another machine
        from_store = found.get("audio_states") is not None
        same = found["conditions"] == self.conditions and from_store == (self.audio_states is not None)
        return found if same else None

    @property
    def audio_states(self) -> dict[str, Any] | None:
        """How the feature store keeps the frozen audio encoder's states, with which test rows are answered.

        None where the run has no store of them, and encodes the audio of its test rows.
        """
        model = self.settings.get("model") or {}
        if not model.get("feature_store") or "audio_encoder" not in (model.get("freeze") or ()):
            return None
        bf16 = is_bf16((self.settings.get("trainer") or {}).get("precision"))
        return {"bf16": bf16, "dtype": model.get("feature_dtype") or "float16"}

    @property
    def conditions(self) -> list[str]:
        """Under which it answers the test rows; the first is the one that it is compared by."""
        return list(dict.fromkeys((self.condition, *self.evaluation.conditions)))


def data_of(run: Run) -> MmsrDataModule:
    """The data of a trained run, with the manifest's rationales even where a control replaced them."""
    data = MmsrDataModule(**{**run.settings["data"], "rationales": "given"})
    data.attach(MmsrProcessor.from_pretrained(run.folder / "model"))
    return data

"""One run of an ablation: what it trains, where it lies, how it is compared."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsr.evaluation.metrics import METRICS
from mmsr.training.run import is_bf16

OWN = "own"  # the condition under which a variant was trained
ORIGIN = ("command", "versions", "machine")  # of metrics.json: where figures come from


@dataclass(frozen=True)
class Evaluation:
    """How runs are compared.

    Attributes:
        metric: a comparable one of `METRICS`; what the table, the differences and the plot are of.
        condition: of `evaluation.run.CONDITIONS`, or `own`: what the variant's fusion reads, of the
            transcript that it was trained on.
        conditions: further ones, such as shuffled_audio (of a variant that reads the ASR's transcript: that
            with another row's audio).
        also: further ones of `METRICS` to show, such as rougeL, without differences.
        by_language: show the metric of each language as well.
        cluster: column of the manifest whose values are drawn as wholes in the intervals and tests over test
            rows, such as the recording; rows without a value stand alone. It beats the speakers.
        block_rows: instead of a column: blocks of so many consecutive rows of the manifest, where neighbours
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
        variant: whose it is; of several with the same settings, the first.
        seed: of weights and order.
        name: by content.
        folder: its own.
        settings: as settings.yaml will say them.
        data_fingerprint: of its manifest.
        condition: under which it is compared.
        evaluation: how.
        fold: of the speakers, where the ablation goes over folds; it is in the settings too.
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
        """What a person calls it."""
        return f"{self.variant}, seed {self.seed}" + ("" if self.fold is None else f", fold {self.fold}")

    def result(self) -> dict[str, Any] | None:
        """What result.json says, where the run is finished and evaluated as it is asked for now."""
        path = self.folder / "result.json"
        if not path.is_file():
            return None
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        # whether from a store, not how that keeps states: who tells of a run may compute otherwise
        from_store = found.get("audio_states") is not None
        same = found["conditions"] == self.conditions and from_store == (self.audio_states is not None)
        return found if same else None

    @property
    def audio_states(self) -> dict[str, Any] | None:
        """How the feature store keeps the frozen audio encoder's states, of which the test rows are answered.

        None where the run has none, and hears its test rows.
        """
        model = self.settings.get("model") or {}
        if not model.get("feature_store") or "audio_encoder" not in (model.get("freeze") or ()):
            return None
        bf16 = is_bf16((self.settings.get("trainer") or {}).get("precision"))
        return {"bf16": bf16, "dtype": model.get("feature_dtype") or "float16"}

    @property
    def conditions(self) -> list[str]:
        """Under which it answers the test rows, the one it is compared by first."""
        return list(dict.fromkeys((self.condition, *self.evaluation.conditions)))

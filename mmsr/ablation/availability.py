"""Which variants can run here: their weights are on this machine, and the manifest has rows for them.

Ablation ─► Ablation of those that can, and why each of the others cannot
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import datasets
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from mmsr.ablation.plan import condition_of, manifest_arguments
from mmsr.ablation.spec import OWN, Ablation, AblationError
from mmsr.data.loading.splits import Split, select_rows
from mmsr.data.manifest.manifest import column_of, load_manifest, rows_in_languages
from mmsr.evaluation.run import CONDITIONS
from mmsr.model.packaged import find_checkpoint
from mmsr.progress import log
from mmsr.training.settings import PRETRAINED

_Columns = Mapping[str, Collection[str]]  # with values, in the training and the test rows
_WEIGHTS = ("*.safetensors", "*.bin")


def available(ablation: Ablation) -> tuple[Ablation, dict[str, str]]:
    """The variants that can run on this machine, and by name why the others cannot.

    All of them, unless the file says `unavailable: skip`. Nothing is downloaded. If the reference cannot run,
    the first variant that can takes its place.

    Raises:
        AblationError: No variant can run.
        ValueError: The manifest is invalid.
    """
    if not ablation.skips_unavailable:
        return ablation, {}
    table = cache(_table)
    columns = cache(partial(_columns, table))
    reasons = {
        name: _missing_weights(ablation, name) or _missing_rows(ablation, name, columns)
        for name in ablation.variants
    }
    not_run = {name: reason for name, reason in reasons.items() if reason is not None}
    kept = [name for name in ablation.variants if name not in not_run]
    if not kept:
        lines = "; ".join(f"{name}: {reason}" for name, reason in not_run.items())
        raise AblationError(f"{ablation.name}: no variant can run here ({lines}); accepted: one that can")
    reference = ablation.reference
    if reference in not_run:
        reference = kept[0]
        log(f"the reference {ablation.reference!r} cannot run here; in its place: {reference!r}")
    changed = replace(
        ablation,
        variants={name: ablation.variants[name] for name in kept},
        changes={name: ablation.changes[name] for name in kept},
        reference=reference,
    )
    return changed, not_run


def explained(not_run: Mapping[str, str]) -> list[str]:
    """A line for each reason: how weights of the Hub are brought here, and the variants that it concerns."""
    variants: dict[str, list[str]] = {}
    for name, reason in not_run.items():
        variants.setdefault(reason, []).append(name)
    return [f"not run: {reason}{_remedy(reason)} ({'; '.join(names)})" for reason, names in variants.items()]


def _remedy(reason: str) -> str:
    kind, name, *_ = reason.split()
    is_path = Path(name).is_absolute() or name.startswith(".")
    return f", hf download {name}" if kind == "weights" and not is_path else ""


# ---------------------------------------------------------------------- weights


def _missing_weights(ablation: Ablation, name: str) -> str | None:
    wanted = ablation.variants[name].get("model") or {}
    names = [wanted.get(part) for part in PRETRAINED]
    if (language_model := ablation.language_models.get(name)) is not None:
        names = [None if language_model.is_served else language_model.model, language_model.examples.encoder]
    missing = next((part for part in names if part is not None and not _is_here(str(part))), None)
    return None if missing is None else f"weights {missing} not here"


def _is_here(name: str) -> bool:
    """Whether a folder, or the Hub's cache of this machine, has the weights of a model."""
    folder = Path(find_checkpoint(name))
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(name, local_files_only=True))
        except (HFValidationError, LocalEntryNotFoundError):
            return False
    return any(file.exists() for pattern in _WEIGHTS for file in folder.glob(pattern))


# ---------------------------------------------------------------------- rows


def _missing_rows(ablation: Ablation, name: str, columns: Callable[[str], _Columns | str]) -> str | None:
    """What the rows lack that a variant is trained or tested on."""
    settings = ablation.variants[name]
    condition = ablation.evaluation.condition
    tested = CONDITIONS[condition_of(ablation, name) if condition == OWN else condition]
    trained = CONDITIONS[condition_of(ablation, name, in_training=True)]
    data = settings.get("data") or {}
    choice = {key: data[key] for key in _CHOOSE_ROWS if data.get(key) is not None}
    if ablation.folds:
        choice["fold"] = ablation.folds[0]
    found = columns(json.dumps([manifest_arguments(settings), choice]))
    if isinstance(found, str):
        return found
    needed = [("test", column) for column in tested]
    if name not in ablation.language_models:
        needed += [("training", column) for column in trained]
    missing = next(((part, column) for part, column in needed if column and column not in found[part]), None)
    return None if missing is None else f"no {missing[0]} row has {missing[1]}"


_CHOOSE_ROWS = ("languages", "fold", "folds", "dev_speakers", "train_split", "dev_split", "test_split")


def _columns(table: Callable[[str], datasets.Dataset], described: str) -> _Columns | str:
    """Which of audio, text and asr_text have values in test and training rows, or what is missing."""
    reading, choice = json.loads(described)
    rows = table(json.dumps(reading))
    if (languages := choice.pop("languages", None)) is not None:
        rows, absent = rows_in_languages(rows, languages)
        if absent:
            return f"no row is in {', '.join(absent)}"
    choice["split"] = choice.pop("test_split", "test")
    splits = select_rows(rows, **choice, source=reading["source"])
    return {
        part: {
            column
            for column in ("audio", "text", "asr_text")
            if (values := column_of(splits[name], column)).null_count < len(values)
        }
        for part, name in _PARTS.items()
    }


_PARTS: dict[str, Split] = {"test": "test", "training": "train"}


def _table(described: str) -> datasets.Dataset:
    return load_manifest(**json.loads(described), check_audio=False)

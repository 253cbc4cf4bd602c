"""The runs of an ablation, named by their content, and the units of its intervals."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentError

from mmsr.ablation.runs import OWN, Evaluation, Run
from mmsr.ablation.spec import PRETRAINED, Ablation, AblationError, ParsedSettings, Settings
from mmsr.data.features.store import file_digest
from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.data.manifest.manifest import (
    COLUMNS,
    ManifestError,
    column_of,
    distinct,
    fingerprint,
    load_manifest,
)
from mmsr.model.configuration import fusion_modalities
from mmsr.model.processing import MmsrProcessor
from mmsr.training.run import settings_that_matter

# ---------------------------------------------------------------------- runs and their names


def plan(ablation: Ablation) -> list[list[Run]]:
    """The runs of each variant, in the order of the file; seeds within, folds within these.

    Raises:
        AblationError: settings that `mmsr fit` would refuse; names the variant. Or `evaluation.cluster` is
            no column of a manifest.
        ValueError: faults in a manifest.
    """
    fingerprints: dict[str, str] = {}
    runs = []
    for variant, whole in ablation.variants.items():
        row = []
        for fold in ablation.folds or (None,):
            settings = _with_feature_store(whole, ablation.out)
            if fold is not None:
                settings = {**settings, "data": {**(settings.get("data") or {}), "fold": fold}}
            try:
                matter = resolved(settings)
            except (ArgumentError, ValueError, TypeError) as error:
                reason = " ".join(str(error).split())
                raise AblationError(f"variant {variant!r} ({ablation.changes[variant]}): {reason}") from error
            reading = _reading(matter)
            if (known := json.dumps(reading)) not in fingerprints:
                rows = load_manifest(**reading, check_audio=False)  # they are read for their fingerprint
                fingerprints[known] = fingerprint(rows)
                if ablation.evaluation.cluster is not None:  # a fault in it is told before anything runs
                    units_of(ablation.evaluation, settings["data"])
            digest = content_name(matter, data_fingerprint=fingerprints[known])
            condition = ablation.evaluation.condition
            if condition == OWN:
                condition = own_condition(matter)
            row += [
                Run(
                    variant=variant,
                    seed=seed,
                    name=f"{digest}-seed{seed}",
                    folder=ablation.out / "runs" / f"{digest}-seed{seed}",
                    settings=settings,
                    data_fingerprint=fingerprints[known],
                    condition=condition,
                    evaluation=ablation.evaluation,
                    fold=fold,
                )
                for seed in ablation.seeds
            ]
        runs.append(sorted(row, key=lambda run: ablation.seeds.index(run.seed)))
    return runs


def resolved(settings: Settings) -> Settings:
    """All settings of a run that matter and are not null, defaults included, after `mmsr fit`'s own checks.

    Raises:
        ArgumentError, ValueError, TypeError: a setting is unknown, or has a value that is not accepted.
    """
    return settings_that_matter(ParsedSettings(settings))


def content_name(matter: Settings, *, data_fingerprint: str) -> str:
    """Twelve hex digits for settings and data, the same in any order and wherever the files lie.

    What is pretrained counts by the bytes of its folder, or by its Hub id; the manifest by its fingerprint;
    a feature store by being there. The seed does not count.
    """
    model = dict(matter["model"])
    model["feature_store"] = "feature_store" in model
    for part in set(PRETRAINED) & set(model):
        if os.path.isdir(model[part]):
            model[part] = _folder_digest(Path(model[part]))
    data = {key: value for key, value in matter["data"].items() if key != "manifest"}
    others = {key: value for key, value in matter.items() if key not in ("model", "data", "seed_everything")}
    identity = {**others, "model": model, "data": data, "data_fingerprint": data_fingerprint}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder)}\0".encode() + file_digest(str(file)))
    return digest.hexdigest()


def _reading(matter: Settings) -> dict[str, Any]:
    """How a run's manifest is read, of which its fingerprint is."""
    data = {key: matter["data"].get(key) for key in ("columns", "label_map")}
    return {"source": matter["data"]["manifest"], "labels": matter["model"].get("labels"), **data}


@dataclass(frozen=True)
class Units:
    """What is drawn as a whole in the intervals and tests over test rows.

    Attributes:
        name: in the plural.
        of: number of each row's unit, by the row's id.
    """

    name: str
    of: Mapping[str, int]


def units_of(evaluation: Evaluation, data: Settings) -> Units | None:
    """The units that the evaluation asks for, of a run's manifest; None where it asks for none.

    They are no part of a run, so that finished runs can be told of others.

    Raises:
        AblationError: the column is not there, or has not two values.
    """
    column, size = evaluation.cluster, evaluation.block_rows
    if column is None and size is None:
        return None
    columns, carrier = dict(data.get("columns") or {}), column
    if column is not None and column not in COLUMNS:
        carrier, columns = "kind", {**columns, "kind": column}  # in the place of one that is not asked for
    try:
        rows = load_manifest(
            data["manifest"], columns=columns, label_map=data.get("label_map"), check_audio=False
        )
    except ManifestError as error:  # the rest of it has been read before
        reason = f"{error.issues[0].file}: {error.issues[0].problem}"
        raise AblationError(f"evaluation cluster {column!r}: {reason}; accepted: one of these") from error
    if size is not None:
        return Units(f"blocks of {size} rows", {id_: row // size for row, id_ in enumerate(rows["id"])})
    assert column is not None and carrier is not None
    if len(distinct(rows, carrier)) < 2:
        _refuse_cluster(column, data["manifest"], rows)
    numbers: dict[Any, int] = {}
    values = column_of(rows, carrier).to_pylist()
    keys = [(row,) if value is None else value for row, value in enumerate(values)]
    known = [numbers.setdefault(key, len(numbers)) for key in keys]
    return Units(f"values of {column}", dict(zip(rows["id"], known, strict=True)))


def _refuse_cluster(column: str, manifest: str, rows: Any) -> NoReturn:
    several = [name for name in COLUMNS if len(distinct(rows, name)) > 1]
    raise AblationError(
        f"evaluation cluster {column!r}: {Path(manifest).name} has not two values there; accepted: a column "
        f"that has, such as {', '.join(several)}"
    )


def _with_feature_store(settings: Settings, out: Path) -> Settings:
    """One store for all runs, where encoders are frozen and the file does not say otherwise."""
    model = settings.get("model") or {}
    frozen = {"audio_encoder", "text_encoder"} & set(model.get("freeze") or ())
    augmented = (settings.get("data") or {}).get("augment")
    if not frozen or "feature_store" in model or augmented:
        return settings
    return {**settings, "model": {**model, "feature_store": str(out / "features")}}


def own_condition(matter: Settings) -> str:
    """The condition under which a variant was trained: what its fusion reads, of its transcript.

    A checkpoint to go on from has a fusion of its own, which its settings do not tell: both modalities.
    """
    transcript = "asr" if matter["data"]["text_column"] == "asr_text" else "text"
    reads = fusion_modalities(matter["model"]["fusion"])
    return "+".join(transcript if modality == "text" else modality for modality in reads)


def data_of(run: Run) -> MmsrDataModule:
    """The data of a finished run; with their own rationales, even where it was trained on a control's."""
    data = MmsrDataModule(**{**run.settings["data"], "rationales": "given"})
    data.attach(MmsrProcessor.from_pretrained(run.folder / "model"))
    return data

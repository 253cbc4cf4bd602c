"""The runs of an ablation: variants × folds × seeds, named by their content.

variant ─► resolved settings ─┐
manifest ─► fingerprint ──────┴─► digest ─► OUT/runs/<digest>-seed<seed>
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError

from mmsr.ablation.runs import Run
from mmsr.ablation.spec import OWN, PRETRAINED, Ablation, AblationError, ParsedSettings, Settings
from mmsr.ablation.units import units_of
from mmsr.data.features.store import file_digest
from mmsr.data.manifest.manifest import fingerprint, load_manifest
from mmsr.model.configuration import MmsrConfig, fusion_modalities
from mmsr.training.run import settings_that_matter


def plan(ablation: Ablation) -> list[list[Run]]:
    """The runs of each variant, in the order of the file, by seed and then by fold.

    Raises:
        AblationError: A variant has invalid settings, or `evaluation.cluster` is no column of a manifest.
        ValueError: A manifest is invalid.
    """
    fingerprints: dict[str, str] = {}
    runs = []
    for variant, whole in ablation.variants.items():
        row = []
        for fold in ablation.folds or (None,):
            settings = with_feature_store(whole, ablation.out)
            if fold is not None:
                settings = {**settings, "data": {**(settings.get("data") or {}), "fold": fold}}
            try:
                matter = resolved(settings)
            except (ArgumentError, ValueError, TypeError) as error:
                reason = " ".join(str(error).split())
                raise AblationError(f"variant {variant!r} ({ablation.changes[variant]}): {reason}") from error
            reading = manifest_arguments(matter)
            if (known := json.dumps(reading)) not in fingerprints:
                rows = load_manifest(**reading, check_audio=False)  # for its fingerprint
                fingerprints[known] = fingerprint(rows)
                if ablation.evaluation.cluster is not None:  # raise before anything runs
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
    """The settings of a run in canonical form, checked as `mmsr fit` does.

    Raises:
        ArgumentError, ValueError, TypeError: A setting is unknown or invalid.
    """
    parsed = ParsedSettings(settings)
    matter = settings_that_matter(parsed)
    devices = str(parsed.config["trainer"]["devices"])
    # several devices change batches and steps; one has always been left out of a run's name
    return matter if devices in ("auto", "1") else {**matter, "devices": devices}


def content_name(matter: Settings, *, data_fingerprint: str) -> str:
    """Twelve hex digits of settings and data, independent of order and paths.

    A pretrained part counts by the bytes of its folder or by its Hub id, the manifest by its fingerprint, a
    feature store by its presence, and the seed not at all.
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


def manifest_arguments(matter: Settings) -> dict[str, Any]:
    """The arguments of `load_manifest` with which a run reads its manifest."""
    data = {key: matter["data"].get(key) for key in ("columns", "label_map")}
    return {"source": matter["data"]["manifest"], "labels": matter["model"].get("labels"), **data}


def with_feature_store(settings: Settings, out: Path) -> Settings:
    """Settings with a store for all runs, if encoders are frozen and the file names no store."""
    model = settings.get("model") or {}
    frozen = {"audio_encoder", "text_encoder"} & set(model.get("freeze") or ())
    augmented = (settings.get("data") or {}).get("augment")
    if not frozen or "feature_store" in model or augmented:
        return settings
    return {**settings, "model": {**model, "feature_store": str(out / "features")}}


def own_condition(matter: Settings) -> str:
    """The condition under which a variant was trained: the modalities of its fusion, with its transcript.

    The fusion of `pretrained` is the checkpoint's.
    """
    transcript = "asr" if matter["data"]["text_column"] == "asr_text" else "text"
    checkpoint = matter["model"].get("pretrained")
    fusion = MmsrConfig.from_pretrained(checkpoint).fusion if checkpoint else matter["model"]["fusion"]
    modalities = fusion_modalities(fusion)
    return "+".join(transcript if modality == "text" else modality for modality in modalities)

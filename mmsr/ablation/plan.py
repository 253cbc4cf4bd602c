"""The runs of an ablation: variants × folds × seeds, named by their content.

variant ─► resolved settings ─┐
manifest ─► fingerprint ──────┴─► digest ─► OUT/runs/<digest>-seed<seed>
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError

from mmsr.ablation.runs import Run
from mmsr.ablation.spec import (
    OWN,
    Ablation,
    AblationError,
    ParsedSettings,
    Settings,
    Transcript,
)
from mmsr.ablation.units import units_of
from mmsr.data.features.store import file_digest
from mmsr.data.manifest.manifest import fingerprint, load_manifest
from mmsr.inference.language_models.prompt import Prompt
from mmsr.inference.language_models.settings import SETTINGS_OF_THE_MACHINE, LanguageModelSettings
from mmsr.model.configuration import MmsrConfig, fusion_modalities
from mmsr.model.packaged import find_checkpoint
from mmsr.training.run import settings_that_matter
from mmsr.training.settings import PRETRAINED, ModelSource


def plan(ablation: Ablation) -> list[list[Run]]:
    """The runs of each variant, in the order of the file, by seed and then by fold.

    Variants that differ in the transcript that they are tested on have the same runs. So have the seeds of a
    language model whose prompt does not depend on the seed.

    Raises:
        AblationError: A variant has invalid settings, or `evaluation.cluster` is no column of a manifest.
        ValueError: A manifest is invalid.
    """
    fingerprints: dict[str, str] = {}
    runs = []
    for variant, whole in ablation.variants.items():
        row = []
        language_model = ablation.language_models.get(variant)
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
            condition = ablation.evaluation.condition
            if condition == OWN:
                condition = condition_of(ablation, variant)
            for seed in ablation.seeds:
                asked = None if language_model is None else with_seed(language_model, seed)
                if asked is None:
                    name = f"{content_name(matter, data_fingerprint=fingerprints[known])}-seed{seed}"
                else:
                    settings = {"data": settings["data"]}
                    name = language_model_name(asked, matter["data"], data_fingerprint=fingerprints[known])
                row.append(
                    Run(
                        variant=variant,
                        seed=seed,
                        name=name,
                        folder=ablation.out / "runs" / name,
                        settings=settings,
                        data_fingerprint=fingerprints[known],
                        condition=condition,
                        evaluation=ablation.evaluation,
                        fold=fold,
                        language_model=asked,
                    )
                )
        runs.append(sorted(row, key=lambda run: ablation.seeds.index(run.seed)))
    conditions: dict[str, set[str]] = {}
    for run in itertools.chain.from_iterable(runs):
        conditions.setdefault(run.name, set()).update(run.conditions)
    return [[replace(run, shared=tuple(sorted(conditions[run.name]))) for run in row] for row in runs]


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

    A pretrained part counts by the bytes of its folder or by its Hub id, a packaged checkpoint by its
    bytes, the manifest by its fingerprint, a feature store by its presence, and the seed not at all.
    """
    model = dict(matter["model"])
    model["feature_store"] = "feature_store" in model
    for part in set(PRETRAINED) & set(model):
        folder = find_checkpoint(model[part])
        if os.path.isdir(folder):
            model[part] = _folder_digest(Path(folder))
    data = {key: value for key, value in matter["data"].items() if key != "manifest"}
    others = {key: value for key, value in matter.items() if key not in ("model", "data", "seed_everything")}
    identity = {**others, "model": model, "data": data, "data_fingerprint": data_fingerprint}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def with_seed(settings: LanguageModelSettings, seed: int) -> LanguageModelSettings:
    """A language model whose random examples, if it is shown some, are drawn by the seed of a run."""
    if settings.examples.choose != "random":
        return settings
    return replace(settings, examples=replace(settings.examples, seed=seed))


def language_model_name(
    settings: LanguageModelSettings, data: Mapping[str, Any], *, data_fingerprint: str
) -> str:
    """The name of a run of a language model, as `content_name`, by its settings, prompt and data."""
    asked = asdict(settings) | {"read": settings.reads, "prompt": Prompt.open(settings.prompt).digest}
    for name in SETTINGS_OF_THE_MACHINE:
        del asked[name]
    for place, name in ((asked, "model"), (asked["examples"], "encoder")):
        if place[name] is not None and os.path.isdir(place[name]):
            place[name] = _folder_digest(Path(place[name]))
    others = {key: value for key, value in data.items() if key not in ("manifest", "seed")}
    identity = {"language_model": asked, "data": others, "data_fingerprint": data_fingerprint}
    return f"{hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]}-answers"


def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder)}\0".encode() + file_digest(str(file)))
    return digest.hexdigest()


def manifest_arguments(matter: Settings) -> dict[str, Any]:
    """The arguments of `load_manifest` with which a run reads its manifest."""
    data = {key: matter["data"].get(key) for key in ("columns", "label_map")}
    return {"source": matter["data"]["manifest"], "labels": (matter.get("model") or {}).get("labels"), **data}


def with_feature_store(settings: Settings, out: Path) -> Settings:
    """Settings with a store for all runs, if encoders are frozen and the file names no store."""
    model = settings.get("model") or {}
    frozen = {"audio_encoder", "text_encoder"} & set(model.get("freeze") or ())
    augmented = (settings.get("data") or {}).get("augment")
    if not frozen or "feature_store" in model or augmented:
        return settings
    return {**settings, "model": {**model, "feature_store": str(out / "features")}}


def condition_of(ablation: Ablation, variant: str, *, in_training: bool = False) -> str:
    """The condition of what a variant reads, with the transcript that it is tested on, or trained on."""
    settings = ablation.variants[variant]
    test_transcript = None if in_training else ablation.test_transcripts.get(variant)
    if (language_model := ablation.language_models.get(variant)) is None:
        return own_condition(settings, test_transcript=test_transcript)
    modalities = ("audio", "text") if language_model.audio else ("text",)
    return _condition(modalities, settings, test_transcript)


def own_condition(settings: Settings, *, test_transcript: Transcript | None = None) -> str:
    """The condition under which a model was trained: what it reads, with its transcript or another one.

    What `pretrained` reads is in the checkpoint.
    """
    model = settings.get("model") or {}
    config = model.get("config") or {}
    fusion, prompted = model.get("fusion") or ModelSource.fusion, config.get("prompt_transcript")
    if checkpoint := model.get("pretrained"):
        pretrained = MmsrConfig.from_pretrained(checkpoint)
        fusion, prompted = pretrained.fusion, pretrained.prompt_transcript
    modalities = fusion_modalities(fusion)
    if prompted and "text" not in modalities:
        modalities = (*modalities, "text")
    return _condition(modalities, settings, test_transcript)


def _condition(modalities: Sequence[str], settings: Settings, test_transcript: Transcript | None) -> str:
    column = test_transcript or (settings.get("data") or {}).get("text_column")
    transcript = "asr" if column == "asr_text" else "text"
    return "+".join(transcript if modality == "text" else modality for modality in modalities)

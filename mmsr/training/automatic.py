"""Settings of `mmsr fit` with the value `auto`: chosen by the training rows, before the run is named by them.

rows with a rationale ─► model.rationale_format
rows of each label    ─► data.balance
lengths of recordings ─► model.config.audio_window_seconds, with a Whisper encoder
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

import numpy as np
from jsonargparse import Namespace

from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.data.manifest.manifest import column_of
from mmsr.model.configuration import MmsrConfig
from mmsr.model.packaged import find_checkpoint

AUTO = "auto"
_COVERED = 0.95  # share of the recordings that fit into one window


def choose_settings(config: Namespace, tell: Callable[[str], object]) -> MmsrDataModule | None:
    """Replace each `auto` in the settings of `mmsr fit`.

    Args:
        config: All settings, changed in place.
        tell: Gets a line about each choice.

    Returns:
        The data by which they were chosen; None where no setting is `auto`.

    Raises:
        ValueError: The training rows cannot be read.
    """
    window = (config["model.config"] or {}).get("audio_window_seconds")
    if AUTO not in (config["model.rationale_format"], config["data.balance"], window):
        return None
    data = MmsrDataModule(**config["data"].as_dict())
    if config["model.rationale_format"] == AUTO:
        config["model.rationale_format"], why = _rationale_format(config, data)
        tell(f"rationale_format {config['model.rationale_format']}: {why}")
    if config["data.balance"] == AUTO:
        config["data.balance"], why = _balance(config, data)
        tell(f"balance {config['data.balance'] or 'null'}: {why}")
    if window == AUTO:
        settings = dict(config["model.config"])
        seconds, why = _window(config, data)
        if seconds is None:
            del settings["audio_window_seconds"]
        else:
            settings["audio_window_seconds"] = seconds
        config["model.config"] = settings
        tell(f"audio_window_seconds {'null' if seconds is None else f'{seconds:g}'}: {why}")
    return data


def _rationale_format(config: Namespace, data: MmsrDataModule) -> tuple[str, str]:
    if config["model.pretrained"]:
        return "multitask", "the checkpoint has its own"  # which is the default, and so no contradiction
    column = column_of(data.train_rows, "rationale")
    known = len(column) - column.null_count
    if not known:
        return "none", "no training row has a rationale"
    return "multitask", f"{known:,} of {len(column):,} training rows have a rationale"


def _balance(config: Namespace, data: MmsrDataModule) -> tuple[str | None, str]:
    if config["model.class_weights"] is not None:
        return None, "class_weights make up for rare labels"
    found = ", ".join(f"{count:,} {label}" for label, count in data.label_counts.most_common())
    return data.balance, f"training rows are {found or 'without labels'}"


def _window(config: Namespace, data: MmsrDataModule) -> tuple[float | None, str]:
    """Whole seconds that hold `_COVERED` of the training recordings, where the audio encoder is a Whisper."""
    if config["model.pretrained"]:
        return None, "the checkpoint has its own"
    kind, longest = None, 0.0
    if config["model.audio"]:
        with contextlib.suppress(OSError, ValueError):  # told later, together with what would be accepted
            encoder = MmsrConfig.of_encoder(find_checkpoint(config["model.audio"]), "audio")
            kind, longest = encoder.model_type, getattr(encoder, "max_source_positions", 0) / 50
    if kind != "whisper":
        return None, "only Whisper's encoder has windows"
    seconds = data.train_seconds()
    if not len(seconds):
        return None, "no training row has audio"
    length = float(np.quantile(seconds, _COVERED))
    why = (
        f"{_COVERED:.0%} of the training recordings last at most {length:.1f} s; Whisper's own window has "
        f"{longest:g} s"
    )
    window = float(max(1, math.ceil(length)))
    return (None, why) if window >= longest else (window, why)

"""How long an ablation takes, or a training: each variant is begun, and its parts are timed."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from mmsr.ablation.plan import plan
from mmsr.ablation.spec import Ablation, read_ablation
from mmsr.training.arguments import packaged_config, with_packaged_configs
from mmsr.workflows.estimates.costs import Estimate, Part
from mmsr.workflows.estimates.training import ENCODING, estimate_training


def estimate_config(
    config: str | os.PathLike[str],
    settings: Sequence[str] = (),
    *,
    hours: float | None = None,
    calibrate: float = 60.0,
) -> Estimate:
    """Time, memory and disk of a training, or of an ablation, by its YAML file.

    Args:
        config: A file of `mmsr fit` or `mmsr ablate`; packaged ones are found by their name.
        settings: Settings of `mmsr fit` over it, such as `--data.manifest M`; none for an ablation.
        hours: See `estimate_training`.
        calibrate: Seconds for timing, of an ablation shared by its variants.

    Raises:
        ValueError: The file or a setting is invalid, or the rows cannot be read.
    """
    words = with_packaged_configs(["-c", os.fspath(config), *settings])
    try:
        content = yaml.safe_load(Path(words[1]).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        content = None  # `mmsr fit` tells what is wrong
    if not isinstance(content, dict) or not content.keys() & {"base", "grid", "variants"}:
        return estimate_training(words, hours=hours, calibrate=calibrate)
    if settings:
        raise ValueError(
            f"{settings[0]} with the ablation {config}; accepted: settings in its file, and --hours"
        )
    ablation = read_ablation(words[1], find=lambda name: packaged_config(Path(name).name))
    return estimate_ablation(ablation, hours=hours, calibrate=calibrate)


def estimate_ablation(ablation: Ablation, *, hours: float | None = None, calibrate: float = 60.0) -> Estimate:
    """Time, memory and disk of the runs of an ablation that are not finished, one after another.

    States of frozen encoders are counted once for all runs.

    Args:
        ablation: The ablation.
        hours: See `estimate_training`.
        calibrate: Seconds for timing, which the variants share.

    Raises:
        ValueError: A variant has invalid settings, or the rows cannot be read.
    """
    started = time.perf_counter()
    asked = [[run for run in row if run.result() is None] for row in plan(ablation)]
    asked = [row for row in asked if row]
    if not asked:
        raise ValueError(f"{ablation.out}: all runs are finished; accepted: an ablation with runs to do")
    parts: list[Part] = []
    estimates: list[Estimate] = []
    disk: dict[str, float] = {}
    stored: set[tuple[str, str]] = set()
    with tempfile.TemporaryDirectory(prefix="mmsr-plan-") as folder:
        file = Path(folder) / "settings.yaml"
        for row in asked:
            file.write_text(yaml.safe_dump(row[0].settings, allow_unicode=True), encoding="utf-8")
            share = calibrate / len(asked)
            found = estimate_training(["-c", str(file)], hours=hours, calibrate=share, compare=False)
            estimates.append(found)
            own = [part for part in found.parts[1:] if not part.name.startswith(ENCODING)]
            parts += [_together(row[0].variant, own, runs=len(row))]
            for part in found.parts:
                encoder = (part.name, str(row[0].settings["model"].get(part.name.removeprefix(ENCODING))))
                if part.name.startswith(ENCODING) and encoder not in stored:
                    stored.add(encoder)
                    parts.insert(0, part)
            for name, size in found.disk.items():
                shared = name == "feature store"
                disk[name] = max(disk.get(name, 0), size) if shared else disk.get(name, 0) + len(row) * size
    runs = sum(map(len, asked))
    return dataclasses.replace(
        max(estimates, key=lambda found: found.memory),
        job=f"{runs:,} runs of {ablation.name}, one after another",
        parts=[estimates[0].parts[0], *parts],
        disk=disk,
        calibration_seconds=time.perf_counter() - started,
        notes=[
            "without the answers to the test rows, which each run gives after its training",
            *estimates[0].notes,
        ],
        facts={"runs": runs},
    )


def _together(name: str, parts: Sequence[Part], *, runs: int) -> Part:
    """The parts of a variant's runs as one."""
    return Part(
        name=name,
        amount=f"{runs} run{'s' if runs > 1 else ''}",
        seconds=runs * sum(part.seconds for part in parts),
        processor_seconds=runs * sum(part.processor_seconds for part in parts),
        low=runs * sum(part.low for part in parts),
        high=runs * sum(part.high for part in parts),
        measured=sum(part.measured for part in parts),
    )

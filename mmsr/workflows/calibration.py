"""Calibrates a checkpoint: its temperature is fitted to development rows and written to its config.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any, Literal

from mmsr.evaluation.calibration import CalibrationError, calibrate
from mmsr.files import atomic_write, check_output, write_file
from mmsr.inference.loading import predictor
from mmsr.model.packaged import find_checkpoint, is_packaged
from mmsr.workflows.inputs import open_checkpoint
from mmsr.workflows.settings import Rows


@dataclass(frozen=True)
class Calibration:
    """The config.json that was written, and what was fitted, as `mmsr.evaluation.calibration` returns it."""

    config: Path
    found: dict[str, Any]


def calibrate_checkpoint(
    model: str | Path,
    rows: Rows,
    *,
    text_column: Literal["text", "asr_text"] = "text",
    batch_size: int = 32,
    out: str | Path | None = None,
) -> Calibration:
    """Fit the temperature of a checkpoint to the development rows of a manifest.

    Example:
        >>> calibrate_checkpoint("demo", Rows("mine.csv"), out="demo-of-mine").found["temperature"]

    Args:
        model: The folder of a checkpoint, or the name of a packaged one, which needs `out`.
        rows: Which rows of which manifest; those of the development split are used.
        text_column: The transcript that the model reads.
        batch_size: The number of rows in a batch.
        out: A new folder for a calibrated copy; by default the config.json of the checkpoint is rewritten.

    Raises:
        ValueError: The checkpoint is packaged and there is no `out`, or cannot be read; `out` exists; or no
            temperature can be fitted to the rows.
    """
    name = str(model)
    if is_packaged(name) and out is None:
        kept = f"--model {name} is packaged with mmsr and stays as it is"
        raise ValueError(f"{kept}; accepted: with --out FOLDER, for a calibrated copy")
    folder = Path(find_checkpoint(name))
    if not (folder / "config.json").is_file():
        raise ValueError(f"--model {name}: no config.json there; accepted: a folder that `mmsr fit` wrote")
    if out is not None and Path(out).exists():
        raise ValueError(f"--out {out} exists already; accepted: a new folder")
    check_output(folder if out is None else out, folder=True, name="--model" if out is None else "--out")
    pipe, inputs = open_checkpoint(name, rows, required=["dev"])
    config = pipe.model.config
    config.temperature = config.decoder_temperature = 1.0
    try:
        found = calibrate(
            predictor(pipe, batch_size=batch_size, rationale=False),
            inputs.utterances("dev"),
            labels=inputs.labels,
            text_column=text_column,
        )
    except CalibrationError as error:
        part = f"split {rows.dev_split}" if rows.fold is None else f"development rows of fold {rows.fold}"
        raise ValueError(f"{rows.manifest}, {part}: {error}") from None
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    settings |= {name: value for name, value in found.items() if name.endswith("temperature")}
    content = (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode()
    if out is None:
        write_file(folder / "config.json", content)
    else:
        with atomic_write(out) as copy:
            copytree(folder, copy)
            (copy / "config.json").write_bytes(content)
    return Calibration(Path(out or folder) / "config.json", found)

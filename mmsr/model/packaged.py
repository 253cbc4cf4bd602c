"""Checkpoints in the package, to try it without training and without a download."""

from __future__ import annotations

import os
from pathlib import Path

from mmsr.messages import did_you_mean

FOLDER = Path(__file__).parents[1] / "checkpoints"
DEFAULT = "base"
"""The checkpoint of whoever names none, in Python and on the command line."""


def checkpoint(name: str) -> Path:
    """The folder of a packaged checkpoint, for `from_pretrained` and `pipeline(model=...)`.

    `base` was trained on human speech and text; `demo` on synthetic voices and a toy grammar, and its
    decoder writes rationales. The README.md of each tells its data, results and limits. The checkpoint
    `base` is not the size `base` of `MmsrConfig.from_preset` and `mmsr fit --model.preset`.

    Raises:
        ValueError: There is none of this name.
    """
    names = sorted(folder.name for folder in FOLDER.iterdir() if (folder / "config.json").is_file())
    if name not in names:
        hint = did_you_mean(name, names)
        raise ValueError(f"no packaged checkpoint is called {name!r}{hint}; accepted: {', '.join(names)}")
    return FOLDER / name


def find_checkpoint(model: str | os.PathLike[str]) -> str:
    """The folder of a packaged checkpoint that is meant by its name; any other folder or Hub id as it is."""
    return str(checkpoint(str(model)) if is_packaged(model) else model)


def is_packaged(model: str | os.PathLike[str]) -> bool:
    """Whether a model's name means a packaged checkpoint, and not a folder of that name here."""
    inside = Path(model).name == str(model) and (FOLDER / model / "config.json").is_file()
    return inside and not (Path(model) / "config.json").is_file()

"""What errors add for who mistyped: the nearest name, and what is wrong with a path."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

_SHOWN_PLACES = 20  # of issues that no command lists
_DEMO_CORPUS = os.path.join("runs", "demo", "corpus", "manifest.csv")  # as in the packaged configurations
_SAME_FILE = 0.8  # of a name's characters; endings alone make many files alike


def one_line(error: BaseException) -> str:
    """An error in one line: of several issues the first, how many follow, and how to see them."""
    issues: Sequence[Any] = getattr(error, "issues", ())  # of a manifest
    if len(issues) > 1:
        listed_by = getattr(error, "listed_by", None)
        places = dict.fromkeys(issue.place for issue in issues[1:])
        told = ", ".join([*places][:_SHOWN_PLACES]) + (", ..." if len(places) > _SHOWN_PLACES else "")
        rest = f"; for all: {listed_by}" if listed_by else f": {told}"
        return f"{issues[0]} ({len(issues) - 1:,} more{rest})"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    return " ".join(str(error).splitlines()) or type(error).__name__


def nearest(name: str, accepted: Iterable[str]) -> str | None:
    """The accepted name that is most like `name`, if any is.

    Of dotted names the last part, or its end, may be given alone: `epochs` and `trainer.epochs` mean
    `trainer.max_epochs`.
    """
    accepted = list(accepted)
    section, _, last = name.rpartition(".")
    of_section = [whole for whole in accepted if section and whole.startswith(f"{section}.")]
    if ends := [whole for whole in of_section if whole.endswith(f"_{last}")]:
        return ends[0]
    if near := get_close_matches(name, accepted, n=1):
        return near[0]
    if ends := [whole for whole in accepted if re.search(rf"[._]{re.escape(name)}$", whole)]:
        return ends[0]
    lasts = {whole.rpartition(".")[2]: whole for whole in reversed(accepted)}
    near = get_close_matches(name.rpartition(".")[2], lasts, n=1, cutoff=0.7)
    return lasts[near[0]] if near else None


def did_you_mean(name: str, accepted: Iterable[str]) -> str:
    """`; did you mean NEAREST?`, or nothing where none is near."""
    near = nearest(name, accepted)
    return "" if near is None else f"; did you mean {near}?"


def no_such_file(path: str | os.PathLike[str], *, what: str = "file") -> str:
    """`PATH: no such file`, and where that can be told what the path should be.

    Args:
        path: The path, which does not exist.
        what: What was expected there, such as a folder.
    """
    given = os.fspath(path)
    folder, name = os.path.split(given.rstrip("/"))
    if given.endswith("/"):
        what = "folder"
    hint = ""
    if os.path.normpath(given).endswith(_DEMO_CORPUS):
        hint = f"; mmsr data make-demo --out {folder} makes it, or mmsr demo with all that follows"
    elif given.startswith("~"):
        hint = "; the shell has not replaced ~, write $HOME"
    elif os.sep == "/" and re.match(r"[A-Za-z]:[\\/]|[^/]*\\", given):
        hint = "; it is written as on Windows, where here folders are separated by /"
    elif folder and not os.path.isdir(folder):
        hint = f", nor the folder {folder}"
    elif os.access(folder or ".", os.R_OK):
        near = get_close_matches(name, os.listdir(folder or "."), n=1, cutoff=_SAME_FILE)
        hint = f"; did you mean {os.path.join(folder, near[0])}?" if near else ""
    return f"{given}: no such {what}{hint}"

"""Ratings as the sheets saved them, checked against the key, with the names of the systems."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from mmsr.evaluation.human.sheet import KEY_FORMAT, PREFERENCE

RATINGS_FORMAT = "mmsr-ratings-1"
SCALE = (1, 2, 3, 4, 5)
SIDES = {"left": "A", "right": "B"}  # and their names on the sheet
CHOICES = (*SIDES, "same")
_SHOWN = 3  # missing answers that a message lists


class RatingsError(ValueError):
    """An invalid key or file of ratings; the message names file, item and field, and what is accepted."""


@dataclass(frozen=True)
class Rating:
    """The rating of one item by one rater."""

    rater: str
    id: str  # of the row
    left: str  # system on the left
    right: str  # system on the right
    scores: dict[str, dict[str, int]]  # {system: {criterion: 1 to 5}}
    preferred: str | None  # None if neither system is
    repeat: bool  # whether the rater had seen this item before
    seconds: float  # time on the screen
    plays: int  # number of times that the recording was started


def read_key(path: Path | str) -> dict[str, Any]:
    """Read the key.json that `make_sheets` wrote.

    Raises:
        RatingsError: The file is not such a key.
    """
    key = _object(Path(path), KEY_FORMAT, "the key.json that mmsr human make wrote")
    if lacking := [name for name in ("sheets", "systems", "criteria") if name not in key]:
        raise RatingsError(f"{path}: no {', '.join(lacking)}; accepted: key.json as mmsr human make wrote it")
    return key


def read_ratings(
    files: Sequence[Path | str], key: Mapping[str, Any], *, partial: bool = False
) -> tuple[list[Rating], int]:
    """Read and check the ratings of all raters. A rater has one file; raters may share a sheet.

    Args:
        files: Files that the sheets saved.
        key: The result of `read_key`.
        partial: Leave out items with a missing answer, instead of raising.

    Returns:
        The ratings, and the number of items that were left out.

    Raises:
        RatingsError: There is no file, a file is not from a sheet of this key, a rater has two files, or an
            answer is missing or not on the scale.
    """
    if not files:
        raise RatingsError("no file of ratings; accepted: one or more, as the sheets saved them")
    ratings: list[Rating] = []
    left_out = 0
    owner: dict[str, Path] = {}
    for file in map(Path, files):
        content = _object(file, RATINGS_FORMAT, "a file that a sheet of mmsr human make saved")
        rater = content.get("rater")
        if not isinstance(rater, str) or not rater.strip():
            raise RatingsError(f"{file}: rater {rater!r}; accepted: a name")
        rater = rater.strip()
        if rater in owner:
            raise RatingsError(
                f"{file}: rater {rater!r} is in {owner[rater]} too; accepted: one file a rater"
            )
        owner[rater] = file
        if content.get("sheet") not in key["sheets"]:
            raise RatingsError(
                f"{file}: sheet {content.get('sheet')!r} is not of this key;"
                f" accepted: {', '.join(key['sheets'])}"
            )
        showings = key["sheets"][content["sheet"]]["items"]
        answers = _by_number(file, content.get("items"), len(showings))
        missing = {number: _missing(given, number, key["criteria"]) for number, given in answers.items()}
        if (names := list(chain.from_iterable(missing.values()))) and not partial:
            more = " ..." if len(names) > _SHOWN else ""
            raise RatingsError(
                f"{file}: {len(names)} answers are missing ({'; '.join(names[:_SHOWN])}{more});"
                " accepted: complete sheets, or --partial to leave those items out"
            )
        complete = [showing for showing in showings if not missing[showing["item"]]]
        left_out += len(showings) - len(complete)
        ratings += [
            _rating(file, rater, showing, answers[showing["item"]], key["criteria"]) for showing in complete
        ]
    if not ratings:
        raise RatingsError("no item is rated completely; accepted: one or more")
    return ratings, left_out


def ratings_fingerprint(files: Sequence[Path | str]) -> str:
    """16 hex digits of the contents of files of ratings, independent of their order and names."""
    digests = sorted(hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files)
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]


def _object(path: Path, form: str, accepted: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise RatingsError(f"{path}: no JSON ({error}); accepted: {accepted}") from None
    found = content.get("format") if isinstance(content, dict) else None
    if found != form:
        raise RatingsError(f"{path}: format {found!r}; accepted: {form!r}, {accepted}")
    return content


def _by_number(file: Path, items: Any, count: int) -> dict[int, Mapping[str, Any]]:
    """The answers by the number of the item, in order, each once."""
    found: dict[int, list[Mapping[str, Any]]] = {number: [] for number in range(1, count + 1)}
    for item in items if isinstance(items, list) else ():
        number = item.get("item") if isinstance(item, dict) else None
        if not isinstance(number, int) or number not in found:
            raise RatingsError(f"{file}: item {number!r}; accepted: 1 to {count}")
        found[number].append(item)
    for number, given in found.items():
        if len(given) != 1:
            raise RatingsError(f"{file}: item {number} is there {len(given)} times; accepted: once")
    return {number: given for number, (given,) in found.items()}


def _missing(given: Mapping[str, Any], number: int, criteria: Mapping[str, str]) -> list[str]:
    """The questions without an answer."""
    missing = [
        f"item {number}, answer {name}: {criterion}"
        for side, name in SIDES.items()
        for criterion in criteria
        if (given.get(side) or {}).get(criterion) is None
    ]
    return missing if given.get(PREFERENCE) is not None else [*missing, f"item {number}: {PREFERENCE}"]


def _rating(
    file: Path,
    rater: str,
    showing: Mapping[str, Any],
    given: Mapping[str, Any],
    criteria: Mapping[str, str],
) -> Rating:
    where = f"{file}: item {showing['item']}"
    for side, name in SIDES.items():
        for criterion in criteria:
            if (value := given[side][criterion]) not in SCALE or isinstance(value, bool):
                raise RatingsError(f"{where}, answer {name}: {criterion} {value!r}; accepted: 1 to 5")
    if given[PREFERENCE] not in CHOICES:
        raise RatingsError(f"{where}: {PREFERENCE} {given[PREFERENCE]!r}; accepted: {', '.join(CHOICES)}")
    return Rating(
        rater=rater,
        id=showing["id"],
        left=showing["left"],
        right=showing["right"],
        scores={showing[side]: {name: int(given[side][name]) for name in criteria} for side in SIDES},
        preferred=showing.get(given[PREFERENCE]),
        repeat=showing["repeat"],
        seconds=float(given.get("seconds") or 0),
        plays=int(given.get("plays") or 0),
    )

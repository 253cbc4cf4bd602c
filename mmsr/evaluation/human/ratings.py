"""What raters saved, checked against the key, with the systems' names put back."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmsr.evaluation.human.sheet import KEY_FORMAT, PREFERENCE

RATINGS_FORMAT = "mmsr-ratings-1"
SCALE = (1, 2, 3, 4, 5)
SIDES = {"left": "A", "right": "B"}  # as the sheet calls them
CHOICES = (*SIDES, "same")
_SHOWN = 3  # missing answers that a message names


class RatingsError(ValueError):
    """A key or a file of ratings that cannot be used; names file, item and field, and what is accepted."""


@dataclass(frozen=True)
class Rating:
    """What one rater said of one item.

    Attributes:
        rater: Who.
        id: The row's.
        left: System that stood left.
        right: System that stood right.
        scores: {system: {criterion: 1 to 5}}.
        preferred: The system that is better; None where there is no difference.
        repeat: Whether the rater had seen this item before.
        seconds: How long it was on the screen.
        plays: How often its recording was started.
    """

    rater: str
    id: str
    left: str
    right: str
    scores: dict[str, dict[str, int]]
    preferred: str | None
    repeat: bool
    seconds: float
    plays: int


def read_key(path: Path | str) -> dict[str, Any]:
    """The key.json that `make_sheets` wrote.

    Raises:
        RatingsError: It is no such file.
    """
    key = _object(Path(path), KEY_FORMAT, "the key.json that mmsr human make wrote")
    if lacking := [name for name in ("sheets", "systems", "criteria") if name not in key]:
        raise RatingsError(f"{path}: no {', '.join(lacking)}; accepted: key.json as mmsr human make wrote it")
    return key


def read_ratings(
    files: Sequence[Path | str], key: Mapping[str, Any], *, partial: bool = False
) -> tuple[list[Rating], int]:
    """Ratings of all raters, each file checked whole.

    A sheet may be rated by several raters, and a rater has one file.

    Args:
        files: What the sheets saved.
        key: See `read_key`.
        partial: Leave items out of which an answer is missing, instead of refusing.

    Returns:
        The ratings, and how many items were left out.

    Raises:
        RatingsError: No file; one that a sheet of this key did not save; a rater with two files; an answer
            that is missing or not on the scale.
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
        lacking = [
            name for one in showings for name in _lacking(answers[one["item"]], one["item"], key["criteria"])
        ]
        if lacking and not partial:
            more = " ..." if len(lacking) > _SHOWN else ""
            raise RatingsError(
                f"{file}: {len(lacking)} answers are missing ({'; '.join(lacking[:_SHOWN])}{more});"
                " accepted: complete sheets, or --partial to leave those items out"
            )
        for one in showings:
            given = answers[one["item"]]
            if _lacking(given, one["item"], key["criteria"]):
                left_out += 1
            else:
                ratings.append(_rating(file, rater, one, given, key["criteria"]))
    if not ratings:
        raise RatingsError("no item is rated completely; accepted: one or more")
    return ratings, left_out


def ratings_fingerprint(files: Sequence[Path | str]) -> str:
    """16 hex digits over the contents of files of ratings, whatever their order and their names."""
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
    """The answers by number of item, each there once."""
    found: dict[int, Mapping[str, Any]] = {}
    numbers = []
    for item in items if isinstance(items, list) else ():
        number = item.get("item") if isinstance(item, dict) else None
        if not isinstance(number, int) or not 1 <= number <= count:
            raise RatingsError(f"{file}: item {number!r}; accepted: 1 to {count}")
        numbers.append(number)
        found[number] = item
    for number in range(1, count + 1):
        if numbers.count(number) != 1:
            raise RatingsError(
                f"{file}: item {number} is there {numbers.count(number)} times; accepted: once"
            )
    return found


def _lacking(given: Mapping[str, Any], number: int, criteria: Mapping[str, str]) -> list[str]:
    """What was not answered, in words."""
    open_ = [
        f"item {number}, answer {name}: {criterion}"
        for side, name in SIDES.items()
        for criterion in criteria
        if (given.get(side) or {}).get(criterion) is None
    ]
    return open_ if given.get(PREFERENCE) is not None else [*open_, f"item {number}: {PREFERENCE}"]


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

"""Blinded sheets on which people rate the answers of two systems to the same utterances.

    systems, manifest rows ─► rows that all answered ─► sample by label and language ─┬─► sheets/*.html
                                                                                      └─► key.json

A sheet is one HTML file with the audio inside, which loads nothing. Answers stay in the browser until the
rater saves them as a file. It names neither systems nor rows: only key.json does, which is not in the folder
of the sheets, so that this folder can be handed out whole.
"""

import base64
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from mmsr.evaluation.compare import System, read_runs
from mmsr.evaluation.metrics import has_text
from mmsr.files import atomic_write
from mmsr.languages import language_code
from mmsr.records import SAMPLE_RATE, Prediction, Progress, Utterance

KEY_FORMAT = "mmsr-human-key-1"
PREFERENCE = "preference"  # the question beside the criteria
CRITERIA = {
    "correctness": "The label and the reason are right for this utterance.",
    "clarity": "The reason is clear and easy to understand.",
    "relevance": "The reason names what matters clinically.",
}

Listen = Callable[[Any], NDArray[Any]]
"""Reads a manifest's audio as samples `[s]` in [-1, 1] at `SAMPLE_RATE`."""


class SheetError(ValueError):
    """Sheets that cannot be made; the message says why, and what is accepted."""


class Made(NamedTuple):
    """The files that were written."""

    key: Path  # which raters must not see
    sheets: list[Path]  # one HTML file for each rater
    rows: int  # number of different rows on the sheets
    candidates: int  # number of rows from which they were drawn


@dataclass(frozen=True, kw_only=True)
class SheetDesign:
    """The design of the sheets."""

    items: int = 30  # number of different rows on each sheet
    raters: int = 1  # number of sheets
    shared: int | None = None  # number of rows that are on every sheet, for agreement; by default all
    repeats: int = 0  # number of items that come again in the second half, with exchanged sides
    differing: bool = False  # draw only rows whose rationales differ between all systems
    criteria: Mapping[str, str] = field(default_factory=lambda: CRITERIA)  # name: statement, rated 1 to 5

    @property
    def common(self) -> int:
        """The number of rows that are on every sheet."""
        return self.items if self.shared is None else self.shared


class Showing(NamedTuple):
    """An item of a sheet: a row, and the system on each side."""

    id: str
    left: str
    right: str
    repeat: bool


def make_sheets(
    systems: Sequence[System],
    rows: Sequence[Utterance],
    out: Path | str,
    *,
    listen: Listen,
    design: SheetDesign,
    condition: str | None = None,
    seed: int = 0,
    command: str = "",
    data_fingerprint: str | None = None,
    progress: Progress | None = None,
) -> Made:
    """Write sheets/sheet-1.html and so on, and key.json.

    Each label and each language has its share of the items (a systematic sample of the rows sorted by both),
    so that means over items estimate those over all rows. With more than two systems, each row shows one
    pair, and all pairs come equally often. The order is random on each sheet, and each system of a pair is on
    the left in half of the items.

    Args:
        systems: Two or more, of one run each.
        rows: The rows of the manifest, for audio and transcripts.
        out: A new folder.
        listen: Reads audio, see `Listen`.
        design: The design of the sheets.
        condition: The condition of systems without one; by default the first that all have.
        seed: The seed of every draw.
        command: The command line, for the key.
        data_fingerprint: The fingerprint of the manifest, for the key.
        progress: Called after each recording.

    Raises:
        SheetError: The systems cannot be rated (fewer than two, several seeds, no rationales, equal names),
            the design does not fit the rows, or the folder is not new.
        CompareError: Predictions cannot be read.
    """
    out = Path(out)
    _check(systems, out, design)
    items, raters, criteria = design.items, design.raters, design.criteria
    conditions, runs = read_runs(systems, condition)
    answers = {system.name: run for system, (run,) in zip(systems, runs, strict=True)}
    candidates = _candidates(answers, rows, differing=design.differing)
    wanted = design.common + raters * (items - design.common)
    if wanted > len(candidates):
        which = f"{len(candidates):,} {'with different rationales ' if design.differing else ''}"
        raise SheetError(
            f"--items {items}: {wanted:,} rows are wanted for {raters} raters and {which}are there that all "
            "systems answered; accepted: fewer items, or more of them --shared"
        )
    generator = np.random.default_rng(seed)
    drawn = [candidates[i] for i in stratified(_strata(candidates), wanted, generator)]
    sheets = _plan(drawn, list(answers), design=design, generator=generator)
    shown = _contents(drawn, listen, progress)
    key: dict[str, Any] = {
        "format": KEY_FORMAT,
        "command": command,
        "data_fingerprint": data_fingerprint,
        "seed": seed,
        "differing": design.differing,
        "candidates": len(candidates),
        "criteria": dict(criteria),
        "systems": {
            run.name: _origin(run.files[0], name) for run, name in zip(systems, conditions, strict=True)
        },
    }
    with atomic_write(out) as folder:
        (folder / "sheets").mkdir(parents=True)
        key["sheets"] = _write_sheets(folder / "sheets", sheets, answers, shown, key)
        (folder / "key.json").write_text(
            f"{json.dumps(key, ensure_ascii=False, indent=2)}\n", encoding="utf-8"
        )
    pages = [out / "sheets" / entry["file"] for entry in key["sheets"].values()]
    return Made(out / "key.json", pages, wanted, len(candidates))


def _write_sheets(
    folder: Path,
    sheets: Sequence[Sequence[Showing]],
    answers: Mapping[str, Mapping[str, Prediction]],
    shown: Mapping[str, Mapping[str, Any]],
    key: Mapping[str, Any],
) -> dict[str, Any]:
    """Write a page for each sheet; return the sheets of the key, by digest."""
    entries = {}
    for number, showings in enumerate(sheets, start=1):
        content = []
        for showing in showings:
            left, right = (answers[system][showing.id] for system in (showing.left, showing.right))
            content.append({**shown[showing.id], "left": _answer(left), "right": _answer(right)})
        blob = json.dumps([number, key["seed"], key["criteria"], content], ensure_ascii=False)
        sheet = hashlib.sha256(blob.encode()).hexdigest()[:12]
        page = _render({"sheet": sheet, "criteria": key["criteria"], "items": content})
        (folder / f"sheet-{number}.html").write_text(page, encoding="utf-8")
        entries[sheet] = {
            "file": f"sheet-{number}.html",
            "items": [{"item": n, **showing._asdict()} for n, showing in enumerate(showings, start=1)],
        }
    return entries


def stratified(strata: Sequence[str], count: int, generator: np.random.Generator) -> list[int]:
    """Draw a systematic sample, in which every stratum has its share, up to less than one row.

    Args:
        strata: The stratum of each row `[n]`.
        count: The size of the sample, n or less.
        generator: For the order within strata, and the start of the sample.

    Returns:
        Positions `[count]`, sorted by stratum.
    """
    shuffled = generator.permutation(len(strata))
    order = sorted(shuffled.tolist(), key=lambda i: strata[i])
    places = (np.arange(count) + generator.random()) * len(order) / max(count, 1)
    return [order[int(place)] for place in places]


def _strata(rows: Sequence[Utterance]) -> list[str]:
    return [f"{row.label} {language_code(row.language)}" for row in rows]


def _origin(predictions: Path, condition: str) -> dict[str, Any]:
    """The provenance of a system's predictions, with that of the metrics.json beside them."""
    path = predictions.with_name("metrics.json")
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    kept = ("seed", "training_seed", "data_fingerprint", "command")
    return {
        "file": str(predictions),
        "sha256": hashlib.sha256(predictions.read_bytes()).hexdigest(),
        "condition": condition,
        "metrics": {name: found[name] for name in kept if name in found},
    }


def _check(systems: Sequence[System], out: Path, design: SheetDesign) -> None:
    if len(systems) < 2:
        raise SheetError(f"{len(systems)} run; accepted: two or more to compare")
    names = [system.name for system in systems]
    if len(set(names)) < len(names):
        raise SheetError(f"two runs are called {max(names, key=names.count)!r}; accepted: NAME=RUN for each")
    for system in systems:
        if len(system.files) > 1:
            raise SheetError(f"{system.name}: {len(system.files)} runs match; accepted: one, of one seed")
    items, criteria = design.items, design.criteria
    for flag, value in (("items", items), ("raters", design.raters)):
        if value < 1:
            raise SheetError(f"--{flag} {value}; accepted: 1 or more")
    for flag, value, most in (("shared", design.common, items), ("repeats", design.repeats, items // 2)):
        if not 0 <= value <= most:
            raise SheetError(f"--{flag} {value}; accepted: 0 to {most} with --items {items}")
    if not criteria or PREFERENCE in criteria or not all(map(has_text, (*criteria, *criteria.values()))):
        raise SheetError(
            f"--criteria {dict(criteria)}; accepted: NAME=STATEMENT, one or more, none called {PREFERENCE}"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SheetError(
            f"--out {out} is there, and without its key.json no rating can be read; accepted: a new folder"
        )


def _candidates(
    answers: Mapping[str, Mapping[str, Prediction]], rows: Sequence[Utterance], *, differing: bool
) -> list[Utterance]:
    """Manifest rows that all systems answered."""
    for name, run in answers.items():
        if not any(has_text(row.predicted_rationale) for row in run.values()):
            raise SheetError(f"{name}: no row has a predicted_rationale; accepted: systems that give reasons")
    common = set.intersection(*(set(run) for run in answers.values()))
    found = [row for row in rows if row.id in common]
    if not found:
        raise SheetError(
            f"none of {len(common):,} rows that all runs answered is in the manifest;"
            " accepted: the manifest that they were evaluated on"
        )
    if not differing:
        return found
    different = len(answers)
    return [
        row
        for row in found
        if len({run[str(row.id)].predicted_rationale for run in answers.values()}) == different
    ]


def _plan(
    rows: Sequence[Utterance],
    systems: Sequence[str],
    *,
    design: SheetDesign,
    generator: np.random.Generator,
) -> list[list[Showing]]:
    """The items of each sheet, in order."""
    ids = [str(row.id) for row in rows]
    pairs = list(combinations(systems, 2))
    rounds = -(-len(ids) // len(pairs))
    turns = np.concatenate([generator.permutation(len(pairs)) for _ in range(rounds)])
    pair_of = {id: pairs[turn] for id, turn in zip(ids, turns, strict=False)}
    common = set(stratified(_strata(rows), design.common, generator))
    own = [i for i in range(len(ids)) if i not in common]
    sheets = []
    for rater in range(design.raters):
        mine = generator.permutation([*sorted(common), *own[rater :: design.raters]])
        exchanged = generator.permutation(len(mine)) % 2
        first = []
        for i, exchange in zip(mine, exchanged, strict=True):
            left, right = pair_of[ids[i]][:: -1 if exchange else 1]
            first.append(Showing(ids[i], left, right, False))
        half = len(first) // 2
        again = [
            Showing(first[i].id, first[i].right, first[i].left, True)
            for i in generator.permutation(half)[: design.repeats]
        ]
        late = [*first[half:], *again]
        sheets.append([*first[:half], *(late[i] for i in generator.permutation(len(late)))])
    return sheets


def _contents(
    rows: Sequence[Utterance], listen: Listen, progress: Progress | None
) -> dict[str, dict[str, Any]]:
    """Audio and transcript of each row. Ids are left out, since they may reveal the label (RAVDESS)."""
    shown = {}
    for done, row in enumerate(rows, start=1):
        shown[str(row.id)] = {
            "audio": _sound(listen(row.audio)) if row.has("audio") else None,
            "text": row.text or row.asr_text,
            "language": language_code(row.language),
        }
        if progress:
            progress("sound", done, len(rows))
    return shown


def _sound(samples: NDArray[Any]) -> str:
    """Samples `[s]` as FLAC in a data URI, without the tags of the source file."""
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return f"data:audio/flac;base64,{base64.b64encode(file.getvalue()).decode()}"


def _answer(row: Prediction) -> dict[str, str | None]:
    return {"label": row.predicted_label, "rationale": row.predicted_rationale}


def _render(content: Mapping[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("mmsr.evaluation.human", ".")
    environment = Environment(autoescape=True, undefined=StrictUndefined, loader=loader)
    # criteria are asked in the given order
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    return environment.get_template("sheet.html.jinja").render(content=content, sheet=content["sheet"])

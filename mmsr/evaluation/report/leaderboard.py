"""The page of a leaderboard: a table a test set, which readers sort.

boards of `mmsr.evaluation.leaderboard` ─► page, or a table as Markdown, CSV or LaTeX
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mmsr.evaluation.compare import LEVEL, as_p_value
from mmsr.evaluation.leaderboard import Board, RunResult, Standing
from mmsr.evaluation.metrics import METRICS
from mmsr.evaluation.report.formats import render
from mmsr.evaluation.report.names import (
    MISSING,
    NAMES,
    RATIONALE_BASELINES,
    TableFormat,
    number,
    weight_count,
)
from mmsr.evaluation.report.page import Block, Picture, Quote, Row, Table, origin, write_page
from mmsr.evaluation.report.pictures import Effect, draw_effects, p_text


def write_leaderboard(path: Path | str, boards: Sequence[Board], *, document: Mapping[str, Any]) -> Path:
    """Write the page of boards to `path`, Markdown and pictures beside it; return `path`.

    `document` is the provenance of the comparisons, with keys of metrics.json.
    """
    path = Path(path)
    sections: dict[str, Callable[[Path], list[Block]]] = {}
    for place, board in enumerate(boards, start=1):
        part = partial(_section, board, name=f"{path.stem}-{place}")
        sections[f"Data {board.fingerprint}: {board.rows:,} rows of split {board.split}"] = part
    runs = sum(len(standing.runs) for board in boards for standing in board.standings)
    metric = METRICS[boards[0].metric].title
    apart = " Runs on different data stand in different tables." if len(boards) > 1 else ""
    return write_page(
        path,
        sections,
        path.parent,
        title=f"Leaderboard: {metric}",
        lead=f"{runs} runs of {sum(len(board.standings) for board in boards)} systems; runs that differ in "
        f"their seed alone are one system.{apart} A click on a heading sorts by it.",
        provenance=origin(document),
    )


def leaderboard_table(
    boards: Sequence[Board], form: TableFormat, columns: Sequence[str] | None = None
) -> str:
    """The boards in a format; each is a table of its own in Markdown and LaTeX, in CSV one has all."""
    if form != "csv":
        bold = (
            " Bold: the best, and those that p (Holm) does not show to be worse." if form == "latex" else ""
        )
        shown = []
        for board in boards:
            table = _table(board)
            table = replace(table, caption=table.caption + bold)
            label = f"leaderboard-{board.metric}-{board.fingerprint}-{board.split}"
            shown.append(render(table, form, columns=columns, bold=_leading(board), label=label))
        return "\n".join(shown)
    rows: list[tuple[Row, dict[str, str | Quote]]] = []
    for board in boards:
        parts = _parts_table(board)
        by_name = {row.name: dict(zip(parts.columns[1:], row.cells, strict=True)) for row in parts.rows}
        table = _table(board)
        for row in table.rows:
            cells = dict(zip(table.columns[1:], row.cells, strict=True)) | by_name.get(row.name, {})
            rows.append((row, {"data": board.fingerprint, "split": board.split, **cells}))
    every = list(dict.fromkeys(column for _, cells in rows for column in cells))
    whole = [row._replace(cells=[cells.get(column, MISSING) for column in every]) for row, cells in rows]
    return render(Table(["system", *every], whole, ""), form, columns=columns, label="leaderboard")


def _section(board: Board, folder: Path, *, name: str) -> list[Block]:
    blocks: list[Block] = [_table(board, folder)]
    effects = [
        Effect(
            standing.name,
            -pair.difference,
            (-pair.interval[1], -pair.interval[0]),
            pair.p_holm < LEVEL,
            p_text(pair.p_holm),
        )
        for standing in board.standings
        if (pair := standing.comparison) is not None
    ]
    if effects:
        best = board.standings[0].name
        blocks.append(
            Picture(
                name,
                partial(
                    draw_effects, effects, label=f"{METRICS[board.metric].title}, difference from {best}"
                ),
                caption=f"Differences from {best}, with 95 % intervals. A filled mark has p (Holm) below "
                f"{LEVEL}, an open one has not.",
                alt="Marks with intervals, one a system, beside a line at no difference, as in the table.",
                pan=True,
            )
        )
    left = {standing.name: standing.why_not for standing in board.standings if standing.why_not}
    notes = {
        "interval": "95 %, over seeds where there are several: what another seed would change; else over the "
        "test rows or speakers of the one run.",
        "difference": "from the best, on the same rows; with several seeds on both sides interval and p hold "
        "for other seeds too. The best was chosen by these figures, which flatters it.",
        "p (Holm)": "corrected for all systems of the table. What is not below .05 is not shown to be worse.",
        **{f"{system}, not compared": f"{why}." for system, why in left.items()},
    }
    return [*blocks, notes, _parts_table(board), _runs_table(board, folder)]


def _table(board: Board, folder: Path | None = None) -> Table:
    """A row for each system, the best first, then the baselines; with links from the page's `folder`."""
    metric, title = board.metric, METRICS[board.metric].title
    also = [name for name in ("accuracy", "macro_f1", "rougeL") if name != metric]
    rows = []
    for place, standing in enumerate(board.standings, start=1):
        interval, over = standing.interval(metric)
        pair, model = standing.comparison, standing.runs[0].model
        difference = "best" if place == 1 and len(board.standings) > 1 else MISSING
        if pair is not None:
            opposite = (-pair.interval[1], -pair.interval[0])
            difference = number(-pair.difference, opposite, signed=True)
        cells = {
            "rank": str(place),
            title: number(standing.value, interval),
            "interval over": over or MISSING,
            "difference": difference,
            "p (Holm)": MISSING if pair is None else as_p_value(pair.p_holm),
            **{METRICS[name].title: number(standing.mean(standing.condition, name)) for name in also},
            "seeds": str(len(standing.runs)),
            "fusion": str(model.get("fusion") or MISSING),
            "reads": NAMES.get(standing.condition, standing.condition),
            "parameters": weight_count(model.get("parameters")),
            "seconds": _seconds(standing),
        }
        rows.append(Row(standing.name, list(cells.values()), link=_link(standing.runs[0], folder)))
        columns = list(cells)
    for name, entry in _baselines(board).items():
        known = {
            title: number(entry[metric], entry.get("interval", {}).get(metric)),
            "interval over": entry.get("interval_over", MISSING),
            **{METRICS[other].title: number(entry.get(other)) for other in also},
        }
        rows.append(Row(name, [known.get(column, MISSING) for column in columns], baseline=True))
    caption = (
        f"{title} of systems on {board.rows:,} rows of split {board.split}, data {board.fingerprint}. "
        "Brackets: 95 % intervals."
    )
    return Table(["system", *columns], rows, caption, sortable=True).filled()


def _parts_table(board: Board) -> Table:
    """The metric of each system by condition and by language."""
    metric, runs = board.metric, [run for standing in board.standings for run in standing.runs]
    conditions = list(dict.fromkeys(name for run in runs for name in run.conditions))
    languages = sorted({name for standing in board.standings for name in _languages(standing)})
    rows = [
        Row(
            standing.name,
            [
                *(number(standing.mean(name, metric)) for name in conditions),
                *(
                    number(standing.mean(standing.condition, "by_language", name, metric))
                    for name in languages
                ),
            ],
        )
        for standing in board.standings
    ]
    for name, entry in _baselines(board).items():
        known = (entry.get("by_language", {}).get(language, {}).get(metric) for language in languages)
        rows.append(Row(name, [*(MISSING for _ in conditions), *map(number, known)], baseline=True))
    columns = ["system", *(NAMES.get(name, name) for name in conditions), *languages]
    caption = f"{METRICS[metric].title} by condition, and by language under the first condition."
    return Table(columns, rows, caption, sortable=True).filled()


def _baselines(board: Board) -> dict[str, Mapping[str, Any]]:
    """The entries of baselines by title, from the first run that has them, without the model's labels."""
    runs = (run for standing in board.standings for run in standing.runs)
    entries: Mapping[str, Any] = next(
        (found for run in runs if (found := run.document[run.split].get("baselines"))), {}
    )
    of_labels = METRICS[board.metric].kind == "label"
    return {
        NAMES.get(name, name): entry
        for name, entry in entries.items()
        if board.metric in entry and not (of_labels and name in RATIONALE_BASELINES)
    }


def _runs_table(board: Board, folder: Path) -> Table:
    metric = board.metric
    rows = [
        Row(
            os.path.relpath(run.folder, folder),
            [
                standing.name,
                MISSING if run.seed is None else str(run.seed),
                number(value),
                number(run.document.get("seconds"), digits=1),
                str(run.document.get("command") or MISSING),
            ],
            link=_link(run, folder),
        )
        for standing in board.standings
        for run, value in zip(standing.runs, standing.values, strict=True)
    ]
    columns = ["run", "system", "seed", METRICS[metric].title, "seconds", "command"]
    return Table(columns, rows, "The runs, with links to their reports.", words=True, sortable=True)


def _leading(board: Board) -> set[tuple[int, int]]:
    """The cells to set bold: names of the best and of those not shown to be worse."""
    return {
        (place, 0)
        for place, standing in enumerate(board.standings)
        if place == 0 or (standing.comparison is not None and standing.comparison.p_holm >= LEVEL)
    }


def _languages(standing: Standing) -> set[str]:
    found: set[str] = set()
    for run in standing.runs:
        found |= set(run.conditions[standing.condition].get("by_language", {}))
    return found if len(found) > 1 else set()


def _link(run: RunResult, folder: Path | None) -> str:
    """The path of a run's report from the page's folder; empty if it has none."""
    if folder is None or run.report is None:
        return ""
    return quote(os.path.relpath(run.report.resolve(), folder.resolve()).replace(os.sep, "/"))


def _seconds(standing: Standing) -> str:
    known = [run.document["seconds"] for run in standing.runs if "seconds" in run.document]
    return number(sum(known) / len(known), digits=1) if known else MISSING

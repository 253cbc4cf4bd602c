"""The page of a leaderboard: a table a test set, which readers sort.

boards of `mmsr.evaluation.leaderboard` ─► page, or a table as Markdown, CSV or LaTeX
"""

import os
from collections.abc import Callable, Mapping, Sequence
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
from mmsr.evaluation.report.page import Block, Picture, Row, Table, origin, write_page
from mmsr.evaluation.report.pictures import Effect, draw_effects, p_text


def write_leaderboard(path: Path | str, boards: Sequence[Board], *, document: Mapping[str, Any]) -> Path:
    """Write the page of boards to `path`, Markdown and pictures beside it; return `path`.

    `document` is the provenance of the comparisons, with keys of metrics.json.
    """
    path = Path(path)
    sections: dict[str, Callable[[Path], list[Block]]] = {}
    for place, board in enumerate(boards, start=1):
        part = partial(_section, board, name=f"{path.stem}-{place}", several=len(boards) > 1)
        sections[f"{board.split}, {board.rows:,} rows of data {board.fingerprint}"] = part
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


def leaderboard_table(boards: Sequence[Board], form: TableFormat) -> str:
    """The boards in a format; each is a table of its own in Markdown and LaTeX, in CSV one has all."""
    if form != "csv":
        return "\n".join(render(_table(board, None), form, bold=_leading(board)) for board in boards)
    tables = [_table(board, None) for board in boards]
    columns = list(dict.fromkeys(column for table in tables for column in table.columns[1:]))
    rows = []
    for board, table in zip(boards, tables, strict=True):
        for row in table.rows:
            cells = dict(zip(table.columns[1:], row.cells, strict=True))
            own = [board.fingerprint, *(cells.get(column, MISSING) for column in columns)]
            rows.append(row._replace(cells=own))
    return render(Table(["system", "data", *columns], rows, ""), form)


def _section(board: Board, folder: Path, *, name: str, several: bool) -> list[Block]:
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
    return [*blocks, notes, _runs_table(board, folder)]


def _table(board: Board, folder: Path | None) -> Table:
    """A row for each system, the best first, then the baselines; `folder` is that of the page."""
    metric, title = board.metric, METRICS[board.metric].title
    runs = [run for standing in board.standings for run in standing.runs]
    conditions = list(dict.fromkeys(name for run in runs for name in run.conditions))
    languages = sorted({name for s in board.standings for name in _languages(s)})
    also = [name for name in ("accuracy", "macro_f1", "rougeL") if name != metric]
    rows = []
    for place, standing in enumerate(board.standings, start=1):
        interval, over = standing.interval(metric)
        pair = standing.comparison
        models = [run.model for run in standing.runs]
        difference = number(None)
        if place == 1 and len(board.standings) > 1:
            difference = "best"
        elif pair is not None:
            opposite = (-pair.interval[1], -pair.interval[0])
            difference = number(-pair.difference, opposite, signed=True)
        cells = {
            "rank": str(place),
            "fusion": str(models[0].get("fusion") or MISSING),
            "reads": NAMES.get(standing.condition, standing.condition),
            "seeds": str(len(standing.runs)),
            title: number(standing.value, interval),
            "interval over": over or MISSING,
            "difference": difference,
            "p (Holm)": MISSING if pair is None else as_p_value(pair.p_holm),
            **{METRICS[name].title: number(standing.mean(standing.condition, name)) for name in also},
            **{
                f"{title}, {NAMES.get(name, name)}": number(standing.mean(name, metric))
                for name in conditions
            },
            **{
                f"{title}, {name}": number(standing.mean(standing.condition, "by_language", name, metric))
                for name in languages
            },
            "parameters": weight_count(models[0].get("parameters")),
            "seconds": _seconds(standing),
        }
        rows.append(Row(standing.name, list(cells.values()), link=_link(standing.runs[0], folder)))
        columns = list(cells)
    rows += [
        Row(name, [cells.get(column, MISSING) for column in columns], baseline=True)
        for name, cells in _baselines(runs, metric, title, languages).items()
    ]
    caption = (
        f"{title} of systems on {board.rows:,} rows of split {board.split}, data {board.fingerprint}. "
        "Brackets: 95 % intervals."
    )
    return Table(["system", *columns], rows, caption, sortable=True).filled()


def _baselines(
    runs: Sequence[RunResult], metric: str, title: str, languages: Sequence[str]
) -> dict[str, dict[str, str]]:
    """The cells of baselines, from the first run that has them; those of the model's labels are left out."""
    entries: Mapping[str, Any] = next(
        (found for run in runs if (found := run.document[run.split].get("baselines"))), {}
    )
    of_labels = METRICS[metric].kind == "label"
    cells = {}
    for name, entry in entries.items():
        if metric not in entry or (of_labels and name in RATIONALE_BASELINES):
            continue
        cells[NAMES.get(name, name)] = {
            title: number(entry[metric], entry.get("interval", {}).get(metric)),
            "interval over": entry.get("interval_over", MISSING),
            **{
                f"{title}, {language}": number(entry.get("by_language", {}).get(language, {}).get(metric))
                for language in languages
            },
        }
    return cells


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

"""A report's tables as Markdown, CSV, or LaTeX for a paper."""

import csv
import io
import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from mmsr.evaluation.compare import Comparison, caption_of, notes_of, table_of
from mmsr.evaluation.report.names import MISSING, TableFormat
from mmsr.evaluation.report.page import Quote, Row, Table

_PREAMBLE = r"""% \usepackage{booktabs, siunitx}
% \sisetup{detect-all}  % for bold numbers
"""
_DAGGER = r"$^\dagger$"
_BOLD = r"\bfseries "
_NUMBER = re.compile(r"(?P<below><?) ?(?P<sign>[+-]?)(?P<whole>\d*)(?:\.(?P<after>\d+))?(?<=\d)")
_MINUS = re.compile(r"(?<![\w-])-(?=\.?\d)|(?<= )-(?= )")  # of a number, or of a difference
_SPECIAL = {character: "\\" + character for character in "&%$#_{}"}
_SPECIAL |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_SPECIAL |= {"<": "$<$", ">": "$>$", "–": "--", "†": _DAGGER}


def render(
    table: Table,
    form: TableFormat,
    *,
    label: str,
    columns: Sequence[str] | None = None,
    bold: Collection[tuple[int, int]] = (),
) -> str:
    r"""A table in a format. Markdown and LaTeX have its caption.

    Args:
        table: The table.
        form: md, csv or latex.
        label: What `\ref` names the LaTeX table by, after `tab:`.
        columns: The columns to show, in this order, after that of the rows' names; by default all.
        bold: Rows and columns of cells that stand out in LaTeX; column 0 holds the rows' names.

    Raises:
        ValueError: The table has no such column.
    """
    if columns is not None:
        places = [0, *table.places(columns)]
        rows = [row._replace(cells=[row.cells[place - 1] for place in places[1:]]) for row in table.rows]
        kept = [
            number
            for number, row in enumerate(rows)
            if form == "csv" or any(_plain(cell) != MISSING for cell in row.cells)
        ]
        rows = [rows[number] for number in kept]
        bold = {
            (kept.index(row), places.index(place)) for row, place in bold if row in kept and place in places
        }
        table = replace(table, columns=[table.columns[place] for place in places], rows=rows)
    if form == "csv":
        return as_csv(table)
    if form == "latex":
        return as_latex(table, bold=bold, label=label)
    return f"{table.caption}\n\n{table.markdown()}" if table.caption else table.markdown()


def comparison_table(
    comparisons: Sequence[Comparison], form: TableFormat, columns: Sequence[str] | None = None
) -> str:
    """Comparisons of systems in a format; Markdown has notes below it."""
    head, rows = table_of(comparisons)
    first = comparisons[0]
    table = Table(head, [Row(name, cells) for name, *cells in rows], caption_of(comparisons))
    names = dict.fromkeys(name for pair in comparisons for name in (pair.a, pair.b))
    conditions = dict.fromkeys(pair.condition for pair in comparisons)
    label = "-".join(["comparison", first.metric, *conditions, *names])  # of other runs too in one paper
    text = render(table, form, columns=columns, label=label)
    return "\n".join([text, *notes_of(comparisons)]) if form == "md" else text


def as_csv(table: Table) -> str:
    """The table as CSV, with a column that says which rows are baselines; missing values are empty."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow([*table.columns, "baseline"])
    for row in table.rows:
        cells = [row.name.strip("`"), *map(_plain, row.cells)]
        writer.writerow(["" if cell == MISSING else cell for cell in cells] + ["yes" if row.baseline else ""])
    return written.getvalue()


def as_latex(table: Table, *, label: str, bold: Collection[tuple[int, int]] = ()) -> str:
    """The table for booktabs and siunitx: numbers are aligned by their points, baselines follow a rule.

    The packages are named in comments above it.
    """
    columns = [[_plain(row.cells[place]) for row in table.rows] for place in range(len(table.columns) - 1)]
    kinds = ["l", *map(_column, columns)]
    head = [
        f"{{{_escaped(name)}}}" if kind.startswith("S") else _escaped(name)
        for kind, name in zip(kinds, table.columns, strict=True)
    ]
    lines = []
    for number, row in enumerate(table.rows):
        if row.baseline and number and not table.rows[number - 1].baseline:
            lines.append(r"\midrule")
        texts = zip(kinds, [row.name, *map(_plain, row.cells)], strict=True)
        cells = [_cell(kind, text, (number, place) in bold) for place, (kind, text) in enumerate(texts)]
        lines.append(" & ".join(cells) + r" \\")
    whole = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escaped(table.caption)}}}",
        rf"\label{{tab:{_label(label)}}}",
        rf"\begin{{tabular}}{{{' '.join(kinds)}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return _PREAMBLE + "\n".join(whole) + "\n"


def _plain(cell: str | Quote) -> str:
    return (cell.text or MISSING) if isinstance(cell, Quote) else cell


def _column(cells: list[str]) -> str:
    """The type of a column: of numbers with their widths, of text, or of other cells at the right."""
    known = [cell for cell in cells if cell != MISSING]
    numbers = [match for cell in known if (match := _NUMBER.fullmatch(cell.rstrip("†"))) is not None]
    if known and len(numbers) == len(known):
        below = "<" if any(match["below"] for match in numbers) else ""
        sign = "+" if any(match["sign"] for match in numbers) else ""
        whole = max(1, *(len(match["whole"]) for match in numbers))
        after = max(len(match["after"] or "") for match in numbers)
        return f"S[table-format={below}{sign}{whole}.{after}]"
    return "r" if any(re.search(r"\d", cell) for cell in known) else "l"


def _cell(kind: str, text: str, bold: bool) -> str:
    if not kind.startswith("S"):
        parts = re.split(r"`([^`]*)`", text)
        shown = "".join(
            rf"\texttt{{{_escaped(part)}}}" if place % 2 else _escaped(part)
            for place, part in enumerate(parts)
        )
        return rf"\textbf{{{shown}}}" if bold and shown else shown
    if text == MISSING:
        return "{--}"
    found = _NUMBER.fullmatch(text.rstrip("†"))
    assert found is not None  # by which the column is one of numbers
    after = "" if found["after"] is None else f".{found['after']}"
    number = f"{found['below']}{found['sign']}{found['whole'] or '0'}{after}"
    return (_BOLD if bold else "") + number + (_DAGGER if text.endswith("†") else "")


def _label(name: str) -> str:
    r"""A name as a `\label` takes it, such as that of a folder."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.") or "results"


def _escaped(text: str) -> str:
    parts = ("".join(_SPECIAL.get(character, character) for character in part) for part in _MINUS.split(text))
    return "$-$".join(parts)

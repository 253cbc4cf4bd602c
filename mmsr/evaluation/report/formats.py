"""A report's tables as Markdown, CSV, or LaTeX for a paper."""

import csv
import io
import re
from collections.abc import Collection, Sequence

from mmsr.evaluation.compare import Comparison, markdown_table, table_of
from mmsr.evaluation.report.names import MISSING, TableFormat
from mmsr.evaluation.report.page import Quote, Row, Table

_PREAMBLE = r"""% \usepackage{booktabs, siunitx}
% \sisetup{detect-all}  % for bold numbers
"""
_DAGGER = r"$^\dagger$"
_BOLD = r"\bfseries "
_NUMBER = re.compile(r"([+-]?)(\d+)(?:\.(\d+))?")
_SPECIAL = {character: "\\" + character for character in "&%$#_{}"}
_SPECIAL |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_SPECIAL |= {"–": "--", "†": _DAGGER}


def render(
    table: Table, form: TableFormat, *, bold: Collection[tuple[int, int]] = (), label: str = ""
) -> str:
    r"""A table in a format.

    Args:
        table: The table.
        form: md, csv or latex.
        bold: Rows and columns of cells that stand out in LaTeX; column 0 holds the rows' names.
        label: What `\ref` names the LaTeX table by.
    """
    if form == "md":
        return table.markdown()
    return as_csv(table) if form == "csv" else as_latex(table, bold=bold, label=label)


def comparison_table(comparisons: Sequence[Comparison], form: TableFormat) -> str:
    """Comparisons of systems in a format; Markdown has notes below it."""
    if form == "md":
        return markdown_table(comparisons)
    head, rows = table_of(comparisons)
    first = comparisons[0]
    conditions = ", ".join(dict.fromkeys(pair.condition for pair in comparisons))
    caption = f"Differences in {first.metric} ({conditions}) on {first.rows:,} rows, with 95 % intervals."
    return render(Table(head, [Row(name, cells) for name, *cells in rows], caption), form)


def as_csv(table: Table) -> str:
    """The table as CSV, with a column that says which rows are baselines; missing values are empty."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow([*table.columns, "baseline"])
    for row in table.rows:
        cells = [row.name.strip("`"), *map(_plain, row.cells)]
        writer.writerow(["" if cell == MISSING else cell for cell in cells] + ["yes" if row.baseline else ""])
    return written.getvalue()


def as_latex(table: Table, *, bold: Collection[tuple[int, int]] = (), label: str = "") -> str:
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
        *([rf"\label{{{label}}}"] if label else []),
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
        sign = "+" if any(match[1] for match in numbers) else ""
        whole = max(len(match[2]) for match in numbers)
        after = max(len(match[3] or "") for match in numbers)
        return f"S[table-format={sign}{whole}.{after}]"
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
    number = (_BOLD if bold else "") + text.rstrip("†")
    return number + (_DAGGER if text.endswith("†") else "")


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)

"""A page of results: one HTML file that loads nothing, and Markdown with PNG pictures beside it.

SECTIONS {title: document ─► blocks}, document ─► `write_page` ─► F.html, F.md, *.png

Each report module has such a dict. To add a section, write a function that returns its blocks (none if there
is nothing to show), and add it to the dict under the section's title.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from markupsafe import Markup, escape

from mmsr.evaluation.report.names import MISSING
from mmsr.evaluation.report.pictures import rendered
from mmsr.files import check_output, write_file
from mmsr.messages import did_you_mean

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure

RESULT_FILES = ("metrics.json", "robustness.json", "faithfulness.json", "scores.json", "results.json")


class Quote(NamedTuple):
    """A transcript or a rationale in a cell, with its language."""

    text: str | None
    language: str | None = None


class Row(NamedTuple):
    """A row of a table: its name, and the other cells."""

    name: str
    cells: Sequence[str | Quote]
    baseline: bool = False
    link: str = ""  # of the name, from the page's folder


@dataclass(frozen=True)
class Table:
    """A table. In a cell with a number, an interval in brackets is put below the number."""

    columns: Sequence[str]  # headings, the first that of the rows' names
    rows: Sequence[Row]  # each with a cell for each further column
    caption: str
    words: bool = False  # align all columns to the left, not only those without digits
    sortable: bool = False  # a click on a heading of the page sorts the rows
    kind: ClassVar[str] = "table"

    @property
    def left(self) -> list[bool]:
        """For each column, whether it is aligned to the left."""
        columns = ["".join(column) for column in self._columns()]
        worded = [bool(column.strip(MISSING)) and not re.search(r"\d", column) for column in columns]
        return [True, *(self.words or words for words in worded or [False] * (len(self.columns) - 1))]

    def filled(self) -> "Table":
        """The table without columns and rows that have no value."""
        kept = [
            place for place, column in enumerate(self._columns()) if any(cell != MISSING for cell in column)
        ]
        rows = [
            row._replace(cells=[row.cells[place] for place in kept])
            for row in self.rows
            if any(_words(cell) != MISSING for cell in row.cells)
        ]
        columns = [self.columns[0], *(self.columns[place + 1] for place in kept)]
        return replace(self, columns=columns, rows=rows)

    def places(self, columns: Sequence[str]) -> list[int]:
        """The places of columns after the first in `columns`; case and signs of a name are free.

        The first column holds the names of the rows, and is always there.

        Raises:
            ValueError: A column is not there; names those that are.
        """
        known = {_folded(name): place for place, name in reversed(list(enumerate(self.columns)))}
        for name in columns:
            if _folded(name) not in known:
                raise ValueError(
                    f"--table-columns {name}: no such column{did_you_mean(name, self.columns[1:])};"
                    f" accepted: {', '.join(self.columns[1:])}"
                )
        found = dict.fromkeys(known[_folded(name)] for name in columns)
        return [place for place in found if place]

    def _columns(self) -> list[list[str]]:
        """The words of each column after the first."""
        rows = [[_words(cell) for cell in row.cells] for row in self.rows]
        return [list(column) for column in zip(*rows, strict=True)]

    def markdown(self) -> str:
        """The table in Markdown, without its caption; as `filled`."""
        table = self.filled()
        lines = [list(table.columns), ["---" if left else "---:" for left in table.left]]
        lines += [
            [f"baseline: {row.name}" if row.baseline else _linked(row), *map(_words, row.cells)]
            for row in table.rows
        ]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


@dataclass(frozen=True)
class Picture:
    """A picture, drawn when the page is written."""

    name: str  # name of its file
    draw: Callable[[], "Figure"]
    caption: str  # what it shows, and how to read it
    alt: str  # what it shows, for those who cannot see it
    pan: bool = False  # scroll it on a narrow screen instead of shrinking it
    kind: ClassVar[str] = "picture"


@dataclass(frozen=True)
class Cards:
    """Utterances with audio, answers and rationales, as `mmsr.evaluation.report.run.card` makes them."""

    cards: Sequence[Mapping[str, Any]]
    kind: ClassVar[str] = "cards"


@dataclass(frozen=True)
class Findings:
    """Messages, each with the title of the section that has its figures."""

    messages: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "findings"


@dataclass(frozen=True)
class Folded:
    """A list of terms and their meanings, below a title that opens it."""

    title: str
    terms: Mapping[str, str]
    kind: ClassVar[str] = "folded"


Block = str | Mapping[str, str] | Table | Picture | Cards | Findings | Folded
"""A paragraph, a list of terms and their meanings, a table, a picture, cards or findings."""

Document = TypeVar("Document")


@dataclass(frozen=True)
class Section:
    """A heading and the blocks below it."""

    title: str
    blocks: Sequence[Block]

    @property
    def anchor(self) -> str:
        """The name to link to."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Page:
    """The content of the templates."""

    title: str
    headline: str  # the main result in a sentence; may be empty
    lead: str  # one or two sentences
    sections: Sequence[Section]
    provenance: Mapping[str, str]  # where the numbers come from: seeds, data, command, machine

    @property
    def sortable(self) -> bool:
        """Whether it has a table that readers sort."""
        blocks = (block for section in self.sections for block in section.blocks)
        return any(isinstance(block, Table) and block.sortable for block in blocks)

    @property
    def anchors(self) -> dict[str, str]:
        """The name to link to of each section, by its title."""
        return {section.title: section.anchor for section in self.sections}

    @property
    def stamp(self) -> str:
        """The main part of the provenance in a line, which every PNG carries."""
        shown = ("seed", "intervals", "data fingerprint", "command", "processor")
        return "; ".join(f"{name}: {self.provenance[name]}" for name in shown if name in self.provenance)


def write_page(
    path: Path | str,
    sections: Mapping[str, Callable[[Document], Sequence[Block]]],
    document: Document,
    *,
    title: str,
    lead: str,
    provenance: Mapping[str, str],
    headline: str = "",
) -> Path:
    """Write the sections of a document as HTML to `path`, Markdown and PNG pictures beside it; return `path`.

    Sections without blocks are left out. The provenance is the last section.
    """
    path = Path(path)
    shown = [Section(name, blocks) for name, make in sections.items() if (blocks := make(document))]
    page = Page(title, headline, lead, [*shown, Section("Provenance", [provenance])], provenance)
    pictures = {
        block.name: rendered(block.draw, name=block.name, description=page.stamp)
        for section in shown
        for block in section.blocks
        if isinstance(block, Picture)
    }
    for name, picture in pictures.items():
        write_file(path.with_name(f"{name}.png"), picture.png)
    for template, file in (("page.html.jinja", path), ("page.md.jinja", path.with_suffix(".md"))):
        text = _environment().get_template(template).render(page=page, pictures=pictures)
        write_file(file, text.encode())
    return path


def as_markdown(blocks: Iterable[Block]) -> str:
    """The tables and paragraphs among blocks in Markdown, for a terminal."""
    tables = (
        block.markdown().replace("&lt;", "<") if isinstance(block, Table) else block for block in blocks
    )
    return "\n".join(text if text.endswith("\n") else f"{text}\n" for text in tables if isinstance(text, str))


def check_out(out: str | os.PathLike[str], file: str) -> None:
    """Refuse a folder that cannot be written, or has the results of another command, which would be lost.

    Args:
        out: The folder for the results.
        file: The name of the results' own file.

    Raises:
        ValueError: The folder holds the file of other results, or see `check_output`.
    """
    check_output(out, folder=True, name="--out")
    for other in RESULT_FILES:
        if other != file and (Path(out) / other).is_file():
            raise ValueError(
                f"--out {out} has {other}, whose report.html would be lost; accepted: another folder"
            )


def origin(document: Mapping[str, Any]) -> dict[str, str]:
    """The provenance in metrics.json or another file of results, as text."""
    found = {}
    seeds = {"training": document.get("training_seed"), "evaluation": document.get("seed")}
    if known := [f"{seed} ({what})" for what, seed in seeds.items() if seed is not None]:
        found["seed"] = ", ".join(known)
    for key in ("data_fingerprint", "command", "seconds"):
        if key in document:
            found[key.replace("_", " ")] = str(document[key])
    if machine := document.get("machine"):
        parts = (machine.get("gpu"), machine.get("cpu"), f"{machine['cores']} cores")
        found["processor"] = ", ".join(part for part in parts if part)
    for key in ("machine", "versions"):
        if key in document:
            found[key] = ", ".join(
                f"{name.replace('_', ' ')} {value}" for name, value in document[key].items()
            )
    return found


def _folded(name: str) -> str:
    """A column's name without its case and signs, so that `macro_f1` is `macro-F1`."""
    return re.sub(r"[\W_]", "", name).lower()


def _linked(row: Row) -> str:
    """The name of a row in a Markdown table."""
    return f"[{row.name}]({row.link})" if row.link else row.name


def _words(cell: str | Quote) -> str:
    """A cell in a Markdown table."""
    return plain((cell.text or MISSING) if isinstance(cell, Quote) else cell)


def _code(text: str) -> Markup:
    """Text between backticks as code, in HTML."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def plain(text: str) -> str:
    """Text on one line that Markdown does not take for markup."""
    return re.sub(r"\s+", " ", text).replace("|", r"\|").replace("<", "&lt;")


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("mmsr.evaluation.report", "."),
        autoescape=select_autoescape(("html.jinja",), default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"plain": plain, "code": _code}
    return environment

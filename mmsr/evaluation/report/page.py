"""A page of results: sections of tables, pictures and words, as one HTML file and as Markdown beside it.

sections ─► Page ─► `write_page` ─► F.html (holds all, loads nothing), F.md, pictures as PNG

All reports are such pages. To add to one, write a function that returns a `Section`, or None where there is
nothing to show.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup, escape

from mmsr.evaluation.report.names import MISSING
from mmsr.evaluation.report.pictures import Rendered, rendered
from mmsr.files import write_file

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure

RESULT_FILES = ("metrics.json", "robustness.json", "faithfulness.json", "scores.json", "results.json")


class Quote(NamedTuple):
    """Words that somebody said or a model wrote, in a language."""

    text: str | None
    language: str | None = None


class TableRow(NamedTuple):
    """One row of a table: what it is of, and its cells."""

    name: str
    cells: Sequence[str | Quote]
    baseline: bool = False


@dataclass(frozen=True)
class Table:
    """A table; in a cell of figures an interval in brackets stands below the figure.

    Attributes:
        columns: Headings, the first that of the rows' names.
        rows: Each with a cell for each further column.
        caption: What it shows.
        words: Whether all cells hold words, to be set to the left, as a column without figures is by itself.
    """

    columns: Sequence[str]
    rows: Sequence[TableRow]
    caption: str
    words: bool = False
    kind: str = field(default="table", init=False)

    @property
    def left(self) -> list[bool]:
        """For each column, whether it is set to the left."""
        columns = [
            "".join(column) for column in zip(*(map(_words, row.cells) for row in self.rows), strict=True)
        ]
        worded = [bool(column.strip(MISSING)) and not re.search(r"\d", column) for column in columns]
        return [True, *(self.words or words for words in worded or [False] * (len(self.columns) - 1))]

    def markdown(self) -> str:
        """The table in Markdown, without its caption."""
        lines = [list(self.columns), ["---" if left else "---:" for left in self.left]]
        lines += [
            [f"baseline: {row.name}" if row.baseline else row.name, *map(_words, row.cells)]
            for row in self.rows
        ]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        name: Of its file.
        image: As PNG and SVG.
        caption: What it shows, and how to read it.
        alt: What it shows, for those who cannot see it.
        pan: Whether it keeps its size on a narrow screen, and is moved there.
    """

    name: str
    image: Rendered
    caption: str
    alt: str
    pan: bool = False
    kind: str = field(default="picture", init=False)


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = field(default="text", init=False)


@dataclass(frozen=True)
class Notes:
    """Terms and what they mean."""

    notes: Sequence[tuple[str, str]]
    kind: str = field(default="notes", init=False)


@dataclass(frozen=True)
class Cards:
    """Utterances to hear and read.

    Attributes:
        cards: As `run.card` makes them.
    """

    cards: Sequence[Mapping[str, Any]]
    kind: str = field(default="cards", init=False)


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Table | Picture | Text | Notes | Cards]

    @property
    def anchor(self) -> str:
        """Name to link to."""
        return re.sub(r"\W+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title: Its heading.
        lead: What it is about, in a sentence or two.
        sections: Its content; None is left out.
        provenance: Where its figures come from: seeds, data, command, machine.
    """

    title: str
    lead: str
    sections: Sequence[Section | None]
    provenance: Mapping[str, str]

    @property
    def stamp(self) -> str:
        """The provenance in a line, which every figure carries."""
        return stamp(self.provenance)

    @property
    def content(self) -> list[Section]:
        """The sections that there are, and the provenance."""
        known = [section for section in self.sections if section is not None]
        return [*known, Section("Provenance", [Notes(list(self.provenance.items()))])]


def write_page(page: Page, path: Path | str) -> Path:
    """Write a page as HTML to `path`, as Markdown and its pictures as PNG beside it; return the path."""
    path = Path(path)
    environment = _environment()
    for section in page.content:
        for block in section.blocks:
            if isinstance(block, Picture):
                write_file(path.with_name(f"{block.name}.png"), block.image.png)
    for template, file in (("page.html.jinja", path), ("page.md.jinja", path.with_suffix(".md"))):
        write_file(file, environment.get_template(template).render(page=page).encode())
    return path


def picture(
    name: str,
    draw: Callable[[], "Figure"],
    *,
    caption: str,
    alt: str,
    provenance: Mapping[str, str],
    pan: bool = False,
) -> Picture:
    """A figure as part of a page, drawn here; its files carry the provenance too."""
    return Picture(name, rendered(draw, name=name, description=stamp(provenance)), caption, alt, pan)


def told(sections: Sequence[Section | None]) -> str:
    """The tables and the words of sections in Markdown, for a terminal."""
    parts = []
    for section in sections:
        for block in section.blocks if section else ():
            if isinstance(block, Table):
                parts.append(block.markdown().replace("&lt;", "<"))
            elif isinstance(block, Text):
                parts.append(f"{block.text}\n")
    return "\n".join(parts)


def check_out(out: str | os.PathLike[str], file: str) -> None:
    """Refuse a folder that holds the results of another command, whose report would be overwritten.

    Args:
        out: The folder for the results.
        file: The results' own file.

    Raises:
        ValueError: The folder holds the file of other results.
    """
    for other in RESULT_FILES:
        if other != file and (Path(out) / other).is_file():
            raise ValueError(
                f"--out {out} has {other}, whose report.html would be lost; accepted: another folder"
            )


def stamp(provenance: Mapping[str, str]) -> str:
    """A provenance in a line; of the machine what the figures' time and rounding depend on."""
    shown = ("seed", "intervals", "data fingerprint", "command", "processor")
    return "; ".join(f"{name}: {provenance[name]}" for name in shown if name in provenance)


def origin(document: Mapping[str, Any]) -> dict[str, str]:
    """The provenance that metrics.json and the like carry, as text."""
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


def _words(cell: str | Quote) -> str:
    """A cell in a Markdown table."""
    return plain((cell.text or MISSING) if isinstance(cell, Quote) else cell)


def _code(text: str) -> Markup:
    """Words between backticks as code, in HTML."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def plain(text: str) -> str:
    """Text that is no markup, on one line, in Markdown."""
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

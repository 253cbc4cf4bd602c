"""Pages of reports."""

import re
from pathlib import Path

import pytest
from PIL import Image

from mmsr.evaluation.report.formats import as_csv
from mmsr.evaluation.report.page import Picture, Quote, Row, Table, as_markdown, write_page
from mmsr.evaluation.report.pictures import make_figure


def test_a_page_is_its_sections_in_order(tmp_path: Path) -> None:
    table = Table(["name", "value", "word"], [Row("a", ["0.500 [0.1, 0.9]", "x|y"], True)], "A table.")

    def draw():
        figure, _ = make_figure(1, width=3, height=2)
        return figure

    sections = {
        "First": lambda document: [document["text"], {"term": "its meaning"}, table],
        "Empty": lambda document: [],
        "Last": lambda document: [Picture("dots", draw, caption="Dots.", alt="None.")],
    }
    origin = {"seed": "5", "machine": "here"}
    path = write_page(
        tmp_path / "p.html", sections, {"text": "A `code` & more."}, title="T", lead="L.", provenance=origin
    )
    html, text = path.read_text("utf-8"), path.with_suffix(".md").read_text("utf-8")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["First", "Last", "Provenance"]
    assert "<p>A <code>code</code> &amp; more.</p>" in html and "<li><b>term</b>: its meaning</li>" in html
    assert "0.500<br><small>[0.1, 0.9]</small>" in html and "- **machine**: here" in text
    assert "| name | value | word |\n| --- | ---: | --- |\n| baseline: a | 0.500 [0.1, 0.9] | x\\|y |" in text
    assert Image.open(tmp_path / "dots.png").text["Description"] == "seed: 5"
    blocks = [block for make in sections.values() for block in make({"text": "Said."})]
    assert as_markdown(blocks) == f"Said.\n\n{table.markdown()}"


def test_columns_and_rows_without_a_value_are_left_out(tmp_path: Path) -> None:
    rows = [Row("a", ["1", "–", "–"]), Row("b", ["–", "–", Quote(None)]), Row("c", ["–", "–", "2"], True)]
    table = Table(["name", "x", "empty", "y"], rows, "A table.")
    assert table.filled() == Table(
        ["name", "x", "y"], [Row("a", ["1", "–"]), Row("c", ["–", "2"], True)], "A table."
    )
    path = write_page(tmp_path / "p.html", {"S": lambda _: [table]}, None, title="T", lead="L", provenance={})
    assert "empty" not in path.read_text("utf-8") and "empty" not in path.with_suffix(".md").read_text(
        "utf-8"
    )
    assert as_csv(table).startswith("name,x,empty,y,baseline\n"), "programs read the same columns always"


def test_the_wheel_carries_the_templates() -> None:
    builder = pytest.importorskip("hatchling.builders.wheel", reason="hatchling builds the wheel")
    root = Path(__file__).resolve().parents[3]
    carried = {file.distribution_path for file in builder.WheelBuilder(str(root)).recurse_included_files()}
    templates = {"page.html.jinja", "page.md.jinja"}
    assert {f"mmsr/evaluation/report/{name}" for name in templates} <= carried

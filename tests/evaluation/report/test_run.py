"""The report of a run."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from markupsafe import escape
from PIL import Image

from mmsr.evaluation.report.findings import CHECKS, Examined, examine
from mmsr.evaluation.report.run import SECTIONS, check_conditions_columns, conditions_table, write_report
from mmsr.evaluation.run import evaluate
from mmsr.records import Answer

LABELS = ["negative", "neutral", "positive"]


@pytest.mark.filterwarnings("error:Glyph")
def test_report_is_whole_escaped_and_offline(tmp_path: Path, run, example) -> None:
    document, predictions = run
    history = [{"epoch": i, "train_loss": 2.0 - i, "dev_loss": None, "dev_macro_f1": 0.5} for i in range(2)]
    path = write_report(
        tmp_path / "report",
        title="A <report>",
        metrics=document,
        predictions=predictions,
        labels=LABELS,
        history=history,
        examples=[example],
    )
    names = [
        "attention.png",
        "confusion.png",
        "differences.png",
        "modalities.png",
        "reliability.png",
        "report.html",
        "report.md",
    ]
    names += ["risk_coverage.png", "training.png"]
    assert sorted(file.name for file in path.parent.iterdir()) == names
    for file in path.parent.glob("*.png"):
        assert min(Image.open(file).size) > 300
    html = path.read_text("utf-8")
    assert "<h1>A &lt;report&gt;</h1>" in html and "<script" not in html and "it &lt;b&gt;is" in html
    assert not re.search(r"https?://|<link|@import", html)
    assert html.count("data:image/svg+xml;base64,") == 7 and html.count("data:audio/wav;base64,") == 1
    assert all('alt="' in image for image in re.findall(r"<img[^>]+>", html))
    assert html.count("<table") == html.count("<caption>") == 6
    sections = re.findall(r'<h2 id="([^"]+)">', html)
    assert re.findall(r'<a href="#([^"]+)">', html) == sections and len(set(sections)) == len(sections) == 11
    assert html.count("f00d") == html.count("mmsr demo") == 1, "provenance is given once, at the end"
    for name in ("confusion.png", "modalities.png"):
        stamp = Image.open(path.with_name(name)).text["Description"]
        assert stamp.startswith("seed: 5 (evaluation); intervals: 95 % over rows; data fingerprint: f00d; ")
    assert "@media print" in html and "color-scheme: light;" in html and "prefers-color-scheme: dark" in html
    for shown in (
        "0.750",
        "forced words",
        "reference words",
        "predicted words",
        "true: negative",
        "f00d",
        "mmsr demo",
    ):
        assert shown in html
    assert "ROUGE-L (Unicode)" in html and "ROUGE-L (ASCII)" in html and "Surest mistakes" in html
    assert '<q lang="vi">Từ đó' in html


def test_report_of_labels_alone(tmp_path: Path) -> None:
    entry = {"n": 4, "accuracy": 0.5, "macro_f1": 0.5, "uar": 0.5, "f1": {"neutral": 0.5}}
    path = write_report(
        tmp_path, title="t", metrics={"test": {"audio": entry}}, predictions=[], labels=LABELS
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["modalities.png", "report.html", "report.md"]
    assert "audio alone" in path.read_text("utf-8")


def test_a_section_is_one_entry(tmp_path: Path, run, monkeypatch) -> None:
    document, predictions = run
    monkeypatch.setitem(SECTIONS, "Toy", lambda run: [f"{len(run.answered)} answers to {run.reads}."])
    path = write_report(tmp_path, title="t", metrics=document, predictions=predictions, labels=LABELS)
    assert '<h2 id="toy">Toy</h2>' in path.read_text("utf-8")
    assert "## Toy\n\n12 answers to audio + text.\n" in path.with_suffix(".md").read_text("utf-8")


def test_report_without_any_gold(tmp_path: Path) -> None:
    metrics = {"test": {"text": {"n": 4, "n_label": 0, "n_rationale": 0}}}
    write_report(tmp_path, title="t", metrics=metrics, predictions=[], labels=LABELS)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.html", "report.md"]


def report_of(tmp_path: Path, rows, predict, **options) -> str:
    metrics, predictions = evaluate(predict, rows, labels=LABELS, **options)
    path = write_report(
        tmp_path, title="t", metrics={"test": metrics}, predictions=predictions, labels=LABELS
    )
    return path.with_suffix(".md").read_text("utf-8")


def neutral(records):
    scores = {"negative": 0.1, "neutral": 0.7, "positive": 0.2}
    return [Answer(label="neutral", score=0.7, scores=scores) for _ in records]


def test_each_table_says_over_what_its_own_intervals_are(tmp_path: Path, utterance) -> None:
    """Few speak in a part of the rows: its intervals are over rows, those of all rows over speakers."""
    rows = [
        utterance(
            f"r{i}",
            label=LABELS[i % 3],
            text=f"t{i}",
            speaker=f"s{i % 8}",
            kind="voice" if i % 8 < 3 else "words",
        )
        for i in range(48)
    ]
    rows += [utterance("lone", text="t", speaker="s0", kind="third")]
    rows += [
        utterance(f"m{i}", label=LABELS[i % 3], text=f"m{i}", speaker=f"s{i % 8}", kind="many")
        for i in range(16)
    ]
    text = report_of(tmp_path, rows, neutral, attributes={}, slice_rows=11)
    results, kinds, slices = (
        text.split(f"## {name}\n")[1].split("\n## ")[0] for name in ("Results", "By kind of row", "Slices")
    )
    assert "Brackets: 95 % intervals over speakers." in results
    assert "Brackets: 95 % intervals over rows; of many over speakers." in kinds
    assert "| third | 1 | 1.000 | 1.000 |" in kinds, "one row has no interval"
    assert "Brackets: 95 % intervals over rows." in slices.split("By speaker")[1]
    assert "**intervals**: 95 % over speakers or rows" in text


def test_slices_without_a_worst_say_of_how_many_rows(tmp_path: Path, utterance) -> None:
    rows = [utterance(f"r{i}", text=f"t{i}", language=["en", "de"][i % 2]) for i in range(12)]
    words = {"transcript_words": {f"r{i}": float(9 + i % 3) for i in range(12)}}
    text = report_of(tmp_path, rows, neutral, attributes=words, slice_rows=11)
    assert "No worst slice: fewer than two slices have 11 rows" in text
    assert text.index("| 9 | 4 |") < text.index("| 10 | 4 |") < text.index("| 11 | 4 |")


@pytest.mark.parametrize(
    ("temperature", "said"),
    [(1.0, ", temperature not fitted:"), (1.25, ", temperature 1.250:"), (None, "rows:")],
)
def test_a_temperature_that_was_not_fitted_is_called_so(tmp_path: Path, utterance, temperature, said) -> None:
    rows = [utterance(f"r{i}", text=f"t{i}", label=LABELS[i % 3]) for i in range(12)]
    text = report_of(tmp_path, rows, neutral, temperature=temperature)
    assert f"12 rows{said.removeprefix('rows')} ECE" in text and "temperature 1.000" not in text


def test_what_was_not_said_is_struck_through(tmp_path: Path, run, example) -> None:
    document, predictions = run
    words = '"Từ đó" and "never <b>said"'
    shown = replace(example, answer=replace(example.answer, rationale=words))
    path = write_report(
        tmp_path, title="a", metrics=document, predictions=predictions, labels=LABELS, examples=[shown]
    )
    html = path.read_text("utf-8")
    assert '<del title="not in the transcript">never &lt;b&gt;said</del>' in html and html.count("<del ") == 1
    assert "&#34;Từ đó&#34; and &#34;" in html


def test_markdown_has_what_the_page_has(tmp_path: Path, run, example) -> None:
    document, predictions = run
    options = {"metrics": document, "predictions": predictions, "labels": LABELS, "examples": [example]}
    path = write_report(tmp_path, title="A <report> | of", **options)
    html, text = path.read_text("utf-8"), path.with_suffix(".md").read_text("utf-8")
    assert text.startswith("# A &lt;report> \\| of\n") and "<script" not in text and "<b>" not in text
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == re.findall(r"<h2[^>]*>([^<]+)", html)
    assert conditions_table(document).partition("\n\n")[2] in text
    pictures = re.findall(r"^!\[[^]]+\]\(([a-z_]+\.png)\)$", text, re.MULTILINE)
    assert len(pictures) == html.count("<img") and all((tmp_path / name).is_file() for name in pictures)
    assert "`r0`: “Từ đó &lt;script>" in text and "true: negative" in text and "predicted words" in text
    assert "\n\n\n" not in text


def test_rationales_stand_beside_those_of_baselines(run, tmp_path: Path) -> None:
    document, predictions = run
    document["bertscore"] = {"model": "e5", "layer": 7}
    document["test"]["text"]["bertscore_f1"] = 0.8125
    path = write_report(tmp_path, title="t", metrics=document, predictions=predictions, labels=LABELS)
    section = path.with_suffix(".md").read_text("utf-8").split("## Rationales")[1].split("\n## ")[0]
    assert (
        "BLEU | chrF | BERTScore F1 | exact | fits its transcript | copied from training | distinct-1 | "
        "distinct-2 | length (" in section
    )
    assert "| 3.0 (3.0) |" in section
    assert "e5, layer 7, without idf" in section and section.count("| 0.812 |") == 1
    assert "| baseline: constant rationale of the predicted label | 12 | 1.000 |" in section
    assert "| en | 6 |" in section and "| zh | 6 |" in section


def test_conditions_table(run) -> None:
    document, _ = run
    caption, _, *lines = conditions_table(document | {"training_seed": 7}).splitlines()
    assert caption.startswith("Conditions of the test split, and baselines that a model must beat.")
    assert "Brackets: 95 % intervals over rows" in caption
    assert caption.endswith(f" n = 12 rows; training seed 7; data {document['data_fingerprint']}.")
    assert lines[0] == (
        "| condition | n | accuracy | macro-F1 | UAR | ROUGE-L (Unicode) | ROUGE-L (ASCII) | chrF | exact |"
    )
    assert len({line.count("|") for line in lines}) == 1
    figures = document["test"]["audio+text"]
    low, high = figures["interval"]["accuracy"]
    assert lines[2].startswith(f"| audio + text | 12 | {figures['accuracy']:.3f} [{low:.3f}, {high:.3f}] | ")
    assert any(line.startswith("| baseline: majority label | 12 | 0.333 [") for line in lines)
    constant = next(line for line in lines if "rationale of the predicted label" in line)
    assert constant.startswith(
        "| baseline: constant rationale of the predicted label | 12 | – | – | – | 1.000 | "
    )


def test_only_what_is_shown_is_defined(run, tmp_path: Path) -> None:
    document, predictions = run

    def without(entry: dict) -> dict:
        return {
            key: without(value) if isinstance(value, dict) else value
            for key, value in entry.items()
            if not key.startswith(("rouge", "chrf", "rationale", "n_rationale"))
            and key not in ("shuffled_audio", "constant_rationale", "constant_rationale_oracle")
        }

    for metrics, shown in ((document, True), (without(document), False)):
        folder = tmp_path / str(shown)
        write_report(folder, title="t", metrics=metrics, predictions=predictions, labels=LABELS)
        results = (folder / "report.md").read_text("utf-8").split("## Results")[1].split("\n## ")[0]
        assert ("ROUGE" in results) == shown
        assert "**macro-F1, UAR**" in results and "**intervals**" in results
    assert "another row's audio" not in results


def test_columns_are_refused_before_there_are_results(run) -> None:
    check_conditions_columns(["n", "rouge-l unicode"])
    with pytest.raises(
        ValueError, match="--table-columns f2: no such column.*accepted: n, accuracy, macro-F1"
    ):
        check_conditions_columns(["f2"])
    chosen = conditions_table(run[0], columns=["macro-F1"], form="csv").splitlines()
    assert chosen[0] == "condition,macro-F1,baseline"


def test_a_split_that_is_missing_or_empty_raises() -> None:
    with pytest.raises(ValueError, match="metrics have no split 'dev'; their keys are 'test', 'seed'"):
        conditions_table({"test": {}, "seed": 0}, split="dev")
    with pytest.raises(ValueError, match="metrics of split 'test' have no condition"):
        conditions_table({"test": {"baselines": {}}})


def test_a_kind_is_scored_over_the_labels_that_occur_in_it(tmp_path: Path, utterance) -> None:
    rows = [utterance(f"v{i}", text="t", kind="voice", label="neutral") for i in range(6)]
    rows += [utterance(f"w{i}", text="t", kind="words", label=LABELS[i % 3]) for i in range(6)]

    def predict(records):
        label = ["neutral"] * 5 + ["positive"] + ["neutral"] * 6
        return [Answer(label=name, score=1.0, scores={name: 1.0}) for name in label]

    kinds = report_of(tmp_path, rows, predict).split("## By kind of row\n")[1].split("\n## ")[0]
    assert "| kind | n | accuracy | macro-F1 (labels that occur) |" in kinds
    voice = next(line for line in kinds.splitlines() if line.startswith("| voice |"))
    assert "| 0.909 [" in voice, "positive, which is never true of a voice, does not halve it"


def test_findings_open_the_report_and_link_to_their_sections(tmp_path: Path, run) -> None:
    document, predictions = run
    made = [row for row in predictions if row.condition == "audio+text"]
    document |= examine(Examined(document["test"], made))
    path = write_report(tmp_path, title="t", metrics=document, predictions=predictions, labels=LABELS)
    html, text = path.read_text("utf-8"), path.with_suffix(".md").read_text("utf-8")
    assert '<p class="headline">From audio + text, the model reaches macro-F1 0.167' in html
    assert html.index('<h2 id="findings">') < html.index('<h2 id="results">')
    assert "<li>Few rows: 12 have a label, " in html and ' <a href="#results">Results</a></li>' in html
    assert "- Few rows: 12 have a label" in text and "See [Results](#results).\n" in text
    assert "Not checked: " in text and "no labelled development rows" in text
    assert all(f"<b>{escape(check.title)}</b>" in html for check in CHECKS.values())

    document["findings"] = []
    for check in document["checks"]:
        check["found"] = 0 if check["not_checked"] is None else None
    path = write_report(tmp_path, title="t", metrics=document, predictions=predictions, labels=LABELS)
    text = path.with_suffix(".md").read_text("utf-8")
    assert "None of the checks found anything: a label that is never predicted; " in text

import io
import re
import wave
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmsr.evaluation.provenance import Provenance
from mmsr.evaluation.report import Example, markdown_table, write_report
from mmsr.evaluation.report.pictures import (
    INK,
    draw_attention,
    draw_modalities,
    draw_saliency,
    drawable,
    rendered,
)
from mmsr.evaluation.run import evaluate, write_run
from mmsr.records import Answer, Utterance

LABELS = ["negative", "neutral", "positive"]
RATE = 16_000


def sound() -> np.ndarray:
    return (0.1 * np.sin(2 * np.pi * 220 * np.arange(RATE // 2) / RATE)).astype(np.float32)


def wav() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((sound() * 32767).astype("<i2").tobytes())
    return buffer.getvalue()


@pytest.fixture
def run(tmp_path: Path, utterance):
    rows = [
        utterance(
            f"r{i}",
            label=LABELS[i % 3],
            audio=f"/{i}.wav",
            text=f"words {i} {LABELS[i % 3]}",
            rationale="it is said",
            language=["en", "zh"][i % 2],
            kind=["voice", "words"][i % 2],
        )
        for i in range(12)
    ]

    def predict(records):
        label = "neutral"
        scores = {"negative": 0.1, "neutral": 0.7, "positive": 0.2}
        return [Answer(label=label, score=0.7, scores=scores, rationale="it <b>is</b> said") for _ in records]

    metrics, predictions = evaluate(predict, rows, labels=LABELS, train_rows=rows)
    document = write_run(
        tmp_path,
        {"test": metrics},
        predictions,
        provenance=Provenance(seed=5, data_fingerprint="f00d", command="mmsr demo", seconds=2),
    )
    return document, predictions


@pytest.fixture
def example():
    return Example(
        utterance=Utterance(
            id="r0",
            audio=wav(),
            text="Từ đó <script>alert(1)</script>",
            label="negative",
            rationale="reference words",
            kind="voice",
            language="vi",
        ),
        answer=Answer(
            label="neutral",
            score=0.75,
            scores={"negative": 0.25, "neutral": 0.75, "positive": 0.0},
            rationale="predicted words",
        ),
        mime="audio/wav",
        counterfactuals={"positive": "forced words"},
        attention={
            "weights": np.full((3, 20), 0.05),
            "tokens": ["<s>", "▁a", "$x$"],
            "waveform": sound(),
            "rate": RATE,
        },
    )


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
    assert html.count("data:image/svg+xml;base64,") == 6 and html.count("data:audio/wav;base64,") == 1
    assert all('alt="' in image for image in re.findall(r"<img[^>]+>", html))
    assert html.count("<table") == html.count("<caption>") == 6
    sections = re.findall(r'<h2 id="([^"]+)">', html)
    assert re.findall(r'<a href="#([^"]+)">', html) == sections and len(set(sections)) == len(sections) == 11
    stamp = (
        r'<small class="stamp">seed: 5 \(evaluation\); intervals: 95 % over rows; data fingerprint: f00d; '
    )
    assert len(re.findall(rf"{stamp}command: mmsr demo; processor: \S", html)) == 6 + 6  # tables and pictures
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
    assert "intervals: 95 % over speakers or rows" in text


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


def test_times_under_an_attention_map_are_those_that_they_are_called(example) -> None:
    shown = {**example.attention, "waveform": np.zeros(int(1.9 * RATE), dtype=np.float32)}
    axes = draw_attention(shown).axes
    axes[2].figure.draw_without_rendering()
    ticks = [(tick.get_position()[0], tick.get_text()) for tick in axes[2].get_xticklabels()]
    assert len(ticks) > 4 and all(float(text) == pytest.approx(place) for place, text in ticks if text)


def test_markdown_has_what_the_page_has(tmp_path: Path, run, example) -> None:
    document, predictions = run
    options = {"metrics": document, "predictions": predictions, "labels": LABELS, "examples": [example]}
    path = write_report(tmp_path, title="A <report> | of", **options)
    html, text = path.read_text("utf-8"), path.with_suffix(".md").read_text("utf-8")
    assert text.startswith("# A &lt;report> \\| of\n") and "<script" not in text and "<b>" not in text
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == re.findall(r"<h2[^>]*>([^<]+)", html)
    assert markdown_table(document) in text
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
        "BLEU | chrF | BERTScore F1 | exact | copied from training | distinct-1 | distinct-2 | length ("
        in section
    )
    assert "| 3.0 (3.0) |" in section
    assert "e5, layer 7, without idf" in section and section.count("| 0.812 |") == 1
    assert "| baseline: constant rationale of the predicted label | 12 | 1.000 |" in section
    assert "| en | 6 |" in section and "| zh | 6 |" in section


def test_pictures_take_the_readers_colours(run) -> None:
    document, _ = run
    picture = rendered(partial(draw_modalities, document["test"]), name="m", description="seed: 5")
    svg = picture.svg.decode()
    assert "currentColor" in svg and "prefers-color-scheme:dark" in svg and "seed: 5" in svg
    assert svg.count(INK) == 1, "the ink of a light page is named once, in the style that readers change"
    assert Image.open(io.BytesIO(picture.png)).text["Description"] == "seed: 5"
    assert picture == rendered(partial(draw_modalities, document["test"]), name="m", description="seed: 5")


def test_the_wheel_carries_the_templates() -> None:
    builder = pytest.importorskip("hatchling.builders.wheel", reason="hatchling builds the wheel")
    root = Path(__file__).resolve().parents[3]
    carried = {file.distribution_path for file in builder.WheelBuilder(str(root)).recurse_included_files()}
    templates = {"page.html.jinja", "page.md.jinja"}
    assert {f"mmsr/evaluation/report/{name}" for name in templates} <= carried


def test_markdown_table(run) -> None:
    document, _ = run
    lines = markdown_table(document).splitlines()
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


def test_a_split_that_is_missing_or_empty_raises() -> None:
    with pytest.raises(ValueError, match="metrics have no split 'dev'; their keys are 'test', 'seed'"):
        markdown_table({"test": {}, "seed": 0}, split="dev")
    with pytest.raises(ValueError, match="metrics of split 'test' have no condition"):
        markdown_table({"test": {"baselines": {}}})


def test_an_attention_map_that_does_not_fit_its_tokens_raises(example) -> None:
    example.attention["tokens"] = ["a", "b"]
    with pytest.raises(ValueError, match=r"attention of shape \(3, 20\) does not fit 2 tokens"):
        draw_attention(example.attention)


def test_letters_that_no_font_has_become_a_number() -> None:
    assert drawable("▁đau", 0) == "đau"
    assert drawable("$5$", 0) == r"\$5\$"
    assert drawable("\U000e0001", 3) == "#4"


def test_saliency_shows_what_is_there_and_refuses_what_does_not_fit():
    shown = {
        "words": ["so", "很"],
        "word_weights": np.array([0.5, -0.2]),
        "frame_weights": np.array([0.1, -0.3, 0.0]),
        "waveform": np.zeros(960, dtype=np.float32),
        "rate": 16_000,
        "label": "negative",
    }
    wave, time, words = draw_saliency(shown).axes
    assert [bar.get_width() for bar in words.patches] == [0.5, -0.2]
    assert [bar.get_height() for bar in time.patches] == [0.1, -0.3, 0.0]
    assert time.get_ylabel() == "added logit\nper 20 ms" and time.get_xlim() == wave.get_xlim() == (0, 0.06)
    assert words.patches[0].get_facecolor() != words.patches[1].get_facecolor()
    assert len(draw_saliency({**shown, "frame_weights": None}).axes) == 1
    assert len(draw_saliency({**shown, "word_weights": None}).axes) == 2
    with pytest.raises(ValueError, match="2 weights do not fit 1 words"):
        draw_saliency({**shown, "words": ["so"]})
    with pytest.raises(ValueError, match="neither words nor frames have weights"):
        draw_saliency({**shown, "word_weights": None, "frame_weights": None})

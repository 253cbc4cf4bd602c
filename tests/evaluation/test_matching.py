from dataclasses import replace

import pytest

from mmsr.evaluation.baselines import baselines
from mmsr.evaluation.entries import evaluate_rows
from mmsr.evaluation.explain.faithfulness import agreement
from mmsr.evaluation.matching import matches
from mmsr.evaluation.metrics import rationale_metrics
from mmsr.evaluation.report.run import write_report
from mmsr.records import Prediction, Utterance

LABELS = ["negative", "positive"]
NOUNS = ["pulse", "stomach", "kidney", "shoulder", "ankle", "throat", "liver", "finger", "elbow", "forehead"]


@pytest.fixture(scope="module")
def rows():
    """Rationales that name what was said, with a template of their label."""
    cells = [(label, noun, part) for noun in NOUNS for part in ("left", "right") for label in LABELS]
    return [
        Utterance(
            id=f"u{n}",
            label=label,
            text=f"so the {part} {noun} it is",
            rationale={"negative": f"complaint about the {noun}", "positive": f"praise of the {noun}"}[label],
            language="en",
        )
        for n, (label, noun, part) in enumerate(cells)
    ]


def explaining(rows, rationales):
    return [
        Prediction.of(row, predicted_label=row.label, predicted_rationale=rationale)
        for row, rationale in zip(rows, rationales, strict=True)
    ]


def entry_of(rows, rationales):
    return evaluate_rows(
        explaining(rows, rationales), LABELS, transcripts={str(row.id): row.words for row in rows}
    )


def permuted_within_label(rows):
    """Each row's rationale is that of the row of its label which is six further."""
    return [rows[(n + 6) % len(rows)].rationale for n in range(len(rows))]


def test_true_rationales_match_and_permuted_and_constant_ones_are_at_chance(rows):
    """A judge of labels cannot tell the three apart."""
    true, permuted = [row.rationale for row in rows], permuted_within_label(rows)
    constant = [{"negative": "complaint", "positive": "praise"}[row.label] for row in rows]
    entries = [entry_of(rows, rationales) for rationales in (true, permuted, constant)]
    for rationales in (true, permuted, constant):
        read = agreement(rows, explaining(rows, rationales))
        assert read["agreement"]["value"] == 1
    assert entries[0]["matching"] > 0.9 and entries[0]["interval"]["matching"][0] > 0.85
    low, high = entries[1]["interval"]["matching"]
    assert low < 0.55 and entries[1]["matching"] < 0.6 and high < entries[0]["interval"]["matching"][0]
    assert entries[2]["matching"] == 0.5 and entries[2]["interval"]["matching"] == [0.5, 0.5]
    assert all(entry["n_matching"] == len(rows) for entry in entries)
    assert entries[0]["by_language"]["en"]["matching"] == entries[0]["matching"]


def test_only_rows_of_the_label_the_language_and_other_words_are_compared(rows):
    few = [rows[0], replace(rows[2], text=str(rows[0].text).upper()), *rows[4:9:2], rows[1]]
    few[-2] = replace(few[-2], language="de")
    texts, rationales, labels, languages = (
        [getattr(row, name) for row in few] for name in ("text", "rationale", "label", "language")
    )
    found = matches(texts, rationales, labels, languages)
    assert set(found) == {0, 1, 2, 3}
    assert found[0].other in (2, 3) and found[2].other in (0, 1, 3)
    assert matches([None] * 6, rationales, labels, languages) == {}


def test_without_transcripts_there_is_no_match(rows):
    predictions = explaining(rows, [row.rationale for row in rows])
    assert "matching" not in evaluate_rows(predictions, LABELS)
    assert "matching" not in rationale_metrics(["a"], ["a"], transcripts=["b"], labels=["negative"])


def test_the_report_shows_it_with_its_interval_beside_the_baselines(rows, tmp_path):
    predictions = [replace(row, condition="text") for row in explaining(rows, permuted_within_label(rows))]
    transcripts = {str(row.id): row.words for row in rows}
    metrics = {
        "text": evaluate_rows(predictions, LABELS, transcripts=transcripts),
        "baselines": baselines(rows, rows, labels=LABELS, predictions=predictions),
    }
    assert metrics["baselines"]["constant_rationale"]["matching"] < 0.6
    assert metrics["baselines"]["nearest_rationale"]["matching"] > 0.9
    write_report(
        tmp_path,
        title="t",
        metrics={"test": metrics, "seed": 0, "findings": []},
        predictions=predictions,
        labels=LABELS,
        split="test",
    )
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    low, high = metrics["text"]["interval"]["matching"]
    assert "fits its transcript" in page
    assert f"{metrics['text']['matching']:.3f} [{low:.3f}, {high:.3f}]" in page
    assert "consensus of the nearest training rows" in page

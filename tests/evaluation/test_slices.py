"""Slices: a planted weak one is found, and none is where there is none."""

from dataclasses import replace

import numpy as np
import pytest

from mmsr.evaluation.slices import are_numbers, slice_metrics, worst_slice_line
from mmsr.records import Prediction

LABELS = ["negative", "neutral", "positive"]


def answers(wrong, *, languages=("en", "de", "fr"), speakers=12):
    """Predictions of 12 rows a speaker; `wrong [n]` says which are."""
    return [
        Prediction(
            id=f"u{i}",
            label=LABELS[i % 3],
            predicted_label=LABELS[(i + bool(is_wrong)) % 3],
            language=languages[i // 12 % len(languages)],
            speaker=f"s{i // 12 % speakers}",
        )
        for i, is_wrong in enumerate(wrong)
    ]


def test_a_planted_weak_slice_is_found_beyond_chance():
    generator = np.random.default_rng(0)
    rows = answers(generator.random(360) < 0.1)
    for i, row in enumerate(rows):
        if row.language == "fr" and generator.random() < 0.5:
            rows[i] = replace(row, predicted_label=LABELS[(LABELS.index(row.label) + 1) % 3])
    found = slice_metrics(rows, LABELS, least=60)
    worst = found["worst_slice"]
    assert (worst["attribute"], worst["value"], worst["n"], worst["of"]) == ("language", "fr", 120, 3)
    french = [row.label == row.predicted_label for row in rows if row.language == "fr"]
    assert worst["accuracy"] == pytest.approx(np.mean(french))
    assert worst["p_value"] < 0.001 and worst["accuracy"] < worst["expected_interval"][0]
    assert worst["expected"] < worst["overall"], "the worst of three is low by chance too"
    assert set(found["slices"]) == {"language", "speaker"} and len(found["slices"]["speaker"]) == 12
    line = worst_slice_line(worst)
    assert line.startswith("worst of 3 slices: language fr, accuracy 0.") and line.endswith("(p < .001)")


def test_where_slices_make_no_difference_the_worst_is_rarely_called_one():
    generator = np.random.default_rng(1)
    p_values = [
        slice_metrics(answers(generator.random(180) < 0.3), LABELS, least=12)["worst_slice"]["p_value"]
        for _ in range(40)
    ]
    assert np.mean(np.array(p_values) < 0.05) <= 0.15
    assert 0.3 < np.mean(p_values) < 0.75


def test_numbers_are_cut_into_quarters_and_few_values_stay():
    rows = answers(np.zeros(100, dtype=bool))
    seconds = {row.id: float(i) for i, row in enumerate(rows)} | {"u99": None}
    ages = {row.id: ("young", "old")[i % 2] for i, row in enumerate(rows)}
    found = slice_metrics(rows, LABELS, attributes={"audio_seconds": seconds, "age": ages})["slices"]
    assert list(found["audio_seconds"]) == [
        "Q1: 0 to 24",
        "Q2: 25 to 49",
        "Q3: 50 to 73",
        "Q4: 74 to 98",
        "unknown",
    ]
    assert sum(entry["n"] for entry in found["audio_seconds"].values()) == 100
    assert {name: entry["n"] for name, entry in found["age"].items()} == {"old": 50, "young": 50}


def test_speakers_called_by_numbers_are_speakers_and_what_is_no_number_is_a_text():
    rows = [replace(row, speaker=row.speaker.removeprefix("s")) for row in answers(np.zeros(144, dtype=bool))]
    ages = {row.id: "nan" if i < 44 else str(i) for i, row in enumerate(rows)}
    found = slice_metrics(rows, LABELS, attributes={"age": ages})["slices"]
    assert list(found["speaker"]) == [str(i) for i in range(12)], "in the order of numbers"
    assert found["age"]["nan"]["n"] == 44


def test_few_numbers_are_named_and_sorted_as_numbers():
    rows = answers(np.zeros(70, dtype=bool))
    words = {row.id: float(8 + i % 5) for i, row in enumerate(rows)} | {"u0": None, "u1": 9.5}
    found = slice_metrics(rows, LABELS, attributes={"transcript_words": words}, least=11)
    assert list(found["slices"]["transcript_words"]) == ["8", "9", "9.5", "10", "11", "12", "unknown"]
    assert "interval" not in found["slices"]["transcript_words"]["9.5"], "a single row"
    assert found["slice_rows"] == 11
    assert are_numbers("transcript_words", list(found["slices"]["transcript_words"]))
    assert not are_numbers("speaker", ["1", "2"]) and not are_numbers("age", ["old", "9"])
    assert are_numbers("audio_seconds", ["Q1: 0 to 1", "unknown"])


def test_too_few_rows_have_no_worst_slice():
    rows = answers(np.zeros(24, dtype=bool))
    found = slice_metrics(rows, LABELS)
    assert found["worst_slice"] is None and found["slices"]["language"]["en"]["n"] == 12
    assert worst_slice_line(None) == "no worst slice: fewer than two slices have 30 rows"
    with pytest.raises(ValueError, match="least is 1; accepted: 2 rows or more"):
        slice_metrics(rows, LABELS, least=1)


def test_a_language_is_one_slice_however_it_is_written():
    rows = [
        replace(row, language=("en", "English", "eng", "fr")[i % 4])
        for i, row in enumerate(answers(np.arange(80) % 5 == 0))
    ]
    slices = slice_metrics(rows, LABELS)["slices"]["language"]
    assert {name: entry["n"] for name, entry in slices.items()} == {"en": 60, "fr": 20}

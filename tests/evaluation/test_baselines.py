from dataclasses import replace

import numpy as np
import pytest

from mmsr.evaluation.baselines import baselines, retrieved_rationales
from mmsr.records import Prediction

LABELS = ["negative", "neutral", "positive"]


@pytest.fixture
def train(utterance):
    cells = [
        ("negative", "en", "terrible pain", "pain is named"),
        ("negative", "en", "terrible night", "pain is named"),
        ("negative", "vi", "đau quá", "nói về cơn đau"),
        ("positive", "en", "wonderful doctor", "praise"),
        ("positive", "vi", "tuyệt vời", "khen ngợi"),
        ("positive", "vi", "rất tuyệt vời", "cảm ơn"),
        ("neutral", "en", "the room is white", "description"),
    ]
    return [
        utterance(f"train{i}", label=label, language=language, text=text, rationale=rationale)
        for i, (label, language, text, rationale) in enumerate(cells)
    ]


@pytest.fixture
def unseen(utterance):
    return [
        utterance("a", label="negative", language="en", text="a terrible pain", rationale="pain is named"),
        utterance("b", label="positive", language="vi", text="tuyệt vời", rationale="khen ngợi"),
        utterance("c", label="neutral", language="de", text=None, rationale="description"),
    ]


def test_majority_takes_the_alphabetically_first_of_the_most_frequent(train, unseen) -> None:
    entry = baselines(train, unseen, labels=LABELS)["majority"]  # three negative, three positive
    assert entry["confusion"]["positive"] == {"negative": 1, "neutral": 0, "positive": 0}
    assert entry["accuracy"] == pytest.approx(1 / 3)
    assert entry["n"] == 3
    assert "rougeL" not in entry


def answered(rows, labels) -> list[Prediction]:
    return [Prediction.of(row, predicted_label=labels[row.id]) for row in rows if row.id in labels]


def test_constant_rationale_explains_the_predicted_label_in_the_language(train, unseen) -> None:
    predicted = {"a": "negative", "b": "negative", "c": "neutral"}
    predictions = answered(unseen, predicted)
    entry = baselines(train, unseen, labels=LABELS, predictions=predictions)["constant_rationale"]
    # a: the same; b: "nói về cơn đau" against "khen ngợi"; c: German falls back on the English "description"
    assert entry["rationale_exact"] == entry["rouge1"] == pytest.approx(2 / 3)
    assert entry["accuracy"] == pytest.approx(2 / 3)
    assert entry["by_language"]["vi"]["rouge1"] == 0.0


def test_constant_rationale_leaves_out_rows_without_a_prediction(train, unseen) -> None:
    predictions = answered(unseen, {"a": "negative"})
    entry = baselines(train, unseen, labels=LABELS, predictions=predictions)["constant_rationale"]
    assert entry["n"] == 1
    assert "difference" not in entry, "of one row"


def test_a_baseline_has_its_paired_difference_from_the_predictions(train, unseen) -> None:
    right = answered(unseen, {row.id: row.label for row in unseen})
    found = baselines(train, unseen, labels=LABELS, predictions=right)
    entry = found["majority"]
    difference = entry["difference"]["macro_f1"]
    assert difference["value"] == pytest.approx(entry["macro_f1"] - 1) and difference["n"] == 3
    low, high = difference["interval"]
    assert low <= difference["value"] <= high and difference["over"] == "rows"


def test_oracle_explains_the_true_label_and_has_no_label_figures(train, unseen) -> None:
    entries = baselines(train, unseen, labels=LABELS)
    assert "constant_rationale" not in entries
    entry = entries["constant_rationale_oracle"]
    # of "cảm ơn" and "khen ngợi", once each, the alphabetically first is said: b is missed
    assert entry["rationale_exact"] == pytest.approx(2 / 3)
    assert entry["n_label"] == 0 and "accuracy" not in entry


def test_tfidf_learns_from_words_and_answers_rows_with_text(train, unseen) -> None:
    entry = baselines(train, unseen, labels=LABELS)["tfidf"]
    assert entry["n"] == 2
    assert entry["accuracy"] == 1.0


def test_tfidf_of_the_recognisers_words_reads_them_alone(train, unseen) -> None:
    heard = [replace(row, asr_text=row.text, text=None) for row in train]
    of_heard = baselines(heard, [replace(row, asr_text=row.text) for row in unseen], labels=LABELS)
    assert "tfidf" not in of_heard
    assert of_heard["tfidf_asr"] == baselines(train, unseen, labels=LABELS)["tfidf"]


def test_what_cannot_be_had_is_left_out(utterance, unseen) -> None:
    train = [utterance("t1", label="negative"), utterance("t2", label="positive")]
    assert list(baselines(train, unseen, labels=LABELS)) == ["majority"]
    train = [utterance("t1", label="negative", text="only one label")]
    assert list(baselines(train, unseen, labels=LABELS)) == ["majority"]
    assert baselines([utterance("t1", label=None)], unseen, labels=LABELS) == {}


def test_a_training_label_outside_the_set_names_its_row(utterance, unseen) -> None:
    with pytest.raises(
        ValueError, match="row 't1': label 'sad' is not one of 'negative', 'neutral', 'positive'"
    ):
        baselines([utterance("t1", label="sad")], unseen, labels=LABELS)


def test_a_constant_rationale_is_of_the_language_however_it_is_written(train, unseen) -> None:
    train = [replace(row, language={"vi": "Vietnamese"}.get(row.language, "eng")) for row in train]
    assert baselines(train, unseen, labels=LABELS)["constant_rationale_oracle"][
        "rationale_exact"
    ] == pytest.approx(2 / 3)


def test_retrieved_rationales_are_of_the_nearest_rows_of_the_predicted_label(train, unseen) -> None:
    rows = [
        replace(unseen[0], text="what a night of pain"),
        replace(unseen[1], text="bác sĩ rất tuyệt"),
        unseen[2],
    ]
    train = [*train, replace(train[0], id="t", text="pain all night", rationale="a bad night")]
    predictions = answered(rows, {"a": "negative", "b": "positive", "c": "neutral"})
    found = retrieved_rationales(train, rows, predictions, number=3)
    assert [(row.id, row.predicted_rationale) for row in found["nearest_rationale"]] == [
        ("a", "a bad night"),
        ("b", "cảm ơn"),
    ], "c has no transcript"
    assert [row.predicted_rationale for row in found["consensus_rationale"]] == ["pain is named", "cảm ơn"]
    heard = [replace(row, text=None, asr_text=row.text) for row in rows]
    assert retrieved_rationales(train, heard, predictions, number=3) == found
    entries = baselines(train, rows, labels=LABELS, predictions=predictions)
    assert entries["nearest_rationale"]["n"] == entries["consensus_rationale"]["n"] == 2
    none = retrieved_rationales([], rows, predictions)
    assert none == {"nearest_rationale": [], "consensus_rationale": []}


def test_retrieval_falls_back_on_other_languages_and_takes_any_encoder(train, unseen) -> None:
    german = [replace(unseen[0], language="de", text="x")]
    predictions = answered(german, {"a": "neutral"})
    asked = []

    def encode(texts):
        asked.append(list(texts))
        return np.ones((len(texts), 1))

    found = retrieved_rationales(train, german, predictions, encode=encode)
    assert found["nearest_rationale"][0].predicted_rationale == "description"
    assert asked == [["the room is white"], ["x"]]

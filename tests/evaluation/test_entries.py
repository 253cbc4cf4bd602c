import pytest

from mmsr.evaluation.entries import bootstrap_intervals, evaluate_rows, mean_with_interval

LABELS = ["negative", "neutral", "positive"]


def test_evaluate_rows_counts_only_what_can_be_scored(prediction) -> None:
    rows = [
        prediction(
            "a",
            label="negative",
            predicted_label="negative",
            rationale="sad voice",
            predicted_rationale="sad",
        ),
        prediction(
            "b", label=None, predicted_label="neutral", rationale="even voice", predicted_rationale=None
        ),
        prediction(
            "c", label="positive", predicted_label="negative", rationale=" ", predicted_rationale="gay"
        ),
    ]
    entry = evaluate_rows(rows, LABELS)
    assert (entry["n"], entry["n_label"], entry["n_rationale"]) == (3, 2, 2)
    assert entry["accuracy"] == 0.5
    assert entry["rouge1"] == pytest.approx((2 / 3 + 0) / 2)
    assert entry["confusion"]["positive"] == {"negative": 1, "neutral": 0, "positive": 0}
    assert "by_language" not in entry and "by_kind" not in entry


def test_figures_that_cannot_be_had_have_no_key(prediction) -> None:
    entry = evaluate_rows([prediction("a", label=None, predicted_rationale="calm")], LABELS)
    assert entry == {"n": 1, "n_label": 0, "n_rationale": 0}
    silent = evaluate_rows([prediction("a", rationale="calm")], LABELS)  # a model without a rationale decoder
    assert "rougeL" not in silent and silent["n_rationale"] == 0 and silent["accuracy"] == 1.0


def test_groups_have_the_same_figures_without_groups_of_their_own(prediction) -> None:
    rows = [
        prediction("a", language="vi", kind="voice"),
        prediction("b", language="vi", kind="words", predicted_label="positive"),
        prediction("c", language=None, kind="words"),
    ]
    entry = evaluate_rows(rows, LABELS)
    assert entry["by_language"]["vi"]["accuracy"] == 0.5
    assert list(entry["by_language"]) == ["unknown", "vi"]
    assert {kind: figures["n"] for kind, figures in entry["by_kind"].items()} == {"voice": 1, "words": 2}
    assert set(entry) - set(entry["by_kind"]["words"]) == {"by_language", "by_kind"}


@pytest.mark.parametrize("field", ["label", "predicted_label"])
def test_a_label_outside_the_set_names_row_value_and_what_is_accepted(prediction, field: str) -> None:
    with pytest.raises(ValueError) as error:
        evaluate_rows([prediction("a"), prediction("utt-7", **{field: "angry"})], LABELS)
    assert str(error.value) == f"row 'utt-7': {field} 'angry' is not one of 'negative', 'neutral', 'positive'"


def test_interval_over_rows_is_near_the_normal_one_and_repeats() -> None:
    gold = ["negative"] * 200 + ["positive"] * 200
    predicted = ["negative"] * 160 + ["positive"] * 200 + ["negative"] * 40
    interval = bootstrap_intervals(gold, predicted)
    half = 1.96 * (0.8 * 0.2 / 400) ** 0.5
    assert interval["accuracy"] == pytest.approx([0.8 - half, 0.8 + half], abs=0.008)
    assert interval["macro_f1"] == pytest.approx([0.8 - half, 0.8 + half], abs=0.008)
    assert interval == bootstrap_intervals(gold, predicted)
    (low, high) = bootstrap_intervals(gold, gold)["accuracy"]
    assert 0.99 < low < high == 1.0
    assert bootstrap_intervals(gold, gold)["macro_f1"] == pytest.approx([low, high])
    assert bootstrap_intervals(gold[:1], gold[:1]) == {}


def test_one_row_has_no_interval_and_twelve_right_ones_a_wide_one(prediction) -> None:
    rows = [
        prediction(str(i), label=LABELS[i % 3], predicted_label=LABELS[i % 3], kind="ab"[i > 0])
        for i in range(13)
    ]
    entry = evaluate_rows(rows, LABELS)["by_kind"]
    assert "interval" not in entry["a"] and "interval_over" not in entry["a"]
    low, high = entry["b"]["interval"]["accuracy"]
    assert (low, high) == pytest.approx((0.757, 1.0), abs=0.001)
    assert mean_with_interval([True], rows[:1]) == {"value": 1.0, "n": 1}
    assert mean_with_interval([True] * 12, rows[1:])["interval"] == pytest.approx([low, high])


@pytest.mark.parametrize(("speakers", "over"), [(20, "speakers"), (6, "speakers"), (5, "rows"), (0, "rows")])
def test_interval_is_over_speakers_where_there_are_more_than_five(
    prediction, speakers: int, over: str
) -> None:
    rows = [
        prediction(str(i), predicted_label="neutral", speaker=f"s{i % speakers}" if speakers else None)
        for i in range(120)
    ]
    assert evaluate_rows(rows, LABELS)["interval_over"] == over


def test_speakers_who_are_right_or_wrong_as_a_whole_widen_the_interval() -> None:
    gold = ["neutral"] * 200
    predicted = ["neutral" if i % 20 < 10 else "negative" for i in range(200)]
    speakers = [str(i % 20) for i in range(200)]
    (low, high) = bootstrap_intervals(gold, predicted)["accuracy"]
    (wide_low, wide_high) = bootstrap_intervals(gold, predicted, speakers=speakers)["accuracy"]
    assert wide_high - wide_low > 2.5 * (high - low)


def test_rows_are_grouped_by_language_however_it_is_written(prediction) -> None:
    written = ["zh", "cmn", "zho_Hans", "Chinese", "中文", "vie", "Vietnamese", "clinic A", None]
    rows = [
        prediction(
            str(place), language=language, rationale="语气很失望。", predicted_rationale="语气很失望。"
        )
        for place, language in enumerate(written)
    ]
    groups = evaluate_rows(rows, LABELS)["by_language"]
    assert {name: entry["n"] for name, entry in groups.items()} == {
        "clinic a": 1,
        "unknown": 1,
        "vi": 2,
        "zh": 5,
    }
    assert [groups["zh"][metric] for metric in ("bleu", "rouge1")] == pytest.approx([1, 1])

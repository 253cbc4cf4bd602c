"""Calibration against figures by hand, scikit-learn, and simulations whose answer is known."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from mmsr.evaluation.calibration import (
    METHODS,
    MIN_ROWS,
    CalibrationError,
    aurc,
    brier,
    calibrate,
    calibration_error,
    calibration_line,
    calibration_metrics,
    conformal_metrics,
    conformal_rows,
    conformal_text,
    conformal_threshold,
    excess_aurc,
    fit_temperature,
    label_sets,
    nll,
    reliability,
    risk_coverage,
    softmax,
)
from mmsr.evaluation.run import conformal_entries, evaluate
from mmsr.records import Answer, Utterance

LABELS = ["negative", "neutral", "positive"]


def drawn(n: int, *, seed: int = 0, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits `[n, 3]` and labels drawn from their softmax: a calibrated model."""
    generator = np.random.default_rng(seed)
    logits = spread * generator.standard_normal((n, 3))
    shares = softmax(logits).cumsum(1)
    return logits, (generator.random((n, 1)) > shares[:, :2]).sum(1)


def judged(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return scores.max(1), scores.argmax(1) == labels


# ---------------------------------------------------------------------- temperature


@pytest.mark.parametrize("temperature", [0.4, 1.0, 1.7, 5.0])
def test_a_known_temperature_is_found(temperature: float) -> None:
    logits, labels = drawn(100_000)
    assert fit_temperature(logits * temperature, labels) / temperature == pytest.approx(1, abs=0.02)


def test_the_temperature_minimises_the_likelihood_and_constants_do_not_matter() -> None:
    logits, labels = drawn(2000, spread=1.0)
    logits *= 3
    best = fit_temperature(logits, labels)
    least = nll(softmax(logits / best), labels)
    assert all(nll(softmax(logits / (best * factor)), labels) > least for factor in (0.99, 1.01))
    shifted = np.log(softmax(logits))
    assert fit_temperature(shifted, labels) == pytest.approx(best, rel=1e-6)
    for factor in (0.1, 5.0):
        assert fit_temperature(logits * factor, labels) == pytest.approx(best * factor, rel=1e-6)
    assert fit_temperature(logits * 1e4, labels) == 20


def test_the_order_of_labels_stays() -> None:
    logits, labels = drawn(5000)
    scaled = softmax(logits / fit_temperature(logits * 2, labels))
    assert (scaled.argsort(1) == logits.argsort(1)).all()


def test_what_has_no_best_temperature_is_refused() -> None:
    logits, labels = drawn(200)
    with pytest.raises(CalibrationError, match="all 200 rows are answered right: no temperature is best"):
        fit_temperature(logits, logits.argmax(1))
    with pytest.raises(CalibrationError, match="the logits of 200 rows say nothing of their labels"):
        fit_temperature(logits, logits.argmin(1))
    with pytest.raises(ValueError, match=r"logits \[200, 3\] and labels \[199\]; accepted: \[n, c\] and"):
        fit_temperature(logits, labels[1:])
    with pytest.raises(ValueError, match="labels 0 to 3; accepted: 0 to 2"):
        fit_temperature(logits, np.where(np.arange(200) == 7, 3, 0))
    with pytest.raises(ValueError, match="logits hold a number that is not finite"):
        fit_temperature(np.where(np.arange(3) == 1, np.inf, logits), labels)


@pytest.fixture
def utterances(utterance: Callable[..., Utterance]) -> list[Utterance]:
    """400 rows whose text is the row's number in `drawn(400)`, whose labels they have."""
    _, labels = drawn(400)
    return [utterance(f"r{i}", label=LABELS[label], text=str(i)) for i, label in enumerate(labels)]


def model(factor: float, *, head: float | None = None) -> Callable[[Any], Any]:
    """Answers with `drawn(400)`'s logits times a factor; with `head` a head's beside the decoder's."""
    logits, _ = drawn(400)

    def predict(records: Any) -> Any:
        answers = []
        for record in records:
            row = logits[int(record.text)][None]
            named = [dict(zip(LABELS, softmax(row * k)[0], strict=True)) for k in (factor, head or 1.0)]
            label = LABELS[int(row.argmax())]
            answer = {"label": label, "score": named[0][label], "scores": named[0], "rationale": None}
            answers.append(
                Answer(**answer, **({} if head is None else {"head_label": label, "head_scores": named[1]}))
            )
        return answers

    return predict


def test_a_model_is_calibrated_on_its_labelled_rows(utterances: list[Utterance]) -> None:
    utterances[0] = replace(utterances[0], label=None)
    found = calibrate(model(3.0), utterances, labels=LABELS)
    plain = calibrate(model(1.0), utterances, labels=LABELS)
    assert found["n"] == 399 and "decoder_temperature" not in found
    assert found["temperature"] == pytest.approx(3 * plain["temperature"], rel=1e-4)
    assert found["nll"][1] == pytest.approx(plain["nll"][1]) and found["nll"][1] < found["nll"][0]
    assert found["ece"][1] == pytest.approx(plain["ece"][1], abs=1e-4) and found["ece"][1] < found["ece"][0]
    assert calibration_line(found).startswith("calibrated on 399 development rows: temperature 3.")


def test_head_and_decoder_have_a_temperature_each(utterances: list[Utterance]) -> None:
    found = calibrate(model(3.0, head=0.5), utterances, labels=LABELS)
    assert found["decoder_temperature"] / found["temperature"] == pytest.approx(6, rel=1e-4)


def test_rows_that_allow_no_temperature_are_refused_before_the_model_is_asked(
    utterances: list[Utterance],
) -> None:
    def never(records: Any) -> Any:
        raise AssertionError("asked")

    with pytest.raises(CalibrationError, match="49 labelled rows; accepted: 50 or more"):
        calibrate(never, utterances[: MIN_ROWS - 1], labels=LABELS)
    alike = [replace(row, label="neutral") for row in utterances]
    with pytest.raises(CalibrationError, match="all 400 rows are 'neutral'; accepted: rows of two labels"):
        calibrate(never, alike, labels=LABELS)


# ---------------------------------------------------------------------- measures


def test_measures_by_hand() -> None:
    scores = np.array([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])
    labels = np.array([1, 1])
    assert brier(scores, labels) == pytest.approx((0.25 + 0.49 + 0.04 + 0.01 + 0.04 + 0.01) / 2)
    assert nll(scores, labels) == pytest.approx(-(np.log(0.3) + np.log(0.8)) / 2)
    assert nll([[1.0, 0.0]], [1]) == pytest.approx(36.04, abs=0.01)  # and not infinite
    confidence, correct = [0.05, 0.3, 0.35, 0.9], [False, True, False, True]
    bins = reliability(confidence, correct, bins=4, equal_mass=False)
    assert bins.n.tolist() == [1, 2, 1] and bins.accuracy.tolist() == [0, 0.5, 1]
    assert bins.confidence == pytest.approx([0.05, 0.325, 0.9])
    assert calibration_error(confidence, correct, bins=4, equal_mass=False) == pytest.approx(
        (0.05 + 2 * 0.175 + 0.1) / 4
    )
    assert reliability(confidence, correct, bins=2).confidence == pytest.approx([0.175, 0.625])
    assert calibration_error(confidence, correct, bins=2) == pytest.approx((0.325 + 0.125) / 2)


def test_risk_and_coverage_by_hand() -> None:
    confidence, correct = [0.6, 0.9, 0.8, 0.7], [True, True, False, False]
    curve = risk_coverage(confidence, correct)
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert curve.risk == pytest.approx([0, 1 / 2, 2 / 3, 1 / 2])
    assert aurc(confidence, correct) == pytest.approx((0 + 1 / 2 + 2 / 3 + 1 / 2) / 4)
    best = (0 + 0 + 1 / 3 + 1 / 2) / 4
    assert excess_aurc(confidence, correct) == pytest.approx(aurc(confidence, correct) - best)
    assert excess_aurc([0.9, 0.8, 0.3, 0.2], [True, True, False, False]) == 0
    assert risk_coverage([0.5] * 4, correct).risk.tolist() == [0.5] * 4, "ties are in no order"


def test_measures_are_scikit_learns() -> None:
    logits, labels = drawn(500)
    scores = softmax(logits)
    assert nll(scores, labels) == pytest.approx(log_loss(labels, scores))
    expected = brier_score_loss(labels, scores, scale_by_half=False, labels=[0, 1, 2])
    assert brier(scores, labels) == pytest.approx(expected)


@pytest.mark.parametrize("equal_mass", [True, False])
def test_simulations_have_the_error_that_they_were_given(equal_mass: bool) -> None:
    logits, labels = drawn(200_000)
    scores = softmax(logits)
    assert calibration_error(*judged(scores, labels), equal_mass=equal_mass) < 0.006
    sure = softmax(3 * logits)  # too sure in every row, by what is known
    expected = (sure.max(1) - scores.max(1)).mean()
    assert expected > 0.1
    assert calibration_error(*judged(sure, labels), equal_mass=equal_mass) == pytest.approx(
        expected, abs=0.005
    )


def test_bins_of_equal_mass_hold_as_many_rows_and_never_part_equals() -> None:
    generator = np.random.default_rng(0)
    confidence, correct = generator.random(1500), generator.random(1500) < 0.5
    assert reliability(confidence, correct).n.tolist() == [100] * 15
    confidence[:700] = 1.0
    order = generator.permutation(1500)
    one, other = (reliability(confidence[o], correct[o]) for o in (np.arange(1500), order))
    assert one.n.tolist() == other.n.tolist() and one.n[-1] >= 700
    assert one.accuracy == pytest.approx(other.accuracy)
    assert reliability([0.9] * 10, [True] * 7 + [False] * 3).n.tolist() == [10]
    assert calibration_error([0.9] * 10, [True] * 7 + [False] * 3) == pytest.approx(0.2)


def test_metrics_carry_the_calibration_of_each_condition(utterances: list[Utterance]) -> None:
    utterances[0] = replace(utterances[0], label=None)
    metrics, predictions = evaluate(model(1.0), utterances, labels=LABELS, temperature=1.3)
    entry = metrics["text"]["calibration"]
    assert entry == calibration_metrics(predictions, LABELS, temperature=1.3)
    assert (entry["n"], entry["temperature"]) == (399, 1.3)
    logits, labels = drawn(400)
    scores = softmax(logits)[1:]
    assert entry["nll"] == pytest.approx(nll(scores, labels[1:]))
    assert entry["ece"] == pytest.approx(calibration_error(*judged(scores, labels[1:])))
    assert sum(entry["reliability"]["n"]) == 399
    unlabelled = [replace(row, label=None) for row in utterances]
    assert "calibration" not in evaluate(model(1.0), unlabelled, labels=LABELS)[0]["text"]


# ---------------------------------------------------------------------- label sets


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(5))
def test_sets_cover_exchangeable_rows_and_fail_on_shifted_ones(seed: int, method: Any) -> None:
    """Also at a temperature that is wrong: the guarantee asks for no calibration."""
    logits, labels = drawn(12_000, seed=seed, spread=1.5)
    scores = softmax(2 * logits)
    known, rows = slice(0, 6000), slice(6000, None)
    threshold = conformal_threshold(scores[known], labels[known], coverage=0.9, method=method)

    def covered(scores: np.ndarray) -> float:
        sets = label_sets(scores, threshold, method=method)
        return float(sets[np.arange(6000), labels[rows]].mean())

    assert 0.88 < covered(scores[rows]) < 0.92
    noise = np.random.default_rng(seed).standard_normal((6000, 3))
    assert covered(softmax(2 * (logits[rows] + 2 * noise))) < 0.85


def test_thresholds_and_sets_by_hand() -> None:
    scores = np.array([[0.9, 0.1, 0.0], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.3, 0.4, 0.3]])
    labels = [0, 1, 2, 0]  # lac: .1 .7 .4 .7; aps: 0 .5 0 .4
    assert conformal_threshold(scores, labels, coverage=0.4) == pytest.approx(0.4)  # the 2nd of 4
    assert conformal_threshold(scores, labels, coverage=0.5) == pytest.approx(0.7)  # ceil(2.5) = 3rd
    assert conformal_threshold(scores, labels, coverage=0.6, method="aps") == pytest.approx(0.4)
    assert conformal_threshold(scores, labels, coverage=0.81) == 1.0  # the 5th of 4
    assert label_sets(scores, 1.0).all() and label_sets(scores, 1.0, method="aps").all()
    assert label_sets([[0.4, 0.3, 0.3], [0.8, 0.2, 0.0]], 0.5).tolist() == [[False] * 3, [True, False, False]]
    aps = label_sets([[0.3, 0.6, 0.1], [0.3, 0.4, 0.3]], 0.65, method="aps")
    assert aps.tolist() == [[True, True, False], [True, True, False]]
    assert label_sets(scores, 0.0, method="aps").sum(1).tolist() == [1] * 4, "never empty"


@pytest.mark.parametrize(("coverage", "needed"), [(0.9, 9), (0.8, 4), (0.95, 19), (0.92, 12)])
def test_with_fewer_rows_than_needed_sets_hold_every_label(coverage: float, needed: int) -> None:
    assert conformal_rows(coverage) == needed
    logits, labels = drawn(needed)
    assert conformal_threshold(softmax(logits), labels, coverage=coverage) < 1.0
    assert conformal_threshold(softmax(logits)[1:], labels[1:], coverage=coverage) == 1.0


def test_too_few_rows_and_empty_sets_are_told_in_words(utterances: list[Utterance]) -> None:
    _, predictions = evaluate(model(1.0), utterances, labels=LABELS)
    known = {n: conformal_metrics(predictions[:n], predictions[200:], LABELS, coverage=0.9) for n in (8, 100)}
    few, enough = (conformal_text(found) for found in known.values())
    assert known[8]["n_needed"] == 9 and known[8]["lac"]["mean_size"] == 3
    assert "8 calibration rows are too few for 90 %, which takes 9 or more: all sets hold every label" in few
    assert "too few" not in enough and "0.0 % of sets empty" in few and "An empty set" not in few
    low, high = (100 * end for end in known[100]["aps"]["interval"])
    assert f"[{low:.1f}, {high:.1f}; 95 % over rows]" in enough
    sharp = conformal_metrics(predictions[:100], predictions[200:], LABELS, coverage=0.4)
    share = sharp["lac"]["empty"]
    assert share > 0 and f"{100 * share:.1f} % of sets empty" in conformal_text(sharp)
    assert "An empty set says that no label is likely enough" in conformal_text(sharp)


@pytest.mark.parametrize("coverage", [0, 1, 90])
def test_what_is_no_coverage_or_method_is_named(coverage: float) -> None:
    with pytest.raises(ValueError, match=f"coverage is {coverage}; accepted: above 0 and below 1"):
        conformal_threshold([[1.0, 0.0]], [0], coverage=coverage)
    with pytest.raises(ValueError, match="method='raps' does not exist; accepted: lac, aps"):
        conformal_threshold([[1.0, 0.0]], [0], method="raps")  # type: ignore[arg-type]


def test_sets_are_calibrated_in_the_condition_that_they_are_told_of(utterances: list[Utterance]) -> None:
    dev, test = utterances[:200], utterances[200:]
    dev[0] = replace(dev[0], label=None)
    _, predictions = evaluate(model(1.0), test, labels=LABELS)
    entries = conformal_entries(model(1.0), dev, predictions, labels=LABELS, coverage=0.8)
    assert list(entries) == ["text"]
    entry = entries["text"]
    assert (entry["asked"], entry["n"], entry["n_calibration"]) == (0.8, 200, 199)
    for method in METHODS:
        assert 0.7 < entry[method]["coverage"] < 0.9 and 1 < entry[method]["mean_size"] < 2.5
    assert entry["aps"]["empty"] == 0
    _, known = evaluate(model(1.0), dev, labels=LABELS)
    assert entry == conformal_metrics(known, predictions, LABELS, coverage=0.8)
    low, high = entry["lac"]["interval"]
    assert low < entry["lac"]["coverage"] < high and entry["lac"]["over"] == "rows"
    assert conformal_metrics(known[:1], predictions, LABELS) == {}
    heard = [replace(row, audio=row.text, text=None) for row in dev]
    assert conformal_entries(model(1.0), heard, predictions, labels=LABELS) == {}

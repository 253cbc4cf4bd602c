"""Calibration of probabilities: temperature scaling, calibration metrics, conformal label sets.

development rows ─► `calibrate` ─► temperatures, which the checkpoint keeps
predictions ─► `calibration_metrics` ─► an entry's `calibration`
development rows, predictions ─► `conformal_metrics` ─► an entry's `conformal`

Notation of shapes: n rows, c labels. `confidence [n]` is the probability of the predicted label, and
`correct [n]` whether that is the true one. `mmsr fit` imports this module: numpy and torch have to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmsr.records import Predict, Prediction, Utterance

Floats = NDArray[np.float64]
Method = Literal["lac", "aps"]
METHODS: tuple[Method, ...] = ("lac", "aps")

MIN_ROWS = 50  # with fewer rows the fitted temperature is too inaccurate to help
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
BINS = 15
_LEAST = float(np.finfo(np.float32).smallest_subnormal)  # a softmax in float32 rounds less than this to 0


class CalibrationError(ValueError):
    """No temperature can be fitted to these rows."""


# ---------------------------------------------------------------------- temperature


def calibrate(
    predict: Predict, rows: Sequence[Utterance], *, labels: Sequence[str], text_column: str = "text"
) -> dict[str, Any]:
    """Fits temperatures to development rows.

    `predict` answers at temperature 1, with or without rationales. `labels` are in the order of the model's
    ids, `text_column` is the transcript that it reads. Rows without a label are left out.

    Returns:
        `n`, `temperature` (the head's), `decoder_temperature` where the decoder gives the label, and `nll`
        and `ece` of the answers as `[before, after]`.

    Raises:
        CalibrationError: There are fewer than 50 labelled rows, they have one label, or no temperature is
            best (see `fit_temperature`).
    """
    rows = [row for row in rows if row.label is not None]
    gold = [str(row.label) for row in rows]
    if len(rows) < MIN_ROWS:
        raise CalibrationError(f"{len(rows)} labelled rows; accepted: {MIN_ROWS} or more")
    if len(set(gold)) == 1:
        raise CalibrationError(f"all {len(rows)} rows are {gold[0]!r}; accepted: rows of two labels or more")
    answers = predict([row.model_input(text=text_column) for row in rows])
    truth = np.array([labels.index(label) for label in gold])
    logits = _logits([answer.scores for answer in answers], labels)
    temperature = fit_temperature(logits, truth)
    fitted: dict[str, Any] = {"n": len(rows), "temperature": temperature}
    heads = [answer.head_scores for answer in answers if answer.head_scores is not None]
    if len(heads) == len(answers):
        fitted["temperature"] = fit_temperature(_logits(heads, labels), truth)
        fitted["decoder_temperature"] = temperature
    both = [softmax(logits), softmax(logits / temperature)]
    fitted["nll"] = [nll(scores, truth) for scores in both]
    correct = logits.argmax(1) == truth
    fitted["ece"] = [calibration_error(scores.max(1), correct) for scores in both]
    return fitted


def calibration_line(found: Mapping[str, Any]) -> str:
    """Returns the result of `calibrate` as a line of text."""
    temperature = found.get("decoder_temperature", found["temperature"])
    (nll_before, nll_after), (ece_before, ece_after) = found["nll"], found["ece"]
    return (
        f"calibrated on {found['n']:,} development rows: temperature {temperature:.3f}, "
        f"NLL {nll_before:.3f} -> {nll_after:.3f}, ECE {ece_before:.3f} -> {ece_after:.3f}"
    )


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Returns the T that maximises the likelihood of softmax(logits / T) (Guo et al. 2017, arXiv 1706.04599).

    The negative log-likelihood is convex in 1 / T, by which it is minimised (LBFGS, float64).

    T is between 0.05 and 20. `logits [n, c]` may have a constant added in each row, so log-probabilities will
    do; `labels [n]` are ids.

    Raises:
        CalibrationError: Every row is answered right, so that T would go to 0; or the logits favour the true
            label no more than the others, so that T would go to infinity.
    """
    import torch
    from torch.nn.functional import cross_entropy

    scores, truth = _checked(logits, labels, name="logits")
    true = scores[np.arange(len(truth)), truth]
    if (true == scores.max(1)).all():
        raise CalibrationError(f"all {len(truth)} rows are answered right: no temperature is best")
    if (true - scores.mean(1)).mean() <= 0:  # the slope of the log-likelihood at 1 / T = 0
        raise CalibrationError(f"the logits of {len(truth)} rows say nothing of their labels")
    # scaled so that 1 / T is near 1, for a good first step
    scale = float(scores.std(1).mean())
    z, y = torch.from_numpy(scores / scale), torch.from_numpy(truth)
    inverse = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [inverse], max_iter=200, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = cross_entropy(z * inverse, y)
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return float(np.clip(scale / inverse.item(), MIN_TEMPERATURE, MAX_TEMPERATURE))


def softmax(logits: ArrayLike) -> Floats:
    """Returns probabilities `[n, c]` of logits `[n, c]`."""
    z = np.asarray(logits, dtype=np.float64)
    powers = np.exp(z - z.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


# ---------------------------------------------------------------------- metrics


class Reliability(NamedTuple):
    """A reliability diagram, with one entry for each bin that has rows."""

    confidence: Floats  # mean of the bin's rows
    accuracy: Floats
    n: NDArray[np.int64]


class RiskCoverage(NamedTuple):
    """Share of wrong answers (`risk [n]`) among the most confident k of n rows (`coverage [n]`)."""

    coverage: Floats
    risk: Floats


def calibration_metrics(
    rows: Sequence[Prediction], labels: Sequence[str], *, temperature: float | None = None
) -> dict[str, Any]:
    """Returns metrics of the probabilities of labelled predictions that have them; `{}` without any.

    `n`, `temperature` (as given), `ece` (equal-mass bins), `ece_equal_width`, `brier`, `nll`, `aurc`,
    `excess_aurc` and `reliability` (of the equal-mass bins). For all of them less is better. An ECE of few
    rows is too large, since the accuracy of each bin varies by chance.
    """
    rows = [row for row in rows if row.label is not None and row.scores]
    if not rows:
        return {}
    scores, truth = _scores_and_truth(rows, labels)
    confidence, correct = confidence_and_correct(rows)
    return {
        "n": len(rows),
        "temperature": temperature,
        "ece": calibration_error(confidence, correct),
        "ece_equal_width": calibration_error(confidence, correct, equal_mass=False),
        "brier": brier(scores, truth),
        "nll": nll(scores, truth),
        "aurc": aurc(confidence, correct),
        "excess_aurc": excess_aurc(confidence, correct),
        "reliability": {
            name: values.tolist() for name, values in reliability(confidence, correct)._asdict().items()
        },
    }


def confidence_and_correct(rows: Sequence[Prediction]) -> tuple[Floats, NDArray[np.bool_]]:
    """Returns the probability of each row's predicted label, and whether that is the true one, `[n]` each."""
    confidence = np.array([row.confidence for row in rows], dtype=np.float64)
    return confidence, np.array([row.predicted_label == row.label for row in rows], dtype=bool)


def reliability(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = BINS, equal_mass: bool = True
) -> Reliability:
    """Returns confidence and accuracy by bins of confidence, in ascending order.

    Bins have equally many rows (Nixon et al. 2019, arXiv 1904.01685), except that rows of one confidence stay
    in one bin; without `equal_mass` each is 1 / `bins` wide. Bins without a row are left out.
    """
    confidence, correct = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    steps = np.linspace(0, 1, bins + 1)
    edges = np.quantile(confidence, steps, method="inverted_cdf") if equal_mass else steps
    place = np.searchsorted(np.unique(edges[1:-1]), confidence, side="left")  # (low, high], as in Guo et al.
    counts = np.bincount(place)
    used = counts > 0
    sums = [np.bincount(place, weights=values)[used] for values in (confidence, correct)]
    return Reliability(sums[0] / counts[used], sums[1] / counts[used], counts[used])


def calibration_error(
    confidence: ArrayLike, correct: ArrayLike, *, bins: int = BINS, equal_mass: bool = True
) -> float:
    """Returns the expected calibration error: mean |confidence - accuracy| over the bins of `reliability`."""
    found = reliability(confidence, correct, bins=bins, equal_mass=equal_mass)
    return float(np.average(np.abs(found.confidence - found.accuracy), weights=found.n))


def brier(scores: ArrayLike, labels: ArrayLike) -> float:
    """Returns the multi-class Brier score, 0 to 2, of `scores [n, c]`."""
    p, truth = _checked(scores, labels)
    return float(((p - np.eye(p.shape[1])[truth]) ** 2).sum(1).mean())


def nll(scores: ArrayLike, labels: ArrayLike) -> float:
    """Returns the mean negative log-likelihood (nats) of the labels; a probability of 0 counts as 2.2e-16."""
    p, truth = _checked(scores, labels)
    return float(-np.log(np.maximum(p[np.arange(len(truth)), truth], np.finfo(np.float64).eps)).mean())


def risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> RiskCoverage:
    """Returns the risk at each coverage; rows of equal confidence count as in random order."""
    confidence, wrong = np.asarray(confidence, dtype=np.float64), ~np.asarray(correct, dtype=bool)
    _, group, counts = np.unique(-confidence, return_inverse=True, return_counts=True)
    shares = np.bincount(group, weights=wrong) / counts
    answered = np.arange(1, len(confidence) + 1)
    return RiskCoverage(answered / len(confidence), np.repeat(shares, counts).cumsum() / answered)


def aurc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Returns the area under the risk-coverage curve, its mean risk (Geifman et al. 2019)."""
    return float(risk_coverage(confidence, correct).risk.mean())


def excess_aurc(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Returns the AURC minus that of the best order, all right answers before all wrong ones."""
    return aurc(confidence, correct) - aurc(correct, correct)


# ---------------------------------------------------------------------- label sets


def conformal_threshold(
    scores: ArrayLike, labels: ArrayLike, *, coverage: float = 0.9, method: Method = "lac"
) -> float:
    """Returns the threshold at which `label_sets` hold the true label in a share `coverage` of rows.

    Split conformal prediction (Angelopoulos and Bates 2021, arXiv 2107.07511): the threshold is the
    ceil((n + 1) coverage)-th smallest nonconformity of the true labels. Rows exchangeable with these are
    covered at least so often, on average over draws of both; of other rows nothing is promised.

    A label's nonconformity is, with `lac`, 1 - its probability (Sadinle et al. 2019, arXiv 1609.00451): the
    smallest sets, which may be empty. With `aps` it is the probability of all labels above it (Romano et al.
    2020, arXiv 2006.02544). Deviation: their random u is 0, so sets are never empty, and cover more often
    than `coverage` where the first label alone does.

    `scores [n, c]` and the ids `labels [n]` are of rows that the model was not trained on. With fewer rows
    than `conformal_rows` the threshold is 1, at which sets hold every label.

    Raises:
        ValueError: `coverage` or `method` is invalid, or there are no rows.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"conformal coverage is {coverage:g}; accepted: above 0 and below 1, such as 0.9")
    p, truth = _checked(scores, labels)
    nonconformity = np.sort(_nonconformity(p, method)[np.arange(len(truth)), truth])
    rank = int(np.ceil((len(truth) + 1) * coverage - 1e-9))  # 1000 * .9 may be a little more than 900
    return float(nonconformity[rank - 1]) if rank <= len(truth) else 1.0


def conformal_rows(coverage: float) -> int:
    """Returns how many rows `coverage` needs, 9 for 90 %; with fewer a set holds every label."""
    return int(np.ceil(coverage / (1 - coverage) - 1e-9))


def label_sets(scores: ArrayLike, threshold: float, *, method: Method = "lac") -> NDArray[np.bool_]:
    """Returns which labels are in each row's set `[n, c]`, at a threshold of the same method."""
    return _nonconformity(np.asarray(scores, dtype=np.float64), method) <= threshold


def conformal_metrics(
    known: Sequence[Prediction],
    rows: Sequence[Prediction],
    labels: Sequence[str],
    *,
    coverage: float = 0.9,
) -> dict[str, Any]:
    """Returns coverage and size of label sets of `rows`, at thresholds of the `known` rows.

    Rows without a label or probabilities are left out; `{}` where either has none.

    Returns:
        `asked` (the coverage), `n`, `n_calibration`, `n_needed` (see `conformal_rows`), and for each method
        `threshold`, `coverage` with its 95 % `interval` and what that is `over` (not of a single row),
        `mean_size` and `empty` (share of rows).
    """
    from mmsr.evaluation.entries import mean_with_interval

    known, rows = ([row for row in part if row.label is not None and row.scores] for part in (known, rows))
    if not known or not rows:
        return {}
    scores, truth = _scores_and_truth(rows, labels)
    entry: dict[str, Any] = {"asked": coverage, "n": len(rows), "n_calibration": len(known)}
    entry["n_needed"] = conformal_rows(coverage)
    for method in METHODS:
        threshold = conformal_threshold(*_scores_and_truth(known, labels), coverage=coverage, method=method)
        sets = label_sets(scores, threshold, method=method)
        covered = mean_with_interval(sets[np.arange(len(truth)), truth], rows)
        entry[method] = {
            "threshold": threshold,
            "coverage": covered["value"],
            **{name: covered[name] for name in ("interval", "over") if name in covered},
            "mean_size": float(sets.sum(1).mean()),
            "empty": float((~sets.any(1)).mean()),
        }
    return entry


def conformal_text(found: Mapping[str, Any]) -> str:
    """Returns the result of `conformal_metrics` as sentences."""
    methods = []
    for name in METHODS:
        entry = found[name]
        text = f"{name.upper()} holds it in {100 * entry['coverage']:.1f} %"
        if "interval" in entry:
            low, high = entry["interval"]
            text += f" [{100 * low:.1f}, {100 * high:.1f}; 95 % over {entry['over']}]"
        text += f", {entry['mean_size']:.2f} labels a set, {100 * entry['empty']:.1f} % of sets empty"
        methods.append(text)
    asked, n = f"{100 * found['asked']:g} %", f"{found['n_calibration']:,}"
    text = f"Label sets asked to hold the true label in {asked} of rows, calibrated on {n} rows: "
    text += f"{'; '.join(methods)}."
    if found["n_calibration"] < found.get("n_needed", 0):
        text += f" {n} calibration rows are too few for {asked}, which takes {found['n_needed']:,} or more: "
        text += "all sets hold every label, and tell nothing."
    if any(found[name]["empty"] for name in METHODS):
        text += " An empty set says that no label is likely enough: it never holds the true one."
    return text


def _nonconformity(p: Floats, method: Method) -> Floats:
    """Nonconformity of each label `[n, c]`, 0 to 1."""
    if method == "lac":
        return 1 - p
    if method != "aps":
        raise ValueError(f"conformal method={method!r} does not exist; accepted: {', '.join(METHODS)}")
    order = np.argsort(-p, axis=1, kind="stable")
    descending = np.take_along_axis(p, order, axis=1)
    above = np.minimum(descending.cumsum(1) - descending, 1.0)
    return np.take_along_axis(above, np.argsort(order, axis=1), axis=1)


def _scores_and_truth(rows: Sequence[Prediction], labels: Sequence[str]) -> tuple[Floats, NDArray[np.int64]]:
    """Probabilities `[n, c]` of labelled predictions, and ids `[n]` of their true labels."""
    scores = np.array([[row.scores.get(label, 0.0) for label in labels] for row in rows], dtype=np.float64)
    return scores, np.array([labels.index(str(row.label)) for row in rows])


def _logits(scores: Sequence[Mapping[str, float]], labels: Sequence[str]) -> Floats:
    """Logits `[n, c]`, up to a constant in each row, of probabilities at temperature 1."""
    p = np.array([[row[label] for label in labels] for row in scores], dtype=np.float64)
    return np.log(np.maximum(p, _LEAST))


def _checked(
    scores: ArrayLike, labels: ArrayLike, *, name: str = "scores"
) -> tuple[Floats, NDArray[np.int64]]:
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if values.ndim != 2 or truth.shape != values.shape[:1] or not len(truth):
        raise ValueError(
            f"{name} {list(values.shape)} and labels {list(truth.shape)}; accepted: [n, c] and [n], one row "
            "or more"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"{name} hold a number that is not finite")
    if truth.min() < 0 or truth.max() >= values.shape[1]:
        raise ValueError(f"labels {truth.min()} to {truth.max()}; accepted: 0 to {values.shape[1] - 1}")
    return values, truth

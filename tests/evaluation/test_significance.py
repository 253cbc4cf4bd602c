"""The statistics against scipy's and statsmodels' own, and against data of which the truth is known."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_effectsize

from mmsr.evaluation.significance import (
    bootstrap,
    effect_size,
    holm,
    mcnemar,
    method_difference,
    minimum_detectable_difference,
    paired_bootstrap,
    permutation_test,
    seed_difference,
    seed_interval,
    seed_values,
    wilson_interval,
)

LABELS = np.array(["negative", "neutral", "positive"])
SCORES = {"accuracy": accuracy_score, "uar": balanced_accuracy_score}
SCORES["macro_f1"] = lambda gold, predicted: f1_score(gold, predicted, average="macro")


def answers(generator, gold, right):
    """Labels that are right with this probability (of each row, or of all), otherwise any of the three."""
    return np.where(generator.random(len(gold)) < right, gold, generator.choice(LABELS, len(gold)))


@pytest.fixture
def data():
    generator = np.random.default_rng(0)
    gold = generator.choice(LABELS, 120)
    a, b = answers(generator, gold, 0.7), answers(generator, gold, 0.4)
    return gold, a, b, np.repeat(np.arange(10), 12)


@pytest.mark.parametrize("metric", SCORES)
def test_figures_are_scikit_learn_s(data, metric) -> None:
    gold, a, b, clusters = data
    found = paired_bootstrap(gold, a, b, metric=metric, clusters=clusters, resamples=200)
    assert found.a == pytest.approx(SCORES[metric](gold, a))
    assert found.b == pytest.approx(SCORES[metric](gold, b))
    assert found.difference == found.a - found.b
    assert (found.rows, found.units) == (120, 10)
    assert seed_values(gold, np.stack([a, b]), metric=metric) == pytest.approx([found.a, found.b])


@pytest.mark.parametrize("clustered", [False, True])
def test_standard_error_and_interval_are_those_of_scipy_s_paired_bootstrap(data, clustered) -> None:
    gold, a, b, clusters = data
    units = [np.flatnonzero(clusters == k) for k in range(10)] if clustered else [[i] for i in range(120)]

    def difference(drawn):
        rows = np.concatenate([units[int(k)] for k in drawn])
        return SCORES["macro_f1"](gold[rows], a[rows]) - SCORES["macro_f1"](gold[rows], b[rows])

    reference = stats.bootstrap(
        (np.arange(len(units)),), difference, n_resamples=500, method="percentile", vectorized=False, rng=0
    )
    k = len(units)
    found = paired_bootstrap(gold, a, b, clusters=clusters if clustered else None)
    assert found.standard_error == pytest.approx(reference.standard_error * math.sqrt(k / (k - 1)), rel=0.1)
    tail = stats.norm.sf(math.sqrt(k / (k - 1)) * stats.t.ppf(0.975, k - 1))
    expanded = np.quantile(reference.bootstrap_distribution, [tail, 1 - tail])
    assert found.interval == pytest.approx(tuple(expanded), abs=0.4 * found.standard_error)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_permutation_is_scipy_s_and_exact_with_few_units(data, metric) -> None:
    gold, a, b, clusters = (column[:96] for column in data)
    b = np.where(np.arange(96) % 4 == 0, b, a)  # closer, so that the p-value says something

    def difference(x, y):  # each a list of (unit, side)
        sides = np.stack([a, b])
        first, second = (
            np.concatenate([sides[int(u) % 2, clusters == int(u) // 2] for u in drawn]) for drawn in (x, y)
        )
        truth = np.concatenate([gold[clusters == int(u) // 2] for u in x])
        return SCORES[metric](truth, first) - SCORES[metric](truth, second)

    units = np.arange(8) * 2
    reference = stats.permutation_test(
        (units, units + 1), difference, permutation_type="samples", vectorized=False, n_resamples=256
    )
    found = permutation_test(gold, a, b, clusters=clusters, metric=metric)
    assert 0 < found < 1
    assert found == pytest.approx(reference.pvalue)
    drawn = permutation_test(gold, a, b, clusters=clusters, metric=metric, resamples=200)  # 2**8 are more
    assert drawn != found and drawn == pytest.approx(found, abs=0.05)


def test_a_drawn_p_value_is_never_zero(data) -> None:
    gold, _, _, _ = data
    wrong = np.where(gold == "neutral", "positive", "neutral")
    assert permutation_test(gold, gold, wrong, resamples=99) == 1 / 100


def test_permutation_of_accuracy_over_rows_is_the_exact_mcnemar_test(data) -> None:
    gold, a, b, _ = data
    b = np.where(np.arange(120) < 90, a, b)
    few = mcnemar(gold, a, b)
    assert few.method == "exact" and 0 < few.only_a + few.only_b < 25
    assert permutation_test(gold, a, b, metric="accuracy") == pytest.approx(few.p_value, abs=0.02)


@pytest.mark.parametrize(("only_a", "only_b"), [(3, 9), (0, 6), (7, 7), (0, 0), (40, 20), (15, 15)])
def test_mcnemar(only_a: int, only_b: int) -> None:
    gold = np.zeros(100)
    a, b = np.ones(100), np.ones(100)
    a[:only_a] = 0
    b[only_a : only_a + only_b] = 0
    found = mcnemar(gold, a, b)
    exact = reference_mcnemar([[0, only_a], [only_b, 100 - only_a - only_b]], exact=True).pvalue
    assert (found.only_a, found.only_b) == (only_a, only_b)
    if only_a + only_b < 25:
        assert found.method == "exact" and found.p_value == pytest.approx(exact)
    else:
        few, n = min(only_a, only_b), only_a + only_b
        half = stats.binom.pmf(few, n, 0.5) / 2
        assert found.method == "mid-p"
        # twice one side with half of the observed; Fagerland's formula where both sides are alike
        expected = 2 * (stats.binom.cdf(few, n, 0.5) - half) if only_a != only_b else 1 - half
        assert found.p_value == pytest.approx(expected)


@pytest.mark.parametrize("p_values", [[0.01, 0.04, 0.03, 0.005], [0.5, 0.9], [0.02], [0.02, 0.02, 1.0], []])
def test_holm_is_statsmodels_s(p_values) -> None:
    expected = multipletests(p_values, method="holm")[1] if p_values else []
    assert holm(p_values) == pytest.approx(expected)


def test_seeds() -> None:
    values = [0.61, 0.64, 0.66]
    reference = stats.ttest_1samp(values, 0).confidence_interval()
    assert seed_interval(values) == pytest.approx((reference.low, reference.high))
    others = [0.55, 0.56, 0.6, 0.58]
    found = seed_difference(values, others)
    assert found.difference == pytest.approx(np.mean(values) - np.mean(others))
    assert found.p_value == pytest.approx(2 / math.comb(7, 3))  # all above all: the most extreme of 35
    assert found.interval[0] < found.difference < found.interval[1]
    assert seed_difference([0.5], others)[1:] == (None, None)
    assert seed_difference([0.5, 0.5], [0.4, 0.4]).interval == pytest.approx((0.1, 0.1))
    with pytest.raises(ValueError, match="1 seed has no interval; accepted: two seeds or more"):
        seed_interval([0.5])


def test_a_system_of_several_seeds_has_the_mean_of_their_figures(data) -> None:
    gold, a, b, clusters = data
    found = paired_bootstrap(gold, np.stack([a, b, a]), b, clusters=clusters)
    one = paired_bootstrap(gold, a, b, clusters=clusters)
    assert found.difference == pytest.approx(one.difference * 2 / 3)
    assert found.standard_error == pytest.approx(one.standard_error * 2 / 3)
    same = permutation_test(gold, np.stack([a, b]), np.stack([b, a]), clusters=clusters)
    assert same == 1.0
    alone = permutation_test(gold, a, b, clusters=clusters)
    assert permutation_test(gold, np.stack([a, a]), b, clusters=clusters) == alone < 0.05


def test_numbers_of_rows(data) -> None:
    x, y = np.random.default_rng(1).normal([[0.3], [0.0]], 1.0, size=(2, 80))
    found = paired_bootstrap(None, x, y, metric="mean")
    assert found.difference == pytest.approx((x - y).mean())
    assert found.standard_error == pytest.approx(stats.sem(x - y), rel=0.05)
    reference = stats.ttest_rel(x, y)
    assert permutation_test(None, x, y, metric="mean") == pytest.approx(reference.pvalue, abs=0.02)


def test_effect_sizes(data) -> None:
    gold, a, b, clusters = data
    found = paired_bootstrap(gold, a, b, metric="accuracy", resamples=100)
    assert effect_size(found).name == "cohen_h"
    assert effect_size(found).value == pytest.approx(proportion_effectsize(found.a, found.b))
    x, y = np.random.default_rng(1).normal([[0.3], [0.0]], 1.0, size=(2, 80))
    standardised = effect_size(paired_bootstrap(None, x, y, metric="mean"))
    assert standardised.value == pytest.approx((x - y).mean() / (x - y).std(ddof=1), rel=0.05)
    same = paired_bootstrap(gold, a, a, clusters=clusters)
    assert same.interval == (0, 0) and effect_size(same).value is None


def test_what_is_detectable_is_found_four_times_in_five() -> None:
    generator = np.random.default_rng(0)
    assert minimum_detectable_difference(1.0) == pytest.approx(2.8016, abs=1e-4)
    detectable = minimum_detectable_difference(1 / math.sqrt(12), units=12)
    samples = generator.normal(detectable, 1.0, size=(20_000, 12))
    assert (stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.02)


def rejections(*, simulations: int, rows: int, right: tuple[float, float], seed: int) -> float:
    """Share of simulated test sets on which the permutation test of macro-F1 rejects at .05."""
    generator = np.random.default_rng(seed)
    found = 0
    for i in range(simulations):
        gold = generator.choice(LABELS, rows)
        a, b = (answers(generator, gold, share) for share in right)
        found += permutation_test(gold, a, b, resamples=399, seed=i) <= 0.05
    return found / simulations


def test_false_positives_are_one_in_twenty() -> None:
    assert 0.04 < rejections(simulations=4000, rows=60, right=(0.5, 0.5), seed=0) < 0.06


@pytest.mark.slow
def test_false_positives_are_one_in_twenty_closely() -> None:
    assert 0.045 < rejections(simulations=30_000, rows=200, right=(0.5, 0.5), seed=1) < 0.055


def test_power_grows_with_rows() -> None:
    shares = [rejections(simulations=300, rows=n, right=(0.65, 0.5), seed=0) for n in (50, 150, 450)]
    assert shares[0] < shares[1] - 0.1 < shares[2] - 0.2
    assert shares[2] > 0.9


def test_only_the_clustered_interval_covers_and_only_the_clustered_test_holds_its_level() -> None:
    generator = np.random.default_rng(0)
    clusters = np.repeat(np.arange(12), 25)
    gold = np.full(300, "neutral")
    covered, rejected, simulations = np.zeros(2), np.zeros(2), 400
    for i in range(simulations):
        # a speaker is easy for one system and hard for the other; over speakers they are alike
        easy = generator.uniform(0.3, 0.9, size=(2, 12))[:, clusters]
        a, b = (np.where(generator.random(300) < share, "neutral", "positive") for share in easy)
        for j, names in enumerate((None, clusters)):
            options = {"clusters": names, "metric": "accuracy", "seed": i, "resamples": 399}
            low, high = paired_bootstrap(gold, a, b, **options).interval
            covered[j] += low <= 0 <= high
            rejected[j] += permutation_test(gold, a, b, **options) <= 0.05
    covered, rejected = covered / simulations, rejected / simulations
    assert covered[0] < 0.8 and rejected[0] > 0.2
    assert 0.92 <= covered[1] <= 0.98 and rejected[1] <= 0.08


def test_ten_thousand_resamples_are_fast_and_repeat(data) -> None:
    gold, a, b, clusters = data
    first, again = (paired_bootstrap(gold, a, b, clusters=clusters, seed=3) for _ in range(2))
    assert first == again != paired_bootstrap(gold, a, b, clusters=clusters, seed=4)
    assert bootstrap(gold, a, clusters=clusters)[0] < first.a < bootstrap(gold, a, clusters=clusters)[1]


def test_what_does_not_fit_is_named(data) -> None:
    gold, a, b, clusters = data
    with pytest.raises(
        ValueError,
        match="metric 'f2' is unknown; accepted: accuracy, macro_f1, .*weighted_f1, uar, mean",
    ):
        paired_bootstrap(gold, a, b, metric="f2")
    with pytest.raises(ValueError, match=r"b has shape \(119,\); accepted: 120 rows, as a has"):
        paired_bootstrap(gold, a, b[1:])
    with pytest.raises(ValueError, match=r"clusters has shape \(5,\)"):
        permutation_test(gold, a, b, clusters=clusters[:5])
    with pytest.raises(ValueError, match="1 clusters; accepted: 2 or more"):
        paired_bootstrap(gold, a, b, clusters=np.zeros(120))
    with pytest.raises(ValueError, match="accepted: gold labels with accuracy"):
        paired_bootstrap(None, a, b)
    with pytest.raises(ValueError, match="accepted: all \\[n\\]"):
        mcnemar(gold, a, b[1:])
    with pytest.raises(ValueError, match="accepted: a list of numbers from 0 to 1"):
        holm([0.1, 1.2])
    with pytest.raises(ValueError, match="units 1; accepted: 2 or more"):
        minimum_detectable_difference(0.1, units=1)


def _systems(generator, *, seeds: int, effect: float = 0.0, units: int = 40, rows: int = 5):
    """Right or wrong `[s, n]` of two ways of training: units are hard, seeds are lucky, rows are noisy."""
    hard = np.repeat(generator.normal(0, 0.12, units), rows)
    share = [0.6 + side + hard + generator.normal(0, 0.05, (seeds, 1)) for side in (effect, 0.0)]
    drawn = generator.random((units * rows,))  # the same rows: both find the same ones hard
    answers = [np.where(0.5 * (drawn + generator.random(one.shape)) < one, 1.0, 0.0) for one in share]
    return answers, np.repeat(np.arange(units), rows)


def _of_seeds(gold, a, b, metric="macro_f1"):
    return [seed_values(gold, side, metric=metric) for side in (a, b)]


@pytest.mark.parametrize("seeds", [3, 5])
def test_a_difference_of_methods_that_is_none_is_found_in_one_of_twenty_ablations(seeds) -> None:
    generator = np.random.default_rng(seeds)
    found, rows_alone = [], []
    for _ in range(400):
        (a, b), units = _systems(generator, seeds=seeds)
        options = {"clusters": units, "metric": "mean", "resamples": 200}
        units_alone = paired_bootstrap(None, a, b, **options)
        found.append(method_difference(units_alone, *_of_seeds(None, a, b, "mean")).p_value < 0.05)
        low, high = units_alone.interval
        rows_alone.append(not low <= 0 <= high)
    assert 0.02 <= np.mean(found) <= 0.08
    assert np.mean(rows_alone) > 0.15, "with the seeds as they are, luck of the seeds is taken for an effect"


def test_a_difference_of_methods_that_is_there_is_found() -> None:
    generator = np.random.default_rng(0)
    p_values = []
    for _ in range(20):
        (a, b), units = _systems(generator, seeds=5, effect=0.15)
        units_alone = paired_bootstrap(None, a, b, clusters=units, metric="mean", resamples=200)
        found = method_difference(units_alone, *_of_seeds(None, a, b, "mean"))
        assert found.difference == pytest.approx(a.mean() - b.mean())
        assert found.interval[0] < found.difference < found.interval[1]
        p_values.append(found.p_value)
    assert np.mean(np.array(p_values) < 0.05) > 0.8


def test_of_no_difference_methods_say_what_is_known(data) -> None:
    gold, a, b, _ = data
    twice = np.stack([a, a])
    same = method_difference(
        paired_bootstrap(gold, twice, twice, resamples=100), *_of_seeds(gold, twice, twice)
    )
    assert same[:3] == (0.0, (0.0, 0.0), 1.0)
    wrong = np.where(gold == "neutral", "positive", "neutral")
    five, sides = gold[:5], (np.stack([gold[:5]] * 2), np.stack([wrong[:5]] * 2))
    found = method_difference(paired_bootstrap(five, *sides, resamples=100), *_of_seeds(five, *sides))
    assert (found.difference, found.p_value) == (1.0, 2 / 2**5), "five rows of five are all that there are"
    with pytest.raises(ValueError, match="1 and 2 seeds; accepted: two or more on each side"):
        method_difference(paired_bootstrap(gold, a, b, resamples=100), [0.5], [0.5, 0.6])


@pytest.mark.parametrize(("right", "n"), [(12, 12), (0, 12), (7, 12), (1, 2), (950, 1000)])
def test_wilson_is_scipy_s(right: int, n: int) -> None:
    reference = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right / n, n) == pytest.approx((reference.low, reference.high))
    answers = np.arange(n) < right
    expected = pytest.approx((reference.low, reference.high))
    assert bootstrap(None, answers, metric="mean") == expected
    assert bootstrap(np.ones(n), answers.astype(float), metric="accuracy") == expected


@pytest.mark.parametrize(("share", "n", "plain"), [(0.95, 12, 0.5), (0.9, 12, 0.75), (0.9, 30, 0.97)])
def test_intervals_of_shares_cover(share: float, n: int, plain: float) -> None:
    """Over all samples of a true share, weighed by how likely they are; `plain` is a bootstrap's at most."""
    chances = stats.binom.pmf(np.arange(n + 1), n, share)
    covered = np.zeros((2, n + 1), dtype=bool)
    for right in range(n + 1):
        # numbers that are no booleans are no outcomes, and are drawn
        for i, outcomes in enumerate((np.arange(n) < right, (np.arange(n) < right).astype(float))):
            low, high = bootstrap(None, outcomes, metric="mean", resamples=1000)
            covered[i, right] = low <= share <= high
    wilson, drawn = covered @ chances
    assert 0.93 <= wilson <= 0.99 and drawn < plain


def test_answers_that_are_all_right_leave_a_doubt() -> None:
    gold = np.repeat(["negative", "neutral", "positive"], 12)
    speakers = np.tile(np.arange(9), 4)
    for metric in ("accuracy", "macro_f1", "uar"):
        of_rows = bootstrap(gold, gold, metric=metric, resamples=100)
        assert of_rows == pytest.approx(tuple(map(float, wilson_interval(1.0, 36))))
        of_speakers = bootstrap(gold, gold, metric=metric, clusters=speakers, resamples=100)
        assert of_speakers == pytest.approx(tuple(map(float, wilson_interval(1.0, 9))))
        of_seeds = bootstrap(gold, np.stack([gold, gold]), metric=metric, resamples=100)
        assert of_seeds == of_rows
    rare = np.array(["negative"] * 33 + ["neutral"] * 2 + ["positive"])
    low, high = bootstrap(rare, rare, metric="macro_f1", resamples=100)
    assert low < 0.7 < 0.9 < wilson_interval(1.0, 36)[0] and high == 1.0, (
        "of the rare labels three rows say all that is known"
    )
    assert bootstrap(None, np.full(12, 0.5), metric="mean", resamples=100) == (0.5, 0.5)
    assert np.isnan(bootstrap(gold[:1], gold[:1])).all()

"""Comparison of runs: predictions of the same rows, paired by id, and the tests of `significance`.

NAME=PATH:CONDITION ─► System ─► predictions ─► paired rows ─► Comparison ─► table, JSON, forest plot
"""

import glob
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from mmsr.evaluation.entries import CLUSTERS_ABOVE, values_of
from mmsr.evaluation.metrics import METRICS, Metric, comparable_names, has_text, metrics_of
from mmsr.evaluation.run import CONDITIONS
from mmsr.evaluation.significance import (
    RESAMPLES,
    Array,
    Interval,
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
)
from mmsr.languages import language_code
from mmsr.messages import no_such_file
from mmsr.progress import log
from mmsr.records import Prediction

LEVEL = 0.05
_SHOWN = 3  # ids in a message


class CompareError(ValueError):
    """Runs that cannot be compared as they are."""


@dataclass(frozen=True)
class System:
    """The predictions of one model, or of the same model trained with several seeds."""

    name: str
    files: tuple[Path, ...]  # predictions.jsonl of each seed
    condition: str | None = None  # of the rows; None leaves it to `compare`

    @classmethod
    def parse(cls, argument: str) -> "System":
        """Returns the system of `[NAME=]PATH[:CONDITION]`; its name is by default the argument.

        PATH is a predictions file, the folder of a run, or a pattern (`runs/a-seed*`) that matches several:
        the seeds of one system.

        Raises:
            CompareError: There is no such file, or the folder has no predictions.jsonl.
        """
        name, named, place = argument.partition("=")
        if not named or Path(argument.rpartition(":")[0] or argument).exists():  # a path may have a = in it
            name, place = argument, argument
        path, _, condition = place.rpartition(":")
        if condition not in CONDITIONS or not path:
            path, condition = place, ""
        found = [Path(path)] if Path(path).exists() else sorted(map(Path, glob.glob(path)))
        if not found:
            raise CompareError(
                f"{no_such_file(path, what='run')}; accepted: a folder of mmsr evaluate, a predictions file"
            )
        files = tuple(run / "predictions.jsonl" if run.is_dir() else run for run in found)
        for run, file in zip(found, files, strict=True):
            if not file.is_file():
                raise CompareError(
                    f"{run}: no predictions.jsonl in it; accepted: a folder that mmsr evaluate wrote"
                )
        return cls(name, files, condition or None)


@dataclass(frozen=True)
class Seeds:
    """Values of each seed, and intervals over seeds (None where there is one)."""

    a: list[float]
    b: list[float]
    interval_a: Interval | None  # t-interval of the first system's mean
    interval_b: Interval | None
    interval: Interval | None  # of the difference of the means (Welch)
    p_value: float | None  # of a permutation of the seeds between the systems


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same rows; its JSON has the same fields.

    With two seeds or more on both sides, interval and p-value are for other seeds and other units
    (`significance.method_difference`). Otherwise they are for these trained models alone.

    Attributes:
        metric: Name of the metric.
        difference: Value of `a` minus value of `b`.
        interval: 95 % interval of the difference.
        p_value: Of the difference.
        p_holm: The same, adjusted for all comparisons made together.
        interval_over: `speakers and seeds`, or `speakers` with one seed on a side.
        interval_fixed_seeds: Paired bootstrap over units, with these seeds.
        p_value_fixed_seeds: Permutation test over units, with these seeds.
        a: Name of the first system.
        b: Name of the second system.
        figure_a: Value of the first system, the mean over its seeds.
        figure_b: Value of the second system.
        condition: Of the rows; both where the systems' differ.
        standard_error: Of the difference, behind `interval`.
        rows: Number of rows.
        units: Number of units that are resampled and swapped.
        over: What the units are: speakers, rows ...
        effect_size: `name` and `value`, see `significance.effect_size`.
        detectable: Smallest true difference found with 80 % power, with as many rows and seeds.
        mcnemar: `only_a`, `only_b`, `p_value`, `method`, over rows; only for labels and single seeds.
        seeds: None where each system has one.
        resamples: Of the bootstrap and of the permutation test.
        resampling_seed: Of both.
        data_fingerprints: Of the data that was answered, from the metrics.json beside the predictions, where
            there is one.
    """

    metric: str
    difference: float
    interval: Interval
    p_value: float
    p_holm: float
    interval_over: str
    interval_fixed_seeds: Interval
    p_value_fixed_seeds: float
    a: str
    b: str
    figure_a: float
    figure_b: float
    condition: str
    standard_error: float
    rows: int
    units: int
    over: str
    effect_size: dict[str, Any]
    detectable: float
    mcnemar: dict[str, Any] | None
    seeds: Seeds | None
    resamples: int
    resampling_seed: int
    data_fingerprints: tuple[str, ...]

    @property
    def seeds_vary(self) -> bool:
        """Whether interval and p-value are for other seeds too."""
        return self.seeds is not None and min(len(self.seeds.a), len(self.seeds.b)) > 1

    @property
    def drawn(self) -> str:
        """What interval and p-value are over, such as `12 speakers and the seeds`."""
        return f"{self.units:,} {self.over}{' and the seeds' if self.seeds_vary else ''}"

    @property
    def disagreement(self) -> str | None:
        """A warning where interval and p-value disagree."""
        low, high = self.interval
        apart = not low <= 0 <= high
        if apart == (self.p_value < LEVEL):
            return None
        position = f"{as_interval(self.interval)} {'leaves 0 out' if apart else 'holds 0'}"
        return (
            f"interval and p disagree: {position}, and p is {as_p_value(self.p_value)}. With few units "
            f"({self.units:,} {self.over}) the interval is approximate, the test keeps its level: go by p"
        )


@dataclass(frozen=True)
class Paired:
    """Rows that all systems answered, in one order."""

    ids: list[str]  # [n]
    gold: Array | None  # labels [n]; None for a metric of rationales
    answers: list[Array]  # of each system [s, n]: predicted labels, or scores of rationales
    clusters: Array | None  # [n]; None where rows are the units
    over: str  # what the units are
    unlabelled: int  # rows left out because their label or reference is unknown
    left_out: int  # rows left out because a run has no answer to them (`common`)


def compare(
    systems: Sequence[System],
    *,
    metric: str = "macro_f1",
    condition: str | None = None,
    cluster: str | None = None,
    cluster_of: Mapping[str, str] | None = None,
    common: bool = False,
    all_pairs: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[list[Comparison], Paired]:
    """Compares the first system with each other one, or each with each, on the rows that they share.

    Args:
        systems: Two or more.
        metric: Name of a comparable one of `metrics.METRICS`.
        condition: Of systems without one; by default the first that all have.
        cluster: Column whose values are resampled and swapped whole, or `none` for rows; by default `speaker`
            where every row has one and they are more than five, as in `entries.evaluate_rows`.
        cluster_of: The column's value by id, where the predictions do not have it.
        common: Leave rows out that a run has no answer to, instead of raising.
        all_pairs: Compare each system with each.
        resamples: Of the bootstrap and of the permutation test.
        seed: Of both.

    Returns:
        The comparisons, and the rows behind them.

    Raises:
        CompareError: Fewer than two systems; an unknown metric, condition or column; runs whose rows, or the
            rows' labels, are not the same.
    """
    if len(systems) < 2:
        raise CompareError(f"{len(systems)} run; accepted: two or more to compare")
    chosen = METRICS.get(metric)
    if chosen is None or not chosen.is_comparable:
        accepted = ", ".join(comparable_names())
        why = "is unknown" if chosen is None else "is of all rows together, and cannot be compared"
        raise CompareError(f"metric {metric!r} {why}; accepted: {accepted}")
    if resamples < 100:
        raise CompareError(f"resamples {resamples}; accepted: 100 or more")
    conditions, runs = read_runs(systems, condition)
    paired = _paired(systems, runs, metric=chosen, cluster=cluster, cluster_of=cluster_of, common=common)
    pairs = list(combinations(range(len(systems)), 2))
    pairs = pairs if all_pairs else [pair for pair in pairs if pair[0] == 0]
    options = {
        "clusters": paired.clusters,
        "metric": chosen.statistic,
        "resamples": resamples,
        "seed": seed,
    }
    found = [_compared(paired, i, j, options) for i, j in pairs]
    adjusted = holm([pair["p_value"] for pair in found]).tolist()
    comparisons = [
        Comparison(
            metric=metric,
            p_holm=p_holm,
            a=systems[i].name,
            b=systems[j].name,
            condition=" - ".join(dict.fromkeys((conditions[i], conditions[j]))),
            over=paired.over,
            resamples=resamples,
            resampling_seed=seed,
            data_fingerprints=_fingerprints(*systems[i].files, *systems[j].files),
            **pair,
        )
        for (i, j), pair, p_holm in zip(pairs, found, adjusted, strict=True)
    ]
    return comparisons, paired


def _fingerprints(*files: Path) -> tuple[str, ...]:
    """The distinct data fingerprints in the metrics.json beside predictions."""
    found: dict[str | None, None] = {}
    for file in files:
        if (beside := file.with_name("metrics.json")).is_file():
            found[json.loads(beside.read_text(encoding="utf-8")).get("data_fingerprint")] = None
    return tuple(name for name in found if name is not None)


def _compared(paired: Paired, i: int, j: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `Comparison` that are computed from a pair of systems."""
    gold, a, b = paired.gold, paired.answers[i], paired.answers[j]
    units = paired_bootstrap(gold, a, b, **options)
    p_value = permutation_test(gold, a, b, **options)
    single = len(a) == len(b) == 1
    seeds = None if single else _seeds(gold, a, b, options["metric"])
    answer = {
        "difference": units.difference,
        "interval": units.interval,
        "p_value": p_value,
        "interval_over": paired.over,
        "interval_fixed_seeds": units.interval,
        "p_value_fixed_seeds": p_value,
        "figure_a": units.a,
        "figure_b": units.b,
        "standard_error": units.standard_error,
        "rows": units.rows,
        "units": units.units,
        "effect_size": effect_size(units)._asdict(),
        "detectable": minimum_detectable_difference(units.standard_error, units=units.units),
        "mcnemar": mcnemar(gold, a[0], b[0])._asdict() if single and gold is not None else None,
        "seeds": seeds,
    }
    if seeds is None or min(len(a), len(b)) < 2:
        return answer
    method = method_difference(units, seeds.a, seeds.b)
    return answer | {
        "interval": method.interval,
        "p_value": method.p_value,
        "interval_over": f"{paired.over} and seeds",
        "standard_error": method.standard_error,
        "detectable": minimum_detectable_difference(method.standard_error, freedom=method.freedom),
    }


def table_of(comparisons: Sequence[Comparison]) -> tuple[list[str], list[list[str]]]:
    """The headings and the rows of comparisons, as text."""
    several = len(comparisons) > 1
    head = ["a - b", "a", "b", "difference", "95 % interval", "p", *(["p (Holm)"] if several else [])]
    head += ["McNemar p", "effect", "detectable"]
    rows = []
    for pair in comparisons:
        effect = pair.effect_size["value"]
        rows.append(
            [
                f"{pair.a} - {pair.b}",
                f"{pair.figure_a:.3f}",
                f"{pair.figure_b:.3f}",
                f"{pair.difference:+.3f}",
                as_interval(pair.interval),
                as_p_value(pair.p_value),
                *([as_p_value(pair.p_holm)] if several else []),
                as_p_value(pair.mcnemar["p_value"]) if pair.mcnemar else "–",
                "–" if effect is None else f"{effect:+.2f}",
                f"{pair.detectable:.3f}",
            ]
        )
    return head, rows


def caption_of(comparisons: Sequence[Comparison]) -> str:
    """Returns what a table of comparisons shows, and on which data, seeds and resamples it rests."""
    first = comparisons[0]
    trained: dict[str, int] = {}
    for pair in comparisons:
        sides = (pair.seeds.a, pair.seeds.b) if pair.seeds else ([0.0], [0.0])
        trained |= {pair.a: len(sides[0]), pair.b: len(sides[1])}
    seeds = ", ".join(f"{count} of {name}" for name, count in trained.items())
    if len({*trained.values()}) == 1:
        seeds = f"{trained[first.a]} of each system"
    data = dict.fromkeys(name for pair in comparisons for name in pair.data_fingerprints)
    basis = [f"Data {', '.join(data)}"] if data else []
    basis += [f"training seeds: {seeds}", f"{first.resamples:,} resamples with seed {first.resampling_seed}"]
    basis[0] = basis[0][0].upper() + basis[0][1:]
    conditions = ", ".join(dict.fromkeys(pair.condition for pair in comparisons))
    holm = "; p (Holm): corrected for all of them" if len(comparisons) > 1 else ""
    return (
        f"Differences in {METRICS[first.metric].title} ({conditions}) on the same {first.rows:,} rows, with "
        f"95 % intervals{holm}. {_what_varies(comparisons)} {'; '.join(basis)}."
    )


def notes_of(comparisons: Sequence[Comparison]) -> list[str]:
    """Returns notes on the columns of a table of comparisons, and on its seeds."""
    first = comparisons[0]
    size = (
        "Cohen's h" if first.effect_size["name"] == "cohen_h" else f"in standard deviations of {first.over}"
    )
    notes = []
    if note := corpus_note(first.metric):
        notes.append(note)
    notes.append(
        f"Effect: {size}. Detectable: the smallest true difference found with 80 % power,"
        " (t[.975] + t[.8]) standard errors."
    )
    for pair in comparisons:
        if (seeds := pair.seeds) is not None:
            known = "no interval over seeds with one seed on a side"
            if seeds.interval is not None and seeds.p_value is not None:
                known = (
                    f"{as_interval(seeds.interval)} over seeds alone (Welch), p {as_p_value(seeds.p_value)}; "
                    f"{as_interval(pair.interval_fixed_seeds)} over {pair.over} with these seeds alone, "
                    f"p {as_p_value(pair.p_value_fixed_seeds)}"
                )
            sizes = f"{len(seeds.a)} and {len(seeds.b)} seeds"
            notes.append(f"{pair.a} - {pair.b}, {sizes}: {pair.difference:+.3f}, {known}.")
        if pair.disagreement:
            notes.append(f"{pair.a} - {pair.b}: {pair.disagreement}.")
    return notes


def corpus_note(metric: str) -> str | None:
    """Returns a note on a metric whose value in metrics.json is the corpus's; None for the others."""
    known = METRICS[metric]
    if known.from_rows is None or known.from_corpus is None:
        return None
    return f"{metric} is the mean of the rows' {known.title}; metrics.json has the corpus's, another figure."


def _what_varies(comparisons: Sequence[Comparison]) -> str:
    """Sentences on what interval and p are over."""
    first = comparisons[0]
    units = f"{first.units:,} {first.over}"
    notes = []
    if any(pair.seeds_vary for pair in comparisons):
        notes.append(
            f"With seeds on both sides interval and p (Student's t) are to hold for other seeds and other "
            f"{first.over}: the variance over {units} and that over seeds add up."
        )
    if not all(pair.seeds_vary for pair in comparisons):
        notes.append(
            f"{'Otherwise interval' if notes else 'Interval'} (paired bootstrap) and p (swaps) over {units}, "
            "of these trainings alone: another seed may say otherwise."
        )
    return " ".join(notes)


def as_interval(interval: Interval) -> str:
    """Returns an interval as text."""
    return f"[{interval[0]:+.3f}, {interval[1]:+.3f}]"


def as_p_value(p_value: float) -> str:
    """Returns a p-value as text."""
    return "< .001" if p_value < 0.001 else f"{p_value:.3f}".removeprefix("0")


def read_predictions(path: Path) -> list[Prediction]:
    """Reads a predictions.jsonl.

    Raises:
        CompareError: A line is no prediction, or there are none; names file and line.
    """
    rows = []
    # not splitlines, which would cut a rationale at U+2028
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise CompareError(
                f"{path}, line {number}: no JSON ({error}); accepted: one object a line"
            ) from None
        needed = ("id", "label", "rationale", "predicted_label", "predicted_rationale", "condition")
        missing = [name for name in needed if not isinstance(row, dict) or name not in row]
        if missing:
            raise CompareError(
                f"{path}, line {number}: no {', '.join(missing)}; accepted: rows of mmsr evaluate or predict"
            )
        rows.append(Prediction.from_row(row))
    if not rows:
        raise CompareError(f"{path}: no rows; accepted: predictions of mmsr evaluate or predict")
    return rows


def read_runs(
    systems: Sequence[System], condition: str | None
) -> tuple[list[str], list[list[dict[str, Prediction]]]]:
    """Returns each system's condition, and for each of its seeds the predictions of that condition by id."""
    read = [[read_predictions(file) for file in system.files] for system in systems]
    unset = [i for i, system in enumerate(systems) if system.condition is None]
    if condition is None and unset:
        held = [{row.condition for row in rows} for i in unset for rows in read[i]]
        shared = [name for name in CONDITIONS if all(name in names for names in held)]
        if not shared:
            each = "; ".join(f"{systems[i].name}: {', '.join(_conditions(read[i][0]))}" for i in unset)
            raise CompareError(f"no condition that all runs have ({each}); accepted: RUN:CONDITION for each")
        condition = shared[0]
        more = [
            f"{systems[i].name} also has {', '.join(others)}"
            for i in unset
            if (others := [name for name in _conditions(read[i][0]) if name not in shared])
        ]
        if more:
            log(
                f"compared under {condition}, the first condition that all runs have; {'; '.join(more)}. "
                "RUN:CONDITION compares a run under its own"
            )
    chosen = [system.condition or str(condition) for system in systems]
    runs = [
        [_by_id(file, rows, name) for file, rows in zip(system.files, seeds, strict=True)]
        for system, name, seeds in zip(systems, chosen, read, strict=True)
    ]
    return chosen, runs


def _by_id(file: Path, rows: Sequence[Prediction], condition: str) -> dict[str, Prediction]:
    found: dict[str, Prediction] = {}
    for row in rows:
        if row.condition == condition:
            if row.id in found:
                raise CompareError(f"{file}: id {row.id!r} is repeated in condition {condition}")
            found[row.id] = row
    if not found:
        held = ", ".join(_conditions(rows))
        raise CompareError(f"{file}: no row has condition {condition!r}; accepted: {held}")
    return found


def _conditions(rows: Sequence[Prediction]) -> list[str]:
    return sorted({str(row.condition) for row in rows})


def _paired(
    systems: Sequence[System],
    runs: Sequence[Sequence[Mapping[str, Prediction]]],
    *,
    metric: Metric,
    cluster: str | None,
    cluster_of: Mapping[str, str] | None,
    common: bool,
) -> Paired:
    given, of_labels = metric.kind, metric.kind == "label"
    flat = [
        (file, run)
        for system, seeds in zip(systems, runs, strict=True)
        for file, run in zip(system.files, seeds, strict=True)
    ]
    truth: dict[str, tuple[Path, str | None]] = {}
    for file, run in flat:
        for id, row in run.items():
            first, value = truth.setdefault(id, (file, getattr(row, given)))
            if value != getattr(row, given):
                raise CompareError(
                    f"row {id!r}: {given} {value!r} in {first}, {getattr(row, given)!r} in {file}; "
                    "accepted: predictions of the same test rows"
                )
    known = [id for id, (_, value) in truth.items() if has_text(value)]
    kept = known
    for file, run in flat:
        if not of_labels and all(row.predicted_rationale is None for row in run.values()):
            accepted = ", ".join(known_metric.name for known_metric in metrics_of("label"))
            raise CompareError(f"{file}: no row has a predicted_rationale; accepted: {accepted}")
        # a rationale left null is an empty one, as in metrics; a label left null is no answer
        there = {id for id, row in run.items() if not of_labels or row.predicted_label is not None}
        if lacking := [id for id in known if id not in there]:
            if not common:
                more = " ..." if len(lacking) > _SHOWN else ""
                raise CompareError(
                    f"{file}: no answer to {len(lacking):,} of {len(known):,} rows that the others have "
                    f"({', '.join(map(repr, lacking[:_SHOWN]))}{more}); accepted: the same rows in all "
                    "runs, or --common to leave them out"
                )
            kept = [id for id in kept if id in there]
    if not kept:
        raise CompareError(f"no row with a {given} that all runs answered; accepted: two rows or more")
    clusters, over = _clusters([flat[0][1][id] for id in kept], cluster, cluster_of)
    return Paired(
        ids=kept,
        gold=np.array([truth[id][1] for id in kept]) if of_labels else None,
        answers=[np.array([values_of(metric, [run[id] for id in kept]) for run in seeds]) for seeds in runs],
        clusters=clusters,
        over=over,
        unlabelled=len(truth) - len(known),
        left_out=len(known) - len(kept),
    )


def _clusters(
    rows: Sequence[Prediction], column: str | None, cluster_of: Mapping[str, str] | None
) -> tuple[Array | None, str]:
    """The cluster of each row, None where rows are the units, and the name of the units."""
    if column == "none":
        return None, "rows"
    name = column or "speaker"
    values = [cluster_of.get(row.id) if cluster_of is not None else row.to_row().get(name) for row in rows]
    if name == "language" and cluster_of is None:
        values = [language_code(value) for value in values]
    lacking = [row.id for row, value in zip(rows, values, strict=True) if not value]
    if column is None and (lacking or len(set(values)) <= CLUSTERS_ABOVE):
        return None, "rows"
    if lacking:
        raise CompareError(
            f"--cluster {name}: row {lacking[0]!r} and {len(lacking) - 1} others have none; accepted: "
            "kind, language, speaker, none, or --cluster-table FILE, a table with columns id and this one"
        )
    if len(set(values)) < 2:
        raise CompareError(
            f"--cluster {name}: all rows have {values[0]!r}; accepted: a column with two or more"
        )
    return np.array(values, dtype=str), f"{name}s"


def _seeds(gold: Array | None, a: Array, b: Array, metric: str) -> Seeds:
    first, second = (seed_values(gold, answers, metric=metric) for answers in (a, b))
    first_interval, second_interval = (
        seed_interval(side) if len(side) > 1 else None for side in (first, second)
    )
    over = seed_difference(first, second)
    return Seeds(first, second, first_interval, second_interval, over.interval, over.p_value)

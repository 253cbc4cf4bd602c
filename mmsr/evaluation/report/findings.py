"""What a reader of a run should know first: its main figure in a sentence, and what is wrong with it.

metrics of a split, predictions, entry of development rows ─► CHECKS ─► findings, and what was checked

A finding is only made where the rows suffice for it: its `Check.rule` says when. A new check is one function
and one record in `CHECKS`; metrics.json, `mmsr evaluate` and the report have it then.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from typing import Any

import numpy as np

from mmsr.evaluation.calibration import calibration_error, confidence_and_correct
from mmsr.evaluation.report.names import NAMES, RATIONALE_BASELINES, RATIONALES_TO_BEAT, number
from mmsr.evaluation.significance import CONFIDENCE, Interval, wilson_interval
from mmsr.records import Prediction

LEAST_ROWS = 30  # in a group of rows that is spoken of
LEAST_OF_LABEL = 10  # rows of a label: one that is recognised in a quarter of them is then predicted (95 %)
FEW_ROWS = 100
VISIBLE = 0.1  # a difference that rows must be able to show before they can be said to show none
NOTABLE = 0.05  # what is less is not worth a line
MOST_SPEAKERS = 3  # that are left out together, and at most a tenth of all
RESAMPLES = 1000

Entry = Mapping[str, Any]


class NotChecked(Exception):
    """A check has not what it needs; says what."""


@dataclass(frozen=True)
class Examined:
    """What the checks read.

    Attributes:
        conditions: Entries of a split by condition, `baselines` among them.
        answered: Predictions under the first condition.
        development: Entry of the development rows under the first condition, if there is one.
    """

    conditions: Mapping[str, Entry]
    answered: Sequence[Prediction]
    development: Entry | None = None

    @property
    def first(self) -> str:
        """The name of the first condition."""
        return next(name for name in self.conditions if name != "baselines")

    @property
    def entry(self) -> Entry:
        """The entry of the first condition."""
        return self.conditions[self.first]

    @property
    def labelled(self) -> list[Prediction]:
        """The predictions of rows that have a label.

        Raises:
            NotChecked: There is none.
        """
        rows = [row for row in self.answered if row.label is not None and row.predicted_label is not None]
        if not rows:
            raise NotChecked("no row has a label")
        return rows


@dataclass(frozen=True)
class Check:
    """Something that may be wrong with a run.

    Attributes:
        title: What is looked for.
        rule: When it is a finding.
        section: Title of the report's section that has the figures.
        find: Returns a message for each finding.
    """

    title: str
    rule: str
    section: str
    find: Callable[[Examined], list[str]]


def examine(examined: Examined) -> dict[str, list[dict[str, Any]]]:
    """Returns `findings` and `checks`, as metrics.json has them.

    A finding has the `name` of its check, a `message` and the `section` with its figures. A check has its
    `name`, `title`, `rule`, how many it has `found`, or None and why it was `not_checked`.
    """
    findings, checks = [], []
    for name, check in CHECKS.items():
        known: dict[str, Any] = {"name": name, "title": check.title, "rule": check.rule}
        try:
            messages = check.find(examined)
        except NotChecked as reason:
            checks.append({**known, "found": None, "not_checked": str(reason)})
            continue
        findings += [{"name": name, "message": text, "section": check.section} for text in messages]
        checks.append({**known, "found": len(messages), "not_checked": None})
    return {"findings": findings, "checks": checks}


def not_checked(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the titles of checks that were not made, each with the reason in brackets."""
    return [f"{check['title']} ({check['not_checked']})" for check in checks if check["not_checked"]]


def headline(conditions: Mapping[str, Entry]) -> str:
    """Returns macro-F1 of the first condition beside the best trivial baseline, in a sentence."""
    name, entry = next((name, entry) for name, entry in conditions.items() if name != "baselines")
    reads, rows = NAMES.get(name, name), entry.get("n_label", entry["n"])
    if "macro_f1" not in entry:
        return f"The model answers {entry['n']:,} rows from {reads}; none has a label to judge it by."
    reached = number(entry["macro_f1"], entry.get("interval", {}).get("macro_f1"))
    sentence = f"From {reads}, the model reaches macro-F1 {reached} on {rows:,} rows"
    known = _label_baselines(conditions)
    if not known:
        return f"{sentence}; there are no training rows for a trivial baseline."
    best = max(known, key=lambda name: known[name]["macro_f1"])
    baseline = known[best]
    shown = number(baseline["macro_f1"], baseline.get("interval", {}).get("macro_f1"))
    by = entry["macro_f1"] - baseline["macro_f1"]
    found = baseline.get("difference", {}).get("macro_f1", {}).get("interval")
    interval = found and (-found[1], -found[0])
    return (
        f"{sentence}; the best trivial baseline, {NAMES.get(best, best)}, reaches {shown} (difference "
        f"{number(by, interval, signed=True)})."
    )


# ---------------------------------------------------------------------- checks


def never_predicted(run: Examined) -> list[str]:
    """Labels that are true in rows enough, and predicted in none."""
    counts = run.entry.get("confusion")
    if not counts:
        raise NotChecked("no row has a label")
    missed = [
        f"{label} (true in {sum(row.values())})"
        for label, row in counts.items()
        if sum(row.values()) >= LEAST_OF_LABEL and not any(other[label] for other in counts.values())
    ]
    return [f"Never predicted: {', '.join(missed)}."] if missed else []


def development_gap(run: Examined) -> list[str]:
    """A difference between development and test rows that is larger than both intervals allow."""
    if run.development is None:
        raise NotChecked("no labelled development rows")
    (dev, dev_interval), (test, interval) = (_macro_f1(entry) for entry in (run.development, run.entry))
    low, high = unpaired_interval(dev, dev_interval, test, interval)
    if low <= 0 <= high:
        return []
    than = "worse" if dev > test else "better"
    return [
        f"Test rows are answered {than} than development rows: macro-F1 {number(test)} against "
        f"{number(dev)}, a difference of {number(test - dev, (-high, -low), signed=True)}."
    ]


def few_speakers(run: Examined) -> list[str]:
    """The fewest speakers without whom the accuracy is below the interval of all rows."""
    rows = run.labelled
    if any(row.speaker is None for row in rows):
        raise NotChecked("not every row names its speaker")
    names, places = np.unique([str(row.speaker) for row in rows], return_inverse=True)
    right = np.array([row.label == row.predicted_label for row in rows], dtype=float)
    if len(names) < 2:
        raise NotChecked("one speaker alone")
    sizes, hits = np.bincount(places), np.bincount(places, weights=right)
    if len(rows) - sizes.min() < LEAST_ROWS:
        raise NotChecked(f"without any speaker fewer than {LEAST_ROWS} rows are left")
    whole, n = float(right.mean()), len(rows)
    low = float(wilson_interval(whole, n)[0])
    # without each alone; who leaves too few rows is not left out
    rest = np.where(n - sizes >= LEAST_ROWS, (hits.sum() - hits) / np.maximum(n - sizes, 1), np.inf)
    order = np.argsort(rest, kind="stable")
    for count in range(1, max(1, min(MOST_SPEAKERS, len(names) // 10)) + 1):
        out = order[:count]
        left = n - sizes[out].sum()
        if left < LEAST_ROWS or not np.isfinite(rest[out]).all():
            break
        without = float((hits.sum() - hits[out].sum()) / left)
        if without < low and whole - without >= NOTABLE:
            who = ", ".join(names[out])
            return [
                f"{'One speaker carries' if count == 1 else f'{count} speakers carry'} the score: without "
                f"{who} ({n - left:,} of {n:,} rows) accuracy is {number(without)}, with them "
                f"{number(whole, (low, float(wilson_interval(whole, n)[1])))}."
            ]
    return []


def one_modality(run: Examined) -> list[str]:
    """Text or audio alone that is as good as both, or another row's audio as good as the row's own."""
    if run.first not in ("audio+text", "audio+asr"):
        raise NotChecked("the model was not given both audio and text")
    titles = {"text": "Text alone", "asr": "The ASR transcript alone", "audio": "Audio alone"}
    titles["shuffled_audio"] = "The text with another row's audio"
    text = "text" if run.first == "audio+text" else "asr"
    names = [name for name in (text, "audio", "shuffled_audio") if name in run.conditions]
    found = {name: run.conditions[name].get("difference", {}).get("macro_f1") for name in names}
    known = {name: difference for name, difference in found.items() if difference}
    if not known:
        raise NotChecked("no other condition has answers to the same labelled rows")
    bearing = {name: d for name, d in known.items() if _shows(d) or d["interval"][0] > 0}
    if not bearing:
        least = min(difference["detectable"] for difference in known.values())
        raise NotChecked(f"too few rows: they would show only a difference of {number(least)} or more")
    return [
        f"{titles[name]} is {'better' if d['interval'][0] > 0 else 'no worse, as far as these rows show,'} "
        f"than {NAMES[run.first]}: macro-F1 {number(run.conditions[name]['macro_f1'])} against "
        f"{number(run.entry['macro_f1'])}, a difference of {number(d['value'], d['interval'], signed=True)}."
        for name, d in bearing.items()
        if d["interval"][1] >= 0
    ]


def below_baseline(run: Examined) -> list[str]:
    """Baselines that are better than the model, or as good."""
    baselines = run.conditions.get("baselines", {})
    compared = [("macro_f1", "macro-F1", name) for name in _label_baselines(run.conditions)]
    compared += [("rougeL", "ROUGE-L", name) for name in RATIONALES_TO_BEAT]
    known = {
        (metric, title, name): baselines[name]["difference"][metric]
        for metric, title, name in compared
        if metric in baselines.get(name, {}).get("difference", {})
    }
    if not known:
        raise NotChecked("no baseline has answers to the same rows, for want of training rows")
    found = []
    for (metric, title, name), d in known.items():
        better = d["interval"][0] > 0
        if better or (_shows(d) and d["interval"][1] >= 0):
            found.append(
                f"{'Worse' if better else 'Not shown to be better'} than a baseline: {title} "
                f"{number(run.entry[metric])} against {number(baselines[name][metric])} of "
                f"{NAMES.get(name, name)}, a difference of "
                f"{number(-d['value'], (-d['interval'][1], -d['interval'][0]), signed=True)}."
            )
    return found


def badly_calibrated(run: Examined) -> list[str]:
    """An ECE that calibrated answers of as many rows would hardly have.

    Whether each row is right is drawn from its own probability (Bröcker and Smith, 2007), since the ECE of
    few rows is large by chance.
    """
    rows = run.labelled
    if len(rows) < LEAST_ROWS:
        raise NotChecked(f"{len(rows)} labelled rows")
    if any(str(row.predicted_label) not in row.scores for row in rows):
        raise NotChecked("the answers have no probabilities")
    confidence, correct = confidence_and_correct(rows)
    ece = calibration_error(confidence, correct)
    generator = np.random.default_rng(0)
    by_chance = [
        calibration_error(confidence, generator.random(len(rows)) < confidence) for _ in range(RESAMPLES // 4)
    ]
    most = float(np.quantile(by_chance, CONFIDENCE))
    if ece <= most or ece < NOTABLE:
        return []
    sure = "too sure" if confidence.mean() > correct.mean() else "not sure enough"
    return [
        f"Badly calibrated: ECE {number(ece)}, at most {number(most)} by chance. The model is {sure}: mean "
        f"probability {number(confidence.mean())}, accuracy {number(correct.mean())}."
    ]


def few_rows(run: Examined) -> list[str]:
    """Too few rows altogether, or of a label."""
    rows, found = run.labelled, []
    if len(rows) < FEW_ROWS:
        right = sum(row.label == row.predicted_label for row in rows) / len(rows)
        low, high = map(float, wilson_interval(right, len(rows)))
        found.append(
            f"Few rows: {len(rows)} have a label, accuracy {number(right, (low, high))} with its interval "
            "over rows."
        )
    counts = {label: sum(row.values()) for label, row in run.entry.get("confusion", {}).items()}
    few = [f"{label} ({count})" for label, count in counts.items() if 0 < count < LEAST_OF_LABEL]
    if few:
        found.append(f"Few rows of a label: {', '.join(few)}. Its F1 can change by a third with a row.")
    return found


def language_behind(run: Examined) -> list[str]:
    """Languages whose accuracy is far below that of the other rows."""
    languages = {
        name: (entry["n_label"], entry["n_label"] * entry["accuracy"])
        for name, entry in run.entry.get("by_language", {}).items()
        if entry.get("n_label") and name != "unknown"
    }
    if len(languages) < 2:
        raise NotChecked("one language, or none is named")
    total, hits = (sum(column) for column in zip(*languages.values(), strict=True))
    compared = {
        name: (n, right)
        for name, (n, right) in languages.items()
        if n >= LEAST_ROWS and total - n >= LEAST_ROWS
    }
    if not compared:
        raise NotChecked(f"no language has {LEAST_ROWS} rows, as have the others")
    found = []
    for name, (n, right) in compared.items():
        own, others = right / n, (hits - right) / (total - n)
        level = 1 - (1 - CONFIDENCE) / len(compared)  # Bonferroni's
        own_interval, interval = (
            (float(low), float(high))
            for low, high in (
                wilson_interval(own, n, confidence=level),
                wilson_interval(others, total - n, confidence=level),
            )
        )
        low, high = unpaired_interval(own, own_interval, others, interval)
        if high < 0 and others - own >= VISIBLE:
            found.append(
                f"{name} is far behind: accuracy {number(own)} on {n:,} rows against {number(others)} in the "
                f"other languages, a difference of {number(own - others, (low, high), signed=True)}."
            )
    return found


CHECKS: dict[str, Check] = {
    "never_predicted": Check(
        "a label that is never predicted",
        f"a label is true in {LEAST_OF_LABEL} rows or more, and predicted in none",
        "Confusion",
        never_predicted,
    ),
    "below_baseline": Check(
        "a baseline that is as good",
        "the paired interval of the difference does not lie above 0; where it touches 0, only if the rows "
        f"would show a difference of {VISIBLE}",
        "Results",
        below_baseline,
    ),
    "one_modality": Check(
        "text or audio alone as good as both, or another row's audio as good as its own",
        "the paired interval of the difference touches 0 or lies above, and the rows would show a difference "
        f"of {VISIBLE} (80 % power)",
        "Results",
        one_modality,
    ),
    "development_gap": Check(
        "a gap between development and test rows",
        "the interval of the difference, from the intervals of both, leaves 0 out",
        "Training",
        development_gap,
    ),
    "few_speakers": Check(
        "few speakers who carry the score",
        f"without one speaker (up to {MOST_SPEAKERS}, of at least ten times as many) accuracy falls by "
        f"{NOTABLE} or more and below the interval of all rows; {LEAST_ROWS} rows must be left",
        "Slices",
        few_speakers,
    ),
    "language_behind": Check(
        "a language that is far behind",
        f"it and the others have {LEAST_ROWS} rows or more, its accuracy is {VISIBLE} or more below theirs, "
        "and the interval of the difference, corrected for the number of languages, leaves 0 out",
        "By language",
        language_behind,
    ),
    "badly_calibrated": Check(
        "probabilities that cannot be believed",
        f"the ECE is {NOTABLE} or more, and above what 95 % of calibrated answers to as many rows have",
        "Calibration and abstention",
        badly_calibrated,
    ),
    "few_rows": Check(
        "few rows",
        f"fewer than {FEW_ROWS} labelled rows, or fewer than {LEAST_OF_LABEL} of a label",
        "Results",
        few_rows,
    ),
}
"""By name, in the order of reports."""


# ---------------------------------------------------------------------- parts


def unpaired_interval(a: float, interval_a: Interval, b: float, interval_b: Interval) -> Interval:
    """Returns the interval of `a` - `b` from their own, of different rows (Zou and Donner, 2008)."""
    low = a - b - hypot(a - interval_a[0], interval_b[1] - b)
    return low, a - b + hypot(interval_a[1] - a, b - interval_b[0])


def _macro_f1(entry: Entry) -> tuple[float, Interval]:
    """Macro-F1 and its interval.

    Raises:
        NotChecked: There are too few labelled rows.
    """
    rows = entry.get("n_label", 0)
    if rows < LEAST_ROWS or "macro_f1" not in entry.get("interval", {}):
        raise NotChecked(f"{rows} labelled rows on a side")
    low, high = entry["interval"]["macro_f1"]
    return entry["macro_f1"], (low, high)


def _shows(difference: Mapping[str, Any]) -> bool:
    """Whether as many rows would show a difference that is worth showing."""
    return difference["detectable"] <= VISIBLE


def _label_baselines(conditions: Mapping[str, Entry]) -> dict[str, Entry]:
    """The baselines that predict a label themselves."""
    return {
        name: entry
        for name, entry in conditions.get("baselines", {}).items()
        if name not in RATIONALE_BASELINES and "macro_f1" in entry
    }

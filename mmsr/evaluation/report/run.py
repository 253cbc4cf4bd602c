"""The report of a run.

metrics.json, predictions.jsonl, training history, examples ─► report.html, report.md, pictures
"""

import mimetypes
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from mmsr.evaluation.calibration import confidence_and_correct, conformal_text
from mmsr.evaluation.metrics import METRICS, Metric, metrics_of
from mmsr.evaluation.report.findings import headline, not_checked
from mmsr.evaluation.report.formats import render
from mmsr.evaluation.report.names import MISSING, NAMES, RATIONALE_BASELINES, TableFormat, number
from mmsr.evaluation.report.page import (
    Block,
    Cards,
    Findings,
    Folded,
    Picture,
    Quote,
    Row,
    Table,
    origin,
    write_page,
)
from mmsr.evaluation.report.pictures import (
    Attention,
    Effect,
    data_uri,
    draw_attention,
    draw_confusion,
    draw_effects,
    draw_modalities,
    draw_reliability,
    draw_risk_coverage,
    draw_training,
    training_panels,
)
from mmsr.evaluation.similarity import NEIGHBOURS
from mmsr.evaluation.slices import LEAST, are_numbers, worst_slice_line
from mmsr.languages import language_code
from mmsr.quotations import quoted_parts
from mmsr.records import Answer, Prediction, Utterance

SLICED = ("accuracy", "macro_f1")
SLICES = 12  # slices of an attribute that are shown
COSTS = {  # of `Answer.usage`, with their titles
    "requests": "requests",
    "prompt_tokens": "prompt tokens",
    "generated_tokens": "generated tokens",
    "seconds": "seconds",
}
NAMED = 6  # rows of a table that a caption names; more are counted


@dataclass(frozen=True, kw_only=True)
class Example:
    """An utterance to show, with the answer to it."""

    utterance: Utterance  # its `audio` is a path or a file's bytes
    answer: Answer
    mime: str | None = None  # type of the audio; by default that of the path, else WAV
    counterfactuals: Mapping[str, str] = field(default_factory=dict)  # rationales of the other labels
    attention: Attention | None = None


@dataclass(frozen=True)
class Run:
    """The content of a run's report."""

    metrics: Mapping[str, Any]  # content of metrics.json
    split: str  # the one that is shown
    labels: Sequence[str]
    answered: Sequence[Prediction]  # under the first condition
    history: Sequence[Mapping[str, Any]]  # of each epoch
    examples: Sequence[Example]  # utterances to play

    @property
    def conditions(self) -> Mapping[str, Any]:
        """The entries of the split by condition, `baselines` among them."""
        return self.metrics[self.split]

    @property
    def first(self) -> str:
        """The first condition, which all sections but Results are about."""
        return next(iter(entries(self.metrics, self.split)))

    @property
    def entry(self) -> Mapping[str, Any]:
        """The entry of the first condition."""
        return self.conditions[self.first]

    @property
    def reads(self) -> str:
        """The title of the first condition."""
        return NAMES.get(self.first, self.first)

    @property
    def provenance(self) -> dict[str, str]:
        """The provenance; the captions of tables name the units of their own intervals."""
        shown = [*self.conditions.values(), *self.conditions.get("baselines", {}).values()]
        groups = [self.entry.get(key, {}) for key in ("by_kind", "by_language")]
        shown += [
            entry for group in (*groups, *self.entry.get("slices", {}).values()) for entry in group.values()
        ]
        over = sorted({entry["interval_over"] for entry in shown if "interval_over" in entry}, reverse=True)
        known = {"intervals": f"95 % over {' or '.join(over)}"} if over else {}
        return {**origin(self.metrics), **known}


def write_report(
    out_dir: Path | str,
    *,
    title: str,
    metrics: Mapping[str, Any],
    predictions: Sequence[Prediction],
    labels: Sequence[str],
    history: Sequence[Mapping[str, Any]] | None = None,
    examples: Sequence[Example] = (),
    split: str = "test",
) -> Path:
    """Write report.html, report.md and pictures to `out_dir`; return the path of report.html.

    `metrics` is the content of metrics.json, whose `split` is shown. `history` has a row per epoch: `epoch`,
    losses (names that end in `loss`) and metrics (names that start with `dev_`). The attention picture is of
    the first example that has `attention`.

    Raises:
        ValueError: `metrics` lacks the split or has no condition in it, or an attention map does not fit its
            tokens.
    """
    first = next(iter(entries(metrics, split)))
    answered = [row for row in predictions if row.condition == first]
    run = Run(metrics, split, labels, answered, history or (), examples)
    return write_page(
        Path(out_dir) / "report.html",
        SECTIONS,
        run,
        title=title,
        headline=headline(run.conditions),
        lead=f"Split: {split}. Every figure is in metrics.json, every answer in predictions.jsonl, and the "
        "pictures lie beside this file as PNG.",
        provenance=run.provenance,
    )


def conditions_table(
    metrics: Mapping[str, Any],
    *,
    split: str = "test",
    form: TableFormat = "md",
    columns: Sequence[str] | None = None,
    label: str = "results",
) -> str:
    """Return the report's first table (conditions, then baselines) in a format.

    `metrics` is the content of metrics.json; `columns` and `label` are as in `formats.render`.

    Raises:
        ValueError: `metrics` lacks the split, the split has no condition, or the table lacks a column.
    """
    table = _conditions_table(metrics, split)
    counts = sorted({entry["n"] for entry in entries(metrics, split).values()})
    named = {
        "n": f"= {' to '.join(f'{count:,}' for count in dict.fromkeys((counts[0], counts[-1])))} rows",
        "training seed": metrics.get("training_seed"),
        "data": metrics.get("data_fingerprint"),
    }
    caption = "; ".join(f"{name} {value}" for name, value in named.items() if value is not None)
    table = replace(table, caption=f"{table.caption} {caption}.")  # a report has its provenance at its end
    whole = form != "latex" or columns is not None
    return render(table if whole else table.filled(), form, columns=columns, label=label)


def check_conditions_columns(columns: Sequence[str] | None) -> None:
    """Refuse columns that `conditions_table` has for no run.

    Raises:
        ValueError: Names the column, and those accepted.
    """
    _metric_table("condition", {}, "").places(columns or ())


def entries(metrics: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Return the entries of a split's conditions, without baselines.

    Raises:
        ValueError: `metrics` lacks the split, or the split has no condition.
    """
    if split not in metrics:
        raise ValueError(f"metrics have no split {split!r}; their keys are {', '.join(map(repr, metrics))}")
    found = {name: entry for name, entry in metrics[split].items() if name != "baselines"}
    if not found:
        raise ValueError(f"metrics of split {split!r} have no condition")
    return found


# ---------------------------------------------------------------------- sections


def findings(run: Run) -> list[Block]:
    """What the checks found, and which there were; none of metrics that were not checked."""
    if not (checks := run.metrics.get("checks")):
        return []
    made = [check for check in checks if check["not_checked"] is None]
    found = [(finding["message"], finding["section"]) for finding in run.metrics["findings"]]
    blocks: list[Block] = [Findings(found)] if found else []
    if not found and made:
        blocks.append(f"None of the checks found anything: {'; '.join(check['title'] for check in made)}.")
    if left := not_checked(checks):
        blocks.append(f"Not checked: {'; '.join(left)}.")
    rules = {check["title"]: f"{check['rule']}." for check in checks}
    return [*blocks, Folded(f"The {len(checks)} checks, and when each is a finding", rules)]


def results(run: Run) -> list[Block]:
    """Metrics of all conditions and baselines."""
    blocks: list[Block] = [_conditions_table(run.metrics, run.split)]
    if f1 := run.entry.get("f1"):
        shown = ", ".join(f"{label} {number(value)}" for label, value in f1.items())
        weighted = number(run.entry.get("weighted_f1"))
        blocks.append(f"F1 by label, {run.reads}: {shown}; weighted by their rows: {weighted}.")
    given = [*entries(run.metrics, run.split).values(), *run.conditions.get("baselines", {}).values()]
    drawn = "Macro-F1" + " and ROUGE-L" * any("rougeL" in entry for entry in given)
    if any("macro_f1" in entry for entry in entries(run.metrics, run.split).values()):
        blocks.append(
            Picture(
                "modalities",
                partial(draw_modalities, run.conditions),
                caption=f"{drawn} by condition (blue) and baseline (grey).",
                alt=f"Bars: {drawn} of each condition and baseline, as in the table above.",
                pan=True,
            )
        )
    if effects := _differences(run):
        blocks.append(
            Picture(
                "differences",
                partial(draw_effects, effects, label=f"macro-F1, difference from {run.reads}"),
                caption=f"Paired differences of macro-F1 from {run.reads}, with 95 % intervals: left of the "
                "line is worse. A filled mark is a difference whose interval leaves 0 out.",
                alt="Marks with intervals, one a condition or baseline, beside a line at no difference.",
                pan=True,
            )
        )
    meanings = {
        "macro-F1, UAR": "the mean F1 of the labels, and their mean recall. A label that is predicted in a "
        "group of rows but never true there counts as an F1 of 0.",
        "intervals": "Wilson's of accuracy over rows, and where all answers are right; else 1,000 bootstrap "
        "resamples of rows, or of whole speakers where more than five speak. They do not cover what another "
        "training seed would change.",
        "ROUGE-L": "Unicode counts words, and characters in Chinese and Japanese. ASCII is the usual code, "
        "which drops all but a–z and 0–9: it is here only to compare with published tables, and says nothing "
        "about Chinese.",
        "another row's audio": "a control: the text stays, the voice is that of another row. A model that "
        "listens gets worse.",
    }
    is_shown = {
        "macro-F1, UAR": any("macro_f1" in entry for entry in given),
        "intervals": any(entry.get("interval") for entry in given),
        "ROUGE-L": any("rougeL" in entry for entry in given),
        "another row's audio": "shuffled_audio" in run.conditions,
    }
    return [*blocks, {term: meaning for term, meaning in meanings.items() if is_shown[term]}]


def by_group(run: Run, *, what: str, title: str) -> list[Block]:
    """The same metrics for each kind or language."""
    if not (groups := run.entry.get(f"by_{what}")):
        return []
    if what == "kind" and all("macro_f1_present" in entry for entry in groups.values()):
        metrics = ["macro_f1_present" if name == "macro_f1" else name for name in _in_results()]
        caption = f"{title}, {run.reads}. Macro-F1 is the mean over the labels that are true in the kind."
        return [_metric_table(what, groups, caption, metrics=metrics)]
    return [_metric_table(what, groups, f"{title}, {run.reads}.")]


def slices(run: Run) -> list[Block]:
    """The worst slice, and metrics of all slices: numbers in order, other values with the worst first."""
    if not (sliced := run.entry.get("slices")):
        return []
    line = worst_slice_line(run.entry["worst_slice"], least=run.entry.get("slice_rows", LEAST))
    blocks: list[Block] = [
        f"{line[0].upper()}{line[1:]}. The more slices are looked at, the lower is the worst of them by "
        "chance alone; the expected worst allows for that. Intervals of slices are not corrected for their "
        "number."
    ]
    for attribute, found in sliced.items():
        names = list(found)
        if not are_numbers(attribute, names):
            names.sort(key=lambda name: found[name]["accuracy"])
        shown = {name: found[name] for name in names[:SLICES]}
        what = attribute.replace("_", " ")
        most = f"; the {SLICES} worst of {len(names)}, all are in metrics.json" if len(names) > SLICES else ""
        blocks.append(_metric_table(what, shown, f"By {what}{most}.", metrics=SLICED))
    return blocks


def rationales(run: Run) -> list[Block]:
    """Metrics of rationales by condition, beside those of the baselines, and by language."""
    named = [(NAMES.get(name, name), entry, False) for name, entry in entries(run.metrics, run.split).items()]
    constants = run.conditions.get("baselines", {}).items()
    named += [(NAMES[name], entry, True) for name, entry in constants if name in RATIONALE_BASELINES]
    named = [row for row in named if "rougeL" in row[1]]
    if not named:
        return []
    blocks: list[Block] = [
        _rationale_table(named, "condition", "Rationales by condition, and those of baselines.")
    ]
    groups = [(name, entry, False) for name, entry in run.entry.get("by_language", {}).items()]
    if len(groups) > 1:
        blocks.append(_rationale_table(groups, "language", f"Rationales by language, {run.reads}."))
    notes = {
        "BLEU, chrF": "sacrebleu's, of the corpus, divided by 100. BLEU cuts each row by its language's "
        "tokeniser: zh for Chinese, char for Japanese, 13a for others."
    }
    if judged := run.metrics.get("bertscore"):
        notes["BERTScore"] = (
            f"{judged['model']}, layer {judged['layer']}, without idf and without rescaling against a "
            "baseline: figures lie high, and compare only under the same encoder and layer."
        )
    notes |= {
        "exact, copied from training": "shares of rationales equal to the reference, and equal to any "
        "rationale of the training rows.",
        "distinct-1, distinct-2": "shares of different words and pairs of words among all. They fall with "
        "the number of rows: compare within a column of the same rows.",
        "length": "mean number of words, and that of the references in brackets; of characters in Chinese "
        "and Japanese.",
        "fits its transcript": "the share of rationales of rows with the same label and language that fit "
        "the row's transcript less than its own does, by TF-IDF. Constant rationales, and those of other "
        "rows with the label, have about .5, whatever a judge of labels reads off them.",
        "nearest and consensus": "the rationale of the training row with the nearest transcript, and of the "
        f"{NEIGHBOURS} nearest the one most like all of them (minimum Bayes risk by ROUGE-L). A decoder "
        "that is not above them has learned no more than to look up.",
        "constant rationale": "the training split's most frequent rationale of the label in the row's "
        "language. A model that is not above it has explained nothing.",
    }
    return [*blocks, notes]


def calibration(run: Run) -> list[Block]:
    """Calibration of the probabilities, and abstention."""
    blocks: list[Block] = []
    if found := run.entry.get("calibration"):
        fitted = found.get("temperature")  # exactly 1 in a checkpoint that was not calibrated
        temperature = "not fitted" if fitted == 1 else number(fitted)
        blocks.append(
            f"{run.reads}, {found['n']} rows{'' if fitted is None else f', temperature {temperature}'}: "
            f"ECE {found['ece']:.3f} (bins of equal width: {found['ece_equal_width']:.3f}), "
            f"Brier score {found['brier']:.3f}, NLL {found['nll']:.3f}, "
            f"AURC {found['aurc']:.3f} ({found['excess_aurc']:.3f} above the best order's)."
        )
    if sets := run.entry.get("conformal"):
        blocks.append(conformal_text(sets))
    if labelled := [row for row in run.answered if row.label is not None and row.scores]:
        confidence, correct = confidence_and_correct(labelled)
        blocks += [
            Picture(
                "reliability",
                partial(draw_reliability, confidence, correct),
                caption="Reliability: of rows answered with confidence p, a share p should be right. Bins of "
                "as many rows.",
                alt="Line: accuracy over confidence in bins of as many rows, beside the diagonal of "
                "calibrated answers; below it a histogram of confidence.",
            ),
            Picture(
                "risk_coverage",
                partial(draw_risk_coverage, confidence, correct),
                caption="Risk and coverage: how often the model is wrong if it answers only where it is "
                "surest.",
                alt="Lines: share of wrong answers over the share of rows answered, for the model, the best "
                "and a random order.",
            ),
        ]
    return blocks


def confusion(run: Run) -> list[Block]:
    """The confusion matrix."""
    if (counts := run.entry.get("confusion")) is None:
        return []
    listed = ". ".join(
        f"True {gold}: " + ", ".join(f"{n} {predicted}" for predicted, n in row.items())
        for gold, row in counts.items()
    )
    return [
        Picture(
            "confusion",
            partial(draw_confusion, counts, run.labels),
            caption=f"Confusion matrix, {run.reads}: rows, and their share of the true label.",
            alt=f"Confusion matrix. {listed}.",
        )
    ]


def training(run: Run) -> list[Block]:
    """Losses and development metrics over epochs."""
    if not training_panels(run.history):
        return []
    return [
        Picture(
            "training",
            partial(draw_training, run.history),
            caption="Training: each loss on training and development rows, and figures on the development "
            "split. A loss that falls far is on a logarithmic axis; what stays the same is left out.",
            alt="Lines: losses and development figures over epochs.",
            pan=True,
        )
    ]


def costs(run: Run) -> list[Block]:
    """What the answers of a language model cost, and how many of them named no label."""
    known = {name: entry for name, entry in entries(run.metrics, run.split).items() if "usage" in entry}
    if not known:
        return []
    columns = ["condition", *COSTS.values(), "unparsable"]
    rows = [
        Row(
            NAMES.get(name, name),
            [
                *(_cost(entry["usage"].get(cost)) for cost in COSTS),
                str(entry.get("unparsable", MISSING)),
            ],
        )
        for name, entry in known.items()
    ]
    notes = {
        "seconds": "the time that the machine or the server took; rows of a batch share theirs. Answers that "
        "were read from answers.jsonl count as what they cost when they were asked for.",
    }
    if (settings := run.metrics.get("language_model", {})).get("read") in ("parsed", "logprobs"):
        notes["unparsable"] = f"answers that name no label; they count as {settings['fallback']}."
    return [Table(columns, rows, "Cost of the language model's answers."), notes]


def _cost(amount: float | None) -> str:
    """A count, or seconds with a decimal."""
    return MISSING if amount is None else f"{amount:,.{0 if isinstance(amount, int) else 1}f}"


def attention(run: Run) -> list[Block]:
    """The attention map of the first example that has one."""
    for example in run.examples:
        if shown := example.attention:
            name = example.utterance.id
            tokens = (token.replace("▁", " ").strip() for token in shown["tokens"])
            listed = ", ".join(f"#{i} {token}" for i, token in enumerate(tokens, start=1))
            caption = (
                f"Where the words look in the sound, example {name}. Tokens from top to bottom: {listed}."
            )
            alt = f"Waveform, mel spectrogram and attention map of {name}, on one axis of seconds."
            return [Picture("attention", partial(draw_attention, shown), caption, alt, pan=True)]
    return []


def examples(run: Run) -> list[Block]:
    """Utterances to play, with answers and rationales."""
    return [Cards([card(example) for example in run.examples])] if run.examples else []


def mistakes(run: Run, *, most: int = 10) -> list[Block]:
    """The wrong answers with the highest confidence, of a model that gives probabilities."""
    wrong = [row for row in run.answered if row.label not in (None, row.predicted_label) and row.scores]
    wrong.sort(key=lambda row: (-row.confidence, row.id))
    rows = []
    for row in wrong[:most]:
        predicted = f"{row.predicted_label} ({row.confidence:.3f})"
        quotes = [
            Quote(text, language_code(row.language)) for text in (row.rationale, row.predicted_rationale)
        ]
        rows.append(Row(row.id, [row.kind or MISSING, str(row.label), predicted, *quotes]))
    columns = ["id", "kind", "true", "predicted (p)", "reference", "its rationale"]
    caption = f"Wrong answers of which the model was surest, {run.reads}."
    return [Table(columns, rows, caption, words=True)] if rows else []


SECTIONS: dict[str, Callable[[Run], Sequence[Block]]] = {
    "Findings": findings,
    "Results": results,
    "By kind of row": partial(by_group, what="kind", title="By kind of row"),
    "By language": partial(by_group, what="language", title="By language"),
    "Slices": slices,
    "Rationales": rationales,
    "Calibration and abstention": calibration,
    "Costs": costs,
    "Confusion": confusion,
    "Training": training,
    "Attention": attention,
    "Examples": examples,
    "Surest mistakes": mistakes,
}


# ---------------------------------------------------------------------- parts of sections


def card(example: Example) -> dict[str, Any]:
    """An example for the templates of `Cards`."""
    utterance, answer = example.utterance, example.answer
    scores = sorted(answer.scores.items(), key=lambda item: -item[1])
    path = utterance.audio if isinstance(utterance.audio, str) else None
    sound = Path(path).read_bytes() if path else utterance.audio
    mime = example.mime or mimetypes.guess_type(path or "")[0] or "audio/wav"
    return {
        "id": utterance.id,
        "predicted_label": answer.label,
        **{name: getattr(utterance, name) for name in ("text", "label", "rationale", "kind", "language")},
        "predicted_rationale": answer.rationale,
        "parts": quoted_parts(answer.rationale, utterance.text),
        "scores": [(label, f"{score:.3f}", f"{100 * score:.1f}") for label, score in scores],
        "sound": data_uri(sound, mime) if isinstance(sound, bytes) else None,
        "counterfactuals": list(example.counterfactuals.items()),
    }


def _differences(run: Run) -> list[Effect]:
    """The differences of conditions and baselines from the first condition."""
    shown = {name: entry for name, entry in run.conditions.items() if name != "baselines"}
    baselines = run.conditions.get("baselines", {})
    shown |= {name: entry for name, entry in baselines.items() if name not in RATIONALE_BASELINES}
    known = {name: entry.get("difference", {}).get("macro_f1") for name, entry in shown.items()}
    return [
        Effect(NAMES.get(name, name), found["value"], found["interval"], not low <= 0 <= high)
        for name, found in known.items()
        if found
        for low, high in [found["interval"]]
    ]


def _conditions_table(metrics: Mapping[str, Any], split: str) -> Table:
    shown = {NAMES.get(name, name): entry for name, entry in entries(metrics, split).items()}
    of_labels = {metric.name for metric in metrics_of("label")}
    baselines = {}
    for name, entry in metrics[split].get("baselines", {}).items():
        if name in RATIONALE_BASELINES:  # their labels are the model's own or the true ones
            entry = {key: value for key, value in entry.items() if key not in of_labels}
        baselines[NAMES.get(name, name)] = entry
    caption = f"Conditions of the {split} split, and baselines that a model must beat."
    return _metric_table("condition", {**shown, **baselines}, caption, baselines=baselines)


def _metric_table(
    what: str,
    entries: Mapping[str, Mapping[str, Any]],
    caption: str,
    *,
    metrics: Collection[str] | None = None,
    baselines: Collection[str] = (),
) -> Table:
    """A row for each entry: metrics with their intervals, by default those in the table of results."""
    metrics = _in_results() if metrics is None else metrics
    rows = []
    for name, entry in entries.items():
        intervals = entry.get("interval", {})
        cells = [number(entry.get(metric), intervals.get(metric)) for metric in metrics]
        rows.append(Row(name, [str(entry["n"]), *cells], name in baselines))
    columns = [what, "n", *(METRICS[metric].title for metric in metrics)]
    return Table(columns, rows, caption + _interval_note(entries))


def _in_results() -> list[str]:
    """The metrics in the table of results."""
    return [metric.name for metric in METRICS.values() if "results" in metric.tables]


def _rationale_table(named: Sequence[tuple[str, Mapping[str, Any], bool]], what: str, caption: str) -> Table:
    shown = [
        metric
        for metric in metrics_of("rationale")
        if "rationales" in metric.tables and any(metric.name in entry for _, entry, _ in named)
    ]
    rows = []
    for name, entry, baseline in named:
        cells = [_rationale_cell(metric, entry) for metric in shown]
        rows.append(Row(name, [str(entry["n_rationale"]), *cells], baseline))
    titles = [
        "length (reference's)" if metric.name == "length" else metric.title.removesuffix(" (Unicode)")
        for metric in shown
    ]
    return Table([what, "n", *titles], rows, caption)


def _rationale_cell(metric: Metric, entry: Mapping[str, Any]) -> str:
    if metric.name == "length" and "length" in entry:
        return f"{entry['length']:.1f} ({entry['length_gold']:.1f})"
    return number(entry.get(metric.name), entry.get("interval", {}).get(metric.name))


def _interval_note(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """A sentence on the units of the intervals in a table; empty if it has no interval."""
    names: dict[str, list[str]] = {}
    for name, entry in entries.items():
        if entry.get("interval"):
            names.setdefault(entry.get("interval_over", "rows"), []).append(name)
    if not names:
        return ""
    most, *others = sorted(names, key=lambda over: -len(names[over]))
    exceptions = ""
    for over in others:
        few = ", ".join(names[over]) if len(names[over]) <= NAMED else f"{len(names[over])} others"
        exceptions += f"; of {few} over {over}"
    return f" Brackets: 95 % intervals over {most}{exceptions}."

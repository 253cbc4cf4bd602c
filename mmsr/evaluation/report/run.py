"""The report of a run: report.html, report.md and their pictures.

metrics.json, predictions.jsonl, training history, examples ─► sections ─► page
"""

import mimetypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mmsr.evaluation.calibration import confidence_and_correct, conformal_text
from mmsr.evaluation.metrics import METRICS, Metric, metrics_of
from mmsr.evaluation.report.names import MISSING, NAMES, RATIONALE_BASELINES, number
from mmsr.evaluation.report.page import (
    Cards,
    Notes,
    Page,
    Quote,
    Section,
    Table,
    TableRow,
    Text,
    origin,
    picture,
    write_page,
)
from mmsr.evaluation.report.pictures import (
    Attention,
    data_uri,
    draw_attention,
    draw_confusion,
    draw_modalities,
    draw_reliability,
    draw_risk_coverage,
    draw_training,
)
from mmsr.evaluation.slices import LEAST, are_numbers, worst_slice_line
from mmsr.records import Answer, Prediction, Utterance

SLICED = ("accuracy", "macro_f1")
SLICES = 12  # of an attribute that are shown
NAMED = 6  # rows of a table that a caption names, before it counts them


@dataclass(frozen=True, kw_only=True)
class Example:
    """An utterance to show, with the answer to it.

    Attributes:
        utterance: Its `audio` is a path or a file's bytes.
        answer: The model's.
        mime: Type of its audio; by default told by the path, else WAV.
        counterfactuals: Rationales of the other labels, by label.
        attention: For the attention picture.
    """

    utterance: Utterance
    answer: Answer
    mime: str | None = None
    counterfactuals: Mapping[str, str] = field(default_factory=dict)
    attention: Attention | None = None


@dataclass(frozen=True)
class Run:
    """What the sections of a run's report are made of.

    Attributes:
        metrics: Content of metrics.json.
        split: Which split of it is shown.
        labels: The label set.
        answered: Predictions under the first condition.
        history: Figures of each epoch.
        examples: Utterances to play.
    """

    metrics: Mapping[str, Any]
    split: str
    labels: Sequence[str]
    answered: Sequence[Prediction]
    history: Sequence[Mapping[str, Any]]
    examples: Sequence[Example]

    @property
    def conditions(self) -> Mapping[str, Any]:
        """Entries of the split by condition, `baselines` among them."""
        return self.metrics[self.split]

    @property
    def first(self) -> str:
        """The first condition, which the sections but the first are about."""
        return next(iter(entries(self.metrics, self.split)))

    @property
    def entry(self) -> Mapping[str, Any]:
        """Figures of the first condition."""
        return self.conditions[self.first]

    @property
    def reads(self) -> str:
        """What the first condition is called."""
        return NAMES.get(self.first, self.first)

    @property
    def provenance(self) -> dict[str, str]:
        """Where the figures come from; over what the intervals of a table are its caption says."""
        shown = [*self.conditions.values(), *self.conditions.get("baselines", {}).values()]
        shown += [one for key in ("by_kind", "by_language") for one in self.entry.get(key, {}).values()]
        shown += [one for values in self.entry.get("slices", {}).values() for one in values.values()]
        over = sorted({one["interval_over"] for one in shown if "interval_over" in one}, reverse=True)
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
    """Writes report.html, report.md and pictures to `out_dir` and returns the path of report.html.

    `metrics` is the content of metrics.json, of which `split` is shown. `history` has a row per epoch:
    `epoch`, and figures whose names end in `loss` (first panel) or start with `dev_` (second panel). The
    attention picture shows the first example that has `attention`. The HTML holds pictures and sounds within
    itself and loads nothing.

    Raises:
        ValueError: Where `metrics` lacks the split or has no condition in it, or an attention map does not
            fit its tokens.
    """
    first = next(iter(entries(metrics, split)))
    answered = [row for row in predictions if row.condition == first]
    run = Run(metrics, split, labels, answered, history or (), examples)
    page = Page(
        title=title,
        lead=f"Split: {split}. Every figure is in metrics.json, every answer in predictions.jsonl, and the "
        "pictures lie beside this file as PNG.",
        sections=[section(run) for section in SECTIONS],
        provenance=run.provenance,
    )
    return write_page(page, Path(out_dir) / "report.html")


def markdown_table(metrics: Mapping[str, Any], *, split: str = "test") -> str:
    """Returns the report's first table (conditions, then baselines) as Markdown.

    `metrics` is the content of metrics.json.

    Raises:
        ValueError: Where `metrics` lacks the split, or the split has no condition.
    """
    return _headline(metrics, split).markdown()


def entries(metrics: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Returns the entries of a split's conditions, without baselines.

    Raises:
        ValueError: Where `metrics` lacks the split, or the split has no condition.
    """
    if split not in metrics:
        raise ValueError(f"metrics have no split {split!r}; their keys are {', '.join(map(repr, metrics))}")
    found = {name: entry for name, entry in metrics[split].items() if name != "baselines"}
    if not found:
        raise ValueError(f"metrics of split {split!r} have no condition")
    return found


# ---------------------------------------------------------------------- sections


def results(run: Run) -> Section:
    """Figures of all conditions and baselines."""
    blocks: list[Any] = [_headline(run.metrics, run.split)]
    if f1 := run.entry.get("f1"):
        shown = ", ".join(f"{label} {number(value)}" for label, value in f1.items())
        weighted = number(run.entry.get("weighted_f1"))
        blocks.append(Text(f"F1 by label, {run.reads}: {shown}; weighted by their rows: {weighted}."))
    if any("macro_f1" in entry for entry in entries(run.metrics, run.split).values()):
        blocks.append(
            picture(
                "modalities",
                partial(draw_modalities, run.conditions),
                caption="Macro-F1 and ROUGE-L by condition (blue) and baseline (grey).",
                alt="Bars: macro-F1 and ROUGE-L of each condition and baseline, as in the table above.",
                provenance=run.provenance,
                pan=True,
            )
        )
    blocks.append(
        Notes(
            [
                ("macro-F1, UAR", "the mean F1 of the labels, and their mean recall. A label that is "
                 "predicted in a group of rows but never true there counts as an F1 of 0."),
                ("intervals", "Wilson's of accuracy over rows, and where all answers are right; else 1,000 "
                 "bootstrap resamples of rows, or of whole speakers where more than five speak. They do not "
                 "cover what another training seed would change."),
                ("ROUGE-L", "Unicode counts words, and characters in Chinese and Japanese. ASCII is the "
                 "usual code, which drops all but a–z and 0–9: it is here only to compare with published "
                 "tables, and says nothing about Chinese."),
                ("another row's audio", "a control: the text stays, the voice is that of another row. A "
                 "model that listens gets worse."),
            ]
        )
    )  # fmt: skip
    return Section("Results", blocks)


def by_group(run: Run, *, key: str, title: str, what: str) -> Section | None:
    """The same figures for each value of a column."""
    groups = run.entry.get(key, {})
    if not groups:
        return None
    rows = [TableRow(name, _cells(entry)) for name, entry in groups.items()]
    caption = f"{title}, {run.reads}.{_brackets(groups)}"
    return Section(title, [Table([what, "n", *_titles()], rows, caption)])


def slices(run: Run) -> Section | None:
    """The worst slice, and figures of all slices: numbers in order, other values with the worst first."""
    if not (sliced := run.entry.get("slices")):
        return None
    line = worst_slice_line(run.entry["worst_slice"], least=run.entry.get("slice_rows", LEAST))
    said = (
        f"{line[0].upper()}{line[1:]}. The more slices are looked at, the lower is the worst of them by "
        "chance alone; the expected worst allows for that. Intervals of slices are not corrected for their "
        "number."
    )
    blocks: list[Any] = [Text(said)]
    for attribute, entries in sliced.items():
        names = list(entries)
        if not are_numbers(attribute, names):
            names.sort(key=lambda name: entries[name]["accuracy"])
        rows = [
            TableRow(
                name,
                [
                    str(entries[name]["n"]),
                    *(
                        number(entries[name][metric], entries[name].get("interval", {}).get(metric))
                        for metric in SLICED
                    ),
                ],
            )
            for name in names[:SLICES]
        ]
        brackets = _brackets({name: entries[name] for name in names[:SLICES]})
        what = attribute.replace("_", " ")
        most = f"; the {SLICES} worst of {len(names)}, all are in metrics.json" if len(names) > SLICES else ""
        caption = f"By {what}{most}.{brackets}"
        blocks.append(Table([what, "n", *(METRICS[name].title for name in SLICED)], rows, caption))
    return Section("Slices", blocks)


def rationales(run: Run) -> Section | None:
    """How good the rationales are, beside those of the baselines, and by language."""
    named = [
        (NAMES.get(name, name), entry, False) for name, entry in run.conditions.items() if name != "baselines"
    ]
    constants = run.conditions.get("baselines", {}).items()
    named += [(NAMES[name], entry, True) for name, entry in constants if name in RATIONALE_BASELINES]
    named = [one for one in named if "rougeL" in one[1]]
    if not named:
        return None
    groups = [(name, entry, False) for name, entry in run.entry.get("by_language", {}).items()]
    blocks: list[Any] = [
        _rationale_table(named, "condition", "Rationales by condition, and those of baselines.")
    ]
    if len(groups) > 1:
        blocks.append(_rationale_table(groups, "language", f"Rationales by language, {run.reads}."))
    notes = [
        ("BLEU, chrF", "sacrebleu's, of the corpus, divided by 100. BLEU cuts each row by its language's "
         "tokeniser: zh for Chinese, char for Japanese, 13a for others."),
        ("exact, copied from training", "shares of rationales equal to the reference, and equal to any "
         "rationale of the training rows."),
        ("distinct-1, distinct-2", "shares of different words and pairs of words among all. They fall with "
         "the number of rows: compare within a column of the same rows."),
        ("length", "mean number of words, and that of the references in brackets; of characters in Chinese "
         "and Japanese."),
        ("constant rationale", "the training split's most frequent rationale of the label in the row's "
         "language. A model that is not above it has explained nothing."),
    ]  # fmt: skip
    if judged := run.metrics.get("bertscore"):
        notes.insert(
            1, ("BERTScore", f"{judged['model']}, layer {judged['layer']}, without idf and without rescaling "
            "against a baseline: figures lie high, and compare only under the same encoder and layer.")
        )  # fmt: skip
    return Section("Rationales", [*blocks, Notes(notes)])


def calibration(run: Run) -> Section | None:
    """Whether probabilities can be believed, and what abstaining gains."""
    found, sets = run.entry.get("calibration"), run.entry.get("conformal")
    labelled = [row for row in run.answered if row.label is not None]
    blocks: list[Any] = []
    if found:
        temperature = _temperature(found.get("temperature"))
        blocks.append(
            Text(
                f"{run.reads}, {found['n']} rows{temperature}: ECE {found['ece']:.3f} (bins of equal width: "
                f"{found['ece_equal_width']:.3f}), Brier score {found['brier']:.3f}, NLL {found['nll']:.3f}, "
                f"AURC {found['aurc']:.3f} ({found['excess_aurc']:.3f} above the best order's)."
            )
        )
    if sets:
        blocks.append(Text(conformal_text(sets)))
    if labelled:
        believed = confidence_and_correct(labelled)
        blocks.append(
            picture(
                "reliability",
                partial(draw_reliability, *believed),
                caption="Reliability: of rows answered with confidence p, a share p should be right. Bins of "
                "as many rows.",
                alt="Line: accuracy over confidence in bins of as many rows, beside the diagonal of "
                "calibrated answers; below it a histogram of confidence.",
                provenance=run.provenance,
            )
        )
        blocks.append(
            picture(
                "risk_coverage",
                partial(draw_risk_coverage, *believed),
                caption="Risk and coverage: how often the model is wrong if it answers only where it is "
                "surest.",
                alt="Lines: share of wrong answers over the share of rows answered, for the model, the best "
                "and a random order.",
                provenance=run.provenance,
            )
        )
    return Section("Calibration and abstention", blocks) if blocks else None


def confusion(run: Run) -> Section | None:
    """Which labels are taken for which."""
    if "confusion" not in run.entry:
        return None
    counts = run.entry["confusion"]
    told = ". ".join(
        f"True {gold}: " + ", ".join(f"{n} {predicted}" for predicted, n in row.items())
        for gold, row in counts.items()
    )
    drawn = picture(
        "confusion",
        partial(draw_confusion, counts, run.labels),
        caption=f"Confusion matrix, {run.reads}: rows, and their share of the true label.",
        alt=f"Confusion matrix. {told}.",
        provenance=run.provenance,
    )
    return Section("Confusion", [drawn])


def training(run: Run) -> Section | None:
    """Losses and development figures over epochs."""
    if not run.history:
        return None
    drawn = picture(
        "training",
        partial(draw_training, run.history),
        caption="Training: losses, and figures on the development split.",
        alt="Lines: losses and development figures over epochs.",
        provenance=run.provenance,
        pan=True,
    )
    return Section("Training", [drawn])


def attention(run: Run) -> Section | None:
    """Where the words of an example look in its sound."""
    example = next((example for example in run.examples if example.attention), None)
    if example is None or not (shown := example.attention):
        return None
    name = example.utterance.id
    tokens = ", ".join(
        f"#{i} {token.replace('▁', ' ').strip()}" for i, token in enumerate(shown["tokens"], start=1)
    )
    drawn = picture(
        "attention",
        partial(draw_attention, shown),
        caption=f"Where the words look in the sound, example {name}. Tokens from top to bottom: {tokens}.",
        alt=f"Waveform, mel spectrogram and attention map of {name}, on one axis of seconds.",
        provenance=run.provenance,
        pan=True,
    )
    return Section("Attention", [drawn])


def examples(run: Run) -> Section | None:
    """Utterances to hear, with answers and reasons."""
    return Section("Examples", [Cards(list(map(card, run.examples)))]) if run.examples else None


def mistakes(run: Run, *, most: int = 10) -> Section | None:
    """The wrong answers of which the model was surest, for the reader to look into."""
    wrong = [row for row in run.answered if row.label not in (None, row.predicted_label)]
    if not wrong:
        return None
    wrong.sort(key=lambda row: (-row.confidence, row.id))
    rows = [
        TableRow(
            row.id,
            [
                row.kind or MISSING,
                str(row.label),
                f"{row.predicted_label} ({row.confidence:.3f})",
                Quote(row.rationale, row.language),
                Quote(row.predicted_rationale, row.language),
            ],
        )
        for row in wrong[:most]
    ]
    columns = ["id", "kind", "true", "predicted (p)", "reference", "its rationale"]
    caption = f"Wrong answers of which the model was surest, {run.reads}."
    return Section("Surest mistakes", [Table(columns, rows, caption, words=True)])


SECTIONS: tuple[Callable[[Run], Section | None], ...] = (
    results,
    partial(by_group, key="by_kind", title="By kind of row", what="kind"),
    partial(by_group, key="by_language", title="By language", what="language"),
    slices,
    rationales,
    calibration,
    confusion,
    training,
    attention,
    examples,
    mistakes,
)


# ---------------------------------------------------------------------- parts of sections


def card(example: Example) -> dict[str, Any]:
    """An example as a page shows it."""
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
        "scores": [(label, f"{score:.3f}", f"{100 * score:.1f}") for label, score in scores],
        "sound": data_uri(sound, mime) if isinstance(sound, bytes) else None,
        "counterfactuals": list(example.counterfactuals.items()),
    }


def _headline(metrics: Mapping[str, Any], split: str) -> Table:
    shown = {NAMES.get(name, name): entry for name, entry in entries(metrics, split).items()}
    rows = [TableRow(name, _cells(entry)) for name, entry in shown.items()]
    for name, entry in metrics[split].get("baselines", {}).items():
        if name in RATIONALE_BASELINES:  # its labels are the model's own or the truth: no baseline's figures
            of_labels = {metric.name for metric in metrics_of("label")}
            entry = {key: value for key, value in entry.items() if key not in of_labels}
        shown[NAMES.get(name, name)] = entry
        rows.append(TableRow(NAMES.get(name, name), _cells(entry), baseline=True))
    caption = f"Conditions of the {split} split, and baselines that a model must beat.{_brackets(shown)}"
    return Table(["condition", "n", *_titles()], rows, caption)


def _rationale_table(named: Sequence[tuple[str, Mapping[str, Any], bool]], what: str, caption: str) -> Table:
    shown = [
        metric
        for metric in metrics_of("rationale")
        if "rationales" in metric.tables and any(metric.name in entry for _, entry, _ in named)
    ]
    rows = [
        TableRow(
            name,
            [str(entry["n_rationale"]), *(_rationale_cell(metric, entry) for metric in shown)],
            baseline,
        )
        for name, entry, baseline in named
    ]
    return Table([what, "n", *map(_rationale_title, shown)], rows, caption)


def _rationale_title(metric: Metric) -> str:
    if metric.name == "length":
        return "length (reference's)"
    return metric.title.removesuffix(" (Unicode)")  # all are, in this table


def _rationale_cell(metric: Metric, entry: Mapping[str, Any]) -> str:
    if metric.name == "length" and "length" in entry:
        return f"{entry['length']:.1f} ({entry['length_gold']:.1f})"
    return number(entry.get(metric.name))


def _brackets(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Over what the intervals of a table's rows are, as each entry says; a sentence, or nothing."""
    of: dict[str, list[str]] = {}
    for name, entry in entries.items():
        if entry.get("interval"):
            of.setdefault(entry.get("interval_over", "rows"), []).append(name)
    if not of:
        return ""
    most, *others = sorted(of, key=lambda over: -len(of[over]))
    named = "".join(
        f"; of {', '.join(of[over]) if len(of[over]) <= NAMED else f'{len(of[over])} others'} over {over}"
        for over in others
    )
    return f" Brackets: 95 % intervals over {most}{named}."


def _temperature(value: float | None) -> str:
    """A temperature as part of a sentence; that of a checkpoint which none was fitted to is exactly 1."""
    if value is None:
        return ""
    return ", temperature not fitted" if value == 1 else f", temperature {value:.3f}"


def _cells(entry: Mapping[str, Any]) -> list[str]:
    intervals = entry.get("interval", {})
    return [str(entry["n"]), *(number(entry.get(key.name), intervals.get(key.name)) for key in _results())]


def _results() -> list[Metric]:
    """The metrics in the table of results."""
    return [metric for metric in METRICS.values() if "results" in metric.tables]


def _titles() -> list[str]:
    return [metric.title for metric in _results()]

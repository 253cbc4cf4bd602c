"""The metrics of labels and rationales, one record each.

labels, predicted labels ─► confusion matrix [c, c] ─► `Metric.from_confusion` ─┐
references, hypotheses ─► `Texts` [n] ─► `Metric.from_rows`, `from_corpus` ─────┴─► {name: value}

A new metric is one record in `METRICS`: metrics.json, `mmsr compare`, ablations, reports and `--monitor` have
it then. Training imports this module: numpy alone has to do.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmsr.evaluation.matching import own_match
from mmsr.evaluation.rationales import BertScore, Texts, distinct, lengths

Array = NDArray[Any]
Table = Literal["results", "rationales"]

_LEAST = 1e-9  # counts below this are 0: means over seeds and their differences have rounding errors


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How a metric is computed, shown and compared.

    A metric of labels has `from_confusion`, one of rationales `from_rows`, `from_corpus` or both.

    Attributes:
        name: Key in metrics.json and name in commands.
        title: Name in tables.
        from_confusion: Values `[...]` of confusion matrices `[..., c, c]`, true labels along the first axis.
            Counts need not be whole; the value of no rows is 0.
        from_rows: Scores `[n]` of rows, which `mmsr compare` resamples; their mean is the value, unless there
            is `from_corpus`.
        from_corpus: Value of all rows where it is no mean over rows; None where it cannot be computed.
        higher_is_better: None where neither is.
        is_share: Whether it is the share of right rows, which has Wilson's interval and Cohen's h.
        averages_labels: Whether all labels have the same weight, however many rows they have.
        needs_encoder: Whether it needs a BERTScore encoder.
        needs_transcripts: Whether it needs the rows' transcripts, which predictions do not have.
        tables: Tables of a run's report that show it, `results` and `rationales`.
    """

    name: str
    title: str
    from_confusion: Callable[[Array], Array] | None = None
    from_rows: Callable[[Texts], Array] | None = None
    from_corpus: Callable[[Texts], float | None] | None = None
    higher_is_better: bool | None = True
    is_share: bool = False
    averages_labels: bool = False
    needs_encoder: bool = False
    needs_transcripts: bool = False
    tables: Collection[Table] = ("results", "rationales")

    def __post_init__(self) -> None:
        of_rationales = self.from_rows is not None or self.from_corpus is not None
        if (self.from_confusion is not None) == of_rationales:
            raise ValueError(
                f"metric {self.name!r} is computed from labels or from rationales, one of the two"
            )

    @property
    def kind(self) -> Literal["label", "rationale"]:
        """The field of a prediction that it scores."""
        return "rationale" if self.from_confusion is None else "label"

    @property
    def statistic(self) -> str:
        """Its name in `significance`: `mean` for scores of rows."""
        return self.name if self.kind == "label" else "mean"

    @property
    def is_comparable(self) -> bool:
        """Whether `mmsr compare` can resample it."""
        return self.from_confusion is not None or self.from_rows is not None

    def of_texts(self, texts: Texts) -> float | None:
        """The value of a metric of rationales; None where it cannot be computed."""
        if self.from_corpus is not None:
            return self.from_corpus(texts)
        assert self.from_rows is not None
        return float(self.from_rows(texts).mean())


def comparable_names() -> list[str]:
    """The metrics whose differences between runs can be drawn again."""
    return [name for name, metric in METRICS.items() if metric.is_comparable]


def metrics_of(kind: Literal["label", "rationale"]) -> list[Metric]:
    """The metrics of labels, or those of rationales, in the order of tables."""
    return [metric for metric in METRICS.values() if metric.kind == kind]


# ---------------------------------------------------------------------- labels


def accuracy(confusion: Array) -> Array:
    """Share of rows that are right."""
    return _ratio(_hits(confusion).sum(axis=-1), confusion.sum(axis=(-2, -1)))


def macro_f1(confusion: Array) -> Array:
    """Mean F1 of the labels that are true or predicted in some row (scikit-learn's default)."""
    return _ratio(label_f1(confusion).sum(axis=-1), (_in_use(confusion) > _LEAST).sum(axis=-1))


def macro_f1_present(confusion: Array) -> Array:
    """Mean F1 of the labels that are true in some row, for groups of rows that lack a label."""
    present = confusion.sum(axis=-1) > _LEAST
    return _ratio((label_f1(confusion) * present).sum(axis=-1), present.sum(axis=-1))


def weighted_f1(confusion: Array) -> Array:
    """Mean F1 of the labels, weighted by their support, as papers on MELD and CMU-MOSI report."""
    gold = confusion.sum(axis=-1)
    return _ratio((label_f1(confusion) * gold).sum(axis=-1), gold.sum(axis=-1))


def uar(confusion: Array) -> Array:
    """Unweighted average recall (balanced accuracy): mean recall of the labels that are true in some row."""
    gold = confusion.sum(axis=-1)
    return _ratio(_ratio(_hits(confusion), gold).sum(axis=-1), (gold > _LEAST).sum(axis=-1))


def label_f1(confusion: Array) -> Array:
    """F1 of each label `[..., c]`; 0 of a label that is neither true nor predicted in any row."""
    return _ratio(2 * _hits(confusion), _in_use(confusion))


def confusion_matrix(
    gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]
) -> NDArray[np.int64]:
    """Counts `[c, c]` of pairs of true and predicted label, in the order of `labels`."""
    place = {label: i for i, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(counts, ([place[label] for label in gold], [place[label] for label in predicted]), 1)
    return counts


def _hits(confusion: Array) -> Array:
    return np.diagonal(confusion, axis1=-2, axis2=-1)


def _in_use(confusion: Array) -> Array:
    """Rows with each label as true one, plus those with it as predicted one, `[..., c]`."""
    return confusion.sum(axis=-1) + confusion.sum(axis=-2)


def _ratio(part: Array, whole: Array) -> Array:
    """`part / whole`, and 0 where `whole` is 0."""
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=np.asarray(whole) > _LEAST)


# ---------------------------------------------------------------------- the records


_RATIONALES: tuple[Table, ...] = ("rationales",)


def _rouge(name: str, title: str, *tables: Table) -> Metric:
    return Metric(name=name, title=title, from_rows=lambda texts: texts.rouge[name], tables=tables)


def _bertscore(name: str, title: str, *tables: Table) -> Metric:
    def mean(texts: Texts) -> float | None:
        scores = texts.bertscores.get(name)
        return None if scores is None else float(scores.mean())

    return Metric(name=name, title=title, from_corpus=mean, needs_encoder=True, tables=tables)


def _distinct(n: int) -> Metric:
    def share(texts: Texts) -> float | None:
        return distinct(texts.hypotheses, n=n)

    return Metric(name=f"distinct{n}", title=f"distinct-{n}", from_corpus=share, tables=_RATIONALES)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(name="accuracy", title="accuracy", from_confusion=accuracy, is_share=True),
        Metric(name="macro_f1", title="macro-F1", from_confusion=macro_f1, averages_labels=True),
        Metric(
            name="macro_f1_present",
            title="macro-F1 (labels that occur)",
            from_confusion=macro_f1_present,
            averages_labels=True,
            tables=(),
        ),
        Metric(name="weighted_f1", title="weighted F1", from_confusion=weighted_f1, tables=()),
        Metric(name="uar", title="UAR", from_confusion=uar, averages_labels=True),
        _rouge("rouge1", "ROUGE-1 (Unicode)", "rationales"),
        _rouge("rouge2", "ROUGE-2 (Unicode)", "rationales"),
        _rouge("rougeL", "ROUGE-L (Unicode)", "results", "rationales"),
        _rouge("rougeLsum", "ROUGE-Lsum (Unicode)", "rationales"),
        _rouge("rouge1_ascii", "ROUGE-1 (ASCII)"),
        _rouge("rouge2_ascii", "ROUGE-2 (ASCII)"),
        _rouge("rougeL_ascii", "ROUGE-L (ASCII)", "results"),
        _rouge("rougeLsum_ascii", "ROUGE-Lsum (ASCII)"),
        Metric(name="bleu", title="BLEU", from_corpus=Texts.bleu, tables=_RATIONALES),
        Metric(name="chrf", title="chrF", from_corpus=Texts.chrf, from_rows=Texts.chrf_of_rows),
        _bertscore("bertscore_precision", "BERTScore precision"),
        _bertscore("bertscore_recall", "BERTScore recall"),
        _bertscore("bertscore_f1", "BERTScore F1", "rationales"),
        Metric(name="rationale_exact", title="exact", from_rows=Texts.exact),
        Metric(
            name="matching",
            title="fits its transcript",
            from_corpus=own_match,
            needs_transcripts=True,
            tables=_RATIONALES,
        ),
        Metric(
            name="verbatim_from_training",
            title="copied from training",
            from_corpus=Texts.copied,
            higher_is_better=False,
            tables=_RATIONALES,
        ),
        _distinct(1),
        _distinct(2),
        Metric(
            name="length",
            title="length",
            from_rows=lambda texts: lengths(texts.hypotheses),
            higher_is_better=None,
            tables=_RATIONALES,
        ),
        Metric(
            name="length_gold",
            title="reference's length",
            from_corpus=lambda texts: float(lengths(texts.references).mean()),
            higher_is_better=None,
            tables=(),
        ),
    )
}
"""By name, in the order of tables."""


# ---------------------------------------------------------------------- all metrics at once


def sentiment_metrics(gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """Returns `n`, every metric of labels, and `f1` of each label that occurs; without rows only `n`.

    Raises:
        ValueError: Where the lengths differ, or a label is not in `labels`.
    """
    if len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} gold labels but {len(predicted)} predicted labels")
    for field, values in (("label", gold), ("predicted_label", predicted)):
        check_labels(((str(i), value) for i, value in enumerate(values)), field=field, labels=labels)
    if not gold:
        return {"n": 0}
    confusion = confusion_matrix(gold, predicted, labels)
    used = {*gold, *predicted}
    f1 = zip(labels, label_f1(confusion).tolist(), strict=True)
    return {
        "n": len(gold),
        **label_metrics(confusion),
        "f1": {label: value for label, value in f1 if label in used},
    }


def label_metrics(confusion: Array) -> dict[str, float]:
    """Returns every metric of labels of a confusion matrix `[c, c]`."""
    return {
        metric.name: float(metric.from_confusion(confusion))
        for metric in METRICS.values()
        if metric.from_confusion is not None
    }


def rationale_metrics(
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    languages: Sequence[str | None] | None = None,
    training: Collection[str] = (),
    bertscore: BertScore | None = None,
    transcripts: Sequence[str | None] | None = None,
    labels: Sequence[str | None] | None = None,
) -> dict[str, float]:
    """Returns every metric of rationales that can be computed from these `Texts`; `{}` without rows."""
    texts = Texts(
        references,
        hypotheses,
        languages=languages,
        training=training,
        bertscore=bertscore,
        transcripts=transcripts,
        labels=labels,
    )
    if not references:
        return {}
    values = {metric.name: metric.of_texts(texts) for metric in metrics_of("rationale")}
    return {name: value for name, value in values.items() if value is not None}


RationaleMetrics = Callable[..., dict[str, float]]
"""`rationale_metrics`, or it with some of its keywords given."""


def check_labels(values: Iterable[tuple[str, str | None]], *, field: str, labels: Sequence[str]) -> None:
    """Raises ValueError where a value of the (row id, value) pairs is neither None nor one of `labels`."""
    for row, value in values:
        if value is not None and value not in labels:
            raise ValueError(f"row {row!r}: {field} {value!r} is not one of {', '.join(map(repr, labels))}")


def has_text(value: str | None) -> bool:
    """Returns whether a cell holds more than white space."""
    return bool(value and value.strip())

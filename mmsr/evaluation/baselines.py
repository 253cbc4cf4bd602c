"""Trivial baselines, the rows that every table of results carries (DESIGN.md §6).

`majority` says the training split's most frequent label. `tfidf` knows the transcript's words only,
`tfidf_asr` those of the ASR transcript.
`constant_rationale` repeats the training split's most frequent rationale, so a rationale model must beat it
to have explained anything.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from mmsr.evaluation.entries import evaluate_rows
from mmsr.evaluation.metrics import RationaleMetrics, check_labels, rationale_metrics
from mmsr.evaluation.rationales import UnicodeTokenizer
from mmsr.records import Prediction, Utterance


def baselines(
    train_rows: Sequence[Utterance],
    test_rows: Sequence[Utterance],
    *,
    labels: Sequence[str],
    predicted_labels: Mapping[str, str] | None = None,
    rationales: RationaleMetrics = rationale_metrics,
) -> dict[str, dict[str, Any]]:
    """Returns an entry (see `entries.evaluate_rows`) for each baseline that can be had.

    - `majority`: the most frequent label of `train_rows`.
    - `constant_rationale`: for each row of `predicted_labels` ({id: label the evaluated model predicts}), the
      most frequent rationale of `train_rows` for that label in the row's language (in any language where
      there is none, an empty text where the label has none); its label figures are the model's own.
    - `constant_rationale_oracle`: the same for the true label; it has no label figures.
    - `tfidf`: TF-IDF over words (1 to 3) and characters within words (2 to 5), with logistic regression, on
      `text`; left out where the training rows have no text or fewer than two labels.
    - `tfidf_asr`: the same, trained and tested on `asr_text`, beside the conditions that read it.

    Ties go to the alphabetically first. An entry's `n` is the number of test rows that the baseline can
    answer. Texts are split by `rationales.UnicodeTokenizer`. `rationales` computes the metrics of rationales.

    Raises:
        ValueError: Where a label is not in `labels`; names the row.
    """
    check_labels(((str(row.id), row.label) for row in train_rows), field="label", labels=labels)
    entries = {}
    known = [row.label for row in train_rows if row.label is not None]
    if known:
        majority = _most_frequent(known)
        entries["majority"] = evaluate_rows(
            [Prediction.of(row, predicted_label=majority) for row in test_rows], labels
        )
    answered = [
        Prediction.of(row, predicted_label=predicted_labels[str(row.id)])
        for row in test_rows
        if predicted_labels is not None and row.id in predicted_labels
    ]
    if rows := constant_rationales(train_rows, answered):
        entries["constant_rationale"] = evaluate_rows(rows, labels, rationales=rationales)
    told = [Prediction.of(row, predicted_label=row.label) for row in test_rows]
    if rows := [replace(row, predicted_label=None) for row in constant_rationales(train_rows, told)]:
        entries["constant_rationale_oracle"] = evaluate_rows(rows, labels, rationales=rationales)
    for name, column in (("tfidf", "text"), ("tfidf_asr", "asr_text")):
        if answered_rows := _tfidf(train_rows, test_rows, column):
            entries[name] = evaluate_rows(answered_rows, labels)
    return entries


def constant_rationales(
    train_rows: Sequence[Utterance], predictions: Sequence[Prediction]
) -> list[Prediction]:
    """Returns predictions with the constant rationale of their label (`constant_rationale` above).

    There are none where no training row has a rationale.
    """
    groups: dict[tuple[str | None, ...], list[str]] = {}
    for row in train_rows:
        if row.label is not None and row.rationale is not None and row.has("rationale"):
            groups.setdefault((row.label, row.language), []).append(row.rationale)
            groups.setdefault((row.label,), []).append(row.rationale)  # in any language
    constants = {key: _most_frequent(rationales) for key, rationales in groups.items()}
    found = []
    for prediction in predictions:
        if constants and (label := prediction.predicted_label) is not None:
            text = constants.get((label, prediction.language), constants.get((label,), ""))
            found.append(replace(prediction, predicted_rationale=text))
    return found


def tfidf_classifier(fields: int = 1) -> Any:
    """Logistic regression on tuples of so many texts, by the TF-IDF of words and of characters within them.

    Words are counted by 1 to 3, characters by 2 to 5, those of each text apart.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    counted = []
    for field in range(fields):
        read = partial(_words_of, field=field)
        words = TfidfVectorizer(
            analyzer="word", ngram_range=(1, 3), preprocessor=read, tokenizer=str.split, token_pattern=None
        )
        counted += [words, TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), preprocessor=read)]
    return make_pipeline(make_union(*counted), LogisticRegression(max_iter=1000))


def _tfidf(train_rows: Sequence[Utterance], test_rows: Sequence[Utterance], column: str) -> list[Prediction]:
    train = [row for row in train_rows if row.label is not None and _words(getattr(row, column))]
    test = [row for row in test_rows if _words(getattr(row, column))]
    if len({row.label for row in train}) < 2 or not test:
        return []
    model = tfidf_classifier()
    model.fit([(getattr(row, column),) for row in train], [row.label for row in train])
    predicted = model.predict([(getattr(row, column),) for row in test])
    return [
        Prediction.of(row, predicted_label=str(label)) for row, label in zip(test, predicted, strict=True)
    ]


def _words_of(texts: Sequence[str], *, field: int) -> str:
    return _words(texts[field]) or "-"  # a vocabulary may not be empty, where no row has this text


def _words(text: str | None) -> str:
    return " ".join(UnicodeTokenizer().tokenize(text or ""))


def _most_frequent(values: Iterable[str]) -> str:
    return min(Counter(values).items(), key=lambda item: (-item[1], item[0]))[0]

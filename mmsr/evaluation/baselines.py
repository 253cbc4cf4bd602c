"""Trivial baselines, as in every table of results (DESIGN.md §6)."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from mmsr.evaluation.entries import differences, evaluate_rows
from mmsr.evaluation.metrics import RationaleMetrics, check_labels, rationale_metrics
from mmsr.evaluation.rationales import UnicodeTokenizer
from mmsr.languages import language_code
from mmsr.records import Prediction, Utterance


def baselines(
    train_rows: Sequence[Utterance],
    test_rows: Sequence[Utterance],
    *,
    labels: Sequence[str],
    predictions: Sequence[Prediction] = (),
    rationales: RationaleMetrics = rationale_metrics,
) -> dict[str, dict[str, Any]]:
    """Returns an entry (see `entries.evaluate_rows`) of each baseline that can be computed.

    - `majority`: the most frequent label of `train_rows`.
    - `constant_rationale`: for each of `predictions` (the model's), the most frequent rationale of
      `train_rows` for the predicted label in the row's language (else in any language, else an empty text);
      its metrics of labels are the model's. A rationale model must beat it.
    - `constant_rationale_oracle`: the same for the true label, without metrics of labels.
    - `tfidf`: TF-IDF of words (1 to 3) and of characters within words (2 to 5), with logistic regression, on
      `text`; left out where the training rows have no text or fewer than two labels.
    - `tfidf_asr`: the same on `asr_text`.

    Ties go to the alphabetically first. An entry's `n` is the number of test rows that the baseline answers,
    and its `difference` that from `predictions` (see `entries.differences`), where there are any.
    `rationales` computes the metrics of rationales.

    Raises:
        ValueError: A label is not in `labels`; names the row.
    """
    check_labels(((str(row.id), row.label) for row in train_rows), field="label", labels=labels)
    test_ids = {str(row.id) for row in test_rows}
    answers: dict[str, list[Prediction]] = {}
    if known := [row.label for row in train_rows if row.label is not None]:
        majority = _most_frequent(known)
        answers["majority"] = [Prediction.of(row, predicted_label=majority) for row in test_rows]
    answers["constant_rationale"] = constant_rationales(
        train_rows, [row for row in predictions if row.id in test_ids]
    )
    oracle = [Prediction.of(row, predicted_label=row.label) for row in test_rows]
    answers["constant_rationale_oracle"] = [
        replace(row, predicted_label=None) for row in constant_rationales(train_rows, oracle)
    ]
    for name, column in (("tfidf", "text"), ("tfidf_asr", "asr_text")):
        answers[name] = _tfidf(train_rows, test_rows, column)
    entries = {}
    for name, rows in answers.items():
        if rows:
            entries[name] = evaluate_rows(rows, labels, rationales=rationales)
            if found := differences(rows, predictions):
                entries[name]["difference"] = found
    return entries


def constant_rationales(
    train_rows: Sequence[Utterance], predictions: Sequence[Prediction]
) -> list[Prediction]:
    """Returns predictions with the constant rationale of their label; none without training rationales."""
    groups: dict[tuple[str | None, ...], list[str]] = {}
    for row in train_rows:
        if row.label is not None and row.rationale is not None and row.has("rationale"):
            groups.setdefault((row.label, language_code(row.language)), []).append(row.rationale)
            groups.setdefault((row.label,), []).append(row.rationale)  # in any language
    constants = {key: _most_frequent(rationales) for key, rationales in groups.items()}
    found = []
    for prediction in predictions:
        if constants and (label := prediction.predicted_label) is not None:
            text = constants.get((label, language_code(prediction.language)), constants.get((label,), ""))
            found.append(replace(prediction, predicted_rationale=text))
    return found


def tfidf_classifier(fields: int = 1) -> Any:
    """Returns an untrained classifier of tuples of texts: logistic regression on `tfidf_features`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(tfidf_features(fields), LogisticRegression(max_iter=1000))


def tfidf_features(fields: int = 1) -> Any:
    """Returns the features of tuples of `fields` texts, not yet fitted.

    TF-IDF of n-grams of words (1 to 3) and of characters within words (2 to 5).
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    vectorizers = []
    for field in range(fields):
        read = partial(_words_of, field=field)
        words = TfidfVectorizer(
            analyzer="word", ngram_range=(1, 3), preprocessor=read, tokenizer=str.split, token_pattern=None
        )
        vectorizers += [words, TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), preprocessor=read)]
    return make_union(*vectorizers)


def _tfidf(train_rows: Sequence[Utterance], test_rows: Sequence[Utterance], column: str) -> list[Prediction]:
    def texts(rows: Sequence[Utterance]) -> list[tuple[str]]:
        return [(getattr(row, column),) for row in rows]

    train, test = (
        [row for row in rows if _words(getattr(row, column))]
        for rows in ([row for row in train_rows if row.label is not None], test_rows)
    )
    if len({row.label for row in train}) < 2 or not test:
        return []
    model = tfidf_classifier().fit(texts(train), [row.label for row in train])
    predicted = model.predict(texts(test)).tolist()
    return [Prediction.of(row, predicted_label=label) for row, label in zip(test, predicted, strict=True)]


def _words_of(texts: Sequence[str], *, field: int) -> str:
    return _words(texts[field]) or "-"  # a vocabulary may not be empty


def _words(text: str | None) -> str:
    return " ".join(UnicodeTokenizer().tokenize(text or ""))


def _most_frequent(values: Iterable[str]) -> str:
    return min(Counter(values).items(), key=lambda item: (-item[1], item[0]))[0]

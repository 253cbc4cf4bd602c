"""Trivial baselines, as in every table of results (DESIGN.md §6)."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from mmsr.evaluation.entries import differences, evaluate_rows
from mmsr.evaluation.metrics import RationaleMetrics, check_labels, rationale_metrics
from mmsr.evaluation.similarity import (
    NEIGHBOURS,
    Encode,
    ExplainedLabels,
    Neighbours,
    consensus,
    tfidf_encoder,
    tfidf_features,
    words_of,
)
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
    - `nearest_rationale`: the rationale of the training row with the nearest transcript by TF-IDF, among
      those of the predicted label in the row's language; both rows need a transcript.
    - `consensus_rationale`: of the rationales of the NEIGHBOURS nearest ones, the one most like all of them
      (`similarity.consensus`): what a memory of the training rows says without a decoder.
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
    predicted = [row for row in predictions if row.id in test_ids]
    answers["constant_rationale"] = constant_rationales(train_rows, predicted)
    answers |= retrieved_rationales(train_rows, test_rows, predicted)
    oracle = [Prediction.of(row, predicted_label=row.label) for row in test_rows]
    answers["constant_rationale_oracle"] = [
        replace(row, predicted_label=None) for row in constant_rationales(train_rows, oracle)
    ]
    for name, column in (("tfidf", "text"), ("tfidf_asr", "asr_text")):
        answers[name] = _tfidf(train_rows, test_rows, column)
    texts = {str(row.id): row.words for row in test_rows}
    entries = {}
    for name, rows in answers.items():
        if rows:
            entries[name] = evaluate_rows(rows, labels, rationales=rationales, transcripts=texts)
            if found := differences(rows, predictions):
                entries[name]["difference"] = found
    return entries


def constant_rationales(
    train_rows: Sequence[Utterance], predictions: Sequence[Prediction]
) -> list[Prediction]:
    """Returns predictions with the constant rationale of their label; none without training rationales."""
    known, groups = _explained(train_rows)
    constants: dict[tuple[str | None, ...] | None, str] = {None: ""}
    found = []
    for row in predictions:
        if not known or row.predicted_label is None:
            continue
        group = groups.group(row.predicted_label, row.language)
        if group is not None and group not in constants:
            constants[group] = _most_frequent([str(known[place].rationale) for place in groups.places(group)])
        found.append(replace(row, predicted_rationale=constants[group]))
    return found


def retrieved_rationales(
    train_rows: Sequence[Utterance],
    test_rows: Sequence[Utterance],
    predictions: Sequence[Prediction],
    *,
    number: int = NEIGHBOURS,
    encode: Encode | None = None,
) -> dict[str, list[Prediction]]:
    """Returns predictions with rationales of the nearest training rows of their label.

    Args:
        train_rows: Rows with transcripts and rationales.
        test_rows: The rows of the predictions, with their transcripts (`Utterance.words`).
        predictions: Whose labels are explained; those whose row has no transcript are left out.
        number: The neighbours from which the consensus is chosen.
        encode: Embeds transcripts; by default TF-IDF of the training rows of the label.

    Returns:
        `nearest_rationale` and `consensus_rationale` (see `baselines`).
    """
    known, groups = _explained([row for row in train_rows if words_of(row.text)])
    texts = {str(row.id): row.words for row in test_rows}
    asked: dict[tuple[str | None, ...], list[Prediction]] = {}
    for row in predictions:
        group = groups.group(row.predicted_label, row.language)
        if group is not None and words_of(texts[row.id]):
            asked.setdefault(group, []).append(row)
    found: dict[str, dict[str, Prediction]] = {"nearest_rationale": {}, "consensus_rationale": {}}
    for group, rows in asked.items():
        explained = [known[place] for place in groups.places(group)]
        said = [str(row.text) for row in explained]
        ranks = Neighbours(said, encode or tfidf_encoder(said)).ranked([str(texts[row.id]) for row in rows])
        for row, order in zip(rows, ranks, strict=True):
            near = [str(explained[place].rationale) for place in order[:number]]
            for name, place in (("nearest_rationale", 0), ("consensus_rationale", consensus(near))):
                found[name][row.id] = replace(row, predicted_rationale=near[place])
    return {name: [rows[row.id] for row in predictions if row.id in rows] for name, rows in found.items()}


def _explained(rows: Iterable[Utterance]) -> tuple[list[Utterance], ExplainedLabels]:
    """The rows with label and rationale, and their groups."""
    kept = [row for row in rows if row.label is not None and row.has("rationale")]
    return kept, ExplainedLabels([str(row.label) for row in kept], [row.language for row in kept])


def tfidf_classifier(fields: int = 1) -> Any:
    """Returns an untrained classifier of tuples of texts: logistic regression on `tfidf_features`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    return make_pipeline(tfidf_features(fields), LogisticRegression(max_iter=1000))


def _tfidf(train_rows: Sequence[Utterance], test_rows: Sequence[Utterance], column: str) -> list[Prediction]:
    def texts(rows: Sequence[Utterance]) -> list[tuple[str]]:
        return [(getattr(row, column),) for row in rows]

    train, test = (
        [row for row in rows if words_of(getattr(row, column))]
        for rows in ([row for row in train_rows if row.label is not None], test_rows)
    )
    if len({row.label for row in train}) < 2 or not test:
        return []
    model = tfidf_classifier().fit(texts(train), [row.label for row in train])
    predicted = model.predict(texts(test)).tolist()
    return [Prediction.of(row, predicted_label=label) for row, label in zip(test, predicted, strict=True)]


def _most_frequent(values: Iterable[str]) -> str:
    return min(Counter(values).items(), key=lambda item: (-item[1], item[0]))[0]

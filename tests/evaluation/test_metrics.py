import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, recall_score

from mmsr.cli.main import main
from mmsr.data.corpora import CORPORA
from mmsr.evaluation.compare import System, compare
from mmsr.evaluation.entries import evaluate_rows
from mmsr.evaluation.metrics import (
    METRICS,
    Metric,
    confusion_matrix,
    label_metrics,
    metrics_of,
    sentiment_metrics,
)
from mmsr.evaluation.provenance import Provenance
from mmsr.evaluation.rationales import lengths
from mmsr.evaluation.report.run import conditions_table
from mmsr.evaluation.run import evaluate, write_run
from mmsr.records import Answer

LABELS = ["negative", "neutral", "positive"]


def test_sentiment_metrics_by_hand() -> None:
    gold = ["negative", "negative", "neutral", "positive"]
    predicted = ["negative", "neutral", "neutral", "positive"]
    figures = sentiment_metrics(gold, predicted, LABELS)
    assert figures["n"] == 4
    assert figures["accuracy"] == 0.75
    assert figures["f1"] == pytest.approx({"negative": 2 / 3, "neutral": 2 / 3, "positive": 1.0})
    assert figures["macro_f1"] == pytest.approx(7 / 9)
    assert figures["uar"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert figures["weighted_f1"] == pytest.approx((2 * 2 / 3 + 2 / 3 + 1) / 4)


def test_weighted_f1_is_scikit_learns() -> None:
    gold, predicted = ["negative"] * 3 + ["neutral"], ["negative", "positive", "negative", "negative"]
    weighted = f1_score(gold, predicted, average="weighted", zero_division=0.0)
    assert sentiment_metrics(gold, predicted, LABELS)["weighted_f1"] == pytest.approx(weighted)


def test_protocols_name_only_known_metrics() -> None:
    protocols = [protocol for corpus in CORPORA.values() for protocol in corpus.protocols.values()]
    named = {metric for protocol in protocols for metric in protocol.metrics}
    assert "weighted_f1" in named and named <= set(METRICS)


def test_every_metric_but_those_with_material_of_their_own_is_in_an_entry(prediction) -> None:
    entry = evaluate_rows([prediction("a", rationale="calm voice", predicted_rationale="calm voice")], LABELS)
    absent = {name for name in METRICS if name not in entry}
    special = {name for name, known in METRICS.items() if known.needs_encoder or known.needs_transcripts}
    assert absent == {"verbatim_from_training", *special}


def test_many_confusion_matrices_at_once_have_scikit_learns_values() -> None:
    generator = np.random.default_rng(0)
    gold, predicted = generator.choice(LABELS[:2], (2, 20, 7)), generator.choice(LABELS, (2, 20, 7))
    matrices = np.array(
        [[confusion_matrix(gold[i, j], predicted[i, j], LABELS) for j in range(20)] for i in range(2)]
    )
    expected = {
        "accuracy": accuracy_score,
        "macro_f1": lambda g, p: f1_score(g, p, average="macro"),
        "macro_f1_present": lambda g, p: f1_score(g, p, average="macro", labels=sorted(set(g))),
        "weighted_f1": lambda g, p: f1_score(g, p, average="weighted"),
        "uar": lambda g, p: recall_score(g, p, average="macro", labels=sorted(set(g)), zero_division=0.0),
    }
    assert {metric.name for metric in metrics_of("label")} == set(expected)
    for name, score in expected.items():
        values = METRICS[name].from_confusion(matrices)
        assert values.shape == (2, 20)
        for place in np.ndindex(2, 20):
            assert values[place] == pytest.approx(score(gold[place], predicted[place])), name


def test_of_no_rows_every_metric_of_labels_is_zero() -> None:
    names = (metric.name for metric in metrics_of("label"))
    assert label_metrics(np.zeros((3, 3))) == dict.fromkeys(map(str, names), 0)


def test_a_metric_of_one_record_is_in_metrics_json_comparisons_and_reports(
    utterance, tmp_path, monkeypatch, capsys
) -> None:
    toys = [
        Metric(
            name="toy_recall",
            title="toy recall",
            from_confusion=lambda c: c[..., 0, 0] / np.maximum(c[..., 0, :].sum(-1), 1),
        ),
        Metric(name="toy_words", title="toy words", from_rows=lambda texts: lengths(texts.hypotheses)),
    ]
    for toy in toys:
        monkeypatch.setitem(METRICS, toy.name, toy)
    rows = [
        utterance(f"r{i}", label=LABELS[i % 2], text=f"words {i}", rationale="it is said") for i in range(12)
    ]

    def predict(right: int):
        def answer(i: int) -> Answer:
            label = LABELS[i % 2 if i < right else 2]
            return Answer(label=label, score=1.0, scores={label: 1.0}, rationale="said " * (1 + right % 3))

        return lambda inputs: [answer(int(given.text.split()[1])) for given in inputs]

    for name, right in (("a", 10), ("b", 6)):
        metrics, predictions = evaluate(predict(right), rows, labels=LABELS)
        document = write_run(
            tmp_path / name,
            {"test": metrics},
            predictions,
            provenance=Provenance(seed=0, data_fingerprint="f", command="c", seconds=0),
        )
    entry = document["test"]["text"]
    assert (entry["toy_recall"], entry["toy_words"]) == (0.5, 1.0)
    (comparison,), _ = compare([System.parse(str(tmp_path / name)) for name in "ab"], metric="toy_recall")
    assert comparison.difference == pytest.approx(5 / 6 - 0.5)
    main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--metric", "toy_words", "--json"])
    assert json.loads(capsys.readouterr().out)["difference"] == pytest.approx(2 - 1)
    _, _, head, _, line = conditions_table(document).splitlines()
    shown = dict(zip(head.split(" | "), line.split(" | "), strict=True))
    assert shown["toy recall"] == "0.500" and shown["toy words |"] == "1.000 |"


def test_a_metric_is_of_labels_or_of_rationales() -> None:
    with pytest.raises(ValueError, match="'both' is computed from labels or from rationales, one of the two"):
        Metric(name="both", title="both", from_confusion=np.sum, from_rows=len)
    with pytest.raises(ValueError, match="'none' is computed"):
        Metric(name="none", title="none")
    assert [metric.kind for metric in METRICS.values()] == ["label"] * 5 + ["rationale"] * (len(METRICS) - 5)


def test_macro_f1_is_over_the_labels_that_occur_and_uar_over_the_gold_ones() -> None:
    gold, predicted = ["negative", "negative"], ["negative", "neutral"]
    figures = sentiment_metrics(gold, predicted, LABELS)
    assert figures["f1"] == pytest.approx({"negative": 2 / 3, "neutral": 0.0})
    assert (
        figures["macro_f1"]
        == pytest.approx(f1_score(gold, predicted, average="macro"))
        == pytest.approx(1 / 3)
    )
    assert figures["uar"] == 0.5
    gold, predicted = [*gold, "neutral"], [*predicted, "neutral"]
    assert sentiment_metrics(gold, predicted, LABELS)["uar"] == balanced_accuracy_score(gold, predicted)


def test_sentiment_metrics_of_nothing_are_only_n() -> None:
    assert sentiment_metrics([], [], LABELS) == {"n": 0}


def test_lengths_that_differ_raise() -> None:
    with pytest.raises(ValueError, match="1 gold labels but 2 predicted labels"):
        sentiment_metrics(["neutral"], ["neutral"] * 2, LABELS)


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, mmsr\n"
        "before = set(sys.modules)\n"
        "import mmsr.evaluation.metrics, mmsr.evaluation.report\n"
        "heavy = {'torch', 'lightning', 'matplotlib', 'librosa', 'jinja2', 'mmsr.model', 'mmsr.data'}\n"
        "print(sorted(heavy & (set(sys.modules) - before)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"

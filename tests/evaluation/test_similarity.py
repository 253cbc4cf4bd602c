import numpy as np
import pytest
import torch

from mmsr.evaluation.metrics import rationale_metrics
from mmsr.evaluation.similarity import Neighbours, consensus, rouge_l, tfidf_encoder

TEXTS = [
    "mô tả khách quan",
    "mô tả lợi ích",
    "他对我很好",
    "",
    "Objective, description!",
    "objective description of it",
]


def test_rouge_l_of_pairs_is_the_metric_s():
    scores = rouge_l(TEXTS, TEXTS[::-1])
    expected = [
        [rationale_metrics([text], [other])["rougeL"] if text or other else 0.0 for other in TEXTS[::-1]]
        for text in TEXTS
    ]
    np.testing.assert_allclose(scores, expected, atol=1e-12)
    assert rouge_l(["a b"], ["B A"])[0, 0] == pytest.approx(0.5), "order counts, case does not"


def test_the_consensus_is_most_like_all_and_the_first_of_equals():
    assert consensus(["good news of it", "bad", "good news", "good news today"]) == 2
    assert consensus(["one", "two", "three"]) == 0
    assert consensus(["one", "two", "two"]) == 1, "a candidate that was drawn twice counts twice"


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_neighbours_of_any_encoder_are_ranked_and_equal_ones_keep_their_order(kind):
    vectors = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [1.0, 0.0], "q": [0.8, 0.6]}
    neighbours = Neighbours(["b", "a", "c"], lambda texts: kind([vectors[text] for text in texts]))
    assert neighbours.ranked(["q", "b"]).tolist() == [[1, 2, 0], [0, 1, 2]]


def test_neighbours_by_tfidf_share_words():
    known = ["the pain is terrible", "a wonderful doctor", "the room is white"]
    ranked = Neighbours(known, tfidf_encoder(known)).ranked(["wonderful doctors", "terrible pains"])
    assert ranked[:, 0].tolist() == [1, 0]

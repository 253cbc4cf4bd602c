"""BERTScore with local encoders: a tiny one made here, and a real one where it is at hand."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertModel

pytest.importorskip("bert_score", reason="BERTScore needs bert-score: pip install 'mmsr[report]'")

from mmsr.evaluation.bertscore import BertScorer

PAIRS = [
    ("the voice is upset", "the words are kind and loud"),
    ("the voice is calm", "the voice is calm"),
    ("words are kind", "is kind"),
]


def from_the_paper(folder: Path, reference: str, hypothesis: str, *, layer: int) -> list[float]:
    """Equations 1 and 2 of the paper, for one pair; [CLS] and [SEP] may be matched, but weigh nothing."""
    model = BertModel.from_pretrained(folder, dtype=torch.float32).eval()
    words = AutoTokenizer.from_pretrained(folder).get_vocab()

    def states(text: str) -> torch.Tensor:
        ids = torch.tensor([[words["[CLS]"], *(words[word] for word in text.split()), words["[SEP]"]]])
        with torch.no_grad():
            hidden = model(ids, output_hidden_states=True).hidden_states[layer][0]
        return hidden / hidden.norm(dim=-1, keepdim=True)

    cosines = states(reference) @ states(hypothesis).T
    recall = cosines.max(dim=1).values[1:-1].mean().item()
    precision = cosines.max(dim=0).values[1:-1].mean().item()
    return [precision, recall, 2 * precision * recall / (precision + recall)]


@pytest.mark.parametrize("layer", [None, 1, 2])
def test_it_is_the_papers(text_encoder: Path, layer: int | None) -> None:
    scorer = BertScorer(text_encoder, layer=layer, batch_size=2)
    scores = scorer(*zip(*PAIRS, strict=True))
    expected = [from_the_paper(text_encoder, *pair, layer=layer or 3) for pair in PAIRS]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_allclose(scores[1], 1.0, atol=1e-5)
    assert scores[0].max() < 0.99
    assert scorer.settings["layer"] == (layer or 3) and scorer.settings["model"] == text_encoder.name


def test_empty_texts_score_nothing_and_change_nothing(text_encoder: Path) -> None:
    scorer = BertScorer(text_encoder)
    (reference, hypothesis) = PAIRS[0]
    scores = scorer([reference, reference, ""], [hypothesis, " ", hypothesis])
    assert (scores[1:] == 0).all()
    np.testing.assert_allclose(scores[0], BertScorer(text_encoder)([reference], [hypothesis])[0], atol=1e-6)
    assert scorer([], []).shape == (0, 3)


def test_a_pair_is_scored_once(text_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = BertScorer(text_encoder)
    first = scorer(*zip(*PAIRS, strict=True))
    monkeypatch.setattr("bert_score.utils.bert_cos_score_idf", None)
    np.testing.assert_array_equal(scorer(*zip(*PAIRS[::-1], strict=True)), first[::-1])


def test_what_cannot_be_had_is_named(text_encoder: Path, tmp_path: Path) -> None:
    accepted = f"{text_encoder} has no layer 4; accepted: 1 to 3"
    with pytest.raises(ValueError, match=f"^BERTScore encoder {re.escape(accepted)}$"):
        BertScorer(text_encoder, layer=4)
    with pytest.raises(ValueError, match="has no layer -1; accepted"):
        BertScorer(text_encoder, layer=-1)
    with pytest.raises(ValueError, match="cannot be read .*accepted: a folder or Hub id") as error:
        BertScorer(tmp_path)
    assert "\n" not in str(error.value)


def test_a_real_encoder_reads_what_is_meant(shared_models: Path) -> None:
    scorer = BertScorer(shared_models / "multilingual-e5-small-30k")
    same, near, far = scorer(
        ["the patient is very angry"] * 3,
        ["the patient is very angry", "the patient is furious", "the chair is made of wood"],
    )[:, 2]
    assert same == pytest.approx(1.0, abs=1e-4) and same > near > far
    assert scorer.settings["layer"] == 12

"""BERTScore with local encoders: a tiny one made here, and a real one where it is at hand."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

pytest.importorskip("bert_score", reason="BERTScore needs bert-score: pip install 'mmsr[report]'")

from mmsr.evaluation.bertscore import BertScorer

WORDS = "[PAD] [UNK] [CLS] [SEP] the voice is upset calm words are kind and loud".split()
PAIRS = [
    ("the voice is upset", "the words are kind and loud"),
    ("the voice is calm", "the voice is calm"),
    ("words are kind", "is kind"),
]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a text encoder of three layers, in half precision as many are published."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.5,  # as it is by default, such a model sees hardly a difference between words
    )
    BertModel(config).half().save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    return folder


def from_the_paper(folder: Path, reference: str, hypothesis: str, *, layer: int) -> list[float]:
    """Equations 1 and 2 of the paper, for one pair; [CLS] and [SEP] may be matched, but weigh nothing."""
    model = BertModel.from_pretrained(folder, dtype=torch.float32).eval()

    def states(text: str) -> torch.Tensor:
        ids = torch.tensor([[2, *(WORDS.index(word) for word in text.split()), 3]])
        with torch.no_grad():
            hidden = model(ids, output_hidden_states=True).hidden_states[layer][0]
        return hidden / hidden.norm(dim=-1, keepdim=True)

    cosines = states(reference) @ states(hypothesis).T
    recall = cosines.max(dim=1).values[1:-1].mean().item()
    precision = cosines.max(dim=0).values[1:-1].mean().item()
    return [precision, recall, 2 * precision * recall / (precision + recall)]


@pytest.mark.parametrize("layer", [None, 1, 2])
def test_it_is_the_papers(encoder: Path, layer: int | None) -> None:
    scorer = BertScorer(encoder, layer=layer, batch_size=2)
    scores = scorer(*zip(*PAIRS, strict=True))
    expected = [from_the_paper(encoder, *pair, layer=layer or 3) for pair in PAIRS]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_allclose(scores[1], 1.0, atol=1e-5)
    assert scores[0].max() < 0.99
    assert scorer.settings["layer"] == (layer or 3) and scorer.settings["model"] == encoder.name


def test_empty_texts_score_nothing_and_change_nothing(encoder: Path) -> None:
    scorer = BertScorer(encoder)
    (reference, hypothesis) = PAIRS[0]
    scores = scorer([reference, reference, ""], [hypothesis, " ", hypothesis])
    assert (scores[1:] == 0).all()
    np.testing.assert_allclose(scores[0], BertScorer(encoder)([reference], [hypothesis])[0], atol=1e-6)
    assert scorer([], []).shape == (0, 3)


def test_a_pair_is_scored_once(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = BertScorer(encoder)
    first = scorer(*zip(*PAIRS, strict=True))
    monkeypatch.setattr(scorer, "_score", None)
    np.testing.assert_array_equal(scorer(*zip(*PAIRS[::-1], strict=True)), first[::-1])


def test_what_cannot_be_had_is_named(encoder: Path, tmp_path: Path) -> None:
    accepted = f"{encoder} has no layer 4; accepted: 1 to 3"
    with pytest.raises(ValueError, match=f"^BERTScore encoder {re.escape(accepted)}$"):
        BertScorer(encoder, layer=4)
    with pytest.raises(ValueError, match="has no layer -1; accepted"):
        BertScorer(encoder, layer=-1)
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

"""Where tokens stand in a transcript, whether its tokenizer is fast or slow."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer, BertTokenizer, BertTokenizerLegacy, PhobertTokenizer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from mmsr.model.alignment import aligned, token_spans
from mmsr.model.processing import MmsrProcessor

TEXTS = (
    "The doctor, was kind.",
    "  Unkindly he  looked\taway ...",
    "🙂 so kind[SEP]",
    "Très déçue: naïve",
    "医生 很好。",
    "kind",
    "...",
)
PIECES = "the doctor was kind un ##kind ##ly he look ##ed away so tres dec ##ue na ##ive : , . 医 生 好"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES.split()]


@pytest.fixture
def vocabulary(tmp_path: Path) -> str:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return str(path)


def with_tokenizer(processor: MmsrProcessor, tokenizer: PreTrainedTokenizerBase) -> MmsrProcessor:
    return MmsrProcessor(processor.feature_extractor, tokenizer, text_prefix=processor.text_prefix)


@pytest.mark.parametrize("prefix", ["", "so: "])
@pytest.mark.parametrize("text", TEXTS)
def test_a_slow_tokenizer_has_its_fast_twin_s_places(
    processor: MmsrProcessor, vocabulary: str, text: str, prefix: str
):
    """Case, accents, unknown words, spaces and a special token's spelling among the words."""
    processor.text_prefix = prefix
    fast = with_tokenizer(processor, BertTokenizer(vocabulary))
    slow = with_tokenizer(processor, BertTokenizerLegacy(vocabulary))
    assert fast.tokenizer.is_fast and not slow.tokenizer.is_fast
    assert slow(text=[text])["input_ids"] == fast(text=[text])["input_ids"]
    if "[SEP]" not in text:  # the places of unknown tokens side by side are not known
        assert slow.token_spans(text) == fast.token_spans(text)
    assert slow.word_tokens(text) == fast.word_tokens(text)
    words = fast.word_tokens(text)
    assert "".join(text.split()) == "".join(word.word for word in words)
    assert all(text[word.start : word.end] == word.word for word in words)
    places = [position for word in words for position in word.positions]
    ids = fast(text=[text])["input_ids"][0]
    before = len(fast.tokenizer(prefix, add_special_tokens=False)["input_ids"])
    assert places == list(range(1 + before, len(ids) - 1))


@pytest.mark.parametrize("side", ["right", "left"])
def test_what_is_cut_off_has_no_word(processor: MmsrProcessor, vocabulary: str, side: str):
    text = "the doctor was so kind"
    found = []
    for kind in (BertTokenizer, BertTokenizerLegacy):
        own = with_tokenizer(processor, kind(vocabulary, model_max_length=5, truncation_side=side))
        assert len(own.token_spans(text)) == len(own(text=[text])["input_ids"][0]) == 5
        found.append([word.word for word in own.word_tokens(text)])
    assert found[0] == found[1] == (["the", "doctor", "was"] if side == "right" else ["was", "so", "kind"])


@pytest.fixture
def phobert(tmp_path: Path) -> PhobertTokenizer:
    """A tokenizer as PhoBERT's, which exists in Python alone, from a folder."""
    (tmp_path / "vocab.txt").write_text("bác 9\ns@@ 8\nĩ 7\nrất 6\nt@@ 5\nốt 4\n", encoding="utf-8")
    (tmp_path / "bpe.codes").write_text("á c</w> 9\nb ác</w> 8\nr ấ 7\nrấ t</w> 6\nố t</w> 5\n", "utf-8")
    PhobertTokenizer(str(tmp_path / "vocab.txt"), str(tmp_path / "bpe.codes")).save_pretrained(tmp_path / "t")
    return AutoTokenizer.from_pretrained(tmp_path / "t")


def test_words_of_phobert_are_whole(processor: MmsrProcessor, phobert: PhobertTokenizer):
    assert not phobert.is_fast
    own = with_tokenizer(processor, phobert)
    text = "bác sĩ@@  rất tốt 🙂"
    assert phobert.tokenize(text) == [
        *("bác", "s@@", "ĩ@@", "@@@", "@", "rất", "t@@", "ốt", "🙂")
    ]  # the marks of two pieces, and signs of the text
    assert own.token_spans(text)[1:-1] == [
        *((0, 3), (4, 5), (5, 6), (6, 7), (7, 8), (10, 13), (14, 15), (15, 17), (18, 19))
    ]
    assert [word.word for word in own.word_tokens(text)] == text.split()


def test_given_words_share_out_all_that_stands_between_them(processor: MmsrProcessor, vocabulary: str):
    own = with_tokenizer(processor, BertTokenizer(vocabulary))
    text = "The doctor, was kind."
    found = own.word_tokens(text, [(4, 10), (12, 15)])
    assert [word.word for word in found] == ["doctor", "was"]
    assert [word.positions for word in found] == [(1, 2), (3, 4, 5, 6)]
    assert own.word_tokens(text, []) == []


@pytest.mark.parametrize(
    ("tokens", "text", "spans"),
    [
        (["▁", "医生", "很"], "医生 很", [(0, 0), (0, 2), (3, 4)]),
        (["ﬁ", "sh"], "Fish", [(0, 2), (2, 4)]),
        (["bác"], "ba\u0301c", [(0, 4)]),
        (["sĩ"], "si\u0303 ", [(0, 3)]),
        (["🙂", "🙂", "x"], "🙂 x", [(0, 1), (0, 1), (2, 3)]),
        (["Ã", "¡", "b"], "áb", [(0, 1), (0, 1), (1, 2)]),
        (["<unk>", "b", "<unk>"], "a b c", [(0, 2), (2, 3), (3, 5)]),
        ([], "a", []),
    ],
)
def test_tokens_are_found_in_their_order(tokens, text, spans):
    assert aligned(tokens, text) == spans


def characters(text: str) -> list[str]:
    return list(text)


def test_a_tokenizer_that_reads_across_spaces_is_aligned_as_a_whole(
    vocabulary: str, monkeypatch: pytest.MonkeyPatch
):
    tokenizer = BertTokenizerLegacy(vocabulary)
    tokenize: Callable[[str], list[str]] = characters
    monkeypatch.setattr(tokenizer, "_tokenize", tokenize)
    assert token_spans(tokenizer, "a b")[1:-1] == [(0, 1), (1, 2), (2, 3)]

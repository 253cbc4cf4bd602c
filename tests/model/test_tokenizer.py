import pytest

from mmsr.model.processing import MmsrProcessor
from mmsr.model.tokenizer import SPECIAL_TOKENS, label_token


def test_special_tokens_come_first_and_training_is_reproducible(trained_processor: MmsrProcessor):
    texts = ["the doctor was very kind to me", "nobody listened and I am angry"] * 3
    first, second = (MmsrProcessor.train(texts, labels=["bad", "good"], vocab_size=320) for _ in range(2))
    assert first.tokenizer.get_vocab() == second.tokenizer.get_vocab()
    tokens = [*SPECIAL_TOKENS, label_token("bad"), label_token("good")]
    assert first.tokenizer.convert_tokens_to_ids(tokens) == list(range(7))
    assert first.label_token_ids == [5, 6]
    assert len(first.tokenizer) <= 320 and len(trained_processor.tokenizer) <= 340
    assert not first.feature_extractor.do_normalize


@pytest.mark.parametrize("vocab_size", [100, 264, 265])
def test_a_vocabulary_too_small_for_bytes_and_letters_raises(vocab_size: int):
    texts = ["the doctor was kind", "谢谢 😡"] * 5
    with pytest.raises(ValueError, match=f"vocab_size={vocab_size} .* accepted: at least (.*)") as raised:
        MmsrProcessor.train(texts, vocab_size=vocab_size)
    least = int(str(raised.value).split()[-1])
    assert len(MmsrProcessor.train(texts, vocab_size=least).tokenizer) <= least


def test_nothing_to_train_on_raises():
    with pytest.raises(ValueError, match="no text to train the tokenizer on"):
        MmsrProcessor.train(["", "  "], vocab_size=400)

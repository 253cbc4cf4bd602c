"""Training a tokenizer for transcripts and rationales, and the tokens of labels.

texts ─► NFC ─► words and punctuation ─► byte-pair encoding, with a token for each byte
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence

from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
"""The first tokens of a tokenizer trained here, in the order of their ids (as XLM-R's)."""
_BYTES = 256


def label_token(label: str) -> str:
    """The decoder's special token of a label."""
    return f"<|{label}|>"


def train_tokenizer(
    texts: Iterable[str], *, labels: Sequence[str], vocab_size: int, max_text_tokens: int
) -> PreTrainedTokenizerFast:
    """Train a tokenizer by byte-pair encoding; unknown characters are written in bytes.

    Args:
        texts: What to train on; equal texts give equal tokenizers.
        labels: Label names, each of which gets a special token.
        vocab_size: Most tokens of the vocabulary, special tokens and bytes included.
        max_text_tokens: Longest text in tokens.

    Raises:
        ValueError: The texts are empty, or `vocab_size` is too small for the bytes, the special tokens and
            the texts' characters.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    label_tokens = [label_token(label) for label in labels]
    special = [*SPECIAL_TOKENS, *label_tokens]
    texts = list(texts)
    _check_vocab_size(vocab_size, texts, special)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation("isolated")]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - _BYTES, special_tokens=special, min_frequency=2, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    # the trainer has no byte fallback: copy what it learned into a model that has it
    learned = json.loads(tokenizer.to_str())["model"]
    vocab = dict(learned["vocab"])
    for byte in range(_BYTES):
        vocab.setdefault(f"<0x{byte:02X}>", len(vocab))
    merges = [tuple(pair) for pair in learned["merges"]]
    tokenizer.model = models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_text_tokens,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        cls_token="<s>",
        sep_token="</s>",
        extra_special_tokens=label_tokens,
    )


def _check_vocab_size(vocab_size: int, texts: Sequence[str], special: Sequence[str]) -> None:
    characters = {c for text in texts for c in unicodedata.normalize("NFC", text) if not c.isspace()}
    if not characters:
        raise ValueError("no text to train the tokenizer on: every text is empty")
    least = _BYTES + len(special) + len(characters) + 2
    if vocab_size < least:
        raise ValueError(
            f"vocab_size={vocab_size} does not hold {_BYTES} bytes, {len(special)} special tokens and the "
            f"texts' {len(characters)} characters; accepted: at least {least}"
        )

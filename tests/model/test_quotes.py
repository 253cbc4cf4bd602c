"""What a decoder may quote: whole words of its row's transcript, whatever the tokens hold."""

import random
import re
import unicodedata
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Wav2Vec2FeatureExtractor

from mmsr.model.modeling import MmsrForSentimentReasoning, logger
from mmsr.model.processing import MmsrProcessor
from mmsr.model.quotes import QuoteGrammar, QuoteVocabulary, _Transcript
from mmsr.quotations import OTHER_MARKS, locate, quotations

MakeModel = Callable[..., MmsrForSentimentReasoning]

TRANSCRIPTS = [
    "thank you so much, you were kind",
    'She said "never again" and left; I don\'t know why.',
    "Cảm ơn bạn rất nhiều, tôi rất hài lòng",
    unicodedata.normalize("NFD", "bác sĩ đã tận tình lắm"),
    "太糟糕了，我很生气！谢谢OK你",
    "Das kostet 3,50 € – wie „groß“ ist’s?",
    "l'hôtel était «très» bien, n'est-ce pas",
    "great 👩\u200d💻 👍🏽 café\u0301s 12°C",
    "!!! ...",
    'say "',
    "a",
]
RATIONALES = [
    'gratitude: "thank you so much" in an even voice',
    '"you", "me" and “you” « you » — "thank',
    'hài lòng: "rất hài lòng" giọng bình thản, c\'est',
    '满意："很生气"，语气平稳',
]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
HAN = re.compile("[\u4e00-\u9fff]")


def _byte_level(texts: list[str]) -> Any:
    """As of GPT-2, with words, spaces and quotation marks in one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=600, special_tokens=SPECIAL, initial_alphabet=letters, show_progress=False
        ),
    )
    return tokenizer


def _unigram(texts: list[str]) -> Any:
    """As of XLM-R: without bytes, in NFKC and here in lower case."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _word_piece(texts: list[str]) -> Any:
    """As of BERT, whose text has spaces around punctuation."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


TRAINERS: dict[str, Any] = {"byte_level": _byte_level, "unigram": _unigram, "word_piece": _word_piece}
TOKENIZERS = ["own", *TRAINERS]


@cache
def processor_of(kind: str, rationale_format: str = "multitask") -> MmsrProcessor:
    """A processor whose tokenizer, of a kind, reads transcripts and writes rationales."""
    texts = (RATIONALES + TRANSCRIPTS[:3]) * 3
    if kind == "own":
        made = MmsrProcessor.train(
            texts, vocab_size=400, max_text_tokens=200, rationale_format=rationale_format
        )
        return made
    names = dict(zip(("bos", "pad", "eos", "unk", "mask"), SPECIAL, strict=True))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=TRAINERS[kind](texts), **{f"{name}_token": token for name, token in names.items()}
    )
    tokenizer.add_tokens(['"!', 'you"'])  # no special ones
    tokenizer.model_max_length = 200
    extractor = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    made = MmsrProcessor(extractor, tokenizer, rationale_format=rationale_format)
    made.add_label_tokens()
    return made


def written_by_chance(
    processor: MmsrProcessor, transcripts: list[str | None], *, length: int, seed: int, eager: float
) -> Tensor:
    """Tokens `[b, r]` drawn among those that the grammar allows, those with a mark `eager` times as often."""
    grammar = processor.quote_grammar(transcripts)
    grammar.max_length = length - 1
    generator = torch.Generator().manual_seed(seed)
    size, end = len(processor.tokenizer), processor.eos_token_id
    weights = torch.ones(size)
    weights[grammar.vocabulary.quoting] = eager
    text = torch.zeros(len(transcripts), 1, dtype=torch.long)
    done = torch.zeros(len(transcripts), dtype=torch.bool)
    while text.shape[1] < length:
        allowed = grammar(text, torch.zeros(len(transcripts), size)).isfinite()
        assert allowed.any(-1).all()
        drawn = torch.multinomial(allowed * weights, 1, generator=generator)[:, 0]
        drawn[done] = processor.tokenizer.pad_token_id
        done |= drawn == end
        text = torch.cat([text, drawn[:, None]], 1)
    return text


def assert_quotes(rationale: str, transcript: str | None) -> int:
    """Check, in other words than the library's, what a rationale quotes; return how often it does."""
    parts = rationale.split('"')
    assert len(parts) % 2, f"not closed: {rationale!r}"
    for part in parts[::2]:
        assert not set(part) & set(OTHER_MARKS), rationale
    for part in parts[2::2]:
        assert not part[:1].isalnum() or HAN.match(part), f"a word touches the mark: {rationale!r}"
    for words in parts[1::2]:
        assert transcript is not None, rationale
        places = [place for place in range(len(transcript)) if transcript.startswith(words, place)]
        assert words.strip() == words != "", rationale
        assert any(is_whole(transcript, place, place + len(words)) for place in places), (words, transcript)
    return len(parts) // 2


def is_quotable(transcript: str | None) -> bool:
    return transcript is not None and any(map(str.isalnum, transcript))


def is_whole(text: str, start: int, end: int) -> bool:
    def cuts(place: int) -> bool:
        before, after = text[place - 1 : place], text[place : place + 1]
        if after and unicodedata.combining(after):
            return True
        return before.isalnum() and after.isalnum() and not HAN.search(before + after)

    return not cuts(start) and not cuts(end)


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("eager", [20.0, 100.0])
def test_whatever_is_written_quotes_whole_words_of_its_transcript(kind: str, eager: float):
    processor = processor_of(kind)
    rows: list[str | None] = [*TRANSCRIPTS, None]
    found = [0] * len(rows)
    for seed in range(3):
        text = written_by_chance(processor, rows, length=40, seed=seed, eager=eager)
        plain = processor.tokenizer.batch_decode(
            text, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        for written, row in zip(plain, rows, strict=True):  # as the tokens say, before it is respelled
            spans = [locate(written[one.start : one.end], row) for one in quotations(written)]
            assert all(spans) or not is_quotable(row), written
        for place, (rationale, row) in enumerate(
            zip(processor.decode_rationales(text, rows), rows, strict=True)
        ):
            found[place] += assert_quotes(rationale, row)
            assert rationale.count('"') == plain[place].count('"') or not is_quotable(row)
    assert found[-1] == 0 and found[0] > 0 and found[2] > 0
    if kind in ("own", "byte_level") and eager > 50:  # which can write every character
        assert [place for place, count in enumerate(found) if not count] == [8, len(rows) - 1], found


def test_made_up_transcripts_are_quoted_whole():
    """Random stretches of letters of five languages, signs, emoji and marks."""
    letters = [*"aAeEßÉ ơộđ 的是了我 '’\"“«.,-3 5%👍\u0301\u200d\n", "you", " the ", "é", "ﬁ", "３"]
    draw = random.Random(0)
    quotes = 0
    for seed in range(12):
        rows: list[str | None] = ["".join(draw.choices(letters, k=draw.randint(1, 30))) for _ in range(8)]
        processor = processor_of(TOKENIZERS[seed % 2])
        text = written_by_chance(processor, rows, length=30, seed=seed, eager=30.0)
        pairs = zip(processor.decode_rationales(text, rows), rows, strict=True)
        quotes += sum(assert_quotes(rationale, row) for rationale, row in pairs)
    assert quotes > 60


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_quick_answer_allows_what_the_search_does(kind: str, monkeypatch):
    """Spelling letter by letter tells at most more tokens than needed, and then the search decides."""
    rows: list[str | None] = [*TRANSCRIPTS, None]
    processor = processor_of(kind)
    costs: list[tuple[int, int]] = []
    quick = _Transcript.surely_closed

    def compared(transcript: _Transcript, state: Any) -> tuple[Tensor, int]:
        after = transcript.moves(state).values()
        costs.extend((transcript.cost(one), transcript._most(one)) for one in after)
        return quick(transcript, state)

    monkeypatch.setattr(_Transcript, "surely_closed", compared)
    written = written_by_chance(processor, rows, length=24, seed=1, eager=20.0)
    assert all(cost <= most for cost, most in costs)
    known = sum(most < 100 for _, most in costs) / len(costs)
    assert known > 0.5 if kind in ("own", "byte_level") else known > 0

    def searched(transcript: _Transcript, state: Any) -> tuple[Tensor, int]:
        return torch.tensor([]), 10**6

    monkeypatch.setattr(_Transcript, "surely_closed", searched)
    assert torch.equal(written_by_chance(processor, rows, length=24, seed=1, eager=20.0), written)


# ---------------------------------------------------------------------- models


def fitting(processor: MmsrProcessor) -> dict[str, Any]:
    vocabulary = {"vocab_size": len(processor.tokenizer), "label_token_ids": processor.label_token_ids}
    return {**processor.config_kwargs(), **vocabulary, "quotes": "transcript", "tie_word_embeddings": False}


def model_of(make_model: MakeModel, processor: MmsrProcessor, **settings: Any) -> MmsrForSentimentReasoning:
    """A model that is not trained, and likes to quote."""
    model = make_model(**{**fitting(processor), **settings})
    vocabulary = QuoteVocabulary(processor.tokenizer)
    model.generation_config.sequence_bias = [[[token], 3.0] for token in vocabulary.quoting]
    return model


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("decoder_type", ["cross_attention", "prefix"])
@pytest.mark.parametrize("rationale_format", ["multitask", "post_thinking", "pre_thinking"])
@torch.no_grad()
def test_a_model_quotes_its_rows_transcripts(
    make_model: MakeModel, rationale_format: str, decoder_type: str, beams: int
):
    """Greedy, sampled, with beams; of the predicted label and of forced ones; rows without a transcript."""
    processor = processor_of("own", rationale_format)
    model = model_of(make_model, processor, rationale_format=rationale_format, decoder_type=decoder_type)
    rows: list[str | None] = [*TRANSCRIPTS[:5], None]
    waves = [None, None, None, None, None, torch.randn(4000).numpy()]
    inputs = processor(text=rows, audio=waves, return_tensors="pt")
    grammar = processor.quote_grammar(rows)
    quotes = 0
    for settings in ({}, {"forced_sentiment": torch.tensor([2, 0, 1, 2, 0, 1])}, {"do_sample": True}):
        for length in (3, 18):
            asked = {"do_sample": False, "num_beams": beams, "max_new_tokens": length, **settings}
            written = model.generate(**inputs, **asked, logits_processor=[grammar])  # type: ignore[misc]
            assert (model.written_labels(written) >= 0).all()
            plain = processor.decode_rationales(written)
            for rationale, text, row in zip(
                processor.decode_rationales(written, rows), plain, rows, strict=True
            ):
                quotes += assert_quotes(rationale, row)
                assert rationale.count('"') == text.count('"') or not is_quotable(row)
    assert quotes > 6


@torch.no_grad()
def test_a_row_is_written_alone_as_in_a_batch(make_model: MakeModel):
    processor = processor_of("own")
    model = model_of(make_model, processor)
    rows = TRANSCRIPTS[:4]
    asked = {"do_sample": False, "num_beams": 2, "max_new_tokens": 20}

    def write(texts: list[str]) -> list[str]:
        inputs = processor(text=texts, return_tensors="pt")
        grammar = processor.quote_grammar(texts)
        return processor.decode_rationales(
            model.generate(**inputs, **asked, logits_processor=[grammar]),
            texts,  # type: ignore[misc]
        )

    together = write(rows)
    assert together == [text for row in rows for text in write([row])]
    assert sum(text.count('"') for text in together) > 0


def test_without_its_transcripts_a_model_warns_once_and_quotes_anything(
    make_model: MakeModel, caplog: pytest.LogCaptureFixture
):
    processor = processor_of("own", "post_thinking")
    model = model_of(make_model, processor, rationale_format="post_thinking")
    inputs = processor(text=TRANSCRIPTS[:2], return_tensors="pt")
    asked = {**inputs, "max_new_tokens": 12, "do_sample": False}
    logger.warning_once.cache_clear()
    model.generate(**asked, logits_processor=[processor.quote_grammar(TRANSCRIPTS[:2])])  # type: ignore[misc]
    model.classify(**inputs)
    assert not [record for record in caplog.records if record.name.startswith("mmsr")]
    unchecked = [model.generate(**asked) for _ in range(2)]  # type: ignore[misc]
    told = [record.getMessage() for record in caplog.records if record.name.startswith("mmsr")]
    assert len(told) == 1
    assert re.search(r"quotes='transcript'; accepted: .*quote_grammar\(texts\)", told[0])
    with pytest.raises(ValueError, match="3 transcripts for 2 rows; accepted: one for each"):
        grammar = processor.quote_grammar(["a", "b", "c"])
        model.generate(**inputs, max_new_tokens=4, logits_processor=[grammar])  # type: ignore[misc]
    model.config.quotes = "free"
    free = model.generate(**asked)  # type: ignore[misc]
    assert all(torch.equal(free, written) for written in unchecked)


def test_a_given_beginning_may_quote_the_transcript_alone(make_model: MakeModel):
    processor = processor_of("own")
    model = model_of(make_model, processor)
    inputs = processor(text=["thank you"], return_tensors="pt")

    def go_on(text: str) -> str:
        label = processor.label_token_ids[0]
        begun = torch.tensor([[0, label, *processor.tokenizer(text, add_special_tokens=False)["input_ids"]]])
        written = model.generate(  # type: ignore[misc]
            **inputs,
            decoder_input_ids=begun,
            max_new_tokens=12,
            logits_processor=[processor.quote_grammar(["thank you"])],
        )
        return processor.decode_rationales(written)[0]

    assert re.match('x "thank( you)?"', go_on('x "thank'))
    with pytest.raises(ValueError, match="decoder_input_ids of row 0 quote what its transcript has not"):
        go_on('x "thanks')


def test_a_tokenizer_that_cannot_be_read_is_refused():
    from tokenizers import Tokenizer, decoders, models

    tokenizer = Tokenizer(models.BPE({"a": 0, "b": 1, "c": 2}, []))
    tokenizer.decoder = decoders.Sequence([decoders.Fuse(), decoders.Replace("bc", "x")])
    with pytest.raises(ValueError, match="quotes='transcript' with .*; accepted: a tokenizer whose texts"):
        QuoteVocabulary(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=None))


def test_a_grammar_reads_its_vocabulary_once():
    processor = processor_of("own")
    first, second = processor.quote_grammar(["a"]), processor.quote_grammar([None])
    assert isinstance(first, QuoteGrammar) and first.vocabulary is second.vocabulary

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch.testing import assert_close
from transformers import pipeline

import mmsr
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.pipeline import TASK, SentimentReasoningPipeline
from mmsr.model.processing import MmsrProcessor

Answer = dict[str, Any]


@pytest.fixture
def fitting(processor: MmsrProcessor) -> dict[str, Any]:
    """What a config needs to go with the processor."""
    vocabulary = {"vocab_size": len(processor.tokenizer), "label_token_ids": processor.label_token_ids}
    return {**processor.config_kwargs(), **vocabulary}


@pytest.fixture
def pipe(
    make_model: Callable[..., MmsrForSentimentReasoning], processor: MmsrProcessor, fitting: dict[str, Any]
) -> SentimentReasoningPipeline:
    # An untrained decoder that shares the text encoder's word table heeds its first tokens too little.
    model = make_model(**fitting, tie_word_embeddings=False)
    # Not trained, it would repeat one byte.
    model.generation_config.no_repeat_ngram_size = 1
    model.generation_config.suppress_tokens = processor.tokenizer.convert_tokens_to_ids(
        [f"<0x{byte:02X}>" for byte in range(256)]
    )
    return pipeline(TASK, model=model, processor=processor, max_new_tokens=6)


@pytest.fixture
def utterances(waveforms: list[np.ndarray]) -> list[dict[str, Any]]:
    """Both modalities, each alone, and lengths that differ."""
    return [
        {"audio": waveforms[0], "text": "the doctor was very kind to me"},
        {"text": "nobody listened"},
        {"audio": waveforms[1]},
        {"audio": waveforms[2], "text": None},
        {"audio": waveforms[2], "text": "kind"},
    ]


def assert_same(first: Answer, second: Answer) -> None:
    assert first.keys() == second.keys()
    assert (first["label"], first["rationale"]) == (second["label"], second["rationale"])
    assert first["scores"] == pytest.approx(second["scores"], abs=1e-5)


def test_an_answer_is_the_models(pipe: SentimentReasoningPipeline, utterances: list[Answer]):
    answer = pipe(utterances[0])
    assert set(answer) == {"label", "score", "scores", "rationale"}
    assert list(answer["scores"]) == pipe.model.config.labels
    assert sum(answer["scores"].values()) == pytest.approx(1.0)
    assert answer["score"] == answer["scores"][answer["label"]] == max(answer["scores"].values())
    inputs = pipe.processor(text=[utterances[0]["text"]], audio=[utterances[0]["audio"]], return_tensors="pt")
    with torch.no_grad():
        logits = pipe.model(**inputs).sentiment_logits[0]
    assert_close(torch.tensor(list(answer["scores"].values())), logits.softmax(-1))
    sequences = pipe.model.generate(**inputs, max_new_tokens=6, do_sample=False)  # type: ignore[misc]
    assert sequences.shape[1] <= 2 + 6
    assert answer["rationale"] == pipe.processor.decode_rationales(sequences)[0] != ""


def test_probabilities_are_tempered(pipe: SentimentReasoningPipeline, utterances: list[Answer]):
    plain = torch.tensor(list(pipe(utterances[0])["scores"].values()))
    pipe.model.config.temperature = 2.0
    tempered = torch.tensor(list(pipe(utterances[0])["scores"].values()))
    assert_close(tempered, (plain.log() / 2).softmax(-1))


@pytest.mark.parametrize("temperature", [1e-3, 0.3, 4.0, 1e12])
def test_a_temperature_changes_neither_label_nor_logits(
    pipe: SentimentReasoningPipeline, utterances: list[Answer], temperature: float
):
    before = pipe(utterances, rationale=False)
    inputs = pipe.processor(text=["kind words"], return_tensors="pt")
    with torch.no_grad():
        logits = pipe.model(**inputs).sentiment_logits
        pipe.model.config.temperature = temperature
        assert torch.equal(pipe.model(**inputs).sentiment_logits, logits)
    after = pipe(utterances, rationale=False)
    assert [answer["label"] for answer in after] == [answer["label"] for answer in before]
    assert all(one["scores"] != other["scores"] for one, other in zip(before, after, strict=True))


def test_head_and_decoder_are_tempered_each_by_its_own(
    make_model: Callable[..., MmsrForSentimentReasoning],
    processor: MmsrProcessor,
    fitting: dict[str, Any],
    utterances: list[Answer],
):
    model = make_model(**{**fitting, "rationale_format": "post_thinking"})
    pipe = pipeline(TASK, model=model, processor=processor)

    def scores() -> list[torch.Tensor]:
        answer = pipe(utterances[0], rationale=False)
        return [torch.tensor(list(answer[name].values())) for name in ("scores", "head_scores")]

    decoder, head = scores()
    model.config.decoder_temperature = 2.0
    assert_close(scores(), [(decoder.log() / 2).softmax(-1), head])
    model.config.temperature = 3.0
    assert_close(scores(), [(decoder.log() / 2).softmax(-1), (head.log() / 3).softmax(-1)])


@pytest.mark.parametrize("batch_size", [2, 5])
def test_a_batch_is_answered_as_its_rows(
    pipe: SentimentReasoningPipeline, utterances: list[Answer], batch_size: int
):
    alone = [pipe(utterance) for utterance in utterances]
    assert len({round(answer["score"], 6) for answer in alone}) == len(alone)
    together = pipe(utterances, batch_size=batch_size)
    assert isinstance(together, list) and len(together) == len(alone)
    for first, second in zip(together, alone, strict=True):
        assert_same(first, second)


def test_a_generator_is_answered_as_it_goes(pipe: SentimentReasoningPipeline, utterances: list[Answer]):
    taken: list[int] = []

    def stream() -> Iterator[Answer]:
        for index, utterance in enumerate(utterances):
            taken.append(index)
            yield utterance

    answers = pipe(stream(), batch_size=2)
    first = next(iter(answers))
    assert len(taken) < len(utterances)
    assert_same(first, pipe(utterances[0]))
    for answer, utterance in zip(pipe(stream(), batch_size=2), utterances, strict=True):
        assert_same(answer, pipe(utterance))


def test_audio_comes_as_path_bytes_array_or_column(
    pipe: SentimentReasoningPipeline, waveforms: list[np.ndarray], tmp_path: Path
):
    path = tmp_path / "speech.wav"
    soundfile.write(path, waveforms[0], 16_000, subtype="FLOAT")
    expected = pipe(waveforms[0])
    inputs = [
        path,
        str(path),
        path.read_bytes(),
        {"audio": str(path)},
        {"audio": waveforms[0].tolist()},
        {"audio": {"array": waveforms[0], "sampling_rate": 16_000}},
    ]
    for given in inputs:
        assert_same(pipe(given), expected)
    for answer in pipe(inputs, batch_size=3):
        assert_same(answer, expected)


def test_the_given_rate_reaches_the_loader(pipe: SentimentReasoningPipeline, waveforms: list[np.ndarray]):
    asked: list[tuple[int, int]] = []

    def load(audio: Any) -> np.ndarray:
        array, rate = audio
        asked.append((len(array), rate))
        return waveforms[0]

    expected = pipe(waveforms[0])
    column = {"array": waveforms[1], "sampling_rate": 22_050}
    assert_same(pipe({"audio": waveforms[1], "sampling_rate": 8000}, load_audio=load), expected)
    assert_same(pipe({"audio": column}, load_audio=load), expected)
    assert_same(pipe(waveforms[1], load_audio=load), expected)
    assert asked == [(3200, 8000), (3200, 22_050), (3200, 16_000)]
    assert len(pipe.preprocess({"audio": waveforms[1], "sampling_rate": 8000})["audio"]) == 6400


def test_without_a_loader_audio_raises_and_text_does_not(
    pipe: SentimentReasoningPipeline, waveforms: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(SentimentReasoningPipeline, "default_load_audio", None)
    with pytest.raises(ValueError, match="no audio loader: pass load_audio=, or `import mmsr`"):
        pipe(waveforms[0])
    assert pipe({"text": "kind"})["label"] in pipe.model.config.labels


@pytest.mark.parametrize("beams", [1, 2])
def test_a_forced_label_changes_the_rationale_alone(
    pipe: SentimentReasoningPipeline, utterances: list[Answer], beams: int
):
    plain = pipe(utterances, num_beams=beams)
    for forced in pipe.model.config.labels:
        answers = pipe(utterances, forced_label=forced, num_beams=beams)
        for answer, before in zip(answers, plain, strict=True):
            assert answer.pop("forced_label") == forced
            if forced == before["label"]:
                assert_same(answer, before)
            else:
                assert answer["rationale"] != before["rationale"]
                assert answer["scores"] == pytest.approx(before["scores"])


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("decoder_type", ["cross_attention", "prefix"])
@pytest.mark.parametrize("rationale_format", ["post_thinking", "pre_thinking"])
def test_a_decoder_s_label_is_the_one_that_it_wrote(
    make_model: Callable[..., MmsrForSentimentReasoning],
    processor: MmsrProcessor,
    fitting: dict[str, Any],
    utterances: list[Answer],
    rationale_format: str,
    decoder_type: str,
    beams: int,
):
    """Its probability is the decoder's; the head's stands beside it, and a forced label moves neither."""
    settings = {"rationale_format": rationale_format, "decoder_type": decoder_type}
    pipe = pipeline(TASK, model=make_model(**{**fitting, **settings}), processor=processor)
    asked = {"num_beams": beams, "max_new_tokens": 8}
    answers = pipe(utterances, batch_size=5, **asked)
    for answer, utterance in zip(answers, utterances, strict=True):
        given = pipe.preprocess(utterance)
        inputs = processor(
            **{name: [given[name]] for name in ("audio", "text") if given[name] is not None},
            return_tensors="pt",
        )
        with torch.no_grad():
            written = pipe.model.generate(**inputs, **asked, do_sample=False)
            label = pipe.model.written_labels(written)
            scored = pipe.model(**inputs, labels=written[:, 1:])
        assert answer["label"] == pipe.model.config.labels[int(label)]
        assert answer["rationale"] == processor.decode_rationales(written)[0]
        expected = scored.decoder_sentiment_logits[0].softmax(-1)
        assert_close(torch.tensor(list(answer["scores"].values())), expected, atol=1e-5, rtol=1e-4)
        assert answer["score"] == answer["scores"][answer["label"]]
        head = scored.sentiment_logits[0].softmax(-1)
        assert_close(torch.tensor(list(answer["head_scores"].values())), head, atol=1e-5, rtol=1e-4)
        assert answer["head_label"] == pipe.model.config.labels[int(head.argmax())]
    other = pipe(utterances, batch_size=5, forced_label="positive", **asked)
    assert [row["label"] for row in other] == [row["label"] for row in answers]
    if beams == 1:
        silent = pipe(utterances, batch_size=5, rationale=False, max_new_tokens=8)
        assert [row["label"] for row in silent] == [row["label"] for row in answers]
        assert {row["rationale"] for row in silent} == {None}


def test_who_wants_no_rationale_gets_none(
    pipe: SentimentReasoningPipeline, utterances: list[Answer], monkeypatch: pytest.MonkeyPatch
):
    expected = pipe(utterances[0])
    monkeypatch.setattr(pipe.model, "generate", None)
    answer = pipe(utterances[0], rationale=False)
    assert answer == {**expected, "rationale": None, "scores": pytest.approx(expected["scores"]),
                      "score": pytest.approx(expected["score"])}  # fmt: skip
    with pytest.raises(ValueError, match="forced_label='positive' contradicts rationale=False"):
        pipe(utterances[0], rationale=False, forced_label="positive")


def test_a_model_of_labels_only(
    make_model: Callable[..., MmsrForSentimentReasoning],
    processor: MmsrProcessor,
    fitting: dict[str, Any],
    utterances: list[Answer],
):
    model = make_model(**{**fitting, "rationale_format": "none"})
    pipe = pipeline(TASK, model=model, processor=processor)
    assert [answer["rationale"] for answer in pipe(utterances)] == [None] * 5
    for asked in ({"rationale": True}, {"forced_label": "positive"}):
        with pytest.raises(
            ValueError, match=r"(rationale=True|forced_label='positive'), but .* a label only"
        ):
            pipe(utterances[0], **asked)


@pytest.mark.parametrize(
    ("given", "arguments", "message"),
    [
        (
            {"text": "kind"},
            {"beams": 2},
            r"unknown argument\(s\) beams; accepted: load_audio, sampling_rate, asr, forced_label",
        ),
        (
            {"text": "kind"},
            {"forced_label": "furious"},
            "unknown label 'furious'; accepted: negative, neutral",
        ),
        (
            {"words": "kind"},
            {},
            r"an utterance needs audio or text, got \['words'\]; accepted: a path, bytes, a wav",
        ),
        ({"audio": None, "text": None}, {}, "an utterance needs audio or text"),
        ({"text": " "}, {}, "row 0: text is empty"),
        ({"audio": "no/such/file.wav"}, {}, "no/such/file.wav"),
        ({"audio": np.array([0.0, np.nan])}, {}, "NaN"),
    ],
)
def test_bad_input_raises(
    pipe: SentimentReasoningPipeline, given: Any, arguments: dict[str, Any], message: str
):
    with pytest.raises(ValueError, match=message):
        pipe(given, **arguments)


def test_transformers_makes_it_from_a_folder(
    pipe: SentimentReasoningPipeline, utterances: list[Answer], tmp_path: Path
):
    pipe.save_pretrained(tmp_path)
    loaded = pipeline("sentiment-reasoning", model=str(tmp_path), max_new_tokens=6)
    assert isinstance(loaded, mmsr.SentimentReasoningPipeline)
    assert isinstance(loaded.processor, MmsrProcessor)
    for answer, utterance in zip(loaded(utterances, batch_size=2), utterances, strict=True):
        assert_same(answer, pipe(utterance))

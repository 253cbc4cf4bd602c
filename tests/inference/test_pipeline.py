import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch.testing import assert_close
from transformers import pipeline

import mmsr
from mmsr import records
from mmsr.data.audio.decoding import Audio, AudioError
from mmsr.evaluation.similarity import consensus
from mmsr.inference.pipeline import TASK, SentimentReasoningPipeline
from mmsr.model.decoders import SampledCandidates
from mmsr.model.fusion import FUSION_CLASSES, attention_map
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor
from mmsr.records import Chunk

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
    assert set(answer) == {"label", "score", "scores", "rationale", "grounded", "evidence"}
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


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("decoder_type", ["cross_attention", "prefix"])
@pytest.mark.parametrize("rationale_format", ["multitask", "post_thinking", "pre_thinking"])
def test_a_model_that_keeps_to_the_transcript_gives_its_evidence(
    make_model: Callable[..., MmsrForSentimentReasoning],
    processor: MmsrProcessor,
    fitting: dict[str, Any],
    waveforms: list[np.ndarray],
    rationale_format: str,
    decoder_type: str,
    beams: int,
):
    """Rationales of the label, of a forced one and of all others; rows of audio alone quote nothing."""
    formats = {"rationale_format": rationale_format, "decoder_type": decoder_type}
    settings = {**fitting, **formats, "quotes": "transcript", "tie_word_embeddings": False}
    processor = MmsrProcessor(
        processor.feature_extractor, processor.tokenizer, rationale_format=rationale_format
    )
    pipe = pipeline(TASK, model=make_model(**settings), processor=processor)
    mark = processor.tokenizer.convert_tokens_to_ids("<0x22>")
    pipe.model.generation_config.sequence_bias = [[[mark], 30.0]]  # quotes wherever it may
    texts = ['The Doctor was "very" kind', "nobody listened, and I'm angry", "医生对我很好", None]
    rows = [{"text": text, "audio": waveforms[0]} for text in texts]
    asked = {"num_beams": beams, "max_new_tokens": 14, "alternatives": True, "batch_size": 4}
    for forced in (None, "positive"):
        for answer, text in zip(pipe(rows, forced_label=forced, **asked), texts, strict=True):
            quoted = answer["rationale"].split('"')[1::2]
            assert [one["text"] for one in answer["evidence"]] == quoted
            assert answer["grounded"] is bool(quoted) is (text is not None)
            for one in answer["evidence"]:
                assert text is not None and text[one["start"] : one["end"]] == one["text"]
            for rationale in answer["alternatives"].values():
                words = rationale.split('"')
                assert len(words) % 2 and all(text and word in text for word in words[1::2])
    silent = pipe(rows, rationale=False)
    assert [(row["grounded"], row["evidence"]) for row in silent] == [(None, [])] * 4


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


def test_a_list_is_decoded_in_threads_but_for_a_callers_own_decoder(
    pipe: SentimentReasoningPipeline, waveforms: list[np.ndarray], tmp_path: Path, monkeypatch
):
    paths = [str(tmp_path / f"{number}.wav") for number in range(5)]
    for path, wave in zip(paths, [waveforms[number % len(waveforms)] for number in range(5)], strict=True):
        soundfile.write(path, wave, 16_000, subtype="FLOAT")
    here, threads, order = threading.get_ident(), set[int](), list[str]()

    def load(path: str) -> np.ndarray:
        threads.add(threading.get_ident())
        order.append(path)
        return Audio()(path)

    one_by_one = pipe(paths, batch_size=2, load_audio=load, rationale=False)
    assert threads == {here} and order == paths
    monkeypatch.setattr("mmsr.inference.pipeline._load_audio", load)
    threads.clear()
    for answer, alone in zip(pipe(paths, batch_size=2, rationale=False), one_by_one, strict=True):
        assert_same(answer, alone)
    assert threads and here not in threads
    with pytest.raises(AudioError, match="gone.wav: does not exist"):
        pipe([*paths, str(tmp_path / "gone.wav")], batch_size=2)


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


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.int64])
def test_integer_samples_of_any_width_are_no_silence(
    pipe: SentimentReasoningPipeline, waveforms: list[np.ndarray], kind: type
):
    samples = np.round(0.5 * waveforms[0] / np.abs(waveforms[0]).max() * 32767).astype(kind)
    heard = pipe.preprocess({"audio": {"array": samples, "sampling_rate": 16_000}})["audio"]
    np.testing.assert_allclose(heard, samples / 32768, atol=1e-6)
    with pytest.raises(ValueError, match="have type int64 and peak 9, which may be of 8 or of 16 bits"):
        pipe({"array": np.full(1600, 9), "sampling_rate": 16_000})


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


@pytest.mark.parametrize("rationale_format", ["multitask", "post_thinking", "pre_thinking"])
def test_of_several_candidates_the_one_most_like_all_is_answered(
    make_model: Callable[..., MmsrForSentimentReasoning],
    processor: MmsrProcessor,
    fitting: dict[str, Any],
    utterances: list[Answer],
    monkeypatch: pytest.MonkeyPatch,
    rationale_format: str,
):
    """Whatever else is in the batch, for every label, from the same seed; the first is the greedy one."""
    settings = {**fitting, "rationale_format": rationale_format}
    processor = MmsrProcessor(
        processor.feature_extractor, processor.tokenizer, rationale_format=rationale_format
    )
    pipe = pipeline(TASK, model=make_model(**settings), processor=processor)
    asked = {"max_new_tokens": 8, "alternatives": True}
    written: list[list[str]] = []

    def keep(candidates: list[str]) -> int:
        written.append(candidates)
        return consensus(candidates)

    monkeypatch.setattr("mmsr.inference.pipeline.consensus", keep)
    # a model without training finds every token rare
    monkeypatch.setattr("mmsr.inference.pipeline.SampledCandidates", partial(SampledCandidates, epsilon=1e-9))
    greedy = pipe(utterances, batch_size=5, **asked)
    assert not written
    answers = pipe(utterances, batch_size=5, num_candidates=6, seed=3, **asked)
    labels = len(pipe.model.config.labels)
    assert len(written) == labels * len(utterances) and {len(texts) for texts in written} == {6}
    assert len({tuple(texts) for texts in written}) > labels, "the model was asked, and not the noise alone"
    assert any(len(set(texts)) > 3 for texts in written)
    for row, answer in enumerate(answers):
        assert answer["label"] == greedy[row]["label"]
        own, *others = written[labels * row : labels * (row + 1)]
        assert answer["rationale"] == own[consensus(own)]
        assert list(answer["alternatives"].values()) == [texts[consensus(texts)] for texts in others]
        if rationale_format == "multitask":  # the others write the label among as many tokens
            assert own[0] == greedy[row]["rationale"]
    alone = [pipe(utterance, num_candidates=6, seed=3, **asked) for utterance in utterances]
    assert [row["rationale"] for row in alone] == [row["rationale"] for row in answers]
    first = written[0]
    written.clear()
    pipe(utterances[0], num_candidates=6, seed=4, **asked)
    assert written[0][0] == first[0] and written[0] != first
    with pytest.raises(ValueError, match="num_candidates=2, num_beams=2; accepted: 1 or more candidates"):
        pipe(utterances[0], num_candidates=2, num_beams=2)


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


@pytest.mark.parametrize("rationale_format", ["post_thinking", "pre_thinking"])
def test_too_few_tokens_for_a_label_are_refused(
    make_model: Callable[..., MmsrForSentimentReasoning],
    processor: MmsrProcessor,
    fitting: dict[str, Any],
    rationale_format: str,
):
    model = make_model(**{**fitting, "rationale_format": rationale_format})
    pipe = pipeline(TASK, model=model, processor=processor)
    with pytest.raises(ValueError, match="max_new_tokens=1 leaves no room for the label"):
        pipe({"text": "so kind"}, max_new_tokens=1)
    with pytest.raises(ValueError, match="max_new_tokens"):
        pipe({"text": "so kind"}, max_new_tokens=0)
    assert pipe({"text": "so kind"}, max_new_tokens=2)["label"] in model.config.labels


def test_who_wants_no_rationale_gets_none(
    pipe: SentimentReasoningPipeline, utterances: list[Answer], monkeypatch: pytest.MonkeyPatch
):
    expected = pipe(utterances[0])
    monkeypatch.setattr(pipe.model, "generate", None)
    answer = pipe(utterances[0], rationale=False)
    unexplained = {"rationale": None, "grounded": None, "evidence": []}
    assert answer == {**expected, **unexplained, "scores": pytest.approx(expected["scores"]),
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
    answers = pipe(utterances)
    told = [(answer["rationale"], answer["grounded"], answer["evidence"]) for answer in answers]
    assert told == [(None, None, [])] * 5
    assert "kind" in answers[0].page()
    given = records.Utterance(id="u", text="so kind")
    row = records.Prediction.from_answer(given, records.Answer.from_dict(answers[0]), condition="text")
    assert row.to_row().keys().isdisjoint({"grounded", "evidence"})
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
            r"unknown argument\(s\) beams; accepted: load_audio, sampling_rate, errors, progress, asr",
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
        ({"text": " "}, {}, "^text is empty; accepted: words, or None"),
        ({"text": 5}, {}, "^text is 5; accepted: words, or None"),
        (None, {}, "an utterance needs audio or text, got None; accepted: a path"),
        (
            {"audio": {"path": None}},
            {},
            r"audio is a mapping with \['path'\]; accepted: array and sampling_rate",
        ),
        ({"audio": "no/such/file.wav"}, {}, "no/such/file.wav"),
        ({"audio": np.array([0.0, np.nan])}, {}, "NaN"),
    ],
)
def test_bad_input_raises(
    pipe: SentimentReasoningPipeline, given: Any, arguments: dict[str, Any], message: str
):
    with pytest.raises(ValueError, match=message):
        pipe(given, **arguments)


def test_a_recording_that_cannot_be_read_ends_the_list_or_is_its_own_answer(
    pipe: SentimentReasoningPipeline, waveforms: list[np.ndarray], tmp_path: Path
):
    good, bad, cut = (str(tmp_path / f"{name}.wav") for name in ("good", "bad", "cut"))
    soundfile.write(good, waveforms[0], 16_000)
    Path(bad).write_text("no sound")
    Path(cut).write_bytes(Path(good).read_bytes()[:-400])
    rows = [bad, good, {"audio": cut, "text": "kind"}, {"text": "kind"}, (np.array([0.0, np.nan]), 16_000)]
    with pytest.raises(ValueError, match=r"bad\.wav: holds no audio"):
        pipe(rows)
    alone = [pipe(row, errors="return") for row in rows]
    for answers in (
        pipe(rows, errors="return", batch_size=2),
        list(pipe(iter(rows), errors="return", batch_size=5)),
        alone,
    ):
        told = [answer.get("error") for answer in answers]
        assert [text is None for text in told] == [False, True, False, True, False]
        assert told[0].startswith(f"{bad}: holds no audio") and told[2].startswith(f"{cut}: ")
        place = "" if answers[4] is alone[4] else "input 4: "
        assert told[4].startswith(f"{place}samples: ") and all("\n" not in text for text in told if text)
        assert_same(answers[1], pipe(good) | {"error": None})
        assert_same(answers[3], pipe({"text": "kind"}) | {"error": None})
        failed = {"label": None, "score": None, "scores": {}, "rationale": None}
        assert answers[0] == failed | {"grounded": None, "evidence": [], "error": told[0]}
    assert pipe([bad], errors="return")[0]["error"] == alone[0]["error"]
    with pytest.raises(ValueError, match="errors='ignore'; accepted: raise, return"):
        pipe(rows, errors="ignore")


@pytest.mark.parametrize("options", [{}, {"batch_size": 2}, {"num_workers": 1}], ids=["one", "two", "worker"])
def test_an_input_that_is_none_is_named_by_its_place_in_the_list(
    pipe: SentimentReasoningPipeline, options: dict[str, Any]
):
    rows = [{"text": "kind"}, {"text": " "}, None, {}, {"txt": "kind"}, {"text": "so kind"}]
    answers = pipe(rows, errors="return", **options)
    told = [answer["error"] for answer in answers]
    assert told[0] is told[5] is None and [answer["label"] for answer in answers[1:5]] == [None] * 4
    assert told[1] == "input 1: text is empty; accepted: words, or None"
    assert told[2].startswith("input 2: an utterance needs audio or text, got None; accepted: ")
    assert told[3].startswith("input 3: an utterance needs audio or text, got []; accepted: ")
    assert told[4] == "input 4: an utterance has the unknown key 'txt'; did you mean text?"
    for bad in range(1, 5):
        with pytest.raises(ValueError, match=f"input 1: {told[bad][9:20]}"):
            pipe([rows[0], rows[bad]], **options)
    with pytest.raises(ValueError, match="^input 1: text is empty"):
        list(pipe(iter(rows)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alternatives": True, "attention": True, "abstain_below": 0.5},
        {"forced_label": "negative", "asr": lambda waves, languages: ["words"] * len(waves)},
        {"rationale": False},
    ],
    ids=["plain", "all", "forced", "label"],
)
@pytest.mark.parametrize("kind", ["multitask", "post_thinking", "base"])
def test_an_answer_without_a_label_has_the_keys_of_the_others(
    kind: str,
    options: dict[str, Any],
    make_model: Callable[..., MmsrForSentimentReasoning],
    processor: MmsrProcessor,
    fitting: dict[str, Any],
):
    if kind == "base":  # which names evidence, and detects outliers
        pipe = mmsr.load_pipeline("base")
    else:
        model = make_model(**{**fitting, "rationale_format": kind})
        pipe = pipeline(TASK, model=model, processor=processor, max_new_tokens=4)
    if options.get("attention") and not attention_map(pipe.model.config.fusion):
        options = options | {"attention": False}
    good, bad = pipe([{"text": "so kind"}, {"text": ""}], errors="return", **options)
    assert bad.keys() == good.keys()
    assert bad["error"] and good["error"] is None
    for name, value in good.items():
        if isinstance(value, list | dict):
            assert type(bad[name]) is type(value), name
        elif name not in ("error", "forced_label"):
            assert bad[name] is None, name


def test_transformers_makes_it_from_a_folder(
    pipe: SentimentReasoningPipeline, utterances: list[Answer], tmp_path: Path
):
    pipe.save_pretrained(tmp_path)
    loaded = pipeline("sentiment-reasoning", model=str(tmp_path), max_new_tokens=6)
    assert isinstance(loaded, mmsr.SentimentReasoningPipeline)
    assert isinstance(loaded.processor, MmsrProcessor)
    for answer, utterance in zip(loaded(utterances, batch_size=2), utterances, strict=True):
        assert_same(answer, pipe(utterance))


# ---------------------------------------------------------------------- what else may go in


def test_nothing_is_answered_by_nothing(pipe: SentimentReasoningPipeline):
    assert pipe([]) == []


def test_samples_come_with_their_rate_and_files_open(
    pipe: SentimentReasoningPipeline, waveforms: list[np.ndarray], tmp_path: Path
):
    asked: list[Any] = []

    def load(audio: Any) -> np.ndarray:
        asked.append(audio)
        return waveforms[0]

    pipe((waveforms[1], 8000), load_audio=load, rationale=False)
    pipe(waveforms[1], sampling_rate=11_025, load_audio=load, rationale=False)
    pipe(
        {"audio": waveforms[1], "sampling_rate": 8000}, sampling_rate=11_025, load_audio=load, rationale=False
    )
    assert [rate for _, rate in asked] == [8000, 11_025, 8000]
    path = tmp_path / "speech.wav"
    soundfile.write(path, waveforms[0], 16_000, subtype="FLOAT")
    with path.open("rb") as file:
        assert_same(pipe(file), pipe(waveforms[0]))


def test_datasets_and_their_columns_are_answered_as_they_are_read(
    pipe: SentimentReasoningPipeline, waveforms: list[np.ndarray], tmp_path: Path
):
    datasets = pytest.importorskip("datasets")
    paths = [str(tmp_path / f"{i}.wav") for i in range(3)]
    for path, wave in zip(paths, waveforms, strict=False):
        soundfile.write(path, wave, 16_000, subtype="FLOAT")
    texts = ["the doctor was kind", "nobody listened", "kind"]
    table = datasets.Dataset.from_dict({"audio": paths, "text": texts, "id": ["a", "b", "c"]})
    table = table.cast_column("audio", datasets.Audio())
    both = [pipe({"audio": path, "text": text}) for path, text in zip(paths, texts, strict=True)]
    expected = {
        "table": (table, both),
        "stream": (table.to_iterable_dataset(), both),
        "audio": (table["audio"], [pipe(path) for path in paths]),
        "text": (table["text"], [pipe({"text": text}) for text in texts]),
    }
    for name, (given, answers) in expected.items():
        answered = pipe(given, batch_size=2)
        assert isinstance(answered, Iterator), name
        for answer, other in zip(answered, answers, strict=True):
            assert_same(answer, other)


def test_any_iterator_is_a_stream(pipe: SentimentReasoningPipeline):
    taken: list[str] = []
    answers = pipe(
        ({"text": text} for text in iter(lambda: taken.append("kind") or "kind", None)), batch_size=2
    )
    assert next(answers)["label"] == pipe({"text": "kind"})["label"]
    assert len(taken) <= 3  # it has no end: only what is asked for is read
    assert isinstance(pipe(map(dict, [{"text": "kind"}])), Iterator)


def test_progress_is_shown_where_asked(pipe: SentimentReasoningPipeline, capsys: pytest.CaptureFixture[str]):
    rows = [{"text": "kind"}] * 3
    pipe(rows, batch_size=2, rationale=False)
    assert "utterances" not in capsys.readouterr().err
    pipe(rows, batch_size=2, rationale=False, progress=True)
    assert "3/3" in capsys.readouterr().err


# ---------------------------------------------------------------------- what else may come out


def test_a_recogniser_writes_what_is_not_given(
    pipe: SentimentReasoningPipeline, waveforms: list[np.ndarray], utterances: list[Answer]
):
    heard: list[tuple[int, str | None]] = []

    def asr(waves: Any, languages: Any) -> list[str]:
        heard.extend((len(wave), language) for wave, language in zip(waves, languages, strict=True))
        return [" nobody listened " if len(wave) == len(waveforms[1]) else "" for wave in waves]

    utterances[2] = {"audio": waveforms[1], "language": "vi"}
    answers = pipe(utterances, batch_size=5, asr=asr)
    assert heard == [(len(waveforms[1]), "vi"), (len(waveforms[2]), None)]
    assert [answer.pop("transcript") for answer in answers] == [
        "the doctor was very kind to me", "nobody listened", "nobody listened", None, "kind"
    ]  # fmt: skip
    expected = pipe(utterances[:2] + [{"audio": waveforms[1], "text": "nobody listened"}] + utterances[3:])
    for answer, other in zip(answers, expected, strict=True):
        assert_same(answer, other)
    with pytest.raises(ValueError, match="asr gave 0 texts for 1 waveforms; accepted: one for each"):
        pipe(waveforms[0], asr=lambda waves, languages: [])


class Hears:
    """A recogniser that hears `the doctor was kind`, a word each quarter of a second."""

    timestamps = "word"
    words = tuple(
        Chunk(text=word, start=0.25 * place, end=0.25 * place + 0.2)
        for place, word in enumerate("the doctor was kind".split())
    )

    def transcribe(self, waves: Any, *, languages: Any) -> list[Any]:
        return [SimpleNamespace(text="the doctor was kind", chunks=self.words) for _ in waves]


@pytest.mark.parametrize("text", ["the doctor was kind", "The Doctor is kind!"])
def test_quoted_words_have_the_times_of_the_recogniser(
    explained: SentimentReasoningPipeline, waveforms: list[np.ndarray], text: str
):
    by_place = {one.text: [one.start, one.end] for one in Hears.words}

    def check(answer: Answer) -> None:
        (quoted,) = answer["evidence"]
        words = quoted["text"].lower().split()
        if "is" in (words[0], words[-1]):  # it heard `was`
            assert quoted["timed_by"] == "interpolated" and 0 <= quoted["seconds"][0] < 0.7
        else:
            assert quoted["timed_by"] == "recogniser"
            assert quoted["seconds"] == [by_place[words[0]][0], by_place[words[-1]][1]]

    row = {"audio": waveforms[0], "text": text}
    predicted = explained(row)["label"]
    options = {"forced_label": "negative" if predicted == "positive" else "positive"}  # which always quotes
    words = [asdict(word) for word in Hears.words]
    for given in (words, json.dumps(words)):
        check(explained({**row, "asr_words": given}, **options))
    heard = explained(waveforms[0], asr=Hears(), **options)
    assert heard["transcript"] == "the doctor was kind" and heard["asr_words"] == words
    check(heard)
    assert [one["timed_by"] for one in explained(row, **options)["evidence"]] == ["proportional"]
    with pytest.raises(ValueError, match="no words with times; accepted: "):
        explained({"audio": waveforms[0], "text": text, "asr_words": "[1]"})


def test_a_long_recording_is_told_to_be_speech_or_not(pipe: SentimentReasoningPipeline, monkeypatch: Any):
    monkeypatch.setattr("mmsr.inference.pipeline.speech_seconds", lambda wave: len(wave) / 64_000)
    quiet = 0.01 * np.ones(16_000, dtype=np.float32)
    long, short = pipe([np.tile(quiet, 12), np.tile(quiet, 10)], rationale=False)
    assert (long["audio_seconds"], long["speech_seconds"]) == (12.0, 3.0)
    assert "speech_seconds" not in short and "speech_seconds" not in pipe(np.tile(quiet, 12), speech=False)
    assert "3.0 of 12.0 s are speech" in long.page()
    monkeypatch.setattr("mmsr.inference.pipeline.speech_seconds", lambda wave: None)  # without silero-vad
    assert "audio_seconds" not in pipe(np.tile(quiet, 12))


def test_a_recogniser_by_name_is_opened(
    pipe: SentimentReasoningPipeline, waveforms: list[np.ndarray], tmp_path: Path
):
    with pytest.raises(ValueError, match=str(tmp_path)):
        pipe(waveforms[0], asr=tmp_path)  # a folder without a recogniser


@pytest.mark.parametrize("beams", [1, 2])
def test_alternatives_are_the_forced_rationales(
    pipe: SentimentReasoningPipeline, utterances: list[Answer], beams: int
):
    answers = pipe(utterances, batch_size=5, alternatives=True, num_beams=beams)
    forced = {
        label: pipe(utterances, batch_size=5, forced_label=label, num_beams=beams)
        for label in pipe.model.config.labels
    }
    for row, answer in enumerate(answers):
        others = {label: of[row]["rationale"] for label, of in forced.items() if label != answer["label"]}
        assert answer["alternatives"] == others and len(others) == 2
        assert answer["rationale"] == forced[answer["label"]][row]["rationale"]


@pytest.mark.parametrize("rationale_format", ["multitask", "post_thinking", "pre_thinking"])
def test_rationales_of_all_labels_are_one_batch(
    make_model: Callable[..., MmsrForSentimentReasoning],
    processor: MmsrProcessor,
    fitting: dict[str, Any],
    utterances: list[Answer],
    monkeypatch: pytest.MonkeyPatch,
    rationale_format: str,
):
    model = make_model(**{**fitting, "rationale_format": rationale_format})
    pipe = pipeline(TASK, model=model, processor=processor, max_new_tokens=6)
    rows: list[int] = []
    generate = model.generate

    def counted(**inputs: Any) -> Any:
        rows.append(len(inputs["encoder_outputs"].last_hidden_state))
        return generate(**inputs)

    monkeypatch.setattr(model, "generate", counted)
    pipe(utterances[:2], batch_size=2, alternatives=True)
    # with the label in the text, that of the predicted one is written first, on its own
    assert rows == ([2 * 3] if rationale_format == "multitask" else [2, 2 * 2])
    rows.clear()
    answers = pipe(utterances[:2], batch_size=2, alternatives=True, forced_label="positive")
    assert rows[-1] == 2 * 3 and len(rows) == (1 if rationale_format == "multitask" else 2)
    for answer in answers:
        assert len(answer["alternatives"]) == 2 and answer["label"] not in answer["alternatives"]
        if answer["label"] != "positive":
            assert answer["alternatives"]["positive"] == answer["rationale"]


def test_the_unsure_are_marked(pipe: SentimentReasoningPipeline, utterances: list[Answer]):
    scores = sorted(answer["score"] for answer in pipe(utterances, rationale=False))
    answers = pipe(utterances, rationale=False, abstain_below=scores[2])
    assert sorted(answer["abstained"] for answer in answers) == [False] * 3 + [True] * 2
    assert all(answer["abstained"] == (answer["score"] < scores[2]) for answer in answers)


def test_outliers_are_named_and_what_has_nothing_else_is_abstained_from(
    pipe: SentimentReasoningPipeline, utterances: list[Answer]
):
    plain = pipe(utterances, rationale=False)
    encoder = pipe.model.encoder
    for modality in ("audio", "text"):
        encoder.add_outlier_detector(modality, 1)
    fine = pipe(utterances, rationale=False)
    assert fine == [answer | {"outliers": [], "abstained": False} for answer in plain]
    encoder.audio_outlier_detector.bias.fill_(9.0)
    answers = pipe(utterances, rationale=False, attention=True)
    assert [answer["outliers"] for answer in answers] == [["audio"], [], ["audio"], ["audio"], ["audio"]]
    assert [answer["abstained"] for answer in answers] == [False, False, True, True, False]
    assert [answer.get("abstained_because") for answer in answers] == [
        None, None, *["no speech was heard"] * 2, None
    ]  # fmt: skip
    alone = pipe({"text": utterances[0]["text"]}, rationale=False)
    assert answers[0]["scores"] == pytest.approx(alone["scores"], abs=1e-5)
    assert answers[0]["attention"]["audio"] is None and answers[0]["attention"]["words"]
    encoder.text_outlier_detector.bias.fill_(9.0)
    both = pipe(utterances[0], rationale=False, abstain_below=1e-6)
    assert (both["outliers"], both["abstained"]) == (["audio", "text"], True)
    assert both["abstained_because"] == (
        "no speech was heard; the text is in no language that the model knows"
    )
    encoder.audio_outlier_detector.bias.fill_(-9.0)
    unsure = pipe(utterances[0], rationale=False, abstain_below=1)
    assert unsure["abstained"] and "abstained_because" not in unsure and unsure["outliers"] == ["text"]


@pytest.mark.parametrize("fusion", [fusion for fusion in tuple(FUSION_CLASSES) if attention_map(fusion)])
def test_attention_is_a_share_of_words_and_of_seconds(
    make_model: Callable[..., MmsrForSentimentReasoning],
    processor: MmsrProcessor,
    fitting: dict[str, Any],
    utterances: list[Answer],
    fusion: str,
):
    model = make_model(**{**fitting, "fusion": fusion})
    pipe = pipeline(TASK, model=model, processor=processor, rationale=False)
    implementation = model.config._attn_implementation
    answers = pipe(utterances, batch_size=5, attention=True)
    assert model.config._attn_implementation == implementation
    looks = {"words": fusion != "audio_to_text", "audio": fusion != "text_to_audio"}
    for answer, utterance in zip(answers, utterances, strict=True):
        attention = answer["attention"]
        text, audio = utterance.get("text"), utterance.get("audio")
        assert (attention["words"] is not None) == (looks["words"] and text is not None)
        assert (attention["audio"] is not None) == (looks["audio"] and audio is not None)
        for weights in filter(None, attention.values()):
            assert sum(one["weight"] for one in weights) == pytest.approx(1)
            assert min(one["weight"] for one in weights) >= 0
        if attention["words"]:
            assert [one["word"] for one in attention["words"]] == text.split()
        if attention["audio"]:
            assert attention["audio"][0]["start"] == 0
            assert attention["audio"][-1]["end"] == pytest.approx(len(audio) / 16_000, abs=1e-3)
    assert json.loads(json.dumps(answers)) == answers


def test_attention_is_the_fusion_s(pipe: SentimentReasoningPipeline, utterances: list[Answer]):
    answer = pipe(utterances[0], attention=True, rationale=False)
    text, audio = utterances[0]["text"], utterances[0]["audio"]
    inputs = pipe.processor(text=[text], audio=[audio], return_tensors="pt")
    pipe.model.set_attn_implementation("eager")
    with torch.no_grad():
        over_audio, over_text = pipe.model.encoder(**inputs, output_attentions=True).fusion_attentions[-1]
    real = slice(1, inputs["input_ids"].shape[1] - 1)  # between <s> and </s>
    frames = over_audio[0].mean(0)[real].mean(0)
    assert_close(torch.tensor([one["weight"] for one in answer["attention"]["audio"]]), frames)
    pieces = over_text[0].mean(0).mean(0)
    words = pipe.processor.word_tokens(text)
    assert sorted(position for word in words for position in word.positions) == list(range(*real.indices(99)))
    expected = torch.stack([pieces[list(word.positions)].sum() for word in words]) / pieces[real].sum()
    assert_close(torch.tensor([one["weight"] for one in answer["attention"]["words"]]), expected)


def test_who_cannot_look_or_write_says_so(
    make_model: Callable[..., MmsrForSentimentReasoning],
    processor: MmsrProcessor,
    fitting: dict[str, Any],
    utterances: list[Answer],
):
    model = make_model(**{**fitting, "fusion": "gated", "rationale_format": "none"})
    pipe = pipeline(TASK, model=model, processor=processor)
    with pytest.raises(ValueError, match="fusion='gated' has none; accepted: a model with fusion cross_att"):
        pipe(utterances[0], attention=True)
    with pytest.raises(ValueError, match="alternatives=True, but this model gives a label only"):
        pipe(utterances[0], alternatives=True)
    with pytest.raises(ValueError, match="abstain_below=2; accepted: a probability, above 0, to 1"):
        pipe(utterances[0], abstain_below=2)


def test_alternatives_need_rationales(pipe: SentimentReasoningPipeline, utterances: list[Answer]):
    with pytest.raises(ValueError, match="alternatives=True contradicts rationale=False"):
        pipe(utterances[0], alternatives=True, rationale=False)


def test_an_answer_keeps_what_it_is_about_and_no_waveform(
    pipe: SentimentReasoningPipeline, waveforms: list[np.ndarray], tmp_path: Path
):
    path = str(tmp_path / "speech.wav")
    soundfile.write(path, waveforms[0], 16_000, subtype="FLOAT")
    answer = pipe({"audio": path, "text": "freundlich", "language": "de"}, rationale=False)
    assert answer.utterance == {"audio": path, "text": "freundlich", "language": "de", "asr_words": None}
    page = answer._repr_html_()
    assert "data:audio/flac" in page and 'lang="de"' in page
    assert type(pipe({"text": "kind"}, rationale=False)) is not dict


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("  The doctor, was kind. ", ["The", "doctor,", "was", "kind."]),
        ("bác sĩ rất tốt", ["bác", "sĩ", "rất", "tốt"]),
        ("🙂 kind</s>", ["🙂", "kind</s>"]),
    ],
)
def test_words_are_made_of_their_pieces(processor: MmsrProcessor, text: str, words: list[str]):
    processor.text_prefix = "query: "
    try:
        found = processor.word_tokens(text)
        ids = processor(text=[text])["input_ids"][0]
    finally:
        processor.text_prefix = ""
    assert [word.word for word in found] == words
    positions = [position for word in found for position in word.positions]
    assert positions == sorted(set(positions)) and positions[-1] == len(ids) - 2


def test_chinese_words_are_pieces(processor: MmsrProcessor):
    assert "".join(word.word for word in processor.word_tokens("医生 很好。")) == "医生很好。"
    assert len(processor.word_tokens("医生很好。")) > 1


@pytest.fixture
def explained(
    make_model: Callable[..., MmsrForSentimentReasoning], processor: MmsrProcessor, fitting: dict[str, Any]
) -> SentimentReasoningPipeline:
    """A model without a decoder that names its evidence."""
    processor = MmsrProcessor(processor.feature_extractor, processor.tokenizer, rationale_format="none")
    settings = {**fitting, **processor.config_kwargs(), "decoder_type": "none", "text_outlier_layer": 1}
    heads = {
        "audio_outlier_layer": 1,
        "voice_emotions": ["anger", "neutral"],
        "text_emotions": ["joy", "fear", "neutral"],
        "text_languages": ["en", "vi"],
    }
    return pipeline(TASK, model=make_model(**settings, **heads), processor=processor)


def test_evidence_is_named_by_a_template(explained: SentimentReasoningPipeline, utterances: list[Answer]):
    answers = explained(utterances, batch_size=3, alternatives=True)
    for answer, row in zip(answers, utterances, strict=True):
        others = [label for label in explained.model.config.labels if label != answer["label"]]
        assert list(answer["alternatives"]) == others or not row.get("text")
        for rationale in (answer["rationale"], *answer["alternatives"].values()):
            assert all(one in (row.get("text") or "") for one in rationale.split('"')[1::2])
        assert [one["text"] for one in answer["evidence"]] == answer["rationale"].split('"')[1::2]
        assert (answer["voice"] is None) is ("audio" not in row)
        if answer["voice"] is not None:
            assert sum(answer["voice"].values()) == pytest.approx(1)
        if row.get("text") and "audio" not in row:
            quoted = answer["label"] != "neutral"
            assert (answer["grounded"], bool(answer["evidence"])) == (quoted, quoted)
            assert "voice" not in answer["rationale"]
    for answer, alone in zip(answers, map(explained, utterances), strict=True):
        assert answer["rationale"] == alone["rationale"]
    assert explained(utterances[0], rationale=False)["rationale"] is None


def test_a_voice_is_called_the_same_beside_any_text(
    explained: SentimentReasoningPipeline, waveforms: list[np.ndarray]
):
    texts = [None, "nobody listened", "医生对我很好"]
    answers = [explained({"audio": waveforms[0], "text": text}) for text in texts]
    for answer in answers[1:]:
        assert answer["voice"] == pytest.approx(answers[0]["voice"], abs=1e-5)


def test_a_forced_label_is_explained_by_the_template(
    explained: SentimentReasoningPipeline, utterances: list[Answer]
):
    for label in explained.model.config.labels:
        answer = explained(utterances[1], forced_label=label)
        assert answer["forced_label"] == label
        assert ("neutral" in answer["rationale"]) is (label == "neutral")


def test_nothing_is_said_of_an_outlier(explained: SentimentReasoningPipeline, utterances: list[Answer]):
    explained.model.encoder.audio_outlier_detector.bias.fill_(9.0)
    both, alone = explained(utterances[0]), explained(utterances[2], alternatives=True)
    assert all("seconds" not in one for one in both["evidence"]) and alone["alternatives"] == {}
    assert both["voice"] is None and "voice" not in both["rationale"]
    assert alone["abstained"] and alone["rationale"] is None and alone["grounded"] is None


def test_a_rationale_is_in_the_language_that_is_given(
    explained: SentimentReasoningPipeline, waveforms: list[np.ndarray]
):
    for given in ({"text": "the doctor was kind"}, {"audio": waveforms[0]}):
        answers = [explained({**given, "language": code}) for code in ("German", "vi", "en", "fi", 3)]
        assert len({answer["rationale"] for answer in answers[:3]}) == 3
        assert answers[3]["rationale"] == answers[2]["rationale"], "English where there are no phrases"


def test_an_unknown_forced_label_is_refused(explained: SentimentReasoningPipeline, utterances: list[Answer]):
    for utterance in (utterances[1], utterances[2]):
        with pytest.raises(ValueError, match="unknown label 'foo'; accepted: "):
            explained(utterance, forced_label="foo")
    assert explained(utterances[1], forced_label=0)["forced_label"] == explained.model.config.labels[0]


def test_a_misspelt_key_is_named_and_other_columns_are_none(pipe):
    with pytest.raises(ValueError, match="the unknown key 'txt'; did you mean text"):
        pipe({"audio": np.zeros(16_000, dtype=np.float32), "txt": "so kind"})
    pipe({"text": "so kind", "asr_text": "so", "label": "positive", "texture": 1, "gender": "f"})

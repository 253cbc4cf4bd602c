import json
import logging
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from transformers import AutoProcessor, AutoTokenizer, Wav2Vec2FeatureExtractor

from mmsr.model.configuration import MmsrConfig
from mmsr.model.processing import MmsrProcessor, scale_to_level

Waveforms = list[np.ndarray]


SCRIPTS = [
    "bác sĩ rất tận tâm, cảm ơn nhiều",
    "医生对我很好，谢谢！",
    "I waited 3 hours 😡👩🏽‍⚕️ and left",
    "доктор был внимателен",
    "طبيب ممتاز",
    "a line\nand a\ttab",
]


def test_both_modalities_of_a_batch(processor: MmsrProcessor, waveforms: Waveforms):
    texts = ["the doctor was kind", "nobody listened", "kind"]
    inputs = processor(text=texts, audio=waveforms, return_tensors="pt")
    assert set(inputs) == set(processor.model_input_names)
    assert inputs["input_values"].dtype == torch.float32 and inputs["input_values"].shape == (3, 4800)
    assert inputs["input_values_mask"].sum(1).tolist() == [4000, 3200, 4800]
    for index, audio in enumerate(waveforms):
        assert np.array_equal(inputs["input_values"][index, : len(audio)], audio)
        assert not inputs["input_values"][index, len(audio) :].any()
    for index, text in enumerate(texts):
        ids = inputs["input_ids"][index][inputs["attention_mask"][index] == 1]
        assert ids[0] == 0 and ids[-1] == 2
        assert processor.tokenizer.decode(ids, skip_special_tokens=True) == text
    assert all(inputs[name].dtype == torch.long for name in inputs if name != "input_values")


def test_an_absent_modality_has_a_mask_of_zeros(processor: MmsrProcessor, waveforms: Waveforms):
    inputs = processor(
        text=[None, "kind words", "kind"], audio=[waveforms[0], None, waveforms[1]], return_tensors="pt"
    )
    assert inputs["input_values_mask"].sum(1).tolist() == [4000, 0, 3200]
    assert not inputs["input_values"][1].any()
    assert inputs["attention_mask"].any(1).tolist() == [False, True, True]
    assert set(processor(text=["kind"])) == {"input_ids", "attention_mask"}
    assert set(processor(audio=waveforms)) == {"input_values", "input_values_mask"}


def test_states_of_an_audio_encoder_stand_in_place_of_audio(processor: MmsrProcessor):
    states = [torch.full((3, 2, 4), 1.0, dtype=torch.float16), None, torch.full((5, 2, 4), 2.0)]
    inputs = processor(text=[None, "very kind", "so"], audio_features=states, return_tensors="pt")
    assert set(inputs) == {"input_ids", "attention_mask", "audio_features", "audio_features_mask"}
    assert inputs["audio_features"].shape == (3, 5, 2, 4) and inputs["audio_features"].dtype == torch.float32
    assert inputs["audio_features_mask"].tolist() == [[1, 1, 1, 0, 0], [0] * 5, [1] * 5]
    assert (inputs["audio_features"].amax((1, 2, 3)) == torch.tensor([1.0, 0.0, 2.0])).all()
    assert not inputs["audio_features"][0, 3:].any()
    assert inputs["attention_mask"].any(1).tolist() == [False, True, True]
    assert set(processor(audio_features=states[::2])) == {"audio_features", "audio_features_mask"}
    with pytest.raises(ValueError, match="audio and audio_features were given; accepted: one of them"):
        processor(audio=[np.ones(9)], audio_features=states[:1])
    with pytest.raises(ValueError, match="row 1 has neither audio nor text"):
        processor(audio_features=states)
    with pytest.raises(ValueError, match=r"rows do not match in number: \{'text': 1, 'audio_features': 3\}"):
        processor(text=["kind"], audio_features=states)


@pytest.mark.parametrize("kind", ["numpy", "torch", "list", "int16-like"])
def test_one_utterance_needs_no_list(processor: MmsrProcessor, waveforms: Waveforms, kind: str):
    one: Any = waveforms[0]
    given = {
        "numpy": one,
        "torch": torch.from_numpy(one),
        "list": one.tolist(),
        "int16-like": one.astype("f8"),
    }
    inputs = processor(text="kind", audio=given[kind], sentiment="positive", rationale="so kind")
    assert np.allclose(inputs["input_values"][0], one) and len(inputs["input_ids"]) == 1
    assert inputs["sentiment_labels"] == [2] and len(inputs["labels"]) == 1
    matrix = processor(audio=np.stack([one, one]))
    assert matrix["input_values"].shape == (2, 4000)


@pytest.mark.parametrize("normalise", [False, True])
def test_the_level_is_kept_unless_asked(processor: MmsrProcessor, waveforms: Waveforms, normalise: bool):
    """Loudness is evidence; an absent row is silent either way."""
    processor.feature_extractor = Wav2Vec2FeatureExtractor(do_normalize=normalise, return_attention_mask=True)
    quiet, loud = waveforms[0] * 0.1, waveforms[0] * 5.0
    inputs = processor(text=["a", "b", "c"], audio=[quiet, loud, None], return_tensors="pt")
    level = inputs["input_values"][:, :4000].std(-1)
    assert_close(
        level[:2], torch.ones(2) if normalise else torch.tensor([quiet.std(), loud.std()]), rtol=1e-2, atol=0
    )
    assert level[2] == 0


def speech(seconds: float = 1.0, level: float = -30.0, seed: int = 0) -> np.ndarray:
    """Noise of that RMS level in dBFS, which starts and ends on a frame of 20 ms."""
    noise = np.random.default_rng(seed).standard_normal(round(16_000 * seconds))
    return (noise * 10 ** (level / 20) / np.sqrt(np.mean(noise**2))).astype(np.float32)


def silence(samples: int) -> np.ndarray:
    return np.zeros(samples, dtype=np.float32)


def level_of(samples: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(samples, dtype=np.float64))))


@pytest.mark.parametrize("gain", [1e-2, 0.5, 1.0, 30.0])
def test_a_target_level_is_reached_whatever_the_gain(gain: float):
    words, breath = speech(), speech(level=-45)
    clip = np.concatenate([words, breath])
    scaled = scale_to_level(clip * np.float32(gain), -23, rate=16_000)
    assert scaled.dtype == np.float32 and len(scaled) == len(clip)
    assert level_of(scaled[: len(words)]) == pytest.approx(-23, abs=0.02)
    assert_close(scaled, scale_to_level(clip, -23, rate=16_000), rtol=1e-6, atol=0)
    assert level_of(scaled[: len(words)]) - level_of(scaled[len(words) :]) == pytest.approx(15, abs=0.05)
    assert np.abs(scale_to_level(clip, -6, rate=16_000)).max() > 1  # not clipped


@pytest.mark.parametrize(("before", "within", "after"), [(1000, 0, 777), (0, 6400, 0), (5, 320_000, 1)])
def test_pauses_do_not_change_the_gain(before: int, within: int, after: int):
    first, second = speech(0.5), speech(0.5, level=-45, seed=1)
    clip = np.concatenate([silence(before), first, silence(within), second, silence(after)])
    expected = scale_to_level(np.concatenate([first, second]), -23, rate=16_000)
    scaled = scale_to_level(clip, -23, rate=16_000)
    assert_close(scaled[scaled != 0], expected, rtol=1e-6, atol=0)
    assert (scaled != 0).sum() == len(expected) and len(scaled) == len(clip)


def test_quiet_frames_are_gated_by_the_mean_of_those_with_sound():
    """A pause with the room's noise, and dither in place of digital silence, count as little."""
    words = speech()
    for pause in (speech(3, level=-55, seed=1), speech(30, level=-110, seed=1)):
        scaled = scale_to_level(np.concatenate([pause, words]), -23, rate=16_000)
        assert level_of(scaled[len(pause) :]) == pytest.approx(-23, abs=0.02)
    soft = speech(level=-36, seed=1)  # 6 dB lower is speech
    assert level_of(scale_to_level(np.concatenate([words, soft]), -23, rate=16_000)) == pytest.approx(-23)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "clip", [silence(1), silence(4000), speech(level=-100), silence(9) + np.float32(1e-45)]
)
def test_silence_stays_silence(trained_processor: MmsrProcessor, clip: np.ndarray):
    assert np.array_equal(scale_to_level(clip, -23, rate=16_000), clip)
    processor = MmsrProcessor(
        trained_processor.feature_extractor, trained_processor.tokenizer, target_level=-23
    )
    assert np.array_equal(processor(audio=[clip])["input_values"][0], clip)


def test_a_level_is_each_rows_own(trained_processor: MmsrProcessor):
    clips = [speech(0.31, level=-50), None, np.full(1, 0.5, dtype=np.float32), speech(0.5, level=-10)]
    processor = MmsrProcessor(
        trained_processor.feature_extractor, trained_processor.tokenizer, target_level=-20
    )
    inputs = processor(text=["kind"] * 4, audio=clips, return_tensors="pt")
    for row, clip in enumerate(clips):
        if clip is None:
            assert not inputs["input_values"][row].any() and not inputs["input_values_mask"][row].any()
            continue
        alone = processor(audio=clip, return_tensors="pt")["input_values"][0]
        assert torch.equal(inputs["input_values"][row, : len(clip)], alone)
        assert np.array_equal(alone.numpy(), scale_to_level(clip, -20, rate=16_000))
        assert inputs["input_values_mask"][row].sum() == len(clip)
    assert np.array_equal(trained_processor(audio=clips[0])["input_values"][0], clips[0])  # off by default


def test_a_level_is_saved_only_where_it_is_set(trained_processor: MmsrProcessor, tmp_path: Path):
    def saved(**options: Any) -> dict[str, Any]:
        parts = trained_processor.feature_extractor, trained_processor.tokenizer
        MmsrProcessor(*parts, **options).save_pretrained(tmp_path)
        return json.loads((tmp_path / "processor_config.json").read_text("utf-8"))

    plain = saved()
    assert "target_level" not in plain and MmsrProcessor.from_pretrained(tmp_path).target_level is None
    assert saved(target_level=-23) == {**plain, "target_level": -23.0}
    loaded = MmsrProcessor.from_pretrained(tmp_path)
    assert level_of(loaded(audio=speech())["input_values"][0]) == pytest.approx(-23, abs=0.02)


@pytest.mark.parametrize(
    ("level", "normalise", "message"),
    [
        (0, False, "target_level is 0; accepted: a level in dBFS, below 0, or None"),
        (23.0, False, "target_level is 23.0; accepted: a level"),
        (float("nan"), False, "target_level is nan; accepted: a level"),
        (float("-inf"), False, "target_level is -inf; accepted: a level"),
        (
            -23,
            True,
            r"target_level is -23, and .* a variance of 1 \(do_normalize=True\); accepted: one of the",
        ),
    ],
)
def test_a_level_that_cannot_be_is_refused(
    trained_processor: MmsrProcessor, level: float, normalise: bool, message: str
):
    extractor = Wav2Vec2FeatureExtractor(do_normalize=normalise, return_attention_mask=True)
    with pytest.raises(ValueError, match=message):
        MmsrProcessor(extractor, trained_processor.tokenizer, target_level=level)


def test_rationale_targets_are_label_words_end(processor: MmsrProcessor):
    inputs = processor(
        text=["a"] * 4,
        rationale=["so very kind", "angry words", None, "unread, since its label is unknown"],
        sentiment=["positive", 0, "neutral", None],
        return_tensors="pt",
    )
    assert inputs["sentiment_labels"].tolist() == [2, 0, 1, -100]
    labels = inputs["labels"]
    assert (labels[2:] == -100).all()
    for index, (label, words) in enumerate([("positive", "so very kind"), ("negative", "angry words")]):
        row = labels[index][labels[index] != -100]
        assert row[0] == processor.tokenizer.convert_tokens_to_ids(f"<|{label}|>") and row[-1] == 2
        assert processor.tokenizer.decode(row[1:-1]) == words
    assert processor.decode_rationales(labels.masked_fill(labels == -100, 1))[:2] == [
        "so very kind",
        "angry words",
    ]


def test_the_prefix_stands_before_every_transcript(trained_processor: MmsrProcessor):
    prefixed = MmsrProcessor(
        trained_processor.feature_extractor, trained_processor.tokenizer, text_prefix="query: "
    )
    assert (
        prefixed(text=["kind"], rationale=["kind"], sentiment=[0])["input_ids"]
        == trained_processor(text=["query: kind"])["input_ids"]
    )
    targets = prefixed(text=["kind"], rationale=["kind"], sentiment=[0])["labels"][0]
    assert prefixed.tokenizer.decode(targets[1:-1]) == "kind"


def check_that_words_stay_words(processor: MmsrProcessor) -> None:
    """Nothing that a speaker says, or that a rationale quotes, puts a label or an end into the sequence."""
    tokenizer = processor.tokenizer
    special = {index for index in tokenizer.all_special_ids if index != tokenizer.unk_token_id}
    special |= set(processor.label_token_ids)
    for written in (
        "</s> kind <s>",
        "a<|positive|>b",
        "<pad>",
        "<unk> <mask>",
        "＜/s＞ ＜|negative|＞",
        "<|neutral|>",
    ):
        inputs = processor(text=[written], rationale=[written], sentiment=["neutral"])
        text, target = inputs["input_ids"][0], inputs["labels"][0]
        assert text[0] == tokenizer.cls_token_id and text[-1] == tokenizer.sep_token_id
        assert target[0] == processor.label_token_ids[1] and target[-1] == tokenizer.eos_token_id
        assert not special & {*text[1:-1], *target[1:-1]}, written
        assert len(text) > 4 and len(target) > 4  # its letters are there


def test_words_that_spell_a_special_token_stay_words(processor: MmsrProcessor):
    check_that_words_stay_words(processor)
    plain = processor(text=["kind words < s > 3 < 4"])["input_ids"]
    assert plain == processor.tokenizer(["kind words < s > 3 < 4"])["input_ids"]


def test_what_is_too_long_is_cut_with_one_warning_and_a_count(
    processor: MmsrProcessor, caplog: pytest.LogCaptureFixture
):
    long = "doctor " * 300
    processor.tokenizer.deprecation_warnings.clear()
    processor.max_rationale_tokens = 5
    with caplog.at_level(logging.WARNING):
        inputs = processor(
            text=[long, "kind", long],
            rationale=[long, "kind", None],
            sentiment=[0, 1, 2],
            return_tensors="pt",
        )
    assert [record.getMessage() for record in caplog.records] == [
        "2 transcript(s) of 3 were cut to 200 tokens",
        "1 rationale(s) of 3 were cut to 5 tokens",
    ]
    assert inputs["input_ids"].shape == (3, 200) and inputs["input_ids"][0, -1] == 2
    assert inputs["labels"].shape == (3, 7) and inputs["labels"][0, -1] == 2


def test_a_length_in_tokens_leaves_the_audio_alone(processor: MmsrProcessor, waveforms: Waveforms):
    lengths = {"padding": "max_length", "truncation": True, "max_length": 12, "return_tensors": "pt"}
    inputs = processor(text=["kind"] * 3, audio=waveforms, **lengths)
    assert inputs["input_ids"].shape == (3, 12)
    assert inputs["input_values_mask"].sum(1).tolist() == [4000, 3200, 4800]
    audio_kwargs = {"padding": "max_length", "max_length": 6000}
    padded = processor(text=["kind"] * 3, audio=waveforms, audio_kwargs=audio_kwargs, return_tensors="pt")
    assert padded["input_values"].shape == (3, 6000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing to process: pass text, audio, or both"),
        (
            {"text": ["a", "b"], "audio": [np.ones(400)], "sentiment": [0, 1]},
            r"rows do not match in number: \{'text': 2, 'audio': 1, 'sentiment': 2\}",
        ),
        (
            {"text": ["a", None], "audio": [np.ones(400), None]},
            "row 1 has neither audio nor text; accepted: at least one of them",
        ),
        ({"text": ["a", None]}, "row 1 has neither audio nor text"),
        ({"text": ["a", " \n"]}, "row 1: text is empty; accepted: words, or None"),
        (
            {"audio": [np.ones(9), np.ones((2, 400))]},
            r"row 1: audio has shape \(2, 400\); accepted: one channel, \[samples\]",
        ),
        (
            {"audio": [np.ones(0)]},
            "row 0: audio has no samples; accepted: a waveform, or None",
        ),
        (
            {"audio": [np.array([0.0, np.nan])]},
            "row 0: audio holds NaN or infinite samples; accepted: finite",
        ),
        ({"audio": [np.array([0.0, np.inf])]}, "row 0: audio holds NaN or infinite samples"),
        ({"audio": [np.ones(9)], "sampling_rate": 8000}, "sampling rate of 16000.* not 8000"),
        (
            {"text": ["a"], "sentiment": ["furious"]},
            "unknown label 'furious'; accepted: negative, neutral, positive or 0 to 2",
        ),
        ({"text": ["a"], "sentiment": [3]}, "unknown label 3; accepted: negative"),
        ({"text": ["a"], "sentiment": [-1]}, "unknown label -1; accepted: negative"),
        (
            {"text": ["a"], "rationale": ["b"]},
            "rationale was given without sentiment: a rationale starts from its",
        ),
    ],
)
def test_bad_input_raises_by_row(processor: MmsrProcessor, arguments: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        processor(**arguments)


def test_labels_without_tokens_raise_until_they_have_some(trained_processor: MmsrProcessor, tmp_path: Path):
    trained_processor.tokenizer.save_pretrained(tmp_path)
    processor = MmsrProcessor(
        trained_processor.feature_extractor,
        AutoTokenizer.from_pretrained(tmp_path),
        labels=["calm", "positive"],
    )
    with pytest.raises(
        ValueError, match=r"the tokenizer has no token for label\(s\) calm: see `add_label_tokens`"
    ):
        processor(text=["a"], rationale=["b"], sentiment=["calm"])
    size = len(processor.tokenizer)
    assert processor.add_label_tokens() == 1 and processor.add_label_tokens() == 0
    assert processor.label_token_ids == [size, 7]
    assert processor.decode_rationales(torch.tensor([[0, size, 2]])) == [""]


@pytest.mark.parametrize("text", SCRIPTS)
def test_any_script_survives_the_round_trip(processor: MmsrProcessor, text: str):
    """Also scripts that the tokenizer has not seen, as bytes; what is decomposed comes back composed."""
    for written in (text, unicodedata.normalize("NFD", text)):
        targets = processor(text=[written], rationale=[written], sentiment=[1], return_tensors="pt")
        assert processor.tokenizer.unk_token_id not in targets["labels"]
        assert processor.decode_rationales(targets["labels"]) == [unicodedata.normalize("NFC", text)]
        decoded = processor.tokenizer.decode(targets["input_ids"][0], skip_special_tokens=True)
        assert decoded == unicodedata.normalize("NFC", text)


def test_the_config_learns_of_the_processor(processor: MmsrProcessor):
    config = MmsrConfig.from_preset("tiny", **processor.config_kwargs())
    assert config.labels == processor.labels and config.sampling_rate == 16_000
    tokens = (config.pad_token_id, config.bos_token_id, config.eos_token_id, config.decoder_start_token_id)
    assert tokens == (1, 0, 2, 0)


def test_saved_equals_loaded(trained_processor: MmsrProcessor, waveforms: Waveforms, tmp_path: Path):
    saved = MmsrProcessor(
        trained_processor.feature_extractor,
        trained_processor.tokenizer,
        labels=["positive", "neutral", "negative"],
        text_prefix="query: ",
        max_rationale_tokens=4,
    )
    saved.save_pretrained(tmp_path)
    MmsrConfig.from_preset("tiny").save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded, MmsrProcessor)
    arguments: dict[str, Any] = {
        "text": SCRIPTS[:3],
        "audio": waveforms,
        "rationale": SCRIPTS[3:],
        "sentiment": ["positive", "neutral", 2],
        "return_tensors": "pt",
    }
    expected, got = saved(**arguments), loaded(**arguments)
    assert set(got) == set(expected)
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    once = trained_processor(text=[f"query: {text}" for text in SCRIPTS[:3]], return_tensors="pt")
    assert torch.equal(got["input_ids"], once["input_ids"]) and loaded.text_prefix == "query: "
    assert loaded.labels == saved.labels and loaded.max_rationale_tokens == 4
    assert not loaded.feature_extractor.do_normalize
    assert loaded.to_dict() == saved.to_dict()


@pytest.mark.parametrize(
    ("preprocessor", "normalises"),
    [
        ({"do_normalize": True}, True),
        ({"do_normalize": False}, False),
        ({"feature_extractor_type": "WhisperFeatureExtractor", "do_normalize": True}, False),
    ],
)
def test_pretrained_encoders_bring_tokenizer_and_level(
    trained_processor: MmsrProcessor, tmp_path: Path, preprocessor: dict[str, Any], normalises: bool
):
    """A waveform encoder was trained on levelled audio, or not; Whisper's own log-mel levels for itself."""
    extractor = Wav2Vec2FeatureExtractor()
    extractor.save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    settings = {**extractor.to_dict(), **preprocessor}
    path.write_text(json.dumps(settings))
    trained_processor.tokenizer.save_pretrained(tmp_path)
    processor = MmsrProcessor.from_encoders(audio=tmp_path, text=tmp_path, labels=["bad", "good"])
    assert processor.feature_extractor.do_normalize == normalises
    size = len(trained_processor.tokenizer)
    assert processor.label_token_ids == [size, size + 1]
    plain = MmsrProcessor.from_encoders(
        text=tmp_path, rationale_format="none", text_prefix="query: ", target_level=-23
    )
    assert not plain.feature_extractor.do_normalize and len(plain.tokenizer) == size
    assert plain.text_prefix == "query: " and plain.target_level == -23


def test_timm_keeps_the_level(trained_processor: MmsrProcessor, tmp_path: Path):
    """There is no preprocessor to ask, on the Hub or elsewhere: the log-mel is made inside the model."""
    trained_processor.tokenizer.save_pretrained(tmp_path)
    processor = MmsrProcessor.from_encoders(audio="timm/resnet18.a1_in1k", text=tmp_path)
    extractor = processor.feature_extractor
    assert not extractor.do_normalize and extractor.sampling_rate == 16_000


@pytest.mark.slow
def test_a_real_tokenizer_gets_label_tokens(shared_models: Path):
    processor = MmsrProcessor.from_encoders(
        audio=shared_models / "whisper-base", text=shared_models / "multilingual-e5-small-30k"
    )
    assert not processor.feature_extractor.do_normalize
    inputs = processor(text=["bác sĩ"], rationale=["rất tốt"], sentiment=["positive"], return_tensors="pt")
    assert processor.decode_rationales(inputs["labels"]) == ["rất tốt"]
    assert inputs["labels"][0, 0] == processor.label_token_ids[2]
    kwargs = processor.config_kwargs()
    assert None not in kwargs.values() and kwargs["pad_token_id"] == processor.tokenizer.pad_token_id
    check_that_words_stay_words(processor)

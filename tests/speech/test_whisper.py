"""Whisper's languages and loops, and the real model on real speech."""

from pathlib import Path

import numpy as np
import pytest
import torch

import mmsr
from mmsr.data.manifest.manifest import load_manifest
from mmsr.records import SAMPLE_RATE
from mmsr.speech.recogniser import Transcriber

pytest.importorskip("jiwer", reason="error rates need jiwer: pip install 'mmsr[asr]'")


def test_whisper_is_told_the_language_or_finds_it(whisper, waves):
    transcriber = Transcriber(whisper, dtype="float32", device="cpu")
    samples = waves(0.5, 0.5, 0.5)
    samples[1:] = [samples[0]] * 2
    told = transcriber.transcribe(samples, languages=["en", "vi-VN", None])
    assert [heard.language for heard in told[:2]] == ["en", "vi"]
    assert told[0].text != told[1].text
    assert told[2] == told[("en", "vi").index(told[2].language)]
    written = ("Vietnamese", "vie", "VI_vn", "Tiếng Việt")
    assert [transcriber.check_language(name) for name in written] == ["vi"] * 4
    assert transcriber.check_language("und") is None  # to be detected
    with pytest.raises(ValueError, match="does not know the language 'cantonese'; accepted: en, vi"):
        transcriber.check_language("cantonese")
    with pytest.raises(ValueError, match="'de'; accepted: en, vi"):
        transcriber.transcribe(samples, languages=["en", "de", None])


@pytest.mark.slow
def test_a_real_whisper_hears_five_languages_and_silence(shared_models, demo_corpus, tmp_path, waves):
    rows = load_manifest(demo_corpus).to_list()
    chosen = [next(row for row in rows if row["language"] == code) for code in ("en", "de", "fr", "vi", "zh")]
    from mmsr.data.audio.decoding import Audio

    transcriber = Transcriber(shared_models / "whisper-base")
    hum = (0.2 * np.sin(0.05 * np.arange(2 * SAMPLE_RATE))).astype(np.float32)
    heard = transcriber.transcribe(
        [*(Audio()(row["audio"]) for row in chosen), np.zeros(SAMPLE_RATE, np.float32), *waves(2), hum],
        languages=[*(row["language"] for row in chosen), None, None, None],
    )
    assert [row.language for row in heard[:5]] == ["en", "de", "fr", "vi", "zh"]
    assert all(row.text for row in heard[:5])
    assert [row.text for row in heard[5:]] == ["", "", ""]  # silence, noise, a hum


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("seconds", "timestamps"), [(20, "none"), (40, "none"), (40, "word")])
def test_a_real_whisper_hears_no_words_in_noise(shared_models, waves, seconds, timestamps):
    transcriber = Transcriber(shared_models / "whisper-base", timestamps=timestamps)
    (heard,) = transcriber.transcribe([0.5 * wave for wave in waves(seconds)])
    assert heard.text == "" and heard.chunks == (None if timestamps == "none" else ())


@pytest.mark.slow
def test_a_real_whisper_hears_real_speech(shared_models, shared_data):
    from mmsr.data.audio.decoding import Audio
    from mmsr.evaluation.error_rates import word_error_rate

    rows = load_manifest(shared_data / "ravdess16k" / "manifest.csv").to_list()[:4]
    heard = Transcriber(shared_models / "whisper-base")([Audio()(row["audio"]) for row in rows])
    rates = word_error_rate([row["text"] for row in rows], heard, ["en"] * 4)
    assert rates["wer"] == 0


def test_words_of_scripts_without_spaces_are_letters(shared_models):
    transcriber = Transcriber(shared_models / "whisper-base", timestamps="word", device="cpu")
    decoder = transcriber._decoder
    for code, text, words in (
        ("zh", "谢谢你,医生。", ["谢", "谢", "你,", "医", "生。"]),
        ("en", " Thank you, doctor.", ["Thank", "you,", "doctor."]),
    ):
        tokens = torch.tensor(decoder.pipe.tokenizer(text, add_special_tokens=False)["input_ids"])
        times = torch.arange(len(tokens)) * 0.1
        chunks = decoder._transcript(tokens, code, SAMPLE_RATE * 9, times=times).chunks
        assert [letter for chunk in chunks for letter in chunk.text] == [
            letter for word in words for letter in word
        ]
        assert len(chunks) >= len(words) - 1 and all(len(chunk.text) <= 8 for chunk in chunks)


def test_the_heads_that_follow_words_are_those_that_openai_published(shared_models, whisper):
    real = Transcriber(shared_models / "whisper-base", timestamps="word", device="cpu")
    assert [3, 1] in real._decoder.model.generation_config.alignment_heads
    other = Transcriber(whisper, timestamps="word", device="cpu")._decoder.model  # of another size
    assert other.generation_config.alignment_heads == [[1, 0], [1, 1]]


@pytest.mark.slow
def test_a_real_whisper_tells_when_words_were_said(shared_models):
    """Two of the packaged people, joined with a pause: known edges of the sentences."""
    from mmsr.data.audio.decoding import Audio
    from mmsr.speech.timing import WordTimes, sounding

    people = Path(mmsr.__file__).parent / "examples" / "people"
    one, two = (Audio()(path) for path in (people / "happiness.mp3", people / "sadness.mp3"))
    wave = np.concatenate([np.zeros(SAMPLE_RATE, np.float32), one, np.zeros(SAMPLE_RATE, np.float32), two])
    transcriber = Transcriber(
        shared_models / "whisper-base", timestamps="word", dtype="float32", device="cpu"
    )
    (heard,) = transcriber.transcribe([wave], languages=["en"])
    (first,) = transcriber.transcribe([one], languages=["en"])
    times = WordTimes(heard.text, sounding(wave, SAMPLE_RATE), heard.chunks)
    assert heard.text.startswith(first.text), "the sentences are heard as alone"
    begin, end, timed_by = times.of((0, len(first.text)))
    assert timed_by == "recogniser" and 1 <= begin < 2 < end <= 1 + len(one) / SAMPLE_RATE
    begin, _, _ = times.of((len(first.text) + 1, len(heard.text)))
    assert begin >= 2 + len(one) / SAMPLE_RATE

"""Whisper's languages and loops, and the real model on real speech."""

import numpy as np
import pytest

from mmsr.data.manifest.manifest import load_manifest
from mmsr.speech.decoder import RATE
from mmsr.speech.recogniser import Transcriber
from mmsr.speech.whisper import is_loop

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
    with pytest.raises(ValueError, match="'de'; accepted: en, vi"):
        transcriber.transcribe(samples, languages=["en", "de", None])


def test_loops_are_told_from_words():
    assert is_loop("the door by " * 12)
    assert not is_loop("kids are talking by the door, and dogs are sitting by the same door")


@pytest.mark.slow
def test_a_real_whisper_hears_five_languages_and_silence(shared_models, demo_corpus, tmp_path, waves):
    rows = load_manifest(demo_corpus).to_list()
    chosen = [next(row for row in rows if row["language"] == code) for code in ("en", "de", "fr", "vi", "zh")]
    from mmsr.data.audio.decoding import Audio

    transcriber = Transcriber(shared_models / "whisper-base")
    hum = (0.2 * np.sin(0.05 * np.arange(2 * RATE))).astype(np.float32)
    heard = transcriber.transcribe(
        [*(Audio()(row["audio"]) for row in chosen), np.zeros(RATE, np.float32), *waves(2), hum],
        languages=[*(row["language"] for row in chosen), None, None, None],
    )
    assert [row.language for row in heard[:5]] == ["en", "de", "fr", "vi", "zh"]
    assert all(row.text for row in heard[:5])
    assert [row.text for row in heard[5:]] == ["", "", ""]  # silence, noise, a hum


@pytest.mark.slow
def test_a_real_whisper_hears_real_speech(shared_models, shared_data):
    from mmsr.data.audio.decoding import Audio
    from mmsr.evaluation.error_rates import word_error_rate

    rows = load_manifest(shared_data / "ravdess16k" / "manifest.csv").to_list()[:4]
    heard = Transcriber(shared_models / "whisper-base")([Audio()(row["audio"]) for row in rows])
    rates = word_error_rate([row["text"] for row in rows], heard, ["en"] * 4)
    assert rates["wer"] == 0

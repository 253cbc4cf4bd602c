"""What answers to recordings, transcripts and manifests are made of, as a notebook calls it."""

import pytest
import soundfile

from mmsr.inference.loading import load_pipeline
from mmsr.inference.predict import answer_utterances, find_recordings, recording_notes


def test_recordings_are_found_in_order(tmp_path):
    for name in ("b.wav", "a.MP3", "in/c.m4a", "in/d.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    single = tmp_path / "in" / "d.csv"  # a file that is named is taken as it is
    found = find_recordings([single, tmp_path])
    assert found == [str(tmp_path / name) for name in ("in/d.csv", "a.MP3", "b.wav", "in/c.m4a")]
    assert find_recordings([]) == []
    with pytest.raises(ValueError, match=r"none: no such file; accepted: audio files, folders of them, or a"):
        find_recordings([tmp_path / "none"])


def test_utterances_are_answered_in_order_and_shown(tmp_path):
    pipe = load_pipeline("demo")
    texts = ["thank you so much", "this is terrible", "it was on a monday"]
    answers = list(answer_utterances(pipe, [{"text": text} for text in texts], batch_size=2))
    assert [answer["scores"] for answer in answers] == [
        pytest.approx(pipe({"text": text})["scores"], abs=1e-4) for text in texts
    ]
    page = tmp_path / "a.html"
    (shown,) = answer_utterances(pipe, [{"text": texts[0]}], page=page)
    assert "thank" in page.read_text("utf-8") and "attention" not in shown


def test_a_long_recording_is_noted(tmp_path):
    soundfile.write(tmp_path / "long.wav", [0.1, -0.1] * 1000 * 301, 2000)
    (note,) = recording_notes(tmp_path / "long.wav")
    assert "lasts 5 minutes and gets one answer for all of it; mmsr timeline answers" in note

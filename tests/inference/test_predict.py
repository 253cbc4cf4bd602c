"""What answers to recordings, transcripts and manifests are made of, as a notebook calls it."""

import os
import zipfile

import numpy as np
import pytest
import soundfile

from mmsr.data.audio.decoding import AudioError
from mmsr.data.manifest.issues import ManifestError
from mmsr.inference.loading import load_pipeline
from mmsr.inference.predict import answer_utterances, find_recordings, predict_manifest, recording_notes


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


def test_what_is_hidden_or_a_folder_is_no_recording(tmp_path):
    for name in ("a.wav", "._a.wav", ".cache/b.wav", "takes.wav/c.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_recordings([tmp_path]) == [str(tmp_path / name) for name in ("a.wav", "takes.wav/c.wav")]


def speak(path, *, seed: int) -> str:
    soundfile.write(path, np.random.default_rng(seed).normal(0, 0.1, 8000), 16000)
    return str(path)


def test_one_bad_recording_is_its_own_error(tmp_path):
    pipe = load_pipeline("demo")
    good = [speak(tmp_path / f"{name}.wav", seed=seed) for seed, name in enumerate("abc")]
    (tmp_path / "text.wav").write_text("no sound")
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "gone.wav").symlink_to("nowhere.wav")
    bad = [str(tmp_path / f"{name}.wav") for name in ("text", "pipe", "gone")]
    mixed = [good[0], bad[0], good[1], bad[1], bad[2], good[2]]
    assert find_recordings(mixed) == mixed
    found = list(answer_utterances(pipe, [{"audio": path} for path in mixed], batch_size=2))
    for path, answer in zip(mixed, found, strict=True):
        if path in good:
            assert isinstance(answer, dict)
            assert answer["scores"] == pytest.approx(pipe({"audio": path})["scores"], abs=1e-4)
        else:
            assert isinstance(answer, AudioError) and str(answer).startswith(f"{path}: ")
    assert "is not a file, but a named pipe; accepted: an audio file" in str(found[3])
    assert "is a link to a file that does not exist" in str(found[4])


def test_rows_of_a_manifest_with_bad_audio_are_told_and_the_others_answered(tmp_path):
    pipe = load_pipeline("demo")
    for seed, name in enumerate("ac"):
        speak(tmp_path / f"{name}.wav", seed=seed)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / "a.wav", "a.wav")
    content = bytearray((tmp_path / "all.zip").read_bytes())
    content[9000:9100] = bytes(100)
    (tmp_path / "all.zip").write_bytes(content)
    (tmp_path / "m.csv").write_text("id,audio\na,a.wav\nb,zip://a.wav::all.zip\nc,c.wav\nd,none.wav\n")
    issues = []
    predictions = predict_manifest(pipe, tmp_path / "m.csv", on_issue=issues.append)
    assert [prediction.id for prediction in predictions] == ["a", "c"]
    assert [(issue.row, issue.column) for issue in issues] == [(3, "audio"), (5, "audio")]
    assert "a.wav::" in str(issues[0]) and "'none.wav' does not exist" in str(issues[1])
    with pytest.raises(ManifestError, match=r"m\.csv, row 3, column audio: (.|\n)*row 5, column audio: "):
        predict_manifest(pipe, tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("id,audio\nb,zip://a.wav::all.zip\n")
    with pytest.raises(ManifestError, match="row 2"):  # nothing is left to answer
        predict_manifest(pipe, tmp_path / "m.csv", on_issue=issues.append)

"""What answers to recordings, transcripts and manifests are made of, as a notebook calls it."""

import csv
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

import mmsr
from mmsr.data.audio.decoding import AudioError
from mmsr.data.manifest.issues import ManifestError
from mmsr.inference.loading import load_pipeline
from mmsr.inference.predict import (
    answer_table,
    answer_utterances,
    count_long,
    find_recordings,
    predict_manifest,
    recording_notes,
    write_answers,
)


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


TEXT = "thank you so much doctor"


@pytest.mark.parametrize(("seconds", "told"), [(301, "5 minutes"), (31, "31 s")])
def test_a_long_recording_is_noted(tmp_path, seconds, told):
    soundfile.write(tmp_path / "long.wav", [0.1, -0.1] * 1000 * seconds, 2000)
    (note,) = recording_notes(tmp_path / "long.wav")
    assert f"lasts {told} and gets one answer for all of it; mmsr timeline answers" in note
    soundfile.write(tmp_path / "short.wav", [0.1, -0.1] * 1000 * 29, 2000)
    paths = [str(tmp_path / name) for name in ("long.wav", "short.wav", "none.wav")]
    assert count_long(paths) == 1 and not list(recording_notes(paths[1]))


def test_words_of_a_manifest_tell_when_they_were_said(tmp_path):
    people = Path(mmsr.__file__).parent / "examples" / "people"
    words = [
        {"text": text, "start": 0.1 * place, "end": 0.1 * place + 0.05}
        for place, text in enumerate(TEXT.split())
    ]
    rows = [
        {"audio": str(people / "happiness.mp3"), "text": TEXT, "asr_words": json.dumps(words)},
        {"audio": str(people / "happiness.mp3"), "text": TEXT, "asr_words": None},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    timed, placed = predict_manifest(load_pipeline("base"), tmp_path / "m.jsonl", forced_label="positive")
    for one in timed.evidence:
        said = one["text"].split()
        found = {word["text"]: word for word in words}
        assert one["seconds"] == pytest.approx([found[said[0]]["start"], found[said[-1]]["end"]])
        assert one["timed_by"] == "recogniser"
    assert timed.evidence and [one["timed_by"] for one in placed.evidence] == ["proportional"]
    assert timed.to_row()["asr_words"] == rows[0]["asr_words"] and timed.speech_seconds is None


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


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_recordings_become_a_table_in_their_order(tmp_path, ending):
    from mmsr.data.manifest.tables import read_table

    pipe, out = load_pipeline("demo"), tmp_path / f"answers.{ending}"
    paths = [speak(tmp_path / f"{name}.wav", seed=seed) for seed, name in enumerate("cab")]
    (tmp_path / "broken.wav").write_text("no sound")
    paths.insert(1, str(tmp_path / "broken.wav"))
    (error,) = write_answers(pipe, paths, out, batch_size=2, num_beams=1)
    rows = read_table(out).rows
    assert [row["audio"] for row in rows] == paths
    assert rows[1]["error"] == str(error) and not rows[1]["label"]
    expected = pipe(paths[0])
    scores = rows[0]["scores"] if ending == "jsonl" else {
        label: float(rows[0][f"score_{label}"]) for label in pipe.model.config.labels
    }  # fmt: skip
    assert scores == pytest.approx(expected["scores"], abs=1e-4)
    assert rows[0]["rationale"] == expected["rationale"] and not rows[0]["error"]


def test_an_interrupted_table_goes_on_and_changed_recordings_are_answered_anew(tmp_path):
    pipe, out = load_pipeline("demo"), tmp_path / "answers.csv"
    paths = [speak(tmp_path / f"{name}.wav", seed=seed) for seed, name in enumerate("abcd")]
    seen = []
    real = pipe.__call__

    class Counted:
        model, processor = pipe.model, pipe.processor

        def __call__(self, inputs, **options):
            inputs = list(inputs)
            seen.append(len(inputs))
            return real(iter(inputs), **options)

    def stop(task, done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_answers(Counted(), paths, out, batch_size=2, progress=stop)
    assert seen == [2] and not out.exists()
    write_answers(Counted(), paths, out, batch_size=2)
    assert seen == [2, 2]
    whole = out.read_text("utf-8")
    write_answers(Counted(), paths, out, batch_size=2)
    assert seen == [2, 2] and out.read_text("utf-8") == whole
    speak(tmp_path / "a.wav", seed=9)
    write_answers(Counted(), [*paths, speak(tmp_path / "e.wav", seed=5)], out, batch_size=8)
    assert seen == [2, 2, 2] and len(out.read_text("utf-8").splitlines()) == 6
    kept = out.read_text("utf-8")
    with pytest.raises(ValueError, match="has answers of another model, recogniser or other options"):
        write_answers(Counted(), paths, out, batch_size=8, forced_label="negative")
    assert out.read_text("utf-8") == kept and seen == [2, 2, 2]
    write_answers(Counted(), paths, tmp_path / "forced.csv", batch_size=8, forced_label="negative")
    assert seen == [2, 2, 2, 4]
    (tmp_path / "mine.csv").write_text("my,own,table\n")
    with pytest.raises(ValueError, match=r"mine.csv exists, and is not of this command"):
        write_answers(Counted(), paths, tmp_path / "mine.csv")
    assert (tmp_path / "mine.csv").read_text() == "my,own,table\n"


def test_nested_values_of_an_answer_become_columns():
    answer = {
        "audio": "a.wav", "label": "x", "scores": {"x": 0.9, "y": 0.1}, "alternatives": {"y": "why"},
        "evidence": [{"text": "so kind"}, {"text": "very"}], "outliers": [],
        "voice": {"anger": 0.2, "neutral": 0.8},
    }  # fmt: skip
    table = answer_table([answer, {"audio": "b.wav", "error": "gone"}, {"audio": "c.wav", "voice": None}])
    assert table.columns == [
        "audio", "label", "score_x", "score_y", "rationale_if_y", "quoted", "outliers", "voice", "error"
    ]  # fmt: skip
    assert table.rows[0] | {"error": 1} == {
        "audio": "a.wav", "label": "x", "score_x": 0.9, "score_y": 0.1, "rationale_if_y": "why",
        "quoted": "so kind; very", "voice": "neutral", "outliers": None, "error": 1,
    }  # fmt: skip
    assert table.rows[1]["error"] == "gone" and table.rows[2]["voice"] is None
    for whole in (False, True):  # the column of a manifest and of a timeline
        assert answer_table([{"audio": "a.wav", "transcript": "so kind"}], whole=whole).rows == [
            {"audio": "a.wav", "text": "so kind"}
        ]


def test_predictions_have_the_columns_of_their_rows(tmp_path):
    for seed, name in enumerate("ab"):
        speak(tmp_path / f"{name}.wav", seed=seed)
    with open(tmp_path / "m.csv", "w", newline="") as file:
        csv.writer(file).writerows([["audio", "call", "text"], ["a.wav", "7", ""], ["b.wav", "8", "so kind"]])
    found = predict_manifest(load_pipeline("demo"), tmp_path / "m.csv")
    rows = [json.loads(json.dumps(prediction.to_row())) for prediction in found]
    assert [(row["audio"], row["call"], row["text"]) for row in rows] == [
        ("a.wav", "7", ""),
        ("b.wav", "8", "so kind"),
    ]


def test_a_recording_that_changes_meanwhile_keeps_its_answer(tmp_path):
    paths = [speak(tmp_path / f"{name}.wav", seed=seed) for seed, name in enumerate("ab")]

    def touch(task, done, total):
        os.utime(paths[0], (1, 1))

    write_answers(load_pipeline("demo"), paths, tmp_path / "answers.csv", batch_size=1, progress=touch)
    assert len((tmp_path / "answers.csv").read_text("utf-8").splitlines()) == 3


def test_answers_of_another_configuration_are_not_taken(tmp_path):
    pipe, out = load_pipeline("demo"), tmp_path / "answers.csv"
    path = speak(tmp_path / "a.wav", seed=0)
    write_answers(pipe, [path], out)
    before = out.read_text("utf-8")
    pipe.model.config.temperature *= 3
    with pytest.raises(ValueError, match="has answers of another model"):
        write_answers(pipe, [path], out)
    assert out.read_text("utf-8") == before
    out.unlink()
    write_answers(pipe, [path], out)
    assert out.read_text("utf-8") != before


def test_a_manifests_columns_do_not_hide_the_prediction(tmp_path):
    speak(tmp_path / "a.wav", seed=0)
    header = ["audio", "score_positive", "quoted", "alternatives", "attention"]
    with open(tmp_path / "m.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, ["a.wav", "99", "OLD", "b", "c"]])
    (found,) = predict_manifest(load_pipeline("demo"), tmp_path / "m.csv")
    row = answer_table([found.to_row()]).rows[0]
    assert row["score_positive"] == found.scores["positive"] and row["quoted"] != "OLD"
    assert (row["alternatives"], row["attention"]) == ("b", "c")

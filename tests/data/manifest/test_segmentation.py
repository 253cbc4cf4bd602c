import csv
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas
import pytest
import soundfile

import mmsr.data.manifest.segmentation
from mmsr.cli.main import main
from mmsr.data.audio.decoding import Audio
from mmsr.data.audio.segments import Segment, Segmentation, SegmentError, speech_segments
from mmsr.data.manifest.issues import ManifestError
from mmsr.data.manifest.manifest import COLUMNS, load_manifest
from mmsr.data.manifest.segmentation import segment_manifest
from mmsr.data.manifest.tables import Table, read_table, write_table

needs_silero = pytest.mark.skipif(
    not any((Path(folder) / "silero_vad").is_dir() for folder in sys.path),
    reason="speech is found by silero-vad: pip install 'mmsr[segments]'",
)

Recording: TypeAlias = Callable[..., tuple[np.ndarray, list[Segment]]]


@pytest.fixture
def manifest(recording: Recording, clips: list[np.ndarray], tmp_path: Path) -> Path:
    """A long talk, a long silence, a short clip and a row of words."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    soundfile.write(folder / "talk.flac", recording(clips, pause=1.0)[0], 16000)
    soundfile.write(folder / "silence.flac", np.zeros(104000), 16000)
    soundfile.write(folder / "short.flac", clips[0], 16000)
    rest = {"text": "words", "rationale": "why", "label": "neutral", "speaker": "s1", "language": "en"}
    rows = [
        {"id": "a/talk.1", "audio": "talk.flac", **rest, "split": "dev", "kind": "voice"},
        {"id": "silence", "audio": "silence.flac", **rest, "split": "dev", "kind": ""},
        {"id": "short", "audio": "short.flac", **rest, "split": "train", "kind": ""},
        {"id": "words", "audio": "", **rest, "split": "train", "kind": ""},
    ]
    with open(folder / "m.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder / "m.csv"


LONG = Segmentation(max_seconds=6.0)


@needs_silero
def test_a_long_recording_becomes_rows(manifest: Path, tmp_path: Path, clips: list[np.ndarray]):
    told: list[tuple[str, int, int]] = []
    done = segment_manifest(manifest, tmp_path / "out", settings=LONG, progress=lambda *a: told.append(a))
    assert told == [("segments", 1, 2), ("segments", 2, 2)]
    rows = load_manifest(done.manifest).to_list()
    assert [row["id"] for row in rows] == [*(f"a/talk.1-000{n}" for n in range(1, 6)), "short", "words"]
    assert (done.rows, done.recordings, done.segments, done.silent) == (7, 2, 5, ("silence",))
    for row, clip in zip(rows[:5], clips, strict=True):
        assert (row["speaker"], row["language"], row["split"], row["kind"]) == ("s1", "en", "dev", "voice")
        assert row["label"] == "neutral" and row["text"] is row["rationale"] is None
        assert Audio.duration(row["audio"]) == pytest.approx(len(clip) / 16000 + 0.2, abs=0.4)
    assert rows[5]["text"] == "words"
    assert rows[5]["audio"] == str(manifest.parent / "short.flac") and rows[6]["audio"] is None
    with open(tmp_path / "out" / "segments.csv", newline="") as file:
        places = list(csv.DictReader(file))
    talk = Audio()(manifest.parent / "talk.flac")
    for row, place in zip(rows[:5], places, strict=True):
        assert place["id"] == row["id"] and place["recording"] == "a/talk.1"
        assert (tmp_path / "out" / place["audio"]).samefile(manifest.parent / "talk.flac")
        start, end = (round(float(place[name]) * 16000) for name in ("start", "end"))
        np.testing.assert_allclose(Audio()(row["audio"]), talk[start:end], atol=1e-4)


@needs_silero
def test_what_is_kept_of_a_recording_s_words_and_label_is_asked_for(manifest: Path, tmp_path: Path):
    done = segment_manifest(manifest, tmp_path / "out", settings=LONG, keep_text=True, keep_label=False)
    row = load_manifest(done.manifest).to_list()[0]
    assert (row["text"], row["rationale"], row["label"]) == ("words", "why", None)


@needs_silero
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_columns_of_other_names_are_kept(manifest: Path, tmp_path: Path, ending: str):
    table = read_table(manifest)
    words = '[{"text": "so", "start": 0.5, "end": 1}]'
    more = [
        {"fold": 3, "text": "not read", "seconds": 99, "asr_words": words},
        {"fold": 4},
        {"fold": 0},
        {"note": "a, b"},
    ]
    rows = [{**row, "said": row["text"], **extra} for row, extra in zip(table.rows, more, strict=True)]
    path = manifest.with_name(f"more.{ending}")
    write_table(path, Table([*table.columns, "said", "fold", "seconds", "note", "asr_words"], rows, []))
    done = segment_manifest(
        path, tmp_path / "out", settings=LONG, columns={"text": "said", "duration": "seconds"}, keep_text=True
    )
    with open(done.manifest, newline="") as file:
        made = list(csv.DictReader(file))
    assert list(made[0]) == [*COLUMNS, "duration", "asr_words", "fold", "note"]
    assert {row["asr_words"] for row in made} == {""}  # the times were those of the recording that is cut
    assert [row["fold"] for row in made] == [*["3"] * 5, "0", ""]
    assert [row["note"] for row in made] == [*[""] * 6, "a, b"] and {row["text"] for row in made} == {"words"}
    for row in made[:5]:
        assert float(row["duration"]) == pytest.approx(
            Audio.duration(tmp_path / "out" / row["audio"]), abs=1e-3
        )
    assert made[5]["duration"] == made[6]["duration"] == ""


@needs_silero
def test_a_parquet_column_of_files_is_left_behind(manifest: Path, tmp_path: Path):
    frame = pandas.read_csv(manifest, dtype=str)
    path = manifest.with_name("m.parquet")
    frame.assign(fold="1", face=b"\xff", picture=[{"bytes": b"\xff", "path": None}] * 4).to_parquet(path)
    done = segment_manifest(path, tmp_path / "out", settings=LONG)
    assert list(pandas.read_csv(done.manifest).columns) == [*COLUMNS, "fold"]


@needs_silero
def test_a_second_call_makes_what_is_missing_or_changed(
    recording: Recording,
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    clips: list[np.ndarray],
):
    heard: list[int] = []

    def listen(samples: np.ndarray, settings: Segmentation) -> list[Segment]:
        heard.append(len(samples))
        return speech_segments(samples, settings)

    monkeypatch.setattr(mmsr.data.manifest.segmentation, "speech_segments", listen)
    out = tmp_path / "out"
    first = segment_manifest(manifest, out, settings=LONG)
    content = first.manifest.read_bytes()
    assert len(heard) == 2
    assert segment_manifest(manifest, out, settings=LONG) == first and len(heard) == 2
    folder = next(path for path in (out / "audio").iterdir() if "talk" in path.name)
    (folder / "segments.json").rename(
        folder.with_suffix(".gone")
    )  # as an interrupted run leaves nothing behind
    assert segment_manifest(manifest, out, settings=LONG) == first and len(heard) == 3
    assert first.manifest.read_bytes() == content
    segment_manifest(manifest, out, settings=Segmentation(max_seconds=5.0))
    assert len(heard) == 5
    soundfile.write(manifest.parent / "talk.flac", recording(clips[:3], pause=2.0)[0], 16000)
    assert segment_manifest(manifest, out, settings=Segmentation(max_seconds=5.0)).segments >= 3
    assert len(heard) == 6
    assert sorted(path.name for path in out.iterdir()) == ["audio", "manifest.csv", "segments.csv"]
    assert not list(out.rglob("*.tmp"))
    assert json.loads((folder / "segments.json").read_text())["made_from"]["max_seconds"] == 5.0


@needs_silero
def test_what_cannot_be_cut_is_named(manifest: Path, tmp_path: Path):
    with pytest.raises(
        SegmentError, match=r"corpus is the folder of .*; accepted: another folder to write to"
    ):
        segment_manifest(manifest.rename(manifest.parent / "manifest.csv"), manifest.parent)
    manifest = (manifest.parent / "manifest.csv").rename(manifest)
    words = manifest.read_text().replace("short,short.flac", "a/talk.1-0003,short.flac")
    (manifest.parent / "twice.csv").write_text(words)
    text = r"id 'a/talk.1-0003' would be a segment's of the recording 'a/talk.1'; accepted: another"
    with pytest.raises(SegmentError, match=text):
        segment_manifest(manifest.parent / "twice.csv", tmp_path / "out", settings=LONG)
    (manifest.parent / "short.flac").write_text("no sound")
    with pytest.raises(
        ManifestError, match=r"m\w*\.csv, row \d, column audio: .*short\.flac: holds no audio"
    ):
        segment_manifest(manifest, tmp_path / "out", settings=LONG)
    assert not (tmp_path / "out").exists()


@needs_silero
def test_a_recording_that_is_damaged_later_is_told_and_the_others_are_cut(
    manifest: Path, tmp_path: Path, recording: Recording, clips: list[np.ndarray]
):
    soundfile.write(manifest.parent / "also.flac", recording(clips, pause=1.1)[0], 16000)
    talk = manifest.parent / "talk.flac"
    whole = talk.read_bytes()
    middle = len(whole) // 2
    talk.write_bytes(whole[:middle] + bytes(3000) + whole[middle + 3000 :])
    with open(manifest, "a") as file:
        file.write("also,also.flac,words,why,neutral,s1,en,dev,\n")
    with pytest.raises(ManifestError, match=r"^m\.csv, row 2, column audio: .*talk\.flac: .*$"):
        segment_manifest(manifest, tmp_path / "out", settings=LONG)
    assert not (tmp_path / "out" / "manifest.csv").exists()
    kept = (tmp_path / "out" / "audio" / "also" / "segments.json").stat().st_mtime_ns
    talk.write_bytes(whole)
    done = segment_manifest(manifest, tmp_path / "out", settings=LONG)
    assert done.recordings == 3
    assert (tmp_path / "out" / "audio" / "also" / "segments.json").stat().st_mtime_ns == kept


@needs_silero
def test_the_command(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["data", "segment", "--manifest", str(manifest), "--out", str(tmp_path / "out")]
    main([*arguments, "--max-seconds", "6"])
    told = capsys.readouterr().err.strip().splitlines()
    assert told[0] == "no speech in 1 of 2 recordings, which have no row now: silence"
    assert "2 recordings, " in told[1] and " -> 5 segments, " in told[1] and "7 rows in all -> " in told[1]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--max_seconds", "0"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "mmsr: error: max_seconds is 0.0; accepted: 1 or more\n"


@pytest.mark.parametrize("identity", ["a/b", "..", "a.b", "ä ö", "x" * 300, "con\n"])
def test_any_id_names_a_folder(identity: str, tmp_path: Path):
    name = mmsr.data.manifest.segmentation.folder_name(identity)
    (tmp_path / name).mkdir()
    assert os.listdir(tmp_path) == [name] and len(name) < 200
    assert name != mmsr.data.manifest.segmentation.folder_name(identity + "x")

"""A recording along its time axis: the answers, what a kill leaves, what is written, how the page acts."""

import csv
import itertools
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mmsr.cli.main import main
from mmsr.data.audio.decoding import Audio
from mmsr.data.manifest.manifest import load_manifest
from mmsr.inference.timeline.cues import TimelineError, Turn
from mmsr.inference.timeline.formats import output_files
from mmsr.inference.timeline.make import make_timeline
from mmsr.inference.timeline.run import run_timeline


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(["timeline", *arguments])
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0].removeprefix("mmsr: error: ")


def test_the_command_with_turns_and_words(
    audio: Path, turns: list[Turn], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        f"SPEAKER talk 1 {t.start:.3f} {t.end - t.start:.3f} <NA> <NA> {t.speaker} <NA> <NA>" for t in turns
    ]
    (tmp_path / "talk.rttm").write_text("\n".join([";; by hand", *lines]) + "\n", encoding="utf-8")
    (tmp_path / "talk.srt").write_text(
        "1\n00:00:02,100 --> 00:00:02,600\nthe doctor was rude\n", encoding="utf-8"
    )
    inputs = [
        "--audio",
        str(audio),
        "--turns",
        str(tmp_path / "talk.rttm"),
        "--transcript",
        str(tmp_path / "talk.srt"),
    ]
    main(["timeline", "--model", "demo", *inputs, "--out", str(tmp_path / "out"), "--smooth", "3", "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text("utf-8"))
    assert summary["segments"] == 14 and set(summary["speakers"]) == {"anna", "bo"}
    rows = [json.loads(line) for line in (tmp_path / "out" / "timeline.jsonl").open(encoding="utf-8")]
    assert rows[1]["text"] == "the doctor was rude" and rows[1]["alone"]["scores"] != rows[1]["scores"]
    with (tmp_path / "out" / "timeline.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(row["start"]) for row in table] == [row["start"] for row in rows]
    assert [float(row["score_negative"]) for row in table] == [row["scores"]["negative"] for row in rows]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(f"timeline.{ending}" for ending in ("jsonl", "csv", "srt", "vtt", "html", "journal.jsonl")),
        "summary.json",
    }


def test_what_was_answered_for_one_format_is_known_for_the_others(
    audio: Path, turns: list[Turn], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        f"SPEAKER talk 1 {t.start:.3f} {t.end - t.start:.3f} <NA> <NA> {t.speaker} <NA> <NA>" for t in turns
    ]
    (tmp_path / "talk.rttm").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = ["timeline", "--model", "demo", "--audio", str(audio), "--player", "none"]
    command += ["--turns", str(tmp_path / "talk.rttm")]
    main([*command, "--out", str(tmp_path / "timeline.srt")])
    with monkeypatch.context() as patch:
        patch.setattr("mmsr.inference.timeline.make.Recording", lambda *_, **__: pytest.fail("read again"))
        main([*command, "--out", str(tmp_path / "timeline.jsonl")])
        main([*command, "--out", str(tmp_path)])
    assert (tmp_path / "timeline.jsonl").read_text().count("\n") == len(turns)
    main([*command, "--out", str(tmp_path / "timeline.vtt"), "--num-beams", "2"])  # other settings: anew
    assert (tmp_path / "timeline.vtt").exists()


def test_what_cannot_be_is_refused_before_anything_is_loaded(
    audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--model", "demo", "--audio", str(audio)]
    out = ["--out", str(tmp_path / "out")]
    told = refused(capsys, "--model", "demo", "--audio", "nowhere.wav", *out)
    assert told == "--audio nowhere.wav: no such file; accepted: one file"
    told = refused(capsys, *given, *out, "--turns", "nowhere.rttm")
    assert told == "--turns nowhere.rttm: no such file; accepted: one file"
    told = refused(capsys, *given, *out, "--language", "vi")
    assert told == "--language vi is for the recogniser: give --asr too"
    told = refused(capsys, *given, *out, "--smooth", "-1")
    assert told == "--smooth -1; accepted: seconds above 0, or 0 for none"
    told = refused(capsys, *given, "--out", str(tmp_path / "out.docx"))
    assert told.endswith("has the ending '.docx'; accepted: a folder, or .jsonl, .csv, .srt, .vtt, .html")
    (tmp_path / "file").touch()
    for name, problem in (("file/t.srt", "file is a file"), ("n" * 250 + ".srt", "File name too long")):
        assert problem in refused(capsys, *given, "--out", str(tmp_path / name))
    (tmp_path / "talk.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nwords\n", encoding="utf-8")
    words = str(tmp_path / "talk.srt")
    told = refused(capsys, *given, "--transcript", words, "--out", words)
    assert told == f"out {words} is a file that is read; accepted: another"
    told = refused(capsys, *given, *out, "--transcript", words, "--asr", "some/model")
    assert told == "give --asr or --transcript, or neither: both tell the words"
    with pytest.raises(TimelineError, match=r"talk\.opus cannot be linked.*accepted: \.wav, \.mp3.*beside"):
        output_files(tmp_path / "page.html", audio="talk.opus", player="link")
    assert output_files(tmp_path / "page.srt", audio="talk.opus", player="link") == [tmp_path / "page.srt"]
    assert not (tmp_path / "out").exists()


def test_words_lie_where_a_transcript_of_whisper_has_them(
    audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transcripts = {
        "talk.tsv": "start\tend\ttext\n0\t400\tGood morning.\n1600\t3400\tKids are talking by the door.\n",
        "talk.srt": "1\n00:00:00,000 --> 00:00:00,400\nGood morning.\n\n"
        "2\n00:00:01,600 --> 00:00:03,400\nKids are talking\n\nby the door.\n",
        "talk.txt": "0.0\t0.4\tGood morning.\r\n1.6\t3.4\tKids are talking by the door.\r\n",
    }
    turns = (
        "SPEAKER my talk 1 0.0 0.5 <NA> <NA> Anna Lee <NA>\nSPEAKER my talk 1 1.6 1.9 <NA> <NA> Bo 2 <NA>\n"
    )
    (tmp_path / "talk.rttm").write_text(turns, encoding="utf-16")
    for name, text in transcripts.items():
        (tmp_path / name).write_text(text, encoding="utf-16", newline="")
        made, _ = run_timeline(
            audio,
            model="demo",
            turns=tmp_path / "talk.rttm",
            transcript=tmp_path / name,
            out=tmp_path / f"{name}.jsonl",
        )
        assert [(part.start, part.speaker, part.text) for part in made.segments] == [
            (0.0, "Anna Lee", "Good morning."),
            (1.6, "Bo 2", "Kids are talking by the door."),
        ], name
    (tmp_path / "talk.srt").write_text("1\n00:01:00,000 --> 00:01:01,000\nhm\n", encoding="utf-8")
    given = ["--model", "demo", "--audio", str(audio), "--out", str(tmp_path / "out")]
    given += ["--turns", str(tmp_path / "talk.rttm")]
    told = refused(capsys, *given, "--transcript", str(tmp_path / "talk.srt"))
    assert "the cue 'hm' from 60 to 61 s is after the end of" in told
    told = refused(capsys, *given, "--transcript", str(tmp_path / "talk.srt"), "--encoding", "utf-16")
    assert "talk.srt, byte " in told and "is not utf-16, as given; accepted: " in told
    told = refused(capsys, "--audio", str(audio), "--encoding", "utf-16")
    assert told == "--encoding utf-16 is of a transcript: give --transcript or --turns too"


def talk(shared_data: Path, folder: Path) -> tuple[Path, list[tuple[float, float, str]]]:
    """Three clips of RAVDESS, a pause before each: the recording, and begin, end and words of each clip."""
    corpus = shared_data / "ravdess16k"
    pause, sounds, said = np.zeros(24_000, dtype=np.float32), [], []
    with (corpus / "manifest.csv").open(encoding="utf-8", newline="") as file:
        for row in itertools.islice(csv.DictReader(file), 3):
            clip = Audio()(corpus / row["audio"])
            begin = sum(map(len, sounds)) / 16_000 + 1.5
            sounds += [pause, clip]
            said.append((begin, begin + len(clip) / 16_000, row["text"]))
    soundfile.write(folder / "talk.flac", np.concatenate(sounds), 16_000)
    return folder / "talk.flac", said


needs_silero = pytest.mark.skipif(
    find_spec("silero_vad") is None, reason="speech is found by silero-vad: pip install 'mmsr[segments]'"
)


@needs_silero
def test_real_speech_is_found_and_answered(shared_data: Path, tmp_path: Path, pipe: Any) -> None:
    recording, said = talk(shared_data, tmp_path)
    made = make_timeline(recording, pipe)
    for begin, end, _ in said:
        assert any(begin <= part.start and part.end <= end for part in made.segments)
    assert all(part.rationale for part in made.segments)


def spoken(demo_corpus: Path) -> np.ndarray:
    """Three utterances of the demo corpus, with a pause before each and after the last."""
    pause, parts = np.zeros(24_000, dtype=np.float32), []
    for row in load_manifest(demo_corpus).to_list()[:3]:
        parts += [pause, Audio()(row["audio"])]
    return np.concatenate([*parts, pause])


@needs_silero
def test_wav_and_flac_make_the_same_files(demo_corpus: Path, tmp_path: Path) -> None:
    samples = spoken(demo_corpus)
    found = {}
    for ending, subtype in (("wav", "PCM_16"), ("flac", "PCM_16"), ("aiff", "PCM_16"), ("w64", "PCM_16")):
        soundfile.write(tmp_path / f"talk.{ending}", samples, 16_000, subtype=subtype)
        recording = tmp_path / f"talk.{ending}"
        _, files = run_timeline(recording, model="demo", out=tmp_path / ending, player="none")
        # the page and the summary name the recording
        found[ending] = {
            path.name: path.read_bytes() for path in files if path.suffix not in (".html", ".json")
        }
    assert set(found["wav"]) == {f"timeline.{form}" for form in ("jsonl", "csv", "srt", "vtt")}
    assert found["wav"] == found["flac"] == found["aiff"] == found["w64"]
    assert len(found["wav"]["timeline.jsonl"].splitlines()) >= 3


def encoded(path: Path, samples: np.ndarray, codec: str, *, late: float = 0.0) -> Path:
    """A recording by FFmpeg's encoders, in the container of the path's ending.

    With `late`, its sound begins so many seconds after a picture.
    """
    av = pytest.importorskip("av", reason="FFmpeg's encoders are in av: pip install 'mmsr[av]'")
    rate = 48_000 if codec == "libopus" else 16_000
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        if late:
            picture = container.add_stream("mpeg4", rate=5, width=16, height=16, pix_fmt="yuv420p")
            for number in range(round(5 * late)):
                shown = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), dtype=np.uint8), "rgb24")
                shown.pts = number
                container.mux(picture.encode(shown))
            container.mux(picture.encode(None))
        frame = av.AudioFrame.from_ndarray((samples * 32_767).astype(np.int16)[None], "s16", "mono")
        frame.sample_rate, frame.pts = 16_000, round(16_000 * late)
        for part in [*av.AudioResampler("s16", "mono", rate).resample(frame), None]:
            container.mux(stream.encode(part))
    return path


@needs_silero
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("talk.mp3", None),
        ("talk.ogg", None),
        ("talk.m4a", "aac"),
        ("talk.mkv", "aac"),
        ("talk.webm", "libopus"),
    ],
)
def test_segments_of_other_formats_begin_within_50_ms(
    demo_corpus: Path, tmp_path: Path, pipe: Any, name: str, codec: str | None
) -> None:
    samples = spoken(demo_corpus)
    soundfile.write(tmp_path / "talk.wav", samples, 16_000)
    if codec is None:
        soundfile.write(tmp_path / name, samples, 16_000)
    else:
        encoded(tmp_path / name, samples, codec)
    right = make_timeline(tmp_path / "talk.wav", pipe)
    found = make_timeline(tmp_path / name, pipe)
    assert len(found.segments) == len(right.segments) >= 3
    for one, other in zip(found.segments, right.segments, strict=True):
        assert one.start == pytest.approx(other.start, abs=0.05)
        assert one.end == pytest.approx(other.end, abs=0.05)


@needs_silero
@pytest.mark.slow
def test_a_real_recogniser_transcribes_and_a_second_run_does_not(
    shared_data: Path, shared_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jiwer", reason="a recogniser needs mmsr[asr]")
    recording, said = talk(shared_data, tmp_path)
    command = ["timeline", "--model", "demo", "--audio", str(recording), "--out", str(tmp_path / "out")]
    command += ["--asr", str(shared_models / "whisper-base"), "--language", "en"]
    main(command)
    rows = [
        json.loads(line) for line in (tmp_path / "out" / "timeline.jsonl").read_text("utf-8").splitlines()
    ]
    for begin, end, words in said:
        heard = " ".join(row["text"] or "" for row in rows if begin <= row["start"] and row["end"] <= end)
        assert re.sub(r"\W+", " ", heard).strip().lower() == words.lower()
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    main(command)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_without_a_name_the_timeline_lies_beside_us_under_the_recordings(
    tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("consultation.wav", np.zeros(16_000), 16_000)
    main(["timeline", "--model", "demo", "--audio", "consultation.wav"])
    assert (tmp_path / "consultation" / "timeline.jsonl").exists()
    # its own folder is written into again
    main(["timeline", "--model", "demo", "--audio", "consultation.wav"])
    (tmp_path / "notes").mkdir()
    soundfile.write("notes.wav", np.zeros(16_000), 16_000)
    with pytest.raises(SystemExit):
        main(["timeline", "--model", "demo", "--audio", "notes.wav"])
    assert capsys.readouterr().err.splitlines()[-1] == (
        "mmsr: error: notes/ is there and holds no timeline; accepted: --out with another folder"
    )


@needs_silero
def test_a_late_sound_track_keeps_the_time_of_its_picture(
    demo_corpus: Path, tmp_path: Path, pipe: Any
) -> None:
    samples = spoken(demo_corpus)
    soundfile.write(tmp_path / "talk.wav", samples, 16_000)
    right = make_timeline(tmp_path / "talk.wav", pipe)
    # whole frames of silero-vad, which finds the same ones again
    late = make_timeline(encoded(tmp_path / "talk.mkv", samples, "aac", late=4.8), pipe)
    assert late.seconds == pytest.approx(right.seconds + 4.8, abs=0.1)
    assert [part.start for part in late.segments] == pytest.approx(
        [part.start + 4.8 for part in right.segments], abs=0.05
    )

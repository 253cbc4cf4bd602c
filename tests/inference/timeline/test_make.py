"""A recording along its time axis: the answers, what a kill leaves, what is written, how the page acts."""

import csv
import io
import itertools
import json
import logging
import multiprocessing
import os
import re
import signal
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mmsr.cli.main import main
from mmsr.data.audio.decoding import Audio
from mmsr.data.audio.segments import Segmentation
from mmsr.inference.loading import load_pipeline
from mmsr.inference.timeline.formats import as_text, output_files, write_timeline
from mmsr.inference.timeline.make import AnsweredSegment, Timeline, make_timeline
from mmsr.inference.timeline.transcripts import Cue, TimelineError, Turn, read_cues, read_turns

LABELS = ("negative", "neutral", "positive")
NASTY = 'a < b & <script>boom()</script> {\\an8} --> "q" é'


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load_pipeline("demo", device="cpu")


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a minute of hiss that swells, 8 kHz in two channels: turns are given, so nobody need speak."""
    generator = np.random.default_rng(0)
    hiss = 0.1 * generator.standard_normal((30 * 8_000, 2)) * np.linspace(0.1, 1, 30 * 8_000)[:, None]
    path = tmp_path_factory.mktemp("sound") / "talk.wav"
    soundfile.write(path, hiss, 8_000)
    return path


@pytest.fixture
def turns() -> list[Turn]:
    """Two speakers, who overlap once; 14 segments."""
    found = [
        Turn(start=2.0 * i, end=2.0 * i + 0.6 + 0.05 * i, speaker="anna" if i % 2 else "bo")
        for i in range(13)
    ]
    return [*found, Turn(start=24.2, end=25.4, speaker="anna")]


def by_hand(*parts: tuple[float, float, str | None, str | None, tuple[float, float, float]]) -> Timeline:
    """A timeline of (start, end, speaker, text, scores)."""
    return Timeline(
        audio="talk.wav",
        seconds=parts[-1][1] + 1 if parts else 5.0,
        labels=LABELS,
        segments=tuple(
            AnsweredSegment(
                start=start,
                end=end,
                speaker=speaker,
                text=text,
                label=LABELS[int(np.argmax(scores))],
                score=max(scores),
                scores=dict(zip(LABELS, scores, strict=True)),
                rationale=None if text is None else f"because: {text}",
            )
            for start, end, speaker, text, scores in parts
        ),
    )


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(["timeline", *arguments])
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0].removeprefix("mmsr: error: ")


# ---------------------------------------------------------------------- answers


def test_a_segment_has_the_answer_of_its_sound_and_words(audio: Path, turns: list[Turn], pipe: Any) -> None:
    cues = [Cue(text="the doctor", start=2.1, end=2.3), Cue(text="was rude", start=2.3, end=2.6)]
    made = make_timeline(audio, pipe, turns=turns, transcript=cues, batch_size=4)
    assert [(part.start, part.end, part.speaker) for part in made.segments] == sorted(
        (round(turn.start, 3), round(turn.end, 3), turn.speaker) for turn in turns
    )
    assert [part.text for part in made.segments] == [None, "the doctor was rude", *[None] * 12]
    assert made.seconds == 30.0 and made.labels == tuple(pipe.model.config.labels)
    whole = Audio()(audio)
    for part in made.segments:
        wave = whole[round(part.start * 16_000) : round(part.end * 16_000)]
        alone = pipe({"audio": wave, "text": part.text}, num_beams=1)
        assert part.label == alone["label"] == max(part.scores, key=lambda label: part.scores[label])
        assert part.scores == pytest.approx(alone["scores"], abs=2e-3)
        assert part.rationale and part.score == part.scores[part.label]
    other = make_timeline(audio, pipe, turns=turns, batch_size=4)  # without words
    assert other.segments[1].scores != made.segments[1].scores


def test_turns_are_joined_cut_and_left_out(audio: Path, pipe: Any, caplog: pytest.LogCaptureFixture) -> None:
    given = [
        Turn(start=0.0, end=1.0, speaker="bo"),
        Turn(start=1.3, end=2.0, speaker="bo"),  # .3 s of silence: one turn
        Turn(start=4.0, end=4.1, speaker="anna"),  # too short
        Turn(start=5.0, end=12.5, speaker="anna"),  # too long
        Turn(start=29.0, end=31.0, speaker=None),  # beyond the end
    ]
    settings = Segmentation(max_seconds=4.0)
    with caplog.at_level(logging.WARNING):
        made = make_timeline(audio, pipe, turns=given, settings=settings)
    first, *middle, last = made.segments
    assert (first.start, first.end, first.speaker) == (0.0, 2.0, "bo")
    assert (last.start, last.end, last.speaker) == (29.0, 30.0, None)
    assert [middle[0].start, middle[-1].end] == [5.0, 12.5] and len(middle) >= 2
    assert all(one.end == other.start for one, other in zip(middle, middle[1:], strict=False))
    assert all(part.seconds <= 4.0 and part.speaker == "anna" for part in middle)
    assert "1 turns shorter than 0.25 s are left out" in caplog.text
    late = [Turn(start=30.5, end=31.0, speaker="anna")]
    with pytest.raises(
        TimelineError, match=r"turn of anna at 30\.5 s .*accepted: turns within its 30\.000 s"
    ):
        make_timeline(audio, pipe, turns=late)


def test_words_go_where_most_of_them_lie(audio: Path, pipe: Any, caplog: pytest.LogCaptureFixture) -> None:
    given = [Turn(start=1.0, end=3.0), Turn(start=3.6, end=6.0)]
    cues = [
        Cue(text="second", start=2.8, end=4.5),
        Cue(text="first", start=0.5, end=3.7),
        Cue(text="point", start=5.0, end=5.0),
        Cue(text="nowhere", start=9.0, end=9.5),
    ]
    with caplog.at_level(logging.WARNING):
        made = make_timeline(audio, pipe, turns=given, transcript=cues)
    assert [part.text for part in made.segments] == ["first", "second point"]
    assert "1 cues of the transcript lie in no segment" in caplog.text


def test_settings_that_make_no_timeline_are_named(audio: Path, turns: list[Turn], pipe: Any) -> None:
    with pytest.raises(TimelineError, match="batch_size is 0; accepted: 1 and more"):
        make_timeline(audio, pipe, turns=turns, batch_size=0)
    with pytest.raises(TimelineError, match=r"nowhere\.wav: no such file; accepted: a recording"):
        make_timeline(audio.parent / "nowhere.wav", pipe)


# ---------------------------------------------------------------------- a run that is killed


def written(made: Timeline, out: Path) -> dict[str, bytes]:
    write_timeline(made, out, player="beside")
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_a_killed_run_goes_on_to_the_same_bytes(
    audio: Path, turns: list[Turn], pipe: Any, tmp_path: Path
) -> None:
    def run(journal: Path, kill_after: int | None = None) -> list[int]:
        """Returns how many segments had their answer after each batch; the program may kill itself."""
        done: list[int] = []

        def progress(task: str, count: int, total: int) -> None:
            if task == "answering":
                done.append(count)
                if len(done) == kill_after:
                    os.kill(os.getpid(), signal.SIGKILL)

        made = make_timeline(audio, pipe, turns=turns, batch_size=4, journal=journal, progress=progress)
        files[journal.stem] = written(made, tmp_path / journal.stem)
        return done

    files: dict[str, dict[str, bytes]] = {}
    assert run(tmp_path / "whole.jsonl") == [4, 8, 12, 14]
    assert len(files["whole"]) == 7 and all(files["whole"].values())
    killed = tmp_path / "killed.jsonl"
    child = multiprocessing.get_context("fork").Process(target=run, args=(killed, 2))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL and not (tmp_path / "killed").exists()
    assert run(killed) == [12, 14]
    assert files["killed"] == files["whole"]
    assert killed.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert run(killed) == []  # all is known


def test_a_journal_that_ends_anywhere_is_gone_on_with(
    audio: Path, turns: list[Turn], pipe: Any, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.jsonl"
    made = make_timeline(audio, pipe, turns=turns, batch_size=8, journal=journal)
    content = journal.read_bytes()
    ends = [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]
    assert len(ends) == 4  # fingerprint, segments, two batches
    for length in (0, 7, ends[0], ends[0] + 30, ends[1], ends[2] - 1, ends[2] + 25):
        journal.write_bytes(content[:length])
        again = make_timeline(audio, pipe, turns=turns, batch_size=8, journal=journal)
        assert again == made and journal.read_bytes() == content, length


def test_a_journal_of_something_else_begins_anew(
    audio: Path, turns: list[Turn], pipe: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = tmp_path / "journal.jsonl"
    make_timeline(audio, pipe, turns=turns[:2], journal=journal)
    first = journal.read_bytes()
    with caplog.at_level(logging.WARNING):
        made = make_timeline(audio, pipe, turns=turns[:3], journal=journal)
    assert "is of other input or other settings, and begins anew" in caplog.text
    assert len(made.segments) == 3 and journal.read_bytes().splitlines()[0] not in first
    journal.write_text('{"id": 1}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"journal\.jsonl, byte 0: no line of a journal .*delete the file"):
        make_timeline(audio, pipe, turns=turns[:2], journal=journal)
    assert journal.read_text("utf-8") == '{"id": 1}\n'


# ---------------------------------------------------------------------- the command


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


def test_what_cannot_be_is_refused_before_anything_is_loaded(
    audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--model", "demo", "--audio", str(audio)]
    out = ["--out", str(tmp_path / "out")]
    told = refused(capsys, "--model", "demo", "--audio", "nowhere.wav", *out)
    assert told == "--audio nowhere.wav: no such file"
    told = refused(capsys, *given, *out, "--turns", "nowhere.rttm")
    assert told == "--turns nowhere.rttm: no such file"
    told = refused(capsys, *given, *out, "--language", "vi")
    assert told == "--language vi is for the recogniser: give --asr too"
    told = refused(capsys, *given, *out, "--smooth", "-1")
    assert told == "--smooth -1; accepted: seconds above 0, or 0 for none"
    told = refused(capsys, *given, "--out", str(tmp_path / "out.docx"))
    assert told.endswith("has the ending '.docx'; accepted: a folder, or .jsonl, .csv, .srt, .vtt, .html")
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


@needs_silero
@pytest.mark.slow
def test_a_real_recogniser_writes_what_is_said_and_a_second_run_hears_nothing_again(
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


# ---------------------------------------------------------------------- what is read


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("SPEAKER talk 1 0.5 2.0 <NA> <NA>", r"line 2: has 7 fields; accepted: 8 or more, such as SPEAKER "),
        (
            "SPEAKER talk 1 x 2.0 <NA> <NA> anna",
            r"line 2, field 4 \(start\): 'x'; accepted: 0 or more seconds",
        ),
        ("SPEAKER talk 1 -1 2.0 <NA> <NA> anna", r"line 2, field 4 \(start\): '-1'; accepted: 0 or more"),
        (
            "SPEAKER talk 1 1 0 <NA> <NA> anna",
            r"line 2, field 5 \(duration\): '0'; accepted: seconds above 0",
        ),
        (
            "SPEAKER talk 1 1 nan <NA> <NA> anna",
            r"line 2, field 5 \(duration\): 'nan'; accepted: seconds above",
        ),
        ("SPEEKER talk 1 1 2 <NA> <NA> anna", r"line 2, field 1 \(type\): 'SPEEKER'; accepted: SPEAKER, "),
        ("SPKR-INFO talk 1 <NA> <NA> <NA> adult anna", "has no SPEAKER line; accepted: at least one"),
        (
            "SPEAKER a 1 1 2 <NA> <NA> anna\nSPEAKER b 1 1 2 <NA> <NA> bo",
            r"has turns of a, b and none of 'talk'; accepted: turns of this recording, or of one alone",
        ),
    ],
)
def test_a_fault_in_rttm_is_named(tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "t.rttm").write_text(f";; turns\n{line}\n", encoding="utf-8")
    with pytest.raises(TimelineError, match=rf"^{re.escape(str(tmp_path / 't.rttm'))}[,:] {told}"):
        read_turns(tmp_path / "t.rttm", recording="talk")


def test_rttm_of_several_recordings(tmp_path: Path) -> None:
    lines = ["talk 1 5 1.5 <NA> <NA> bo", "other 1 0 1 <NA> <NA> eve", "talk 1 0.5 2 <NA> <NA> <NA> <NA>"]
    text = "\ufeff" + "".join(f"SPEAKER {line}\n" for line in lines)
    (tmp_path / "t.rttm").write_text(text, encoding="utf-8")
    assert read_turns(tmp_path / "t.rttm", recording="talk") == [
        Turn(start=0.5, end=2.5, speaker=None),
        Turn(start=5, end=6.5, speaker="bo"),
    ]
    (tmp_path / "t.rttm").write_bytes(b"SPEAKER t\xe9 1 1 1 <NA> <NA> bo")
    with pytest.raises(TimelineError, match=r"t\.rttm, byte 9: is not UTF-8; accepted: text in UTF-8"):
        read_turns(tmp_path / "t.rttm")


def test_transcripts_are_read_alike(tmp_path: Path) -> None:
    files = {
        "a.srt": "1\n00:00:01,500 --> 00:00:02,000\n{\\an8}<i>so <b>kind</b></i>,\nDr. A &amp; B\n\n"
        "2\n01:00:00,000 --> 01:00:01,000\n5 < 6",
        "a.vtt": "WEBVTT\n\nNOTE by hand\n\nfirst\n00:01.500 --> 00:02.000 align:left\n"
        "<v Anna>so <c.x>kind</c>,\nDr. A &amp; B</v>\n\n01:00:00.000 --> 01:00:01.000\n5 &lt; 6\n",
        "a.csv": 'start,end,text\n1.5,2,"so kind, Dr. A & B"\n3600,3601,5 < 6\n',
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert read_cues(tmp_path / name) == [
            Cue(text="so kind, Dr. A & B", start=1.5, end=2.0),
            Cue(text="5 < 6", start=3600, end=3601),
        ], name


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        (
            "a.srt",
            "1\n00:01 --> 00:02\nhm\n",
            r"line 2: '00:01 --> 00:02' is no pair of times; accepted: such as",
        ),
        ("a.srt", "hello, and no times\n", r"has words but no times; accepted: such as"),
        ("a.vtt", "WEBVTT\n\n00:02.000 --> 00:01.000\nhm\n", r"line 3: ends at 1 s, before its start at 2 s"),
        ("a.csv", "start,stop,text\n1,2,hm\n", r"has no column end; accepted: start and end in seconds"),
        ("a.csv", "start,end,text\n1,2,hm\n1,soon,hm\n", r"row 3, column end: 'soon'; accepted: 0 or more"),
    ],
)
def test_a_fault_in_a_transcript_is_named(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(TimelineError, match=rf"^{re.escape(str(tmp_path / name))}[,:] {told}"):
        read_cues(tmp_path / name)


# ---------------------------------------------------------------------- what is written


def test_smoothing_is_a_gaussian_mean_of_a_speaker() -> None:
    made = by_hand(
        (0, 2, "bo", "a", (0.9, 0.1, 0.0)),
        (2, 4, "anna", "b", (0.0, 0.0, 1.0)),
        (4, 5, "bo", "c", (0.4, 0.6, 0.0)),
    )
    first, anna, last = made.smoothed(3.0).segments
    near = np.exp(-0.5 * (3.5 / 3.0) ** 2)  # middles at 1 and 4.5 s, 2 and 1 s long
    assert first.scores["negative"] == pytest.approx((2 * 0.9 + near * 0.4) / (2 + near))
    assert last.scores["neutral"] == pytest.approx((0.6 + 2 * near * 0.1) / (1 + 2 * near))
    assert dict(anna.scores) == {"negative": 0.0, "neutral": 0.0, "positive": 1.0}
    assert last.label == "negative" and last.score == last.scores["negative"]
    assert last.alone == {"label": "neutral", "scores": made.segments[2].scores}
    assert by_hand().smoothed(3.0).segments == ()
    with pytest.raises(TimelineError, match="smooth is 0; accepted: seconds above 0"):
        made.smoothed(0)


def test_without_a_name_the_timeline_lies_beside_us_under_the_recordings(
    tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("consultation.wav", np.zeros(16_000), 16_000)
    main(["timeline", "--audio", "consultation.wav"])
    assert (tmp_path / "consultation" / "timeline.jsonl").exists()
    main(["timeline", "--audio", "consultation.wav"])  # its own folder is written into again
    (tmp_path / "notes").mkdir()
    soundfile.write("notes.wav", np.zeros(16_000), 16_000)
    with pytest.raises(SystemExit):
        main(["timeline", "--audio", "notes.wav"])
    assert capsys.readouterr().err.splitlines()[-1] == (
        "mmsr: error: notes/ is there and holds no timeline; accepted: --out with another folder"
    )


def test_the_summary_counts_seconds_and_names_moments() -> None:
    made = by_hand(
        (0, 2, "bo", "a", (0.9, 0.1, 0.0)),
        (2, 4.5, "anna", "b", (0.2, 0.2, 0.6)),
        (5, 6, "bo", None, (0.4, 0.6, 0.0)),
        (7, 8, "bo", "d", (0.45, 0.55, 0.0)),
    )
    summary = made.summary()
    assert summary["labels"] == {
        "negative": {"seconds": 2, "segments": 1},
        "neutral": {"seconds": 2, "segments": 2},
        "positive": {"seconds": 2.5, "segments": 1},
    }
    assert summary["speakers"] == {
        "anna": {"negative": 0, "neutral": 0, "positive": 2.5},
        "bo": {"negative": 2, "neutral": 2, "positive": 0},
    }
    starts = {label: [one["start"] for one in moments] for label, moments in summary["moments"].items()}
    assert starts == {"negative": [0], "neutral": [5, 7], "positive": [2]}
    assert as_text(summary).splitlines()[:5] == [
        "0:09 long, 4 segments, 0:06 of speech",
        "  negative: 2.0 s in 1 segments",
        "  neutral: 2.0 s in 2 segments",
        "  positive: 2.5 s in 1 segments",
        "  anna: positive 2.5 s",
    ]
    assert "  most positive, 0:02 (0.60): b" in as_text(summary).splitlines()


def test_subtitles_say_what_is_said(tmp_path: Path) -> None:
    made = by_hand(
        (1.5, 3661.0625, "A&B <x>", NASTY + "\nline", (0.7, 0.2, 0.1)), (3662, 3663, None, None, (0, 0, 1))
    )
    write_timeline(made, tmp_path / "t.srt")
    text = (tmp_path / "t.srt").read_text("utf-8")
    assert text.startswith("1\n00:00:01,500 --> 01:01:01,062\n[negative 0.70] A&B ")
    assert text.endswith("\n\n2\n01:01:02,000 --> 01:01:03,000\n[positive 1.00]\n\n")
    assert len(re.findall(r"-->", text)) == 2 and not re.search(r"<\w|</|\{\\", text)  # neither tag nor style
    first, second = read_cues(tmp_path / "t.srt")
    shown = " ".join(NASTY.split()) + " line"
    assert first.text.replace("\u2060", "") == f"[negative 0.70] A&B <x>: {shown} because: {shown}"
    assert second.text == "[positive 1.00]"


def test_a_browser_reads_the_captions(browser: Any, tmp_path: Path) -> None:
    made = by_hand((1.5, 3, "A&B <x>", NASTY, (0.7, 0.2, 0.1)), (4, 5, None, None, (0, 0, 1)))
    write_timeline(made, tmp_path / "t.vtt")
    page = browser.new_page(offline=True)
    cues = page.evaluate(
        """(text) => new Promise((done) => {
          const video = document.createElement("video"), track = document.createElement("track");
          track.src = URL.createObjectURL(new Blob([text], { type: "text/vtt" }));
          track.addEventListener("load", () => done([...track.track.cues].map((cue) => {
            const shown = cue.getCueAsHTML();
            return [cue.startTime, cue.endTime, shown.textContent,
              shown.querySelector("[title]")?.title || "", shown.querySelectorAll("script").length];
          })));
          video.append(track); document.body.append(video); track.track.mode = "showing";
        })""",
        (tmp_path / "t.vtt").read_text("utf-8"),
    )
    assert cues == [
        [1.5, 3, f"[negative 0.70] {NASTY}\nbecause: {NASTY}", "A&B <x>", 0],
        [4, 5, "[positive 1.00]", "", 0],
    ]
    page.close()


def test_the_page_walks_and_jumps(browser: Any, audio: Path, tmp_path: Path) -> None:
    made = by_hand(
        (1.0, 6.0, "bo", "first", (0.9, 0.1, 0.0)),
        (2.0, 3.0, "anna", NASTY, (0.1, 0.2, 0.7)),  # while bo talks
        (8.0, 9.0, "bo", "third", (0.1, 0.8, 0.1)),
        (20.0, 22.0, "anna", "last", (0.0, 0.2, 0.8)),
    )
    write_timeline(replace(made, audio=str(audio), seconds=30.0), tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    page = browser.new_page(offline=True)
    page.set_default_timeout(30_000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_function("document.getElementById('audio').readyState > 0")
    assert abs(page.evaluate("document.getElementById('audio').duration") - 30) < 0.2

    def said() -> str:
        return page.locator("#text").text_content()

    def place() -> float:
        page.wait_for_function("!document.getElementById('audio').seeking")
        return page.evaluate("document.getElementById('audio').currentTime")

    assert said() == "" and page.locator("#why").text_content() == "No speech here."
    for key, time, words in (
        ("ArrowRight", 1.0, "first"),
        ("ArrowRight", 2.0, NASTY),
        ("ArrowRight", 8.0, "third"),
        ("ArrowLeft", 2.0, NASTY),
        ("End", 20.0, "last"),
        ("Home", 1.0, "first"),
    ):
        page.keyboard.press(key)
        assert (place(), said()) == (time, words), key
    assert page.locator("[aria-current]").count() == 1
    page.get_by_role("button", name="third").last.click()
    assert (place(), said()) == (8.0, "third")
    assert [bar.split() for bar in page.locator("#bars .bar").all_inner_texts()] == [
        ["negative", "0.10"],
        ["neutral", "0.80"],
        ["positive", "0.10"],
    ]
    width = page.locator("#track").bounding_box()["width"]
    page.locator("#track").click(position={"x": width * 4.5 / 30, "y": 10})  # anna is done, bo still talks
    assert abs(place() - 4.5) < 0.1 and said() == "first"
    page.locator("#track").focus()
    before = float(page.locator("#cursor").evaluate("(it) => parseFloat(it.style.left)"))
    page.keyboard.press("Space")
    page.wait_for_function(f"parseFloat(document.getElementById('cursor').style.left) > {before} + 1")
    page.keyboard.press("Space")
    assert page.evaluate("document.getElementById('audio').paused")
    assert page.locator("#track").get_attribute("aria-valuetext").startswith("0:0")
    page.get_by_label("Show").select_option("positive")
    assert page.locator("#segments li:visible").count() == 2
    assert not page.locator("#near").is_visible(), (
        "a recording that fits in the overview needs no closer view"
    )
    assert not faults and all(url.startswith(("file:", "data:")) for url in asked)
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.close()


def test_the_sound_of_a_page(browser: Any, audio: Path, tmp_path: Path) -> None:
    made = replace(by_hand((1.0, 2.0, None, None, (0.1, 0.8, 0.1))), audio=str(audio), seconds=30.0)
    sources = {}
    for player in ("inline", "beside", "link", "none"):
        path = tmp_path / player / "a page.html"
        write_timeline(made, path, player=player)  # type: ignore[arg-type]
        page = browser.new_page(offline=True)
        page.goto(path.as_uri())
        sources[player] = page.evaluate("document.getElementById('audio')?.getAttribute('src')")
        if player != "none":
            page.wait_for_function("document.getElementById('audio').readyState > 0")
        page.keyboard.press("ArrowRight")
        assert page.locator("#when").text_content() == "0:01 – 0:02"
        page.close()
    assert sources["inline"].startswith("data:audio/mpeg;base64,") and sources["none"] is None
    assert sources["beside"] == "a%20page.mp3"
    assert sources["link"] == os.path.relpath(audio, tmp_path / "link")
    content = (tmp_path / "beside" / "a page.mp3").read_bytes()
    assert soundfile.info(io.BytesIO(content)).samplerate == 16_000 and len(content) < 150_000
    with pytest.raises(TimelineError, match=r"a page\.mp3 is the recording itself; accepted: another --out"):
        again = replace(made, audio=str(tmp_path / "beside" / "a page.mp3"))
        write_timeline(again, tmp_path / "beside" / "a page.html", player="beside")

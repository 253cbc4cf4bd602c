"""A recording along its time axis: the answers, what a kill leaves, what is written, how the page acts."""

import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsr.data.audio.decoding import Audio
from mmsr.data.audio.segments import Segmentation
from mmsr.inference.timeline import make
from mmsr.inference.timeline.cues import Cue, TimelineError, Turn
from mmsr.inference.timeline.formats import as_text, stamp, write_timeline
from mmsr.inference.timeline.make import Timeline, make_timeline
from mmsr.inference.timeline.transcripts import read_cues
from mmsr.records import Chunk
from mmsr.speech.decoder import Transcript


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
        assert part.prosody is not None and part.prosody["level"] < 0
        for kept, own in zip(part.evidence, alone["evidence"], strict=True):
            assert kept["seconds"] == pytest.approx([part.start + time for time in own["seconds"]], abs=2e-3)
    other = make_timeline(audio, pipe, turns=turns, batch_size=4)  # without words
    assert other.segments[1].scores != made.segments[1].scores


class Hears:
    """A recogniser that hears two words, after a tenth and after three tenths of a second."""

    name, fingerprint, longest, timestamps, window_seconds = "hears", "0", 30.0, "word", None
    words = (Chunk(text="So", start=0.1, end=0.2), Chunk(text="rude!", start=0.3, end=0.5))

    def transcribe(self, waves: Any, *, languages: Any) -> list[Transcript]:
        return [Transcript(text="So rude!", language="en", chunks=self.words) for _ in waves]


def test_words_have_the_recognisers_times_in_the_recording(
    audio: Path, turns: list[Turn], pipe: Any, tmp_path: Path
) -> None:
    made = make_timeline(audio, pipe, turns=turns, transcriber=cast(Any, Hears()), journal=tmp_path / "j")
    for part in made.segments:
        assert part.text == "So rude!"
        assert part.asr_words == [
            {"text": "So", "start": round(part.start + 0.1, 3), "end": round(part.start + 0.2, 3)},
            {"text": "rude!", "start": round(part.start + 0.3, 3), "end": round(part.start + 0.5, 3)},
        ]
        assert all(one["timed_by"] == "recogniser" for one in part.evidence)
        by_word = {word["text"].strip("!"): word for word in part.asr_words}
        for one in part.evidence:
            first, last = one["text"].split()[0], one["text"].split()[-1]
            assert one["seconds"] == [by_word[first]["start"], by_word[last]["end"]]
    assert any(part.evidence for part in made.segments)
    again = make_timeline(audio, pipe, turns=turns, transcriber=cast(Any, Hears()), journal=tmp_path / "j")
    assert [part.as_row() for part in again.segments] == [part.as_row() for part in made.segments]
    write_timeline(made, tmp_path / "t.vtt")
    begins = made.segments[1].start
    written = f"<{stamp(begins + 0.1, '.')}>So <{stamp(begins + 0.3, '.')}>rude!"
    assert written in (tmp_path / "t.vtt").read_text("utf-8")
    assert [cue.text for cue in read_cues(tmp_path / "t.vtt")][1].endswith(
        "So rude!" + f" {made.segments[1].rationale}"
    )
    write_timeline(made, tmp_path / "t.csv")
    assert "asr_words" not in (tmp_path / "t.csv").read_text("utf-8").splitlines()[0]


def test_people_who_talk_at_once_are_speech_once(by_hand: Callable[..., Timeline]) -> None:
    scores = (0.1, 0.2, 0.7)
    made = by_hand((0, 3, "a", None, scores), (1, 2, "b", None, scores), (2, 4, "b", None, scores))
    assert made.summary()["speech_seconds"] == 4 and made.summary()["labels"]["positive"]["seconds"] == 6


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


def test_a_cue_that_touches_a_segment_does_not_lie_in_it(
    audio: Path, pipe: Any, caplog: pytest.LogCaptureFixture
) -> None:
    turns = [Turn(start=1.0, end=3.0), Turn(start=4.0, end=6.0)]
    cues = [
        Cue(text="between", start=3.0, end=4.0),
        Cue(text="before", start=0.0, end=1.0),
        Cue(text="after", start=6.0, end=6.4),
        Cue(text="inside", start=5.999, end=8.0),
    ]
    with caplog.at_level(logging.WARNING):
        made = make_timeline(audio, pipe, turns=turns, transcript=cues)
    assert [part.text for part in made.segments] == [None, "inside"]
    assert "3 cues of the transcript lie in no segment" in caplog.text


_spans = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=12)


@given(_spans, _spans)
@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
def test_each_cue_lies_in_one_segment_that_it_overlaps(
    turns: list[tuple[int, int]], cues: list[tuple[int, int]]
) -> None:
    given_turns = [Turn(start=start / 4, end=(start + length + 1) / 4) for start, length in turns]
    said = [
        Cue(text=f"w{n}", start=start / 4, end=(start + length) / 4) for n, (start, length) in enumerate(cues)
    ]
    words = make._words(given_turns, said)

    def shared(turn: Turn, cue: Cue) -> float:
        return min(turn.end, cue.end) - max(turn.start, cue.start)

    for cue in said:
        places = [place for place, text in enumerate(words) if cue.text in (text or "").split()]
        most = max((shared(turn, cue) for turn in given_turns), default=-1.0)
        if cue.start == cue.end:
            assert len(places) == (most >= 0) and all(
                shared(given_turns[place], cue) == 0 for place in places
            )
        else:
            assert len(places) == (most > 0) and all(
                shared(given_turns[place], cue) == most for place in places
            )


@pytest.mark.parametrize(
    ("cue", "told"),
    [
        (
            Cue(text="Kids are", start=1600, end=3400),
            r"the cue 'Kids are' from 1600 to 3400 s is after the end",
        ),
        (
            Cue(text="hm", start=31.5, end=32),
            r"the cue 'hm' from 31\.5 to 32 s is after the end of .*talk\.wav",
        ),
        (Cue(text="hm", start=0, end=400), r"0 to 400 s .*; accepted: seconds within its 30\.000 s"),
    ],
)
def test_a_transcript_of_another_recording_is_refused(audio: Path, pipe: Any, cue: Cue, told: str) -> None:
    turns = [Turn(start=1.0, end=3.0)]
    with pytest.raises(TimelineError, match=told):
        make_timeline(audio, pipe, turns=turns, transcript=[Cue(text="so", start=1, end=2), cue])
    # whisper pads the last half minute
    padded = [Cue(text="so", start=1, end=2), Cue(text="Thank you.", start=30.2, end=59.9)]
    assert make_timeline(audio, pipe, turns=turns, transcript=padded).segments[0].text == "so"


def test_settings_that_make_no_timeline_are_named(audio: Path, turns: list[Turn], pipe: Any) -> None:
    with pytest.raises(TimelineError, match="batch_size is 0; accepted: 1 and more"):
        make_timeline(audio, pipe, turns=turns, batch_size=0)
    with pytest.raises(TimelineError, match=r"nowhere\.wav: no such file; accepted: a recording"):
        make_timeline(audio.parent / "nowhere.wav", pipe)
    os.mkfifo(audio.parent / "pipe.wav")
    with pytest.raises(
        TimelineError, match=r"pipe\.wav: is not a file, but a named pipe; accepted: a recording"
    ):
        make_timeline(audio.parent / "pipe.wav", pipe)


def test_a_recording_whose_name_is_not_utf_8(
    audio: Path, turns: list[Turn], pipe: Any, tmp_path: Path
) -> None:
    named = audio.with_name(os.fsdecode(b"caf\xe9.wav"))
    named.write_bytes(audio.read_bytes())
    made = make_timeline(named, pipe, turns=turns)
    for player in ("link", "beside"):
        write_timeline(made, tmp_path / player, player=player)
    assert "caf%E9.wav" in (tmp_path / "link" / "timeline.html").read_text("utf-8")
    assert json.loads((tmp_path / "link" / "summary.json").read_text("utf-8"))["audio"] == "caf\\xe9.wav"


def written(made: Timeline, out: Path) -> dict[str, bytes]:
    write_timeline(made, out, player="beside")
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_a_killed_run_is_resumed_to_the_same_bytes(
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


def test_a_journal_that_ends_anywhere_is_resumed(
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


def test_smoothing_is_a_gaussian_mean_of_a_speaker(by_hand: Callable[..., Timeline]) -> None:
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


def test_the_summary_counts_seconds_and_names_moments(by_hand: Callable[..., Timeline]) -> None:
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
        "6.5 of 9.0 s are speech, in 4 segments",
        "  negative: 2.0 s in 1 segments",
        "  neutral: 2.0 s in 2 segments",
        "  positive: 2.5 s in 1 segments",
        "  anna: positive 2.5 s",
    ]
    assert "  most positive, 0:02 (0.60): b" in as_text(summary).splitlines()

"""Segments that are transcribed together have the words that were said in them."""

from typing import Any, cast

import numpy as np
import pytest

from mmsr.records import Chunk
from mmsr.speech.decoder import Transcript
from mmsr.speech.neighbours import NeighbourTranscriber, divided, runs


def test_runs_are_of_one_speaker_fit_the_window_and_have_short_gaps() -> None:
    spans = [(0, 4), (5, 9), (9.5, 12), (16, 18), (18, 27), (26, 28), (28, 29), (29, 40)]
    speakers = ["a"] * 6 + ["b", "b"]
    found = [list(run) for run in runs(spans, speakers, longest=12)]
    assert found == [[0, 1, 2], [3, 4], [5], [6, 7]]
    assert [len(run) for run in runs(spans, speakers, longest=None)] == [1] * 8
    assert [list(run) for run in runs(spans, speakers, longest=8)][:3] == [[0], [1, 2], [3]]


def test_words_go_to_the_segment_that_they_share_most_time_with() -> None:
    words = [("So", 0.1, 0.4), ("kind!", 0.5, 1.2), ("It", 1.9, 2.3), ("hurts.", 2.4, 4.0), ("Oh", 4.2, 4.3)]
    chunks = tuple(Chunk(text=text, start=start, end=end) for text, start, end in words)
    whole = Transcript(text="So kind! It hurts. Oh", language="en", chunks=chunks)
    first, silent, last = divided(whole, [(0.0, 1.0), (1.0, 1.5), (2.0, 4.0)])
    assert (first.text, silent.text, last.text) == ("So kind!", "", "It hurts. Oh")
    assert [(word.text, word.start, word.end) for word in first.chunks or ()] == [
        ("So", 0.1, 0.4),
        ("kind!", 0.5, 1.0),
    ]
    assert silent.chunks == () and first.language == "en"
    times = [(word.start, word.end) for word in last.chunks or ()]
    assert times == [pytest.approx(pair) for pair in [(0.0, 0.3), (0.4, 2.0), (2.0, 2.0)]]


def test_languages_without_spaces_keep_their_letters() -> None:
    letters = [("医", 0.0, 0.2), ("生", 0.3, 0.4), ("好", 2.0, 2.2)]
    chunks = tuple(Chunk(text=text, start=start, end=end) for text, start, end in letters)
    whole = Transcript(text="医生，好", language="zh", chunks=chunks)
    assert [part.text for part in divided(whole, [(0.0, 1.0), (1.9, 2.5)])] == ["医生，", "好"]


def test_nothing_heard_is_nothing_in_each_segment() -> None:
    nothing = Transcript(text="", language="en", chunks=())
    assert [part.text for part in divided(nothing, [(0.0, 1.0), (1.0, 2.0)])] == ["", ""]


def test_each_run_is_transcribed_once() -> None:
    asked: list[list[int]] = []

    class Hears:
        window_seconds = 10.0

        def transcribe(self, waves: Any, *, languages: Any) -> list[Transcript]:
            asked.append([len(wave) for wave in waves])
            assert languages == ["en"] * len(waves)
            return [
                Transcript(
                    text="a b c",
                    language="en",
                    chunks=tuple(
                        Chunk(text=text, start=2.0 * n, end=2.0 * n + 1) for n, text in enumerate("abc")
                    ),
                )
                for _ in waves
            ]

    spans = [(10.0, 11.0), (12.0, 13.0), (14.0, 15.0), (30.0, 31.0)]
    hear = NeighbourTranscriber(
        cast(Any, Hears()),
        lambda start, end: np.zeros(round(16_000 * (end - start)), np.float32),
        spans,
        speakers=[None] * 4,
        language="en",
    )
    found = [*hear([2, 3]), *hear([0, 1])]
    assert asked == [[5 * 16_000, 16_000]]
    assert [part.text for part in found] == ["c", "a b c", "a", "b"]
    assert all(part.chunks and part.chunks[0].start == 0 for part in found)

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch

import mmsr.data.audio.segments
from mmsr.data.audio.decoding import Audio
from mmsr.data.audio.segments import Segment, Segmentation, SegmentError, speech_segments
from mmsr.data.manifest.manifest import load_manifest

needs_silero = pytest.mark.skipif(
    not any((Path(folder) / "silero_vad").is_dir() for folder in sys.path),
    reason="speech is found by silero-vad: pip install 'mmsr[segments]'",
)

Recording: TypeAlias = Callable[..., tuple[np.ndarray, list[Segment]]]


@needs_silero
@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_utterances_are_found_between_pauses(recording: Recording, clips: list[np.ndarray], noise: float):
    samples, truth = recording(clips, pause=1.5, noise=noise)
    found = speech_segments(samples, Segmentation(padding=0.1))
    assert len(found) == len(truth)
    for one, other in zip(found, truth, strict=True):
        assert one.start == pytest.approx(other.start - 0.1, abs=0.2)
        assert one.end == pytest.approx(other.end + 0.1, abs=0.3)
    again = speech_segments(samples, Segmentation(padding=0.1))
    assert again == found  # the model's state does not go from one recording into the next


@needs_silero
def test_the_settings_do_what_they_say(recording: Recording, clips: list[np.ndarray]):
    samples, truth = recording(clips, pause=1.0)
    whole = speech_segments(samples, Segmentation(max_silence=2.0, max_seconds=99))
    assert len(whole) == 1 and whole[0].seconds == pytest.approx(
        truth[-1].end - truth[0].start + 0.2, abs=0.5
    )
    assert speech_segments(samples, Segmentation(min_seconds=9.0, max_seconds=99)) == []
    wide = speech_segments(samples, Segmentation(padding=5.0))
    assert wide[0].start == 0 and wide[-1].end == len(samples) / 16000
    assert all(one.end == other.start for one, other in zip(wide, wide[1:], strict=False))
    short = speech_segments(samples, Segmentation(max_silence=2.0, max_seconds=2.0))
    assert len(short) > 5 and all(0.25 <= part.seconds <= 2.0 for part in short)
    assert short[0].start == whole[0].start and short[-1].end == whole[0].end
    assert all(one.end == other.start for one, other in zip(short, short[1:], strict=False))


@needs_silero
def test_a_long_recording_is_heard_side_by_side(
    recording: Recording, clips: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
):
    samples, truth = recording(clips, pause=1.5, noise=0.002)
    whole = speech_segments(samples)
    told: list[tuple[str, int, int]] = []
    monkeypatch.setattr(mmsr.data.audio.segments, "_STRIPE", 150)  # 4.8 s
    monkeypatch.setattr(
        mmsr.data.audio.segments, "_MINUTE", 31
    )  # the last stripe ends before some of its pieces
    for abreast in (2, 16):
        monkeypatch.setattr(mmsr.data.audio.segments, "_ABREAST", abreast)
        found = speech_segments(samples, progress=lambda *step: told.append(step))
        assert len(found) == len(truth) == len(whole)
        for one, other in zip(found, whole, strict=True):
            assert (one.start, one.end) == pytest.approx((other.start, other.end), abs=0.07)
        assert told[-1][1] == told[-1][2]


@needs_silero
def test_silence_and_noise_hold_no_speech():
    assert speech_segments(np.zeros(32000, dtype=np.float32)) == []
    hiss = 0.05 * np.random.default_rng(0).standard_normal(48000).astype(np.float32)
    assert speech_segments(hiss) == []
    assert speech_segments(np.zeros(10, dtype=np.float32)) == []


def test_long_speech_is_cut_where_it_is_quietest():
    rng = np.random.default_rng(0)
    samples = 0.3 * rng.standard_normal(16000 * 25).astype(np.float32)
    for second in (7.3, 16.1, 3.0):  # the last is too early to be a cut
        samples[round((second - 0.1) * 16000) : round((second + 0.1) * 16000)] *= 0.1
    cut = list(
        mmsr.data.audio.segments.cut_at_quietest(samples, Segment(0.5, 24.0), Segmentation(max_seconds=10.0))
    )
    assert [part.start for part in cut] == pytest.approx([0.5, 7.3, 16.1], abs=0.1)
    assert [part.end for part in cut] == pytest.approx([7.3, 16.1, 24.0], abs=0.1)
    rest = list(
        mmsr.data.audio.segments.cut_at_quietest(
            samples, Segment(0, 10.1), Segmentation(max_seconds=10, min_seconds=5)
        )
    )
    assert len(rest) == 2 and all(part.seconds >= 5 for part in rest)


@needs_silero
def test_the_number_of_threads_stays(monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in sys.modules if name.startswith("silero_vad")]:
        monkeypatch.delitem(sys.modules, name)
    mmsr.data.audio.segments.silero.cache_clear()
    torch.set_num_threads(2)
    try:
        mmsr.data.audio.segments.silero()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"min_seconds": 0}, "min_seconds is 0; accepted: a positive number"),
        ({"max_seconds": 0.5}, "max_seconds is 0.5; accepted: 1 or more"),
        (
            {"min_seconds": 2, "max_seconds": 3},
            "min_seconds is 2; accepted: at most half of max_seconds, 1.5",
        ),
        ({"max_silence": 0}, "max_silence is 0; accepted: a positive number"),
        ({"padding": -1}, "padding is -1; accepted: 0 or more"),
        ({"threshold": 1}, "threshold is 1; accepted: between 0 and 1"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], text: str):
    with pytest.raises(SegmentError, match=text):
        Segmentation(**settings)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    mmsr.data.audio.segments.silero.cache_clear()
    with pytest.raises(SegmentError, match=r"needs silero-vad: pip install 'mmsr\[segments\]'"):
        speech_segments(np.zeros(16000, dtype=np.float32))


@needs_silero
def test_real_speech_is_found(recording: Recording, shared_data: Path):
    rows = load_manifest(shared_data / "ravdess16k" / "manifest.csv").to_list()
    clips = [Audio()(row["audio"]) for row in rows[:: len(rows) // 8][:8]]
    samples, truth = recording(clips, pause=1.0)
    found = speech_segments(samples)
    assert len(found) == len(truth)
    assert all(
        one.start > other.start - 0.2 and one.end < other.end + 0.3
        for one, other in zip(found, truth, strict=True)
    )

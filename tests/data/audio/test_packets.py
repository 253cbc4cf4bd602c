"""What PyAV decodes: times against samples, and what FFmpeg may not do."""

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from mmsr.data.audio import packets
from mmsr.data.audio.decoding import Audio, AudioError
from mmsr.data.audio.packets import Clock

TONE = (0.4 * np.sin(np.arange(32_000) / 5)).astype(np.float32)


def remuxed(content: bytes, container: str, move: Any) -> bytes:
    """A file whose packets are left out, or get other times: `move(seconds)` gives a time, or None."""
    sink = io.BytesIO()
    with av.open(io.BytesIO(content)) as source, av.open(sink, "w", format=container) as out:
        stream = source.streams.audio[0]
        copied = out.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.pts is None or stream.time_base is None:
                continue
            moved = move(float(packet.pts * stream.time_base))
            if moved is None:
                continue
            packet.pts = packet.dts = round(moved / stream.time_base)
            packet.stream = copied
            out.mux(packet)
    return sink.getvalue()


def test_a_late_audio_track_begins_with_silence(encode: Any) -> None:
    """Subtitles of a film count from its start."""
    content = encode("matroska", "aac", TONE, film=9, start=5.0)
    decoded = Audio().decode(content)
    assert len(decoded.samples) == pytest.approx(7 * 16_000, abs=1_100)
    assert not decoded.samples[: round(4.8 * 16_000)].any()
    assert np.abs(decoded.samples[round(5.3 * 16_000) : round(6.7 * 16_000)]).max() == pytest.approx(
        0.4, abs=0.05
    )
    (note,) = decoded.notes
    assert note.code == "audio-gap" and note.message.startswith(
        ("its audio starts 4.9", "its audio starts 5.0")
    )
    assert Audio.duration(content) == pytest.approx(len(decoded.samples) / 16_000, abs=0.07)
    blocks = np.concatenate(list(Audio().blocks(content, seconds=0.5)))
    np.testing.assert_allclose(blocks, decoded.samples, atol=1e-6)


def test_times_are_those_of_the_container_and_not_its_clock(encode: Any) -> None:
    """A broadcast starts at any time; what counts is the difference to its start."""
    for content in (encode("matroska", "aac", TONE, start=5.0), encode("mpegts", "aac", TONE, start=5.0)):
        decoded = Audio().decode(content)
        assert len(decoded.samples) == pytest.approx(32_000, abs=2_100) and decoded.notes == ()


def test_lost_packets_become_silence(encode: Any) -> None:
    content = encode("matroska", "aac", TONE)
    lossy = remuxed(content, "matroska", lambda time: None if 0.7 < time < 1.2 else time)
    whole, decoded = Audio()(content), Audio().decode(lossy)
    assert len(decoded.samples) == pytest.approx(len(whole), abs=100)
    assert not decoded.samples[round(0.9 * 16_000) : round(1.15 * 16_000)].any()
    np.testing.assert_allclose(decoded.samples[-8_000:-2_000], whole[-8_000:-2_000], atol=0.02)
    assert [note.code for note in decoded.notes] == ["audio-gap"]
    assert Audio.duration(lossy) == pytest.approx(len(whole) / 16_000, abs=0.07)


def test_times_that_run_backwards_go_on_from_the_last_sample(encode: Any) -> None:
    content = encode("mpegts", "aac", TONE)
    decoded = Audio().decode(content + content)
    assert len(decoded.samples) == pytest.approx(2 * len(Audio()(content)), abs=1_100)
    assert [note.code for note in decoded.notes] == ["audio-times-backwards"]
    assert Audio.duration(content + content) == pytest.approx(len(decoded.samples) / 16_000, abs=0.07)


def test_absurd_times_do_not_become_hours_of_silence(encode: Any) -> None:
    far = remuxed(encode("matroska", "aac", TONE), "matroska", lambda time: time + (1e5 if time > 1 else 0))
    decoded = Audio().decode(far)
    assert len(decoded.samples) == pytest.approx(32_700, abs=600)
    assert [note.code for note in decoded.notes] == ["audio-gap"]
    assert "no silence is put in" in decoded.notes[0].message


def test_the_clock_fills_gaps_and_goes_on_after_jumps() -> None:
    told: list[str] = []
    clock = Clock(10.0, lambda note: told.append(note.code))
    assert clock.gap(10.0) == 0 and clock.gap(None) == 0
    clock.advance(1.0)
    assert clock.gap(11.049) == 0
    assert clock.gap(11.2) == pytest.approx(0.2) and clock.position == pytest.approx(1.2)
    clock.advance(1.0)
    assert clock.gap(10.0) == 0 and told == ["audio-gap", "audio-times-backwards"]
    clock.advance(1.0)
    assert clock.gap(11.0) == 0 and clock.position == pytest.approx(3.2)
    assert clock.gap(1e6) == 0 and clock.position == pytest.approx(3.2) and told[-1] == "audio-gap"


def test_silence_is_no_more_than_the_sound_allows() -> None:
    clock = Clock(0.0, lambda note: None)
    filled = 0.0
    for place in range(100):
        filled += clock.gap(599.0 * place)
        clock.advance(0.01)
    assert 598 <= filled < 1300


def test_a_damaged_packet_in_the_middle_is_refused(encode: Any) -> None:
    content = bytearray(encode("mp4", "aac", TONE))
    middle = len(content) // 2
    content[middle : middle + 600] = b"\xff" * 600
    with pytest.raises(
        AudioError, match=r"cannot be decoded whole \(FFmpeg: .+\); accepted: a whole audio file; if"
    ) as error:
        Audio()(bytes(content))
    assert error.value.code == "audio-corrupt"


def test_the_last_packet_of_what_states_no_length_may_be_incomplete(encode: Any) -> None:
    content = encode("adts", "aac", TONE)
    whole, cut = Audio()(content), Audio()(content[:-5])
    assert 0 < len(whole) - len(cut) <= 1024
    np.testing.assert_array_equal(cut, whole[: len(cut)])


def test_the_first_audio_stream_is_read(encode: Any) -> None:
    sink = io.BytesIO()
    with av.open(sink, "w", format="mov") as out:
        streams = [out.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in range(2)]
        for stream, level in zip(streams, (1000, 9000), strict=True):
            frame = av.AudioFrame.from_ndarray(np.full((1, 16_000), level, np.int16), layout="mono")
            frame.sample_rate, frame.pts = 16_000, 0
            out.mux(stream.encode(frame))
    np.testing.assert_allclose(Audio()(sink.getvalue()), 1000 / 32768, atol=1e-4)


def test_channels_in_an_order_of_their_own_do_not_end_the_process(
    encode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyAV 18 frees such an order twice. The film's `chan` box names right before left."""
    content = bytearray(encode("mov", "pcm_s16le", np.stack([TONE, 0.5 * TONE])))
    place = content.find(b"chan")
    if place < 0:
        pytest.skip("this FFmpeg writes no order of channels")
    # a list of descriptions takes more room than the tag of a known order: the box grows, and all around it
    size = int.from_bytes(content[place - 4 : place], "big")
    names = b"".join(label.to_bytes(4, "big") + bytes(16) for label in (2, 1))
    box = b"chan" + bytes(4) + bytes(4) + bytes(4) + (2).to_bytes(4, "big") + names
    grown = len(box) + 4 - size
    content[place - 4 : place - 4 + size] = (len(box) + 4).to_bytes(4, "big") + box
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"sowt"):
        at = content.rfind(name, 0, place)
        content[at - 4 : at] = (int.from_bytes(content[at - 4 : at], "big") + grown).to_bytes(4, "big")
    if content.find(b"moov") < content.find(b"mdat"):
        at = content.find(b"stco") + 12
        content[at : at + 4] = (int.from_bytes(content[at : at + 4], "big") + grown).to_bytes(4, "big")
    keep, orders = packets._keep_for_ever, set()
    monkeypatch.setattr(packets, "_keep_for_ever", lambda layout: (orders.add(layout.name), keep(layout)))
    for _ in range(3):
        np.testing.assert_allclose(Audio()(bytes(content)), 0.75 * TONE, atol=1e-3)
    assert orders == {"2 channels (FR+FL)"}


def test_of_nothing_but_its_file_ffmpeg_opens_anything(tmp_path: Path, encode: Any) -> None:
    (tmp_path / "secret.ts").write_bytes(encode("mpegts", "aac", TONE))
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n")
    with av.open(str(playlist)) as container:  # unrestricted, it does
        assert container.streams.audio
    with pytest.raises(AudioError, match="holds no audio that can be read; accepted"):
        packets.lengths(io.BytesIO(playlist.read_bytes()))


@pytest.mark.parametrize(("container", "codec"), [("avi", "aac"), ("asf", "wmav2")])
def test_times_that_are_only_estimated_are_no_gaps(container: str, codec: str, encode: Any) -> None:
    """AVI has none, and a frame of WMA comes out with the packet behind it."""
    decoded = Audio().decode(encode(container, codec, np.tile(TONE, 5), bit_rate=64_000))
    assert decoded.notes == () and len(decoded.samples) == pytest.approx(160_000, abs=2_100)

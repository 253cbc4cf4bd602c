import io
import logging
import os
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmsr.data.audio import decoding
from mmsr.data.audio.decoding import Audio, AudioError, AudioSource

Encode = Callable[..., bytes]


def tone(*, rate: int = 16000, seconds: float = 0.5, hertz: float = 440, peak: float = 0.5) -> np.ndarray:
    return (peak * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def main_frequency(samples: np.ndarray, rate: int = 16000) -> float:
    return float(np.fft.rfftfreq(len(samples), 1 / rate)[np.abs(np.fft.rfft(samples)).argmax()])


FORMATS = [
    ("wav", "PCM_16"),
    ("wav", "PCM_24"),
    ("wav", "FLOAT"),
    ("flac", "PCM_16"),
    ("flac", "PCM_24"),
    ("aiff", "PCM_16"),
    ("ogg", "VORBIS"),
    ("mp3", "MPEG_LAYER_III"),
]


@pytest.mark.parametrize(("ending", "subtype"), FORMATS)
@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_any_format_and_rate_comes_out_alike(tmp_path: Path, ending: str, subtype: str, rate: int):
    path = tmp_path / f"tone.{ending}"
    soundfile.write(path, tone(rate=rate), rate, subtype=subtype)
    samples = Audio()(path)
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert len(samples) == pytest.approx(8000, abs=2)
    assert main_frequency(samples) == pytest.approx(440, abs=3)
    assert np.abs(samples).max() == pytest.approx(0.5, abs=0.06)
    assert Audio.duration(path) == pytest.approx(0.5, abs=1e-3)


def test_16_bit_audio_at_the_rate_wanted_is_exact(tmp_path: Path):
    integers = np.random.default_rng(0).integers(-32768, 32768, 1000, dtype=np.int16)
    soundfile.write(tmp_path / "noise.wav", integers, 16000)
    np.testing.assert_array_equal(Audio()(tmp_path / "noise.wav"), integers / np.float32(32768))


@pytest.mark.parametrize("channels", [2, 5])
def test_channels_are_averaged(tmp_path: Path, channels: int):
    parts = np.stack([tone(peak=0.1 * (place + 1)) for place in range(channels)], axis=1)
    soundfile.write(tmp_path / "many.wav", parts, 16000, subtype="FLOAT")
    np.testing.assert_allclose(Audio()(tmp_path / "many.wav"), parts.mean(axis=1), atol=1e-6)


def test_another_rate_can_be_asked_for():
    assert len(Audio(8000)((tone(), 16000))) == 4000
    with pytest.raises(AudioError, match="sampling_rate is 0; accepted: a positive number of Hz"):
        Audio(0)


def test_path_bytes_and_file_objects_are_the_same(tmp_path: Path):
    path = tmp_path / "tone.flac"
    soundfile.write(path, tone(rate=22050), 22050)
    expected = Audio()(path)
    np.testing.assert_array_equal(Audio()(str(path)), expected)
    np.testing.assert_array_equal(Audio()(path.read_bytes()), expected)
    np.testing.assert_array_equal(Audio()(io.BytesIO(path.read_bytes())), expected)
    with open(path, "rb") as file:
        np.testing.assert_array_equal(Audio()(file), expected)
    assert Audio.duration(path.read_bytes()) == Audio.duration(path) == 0.5


def test_a_stream_that_cannot_seek_is_read(tmp_path: Path):
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(), 16000)
    with subprocess.Popen(["cat", str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert len(Audio()(process.stdout)) == 8000


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_samples_of_any_type_have_the_same_scale(dtype: type):
    if np.issubdtype(dtype, np.floating):
        samples = tone().astype(dtype)
    else:
        middle = 128 if dtype is np.uint8 else 0
        samples = (tone() * np.iinfo(dtype).max / (2 if middle else 1) + middle).astype(dtype)
    np.testing.assert_allclose(Audio()((samples, 16000)), tone(), atol=0.02)


def test_samples_may_have_either_axis_first():
    stereo = np.stack([tone(), tone(peak=0.1)])
    expected = stereo.mean(axis=0)
    np.testing.assert_allclose(Audio()((stereo, 16000)), expected, atol=1e-7)
    np.testing.assert_allclose(Audio()((stereo.T, 16000)), expected, atol=1e-7)
    assert Audio.duration((stereo, 16000)) == Audio.duration((stereo.T, 16000)) == 0.5


def test_the_level_is_kept():
    assert np.abs(Audio()((tone(peak=0.01), 16000))).max() == pytest.approx(0.01, rel=1e-3)


def test_overshoot_is_clipped_and_told_once(caplog: pytest.LogCaptureFixture):
    audio = Audio()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert np.abs(audio((tone(peak=1.5), 16000))).max() == 1
    assert [record.getMessage() for record in caplog.records] == [
        "samples: peak 1.50 is clipped to 1; so is any later file beyond full scale"
    ]


def test_missing_and_empty_files_are_named(tmp_path: Path):
    with pytest.raises(AudioError, match=r"no\.wav: does not exist; accepted: a path to an audio file"):
        Audio()(tmp_path / "no.wav")
    with pytest.raises(AudioError, match="is a folder; accepted"):
        Audio()(tmp_path)
    (tmp_path / "empty.wav").touch()
    with pytest.raises(AudioError, match=r"empty\.wav: is empty \(0 bytes\); accepted: at least one sample"):
        Audio()(tmp_path / "empty.wav")
    soundfile.write(tmp_path / "zero.wav", np.zeros(0), 16000)
    with pytest.raises(AudioError, match=r"zero\.wav: has length zero; accepted: at least one sample"):
        Audio()(tmp_path / "zero.wav")
    with pytest.raises(AudioError, match="0 bytes of audio: nothing to read"):
        Audio()(b"")


@pytest.fixture
def without_av(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)


@pytest.mark.parametrize("name", ["words.wav", "voice.m4a", "headerless.raw"])
def test_what_holds_no_audio_says_what_would(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]):
    path = tmp_path / name
    path.write_bytes(b"\0\0\0\x20ftypM4A " + b"these are no samples" * 9)
    for read in (Audio(), Audio.duration):
        with pytest.raises(AudioError) as error:
            read(path)
        message = str(error.value)
        assert message.startswith(f"{path}: holds no audio that can be read")
        assert message.endswith("; accepted: wav, flac, mp3, ogg, m4a, mp4, webm and the like")
        assert "\n" not in message and error.value.code == "audio-corrupt"
    assert capfd.readouterr() == ("", ""), "what a library has to say belongs into the message"


@pytest.mark.parametrize("container", ["wav", "flac", "aiff", "ogg"])
def test_without_av_libsndfile_reads_its_formats(tmp_path: Path, container: str, without_av: None):
    soundfile.write(tmp_path / f"tone.{container}", tone(), 16000)
    content = (tmp_path / f"tone.{container}").read_bytes()
    assert len(Audio()(content)) == 8000 and Audio.duration(content) == 0.5
    with pytest.raises(AudioError, match="is cut off"):
        Audio()(content[: len(content) * 3 // 4])


def test_without_av_other_formats_name_what_to_install(tmp_path: Path, encode: Encode, without_av: None):
    with_it = "accepted: wav, flac and the like; for others (mp3, m4a, mp4, webm): pip install 'mmsr[av]'"
    sys.modules.pop("av")  # to write them
    made = [encode("mp4", "aac", tone()), encode("matroska", "aac", tone()), b"words"]
    made += [
        encode("wav", "g726", tone(rate=8000), 8000),
        encode("mp3", "libmp3lame", tone(), write_xing="0"),
    ]
    sys.modules["av"] = None  # type: ignore[assignment]
    for content in made:
        for read in (Audio(), Audio.duration, lambda source: list(Audio().blocks(source))):
            with pytest.raises(AudioError) as error:
                read(content)
            assert with_it in str(error.value) and "\n" not in str(error.value)


def test_av_whose_libraries_do_not_load_is_as_none(
    tmp_path: Path, encode: Encode, monkeypatch: pytest.MonkeyPatch
):
    film, sound = encode("mp4", "aac", tone()), io.BytesIO()
    soundfile.write(sound, tone(), 16000, format="WAV")
    (tmp_path / "av.py").write_text("raise ImportError('libavcodec.so.61: cannot open shared object file')")
    monkeypatch.delitem(sys.modules, "av")
    monkeypatch.syspath_prepend(tmp_path)
    assert len(Audio()(sound.getvalue())) == 8000
    with pytest.raises(AudioError, match=r"pip install 'mmsr\[av\]'"):
        Audio()(film)


OF_FFMPEG = [
    ("ipod", "aac", 16_000),
    ("adts", "aac", 44_100),
    ("mp4", "aac", 48_000),
    ("3gp", "aac", 16_000),
    ("mov", "alac", 16_000),
    ("mov", "pcm_s24le", 48_000),
    ("matroska", "aac", 16_000),
    ("matroska", "flac", 16_000),
    ("webm", "libopus", 48_000),
    ("mpegts", "aac", 16_000),
    ("mpeg", "mp2", 48_000),
    ("flv", "aac", 44_100),
    ("avi", "libmp3lame", 44_100),
    ("amr", "libopencore_amrnb", 8_000),
    ("ac3", "ac3", 48_000),
    ("eac3", "eac3", 48_000),
    ("caf", "alac", 16_000),
    ("wav", "adpcm_ms", 16_000),
    ("wav", "adpcm_ima_wav", 16_000),
    ("wav", "g726", 8_000),
    ("wav", "libmp3lame", 16_000),
    ("wav", "pcm_mulaw", 8_000),
    ("wav", "pcm_alaw", 8_000),
    ("wav", "pcm_f64le", 16_000),
    ("wav", "pcm_u8", 16_000),
    ("w64", "pcm_s32le", 16_000),
    ("au", "pcm_mulaw", 8_000),
    ("aiff", "pcm_s24be", 44_100),
    ("ogg", "flac", 16_000),
    ("mp2", "mp2", 48_000),
]


@pytest.mark.parametrize(("container", "codec", "rate"), OF_FFMPEG)
def test_what_people_record_is_decoded(tmp_path: Path, encode: Encode, container: str, codec: str, rate: int):
    content = encode(container, codec, tone(seconds=1, rate=rate, peak=0.3), rate)
    path = tmp_path / "-named as nothing: this.wav"  # the content tells, not the name
    path.write_bytes(content)
    samples = Audio()(path)
    assert samples.dtype == np.float32 and len(samples) == pytest.approx(16000, abs=2100)
    assert main_frequency(samples[2000:14000]) == pytest.approx(440, abs=5)
    assert np.abs(samples[4000:12000]).max() == pytest.approx(0.3, abs=0.04)
    assert Audio.duration(path) == pytest.approx(len(samples) / 16000, abs=0.13)
    np.testing.assert_allclose(np.concatenate(list(Audio().blocks(path, seconds=0.3))), samples, atol=1e-5)
    for source in (content, io.BytesIO(content)):
        np.testing.assert_array_equal(Audio()(source), samples)
    behind = io.BytesIO(b"a header of another kind" + content)
    behind.seek(len(b"a header of another kind"))
    np.testing.assert_array_equal(Audio()(behind), samples)
    assert Audio(None).decode(content).sampling_rate == rate


def test_gsm_in_wav_is_decoded():
    """Blocks of 65 bytes for 320 samples, and a pad byte that is no block."""
    form = struct.pack("<HHIIHHHH", 49, 1, 8000, 1625, 65, 0, 2, 320)
    blocks = np.random.default_rng(0).integers(0, 256, 65 * 51, dtype=np.uint8).tobytes()
    body = (
        b"WAVEfmt "
        + struct.pack("<I", 20)
        + form
        + b"data"
        + struct.pack("<I", len(blocks) + 1)
        + blocks
        + b"\0"
    )
    content = b"RIFF" + struct.pack("<I", len(body)) + body
    assert len(Audio(None)(content)) == 51 * 320
    assert Audio.duration(content) == pytest.approx(51 * 0.04, abs=0.05)


def test_of_a_video_the_sound_is_heard_and_without_it_that_is_said(tmp_path: Path, encode: Encode):
    (tmp_path / "film.mp4").write_bytes(encode("mp4", "aac", tone(seconds=1), film=2))
    samples = Audio()(tmp_path / "film.mp4")
    assert main_frequency(samples) == pytest.approx(440, abs=3)
    assert Audio.duration(tmp_path / "film.mp4") == pytest.approx(1, abs=0.1)  # not the picture's two
    (tmp_path / "silent.mp4").write_bytes(encode("mp4", "", np.zeros(0), film=2))
    for read in (Audio(), Audio.duration):
        with pytest.raises(AudioError, match=r"silent\.mp4: has no audio stream \(a video without sound\?\)"):
            read(tmp_path / "silent.mp4")


def test_a_kept_rate_is_the_files_own(tmp_path: Path):
    soundfile.write(tmp_path / "tone.wav", tone(rate=22050), 22050)
    decoded = Audio(None).decode(tmp_path / "tone.wav")
    assert decoded.sampling_rate == 22050 and len(decoded.samples) == 11025 and decoded.notes == ()
    assert sum(map(len, Audio(None).blocks(tmp_path / "tone.wav", seconds=0.1))) == 11025


def test_notes_are_logged_once_a_kind(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decoding, "_told", set())
    stereo = (np.stack([tone(), 0 * tone()]), 16000)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            Audio()(stereo)
    message = "samples: channel 2 of 2 is silent, and left out of the mean (told once; audio-channel-silent)"
    assert [record.getMessage() for record in caplog.records] == [message]
    with caplog.at_level(logging.WARNING):
        assert [note.code for note in Audio().decode(stereo).notes] == ["audio-channel-silent"]
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda folder: folder / "no.wav", "audio-missing"),
        (lambda folder: folder, "audio-missing"),
        (lambda folder: b"", "audio-empty"),
        (lambda folder: (np.zeros(0), 16000), "audio-zero-length"),
        (lambda folder: (np.full(9, np.nan), 16000), "audio-nan"),
        (lambda folder: (np.full(9, 3000.0), 16000), "audio-scale"),
        (lambda folder: b"words", "audio-corrupt"),
    ],
)
def test_an_error_has_the_code_of_data_check(tmp_path: Path, make: Callable[[Path], AudioSource], code: str):
    with pytest.raises(AudioError) as error:
        Audio().decode(make(tmp_path))
    assert error.value.code == code


def test_a_file_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    soundfile.write(tmp_path / "tone.wav", tone(), 16000)
    (tmp_path / "tone.wav").chmod(0)
    if os.access(tmp_path / "tone.wav", os.R_OK):
        pytest.skip("the administrator may read anything")
    with pytest.raises(AudioError, match=r"tone\.wav: cannot be read \(Permission denied\); accepted"):
        Audio()(tmp_path / "tone.wav")


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{}'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n{}",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period>'
        '<AdaptationSet mimeType="audio/mp4">'
        "<Representation><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period></MPD>",
    ],
)
def test_a_playlist_does_not_make_ffmpeg_read_other_files(tmp_path: Path, playlist: str, encode: Encode):
    (tmp_path / "secret.ts").write_bytes(encode("mpegts", "aac", tone()))
    path = tmp_path / "innocent.m3u8"
    path.write_text(playlist.format(tmp_path / "secret.ts"))
    with pytest.raises(AudioError, match=r"innocent\.m3u8: holds no audio that can be read; accepted"):
        Audio()(path)


def test_a_film_that_refers_to_another_file_does_not_make_ffmpeg_read_it(tmp_path: Path, encode: Encode):
    """A MOV may keep its samples elsewhere, by an alias in its `dref`."""
    content = bytearray(encode("mov", "pcm_s16le", tone()))
    place = content.find(b"url \0\0\0\1")
    content[place + 7] = 0  # not in this file
    secret = tmp_path / "secret.mov"
    secret.write_bytes(encode("mov", "pcm_s16le", tone(hertz=880)))
    (tmp_path / "innocent.mov").write_bytes(content)
    try:
        assert main_frequency(Audio()(tmp_path / "innocent.mov")) == pytest.approx(440, abs=3)
    except AudioError:
        pass


def test_an_mp3_behind_something_else_is_read_and_what_is_only_called_one(tmp_path: Path):
    soundfile.write(tmp_path / "tone.mp3", tone(), 16000)
    (tmp_path / "behind.mp3").write_bytes(bytes(1000) + (tmp_path / "tone.mp3").read_bytes())
    assert main_frequency(Audio()(tmp_path / "behind.mp3")) == pytest.approx(440, abs=3)
    soundfile.write(tmp_path / "tone.aiff", tone(), 16000)
    (tmp_path / "tone.aiff").rename(tmp_path / "called.mp3")
    assert len(Audio()(tmp_path / "called.mp3")) == 8000


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system refuses such a name")
def test_a_name_that_is_not_utf_8_is_read_and_told_in_utf_8(tmp_path: Path):
    soundfile.write(tmp_path / "tone.wav", tone(), 16000)
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    os.rename(tmp_path / "tone.wav", path)
    assert len(Audio()(path)) == 8000 and Audio.duration(path) == 0.5
    Path(path).write_text("words")
    with pytest.raises(AudioError, match=r"caf\\xe9\.wav: holds no audio") as error:
        Audio()(path)
    assert str(error.value).encode()


@pytest.mark.parametrize("ending", ["mp3", "flac", "ogg", "aiff"])
def test_a_file_that_was_cut_off_raises(tmp_path: Path, ending: str):
    path = tmp_path / f"cut.{ending}"
    soundfile.write(path, tone(seconds=2, rate=44100), 44100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match=rf"cut\.{ending}: is cut off: .*accepted: a whole audio file"):
        Audio()(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_counted(tmp_path: Path, value: float):
    samples = tone()
    samples[3] = value
    soundfile.write(tmp_path / "bad.wav", samples, 16000, subtype="FLOAT")
    with pytest.raises(
        AudioError, match=r"bad\.wav: 1 of 8000 samples are NaN or infinite; accepted: finite"
    ):
        Audio()(tmp_path / "bad.wav")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ((tone() * 32767, 16000), "peak 16383.5 is far beyond full scale; accepted: floats in"),
        ((np.zeros((2, 2, 2)), 16000), r"have shape \(2, 2, 2\); accepted: \[s\], \[channels, s\]"),
        ((np.zeros(0), 16000), "has length zero"),
        ((np.zeros(1), 48000), "has 1 samples at 48000 Hz; accepted: enough for one sample at 16000 Hz"),
        ((np.zeros(9), 0), "rate is missing or no positive integer; accepted: .samples, rate in Hz."),
        ((np.zeros(9),), "rate is missing"),
        ((np.zeros(9, dtype=bool), 16000), "have type bool; accepted: floats"),
        (7, "a int is no audio source; accepted: a path, bytes"),
    ],
)
def test_unusable_samples_are_refused(source: object, text: str):
    with pytest.raises(AudioError, match=text):
        Audio()(source)  # type: ignore[arg-type]


def test_the_door_is_light():
    code = (
        "import sys, mmsr.data.audio.decoding;"
        "names = {'av', 'torch', 'datasets', 'lightning', 'librosa', 'transformers', 'scipy'};"
        "heavy = names & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_wav_file_that_was_cut_off_is_refused_and_one_from_a_pipe_is_not(tmp_path: Path):
    soundfile.write(tmp_path / "whole.wav", np.full(1600, 0.1), 16000)
    content = (tmp_path / "whole.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(content[:-1000])
    for source in (str(tmp_path / "cut.wav"), content[:-1000], io.BytesIO(content[:-1000])):
        for read in (Audio(), Audio.duration):
            with pytest.raises(AudioError, match="is cut off: .*, 1,000 bytes are missing; accepted"):
                read(source)
    for size in (b"\0\0\0\0", b"\xff\xff\xff\xff"):
        assert len(Audio()(content[:4] + size + content[8:])) == 1600


def peak_memory() -> float:
    """Of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e3 if sys.platform == "linux" else 1e6)


def bounded(source: bytes) -> np.ndarray | AudioError:
    """What the door makes of a source, which must not take long or much memory."""
    before, start = peak_memory(), time.monotonic()
    try:
        result: np.ndarray | AudioError = Audio().decode(source).samples
        Audio.duration(source)
    except AudioError as error:
        result = error
    assert time.monotonic() - start < 10 and peak_memory() - before < 500
    return result


@pytest.mark.parametrize("rate", [0, 1, 0x7FFFFFFF])
@pytest.mark.parametrize("channels", [0, 1, 1024, 0xFFFF])
def test_absurd_rates_and_channels_are_refused(rate: int, channels: int):
    block = 2 * channels & 0xFFFF
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * block & 0xFFFFFFFF, block, 16)
    content = b"RIFF\x24\x40\0\0WAVEfmt \x10\0\0\0" + form + b"data\0\x40\0\0" + bytes(0x4000)
    assert isinstance(bounded(content), AudioError)


def test_a_few_bytes_do_not_become_hours(encode: Encode):
    """FLAC holds a frame of digital silence in some bytes; this is ten hours of it."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 16_000, 1, format="FLAC") as out:
        for _ in range(600):
            out.write(np.zeros(60 * 16_000, dtype=np.int16))
    error = bounded(file.getvalue())
    assert isinstance(error, AudioError) and error.code == "audio-too-long"
    assert "has too many samples for" in str(error)


def test_a_stated_number_of_samples_reserves_no_memory():
    file = io.BytesIO()
    soundfile.write(file, tone(), 16_000, format="FLAC")
    content = bytearray(file.getvalue())
    content[21:26] = (
        b"\x0f" + b"\xff" * 4 if content[21] & 0xF0 == 0 else bytes([content[21] | 15]) + b"\xff" * 4
    )
    assert isinstance(bounded(bytes(content)), AudioError)


CONTAINERS = [
    ("wav", "pcm_s16le", 16_000, True),
    ("wav", "adpcm_ms", 16_000, True),
    ("wav", "libmp3lame", 16_000, True),
    ("w64", "pcm_s16le", 16_000, True),
    ("aiff", "pcm_s16be", 16_000, True),
    ("au", "pcm_s16be", 16_000, True),
    ("caf", "pcm_s16be", 16_000, True),
    ("caf", "alac", 16_000, True),
    ("flac", "flac", 16_000, True),
    ("ogg", "libopus", 48_000, True),
    ("ogg", "flac", 16_000, True),
    ("mp3", "libmp3lame", 16_000, True),
    ("mp4", "aac", 16_000, True),
    ("mov", "pcm_s16le", 16_000, True),
    ("matroska", "aac", 16_000, True),
    ("webm", "libopus", 48_000, True),
    ("avi", "pcm_s16le", 16_000, True),
    ("avi", "libmp3lame", 16_000, True),
    ("flv", "aac", 44_100, True),
    ("adts", "aac", 16_000, False),
    ("ac3", "ac3", 48_000, False),
    ("mp2", "mp2", 48_000, False),
    ("mpegts", "aac", 16_000, False),
    ("mpeg", "mp2", 48_000, False),
    ("amr", "libopencore_amrnb", 8_000, False),
]
_PACKET = 0.3  # seconds; the longest is ALAC's at 16 kHz
quickly = settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="session")
def whole(encode: Encode) -> dict[str, tuple[bytes, np.ndarray, bool]]:
    """A second of a tone in each container: its bytes, its samples, and whether it states its length."""
    made = {}
    for container, codec, rate, states in CONTAINERS:
        content = encode(container, codec, tone(seconds=1.5, rate=rate), rate)
        made[f"{container} of {codec}"] = (content, Audio()(content), states)
    return made


Whole = dict[str, tuple[bytes, np.ndarray, bool]]


@pytest.mark.slow
@quickly
@given(kind=st.integers(0, len(CONTAINERS) - 1), share=st.floats(0, 1, exclude_max=True))
def test_what_was_cut_off_is_refused_or_short_of_a_packet(whole: Whole, kind: int, share: float):
    content, samples, states = list(whole.values())[kind]
    cut = content[: max(1, int(share * len(content)))]
    result = bounded(cut)
    if states and not isinstance(result, AudioError):
        assert len(samples) - len(result) <= _PACKET * 16_000
    elif not states and share > 0.3:
        assert not isinstance(result, AudioError), result
        assert abs(len(result) - share * len(samples)) <= 2 * _PACKET * 16_000


@pytest.mark.slow
@quickly
@given(
    kind=st.integers(0, len(CONTAINERS) - 1),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    near=st.sampled_from([64, 512, 1 << 30]),
)
def test_flipped_bytes_are_refused_or_read(
    whole: Whole, kind: int, flips: list[tuple[float, int]], near: int
):
    content = bytearray(list(whole.values())[kind][0])
    for share, value in flips:
        content[int(share * min(len(content), near))] = value
    bounded(bytes(content))


@pytest.mark.slow
@quickly
@given(
    kind=st.integers(0, len(CONTAINERS) - 1),
    place=st.integers(0, 300),
    lie=st.sampled_from(
        [b"\xff" * 4, b"\0" * 4, b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 3, b"\xff" * 3 + b"\x7f"]
    ),
    tail=st.sampled_from([b"", bytes(1000), b"\xff" * 1000, b"ID3\4\0\0\0\0\0\2ab"]),
)
def test_headers_that_lie_are_refused_or_read(whole: Whole, kind: int, place: int, lie: bytes, tail: bytes):
    content = bytearray(list(whole.values())[kind][0])
    content[place : place + len(lie)] = lie
    bounded(bytes(content) + tail)


@pytest.mark.slow
@quickly
@given(
    first=st.integers(0, len(CONTAINERS) - 1),
    second=st.integers(0, len(CONTAINERS) - 1),
    share=st.floats(0, 1),
)
def test_files_that_were_joined_are_refused_or_read(whole: Whole, first: int, second: int, share: float):
    contents = [content for content, _, _ in whole.values()]
    behind = contents[second]
    bounded(contents[first] + behind[: int(share * len(behind))])

import io
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mmsr.data.audio.decoding import Audio, AudioError


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


@pytest.mark.parametrize("name", ["words.wav", "voice.m4a", "headerless.raw"])
def test_what_holds_no_audio_says_what_would(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path / "no programs"))
    path = tmp_path / name
    path.write_bytes(b"\0\0\0\x20ftypM4A " + b"these are no samples" * 9)
    for read in (Audio(), Audio.duration):
        with pytest.raises(AudioError) as error:
            read(path)
        message = str(error.value)
        assert message.startswith(f"{path}: holds no audio that can be read")
        assert "; accepted: wav, flac, mp3, ogg and the like;" in message
        assert "convert others (m4a, mp4, webm), for example: ffmpeg -i FILE FILE.wav" in message
        assert message.endswith("; or install ffmpeg on PATH, and they are read as they are")
        assert "\n" not in message


needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None,
    reason="m4a, mp4 and webm are read through ffmpeg, which is not on PATH",
)


def ffmpeg(*arguments: str) -> None:
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", *arguments], check=True, timeout=60)


@pytest.fixture
def stereo(tmp_path: Path) -> Path:
    """One second: two tones of 440 Hz whose mean has the peak .3."""
    path = tmp_path / "stereo.wav"
    soundfile.write(
        path, np.stack([tone(seconds=1, rate=48000), 0.2 * tone(seconds=1, rate=48000)], 1), 48000
    )
    return path


@needs_ffmpeg
@pytest.mark.parametrize(
    ("ending", "codec"),
    [("m4a", "aac"), ("aac", "aac"), ("mp4", "aac"), ("mkv", "aac"), ("webm", "libopus"), ("wma", "wmav2")],
)
def test_what_libsndfile_does_not_know_goes_through_ffmpeg(
    tmp_path: Path, stereo: Path, ending: str, codec: str
):
    made = tmp_path / f"tone.{ending}"
    ffmpeg("-i", str(stereo), "-c:a", codec, str(made))
    path = made.rename(tmp_path / "-named as nothing: this.wav")  # the content tells, not the name
    samples = Audio()(path)
    assert samples.dtype == np.float32 and len(samples) == pytest.approx(16000, abs=1000)
    assert main_frequency(samples) == pytest.approx(440, abs=3)
    assert np.abs(samples[4000:12000]).max() == pytest.approx(0.3, abs=0.03)
    assert Audio.duration(path) == pytest.approx(len(samples) / 16000, abs=0.03)
    content = path.read_bytes()
    for source in (content, io.BytesIO(content)):
        np.testing.assert_array_equal(Audio()(source), samples)
    assert Audio.duration(content) == pytest.approx(len(samples) / 16000, abs=0.001)
    behind = io.BytesIO(b"a header of another kind" + content)
    behind.seek(len(b"a header of another kind"))
    np.testing.assert_array_equal(Audio()(behind), samples)


@needs_ffmpeg
def test_of_a_video_the_sound_is_heard_and_without_it_that_is_said(tmp_path: Path, stereo: Path):
    picture = ["-f", "lavfi", "-i", "testsrc=duration=2:size=64x64:rate=5"]
    ffmpeg(*picture, "-i", str(stereo), "-c:v", "mpeg4", "-c:a", "aac", str(tmp_path / "film.mp4"))
    samples = Audio()(tmp_path / "film.mp4")
    assert main_frequency(samples) == pytest.approx(440, abs=3)
    assert Audio.duration(tmp_path / "film.mp4") == pytest.approx(1, abs=0.05)  # not the picture's two
    ffmpeg(*picture, "-c:v", "mpeg4", str(tmp_path / "silent.mp4"))
    for read in (Audio(), Audio.duration):
        with pytest.raises(AudioError, match=r"silent\.mp4: has no audio stream \(a video without sound\?\)"):
            read(tmp_path / "silent.mp4")


@needs_ffmpeg
@pytest.mark.parametrize("ending", ["m4a", "webm"])
def test_a_damaged_file_is_not_half_read(tmp_path: Path, ending: str):
    soundfile.write(tmp_path / "long.wav", tone(seconds=20), 16000)
    codec = {"m4a": "aac", "webm": "libopus"}[ending]
    path = tmp_path / f"cut.{ending}"
    ffmpeg("-i", str(tmp_path / "long.wav"), "-c:a", codec, "-movflags", "faststart", str(path))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(
        AudioError, match=rf"cut\.{ending}: cannot be decoded whole \(ffmpeg: .+; if it sounds"
    ):
        Audio()(path)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "content", "reasons"),
    [
        ("words.mp3", b"words", ""),
        ("words.flac", b"words", ""),
        ("words.m4a", b"\0\0\0\x20ftypM4A " + b"no samples" * 9, r" \(ffmpeg: moov atom not found\)"),
        (
            "empty.wav",
            b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0" + bytes(8),
            r" \(libsndfile: Error in WAV file\. No 'data' chunk marker\)",
        ),
    ],
)
def test_what_ffmpeg_cannot_read_either_is_told_shortly(
    tmp_path: Path, name: str, content: bytes, reasons: str, capfd: pytest.CaptureFixture[str]
):
    (tmp_path / name).write_bytes(content)
    accepted = "accepted: wav, flac, mp3, ogg, m4a, mp4, webm and the like"
    told = rf"{name}: holds no audio that can be read{reasons}; {accepted}$"
    for read in (Audio(), Audio.duration):
        with pytest.raises(AudioError, match=told):
            read(tmp_path / name)
    assert capfd.readouterr() == ("", ""), "what a library has to say belongs into the message"


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
    with pytest.raises(AudioError, match=r"caf\\udce9\.wav: holds no audio") as error:
        Audio()(path)
    assert str(error.value).encode()


@needs_ffmpeg
@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{}'\n",
    ],
)
def test_a_playlist_does_not_make_ffmpeg_read_other_files(tmp_path: Path, playlist: str, stereo: Path):
    ffmpeg("-i", str(stereo), "-c:a", "aac", str(tmp_path / "secret.ts"))
    path = tmp_path / "innocent.m3u8"
    path.write_text(playlist.format("secret.ts"))
    ffmpeg("-i", str(path), "-f", "null", "-")  # unrestricted, it does
    with pytest.raises(AudioError, match=r"innocent\.m3u8: holds no audio that can be read; accepted"):
        Audio()(path)


@pytest.mark.parametrize(
    ("ending", "text"), [("mp3", r"ends \d\.\d\d s before the 2\.00 s"), ("flac", "cannot be decoded")]
)
def test_a_file_that_was_cut_off_raises(tmp_path: Path, ending: str, text: str):
    path = tmp_path / f"cut.{ending}"
    soundfile.write(path, tone(seconds=2, rate=44100), 44100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match=rf"cut\.{ending}: {text}.*accepted: a whole audio file"):
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
        "heavy = {'torch', 'datasets', 'lightning', 'librosa', 'transformers', 'scipy'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_wav_file_that_was_cut_off_is_refused_and_one_from_a_pipe_is_not(tmp_path: Path):
    soundfile.write(tmp_path / "whole.wav", np.full(1600, 0.1), 16000)
    content = (tmp_path / "whole.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(content[:-1000])
    for source in (str(tmp_path / "cut.wav"), content[:-1000], io.BytesIO(content[:-1000])):
        for read in (Audio(), Audio.duration):
            with pytest.raises(AudioError, match="ends 1,000 bytes before its header says; accepted"):
                read(source)
    for size in (b"\0\0\0\0", b"\xff\xff\xff\xff"):
        assert len(Audio()(content[:4] + size + content[8:])) == 1600

import io
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import soundfile

from mmsr.data.manifest.check import audio
from mmsr.data.manifest.check.audio import sample_issues
from mmsr.data.manifest.check.table import check_manifest

RATE = 16_000


def codes_of(path: Path, **options: Any) -> list[str]:
    return [fault.code for fault in check_manifest(path, **options).issues]


def test_audio_is_not_opened_when_not_asked_for(changed, clean):
    path = changed(clean, lambda place, row: row | {"audio": "gone.wav" if place in (0, 1) else row["audio"]})
    assert sorted(codes_of(path)) == ["audio-missing", "audio-missing", "label-conflict"]
    checked = check_manifest(path, audio=False)
    assert sorted(fault.code for fault in checked.issues) == ["audio-duplicate", "label-conflict"]
    assert np.isnan(checked.seconds).all()


def test_audio_in_an_archive_is_heard(changed, clean, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for number in range(12):
            archive.write(tmp_path / f"clean{number}.wav", f"clean{number}.wav")
    path = changed(clean, lambda place, row: row | {"audio": f"zip://{row['audio']}::all.zip"})
    checked = check_manifest(path)
    assert checked.issues == () and checked.seconds == pytest.approx(2.0)
    path = changed(clean, lambda place, row: row | {"audio": f"zip://no{row['audio']}::all.zip"})
    assert set(codes_of(path)) == {"audio-missing"}


def test_a_duration_that_is_not_the_audio_s_length_is_an_error(changed, tone, clean):
    told_seconds = ["5", "2.09", "1.5", None]  # the audio lasts 2 s, of the last row 20 s

    def durations(number: int, row: dict[str, Any]) -> dict[str, Any]:
        return row | {"duration": told_seconds[number] if number < 4 else 20.3 if number == 11 else 2}

    path = changed(clean, durations)
    soundfile.write(path.parent / "clean11.wav", tone(20.0, seed=11), RATE)
    checked = check_manifest(path, allow=["speech-too-slow"])
    accepted = "accepted: its length, to within 0.1 s or 2%"
    assert [str(fault) for fault in checked.issues] == [
        f"{path.name}, row 1, column duration: is 5 s, but 'clean0.wav' lasts 2.00 s; {accepted}",
        f"{path.name}, row 3, column duration: is 1.5 s, but 'clean2.wav' lasts 2.00 s; {accepted}",
    ]
    assert {fault.code for fault in checked.issues} == {"duration-wrong"} and checked.errors == 2
    assert codes_of(path, audio=False) == []


@pytest.mark.parametrize(
    ("samples", "codes"),
    [
        (np.zeros(RATE), ["audio-silent"]),
        (np.full(RATE, 0.5), ["audio-silent"]),
        (0.002 * np.sin(np.arange(RATE)), []),
        (np.sin(np.arange(RATE)), ["audio-clipped"]),
    ],
)
def test_silence_and_clipping_are_issues_of_samples(samples: np.ndarray, codes: list[str]):
    assert [code for code, _ in sample_issues(samples)] == codes


# ---------------------------------------------------------------------- one bad file, one row's fault


def voice(seconds: float = 1.0, *, seed: int = 0) -> np.ndarray:
    """Noise with an envelope, unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE)
    return 0.1 * rng.standard_normal(count) * np.abs(np.sin(np.arange(count) / 2000))


def broken_files(folder: Path) -> dict[str, str]:
    """Files of every kind of breakage in a folder, and the code of each."""
    whole = folder / "whole.wav"
    soundfile.write(whole, voice(seed=99), RATE)
    content = whole.read_bytes()

    def written(name: str, data: bytes) -> str:
        (folder / name).write_bytes(data)
        return name

    def sound(name: str, samples: np.ndarray, **options: Any) -> str:
        soundfile.write(folder / name, samples, RATE, **options)
        return name

    nan = voice(seed=98)
    nan[5] = np.nan
    flac = (folder / sound("damaged.flac", voice(20.0, seed=97))).read_bytes()
    middle = len(flac) // 2
    os.mkfifo(folder / "pipe.wav")
    (folder / "folder.wav").mkdir()
    (folder / "dangling.wav").symlink_to("nowhere.wav")
    (folder / "loop.wav").symlink_to("loop.wav")
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        archive.writestr("bad.wav", content)
        archive.writestr("empty.wav", b"")
    damaged = bytearray((folder / "all.zip").read_bytes())
    damaged[5000:5100] = bytes(255 - byte for byte in damaged[5000:5100])
    written("all.zip", damaged)
    with tarfile.open(folder / "all.tar.gz", "w:gz") as archive:
        archive.add(whole, "a.wav")
        archive.add(whole, "b.wav")
    written("all.tar.gz", (folder / "all.tar.gz").read_bytes()[:30_000])
    whole.unlink()
    return {
        "none.wav": "audio-missing",
        "folder.wav": "audio-missing",
        "pipe.wav": "audio-missing",
        "/dev/zero": "audio-missing",
        "dangling.wav": "audio-missing",
        "loop.wav": "audio-missing",
        "zip://none.wav::all.zip": "audio-missing",
        "zip://a.wav::none.zip": "audio-missing",
        "zip://bad.wav::all.zip": "audio-unreadable",
        "zip://empty.wav::all.zip": "audio-empty",
        "tar://b.wav::all.tar.gz": "audio-unreadable",
        written("empty.wav", b""): "audio-empty",
        written("text.wav", b"this is no sound" * 100): "audio-corrupt",
        written("random.mp3", np.random.default_rng(0).bytes(5000)): "audio-corrupt",
        written("header.wav", content[:20]): "audio-corrupt",
        written("cut.wav", content[:20_000]): "audio-truncated",
        written("damaged.flac", flac[:middle] + bytes(3000) + flac[middle + 3000 :]): "audio-corrupt",
        sound("none-there.wav", np.zeros(0)): "audio-zero-length",
        sound("nan.wav", nan, subtype="FLOAT"): "audio-nan",
        sound("scale.wav", voice(seed=96) * 3e5, subtype="FLOAT"): "audio-scale",
        sound("constant.wav", np.full(RATE, 0.25)): "audio-silent",
    }


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices")
def test_exactly_the_broken_files_are_named(tmp_path: Path):
    broken = broken_files(tmp_path)
    rows = [f"ok{number}.wav" for number in range(40)]
    for seed, name in enumerate(rows):
        soundfile.write(tmp_path / name, voice(seed=seed), RATE)
    for place, name in enumerate(broken):
        rows.insert(2 * place, name)
    lines = [f"r{number},{name}" for number, name in enumerate(rows)]
    (tmp_path / "m.csv").write_text("\n".join(["id,audio", *lines]) + "\n")
    checked = check_manifest(tmp_path / "m.csv")
    found = {(rows[fault.row - 2], fault.code) for fault in checked.issues if fault.row is not None}
    assert found == set(broken.items())
    assert all("; accepted: " in fault.problem for fault in checked.issues if fault.code != "audio-corrupt")
    assert not np.isnan(checked.seconds[[row in broken for row in rows]]).all()  # the silent one has a length
    assert checked.seconds[[row not in broken for row in rows]] == pytest.approx(1.0)


def test_a_damaged_member_is_a_fault_of_its_row_and_the_next_is_read(tmp_path: Path):
    soundfile.write(tmp_path / "plain.wav", voice(), RATE)
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as archive:
        archive.write(tmp_path / "plain.wav", "plain.wav")
    content = bytearray((tmp_path / "clips.zip").read_bytes())
    content[1000:1010] = bytes(255 - byte for byte in content[1000:1010])
    (tmp_path / "clips.zip").write_bytes(content)
    (tmp_path / "zip.csv").write_text("id,audio\na,zip://plain.wav::clips.zip\nb,plain.wav\n")
    (fault,) = [fault for fault in check_manifest(tmp_path / "zip.csv").issues if fault.row]
    assert str(fault) == (
        f"zip.csv, row 2, column audio: 'zip://plain.wav::{tmp_path}/clips.zip' cannot be read (Bad CRC-32"
        " for file 'plain.wav'); accepted: a file that can be read"
    )
    assert check_manifest(tmp_path / "zip.csv").seconds[1] == 1.0


def test_bytes_inside_a_table_that_are_corrupt_or_null_are_faults_of_their_rows(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", voice(), RATE)
    content = (tmp_path / "a.wav").read_bytes()
    values = [content, b"no sound", None, content[:5000], b""]
    sounds = pa.array([None if value is None else {"bytes": value, "path": None} for value in values])
    texts = pa.array([f"words of row {number}" for number in range(5)])
    pyarrow.parquet.write_table(pa.table({"audio": sounds, "text": texts}), tmp_path / "inside.parquet")
    found = [(fault.row, fault.code) for fault in check_manifest(tmp_path / "inside.parquet").issues]
    assert found == [
        (None, "speaker-missing"),
        (2, "audio-corrupt"),
        (4, "audio-truncated"),
        (5, "audio-empty"),
    ]


def test_large_files_are_checked_in_blocks_with_the_same_result(tmp_path: Path, monkeypatch):
    def stereo(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return np.stack([left, right], axis=1)

    long = voice(70.0, seed=1)
    soundfile.write(tmp_path / "a.wav", long, RATE)
    soundfile.write(tmp_path / "b.wav", np.clip(long, -0.1, 0.1), RATE)
    soundfile.write(tmp_path / "c.wav", stereo(long, -long), RATE)
    soundfile.write(tmp_path / "d.wav", long + 0.05, RATE)
    (tmp_path / "m.csv").write_text("id,audio\na,a.wav\nb,b.wav\nc,c.wav\nd,d.wav\n")
    whole = check_manifest(tmp_path / "m.csv", max_seconds=100)
    monkeypatch.setattr(audio, "_LARGE", 1000)
    blocks = check_manifest(tmp_path / "m.csv", max_seconds=100)
    assert [str(fault) for fault in whole.issues] == [str(fault) for fault in blocks.issues]
    found = {(fault.row, fault.code) for fault in whole.issues}
    assert found >= {(3, "audio-clipped"), (4, "audio-channels-cancel"), (5, "audio-dc-offset")}
    assert blocks.seconds == pytest.approx(whole.seconds) and not any(row == 2 for row, _ in found)


def test_what_the_door_tells_of_a_file_has_its_code(tmp_path: Path):
    sound = voice()
    soundfile.write(tmp_path / "left.wav", np.stack([sound, 0 * sound], axis=1), RATE)
    soundfile.write(tmp_path / "inverted.wav", np.stack([sound, -sound], axis=1), RATE)
    soundfile.write(tmp_path / "unfinished.wav", sound, RATE)
    content = bytearray((tmp_path / "unfinished.wav").read_bytes())
    content[4:8] = content[40:44] = bytes(4)
    (tmp_path / "unfinished.wav").write_bytes(content)
    (tmp_path / "m.csv").write_text("id,audio\na,left.wav\nb,inverted.wav\nc,unfinished.wav\n")
    checked = check_manifest(tmp_path / "m.csv")
    assert [(fault.row, fault.code, fault.severity) for fault in checked.issues if fault.row] == [
        (2, "audio-channel-silent", "warning"),
        (3, "audio-channels-cancel", "warning"),
        (4, "audio-length-stated", "warning"),
    ]
    assert checked.seconds == pytest.approx(1.0)


def quiet(samples: np.ndarray, format_: str, subtype: str) -> np.ndarray:
    """Samples at a third of their level, as a file of a format gives them."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples / 3, RATE, format=format_, subtype=subtype)
    buffer.seek(0)
    return soundfile.read(buffer, dtype="float32")[0]


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        (lambda sound: sound, []),
        (lambda sound: np.clip(6 * sound, -1, 1), ["audio-clipped"]),
        (lambda sound: np.clip(sound, -0.12, 1), ["audio-clipped"]),  # at one side
        (lambda sound: sound + 0.1, ["audio-dc-offset"]),
        (lambda sound: 0.01 * sound + 0.005, ["audio-dc-offset"]),
        (lambda sound: 0 * sound + 0.1, ["audio-silent"]),
    ],
)
@pytest.mark.parametrize(("format_", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16")])
def test_clipping_below_full_scale_and_offset_are_found(change, codes: list[str], format_: str, subtype: str):
    assert [code for code, _ in sample_issues(quiet(change(voice(3.0)), format_, subtype))] == codes


@pytest.mark.parametrize(("format_", "subtype"), [("MP3", "MPEG_LAYER_III"), ("OGG", "OPUS")])
def test_peaks_that_a_codec_has_bent_are_found(format_: str, subtype: str):
    rng = np.random.default_rng(0)
    glottal = np.cumsum(rng.standard_normal(3 * RATE)) % 1 - 0.5
    envelope = np.abs(np.sin(np.arange(3 * RATE) / 4000)) ** 8
    sound = np.convolve(glottal, np.hanning(40), "same") * envelope
    sound /= np.abs(sound).max()
    assert sample_issues(quiet(sound, format_, subtype)) == []
    level = np.quantile(np.abs(sound), 0.98)
    ((code, problem),) = sample_issues(quiet(np.clip(sound, -level, level) / level, format_, subtype))
    assert code == "audio-clipped" and "its peaks pressed to 0.3" in problem


@pytest.mark.parametrize(
    "sound",
    [
        np.sin(np.arange(3 * RATE) * 0.09),
        np.exp(-np.arange(3 * RATE) / 8000) * np.sin(np.arange(3 * RATE) * 0.13),
        np.hanning(3 * RATE) * np.sin(np.arange(3 * RATE) * 0.08),
        np.random.default_rng(0).normal(0, 0.2, 3 * RATE),
        sum(np.sin(np.arange(3 * RATE) * 0.05 * k) / k for k in range(1, 12)),
    ],
    ids=["tone", "bell", "swell", "noise", "buzz"],
)
def test_smooth_sounds_are_not_clipped(sound: np.ndarray):
    assert sample_issues(quiet(sound / np.abs(sound).max(), "WAV", "PCM_16")) == []

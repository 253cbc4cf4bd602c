import os
from pathlib import Path

import datasets
import pytest

from mmsr.data.storage import missing, read_bytes, relative_to, resolve, row_of_table, seen_from


@pytest.mark.parametrize(
    ("reference", "folder", "found"),
    [
        ("clips/../a.wav", "/data", "/data/a.wav"),
        ("/other/a.wav", "/data", "/other/a.wav"),
        ("zip://a.wav::clips.zip", "/data", "zip://a.wav::/data/clips.zip"),
        ("https://host/a.wav", "/data", "https://host/a.wav"),
        ("a.wav", "s3://bucket/data", "s3://bucket/data/a.wav"),
        ("tar://a.wav::b.tar", "s3://bucket", "tar://a.wav::s3://bucket/b.tar"),
    ],
)
def test_references_are_resolved_from_a_folder(reference: str, folder: str, found: str):
    assert resolve(reference, folder) == found


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("a.wav", "../in/a.wav"),
        ("zip://a.wav::b.zip", "zip://a.wav::../in/b.zip"),
        ("/abs/a.wav", "/abs/a.wav"),
        ("hf://x/a.wav", "hf://x/a.wav"),
    ],
)
def test_references_are_moved_from_one_folder_to_another(reference: str, found: str):
    assert seen_from(reference, "/data/in", "/data/out") == found


def test_absolute_references_are_made_relative():
    assert relative_to("/data/a.wav", "/data/out") == os.path.join("..", "a.wav")
    assert relative_to("zip://a.wav::/data/b.zip", "/data") == "zip://a.wav::b.zip"
    assert relative_to("https://host/a.wav", "/data") == "https://host/a.wav"
    with pytest.raises(
        ValueError, match="audio inside a table cannot be named from another; accepted: audio"
    ):
        relative_to(row_of_table("/cache/x.arrow", "audio", 3), "/data")


def test_bytes_of_a_file_and_of_a_row_of_a_table(tmp_path: Path):
    (tmp_path / "a.bin").write_bytes(b"file")
    assert read_bytes(str(tmp_path / "a.bin")) == b"file"
    rows = {"plain": [b"one", b"two"], "audio": [{"bytes": b"three", "path": None}] * 2}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "table")
    (arrow,) = (tmp_path / "table").glob("*.arrow")
    assert read_bytes(row_of_table(str(arrow), "plain", 1)) == b"two"
    assert read_bytes(row_of_table(str(arrow), "audio", 0)) == b"three"
    with pytest.raises(FileNotFoundError):
        read_bytes(str(tmp_path / "none"))


def test_what_is_missing_is_named(tmp_path: Path):
    (tmp_path / "a.wav").write_bytes(b"x")
    (tmp_path / "broken.zip").write_bytes(b"no archive")
    assert missing(str(tmp_path / "a.wav")) is None
    assert missing(str(tmp_path)) == "is not a file"
    assert missing(str(tmp_path / "b.wav")) == "does not exist"
    assert missing("https://host/a.wav") is None and missing("foo://a") == "is a URL of an unknown kind"
    broken = missing(f"zip://a.wav::{tmp_path}/broken.zip")
    assert broken is not None and broken.startswith("is in an archive that cannot be read (")
    none = f"is in an archive that does not exist ({tmp_path}/none.zip)"
    assert missing(f"zip://a.wav::{tmp_path}/none.zip") == none

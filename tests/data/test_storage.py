import hashlib
import io
import os
import pickle
import socket
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import pytest

from mmsr.data import storage
from mmsr.data.storage import (
    StorageError,
    digest,
    missing,
    open_binary,
    read_bytes,
    relative_to,
    resolve,
    row_of_table,
    seen_from,
    shown,
)


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
    gone = row_of_table(str(tmp_path / "gone.arrow"), "audio", 0)
    assert missing(row_of_table(str(arrow), "audio", 0)) is None
    assert missing(gone) == f"is in a table that is gone ({tmp_path}/gone.arrow)"
    with pytest.raises(StorageError, match="gone.arrow: is in a table that is gone"):
        read_bytes(gone)
    with pytest.raises(StorageError, match="arrow: cannot be read"):
        read_bytes(row_of_table(str(arrow), "audio", 7))
    with pytest.raises(StorageError, match="none: does not exist"):
        read_bytes(str(tmp_path / "none"))


def test_a_value_of_a_table_that_is_null_has_no_bytes(tmp_path: Path):
    datasets.Dataset.from_dict({"audio": [b"one", None]}).save_to_disk(tmp_path / "table")
    (arrow,) = (tmp_path / "table").glob("*.arrow")
    assert read_bytes(row_of_table(str(arrow), "audio", 1)) == b""


def test_what_is_missing_is_named(tmp_path: Path):
    (tmp_path / "a.wav").write_bytes(b"x")
    (tmp_path / "broken.zip").write_bytes(b"no archive")
    assert missing(str(tmp_path / "a.wav")) is None
    assert missing(str(tmp_path)) == "is not a file, but a folder"
    assert missing(str(tmp_path / "b.wav")) == "does not exist"
    assert missing("https://host/a.wav") is None and missing("foo://a") == "is a URL of an unknown kind"
    broken = missing(f"zip://a.wav::{tmp_path}/broken.zip")
    assert broken is not None and broken.startswith("is in an archive that cannot be read (")
    none = f"is in an archive that does not exist ({tmp_path}/none.zip)"
    assert missing(f"zip://a.wav::{tmp_path}/none.zip") == none


# ---------------------------------------------------------------------- what is no file


def what_is_no_file(folder: Path) -> dict[str, str]:
    """Paths that no program should open, and what is said of them."""
    os.mkfifo(folder / "pipe.wav")
    (folder / "loop.wav").symlink_to("loop.wav")
    (folder / "dangling.wav").symlink_to("gone.wav")
    listening = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(folder)  # a socket's path has at most 108 characters
    listening.bind("socket.wav")
    os.chdir(here)
    listening.close()
    (folder / "plain").write_bytes(b"x")
    return {
        f"{folder}/pipe.wav": "is not a file, but a named pipe",
        f"{folder}/socket.wav": "is not a file, but a socket",
        "/dev/zero": "is not a file, but a device",
        str(folder): "is not a file, but a folder",
        f"{folder}/dangling.wav": "is a link to a file that does not exist",
        f"{folder}/loop.wav": "cannot be read (Too many levels of symbolic links)",
        f"{folder}/plain/a.wav": "does not exist",
        f"{folder}/{'a' * 300}.wav": "cannot be read (File name too long)",
        f"{folder}/a\0b.wav": "cannot be read (embedded null byte)",
    }


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices")
def test_nothing_that_is_no_file_is_opened(tmp_path: Path):
    for path, reason in what_is_no_file(tmp_path).items():
        assert missing(path) == reason
        for read in (read_bytes, digest, open_binary):
            with pytest.raises(StorageError) as error:
                read(path)
            assert (error.value.reference, error.value.reason) == (path, reason)
            assert str(error.value) == f"{path}: {reason}"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told(tmp_path: Path):
    (tmp_path / "a.wav").write_bytes(b"x")
    (tmp_path / "a.wav").chmod(0)
    assert missing(str(tmp_path / "a.wav")) == "cannot be read (Permission denied)"


def test_an_error_crosses_processes():
    error = pickle.loads(pickle.dumps(StorageError("a.wav", "does not exist")))
    assert (str(error), error.reason) == ("a.wav: does not exist", "does not exist")


def test_a_name_that_is_not_utf_8_can_be_printed_and_written():
    assert shown(os.fsdecode(b"caf\xe9 \xc3\xa9.wav")) == "caf\\xe9 é.wav"
    assert shown("half \ud83d") == "half \\ud83d" and shown(Path("đ.wav")) == "đ.wav"
    assert "\\xe9.wav: does not exist" in str(StorageError(os.fsdecode(b"\xe9.wav"), "does not exist"))


# ---------------------------------------------------------------------- archives

SOUNDS = {f"{name}.wav": os.urandom(50_000) for name in "abc"}


def zipped(path: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in SOUNDS.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, *, prefix: str = "") -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in SOUNDS.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def outcomes(archive: Path) -> list[bytes | str]:
    """Content of each member, or why it cannot be read."""
    found: list[bytes | str] = []
    for name in SOUNDS:
        try:
            found.append(read_bytes(f"{'zip' if archive.suffix == '.zip' else 'tar'}://{name}::{archive}"))
        except StorageError as error:
            found.append(error.reason)
    return found


def damaged(archive: Path, at: int, count: int = 200) -> Path:
    content = bytearray(archive.read_bytes())
    content[at : at + count] = bytes(255 - byte for byte in content[at : at + count])
    archive.write_bytes(content)
    return archive


COMPRESSIONS = {
    "stored": zipfile.ZIP_STORED,
    "deflated": zipfile.ZIP_DEFLATED,
    "bzip2": zipfile.ZIP_BZIP2,
    "lzma": zipfile.ZIP_LZMA,
}


@pytest.mark.parametrize("compression", COMPRESSIONS.values(), ids=COMPRESSIONS)
def test_a_damaged_member_of_a_zip_is_its_own_fault(tmp_path: Path, compression: int):
    archive = damaged(zipped(tmp_path / "all.zip", compression), 70_000)
    a, b, c = outcomes(archive)
    assert (a, c) == (SOUNDS["a.wav"], SOUNDS["c.wav"])
    assert isinstance(b, str) and b.startswith("cannot be read (")
    assert missing(f"zip://b.wav::{archive}") is None  # content is not read here


def test_a_member_with_a_password_is_told(tmp_path: Path):
    archive = zipped(tmp_path / "all.zip")
    content = bytearray(archive.read_bytes())
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # of the second member, in both of its headers
        place = content.find(mark, content.find(mark) + 1)
        content[place + flags] |= 1
    archive.write_bytes(content)
    assert outcomes(archive) == [
        SOUNDS["a.wav"],
        "is in an archive that needs a password",
        SOUNDS["c.wav"],
    ]


def test_a_zip_of_an_unknown_compression_is_told(tmp_path: Path):
    archive = zipped(tmp_path / "all.zip")
    content = bytearray(archive.read_bytes())
    for mark, method in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        content[content.find(mark) + method] = 98
    archive.write_bytes(content)
    a, *others = outcomes(archive)
    assert isinstance(a, str) and "compression" in a and others == [SOUNDS["b.wav"], SOUNDS["c.wav"]]


@pytest.mark.parametrize("prefix", ["", "./"])
@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_members_before_the_cut_of_a_tar_are_read(tmp_path: Path, ending: str, prefix: str):
    archive = tarred(tmp_path / f"all{ending}", prefix=prefix)
    assert outcomes(archive) == list(SOUNDS.values())
    archive.write_bytes(archive.read_bytes()[:80_000])
    a, b, c = outcomes(archive)
    assert a == SOUNDS["a.wav"]
    assert isinstance(b, str) and b.startswith("cannot be read (")
    assert isinstance(c, str) and c.startswith("is not in the archive, which is cut off (")
    assert missing(f"tar://c.wav::{archive}") == c


def test_members_that_are_not_there_or_no_files_are_told(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.mkdir("folder")
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("empty.wav"))
        link = tarfile.TarInfo("link.wav")
        link.type, link.linkname = tarfile.SYMTYPE, "link.wav"  # to itself
        archive.addfile(link)
    assert missing(f"zip://none.wav::{tmp_path}/all.zip") == "is not in the archive"
    assert missing(f"zip://folder::{tmp_path}/all.zip") == "is not a file, but a folder"
    assert read_bytes(f"tar://empty.wav::{tmp_path}/all.tar") == b""
    for reference in (
        f"tar://link.wav::{tmp_path}/all.tar",  # tarfile recurses without end
        f"zip://a.wav::{tmp_path}",
        f"zip://a.wav::{tmp_path}/all.tar",
        "zip://a.wav::/dev/zero",
    ):
        with pytest.raises(StorageError):
            read_bytes(reference)


def test_an_archive_that_has_changed_is_indexed_again(tmp_path: Path):
    archive = zipped(tmp_path / "all.zip")
    assert outcomes(archive) == list(SOUNDS.values())
    with zipfile.ZipFile(archive, "w") as other:
        other.writestr("a.wav", b"other")
    assert outcomes(archive) == [b"other", "is not in the archive", "is not in the archive"]


@pytest.mark.parametrize("make", [zipped, tarred], ids=["zip", "tar"])
def test_members_are_read_in_threads_and_large_ones_from_disk(
    tmp_path: Path, make, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(storage, "_IN_MEMORY", 1000)
    kind = "zip" if make is zipped else "tar"
    archive = make(tmp_path / f"all.{kind}")
    with ThreadPoolExecutor(8) as pool:
        references = [f"{kind}://{name}::{archive}" for name in SOUNDS] * 20
        assert list(pool.map(read_bytes, references)) == list(SOUNDS.values()) * 20
    with open_binary(references[0]) as file:
        assert file.name == references[0] and file.seek(0, 2) == 50_000
    assert digest(references[1]) == hashlib.sha256(SOUNDS["b.wav"]).digest()


def test_a_member_of_an_archive_in_an_archive_is_read(tmp_path: Path):
    zipped(tmp_path / "inner.zip")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as outer:
        outer.write(tmp_path / "inner.zip", "inner.zip")
    assert read_bytes(f"zip://b.wav::zip://inner.zip::{tmp_path}/outer.zip") == SOUNDS["b.wav"]
    with pytest.raises(StorageError, match="cannot be read"):
        read_bytes(f"zip://none.wav::zip://inner.zip::{tmp_path}/outer.zip")

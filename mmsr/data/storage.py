"""References to data: paths and URLs.

    clips/a.wav                       a file, relative to the table that names it
    zip://a.wav::clips.zip            a member of an archive (zip, tar, tar.gz), relative likewise
    hf:// s3:// gs:// https:// ...    whatever fsspec knows; some need their own package (s3fs, gcsfs)
    arrow://audio/17::cache.arrow     bytes in row 17 of a column of an Arrow file (tables with audio inside)

A reference is one string, so that a row of a table is text wherever its audio is. Whatever a library raises
while a reference is read becomes a `StorageError`, so that one bad file is one error of a known kind.
"""

import functools
import hashlib
import io
import os
import posixpath
import shutil
import stat
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Callable
from contextlib import nullcontext
from typing import IO, TYPE_CHECKING, BinaryIO

import fsspec  # type: ignore[import-untyped]
from fsspec.core import url_to_fs  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from datasets.table import Table

_ARCHIVES = ("zip://", "tar://")
_ROW_OF_TABLE = "arrow://"
_IN_STREAM = "stream://"
_IN_MEMORY = 32 * 2**20  # bytes; a larger member of an archive is copied to disk
_archive_lock = threading.Lock()  # a tar has one position, and its index is made once


class StorageError(OSError):
    """A reference that cannot be read; the message names it and the reason.

    Attributes:
        reference: The path or URL.
        reason: Such as `is not a file, but a named pipe`.
    """

    def __init__(self, reference: str, reason: str):
        super().__init__(f"{shown(reference)}: {reason}")
        self.reference, self.reason = reference, reason

    def __reduce__(self) -> tuple[type["StorageError"], tuple[str, str]]:
        return type(self), (self.reference, self.reason)


def shown(reference: str | os.PathLike[str]) -> str:
    r"""A reference as text that can be printed and written: a byte that is not UTF-8 becomes `\xe9`."""
    name = os.fspath(reference)
    try:
        name.encode()
    except UnicodeEncodeError:
        pass
    else:
        return name
    try:
        return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:  # half of a character, from a JSON escape
        return name.encode(errors="backslashreplace").decode()


def is_url(reference: str) -> bool:
    """Whether a reference is not a plain path."""
    return "://" in reference


def resolve(reference: str, folder: str) -> str:
    """A reference relative to `folder`, a path or a URL, as an absolute one; paths are normalised."""
    if "::" in reference:
        member, _, archive = reference.partition("::")
        return f"{member}::{resolve(archive, folder)}"
    if is_url(reference):
        return reference
    if is_url(folder):
        return posixpath.join(folder, reference)
    return os.path.normpath(os.path.join(folder, reference))


def seen_from(reference: str, here: str | os.PathLike[str], there: str | os.PathLike[str]) -> str:
    """A reference relative to the folder `here`, made relative to `there`; absolute ones stay."""
    if "::" in reference:
        member, _, archive = reference.partition("::")
        return f"{member}::{seen_from(archive, here, there)}"
    if is_url(reference) or os.path.isabs(reference):
        return reference
    return os.path.relpath(os.path.join(os.path.abspath(here), reference), os.path.abspath(there))


def relative_to(reference: str, folder: str | os.PathLike[str]) -> str:
    """An absolute reference made relative to a folder.

    Raises:
        ValueError: It refers to audio inside another table, which is in a cache.
    """
    if reference.startswith(_ROW_OF_TABLE):
        raise ValueError("audio inside a table cannot be named from another; accepted: audio files, or URLs")
    if "::" in reference:
        member, _, archive = reference.partition("::")
        return f"{member}::{relative_to(archive, folder)}"
    return reference if is_url(reference) else os.path.relpath(reference, folder)


def row_of_table(path: str, column: str, row: int) -> str:
    """The reference to one value of an Arrow file."""
    return f"{_ROW_OF_TABLE}{column}/{row}::{path}"


def inside_stream(column: str, row: int) -> str:
    """The reference to audio that a streamed row holds itself."""
    return f"{_IN_STREAM}{column}/{row}"


def open_binary(reference: str) -> BinaryIO:
    """What a reference points at as a seekable file, whose `name` is the reference.

    A member of an archive is read whole, so that damage shows here.

    Raises:
        StorageError: It does not exist or cannot be read.
    """
    try:
        if not is_url(reference):
            if reason := _no_file(reference):
                raise StorageError(reference, reason)
            return open(reference, "rb")
        if reference.startswith(_ROW_OF_TABLE):
            return _InMemory(_value_of_table(reference), reference)
        if (archive := _local_archive(reference)) is not None:
            return archive.read(reference)
        with _archive_lock if reference.startswith(_ARCHIVES) else nullcontext():
            system, path = url_to_fs(reference)
            return _InMemory(system.cat_file(path), reference)
    except StorageError:
        raise
    except Exception as error:  # archives, codecs, Arrow and fsspec's systems raise almost anything
        raise StorageError(reference, f"cannot be read ({_reason(error)})") from error


def read_bytes(reference: str) -> bytes:
    """The bytes that a reference points at.

    Raises:
        StorageError: They do not exist or cannot be read.
    """
    return _read(reference, lambda file: file.read())


def digest(reference: str) -> bytes:
    """The sha256 of the bytes that a reference points at; files on disk need not fit into memory.

    Raises:
        StorageError: They do not exist or cannot be read.
    """
    return _read(reference, lambda file: hashlib.file_digest(file, "sha256").digest())  # type: ignore[arg-type]


def _read(reference: str, read: Callable[[BinaryIO], bytes]) -> bytes:
    with open_binary(reference) as file:
        try:
            return read(file)
        except OSError as error:
            raise StorageError(reference, f"cannot be read ({_reason(error)})") from error


def missing(reference: str) -> str | None:
    """Why a reference cannot be read, or None. Other machines are not requested, and content is not read."""
    if reference.startswith(_ARCHIVES):
        path = reference.partition("::")[2]
        if is_url(path):
            return None
        if not os.path.exists(path):
            return f"is in an archive that does not exist ({shown(path)})"
        try:
            archive = _local_archive(reference)
        except Exception as error:  # a broken zip or tar shows as almost any exception
            return f"is in an archive that cannot be read ({_reason(error)})"
        return None if archive is None else archive.missing(reference)
    if reference.startswith(_ROW_OF_TABLE):
        path = reference.partition("::")[2]
        return None if os.path.isfile(path) else f"is in a table that is gone ({shown(path)})"
    if is_url(reference):
        inside = reference.startswith(_IN_STREAM)
        known = inside or reference.partition("://")[0] in fsspec.available_protocols()
        return None if known else "is a URL of an unknown kind"
    return _no_file(reference)


# ---------------------------------------------------------------------- files

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _no_file(path: str) -> str | None:
    """Why a path is no file that can be read, or None. It is not opened: a pipe might never answer."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "is a link to a file that does not exist" if os.path.islink(path) else "does not exist"
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        return f"cannot be read ({_reason(error)})"
    if not stat.S_ISREG(mode):
        return f"is not a file, but {_KINDS.get(stat.S_IFMT(mode), 'something else')}"
    return None if os.access(path, os.R_OK) else "cannot be read (Permission denied)"


def _reason(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, StorageError):
        return error.reason
    text = getattr(error, "strerror", None) or str(error)
    return shown(" ".join(text.split())) or type(error).__name__


class _InMemory(io.BytesIO):
    """Bytes that know their reference."""

    def __init__(self, content: bytes | None, name: str):
        super().__init__(content or b"")
        self.name = name


class _OnDisk(io.BufferedRandom):
    """A temporary file that knows its reference."""

    name = ""


# ---------------------------------------------------------------------- archives


class _Archive:
    """A zip or tar file on this machine. Of a tar that is cut off, the members before the cut are read.

    Args:
        path: The file.
        zipped: Whether it is a zip.

    Raises:
        Exception: Of almost any kind: it is no such archive, or damaged at its start.
    """

    def __init__(self, path: str, *, zipped: bool):
        self._members: dict[str, zipfile.ZipInfo | tarfile.TarInfo] = {}
        self._cut: str | None = None
        self._zip = zipfile.ZipFile(path) if zipped else None
        self._tar = None if zipped else tarfile.open(path)
        for info in self._zip.infolist() if self._zip else ():
            self._members[posixpath.normpath(info.filename)] = info
        try:
            for member in self._tar or ():
                self._members[posixpath.normpath(member.name)] = member
        except Exception as error:  # of the archive or of its compression
            if not self._members:
                raise
            self._cut = _reason(error)

    def missing(self, reference: str) -> str | None:
        """Why the archive has no such member, or None."""
        info = self._members.get(_member_of(reference))
        if info is None:
            return "is not in the archive" + (f", which is cut off ({self._cut})" if self._cut else "")
        folder = info.is_dir() if isinstance(info, zipfile.ZipInfo) else info.isdir()
        return "is not a file, but a folder" if folder else None

    def read(self, reference: str) -> BinaryIO:
        """A member's content as a file of its own.

        Raises:
            Exception: Of almost any kind: it is not there, needs a password, or is damaged.
        """
        if reason := self.missing(reference):
            raise StorageError(reference, reason)
        info = self._members[_member_of(reference)]
        if isinstance(info, zipfile.ZipInfo):
            assert self._zip is not None
            if info.flag_bits & 1:
                raise StorageError(reference, "is in an archive that needs a password")
            with self._zip.open(info) as member:
                return _copied(member, info.file_size, reference)
        assert self._tar is not None
        with _archive_lock:
            found = self._tar.extractfile(info)
            if found is None:
                raise StorageError(reference, "is not a file in the archive")
            with found:
                return _copied(found, info.size, reference)


def _copied(member: IO[bytes], size: int, reference: str) -> BinaryIO:
    if size <= _IN_MEMORY:
        return _InMemory(member.read(), reference)
    file = _OnDisk(tempfile.TemporaryFile(prefix="mmsr-member-", buffering=0))
    file.name = reference
    try:
        shutil.copyfileobj(member, file, 2**20)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def _member_of(reference: str) -> str:
    member = reference.partition("::")[0].partition("://")[2]
    return posixpath.normpath(member.lstrip("/"))


def _local_archive(reference: str) -> _Archive | None:
    """The archive of a reference; None if it is on another machine, in another archive, or there is none.

    Raises:
        StorageError: The archive is no file.
    """
    path = reference.partition("::")[2]
    if not reference.startswith(_ARCHIVES) or is_url(path):
        return None
    if reason := _no_file(path):
        raise StorageError(path, reason)
    status = os.stat(path)
    version = (status.st_size, status.st_mtime_ns, status.st_ino, os.getpid())
    with _archive_lock:
        return _archive(path, reference.startswith("zip://"), version)


@functools.lru_cache(maxsize=16)
def _archive(path: str, zipped: bool, version: tuple[int, ...]) -> _Archive:
    """An archive, indexed once in each process, and again if the file has changed."""
    return _Archive(path, zipped=zipped)


# ---------------------------------------------------------------------- rows of tables


def _value_of_table(reference: str) -> bytes | None:
    place, _, path = reference.removeprefix(_ROW_OF_TABLE).partition("::")
    column, _, row = place.rpartition("/")
    if not os.path.isfile(path):
        raise StorageError(reference, f"is in a table that is gone ({shown(path)})")
    value = _table(path, os.getpid())[column][int(row)].as_py()
    return value["bytes"] if isinstance(value, dict) else value


@functools.lru_cache(maxsize=64)
def _table(path: str, process: int) -> "Table":
    """An Arrow file, mapped into memory once in each process."""
    import datasets  # takes seconds, which audio files do not need

    return datasets.Dataset.from_file(path).data

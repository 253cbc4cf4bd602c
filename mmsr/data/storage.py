"""References to data: paths and URLs.

    clips/a.wav                       a file, relative to the table that names it
    zip://a.wav::clips.zip            a member of an archive (zip, tar, tar.gz), relative likewise
    hf:// s3:// gs:// https:// ...    whatever fsspec knows; some need their own package (s3fs, gcsfs)
    arrow://audio/17::cache.arrow     bytes in row 17 of a column of an Arrow file (tables with audio inside)

A reference is one string, so that a row of a table is text wherever its audio is.
"""

import functools
import os
import posixpath
import threading
from typing import TYPE_CHECKING

import fsspec  # type: ignore[import-untyped]
from fsspec.core import url_to_fs  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from datasets.table import Table

_ARCHIVES = ("zip://", "tar://")
_ROW_OF_TABLE = "arrow://"
_IN_STREAM = "stream://"
_archive_lock = threading.Lock()  # members of a tar are read from one shared file object


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


def read_bytes(reference: str) -> bytes:
    """The bytes that a reference points at.

    Raises:
        OSError: They do not exist or cannot be read.
        ValueError: The kind of URL is unknown.
        ImportError: The package for the kind of URL is not installed.
    """
    if reference.startswith(_ROW_OF_TABLE):
        place, _, path = reference.removeprefix(_ROW_OF_TABLE).partition("::")
        column, _, row = place.rpartition("/")
        value = _table(path, os.getpid())[column][int(row)].as_py()
        return value["bytes"] if isinstance(value, dict) else value
    if not is_url(reference):
        with open(reference, "rb") as file:
            return file.read()
    if reference.startswith(_ARCHIVES):
        with _archive_lock:
            system, path = _member(reference)
            return system.cat_file(path)
    system, path = url_to_fs(reference)
    return system.cat_file(path)


def missing(reference: str) -> str | None:
    """Why a reference cannot be read, or None. Other machines are not requested."""
    if reference.startswith(_ARCHIVES):
        archive = reference.partition("::")[2]
        if is_url(archive):
            return None
        if not os.path.isfile(archive):
            return f"is in an archive that does not exist ({archive})"
        try:
            with _archive_lock:
                system, path = _member(reference)
                return None if system.isfile(path) else "is not in the archive"
        except Exception as error:  # a broken zip or tar shows as almost any exception
            return f"is in an archive that cannot be read ({error})"
    if is_url(reference):
        inside = reference.startswith((_ROW_OF_TABLE, _IN_STREAM))
        known = inside or reference.partition("://")[0] in fsspec.available_protocols()
        return None if known else "is a URL of an unknown kind"
    if os.path.isfile(reference):
        return None
    return "is not a file" if os.path.exists(reference) else "does not exist"


def _member(reference: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """An archive and the name of its member, to which `tar` may have added `./`."""
    system, path = url_to_fs(reference)
    dotted = f"./{path}"
    return system, dotted if not system.isfile(path) and system.isfile(dotted) else path


@functools.lru_cache(maxsize=64)
def _table(path: str, process: int) -> "Table":
    """An Arrow file, mapped into memory once in each process."""
    import datasets  # takes seconds, which audio files do not need

    return datasets.Dataset.from_file(path).data

"""Where data lie: paths as they are, and everything else by URL.

    clips/a.wav                       a file, relative to the table that names it
    zip://a.wav::clips.zip            a member of an archive (zip, tar, tar.gz), relative likewise
    hf:// s3:// gs:// https:// ...    whatever fsspec knows; some need their own package (s3fs, gcsfs)
    arrow://audio/17::cache.arrow     bytes in row 17 of a column of an Arrow file (tables with audio inside)

A reference is one string, so a row of a table stays text wherever its audio lies.
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
# A tar member is read by seeking in one shared file object.
_archive_lock = threading.Lock()


def is_url(reference: str) -> bool:
    """Whether a reference is not a plain path."""
    return "://" in reference


def resolve(reference: str, folder: str) -> str:
    """A reference as seen from `folder`, itself a path or a URL: absolute, and normalised where a path."""
    if "::" in reference:
        member, _, archive = reference.partition("::")
        return f"{member}::{resolve(archive, folder)}"
    if is_url(reference):
        return reference
    if is_url(folder):
        return posixpath.join(folder, reference)
    return os.path.normpath(os.path.join(folder, reference))


def row_of_table(path: str, column: str, row: int) -> str:
    """The reference to one value of an Arrow file."""
    return f"{_ROW_OF_TABLE}{column}/{row}::{path}"


def inside_stream(column: str, row: int) -> str:
    """What stands for audio that a streamed row brings itself."""
    return f"{_IN_STREAM}{column}/{row}"


def read_bytes(reference: str) -> bytes:
    """What a reference points at, whole.

    Raises:
        OSError: There is no such thing, or it cannot be had.
        ValueError: Nothing is known of this kind of URL.
        ImportError: The package for this kind of URL is not installed.
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
    """Why a reference cannot be read, or None where it can.

    What lies on another machine is not asked for: a table may name a million such files.
    """
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
        known = (
            reference.startswith((_ROW_OF_TABLE, _IN_STREAM))
            or _protocol(reference) in fsspec.available_protocols()
        )
        return None if known else "is a URL of an unknown kind"
    if os.path.isfile(reference):
        return None
    return "is not a file" if os.path.exists(reference) else "does not exist"


def _member(reference: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """An archive and the name of its member, which `tar` may have written with `./` before it."""
    system, path = url_to_fs(reference)
    dotted = f"./{path}"
    return system, dotted if not system.isfile(path) and system.isfile(dotted) else path


def _protocol(url: str) -> str:
    return url.partition("://")[0]


@functools.lru_cache(maxsize=64)
def _table(path: str, process: int) -> "Table":
    """An Arrow file, mapped into memory, once in each process."""
    import datasets  # not above: a door for audio that costs seconds to import would not be used

    return datasets.Dataset.from_file(path).data

"""Atomic writing, the lock of a folder, and journals from which killed runs are resumed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Self

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file or a folder to a temporary path, which is renamed when the block ends without an error.

    The parent folder is made; what has the final name is replaced. After an error nothing is left.

    Args:
        path: The final name.

    Yields:
        The temporary path, in the same folder, at which nothing exists.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(_half_name(path))
    try:
        yield half
        if half.is_dir():
            _remove(path)  # a folder cannot replace another
        os.replace(half, path)
    finally:
        _remove(half)


def write_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file as a whole, or not at all."""
    with atomic_write(path) as half:
        half.write_bytes(content)


def check_output(
    path: str | os.PathLike[str],
    *,
    folder: bool = False,
    inputs: Sequence[str | os.PathLike[str]] = (),
    name: str = "",
) -> None:
    """Refuse an output that cannot be written, before hours of work for it.

    Missing parent folders are no problem, since `atomic_write` makes them. A file is written and removed
    again, which tells more than permissions do: a full disk, a file system for reading only, a long name.

    Args:
        path: The file or folder to write.
        folder: Whether it is a folder.
        inputs: Files that are read, and must not be replaced.
        name: What it is called in the message, such as `--report`.

    Raises:
        ValueError: It is an input, of the other kind, a device or a URL, or its folder cannot be written to.
    """
    called, path = f"{name} {path}".strip(), Path(path)
    if re.match(r"[A-Za-z][A-Za-z\d+.-]+:/", str(path)):  # a Path has one slash of "s3://" left
        raise ValueError(f"{called} is a URL; accepted: a path on this machine")
    if os.path.exists(path):
        if folder and not path.is_dir():
            raise ValueError(f"{called} is a file; accepted: a folder")
        if not folder and not path.is_file():
            what = "a folder" if path.is_dir() else "no regular file"
            raise ValueError(f"{called} is {what}; accepted: a file, which may be new")
        if any(os.path.exists(given) and path.samefile(given) for given in inputs):
            raise ValueError(f"{called} is a file that is read; accepted: another file")
    there = path if folder else path.parent
    while not os.path.exists(there):
        there = there.parent
    if not there.is_dir():
        raise ValueError(f"{called} cannot be written, since {there} is a file; accepted: another folder")
    probe = there / _half_name(path)
    try:
        probe.write_bytes(bytes(4096))
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"{called} cannot be written ({reason}); accepted: another path") from error
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def _half_name(path: Path) -> str:
    """The name of an unfinished file or folder; with its suffix, by which some writers choose the format."""
    return f".{uuid.uuid4().hex[:12]}.{path.name}"


@contextmanager
def folder_lock(folder: str | os.PathLike[str], *, nested: bool = False) -> Iterator[None]:
    """Keep others who write a folder out of it while the block runs; readers need no lock.

    The lock (`.lock`) ends with its process, even a killed one; `.locked_by` says who has it. On a network
    file system it holds as far as flock does there.

    Args:
        folder: The folder, which is made if it does not exist.
        nested: Let a thread that has the lock take it again.

    Raises:
        ValueError: Somebody else has the lock, or the folder cannot be written.
    """
    folder = Path(folder)
    holder = folder / ".locked_by"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0, is_singleton=True)
        first = not lock.is_locked
        if not first and not nested:
            raise Timeout(lock.lock_file)
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"{folder} is in use by {_holder(holder)}; accepted: another folder, or wait until that "
            "process ends"
        ) from None
    except OSError as error:
        raise ValueError(
            f"{folder} cannot be written ({error.strerror}); accepted: another folder"
        ) from error
    try:
        if first:
            write_file(holder, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        yield
    finally:
        if first:
            holder.unlink(missing_ok=True)
        lock.release()


def _holder(path: Path) -> str:
    """Who has a lock, as far as that is known."""
    with suppress(OSError, ValueError, KeyError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return f"process {found['pid']} on {found['host']}"
    return "another process"


def settings_fingerprint(settings: Mapping[str, Any]) -> str:
    """The 64 hex digits of sha256 over input and settings, in any order, by which a journal is known."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def journal_fingerprint(path: str | os.PathLike[str]) -> str | None:
    """The fingerprint with which a journal begins; None without a file or such a line."""
    try:
        with open(path, encoding="utf-8") as file:
            first = json.loads(file.readline())
    except (OSError, ValueError):
        return None
    return first.get("fingerprint") if isinstance(first, dict) else None


class Journal:
    """An append-only file of JSON lines, from which a killed run is resumed.

    On entering, the lines of an earlier run are read, and an incomplete last line is cut off.

    Args:
        path: The file; None keeps nothing.
        read: Called with each line of the earlier run, in order.
        fingerprint: Of input and settings; the first line. A file with another one is emptied. None for a
            journal without such a line.
        others: Journals that are read before this one, and not changed; those that do not exist or have
            another fingerprint are left out.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        read: Callable[[dict[str, Any]], None],
        *,
        fingerprint: str | None = None,
        others: Sequence[Path] = (),
    ) -> None:
        self.path = None if path is None else Path(path)
        self.fingerprint = fingerprint
        self.others = others
        self._read_entry = read

    def __enter__(self) -> Self:
        """Open the file and read it.

        Raises:
            ValueError: A line cannot be read.
        """
        if self.path is None:
            return self
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for other in filter(Path.is_file, self.others):
            with open(other, "rb") as file:
                self._read(file, other)
        self._file = open(self.path, "ab+")
        try:
            self._file.seek(0)
            whole = self._read(self._file, self.path)
        except ValueError:
            self._file.close()
            raise
        self._file.truncate(whole)
        if not whole and self.fingerprint is not None:
            self.add({"fingerprint": self.fingerprint})
        return self

    def _read(self, file: BinaryIO, path: Path) -> int:
        """Read the complete lines; return their length in bytes, 0 with another fingerprint."""
        whole = 0
        for line in file:
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
                if whole or self.fingerprint is None:
                    self._read_entry(entry)
                elif entry["fingerprint"] != self.fingerprint:
                    if path == self.path:
                        logger.warning("%s is of other input or other settings, and begins anew", path)
                    return 0
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{path}, byte {whole}: no line of a journal ({error}); accepted: what a run left, "
                    "or delete the file to start again"
                ) from error
            whole += len(line)
        return whole

    def __exit__(self, *_: object) -> None:
        if self.path is not None:
            self._file.close()

    def add(self, *entries: Mapping[str, Any]) -> None:
        """Add a line for each entry."""
        if self.path is not None:
            lines = (json.dumps(entry, ensure_ascii=False) for entry in entries)
            self._file.write("".join(f"{line}\n" for line in lines).encode())
            self._file.flush()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)

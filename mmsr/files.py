"""Atomic writing of files and folders, and journals from which killed runs are resumed."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

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
    # the suffix stays, since some writers choose the format by it
    half = path.with_name(f".{uuid.uuid4().hex[:12]}.{path.name}")
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


def check_folder(path: str | os.PathLike[str], *, flag: str) -> None:
    """Refuse a folder that cannot be made or written to, before work is done for it; nothing is left there.

    Args:
        path: The folder.
        flag: Its name in the message, such as `--out`.

    Raises:
        ValueError: It cannot be made or written to.
    """
    folder = Path(path)
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        remedy = "accepted: a folder that can be written to"
        raise ValueError(f"{flag} {path}: {error.strerror}; {remedy}") from None
    finally:
        for parent in missing:
            with suppress(OSError):  # it is not there, or another process has used it since
                parent.rmdir()


class Journal:
    """An append-only file of JSON lines, from which a killed run is resumed.

    On entering, the lines of an earlier run are read, and an incomplete last line is cut off.

    Args:
        path: The file; None keeps nothing.
        read: Called with each line of the earlier run, in order.
        fingerprint: Of input and settings; the first line. A file with another one is emptied. None for a
            journal without such a line.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        read: Callable[[dict[str, Any]], None],
        *,
        fingerprint: str | None = None,
    ) -> None:
        self.path = None if path is None else Path(path)
        self.fingerprint = fingerprint
        self._read_entry = read

    def __enter__(self) -> Self:
        """Open the file and read it.

        Raises:
            ValueError: A line cannot be read.
        """
        if self.path is None:
            return self
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "ab+")
        try:
            whole = self._read()
        except ValueError:
            self._file.close()
            raise
        self._file.truncate(whole)
        if not whole and self.fingerprint is not None:
            self.add({"fingerprint": self.fingerprint})
        return self

    def _read(self) -> int:
        """Read the complete lines; return their length in bytes, 0 with another fingerprint."""
        whole = 0
        self._file.seek(0)
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            try:
                entry = json.loads(line)
                if whole or self.fingerprint is None:
                    self._read_entry(entry)
                elif entry["fingerprint"] != self.fingerprint:
                    logger.warning("%s is of other input or other settings, and begins anew", self.path)
                    return 0
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(
                    f"{self.path}, byte {whole}: no line of a journal ({error}); accepted: what a run left, "
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

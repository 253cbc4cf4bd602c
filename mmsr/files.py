"""Files and folders that appear whole or not at all, and journals, which keep what a killed run has done."""

from __future__ import annotations

import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write a file or a folder to, which takes its final name when the block ends without an error.

    It replaces what has that name; the parent folder is made. After an error nothing of it is left.

    Args:
        path: The final name.

    Yields:
        A path in the same folder at which nothing exists yet.
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


class Journal:
    """A file of JSON lines to which lines are only added, so that a killed run can be resumed.

    On entering, the lines of an earlier run are read. A last line that is not whole, because the run was
    killed as it wrote the line, is cut off.

    Args:
        path: The file; None keeps nothing.
        read: Called with each line of the earlier run, in order.
        fingerprint: Identifies what the journal is of, and is its first line. A file with another fingerprint
            is emptied. None for a journal without such a line.
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

    def __enter__(self) -> Journal:
        """Open the file and read it.

        Raises:
            ValueError: A line is no line of such a journal; names the file and the byte at which it begins.
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
        """Read the whole lines; return their length in bytes, 0 where the file is of something else."""
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

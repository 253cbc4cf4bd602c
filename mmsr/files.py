"""Files and folders that appear whole or not at all. Any room may use this; it uses none."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A place to write a file or a folder to, which takes its name when the block has ended well.

    What stood there is replaced; its parent folder is made. After an error nothing of it is left.

    Args:
        path: The name it will have.

    Yields:
        A path in the same folder at which nothing is yet.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # the ending stays the last, since some writers go by it
    half = path.with_name(f".{uuid.uuid4().hex[:12]}.{path.name}")
    try:
        yield half
        if half.is_dir():
            _remove(path)  # a folder can only be renamed to where none is
        os.replace(half, path)
    finally:
        _remove(half)


def write_file(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file whole, or not at all."""
    with atomic_write(path) as half:
        half.write_bytes(content)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)

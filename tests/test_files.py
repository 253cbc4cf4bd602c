import os
from pathlib import Path

import pytest

from mmsr.files import atomic_write, write_file


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(path := tmp_path / "new" / "metrics.json", b"old")

    def fail(*paths: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_appears_whole_in_place_of_the_old_one(tmp_path: Path) -> None:
    for word in ("old", "new"):
        with atomic_write(tmp_path / "model") as half:
            half.mkdir()
            (half / word).write_text(word)
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "model") as half:
        half.mkdir()
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["new"]


def test_what_is_written_may_go_by_the_ending(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "table.csv.gz") as half:
        assert half.parent == tmp_path and half.name.endswith(".csv.gz")
        half.touch()

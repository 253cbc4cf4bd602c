import os
from pathlib import Path
from typing import Any

import pytest

from mmsr.files import Journal, atomic_write, check_folder, write_file


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


def entries_of(path: Path, fingerprint: str | None = None) -> list[dict[str, Any]]:
    read: list[dict[str, Any]] = []
    with Journal(path, read.append, fingerprint=fingerprint):
        pass
    return read


@pytest.mark.parametrize("fingerprint", [None, "a"])
def test_a_journal_is_resumed_after_its_last_whole_line(tmp_path: Path, fingerprint: str | None) -> None:
    path = tmp_path / "new" / "journal.jsonl"
    with Journal(path, print, fingerprint=fingerprint) as journal:
        journal.add({"id": 1, "text": "đau"}, {"id": 2})
    whole = path.read_bytes()
    assert "đau" in whole.decode() and whole.count(b"\n") == 2 + bool(fingerprint)
    path.write_bytes(whole + b'{"id": 3')
    assert [entry["id"] for entry in entries_of(path, fingerprint)] == [1, 2]
    assert path.read_bytes() == whole
    with Journal(path, lambda entry: None, fingerprint=fingerprint) as journal:
        journal.add({"id": 3})
    assert [entry["id"] for entry in entries_of(path, fingerprint)] == [1, 2, 3]


def test_a_journal_of_something_else_begins_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal(path, print, fingerprint="a") as journal:
        journal.add({"id": 1})
    assert entries_of(path, "b") == [] and "begins anew" in caplog.text
    assert path.read_bytes() == b'{"fingerprint": "b"}\n'


@pytest.mark.parametrize(("content", "byte"), [("mine\n", 0), ('{"id": 1}\n{"key": 2}\n', 10)])
def test_a_file_that_is_no_journal_stays_as_it_is(tmp_path: Path, content: str, byte: int) -> None:
    (path := tmp_path / "journal.jsonl").write_text(content)
    with pytest.raises(
        ValueError, match=rf"journal.jsonl, byte {byte}: no line of a journal .*delete the file"
    ):
        with Journal(path, lambda entry: entry["id"]):
            pass
    assert path.read_text() == content


def test_a_journal_without_a_path_keeps_nothing() -> None:
    with Journal(None, print, fingerprint="a") as journal:
        journal.add({"id": 1})


def test_a_folder_is_tried_and_left_as_it_was(tmp_path):
    check_folder(tmp_path / "new" / "run", flag="--out")
    check_folder(tmp_path, flag="--out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(
        ValueError, match=r"--out .*file/run: Not a directory; accepted: a folder that can be"
    ):
        check_folder(tmp_path / "file" / "run", flag="--out")

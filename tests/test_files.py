import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mmsr.files import Journal, atomic_write, check_output, folder_lock, settings_fingerprint, write_file


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


def test_a_journal_knows_the_entries_of_others_and_leaves_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with Journal(tmp_path / name, print) as journal:
            journal.add({"id": name})
    torn = (tmp_path / "a").read_bytes() + b'{"id": "c'
    (tmp_path / "a").write_bytes(torn)
    read: list[dict[str, Any]] = []
    others = [tmp_path / "none", tmp_path / "a"]
    with Journal(tmp_path / "b", read.append, others=others) as journal:
        journal.add({"id": "d"})
    assert [entry["id"] for entry in read] == ["a", "b"]
    assert (tmp_path / "a").read_bytes() == torn and not (tmp_path / "none").exists()
    (tmp_path / "a").write_text("mine\n")
    with pytest.raises(ValueError, match="a, byte 0: no line of a journal"):
        with Journal(tmp_path / "b", read.append, others=others):
            pass


def test_outputs_that_can_be_written_leave_no_trace(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text("old")
    for path in ("old.csv", "new.csv", "deep/er/new.csv"):
        check_output(tmp_path / path)
    for path in ("", "new", "deep/er"):
        check_output(tmp_path / path, folder=True)
    assert [path.name for path in tmp_path.iterdir()] == ["old.csv"]
    assert (tmp_path / "old.csv").read_text() == "old"


def test_outputs_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to(tmp_path / "m.csv")
    for path, folder, problem in (
        ("m.csv/heard.csv", False, "m.csv is a file; accepted: another folder"),
        ("m.csv/runs", True, "m.csv is a file; accepted: another folder"),
        ("m.csv", True, "m.csv is a file; accepted: a folder"),
        (".", False, "is a folder; accepted: a file"),
        ("/dev/null", False, "/dev/null is no regular file; accepted: a file"),
        ("s3://bucket/m.csv", False, "s3://bucket/m.csv is a URL; accepted: a path on this machine"),
        (Path("s3://bucket/m.csv"), False, "s3:/bucket/m.csv is a URL; accepted: a path on this machine"),
        ("n" * 250, False, r"cannot be written \(File name too long\)"),
        ("link.csv", False, "link.csv is a file that is read; accepted: another file"),
    ):
        given = path if "s3:" in str(path) else tmp_path / path
        with pytest.raises(ValueError, match=f"^--out .*{problem}"):
            check_output(given, folder=folder, inputs=[tmp_path / "m.csv"], name="--out")
    assert (tmp_path / "m.csv").read_text() == "old" and len([*tmp_path.iterdir()]) == 2


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="/proc can be written by nobody")
def test_a_file_system_that_takes_no_files_is_told_before_the_work() -> None:
    with pytest.raises(ValueError, match=r"/proc/m.csv cannot be written \("):
        check_output("/proc/m.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_permission_is_told_before_the_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ValueError, match=r"m.csv cannot be written \(Permission denied\)"):
        check_output(tmp_path / "new" / "m.csv")


HOLD = """
import sys, time
from mmsr.files import folder_lock
with folder_lock(sys.argv[1]):
    print(flush=True)
    time.sleep(60)
"""


def test_a_folder_is_locked_for_others_until_its_process_ends_or_is_killed(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline()
        holder = f"in use by process {process.pid} on {socket.gethostname()}; accepted: another folder"
        with pytest.raises(ValueError, match=holder), folder_lock(tmp_path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        with folder_lock(tmp_path):
            pass
    finally:
        process.kill()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_lock_is_taken_again_only_where_that_is_meant(tmp_path: Path) -> None:
    with folder_lock(tmp_path):
        with folder_lock(tmp_path, nested=True):
            pass
        assert (tmp_path / ".locked_by").exists()
        with pytest.raises(ValueError, match="in use by process"), folder_lock(tmp_path):
            pass
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match="file cannot be written"), folder_lock(tmp_path / "file"):
        pass


def test_the_fingerprint_of_settings_depends_on_values_and_not_on_order():
    made = settings_fingerprint({"model": "a", "seed": 0})
    assert made == settings_fingerprint({"seed": 0, "model": "a"}) and len(made) == 64
    assert made != settings_fingerprint({"model": "a", "seed": 1})

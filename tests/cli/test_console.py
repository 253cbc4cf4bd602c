"""Refusals of missing files, and the table that is drawn again."""

import io
import itertools
import json
import os

import pytest

from mmsr.cli.console import lenient, live_table, must_be_there, print_json


def test_a_missing_file_is_named_by_its_flag(tmp_path):
    (tmp_path / "m.csv").touch()
    must_be_there(manifest=tmp_path / "m.csv", slice_table=None)
    must_be_there(manifest="https://host/m.csv", model="owner/name", runs=f"{tmp_path / 'm.csv'}:text")
    with pytest.raises(ValueError, match=r"--slice-table no\.csv: no such file"):
        must_be_there(manifest=tmp_path / "m.csv", slice_table="no.csv")


@pytest.mark.parametrize(("encoding", "shown"), [("utf-8", "ế 😀"), ("ascii", "\\u1ebf \\U0001f600")])
def test_every_text_can_be_printed(encoding: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding, errors="strict"))
    lenient()
    name = os.fsdecode(b"caf\xe9")
    print(f"ế 😀 {name}")
    print_json({"audio": name, "text": "ế 😀"})
    print(end="", flush=True)
    plain, as_json = written.getvalue().decode(encoding).splitlines()
    assert plain == f"{shown} caf\\udce9"
    assert json.loads(as_json) == {"audio": name, "text": "ế 😀"}  # the name that opens the file


def test_without_a_terminal_the_table_is_a_line_a_row_each_minute(capsys):
    seconds = itertools.count(0, 10)
    cells = {"gated": {"0": "epoch 3", "1": "waits"}, "concat": {"0": "0.712", "1": "waits"}}
    with live_table("fusions", lambda: next(seconds)) as show:
        show(cells, "gated, seed 0: starts")
        for _ in range(14):
            show(cells, "")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "gated, seed 0: starts"
    assert lines[1:3] == ["gated: 0 epoch 3, 1 waits", "concat: 0 0.712, 1 waits"]
    assert 3 <= len(lines) <= 7 and "\r" not in "".join(lines)

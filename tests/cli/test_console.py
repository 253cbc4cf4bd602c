"""Refusals of bad input before anything is loaded."""

import io
import json
import os

import pytest

from mmsr.cli.console import at_least_one, lenient, must_be_there, print_json


def test_a_missing_file_is_named_by_its_flag(tmp_path):
    (tmp_path / "m.csv").touch()
    must_be_there(manifest=tmp_path / "m.csv", slice_table=None)
    must_be_there(manifest="https://host/m.csv", model="owner/name", runs=f"{tmp_path / 'm.csv'}:text")
    with pytest.raises(ValueError, match=r"--slice-table no\.csv: no such file"):
        must_be_there(manifest=tmp_path / "m.csv", slice_table="no.csv")


def test_a_count_below_one_is_named_by_its_flag():
    at_least_one(batch_size=1, num_beams=4)
    with pytest.raises(ValueError, match="--num-beams 0; accepted: 1 or more"):
        at_least_one(batch_size=1, num_beams=0)


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

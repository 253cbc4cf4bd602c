"""Where metrics come from, as result files carry it."""

import os
import sys

import pytest

from mmsr.evaluation.provenance import ORIGIN, Provenance, command_line


def test_a_provenance_knows_its_process_and_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["mmsr", "evaluate", "--seed", "3"])
    found = Provenance(seed=3, data_fingerprint="abc", seconds=1.23456).to_dict()
    assert list(found) == ["seed", "data_fingerprint", "command", "versions", "machine", "seconds"]
    assert found["command"] == "mmsr evaluate --seed 3" and found["seconds"] == 1.235
    assert found["versions"]["python"].startswith("3.") and "torch" in found["versions"]
    assert found["machine"]["cores"] >= 1 and found["machine"]["platform"]


def test_what_is_not_known_is_left_out() -> None:
    assert tuple(Provenance(command="c").to_dict()) == ORIGIN
    assert Provenance(seed=0).to_dict()["seed"] == 0


@pytest.mark.skipif(os.sep != "/", reason="paths as on Linux and macOS")
@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["{here}/.venv/bin/mmsr", "evaluate", "{here}/m.csv"], "mmsr evaluate m.csv"),
        (["/usr/lib/mmsr/__main__.py", "--model={home}/a b/model"], "mmsr '--model=~/a b/model'"),
        (["mmsr", "{home}/m.csv", "--out", "runs/x"], "mmsr ~/m.csv --out runs/x"),
        (["mmsr", "/srv/lab/anna/corpus/m.csv"], "mmsr .../corpus/m.csv"),
        (["{here}/work/base.py", "--text", "so kind"], "work/base.py --text 'so kind'"),
        (["mmsr", "predict", "https://a.org/b.wav"], "mmsr predict https://a.org/b.wav"),
    ],
)
def test_a_command_can_be_copied_and_names_no_folder_of_its_machine(typed, told, tmp_path, monkeypatch):
    home, here = tmp_path / "home" / "anna", tmp_path / "here"
    for folder in (home, here):
        folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "argv", [word.format(home=home, here=here) for word in typed])
    assert command_line() == told

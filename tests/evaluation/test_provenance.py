"""Where metrics come from, as result files carry it."""

import sys

import pytest

from mmsr.evaluation.provenance import ORIGIN, Provenance


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

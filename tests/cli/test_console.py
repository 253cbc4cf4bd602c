"""Refusals of bad input before anything is loaded."""

import pytest

from mmsr.cli.console import at_least_one, must_be_there


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

"""A calibration called from Python: where it writes, and what it refuses."""

import json
import shutil
from pathlib import Path

import pytest

from mmsr.cli.main import main
from mmsr.data.manifest.manifest import load_manifest
from mmsr.model.packaged import checkpoint
from mmsr.workflows.calibration import calibrate_checkpoint
from mmsr.workflows.settings import Rows


@pytest.fixture
def manifest(demo_corpus: Path) -> Path:
    """All rows in the split `held`."""
    path = demo_corpus.with_name("held.jsonl")
    rows = [row | {"split": "held"} for row in load_manifest(demo_corpus).to_list()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_function_and_the_command_write_the_same_temperature(manifest, tmp_path, capsys):
    capsys.readouterr()
    calibration = calibrate_checkpoint("demo", Rows(manifest, dev_split="held"), out=tmp_path / "function")
    assert capsys.readouterr() == ("", "")
    assert calibration.config == tmp_path / "function" / "config.json"
    settings = json.loads(calibration.config.read_text())
    assert settings["temperature"] == calibration.found["temperature"] != 1 and calibration.found["n"] == 60
    command = ["calibrate", "--model", "demo", "--manifest", str(manifest), "--split", "held"]
    main([*command, "--out", str(tmp_path / "command")])
    assert (tmp_path / "command" / "config.json").read_bytes() == calibration.config.read_bytes()

    own = Path(shutil.copytree(checkpoint("demo"), tmp_path / "own"))
    again = calibrate_checkpoint(own, Rows(manifest, dev_split="held"))
    assert again.config == own / "config.json"
    assert again.config.read_bytes() == calibration.config.read_bytes()


def test_what_cannot_be_calibrated_is_refused(demo_corpus: Path, tmp_path: Path) -> None:
    rows = Rows(demo_corpus)
    with pytest.raises(
        ValueError, match="packaged with mmsr and stays as it is; accepted: with --out FOLDER"
    ):
        calibrate_checkpoint("demo", rows)
    with pytest.raises(ValueError, match="exists already; accepted: a new folder"):
        calibrate_checkpoint("demo", rows, out=tmp_path)
    with pytest.raises(ValueError, match="no config.json there"):
        calibrate_checkpoint(tmp_path, rows)
    with pytest.raises(ValueError, match=r"manifest\.csv, split dev: \d+ labelled rows; accepted: 50"):
        calibrate_checkpoint("demo", rows, out=tmp_path / "new")
    with pytest.raises(ValueError, match=r"manifest\.csv, development rows of fold 1: \d+ labelled rows"):
        calibrate_checkpoint("demo", Rows(demo_corpus, fold=1), out=tmp_path / "new")
    assert not (tmp_path / "new").exists()

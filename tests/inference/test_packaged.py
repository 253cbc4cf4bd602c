"""The checkpoint in the box: whole, described, and one line answers with it, offline, from anywhere."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from safetensors import safe_open

import mmsr
from mmsr.model.card import is_generated

ROOT = Path(__file__).resolve().parents[2]

# A process of its own: the network is gone, and the folder is another.
OFFLINE = """
import socket
import sys

def refuse(*args, **kwargs):
    raise AssertionError("the network was asked")

socket.socket.connect = socket.getaddrinfo = refuse
"""
DEFAULT_MODEL = """
import mmsr
import torch
from transformers import pipeline

pipe = pipeline("sentiment-reasoning")
assert {weight.dtype for weight in pipe.model.state_dict().values()} == {torch.float32}
given = mmsr.MmsrForSentimentReasoning.from_pretrained(mmsr.checkpoint("demo")).state_dict()
assert all(torch.equal(weight, given[name]) for name, weight in pipe.model.state_dict().items())
said = {"text": "thank you so much, the doctor was so kind"}
first, second = pipe(said), mmsr.load_pipeline()(said)
assert first == second and first["rationale"], (first, second)
heavy = {"sklearn", "lightning", "librosa", "timm", "datasets", "mmsr.evaluation.metrics"} & set(sys.modules)
assert not heavy, f"an answer brought {heavy}"
"""


def test_the_checkpoint_is_small_and_half_precise():
    folder = mmsr.checkpoint("demo")
    assert folder.is_absolute() and folder.name == "demo"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 5.5e6
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F16"}  # noqa: SIM118
    assert json.loads((folder / "config.json").read_text("utf-8"))["dtype"] == "float32"


def test_its_card_says_where_it_comes_from():
    folder = mmsr.checkpoint("demo")
    facts = json.loads((folder / "checkpoint.json").read_text("utf-8"))
    card = (folder / "README.md").read_text("utf-8")
    assert not is_generated(folder / "README.md")
    told = " ".join(card.split())
    assert "synthetic voices" in told and "not for use on patients" in told
    for said in (facts["data_fingerprint"], facts["trained_by"], f"seed {facts['seed']}", facts["stored_as"]):
        assert said in card
    assert f"{facts['test']['audio+text']['macro_f1']:.3f}" in card
    assert facts["agreement"]["label"] == facts["agreement"]["rationale"] == 1
    assert facts["agreement"]["n"] == facts["test"]["audio+text"]["n"] == 480


def test_it_is_calibrated_and_its_card_says_what_that_does():
    folder = mmsr.checkpoint("demo")
    found = json.loads((folder / "checkpoint.json").read_text("utf-8"))["calibration"]
    temperature = json.loads((folder / "config.json").read_text("utf-8"))["temperature"]
    assert temperature == found["temperature"] == found["after"]["temperature"] != 1
    assert found["before"]["temperature"] == 1
    assert all(found["after"][name] < found["before"][name] for name in ("ece", "nll", "brier"))
    card = (folder / "README.md").read_text("utf-8")
    for one in (found["before"], found["after"]):
        assert "| {temperature:.3f} | {ece:.3f} | {nll:.3f} | {brier:.3f} |".format(**one) in card


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(ValueError, match=re.escape("no packaged checkpoint is called 'x'; accepted: demo")):
        mmsr.checkpoint("x")
    with pytest.raises(ValueError, match="nemo: no such folder, and no packaged .* accepted: demo"):
        mmsr.load_pipeline("nemo")


def test_a_checkpoint_in_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "config.json").write_text("{")
    with pytest.raises(ValueError, match="checkpoint demo cannot be read"):
        mmsr.load_pipeline("demo")


def test_one_line_answers_from_anywhere_without_network(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", OFFLINE + DEFAULT_MODEL]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr


def test_the_wheel_carries_it():
    """As the build rules say: what is in the package's folder and not ignored by git."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]
    assert "/mmsr" in build["wheel"]["include"] and "exclude" not in build["wheel"]
    names = {file.name for file in mmsr.checkpoint("demo").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "checkpoint.json"} <= names
    files = [*mmsr.checkpoint("demo").iterdir(), ROOT / "mmsr" / "inference" / "answer.html.jinja"]
    ignored = subprocess.run(
        ["git", "check-ignore", *map(str, files)], cwd=ROOT, capture_output=True, text=True
    )
    if ignored.returncode == 128:
        pytest.skip("not a git checkout")
    assert ignored.stdout == ""

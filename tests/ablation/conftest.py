"""A finished ablation, and what tests do with ablations."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmsr.ablation.ablate import ablate
from mmsr.ablation.runner import Event
from mmsr.ablation.spec import read_ablation
from mmsr.inference.loading import open_predictor

SETTINGS = {
    "model.preset": "tiny",
    "model.vocab_size": 600,
    "model.rationale_format": "none",
    "data.batch_rows": 8,
    "trainer.max_epochs": 1,
    "trainer.precision": "32-true",
}


class InProcess:
    """A runner in this process: another back end that fits."""

    def __init__(self):
        self.done: list[str] = []

    def run(self, work, runs):
        for run in runs:
            run.folder.mkdir(parents=True, exist_ok=True)
            yield Event(run)
            try:
                work(run)
            except Exception as error:
                yield Event(run, "failed", str(error))
            else:
                self.done.append(run.name)
                yield Event(run, "finished")


def write(folder: Path, **content) -> Path:
    path = folder / "test.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def tiny(folder: Path, corpus: Path, **content) -> Path:
    whole = {
        "settings": {**SETTINGS, "data.manifest": str(corpus)},
        "grid": {"model.fusion": ["concat", "text_only"]},
        "seeds": [0, 1],
        "evaluation": {"conditions": ["shuffled_audio"], "also": ["accuracy"]},
        "out": str(folder / "out"),
    }
    return write(folder, **{**whole, **content})


def change(file: Path, how) -> None:
    """Change the content of a JSON file."""
    content = json.loads(file.read_text(encoding="utf-8"))
    how(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def told_again(out: Path, file: Path, **content) -> dict:
    """The results of a finished folder, of which nothing may be trained or predicted again."""
    whole = {**yaml.safe_load(file.read_text()), **content}
    runner = InProcess()
    results = ablate(
        read_ablation(write(out, **whole), out=str(out)), open_model=open_predictor, runner=runner
    )
    assert runner.done == [] and results["failed"] == []
    return results


def said(out: Path, results: dict, variant: str) -> list[list[dict]]:
    """What each seed of a variant said under its own condition."""
    figures = results["variants"][variant]
    files = [out / "runs" / run["name"] / "predictions.jsonl" for run in figures["runs"]]
    rows = [[json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in files]
    return [[row for row in one if row["condition"] == figures["condition"]] for one in rows]


def settled(folder: Path) -> list[list[str]]:
    """The cells of table.md, but for the seconds in its last column."""
    lines = (folder / "table.md").read_text(encoding="utf-8").splitlines()
    return [line.split("|")[1:-2] for line in lines if line.startswith("|")]


@pytest.fixture(scope="session")
def finished(demo_corpus, tmp_path_factory):
    """An ablation that nothing interrupted, and its results."""
    folder = tmp_path_factory.mktemp("ablation")
    path = tiny(folder, demo_corpus)
    return path, ablate(read_ablation(path), open_model=open_predictor, runner=InProcess())


@pytest.fixture
def copied(finished, tmp_path):
    """A finished ablation's folder to change, and its file."""
    path, _ = finished
    return shutil.copytree(read_ablation(path).out, tmp_path / "out"), path


def as_fixture(function: Callable[..., Any], name: str | None = None) -> Any:
    """A fixture that gives tests the function, by default under its own name."""
    return pytest.fixture(scope="session", name=name or function.__name__)(lambda: function)


_make_runner = as_fixture(InProcess, name="make_runner")
_write = as_fixture(write)
_tiny = as_fixture(tiny)
_change = as_fixture(change)
_told_again = as_fixture(told_again)
_said = as_fixture(said)
_settled = as_fixture(settled)

"""Searches of a tiny model, with training and without."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

pytest.importorskip("optuna", reason="searches need Optuna: pip install 'mmsr[search]'")

from mmsr.ablation.runner import Event  # noqa: E402
from mmsr.ablation.search.search import search  # noqa: E402
from mmsr.ablation.search.spec import Search, read_search  # noqa: E402
from mmsr.ablation.search.trials import Trials, train_trial  # noqa: E402
from mmsr.inference.loading import open_predictor  # noqa: E402

SETTINGS = {
    "model.preset": "tiny",
    "model.vocab_size": 600,
    "model.fusion": "text_only",
    "model.rationale_format": "none",
    "data.batch_rows": 8,
    "trainer.max_epochs": 1,
    "trainer.precision": "32-true",
    "monitor": "dev_macro_f1",
}
SPACE = {
    "model.learning_rate": {"low": "1e-4", "high": "1e-1", "log": True},
    "model.config.dropout": {"low": 0.0, "high": 0.4, "step": 0.1},
}


class Trainer:
    """A runner without training: the value of a trial is a function of its settings.

    Args:
        value: The function; what it raises fails the trial, and NaN is a value that no epoch had.
        killed_at: The number of the trial in which the search ends at once, as by SIGKILL.
    """

    def __init__(self, value, *, killed_at=None):
        self.value, self.killed_at = value, killed_at
        self.done: list[str] = []
        self.settings: dict[str, dict] = {}

    def run(self, work, runs):
        for run in runs:
            yield Event(run)
            if run.name == self.killed_at:
                raise KeyboardInterrupt
            run.folder.mkdir(parents=True, exist_ok=True)
            self.done.append(run.name)
            self.settings[run.name] = run.settings
            try:
                value = self.value(run.settings)
            except Exception as error:
                yield Event(run, "failed", f"{type(error).__name__}: {error}")
                continue
            row = {"epoch": 0, "dev_macro_f1": value, "dev_loss": 1.0}
            (run.folder / "history.json").write_text(json.dumps([row]))
            (run.folder / "cost.json").write_text('{"trained_parameters": 3, "seconds": [1.5]}')
            yield Event(run, "finished")


def peak(settings: dict) -> float:
    """Highest, 1, at a learning rate of 1e-2 and a dropout of .2; .8 for the default."""
    rate = settings["model"].get("learning_rate", 1e-3)
    dropout = (settings["model"].get("config") or {}).get("dropout", 0.2)
    return 1 - 0.2 * abs(math.log10(rate) + 2) - 0.5 * abs(dropout - 0.2)


def make_file(folder: Path, corpus: Path, **content) -> Path:
    whole = {
        "settings": {**SETTINGS, "data.manifest": str(corpus), **content.pop("over", {})},
        "space": SPACE,
        "trials": 6,
        "out": str(folder / "out"),
    }
    path = folder / "test.yaml"
    path.write_text(yaml.safe_dump({**whole, **content}, sort_keys=False))
    return path


_READ: dict[str, Search] = {}


def make_search(folder: Path, corpus: Path, **content) -> Search:
    """A search that is read once for all tests of the same content, with a folder of its own."""
    key = f"{corpus} {json.dumps(content)}"
    if key not in _READ:
        _READ[key] = read_search(make_file(folder, corpus, **content))
    return replace(_READ[key], out=folder / "out")


def run_trials(search: Search, runner) -> Trials:
    """The trials of a search, without its report."""
    search.out.mkdir(parents=True, exist_ok=True)
    trials = Trials(search)
    for event in runner.run(train_trial, trials.runs()):
        trials.take(event)
    return trials


def run_search(path: Path, runner, **options) -> dict:
    return search(read_search(path, **options), open_model=open_predictor, runner=runner)


@pytest.fixture
def trainer():
    return Trainer


@pytest.fixture(name="peak")
def _peak():
    return peak


@pytest.fixture(name="search_file")
def _search_file():
    return make_file


@pytest.fixture(name="make_search")
def _make_search():
    return make_search


@pytest.fixture(name="run_trials")
def _run_trials():
    return run_trials


@pytest.fixture(scope="session")
def reported(words, tmp_path_factory):
    """The folder and the results of twelve trials."""
    folder = tmp_path_factory.mktemp("reported")
    return folder / "out", run_search(make_file(folder, words, trials=12), Trainer(peak))


@pytest.fixture(name="run_search")
def _run_search():
    return run_search


@pytest.fixture(scope="session")
def words(tmp_path_factory) -> Path:
    """A manifest of transcripts without audio, 12 of each split; ours to change."""
    folder = tmp_path_factory.mktemp("words")
    lines = ["id,text,label,speaker,split"]
    for split in ("train", "dev", "test"):
        for number in range(12):
            label = ("negative", "neutral", "positive")[number % 3]
            text = {"negative": "it hurts so much", "neutral": "the door is open", "positive": "all is well"}
            lines.append(f"{split}{number},{text[label]} {number},{label},{split}-{number % 6},{split}")
    path = folder / "words.csv"
    path.write_text("\n".join(lines) + "\n")
    return path

"""Loggers of Lightning by configuration, beside the run's own history and CSV."""

import json
from pathlib import Path

import pytest
import yaml

from mmsr.training.loggers import MetricsLogger
from mmsr.training.run import fit


def train(corpus: Path, folder: Path, *flags: str, logger: list | None = None) -> list[dict]:
    """One epoch of a tiny model with loggers from a YAML file or flags; returns the run's history."""
    settings = {
        "model": {"preset": "tiny", "vocab_size": 600, "rationale_format": "none"},
        "data": {"manifest": str(corpus), "batch_rows": 8},
        "trainer": {
            "default_root_dir": str(folder),
            "max_epochs": 1,
            "precision": "32-true",
            "enable_progress_bar": False,
            "log_every_n_steps": 2,
            "logger": logger,
        },
    }
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(settings))
    fit(["-c", str(path), *flags])
    return json.loads((folder / "history.json").read_text())


def test_tensorboard_gets_the_figures_of_the_history(demo_corpus, tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard: pip install 'mmsr[loggers]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "run"
    logger = {"class_path": "TensorBoardLogger", "init_args": {"save_dir": str(folder), "name": "board"}}
    csv = {"class_path": "CSVLogger", "init_args": {"save_dir": str(folder), "name": "logs"}}
    (row,) = train(demo_corpus, folder, logger=[logger, csv])
    events = EventAccumulator(str(folder / "board" / "version_0")).Reload()
    assert {"train_loss", "dev_loss", "dev_macro_f1"} <= set(events.Tags()["scalars"])
    for name in ("dev_loss", "dev_macro_f1"):
        assert [event.value for event in events.Scalars(name)] == pytest.approx([row[name]], rel=1e-5)
    assert (folder / "logs" / "version_0" / "metrics.csv").exists() and (folder / "model").is_dir()
    # another logger does not make it another run
    fit(["-c", str(folder.with_suffix(".yaml")), "--trainer.logger", "false"])


def test_weights_and_biases_offline_keeps_the_run_on_this_machine(demo_corpus, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="Weights & Biases: pip install 'mmsr[loggers]'")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = tmp_path / "run"
    settings = {"logger": "WandbLogger", "logger.save_dir": str(tmp_path), "logger.offline": "true"}
    flags = [word for name, value in settings.items() for word in (f"--trainer.{name}", value)]
    (row,) = train(demo_corpus, folder, *flags)
    summary = dict(wandb.run.summary)
    wandb.finish()
    assert summary["dev_loss"] == pytest.approx(row["dev_loss"], rel=1e-5)
    (written,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert written.stat().st_size > 0


def table(folder: Path) -> list[tuple[str, ...]]:
    """The rows of a table with columns a, epoch, step, train_loss."""
    lines = (folder / "logs" / "metrics.csv").read_text().splitlines()
    assert lines[0] == "a,epoch,step,train_loss"
    return [tuple(line.split(",")) for line in lines[1:]]


@pytest.mark.parametrize("written", [True, False], ids=["written", "killed-before"])
def test_the_table_of_a_resumed_run_has_each_row_once(tmp_path, written):
    first = MetricsLogger(tmp_path)
    first.log_metrics({"a": 1.0, "epoch": 0}, step=0)
    known = first.rows
    end = {"epoch": 0, "step": 1, "train_loss": 0.5}
    if written:
        first.log_metrics({"epoch": 0, "train_loss": 0.5}, step=1)
        first.log_metrics({"a": 3.0, "epoch": 1}, step=2)  # after the checkpoint, and repeated
    again = MetricsLogger(tmp_path)
    again.resume(known, step=2, epoch_end=end)
    again.log_metrics({"a": 4.0, "epoch": 1}, step=2)
    assert table(tmp_path) == [("1.0", "0", "0", ""), ("", "0", "1", "0.5"), ("4.0", "1", "2", "")]
    assert again.rows == 3


def test_the_table_of_an_earlier_version_is_cut_by_its_steps(tmp_path):
    first = MetricsLogger(tmp_path)
    for step in range(4):
        first.log_metrics({"a": float(step), "epoch": 0, "train_loss": 1.0}, step=step)
    again = MetricsLogger(tmp_path)
    again.resume(None, step=2, epoch_end={})
    assert [row[2] for row in table(tmp_path)] == ["0", "1"] and again.rows == 2

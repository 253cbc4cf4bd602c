"""What a training without a terminal prints."""

import csv
import itertools
import re
from pathlib import Path

import pytest

from mmsr.training.progress import TrainingLines
from mmsr.training.run import fit

EPOCH = re.compile(
    r"epoch (\d)/2  train_loss [\d.]+  dev_loss [\d.]+  dev_macro_f1 [\d.]+  \d+ s(  \d+ (s|min) left)?"
)


@pytest.fixture
def text_manifest(tmp_path: Path) -> Path:
    """Sixty short transcripts with labels and rationales."""
    words = {"negative": "the doctor was rude", "neutral": "it was Tuesday", "positive": "they were so kind"}
    path = tmp_path / "m.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "text", "label", "rationale", "split"])
        for n, label in zip(range(60), itertools.cycle(words)):
            split = "train" if n < 40 else "dev"
            table.writerow([n, f"{words[label]} {n}", label, f"it says {words[label]}", split])
    return path


def arguments(manifest: Path, folder: Path, **more: object) -> list[str]:
    settings = {
        "model.preset": "tiny",
        "model.fusion": "text_only",
        "model.vocab_size": 400,
        "data.manifest": manifest,
        "data.batch_rows": 4,
        "trainer.default_root_dir": folder,
        "trainer.max_epochs": 2,
        "trainer.precision": "32-true",
        **{name.replace("__", "."): value for name, value in more.items()},
    }
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


def test_each_epoch_has_a_line_on_stderr(text_manifest, tmp_path, capsys):
    fit(arguments(text_manifest, tmp_path / "run"))
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("epoch")]
    assert [EPOCH.fullmatch(line)[1] for line in lines] == ["1", "2"], err
    assert "left" in lines[0] and "left" not in lines[1]
    assert out == "" and "\r" not in err and "\x1b" not in err


def test_within_an_epoch_there_is_a_line_each_minute_with_steps_of_the_optimiser(
    text_manifest, tmp_path, monkeypatch
):
    lines: list[str] = []
    seconds = itertools.count(0, 13)
    shown = TrainingLines(lines.append, lambda: next(seconds))
    monkeypatch.setattr("mmsr.training.run.progress_of_training", lambda: shown)
    fit(arguments(text_manifest, tmp_path / "run", trainer__accumulate_grad_batches=2, monitor="dev_uar"))
    steps = [line for line in lines if "  step " in line]
    words = r"epoch \d/2  step \d/5  loss ([\d.]+)  [\d.]+ s a step  \d+ (s|min) left"
    spoken = [found for line in steps if (found := re.fullmatch(words, line))]
    assert spoken and 3 < float(spoken[0][1]) < 12, steps
    assert len(steps) <= 8, "not at every batch, of which there are 20"
    assert sum("dev_uar" in line for line in lines) == 2, "the monitor is shown"


def test_the_loss_of_a_line_is_a_mean_over_steps_whatever_their_batches(text_manifest, tmp_path, monkeypatch):
    lines: list[str] = []
    seconds = itertools.count(0, 70)  # each step has a line
    shown = TrainingLines(lines.append, lambda: next(seconds))
    monkeypatch.setattr("mmsr.training.run.progress_of_training", lambda: shown)
    more = {"trainer__accumulate_grad_batches": 8, "trainer__max_epochs": 1, "model__warmup_ratio": 0.9}
    fit(arguments(text_manifest, tmp_path / "run", **more))  # steps of eight batches and of two
    losses = [float(found[1]) for line in lines if (found := re.search("  loss ([0-9.]+)", line))]
    whole = next(float(found[1]) for line in lines if (found := re.search("train_loss ([0-9.]+)", line)))
    assert losses == [pytest.approx(whole, rel=0.15)] * 2, lines


@pytest.mark.parametrize("flag", ["trainer__enable_progress_bar"])
def test_lines_are_switched_off_as_bars_are(text_manifest, tmp_path, capsys, flag):
    fit(arguments(text_manifest, tmp_path / "run", **{flag: "false"}))
    assert "epoch" not in capsys.readouterr().err


def test_a_stream_has_lines_with_the_steps_of_the_run(text_manifest, tmp_path, capsys):
    stream = {"data__streaming": "true", "data__stream_window": 16, "trainer__val_check_interval": 3}
    limits = {"trainer__max_steps": 6, "trainer__max_epochs": -1}
    fit(arguments(text_manifest, tmp_path / "run", **stream, **limits))
    lines = [line for line in capsys.readouterr().err.splitlines() if "dev_loss" in line]
    assert lines[0].startswith("step 3  ") and "train_loss" in lines[-1]

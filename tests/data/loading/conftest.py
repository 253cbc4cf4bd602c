"""A manifest of levels instead of speech, and data modules, loaders and training runs over it."""

import csv
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.model.processing import padded_states

LABELS = ["negative", "neutral", "positive"]


AUGMENT: dict[str, dict[str, Any]] = {
    "speed": {"factors": [0.8, 1.25], "p": 0.5},
    "noise": {"snr_db": [0, 10], "p": 1},
}


class StandInProcessor:
    """What the data module asks of a processor, with a token for each word."""

    labels = LABELS

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def tokenizer(self, texts: list[str]) -> dict[str, list[list[int]]]:
        return {"input_ids": [[len(word) for word in text.split()] for text in texts]}

    def __call__(self, **inputs: Any) -> dict[str, torch.Tensor]:
        self.calls.append(inputs)
        assert inputs.pop("sampling_rate") == 16000 and inputs.pop("return_tensors") == "pt"
        sentiment = inputs.pop("sentiment")
        tensors = {"sentiment_labels": [-100 if name is None else LABELS.index(name) for name in sentiment]}
        batch = {name: torch.tensor(values) for name, values in tensors.items()}
        names = {"audio": "input_values", "text": "input_ids", "rationale": "labels"}
        if states := inputs.pop("audio_features", None):
            batch |= padded_states(states)
        for name, values in inputs.items():
            if name != "audio":
                values = self.tokenizer([value or "" for value in values])["input_ids"]
            rows = [torch.as_tensor([] if value is None else value, dtype=torch.float) for value in values]
            batch[names[name]] = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return batch


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """48 rows of 8 speakers: a level for each row, so that a waveform tells its row."""
    rng = np.random.default_rng(0)
    rows = []
    for row in range(48):
        name = f"{row}.wav"
        soundfile.write(tmp_path / name, np.full(rng.integers(1600, 8000), (row + 1) / 100), 16000)
        rows.append(
            {
                "id": f"u{row}",
                "audio": name,
                "text": " ".join(["word"] * rng.integers(1, 9)),
                "asr_text": "heard this",
                "label": LABELS[row % 3],
                "rationale": "because of the voice",
                "speaker": f"s{row % 8:02d}",
                "split": ("train", "train", "dev", "test")[row % 4],
            }
        )
    return write(tmp_path / "m.csv", rows)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def _change(path: Path, edit: Callable[[int, dict[str, str]], None]) -> Path:
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        edit(number, row)
    return write(path, rows)


def _module(path: Path, **options: Any) -> MmsrDataModule:
    data = MmsrDataModule(str(path), **{"batch_seconds": 2.0, **options})
    data.attach(StandInProcessor())  # type: ignore[arg-type]
    return data


def _rows_of(batch: dict[str, torch.Tensor]) -> list[int]:
    return [round(float(level) * 100) - 1 for level in batch["input_values"][:, 0]]


class RowProcessor(StandInProcessor):
    """Says which row is which by its transcript, since augmentation changes the waveforms."""

    def __call__(self, **inputs: Any) -> dict[str, torch.Tensor]:
        rows = [int(text.split()[0]) for text in inputs["text"]]
        return {**super().__call__(**inputs), "row": torch.tensor(rows)}


@pytest.fixture
def numbered(manifest: Path) -> Path:
    """The manifest, each transcript beginning with the row's number."""
    return _change(manifest, lambda number, row: row.update(text=f"{number} word"))


def _augmented(path: Path, **options: Any) -> MmsrDataModule:
    pytest.importorskip(
        "torchaudio", reason="augmentation computes with torchaudio: pip install 'mmsr[audio]'"
    )
    data = MmsrDataModule(str(path), **{"batch_seconds": 2.0, "augment": AUGMENT, **options})
    data.attach(RowProcessor())  # type: ignore[arg-type]
    return data


class Recorder(LightningModule):
    """Writes down the rows of every training batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.steps: list[tuple[int, list[int]]] = []

    def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
        self.steps.append((self.current_epoch, _rows_of(batch)))
        return self.weight.sum()

    def validation_step(self, batch: dict[str, torch.Tensor], index: int) -> None:
        assert _rows_of(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _fit(path: Path, folder: Path, *, workers: int, resume: Path | None = None, **options: Any) -> Recorder:
    recorder = Recorder()
    checkpoints = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        callbacks=[checkpoints],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    data = _module(path, num_workers=workers, **options)
    trainer.fit(recorder, datamodule=data, ckpt_path=resume, weights_only=True)
    return recorder


def _streamed(data: MmsrDataModule, batches: int) -> list[list[int]]:
    return [_rows_of(batch) for batch in itertools.islice(data.train_dataloader(), batches)]


@pytest.fixture(scope="session")
def change() -> Callable[..., Any]:
    return _change


@pytest.fixture(scope="session")
def module() -> Callable[..., Any]:
    return _module


@pytest.fixture(scope="session")
def rows_of() -> Callable[..., Any]:
    return _rows_of


@pytest.fixture(scope="session")
def augmented() -> Callable[..., Any]:
    return _augmented


@pytest.fixture(scope="session")
def fit() -> Callable[..., Any]:
    return _fit


@pytest.fixture(scope="session")
def streamed() -> Callable[..., Any]:
    return _streamed


@pytest.fixture
def processor() -> StandInProcessor:
    return StandInProcessor()

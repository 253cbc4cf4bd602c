"""A killed run ends where it would have ended: byte for byte, wherever and however it goes on."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mmsr.training.checkpoints import BestCheckpoint
from mmsr.training.monitor import LAST_EPOCH

EPOCHS = 2
SETTINGS = {
    "model.preset": "tiny",
    "model.vocab_size": "600",
    "model.fusion": "text_only",
    "data.batch_rows": "6",
    "trainer.max_epochs": str(EPOCHS),
    "trainer.precision": "32-true",
    "trainer.enable_progress_bar": "false",
}
# At this rate no answer changes, so that the first epoch stays the best.
FIRST = (
    "--model.learning_rate",
    "1e-6",
    "--monitor",
    "dev_accuracy",
    "--early_stopping.monitor",
    "dev_accuracy",
)
WITHIN = ("--trainer.val_check_interval", "2")


def arguments(manifest: Path, folder: Path, *more: str) -> list[str]:
    given = {**SETTINGS, "data.manifest": str(manifest), "trainer.default_root_dir": str(folder)}
    return [word for name, value in given.items() for word in (f"--{name}", value)] + list(more)


def left(folder: Path) -> dict[str, bytes]:
    """What a run leaves: weights, metrics of each epoch, table of metrics."""
    files = ("model/model.safetensors", "history.json", "logs/metrics.csv")
    return {name: (folder / name).read_bytes() for name in files}


class Runs:
    """Runs on the demo corpus; unbroken ones are kept."""

    def __init__(self, manifest: Path, folder: Path, fit_in_process: Any) -> None:
        self.manifest, self.folder, self.fit = manifest, folder, fit_in_process
        self.unbroken: dict[tuple[str, ...], dict[str, bytes]] = {}

    def run(self, folder: Path, *more: str, kill: int | None = None) -> int:
        log = folder.with_suffix(".log")
        code = self.fit(arguments(self.manifest, folder, *more), log=log, kill=kill)
        assert code != 1, log.read_text()
        return code

    def whole(self, *more: str) -> dict[str, bytes]:
        """What the run leaves if nothing interrupts it."""
        if more not in self.unbroken:
            folder = self.folder / f"whole{len(self.unbroken)}"
            assert self.run(folder, *more) == 0
            self.unbroken[more] = left(folder)
        return self.unbroken[more]

    def broken(
        self, *more: str, kill: int, moved: bool = False, then: tuple[str, ...] = ()
    ) -> dict[str, bytes]:
        """What it leaves if it is killed after some batches and goes on, maybe elsewhere."""
        folder, other = self.folder / "broken", self.folder / "copy" / "of it"
        for old in (folder, other):
            shutil.rmtree(old, ignore_errors=True)
        assert self.run(folder, *more, kill=kill) == 9
        if moved:
            shutil.copytree(folder, other)
            shutil.rmtree(folder)
            folder = other
        assert self.run(folder, *more, *then) == 0
        assert not kill > 7 or "resumed from" in folder.with_suffix(".log").read_text()
        return left(folder)


@pytest.fixture(scope="module")
def runs(demo_corpus, tmp_path_factory, fit_in_process) -> Runs:
    return Runs(demo_corpus, tmp_path_factory.mktemp("runs"), fit_in_process)


def test_the_last_epoch_is_gone_on_with_long_after_the_best(runs):
    more = (*FIRST, "--trainer.max_epochs", "4")
    whole = runs.whole(*more)
    assert len({row["dev_accuracy"] for row in json.loads(whole["history.json"])}) == 1
    folder = runs.folder / "late"
    assert runs.run(folder, *more, kill=23) == 9
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=False)["epoch"] == 2
    assert runs.run(folder, *more) == 0
    assert left(folder) == whole


def test_a_moved_run_with_other_workers_goes_on_within_an_epoch_and_an_accumulation(runs):
    more = (*WITHIN, "--trainer.accumulate_grad_batches", "3")
    workers = ("--data.num_workers", "2")
    assert runs.broken(*more, kill=5, moved=True, then=workers) == runs.whole(*more)


def test_workers_change_nothing(runs):
    assert runs.whole("--data.num_workers", "2", *WITHIN) == runs.whole(*WITHIN)


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(
    max_examples=10,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    kill=st.integers(1, 7 * EPOCHS),
    workers=st.sampled_from([0, 2]),
    moved=st.booleans(),
    accumulated=st.sampled_from([1, 2, 3]),
    within=st.booleans(),
)
@example(kill=7, workers=2, moved=True, accumulated=2, within=True)
@example(kill=9, workers=2, moved=True, accumulated=1, within=False)
def test_killed_is_unbroken(runs, kill, workers, moved, accumulated, within):
    more = ("--trainer.accumulate_grad_batches", str(accumulated), *(WITHIN if within else ()))
    found = runs.broken(*more, "--data.num_workers", str(workers), kill=kill, moved=moved)
    assert found == runs.whole(*more), "as without workers and without the kill"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "more",
    [
        ("--model.ema_decay", "0.9"),
        ("--model.uncertainty_weighting", "true"),
        ("--model.gradual_unfreezing", "{text_encoder: 1}", "--model.rationale_format", "none"),
        ("--model.fusion", "concat", "--data.augment", "{noise: {p: 1.0}, gain: {p: 1.0}}"),
        ("--model.fusion", "concat", "--model.objectives", "{auxiliary_heads: 0.3, ogm_ge: {alpha: 0.3}}"),
        ("--trainer.check_val_every_n_epoch", "2", "--trainer.max_epochs", "3"),
    ],
    ids=["average", "variances", "unfreezing", "augmentation", "ogm_ge", "every-second-epoch"],
)
def test_what_else_a_run_keeps_goes_on(runs, more):
    many = more if "check_val_every_n_epoch" in more[0] else (*more, *WITHIN)
    whole = (*many, "--trainer.accumulate_grad_batches", "2")
    assert runs.broken(*whole, "--data.num_workers", "2", kill=13, moved=True) == runs.whole(*whole)


def test_early_stopping_counts_on_and_stays_stopped(runs):
    more = (*FIRST, "--trainer.max_epochs", "9", "--early_stopping.patience", "2")
    whole = runs.whole(*more)
    epochs = [row["epoch"] for row in json.loads(whole["history.json"])]
    assert epochs == [0, 1, 2], "two epochs that are not the best"
    assert runs.broken(*more, kill=16, moved=True) == whole
    folder = runs.folder / "copy" / "of it"
    shutil.rmtree(folder / "model")  # as if it had been killed before the model was written
    assert runs.run(folder, *more) == 0
    assert left(folder) == whole, "no further epoch"


def test_generators_of_numpy_and_python_go_on(demo_corpus, tmp_path, monkeypatch):
    """transformers draws the masks of wav2vec2 and Whisper from numpy's generator, which no epoch seeds."""
    import random

    import numpy as np
    from lightning.pytorch.callbacks import Callback

    from mmsr.training.run import MmsrCLI, fit

    drawn: list[tuple[float, float]] = []
    whole = MmsrCLI.instantiate_trainer

    class Draw(Callback):
        def on_train_batch_end(self, trainer, *_):
            drawn.append((np.random.rand(), random.random()))
            if ends and len(drawn) == 9:
                raise SystemExit("killed")

    def watched(self, **kwargs):
        trainer = whole(self, **kwargs)
        trainer.callbacks.append(Draw())
        return trainer

    monkeypatch.setattr(MmsrCLI, "instantiate_trainer", watched)
    ends = False
    fit(arguments(demo_corpus, tmp_path / "whole"))
    expected, drawn[:], ends = list(drawn), [], True
    with pytest.raises(SystemExit):
        fit(arguments(demo_corpus, tmp_path / "broken"))
    ends, drawn[:] = False, []
    fit(arguments(demo_corpus, tmp_path / "broken"))
    assert drawn == expected[7:]


def best(
    folder: Path, *, monitor: str = "dev_loss", **metrics: float
) -> tuple[BestCheckpoint, Any, list[str]]:
    """A callback, a trainer after an epoch with these metrics, and what the trainer has saved."""
    saved: list[str] = []
    callback = BestCheckpoint(folder, monitor=monitor, mode="min")
    trainer: Any = SimpleNamespace(
        callback_metrics={name: torch.tensor(value) for name, value in metrics.items()},
        fast_dev_run=False,
        state=SimpleNamespace(fn="fit"),
        sanity_checking=False,
        global_step=3,
        current_epoch=0,
        check_val_every_n_epoch=1,
        val_check_interval=1.0,
        num_val_batches=[2],
        is_global_zero=True,
        loggers=[],
        save_checkpoint=lambda path, weights_only=None: saved.append(path),
        strategy=SimpleNamespace(reduce_boolean_decision=lambda value, all=True: value),
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(val_loop=SimpleNamespace(_has_run=True))),
    )
    return callback, trainer, saved


@pytest.mark.parametrize("metrics", [{}, {"dev_loss": float("nan")}], ids=["missing", "nan"])
def test_an_epoch_without_a_value_is_never_the_best(tmp_path, metrics):
    callback, trainer, saved = best(tmp_path, **metrics)
    callback.on_train_epoch_end(trainer, None)
    assert saved == [] and callback.best_model_path == ""
    callback, trainer, saved = best(tmp_path, dev_loss=1.0)
    callback.on_train_epoch_end(trainer, None)
    assert len(saved) == 1 and callback.best_model_path == str(tmp_path.resolve() / "best.ckpt")


def test_the_last_epoch_is_kept_where_that_is_asked_for(tmp_path):
    callback, trainer, saved = best(tmp_path, monitor=LAST_EPOCH, dev_loss=1.0)
    for dev_loss in (1.0, 2.0, float("nan")):
        trainer.callback_metrics = {"dev_loss": torch.tensor(dev_loss)}
        trainer.current_epoch += 1
        trainer.global_step += 1
        callback.on_train_epoch_end(trainer, None)
    assert len(saved) == 3 and callback.best_model_path == str(tmp_path.resolve() / "best.ckpt")


def test_a_run_without_any_best_epoch_keeps_the_last_one(demo_corpus, tmp_path, capsys):
    """It never validates."""
    from mmsr.training.run import fit

    never = ["--trainer.check_val_every_n_epoch", str(EPOCHS + 1)]
    model = fit(arguments(demo_corpus, tmp_path / "run", *never))
    assert "dev_loss had no value in any epoch: the model is the last epoch's" in capsys.readouterr().err
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=False)
    assert last["epoch"] == EPOCHS - 1 and (model / "model.safetensors").is_file()


def test_a_copy_without_the_best_epoch_is_refused(runs):
    folder = runs.folder / "partly"
    assert runs.run(folder, kill=9) == 9
    (folder / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(
        AssertionError, match=r"best.ckpt is missing, the best epoch of the run that .*last.ckpt"
    ):
        runs.run(folder)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_trainer_of_transformers_goes_on_too(make_model, tmp_path, accumulated):
    """`resume_from_checkpoint`, with dropout, in the middle of an epoch."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    generator = torch.Generator().manual_seed(1)
    rows = [
        {
            "input_ids": torch.randint(8, 256, (7,), generator=generator),
            "attention_mask": torch.ones(7, dtype=torch.long),
            "sentiment_labels": torch.tensor(i % 2),
            "labels": torch.tensor([5 + i % 2, 20, 30 + i, 2]),
        }
        for i in range(12)
    ]

    class Kill(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if state.global_step == 4:
                raise SystemExit("killed")

    def train(folder: Path, *, resume: bool = False, kill: bool = False) -> dict[str, torch.Tensor]:
        trainer = Trainer(
            model=make_model(fusion="text_only", dropout=0.2),
            args=TrainingArguments(
                str(folder),
                per_device_train_batch_size=2,
                gradient_accumulation_steps=accumulated,
                max_steps=6,
                save_steps=2,
                learning_rate=1e-2,
                report_to=[],
                use_cpu=True,
                disable_tqdm=True,
            ),
            train_dataset=rows,
            data_collator=lambda part: {name: torch.stack([row[name] for row in part]) for name in part[0]},
            callbacks=[Kill()] if kill else [],
        )
        trainer.train(resume_from_checkpoint=resume)
        return trainer.model.state_dict()

    whole = train(tmp_path / "whole")
    with pytest.raises(SystemExit):
        train(tmp_path / "broken", kill=True)
    for name, value in train(tmp_path / "broken", resume=True).items():
        assert torch.equal(value, whole[name]), name

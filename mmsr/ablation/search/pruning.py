"""The end of trials that fall behind, and the journal that all processes of a search share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import lightning as L
import optuna
from lightning.pytorch.callbacks import Callback
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial

STUDY = "search"
JOURNAL = "journal.log"
TRIALS = "trials"  # the folder of the trials' folders

_MAKERS = {"median": optuna.pruners.MedianPruner}


def open_study(
    out: Path, *, pruner: str | None = None, direction: Literal["maximize", "minimize"] | None = None
) -> optuna.Study:
    """The study of a search's folder, whose journal all its processes may write.

    Args:
        out: The folder.
        pruner: One of `spec.PRUNERS`.
        direction: `maximize` or `minimize`, to make the study where there is none.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    made = _MAKERS[pruner]() if pruner is not None else optuna.pruners.NopPruner()
    storage = JournalStorage(JournalFileBackend(str(out / JOURNAL)))
    if direction is None:
        return optuna.load_study(study_name=STUDY, storage=storage, pruner=made)
    return optuna.create_study(
        study_name=STUDY, storage=storage, pruner=made, direction=direction, load_if_exists=True
    )


def trial_of(study: optuna.Study, number: int) -> Trial:
    """A trial of a study that is not finished, to continue it."""
    return Trial(study, study.trials[number]._trial_id)


class Pruning(Callback):
    """Reports each epoch's value to the search, and ends a trial that the pruner gives up.

    Its run lies in OUT/trials/NUMBER. An epoch's files are written before its trial ends.

    Args:
        metric: The reported value.
        pruner: One of `spec.PRUNERS`.
    """

    def __init__(self, metric: str, pruner: str) -> None:
        self.metric, self.pruner = metric, pruner
        self._pruned_at: int | None = None
        self._trial: Trial | None = None

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the value."""
        value = float(trainer.callback_metrics.get(self.metric, math.nan))
        if trainer.sanity_checking or not trainer.is_global_zero or not math.isfinite(value):
            return
        if self._trial is None:
            folder = Path(trainer.default_root_dir)
            study = open_study(folder.parent.parent, pruner=self.pruner)
            self._trial = trial_of(study, int(folder.name))
        self._trial.report(value, trainer.current_epoch)
        if self._trial.should_prune():
            self._pruned_at = trainer.current_epoch

    def on_train_epoch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """End the run.

        Raises:
            TrialPruned: The pruner gave the trial up after the epoch before.
        """
        if self._pruned_at is not None:
            raise optuna.TrialPruned(f"after epoch {self._pruned_at + 1}")

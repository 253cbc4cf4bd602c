"""The metrics of a run as a table, `logs/metrics.csv`."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from mmsr.files import atomic_write


class MetricsLogger(CSVLogger):
    """A CSVLogger that adds to the file of an interrupted run, which Lightning's would delete.

    Each row is written when it is logged.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder, name="logs", version="", flush_logs_every_n_steps=1)
        self.rows = 0
        """Number of rows that this run has logged."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer of the file."""
        if self._experiment is None:
            self._experiment = _Writer(self.log_dir)
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write a row."""
        super().log_metrics(dict(metrics), step)
        self.rows += 1

    def resume(self, rows: int | None, *, step: int, epoch_end: Mapping[str, float]) -> None:
        """Cut the file to the rows that a checkpoint knows of.

        Args:
            rows: Their number; None if the checkpoint does not tell it.
            step: Number of optimizer steps, which then tells it.
            epoch_end: The row that follows them if the checkpoint ends an epoch; it is logged just after the
                checkpoint, and so is written here if the run was killed in between.
        """
        path = Path(self.experiment.metrics_file_path)
        if not path.is_file():
            return
        with path.open(encoding="utf-8", newline="") as file:
            table: list[dict[str, Any]] = list(csv.DictReader(file))
        if rows is None:
            rows = sum(int(row["step"]) < step for row in table)
        kept, later = table[:rows], table[rows : rows + 1]
        if epoch_end:
            is_there = later and all(later[0].get(name) for name in epoch_end)
            kept.append(later[0] if is_there else dict(epoch_end))
        self.experiment.metrics_keys = sorted({name for row in kept for name in row})
        with atomic_write(path) as half, half.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self.experiment.metrics_keys)
            writer.writeheader()
            writer.writerows(kept)
        self.rows = len(kept)


class _Writer(ExperimentWriter):
    """Lightning's writer, without its deletion of the earlier rows."""

    def _check_log_dir_exists(self) -> None:
        pass

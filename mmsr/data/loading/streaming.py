"""Batches of a manifest that is read row by row, for data that fit neither memory nor disk.

    rows ─► this process's share ─► windows ─► batches under the budget, shuffled in the window

A stream has no end: after the last row it starts again, in another order, so training is measured in steps.
Rows are shuffled only within a window, so shards should be shuffled when they are written.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from mmsr.data.audio.decoding import Audio, AudioError
from mmsr.data.loading.batching import BudgetBatchSampler, check_processes
from mmsr.data.loading.utterances import Collator, LoadedUtterance, UtteranceDataset
from mmsr.data.manifest.manifest import DURATION, Row


class StreamedBatches(IterableDataset[dict[str, Any]]):
    """Batches without end.

    Processes (ranks and their workers) take turns at the rows: a pass has each row in one batch of one
    process.

    Args:
        rows: Starts a pass over the rows.
        utterances: Makes a dataset of a window's rows; its `seconds` and `tokens` are set here.
        tokens: Counts the tokens of each row's transcript.
        collate: Makes a batch of utterances.
        window: Number of rows that are shuffled and batched together.
        max_seconds: Most audio seconds of a batch, rows × the longest row.
        max_tokens: Most tokens of a batch, rows × the longest row.
        max_rows: Most rows of a batch; None for no limit beyond the budgets.
        seed: Seed of the shuffling.
        rank: This process among `world_size`.
        world_size: Number of processes that share the rows.
    """

    def __init__(
        self,
        rows: Callable[[], Iterator[Row]],
        *,
        utterances: Callable[[Sequence[Row]], UtteranceDataset],
        tokens: Callable[[Sequence[Row]], np.ndarray],
        collate: Collator,
        window: int,
        max_seconds: float,
        max_tokens: int,
        max_rows: int | None,
        seed: int,
        rank: int,
        world_size: int,
    ):
        self.rows, self.utterances, self.tokens, self.collate = rows, utterances, tokens, collate
        self.window = window
        self.budget = {"max_seconds": max_seconds, "max_tokens": max_tokens, "max_rows": max_rows}
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.start = 0  # batches to skip, over all workers of this rank

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """This worker's batches, after its share of `start`."""
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        number = (number + self.start) % workers  # workers yield batches in turn
        skipped = -(-(self.start - number) // workers) if self.start > number else 0
        share = self.rank * workers + number
        for batch in itertools.islice(self._batches(share, self.world_size * workers), skipped, None):
            yield self.collate(batch())

    def state_dict(self, *, given: int | None = None) -> dict[str, Any]:
        """The state after `given` batches of this rank."""
        return {"given": self.start if given is None else given, "world_size": self.world_size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a state: the rows of the batches before it are read again, and skipped.

        Raises:
            ValueError: It is of another number of processes.
        """
        check_processes(state, self.world_size)
        self.start = state["given"]

    def _batches(self, share: int, shares: int) -> Iterator[Callable[[], list[LoadedUtterance]]]:
        """A process's batches, as functions that decode them."""
        for epoch in itertools.count():
            mine = itertools.islice(self.rows(), share, None, shares)
            given = 0
            while window := list(itertools.islice(mine, self.window)):
                dataset = self.utterances(window)
                dataset.seconds, dataset.tokens = _seconds(window), self.tokens(window)
                if dataset.augmentations is not None:
                    dataset.seconds = dataset.augmentations.longest(dataset.seconds)
                sampler = BudgetBatchSampler(
                    dataset.seconds,
                    dataset.tokens,
                    shuffle=True,
                    # each window of each process has its own order
                    seed=int(np.random.SeedSequence([self.seed, epoch, share, given]).generate_state(1)[0]),
                    **self.budget,  # type: ignore[arg-type]
                )
                for indices in sampler:
                    yield functools.partial(_read, dataset, epoch, indices)
                given += len(window)
            if not given:
                raise ValueError(
                    f"the stream has no row for process {share} of {shares}; accepted: as many training rows "
                    "as processes and their workers"
                )


def _read(dataset: UtteranceDataset, epoch: int, rows: Sequence[int]) -> list[LoadedUtterance]:
    return [dataset[epoch, row, 0] for row in rows]


def _seconds(rows: Sequence[Row]) -> np.ndarray:
    """Duration `[n]` of each row's audio, from the row or the file's header; 0 without audio."""

    def seconds(row: Row) -> float:
        try:
            return 0.0 if row["audio"] is None else row.get(DURATION) or Audio.duration(row["audio"])
        except AudioError as error:
            raise AudioError(f"row with id {row['id']!r}, column audio: {error}") from error

    return np.array([seconds(row) for row in rows])

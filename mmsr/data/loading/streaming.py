"""Batches of a manifest that is read row by row, for data that fit neither memory nor disk.

    rows as they come ─► this process's share ─► windows ─► batches under the budget, shuffled in the window

A stream has no end: after the last row it begins again, in another order inside its windows, so training on
it is measured in steps. Rows are shuffled within a window alone, so shards should be shuffled when they are
written.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mmsr.data.audio.decoding import Audio, AudioError
from mmsr.data.loading.batching import BudgetBatchSampler
from mmsr.data.loading.utterances import Collator, LoadedUtterance, UtteranceDataset
from mmsr.data.manifest.manifest import DURATION, Row


class StreamedBatches(IterableDataset[dict[str, Any]]):
    """Batches without end.

    Processes (ranks and their workers) take turns at the rows, so each row of a pass is in one batch of one
    of them.

    Args:
        rows: Begins a pass over the rows.
        utterances: Makes a window's rows a dataset; its `seconds` and `tokens` are set here.
        tokens: Counts the tokens of each row's transcript.
        collate: Makes a batch of utterances.
        window: Rows that are shuffled and put into batches together; each holds its audio if the table does.
        max_seconds: Most audio seconds of a batch, rows × the longest row.
        max_tokens: Most tokens of a batch, rows × the longest row.
        max_rows: Most rows of a batch; None for no limit beyond the budgets.
        seed: Seed of the shuffling.
        rank: This process among `world_size`.
        world_size: How many processes share the rows.
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
        self.start = 0  # batches that were given before, by all workers of this rank

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """This worker's batches, from its share of `start` on."""
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        number = (number + self.start) % workers  # workers hand out batches in turn
        skipped = -(-(self.start - number) // workers) if self.start > number else 0
        share = self.rank * workers + number
        for batch in itertools.islice(self._batches(share, self.world_size * workers), skipped, None):
            yield self.collate(batch())

    def _batches(self, share: int, shares: int) -> Iterator[Callable[[], list[LoadedUtterance]]]:
        """One process's batches, whose audio is decoded when they are called."""
        for epoch in itertools.count():
            mine = itertools.islice(self.rows(), share, None, shares)
            given = 0
            while window := list(itertools.islice(mine, self.window)):
                dataset = self.utterances(window)
                stretch = 1.0 if dataset.augmentations is None else dataset.augmentations.stretch
                dataset.seconds, dataset.tokens = _seconds(window) * stretch, self.tokens(window)
                sampler = BudgetBatchSampler(
                    dataset.seconds,
                    dataset.tokens,
                    shuffle=True,
                    # each window of each process has an order of its own
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


class StreamLoader(DataLoader[Any]):
    """A DataLoader over `StreamedBatches` that can be saved and resumed: it reads up to where it was."""

    dataset: StreamedBatches

    def __init__(self, batches: StreamedBatches, **options: Any):
        super().__init__(batches, batch_size=None, **options)
        self._used = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self._used = self.dataset.start
        for batch in super().__iter__():
            self._used += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """How many batches were handed out."""
        return {"given": self._used}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume after these."""
        self.dataset.start = state["given"]


def _read(dataset: UtteranceDataset, epoch: int, rows: Sequence[int]) -> list[LoadedUtterance]:
    return [dataset[epoch, row, 0] for row in rows]


def _seconds(rows: Sequence[Row]) -> np.ndarray:
    """Length `[n]` of each row's audio: as its row says, or from its header; 0 without audio."""

    def seconds(row: Row) -> float:
        try:
            return 0.0 if row["audio"] is None else row.get(DURATION) or Audio.duration(row["audio"])
        except AudioError as error:
            raise AudioError(f"row with id {row['id']!r}, column audio: {error}") from error

    return np.array([seconds(row) for row in rows])

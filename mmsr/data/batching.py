"""Batches that hold a budget of padded audio seconds and of padded tokens.

    lengths ─► cost of a row ─► buckets of rows of like cost ─► batches ─► one for each rank ─► this rank's

A row's cost is the share of a batch's budget that it takes, the larger of its seconds' and its tokens' share,
so `floor(1 / cost)` rows whose most costly one costs `cost` fit together, however they are padded. A bucket
is a run of rows sorted by cost that fills some batches; each epoch shuffles the rows inside their buckets,
moves the buckets' borders, and shuffles the batches.

Lightning measures an epoch once, before the first one, so every epoch has to have the same number of batches,
and every rank as many as the others. Where a batch is missing for that, the fullest one is cut in two: no row
is left out, and none is given twice but where all batches are single rows already.
"""

import hashlib
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Sampler

logger = logging.getLogger(__name__)

# A bucket holds this many batches, unless its rows' costs fall below this share of its most costly one.
_BUCKET = 8
_LIKENESS = 0.8
# How many batches the first bucket holds: this is what moves the borders of all the others.
_OFFSETS = (2, 4, 6, 8)


class BudgetBatchSampler(Sampler[list[int]]):
    """Batches of row indices under a budget of padded seconds and padded tokens.

    Shuffled, the order depends on `(seed, epoch)` alone; unshuffled, batches come from the cheapest to the
    most costly row. A row that exceeds the budget by itself is a batch by itself; their number is logged.
    Over ranks, the batches of one step are disjoint and alike in cost, and all ranks have equally many.

    Under DDP, train with `Trainer(use_distributed_sampler=False)`: the ranks are dealt out here.

    Args:
        seconds: Audio seconds of each row; 0 without audio.
        tokens: Tokens of each row; 0 without text.
        max_seconds: Most audio seconds of a batch, rows × the longest row.
        max_tokens: Most tokens of a batch, rows × the longest row.
        max_rows: Most rows of a batch; None for no limit beyond the budgets.
        shuffle: Whether to shuffle.
        seed: Seed of the shuffling.
        rank: This process among `world_size`.
        world_size: How many processes share the rows.

    Raises:
        ValueError: The lengths disagree or are negative, a limit is not positive, or ranks outnumber rows.
    """

    def __init__(
        self,
        seconds: Sequence[float] | np.ndarray,
        tokens: Sequence[int] | np.ndarray,
        *,
        max_seconds: float,
        max_tokens: int,
        max_rows: int | None = None,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ):
        limits = {"max_seconds": max_seconds, "max_tokens": max_tokens, "max_rows": max_rows}
        for name, limit in limits.items():
            if limit is not None and limit <= 0:
                raise ValueError(f"{name} is {limit}; accepted: a positive number")
        if len(seconds) != len(tokens):
            raise ValueError(f"seconds has {len(seconds)} rows and tokens {len(tokens)}; accepted: as many")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank} with world_size {world_size}; accepted: 0 to world_size - 1")
        if len(seconds) < world_size:
            raise ValueError(
                f"{len(seconds)} rows cannot feed {world_size} processes; accepted: a row for each"
            )
        self.max_rows = max_rows
        self.shuffle, self.seed, self.rank, self.world_size = shuffle, seed, rank, world_size
        self.epoch = 0
        self.start = 0  # batch that the next iteration begins with
        self._given = 0

        shares = np.stack([np.asarray(seconds) / max_seconds, np.asarray(tokens) / max_tokens])
        if not (shares >= 0).all():  # NaN is not
            raise ValueError("seconds or tokens hold a negative or NaN length; accepted: 0 and more")
        self._cost = shares.max(axis=0)
        self._costly_first = np.argsort(-self._cost, kind="stable")
        self._plans = [self._plan(offset, _BUCKET) for offset in _OFFSETS] if shuffle else [self._plan(1, 1)]
        most = max(sum(math.ceil(len(rows) / size) for rows, size in plan) for plan in self._plans)
        self._count = math.ceil(most / world_size) * world_size
        self._log_exceptions(max_seconds, max_tokens)

    @property
    def sampler(self) -> "BudgetBatchSampler":
        """Itself: Lightning calls `set_epoch` on a batch sampler's `sampler`, not on the batch sampler."""
        return self

    def __len__(self) -> int:
        """Number of batches that this rank has in each epoch, however many of them are given already."""
        return self._count // self.world_size

    def __iter__(self) -> Iterator[list[int]]:
        """The epoch's batches from `start` on; a later iteration begins with the first one again."""
        start, self.start = self.start, 0
        for given, batch in enumerate(self._batches()[start:], start=start + 1):
            self._given = given
            yield batch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; if it is not the present one, the next iteration begins with its first batch."""
        if epoch != self.epoch:
            self.epoch, self.start, self._given = epoch, 0, 0

    def state_dict(self, *, given: int | None = None) -> dict[str, Any]:
        """What `load_state_dict` needs to go on after the batches given so far.

        Args:
            given: Batches of this epoch that were used, where a prefetching loader knows better.
        """
        epoch, given = self.epoch, self._given if given is None else given
        if given >= len(self):
            epoch, given = epoch + 1, 0
        return {"epoch": epoch, "given": given, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            ValueError: It was taken in the middle of an epoch over other data, limits, seed or ranks.
        """
        for name, now in self._identity().items():
            if state["given"] and state[name] != now:
                raise ValueError(
                    f"the checkpoint stands in the middle of an epoch with {name} {state[name]}, and {name}"
                    f" is {now} now; accepted: the data and settings that it was made with, or a fresh start"
                )
        self.epoch, self.start, self._given = state["epoch"], state["given"], state["given"]

    def _identity(self) -> dict[str, Any]:
        """What the order of the batches depends on, but for the epoch."""
        costs = hashlib.sha256(self._cost.tobytes()).hexdigest()[:16]
        return {"seed": self.seed, "costs": costs, "batches": self._count, "world_size": self.world_size}

    def _rows_that_fit(self, cost: float) -> int:
        most = len(self._cost) if self.max_rows is None else self.max_rows
        return max(1, min(most, int(1 / cost + 1e-9))) if cost else most

    def _plan(self, first: int, later: int) -> list[tuple[np.ndarray, int]]:
        """Buckets, most costly first: their rows and how many of these make a batch.

        Args:
            first: How many batches the first bucket holds.
            later: How many batches each later bucket holds.
        """
        cost = self._cost[self._costly_first]
        buckets = []
        start, wanted = 0, first
        while start < len(cost):
            size = self._rows_that_fit(cost[start])
            alike = int(np.searchsorted(-cost, -_LIKENESS * cost[start], side="right")) - start
            span = max(size, min(wanted * size, alike // size * size))
            buckets.append((self._costly_first[start : start + span], size))
            start, wanted = start + span, later
        return buckets

    def _batches(self) -> list[list[int]]:
        """This rank's batches of this epoch."""
        rng = np.random.default_rng([self.seed, self.epoch])
        plan = self._plans[rng.integers(len(self._plans))]
        batches = []
        for rows, size in plan:
            rows = rng.permutation(rows) if self.shuffle else rows
            batches += [rows[start : start + size] for start in range(0, len(rows), size)]
        self._make_up(batches)
        batches.sort(key=lambda batch: self._cost[batch].max())
        steps = [batches[start : start + self.world_size] for start in range(0, self._count, self.world_size)]
        if self.shuffle:
            rng.shuffle(steps)
            steps = [[step[place] for place in rng.permutation(self.world_size)] for step in steps]
        return [step[self.rank].tolist() for step in steps]

    def _make_up(self, batches: list[np.ndarray]) -> None:
        """Cut batches in two, and then repeat cheap rows, until there are as many as in every other epoch."""
        while len(batches) < min(self._count, len(self._cost)):
            fullest = max(range(len(batches)), key=lambda place: len(batches[place]))
            batch = batches.pop(fullest)
            batches += [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
        batches += [self._costly_first[-1 - place :][:1] for place in range(self._count - len(batches))]

    def _log_exceptions(self, max_seconds: float, max_tokens: int) -> None:
        rows = len(self._cost)
        if oversize := int((self._cost > 1).sum()):
            logger.warning(
                "%d of %d rows exceed the batch budget of %g s and %d tokens by themselves: each is a batch",
                *(oversize, rows, max_seconds, max_tokens),
            )
        if self._count > rows:
            repeated, ranks = self._count - rows, self.world_size
            logger.warning("%d of %d rows are given twice, to make %d ranks equal", repeated, rows, ranks)


class ResumableLoader(DataLoader[Any]):
    """A DataLoader over a `BudgetBatchSampler` that can be saved in the middle of an epoch and gone on with.

    Lightning saves and restores every loader that has a state. A batch counts as used once it is handed out;
    those that workers have prefetched do not.
    """

    batch_sampler: BudgetBatchSampler

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a generator, so that workers start late
        self._used = self.batch_sampler.start
        for batch in super().__iter__():
            self._used += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """The sampler's state after the batches handed out so far."""
        return self.batch_sampler.state_dict(given=getattr(self, "_used", None))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batches that were handed out when the state was taken."""
        self.batch_sampler.load_state_dict(state)

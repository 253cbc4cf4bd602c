"""Batches that hold a budget of padded audio seconds and of padded tokens.

    lengths ─► cost of a row ─► buckets of rows of like cost ─► batches ─► one for each rank ─► this rank's

A row's cost is its share of a batch's budget: the larger of its shares of seconds and of tokens. So
`floor(1 / cost)` rows that cost at most `cost` fit in a batch with their padding. A bucket is a run of rows
sorted by cost that fills some batches. Each epoch shuffles the rows in their buckets, moves the borders of
the buckets, and shuffles the batches.

Lightning measures the length of an epoch once, so every epoch and every rank must have the same number of
batches. If one is missing, the fullest batch is cut in two: no row is left out, and none is repeated unless
all batches are single rows already.

A balanced epoch is made of *slots*, one for each row that a group (a label, a language) gives. A group with
more slots than rows repeats rows. In a group with fewer, a slot is a run of rows of similar cost, and takes
another of them each epoch. The plan uses the most costly row of each slot, so all epochs have the same number
of batches.
"""

import hashlib
import itertools
import logging
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from mmsr.data.audio.decoding import AudioError
from mmsr.records import (
    ATTENTION_MASK,
    AUDIO_FEATURES_MASK,
    INPUT_VALUES_MASK,
    LABELS,
    SENTIMENT_LABELS,
    WINDOW,
)

logger = logging.getLogger(__name__)

_BUCKET = 8  # batches in a bucket, unless ...
_LIKENESS = 0.8  # ... the costs of its rows fall below this share of the highest one
_OFFSETS = (2, 4, 6, 8)  # batches in the first bucket, by epoch, which moves all later borders


class Balance(NamedTuple):
    """Groups of rows, and the share of an epoch that each has.

    Attributes:
        groups: Group number of each row `[n]`.
        shares: Share of each group `[g]`; they sum to 1.
    """

    groups: np.ndarray
    shares: np.ndarray

    @classmethod
    def equal(cls, values: Sequence[Hashable]) -> "Balance":
        """Equal shares for all values that occur."""
        _, groups = _coded(values)
        return cls(groups, np.full(groups.max() + 1, 1 / (groups.max() + 1)))

    @classmethod
    def tempered(
        cls, languages: Sequence[Hashable], *, temperature: float, within: Sequence[Hashable] | None = None
    ) -> "Balance":
        """Shares of languages proportional to n^(1/T), n being the language's rows.

        The form is that of Arivazhagan et al. 2019 (arXiv 1907.05019), with T = 5; multilingual BERT uses the
        exponent 0.7 (T = 1.43) and XLM-R (Conneau et al. 2020, arXiv 1911.02116) 0.3 (T = 3.3). They draw
        with replacement; here each epoch has every row of a language that is oversampled.

        Args:
            languages: Language of each row.
            temperature: T; 1 keeps the languages' own shares, and a greater T makes them more equal.
            within: A second value of each row, such as its label, whose values have equal shares in a
                language.
        """
        _, of_row = _coded(languages)
        shares = np.bincount(of_row) ** (1 / temperature)
        shares /= shares.sum()
        if within is None:
            return cls(of_row, shares)
        names, of_name = _coded(within)
        pairs, groups = np.unique(of_row * len(names) + of_name, return_inverse=True)
        language = pairs // len(names)
        return cls(groups, shares[language] / np.bincount(language)[language])


def _coded(values: Sequence[Hashable]) -> tuple[list[Hashable], np.ndarray]:
    """The distinct values in order of occurrence, and the number of each row's value."""
    codes: dict[Hashable, int] = {}
    numbers = np.fromiter((codes.setdefault(value, len(codes)) for value in values), dtype=np.int64)
    return list(codes), numbers


class _Slots(NamedTuple):
    """The slots of an epoch: each is a run of `pool`, and an epoch takes one of its rows.

    Attributes:
        pool: Row numbers, by group and then by cost, lowest first.
        first: Start of each slot's run in the pool `[n]`.
        size: Number of rows of the run `[n]`.
        phase: 0/m, 1/m ... for the m slots of a row, which keeps them apart; else 0 `[n]`.
    """

    pool: np.ndarray
    first: np.ndarray
    size: np.ndarray
    phase: np.ndarray

    @classmethod
    def plain(cls, rows: int) -> "_Slots":
        """Each row is a slot."""
        each = np.arange(rows)
        return cls(each, each, np.ones(rows, dtype=np.int64), np.zeros(rows))

    @classmethod
    def balanced(cls, cost: np.ndarray, balance: Balance) -> "_Slots":
        """As many slots as rows, divided among the groups."""
        pool = np.lexsort((cost, balance.groups))
        held = np.bincount(balance.groups, minlength=len(balance.shares))
        parts = []
        begin = np.cumsum(held) - held
        for start, rows, wanted in zip(begin, held, _whole(balance.shares * len(cost)), strict=True):
            copies, rest = divmod(int(wanted), int(rows))
            borders = np.arange(rest + 1) * rows // max(rest, 1)
            parts.append(
                (
                    start + np.concatenate([np.tile(np.arange(rows), copies), borders[:-1]]),
                    np.concatenate([np.ones(copies * rows, dtype=np.int64), np.diff(borders)]),
                    np.concatenate([np.repeat(np.arange(copies) / max(copies, 1), rows), np.zeros(rest)]),
                )
            )
        first, size, phase = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return cls(pool, first, size, phase)

    def most_costly(self) -> np.ndarray:
        """The most costly row that each slot can give `[n]`."""
        return self.pool[self.first + self.size - 1]

    def rows(self, *, seed: int, epoch: int) -> np.ndarray:
        """The row of each slot in an epoch `[n]`; the rows of a run take turns."""
        start = np.random.default_rng(seed).integers(self.size)
        return self.pool[self.first + (start + epoch) % self.size]


def _whole(shares: np.ndarray) -> np.ndarray:
    """Round to integers, at least 1, that keep the sum (largest remainder)."""
    whole = np.floor(shares + 1e-9).astype(np.int64)
    missing = round(shares.sum()) - int(whole.sum())
    whole[np.argsort(whole - shares, kind="stable")[:missing]] += 1
    return np.maximum(whole, 1)


def _times_before(rows: np.ndarray) -> np.ndarray:
    """Number of earlier occurrences of each row `[n]`."""
    order = np.argsort(rows, kind="stable")
    alike = rows[order]
    times = np.empty_like(order)
    times[order] = np.arange(len(rows)) - np.searchsorted(alike, alike)
    return times


class _Plan(NamedTuple):
    """Buckets and batches of the slots, most costly first.

    Attributes:
        buckets: Number of slots of each bucket.
        starts: First slot of each batch.
    """

    buckets: np.ndarray
    starts: np.ndarray


class BudgetBatchSampler(Sampler[list[int]]):
    """Batches of row indices under a budget of padded seconds and padded tokens.

    If shuffled, the batches depend on `(seed, epoch)` alone; otherwise they are sorted by cost, lowest first.
    A row that exceeds the budget is a batch by itself; the number of these is logged. The batches of a step
    have similar cost on all ranks.

    Under DDP, train with `Trainer(use_distributed_sampler=False)`: this sampler divides the batches.

    Args:
        seconds: Audio seconds of each row; 0 without audio.
        tokens: Tokens of each row; 0 without text.
        max_seconds: Most audio seconds of a batch, rows × the longest row.
        max_tokens: Most tokens of a batch, rows × the longest row.
        max_rows: Most rows of a batch; None for no limit beyond the budgets.
        shuffle: Whether to shuffle.
        seed: Seed of the shuffling.
        balance: Groups of rows and their shares of an epoch, which keeps its length. None takes each row
            once.
        rank: This process among `world_size`.
        world_size: Number of processes that share the rows.

    Raises:
        ValueError: The lengths differ or are negative, a limit is not positive, or ranks outnumber rows.
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
        balance: Balance | None = None,
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
        cost = shares.max(axis=0)
        self._slots = _Slots.plain(len(cost)) if balance is None else _Slots.balanced(cost, balance)
        self._cost = cost[self._slots.most_costly()]  # of each slot
        self._costly_first = np.argsort(-self._cost, kind="stable")
        plans = [self._plan(offset, _BUCKET) for offset in _OFFSETS] if shuffle else [self._plan(1, 1)]
        self._count = math.ceil(max(len(plan.starts) for plan in plans) / world_size) * world_size
        self._plans = [self._made_up(plan) for plan in plans]
        self._log_exceptions(cost, max_seconds, max_tokens)

    @property
    def sampler(self) -> "BudgetBatchSampler":
        """Itself, since Lightning calls `set_epoch` on a batch sampler's `sampler`."""
        return self

    def __len__(self) -> int:
        """Number of batches of this rank in each epoch."""
        return self._count // self.world_size

    def __iter__(self) -> Iterator[list[int]]:
        """The epoch's batches from `start` on; the next iteration starts with the first one."""
        rows = self._slots.rows(seed=self.seed, epoch=self.epoch)
        for slots in self._given_slots():
            yield rows[slots].tolist()

    def _given_slots(self) -> Iterator[np.ndarray]:
        """The slots of each batch, counted as given."""
        start, self.start = self.start, 0
        slots, starts, ends = self._batches()
        for batch in range(start, len(self)):
            self._given = batch + 1
            yield slots[starts[batch] : ends[batch]]

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; the next iteration of another epoch starts with its first batch."""
        if epoch != self.epoch:
            self.epoch, self.start, self._given = epoch, 0, 0

    def state_dict(self, *, given: int | None = None) -> dict[str, Any]:
        """The state after the batches given so far.

        Args:
            given: Number of batches of this epoch that were used, if a loader has prefetched more.
        """
        epoch, given = self.epoch, self._given if given is None else given
        if given >= len(self):
            epoch, given = epoch + 1, 0
        return {"epoch": epoch, "given": given, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a state.

        Raises:
            ValueError: It is of another number of processes, or from the middle of an epoch with other data,
                limits or seed.
        """
        check_processes(state, self.world_size)
        for name, now in self._identity().items():
            if state["given"] and state[name] != now:
                raise ValueError(
                    f"the checkpoint stands in the middle of an epoch with {name} {state[name]}, and {name}"
                    f" is {now} now; accepted: the data and settings that it was made with, or a fresh start"
                )
        self.epoch, self.start, self._given = state["epoch"], state["given"], state["given"]

    def _identity(self) -> dict[str, Any]:
        """Everything but the epoch that the order of the batches depends on."""
        slots = hashlib.sha256()
        for column in self._slots:
            slots.update(np.ascontiguousarray(column).data)
        costs = hashlib.sha256(self._cost.tobytes()).hexdigest()[:16]
        drawn = {"costs": costs, "draws": slots.hexdigest()[:16]}
        return {"seed": self.seed, **drawn, "batches": self._count, "world_size": self.world_size}

    def _rows_that_fit(self, cost: float) -> int:
        most = len(self._cost) if self.max_rows is None else self.max_rows
        return max(1, min(most, int(1 / cost + 1e-9))) if cost else most

    def _plan(self, first: int, later: int) -> _Plan:
        """Plan with `first` batches in the first bucket and `later` batches in the others."""
        cost = self._cost[self._costly_first]
        falling = -cost
        spans, starts = [], []
        start, wanted = 0, first
        while start < len(cost):
            size = self._rows_that_fit(cost[start])
            alike = int(np.searchsorted(falling, _LIKENESS * falling[start], side="right")) - start
            end = min(start + max(size, min(wanted * size, alike // size * size)), len(cost))
            spans.append(end - start)
            starts.append(np.arange(start, end, size))
            start, wanted = end, later
        return _Plan(np.array(spans), np.concatenate(starts))

    def _made_up(self, plan: _Plan) -> _Plan:
        """Cut batches in two, then repeat cheap slots, up to the number of batches of every epoch."""
        starts, slots = plan.starts, len(self._cost)
        while (missing := min(self._count, slots) - len(starts)) > 0:
            lengths = np.diff(starts, append=slots)
            fullest = np.argsort(-lengths, kind="stable")[: min(missing, int((lengths > 1).sum()))]
            starts = np.sort(np.concatenate([starts, starts[fullest] + lengths[fullest] // 2]))
        return plan._replace(starts=np.concatenate([starts, np.arange(slots, slots + self._repeated)]))

    @property
    def _repeated(self) -> int:
        """Number of slots that are repeated, to make ranks equal."""
        return max(0, self._count - len(self._cost))

    def _batches(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """This epoch's slots, and the starts and ends of this rank's batches in them."""
        rng = np.random.default_rng([self.seed, self.epoch])
        plan = self._plans[rng.integers(len(self._plans))]
        order = self._costly_first
        if self.shuffle:
            bucket = np.repeat(np.arange(len(plan.buckets)), plan.buckets)
            place = rng.random(len(self._slots.pool))[self._slots.first] + self._slots.phase
            order = order[np.argsort(bucket + place[order] % 1, kind="stable")]
        order = np.concatenate([order, order[len(order) - self._repeated :]])
        cost = np.maximum.reduceat(self._cost[order], plan.starts)
        steps = np.argsort(cost, kind="stable").reshape(-1, self.world_size)
        if self.shuffle:
            steps = rng.permuted(steps[rng.permutation(len(steps))], axis=1)
        mine = steps[:, self.rank]
        return order, plan.starts[mine], np.append(plan.starts[1:], len(order))[mine]

    def _log_exceptions(self, cost: np.ndarray, max_seconds: float, max_tokens: int) -> None:
        rows = len(cost)
        if oversize := int((cost > 1).sum()):
            logger.warning(
                "%d of %d rows exceed the batch budget of %g s and %d tokens by themselves: each is a batch",
                *(oversize, rows, max_seconds, max_tokens),
            )
        if self._repeated:
            ranks = self.world_size
            logger.warning(
                "%d of %d rows are given twice, to make %d ranks equal", self._repeated, rows, ranks
            )


class EpochBatchSampler(BudgetBatchSampler):
    """Gives each row as (epoch, row, draw), the seed of its augmentation.

    The draws of a row that `balance` repeats in an epoch are 0, 1 ..., so that its copies differ. The epoch
    comes with the row, since persistent workers keep the dataset as it was when they started.
    """

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:  # type: ignore[override]  # as the dataset
        """The epoch's batches of (epoch, row, draw)."""
        epoch = self.epoch
        rows = self._slots.rows(seed=self.seed, epoch=epoch)
        draws = _times_before(rows)
        for slots in self._given_slots():
            drawn = zip(rows[slots].tolist(), draws[slots].tolist(), strict=True)
            yield [(epoch, row, draw) for row, draw in drawn]


def outline(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """What is known of a batch's targets: labels, and which rows have which modality, `[b, 1]` each."""
    kept = {name: batch[name] for name in (SENTIMENT_LABELS, LABELS) if name in batch}
    for name in (INPUT_VALUES_MASK, AUDIO_FEATURES_MASK, ATTENTION_MASK):
        if name in batch:
            kept[name] = batch[name].any(-1, keepdim=True).long()
    return kept


def check_processes(state: Mapping[str, Any], world_size: int) -> None:
    """Refuse the state of a sampler of another number of processes, whose epochs have other steps.

    Raises:
        ValueError: The numbers differ.
    """
    before = state.get("world_size", world_size)
    if before != world_size:
        raise ValueError(
            f"the checkpoint is of {before} processes, and there are {world_size} now, so that steps and "
            f"learning rates would change; accepted: --trainer.devices for {before} processes, or another "
            "--trainer.default_root_dir"
        )


class SeededLoader(DataLoader[Any]):
    """A DataLoader that takes one number from torch's generator a pass, whatever the number of its workers.

    A plain one takes a number whenever it makes an iterator: in each pass without workers, and once with
    persistent ones. What is drawn after it, such as dropout, would depend on the workers, and on whether a
    run was resumed.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a generator, so that workers start late
        self.generator = torch.Generator()  # the one that workers are seeded from
        self.generator.manual_seed(int(torch.empty((), dtype=torch.int64).random_()))
        yield from super().__iter__()


class ResumableLoader(SeededLoader):
    """A loader that can be saved and resumed in the middle of an epoch, as Lightning does.

    The state is that of its `BudgetBatchSampler`, or of its `StreamedBatches`. A batch counts once the loader
    has yielded it, not when a worker has prefetched it.

    With `step_size`, the batches of an optimiser step are read together, and the first of them has their
    outlines as `WINDOW`, so that the step's targets are known before its first backward pass.
    """

    step_size: Callable[[int], int | None] | None = None
    """From the number of a batch in the epoch to the number of batches from it to the optimiser's step; None
    without accumulation."""

    @property
    def source(self) -> Any:
        """What the batches come from: the batch sampler, or a dataset that makes batches itself."""
        return self.dataset if self.batch_sampler is None else self.batch_sampler

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a generator, as that of its base
        self._used = self.source.start
        batches = super().__iter__()
        while True:
            size = None if self.step_size is None else self.step_size(self._used)
            try:
                step = list(itertools.islice(batches, size or 1))
            except AudioError as error:
                if not self.num_workers:
                    raise
                # torch puts the worker's traceback into the message, which ends with the error's own
                message = str(error).rstrip().rpartition("\n")[2]
                prefix = f"{type(error).__module__}.{type(error).__qualname__}: "
                raise AudioError(message.removeprefix(prefix), code=error.code) from None
            if not step:
                return
            if size is not None:
                step[0][WINDOW] = [outline(batch) for batch in step]
            for batch in step:
                self._used += 1
                yield batch

    def state_dict(self) -> dict[str, Any]:
        """The state after the batches yielded so far."""
        return self.source.state_dict(given=getattr(self, "_used", None))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume after the batches that had been yielded."""
        self.source.load_state_dict(state)

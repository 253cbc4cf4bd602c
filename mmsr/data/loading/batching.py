"""Batches that hold a budget of padded audio seconds and of padded tokens.

    lengths ─► cost of a row ─► buckets of rows of like cost ─► batches ─► one for each rank ─► this rank's

A row's cost is the share of a batch's budget that it takes, the larger of its seconds' and its tokens' share,
so `floor(1 / cost)` rows whose most costly one costs `cost` fit together, however they are padded. A bucket
is a run of rows sorted by cost that fills some batches; each epoch shuffles the rows inside their buckets,
moves the buckets' borders, and shuffles the batches.

Lightning measures an epoch once, before the first one, so every epoch must have the same number of batches,
and every rank as many as the others. Where a batch is missing for that, the fullest one is cut in two: no row
is left out, and none is given twice unless all batches are single rows already.

Balanced, an epoch is made of *slots*, one for each row that a group (a label, a language) is to give. A group
that gives more than it has gives all its rows and then some; the others are drawn from runs of rows of like
cost, one row a run, another one each epoch. So a slot's most costly row, by which the batches are planned,
is known beforehand, and every epoch has the same number of batches here too.

All of it is a few integers a row, and a batch becomes a list when it is given.
"""

import hashlib
import logging
import math
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import DataLoader, Sampler

logger = logging.getLogger(__name__)

# A bucket holds this many batches, unless its rows' costs fall below this share of its most costly one.
_BUCKET = 8
_LIKENESS = 0.8
# How many batches the first bucket holds: this is what moves the borders of all the others.
_OFFSETS = (2, 4, 6, 8)


class Balance(NamedTuple):
    """Which group each row is in, and which share of an epoch each group has.

    Attributes:
        groups: Group number of each row `[n]`.
        shares: Share of the epoch's rows of each group `[g]`; they sum to 1.
    """

    groups: np.ndarray
    shares: np.ndarray

    @classmethod
    def equal(cls, values: Sequence[Hashable]) -> "Balance":
        """Every value that occurs has the same share."""
        _, groups = _coded(values)
        return cls(groups, np.full(groups.max() + 1, 1 / (groups.max() + 1)))

    @classmethod
    def tempered(
        cls, languages: Sequence[Hashable], *, temperature: float, within: Sequence[Hashable] | None = None
    ) -> "Balance":
        """Language l has a share proportional to n_l^(1/T).

        The form is that of Arivazhagan et al. 2019 (arXiv 1907.05019), whose T is 5; multilingual BERT
        samples with the exponent 0.7 (T = 1.43) and XLM-R (Conneau et al. 2020, arXiv 1911.02116) with 0.3
        (T = 3.3). They draw with replacement; here every row of a language that is drawn up is in each epoch.

        Args:
            languages: Language of each row.
            temperature: T, 1 for the languages as they are; the greater, the more alike.
            within: A second value of each row, such as its label: those that occur in a language share its
                rows equally.
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
    """The values that occur, in the order of their first rows, and the number of each row's."""
    codes: dict[Hashable, int] = {}
    numbers = np.fromiter((codes.setdefault(value, len(codes)) for value in values), dtype=np.int64)
    return list(codes), numbers


class _Slots(NamedTuple):
    """What an epoch is made of: each slot is a run of `pool`, of whose rows an epoch takes one.

    Attributes:
        pool: Row numbers, by group and then from the cheapest to the most costly one.
        first: Where in the pool a slot's run begins `[n]`.
        size: How many rows the run has `[n]`.
        phase: A row's m slots have 0/m, 1/m ..., so that they can be kept apart; other slots have 0 `[n]`.
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
        """As many slots as there are rows, shared out among the groups."""
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
        """The row that each slot gives in an epoch `[n]`; a run's rows take turns."""
        start = np.random.default_rng(seed).integers(self.size)
        return self.pool[self.first + (start + epoch) % self.size]


def _whole(shares: np.ndarray) -> np.ndarray:
    """Round shares to whole numbers, at least 1, that keep their sum (largest remainders first)."""
    whole = np.floor(shares + 1e-9).astype(np.int64)
    missing = round(shares.sum()) - int(whole.sum())
    whole[np.argsort(whole - shares, kind="stable")[:missing]] += 1
    return np.maximum(whole, 1)


def _times_before(rows: np.ndarray) -> np.ndarray:
    """How often each row was there before its place `[n]`."""
    order = np.argsort(rows, kind="stable")
    alike = rows[order]
    times = np.empty_like(order)
    times[order] = np.arange(len(rows)) - np.searchsorted(alike, alike)
    return times


class _Plan(NamedTuple):
    """How the slots, most costly first, fall into buckets and batches.

    Attributes:
        buckets: How many slots each bucket has.
        starts: The first slot of each batch.
    """

    buckets: np.ndarray
    starts: np.ndarray


class BudgetBatchSampler(Sampler[list[int]]):
    """Batches of row indices under a budget of padded seconds and padded tokens.

    Shuffled, the order (and what is drawn) depends on `(seed, epoch)` alone; unshuffled, batches come from
    the cheapest to the most costly row. A row that exceeds the budget by itself is a batch by itself; their
    number is logged. Over ranks, the batches of one step are disjoint and alike in cost, and all ranks have
    equally many.

    Under DDP, train with `Trainer(use_distributed_sampler=False)`: the ranks are dealt out here.

    Args:
        seconds: Audio seconds of each row; 0 without audio.
        tokens: Tokens of each row; 0 without text.
        max_seconds: Most audio seconds of a batch, rows × the longest row.
        max_tokens: Most tokens of a batch, rows × the longest row.
        max_rows: Most rows of a batch; None for no limit beyond the budgets.
        shuffle: Whether to shuffle.
        seed: Seed of the shuffling.
        balance: Groups of rows and their shares of each epoch, which has as many rows as there are. A group
            whose share is more than its rows gives each of them, some again; one whose share is less gives
            other rows each epoch, all of them in the fewest epochs that can. None for each row once.
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
        """Itself: Lightning calls `set_epoch` on a batch sampler's `sampler`, not on the batch sampler."""
        return self

    def __len__(self) -> int:
        """Number of batches that this rank has in each epoch, however many of them are given already."""
        return self._count // self.world_size

    def __iter__(self) -> Iterator[list[int]]:
        """The epoch's batches from `start` on; a later iteration begins with the first one again."""
        rows = self._slots.rows(seed=self.seed, epoch=self.epoch)
        for slots in self._given_slots():
            yield rows[slots].tolist()

    def _given_slots(self) -> Iterator[np.ndarray]:
        """The slots of each batch, which counts as given."""
        start, self.start = self.start, 0
        slots, starts, ends = self._batches()
        for batch in range(start, len(self)):
            self._given = batch + 1
            yield slots[starts[batch] : ends[batch]]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; if it is not the present one, the next iteration begins with its first batch."""
        if epoch != self.epoch:
            self.epoch, self.start, self._given = epoch, 0, 0

    def state_dict(self, *, given: int | None = None) -> dict[str, Any]:
        """What `load_state_dict` needs to resume after the batches given so far.

        Args:
            given: Batches of this epoch that were used, where a prefetching loader knows better.
        """
        epoch, given = self.epoch, self._given if given is None else given
        if given >= len(self):
            epoch, given = epoch + 1, 0
        return {"epoch": epoch, "given": given, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume where `state_dict` was taken.

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
        """Buckets and batches of the slots, most costly first.

        Args:
            first: How many batches the first bucket holds.
            later: How many batches each later bucket holds.
        """
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
        """Cut batches in two, then repeat cheap slots, until there are as many as in every other epoch."""
        starts, slots = plan.starts, len(self._cost)
        while (missing := min(self._count, slots) - len(starts)) > 0:
            lengths = np.diff(starts, append=slots)
            fullest = np.argsort(-lengths, kind="stable")[: min(missing, int((lengths > 1).sum()))]
            starts = np.sort(np.concatenate([starts, starts[fullest] + lengths[fullest] // 2]))
        return plan._replace(starts=np.concatenate([starts, np.arange(slots, slots + self._repeated)]))

    @property
    def _repeated(self) -> int:
        """How many slots are given twice, to make ranks equal."""
        return max(0, self._count - len(self._cost))

    def _batches(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """This epoch's slots, and where in them each of this rank's batches begins and ends."""
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
    """Gives each row with what its augmentation is drawn from: the epoch, and the row's draw in it.

    A row that an epoch gives several times (`balance`) has the draws 0, 1 ...; with one its copies would be
    alike.

    Persistent workers keep the dataset as it was when they started, so the epoch has to come with the rows.
    """

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:  # type: ignore[override]  # as the dataset
        """The epoch's batches of (epoch, row, draw)."""
        epoch = self.epoch
        rows = self._slots.rows(seed=self.seed, epoch=epoch)
        draws = _times_before(rows)
        for slots in self._given_slots():
            drawn = zip(rows[slots].tolist(), draws[slots].tolist(), strict=True)
            yield [(epoch, row, draw) for row, draw in drawn]


class ResumableLoader(DataLoader[Any]):
    """A DataLoader over a `BudgetBatchSampler` that can be saved and resumed in the middle of an epoch.

    Lightning saves and restores every loader that has a state. A batch counts as used once it is handed out,
    not when a worker has prefetched it.
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
        """Resume after the batches that were handed out when the state was taken."""
        self.batch_sampler.load_state_dict(state)

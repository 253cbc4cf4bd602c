import logging
import time
import tracemalloc
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from mmsr.data.loading.batching import Balance, BudgetBatchSampler, ResumableLoader
from mmsr.records import WINDOW

ROWS = 336


def lengths(rows: int = ROWS) -> tuple[list[float], list[int]]:
    """Lengths as speech has them; some rows have no audio, some no text."""
    rng = np.random.default_rng(7)
    seconds = np.where(rng.random(rows) < 0.1, 0, np.clip(rng.lognormal(1, 0.5, rows), 0.3, 12))
    tokens = np.where(rng.random(rows) < 0.1, 0, rng.integers(3, 90, rows))
    return seconds.tolist(), tokens.tolist()


def sampler(rows: int = ROWS, **changes: Any) -> BudgetBatchSampler:
    options: dict[str, Any] = {"max_seconds": 24.0, "max_tokens": 400, "shuffle": True, "seed": 3}
    return BudgetBatchSampler(*lengths(rows), **{**options, **changes})


def epoch(of: BudgetBatchSampler, number: int) -> list[list[int]]:
    of.set_epoch(number)
    return list(of)


def flat(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("max_rows", [None, 1, 5])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_each_row_once_within_the_budget_and_as_many_batches_as_said(
    shuffle: bool, max_rows: int | None, world_size: int
):
    seconds, tokens = lengths()
    ranks = [
        sampler(shuffle=shuffle, max_rows=max_rows, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    for number in range(6):
        shares = [epoch(rank, number) for rank in ranks]
        assert {len(share) for share in shares} == {len(rank) for rank in ranks} == {len(ranks[0])}
        batches = sum(shares, [])
        assert sorted(flat(batches)) == list(range(ROWS))
        for batch in batches:
            assert len(batch) <= (max_rows or ROWS)
            assert len(batch) * max(seconds[row] for row in batch) <= 24.0 + 1e-6
            assert len(batch) * max(tokens[row] for row in batch) <= 400


def test_little_is_padding():
    seconds = np.clip(np.random.default_rng(0).lognormal(1, 0.35, 2000), 0.5, 20)
    for shuffle, best in ((True, 0.93), (False, 0.98)):
        batches = list(
            BudgetBatchSampler(
                seconds.tolist(), [0] * 2000, max_seconds=48, max_tokens=1, shuffle=shuffle, seed=0
            )
        )
        padded = sum(len(batch) * seconds[batch].max() for batch in batches)
        assert seconds.sum() / padded > best
        assert len(batches) < 1.15 * seconds.sum() / 48


def test_order_is_that_of_seed_and_epoch():
    first = epoch(sampler(), 4)
    assert epoch(sampler(), 4) == first
    assert epoch(sampler(), 5) != first
    assert epoch(sampler(seed=4), 4) != first
    again = sampler()
    list(again)
    assert epoch(again, 4) == first == list(again)


def test_rows_meet_others_in_other_epochs():
    of = sampler()
    together = [
        {frozenset((a, b)) for batch in epoch(of, number) for a in batch for b in batch if a < b}
        for number in range(2)
    ]
    assert len(together[0] & together[1]) < 0.4 * len(together[0])
    costs = [[of._cost[batch].max() for batch in epoch(of, number)] for number in range(2)]
    assert costs[0] != sorted(costs[0]) and costs[0] != costs[1]


def test_unshuffled_batches_go_from_short_to_long_and_never_change():
    of = sampler(shuffle=False)
    first = epoch(of, 0)
    longest = [max(of._cost[batch]) for batch in first]
    assert longest == sorted(longest)
    assert epoch(of, 1) == first == epoch(sampler(shuffle=False, seed=9), 0)


def test_the_batches_of_one_step_are_alike_over_ranks():
    ranks = [sampler(rank=rank, world_size=2) for rank in range(2)]
    of = ranks[0]
    pairs = [[of._cost[batch].max() for batch in step] for step in zip(*ranks, strict=True)]
    assert np.mean([abs(one - other) for one, other in pairs]) < 0.03


def test_rows_beyond_the_budget_are_alone_and_counted(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        of = BudgetBatchSampler(
            [30, 1, 50, 1], [5, 5, 5, 500], max_seconds=10, max_tokens=100, shuffle=False, seed=0
        )
        batches = list(of)
        list(of)
    assert batches == [[1], [0], [2], [3]]
    assert [record.getMessage() for record in caplog.records] == [
        "3 of 4 rows exceed the batch budget of 10 s and 100 tokens by themselves: each is a batch"
    ]


def test_rows_are_repeated_only_where_single_rows_cannot_be_dealt_out(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        shares = [list(sampler(5, max_rows=1, rank=rank, world_size=2)) for rank in range(2)]
    assert [len(share) for share in shares] == [3, 3]
    rows = flat(sum(shares, []))
    assert set(rows) == set(range(5)) and len(rows) == 6
    assert "1 of 5 rows are given twice, to make 2 ranks equal" in caplog.text


def test_rows_without_length_share_one_batch():
    assert len(BudgetBatchSampler([0] * 9, [0] * 9, max_seconds=1, max_tokens=1, shuffle=True, seed=0)) == 1


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"max_seconds": 0}, "max_seconds is 0; accepted: a positive number"),
        ({"max_tokens": -1}, "max_tokens is -1; accepted"),
        ({"max_rows": 0}, "max_rows is 0; accepted"),
        ({"rank": 2, "world_size": 2}, "rank is 2 with world_size 2; accepted: 0 to world_size - 1"),
        ({"world_size": 500}, "336 rows cannot feed 500 processes; accepted: a row for each"),
    ],
)
def test_bad_arguments_are_named(changes: dict[str, Any], text: str):
    with pytest.raises(ValueError, match=text):
        sampler(**changes)


def test_bad_lengths_are_named():
    options: dict[str, Any] = {"max_seconds": 1, "max_tokens": 1, "shuffle": True, "seed": 0}
    with pytest.raises(ValueError, match="seconds has 1 rows and tokens 2; accepted: as many"):
        BudgetBatchSampler([1], [1, 2], **options)
    with pytest.raises(ValueError, match="seconds or tokens hold a negative or NaN length"):
        BudgetBatchSampler([float("nan")], [1], **options)


def test_going_on_in_the_middle_gives_the_rest():
    whole = epoch(sampler(), 2)
    of = sampler()
    of.set_epoch(2)
    given = iter(of)
    used = [next(given) for _ in range(7)]
    state = of.state_dict()

    other = sampler()
    other.load_state_dict(state)
    assert len(other) == len(whole)
    other.set_epoch(2)  # what Lightning does before the epoch goes on
    assert used + list(other) == whole
    assert list(other) == whole  # the next pass is whole again
    other.load_state_dict(state)
    assert epoch(other, 3) == epoch(sampler(), 3)  # another epoch starts from its beginning


def test_a_finished_epoch_goes_on_with_the_next():
    of = sampler()
    list(of)
    other = sampler()
    other.load_state_dict(of.state_dict())
    assert other.epoch == 1
    assert list(other) == epoch(sampler(), 1)


def test_a_state_of_other_data_is_refused_in_the_middle_alone():
    of = sampler()
    next(iter(of))
    with pytest.raises(
        ValueError, match="middle of an epoch with seed 3, and seed is 4 now; accepted: the data"
    ):
        sampler(seed=4).load_state_dict(of.state_dict())
    with pytest.raises(ValueError, match="middle of an epoch with costs"):
        sampler(100).load_state_dict(of.state_dict())
    list(of)
    sampler(100).load_state_dict(of.state_dict())


# 12 rows of 336 are "rare", 84 "some"; a fifth of each in another language
LABELS = ["rare" if row % 28 == 0 else "some" if row % 4 == 1 else "many" for row in range(ROWS)]
LANGUAGES = ["vi" if row % 5 else "de" for row in range(ROWS)]


def balanced(**changes: Any) -> BudgetBatchSampler:
    return sampler(balance=Balance.equal(LABELS), **changes)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("max_rows", [None, 1, 7])
def test_balanced_epochs_are_equally_long_within_the_budget_and_give_labels_equally(
    world_size: int, max_rows: int | None
):
    seconds, tokens = lengths()
    ranks = [balanced(rank=rank, world_size=world_size, max_rows=max_rows) for rank in range(world_size)]
    seen: set[int] = set()
    for number in range(6):
        shares = [epoch(rank, number) for rank in ranks]
        assert {len(share) for share in shares} == {len(rank) for rank in ranks} == {len(ranks[0])}
        batches = sum(shares, [])
        for batch in batches:
            assert len(batch) <= (max_rows or ROWS)
            assert len(batch) * max(seconds[row] for row in batch) <= 24.0 + 1e-6
            assert len(batch) * max(tokens[row] for row in batch) <= 400
        times = Counter(flat(batches))
        assert Counter(LABELS[row] for row in times.elements()) == {"rare": 112, "some": 112, "many": 112}
        for label, least, most in (("rare", 9, 10), ("some", 1, 2), ("many", 0, 1)):
            counts = {times[row] for row in range(ROWS) if LABELS[row] == label}
            assert counts == {least, most}, label
        seen |= set(times)
    assert seen == set(range(ROWS)), "240 frequent rows, 112 an epoch: all within three"


def test_a_row_given_again_is_another_one_each_epoch_and_rarely_meets_itself():
    twice = [
        {
            row
            for row, times in Counter(flat(epoch(balanced(), number))).items()
            if LABELS[row] == "some" and times > 1
        }
        for number in range(2)
    ]
    assert len(twice[0]) == len(twice[1]) == 112 - 84 and not twice[0] & twice[1]
    of = sampler(
        2000, balance=Balance.equal([row % 10 == 0 for row in range(2000)])
    )  # 200 rows, each 5 times

    def met() -> int:
        return sum(len(batch) - len(set(batch)) for batch in epoch(of, 1))

    kept_apart = met()
    of._slots = of._slots._replace(phase=0 * of._slots.phase)
    assert kept_apart < 0.5 * met()


def test_balanced_order_is_that_of_seed_and_epoch_and_goes_on_in_the_middle():
    whole = epoch(balanced(), 2)
    assert epoch(balanced(), 2) == whole
    assert epoch(balanced(), 3) != whole != epoch(balanced(seed=4), 2)
    of = balanced()
    of.set_epoch(2)
    given = iter(of)
    used = [next(given) for _ in range(7)]
    other = balanced()
    other.load_state_dict(of.state_dict())
    assert used + list(other) == whole
    with pytest.raises(ValueError, match="middle of an epoch with costs .* and costs is"):
        sampler().load_state_dict(of.state_dict())
    flat_cost: dict[str, Any] = {"max_seconds": 1e6, "max_tokens": 10**9, "max_rows": 5}
    with pytest.raises(ValueError, match="middle of an epoch with"):
        sampler(**flat_cost).load_state_dict({**balanced(**flat_cost).state_dict(), "given": 3})


@pytest.mark.parametrize("temperature", [1.0, 2.0, 1e9])
def test_languages_have_shares_of_the_temperature(temperature: float):
    balance = Balance.tempered(LANGUAGES, temperature=temperature)
    of = sampler(balance=balance)
    found = Counter(LANGUAGES[row] for row in flat(epoch(of, 1)))
    held = Counter(LANGUAGES)
    powers = {name: count ** (1 / temperature) for name, count in held.items()}
    for name, count in found.items():
        assert abs(count - ROWS * powers[name] / sum(powers.values())) <= 1
    if temperature == 1:
        assert sorted(flat(epoch(of, 1))) == list(range(ROWS))
    within = sampler(balance=Balance.tempered(LANGUAGES, temperature=temperature, within=LABELS))
    rows = flat(epoch(within, 1))
    assert Counter(LANGUAGES[row] for row in rows) == pytest.approx(found, abs=3)
    labels = Counter((LANGUAGES[row], LABELS[row]) for row in rows)
    for name in held:
        counts = [labels[name, label] for label in ("rare", "some", "many")]
        assert max(counts) - min(counts) <= 1


def test_an_epoch_of_many_rows_is_given_batch_by_batch():
    rng = np.random.default_rng(0)
    seconds, tokens = np.clip(rng.lognormal(1, 0.6, 10**5), 0.3, 30), rng.integers(3, 90, 10**5)
    balance = Balance.equal(rng.integers(5, size=10**5).tolist())
    options: dict[str, Any] = {"max_seconds": 48, "max_tokens": 4096, "shuffle": True, "seed": 0}
    start = time.process_time()
    batches = iter(BudgetBatchSampler(seconds, tokens, balance=balance, **options))
    next(batches)
    assert time.process_time() - start < 1.5, ".1 to .3 s; with a copy of the rows for each bucket 4 s"
    tracemalloc.start()
    given = sum(len(batch) for batch in batches)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 99_900 < given < 100_000 and peak < 200_000, "100,000 numbers in lists would be 4 MB"


class Numbers(Dataset[int]):
    def __getitem__(self, index: int) -> int:
        return index


def collate(rows: list[int]) -> list[int]:
    return rows


def columns(rows: list[int]) -> dict[str, Any]:
    numbers = torch.tensor(rows)
    mask = (numbers % 2)[:, None].expand(-1, 4)
    return {"sentiment_labels": numbers, "attention_mask": mask, "input_values": torch.zeros(len(rows), 9)}


@pytest.mark.parametrize("balance", [None, Balance.equal(LABELS)], ids=["plain", "balanced"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_counts_what_was_used_not_what_was_fetched(workers: int, balance: Balance | None):
    def loader() -> ResumableLoader:
        of = sampler(balance=balance)
        return ResumableLoader(Numbers(), batch_sampler=of, collate_fn=collate, num_workers=workers)

    whole = list(loader())
    assert whole == list(sampler(balance=balance))
    of = loader()
    assert of.state_dict()["given"] == 0
    batches = iter(of)
    used = [next(batches) for _ in range(5)]
    state = of.state_dict()
    assert (state["epoch"], state["given"]) == (0, 5)
    other = loader()
    other.load_state_dict(state)
    assert used + list(other) == whole
    assert (other.state_dict()["epoch"], other.state_dict()["given"]) == (1, 0)
    assert list(other) == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_the_batches_of_a_step_are_outlined_in_its_first(workers: int):
    """Also of a step of which a resumed run has the rest alone."""

    def loader(start: int) -> ResumableLoader:
        of = ResumableLoader(Numbers(), batch_sampler=sampler(), collate_fn=columns, num_workers=workers)
        of.step_size = lambda batch: 3 - batch % 3
        of.source.start = start
        return of

    whole = list(loader(0))
    assert len(whole) > 7
    for start in (0, 4):
        batches = list(loader(start))
        assert [batch["sentiment_labels"].tolist() for batch in batches] == [
            batch["sentiment_labels"].tolist() for batch in whole[start:]
        ]
        for number, batch in enumerate(batches, start):
            assert (WINDOW in batch) == (number % 3 == 0 or number == start)
            for outlined, of in zip(batch.get(WINDOW, ()), whole[number : number + 3], strict=False):
                assert torch.equal(outlined["sentiment_labels"], of["sentiment_labels"])
                assert torch.equal(outlined["attention_mask"][:, 0] == 1, of["sentiment_labels"] % 2 == 1)
                assert outlined.keys() == {"sentiment_labels", "attention_mask"}
        assert len(batches[0][WINDOW]) == 3 - start % 3
    plain = loader(0)
    plain.step_size = lambda batch: None
    assert all(WINDOW not in batch for batch in plain)


def test_state_is_plain_data(tmp_path: Any):
    torch.save(sampler().state_dict(), tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True) == sampler().state_dict()

"""Batches of a stream: each row once a pass, shared by ranks, resumed where they were saved."""

import itertools
from pathlib import Path
from typing import Any

import pytest

TRAIN = [row for row in range(48) if row % 4 < 2]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_gives_each_training_row_once_a_pass_and_begins_again(
    manifest: Path, workers: int, module: Any, streamed: Any
):
    data = module(manifest, streaming=True, stream_window=5, num_workers=workers)
    once = [row for batch in streamed(data, 60) for row in batch]
    assert sorted(once[:24]) == TRAIN if workers == 0 else set(once) == set(TRAIN)
    if workers == 0:
        assert sorted(once[24:48]) == TRAIN and once[:24] != once[24:48]
        assert once[:24] != TRAIN, "windows are shuffled"
    assert streamed(data, 10) == streamed(data, 10)
    assert [len(batch["input_values"]) for batch in data.val_dataloader()]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_where_it_was_saved(
    manifest: Path, workers: int, module: Any, rows_of: Any, streamed: Any
):
    data = module(manifest, streaming=True, stream_window=5, num_workers=workers)
    whole = streamed(data, 12)
    loader: Any = data.train_dataloader()
    before = [rows_of(batch) for batch in itertools.islice(loader, 5)]
    later: Any = data.train_dataloader()
    later.load_state_dict(loader.state_dict())
    assert before + [rows_of(batch) for batch in itertools.islice(later, 7)] == whole


def test_ranks_share_a_stream(manifest: Path, module: Any, rows_of: Any):
    ranks = []
    for rank in (0, 1):
        data = module(manifest, streaming=True, stream_window=4)
        batches: Any = data.train_dataloader().dataset
        batches.rank, batches.world_size = rank, 2
        rows: list[int] = []
        for batch in batches:
            rows += rows_of(batch)
            if len(rows) >= 12:
                break
        ranks.append(rows[:12])
    assert sorted(ranks[0] + ranks[1]) == TRAIN

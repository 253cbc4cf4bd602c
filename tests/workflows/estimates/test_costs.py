"""Seconds of a whole from timed pieces: known costs are found again, and what is told of them."""

import json

import numpy as np
import pytest

from mmsr.workflows.estimates import costs
from mmsr.workflows.estimates.costs import Estimate, Measured, Part, constant, linear, spread_order, start_of


def pieces(cost, *, noise=0.0):
    """Twelve pieces of 1 to 12 rows and other seconds, of which processor time is half of the time."""
    generator = np.random.default_rng(0)
    found = []
    for rows in range(1, 13):
        sizes = (1.0, float(rows), float(generator.uniform(1, 50)))
        seconds = float(np.dot(cost, sizes)) * (1 + noise * float(generator.normal()))
        found.append(Measured(sizes=sizes, seconds=seconds, processor_seconds=seconds / 2))
    return found


def test_costs_are_found_again():
    part = linear("work", pieces((0.5, 0.1, 0.02)), (100, 1600, 9000), amount="100 batches")
    assert part.seconds == pytest.approx(50 + 160 + 180)
    assert part.processor_seconds == pytest.approx(part.seconds / 2)
    assert part.low == pytest.approx(part.seconds) and part.high == pytest.approx(part.seconds)
    noisy = linear("work", pieces((0.5, 0.1, 0.02), noise=0.05), (100, 1600, 9000), amount="")
    assert noisy.low < noisy.seconds < noisy.high
    assert noisy.seconds == pytest.approx(390, rel=0.1)


def test_no_cost_is_negative():
    falling = [Measured(sizes=(1.0, float(n)), seconds=10.0 - n, processor_seconds=1.0) for n in range(9)]
    assert linear("work", falling, (0, 100), amount="").seconds == 0
    with pytest.raises(ValueError, match="work: nothing could be timed; accepted: a longer --calibrate"):
        linear("work", [], (1, 1), amount="")


def test_few_pieces_tell_the_cost_of_few_sizes():
    few = pieces((0.5, 0.1, 0.02))[:4]
    part = linear("work", few, (100, 1600, 9000), amount="")
    assert part.seconds == pytest.approx(100 * np.mean([piece.seconds for piece in few]))


def test_each_beginning_of_an_order_covers_the_range():
    given = [3.0, 1.0, 2.0, 9.0, 7.0, 5.0, 4.0, 8.0, 6.0, 0.0]
    order = spread_order(given)
    assert sorted(order) == list(range(10)) and given[order[0]] == 9.0
    first = [given[place] for place in order[:4]]
    assert min(first) <= 2 and any(3 <= cost <= 6 for cost in first)
    assert spread_order([]) == [] and spread_order([5.0]) == [0]


def test_what_an_estimate_tells(tmp_path):
    times = {"seconds": 30.0, "processor_seconds": 3.0, "low": 28.0, "high": 36.0}
    answering = Part(name="answering", amount="3 batches", measured=4, **times)
    estimate = Estimate(
        job="answers",
        parts=[constant("start", (2.0, 1.0)), answering],
        memory=1.5e9,
        disk={"model": 2e6},
        machine={"cores": 2, "threads": 1, "load": 3.0},
        calibration_seconds=60.0,
        alternatives={"--model.feature_store FOLDER": 12.0},
        notes=["a note"],
        facts={"batches": 3},
    )
    assert (estimate.seconds, estimate.processor_seconds, estimate.interval) == (32.0, 4.0, (30.0, 38.0))
    table = estimate.table()
    assert "| whole job |           | 32 s  | 30 s to 38 s |       | 4.0 s          |" in table
    assert "memory: 1.5 GB at its peak\ndisk: model 2.0 MB\nmost of the time: answering" in table
    assert table.endswith("with --model.feature_store FOLDER: 12 s")
    busy, note = estimate.conditions()
    assert "under a load of 3.0: the machine is busy" in busy and note == "a note"
    estimate.write(tmp_path / "plan.json")
    found = json.loads((tmp_path / "plan.json").read_text("utf-8"))
    assert found == estimate.to_dict()
    assert found["interval"] == [30.0, 38.0] and found["batches"] == 3
    assert [part["name"] for part in found["parts"]] == ["start", "answering"]


def test_the_start_of_a_program_is_timed():
    wall, processor = start_of("math")
    assert wall > 0 and processor > 0
    assert set(costs.this_machine()) == {"cores", "threads", "load"}


def test_the_peak_of_memory_is_found():
    with costs.peak_memory() as before:
        pass
    with costs.peak_memory() as found:
        held = np.ones(25_000_000)  # 200 MB
        del held
    assert found["memory"] - before["memory"] > 150e6

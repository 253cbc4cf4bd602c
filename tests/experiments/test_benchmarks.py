"""The harness of `make bench`, and one of its rows from end to end; nothing is timed here."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    import harness

    return harness


@pytest.fixture
def bench(harness: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    import bench

    monkeypatch.setattr(bench, "machine", lambda: "a machine")
    return bench


class Clock:
    """Each program moves it by its own seconds."""

    def __init__(self, *seconds: float) -> None:
        self.now, self.seconds, self.ran = 0.0, iter(seconds), []

    def __call__(self) -> float:
        return self.now

    def program(self, name: str) -> Any:
        def run() -> str:
            self.ran.append(name)
            self.now += next(self.seconds)
            return f"{name}{len(self.ran)}"

        return run


def test_sides_take_turns_and_the_first_is_not_measured(harness: ModuleType):
    clock = Clock(50, 60, 2, 1, 2, 6, 5, 1)
    turns = harness.alternate(clock.program("mmsr"), clock.program("other"), repeats=3, clock=clock)
    assert clock.ran == ["mmsr", "other", "other", "mmsr", "mmsr", "other", "other", "mmsr"]
    assert turns.mmsr == [1, 2, 1] and turns.other == [2, 6, 5]
    assert turns.ratios == [2, 3, 5] and turns.medians == (1, 5)
    assert turns.results == ("mmsr1", "other2")  # of the turn that is not measured


@pytest.mark.parametrize(
    ("ratios", "lower", "same", "missed"),
    [
        ([3.0, 2.0, 2.5], False, True, False),
        ([3.0, 1.0, 1.5], False, True, True),
        ([3.0, 2.0, 2.5], True, True, True),
        ([0.1, 0.3, 0.2], True, True, False),
        ([3.0, 2.0, 2.5], False, False, True),
    ],
)
def test_a_row_has_the_median_and_its_spread(
    harness: ModuleType, ratios: list[float], lower: bool, same: bool, missed: bool
):
    target = harness.Target(title="a", value=2.0, lower_is_better=lower)
    measured = harness.Measured(ratios=ratios, same_result=same)
    row = harness.found("6a", target, measured, load=1.0, machine="a machine")
    assert (row["low"], row["ratio"], row["high"]) == tuple(sorted(ratios))
    assert row["missed"] == missed and row["target"] == 2.0 and row["same_result"] == same


def test_rows_that_were_not_run_stay_unless_the_machine_is_another(harness: ModuleType):
    def row(name: str, machine: str, ratio: float) -> dict[str, Any]:
        return {"row": name, "machine": machine, "ratio": ratio}

    before = [row("1", "here", 1.0), row("2", "here", 1.0), row("3", "there", 1.0)]
    kept = harness.merged(before, [row("2", "here", 2.0)], ["1", "2", "3"])
    assert kept == [before[0], row("2", "here", 2.0)]


def test_the_table_goes_between_the_markers_and_tells_why(harness: ModuleType, tmp_path: Path):
    target = harness.Target(title="one / other", value=2.0)
    measured = harness.Measured(
        ratios=[1.0, 1.5, 1.25], same_result=True, seconds=(2.0, 2.5), why="they are alike.", costs=["f 90 %"]
    )
    rows = [
        harness.found("1", target, measured, load=3.04, machine="a machine"),
        harness.failed("2", target, "no such model", load=1.0, machine="a machine"),
    ]
    readme = tmp_path / "README.md"
    readme.write_text(f"above\n{harness.BEGIN}\nold\n{harness.END}\nbelow\n")
    for _ in range(2):
        harness.write_results(tmp_path / "out", rows, readme=readme)
    text = readme.read_text()
    assert text.startswith("above\n") and text.endswith("\nbelow\n") and "old" not in text
    assert "| 1 | one / other | **1.25 (1.00, 1.50)** | ≥ 2 | yes | 2.0, 2.5 | float32 | 3 |" in text
    assert "- 1: Missed: they are alike. mmsr's time: f 90 %." in text
    assert "- 2: not measured: no such model" in text
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(row["row"], row["ratio"]) for row in written] == [("1", 1.25), ("2", None)]
    readme.write_text("no markers")
    with pytest.raises(ValueError, match="accepted: a README with both"):
        harness.write_results(tmp_path / "out", rows, readme=readme)


def test_a_row_that_raises_is_recorded_and_the_rest_of_its_group_too(
    bench: ModuleType, harness: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def decoding(quick: bool) -> Any:
        yield "10a", harness.Measured(ratios=[2.5], same_result=True)
        raise OSError("no codec\nfor this")

    module = ModuleType("made_up")
    module.decoding = decoding  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_up", module)
    monkeypatch.setitem(bench.GROUPS, "decoding", ("made_up", ("10a", "10b")))
    bench.measure("decoding", quick=True, out=tmp_path / "rows")
    first, second = map(json.loads, (tmp_path / "rows").read_text().splitlines())
    assert first["ratio"] == 2.5 and "failed" not in first
    assert second["row"] == "10b" and second["ratio"] is None and second["failed"] == "OSError: no codec"


def test_a_process_that_dies_does_not_end_the_others(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def run_alone(command: list[str]) -> list[Any]:
        if "decoding" in command:
            raise RuntimeError("Killed")
        target = bench.ROWS["7"]
        measured = bench.Measured(ratios=[2.5], same_result=True)
        return [bench.found("7", target, measured, load=0.0, machine="a machine")]

    monkeypatch.setattr(bench, "run_alone", run_alone)
    results = bench.main(["7", "10a", "--quick", "--out", str(tmp_path)])
    assert {row["row"]: row.get("failed") for row in results} == {"7": None, "10a": "Killed", "10b": "Killed"}


def test_a_program_that_fails_tells_its_last_line(harness: ModuleType):
    with pytest.raises(RuntimeError, match="^SystemExit: 3|out of luck"):
        harness.run_alone(["-c", "raise ValueError('out of luck')"])


def test_every_row_has_a_function(bench: ModuleType):
    measured = [row for _, rows in bench.GROUPS.values() for row in rows]
    assert sorted(measured) == sorted(bench.ROWS)
    with pytest.raises(SystemExit):
        bench.main(["12"])


def test_a_quick_row_from_end_to_end(bench: ModuleType, tmp_path: Path):
    (row,) = bench.main(["7", "--quick", "--out", str(tmp_path)])
    assert row["row"] == "7" and row["same_result"] and row["low"] <= row["ratio"] <= row["high"]
    assert json.loads((tmp_path / "quick" / "results.json").read_text()) == [row]

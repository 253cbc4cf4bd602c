"""Ablations on a Ray cluster: a real one, of two workers on this machine."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmsr.ablation.ablate import ablate
from mmsr.ablation.plan import plan
from mmsr.ablation.ray import RayCluster
from mmsr.ablation.runner import Event, LocalProcesses
from mmsr.ablation.runs import Run
from mmsr.ablation.spec import read_ablation
from mmsr.cli.main import main
from mmsr.inference.loading import open_predictor

ray = pytest.importorskip("ray", reason="the extra ray is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SETTINGS = {
    "model.preset": "tiny",
    "model.vocab_size": 600,
    "model.rationale_format": "none",
    "data.batch_rows": 8,
    "trainer.max_epochs": 1,
    "trainer.precision": "32-true",
}


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        started.add_node(num_cpus=1)
    started.wait_for_nodes()
    yield started
    ray.shutdown()
    started.shutdown()


def file(folder: Path, corpus: Path, **content: Any) -> Path:
    whole = {
        "settings": {**SETTINGS, "data.manifest": str(corpus)},
        "grid": {"model.fusion": ["concat", "text_only"]},
        "seeds": [0, 1],
        "out": str(folder / "out"),
    }
    path = folder / "test.yaml"
    path.write_text(yaml.safe_dump({**whole, **content}))
    return path


def cells(folder: Path) -> list[list[str]]:
    """Of table.md, but for the seconds in its last column."""
    lines = (folder / "table.md").read_text(encoding="utf-8").splitlines()
    return [line.split("|")[1:-2] for line in lines if line.startswith("|")]


def fake_runs(folder: Path, names: list[str]) -> list[Run]:
    like = {"seed": 0, "settings": {}, "data_fingerprint": "", "condition": "text", "evaluation": None}
    return [Run(variant=name, name=name, folder=folder / name, **like) for name in names]


def test_the_same_file_gives_the_same_table_and_nothing_is_repeated(cluster, demo_corpus, tmp_path, capsys):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    ablate(read_ablation(file(here, demo_corpus)), open_model=open_predictor, runner=LocalProcesses(2))
    path = file(there, demo_corpus)
    main(["ablate", "-c", str(path), "--ray", cluster.address])
    assert cells(there / "out") == cells(here / "out")
    assert "concat" in capsys.readouterr().out
    runs = [run for row in plan(read_ablation(path)) for run in row]
    assert all((run.folder / "log.txt").stat().st_size > 0 for run in runs), (
        "a run's output is not in its log"
    )
    before = {run.name: (run.folder / "result.json").stat().st_mtime_ns for run in runs}
    ablate(read_ablation(path), open_model=open_predictor, runner=RayCluster(cluster.address))
    assert before == {run.name: (run.folder / "result.json").stat().st_mtime_ns for run in runs}


def slow_or_bad(run: Run) -> None:
    """Fails, or leaves when it was at work, and on which process."""
    if run.variant == "bad":
        raise ValueError("no good")
    (run.folder / f"{os.getpid()}").write_text(str(time.time()))
    if run.variant == "dies" and len(list(run.folder.glob("[0-9]*"))) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(2)
    (run.folder / "ended").write_text(str(time.time()))


def events(cluster: Any, runs: list[Run], **options: Any) -> list[Event]:
    runner = RayCluster(cluster.address, **options)
    return [event for event in runner.run(slow_or_bad, runs) if event.run is not None]


def test_a_failed_run_stops_no_other_and_one_whose_worker_dies_is_begun_again(cluster, tmp_path):
    runs = fake_runs(tmp_path, ["bad", "dies", "good"])
    told = {event.run.name: event for event in events(cluster, runs) if event.state != "running"}
    assert {name: event.state for name, event in told.items()} == {
        "bad": "failed",
        "dies": "finished",
        "good": "finished",
    }
    assert told["bad"].error == "ValueError: no good"
    assert len(list((tmp_path / "dies").glob("[0-9]*"))) == 2
    assert "ValueError: no good" in (tmp_path / "bad" / "log.txt").read_text()


@pytest.mark.parametrize("jobs", [None, 1])
def test_as_many_at_a_time_as_there_is_room_for(cluster, tmp_path, jobs):
    runs = fake_runs(tmp_path, ["a", "b", "c", "d"])
    events(cluster, runs, jobs=jobs)
    spans = []
    for run in runs:
        (start,) = run.folder.glob("[0-9]*")
        spans.append((float(start.read_text()), float((run.folder / "ended").read_text())))
    most = max(sum(start <= moment < end for start, end in spans) for moment, _ in spans)
    assert most == (jobs or 2)


def test_closing_ends_what_is_under_way(cluster, tmp_path):
    runs = fake_runs(tmp_path, ["a", "b", "c"])
    under_way = RayCluster(cluster.address).run(slow_or_bad, runs)
    next(under_way)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "a").glob("[0-9]*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    under_way.close()
    time.sleep(4)
    assert not list(tmp_path.glob("*/ended"))


def test_what_no_machine_can_do_is_refused(cluster, tmp_path):
    with pytest.raises(
        ValueError, match="64 processors and 0 GPUs; the cluster's machines have: 1 and 0, 1 and 0"
    ):
        events(cluster, fake_runs(tmp_path, ["a"]), cpus=64)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere:here"])
def test_where_there_is_no_cluster_one_line_says_so_within_seconds(tmp_path, capsys, demo_corpus, address):
    with pytest.raises(SystemExit) as ended:
        main(["ablate", "-c", str(file(tmp_path, demo_corpus)), "--ray", address])
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"mmsr: error: --ray {address}: ")


def test_a_search_has_as_many_trials_at_a_time_as_there_are_workers(cluster, demo_corpus, tmp_path, capsys):
    pytest.importorskip("optuna", reason="searches need Optuna: pip install 'mmsr[search]'")
    from mmsr.ablation.search.pruning import open_study

    content = {
        "space": {"model.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
        "settings": {**SETTINGS, "data.manifest": str(demo_corpus), "model.fusion": "text_only"},
        "trials": 4,
        "pruner": "median",
        "out": str(tmp_path / "out"),
    }
    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(content))
    main(["search", "-c", str(path), "--ray", cluster.address])
    assert "4 trials (4 complete)" in capsys.readouterr().out
    trials = open_study(tmp_path / "out").trials
    assert all(len(trial.intermediate_values) == 1 for trial in trials), "workers write the journal too"
    spans = [(trial.datetime_start, trial.datetime_complete) for trial in trials]
    assert max(sum(start <= moment < end for start, end in spans) for moment, _ in spans) == 2

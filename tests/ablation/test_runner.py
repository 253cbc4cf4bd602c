"""Runs in processes of this machine, interrupted and resumed."""

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from mmsr.ablation.ablate import ablate
from mmsr.ablation.runner import LocalProcesses
from mmsr.ablation.runs import Run
from mmsr.ablation.spec import read_ablation
from mmsr.inference.loading import open_predictor

KILLED = """
import multiprocessing, os, signal, sys
from mmsr.inference.loading import open_predictor
from mmsr.ablation.ablate import ablate
from mmsr.ablation.spec import Evaluation, read_ablation
from mmsr.ablation.runner import LocalProcesses

def show(board, line):
    if line == "concat, seed 1: starts":
        print(*(process.pid for process in multiprocessing.active_children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

ablate(read_ablation(sys.argv[1]), open_model=open_predictor, runner=LocalProcesses(1), show=show)
"""


@pytest.mark.slow
def test_killed_half_way_and_started_again_nothing_is_repeated(
    make_runner, tiny, settled, finished, demo_corpus, tmp_path
):
    path = tiny(tmp_path, demo_corpus)
    out = read_ablation(path).out
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    workers = [int(word) for word in killed.stdout.split()]
    assert len(workers) == 1 and ended(workers), "a process outlives the one that started it"
    done = {file: file.stat().st_mtime_ns for file in out.glob("runs/*/result.json")}
    assert len(done) == 2
    runner = make_runner()
    ablate(read_ablation(path), open_model=open_predictor, runner=runner)
    assert len(runner.done) == 2
    assert {file: file.stat().st_mtime_ns for file in done} == done
    assert settled(out) == settled(read_ablation(finished[0]).out)


def children(process: int) -> list[int]:
    path = Path(f"/proc/{process}/task/{process}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def ended(processes: list[int]) -> bool:
    """Whether processes end within some seconds; one that nobody has buried has ended."""

    def runs(process: int) -> bool:
        try:
            status = Path(f"/proc/{process}/stat").read_text()
        except OSError:
            return False
        return status.rpartition(")")[2].split()[0] != "Z"

    deadline = time.monotonic() + 20
    while any(map(runs, processes)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(runs, processes))


@pytest.mark.slow
def test_ctrl_c_ends_all_processes_cleanly(write, tiny, demo_corpus, tmp_path):
    content = yaml.safe_load(tiny(tmp_path, demo_corpus).read_text())
    content["settings"] |= {"trainer.max_epochs": 5000, "early_stopping.patience": 5000}
    command = [
        sys.executable,
        "-m",
        "mmsr",
        "ablate",
        "-c",
        str(write(tmp_path, **content)),
        "--jobs",
        "2",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 100
        while len(set(tmp_path.glob("out/runs/*/checkpoints/last.ckpt"))) < 2:
            assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        workers = children(process.pid)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, told
    assert told.splitlines()[-1] == "interrupted" and "Traceback" not in told
    assert ended(workers)
    left = [path for path in tmp_path.glob("out/runs/*/.*") if path.name != ".lock"]
    assert not left, "something half-written is left"


@pytest.mark.slow
def test_processes_do_every_run_and_tell_how_one_ended(tmp_path, monkeypatch):
    (tmp_path / "work_of_test_ablation.py").write_text(
        "import os\n"
        "def work(run):\n"
        "    if run.seed == 0: raise ValueError('too\\nbad')\n"
        "    if run.seed == 1: os._exit(3)\n"
        "    if run.seed == 2: raise SystemExit(2)\n"
        "    (run.folder / 'threads').write_text(os.environ['OMP_NUM_THREADS'])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)  # processes that are spawned get the path too
    work = importlib.import_module("work_of_test_ablation").work
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    runs = [
        Run("v", seed, str(seed), tmp_path / str(seed), {}, "f", "text", evaluation=None) for seed in range(4)
    ]
    events = [event for event in LocalProcesses(1).run(work, runs) if event.run is not None]
    ends = {event.run.seed: event.error for event in events if event.state != "running"}
    assert ends == {
        0: "ValueError: too bad",
        1: "its process ended with exit code 3",
        2: "SystemExit: 2",
        3: "",
    }
    assert "Traceback" in (tmp_path / "0" / "log.txt").read_text()
    assert (tmp_path / "3" / "threads").read_text() == "1" and os.environ["OMP_NUM_THREADS"] == "7"
    with pytest.raises(ValueError, match="--jobs 0; accepted: 1 or more"):
        LocalProcesses(0)

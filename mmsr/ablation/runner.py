"""Runs of an ablation: one trained and evaluated, and many of them in processes of this machine.

    Run ─► settings.yaml ─► `mmsr fit` ─► model/ ─► test rows ─► metrics.json, predictions.jsonl
        ─► result.json

A folder with a result.json is finished. One without is resumed from its last checkpoint.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import numpy as np
import yaml

from mmsr.ablation.runs import Run, data_of
from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.data.manifest.manifest import utterances
from mmsr.evaluation.provenance import ORIGIN, Provenance
from mmsr.evaluation.run import evaluate, write_run
from mmsr.files import write_file
from mmsr.records import Predict, Prediction
from mmsr.training.monitor import mode_of
from mmsr.training.run import fit

TICK = 2.0  # seconds after which a runner reports, whether or not a run has ended


# ---------------------------------------------------------------------- one run


Open = Callable[..., Predict]
"""Opens a finished model's folder; a function at the top of a module, so that it can be pickled.

Where the run's audio encoder was frozen, it gets the `feature_store`, and how that keeps states (`bf16`,
`dtype`), by keyword.
"""


def train_and_evaluate(open_model: Open, run: Run) -> None:
    """Write a run's files, or those that it lacks; result.json comes last."""
    started = time.perf_counter()
    model = run.folder / "model"
    trained = _origin_of_training(run) if model.exists() else {}
    if not model.exists():
        _train(run)
    data = data_of(run)
    assert data.processor is not None
    labels = data.processor.labels
    states = run.audio_states
    kept = {} if states is None else {"feature_store": run.settings["model"]["feature_store"], **states}
    metrics, predictions = _evaluate(open_model(model, **kept), data, run, labels=labels)
    write_run(
        run.folder,
        {"test": metrics},
        predictions,
        provenance=Provenance(
            seed=run.seed,
            data_fingerprint=run.data_fingerprint,
            seconds=time.perf_counter() - started,
        ),
        extra={name: value for name, value in (("trained", trained), ("audio_states", states)) if value},
    )
    cost = json.loads((run.folder / "cost.json").read_text(encoding="utf-8"))
    result = {
        "conditions": run.conditions,
        "audio_states": states,
        "labels": labels,
        "trained_parameters": cost["trained_parameters"],
        "epochs": len(cost["seconds"]),
        "seconds_an_epoch": float(np.mean(cost["seconds"])),
        "dev": _best_epoch(run),
    }
    shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)  # three times the model's size, each
    write_file(run.folder / "result.json", json.dumps(result, indent=1).encode())


def _train(run: Run) -> None:
    trainer = run.settings.get("trainer") or {}
    settings = {
        **run.settings,
        "seed_everything": run.seed,
        "trainer": {
            **trainer,
            "default_root_dir": str(run.folder),
            "enable_progress_bar": False,
            "callbacks": [
                *(trainer.get("callbacks") or []),
                {"class_path": "mmsr.training.callbacks.Cost"},
            ],
        },
    }
    file, content = run.folder / "settings.yaml", yaml.safe_dump(settings, allow_unicode=True).encode()
    if file.exists() and file.read_bytes() != content:  # the same run, but its data moved: it starts again
        for left in (path for path in run.folder.iterdir() if path.name != "log.txt"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    write_file(file, content)
    fit(["-c", str(file)])


def _evaluate(
    predict: Predict, data: MmsrDataModule, run: Run, *, labels: Sequence[str]
) -> tuple[dict[str, Any], list[Prediction]]:
    """Metrics by condition, and predictions, of the test rows."""
    rows = utterances(data.test_rows)
    plain = [name for name in run.conditions if name != "shuffled_audio"]
    metrics, predictions = evaluate(predict, rows, labels=labels, conditions=plain)
    if "shuffled_audio" in run.conditions:  # with the transcript that the variant reads
        read = [replace(row, text=getattr(row, data.text_column)) for row in rows]
        more, answered = evaluate(predict, read, labels=labels, conditions=["shuffled_audio"])
        metrics, predictions = {**metrics, **more}, [*predictions, *answered]
    return metrics, predictions


def _origin_of_training(run: Run) -> dict[str, Any]:
    """Command, versions and machine that trained a model which is evaluated again; empty where unknown.

    They are those of its first evaluation, which followed the training.
    """
    path = run.folder / "metrics.json"
    if not path.is_file():
        return {}
    before = json.loads(path.read_text(encoding="utf-8"))
    trained: dict[str, Any] = before.get("trained") or {name: before[name] for name in ORIGIN}
    return trained


def _best_epoch(run: Run) -> dict[str, float]:
    """The finite metrics of the epoch that was kept; empty where the run diverged."""
    history = json.loads((run.folder / "history.json").read_text(encoding="utf-8"))
    monitor = run.settings.get("monitor", "dev_loss")
    best = max if mode_of(monitor) == "max" else min
    rows = [row for row in history if math.isfinite(row.get(monitor, math.nan))]
    kept: dict[str, float] = best(rows, key=lambda row: row[monitor], default={})
    return {name: value for name, value in kept.items() if math.isfinite(value)}


# ---------------------------------------------------------------------- where runs run


@dataclass(frozen=True)
class Event:
    """What a runner reports: a run's state; without a run, that some time has passed."""

    run: Run | None = None
    state: str = "running"  # then "finished" or "failed"
    error: str = ""


class Runner(Protocol):
    """Where runs run: this machine's processes, or a cluster's."""

    def run(self, work: Callable[[Run], None], runs: Sequence[Run]) -> Iterator[Event]:
        """Do the work of each run; one that fails is reported and stops no other.

        Closing the iterator ends the runs under way.
        """


class LocalProcesses:
    """Runs in processes of this machine, each with one thread.

    A process does one run after another. Ctrl-C reaches this process alone, which then ends the others. They
    end by themselves where this one was killed.

    Args:
        jobs: Runs at a time.
    """

    def __init__(self, jobs: int = 1) -> None:
        if jobs < 1:
            raise ValueError(f"--jobs {jobs}; accepted: 1 or more")
        self.jobs = jobs

    def run(self, work: Callable[[Run], None], runs: Sequence[Run]) -> Iterator[Event]:
        """As `Runner.run` says."""
        waiting = list(reversed(runs))
        processes: dict[Any, multiprocessing.process.BaseProcess] = {}  # by the channel to it
        busy: dict[Any, Run] = {}
        try:
            while waiting or busy:
                while waiting and len(busy) < self.jobs:
                    channel = next((idle for idle in processes if idle not in busy), None)
                    if channel is None:
                        channel, process = _start(work)
                        processes[channel] = process
                    busy[channel] = run = waiting.pop()
                    channel.send(run)
                    yield Event(run)
                ready: list[Any] = wait(list(busy), timeout=TICK)
                for channel in ready:
                    run = busy.pop(channel)
                    try:
                        error = channel.recv()
                    except EOFError:
                        process = processes.pop(channel)
                        process.join()
                        error = f"its process ended with exit code {process.exitcode}"
                    yield Event(run, "failed" if error else "finished", error)
                if not ready:
                    yield Event()
        finally:
            for process in processes.values():
                process.terminate()
            for process in processes.values():
                process.join(10)
                process.kill()


def _start(work: Callable[[Run], None]) -> tuple[Connection, multiprocessing.process.BaseProcess]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, work), name="mmsr ablate")
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # read when the process loads its libraries
    try:
        process.start()
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
    theirs.close()  # so that the end of the process is the end of the channel
    return ours, process


def _serve(channel: Connection, work: Callable[[Run], None]) -> None:
    """The loop of a process: take a run, do it, send back why it failed or an empty line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # half-written files are then removed
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        while True:
            channel.send(attempt(work, channel.recv()))
    except (KeyboardInterrupt, EOFError, OSError):
        pass


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def attempt(work: Callable[[Run], None], run: Run) -> str:
    """Do a run with this process's output in its log; return why it failed, or an empty line."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with open(run.folder / "log.txt", "ab") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    try:
        work(run)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return ""

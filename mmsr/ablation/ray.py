"""Runs of an ablation as tasks of a Ray cluster.

    Run ─► task (one processor, or a part of a GPU) ─► the run's folder, which all machines see

If a worker or machine dies, its run is resumed elsewhere from the last checkpoint.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

from mmsr.ablation.runner import TICK, Event, attempt
from mmsr.ablation.runs import Run
from mmsr.extras import needed_for

_RETRIES = 3  # after the death of a worker or machine; a run that raises is not repeated


class RayCluster:
    """A Ray cluster (docs.ray.io), which does as many runs at a time as fit.

    Its machines must see the data and the ablation's folder at the same paths, and have mmsr installed.

    Args:
        address: The address of a running cluster: `auto` (this machine's), `HOST:PORT` or `ray://HOST:PORT`.
            `local` starts a cluster of this machine and stops it afterwards.
        jobs: The maximum number of runs at a time; by default as many as fit.
        cpus: The processors, and threads, of a run.
        gpus: The GPUs of a run; with a fraction, such as .25, several runs share one.

    Raises:
        ValueError: Ray is not installed, or a number is out of range.
    """

    def __init__(
        self, address: str = "auto", *, jobs: int | None = None, cpus: int = 1, gpus: float = 0.0
    ) -> None:
        with needed_for("--ray"):
            import ray
        for name, value, least in (("jobs", jobs, 1), ("cpus", cpus, 1), ("gpus", gpus, 0)):
            if value is not None and value < least:
                raise ValueError(f"--{name} {value}; accepted: {least} or more")
        self.ray: Any = ray
        self.address, self.jobs, self.cpus, self.gpus = address, jobs, cpus, gpus

    def run(self, work: Callable[[Run], None], runs: Iterable[Run]) -> Generator[Event, None, None]:
        """See `Runner.run`.

        Raises:
            ValueError: There is no cluster at the address, or it lacks what one run needs.
        """
        ray = self.ray
        joined = not ray.is_initialized()
        if joined:
            self._join()
        busy: dict[Any, Run] = {}
        waiting = iter(runs)
        try:
            self._check_size()
            task = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=_RETRIES)(_do)
            while True:
                while len(busy) < self._room() and (run := next(waiting, None)) is not None:
                    busy[task.remote(work, run, os.getcwd())] = run
                    yield Event(run)
                if not busy:
                    return
                ready, _ = ray.wait(list(busy), timeout=TICK)
                for reference in ready:
                    run = busy.pop(reference)
                    try:
                        error = ray.get(reference)
                    except ray.exceptions.RayError as died:
                        error = f"{type(died).__name__}: {' '.join(str(died).split())}"
                    yield Event(run, "failed" if error else "finished", error)
                if not ready:
                    yield Event()
        finally:
            for reference in busy:
                ray.cancel(reference, force=True)
            if joined:
                ray.shutdown()

    def _join(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no telemetry
        # the default of later releases; without it each worker warns
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        local = self.address == "local"
        try:
            self._knock()
            self.ray.init(
                address=self.address,
                log_to_driver=False,
                logging_level="error",
                **({"include_dashboard": False} if local else {}),
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"--ray {self.address}: {reason[:200]}; accepted: auto, HOST:PORT of a cluster that "
                "runs (ray start --head), or local"
            ) from error

    def _knock(self) -> None:
        """Fail within seconds if nothing answers at the address, which Ray tries for minutes."""
        host, colon, port = self.address.removeprefix("ray://").rpartition(":")
        if colon:
            socket.create_connection((host, int(port)), timeout=10).close()

    def _check_size(self) -> None:
        """Refuse a run that fits on no machine, for which Ray would wait for ever."""
        alive = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        sizes = sorted(((node.get("GPU", 0), node.get("CPU", 0)) for node in alive), reverse=True)
        if not any(gpus >= self.gpus and cpus >= self.cpus for gpus, cpus in sizes):
            there = ", ".join(f"{cpus:g} and {gpus:g}" for gpus, cpus in sizes)
            raise ValueError(
                f"--ray {self.address}: a run asks for {self.cpus} processors and {self.gpus:g} GPUs; "
                f"the cluster's machines have: {there}"
            )

    def _room(self) -> int:
        """The number of runs that fit at a time now; a cluster may grow."""
        there = self.ray.cluster_resources()
        room = int(there.get("CPU", 0) // self.cpus)
        if self.gpus:
            room = min(room, int(there.get("GPU", 0) / self.gpus))
        return max(1, room if self.jobs is None else min(room, self.jobs))


def _do(work: Callable[[Run], None], run: Run, folder: str) -> str:
    """A task: `attempt` in the working folder of the ablation."""
    if not Path(folder).is_dir():
        return f"{os.uname().nodename} does not see {folder}; accepted: a folder that all machines share"
    os.chdir(folder)
    return attempt(work, run)

"""Runs of a tiny model in processes of their own, which can be killed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("killed_fit.py")


@pytest.fixture(scope="session")
def fit_in_process() -> Iterator[Callable[..., int]]:
    """`fit` in another process; returns its exit code: 0, 1 after an error, or 9 if it was killed."""
    with subprocess.Popen(
        [sys.executable, PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # several threads may sum in another order
    ) as server:
        assert server.stdin is not None and server.stdout is not None
        requests, codes = server.stdin, server.stdout

        def run(arguments: Sequence[str], *, log: Path, kill: int | None = None) -> int:
            """Train.

            Args:
                arguments: Those of `mmsr fit`.
                log: File for its output.
                kill: Number of training batches after which it is killed.
            """
            given = {"arguments": list(arguments), "log": str(log), "kill": kill}
            print(json.dumps(given), file=requests, flush=True)
            return int(codes.readline())

        yield run
        requests.close()

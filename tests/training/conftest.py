"""Runs of a tiny model in processes of their own, which can be killed."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import Callback

from mmsr.training.run import MmsrCLI, fit


class Kill(Callback):
    """Ends the process after a number of batches, as SIGKILL does: nothing is tidied up."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def on_train_batch_end(self, *_: object) -> None:
        self.left -= 1
        if not self.left:
            os._exit(9)


def fit_in_process(arguments: Sequence[str], *, log: Path, kill: int | None = None) -> int:
    """`fit` in a fork of this process; returns its exit code: 0, 1 after an error, or 9 if it was killed.

    Args:
        arguments: Those of `mmsr fit`.
        log: File for its output.
        kill: Number of training batches after which it is killed.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        with log.open("ab") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")  # not those of pytest
        if kill is not None:
            whole = MmsrCLI.instantiate_trainer

            def with_kill(self, **kwargs):
                trainer = whole(self, **kwargs)
                trainer.callbacks.insert(0, Kill(kill))
                return trainer

            MmsrCLI.instantiate_trainer = with_kill
        fit(arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@pytest.fixture(scope="session", name="fit_in_process")
def _fit_in_process() -> Callable[..., int]:
    return fit_in_process

"""A process that trains in forks of itself, which may be killed; `fit_in_process` writes it lines of JSON.

torch cannot train in a fork of the tests' process, once other tests have started its threads.
"""

import json
import os
import sys
import traceback

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


def run(arguments: list[str], log: str, kill: int | None) -> None:
    code = 1
    try:
        with open(log, "ab") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
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


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if not child:
            run(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

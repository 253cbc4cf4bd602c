"""The command `mmsr`: its commands, and how their errors end.

A command's function has its signature, its help and a call of the library. It imports what it needs when it
runs, so that `mmsr --help` answers without torch. Bad input ends with one line on stderr and exit code 2,
faults that `mmsr data check` finds with 1, an interruption with 130, SIGTERM with 143.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from cyclopts import App, CycloptsError, Group

from mmsr.cli import data, evaluation, experiments, inference, planning, setup
from mmsr.cli.application import application, explain, modern
from mmsr.cli.console import lenient
from mmsr.extras import missing
from mmsr.messages import one_line
from mmsr.progress import log

ANSWER, TRAIN, EVALUATE, DATA, INSTALLATION, OPTIONS = map(
    Group.create_ordered, ("Answer", "Train", "Evaluate", "Data", "Installation", "Options")
)
COMMANDS: dict[Group, Sequence[Callable[..., None]]] = {
    ANSWER: (inference.predict, inference.timeline, inference.app),
    TRAIN: (
        experiments.demo,
        experiments.fit,
        experiments.search,
        experiments.ablate,
        planning.plan,
        experiments.export,
    ),
    EVALUATE: (
        evaluation.evaluate,
        evaluation.robustness,
        evaluation.calibrate,
        evaluation.compare,
        evaluation.faithfulness,
    ),
    DATA: (inference.transcribe,),
    INSTALLATION: (setup.doctor, setup.completion),
}
"""The commands by the panels of `mmsr --help`; adding one is one entry here."""

SYNONYMS = {
    "fit": ("train", "finetune"),
    "predict": ("classify", "infer", "inference", "run"),
    "evaluate": ("eval", "score", "test", "validate"),
    "plan": ("estimate", "cost", "time"),
    "app": ("gradio", "serve", "server", "web"),
    "doctor": ("check", "env", "info"),
}
"""What other programs call a command: it is named to who types that."""

DATA_COMMANDS: Sequence[Callable[..., None]] = (
    data.make_demo,
    data.convert,
    data.check,
    data.split,
    data.segment,
    data.degrade,
    data.features,
)
"""The commands of `mmsr data`."""

data_app = App(name="data", help="Corpora and manifests.", group=DATA)
for _function in DATA_COMMANDS:
    data_app.command(_function)

human = App(name="human", group=EVALUATE)
human.help = "Human evaluation: blinded sheets for raters, and scores of their ratings."
human.command(evaluation.make_sheets, name="make")
human.command(evaluation.score_ratings, name="score")

for _group, _functions in COMMANDS.items():
    for _function in _functions:
        application.command(_function, group=_group, synonym=SYNONYMS.get(_function.__name__))
application.command(data_app)
application.command(human)
application["--help"].group = OPTIONS
application["--version"].group = OPTIONS


class Terminated(KeyboardInterrupt):
    """The process got SIGTERM, as from `kill`, a container's end, or SLURM's time limit."""


INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
CLOSED_PIPE = 128 + signal.SIGPIPE  # the exit code of a program that the signal ended


@contextmanager
def _ending_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does: half-written files are removed, and a line is printed."""

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one is enough
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the command `mmsr`."""
    words = list(sys.argv[1:] if argv is None else argv)
    # read when torch is loaded: threads that wait for a core sleep. By default they spin, and where other
    # programs hold the cores, an answer on two threads takes ten times as long as on one
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    lenient()
    try:
        with _ending_by_sigterm():
            application(modern(words))
    except KeyboardInterrupt as stop:
        ended, code = (
            ("terminated", TERMINATED) if isinstance(stop, Terminated) else ("interrupted", INTERRUPTED)
        )
        log(": ".join(filter(None, (ended, str(stop)))))
        sys.exit(code)
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CLOSED_PIPE)
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # rich, which prints help, exits with 1
            sys.exit(CLOSED_PIPE)
        raise
    except CycloptsError as error:
        log(f"mmsr: error: {explain(error)}")
        sys.exit(2)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "mmsr":
            raise
        log(f"mmsr: error: {missing(' '.join(('mmsr', *words[:1])), error.name)}")
        sys.exit(2)
    except (ValueError, OSError) as error:
        log(f"mmsr: error: {one_line(error)}")
        sys.exit(2)

"""How a training that ends before its time is told: in one line, with what continues it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from mmsr.training.arguments import one_line


@contextmanager
def one_line_endings(checkpoint: Path) -> Iterator[None]:
    """Turn the ways in which Lightning ends a training early into those of a command.

    Args:
        checkpoint: The file from which the run would be resumed.

    Raises:
        KeyboardInterrupt: It was interrupted, for which Lightning exits with 1; says what continues it.
        SystemExit: It got SIGTERM, for which Lightning exits with 0.
        ValueError: Lightning refuses a setting.
    """
    try:
        yield
    except MisconfigurationException as error:
        raise ValueError(one_line(error)) from error
    except SIGTERMException:
        raise SystemExit(128 + signal.SIGTERM) from None
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        raise type(stop.__context__)(_remedy(checkpoint)) from None
    except KeyboardInterrupt as stop:  # before Lightning's own care for it
        raise type(stop)(_remedy(checkpoint)) from None


def _remedy(checkpoint: Path) -> str:
    if checkpoint.exists():
        return f"the same command continues from {checkpoint}"
    return "no epoch was finished; the same command starts again"

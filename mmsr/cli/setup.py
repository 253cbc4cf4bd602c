"""The commands about an installation itself: what it lacks, and completion for the shell.

As in `mmsr.cli.main`, functions import what they need when they run.
"""

from __future__ import annotations

import re
import sys
from json import dumps
from typing import Any

SHELLS = ("bash", "zsh", "fish")


def doctor(model: str = "demo", json: bool = False) -> None:
    """What this installation has and lacks: packages, devices, precision, programs, and whether it answers.

    Exit code 1 where something is broken that the core needs; what only an extra needs is named with the
    command that installs it.

    Example: mmsr doctor

    Args:
        model: Folder or Hub id of the checkpoint that is to answer; demo is the packaged one.
        json: Print one JSON object instead of text (--json alone will do).
    """
    from dataclasses import asdict

    from mmsr.cli.doctor import broken, examine, show

    findings = examine(model)
    if json:
        print(dumps({"ok": not broken(findings), "findings": [asdict(one) for one in findings]}))
    else:
        show(findings)
    if broken(findings):
        sys.exit(1)


def completion(*shells: str) -> None:
    """Print what completes commands, flags and their choices in bash, zsh or fish.

    Needs shtab: pip install 'mmsr[completion]'. The settings of `mmsr fit` are not among them, since finding
    those takes torch, and seconds.

    Example: mmsr completion bash > ~/.local/share/bash-completion/completions/mmsr

    Args:
        shells: bash; zsh, for a file _mmsr in a folder of $fpath; or fish, for
            ~/.config/fish/completions/mmsr.fish.
    """
    if len(shells) != 1 or shells[0] not in SHELLS:
        raise ValueError(f"mmsr completion {' '.join(shells)}; accepted: one of {', '.join(SHELLS)}")
    from importlib.util import find_spec

    if find_spec("shtab") is None:
        raise ValueError("completion needs shtab: pip install 'mmsr[completion]'")
    from mmsr.cli.main import COMMANDS
    from mmsr.cli.parser import make_parser

    script = make_parser(COMMANDS).get_completion_script(f"shtab-{shells[0]}")
    # flags as the documentation types them; both are accepted
    print(re.sub(r"--[a-z0-9]+(?:_[a-z0-9]+)+\b", lambda flag: flag[0].replace("_", "-"), script))


SETUP_COMMANDS: dict[str, Any] = {"doctor": doctor, "completion": completion}

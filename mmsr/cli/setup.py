"""The commands about an installation itself: what it lacks, and completion for the shell."""

from __future__ import annotations

import sys
from json import dumps
from typing import Literal

from mmsr.cli.application import application


def doctor(*, model: str = "demo", json: bool = False) -> None:
    """What this installation has and lacks: packages, devices, precision, programs, and whether it answers.

    Exit code 1 where something is broken that the core needs; what only an extra needs is named with the
    command that installs it.

    Example: mmsr doctor

    Args:
        model: Folder or Hub id of the checkpoint that is to answer; demo is the packaged one.
        json: Print one JSON object instead of text.
    """
    from dataclasses import asdict

    from mmsr.cli.doctor import broken, examine, show

    findings = examine(model)
    if json:
        print(dumps({"ok": not broken(findings), "findings": [asdict(finding) for finding in findings]}))
    else:
        show(findings)
    if broken(findings):
        sys.exit(1)


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a script with which bash, zsh or fish completes commands, flags and their choices.

    The settings of `mmsr fit` are not among them, since finding those takes torch, and seconds.

    Example: mmsr completion bash > ~/.local/share/bash-completion/completions/mmsr

    Args:
        shell: bash; zsh, for a file _mmsr in a folder of $fpath; or fish, for
            ~/.config/fish/completions/mmsr.fish.
    """
    script = application.generate_completion(shell=shell)
    # where bash knows no choices, it completes names of files
    print(script.replace("complete -F", "complete -o default -F"))

"""The commands about an installation itself: what it lacks, and completion for the shell."""

from __future__ import annotations

import sys
from json import dumps
from typing import Literal

from mmsr.cli.application import application
from mmsr.model.packaged import DEFAULT


def doctor(*, model: str = DEFAULT, json: bool = False) -> None:
    """Check this installation: packages, devices, precision, programs, and whether a model answers.

    Exit code 1 if the core does not work. What an extra lacks is named with the command that installs it.

    Example: mmsr doctor

    Args:
        model: Folder or Hub id of the checkpoint that must answer, or the name of a packaged one: base or
            demo. base is not the size of `mmsr fit --model.preset base`.
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

    It does not complete the settings of `mmsr fit`, which need torch.

    Example: mmsr completion bash > ~/.local/share/bash-completion/completions/mmsr

    Args:
        shell: bash; zsh, for a file _mmsr in a folder of $fpath; or fish, for
            ~/.config/fish/completions/mmsr.fish.
    """
    script = application.generate_completion(shell=shell)
    # without choices, bash completes names of files
    print(script.replace("complete -F", "complete -o default -F"))

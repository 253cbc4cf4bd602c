"""Where metrics come from: command, versions, machine, seconds, seed, and the fingerprint of the data."""

import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ORIGIN = ("command", "versions", "machine")  # fields of a `Provenance` that are always set
VERSIONED = "mmsr torch transformers lightning datasets numpy scikit-learn rouge-score sacrebleu".split()


def command_line() -> str:
    """The command line of this process, as it can be copied, without folders that tell of its machine."""
    program, *words = sys.argv
    module = Path(program).parent.name if Path(program).name == "__main__.py" else Path(program).stem
    program = "mmsr" if module == "mmsr" else program
    return " ".join(map(_quoted, map(_without_folders, (program, *words))))


def _without_folders(word: str) -> str:
    """A word of a command, whose absolute path becomes relative to the working folder, or to the home folder.

    Of a path elsewhere the last two names are kept.
    """
    flag, equals, path = word.rpartition("=") if word.startswith("-") else ("", "", word)
    if not os.path.isabs(path):
        return word
    place, here, home = Path(path), Path.cwd(), Path.home()
    if place.is_relative_to(here):
        path = str(place.relative_to(here))
    elif place.is_relative_to(home):
        path = str("~" / place.relative_to(home))
    else:
        path = os.path.join("...", *place.parts[1:][-2:])
    return flag + equals + path


def _quoted(word: str) -> str:
    """A word as a shell reads it, which replaces `~/` only outside of quotation marks."""
    return "~/" + shlex.quote(word[2:]) if word.startswith("~/") else shlex.quote(word)


def _installed_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def usable_cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _this_machine() -> dict[str, Any]:
    """`platform`, `cpu`, usable `cores`, `memory_gb` (GiB) and, where there is one, the `gpu`."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    found: dict[str, Any] = {
        "platform": platform.platform(),
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "cores": usable_cores(),
    }
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        found["memory_gb"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
        if answer.returncode == 0 and answer.stdout.strip():
            found["gpu"] = ", ".join(answer.stdout.strip().splitlines())
    return found


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where metrics come from, as the result files carry it."""

    seed: int | None = None  # of the evaluation
    data_fingerprint: str | None = None  # of the manifest (`mmsr.data.manifest.manifest.fingerprint`)
    command: str = field(default_factory=command_line)
    versions: Mapping[str, str] = field(default_factory=_installed_versions)
    machine: Mapping[str, Any] = field(default_factory=_this_machine)
    seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields that are not None, seconds rounded to milliseconds."""
        seconds = None if self.seconds is None else round(self.seconds, 3)
        fields = vars(self) | {"seconds": seconds}
        return {name: value for name, value in fields.items() if value is not None}

"""Where metrics come from: command, versions, machine, seconds, seed, and the fingerprint of the data."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ORIGIN = ("command", "versions", "machine")  # the fields of a `Provenance` that are always there
VERSIONED = (
    "mmsr",
    "torch",
    "transformers",
    "lightning",
    "datasets",
    "numpy",
    "scikit-learn",
    "rouge-score",
    "sacrebleu",
)


def command_line() -> str:
    """The command line of this process."""
    return " ".join(sys.argv)


def installed_versions() -> dict[str, str]:
    """The versions of Python and of the installed packages that metrics depend on."""
    found = {"python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def this_machine() -> dict[str, Any]:
    """The platform, `cpu`, usable `cores`, `memory_gb` (GiB) and, where there is one, the `gpu`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, Any] = {"platform": platform.platform(), "cpu": _cpu(), "cores": cores}
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
    """Where metrics come from, as metrics.json and the other result files carry it.

    Attributes:
        seed: The seed of the evaluation.
        data_fingerprint: The fingerprint of the manifest (`mmsr.data.manifest.manifest.fingerprint`).
        command: The command line; by default that of this process.
        versions: The versions of Python and of the packages that metrics depend on.
        machine: The machine that computed them.
        seconds: How long that took.
    """

    seed: int | None = None
    data_fingerprint: str | None = None
    command: str = field(default_factory=command_line)
    versions: Mapping[str, str] = field(default_factory=installed_versions)
    machine: Mapping[str, Any] = field(default_factory=this_machine)
    seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields that are not None, seconds rounded to milliseconds."""
        seconds = None if self.seconds is None else round(self.seconds, 3)
        return {
            name: value for name, value in (vars(self) | {"seconds": seconds}).items() if value is not None
        }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()

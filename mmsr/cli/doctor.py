"""What an installation has and lacks, and whether a checkpoint answers: `mmsr doctor`.

Nothing heavy is imported at the top, so that a broken torch is a finding and not a traceback.
"""

from __future__ import annotations

import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from mmsr.evaluation.provenance import usable_cores
from mmsr.extras import install, requirements
from mmsr.model.packaged import DEFAULT

State = Literal["ok", "info", "missing", "broken"]


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        topic: core, extras, devices, programs or checkpoint.
        name: Name of the package, extra, device, program or checkpoint.
        state: ok; info, which is neither good nor bad; missing, which only an extra needs; broken, without
            which the core does not work.
        said: What was found.
        remedy: The command or the advice that repairs it.
    """

    topic: str
    name: str
    state: State
    said: str
    remedy: str | None = None


def examine(checkpoint: str = DEFAULT) -> list[Finding]:
    """Check everything, the checkpoint by letting it answer; what is needed first is checked first."""
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "core": core,
        "devices": devices,
        "checkpoint": lambda: answers(checkpoint),
        "extras": extras,
        "programs": programs,
    }
    found: list[Finding] = []
    for topic, check in checks.items():
        try:
            found += check()
        except Exception as error:  # a broken package may raise anything as it is imported
            reason = str(error).splitlines()[0] if str(error) else "no reason given"
            said = f"{type(error).__name__}: {reason}"
            state: State = "broken" if topic in ("core", "devices", "checkpoint") else "missing"
            found.append(Finding(topic, topic, state, said))
    return found


def broken(findings: list[Finding]) -> bool:
    """Whether the core does not work."""
    return any(finding.state == "broken" for finding in findings)


# ---------------------------------------------------------------------- packages


def unmet(needed: Requirement) -> str | None:
    """What is wrong with a required package; None where it is installed in a version that fits."""
    try:
        there = version(needed.name)
    except PackageNotFoundError:
        return f"{needed.name} is not installed"
    if needed.specifier.contains(there, prereleases=True):
        return None
    return f"{needed.name} {there} is installed, {needed.specifier} is needed"


def core() -> Iterator[Finding]:
    """Python, mmsr, and the packages without which nothing answers."""
    yield Finding("core", "python", "info", f"{platform.python_version()}, {sys.executable}")
    try:
        own = version("mmsr")
    except PackageNotFoundError:
        own = "not installed, run from its folder"
    yield Finding("core", "mmsr", "info", f"{own}, {Path(__file__).parents[1]}")
    for needed in requirements()[""]:
        fault = unmet(needed)
        if fault is None:
            yield Finding("core", needed.name, "ok", version(needed.name))
        else:
            remedy = f"pip install '{needed.name}{needed.specifier}'"
            yield Finding("core", needed.name, "broken", fault, remedy)


def extras() -> Iterator[Finding]:
    """Each extra, and the command that completes it; not those that only gather others."""
    for extra, needed in requirements().items():
        own = [requirement for requirement in needed if requirement.name != "mmsr"]
        if not extra or not own:
            continue
        faults = [fault for requirement in own if (fault := unmet(requirement))]
        if faults:
            yield Finding("extras", extra, "missing", "; ".join(faults), f"pip install 'mmsr[{extra}]'")
        else:
            yield Finding("extras", extra, "ok", ", ".join(requirement.name for requirement in own))


# ---------------------------------------------------------------------- machine


def devices() -> Iterator[Finding]:
    """The devices, and whether they compute in bfloat16."""
    import torch

    able = torch.cpu.get_capabilities()
    units = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "arm_bf16") if able.get(name)]
    said = f"{usable_cores()} cores, {torch.get_num_threads()} threads; {', '.join(units) or 'no wide units'}"
    yield Finding("devices", "cpu", "info", said)
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        memory = f"{about.total_memory / 2**30:.0f} GiB"
        said = f"{about.name}, {memory}, capability {about.major}.{about.minor}"
        yield Finding("devices", f"cuda:{index}", "ok", said)
    if torch.backends.mps.is_available():
        yield Finding("devices", "mps", "ok", "Apple's GPU")
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = any(able.get(name) for name in ("avx512_bf16", "amx_bf16"))
    said = "computed natively" if native else "emulated, hence slower than float32"
    yield Finding("devices", "bfloat16", "info", said)


def programs() -> Iterator[Finding]:
    """Programs beside Python that some commands and tests use."""
    chromium = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    if path := next(filter(None, map(shutil.which, chromium)), None):
        yield Finding("programs", "chromium", "ok", path)
    else:
        remedy = "apt install chromium, or your system's way of installing it"
        yield Finding("programs", "chromium", "missing", "not on PATH; for tests of pages", remedy)
    library: Path | None = None
    with suppress(ImportError):
        import espeakng_loader

        library = Path(espeakng_loader.get_library_path())
    if library is not None and library.is_file():
        yield Finding("programs", "espeak-ng", "ok", str(library))
    else:
        said = "its library is not installed; for the demo corpus"
        yield Finding("programs", "espeak-ng", "missing", said, install("espeakng_loader"))


def answers(checkpoint: str) -> Iterator[Finding]:
    """Load a checkpoint and let it answer an utterance of audio and text."""
    import numpy as np

    from mmsr.inference.loading import load_pipeline

    started = time.perf_counter()
    pipe = load_pipeline(checkpoint)
    loaded = time.perf_counter()
    rate = pipe.processor.feature_extractor.sampling_rate
    tone = 0.05 * np.sin(2 * np.pi * 220 * np.arange(rate, dtype=np.float32) / rate)
    sentence = "so the pharmacist was wonderfully kind"
    pipe({"audio": tone, "text": sentence})  # that it answers is enough: a tone has no sentiment
    answer = pipe({"text": sentence})
    seconds = f"loaded in {loaded - started:.1f} s, answered in {time.perf_counter() - loaded:.1f} s"
    said = f"{seconds} on {pipe.model.device}: {answer['label']} ({answer['score']:.2f})"
    if answer["rationale"]:
        said += f", {answer['rationale']}"
    yield Finding("checkpoint", checkpoint, "ok", said)


# ---------------------------------------------------------------------- for a person


def show(findings: list[Finding], *, width: int = 16) -> None:
    """Print findings, in colour at a terminal without NO_COLOR, and plainly into a pipe."""
    from rich.console import Console
    from rich.text import Text

    colours = {"ok": "green", "info": "", "missing": "yellow", "broken": "bold red"}
    console = Console(highlight=False, soft_wrap=True)
    for topic in dict.fromkeys(finding.topic for finding in findings):
        console.print(Text(topic, style="bold"))
        for finding in (finding for finding in findings if finding.topic == topic):
            line = Text("  ").append(f"{finding.state:8}", style=colours[finding.state])
            console.print(line.append(f"{finding.name:{width}}  {finding.said}"))
            if finding.remedy:
                console.print(Text(" " * (width + 12) + finding.remedy))

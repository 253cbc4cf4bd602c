"""The optional packages: which extra brings each, and what is said where one is missing.

pyproject.toml is the one list of them. Where an import of one is not inside
`needed_for`, the command line tells of it (`mmsr.cli.main`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_PACKAGES = {"comet_ml": "comet-ml", "sklearn": "scikit-learn", "yaml": "pyyaml"}
"""Packages whose modules have other names than they."""


def requirements() -> dict[str, list[Requirement]]:
    """The declared requirements by extra, those of the core under "".

    A checkout's pyproject.toml comes first: what was installed from it may be older.
    """
    project_file = Path(__file__).resolve().parents[1] / "pyproject.toml"
    if project_file.is_file():
        project = tomllib.loads(project_file.read_text(encoding="utf-8"))["project"]
        lines = {"": project["dependencies"], **project["optional-dependencies"]}
        return {extra: [Requirement(line) for line in given] for extra, given in lines.items()}
    declared: dict[str, list[Requirement]] = {}
    for line in requires("mmsr") or ():
        needed = Requirement(line)
        # `extra == "train"`, as the build writes it
        extra = "" if needed.marker is None else str(needed.marker).rpartition("extra == ")[2].strip("\"'")
        declared.setdefault(extra, []).append(needed)
    return declared


def install(module: str) -> str:
    """The command that installs a module, such as `pip install 'mmsr[app]'` for `gradio`."""
    return f"pip install {_argument(module)}"


def missing(what: str, module: str) -> str:
    """The line for who needs a module that is not installed.

    Args:
        what: What needs it, such as `--ray`.
        module: Its name, perhaps with submodules.
    """
    top = module.partition(".")[0]
    return f"{what} needs {_package(top)}: pip install {_argument(top)}"


def _package(module: str) -> str:
    return canonicalize_name(_PACKAGES.get(module, module))


def _argument(module: str) -> str:
    """What pip installs for a module: mmsr with the extra that has it, or a package of no extra."""
    package = _package(module)
    for extra, needed in requirements().items():
        if extra and package in {canonicalize_name(requirement.name) for requirement in needed}:
            return f"'mmsr[{extra}]'"
    return package


def is_installed(module: str) -> bool:
    """Whether a module can be found; it is not imported."""
    return find_spec(module) is not None


def check_installed(what: str, module: str) -> None:
    """Refuse what needs a module before any work is done for it.

    Raises:
        ValueError: The module is not installed.
    """
    if not is_installed(module):
        raise ValueError(missing(what, module))


@contextmanager
def needed_for(what: str, *, raising: type[Exception] = ValueError) -> Iterator[None]:
    """Tell of a missing module that the block imports, and of the extra that has it.

    Args:
        what: What needs the module, such as `--ray`.
        raising: The error's class.

    Raises:
        Exception: Of the class `raising`: a module is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "mmsr":
            raise
        raise raising(missing(what, error.name)) from error

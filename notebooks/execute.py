"""Execute the notebooks, and write them back with outputs that can be reviewed.

    python notebooks/execute.py [NAME ...]

Each runs in a kernel of its own, in an empty folder that is deleted afterwards, and asks no hub. What is
written holds neither players of sound, nor stderr (progress, warnings of libraries), nor the folder's name,
nor when a cell ran. The first error ends it, and leaves the notebook as it was.

Those in the repository are executed with the re-synthesised CREMA-D and with both encoders:

    MMSR_CREMA_D=DIR MMSR_AUDIO_ENCODER=DIR MMSR_TEXT_ENCODER=DIR python notebooks/execute.py
"""

from __future__ import annotations

import os
import re
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
NOTEBOOKS = sorted(HERE.glob("[0-9]*.ipynb"))
# Where notebooks find real speech and encoders (docs/howto/notebooks.md); folders may be relative paths.
MATERIAL = ("MMSR_CREMA_D", "MMSR_AUDIO_ENCODER", "MMSR_TEXT_ENCODER")
LARGEST = 300_000  # bytes of one, with its pictures
_PLAYER = re.compile(r"<audio\b[^>]*></audio>\s*")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def execute(path: Path, folder: str | os.PathLike[str]) -> Any:
    """Run a notebook in a folder; returns it with its outputs, tidied.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised; the message shows it.
    """
    notebook = nbformat.read(path, as_version=4)
    given = {name: os.environ[name] for name in MATERIAL if name in os.environ}
    environment = {
        **{name: value for name, value in os.environ.items() if name != "MPLBACKEND"},  # the kernel's own
        **{name: os.path.abspath(path) for name, path in given.items() if os.path.isdir(path)},
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",  # so small a model gains nothing by more, and sums are then in one order
        "PYTHONPATH": os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "TOKENIZERS_PARALLELISM": "false",
    }
    client = NotebookClient(
        notebook,
        timeout=900,
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
        startup_timeout=300,  # of a busy machine
    )
    client.execute(env=environment)
    return tidied(notebook, os.fspath(folder))


def tidied(notebook: Any, folder: str) -> Any:
    """A notebook without what differs from run to run, or is too large to review."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    names = sorted({folder, os.path.realpath(folder)}, key=len, reverse=True)

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: inner if name == "image/png" else clean(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [clean(inner) for inner in value]
        if not isinstance(value, str):
            return value
        for name in names:
            value = value.replace(f"{name}/", "").replace(name, ".")
        return _ADDRESS.sub("", _PLAYER.sub("", value))

    for number, cell in enumerate(notebook.cells, start=1):
        cell["id"], cell["metadata"] = f"cell-{number:02d}", {}
        if cell.cell_type == "code":
            told = [output for output in cell.outputs if output.get("name") != "stderr"]
            cell["outputs"] = [nbformat.from_dict(clean(output)) for output in told]
    return notebook


def main(names: Sequence[str]) -> None:
    """Execute the notebooks of these names, by default all."""
    chosen = [path for path in NOTEBOOKS if not names or path.name in names or path.stem in names]
    if unknown := set(names) - {name for path in chosen for name in (path.name, path.stem)}:
        sys.exit(f"no such notebook: {', '.join(sorted(unknown))}; there are {[p.name for p in NOTEBOOKS]}")
    before = 0.0  # seconds of CPU of the kernels that have ended
    for path in chosen:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="mmsr-notebook-") as folder:
            notebook = execute(path, folder)
        text = nbformat.writes(notebook) + "\n"
        path.write_text(text, encoding="utf-8")
        kernels = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu, before = kernels.ru_utime + kernels.ru_stime - before, kernels.ru_utime + kernels.ru_stime
        wall = time.perf_counter() - started
        print(f"{path.name}: {wall:.0f} s, {cpu:.0f} s of CPU, {len(text) / 1e3:.0f} kB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

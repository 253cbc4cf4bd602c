"""The notebooks: they can be reviewed, hold no trace of a machine, and run in a folder of their own."""

import importlib.util
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="notebooks need nbformat: pip install 'mmsr[notebooks]'")
nbclient = pytest.importorskip("nbclient", reason="notebooks need nbclient: pip install 'mmsr[notebooks]'")

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# A folder of some machine, such as a home, a temporary one, or that of an installed package.
MACHINE = re.compile(
    r"(?<![\w.:/<])/(?:home|Users|root|tmp|var|opt|usr|work|mnt|private)/|[A-Z]:\\\\|site-packages"
)

_spec = importlib.util.spec_from_file_location("execute", ROOT / "notebooks" / "execute.py")
assert _spec is not None and _spec.loader is not None
execute = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(execute)


def test_there_are_notebooks_and_make_executes_them_all():
    assert [path.name[0] for path in NOTEBOOKS] == ["1", "2", "3", "4"]
    assert execute.NOTEBOOKS == NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_can_be_reviewed(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < execute.LARGEST
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "not executed in order"
    outputs = [output for cell in code for output in cell.outputs]
    assert outputs, "it holds no outputs: make notebooks"
    assert not [output for output in outputs if output.output_type == "error"]
    told = re.sub(r'"image/png": "[^"]*"', "", text)
    assert not MACHINE.search(told), MACHINE.search(told)
    assert "<audio controls" not in told


def test_what_is_left_out_of_an_output(tmp_path):
    mine = {"name": "mine", "display_name": "Mine"}
    cell = nbformat.v4.new_code_cell("...")
    cell.outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="Loading weights"),
        nbformat.v4.new_output("stream", name="stdout", text=f"{tmp_path}/run: <Model at 0x7f00aa>, 3 / 4"),
        nbformat.v4.new_output(
            "display_data", data={"text/html": '<p>a<audio src="data:x"></audio>b', "image/png": "iVBO"}
        ),
    ]
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": mine})
    (tidy,) = execute.tidied(notebook, str(tmp_path)).cells
    stream, display = tidy.outputs
    assert stream.text == "run: <Model>, 3 / 4"
    assert display.data == {"text/html": "<p>ab", "image/png": "iVBO"}
    assert notebook.metadata.kernelspec.name == "python3" and tidy.id == "cell-01"


def test_an_error_in_a_cell_is_told(tmp_path):
    path = tmp_path / "9.ipynb"
    cells = [nbformat.v4.new_code_cell("print(6 * 7)"), nbformat.v4.new_code_cell("raise ValueError('no')")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    with pytest.raises(nbclient.exceptions.CellExecutionError) as error:
        execute.execute(path, tmp_path)
    assert (error.value.ename, error.value.evalue) == ("ValueError", "no")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    for module in ("lightning", "espeakng_loader", "silero_vad", "matplotlib", "librosa", "sklearn"):
        pytest.importorskip(module, reason=f"{module} is not installed: pip install 'mmsr[all,notebooks]'")
    now = execute.execute(path, tmp_path)
    kept = nbformat.read(path, as_version=4)
    # what it is executed on may differ in the last digits, and in its fonts, so only the kinds are compared
    for cell, saved in zip(now.cells, kept.cells, strict=True):
        if cell.cell_type == "code":
            assert [o.output_type for o in cell.outputs] == [o.output_type for o in saved.outputs], (
                cell.source
            )

"""The notebooks: they can be reviewed, hold no trace of a machine, and run in a folder of their own."""

import importlib.util
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="notebooks need nbformat: pip install 'mmsr[notebooks]'")
nbclient = pytest.importorskip("nbclient", reason="notebooks need nbclient: pip install 'mmsr[notebooks]'")

REAL_SPEECH = ("2_fusion_ablation", "3_look_inside", "4_own_corpus")
WITHOUT = "no CREMA-D"  # what a notebook says where it has only the package's clips

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


@pytest.mark.parametrize("name", REAL_SPEECH)
def test_what_is_kept_is_of_real_speech(name):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    told = _printed(notebook)
    assert "CREMA-D" in told and WITHOUT not in told
    text = " ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert "re-synthesised" in text and "opendatacommons.org/licenses/odbl" in text, "it owes a notice"
    assert "MMSR_CREMA_D" in text


def test_folders_of_material_may_be_relative(tmp_path, monkeypatch):
    (tmp_path / "clips").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMSR_CREMA_D", "clips")
    monkeypatch.setenv("MMSR_AUDIO_ENCODER", "openai/whisper-base")  # an id of the Hub stays as it is
    source = "import os\nprint(os.path.isdir(os.environ['MMSR_CREMA_D']), os.environ['MMSR_AUDIO_ENCODER'])"
    path = tmp_path / "9.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
    (tmp_path / "elsewhere").mkdir()
    assert _printed(execute.execute(path, tmp_path / "elsewhere")) == "True openai/whisper-base\n"


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
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    for name in execute.MATERIAL:
        monkeypatch.delenv(name, raising=False)
    told = _printed(_executed(path, tmp_path))
    assert (WITHOUT in told) == (path.stem in REAL_SPEECH)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", REAL_SPEECH)
def test_a_notebook_runs_on_real_speech(name, tmp_path, monkeypatch, shared_data, shared_models):
    folders = ("crema-d", "whisper-base", "multilingual-e5-small-30k")
    for variable, root, folder in zip(
        execute.MATERIAL, (shared_data, shared_models, shared_models), folders, strict=True
    ):
        monkeypatch.setenv(variable, str(root / folder))
    told = _printed(_executed(ROOT / "notebooks" / f"{name}.ipynb", tmp_path))
    assert "CREMA-D" in told and WITHOUT not in told
    assert not MACHINE.search(told) and str(shared_data) not in told


def _printed(notebook):
    """What the code cells printed."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "".join(output.text for output in outputs if output.output_type == "stream")


def _executed(path, folder):
    """A notebook, executed again; it has the kinds of outputs that are kept."""
    for module in (
        "lightning",
        "espeakng_loader",
        "silero_vad",
        "matplotlib",
        "librosa",
        "sklearn",
        "captum",
    ):
        pytest.importorskip(module, reason=f"{module} is not installed: pip install 'mmsr[all,notebooks]'")
    now = execute.execute(path, folder)
    kept = nbformat.read(path, as_version=4)
    # what it is executed on may differ in the last digits, and in its fonts, so only the kinds are compared
    for cell, saved in zip(now.cells, kept.cells, strict=True):
        if cell.cell_type == "code":
            assert [o.output_type for o in cell.outputs] == [o.output_type for o in saved.outputs], (
                cell.source
            )
    return now

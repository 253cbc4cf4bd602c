"""Checkpoints are found by transformers where mmsr was not imported, and by nobody's code where it was."""

import json
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline

from mmsr.inference.loading import load_pipeline
from mmsr.model.configuration import MmsrConfig
from mmsr.model.modeling import MmsrForSentimentReasoning, save_model
from mmsr.model.processing import MmsrProcessor
from mmsr.model.remote import AUTO_MAP

FILES = {"config.json", "mmsr_auto.py", "model.safetensors", "processor_config.json"}


@pytest.fixture
def folder(processor, tmp_path):
    """A checkpoint of a tiny model."""
    vocabulary, settings = len(processor.tokenizer), processor.config_kwargs()
    model = MmsrForSentimentReasoning(MmsrConfig.from_preset("tiny", vocab_size=vocabulary, **settings))
    save_model(model, processor, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_a_checkpoint_has_the_file_and_is_without_copied_code(folder):
    assert {path.name for path in folder.iterdir()} >= FILES
    assert [path.name for path in folder.glob("*.py")] == ["mmsr_auto.py"]
    assert json.loads((folder / "config.json").read_text())["auto_map"] == AUTO_MAP
    assert set(json.loads((folder / "processor_config.json").read_text())["auto_map"]) == {"AutoProcessor"}
    source = (folder / "mmsr_auto.py").read_text()
    assert {name.rpartition(".")[2] for name in AUTO_MAP.values()} <= set(source.replace(",", " ").split())


def test_a_process_without_mmsr_finds_it_by_the_file_and_saves_it_again(folder, tmp_path, run_afresh):
    code = """
import sys
from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline
folder, again = sys.argv[1:]
assert "mmsr" not in sys.modules
trusted = {"trust_remote_code": True}
parts = [auto.from_pretrained(folder, **trusted) for auto in (AutoConfig, AutoProcessor, AutoModel)]
for part in parts:
    part.save_pretrained(again)
pipe = pipeline("sentiment-reasoning", model=again, **trusted)
assert type(pipe.model) is type(parts[2]) and pipe({"text": "so kind"})["label"]
print(*(f"{type(part).__module__}.{type(part).__name__}" for part in (*parts, pipe)))
"""
    again = tmp_path / "again"
    done = run_afresh(code, folder, again)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        "mmsr.model.configuration.MmsrConfig",
        "mmsr.model.processing.MmsrProcessor",
        "mmsr.model.modeling.MmsrForSentimentReasoning",
        "mmsr.inference.pipeline.SentimentReasoningPipeline",
    ]
    assert [path.name for path in again.glob("*.py")] == ["mmsr_auto.py"]
    assert json.loads((again / "config.json").read_text())["auto_map"] == AUTO_MAP


def test_where_mmsr_is_missing_its_installation_is_named(folder, run_afresh):
    code = """
import sys
from transformers import AutoConfig
class Absent:
    def find_spec(self, name, *_):
        if name == "mmsr":
            raise ModuleNotFoundError("No module named 'mmsr'", name=name)
sys.meta_path.insert(0, Absent())
AutoConfig.from_pretrained(sys.argv[1], trust_remote_code=True)
"""
    done = run_afresh(code, folder)
    assert "ImportError: This modeling file requires" in done.stderr
    assert done.stderr.strip().endswith("mmsr. Run `pip install mmsr`")


def test_after_the_import_nothing_asks_for_trust_or_runs_the_file(folder):
    trap = "raise SystemExit('code of the folder was run')\n"
    (folder / "mmsr_auto.py").write_text(trap)
    for options in ({}, {"trust_remote_code": True}):
        assert type(AutoConfig.from_pretrained(folder, **options)) is MmsrConfig
        assert type(AutoProcessor.from_pretrained(folder, **options)) is MmsrProcessor
        assert type(AutoModel.from_pretrained(folder, **options)) is MmsrForSentimentReasoning
        assert pipeline("sentiment-reasoning", model=str(folder), **options)({"text": "so kind"})["label"]
    assert load_pipeline(folder)({"text": "so kind"})["label"]


def test_a_checkpoint_without_the_file_loads_and_gets_it(folder, tmp_path):
    (folder / "mmsr_auto.py").unlink()
    for name in ("config.json", "processor_config.json"):
        content = json.loads((folder / name).read_text())
        del content["auto_map"]
        (folder / name).write_text(json.dumps(content))
    pipe = load_pipeline(folder)
    pipe.save_pretrained(tmp_path / "new")
    assert {path.name for path in Path(tmp_path / "new").iterdir()} >= FILES
    assert json.loads((tmp_path / "new" / "config.json").read_text())["auto_map"] == AUTO_MAP

"""Each import order needs a process of its own, since what was imported before is what is tested."""

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from transformers import BertConfig, BertModel

import mmsr

LIGHT = """
import mmsr, sys
heavy = {"torch", "transformers", "lightning"} & set(sys.modules)
assert not heavy, f"import mmsr brought {heavy}"
"""

MODEL_IS_KNOWN = """
import mmsr
from transformers import MODEL_MAPPING, AutoConfig, AutoModel
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

config = AutoConfig.for_model("mmsr", fusion="text_only", decoder_type="none", rationale_format="none",
    text_encoder={"model_type": "bert", "vocab_size": 8, "hidden_size": 8, "num_hidden_layers": 1,
                  "num_attention_heads": 1, "intermediate_size": 8})
assert type(config) is mmsr.MmsrConfig
assert type(AutoModel.from_config(config)) is mmsr.MmsrForSentimentReasoning
assert MODEL_MAPPING[type(config)] is mmsr.MmsrForSentimentReasoning
assert PROCESSOR_MAPPING[type(config)] is mmsr.MmsrProcessor
"""

PIPELINE_IS_KNOWN = """
import numpy
from transformers.pipelines import PIPELINE_REGISTRY, pipeline

task = PIPELINE_REGISTRY.supported_tasks["sentiment-reasoning"]
assert task["impl"] is mmsr.SentimentReasoningPipeline and task["pt"] == (mmsr.MmsrForSentimentReasoning,)
pipe = pipeline("sentiment-reasoning", model=mmsr.checkpoint("demo"))
assert type(pipe.model) is mmsr.MmsrForSentimentReasoning and type(pipe.processor) is mmsr.MmsrProcessor
answer = pipe({"audio": (0.1 * numpy.random.randn(8_000), 8_000)})
assert answer["label"] in pipe.model.config.labels and "<" in answer._repr_html_()
"""

CHECKPOINT_LOADS = """
import mmsr
from transformers import AutoConfig, AutoModel, AutoProcessor

model = AutoModel.from_pretrained(mmsr.checkpoint("demo"))
assert type(model) is mmsr.MmsrForSentimentReasoning
assert type(AutoConfig.from_pretrained(mmsr.checkpoint("demo"))) is mmsr.MmsrConfig
assert type(AutoProcessor.from_pretrained(mmsr.checkpoint("demo"))) is mmsr.MmsrProcessor
"""

ANOTHER_MODEL = """
import sys
import mmsr
from transformers import AutoModel

assert "transformers.modeling_utils" not in sys.modules, "AutoModel brought transformers' model code"
assert type(AutoModel.from_pretrained({folder!r})).__name__ == "BertModel"
ours = {{name for name in sys.modules if name.partition(".")[0] == "mmsr"}}
light = {{"mmsr", "mmsr.messages", "mmsr.model"}}
light |= {{f"mmsr.model.{{name}}" for name in ("auto", "configuration", "presets", "remote")}}
assert ours == light, f"another model brought {{ours - light}}"
assert "datasets" not in sys.modules
"""

AN_ANSWER = """
import sys
from mmsr.cli.main import main

main(["predict", "--text", "kind words", "--model", "demo"])
slow = {"datasets", "lightning", "mmsr.data.manifest.tables"} & set(sys.modules)
assert not slow, f"an answer to a text brought {slow}"
"""


@pytest.fixture
def run(run_afresh: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[[str], None]:
    """Runs a program that must end well, in a process that has imported torch alone."""

    def run(code: str) -> None:
        done = run_afresh(code)
        assert done.returncode == 0, done.stderr

    return run


def test_the_import_is_light():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "code",
    [
        "import mmsr" + MODEL_IS_KNOWN + PIPELINE_IS_KNOWN,
        "import transformers.pipelines" + MODEL_IS_KNOWN + PIPELINE_IS_KNOWN,
        "import mmsr.model.presets" + MODEL_IS_KNOWN,
        "import mmsr.model.encoders.registry" + MODEL_IS_KNOWN,
        "import mmsr.model.decoders" + MODEL_IS_KNOWN,
        "import mmsr.model.processing" + MODEL_IS_KNOWN,
        CHECKPOINT_LOADS,
    ],
    ids=["mmsr", "transformers", "presets", "encoders", "decoders", "processing", "checkpoint"],
)
def test_transformers_knows_the_model_whatever_is_imported_first(run: Callable[[str], None], code: str):
    run(code)


def test_another_model_loads_without_ours(run: Callable[[str], None], tmp_path: Path):
    config = BertConfig(
        vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    BertModel(config).save_pretrained(tmp_path)
    run(ANOTHER_MODEL.format(folder=str(tmp_path)))


def test_a_text_is_answered_without_what_reads_tables(run: Callable[[str], None]):
    run(AN_ANSWER)


def test_every_public_name_is_there():
    for name in mmsr.__all__:
        assert getattr(mmsr, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'mmsr' has no attribute 'MmsrModel'"):
        _ = mmsr.MmsrModel


def test_the_version_is_the_installed_one():
    try:
        installed = version("mmsr")
    except PackageNotFoundError:
        pytest.skip("mmsr is not installed, only on the path")
    assert mmsr.__version__ == installed

"""Each import order needs a process of its own, since what was imported before is what is tested."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import pytest

import mmsr

LIGHT = """
import mmsr, sys
heavy = {"torch", "transformers", "lightning"} & set(sys.modules)
assert not heavy, f"import mmsr brought {heavy}"
"""

MODEL_IS_KNOWN = """
import mmsr
from transformers import AutoConfig, AutoModel
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

config = AutoConfig.for_model("mmsr")
assert type(config) is mmsr.MmsrConfig
assert AutoModel._model_mapping[type(config)] is mmsr.MmsrForSentimentReasoning
assert PROCESSOR_MAPPING[type(config)] is mmsr.MmsrProcessor
"""

PIPELINE_IS_KNOWN = """
import numpy
from transformers.pipelines import PIPELINE_REGISTRY

task = PIPELINE_REGISTRY.supported_tasks["sentiment-reasoning"]
assert task["impl"] is mmsr.SentimentReasoningPipeline and task["pt"] == (mmsr.MmsrForSentimentReasoning,)
assert mmsr.SentimentReasoningPipeline.default_load_audio((numpy.ones(8), 16_000)).shape == (8,)
"""


@pytest.mark.parametrize(
    "code",
    [
        LIGHT + MODEL_IS_KNOWN + PIPELINE_IS_KNOWN,
        "import transformers.pipelines" + MODEL_IS_KNOWN + PIPELINE_IS_KNOWN,
        "import mmsr.model.encoders.registry" + MODEL_IS_KNOWN,
        "import mmsr.model.decoders" + MODEL_IS_KNOWN,
        "import mmsr.model.processing" + MODEL_IS_KNOWN,
    ],
    ids=["mmsr", "transformers", "encoders", "decoders", "processing"],
)
def test_transformers_knows_the_model_whatever_is_imported_first(code: str):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


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

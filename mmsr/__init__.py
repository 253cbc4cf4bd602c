"""mmsr, multimodal sentiment reasoning: speech and its transcript in, a sentiment and the reason for it out.

After `import mmsr`, transformers knows the model: `AutoConfig`, `AutoProcessor`, `AutoModel` and
`pipeline("sentiment-reasoning", model=...)`, which without a model takes the packaged `checkpoint("demo")`.
The import is light: neither torch nor transformers is loaded
until one of them is used.
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    from mmsr.data.audio.decoding import Audio
    from mmsr.inference.loading import load_pipeline
    from mmsr.inference.packaged import checkpoint
    from mmsr.inference.pipeline import SentimentReasoningPipeline
    from mmsr.model.configuration import MmsrConfig
    from mmsr.model.modeling import MmsrForSentimentReasoning
    from mmsr.model.processing import MmsrProcessor

__all__ = [
    "Audio",
    "MmsrConfig",
    "MmsrForSentimentReasoning",
    "MmsrProcessor",
    "SentimentReasoningPipeline",
    "checkpoint",
    "load_pipeline",
]

_HOMES = {
    "Audio": "mmsr.data.audio.decoding",
    "MmsrConfig": "mmsr.model.configuration",
    "MmsrForSentimentReasoning": "mmsr.model.modeling",
    "MmsrProcessor": "mmsr.model.processing",
    "SentimentReasoningPipeline": "mmsr.inference.pipeline",
    "checkpoint": "mmsr.inference.packaged",
    "load_pipeline": "mmsr.inference.loading",
}

# Each of our modules registers its own class with transformers when it is imported. It is imported as soon as
# the transformers module that keeps the register is, and not before: `import mmsr` would otherwise cost all
# of torch.
_REGISTERS = {
    "transformers.models.auto.configuration_auto": "mmsr.model.configuration",
    "transformers.models.auto.processing_auto": "mmsr.model.processing",
    "transformers.models.auto.modeling_auto": "mmsr.model.modeling",
    "transformers.pipelines": "mmsr.inference.pipeline",
}


def _register(module: Any) -> None:
    importlib.import_module(_REGISTERS[module.__name__])


for _name in _REGISTERS:
    wrapt.register_post_import_hook(_register, _name)


@functools.lru_cache(maxsize=1)  # a pipeline that is called again asks again
def _open_asr(model: str) -> Any:
    return importlib.import_module("mmsr.speech.recogniser").Transcriber(model)


def _complete_pipeline(module: Any) -> None:
    """Give the pipeline what its room does not know: a reader of audio, a face for answers, a default."""
    pipeline = module.SentimentReasoningPipeline
    pipeline.default_load_audio = staticmethod(importlib.import_module("mmsr.data.audio.decoding").Audio())
    pipeline.default_open_asr = staticmethod(_open_asr)
    pipeline.default_dress = staticmethod(importlib.import_module("mmsr.inference.answer").Answer)
    task = module.PIPELINE_REGISTRY.supported_tasks[module.TASK]
    packaged = importlib.import_module("mmsr.inference.packaged")
    # a folder, and no revision of it: the Hub is not asked
    task["default"] = {"model": (str(packaged.FOLDER / packaged.DEFAULT), None)}


wrapt.register_post_import_hook(_complete_pipeline, "mmsr.inference.pipeline")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("mmsr")
    raise AttributeError(f"module 'mmsr' has no attribute {name!r}")

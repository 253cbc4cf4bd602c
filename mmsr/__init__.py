"""mmsr, multimodal sentiment reasoning: speech and its transcript in, a sentiment and the reason for it out.

After `import mmsr`, transformers knows the model: `AutoConfig`, `AutoProcessor`, `AutoModel` and
`pipeline("sentiment-reasoning", model=...)`, which without a model takes the packaged `checkpoint("base")`.
The import is light: torch and transformers are loaded when one of them is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    from mmsr.data.audio.decoding import Audio
    from mmsr.evaluation.error_rates import word_error_rate
    from mmsr.inference.loading import load_pipeline
    from mmsr.inference.pipeline import SentimentReasoningPipeline
    from mmsr.model.configuration import MmsrConfig
    from mmsr.model.modeling import MmsrForSentimentReasoning
    from mmsr.model.packaged import checkpoint
    from mmsr.model.processing import MmsrProcessor

__all__ = [
    "Audio",
    "MmsrConfig",
    "MmsrForSentimentReasoning",
    "MmsrProcessor",
    "SentimentReasoningPipeline",
    "checkpoint",
    "load_pipeline",
    "word_error_rate",
]

_HOMES = {
    "Audio": "mmsr.data.audio.decoding",
    "MmsrConfig": "mmsr.model.configuration",
    "MmsrForSentimentReasoning": "mmsr.model.modeling",
    "MmsrProcessor": "mmsr.model.processing",
    "SentimentReasoningPipeline": "mmsr.inference.pipeline",
    "checkpoint": "mmsr.model.packaged",
    "load_pipeline": "mmsr.inference.loading",
    "word_error_rate": "mmsr.evaluation.error_rates",
}

# Each of our modules registers a class with transformers when it is imported. It is imported right after the
# module of transformers that keeps the register, so that `import mmsr` does not import torch.
_REGISTRATIONS = {
    "transformers.models.auto.configuration_auto": "mmsr.model.configuration",
    "transformers.models.auto.modeling_auto": "mmsr.model.auto",
    "transformers.models.auto.processing_auto": "mmsr.model.processing",
    "transformers.pipelines": "mmsr.inference.pipeline",
}


def _register(module: Any) -> None:
    importlib.import_module(_REGISTRATIONS[module.__name__])


for _name in _REGISTRATIONS:
    wrapt.register_post_import_hook(_register, _name)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("mmsr")
    raise AttributeError(f"module 'mmsr' has no attribute {name!r}")

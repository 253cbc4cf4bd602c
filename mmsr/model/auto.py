"""Registers the model with `AutoModel`; its class, which is slow to import, is imported on first use."""

from typing import Any

import wrapt
from transformers import MODEL_MAPPING

from mmsr.model.configuration import MmsrConfig

_model_class: Any = wrapt.lazy_import("mmsr.model.modeling", "MmsrForSentimentReasoning")
# `AutoModel.register` would ask the class for its config, and so import it.
MODEL_MAPPING.register(MmsrConfig, _model_class)

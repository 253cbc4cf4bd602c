"""What `AutoModel` makes of an `MmsrConfig`.

The class is imported when the first model is built, not when `AutoModel` is: it needs all of transformers'
model code, for which programs that load another model, or none, would wait.
"""

from typing import Any

import wrapt
from transformers import MODEL_MAPPING

from mmsr.model.configuration import MmsrConfig

_model_class: Any = wrapt.lazy_import("mmsr.model.modeling", "MmsrForSentimentReasoning")
# `AutoModel.register` would ask the class for its config, and so import it.
MODEL_MAPPING.register(MmsrConfig, _model_class)

"""BERTScore of rationales with a local text encoder, by the authors' package bert-score.

Zhang et al. (2020), "BERTScore: Evaluating Text Generation with BERT": each token is matched to the nearest
token of the other text, by the cosine of their contextual embeddings. Without idf weights, and without
rescaling, for which few models and languages have a baseline. So scores are high and close together, and
comparable only between texts scored by the same model and layer.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mmsr.extras import needed_for


class BertScorer:
    """Scores pairs of texts, each pair once.

    Attributes:
        settings: The settings that scores depend on, as metrics.json carries them.
    """

    def __init__(
        self, model: str | os.PathLike[str], *, layer: int | None = None, batch_size: int = 64
    ) -> None:
        """Load the encoder, in float32, on the GPU if there is one.

        Args:
            model: Folder or Hub id of a transformers text encoder.
            layer: The layer whose hidden states are compared, from 1; by default the one that the authors
                chose for a model of that name, else the last.
            batch_size: Texts at a time.

        Raises:
            ValueError: bert-score is not installed, or the encoder cannot be read or has no such layer.
        """
        with needed_for("BERTScore"):
            from bert_score.utils import get_model, get_tokenizer, model2layers
        import torch
        from transformers import AutoConfig

        name = str(model)
        with _reading(name):
            config = AutoConfig.from_pretrained(name).get_text_config()
            layers = int(config.num_hidden_layers)
        if layer is None:
            layer = model2layers.get(name) or model2layers.get(Path(name).name) or layers
        if not 1 <= layer <= layers:
            raise ValueError(f"BERTScore encoder {name} has no layer {layer}; accepted: 1 to {layers}")
        with _reading(name):
            self._model = get_model(name, layer).float()  # half precision is slow, and coarse, on a CPU
            self._tokenizer = get_tokenizer(name, use_fast=True)
        longest = getattr(config, "max_position_embeddings", 512) - 2  # RoBERTa's positions begin at 2
        self._tokenizer.model_max_length = min(self._tokenizer.model_max_length, longest)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model.to(self._device)
        self._batch_size = batch_size
        self._known: dict[tuple[str, str], Sequence[float]] = {}
        self.settings: dict[str, Any] = {
            "model": Path(name).name if os.path.isdir(name) else name,
            "layer": layer,
            "idf": False,
            "rescaled": False,
            "bert-score": version("bert-score"),
        }

    def __call__(self, references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
        """Return precision, recall and F1 of each pair, `[n, 3]`; zeros where a text is empty."""
        pairs = [(r.strip(), h.strip()) for r, h in zip(references, hypotheses, strict=True)]
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self._known]
        if scored := [pair for pair in new if all(pair)]:
            self._known |= zip(scored, self._score(scored), strict=True)
        self._known |= {pair: (0.0, 0.0, 0.0) for pair in new if not all(pair)}
        return np.array([self._known[pair] for pair in pairs], dtype=float).reshape(len(pairs), 3)

    def _score(self, pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
        from bert_score.utils import bert_cos_score_idf

        weights: dict[int | None, float] = defaultdict(lambda: 1.0)
        weights |= {self._tokenizer.cls_token_id: 0.0, self._tokenizer.sep_token_id: 0.0}
        references, hypotheses = zip(*pairs, strict=True)
        options = {"device": self._device, "batch_size": self._batch_size}
        scores = bert_cos_score_idf(
            self._model, list(references), list(hypotheses), self._tokenizer, weights, **options
        )
        return scores.tolist()


@contextmanager
def _reading(model: str) -> Iterator[None]:
    """Turns errors of reading an encoder into one ValueError, and hides warnings of missing poolers."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except Exception as error:  # transformers, safetensors and bert-score raise all kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"BERTScore encoder {model} cannot be read ({reason}); accepted: a folder or Hub id of a "
            "transformers text encoder"
        ) from error
    finally:
        logging.set_verbosity(verbosity)

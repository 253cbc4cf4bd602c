"""BERTScore of rationales with any local text encoder, computed by the authors' own package, bert-score.

Zhang et al. (2020), "BERTScore: Evaluating Text Generation with BERT". Of each token of one text the nearest
token of the other is sought by the cosine of their contextual embeddings. Without idf weights, and without
rescaling against a baseline: that exists for few models and languages. So figures lie high and close
together, and are comparable only under the same model and layer.

references, hypotheses ─► encoder, layer ─► cosines ─► greedy matching ─► precision, recall, F1 `[n, 3]`
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np


class BertScorer:
    """Scores pairs of texts; each pair once, since the same ones come again in groups and conditions.

    Attributes:
        settings: What the figures depend on, as metrics.json carries it.
    """

    def __init__(
        self, model: str | os.PathLike[str], *, layer: int | None = None, batch_size: int = 64
    ) -> None:
        """Load the encoder, in float32, on the first accelerator.

        Args:
            model: Folder or Hub id of a transformers text encoder.
            layer: Whose hidden states are compared, from 1; by default the one that the authors chose for a
                model of that name, and the last of any other.
            batch_size: Texts at a time.

        Raises:
            ValueError: bert-score is not installed, the encoder cannot be read, or has no such layer.
        """
        try:
            from bert_score.utils import get_model, get_tokenizer, model2layers
        except ImportError as error:
            raise ValueError("BERTScore needs bert-score: pip install 'mmsr[report]'") from error
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
        """Return precision, recall and F1 of each pair, `[n, 3]`; zeros where a text is empty.

        Raises:
            ValueError: The lengths differ.
        """
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
        sides = ([pair[side] for pair in pairs] for side in (0, 1))
        scores = bert_cos_score_idf(
            self._model,
            *sides,
            self._tokenizer,
            weights,
            device=self._device,
            batch_size=self._batch_size,
        )
        return scores.tolist()


@contextmanager
def _reading(model: str) -> Iterator[None]:
    """A block that reads an encoder: one clear error, and no word of a pooler that the checkpoint lacks."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
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

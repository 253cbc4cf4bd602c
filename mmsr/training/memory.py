"""Fills a model's memory of rationales (`mmsr.model.memory`) from training rows, after its training.

training rows with label and rationale ─► without duplicates, at most `memory_size` ─► model ─► memory
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.data.manifest.manifest import utterances
from mmsr.languages import language_code
from mmsr.model.configuration import RETRIEVAL
from mmsr.model.memory import RationaleMemory, RememberedRow
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.progress import show_progress
from mmsr.records import Utterance

_SHOWN = 1000  # rows, from which on progress is shown


@torch.inference_mode()
def fill_memory(model: MmsrForSentimentReasoning, data: MmsrDataModule) -> str:
    """Give a model without a decoder a memory, in place of one that it has; its weights stay as they are.

    Its `rationale_format` becomes `retrieval`. Rows that say the same of the same input are kept once. Of
    more than `config.memory_size` rows, so many are kept, evenly spread, since neighbouring ones may come
    from one recording.

    Args:
        model: A trained model.
        data: Its training rows, attached to the model's processor; no other split is read.

    Returns:
        A line about the memory.

    Raises:
        ValueError: The model has a decoder, or no training row has label, rationale and what the embedding is
            of.
    """
    if model.decoder is not None:
        raise ValueError(
            f"a memory of rationales with decoder_type={model.config.decoder_type!r}; accepted: a model "
            "without a decoder (rationale_format='retrieval' or 'none')"
        )
    model.config.rationale_format = RETRIEVAL
    rows = utterances(data.train_rows)
    by_text = model.config.uses_text and model.config.memory_embedding == "text"
    known: dict[tuple[Any, ...], int] = {}
    told = 0
    for place, row in enumerate(rows):
        said = getattr(row, data.text_column)
        if row.label is None or not row.has("rationale") or (by_text and not said):
            continue
        told += 1
        words = None if said is None else " ".join(said.casefold().split())
        known.setdefault((words, None if by_text else row.audio, _remembered(row)), place)
    if not known:
        needed = f"label, rationale and {data.text_column}" if by_text else "label and rationale"
        raise ValueError(
            f"{data.source}: no training row has {needed}, and rationale_format='retrieval' answers with "
            "those of training rows; accepted: such rows, or rationale_format none for the label alone"
        )
    places = np.array(list(known.values()))
    if len(places) > model.config.memory_size:
        places = places[np.linspace(0, len(places) - 1, model.config.memory_size).round().astype(int)]
    vectors = _embeddings(model, data, places)
    model.memory = RationaleMemory(
        torch.nn.functional.normalize(vectors, dim=1).half(),
        [_remembered(rows[place]) for place in places],
        source=data.source,
    )
    languages = ", ".join(f"{name} {count:,}" for name, count in model.memory.languages().items())
    line = f"memory of {len(places):,} training rows with their rationales ({languages})"
    return line if len(places) == told else f"{line}; {told:,} have one, {told - len(known):,} say it twice"


def _remembered(row: Utterance) -> RememberedRow:
    return RememberedRow(str(row.label), language_code(row.language), str(row.rationale).strip())


def _embeddings(model: MmsrForSentimentReasoning, data: MmsrDataModule, places: np.ndarray) -> Tensor:
    """The model's embeddings `[n, e]` of training rows."""
    was_training = model.training
    model.eval()
    show = show_progress() if len(places) >= _SHOWN else None
    found = torch.zeros(len(places), model.encoder.embedding_width)
    done = 0
    for batch, inputs in data.batches_of("train", places):
        given: Any = {name: value.to(model.device) for name, value in inputs.items()}
        embedding = model.encoder(**given, return_dict=True).embedding
        found[batch] = embedding.float().cpu()
        done += len(batch)
        if show is not None:
            show("remembering rationales", done, len(places))
    model.train(was_training)
    return found

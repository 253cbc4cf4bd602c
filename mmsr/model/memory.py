"""A memory of training rows, whose rationales a model without a decoder answers with.

    utterance ─► encoder ─► embedding [e] ─┐
    training rows ─► `RationaleMemory` ────┴─► the nearest of a label ─► consensus (mmsr.inference.retrieval)

`mmsr.training.memory` fills it at the end of a training. It is two files beside the weights: the unit vectors
in rationale_memory.safetensors, and what people wrote in rationale_memory.json, to be read with any editor.
The texts are those of training rows. Without both files the model gives labels alone.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.utils import cached_file

VECTORS, TEXTS = "rationale_memory.safetensors", "rationale_memory.json"
"""The files of a checkpoint that hold its memory."""
_KEY = "vectors"
_HUB = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")


class RememberedRow(NamedTuple):
    """What is kept of a training row beside its vector: label, language (None if unknown) and rationale."""

    label: str
    language: str | None
    rationale: str


class RationaleMemory:
    """Training rows by their vectors.

    Args:
        vectors: Embeddings of the rows as unit vectors, float16 `[n, e]`.
        rows: Their labels, languages and rationales `[n]`.
        source: Name of the data that they come from.

    Raises:
        ValueError: There are no rows, or not as many as vectors, or vectors of another type.
    """

    def __init__(self, vectors: Tensor, rows: Sequence[RememberedRow], *, source: str) -> None:
        if vectors.ndim != 2 or vectors.dtype != torch.float16 or len(vectors) != len(rows) or not rows:
            raise ValueError(
                f"a memory of {len(rows):,} rationales with vectors of shape {list(vectors.shape)} and "
                f"{vectors.dtype}; accepted: one row or more, and [rows, width] in float16"
            )
        self.vectors = vectors
        self.rows = list(rows)
        self.source = source

    def __len__(self) -> int:
        return len(self.rows)

    def languages(self) -> dict[str, int]:
        """The number of rows in each language ("unknown" without one), the most frequent first."""
        return dict(Counter(row.language or "unknown" for row in self.rows).most_common())

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write both files into a folder."""
        texts = list(dict.fromkeys(row.rationale for row in self.rows))
        place = {text: number for number, text in enumerate(texts)}
        content = {
            "source": self.source,
            "rationales": texts,
            "rows": [[row.label, row.language, place[row.rationale]] for row in self.rows],
        }
        save_file({_KEY: self.vectors.contiguous()}, Path(folder, VECTORS))
        Path(folder, TEXTS).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, checkpoint: str | os.PathLike[str], **options: Any) -> Self | None:
        """Load the memory of a checkpoint, a folder or Hub id; None where it has none.

        Args:
            checkpoint: The folder or id.
            **options: Of `from_pretrained`, such as `revision`; those that do not say where files are do
                nothing.

        Raises:
            ValueError: One of the two files is missing, or they do not belong together.
        """
        where = {name: options[name] for name in _HUB if name in options}
        found = {
            name: cached_file(
                os.fspath(checkpoint),
                name,
                _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False,
                **where,
            )
            for name in (VECTORS, TEXTS)
        }
        missing = [name for name, path in found.items() if path is None]
        if len(missing) == len(found):
            return None
        if missing:
            raise ValueError(
                f"{checkpoint} lacks {missing[0]}; accepted: {VECTORS} and {TEXTS}, which belong together, "
                "or neither"
            )
        try:
            content = json.loads(Path(str(found[TEXTS])).read_text(encoding="utf-8"))
            texts = content["rationales"]
            rows = [
                RememberedRow(label, language, texts[number]) for label, language, number in content["rows"]
            ]
            return cls(load_file(str(found[VECTORS]))[_KEY], rows, source=content["source"])
        except (ValueError, LookupError, TypeError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"{checkpoint}: {VECTORS} and {TEXTS} cannot be read ({reason}); accepted: both as they were "
                "saved, or neither"
            ) from error

    @staticmethod
    def remove(folder: str | os.PathLike[str]) -> None:
        """Delete both files from a folder that has them."""
        paths = [Path(folder, name) for name in (VECTORS, TEXTS)]
        if all(path.is_file() for path in paths):
            for path in paths:
                path.unlink()

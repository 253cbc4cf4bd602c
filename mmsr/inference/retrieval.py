"""Rationales from a model's memory of training rows.

embedding [e], label, language ─► the nearest remembered rows ─► the rationale most like all of theirs

The nearest rationale by itself is a poor answer; the consensus of many is one that most of them agree with
(minimum Bayes risk, see `mmsr.evaluation.similarity.consensus`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmsr.evaluation.similarity import ExplainedLabels, consensus, nearest
from mmsr.extras import needed_for
from mmsr.model.memory import RationaleMemory


class Retriever:
    """Answers from a memory.

    Args:
        memory: The memory.
        number: Nearest rows from whose rationales one is chosen.
    """

    def __init__(self, memory: RationaleMemory, *, number: int) -> None:
        self.memory = memory
        self.number = number
        self._vectors = memory.vectors.float()
        self._explained = ExplainedLabels(
            [row.label for row in memory.rows], [row.language for row in memory.rows]
        )

    def rationale(self, embedding: Tensor, *, label: str, language: str | None) -> str | None:
        """The rationale of a label in a language, or in any where the memory has none in that one.

        Args:
            embedding: What the model computed of the utterance `[e]`. If it is zero, nothing is known, and
                the rows nearest to the mean of all of the label are asked.
            label: The label to explain.
            language: A code or name; None where unknown.

        Returns:
            The rationale; None where no remembered row has the label.

        Raises:
            ValueError: The extra `report` is not installed.
        """
        group = self._explained.group(label, language)
        if group is None:
            return None
        places = self._explained.places(group)
        known = self._vectors[places]
        asked = embedding.float().cpu() if embedding.any() else known.mean(0)
        order = nearest(torch.nn.functional.normalize(asked, dim=0)[None], known)[0]
        texts = [self.memory.rows[places[place]].rationale for place in order[: self.number]]
        with needed_for("rationale_format='retrieval'"):
            return texts[consensus(texts)]

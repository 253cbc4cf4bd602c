"""Choice of the training rows that a prompt shows.

Never a row that is evaluated, and never one with the utterance's own transcript.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import numpy as np
import torch

from mmsr.evaluation.similarity import Neighbours
from mmsr.inference.language_models.prompt import Layout
from mmsr.inference.language_models.settings import ExampleSettings
from mmsr.records import Utterance

Chooser = Callable[[Sequence[Utterance]], list[list[Utterance]]]
"""Chooses the examples of each utterance, in the order in which they are shown."""


def chooser(
    settings: ExampleSettings,
    train_rows: Sequence[Utterance],
    *,
    layout: Layout,
    held_out: Collection[str] = (),
) -> Chooser:
    """The choice of examples that the settings ask for.

    Args:
        settings: The settings.
        train_rows: Rows to choose from. Those without transcript, label or, where answers have rationales,
            rationale are left out.
        layout: The lines of an answer.
        held_out: Ids of rows that may not be chosen, since they are evaluated.

    Raises:
        ValueError: There are fewer rows to choose from than are wanted, or the encoder cannot be read.
    """
    if settings.choose == "none":
        return lambda utterances: [[] for _ in utterances]
    needed = ["label", settings.column, *(["rationale"] if layout.writes_rationales else [])]
    kept = [
        replace(row, text=getattr(row, settings.column), audio=None)
        for row in train_rows
        if row.id not in held_out and all(map(row.has, needed))
    ]
    if len(kept) <= settings.number:  # one may have the utterance's own transcript
        raise ValueError(
            f"examples: {len(kept):,} training rows have {', '.join(needed)} and are not evaluated; "
            f"accepted: more than the {settings.number} that are shown, fewer examples, or choose: none"
        )
    if settings.choose == "random":
        return random_examples(kept, layout.labels, number=settings.number, seed=settings.seed)
    encoder = TextEncoder(str(settings.encoder), prefix=settings.prefix)
    return nearest_examples(kept, encoder, number=settings.number)


def random_examples(
    rows: Sequence[Utterance], labels: Sequence[str], *, number: int, seed: int = 0
) -> Chooser:
    """The same rows for all utterances, as many of each label as there are, in a random order.

    Where one has the utterance's own transcript, the next row of its label takes its place.
    """
    generator = np.random.default_rng(seed)
    groups = {label: [row for row in rows if row.label == label] for label in labels}
    turns = [[group[i] for i in generator.permutation(len(group))] for group in groups.values()]
    # one of each label in turn
    ranked = [turn[i] for i in range(max(map(len, turns))) for turn in turns if i < len(turn)]
    order = generator.permutation(number)

    def choose(utterances: Sequence[Utterance]) -> list[list[Utterance]]:
        return [[found[i] for i in order] for found in (_chosen(ranked, row, number) for row in utterances)]

    return choose


def nearest_examples(
    rows: Sequence[Utterance], encode: Callable[[Sequence[str]], torch.Tensor], *, number: int
) -> Chooser:
    """The rows with the nearest transcripts (Liu et al. 2022, arXiv 2101.06804), the nearest one last.

    Args:
        rows: Rows to choose from.
        encode: Embeds texts as unit vectors `[n, d]`.
        number: How many.
    """
    neighbours = Neighbours([str(row.text) for row in rows], encode)

    def choose(utterances: Sequence[Utterance]) -> list[list[Utterance]]:
        if any(not row.has("text") for row in utterances):
            raise ValueError(
                "examples: nearest are found by the transcript, and an utterance has none; accepted: a "
                "condition with a transcript, or choose: random"
            )
        ranked = neighbours.ranked([str(row.text) for row in utterances]).tolist()
        return [
            _chosen([rows[i] for i in order], row, number)[::-1]
            for order, row in zip(ranked, utterances, strict=True)
        ]

    return choose


def _chosen(ranked: Sequence[Utterance], utterance: Utterance, number: int) -> list[Utterance]:
    """The first rows of a ranking that have another transcript than the utterance."""
    own = _folded(utterance.text)
    chosen = []
    for row in ranked:
        if own is None or _folded(row.text) != own:
            chosen.append(row)
            if len(chosen) == number:
                return chosen
    raise ValueError(
        f"examples: all but {len(chosen)} training rows have the transcript {utterance.text!r}, which is an "
        f"utterance's own; accepted: {number} other rows or more"
    )


def _folded(text: str | None) -> str | None:
    return None if text is None else " ".join(text.casefold().split())


class TextEncoder:
    """Means of a text encoder's last states, as unit vectors.

    Args:
        encoder: Folder or Hub id of a transformers text encoder.
        prefix: Put before every text.
        batch_size: Texts at a time.

    Raises:
        ValueError: It cannot be read.
    """

    def __init__(self, encoder: str, *, prefix: str = "", batch_size: int = 64) -> None:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # a missing pooler, which is not used, is no news
        logging.disable_progress_bar()
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(encoder)
            self._model = AutoModel.from_pretrained(encoder, dtype=torch.float32).eval()
        except Exception as error:  # transformers, safetensors and json raise many kinds
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"examples: encoder {encoder} cannot be read ({reason}); accepted: a folder or Hub id of a "
                "transformers text encoder"
            ) from error
        finally:
            logging.set_verbosity(verbosity)
        self._model.to("cuda" if torch.cuda.is_available() else "cpu")
        self._prefix, self._batch_size = prefix, batch_size

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Returns the unit vectors `[n, d]` of texts, one or more."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        rows: dict[int, torch.Tensor] = {}
        for start in range(0, len(order), self._batch_size):
            part = order[start : start + self._batch_size]
            given = self._tokenizer(
                [self._prefix + texts[i] for i in part], padding=True, truncation=True, return_tensors="pt"
            ).to(self._model.device)
            states = self._model(**given).last_hidden_state  # [b, t, d]
            mask = given["attention_mask"].unsqueeze(-1)
            means = (states * mask).sum(1) / mask.sum(1)
            rows |= zip(part, torch.nn.functional.normalize(means, dim=1).cpu(), strict=True)
        return torch.stack([rows[i] for i in range(len(texts))])

"""From rows of a manifest to utterances, and from utterances to a batch of the processor's tensors.

    row ─► Audio ─► augmentations ─► waveform [s]  ─┐
           or audio_features ─► [f, l, d]           ├─► LoadedUtterance ─► processor ─► batch
           transcript, label, rationale             │
           and text_features ─► [t, l, d]          ─┘

Notation used for tensor shapes: `b` batch, `s` samples, `f` audio frames, `t` text tokens, `l` encoder
layers, `d` width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset

from mmsr.data.audio.augmentation import Augmentations, row_generator
from mmsr.data.audio.decoding import Audio, AudioError
from mmsr.data.manifest.manifest import SOFT_LABEL, Row
from mmsr.data.storage import StorageError
from mmsr.model.processing import MmsrProcessor, given_columns
from mmsr.records import (
    ATTENTION_MASK,
    IDS,
    SAMPLE_RATE,
    SENTIMENT_LABELS,
    SOFT_TARGETS,
    TEXT_FEATURES,
    read_soft_label,
)

AudioFeatures = Callable[[str], torch.Tensor]
"""Path of an audio file to a frozen encoder's states `[f, l, d]`."""
TextFeatures = Callable[[str], torch.Tensor]
"""Transcript to a frozen encoder's states `[t, l, d]`, one for each token that the processor makes of it."""


@dataclass(frozen=True, slots=True)
class LoadedUtterance:
    """A row for the collator; None for what it lacks.

    Attributes:
        id: The row's id.
        text: The transcript.
        rationale: The rationale.
        sentiment: The label's name.
        soft_label: The probability of each label, by name.
        audio: Waveform `[s]`, float32 at 16 kHz.
        audio_features: The audio encoder's states `[f, l, d]`, in place of the waveform.
        text_features: The text encoder's states `[t, l, d]`.
    """

    id: str
    text: str | None
    rationale: str | None
    sentiment: str | None
    soft_label: dict[str, float] | None = None
    audio: np.ndarray | None = None
    audio_features: torch.Tensor | None = None
    text_features: torch.Tensor | None = None


class UtteranceDataset(Dataset[LoadedUtterance]):
    """Rows with their audio decoded, or with a frozen encoder's states in its place.

    `dataset[row]` is the row without augmentation; `dataset[epoch, row, draw]` is augmented.

    Args:
        rows: A split of a manifest.
        seconds: Duration `[n]` of each row's audio.
        tokens: Token count `[n]` of each row's transcript.
        text_column: The column that becomes `text`.
        audio_features: Gives the audio encoder's states of a path.
        text_features: Gives the text encoder's states of a transcript.
        rounded: Round decoded audio to 16 bits, before augmentation.
        cache: Keep decoded audio in 16 bits; the first epoch has it rounded too.
        augmentations: Augmentations of rows with an epoch and a draw.
        seed: Seed of the augmentations, with the epoch, the draw and the row's id.
    """

    def __init__(
        self,
        rows: datasets.Dataset | Sequence[Row],
        *,
        seconds: np.ndarray,
        tokens: np.ndarray,
        text_column: str = "text",
        audio_features: AudioFeatures | None = None,
        text_features: TextFeatures | None = None,
        rounded: bool = False,
        cache: bool = False,
        augmentations: Augmentations | None = None,
        seed: int = 0,
    ):
        self.rows = rows
        self.seconds, self.tokens = seconds, tokens
        self.text_column = text_column
        self.audio_features, self.text_features = audio_features, text_features
        self.augmentations, self.seed = augmentations, seed
        self._audio = Audio()
        self._rounded = rounded or cache
        self._cache: dict[int, np.ndarray] | None = {} if cache else None

    @property
    def caches(self) -> bool:
        """Whether each file is decoded once."""
        return self._cache is not None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | tuple[int, int, int]) -> LoadedUtterance:
        epoch, index, draw = index if isinstance(index, tuple) else (None, index, 0)
        row = self.rows[int(index)]
        text, path = row[self.text_column], row["audio"]
        waveform, states = None, None

        def augmented(values: torch.Tensor) -> torch.Tensor:
            if self.augmentations is None or epoch is None:
                return values
            generator = row_generator(self.seed, epoch=epoch, row_id=row["id"], draw=draw)
            return self.augmentations(values, generator=generator)

        try:
            if path is not None and self.audio_features is not None:
                states = augmented(self.audio_features(path))
            elif path is not None:
                waveform = augmented(torch.from_numpy(self._waveform(index, path))).numpy()
        except (AudioError, StorageError) as error:
            raise AudioError(f"row with id {row['id']!r}, column audio: {error}") from error
        return LoadedUtterance(
            id=row["id"],
            text=text,
            rationale=row["rationale"],
            sentiment=row["label"],
            soft_label=None if row.get(SOFT_LABEL) is None else read_soft_label(row[SOFT_LABEL]),
            audio=waveform,
            audio_features=states,
            text_features=None if text is None or self.text_features is None else self.text_features(text),
        )

    def _waveform(self, index: int, path: str) -> np.ndarray:
        if not self._rounded:
            return self._audio(path)
        kept = None if self._cache is None else self._cache.get(index)
        if kept is None:
            kept = np.clip(np.round(self._audio(path) * 32768), -32768, 32767).astype(np.int16)
            if self._cache is not None:
                self._cache[index] = kept
        return kept.astype(np.float32) / 32768


class Collator:
    """Turns utterances into a batch: the processor's tensors, and encoders' states if there are any.

    A modality that no utterance has is left out of the batch.

    Args:
        processor: Makes `input_values`, `input_ids`, `labels`, `sentiment_labels` and their masks.
        rationales: Whether to make `labels`.
        ids: Whether to add the rows' ids, a list.
    """

    def __init__(self, processor: MmsrProcessor, *, rationales: bool = True, ids: bool = False):
        self.processor = processor
        self.ids = ids
        self.inputs = ("audio", "audio_features", "text", *(("rationale",) if rationales else ()))

    def __call__(self, utterances: Sequence[LoadedUtterance]) -> dict[str, Any]:
        """Make a batch.

        Returns:
            The processor's tensors. With features, `audio_features` `[b, f, l, d]` float32 and
            `audio_features_mask` `[b, f]` (all zero in a row without audio) in place of the waveforms, and
            `text_features` `[b, t, l, d]` float32, whose mask is `attention_mask`. If a row has a soft label,
            `soft_targets` `[b, c]`, where the others have theirs with probability 1.
        """
        columns = {name: [getattr(utterance, name) for utterance in utterances] for name in self.inputs}
        sentiment = [utterance.sentiment for utterance in utterances]
        given = given_columns(columns)
        batch = dict(
            self.processor(**given, sentiment=sentiment, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        )
        if any(utterance.soft_label is not None for utterance in utterances):
            batch[SOFT_TARGETS] = self._soft_targets(utterances, batch[SENTIMENT_LABELS])
        features = [utterance.text_features for utterance in utterances]
        if any(feature is not None for feature in features):
            batch[TEXT_FEATURES] = _placed(features, batch[ATTENTION_MASK])
        if self.ids:
            batch[IDS] = [utterance.id for utterance in utterances]
        return batch

    def _soft_targets(self, utterances: Sequence[LoadedUtterance], labels: torch.Tensor) -> torch.Tensor:
        names = self.processor.labels
        soft = torch.nn.functional.one_hot(labels.clamp(min=0), len(names)).float()
        for row, utterance in enumerate(utterances):
            if utterance.soft_label is not None:
                soft[row] = torch.tensor([utterance.soft_label.get(name, 0.0) for name in names])
        return soft


def _placed(features: Sequence[torch.Tensor | None], mask: torch.Tensor) -> torch.Tensor:
    """Each row's features `[n, l, d]` at the n ones of its mask `[b, t]`; zero elsewhere `[b, t, l, d]`."""
    shape = next(feature.shape[1:] for feature in features if feature is not None)
    placed = torch.zeros(*mask.shape, *shape)
    for row, feature in enumerate(features):
        if feature is not None:
            placed[row, mask[row] == 1] = feature.float()
    return placed

"""Rows of a manifest as utterances, and utterances as a batch of the processor's tensors.

    row ─► Audio ─► augmentations ─► waveform [s]  ─┐
           or audio_features ─► [f, l, d]           ├─► processor ─► batch
           transcript, label, rationale             │
           and text_features ─► [t, l, d]          ─┘

Notation used for tensor shapes: `b` batch, `s` samples, `f` audio frames, `t` text tokens, `l` encoder
layers, `d` width.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset

from mmsr.data.audio.augmentation import Augmentations, row_generator
from mmsr.data.audio.decoding import Audio, AudioError
from mmsr.data.manifest.manifest import Row

if TYPE_CHECKING:
    from mmsr.model.processing import MmsrProcessor

AudioFeatures = Callable[[str], torch.Tensor]
"""Path of an audio file to a frozen encoder's states `[f, l, d]`."""
TextFeatures = Callable[[str], torch.Tensor]
"""Transcript to a frozen encoder's states `[t, l, d]`, one for each token that the processor makes of it."""


class UtteranceDataset(Dataset[dict[str, Any]]):
    """Rows with their audio decoded, or in its place a frozen encoder's states.

    `dataset[row]` is the row as it is, `dataset[epoch, row, draw]` as it is augmented in this epoch, when it
    is drawn for the first time (0), the second (1) ...

    A row is `id`, `text`, `rationale`, `sentiment` (text or None), and either `audio` (`[s]` float32 at
    16 kHz, or None) or `audio_features` (`[f, l, d]`, or None); with a text encoder's states `text_features`
    (`[t, l, d]`, or None) too.

    Args:
        rows: A split of a manifest.
        seconds: Length `[n]` of each row's audio.
        tokens: Length `[n]` of each row's transcript.
        text_column: Which column is `text`.
        audio_features: Gives the audio encoder's states of a path.
        text_features: Gives the text encoder's states of a transcript.
        cache: Keep decoded audio, rounded to 16 bits (the first time too, so that all epochs are alike);
            it is kept as it is without augmentation.
        augmentations: Change rows that are asked for with their epoch and draw.
        seed: Of the augmentations, with the epoch, the draw and the row's id.
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
        self._cache: dict[int, np.ndarray] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | tuple[int, int, int]) -> dict[str, Any]:
        epoch, index, draw = index if isinstance(index, tuple) else (None, index, 0)
        row = self.rows[int(index)]
        utterance = {"id": row["id"], "text": row[self.text_column], "rationale": row["rationale"]}
        utterance["sentiment"] = row["label"]
        if self.text_features is not None:
            text = utterance["text"]
            utterance["text_features"] = None if text is None else self.text_features(text)
        path = row["audio"]

        def augmented(values: torch.Tensor) -> torch.Tensor:
            if self.augmentations is None or epoch is None:
                return values
            generator = row_generator(self.seed, epoch=epoch, row_id=row["id"], draw=draw)
            return self.augmentations(values, generator=generator)[0]

        try:
            if self.audio_features is not None:
                states = None if path is None else augmented(self.audio_features(path))
                return {**utterance, "audio_features": states}
            if path is None:
                return {**utterance, "audio": None}
            waveform = torch.from_numpy(self._waveform(index, path))
            return {**utterance, "audio": augmented(waveform).numpy()}
        except AudioError as error:
            raise AudioError(f"row with id {row['id']!r}, column audio: {error}") from error

    def _waveform(self, index: int, path: str) -> np.ndarray:
        if self._cache is None:
            return self._audio(path)
        if index not in self._cache:
            self._cache[index] = np.clip(np.round(self._audio(path) * 32768), -32768, 32767).astype(np.int16)
        return self._cache[index].astype(np.float32) / 32768


class Collator:
    """Turns rows into one batch: the processor's tensors, and encoders' states where rows have those.

    A modality that no row of a batch has is not given to the processor.

    Args:
        processor: Makes `input_values`, `input_ids`, `labels`, `sentiment_labels` and their masks.
        rationales: Whether to make `labels`.
    """

    def __init__(self, processor: "MmsrProcessor", *, rationales: bool = True):
        self.processor = processor
        self.rationales = rationales

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch.

        Returns:
            The processor's tensors; with features, `audio_features` `[b, f, l, d]` float32 and
            `audio_features_mask` `[b, f]`, where a row without audio is all zero, and no waveform;
            `text_features` `[b, t, l, d]` float32, whose mask is `attention_mask`.
        """
        columns = ("audio", "audio_features", "text", "rationale")
        inputs = {name: [row.get(name) for row in rows] for name in columns}
        if not self.rationales:
            del inputs["rationale"]
        given = {
            name: values for name, values in inputs.items() if any(value is not None for value in values)
        }
        sentiment = [row["sentiment"] for row in rows]
        batch = dict(self.processor(**given, sentiment=sentiment, sampling_rate=16000, return_tensors="pt"))
        written = [row.get("text_features") for row in rows]
        if any(feature is not None for feature in written):
            batch["text_features"] = _placed(written, batch["attention_mask"])
        return batch


def _placed(features: Sequence[torch.Tensor | None], mask: torch.Tensor) -> torch.Tensor:
    """Features `[n, l, d]` of n tokens, None for no text, and where these are `[b, t]` -> `[b, t, l, d]`."""
    shape = next(feature.shape[1:] for feature in features if feature is not None)
    placed = torch.zeros(*mask.shape, *shape)
    for row, feature in enumerate(features):
        if feature is not None:
            placed[row, mask[row] == 1] = feature.float()
    return placed

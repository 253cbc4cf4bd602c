"""A model's frozen encoders with a feature store, so that each file and each transcript is encoded once.

path of a file ─► audio encoder ─► states [f, l, d] ─┐
transcript     ─► text encoder  ─► states [t, l, d] ─┴─► store, addressed by content, encoder and settings
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmsr.data.audio.decoding import Audio
from mmsr.data.audio.reading import map_ahead
from mmsr.data.features.store import Dtype, FeatureStore, StoredFeatures, encoder_fingerprint, file_digest
from mmsr.model.encoders.base import AudioEncoder
from mmsr.model.encoders.text import TextEncoder
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor
from mmsr.records import ATTENTION_MASK, INPUT_IDS, INPUT_VALUES, INPUT_VALUES_MASK

_BATCH = 64  # texts


def stored_audio(
    model: MmsrForSentimentReasoning,
    processor: MmsrProcessor,
    folder: str | Path,
    *,
    bf16: bool,
    dtype: Dtype = "float16",
) -> StoredFeatures:
    """The model's frozen audio encoder with a feature store: path of an audio file -> states `[f, l, d]`.

    Args:
        model: The model with the encoder.
        processor: Makes the encoder's inputs.
        folder: Folder of the store.
        bf16: Encode under bfloat16 autocast, as in mixed-precision training.
        dtype: Type in which the store keeps the states.
    """
    encoder, load = model.encoder, Audio()
    # left out where they are not set, so that states which earlier releases stored are found
    later = {"target_level": processor.target_level, "dynamic_range": model.config.audio_dynamic_range}
    encoder.audio_encoder.eval()

    @torch.inference_mode()
    def encode(paths: Sequence[str]) -> list[Tensor]:
        inputs = processor(audio=list(map_ahead(load, paths)), return_tensors="pt").to(model.device)
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16):
            states, mask = encoder.encode_audio(inputs[INPUT_VALUES], inputs[INPUT_VALUES_MASK])
        return [row[: int(frames)] for row, frames in zip(states, mask.sum(1), strict=True)]

    return StoredFeatures(
        FeatureStore(folder, dtype=dtype),
        encode,
        content=file_digest,
        encoder=encoder_fingerprint(encoder.audio_encoder.model),
        processing={
            "config": encoder.audio_encoder.config.to_json_string(use_diff=False),
            "layers": _layers(encoder.audio_encoder),
            "window_seconds": model.config.audio_window_seconds,
            "feature_extractor": processor.feature_extractor.to_dict(),
            "bf16": bf16,
            **{name: float(value) for name, value in later.items() if value is not None},
        },
        name=f"audio, {encoder.audio_encoder.config.model_type}, {encoder.audio_encoder.num_states} states",
    )


def stored_text(
    model: MmsrForSentimentReasoning,
    processor: MmsrProcessor,
    folder: str | Path,
    *,
    bf16: bool,
    dtype: Dtype = "float16",
) -> StoredFeatures:
    """The model's frozen text encoder with a feature store: transcript -> states `[t, l, d]`.

    Arguments as of `stored_audio`. An entry is addressed by its tokens, which depend on tokenizer, prefix and
    truncation.
    """
    encoder = model.encoder
    encoder.text_encoder.eval()

    def tokens(text: str) -> Tensor:
        inputs = processor(text=[text], return_tensors="pt")
        return inputs[INPUT_IDS][:, inputs[ATTENTION_MASK][0] == 1]  # [1, t]

    @torch.inference_mode()
    def encode(texts: Sequence[str]) -> list[Tensor]:
        ids = torch.cat([tokens(text) for text in texts]).to(model.device)
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16):
            states, _ = encoder.encode_text(ids, torch.ones_like(ids))
        return list(states)

    def batches(texts: Sequence[str]) -> Iterator[list[str]]:
        """Texts with the same number of tokens, which need no padding."""
        lengths: dict[int, list[str]] = {}
        for text in texts:
            lengths.setdefault(tokens(text).shape[1], []).append(text)
        for group in lengths.values():
            for start in range(0, len(group), _BATCH):
                yield group[start : start + _BATCH]

    return StoredFeatures(
        FeatureStore(folder, dtype=dtype),
        encode,
        content=lambda text: tokens(text).numpy().tobytes(),
        encoder=encoder_fingerprint(encoder.text_encoder.model),
        processing={
            "config": encoder.text_encoder.config.to_json_string(use_diff=False),
            "layers": _layers(encoder.text_encoder),
            "bf16": bf16,
        },
        name=f"text, {encoder.text_encoder.config.model_type}, {encoder.text_encoder.num_states} states",
        batches=batches,
    )


def _layers(encoder: AudioEncoder | TextEncoder) -> int | list[int | str]:
    """Which layers an entry has: their number, or the layer beside the last."""
    return encoder.num_states if encoder.extra_layer is None else [encoder.extra_layer, "last"]

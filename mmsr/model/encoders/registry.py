"""Audio encoders by the `model_type` of their config; adding one is one class and one line."""

from __future__ import annotations

import os

from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from mmsr.model.configuration import TimmAudioConfig
from mmsr.model.encoders.base import AudioEncoder
from mmsr.model.encoders.spectrogram import TimmAudioEncoder, WhisperAudioEncoder
from mmsr.model.encoders.waveform import MoonshineAudioEncoder, WaveformEncoder

AUDIO_ENCODERS: dict[str, type[AudioEncoder]] = {
    **dict.fromkeys(
        ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat", "wav2vec2-conformer"),
        WaveformEncoder,
    ),
    "moonshine": MoonshineAudioEncoder,
    "whisper": WhisperAudioEncoder,
    TimmAudioConfig.model_type: TimmAudioEncoder,
}


def audio_encoder_class(config: PreTrainedConfig) -> type[AudioEncoder]:
    """The class that wraps the speech encoder of this config.

    Raises:
        ValueError: There is none.
    """
    if config.model_type not in AUDIO_ENCODERS:
        raise ValueError(
            f"audio_encoder has model_type={config.model_type!r}, which is no known speech encoder; "
            f"accepted: {', '.join(AUDIO_ENCODERS)}"
        )
    return AUDIO_ENCODERS[config.model_type]


def load_audio_encoder(name: str | os.PathLike[str]) -> PreTrainedModel:
    """The pretrained speech encoder of a Hub id or folder, or `timm/<model>`, in float32."""
    if str(name).startswith("timm/"):
        return TimmAudioEncoder.load(name)
    return audio_encoder_class(AutoConfig.from_pretrained(name)).load(name)

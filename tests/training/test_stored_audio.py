"""A frozen encoder behind the feature store."""

from pathlib import Path

import numpy as np
import soundfile
import torch
from transformers import AutoConfig

from mmsr.model.configuration import MmsrConfig
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor
from mmsr.training.module import stored_audio


def test_stored_states_of_one_window_are_not_another_windows(tmp_path: Path):
    whisper = AutoConfig.for_model(
        "whisper", d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=24
    )
    processor = MmsrProcessor.train(["kind words"] * 3, vocab_size=300)
    recording = tmp_path / "speech.wav"
    soundfile.write(recording, np.random.default_rng(0).standard_normal(16_000) * 0.1, 16_000)

    def states(seconds: float) -> torch.Tensor:
        torch.manual_seed(0)
        config = MmsrConfig.from_preset(
            "tiny", fusion="audio_only", audio_encoder=whisper, audio_window_seconds=seconds
        )
        model = MmsrForSentimentReasoning(config)
        return stored_audio(model, processor, tmp_path / "store", bf16=False)(str(recording))

    half, whole = states(0.5), states(1.0)
    assert half.shape == whole.shape == (50, 1, 16)
    assert not torch.equal(half, whole)
    assert torch.equal(states(0.5), half)

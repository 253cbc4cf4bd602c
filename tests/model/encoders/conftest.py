from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig

from mmsr.model.configuration import MmsrConfig, TimmAudioConfig
from mmsr.model.encoders.base import AudioEncoder
from mmsr.model.encoders.registry import audio_encoder_class
from mmsr.model.modeling import MmsrForSentimentReasoning

LIKE_TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "conv_dim": (16, 16, 16),
    "conv_kernel": (20, 8, 4),
    "conv_stride": (10, 8, 4),
    "num_conv_pos_embedding_groups": 2,
    "mask_time_prob": 0.0,
    "layerdrop": 0.0,
}
WHISPER = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
}
MOONSHINE = {
    "hidden_size": 32,
    "intermediate_size": 37,
    "vocab_size": 60,
    "encoder_num_attention_heads": 4,
    "decoder_num_attention_heads": 4,
    "encoder_num_hidden_layers": 2,
    "decoder_num_hidden_layers": 1,
}
# what has no part in the states: wav2vec2's mask (without SpecAugment) and Whisper's fixed positions
NO_GRADIENT = ("masked_spec_embed", "embed_positions")


@pytest.fixture
def make_config() -> Callable[..., Any]:
    """Tiny configs: Whisper's at its real window of 30 s, timm's on a picture of 64 mels and .64 s."""

    def make(model_type: str, variant: str = "layer", **overrides: Any) -> Any:
        """`variant` is the norm of the front end, or timm's architecture."""
        if model_type == "timm":
            return TimmAudioConfig(
                architecture=variant, **{"num_mel_bins": 64, "window_seconds": 0.6, **overrides}
            )
        if model_type in ("whisper", "moonshine"):
            shape: dict[str, Any] = WHISPER if model_type == "whisper" else MOONSHINE
        elif model_type == "data2vec-audio":
            shape = {**LIKE_TINY, "num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5}
        else:
            norms = {"feat_extract_norm": variant, "do_stable_layer_norm": variant == "layer"}
            shape = {**LIKE_TINY, "num_conv_pos_embeddings": 16, **norms}
        return AutoConfig.for_model(model_type, **{**shape, **overrides})

    return make


@pytest.fixture
def make_encoder() -> Callable[..., AudioEncoder]:
    def make(config: Any, attention: str = "eager", **overrides: Any) -> AudioEncoder:
        torch.manual_seed(1)
        joint = MmsrConfig.from_preset("tiny", fusion="audio_only", audio_encoder=config, **overrides)
        encoder = audio_encoder_class(config)(joint).eval()
        encoder.model.set_attn_implementation(attention)
        for parameter in encoder.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_normal_(parameter)
        return encoder

    return make


@pytest.fixture
def check_gradient_and_reload(tmp_path: Path) -> Callable[..., None]:
    def check(model: MmsrForSentimentReasoning, part: str, batch: dict[str, Tensor]) -> None:
        logits = model(**batch).sentiment_logits
        logits.square().sum().backward()
        for name, parameter in getattr(model.encoder, part).model.named_parameters():
            if not any(known in name for known in NO_GRADIENT):
                assert parameter.grad is not None, name
                assert parameter.grad.isfinite().all() and parameter.grad.any(), name
        model.save_pretrained(tmp_path)
        again = MmsrForSentimentReasoning.from_pretrained(tmp_path).eval()
        weights = again.state_dict()
        for name, weight in model.state_dict().items():
            assert torch.equal(weights[name], weight), name
        # in a file weights lie at other addresses, for which some kernels sum in another order
        torch.testing.assert_close(again(**batch).sentiment_logits, logits, rtol=0, atol=1e-6)

    return check

"""Named sizes of the model: the shapes of its parts (see `MmsrConfig.from_preset`).

transformers is imported inside functions: it imports `configuration.py`, which needs this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import LlamaConfig, MBartConfig

PRESETS = ("tiny", "small", "base")


def _initializer_range(width: int) -> float:
    """Deviation of initial weights; transformers' .02 is meant for widths around 1,000."""
    return min(width**-0.5, 0.1)


def decoder_config(width: int, layers: int, heads: int, intermediate_size: int, **kwargs: Any) -> MBartConfig:
    """Config of a rationale decoder from scratch: the pre-norm decoder half of MBart, with tied embeddings.

    `encoder_layers` sizes generation's cache.
    """
    from transformers import MBartConfig

    return MBartConfig(
        d_model=width,
        decoder_layers=layers,
        encoder_layers=layers,
        decoder_attention_heads=heads,
        encoder_attention_heads=heads,
        decoder_ffn_dim=intermediate_size,
        encoder_ffn_dim=intermediate_size,
        scale_embedding=True,
        init_std=_initializer_range(width),
        is_decoder=True,
        is_encoder_decoder=False,
        tie_word_embeddings=True,
        max_position_embeddings=128,
        dropout=0.1,
        **{"add_cross_attention": True, **kwargs},
    )


def prefix_config(width: int, layers: int, heads: int, intermediate_size: int, **kwargs: Any) -> LlamaConfig:
    """Config of a causal language model from scratch (Llama's), for `decoder_type="prefix"`."""
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate_size,
        initializer_range=_initializer_range(width),
        tie_word_embeddings=True,
        max_position_embeddings=4096,
        **kwargs,
    )


def _transformer(width: int, layers: int, heads: int, intermediate_size: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": intermediate_size,
    }


def _wav2vec2(*shape: int, **conv: Any) -> dict[str, Any]:
    return {
        **_transformer(*shape),
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
        "mask_time_prob": 0.0,
        "layerdrop": 0.0,
        "hidden_dropout": 0.0,
        "feat_proj_dropout": 0.1,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        **conv,
    }


def _xlm_roberta(*shape: int) -> dict[str, Any]:
    return {
        **_transformer(*shape),
        "max_position_embeddings": 514,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": _initializer_range(shape[0]),
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
    }


def _fusion(width: int, layers: int, heads: int, intermediate_size: int, **settings: Any) -> dict[str, Any]:
    shape = {"fusion_layers": layers, "fusion_heads": heads, "fusion_intermediate_size": intermediate_size}
    return {"hidden_size": width, **shape, **settings}


SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "vocab_size": 256,
        "audio_encoder": _wav2vec2(
            *(32, 2, 4, 37),
            conv_dim=(16, 16, 16),
            conv_kernel=(20, 8, 4),
            conv_stride=(10, 8, 4),
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=2,
        ),
        "text_encoder": _xlm_roberta(32, 2, 4, 37),
        "decoder": (32, 2, 4, 37),
        "fusion": _fusion(32, 1, 4, 37),
    },
    "small": {
        "vocab_size": 4000,
        # four front-end layers at 40 ms: a third of the cost of wav2vec2's seven at 20 ms, enough for prosody
        "audio_encoder": _wav2vec2(
            *(128, 2, 4, 512),
            conv_dim=(48, 96, 128, 128),
            conv_kernel=(40, 8, 8, 4),
            conv_stride=(20, 4, 4, 2),
            conv_bias=True,  # without it the layer norm after a convolution removes the level
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
        ),
        "text_encoder": _xlm_roberta(128, 2, 4, 512),
        "decoder": (128, 2, 4, 512),
        # from scratch, the last layer is soon the same at every token; the decoder quotes from the embeddings
        "fusion": _fusion(128, 1, 4, 512, text_layer_mix=True),
    },
    "base": {
        "vocab_size": 250_002,
        "audio_encoder": {"mask_time_prob": 0.0, "layerdrop": 0.0},
        "text_encoder": _xlm_roberta(768, 12, 12, 3072),
        "decoder": (768, 6, 12, 3072),
        "fusion": _fusion(768, 2, 12, 3072),
    },
}

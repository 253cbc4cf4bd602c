"""Named sizes of the model: the shapes of its parts (see `MmsrConfig.from_preset`).

transformers is imported inside functions: its import brings `configuration.py` (see `mmsr/__init__.py`),
which needs this module whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import LlamaConfig, MBartConfig

PRESETS = ("tiny", "small", "base")


def _initializer_range(width: int) -> float:
    """Deviation of initial weights that keeps the size of what flows through a layer of this width.

    transformers' .02 is meant for widths around 1,000; in a narrow one attention stays uniform for epochs.
    """
    return min(width**-0.5, 0.1)


def decoder_config(
    *, width: int, layers: int, heads: int, intermediate_size: int, **kwargs: Any
) -> MBartConfig:
    """Config of a rationale decoder from scratch: the pre-norm decoder half of MBart, with tied embeddings.

    `encoder_layers` is set to `layers` too, because generation sizes its cache from `num_hidden_layers`,
    which MBart maps to the encoder's count.
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
        **{"add_cross_attention": True, "max_position_embeddings": 128, "dropout": 0.1, **kwargs},
    )


def prefix_config(
    *, width: int, layers: int, heads: int, intermediate_size: int, **kwargs: Any
) -> LlamaConfig:
    """Config of a causal language model from scratch (Llama's), for `decoder_type="prefix"`."""
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate_size,
        initializer_range=_initializer_range(width),
        tie_word_embeddings=True,
        **{"max_position_embeddings": 4096, **kwargs},
    )


def _wav2vec2(
    width: int, layers: int, heads: int, intermediate_size: int, conv: dict[str, Any]
) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": intermediate_size,
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


def _xlm_roberta(width: int, layers: int, heads: int, intermediate_size: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": intermediate_size,
        "max_position_embeddings": 514,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": _initializer_range(width),
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
    }


SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "vocab_size": 256,
        "audio_encoder": _wav2vec2(
            32,
            2,
            4,
            37,
            {
                "conv_dim": (16, 16, 16),
                "conv_kernel": (20, 8, 4),
                "conv_stride": (10, 8, 4),
                "num_conv_pos_embeddings": 16,
                "num_conv_pos_embedding_groups": 2,
            },
        ),
        "text_encoder": _xlm_roberta(32, 2, 4, 37),
        "decoder": {"width": 32, "layers": 2, "heads": 4, "intermediate_size": 37},
        "fusion": {"hidden_size": 32, "fusion_layers": 1, "fusion_heads": 4, "fusion_intermediate_size": 37},
    },
    "small": {
        "vocab_size": 4000,
        # Four front-end layers that step 40 ms: a third of the cost of wav2vec2's seven at 20 ms, and enough
        # for prosody.
        "audio_encoder": _wav2vec2(
            128,
            2,
            4,
            512,
            {
                "conv_dim": (48, 96, 128, 128),
                "conv_kernel": (40, 8, 8, 4),
                "conv_stride": (20, 4, 4, 2),
                # Without a bias the layer norm after a convolution takes the level, which is evidence, away.
                "conv_bias": True,
                "num_conv_pos_embeddings": 16,
                "num_conv_pos_embedding_groups": 4,
            },
        ),
        "text_encoder": _xlm_roberta(128, 2, 4, 512),
        "decoder": {"width": 128, "layers": 2, "heads": 4, "intermediate_size": 512},
        "fusion": {
            "hidden_size": 128,
            "fusion_layers": 1,
            "fusion_heads": 4,
            "fusion_intermediate_size": 512,
            # Trained from scratch, the text encoder's last layer soon says the same at every token; the mix
            # keeps its embeddings, which the decoder quotes from.
            "text_layer_mix": True,
        },
    },
    "base": {
        "vocab_size": 250_002,
        "audio_encoder": {"mask_time_prob": 0.0, "layerdrop": 0.0},
        "text_encoder": _xlm_roberta(768, 12, 12, 3072),
        "decoder": {"width": 768, "layers": 6, "heads": 12, "intermediate_size": 3072},
        "fusion": {
            "hidden_size": 768,
            "fusion_layers": 2,
            "fusion_heads": 12,
            "fusion_intermediate_size": 3072,
        },
    },
}

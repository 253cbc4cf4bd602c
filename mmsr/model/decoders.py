"""Rationale decoders: language models that read the fused memory through cross-attention.

A decoder is a transformers causal language model whose `forward` takes `encoder_hidden_states`; it is built
as a `PreTrainedModel`, never as a bare module, because only then does its causal mask exist (a bare one leaks
the future).
"""

from __future__ import annotations

import inspect

import torch
from transformers import PreTrainedModel

from mmsr.model.configuration import MmsrConfig


def build_decoder(config: MmsrConfig) -> PreTrainedModel | None:
    """The decoder of `config.decoder`, weights not loaded, or None with `decoder_type="none"`.

    Raises:
        ValueError: `config.decoder` is missing, or its model has no cross-attention.
    """
    from transformers import AutoModelForCausalLM  # not above: see the docstring of `encoders`

    if config.decoder_type == "none":
        return None
    decoder = AutoModelForCausalLM.from_config(config.part("decoder"), dtype=torch.get_default_dtype())
    if "encoder_hidden_states" not in inspect.signature(decoder.forward).parameters:
        raise ValueError(
            f"decoder has model_type={decoder.config.model_type!r}, which has no cross-attention; accepted: "
            "a causal language model whose forward takes encoder_hidden_states (mbart, bart, gpt2, bert ...)"
        )
    return decoder


def cross_attention_width(decoder: PreTrainedModel) -> int:
    """Width of the states that the decoder's cross-attention reads."""
    return getattr(decoder.config, "cross_attention_hidden_size", None) or decoder.config.hidden_size

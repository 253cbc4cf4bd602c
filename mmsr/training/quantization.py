"""Frozen linear layers in 4 bits (QLoRA, Dettmers et al. 2023, arXiv 2305.14314), by bitsandbytes.

    frozen part ─► quantize ─► its linear layers in 4 bits ─► dequantize ─► plain layers

A checkpoint holds the 4 bits and their scales; a model that was quantized alike loads it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from torch import nn
from transformers import PreTrainedModel

from mmsr.extras import needed_for

if TYPE_CHECKING:
    from bitsandbytes.nn import Linear4bit

_BLOCK = 64


def quantize(part: PreTrainedModel, kind: Literal["nf4", "fp4"], *, leave_out: str | None = None) -> None:
    """Round linear layers, except the output layer, to 4 bits, and set `is_loaded_in_4bit` for peft.

    Layers whose input width is no multiple of 64 stay: 64 weights share a scale, and bitsandbytes dequantizes
    some other widths wrongly on CPUs.

    Args:
        part: The model.
        kind: NormalFloat, for normally distributed weights, or floats.
        leave_out: Regular expression of the names of layers to leave out.

    Raises:
        ValueError: bitsandbytes is not installed, or no layer can be quantized.
    """
    with needed_for("lora quantize="):
        from bitsandbytes.nn import Linear4bit, Params4bit
    marked: Any = part
    for name, layer in list(part.named_modules()):
        left_out = leave_out is not None and re.fullmatch(leave_out, name)
        if type(layer) is not nn.Linear or layer is part.get_output_embeddings() or left_out:
            continue
        if layer.in_features % _BLOCK:
            continue
        sizes, biased = (layer.in_features, layer.out_features), layer.bias is not None
        small = Linear4bit(*sizes, bias=biased, quant_type=kind, device="meta")
        small.bias = layer.bias
        weight: Any = Params4bit(layer.weight.detach(), requires_grad=False, quant_type=kind, module=small)
        small.weight = weight.to(layer.weight.device)  # this rounds it
        small.support_avx512bf16_for_cpu = False  # else an evaluation changes the layout of the weights
        small.register_load_state_dict_pre_hook(_read_quantized)
        part.set_submodule(name, small)
        marked.is_loaded_in_4bit = True
    if not getattr(part, "is_loaded_in_4bit", False):
        lacks = f"{type(part).__name__} has no linear layer that reads a multiple of {_BLOCK}"
        raise ValueError(f"lora quantize={kind!r}: {lacks}")


def dequantized(layer: nn.Module) -> nn.Linear | None:
    """A layer in 4 bits as a plain layer; None for any other layer."""
    state = getattr(getattr(layer, "weight", None), "quant_state", None)
    if state is None:
        return None
    from bitsandbytes.functional import dequantize_4bit

    small: Linear4bit = layer  # type: ignore[assignment]
    plain = nn.Linear(small.in_features, small.out_features, bias=small.bias is not None, device="meta")
    plain.weight = nn.Parameter(dequantize_4bit(small.weight.data, state))
    if small.bias is not None:  # bitsandbytes leaves it in the precision of its computation
        plain.bias = nn.Parameter(small.bias.to(plain.weight.dtype))
    return plain


def dequantize(model: nn.Module) -> None:
    """Replace layers in 4 bits by plain ones."""
    for name, layer in list(model.named_modules()):
        if (plain := dequantized(layer)) is not None:
            model.set_submodule(name, plain)
        if getattr(layer, "is_loaded_in_4bit", False):
            layer.is_loaded_in_4bit = False


def _read_quantized(layer: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Read 4 bits and their scales from a state dict, as transformers does."""
    from bitsandbytes.nn import Params4bit

    scales = {name: state.pop(name) for name in list(state) if name.startswith(f"{prefix}weight.")}
    if scales and f"{prefix}weight" in state:
        layer.weight = Params4bit.from_prequantized(
            data=state[f"{prefix}weight"], quantized_stats=scales, device=layer.weight.device, module=layer
        )

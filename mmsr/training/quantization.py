"""Frozen linear layers in 4 bits (QLoRA, Dettmers et al. 2023, arXiv 2305.14314), by bitsandbytes.

    frozen part ─► quantize ─► its linear layers in 4 bits ─► dequantize ─► plain layers

A checkpoint of such a model holds the 4 bits and their scales; a model that was quantized alike reads it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from torch import nn
from transformers import PreTrainedModel

if TYPE_CHECKING:
    from bitsandbytes.nn import Linear4bit

_BLOCK = 64


def quantize(part: PreTrainedModel, kind: Literal["nf4", "fp4"], *, leave_out: str | None = None) -> None:
    """Round a part's linear layers to 4 bits, but for its output layer; peft is told by `is_loaded_in_4bit`.

    Layers that read other than a multiple of 64 stay as they are: 64 weights have a scale, and on CPUs
    bitsandbytes gives some of the others wrongly back.

    Args:
        part: The model, whose layers are replaced.
        kind: The 4 bits: NormalFloat, whose steps are those of normally distributed weights, or floats.
        leave_out: Expression for the names of layers whose weights are read without being called.

    Raises:
        ValueError: bitsandbytes is not installed, or no layer can be quantized.
    """
    try:
        from bitsandbytes.nn import Linear4bit, Params4bit
    except ModuleNotFoundError as error:
        raise ValueError("lora quantize= needs bitsandbytes: pip install 'mmsr[qlora]'") from error
    told: Any = part
    for name, layer in list(part.named_modules()):
        left_out = leave_out is not None and re.fullmatch(leave_out, name)
        if type(layer) is not nn.Linear or layer is part.get_output_embeddings() or left_out:
            continue
        if layer.in_features % _BLOCK:
            continue
        small = Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            quant_type=kind,
            device="meta",
        )
        small.bias = layer.bias
        weight: Any = Params4bit(layer.weight.detach(), requires_grad=False, quant_type=kind, module=small)
        small.weight = weight.to(layer.weight.device)  # by which it is rounded
        small.support_avx512bf16_for_cpu = False  # else an evaluation would change how the weights are kept
        small.register_load_state_dict_pre_hook(_read_quantized)
        part.set_submodule(name, small)
        told.is_loaded_in_4bit = True
    if not getattr(part, "is_loaded_in_4bit", False):
        what = type(part).__name__
        raise ValueError(
            f"lora quantize={kind!r}: {what} has no linear layer that reads a multiple of {_BLOCK}"
        )


def dequantized(layer: nn.Module) -> nn.Linear | None:
    """A plain layer of what a layer in 4 bits was rounded to; None for any other layer."""
    state = getattr(getattr(layer, "weight", None), "quant_state", None)
    if state is None:
        return None
    from bitsandbytes.functional import dequantize_4bit

    small: Linear4bit = layer  # type: ignore[assignment]
    plain = nn.Linear(small.in_features, small.out_features, bias=small.bias is not None, device="meta")
    plain.weight = nn.Parameter(dequantize_4bit(small.weight.data, state))
    if small.bias is not None:  # which bitsandbytes leaves in the precision that it computed in
        plain.bias = nn.Parameter(small.bias.to(plain.weight.dtype))
    return plain


def dequantize(model: nn.Module) -> None:
    """Put plain layers in the place of those in 4 bits."""
    for name, layer in list(model.named_modules()):
        if (plain := dequantized(layer)) is not None:
            model.set_submodule(name, plain)
        if getattr(layer, "is_loaded_in_4bit", False):
            layer.is_loaded_in_4bit = False


def _read_quantized(layer: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Take 4 bits and their scales out of a state dict, as transformers does for bitsandbytes."""
    from bitsandbytes.nn import Params4bit

    scales = {name: state.pop(name) for name in list(state) if name.startswith(f"{prefix}weight.")}
    if scales and f"{prefix}weight" in state:
        layer.weight = Params4bit.from_prequantized(
            data=state[f"{prefix}weight"], quantized_stats=scales, device=layer.weight.device, module=layer
        )

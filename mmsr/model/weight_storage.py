"""Checkpoints whose weights are stored as integers of 8 bits, or of 4 where that loses nothing.

    float32 weight [n, ...] ─► `encode` ─► integers and scales in model.safetensors ─► `decode` ─► float32

This is a way of storing weights only. `from_pretrained` decodes them, so the model computes in floats as any
other, at the same speed. Its `save_pretrained` stores those that were not changed since as they were, and the
others as floats: what is loaded has the same bits. `config.json` names the storage under
`quantization_config`, and importing this module makes the method known to transformers.

A weight `name` of n rows, which are the slices of its first axis, is stored as one of:

- `name:int8 [n, ...]` and `name:scale [n, 1, ...]` (float32). A row's scale is its largest magnitude / 127.
  The error of a value is at most half the scale of its row.
- `name:int4 [n, w / 2]`, two values a byte with the first in the low bits, and `name:scale [n, w / 32]`
  (float16). 32 neighbouring values of a row share a scale: that of them with the largest magnitude, / -8.
  These are the scales and values of ggml's format Q4_0. It is taken only where it gives back every value
  exactly, as for weights that come from a release in that format and were not trained since.

Weights of one dimension, of few values, or that are left out stay floats, as do buffers. Clipping the largest
values of a row, for a smaller scale, was tried with search: it lowers the error by less than 1 %.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import ConversionOps
from transformers.modeling_utils import remove_tied_weights_from_state_dict
from transformers.quantizers import HfQuantizer
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

METHOD = "mmsr-int8"
"""The name under `quantization_config` in `config.json`."""
INT8, INT4, SCALE = ":int8", ":int4", ":scale"
"""What is added to a weight's name for each part of it that is stored."""
_SMALLEST = 1024  # values; a smaller weight is not worth the error
_GROUP = 32


def encode(weight: Tensor) -> dict[str, Tensor]:
    """A weight `[n, ...]` of two or more dimensions as integers and scales, by what is added to its name.

    Raises:
        ValueError: A value is infinite or not a number.
    """
    weight = weight.detach().cpu().float()
    if not weight.isfinite().all():
        raise ValueError("a value is infinite or not a number; accepted: finite values")
    exact = _encode_in_4_bits(weight)
    if exact is not None:
        return exact
    rows = weight.flatten(1)
    scale = rows.abs().amax(1, keepdim=True) / 127
    integers = _quotient(rows, scale).clamp(-127, 127).to(torch.int8)
    return {INT8: integers.view(weight.shape), SCALE: scale.view(-1, *[1] * (weight.ndim - 1))}


def _encode_in_4_bits(weight: Tensor) -> dict[str, Tensor] | None:
    """None where a value would change."""
    if weight.ndim != 2 or weight.shape[1] % _GROUP:
        return None
    groups = weight.unflatten(1, (-1, _GROUP))
    scale = (groups.gather(2, groups.abs().argmax(2, keepdim=True)) / -8).half()
    integers = _quotient(groups, scale.float()).clamp(-8, 7).flatten(1)
    low, high = (integers + 8).to(torch.uint8).unflatten(1, (-1, 2)).unbind(2)
    stored = {INT4: low | high << 4, SCALE: scale.squeeze(2)}
    return stored if torch.equal(decode(stored), weight) else None


def _quotient(values: Tensor, scale: Tensor) -> Tensor:
    """`values / scale`, rounded; zero where the scale is."""
    return (values / scale.masked_fill(scale == 0, 1.0)).round()


def decode(stored: Mapping[str, Tensor]) -> Tensor:
    """The float32 weight that `encode` stored.

    Raises:
        ValueError: A part is missing, or the shapes do not fit.
    """
    _check({part: list(tensor.shape) for part, tensor in stored.items()})
    scale = stored[SCALE].float()
    if INT8 in stored:
        return stored[INT8].float() * scale
    packed = stored[INT4]
    integers = torch.stack((packed & 15, packed >> 4), 2).float().flatten(1) - 8
    values = integers.unflatten(1, (-1, _GROUP)) * scale.unsqueeze(2)
    return values.half().float().flatten(1)  # a release in this format is published as float16


def _check(shapes: Mapping[str, Sequence[int]], name: str = "a weight") -> None:
    """Raise unless these are the shapes of one weight's parts."""
    integers = [part for part in (INT8, INT4) if part in shapes]
    if len(integers) != 1 or SCALE not in shapes:
        raise ValueError(
            f"{name} is stored as {', '.join(shapes)}; accepted: {INT8} and {SCALE}, or {INT4} and {SCALE}"
        )
    rows, *rest = shapes[integers[0]]
    fitting = [rows, *[1] * len(rest)] if integers == [INT8] else [rows, 2 * math.prod(rest) // _GROUP]
    if list(shapes[SCALE]) != fitting:
        raise ValueError(f"{name}{SCALE} has shape {list(shapes[SCALE])}; accepted: {fitting}")


def save_int8(
    model: PreTrainedModel,
    folder: str | os.PathLike[str],
    *,
    leave_out: str | None = None,
    only_exact: bool = False,
    **options: Any,
) -> None:
    """Save a model as `save_pretrained` does, with its weights in 8 bits; the model itself does not change.

    Args:
        model: A model of this package, all of it in memory. The processor is the caller's to save.
        folder: Folder to write.
        leave_out: Regular expression of the names of weights that stay floats.
        only_exact: Weights of which a value would change stay floats, or what they are; if all do, the model
            is saved as any other.
        **options: Those of `save_pretrained`, such as `max_shard_size`.

    Raises:
        ValueError: A weight is not finite or not in memory, or the model is quantized already.
    """
    config: Any = model.config
    if getattr(config, "quantization_config", None) is not None:
        raise ValueError(f"{type(model).__name__} is quantized already; accepted: a model with float weights")
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    stored: dict[str, Tensor] = {}
    for name, tensor in remove_tied_weights_from_state_dict(model.state_dict(), model).items():
        if tensor.is_meta:
            if only_exact:
                model.save_pretrained(folder, state_dict=None, **options)
                return
            raise ValueError(f"{name} is not in memory; accepted: a model without offloaded weights")
        left_out = leave_out is not None and re.fullmatch(leave_out, name)
        small = tensor.ndim < 2 or tensor.numel() < _SMALLEST
        if name not in parameters or not tensor.is_floating_point() or small or left_out:
            stored[name] = tensor
            continue
        if only_exact and (tensor.dtype != torch.float32 or not tensor.isfinite().all()):
            stored[name] = tensor
            continue
        try:
            parts = encode(tensor)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        if only_exact and not torch.equal(decode(parts), tensor.detach().cpu()):
            stored[name] = tensor
        else:
            stored |= {name + part: value for part, value in parts.items()}
    if only_exact and not any(name.endswith(SCALE) for name in stored):
        model.save_pretrained(folder, state_dict=None, **options)
        return
    config.quantization_config = Int8StorageConfig()
    try:
        model.save_pretrained(folder, state_dict=stored, save_original_format=False, **options)
    finally:
        del config.quantization_config


def is_int8(config: Any) -> bool:
    """Whether a configuration is that of a folder which `save_int8` wrote."""
    settings = getattr(config, "quantization_config", None) or {}
    return dict(settings).get("quant_method") == METHOD


@register_quantization_config(METHOD)
class Int8StorageConfig(QuantizationConfigMixin):
    """What `config.json` says of the storage.

    Args:
        bits: Most bits of a stored value.
        quant_method: The name of this storage.
        **unknown: Settings of a later version, which are refused.

    Raises:
        ValueError: Other bits than 8, or an unknown setting.
    """

    dequantize = True  # transformers then takes the configuration away from the loaded model

    def __init__(self, *, bits: int = 8, quant_method: str = METHOD, **unknown: Any) -> None:
        if bits != 8:
            raise ValueError(f"quantization_config: bits is {bits}; accepted: 8")
        if unknown:
            names = ", ".join(unknown)
            raise ValueError(f"quantization_config: {names} is unknown; accepted: bits, quant_method")
        self.bits = bits
        self.quant_method: Any = quant_method  # of transformers' own methods, it is an enumeration


class _Decode(ConversionOps):
    """Transformers' step from the stored parts of one weight to the weight."""

    dtype: torch.dtype | None = None

    def __init__(self, quantizer: HfQuantizer | None = None) -> None:
        pass

    def convert(
        self,
        input_dict: dict[str, Any],
        source_patterns: list[str],
        target_patterns: list[str],
        **kwargs: Any,
    ) -> dict[str, list[Tensor]]:
        weight = decode({part: tensors[0] for part, tensors in input_dict.items()})
        return {kwargs["full_layer_name"]: [weight.to(self.dtype)]}


@register_quantizer(METHOD)
class Int8StorageQuantizer(HfQuantizer):
    """Decodes weights while transformers loads them; what is left is a model without quantization."""

    serialized_names = {"": [INT8, INT4, SCALE]}

    def get_load_operations(self) -> dict[str, type[ConversionOps]]:
        """The step that decodes."""
        return {"dequantize": _Decode}

    def get_new_dtype(self, converter: Any, param: Any, dtype: torch.dtype | None) -> torch.dtype | None:
        """Leave stored parts as they are until they are decoded, and remember the precision for then."""
        steps = [step for step in getattr(converter, "operations", ()) if isinstance(step, _Decode)]
        for step in steps:
            step.dtype = dtype
        return None if steps else super().get_new_dtype(converter, param, dtype)

    def _process_model_before_weight_loading(
        self, model: PreTrainedModel, *, checkpoint_files: Sequence[str] | None = None, **kwargs: Any
    ) -> PreTrainedModel:
        """Check shapes by the headers of the files: transformers does not say why a step failed."""
        weights: dict[str, dict[str, Sequence[int]]] = {}
        for path in checkpoint_files or ():
            with safe_open(path, "pt") as file:
                for key in file.keys():
                    name, colon, part = key.rpartition(":")
                    if colon:
                        weights.setdefault(name, {})[colon + part] = file.get_slice(key).get_shape()
        for name, shapes in weights.items():
            _check(shapes, name)
        return model

    def remove_quantization_config(self, model: PreTrainedModel) -> None:
        """Forget all but the storage's name, and the renamings that transformers undoes when it saves."""
        loaded_from: Any = model
        loaded_from.weight_storage = METHOD
        conversions: Any = getattr(model, "_weight_conversions", None)
        super().remove_quantization_config(model)
        if conversions is not None:
            loaded: Any = model
            loaded._weight_conversions = [
                conversion
                for conversion in conversions
                if not any(isinstance(step, _Decode) for step in getattr(conversion, "operations", ()))
            ]

    def is_serializable(self) -> bool:
        """Whether the loaded model can be saved."""
        return True

    @property
    def is_trainable(self) -> bool:
        """Whether the loaded model can be trained."""
        return True

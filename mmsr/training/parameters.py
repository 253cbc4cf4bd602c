"""Which weights are trained and how fast: freezing, LoRA, and the optimiser's parameter groups.

    settings, epoch ─► freeze_encoders ─► requires_grad of the encoders' layers
    model           ─► add_lora (in 4 bits: mmsr.training.quantization), free_label_tokens ─► training
                    ─► merge_lora ─► plain model again
    trained weights ─► parameter_groups ─► AdamW
    loss, trained weights ─► joined ─► backward            (in several processes)

All else in an encoder than its transformer layers (front end, embeddings, norms) counts as below the first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from mmsr.extras import needed_for
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.training.quantization import dequantize, dequantized, quantize
from mmsr.training.settings import ENCODERS, Freezing, Lora, Optimisation


def check_shared_table(model: MmsrForSentimentReasoning, freezing: Freezing) -> None:
    """Refuse to freeze text encoder or decoder alone if both share their word embeddings.

    Raises:
        ValueError: A setting names one of them.
    """
    if not model.config.tie_word_embeddings or {"text_encoder", "decoder"} <= freezing.frozen:
        return
    for setting, parts in freezing.by_setting().items():
        for name, other in (("text_encoder", "decoder"), ("decoder", "text_encoder")):
            if name in parts:
                raise ValueError(
                    f"{setting}= names {name}, whose word embeddings are the {other}'s too and would be "
                    "frozen for both; accepted: a model with config: {tie_word_embeddings: false}, or "
                    "freeze= of both"
                )


def model_part(model: MmsrForSentimentReasoning, name: str, *, setting: str) -> PreTrainedModel:
    """The transformers model of the encoder or decoder that a setting names.

    Raises:
        ValueError: The model does not have this part.
    """
    part = model.decoder if name == "decoder" else getattr(model.encoder, name, None)
    if part is None:
        raise ValueError(
            f"{setting}= names {name}, which a model with fusion={model.config.fusion!r} and "
            f"decoder_type={model.config.decoder_type!r} does not have"
        )
    return part.model


def frozen_parts(model: MmsrForSentimentReasoning, freeze: Sequence[str]) -> list[PreTrainedModel]:
    """The parts that `freeze` names; an encoder that the fusion does not read is none of the model.

    Raises:
        ValueError: The model has no decoder to freeze.
    """
    there = [name for name in freeze if name == "decoder" or hasattr(model.encoder, name)]
    return [model_part(model, name, setting="freeze") for name in there]


def transformer_layers(part: PreTrainedModel) -> nn.ModuleList:
    """The transformer layers of an encoder, lowest first.

    They are the last list of `GradientCheckpointingLayer`s whose length is the config's number of hidden
    layers; the list of a convolutional front end comes before it.

    Raises:
        ValueError: The model has no such list.
    """
    config: Any = part.config  # Moonshine's `num_hidden_layers` is of its decoder
    count = getattr(config, "encoder_num_hidden_layers", None) or getattr(config, "num_hidden_layers", None)
    lists = [
        module
        for module in part.modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == count
        and all(isinstance(layer, GradientCheckpointingLayer) for layer in module)
    ]
    if not lists:
        raise ValueError(
            f"an encoder with model_type={part.config.model_type!r} has no list of transformer layers; "
            "accepted by train_layers=, gradual_unfreezing= and layer_decay=: transformers' encoders"
        )
    return lists[-1]


def freeze_encoders(
    model: MmsrForSentimentReasoning,
    *,
    freeze: Sequence[str] = (),
    train_layers: Mapping[str, int] | None = None,
    gradual_unfreezing: Mapping[str, int] | None = None,
    epoch: int = 0,
) -> None:
    """Set which weights of the encoders are trained in an epoch.

    Args:
        model: The model with the encoders.
        freeze: Parts (encoders, decoder) that are not trained.
        train_layers: Number of top layers that are trained, by encoder.
        gradual_unfreezing: Number of further top layers that are trained with each epoch, by encoder; after
            the lowest layer all else too (Howard and Ruder 2018, arXiv 1801.06146).
        epoch: Counted from 0.

    Raises:
        ValueError: The model lacks a named encoder, or the encoder has fewer layers.
    """
    for part in frozen_parts(model, freeze):
        part.requires_grad_(False)
    for name, top in (train_layers or {}).items():
        part = model_part(model, name, setting="train_layers")
        layers = transformer_layers(part)
        if top > len(layers):
            raise ValueError(f"train_layers={{{name}: {top}}}; accepted: 1 to {len(layers)}, its layers")
        part.requires_grad_(False)
        layers[len(layers) - top :].requires_grad_(True)
    for name, step in (gradual_unfreezing or {}).items():
        part = model_part(model, name, setting="gradual_unfreezing")
        layers = transformer_layers(part)
        part.requires_grad_(epoch * step > len(layers))
        layers[max(len(layers) - epoch * step, 0) :].requires_grad_(True)


def eval_frozen(module: nn.Module) -> None:
    """Put the parts of a module whose weights are all frozen in eval mode (no dropout)."""
    trained = [weight.requires_grad for weight in module.parameters()]
    if trained and not any(trained):
        module.eval()
    else:
        for child in module.children():
            eval_frozen(child)


# ---------------------------------------------------------------------- LoRA


def add_lora(model: MmsrForSentimentReasoning, lora: Mapping[str, Lora]) -> None:
    """Freeze parts and add low-rank updates to train (Hu et al. 2021, arXiv 2106.09685).

    With `quantize` the frozen weights are kept in 4 bits (QLoRA, Dettmers et al. 2023, arXiv 2305.14314).
    WavLM's attention gets no updates: it reads the weights of its projections without calling them.

    Raises:
        ValueError: peft (for `quantize`, bitsandbytes) is not installed, the model lacks the part or the
            target modules, or one of these shares its weights with another layer.
    """
    if not lora:
        return
    with needed_for("lora="):
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer
    for name, settings in lora.items():
        part = model_part(model, name, setting="lora")
        owners = Counter(id(module._parameters.get("weight")) for module in part.modules())
        unread = r".*\.attention\..*" if part.config.model_type == "wavlm" else None
        if kind := settings.get("quantize"):
            quantize(part, kind, leave_out=unread)
        config = LoraConfig(
            r=settings.get("r", 8),
            lora_alpha=settings.get("alpha", 16),
            lora_dropout=settings.get("dropout", 0.0),
            target_modules=settings.get("target_modules", "all-linear"),
            exclude_modules=unread,
        )
        try:
            inject_adapter_in_model(config, part)
        except ValueError as error:
            raise ValueError(f"lora={{{name}: {dict(settings)}}}: {error}") from error
        for path, module in part.named_modules():
            # merging the update would change the other layer too
            if isinstance(module, LoraLayer) and owners[id(module.get_base_layer().weight)] > 1:
                raise ValueError(
                    f"lora={{{name}: {dict(settings)}}}: {path} shares its weights with another layer; "
                    "accepted: target_modules without it"
                )
        if hasattr(part, "freeze_feature_encoder"):
            part.freeze_feature_encoder()  # type: ignore[operator]  # else the waveform requires a gradient


class LabelRows(nn.Module):
    """Rows of a frozen table `[v, d]` that are trained: a parametrization of its `weight`."""

    def __init__(self, table: Tensor, tokens: Sequence[int]) -> None:
        super().__init__()
        self.tokens: Tensor
        self.register_buffer("tokens", torch.tensor(tokens, device=table.device), persistent=False)
        self.rows = nn.Parameter(table.detach()[self.tokens].clone())

    def forward(self, table: Tensor) -> Tensor:
        """The table with the trained rows in place of its own."""
        return table.index_copy(0, self.tokens, self.rows)


def free_label_tokens(model: MmsrForSentimentReasoning) -> None:
    """Train the label tokens' embeddings of a frozen decoder, at its input and its output.

    These tokens were added to its vocabulary, and have random embeddings. peft's `trainable_token_indices`
    does the same, but drops the bias of an output layer (BERT's, XLM-R's).
    """
    assert model.decoder is not None and model.config.label_token_ids is not None
    part = model.decoder.model
    made: dict[int, LabelRows] = {}  # by table: tied layers share their rows
    for module in (part.get_input_embeddings(), part.get_output_embeddings()):
        assert module is not None
        table = cast(Tensor, module.weight)
        made[id(table)] = made.get(id(table)) or LabelRows(table, model.config.label_token_ids)
    for module in list(part.modules()):
        rows = made.get(id(module._parameters.get("weight")))
        if rows is not None:
            parametrize.register_parametrization(module, "weight", rows)


@torch.no_grad()
def merge_lora(model: MmsrForSentimentReasoning) -> None:
    """Merge low-rank updates and label tokens into the weights; weights in 4 bits become floats."""
    for module in list(model.modules()):
        parametrizations: Any = getattr(module, "parametrizations", {})
        if "weight" in parametrizations and isinstance(parametrizations["weight"][0], LabelRows):
            parametrize.remove_parametrizations(module, "weight")  # in place: what is tied stays tied
    if not any(".lora_" in name for name, _ in model.named_parameters()):
        return
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            update: Any = module
            if (plain := dequantized(update.get_base_layer())) is None:
                update.merge(safe_merge=True)
            else:  # peft would put the sum back into 4 bits
                for adapter in update.active_adapters:
                    plain.weight += update.get_delta_weight(adapter)
            model.set_submodule(name, plain or update.get_base_layer())
    dequantize(model)


# ---------------------------------------------------------------------- parameter groups


def rate_factor(step: int, *, settings: Optimisation, steps: int) -> float:
    """Factor of the learning rate at a step: a line up from 0, then half a cosine down to 0, or 1.

    transformers' schedules import peft and bitsandbytes, which prints a message.

    Args:
        step: From 0 on.
        settings: Name the schedule and its warm-up.
        steps: All steps of the run.
    """
    warmup = settings.warmup_steps
    if warmup is None:
        warmup = math.ceil(settings.warmup_ratio * steps)
    if step < warmup:
        return step / warmup
    if settings.schedule == "constant":
        return 1.0
    return max(0.0, 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))))


def parameter_groups(
    module: nn.Module,
    model: MmsrForSentimentReasoning,
    settings: Optimisation,
    *,
    decoder_loaded: bool = False,
) -> list[dict[str, Any]]:
    """AdamW's parameter groups of all trainable weights of `module`, of which `model` is a part.

    An encoder's top layer has `encoder_learning_rate`, and each layer below it `layer_decay` times the rate
    of the layer above (Clark et al. 2020, ELECTRA, arXiv 2003.10555). A loaded decoder (`decoder_loaded`) has
    `encoder_learning_rate`. Vectors have no weight decay.
    """
    encoder_learning_rate = settings.encoder_learning_rate or settings.learning_rate
    rates: dict[int, float] = {}
    if decoder_loaded and model.decoder is not None:
        rates |= {id(weight): encoder_learning_rate for weight in model.decoder.model.parameters()}
    for name in ENCODERS:
        encoder = getattr(model.encoder, name, None)
        if encoder is None:
            continue
        layers = list(transformer_layers(encoder.model)) if settings.layer_decay != 1 else []
        lowest = encoder_learning_rate * settings.layer_decay ** len(layers)
        rates |= {id(weight): lowest for weight in encoder.parameters()}
        for below_top, layer in enumerate(reversed(layers)):
            rate = encoder_learning_rate * settings.layer_decay**below_top
            rates |= {id(weight): rate for weight in layer.parameters()}
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    for weight in module.parameters():
        if weight.requires_grad:
            key = (rates.get(id(weight), settings.learning_rate), weight.ndim > 1)
            groups.setdefault(key, []).append(weight)
    return [
        {"params": members, "lr": rate, "weight_decay": settings.weight_decay if matrix else 0.0}
        for (rate, matrix), members in groups.items()
    ]


def joined(loss: Tensor, module: nn.Module) -> Tensor:
    """`loss` plus zero times each trained weight, so that all have a gradient.

    DistributedDataParallel waits for a gradient of each weight, and a batch may lack a modality or
    rationales.
    """
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    # one number of a weight gives a gradient of zero to all of it
    return torch.stack([loss, *(weight.flatten()[0].to(loss) * 0.0 for weight in weights)]).sum()

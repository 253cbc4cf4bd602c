"""Text encoders: any transformers model that turns token ids into states, or the encoder of one."""

from __future__ import annotations

import inspect
import os
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from mmsr.model.configuration import MmsrConfig
from mmsr.model.encoders.base import Encoded, KeepsLayers, gives_weights, to_front


class TextEncoder(KeepsLayers):
    """Any transformers text encoder, without its pooler, under `self.model`.

    Of an encoder-decoder (T5, BART, mBART ...) it is the encoder. A causal language model (Mistral, Qwen ...)
    may be one too: each of its states has read the tokens before.

    A row without a transcript gets states too, which the caller replaces.
    """

    def __init__(self, config: MmsrConfig) -> None:
        super().__init__()
        self.config = config.part("text_encoder")
        self.keeps_all_layers = config.text_layer_mix
        # the encoder's own: models of RoBERTa's kind count positions by it
        own = self.config.pad_token_id
        self.pad_token_id = config.pad_token_id if own is None else own
        self.model = self.build(self.config)

    @staticmethod
    def build(config: PreTrainedConfig) -> PreTrainedModel:
        """The transformers model of this config, with random weights."""
        options = TextEncoder.options(config)
        return _encoder_of(AutoModel.from_config(config, dtype=torch.get_default_dtype(), **options))

    @classmethod
    def load(cls, name: str | os.PathLike[str]) -> PreTrainedModel:
        """The pretrained model of a Hub id or folder, in float32."""
        options = cls.options(AutoConfig.from_pretrained(name))
        return _encoder_of(AutoModel.from_pretrained(name, dtype=torch.float32, **options))

    @staticmethod
    def options(config: PreTrainedConfig) -> dict[str, bool]:
        """Arguments of the transformers model: no pooler, which would get no gradient.

        Raises:
            ValueError: The model reads no tokens.
        """
        known = type(config) in AutoModel._model_mapping
        model_class: Any = AutoModel._model_mapping[type(config)] if known else None
        if getattr(model_class, "main_input_name", None) != "input_ids":
            raise ValueError(
                f"text_encoder has model_type={config.model_type!r}, which is no text encoder; accepted: a "
                "text encoder of transformers (xlm-roberta, bert, roberta, deberta-v2 ...), or an "
                "encoder-decoder (t5, bart ...), whose encoder is taken"
            )
        pooler = "add_pooling_layer" in inspect.signature(model_class).parameters
        return {"add_pooling_layer": False} if pooler else {}

    def forward(
        self,
        input_ids: Tensor | None,
        mask: Tensor,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> Encoded:
        """Encode `input_ids [b, t]` (or `inputs_embeds [b, t, d]`) with their mask `[b, t]`."""
        if inputs_embeds is None:
            assert input_ids is not None
            input_ids, mask = to_front(input_ids, mask, ("input_ids", "attention_mask"))
            input_ids = input_ids.masked_fill(mask == 0, self.pad_token_id)
        else:
            inputs_embeds, mask = to_front(inputs_embeds, mask, ("inputs_embeds", "attention_mask"))
        attended = torch.where(mask.any(-1, keepdim=True), mask, torch.ones_like(mask))
        output = self.model(
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            attention_mask=attended,
            output_attentions=output_attentions and gives_weights(self.model),
            output_hidden_states=output_hidden_states or self.num_states > 1,
            return_dict=True,
        )
        encoded = Encoded.of(output, mask, all_layers=self.keeps_all_layers, extra_layer=self.extra_layer)
        if not output_hidden_states:
            encoded.hidden_states = None
        return encoded


def _encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    """The encoder of an encoder-decoder; any other model is one itself."""
    return model.get_encoder() if model.config.is_encoder_decoder else model

"""Rationale decoders: language models that read the fused memory.

    memory [b, m, d] ──► projection ──► cross-attention of every layer ──► logits [b, r, v]    cross_attention
    memory [b, m, d] ──► projection ──► soft tokens in front of the text ──► logits [b, r, v]  prefix

Each wraps a transformers model under `self.model`, built as a `PreTrainedModel`: a bare module has no causal
mask. To add one, write a class and add it to `DECODER_CLASSES` and `configuration.DECODERS`. `LabelGrammar`
keeps generated text to the rationale format.

Shapes: b batch, m memory, p prompt, r rationale tokens, v vocabulary, d width, h heads.
"""

from __future__ import annotations

import inspect
import math
import os
from typing import Any, cast

import torch
from einops import repeat
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
    BlenderbotConfig,
    BlenderbotForCausalLM,
    Cache,
    LogitsProcessor,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.cache_utils import DynamicCache, EncoderDecoderCache, StaticCache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.utils import logging
from transformers.utils.generic import is_flash_attention_requested

from mmsr.model.configuration import MmsrConfig, RationaleFormat

logger = logging.get_logger(__name__)

# The cache's name in a model's arguments and output: `cache` from transformers 5.24 on.
CACHE = "cache" if "cache" in Seq2SeqLMOutput.__dataclass_fields__ else "past_key_values"


class RationaleDecoder(nn.Module):
    """Base of the decoders: a transformers model and the projection of the memory to its width.

    `forward` returns `logits [b, r, v]`, the scores of the next token at every position of the rationale, the
    cache, and per layer `decoder_hidden_states [b, n, d]`, `decoder_attentions [b, h, n, n]` (n = r, or
    prefix + r with `prefix`) and `cross_attentions [b, h, r, m]`.

    Args of `forward`:
        memory: `[b, m, d]`.
        memory_mask: `[b, m]`.
        input_ids: Rationale so far `[b, r]`; with a filled cache, only the new part.
        inputs_embeds: `[b, r, d]` in place of `input_ids`.
        attention_mask: `[b, r]`; all ones by default.
        prompt_ids: Tokens before the rationale `[b, p]`; read by `prefix` alone.
        prompt_mask: `[b, p]`.
        cache: Cache of earlier positions.
        use_cache: Whether to return the cache.
        **kwargs: Of the transformers model, such as `output_attentions`.
    """

    def __init__(self, config: MmsrConfig) -> None:
        super().__init__()
        self.model = self.build(config.part("decoder"))
        width = self.memory_width(self.model)
        same = width == config.hidden_size
        self.projection: nn.Module = nn.Identity() if same else nn.Linear(config.hidden_size, width)

    @staticmethod
    def build(config: PreTrainedConfig) -> PreTrainedModel:
        """The transformers model of this config, with random weights."""
        raise NotImplementedError

    @classmethod
    def load(cls, name: str | os.PathLike[str]) -> PreTrainedModel:
        """The pretrained model of a Hub id or folder, in float32."""
        return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)

    @staticmethod
    def memory_width(model: PreTrainedModel) -> int:
        """Width of the states that the model reads as memory."""
        raise NotImplementedError


class CrossAttentionDecoder(RationaleDecoder):
    """A decoder each of whose layers attends to the memory.

    Either a causal language model with cross-attention (MBart's decoder half, GPT-2, BERT, XLM-R ...), or an
    encoder-decoder (BART, mBART, T5, mT5 ...) without its encoder. Cross-attention that a pretrained model
    lacks starts from random numbers, which is logged. Whisper's decoder, a language model of 99 languages, is
    loaded as Blenderbot's, which is the same but for a bias and reads the memory's mask.

    FlashAttention is replaced by sdpa: its cross-attention is wrong in transformers (see `layers.Attention`).
    """

    @staticmethod
    def build(config: PreTrainedConfig) -> PreTrainedModel:
        """The model of `config`.

        Raises:
            ValueError: it has no cross-attention.
        """
        dtype = torch.get_default_dtype()
        if config.is_encoder_decoder:
            return without_encoder(AutoModelForSeq2SeqLM.from_config(config, dtype=dtype))
        decoder = AutoModelForCausalLM.from_config(config, dtype=dtype)
        return CrossAttentionDecoder._checked(decoder)

    @classmethod
    def load(cls, name: str | os.PathLike[str]) -> PreTrainedModel:
        """The pretrained decoder; weights that it lacks are logged."""
        config = AutoConfig.from_pretrained(name)
        if config.model_type == "whisper":
            return whisper_decoder(name)
        if config.is_encoder_decoder:
            model = AutoModelForSeq2SeqLM.from_pretrained(name, dtype=torch.float32)
            return without_encoder(model)
        config.is_decoder = config.add_cross_attention = True
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name, config=config, dtype=torch.float32, output_loading_info=True
        )
        model, info = loaded
        if new := sorted(info["missing_keys"]):
            logger.warning(
                "decoder %s brings no weights for %s%s: they start from random numbers",
                name,
                ", ".join(new[:6]),
                f" and {len(new) - 6} more" if len(new) > 6 else "",
            )
        return cls._checked(model)

    @staticmethod
    def _checked(model: PreTrainedModel) -> PreTrainedModel:
        takes_memory = "encoder_hidden_states" in inspect.signature(model.forward).parameters
        if not takes_memory or not getattr(model.config, "add_cross_attention", False):
            raise ValueError(
                f"decoder has model_type={model.config.model_type!r}, which has no cross-attention; "
                "accepted: an encoder-decoder (bart, t5 ...), a causal language model with "
                "add_cross_attention=True (mbart, gpt2, bert, xlm-roberta ...), or decoder_type='prefix'"
            )
        return model

    @staticmethod
    def memory_width(model: PreTrainedModel) -> int:
        """Width of the states that the model's cross-attention reads."""
        return getattr(model.config, "cross_attention_hidden_size", None) or model.config.hidden_size

    def forward(
        self,
        memory: Tensor,
        memory_mask: Tensor,
        *,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        prompt_ids: Tensor | None = None,
        prompt_mask: Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Decode; see `RationaleDecoder`."""
        if is_flash_attention_requested(self.model.config):
            logger.warning_once(
                "a decoder of decoder_type='cross_attention' computes attention by sdpa, not flash_attention"
            )
            self.model.set_attn_implementation("sdpa" if self.model._supports_sdpa else "eager")
        memory = self.projection(memory)
        inputs: dict[str, Any]
        if self.model.config.is_encoder_decoder:
            prefix = "decoder_"
            states = BaseModelOutput(last_hidden_state=memory)
            inputs = {"encoder_outputs": states, "attention_mask": memory_mask}
        else:
            prefix = ""
            inputs = {"encoder_hidden_states": memory, "encoder_attention_mask": memory_mask}
        inputs |= {
            f"{prefix}input_ids": input_ids,
            f"{prefix}inputs_embeds": inputs_embeds,
            f"{prefix}attention_mask": attention_mask,
            CACHE: cache,
        }
        output = self.model(**inputs, use_cache=use_cache, return_dict=True, **kwargs)
        return Seq2SeqLMOutput(
            logits=output.logits,
            decoder_hidden_states=output.get(f"{prefix}hidden_states"),
            decoder_attentions=output.get(f"{prefix}attentions"),
            cross_attentions=output.cross_attentions,
            **{CACHE: output.get(CACHE)},
        )


def whisper_decoder(name: str | os.PathLike[str]) -> PreTrainedModel:
    """Whisper's pretrained decoder as a `BlenderbotForCausalLM`, in float32.

    Whisper's own cross-attention has no mask, so that padding would change what is written. Both are pre-norm
    decoders with learned positions; Blenderbot's keys have a bias too, which starts at zero.
    """
    whisper = AutoModelForSpeechSeq2Seq.from_pretrained(name, dtype=torch.float32)
    theirs = whisper.config
    config: Any = BlenderbotConfig(
        vocab_size=theirs.vocab_size,
        d_model=theirs.d_model,
        decoder_layers=theirs.decoder_layers,
        encoder_layers=theirs.decoder_layers,
        decoder_attention_heads=theirs.decoder_attention_heads,
        encoder_attention_heads=theirs.decoder_attention_heads,
        decoder_ffn_dim=theirs.decoder_ffn_dim,
        encoder_ffn_dim=theirs.decoder_ffn_dim,
        max_position_embeddings=theirs.max_target_positions,
        activation_function=theirs.activation_function,
        scale_embedding=theirs.scale_embedding,
        dropout=theirs.dropout,
        attention_dropout=theirs.attention_dropout,
        activation_dropout=theirs.activation_dropout,
        decoder_start_token_id=theirs.decoder_start_token_id,
        **{name: getattr(theirs, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")},
        is_decoder=True,
        is_encoder_decoder=False,
        tie_word_embeddings=True,
    )
    config.add_cross_attention = True
    decoder = BlenderbotForCausalLM(config)
    weights = whisper.model.decoder.state_dict()
    biases = {
        name: torch.zeros(theirs.d_model)
        for name in decoder.model.decoder.state_dict()
        if name.endswith("k_proj.bias")
    }
    decoder.model.decoder.load_state_dict(weights | biases)
    decoder.tie_weights()
    return decoder


class AbsentEncoder:
    """Stands in for an encoder that was removed; ignores new word embeddings."""

    embed_tokens: Any = None

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Do nothing."""


def without_encoder(model: PreTrainedModel) -> PreTrainedModel:
    """An encoder-decoder without its encoder. Weights keep their names, so pretrained ones load."""
    encoder = model.get_encoder()
    owner, name = next(
        (module, name)
        for module in model.modules()
        for name, child in module.named_children()
        if child is encoder
    )
    delattr(owner, name)
    setattr(owner, name, AbsentEncoder())

    def without(tied: dict[str, str] | None) -> dict[str, str]:
        return {target: source for target, source in (tied or {}).items() if name not in target.split(".")}

    part: Any
    for part in (owner, model):
        # the instance keeps which weights are tied: forget the encoder's
        part._tied_weights_keys = without(part._tied_weights_keys)
        part.all_tied_weights_keys = without(part.all_tied_weights_keys)
    return model


def _counts_positions(config: PreTrainedConfig) -> bool:
    """Whether the model's cache knows its length: not so for state-space models."""
    try:
        DynamicCache(config=config).get_seq_length()
    except ValueError:
        return False
    return True


class PrefixDecoder(RationaleDecoder):
    """A causal language model that reads the memory as soft tokens before the text.

        [ memory_1 ... memory_m | prompt_1 ... prompt_p | start label rationale ... ]

    With a prompt, the transcript in the language model's own tokens, this is the shape of audio-language
    models such as Qwen2-Audio (Chu et al. 2024, arXiv 2407.10759). Unlike in prefix tuning (Li & Liang 2021,
    arXiv 2101.00190) the prefix is computed from the utterance.

    A row's padding is moved before its prefix, is masked and takes no position, so that it takes no room in a
    sliding window of attention (Mistral, Gemma). `hidden_states` and `attentions` have this order too.

    Raises:
        ValueError: a language model without attention (Mamba, RWKV ...).
    """

    def __init__(self, config: MmsrConfig) -> None:
        super().__init__(config)
        accepted = inspect.signature(self.model.forward).parameters
        if CACHE not in accepted or not _counts_positions(self.model.config):
            raise ValueError(
                f"decoder has model_type={self.model.config.model_type!r}, a state-space model, whose cache "
                "does not tell how much of the prefix it holds; accepted: a causal language model with "
                "attention (gpt2, llama, qwen2 ...)"
            )
        self.takes_positions = "position_ids" in accepted
        self.takes_logits_to_keep = "logits_to_keep" in accepted
        self.longest: int | None = getattr(self.model.config, "max_position_embeddings", None)

    @staticmethod
    def build(config: PreTrainedConfig) -> PreTrainedModel:
        """The causal language model of `config`.

        Raises:
            ValueError: it is an encoder-decoder.
        """
        if config.is_encoder_decoder:
            raise ValueError(
                f"decoder_type='prefix' wants a causal language model, not model_type={config.model_type!r}, "
                "an encoder-decoder; accepted: gpt2, llama, qwen2 ..., or decoder_type='cross_attention'"
            )
        return AutoModelForCausalLM.from_config(config, dtype=torch.get_default_dtype())

    @staticmethod
    def memory_width(model: PreTrainedModel) -> int:
        """Width of the language model's word embeddings."""
        return cast(nn.Embedding, model.get_input_embeddings()).embedding_dim

    def forward(
        self,
        memory: Tensor,
        memory_mask: Tensor,
        *,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        prompt_ids: Tensor | None = None,
        prompt_mask: Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Decode; see `RationaleDecoder`."""
        embed = self.model.get_input_embeddings()
        if inputs_embeds is None:
            inputs_embeds = embed(input_ids)
        mask = memory_mask.long()
        if prompt_ids is not None:
            mask = torch.cat([mask, torch.ones_like(prompt_ids) if prompt_mask is None else prompt_mask], 1)
        order = mask.argsort(dim=-1, stable=True)  # padding first
        mask = mask.gather(1, order)
        if use_cache is None:
            use_cache = bool(getattr(self.model.config, "use_cache", True))
        if cache is None and use_cache:
            cache = DynamicCache(config=self.model.config)
        if cache is not None and not isinstance(cache, EncoderDecoderCache):  # as `generate` wants it back
            cache = EncoderDecoderCache(cache, DynamicCache())
        own = None if cache is None else cache.self_attention_cache
        if isinstance(own, StaticCache):
            raise ValueError(
                "cache_implementation='static' with decoder_type='prefix': it has room for the rationale and "
                "none for the memory before it; accepted: 'dynamic', the default"
            )
        past = 0 if own is None else own.get_seq_length()
        new = inputs_embeds.shape[1]
        if past == 0:
            soft = self.projection(memory).to(inputs_embeds.dtype)
            if prompt_ids is not None:
                soft = torch.cat([soft, embed(prompt_ids).to(inputs_embeds.dtype)], dim=1)
            soft = soft.gather(1, repeat(order, "b p -> b p d", d=soft.shape[2]))
            inputs_embeds = torch.cat([soft, inputs_embeds], dim=1)
        written = max(past - mask.shape[1], 0) + new
        if attention_mask is None or attention_mask.ndim != 2:
            attention_mask = mask.new_ones(len(mask), written)
        mask = torch.cat([mask, attention_mask.to(mask)], dim=1)
        if self.longest is not None and mask.shape[1] > self.longest:
            prompt = 0 if prompt_ids is None else prompt_ids.shape[1]
            raise ValueError(
                f"the language model reads up to {self.longest} positions, and got {memory.shape[1]} of "
                f"memory, {prompt} of prompt and {written} of rationale; accepted: a larger "
                "audio_stride, shorter utterances, or another decoder"
            )
        options: dict[str, Any] = {}
        if self.takes_positions:
            options["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -inputs_embeds.shape[1] :]
        if self.takes_logits_to_keep:
            options["logits_to_keep"] = new
        output = self.model(
            inputs_embeds=inputs_embeds,
            attention_mask=mask,
            use_cache=use_cache,
            return_dict=True,
            **{CACHE: own},
            **options,
            **kwargs,
        )
        new_cache: dict[str, Any] = {CACHE: cache if use_cache else None}
        return Seq2SeqLMOutput(
            logits=output.logits[:, -new:],
            decoder_hidden_states=output.hidden_states,
            decoder_attentions=output.attentions,
            **new_cache,
        )


DECODER_CLASSES: dict[str, type[RationaleDecoder]] = {
    "cross_attention": CrossAttentionDecoder,
    "prefix": PrefixDecoder,
}


class LabelGrammar(LogitsProcessor):
    """Keeps generated text to its format, so that it always holds a label.

    With the label first: start, label, words, end. With the label last: start, words, label, end, where the
    label is forced once `max_length` leaves no room for more words.

    Args:
        layout: The format.
        label_tokens: Token id of each label.
        eos_token_id: The token that ends a text.
        max_length: Longest text in tokens, start included.
        forced: With the label last, id of the label to write `[b]`; beams of a row are adjacent.
    """

    def __init__(
        self,
        layout: RationaleFormat,
        *,
        label_tokens: list[int],
        eos_token_id: int,
        max_length: int,
        forced: Tensor | None = None,
    ) -> None:
        self.layout = layout
        self.label_tokens = label_tokens
        self.eos_token_id = eos_token_id
        self.max_length = max_length
        self.forced = forced

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Set the scores `[n, v]` of tokens that may not follow `input_ids [n, r]` to minus infinity."""
        labels = torch.tensor(self.label_tokens, device=scores.device)
        written = input_ids.shape[1]
        ruled_out = torch.zeros_like(scores, dtype=torch.bool)
        if self.layout.label_first:
            ruled_out[:, labels] = True
            if written == 1:
                ruled_out = ~ruled_out
            return scores.masked_fill(ruled_out, -torch.inf)
        closed = torch.isin(input_ids[:, -1], labels)
        ruled_out[:, self.eos_token_id] = True
        if written >= self.max_length - 2:
            ruled_out[:] = True
            ruled_out[:, labels] = False
        if self.forced is not None:
            wanted = labels[self.forced.repeat_interleave(len(scores) // len(self.forced))]
            ruled_out[:, labels] |= labels[None] != wanted[:, None]
        ruled_out[closed] = True
        ruled_out[closed, self.eos_token_id] = False
        return scores.masked_fill(ruled_out, -torch.inf)


class SampledCandidates(LogitsProcessor):
    """Makes greedy generation write several texts of each row: the greedy one, and samples.

    The likeliest token after Gumbel noise is a sample of the model's distribution. Candidate `j` of every row
    has the same noise, so a row's candidates do not depend on the batch that it is in. Tokens that are less
    probable than `epsilon` are left out (epsilon sampling: Hewitt et al. 2022, arXiv 2210.15191; for minimum
    Bayes risk Freitag et al. 2023, arXiv 2305.09860).

    Args:
        number: Candidates of each row, which are adjacent.
        seed: Of the noise.
        epsilon: Least probability of a sampled token.
    """

    def __init__(self, number: int, *, seed: int = 0, epsilon: float = 0.02) -> None:
        self.number = number
        self.epsilon = epsilon
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores `[n, v]`, those of samples with noise, which are probabilities no more."""
        uniform = torch.rand(self.number, scores.shape[1], generator=self._generator, dtype=torch.float64)
        noise = -(-uniform.clamp(min=1e-300).log()).log().to(scores.device, torch.float32)
        noise[0] = 0  # the greedy one
        scores = scores.float().log_softmax(-1)
        rare = scores < math.log(self.epsilon)
        rare &= scores < scores.amax(-1, keepdim=True)  # the likeliest may be rare itself
        noisy = scores + repeat(noise, "k v -> (b k) v", b=len(scores) // self.number)
        return noisy.masked_fill(rare, -torch.inf)

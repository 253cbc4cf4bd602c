"""The joint audio-text model: two encoders, a fusion, a classification head and a rationale decoder.

    input_values [b, s] ─► audio encoder ─► layer mix ─► projection ─► A [b, f, d] ─┐
                                                                                    ├─► fusion
    input_ids    [b, t] ─► text encoder  ─► layer mix ─► projection ─► T [b, t, d] ─┘     │
                                                                                          ▼
                                                                                   memory [b, m, d]
                                        sentiment_logits [b, c] ◄─ head ◄─ pooling ◄──────┤
                                                       logits [b, r, v] ◄─ decoder ◄──────┘

Notation: b batch, s samples, f audio frames, t text tokens, m memory, r rationale tokens, v vocabulary,
c labels, d width. Masks: 1 = real. A modality is absent in a row where its mask is all zero, or where it is
not given: a learned vector then replaces its stream after encoding.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from huggingface_hub import ModelCard
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    Cache,
    GenerationMixin,
    LogitsProcessorList,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.modeling_outputs import ModelOutput, Seq2SeqLMOutput
from transformers.utils import can_return_tuple, logging

from mmsr.files import atomic_write
from mmsr.model.card import Origin, card_name, is_generated, model_card, replace_blank
from mmsr.model.configuration import (
    MmsrConfig,
    check_choice,
    check_names,
    fusion_modalities,
    without_decoder,
)
from mmsr.model.decoders import DECODER_CLASSES, LabelGrammar, RationaleDecoder
from mmsr.model.encoders.registry import load_audio_encoder
from mmsr.model.encoders.text import TextEncoder
from mmsr.model.fusion import FUSION_CLASSES
from mmsr.model.joint_encoder import NO_UTTERANCE, MmsrEncoder, MmsrEncoderOutput, MmsrPreTrainedModel
from mmsr.model.memory import TEXTS, VECTORS, RationaleMemory
from mmsr.model.pooling import SentimentHead
from mmsr.model.presets import PRESETS
from mmsr.model.quotes import QuoteGrammar, UncheckedQuotes
from mmsr.model.weight_storage import save_int8

logger: Any = logging.get_logger(__name__)


@dataclass
class MmsrOutput(Seq2SeqLMOutput):
    """Output of `MmsrForSentimentReasoning`: that of `RationaleDecoder`, of `MmsrEncoderOutput`, and more.

    Attributes:
        loss: Sentiment loss + λ · rationale loss, of those whose targets were given. Both are means over the
            targets of this batch; `target_weights` joins batches.
        logits: Of the decoder `[b, r, v]`; None without a decoder.
        encoder_last_hidden_state: The memory `[b, m, d]`.
        encoder_hidden_states: Of the text encoder, `[b, t, d]` per layer.
        encoder_attentions: Of the text encoder, `[b, h, t, t]` per layer.
        sentiment_loss: Cross-entropy of the head.
        rationale_loss: Cross-entropy of the decoder, a mean over target tokens.
        sentiment_logits: Of the head `[b, c]`.
        decoder_sentiment_logits: Scores of the label tokens at the label's position `[b, c]`, where `labels`
            were given and the decoder writes the label (`post_thinking`, `pre_thinking`).
        audio_hidden_states: `[b, f, d]` per layer.
        audio_attentions: `[b, h, f, f]` per layer.
        fusion_attentions: Per fusion layer.
        memory_mask: `[b, m]`.
        fusion_gates: `[b, layers, e]`, as of `MmsrEncoderOutput`.
        outlier_logits: Of audio and text `[b, 2]`, as of `MmsrEncoderOutput`.
    """

    sentiment_loss: Tensor | None = None
    rationale_loss: Tensor | None = None
    sentiment_logits: Tensor | None = None
    decoder_sentiment_logits: Tensor | None = None
    audio_hidden_states: tuple[Tensor, ...] | None = None
    audio_attentions: tuple[Tensor, ...] | None = None
    fusion_attentions: tuple[tuple[Tensor, ...], ...] | None = None
    memory_mask: Tensor | None = None
    fusion_gates: Tensor | None = None
    outlier_logits: Tensor | None = None


class Classification(NamedTuple):
    """Output of `MmsrForSentimentReasoning.classify`; fields of the decoder only where it writes the label.

    Attributes:
        memory: The encoder's output.
        head_logits: `[b, c]`.
        decoder_logits: Scores of the label tokens at the label's position `[b, c]`.
        decoder_labels: Ids of the labels that the decoder wrote `[b]`.
        sequences: All tokens that it wrote `[b, r]`.
    """

    memory: MmsrEncoderOutput
    head_logits: Tensor
    decoder_logits: Tensor | None = None
    decoder_labels: Tensor | None = None
    sequences: Tensor | None = None

    @property
    def labels(self) -> Tensor:
        """Ids of the predicted labels `[b]`: the decoder's, or else the head's."""
        return self.head_logits.argmax(-1) if self.decoder_labels is None else self.decoder_labels

    @property
    def outlier_logits(self) -> Tensor | None:
        """Of audio and text `[b, 2]`; None without detectors."""
        return self.memory.outlier_logits


class MmsrForSentimentReasoning(MmsrPreTrainedModel, GenerationMixin):
    """Audio and transcript in, sentiment and rationale out; the module's docstring shows the data flow.

    In the paper (arXiv 2407.21054) a text model reads an ASR transcript; here the audio is an input too.
    """

    accepts_loss_kwargs = False
    """So transformers' Trainer divides the loss by the number of accumulated batches. It would otherwise pass
    one count of targets, and this loss has two kinds of targets: see `mmsr.training.trainer`."""
    weight_storage: str | None = None
    """The method by which the weights were stored when they were loaded; None for floats."""
    memory: RationaleMemory | None = None
    """Training rows whose rationales are the answers, with `rationale_format="retrieval"`."""
    _written_card: bytes | None = None
    """The user's README.md in the folder that is being saved, which an upload must keep."""

    def __init__(self, config: MmsrConfig, **unknown: Any) -> None:
        if unknown:  # of `from_pretrained`, which gives the config what it knows
            check_names("setting", unknown, config.settings())
            raise ValueError(f"{', '.join(unknown)}= beside config=; accepted: one or the other")
        # transformers would take `temperature` for that of sampling
        temperature, config.temperature = config.temperature, 1.0
        super().__init__(config)
        config.temperature = temperature
        self.joint_encoder = MmsrEncoder(config)
        self.sentiment_head = SentimentHead(config)
        self.rationale_decoder: RationaleDecoder | None = None
        if config.decoder_type != "none":
            self.rationale_decoder = DECODER_CLASSES[config.decoder_type](config)
        if config.tie_word_embeddings:
            assert self.decoder is not None
            names = {id(weight): name for name, weight in self.named_parameters()}
            shared = names[id(self.get_input_embeddings().weight)]
            tied = (self.decoder.model.get_input_embeddings(), self.decoder.model.get_output_embeddings())
            self._tied_weights_keys = {names[id(part.weight)]: shared for part in tied}
        self.post_init()
        if self.decoder is not None:  # transformers collects tied weights one level deep
            own: Any = self.decoder.model.all_tied_weights_keys
            whole: Any = self.all_tied_weights_keys
            prefix = "rationale_decoder.model."
            whole.update({prefix + target: prefix + source for target, source in own.items()})

    @classmethod
    def from_encoders(
        cls,
        *,
        audio: str | os.PathLike[str] | PreTrainedModel | None = None,
        text: str | os.PathLike[str] | None = None,
        decoder: str | os.PathLike[str] | None = None,
        processor: Any = None,
        **overrides: Any,
    ) -> MmsrForSentimentReasoning:
        """Build a model from pretrained parts, joined by layers with random weights.

        Args:
            audio: Hub id or folder of a transformers speech encoder, or of an mmsr checkpoint, whose speech
                encoder is taken; `timm/<model>`; or a model that an audio encoder's `load` or `build`
                returned; None with `fusion="text_only"`.
            text: Hub id or folder of a transformers text encoder, or of an mmsr checkpoint, whose text
                encoder is taken; None with `fusion="audio_only"`.
            decoder: Hub id or folder of a pretrained language model; a preset's name for its decoder from
                scratch; None for a label only.
            processor: `MmsrProcessor.from_encoders` of the same parts; needed with a decoder.
            **overrides: Any argument of `MmsrConfig`, such as `fusion`, `hidden_size` or `audio_layer_mix`.

        Raises:
            ValueError: A part that the fusion needs, or the decoder's processor, is not given.
        """
        fusion = overrides.get("fusion", "cross_attention")
        check_choice("fusion", fusion, tuple(FUSION_CLASSES))
        parts: dict[str, PreTrainedModel] = {}
        if "audio" in fusion_modalities(fusion):
            if not isinstance(audio, PreTrainedModel):
                audio = _load_encoder(_given("audio", audio, fusion), "audio")
            parts["audio_encoder"] = audio
        if "text" in fusion_modalities(fusion):
            parts["text_encoder"] = _load_encoder(_given("text", text, fusion), "text")
        known = {} if processor is None else processor.config_kwargs()
        if decoder is None:
            known["decoder_type"] = "none"
            if not without_decoder(known.get("rationale_format", "")):
                known["rationale_format"] = "none"
        overrides = known | overrides
        if decoder is not None:
            if processor is None:
                raise ValueError(f"decoder={decoder!r} needs processor=MmsrProcessor.from_encoders(...)")
            overrides = {"label_token_ids": processor.label_token_ids, **overrides}
            if decoder in PRESETS:
                overrides = {"decoder": _preset_decoder(str(decoder), processor, overrides), **overrides}
            else:
                kind = overrides.setdefault("decoder_type", "cross_attention")
                check_choice("decoder_type", kind, tuple(DECODER_CLASSES))
                parts["decoder"] = DECODER_CLASSES[kind].load(decoder)
                start = getattr(parts["decoder"].config, "decoder_start_token_id", None)
                if start is not None:
                    overrides["decoder_start_token_id"] = start
        configs: dict[str, Any] = {name: part.config for name, part in parts.items()}
        model = cls(MmsrConfig(**configs, **overrides))
        tokenizers = {} if processor is None else {
            "text_encoder": processor.tokenizer, "decoder": processor.rationale_tokenizer
        }  # fmt: skip
        for name, part in parts.items():
            owner: Any = model.decoder if name == "decoder" else getattr(model.encoder, name)
            owner.model.load_state_dict(part.state_dict())
            vocabulary = len(tokenizers.get(name, ()))
            if vocabulary > getattr(part.config.get_text_config(), "vocab_size", vocabulary):
                owner.model.resize_token_embeddings(vocabulary)
                model.config.part(name).get_text_config().vocab_size = vocabulary
            if name == "decoder":
                _embed_labels(owner.model, processor)
        return model

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *model_args: Any, **kwargs: Any
    ) -> Any:
        """As `MmsrPreTrainedModel.from_pretrained`, with the memory of rationales where one is used.

        Raises:
            ValueError: See the base class; or the memory's files cannot be read or fit another model.
        """
        loaded: Any = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if model.config.retrieves:
            model.memory = RationaleMemory.load(pretrained_model_name_or_path, **kwargs)
            if model.memory is None:
                logger.warning(
                    "%s lacks %s and %s, so that its model gives labels without rationales",
                    pretrained_model_name_or_path, VECTORS, TEXTS,
                )  # fmt: skip
            else:
                model.check_memory()
        return loaded

    def check_memory(self) -> None:
        """Raise `ValueError` where the memory of rationales fits another model."""
        assert self.memory is not None
        found, width = self.memory.vectors.shape[1], self.encoder.embedding_width
        labels = {row.label for row in self.memory.rows}
        if found != width or not labels <= set(self.config.labels):
            raise ValueError(
                f"the memory has vectors of width {found} and the labels {', '.join(sorted(labels))}"
                f"; accepted: width {width}, and labels of {', '.join(self.config.labels)}"
            )

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:  # type: ignore[override]
        """As `PreTrainedModel.save_pretrained`, with a model card (README.md) unless the user wrote one.

        A memory of rationales is saved too. Without one, that of another model is removed from the folder.

        Weights that came from 8 or 4 bits, and were not changed since, are stored so again. They are loaded
        with the same bits.
        """
        card = Path(save_directory) / "README.md"
        written = card.exists() and not is_generated(card)
        if not written and kwargs.get("is_main_process", True):
            card.parent.mkdir(parents=True, exist_ok=True)
            self._card(kwargs.get("repo_id") or card_name(card.parent)).save(card)
        self._written_card = card.read_bytes() if written else None
        if kwargs.get("is_main_process", True):
            self._save_memory(card.parent)
        if self.weight_storage is not None and not kwargs.keys() & {"state_dict", "save_original_format"}:
            save_int8(self, save_directory, only_exact=True, **kwargs)  # which calls this with a state_dict
        else:
            super().save_pretrained(save_directory, **kwargs)

    def _card(self, name: str) -> ModelCard:
        return model_card(self.config, name=name, parameters=self.num_parameters(), memory=self.memory)

    def _save_memory(self, folder: Path) -> None:
        if self.memory is None:
            RationaleMemory.remove(folder)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self.memory.save(folder)

    def _upload_modified_files(
        self, working_dir: str | os.PathLike[str], repo_id: str, *args: Any, **kwargs: Any
    ) -> Any:
        """Upload a folder with its card, which transformers has just overwritten."""
        path = Path(working_dir) / "README.md"
        if self._written_card is not None:
            path.write_bytes(self._written_card)
        else:
            replace_blank(path, self._card(repo_id))
        self._save_memory(path.parent)  # again, since only files that are newer than the folder are uploaded
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)

    # ------------------------------------------------------------------ parts, under short names

    @property
    def encoder(self) -> MmsrEncoder:
        """The module `joint_encoder`."""
        return self.joint_encoder

    @property
    def writes_rationales(self) -> bool:
        """Whether there are rationales: of a decoder, of a template of evidence, or from a memory."""
        return self.decoder is not None or self.config.has_evidence or self.memory is not None

    @property
    def head(self) -> SentimentHead:
        """The module `sentiment_head`."""
        return self.sentiment_head

    @property
    def decoder(self) -> RationaleDecoder | None:
        """The module `rationale_decoder`; None for a label only."""
        return self.rationale_decoder

    # ------------------------------------------------------------------ parts, under transformers' names

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """The fused encoder; with `modality` "audio" or "text", that encoder alone."""
        if modality is None:
            return self.encoder
        return getattr(self.encoder, f"{modality}_encoder").model

    def get_decoder(self) -> nn.Module | None:
        """The language model that writes rationales."""
        return None if self.decoder is None else self.decoder.model

    def get_input_embeddings(self) -> nn.Module:
        """The text encoder's word embeddings (the decoder's, where there is no text encoder)."""
        if self.config.uses_text or self.decoder is None:
            return self.encoder.get_input_embeddings()
        return self.decoder.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace what `get_input_embeddings` returns."""
        if self.config.uses_text:
            self.encoder.set_input_embeddings(value)
        elif self.decoder is not None:
            self.decoder.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        """The decoder's output layer."""
        return None if self.decoder is None else self.decoder.model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the decoder's output layer."""
        if self.decoder is not None:
            self.decoder.model.set_output_embeddings(new_embeddings)

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> nn.Embedding:
        """Resize the text encoder's vocabulary, and the decoder's with it where both share one tokenizer.

        A decoder with a tokenizer of its own is resized by `model.decoder.model.resize_token_embeddings`.
        """
        concerned: dict[str, PreTrainedModel] = {}
        if self.config.uses_text:
            concerned["text_encoder"] = self.encoder.text_encoder.model
        if self.decoder is not None and (self.config.shared_vocabulary or not self.config.uses_text):
            concerned["decoder"] = self.decoder.model
        for name, part in concerned.items():
            resized = part.resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
            self.config.part(name).vocab_size = resized.num_embeddings
        self.tie_weights()
        embeddings = cast(nn.Embedding, self.get_input_embeddings())
        self.vocab_size = embeddings.num_embeddings
        return embeddings

    # ------------------------------------------------------------------ classify and forward

    def classify(
        self,
        *,
        encoder_outputs: MmsrEncoderOutput | None = None,
        head_only: bool = False,
        max_new_tokens: int | None = None,
        num_beams: int = 1,
        quotes: QuoteGrammar | None = None,
        **inputs: Any,
    ) -> Classification:
        """Label utterances by the head, and by the decoder where the rationale format has it write the label.

        Args:
            encoder_outputs: The memory, if it is known already.
            head_only: Leave the decoder out.
            max_new_tokens: Most tokens that the decoder writes; with the label first 2 by default, label and
                end.
            num_beams: Number of beams.
            quotes: What may be quoted, with `config.quotes="transcript"`; without it `sequences` may quote
                anything, and only their labels should be read.
            **inputs: The processor's tensors, and other arguments of the encoder.
        """
        if encoder_outputs is None:
            encoder_outputs = self.encoder(**inputs, return_dict=True)
        elif not isinstance(encoder_outputs, ModelOutput):
            encoder_outputs = MmsrEncoderOutput(*encoder_outputs)
        head_logits = encoder_outputs.sentiment_logits
        if head_logits is None:
            head_logits = self.head(encoder_outputs.last_hidden_state, encoder_outputs.attention_mask)
        layout = self.config.format
        if head_only or layout is None or not layout.label_learned:
            return Classification(encoder_outputs, head_logits)
        if max_new_tokens is None and layout.label_first:
            max_new_tokens = 2
        model: Any = self  # whose `generate` is typed for a Protocol in some of transformers' releases
        sequences = model.generate(
            encoder_outputs=copy.copy(encoder_outputs),  # beams are expanded in place
            num_beams=num_beams,
            do_sample=False,
            max_new_tokens=max_new_tokens,
            logits_processor=LogitsProcessorList([quotes or UncheckedQuotes()]),
        )
        targets = sequences[:, 1:].masked_fill(sequences[:, 1:] == self.config.pad_token_id, -100)
        scored = self(encoder_outputs=encoder_outputs, labels=targets)
        labels = self.written_labels(sequences)
        return Classification(
            encoder_outputs, head_logits, scored.decoder_sentiment_logits, labels, sequences
        )

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        input_values: Tensor | None = None,
        input_values_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        sentiment_labels: Tensor | None = None,
        soft_targets: Tensor | None = None,
        forced_sentiment: Tensor | Sequence[int] | int | None = None,
        encoder_outputs: MmsrEncoderOutput | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        audio_features: Tensor | None = None,
        audio_features_mask: Tensor | None = None,
        text_features: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> MmsrOutput:
        """Classify an utterance and score (or start) its rationale.

        Args:
            input_ids: Transcript `[b, t]`; None if no row has one.
            attention_mask: `[b, t]`; a row of zeros has no transcript.
            input_values: Waveform `[b, s]` at `config.sampling_rate` Hz; None if no row has audio.
            input_values_mask: `[b, s]`; a row of zeros has no audio.
            decoder_input_ids: `[b, r]`; by default `labels` shifted right, or `rationale_prompt`.
            decoder_attention_mask: `[b, r]`.
            labels: Rationale targets `[b, r]` = label token, rationale, end, then -100 (`rationale_targets`).
            sentiment_labels: `[b]`, -100 where unknown.
            soft_targets: Probability of each label `[b, c]`, of annotators or of another model, which the
                head learns in place of the known `sentiment_labels`.
            forced_sentiment: Label to explain in place of the predicted one, `[b]` or one for all rows.
            encoder_outputs: The memory, if it is known already.
            past_key_values: The decoder's cache.
            inputs_embeds: `[b, t, e]` in place of `input_ids`.
            decoder_inputs_embeds: `[b, r, e]` in place of `decoder_input_ids`.
            audio_features: `[b, f, l, e]` from `encoder.encode_audio`, in place of `input_values`.
            audio_features_mask: `[b, f]`; a row of zeros has no audio.
            text_features: `[b, t, l, e]` from `encoder.encode_text`, with `attention_mask` as mask.
            use_cache: Return the cache.
            output_attentions: Return attentions; needs eager attention.
            output_hidden_states: Return hidden states.
            cache: `past_key_values` under its name from transformers 5.24 on.
            **kwargs: Passed to the decoder.

        Raises:
            ValueError: Neither audio nor transcript is given, or `labels` without a decoder.
        """
        memory, sentiment_logits, *_ = self.classify(
            encoder_outputs=encoder_outputs,
            head_only=True,
            input_ids=input_ids,
            attention_mask=attention_mask,
            input_values=input_values,
            input_values_mask=input_values_mask,
            inputs_embeds=inputs_embeds,
            audio_features=audio_features,
            audio_features_mask=audio_features_mask,
            text_features=text_features,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        decoded = None
        if self.decoder is not None:
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = (
                    self.rationale_prompt(sentiment_logits, forced_sentiment)
                    if labels is None
                    else self.prepare_decoder_input_ids_from_labels(labels)
                )
            decoded = self.decoder(
                memory.last_hidden_state,
                memory.attention_mask,
                input_ids=decoder_input_ids,
                inputs_embeds=decoder_inputs_embeds,
                attention_mask=decoder_attention_mask,
                prompt_ids=memory.prompt_ids,
                prompt_mask=memory.prompt_mask,
                cache=past_key_values if cache is None else cache,
                use_cache=use_cache,
                **self.wanted_outputs(output_attentions, output_hidden_states),
                **kwargs,
            )
        elif labels is not None:
            raise ValueError("labels (a rationale) were given to a model with decoder_type='none'")
        return self._output(memory, sentiment_logits, decoded, labels, sentiment_labels, soft_targets)

    def _output(
        self,
        memory: MmsrEncoderOutput,
        sentiment_logits: Tensor,
        decoded: Seq2SeqLMOutput | None,
        labels: Tensor | None,
        sentiment_labels: Tensor | None,
        soft_targets: Tensor | None,
    ) -> MmsrOutput:
        """The output of `forward`, with the losses."""
        outputs: dict[str, Any] = {
            "sentiment_logits": sentiment_logits,
            "encoder_last_hidden_state": memory.last_hidden_state,
            "encoder_hidden_states": memory.hidden_states,
            "encoder_attentions": memory.attentions,
            "audio_hidden_states": memory.audio_hidden_states,
            "audio_attentions": memory.audio_attentions,
            "fusion_attentions": memory.fusion_attentions,
            "memory_mask": memory.attention_mask,
            "fusion_gates": memory.fusion_gates,
            "outlier_logits": memory.outlier_logits,
            **(decoded or {}),
        }
        if sentiment_labels is not None:
            outputs["sentiment_loss"] = _mean_cross_entropy(
                sentiment_logits,
                sentiment_labels,
                soft=soft_targets,
                weight=self._class_weights(sentiment_logits.device),
                label_smoothing=self.config.label_smoothing,
            )
        if decoded is not None and decoded.logits is not None and labels is not None:
            layout = self.config.format
            if layout is not None and layout.label_learned:
                outputs["decoder_sentiment_logits"] = self._logits_of_labels(decoded.logits, labels)
            targets = self.rationale_targets(labels)
            outputs["rationale_loss"] = _mean_cross_entropy(decoded.logits.flatten(0, 1), targets.flatten())
        weights = {"sentiment_loss": 1.0, "rationale_loss": self.config.rationale_loss_weight}
        losses = [weight * outputs[name] for name, weight in weights.items() if name in outputs]
        if losses:
            outputs["loss"] = sum(losses)
        return MmsrOutput(**outputs)

    def _class_weights(self, device: torch.device) -> Tensor | None:
        weights = self.config.class_weights
        return None if weights is None else torch.tensor(weights, dtype=torch.float32, device=device)

    def target_weights(
        self, *, sentiment_labels: Tensor | None = None, labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Weight of the known targets of a batch in `sentiment_loss` and `rationale_loss`, by these names.

        Both losses are means over a batch. The mean over several batches is Σ weight · loss / Σ weight: a
        labelled row counts its class weight, and each token of a rationale counts 1.
        """
        weights = {"sentiment_loss": torch.zeros(()), "rationale_loss": torch.zeros(())}
        if sentiment_labels is not None:
            known = sentiment_labels[sentiment_labels != -100]
            by_class = self._class_weights(known.device)
            total = known.new_tensor(len(known)) if by_class is None else by_class[known].sum()
            weights = {name: zero.to(known.device) for name, zero in weights.items()}
            weights["sentiment_loss"] = total.float()
        if labels is not None and self.config.format is not None:
            weights["rationale_loss"] = (self.rationale_targets(labels) != -100).sum().float()
        return weights

    def label_scores(self, logits: Tensor, *, temperature: float = 1.0) -> list[dict[str, float]]:
        """The probability of each label, by its name, for rows of logits `[b, c]`."""
        rows = (logits.float() / temperature).softmax(-1).tolist()
        return [dict(zip(self.config.labels, row, strict=True)) for row in rows]

    def label_tokens(self, device: torch.device) -> Tensor:
        """The decoder's token of each label `[c]`."""
        return torch.tensor(self.config.label_token_ids, device=device)

    def _logits_of_labels(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scores of the label tokens at the targets' label `[b, c]`; zero in rows without one."""
        tokens = self.label_tokens(logits.device)
        place = torch.isin(labels, tokens).long()
        chosen = logits[torch.arange(len(logits), device=logits.device), place.argmax(-1)][:, tokens]
        return chosen * place.any(-1, keepdim=True)

    def written_labels(self, sequences: Tensor) -> Tensor:
        """The label id in each generated text, `[b, r]` -> `[b]`; -100 where there is none."""
        tokens = self.label_tokens(sequences.device)
        found = sequences[:, :, None] == tokens
        return torch.where(found.any((1, 2)), found.any(1).long().argmax(-1), -100)

    # ------------------------------------------------------------------ the rationale's frame

    def rationale_targets(self, labels: Tensor) -> Tensor:
        """`labels [b, r]`, with `multitask` without the label's token."""
        layout = self.config.format
        assert layout is not None
        if layout.label_learned:
            return labels
        return torch.cat([torch.full_like(labels[:, :1], -100), labels[:, 1:]], dim=1)

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Decoder inputs of rationale targets `[b, r]`: the targets, shifted right."""
        shifted = labels.new_full(labels.shape, self.config.decoder_start_token_id)
        shifted[:, 1:] = labels[:, :-1]
        return shifted.masked_fill(shifted == -100, self.config.pad_token_id)

    def rationale_prompt(
        self, sentiment_logits: Tensor, forced_sentiment: Tensor | Sequence[int] | int | None = None
    ) -> Tensor:
        """The first tokens of a rationale, `[b, 1]` or `[b, 2]`.

        With `multitask`, the start token and the token of the label to explain: the head's, or
        `forced_sentiment [b]`. With `post_thinking`, the label's token only if it is forced. With
        `pre_thinking`, the start token alone; a forced label comes at the end (see `LabelGrammar`).

        Raises:
            ValueError: A forced label is no label of the model.
        """
        layout = self.config.format
        assert layout is not None
        sentiment = sentiment_logits.argmax(-1)
        start = torch.full_like(sentiment, self.config.decoder_start_token_id)
        if forced_sentiment is not None:
            sentiment = self._checked_labels(forced_sentiment, sentiment)
        if not layout.label_first or (layout.label_learned and forced_sentiment is None):
            return start[:, None]
        label_tokens = self.label_tokens(sentiment.device)[sentiment]
        return torch.stack([start, label_tokens], dim=1)

    def _checked_labels(self, forced_sentiment: Tensor | Sequence[int] | int, like: Tensor) -> Tensor:
        """Label ids as a tensor like `like [b]`; a number stands for every row."""
        forced_sentiment = torch.as_tensor(forced_sentiment).to(like)
        if forced_sentiment.ndim == 0:
            forced_sentiment = forced_sentiment.expand_as(like)
        if forced_sentiment.shape != like.shape or not (
            ((forced_sentiment >= 0) & (forced_sentiment < len(self.config.labels))).all()
        ):
            raise ValueError(
                f"forced_sentiment={forced_sentiment.tolist()}; accepted: one label id per row, of "
                f"{self.config.id2label}"
            )
        return forced_sentiment

    # ------------------------------------------------------------------ generation

    def _maybe_initialize_input_ids_for_generation(
        self, inputs: Tensor | None, bos_token_id: Tensor | None, model_kwargs: dict[str, Any]
    ) -> Any:
        """Without a transcript, mask the one that `generate` invents; `text_features` keep their mask."""
        names = ("text_features", "input_values", "audio_features", "inputs_embeds", "encoder_outputs")
        given = {name: model_kwargs[name] for name in names if model_kwargs.get(name) is not None}
        if inputs is not None or "encoder_outputs" in given or "inputs_embeds" in given:
            return super()._maybe_initialize_input_ids_for_generation(  # type: ignore[misc]  # its self is a Protocol
                inputs, bos_token_id, model_kwargs
            )
        if not given:
            raise ValueError(NO_UTTERANCE)
        states = next(iter(given.values()))
        invented = torch.full((len(states), 1), self.config.pad_token_id, device=self.device)
        if "text_features" not in given:
            model_kwargs["attention_mask"] = torch.zeros_like(invented)
        elif model_kwargs.get("attention_mask") is None:
            model_kwargs["attention_mask"] = invented.new_ones(states.shape[:2])
        return invented

    def _prepare_decoder_input_ids_for_generation(
        self,
        batch_size: int,
        model_input_name: str,
        model_kwargs: dict[str, Any],
        decoder_start_token_id: Tensor,
        device: torch.device | None = None,
    ) -> Any:
        """Start every row by `rationale_prompt`, unless `decoder_input_ids` are given."""
        if self.decoder is None:
            retrieved = "; the pipeline retrieves one" if self.config.retrieves else ""
            raise ValueError(
                "this model gives a label only (decoder_type='none'): there is no rationale to generate"
                + retrieved
            )
        forced, given = (model_kwargs.get(name) for name in ("forced_sentiment", "decoder_input_ids"))
        layout = self.config.format
        assert layout is not None
        if forced is not None:
            # a tensor, which `LabelGrammar` reads and which is expanded for beams
            forced = self._checked_labels(forced, torch.empty(batch_size, dtype=torch.long, device=device))
            model_kwargs["forced_sentiment"] = forced
        found = self.classify(encoder_outputs=model_kwargs["encoder_outputs"], head_only=True)
        model_kwargs["encoder_outputs"] = copy.copy(found.memory)
        model_kwargs["encoder_outputs"]["sentiment_logits"] = found.head_logits
        if given is None:
            model_kwargs["decoder_input_ids"] = self.rationale_prompt(found.head_logits, forced)
        elif forced is not None and layout.label_first:
            raise ValueError(
                f"forced_sentiment={forced.tolist()} contradicts decoder_input_ids: with "
                f"rationale_format={self.config.rationale_format!r} the label stands in them; accepted: one "
                "or the other"
            )
        return super()._prepare_decoder_input_ids_for_generation(  # type: ignore[misc]  # its self is a Protocol
            batch_size, model_input_name, model_kwargs, decoder_start_token_id, device
        )

    def _get_logits_processor(self, generation_config: Any, *args: Any, **kwargs: Any) -> Any:
        """Add the `LabelGrammar`, and move a `QuoteGrammar` to it."""
        processors = super()._get_logits_processor(generation_config, *args, **kwargs)  # type: ignore[misc]  # its self is a Protocol
        layout, form = self.config.format, f"rationale_format={self.config.rationale_format!r}"
        assert layout is not None and self.config.label_token_ids
        if self.config.eos_token_id is None:
            raise ValueError("eos_token_id=None; accepted, to generate: the token that ends a rationale")
        written, longest = kwargs["input_ids_seq_length"], generation_config.max_length
        label_to_come = layout.label_learned and (written == 1 or not layout.label_first)
        if label_to_come and longest - written < 2:
            raise ValueError(
                f"max_new_tokens={longest - written} leaves no room for the label that {form} writes; "
                "accepted: 2 (label and end) or more"
            )
        grammar = LabelGrammar(
            layout,
            label_tokens=self.config.label_token_ids,
            eos_token_id=self.config.eos_token_id,
            max_length=longest,
            forced=(kwargs.get("model_kwargs") or {}).get("forced_sentiment"),
        )
        quotes = [one for one in processors if isinstance(one, QuoteGrammar)]
        if self.config.quotes == "transcript" and not any(
            isinstance(one, QuoteGrammar | UncheckedQuotes) for one in processors
        ):
            logger.warning_once(
                "generation without transcripts: rationales may quote what was not said, in spite of "
                "quotes='transcript'; accepted: generate(..., logits_processor="
                "[processor.quote_grammar(texts)]), or model.config.quotes = 'free'"
            )
        for one in quotes:  # the label and the end take the last places
            one.max_length = longest - (1 if layout.label_first else 2)
        # first: after top_k and the like no allowed token may be left
        rest = [one for one in processors if one not in quotes and not isinstance(one, UncheckedQuotes)]
        return LogitsProcessorList([grammar, *quotes, *rest])


def save_model(
    model: MmsrForSentimentReasoning,
    processor: ProcessorMixin,
    folder: Path,
    *,
    weights: Literal["float", "int8"] = "float",
    origin: Origin | None = None,
) -> None:
    """Write a folder of model, processor and card, whole or not at all, in place of what has its name.

    Args:
        model: The model.
        processor: Its processor.
        folder: The folder; the card bears its name.
        weights: `int8` stores them in 8 bits (see `weight_storage`).
        origin: What the card tells of the training.
    """
    with atomic_write(folder) as half:
        if weights == "int8":
            save_int8(model, half)
        else:
            model.weight_storage = None  # floats are asked for
            model.save_pretrained(half)
        processor.save_pretrained(half)
        config = MmsrConfig.from_pretrained(half)
        card = model_card(
            config,
            name=card_name(folder),
            parameters=model.num_parameters(),
            memory=model.memory,
            origin=origin,
        )
        card.save(half / "README.md")  # save_pretrained's bears the name of the half-written folder


@torch.no_grad()
def _embed_labels(decoder: PreTrainedModel, processor: Any) -> None:
    """Start each label's new embedding as the mean of the tokens of its name.

    New embeddings all start as the table's mean, by which a decoder cannot tell the labels apart.
    """
    tables = (decoder.get_input_embeddings(), decoder.get_output_embeddings())
    for label, token in zip(processor.labels, processor.label_token_ids, strict=True):
        pieces = processor.rationale_tokenizer(label, add_special_tokens=False)["input_ids"]
        for table in tables:
            weight = cast(nn.Linear, table).weight
            weight[token] = weight[pieces].mean(0)


def _preset_decoder(preset: str, processor: Any, overrides: dict[str, Any]) -> Any:
    """Config of a preset's decoder over the processor's vocabulary."""
    kind = {"decoder_type": overrides["decoder_type"]} if "decoder_type" in overrides else {}
    return MmsrConfig.from_preset(
        preset, vocab_size=len(processor.rationale_tokenizer), **processor.config_kwargs(), **kind
    ).decoder


def _given(modality: str, name: str | os.PathLike[str] | None, fusion: str) -> str | os.PathLike[str]:
    if name is None:
        raise ValueError(f"fusion={fusion!r} needs {modality}=: Hub id or folder of a pretrained encoder")
    return name


def _load_encoder(name: str | os.PathLike[str], modality: Literal["audio", "text"]) -> PreTrainedModel:
    """A pretrained encoder in float32: a transformers model, or the encoder of an mmsr checkpoint.

    Raises:
        ValueError: The mmsr checkpoint has none of this modality.
    """
    config = None if str(name).startswith("timm/") else AutoConfig.from_pretrained(name)
    if isinstance(config, MmsrConfig):
        if modality not in fusion_modalities(config.fusion):
            raise ValueError(
                f"{modality}={name}: an mmsr checkpoint with fusion={config.fusion!r}, which has no "
                f"{modality} encoder; accepted: one that has, or a pretrained encoder"
            )
        lender = MmsrForSentimentReasoning.from_pretrained(name)
        return getattr(lender.encoder, f"{modality}_encoder").model
    return load_audio_encoder(name) if modality == "audio" else TextEncoder.load(name)


def _mean_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    soft: Tensor | None = None,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Mean cross-entropy in float32 over the known targets of weight above 0; 0, with a gradient, if none.

    Rows of probabilities `soft` `[n, c]` take the place of known targets, whose weights remain.
    """
    logits, targets = logits.float(), targets.to(logits.device)
    if weight is not None:  # torch would smooth a row of weight 0, and divide by 0 where a batch has no other
        targets = targets.masked_fill(weight[targets.clamp(min=0)] == 0, -100)
    if not (targets != -100).any():
        return logits.sum() * 0.0
    if soft is None:
        return nn.functional.cross_entropy(logits, targets, weight=weight, label_smoothing=label_smoothing)
    known = targets != -100
    rows = nn.functional.cross_entropy(
        logits[known],
        soft[known].to(logits),
        weight=weight,
        label_smoothing=label_smoothing,
        reduction="none",
    )
    return rows.mean() if weight is None else rows.sum() / weight[targets[known]].sum()


AutoModel.register(MmsrConfig, MmsrForSentimentReasoning)

"""The processor: waveforms, transcripts, labels and rationales in, the model's tensors out.

    audio      ─► input_values, input_values_mask          text  ─► input_ids, attention_mask
    rationale + sentiment ─► labels (label token, rationale, end)     sentiment ─► sentiment_labels
                             (rationale, label token, end with pre_thinking)

A row whose audio or text is None has a mask of zeros there: the model then uses its learned absent state.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoProcessor,
    AutoTokenizer,
    BatchFeature,
    PreTrainedConfig,
    Wav2Vec2FeatureExtractor,
)
from transformers.processing_utils import AudioKwargs, ProcessorMixin, TextKwargs
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import logging

from mmsr.model.alignment import spaced_words, token_spans, without_special_tokens
from mmsr.model.configuration import DEFAULT_LABELS, RATIONALE_FORMATS, MmsrConfig, check_choice
from mmsr.model.presets import PRESETS
from mmsr.model.tokenizer import label_token, train_tokenizer
from mmsr.records import Span

logger = logging.get_logger(__name__)


class WordTokens(NamedTuple):
    """A word of a transcript: its characters, `[start:end]`, and its tokens' positions in `input_ids`."""

    word: str
    start: int
    end: int
    positions: tuple[int, ...]


class MmsrProcessor(ProcessorMixin):
    """Feature extractor for the waveform and tokenizer for transcript and rationale, in one.

    Args:
        feature_extractor: a `Wav2Vec2FeatureExtractor`. With `do_normalize=False` (the default of `train`)
            the level of each utterance is kept, because loudness is evidence.
        tokenizer: of the text encoder, which is also the decoder's unless `decoder_tokenizer` is given.
        decoder_tokenizer: of a pretrained decoder that brings its own. The decoder's tokenizer holds each
            label's token.
        labels: label names in the order of their ids; negative, neutral, positive by default.
        text_prefix: put before every transcript, such as `query: ` for e5 encoders.
        max_rationale_tokens: longer rationales are cut, which is logged with a count.
        rationale_format: the model's; where the label stands in the targets.
    """

    # Defaults of the two sub-processors, under the names that transformers looks for.
    text_kwargs: TextKwargs = {"padding": True, "return_attention_mask": True}
    audio_kwargs: AudioKwargs = {"padding": True, "return_attention_mask": True, "sampling_rate": 16_000}

    def __init__(
        self,
        feature_extractor: Wav2Vec2FeatureExtractor,
        tokenizer: PreTrainedTokenizerBase,
        decoder_tokenizer: PreTrainedTokenizerBase | None = None,
        labels: list[str] | None = None,
        text_prefix: str = "",
        max_rationale_tokens: int = 96,
        rationale_format: str = "multitask",
    ) -> None:
        check_choice("rationale_format", rationale_format, tuple(RATIONALE_FORMATS))
        super().__init__(feature_extractor, tokenizer)
        self.decoder_tokenizer = decoder_tokenizer
        self.rationale_format = rationale_format
        self.labels = list(labels or DEFAULT_LABELS.values())
        self.text_prefix = text_prefix
        self.max_rationale_tokens = max_rationale_tokens

    @property
    def rationale_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of what the decoder writes."""
        return self.decoder_tokenizer or self.tokenizer

    @property
    def model_input_names(self) -> list[str]:
        """What `__call__` returns for an utterance."""
        return ["input_ids", "attention_mask", "input_values", "input_values_mask"]

    def __call__(
        self,
        text: str | Sequence[str | None] | None = None,
        audio: Any = None,
        rationale: str | Sequence[str | None] | None = None,
        sentiment: str | int | Sequence[str | int | None] | None = None,
        audio_features: Sequence[torch.Tensor | None] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Turn a batch of utterances into tensors.

        Args:
            text: one transcript, or one per row; None where a row has none.
            audio: one waveform `[s]`, or one per row (numpy, torch or list, mono, -1 to 1); None where a row
                has none.
            rationale: one, or one per row; needs `sentiment`, whose token it starts from.
            sentiment: label name or id, or one per row; None where unknown.
            audio_features: in place of audio, the audio encoder's states `[f, l, e]` of each row, such as a
                feature store keeps; None where a row has none.
            **kwargs: of the feature extractor or the tokenizer, such as `sampling_rate` (Hz, checked) or
                `return_tensors`. Beside a text, `padding`, `truncation` and `max_length` are the text's: a
                length in tokens is no length in samples. Lengths of audio go into `audio_kwargs`.

        Returns:
            `input_ids`, `attention_mask` `[b, t]`; `input_values`, `input_values_mask` `[b, s]`; `labels`
            `[b, r]`; `sentiment_labels` `[b]`; `audio_features` `[b, f, l, e]` float32,
            `audio_features_mask` `[b, f]`: those whose source was given.

        Raises:
            ValueError: nothing to process, both audio and its features, rows that do not match in number, a
                row without audio and text, empty text, audio that is empty, not mono or not finite, another
                sampling rate, an unknown label.
        """
        texts, rationales, sentiments = _rows(text), _rows(rationale), _rows(sentiment)
        waveforms = _rows_of_audio(audio)
        states = None if audio_features is None else list(audio_features)
        if texts is None and waveforms is None and states is None:
            raise ValueError("nothing to process: pass text, audio, or both")
        if waveforms is not None and states is not None:
            raise ValueError("audio and audio_features were given; accepted: one of them")
        counts = {
            name: len(rows)
            for name, rows in (
                ("text", texts),
                ("audio", waveforms),
                ("audio_features", states),
                ("rationale", rationales),
                ("sentiment", sentiments),
            )
            if rows is not None
        }
        if len(set(counts.values())) > 1:
            raise ValueError(f"rows do not match in number: {counts}")
        _check_rows(texts, waveforms, states)

        merged = self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        text_kwargs, audio_kwargs = merged["text_kwargs"], merged["audio_kwargs"]
        if texts is not None:
            lengths = {"padding": True, "truncation": False, "max_length": None}
            audio_kwargs.update({name: lengths[name] for name in lengths.keys() & kwargs.keys()})
        tensors = text_kwargs.pop("return_tensors", None)
        audio_kwargs.pop("return_tensors", None)
        data: dict[str, Any] = {}
        if texts is not None:
            data.update(self._encode_text(texts, text_kwargs))
        if waveforms is not None:
            data.update(self._encode_audio(waveforms, audio_kwargs))
        if states is not None and any(row is not None for row in states):
            data.update(padded_states(states))
        if sentiments is not None:
            data["sentiment_labels"] = [self.label_id(value) for value in sentiments]
        if rationales is not None:
            if sentiments is None:
                raise ValueError(
                    "rationale was given without sentiment: a rationale starts from its label's token"
                )
            data["labels"] = self._encode_rationales(rationales, data["sentiment_labels"])
        return BatchFeature(data, tensor_type=tensors)

    # ------------------------------------------------------------------ one modality each

    def _encode_text(self, texts: list[str | None], kwargs: dict[str, Any]) -> dict[str, Any]:
        prefixed = without_special_tokens([self.text_prefix + (text or "") for text in texts], self.tokenizer)
        limit = kwargs.get("max_length") or self.tokenizer.model_max_length
        kwargs |= {"truncation": False, "split_special_tokens": True}
        encoded = self.tokenizer(prefixed, **{**kwargs, "padding": False, "verbose": False})
        too_long = sum(len(ids) > limit for ids in encoded["input_ids"])
        if too_long:
            logger.warning("%d transcript(s) of %d were cut to %d tokens", too_long, len(texts), limit)
            kwargs |= {"truncation": True, "max_length": limit}
        encoded = self.tokenizer(prefixed, **kwargs)
        for row, text in enumerate(texts):
            if text is None:
                encoded["attention_mask"][row] = [0] * len(encoded["attention_mask"][row])
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

    def _encode_audio(self, waveforms: list[np.ndarray | None], kwargs: dict[str, Any]) -> dict[str, Any]:
        silence = np.zeros(1, dtype=np.float32)
        encoded = self.feature_extractor(
            [silence if audio is None else audio for audio in waveforms], **kwargs
        )
        values, mask = np.stack(encoded["input_values"]), np.stack(encoded["attention_mask"]).astype(np.int64)
        absent = [row for row, audio in enumerate(waveforms) if audio is None]
        values[absent], mask[absent] = 0.0, 0
        return {"input_values": values.astype(np.float32), "input_values_mask": mask}

    def _encode_rationales(self, rationales: list[str | None], sentiments: list[int]) -> list[list[int]]:
        """Targets `[b, r]` in the order of the format; -100 beyond, and in rows that lack one."""
        tokenizer, layout = self.rationale_tokenizer, RATIONALE_FORMATS[self.rationale_format]
        if layout is None:
            raise ValueError("rationale was given to a processor with rationale_format='none'")
        written = [
            row
            for row, given in enumerate(zip(rationales, sentiments, strict=True))
            if given[0] and given[1] >= 0
        ]
        rows: list[list[int]] = [[] for _ in rationales]
        label_tokens = self.label_token_ids if written else []
        cut = 0
        for row, text in zip(
            written,
            without_special_tokens([rationales[row] or "" for row in written], tokenizer),
            strict=True,
        ):
            ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
            cut += len(ids["input_ids"]) > self.max_rationale_tokens
            words = ids["input_ids"][: self.max_rationale_tokens]
            label = [label_tokens[sentiments[row]]]
            rows[row] = [*(label + words if layout.label_first else words + label), self.eos_token_id]
        if cut:
            logger.warning(
                "%d rationale(s) of %d were cut to %d tokens", cut, len(rows), self.max_rationale_tokens
            )
        width = max([len(row) for row in rows] + [2])
        return [row + [-100] * (width - len(row)) for row in rows]

    # ------------------------------------------------------------------ labels and rationales

    @property
    def label_token_ids(self) -> list[int]:
        """The decoder's id of each label's token, in the order of `labels`.

        Raises:
            ValueError: the tokenizer lacks one.
        """
        tokenizer = self.rationale_tokenizer
        ids: list[Any] = [tokenizer.convert_tokens_to_ids(label_token(label)) for label in self.labels]
        missing = [
            label
            for label, index in zip(self.labels, ids, strict=True)
            if index in (None, tokenizer.unk_token_id)
        ]
        if missing:
            raise ValueError(
                f"the tokenizer has no token for label(s) {', '.join(missing)}: see `add_label_tokens`"
            )
        return ids

    @property
    def eos_token_id(self) -> int:
        """The token that ends what the decoder writes."""
        tokenizer = self.rationale_tokenizer
        return tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id

    def add_label_tokens(self) -> int:
        """Give each label its special token; return how many were new (then resize the embeddings)."""
        tokens = [label_token(label) for label in self.labels]
        known = self.rationale_tokenizer.get_vocab()
        return self.rationale_tokenizer.add_tokens(
            [token for token in tokens if token not in known], special_tokens=True
        )

    def label_id(self, value: str | int | None) -> int:
        """The id of a label given by name or id; -100 for None.

        Raises:
            ValueError: the label is unknown.
        """
        if value is None:
            return -100
        if isinstance(value, str):
            if value in self.labels:
                return self.labels.index(value)
        elif 0 <= int(value) < len(self.labels):
            return int(value)
        raise ValueError(
            f"unknown label {value!r}; accepted: {', '.join(self.labels)} or 0 to {len(self.labels) - 1}"
        )

    def decode_rationales(self, sequences: torch.Tensor) -> list[str]:
        """Generated token ids `[b, r]` -> one rationale a row, without label and special tokens."""
        return [
            text.strip()
            for text in self.rationale_tokenizer.batch_decode(sequences, skip_special_tokens=True)
        ]

    def token_spans(self, text: str) -> list[Span]:
        """Where each token of `input_ids` stands in a transcript; special tokens and the prefix end at 0."""
        before = len(self.text_prefix)
        spans = token_spans(self.tokenizer, self.text_prefix + text)
        return [(max(start - before, 0), max(end - before, 0)) for start, end in spans]

    def word_tokens(self, text: str, words: Sequence[Span] | None = None) -> list[WordTokens]:
        """The words of a transcript, each with its tokens' positions in `input_ids`.

        Args:
            text: the transcript.
            words: its words, in order; by default what stands between spaces, and in scripts that do without
                (Chinese, Thai ...) each token.

        Returns:
            the words. What stands between two of them is the next one's, what comes after all the last one's;
            special tokens and the prefix are no word's.
        """
        spans = self.token_spans(text)
        if words is None:
            words = spaced_words(text, spans)
        ends = [end for _, end in words]
        positions: list[list[int]] = [[] for _ in words]
        for position, (_, end) in enumerate(spans):
            if words and end > 0:
                positions[min(bisect_left(ends, end), len(words) - 1)].append(position)
        return [
            WordTokens(text[start:end], start, end, tuple(own))
            for (start, end), own in zip(words, positions, strict=True)
        ]

    def config_kwargs(self) -> dict[str, Any]:
        """What an `MmsrConfig` needs to know of this processor."""
        tokenizer, eos = self.rationale_tokenizer, self.eos_token_id
        bos = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id
        return {
            "id2label": dict(enumerate(self.labels)),
            "rationale_format": self.rationale_format,
            "shared_vocabulary": self.decoder_tokenizer is None,
            "pad_token_id": eos if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
            "bos_token_id": bos,
            "eos_token_id": eos,
            "decoder_start_token_id": eos if bos is None else bos,
            "sampling_rate": self.feature_extractor.sampling_rate,
        }

    # ------------------------------------------------------------------ saving and loading

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The parts that every processor has; `decoder_tokenizer` may be None and is saved beside them."""
        return ["feature_extractor", "tokenizer"]

    def to_dict(self) -> dict[str, Any]:
        """What is saved as processor_config.json."""
        tokenizer, self.decoder_tokenizer = self.decoder_tokenizer, None
        try:
            saved = super().to_dict()
        finally:
            self.decoder_tokenizer = tokenizer
        saved.pop("decoder_tokenizer", None)
        return saved | ({} if tokenizer is None else {"has_decoder_tokenizer": True})

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """As transformers', with a decoder's own tokenizer in the folder `decoder_tokenizer`."""
        repo_id = kwargs.pop("repo_id", None) or os.path.basename(os.path.normpath(save_directory))
        files = super().save_pretrained(save_directory)
        if self.decoder_tokenizer is not None:
            self.decoder_tokenizer.save_pretrained(os.path.join(save_directory, "decoder_tokenizer"))
        if push_to_hub:  # saves once more, and uploads all that it saved
            self.push_to_hub(repo_id, **kwargs)
        return files

    @classmethod
    def _get_arguments_from_pretrained(
        cls, pretrained_model_name_or_path: str, processor_dict: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Any]:
        """The parts, and a decoder's own tokenizer where the checkpoint has one."""
        parts = super()._get_arguments_from_pretrained(
            pretrained_model_name_or_path, processor_dict, **kwargs
        )
        if (processor_dict or {}).get("has_decoder_tokenizer"):
            folder = os.path.join(kwargs.pop("subfolder", ""), "decoder_tokenizer")
            parts.append(
                AutoTokenizer.from_pretrained(pretrained_model_name_or_path, subfolder=folder, **kwargs)
            )
        return parts

    # ------------------------------------------------------------------ making one

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        labels: Sequence[str] | None = None,
        vocab_size: int = 4000,
        max_text_tokens: int = 256,
        rationale_format: str = "multitask",
        text_prefix: str = "",
    ) -> MmsrProcessor:
        """A processor whose tokenizer is trained on texts, those of the training split.

        The waveform's level is kept.

        Args:
            texts: Transcripts and rationales to train on.
            labels: Label names in the order of their ids.
            vocab_size: Most tokens of the vocabulary, special tokens included.
            max_text_tokens: Longer transcripts are cut, which is logged with a count.
            rationale_format: The model's.
            text_prefix: Put before every transcript.

        Raises:
            ValueError: see `mmsr.model.tokenizer.train_tokenizer`.
        """
        labels = list(labels or DEFAULT_LABELS.values())
        tokenizer = train_tokenizer(
            texts, labels=labels, vocab_size=vocab_size, max_text_tokens=max_text_tokens
        )
        return cls(
            _feature_extractor(do_normalize=False),
            tokenizer,
            labels=labels,
            rationale_format=rationale_format,
            text_prefix=text_prefix,
        )

    @classmethod
    def from_encoders(
        cls,
        *,
        audio: str | os.PathLike[str] | None = None,
        text: str | os.PathLike[str] | None = None,
        decoder: str | os.PathLike[str] | None = None,
        labels: Sequence[str] | None = None,
        text_prefix: str = "",
        rationale_format: str = "multitask",
    ) -> MmsrProcessor:
        """The processor that goes with `MmsrForSentimentReasoning.from_encoders`.

        Args:
            audio: Hub id or folder of the speech encoder; its own preprocessor tells if each utterance's
                level is normalised away. None or `timm/<model>` = the level is kept.
            text: Hub id or folder of the text encoder, whose tokenizer is taken; None without one
                (`fusion="audio_only"`): the decoder's tokenizer then reads transcripts, if there are any.
            decoder: Hub id or folder of a pretrained decoder, whose own tokenizer is kept beside the text
                encoder's; None, or the name of a preset, for a decoder that shares the text encoder's.
            labels: label names in the order of their ids.
            text_prefix: put before every transcript.
            rationale_format: the model's; unless it is `none`, each label's token is added to the decoder's
                tokenizer.

        Raises:
            ValueError: neither a text encoder nor a pretrained decoder, hence no tokenizer.
        """
        decoder = None if decoder in PRESETS else decoder
        if text is None and decoder is None:
            raise ValueError("no tokenizer: pass text= (a text encoder) or decoder= (a pretrained decoder)")
        do_normalize = False
        if audio is not None and not str(audio).startswith("timm/"):
            preprocessor = Wav2Vec2FeatureExtractor.get_feature_extractor_dict(audio)[0]
            reads_waveform = preprocessor.get("feature_extractor_type") == "Wav2Vec2FeatureExtractor"
            do_normalize = bool(reads_waveform and preprocessor.get("do_normalize", True))
        tokenizers: list[Any] = [
            AutoTokenizer.from_pretrained(part) for part in (text, decoder) if part is not None
        ]
        if tokenizers[-1].pad_token is None:
            tokenizers[-1].pad_token = tokenizers[-1].eos_token  # GPT-2 and Llama have none
        if text is not None and tokenizers[0].model_max_length > _NO_LIMIT:
            tokenizers[0].model_max_length = _positions(AutoConfig.from_pretrained(text))
        processor = cls(
            _feature_extractor(do_normalize=do_normalize),
            tokenizers[0],
            tokenizers[1] if len(tokenizers) > 1 else None,
            labels=list(labels) if labels else None,
            text_prefix=text_prefix,
            rationale_format=rationale_format,
        )
        if rationale_format != "none":
            processor.add_label_tokens()
        return processor


_NO_LIMIT = 10**6
"""Tokenizers of transformers that know no limit have a far larger number."""


def _positions(config: PreTrainedConfig) -> int:
    """Longest text in tokens of a text encoder; models of RoBERTa's kind count from their padding's id on."""
    offset = 0
    if any(name in config.model_type for name in ("roberta", "camembert", "mpnet")):
        offset = (config.pad_token_id or 0) + 1
    return getattr(config, "max_position_embeddings", _NO_LIMIT) - offset


def _feature_extractor(*, do_normalize: bool) -> Wav2Vec2FeatureExtractor:
    return Wav2Vec2FeatureExtractor(
        feature_size=1,
        sampling_rate=16_000,
        padding_value=0.0,
        do_normalize=do_normalize,
        return_attention_mask=True,
    )


def _rows(values: Any) -> list[Any] | None:
    """One value or many -> a list, None where nothing is given."""
    return None if values is None else [values] if isinstance(values, str | int) else list(values)


def _rows_of_audio(audio: Any) -> list[np.ndarray | None] | None:
    """One waveform or many -> a list of float32 arrays, None where a row has none."""
    if audio is None:
        return None
    if isinstance(audio, np.ndarray | torch.Tensor):
        audio = [audio] if audio.ndim == 1 else list(audio)
    elif audio and isinstance(audio[0], int | float):
        audio = [audio]
    return [None if row is None else np.asarray(row, dtype=np.float32) for row in audio]


def padded_states(states: list[torch.Tensor | None]) -> dict[str, torch.Tensor]:
    """An encoder's states `[f, l, e]`, None without audio -> `[b, f, l, e]` and its mask `[b, f]`."""
    empty = next(row for row in states if row is not None)[:0]
    rows = [(empty if row is None else row).float() for row in states]
    mask = [torch.ones(len(row), dtype=torch.long) for row in rows]
    return {
        "audio_features": pad_sequence(rows, batch_first=True),
        "audio_features_mask": pad_sequence(mask, batch_first=True),
    }


def _check_rows(
    texts: list[str | None] | None,
    waveforms: list[np.ndarray | None] | None,
    states: list[torch.Tensor | None] | None,
) -> None:
    rows = len(next(given for given in (texts, waveforms, states) if given is not None))
    for row in range(rows):
        text = None if texts is None else texts[row]
        audio = None if waveforms is None else waveforms[row]
        if text is None and audio is None and (states is None or states[row] is None):
            raise ValueError(f"row {row} has neither audio nor text; accepted: at least one of them")
        if text is not None and not text.strip():
            raise ValueError(f"row {row}: text is empty; accepted: words, or None for an absent transcript")
        if audio is None:
            continue
        if audio.ndim != 1:
            raise ValueError(f"row {row}: audio has shape {audio.shape}; accepted: one channel, [samples]")
        if not len(audio):
            raise ValueError(
                f"row {row}: audio has no samples; accepted: a waveform, or None for absent audio"
            )
        if not np.isfinite(audio).all():
            raise ValueError(
                f"row {row}: audio holds NaN or infinite samples; accepted: finite numbers, -1 to 1"
            )


AutoProcessor.register(MmsrConfig, MmsrProcessor)

"""The processor: waveforms, transcripts, labels and rationales in, the model's tensors out.

    audio      ─► input_values, input_values_mask          text  ─► input_ids, attention_mask
    rationale + sentiment ─► labels (label token, rationale, end)     sentiment ─► sentiment_labels
                             (rationale, label token, end with pre_thinking)

A row whose audio or text is None has a mask of zeros there.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
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
from mmsr.model.configuration import (
    DEFAULT_LABELS,
    RATIONALE_FORMATS,
    MmsrConfig,
    check_choice,
    check_label_names,
    without_decoder,
)
from mmsr.model.presets import PRESETS
from mmsr.model.quotes import QuoteGrammar, QuoteVocabulary
from mmsr.model.remote import AUTO_MAP, FoundByAutoFile, write_auto_file
from mmsr.model.tokenizer import label_token, train_tokenizer
from mmsr.quotations import as_transcribed
from mmsr.records import Span

logger = logging.get_logger(__name__)


_FRAME_SECONDS = 0.02
_SILENCE = 2.0**-30  # power of one step of 16 bits


class WordTokens(NamedTuple):
    """A word of a transcript: its characters, `[start:end]`, and its tokens' positions in `input_ids`."""

    word: str
    start: int
    end: int
    positions: tuple[int, ...]


def scale_to_level(waveform: np.ndarray, level: float, *, rate: int) -> np.ndarray:
    """Scale a waveform `[s]` as a whole so that its gated RMS level is `level`.

    The level is that of frames of 20 ms, gated as in ITU-R BS.1770-5 but without its frequency weighting:
    frames that are 70 dB or more below the loudest one are left out, then those more than 10 dB below the
    mean power of the rest. So pauses do not count. BS.1770's first gate is 70 dB below full scale, which a
    gain would move; its blocks of 400 ms overlap. The frames start at the first sample that is not zero, so
    that digital silence before or after the waveform changes nothing.

    Args:
        waveform: Mono, in float32. If no frame is louder than one step of 16 bits (-90 dBFS) it is silence,
            and is returned as it is.
        level: In dBFS: 20 log10 of the RMS, 0 for a square wave of full scale.
        rate: In Hz.

    Returns:
        float32 `[s]`. Peaks may exceed 1, and are not clipped: encoders take any float.
    """
    frame = round(_FRAME_SECONDS * rate)
    start = int((waveform != 0).argmax())
    samples = np.pad(waveform[start:].astype(np.float64), (0, -(len(waveform) - start) % frame))
    power = np.square(samples).reshape(-1, frame).mean(1)
    if power.max() < _SILENCE:
        return waveform
    power = power[power > power.max() * 1e-7]
    power = power[power >= power.mean() / 10]
    return (waveform * (10 ** (level / 20) / np.sqrt(power.mean()))).astype(np.float32)


def given_columns(columns: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """The columns in which some row has a value, as the processor takes them."""
    return {name: rows for name, rows in columns.items() if any(value is not None for value in rows)}


class MmsrProcessor(FoundByAutoFile, ProcessorMixin):
    """Feature extractor for the waveform and tokenizer for transcript and rationale, in one.

    Args:
        feature_extractor: With `do_normalize=False` (the default of `train`) each utterance's level is kept,
            unless `target_level` is given.
        tokenizer: Of the text encoder, and of the decoder unless `decoder_tokenizer` is given.
        decoder_tokenizer: Of a pretrained decoder. The decoder's tokenizer has a token for each label.
        labels: Label names in the order of their ids; negative, neutral, positive by default.
        text_prefix: Put before every transcript, such as `query: ` for e5 encoders.
        max_rationale_tokens: Longer rationales are cut, which is logged with a count.
        rationale_format: The model's.
        target_level: RMS level in dBFS, pauses left out, to which each waveform is scaled as a whole, such as
            -23; see `scale_to_level`. The scaled waveform is not clipped at 1. By default levels are kept.

    Raises:
        ValueError: An unknown format, bad label names, or a `target_level` that is not below 0 or stands
            beside a feature extractor with `do_normalize=True`.
    """

    # transformers reads the defaults of the two parts under these names
    text_kwargs: TextKwargs = {"padding": True, "return_attention_mask": True}
    audio_kwargs: AudioKwargs = {"padding": True, "return_attention_mask": True, "sampling_rate": 16_000}
    # the tokenizer that it was read off, and its tokens; read once, when they are wanted
    _quote_vocabulary: tuple[PreTrainedTokenizerBase, QuoteVocabulary] | None = None

    def __init__(
        self,
        feature_extractor: Wav2Vec2FeatureExtractor,
        tokenizer: PreTrainedTokenizerBase,
        decoder_tokenizer: PreTrainedTokenizerBase | None = None,
        labels: list[str] | None = None,
        text_prefix: str = "",
        max_rationale_tokens: int = 96,
        rationale_format: str = "multitask",
        target_level: float | None = None,
    ) -> None:
        check_choice("rationale_format", rationale_format, tuple(RATIONALE_FORMATS))
        super().__init__(feature_extractor, tokenizer)
        self.decoder_tokenizer = decoder_tokenizer
        self.rationale_format = rationale_format
        self.labels = list(labels or DEFAULT_LABELS.values())
        check_label_names(self.labels, "labels")
        self.text_prefix = text_prefix
        self.max_rationale_tokens = max_rationale_tokens
        if target_level is not None:
            if not -math.inf < target_level < 0:
                raise ValueError(
                    f"target_level is {target_level}; accepted: a level in dBFS, below 0, or None"
                )
            if feature_extractor.do_normalize:
                raise ValueError(
                    f"target_level is {target_level}, and the feature extractor scales each waveform to a "
                    "variance of 1 (do_normalize=True); accepted: one of the two"
                )
        self.target_level = None if target_level is None else float(target_level)

    @property
    def rationale_tokenizer(self) -> PreTrainedTokenizerBase:
        """The decoder's tokenizer."""
        return self.decoder_tokenizer or self.tokenizer

    @property
    def max_target_tokens(self) -> int:
        """Most tokens that a decoder writes: a rationale, its label and its end."""
        return self.max_rationale_tokens + 2

    @property
    def model_input_names(self) -> list[str]:
        """Names of an utterance's tensors."""
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
            text: One transcript, or one per row; None where a row has none.
            audio: One waveform `[s]`, or one per row (numpy, torch or list, mono, -1 to 1); None where a row
                has none.
            rationale: One, or one per row; needs `sentiment`, for the label's token.
            sentiment: Label name or id, or one per row; None where unknown.
            audio_features: In place of audio, the audio encoder's states `[f, l, e]` of each row; None where
                a row has none.
            **kwargs: Of the feature extractor or the tokenizer, such as `sampling_rate` (Hz, checked) or
                `return_tensors`. Beside a text, `padding`, `truncation` and `max_length` are the text's;
                those of audio go into `audio_kwargs`.

        Returns:
            Those whose source was given: `input_ids`, `attention_mask` `[b, t]`; `input_values`,
            `input_values_mask` `[b, s]`; `labels` `[b, r]`; `sentiment_labels` `[b]`; `audio_features`
            `[b, f, l, e]` float32, `audio_features_mask` `[b, f]`.

        Raises:
            ValueError: Nothing to process, both audio and its features, rows that do not match in number, a
                row without audio and text, empty text, audio that is empty, not mono or not finite, another
                sampling rate, an unknown label.
        """
        texts, rationales, sentiments = _rows(text), _rows(rationale), _rows(sentiment)
        waveforms = _rows_of_audio(audio)
        states = None if audio_features is None else list(audio_features)
        if waveforms is not None and states is not None:
            raise ValueError("audio and audio_features were given; accepted: one of them")
        _check_rows(
            text=texts, audio=waveforms, audio_features=states, rationale=rationales, sentiment=sentiments
        )

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
        level, rate = self.target_level, self.feature_extractor.sampling_rate
        if level is not None:
            waveforms = [
                None if audio is None else scale_to_level(audio, level, rate=rate) for audio in waveforms
            ]
        silence = np.zeros(1, dtype=np.float32)
        encoded = self.feature_extractor(
            [silence if audio is None else audio for audio in waveforms], **kwargs
        )
        values, mask = np.stack(encoded["input_values"]), np.stack(encoded["attention_mask"]).astype(np.int64)
        absent = [row for row, audio in enumerate(waveforms) if audio is None]
        values[absent], mask[absent] = 0.0, 0
        return {"input_values": values.astype(np.float32, copy=False), "input_values_mask": mask}

    def _encode_rationales(self, rationales: list[str | None], sentiments: list[int]) -> list[list[int]]:
        """Targets `[b, r]` in the order of the format, padded with -100."""
        tokenizer, layout = self.rationale_tokenizer, RATIONALE_FORMATS[self.rationale_format]
        if layout is None:
            raise ValueError(
                f"rationale was given to a processor with rationale_format={self.rationale_format!r}"
            )
        texts = without_special_tokens([rationale or "" for rationale in rationales], tokenizer)
        rows: list[list[int]] = []
        cut = 0
        for text, sentiment in zip(texts, sentiments, strict=True):
            if not text or sentiment < 0:
                rows.append([])
                continue
            ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
            cut += len(ids["input_ids"]) > self.max_rationale_tokens
            words = ids["input_ids"][: self.max_rationale_tokens]
            label = [self.label_token_ids[sentiment]]
            rows.append([*(label + words if layout.label_first else words + label), self.eos_token_id])
        if cut:
            logger.warning(
                "%d rationale(s) of %d were cut to %d tokens", cut, len(rows), self.max_rationale_tokens
            )
        width = max([len(row) for row in rows] + [2])
        return [row + [-100] * (width - len(row)) for row in rows]

    # ------------------------------------------------------------------ labels and rationales

    @property
    def label_token_ids(self) -> list[int]:
        """The token id of each label, in the order of `labels`.

        Raises:
            ValueError: The tokenizer lacks one.
        """
        tokenizer = self.rationale_tokenizer
        ids: list[Any] = [tokenizer.convert_tokens_to_ids(label_token(label)) for label in self.labels]
        unknown = (None, tokenizer.unk_token_id)
        missing = [label for label, index in zip(self.labels, ids, strict=True) if index in unknown]
        if missing:
            raise ValueError(
                f"the tokenizer has no token for label(s) {', '.join(missing)}: see `add_label_tokens`"
            )
        return ids

    @property
    def eos_token_id(self) -> int:
        """The token that ends the decoder's text."""
        tokenizer = self.rationale_tokenizer
        return tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id

    def add_label_tokens(self) -> int:
        """Add a special token for each label; return how many are new. Then resize the embeddings."""
        known = self.rationale_tokenizer.get_vocab()
        tokens = [token for token in map(label_token, self.labels) if token not in known]
        return self.rationale_tokenizer.add_tokens(tokens, special_tokens=True)

    def label_id(self, value: str | int | None) -> int:
        """The id of a label given by name or id; -100 for None.

        Raises:
            ValueError: The label is unknown.
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

    def decode_rationales(
        self, sequences: torch.Tensor, transcripts: Sequence[str | None] | None = None
    ) -> list[str]:
        """Generated token ids `[b, r]` -> the rationale of each row, without label and special tokens.

        Args:
            sequences: Of the model's `generate`.
            transcripts: Of the rows, where they were generated with a `quote_grammar`: quotations are then
                written as in the transcript, which may differ in case, accents' encoding and width, and left
                out where there is none.
        """
        if transcripts is None:
            texts = self.rationale_tokenizer.batch_decode(sequences, skip_special_tokens=True)
            return [text.strip() for text in texts]
        texts = self.rationale_tokenizer.batch_decode(
            sequences, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        pairs = zip(texts, transcripts, strict=True)
        return [as_transcribed(text, transcript).strip() for text, transcript in pairs]

    def quote_grammar(self, transcripts: Sequence[str | None]) -> QuoteGrammar:
        """What the rationales of rows may quote: words of their transcripts.

        For `generate(..., logits_processor=[grammar])`. Give `decode_rationales` the same transcripts. A
        model with `config.quotes="transcript"` warns where it generates without, and may then quote anything.

        Raises:
            ValueError: The decoder's tokenizer cannot be read token by token.
        """
        tokenizer = self.rationale_tokenizer
        known = self._quote_vocabulary
        if known is None or known[0] is not tokenizer or len(known[1].pieces) != len(tokenizer):
            known = self._quote_vocabulary = tokenizer, QuoteVocabulary(tokenizer)
        return QuoteGrammar(known[1], transcripts)

    def token_spans(self, text: str) -> list[Span]:
        """The span of each token of `input_ids` in a transcript; special tokens and the prefix end at 0."""
        before = len(self.text_prefix)
        spans = token_spans(self.tokenizer, self.text_prefix + text)
        return [(max(start - before, 0), max(end - before, 0)) for start, end in spans]

    def word_tokens(self, text: str, words: Sequence[Span] | None = None) -> list[WordTokens]:
        """The words of a transcript, each with its tokens' positions in `input_ids`.

        A token between two words belongs to the next one, or to the last; special tokens and the prefix to
        none.

        Args:
            text: The transcript.
            words: Its words, in order; by default the parts between spaces, or each token in scripts without
                spaces (Chinese, Thai ...).
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
        """Arguments of an `MmsrConfig` for this processor."""
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
        """The parts that every processor has; `decoder_tokenizer` is saved beside them."""
        return ["feature_extractor", "tokenizer"]

    def to_dict(self) -> dict[str, Any]:
        """The content of processor_config.json."""
        tokenizer, self.decoder_tokenizer = self.decoder_tokenizer, None
        try:
            saved = super().to_dict()
        finally:
            self.decoder_tokenizer = tokenizer
        saved.pop("decoder_tokenizer", None)
        if self.target_level is None:  # which earlier releases do not know
            saved.pop("target_level", None)
        saved["auto_map"] = {"AutoProcessor": AUTO_MAP["AutoProcessor"]}
        return saved | ({} if tokenizer is None else {"has_decoder_tokenizer": True})

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """As the base class, with a decoder's own tokenizer in the folder `decoder_tokenizer`."""
        repo_id = kwargs.pop("repo_id", None) or os.path.basename(os.path.normpath(save_directory))
        write_auto_file(save_directory)
        files = super().save_pretrained(save_directory)
        if self.decoder_tokenizer is not None:
            self.decoder_tokenizer.save_pretrained(os.path.join(save_directory, "decoder_tokenizer"))
        if push_to_hub:  # saves again, and uploads that
            self.push_to_hub(repo_id, **kwargs)
        return files

    @classmethod
    def _get_arguments_from_pretrained(
        cls, pretrained_model_name_or_path: str, processor_dict: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Any]:
        """The parts, and a decoder's own tokenizer if the checkpoint has one."""
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
        target_level: float | None = None,
    ) -> MmsrProcessor:
        """A processor whose tokenizer is trained on texts, and which keeps the waveform's level by default.

        Args:
            texts: Transcripts and rationales of the training split.
            labels: See the class.
            vocab_size: Most tokens of the vocabulary, special tokens included.
            max_text_tokens: Longer transcripts are cut, which is logged with a count.
            rationale_format: See the class.
            text_prefix: See the class.
            target_level: See the class.

        Raises:
            ValueError: See the class and `mmsr.model.tokenizer.train_tokenizer`.
        """
        labels = list(labels or DEFAULT_LABELS.values())
        tokenizer = train_tokenizer(
            texts, labels=labels, vocab_size=vocab_size, max_text_tokens=max_text_tokens
        )
        return cls(
            Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True),
            tokenizer,
            labels=labels,
            rationale_format=rationale_format,
            text_prefix=text_prefix,
            target_level=target_level,
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
        target_level: float | None = None,
    ) -> MmsrProcessor:
        """The processor that goes with `MmsrForSentimentReasoning.from_encoders`.

        Args:
            audio: Hub id or folder of the speech encoder, whose preprocessor decides whether each utterance's
                level is normalised. With None or `timm/<model>` the level is kept. Of an mmsr checkpoint
                `target_level` is taken too, unless it is given.
            text: Hub id or folder of the text encoder, whose tokenizer is taken; with None the decoder's
                tokenizer reads transcripts. Of an mmsr checkpoint `text_prefix` is taken too, unless it is
                given.
            decoder: Hub id or folder of a pretrained decoder, whose tokenizer is kept beside the text
                encoder's; None or a preset's name for a decoder that shares the text encoder's.
            labels: See the class.
            text_prefix: See the class.
            rationale_format: See the class; if it has a decoder, each label's token is added.
            target_level: See the class.

        Raises:
            ValueError: Neither a text encoder nor a pretrained decoder, or see the class.
        """
        decoder = None if decoder in PRESETS else decoder
        if text is None and decoder is None:
            raise ValueError("no tokenizer: pass text= (a text encoder) or decoder= (a pretrained decoder)")
        do_normalize = False
        if audio is not None and not str(audio).startswith("timm/"):
            preprocessor = Wav2Vec2FeatureExtractor.get_feature_extractor_dict(audio)[0]
            reads_waveform = preprocessor.get("feature_extractor_type") == "Wav2Vec2FeatureExtractor"
            do_normalize = bool(reads_waveform and preprocessor.get("do_normalize", True))
            if target_level is None and (lender := _lender(audio)):
                target_level = lender.target_level
        if text is not None and not text_prefix and (lender := _lender(text)):
            text_prefix = lender.text_prefix
        tokenizers: list[Any] = [
            AutoTokenizer.from_pretrained(part) for part in (text, decoder) if part is not None
        ]
        if tokenizers[-1].pad_token is None:
            tokenizers[-1].pad_token = tokenizers[-1].eos_token  # GPT-2 and Llama have none
        if text is not None and tokenizers[0].model_max_length > _NO_LIMIT:
            tokenizers[0].model_max_length = _positions(AutoConfig.from_pretrained(text))
        processor = cls(
            Wav2Vec2FeatureExtractor(do_normalize=do_normalize, return_attention_mask=True),
            tokenizers[0],
            tokenizers[1] if len(tokenizers) > 1 else None,
            labels=list(labels) if labels else None,
            text_prefix=text_prefix,
            rationale_format=rationale_format,
            target_level=target_level,
        )
        if not without_decoder(rationale_format):
            processor.add_label_tokens()
        return processor


_NO_LIMIT = 10**6  # transformers' number for no limit is far larger


def _lender(name: str | os.PathLike[str]) -> MmsrProcessor | None:
    """The processor of an mmsr checkpoint; None for any other model."""
    config, _ = MmsrConfig.get_config_dict(name)
    return MmsrProcessor.from_pretrained(name) if config.get("model_type") == MmsrConfig.model_type else None


def _positions(config: PreTrainedConfig) -> int:
    """Longest text of a text encoder in tokens; models of RoBERTa's kind count from their padding's id on."""
    offset = 0
    if any(name in config.model_type for name in ("roberta", "camembert", "mpnet")):
        offset = (config.pad_token_id or 0) + 1
    return getattr(config, "max_position_embeddings", _NO_LIMIT) - offset


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


def _check_rows(**columns: list[Any] | None) -> None:
    """Check the number of rows, and each row's audio and text."""
    given = {name: column for name, column in columns.items() if column is not None}
    inputs = [given[name] for name in ("text", "audio", "audio_features") if name in given]
    if not inputs:
        raise ValueError("nothing to process: pass text, audio, or both")
    counts = {name: len(column) for name, column in given.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"rows do not match in number: {counts}")
    for row, values in enumerate(zip(*inputs, strict=True)):
        if all(value is None for value in values):
            raise ValueError(f"row {row} has neither audio nor text; accepted: at least one of them")
        text, audio = (given[name][row] if name in given else None for name in ("text", "audio"))
        if (problem := input_problem(text, audio)) is not None:
            raise ValueError(f"row {row}: {problem}")


def input_problem(text: Any, audio: np.ndarray | None) -> str | None:
    """What is wrong with an utterance's transcript or waveform, and what is accepted; None if nothing is."""
    if text is not None and not isinstance(text, str):
        return f"text is {text!r}; accepted: words, or None"
    if text is not None and not text.strip():
        return "text is empty; accepted: words, or None"
    if audio is None:
        return None
    if audio.ndim != 1:
        return f"audio has shape {audio.shape}; accepted: one channel, [samples]"
    if not len(audio):
        return "audio has no samples; accepted: a waveform, or None"
    if not np.isfinite(audio).all():
        return "audio holds NaN or infinite samples; accepted: finite numbers"
    return None


AutoProcessor.register(MmsrConfig, MmsrProcessor)

"""`pipeline("sentiment-reasoning")`: audio, transcript, or both in; label, scores and rationale out."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import Pipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator

from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor

TASK = "sentiment-reasoning"


class SentimentReasoningPipeline(Pipeline):
    """Sentiment and rationale of an utterance, or of many.

    An input is an audio path, `bytes`, a mono waveform at 16 kHz (numpy), or a mapping with `audio` and / or
    `text` (`text` the transcript; `sampling_rate` in Hz where `audio` is a waveform of another rate). A list,
    generator or dataset of them is answered in order, `batch_size` at a time.

    Keyword arguments, of the pipeline or of a call:
        forced_label: explain this label instead of the predicted one (a counterfactual rationale).
        rationale: whether to write one (default: where the model has a decoder).
        num_beams, max_new_tokens: of the rationale's generation.
        load_audio: callable that turns a path or bytes into a mono 16 kHz waveform (default: `mmsr.Audio`).

    Returns:
        for each input `{"label", "score", "scores": {label: probability}, "rationale": str or None}`. With
        `forced_label`, `label` and `scores` stay the predicted ones and `forced_label` is added. Where the
        decoder gives the label (`post_thinking`, `pre_thinking`) it is read from what the decoder wrote and
        the scores are the decoder's; the head's stand beside them as `head_label` and `head_scores`.
    """

    # Any: the base class declares them as None
    _load_processor: Any = True
    _load_tokenizer: Any = False
    _load_feature_extractor: Any = False
    _load_image_processor: Any = False

    default_load_audio: ClassVar[Callable[[Any], np.ndarray] | None] = None
    """Set by `mmsr/__init__.py`, since the model's room does not know the data's."""

    model: MmsrForSentimentReasoning
    processor: MmsrProcessor

    def _sanitize_parameters(
        self,
        *,
        load_audio: Callable[[Any], np.ndarray] | None = None,
        forced_label: str | None = None,
        rationale: bool | None = None,
        num_beams: int | None = None,
        max_new_tokens: int | None = None,
        **unknown: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if unknown:
            raise ValueError(
                f"unknown argument(s) {', '.join(unknown)}; accepted: load_audio, forced_label, rationale, "
                "num_beams, max_new_tokens"
            )
        forward = {
            "forced_label": forced_label,
            "rationale": rationale,
            "num_beams": num_beams,
            "max_new_tokens": max_new_tokens,
        }
        given = {name: value for name, value in forward.items() if value is not None}
        return ({} if load_audio is None else {"load_audio": load_audio}), given, {}

    def get_iterator(
        self,
        inputs: Iterable[Any],
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterable[dict[str, Any]]:
        """As the base class, but a batch is collated by the processor, which pads both modalities."""
        if hasattr(inputs, "__len__"):
            dataset: Any = PipelineDataset(inputs, self.preprocess, preprocess_params)
        else:
            dataset, num_workers = PipelineIterator(inputs, self.preprocess, preprocess_params), 0
        loader = DataLoader(dataset, num_workers=num_workers, batch_size=batch_size, collate_fn=list)
        for batch in loader:
            answers = self.forward({"utterances": batch}, **forward_params)
            yield from self.postprocess(answers, **postprocess_params)

    def run_single(
        self,
        inputs: Any,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> dict[str, Any]:
        """Answer one utterance."""
        return next(
            iter(self.get_iterator([inputs], 0, 1, preprocess_params, forward_params, postprocess_params))
        )

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Save model and processor (the base class leaves the processor out and ships this file's code)."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)

    def preprocess(  # type: ignore[override]
        self, input_: Any, load_audio: Callable[[Any], np.ndarray] | None = None
    ) -> dict[str, Any]:
        """Any accepted input -> `{"audio": waveform or None, "text": str or None}`.

        Raises:
            ValueError: no audio and no text, or an input of another kind.
        """
        record = dict(input_) if isinstance(input_, dict) else {"audio": input_}
        audio, text = record.get("audio"), record.get("text")
        if audio is None and text is None:
            raise ValueError(
                f"an utterance needs audio or text, got {sorted(record)}; accepted: a path, bytes, a "
                "waveform, or a mapping with 'audio' and / or 'text'"
            )
        if audio is None:
            return {"audio": None, "text": text}
        load = load_audio or type(self).default_load_audio
        if load is None:
            raise ValueError("no audio loader: pass load_audio=, or `import mmsr`, which provides one")
        if isinstance(audio, dict):  # the audio column of a dataset
            audio = (audio["array"], audio["sampling_rate"])
        elif not isinstance(audio, str | bytes | os.PathLike):
            rate = record.get("sampling_rate", self.processor.feature_extractor.sampling_rate)
            audio = (np.asarray(audio), rate)
        return {"audio": load(audio), "text": text}

    def _forward(  # type: ignore[override]
        self,
        input_tensors: dict[str, Any],
        forced_label: str | None = None,
        rationale: bool | None = None,
        num_beams: int = 1,
        max_new_tokens: int | None = None,
    ) -> dict[str, Any]:
        rows = input_tensors["utterances"]
        audio, text = ([row[name] for row in rows] for name in ("audio", "text"))
        inputs = self.processor(
            audio=None if all(value is None for value in audio) else audio,
            text=None if all(value is None for value in text) else text,
            return_tensors="pt",
        ).to(self.device)
        memory = self.model.encoder(**inputs, return_dict=True)
        asked = "rationale=True" if rationale else f"forced_label={forced_label!r}" if forced_label else None
        if asked and self.model.decoder is None:
            raise ValueError(f"{asked}, but this model gives a label only (decoder_type='none')")
        if forced_label is not None and rationale is False:
            raise ValueError(
                f"forced_label={forced_label!r} contradicts rationale=False: it changes nothing else"
            )
        answers: dict[str, Any] = {
            "head_logits": self.model.head(memory.last_hidden_state, memory.attention_mask),
            "forced_label": forced_label,
        }
        layout = self.model.config.format
        if layout is None or (rationale is False and not layout.label_learned):
            return answers

        longest = max_new_tokens or self.processor.max_rationale_tokens + 2  # with label and end
        if rationale is False and layout.label_first:
            longest = 2  # label and end are all that is asked for

        def written(forced: torch.Tensor | None) -> torch.Tensor:
            # a copy, because beams are expanded in place
            return self.model.generate(  # type: ignore[misc, return-value]  # its self is a Protocol
                encoder_outputs=copy.copy(memory),
                forced_sentiment=forced,
                num_beams=num_beams,
                do_sample=False,
                max_new_tokens=longest,
            )

        forced = None
        if forced_label is not None:
            forced = torch.full((len(rows),), self.processor.label_id(forced_label), device=self.device)
        sequences = written(forced)
        if rationale is not False:
            answers["sequences"] = sequences
        if layout.label_learned:
            own = sequences if forced is None else written(None)
            answers["written_labels"] = self.model.written_labels(own)
            targets = own[:, 1:].masked_fill(own[:, 1:] == self.model.config.pad_token_id, -100)
            scored = self.model(encoder_outputs=memory, labels=targets)
            answers["decoder_logits"] = scored.decoder_sentiment_logits
        return answers

    def postprocess(self, model_outputs: dict[str, Any]) -> list[dict[str, Any]]:  # type: ignore[override]
        """Logits and token ids -> one answer a row."""
        config = self.model.config
        head = given = self._probabilities(model_outputs["head_logits"], config.temperature)
        # from the logits, which no temperature can make equal by rounding
        head_labels = labels = model_outputs["head_logits"].argmax(-1).tolist()
        decides = "decoder_logits" in model_outputs
        if decides:
            given = self._probabilities(model_outputs["decoder_logits"], config.decoder_temperature)
            labels = model_outputs["written_labels"].tolist()
        rationales: list[str | None] = [None] * len(head)
        if "sequences" in model_outputs:
            rationales = list(self.processor.decode_rationales(model_outputs["sequences"]))
        answers = []
        for row, rationale in enumerate(rationales):
            scores = given[row]
            label = config.labels[labels[row]]
            answer = {"label": label, "score": scores[label], "scores": scores, "rationale": rationale}
            if decides:
                answer["head_label"] = config.labels[head_labels[row]]
                answer["head_scores"] = head[row]
            if model_outputs["forced_label"] is not None:
                answer["forced_label"] = model_outputs["forced_label"]
            answers.append(answer)
        return answers

    def _probabilities(self, logits: torch.Tensor, temperature: float) -> list[dict[str, float]]:
        """Logits `[b, c]` -> {label: probability} of each row."""
        rows = (logits.float() / temperature).softmax(-1).tolist()
        return [dict(zip(self.model.config.labels, row, strict=True)) for row in rows]


PIPELINE_REGISTRY.register_pipeline(
    TASK, pipeline_class=SentimentReasoningPipeline, pt_model=MmsrForSentimentReasoning, type="multimodal"
)

"""`pipeline("sentiment-reasoning")`: audio, transcript, or both in; label, scores and rationale out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import asdict, replace
from functools import lru_cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm
from transformers import LogitsProcessor, LogitsProcessorList, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.pt_utils import PipelineDataset

from mmsr.data.audio.decoding import Audio, AudioError
from mmsr.data.audio.reading import map_ahead, read_or_error
from mmsr.data.audio.segments import speech_seconds
from mmsr.evaluation.explain.attribution import attention as attend
from mmsr.evaluation.similarity import consensus
from mmsr.inference.answer import Answer
from mmsr.inference.retrieval import Retriever
from mmsr.inference.template import Evidence, Weighted, phrase_language
from mmsr.messages import nearest
from mmsr.model.decoders import SampledCandidates
from mmsr.model.fusion import FUSION_CLASSES, attention_map
from mmsr.model.joint_encoder import MmsrEncoderOutput
from mmsr.model.memory import TEXTS, VECTORS
from mmsr.model.modeling import Classification, MmsrForSentimentReasoning
from mmsr.model.outliers import MODALITIES, OUTLIER_REASONS, outliers
from mmsr.model.packaged import DEFAULT, FOLDER
from mmsr.model.processing import MmsrProcessor, given_columns, input_problem
from mmsr.model.quotes import QuoteGrammar
from mmsr.quotations import evidence
from mmsr.records import SAMPLE_RATE, Attribution, Chunk, Span, Utterance, read_chunks
from mmsr.speech.timing import WordTimes, sounding

if TYPE_CHECKING:
    from mmsr.speech.recogniser import Transcriber

TASK = "sentiment-reasoning"

Transcribe = Callable[[Sequence[np.ndarray], Sequence[str | None]], Sequence[str]]
"""From waveforms `[s]` and the language of each (None if unknown) to texts, empty for silence."""

_LONG = 10.0  # seconds, above which an answer tells how much of them is speech
_INPUTS = ("audio", "audio_features", "text", "language")
_KEYS = {*_INPUTS, *Utterance.__dataclass_fields__, "sampling_rate", "asr_words"}
_TRANSCRIPT_COLUMNS = ("text", "asr_text")
_STEPS = (
    ("load_audio", "sampling_rate", "errors", "progress"),
    (
        "asr",
        "forced_label",
        "alternatives",
        "attention",
        "rationale",
        "speech",
        "num_beams",
        "num_candidates",
        "max_new_tokens",
        "seed",
    ),
    ("abstain_below",),
)
"""Arguments of `preprocess`, `_forward` and `postprocess`."""

_ERRORS = ("raise", "return")


class SentimentReasoningPipeline(Pipeline):
    """Sentiment and rationale of an utterance, or of many.

    An input is an audio path, `bytes`, a binary file object, a mono waveform at 16 kHz (numpy), `(samples,
    rate)`, or a mapping with `audio` (one of those, or a dataset's `{"array", "sampling_rate"}` or `{"bytes",
    "path"}`) and / or `text` (the transcript) and, for a recogniser, `language`. Beside both it may have
    `asr_words`, a recogniser's words with their times (`{"text", "start", "end"}` in seconds, a list or its
    JSON), even if `text` was edited since. In place of `audio` it may have `audio_features`, the audio
    encoder's states `[f, l, e]`. A list is answered by a list, `batch_size`
    at a time. A generator, a `datasets` dataset with a column `audio` or `text`, or one such column (`text`
    and `asr_text` hold transcripts, others audio) is answered by an iterator, a batch at a time.

    All of these are arguments of the pipeline, or of a call:

    Keyword Args:
        asr: Recogniser for audio without a transcript: Hub id, folder, a callable from waveforms at 16 kHz
            and their languages to texts, or a `mmsr.speech.recogniser.Transcriber`, which with timestamps
            `word` (those of a folder or id have them if they can) also tells when words were said.
        forced_label: Explain this label instead of the predicted one (a counterfactual rationale).
        alternatives: Also write the rationale of each label that was not predicted.
        attention: Also return the fusion's attention to words and seconds; needs a second pass.
        abstain_below: Mark answers whose label is less probable than this.
        rationale: Whether to write one (default: if the model has a decoder, a memory of rationales, which
            needs the extra `report`, or names its evidence).
        speech: Whether to tell how much of a recording of more than 10 s is speech (default: yes, with the
            extra `segments`).
        num_beams, max_new_tokens: Of the rationale's generation.
        num_candidates: Write this many rationales of each label, the greedy one and others that are sampled,
            and answer with the one most like all of them (minimum Bayes risk, see
            `mmsr.evaluation.similarity.consensus`; needs the extra `report`). They explain the predicted
            label, or the forced one.
        seed: Of the samples, which do not depend on the batch.
        sampling_rate: Of waveforms given without theirs, in Hz.
        load_audio: Callable that turns a path or bytes into a mono 16 kHz waveform (default: `mmsr.Audio`).
        errors: What an input that cannot be answered does, such as a broken recording or an empty transcript:
            `raise` (default) ends the call with its error, `return` gives it an answer without a label, and
            goes on.
        progress: Show a progress bar over many inputs.

    Returns:
        For each input `{"label", "score", "scores": {label: probability}, "rationale": str or None,
        "grounded", "evidence"}`. `grounded` tells whether the rationale quotes, and all that it quotes are
        whole words of the transcript; None without a rationale. `evidence` has these words, a list of
        `{"text", "start", "end"}` in characters of the transcript, and beside audio `seconds`, when they were
        said, and `timed_by`: `recogniser`; `interpolated` between its words, where it heard others; or
        `proportional`, without a recogniser: as if each letter took the same time between the silent edges.

        With `errors="return"`, every answer has `error`: None, or why an input cannot be answered, in one
        line that names its file, or its place among the inputs, from 0. Such an answer has the same keys as
        the others, with None, and empty lists and mappings.

        If the decoder writes the label (`post_thinking`, `pre_thinking`), label and scores are the decoder's,
        and the head's are added as `head_label` and `head_scores`. Also added, on request: `forced_label`,
        `transcript` (None if the recogniser found no words), `asr_words` (its words with their times, if it
        gives them), `alternatives` {label: rationale}, `abstained`, and `attention` (see
        `mmsr.evaluation.explain.attribution`): `words`, a list of `{"word", "weight"}`, and `audio`, a list
        of `{"start", "end", "weight"}` (seconds). The weights of a list sum to 1; it is None if the modality
        is absent or the fusion does not attend to it.

        Of a recording of more than 10 s `audio_seconds` and `speech_seconds` tell how long it is, and how
        much of that is speech: the answer is about all of it.

        A model without a decoder that names its evidence (`mmsr.model.evidence`) writes rationales by a
        template, and adds `voice`, the probabilities of the voice's emotions; None where none was heard.

        A model with a memory (`mmsr.model.memory`) answers with the rationale of a training row: of the rows
        that are nearest to the utterance, of the label that is explained and, where there are any, in the
        utterance's `language`, the rationale most like all of theirs. It is None where no row has the label.

        A model that detects outliers (see `mmsr.model.outliers`) adds `outliers`, a list of "audio" and
        "text", and `abstained`, true where all that was given is an outlier; `abstained_because` then says
        why. Where one of audio and text is an outlier, the answer is from the other alone.
    """

    # Any: the base class declares them as None
    _load_processor: Any = True
    _load_tokenizer: Any = False
    _load_feature_extractor: Any = False
    _load_image_processor: Any = False

    model: MmsrForSentimentReasoning
    processor: MmsrProcessor
    _kept_retriever: Retriever | None = None

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Answer one utterance, or many; see the class."""
        if isinstance(inputs, list) and not inputs:
            return []
        return super().__call__(_as_transformers_knows(inputs), *args, **kwargs)

    def _sanitize_parameters(self, **arguments: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        accepted = [name for names in _STEPS for name in names]
        if unknown := [name for name in arguments if name not in accepted]:
            raise ValueError(f"unknown argument(s) {', '.join(unknown)}; accepted: {', '.join(accepted)}")
        given = {name: value for name, value in arguments.items() if value is not None}
        if not 0 < given.get("abstain_below", 1) <= 1:
            raise ValueError(
                f"abstain_below={given['abstain_below']:g}; accepted: a probability, above 0, to 1"
            )
        if given.get("errors", "raise") not in _ERRORS:
            raise ValueError(f"errors={given['errors']!r}; accepted: {', '.join(_ERRORS)}")
        if isinstance(given.get("asr"), str | os.PathLike):
            given["asr"] = _recogniser(os.fspath(given["asr"]))
        preprocess, forward, postprocess = (
            {name: given[name] for name in names if name in given} for names in _STEPS
        )
        return preprocess, forward, postprocess

    def get_iterator(
        self,
        inputs: Iterable[Any],
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[dict[str, Any]]:
        """As the base class, but batches go to `_forward` uncollated: the processor pads them.

        Without worker processes, threads decode audio while the model answers the batch before.
        """
        options = dict(preprocess_params)
        progress = options.pop("progress", False)
        returns_errors = options.get("errors") == "return"
        total = len(inputs) if isinstance(inputs, Sized) else None
        batches: Iterable[Sequence[dict[str, Any]]]
        if total is not None and num_workers:
            dataset: Any = PipelineDataset(_Numbered(inputs), self._preprocess_numbered, options)
            batches = DataLoader(dataset, num_workers=num_workers, batch_size=batch_size, collate_fn=list)
        else:
            batches = self._prepared(inputs, batch_size, options)
        with tqdm(total=total, unit=" utterances", disable=not progress) as bar:
            for batch in batches:
                readable = [utterance for utterance in batch if utterance["error"] is None]
                answers: Iterator[Answer] = iter(())
                if readable:
                    outputs = self.forward({"utterances": readable}, **forward_params)
                    answers = iter(self.postprocess(outputs, **postprocess_params))
                for utterance in batch:
                    if utterance["error"] is not None:
                        yield self._unanswered(utterance, **forward_params, **postprocess_params)
                        continue
                    answer = next(answers)
                    if returns_errors:
                        answer["error"] = None
                    yield answer
                bar.update(len(batch))

    def _prepared(
        self, inputs: Iterable[Any], batch_size: int, options: dict[str, Any]
    ) -> Iterator[list[dict[str, Any]]]:
        """Batches of `preprocess`ed inputs; of an iterator none is taken before its batch is asked for."""
        prepare = partial(self._preprocess_numbered, **options)
        prepared: Iterator[dict[str, Any]]
        # a caller's own `load_audio` need not be safe in threads
        if "load_audio" in options or batch_size == 1 and not isinstance(inputs, Sized):
            prepared = map(prepare, enumerate(inputs))
        elif isinstance(inputs, Sized):
            numbered = _Numbered(inputs)
            rows = (numbered[place] for place in range(len(inputs)))
            prepared = (
                map_ahead(prepare, rows, ahead=2 * batch_size) if len(inputs) > 1 else map(prepare, rows)
            )
        else:
            taken = enumerate(inputs)
            while some := list(islice(taken, batch_size)):
                yield list(map_ahead(prepare, some, ahead=batch_size))
            return
        while batch := list(islice(prepared, batch_size)):
            yield batch

    def run_single(
        self,
        inputs: Any,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> dict[str, Any]:
        """Answer one utterance."""
        alone = {**preprocess_params, "progress": False, "alone": True}
        return next(self.get_iterator([inputs], 0, 1, alone, forward_params, postprocess_params))

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Save model and processor; the base class saves this file's code in place of the processor."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)

    def _upload_modified_files(
        self, working_dir: str | os.PathLike[str], repo_id: str, *args: Any, **kwargs: Any
    ) -> Any:
        """As of a model, with its card."""
        return self.model._upload_modified_files(working_dir, repo_id, *args, **kwargs)

    def _preprocess_numbered(
        self, numbered: tuple[int, Any], *, alone: bool = False, **options: Any
    ) -> dict[str, Any]:
        """As `preprocess`, of an input with its place; an error names the file, or else the place.

        With `errors="return"`, any `ValueError` of the input is its `error`.
        """
        place, input_ = numbered
        where = "" if alone else f"input {place}: "
        try:
            utterance = self.preprocess(input_, **options)
        except AudioError as error:
            if not where or _names_itself(input_):
                raise
            raise AudioError(f"{where}{error}", code=error.code) from error
        except ValueError as error:
            if options.get("errors") != "return":
                raise ValueError(f"{where}{error}") from error
            return {**dict.fromkeys((*_INPUTS, "asr_words", "source")), "error": f"{where}{error}"}
        if utterance["error"] is not None and not _names_itself(input_):
            utterance["error"] = where + utterance["error"]
        return utterance

    def preprocess(  # type: ignore[override]
        self,
        input_: Any,
        load_audio: Callable[[Any], np.ndarray] | None = None,
        sampling_rate: int | None = None,
        errors: str = "raise",
    ) -> dict[str, Any]:
        """Any accepted input -> its `audio` (waveform), `audio_features`, `text`, `language`, `asr_words`.

        `source` is the audio as it was given, and `error` why it cannot be read. What is not there is None.

        Raises:
            ValueError: No audio and no text, audio and its features, empty text, or an input of another kind.
            AudioError: The audio cannot be read, and `errors` is `raise`.
        """
        names = (*_INPUTS, "asr_words")
        of_dataset = isinstance(input_, dict) and input_.keys() & {"array", "bytes", "path"}
        record = {"audio": input_}
        if isinstance(input_, dict) and (not of_dataset or input_.keys() & set(names[:3])):
            record = input_
            _check_keys(record)
        utterance: dict[str, Any] = {name: record.get(name) for name in names}
        utterance |= {"source": None, "error": None}
        audio = utterance["audio"]
        if all(utterance[name] is None for name in names[:3]):
            got = sorted(map(str, record)) if isinstance(input_, dict) else input_
            raise ValueError(
                f"an utterance needs audio or text, got {got}; accepted: a path, bytes, a "
                "waveform, or a mapping with 'audio' and / or 'text'"
            )
        if audio is not None:
            if utterance["audio_features"] is not None:
                raise ValueError("an utterance has audio and audio_features; accepted: one of them")
            source = _audio_source(audio, record.get("sampling_rate") or sampling_rate or self._rate)
            load, utterance["source"] = load_audio or _load_audio, source
            found = load(source) if errors == "raise" else read_or_error(source, load)
            if isinstance(found, AudioError):
                utterance |= {"audio": None, "error": str(found)}
            else:
                utterance["audio"] = np.asarray(found, dtype=np.float32)
        if (problem := input_problem(utterance["text"], utterance["audio"])) is not None:
            raise ValueError(problem)
        utterance["asr_words"] = read_chunks(utterance["asr_words"])
        return utterance

    def _forward(  # type: ignore[override]
        self,
        input_tensors: dict[str, Any],
        asr: Transcribe | None = None,
        forced_label: str | None = None,
        alternatives: bool = False,
        attention: bool = False,
        rationale: bool | None = None,
        speech: bool = True,
        num_beams: int = 1,
        num_candidates: int = 1,
        max_new_tokens: int | None = None,
        seed: int = 0,
    ) -> dict[str, Any]:
        self._check_asked(forced_label, alternatives, attention, rationale)
        _check_candidates(num_candidates, num_beams)
        if forced_label is not None:
            forced_label = self.processor.labels[self.processor.label_id(forced_label)]
        rows = _transcribed(input_tensors["utterances"], asr, attention=attention)
        columns = {name: [row[name] for row in rows] for name in ("audio", "audio_features", "text")}
        inputs = self.processor(**given_columns(columns), return_tensors="pt").to(self.device)
        layout = self.model.config.format
        longest = self.processor.max_target_tokens if max_new_tokens is None else max_new_tokens
        if rationale is False and layout is not None and layout.label_first:
            longest = 2
        quotes = None
        reads_words = layout is not None and (rationale is not False or not layout.label_first)
        if reads_words and self.model.config.quotes == "transcript":
            quotes = self.processor.quote_grammar(columns["text"])
        found = self.model.classify(**inputs, num_beams=num_beams, max_new_tokens=longest, quotes=quotes)
        answers: dict[str, Any] = {
            "head_logits": found.head_logits,
            "forced_label": forced_label,
            "utterances": [
                {"audio": row["source"], **{name: row[name] for name in ("text", "language", "asr_words")}}
                for row in rows
            ],
            "transcribed": asr is not None,
            "speech": [self._speech(row["audio"]) if speech else {} for row in rows],
        }
        if found.outlier_logits is not None:
            found_outliers = outliers(found.outlier_logits, self.model.config.outlier_thresholds).tolist()
            answers["outliers"] = [
                [name for name, is_one in zip(MODALITIES, row, strict=True) if is_one]
                for row in found_outliers
            ]
            answers["given"] = [self._given(row) for row in rows]
        if self.model.writes_rationales and rationale is not False:
            answers["sounds"] = self._sounds(rows, answers)
        if found.decoder_labels is not None:
            answers |= {"decoder_logits": found.decoder_logits, "decoder_labels": found.decoder_labels}
        if attention:
            answers["attention"] = [
                _shares(attend(self.model, self.processor, audio=audio, text=text, queries="words"))
                for audio, text in self._used(rows, answers)
            ]
        if rationale is not False:
            answers |= self._without_decoder(rows, answers, found, alternatives=alternatives)
        if layout is None or rationale is False:
            return answers

        write = partial(
            self._written,
            memory=found.memory,
            texts=columns["text"],
            quotes=quotes,
            num_beams=num_beams,
            num_candidates=num_candidates,
            max_new_tokens=longest,
            seed=seed,
        )
        # Candidates explain one label, and not the one that each writes for itself.
        explained = found.labels if num_candidates > 1 else None
        if forced_label is not None:
            explained = torch.full_like(found.labels, self.processor.label_id(forced_label))
        if alternatives:
            return answers | self._with_alternatives(found, explained, write)
        sequences = found.sequences if explained is None else None
        if sequences is None:
            sequences = write(None if explained is None else explained[:, None])[:, 0]
        return answers | {"sequences": sequences}

    def _with_alternatives(
        self,
        found: Classification,
        explained: torch.Tensor | None,
        write: Callable[[torch.Tensor], torch.Tensor],
    ) -> dict[str, Any]:
        """What the decoder writes of the answer's label, and of every label that was not found.

        Args:
            found: Labels, and the sequences of a decoder that wrote them itself.
            explained: Labels `[b]` that are to be explained in place of those that were found.
            write: Sequences `[b, n, t]` of labels `[b, n]`.
        """
        labels = range(len(self.model.config.labels))
        others = torch.tensor(
            [[label for label in labels if label != predicted] for predicted in found.labels.tolist()],
            device=self.device,
        )
        sequences = found.sequences if explained is None else None
        if sequences is None:
            own = found.labels if explained is None else explained
            sequences, *written = write(torch.cat([own[:, None], others], dim=1)).unbind(1)
        else:
            written = list(write(others).unbind(1))
        return {"sequences": sequences, "alternatives": list(zip(others.T, written, strict=True))}

    def _speech(self, wave: np.ndarray | None) -> dict[str, float]:
        """An answer's seconds of audio and of speech; none of short recordings, and without silero-vad."""
        if wave is None or len(wave) <= _LONG * SAMPLE_RATE or self._rate != SAMPLE_RATE:
            return {}
        if (spoken := speech_seconds(wave)) is None:
            return {}
        return {"audio_seconds": round(len(wave) / SAMPLE_RATE, 3), "speech_seconds": round(spoken, 3)}

    @property
    def _rate(self) -> int:
        """Of the model's waveforms, in Hz."""
        return self.processor.feature_extractor.sampling_rate

    def _sounds(
        self, rows: Sequence[dict[str, Any]], answers: dict[str, Any]
    ) -> list[tuple[float, float] | None]:
        """The seconds in which each row's recording sounds; None where there is none, or no speech in it."""
        refused = answers.get("outliers") or [[]] * len(rows)
        return [
            None if row["audio"] is None or "audio" in names else sounding(row["audio"], self._rate)
            for row, names in zip(rows, refused, strict=True)
        ]

    def _read_evidence(
        self, rows: Sequence[dict[str, Any]], answers: dict[str, Any], memory: MmsrEncoderOutput
    ) -> list[Evidence]:
        """What `mmsr.model.evidence` found in each row, of the modalities that it is answered from."""
        config = self.model.config
        voices = _named_scores(memory.voice_emotion_logits, config.voice_emotions)
        words = _named_scores(memory.text_emotion_logits, config.text_emotions)
        languages = _named_scores(memory.text_language_logits, config.text_languages)
        found = []
        for place, row in enumerate(rows):
            used = self._given(row)
            if "outliers" in answers:
                used -= set(answers["outliers"][place])
            read = Evidence(
                voice=voices[place] if voices and "audio" in used else None,
                language=phrase_language(row["language"]),
            )
            if words and memory.token_logits is not None and "text" in used:
                read = replace(
                    read,
                    text=row["text"],
                    emotions=words[place],
                    words=self._weighted_words(row["text"], memory.token_logits[place]),
                    language=phrase_language(row["language"], languages[place]),
                )
            found.append(read)
        return found

    @property
    def _retriever(self) -> Retriever:
        """Of the model's memory, which another one may have replaced."""
        memory, number = self.model.memory, self.model.config.memory_neighbours
        assert memory is not None
        kept = self._kept_retriever
        if kept is None or kept.memory is not memory or kept.number != number:
            kept = self._kept_retriever = Retriever(memory, number=number)
        return kept

    def _without_decoder(
        self,
        rows: Sequence[dict[str, Any]],
        answers: dict[str, Any],
        found: Classification,
        *,
        alternatives: bool,
    ) -> dict[str, Any]:
        """What rationales are made of where no decoder writes them: a memory's, or evidence."""
        if self.model.memory is not None:
            return self._retrieved(rows, found, answers["forced_label"], alternatives=alternatives)
        if self.model.config.has_evidence:
            read = self._read_evidence(rows, answers, found.memory)
            return {"evidence": read, "explain_others": alternatives}
        return {}

    def _retrieved(
        self,
        rows: Sequence[dict[str, Any]],
        found: Classification,
        forced_label: str | None,
        *,
        alternatives: bool,
    ) -> dict[str, Any]:
        """Rationales of each row's label, or of the forced one, and of the labels that were not predicted."""
        retriever, names = self._retriever, self.model.config.labels
        embeddings = found.memory.embedding
        assert embeddings is not None
        told: list[str | None] = []
        others: list[dict[str, str]] = []
        for row, embedding, place in zip(rows, embeddings.cpu(), found.labels.tolist(), strict=True):
            explain = partial(retriever.rationale, embedding, language=row["language"])
            told.append(explain(label=forced_label or names[place]))
            other = {name: explain(label=name) for name in names if alternatives and name != names[place]}
            others.append({name: text for name, text in other.items() if text is not None})
        return {"retrieved": told, **({"other_rationales": others} if alternatives else {})}

    def _weighted_words(self, text: str, logits: torch.Tensor) -> dict[str, list[Weighted]]:
        """A transcript's words with their share of the weight for each label, of logits `[t, c]`."""
        words = self.processor.word_tokens(text)
        positions = [position for word in words for position in word.positions]
        shares = torch.zeros_like(logits).float()
        shares[positions] = logits[positions].float().softmax(0)
        return {
            label: [
                Weighted(word.start, word.end, float(shares[list(word.positions), place].sum()))
                for word in words
            ]
            for place, label in enumerate(self.model.config.labels)
        }

    def _used(
        self, rows: Sequence[dict[str, Any]], answers: dict[str, Any]
    ) -> Iterator[tuple[np.ndarray | None, str | None]]:
        """Audio and text of each row, without the one that is an outlier beside one that is none."""
        for place, row in enumerate(rows):
            used = {"audio": row["audio"], "text": row["text"]}
            if "outliers" in answers and set(answers["outliers"][place]) != answers["given"][place]:
                used |= dict.fromkeys(answers["outliers"][place])
            yield used["audio"], used["text"]

    def _given(self, row: dict[str, Any]) -> set[str]:
        """The modalities of a row that the model uses."""
        config, given = self.model.config, set()
        if config.uses_audio and (row["audio"] is not None or row["audio_features"] is not None):
            given.add("audio")
        if config.uses_text and row["text"] is not None:
            given.add("text")
        return given

    def _check_asked(
        self, forced_label: str | None, alternatives: bool, attention: bool, rationale: bool | None
    ) -> None:
        """Refuse arguments that do not go with this model or with each other."""
        asked = {
            "rationale=True": rationale,
            f"forced_label={forced_label!r}": forced_label,
            "alternatives=True": alternatives,
        }
        for argument, given in asked.items():
            if given and self.model.config.retrieves and self.model.memory is None:
                raise ValueError(
                    f"{argument}, but this model has no memory of rationales to answer from; accepted: a "
                    f"checkpoint with {VECTORS} and {TEXTS}, as mmsr fit writes it"
                )
            if given and not self.model.writes_rationales:
                raise ValueError(
                    f"{argument}, but this model gives a label only (decoder_type='none');"
                    " accepted: a model with a decoder or a memory of rationales, or one that names its "
                    "evidence, as those packaged"
                )
            if given and rationale is False:
                raise ValueError(f"{argument} contradicts rationale=False: it changes nothing else")
        fusion = self.model.config.fusion
        if attention and not attention_map(fusion):
            known = ", ".join(name for name in FUSION_CLASSES if attention_map(name))
            raise ValueError(
                f"attention=True, but fusion={fusion!r} has none; accepted: a model with fusion {known}"
            )

    def postprocess(  # type: ignore[override]
        self, model_outputs: dict[str, Any], abstain_below: float | None = None
    ) -> list[Answer]:
        """Logits and token ids -> the answer of each row."""
        config = self.model.config
        all_scores = head_scores = self.model.label_scores(
            model_outputs["head_logits"], temperature=config.temperature
        )
        # from the logits: a temperature may round probabilities to equal ones
        labels = head_labels = model_outputs["head_logits"].argmax(-1).tolist()
        by_decoder = "decoder_logits" in model_outputs
        if by_decoder:
            logits, temperature = model_outputs["decoder_logits"], config.decoder_temperature
            all_scores = self.model.label_scores(logits, temperature=temperature)
            labels = model_outputs["decoder_labels"].tolist()
        rationales: list[str | None] = [None] * len(labels)
        if "evidence" in model_outputs:
            forced = model_outputs["forced_label"]
            templates = [
                read.rationale(
                    forced or config.labels[label], forced=forced not in (None, config.labels[label])
                )
                for read, label in zip(model_outputs["evidence"], labels, strict=True)
            ]
            rationales = [template.text for template in templates]
        rationales = model_outputs.get("retrieved", rationales)
        if "sequences" in model_outputs:
            rationales = list(self._decoded(model_outputs["sequences"], _texts(model_outputs)))
        answers = []
        for row, (scores, rationale) in enumerate(zip(all_scores, rationales, strict=True)):
            label = config.labels[labels[row]]
            answer = {"label": label, "score": scores[label], "scores": scores, "rationale": rationale}
            sound = model_outputs["sounds"][row] if "sounds" in model_outputs else None
            transcript = model_outputs["utterances"][row]["text"]
            words = model_outputs["utterances"][row]["asr_words"]
            spans: list[Span | None] | None = None
            if rationale is not None and "evidence" not in model_outputs:
                spans = evidence(rationale, transcript)
            elif rationale is not None:  # the template knows which of equal words it quotes
                spans = [span for span in [templates[row].span] if span is not None]
            answer |= quoted_evidence(spans, transcript, sound, words)
            if "evidence" in model_outputs:
                read = model_outputs["evidence"][row]
                answer["voice"] = read.voice
                if model_outputs["explain_others"]:
                    others = [other for other in config.labels if other != label]
                    told = {other: read.rationale(other, forced=True).text for other in others}
                    answer["alternatives"] = {name: text for name, text in told.items() if text is not None}
            if by_decoder:
                answer["head_label"] = config.labels[head_labels[row]]
                answer["head_scores"] = head_scores[row]
            if model_outputs["forced_label"] is not None:
                answer["forced_label"] = model_outputs["forced_label"]
            answers.append(answer)
        self._add_extras(answers, model_outputs)
        if abstain_below is not None:
            for answer in answers:
                answer["abstained"] = answer["score"] < abstain_below
        self._add_outliers(answers, model_outputs)
        return [Answer(*pair) for pair in zip(answers, model_outputs["utterances"], strict=True)]

    def _unanswered(
        self,
        utterance: Mapping[str, Any],
        *,
        asr: Transcribe | None = None,
        forced_label: str | None = None,
        alternatives: bool = False,
        attention: bool = False,
        rationale: bool | None = None,
        abstain_below: float | None = None,
        **_: Any,
    ) -> Answer:
        """The answer to an input that cannot be answered: the keys of an answer with these arguments."""
        config, layout = self.model.config, self.model.config.format
        empty: dict[str, Any] = {"label": None, "score": None, "scores": {}, "rationale": None}
        empty |= {"grounded": None, "evidence": []}
        if config.has_evidence and rationale is not False:
            empty["voice"] = None
        if layout is not None and layout.label_learned:
            empty |= {"head_label": None, "head_scores": {}}
        if forced_label is not None:
            empty["forced_label"] = self.processor.labels[self.processor.label_id(forced_label)]
        if asr is not None:
            empty["transcript"] = None
        if alternatives:
            empty["alternatives"] = {}
        if attention:
            empty["attention"] = {"words": None, "audio": None}
        if config.detects_outliers:
            empty["outliers"] = []
        if abstain_below is not None or config.detects_outliers:
            empty["abstained"] = None
        given = {name: utterance[name] for name in ("text", "language", "asr_words")}
        return Answer({**empty, "error": utterance["error"]}, {"audio": None, **given})

    def _decoded(self, sequences: torch.Tensor, texts: Sequence[str | None]) -> list[str]:
        """The rationales of rows, whose quotations are the transcript's where the model keeps to it."""
        if self.model.config.quotes == "free":
            return self.processor.decode_rationales(sequences)
        return self.processor.decode_rationales(sequences, texts)

    def _written(
        self,
        forced: torch.Tensor | None,
        *,
        memory: MmsrEncoderOutput,
        texts: Sequence[str | None],
        quotes: QuoteGrammar | None,
        num_beams: int,
        num_candidates: int,
        max_new_tokens: int,
        seed: int,
    ) -> torch.Tensor:
        """Sequences `[b, k, r]` that explain the labels `[b, k]`, or the predicted one: one batch."""
        alike = 1 if forced is None else forced.shape[1]
        processors: list[LogitsProcessor] = [] if quotes is None else [quotes]
        if num_candidates > 1:  # last: after it scores are no probabilities
            processors.append(SampledCandidates(num_candidates, seed=seed))
        model: Any = self.model  # some releases of transformers type `generate` for a Protocol
        sequences = model.generate(
            # a copy: beams are expanded in place
            encoder_outputs=memory.repeat_rows(alike * num_candidates),
            forced_sentiment=None if forced is None else forced.flatten().repeat_interleave(num_candidates),
            num_beams=num_beams,
            do_sample=False,
            max_new_tokens=max_new_tokens,
            logits_processor=LogitsProcessorList(processors),
        )
        if num_candidates > 1:
            repeated = [text for text in texts for _ in range(alike * num_candidates)]
            sequences = sequences[self._agreed(sequences, repeated, num_candidates)]
        return sequences.unflatten(0, (-1, alike))

    def _agreed(self, sequences: torch.Tensor, texts: Sequence[str | None], number: int) -> list[int]:
        """The places of the sequences `[n, r]` that agree most with the others of each `number` of them."""
        written = self._decoded(sequences, texts)
        return [
            start + consensus(written[start : start + number]) for start in range(0, len(written), number)
        ]

    def _add_outliers(self, answers: list[dict[str, Any]], model_outputs: dict[str, Any]) -> None:
        """Add the modalities that are outliers, and abstain where no other was given."""
        if "outliers" not in model_outputs:
            return
        for answer, found, given in zip(
            answers, model_outputs["outliers"], model_outputs["given"], strict=True
        ):
            answer["outliers"] = found
            refused = bool(found) and set(found) == given
            answer["abstained"] = refused or answer.get("abstained", False)
            if refused:
                answer["abstained_because"] = "; ".join(OUTLIER_REASONS[name] for name in found)

    def _add_extras(self, answers: list[dict[str, Any]], model_outputs: dict[str, Any]) -> None:
        """Add seconds of speech, transcript, alternatives and attention, where present, to the answers."""
        for answer, seconds in zip(answers, model_outputs["speech"], strict=True):
            answer |= seconds
        if model_outputs["transcribed"]:
            for answer, utterance in zip(answers, model_outputs["utterances"], strict=True):
                answer["transcript"] = utterance["text"]
                if utterance["asr_words"] is not None:
                    answer["asr_words"] = [asdict(word) for word in utterance["asr_words"]]
        if "alternatives" in model_outputs:
            for answer in answers:
                answer["alternatives"] = {}
            for labels, sequences in model_outputs["alternatives"]:
                texts = self._decoded(sequences, _texts(model_outputs))
                for answer, label, text in zip(answers, labels.tolist(), texts, strict=True):
                    answer["alternatives"][self.model.config.labels[label]] = text
        for answer, others in zip(answers, model_outputs.get("other_rationales", ()), strict=False):
            answer["alternatives"] = others
        for answer, attention in zip(answers, model_outputs.get("attention", ()), strict=False):
            answer["attention"] = attention


def _check_candidates(number: int, num_beams: int) -> None:
    if number < 1 or (number > 1 and num_beams > 1):
        raise ValueError(
            f"num_candidates={number}, num_beams={num_beams}; accepted: 1 or more candidates, and one beam "
            "where there are several, since they are sampled"
        )


def _texts(model_outputs: dict[str, Any]) -> list[str | None]:
    return [utterance["text"] for utterance in model_outputs["utterances"]]


_load_audio = Audio()


@lru_cache(maxsize=1)  # each call of a pipeline asks for it
def _recogniser(model: str) -> Transcribe:
    from mmsr.speech.recogniser import Transcriber

    return Transcriber(model, timestamps="auto")


class _Numbered(Dataset[Any]):
    """Inputs with their places, from 0."""

    def __init__(self, inputs: Any) -> None:
        self.inputs = inputs

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        return index, self.inputs[index]


class _Rows(Dataset[Any]):
    """Rows, or a column under a name, as a torch dataset, which transformers streams."""

    def __init__(self, rows: Any, name: str | None = None) -> None:
        self.rows, self.name = rows, name

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index] if self.name is None else {self.name: self.rows[index]}


def _as_transformers_knows(inputs: Any) -> Any:
    """Many inputs -> a list, torch dataset or generator; a single input stays as it is."""
    if datasets := sys.modules.get("datasets"):  # imported by whoever passes a dataset
        if isinstance(inputs, datasets.Dataset):
            return _Rows(_undecoded(inputs))
        if isinstance(inputs, datasets.Column):
            if inputs.column_name in _TRANSCRIPT_COLUMNS:
                return _Rows(inputs, "text")  # plain strings would be taken for paths
            own = isinstance(inputs.source, datasets.Dataset)
            return _Rows(_undecoded(inputs.source)[inputs.column_name] if own else inputs)
        if isinstance(inputs, datasets.IterableDataset):
            return (row for row in _undecoded(inputs))
    if isinstance(inputs, Iterator) and not hasattr(inputs, "read"):  # files are iterators too
        return (row for row in inputs)
    return inputs


def _undecoded(dataset: Any) -> Any:
    """A dataset whose audio stays bytes or a path, for `load_audio` to decode."""
    for name, feature in (dataset.features or {}).items():
        if type(feature).__name__ == "Audio" and feature.decode:
            dataset = dataset.cast_column(name, replace(feature, decode=False))
    return dataset


def _check_keys(record: dict[str, Any]) -> None:
    """Refuse a key that looks like a misspelt one; other columns of a table are no mistake.

    Raises:
        ValueError: Names the key and what was meant.
    """
    for key in record.keys() - _KEYS:
        near = nearest(str(key), _INPUTS)
        if near is not None and record.get(near) is None:
            raise ValueError(f"an utterance has the unknown key {key!r}; did you mean {near}?")


def _names_itself(input_: Any) -> bool:
    """Whether an input's audio is a path, which messages about it name."""
    audio = input_.get("audio", input_.get("path")) if isinstance(input_, dict) else input_
    if isinstance(audio, dict):
        audio = None if audio.get("bytes") is not None else audio.get("path")
    return isinstance(audio, str | os.PathLike)


def _audio_source(audio: Any, rate: int) -> Any:
    """Audio in any accepted shape -> a path, bytes or `(samples, rate)`.

    Raises:
        ValueError: A mapping has none of them.
    """
    if isinstance(audio, dict):  # the audio column of a dataset
        if all(audio.get(name) is None for name in ("array", "bytes", "path")):
            accepted = "array and sampling_rate, or bytes, or path"
            raise ValueError(f"audio is a mapping with {sorted(map(str, audio))}; accepted: {accepted}")
        if "array" in audio:
            return audio["array"], audio["sampling_rate"]
        return audio["path"] if audio.get("bytes") is None else audio["bytes"]
    if isinstance(audio, str | bytes | os.PathLike | tuple):
        return audio
    return audio.read() if hasattr(audio, "read") else (np.asarray(audio), rate)


def _transcribed(
    rows: Sequence[dict[str, Any]], asr: Transcribe | None, *, attention: bool
) -> list[dict[str, Any]]:
    """Rows with the recogniser's text where there was none, None where it is empty, and its words' times.

    Raises:
        ValueError: What is asked for needs audio, and a row has its features.
    """
    if (attention or asr is not None) and any(row["audio_features"] is not None for row in rows):
        needs = "attention=True" if attention else "asr="
        raise ValueError(f"{needs} needs the audio itself; accepted: audio, not audio_features")
    if asr is None:
        return list(rows)
    untranscribed = [row for row in rows if row["text"] is None]
    if not untranscribed:
        return list(rows)
    waves, languages = ([row[name] for row in untranscribed] for name in ("audio", "language"))
    texts: Sequence[str]
    words: Sequence[tuple[Chunk, ...] | None]
    if getattr(asr, "timestamps", None) == "word":  # a `Transcriber`, whose module is slow to import
        transcripts = cast("Transcriber", asr).transcribe(waves, languages=languages)
        texts, words = [found.text for found in transcripts], [found.chunks for found in transcripts]
    else:
        texts = asr(waves, languages)
        words = [None] * len(texts)
    if len(texts) != len(untranscribed):
        raise ValueError(
            f"asr gave {len(texts)} texts for {len(untranscribed)} waveforms; accepted: one for each"
        )
    heard = iter(zip(texts, words, strict=True))
    found = []
    for row in rows:
        if row["text"] is None:
            text, timed = next(heard)
            row = {**row, "text": text.strip() or None, "asr_words": timed}
        found.append(row)
    return found


def quoted_evidence(
    spans: Sequence[Span | None] | None,
    transcript: str | None,
    sound: tuple[float, float] | None = None,
    words: Sequence[Chunk] | None = None,
) -> dict[str, Any]:
    """An answer's `grounded` and `evidence`.

    Args:
        spans: What the rationale quotes in the transcript, None for what is not in it; None without a
            rationale.
        transcript: What was said.
        sound: The seconds in which it was said.
        words: A recogniser's words with their times.
    """
    if spans is None:
        return {"grounded": None, "evidence": []}
    found: list[dict[str, Any]] = []
    quoted = [span for span in spans if span is not None]
    times = WordTimes(str(transcript), sound, words) if quoted and sound is not None else None
    for start, end in quoted:
        found.append({"text": str(transcript)[start:end], "start": start, "end": end})
        if times is not None:
            timing = times.of((start, end))
            found[-1] |= {"seconds": [timing.start, timing.end], "timed_by": timing.timed_by}
    return {"grounded": bool(spans) and None not in spans, "evidence": found}


def _named_scores(logits: torch.Tensor | None, names: Sequence[str] | None) -> list[dict[str, float]]:
    """Probabilities by name of each row of `[b, n]`; empty without logits."""
    if logits is None:
        return []
    return [dict(zip(names or (), row, strict=True)) for row in logits.float().softmax(-1).tolist()]


def _shares(found: Attribution) -> dict[str, list[dict[str, Any]] | None]:
    """The answer's `attention`: each word's and each frame's share of its modality's weights."""
    shares: dict[str, list[dict[str, Any]] | None] = {"words": None, "audio": None}
    if found.words is not None:
        total = sum(word.weight for word in found.words)
        shares["words"] = [{"word": word.word, "weight": word.weight / total} for word in found.words]
    if found.frames is not None:
        total = sum(frame.weight for frame in found.frames)
        shares["audio"] = [
            {"start": round(frame.start, 4), "end": round(frame.end, 4), "weight": frame.weight / total}
            for frame in found.frames
        ]
    return shares


PIPELINE_REGISTRY.register_pipeline(
    TASK,
    pipeline_class=SentimentReasoningPipeline,
    pt_model=MmsrForSentimentReasoning,
    default={"model": (str(FOLDER / DEFAULT), None)},  # a folder has no revision
    type="multimodal",
)

"""A checkpoint as ONNX graphs: export, comparison with torch, and answers through onnxruntime.

    input_values [b, s] ─┐                ┌─► sentiment_logits [b, c]
                         ├─► encoder.onnx ┤
    input_ids    [b, t] ─┘                └─► memory [b, m, d], memory_mask [b, m] ──┐
                                                                                     ▼
    decoder_input_ids [b, n], past [b, h, p, c] of each layer ────────────────► decoder.onnx
                                                          logits [b, n, v], present [b, h, p + n, c] ◄─┘

encoder.onnx (both encoders, fusion, head) runs once per utterance, decoder.onnx once per token. In
encoder.int8.onnx and decoder.int8.onnx the weights of matrix products and embeddings have 8 bits.

Notation: that of `model.modeling`; n new tokens, p tokens before them, c channels of a head.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from mmsr.data.audio.decoding import Audio
from mmsr.extras import check_installed, needed_for
from mmsr.files import atomic_write, write_file
from mmsr.inference.loading import predictor
from mmsr.inference.pipeline import SentimentReasoningPipeline, quoted_evidence
from mmsr.model.configuration import MmsrConfig
from mmsr.model.decoders import CACHE, LabelGrammar
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor
from mmsr.model.quotes import QuoteGrammar
from mmsr.quotations import evidence
from mmsr.records import Answer, Utterance

Precision = Literal["float32", "int8"]
LARGEST_DIFFERENCE = 1e-3
"""Accepted difference of a float32 graph's outputs from torch's."""

_SUFFIX = {"float32": ".onnx", "int8": ".int8.onnx"}
_ENCODER_OUTPUTS = ["sentiment_logits", "memory", "memory_mask"]
_OPSET = 18
# not convolutions, whose integer kernels are slower on most processors
_QUANTISED = ["MatMul", "Gemm", "Gather"]


class OnnxError(ValueError):
    """A model that cannot be exported, or a folder without an export."""


# ---------------------------------------------------------------------- the graphs


class _EncoderGraph(nn.Module):
    """From `input_names` to `sentiment_logits`, `memory` and `memory_mask`."""

    def __init__(self, model: MmsrForSentimentReasoning) -> None:
        super().__init__()
        self.model = model
        self.inputs = input_names(model.config)

    def forward(self, *given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inputs: dict[str, Any] = dict(zip(self.inputs, given, strict=True))
        found = self.model.classify(**inputs, head_only=True)
        assert found.memory.last_hidden_state is not None and found.memory.attention_mask is not None
        return found.head_logits, found.memory.last_hidden_state, found.memory.attention_mask


class _DecoderGraph(nn.Module):
    """From new tokens, memory and cache to logits and the longer cache, as `_flat` orders it."""

    def __init__(self, model: MmsrForSentimentReasoning) -> None:
        super().__init__()
        self.decoder = model.decoder

    def forward(
        self, decoder_input_ids: Tensor, memory: Tensor, memory_mask: Tensor, past: list[Tensor]
    ) -> tuple[Tensor, ...]:
        assert self.decoder is not None
        own = DynamicCache(zip(past[::2], past[1::2], strict=True))
        cache = EncoderDecoderCache(own, DynamicCache())
        decoded = self.decoder(memory, memory_mask, input_ids=decoder_input_ids, cache=cache, use_cache=True)
        return (decoded.logits, *_flat(decoded[CACHE]))


def _flat(cache: Any) -> list[Tensor]:
    """Keys and values `[b, h, p, c]` of each layer in turn."""
    own = getattr(cache, "self_attention_cache", cache)
    return [states for layer in own.layers for states in (layer.keys, layer.values)]


def input_names(config: MmsrConfig) -> list[str]:
    """Names of the encoder graph's inputs, of the modalities that the fusion uses."""
    audio = ["input_values", "input_values_mask"] if config.uses_audio else []
    return audio + (["input_ids", "attention_mask"] if config.uses_text else [])


def cache_names(layers: int, what: Literal["past", "present"]) -> list[str]:
    """Names of the decoder graph's cache, `past.0.key`, `past.0.value`, `past.1.key` ..."""
    return [f"{what}.{layer}.{part}" for layer in range(layers) for part in ("key", "value")]


# ---------------------------------------------------------------------- writing and checking them


def export_onnx(
    model: MmsrForSentimentReasoning, processor: MmsrProcessor, out: str | os.PathLike[str]
) -> dict[str, float]:
    """Write a model's graphs, float32 and int8, with its configuration and processor.

    Args:
        model: A decoder, if any, is of type `cross_attention`; an audio encoder takes padded batches of
            waveforms.
        processor: The model's.
        out: A new folder.

    Returns:
        The largest difference of each graph's outputs from torch's, over batches with padding, of audio alone
        and of text alone, with and without a cache.

    Raises:
        OnnxError: `out` exists, the model cannot be exported, or a graph differs from torch by more than
            `LARGEST_DIFFERENCE`.
    """
    for module in ("onnx", "onnxscript", "onnxruntime"):
        check_installed("--format onnx", module)
    from onnxruntime.quantization import quantize_dynamic

    if os.path.exists(out):
        raise OnnxError(f"--out {out} exists already; accepted: a new folder")
    _check_exportable(model)
    model = model.cpu().float().eval()
    with atomic_write(out) as folder, warnings.catch_warnings(action="ignore"), torch.no_grad():
        folder.mkdir()
        differences = {"encoder": _export_encoder(model, folder)}
        if model.decoder is not None:
            differences["decoder"] = _export_decoder(model, folder)
        for graph in differences:
            source, target = (folder / f"{graph}{suffix}" for suffix in _SUFFIX.values())
            quantize_dynamic(source, target, op_types_to_quantize=_QUANTISED)
        for graph, difference in differences.items():
            if not difference <= LARGEST_DIFFERENCE:  # true of NaN
                most = f"{LARGEST_DIFFERENCE:g}"
                raise OnnxError(
                    f"{graph}.onnx differs from torch by {difference:.2g}; accepted: up to {most}"
                )
        model.config.save_pretrained(folder)
        processor.save_pretrained(folder)
    return differences


def _check_exportable(model: MmsrForSentimentReasoning) -> None:
    config = model.config
    if config.decoder_type not in ("cross_attention", "none"):
        raise OnnxError(
            f"decoder_type={config.decoder_type!r} has no ONNX graph; accepted: cross_attention or none"
        )
    if config.uses_audio and getattr(model.encoder.audio_encoder, "reads_padding", True):
        raise OnnxError(
            f"audio_encoder with model_type={config.part('audio_encoder').model_type!r} encodes rows one "
            "length or window at a time, which is no single graph; accepted: wav2vec2 and its kin with "
            "feat_extract_norm='layer', or a model without audio"
        )


def _export_encoder(model: MmsrForSentimentReasoning, folder: Path) -> float:
    """Write encoder.onnx; return its largest difference from torch."""
    graph, config = _EncoderGraph(model), model.config
    batch, dims = torch.export.Dim("batch"), {"tokens": torch.export.Dim("tokens")}
    field = 1
    if config.uses_audio:
        field = cast(Any, model.encoder.audio_encoder).receptive_field
        dims["samples"] = torch.export.Dim("samples", min=field)
    axes = [dims["samples" if name.startswith("input_values") else "tokens"] for name in graph.inputs]
    examples = list(_utterances(config, samples=field + 12_000))
    _write(
        graph,
        examples[0],
        folder / "encoder.onnx",
        inputs=graph.inputs,
        outputs=_ENCODER_OUTPUTS,
        shapes=(tuple({0: batch, 1: axis} for axis in axes),),
    )
    session = _session(folder / "encoder.onnx")
    return _largest(_difference(session, graph.inputs, example, graph(*example)) for example in examples)


def _utterances(config: MmsrConfig, *, samples: int) -> Iterator[list[Tensor]]:
    """Random batches: three rows with padding; then one modality alone, if there are two."""
    generator = torch.Generator().manual_seed(0)

    def mask(length: int, lengths: Sequence[int]) -> Tensor:
        return (torch.arange(length) < torch.tensor(lengths)[:, None]).long()

    def audio(lengths: Sequence[int]) -> list[Tensor]:
        shape = (len(lengths), max(samples, *lengths))
        return [0.1 * torch.randn(shape, generator=generator), mask(shape[1], lengths)]

    def text(lengths: Sequence[int]) -> list[Tensor]:
        shape = (len(lengths), max(4, *lengths))
        most = config.part("text_encoder").vocab_size
        return [torch.randint(most, shape, generator=generator), mask(shape[1], lengths)]

    both = ([samples, samples // 2, samples], [9, 5, 7])
    for spoken, written in (both, ([2 * samples] * 2, [0, 0]), ([0, 0], [6, 4])):
        if (config.uses_audio or any(written)) and (config.uses_text or any(spoken)):
            yield (audio(spoken) if config.uses_audio else []) + (text(written) if config.uses_text else [])


def _export_decoder(model: MmsrForSentimentReasoning, folder: Path) -> float:
    """Write decoder.onnx; return its largest difference from torch."""
    graph = _DecoderGraph(model)
    assert model.decoder is not None
    generator = torch.Generator().manual_seed(0)
    width, most = model.config.hidden_size, model.config.part("decoder").get_text_config().vocab_size

    def example(new: int, length: int, past: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        mask = (torch.arange(length) < torch.tensor([length, length - 5, length])[:, None]).long()
        memory = torch.randn(3, length, width, generator=generator)
        return torch.randint(most, (3, new), generator=generator), memory, mask, past

    ids, memory, mask, _ = example(4, 37, [])
    begun = model.decoder(memory, mask, input_ids=ids, use_cache=True)
    past = _flat(begun[CACHE])
    empty = [states[:, :, :0] for states in past]
    dims = {name: torch.export.Dim(name) for name in ("batch", "new", "memory", "past")}
    layers = len(past) // 2
    inputs = ["decoder_input_ids", "memory", "memory_mask", *cache_names(layers, "past")]
    _write(
        graph,
        example(2, 37, past),
        folder / "decoder.onnx",
        inputs=inputs,
        outputs=["logits", *cache_names(layers, "present")],
        shapes=(
            {0: dims["batch"], 1: dims["new"]},
            {0: dims["batch"], 1: dims["memory"]},
            {0: dims["batch"], 1: dims["memory"]},
            [{0: dims["batch"], 2: dims["past"]}] * len(past),
        ),
    )
    session = _session(folder / "decoder.onnx")
    examples = (example(2, 37, empty), example(1, 23, past), example(3, 61, past))
    return _largest(
        _difference(session, inputs, (*given[:3], *given[3]), graph(*given)) for given in examples
    )


def _write(
    graph: nn.Module,
    example: Sequence[Any],
    path: Path,
    *,
    inputs: list[str],
    outputs: list[str],
    shapes: tuple[Any, ...],
) -> None:
    try:
        program = torch.onnx.export(
            graph.eval(),
            tuple(example),
            dynamo=True,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=shapes,
            opset_version=_OPSET,
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise OnnxError(
            f"{path.name}: torch cannot make a graph of this model ({str(cause).splitlines()[0]}); accepted: "
            "parts that torch.export takes, as all presets'"
        ) from error
    assert program is not None
    program.save(path, external_data=False)


def _difference(
    session: Any, names: Sequence[str], inputs: Sequence[Tensor], expected: Sequence[Tensor]
) -> float:
    """The largest difference of a graph's outputs from the expected ones."""
    feeds = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
    pairs = zip(expected, session.run(None, feeds), strict=True)
    return _largest(np.abs(ours.numpy() - theirs).max() for ours, theirs in pairs if ours.numel())


def _largest(numbers: Iterable[float]) -> float:
    return float(np.max(list(numbers)))  # NaN where one is; not so with the builtin


def _session(path: Path, threads: int = 0) -> Any:
    with needed_for("an ONNX graph"):
        import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


# ---------------------------------------------------------------------- answering from them


class OnnxReasoner:
    """A `Predict` by the graphs of `export_onnx`, whose rationales are those of the pipeline's defaults.

    Args:
        folder: Of `export_onnx`.
        precision: Of the graphs.
        batch_size: Utterances at a time.
        threads: Of onnxruntime; by default as many as torch's.
        load_audio: Turns a path into a mono waveform at the model's rate (default: `mmsr.Audio`).

    Raises:
        OnnxError: The folder has no such graphs.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        precision: Precision = "float32",
        batch_size: int = 32,
        threads: int = 0,
        load_audio: Callable[[Any], np.ndarray] | None = None,
    ) -> None:
        folder = Path(folder)
        suffix = _SUFFIX[precision]
        if not (folder / f"encoder{suffix}").is_file():
            raise OnnxError(
                f"{folder} has no encoder{suffix}; accepted: a folder that `mmsr export --format onnx` wrote"
            )
        self.config = MmsrConfig.from_pretrained(folder)
        self.processor = MmsrProcessor.from_pretrained(folder)
        self.encoder = _session(folder / f"encoder{suffix}", threads)
        self.decoder = None
        if self.config.format is not None:
            self.decoder = _session(folder / f"decoder{suffix}", threads)
        self.batch_size = batch_size
        self.load_audio = load_audio or Audio(self.config.sampling_rate)

    def __call__(self, utterances: Sequence[Utterance]) -> list[Answer]:
        """Answer utterances, in order."""
        answers: list[Answer] = []
        for start in range(0, len(utterances), self.batch_size):
            answers += self._answer(utterances[start : start + self.batch_size])
        return answers

    def _answer(self, utterances: Sequence[Utterance]) -> list[Answer]:
        config = self.config
        logits, memory, memory_mask = self.encoder.run(_ENCODER_OUTPUTS, self._inputs(utterances))
        chosen, scores = logits.argmax(-1), logits / config.temperature
        rationales: list[str | None] = [None] * len(utterances)
        layout = config.format
        if layout is not None:
            texts = [utterance.text for utterance in utterances]
            quotes = self.processor.quote_grammar(texts) if config.quotes == "transcript" else None
            sequences, label_logits = self._generate(memory, memory_mask, chosen, quotes)
            rationales = list(
                self.processor.decode_rationales(
                    torch.from_numpy(sequences), None if quotes is None else texts
                )
            )
            if layout.label_learned:
                chosen, scores = label_logits.argmax(-1), label_logits / config.decoder_temperature
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        return [
            Answer(
                label=config.labels[label],
                score=row[label],
                scores=dict(zip(config.labels, row, strict=True)),
                rationale=rationale,
                **quoted_evidence(
                    None if rationale is None else evidence(rationale, utterance.text), utterance.text
                ),
            )
            for label, row, rationale, utterance in zip(
                chosen.tolist(), shares.tolist(), rationales, utterances, strict=True
            )
        ]

    def _inputs(self, utterances: Sequence[Utterance]) -> dict[str, np.ndarray]:
        """The encoder graph's inputs; a modality that all rows lack is masked."""
        waves = [
            audio if audio is None or isinstance(audio, np.ndarray) else self.load_audio(audio)
            for audio in (utterance.audio for utterance in utterances)
        ]
        texts = [utterance.text for utterance in utterances]
        given = self.processor(
            audio=None if all(wave is None for wave in waves) else waves,
            text=None if all(text is None for text in texts) else texts,
            return_tensors="pt",
        )
        inputs = {}
        for name in input_names(self.config):
            value = given[name].numpy() if name in given else np.zeros((len(utterances), 1), np.int64)
            if name.startswith("input_values"):
                short = max(0, self.config.sampling_rate - value.shape[1])  # the graph wants its first frame
                value = np.pad(value, ((0, 0), (0, short)))
            inputs[name] = value.astype(np.float32 if name == "input_values" else np.int64)
        return inputs

    def _generate(
        self,
        memory: np.ndarray,
        memory_mask: np.ndarray,
        labels: np.ndarray,
        quotes: QuoteGrammar | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Greedy texts `[b, r]`, padded, and the logits of the labels in them `[b, c]`."""
        config, layout = self.config, self.config.format
        assert layout is not None and self.decoder is not None and config.eos_token_id is not None
        tokens = np.array(config.label_token_ids)
        text = np.full((len(memory), 1), config.decoder_start_token_id, np.int64)
        if layout.label_first and not layout.label_learned:
            text = np.concatenate([text, tokens[labels][:, None]], 1)
        longest = text.shape[1] + self.processor.max_target_tokens
        grammar = LabelGrammar(
            layout, label_tokens=tokens.tolist(), eos_token_id=config.eos_token_id, max_length=longest
        )
        if quotes is not None:
            quotes.max_length = longest - (1 if layout.label_first else 2)
        outputs = [output.name for output in self.decoder.get_outputs()]
        past = {
            states.name: np.zeros((len(memory), states.shape[1], 0, states.shape[3]), np.float32)
            for states in self.decoder.get_inputs()
            if states.name.startswith("past.")
        }
        new, done = text, np.zeros(len(memory), bool)
        label_logits = np.zeros((len(memory), len(tokens)), np.float32)
        while text.shape[1] < longest and not done.all():
            feeds = {"decoder_input_ids": new, "memory": memory, "memory_mask": memory_mask, **past}
            logits, *present = self.decoder.run(outputs, feeds)
            past = dict(zip(past, present, strict=True))
            last = logits[:, -1]
            allowed = grammar(torch.from_numpy(text), torch.from_numpy(last))
            if quotes is not None:
                allowed = quotes(torch.from_numpy(text), allowed)
            chosen = np.where(done, config.pad_token_id, allowed.argmax(-1).numpy())
            wrote = np.isin(chosen, tokens)
            label_logits[wrote] = last[wrote][:, tokens]
            done |= chosen == config.eos_token_id
            new = chosen[:, None]
            text = np.concatenate([text, new], 1)
        return text, label_logits


def compare_precisions(
    folder: str | os.PathLike[str],
    rows: Sequence[Utterance],
    reference: Sequence[Answer],
    *,
    batch_size: int = 32,
) -> dict[str, dict[str, float | int]]:
    """How far each precision's answers agree with torch's.

    Args:
        folder: Of `export_onnx`.
        rows: With audio and / or text.
        reference: Torch's answers, in order.
        batch_size: Rows at a time.

    Returns:
        For each precision `n`, `label` and `rationale` (shares of equal answers), `probability` (the largest
        difference), and, if rows have labels, `accuracy` and `accuracy_of_torch`.
    """

    def accuracy(answers: Sequence[Answer]) -> float:
        pairs = zip(answers, rows, strict=True)
        return float(np.mean([answer.label == row.label for answer, row in pairs if row.label is not None]))

    inputs = [row.model_input() for row in rows]
    agreement: dict[str, dict[str, float | int]] = {}
    for precision in _SUFFIX:
        answers = OnnxReasoner(folder, precision=cast(Precision, precision), batch_size=batch_size)(inputs)
        pairs = list(zip(answers, reference, strict=True))
        agreement[precision] = {
            "n": len(rows),
            "label": float(np.mean([ours.label == theirs.label for ours, theirs in pairs])),
            "rationale": float(np.mean([ours.rationale == theirs.rationale for ours, theirs in pairs])),
            "probability": max(
                abs(ours.scores[label] - score)
                for ours, theirs in pairs
                for label, score in theirs.scores.items()
            ),
        }
        if any(row.label is not None for row in rows):
            agreement[precision]["accuracy"] = accuracy(answers)
            agreement[precision]["accuracy_of_torch"] = accuracy(reference)
    return agreement


def export_pipeline(
    pipe: SentimentReasoningPipeline,
    out: str | os.PathLike[str],
    *,
    rows: Sequence[Utterance] = (),
    batch_size: int = 32,
) -> tuple[dict[str, float], dict[str, dict[str, float | int]]]:
    """Export a pipeline's model, and write `agreement.json` with the output of `compare_precisions`.

    Args:
        pipe: The pipeline, on a CPU.
        out: A new folder.
        rows: Of a manifest; without them nothing is compared.
        batch_size: Rows at a time.

    Returns:
        The outputs of `export_onnx` and of `compare_precisions`.
    """
    differences = export_onnx(pipe.model, pipe.processor, out)
    if not rows:
        return differences, {}
    answers = predictor(pipe, batch_size=batch_size)([row.model_input() for row in rows])
    agreement = compare_precisions(out, rows, answers, batch_size=batch_size)
    write_file(Path(out, "agreement.json"), json.dumps(agreement, indent=1).encode())
    return differences, agreement

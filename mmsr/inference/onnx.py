"""A checkpoint as ONNX graphs: export, comparison with torch, and answers through onnxruntime.

    input_values [b, s] ─┐                ┌─► sentiment_logits [b, c]
                         ├─► encoder.onnx ┼─► outlier_logits, logits of the evidence
    input_ids    [b, t] ─┘                └─► memory [b, m, d], memory_mask [b, m] ──┐
                                                                                     ▼
    decoder_input_ids [b, n], past [b, h, p, c] of each layer ────────────────► decoder.onnx
                                                          logits [b, n, v], present [b, h, p + n, c] ◄─┘

encoder.onnx (both encoders, fusion, heads) runs once per utterance, decoder.onnx once per token. It takes the
raw waveform, of any length, and batches with padding. In encoder.int8.onnx and decoder.int8.onnx the weights
of matrix products and embeddings have 8 bits.

Notation: that of `model.modeling`; n new tokens, p tokens before them, c channels of a head.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from mmsr.extras import check_installed, needed_for
from mmsr.files import atomic_write, write_file
from mmsr.inference.loading import predictor
from mmsr.inference.pipeline import TASK, SentimentReasoningPipeline
from mmsr.model.configuration import MmsrConfig
from mmsr.model.decoders import CACHE, LabelGrammar
from mmsr.model.joint_encoder import MmsrEncoderOutput
from mmsr.model.modeling import Classification, MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor
from mmsr.model.quotes import QuoteGrammar
from mmsr.records import Answer, Utterance

if TYPE_CHECKING:
    import onnx

Precision = Literal["float32", "int8"]
LARGEST_DIFFERENCE = 1e-3
"""Accepted difference of a float32 graph's outputs from torch's."""

_SUFFIX = {"float32": ".onnx", "int8": ".int8.onnx"}
_MEMORY = {
    "memory": "last_hidden_state",
    "memory_mask": "attention_mask",
    **{
        name: name
        for name in (
            "outlier_logits",
            "voice_emotion_logits",
            "text_emotion_logits",
            "text_language_logits",
            "token_logits",
        )
    },
}
"""Outputs of the encoder graph beside `sentiment_logits`, where a model has them, by the memory's fields."""
_OPSET = 18
_BLOCK = 32
"""Weights that share a scale in the int8 graphs."""


class OnnxError(ValueError):
    """A model that cannot be exported, or a folder without an export."""


# ---------------------------------------------------------------------- the graphs


class _EncoderGraph(nn.Module):
    """From `input_names` to `outputs`, for waveforms of whole windows."""

    def __init__(self, model: MmsrForSentimentReasoning) -> None:
        super().__init__()
        self.model = model
        self.inputs = input_names(model.config)
        self.outputs = ["sentiment_logits", *_MEMORY]

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        inputs: dict[str, Any] = dict(zip(self.inputs, given, strict=True))
        found = self.model.classify(**inputs, head_only=True)
        states = {name: getattr(found.memory, field) for name, field in _MEMORY.items()}
        states = {name: value for name, value in states.items() if value is not None}
        unreal = states["memory_mask"][:, :, None] == 0  # where torch, too, may leave anything
        states["memory"] = states["memory"].masked_fill(unreal, 0.0)
        self.outputs = ["sentiment_logits", *states]
        return found.head_logits, *states.values()


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
    import onnx

    if os.path.exists(out):
        raise OnnxError(f"--out {out} exists already; accepted: a new folder")
    _check_exportable(model)
    model = model.cpu().float().eval()
    with atomic_write(out) as folder, warnings.catch_warnings(action="ignore"), torch.no_grad():
        folder.mkdir()
        graphs = {"encoder": _encoder_program(model)}
        if model.decoder is not None:
            graphs["decoder"] = _decoder_program(model)
        differences = {}
        for graph, (program, checks) in graphs.items():
            source, target = (folder / f"{graph}{suffix}" for suffix in _SUFFIX.values())
            onnx.save(program, source)
            differences[graph] = _difference(_session(source), checks)
            _save_int8(program, target)
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
    if config.retrieves:
        raise OnnxError(
            "rationale_format='retrieval' has no ONNX graph: its rationales come from a memory of training "
            "rows; accepted: another format"
        )
    if config.decoder_type not in ("cross_attention", "none"):
        raise OnnxError(
            f"decoder_type={config.decoder_type!r} has no ONNX graph; accepted: cross_attention or none"
        )
    if config.uses_audio and not model.encoder.audio_encoder.one_graph:
        raise OnnxError(
            f"audio_encoder with model_type={config.part('audio_encoder').model_type!r} mixes a row with the "
            "padding beside it, or has no graph of its log-mel; accepted: whisper, wav2vec2 and its kin, or "
            "a model without audio"
        )


Checks = list[tuple[Sequence[Tensor], Sequence[Tensor]]]
"""Inputs of a graph, and torch's outputs for them."""


def _encoder_program(model: MmsrForSentimentReasoning) -> tuple[onnx.ModelProto, Checks]:
    graph, config = _EncoderGraph(model), model.config
    axes: dict[str, Any] = {"tokens": "tokens"}
    window = shortest = 1
    if config.uses_audio:
        encoder = model.encoder.audio_encoder
        window = encoder.window
        # two stacks of frames or more, since torch traces one as a case of its own
        shortest = (1 + config.audio_stride) * encoder.receptive_field
        axes["samples"] = torch.export.Dim("samples", min=shortest)
        if window > 1:
            axes["samples"] = window * torch.export.Dim("windows")
    axes_of = [axes["samples" if name.startswith("input_values") else "tokens"] for name in graph.inputs]
    examples = list(_utterances(config, samples=max(window, shortest) + 12_000))

    def whole(inputs: Sequence[Tensor]) -> list[Tensor]:
        """The inputs with what `_padding` adds."""
        return [
            nn.functional.pad(value, (0, -value.shape[1] % window))
            if name.startswith("input_values")
            else value
            for name, value in zip(graph.inputs, inputs, strict=True)
        ]

    expected = [graph(*whole(example)) for example in examples]
    program = _program(
        graph,
        whole(examples[0]),
        name="encoder.onnx",
        inputs=[_PADDED.get(name, name) for name in graph.inputs],
        outputs=graph.outputs,
        shapes=(tuple({0: torch.export.Dim("batch"), 1: axis} for axis in axes_of),),
    )
    if config.uses_audio:
        program = _with_padding(program, window=window, shortest=shortest)
    return program, list(zip(examples, expected, strict=True))


_PADDED = {"input_values": "padded_values", "input_values_mask": "padded_mask"}


def _with_padding(program: onnx.ModelProto, *, window: int, shortest: int) -> onnx.ModelProto:
    """A graph of `_PADDED` as one of waveforms of any length, filled up to whole windows with silence."""
    import onnx

    padding = onnx.parser.parse_graph(f"""
        padding (float[batch, samples] input_values, int64[batch, samples] input_values_mask)
            => (float[batch, padded] padded_values, int64[batch, padded] padded_mask)
        {{
            padding_samples = Shape <start = 1, end = 2> (input_values)
            padding_shortest = Constant <value_ints = [{shortest}]> ()
            padding_window = Constant <value_ints = [{window}]> ()
            padding_least = Max (padding_samples, padding_shortest)
            padding_negative = Neg (padding_least)
            padding_rest = Mod (padding_negative, padding_window)
            padding_wanted = Add (padding_least, padding_rest)
            padding_missing = Sub (padding_wanted, padding_samples)
            padding_before = Constant <value_ints = [0, 0, 0]> ()
            padding_pads = Concat <axis = 0> (padding_before, padding_missing)
            padded_values = Pad (input_values, padding_pads)
            padded_mask = Pad (input_values_mask, padding_pads)
        }}
    """)
    for place, given in enumerate(padding.input):
        program.graph.input[place].CopyFrom(given)
    nodes = [*padding.node, *program.graph.node]
    del program.graph.node[:]
    program.graph.node.extend(nodes)
    return program


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


def _decoder_program(model: MmsrForSentimentReasoning) -> tuple[onnx.ModelProto, Checks]:
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
    program = _program(
        graph,
        example(2, 37, past),
        name="decoder.onnx",
        inputs=inputs,
        outputs=["logits", *cache_names(layers, "present")],
        shapes=(
            {0: dims["batch"], 1: dims["new"]},
            {0: dims["batch"], 1: dims["memory"]},
            {0: dims["batch"], 1: dims["memory"]},
            [{0: dims["batch"], 2: dims["past"]}] * len(past),
        ),
    )
    examples = (example(2, 37, empty), example(1, 23, past), example(3, 61, past))
    return program, [((*given[:3], *given[3]), graph(*given)) for given in examples]


def _program(
    graph: nn.Module,
    example: Sequence[Any],
    *,
    name: str,
    inputs: list[str],
    outputs: list[str],
    shapes: tuple[Any, ...],
) -> onnx.ModelProto:
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
            f"{name}: torch cannot make a graph of this model ({str(cause).splitlines()[0]}); accepted: "
            "parts that torch.export takes, as all presets'"
        ) from error
    assert program is not None
    return program.model_proto


def _save_int8(program: onnx.ModelProto, path: Path) -> None:
    """Save a graph whose embeddings, and weights of the encoders and the decoder, have 8 bits.

    Fusion and heads stay float: they are small, and the scores depend on them most. So do activations, whose
    outliers (in BERT's kind above all) one scale per tensor cannot hold.
    """
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    level = logging.getLogger().level
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    logging.getLogger().setLevel(logging.ERROR)  # else it tells of every node
    logging.getLogger(MatMulNBitsQuantizer.__module__).setLevel(logging.WARNING)
    parts = ("encoder.audio_encoder", "encoder.text_encoder", "decoder.model")
    quantize_dynamic(program, path, op_types_to_quantize=["Gather"])
    logging.getLogger().setLevel(level)
    smaller = onnx.load(path)
    rest = [node.name for node in smaller.graph.node if not any(part in _scopes(node) for part in parts)]
    quantizer = MatMulNBitsQuantizer(
        smaller, bits=8, block_size=_BLOCK, is_symmetric=True, nodes_to_exclude=rest
    )
    quantizer.process()
    quantizer.model.save_model_to_file(path)


def _scopes(node: onnx.NodeProto) -> str:
    """Where in the model a node comes from, as torch notes it."""
    return next((note.value for note in node.metadata_props if note.key.endswith("name_scopes")), "")


def _difference(session: Any, checks: Checks) -> float:
    """The largest difference of a graph's outputs from torch's."""
    names = [given.name for given in session.get_inputs()]
    differences = []
    for inputs, expected in checks:
        feeds = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        for ours, theirs in zip(session.run(None, feeds), expected, strict=True):
            apart = ours != theirs.numpy()  # both are infinite where a modality is absent
            differences.append(np.abs(ours - theirs.numpy())[apart].max(initial=0))
    return float(np.max(differences))  # NaN where one is; not so with the builtin


def _session(path: Path, threads: int = 0) -> Any:
    with needed_for("an ONNX graph"):
        import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


# ---------------------------------------------------------------------- answering from them


@dataclass
class _OnnxMemory(MmsrEncoderOutput):
    """The encoder graph's outputs, the head's among them."""

    head_logits: Tensor | None = None


class OnnxModel:
    """The graphs of a folder in place of a pipeline's model, whose methods it has as far as graphs can.

    Args:
        folder: Of `export_onnx`.
        precision: Of the graphs.
        threads: Of onnxruntime; by default as many as torch's.

    Raises:
        OnnxError: The folder has no such graphs.
    """

    device = torch.device("cpu")
    hf_device_map = None
    memory = None  # of rationales: a model that has one is not exported
    # these read the configuration alone
    label_scores: Any = MmsrForSentimentReasoning.label_scores
    label_tokens: Any = MmsrForSentimentReasoning.label_tokens
    written_labels: Any = MmsrForSentimentReasoning.written_labels
    rationale_prompt: Any = MmsrForSentimentReasoning.rationale_prompt
    _checked_labels: Any = MmsrForSentimentReasoning._checked_labels

    def __init__(
        self, folder: str | os.PathLike[str], *, precision: Precision = "float32", threads: int = 0
    ) -> None:
        folder, suffix = Path(folder), _SUFFIX[precision]
        if not (folder / f"encoder{suffix}").is_file():
            raise OnnxError(
                f"{folder} has no encoder{suffix}; accepted: a folder that `mmsr export --format onnx` wrote"
            )
        self.config = MmsrConfig.from_pretrained(folder)
        self.encoder = _session(folder / f"encoder{suffix}", threads)
        self.decoder = None
        if self.config.format is not None:
            self.decoder = _session(folder / f"decoder{suffix}", threads)

    @property
    def writes_rationales(self) -> bool:
        """As of the model."""
        return self.decoder is not None or self.config.has_evidence

    def set_attn_implementation(self, *_: Any) -> None:
        """Refuse what attention's pictures begin with."""
        raise OnnxError("attention=True, which an ONNX graph does not return; accepted: attention=False")

    def classify(
        self,
        *,
        num_beams: int = 1,
        max_new_tokens: int = 2,
        quotes: QuoteGrammar | None = None,
        **inputs: Tensor,
    ) -> Classification:
        """As of the model; a modality that no row has is masked."""
        if "audio_features" in inputs:
            raise OnnxError("audio_features, which an ONNX graph does not read; accepted: audio")
        batch, feeds = len(next(iter(inputs.values()))), {}
        for given in self.encoder.get_inputs():
            value = inputs[given.name].numpy() if given.name in inputs else np.zeros((batch, 1), np.int64)
            feeds[given.name] = value.astype(np.float32 if given.name == "input_values" else np.int64)
        names = [output.name for output in self.encoder.get_outputs()]
        found = dict(zip(names, map(torch.from_numpy, self.encoder.run(names, feeds)), strict=True))
        head_logits = found.pop("sentiment_logits")
        memory = _OnnxMemory(
            head_logits=head_logits, **{_MEMORY[name]: value for name, value in found.items()}
        )
        layout = self.config.format
        if layout is None or not layout.label_learned:
            return Classification(memory, head_logits)
        processors = [] if quotes is None else [quotes]
        sequences, logits = self._written(memory, None, num_beams, max_new_tokens, processors)
        return Classification(memory, head_logits, logits, self.written_labels(sequences), sequences)

    def generate(
        self,
        *,
        encoder_outputs: _OnnxMemory,
        forced_sentiment: Tensor | None = None,
        num_beams: int = 1,
        do_sample: bool = False,
        max_new_tokens: int,
        logits_processor: Sequence[QuoteGrammar] = (),
    ) -> Tensor:
        """Greedy texts `[b, r]`, padded."""
        return self._written(encoder_outputs, forced_sentiment, num_beams, max_new_tokens, logits_processor)[
            0
        ]

    def _written(
        self,
        memory: _OnnxMemory,
        forced: Tensor | None,
        num_beams: int,
        max_new_tokens: int,
        quotes: Sequence[QuoteGrammar],
    ) -> tuple[Tensor, Tensor]:
        """Greedy texts `[b, r]`, padded, and the logits of the labels in them `[b, c]`."""
        config, layout = self.config, self.config.format
        assert layout is not None and self.decoder is not None and config.eos_token_id is not None
        assert memory.head_logits is not None and memory.last_hidden_state is not None
        assert memory.attention_mask is not None
        if num_beams > 1:
            raise OnnxError(f"num_beams={num_beams}, and ONNX graphs write greedily; accepted: 1")
        tokens = self.label_tokens(self.device)
        text = self.rationale_prompt(memory.head_logits, forced)
        longest = text.shape[1] + max_new_tokens
        grammar = LabelGrammar(
            layout,
            label_tokens=tokens.tolist(),
            eos_token_id=config.eos_token_id,
            max_length=longest,
            forced=forced,
        )
        for one in quotes:
            one.max_length = longest - (1 if layout.label_first else 2)
        outputs = [output.name for output in self.decoder.get_outputs()]
        read = {"memory": memory.last_hidden_state.numpy(), "memory_mask": memory.attention_mask.numpy()}
        past = {
            states.name: np.zeros((len(text), states.shape[1], 0, states.shape[3]), np.float32)
            for states in self.decoder.get_inputs()
            if states.name.startswith("past.")
        }
        new, done = text, torch.zeros(len(text), dtype=torch.bool)
        label_logits = torch.zeros(len(text), len(tokens))
        while text.shape[1] < longest and not done.all():
            logits, *present = self.decoder.run(outputs, {"decoder_input_ids": new.numpy(), **read, **past})
            past = dict(zip(past, present, strict=True))
            scores = last = torch.from_numpy(logits[:, -1])
            for processor in (grammar, *quotes):
                scores = processor(text, scores)
            chosen = torch.where(done, config.pad_token_id, scores.argmax(-1))
            wrote = torch.isin(chosen, tokens)
            label_logits[wrote] = last[wrote][:, tokens]
            done |= chosen == config.eos_token_id
            new = chosen[:, None]
            text = torch.cat([text, new], 1)
        return text, label_logits


class OnnxReasoner:
    """A `Predict` by the graphs of `export_onnx`.

    Its `pipeline` takes the inputs and options of any other, but for `attention`, `num_beams` and
    `audio_features`.

    Args:
        folder: Of `export_onnx`.
        precision: Of the graphs.
        batch_size: Utterances at a time.
        threads: Of onnxruntime; by default as many as torch's.
        **options: Of the pipeline, such as `load_audio`.

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
        **options: Any,
    ) -> None:
        model: Any = OnnxModel(folder, precision=precision, threads=threads)
        processor = MmsrProcessor.from_pretrained(folder)
        self.pipeline = SentimentReasoningPipeline(
            model=model, processor=processor, device=model.device, task=TASK, **options
        )
        self._predict = predictor(self.pipeline, batch_size=batch_size)

    def __call__(self, utterances: Sequence[Utterance]) -> list[Answer]:
        """Answer utterances, in order."""
        return self._predict(utterances)


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

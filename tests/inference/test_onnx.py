"""ONNX graphs of a model: they answer as torch does, in every format, and refuse what is no graph."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig

import mmsr
from mmsr.cli.main import main
from mmsr.data.manifest.manifest import load_manifest, utterances
from mmsr.inference.loading import load_pipeline, predictor
from mmsr.inference.onnx import OnnxError, OnnxReasoner, compare_precisions, export_onnx, input_names
from mmsr.inference.pipeline import TASK, SentimentReasoningPipeline
from mmsr.model.configuration import MmsrConfig
from mmsr.model.packaged import checkpoint
from mmsr.records import Utterance

for _name in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(_name, reason=f"{_name} is not installed: pip install 'mmsr[onnx]'")

TEXTS = [
    "the doctor was very kind to me",
    "nobody listened and I am angry",
    "the appointment is on Tuesday",
    "bác sĩ rất tận tâm với tôi",
    "kind words in an upset voice",
]

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline("demo", device="cpu")


@pytest.fixture(scope="module")
def exported(pipe, tmp_path_factory):
    """The packaged checkpoint's graphs, and how far they are from torch."""
    folder = tmp_path_factory.mktemp("onnx") / "demo"
    return folder, export_onnx(pipe.model, pipe.processor, folder)


@pytest.fixture(scope="module")
def rows(demo_corpus):
    return utterances(load_manifest(demo_corpus, split="test"))


@pytest.mark.slow
def test_the_graphs_answer_as_torch_does(pipe, exported, rows):
    folder, differences = exported
    assert set(differences) == {"encoder", "decoder"} and max(differences.values()) < 1e-4
    inputs = [row.model_input() for row in rows]
    inputs += [row.model_input(audio=None) for row in rows[:4]]
    inputs += [row.model_input(text=None) for row in rows[:4]]
    ours, theirs = OnnxReasoner(folder, batch_size=5)(inputs), predictor(pipe)(inputs)
    for own, other in zip(ours, theirs, strict=True):
        assert (own.label, own.rationale) == (other.label, other.rationale)
        assert own.scores == pytest.approx(other.scores, abs=1e-4)
    assert len({answer.rationale for answer in ours}) > 5
    silent = OnnxReasoner(folder)([row.model_input(audio=None) for row in rows[:2]])  # no row has audio
    assert [answer.rationale for answer in silent] == [
        answer.rationale for answer in theirs[len(rows) : len(rows) + 2]
    ]


@pytest.mark.slow
def test_eight_bits_are_smaller_and_keep_the_labels(pipe, exported, rows):
    folder, _ = exported
    for graph in ("encoder", "decoder"):
        whole, small = ((folder / f"{graph}{end}").stat().st_size for end in (".onnx", ".int8.onnx"))
        assert small < 0.65 * whole  # convolutions, fusion and heads stay float, so that labels are kept
    kept = compare_precisions(folder, rows, predictor(pipe)([row.model_input() for row in rows]))
    assert kept["float32"]["label"] == kept["float32"]["rationale"] == 1
    assert kept["float32"]["accuracy"] == kept["float32"]["accuracy_of_torch"]
    assert kept["int8"]["label"] >= 0.98 and kept["int8"]["probability"] > kept["float32"]["probability"]


@pytest.mark.slow
def test_the_command_writes_them_and_tells_what_eight_bits_cost(demo_corpus, tmp_path, capsys):
    out = tmp_path / "graphs"
    command = ["export", "--format", "onnx", "--model", "demo", "--out", str(out)]
    main([*command, "--manifest", str(demo_corpus)])
    told = capsys.readouterr().out
    assert "encoder: largest difference from torch" in told and "decoder: largest" in told
    assert "float32: labels of torch 100.0%, rationales 100.0%, accuracy" in told and "int8: labels" in told
    assert json.loads((out / "config.json").read_text("utf-8"))["model_type"] == "mmsr"
    with pytest.raises(SystemExit):
        main(command)
    assert f"--out {out} exists already; accepted: a new folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--format", "onnx"], "--format onnx is made of a model; accepted: --model, and no other"),
        ([], "--format huggingface is made of a checkpoint or a model; accepted: one of the two"),
        (["--model", "demo", "--checkpoint", "x.ckpt"], "--format huggingface is made of a checkpoint or a"),
        (["--format", "onnx", "--model", "demo", "--weights", "int8"], "accepted: without --format onnx"),
        (["--format", "onnx", "--checkpoint", "x.ckpt"], "--format onnx is made of a model"),
        (["--format", "onnx", "--model", "demo", "--manifest", "no.csv"], "--manifest no.csv: no such file"),
        (["--checkpoint", "x.ckpt", "--manifest", "m.csv"], "accepted: with --format onnx"),
    ],
)
def test_a_wrong_call_is_one_line(given, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["export", "--out", str(tmp_path / "x"), *given])
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert exit_.value.code == 2 and message in line and not (tmp_path / "x").exists()


def test_the_inputs_are_those_of_the_fusion():
    audio = MmsrConfig.from_preset("tiny", fusion="audio_only", rationale_format="none", decoder_type="none")
    text = MmsrConfig.from_preset("tiny", fusion="text_only", rationale_format="none", decoder_type="none")
    assert input_names(audio) == ["input_values", "input_values_mask"]
    assert input_names(text) == ["input_ids", "attention_mask"]


TINY_WAVEFORM = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8, 8),
    "conv_kernel": (20, 8),
    "conv_stride": (10, 8),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
TINY_WHISPER = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
}
TINY_TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 200,
}
LABEL_ONLY = {"decoder_type": "none", "rationale_format": "none"}
HEADS = {
    "audio_outlier_layer": 1,
    "text_outlier_layer": 1,
    "voice_emotions": ["anger", "neutral"],
    "text_emotions": ["joy", "fear", "neutral"],
    "text_languages": ["en", "vi"],
}
ENCODERS = {
    "whisper, its window cut, and bert": (
        AutoConfig.for_model("whisper", **TINY_WHISPER),
        "bert",
        {**HEADS, "audio_window_seconds": 0.5, "audio_layer_mix": True, "audio_stride": 4},
    ),
    "wav2vec2 and xlm-roberta": (
        AutoConfig.for_model(
            "wav2vec2", **TINY_WAVEFORM, feat_extract_norm="layer", do_stable_layer_norm=True
        ),
        "xlm-roberta",
        {**HEADS, "audio_stride": 2},
    ),
    "wav2vec2 with group norm, alone": (
        AutoConfig.for_model("wav2vec2", **TINY_WAVEFORM, feat_extract_norm="group"),
        "bert",
        {"fusion": "audio_only"},
    ),
    "wav2vec2 and bert, by experts": (
        AutoConfig.for_model(
            "wav2vec2", **TINY_WAVEFORM, feat_extract_norm="layer", do_stable_layer_norm=True
        ),
        "bert",
        {"fusion": "mixture"},
    ),
}


@pytest.fixture(params=ENCODERS)
def tiny(request, make_model, processor):
    """A pipeline of tiny encoders with lively weights, heads of evidence included."""
    audio, text, settings = ENCODERS[request.param]
    vocabulary = {"vocab_size": len(processor.tokenizer), "pad_token_id": processor.tokenizer.pad_token_id}
    words = AutoConfig.for_model(text, **TINY_TEXT, **vocabulary)
    known = processor.config_kwargs()
    model = make_model(audio_encoder=audio, text_encoder=words, **{**known, **LABEL_ONLY, **settings})
    for detector in ("audio", "text"):
        if settings.get(f"{detector}_outlier_layer") is not None:
            getattr(model.encoder, f"{detector}_outlier_detector").weight.normal_()
    return SentimentReasoningPipeline(model=model, processor=processor, task=TASK, device=torch.device("cpu"))


@pytest.mark.slow
def test_every_encoder_answers_as_torch_does(tiny, waveforms, tmp_path):
    """Clips of one window and of more, shorter than a frame, and of one modality; a batch of all of them."""
    export_onnx(tiny.model, tiny.processor, tmp_path / "graphs")
    waves = [waveforms[0], np.tile(waveforms[1], 7), waveforms[2][:30]]
    rows = [Utterance(audio=wave) for wave in waves]
    if tiny.model.config.uses_text:
        rows += [Utterance(audio=wave, text=text) for wave, text in zip(waves, TEXTS, strict=False)]
        rows += [Utterance(text=text) for text in TEXTS[3:]]
    answers = predictor(tiny)(rows)
    assert len({round(answer.score, 4) for answer in answers}) == len(rows)
    for batch_size in (1, len(rows)):
        for ours, theirs in zip(
            OnnxReasoner(tmp_path / "graphs", batch_size=batch_size)(rows), answers, strict=True
        ):
            near = {"scores", "score", "voice"}
            assert {**asdict(ours), **dict.fromkeys(near)} == {**asdict(theirs), **dict.fromkeys(near)}
            assert ours.scores == pytest.approx(theirs.scores, abs=1e-4)
            assert ours.voice == (theirs.voice and pytest.approx(theirs.voice, abs=1e-4))


@pytest.mark.slow
def test_options_are_those_of_the_pipeline(exported, pipe, rows):
    """Alternatives and forced labels as torch's; what graphs cannot do is refused by a line."""
    graphs = OnnxReasoner(exported[0]).pipeline
    given = {"audio": rows[0].audio, "text": rows[0].text}
    options = {"alternatives": True, "forced_label": "negative"}
    ours, theirs = graphs(given, **options), pipe(given, **options)
    assert ours["alternatives"] == theirs["alternatives"] and ours["rationale"] == theirs["rationale"]
    for option, message in (
        ({"attention": True}, "attention=True, which an ONNX graph does not return; accepted: attention=Fal"),
        ({"num_beams": 2}, "num_beams=2, and ONNX graphs write greedily; accepted: 1"),
    ):
        with pytest.raises(OnnxError, match=message):
            graphs(given, **option)
    with pytest.raises(OnnxError, match="audio_features, which an ONNX graph does not read; accepted: audio"):
        graphs({"audio_features": torch.zeros(4, 1, pipe.model.encoder.audio_encoder.width)})


@pytest.mark.slow
def test_base_answers_as_torch_does_on_people(tmp_path):
    """The packaged checkpoint on its bundled clips: all fields, with evidence and what was refused."""
    pipe = load_pipeline("base", device="cpu")
    export_onnx(pipe.model, pipe.processor, tmp_path / "base")
    examples = Path(mmsr.__file__).parent / "examples"
    rows = [
        Utterance(audio=str(folder / one["audio"]), text=one.get("text"))
        for folder in (examples, examples / "people")
        for one in json.loads((folder / "examples.json").read_text("utf-8"))
    ]
    rows += [row.model_input(text=None) for row in rows] + [row.model_input(audio=None) for row in rows]
    noise = np.random.default_rng(0).standard_normal(80_000).astype(np.float32) * 0.1
    rows += [Utterance(audio=noise), Utterance(audio=noise, text="I am so happy that you came.")]
    answers = predictor(pipe)(rows)
    assert any(answer.abstained for answer in answers) and any(answer.evidence for answer in answers)
    for ours, theirs in zip(OnnxReasoner(tmp_path / "base")(rows), answers, strict=True):
        near = {"scores", "score", "voice"}
        assert {**asdict(ours), **dict.fromkeys(near)} == {**asdict(theirs), **dict.fromkeys(near)}
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-4)
        assert ours.voice == (theirs.voice and pytest.approx(theirs.voice, abs=1e-4))
    kept = compare_precisions(tmp_path / "base", rows, answers)
    assert kept["int8"]["label"] >= 0.95 and kept["int8"]["probability"] < 0.1
    sizes = [(tmp_path / "base" / f"encoder{end}").stat().st_size for end in (".onnx", ".int8.onnx")]
    assert sizes[1] < 0.4 * sizes[0]


def test_what_is_no_graph_is_refused(pipe, make_model, tmp_path):
    config = MmsrConfig.from_pretrained(checkpoint("demo"))
    config.decoder_type = "prefix"
    model = torch.nn.Module()
    model.config = config
    with pytest.raises(OnnxError, match="decoder_type='prefix' has no ONNX graph; accepted: cross_attention"):
        export_onnx(model, pipe.processor, tmp_path / "x")
    wide = AutoConfig.for_model("data2vec-audio", **TINY_WAVEFORM, conv_pos_kernel_size=5)
    with pytest.raises(OnnxError, match="model_type='data2vec-audio' mixes a row with the padding beside it"):
        export_onnx(make_model(audio_encoder=wide, fusion="audio_only"), pipe.processor, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    with pytest.raises(OnnxError, match="has no encoder.int8.onnx; accepted: a folder that"):
        OnnxReasoner(tmp_path, precision="int8")

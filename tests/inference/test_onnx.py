"""ONNX graphs of a model: they answer as torch does, in every format, and refuse what is no graph."""

import json

import pytest
import torch

from mmsr.cli.main import main
from mmsr.data.manifest.manifest import load_manifest, utterances
from mmsr.inference.loading import load_pipeline, predictor
from mmsr.inference.onnx import OnnxError, OnnxReasoner, compare_precisions, export_onnx, input_names
from mmsr.inference.packaged import checkpoint
from mmsr.model.configuration import MmsrConfig
from mmsr.model.modeling import MmsrForSentimentReasoning

for _name in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(_name, reason=f"{_name} is not installed: pip install 'mmsr[onnx]'")

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
        assert small < 0.6 * whole
    kept = compare_precisions(folder, rows, predictor(pipe)([row.model_input() for row in rows]))
    assert kept["float32"]["label"] == kept["float32"]["rationale"] == 1
    assert kept["float32"]["accuracy"] == kept["float32"]["accuracy_of_torch"]
    assert kept["int8"]["label"] >= 0.9 and kept["int8"]["probability"] > kept["float32"]["probability"]


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


def test_what_is_no_graph_is_refused(pipe, tmp_path):
    config = MmsrConfig.from_pretrained(checkpoint("demo"))
    config.decoder_type = "prefix"
    model = torch.nn.Module()
    model.config = config
    with pytest.raises(OnnxError, match="decoder_type='prefix' has no ONNX graph; accepted: cross_attention"):
        export_onnx(model, pipe.processor, tmp_path / "x")
    group = MmsrConfig.from_pretrained(checkpoint("demo"))
    group.audio_encoder.feat_extract_norm = "group"
    with pytest.raises(OnnxError, match="model_type='wav2vec2' encodes rows one length"):
        export_onnx(MmsrForSentimentReasoning(group), pipe.processor, tmp_path / "x")
    assert not (tmp_path / "x").exists()
    with pytest.raises(OnnxError, match="has no encoder.int8.onnx; accepted: a folder that"):
        OnnxReasoner(tmp_path, precision="int8")

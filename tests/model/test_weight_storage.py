"""Weights in 8 bits: what is lost, every way to load them, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, BertConfig, BertModel, pipeline
from transformers.integrations.accelerate import load_offloaded_parameter

from mmsr.inference.loading import load_pipeline
from mmsr.inference.pipeline import TASK
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.packaged import checkpoint
from mmsr.model.processing import MmsrProcessor
from mmsr.model.weight_storage import INT4, INT8, SCALE, decode, encode, is_int8, save_int8

MakeModel = Callable[..., MmsrForSentimentReasoning]


@pytest.fixture
def stored(make_model: MakeModel, tmp_path: Path) -> Path:
    """A tiny model, some of whose weights are large enough to be stored in 8 bits."""
    folder = tmp_path / "small"
    save_int8(make_model(), folder)
    return folder


def four_bits(rows: int, width: int, *, scale: float = 0.02) -> Tensor:
    """Weights as a release in Q4_0 gives them, in float16 as it is published."""
    scales = (torch.randn(rows, width // 32, 1) * scale).half()
    integers = torch.randint(-8, 8, (rows, width // 32, 32))
    integers[..., 0] = -8  # the largest magnitude sets the scale
    return (integers * scales.float()).half().flatten(1)


def same(left: Any, right: Any) -> None:
    left, right = left.state_dict(), right.state_dict()
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


# ---------------------------------------------------------------------- one weight


@pytest.mark.parametrize("shape", [(64, 33), (7, 64), (5, 4, 3), (3, 2, 2, 5)])
def test_a_value_is_off_by_at_most_half_the_scale_of_its_row(shape: tuple[int, ...]):
    weight = torch.randn(shape) * torch.logspace(-6, 3, shape[0]).view(-1, *[1] * (len(shape) - 1))
    weight[1] = 0
    parts = encode(weight)
    assert parts.keys() == {INT8, SCALE} and parts[INT8].shape == shape and parts[INT8].dtype == torch.int8
    assert parts[SCALE].shape == (shape[0], *[1] * (len(shape) - 1)) and parts[SCALE].dtype == torch.float32
    error = (decode(parts) - weight).abs().flatten(1).amax(1)
    assert (error <= parts[SCALE].flatten() * 0.5001).all()
    assert error[0] > 0 and torch.equal(decode(parts)[1], weight[1])
    assert torch.equal(encode(decode(parts))[INT8], parts[INT8]), "storing again rounds nothing more"


def test_a_weight_of_a_4_bit_release_keeps_every_bit():
    weight = four_bits(40, 96)
    weight[3] = 0
    parts = encode(weight)
    assert parts.keys() == {INT4, SCALE} and parts[INT4].shape == (40, 48) and parts[SCALE].shape == (40, 3)
    assert parts[INT4].dtype == torch.uint8 and parts[SCALE].dtype == torch.float16
    assert torch.equal(decode(parts), weight.float())
    weight[39, 95] *= 1.01
    assert INT8 in encode(weight), "one value off the grid"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused_by_name(make_model: MakeModel, tmp_path: Path, value: float):
    model = make_model()
    name, weight = max(model.named_parameters(), key=lambda named: named[1].numel())
    weight.data[0, 0] = value
    with pytest.raises(ValueError, match=f"{name}: a value is infinite or not a number; accepted: finite"):
        save_int8(model, tmp_path / "x")
    assert not (tmp_path / "x").exists()


# ---------------------------------------------------------------------- folders


def test_a_folder_is_about_a_quarter_of_the_size(tmp_path: Path):
    model = MmsrForSentimentReasoning.from_pretrained(checkpoint("demo"), dtype=torch.float32)
    model.save_pretrained(tmp_path / "float")
    save_int8(model, tmp_path / "int8")
    whole, small = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("float", "int8"))
    assert 0.24 < small / whole < 0.30
    assert "| storage | weights in 8 bits" in (tmp_path / "int8" / "README.md").read_text("utf-8")
    assert "| storage |" not in (tmp_path / "float" / "README.md").read_text("utf-8")


def test_saving_twice_gives_the_same_bytes_and_leaves_the_model_as_it_was(
    make_model: MakeModel, tmp_path: Path
):
    model = make_model()
    for name in ("one", "two"):
        save_int8(model, tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert {"config.json", "model.safetensors"} <= set(files)
    for name in set(files) - {"README.md"}:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    same(model, make_model())
    assert not is_int8(model.config)


def test_every_door_loads_the_same_weights(make_model: MakeModel, stored: Path, processor: MmsrProcessor):
    processor.save_pretrained(stored)
    expected = MmsrForSentimentReasoning.from_pretrained(stored)
    for name, weight in make_model().state_dict().items():
        assert (weight - expected.state_dict()[name]).abs().max() <= weight.abs().max() / 250, name
    found = AutoModel.from_pretrained(stored)
    assert type(found) is MmsrForSentimentReasoning
    same(found, expected)
    same(load_pipeline(stored).model, expected)
    same(pipeline(TASK, model=str(stored)).model, expected)
    same(MmsrForSentimentReasoning.from_pretrained(stored, device_map="cpu"), expected)
    same(MmsrForSentimentReasoning.from_pretrained(stored, device_map={"": "cpu"}), expected)
    same(
        MmsrForSentimentReasoning.from_pretrained(stored, config=found.config.from_pretrained(stored)),
        expected,
    )
    for dtype in (torch.float16, torch.bfloat16):
        half = MmsrForSentimentReasoning.from_pretrained(stored, dtype=dtype)
        assert {weight.dtype for weight in half.parameters()} == {dtype}
        same(half, expected.to(dtype))
        expected = MmsrForSentimentReasoning.from_pretrained(stored)


def test_a_fresh_process_knows_the_storage_after_import_mmsr(stored: Path, run_afresh: Callable[..., Any]):
    code = f"""
import mmsr
from transformers import AutoModel
model = AutoModel.from_pretrained({str(stored)!r})
assert type(model) is mmsr.MmsrForSentimentReasoning
assert not hasattr(model.config, "quantization_config") and not model.is_quantized
"""
    done = run_afresh(code)
    assert done.returncode == 0, done.stderr
    assert "quantiz" not in done.stderr.lower(), done.stderr


def test_the_loaded_model_is_a_plain_one(
    make_model: MakeModel, stored: Path, ragged: dict[str, Tensor], tmp_path: Path
):
    model = MmsrForSentimentReasoning.from_pretrained(stored)
    with torch.no_grad():
        floats = make_model()(**ragged).sentiment_logits.softmax(-1)
        bits = model(**ragged).sentiment_logits.softmax(-1)
    assert 0 < (floats - bits).abs().max() < 0.02
    assert not is_int8(model.config) and not is_int8(model.encoder.config)
    assert all(weight.requires_grad for weight in model.parameters())
    model.half().float().save_pretrained(tmp_path / "again")
    assert "quantization_config" not in json.loads((tmp_path / "again" / "config.json").read_text("utf-8"))
    assert not [name for name in load_file(tmp_path / "again" / "model.safetensors") if ":" in name]
    same(MmsrForSentimentReasoning.from_pretrained(tmp_path / "again"), model)
    save_int8(model, tmp_path / "small again")
    assert load_file(tmp_path / "small again" / "model.safetensors").keys() == (
        load_file(stored / "model.safetensors").keys()
    )


def test_what_is_saved_again_keeps_its_storage_and_every_bit(stored: Path, tmp_path: Path):
    model = MmsrForSentimentReasoning.from_pretrained(stored)
    model.save_pretrained(tmp_path / "again")
    first, again = (load_file(folder / "model.safetensors") for folder in (stored, tmp_path / "again"))
    assert {name: value.dtype for name, value in again.items()} == {
        name: value.dtype for name, value in first.items()
    }
    same(MmsrForSentimentReasoning.from_pretrained(tmp_path / "again"), model)
    assert not is_int8(model.config)
    changed = next(name for name, _ in model.named_parameters() if f"{name}:int8" in first)
    with torch.no_grad():
        model.get_parameter(changed).add_(torch.linspace(0, 1e-3, model.get_parameter(changed).shape[-1]))
    model.save_pretrained(tmp_path / "changed")
    kept = load_file(tmp_path / "changed" / "model.safetensors")
    assert kept[changed].dtype == torch.float32 and f"{changed}:int8" not in kept
    assert sum(name.endswith(":int8") for name in kept) == sum(name.endswith(":int8") for name in first) - 1
    same(MmsrForSentimentReasoning.from_pretrained(tmp_path / "changed"), model)


@pytest.mark.parametrize(
    "settings",
    [
        {"fusion": "text_only", "rationale_format": "none", "decoder_type": "none"},
        {"decoder_type": "prefix"},
        {"fusion": "gated", "tie_word_embeddings": False},
    ],
)
def test_other_models_are_stored_as_well(make_model: MakeModel, tmp_path: Path, settings: dict[str, Any]):
    save_int8(make_model(**settings), tmp_path / "m", max_shard_size="50KB")
    assert len(list((tmp_path / "m").glob("*.safetensors"))) > 1
    MmsrForSentimentReasoning.from_pretrained(tmp_path / "m")


def test_tied_weights_are_stored_once_and_tied_again(make_model: MakeModel, tmp_path: Path):
    model = make_model(tie_word_embeddings=True)
    save_int8(model, tmp_path / "m")
    names = {name.partition(":")[0] for name in load_file(tmp_path / "m" / "model.safetensors")}
    assert len(names) < len(model.state_dict())
    loaded = MmsrForSentimentReasoning.from_pretrained(tmp_path / "m")
    assert loaded.decoder is not None
    table = loaded.get_input_embeddings().weight
    assert loaded.decoder.model.get_output_embeddings().weight is table
    assert loaded.decoder.model.get_input_embeddings().weight is table


def test_what_is_left_out_small_or_no_parameter_stays_float(make_model: MakeModel, tmp_path: Path):
    model = make_model(audio_standardize=True)
    save_int8(model, tmp_path / "m", leave_out=r".*word_embeddings\.weight|.*embed_tokens\.weight")
    stored = load_file(tmp_path / "m" / "model.safetensors")
    rounded = {name.partition(":")[0] for name in stored if name.endswith(INT8)}
    parameters = dict(model.named_parameters())
    assert rounded and rounded <= parameters.keys()
    assert all(parameters[name].ndim > 1 and parameters[name].numel() >= 1024 for name in rounded)
    (table,) = [name for name in stored if name.endswith("word_embeddings.weight")]
    assert torch.equal(stored[table], model.state_dict()[table])
    assert "joint_encoder.audio_stream.deviation" in stored


def test_weights_may_go_to_disk_and_offloaded_ones_are_not_stored(stored: Path, tmp_path: Path):
    expected = MmsrForSentimentReasoning.from_pretrained(stored)
    places = {"joint_encoder": "cpu", "sentiment_head": "cpu", "rationale_decoder": "disk"}
    model = MmsrForSentimentReasoning.from_pretrained(
        stored, device_map=places, offload_folder=tmp_path / "offloaded"
    )
    name = next(name for name, weight in model.named_parameters() if weight.is_meta and weight.numel() > 1024)
    assert torch.equal(load_offloaded_parameter(model, name), expected.state_dict()[name])
    with pytest.raises(ValueError, match="is not in memory; accepted: a model without offloaded weights"):
        save_int8(model, tmp_path / "x")


def test_a_bare_encoder_is_stored_too(tmp_path: Path):
    config = BertConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    model = BertModel(config)
    model.embeddings.word_embeddings.weight.data = four_bits(64, 32).float()
    save_int8(model, tmp_path / "bert")
    loaded = AutoModel.from_pretrained(tmp_path / "bert")
    assert type(loaded) is BertModel
    assert torch.equal(loaded.embeddings.word_embeddings.weight, model.embeddings.word_embeddings.weight)


# ---------------------------------------------------------------------- what is refused


def damage(folder: Path, change: Callable[[dict[str, Tensor], str], None]) -> str:
    """Change the stored tensors of the first weight in 8 bits, whose name is returned."""
    tensors = load_file(folder / "model.safetensors")
    name = next(key for key in sorted(tensors) if key.endswith(INT8)).removesuffix(INT8)
    change(tensors, name)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return name


def fails(folder: Path) -> str:
    with pytest.raises(ValueError) as error:
        MmsrForSentimentReasoning.from_pretrained(folder)
    return str(error.value)


def test_a_scale_of_another_shape_is_refused(stored: Path):
    def flat(tensors: dict[str, Tensor], name: str) -> None:
        tensors[name + SCALE] = tensors[name + SCALE].flatten()

    name = damage(stored, flat)
    rows = load_file(stored / "model.safetensors")[name + INT8].shape[0]
    line = fails(stored)
    assert f"{name}:scale has shape [{rows}]; accepted: [{rows}, 1" in line
    with pytest.raises(ValueError, match="cannot be read .*:scale has shape"):
        load_pipeline(stored)


@pytest.mark.parametrize(("part", "left"), [(SCALE, INT8), (INT8, SCALE)])
def test_a_weight_without_scale_or_without_integers_is_refused(stored: Path, part: str, left: str):
    def remove(tensors: dict[str, Tensor], name: str) -> None:
        del tensors[name + part]

    name = damage(stored, remove)
    assert f"{name} is stored as {left}; accepted: :int8 and :scale, or :int4 and :scale" in fails(stored)


def test_weights_that_lack_or_are_unknown_are_named(stored: Path):
    def rename(tensors: dict[str, Tensor], name: str) -> None:
        tensors["nobody" + INT8], tensors["nobody" + SCALE] = (
            tensors.pop(name + INT8),
            tensors.pop(name + SCALE),
        )

    name = damage(stored, rename)
    line = fails(stored)
    assert f"it lacks: {name};" in line and "it brings unknown: nobody" in line


def test_a_weight_of_another_shape_is_named(stored: Path):
    def shorter(tensors: dict[str, Tensor], name: str) -> None:
        for part in (INT8, SCALE):
            tensors[name + part] = tensors[name + part][1:].clone()

    assert f"of another shape: {damage(stored, shorter)}" in fails(stored)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 4}, "quantization_config: bits is 4; accepted: 8"),
        ({"rows": 2}, "quantization_config: rows is unknown; accepted: bits, quant_method"),
    ],
)
def test_other_settings_are_refused(stored: Path, settings: dict[str, Any], message: str):
    config = json.loads((stored / "config.json").read_text("utf-8"))
    assert config["quantization_config"] == {"bits": 8, "quant_method": "mmsr-int8"}
    config["quantization_config"] |= settings
    (stored / "config.json").write_text(json.dumps(config), "utf-8")
    assert message in fails(stored)


def test_a_quantized_model_is_refused(make_model: MakeModel, tmp_path: Path):
    model = make_model()
    model.config.quantization_config = {"quant_method": "bitsandbytes"}
    with pytest.raises(ValueError, match="quantized already; accepted: a model with float weights"):
        save_int8(model, tmp_path / "x")

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import AutoConfig, AutoModel, PreTrainedModel, pipeline

import mmsr
from mmsr.model.configuration import POOLINGS
from mmsr.model.fusion import FUSION_CLASSES
from mmsr.model.joint_encoder import logger
from mmsr.model.modeling import MmsrForSentimentReasoning

Batch = dict[str, Tensor]


MakeModel = Callable[..., MmsrForSentimentReasoning]


TIGHT = {"atol": 2e-5, "rtol": 1e-4}


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_training_encodes_only_the_audio_that_is_there(make_model: MakeModel, ragged: Batch):
    model = make_model()
    targets = {"labels": torch.full((3, 4), 9), "sentiment_labels": torch.tensor([0, 1, 2])}
    whole = model(**ragged, **targets)
    before = gradients(model, whole.loss)
    encoded: list[int] = []
    model.encoder.audio_encoder.register_forward_hook(lambda *given: encoded.append(len(given[1][0])))
    model.encoder.training = True  # its parts stay as they are: no dropout
    some = model(**ragged, **targets)
    assert encoded == [2]
    assert_close(some.sentiment_logits, whole.sentiment_logits, **TIGHT)
    assert_close(gradients(model, some.loss), before, **TIGHT)
    model(**ragged, output_hidden_states=True)
    assert encoded == [2, 3], "states that a caller asked for are of every row"


@torch.no_grad()
def test_an_utterance_of_neither_is_answered_as_all_such_are(make_model: MakeModel, batch: Batch):
    model = make_model()
    batch["attention_mask"][:] = 0
    batch["input_values_mask"][:] = 0
    output = model(**batch)
    assert output.sentiment_logits.isfinite().all() and output.logits[:, 0].isfinite().all()
    assert_close(output.sentiment_logits, output.sentiment_logits[:1].expand(3, -1))
    alone = model(input_ids=batch["input_ids"][:1], attention_mask=batch["attention_mask"][:1])
    assert_close(alone.sentiment_logits, output.sentiment_logits[:1])


def test_no_utterance_at_all_raises(make_model: MakeModel):
    with pytest.raises(ValueError, match=r"no utterance: pass input_values \(audio\), input_ids"):
        make_model()(decoder_input_ids=torch.tensor([[0]]))


def test_a_waveform_of_another_shape_raises(make_model: MakeModel, batch: Batch):
    with pytest.raises(ValueError, match=r"input_values has shape \(3, 1, 4000\); accepted: \[batch, sampl"):
        make_model()(input_values=batch["input_values"][:, None])


def test_attentions_without_eager_attention_are_warned_of_once(
    make_model: MakeModel, batch: Batch, caplog: pytest.LogCaptureFixture
):
    logger.warning_once.cache_clear()  # type: ignore[attr-defined]
    make_model("eager")(**batch, output_attentions=True)
    assert not caplog.records
    model = make_model("sdpa")
    for _ in range(2):
        model(**batch, output_attentions=True)
    told = [record.getMessage() for record in caplog.records if record.name.startswith("mmsr")]
    assert len(told) == 1 and "attn_implementation='sdpa' returns none; accepted: attn_impl" in told[0]


@torch.no_grad()
def test_stored_audio_features_give_what_the_waveform_gives(make_model: MakeModel, ragged: Batch):
    for mix in (False, True):
        model = make_model(audio_layer_mix=mix)
        expected = model(**ragged)
        ragged_text = {name: ragged[name] for name in ("input_ids", "attention_mask")}
        features, mask = model.encoder.encode_audio(ragged["input_values"], ragged["input_values_mask"])
        assert features.shape[2] == (3 if mix else 1)
        stored = model(**ragged_text, audio_features=features, audio_features_mask=mask)
        assert torch.equal(stored.sentiment_logits, expected.sentiment_logits)
        assert torch.equal(stored.logits, expected.logits)


@torch.no_grad()
def test_stored_text_features_give_what_the_tokens_give(make_model: MakeModel, ragged: Batch):
    for mix in (False, True):
        model = make_model(text_layer_mix=mix)
        expected = model(**ragged)
        features, mask = model.encoder.encode_text(ragged["input_ids"], ragged["attention_mask"])
        assert features.shape[2] == (3 if mix else 1)
        model.encoder.text_encoder.forward = None  # it is not to run
        features[mask == 0] = float("nan")  # nor its padding to count
        stored = model(**{**ragged, "attention_mask": mask}, text_features=features)
        assert torch.equal(stored.sentiment_logits, expected.sentiment_logits)
        assert torch.equal(stored.logits, expected.logits)
        other = model(**{**ragged, "attention_mask": mask}, text_features=features.flip(0))
        assert not torch.equal(other.sentiment_logits, expected.sentiment_logits)


@torch.no_grad()
def test_the_mix_takes_the_layers_that_are_named(make_model: MakeModel, ragged: Batch):
    model = make_model(audio_layer_mix=True, audio_layers=[0, 2], audio_standardize=True)
    features, mask = model.encoder.encode_audio(ragged["input_values"], ragged["input_values_mask"])
    plain = model(audio_features=features, audio_features_mask=mask).sentiment_logits
    heard = mask.any(-1)
    for layer, used in ((0, True), (1, False), (2, True)):
        other = features.clone()
        other[:, :, layer] = other[:, :, layer].flip(-1)
        output = model(audio_features=other, audio_features_mask=mask)
        moved = (output.sentiment_logits - plain).abs().amax(-1)
        assert (moved[heard] > 1e-4).all() if used else (moved == 0).all(), layer
    assert model.encoder.audio_stream.mean.shape == features[0, 0, [0, 2]].shape


@torch.no_grad()
def test_stacked_frames_do_not_depend_on_the_padding(make_model: MakeModel, ragged: Batch):
    model = make_model(audio_stride=3)
    features, mask = model.encoder.encode_audio(ragged["input_values"], ragged["input_values_mask"])
    together = model(audio_features=features, audio_features_mask=mask)
    assert together.memory_mask.shape[1] == -(-mask.shape[1] // 3) + 1  # and the absent transcript's state
    for row in (0, 2):
        length = int(mask[row].sum())
        alone = model(
            audio_features=features[row : row + 1, :length], audio_features_mask=mask[row : row + 1, :length]
        )
        assert_close(alone.sentiment_logits[0], together.sentiment_logits[row])


@pytest.mark.parametrize("convolutions", [0, 1])
def test_nan_in_the_padding_of_stored_features_changes_nothing(
    make_model: MakeModel, ragged: Batch, convolutions: int
):
    model = make_model(audio_convolutions=convolutions)
    features, mask = model.encoder.encode_audio(ragged["input_values"], ragged["input_values_mask"])
    mask[1] = 0
    target = {"audio_features_mask": mask, "sentiment_labels": torch.tensor([0, 1, 2])}
    plain = model(audio_features=features.detach(), **target)
    garbage = features.detach().masked_fill(mask[:, :, None, None] == 0, torch.nan)
    output = model(audio_features=garbage, **target)
    assert torch.equal(output.sentiment_logits, plain.sentiment_logits)
    assert_close(gradients(model, output.loss), gradients(model, plain.loss))


@pytest.mark.parametrize("stride", [2, 3, 50])
def test_stacked_frames_do_not_depend_on_padding(make_model: MakeModel, ragged: Batch, stride: int):
    """12 frames become ceil(12 / stride); 50 is longer than the clip."""
    model = make_model(audio_stride=stride, audio_layer_mix=True, audio_convolutions=2)
    audio = {name: ragged[name] for name in ("input_values", "input_values_mask")}
    features, mask = model.encoder.encode_audio(**audio)
    frames = mask.sum(1)
    stream, stream_mask = model.encoder.audio_stream(features, mask)
    assert stream.shape[1] == -(-mask.shape[1] // stride)
    assert stream_mask.sum(1).tolist() == [-(-frames[0] // stride), 1, -(-frames[2] // stride)]
    assert_close(stream[1, 0], model.encoder.audio_stream.absent)
    output = model(**ragged)
    garbage = {
        **ragged,
        "input_values": ragged["input_values"].masked_fill(audio["input_values_mask"] == 0, 9e9),
    }
    assert torch.equal(model(**garbage).sentiment_logits, output.sentiment_logits)
    alone = model(
        input_values=ragged["input_values"][2:, :2500],
        input_values_mask=torch.ones(1, 2500, dtype=torch.long),
    )
    assert_close(alone.sentiment_logits, output.sentiment_logits[2:], atol=1e-5, rtol=1e-4)
    longer = model(
        audio_features=nn.functional.pad(features, (0, 0, 0, 0, 0, 7), value=3.0),
        audio_features_mask=nn.functional.pad(mask, (0, 7)),
        input_ids=ragged["input_ids"],
        attention_mask=ragged["attention_mask"],
    )
    assert_close(longer.sentiment_logits, output.sentiment_logits, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_stack_is_its_frames_side_by_side(make_model: MakeModel):
    stream = make_model(audio_stride=2).encoder.audio_stream
    states, mask = torch.randn(1, 5, 1, 32), torch.tensor([[1, 1, 1, 1, 1]])
    stacked, stacked_mask = stream(states, mask)
    flat = torch.cat([states[:, :, 0], torch.zeros(1, 1, 32)], 1)
    expected = stream.norm(stream.projection(torch.cat([flat[:, 0::2], flat[:, 1::2]], -1)))
    assert_close(stacked, expected)
    assert stacked_mask.tolist() == [[1, 1, 1]]


@torch.no_grad()
def test_convolutions_tell_each_position_what_its_neighbours_say(make_model: MakeModel):
    stream = make_model(audio_convolutions=2).encoder.audio_stream
    states, mask = torch.randn(1, 20, 1, 32), torch.ones(1, 20, dtype=torch.long)
    plain, _ = stream(states, mask)
    states[0, 10] += 1
    moved = (stream(states, mask)[0] - plain)[0].abs().amax(-1) > 1e-6
    assert moved.nonzero().ravel().tolist() == list(range(6, 15)), "two convolutions of five positions"


@pytest.fixture
def checkpoint(make_model: MakeModel, tmp_path: Path) -> Path:
    make_model().save_pretrained(tmp_path)
    return tmp_path


def edit(checkpoint: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    change(weights)
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("loader", [AutoModel, MmsrForSentimentReasoning])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda weights: weights.pop("sentiment_head.classifier.weight"),
            r"it lacks: sentiment_head\.classifier\.weight \(",
        ),
        (
            lambda weights: weights.pop("joint_encoder.audio_encoder.model.encoder.layer_norm.weight"),
            r"it lacks: joint_encoder\.audio_encoder\.model\.encoder\.layer_norm\.weight \(",
        ),
        (
            lambda weights: weights.update({"sentiment_head.extra": torch.ones(2)}),
            r"it brings unknown: sentiment_head\.extra \(",
        ),
    ],
)
def test_a_checkpoint_of_other_weights_raises_and_names_them(
    checkpoint: Path, loader: Any, change: Callable[[dict[str, Tensor]], Any], message: str
):
    edit(checkpoint, change)
    with pytest.raises(ValueError, match=message) as raised:
        loader.from_pretrained(checkpoint)
    assert str(checkpoint) in str(raised.value)


def test_a_weight_of_another_shape_raises_and_is_named(checkpoint: Path):
    edit(checkpoint, lambda weights: weights.update({"sentiment_head.classifier.weight": torch.ones(7, 32)}))
    message = (
        r"of another shape: sentiment_head\.classifier\.weight \(\[7, 32\] where the model has \[3, 32\]\) \("
    )
    with pytest.raises(ValueError, match=message):
        MmsrForSentimentReasoning.from_pretrained(checkpoint)
    model = MmsrForSentimentReasoning.from_pretrained(checkpoint, ignore_mismatched_sizes=True)
    assert model.head.classifier.weight.shape == (3, 32)


def test_who_asks_what_was_loaded_gets_the_rest_and_the_list(checkpoint: Path):
    edit(checkpoint, lambda weights: weights.pop("sentiment_head.classifier.weight"))
    model, info = MmsrForSentimentReasoning.from_pretrained(checkpoint, output_loading_info=True)
    assert info["missing_keys"] == {"sentiment_head.classifier.weight"}
    expected = load_file(checkpoint / "model.safetensors")["sentiment_head.dense.weight"]
    assert torch.equal(model.head.dense.weight, expected)


@pytest.mark.parametrize(
    "settings",
    [{}, {"fusion": "audio_only"}, {"decoder_type": "prefix"}, {"rationale_format": "none"}],
    ids=["tied", "audio_only", "prefix", "label"],
)
def test_a_checkpoint_is_placed_by_its_size(
    make_model: MakeModel, batch: Batch, settings: dict[str, Any], tmp_path: Path
):
    """On one device, and where it must be split: no name in it is another's part (`head`, `lm_head`)."""
    model = make_model(**settings)
    model.save_pretrained(tmp_path)
    expected = model(**batch)
    for memory in (None, {"cpu": model.get_memory_footprint() * 2 // 3, "disk": 10**9}):
        loaded = AutoModel.from_pretrained(
            tmp_path, device_map="auto", max_memory=memory, offload_folder=tmp_path / "offload"
        )
        assert (memory is not None) == ("disk" in getattr(loaded, "hf_device_map", {}).values())
        found = loaded(**batch)
        assert_close(found.sentiment_logits, expected.sentiment_logits, **TIGHT)
        if model.decoder is not None:
            assert_close(found.logits, expected.logits, **TIGHT)


def test_settings_of_placement_and_precision_are_taken_over_from_parts(make_model: MakeModel, tmp_path: Path):
    t5 = {"d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4, "vocab_size": 256}
    model = make_model(decoder=AutoConfig.for_model("t5", feed_forward_proj="gated-gelu", **t5))
    assert {"XLMRobertaLayer", "T5Block", "CrossAttentionLayer", "Stream"} <= set(model._no_split_modules)
    model.save_pretrained(tmp_path)
    half = MmsrForSentimentReasoning.from_pretrained(tmp_path, dtype=torch.float16)
    kept = {name for name, weight in half.named_parameters() if weight.dtype == torch.float32}
    assert kept and all(name.endswith("wo.weight") for name in kept), "T5 overflows in float16"


# ---------------------------------------------------------------------- names of modules


def own_names(model: MmsrForSentimentReasoning) -> set[str]:
    """Last names of the modules that are ours, not a part's transformers model's; no numbers of lists."""
    foreign = [path for path, part in model.named_modules() if isinstance(part, PreTrainedModel)]
    foreign = [f"{path}." for path in foreign if path not in ("", "joint_encoder")]
    paths = [path for path, _ in model.named_modules() if path and not path.startswith(tuple(foreign))]
    return {path.rpartition(".")[2] for path in paths} - {str(number) for number in range(10)}


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("fusion", FUSION_CLASSES)
def test_no_module_is_found_by_the_end_of_another_s_name(make_model: MakeModel, fusion: str, pooling: str):
    """peft, accelerate, quantizers and device maps find modules by how their names end."""
    for settings in ({}, {"decoder_type": "prefix"}, {"rationale_format": "none"}):
        model = make_model(
            fusion=fusion, pooling=pooling, audio_layer_mix=True, text_layer_mix=True, **settings
        )
        names = own_names(model)
        pairs = [(name, end) for name in names for end in names - {name} if name.endswith(end)]
        assert not pairs
        paths = [path for path, _ in model.named_modules()]
        parts = ["joint_encoder", "sentiment_head", "rationale_decoder", "fusion", "classifier"]
        parts += [f"{modality}_{what}" for modality in ("audio", "text") for what in ("encoder", "stream")]
        for part in parts:
            found = [path for path in paths if path.endswith(part)]
            assert len(found) <= 1, f"{part}, of which peft would take all: {found}"


def test_peft_saves_the_head_alone(make_model: MakeModel, batch: Batch, tmp_path: Path):
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(
        make_model(),
        peft.LoraConfig(r=2, target_modules=["query"], modules_to_save=["sentiment_head"]),
    )
    wrapped = [
        name for name, part in adapted.named_modules() if type(part).__name__ == "ModulesToSaveWrapper"
    ]
    assert wrapped == ["base_model.model.sentiment_head"]
    merged = adapted.merge_and_unload()
    merged.save_pretrained(tmp_path)
    loaded = MmsrForSentimentReasoning.from_pretrained(tmp_path)
    assert_close(loaded(**batch).sentiment_logits, merged(**batch).sentiment_logits)
    head, tables = loaded.get_output_embeddings(), loaded.get_input_embeddings()
    assert head.weight is tables.weight, "what is tied stays tied"


EARLIER = {
    "joint_encoder.": "encoder.",
    "sentiment_head.classifier.": "head.out.",
    "sentiment_head.": "head.",
    "rationale_decoder.": "decoder.",
}
EARLIER_IN_FUSION = {
    ".norm1.": ".query_norm.",
    ".norm2.": ".memory_norm.",
    ".text_branch.": ".text_stream.",
    ".audio_branch.": ".audio_stream.",
    ".text_hidden.": ".text_projection.",
    ".audio_hidden.": ".audio_projection.",
}


def earlier_name(name: str) -> str:
    new = next(new for new in EARLIER if name.startswith(new))
    name = name.replace(new, EARLIER[new], 1)
    if name.startswith("encoder.fusion."):
        for new, old in EARLIER_IN_FUSION.items():
            name = name.replace(new, old)
    return name


@pytest.mark.parametrize("fusion", FUSION_CLASSES)
def test_a_checkpoint_of_earlier_names_loads(
    make_model: MakeModel, fusion: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    settings = {"decoder_type": "prefix"} if fusion == "audio_only" else {}
    model = make_model(fusion=fusion, **settings)
    model.save_pretrained(tmp_path)
    new = load_file(tmp_path / "model.safetensors")
    old = {earlier_name(name): weight for name, weight in new.items()}
    assert not old.keys() & new.keys()
    save_file(old, tmp_path / "model.safetensors", metadata={"format": "pt"})
    caplog.clear()
    loaded = AutoModel.from_pretrained(tmp_path)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    expected = model.state_dict()
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, expected[name]), name
    loaded.save_pretrained(tmp_path / "again")
    assert load_file(tmp_path / "again" / "model.safetensors").keys() == new.keys()
    by_torch = make_model(fusion=fusion, **settings)
    by_torch.load_state_dict({earlier_name(name): weight for name, weight in model.state_dict().items()})
    assert all(torch.equal(weight, expected[name]) for name, weight in by_torch.state_dict().items())


@pytest.mark.parametrize("device_map", ["auto", "balanced", "sequential", "cpu", {"": "cpu"}])
@pytest.mark.parametrize("dtype", ["auto", "bfloat16", torch.float32])
def test_dtype_and_device_map_go_together(checkpoint: Path, device_map: Any, dtype: Any):
    model = AutoModel.from_pretrained(checkpoint, device_map=device_map, dtype=dtype)
    expected = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    assert model.dtype == expected and model.device.type == "cpu"
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_a_pipeline_is_placed_by_its_size():
    answer = pipeline("sentiment-reasoning", model=str(mmsr.checkpoint("demo")), device_map="auto")
    assert answer({"text": "how kind of you"})["label"] in answer.model.config.labels

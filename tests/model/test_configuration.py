import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel

import mmsr
from mmsr.model.configuration import FORMAT_VERSION, MmsrConfig, TimmAudioConfig, check_choice
from mmsr.model.fusion import FUSION_CLASSES
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.presets import PRESETS

EMOTIONS = {i: name for i, name in enumerate("anger disgust fear joy neutral sadness surprise".split())}


@pytest.mark.parametrize("fusion", tuple(FUSION_CLASSES))
@pytest.mark.parametrize("rationale_format", ["none", "multitask"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_the_parts_that_it_needs(preset: str, rationale_format: str, fusion: str):
    config = MmsrConfig.from_preset(preset, fusion=fusion, rationale_format=rationale_format)
    assert (config.audio_encoder is not None) == config.uses_audio == (fusion != "text_only")
    assert (config.text_encoder is not None) == config.uses_text == (fusion != "audio_only")
    assert (config.decoder is not None) == (config.decoder_type != "none") == (rationale_format != "none")
    assert config.labels == ["negative", "neutral", "positive"] and config.num_labels == 3


def test_tiny_is_tiny_and_small_is_small():
    def size(preset: str) -> int:
        return MmsrForSentimentReasoning(MmsrConfig.from_preset(preset)).num_parameters()

    assert size("tiny") < 1_000_000 < size("small") < 5_000_000


def test_base_has_the_shapes_of_the_published_encoders():
    config = MmsrConfig.from_preset("base")
    for part in (config.part("audio_encoder"), config.part("text_encoder")):
        assert (part.hidden_size, part.num_hidden_layers, part.num_attention_heads) == (768, 12, 12)
    assert config.part("text_encoder").vocab_size == 250_002
    assert config.part("audio_encoder").conv_stride == (5, 2, 2, 2, 2, 2, 2)


def test_settings_and_vocabulary_override_a_preset():
    config = MmsrConfig.from_preset("tiny", vocab_size=77, pooling="mean", pad_token_id=3, id2label=EMOTIONS)
    assert config.part("text_encoder").vocab_size == config.part("decoder").vocab_size == 77
    assert config.part("text_encoder").pad_token_id == config.part("decoder").pad_token_id == 3
    assert config.pooling == "mean"
    assert config.labels == list(EMOTIONS.values()) and config.num_labels == len(config.label_token_ids) == 7
    assert config.label2id == {name: index for index, name in EMOTIONS.items()}


def test_labels_follow_their_ids_and_not_their_order_in_the_file():
    names = {str(index): f"label-{index}" for index in reversed(range(12))}
    assert MmsrConfig(id2label=names).labels == [f"label-{index}" for index in range(12)]


def test_a_saved_config_comes_back_whole(tmp_path: Path):
    config = MmsrConfig.from_preset(
        "tiny",
        fusion_layers=2,
        class_weights=[1.0, 2.0, 3.0],
        temperature=1.7,
        decoder_temperature=0.6,
        id2label={0: "a", 1: "b", 2: "c"},
    )
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, MmsrConfig)
    assert json.loads(loaded.to_json_string()) == json.loads(config.to_json_string())
    assert [type(loaded.part(name)).model_type for name in loaded.sub_configs] == [
        "wav2vec2",
        "xlm-roberta",
        "mbart",
    ]
    assert loaded.format_version == FORMAT_VERSION == json.loads((tmp_path / "config.json").read_text())[
        "format_version"
    ]  # fmt: skip


# A checkpoint of each version of the format; to raise `FORMAT_VERSION` is to add the last of the old version.
CHECKPOINTS = {1: mmsr.checkpoint("demo")}


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION))
def test_a_checkpoint_of_each_earlier_version_loads_and_is_saved_as_todays(version: int, tmp_path: Path):
    model = MmsrForSentimentReasoning.from_pretrained(CHECKPOINTS[version])
    assert model.config.format_version == version
    model.save_pretrained(tmp_path)
    again = MmsrForSentimentReasoning.from_pretrained(tmp_path)
    assert again.config.format_version == FORMAT_VERSION
    weights = again.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    assert {name.split(".")[0] for name in load_file(tmp_path / "model.safetensors")} == {
        "joint_encoder",
        "sentiment_head",
        "rationale_decoder",
    }


def test_a_checkpoint_without_a_version_has_version_1(tmp_path: Path):
    folder = shutil.copytree(mmsr.checkpoint("demo"), tmp_path / "model")
    saved = json.loads((folder / "config.json").read_text())
    assert saved.pop("format_version") == 1
    (folder / "config.json").write_text(json.dumps(saved))
    given, loaded = map(MmsrForSentimentReasoning.from_pretrained, (mmsr.checkpoint("demo"), folder))
    assert loaded.config.format_version == 1
    weights = loaded.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in given.state_dict().items())


@pytest.fixture
def labeller(tmp_path: Path) -> Path:
    """A saved model that gives a label only, with a temperature fitted to its three labels."""
    config = MmsrConfig.from_preset("tiny", fusion="text_only", rationale_format="none", temperature=1.7)
    MmsrForSentimentReasoning(config).save_pretrained(tmp_path / "labeller")
    return tmp_path / "labeller"


@pytest.mark.parametrize(
    "override",
    [
        {"id2label": EMOTIONS},
        {"label2id": {name: index for index, name in EMOTIONS.items()}},
        {"num_labels": 7},
    ],
    ids=["id2label", "label2id", "num_labels"],
)
def test_other_labels_make_another_head_that_saves_and_loads(
    labeller: Path, tmp_path: Path, override: dict[str, Any]
):
    with pytest.raises(ValueError, match=r"of another shape: sentiment_head\.classifier\.bias \(\[3\]"):
        AutoModel.from_pretrained(labeller, **override)
    model = AutoModel.from_pretrained(labeller, ignore_mismatched_sizes=True, **override)
    assert model(input_ids=torch.tensor([[9, 10]])).sentiment_logits.shape == (1, 7)
    assert model.config.num_labels == len(model.config.label2id) == 7 and model.config.temperature == 1.0
    if "num_labels" not in override:
        assert model.config.labels == list(EMOTIONS.values())
    model.save_pretrained(tmp_path / "seven")
    again = AutoModel.from_pretrained(tmp_path / "seven")
    assert again.config.labels == model.config.labels
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())


def test_other_names_of_as_many_labels_keep_the_head(labeller: Path):
    model = AutoModel.from_pretrained(labeller, id2label={0: "bad", 1: "so-so", 2: "good"}, num_labels=3)
    assert model.config.label2id == {"bad": 0, "so-so": 1, "good": 2} and model.config.temperature == 1.7


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            {"id2label": EMOTIONS},
            "label_token_ids has 3 entries for 7 labels in id2label; accepted: one for each",
        ),
        ({"num_labels": 2}, "label_token_ids has 3 entries for 2 labels in id2label"),
        ({"class_weights": [1.0, 2.0]}, "class_weights has 2 entries for 3 labels"),
        ({"class_weights": [0.0, 0.0, 0.0]}, "accepted: none below 0, and not 0 for all"),
        (
            {"id2label": {0: "a", 1: "b", 2: "a"}},
            "id2label has the name 'a' 2 times; accepted: each name once",
        ),
        ({"id2label": {1: "a", 2: "b", 3: "c"}}, r"id2label has the ids \[1, 2, 3\]; accepted: 0 to 2"),
        ({"id2label": {0: "a", 1: " ", 2: "c"}}, "id2label has the name ' '; accepted: a name for each"),
        (
            {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 1, "b": 0, "c": 2}},
            "label2id=.* contradicts id2label=",
        ),
        ({"fusion": "gatd"}, "fusion='gatd' does not exist"),
        ({"fusion": "gated"}, "it lacks: joint_encoder.fusion.audio_branch"),
        ({"fusion": "audio_only"}, "tie_word_embeddings|it brings unknown"),
        ({"pooling": "max"}, "pooling='max' does not exist"),
        ({"fusion_heads": 3}, "not divisible by fusion_heads=3"),
        ({"hidden_size": 64}, "of another shape"),
        ({"decoder": {"d_model": 64}}, "tie_word_embeddings: word embeddings of .* cannot be one table"),
        ({"decoder": {"decoder_ffn_dim": 8}}, "of another shape: rationale_decoder"),
        ({"rationale_format": "none"}, "contradicts rationale_format='none'"),
        ({"label_smoothing": 2.0}, "label_smoothing=2.0; accepted: 0 to 1"),
        ({"temperature": 0.0}, "temperature=0.0; accepted: more than 0"),
        ({"poling": "mean"}, r"setting 'poling' does not exist; did you mean pooling\?"),
    ],
)
def test_overrides_pass_the_check_of_a_config(override: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message) as refused:
        AutoModel.from_pretrained(mmsr.checkpoint("demo"), **override)
    assert "\n" not in str(refused.value)


def test_overrides_of_a_part_keep_its_other_settings():
    config = AutoConfig.from_pretrained(
        mmsr.checkpoint("demo"), decoder={"dropout": 0.3}, class_weights=[1.0, 2.0, 3.0]
    )
    saved = AutoConfig.from_pretrained(mmsr.checkpoint("demo"))
    assert config.part("decoder").dropout == 0.3 and config.class_weights == [1.0, 2.0, 3.0]
    assert config.part("decoder").d_model == saved.part("decoder").d_model
    with pytest.raises(ValueError, match="class_weights= beside config=; accepted: one or the other"):
        MmsrForSentimentReasoning.from_pretrained(
            mmsr.checkpoint("demo"), config=saved, class_weights=[1.0, 2.0, 3.0]
        )


def test_a_checkpoint_of_a_later_version_is_refused_in_one_line(tmp_path: Path):
    later = {"model_type": "mmsr", "format_version": FORMAT_VERSION + 1, "fusion": "of later", "heads": {}}
    (tmp_path / "config.json").write_text(json.dumps({**later, "transformers_version": "5.23.0"}))
    expected = f"format_version={FORMAT_VERSION + 1}; this mmsr reads up to {FORMAT_VERSION}: install a later"
    with pytest.raises(ValueError, match=expected) as refused:
        AutoConfig.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=expected) as refused_by_loading:
        mmsr.load_pipeline(tmp_path)
    assert "\n" not in f"{refused.value}{refused_by_loading.value}"


def test_a_config_from_before_temperatures_has_them_at_one(tmp_path: Path):
    MmsrConfig.from_preset("tiny").save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    for field in ("temperature", "decoder_temperature"):
        saved.pop(field, None)
    (tmp_path / "config.json").write_text(json.dumps(saved))
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert (loaded.temperature, loaded.decoder_temperature) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("rationale_format", "expected"),
    [("none", 1.7), ("multitask", 1.7), ("post_thinking", 0.6), ("pre_thinking", 0.6)],
)
def test_the_label_s_temperature_is_its_giver_s(rationale_format: str, expected: float):
    temperatures = {"temperature": 1.7, "decoder_temperature": 0.6}
    config = MmsrConfig.from_preset("tiny", rationale_format=rationale_format, **temperatures)
    assert config.label_temperature == expected


def test_a_calibrated_checkpoint_comes_back_and_generates_at_no_other_temperature(tmp_path: Path):
    model = MmsrForSentimentReasoning(MmsrConfig.from_preset("tiny", temperature=1.7))
    assert model.config.temperature == 1.7 and model.generation_config.temperature in (None, 1.0)
    model.save_pretrained(tmp_path)
    loaded = MmsrForSentimentReasoning.from_pretrained(tmp_path)
    again = MmsrForSentimentReasoning(loaded.config)
    for one in (loaded, again):
        assert one.config.temperature == 1.7 and one.generation_config.temperature in (None, 1.0)


def test_parts_may_be_dicts():
    audio = {"model_type": "hubert", "hidden_size": 24, "num_attention_heads": 2}
    config = MmsrConfig(audio_encoder=audio)
    assert config.part("audio_encoder").model_type == "hubert"
    assert config.part("audio_encoder").hidden_size == 24
    assert audio["model_type"] == "hubert", "the caller's dict is left alone"


def test_a_timm_encoder_is_part_of_a_saved_config(tmp_path: Path):
    part = TimmAudioConfig(architecture="test_vit", window_seconds=2.0, timm_args={"drop_path_rate": 0.1})
    MmsrConfig.from_preset("tiny", audio_encoder=part).save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path).part("audio_encoder")
    assert isinstance(loaded, TimmAudioConfig) and loaded.to_dict() == part.to_dict()
    assert loaded.window_frames == 224  # 2 s are 200, rounded up to 7 * 32


def test_the_text_config_is_the_decoders():
    """Generation takes the cache's size from it."""
    config = MmsrConfig.from_preset("tiny")
    for asked in ({}, {"decoder": True}, {"decoder": True, "encoder": True}):
        assert config.get_text_config(**asked) is config.decoder
    assert config.get_text_config(encoder=True) is config.text_encoder
    label_only = MmsrConfig.from_preset("tiny", rationale_format="none")
    assert label_only.get_text_config() is label_only.text_encoder
    silent = MmsrConfig.from_preset("tiny", rationale_format="none", fusion="audio_only")
    assert silent.get_text_config() is silent.get_text_config(encoder=True) is silent
    assert config.decoder.num_hidden_layers == config.decoder.decoder_layers


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"fusion": "fision"},
            "fusion='fision' does not exist; accepted: cross_attention, audio_to_text, .*, audio_only$",
        ),
        ({"pooling": "max"}, "pooling='max' does not exist; accepted: mean, attention, statistics"),
        ({"decoder_type": "rnn"}, "decoder_type=.rnn. does not exist; accepted: cross_attention, prefix"),
        ({"rationale_format": "poem"}, "rationale_format='poem' does not exist; accepted: none, multitask"),
        (
            {"decoder_type": "none"},
            "decoder_type='none' contradicts rationale_format='multitask': set both to 'none' for a label",
        ),
        (
            {"fusoin": "gated"},
            r"setting 'fusoin' does not exist; did you mean fusion\?; accepted: audio_convolutions, .*",
        ),
        ({"colour": "red"}, "setting 'colour' does not exist; accepted: audio_convolutions, .*"),
        ({"fusion_layers": -1}, "fusion_layers=-1; accepted: 0 or more"),
        ({"fusion_heads": 0}, "fusion_heads=0; accepted: 1 or more"),
        ({"dropout": 1.5}, "dropout=1.5; accepted: 0 to 1"),
        ({"label_smoothing": -0.1}, "label_smoothing=-0.1; accepted: 0 to 1"),
        ({"rationale_loss_weight": -1.0}, "rationale_loss_weight=-1.0; accepted: 0 or more"),
        ({"class_weights": [-1.0, 1.0, 1.0]}, r"class_weights=\[-1.0, 1.0, 1.0\]; accepted: none below 0"),
        ({"class_weights": [0.0, 0.0, 0.0]}, "class_weights=.*; accepted: none below 0, and not 0 for all"),
        ({"label_token_ids": [5, 5, 6]}, r"label_token_ids=\[5, 5, 6\]; accepted: another token for each"),
        ({"label_token_ids": [5, -6, 7]}, r"label_token_ids=\[5, -6, 7\]; .* each label, from 0"),
        ({"label_token_ids": [5, 6, 999]}, r"label_token_ids: \[999\]; accepted: 0 to 255, the vocabulary's"),
        (
            {"rationale_format": "none", "decoder_type": "prefix"},
            "decoder_type='prefix' contradicts rationale_format='none'",
        ),
        (
            {"fusion": "audio_only", "decoder_type": "prefix", "prompt_transcript": True},
            "prompt_transcript=True contradicts rationale_format='multitask' with fusion='audio_only': .*; "
            "accepted: post_thinking, pre_thinking",
        ),
        ({"fusion_bottlenecks": 0}, "fusion_bottlenecks=0; accepted: 1 or more"),
        ({"fusion_rank": -1}, "fusion_rank=-1; accepted: 1 or more"),
        ({"fusion_experts": 0}, "fusion_experts=0; accepted: 1 or more"),
        ({"fusion_active_experts": 5}, "fusion_active_experts=5; accepted: 1 to fusion_experts=4"),
        ({"fusion_balance_rate": -0.1}, "fusion_balance_rate=-0.1; accepted: 0 or more"),
        ({"audio_stride": 0}, "audio_stride=0; accepted: 1 or more"),
        ({"audio_convolutions": -1}, "audio_convolutions=-1; accepted: 0 or more"),
        ({"audio_window_seconds": 6.0}, "audio_window_seconds=6.0; accepted: with a Whisper encoder, more"),
        (
            {"audio_window_seconds": 31.0, "audio_encoder": {"model_type": "whisper"}},
            "audio_window_seconds=31.0; accepted: .*, more than 0 and at most its 30 s",
        ),
        (
            {"audio_window_seconds": 0.0, "audio_encoder": {"model_type": "whisper"}},
            "audio_window_seconds=0.0;",
        ),
        (
            {"audio_dynamic_range": 4.0},
            "audio_dynamic_range=4.0; accepted: with a Whisper encoder, more than 0 decades; None otherwise",
        ),
        (
            {"audio_dynamic_range": 0.0, "audio_encoder": {"model_type": "whisper"}},
            "audio_dynamic_range=0.0; accepted: with a Whisper encoder, more than 0",
        ),
        (
            {"audio_encoder": {"model_type": "mmsr-timm-audio", "window_seconds": 0.0}},
            "window_seconds=0.0; accepted: more than 0",
        ),
        ({"temperature": 0.0}, "temperature=0.0; accepted: more than 0"),
        ({"decoder_temperature": -1.0}, "decoder_temperature=-1.0; accepted: more than 0"),
        ({"hidden_size": 30}, "hidden_size=30 is not divisible by fusion_heads=4"),
        ({"class_weights": [1.0, 2.0]}, "class_weights has 2 entries for 3 labels in id2label"),
        ({"label_token_ids": [5, 6]}, "label_token_ids has 2 entries for 3 labels in id2label"),
        (
            {"label_token_ids": None},
            "rationale_format='multitask' needs label_token_ids: one token id per label",
        ),
        ({"audio_layers": [1]}, r"audio_layers=\[1\] needs audio_layer_mix=True"),
        *(
            (
                {"audio_layers": layers, "audio_layer_mix": True},
                rf"audio_layers={re.escape(str(layers))}; accepted: some of 0 to 2, ascending, each once",
            )
            for layers in ([], [3], [-1], [2, 1], [1, 1])
        ),
        ({"format_version": 99}, "has format_version=99; this mmsr reads up to 2: install a later mmsr"),
    ],
)
def test_settings_that_cannot_be_raise_by_name(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        MmsrConfig.from_preset("tiny", **settings)


def test_what_is_said_of_a_modality_that_is_not_read_changes_nothing():
    """So that an ablation varies `fusion` alone."""
    of_audio: dict[str, Any] = {
        "audio_layer_mix": True,
        "audio_layers": [1],
        "audio_stride": 4,
        "audio_convolutions": 2,
        "audio_standardize": True,
        "audio_window_seconds": 6.0,
        "audio_dynamic_range": 4.0,
    }
    model = MmsrForSentimentReasoning(MmsrConfig.from_preset("tiny", fusion="text_only", **of_audio))
    plain = MmsrForSentimentReasoning(MmsrConfig.from_preset("tiny", fusion="text_only"))
    assert model.state_dict().keys() == plain.state_dict().keys()


MOONSHINE = {
    "model_type": "moonshine",
    "hidden_size": 32,
    "encoder_num_hidden_layers": 3,
    "decoder_num_hidden_layers": 1,
    "encoder_num_attention_heads": 4,
    "decoder_num_attention_heads": 4,
    "intermediate_size": 37,
    "vocab_size": 50,
}


def test_layers_of_moonshine_are_its_encoder_s_and_of_timm_its_stages():
    def build(part: Any, layers: list[int]) -> MmsrForSentimentReasoning:
        mix = {"audio_layer_mix": True, "audio_layers": layers}
        return MmsrForSentimentReasoning(MmsrConfig.from_preset("tiny", audio_encoder=part, **mix))

    assert build(dict(MOONSHINE), [3]).encoder.audio_stream.kept == [3]
    with pytest.raises(ValueError, match=r"audio_layers=\[4\]; accepted: some of 0 to 3, ascending"):
        build(dict(MOONSHINE), [4])
    pytest.importorskip("timm")
    vit = {"model_type": "mmsr-timm-audio", "architecture": "test_vit", "window_seconds": 2.0}
    stages = build(dict(vit), [0]).encoder.audio_encoder.num_states
    with pytest.raises(
        ValueError, match=rf"audio_layers=\[0, {stages}\].* has layers 0 to {stages - 1}; accepted: some of"
    ):
        build(dict(vit), [0, stages])
    with pytest.raises(ValueError, match=r"audio_layers=\[\]; accepted: some of 0 to the last"):
        build(dict(vit), [])


def test_a_saved_config_may_hold_what_this_release_does_not_know(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    MmsrConfig.from_preset("tiny").save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    of_transformers = {
        "torch_dtype": "float32",
        "_commit_hash": "abc",
        "num_beams": 4,
        "auto_map": {},
        "quantization_config": {"quant_method": "bitsandbytes"},
    }
    (tmp_path / "config.json").write_text(json.dumps({**saved, **of_transformers, "colour": "red"}))
    loaded = AutoConfig.from_pretrained(tmp_path, output_attentions=True, attn_implementation="eager")
    assert loaded.output_attentions and loaded.pooling == "statistics"
    told = [record.getMessage() for record in caplog.records if "not known" in record.getMessage()]
    assert told == ["this configuration has settings that are not known: colour"]


def test_an_unknown_preset_raises():
    with pytest.raises(ValueError, match="preset='huge' does not exist; accepted: tiny, small, base"):
        MmsrConfig.from_preset("huge")
    with pytest.raises(ValueError, match="colour='red' does not exist; accepted: blue"):
        check_choice("colour", "red", ("blue",))


def test_a_part_that_is_missing_is_asked_for_by_name():
    with pytest.raises(
        ValueError, match="fusion='cross_attention', .*: audio_encoder is needed but None; accepted"
    ):
        MmsrForSentimentReasoning(MmsrConfig())


def test_a_saved_configuration_names_no_folder_of_this_machine(text_encoder, tmp_path):
    model = MmsrForSentimentReasoning.from_encoders(text=text_encoder, fusion="text_only")
    assert model.config.part("text_encoder").name_or_path == str(text_encoder)
    model.config.save_pretrained(tmp_path / "saved")
    saved = MmsrConfig.from_pretrained(tmp_path / "saved")
    assert saved.part("text_encoder").name_or_path == text_encoder.name
    assert str(text_encoder.parent) not in (tmp_path / "saved" / "config.json").read_text()


def test_the_configuration_of_another_model_is_refused(text_encoder):
    with pytest.raises(ValueError, match="it is a bert model, and no checkpoint of mmsr: a pretrained"):
        MmsrConfig.from_pretrained(text_encoder)

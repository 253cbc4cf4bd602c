"""What the settings of a run are called, which values they accept, and which contradict each other."""

import dataclasses
import re

import pytest

from mmsr.cli.main import main
from mmsr.training.objectives import OBJECTIVES
from mmsr.training.run import MmsrCLI, settings_that_matter
from mmsr.training.settings import ENCODERS, Freezing, Optimisation, TrainingSettings

# Of an earlier release: the names that YAML files and checkpoints hold, and the defaults that run.yaml holds.
DEFAULTS = {
    "preset": "small",
    "audio": None,
    "text": None,
    "pretrained": None,
    "init_from": None,
    "decoder": None,
    "decoder_type": "cross_attention",
    "fusion": "cross_attention",
    "rationale_format": "multitask",
    "labels": None,
    "text_prefix": "",
    "target_level": None,
    "vocab_size": 4000,
    "config": None,
    "freeze": None,
    "train_layers": None,
    "gradual_unfreezing": None,
    "lora": None,
    "attention": None,
    "gradient_checkpointing": False,
    "feature_store": None,
    "feature_dtype": "float16",
    "learning_rate": 1e-3,
    "encoder_learning_rate": None,
    "layer_decay": 1.0,
    "weight_decay": 0.01,
    "schedule": None,
    "warmup_ratio": 0.1,
    "warmup_steps": None,
    "ema_decay": None,
    "audio_dropout": 0.1,
    "text_dropout": 0.1,
    "class_weights": None,
    "label_smoothing": None,
    "uncertainty_weighting": False,
    "r_drop": 0.0,
    "objectives": None,
    "seed": 0,
}


def test_names_and_defaults_are_those_of_earlier_releases():
    assert dataclasses.asdict(TrainingSettings()) == DEFAULTS
    assert [field.name for field in dataclasses.fields(TrainingSettings)] == list(DEFAULTS)


def test_a_run_is_known_by_its_settings_without_those_that_are_null():
    cli = MmsrCLI(["--data.manifest", "none.csv", "--seed_everything", "3"])
    plain = {name: value for name, value in DEFAULTS.items() if value is not None and name != "seed"}
    assert settings_that_matter(cli)["model"] == plain
    assert cli.model.settings == TrainingSettings(seed=3)


def test_numbers_and_mappings_of_a_command_line_are_typed():
    given = {"audio_dropout": "0", "encoder_learning_rate": "1e-4", "lora": "{decoder: {r: 4}}"}
    given["target_level"] = "-23"
    flags = [item for name, value in given.items() for item in (f"--model.{name}", value)]
    settings = MmsrCLI(["--data.manifest", "none.csv", *flags]).model.settings
    typed = {"audio_dropout": 0.0, "encoder_learning_rate": 1e-4, "lora": {"decoder": {"r": 4}}}
    typed["target_level"] = -23.0
    for name, value in typed.items():
        found = getattr(settings, name)
        assert found == value and type(found) is type(value)


def test_a_concern_stands_alone():
    assert Optimisation().learning_rate == 1e-3
    assert Freezing(freeze=["decoder"], lora={"text_encoder": {}}).by_setting() == {
        "freeze": {"decoder": None},
        "train_layers": {},
        "gradual_unfreezing": {},
        "lora": {"text_encoder": {}},
    }
    with pytest.raises(ValueError, match="layer_decay is 2; accepted: above 0, to 1"):
        Optimisation(layer_decay=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingSettings().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"freeze": ["audio_encoder"], "train_layers": {"audio_encoder": 1}},
            "freeze= and train_layers= contradict each other: both name audio_encoder",
        ),
        (
            {"train_layers": {"text_encoder": 1}, "gradual_unfreezing": {"text_encoder": 1}},
            "train_layers= and gradual_unfreezing= contradict each other: both name text_encoder",
        ),
        (
            {"freeze": ["text_encoder"], "lora": {"text_encoder": {}}},
            "freeze= and lora= contradict each other: both name text_encoder",
        ),
        ({"train_layers": {"head": 1}}, "train_layers='head' does not exist; accepted: audio_encoder, text"),
        ({"train_layers": {"text_encoder": 0}}, r"train_layers=\{text_encoder: 0\}; accepted: 1 or more"),
        (
            {"lora": {"text_encoder": {"rank": 2}}},
            "lora.text_encoder='rank' does not exist; accepted: r, a",
        ),
        (
            {"freeze": ["audio_encoder", "text_encoder"], "layer_decay": 0.8},
            "layer_decay= is of the encoders, and freeze= names both",
        ),
        (
            {"freeze": ["audio_encoder", "text_encoder", "decoder"], "layer_decay": 0.8},
            "layer_decay= is of the encoders, and freeze= names both",
        ),
        (
            {
                **{"pretrained": "x", "fusion": "gated", "config": {"dropout": 0.2}, "labels": ["a", "b"]},
                **{"text_prefix": "query: ", "target_level": -23.0},
                **{"rationale_format": "post_thinking", "decoder_type": "prefix"},
            },
            r"pretrained='x' \(a checkpoint\) has its own fusion, config, labels, text_prefix, target_level, "
            "rationale_format, decoder_type: leave them out",
        ),
        ({"target_level": 3.0}, "target_level is 3.0; accepted: a level in dBFS, below 0"),
        ({"layer_decay": 0.0}, "layer_decay is 0.0; accepted: above 0, to 1"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0; accepted: between 0 and 1"),
        ({"label_smoothing": 1.5}, "label_smoothing is 1.5; accepted: 0 to 1"),
        ({"r_drop": -1.0}, "r_drop is -1.0; accepted: 0 to inf"),
        (
            {"class_weights": "balanced", "config": {"class_weights": [1, 1, 1]}},
            "class_weights= and config class_weights contradict each other",
        ),
        (
            {"uncertainty_weighting": True, "rationale_format": "none"},
            "uncertainty_weighting= weighs two losses, and rationale_format='none' leaves one",
        ),
        (
            {"uncertainty_weighting": True, "config": {"rationale_loss_weight": 0.5}},
            "uncertainty_weighting= learns what config rationale_loss_weight fixes",
        ),
        (
            {"config": {"poolling": "mean"}},
            r"config 'poolling' does not exist; did you mean pooling\?; accepted: audio_convolutions.*",
        ),
        (
            {"fusion": "film", "config": {"fusion": "gated"}},
            "config fusion='gated' and fusion='film': give fusion= alone",
        ),
        ({"config": {"id2label": {0: "a"}}}, r"config id2label=\{0: 'a'\}: give labels= alone"),
        ({"learning_rate": -0.1}, "learning_rate is -0.1; accepted: above 0"),
        ({"encoder_learning_rate": 0.0}, "encoder_learning_rate is 0.0; accepted: above 0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0; accepted: 0 to inf"),
        ({"warmup_ratio": 3.0}, "warmup_ratio is 3.0; accepted: 0 to 1"),
        ({"class_weights": [1.0, -1.0, 1.0]}, r"class_weights=\[1.0, -1.0, 1.0\]; accepted: none below 0"),
        (
            {"rationale_format": "none", "decoder_type": "prefix"},
            "decoder_type='prefix' is of a decoder, and rationale_format='none' wants none",
        ),
        (
            {"objectives": {"contrastive": 0.1}, "fusion": "text_only"},
            r"objectives= \(contrastive\) are of two modalities, and fusion='text_only' has one",
        ),
        ({"fusion": "nosuch"}, "fusion='nosuch' does not exist; accepted: cross_attention"),
        ({"freeze": ["head"]}, "freeze='head' does not exist; accepted: audio_encoder, text_encoder"),
        ({"audio_dropout": 0.7, "text_dropout": 0.6}, "exceed 1 together"),
        ({"text_dropout": -0.1}, "text_dropout is -0.1; accepted: 0 to 1"),
        ({"pretrained": "a", "audio": "b"}, "give one or the other"),
        ({"feature_store": "x"}, "add audio_encoder or text_encoder to freeze="),
    ],
)
def test_what_is_wrong_with_settings_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**settings)


def test_limits_that_belong_to_a_range_are_accepted():
    limits = {
        "audio_dropout": 1.0,
        "text_dropout": 0.0,
        "warmup_ratio": 0.0,
        "layer_decay": 1.0,
        "r_drop": 0.0,
    }
    assert TrainingSettings(**limits).audio_dropout == 1.0
    stored = TrainingSettings(freeze=[*ENCODERS], feature_store="x")
    assert stored.frozen == {*ENCODERS}


def test_help_explains_every_setting(capsys):
    main(["fit", "--help"])
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    with pytest.raises(SystemExit):
        main(["fit", "--help_all"])
    explained = re.sub(r"\s+", " ", capsys.readouterr().out)
    for name in DEFAULTS:
        if name != "seed":  # linked to seed_everything
            assert re.search(rf"\.{name}\b", shown), name
            assert f"--model.{name}" in explained, name
    for name in OBJECTIVES:
        assert name in shown
    assert "Decay per step of an exponential moving average of the weights, such as 0.999." in explained

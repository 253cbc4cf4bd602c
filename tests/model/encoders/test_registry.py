from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
)

from mmsr.model.configuration import MmsrConfig, TimmAudioConfig
from mmsr.model.encoders.registry import AUDIO_ENCODERS, audio_encoder_class
from mmsr.model.modeling import MmsrForSentimentReasoning


@pytest.mark.parametrize("family", ["moonshine", "timm-vit"])
def test_layers_are_those_of_the_encoder(make_config: Callable[..., Any], family: str):
    """Moonshine's `num_hidden_layers` is its decoder's; timm's models are built before they tell theirs."""
    joint = MmsrConfig.from_preset(
        "tiny", fusion="audio_only", audio_encoder=make_config(*AUDIO_FAMILIES[family]), audio_layer_mix=True
    )
    kind = audio_encoder_class(joint.audio_encoder)
    last = {"moonshine": 2, "timm-vit": 5}[family]
    joint.audio_layers = [1, last]
    assert kind(joint).num_states == last + 1
    joint.audio_layers = [1, last + 1]
    with pytest.raises(ValueError, match=rf"audio_layers=\[1, {last + 1}\]: .* layers 0 to {last}; accepted"):
        kind(joint)


def test_an_unknown_speech_encoder_raises():
    with pytest.raises(
        ValueError, match="model_type='bert', which is no known speech encoder; accepted: wav2vec2"
    ):
        audio_encoder_class(AutoConfig.for_model("bert"))


AUDIO_FAMILIES: dict[str, tuple[str, ...]] = {
    "wav2vec2-base": ("wav2vec2", "group"),
    "xls-r": ("wav2vec2", "layer"),
    "hubert": ("hubert", "group"),
    "wavlm": ("wavlm", "group"),
    "data2vec-audio": ("data2vec-audio",),
    "whisper": ("whisper",),
    "moonshine": ("moonshine",),
    "timm-cnn": ("timm", "mobilenetv3_small_050"),
    "timm-vit": ("timm", "test_vit"),
}


@pytest.mark.parametrize(
    ("family", "mix"),
    [(name, mix) for name in AUDIO_FAMILIES for mix in (False, True) if not (mix and name == "timm-cnn")],
)
def test_every_audio_family_learns_and_reloads(
    check_gradient_and_reload: Callable[..., None],
    make_config: Callable[..., Any],
    make_model: Callable[..., MmsrForSentimentReasoning],
    batch: dict[str, Tensor],
    family: str,
    mix: bool,
):
    window = {"audio_window_seconds": 0.5} if family == "whisper" else {}
    config = make_config(*AUDIO_FAMILIES[family])
    model = make_model(
        audio_encoder=config, audio_layer_mix=mix, rationale_format="none", dropout=0.0, **window
    )
    batch["input_values_mask"][1, 2500:] = 0
    check_gradient_and_reload(model, "audio_encoder", batch)


def test_every_speech_encoder_is_known_to_transformers():
    for model_type, kind in AUDIO_ENCODERS.items():
        config = AutoConfig.for_model(model_type)
        assert audio_encoder_class(config) is kind
        assert type(config) in AutoModel._model_mapping or isinstance(config, TimmAudioConfig)

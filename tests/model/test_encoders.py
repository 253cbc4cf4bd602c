import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    MoonshineModel,
    WhisperFeatureExtractor,
    WhisperModel,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from mmsr.model.configuration import MmsrConfig, TimmAudioConfig
from mmsr.model.encoders.base import AudioEncoder, LayerMix, to_front
from mmsr.model.encoders.registry import AUDIO_ENCODERS, audio_encoder_class, load_audio_encoder
from mmsr.model.encoders.spectrogram import TimmAudioEncoder, WhisperAudioEncoder
from mmsr.model.encoders.text import TextEncoder
from mmsr.model.modeling import MmsrForSentimentReasoning

WAVEFORM_TYPES = [name for name in AUDIO_ENCODERS if name not in ("whisper", "mmsr-timm-audio")]
FRONT_ENDS = [(name, "layer") for name in WAVEFORM_TYPES if name != "moonshine"] + [
    (name, "group") for name in WAVEFORM_TYPES if name != "data2vec-audio"
]
LIKE_TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 37,
    "conv_dim": (16, 16, 16),
    "conv_kernel": (20, 8, 4),
    "conv_stride": (10, 8, 4),
    "num_conv_pos_embedding_groups": 2,
    "mask_time_prob": 0.0,
    "layerdrop": 0.0,
}
TIGHT = {"atol": 2e-5, "rtol": 1e-4}


def speech_config(model_type: str, front_end: str = "layer", **overrides: Any) -> Any:
    if model_type == "whisper":
        return whisper_config()
    if model_type == "moonshine":
        heads = {"encoder_num_attention_heads": 4, "decoder_num_attention_heads": 4}
        layers = {"encoder_num_hidden_layers": 2, "decoder_num_hidden_layers": 1}
        return AutoConfig.for_model(
            model_type, hidden_size=32, intermediate_size=37, vocab_size=60, **heads, **layers
        )
    shape = {**LIKE_TINY, "num_conv_pos_embeddings": 3 if model_type == "data2vec-audio" else 16}
    if model_type == "data2vec-audio":
        shape["conv_pos_kernel_size"] = 5
    else:
        shape |= {"feat_extract_norm": front_end, "do_stable_layer_norm": front_end == "layer"}
    return AutoConfig.for_model(model_type, **{**shape, **overrides})


def whisper_config(**overrides: Any) -> Any:
    """A tiny encoder at the real window of 30 s."""
    return AutoConfig.for_model(
        "whisper",
        d_model=16,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        **overrides,
    )


def timm_config(architecture: str, **overrides: Any) -> TimmAudioConfig:
    """A picture of 64 mels and 64 frames, .64 s."""
    return TimmAudioConfig(
        architecture=architecture, **{"num_mel_bins": 64, "window_seconds": 0.6, **overrides}
    )


@pytest.fixture
def make_encoder() -> Callable[..., AudioEncoder]:
    def make(config: Any, attention: str = "eager", **overrides: Any) -> AudioEncoder:
        torch.manual_seed(1)
        joint = MmsrConfig.from_preset("tiny", fusion="audio_only", audio_encoder=config, **overrides)
        encoder = audio_encoder_class(config)(joint).eval()
        encoder.model.set_attn_implementation(attention)
        for parameter in encoder.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_normal_(parameter)
        return encoder

    return make


def ones(values: Tensor) -> Tensor:
    return torch.ones_like(values).long()


# ---------------------------------------------------------------------- waveform encoders


@pytest.mark.parametrize(("model_type", "front_end"), FRONT_ENDS)
@torch.no_grad()
def test_an_unpadded_batch_is_what_transformers_makes_of_it(
    make_encoder: Callable[..., AudioEncoder], model_type: str, front_end: str
):
    encoder = make_encoder(speech_config(model_type, front_end), audio_layer_mix=True)
    values = torch.randn(2, 4000)
    expected = encoder.model(values, output_hidden_states=True, output_attentions=True)
    encoded = encoder(values, ones(values), output_hidden_states=True, output_attentions=True)
    assert_close(encoded.states[:, :, -1], expected.last_hidden_state, **TIGHT)
    assert_close(encoded.states[:, :, :-1], torch.stack(expected.hidden_states[:-1], 2), **TIGHT)
    assert encoded.mask.all() and encoded.mask.shape == encoded.states.shape[:2]
    assert encoded.states.shape[2] == encoder.num_states == len(encoded.hidden_states) == 3
    assert_close(encoded.attentions, expected.attentions, **TIGHT)


@pytest.mark.parametrize("mix", [False, True])
@pytest.mark.parametrize(("model_type", "front_end"), FRONT_ENDS)
@torch.no_grad()
def test_a_row_does_not_depend_on_its_batch_nor_on_its_padding(
    make_encoder: Callable[..., AudioEncoder], model_type: str, front_end: str, mix: bool
):
    """Padding left in row 0 and right in row 1, NaN in both; row 2 is whole, row 3 absent."""
    encoder = make_encoder(speech_config(model_type, front_end), audio_layer_mix=mix)
    flags = {"output_hidden_states": True, "output_attentions": True}
    values, mask = torch.randn(4, 4000), torch.ones(4, 4000, dtype=torch.long)
    mask[0, :1500] = mask[1, 2100:] = mask[3] = 0
    batch = encoder(values.masked_fill(mask == 0, torch.nan), mask, **flags)
    assert batch.states.isfinite().all()
    assert batch.mask[3].sum() == 0
    whole = batch.mask.shape[1]
    for index, alone in enumerate((values[0, 1500:], values[1, :2100], values[2])):
        single = encoder(alone[None], ones(alone[None]), **flags)
        frames = single.mask.shape[1]
        assert single.mask.all() and batch.mask[index].tolist() == [1] * frames + [0] * (whole - frames)
        assert_close(batch.states[index, :frames], single.states[0], **TIGHT)
        for of_batch, of_row in zip(batch.hidden_states, single.hidden_states, strict=True):
            assert_close(of_batch[index, :frames], of_row[0], **TIGHT)
        for of_batch, of_row in zip(batch.attentions, single.attentions, strict=True):
            assert_close(of_batch[index, :, :frames, :frames], of_row[0], **TIGHT)


@pytest.mark.parametrize(
    ("model_type", "front_end", "field"),
    [("wav2vec2", "layer", 330), ("wav2vec2", "group", 330), ("moonshine", "group", 895)],
)
@torch.no_grad()
def test_a_clip_shorter_than_a_frame_is_filled_with_silence(
    make_encoder: Callable[..., AudioEncoder], model_type: str, front_end: str, field: int
):
    encoder = make_encoder(speech_config(model_type, front_end))
    assert encoder.receptive_field == field
    short = torch.randn(1, 100)
    filled = nn.functional.pad(short, (0, field - 100))
    encoded = encoder(short, ones(short))
    assert encoded.states.shape == (1, 1, 1, 32) and encoded.mask.tolist() == [[1]]
    assert_close(encoded.states, encoder(filled, ones(filled)).states, **TIGHT)
    values, mask = torch.randn(2, 4000), torch.ones(2, 4000, dtype=torch.long)
    values[0, :100], mask[0, 100:] = short, 0
    batch = encoder(values, mask)
    assert batch.mask[0].sum() == 1
    assert_close(batch.states[0, :1], encoded.states[0], **TIGHT)


@pytest.mark.parametrize("front_end", ["layer", "group"])
def test_training_with_specaugment_takes_short_and_absent_clips(
    make_encoder: Callable[..., AudioEncoder], front_end: str
):
    """Transformers raises where a clip is shorter than the mask of 10 frames."""
    config = speech_config("wav2vec2", front_end, mask_time_prob=0.5)
    encoder = make_encoder(config).train()
    values, mask = torch.randn(3, 6400), torch.ones(3, 6400, dtype=torch.long)
    mask[1, 500:] = mask[2] = 0
    encoded = encoder(values, mask)
    encoded.states.sum().backward()
    assert encoder.model.masked_spec_embed.grad.abs().sum() > 0  # the whole clip was masked
    assert encoder(values[1:, :500], mask[1:, :500]).states.shape[1] == 1


@pytest.mark.parametrize("model_type", [name for name in WAVEFORM_TYPES if name != "moonshine"])
def test_no_layer_is_dropped(make_encoder: Callable[..., AudioEncoder], model_type: str):
    """LayerDrop, whose states the mix would lack, is .1 in most published configs."""
    encoder = make_encoder(speech_config(model_type, layerdrop=0.9), audio_layer_mix=True).train()
    values = torch.randn(2, 4000)
    for _ in range(3):
        assert encoder(values, ones(values)).states.shape[2] == 3


def test_frames_of_an_adapter_are_refused(make_encoder: Callable[..., AudioEncoder]):
    with pytest.raises(ValueError, match="add_adapter=True, .*accepted: False, with audio_stride"):
        make_encoder(speech_config("wav2vec2", add_adapter=True))


@pytest.mark.parametrize("family", ["moonshine", "timm-vit"])
def test_layers_are_those_of_the_encoder(family: str):
    """Moonshine's `num_hidden_layers` is its decoder's; timm's models are built before they tell theirs."""
    joint = MmsrConfig.from_preset(
        "tiny", fusion="audio_only", audio_encoder=AUDIO_FAMILIES[family](), audio_layer_mix=True
    )
    kind = audio_encoder_class(joint.audio_encoder)
    last = {"moonshine": 2, "timm-vit": 5}[family]
    joint.audio_layers = [1, last]
    assert kind(joint).num_states == last + 1
    joint.audio_layers = [1, last + 1]
    with pytest.raises(ValueError, match=rf"audio_layers=\[1, {last + 1}\]: .* layers 0 to {last}; accepted"):
        kind(joint)


@torch.no_grad()
def test_last_layer_or_all(make_encoder: Callable[..., AudioEncoder]):
    values = torch.randn(1, 4000)
    last, mixed = (
        make_encoder(speech_config("wav2vec2"), audio_layer_mix=mix)(values, ones(values)).states
        for mix in (False, True)
    )
    assert last.shape == (1, 12, 1, 32) and mixed.shape == (1, 12, 3, 32)
    assert torch.equal(last[:, :, 0], mixed[:, :, -1])


def test_an_unknown_speech_encoder_raises():
    with pytest.raises(
        ValueError, match="model_type='bert', which is no known speech encoder; accepted: wav2vec2"
    ):
        audio_encoder_class(AutoConfig.for_model("bert"))


# ---------------------------------------------------------------------- Whisper


@pytest.fixture
def whisper(make_encoder: Callable[..., AudioEncoder]) -> WhisperAudioEncoder:
    encoder = make_encoder(whisper_config(), attention="sdpa")
    assert isinstance(encoder, WhisperAudioEncoder) and isinstance(encoder.model, WhisperEncoder)
    return encoder


def reference(encoder: WhisperEncoder, waveform: Tensor, mels: int = 80) -> tuple[Tensor, Tensor]:
    """Transformers' own features and states of one window, `[1, mels, 3000]` and `[1, 1500, d]`."""
    features = WhisperFeatureExtractor(feature_size=mels)(
        waveform.numpy(), sampling_rate=16_000, return_tensors="pt"
    )["input_features"]
    return features, encoder(features).last_hidden_state


@torch.no_grad()
def test_whisper_equals_transformers_on_the_whole_window(whisper: WhisperAudioEncoder):
    waveform = torch.randn(32_000) * 0.1
    features, states = reference(whisper.model, waveform)
    whole = nn.functional.pad(waveform[None], (0, 480_000 - 32_000))
    assert_close(whisper.log_mel(whole), features, atol=1e-4, rtol=1e-4)
    encoded = whisper(waveform[None], ones(waveform[None]))
    assert encoded.states.shape == (1, 100, 1, 16) and encoded.mask.sum() == 100
    assert_close(encoded.states[0, :, 0], states[0, :100], atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_whisper_cuts_longer_audio_into_windows(whisper: WhisperAudioEncoder):
    """35 s = a window of 30 s and one of 5 s; the row of 2 s is what it is alone; the third is absent."""
    waveform = torch.randn(35 * 16_000) * 0.1
    values = torch.stack([waveform, torch.randn(35 * 16_000) * 0.1, torch.full_like(waveform, torch.nan)])
    mask = ones(values)
    mask[1, :-32_000] = mask[2] = 0  # padded on the left
    encoded = whisper(values, mask, output_hidden_states=True)
    assert encoded.mask.sum(1).tolist() == [1750, 100, 0] and encoded.mask.shape[1] == 1750
    assert encoded.hidden_states[-1].shape == (3, 1750, 16)
    first, second = (reference(whisper.model, window)[1] for window in waveform.split(480_000))
    assert_close(encoded.states[0, :1500, 0], first[0], atol=1e-4, rtol=1e-3)
    assert_close(encoded.states[0, 1500:, 0], second[0, :250], atol=1e-4, rtol=1e-3)
    alone = whisper(values[1:2, -32_000:], mask[1:2, -32_000:])
    assert_close(encoded.states[1, :100], alone.states[0], **TIGHT)
    assert encoded.states.isfinite().all()


@torch.no_grad()
def test_a_short_window_is_the_first_part_of_whisper(make_encoder: Callable[..., AudioEncoder]):
    """Transformers' own encoder, built with 100 positions, on its own features of 2 s: rows of 1 and 3 s."""
    encoder = make_encoder(whisper_config(), audio_window_seconds=2.0, audio_layer_mix=True)
    short = WhisperEncoder(whisper_config(max_source_positions=100))
    weights = encoder.model.state_dict()
    weights["embed_positions.weight"] = weights["embed_positions.weight"][:100]
    short.load_state_dict(weights)
    short.eval().set_attn_implementation("eager")
    waveform = torch.randn(48_000) * 0.1
    values, mask = torch.stack([waveform, waveform.roll(7)]), torch.ones(2, 48_000, dtype=torch.long)
    mask[1, 16_000:] = 0
    flags = {"output_hidden_states": True, "output_attentions": True}
    encoded = encoder(values, mask, **flags)
    assert encoded.mask.sum(1).tolist() == [150, 50] and encoded.mask.shape[1] == 150
    extractor = WhisperFeatureExtractor(chunk_length=2)
    for row, start, stop in ((0, 0, 32_000), (0, 32_000, 48_000), (1, 0, 16_000)):
        features = extractor(values[row, start:stop].numpy(), sampling_rate=16_000, return_tensors="pt")
        expected = short(features["input_features"], **flags)
        of_row = slice(start // 320, stop // 320)
        frames = (stop - start) // 320
        for layer in range(3):
            assert_close(
                encoded.states[row, of_row, layer],
                expected.hidden_states[layer][0, :frames],
                atol=1e-4,
                rtol=1e-3,
            )
            assert torch.equal(encoded.hidden_states[layer][row], encoded.states[row, :, layer])
        assert_close(
            encoded.attentions[1][2 * row + start // 32_000],
            expected.attentions[1][0],
            atol=1e-4,
            rtol=1e-3,
        )
    assert not encoded.attentions[1][3].any()  # the window that row 1 does not reach


@torch.no_grad()
def test_whisper_is_one_graph_and_hears_in_float32(make_encoder: Callable[..., AudioEncoder]):
    """Compiled, it encodes the windows too that row 1 does not reach."""
    torch.compiler.reset()
    encoder = make_encoder(whisper_config(), audio_window_seconds=0.1)
    values, mask = torch.randn(2, 4000), torch.ones(2, 4000, dtype=torch.long)
    mask[1, 1000:] = 0
    expected = encoder(values, mask)
    encoded = torch.compile(encoder, fullgraph=True, backend="eager")(values, mask)
    assert torch.equal(encoded.mask, expected.mask)
    assert_close(encoded.states[encoded.mask == 1], expected.states[expected.mask == 1], **TIGHT)
    log_mel = encoder.log_mel(values[:, :1600])
    assert torch.equal(encoder.to(torch.bfloat16).log_mel(values[:, :1600]), log_mel)


@pytest.mark.slow
@torch.no_grad()
def test_the_real_whisper_equals_transformers(shared_models: Path):
    folder = shared_models / "whisper-base"
    config = MmsrConfig.from_preset(
        "tiny", fusion="audio_only", audio_encoder=AutoConfig.from_pretrained(folder), rationale_format="none"
    )
    encoder = WhisperAudioEncoder(config).eval()
    encoder.model.load_state_dict(WhisperAudioEncoder.load(folder).state_dict())
    whole = WhisperModel.from_pretrained(folder, dtype=torch.float32).get_encoder().eval()
    waveform = torch.from_numpy(np.random.default_rng(0).standard_normal(24_000).astype(np.float32)) * 0.1
    _, states = reference(whole, waveform)
    encoded = encoder(waveform[None], ones(waveform[None]))
    assert_close(encoded.states[0, :, 0], states[0, :75], atol=2e-3, rtol=1e-3)


# ---------------------------------------------------------------------- timm


TIMM = ("resnet10t", "test_vit")


def random_timm(make_encoder: Callable[..., AudioEncoder], architecture: str, **overrides: Any) -> Any:
    """With running statistics of a batch norm that has seen something."""
    encoder = make_encoder(timm_config(architecture), **overrides)
    for name, buffer in encoder.model.named_buffers():
        if name.endswith("running_mean"):
            nn.init.normal_(buffer, std=0.1)
    return encoder


@torch.no_grad()
def test_a_log_mel_is_torchaudios(make_encoder: Callable[..., AudioEncoder]):
    transforms = pytest.importorskip("torchaudio.transforms", reason="needs mmsr[audio]")
    encoder = random_timm(make_encoder, "resnet10t")
    assert encoder.window == 10_240
    waveform = torch.randn(2, 10_240)
    waveform[1] = 0
    mel = transforms.MelSpectrogram(16_000, n_fft=400, hop_length=160, n_mels=64)(waveform)[..., :-1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = encoder.log_mel(waveform)
    assert features.shape == (2, 64, 64) and features.dtype == torch.float32
    assert_close(features, (mel.clamp(min=1e-10).log10() + 4) / 4, **TIGHT)
    assert (features[1] == -1.5).all()


@pytest.mark.parametrize("architecture", TIMM)
@torch.no_grad()
def test_a_window_is_what_timm_makes_of_its_spectrogram(
    make_encoder: Callable[..., AudioEncoder], architecture: str
):
    encoder = random_timm(make_encoder, architecture)
    values = torch.randn(2, 10_240)
    backbone = encoder.model.timm_model
    features = backbone.forward_features(encoder.log_mel(values)[:, None])
    if architecture == "test_vit":  # a class token, then patches of 16 x 16, rows of equal frequency first
        features = features[:, 1:].reshape(2, 4, 4, encoder.width).permute(0, 3, 1, 2)
    encoded = encoder(values, ones(values), output_hidden_states=True)
    assert_close(encoded.states[:, :, 0], features.mean(2).transpose(1, 2), **TIGHT)
    assert encoded.mask.tolist() == [[1] * features.shape[3]] * 2
    assert [layer.shape[2] for layer in encoded.hidden_states] == [
        stage["num_chs"] for stage in backbone.feature_info
    ]
    assert torch.equal(encoded.hidden_states[-1], encoded.states[:, :, 0]) and encoded.attentions is None


@pytest.mark.parametrize(
    ("name", "mix", "step"),
    [("resnet10t", False, 5120), ("test_vit", False, 2560), ("test_vit", True, 2560), ("whisper", True, 320)],
)
@torch.no_grad()
def test_a_spectrogram_row_does_not_depend_on_its_batch_nor_on_its_padding(
    make_encoder: Callable[..., AudioEncoder], name: str, mix: bool, step: int
):
    """Windows of .64 s; padding left in row 0 and right in row 1, NaN in both; row 3 is absent."""
    if name == "whisper":
        encoder = make_encoder(whisper_config(), audio_window_seconds=0.64, audio_layer_mix=mix)
    else:
        encoder = random_timm(make_encoder, name, audio_layer_mix=mix)
    values, mask = torch.randn(4, 25_000), torch.ones(4, 25_000, dtype=torch.long)
    mask[0, :12_000] = mask[1, 7_000:] = mask[3] = 0
    batch = encoder(values.masked_fill(mask == 0, torch.nan), mask, output_hidden_states=True)
    assert batch.states.isfinite().all() and not batch.mask[3].any()
    assert batch.states.shape == (4, -(-25_000 // step), encoder.num_states, encoder.width)
    assert batch.mask.shape == batch.states.shape[:2]
    for index, alone in enumerate((values[0, 12_000:], values[1, :7_000], values[2])):
        single = encoder(alone[None], ones(alone[None]), output_hidden_states=True)
        frames = single.mask.shape[1]
        assert single.mask.all() and frames == -(-len(alone) // step) == batch.mask[index].sum()
        assert_close(batch.states[index, :frames], single.states[0], **TIGHT)
        for of_batch, of_row in zip(batch.hidden_states, single.hidden_states, strict=True):
            assert_close(of_batch[index, : of_row.shape[1]], of_row[0], **TIGHT)


def test_a_frozen_timm_model_counts_no_statistics(make_encoder: Callable[..., AudioEncoder]):
    encoder = random_timm(make_encoder, "resnet10t")
    values = torch.randn(2, 10_240)
    before = {name: buffer.clone() for name, buffer in encoder.model.named_buffers()}
    encoder.requires_grad_(False).train()
    frozen = encoder(values, ones(values)).states
    assert all(torch.equal(buffer, before[name]) for name, buffer in encoder.model.named_buffers())
    encoder.requires_grad_(True).train()
    assert not torch.allclose(encoder(values, ones(values)).states, frozen)


def test_a_layer_mix_needs_layers_of_one_shape(make_encoder: Callable[..., AudioEncoder]):
    with pytest.raises(
        ValueError, match="audio_layer_mix=True: the stages of timm's 'resnet10t' differ .*; accepted: False"
    ):
        make_encoder(timm_config("resnet10t"), audio_layer_mix=True)
    assert make_encoder(timm_config("test_vit"), audio_layer_mix=True).num_states == 6


@pytest.mark.parametrize("architecture", TIMM)
@torch.no_grad()
def test_timm_weights_come_from_a_folder_and_fit_the_spectrogram(tmp_path: Path, architecture: str):
    timm = pytest.importorskip("timm", reason="needs mmsr[audio]")
    photos = timm.create_model(architecture, num_classes=7)
    timm.models.save_for_hf(photos, tmp_path / "photos")
    name = f"timm/local-dir:{tmp_path / 'photos'}"
    for part in (
        load_audio_encoder(name),
        TimmAudioEncoder.load(name, num_mel_bins=64, window_seconds=0.6, timm_args={"drop_path_rate": 0.1}),
    ):
        first = "conv1.0.weight" if architecture == "resnet10t" else "patch_embed.proj.weight"
        weights, source = part.timm_model.state_dict(), photos.state_dict()
        assert_close(weights[first], source[first].sum(1, keepdim=True))
        same = [name for name in weights if name not in (first, "pos_embed")]
        assert len(same) > 50 and all(torch.equal(weights[name], source[name]) for name in same)
        assert part.config.architecture == architecture
    assert part.config.window_frames == 64
    model = MmsrForSentimentReasoning.from_encoders(audio=part, fusion="audio_only")
    assert model.config.audio_encoder.timm_args == {"drop_path_rate": 0.1}
    built = model.encoder.audio_encoder.model.state_dict()
    assert all(torch.equal(built[name], weight) for name, weight in part.state_dict().items())


@pytest.mark.parametrize("architecture", TIMM)
def test_a_timm_model_checkpoints_its_blocks(make_encoder: Callable[..., AudioEncoder], architecture: str):
    """The gradient stays; a block of the first stage runs again in the backward pass."""
    encoder = random_timm(make_encoder, architecture)
    model = encoder.model.timm_model
    block = model.blocks[0] if architecture == "test_vit" else model.layer1[0]
    runs = []
    block.register_forward_pre_hook(lambda *_: runs.append(1))
    values, gradients = torch.randn(1, 10_240), []
    for enable in (False, True):
        encoder.gradient_checkpointing = enable
        assert encoder.gradient_checkpointing is enable
        runs.clear()
        encoder.zero_grad()
        encoder(values, ones(values)).states.square().sum().backward()
        gradients.append(
            {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}
        )
        assert len(runs) == 1 + enable
    assert_close(gradients[1], gradients[0])


def test_a_timm_model_without_checkpointing_says_so(
    make_encoder: Callable[..., AudioEncoder], caplog: pytest.LogCaptureFixture
):
    encoder = random_timm(make_encoder, "resnet10t")
    encoder.model.supports_gradient_checkpointing = False
    logging.getLogger("transformers").propagate = True
    with caplog.at_level("WARNING"):
        encoder.gradient_checkpointing = True
    assert not encoder.gradient_checkpointing
    assert "timm's resnet10t has no gradient checkpointing" in caplog.text


def test_an_unknown_timm_model_raises():
    with pytest.raises(ValueError, match="'resnet9000' is no model of timm .*; accepted: .*, such as resnet"):
        load_audio_encoder("timm/resnet9000")


def test_timm_weights_from_elsewhere_raise():
    with pytest.raises(ValueError, match="audio='timm/hf-hub:me/mine'; accepted: timm/<model> or timm/local"):
        load_audio_encoder("timm/hf-hub:me/mine")


# ---------------------------------------------------------------------- text


TEXT_TYPES = ("xlm-roberta", "bert", "roberta", "electra", "deberta-v2", "distilbert", "mpnet")


def text_config(model_type: str) -> Any:
    shape: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 37,
    }
    if model_type == "distilbert":
        shape = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 37}
    elif model_type == "deberta-v2":  # as published
        shape |= {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
        shape |= {"position_buckets": 4, "norm_rel_ebd": "layer_norm", "share_att_key": True}
        shape |= {"type_vocab_size": 0}
    shared = {"vocab_size": 300, "max_position_embeddings": 40, "pad_token_id": 1}
    return AutoConfig.for_model(model_type, **shared, **shape)


def text_encoder(model_type: str, **overrides: Any) -> TextEncoder:
    torch.manual_seed(1)
    joint = MmsrConfig.from_preset(
        "tiny", fusion="text_only", text_encoder=text_config(model_type), **overrides
    )
    encoder = TextEncoder(joint).eval()
    for parameter in encoder.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_normal_(parameter)
    return encoder


@pytest.mark.parametrize("mix", [False, True])
@pytest.mark.parametrize("model_type", TEXT_TYPES)
@torch.no_grad()
def test_text_is_what_transformers_makes_of_it_wherever_padding_stands(model_type: str, mix: bool):
    encoder = text_encoder(model_type, text_layer_mix=mix)
    assert not any("pooler" in name for name, _ in encoder.named_parameters())
    ids = torch.randint(5, 60, (1, 6))
    expected = encoder.model(input_ids=ids, output_hidden_states=True)
    left, right = nn.functional.pad(ids, (4, 0), value=33), nn.functional.pad(ids, (0, 4), value=44)
    mask = torch.tensor([[0] * 4 + [1] * 6, [1] * 6 + [0] * 4, [0] * 10])
    encoded = encoder(torch.cat([left, right, right]), mask, output_hidden_states=True)
    assert encoded.mask.tolist() == [[1] * 6 + [0] * 4] * 2 + [[0] * 10]
    for index in (0, 1):
        assert_close(encoded.states[index, :6, -1], expected.last_hidden_state[0], **TIGHT)
        for layer in range(encoder.num_states - 1):
            assert_close(encoded.states[index, :6, layer], expected.hidden_states[layer][0], **TIGHT)
        for of_batch, of_row in zip(encoded.hidden_states, expected.hidden_states, strict=True):
            assert_close(of_batch[index, :6], of_row[0], **TIGHT)
    assert encoded.states.shape == (3, 10, encoder.num_states, 32) and encoded.states.isfinite().all()
    assert encoder.num_states == (3 if mix else 1)


@torch.no_grad()
def test_padding_is_the_text_encoders_own_token():
    """RoBERTa's kind gives a padding token no position; the joint model's may belong to a decoder."""
    encoder = text_encoder("roberta", pad_token_id=0)
    seen = []
    encoder.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
    )
    encoder(torch.tensor([[7, 8, 9]]), torch.tensor([[1, 1, 0]]))
    assert seen[0].tolist() == [[7, 8, 1]]


@pytest.mark.parametrize(
    ("model_type", "what"),
    [("t5", "an encoder-decoder"), ("mt5", "an encoder-decoder"), ("hubert", "no text encoder")],
)
def test_what_is_no_text_encoder_is_refused(model_type: str, what: str, tmp_path: Path):
    config = AutoConfig.for_model(model_type)
    joint = MmsrConfig.from_preset("tiny", fusion="text_only", text_encoder=config, rationale_format="none")
    message = f"text_encoder has model_type='{model_type}', which is {what}; accepted: a text encoder"
    with pytest.raises(ValueError, match=message):
        TextEncoder(joint)
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        TextEncoder.load(tmp_path)


@pytest.mark.slow
@torch.no_grad()
def test_the_real_e5_equals_transformers(shared_models: Path):
    folder = shared_models / "multilingual-e5-small-30k"
    model = MmsrForSentimentReasoning.from_encoders(text=folder, fusion="text_only").eval()
    texts = ["query: bác sĩ rất tận tâm với tôi", "query: kind"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
    encoded = model.encoder.text_encoder(batch["input_ids"], batch["attention_mask"])
    whole = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    for row, text in enumerate(texts):
        expected = whole(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        assert encoded.mask[row].sum() == len(expected)
        assert_close(encoded.states[row, : len(expected), 0], expected, atol=1e-4, rtol=1e-3)


# ---------------------------------------------------------------------- families in the whole model


AUDIO_FAMILIES: dict[str, Callable[[], Any]] = {
    "wav2vec2-base": lambda: speech_config("wav2vec2", "group"),
    "xls-r": lambda: speech_config("wav2vec2", "layer"),
    "hubert": lambda: speech_config("hubert", "group"),
    "wavlm": lambda: speech_config("wavlm", "group"),
    "data2vec-audio": lambda: speech_config("data2vec-audio"),
    "whisper": whisper_config,
    "moonshine": lambda: speech_config("moonshine"),
    "timm-cnn": lambda: timm_config("mobilenetv3_small_050"),
    "timm-vit": lambda: timm_config("test_vit"),
}
# what has no part in the states: wav2vec2's mask (without SpecAugment) and Whisper's fixed positions
NO_GRADIENT = ("masked_spec_embed", "embed_positions")


def check_gradient_and_reload(
    model: MmsrForSentimentReasoning, part: str, batch: dict[str, Tensor], folder: Path
) -> None:
    logits = model(**batch).sentiment_logits
    logits.square().sum().backward()
    for name, parameter in getattr(model.encoder, part).model.named_parameters():
        if not any(known in name for known in NO_GRADIENT):
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all() and parameter.grad.any(), name
    model.save_pretrained(folder)
    again = MmsrForSentimentReasoning.from_pretrained(folder).eval()
    assert torch.equal(again(**batch).sentiment_logits, logits)


@pytest.mark.parametrize(
    ("family", "mix"),
    [(name, mix) for name in AUDIO_FAMILIES for mix in (False, True) if not (mix and name == "timm-cnn")],
)
def test_every_audio_family_learns_and_reloads(
    make_model: Callable[..., MmsrForSentimentReasoning],
    batch: dict[str, Tensor],
    tmp_path: Path,
    family: str,
    mix: bool,
):
    window = {"audio_window_seconds": 0.5} if family == "whisper" else {}
    config = AUDIO_FAMILIES[family]()
    model = make_model(
        audio_encoder=config, audio_layer_mix=mix, rationale_format="none", dropout=0.0, **window
    )
    batch["input_values_mask"][1, 2500:] = 0
    check_gradient_and_reload(model, "audio_encoder", batch, tmp_path)


@pytest.mark.parametrize("mix", [False, True])
@pytest.mark.parametrize("model_type", TEXT_TYPES)
def test_every_text_family_learns_and_reloads(
    make_model: Callable[..., MmsrForSentimentReasoning],
    batch: dict[str, Tensor],
    tmp_path: Path,
    model_type: str,
    mix: bool,
):
    model = make_model(text_encoder=text_config(model_type), text_layer_mix=mix, rationale_format="none")
    batch["attention_mask"][1, 4:] = 0
    check_gradient_and_reload(model, "text_encoder", batch, tmp_path)


def test_a_pretrained_moonshine_gives_its_encoder(tmp_path: Path):
    whole = MoonshineModel(speech_config("moonshine"))
    whole.save_pretrained(tmp_path)
    model = MmsrForSentimentReasoning.from_encoders(audio=tmp_path, fusion="audio_only")
    built = model.encoder.audio_encoder.model.state_dict()
    expected = whole.get_encoder().state_dict()
    assert built.keys() == expected.keys()
    assert all(torch.equal(built[name], weight) for name, weight in expected.items())


# ---------------------------------------------------------------------- pieces


def test_layer_mix_is_a_softmax_weighted_sum_of_normed_layers():
    states = torch.randn(2, 5, 3, 8)
    mix = LayerMix(3)
    with torch.no_grad():
        mix.weights.copy_(torch.tensor([0.3, -1.0, 2.0]))
    shares = torch.tensor([0.3, -1.0, 2.0]).exp()
    centred = states - states.mean(-1, keepdim=True)
    normed = centred / (states.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    expected = sum(share * normed[:, :, i] for i, share in enumerate(shares / shares.sum()))
    assert_close(mix(states), expected)
    assert torch.equal(LayerMix(1)(states[:, :, :1]), states[:, :, 0])


def test_padding_moves_behind_and_becomes_zero():
    values = torch.tensor([[torch.nan, 7.0, 8.0], [1.0, torch.nan, torch.inf], [4.0, 5.0, 6.0]])
    mask = torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 0]])
    moved, moved_mask = to_front(values, mask)
    assert moved.tolist() == [[7.0, 8.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert moved_mask.tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 0]]
    wide, wide_mask = to_front(values[:, :, None].expand(-1, -1, 2), mask)
    assert torch.equal(wide, moved[:, :, None].expand(-1, -1, 2)) and torch.equal(wide_mask, moved_mask)


@pytest.mark.parametrize(
    ("values", "mask", "given", "accepted"),
    [
        ("input_ids", "attention_mask", "[3, 7]", "[3, 7]"),
        ("inputs_embeds", "attention_mask", "[3, 7, 32]", "[3, 7]"),
        ("input_values", "input_values_mask", "[3, 4000]", "[3, 4000]"),
    ],
)
def test_a_mask_of_another_length_is_refused(
    make_model: Callable[..., MmsrForSentimentReasoning],
    batch: dict[str, Tensor],
    values: str,
    mask: str,
    given: str,
    accepted: str,
):
    """A shorter one cut what it masks off without a word."""
    if values == "inputs_embeds":
        batch["inputs_embeds"] = torch.randn(*batch.pop("input_ids").shape, 32)
    batch[mask] = batch[mask][:, :4]
    message = f"{mask} has shape [3, 4], and {values} {given}; accepted: a mask of shape {accepted}"
    with pytest.raises(ValueError, match=re.escape(message)):
        make_model(rationale_format="none")(**batch)


def test_every_speech_encoder_is_known_to_transformers():
    for model_type, kind in AUDIO_ENCODERS.items():
        config = AutoConfig.for_model(model_type)
        assert audio_encoder_class(config) is kind
        assert type(config) in AutoModel._model_mapping or isinstance(config, TimmAudioConfig)

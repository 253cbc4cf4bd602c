import logging
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
    WhisperFeatureExtractor,
    WhisperModel,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from mmsr.model.configuration import MmsrConfig
from mmsr.model.encoders.base import AudioEncoder
from mmsr.model.encoders.registry import load_audio_encoder
from mmsr.model.encoders.spectrogram import TimmAudioEncoder, WhisperAudioEncoder
from mmsr.model.modeling import MmsrForSentimentReasoning

TIGHT = {"atol": 2e-5, "rtol": 1e-4}


def ones(values: Tensor) -> Tensor:
    return torch.ones_like(values).long()


RANGES: list[dict[str, float]] = [{}, {"audio_dynamic_range": 4.0}]


@pytest.fixture
def whisper(
    make_config: Callable[..., Any], make_encoder: Callable[..., AudioEncoder]
) -> WhisperAudioEncoder:
    encoder = make_encoder(make_config("whisper"), attention="sdpa")
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
def test_a_smaller_dynamic_range_lifts_the_floor(
    make_config: Callable[..., Any], make_encoder: Callable[..., AudioEncoder]
):
    """So that a clean and a noisy room look alike; Whisper's own range is the default, to the byte."""

    def log_mel(values: Tensor, **settings: float) -> Tensor:
        return make_encoder(make_config("whisper"), audio_window_seconds=1.0, **settings).log_mel(values)

    clip = torch.zeros(1, 16_000)
    clip[0, 4000:8000] = 0.3 * torch.sin(torch.arange(4000) * 0.3)
    noisy = clip + 3e-4 * torch.randn(1, 16_000)
    own = log_mel(clip)
    assert torch.equal(own, log_mel(clip, audio_dynamic_range=8.0))
    for decades in (8.0, 4.0, 2.5):
        found = log_mel(clip, audio_dynamic_range=decades)
        floor = own.max() - decades / 4
        assert_close(found.min(), floor)
        assert_close(found, own.clamp(min=floor))
    noise = [(log_mel(noisy, **given) - log_mel(clip, **given)).abs().mean() for given in RANGES]
    assert noise[1] < 0.05 * noise[0]


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
def test_a_short_window_is_the_first_part_of_whisper(
    make_config: Callable[..., Any], make_encoder: Callable[..., AudioEncoder]
):
    """Transformers' own encoder, built with 100 positions, on its own features of 2 s: rows of 1 and 3 s."""
    encoder = make_encoder(make_config("whisper"), audio_window_seconds=2.0, audio_layer_mix=True)
    short = WhisperEncoder(make_config("whisper", max_source_positions=100))
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
def test_whisper_is_one_graph_with_a_log_mel_in_float32(
    make_config: Callable[..., Any], make_encoder: Callable[..., AudioEncoder]
):
    """Compiled, it encodes the windows too that row 1 does not reach."""
    torch.compiler.reset()
    encoder = make_encoder(make_config("whisper"), audio_window_seconds=0.1)
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


TIMM = ("resnet10t", "test_vit")


def random_timm(
    make_encoder: Callable[..., AudioEncoder],
    make_config: Callable[..., Any],
    architecture: str,
    **overrides: Any,
) -> Any:
    """With running statistics of a batch norm that has seen something."""
    encoder = make_encoder(make_config("timm", architecture), **overrides)
    for name, buffer in encoder.model.named_buffers():
        if name.endswith("running_mean"):
            nn.init.normal_(buffer, std=0.1)
    return encoder


@torch.no_grad()
def test_a_log_mel_is_torchaudios(make_config: Callable[..., Any], make_encoder: Callable[..., AudioEncoder]):
    transforms = pytest.importorskip("torchaudio.transforms", reason="needs mmsr[audio]")
    encoder = random_timm(make_encoder, make_config, "resnet10t")
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
    make_config: Callable[..., Any], make_encoder: Callable[..., AudioEncoder], architecture: str
):
    encoder = random_timm(make_encoder, make_config, architecture)
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
    make_config: Callable[..., Any],
    make_encoder: Callable[..., AudioEncoder],
    name: str,
    mix: bool,
    step: int,
):
    """Windows of .64 s; padding left in row 0 and right in row 1, NaN in both; row 3 is absent."""
    if name == "whisper":
        encoder = make_encoder(make_config("whisper"), audio_window_seconds=0.64, audio_layer_mix=mix)
    else:
        encoder = random_timm(make_encoder, make_config, name, audio_layer_mix=mix)
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


def test_a_frozen_timm_model_counts_no_statistics(
    make_config: Callable[..., Any], make_encoder: Callable[..., AudioEncoder]
):
    encoder = random_timm(make_encoder, make_config, "resnet10t")
    values = torch.randn(2, 10_240)
    before = {name: buffer.clone() for name, buffer in encoder.model.named_buffers()}
    encoder.requires_grad_(False).train()
    frozen = encoder(values, ones(values)).states
    assert all(torch.equal(buffer, before[name]) for name, buffer in encoder.model.named_buffers())
    encoder.requires_grad_(True).train()
    assert not torch.allclose(encoder(values, ones(values)).states, frozen)


def test_a_layer_mix_needs_layers_of_one_shape(
    make_config: Callable[..., Any], make_encoder: Callable[..., AudioEncoder]
):
    with pytest.raises(
        ValueError, match="audio_layer_mix=True: the stages of timm's 'resnet10t' differ .*; accepted: False"
    ):
        make_encoder(make_config("timm", "resnet10t"), audio_layer_mix=True)
    assert make_encoder(make_config("timm", "test_vit"), audio_layer_mix=True).num_states == 6


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
def test_a_timm_model_checkpoints_its_blocks(
    make_config: Callable[..., Any], make_encoder: Callable[..., AudioEncoder], architecture: str
):
    """The gradient stays; a block of the first stage runs again in the backward pass."""
    encoder = random_timm(make_encoder, make_config, architecture)
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


def test_a_timm_model_without_checkpointing_is_logged(
    make_config: Callable[..., Any],
    make_encoder: Callable[..., AudioEncoder],
    caplog: pytest.LogCaptureFixture,
):
    encoder = random_timm(make_encoder, make_config, "resnet10t")
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

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import AutoConfig, AutoModel, WhisperFeatureExtractor, WhisperModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from mmsr.model.configuration import MmsrConfig
from mmsr.model.encoders import (
    AUDIO_ENCODERS,
    AudioEncoder,
    LayerMix,
    TextEncoder,
    WhisperAudioEncoder,
    audio_encoder_class,
    to_front,
)

WAVEFORM_TYPES = [name for name in AUDIO_ENCODERS if name != "whisper"]
FRONT_ENDS = [(name, "layer") for name in WAVEFORM_TYPES] + [
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
FIELD = 330  # samples that the first frame of this front end needs


def speech_config(model_type: str, front_end: str = "layer", **overrides: Any) -> Any:
    shape = {**LIKE_TINY, "num_conv_pos_embeddings": 3 if model_type == "data2vec-audio" else 16}
    if model_type == "data2vec-audio":
        shape["conv_pos_kernel_size"] = 5
    else:
        shape |= {"feat_extract_norm": front_end, "do_stable_layer_norm": front_end == "layer"}
    return AutoConfig.for_model(model_type, **{**shape, **overrides})


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


@pytest.mark.parametrize(("model_type", "front_end"), FRONT_ENDS)
@torch.no_grad()
def test_a_row_does_not_depend_on_its_batch_nor_on_its_padding(
    make_encoder: Callable[..., AudioEncoder], model_type: str, front_end: str
):
    """Padding left in row 0 and right in row 1, NaN in both; row 2 is whole, row 3 absent."""
    encoder = make_encoder(speech_config(model_type, front_end))
    flags = {"output_hidden_states": True, "output_attentions": True}
    values, mask = torch.randn(4, 4000), torch.ones(4, 4000, dtype=torch.long)
    mask[0, :1500] = mask[1, 2100:] = mask[3] = 0
    batch = encoder(values.masked_fill(mask == 0, torch.nan), mask, **flags)
    assert batch.states.isfinite().all()
    assert batch.mask[3].sum() == 0
    for index, alone in enumerate((values[0, 1500:], values[1, :2100], values[2])):
        single = encoder(alone[None], ones(alone[None]), **flags)
        frames = single.mask.shape[1]
        assert single.mask.all() and batch.mask[index].tolist() == [1] * frames + [0] * (12 - frames)
        assert_close(batch.states[index, :frames], single.states[0], **TIGHT)
        for of_batch, of_row in zip(batch.hidden_states, single.hidden_states, strict=True):
            assert_close(of_batch[index, :frames], of_row[0], **TIGHT)
        for of_batch, of_row in zip(batch.attentions, single.attentions, strict=True):
            assert_close(of_batch[index, :, :frames, :frames], of_row[0], **TIGHT)


@pytest.mark.parametrize("front_end", ["layer", "group"])
@torch.no_grad()
def test_a_clip_shorter_than_a_frame_is_filled_with_silence(
    make_encoder: Callable[..., AudioEncoder], front_end: str
):
    encoder = make_encoder(speech_config("wav2vec2", front_end))
    assert encoder.receptive_field == FIELD
    short = torch.randn(1, 100)
    filled = nn.functional.pad(short, (0, FIELD - 100))
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
    """A tiny encoder at the real window of 30 s."""
    config = AutoConfig.for_model(
        "whisper",
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
    )
    encoder = make_encoder(config, attention="sdpa")
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


# ---------------------------------------------------------------------- text


def text_encoder(model_type: str, **overrides: Any) -> TextEncoder:
    torch.manual_seed(1)
    shape = {name: LIKE_TINY[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    config = AutoConfig.for_model(
        model_type, vocab_size=60, intermediate_size=37, max_position_embeddings=40, pad_token_id=1, **shape
    )
    joint = MmsrConfig.from_preset("tiny", fusion="text_only", text_encoder=config, **overrides)
    encoder = TextEncoder(joint).eval()
    for parameter in encoder.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_normal_(parameter)
    return encoder


@pytest.mark.parametrize("model_type", ["xlm-roberta", "bert", "roberta", "electra"])
@torch.no_grad()
def test_text_is_what_transformers_makes_of_it_wherever_padding_stands(model_type: str):
    encoder = text_encoder(model_type, text_layer_mix=True)
    assert not any("pooler" in name for name, _ in encoder.named_parameters())
    ids = torch.randint(5, 60, (1, 6))
    expected = encoder.model(input_ids=ids, output_hidden_states=True)
    left, right = nn.functional.pad(ids, (4, 0), value=33), nn.functional.pad(ids, (0, 4), value=44)
    mask = torch.tensor([[0] * 4 + [1] * 6, [1] * 6 + [0] * 4, [0] * 10])
    encoded = encoder(torch.cat([left, right, right]), mask)
    assert encoded.mask.tolist() == [[1] * 6 + [0] * 4] * 2 + [[0] * 10]
    for index in (0, 1):
        assert_close(encoded.states[index, :6, -1], expected.last_hidden_state[0], **TIGHT)
        assert_close(encoded.states[index, :6, 0], expected.hidden_states[0][0], **TIGHT)
    assert encoded.states.shape == (3, 10, encoder.num_states, 32) and encoded.states.isfinite().all()


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


def test_every_speech_encoder_is_known_to_transformers():
    for model_type, kind in AUDIO_ENCODERS.items():
        config = AutoConfig.for_model(model_type)
        assert audio_encoder_class(config) is kind
        assert type(config) in AutoModel._model_mapping

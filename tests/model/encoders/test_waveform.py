from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import (
    MoonshineModel,
)

from mmsr.model.configuration import MmsrConfig
from mmsr.model.encoders.base import AudioEncoder
from mmsr.model.encoders.registry import AUDIO_ENCODERS
from mmsr.model.encoders.waveform import WideConv1d
from mmsr.model.modeling import MmsrForSentimentReasoning

WAVEFORM_TYPES = [name for name in AUDIO_ENCODERS if name not in ("whisper", "mmsr-timm-audio")]


FRONT_ENDS = [(name, "layer") for name in WAVEFORM_TYPES if name != "moonshine"] + [
    (name, "group") for name in WAVEFORM_TYPES if name != "data2vec-audio"
]


TIGHT = {"atol": 2e-5, "rtol": 1e-4}


def ones(values: Tensor) -> Tensor:
    return torch.ones_like(values).long()


@pytest.mark.parametrize(("model_type", "front_end"), FRONT_ENDS)
@torch.no_grad()
def test_an_unpadded_batch_is_what_transformers_makes_of_it(
    make_config: Callable[..., Any],
    make_encoder: Callable[..., AudioEncoder],
    model_type: str,
    front_end: str,
):
    encoder = make_encoder(make_config(model_type, front_end), audio_layer_mix=True)
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
    make_config: Callable[..., Any],
    make_encoder: Callable[..., AudioEncoder],
    model_type: str,
    front_end: str,
    mix: bool,
):
    """Padding left in row 0 and right in row 1, NaN in both; row 2 is whole, row 3 absent."""
    encoder = make_encoder(make_config(model_type, front_end), audio_layer_mix=mix)
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


@torch.no_grad()
def test_rows_of_similar_length_are_encoded_together(
    make_config: Callable[..., Any], make_encoder: Callable[..., AudioEncoder], monkeypatch
):
    """In evaluation on a CPU; the states are those of one padded batch."""
    encoder: Any = make_encoder(make_config("wav2vec2", "layer"), audio_layer_mix=True)
    lengths = torch.tensor([4000, 900, 3900, 0, 1000])
    mask = (torch.arange(4000) < lengths[:, None]).long()
    values = torch.randn(5, 4000) * mask
    shapes: list[tuple[int, int]] = []
    one_batch = encoder._encode_batch

    def seen(values: Tensor, mask: Tensor, **outputs: bool) -> Any:
        shapes.append((values.shape[0], values.shape[1]))
        return one_batch(values, mask, **outputs)

    encoder._encode_batch = seen
    together = encoder(values, mask)
    assert shapes == [(5, 4000)]
    monkeypatch.setattr("mmsr.model.encoders.waveform._AT_ONCE", 8000)
    grouped = encoder(values, mask)
    assert shapes[1:] == [(3, 1000), (2, 4000)]
    assert torch.equal(grouped.mask, together.mask)
    real = together.mask == 1
    assert_close(grouped.states[real], together.states[real], **TIGHT)
    shapes.clear()
    encoder.train()
    encoder(values, mask)
    assert shapes == [(5, 4000)]


@pytest.mark.parametrize(
    ("model_type", "front_end", "field"),
    [("wav2vec2", "layer", 330), ("wav2vec2", "group", 330), ("moonshine", "group", 895)],
)
@torch.no_grad()
def test_a_clip_shorter_than_a_frame_is_filled_with_silence(
    make_config: Callable[..., Any],
    make_encoder: Callable[..., AudioEncoder],
    model_type: str,
    front_end: str,
    field: int,
):
    encoder = make_encoder(make_config(model_type, front_end))
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
    make_config: Callable[..., Any], make_encoder: Callable[..., AudioEncoder], front_end: str
):
    """Transformers raises where a clip is shorter than the mask of 10 frames."""
    config = make_config("wav2vec2", front_end, mask_time_prob=0.5)
    encoder = make_encoder(config).train()
    values, mask = torch.randn(3, 6400), torch.ones(3, 6400, dtype=torch.long)
    mask[1, 500:] = mask[2] = 0
    encoded = encoder(values, mask)
    encoded.states.sum().backward()
    assert encoder.model.masked_spec_embed.grad.abs().sum() > 0  # the whole clip was masked
    assert encoder(values[1:, :500], mask[1:, :500]).states.shape[1] == 1


@pytest.mark.parametrize("model_type", [name for name in WAVEFORM_TYPES if name != "moonshine"])
def test_no_layer_is_dropped(
    make_config: Callable[..., Any], make_encoder: Callable[..., AudioEncoder], model_type: str
):
    """LayerDrop, whose states the mix would lack, is .1 in most published configs."""
    encoder = make_encoder(make_config(model_type, layerdrop=0.9), audio_layer_mix=True).train()
    values = torch.randn(2, 4000)
    for _ in range(3):
        assert encoder(values, ones(values)).states.shape[2] == 3


def test_frames_of_an_adapter_are_refused(
    make_config: Callable[..., Any], make_encoder: Callable[..., AudioEncoder]
):
    with pytest.raises(ValueError, match="add_adapter=True, .*accepted: False, with audio_stride"):
        make_encoder(make_config("wav2vec2", add_adapter=True))


def test_a_pretrained_moonshine_gives_its_encoder(make_config: Callable[..., Any], tmp_path: Path):
    whole = MoonshineModel(make_config("moonshine"))
    whole.save_pretrained(tmp_path)
    model = MmsrForSentimentReasoning.from_encoders(audio=tmp_path, fusion="audio_only")
    built = model.encoder.audio_encoder.model.state_dict()
    expected = whole.get_encoder().state_dict()
    assert built.keys() == expected.keys()
    assert all(torch.equal(built[name], weight) for name, weight in expected.items())


def test_wide_strided_convolutions_are_trained_in_float32_on_cpus():
    front_end = nn.Sequential(
        nn.Conv1d(1, 48, 10, 5),
        nn.Conv1d(48, 32, 8, 4),
        nn.Conv1d(32, 32, 3, 2),
        nn.Conv1d(32, 32, 16, padding=8),
    )
    WideConv1d.replace(front_end)
    assert [type(conv) is WideConv1d for conv in front_end] == [False, True, False, False]
    wide = front_end[1]
    values = torch.randn(3, 48, 397)
    wide(values).square().mean().backward()
    expected, wide.weight.grad = wide.weight.grad, None

    with torch.autocast("cpu", dtype=torch.bfloat16):
        wide(values).square().mean().backward()

    assert_close(wide.weight.grad, expected, rtol=0, atol=0)
    assert wide(values.bfloat16()).dtype == torch.bfloat16
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert wide(values).dtype == torch.bfloat16


def test_the_presets_train_their_wide_convolutions_in_float32():
    encoder = MmsrForSentimentReasoning(MmsrConfig.from_preset("tiny")).encoder.audio_encoder
    kernels = [module.kernel_size[0] for module in encoder.modules() if isinstance(module, WideConv1d)]
    assert kernels == [kernel for kernel in encoder.config.conv_kernel[1:] if kernel > 3] != []

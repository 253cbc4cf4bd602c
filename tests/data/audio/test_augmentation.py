import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from torch import Tensor

from mmsr.data.audio.augmentation import (
    AUGMENTATIONS,
    Augmentation,
    Augmentations,
    BandLimit,
    Codec,
    Equalizer,
    Gain,
    Noise,
    NoiseGate,
    Reverb,
    Silence,
    SpecAugment,
    Speed,
    TimeMask,
    row_generator,
)
from mmsr.data.audio.decoding import AudioError

pytest.importorskip("torchaudio", reason="augmentation computes with torchaudio: pip install 'mmsr[audio]'")
WAVEFORM = [name for name, kind in AUGMENTATIONS.items() if kind.of == "waveform"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def voice(*, seconds: float = 1.0, hertz: float = 300.0, peak: float = 0.2) -> Tensor:
    """A tone whose loudness goes up and down four times a second, as syllables do."""
    time = torch.arange(round(16000 * seconds)) / 16000
    return peak * torch.sin(2 * torch.pi * hertz * time) * (0.55 - 0.45 * torch.cos(2 * torch.pi * 4 * time))


def ratio_db(signal: Tensor, noise: Tensor) -> float:
    return float(10 * torch.log10(signal.square().sum() / noise.square().sum()))


def main_frequency(samples: Tensor) -> float:
    return float(torch.fft.rfftfreq(len(samples), 1 / 16000)[torch.fft.rfft(samples).abs().argmax()])


def of(name: str, **options: Any) -> Augmentation:
    kind = AUGMENTATIONS[name]
    needed = {"threshold_db": (-15.0, -5.0)} if name == "noise_gate" else {}  # `voice` is loud throughout
    return kind(**{"p": 1.0, **needed, **options})


@pytest.mark.parametrize("name", WAVEFORM)
def test_same_generator_same_samples_and_another_seed_others(name: str):
    part, clip = of(name), voice()
    before = torch.get_rng_state()
    first = part(clip, generator=seeded(1))
    assert torch.equal(torch.get_rng_state(), before)  # nothing is drawn elsewhere
    assert torch.equal(part(clip, generator=seeded(1)), first)
    others = [part(clip, generator=seeded(seed)) for seed in range(2, 8)]
    assert any(not torch.equal(other, first) for other in others)
    assert not torch.equal(first, clip)
    assert torch.equal(clip, voice())  # and the input stays


@pytest.mark.parametrize("name", WAVEFORM)
def test_p_is_how_often_and_eval_is_never(name: str):
    clip = voice(seconds=0.2)
    assert torch.equal(of(name, p=0)(clip, generator=seeded()), clip)
    assert torch.equal(of(name).eval()(clip, generator=seeded()), clip)
    if name in ("noise", "gain"):  # which change a clip whatever they draw
        part, generator = of(name, p=0.3), seeded()
        changed = sum(not torch.equal(part(clip, generator=generator), clip) for _ in range(300))
        assert changed == pytest.approx(90, abs=25)


@pytest.mark.parametrize("name", WAVEFORM)
def test_silence_short_and_loud_clips(name: str):
    part = of(name)
    for seed in range(6):
        silent = part(torch.zeros(8000), generator=seeded(seed))
        assert silent.abs().max() < 1e-3  # a codec dithers
        for length in (1, 2, 50):
            short = part(torch.full((length,), 0.5), generator=seeded(seed))
            assert short.isfinite().all() and -3 <= len(short) - length <= 3 + 16000 * part.added_seconds
        loud = part(voice(peak=1.0), generator=seeded(seed))
        assert loud.isfinite().all() and loud.abs().max() <= 1


def test_a_waveform_has_one_axis():
    with pytest.raises(ValueError, match=r"row has shape \[2, 9\]; accepted: \[s\]"):
        Gain()(torch.zeros(2, 9))


def test_no_gradient_is_kept():
    assert not Gain(p=1)(voice().requires_grad_()).requires_grad


@pytest.mark.parametrize("color", ["white", "pink"])
@pytest.mark.parametrize("wanted", [-5.0, 0.0, 12.5, 30.0])
def test_the_signal_to_noise_ratio_is_reached(color: Any, wanted: float):
    part = Noise(snr_db=(wanted, wanted), colors=[color], p=1)
    clip = voice(seconds=4, peak=0.01)
    noisy = part(clip, generator=seeded())
    assert ratio_db(clip, noisy - clip) == pytest.approx(wanted, abs=0.1)
    loud = part(clip * 100, generator=seeded())  # beyond full scale: scaled down, all ratios as they were
    assert loud.abs().max() == 1
    torch.testing.assert_close(loud / loud.norm(), noisy / noisy.norm(), atol=1e-6, rtol=1e-4)


def test_pink_noise_falls_by_three_db_an_octave():
    clip = voice(seconds=10, hertz=0.5)
    noise = Noise(snr_db=(0, 0), colors=["pink"], p=1)(clip, generator=seeded()) - clip
    power = torch.fft.rfft(noise).abs().square()
    octaves = [10 * torch.log10(power[10 * low : 20 * low].mean()) for low in (250, 500, 1000, 2000)]
    for one, other in zip(octaves, octaves[1:], strict=False):
        assert one - other == pytest.approx(3, abs=0.5)


def test_noise_comes_from_a_folder(tmp_path: Path):
    (tmp_path / "crowd").mkdir()
    (tmp_path / "README").write_text("no sound")
    hum = voice(hertz=1000, seconds=0.3).numpy()
    soundfile.write(tmp_path / "crowd" / "hum.wav", np.concatenate([np.zeros(80000), hum]), 16000)
    part = Noise(snr_db=(10, 10), folder=str(tmp_path), p=1)
    for seed in range(5):  # mostly in the pause of the recording
        clip = voice(hertz=200)
        noisy = part(clip, generator=seeded(seed))
        assert ratio_db(clip, noisy - clip) == pytest.approx(10, abs=0.1)
        assert main_frequency(noisy - clip) == pytest.approx(1000, abs=20)
    soundfile.write(tmp_path / "crowd" / "hum.wav", np.zeros(800), 16000)
    with pytest.raises(AudioError, match=r"hum\.wav: is silent; accepted: noise"):
        part(clip, generator=seeded())


def test_a_room_keeps_energy_and_length_and_fills_pauses():
    clip = torch.cat([voice(seconds=0.5), torch.zeros(8000)])
    for seed in range(5):
        wet = Reverb(rt60=(0.3, 0.3), drr_db=(0, 0), p=1)(clip, generator=seeded(seed))
        assert len(wet) == len(clip)
        torch.testing.assert_close(wet.norm(), clip.norm(), rtol=1e-4, atol=0)
        assert wet[8000:9000].norm() > 0.02 * wet[:8000].norm()
        assert wet[8000 + 4800 :].norm() < 1e-3 * wet[:8000].norm()  # 60 dB lower after rt60
        first = int((wet.abs() > 1e-6).float().argmax())
        assert first == int((clip.abs() > 1e-6).float().argmax())  # the direct sound comes in time


def test_a_room_comes_from_a_folder(tmp_path: Path):
    response = np.zeros(2000)
    response[500], response[500 + 800] = 0.8, 0.4
    soundfile.write(tmp_path / "hall.flac", response, 16000)
    clip = torch.zeros(4000)
    clip[100] = 0.5
    wet = Reverb(folder=str(tmp_path), p=1)(clip, generator=seeded())
    assert wet.abs().topk(2).indices.tolist() == [100, 900]
    assert wet[900] / wet[100] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("factor", [0.57, 0.9, 1.1])
def test_speed_changes_length_and_pitch_by_the_factor(factor: float):
    part = Speed(factors=[factor], p=1)
    faster = part(voice(seconds=2), generator=seeded())
    assert len(faster) == pytest.approx(32000 / factor, abs=1)
    assert main_frequency(faster) == pytest.approx(300 * factor, abs=1)
    assert part.stretch == pytest.approx(max(1, 1 / factor))


def test_pitch_moves_and_the_length_stays():
    part = of("pitch", semitones=(4, 4))
    shifted = part(voice(seconds=2), generator=seeded())
    assert len(shifted) == 32000
    assert main_frequency(shifted) == pytest.approx(300 * 2 ** (4 / 12), rel=0.02)


def test_gain_is_in_its_range_and_ends_at_full_scale():
    clip = voice()
    changes = [20 * torch.log10(Gain(p=1)(clip, generator=seeded(s)).norm() / clip.norm()) for s in range(99)]
    assert -3 <= min(changes) < -2.5 and 2.5 < max(changes) <= 3
    assert Gain(db=(40, 40), p=1)(clip).abs().max() == 1


@pytest.mark.parametrize("kind", ["g711", "gsm", "mp3", "vorbis", "opus"])
def test_a_codec_is_heard_and_keeps_time(kind: str):
    clip = voice(seconds=0.7, hertz=500)
    coded = Codec(kinds=[kind], p=1)(clip)
    assert len(coded) == len(clip) and 8 < ratio_db(clip, coded - clip) < 60
    hiss = voice(hertz=6000)
    kept = Codec(kinds=[kind], p=1)(hiss).norm() / hiss.norm()
    assert (kept < 0.05) == (kind in ("g711", "gsm"))


def response_db(part: Augmentation, hertz: list[float], seed: int = 0) -> list[float]:
    """The gain of a filter at some frequencies in dB, up to a constant: what it makes of an impulse."""
    impulse = torch.zeros(16_000)
    impulse[8000] = 0.01
    gains = 20 * torch.fft.rfft(part(impulse, generator=seeded(seed))).abs().log10() + 40
    return [float(gains[round(place)]) for place in hertz]


def test_an_equalizer_has_a_smooth_curve_and_keeps_energy_and_time():
    octaves = [100 * 2 ** (step / 4) for step in range(25)]
    for seed in range(5):
        gains = response_db(Equalizer(db=(-9, 9), points=4, p=1), octaves, seed)
        assert 2 < max(gains) - min(gains) <= 18
        steps = [abs(one - other) for one, other in zip(gains, gains[1:], strict=False)]
        assert max(steps) < 18 / (np.log2(80) / 3) / 4 + 0.5  # no steeper than from end to end
        clip = voice()
        changed = Equalizer(db=(-9, 9), p=1)(clip, generator=seeded(seed))
        assert len(changed) == len(clip)
        torch.testing.assert_close(changed.norm(), clip.norm(), rtol=1e-4, atol=0)
    low, high = response_db(Equalizer(db=(-6, 6), points=2, p=1), [50, 100])
    assert low == pytest.approx(high, abs=0.05)  # below the first point it is level
    flat = Equalizer(db=(6, 6), p=1)(clip, generator=seeded())
    torch.testing.assert_close(flat, clip, atol=1e-6, rtol=1e-4)
    late = Equalizer(p=1)(torch.cat([clip, torch.zeros(8000)]), generator=seeded())
    assert late[-4000:].abs().max() < 1e-3 * late.abs().max()  # nothing comes round the end


def test_silence_is_put_before_and_after():
    row = torch.full((1600,), 0.5)
    part = Silence(seconds=(0.1, 0.4), p=1)
    padded = part(row, generator=row_generator(0, epoch=0, row_id="a"))
    spoken = padded.nonzero()[:, 0]
    before, after = int(spoken[0]), len(padded) - 1 - int(spoken[-1])
    assert torch.equal(padded[before : before + 1600], row)
    assert 1600 <= before <= 6400 and 1600 <= after <= 6400 and before != after
    assert torch.equal(Silence(seconds=(0, 0), p=1)(row), row)


def test_a_noise_gate_lowers_quiet_parts_alone():
    row = torch.cat([torch.full((3200,), 0.5), torch.full((3200,), 0.005)])  # 40 dB lower
    gated = NoiseGate(threshold_db=(-30, -30), ratio=(2, 2), p=1)(row)
    assert torch.allclose(gated[:2900], row[:2900])
    assert torch.allclose(gated[-2900:], row[-2900:] * 0.1)  # 10 dB below the threshold, hence 20 dB lower
    assert len(gated) == len(row)
    assert Augmentations({"silence": {"seconds": [0, 0.5]}}).longest(np.array([2.0])).tolist() == [3.0]
    assert not NoiseGate(p=1)(torch.zeros(5)).any()


def test_a_band_limit_cuts_beyond_its_band():
    part = BandLimit(low_hz=(200, 200), high_hz=(3400, 3400), p=1)
    low, cut, middle, cut_high, high = response_db(part, [50, 200, 1000, 3400, 6800])
    assert cut - middle == pytest.approx(-3, abs=0.1) and cut_high - middle == pytest.approx(-3, abs=0.1)
    assert low - middle == pytest.approx(-48, abs=1) and high - middle == pytest.approx(-24, abs=0.5)
    clip, hiss = voice(hertz=500), voice(hertz=7500)
    changed = part(clip + hiss, generator=seeded())
    assert main_frequency(changed) == 500 and len(changed) == len(clip)
    torch.testing.assert_close(changed.norm(), (clip + hiss).norm(), rtol=1e-4, atol=0)
    cuts = [response_db(BandLimit(p=1), [40, 1000, 7000], seed) for seed in range(20)]
    lows, highs = ([gains[place] - gains[1] for gains in cuts] for place in (0, 2))
    assert min(lows) < -40 < -20 < max(lows) < -3 and min(highs) < -20 and max(highs) > -6
    whole = BandLimit(low_hz=(0, 0), high_hz=(8000, 8000), p=1)
    torch.testing.assert_close(whole(clip, generator=seeded()), clip, atol=1e-4, rtol=1e-3)


def test_time_mask_silences_pieces_of_the_clip():
    clip = torch.ones(16000) * 0.1
    for seed in range(20):
        masked = TimeMask(count=2, seconds=0.1, p=1)(clip, generator=seeded(seed))
        assert set(masked.tolist()) <= {0.0, clip[0].item()}
        assert 0 < (masked == 0).sum() <= 3200
    assert (TimeMask(count=1, seconds=9, share=0.25, p=1)(clip, generator=seeded(1)) == 0).sum() <= 4000


@pytest.mark.parametrize("shape", [(3000, 2, 6), (3000, 6)])
def test_spec_augment_masks_frames_of_all_layers_even_in_half_precision(shape: tuple[int, ...]):
    states = torch.randn(shape).half()
    part = SpecAugment(time_masks=3, frames=50)
    masked = part(states, generator=seeded())
    assert masked.dtype == torch.float16 and masked.shape == states.shape
    gone = (masked != states).flatten(1)
    assert torch.equal(gone.all(dim=1), gone.any(dim=1)) and 0 < gone[:, 0].sum() <= 150
    for seed in range(30):  # half precision cannot count beyond 2048
        exact = part(states.float(), generator=seeded(seed)) != states.float()
        assert torch.equal(part(states, generator=seeded(seed)) != states, exact)
    assert len(masked[gone[:, 0]].unique()) == 1
    width = SpecAugment(time_masks=0, feature_masks=1, features=3, share=1)(states, generator=seeded(4))
    gone = (width != states).flatten(0, -2)
    assert torch.equal(gone.all(dim=0), gone.any(dim=0)) and 0 < gone[0].sum() <= 3


def test_a_config_builds_them_in_its_order():
    chain = Augmentations(
        {"reverb": {}, "noise": {"snr_db": [5, 20], "p": 1}, "speed": {"factors": [0.8], "p": 1}}
    )
    assert list(chain) == ["reverb", "noise", "speed"]
    assert chain.longest(np.array([2.0, 0.0])).tolist() == [2.5, 0.0]
    assert chain.names("waveform") == list(chain) and chain.names("states") == []
    clip = voice()
    generator, expected = seeded(5), clip
    for name in chain:
        expected = chain[name](expected, generator=generator)
    assert torch.equal(chain(clip, generator=seeded(5)), expected)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"nois": {}}, "augment: 'nois' is unknown; accepted: noise, reverb, speed,"),
        (
            {"noise": {"snr": 5}},
            "augment.noise: Option 'snr' is not accepted; accepted: snr_db, colors, folder, p",
        ),
        (
            {"noise": {"p": "often"}},
            'augment.noise: Parser key "p": Expected a .*float.* value: often; accepted',
        ),
        ({"noise": {"p": 2}}, "augment.noise: p is 2.0; accepted: a probability, from 0 to 1"),
        (
            {"noise": {"snr_db": [20, 5]}},
            r"noise: snr_db is \[20.0, 5.0\]; accepted: \[low, high\], low at most",
        ),
        ({"noise": {"colors": []}}, r"augment.noise: colors is \[\]; accepted: a list of white, pink"),
        (
            {"noise": {"folder": "nowhere"}},
            "augment.noise: folder nowhere is not a folder; accepted: a folder of",
        ),
        ({"reverb": {"rt60": [0, 1]}}, r"rt60 is \[0.0, 1.0\]; accepted: \[low, high\] of 0.01 or more"),
        (
            {"speed": {"factors": [0.955]}},
            r"factors is \[0.955\]; accepted: numbers from .5 to 2 in whole percents",
        ),
        ({"speed": {"factors": []}}, r"factors is \[\]; accepted"),
        ({"codec": {"kinds": ["lte"]}}, r"kinds is \['lte'\]; accepted: a list of g711, gsm,"),
        ({"equalizer": {"points": 1}}, "augment.equalizer: points is 1; accepted: 2 or more"),
        ({"equalizer": {"db": [3, -3]}}, r"equalizer: db is \[3.0, -3.0\]; accepted: \[low, high\], low at"),
        (
            {"band_limit": {"high_hz": [3000, 9000]}},
            r"high_hz is \[3000.0, 9000.0\]; accepted: \[low, high\] of 0 to 8000, low at most high",
        ),
        (
            {"band_limit": {"low_hz": [50, 4000]}},
            r"high_hz is \[3000.0, 8000.0\]; accepted: cuts above those of low_hz, 4000",
        ),
        ({"time_mask": {"share": 0}}, "augment.time_mask: share is 0.0; accepted: more than 0, up to 1"),
        ({"spec_augment": {"frames": 0}}, "augment.spec_augment: frames is 0; accepted: 1 or more"),
    ],
)
def test_bad_configs_are_named(config: dict[str, dict[str, Any]], text: str):
    with pytest.raises(ValueError, match=text):
        Augmentations(config)


def test_the_experiment_s_augmentations_can_be_built():
    path = Path(__file__).resolve().parents[3] / "experiments" / "robust.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))["data"]["augment"]
    assert Augmentations(config).names("waveform") == ["reverb", "noise", "codec"]


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    with pytest.raises(
        ValueError, match=r"augment.reverb: Reverb needs torchaudio: pip install 'mmsr\[audio\]'"
    ):
        Augmentations({"gain": {}, "codec": {}, "reverb": {}})


def test_a_row_s_draws_depend_on_seed_epoch_and_row_alone():
    draws = {
        (seed, epoch, row): torch.rand(3, generator=row_generator(seed, epoch=epoch, row_id=row)).tolist()
        for seed in (0, 1)
        for epoch in (0, 1)
        for row in ("a", "b")
    }
    assert len({tuple(values) for values in draws.values()}) == 8
    again = torch.rand(3, generator=row_generator(1, epoch=0, row_id="b", draw=0)).tolist()
    assert again == draws[1, 0, "b"]
    second = torch.rand(3, generator=row_generator(1, epoch=0, row_id="b", draw=1)).tolist()
    assert second not in draws.values()

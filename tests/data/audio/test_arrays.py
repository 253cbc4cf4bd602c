"""Samples as arrays: any type by its own range, or refused."""

import numpy as np
import pytest

from mmsr.data.audio.arrays import from_array
from mmsr.data.audio.decoding import Audio, AudioError

TONE = (0.5 * np.sin(np.arange(800) / 7)).astype(np.float32)


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32])
def test_integers_are_divided_by_their_full_scale(kind: type) -> None:
    samples = np.round(TONE * np.iinfo(kind).max).astype(kind)
    np.testing.assert_allclose(Audio()((samples, 16_000)), TONE, atol=0.01)


@pytest.mark.parametrize("kind", [np.int32, np.int64])
@pytest.mark.parametrize("bits", [16, 24])
def test_samples_of_fewer_bits_in_a_wider_type_keep_their_level(kind: type, bits: int) -> None:
    samples = np.round(TONE * (2 ** (bits - 1) - 1)).astype(kind)
    decoded = Audio().decode((samples, 16_000))
    np.testing.assert_allclose(decoded.samples, TONE, atol=1e-4)
    (note,) = decoded.notes
    assert note.code == "audio-integer-range" and f"read as samples of {bits} bits" in note.message


def test_samples_of_fewer_bits_at_the_top_of_a_wider_type_are_not_scaled_again() -> None:
    """As soundfile and scipy give 16 and 24 bits in int32."""
    quiet = np.round(TONE * 0.01 * 32767).astype(np.int32)
    for shift in (16, 8):
        decoded = Audio().decode((quiet << shift, 16_000))
        assert np.abs(decoded.samples).max() == pytest.approx(0.005 / (1 if shift == 16 else 256), rel=0.02)
        assert decoded.notes == ()
    assert not Audio()((np.zeros(80, dtype=np.int64), 16_000)).any()


def test_floats_of_any_width_are_read() -> None:
    for kind in (np.float16, np.float32, np.float64):
        np.testing.assert_allclose(Audio()((TONE.astype(kind), 16_000)), TONE, atol=1e-3)


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        (
            np.array([3, -5, 100], dtype=np.int64),
            "have type int64 and peak 100, which may be of 8 or of 16 bits",
        ),
        (np.array([1 << 40, 0]), "have type int64 and peak 1099511627776; accepted"),
        (np.zeros(9, dtype=np.uint16), "have type uint16; accepted: floats in"),
        (np.zeros(9, dtype=bool), "have type bool; accepted"),
        (np.zeros(9, dtype=complex), "have type complex128; accepted"),
        (np.array([1, None], dtype=object), "have type object; accepted"),
        (np.array(["a"]), "have type <U1; accepted"),
    ],
)
def test_what_has_no_clear_range_is_refused(samples: np.ndarray, text: str) -> None:
    with pytest.raises(AudioError, match=text):
        from_array((samples, 16_000))


@pytest.mark.parametrize("rate", [True, 0, -8000, 16_000.5, float("nan"), float("inf"), "16000", None])
def test_a_rate_is_a_whole_number_of_hz(rate: object) -> None:
    with pytest.raises(AudioError, match="rate is missing or no positive integer"):
        from_array((TONE, rate))
    assert from_array((TONE, 16_000.0))[1] == 16_000
    assert from_array((TONE, np.float64(16_000)))[1] == 16_000

"""Pictures of reports."""

import io
from functools import partial

import numpy as np
import pytest
from PIL import Image

from mmsr.evaluation.report.pictures import (
    INK,
    draw_attention,
    draw_modalities,
    draw_saliency,
    drawable,
    rendered,
)

RATE = 16_000


def test_times_under_an_attention_map_are_those_that_they_are_called(example) -> None:
    shown = {**example.attention, "waveform": np.zeros(int(1.9 * RATE), dtype=np.float32)}
    axes = draw_attention(shown).axes
    axes[2].figure.draw_without_rendering()
    ticks = [(tick.get_position()[0], tick.get_text()) for tick in axes[2].get_xticklabels()]
    assert len(ticks) > 4 and all(float(text) == pytest.approx(place) for place, text in ticks if text)


def test_pictures_take_the_readers_colours(run) -> None:
    document, _ = run
    picture = rendered(partial(draw_modalities, document["test"]), name="m", description="seed: 5")
    svg = picture.svg.decode()
    assert "currentColor" in svg and "prefers-color-scheme:dark" in svg and "seed: 5" in svg
    assert svg.count(INK) == 1, "the ink of a light page is named once, in the style that readers change"
    assert Image.open(io.BytesIO(picture.png)).text["Description"] == "seed: 5"
    assert picture == rendered(partial(draw_modalities, document["test"]), name="m", description="seed: 5")


def test_an_attention_map_that_does_not_fit_its_tokens_raises(example) -> None:
    example.attention["tokens"] = ["a", "b"]
    with pytest.raises(ValueError, match=r"attention of shape \(3, 20\) does not fit 2 tokens"):
        draw_attention(example.attention)


def test_letters_that_no_font_has_become_a_number() -> None:
    assert drawable("▁đau", 0) == "đau"
    assert drawable("$5$", 0) == r"\$5\$"
    assert drawable("\U000e0001", 3) == "#4"


def test_saliency_shows_what_is_there_and_refuses_what_does_not_fit():
    shown = {
        "words": ["so", "很"],
        "word_weights": np.array([0.5, -0.2]),
        "frame_weights": np.array([0.1, -0.3, 0.0]),
        "waveform": np.zeros(960, dtype=np.float32),
        "rate": 16_000,
        "label": "negative",
    }
    wave, time, words = draw_saliency(shown).axes
    assert [bar.get_width() for bar in words.patches] == [0.5, -0.2]
    assert [bar.get_height() for bar in time.patches] == [0.1, -0.3, 0.0]
    assert time.get_ylabel() == "added logit\nper 20 ms" and time.get_xlim() == wave.get_xlim() == (0, 0.06)
    assert words.patches[0].get_facecolor() != words.patches[1].get_facecolor()
    assert len(draw_saliency({**shown, "frame_weights": None}).axes) == 1
    assert len(draw_saliency({**shown, "word_weights": None}).axes) == 2
    with pytest.raises(ValueError, match="2 weights do not fit 1 words"):
        draw_saliency({**shown, "words": ["so"]})
    with pytest.raises(ValueError, match="neither words nor frames have weights"):
        draw_saliency({**shown, "word_weights": None, "frame_weights": None})

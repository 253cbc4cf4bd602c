"""Pictures of reports."""

import io
from functools import partial

import numpy as np
import pytest
from PIL import Image

from mmsr.evaluation.report import pictures
from mmsr.evaluation.report.pictures import (
    BLUE,
    INK,
    PAPER,
    Effect,
    draw_attention,
    draw_effects,
    draw_modalities,
    draw_saliency,
    draw_training,
    drawable,
    rendered,
    training_panels,
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


def losses(**values) -> list[dict[str, float]]:
    return [
        {"epoch": i, **{name: value[i] for name, value in values.items()}}
        for i in range(len(next(iter(values.values()))))
    ]


def test_each_loss_has_a_panel_and_what_stays_the_same_is_left_out():
    history = losses(
        dev_loss=[3.0, 2.0, 1.5],
        train_loss=[4.0, 2.0, 1.0],
        dev_rationale_loss=[0.0, 0.0, 0.0],
        dev_macro_f1=[0.2, 0.4, 0.5],
        dev_macro_f1_present=[0.2, 0.4, 0.5],
        dev_uar=[0.3, 0.3, 0.3],
    )
    panels = training_panels(history)
    assert {panel: list(lines) for panel, lines in panels.items()} == {
        "loss": ["train", "dev"],
        "figure on development rows": ["macro f1"],
    }
    assert panels["loss"]["dev"] == [(0, 3.0), (1, 2.0), (2, 1.5)]
    assert training_panels(history[:1]) == {}, "one epoch has no curve"


def test_first_steps_do_not_squash_the_rest():
    loss, flat = (
        draw_training(losses(train_loss=values)).axes[0]
        for values in ([900.0, 8.0, 3.0, 2.0, 1.5], [3.0, 2.5, 2.0, 1.8, 1.5])
    )
    assert loss.get_yscale() == "log" and flat.get_yscale() == "linear"
    clipped = draw_training(losses(train_loss=[900.0, 8.0, 3.0, 2.0, 1.5, -0.5])).axes[0]
    assert clipped.get_yscale() == "linear" and clipped.get_ylim()[1] < 100


def test_a_forest_plot_fills_the_marks_of_what_differs():
    effects = [
        Effect("text alone", -0.2, (-0.3, -0.1), True),
        Effect("audio alone", 0.01, (-0.1, 0.12), False, "p = .600", (-0.2, 0.2)),
    ]
    (axis,) = draw_effects(effects, label="macro-F1", legend=("p < .05", "not", "seeds")).axes
    marks = [line for line in axis.lines if line.get_marker() == "o"]
    assert [mark.get_markerfacecolor() for mark in marks] == [BLUE, PAPER]
    assert [text.get_text() for text in axis.texts] == [
        "-0.200 [-0.300, -0.100]",
        "+0.010 [-0.100, +0.120]  p = .600",
    ]
    assert [list(line.get_xdata()) for line in axis.lines if len(line.get_xdata()) == 2][1:] == [
        [-0.3, -0.1],
        [-0.1, 0.12],
        [-0.2, 0.2],
    ]


def test_letters_without_a_font_are_warned_of_once(caplog, monkeypatch):
    pictures._warn_of_fonts.cache_clear()
    monkeypatch.setattr(pictures, "_letters", lambda: frozenset(map(ord, "abc")))
    assert [drawable("很", 0), drawable("好", 1), drawable("abc", 2)] == ["#1", "#2", "abc"]
    assert [record.getMessage().count("fonts-noto-cjk") for record in caplog.records] == [1]

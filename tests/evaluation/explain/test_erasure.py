"""Comprehensiveness and sufficiency, of a model that is known to look at one word and one moment."""

import numpy as np
import pytest

from mmsr.evaluation.explain.erasure import erase_words, erasure, silence_frames
from mmsr.evaluation.rationales import word_spans
from mmsr.records import Answer, AttributedFrame, AttributedWord, Attribution

FRAMES = 20


def load_audio(path):
    """A second of noise; its fifth frame of twenty is the loud one."""
    samples = np.full(16_000, 0.01, dtype=np.float32)
    samples[4 * 800 : 5 * 800] = 0.9
    return samples


def predict(records):
    """Positive where `great` is said, or something loud is heard; each is half of the probability."""
    answers = []
    for record in records:
        said = "great" in (record.text or "")
        heard = np.abs(record.audio).max() > 0.5
        p = 0.5 * said + 0.5 * heard
        answers.append(Answer(label="positive", score=p, scores={"positive": p, "negative": 1 - p}))
    return answers


def attribute(text, words, sign):
    found = [
        AttributedWord(text[start:end], start, end, sign * (text[start:end] == "great"))
        for start, end in words
    ]
    frames = [AttributedFrame(n / FRAMES, (n + 1) / FRAMES, sign * float(n == 4)) for n in range(FRAMES)]
    return Attribution(tuple(found), tuple(frames))


def knows(*, audio, text, words):
    return attribute(text, words, 1.0)


def wrong(*, audio, text, words):
    return attribute(text, words, -1.0)


@pytest.fixture
def rows(utterance):
    texts = ["it was a great day", "great to see you here", "she did great work today", "all great so far it"]
    return [utterance(f"u{n}", text=text, audio="x.wav", speaker=f"s{n}") for n, text in enumerate(texts)]


def test_what_matters_is_comprehensive_and_sufficient_and_its_control_is_neither(rows):
    found = erasure(predict, knows, rows, load_audio=load_audio)
    for modality in ("text", "audio"):
        whole, alone = (found[modality][measure] for measure in ("comprehensiveness", "sufficiency"))
        assert whole["chosen"]["value"] == pytest.approx(0.5)
        assert alone["chosen"]["value"] == pytest.approx(0)
        assert whole["difference"]["value"] > 0.2 > -0.2 > alone["difference"]["value"]
        assert whole["random"]["n"] == len(rows)
        assert whole["chosen"]["value"] - whole["random"]["value"] == pytest.approx(
            whole["difference"]["value"]
        )


def test_what_does_not_matter_is_neither(rows):
    found = erasure(predict, wrong, rows, load_audio=load_audio)
    for modality in ("text", "audio"):
        assert found[modality]["comprehensiveness"]["chosen"]["value"] == pytest.approx(0)
        assert found[modality]["sufficiency"]["chosen"]["value"] == pytest.approx(0.5)


def test_figures_by_share_average_to_the_aopc(rows):
    figures = erasure(predict, knows, rows, load_audio=load_audio)["audio"]["comprehensiveness"]
    assert list(figures["by_share"]) == ["0.01", "0.05", "0.1", "0.2", "0.5"]
    assert np.mean(list(figures["by_share"].values()), axis=0) == pytest.approx(
        [figures["chosen"]["value"], figures["random"]["value"]]
    )


def test_a_modality_without_weights_is_left_out(rows):
    found = erasure(predict, lambda **given: knows(**given)._replace(words=None), rows, load_audio=load_audio)
    assert list(found) == ["audio"]


@pytest.mark.parametrize(
    ("text", "erased", "left"),
    [
        ("it was  great, today", [0, 0, 1, 0], "it was , today"),
        ("特别好", [1, 0, 0], "别好"),
        ("good day", [1, 1], None),
    ],
)
def test_words_are_erased_where_they_stand(text, erased, left):
    assert erase_words(text, word_spans(text), np.array(erased, dtype=bool)) == left


def test_frames_are_silenced_and_the_rest_stays():
    samples = np.arange(1, 11, dtype=np.float32)
    silenced = silence_frames(samples, np.array([False, True, False]))
    assert silenced.tolist() == [1, 2, 3, 4, 0, 0, 0, 8, 9, 10]
    assert silenced.dtype == np.float32

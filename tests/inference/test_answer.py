"""An answer is a dict, and a page that nobody's words can break out of."""

import copy
import json
import pickle
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile

from mmsr.inference.answer import Answer

RATE = 16_000
HOSTILE = '"><script>alert(1)</script><img src=x onerror="alert(2)">&\'{{ 7 * 7 }}'


class Page(HTMLParser):
    """Tags with their attributes, and text outside of <style>."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._styles = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._styles = tag == "style"

    def handle_endtag(self, tag):
        self._styles = False

    def handle_data(self, data):
        if not self._styles:
            self.text += data

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def answer():
    return {
        "label": "positive",
        "score": 0.75,
        "scores": {"negative": 0.05, "neutral": 0.2, "positive": 0.75},
        "rationale": "gratitude: “so kind”",
    }


@pytest.fixture
def wave():
    return 0.3 * np.sin(np.arange(2 * RATE, dtype=np.float32) / 20)


def test_it_is_the_plain_dict(answer):
    shown = Answer(answer, {"audio": None, "text": "so kind"})
    assert shown == answer and isinstance(shown, dict)
    assert json.dumps(shown) == json.dumps(answer)
    assert repr(shown) == repr(answer)
    for twin in (copy.deepcopy(shown), pickle.loads(pickle.dumps(shown))):
        assert twin == answer and twin.utterance == shown.utterance
        assert twin._repr_html_() == shown._repr_html_()


def test_it_says_why_there_is_no_answer_and_what_was_left_out(answer, wave):
    refused = {"outliers": ["audio"], "abstained": True, "abstained_because": "no speech was heard"}
    page = Page(Answer(answer | refused, {"audio": (wave, RATE)})._repr_html_())
    assert "abstained: no speech was heard" in page.text and "Answered from" not in page.text
    left_out = {"outliers": ["audio"], "abstained": False}
    page = Page(Answer(answer | left_out, {"text": "so kind"})._repr_html_())
    assert "Answered from the rest alone: no speech was heard" in page.text and "abstained" not in page.text


def test_a_recording_that_could_not_be_read_shows_why():
    failed = {"label": None, "score": None, "scores": {}, "rationale": None, "error": "a.wav: holds no audio"}
    page = Page(Answer(failed, {"audio": None, "text": "so kind"})._repr_html_())
    assert "no answer" in page.text and "a.wav: holds no audio" in page.text and "so kind" in page.text
    assert "None" not in page.text and "Probabilities" not in page.text


def test_it_shows_all_that_was_answered(answer, wave):
    answer |= {
        "alternatives": {"negative": "sarcasm", "neutral": "politeness"},
        "attention": {
            "words": [{"word": "so", "weight": 0.25}, {"word": "kind", "weight": 0.75}],
            "audio": [
                {"start": 0.0, "end": 1.0, "weight": 0.8},
                {"start": 1.0, "end": 2.0, "weight": 0.2},
            ],
        },
        "abstained": True,
    }
    page = Page(Answer(answer, {"audio": (wave, RATE), "text": "he was so kind."})._repr_html_())
    for said in ("positive", "0.750", "gratitude: “so kind”", "sarcasm", "politeness", "abstained", "1.5 s"):
        assert said in page.text
    assert "he was so kind." in page.text
    words = [tag for tag in page.named("span") if "title" in tag]
    assert [word["title"] for word in words] == ["25.0 %", "75.0 %"]
    assert [word["style"] for word in words] == [
        "background:rgba(0,114,178,0.2)", "background:rgba(0,114,178,0.6)"
    ]  # fmt: skip
    bands = [(tag["x"], tag["width"], tag["fill-opacity"]) for tag in page.named("rect")]
    assert bands == [("0.0", "500.0", "0.6"), ("500.0", "500.0", "0.15")]
    (player,) = page.named("audio")
    assert player["src"].startswith("data:audio/flac;base64,")
    widths = [tag["style"] for tag in page.named("i")]
    assert widths == ["width:75.0%", "width:20.0%", "width:5.0%"]


def test_attention_to_silent_edges_is_not_drawn(answer, wave):
    silence = np.zeros(RATE, dtype=np.float32)
    frames = [{"start": i, "end": i + 1, "weight": weight} for i, weight in enumerate((0.6, 0.2, 0.1, 0.1))]
    answer |= {"attention": {"words": None, "audio": frames}}
    page = Page(Answer(answer, {"audio": (np.concatenate([silence, wave, silence]), RATE)})._repr_html_())
    assert [(tag["x"], tag["fill-opacity"]) for tag in page.named("rect")] == [
        ("250.0", "0.6"),
        ("500.0", "0.3"),
    ]


def test_what_the_player_holds_is_the_sound(answer, wave):
    import base64
    import io

    (player,) = Page(Answer(answer, {"audio": (wave, RATE)})._repr_html_()).named("audio")
    held, rate = soundfile.read(io.BytesIO(base64.b64decode(player["src"].partition(",")[2])))
    assert rate == RATE
    np.testing.assert_allclose(held, wave, atol=1e-4)


def test_quoted_words_are_marked_and_play(answer, wave):
    import base64
    import io

    quoted = {"text": "so kind", "start": 7, "end": 14, "seconds": [0.5, 1.0], "timed_by": "proportional"}
    answer |= {
        "rationale": 'words of praise: "so kind" and "so good"; a calm voice',
        "evidence": [quoted],
        "voice": {"neutral": 0.7, "anger": 0.3},
        "attention": {"words": [{"word": "so", "weight": 0.25}], "audio": None},
    }
    html = Answer(answer, {"audio": (wave, RATE), "text": "he was so kind."})._repr_html_()
    assert html.count("<mark>") == 3 and '<del title="not in the transcript">so good</del>' in html
    page = Page(html)
    for said in ("he was so kind.", "so kind", "about 0.5 to 1.0 s", "Emotion of the voice", "0.700"):
        assert said in page.text
    whole, part = page.named("audio")
    held, rate = soundfile.read(io.BytesIO(base64.b64decode(part["src"].partition(",")[2])))
    np.testing.assert_allclose(held, wave[round(0.35 * rate) : round(1.15 * rate)], atol=1e-4)
    for timed_by, told in (
        ("recogniser", "0.5 to 1.0 s, by the recogniser"),
        ("interpolated", "about 0.5 to 1.0 s, between words that the recogniser timed"),
    ):
        timed = {**answer, "evidence": [{**quoted, "timed_by": timed_by}]}
        assert told in Page(Answer(timed, {"audio": (wave, RATE), "text": "he was so kind."}).page()).text
    page = Page(
        Answer(
            {**answer, "evidence": [{**quoted, "seconds": None}]}, {"text": "he was so kind."}
        )._repr_html_()
    )
    assert not page.named("audio") and len(page.named("mark")) == 3


def test_no_words_break_out_of_the_page(answer, wave):
    answer = {
        **answer,
        "label": HOSTILE,
        "scores": {HOSTILE: 0.75, "neutral": 0.25},
        "rationale": HOSTILE,
        "forced_label": HOSTILE,
        "alternatives": {"neutral": HOSTILE},
        "attention": {"words": [{"word": HOSTILE, "weight": 1.0}], "audio": None},
        "voice": {HOSTILE: 1.0},
        "evidence": [
            {
                "text": HOSTILE,
                "start": 2,
                "end": 2 + len(HOSTILE),
                "seconds": [0.1, 0.5],
                "timed_by": "recogniser",
            }
        ],
    }
    html = Answer(answer, {"audio": (wave, RATE), "text": f"a {HOSTILE}"}).page()
    page = Page(html)
    tags = {name for name, _ in page.tags}
    assert not tags & {"script", "img", "link", "iframe"}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count(HOSTILE) == 8
    sources = [
        value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")
    ]
    assert all(source.startswith("data:") for source in sources) and "url(" not in html


def test_missing_or_long_sound_is_reported(answer, tmp_path):
    page = Page(Answer(answer, {"audio": str(tmp_path / "gone.wav"), "text": "so kind"})._repr_html_())
    assert "gone.wav: does not exist" in page.text and not page.named("audio")
    page = Page(Answer(answer, {"audio": (np.full(61 * RATE, 0.1), RATE)})._repr_html_())
    assert "61 seconds: too long" in page.text and page.named("svg") and not page.named("audio")


def test_what_was_not_asked_for_is_not_shown(answer):
    page = Page(Answer({**answer, "rationale": None})._repr_html_())
    assert "Rationale" not in page.text and "Transcript" not in page.text and "None" not in page.text
    transcribed = Page(Answer({**answer, "transcript": None}, {"text": None})._repr_html_())
    assert "found no words" in transcribed.text


def test_a_page_that_has_a_player_needs_no_second_one(answer, wave):
    quoted = {"text": "so kind", "start": 7, "end": 14, "seconds": [0.5, 1.0], "timed_by": "proportional"}
    shown = Answer(answer | {"evidence": [quoted]}, {"audio": (wave, RATE), "text": "he was so kind."})
    assert len(Page(shown.html()).named("audio")) == 2
    page = Page(shown.html(player=False))
    assert len(page.named("audio")) == 1, "the quoted words alone"
    assert len(page.named("polygon")) == 1, "the picture of the sound stays"
    long = Answer(answer, {"audio": (np.full(61 * RATE, 0.1), RATE)})
    assert "too long to be carried" not in long.html(player=False)


def test_words_do_not_break_in_a_narrow_cell(answer, browser):
    html = Answer(answer | {"alternatives": {"negative": "disappointment"}}, {"text": "so kind"}).html()
    page = browser.new_page(offline=True)
    page.set_content(f'<table style="width:40px"><tr><td>{html}</td><td>{"long " * 40}</td></tr></table>')
    lines = page.evaluate(
        """() => [...document.querySelectorAll(".score span:first-child, dt, dd")].map((it) => {
          const range = document.createRange();
          range.selectNodeContents(it);
          return range.getClientRects().length;
        })"""
    )
    assert lines == [1] * 5, "each of these is a word, in one line"
    page.close()

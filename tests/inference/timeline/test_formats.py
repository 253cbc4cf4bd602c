"""A recording along its time axis: the answers, what a kill leaves, what is written, how the page acts."""

import csv
import io
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import soundfile

from mmsr.inference.predict import answer_table
from mmsr.inference.timeline.cues import TimelineError
from mmsr.inference.timeline.formats import write_timeline
from mmsr.inference.timeline.make import Timeline
from mmsr.inference.timeline.transcripts import read_cues

NASTY = 'a < b & <script>boom()</script> {\\an8} --> "q" é'


def test_subtitles_have_labels_and_words(by_hand: Callable[..., Timeline], tmp_path: Path) -> None:
    made = by_hand(
        (1.5, 3661.0625, "A&B <x>", NASTY + "\nline", (0.7, 0.2, 0.1)), (3662, 3663, None, None, (0, 0, 1))
    )
    write_timeline(made, tmp_path / "t.srt")
    text = (tmp_path / "t.srt").read_text("utf-8")
    assert text.startswith("1\n00:00:01,500 --> 01:01:01,062\n[negative 0.70] A&B ")
    assert text.endswith("\n\n2\n01:01:02,000 --> 01:01:03,000\n[positive 1.00]\n\n")
    assert len(re.findall(r"-->", text)) == 2 and not re.search(r"<\w|</|\{\\", text)  # neither tag nor style
    first, second = read_cues(tmp_path / "t.srt")
    shown = " ".join(NASTY.split()) + " line"
    assert first.text.replace("\u2060", "") == f"[negative 0.70] A&B <x>: {shown} because: {shown}"
    assert second.text == "[positive 1.00]"


def test_every_format_says_why_the_model_abstains(by_hand: Callable[..., Timeline], tmp_path: Path) -> None:
    made = by_hand((0, 1, None, "so kind", (0.7, 0.2, 0.1)), (2, 3, None, None, (0, 0, 1)))
    first = replace(made.segments[0], abstained_because="no speech was heard")
    refused = replace(made, segments=(first, *made.segments[1:]))
    for ending in ("jsonl", "csv", "srt", "vtt", "html"):
        for timeline, times in ((made, 0), (refused, 1)):
            path = tmp_path / f"{times}.{ending}"
            write_timeline(timeline, path, player="none")
            assert path.read_text("utf-8").count("no speech was heard") == times


def test_the_table_has_the_columns_of_answers(by_hand: Callable[..., Timeline], tmp_path: Path) -> None:
    made = by_hand((0, 1, None, "so kind", (0.7, 0.2, 0.1)), (2, 3, None, None, (0, 0, 1)))
    evidence = [{"text": "so kind", "start": 0, "end": 7}]
    voice = {"anger": 0.2, "happiness": 0.8}
    first = replace(made.segments[0], evidence=evidence, voice=voice, abstained_because="no speech")
    write_timeline(replace(made, segments=(first, made.segments[1])), tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        one, other = csv.DictReader(file)
    answer = {
        "text": "so kind", "label": made.segments[0].label, "score": 0.7, "scores": made.segments[0].scores,
        "rationale": "why", "evidence": evidence, "voice": voice, "abstained": True, "abstained_because": "x",
    }  # fmt: skip
    assert set(one) == {"start", "end", "speaker", *answer_table([answer]).columns}
    assert (one["quoted"], one["voice"], one["abstained"]) == ("so kind", "happiness", "True")
    assert (other["quoted"], other["voice"], other["abstained"]) == ("", "", "False")


def test_a_model_without_rationales_leaves_no_place_for_them(
    by_hand: Callable[..., Timeline], tmp_path: Path
) -> None:
    explained = by_hand((0, 1, None, "so kind", (0.7, 0.2, 0.1)), (2, 3, None, None, (0, 0, 1)))
    labelled = replace(
        explained, segments=tuple(replace(part, rationale=None) for part in explained.segments)
    )
    for made, name in ((explained, "explained"), (labelled, "labelled")):
        write_timeline(made, tmp_path / name, player="none")
        table, page = ((tmp_path / name / f"timeline.{form}").read_text("utf-8") for form in ("csv", "html"))
        known = name == "explained"
        assert ("rationale" in table.splitlines()[0].split(",")) == known
        assert ("Labels and reasons" in page) == ('class="why"' in page) == known
        assert "because" in page or not known
        assert '<p id="why" dir="auto" hidden></p>' in page  # shown by a segment that has something in it
        captions = (tmp_path / name / "timeline.vtt").read_text("utf-8")
        assert ("<i>" in captions) == known and "None" not in captions + table + page


def test_a_browser_reads_the_captions(by_hand: Callable[..., Timeline], browser: Any, tmp_path: Path) -> None:
    made = by_hand((1.5, 3, "A&B <x>", NASTY, (0.7, 0.2, 0.1)), (4, 5, None, None, (0, 0, 1)))
    write_timeline(made, tmp_path / "t.vtt")
    page = browser.new_page(offline=True)
    cues = page.evaluate(
        """(text) => new Promise((done) => {
          const video = document.createElement("video"), track = document.createElement("track");
          track.src = URL.createObjectURL(new Blob([text], { type: "text/vtt" }));
          track.addEventListener("load", () => done([...track.track.cues].map((cue) => {
            const shown = cue.getCueAsHTML();
            return [cue.startTime, cue.endTime, shown.textContent,
              shown.querySelector("[title]")?.title || "", shown.querySelectorAll("script").length];
          })));
          video.append(track); document.body.append(video); track.track.mode = "showing";
        })""",
        (tmp_path / "t.vtt").read_text("utf-8"),
    )
    assert cues == [
        [1.5, 3, f"[negative 0.70] {NASTY}\nbecause: {NASTY}", "A&B <x>", 0],
        [4, 5, "[positive 1.00]", "", 0],
    ]
    page.close()


def test_the_page_walks_and_jumps(
    by_hand: Callable[..., Timeline], browser: Any, audio: Path, tmp_path: Path
) -> None:
    made = by_hand(
        (1.0, 6.0, "bo", "first", (0.9, 0.1, 0.0)),
        (2.0, 3.0, "anna", NASTY, (0.1, 0.2, 0.7)),  # while bo talks
        (8.0, 9.0, "bo", "third", (0.1, 0.8, 0.1)),
        (20.0, 22.0, "anna", "last", (0.0, 0.2, 0.8)),
    )
    write_timeline(replace(made, audio=str(audio), seconds=30.0), tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    page = browser.new_page(offline=True)
    page.set_default_timeout(30_000)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_function("document.getElementById('audio').readyState > 0")
    assert abs(page.evaluate("document.getElementById('audio').duration") - 30) < 0.2

    def said() -> str:
        return page.locator("#text").text_content()

    def place() -> float:
        page.wait_for_function("!document.getElementById('audio').seeking")
        return page.evaluate("document.getElementById('audio').currentTime")

    assert (
        said() == "first" and page.locator("#when").text_content() == "0:00, no speech; next: 0:01 – 0:06, bo"
    )
    assert page.locator("[aria-current]").count() == 0, "nobody speaks yet"
    for key, time, words in (
        ("ArrowRight", 1.0, "first"),
        ("ArrowRight", 2.0, NASTY),
        ("ArrowRight", 8.0, "third"),
        ("ArrowLeft", 2.0, NASTY),
        ("End", 20.0, "last"),
        ("Home", 1.0, "first"),
    ):
        page.keyboard.press(key)
        assert (place(), said()) == (time, words), key
    assert page.locator("[aria-current]").count() == 1
    page.get_by_role("button", name="third").last.click()
    page.wait_for_function("!document.getElementById('audio').paused")
    assert said() == "third"
    page.wait_for_function("document.getElementById('audio').paused")
    assert 9.0 <= place() < 9.6, "a click plays the segment to its end"
    page.keyboard.press("ArrowLeft")
    assert (place(), said()) == (8.0, "third")
    assert [bar.split() for bar in page.locator("#bars .bar").all_inner_texts()] == [
        ["negative", "0.10"],
        ["neutral", "0.80"],
        ["positive", "0.10"],
    ]
    width = page.locator("#track").bounding_box()["width"]
    page.locator("#track").click(position={"x": width * 4.5 / 30, "y": 10})  # anna is done, bo still talks
    assert abs(place() - 4.5) < 0.1 and said() == "first"
    page.locator("#track").focus()
    before = float(page.locator("#cursor").evaluate("(it) => parseFloat(it.style.left)"))
    page.keyboard.press("Space")
    page.wait_for_function(f"parseFloat(document.getElementById('cursor').style.left) > {before} + 1")
    page.keyboard.press("Space")
    assert page.evaluate("document.getElementById('audio').paused")
    assert page.locator("#track").get_attribute("aria-valuetext").startswith("0:0")
    page.get_by_label("Show").select_option("positive")
    assert page.locator("#segments li:visible").count() == 2
    assert not page.locator("#near").is_visible(), (
        "a recording that fits in the overview needs no closer view"
    )
    assert not faults and all(url.startswith(("file:", "data:")) for url in asked)
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.close()


def test_the_page_draws_the_sound_from_its_peaks(
    by_hand: Callable[..., Timeline], browser: Any, audio: Path, tmp_path: Path
) -> None:
    made = replace(by_hand((16.0, 24.0, None, "so", (0.9, 0.1, 0.0))), audio=str(audio), seconds=30.0)
    found = {}
    for player in ("inline", "beside", "link", "none"):
        write_timeline(made, tmp_path / player / "page.html", player=player)  # type: ignore[arg-type]
        page = browser.new_page(offline=True)
        page.goto((tmp_path / player / "page.html").as_uri())
        found[player] = page.evaluate("[...peaks]")
        if player == "inline":
            drawn = page.locator("#overview").evaluate(
                """(canvas) => [.02, .6].map((place) => {
                  const x = Math.floor(place * canvas.width), ratio = canvas.width / canvas.clientWidth;
                  const pen = canvas.getContext("2d"), tall = Math.round(wave * ratio) - 2;
                  const dots = pen.getImageData(x, 0, 8, tall).data;
                  return dots.filter((_, i) => i % 4 === 3 && dots[i]).length;
                })"""
            )
            assert 0 < 4 * drawn[0] < drawn[1], "the hiss swells"
        page.close()
    assert found["none"] == [] and found["inline"] == found["beside"] == found["link"]
    peaks = found["inline"]
    assert len(peaks) == 1200 and max(peaks) == 255
    assert sum(peaks[:200]) < sum(peaks[500:700]) < sum(peaks[1000:])


def test_a_recording_without_speech_has_no_empty_boxes(
    by_hand: Callable[..., Timeline], browser: Any, tmp_path: Path
) -> None:
    write_timeline(by_hand(), tmp_path / "page.html", player="none")
    page = browser.new_page(offline=True)
    page.goto((tmp_path / "page.html").as_uri())
    assert page.get_by_text("No speech was found in this recording.").is_visible()
    assert not page.locator("#now").is_visible() and page.locator("table, #segments, .keys").count() == 0
    page.close()


def test_quoted_words_are_marked_and_play(
    by_hand: Callable[..., Timeline], browser: Any, audio: Path, tmp_path: Path
) -> None:
    made = by_hand(
        (1.0, 6.0, "bo", f"so kind {NASTY}", (0.1, 0.2, 0.7)), (8.0, 9.0, None, "no", (0.9, 0.1, 0.0))
    )
    kind = {"text": "kind", "start": 3, "end": 7, "seconds": [2.0, 2.4], "timed_by": "recogniser"}
    first = replace(made.segments[0], rationale='praise: "kind", "unsaid"', evidence=[kind, kind])
    made = replace(made, audio=str(audio), seconds=30.0, segments=(first, *made.segments[1:]))
    write_timeline(made, tmp_path / "page.html")
    write_timeline(made, tmp_path / "table.csv")
    assert "evidence" not in (tmp_path / "table.csv").read_text("utf-8").splitlines()[0]
    page = browser.new_page(offline=True)
    page.set_default_timeout(30_000)
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_function("document.getElementById('audio').readyState > 0")
    page.keyboard.press("ArrowRight")
    assert page.locator("#text").text_content() == f"so kind {NASTY}"
    assert page.locator("#text mark").all_inner_texts() == ["kind"]
    told = "Play these words: 2.0 to 2.4 s, by the recogniser"
    assert page.locator("#text mark").get_attribute("title") == told
    assert page.locator("#why del").all_inner_texts() == ["unsaid"]
    page.locator("#text mark").press("Enter")
    page.wait_for_function("!document.getElementById('audio').paused")
    page.wait_for_function("document.getElementById('audio').paused")
    assert 2.4 < page.evaluate("document.getElementById('audio').currentTime") < 3.4
    page.locator("#segments mark").click()
    page.wait_for_function("!document.getElementById('audio').paused")
    assert 1.7 < page.evaluate("document.getElementById('audio').currentTime") < 2.6
    page.close()


def test_a_voice_is_told_against_the_speakers_median(
    by_hand: Callable[..., Timeline], browser: Any, tmp_path: Path
) -> None:
    made = by_hand(*[(2.0 * i, 2.0 * i + 1, "bo", "so", (0.1, 0.2, 0.7)) for i in range(5)])
    usual: dict[str, float | None] = {"pitch": 200.0, "level": -20.0, "pace": None}
    parts = [replace(part, prosody=usual, voice={"anger": 1.0}) for part in made.segments]
    parts[1] = replace(parts[1], prosody={**usual, "pitch": 250.0, "level": -14.0})
    made = replace(made, segments=tuple(parts))
    assert made.differences(parts[1]) == {"pitch": 0.25, "level": 6.0}
    write_timeline(made, tmp_path / "page.html", player="none")
    page = browser.new_page(offline=True)
    page.goto((tmp_path / "page.html").as_uri())
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert "because: so" in page.locator("#why").text_content()
    assert "pitch +25 %, level +6 dB against the speaker's median" in page.locator("#why").text_content()
    assert page.locator("#segments .tone").count() == 5
    page.close()


def test_the_sound_of_a_page(
    by_hand: Callable[..., Timeline], browser: Any, audio: Path, tmp_path: Path
) -> None:
    made = replace(by_hand((1.0, 2.0, None, None, (0.1, 0.8, 0.1))), audio=str(audio), seconds=30.0)
    sources = {}
    for player in ("inline", "beside", "link", "none"):
        path = tmp_path / player / "a page.html"
        write_timeline(made, path, player=player)  # type: ignore[arg-type]
        page = browser.new_page(offline=True)
        page.goto(path.as_uri())
        sources[player] = page.evaluate("document.getElementById('audio')?.getAttribute('src')")
        if player != "none":
            page.wait_for_function("document.getElementById('audio').readyState > 0")
        page.keyboard.press("ArrowRight")
        assert page.locator("#when").text_content() == "0:01 – 0:02"
        page.close()
    assert sources["inline"].startswith("data:audio/mpeg;base64,") and sources["none"] is None
    assert sources["beside"] == "a%20page.mp3"
    assert sources["link"] == os.path.relpath(audio, tmp_path / "link")
    content = (tmp_path / "beside" / "a page.mp3").read_bytes()
    assert soundfile.info(io.BytesIO(content)).samplerate == 16_000 and len(content) < 150_000
    with pytest.raises(TimelineError, match=r"a page\.mp3 is the recording itself; accepted: another --out"):
        again = replace(made, audio=str(tmp_path / "beside" / "a page.mp3"))
        write_timeline(again, tmp_path / "beside" / "a page.html", player="beside")

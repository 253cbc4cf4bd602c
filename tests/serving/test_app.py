"""The web page as its visitors and programs meet it: a real server, a real browser, the packaged `demo`."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import soundfile

pytest.importorskip("gradio", reason="the web page is made with gradio: pip install 'mmsr[app]'")
pytest.importorskip("silero_vad", reason="timelines need silero-vad: pip install 'mmsr[segments]'")

from gradio_client import Client, handle_file  # noqa: E402
from gradio_client.exceptions import AppError  # noqa: E402

from mmsr.cli.main import main
from mmsr.data.audio.decoding import Audio
from mmsr.inference.loading import load_pipeline
from mmsr.inference.timeline.make import make_timeline
from mmsr.records import Chunk
from mmsr.serving.app import EXAMPLES, Desk, Limits, launch, make_app, uploads_folder

RATE = 16_000
TRIED = json.loads((EXAMPLES / "examples.json").read_text(encoding="utf-8"))
ENGLISH = TRIED[0]
PATIENCE = 60_000  # milliseconds


class Hears:
    """A recogniser that hears how long the speech is, in which language; nothing in what is silent."""

    name, fingerprint, longest, timestamps, window_seconds = "hears", "0", 30.0, "word", None

    def check_language(self, language: str | None) -> str | None:
        if language not in (None, "en", "vi"):
            raise ValueError(f"/where/models/lie does not know the language {language!r}; accepted: en, vi")
        return language

    def transcribe(self, waves: Any, *, languages: Any) -> list[Any]:
        return [
            SimpleNamespace(
                text=text,
                chunks=tuple(
                    Chunk(text=word, start=0.1 * place, end=0.1 * place + 0.05)
                    for place, word in enumerate(text.split())
                ),
            )
            for text in self._texts(waves, languages)
        ]

    def _texts(self, waves: Any, languages: Any) -> list[str]:
        return [
            f"{len(wave) / RATE:.1f} seconds of {language}" if np.abs(wave).max() > 0.01 else ""
            for wave, language in zip(waves, languages, strict=True)
        ]


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """A page with a recogniser, which takes five seconds in a megabyte, and 25 for a timeline."""
    with pytest.MonkeyPatch.context() as patch, uploads_folder():
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        pipe = load_pipeline("demo", device="cpu")
        limits = Limits(seconds=5, megabytes=1, timeline_seconds=25)
        app = make_app(pipe, transcribe=cast(Any, Hears()), limits=limits)
        yield SimpleNamespace(pipe=pipe, url=launch(app, megabytes=1))
        app.close()


@pytest.fixture(scope="module")
def client(server: Any) -> Client:
    return Client(server.url, verbose=False, analytics_enabled=False)


@pytest.fixture
def sound(tmp_path: Path) -> Any:
    """Writes so many seconds of a tone to a file."""

    def write(name: str, seconds: float, *, level: float = 0.3) -> Path:
        tone = level * np.sin(np.arange(round(seconds * RATE)) / 8)
        soundfile.write(tmp_path / name, tone, RATE)
        return tmp_path / name

    return write


# ---------------------------------------------------------------------- programs


def test_a_program_gets_what_the_pipeline_says(server: Any, client: Client) -> None:
    path = EXAMPLES / ENGLISH["audio"]
    given = client.predict(handle_file(path), ENGLISH["text"], api_name="/predict")
    expected = server.pipe({"audio": str(path), "text": ENGLISH["text"]}, attention=True)
    assert given["scores"] == pytest.approx(expected["scores"])
    assert {name: given[name] for name in ("label", "rationale")} == {
        name: expected[name] for name in ("label", "rationale")
    }
    assert len(given["attention"]["words"]) == len(ENGLISH["text"].split())


def test_a_program_may_force_the_label_and_give_one_modality(server: Any, client: Client) -> None:
    given = client.predict(None, ENGLISH["text"], None, "neutral", api_name="/predict")
    expected = server.pipe({"text": ENGLISH["text"]}, forced_label="neutral")
    assert (given["label"], given["forced_label"], given["rationale"]) == (
        expected["label"], "neutral", expected["rationale"]
    )  # fmt: skip
    heard = client.predict(handle_file(EXAMPLES / ENGLISH["audio"]), api_name="/predict")
    assert heard["scores"] == pytest.approx(server.pipe(str(EXAMPLES / ENGLISH["audio"]))["scores"])


def test_words_that_were_written_down_have_their_times_also_when_edited(server: Any, sound: Any) -> None:
    desk = Desk(pipe=server.pipe, limits=Limits(seconds=5), transcribe=cast(Any, Hears()))
    path = sound("a.wav", 2)
    text, heard = desk.write(str(path), "en")
    assert text == "2.0 seconds of en" and [word.text for word in heard.words] == text.split()
    _, found, *_ = desk.show(str(path), "2.0 seconds of rain", "en", heard)
    assert found.utterance["asr_words"] == heard.words
    page, again = desk.why_not(found, "positive")
    assert again.utterance == found.utterance and "positive" in again["alternatives"]
    _, other, *_ = desk.show(str(sound("b.wav", 1)), text, "en", heard)
    assert other.utterance["asr_words"] is None  # another sound


def test_speech_is_written_down_in_the_language_that_was_told(client: Client, sound: Any) -> None:
    path = handle_file(sound("a.wav", 2))
    assert client.predict(path, "vi", api_name="/transcribe") == "2.0 seconds of vi"
    assert client.predict(path, None, api_name="/transcribe") == "2.0 seconds of None"
    with pytest.raises(AppError, match="heard no words; accepted: speech"):
        client.predict(handle_file(sound("still.wav", 1, level=0)), None, api_name="/transcribe")
    for name, given in (("/transcribe", (path, "xx")), ("/timeline", (path, None, "xx"))):
        with pytest.raises(AppError, match="^the recogniser does not know the language 'xx'; accepted"):
            client.predict(*given, api_name=name)


def test_only_what_programs_are_told_of_can_be_called(client: Client) -> None:
    assert set(client.view_api(return_format="dict", print_info=False)["named_endpoints"]) == {
        "/predict", "/timeline", "/transcribe"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "nothing to answer; accepted: speech"),
        ({"text": "  "}, "nothing to answer; accepted: speech"),
        (
            {"audio": "notes.txt"},
            r"^notes\.txt: holds no audio that can be read; accepted: wav, flac, mp3, ogg[\w, ]*$",
        ),
        ({"audio": "empty.wav"}, r"^empty\.wav: .*accepted"),
        ({"audio": 5.2}, r"long\.wav lasts 5\.2 s; accepted: at most 5 s"),
        ({"text": "so kind " * 400}, r"transcript has \d+ tokens; accepted: at most 256"),
        ({"text": "so kind", "forced_label": "angry"}, "angry.*negative, neutral, positive"),
    ],
)
def test_what_cannot_be_answered_is_told_in_a_sentence(
    client: Client, sound: Any, tmp_path: Path, given: dict[str, Any], told: str
) -> None:
    if isinstance(audio := given.get("audio"), float):
        given = {"audio": handle_file(sound("long.wav", audio))}
    elif audio:
        (tmp_path / audio).write_text("no sound" if audio == "notes.txt" else "")
        given = {"audio": handle_file(tmp_path / audio)}
    with pytest.raises(AppError, match=told) as raised:
        client.predict(**given, api_name="/predict")
    message = str(raised.value)
    assert "Traceback" not in message and "\n" not in message
    assert not re.search(r"/\w+/\w+/", message), "where the server keeps files is nobody's business"


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """Two of the utterances with a pause between them."""
    waves = [Audio(RATE)(str(EXAMPLES / one["audio"])) for one in TRIED[:2]]
    path = tmp_path / "talk.flac"
    soundfile.write(path, np.concatenate([waves[0], np.zeros(RATE), waves[1]]), RATE)
    return path


def test_a_program_gets_a_timeline(server: Any, client: Client, talk: Path, tmp_path: Path) -> None:
    given = client.predict(handle_file(talk), None, "en", api_name="/timeline")
    expected = make_timeline(talk, server.pipe, transcriber=cast(Any, Hears()), language="en")
    assert given["segments"] == [part.as_row() for part in expected.segments]
    assert len(given["segments"]) == given["summary"]["segments"] == 2
    assert all(part["text"].endswith("seconds of en") for part in given["segments"])
    cues = tmp_path / "talk.srt"
    cues.write_text("1\n00:00:00,000 --> 00:00:02,000\nso kind\n")
    given = client.predict(handle_file(talk), handle_file(cues), api_name="/timeline")
    assert [part["text"] for part in given["segments"]] == ["so kind", None]


def test_what_makes_no_timeline_is_told_in_a_sentence(
    client: Client, talk: Path, sound: Any, tmp_path: Path
) -> None:
    cues = tmp_path / "words.srt"
    cues.write_text("hello\n")
    for given, told in (
        ({}, "there is no recording; accepted"),
        (
            {"audio": handle_file(sound("long.wav", 26, level=0))},
            r"^long\.wav lasts 26\.0 s; .* at most 25 s",
        ),
        ({"audio": handle_file(talk), "transcript": handle_file(cues)}, r"^words\.srt"),
    ):
        with pytest.raises((AppError, ValueError), match=told):
            client.predict(**given, api_name="/timeline")


@pytest.mark.parametrize("explains", [True, False])
def test_the_page_speaks_of_reasons_only_where_there_are_any(
    server: Any, monkeypatch: pytest.MonkeyPatch, explains: bool
) -> None:
    if not explains:
        monkeypatch.setattr(type(server.pipe.model), "decoder", None)  # a property
    page = make_app(server.pipe, name="shown")
    told = [
        part["props"]["value"] for part in page.get_config_file()["components"] if part["type"] == "markdown"
    ]
    assert "`shown`" in told[0]
    for words in ("reason", "and why", "rationale", "forced_label"):
        assert any(words in text for text in [page.title, *told]) == explains, words
    page.close()


def test_a_large_file_is_refused(client: Client, sound: Any) -> None:
    path = sound("large.wav", 40)
    with pytest.raises(ValueError, match=r"large\.wav has 1\.3 MB; accepted: at most 1 MB"):
        Limits(seconds=60, megabytes=1).check(str(path))
    with pytest.raises(Exception, match=r"(?i)size|large"):  # before it is taken in whole
        client.predict(handle_file(path), api_name="/predict")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--port", "65536"], "--port 65536; accepted: 1 to 65535"),
        (["--max-seconds", "0"], "max_seconds is 0; accepted: above 0"),
        (["--model", "nowhere"], "nowhere"),
    ],
)
def test_the_command_refuses(flags: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["app", *flags])
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


def test_a_port_that_is_taken_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other, pytest.raises(SystemExit):
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        main(["app", "--model", "demo", "--port", str(port)])
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == (
        f"mmsr: error: port {port} is taken, or not ours to take; accepted: --port with a free one"
    )


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_ends_leaves_nothing_of_its_visitors(tmp_path: Path, end: int) -> None:
    folder = tmp_path / "theirs"
    command = [sys.executable, "-m", "mmsr", "app", "--model", "demo"]
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(folder)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            url = next(found[0] for line in process.stderr if (found := re.search(r"http://\S+", line)))
            client = Client(url, verbose=False, analytics_enabled=False)
            for one in TRIED[:2]:
                client.predict(handle_file(EXAMPLES / one["audio"]), api_name="/predict")
            assert len(list(folder.rglob("*.mp3"))) >= 2
            process.send_signal(end)
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_the_examples_are_small_and_right_about_themselves(server: Any) -> None:
    assert sorted(one["language"] for one in TRIED) == ["de", "en", "fr", "vi", "zh"]
    assert sum(path.stat().st_size for path in EXAMPLES.iterdir()) < 150_000
    for one in TRIED:
        answer = server.pipe({"audio": str(EXAMPLES / one["audio"]), "text": one["text"]})
        assert answer["label"] == one["label"], one


# ---------------------------------------------------------------------- in a browser


@pytest.fixture
def visit(server: Any, browser: Any) -> Iterator[Any]:
    """Opens the page as a new visitor; by the end no other machine was asked, and no script failed."""
    faults: list[str] = []
    contexts = []

    def open_page(**options: Any) -> Any:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "request",
            lambda asked: (
                None if asked.url.startswith((server.url, "data:", "blob:")) else faults.append(asked.url)
            ),
        )
        page.goto(server.url)
        page.wait_for_selector("#answer[aria-live]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def button(page: Any, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


def take_example(page: Any, one: dict[str, str]) -> None:
    """Press an example's button, and wait for speech and words."""
    names = {"en": "English", "vi": "Tiếng Việt", "zh": "中文", "de": "Deutsch", "fr": "Français"}
    button(page, names[one["language"]]).click()
    filled_in(page, one["text"])


def filled_in(page: Any, text: str) -> None:
    page.wait_for_function("text => document.querySelector('textarea').value === text", arg=text)
    page.wait_for_selector("#speech .waveform-container, #speech audio", state="attached")


def answer_of(page: Any) -> str:
    page.wait_for_selector("#answer .mmsr-answer")
    return page.locator("#answer").inner_text()


def test_a_file_is_uploaded_answered_and_asked_further(server: Any, visit: Any) -> None:
    page = visit()
    path = EXAMPLES / ENGLISH["audio"]
    page.set_input_files("#speech input[type=file]", path)
    page.wait_for_selector("#speech .waveform-container", state="attached")
    page.get_by_label("Transcript").fill(ENGLISH["text"])
    button(page, "Answer").click()
    expected = server.pipe({"audio": str(path), "text": ENGLISH["text"]})
    shown = answer_of(page)
    for said in (expected["label"], expected["rationale"], f"{expected['score']:.3f}"):
        assert said in shown
    assert page.locator("#answer svg rect").count() > 10  # moments that were looked at
    assert button(page, f"Why not {expected['label']}?").count() == 0
    for label in ("neutral", "positive"):
        other = server.pipe({"audio": str(path), "text": ENGLISH["text"]}, forced_label=label)["rationale"]
        button(page, f"Why not {label}?").click()
        page.locator("#answer dd").get_by_text(other, exact=True).wait_for()
    assert page.locator("#answer dt").all_inner_texts() == ["neutral", "positive"]


def test_speech_is_recorded_and_written_down(visit: Any) -> None:
    page = visit(permissions=["microphone"])
    button(page, "Record audio").click()
    button(page, "Record").click()
    page.wait_for_timeout(1500)
    button(page, "Stop").click()
    page.wait_for_selector("#speech .waveform-container", state="attached")
    button(page, "Write the transcript from the speech").click()
    page.wait_for_function("/^\\d\\.\\d seconds of None$/.test(document.querySelector('textarea').value)")
    button(page, "Answer").click()
    assert "seconds of None" in answer_of(page)


def test_a_timeline_is_made_played_and_taken_along(server: Any, visit: Any, tmp_path: Path) -> None:
    page = visit()
    page.get_by_role("tab", name="Timeline").click()
    button(page, "Example: five synthetic voices").click()
    page.wait_for_selector("#recording .waveform-container", state="attached")
    button(page, "Make the timeline").click()
    page.locator("#timeline iframe").wait_for()
    inside = page.frame_locator("#timeline iframe")
    segments = inside.locator("#segments li")
    segments.first.wait_for()
    assert segments.count() >= 5
    with page.expect_download() as taken:
        page.locator("a[download='audio-timeline.srt']").click()
    taken.value.save_as(tmp_path / "taken.srt")
    assert (tmp_path / "taken.srt").read_text("utf-8").count(" --> ") == segments.count()
    # the sound is in the page, and a segment that is pressed is where it plays
    segments.nth(2).locator("button").click()
    begins = segments.nth(2).locator("button").inner_text().split()[0]
    told = inside.locator("audio").evaluate("audio => [audio.src.slice(0, 10), audio.currentTime]")
    minutes, seconds = begins.split(":")
    assert told[0] == "data:audio" and told[1] == pytest.approx(60 * int(minutes) + float(seconds), abs=2)
    sandbox = page.locator("#timeline iframe").get_attribute("sandbox")
    assert sandbox == "allow-scripts", "the page inside must not reach the one around it"


def test_errors_are_sentences_that_stay(visit: Any, tmp_path: Path) -> None:
    page = visit()
    button(page, "Answer").click()
    alert = page.locator("[role=status][aria-live]")  # which is read out to those who do not see it
    alert.get_by_text("nothing to answer; accepted: speech").wait_for()
    hostile = tmp_path / "notes <b>bold<b>.mp3"
    hostile.write_text("these are words")
    page.set_input_files("#speech input[type=file]", hostile)
    page.wait_for_selector("#speech .waveform-container, #speech audio", state="attached")
    button(page, "Answer").click()
    alert.get_by_text("holds no audio that can be read").wait_for()
    title = alert.locator(".toast-title").first
    assert "This cannot be answered" in title.evaluate("e => getComputedStyle(e, '::before').content")
    assert alert.locator("b").count() == 0
    assert "Traceback" not in page.locator("body").inner_text()


def test_an_answer_goes_with_what_it_answered(visit: Any, tmp_path: Path) -> None:
    page = visit()
    answer, why_not = page.locator("#answer"), page.get_by_role("button", name=re.compile("^Why not")).first

    def ask() -> None:
        button(page, "Answer").click()
        answer_of(page)
        why_not.wait_for()

    def is_gone() -> None:
        answer.get_by_text("The answer will be here.").wait_for()
        why_not.wait_for(state="hidden")

    take_example(page, ENGLISH)
    ask()
    page.get_by_label("Transcript").press_sequentially("?")  # the words change
    is_gone()
    ask()
    page.locator("#speech").get_by_label("Clear").click()  # the speech goes
    is_gone()
    ask()
    page.get_by_label("Transcript").fill("so kind " * 400)  # a change, and then a failure
    button(page, "Answer").click()
    page.locator("[role=status]").get_by_text("accepted: at most 256").wait_for()
    is_gone()


def test_an_answer_that_comes_after_a_change_is_not_shown(visit: Any) -> None:
    page = visit()
    page.get_by_label("Transcript").fill("so kind")
    page.evaluate(
        """() => new Promise(resolve => {
          document.querySelector("button.primary").click();
          const box = document.querySelector("textarea");
          box.value = "so unkind";
          box.dispatchEvent(new Event("input", {bubbles: true}));
          setTimeout(resolve, 5000);
        })"""
    )
    assert page.locator("#answer .mmsr-answer").count() == 0
    assert page.get_by_role("button", name=re.compile("^Why not")).count() == 0


def test_words_stay_words(visit: Any) -> None:
    hostile = "<img src=x onerror=alert(1)> ${7 * 7} {{ 7 * 7 }}"
    page = visit()
    page.get_by_label("Transcript").fill(hostile)
    button(page, "Answer").click()
    assert hostile in answer_of(page)
    assert page.locator("#answer img").count() == 0


def test_two_visitors_at_once_get_their_own(server: Any, visit: Any) -> None:
    pages = [visit(), visit()]
    for page, one in zip(pages, (TRIED[0], TRIED[1]), strict=True):
        take_example(page, one)
    for page in pages:
        button(page, "Answer").click(no_wait_after=True)
    for page, one in zip(pages, (TRIED[0], TRIED[1]), strict=True):
        expected = server.pipe({"audio": str(EXAMPLES / one["audio"]), "text": one["text"]})
        shown = answer_of(page)
        assert expected["rationale"] in shown and expected["label"] in shown
        assert page.locator("#answer .words").get_attribute("lang") == one["language"]


def test_it_is_used_by_keyboard_alone(visit: Any) -> None:
    page = visit()

    def tab_to(name: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.textContent.trim()") == name:
                width = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
                assert width == "3px", f"where the focus is cannot be seen at {name}"
                return
        raise AssertionError(f"no way to {name} by the tabulator")

    tab_to("Deutsch")
    page.keyboard.press("Enter")
    one = next(one for one in TRIED if one["language"] == "de")
    filled_in(page, one["text"])
    tab_to("Answer")
    page.keyboard.press("Enter")
    assert one["label"] in answer_of(page)
    tab_to("Why not positive?")
    page.keyboard.press("Enter")
    page.wait_for_selector("#answer dd")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(visit: Any, scheme: str) -> None:
    page = visit(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    take_example(page, ENGLISH)
    button(page, "Answer").click()
    answer_of(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    wide = """() => [...document.querySelectorAll("#answer *, button")]
        .filter(e => e.offsetParent && e.getBoundingClientRect().right > 361).map(e => e.outerHTML)"""
    assert page.evaluate(wide) == []
    # text against the ground it stands on (WCAG 2.2: 4.5)
    contrast = """() => {
      const rgb = (colour) => colour.match(/[\\d.]+/g).map(Number);
      const light = (colour) => rgb(colour).slice(0, 3)
        .map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
      const ground = (e) => {
        while (e) {
          const colour = getComputedStyle(e).backgroundColor, parts = rgb(colour);
          if (parts.length === 3 || parts[3] === 1) return colour;
          e = e.parentElement;
        }
        return "rgb(255, 255, 255)";
      };
      return [...document.querySelectorAll("p, button, label span, h1, #answer span")]
        .filter(e => e.offsetParent && e.textContent.trim() && !e.closest("[style*='background:rgba']"))
        .map(e => {
          const [a, b] = [light(getComputedStyle(e).color), light(ground(e))];
          return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.textContent.trim()];
        }).filter(([ratio]) => ratio < 4.5);
    }"""
    assert page.evaluate(contrast) == []
    page.get_by_role("tab", name="API").click()
    page.locator("#api pre").first.wait_for()
    code = page.locator("#api pre").first.inner_text()
    assert f'Client("{page.url.rstrip("/")}")' in code, "the address by which the page was opened"
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("#api pre").first.evaluate("e => e.scrollWidth > e.clientWidth"), "no scrolling"
    page.get_by_role("tab", name="Timeline").click()
    apart = """() => {
      const [label, icon] = ["label", ".icon-wrap"].map(
        name => document.querySelector("#cues " + name).getBoundingClientRect());
      return label.bottom <= icon.top || label.right <= icon.left;
    }"""
    assert page.evaluate(apart), "the label covers the icon"
    button(page, "Example: five synthetic voices").click()
    page.wait_for_selector("#recording .waveform-container", state="attached")
    button(page, "Make the timeline").click()
    page.frame_locator("#timeline iframe").locator("#segments li").first.wait_for()
    widths = set()
    for _ in range(8):  # it went back and forth once
        widths.add(page.evaluate("document.documentElement.scrollWidth"))
        page.wait_for_timeout(200)
    assert max(widths) <= 360

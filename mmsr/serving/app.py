"""A web page to try a model on: an utterance or a recording in; the answer, its reasons and the API out.

    browser ──────┐                                         ┌─► the answer's or the timeline's own HTML
                  ├─► limits ─► pipeline, one at a time ────┤   (inference.answer, inference.timeline.formats)
    gradio_client ┘                                         └─► JSON

Nothing is computed or drawn here that the pipeline and its answer do not know themselves. The page loads
nothing from anywhere else, and what visitors send is deleted after an hour, or earlier with the server.

The API, as the page documents it too:

    from gradio_client import Client, handle_file

    client = Client("http://127.0.0.1:7860")
    client.predict(handle_file("speech.wav"), "what was said", api_name="/predict")
    # {"label": ..., "score": ..., "scores": {...}, "rationale": ..., "attention": {...}}

`/predict` takes `audio` (a file), `text` (its transcript), `language` (a code such as `vi`) and
`forced_label` (to be explained instead of the predicted one); at least one of the first two. `/timeline`
takes `audio`, `transcript` (a file of words with times) and `language`, and answers with `summary` and
`segments`. With a recogniser there is `/transcribe`, of `audio` and `language`, which answers with the text.
"""

from __future__ import annotations

import functools
import html
import json
import os
import re
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from mmsr.data.audio.decoding import Audio
from mmsr.inference.answer import Answer
from mmsr.inference.pipeline import SentimentReasoningPipeline
from mmsr.inference.timeline.formats import stamp, write_timeline
from mmsr.inference.timeline.make import Timeline, make_timeline
from mmsr.inference.timeline.transcripts import read_cues
from mmsr.languages import NATIVE_NAMES
from mmsr.model.fusion import attention_map

if TYPE_CHECKING:
    from mmsr.speech.recogniser import Transcriber

EXAMPLES = Path(__file__).parents[1] / "examples"
"""Five spoken utterances and examples.json; experiments/package_examples.py makes them."""


_KEPT = 3600  # seconds that an upload is kept
_WAITING = 32  # requests; a further one is told to come back
# One at a time, of all kinds: while attention weights are read, the model computes attention in another way.
_ONE: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}

_INTRODUCTION = """# Sentiment, and the reason for it

Give speech, its transcript, or both. The model `{model}` says whether it is {labels}, and why.

**For trying the software. Not for use on patients, nor in any decision about a person.** What you send goes
to the machine that serves this page, and is deleted there after an hour, or earlier if the server ends.
"""
_API = """## The same from a program

```python
from gradio_client import Client, handle_file  # pip install gradio_client

client = Client("http://127.0.0.1:7860")  # the address of this page
answer = client.predict(
    audio=handle_file("speech.wav"),  # or None
    text="what was said",  # its transcript, or None
    language="en",  # or None
    forced_label=None,  # or {labels}: the reason if it were that
    api_name="/predict",
)
```

`answer` is a dict: `label`, `score` (its probability), `scores` (of every label), `rationale`{attention}.
With `forced_label` the label stays the predicted one and the rationale explains the forced one.{transcribe}

A whole recording is cut into segments, each of which is answered:

```python
timeline = client.predict(
    audio=handle_file("consultation.wav"),
    transcript=None,  # or handle_file("consultation.srt"): words with times, as SRT, VTT or a table
    language=None,  # what the recogniser is told, where there is one
    api_name="/timeline",
)
```

`timeline` has a `summary` and `segments`, each with `start` and `end` (seconds), `text`, `label`, `score`,
`scores` and `rationale`.

Accepted are files of at most {limits}. One request is answered at a time, the others wait in line. What
cannot be answered raises `gradio_client.exceptions.AppError` with a sentence that says what is accepted.
"""
_API_TRANSCRIBE = """

`client.predict(audio=..., language=None, api_name="/transcribe")` answers with the text that the recogniser
hears."""
_EMPTY = "<p>The answer will be here.</p>"
# A screen reader is told of a new answer; on a phone the answer is below what was asked.
_ANNOUNCED = """() => {
  const answer = document.querySelector("#answer");
  answer.setAttribute("role", "region");
  answer.setAttribute("aria-label", "Answer");
  answer.setAttribute("aria-live", "polite");
}"""
_SHOWN = '() => document.querySelector("#answer").scrollIntoView({block: "nearest"})'
# The page itself compares what is given with what was asked: at once, and a component may tell of one change
# twice, the second time after it was asked.
_GIVEN = "JSON.stringify(given.map(one => one?.path ?? one))"
_ASKED = "(...given) => {{ window.{name}_asked = " + _GIVEN + "; return given; }}"
_CHANGED = "(...given) => window.{name}_asked === " + _GIVEN + " ? [] : {cleared}"
_STYLE = """
.gradio-container { max-width: 72rem !important; margin-inline: auto !important; }
.dark { --color-accent: var(--primary-300); }
#speech { --neutral-400: var(--body-text-color-subdued); }
#answer { overflow-wrap: anywhere; }
#answer .mmsr-answer { max-width: none; }
.waveform-container { contain: inline-size; }  /* it would take the page's width with it, back and forth */
#timeline iframe { width: 100%; height: max(36rem, 85vh); border: 0; display: block; }
#api pre { overflow-x: auto; contain: inline-size; }  /* it would make the page as wide as its lines */
#api code { overflow-wrap: anywhere; }
/* Gradio sends an error's title, and shows its kind instead */
.toast-title.error { font-size: 0; }
.toast-title.error::before { content: "This cannot be answered"; font-size: var(--text-md); }
.toast-wrap { top: auto !important; bottom: 1rem; }
:focus-visible { outline: 3px solid #0072b2 !important; outline-offset: 2px; }
.dark :focus-visible { outline-color: #56b4e9 !important; }
"""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a visitor may send, in a file of at most `megabytes` (10^6 bytes).

    Attributes:
        seconds: Longest utterance.
        megabytes: Largest file.
        timeline_seconds: Longest recording of which a timeline is made.

    Raises:
        ValueError: One of them is not positive.
    """

    seconds: float = 60.0
    megabytes: float = 20.0
    timeline_seconds: float = 600.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise ValueError(f"max_{name} is {value:g}; accepted: above 0")

    def __str__(self) -> str:
        return (
            f"{self.megabytes:g} MB, of {self.seconds:g} seconds ({self.timeline_seconds:g} for a timeline)"
        )

    def check(self, path: str, *, timeline: bool = False) -> None:
        """Refuse a file before it is decoded.

        Args:
            path: The file.
            timeline: Whether a timeline is to be made of it.

        Raises:
            ValueError: It is larger or longer, or holds no audio; the message names it without its folders,
                which are the server's.
        """
        name = os.path.basename(path)
        if (megabytes := os.path.getsize(path) / 1e6) > self.megabytes:
            raise ValueError(f"{name} has {megabytes:.1f} MB; accepted: at most {self.megabytes:g} MB")
        with _without_folders(path):
            seconds = Audio.duration(path)
        if seconds > (most := self.timeline_seconds if timeline else self.seconds):
            raise ValueError(f"{name} lasts {seconds:.1f} s; accepted: at most {most:g} s")


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What the page and the API ask for; each method's errors are sentences for the visitor.

    Attributes:
        pipe: The model.
        limits: What visitors may send.
        transcribe: A recogniser, or None.
    """

    pipe: SentimentReasoningPipeline
    limits: Limits
    transcribe: Transcriber | None

    @property
    def attends(self) -> bool:
        """Whether the model's fusion has attention to be shown."""
        return bool(attention_map(self.pipe.model.config.fusion))

    def predict(
        self,
        audio: str | None = None,
        text: str | None = None,
        language: str | None = None,
        forced_label: str | None = None,
    ) -> dict[str, Any]:
        """Label, score, scores and rationale of speech, its transcript, or both."""
        with _sentences():
            forced = {"forced_label": forced_label} if forced_label else {}
            return dict(self._answer(audio, text, language, **forced))

    def show(self, audio: str | None, text: str | None, language: str | None) -> list[Any]:
        """The answer as HTML and as it is, and for each label whether it can be asked why it was not that."""
        with _sentences():
            found = self._answer(audio, text, language)
        explains = self.pipe.model.decoder is not None
        others = [label != found["label"] for label in self.pipe.model.config.labels]
        return [found._repr_html_(), found, *(gr.update(visible=explains and other) for other in others)]

    def why_not(self, found: Answer | None, label: str) -> tuple[str, Answer]:
        """An answer that also has the rationale under another label: as HTML, and as it is."""
        with _sentences():
            if found is None:
                raise ValueError("the answer was forgotten after an hour; accepted: ask again")
            said = self._answer(**found.utterance, forced_label=label)["rationale"]
        alternatives = {**found.get("alternatives", {}), label: said}
        found = Answer({**found, "alternatives": alternatives}, found.utterance)
        return found._repr_html_(), found

    def write(self, audio: str | None = None, language: str | None = None) -> str:
        """What the recogniser hears in speech."""
        assert self.transcribe is not None, "there is no button and no endpoint without one"
        with _sentences():
            if audio is None:
                raise ValueError("there is no speech to write down; accepted: a recording or a file")
            self._check_language(language)
            self.limits.check(audio)
            with _without_folders(audio):
                wave = Audio(self.pipe.processor.feature_extractor.sampling_rate)(audio)
            (said,) = self.transcribe([wave], [language or None])
            if not said.strip():
                raise ValueError("the recogniser heard no words; accepted: speech")
            return said.strip()

    def timeline(
        self, audio: str | None = None, transcript: str | None = None, language: str | None = None
    ) -> dict[str, Any]:
        """Summary and segments of a recording, each with label, score, scores and rationale."""
        with _sentences():
            made = self._timeline(audio, transcript, language)
            return {"summary": made.summary(), "segments": [part.as_row() for part in made.segments]}

    def show_timeline(
        self,
        audio: str | None,
        transcript: str | None,
        language: str | None,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - Gradio finds its place by the default
    ) -> Iterator[list[Any]]:
        """The timeline's page, and its files."""

        def tell(task: str, done: int, total: int) -> None:
            progress((done, total), desc=task, unit="")

        with _sentences(), tempfile.TemporaryDirectory(prefix="mmsr-timeline-") as folder:
            made = self._timeline(audio, transcript, language, progress=tell)
            name = Path(made.audio).stem
            files = [
                path.rename(path.with_stem(f"{name}-{path.stem}"))
                for path in write_timeline(made, folder, player="inline", progress=tell)
            ]
            (page,) = (path.read_text("utf-8") for path in files if path.suffix == ".html")
            # by the time it is asked for more, which there is not, Gradio has copied the files
            yield [_framed(page, name), gr.update(value=[str(path) for path in files], visible=True)]

    def _timeline(
        self, audio: str | None, transcript: str | None, language: str | None, progress: Any = None
    ) -> Timeline:
        if audio is None:
            raise ValueError("there is no recording; accepted: a recording or a file")
        self.limits.check(audio, timeline=True)
        with _without_folders(transcript):
            cues = None if transcript is None else read_cues(transcript)
        if cues is None:
            self._check_language(language)
        with _without_folders(audio):
            return make_timeline(
                audio,
                self.pipe,
                transcript=cues,
                transcriber=self.transcribe if cues is None else None,
                language=language or None,
                progress=progress,
            )

    def _check_language(self, language: str | None) -> None:
        """Refuse what the recogniser does not know; its own words have its folder, and a hundred codes."""
        try:
            if self.transcribe is not None:
                self.transcribe.check_language(language or None)
        except ValueError:
            raise ValueError(
                f"the recogniser does not know the language {language!r};"
                " accepted: a code such as en, or none"
            ) from None

    def _answer(self, audio: str | None, text: str | None, language: str | None, **options: Any) -> Answer:
        text = (text or "").strip() or None
        if audio is None and text is None:
            raise ValueError(
                "nothing to answer; accepted: speech (recorded or a file), its transcript, or both"
            )
        if audio is not None:
            self.limits.check(audio)
        if text is not None:
            _check_words(self.pipe, text)
        with _without_folders(audio):
            found = self.pipe({"audio": audio, "text": text}, attention=self.attends, **options)
        return Answer(found, {"audio": audio, "text": text, "language": language or None})


def make_app(
    pipe: SentimentReasoningPipeline,
    *,
    transcribe: Transcriber | None = None,
    limits: Limits | None = None,
    name: str = "demo",
) -> gr.Blocks:
    """The page and its API, ready to be launched.

    Args:
        pipe: The model.
        transcribe: A recogniser, for the button that writes the transcript and for the words of timelines.
        limits: What visitors may send.
        name: How the page calls the model.
    """
    desk = Desk(pipe=pipe, limits=limits or Limits(), transcribe=transcribe)
    with gr.Blocks(
        title="mmsr: sentiment and the reason for it",
        analytics_enabled=False,
        delete_cache=(_KEPT // 60, _KEPT),
    ) as app:
        gr.Markdown(_INTRODUCTION.format(model=name, labels=_listed(pipe.model.config.labels)))
        with gr.Tab("Utterance"):
            _utterance(desk)
        with gr.Tab("Timeline"):
            _recording(desk)
        with gr.Tab("API"):
            gr.Markdown(_api_text(desk), elem_id="api")
        app.load(None, js=_ANNOUNCED, api_visibility="private")
    return app.queue(max_size=_WAITING)


def _utterance(desk: Desk) -> None:
    """What is asked on the left, the answer on the right; on a phone one below the other."""
    labels = desk.pipe.model.config.labels
    gr.set_static_paths([EXAMPLES])
    examples = _examples()
    with gr.Row():
        with gr.Column():
            gr.Markdown("Examples, in synthetic voices:")
            with gr.Row():
                tries = [
                    gr.Button(NATIVE_NAMES[one["language"]], size="sm", min_width=80) for one in examples
                ]
            audio = gr.Audio(
                label="Speech",
                sources=["upload", "microphone"],
                type="filepath",
                buttons=[],
                elem_id="speech",
            )
            text = gr.Textbox(
                label="Transcript",
                info="What is said. Without it the voice alone is judged, without speech the words.",
                lines=3,
                max_lines=8,
            )
            language = _languages("For the recogniser and for screen readers; others as a code, such as ja.")
            if desk.transcribe is not None:
                heard = gr.Button("Write the transcript from the speech")
            asked = gr.Button("Answer", variant="primary")
        with gr.Column():
            shown = gr.HTML(_EMPTY, elem_id="answer", container=True, padding=True, min_height=200)
            with gr.Row():
                others = [gr.Button(f"Why not {label}?", size="sm", visible=False) for label in labels]
    answered = gr.State(None, time_to_live=_KEPT)
    given = [audio, text, language]
    for button, one in zip(tries, examples, strict=True):
        button.click(
            lambda one=one: (str(EXAMPLES / one["audio"]), one["text"], one["language"]),
            outputs=given,
            api_visibility="private",
        )
    private: dict[str, Any] = {"show_progress_on": shown, "api_visibility": "private", **_ONE}
    stale = _Stale("answer", given, shown, empty=_EMPTY, hidden=others, state=answered)
    show = gr.on(
        [asked.click, text.submit], desk.show, given, [shown, answered, *others], js=stale.asked, **private
    )
    stale.clears(show)
    show.success(None, js=_SHOWN, api_visibility="private")
    for button, label in zip(others, labels, strict=True):
        why_not = functools.partial(desk.why_not, label=label)
        stale.clears(button.click(why_not, answered, [shown, answered], **private))
    if desk.transcribe is not None:
        heard.click(desk.write, [audio, language], text, api_name="transcribe", **_ONE)
    # the page's own buttons answer with HTML; these components are the API's, and nobody sees them
    forced, data = gr.Textbox(visible=False), gr.JSON(visible=False)
    gr.Button(visible=False).click(desk.predict, [*given, forced], data, api_name="predict", **_ONE)


def _recording(desk: Desk) -> None:
    """A recording above, its timeline below in the whole width."""
    recogniser = desk.transcribe is not None
    gr.Markdown(
        f"A recording of at most {desk.limits.timeline_seconds / 60:g} minutes is cut where nobody speaks; "
        "each segment has a label and a reason, under a player whose cursor walks over them."
        + (" Without a transcript the recogniser hears the words." if recogniser else "")
    )
    with gr.Row():
        with gr.Column():
            example = gr.Button("Example: the five synthetic voices, one after another", size="sm")
            audio = gr.Audio(
                label="Recording",
                sources=["upload", "microphone"],
                type="filepath",
                buttons=[],
                elem_id="recording",
            )
        with gr.Column():
            transcript = gr.File(
                label="Transcript with times (SRT, VTT or a table)",
                file_types=[".srt", ".vtt", ".csv", ".tsv", ".jsonl"],
                type="filepath",
                height=170,
                elem_id="cues",
            )
            language = _languages("What the recogniser is told is spoken.", visible=recogniser)
            asked = gr.Button("Make the timeline", variant="primary")
    empty = "<p>The timeline will be here.</p>"
    shown = gr.HTML(empty, elem_id="timeline", container=True, min_height=120)
    left = gr.File(label="Timeline as files", file_count="multiple", interactive=False, visible=False)
    example.click(_one_after_another, None, [audio, transcript], api_visibility="private")
    given = [audio, transcript, language]
    stale = _Stale("timeline", given, shown, empty=empty, hidden=[left])
    private: dict[str, Any] = {"show_progress_on": shown, "api_visibility": "private", **_ONE}
    stale.clears(asked.click(desk.show_timeline, given, [shown, left], js=stale.asked, **private))
    data = gr.JSON(visible=False)
    gr.Button(visible=False).click(desk.timeline, given, data, api_name="timeline", **_ONE)


class _Stale:
    """Clears what is shown once it no longer answers what is given: on a change, and where asking fails.

    Args:
        name: Of what is shown, a word.
        given: What is asked with.
        shown: Where the answer is.
        empty: What is there before anything was asked.
        hidden: What is seen beside an answer only.
        state: Where the answer is kept.
    """

    def __init__(
        self,
        name: str,
        given: Sequence[Any],
        shown: gr.HTML,
        *,
        empty: str,
        hidden: Sequence[Any],
        state: gr.State | None = None,
    ):
        self.given = given
        self.outputs = [shown, *hidden]
        self.updates = [gr.update(value=empty), *(gr.update(visible=False) for _ in hidden)]
        self.state = [] if state is None else [state]
        self.asked = _ASKED.format(name=name)
        self.changed = _CHANGED.format(name=name, cleared=json.dumps(self.updates))
        changes = [component.change for component in given]
        # not the state: without its buttons nobody asks for it, and on its way it could meet the next answer
        gr.on(changes, None, given, self.outputs, js=self.changed, api_visibility="private")

    def clears(self, asking: Any) -> None:
        """Clear after this event too, if it fails or was overtaken by a change."""
        asking.success(None, self.given, self.outputs, js=self.changed, api_visibility="private")
        cleared = [*self.updates, *(None for _ in self.state)]
        asking.failure(
            lambda: cleared, None, [*self.outputs, *self.state], api_visibility="private", queue=False
        )


def _languages(info: str, *, visible: bool = True) -> gr.Dropdown:
    choices = [(name, code) for code, name in NATIVE_NAMES.items()]
    return gr.Dropdown(
        choices, value=None, label="Language", info=info, allow_custom_value=True, visible=visible
    )


def _one_after_another() -> Iterator[tuple[tuple[int, np.ndarray], str]]:
    """The examples with a second of silence after each, as Gradio takes sound, and what is said when."""
    rate, read, waves, cues, at = 16_000, Audio(16_000), [], [], 0.0
    for one in _examples():
        waves.append(np.pad(read(str(EXAMPLES / one["audio"])), (0, rate)))
        end = at + len(waves[-1]) / rate
        cues.append(f"{stamp(at, ',')} --> {stamp(end - 1, ',')}\n{one['text']}\n")
        at = end
    with tempfile.TemporaryDirectory(prefix="mmsr-example-") as folder:
        words = Path(folder) / "five-voices.srt"
        words.write_text("\n".join(cues), encoding="utf-8")
        yield (rate, (np.concatenate(waves) * 32767).astype(np.int16)), str(words)


def _examples() -> list[dict[str, str]]:
    return json.loads((EXAMPLES / "examples.json").read_text(encoding="utf-8"))


def _framed(page: str, name: str) -> str:
    """A page of its own, whose scripts reach nothing of the page around it."""
    name, page = html.escape(name), html.escape(page)
    return f'<iframe title="Timeline of {name}" sandbox="allow-scripts" srcdoc="{page}"></iframe>'


def launch(app: gr.Blocks, *, port: int | None = None, share: bool = False, megabytes: float) -> str:
    """Serve an app in the background; `app.block_thread()` waits for its end.

    It answers this machine alone, unless the environment's GRADIO_SERVER_NAME says otherwise (`0.0.0.0`).

    Args:
        app: From `make_app`.
        port: By default the first that is free from 7860 on.
        share: Also through a public address of gradio.live, for which Gradio loads a program.
        megabytes: Largest file that is taken in.

    Returns:
        The page's address.

    Raises:
        OSError: The port is taken, or all of them.
    """
    sans = ("system-ui", "sans-serif")  # no font is loaded
    theme = gr.themes.Default(primary_hue="blue", font=sans, font_mono=("ui-monospace", "monospace")).set(
        # Gradio's own greys and blues are too pale to be read by all (WCAG 2.2 asks for a contrast of 4.5)
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_title_text_color="*neutral_700",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        color_accent="*primary_600",
    )
    try:
        _, local, public = app.launch(
            server_port=port,
            share=share,
            max_file_size=int(megabytes * 1e6),
            prevent_thread_lock=True,
            quiet=True,
            ssr_mode=False,
            footer_links=["settings"],
            theme=theme,
            css=_STYLE,
        )
    except OSError as error:
        if (tried := re.search(r"empty port in range: (\d+)-(\d+)", str(error))) is None:
            raise
        first, last = tried.groups()
        taken = f"port {first} is" if first == last else f"ports {first} to {last} are"
        raise OSError(f"{taken} taken, or not ours to take; accepted: --port with a free one") from None
    return public or local


@contextmanager
def uploads_folder() -> Iterator[None]:
    """While an app is made and served: a folder for all that visitors send, which goes with the server.

    It lies within GRADIO_TEMP_DIR, if that is set. SIGTERM and the end of the terminal interrupt the server
    as Ctrl-C does, so that they leave nothing behind either.
    """
    above = os.environ.get("GRADIO_TEMP_DIR")
    if above:
        os.makedirs(above, exist_ok=True)
    ends = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    ends = [end for end in ends if signal.getsignal(end) is signal.SIG_DFL]  # nohup ignores the second
    for end in ends:
        signal.signal(end, signal.default_int_handler)
    before = tempfile.tempdir
    try:
        # what is still being written when the server ends must not keep the rest from being deleted
        with tempfile.TemporaryDirectory(prefix="mmsr-app-", dir=above, ignore_cleanup_errors=True) as folder:
            # apart, since Gradio takes what lies in its own for its own, which stays for an hour
            theirs, ours = Path(folder, "gradio"), Path(folder, "mmsr")
            theirs.mkdir()
            ours.mkdir()
            os.environ["GRADIO_TEMP_DIR"], tempfile.tempdir = str(theirs), str(ours)
            yield
    finally:
        tempfile.tempdir = before
        os.environ.pop("GRADIO_TEMP_DIR", None)
        if above:
            os.environ["GRADIO_TEMP_DIR"] = above
        for end in ends:
            signal.signal(end, signal.SIG_DFL)


def _check_words(pipe: SentimentReasoningPipeline, text: str) -> None:
    """Refuse a transcript that the processor would cut, which nobody who sees the page would know."""
    processor = pipe.processor
    tokens = len(processor.tokenizer(processor.text_prefix + text)["input_ids"])
    if tokens > (most := processor.tokenizer.model_max_length):
        raise ValueError(f"the transcript has {tokens:,} tokens; accepted: at most {most:,} (a shorter one)")


@contextmanager
def _without_folders(path: str | None) -> Iterator[None]:
    """Errors name a file as the visitor does: where the server keeps it is the server's."""
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error).replace(path, os.path.basename(path)) if path else str(error)) from None


@contextmanager
def _sentences() -> Iterator[None]:
    """What is wrong with the visitor's input as a sentence, which stays until it is closed."""
    try:
        yield
    except ValueError as error:
        message = html.escape(str(error), quote=False)  # the page takes it for HTML
        raise gr.Error(
            message, duration=None, title="This cannot be answered", print_exception=False
        ) from None


def _listed(labels: Sequence[str]) -> str:
    return " or ".join([", ".join(labels[:-1]), labels[-1]] if len(labels) > 1 else labels)


def _api_text(desk: Desk) -> str:
    return _API.format(
        labels=_listed([f'"{label}"' for label in desk.pipe.model.config.labels]),
        attention=", `attention` (weights of words and of moments)" if desk.attends else "",
        transcribe=_API_TRANSCRIBE if desk.transcribe is not None else "",
        limits=desk.limits,
    )

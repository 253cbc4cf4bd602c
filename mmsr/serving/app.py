"""A web page to try a model on: an utterance or a recording in; the answer and its reasons out.

    browser ──────┐                                         ┌─► HTML of the answer or the timeline
                  ├─► limits ─► pipeline, one at a time ────┤   (inference.answer, inference.timeline.formats)
    gradio_client ┘                                         └─► JSON

The page loads nothing from other servers. Uploads are deleted after an hour, or earlier with the server. Its
API has the endpoints `/predict`, `/timeline` and, with a recogniser, `/transcribe`; `_API` documents them.
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
from mmsr.data.storage import digest
from mmsr.inference.answer import Answer
from mmsr.inference.pipeline import SentimentReasoningPipeline
from mmsr.inference.timeline.formats import stamp, write_timeline
from mmsr.inference.timeline.make import Timeline, make_timeline
from mmsr.inference.timeline.transcripts import ENDINGS, read_cues
from mmsr.languages import NATIVE_NAMES
from mmsr.model.fusion import attention_map
from mmsr.model.packaged import DEFAULT
from mmsr.records import SAMPLE_RATE, Chunk

if TYPE_CHECKING:
    from mmsr.speech.recogniser import Transcriber

EXAMPLES = Path(__file__).parents[1] / "examples"
"""Five synthetic voices and examples.json, and the same of four people in the folder `people`.

experiments/package_examples.py makes them.
"""

_KEPT = 3600  # seconds that an upload is kept
_WAITING = 32  # requests in the queue; further ones are refused
# One request at a time of all kinds: while attention is extracted, the model computes it in another way.
_ONE: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}

_INTRODUCTION = """# {title}

Give speech, its transcript, or both. The model `{model}` predicts whether it is {labels}{why}.

**For trying the software. Not for use on patients, nor in any decision about a person.** What you send goes
to the machine that serves this page, and is deleted there after an hour, or earlier if the server ends.
"""
_API = (Path(__file__).parent / "api.md").read_text(encoding="utf-8")
_API_FORCED = """
    forced_label=None,  # or {labels}: the reason if it were that"""
_API_EXPLAINED = """
With `forced_label` the label stays the predicted one and the rationale explains the forced one."""
_API_TRANSCRIBE = """

`client.predict(audio=..., language=None, api_name="/transcribe")` answers with the recogniser's text."""
_ADDRESS = "http://127.0.0.1:7860"
# The browser alone knows by which address the page was opened: another port, host or path.
_HERE = "(location.origin + location.pathname).replace(/\\/$/, '')"
_ADDRESSED = "() => {}.replaceAll('" + _ADDRESS + "', " + _HERE + ")"
_EMPTY = "<p>The answer will be here.</p>"
# A screen reader announces a new answer; on a phone the page scrolls to it.
_ANNOUNCED = """() => {
  const answer = document.querySelector("#answer");
  answer.setAttribute("role", "region");
  answer.setAttribute("aria-label", "Answer");
  answer.setAttribute("aria-live", "polite");
}"""
_SHOWN = '() => document.querySelector("#answer").scrollIntoView({block: "nearest"})'
# The browser compares the inputs with those of the last request, since a component may report one change
# twice, the second time after the request.
_GIVEN = "JSON.stringify(given.slice(0, 3).map(value => value?.path ?? value))"  # without states
_ASKED = "(...given) => {{ window.{name}_asked = " + _GIVEN + "; return given; }}"
_CHANGED = "(...given) => window.{name}_asked === " + _GIVEN + " ? [] : {cleared}"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a visitor may send.

    Attributes:
        seconds: Longest utterance.
        megabytes: Largest file, in 10^6 bytes.
        timeline_seconds: Longest recording for a timeline.

    Raises:
        ValueError: A limit is not positive.
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

        Raises:
            ValueError: It is too large or too long, or not audio; the message names it without its folders.
        """
        name = os.path.basename(path)
        if (megabytes := os.path.getsize(path) / 1e6) > self.megabytes:
            raise ValueError(f"{name} has {megabytes:.1f} MB; accepted: at most {self.megabytes:g} MB")
        with _without_folders(path):
            seconds = Audio.duration(path)
        if seconds > (most := self.timeline_seconds if timeline else self.seconds):
            raise ValueError(f"{name} lasts {seconds:.1f} s; accepted: at most {most:g} s")


@dataclass(frozen=True, kw_only=True)
class Heard:
    """Words of a recogniser with their times, None if it gives none, and which sound they are of."""

    digest: str
    words: tuple[Chunk, ...] | None


@dataclass(frozen=True, kw_only=True)
class Desk:
    """The functions behind the page and the API; their errors are messages for the visitor."""

    pipe: SentimentReasoningPipeline
    limits: Limits
    transcribe: Transcriber | None

    @property
    def explains(self) -> bool:
        """Whether the model writes rationales."""
        return self.pipe.model.writes_rationales

    @property
    def attends(self) -> bool:
        """Whether the model's fusion has attention to show."""
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
            return dict(self._answer(audio, text, language, forced_label=forced_label or None))

    def show(
        self, audio: str | None, text: str | None, language: str | None, heard: Heard | None = None
    ) -> list[Any]:
        """The answer as HTML, the answer itself, and for each label an update of its button "Why not"."""
        with _sentences():
            words = heard.words if heard and audio and heard.digest == digest(audio).hex() else None
            found = self._answer(audio, text, language, words)
        others = [label != found["label"] for label in self.pipe.model.config.labels]
        return [
            found.html(player=False),
            found,
            *(gr.update(visible=self.explains and other) for other in others),
        ]

    def why_not(self, found: Answer | None, label: str) -> tuple[str, Answer]:
        """Add the rationale under another label to an answer; as HTML, and the answer itself."""
        with _sentences():
            if found is None:
                raise ValueError("the answer was forgotten after an hour; accepted: ask again")
            rationale = self._answer(**found.utterance, forced_label=label)["rationale"]
        alternatives = {**found.get("alternatives", {}), label: rationale}
        found = Answer({**found, "alternatives": alternatives}, found.utterance)
        return found.html(player=False), found

    def write(self, audio: str | None = None, language: str | None = None) -> tuple[str, Heard]:
        """Transcribe speech; also tells when each word was said, which holds when the text is edited."""
        assert self.transcribe is not None, "there is no button and no endpoint without one"
        with _sentences():
            if audio is None:
                raise ValueError("there is no speech to write down; accepted: a recording or a file")
            self._check_language(language)
            self.limits.check(audio)
            with _without_folders(audio):
                wave = Audio(self.pipe.processor.feature_extractor.sampling_rate)(audio)
            (found,) = self.transcribe.transcribe([wave], languages=[language or None])
            if not found.text.strip():
                raise ValueError("the recogniser heard no words; accepted: speech")
            words = found.chunks if self.transcribe.timestamps == "word" else None
            return found.text.strip(), Heard(digest=digest(audio).hex(), words=words)

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

        def show(task: str, done: int, total: int) -> None:
            progress((done, total), desc=task, unit="")

        with _sentences(), tempfile.TemporaryDirectory(prefix="mmsr-timeline-") as folder:
            made = self._timeline(audio, transcript, language, progress=show)
            name = Path(made.audio).stem
            files = [
                path.rename(path.with_stem(f"{name}-{path.stem}"))
                for path in write_timeline(made, folder, player="inline", progress=show)
            ]
            (page,) = (path.read_text("utf-8") for path in files if path.suffix == ".html")
            # a generator, so that Gradio has copied the files when the folder goes
            yield [_framed(page, name), gr.update(value=[str(path) for path in files], visible=True)]

    def _timeline(
        self, audio: str | None, transcript: str | None, language: str | None, progress: Any = None
    ) -> Timeline:
        if audio is None:
            raise ValueError("there is no recording; accepted: a recording or a file")
        self.limits.check(audio, timeline=True)
        with _without_folders(transcript):
            cues = None if transcript is None else read_cues(transcript, language=language or None)
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
        """Refuse an unknown language in short; the recogniser's message has its folder and all its codes."""
        try:
            if self.transcribe is not None:
                self.transcribe.check_language(language or None)
        except ValueError:
            unknown = f"the recogniser does not know the language {language!r}"
            raise ValueError(f"{unknown}; accepted: a code such as en, or none") from None

    def _answer(
        self,
        audio: str | None,
        text: str | None,
        language: str | None,
        asr_words: Sequence[Chunk] | None = None,
        **options: Any,
    ) -> Answer:
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
            given = {"audio": audio, "text": text, "language": language or None, "asr_words": asr_words}
            answer: Answer = self.pipe(given, attention=self.attends, **options)
        return answer


def make_app(
    pipe: SentimentReasoningPipeline,
    *,
    transcribe: Transcriber | None = None,
    limits: Limits | None = None,
    name: str = DEFAULT,
) -> gr.Blocks:
    """Make the page and its API.

    Args:
        pipe: Pipeline of the model.
        transcribe: A recogniser, for the transcript of an utterance and the words of timelines.
        limits: What visitors may send.
        name: Name of the model on the page.
    """
    desk = Desk(pipe=pipe, limits=limits or Limits(), transcribe=transcribe)
    title = "Sentiment, and the reason for it" if desk.explains else "Sentiment of speech and words"
    with gr.Blocks(
        title=f"mmsr: {title[0].lower()}{title[1:]}",
        analytics_enabled=False,
        delete_cache=(_KEPT // 60, _KEPT),
    ) as app:
        labels, why = _listed(pipe.model.config.labels), ", and why" if desk.explains else ""
        gr.Markdown(_INTRODUCTION.format(title=title, model=name, labels=labels, why=why))
        with gr.Tab("Utterance"):
            _utterance(desk)
        with gr.Tab("Timeline"):
            _recording(desk)
        with gr.Tab("API"):
            text = _api_text(desk)
            api = gr.Markdown(text, elem_id="api")
        app.load(None, js=_ANNOUNCED, api_visibility="private")
        app.load(None, outputs=api, js=_ADDRESSED.format(json.dumps(text)), api_visibility="private")
    return app.queue(max_size=_WAITING)


def _utterance(desk: Desk) -> None:
    """The tab of an utterance: inputs on the left, the answer on the right; on a phone below each other."""
    labels = desk.pipe.model.config.labels
    gr.set_static_paths([EXAMPLES])
    people, voices = _examples("people"), _examples()
    with gr.Row():
        with gr.Column():
            gr.Markdown("Examples of people who act an emotion, re-synthesised from CREMA-D:")
            with gr.Row():
                tries = [gr.Button(one["emotion"], size="sm", min_width=80) for one in people]
            gr.Markdown("Examples in synthetic voices:")
            with gr.Row():
                tries += [gr.Button(NATIVE_NAMES[one["language"]], size="sm", min_width=80) for one in voices]
            audio = _sound("Speech", "speech")
            text = gr.Textbox(
                label="Transcript",
                info="What is said. Without it the voice alone is judged, without speech the words.",
                lines=3,
                max_lines=8,
            )
            language = _languages("For the recogniser and for screen readers; others as a code, such as ja.")
            if desk.transcribe is not None:
                transcribe = gr.Button("Write the transcript from the speech")
            asked = gr.Button("Answer", variant="primary")
        with gr.Column():
            shown = gr.HTML(_EMPTY, elem_id="answer", container=True, padding=True, min_height=200)
            with gr.Row():
                others = [gr.Button(f"Why not {label}?", size="sm", visible=False) for label in labels]
    answered, heard = (gr.State(None, time_to_live=_KEPT) for _ in range(2))
    given = [audio, text, language]
    for button, example in zip(tries, [*people, *voices], strict=True):
        filled = (example["audio"], example["text"], example["language"])
        button.click(lambda filled=filled: filled, outputs=given, api_visibility="private")
    private: dict[str, Any] = {"show_progress_on": shown, "api_visibility": "private", **_ONE}
    stale = _Stale("answer", given, shown, empty=_EMPTY, hidden=others, state=answered)
    show = gr.on(
        [asked.click, text.submit],
        desk.show,
        [*given, heard],
        [shown, answered, *others],
        js=stale.asked,
        **private,
    )
    stale.clears(show)
    show.success(None, js=_SHOWN, api_visibility="private")
    for button, label in zip(others, labels, strict=True):
        why_not = functools.partial(desk.why_not, label=label)
        stale.clears(button.click(why_not, answered, [shown, answered], **private))
    if desk.transcribe is not None:
        transcribe.click(desk.write, [audio, language], [text, heard], api_name="transcribe", **_ONE)
    # the page's own buttons answer with HTML; these invisible components are the API
    forced, data = gr.Textbox(visible=False), gr.JSON(visible=False)
    gr.Button(visible=False).click(desk.predict, [*given, forced], data, api_name="predict", **_ONE)


def _recording(desk: Desk) -> None:
    """The tab of a recording: inputs above, the timeline below in the whole width."""
    recogniser = desk.transcribe is not None
    gr.Markdown(
        f"A recording of at most {desk.limits.timeline_seconds / 60:g} minutes is cut where nobody speaks; "
        f"each segment has a label{' and a reason' if desk.explains else ''}, under a player whose cursor "
        "walks over them." + (" Without a transcript the recogniser writes the words." if recogniser else "")
    )
    with gr.Row():
        with gr.Column():
            with gr.Row():
                people = gr.Button("Example: four people, re-synthesised", size="sm")
                voices = gr.Button("Example: five synthetic voices", size="sm")
            audio = _sound("Recording", "recording")
        with gr.Column():
            transcript = gr.File(
                label="Transcript with times (SRT, VTT or a table)",
                file_types=list(ENDINGS),
                type="filepath",
                height=170,
                elem_id="cues",
            )
            language = _languages("Spoken language, for the recogniser.", visible=recogniser)
            asked = gr.Button("Make the timeline", variant="primary")
    empty = "<p>The timeline will be here.</p>"
    shown = gr.HTML(empty, elem_id="timeline", container=True, min_height=120)
    left = gr.File(label="Timeline as files", file_count="multiple", interactive=False, visible=False)
    for example, folder in ((people, "people"), (voices, "")):
        play = functools.partial(_one_after_another, folder)
        example.click(play, None, [audio, transcript], api_visibility="private")
    given = [audio, transcript, language]
    stale = _Stale("timeline", given, shown, empty=empty, hidden=[left])
    private: dict[str, Any] = {"show_progress_on": shown, "api_visibility": "private", **_ONE}
    stale.clears(asked.click(desk.show_timeline, given, [shown, left], js=stale.asked, **private))
    data = gr.JSON(visible=False)
    gr.Button(visible=False).click(desk.timeline, given, data, api_name="timeline", **_ONE)


class _Stale:
    """Clears an answer that no longer belongs to the inputs: after a change, and after an error.

    `shown` shows the answer, or `empty` before the first one; `hidden` are visible only beside an answer, and
    `state` keeps it.
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
        # not the state: without its buttons nothing reads it, and it could overwrite the next answer
        gr.on(changes, None, given, self.outputs, js=self.changed, api_visibility="private")

    def clears(self, asking: Any) -> None:
        """Clear after this event too, if it fails or the inputs have changed since."""
        asking.success(None, self.given, self.outputs, js=self.changed, api_visibility="private")
        cleared = [*self.updates, *(None for _ in self.state)]
        asking.failure(
            lambda: cleared, None, [*self.outputs, *self.state], api_visibility="private", queue=False
        )


def _sound(label: str, elem_id: str) -> gr.Audio:
    sources: Any = ["upload", "microphone"]
    return gr.Audio(label=label, sources=sources, type="filepath", buttons=[], elem_id=elem_id)


def _languages(info: str, *, visible: bool = True) -> gr.Dropdown:
    choices = [(name, code) for code, name in NATIVE_NAMES.items()]
    return gr.Dropdown(
        choices, value=None, label="Language", info=info, allow_custom_value=True, visible=visible
    )


def _one_after_another(folder: str = "") -> Iterator[tuple[tuple[int, np.ndarray], str]]:
    """The examples as one recording, silence around each, and an SRT file of their words."""
    rate, read, cues, at = SAMPLE_RATE, Audio(), [], 1.0
    waves = [np.zeros(rate, dtype=np.float32)]  # speech that begins at once may not be found
    for example in _examples(folder):
        waves.append(np.pad(read(example["audio"]), (0, rate)))
        end = at + len(waves[-1]) / rate
        cues.append(f"{stamp(at, ',')} --> {stamp(end - 1, ',')}\n{example['text']}\n")
        at = end
    with tempfile.TemporaryDirectory(prefix="mmsr-example-") as temporary:
        words = Path(temporary) / f"{folder or 'voices'}.srt"
        words.write_text("\n".join(cues), encoding="utf-8")
        yield (rate, (np.concatenate(waves) * 32767).astype(np.int16)), str(words)


def _examples(folder: str = "") -> list[dict[str, str]]:
    """The examples of a folder, with the paths of their sounds."""
    listed = json.loads((EXAMPLES / folder / "examples.json").read_text(encoding="utf-8"))
    return [example | {"audio": str(EXAMPLES / folder / example["audio"])} for example in listed]


def _framed(page: str, name: str) -> str:
    """A page in a sandboxed frame, whose scripts cannot reach the page around it."""
    name, page = html.escape(name), html.escape(page)
    return f'<iframe title="Timeline of {name}" sandbox="allow-scripts" srcdoc="{page}"></iframe>'


def launch(app: gr.Blocks, *, port: int | None = None, share: bool = False, megabytes: float) -> str:
    """Serve an app in the background; `app.block_thread()` waits for its end.

    It answers this machine alone, unless GRADIO_SERVER_NAME is set, such as to `0.0.0.0`.

    Args:
        app: From `make_app`.
        port: Port of the page; by default the first free one from 7860 on.
        share: Also serve it at a public address of gradio.live, for which Gradio downloads a program.
        megabytes: Largest file that is accepted.

    Returns:
        The page's address.

    Raises:
        OSError: The port is taken, or all ports are.
    """
    sans = ("system-ui", "sans-serif")  # no font is loaded
    theme = gr.themes.Default(primary_hue="blue", font=sans, font_mono=("ui-monospace", "monospace")).set(
        # Gradio's own greys and blues are too pale (WCAG 2.2 asks for a contrast of 4.5)
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
            css_paths=Path(__file__).parent / "page.css",
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
    """A folder for all uploads while an app is made and served; it is deleted at the end.

    It lies in GRADIO_TEMP_DIR, if that is set. SIGTERM and SIGHUP interrupt the server as Ctrl-C does, and
    delete it too.
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
        # a file that is still being written must not keep the others from being deleted
        with tempfile.TemporaryDirectory(prefix="mmsr-app-", dir=above, ignore_cleanup_errors=True) as folder:
            # two folders, since Gradio keeps all files in its own for an hour
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
    """Refuse a transcript that the processor would truncate without a message."""
    processor = pipe.processor
    tokens = len(processor.tokenizer(processor.text_prefix + text)["input_ids"])
    if tokens > (most := processor.tokenizer.model_max_length):
        raise ValueError(f"the transcript has {tokens:,} tokens; accepted: at most {most:,} (a shorter one)")


@contextmanager
def _without_folders(path: str | None) -> Iterator[None]:
    """Take the server's folders out of errors, which name a file as the visitor does."""
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error).replace(path, os.path.basename(path)) if path else str(error)) from None


@contextmanager
def _sentences() -> Iterator[None]:
    """Turn a ValueError into a message on the page, which stays until it is closed."""
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
    labels = _listed([f'"{label}"' for label in desk.pipe.model.config.labels])
    return _API.format(
        address=_ADDRESS,
        forced=_API_FORCED.format(labels=labels) if desk.explains else "",
        rationale=", `rationale`" if desk.explains else "",
        explained=_API_EXPLAINED if desk.explains else "",
        attention=", `attention` (weights of words and of moments)" if desk.attends else "",
        transcribe=_API_TRANSCRIBE if desk.transcribe is not None else "",
        limits=desk.limits,
    )

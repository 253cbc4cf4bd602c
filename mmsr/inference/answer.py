"""An answer that a notebook shows with sound, words, probabilities, rationales and attention.

The HTML contains its sound, runs no script and loads nothing.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import pairwise
from typing import Any

import numpy as np

from mmsr.data.audio.decoding import Audio, AudioError
from mmsr.inference.template import phrase_language, written_in
from mmsr.languages import is_language_code, language_code
from mmsr.model.outliers import OUTLIER_REASONS
from mmsr.quotations import quoted_parts
from mmsr.records import SAMPLE_RATE
from mmsr.speech.timing import sounding

_LONGEST = 60.0  # seconds of sound in a page
_AROUND = 0.15  # seconds of sound around quoted words, whose times are not exact
_TIMED_BY = {
    "recogniser": "by the recogniser",
    "interpolated": "between words that the recogniser timed",
    "proportional": "by the length of the words",
}
_BINS = 240  # of the waveform's outline
_OPACITY = 0.6  # of the largest weight, so that text on it stays readable


class Answer(dict[str, Any]):
    """A pipeline's answer: a dict that notebooks show as HTML.

    Args:
        answer: The pipeline's output for an utterance.
        utterance: `audio` as the caller gave it, which is decoded when it is shown, `text`, `language` and
            `asr_words`.
    """

    def __init__(self, answer: Mapping[str, Any] = {}, utterance: Mapping[str, Any] | None = None) -> None:
        super().__init__(answer)
        self.utterance = dict(utterance or {})

    def _repr_html_(self) -> str:
        """The answer as IPython shows it."""
        return self.html()

    def html(self, *, player: bool = True) -> str:
        """The answer as HTML, with a player of its sound unless the page around it has one."""
        from jinja2 import Environment, StrictUndefined

        environment = Environment(
            autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters["timed_in_words"] = timed_in_words
        template = environment.from_string(
            files("mmsr.inference").joinpath("answer.html.jinja").read_text("utf-8")
        )
        attention = self.get("attention") or {}
        text, quoted = self.utterance.get("text"), self.get("evidence") or []
        language = language_code(self.utterance.get("language"))
        language = language if language and is_language_code(language) else None
        wave, missing = _decoded(self.utterance.get("audio"))
        return template.render(
            answer={
                "rationale": None,
                "forced_label": None,
                "abstained": False,
                "abstained_because": None,
                "speech_seconds": None,
                "error": None,
                **self,
            },
            left_out=[]
            if self.get("abstained_because")
            else [OUTLIER_REASONS[name] for name in self.get("outliers") or ()],
            plays=player,
            transcribed="transcript" in self,
            language=language,
            rationale_language=written_in(phrase_language(language))
            if language and "voice" in self
            else language,
            words=None if text is None else _words(text, attention.get("words"), quoted),
            sound=_sound(wave, missing, attention.get("audio")),
            quoted=[{**one, "player": _stretch(wave, one.get("seconds"))} for one in quoted],
            parts=quoted_parts(self.get("rationale"), text),
            voice=sorted((self.get("voice") or {}).items(), key=lambda item: -item[1]),
            attended=[name for name in ("words", "audio") if attention.get(name)],
            scores=sorted(self["scores"].items(), key=lambda item: -item[1]),
            alternatives=self.get("alternatives") or {},
        )

    def page(self) -> str:
        """The answer as an HTML page of its own."""
        return (
            '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>mmsr: answer</title>\n'
            '<meta name="color-scheme" content="light dark">\n'
            '<meta name="viewport" content="width=device-width">\n'
            f'<body style="margin:2rem auto;max-width:46rem;padding:0 1rem">\n{self._repr_html_()}</body>\n'
            "</html>\n"
        )


def flattened(row: Mapping[str, Any]) -> dict[str, Any]:
    """An answer as the row of a table: without nested values, attention and the times of words."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, str | int | float):
            flat.setdefault(name, value)
        elif name == "evidence":
            flat["quoted"] = "; ".join(one["text"] for one in value or ()) or None
        elif name == "voice":
            flat["voice"] = max(value, key=value.__getitem__) if value else None
        elif name == "outliers":
            flat["outliers"] = "; ".join(value) or None
        elif name in ("scores", "head_scores", "alternatives"):
            prefix = {"scores": "score", "head_scores": "head_score", "alternatives": "rationale_if"}[name]
            flat |= {f"{prefix}_{label}": one for label, one in value.items()}
        elif name not in ("attention", "asr_words"):
            flat.setdefault(name, value)
    return flat


def timed_in_words(quoted: Mapping[str, Any]) -> str:
    """When quoted words were said and how that is known, such as `1.2 to 1.9 s, by the recogniser`."""
    about = "" if quoted["timed_by"] == "recogniser" else "about "
    start, end = quoted["seconds"]
    return f"{about}{start:.1f} to {end:.1f} s, {_TIMED_BY[quoted['timed_by']]}"


def _words(
    text: str, weights: Sequence[Mapping[str, Any]] | None, quoted: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The text in pieces, each with opacity and share of its attention, and whether it is quoted."""
    most = max((word["weight"] for word in weights or ()), default=0) or 1
    shares: dict[int, tuple[float, str]] = {}
    cuts, end = {0, len(text)}, 0
    for word in weights or ():
        start = text.index(word["word"], end)
        end = start + len(word["word"])
        cuts |= {start, end}
        shown = (round(_OPACITY * word["weight"] / most, 3), f"{100 * word['weight']:.1f} %")
        shares |= dict.fromkeys(range(start, end), shown)
    spans = [(int(one["start"]), int(one["end"])) for one in quoted]
    cuts |= {place for span in spans for place in span}
    pieces = []
    for start, end in pairwise(sorted(cuts)):
        opacity, share = shares.get(start, (0.0, ""))
        is_quoted = any(first <= start < last for first, last in spans)
        pieces.append({"text": text[start:end], "opacity": opacity, "share": share, "quoted": is_quoted})
    return pieces


def _decoded(source: Any) -> tuple[np.ndarray | None, str | None]:
    """A waveform `[s]`, or why there is none."""
    if source is None:
        return None, None
    try:
        return Audio(SAMPLE_RATE)(source), None
    except AudioError as error:  # the file may have gone since
        return None, str(error)


def _stretch(wave: np.ndarray | None, seconds: Sequence[float] | None) -> str | None:
    """The sound of quoted words as a player's source, with a little around them."""
    if wave is None or seconds is None:
        return None
    start, end = (round(SAMPLE_RATE * time) for time in (max(0, seconds[0] - _AROUND), seconds[1] + _AROUND))
    return _player(wave[start:end])


def _sound(
    wave: np.ndarray | None, missing: str | None, weights: Sequence[Mapping[str, Any]] | None
) -> dict[str, Any] | None:
    """The player's source, the outline and the bands of attention; or why there is no sound.

    Attention to the silence around the sound is left out: there is nothing to hear in it.
    """
    if wave is None:
        return None if missing is None else {"missing": missing}
    seconds = len(wave) / SAMPLE_RATE
    begin, end = sounding(wave, SAMPLE_RATE)
    heard = [frame for frame in weights or () if frame["end"] > begin and frame["start"] < end]
    most = max((frame["weight"] for frame in heard), default=0) or 1
    bands = [
        {
            "start": f"{1000 * frame['start'] / seconds:.1f}",
            "width": f"{1000 * (frame['end'] - frame['start']) / seconds:.1f}",
            "opacity": round(_OPACITY * frame["weight"] / most, 3),
        }
        for frame in heard
    ]
    return {
        "missing": None,
        "seconds": seconds,
        "outline": _outline(wave),
        "bands": bands,
        "ticks": [
            {"at": f"{1000 * tick / seconds:.1f}", "name": f"{tick:g} s"}
            for tick in _ticks(seconds)
            if tick < 0.95 * seconds
        ],
        "player": _player(wave) if seconds <= _LONGEST else None,
    }


def _outline(wave: np.ndarray) -> str:
    """A waveform `[s]` as points of a polygon in 1000 x 100."""
    bins = np.array_split(wave, min(_BINS, len(wave)))
    loud = np.array([np.abs(part).max() for part in bins])
    loud = 48 * loud / max(loud.max(), 1e-4)
    across = (np.arange(len(bins)) + 0.5) * 1000 / len(bins)
    above = [f"{x:.1f},{50 - y:.1f}" for x, y in zip(across, loud, strict=True)]
    below = [f"{x:.1f},{50 + y:.1f}" for x, y in zip(across[::-1], loud[::-1], strict=True)]
    return " ".join([*above, *below])


def _ticks(seconds: float) -> list[float]:
    """At most nine round times within the sound."""
    for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120, 300, 600):
        if seconds / step <= 8:
            return [round(i * step, 1) for i in range(int(seconds / step) + 1)]
    return [0.0, round(seconds)]


def _player(wave: np.ndarray) -> str:
    """A waveform `[s]` as a data URL in FLAC, which every browser plays."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, wave, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return f"data:audio/flac;base64,{base64.b64encode(buffer.getvalue()).decode()}"

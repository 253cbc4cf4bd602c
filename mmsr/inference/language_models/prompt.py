"""Prompts: jinja files with the blocks `system` and `user`, and the lines of an answer.

An answer is one or two lines, `Label: …` and `Rationale: …`, in the order of the rationale format. A prompt
tells this to the model by `{{ answer_format }}`, and may use:

    labels           the labels, in order
    text             the utterance's transcript; None in the condition `audio`
    language         name of its language in English; None if unknown
    audio            whether the request has the utterance's recording
    examples         training rows, each with `text`, `language`, `label`, `rationale` and `answer`
    rationale_format none, post_thinking or pre_thinking
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined, TemplateError, meta

from mmsr.inference.language_models.settings import Format
from mmsr.languages import english_name
from mmsr.records import Utterance

LABEL, RATIONALE = "Label:", "Rationale:"
_FIELD = re.compile(r"^[\s*#>_-]*(label|rationale)[\s*_]*:[\s*_]*", re.IGNORECASE | re.MULTILINE)
_THOUGHT = re.compile(r"\A.*</think>", re.DOTALL)  # of models that think aloud before they answer


class Parsed(NamedTuple):
    """What a text names: `start` is the label's first character; None where there is no label."""

    label: str | None
    rationale: str | None
    start: int | None


@dataclass(frozen=True)
class Layout:
    """The lines of an answer: what the prompt asks for, what examples show, and what is read from a text."""

    labels: Sequence[str]
    rationale_format: Format = "none"

    @property
    def writes_rationales(self) -> bool:
        """Whether answers have a rationale."""
        return self.rationale_format != "none"

    def describe(self) -> str:
        """The lines with placeholders."""
        return self.write(f"<one of: {', '.join(self.labels)}>", "<one short sentence>")

    def write(self, label: str, rationale: str | None) -> str:
        """The lines of an answer."""
        lines = [f"{LABEL} {label}"]
        if self.writes_rationales:
            lines.append(f"{RATIONALE} {rationale}")
        return "\n".join(reversed(lines) if self.rationale_format == "pre_thinking" else lines)

    def parse(self, text: str) -> Parsed:
        """Read an answer.

        The label is the one that the last line `Label: …` begins with, in any case of its letters, or the
        text itself without such a line. If another label is named beside it, there is none: of "not
        positive" and "positive or neutral" nothing is guessed.
        """
        thought = _THOUGHT.match(text)
        skipped = thought.end() if thought else 0
        found = list(_FIELD.finditer(text, skipped))
        ends = [*(field.start() for field in found), len(text)][1:]
        parts = {
            field[1].lower(): (field.end(), text[field.end() : end])
            for field, end in zip(found, ends, strict=True)
        }
        start, part = parts.get("label", (skipped, text[skipped:]))
        inner = part.strip()
        label, place = self._label(inner.split("\n")[0] if "label" in parts else inner)
        rationale = parts.get("rationale", (0, ""))[1].strip() or None
        return Parsed(
            label,
            rationale if self.writes_rationales else None,
            None if label is None else start + part.index(inner) + place,
        )

    def _label(self, text: str) -> tuple[str | None, int]:
        """The one label that a text begins with, and its first character."""
        for label in sorted(self.labels, key=len, reverse=True):  # of "calm" and "calm and kind", the longer
            if found := re.match(rf"\W*({re.escape(label)})(?!\w)", text, re.IGNORECASE):
                rest = text[found.end() :]
                others = "|".join(re.escape(other) for other in self.labels if other != label)
                doubt = re.search(rf"(?<!\w)({others})(?!\w)", rest, re.IGNORECASE)
                return (None, 0) if doubt else (label, found.start(1))
        return None, 0


class Message(NamedTuple):
    """What a model is asked: its instructions, which may be empty, and the utterance."""

    system: str
    user: str


@dataclass(frozen=True)
class Prompt:
    """A prompt's file.

    Attributes:
        source: Its content.
        name: Its name, for messages.
    """

    source: str
    name: str

    @classmethod
    def open(cls, prompt: str) -> Prompt:
        """Read a file, or a prompt of mmsr by its name.

        Raises:
            ValueError: There is none, or it is no prompt.
        """
        folder = files("mmsr.inference.language_models").joinpath("prompts")
        packaged = folder.joinpath(f"{prompt}.jinja")
        if Path(prompt).is_file():
            source = Path(prompt).read_text(encoding="utf-8")
        elif packaged.is_file():
            source = packaged.read_text(encoding="utf-8")
        else:
            names = sorted(file.name.removesuffix(".jinja") for file in folder.iterdir())
            raise ValueError(f"prompt {prompt}: no such file; accepted: a jinja file, or {', '.join(names)}")
        opened = cls(source, prompt)
        opened._check()
        return opened

    @property
    def digest(self) -> str:
        """The version of the prompt: the beginning of its content's sha256."""
        return hashlib.sha256(self.source.encode()).hexdigest()[:16]

    @cached_property
    def shows_examples(self) -> bool:
        """Whether it uses `examples`."""
        return "examples" in meta.find_undeclared_variables(_environment().parse(self.source))

    @cached_property
    def _template(self):  # type: ignore[no-untyped-def]  # jinja2's Template is generic over async
        return _environment().from_string(self.source)

    def _check(self) -> None:
        try:
            blocks = self._template.blocks
        except TemplateError as error:
            raise ValueError(f"prompt {self.name}: {error}") from error
        if "user" not in blocks:
            raise ValueError(
                f"prompt {self.name} has no block user; accepted: {{% block user %}}…{{% endblock %}}"
            )

    def render(self, utterance: Utterance, layout: Layout, examples: Sequence[Utterance] = ()) -> Message:
        """The request for an utterance.

        Args:
            utterance: Audio, transcript and language.
            layout: The lines of an answer.
            examples: Training rows whose `text` is shown.

        Raises:
            ValueError: The prompt uses a name that does not exist.
        """
        shown = [
            {
                "text": row.text,
                "language": _name(row.language),
                "label": row.label,
                "rationale": row.rationale,
                "answer": layout.write(str(row.label), row.rationale),
            }
            for row in examples
        ]
        names = {
            "labels": list(layout.labels),
            "text": utterance.text,
            "language": _name(utterance.language),
            "audio": utterance.audio is not None,
            "examples": shown,
            "rationale_format": layout.rationale_format,
            "answer_format": layout.describe(),
        }
        context = self._template.new_context(names)
        try:
            parts = {name: "".join(block(context)).strip() for name, block in self._template.blocks.items()}
        except TemplateError as error:
            raise ValueError(f"prompt {self.name}: {error}") from error
        return Message(parts.get("system", ""), parts["user"])


def _environment() -> Environment:
    return Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _name(language: str | None) -> str | None:
    return None if language is None else english_name(language)

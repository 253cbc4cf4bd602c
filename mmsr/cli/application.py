"""The application `mmsr` without its commands: how words are parsed, and how help and errors look.

    words as typed ─► `modern`: today's spelling ─► cyclopts ─► `convert`: typed values ─► a command

The modules of commands import this one; `mmsr.cli.main` adds their commands to `application`.
"""

from __future__ import annotations

import os
import pkgutil
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from cyclopts import App, CycloptsError, Parameter, Token
from cyclopts.exceptions import (
    CoercionError,
    MissingArgumentError,
    UnknownCommandError,
    UnusedCliTokensError,
    ValidationError,
)
from cyclopts.help import DefaultFormatter

if TYPE_CHECKING:
    from cyclopts import Argument, ArgumentCollection
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

_PAIRS = Parameter(n_tokens=-1, accepts_keys=False, metavar="NAME=VALUE...")

Pairs = Annotated[dict[str, str], _PAIRS]
"""A mapping, typed `--columns text=transcript label=mood`."""
Shares = Annotated[dict[str, float], _PAIRS]
"""A mapping to numbers, typed `--shares train=.8 dev=.2`."""
Lists = Annotated[dict[str, list[str]], _PAIRS]
"""A mapping to lists, typed `--severities noise=20,0 codec=gsm`."""


def at_least(least: float) -> Parameter:
    """Refuses a number below `least` before anything is loaded."""

    def check(_: Any, number: float | None) -> None:
        if number is not None and number < least:
            raise ValueError(f"{number:g}; accepted: {least:g} or more")

    return Parameter(validator=check)


Count = Annotated[int, at_least(1)]
"""A number of rows in a batch, of beams, of epochs."""
Number = Annotated[int, at_least(0)]
"""A number that may be zero, such as a seed."""
Config = Annotated[str, Parameter(alias="-c")]
"""A YAML file, typed `-c FILE`."""
TableColumns = Annotated[list[str] | None, Parameter(name="--table-columns")]
"""Headings of the columns of a printed table."""
KeepLabel = Annotated[bool, Parameter(negative="--no-keep-label")]
"""A switch that is on by default; those that are off need no second name."""
FLAT = Parameter(name="*")
"""Makes each field of a dataclass a flag; the class's docstring has their help."""


@dataclass(frozen=True, kw_only=True)
class SegmentFlags:
    """How speech is cut into segments.

    Attributes:
        min_seconds: Shorter speech, or turns, are left out.
        max_seconds: Longest segment; longer speech is cut at its quietest points.
        max_silence: A longer silence ends a segment.
        padding: Seconds kept before and after speech.
        threshold: Probability from which on the detector's answer counts as speech.
    """

    min_seconds: float = 0.25
    max_seconds: float = 20.0
    max_silence: float = 0.5
    padding: float = 0.1
    threshold: float = 0.5


# ---------------------------------------------------------------------- words


def convert(kind: Any, tokens: Sequence[Token] | Mapping[str, Any]) -> Any:
    """Convert words to the type of their parameter; text stays as it was typed.

    Args:
        kind: `str`, `int`, `float`, a `Literal`, or a list or mapping of them.
        tokens: The words.

    Raises:
        ValueError: A word is not of the type.
    """
    if isinstance(tokens, Mapping):  # --columns.text transcript
        raise ValueError(f"{'.'.join(tokens)}; accepted: NAME=VALUE")
    words = [token.value for token in tokens]
    while get_origin(kind) in (Union, UnionType):  # of a dataclass's field; the first is a type, not None
        kind = get_args(kind)[0]
    if get_origin(kind) in (list, Sequence):
        return [_scalar(get_args(kind)[0], word) for word in _parts(words)]
    if kind == dict[str, list[str]]:
        return {name: value.split(",") for name, value in pairs(words).items()}
    if get_origin(kind) is dict:
        return {name: _scalar(get_args(kind)[1], value) for name, value in pairs(words).items()}
    return _scalar(kind, words[0])


def pairs(words: Sequence[str]) -> dict[str, str]:
    """Parse `text=transcript label=mood`, or the older `{text: transcript, label: mood}`.

    Raises:
        ValueError: A word is not a pair.
    """
    whole = " ".join(words)
    old = whole[:1] + whole[-1:] == "{}"
    found = {}
    for word in _parts([whole] if old else words):
        name, mark, value = word.partition(":" if old else "=")
        if not name or not mark:
            raise ValueError(f"{word}; accepted: NAME=VALUE")
        found[_unquoted(name) if old else name] = _unquoted(value) if old else value
    return found


def _parts(words: Sequence[str]) -> Sequence[str]:
    """The words of a list, which may be one word `[a, "b"]`."""
    if len(words) != 1 or words[0][:1] + words[0][-1:] not in ("[]", "{}"):
        return words
    return [_unquoted(part) for part in words[0][1:-1].split(",") if part.strip()]


def _unquoted(word: str) -> str:
    return word.strip(" \"'")


def _scalar(kind: Any, word: str) -> Any:
    """One word as its type."""
    if get_origin(kind) is Literal:
        if word not in get_args(kind):
            raise ValueError(f"{word}; accepted: {', '.join(get_args(kind))}")
        return word
    try:
        return kind(word)
    except ValueError:
        raise ValueError(f"{word}; accepted: {kind.__name__}") from None


def modern(words: Sequence[str]) -> list[str]:
    """Words in the spelling that cyclopts reads.

    `--label_map` becomes `--label-map`, `--json true` becomes `--json=true`, and a text that begins with a
    hyphen stays a value: `--text=- 5 degrees`.
    """
    rest = list(words)
    done: list[str] = []
    command = application
    while rest and not rest[0].startswith("-") and rest[0] in command:
        command = command[rest[0]]
        done.append(rest.pop(0))
    if command.default_command is None:
        return [*words]
    arguments = command.assemble_argument_collection()
    while rest and rest[0] != "--":
        name, equals, value = rest.pop(0).partition("=")
        dashed = name.replace("_", "-")
        argument = arguments.get(dashed, None) if name.startswith("--") else None
        if argument is not None:
            name, after = dashed, rest[0] if rest else ""
            switch = argument.token_count() == (0, False)
            spaced = after.startswith("-") and " " in after
            if not equals and (after.lower() in ("true", "false") if switch else spaced):
                equals, value = "=", rest.pop(0)
        done.append(name + equals + value)
    return done + rest


# ---------------------------------------------------------------------- errors

_ORDER = "inputs stand before lists, or after --"


def explain(error: CycloptsError) -> str:
    """One line about what was typed wrongly, which names the command's help."""
    command = " ".join(("mmsr", *(error.command_chain or ()), "--help"))
    return f"{_fault(error)} ({command})"


def _fault(error: CycloptsError) -> str:
    argument = error.argument
    if isinstance(error, CoercionError) and argument is not None and isinstance(error.__cause__, ValueError):
        hint = f"; {_ORDER}" if len(argument.tokens) > 1 else ""
        return f"{argument.name} {error.__cause__}{hint}"
    if isinstance(error, ValidationError) and argument is not None and not argument.children:
        return f"{argument.name} {error.exception_message}"
    if isinstance(error, MissingArgumentError) and error.keyword is not None:
        return f"{error.keyword} needs a value (one that begins with a hyphen: {error.keyword}=-...)"
    if isinstance(error, MissingArgumentError) and error.app is not None and argument is not None:
        return _missing(error.app.assemble_argument_collection(), argument, error.root_input_tokens or ())
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        word = error.unused_tokens[0]
        if os.path.exists(word):
            return f"{word} is a file or folder, and no command; did you mean mmsr predict {word}?"
    if isinstance(error, UnusedCliTokensError):
        return f"{' '.join(error.unused_tokens or ())}: more words than expected"
    return str(error)


def _missing(arguments: ArgumentCollection, first: Argument, words: Sequence[str]) -> str:
    """Name the required parameters that were not given; a list may have taken the word meant for an input."""
    given = {word.partition("=")[0] for word in words}
    missing = [
        argument.name if argument.index is None else argument.name.lstrip("-").upper()
        for argument in arguments
        if argument.name == first.name
        or (argument.required and argument.index is None and not given & set(argument.names))
        if not argument.children  # a dataclass, whose fields are the flags
    ]
    lists = [argument for argument in arguments if argument.index is None and argument.token_count()[1]]
    hint = (
        f"; {_ORDER}"
        if first.index is not None and any(given & set(argument.names) for argument in lists)
        else ""
    )
    return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} required{hint}"


# ---------------------------------------------------------------------- the application


def with_names(text: str) -> str:
    """Replace `{module:TABLE}` by the names in that table, which is imported when help is shown."""

    def names(place: re.Match[str]) -> str:
        table = pkgutil.resolve_name(place[1])
        table = table() if callable(table) else table
        return table if isinstance(table, str) else ", ".join(table)

    return re.sub(r"\{([\w.]+:\w+)\}", names, text)


class HelpFormatter(DefaultFormatter):
    """Keeps the lines of a command's description, and wraps those of its parameters."""

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        """Print the text above the parameters; an example stays one line, so that it can be copied."""
        console.print(description, soft_wrap=True)

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print a panel of commands or parameters."""
        entries = []
        for entry in panel.entries:
            description = with_names(" ".join(str(entry.description.primary_renderable).split()))
            default = None if entry.default == "False" else entry.default  # of switches
            entries.append(entry.copy(description=description, default=default))
        super().__call__(console, options, panel.copy(entries=entries))


def _version() -> str:
    try:
        return f"mmsr {version('mmsr')}"
    except PackageNotFoundError:
        return "mmsr, not installed but run from its folder"


application = App(
    name="mmsr",
    help="Multimodal sentiment reasoning: a sentiment and its reason, from speech and transcript.",
    help_format="plaintext",
    help_formatter=HelpFormatter(),
    version=_version,
    default_parameter=Parameter(
        converter=convert,
        consume_multiple=True,
        allow_repeating=True,
        json_dict=False,
        json_list=False,
        negative_bool=(),
        negative_iterable=(),
    ),
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
"""The command `mmsr`, whose subcommands `mmsr.cli.main` adds."""

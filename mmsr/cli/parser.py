"""From functions to flags: the parser of `mmsr`, and words as people type them.

    commands {name: function or dict} ─► parser, of which each function's signature is the flags
    words as typed ─► flags as the parser knows them ─► settings ─► the function is called

Nothing here knows a command; `mmsr.cli.main` has them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from json import dumps
from keyword import iskeyword
from typing import Any

Commands = dict[str, Any]
"""Name -> function, or the same of a group, whose `_help` says what it is."""

_NOTHING = ("null", "~")  # words that the parser takes for no value


def make_parser(commands: Commands) -> Any:
    """The parser of the command `mmsr` with these subcommands."""
    from argparse import RawDescriptionHelpFormatter

    from jsonargparse import ArgumentParser, DefaultHelpFormatter

    class Formatter(RawDescriptionHelpFormatter, DefaultHelpFormatter):
        """Keeps a docstring's lines, and shows types and defaults."""

    parser = ArgumentParser(
        prog="mmsr",
        exit_on_error=False,
        description="Multimodal sentiment reasoning: a sentiment and its reason, from speech and transcript.",
        formatter_class=Formatter,
    )
    fill_parser(parser, commands)
    return parser


def fill_parser(parser: Any, commands: Commands) -> None:
    """Give a parser one subcommand for each function (its signature are the flags) or dict of functions."""
    subcommands = parser.add_subcommands(dest="command", metavar="COMMAND")
    for name, command in commands.items():
        nested = isinstance(command, dict)
        doc = command["_help"] if nested else (inspect.getdoc(command) or "").split("\n\nArgs:")[0]
        subparser = type(parser)(description=doc, formatter_class=parser.formatter_class, exit_on_error=False)
        subcommands.add_subcommand(name, subparser, help=doc.splitlines()[0])
        if nested:
            fill_parser(subparser, {key: value for key, value in command.items() if key != "_help"})
        else:
            # A flag may be named as a keyword of Python, whose parameter then ends in _: --from is from_.
            keywords = {name for name in inspect.signature(command).parameters if name.endswith("_")}
            for name in sorted(keywords):
                subparser.add_argument(f"--{name[:-1]}", required=True, help=described(command, name))
            if words := words_of(command):
                subparser.add_argument(
                    words, nargs="+", metavar=words[:-1].upper(), help=described(command, words)
                )
            subparser.add_function_arguments(command, as_group=False, skip=keywords)


def call(commands: Commands, settings: Any) -> None:
    """Call the function that the parsed settings chose."""
    command = commands[settings["command"]]
    chosen = settings[settings["command"]]
    if isinstance(command, dict):
        call(command, chosen)
    else:
        values = {name + "_" * iskeyword(name): value for name, value in chosen.as_dict().items()}
        command(*values.pop(words_of(command), ()), **values)


def as_flags(commands: Commands, argv: Sequence[str]) -> list[str]:
    """Flags as the parser knows them.

    `--force_label` for `--force-label`; `--json=true` for `--json` and other switches; `--labels=["a", "b"]`
    for `--labels a b` and other lists of words; `--columns={"label": "mood"}` for `--columns label=mood`;
    `--config` for `-c`.
    """
    types = flag_types(commands, argv)
    flags: list[str] = []
    values = list(argv)
    while values:
        value = values.pop(0)
        if value == "-c" and "--config" in types:
            value = "--config"
        if not value.startswith("--"):
            flags.append(value)
            continue
        name, equals, rest = value.partition("=")
        name = "--" + name[2:].replace("-", "_")
        kind = types.get(name, "")
        if kind == "str | None" and (rest if equals else " ".join(values[:1])).lower() in _NOTHING:
            flag = "--" + name[2:].replace("_", "-")
            raise ValueError(f"{flag} {rest or values[0]} would be read as no value; accepted: other words")
        if kind.startswith(("list[str]", "list[float]")) and not equals:
            own = []
            while values and not values[0].startswith("--"):
                own.append(values.pop(0))
            typed = len(own) == 1 and own[0].startswith("[")  # a list in YAML
            numbers = kind.startswith("list[float]") and not typed
            flags.append(f"{name}={own[0] if typed else dumps([float(n) for n in own] if numbers else own)}")
        elif kind.startswith("dict[str, str]") and not equals:
            own = []
            while values and not values[0].startswith("--"):
                own.append(values.pop(0))
            flags.append(f"{name}={as_mapping(own)}")
        elif kind == "bool" and not equals and (not values or values[0].lower() not in ("true", "false")):
            flags.append(f"{name}=true")
        else:
            flags.append(name + equals + rest)
    return flags


def as_mapping(words: Sequence[str]) -> str:
    """`label=mood text=words` as JSON; one word that is a mapping in YAML stays."""
    pairs = [word.partition("=") for word in words]
    if not all(name and equals for name, equals, _ in pairs) or words[0].startswith("{"):
        return " ".join(words)
    return dumps({name: value for name, _, value in pairs}, ensure_ascii=False)


def called(commands: Commands, argv: Sequence[str]) -> list[str]:
    """The words of the command that is called."""
    words: list[str] = []
    place: Any = commands
    for word in argv:
        if not isinstance(place, dict) or word not in place:
            break
        words.append(word)
        place = place[word]
    return words


def flag_types(commands: Commands, argv: Sequence[str]) -> dict[str, str]:
    """The flags of the command that is called, and their types as written."""
    command: Any = commands
    for word in called(commands, argv):
        command = command[word]
    if not callable(command):
        return {}
    parameters = inspect.signature(command).parameters.values()
    return {f"--{parameter.name}": str(parameter.annotation) for parameter in parameters}


def as_typed(problem: str) -> str:
    """The parser's words in one line, flags as they are typed: `--batch-size` for `predict.batch_size`."""

    def flag(name: str) -> str:
        return "--" + name.rpartition(".")[2].replace("_", "-")

    def missing(names: re.Match[str]) -> str:
        flags = [flag(name) for name in names[1].split(", ")]
        return f"{' and '.join(flags)} {'is' if len(flags) == 1 else 'are'} required"

    line = " ".join(problem.split())
    line = re.sub(r"the following arguments are required: (.*)", missing, line)
    line = re.sub(r'Parser key "([\w.]+)":', lambda key: f"{flag(key[1])}:", line)
    line = re.sub(r"<class '(\w+)'>", r"\1", line)
    return re.sub(r"(--[\w-]+): Expected a (\w+)\. Got value: (\S+)", r"\1 \3; accepted: \2", line)


def words_of(command: Callable[..., Any]) -> str | None:
    """The parameter of a command's words without a flag, its *parameter."""
    parameters = inspect.signature(command).parameters.values()
    return next((one.name for one in parameters if one.kind is one.VAR_POSITIONAL), None)


def described(command: Callable[..., Any], parameter: str) -> str:
    """What a function's docstring says of a parameter."""
    entry = re.search(rf"^    {parameter}: (.*(?:\n {{8}}.*)*)", inspect.getdoc(command) or "", re.MULTILINE)
    return " ".join(entry[1].split()) if entry else ""

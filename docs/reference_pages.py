"""Writes the reference as mkdocs builds: a page for each module of `mmsr`, and one for the commands' flags.

So a new module has its page without a line of this folder being touched.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
# In the order of reading: what a caller meets first comes first.
ROOMS = {
    "The package": "mmsr",
    "Model": "mmsr.model",
    "Data": "mmsr.data",
    "Training": "mmsr.training",
    "Evaluation": "mmsr.evaluation",
    "Workflows": "mmsr.workflows",
}


def public_modules() -> list[str]:
    """Dotted names of the package's modules, those that a name with `_` hides left out."""
    paths = sorted((ROOT / "mmsr").rglob("*.py"))
    dotted = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths)
    names = (name.removesuffix(".__init__") for name in dotted)
    return [name for name in names if not any(part.startswith("_") for part in name.split("."))]


def room_of(module: str) -> str:
    """The room whose folder holds a module."""
    rooms = [room for room in ROOMS.values() if module == room or module.startswith(f"{room}.")]
    return max(rooms, key=len)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference's pages, and their places in the navigation."""
    places: dict[str, list[dict[str, str]]] = {room: [] for room in ROOMS.values()}
    for module in public_modules():
        source = ROOT / module.replace(".", "/")
        source = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
        if module in ROOMS.values() and module != "mmsr" and not has_names(source):
            continue  # a room's door with nothing behind it but the rooms' own modules
        page = f"reference/{module}.md"
        files.append(File.generated(config, page, content=f"# {module}\n\n::: {module}\n"))
        places[room_of(module)].append({module.removeprefix("mmsr.") or "mmsr": page})
    files.append(File.generated(config, "reference/commands.md", content=commands_page()))
    reference: list[Any] = [{"Commands": "reference/commands.md"}]
    reference += [{title: places[room]} for title, room in ROOMS.items() if places[room]]
    config.nav = [*(config.nav or []), {"Reference": reference}]
    return files


def has_names(source: Path) -> bool:
    """Whether a module has more than its docstring."""
    return len(ast.parse(source.read_text(encoding="utf-8")).body) > 1


def commands_page() -> str:
    """Every command with its help, as `--help` prints it at 110 columns."""
    from mmsr.cli.main import COMMANDS
    from mmsr.cli.parser import make_parser

    lines = ["# Commands", "", "What `--help` says. Flags may be written with `-` or `_`.", ""]
    parser = make_parser(COMMANDS)
    for words in command_names(COMMANDS):
        help_text = subparser(parser, words).format_help().replace("\t", "    ").rstrip()
        help_text = re.sub(r"\n  -h, --help .*", "", help_text)
        lines += [f"## mmsr {' '.join(words)}", "", "```text", help_text, "```", ""]
    return "\n".join(lines)


def command_names(commands: dict[str, Any], before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of each command, `data check` and all."""
    for name, command in commands.items():
        if isinstance(command, dict):
            yield from command_names(command, (*before, name))
        elif name != "_help":
            yield (*before, name)


def subparser(parser: Any, words: tuple[str, ...]) -> Any:
    """The parser of one command."""
    for word in words:
        parser = parser._subcommands_action.choices[word]
    return parser

"""Write the reference during the mkdocs build: a page for each module of `mmsr`, and one for the commands.

Other pages link a module by its file, `[name](../mmsr/model/fusion.py)`, so that their links work in the
repository too; in the site they are links to its page.

A new module gets its page without a change to this folder.
"""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cyclopts import App
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from rich.console import Console

ROOT = Path(__file__).resolve().parents[1]
# In the order of the navigation.
ROOMS = {
    "The package": "mmsr",
    "Model": "mmsr.model",
    "Data": "mmsr.data",
    "Inference": "mmsr.inference",
    "Speech": "mmsr.speech",
    "Training": "mmsr.training",
    "Evaluation": "mmsr.evaluation",
    "Workflows": "mmsr.workflows",
    "Ablation": "mmsr.ablation",
    "Web page": "mmsr.serving",
    "Command line": "mmsr.cli",
}


def public_modules() -> list[str]:
    """Dotted names of the public modules of the package; a checkpoint's own file is none of them."""
    paths = [path for path in sorted((ROOT / "mmsr").rglob("*.py")) if path.name != "mmsr_auto.py"]
    dotted = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths)
    names = (name.removesuffix(".__init__") for name in dotted)
    return [name for name in names if not any(part.startswith("_") for part in name.split("."))]


def room_of(module: str) -> str:
    """The package of `ROOMS` that a module belongs to."""
    rooms = [room for room in ROOMS.values() if module == room or module.startswith(f"{room}.")]
    return max(rooms, key=len)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the reference, and their entries in the navigation."""
    places: dict[str, list[dict[str, str]]] = {room: [] for room in ROOMS.values()}
    for module in public_modules():
        source = ROOT / module.replace(".", "/")
        source = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
        if module in ROOMS.values() and module != "mmsr" and not has_names(source):
            continue  # a package without names of its own
        page = f"reference/{module}.md"
        files.append(File.generated(config, page, content=f"# {module}\n\n::: {module}\n"))
        places[room_of(module)].append({module.removeprefix("mmsr.") or "mmsr": page})
    files.append(File.generated(config, "reference/commands.md", content=commands_page()))
    reference: list[Any] = [{"Commands": "reference/commands.md"}]
    reference += [{title: places[room]} for title, room in ROOMS.items() if places[room]]
    config.nav = [*(config.nav or []), {"Reference": reference}]
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn links to files of the package, which work in the repository, into links to the reference."""
    return re.sub(
        r"\]\(((?:\.\./)*)\.\./(mmsr/[\w/]+)\.py\)",
        lambda link: f"]({link[1]}reference/{link[2].removesuffix('/__init__').replace('/', '.')}.md)",
        markdown,
    )


def has_names(source: Path) -> bool:
    """Whether a module contains more than its docstring."""
    return len(ast.parse(source.read_text(encoding="utf-8")).body) > 1


def commands_page() -> str:
    """Every command with its help, as `--help` prints it at 76 columns, the width of the text."""
    from mmsr.cli.main import application

    lines = ["# Commands", "", "What `--help` prints. Flags may be written with `-` or `_`.", ""]
    for words in command_names(application):
        text = io.StringIO()
        console = Console(file=text, width=76, force_terminal=False, color_system=None, legacy_windows=False)
        application.help_print(list(words), console=console)
        lines += [f"## mmsr {' '.join(words)}", "", "```text", text.getvalue().rstrip(), "```", ""]
    return "\n".join(lines)


def command_names(app: App, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of each command, `data check` and all, by their groups."""
    for name, command in app.resolved_commands().items():
        if name.startswith("-"):
            continue
        if command.default_command is None:
            yield from command_names(command, (*before, name))
        else:
            yield (*before, name)

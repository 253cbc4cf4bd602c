"""What tests of workflows share: the result files of a function and of the command beside each other."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def results() -> Callable[[Path], dict[str, Any]]:
    """Reads the JSON files of a folder, without what differs between two runs: command and seconds."""

    def read(folder: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path in sorted(folder.rglob("*.json*")):
            lines = (
                [path.read_text("utf-8")] if path.suffix == ".json" else path.read_text("utf-8").splitlines()
            )
            contents = [json.loads(line) for line in lines]
            for content in contents:
                content.pop("command", None)
                content.pop("seconds", None)
            found[str(path.relative_to(folder))] = contents
        return found

    return read


@pytest.fixture
def undivided(demo_corpus: Path) -> Path:
    """The demo corpus without its column `split`."""
    header, *lines = demo_corpus.read_text(encoding="utf-8").splitlines()
    assert "split" in header.split(",")
    manifest = demo_corpus.with_name("undivided.csv")
    manifest.write_text("\n".join([header.replace("split", "part"), *lines]) + "\n", encoding="utf-8")
    return manifest


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """Two runs' predictions for twelve rows, `right.jsonl` and `wrong.jsonl`."""
    labels = ("negative", "neutral", "positive")
    for name, shift in (("right", 0), ("wrong", 1)):
        rows = [
            {
                "id": f"r{i}",
                "label": labels[i % 3],
                "rationale": "because",
                "predicted_label": labels[(i + (shift if i % 2 else 0)) % 3],
                "scores": {label: 1 / 3 for label in labels},
                "predicted_rationale": f"{name} reason {i}",
                "language": "en",
                "speaker": f"s{i % 6}",
                "kind": None,
                "condition": "text",
            }
            for i in range(12)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path

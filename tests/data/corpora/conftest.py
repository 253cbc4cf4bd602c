"""Small copies of published corpora, with real recordings, and what a conversion makes of them."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mmsr.data.corpora import CORPORA
from mmsr.data.corpora.conversion import convert
from mmsr.data.corpora.source import Corpus, CorpusError
from mmsr.data.manifest.manifest import ManifestError, load_manifest

RATE = 16_000


EMODB_SPEAKERS = ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16")


def _tone(path: Path, seconds: float = 0.1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.1 * np.sin(np.arange(int(seconds * RATE)) / 10)
    soundfile.write(path, wave, RATE)
    return path


def _write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding)
    return path


class Converted:
    """A conversion's rows with all columns, its record, and what the manifest's reader makes of them."""

    def __init__(self, name: str | Corpus, source: Path, **options: Any):
        corpus = CORPORA[name] if isinstance(name, str) else name
        out = source.parent / f"out-{len(os.listdir(source.parent))}"
        done = convert(corpus, source, out, **options)
        self.folder, self.done = out, done
        with open(out / "manifest.csv", encoding="utf-8", newline="") as file:
            self.rows = {row["id"]: row for row in csv.DictReader(file)}
        self.record = json.loads((out / "corpus.json").read_text(encoding="utf-8"))
        self.loaded = load_manifest(out / "manifest.csv", labels=self.record["protocol"]["labels"])
        assert list(self.loaded["id"]) == list(self.rows)

    def column(self, name: str) -> list[str]:
        return [row[name] for row in self.rows.values()]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def _refused(name: str, source: Path, **options: Any) -> str:
    """Convert what cannot be converted; nothing may be left of it. Returns the message."""
    before = sorted(os.listdir(source.parent))
    with pytest.raises((CorpusError, ManifestError)) as error:
        convert(CORPORA[name], source, source.parent / "refused", **options)
    assert sorted(os.listdir(source.parent)) == before
    return str(error.value)


@pytest.fixture
def emodb(root: Path) -> Path:
    for letter in "WLEAFTN":
        _tone(root / "wav" / f"03a01{letter}a.wav")
    for speaker in EMODB_SPEAKERS[1:]:
        _tone(root / "wav" / f"{speaker}b10Nb.wav")
    _tone(root / "wav" / "._03a01Fa.wav")  # a shadow made by a Mac
    return root


@pytest.fixture(scope="session")
def tone() -> Callable[..., Any]:
    return _tone


@pytest.fixture(scope="session")
def write() -> Callable[..., Any]:
    return _write


@pytest.fixture(scope="session")
def refused() -> Callable[..., Any]:
    return _refused


@pytest.fixture(scope="session")
def converted() -> type[Converted]:
    return Converted

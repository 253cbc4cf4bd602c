"""What the benchmarks compute on: recordings of mixed length, in seconds as in corpora of speech.

CREMA-D's clips from ../shared/data, joined until they are long enough; without it the package's examples.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import soundfile

from mmsr.data.audio.decoding import Audio

SHARED = Path(__file__).parents[3] / "shared"
RATE = 16_000


@dataclass(frozen=True)
class Clip:
    """A recording `[s]` at 16 kHz, its transcript and label."""

    wave: np.ndarray
    text: str
    label: str

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.wave) / RATE


def corpus(count: int, *, seed: int = 0) -> list[Clip]:
    """Clips of single sentences, as they are: evenly drawn from CREMA-D, or the examples again and again."""
    load = Audio()
    manifest = SHARED / "data" / "crema-d" / "manifest.csv"
    if manifest.exists():
        with open(manifest, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        drawn = np.random.default_rng(seed).permutation(len(rows))[:count]
        chosen = [rows[row] for row in sorted(drawn)]
        return [Clip(load(str(manifest.parent / row["audio"])), row["text"], row["label"]) for row in chosen]
    labels = ("negative", "neutral", "positive")
    paths = sorted(
        str(path) for path in files("mmsr").joinpath("examples").iterdir() if path.name.endswith(".mp3")
    )
    waves = [load(path) for path in paths]
    return [Clip(waves[n % len(waves)], "Don't forget a jacket.", labels[n % 3]) for n in range(count)]


def lengths(count: int, *, seed: int = 0, longest: float = 20.0) -> np.ndarray:
    """Seconds of utterances: log-normal around 4 s, as in conversations, 1 to `longest`."""
    return np.random.default_rng(seed).lognormal(np.log(4.0), 0.7, count).clip(1.0, longest)


def mixed_clips(count: int, *, seed: int = 0, longest: float = 20.0) -> list[Clip]:
    """Clips of mixed length, in random order: joined sentences, cut where the length is reached."""
    wanted = lengths(count, seed=seed, longest=longest)
    parts = corpus(min(400, 4 * count), seed=seed)
    order = np.random.default_rng(seed + 1)
    made = []
    for seconds in wanted:
        wave, texts, label = np.zeros(0, np.float32), [], "neutral"
        while len(wave) < seconds * RATE:
            part = parts[order.integers(len(parts))]
            wave, label = np.concatenate([wave, part.wave]), part.label
            texts.append(part.text)
        made.append(Clip(wave[: int(seconds * RATE)], " ".join(texts), label))
    return made


def write_clips(clips: Sequence[Clip], folder: Path) -> list[str]:
    """The clips as FLAC files; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [str(folder / f"{number}.flac") for number in range(len(clips))]
    for clip, path in zip(clips, paths, strict=True):
        soundfile.write(path, clip.wave, RATE)
    return paths

"""What several tests of data need: small manifests, and recordings made of the demo corpus."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import soundfile

from mmsr.data.audio.decoding import Audio
from mmsr.data.audio.segments import Segment
from mmsr.data.manifest.check.table import check_manifest
from mmsr.data.manifest.manifest import ManifestError, load_manifest, stream_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "audio").mkdir()
    for name, level in (("a", 0.1), ("b", 0.2)):
        soundfile.write(tmp_path / "audio" / f"{name}.wav", np.full(160, level), 16000)
    return tmp_path


def _write(path: Path, text: str, **options: Any) -> Path:
    path.write_text(text, **{"encoding": "utf-8", **options})
    return path


@pytest.fixture
def write() -> Callable[..., Path]:
    return _write


def _faults(path: Path, **options: Any) -> list[str]:
    with pytest.raises(ManifestError) as error:
        load_manifest(path, **options)
    return str(error.value).split("\n")


@pytest.fixture
def faults() -> Callable[..., list[str]]:
    return _faults


def _read_alike(path: Path, column: str = "text") -> list[str | None]:
    """A column's values, which load, stream and check read alike."""
    loaded = load_manifest(path, check_audio=False)
    streamed = list(stream_manifest(path))
    checked = check_manifest(path, audio=False)
    assert loaded.to_list() == streamed
    assert checked.table[column].to_pylist() == loaded[column][:]
    assert checked.table["id"].to_pylist() == loaded["id"][:]
    return loaded[column][:]


@pytest.fixture
def read_alike() -> Callable[..., list[str | None]]:
    return _read_alike


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    frame = pandas.DataFrame(rows, dtype=object)
    if path.suffix in (".csv", ".tsv"):
        frame.to_csv(path, index=False, sep="," if path.suffix == ".csv" else "\t")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_excel(path, index=False)
    return path


@pytest.fixture
def write_rows() -> Callable[..., Path]:
    return _write_rows


@pytest.fixture(scope="session")
def clips(demo_corpus: Path) -> list[np.ndarray]:
    """Five spoken utterances, without the silence around them."""
    found = []
    for row in load_manifest(demo_corpus).to_list()[:5]:
        samples = Audio()(row["audio"])
        loud = np.flatnonzero(np.abs(samples) > 0.05 * np.abs(samples).max())
        found.append(samples[loud[0] : loud[-1]])
    return found


def _recording(
    clips: list[np.ndarray], *, pause: float, noise: float = 0.0
) -> tuple[np.ndarray, list[Segment]]:
    """The clips with a pause before each and after the last, and where they are."""
    parts, truth, place = [np.zeros(round(pause * 16000), dtype=np.float32)], [], pause
    for clip in clips:
        parts += [clip, parts[0]]
        truth.append(Segment(place, place + len(clip) / 16000))
        place += len(clip) / 16000 + pause
    samples = np.concatenate(parts)
    hiss = np.random.default_rng(0).standard_normal(len(samples)).astype(np.float32)
    return samples + noise * hiss, truth


@pytest.fixture
def recording() -> Callable[..., tuple[np.ndarray, list[Segment]]]:
    return _recording

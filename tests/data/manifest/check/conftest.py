"""A manifest in which nearly everything is wrong, and one in which nothing is."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mmsr.data.manifest.check.table import CheckedManifest, check_manifest

RATE = 16_000
WORDS = "the nurse explained it very well today"


def tone_of(seconds: float, *, seed: int, level: float = 0.3) -> np.ndarray:
    """Sound unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    return level * (
        np.sin(np.arange(int(seconds * RATE)) * 0.05) + 0.1 * rng.standard_normal(int(seconds * RATE))
    )


@pytest.fixture
def tone() -> Callable[..., np.ndarray]:
    return tone_of


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def clean_rows(folder: Path) -> list[dict[str, Any]]:
    """Twelve utterances in two languages: all labels, both languages and other speakers in each split."""
    openings = ["my doctor", "our nurse", "the surgeon", "a dentist"]
    rows = []
    for number in range(12):
        split, label = (
            ("train", "dev", "test", "train")[number // 3],
            ("negative", "neutral", "positive")[number % 3],
        )
        name = f"clean{number}.wav"
        soundfile.write(folder / name, tone_of(2.0, seed=number), RATE)
        text = f"{openings[number // 3]} spoke of matter {number} for a while"
        row = {
            "id": f"c{number}",
            "audio": name,
            "text": text,
            "label": label,
            "rationale": f"because {number}",
        }
        rows.append(row | {"language": "en", "speaker": f"{split}-{number // 3}", "split": split})
    return rows


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "clean.jsonl", clean_rows(tmp_path))


@pytest.fixture(scope="session")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> CheckedManifest:
    """One run over a manifest with one row for each fault, after the clean ones."""
    folder = tmp_path_factory.mktemp("faulty")
    rows: list[Any] = clean_rows(folder)

    def sound(name: str, samples: np.ndarray, **options: Any) -> str:
        soundfile.write(folder / name, samples, RATE, **options)
        return name

    whole = (folder / sound("whole.wav", tone_of(2, seed=50))).read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (folder / sound("cut.flac", tone_of(2, seed=49))).write_bytes((folder / "cut.flac").read_bytes()[:20_000])
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is no sound")
    (folder / "copy.wav").write_bytes((folder / "clean0.wav").read_bytes())
    (folder / "leak.wav").write_bytes((folder / "clean1.wav").read_bytes())
    broken = tone_of(1, seed=51)
    broken[100] = np.nan
    audio: dict[str, dict[str, Any]] = {
        "missing": {"audio": "gone.wav"},
        "empty": {"audio": "empty.wav"},
        "corrupt": {"audio": "text.wav"},
        "truncated": {"audio": "cut.wav"},
        "truncated-flac": {"audio": "cut.flac"},
        "zero-length": {"audio": sound("zero.wav", np.zeros(0))},
        "nan": {"audio": sound("nan.wav", broken, subtype="FLOAT")},
        "scale": {"audio": sound("scale.wav", tone_of(1, seed=52) * 32768, subtype="FLOAT")},
        "silent": {"audio": sound("silent.wav", np.full(RATE, 1e-4), subtype="FLOAT")},
        "constant": {"audio": sound("constant.wav", np.full(RATE, 0.2))},
        "clipped": {"audio": sound("clipped.wav", np.clip(tone_of(2, seed=53) * 9, -1, 1))},
        "short": {"audio": sound("short.wav", tone_of(0.05, seed=54)), "text": "a b"},
        "long": {"audio": sound("long.wav", tone_of(4.2, seed=55)), "text": "words enough " * 5},
        "copy": {"audio": "copy.wav"},
        "leak": {"audio": "leak.wav", "split": "test"},
        "fast": {"audio": sound("fast.wav", tone_of(0.5, seed=56)), "text": "much is said " * 5},
        "fast-zh": {
            "audio": sound("zh.wav", tone_of(1, seed=57)),
            "text": "护士非常耐心地解释了一切",
            "language": "zh",
        },
        "slow": {"audio": sound("slow.wav", tone_of(4.0, seed=58)), "text": None, "asr_text": "no"},
    }
    texts: dict[str, dict[str, Any]] = {
        "label-case": {"label": "Positive "},
        "label-typo": {"label": "negatve"},
        "label-number": {"label": "7"},
        "label-index": {"label": "1"},
        "language-name": {"language": "English"},
        "language-country": {"language": "vn"},
        "language-region": {"language": "zh-CN", "text": "护士很好"},
        "language-three": {"language": "yue", "text": "護士好好"},
        "language-space": {"language": "en "},
        "language-script": {"language": "zh"},
        "split-case": {"split": "Train"},
        "split-typo": {"split": "tets"},
        "split-other": {"split": "test2"},
        "split-none": {"split": None},
        "unlabelled": {"label": None, "rationale": "because"},
        "no-input": {"text": None},
        "replacement": {"text": "das Pflegeteam war \ufffdu\u00dferst nett"},
        "mojibake": {"text": "l'infirmi\u00c3\u00a8re a tout expliqu\u00c3\u00a9", "language": "fr"},
        "genuine": {"text": "« L\u00c0 » \u2026 \u1ebf\u201d Ng\u00e3\u2026", "language": "fr"},
        "control": {"text": "the doctor\u200b was \x07 kind"},
        "decomposed": {"text": unicodedata.normalize("NFD", "điều dưỡng rất tốt"), "language": "vi"},
        "composed": {"text": "bác sĩ nói nhanh", "language": "vi"},
        "wordless": {"text": "..."},
        "letter": {"text": "m"},
        "value": {"text": ["a", "list"]},
        "speaker": {"speaker": "train-0", "split": "test"},
        "speaker-space": {"speaker": " odd"},
        "shared-1": {"text": "It was a really good visit, I think."},
        "shared-2": {"text": "it was a REALLY good visit i think", "split": "test", "speaker": "other"},
        "greeting-1": {"text": "thank you"},
        "greeting-2": {"text": "Thank you!", "split": "test", "speaker": "other"},
    }
    same = {"text": "this one is said twice by mistake", "speaker": "s", "split": "train", "label": "neutral"}
    usual = {"label": "neutral", "language": "en", "speaker": "s", "split": "train"}
    for name, row in {**audio, **texts}.items():
        text = f"{WORDS} {name}" if name not in audio else WORDS[:12]
        rows.append({"id": name, "text": text} | usual | row)
    rows += ["", {**same, "id": "again-1"}, {**same, "id": "again-2"}, "not json", "[1]"]
    rows += [{"id": "composed", **same, "text": "an id is used twice in here"}]
    rows += [{"id": "two-labels", **same, "label": "positive"}]
    rows += [{**usual, "id": f"many-{number}", "text": f"filler number {number}"} for number in range(200)]
    for row in rows:
        if isinstance(row, dict):
            row["kinds"] = "unused"
    return check_manifest(write_jsonl(folder / "m.jsonl", rows), max_seconds=4.1)


def _changed(clean: Path, change: Callable[[int, dict[str, Any]], dict[str, Any] | None]) -> Path:
    rows = [change(place, json.loads(line)) for place, line in enumerate(clean.read_text().splitlines())]
    return write_jsonl(clean.parent / "changed.jsonl", [row for row in rows if row is not None])


@pytest.fixture
def changed() -> Callable[..., Path]:
    return _changed

"""Made corpora in the layout of the shared ones: noise for voices, and numbered texts."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

LABELS = ("negative", "neutral", "positive")


def write_table(path: Path, header: str, rows: list[tuple[object, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header.split(), *rows])


def write_clips(folder: Path, speakers: list[str], clips: int) -> None:
    """Clips of .2 s, whose level tells the label."""
    generator, rows = np.random.default_rng(len(speakers)), []
    (folder / "audio").mkdir(parents=True)
    for speaker in speakers:
        for number in range(clips):
            name, label = f"audio/{speaker}_{number}.wav", number % 3
            wave = generator.standard_normal(3200) * (0.02, 0.1, 0.3)[label]
            soundfile.write(folder / name, wave.clip(-1, 1), 16_000)
            emotion = ("anger", "neutral", "happiness")[label]
            rows.append((name, "Wait for me.", LABELS[label], "en", speaker, emotion))
    write_table(folder / "manifest.csv", "audio text label language speaker emotion", rows)
    votes = [(name, "AN:H"[number % 4 :][:1]) for number, (name, *_) in enumerate(rows)]
    write_table(folder / "extra.csv", "audio voice_vote", votes)


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    write_clips(data / "crema-d", [f"crema_{1000 + i}" for i in range(10)], 6)
    write_clips(data / "ravdess16k", ["ravdess01", "ravdess02"], 3)
    words = dict(zip(LABELS, ("awful sad", "plain table", "lovely glad"), strict=True))

    def rows(source: str, languages: str, n: int, *labels: str) -> list[tuple[object, ...]]:
        first = "film" if source.startswith(("XED", "Kajava")) else source  # the two have texts in common
        return [
            (f"{first} {words[label]} {language} {number}", label, "", language, source)
            for language in languages.split()
            for label in labels or LABELS
            for number in range(n)
        ]

    files = {
        "goemotions": rows("GoEmotions-train", "en", 20) + rows("GoEmotions-dev", "en", 10),
        "brighter": rows("BRIGHTER-train", "en de zh", 5) + rows("BRIGHTER-dev", "en de zh", 2),
        "xed": rows("XED-annotated", "en", 60, "negative", "positive")
        + rows("XED-neutral", "en", 60, "neutral")
        + rows("XED-projected", "vi fr", 60, "negative", "positive"),
        "kajava_subtitles": rows("Kajava-train", "en fr", 60, "negative", "positive"),
        "topical_chat": rows("TopicalChat-test_rare", "en", 5),
        "tatoeba_projected": rows("Tatoeba-projected", "vi", 5),
    }
    for name, table in files.items():
        write_table(data / "sentiment-text" / f"{name}.csv", "text label emotion language source", table)
    for name in ("train", "train_eng"):
        rows_of = [(f"{name} {words[LABELS[i % 3]]} {i}", LABELS[i % 3], "because") for i in range(9)]
        write_table(data / "sentiment-reasoning" / f"{name}.csv", "text label human_justification", rows_of)
    return data

"""The rows that `base` learns from, and which row may be used for what.

    crema-d/manifest.csv      ─► clips.csv   audio, label, speaker, split
    sentiment-text/*.csv      ─► texts.csv   text, label, language, source, split
    both                      ─► pairs.csv   audio, text, label, kind, language, split

`split` is `train` or `dev`, on which models are selected. `held_out` decides which row is what; the rows that
test are left out here.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
from held_out import PAIR_KINDS, TEXT_FILES, label_of_pair, speaker_part, text_key, text_part

from mmsr.data.corpora.source import SENTIMENTS

LABELS = SENTIMENTS
_NAMES = (
    "Sam Lena Minh Paul Marie Wei Anna Tom Julia Linh David Emma Hans Claire Lan John Sara Nam Lukas Sophie "
    "Hoa Peter Clara Yan Jean Mai Felix Louise Jun Karim"
).split()
_PLACEHOLDERS = re.compile(r"\bAlex\b|\[PERSON\]|\[NAME\]")
_GROUP_POWER = 0.6  # of a group's size, as its share among the groups of one language and label


_SPLITS = {"train": "train", "selection": "dev", "test": "test"}


def read_clips(folder: Path) -> pd.DataFrame:
    """The clips of CREMA-D with their split; `audio` is absolute."""
    clips = pd.read_csv(folder / "manifest.csv", keep_default_na=False)
    clips["split"] = clips.speaker.map(lambda speaker: _SPLITS[speaker_part(speaker)])
    clips["audio"] = [str((folder / audio).resolve()) for audio in clips.audio]
    return clips


def read_texts(folder: Path) -> pd.DataFrame:
    """The labelled texts with their split; a text that selects or is tested trains in no corpus."""
    texts = pd.concat([pd.read_csv(folder / f"{name}.csv", keep_default_na=False) for name in TEXT_FILES])
    split = [_SPLITS[text_part(*row)] for row in zip(texts.source, texts.text, strict=True)]
    texts = texts.assign(split=split).drop_duplicates(["text", "label", "language", "split"])
    unseen = set(map(text_key, texts.text[texts.split != "train"]))
    trains = (texts.split == "train") & ~texts.text.map(text_key).isin(unseen)
    return texts[(texts.split != "train") | trains].reset_index(drop=True)


def sample_balanced(
    rows: pd.DataFrame, count: int, *, languages: dict[str, float], generator: np.random.Generator
) -> pd.DataFrame:
    """Draw rows so that labels are equally frequent in each language, and small corpora are not lost.

    Args:
        rows: With `language`, `label` and `source`.
        count: Number of rows to draw; a row is drawn at most once.
        languages: Share of each language.
        generator: Of the draw.
    """
    picked = []
    for language, share in sorted(languages.items()):
        for label in LABELS:
            group = rows[(rows.language == language) & (rows.label == label)]
            wanted = min(round(count * share / len(LABELS)), len(group))
            if wanted:
                size = group.groupby("source").text.transform("size").to_numpy(float)
                weight = size ** (_GROUP_POWER - 1)
                chosen = generator.choice(len(group), wanted, replace=False, p=weight / weight.sum())
                picked.append(group.iloc[np.sort(chosen)])
    return pd.concat(picked).reset_index(drop=True)


def vary_names(texts: pd.Series, generator: np.random.Generator) -> pd.Series:
    """Replace the stand-in for masked names (Alex, [PERSON]) by names, so that it tells no corpus."""
    return texts.map(lambda text: _PLACEHOLDERS.sub(lambda _: str(generator.choice(_NAMES)), text))


def pair(
    clips: pd.DataFrame,
    texts: pd.DataFrame,
    kinds: dict[str, int],
    *,
    generator: np.random.Generator,
) -> pd.DataFrame:
    """Pair voices with texts; see `held_out.RULE` for the label of a pair.

    Args:
        clips: Voices, with `audio`, `label` and `speaker`.
        texts: With `text`, `label` and `language`.
        kinds: Number of pairs of each of `PAIR_KINDS`.
        generator: Of the draw, with replacement; labels of the free side are equally frequent.
    """
    voices = {label: clips[clips.label == label].reset_index(drop=True) for label in LABELS}
    words = {label: texts[texts.label == label].reset_index(drop=True) for label in LABELS}
    rows = []
    for kind, count in kinds.items():
        for number in range(count):
            voice, text = PAIR_KINDS[kind][number % len(PAIR_KINDS[kind])]
            clip = voices[voice].iloc[int(generator.integers(len(voices[voice])))]
            line = words[text].iloc[int(generator.integers(len(words[text])))]
            rows.append(
                {
                    "id": f"{kind}-{number}",
                    "audio": clip.audio,
                    "text": line.text,
                    "label": label_of_pair(voice, text),
                    "voice_label": voice,
                    "text_label": line.label,
                    "language": line.language,
                    "speaker": clip.speaker,
                    "kind": kind,
                }
            )
    return pd.DataFrame(rows)

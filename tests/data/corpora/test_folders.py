"""A folder for each label, in a folder for each split or without."""

from pathlib import Path
from typing import Any

import pytest


def test_folders_are_labels_and_splits(root: Path, tone: Any, write: Any, converted: Any) -> None:
    tone(root / "train" / "happy" / "a.wav")
    write(root / "train" / "happy" / "a.txt", " so good \n")
    tone(root / "valid" / "sad" / "a.flac")
    write(root / "valid" / "sad" / "lost.txt", "no recording")
    done = converted("folder", root)
    assert done.column("label") == ["happy", "sad"] == done.record["protocol"]["labels"]
    assert done.column("split") == ["train", "dev"] and done.column("text") == ["so good", ""]
    assert list(done.rows) == ["train-happy-a", "valid-sad-a"]
    assert done.record["notes"] == ["valid/sad/lost.txt has no recording beside it"]


def test_folders_without_splits(root: Path, tone: Any, converted: Any) -> None:
    tone(root / "happy" / "a.wav")
    tone(root / "sad" / "b.wav")
    done = converted("folder", root)
    assert done.column("label") == ["happy", "sad"] and done.column("split") == ["", ""]


@pytest.mark.parametrize("place", ["a.wav", "train/a.wav", "anna/happy/a.wav", "x/train/happy/a.wav"])
def test_folders_of_another_depth_are_named(root: Path, place: str, tone: Any, refused: Any) -> None:
    tone(root / "happy" / "b.wav")
    tone(root / place)
    message = refused("folder", root)
    assert message.startswith(f"{place}: ") and "accepted: " in message and "LABEL/" in message

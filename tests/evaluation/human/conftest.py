"""A corpus with two systems' predictions, and what raters do with sheets."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mmsr.cli.main import main
from mmsr.records import Prediction

LABELS = ("negative", "neutral", "positive")


@pytest.fixture
def corpus(tmp_path: Path, prediction: Callable[..., Prediction]) -> Path:
    """A manifest of 24 rows, 20 of them with sound, and two systems' predictions, `fused` and `worded`."""
    (tmp_path / "audio").mkdir()
    lines = ["id,audio,text,label,language"]
    predictions = []
    for i in range(24):
        id, audio, label = f"secret-{i}", "", LABELS[i % 3]
        if i < 20:
            audio = f"audio/{i}.wav"
            tone = 0.3 * np.sin(np.arange(8000) * 2 * np.pi * (200 + 10 * i) / 8000)
            soundfile.write(tmp_path / audio, tone, 8000)
        lines.append(f"{id},{audio},</script> utterance {i} ü,{label},{'vi' if i % 2 else 'en'}")
        for condition, said in (("audio+text", f"real reason {i}"), ("text", f"real reason {i}, half")):
            said = "alike" if i >= 22 else said
            cells = {"label": label, "predicted_label": label, "predicted_rationale": said}
            predictions.append(json.dumps(prediction(id, condition=condition, **cells).to_row()))
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (tmp_path / "predictions.jsonl").write_text("\n".join(predictions) + "\n", encoding="utf-8")
    return tmp_path


def make(corpus: Path, out: str, *options: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Make sheets through the command line; returns the key, and what each sheet holds."""
    runs = [f"fused={corpus}/predictions.jsonl:audio+text", f"worded={corpus}/predictions.jsonl:text"]
    where = ["--manifest", str(corpus / "manifest.csv"), "--out", str(corpus / out)]
    main(["human", "make", *runs, *where, *options])
    key = json.loads((corpus / out / "key.json").read_text(encoding="utf-8"))
    pages = [corpus / out / "sheets" / sheet["file"] for sheet in key["sheets"].values()]
    return key, [content_of(page) for page in pages]


def content_of(page: Path) -> dict[str, Any]:
    found = re.search(
        r'<script id="content" type="application/json">(.*?)</script>', page.read_text("utf-8"), re.DOTALL
    )
    assert found
    return json.loads(found[1])


def filled(key: dict[str, Any], sheet: str, rater: str, *, favour: str = "fused", noise: int = 0) -> dict:
    """What the page would save of a rater who gives `favour` 4 and others 3, but for some noise."""
    generator = np.random.default_rng(noise)
    items = []
    for one in key["sheets"][sheet]["items"]:
        points = {
            side: {
                name: int(
                    np.clip((4 if one[side] == favour else 3) + generator.integers(-noise, noise + 1), 1, 5)
                )
                for name in key["criteria"]
            }
            for side in ("left", "right")
        }
        preferred = next((side for side in points if one[side] == favour), "same")
        items.append({"item": one["item"], **points, "preference": preferred, "seconds": 9.5, "plays": 1})
    return {"format": "mmsr-ratings-1", "sheet": sheet, "rater": rater, "complete": True, "items": items}


def write(path: Path, content: Any) -> str:
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(["human", *arguments])
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def as_fixture(function: Callable[..., Any]) -> Any:
    """A fixture that gives tests the function under its own name."""
    return pytest.fixture(scope="session", name=function.__name__)(lambda: function)


_make = as_fixture(make)
_filled = as_fixture(filled)
_write = as_fixture(write)
_refused = as_fixture(refused)

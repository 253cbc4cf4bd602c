"""The registry of perturbations, which commands, curves and reports read."""

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("jiwer", reason="alignments need jiwer: pip install 'mmsr[asr]'")

from mmsr.evaluation.report.robustness import draw_robustness, markdown
from mmsr.evaluation.robustness.curves import Curve, Point, measure
from mmsr.evaluation.robustness.perturbations import perturbations
from mmsr.evaluation.robustness.registry import PERTURBATIONS, Perturbation, titles
from mmsr.records import Answer

LABELS = ["negative", "neutral", "positive"]


def neutral(records):
    """Answers neutral to everything."""
    scores = {name: float(name == "neutral") for name in LABELS}
    return [Answer(label="neutral", score=1.0, scores=scores) for _ in records]


def whisper(material, values):
    """A perturbation as anybody may write one: the transcript in small letters."""
    points = [Point(value, lambda row: replace(row, text=row.text.lower())) for value in values]
    return [Curve("whisper", "loudness of letters (1)", 0.0, tuple(points), "low")]


ENTRY = """
from mmsr.evaluation.robustness.registry import PERTURBATIONS, Perturbation
PERTURBATIONS["whisper"] = Perturbation("in a whisper", "letters", ("text",), (1, 2), "somewhere:whisper")
from mmsr.cli.main import main
main(["robustness", "--help"])
"""


def test_a_perturbation_is_one_entry(material, rows, monkeypatch):
    """Which the curves, the report and the command's help then have."""
    monkeypatch.setitem(sys.modules, "somewhere", SimpleNamespace(whisper=whisper))
    entry = Perturbation("in a whisper", "letters", ("text",), (1, 2), "somewhere:whisper")
    entry = replace(entry, series={"low": "small letters"})
    monkeypatch.setitem(PERTURBATIONS, "whisper", entry)
    assert "whisper" in {curve.kind for curve in perturbations(material)}
    curves = perturbations(material, kinds=["whisper"])
    document, predictions = measure(
        neutral, rows, curves, labels=LABELS, condition="audio+text", resamples=10
    )
    assert set(predictions) == {"clean", "whisper_low_1", "whisper_low_2"}
    assert "| in a whisper, small letters: loudness of letters (1) | 2 |" in markdown(document)
    (panel,) = draw_robustness(document).axes
    assert panel.get_title() == "in a whisper"
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["small letters"]
    run = subprocess.run([sys.executable, "-c", ENTRY], capture_output=True, text=True, timeout=60)
    shown = " ".join(run.stdout.replace("│", " ").split())
    assert f"Of {', '.join(PERTURBATIONS)}; by default" in shown and "whisper: letters" in shown


def test_what_an_old_file_has_keeps_its_name():
    assert titles("hum", "low") == ("hum", "low")
    assert titles("wer", "asr_text") == ("misheard words", "recogniser's words")
    assert titles("clip", "start") == ("cut short", "start")

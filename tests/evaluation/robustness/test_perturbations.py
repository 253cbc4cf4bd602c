"""Rows made worse: as much as was asked, alike for every model; and the curves that a model then has."""

import io
import json
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

pytest.importorskip("jiwer", reason="alignments need jiwer: pip install 'mmsr[asr]'")

from mmsr.cli.main import main
from mmsr.data.audio.decoding import Audio
from mmsr.data.manifest.manifest import load_manifest, utterances
from mmsr.evaluation.error_rates import word_error_rate
from mmsr.evaluation.provenance import Provenance
from mmsr.evaluation.report.robustness import draw_robustness, markdown, write_robustness_report
from mmsr.evaluation.robustness.confusions import Confusions
from mmsr.evaluation.robustness.curves import Curve, Point, clean_rows, measure, write_robustness
from mmsr.evaluation.robustness.perturbations import Material, perturbations
from mmsr.evaluation.robustness.registry import PERTURBATIONS, Perturbation, titles
from mmsr.records import Answer

LABELS = ["negative", "neutral", "positive"]


@pytest.fixture(scope="module")
def rows(demo_corpus):
    return clean_rows(utterances(load_manifest(demo_corpus)), "audio+text")


@pytest.fixture(scope="module")
def material(rows):
    texts, languages = [row.text for row in rows], [row.language for row in rows]
    return Material(rows, Confusions.of_vocabulary(texts, languages))


def samples(row) -> np.ndarray:
    return soundfile.read(io.BytesIO(row.audio), dtype="float32")[0]


def points(material, kind, *values):
    curves = perturbations(material, kinds=[kind], severities={kind: values} if values else None)
    return {curve.name(point): point for curve in curves for point in curve.points}


def test_noise_is_as_loud_as_asked_and_the_same_each_time(material, rows):
    point = points(material, "noise", "10")["noise_10"]
    for row in rows[:4]:
        clean, worse = Audio()(row.audio), samples(point.change(row))
        assert len(clean) == len(worse)
        gain = float(clean @ worse / (clean @ clean))  # what is loud may have been turned down as a whole
        noise = worse - gain * clean
        ratio = 10 * np.log10(np.mean((gain * clean) ** 2) / np.mean(noise**2))
        assert ratio == pytest.approx(10, abs=0.7)
        assert worse.tobytes() == samples(points(material, "noise", "10")["noise_10"].change(row)).tobytes()
    assert point.change(rows[0]).text == rows[0].text
    other = Material(material.rows, material.confusions, seed=1)
    assert points(other, "noise", "10")["noise_10"].change(rows[0]) != point.change(rows[0])


def test_the_clock_leaves_no_trace(material, rows):
    point = points(material, "clip", "0.5")["clip_start_0.5"]
    first = point.change(rows[0]).audio
    time.sleep(1.1)  # libsndfile would write whole seconds
    assert point.change(rows[0]).audio == first


def test_pieces_are_of_the_start_or_the_middle(material, rows):
    found = points(material, "clip", "0.5")
    clean = Audio()(rows[0].audio)
    start = (len(clean) - 8000) // 2
    assert np.allclose(samples(found["clip_start_0.5"].change(rows[0])), clean[:8000])
    assert np.allclose(samples(found["clip_middle_0.5"].change(rows[0])), clean[start : start + 8000])


def test_transcripts_go_wrong_as_often_as_asked(material, rows):
    for name, point in points(material, "wer", "0.2", "0.5").items():
        if name.startswith("wer_simulated"):
            worse = [point.change(row).text or "" for row in rows]
            found = word_error_rate([r.text for r in rows], worse, [r.language for r in rows])
            assert found, "there are figures"
            assert point.measured == pytest.approx(point.severity, abs=0.04)
    heard = [name for name in points(material, "wer") if name.startswith("wer_asr_text")]
    assert len(heard) == 1, "the corpus's own asr_text is a point too"


def test_a_larger_share_lacks_what_a_smaller_one_lacks(material, rows):
    found = points(material, "missing", "0.25", "0.5", "1")
    lost = {
        share: {row.id for row in rows if found[f"missing_audio_{share}"].change(row).audio is None}
        for share in ("0.25", "0.5", "1")
    }
    assert lost["0.25"] < lost["0.5"] < lost["1"] == {row.id for row in rows}
    assert len(lost["0.5"]) == round(0.5 * len(rows))
    text = found["missing_text_0.25"]
    assert sum(text.change(row).text is None for row in rows) == round(0.25 * len(rows))
    assert all(text.change(row).audio for row in rows)


def test_what_cannot_be_is_refused(material, rows):
    for kinds, severities, told in (
        (["hum"], None, "kind 'hum' is unknown; accepted: noise, reverb, codec, wer, missing, clip"),
        (["noise"], {"noise": ["loud"]}, "severity noise=loud is no number"),
        (["missing"], {"missing": ["1.5"]}, "missing: share is 1.5; accepted: above 0, to 1"),
        (["clip"], {"clip": ["0.01"]}, "clip: 0.01 s; accepted: 0.1 or more"),
    ):
        with pytest.raises(ValueError, match=told):
            perturbations(material, kinds=kinds, severities=severities)
    silent = Material([replace(row, audio=None) for row in rows], material.confusions)
    assert {curve.kind for curve in perturbations(silent)} == {"wer"}
    with pytest.raises(ValueError, match="kind 'noise' needs audio in every row; accepted here: wer"):
        perturbations(silent, kinds=["noise"])
    with pytest.raises(ValueError, match="condition 'asrr'; accepted: audio"):
        clean_rows(rows, "asrr")


def reader(records):
    """Says the label by the transcript alone, and neutral without one."""
    answers = []
    for record in records:
        label = "neutral" if not record.text else LABELS[len(record.text) % 3]
        scores = {name: float(name == label) for name in LABELS}
        answers.append(Answer(label=label, score=1.0, scores=scores))
    return answers


def test_who_only_reads_loses_nothing_by_noise_and_all_without_text(material, rows, tmp_path):
    gold = [replace(row, label=LABELS[len(row.text) % 3]) for row in rows]
    kinds = {"noise": ["0"], "missing": ["0.5", "1"]}
    curves = perturbations(material, kinds=["noise", "missing"], severities=kinds)
    document, predictions = measure(
        reader, gold, curves, labels=LABELS, condition="audio+text", resamples=200
    )
    by_name = {(curve["kind"], curve["series"]): curve["points"] for curve in document["curves"]}
    noise, text = by_name["noise", ""], by_name["missing", "text"]
    assert [point["macro_f1"] for point in noise] == [1.0, 1.0]
    assert noise[1]["difference"]["macro_f1"] == {"value": 0.0, "interval": [0.0, 0.0]}
    neutral = sum(row.label == "neutral" for row in gold) / len(gold)
    assert text[2]["accuracy"] == pytest.approx(neutral)
    assert text[1]["difference"]["accuracy"]["value"] == pytest.approx(text[1]["accuracy"] - 1)
    assert text[1]["difference"]["accuracy"]["interval"][1] < 0
    assert set(predictions) == {
        *("clean", "noise_0", "missing_audio_0.5", "missing_audio_1"),
        *("missing_text_0.5", "missing_text_1"),
    }
    told = Provenance(seed=0, data_fingerprint="f1f2", command="mmsr robustness x", seconds=1.0)
    extra = {"training_seed": 7}
    whole = write_robustness(tmp_path / "out", document, predictions, provenance=told, extra=extra)
    assert json.loads((tmp_path / "out" / "robustness.json").read_text()) == whole
    write_robustness_report(tmp_path / "out", whole, title="reader made worse")
    assert (tmp_path / "out" / "robustness.png").read_bytes().startswith(b"\x89PNG")
    for page in ("report.html", "report.md"):
        text = (tmp_path / "out" / page).read_text(encoding="utf-8")
        origin = ("7 (training), 0 (evaluation)", "f1f2", "mmsr robustness x", whole["machine"]["cpu"])
        assert all(said in text for said in (*origin, "95 % over speakers", "reader made worse"))
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "data:image/svg+xml" in html and "<script" not in html and 'src="http' not in html
    table = markdown(document)
    assert table.count("| clean |") == 1 and "| missing, text: share of rows without it | 1 |" in table
    with pytest.raises(ValueError, match="two points are called noise_0; accepted: each severity"):
        measure(reader, gold, curves * 2, labels=LABELS, condition="audio+text", resamples=10)


def test_the_worst_point_of_a_curve_is_named_and_its_worst_slice(material, rows):
    gold = [replace(row, label=LABELS[len(row.text) % 3]) for row in rows]
    curves = perturbations(material, kinds=["missing"], severities={"missing": ["0.5", "1"]})
    options = {"labels": LABELS, "condition": "audio+text", "resamples": 200}
    document, predictions = measure(reader, gold, curves, slice_rows=10, **options)
    _, text = document["curves"]
    assert text["worst"]["severity"] == 1
    by_language = {
        language: np.mean(
            [
                row.label == row.predicted_label
                for row in predictions["missing_text_1"]
                if row.language == language
            ]
        )
        for language in {row.language for row in gold}
    }
    worst = text["worst"]["worst_slice"]
    assert worst["accuracy"] <= min(by_language.values()) and worst["n"] >= 10
    line = next(line for line in markdown(document).splitlines()[::-1] if "missing, text" in line)
    assert line.startswith("| missing, text: share of rows without it | 1 |")
    assert f"| {worst['attribute']} {worst['value']} ({worst['n']} rows) | {worst['accuracy']:.3f} [" in line
    few, _ = measure(reader, gold, curves, slice_rows=1000, **options)
    assert few["curves"][0]["worst"]["worst_slice"] is None
    assert "No slice is called the worst: fewer than two have 1000 rows." in markdown(few)


def test_every_curve_says_what_its_severities_are(material):
    curves = perturbations(material)
    assert {curve.kind for curve in curves} == set(PERTURBATIONS)
    assert all(curve.axis not in PERTURBATIONS and len(curve.axis.split()) > 1 for curve in curves)


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
    document, predictions = measure(reader, rows, curves, labels=LABELS, condition="audio+text", resamples=10)
    assert set(predictions) == {"clean", "whisper_low_1", "whisper_low_2"}
    assert "| in a whisper, small letters: loudness of letters (1) | 2 |" in markdown(document)
    (panel,) = draw_robustness(document).axes
    assert panel.get_title() == "in a whisper"
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["small letters"]
    run = subprocess.run([sys.executable, "-c", ENTRY], capture_output=True, text=True, timeout=60)
    shown = " ".join(run.stdout.split())
    assert f"Of {', '.join(PERTURBATIONS)}; by default" in shown and "whisper: letters" in shown


def test_what_an_old_file_has_keeps_its_name():
    assert titles("hum", "low") == ("hum", "low")
    assert titles("wer", "asr_text") == ("misheard words", "recogniser's words")
    assert titles("clip", "start") == ("cut short", "start")


def test_the_command_leaves_files_that_compare_reads(demo_corpus, tmp_path, capsys):
    out = tmp_path / "worse"
    command = ["robustness", "--model", "demo", "--manifest", str(demo_corpus), "--out", str(out)]
    main([*command, "--kinds", "missing", "--severities", "missing=1"])
    assert "| missing, audio: share of rows without it | 1 |" in capsys.readouterr().out
    files = sorted(path.name for path in (out / "predictions").iterdir())
    assert files == ["clean.jsonl", "missing_audio_1.jsonl", "missing_text_1.jsonl"]
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "<title>demo: manifest.csv, test, made worse</title>" in html
    assert "0 (training), 0 (evaluation)" in html
    main(["compare", str(out / "predictions" / files[0]), str(out / "predictions" / files[1]), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["metric"] == "macro_f1" and found["rows"] > 2
    with pytest.raises(SystemExit):
        main([*command, "--kinds", "codec", "--severities", "codec=tape"])
    assert "codec: " in capsys.readouterr().err


def test_codecs_and_rooms_change_the_sound_and_nothing_else(material, rows):
    usual = [*points(material, "codec").items(), *points(material, "reverb", "0.3").items()]
    assert len(usual) == len(PERTURBATIONS["codec"].usual) + 1
    for _, point in usual:
        worse = point.change(rows[0])
        assert replace(worse, audio=None) == replace(rows[0], audio=None)
        assert len(samples(worse)) > 0.8 * len(Audio()(rows[0].audio))
        assert not np.allclose(samples(worse)[:8000], Audio()(rows[0].audio)[:8000], atol=1e-3)

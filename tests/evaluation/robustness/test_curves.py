"""The curves that a model has where rows are worse, and the files that they leave."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("jiwer", reason="alignments need jiwer: pip install 'mmsr[asr]'")

from mmsr.cli.main import main
from mmsr.evaluation.provenance import Provenance
from mmsr.evaluation.report.robustness import markdown, write_robustness_report
from mmsr.evaluation.robustness.curves import clean_rows, measure, write_robustness
from mmsr.evaluation.robustness.perturbations import perturbations
from mmsr.records import Answer

LABELS = ["negative", "neutral", "positive"]


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


def test_a_condition_that_is_none_is_refused(rows):
    with pytest.raises(ValueError, match="condition 'asrr'; accepted: audio"):
        clean_rows(rows, "asrr")
    with pytest.raises(ValueError, match="condition audio: 1 of 2 rows have label, audio; accepted: two"):
        clean_rows([rows[0], replace(rows[1], audio=None)], "audio")

"""The commands of evaluation: what they write and print, and what they refuse."""

import json
import shutil
from pathlib import Path

import pytest

from mmsr.cli.main import main
from mmsr.data.manifest.manifest import load_manifest
from mmsr.model.packaged import checkpoint


def test_calibrate_rewrites_the_temperature_alone(model, demo_corpus, tmp_path, capsys, refused):
    folder = Path(shutil.copytree(model, tmp_path / "m"))
    manifest = demo_corpus.parent / "relabelled.jsonl"
    capsys.readouterr()
    main(["predict", "--model", str(folder), "--manifest", str(demo_corpus)])
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    rows = load_manifest(demo_corpus).to_list()
    for i, (row, answer) in enumerate(zip(rows, answers, strict=True)):
        other = next(label for label in answer["scores"] if label != answer["predicted_label"])
        # right in three of four rows, whatever was learned
        row |= {"split": "dev", "label": answer["predicted_label"] if i % 4 else other}
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = json.loads((folder / "config.json").read_text())
    main(["calibrate", "--model", str(folder), "--manifest", str(manifest)])
    assert "calibrated on 60 development rows" in capsys.readouterr().err
    after = json.loads((folder / "config.json").read_text())
    temperature = after.pop("temperature")
    assert temperature not in (1.0, before.pop("temperature")) and after == before
    main(["calibrate", "--model", str(folder), "--manifest", str(manifest)])
    again = json.loads((folder / "config.json").read_text())["temperature"]
    assert again == pytest.approx(temperature, rel=1e-5)
    asked = ["--conformal", "0.8", "--split", "dev", "--conditions", "[text]", "--examples", "0"]
    out = tmp_path / "e"
    main(["evaluate", "--model", str(folder), "--manifest", str(manifest), "--out", str(out), *asked])
    entry = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["dev"]["text"]
    assert entry["calibration"]["temperature"] == again and entry["calibration"]["n"] == 60
    assert {"ece", "ece_equal_width", "brier", "nll", "aurc"} <= set(entry["calibration"])
    assert entry["conformal"]["lac"]["coverage"] >= 0.8  # of the rows that it was calibrated on
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "Calibration and abstention" in html and "Label sets asked to hold the true label in 80 %" in html
    calibrate = ["calibrate", "--model", str(folder), "--manifest", str(demo_corpus)]
    capsys.readouterr()
    line = refused(*calibrate)
    assert "manifest.csv, split dev: " in line and "labelled rows; accepted: 50 or more" in line
    assert "no config.json there" in refused(*calibrate, "--model", str(tmp_path / "none"))
    evaluate = ["evaluate", "--model", str(folder), "--manifest", str(manifest), "--out", str(out)]
    assert "--conformal 90; accepted" in refused(*evaluate, "--conformal", "90")


def test_the_packaged_checkpoint_is_calibrated_as_a_copy(demo_corpus, tmp_path, capsys, refused):
    manifest = demo_corpus.parent / "all-dev.jsonl"
    rows = [row | {"split": "dev"} for row in load_manifest(demo_corpus).to_list()]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    calibrate = ["calibrate", "--model", "demo", "--manifest", str(manifest)]
    packaged = checkpoint("demo")
    before = (packaged / "config.json").read_bytes()
    capsys.readouterr()
    line = refused(*calibrate)
    assert "--model demo is packaged with mmsr and stays as it is; accepted: with --out FOLDER" in line
    out = tmp_path / "mine"
    main([*calibrate, "--out", str(out)])
    assert f"{out / 'config.json'}: calibrated on 60 development rows" in capsys.readouterr().err
    assert (packaged / "config.json").read_bytes() == before
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in (out, packaged))
    assert ours.pop("temperature") != theirs.pop("temperature") and ours == theirs
    main(["predict", "--model", str(out), "--text", "thank you"])
    capsys.readouterr()
    assert f"--out {out} exists already; accepted: a new folder" in refused(*calibrate, "--out", str(out))


def test_evaluate_leaves_metrics_predictions_and_a_report(
    model, demo_corpus, text_encoder, tmp_path, capsys, refused
):
    main(
        ["evaluate", "--model", str(model), "--manifest", str(demo_corpus), "--out", str(tmp_path / "e")]
        + ["--examples", "2", "--bertscore", str(text_encoder), "--bertscore_layer", "2"]
    )
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text(encoding="utf-8"))
    assert {"test", "seed", "data_fingerprint", "command", "versions", "machine", "seconds"} <= set(metrics)
    assert set(metrics["test"]) == {
        *("audio+text", "text", "audio", "asr", "audio+asr", "shuffled_audio", "baselines"),
    }
    assert {"majority", "constant_rationale", "tfidf"} <= set(metrics["test"]["baselines"])
    assert metrics["corpus"]["corpus"] == "mmsr demo"  # from the corpus.json beside the manifest
    entry = metrics["test"]["audio+text"]
    assert {"n", "accuracy", "macro_f1", "uar", "f1", "rouge1", "rougeL", "rougeL_ascii", "chrf"} <= set(
        entry
    )
    assert {"by_language", "by_kind"} <= set(entry)
    judged = {"bleu", "bertscore_precision", "bertscore_recall", "bertscore_f1", "verbatim_from_training"}
    judged |= {"distinct1", "distinct2", "length", "length_gold"}
    constant = metrics["test"]["baselines"]["constant_rationale"]
    for judged_by in (entry, constant, entry["by_language"]["en"]):
        assert judged <= set(judged_by)
    assert constant["verbatim_from_training"] == 1.0
    assert metrics["bertscore"] | {"layer": 2, "idf": False, "rescaled": False} == metrics["bertscore"]
    assert metrics["training_seed"] == 0
    capsys.readouterr()
    line = refused(
        "evaluate",
        "--model",
        "m",
        "--manifest",
        str(demo_corpus),
        "--out",
        "e",
        "--bertscore_layer",
        "2",
    )
    assert "--bertscore-layer is a layer of an encoder; accepted: with --bertscore ENCODER" in line
    html = (tmp_path / "e" / "report.html").read_text(encoding="utf-8")
    assert html.count("<audio") >= 2
    assert (tmp_path / "e" / "attention.png").stat().st_size > 10_000


def test_columns_and_folds_are_those_of_fit(model, demo_corpus, tmp_path, capsys, refused):
    header, *lines = demo_corpus.read_text(encoding="utf-8").splitlines()
    renamed = header.replace("rationale", "why").replace("asr_text", "heard")
    manifest = demo_corpus.parent / "renamed.csv"
    manifest.write_text("\n".join([renamed, *lines]), encoding="utf-8")
    columns = ["--columns", '{"rationale": "why", "asr_text": "heard"}']
    main(["data", "check", "--manifest", str(manifest), *columns])
    assert "60 rows, no faults" in capsys.readouterr().out
    options = ["--text_column", "asr_text", "--out", str(tmp_path / "p.jsonl")]
    main(["predict", "--model", str(model), "--manifest", str(manifest), *columns, *options])
    capsys.readouterr()
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()]
    assert any(row["rationale"] for row in rows) and {row["condition"] for row in rows} == {"audio+asr"}
    folds = ["--fold", "0", "--folds", "2", "--conditions", "[text]", "--examples", "0", "--num_beams", "1"]
    evaluate = ["evaluate", "--model", str(model), "--manifest", str(manifest), *columns, *folds]
    line = refused(*evaluate, "--dev_speakers", "99", "--out", str(tmp_path / "e"))
    assert "renamed.csv" in line and "99 development speakers" in line
    main([*evaluate, "--dev_speakers", "1", "--out", str(tmp_path / "e")])
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text(encoding="utf-8"))
    assert "rougeL" in metrics["test"]["text"] and "tfidf" in metrics["test"]["baselines"]


def test_faithfulness_leaves_figures_and_pictures(model, demo_corpus, tmp_path, capsys):
    pytest.importorskip("captum", reason="captum is not installed: pip install 'mmsr[explain]'")
    out = tmp_path / "faith"
    command = ["faithfulness", "--model", str(model), "--manifest", str(demo_corpus), "--out", str(out)]
    main([*command, "--erased", "2", "--pictures", "1"])
    found = json.loads((out / "faithfulness.json").read_text())
    report = (out / "report.md").read_text(encoding="utf-8")
    tables = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(tables) > 20 and all(line in report for line in tables)
    html = (out / "report.html").read_text(encoding="utf-8")
    assert found["data_fingerprint"] in html and found["machine"]["cpu"] in html
    assert "seed_everything" in (model.parent / "run.yaml").read_text() and "(training)" in html
    assert set(found["left_out"]) <= {"LAS"} and found["n"] == 12
    assert found["respoken"]["manner"]["not_respoken"] == 0
    assert found["respoken"]["manner"]["label_right"]["n"] == 12
    assert set(found["erasure"]) == {"attention", "gradients"}
    assert found["counterfactuals"]["label_read"]["n"] == 24
    assert len(list(out.glob("saliency-*.png"))) == 1


def test_bad_input_to_faithfulness_is_one_line(model, demo_corpus, tmp_path, refused):
    command = ["faithfulness", "--model", str(model), "--out", str(tmp_path), "--manifest"]
    assert "--manifest none.csv: no such file" in refused(*command, "none.csv")
    assert "--erased -1; accepted: 0 or more" in refused(*command, str(demo_corpus), "--erased", "-1")
    assert "no row is in 'nowhere'" in refused(*command, str(demo_corpus), "--split", "nowhere")


def test_results_are_refused_a_place_before_a_model_is_loaded(tmp_path, refused, monkeypatch):
    (tmp_path / "m.csv").write_text("text,label\ngood,positive\n")
    (tmp_path / "predictions.jsonl").write_text('{"text": "good", "label": "positive"}\n')
    monkeypatch.setattr("mmsr.workflows.inputs.load_pipeline", lambda *_: pytest.fail("loaded"))
    manifest, inside = str(tmp_path / "m.csv"), str(tmp_path / "m.csv" / "d")
    for command in ("evaluate", "faithfulness", "robustness", "calibrate"):
        line = refused(command, manifest, "--model", "demo", "--out", inside)
        assert line.startswith(f"--out {inside} cannot be written, since {manifest} is a file")
    line = refused("evaluate", str(tmp_path / "predictions.jsonl"), "--model", "demo", "--out", str(tmp_path))
    assert line.endswith("predictions.jsonl is a file that is read; accepted: another file")
    for flag, ending in (("plot", ".png"), ("report", ".html")):
        line = refused("compare", "a", "b", f"--{flag}", inside + ending)
        assert line.startswith(f"--{flag} {inside}{ending} cannot be written, since")
    line = refused("human", "make", "a", "b", "--manifest", manifest, "--out", inside)
    assert line.startswith(f"--out {inside} cannot be written, since")


def without_in_dev(corpus, manifest, column):
    """A copy of the corpus whose development rows lack a column."""
    rows = load_manifest(corpus).to_list()
    for row in rows:
        row[column] = None if row["split"] == "dev" else row[column]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return manifest


def test_label_sets_need_labelled_development_rows(model, demo_corpus, tmp_path, refused):
    manifest = without_in_dev(demo_corpus, tmp_path / "m.jsonl", "label")
    evaluate = ["evaluate", str(manifest), "--model", str(model), "--out", str(tmp_path / "e")]
    line = refused(*evaluate, "--conformal", "0.9")
    assert "m.jsonl, split dev: no row has a label, and --conformal makes its label sets by them" in line
    assert not (tmp_path / "e").exists()


def test_a_condition_without_label_sets_is_told(model, demo_corpus, tmp_path, capsys):
    manifest = without_in_dev(demo_corpus, tmp_path / "m.jsonl", "audio")
    evaluate = ["evaluate", str(manifest), "--model", str(model), "--out", str(tmp_path / "e")]
    main([*evaluate, "--conformal", "0.9", "--conditions", "audio", "text", "--examples", "0"])
    told = capsys.readouterr().err
    assert "audio: no label sets, since no labelled development row has these inputs" in told
    assert "text: no label sets" not in told

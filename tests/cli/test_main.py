"""The command `mmsr` as a person calls it: answers, and one clear line with exit code 2 on bad input."""

import html
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from mmsr.cli.experiments import packaged_config
from mmsr.cli.main import main
from mmsr.data.manifest.manifest import load_manifest
from mmsr.inference.packaged import checkpoint


@pytest.fixture(scope="module")
def model(demo_corpus, tmp_path_factory):
    """A tiny model trained for one epoch through the command line."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    main(
        ["fit", "--model.preset", "tiny", "--model.vocab_size", "600", "--data.manifest", str(demo_corpus)]
        + ["--trainer.max_epochs", "1", "--trainer.default_root_dir", str(folder)]
        + ["--trainer.enable_progress_bar", "false"]
    )
    return folder / "model"


@pytest.fixture
def clip(demo_corpus):
    return next((demo_corpus.parent / "audio").glob("*.flac"))


def refused(capsys, *arguments: str) -> str:
    """Run a command that must fail; return its one line."""
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_predict_answers_in_words_and_in_json(model, clip, capsys):
    main(["predict", "--model", str(model), "--audio", str(clip), "--text", "thank you doctor"])
    out = capsys.readouterr().out
    assert "label:" in out and "rationale:" in out
    main(["predict", "--model", str(model), "--audio", str(clip), "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == {"label", "score", "scores", "rationale"}
    assert sum(answer["scores"].values()) == pytest.approx(1, abs=1e-5)
    main(["predict", "--model", str(model), "--text", "thank you", "--force_label", "negative", "--json"])
    assert json.loads(capsys.readouterr().out)["forced_label"] == "negative"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("timeline", "AUDIO is required (mmsr timeline --help)"),
        ("transcribe --out x.csv", "MANIFEST and --asr are required (mmsr transcribe --help)"),
        ("human make a=b", "--manifest and --out are required (mmsr human make --help)"),
        ("predict --text hi --batch-size two", "--batch-size two; accepted: int (mmsr predict --help)"),
        ("predict --xyzzy 3", "Unknown option: --xyzzy. (mmsr predict --help)"),
        ("predict --text hi --num-beams 0", "--num-beams 0; accepted: 1 or more"),
        ("predict --audio .", "--audio .: a folder; accepted: an audio file, or --manifest for many"),
        (
            "predict --text hi --out x",
            "--out x is for a manifest's predictions; accepted: --json > x, or --html",
        ),
    ],
)
def test_what_is_typed_wrongly_is_one_line_in_the_words_of_who_typed_it(capsys, arguments, said):
    assert refused(capsys, *arguments.split()) == f"mmsr: error: {said}"


@pytest.mark.parametrize(
    ("seconds", "volume", "said"),
    [(0.01, 0.1, "lasts 10 ms: too short for speech"), (1, 0, "is silent: the answer says nothing of it")],
)
def test_what_cannot_be_told_from_a_recording_is_said_beside_the_answer(
    model, capsys, tmp_path, seconds, volume, said
):
    samples = volume * np.sin(np.arange(int(seconds * 16_000)) / 9)
    soundfile.write(tmp_path / "a.wav", samples, 16_000)
    main(["predict", "--model", str(model), "--audio", str(tmp_path / "a.wav")])
    captured = capsys.readouterr()
    assert "label:" in captured.out and said in captured.err


def test_a_clip_of_speech_gets_no_advice(model, clip, capsys):
    main(["predict", "--model", str(model), "--audio", str(clip)])
    assert capsys.readouterr().err == ""


def test_predict_answers_each_recording_with_its_path(model, demo_corpus, tmp_path, capsys):
    clips = sorted((demo_corpus.parent / "audio").glob("*.flac"))[:3]
    folder = tmp_path / "clips" / "below"
    folder.mkdir(parents=True)
    (tmp_path / "clips" / "notes.txt").write_text("no recording")
    inside = [shutil.copy(clip, folder / clip.name) for clip in clips[:2]]
    paths = [str(clips[2]), *map(str, inside)]
    asked = ["predict", str(clips[2]), str(tmp_path / "clips"), "--model", str(model)]
    main([*asked, "--json", "--alternatives"])
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer.pop("audio") for answer in answers] == paths
    for path, answer in zip(paths, answers, strict=True):
        main(["predict", path, "--model", str(model), "--json", "--alternatives"])
        alone = json.loads(capsys.readouterr().out)
        assert answer["scores"] == pytest.approx(alone["scores"], abs=1e-4) and set(answer) == set(alone)
    main([*asked, "--batch-size", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == paths
    assert sum(line.startswith("  label: ") for line in lines) == 3
    line = refused(capsys, *asked, "--text", "thank you")
    assert "--text with 3 recordings; accepted: with a recording" in line
    (tmp_path / "empty").mkdir()
    assert "empty: no recordings here; accepted: .aif" in refused(capsys, "predict", str(tmp_path / "empty"))
    assert "gone.wav: no such file" in refused(capsys, "predict", str(clips[0]), "gone.wav")


def test_a_manifest_needs_no_flag(model, demo_corpus, tmp_path, capsys):
    out = tmp_path / "p.jsonl"
    main(["predict", str(demo_corpus), "--model", str(model), "--out", str(out)])
    rows = out.read_text(encoding="utf-8")
    main(["predict", "--manifest", str(demo_corpus), "--model", str(model), "--out", str(out)])
    assert rows == out.read_text(encoding="utf-8") and rows.count("\n") == 60
    capsys.readouterr()
    main(["data", "check", str(demo_corpus)])
    assert "60 rows, no faults" in capsys.readouterr().out


def test_fit_refuses_to_train_a_writer_without_rationales(demo_corpus, tmp_path, capsys):
    import pandas

    table = pandas.read_csv(demo_corpus).drop(columns="rationale")
    table["audio"] = [str(demo_corpus.parent / name) for name in table["audio"]]
    table.to_csv(tmp_path / "m.csv", index=False)
    fit = ["fit", "--model.preset", "tiny", "--model.vocab_size", "600", "--trainer.max_epochs", "1"]
    fit += ["--data.manifest", str(tmp_path / "m.csv"), "--trainer.default_root_dir", str(tmp_path / "run")]
    line = refused(capsys, *fit)
    assert "m.csv" in line and "no row of 'train' has one" in line
    assert "--model.rationale_format none" in line
    main([*fit, "--model.rationale_format", "none", "--trainer.enable_progress_bar", "false"])
    assert (tmp_path / "run" / "model").is_dir()


def test_predict_over_a_manifest_writes_the_contract_s_rows(model, demo_corpus, tmp_path):
    out = tmp_path / "p.jsonl"
    main(["predict", "--model", str(model), "--manifest", str(demo_corpus), "--out", str(out)])
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 60
    assert set(rows[0]) == {
        *("id", "label", "rationale", "predicted_label", "scores", "predicted_rationale"),
        *("language", "speaker", "kind", "condition"),
    }
    assert {row["condition"] for row in rows} == {"audio+text"}


def test_predict_marks_the_answers_that_it_abstains_from(model, demo_corpus, tmp_path, capsys):
    predict = ["predict", "--model", str(model)]
    out = tmp_path / "p.jsonl"
    main([*predict, "--manifest", str(demo_corpus), "--out", str(out)])
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    sure = sorted(row["scores"][row["predicted_label"]] for row in rows)
    middle = (sure[20] + sure[21]) / 2
    main([*predict, "--manifest", str(demo_corpus), "--out", str(out), "--abstain-below", str(middle)])
    assert "abstained from 21 of 60" in capsys.readouterr().err
    marked = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    for row, before in zip(marked, rows, strict=True):
        assert row.pop("abstained") == (before["scores"][before["predicted_label"]] < middle)
        assert row["predicted_label"] == before["predicted_label"]
    for below, abstained in (("1e-6", False), ("1", True)):
        main([*predict, "--text", "thank you", "--abstain-below", below, "--json"])
        answer = json.loads(capsys.readouterr().out)
        assert answer["abstained"] is abstained and answer["label"] in answer["scores"]
        main([*predict, "--text", "thank you", "--abstain-below", below])
        assert ("abstained" in capsys.readouterr().out) is abstained
    line = refused(capsys, *predict, "--text", "thank you", "--abstain-below", "60")
    assert "--abstain-below 60; accepted: a probability, above 0, to 1" in line


def test_calibrate_rewrites_the_temperature_alone(model, demo_corpus, tmp_path, capsys):
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
    line = refused(capsys, *calibrate)
    assert "manifest.csv, split dev: " in line and "labelled rows; accepted: 50 or more" in line
    assert "no config.json there" in refused(capsys, *calibrate, "--model", str(tmp_path / "none"))
    evaluate = ["evaluate", "--model", str(folder), "--manifest", str(manifest), "--out", str(out)]
    assert "--conformal 90; accepted" in refused(capsys, *evaluate, "--conformal", "90")


def test_the_packaged_checkpoint_is_calibrated_as_a_copy(demo_corpus, tmp_path, capsys):
    manifest = demo_corpus.parent / "all-dev.jsonl"
    rows = [row | {"split": "dev"} for row in load_manifest(demo_corpus).to_list()]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    calibrate = ["calibrate", "--model", "demo", "--manifest", str(manifest)]
    packaged = checkpoint("demo")
    before = (packaged / "config.json").read_bytes()
    capsys.readouterr()
    line = refused(capsys, *calibrate)
    assert "--model demo is packaged with mmsr and stays as it is; accepted: with --out FOLDER" in line
    out = tmp_path / "mine"
    main([*calibrate, "--out", str(out)])
    assert f"{out / 'config.json'}: calibrated on 60 development rows" in capsys.readouterr().err
    assert (packaged / "config.json").read_bytes() == before
    ours, theirs = (json.loads((folder / "config.json").read_text()) for folder in (out, packaged))
    assert ours.pop("temperature") != theirs.pop("temperature") and ours == theirs
    main(["predict", "--model", str(out), "--text", "thank you"])
    capsys.readouterr()
    assert f"--out {out} exists already; accepted: a new folder" in refused(
        capsys, *calibrate, "--out", str(out)
    )


def test_evaluate_leaves_metrics_predictions_and_a_report(model, demo_corpus, text_encoder, tmp_path, capsys):
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
        capsys,
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


def test_columns_and_folds_are_those_of_fit(model, demo_corpus, tmp_path, capsys):
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
    line = refused(capsys, *evaluate, "--dev_speakers", "99", "--out", str(tmp_path / "e"))
    assert "renamed.csv" in line and "99 development speakers" in line
    main([*evaluate, "--dev_speakers", "1", "--out", str(tmp_path / "e")])
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text(encoding="utf-8"))
    assert "rougeL" in metrics["test"]["text"] and "tfidf" in metrics["test"]["baselines"]


def test_export_turns_a_checkpoint_into_a_folder(model, tmp_path, capsys):
    checkpoint = model.parent / "checkpoints" / "last.ckpt"
    main(["export", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "m")])
    main(["predict", "--model", str(tmp_path / "m"), "--text", "good", "--json"])
    capsys.readouterr()
    assert "already" in refused(
        capsys, "export", "--checkpoint", str(checkpoint), "--out", str(tmp_path / "m")
    )


def test_bad_input_to_predict_is_one_line(model, clip, tmp_path, capsys):
    predict = ["predict", "--model", str(model)]
    assert "give recordings or a manifest, before lists" in refused(capsys, *predict)
    line = refused(capsys, *predict, "--audio", str(tmp_path / "no.wav"))
    assert "no.wav" in line and "no such file" in line
    assert "--text" in refused(capsys, *predict, "--text", "  ")
    (tmp_path / "text.wav").write_text("this is no sound")
    line = refused(capsys, *predict, "--audio", str(tmp_path / "text.wav"))
    assert "text.wav" in line and "accepted" in line
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    line = refused(capsys, *predict, "--audio", str(tmp_path / "empty.wav"))
    assert "empty.wav" in line and "accepted" in line
    soundfile.write(tmp_path / "nan.wav", np.full(16_000, np.nan), 16_000, subtype="FLOAT")
    line = refused(capsys, *predict, "--audio", str(tmp_path / "nan.wav"))
    assert "nan.wav" in line and "NaN" in line
    line = refused(capsys, *predict, "--audio", str(clip), "--force_label", "angry")
    assert "'angry'" in line and "negative, neutral, positive" in line


def test_predict_needs_no_model_of_one_s_own(tmp_path, monkeypatch, capsys):
    """The packaged checkpoint answers from any folder, and the page holds what was asked for."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("hum.wav", 0.1 * np.sin(np.arange(16_000) / 20), 16_000)
    asked = ["--audio", "hum.wav", "--text", "thank you <b>so</b> much", "--alternatives"]
    main(["predict", *asked, "--html", "a.html", "--abstain-below", "1", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == {"label", "score", "scores", "rationale", "alternatives", "abstained"}
    assert set(answer["alternatives"]) | {answer["label"]} == set(answer["scores"])
    page = Path("a.html").read_text("utf-8")
    assert "data:audio/flac" in page and "&lt;b&gt;" in page and "<b>" not in page
    assert all(text in html.unescape(page) for text in answer["alternatives"].values())
    main(["predict", "--model", "demo", "--text", "thank you", "--alternatives"])
    assert capsys.readouterr().out.count("rationale (if it were ") == 2


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--manifest", "{m}", "--asr", "whisper"], "--asr with a manifest; accepted: with a recording or"),
        (["{m}", "--html", "a.html"], "--html with a manifest"),
        (["{m}", "--alternatives"], "--alternatives with a manifest"),
        (["{m}", "--text", "good"], "--text with a manifest"),
        (["{m}", "--manifest", "{m}"], "m.csv is a manifest; accepted: one manifest alone, or recordings"),
        (["--text", "good", "--asr", "whisper"], "--asr whisper writes transcripts of recordings; accepted"),
        (
            ["--text", "good", "--language", "vi"],
            "--language vi is told to a recogniser; accepted: with --asr",
        ),
        (["--text", "good", "--html", "a.pdf"], "--html a.pdf has another ending; accepted: .html"),
        (["--text", "good", "--model", "x"], "x: no such folder, and no packaged checkpoint is called 'x'"),
    ],
)
def test_predict_refuses_flags_that_do_not_go_together(tmp_path, capsys, flags, expected):
    (tmp_path / "m.csv").write_text("text\ngood\n")
    given = [flag.format(m=tmp_path / "m.csv") for flag in flags]
    assert expected in refused(capsys, "predict", *given)


def test_unreadable_checkpoints_are_named(model, tmp_path, capsys):
    def broken(name: str) -> Path:
        return Path(shutil.copytree(model, tmp_path / name))

    (broken("cut") / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:1000])
    (broken("json") / "config.json").write_text("{")
    (broken("none") / "config.json").unlink()
    (broken("weightless") / "model.safetensors").unlink()
    (broken("wordless") / "tokenizer.json").unlink()
    for name in ("cut", "json", "none", "weightless", "wordless"):
        line = refused(capsys, "predict", "--model", str(tmp_path / name), "--text", "good")
        assert str(tmp_path / name) in line and "accepted" in line, line


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        ("audio,text,label", "gone.wav,hello,neutral", ("row 2", "audio", "gone.wav", "accepted")),
        ("text,label", "hello,angry", ("row 2", "label", "angry", "negative, neutral, positive")),
        ("sentence,label", "hello,neutral", ("sentence", "accepted")),
        ("audio,text,label", ",,neutral", ("row 2", "audio", "text")),
    ],
)
def test_bad_manifests_name_file_row_column_and_value(model, tmp_path, capsys, header, row, expected):
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"{header}\n{row}\n")
    out = tmp_path / "out.jsonl"
    line = refused(capsys, "predict", "--model", str(model), "--manifest", str(manifest), "--out", str(out))
    assert all(part in line for part in ("m.csv", *expected)), line
    assert sorted(os.listdir(tmp_path)) == ["m.csv"]  # nothing half-written
    with pytest.raises(SystemExit) as exit_:
        main(["data", "check", "--manifest", str(manifest)])
    assert exit_.value.code == 1  # the manifest could be read; 2 is for what cannot
    out = capsys.readouterr().out
    assert all(part in out for part in expected), out


@pytest.mark.parametrize("command", ["evaluate", "ablate"])
def test_another_commands_report_is_not_written_over(command, demo_corpus, tmp_path, capsys):
    (tmp_path / "robustness.json").write_text("{}")
    asked = {
        "evaluate": ["--model", "demo", "--manifest", str(demo_corpus)],
        "ablate": ["-c", "experiments/ablations/fusions.yaml"],
    }
    line = refused(capsys, command, *asked[command], "--out", str(tmp_path))
    assert f"--out {tmp_path} has robustness.json, whose report.html would be lost" in line
    assert [path.name for path in tmp_path.iterdir()] == ["robustness.json"]


def test_data_check_answers_by_exit_code_json_and_page(tmp_path, capsys):
    manifest = tmp_path / "m.csv"
    manifest.write_text("text,label,speaker,split\ngood,a,s,train\nbad,b,s,test\n")
    check = ["data", "check", "--manifest", str(manifest), "--labels", "a", "b", "--no-audio"]
    with pytest.raises(SystemExit) as exit_:
        main([*check, "--json", "--report", str(tmp_path / "check.html")])
    assert exit_.value.code == 1
    found = json.loads(capsys.readouterr().out)
    speaker = next(fault for fault in found["faults"] if fault["code"] == "speaker-in-two-splits")
    assert (speaker["file"], speaker["row"], speaker["column"]) == ("m.csv", 3, "speaker")
    assert "speaker-in-two-splits" in (tmp_path / "check.html").read_text(encoding="utf-8")
    allowed = [*check, "--allow", "speaker-in-two-splits", "class-absent"]
    main(allowed)
    assert "0 errors, 1 warning" in capsys.readouterr().out
    with pytest.raises(SystemExit) as exit_:
        main([*allowed, "--strict"])
    assert exit_.value.code == 1 and "1 error, 0 warnings" in capsys.readouterr().out
    assert "is no code" in refused(capsys, *check, "--allow", "nothing")
    assert "does not exist" in refused(capsys, "data", "check", "--manifest", str(tmp_path / "no.csv"))
    assert "--codes" in refused(capsys, "data", "check")
    main(["data", "check", "--codes"])
    assert "a speaker is in two splits -> mmsr data split --by speaker" in capsys.readouterr().out


def test_data_split_writes_a_copy_and_its_recipe(tmp_path, capsys):
    manifest = tmp_path / "m.csv"
    rows = [f"sentence {number},{'ab'[number % 2]},s{number // 4}" for number in range(40)]
    manifest.write_text("\n".join(["text,label,speaker", *rows]) + "\n")
    split = ["data", "split", "--manifest", str(manifest), "--out", str(tmp_path / "out" / "m.tsv")]
    main([*split, "--by", "speaker", "--shares", "train=.7", "dev=.1", "test=.2", "--seed", "3"])
    assert "split train: 28 rows, 7 speakers; a 14, b 14" in capsys.readouterr().out
    recipe = json.loads((tmp_path / "out" / "m.split.json").read_text(encoding="utf-8"))
    assert recipe["shares"] == {"train": 0.7, "dev": 0.1, "test": 0.2} and recipe["seed"] == 3
    main(["data", "check", "--manifest", str(tmp_path / "out" / "m.tsv"), "--labels", "a", "b"])
    assert "40 rows, no faults" in capsys.readouterr().out
    assert "--shares train; accepted: NAME=VALUE" in refused(
        capsys, *split, "--by", "speaker", "--shares", "train"
    )
    assert "--folds" in refused(capsys, *split, "--by", "speaker", "--fold", "0")
    again = ["data", "split", "--manifest", str(tmp_path / "out" / "m.tsv"), "--out", str(tmp_path / "n.csv")]
    line = refused(capsys, *again, "--by", "speaker")
    assert "m.tsv, column split: has values in 40 rows already; accepted: --replace" in line
    main([*again, "--by", "speaker", "--replace"])
    assert "split train: " in capsys.readouterr().out


def test_fit_refuses_what_it_cannot_train_on(demo_corpus, tmp_path, capsys):
    folder = ["--trainer.default_root_dir", str(tmp_path / "run")]
    assert "no such file" in refused(capsys, "fit", "-c", str(tmp_path / "no.yaml"), *folder)
    line = refused(capsys, "fit", "--data.manifest", str(tmp_path / "no.csv"), *folder)
    assert "no.csv" in line
    line = refused(capsys, "fit", "--data.manifest", str(demo_corpus), "--model.fusion", "nosuch", *folder)
    assert "cross_attention" in line
    line = refused(
        capsys, "fit", "--data.manifest", str(demo_corpus), "--data.train_split", "nosuch", *folder
    )
    assert "nosuch" in line and "train" in line


def test_the_packaged_configuration_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert packaged_config("demo.yaml").is_file() and packaged_config("own.yaml").is_file()


def test_features_shows_a_store_and_makes_room_in_it(tmp_path, capsys):
    from mmsr.data.features.store import FeatureStore

    root = str(tmp_path / "store")
    store = FeatureStore(root)
    maker = store.maker("e", {}, name="text, bert, 3 states")
    for number in range(4):
        store.put(store.key(maker, bytes([number])), {"x": torch.zeros(1000)})
        os.utime(store._path(store.key(maker, bytes([number]))), (0, time.time() - 86400 * (10 - number)))
    assert store.get(store.key(maker, b"none")) is None
    store.record("runs/a, text")
    main(["data", "features", "--store", root])
    out = capsys.readouterr().out
    assert "4 entries" in out and "float16  text, bert, 3 states" in out
    assert "runs/a, text: 0 of 1 were there (0%)" in out
    main(["data", "features", "--store", root, "--older-than", "228h", "--json"])
    captured = capsys.readouterr()
    assert captured.err.startswith("1 entries removed, 0.0 MB")
    answer = json.loads(captured.out)
    (one,) = answer["encoders"]
    assert (one["maker"], one["entries"], answer["runs"][0]["misses"]) == (maker, 3, 1)
    main(["data", "features", "--store", root, "--evict-to", "5kB"])
    assert "2 entries, 0.0 MB" in capsys.readouterr().out
    main(["data", "features", "--store", root, "--clear"])
    assert capsys.readouterr().out.startswith("0 entries")
    text = "--evict-to '2 sacks' is no size; accepted: such as 2GB"
    assert text in refused(capsys, "data", "features", "--store", root, "--evict-to", "2 sacks")
    for bad in ("soon", "30"):
        text = f"--older-than {bad!r} is no duration; accepted: such as 30d, 12h"
        assert text in refused(capsys, "data", "features", "--store", root, "--older-than", bad)
    assert "--clear removes all" in refused(
        *(capsys, "data", "features", "--store", root, "--clear", "--older-than", "1d")
    )
    assert "no such folder" in refused(capsys, "data", "features", "--store", root + "x")


@pytest.mark.parametrize("given", [["text=words", "label=mood"], ["{text: words, label: mood}"]])
def test_columns_are_named_as_a_person_types_them(tmp_path, capsys, given):
    path = tmp_path / "m.csv"
    path.write_text("words,mood\nvery good indeed,pos\nso very bad today,negative\nas it was before,1\n")
    main(["data", "check", "--manifest", str(path), "--columns", *given, "--label-map", "pos=positive"])
    assert "negative 1, neutral 1, positive 1" in capsys.readouterr().out
    fit = ["fit", "--data.manifest", str(path), "--data.columns", *given, "--data.label_map", "pos=positive"]
    fit += ["--model.preset", "tiny", "--trainer.default_root_dir", str(tmp_path / "run")]
    # the words reach the data module: it misses the split, not the text
    assert "column split: no row is in 'train'" in refused(capsys, *fit)


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


def test_bad_input_to_faithfulness_is_one_line(model, demo_corpus, tmp_path, capsys):
    command = ["faithfulness", "--model", str(model), "--out", str(tmp_path), "--manifest"]
    assert "--manifest none.csv: no such file" in refused(capsys, *command, "none.csv")
    assert "--erased -1; accepted: 0 or more" in refused(capsys, *command, str(demo_corpus), "--erased", "-1")
    assert "no row is in 'nowhere'" in refused(capsys, *command, str(demo_corpus), "--split", "nowhere")

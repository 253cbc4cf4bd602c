"""An evaluation called from Python: typed results, and the same files as the command's."""

import json
import logging
from pathlib import Path

import pandas as pd
import pytest

from mmsr.cli.main import main
from mmsr.data.manifest.tables import read_table, write_table
from mmsr.workflows.evaluation import Evaluation, evaluate_checkpoint
from mmsr.workflows.settings import Measures, Rows


def test_the_function_returns_what_it_writes_and_the_command_writes_the_same(
    demo_corpus, results, tmp_path, capsys
):
    asked: list[tuple[str, int, int]] = []
    capsys.readouterr()
    measures = Measures(conditions=["text"], conformal=0.8, slices=["gender"], slice_rows=2)
    manifest = demo_corpus.with_name("gendered.csv")
    header, *lines = demo_corpus.read_text(encoding="utf-8").splitlines()
    manifest.write_text("\n".join([f"{header},gender", *(f"{line},f" for line in lines)]), encoding="utf-8")
    evaluation = evaluate_checkpoint(
        "demo",
        Rows(manifest),
        tmp_path / "function",
        measures=measures,
        examples=0,
        progress=lambda *task: asked.append(task),
    )
    assert capsys.readouterr() == ("", "")
    assert asked[0] == ("text", 12, 12) and any(step == "dev, text" for step, *_ in asked)
    assert evaluation.metrics["dev"]["text"]["n"] > 0
    assert any(message.startswith("Few rows: 12 have a label") for message in evaluation.findings())
    assert evaluation.split == "test" and set(evaluation.conditions) == {"text"}
    entry = evaluation.conditions["text"]
    assert entry["n"] == len(evaluation.predictions) == 12
    assert entry["conformal"]["asked"] == 0.8 and "worst_slice" in entry
    assert {"gender", "audio_seconds", "transcript_words"} <= set(entry["slices"])
    assert evaluation.report == tmp_path / "function" / "report.html" and evaluation.report.is_file()
    assert json.loads((tmp_path / "function" / "metrics.json").read_text("utf-8")) == evaluation.metrics

    command = ["evaluate", "--model", "demo", "--manifest", str(manifest), "--examples", "0"]
    command += ["--conditions", "text", "--conformal", "0.8", "--slices", "gender", "--slice_rows", "2"]
    main([*command, "--out", str(tmp_path / "command")])
    assert results(tmp_path / "command") == results(tmp_path / "function")
    printed = capsys.readouterr()
    assert "\n| condition | n |" in printed.out
    assert "finding: Few rows: 12 have a label" in printed.err
    assert f"\nnot checked: {'; '.join(evaluation.not_checked())}\n" in printed.err
    assert "text: worst of " in printed.err and "text: Label sets asked to hold" in printed.err
    assert f"report: {tmp_path / 'command' / 'report.html'}" in printed.err


def test_what_no_condition_has_is_told_once(tmp_path):
    entry = {"n": 12, "worst_slice": None, "slice_rows": 30}
    metrics = {"test": {"text": entry, "audio": entry, "baselines": {}}}
    assert Evaluation(metrics, [], "test", tmp_path / "report.html").notes() == [
        "text, audio: no worst slice: fewer than two slices have 30 rows"
    ]


def test_rows_with_both_transcripts_are_evaluated_on_each_in_one_call(demo_corpus, tmp_path):
    rows = pd.read_csv(demo_corpus)
    rows = rows[["id", "text", "asr_text", "label", "rationale", "language", "split"]]
    rows["asr_text"] = rows["asr_text"].where(rows["split"] != "test", rows["text"].iloc[::-1].to_numpy())
    rows.to_csv(tmp_path / "manifest.csv", index=False)
    command = ["evaluate", "--model", "demo", "--manifest", str(tmp_path / "manifest.csv")]
    main([*command, "--examples", "0", "--out", str(tmp_path / "out")])
    test = json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"))["test"]
    assert set(test) == {"text", "asr", "baselines"}
    assert test["text"]["n"] == test["asr"]["n"] == (rows["split"] == "test").sum()
    lines = (tmp_path / "out" / "predictions.jsonl").read_text("utf-8").splitlines()
    said = {(row["condition"], row["id"]): row for row in map(json.loads, lines)}
    swapped = rows[rows["split"] == "test"]
    alone = rows.assign(text=rows["asr_text"]).drop(columns="asr_text")
    alone.to_csv(tmp_path / "alone.csv", index=False)
    main([*command[:-1], str(tmp_path / "alone.csv"), "--examples", "0", "--out", str(tmp_path / "alone")])
    lines = (tmp_path / "alone" / "predictions.jsonl").read_text("utf-8").splitlines()
    for row in map(json.loads, lines):
        assert said["asr", row["id"]]["scores"] == pytest.approx(row["scores"], abs=1e-5)
    assert any(said["asr", id_]["scores"] != said["text", id_]["scores"] for id_ in swapped["id"])


def test_a_manifest_without_splits_is_evaluated_whole_and_that_is_said(undivided, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        command = ["evaluate", "--model", "demo", "--manifest", str(undivided), "--out", str(tmp_path / "e")]
        main([*command, "--conditions", "text", "--examples", "0"])
    assert "undivided.csv: no row has a split, so all 60 rows are taken" in caplog.text
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text("utf-8"))
    assert metrics["test"]["text"]["n"] == 60 and "baselines" not in metrics["test"]
    title = "<title>demo: undivided.csv, all rows</title>"
    assert title in (tmp_path / "e" / "report.html").read_text("utf-8")


def test_a_damaged_development_row_costs_the_comparison_and_not_the_evaluation(demo_corpus, tmp_path, capsys):
    rows = read_table(demo_corpus)
    first = next(number for number, row in zip(rows.numbers, rows.rows, strict=True) if row["split"] == "dev")
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    broken = rows.filled("audio", {first: str(tmp_path / "broken.wav")})
    names = {}
    for name, table in (("whole", rows), ("broken", broken)):
        names[name] = demo_corpus.with_name(f"{name}.csv")
        write_table(names[name], table)
    measures = Measures(conditions=["audio"])
    whole, damaged = (
        evaluate_checkpoint("demo", Rows(names[name]), tmp_path / name, measures=measures, examples=0)
        for name in ("whole", "broken")
    )
    assert set(whole.metrics["dev"]) >= {"audio"} and "dev" not in damaged.metrics
    assert whole.metrics["dev"]["audio"]["n"] <= whole.metrics["test"]["audio"]["n"]
    assert damaged.metrics["test"]["audio"] == whole.metrics["test"]["audio"]
    assert "development rows are not compared with the test rows: " in capsys.readouterr().err


def test_the_folder_of_a_training_takes_the_results_of_its_own_model_alone(demo_corpus, tmp_path):
    (tmp_path / "run.yaml").write_text("seed_everything: 0\n")
    with pytest.raises(ValueError, match="is the folder of a training, whose results --model demo would"):
        evaluate_checkpoint("demo", Rows(demo_corpus), tmp_path)
    assert not (tmp_path / "metrics.json").exists()


def test_another_commands_results_are_not_written_over(demo_corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text("{}")
    with pytest.raises(ValueError, match=r"has scores\.json, whose report\.html would be lost"):
        evaluate_checkpoint("no such model", Rows(demo_corpus), tmp_path)
    with pytest.raises(ValueError, match="has no column mood"):
        measures = Measures(slices=["mood"])
        evaluate_checkpoint("no such model", Rows(demo_corpus), tmp_path / "e", measures=measures)

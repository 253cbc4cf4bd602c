"""Whole searches: real trainings, their files, their comparison with the default, and the command."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import yaml

from mmsr.ablation.runner import LocalProcesses
from mmsr.ablation.search.search import outline, search
from mmsr.ablation.search.spec import read_search
from mmsr.ablation.search.trials import JOURNAL
from mmsr.cli.main import main
from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.inference.loading import open_predictor


def test_trials_are_runs_of_fit_that_read_no_test_row(
    make_runner, search_file, run_search, demo_corpus, tmp_path, monkeypatch
):
    corpus = shutil.copytree(demo_corpus.parent, tmp_path / "corpus") / demo_corpus.name
    rows = list(csv.DictReader(corpus.open(encoding="utf-8")))
    for row in rows:
        if row["split"] == "test":
            (corpus.parent / row["audio"]).write_bytes(b"no sound")

    def refuse(self):
        raise AssertionError("the search reads test rows")

    monkeypatch.setattr(MmsrDataModule, "test_rows", property(refuse))
    path = search_file(tmp_path, corpus, trials=2, over={"model.fusion": "concat"})
    results = run_search(path, make_runner())
    assert [one["state"] for one in results["trials"]] == ["complete", "complete"]
    out = tmp_path / "out"
    for one in results["trials"]:
        folder = out / one["folder"]
        history = json.loads((folder / "history.json").read_text())
        assert one["value"] == max(row["dev_macro_f1"] for row in history) and one["epochs"] == len(history)
        assert (folder / "model" / "model.safetensors").is_file() and (folder / "run.yaml").is_file()
        assert not (folder / "checkpoints").exists()
    best = yaml.safe_load((out / "best.yaml").read_text())
    assert best["trainer"]["default_root_dir"] == str(out / "best")
    quiet = ["--trainer.enable_progress_bar", "false"]
    main(["fit", "-c", str(out / "best.yaml"), *quiet])
    trained = json.loads((out / "best" / "history.json").read_text())
    again = json.loads((out / results["best"]["folder"] / "history.json").read_text())
    assert trained == again, "best.yaml is not the best trial"


def test_results_are_written_for_people_and_programs(reported):
    out, results = reported
    assert json.loads((out / "search.json").read_text(encoding="utf-8")) == json.loads(json.dumps(results))
    rows = list(csv.DictReader((out / "search.csv").open(encoding="utf-8")))
    assert [row["trial"] for row in rows] == ["0 (default)", *map(str, range(1, 12))]
    assert float(rows[1]["dev_macro_f1"]) == pytest.approx(results["trials"][1]["value"], abs=1e-4)
    assert (out / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "plot.pdf").read_bytes().startswith(b"%PDF")
    text = (out / "search.md").read_text(encoding="utf-8")
    assert results["paragraph"] in text and "therefore optimistic" in text
    assert (out / "search.html").is_file()
    importances = results["importances"]
    assert sum(importances.values()) == pytest.approx(1)
    assert importances["model.learning_rate"] > importances["model.config.dropout"], (
        "it changes the value more"
    )


def test_without_a_test_split_half_of_the_development_rows_is_held_back(
    search_file, run_search, trainer, words, tmp_path
):
    lines = [line for line in words.read_text().splitlines() if not line.endswith(",test")]
    table = tmp_path / "words.csv"
    table.write_text("\n".join(lines) + "\n")
    runner = trainer(lambda settings: 0.9 if "learning_rate" not in settings["model"] else 0.5)
    results = run_search(search_file(tmp_path, table, trials=2), runner, confirm=2)
    copy = tmp_path / "out" / "rows.csv"
    assert {settings["data"]["manifest"] for settings in runner.settings.values()} == {str(copy)}
    rows = list(csv.DictReader(copy.open(encoding="utf-8")))
    splits = {split: {row["speaker"] for row in rows if row["split"] == split} for split in ("dev", "test")}
    counts = [sum(row["split"] == split for row in rows) for split in ("train", "dev", "test")]
    assert counts == [12, 6, 6] and not splits["dev"] & splits["test"]
    assert "nothing to compare" in results["confirmation"]["note"], "the default was the best"
    assert results["confirmation"]["note"] in results["paragraph"]
    with pytest.raises(ValueError, match=r"another search \(data, default differ\)"):
        run_search(search_file(tmp_path, table, trials=2), runner)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_best_and_default_are_compared_with_new_seeds_on_test_rows(
    make_runner, search_file, run_search, demo_corpus, tmp_path
):
    space = {"model.learning_rate": [3e-3, 1e-2], "data.batch_rows": [4]}
    over = {"trainer.max_epochs": 4, "model.learning_rate": 1e-6}
    runner = make_runner()
    path = search_file(tmp_path, demo_corpus, space=space, trials=3, over=over)
    results = run_search(path, runner, confirm=2)
    assert results["best"]["number"] != 0, "a rate of 1e-6 learns nothing in four epochs"
    found = results["confirmation"]
    assert found["seeds"] == [1, 2] and found["failed"] == [] and not found["held_back"]
    difference = found["difference"]
    means = [found["variants"][name]["mean"] for name in ("best", "default")]
    assert difference["mean"] == pytest.approx(means[0] - means[1])
    assert difference["interval"][0] < difference["mean"] < difference["interval"][1]
    assert difference["seeds"] == [1, 2] and "seeds" in difference["over"]
    assert (tmp_path / "out" / "confirm" / "table.md").is_file()
    assert "which chose nothing, with 2 new seeds" in results["paragraph"]
    again = make_runner()
    assert run_search(path, again, confirm=2)["confirmation"] == found and again.done == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_in_the_middle_of_a_trial_it_goes_on_with_the_same_settings(
    make_runner, search_file, run_search, demo_corpus, tmp_path
):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    content = {"trials": 3, "over": {"trainer.max_epochs": 6}}
    whole = run_search(search_file(tmp_path / "whole", demo_corpus, **content), make_runner())
    path = search_file(tmp_path / "killed", demo_corpus, **content)
    command = [sys.executable, "-m", "mmsr", "search", "-c", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    begun = tmp_path / "killed" / "out" / "trials" / "0001"
    try:
        deadline = time.monotonic() + 300
        while not (begun / "checkpoints" / "last.ckpt").exists():
            assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
            time.sleep(0.01)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    asked = yaml.safe_load((begun / "settings.yaml").read_text())
    first = (tmp_path / "killed" / "out" / "trials" / "0000" / "history.json").stat().st_mtime_ns
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:  # its process ends by itself
        done = subprocess.run(command, capture_output=True, text=True)
        if "in use by process" not in done.stdout + done.stderr:
            break
    assert done.returncode == 0, done.stderr
    assert "resumed from" in (begun / "log.txt").read_text()
    assert yaml.safe_load((begun / "settings.yaml").read_text()) == asked
    assert (tmp_path / "killed" / "out" / "trials" / "0000" / "history.json").stat().st_mtime_ns == first
    found = json.loads((tmp_path / "killed" / "out" / "search.json").read_text())
    told = [
        [(one["number"], one["settings"], one["value"], one["epochs"]) for one in results["trials"]]
        for results in (found, json.loads(json.dumps(whole)))
    ]
    assert told[0] == told[1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_pruner_ends_real_trials(search_file, demo_corpus, tmp_path):
    path = search_file(
        tmp_path,
        demo_corpus,
        pruner="median",
        trials=12,
        metric="dev_sentiment_loss",
        space={"model.learning_rate": {"low": 1e-7, "high": 1e-2, "log": True}},
        over={"trainer.max_epochs": 4, "monitor": "dev_sentiment_loss"},
    )
    results = search(read_search(path), open_model=open_predictor, runner=LocalProcesses(1))
    states = [one["state"] for one in results["trials"]]
    assert "failed" not in states and "pruned" in states
    pruned = next(one for one in results["trials"] if one["state"] == "pruned")
    assert pruned["reason"] == f"after epoch {pruned['epochs']}" and pruned["epochs"] < 4


def test_the_outline_tells_what_would_be_done(search_file, words, tmp_path):
    given = read_search(search_file(tmp_path, words, confirm=2), minutes=3)
    told = outline(given).splitlines()
    assert told[0] == "metric: dev_macro_f1, maximised"
    assert told[1].endswith("the default among them; none starts after 3 minutes")
    seeds = ", ".join(map(str, given.confirm))
    assert f"confirm: best and default on test rows, with the seeds {seeds}" in told
    assert f"rows: 12 train, 12 dev, 12 test of {words}" in told
    assert "  model.config.dropout: 0 to 0.4, step 0.1" in told and not given.out.exists()
    given.out.mkdir()
    (given.out / JOURNAL).touch()
    gone = {**given.resolved, "data": {**given.resolved["data"], "manifest": "gone.csv"}}
    told = outline(replace(given, resolved=gone)).splitlines()
    assert "rows: gone.csv is not there yet" in told
    assert f"folder: {given.out}, and continues what was begun there" in told

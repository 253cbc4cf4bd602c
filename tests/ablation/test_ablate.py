"""Ablations: files expanded, runs named by content, found again after a kill, compared."""

import csv
import importlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.metrics import f1_score

from mmsr.ablation.ablate import ablate
from mmsr.ablation.plan import content_name, plan, resolved
from mmsr.ablation.report import paragraph, table
from mmsr.ablation.runner import Event, LocalProcesses
from mmsr.ablation.runs import Run
from mmsr.ablation.spec import Evaluation, read_ablation
from mmsr.ablation.summary import baseline_metrics, metrics_of_seed
from mmsr.cli.main import main
from mmsr.data.features.store import FeatureStore
from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.data.manifest.manifest import load_manifest
from mmsr.evaluation.baselines import baselines
from mmsr.evaluation.entries import evaluate_rows
from mmsr.evaluation.metrics import METRICS, Metric, rationale_metrics
from mmsr.evaluation.rationales import bleu
from mmsr.evaluation.significance import bootstrap, paired_bootstrap
from mmsr.inference.loading import open_predictor
from mmsr.model.configuration import FUSIONS
from mmsr.model.processing import MmsrProcessor
from mmsr.records import Prediction

SETTINGS = {
    "model.preset": "tiny",
    "model.vocab_size": 600,
    "model.rationale_format": "none",
    "data.batch_rows": 8,
    "trainer.max_epochs": 1,
    "trainer.precision": "32-true",
}


SHIPPED = Path(__file__).parents[2] / "experiments" / "ablations"


class Here:
    """A runner in this process: another back end that fits."""

    def __init__(self):
        self.done: list[str] = []

    def run(self, work, runs):
        for run in runs:
            run.folder.mkdir(parents=True, exist_ok=True)
            yield Event(run)
            try:
                work(run)
            except Exception as error:
                yield Event(run, "failed", str(error))
            else:
                self.done.append(run.name)
                yield Event(run, "finished")


def write(folder: Path, **content) -> Path:
    path = folder / "test.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def tiny(folder: Path, corpus: Path, **content) -> Path:
    whole = {
        "settings": {**SETTINGS, "data.manifest": str(corpus)},
        "grid": {"model.fusion": ["concat", "text_only"]},
        "seeds": [0, 1],
        "evaluation": {"conditions": ["shuffled_audio"], "also": ["accuracy"]},
        "out": str(folder / "out"),
    }
    return write(folder, **{**whole, **content})


def change(file: Path, how) -> None:
    """Change the content of a JSON file."""
    content = json.loads(file.read_text(encoding="utf-8"))
    how(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def told_again(out: Path, file: Path, **content) -> dict:
    """The results of a finished folder, of which nothing may be trained or predicted again."""
    whole = {**yaml.safe_load(file.read_text()), **content}
    runner = Here()
    results = ablate(
        read_ablation(write(out, **whole), out=str(out)), open_model=open_predictor, runner=runner
    )
    assert runner.done == [] and results["failed"] == []
    return results


def said(out: Path, results: dict, variant: str) -> list[list[dict]]:
    """What each seed of a variant said under its own condition."""
    figures = results["variants"][variant]
    files = [out / "runs" / run["name"] / "predictions.jsonl" for run in figures["runs"]]
    rows = [[json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in files]
    return [[row for row in one if row["condition"] == figures["condition"]] for one in rows]


def settled(folder: Path) -> list[list[str]]:
    """The cells of table.md, but for the seconds in its last column."""
    lines = (folder / "table.md").read_text(encoding="utf-8").splitlines()
    return [line.split("|")[1:-2] for line in lines if line.startswith("|")]


@pytest.fixture(scope="module")
def finished(demo_corpus, tmp_path_factory):
    """An ablation that nothing interrupted, and its results."""
    folder = tmp_path_factory.mktemp("ablation")
    path = tiny(folder, demo_corpus)
    return path, ablate(read_ablation(path), open_model=open_predictor, runner=Here())


def test_a_frozen_audio_encoder_hears_each_file_once_for_all_runs(demo_corpus, tmp_path, monkeypatch):
    variants = {
        name: {"model.freeze": ["audio_encoder"], "model.fusion": name, "model.feature_dtype": "bfloat16"}
        for name in ("concat", "gated")
    }
    settings = {**SETTINGS, "data.manifest": str(demo_corpus), "trainer.precision": "bf16"}
    path = tiny(tmp_path, demo_corpus, settings=settings, grid=None, variants=variants, seeds=[0])
    first = ablate(read_ablation(path), open_model=open_predictor, runner=Here())
    assert first["failed"] == []
    # training's states and the test rows' are of one maker, so that one way of encoding was used for both
    (maker,) = FeatureStore(tmp_path / "out" / "features").makers()
    assert maker["entries"] == len({row["audio"] for row in load_manifest(demo_corpus)})
    assert maker["dtype"] == "bfloat16"
    results = list((tmp_path / "out" / "runs").glob("*/result.json"))
    for result in results:  # as an evaluation left it that heard the test rows
        change(result, lambda content: content.update(audio_states=None))
    monkeypatch.setattr(
        "mmsr.data.audio.decoding.soundfile.SoundFile.read", None
    )  # no file can be heard any more
    again = ablate(read_ablation(path), open_model=open_predictor, runner=Here())
    assert again["failed"] == [] and again["variants"].keys() == variants.keys()
    states = {"bf16": True, "dtype": "bfloat16"}
    assert all(json.loads(result.read_text())["audio_states"] == states for result in results)
    for result in results:  # as a machine that computes otherwise leaves it: finished, not to be repeated
        change(result, lambda content: content["audio_states"].update(bf16=False))
    assert all(run.result() for row in plan(read_ablation(path)) for run in row)
    for name in variants:
        assert said(tmp_path / "out", again, name) == said(tmp_path / "out", first, name)


# ---------------------------------------------------------------------- files


def test_grid_and_variants_are_combined_over_base_and_settings(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "model: {preset: tiny, config: {dropout: 0.5}}\ndata: {manifest: m.csv}\n"
    )
    path = write(
        tmp_path,
        base="base.yaml",
        settings={"model": {"weight_decay": 0.0}, "model.config.hidden_size": 64},
        grid={"model.fusion": ["concat", "film"], "model.layer_decay": [0.5, 1.0]},
        variants={"plain": None, "smooth": {"model.label_smoothing": 0.1}},
        reference="plain, fusion=film, layer_decay=1.0",
    )
    ablation = read_ablation(path)
    assert list(ablation.variants)[0] == "plain, fusion=concat, layer_decay=0.5"
    assert len(ablation.variants) == 8 and ablation.seeds == (0, 1, 2)
    assert ablation.out == Path("runs/ablations/test")
    last = ablation.variants["smooth, fusion=film, layer_decay=1.0"]
    assert last == {
        "model": {
            **{"preset": "tiny", "config": {"dropout": 0.5, "hidden_size": 64}, "weight_decay": 0.0},
            **{"label_smoothing": 0.1, "fusion": "film", "layer_decay": 1.0},
        },
        "data": {"manifest": "m.csv"},
    }
    assert "label_smoothing" not in ablation.variants["plain, fusion=film, layer_decay=1.0"]["model"]


def test_values_of_one_key_name_their_variants(tmp_path):
    path = write(
        tmp_path,
        grid={
            "model.lora": [None, {"text_encoder": {"r": 4}}],
        },
        seeds=[3],
    )
    assert list(read_ablation(path, out="x").variants) == ["null", '{"text_encoder": {"r": 4}}']


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"grids": {}}, r"test.yaml: 'grids' is no key; accepted: base, settings, grid, variants"),
        (
            {"grid": {"model.fusoin": ["x"]}},
            r"variant 'x': 'model.fusoin' is no setting; accepted: model.fusion",
        ),
        (
            {"settings": {"modle.fusion": "x"}},
            r"settings: 'modle.fusion' is no setting; accepted: model.fusion",
        ),
        ({"settings": {"seed_everything": 3}}, r"'seed_everything' is no setting"),
        ({"settings": {"trainer.default_root_dir": "x"}}, r"'trainer.default_root_dir' is no setting"),
        ({"grid": {"model.fusion": "film"}}, r"grid model.fusion: 'film'; accepted: a list"),
        ({"grid": {"model.fusion": ["film", "film"]}}, r"two variants are called 'film'"),
        ({"grid": {}}, r"neither grid nor variants"),
        ({"reference": "gated"}, r"reference 'gated' is no variant; accepted: film, concat"),
        ({"seeds": [0, 0]}, r"seeds \[0, 0\] repeat one"),
        ({"seeds": ["a"]}, r"seeds \['a'\]; accepted: a list of integers"),
        ({"base": "no.yaml"}, r"base no.yaml: no such file"),
        ({"evaluation": {"metrics": 1}}, r"evaluation 'metrics' is no key; accepted: metric, condition"),
        (
            {"evaluation": {"metric": "bleu"}},  # of all rows together: no difference can be drawn again
            r"metric 'bleu' does not exist; accepted: accuracy, macro_f1, weighted_f1, uar, rouge1",
        ),
        (
            {"evaluation": {"also": ["meteor"]}},
            r"also 'meteor' does not exist; accepted: accuracy, macro_f1, weighted_f1, uar, rouge1, .*bleu",
        ),
        (
            {"evaluation": {"also": ["bertscore_f1"]}},
            r"also 'bertscore_f1' needs a text encoder; accepted: with evaluation bertscore: FOLDER",
        ),
        ({"evaluation": {"bertscore": 3}}, r"evaluation bertscore 3; accepted: a text encoder's folder"),
        (
            {"evaluation": {"conditions": ["smell"]}},
            r"conditions 'smell' does not exist; accepted: audio\+text",
        ),
        ({"evaluation": {"cluster": 3}}, r"evaluation cluster 3; accepted: a column of the manifest"),
        ({"evaluation": {"block_rows": 0}}, r"evaluation block_rows 0; accepted: an integer, 1 or more"),
        (
            {"evaluation": {"cluster": "speaker", "block_rows": 9}},
            r"evaluation cluster 'speaker' and block_rows 9 contradict each other; accepted: one or",
        ),
    ],
)
def test_faults_of_a_file_are_named_with_what_is_accepted(tmp_path, content, message):
    path = write(tmp_path, **{"grid": {"model.fusion": ["film", "concat"]}, **content})
    with pytest.raises(ValueError, match=message):
        read_ablation(path)


def test_one_condition_needs_no_list(tmp_path):
    path = write(tmp_path, variants={"a": {}}, evaluation={"conditions": "asr", "also": ["rougeL", "uar"]})
    evaluation = read_ablation(path).evaluation
    assert (evaluation.conditions, evaluation.also) == (("asr",), ("rougeL", "uar"))
    assert (evaluation.metric, evaluation.condition) == ("macro_f1", "own")


def test_values_that_fit_refuses_are_named_with_their_variant(tmp_path):
    fixed = {"data.manifest": "m.csv"}
    for change, message in (
        (
            {"model.fusion": "nosuch"},
            "variant 'a' .*fusion='nosuch' does not exist; accepted: cross_attention",
        ),
        ({"model.preset": "huge"}, "variant 'a' .*model.preset"),
    ):
        path = write(tmp_path, settings=fixed, variants={"a": change})
        with pytest.raises(ValueError, match=message):
            plan(read_ablation(path))


# ---------------------------------------------------------------------- names


def name_of(fingerprint: str = "f", **changes) -> str:
    model = {"preset": "tiny", "fusion": "film", "freeze": ["audio_encoder"]}
    settings = {"model": model, "data": {"manifest": "m.csv"}, "trainer": {"max_epochs": 3}}
    for key, value in changes.items():
        section, _, name = key.partition("__")
        settings[section] = {**settings.get(section, {}), name: value}
    return content_name(resolved(settings), data_fingerprint=fingerprint)


def test_a_name_holds_what_matters_and_neither_order_nor_paths(tmp_path):
    name = name_of()
    turned = {"trainer": {"max_epochs": 3}, "data": {"manifest": "elsewhere/n.csv"}}
    turned["model"] = {"freeze": ["audio_encoder"], "fusion": "film", "preset": "tiny"}
    assert content_name(resolved(turned), data_fingerprint="f") == name
    same = {
        "model__weight_decay": 0.01,
        "trainer__default_root_dir": "x",
        "trainer__enable_progress_bar": False,
    }
    for key, value in same.items():
        assert name_of(**{key: value}) == name, key
    others = {"model__learning_rate": 2e-3, "model__fusion": "concat", "trainer__max_epochs": 4}
    others |= {"model__config": {"dropout": 0.3}, "data__batch_rows": 4, "data__text_column": "asr_text"}
    others |= {"fingerprint": "g", "model__feature_store": "a"}
    names = {name_of(**{key: value}) for key, value in others.items()}
    assert len(names | {name}) == len(others) + 1
    assert name_of(model__feature_store="a") == name_of(model__feature_store="b")


def test_what_is_pretrained_counts_by_its_bytes(tmp_path):
    for folder, content in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(content)
    a, b, c = (name_of(model__text=str(tmp_path / folder)) for folder in "abc")
    assert a == b != c


# ---------------------------------------------------------------------- runs


def test_where_a_variant_reads_the_recogniser_a_baseline_does(finished):
    ablation = read_ablation(finished[0])
    runs = plan(ablation)
    (own, *_) = runs[0]
    found = baseline_metrics(ablation, [*runs, [replace(own, condition="audio+asr")]])
    assert set(found) == {"majority", "tfidf", "tfidf_asr"}
    assert found["tfidf"] == finished[1]["baselines"]["tfidf"] != found["tfidf_asr"]


def test_results_hold_figures_intervals_differences_and_cost(finished):
    path, results = finished
    out = read_ablation(path).out
    assert json.loads((out / "results.json").read_text(encoding="utf-8")) == json.loads(json.dumps(results))
    concat, text = (results["variants"][name] for name in ("concat", "text_only"))
    assert concat["condition"] == "audio+text" and text["condition"] == "text"
    assert concat["difference"] is None, "it is the reference"
    assert text["difference"]["mean"] == pytest.approx(text["mean"] - concat["mean"], abs=1e-12)
    assert text["difference"]["seeds"] == [0, 1] and text["difference"]["n"] > 5
    assert text["test"]["shuffled_audio"] == text["test"]["text"], "it hears nothing"
    assert 0 < text["trained_parameters"] < concat["trained_parameters"]
    assert concat["seconds_an_epoch"] > 0 and concat["interval"][0] <= concat["mean"] <= concat["interval"][1]
    assert {run["epochs"] for run in concat["runs"]} == {1}
    assert set(results["baselines"]) == {"majority", "tfidf"} and results["failed"] == []
    assert (out / "plot.png").read_bytes().startswith(b"\x89PNG")
    page, text = ((out / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "md"))
    assert "<code>concat</code>" in page and page.count("data:image/svg+xml") == 1 and "![Dots" in text
    assert table(results) in text and results["paragraph"] in text and "## Failed runs" not in text
    assert f"data fingerprint: {results['data_fingerprints'][0]}" in text and "seed: 0, 1; intervals" in text
    run = out / "runs" / concat["runs"][0]["name"]
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["test"]["audio+text"]["macro_f1"] == concat["values"][0]
    assert metrics["data_fingerprint"] in results["data_fingerprints"]
    assert not (run / "checkpoints").exists()
    assert "4 of 4 runs are finished" in (out / "table.md").read_text(encoding="utf-8")


def test_what_is_finished_is_found_again_under_any_name(finished, demo_corpus, tmp_path):
    path, results = finished
    content = yaml.safe_load(path.read_text())
    del content["grid"]
    moved = shutil.copytree(demo_corpus.parent, tmp_path / "moved") / demo_corpus.name
    content["settings"]["data.manifest"] = str(moved)
    content["variants"] = {"words": {"model.fusion": "text_only"}, "both": {"model.fusion": "concat"}}
    runner = Here()
    again = ablate(read_ablation(write(tmp_path, **content)), open_model=open_predictor, runner=runner)
    assert runner.done == []
    assert again["reference"] == "words"
    assert again["variants"]["both"]["values"] == results["variants"]["concat"]["values"]


def test_the_command_prints_table_and_paragraph_and_lists_runs(finished, tmp_path, capsys):
    command = ["ablate", "-c", str(finished[0])]
    main([*command, "--jobs", "2"])
    told = capsys.readouterr()
    assert "| `concat` | audio + text | " in told.out and "4 of 4 runs are finished" in told.out
    assert "4 runs, 4 of them finished before" in told.err
    main([*command, "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all("  finished  " in line for line in lines)
    with pytest.raises(SystemExit) as exit_:
        main(["ablate", "-c", str(write(tmp_path, grid={"model.fusoin": ["film"]}))])
    assert exit_.value.code == 2
    assert "'model.fusoin' is no setting; accepted: model.fusion" in capsys.readouterr().err


def test_the_shipped_file_compares_every_fusion():
    assert set(read_ablation(SHIPPED / "fusions.yaml").variants) == set(FUSIONS)


def test_the_shipped_files_of_official_rows_draw_neighbours_together():
    rationales, languages = (
        read_ablation(SHIPPED / f"official_{name}.yaml") for name in ("rationales", "languages")
    )
    assert {"permuted", "template"} < set(rationales.variants), "both of the controls"
    assert rationales.evaluation.block_rows == 57 and languages.evaluation.block_rows == 2 * 57


def test_other_conditions_are_answered_without_training_again(finished, tmp_path):
    path, results = finished
    out = shutil.copytree(read_ablation(path).out, tmp_path / "out")
    content = yaml.safe_load(path.read_text())
    content |= {"seeds": [0], "evaluation": {"condition": "asr"}, "grid": {"model.fusion": ["concat"]}}
    trained = {file: file.stat().st_mtime_ns for file in out.rglob("model.safetensors")}
    for file in out.glob("runs/*/metrics.json"):
        change(file, lambda metrics: metrics["machine"].update(cpu="another"))
    other = read_ablation(write(tmp_path, **content), out=str(out))
    again = ablate(other, open_model=open_predictor, runner=Here())
    assert again["variants"]["concat"]["test"].keys() == {"asr"}
    metrics = out / "runs" / again["variants"]["concat"]["runs"][0]["name"] / "metrics.json"
    found = json.loads(metrics.read_text(encoding="utf-8"))
    assert found["trained"]["machine"]["cpu"] == "another", "whose time an epoch's is"
    assert found["machine"]["cpu"] != "another" and again["differing"]["machine cpu"][0] == "another"
    assert {file: file.stat().st_mtime_ns for file in out.rglob("model.safetensors")} == trained


def test_a_failing_run_is_named_with_its_settings_and_the_others_finish(finished, tmp_path):
    path, _ = finished
    out = shutil.copytree(read_ablation(path).out, tmp_path / "out")
    content = yaml.safe_load(path.read_text())
    del content["grid"]
    content["variants"] = {"bad": {"model.config.fusion_heads": 7}, "good": {"model.fusion": "concat"}}
    told = []
    results = ablate(
        read_ablation(write(tmp_path, **content), out=str(out)),
        open_model=open_predictor,
        runner=Here(),
        show=lambda board, line: told.append(line),
    )
    assert [(one["variant"], one["seed"]) for one in results["failed"]] == [("bad", 0), ("bad", 1)]
    assert results["failed"][0]["settings"] == {"model.config.fusion_heads": 7}
    assert len(results["variants"]["good"]["values"]) == 2 and results["variants"]["bad"]["runs"] == []
    assert any(line.startswith("bad, seed 0 failed: ") for line in told)
    text = (out / "table.md").read_text(encoding="utf-8")
    assert "failed: bad, seed 1 ({'model.config.fusion_heads': 7}): " in text and "2 runs failed." in text
    assert "## Failed runs" in (out / "report.md").read_text(encoding="utf-8")


KILLED = """
import multiprocessing, os, signal, sys
from mmsr.inference.loading import open_predictor
from mmsr.ablation.ablate import ablate
from mmsr.ablation.spec import Evaluation, read_ablation
from mmsr.ablation.runner import LocalProcesses

def show(board, line):
    if line == "concat, seed 1: starts":
        print(*(process.pid for process in multiprocessing.active_children()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

ablate(read_ablation(sys.argv[1]), open_model=open_predictor, runner=LocalProcesses(1), show=show)
"""


def test_killed_half_way_and_started_again_nothing_is_repeated(finished, demo_corpus, tmp_path):
    path = tiny(tmp_path, demo_corpus)
    out = read_ablation(path).out
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    workers = [int(word) for word in killed.stdout.split()]
    assert len(workers) == 1 and ended(workers), "a process outlives the one that started it"
    done = {file: file.stat().st_mtime_ns for file in out.glob("runs/*/result.json")}
    assert len(done) == 2
    runner = Here()
    ablate(read_ablation(path), open_model=open_predictor, runner=runner)
    assert len(runner.done) == 2
    assert {file: file.stat().st_mtime_ns for file in done} == done
    assert settled(out) == settled(read_ablation(finished[0]).out)


def children(process: int) -> list[int]:
    path = Path(f"/proc/{process}/task/{process}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def ended(processes: list[int]) -> bool:
    """Whether processes end within some seconds; one that nobody has buried has ended."""

    def runs(process: int) -> bool:
        try:
            status = Path(f"/proc/{process}/stat").read_text()
        except OSError:
            return False
        return status.rpartition(")")[2].split()[0] != "Z"

    deadline = time.monotonic() + 20
    while any(map(runs, processes)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(runs, processes))


@pytest.mark.slow
def test_ctrl_c_ends_all_processes_cleanly(demo_corpus, tmp_path):
    content = yaml.safe_load(tiny(tmp_path, demo_corpus).read_text())
    content["settings"] |= {"trainer.max_epochs": 5000, "early_stopping.patience": 5000}
    command = [
        sys.executable,
        "-m",
        "mmsr.cli.main",
        "ablate",
        "-c",
        str(write(tmp_path, **content)),
        "--jobs",
        "2",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 100
        while len(set(tmp_path.glob("out/runs/*/checkpoints/last.ckpt"))) < 2:
            assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        workers = children(process.pid)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, told
    assert told.splitlines()[-1] == "interrupted" and "Traceback" not in told
    assert ended(workers)
    assert not list(tmp_path.glob("out/runs/*/.*")), "something half-written is left"


def test_processes_do_every_run_and_tell_how_one_ended(tmp_path, monkeypatch):
    (tmp_path / "work_of_test_ablation.py").write_text(
        "import os\n"
        "def work(run):\n"
        "    if run.seed == 0: raise ValueError('too\\nbad')\n"
        "    if run.seed == 1: os._exit(3)\n"
        "    if run.seed == 2: raise SystemExit(2)\n"
        "    (run.folder / 'threads').write_text(os.environ['OMP_NUM_THREADS'])\n"
    )
    monkeypatch.syspath_prepend(tmp_path)  # processes that are spawned get the path too
    work = importlib.import_module("work_of_test_ablation").work
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    runs = [
        Run("v", seed, str(seed), tmp_path / str(seed), {}, "f", "text", evaluation=None) for seed in range(4)
    ]
    events = [event for event in LocalProcesses(1).run(work, runs) if event.run is not None]
    ends = {event.run.seed: event.error for event in events if event.state != "running"}
    assert ends == {
        0: "ValueError: too bad",
        1: "its process ended with exit code 3",
        2: "SystemExit: 2",
        3: "",
    }
    assert "Traceback" in (tmp_path / "0" / "log.txt").read_text()
    assert (tmp_path / "3" / "threads").read_text() == "1" and os.environ["OMP_NUM_THREADS"] == "7"
    with pytest.raises(ValueError, match="--jobs 0; accepted: 1 or more"):
        LocalProcesses(0)


def test_two_at_work_in_one_folder_are_refused(finished):
    ablation = read_ablation(finished[0])
    with pytest.raises(ValueError, match="another `mmsr ablate` is at work there"):
        ablate(ablation, open_model=open_predictor, runner=Nested(ablation))


class Nested:
    """A runner that starts the same ablation within."""

    def __init__(self, ablation):
        self.ablation = ablation

    def run(self, work, runs):
        ablate(self.ablation, open_model=open_predictor, runner=Here())
        yield Event()


# ---------------------------------------------------------------------- told again


@pytest.fixture
def copied(finished, tmp_path):
    """A finished ablation's folder to change, and its file."""
    path, _ = finished
    return shutil.copytree(read_ablation(path).out, tmp_path / "out"), path


def test_a_mean_has_an_interval_over_seeds_and_one_over_rows(finished):
    path, results = finished
    figures = results["variants"]["concat"]
    rows = said(read_ablation(path).out, results, "concat")
    gold = [row["label"] for row in rows[0]]
    labels = [[row["predicted_label"] for row in seed] for seed in rows]
    speakers = {row["speaker"] for row in rows[0]}
    over = "speakers" if len(speakers) > 5 else "rows"
    clusters = [row["speaker"] for row in rows[0]] if over == "speakers" else None
    assert figures["interval_rows"] == pytest.approx(bootstrap(gold, labels, clusters=clusters))
    assert (figures["over"], figures["units"]) == (over, len(speakers) if clusters else len(gold))
    (line,) = [line for line in table(results).splitlines() if line.startswith("| `concat`")]
    shown = f"[{figures['interval_rows'][0]:.3f}, {figures['interval_rows'][1]:.3f}]"
    assert line.split(" | ")[4] == shown
    assert table(results).splitlines()[0].split(" | ")[3:5] == ["95 % over seeds", "95 % over rows"]
    assert f"{shown} over {over}." in paragraph(results)


def test_blocks_of_rows_are_drawn_together(copied, demo_corpus):
    out, path = copied
    results = told_again(out, path, evaluation={"conditions": ["shuffled_audio"], "block_rows": 7})
    difference = results["variants"]["text_only"]["difference"]
    ours, theirs = (said(out, results, name) for name in ("text_only", "concat"))
    places = {id_: row for row, id_ in enumerate(load_manifest(demo_corpus)["id"])}
    blocks = [places[row["id"]] // 7 for row in ours[0]]
    assert difference["over"] == "blocks of 7 rows and seeds" and difference["units"] == len(set(blocks))
    assert 1 < len(set(blocks)) < len(blocks)
    assert results["variants"]["concat"]["over"] == "blocks of 7 rows"
    one = told_again(out, path, seeds=[0], evaluation={"conditions": ["shuffled_audio"], "block_rows": 7})
    labels = [[row["predicted_label"] for row in side[0]] for side in (ours, theirs)]
    found = paired_bootstrap([row["label"] for row in ours[0]], *labels, clusters=blocks)
    assert one["variants"]["text_only"]["difference"]["interval"] == pytest.approx(found.interval)
    assert f"blocks of 7 rows ({len(set(blocks))})" in (out / "report.md").read_text(encoding="utf-8")


def test_values_of_a_column_are_drawn_together_and_rows_without_one_stand_alone(
    copied, tmp_path, demo_corpus
):
    out, path = copied
    moved = shutil.copytree(demo_corpus.parent, tmp_path / "moved") / demo_corpus.name
    with open(moved, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for place, row in enumerate(rows):
        row |= {"recording": f"r{place // 5}" if place % 5 else "", "session": "one"}
    with open(moved, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    settings = {**SETTINGS, "data.manifest": str(moved)}
    conditions = {"conditions": ["shuffled_audio"]}
    results = told_again(out, path, settings=settings, evaluation={**conditions, "cluster": "recording"})
    known = {row["id"]: row["recording"] or row["id"] for row in rows}
    units = {known[row["id"]] for row in said(out, results, "concat")[0]}
    difference = results["variants"]["text_only"]["difference"]
    assert difference["over"] == "values of recording and seeds" and difference["units"] == len(units)
    by_kind = told_again(out, path, settings=settings, evaluation={**conditions, "cluster": "kind"})
    assert by_kind["variants"]["text_only"]["difference"]["units"] == len({row["kind"] for row in rows})
    for column, message in (
        (
            "recroding",
            r"evaluation cluster 'recroding': .*'recroding' is not in the file; found: .*recording",
        ),
        ("session", r"evaluation cluster 'session': manifest.csv has not two values there; .*, speaker"),
    ):
        with pytest.raises(ValueError, match=message):
            told_again(out, path, settings=settings, evaluation={**conditions, "cluster": column})


@pytest.fixture
def explained(copied):
    """The same, but that `concat` writes rationales: they are put into its files."""
    out, path = copied
    for run in plan(replace(read_ablation(path), out=out))[0]:
        file = run.folder / "predictions.jsonl"
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        rows = [Prediction.from_row({**row, "predicted_rationale": "said by nobody"}) for row in rows]
        file.write_text("".join(json.dumps(row.to_row()) + "\n" for row in rows), encoding="utf-8")
        labels = run.result()["labels"]
        change(
            run.folder / "metrics.json",
            lambda metrics, rows=rows, labels=labels: metrics["test"].update(
                {
                    name: evaluate_rows([row for row in rows if row.condition == name], labels)
                    for name in metrics["test"]
                }
            ),
        )
    return out, path


def test_every_metric_can_be_shown_too(explained, text_encoder):
    """Also those that a run's metrics.json does not have: of predictions and training rows alone."""
    out, path = explained
    also = ["weighted_f1", "rouge1", "bleu", "distinct1", "verbatim_from_training", "bertscore_f1", "length"]
    assert read_ablation(write(out, grid={"model.fusion": ["film"]}, evaluation={"also": also[:5]}))
    evaluation = {"conditions": ["shuffled_audio"], "also": also, "bertscore": str(text_encoder)}
    results = told_again(out, path, evaluation=evaluation)
    seeds = said(out, results, "concat")
    found = results["variants"]["concat"]["test"]["audio+text"]
    references = [[row["rationale"] for row in seed] for seed in seeds]
    written = [[row["predicted_rationale"] for row in seed] for seed in seeds]
    languages = [row["language"] for row in seeds[0]]
    assert found["bleu"] == pytest.approx(
        np.mean([bleu(*pair, languages=languages) for pair in zip(references, written, strict=True)])
    )
    gold, predicted = (
        [[row[name] for row in seed] for seed in seeds] for name in ("label", "predicted_label")
    )
    assert found["weighted_f1"] == pytest.approx(
        np.mean([f1_score(*pair, average="weighted") for pair in zip(gold, predicted, strict=True)])
    )
    assert (found["verbatim_from_training"], found["length"]) == (0, 3) and 0 < found["bertscore_f1"] < 1
    head, _, line = table(results).splitlines()[:3]
    shown = dict(zip(head.split(" | "), line.split(" | "), strict=True))
    for name in also:
        assert shown[METRICS[name].title] == f"{found[name]:.3f}", name
    assert results["variants"]["text_only"]["test"]["text"]["bleu"] is None, "it writes none"


def test_a_share_of_copies_over_folds_is_that_of_all_their_rows(tmp_path):
    """Each fold has training rows of its own, so its share is known from its run alone."""
    runs = []
    for fold, (count, share) in enumerate(((1, 1.0), (3, 0.0))):
        evaluation = Evaluation(also=("verbatim_from_training",))
        run = Run("v", 0, f"{fold}", tmp_path / f"{fold}", {}, "f", "text", evaluation=evaluation, fold=fold)
        run.folder.mkdir()
        rows = [
            Prediction(
                id=f"{fold}-{i}",
                label="neutral",
                rationale="so it is",
                predicted_label="neutral",
                predicted_rationale="so",
                condition="text",
            )
            for i in range(count)
        ]
        (run.folder / "predictions.jsonl").write_text(
            "".join(f"{json.dumps(row.to_row())}\n" for row in rows)
        )
        entry = evaluate_rows(rows, ["neutral"]) | {"verbatim_from_training": share}
        (run.folder / "metrics.json").write_text(json.dumps({"test": {"text": entry}}))
        result = {"conditions": ["text"], "audio_states": None, "labels": ["neutral"]}
        (run.folder / "result.json").write_text(json.dumps(result))
        runs.append(run)
    found = metrics_of_seed(runs, "text", ["verbatim_from_training", "macro_f1"])
    assert (found["n"], found["macro_f1"], found["verbatim_from_training"]) == (4, 1.0, 0.25)


def test_a_metric_of_rationales_is_compared(explained):
    out, path = explained
    results = told_again(out, path, evaluation={"metric": "rougeL", "conditions": ["shuffled_audio"]})
    concat, text = (results["variants"][name] for name in ("concat", "text_only"))
    references, written = (
        [[row[name] for row in seed] for seed in said(out, results, "concat")]
        for name in ("rationale", "predicted_rationale")
    )
    expected = [rationale_metrics(*pair)["rougeL"] for pair in zip(references, written, strict=True)]
    assert concat["values"] == pytest.approx(expected)
    low, high = concat["interval_rows"]
    assert low <= concat["mean"] <= high
    assert text["values"] == [] and text["difference"] is None, "it writes none"
    assert "ROUGE-L (Unicode) (test)" in table(results) and (out / "plot.png").exists()


def test_a_metric_of_ones_own_is_shown_and_compared(copied, monkeypatch):
    """Runs that were finished before the metric was there have it too."""
    monkeypatch.setitem(
        METRICS,
        "worst_recall",
        Metric(
            name="worst_recall",
            title="worst recall",
            from_confusion=lambda counts: np.min(
                np.diagonal(counts, axis1=-2, axis2=-1) / np.maximum(counts.sum(-1), 1), axis=-1
            ),
        ),
    )
    out, path = copied
    both = {"conditions": ["shuffled_audio"], "metric": "worst_recall", "also": ["worst_recall"]}
    results = told_again(out, path, evaluation=both)
    seeds = said(out, results, "concat")
    expected = []
    for rows in seeds:
        labels = {row["label"] for row in rows}
        of_label = [[row for row in rows if row["label"] == label] for label in sorted(labels)]
        expected.append(
            min(np.mean([row["predicted_label"] == row["label"] for row in one]) for one in of_label)
        )
    assert results["variants"]["concat"]["values"] == pytest.approx(expected)
    assert results["variants"]["text_only"]["difference"]["mean"] == pytest.approx(
        results["variants"]["text_only"]["mean"] - np.mean(expected)
    )
    assert table(results).splitlines()[0].count("worst recall") == 3  # own, shuffled, also
    assert "worst_recall" in results["baselines"]["majority"]


def test_rationales_are_held_against_the_constant_ones_of_their_labels(explained):
    """Of predictions alone."""
    out, path = explained
    data = MmsrDataModule(read_ablation(path).variants["concat"]["data"]["manifest"])
    given = [row for row in data.train_rows if row["rationale"] and row["label"]]
    asked = {"conditions": ["shuffled_audio"], "also": ["accuracy", "rougeL"]}
    results = told_again(out, path, evaluation=asked)

    def constant(label, language):
        theirs = [row for row in given if (row["label"], row["language"]) == (label, language)]
        texts = sorted(row["rationale"] for row in theirs or [row for row in given if row["label"] == label])
        return max(texts, key=texts.count)

    expected = [
        rationale_metrics(
            [row["rationale"] for row in seed],
            [constant(row["predicted_label"], row["language"]) for row in seed],
        )["rougeL"]
        for seed in said(out, results, "concat")
    ]
    assert results["variants"]["concat"]["constant_rationale"]["rougeL"] == pytest.approx(np.mean(expected))
    assert results["variants"]["text_only"]["constant_rationale"] is None, "it writes none"
    assert 0 < results["baselines"]["constant_rationale_oracle"]["rougeL"] < 1
    lines = table(results).splitlines()
    names = [line.split(" | ")[0] for line in lines]
    place = names.index("| baseline: constant rationale of the labels of `concat`")
    assert names[place - 1] == "| `concat`" and f" | {np.mean(expected):.3f} | " in lines[place]
    assert len({line.count(" | ") for line in lines}) == 1
    written = results["variants"]["concat"]["test"]["audio+text"]["rougeL"]
    below = f"ROUGE-L (Unicode): `concat` ({written:.3f} against {np.mean(expected):.3f})."
    assert f"Not above the constant rationale of its own labels in {below}" in results["paragraph"]
    results["variants"]["concat"]["test"]["audio+text"]["rougeL"] = 0.99
    assert "All that write rationales are above the constant one of their labels" in paragraph(results)


def test_a_run_keeps_the_machine_versions_and_command_that_made_it(copied, caplog):
    out, path = copied
    files = sorted(out.glob("runs/*/metrics.json"))
    for file in files:
        change(file, lambda metrics: metrics.update(command="mmsr ablate there"))
        change(file, lambda metrics: metrics["machine"].update(cpu="their cpu", gpu="their gpu"))
    with caplog.at_level(logging.WARNING):
        alike = told_again(out, path)
    assert alike["machine"]["cpu"] == "their cpu" and alike["command"] == "mmsr ablate there"
    assert alike["differing"] == {} and "not made alike" not in (out / "table.md").read_text(encoding="utf-8")
    assert alike["reported_by"]["machine"]["cpu"] != "their cpu"
    assert "the runs differ" not in caplog.text
    report = (out / "report.md").read_text(encoding="utf-8")
    assert "their gpu, their cpu" in report and f"by {alike['reported_by']['command']}" in report
    change(files[0], lambda metrics: metrics["versions"].update(torch="1.0"))
    change(files[0], lambda metrics: metrics["machine"].pop("gpu"))
    with caplog.at_level(logging.WARNING):
        mixed = told_again(out, path)
    assert set(mixed["differing"]) == {"versions torch", "machine gpu"}
    assert set(mixed["differing"]["machine gpu"]) == {"their gpu", "none"}
    lines = [record.getMessage() for record in caplog.records if "the runs differ" in record.getMessage()]
    assert len(lines) == 1 and "machine gpu" in lines[0] and "versions torch" in lines[0]
    told = [line for line in paragraph_and_footer(out) if "The runs were not made alike" in line]
    assert len(told) == 1 and "1.0" in told[0]
    assert told[0] in (out / "report.md").read_text(encoding="utf-8")


def paragraph_and_footer(out: Path) -> list[str]:
    lines = (out / "table.md").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("|")]


# ---------------------------------------------------------------------- figures


def test_folds_are_evaluated_together(demo_corpus, tmp_path, monkeypatch):
    """Each seed's figure is that of the rows of its folds together, and is compared over all of them."""
    content = yaml.safe_load(tiny(tmp_path, demo_corpus).read_text())
    content["settings"] |= {"data.folds": 3, "data.dev_speakers": 1, "model.rationale_format": "none"}
    content |= {"grid": {"model.fusion": ["text_only"]}, "seeds": [0, 1], "folds": [0, 2]}
    slow = {"model.learning_rate": 1e-5, "data.columns": {"text": "asr_text"}}
    content["variants"] = {"slow": slow, "fast": {"model.learning_rate": 1e-2}}
    content["reference"] = "fast, text_only"
    content["evaluation"] = {"also": ["accuracy"], "by_language": True}
    ablation = read_ablation(write(tmp_path, **content))
    learned = []

    def spy(rows, *others, **settings):
        entries = baselines(rows, *others, **settings)
        learned.append((rows, entries["tfidf"]))
        return entries

    monkeypatch.setattr("mmsr.ablation.summary.baselines", spy)
    results = ablate(ablation, open_model=open_predictor, runner=Here())
    (runs, _), out = plan(ablation), ablation.out
    assert [run.label for run in runs] == [
        f"slow, text_only, seed {seed}, fold {fold}" for seed in (0, 1) for fold in (0, 2)
    ]
    of_seed = [
        [
            json.loads(line)
            for run in runs
            if run.seed == seed
            for line in (run.folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        for seed in (0, 1)
    ]
    parts = [{row["speaker"] for row in of_seed[0][: len(of_seed[0]) // 2]}, set()]
    parts[1] = {row["speaker"] for row in of_seed[0]} - parts[0]
    assert parts[0] and parts[1], "the folds have speakers of their own"
    figures = results["variants"]["slow, text_only"]
    gold, said = ([row[name] for row in of_seed[1]] for name in ("label", "predicted_label"))
    assert figures["values"][1] == pytest.approx(f1_score(gold, said, average="macro"))
    assert figures["test"][figures["condition"]]["accuracy"] == pytest.approx(
        np.mean([row["label"] == row["predicted_label"] for rows in of_seed for row in rows])
    )
    german = [[row for row in rows if row["language"] == "de"] for rows in of_seed]
    assert figures["by_language"]["de"] == pytest.approx(
        np.mean(
            [
                f1_score(
                    *([row[name] for row in rows] for name in ("label", "predicted_label")), average="macro"
                )
                for rows in german
            ]
        )
    )
    assert "macro-F1, de |" in (out / "table.md").read_text(encoding="utf-8")
    assert results["variants"]["slow, text_only"]["difference"]["n"] == len(of_seed[0])
    assert "8 of 8 runs are finished" in (out / "table.md").read_text(encoding="utf-8")
    assert 0 < results["baselines"]["majority"]["macro_f1"] < 0.5
    for run, (rows, _) in zip(plan(ablation)[1][:2], learned, strict=True):
        data = MmsrDataModule(**run.settings["data"])
        data.attach(MmsrProcessor.from_pretrained(run.folder / "model"))
        assert [row.text for row in rows] == list(data.train_rows["text"]), "the reference's"
    german = [one["by_language"]["de"]["macro_f1"] for _, one in learned if "de" in one["by_language"]]
    assert results["baselines"]["tfidf"]["by_language"]["de"] == pytest.approx(np.mean(german))
    (row,) = [one for one in table(results).splitlines() if "TF-IDF" in one]
    assert f"| {results['baselines']['tfidf']['by_language']['vi']:.3f} |" in row

    content["evaluation"]["by_language"] = "de"
    with pytest.raises(ValueError, match="evaluation by_language 'de'; accepted: true or false"):
        read_ablation(write(tmp_path, **content))
    del content["evaluation"]
    content["settings"]["data.fold"] = 1
    with pytest.raises(ValueError, match=r"folds \[0, 2\] and data.fold of variant 'slow, text_only' contra"):
        read_ablation(write(tmp_path, **content))
    content["folds"] = [0, 0]
    with pytest.raises(ValueError, match=r"folds \[0, 0\] repeat one; accepted: each once"):
        read_ablation(write(tmp_path, **content))


def test_the_paragraph_is_made_of_the_numbers(finished):
    results = json.loads(json.dumps(finished[1]))
    results["variants"]["text_only"]["difference"] |= {
        "mean": -0.25,
        "interval": [-0.4, -0.1],
        "p_holm": 0.004,
    }
    results["variants"]["text_only"]["seconds_an_epoch"] = 0.25
    text = paragraph(results)
    assert (
        "1 of 1 differ from it beyond a Holm-corrected 0.05: `text_only` -0.250 [-0.400, -0.100], p .004"
        in text
    )
    assert "Cheapest is `text_only` with 0.2 s an epoch" in text
    results["variants"]["text_only"]["difference"]["p_holm"] = 0.05
    assert "0 of 1 differ from it beyond a Holm-corrected 0.05." in paragraph(results)
    assert "| reference |" in table(results) and "-0.250" in table(results)
    assert "another seed may differ" not in text
    assert "by which alone one may choose, `" in text
    results["variants"]["text_only"]["settings"]["data.train_languages"] = ["de"]
    assert "by which alone" not in paragraph(results)
    assert "development rows differ (data.train_languages)" in paragraph(results)
    for figures in results["variants"].values():
        figures["runs"] = figures["runs"][:1]
    assert "There is one run of each" in paragraph(results)


def test_columns_of_words_are_set_to_the_left(finished):
    names, sides = (line.split(" | ") for line in table(finished[1]).splitlines()[:2])
    assert names[1] == "reads" and sides[1] == "---"
    assert names[2] == "macro-F1 (test)" and sides[2] == "---:"

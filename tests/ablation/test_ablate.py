"""Whole ablations: results, reports, failures, and finished runs that are found again."""

import csv
import json
import shutil

import pytest
import yaml

from mmsr.ablation.ablate import ablate
from mmsr.ablation.report import table
from mmsr.ablation.runner import Event
from mmsr.ablation.spec import read_ablation
from mmsr.cli.main import main
from mmsr.inference.loading import open_predictor


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
    assert "<code>concat</code>" in page and page.count("data:image/svg+xml") == 2 and "![Dots" in text
    assert all(line in text for line in table(results).splitlines() if line.startswith("|"))
    assert results["paragraph"] in text and "## Failed runs" not in text
    assert f"**data fingerprint**: {results['data_fingerprints'][0]}" in text
    assert "**seed**: 0, 1" in text and "**intervals**: " in text
    run = out / "runs" / concat["runs"][0]["name"]
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["test"]["audio+text"]["macro_f1"] == concat["values"][0]
    assert metrics["data_fingerprint"] in results["data_fingerprints"]
    assert not (run / "checkpoints").exists()
    assert "4 of 4 runs are finished" in (out / "table.md").read_text(encoding="utf-8")
    latex = (out / "table.tex").read_text(encoding="utf-8")
    best = max(results["variants"], key=lambda name: results["variants"][name]["mean"])
    figure = f"{results['variants'][best]['mean']:.3f}"
    assert f"\\texttt{{{best.replace('_', chr(92) + '_')}}} & \\bfseries {figure}" in latex
    assert latex.index("majority label") > latex.rindex("\\midrule") and "\\label{tab:" in latex
    rows = list(csv.DictReader((out / "table.csv").open(encoding="utf-8")))
    assert [row["variant"] for row in rows][:2] == list(results["variants"])
    assert [row["baseline"] for row in rows] == ["", "", "yes", "yes"]
    assert (out / "plot.pdf").read_bytes().startswith(b"%PDF")


def test_what_is_finished_is_found_again_under_any_name(make_runner, write, finished, demo_corpus, tmp_path):
    path, results = finished
    content = yaml.safe_load(path.read_text())
    del content["grid"]
    moved = shutil.copytree(demo_corpus.parent, tmp_path / "moved") / demo_corpus.name
    content["settings"]["data.manifest"] = str(moved)
    content["variants"] = {"words": {"model.fusion": "text_only"}, "both": {"model.fusion": "concat"}}
    runner = make_runner()
    again = ablate(read_ablation(write(tmp_path, **content)), open_model=open_predictor, runner=runner)
    assert runner.done == []
    assert again["reference"] == "words"
    assert again["variants"]["both"]["values"] == results["variants"]["concat"]["values"]


def test_the_command_prints_table_and_paragraph_and_lists_runs(write, finished, tmp_path, capsys):
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
    assert "'model.fusoin' is no setting; did you mean model.fusion?" in capsys.readouterr().err


def test_a_failing_run_is_named_with_its_settings_and_the_others_finish(
    make_runner, write, finished, tmp_path
):
    path, _ = finished
    out = shutil.copytree(read_ablation(path).out, tmp_path / "out")
    content = yaml.safe_load(path.read_text())
    del content["grid"]
    content["variants"] = {"bad": {"model.config.fusion_heads": 7}, "good": {"model.fusion": "concat"}}
    told = []
    results = ablate(
        read_ablation(write(tmp_path, **content), out=str(out)),
        open_model=open_predictor,
        runner=make_runner(),
        show=lambda board, line: told.append(line),
    )
    assert [(one["variant"], one["seed"]) for one in results["failed"]] == [("bad", 0), ("bad", 1)]
    assert results["failed"][0]["settings"] == {"model.config.fusion_heads": 7}
    assert len(results["variants"]["good"]["values"]) == 2 and results["variants"]["bad"]["runs"] == []
    assert any(line.startswith("bad, seed 0 failed: ") for line in told)
    text = (out / "table.md").read_text(encoding="utf-8")
    assert "failed: bad, seed 1 ({'model.config.fusion_heads': 7}): " in text and "2 runs failed." in text
    assert "## Failed runs" in (out / "report.md").read_text(encoding="utf-8")


def test_two_at_work_in_one_folder_are_refused(make_runner, finished):
    ablation = read_ablation(finished[0])
    with pytest.raises(
        ValueError, match=r"out is in use by process \d+ on .*; accepted: another folder, or wait"
    ):
        ablate(ablation, open_model=open_predictor, runner=Nested(ablation, make_runner()))


class Nested:
    """A runner that starts the same ablation within."""

    def __init__(self, ablation, inner):
        self.ablation, self.inner = ablation, inner

    def run(self, work, runs):
        ablate(self.ablation, open_model=open_predictor, runner=self.inner)
        yield Event()

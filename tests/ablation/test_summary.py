"""Results from the files of finished runs."""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.metrics import f1_score

from mmsr.ablation.ablate import ablate
from mmsr.ablation.plan import plan
from mmsr.ablation.report import paragraph, table
from mmsr.ablation.runs import Run
from mmsr.ablation.spec import Evaluation, read_ablation
from mmsr.ablation.summary import baseline_metrics, metrics_of_seed
from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.evaluation.baselines import baselines
from mmsr.evaluation.entries import evaluate_rows
from mmsr.evaluation.metrics import METRICS, Metric, rationale_metrics
from mmsr.evaluation.rationales import bleu
from mmsr.evaluation.significance import bootstrap
from mmsr.inference.loading import open_predictor
from mmsr.model.processing import MmsrProcessor
from mmsr.records import Prediction


def lines_of(results: Mapping[str, Any]) -> list[str]:
    """Of the table in Markdown, without its caption."""
    return [line for line in table(results).splitlines() if line.startswith("|")]


def test_where_a_variant_reads_the_recogniser_a_baseline_does(finished):
    ablation = read_ablation(finished[0])
    runs = plan(ablation)
    (own, *_) = runs[0]
    found = baseline_metrics(ablation, [*runs, [replace(own, condition="audio+asr")]])
    assert set(found) == {"majority", "tfidf", "tfidf_asr"}
    assert found["tfidf"] == finished[1]["baselines"]["tfidf"] != found["tfidf_asr"]


def test_a_mean_has_an_interval_over_seeds_and_one_over_rows(said, finished):
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
    (line,) = [line for line in lines_of(results) if line.startswith("| `concat`")]
    shown = f"[{figures['interval_rows'][0]:.3f}, {figures['interval_rows'][1]:.3f}]"
    assert line.split(" | ")[4] == shown
    assert lines_of(results)[0].split(" | ")[3:5] == ["95 % over seeds", "95 % over rows"]
    assert f"{shown} over {over}." in paragraph(results)


@pytest.fixture
def explained(change, copied):
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


def test_every_metric_can_be_shown_too(write, told_again, said, explained, text_encoder):
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
    head, _, line = lines_of(results)[:3]
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


def test_a_metric_of_rationales_is_compared(told_again, said, explained):
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


def test_a_metric_of_ones_own_is_shown_and_compared(told_again, said, copied, monkeypatch):
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
    assert lines_of(results)[0].count("worst recall") == 3  # own, shuffled, also
    assert "worst_recall" in results["baselines"]["majority"]


def test_rationales_are_held_against_the_constant_ones_of_their_labels(told_again, said, explained):
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
    lines = lines_of(results)
    names = [line.split(" | ")[0] for line in lines]
    place = names.index("| baseline: constant rationale of the labels of `concat`")
    assert names[place - 1] == "| `concat`" and f" | {np.mean(expected):.3f} | " in lines[place]
    assert len({line.count(" | ") for line in lines}) == 1
    written = results["variants"]["concat"]["test"]["audio+text"]["rougeL"]
    below = f"ROUGE-L (Unicode): `concat` ({written:.3f} against {np.mean(expected):.3f})."
    assert f"Not above the constant rationale of its own labels in {below}" in results["paragraph"]
    results["variants"]["concat"]["test"]["audio+text"]["rougeL"] = 0.99
    assert "All that write rationales are above the constant one of their labels" in paragraph(results)


def test_a_run_keeps_the_machine_versions_and_command_that_made_it(change, told_again, copied, caplog):
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


@pytest.mark.slow
def test_folds_are_evaluated_together(make_runner, write, tiny, demo_corpus, tmp_path, monkeypatch):
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
    results = ablate(ablation, open_model=open_predictor, runner=make_runner())
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
    (row,) = [one for one in lines_of(results) if "TF-IDF" in one]
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

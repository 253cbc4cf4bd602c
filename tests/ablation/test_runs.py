"""One run: its data, its feature store, its conditions."""

import json
import shutil
from types import SimpleNamespace

import pytest
import yaml

from mmsr.ablation.ablate import ablate
from mmsr.ablation.plan import plan
from mmsr.ablation.runs import kept_epoch, train_and_evaluate
from mmsr.ablation.spec import read_ablation
from mmsr.data.features.store import FeatureStore
from mmsr.data.manifest.manifest import load_manifest
from mmsr.files import folder_lock
from mmsr.inference.loading import open_predictor

SETTINGS = {
    "model.preset": "tiny",
    "model.vocab_size": 600,
    "model.rationale_format": "none",
    "data.batch_rows": 8,
    "trainer.max_epochs": 1,
    "trainer.precision": "32-true",
}


def test_a_frozen_audio_encoder_hears_each_file_once_for_all_runs(
    make_runner, tiny, change, said, demo_corpus, tmp_path, monkeypatch
):
    variants = {
        name: {"model.freeze": ["audio_encoder"], "model.fusion": name, "model.feature_dtype": "bfloat16"}
        for name in ("concat", "gated")
    }
    settings = {**SETTINGS, "data.manifest": str(demo_corpus), "trainer.precision": "bf16"}
    path = tiny(tmp_path, demo_corpus, settings=settings, grid=None, variants=variants, seeds=[0])
    first = ablate(read_ablation(path), open_model=open_predictor, runner=make_runner())
    assert first["failed"] == []
    # training's states and the test rows' are of one maker, so that one way of encoding was used for both
    (maker,) = FeatureStore(tmp_path / "out" / "features").makers()
    assert maker["entries"] == len({row["audio"] for row in load_manifest(demo_corpus)})
    assert maker["dtype"] == "bfloat16"
    results = list((tmp_path / "out" / "runs").glob("*/result.json"))
    for result in results:  # as an evaluation left it that heard the test rows
        change(result, lambda content: content.update(audio_states=None))
    monkeypatch.setattr("mmsr.data.audio.decoding.Audio.decode", None)  # no file can be heard any more
    again = ablate(read_ablation(path), open_model=open_predictor, runner=make_runner())
    assert again["failed"] == [] and again["variants"].keys() == variants.keys()
    states = {"bf16": True, "dtype": "bfloat16"}
    assert all(json.loads(result.read_text())["audio_states"] == states for result in results)
    for result in results:  # as a machine that computes otherwise leaves it: finished, not to be repeated
        change(result, lambda content: content["audio_states"].update(bf16=False))
    assert all(run.result() for row in plan(read_ablation(path)) for run in row)
    for name in variants:
        assert said(tmp_path / "out", again, name) == said(tmp_path / "out", first, name)


def test_a_run_that_another_process_works_on_is_refused(finished, tmp_path):
    path, _ = finished
    out = shutil.copytree(read_ablation(path).out, tmp_path / "out")
    run = plan(read_ablation(path, out=str(out)))[0][0]
    with folder_lock(run.folder), pytest.raises(ValueError, match="is in use by process"):
        train_and_evaluate(open_predictor, run)
    shutil.rmtree(run.folder / "model")
    (run.folder / "settings.yaml").write_text("of data that have moved")
    train_and_evaluate(open_predictor, run)
    assert run.result() is not None and (run.folder / ".lock").is_file()


def test_other_conditions_are_answered_without_training_again(make_runner, write, change, finished, tmp_path):
    path, results = finished
    out = shutil.copytree(read_ablation(path).out, tmp_path / "out")
    content = yaml.safe_load(path.read_text())
    content |= {"seeds": [0], "evaluation": {"condition": "asr"}, "grid": {"model.fusion": ["concat"]}}
    trained = {file: file.stat().st_mtime_ns for file in out.rglob("model.safetensors")}
    for file in out.glob("runs/*/metrics.json"):
        change(file, lambda metrics: metrics["machine"].update(cpu="another"))
    other = read_ablation(write(tmp_path, **content), out=str(out))
    again = ablate(other, open_model=open_predictor, runner=make_runner())
    assert again["variants"]["concat"]["test"].keys() == {"asr"}
    metrics = out / "runs" / again["variants"]["concat"]["runs"][0]["name"] / "metrics.json"
    found = json.loads(metrics.read_text(encoding="utf-8"))
    assert found["trained"]["machine"]["cpu"] == "another", "whose time an epoch's is"
    assert found["machine"]["cpu"] != "another" and again["differing"]["machine cpu"][0] == "another"
    assert {file: file.stat().st_mtime_ns for file in out.rglob("model.safetensors")} == trained


def test_a_language_model_answers_without_training_and_is_asked_once(
    make_runner, write, demo_corpus, language_model, text_encoder, tmp_path
):
    examples = f"{{choose: nearest, number: 2, encoder: {text_encoder}, column: asr_text}}"
    content = f"model: {language_model}\ndtype: float32\nprompt: few_shot\nmax_tokens: 4\n"
    (tmp_path / "llm.yaml").write_text(f"{content}rationale_format: post_thinking\nexamples: {examples}\n")
    path = write(
        tmp_path,
        settings={"data.manifest": str(demo_corpus)},
        grid={"transcript": {"human": {}, "asr": {"test_transcript": "asr_text"}}},
        variants={"asked": {"language_model": "llm.yaml"}},
        seeds=[0, 1],
        evaluation={"also": ["rougeL"]},
        out=str(tmp_path / "out"),
    )
    runner = make_runner()
    results = ablate(read_ablation(path), open_model=open_predictor, runner=runner)
    assert results["failed"] == [] and len(runner.done) == 1
    human, asr = (results["variants"][f"asked, {kind}"] for kind in ("human", "asr"))
    assert (human["condition"], asr["condition"]) == ("text", "asr")
    assert human["trained_parameters"] == 0 and human["seconds_an_epoch"] is None and human["dev"] is None
    assert len(set(human["values"])) == 1 and len(human["values"]) == 2
    (folder,) = (tmp_path / "out" / "runs").iterdir()
    answers = (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["test"]
    assert len(answers) <= metrics["text"]["n"] + metrics["asr"]["n"]
    assert metrics["text"]["usage"]["prompt_tokens"] > 0
    (folder / "result.json").unlink()  # killed before it was written
    again = ablate(read_ablation(path), open_model=open_predictor, runner=make_runner())
    assert again["variants"]["asked, asr"]["values"] == asr["values"]
    assert (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines() == answers


@pytest.mark.parametrize(
    ("monitor", "history", "kept"),
    [
        ("last_epoch", [{"dev_loss": 1.0}, {"dev_loss": 2.0, "train_loss": float("nan")}], {"dev_loss": 2.0}),
        ("dev_loss", [{"dev_loss": 1.0}, {"dev_loss": 2.0}], {"dev_loss": 1.0}),
        ("last_epoch", [], {}),
        ("dev_loss", [{"dev_loss": float("nan")}], {}),
    ],
)
def test_the_metrics_are_those_of_the_epoch_that_the_model_is_of(tmp_path, monitor, history, kept):
    (tmp_path / "history.json").write_text(json.dumps(history))
    run = SimpleNamespace(folder=tmp_path, settings={"monitor": monitor})
    assert kept_epoch(run) == kept

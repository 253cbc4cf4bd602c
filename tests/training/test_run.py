"""One run in one folder: started, interrupted, gone on with, finished, refused."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback

from mmsr.cli.experiments import run_fit
from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.data.manifest.manifest import load_manifest
from mmsr.inference.loading import load_pipeline
from mmsr.inference.pipeline import TASK, SentimentReasoningPipeline
from mmsr.model.modeling import MmsrForSentimentReasoning, save_model
from mmsr.model.processing import MmsrProcessor
from mmsr.training.callbacks import calibrate_model
from mmsr.training.module import MmsrModule, load_lightning_checkpoint, unpack
from mmsr.training.run import MmsrCLI, fit, mixed_precision
from mmsr.training.settings import TrainingSettings

SWITCHES = """
model:
  config: {tie_word_embeddings: false}
  train_layers: {audio_encoder: 1}
  lora:
    text_encoder: {r: 4, alpha: 8, dropout: 0.1, target_modules: [query, value]}
    decoder: {r: 4}
  layer_decay: 0.8
  gradient_checkpointing: true
  class_weights: balanced
  label_smoothing: 0.1
  uncertainty_weighting: true
  r_drop: 1.0
  objectives: {contrastive: 0.1, supervised_contrastive: 0.1, auxiliary_heads: 0.3, ogm_ge: {alpha: 0.3}}
  ema_decay: 0.9
"""


def arguments(corpus: Path, folder: Path, *more: str) -> list[str]:
    settings = {
        "model.preset": "tiny",
        "model.vocab_size": "600",
        "data.manifest": str(corpus),
        "data.batch_rows": "8",
        "trainer.default_root_dir": str(folder),
        "trainer.max_epochs": "2",
        "trainer.precision": "32-true",
        "trainer.enable_progress_bar": "false",
    }
    return [item for name, value in settings.items() for item in (f"--{name}", value)] + list(more)


# For what does not depend on the model: it neither hears nor writes.
READER = ("--model.fusion", "text_only", "--model.rationale_format", "none")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return MmsrForSentimentReasoning.from_pretrained(folder).state_dict()


@pytest.fixture(scope="module")
def finished(demo_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert fit(arguments(demo_corpus, folder)) == folder / "model"
    return folder


@pytest.mark.parametrize("own", [None, "1024"])
def test_few_shapes_are_kept_prepared_unless_the_user_says_otherwise(own, monkeypatch):
    names = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
    for name in names:
        monkeypatch.setenv(name, own or "")  # so that what `fit` sets is taken back
        if own is None:
            monkeypatch.delenv(name)

    class Parsed(Exception):
        pass

    def parse(words):
        raise Parsed([os.environ[name] for name in names])

    with pytest.raises(Parsed) as found:
        fit([], parse=parse)
    assert found.value.args == ([own or "256"] * 2,)


def test_a_limit_of_steps_inside_an_epoch_still_chooses_by_the_development_split(demo_corpus, tmp_path):
    folder = fit(arguments(demo_corpus, tmp_path / "run", "--trainer.max_steps", "2"))
    (row,) = json.loads((tmp_path / "run" / "history.json").read_text())
    assert row["step"] == 2 and np.isfinite(row["dev_loss"])
    assert folder.is_dir() and (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()


def test_a_run_leaves_model_history_and_checkpoints(finished):
    processor = MmsrProcessor.from_pretrained(finished / "model")
    model = MmsrForSentimentReasoning.from_pretrained(finished / "model")
    sizes = {model.config.text_encoder.vocab_size, model.config.decoder.vocab_size}
    assert sizes == {len(processor.tokenizer)}
    assert model.config.label_token_ids == processor.label_token_ids
    assert f"\n# {finished.name}: " in (finished / "model" / "README.md").read_text(encoding="utf-8"), (
        "the card's name"
    )
    assert (finished / "checkpoints" / "last.ckpt").exists()
    history = json.loads((finished / "history.json").read_text())
    assert [row["epoch"] for row in history] == [0, 1]
    assert {"train_loss", "dev_loss", "dev_macro_f1", "dev_rationale_loss"} <= set(history[0])
    assert history[1]["train_loss"] < history[0]["train_loss"]


def test_temperatures_are_fitted_to_development_rows(finished, demo_corpus):
    processor = MmsrProcessor.from_pretrained(finished / "model")
    model = MmsrForSentimentReasoning.from_pretrained(finished / "model")
    assert model.config.temperature == 1.0, "some 6 development rows are too few"
    rows = load_manifest(demo_corpus).to_list()
    pipe = SentimentReasoningPipeline(model=model, processor=processor, task=TASK)
    answers = pipe([{name: row[name] for name in ("audio", "text")} for row in rows], rationale=False)
    labels = [answer["label"] for answer in answers]
    for i in range(0, len(rows), 4):  # right in three of four rows, whatever was learned
        labels[i] = processor.labels[(processor.labels.index(labels[i]) + 1) % 3]
    manifest = demo_corpus.parent / "all-dev.jsonl"
    table = [{**row, "label": label, "split": "dev"} for row, label in zip(rows, labels, strict=True)]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in table))
    data = MmsrDataModule(str(manifest))
    data.attach(processor)
    line = calibrate_model(model, processor, data)
    assert line.startswith("calibrated on 60 development rows: temperature "), line
    assert model.config.temperature != 1.0
    data = MmsrDataModule(str(demo_corpus))
    data.attach(processor)
    line = calibrate_model(model, processor, data)
    assert "not calibrated (temperature 1)" in line and "accepted: 50 or more" in line
    assert model.config.temperature == 1.0


def test_the_same_command_again_trains_nothing(finished, demo_corpus, capsys):
    before = (finished / "model" / "model.safetensors").stat().st_mtime_ns
    fit(arguments(demo_corpus, finished))
    assert (finished / "model" / "model.safetensors").stat().st_mtime_ns == before
    assert "this run is finished" in capsys.readouterr().err


def test_another_run_in_the_same_folder_is_refused(finished, demo_corpus):
    with pytest.raises(ValueError, match=r"holds another run \(model.learning_rate 0.001 -> 0.01\)"):
        fit(arguments(demo_corpus, finished, "--model.learning_rate", "0.01"))


def test_a_run_of_a_constant_rate_is_made_longer_and_ends_like_one_begun_so(demo_corpus, tmp_path, capsys):
    constant = ("--model.schedule", "constant", "--model.warmup_steps", "3", "--model.audio_dropout", "0.3")
    longer = (*constant, "--trainer.max_epochs", "3")
    whole = fit(arguments(demo_corpus, tmp_path / "whole", *longer))
    fit(arguments(demo_corpus, tmp_path / "run", *constant))
    with pytest.raises(ValueError, match="holds another run"):
        fit(arguments(demo_corpus, tmp_path / "run", *constant, "--trainer.max_epochs", "1"))
    capsys.readouterr()
    model = fit(arguments(demo_corpus, tmp_path / "run", *longer))
    assert "model_max_epochs_2: the model so far" in capsys.readouterr().err
    assert (tmp_path / "run" / "model_max_epochs_2" / "config.json").is_file()
    expected, found = weights(whole), weights(model)
    assert expected.keys() == found.keys()
    assert all(torch.equal(weight, found[name]) for name, weight in expected.items())
    assert (tmp_path / "run" / "run.yaml").read_text() == (tmp_path / "whole" / "run.yaml").read_text()


def test_a_run_whose_rate_falls_to_zero_is_gone_on_with_as_a_new_one(finished, demo_corpus, tmp_path):
    with pytest.raises(ValueError, match=r"--model.init_from .*model --trainer.default_root_dir OTHER"):
        fit(arguments(demo_corpus, finished, "--trainer.max_epochs", "3"))
    start = ("--model.init_from", str(finished / "model"), "--model.learning_rate", "1e-12")
    folder = fit(arguments(demo_corpus, tmp_path / "run", *start, "--trainer.max_epochs", "1"))
    before, after = weights(finished / "model"), weights(folder)
    assert before.keys() == after.keys()
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, rtol=0, atol=1e-6, msg=name)


def test_a_start_from_another_architecture_or_vocabulary_is_refused(finished, demo_corpus, tmp_path):
    start = ("--model.init_from", str(finished / "model"))
    run = arguments(demo_corpus, tmp_path / "run", *start)
    with pytest.raises(
        ValueError, match=r"init_from=.*: \S+ and \d+ more is .* there and .* in these settings"
    ):
        fit([*run, "--model.fusion", "gated"])
    with pytest.raises(ValueError, match="init_from=.*: its tokenizer is another one"):
        fit([*run, "--model.vocab_size", "500"])
    with pytest.raises(ValueError, match="pretrained= and init_from= both name a checkpoint"):
        fit([*run, "--model.pretrained", str(finished / "model")])


def unfinished(corpus: Path, folder: Path, *more: str) -> Path:
    """A run that was killed in its second epoch."""
    with pytest.MonkeyPatch.context() as patch:
        pull_the_plug(patch)
        with pytest.raises(SystemExit):
            fit(arguments(corpus, folder, *more))
    return folder


def test_an_unfinished_run_of_other_settings_is_replaced_if_that_is_asked_for(demo_corpus, tmp_path, capsys):
    folder = unfinished(demo_corpus, tmp_path / "run", *READER)
    (folder / "mine.txt").write_text("kept")
    other = (*READER, "--model.learning_rate", "0.01")
    with pytest.raises(
        ValueError, match=r"0.001 -> 0.01\); accepted: .* or --replace_unfinished, which deletes"
    ):
        fit(arguments(demo_corpus, folder, *other))
    model = fit(arguments(demo_corpus, folder, *other, "--replace_unfinished"))
    assert "the unfinished run of other settings is deleted" in capsys.readouterr().err
    assert [row["epoch"] for row in json.loads((folder / "history.json").read_text())] == [0, 1]
    assert (folder / "mine.txt").read_text() == "kept" and model.is_dir()
    assert "replace_unfinished" not in (folder / "run.yaml").read_text()
    with pytest.raises(ValueError, match="that run is finished, and --replace_unfinished keeps it"):
        fit(arguments(demo_corpus, folder, *READER, "--replace_unfinished"))
    assert model.is_dir()


def test_replacing_resumes_a_run_of_the_same_settings(demo_corpus, tmp_path, capsys):
    folder = unfinished(demo_corpus, tmp_path / "run", *READER)
    fit(arguments(demo_corpus, folder, *READER, "--replace_unfinished"))
    assert "resumed from" in capsys.readouterr().err


@pytest.mark.parametrize("fault", [ValueError, RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_run_without_a_checkpoint_gives_way_to_any_other(demo_corpus, tmp_path, monkeypatch, fault):
    class Fault(Callback):
        def on_train_batch_end(self, *_):
            raise fault("in the first epoch")

    run_with(monkeypatch, Fault)
    with pytest.raises(fault):
        fit(arguments(demo_corpus, tmp_path / "run", *READER, "--model.learning_rate", "0.1"))
    monkeypatch.undo()
    table = tmp_path / "run" / "logs" / "metrics.csv"
    table.write_text("dev_loss,epoch,step\n9.0,0,1\n")
    fit(arguments(demo_corpus, tmp_path / "run", *READER))
    assert "9.0" not in table.read_text()


def test_a_second_run_in_the_folder_is_refused_at_once(demo_corpus, tmp_path, monkeypatch, fit_in_process):
    given = arguments(demo_corpus, folder := tmp_path / "run", *READER)
    told = []

    class Second(Callback):
        def on_train_epoch_start(self, trainer, *_):
            if not told:
                assert fit_in_process(given, log=tmp_path / "log") == 1
                told.append((tmp_path / "log").read_text())

    run_with(monkeypatch, Second)
    model = fit(given)
    assert f"ValueError: {folder} is in use by process {os.getpid()} on " in told[0]
    assert model.is_dir() and not (folder / ".locked_by").exists()


def test_a_killed_process_leaves_no_lock(demo_corpus, tmp_path, fit_in_process):
    folder = tmp_path / "run"
    given, workers = arguments(demo_corpus, folder), ("--data.num_workers", "2")
    assert fit_in_process([*given, *workers], log=tmp_path / "log", kill=2) == 9
    assert (folder / ".locked_by").exists()
    assert fit(given).is_dir()


def test_a_finished_run_is_found_in_a_folder_that_cannot_be_written(finished, demo_corpus, monkeypatch):
    access = os.access  # root may write everywhere
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    before = {path.name for path in finished.iterdir()}
    assert fit(arguments(demo_corpus, finished)) == finished / "model"
    assert {path.name for path in finished.iterdir()} == before


def test_another_number_of_processes_is_refused(demo_corpus, tmp_path):
    folder = unfinished(demo_corpus, tmp_path / "run", *READER)
    identity = yaml.safe_load((folder / "run.yaml").read_text())
    assert identity["begun_with"] == {"processes": 1, "precision": "32-true"}
    identity["begun_with"]["processes"] = 2
    (folder / "run.yaml").write_text(yaml.safe_dump(identity))
    with pytest.raises(
        ValueError, match="begun with 2 processes, and there are 1 now, .*--trainer.devices for 2"
    ):
        fit(arguments(demo_corpus, folder, *READER))


@pytest.mark.parametrize(
    "more",
    [
        ("--trainer.accumulate_grad_batches", "2"),
        ("--trainer.max_epochs", "3"),
        ("--trainer.precision", "bf16-mixed"),
        ("--trainer.strategy", "ddp"),
        ("--trainer.callbacks+=LearningRateMonitor",),
        ("--data.batch_rows", "7"),
    ],
    ids=lambda more: more[0],
)
def test_a_run_is_not_resumed_under_other_settings(demo_corpus, tmp_path_factory, more):
    folder = tmp_path_factory.getbasetemp() / "to-be-resumed"
    if not folder.exists():
        unfinished(demo_corpus, folder, *READER)
    with pytest.raises(ValueError, match="holds another run"):
        fit(arguments(demo_corpus, folder, *READER, *more))


def test_a_run_without_a_precision_keeps_that_of_its_beginning(demo_corpus, tmp_path, monkeypatch, capsys):
    """Another machine would choose another."""
    given = (*READER, "--trainer.precision", "null")
    monkeypatch.setattr("mmsr.training.run.mixed_precision", lambda: "bf16-mixed")
    folder = unfinished(demo_corpus, tmp_path / "run", *given)
    monkeypatch.setattr("mmsr.training.run.mixed_precision", lambda: "32-true")
    precisions = []

    class Look(Callback):
        def on_train_start(self, trainer, *_):
            precisions.append(trainer.precision)

    run_with(monkeypatch, Look)
    fit(arguments(demo_corpus, folder, *given))
    assert precisions == ["bf16-mixed"]
    assert "precision bf16-mixed, in which the run was begun; a new run here" in capsys.readouterr().err


def test_a_run_of_an_earlier_version_is_found_again(finished, demo_corpus, tmp_path, capsys):
    """Its run.yaml and checkpoint have none of what was added later."""
    callbacks = ("--trainer.callbacks+=LearningRateMonitor",)
    folder = unfinished(demo_corpus, tmp_path / "run", *callbacks)
    identity = yaml.safe_load((folder / "run.yaml").read_text())
    del identity["begun_with"], identity["trainer"]["callbacks"]
    (folder / "run.yaml").write_text(yaml.safe_dump(identity))
    last = folder / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=False)
    del checkpoint["mmsr_run"]
    torch.save(checkpoint, last)
    fit(arguments(demo_corpus, folder, *callbacks))
    assert "resumed from" in capsys.readouterr().err
    expected = weights(finished / "model")
    assert all(torch.equal(value, expected[name]) for name, value in weights(folder / "model").items())
    rows = list(csv.DictReader((folder / "logs" / "metrics.csv").open()))
    assert [row["epoch"] for row in rows if row["dev_loss"]] == ["0", "1"]


def test_an_interrupted_run_goes_on_and_ends_like_an_unbroken_one(
    finished, demo_corpus, tmp_path, monkeypatch, capsys
):
    pull_the_plug(monkeypatch)
    folder = tmp_path / "run"
    with pytest.raises(SystemExit):
        fit(arguments(demo_corpus, folder))
    assert not (folder / "model").exists()
    monkeypatch.undo()
    fit(arguments(demo_corpus, folder))
    assert "resumed from" in capsys.readouterr().err
    expected = weights(finished / "model")
    for name, value in weights(folder / "model").items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=name)


def pull_the_plug(monkeypatch) -> list[int]:
    """Make runs end in their second epoch; the list then holds that epoch's number."""
    pulled: list[int] = []

    class Pull(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.current_epoch == 1:
                pulled.append(1)
                raise SystemExit("killed")

    run_with(monkeypatch, Pull)
    return pulled


def run_with(monkeypatch, callback: type[Callback]) -> None:
    """Let every run have a callback more."""
    whole = MmsrCLI.instantiate_trainer

    def with_callback(self, **kwargs):
        trainer = whole(self, **kwargs)
        trainer.callbacks.append(callback())
        return trainer

    monkeypatch.setattr(MmsrCLI, "instantiate_trainer", with_callback)


@pytest.mark.slow
def test_every_switch_together_is_interrupted_goes_on_and_leaves_a_plain_model(
    demo_corpus, tmp_path, monkeypatch
):
    """LoRA, layer-wise rates, learned variances, objectives and an average of the weights, from YAML."""
    pytest.importorskip("peft")
    config = tmp_path / "run.yaml"
    config.write_text(SWITCHES)
    fit(arguments(demo_corpus, tmp_path / "whole", "-c", str(config)))
    pulled = pull_the_plug(monkeypatch)
    with pytest.raises(SystemExit):
        fit(arguments(demo_corpus, tmp_path / "broken", "-c", str(config)))
    assert pulled
    monkeypatch.undo()
    fit(arguments(demo_corpus, tmp_path / "broken", "-c", str(config)))
    expected = weights(tmp_path / "whole" / "model")
    found = weights(tmp_path / "broken" / "model")
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=name)
    plain = MmsrForSentimentReasoning(
        MmsrForSentimentReasoning.from_pretrained(tmp_path / "whole" / "model").config
    )
    assert set(found) == set(plain.state_dict())
    checkpoint = torch.load(tmp_path / "whole" / "checkpoints" / "last.ckpt", weights_only=False)
    assert any(name.startswith("objectives.auxiliary_heads.") for name in checkpoint["state_dict"])
    assert any(".lora_A." in name for name in checkpoint["state_dict"])
    exported, _ = load_lightning_checkpoint(tmp_path / "whole" / "checkpoints" / "best.ckpt")
    for name, value in exported.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=name)
    history = json.loads((tmp_path / "broken" / "history.json").read_text())
    assert {"train_contrastive_loss", "train_r_drop", "train_ogm_ge_text"} <= set(history[1])


def test_what_was_trained_over_four_bits_is_a_plain_model(demo_corpus, tmp_path):
    pytest.importorskip("peft")
    pytest.importorskip("bitsandbytes", reason="QLoRA needs bitsandbytes: pip install 'mmsr[qlora]'")
    args = ["--model.preset", "small", "--model.config", "{tie_word_embeddings: false}"]
    args += ["--model.lora", "{decoder: {r: 4, quantize: nf4}}", "--trainer.max_epochs", "1"]
    run = ["--trainer.limit_train_batches", "2", "--trainer.limit_val_batches", "1"]
    fit(arguments(demo_corpus, tmp_path, *args, *run))
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=False)
    assert any(name.endswith("quant_state.bitsandbytes__nf4") for name in checkpoint["state_dict"])
    saved = weights(tmp_path / "model")
    assert {value.dtype for value in saved.values()} == {torch.float32}
    exported, _ = load_lightning_checkpoint(tmp_path / "checkpoints" / "best.ckpt")
    assert set(saved) == set(exported.state_dict())
    for name, value in exported.state_dict().items():
        torch.testing.assert_close(value, saved[name], rtol=0, atol=0, msg=name)


@pytest.mark.slow
def test_own_rows_are_learnt_on_frozen_encoders(demo_corpus, shared_models, tmp_path):
    args = ["--model.audio", str(shared_models / "whisper-base")]
    args += ["--model.text", str(shared_models / "multilingual-e5-small-30k")]
    args += ["--data.manifest", str(demo_corpus), "--trainer.default_root_dir", str(tmp_path / "run")]
    args += ["--model.feature_store", str(tmp_path / "features"), "--trainer.max_epochs", "2"]
    run_fit(["-c", "own.yaml", *args])
    answer = load_pipeline(tmp_path / "run" / "model")({"text": "so kind"})
    assert answer["label"] in answer["scores"]


def test_a_checkpoint_is_gone_on_with_under_switches(finished, demo_corpus, tmp_path):
    pretrained = ("--model.pretrained", str(finished / "model"), "--trainer.max_epochs", "1")
    switches = ("--model.class_weights", "balanced", "--model.label_smoothing", "0.1")
    fit(arguments(demo_corpus, tmp_path / "run", *pretrained, *switches))
    config = MmsrForSentimentReasoning.from_pretrained(tmp_path / "run" / "model").config
    assert config.label_smoothing == 0.1 and len(config.class_weights) == 3
    before, after = weights(finished / "model"), weights(tmp_path / "run" / "model")
    assert set(before) == set(after) and not torch.equal(
        before["sentiment_head.classifier.weight"], after["sentiment_head.classifier.weight"]
    )


@pytest.mark.slow
def test_ctrl_c_ends_cleanly_and_the_same_command_goes_on(demo_corpus, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "mmsr", "fit", *arguments(demo_corpus, folder)]
    command += ["--trainer.max_epochs", "200"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 90
        while not (folder / "checkpoints" / "last.ckpt").exists():
            assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, told
    assert told.splitlines()[-1].startswith("interrupted: the same command continues from ")
    assert "Traceback" not in told
    assert not (folder / "model").exists()
    left = {path.name for path in folder.rglob("*") if path.is_file()}
    left -= {".lock"}
    assert left <= {"run.yaml", "history.json", "best.ckpt", "last.ckpt", "metrics.csv", "hparams.yaml"}
    assert yaml.safe_load((folder / "run.yaml").read_text())["trainer"]["max_epochs"] == 200
    load_lightning_checkpoint(folder / "checkpoints" / "last.ckpt")
    done = len(json.loads((folder / "history.json").read_text()))
    resumed = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 90
        while len(json.loads((folder / "history.json").read_text())) <= done:
            assert time.monotonic() < deadline and resumed.poll() is None, resumed.stderr.read()
            time.sleep(0.05)
        resumed.send_signal(signal.SIGINT)
        _, told = resumed.communicate(timeout=60)
    finally:
        resumed.kill()
    assert resumed.returncode == 130 and "resumed from" in told


def test_ctrl_c_while_the_model_is_written_leaves_no_half_of_it(finished, tmp_path, monkeypatch):
    model, processor = load_lightning_checkpoint(finished / "checkpoints" / "best.ckpt")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(processor, "save_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_model(model, processor, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_lightning_checkpoint_is_whole_by_itself(finished):
    model, processor = load_lightning_checkpoint(finished / "checkpoints" / "best.ckpt")
    expected = weights(finished / "model")
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    assert processor.labels == ["negative", "neutral", "positive"]


def test_a_checkpoint_is_trained_on_with_dropout_but_for_frozen_parts(
    finished, demo_corpus, tmp_path, monkeypatch
):
    modes = []

    class Look(Callback):
        """Notes which parts are in training mode, after the first batch and after a validation."""

        def on_train_batch_end(self, trainer, module, *_):
            encoder = module.model.encoder
            parts = (module.model.head.dropout, encoder.audio_encoder.model, encoder.text_encoder.model)
            modes.append(tuple(part.training for part in parts))

    run_with(monkeypatch, Look)
    start = ["--model.pretrained", str(finished / "model"), "--model.freeze", "[audio_encoder]"]
    # a share: "1" may be read as one batch or as all of them, whichever module made `int | float` first
    fit(arguments(demo_corpus, tmp_path / "run", *start, "--trainer.limit_train_batches", "0.2"))
    assert modes == [(True, False, True)] * len(modes) and len(modes) >= 2


def test_a_processor_s_folders_of_any_depth_are_unpacked(finished):
    checkpoint = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=False)
    checkpoint["mmsr"]["processor"]["decoder_tokenizer/more/note.txt"] = b"deep"
    processor, config = unpack(checkpoint["mmsr"])
    assert processor.labels == config.labels


def test_what_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"missing.ckpt: no such file; accepted: a .ckpt file"):
        load_lightning_checkpoint(tmp_path / "missing.ckpt")
    (tmp_path / "junk.ckpt").write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"junk.ckpt is no checkpoint of `mmsr fit`"):
        load_lightning_checkpoint(tmp_path / "junk.ckpt")


def test_frozen_encoder_with_feature_store_trains_like_without(demo_corpus, tmp_path):
    frozen = (
        "--model.freeze",
        "[audio_encoder]",
        "--trainer.max_epochs",
        "1",
        "--model.audio_dropout",
        "0.3",
    )
    fit(arguments(demo_corpus, tmp_path / "plain", *frozen))
    stored = (*frozen, "--model.feature_store", str(tmp_path / "store"))
    fit(arguments(demo_corpus, tmp_path / "stored", *stored))
    assert list((tmp_path / "store").rglob("*.safetensors"))
    plain, cached = (
        json.loads((tmp_path / name / "history.json").read_text())[0] for name in ("plain", "stored")
    )
    for name in ("train_loss", "dev_loss"):
        assert plain[name] == pytest.approx(cached[name], rel=2e-3), name  # the store keeps float16
    trained = weights(tmp_path / "stored" / "model")
    start = weights(tmp_path / "plain" / "model")
    name = "joint_encoder.audio_encoder.model.feature_projection.projection.weight"
    assert torch.equal(trained[name], start[name])


def test_rare_labels_are_made_up_for_once(demo_corpus, tmp_path):
    both = ("--model.class_weights", "balanced", "--data.balance", "label,language")
    with pytest.raises(
        ValueError, match="class_weights='balanced' and data balance='label,language' both make up for"
    ):
        fit(arguments(demo_corpus, tmp_path / "run", *both))


def test_modality_dropout_masks_one_modality_of_rows_that_have_both(finished):
    module = MmsrModule(TrainingSettings(preset="tiny", audio_dropout=0.4, text_dropout=0.3))
    module.model, module.processor = load_lightning_checkpoint(finished / "checkpoints" / "best.ckpt")
    rows = 4000
    batch = {"input_values_mask": torch.ones(rows, 3).long(), "attention_mask": torch.ones(rows, 2).long()}
    batch["attention_mask"][:100] = 0
    torch.manual_seed(0)
    dropped = module.drop_modalities(batch)
    heard, read = dropped["input_values_mask"].any(-1), dropped["attention_mask"].any(-1)
    assert heard[:100].all() and not read[:100].any()
    assert (heard | read).all()
    assert (~heard[100:]).float().mean() == pytest.approx(0.4, abs=0.03)
    assert (~read[100:]).float().mean() == pytest.approx(0.3, abs=0.03)
    module.eval()
    assert module.drop_modalities(batch) is batch


def test_mixed_precision_is_one_lightning_knows():
    assert mixed_precision() in ("bf16-mixed", "32-true")


def test_training_on_a_stream_of_rows_that_hold_their_audio(demo_corpus, tmp_path):
    """As from shards on another machine: nothing is held but a window."""
    rows = load_manifest(demo_corpus).to_list()
    for row in rows:
        row["audio"] = {"bytes": Path(row["audio"]).read_bytes(), "path": None}
    datasets.Dataset.from_list(rows).to_parquet(table := tmp_path / "shard.parquet")
    stream = ["--data.streaming", "true", "--data.stream_window", "32", "--trainer.val_check_interval", "2"]
    with pytest.raises(ValueError, match="streaming has no epochs"):
        fit(arguments(table, tmp_path / "a", *stream))
    steps = ["--trainer.max_steps", "4", "--trainer.max_epochs", "-1"]
    model = fit(arguments(table, tmp_path / "b", *stream, *steps))
    assert weights(model)
    history = json.loads((model.parent / "history.json").read_text())
    assert len(history) == 2 and all(row["dev_loss"] > 0 for row in history)


def test_packaged_configurations_are_found_in_python_too(demo_corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = arguments(
        demo_corpus, tmp_path / "run", "--model.fusion", "text_only", "--trainer.max_epochs", "1"
    )
    assert fit(["-c", "demo.yaml", *given]).is_dir()
    with pytest.raises(ValueError, match="none.yaml: no such file.*; packaged are demo.yaml and own.yaml"):
        fit(["-c", "none.yaml", *given])

"""What `mmsr fit` refuses, each in one line before anything is written."""

import pytest
import torch

from mmsr.cli.main import main

CPU = not torch.cuda.is_available() and not torch.backends.mps.is_available()

REFUSED = [
    ("--optimizer Adam", "--optimizer: the optimiser is AdamW; accepted: --model.learning_rate, "),
    ("--optimizer.lr 0.1", "--optimizer.lr: the optimiser is AdamW; accepted: --model.learning_rate, "),
    (
        "--lr_scheduler CosineAnnealingLR",
        "--lr_scheduler: the rate warms up, and then falls along a cosine or is ",
    ),
    ("--ckpt_path x", "--ckpt_path: the same command continues from its folder; accepted: "),
    ("--data.manifst m.csv", "--data.manifst: no such setting; did you mean --data.manifest? ("),
    ("stray", "stray: more words than expected; accepted: --SETTING VALUE"),
    ("--monitor", "--monitor needs a value"),
    ("--model.preset huge", "--model.preset huge; accepted: tiny, small, base ("),
    ("--model.learning_rate fast", "--model.learning_rate fast; accepted: a number ("),
    ("--model.labels positive", "--model.labels positive; accepted: a list such as [a, b] ("),
    ("--model.labels [a,b,a]", "labels names a twice; accepted: each label once"),
    ("--model.labels [a]", "labels=['a']; accepted: two labels or more"),
    ("--data.streaming perhaps", "--data.streaming perhaps; accepted: true, false ("),
    ("--seed_everything true", "--seed_everything True; accepted: a whole number ("),
    ("--seed_everything -4", "--seed_everything -4; accepted: 0 or more"),
    ("--trainer.accelerator nosuch", "--trainer.accelerator nosuch: no such accelerator; accepted: auto, "),
    ("--trainer.devices 0", "--trainer.devices 0; accepted: auto, "),
    ("--trainer.devices abc", "--trainer.devices abc; accepted: auto, "),
    ("--trainer.strategy nosuch", "--trainer.strategy nosuch; accepted: auto, ddp, "),
    ("--trainer.num_nodes 0", "--trainer.num_nodes 0; accepted: 1 or more"),
    ("--trainer.precision nosuch", "--trainer.precision nosuch; accepted: 64, 32, 16, "),
    ("--trainer.logger CSVLoger", "--trainer.logger CSVLoger; did you mean CSVLogger? ("),
    ("--trainer.logger Nosuch", "--trainer.logger Nosuch; accepted: CSVLogger, "),
    (
        "--trainer.logger CSVLogger --trainer.logger.dir x",
        "--trainer.logger lightning.pytorch.loggers.CSVLogger: ",
    ),
    ("--trainer.profiler nosuch", "--trainer.profiler nosuch; accepted: simple, advanced, pytorch"),
    ("--trainer.callbacks Nosuch", "--trainer.callbacks Nosuch; accepted: "),
    ("--trainer.callbacks no.such.Callback", "--trainer.callbacks no.such.Callback: No module named 'no'"),
    (
        "--trainer.callbacks EarlyStopping",
        "--trainer.callbacks lightning.pytorch.callbacks.EarlyStopping: the ",
    ),
    ("--trainer.max_time 1h", "`Timer(duration='1h')` is not a valid duration."),
    (
        "--trainer.limit_train_batches 0",
        "--trainer.limit_train_batches 0; accepted: a number of batches, or a ",
    ),
    (
        "--trainer.limit_val_batches 0.0",
        "--trainer.limit_val_batches 0.0; accepted: a number of batches, or a ",
    ),
    (
        "--trainer.val_check_interval 0",
        "--trainer.val_check_interval 0; accepted: a number of batches, or a ",
    ),
    ("--trainer.check_val_every_n_epoch 0", "--trainer.check_val_every_n_epoch 0; accepted: 1 or more"),
    ("--trainer.max_epochs -5", "--trainer.max_epochs -5; accepted: 1 or more, or -1 for no limit"),
    ("--trainer.max_epochs 0", "--trainer.max_epochs 0; accepted: 1 or more, or -1 for no limit"),
    ("--trainer.max_epochs -1", "--trainer.max_epochs -1 has no end; accepted: with --trainer.max_steps N"),
    ("--trainer.max_steps -7", "--trainer.max_steps -7; accepted: 1 or more, or -1 for no limit"),
    ("--trainer.accumulate_grad_batches 0", "--trainer.accumulate_grad_batches 0; accepted: 1 or more"),
    ("--trainer.gradient_clip_val -1", "--trainer.gradient_clip_val -1; accepted: 0 or more"),
    ("--trainer.gradient_clip_algorithm x", "--trainer.gradient_clip_algorithm x; accepted: norm, value"),
    ("--early_stopping.patience -1", "--early_stopping.patience -1; accepted: 0 or more"),
    ("--monitor dev_acc", "monitor 'dev_acc' is not logged; accepted: dev_loss, "),
    ("--monitor train_foo_loss", "monitor 'train_foo_loss' is not logged; accepted: dev_loss, "),
    (
        "--monitor train_contrastive_loss",
        "monitor train_contrastive_loss is not logged: there is no objective ",
    ),
    (
        "--monitor dev_decoder_uar",
        "monitor dev_decoder_uar is not logged: the decoder does not write the label ",
    ),
    (
        "--monitor dev_rationale_loss --model.rationale_format none",
        "monitor dev_rationale_loss is not logged: the model writes no rationales",
    ),
    ("--trainer.barebones true", "--trainer.barebones true: a run keeps checkpoints and metrics; "),
    ("--trainer.enable_checkpointing false", "--trainer.enable_checkpointing false: a run keeps "),
    ("--model.text /no/encoder", "text=/no/encoder: no such folder"),
    ("--model.text ./no", "text=./no: no such folder"),
    ("--model.text no-such/encoder", "text=no-such/encoder: no such folder, and not to be had from the Hub "),
    ("--data.manifest no.csv", "no.csv: no such file; accepted: a manifest file"),
]

ON_CPU = [
    ("--trainer.accelerator gpu", "--trainer.accelerator gpu: this machine has none; accepted: auto, cpu"),
    ("--trainer.accelerator cuda", "--trainer.accelerator cuda: this machine has none; accepted: auto, cpu"),
    ("--trainer.devices -1", "--trainer.devices -1; accepted: auto, or a number of processes from 1 on"),
    ("--trainer.devices [0]", "--trainer.devices "),
    ("--trainer.strategy fsdp", "The strategy `fsdp` requires a GPU accelerator"),
    (
        "--trainer.precision 16-mixed",
        "--trainer.precision 16-mixed needs a GPU; accepted: bf16-mixed, 32-true",
    ),
]

YAML = [
    ("model: {fusoin: text_only}", "model.fusoin: no such setting; did you mean model.fusion? ("),
    ("dta: {manifest: m.csv}", "dta.manifest: no such setting; did you mean data.manifest? ("),
    ("optimizer: {class_path: Adam}", "optimizer.class_path: the optimiser is AdamW; accepted: "),
    ("lr_scheduler: {class_path: X}", "lr_scheduler.class_path: the rate warms up, and then"),
    ("model: {preset: tiny", "-c {}: while parsing a flow mapping in "),
    ("just words", "-c {}: holds just words; accepted: YAML with settings"),
    ("", "-c {}: holds nothing; accepted: YAML with settings"),
    (
        "trainer: {callbacks: [{class_path: EarlyStoping}]}",
        "--trainer.callbacks EarlyStoping; did you mean Early",
    ),
    (
        "trainer: {logger: [{class_path: CSVLogger, init_args: {save_dirr: x}}]}",
        "--trainer.logger lightning.pytorch.loggers.CSVLogger: Option 'save_dirr' is not accepted (",
    ),
]


@pytest.fixture
def command(demo_corpus, tmp_path):
    """The words of a run that could be done, but for those that are added."""
    words = ["fit", "--model.preset", "tiny", "--model.fusion", "text_only", "--model.vocab_size", "600"]
    words += ["--data.manifest", str(demo_corpus), "--trainer.max_epochs", "1"]
    return [*words, "--trainer.default_root_dir", str(tmp_path / "run")]


@pytest.fixture
def refused(capsys, command, tmp_path):
    """Adds words to the command, which must be refused in one line, and leaves the folder free."""

    def run(*words: str) -> str:
        with pytest.raises(SystemExit) as exit_:
            main([*command, *words])
        assert exit_.value.code == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and err.startswith("mmsr: error: "), (out, err)
        assert not [path for path in (tmp_path / "run").rglob("*") if path.suffix]  # nothing but a lock
        return err.strip().removeprefix("mmsr: error: ")

    return run


@pytest.mark.parametrize(("words", "line"), REFUSED, ids=[words for words, _ in REFUSED])
def test_what_cannot_be_is_one_line(refused, words, line):
    assert refused(*words.split()).startswith(line)


@pytest.mark.skipif(not CPU, reason="of machines without a GPU")
@pytest.mark.parametrize(("words", "line"), ON_CPU, ids=[words for words, _ in ON_CPU])
def test_what_needs_a_gpu_is_one_line(refused, words, line):
    assert refused(*words.split()).startswith(line)


@pytest.mark.parametrize(("content", "line"), YAML, ids=[content for content, _ in YAML])
def test_what_is_wrong_in_yaml_is_one_line(refused, tmp_path, content, line):
    (config := tmp_path / "c.yaml").write_text(content)
    assert refused("-c", str(config)).startswith(line.format(config))


def test_a_folder_that_cannot_be_written_to_is_one_line(refused, tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        line = refused("--trainer.default_root_dir", str(folder))
        assert line.startswith(f"--trainer.default_root_dir {folder} ") and "; accepted: a" in line
        assert f"{tmp_path / 'file'} is a file" in line


def test_a_setting_that_is_required_is_named(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--model.preset", "tiny"])
    assert capsys.readouterr().err == "mmsr: error: --data.manifest: required (mmsr fit --help_all)\n"


def test_after_refusals_the_corrected_command_runs_in_the_folder(refused, command, tmp_path):
    refused("--monitor", "dev_decoder_uar")  # found last of all, when the data are read
    refused("--trainer.devices", "0")
    main(command)
    assert (tmp_path / "run" / "model").is_dir()


def test_lightning_s_optimisers_are_not_offered(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help_all"])
    shown = capsys.readouterr().out
    assert "--model.learning_rate" in shown
    assert "--optimizer" not in shown and "--lr_scheduler" not in shown

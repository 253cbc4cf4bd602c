"""What a run is monitored by, and which way of it is better."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from sklearn.metrics import accuracy_score, f1_score, recall_score

from mmsr.cli.main import main
from mmsr.data.manifest.manifest import load_manifest, utterances
from mmsr.evaluation.metrics import METRICS, metrics_of
from mmsr.inference.loading import load_pipeline, predictor
from mmsr.training.monitor import mode_of
from mmsr.training.run import MmsrCLI, fit, settings_that_matter


def arguments(corpus: Path, folder: Path, *more: str) -> list[str]:
    settings = {
        "model.preset": "tiny",
        "model.vocab_size": "600",
        "model.fusion": "text_only",
        "data.manifest": str(corpus),
        "trainer.default_root_dir": str(folder),
        "trainer.max_epochs": "1",
        "trainer.precision": "32-true",
        "trainer.enable_progress_bar": "false",
    }
    return [item for name, value in settings.items() for item in (f"--{name}", value)] + list(more)


def test_every_metric_of_labels_can_be_monitored():
    assert {mode_of(f"dev_{metric.name}") for metric in metrics_of("label")} == {"max"}
    assert mode_of("dev_decoder_weighted_f1") == "max"
    losses = ("dev_loss", "dev_sentiment_loss", "dev_rationale_loss", "train_loss", "train_contrastive_loss")
    assert {mode_of(name) for name in losses} == {"min"}
    for name in ("dev_acc", "dev_rougeL", "accuracy", "loss", "dev_decoder_loss"):
        with pytest.raises(
            ValueError, match=f"monitor '{name}' is not logged; accepted: dev_loss, .*dev_uar"
        ):
            mode_of(name)


def test_a_metric_of_which_less_is_better_is_minimised(monkeypatch):
    errors = replace(METRICS["accuracy"], name="errors", higher_is_better=False)
    monkeypatch.setitem(METRICS, "errors", errors)
    assert mode_of("dev_errors") == "min"


@pytest.mark.parametrize(
    ("given", "modes"),
    [
        ([], ("min", "min")),
        (["--monitor", "dev_macro_f1"], ("max", "min")),
        (["--monitor", "dev_uar", "--monitor_mode", "max"], ("max", "min")),
        (["--early_stopping.monitor", "dev_weighted_f1"], ("min", "max")),
        (["--monitor", "last_epoch"], ("max", "min")),
    ],
)
def test_the_mode_follows_the_monitor_and_is_what_a_runs_identity_has(demo_corpus, tmp_path, given, modes):
    cli = MmsrCLI(arguments(demo_corpus, tmp_path, *given))
    stopping = next(one for one in cli.trainer.callbacks if type(one).__name__ == "EarlyStopping")
    assert (cli.trainer.checkpoint_callback.mode, stopping.mode) == modes
    identity = settings_that_matter(cli)
    assert (identity["monitor_mode"], identity["early_stopping"]["mode"]) == modes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["--monitor", "dev_macro_f1", "--monitor_mode", "min"],
            "--monitor_mode min contradicts monitor dev_macro_f1; accepted: max, or",
        ),
        (
            ["--early_stopping.mode", "max"],
            "--early_stopping.mode max contradicts monitor dev_loss; accepted: min, or",
        ),
        (["--monitor", "dev_acc"], "monitor 'dev_acc' is not logged; accepted: dev_loss, "),
        (["--early_stopping.monitor", "last_epoch"], "early_stopping.monitor last_epoch is no value"),
    ],
)
def test_a_wrong_monitor_is_refused_in_one_line_before_training(
    demo_corpus, tmp_path, capsys, given, message
):
    config = tmp_path / "c.yaml"
    config.write_text("{}")
    folder = tmp_path / "run"
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "-c", str(config), *arguments(demo_corpus, folder, *given)])
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert not (folder / "run.yaml").exists(), "the folder stays free for the command put right"


def test_development_metrics_are_those_of_all_development_rows(demo_corpus, tmp_path):
    folder = tmp_path / "run"
    fit(arguments(demo_corpus, folder, "--data.batch_rows", "4", "--model.rationale_format", "none"))
    (epoch,) = json.loads((folder / "history.json").read_text())
    rows = utterances(load_manifest(demo_corpus, split="dev"))
    assert len(rows) > 4, "several batches"
    answers = predictor(load_pipeline(folder / "model"))([row.model_input() for row in rows])
    gold, predicted = [row.label for row in rows], [answer.label for answer in answers]
    assert {name: epoch[f"dev_{name}"] for name in ("accuracy", "macro_f1", "weighted_f1", "uar")} == (
        pytest.approx(
            {
                "accuracy": accuracy_score(gold, predicted),
                "macro_f1": f1_score(gold, predicted, average="macro"),
                "weighted_f1": f1_score(gold, predicted, average="weighted"),
                "uar": recall_score(gold, predicted, average="macro", labels=sorted(set(gold))),
            }
        )
    )
    identity = yaml.safe_load((folder / "run.yaml").read_text())
    assert (identity["monitor"], identity["monitor_mode"]) == ("dev_loss", "min")


@pytest.mark.parametrize("rationale_format", ["post_thinking", "pre_thinking"])
def test_the_decoders_labels_have_metrics_where_they_come_first(demo_corpus, tmp_path, rationale_format):
    fit(arguments(demo_corpus, tmp_path / "run", "--model.rationale_format", rationale_format))
    (epoch,) = json.loads((tmp_path / "run" / "history.json").read_text())
    found = {name for name in epoch if name.startswith("dev_decoder_")}
    first = rationale_format == "post_thinking"
    assert found == ({f"dev_decoder_{metric.name}" for metric in metrics_of("label")} if first else set())

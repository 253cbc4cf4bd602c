"""Settings with the value `auto`, as the parsed command has them."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import WhisperConfig, WhisperModel

from mmsr.data.loading import datamodule
from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.training.run import MmsrCLI, fit

Write = Callable[..., Path]


@pytest.fixture
def write(demo_corpus: Path, tmp_path: Path) -> Write:
    """Writes the demo corpus's rows, changed by a function that returns None for a row to leave out."""

    def rows(change: Callable[[dict[str, str]], dict[str, Any] | None]) -> Path:
        with open(demo_corpus, encoding="utf-8", newline="") as file:
            found = [change(row) for row in csv.DictReader(file)]
        kept = [{**row, "audio": demo_corpus.parent / row["audio"]} for row in found if row]
        path = tmp_path / "rows.csv"
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(kept[0]))
            writer.writeheader()
            writer.writerows(kept)
        return path

    return rows


@pytest.fixture
def whisper(tmp_path: Path) -> Path:
    """A random Whisper, whose own window has 30 s."""
    config = WhisperConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=32, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    )  # fmt: skip
    WhisperModel(config).save_pretrained(tmp_path / "whisper")
    return tmp_path / "whisper"


def parsed(manifest: Path, tmp_path: Path, **settings: Any) -> Any:
    words = ["--data.manifest", str(manifest), "--trainer.default_root_dir", str(tmp_path / "run")]
    words += [word for name, value in settings.items() for word in (f"--{name.replace('__', '.')}", value)]
    return MmsrCLI(words).config


@pytest.mark.parametrize(("explained", "chosen"), [(0, "none"), (1, "multitask")])
def test_rationales_decide_the_format(write, tmp_path, capsys, explained, chosen):
    manifest = write(lambda row: {**row, "rationale": row["rationale"] if explained else ""})
    config = parsed(manifest, tmp_path, model__preset="tiny", model__rationale_format="auto")
    assert config["model.rationale_format"] == chosen
    line = capsys.readouterr().err
    why = "all" if explained else "no training row has a rationale"
    assert line.startswith(f"rationale_format {chosen}: ") and (explained or why in line)


def test_only_training_rows_decide(write, tmp_path):
    manifest = write(lambda row: {**row, "rationale": "" if row["split"] == "train" else row["rationale"]})
    config = parsed(manifest, tmp_path, model__preset="tiny", model__rationale_format="auto")
    assert config["model.rationale_format"] == "none"


@pytest.mark.parametrize(
    ("kept", "more", "chosen"),
    [(3, {}, "label"), (10**6, {}, None), (3, {"model__class_weights": "balanced"}, None)],
)
def test_counts_of_labels_decide_the_balance(write, tmp_path, capsys, kept, more, chosen):
    seen = {"negative": 0}

    def rare(row: dict[str, str]) -> dict[str, str] | None:
        seen["negative"] += (row["label"], row["split"]) == ("negative", "train")
        return None if row["label"] == "negative" and seen["negative"] > kept else row

    manifest = write(rare)
    config = parsed(manifest, tmp_path, model__preset="tiny", data__balance="auto", **more)
    assert config["data.balance"] == chosen
    assert capsys.readouterr().err.startswith(f"balance {chosen or 'null'}: ")
    if not more:
        assert MmsrDataModule(str(manifest), balance="auto").balance == chosen


def test_lengths_decide_whispers_window(demo_corpus, whisper, text_encoder, tmp_path, capsys):
    parts = {"model__text": str(text_encoder), "model__rationale_format": "none"}
    window = {"model__config": "{audio_window_seconds: auto, hidden_size: 32}"}
    config = parsed(demo_corpus, tmp_path, model__audio=str(whisper), **parts, **window)
    (chosen, size) = (config["model.config"][name] for name in ("audio_window_seconds", "hidden_size"))
    seconds = MmsrDataModule(str(demo_corpus)).train_seconds()
    assert size == 32 and (seconds <= chosen).mean() >= 0.95 > (seconds <= chosen - 1).mean()
    assert f"audio_window_seconds {chosen:g}: 95% of the training recordings last" in capsys.readouterr().err
    config = parsed(demo_corpus, tmp_path, **parts, **window)
    assert "audio_window_seconds" not in config["model.config"]
    assert "audio_window_seconds null: only Whisper's encoder" in capsys.readouterr().err


def test_a_run_is_named_by_what_was_chosen_and_found_again(write, tmp_path, capsys, monkeypatch):
    manifest = write(lambda row: {**row, "rationale": ""})
    words = ["--data.manifest", str(manifest), "--trainer.default_root_dir", str(tmp_path / "run")]
    words += ["--model.preset", "tiny", "--model.fusion", "text_only", "--model.vocab_size", "600"]
    words += ["--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false"]
    read = []
    load = datamodule.load_manifest

    def counted(source, **reading):
        read.append((source, reading["labels"]))
        return load(source, **reading)

    monkeypatch.setattr(datamodule, "load_manifest", counted)
    fit([*words, "--model.rationale_format", "auto", "--data.balance", "auto"])
    assert read == [(str(manifest), None)]  # for the choice, the run's name and its rows
    run = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())
    assert run["model"]["rationale_format"] == "none" and "auto" not in str(run["data"])
    capsys.readouterr()
    fit([*words, "--model.rationale_format", "none"])
    assert "this run is finished" in capsys.readouterr().err


def test_what_is_given_is_kept_and_nothing_is_said(demo_corpus, tmp_path, capsys):
    config = parsed(demo_corpus, tmp_path, model__preset="tiny", model__rationale_format="post_thinking")
    assert config["model.rationale_format"] == "post_thinking" and capsys.readouterr().err == ""

"""One run in one folder: started, interrupted, gone on with, finished, refused."""

import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor
from mmsr.training.module import MmsrModule, load_lightning_checkpoint
from mmsr.training.run import MmsrCLI, fit, mixed_precision


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


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return MmsrForSentimentReasoning.from_pretrained(folder).state_dict()


@pytest.fixture(scope="module")
def finished(demo_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert fit(arguments(demo_corpus, folder)) == folder / "model"
    return folder


def test_a_run_leaves_model_history_and_checkpoints(finished):
    processor = MmsrProcessor.from_pretrained(finished / "model")
    model = MmsrForSentimentReasoning.from_pretrained(finished / "model")
    sizes = {model.config.text_encoder.vocab_size, model.config.decoder.vocab_size}
    assert sizes == {len(processor.tokenizer)}
    assert model.config.label_token_ids == processor.label_token_ids
    assert (finished / "checkpoints" / "last.ckpt").exists()
    history = json.loads((finished / "history.json").read_text())
    assert [row["epoch"] for row in history] == [0, 1]
    assert {"train_loss", "dev_loss", "dev_macro_f1", "dev_rationale_loss"} <= set(history[0])
    assert history[1]["train_loss"] < history[0]["train_loss"]


def test_the_same_command_again_trains_nothing(finished, demo_corpus, capsys):
    before = (finished / "model" / "model.safetensors").stat().st_mtime_ns
    fit(arguments(demo_corpus, finished))
    assert (finished / "model" / "model.safetensors").stat().st_mtime_ns == before
    assert "this run is finished" in capsys.readouterr().err


def test_another_run_in_the_same_folder_is_refused(finished, demo_corpus):
    with pytest.raises(ValueError, match=r"holds another run \(model.learning_rate 0.001 -> 0.01\)"):
        fit(arguments(demo_corpus, finished, "--model.learning_rate", "0.01"))


def test_an_interrupted_run_goes_on_and_ends_like_an_unbroken_one(
    finished, demo_corpus, tmp_path, monkeypatch, capsys
):
    class Pull(Callback):
        """Pulls the plug in the second epoch."""

        def on_train_batch_end(self, trainer, *_):
            if trainer.current_epoch == 1:
                raise SystemExit("killed")

    whole = MmsrCLI.instantiate_trainer
    monkeypatch.setattr(
        MmsrCLI, "instantiate_trainer", lambda self, **kwargs: _with(whole(self, **kwargs), Pull())
    )
    folder = tmp_path / "run"
    with pytest.raises(SystemExit):
        fit(arguments(demo_corpus, folder))
    assert not (folder / "model").exists()
    monkeypatch.undo()
    fit(arguments(demo_corpus, folder))
    assert "going on from" in capsys.readouterr().err
    expected = weights(finished / "model")
    for name, value in weights(folder / "model").items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=name)


def _with(trainer, callback):
    trainer.callbacks.append(callback)
    return trainer


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

    whole = MmsrCLI.instantiate_trainer
    monkeypatch.setattr(
        MmsrCLI, "instantiate_trainer", lambda self, **kwargs: _with(whole(self, **kwargs), Look())
    )
    start = ["--model.pretrained", str(finished / "model"), "--model.freeze", "[text_encoder]"]
    fit(arguments(demo_corpus, tmp_path / "run", *start, "--trainer.limit_train_batches", "1"))
    assert modes == [(True, True, False)] * 2


def test_what_is_no_checkpoint_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"missing.ckpt does not exist; accepted: a .ckpt file"):
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
    name = "encoder.audio_encoder.model.feature_projection.projection.weight"
    assert torch.equal(trained[name], start[name])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fusion": "nosuch"}, "fusion='nosuch' does not exist; accepted: cross_attention"),
        ({"freeze": ["head"]}, "freeze='head' does not exist; accepted: audio_encoder, text_encoder"),
        ({"audio_dropout": 0.7, "text_dropout": 0.6}, "exceed 1 together"),
        ({"text_dropout": -0.1}, "text_dropout is -0.1; accepted: 0 to 1"),
        ({"pretrained": "a", "audio": "b"}, "give one or the other"),
        ({"feature_store": "x"}, "add audio_encoder to freeze="),
    ],
)
def test_contradictory_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        MmsrModule(**arguments)


def test_modality_dropout_masks_one_modality_of_rows_that_have_both():
    module = MmsrModule(preset="tiny", audio_dropout=0.4, text_dropout=0.3)
    rows = 4000
    batch = {"input_values_mask": torch.ones(rows, 3).long(), "attention_mask": torch.ones(rows, 2).long()}
    batch["attention_mask"][:100] = 0
    torch.manual_seed(0)
    dropped = module._drop_modalities(batch)
    heard, read = dropped["input_values_mask"].any(-1), dropped["attention_mask"].any(-1)
    assert heard[:100].all() and not read[:100].any()
    assert (heard | read).all()
    assert (~heard[100:]).float().mean() == pytest.approx(0.4, abs=0.03)
    assert (~read[100:]).float().mean() == pytest.approx(0.3, abs=0.03)
    module.eval()
    assert module._drop_modalities(batch) is batch


def test_mixed_precision_is_one_lightning_knows():
    assert mixed_precision() in ("bf16-mixed", "32-true")

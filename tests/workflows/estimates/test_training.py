"""Estimates of a training: its own batches are counted, its parts are timed, and nothing is left behind."""

import numpy as np
import pandas as pd
import pytest

from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.model.processing import MmsrProcessor
from mmsr.workflows.estimates import training
from mmsr.workflows.estimates.training import Epoch, estimate_training


@pytest.fixture(autouse=True)
def no_start(monkeypatch):
    """A start of no other Python, which takes seconds."""
    monkeypatch.setattr(training, "start_of", lambda module: (1.0, 1.0))


@pytest.fixture
def words(demo_corpus, tmp_path):
    """Arguments of a tiny training."""
    return [
        *("--model.preset", "tiny", "--model.vocab_size", "600", "--model.rationale_format", "none"),
        *("--data.manifest", str(demo_corpus), "--data.batch_rows", "4", "--trainer.max_epochs", "3"),
        *("--trainer.default_root_dir", str(tmp_path / "run")),
    ]


def amounts(estimate):
    return {part.name: part.amount for part in estimate.parts}


def test_the_batches_are_those_of_the_loader(words, demo_corpus, tmp_path, capsys):
    found = estimate_training(words, calibrate=1)
    assert capsys.readouterr() == ("", "") and not (tmp_path / "run").exists()
    data = MmsrDataModule(str(demo_corpus), batch_rows=4)
    data.attach(MmsrProcessor.train(["a few words"] * 3, vocab_size=340))
    batches, dev = len(data.train_dataloader()), len(data.val_dataloader())
    assert found.facts["batches_per_epoch"] == batches and found.facts["epochs"] == 3
    assert amounts(found) == {
        "start of the program": "once",
        "reading rows, making the model": "once",
        "loading rows": f"{3 * (batches + dev)} batches",
        "training": f"3 epochs × {batches} batches",
        "validation": f"3 × {dev} batches",
        "checkpoints and metrics": "6 checkpoints",
        "calibrating, writing the model": "once",
    }
    assert found.disk["checkpoints"] > found.disk["model"] > 1e5
    more = estimate_training(
        [*words, "--trainer.limit_train_batches", "5"], hours=10 * found.facts["hours"], calibrate=1
    )
    assert more.facts["batches_per_epoch"] == 5  # under its limit
    assert amounts(more)["validation"] == f"3 × {10 * dev} batches"


def test_few_batches_are_timed_where_there_is_no_time(words, monkeypatch):
    watches = []
    made = training.Watch.__init__
    monkeypatch.setattr(training.Watch, "__init__", lambda self: watches.append(self) or made(self))
    estimate_training(words, calibrate=0)
    (watch,) = (watch for watch in watches if watch.training)
    assert len(watch.training) == 5 and 0 < len(watch.development) <= 3


def test_states_of_frozen_encoders_are_counted_once(words, demo_corpus, tmp_path):
    frozen = [*words, "--model.freeze", "[audio_encoder, text_encoder]"]
    store = tmp_path / "store"
    found = estimate_training([*frozen, "--model.feature_store", str(store)], calibrate=1)
    data = MmsrDataModule(str(demo_corpus))
    rows = [*data.train_rows, *data.dev_rows]
    assert amounts(found)["encoding audio"] == f"{len({row['audio'] for row in rows})} files"
    assert amounts(found)["encoding text"] == f"{len({row['text'] for row in rows})} texts"
    assert found.disk["feature store"] > 0 and not store.exists() and not found.alternatives
    assert list(estimate_training(frozen, calibrate=1).alternatives) == ["--model.feature_store FOLDER"]


def test_a_cached_file_is_decoded_once():
    seconds, tokens = np.array([1.0, 2.0, 3.0, 4.0]), np.array([5, 6, 7, 8])
    once, again = (Epoch([[0, 1], [2, 3]], seconds, tokens, np.zeros(4), caches) for caches in (True, False))
    assert once.sizes(0, decoded=set()) == (4.0, 1.0, 12.0, 2.0, 0.0, 3.0)
    assert once.sizes(1, decoded={2}) == (8.0, 1.0, 16.0, 2.0, 0.0, 4.0)
    assert once.whole(epochs=3).tolist() == [36.0, 6.0, 84.0, 12.0, 0.0, 10.0]
    assert again.whole(epochs=3).tolist() == [36.0, 6.0, 84.0, 12.0, 0.0, 30.0]
    assert once.whole(epochs=2, batches=4).tolist() == [48.0, 8.0, 112.0, 16.0, 0.0, 20.0]


def test_what_cannot_be_estimated_is_told(words, tmp_path):
    stream = [
        *words,
        "--data.streaming",
        "true",
        "--trainer.max_steps",
        "3",
        "--trainer.val_check_interval",
        "1",
    ]
    with pytest.raises(ValueError, match="--data.streaming true has no number of rows"):
        estimate_training(stream, calibrate=1)
    with pytest.raises(ValueError, match="none.csv"):
        estimate_training([*words, "--data.manifest", str(tmp_path / "none.csv")], calibrate=1)


def test_recordings_without_transcripts_leave_no_text_to_encode(words, demo_corpus, tmp_path):
    rows = pd.read_csv(demo_corpus, dtype=str, keep_default_na=False)
    rows["audio"] = [str(demo_corpus.parent / audio) if audio else "" for audio in rows["audio"]]
    silent = tmp_path / "silent.csv"
    rows[rows["audio"] != ""].assign(text="").to_csv(silent, index=False)
    store = ["--model.feature_store", str(tmp_path / "store")]
    frozen = ["--model.freeze+", "audio_encoder", "--model.freeze+", "text_encoder"]
    tied = ["--model.config", "{tie_word_embeddings: false}"]
    found = estimate_training([*words, "--data.manifest", str(silent), *frozen, *tied, *store], calibrate=0)
    encoded = [name for name in amounts(found) if "encod" in name]
    assert encoded and not [name for name in encoded if "text" in name]

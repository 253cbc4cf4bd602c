"""A checkpoint and rows as workflows are given them, and what lies beside both."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mmsr.data.manifest.issues import ManifestError
from mmsr.inference.loading import predictor
from mmsr.records import Utterance
from mmsr.workflows.inputs import (
    Inputs,
    checkpoint_name,
    corpus_beside,
    open_checkpoint,
    spread,
    stored_states,
    training_seed,
)
from mmsr.workflows.settings import Rows

LABELS = ["negative", "neutral", "positive"]


def test_a_manifest_is_read_with_the_labels_of_the_checkpoint(demo_corpus: Path) -> None:
    _, inputs = open_checkpoint("demo", Rows(demo_corpus))
    assert inputs.labels == LABELS
    assert sum(map(len, inputs.splits.values())) == len(inputs.table) == 60
    assert set(inputs.splits["test"]["split"]) == {"test"}
    assert inputs.title == "demo: manifest.csv, test"
    provenance = inputs.provenance(seed=3).to_dict()
    assert provenance["seed"] == 3 and len(provenance["data_fingerprint"]) == 16 and provenance["seconds"] > 0
    with pytest.raises(ValueError, match="no row is in 'nowhere'; found: dev, test, train"):
        Inputs.open("demo", Rows(demo_corpus, split="nowhere"), labels=LABELS)
    with pytest.raises(ValueError, match="no row is in 'nowhere'"):
        Inputs.open("demo", Rows(demo_corpus, dev_split="nowhere"), labels=LABELS, required=["dev"])


def test_without_splits_all_rows_are_taken_and_that_is_logged(
    undivided: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        inputs = Inputs.open("demo", Rows(undivided), labels=LABELS)
    assert len(inputs.splits["test"]) == 60 and not len(inputs.splits["train"])
    assert "undivided.csv: no row has a split, so all 60 rows are taken" in caplog.messages
    assert inputs.title == "demo: undivided.csv, all rows"
    fold = Inputs.open("demo", Rows(undivided, fold=0, folds=2, dev_speakers=1), labels=LABELS)
    assert 0 < len(fold.splits["test"]) < 60 and fold.title == "demo: undivided.csv, test"


def test_the_store_of_a_run_serves_its_evaluation(
    demo_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe, inputs = open_checkpoint("demo", Rows(demo_corpus))
    assert stored_states("demo", pipe) is None
    model, store = tmp_path / "run" / "model", tmp_path / "store"
    pipe.save_pretrained(model)
    settings = {"feature_store": str(store), "freeze": ["audio_encoder"], "feature_dtype": "float32"}

    def write(**more: object) -> None:
        (model.parent / "run.yaml").write_text(json.dumps({"model": {**settings, **more}}))

    write()
    assert stored_states(str(model), pipe) is None, "a store that is not there is not made"
    store.mkdir()
    write(freeze=["text_encoder"])
    assert stored_states(str(model), pipe) is None, (
        "an encoder that was trained has other states than the store"
    )
    write()
    states = stored_states(str(model), pipe)
    assert states is not None and f"read from and written to {store}" in capsys.readouterr().err
    rows = inputs.utterances("test")[:3]
    plain, stored = predictor(pipe), predictor(pipe, audio_features=states)
    for answer, expected in zip(stored(rows), plain(rows), strict=True):
        assert answer.rationale == expected.rationale
        assert answer.scores == pytest.approx(expected.scores, abs=1e-4)
    assert len(list(store.rglob("*.safetensors"))) == 3


def test_what_lies_beside_a_checkpoint_and_a_manifest(tmp_path: Path, demo_corpus: Path) -> None:
    model = tmp_path / "my-run" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    assert checkpoint_name(str(model)) == "my-run" and checkpoint_name("owner/name") == "owner/name"
    assert training_seed(str(model)) == {} and training_seed("demo") == {"training_seed": 0}
    (model.parent / "run.yaml").write_text("seed_everything: 7\n")
    assert training_seed(str(model)) == {"training_seed": 7}
    corpus = json.loads(demo_corpus.with_name("corpus.json").read_text())
    assert corpus_beside(demo_corpus) == {"corpus": corpus} and corpus_beside(tmp_path / "m.csv") == {}


def test_rows_to_show_are_of_each_kind_english_first() -> None:
    cells = [("vi", "voice"), ("en", "words"), ("en", "words"), ("en", "voice"), ("vi", "words")]
    rows = [
        Utterance(id=str(i), text="said", language=language, kind=kind)
        for i, (language, kind) in enumerate(cells)
    ]
    assert [row.id for row in spread(rows, 9)] == ["3", "1", "0", "4", "2"]
    assert [row.id for row in spread(rows, 2)] == ["3", "1"]
    assert spread([replace(rows[0], text=None)], 9) == []


def test_audio_that_is_damaged_anywhere_is_told_before_anything_is_answered(tmp_path: Path) -> None:
    for name, seconds in (("a", 20.0), ("b", 1.0), ("c", 1.0)):
        samples = np.random.default_rng(0).normal(0, 0.1, round(16000 * seconds))
        soundfile.write(tmp_path / f"{name}.flac", samples, 16000)
    whole = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    lines = ["id,audio,split", "x,a.flac,test", "y,b.flac,test", "z,c.flac,train"]
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ManifestError, match=r"^m\.csv, column audio: row with id 'x': .*a\.flac: .*$"):
        Inputs.open("demo", Rows(tmp_path / "m.csv"), labels=LABELS)
    (tmp_path / "a.flac").write_bytes(whole)
    assert len(Inputs.open("demo", Rows(tmp_path / "m.csv"), labels=LABELS).splits["test"]) == 2

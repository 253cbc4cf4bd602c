"""Baselines: what they are fitted to, and that they are kept."""

import json
from collections import Counter

import baselines
import numpy as np
import pytest
import torch
from held_out import SETS, load_sets, text_rows
from sklearn.linear_model import LogisticRegression
from transformers import WhisperConfig, WhisperModel

from mmsr.records import Utterance


@pytest.fixture
def texts(corpora, tmp_path):
    """The csv that the training command leaves, of which one line is of another part."""
    file = tmp_path / "texts.csv"
    lines = ["text,label,language,source,split"]
    for row in text_rows(corpora):
        if row.split != "test":
            lines.append(f"{row.text},{row.label},{row.language},{row.kind},{row.split}")
    file.write_text("\n".join([*lines, "left alone,neutral,en,XED-neutral,test"]), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """Folder of a Whisper of two layers."""
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=16, num_mel_bins=16, vocab_size=8, encoder_layers=2, decoder_layers=1, encoder_ffn_dim=16,
        encoder_attention_heads=2, decoder_attention_heads=2, decoder_ffn_dim=16, init_std=1.0,
        pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=1,
        suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("whisper")
    WhisperModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def states(monkeypatch):
    """In place of Whisper: two layers, of which the second tells the label, three values each."""

    def made(encoder, paths, folder, *, level=False, progress=None):
        generator = np.random.default_rng(0)
        values = generator.standard_normal((len(paths), 3, 4))
        for i, path in enumerate(paths):
            values[i, 2, int(path.rpartition("_")[2].removesuffix(".wav")) % 3] += 9
        return values

    monkeypatch.setattr(baselines, "mean_states", made)


def test_predictions_of_every_test_row_are_kept_and_read(corpora, texts, states, tmp_path):
    described = baselines.run(corpora, texts, "whisper", tmp_path / "out")
    found = baselines.read_baselines(tmp_path / "out", texts=texts)
    assert list(found) == list(baselines.BASELINES)
    for one in load_sets(corpora, SETS):
        name = "probe" if one.column == "audio" else "tfidf"
        assert all(row.id in found[name] and row.id in found["majority"] for row in one.rows)
    assert described["probe"]["layer"] == 2 and described["probe"]["selection_macro_f1"] == 1
    assert all(row.predicted_label == row.label for row in found["probe"].values())
    # the words tell the label, whatever number follows
    right = [row.predicted_label == row.label for row in found["tfidf"].values()]
    assert np.mean(right) > 0.95
    counts = Counter(
        line.split(",")[1]
        for line in texts.read_text(encoding="utf-8").splitlines()
        if line.endswith(",train")
    )
    of_texts = {row.predicted_label for row in found["majority"].values() if row.id in found["tfidf"]}
    assert of_texts == {counts.most_common(1)[0][0]}


def test_rows_of_another_part_are_fitted_to_by_nothing(corpora, texts, states, tmp_path, monkeypatch):
    fitted, read = [], []
    original = LogisticRegression.fit

    def fit(self, values, labels):
        fitted.append(len(labels))
        return original(self, values, labels)

    monkeypatch.setattr(LogisticRegression, "fit", fit)
    monkeypatch.setattr(
        baselines,
        "tfidf_predictions",
        lambda training, rows: read.extend(training) or [],
    )
    baselines.run(corpora, texts, "whisper", tmp_path / "out")
    assert set(fitted) == {6 * 6}  # of ten speakers two test, two select
    held_out = {row.text for one in load_sets(corpora, SETS) for row in one.rows if one.column == "text"}
    assert len(read) > 100 and not held_out & {row.text for row in read}
    assert {row.split for row in read} == {"train"} and "left alone" not in {row.text for row in read}


def test_one_modality_is_made_without_losing_the_other(corpora, texts, states, tmp_path):
    baselines.run(corpora, texts, None, tmp_path / "out")
    first = baselines.read_baselines(tmp_path / "out")
    baselines.run(corpora, None, "whisper", tmp_path / "out")
    both = baselines.read_baselines(tmp_path / "out", texts=texts)
    assert list(first) == ["majority", "tfidf"] and list(both) == list(baselines.BASELINES)
    assert first["majority"].items() <= both["majority"].items() and first["tfidf"] == both["tfidf"]
    assert {"texts", "tfidf", "probe"} == json.loads((tmp_path / "out" / "baselines.json").read_text()).keys()


def test_baselines_of_other_texts_are_refused(corpora, texts, tmp_path):
    baselines.run(corpora, texts, None, tmp_path / "out")
    texts.write_text(
        texts.read_text(encoding="utf-8") + "\nmore,neutral,en,XED-neutral,train", encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"out was trained on other texts than .*texts.csv; accepted: what"):
        baselines.read_baselines(tmp_path / "out", texts=texts)


def test_texts_of_one_label_train_nothing():
    rows = [Utterance(id=str(i), text="a", label="neutral") for i in range(3)]
    with pytest.raises(
        ValueError, match=r"labels of 3 training texts are \['neutral'\]; accepted: two or more"
    ):
        baselines.tfidf_predictions(rows, rows)


def test_the_probe_is_chosen_on_the_selection_speakers_and_never_sees_test_clips():
    generator = np.random.default_rng(1)
    labels = np.array(["negative", "neutral", "positive"] * 40)
    parts = np.array(["train"] * 60 + ["selection"] * 30 + ["test"] * 30)
    states = generator.standard_normal((120, 4, 5))
    index = np.tile(np.arange(3), 40)
    states[np.arange(120), 1, index] += np.where(parts == "test", 50, 0)  # would be best on test clips
    states[np.arange(120), 3, index] += np.where(parts == "test", 0, 4)
    states[np.arange(120), 0, index] += 50  # the embedding is no layer
    probe, facts = baselines.fit_probe(states, labels, parts)
    assert facts["layer"] == 3 and facts["n_train"] == 60 and facts["n_selection"] == 30
    assert facts["C"] in baselines.STRENGTHS
    other, _ = baselines.fit_probe(np.where((parts == "test")[:, None, None], 7.0, states), labels, parts)
    assert np.array_equal(other.predict(states[:, 3]), probe.predict(states[:, 3]))


def test_states_of_a_chunk_are_computed_once(whisper, corpora, tmp_path, monkeypatch):
    paths = [str(path) for path in sorted((corpora / "ravdess16k" / "audio").iterdir())]
    monkeypatch.setattr(baselines, "_CHUNK", 4)
    found = baselines.mean_states(whisper, paths, tmp_path / "states")
    assert found.shape == (6, 3, 16) and len(list((tmp_path / "states").iterdir())) == 2
    quiet = baselines.mean_states(whisper, paths, tmp_path / "states", level=True)
    assert not np.allclose(found, quiet, atol=1e-4)
    monkeypatch.setattr(baselines, "_mean_state", None)
    assert np.array_equal(baselines.mean_states(whisper, paths, tmp_path / "states"), found)

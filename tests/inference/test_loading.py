"""A checkpoint at work: order of answers, and examples for the report."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmsr.data.audio.decoding import Audio
from mmsr.data.features.store import file_digest
from mmsr.data.manifest.manifest import load_manifest, utterances
from mmsr.inference.loading import examples, load_pipeline, open_predictor, predictor
from mmsr.model.configuration import MmsrConfig
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor


@pytest.fixture(scope="module")
def rows(demo_corpus):
    return utterances(load_manifest(demo_corpus))[:7]


@pytest.fixture(scope="module")
def pipe(rows, tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    processor = MmsrProcessor.train([row.text for row in rows], vocab_size=500)
    config = MmsrConfig.from_preset(
        "tiny",
        vocab_size=len(processor.tokenizer),
        label_token_ids=processor.label_token_ids,
        **processor.config_kwargs(),
    )
    MmsrForSentimentReasoning(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return load_pipeline(folder, device="cpu")


def test_answers_come_in_the_order_of_the_utterances_whatever_their_length(pipe, rows):
    inputs = [row.model_input() for row in rows]
    inputs[3] = replace(inputs[3], audio=None)
    together = predictor(pipe, batch_size=3, max_new_tokens=4)(inputs)
    for given, answer in zip(inputs, together, strict=True):
        alone = pipe({"audio": given.audio, "text": given.text}, max_new_tokens=4)
        assert answer.scores == pytest.approx(alone["scores"], abs=1e-5)
        assert answer.rationale == alone["rationale"]


def test_stored_states_are_answered_as_the_audio_is(pipe, rows, tmp_path, monkeypatch):
    inputs = [row.model_input() for row in rows]
    inputs[2:4] = [replace(inputs[2], text=None), replace(inputs[3], audio=None)]
    pipe.save_pretrained(tmp_path / "model")
    stored = open_predictor(tmp_path / "model", feature_store=tmp_path / "store", dtype="float32")
    answers = stored(inputs)
    for heard, answer in zip(predictor(pipe)(inputs), answers, strict=True):
        assert answer.scores == pytest.approx(heard.scores, abs=1e-5)
        assert answer.rationale == heard.rationale
    monkeypatch.setattr("mmsr.data.audio.decoding.Audio.decode", None)
    assert stored(inputs) == answers
    with pytest.raises(ValueError, match="an utterance has audio and audio_features; accepted: one of them"):
        pipe({"audio": rows[0].audio, "audio_features": torch.zeros(2, 1, 3)})
    for needs in ({"attention": True}, {"asr": lambda waveforms, languages: ["heard"]}):
        with pytest.raises(ValueError, match=f"{next(iter(needs))}=.* needs the audio itself"):
            pipe({"audio_features": torch.zeros(2, 1, 3)}, **needs)


def test_examples_hold_what_the_report_shows(pipe, rows):
    shown = examples(pipe, rows[:2])
    assert [example.utterance for example in shown] == rows[:2]
    assert set(shown[0].counterfactuals) == {"negative", "neutral", "positive"} - {shown[0].answer.label}
    attention = shown[0].attention
    assert attention["weights"].shape[0] == len(attention["tokens"]) > 3
    assert attention["waveform"].shape == Audio()(rows[0].audio).shape


def test_audio_in_an_archive_is_as_audio_in_a_folder(pipe, demo_corpus, rows, tmp_path):
    """From the manifest to the report's player, and through a feature store."""
    shutil.make_archive(str(tmp_path / "clips"), "zip", demo_corpus.parent / "audio")
    lines = [f"zip://{Path(row.audio).name}::clips.zip,{row.id}" for row in rows]
    (tmp_path / "m.csv").write_text("\n".join(["audio,id", *lines]))
    packed = utterances(load_manifest(tmp_path / "m.csv"))
    for row, other in zip(packed, rows, strict=True):
        (here,), (there,) = (predictor(pipe)([each.model_input(text=None)]) for each in (row, other))
        assert here == there
        assert file_digest(row.audio) == file_digest(other.audio)
    (shown,) = examples(pipe, [replace(rows[0], audio=packed[0].audio)])
    assert shown.utterance.audio == Path(rows[0].audio).read_bytes() and shown.mime.startswith("audio/")


def test_samples_are_answered_as_their_file(pipe, rows):
    given = rows[0].model_input()
    samples = replace(given, audio=Audio(16_000)(given.audio))
    (file,), (array,) = (predictor(pipe)([each]) for each in (given, samples))
    assert file == array

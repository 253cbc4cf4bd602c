"""What decides an answer, by attention and by gradients."""

from dataclasses import replace

import pytest
import torch

from mmsr.data.manifest.manifest import load_manifest, utterances
from mmsr.evaluation.explain.attribution import attention_evidence, gradient_evidence, saliency
from mmsr.evaluation.rationales import word_spans
from mmsr.evaluation.report import saliency_picture
from mmsr.inference.loading import load_pipeline, look_inside
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


def evidence(make, pipe, row):
    return make(pipe)(row.model_input(), word_spans(row.text))


def test_attention_weighs_every_word_and_frame(pipe, rows):
    seen = look_inside(pipe, rows[0])
    found = evidence(attention_evidence, pipe, rows[0])
    assert len(found.words) == len(word_spans(rows[0].text)) and (found.words > 0).all()
    assert found.frames.shape == (seen["weights"].shape[1],)
    assert found.frames.sum() == pytest.approx(1, abs=1e-4) and 0 < found.words.sum() < 1
    assert evidence(attention_evidence, pipe, replace(rows[0], audio=None)) == (None, None)


@pytest.mark.parametrize(("fusion", "weighed"), [("audio_to_text", "frames"), ("text_to_audio", "words")])
def test_attention_weighs_what_is_attended_to(pipe, rows, monkeypatch, fusion, weighed):
    config = MmsrConfig.from_dict({**pipe.model.config.to_dict(), "fusion": fusion})
    monkeypatch.setattr(pipe, "model", MmsrForSentimentReasoning(config).eval())
    found = evidence(attention_evidence, pipe, rows[0])
    assert [name for name, weights in found._asdict().items() if weights is not None] == [weighed]


def test_gradients_share_out_the_difference_of_logits(pipe, rows):
    """Words add up to what the transcript adds; special tokens stay as they are, and add nothing."""
    pytest.importorskip("captum", reason="captum is not installed: pip install 'mmsr[explain]'")
    found = evidence(gradient_evidence, pipe, replace(rows[0], audio=None))
    inputs = pipe.processor(text=[rows[0].text], return_tensors="pt")
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    blank = torch.where(ids > 2, pipe.processor.tokenizer.pad_token_id, ids)
    with torch.no_grad():
        # embeddings, since a model counts positions otherwise where it sees the ids of padding
        embedded = pipe.model.encoder.get_input_embeddings()(blank)
        none = pipe.model.encoder(inputs_embeds=embedded, attention_mask=mask)
        none = pipe.model.head(none.last_hidden_state, none.attention_mask)[0]
        full = pipe.model(**inputs).sentiment_logits[0]
    label = full.argmax()
    assert abs(float(full[label] - none[label])) > 0.01
    assert found.words.sum() == pytest.approx(float(full[label] - none[label]), rel=0.02)


@pytest.mark.parametrize(("absent", "left"), [("audio", "words"), ("text", "frames")])
def test_gradients_of_one_modality(pipe, rows, absent, left):
    pytest.importorskip("captum", reason="captum is not installed: pip install 'mmsr[explain]'")
    given = replace(rows[0].model_input(), **{absent: None})
    found = gradient_evidence(pipe, steps=2)(given, word_spans(given.text or ""))
    assert [name for name, weights in found._asdict().items() if weights is not None] == [left]


def test_saliency_is_what_the_picture_shows(pipe, rows):
    pytest.importorskip("captum", reason="captum is not installed: pip install 'mmsr[explain]'")
    shown = saliency(pipe, rows[0].model_input())
    assert len(shown["words"]) == len(shown["word_weights"])
    assert len(shown["frame_weights"]) == len(shown["waveform"]) // 320
    assert shown["label"] in pipe.model.config.labels
    assert saliency_picture(shown).startswith(b"\x89PNG")

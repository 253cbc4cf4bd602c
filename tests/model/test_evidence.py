"""Heads of evidence: what they see, that they change no label, and that a checkpoint keeps them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmsr.model.modeling import MmsrForSentimentReasoning

MakeModel = Callable[..., MmsrForSentimentReasoning]
VOICES, EMOTIONS, LANGUAGES = ["anger", "neutral"], ["joy", "fear", "neutral"], ["en", "vi"]
HEADS: dict[str, Any] = {
    "text_outlier_layer": 1,
    "voice_emotions": VOICES,
    "text_emotions": EMOTIONS,
    "text_languages": LANGUAGES,
}
FIELDS = ("voice_emotion_logits", "text_emotion_logits", "text_language_logits", "token_logits")


@pytest.mark.parametrize("mix", [False, True])
def test_heads_answer_for_each_row(make_model: MakeModel, batch: dict[str, Tensor], mix: bool) -> None:
    model = make_model(**HEADS, audio_layer_mix=mix, text_layer_mix=mix)
    found = model.encoder(**batch)
    rows, tokens = batch["input_ids"].shape
    shapes = [tuple(getattr(found, field).shape) for field in FIELDS]
    assert shapes == [(rows, 2), (rows, 3), (rows, 2), (rows, tokens, len(model.config.labels))]


def test_heads_change_no_label(make_model: MakeModel, ragged: dict[str, Tensor]) -> None:
    model = make_model(text_outlier_layer=1)
    before = model.classify(**ragged, head_only=True)
    assert not model.writes_rationales or model.decoder is not None
    assert all(getattr(before.memory, field) is None for field in FIELDS)
    model.encoder.add_voice_emotions(VOICES)
    model.encoder.add_text_evidence(EMOTIONS, LANGUAGES)
    after = model.classify(**ragged, head_only=True)
    assert torch.equal(after.head_logits, before.head_logits)
    assert model.config.has_evidence and model.writes_rationales


def test_no_head_sees_the_other_modality(make_model: MakeModel, batch: dict[str, Tensor]) -> None:
    model = make_model(**HEADS)
    both = model.encoder(**batch)
    audio = {name: batch[name] for name in batch if name.startswith("input_values")}
    text = {name: batch[name] for name in batch if not name.startswith("input_values")}
    heard, read = model.encoder(**audio), model.encoder(**text)
    assert_close(heard.voice_emotion_logits, both.voice_emotion_logits)
    assert heard.token_logits is heard.text_emotion_logits is heard.text_language_logits is None
    assert read.voice_emotion_logits is None
    for field in FIELDS[1:]:
        assert_close(getattr(read, field), getattr(both, field))


def test_a_row_does_not_depend_on_its_batch(make_model: MakeModel, ragged: dict[str, Tensor]) -> None:
    model = make_model(**HEADS)
    found = model.encoder(**ragged)
    alone = model.encoder(**{name: value[:1] for name, value in ragged.items()})
    length = int(ragged["attention_mask"][0].sum())
    for field in FIELDS[:3]:
        assert_close(getattr(alone, field)[0], getattr(found, field)[0], atol=1e-4, rtol=1e-4)
    assert_close(alone.token_logits[0, :length], found.token_logits[0, :length], atol=1e-4, rtol=1e-4)


def test_training_leaves_them_alone(make_model: MakeModel, batch: dict[str, Tensor]) -> None:
    model = make_model(**HEADS).train()
    assert model.encoder(**batch).voice_emotion_logits is None
    heads = [*model.encoder.voice_emotions.parameters(), *model.encoder.text_evidence.parameters()]
    assert heads and not any(parameter.requires_grad for parameter in heads)


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_a_checkpoint_keeps_them(
    make_model: MakeModel, batch: dict[str, Tensor], tmp_path: Path, weights: str
) -> None:
    model = make_model(**HEADS)
    if weights == "int8":
        from mmsr.model.weight_storage import save_int8

        save_int8(model, tmp_path)
    else:
        model.save_pretrained(tmp_path)
    loaded = MmsrForSentimentReasoning.from_pretrained(tmp_path).eval()
    assert loaded.config.voice_emotions == VOICES and loaded.config.text_languages == LANGUAGES
    kept, found = (one.encoder(**batch) for one in (model, loaded))
    close = {} if weights == "float32" else {"atol": 0.1, "rtol": 0.1}
    for field in FIELDS:
        assert_close(getattr(found, field), getattr(kept, field), **close)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"voice_emotions": ["anger"]}, "voice_emotions"),
        ({"voice_emotions": ["anger", "anger"]}, "voice_emotions"),
        ({"voice_emotions": VOICES, "fusion": "text_only"}, "voice_emotions"),
        ({**HEADS, "voice_emotions": None, "fusion": "audio_only"}, "text_emotions"),
        ({**HEADS, "text_outlier_layer": None}, "text_outlier_layer"),
        ({**HEADS, "text_languages": None}, "text_languages"),
    ],
)
def test_what_does_not_fit_is_refused(make_model: MakeModel, settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=rf"{named}=.*accepted"):
        make_model(**settings)


def test_a_head_that_does_not_fit_leaves_the_config(make_model: MakeModel, batch: dict[str, Tensor]) -> None:
    model = make_model(text_outlier_layer=1)
    with pytest.raises(ValueError, match="accepted"):
        model.encoder.add_text_evidence(["joy"], ["en"])
    assert model.config.text_emotions is model.config.text_languages is None
    assert model.encoder(**batch).token_logits is None

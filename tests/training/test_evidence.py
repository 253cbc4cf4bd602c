"""The fit of evidence: marks that add up, heads that learn them, and a voice's emotions that are copied."""

from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor
from mmsr.training.evidence import TaughtText, _marks, copy_voice_emotions, fit_text_evidence

MakeModel = Callable[..., MmsrForSentimentReasoning]
TEXTS = [
    TaughtText(text="the doctor was very kind to me", emotions=("gratitude",), language="en"),
    TaughtText(text="nobody listened and I am angry", emotions=("anger",), language="en"),
    TaughtText(text="医生对我很好", emotions=("gratitude",), language="zh"),
    TaughtText(text="谢谢", language="zh"),
    TaughtText(text="appointment is on Tuesday"),
]


@pytest.fixture
def model(make_model: MakeModel, processor: MmsrProcessor) -> MmsrForSentimentReasoning:
    vocabulary = {"vocab_size": len(processor.tokenizer), "label_token_ids": processor.label_token_ids}
    return make_model(**processor.config_kwargs(), **vocabulary, text_outlier_layer=1)


def test_the_heads_learn_and_the_model_stays(
    model: MmsrForSentimentReasoning, processor: MmsrProcessor
) -> None:
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    losses = fit_text_evidence(
        model,
        processor,
        marked=TEXTS * 8,
        named=TEXTS * 8,
        emotions=["gratitude", "anger"],
        epochs=60,
        learning_rate=0.05,
        batch_size=8,
    )
    for name, value in weights.items():
        assert torch.equal(model.state_dict()[name], value), name
    assert (model.config.text_emotions, model.config.text_languages) == (["gratitude", "anger"], ["en", "zh"])
    inputs = processor(text=[row.text for row in TEXTS], return_tensors="pt")
    found = model.encoder(**inputs)
    assert found.text_language_logits.argmax(-1)[:4].tolist() == [0, 0, 1, 1]
    assert found.text_emotion_logits.argmax(-1)[:3].tolist() == [0, 1, 0]
    assert losses.keys() == {"tokens", "emotions", "languages"} and max(losses.values()) < 2
    assert not any(parameter.requires_grad for parameter in model.encoder.text_evidence.parameters())


def test_tokens_are_weighed_as_they_were_marks(
    model: MmsrForSentimentReasoning, processor: MmsrProcessor
) -> None:
    fit_text_evidence(
        model,
        processor,
        marked=TEXTS * 8,
        named=TEXTS * 8,
        emotions=["anger", "joy"],
        epochs=80,
        learning_rate=0.05,
        batch_size=8,
        steps=8,
    )
    marked = _marks(model, processor, [row.text for row in TEXTS], steps=8, batch_size=8, bf16=False)
    inputs = processor(text=[row.text for row in TEXTS], return_tensors="pt")
    logits = model.encoder(**inputs).token_logits
    for row, one in enumerate(marked):
        word = one.marks >= 0
        assert word.any() and not word[0], "special tokens have no mark"
        assert_close(one.marks[word].sum(), torch.tensor(1.0))
        if word.sum() > 1:
            kept = logits[row, : len(word), one.label][word]
            assert int(kept.argmax()) == int(one.marks[word].argmax()), TEXTS[row].text


def test_a_voices_emotions_are_copied(make_model: MakeModel, batch: dict[str, torch.Tensor]) -> None:
    model = make_model()
    voice = make_model(fusion="audio_only", decoder_type="none", rationale_format="none")
    voice.encoder.audio_encoder.load_state_dict(model.encoder.audio_encoder.state_dict())
    copy_voice_emotions(model, voice)
    assert model.config.voice_emotions == voice.config.labels
    audio = {name: value for name, value in batch.items() if name.startswith("input_values")}
    expected = voice.classify(**audio, head_only=True).head_logits
    assert_close(model.encoder(**batch).voice_emotion_logits, expected)


def test_voices_on_another_encoder_are_refused(make_model: MakeModel) -> None:
    model = make_model()
    with pytest.raises(ValueError, match="fusion='cross_attention'; accepted: 'audio_only'"):
        copy_voice_emotions(model, make_model())
    voice = make_model(fusion="audio_only", decoder_type="none", rationale_format="none")
    next(voice.encoder.audio_encoder.parameters()).data.add_(1)
    with pytest.raises(ValueError, match="audio encoders differ"):
        copy_voice_emotions(model, voice)


@pytest.mark.parametrize("texts", [[], TEXTS[:2], TEXTS[3:]])
def test_texts_that_teach_nothing_are_refused(
    model: MmsrForSentimentReasoning, processor: MmsrProcessor, texts: list[TaughtText]
) -> None:
    with pytest.raises(ValueError, match="accepted: texts of both"):
        fit_text_evidence(model, processor, marked=texts, named=texts, emotions=["gratitude", "anger"])

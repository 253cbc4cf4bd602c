"""The fit of detectors: what it tells apart, and how many known rows it refuses."""

from collections.abc import Callable

import numpy as np
import pytest

from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor
from mmsr.records import Utterance
from mmsr.training.outliers import fit_outlier_detectors

RATE = 16_000
WORDS = "the doctor was very kind to me nobody listened and I am angry appointment is on Tuesday".split()


def rows(seed: int, number: int, *, known: bool) -> list[Utterance]:
    """Known: tones and English words; outliers: noise and Chinese."""
    generator, made = np.random.default_rng(seed), []
    for _ in range(number):
        time = np.arange(generator.integers(2400, 4800)) / RATE
        tone = 0.1 * np.sin(2 * np.pi * generator.uniform(150, 300) * time)
        noise = 0.1 * generator.standard_normal(len(time))
        words = generator.choice(WORDS if known else list("医生对我很好谢"), size=generator.integers(3, 8))
        audio = (tone if known else noise).astype(np.float32)
        made.append(Utterance(audio=audio, text=" ".join(words), language="en" if known else None))
    return made


@pytest.fixture
def model(
    make_model: Callable[..., MmsrForSentimentReasoning], processor: MmsrProcessor
) -> MmsrForSentimentReasoning:
    vocabulary = {"vocab_size": len(processor.tokenizer), "label_token_ids": processor.label_token_ids}
    return make_model(**processor.config_kwargs(), **vocabulary)


def test_outliers_are_refused_and_few_known_rows(
    model: MmsrForSentimentReasoning, processor: MmsrProcessor
) -> None:
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    held_out = rows(2, 20, known=True)
    fitted = fit_outlier_detectors(
        model,
        processor,
        known=rows(0, 80, known=True),
        held_out=held_out,
        outliers=rows(1, 80, known=False),
        layers={"audio": 1, "text": 1},
        refused=0.1,
        regularization=0.1,
    )
    for name, value in weights.items():
        assert (model.state_dict()[name] == value).all(), "the model itself stays"
    new = rows(3, 10, known=False)
    for column, (modality, fit) in enumerate(fitted.items()):
        assert (fit.layer, fit.known, fit.outliers) == (1, 80, 80)
        assert fit.refused["all"] == fit.refused["en"] <= 0.1
        assert getattr(model.config, f"{modality}_outlier_threshold") == fit.threshold
        for given, least, most in ((held_out, fit.refused["all"], fit.refused["all"]), (new, 0.8, 1.0)):
            inputs = processor(**{modality: [getattr(row, modality) for row in given]}, return_tensors="pt")
            logits = model.classify(**inputs, head_only=True).outlier_logits
            assert logits is not None
            share = (logits[:, column].sigmoid() > fit.threshold).float().mean()
            assert least - 1e-6 <= share <= most + 1e-6


def test_what_cannot_be_fitted_is_refused(model: MmsrForSentimentReasoning, processor: MmsrProcessor) -> None:
    known = rows(0, 2, known=True)
    given = {"known": known, "held_out": known, "outliers": [Utterance(text="医生")]}
    with pytest.raises(ValueError, match="outliers has no rows with audio; accepted: one or more"):
        fit_outlier_detectors(model, processor, **given, layers={"audio": 1})
    with pytest.raises(ValueError, match="layers names no modality"):
        fit_outlier_detectors(model, processor, **given, layers={})
    with pytest.raises(ValueError, match="refused=1; accepted: 0 to below 1"):
        fit_outlier_detectors(model, processor, **given, layers={"text": 1}, refused=1)
    with pytest.raises(ValueError, match="modality='video' does not exist"):
        fit_outlier_detectors(model, processor, **given, layers={"video": 1})

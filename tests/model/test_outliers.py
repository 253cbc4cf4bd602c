"""Detectors of outliers: what they read, what they refuse, and that a refused modality is an absent one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmsr.model.configuration import MmsrConfig
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.outliers import OutlierDetector, outliers

MakeModel = Callable[..., MmsrForSentimentReasoning]
BOTH = {"audio_outlier_layer": 1, "text_outlier_layer": 1}


def refuse(model: MmsrForSentimentReasoning, *modalities: str) -> None:
    """Make a detector refuse everything."""
    for modality in modalities:
        getattr(model.encoder, f"{modality}_outlier_detector").bias.fill_(9.0)


def test_a_logit_depends_on_the_real_positions_alone() -> None:
    detector = OutlierDetector(4)
    detector.weight.copy_(torch.randn(8))
    states, mask = torch.randn(3, 5, 4), torch.tensor([[1, 1, 1, 0, 0], [1] * 5, [0] * 5])
    found = detector(states, mask)
    assert_close(found[:1], detector(states[:1, :3], mask[:1, :3]))
    assert found[1] != found[0] and found[2] == -torch.inf
    normed = torch.nn.functional.layer_norm(states[1], (4,))
    statistics = torch.cat([normed.mean(0), (normed.var(0, correction=0) + 1e-6).sqrt()])
    assert_close(found[1], statistics @ detector.weight)


def test_thresholds_are_probabilities_and_what_is_absent_is_no_outlier() -> None:
    logits = torch.tensor([[0.0, 0.0], [1.0, 1.0], [-torch.inf, 5.0]])
    assert outliers(logits, (0.5, 0.9)).tolist() == [[False, False], [True, False], [False, True]]


@pytest.mark.parametrize("mix", [False, True])
def test_a_detector_that_is_not_fitted_changes_nothing(
    make_model: MakeModel, ragged: dict[str, Tensor], mix: bool
) -> None:
    model = make_model(audio_layer_mix=mix, text_layer_mix=mix)
    before, weights = model.classify(**ragged, head_only=True), set(model.state_dict())
    assert before.outlier_logits is None
    for modality in ("audio", "text"):
        model.encoder.add_outlier_detector(modality, 1)
    after = model.classify(**ragged, head_only=True)
    assert torch.equal(after.head_logits, before.head_logits)
    assert after.outlier_logits is not None
    assert after.outlier_logits.tolist() == [[0, 0], [-torch.inf, 0], [0, -torch.inf]]
    added = set(model.state_dict()) - weights
    assert added == {
        f"joint_encoder.{modality}_outlier_detector.{name}"
        for modality in ("audio", "text")
        for name in ("weight", "bias")
    }
    assert not any("outlier" in name for name, _ in model.named_parameters()), "training leaves them alone"


@pytest.mark.parametrize("mix", [False, True])
def test_detectors_read_the_layer_that_the_config_names(
    make_model: MakeModel, batch: dict[str, Tensor], mix: bool
) -> None:
    model = make_model(audio_layer_mix=mix, text_layer_mix=mix, **BOTH)
    states = model.encoder(**batch, output_hidden_states=True)
    for column, (name, hidden) in enumerate(
        {"audio": states.audio_hidden_states, "text": states.hidden_states}.items()
    ):
        detector = getattr(model.encoder, f"{name}_outlier_detector")
        detector.weight.copy_(torch.randn(len(detector.weight)))
        mask = torch.ones(hidden[1].shape[:2], dtype=torch.long)
        found = model.encoder(**batch).outlier_logits[:, column]
        assert_close(found, detector(hidden[1], mask))


def test_an_outlier_beside_another_modality_is_absent(
    make_model: MakeModel, batch: dict[str, Tensor]
) -> None:
    model = make_model(**BOTH)
    both = model.classify(**batch, head_only=True).head_logits
    for refused, mask in (("audio", "input_values_mask"), ("text", "attention_mask")):
        model = make_model(**BOTH)
        alone = model.classify(**{**batch, mask: torch.zeros_like(batch[mask])}, head_only=True).head_logits
        refuse(model, refused)
        found = model.classify(**batch, head_only=True).head_logits
        assert_close(found, alone)
        assert not torch.allclose(found, both, atol=1e-3)
    refuse(model, "audio")
    assert torch.equal(model.classify(**batch, head_only=True).head_logits, both), (
        "both are refused: both stay"
    )


def test_training_leaves_nothing_out(make_model: MakeModel, batch: dict[str, Tensor]) -> None:
    model = make_model(**BOTH, dropout=0.0).train()
    refuse(model, "audio")
    model(**batch, sentiment_labels=torch.tensor([0, 1, 2])).loss.backward()
    assert model.encoder.audio_stream.projection.weight.grad.abs().sum() > 0


def test_stored_states_give_the_same_logits(make_model: MakeModel, ragged: dict[str, Tensor]) -> None:
    model = make_model(**BOTH)
    for name in ("audio", "text"):
        detector = getattr(model.encoder, f"{name}_outlier_detector")
        detector.weight.copy_(torch.randn(len(detector.weight)))
    audio, audio_mask = model.encoder.encode_audio(ragged["input_values"], ragged["input_values_mask"])
    text, text_mask = model.encoder.encode_text(ragged["input_ids"], ragged["attention_mask"])
    assert audio.shape[2] == text.shape[2] == 2, "the detector's layer, and the last"
    stored = model.classify(
        audio_features=audio,
        audio_features_mask=audio_mask,
        text_features=text,
        attention_mask=text_mask,
        head_only=True,
    )
    raw = model.classify(**ragged, head_only=True)
    assert_close(stored.outlier_logits, raw.outlier_logits)
    assert_close(stored.head_logits, raw.head_logits)


def test_a_checkpoint_keeps_its_detectors(
    make_model: MakeModel, batch: dict[str, Tensor], tmp_path: Path
) -> None:
    model = make_model()
    model.encoder.add_outlier_detector("text", 1)
    refuse(model, "text")
    model.config.text_outlier_threshold = 0.25
    model.save_pretrained(tmp_path)
    again = MmsrForSentimentReasoning.from_pretrained(tmp_path)
    assert again.config.outlier_thresholds == (0.5, 0.25)
    found, expected = (one.eval()(**batch) for one in (again, model))
    assert torch.equal(found.outlier_logits, expected.outlier_logits)
    assert torch.equal(found.sentiment_logits, expected.sentiment_logits)


def test_what_does_not_exist_is_refused(make_model: MakeModel) -> None:
    with pytest.raises(ValueError, match="text_outlier_layer=7; accepted: 0 to 2, or None"):
        MmsrConfig.from_preset("tiny", text_outlier_layer=7)
    with pytest.raises(ValueError, match="audio_outlier_threshold=2; accepted: 0 to 1"):
        MmsrConfig.from_preset("tiny", audio_outlier_threshold=2)
    with pytest.raises(ValueError, match="modality='audio' does not exist; accepted: text"):
        make_model(fusion="text_only").encoder.add_outlier_detector("audio", 1)

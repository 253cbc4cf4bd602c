"""What is made of a run's settings."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

import mmsr
from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.training.factory import balanced_weights, check_sources, make_model, make_objectives, prepare_model
from mmsr.training.settings import TrainingSettings

LABELS = ["negative", "neutral", "positive"]


def tiny(**settings) -> TrainingSettings:
    return TrainingSettings(**{"preset": "tiny", "vocab_size": 600, **settings})


def test_balanced_class_weights_are_scikit_learn_s(demo_corpus):
    labels = ["negative"] * 5 + ["neutral"] * 2 + ["positive"] + [None] * 4
    expected = compute_class_weight("balanced", classes=np.array(LABELS), y=labels[:8])
    assert balanced_weights(labels, LABELS) == pytest.approx(list(expected))
    with pytest.raises(ValueError, match="no training row is positive; accepted: rows of every label"):
        balanced_weights(labels[:7], LABELS)
    data = MmsrDataModule(str(demo_corpus))
    model, _ = make_model(tiny(class_weights="balanced"), data)
    rows = [label for label in data.train_rows["label"] if label is not None]
    assert model.config.class_weights == pytest.approx(
        list(compute_class_weight("balanced", classes=np.array(LABELS), y=rows))
    )
    with pytest.raises(ValueError, match="class_weights has 2 entries; accepted: one for each of neg"):
        make_model(tiny(class_weights=[1.0, 2.0]), data)


def test_a_fresh_model_is_as_the_settings_say(demo_corpus):
    settings = tiny(
        labels=LABELS[::-1],
        fusion="gated",
        rationale_format="post_thinking",
        text_prefix="query: ",
        target_level=-23,
        label_smoothing=0.2,
        config={"pooling": "mean"},
    )
    model, processor = make_model(settings, MmsrDataModule(str(demo_corpus)))
    assert processor.labels == model.config.labels == LABELS[::-1]
    assert processor.target_level == -23
    assert processor.text_prefix == "query: " and len(processor.tokenizer) == model.config.decoder.vocab_size
    config = model.config
    found = (config.fusion, config.rationale_format, config.pooling, config.label_smoothing)
    assert found == ("gated", "post_thinking", "mean", 0.2)


def test_a_model_of_its_own_parts_needs_a_tokenizer():
    with pytest.raises(ValueError, match="audio= without text=: the tokenizer comes from the text encoder"):
        make_model(TrainingSettings(audio="x"), MmsrDataModule("none.csv"))


def test_losses_that_the_model_of_a_checkpoint_lacks_are_named(demo_corpus):
    """Its fusion and its decoder are known only when it is loaded."""
    source = {"fusion": "text_only", "rationale_format": "none"}
    model, _ = make_model(tiny(**source), MmsrDataModule(str(demo_corpus)))
    with pytest.raises(ValueError, match="weighs two losses, and base writes no rationales"):
        make_objectives(TrainingSettings(pretrained="base", uncertainty_weighting=True), model, processes=1)
    contrastive = TrainingSettings(pretrained="base", objectives={"contrastive": 0.1})
    with pytest.raises(ValueError, match=r"\(contrastive\) are of two modalities, and base has fusion='text"):
        make_objectives(contrastive, model, processes=1)


def test_objectives_by_name(demo_corpus):
    model, _ = make_model(tiny(), MmsrDataModule(str(demo_corpus)))
    settings = tiny(objectives={"auxiliary_heads": 0.3, "ogm_ge": {"alpha": 0.5, "noise": False}})
    made, balance = make_objectives(settings, model, processes=1)
    assert list(made) == ["auxiliary_heads"] and made["auxiliary_heads"].weight == 0.3
    assert balance is not None and balance.alpha == 0.5 and not balance.noise
    with pytest.raises(ValueError, match="ogm_ge runs in one process, not in 2"):
        make_objectives(settings, model, processes=2)


def test_the_same_seed_makes_the_same_model(demo_corpus):
    settings = tiny(freeze=["audio_encoder"], config={"tie_word_embeddings": False})
    models = []
    for _ in range(2):
        torch.manual_seed(3)
        model, _ = make_model(settings, MmsrDataModule(str(demo_corpus)))
        prepare_model(model, settings, settings)
        models.append(model)
    first, second = (model.state_dict() for model in models)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not any(weight.requires_grad for weight in models[0].encoder.audio_encoder.model.parameters())


def test_heads_of_evidence_are_left_out_of_a_training(demo_corpus, capsys):
    model, _ = make_model(
        TrainingSettings(pretrained=str(mmsr.checkpoint("base"))), MmsrDataModule(str(demo_corpus))
    )
    assert not model.config.has_evidence and not model.writes_rationales
    assert not [name for name in model.state_dict() if "evidence" in name or "voice_emotions" in name]
    assert "names its evidence by heads" in capsys.readouterr().err


def test_a_checkpoint_lends_its_encoders_with_how_they_are_fed(demo_corpus):
    data = MmsrDataModule(str(demo_corpus))
    lender = mmsr.MmsrForSentimentReasoning.from_pretrained(mmsr.checkpoint("base"))
    theirs = mmsr.MmsrProcessor.from_pretrained(mmsr.checkpoint("base"))
    both = TrainingSettings(audio="base", text="base", rationale_format="none", config={"hidden_size": 16})
    model, processor = make_model(both, data)
    for part in ("audio_encoder", "text_encoder"):
        lent, own = getattr(lender.encoder, part).model, getattr(model.encoder, part).model
        assert lent.state_dict().keys() == own.state_dict().keys()
        assert all(torch.equal(own.state_dict()[name], kept) for name, kept in lent.state_dict().items())
    assert processor.tokenizer.get_vocab() == theirs.tokenizer.get_vocab()
    assert (processor.text_prefix, processor.target_level) == ("query: ", theirs.target_level)
    assert theirs.target_level is not None
    own_prefix = TrainingSettings(text="base", fusion="text_only", text_prefix="passage: ")
    assert make_model(own_prefix, data)[1].text_prefix == "passage: "


def test_a_checkpoint_lends_no_encoder_that_it_lacks(make_model, tmp_path, demo_corpus):
    make_model(fusion="text_only").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"audio=.*fusion='text_only', which has no audio encoder; accepted"):
        mmsr.MmsrForSentimentReasoning.from_encoders(audio=tmp_path, text=tmp_path)


def test_training_goes_on_from_a_packaged_checkpoint_by_its_name(demo_corpus):
    model, processor = make_model(TrainingSettings(pretrained="demo"), MmsrDataModule(str(demo_corpus)))
    kept = mmsr.MmsrForSentimentReasoning.from_pretrained(mmsr.checkpoint("demo")).state_dict()
    assert model.state_dict().keys() == kept.keys()
    assert all(torch.equal(model.state_dict()[name], weight) for name, weight in kept.items())
    check_sources(TrainingSettings(pretrained="demo"))

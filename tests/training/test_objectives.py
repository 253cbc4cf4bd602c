"""Each objective against a plain formula, or a library's, and what it leaves out."""

import math

import pytest
import torch
from torch.nn import functional as F
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from mmsr.model.configuration import MmsrConfig
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.training.objectives import (
    LOSSES,
    AuxiliaryHeads,
    Contrastive,
    OgmGe,
    Pooled,
    SupervisedContrastive,
    check_objectives,
    contrastive_loss,
    pooled_streams,
    supervised_contrastive_loss,
    symmetric_divergence,
)


def pooled(rows: int = 6, width: int = 8, *, no_audio=(), no_text=()) -> dict[str, Pooled]:
    streams = {
        name: Pooled(torch.randn(rows, width, requires_grad=True), torch.ones(rows, dtype=torch.bool))
        for name in ("audio", "text")
    }
    streams["audio"].present[list(no_audio)] = False
    streams["text"].present[list(no_text)] = False
    return streams


@pytest.fixture
def tiny() -> MmsrForSentimentReasoning:
    return MmsrForSentimentReasoning(MmsrConfig.from_preset("tiny", rationale_format="none")).eval()


def test_contrastive_loss_is_clip_s():
    audio, text = torch.randn(5, 8), torch.randn(5, 8)
    similarity = 14.0 * F.normalize(text) @ F.normalize(audio).T
    torch.testing.assert_close(contrastive_loss(audio, text, 14.0), image_text_contrastive_loss(similarity))
    assert contrastive_loss(audio[:0], text[:0], 14.0) == 0


def test_supervised_contrastive_loss_is_the_paper_s_sum():
    features, labels, temperature = torch.randn(6, 4), [0, 1, 0, 2, 1, 0], 0.1
    z = F.normalize(features)
    anchors = []
    for i in range(6):
        others = [a for a in range(6) if a != i]
        positives = [p for p in others if labels[p] == labels[i]]
        below = sum(math.exp(float(z[i] @ z[a]) / temperature) for a in others)
        terms = [math.log(math.exp(float(z[i] @ z[p]) / temperature) / below) for p in positives]
        if terms:
            anchors.append(-sum(terms) / len(terms))
    assert len(anchors) == 5
    found = supervised_contrastive_loss(features, torch.tensor(labels), temperature)
    assert float(found) == pytest.approx(sum(anchors) / 5, rel=1e-5)


@pytest.mark.parametrize("labels", [[], [1], [0, 1, 2]])
def test_supervised_contrastive_loss_without_a_pair_is_zero_with_a_gradient(labels):
    features = torch.randn(len(labels), 4, requires_grad=True)
    loss = supervised_contrastive_loss(features, torch.tensor(labels, dtype=torch.long), 0.1)
    loss.backward()
    assert loss == 0 and not features.grad.any()


def test_symmetric_divergence_is_that_of_torch_s_distributions():
    first, second = torch.randn(7, 3), torch.randn(7, 3)
    p, q = (torch.distributions.Categorical(logits=logits) for logits in (first, second))
    both = torch.distributions.kl_divergence(p, q) + torch.distributions.kl_divergence(q, p)
    torch.testing.assert_close(symmetric_divergence(first, second), both.mean() / 2)
    assert symmetric_divergence(first, first) == 0
    assert symmetric_divergence(first[:0], first[:0]) == 0


def test_auxiliary_heads_are_two_cross_entropies():
    heads, streams = AuxiliaryHeads(8, 3, weight=1.0), pooled(no_audio=[0], no_text=[1, 2])
    labels = torch.tensor([0, 1, 2, 0, -100, 1])
    known = {"audio": [1, 2, 3, 5], "text": [0, 3, 5]}
    expected = sum(
        F.cross_entropy(heads.heads[name](streams[name].vectors[rows]), labels[rows])
        for name, rows in known.items()
    )
    torch.testing.assert_close(heads(streams, labels).sum(), expected)


@pytest.mark.parametrize("name", LOSSES)
def test_absent_modalities_and_unknown_labels_enter_no_loss(name):
    objective = LOSSES[name](8, 3, weight=1.0)
    labels = torch.tensor([0, 1, 0, 1, 0, -100])
    streams = pooled(no_audio=[0], no_text=[1])
    loss = objective(streams, labels).sum()
    loss.backward()
    assert not streams["audio"].vectors.grad[0].any() and not streams["text"].vectors.grad[1].any()
    # an absent partner matters to the contrast of pairs alone, a missing label to the two others
    pairs = name == "contrastive"
    assert bool(streams["text"].vectors.grad[0].any()) != pairs
    assert bool(streams["audio"].vectors.grad[5].any()) == pairs
    assert streams["audio"].vectors.grad[2].any() and streams["text"].vectors.grad[2].any()
    assert all(weight.grad.any() for weight in objective.parameters())


@pytest.mark.parametrize("name", LOSSES)
def test_targets_are_those_that_a_mean_is_over(name):
    """Each target counts 1: rows with both, anchors with a partner, rows of each head."""
    labels = torch.tensor([0, 1, 2, 0, -100, 1])
    streams = pooled(no_audio=[0], no_text=[1, 2])
    present = {modality: stream.present for modality, stream in streams.items()}
    objective = LOSSES[name](8, 3, weight=1.0)
    expected = {"contrastive": 3, "supervised_contrastive": 6, "auxiliary_heads": [4, 3]}
    assert objective.targets(present, labels).tolist() == expected[name]
    assert objective(streams, labels).numel() == objective.targets(present, labels).numel() == objective.terms


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_a_modality_still_reaches_every_weight(name):
    objective = LOSSES[name](8, 3, weight=1.0)
    loss = objective(pooled(no_audio=range(6), no_text=range(6)), torch.tensor([0, 1, 0, 1, 0, 2])).sum()
    loss.backward()
    assert loss == 0
    assert all(weight.grad is not None for weight in objective.parameters())


def test_losses_fall_when_followed():
    labels = torch.tensor([0, 1, 0, 1, 2, 2])
    for objective in (
        Contrastive(8, 3, weight=1.0),
        SupervisedContrastive(8, 3, weight=1.0),
        AuxiliaryHeads(8, 3, weight=1.0),
    ):
        streams = pooled()
        optimizer = torch.optim.Adam(objective.parameters(), lr=0.02)
        first = objective(streams, labels).sum()
        for _ in range(60):
            optimizer.zero_grad()
            objective(streams, labels).sum().backward()
            optimizer.step()
        assert objective(streams, labels).sum() < first / 2, type(objective).__name__


def test_streams_are_means_over_what_enters_the_fusion(tiny):
    ids, mask = torch.randint(5, 200, (3, 7)), torch.ones(3, 7).long()
    mask[0, 4:] = 0
    mask[2] = 0
    sound, heard = torch.randn(3, 4000), torch.ones(3, 4000).long()
    heard[1] = 0
    seen = {}
    tiny.encoder.fusion.register_forward_hook(lambda _, given, __: seen.update(given=given))
    with pooled_streams(tiny.encoder, 3) as streams:
        tiny(input_ids=ids, attention_mask=mask, input_values=sound, input_values_mask=heard)
    audio, audio_mask, text, text_mask = seen["given"]
    assert streams["audio"].present.tolist() == [True, False, True]
    assert streams["text"].present.tolist() == [True, True, False]
    torch.testing.assert_close(streams["text"].vectors[0], text[0, :4].mean(0))
    torch.testing.assert_close(streams["audio"].vectors[2], audio[2, audio_mask[2].bool()].mean(0))
    with pooled_streams(tiny.encoder, 3) as streams:
        tiny(input_ids=ids, attention_mask=mask)
    assert not streams["audio"].present.any() and not streams["audio"].vectors.any()
    assert not tiny.encoder.audio_stream._forward_hooks  # nothing of it stays


def test_the_stronger_modality_is_held_back(tiny):
    balance = OgmGe(alpha=0.5, noise=False)
    streams, labels = pooled(no_text=[5]), torch.tensor([0, 1, 2, 0, -100, 1])
    logits = {"audio": torch.randn(6, 3), "text": torch.randn(6, 3)}
    rows = [0, 1, 2, 3]
    score = {name: sum(float(logits[name][row].softmax(-1)[labels[row]]) for row in rows) for name in logits}
    strong, weak = sorted(score, key=score.get, reverse=True)
    balance.observe(logits, streams, labels)
    for weight in tiny.parameters():
        weight.grad = torch.ones_like(weight)
    factors = balance.modulate(tiny)
    k = 1 - math.tanh(0.5 * score[strong] / score[weak])
    assert factors == {strong: pytest.approx(k, rel=1e-5), weak: 1.0}
    for name, weight in tiny.named_parameters():
        held = name.startswith((f"joint_encoder.{strong}_encoder.", f"joint_encoder.{strong}_stream."))
        torch.testing.assert_close(weight.grad, torch.full_like(weight, k if held else 1.0), msg=name)
    assert balance.modulate(tiny) == {}  # scores are of one step


def test_noise_has_the_gradients_deviation(tiny):
    for weight in tiny.parameters():
        weight.grad = torch.randn_like(weight) * 3 + 100
    name = "joint_encoder.text_encoder.model.embeddings.word_embeddings.weight"
    weight = tiny.get_parameter(name)
    before = weight.grad.clone()
    balance = OgmGe(alpha=0.5)
    balance.scores = {"audio": 1.0, "text": 2.0}
    k = balance.modulate(tiny)["text"]
    noise = weight.grad - k * before
    assert float(noise.mean()) == pytest.approx(0, abs=0.15)
    assert float(noise.std()) == pytest.approx(float(before.std()), rel=0.05)
    assert (tiny.head.classifier.weight.grad > 80).all()  # no modality's


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        (
            {"nosuch": 1.0},
            "objectives='nosuch' does not exist; accepted: contrastive, supervised",
        ),
        ({"contrastive": 0}, "objectives.contrastive.weight is 0; accepted: a number above 0"),
        ({"contrastive": "much"}, "objectives.contrastive.weight is 'much'; accepted: a number above 0"),
        ({"contrastive": {"weight": 1, "heat": 2}}, "objectives.contrastive='heat' does not exist; accepted"),
        (
            {"contrastive": {"temperature": 0.1}},
            "objectives.contrastive lacks weight; accepted: a number",
        ),
        ({"auxiliary_heads": 1, "ogm_ge": {"alpha": 1, "noise": 3}}, "noise is 3; accepted: true or false"),
        ({"ogm_ge": 0.3}, "ogm_ge compares the modalities by auxiliary_heads: give both"),
    ],
)
def test_what_is_wrong_with_objectives_is_named(objectives, message):
    with pytest.raises(ValueError, match=message):
        check_objectives(objectives)


def test_a_number_is_the_first_setting():
    assert check_objectives({"auxiliary_heads": 0.3, "ogm_ge": 0.5}) == {
        "auxiliary_heads": {"weight": 0.3},
        "ogm_ge": {"alpha": 0.5},
    }

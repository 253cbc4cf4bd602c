"""Fusions: what every one of them keeps to, and parity with the papers' formulas, written out plainly."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from mmsr.model import fusion as fusion_module
from mmsr.model import layers
from mmsr.model.configuration import POOLINGS, MmsrConfig
from mmsr.model.fusion import FUSION_CLASSES, Fused
from mmsr.model.layers import Attention, Gate
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.pooling import POOLING_CLASSES

AUDIO_MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


TEXT_MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])


LATENT_MASK = torch.ones(2, 4, dtype=torch.long)


# mask of each fusion's memory
MASKS = {name: torch.cat([AUDIO_MASK, TEXT_MASK], 1) for name in tuple(FUSION_CLASSES)} | {
    "audio_to_text": TEXT_MASK,
    "text_to_audio": AUDIO_MASK,
    "bottleneck": torch.cat([AUDIO_MASK, TEXT_MASK, LATENT_MASK], 1),
    "text_only": TEXT_MASK,
    "audio_only": AUDIO_MASK,
}


# masks of queries and keys of each of a layer's attentions
ATTENTION_MASKS = {
    "cross_attention": ((TEXT_MASK, AUDIO_MASK), (AUDIO_MASK, TEXT_MASK)),
    "audio_to_text": ((TEXT_MASK, AUDIO_MASK),),
    "text_to_audio": ((AUDIO_MASK, TEXT_MASK),),
    "merged": ((MASKS["merged"], MASKS["merged"]),),
    "mixture": ((MASKS["mixture"], MASKS["mixture"]),),
    "bottleneck": tuple((torch.cat([mask, LATENT_MASK], 1),) * 2 for mask in (TEXT_MASK, AUDIO_MASK)),
}


def config(fusion: str = "cross_attention", attention: str = "eager", **overrides: object) -> MmsrConfig:
    made = MmsrConfig.from_preset("tiny", fusion=fusion, **overrides)
    made._attn_implementation = attention
    return made


def build(fusion: str, attention: str = "eager", **overrides: object) -> nn.Module:
    """A fusion in eval mode none of whose weights is a special one, such as 0 or 1."""
    torch.manual_seed(0)
    module = FUSION_CLASSES[fusion](config(fusion, attention, **overrides)).eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    for buffer in module.buffers():
        nn.init.normal_(buffer, std=0.3)
    return module


@pytest.fixture
def streams() -> tuple[Tensor, Tensor]:
    return torch.randn(2, 5, 32), torch.randn(2, 3, 32)


def test_every_fusion_and_pooling_has_its_name():
    assert set(tuple(FUSION_CLASSES)) == {
        "cross_attention", "audio_to_text", "text_to_audio", "merged", "bottleneck", "gated", "low_rank",
        "film", "concat", "mixture", "text_only", "audio_only",
    }  # fmt: skip
    assert tuple(POOLING_CLASSES) == POOLINGS


@pytest.mark.parametrize("fusion", tuple(FUSION_CLASSES))
@pytest.mark.parametrize("layers", [1, 2])
def test_one_signature(streams: tuple[Tensor, Tensor], fusion: str, layers: int):
    """The memory is what the fusion says, its mask goes with it, and attentions come per layer."""
    settings = config(fusion, fusion_layers=layers)
    audio, text = streams
    module = FUSION_CLASSES[fusion](settings).eval()
    memory, mask, attentions, *gates = module(
        audio if settings.uses_audio else None, AUDIO_MASK, text if settings.uses_text else None, TEXT_MASK
    )
    assert torch.equal(mask, MASKS[fusion])
    assert memory.shape == (*mask.shape, 32)
    assert len(attentions) == (layers if fusion in ATTENTION_MASKS else 0)
    assert [one.shape for one in gates] == ([(2, layers, 4)] if fusion == "mixture" else [])


@pytest.mark.parametrize("fusion", ATTENTION_MASKS)
def test_attentions_are_distributions_over_real_positions(streams: tuple[Tensor, Tensor], fusion: str):
    audio, text = streams
    _, _, attentions, *_ = build(fusion, fusion_layers=2)(audio, AUDIO_MASK, text, TEXT_MASK)
    for layer in attentions:
        for weights, (queries, keys) in zip(layer, ATTENTION_MASKS[fusion], strict=True):
            assert weights.shape == (2, 4, queries.shape[1], keys.shape[1])
            assert_close(weights.sum(-1), torch.ones(weights.shape[:3]))
            hidden = keys[:, None, None].expand_as(weights) == 0
            assert hidden.any() and weights[hidden].max() == 0
    _, _, attentions, *_ = build(fusion, "sdpa")(audio, AUDIO_MASK, text, TEXT_MASK)
    assert set(attentions[0]) == {None}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("fusion", sorted(set(tuple(FUSION_CLASSES)) - {"text_only", "audio_only"}))
def test_masked_positions_change_nothing(streams: tuple[Tensor, Tensor], fusion: str, attention: str):
    """Neither what stands there nor whether they are there; and they get no gradient."""
    module = build(fusion, attention, fusion_layers=2)
    audio, text = (stream.requires_grad_() for stream in streams)
    memory, mask, *_ = module(audio, AUDIO_MASK, text, TEXT_MASK)
    other_audio = torch.where(AUDIO_MASK[:, :, None] == 1, audio, torch.randn(2, 5, 32) * 9)
    other_text = torch.where(TEXT_MASK[:, :, None] == 1, text, torch.randn(2, 3, 32) * 9)
    other, *_ = module(other_audio, AUDIO_MASK, other_text, TEXT_MASK)
    assert_close(other[mask == 1], memory[mask == 1])
    assert not torch.allclose(other[mask == 0], memory[mask == 0])

    for row, frames, tokens in ((0, 5, 2), (1, 3, 3)):
        ones = (torch.ones(1, count, dtype=torch.long) for count in (frames, tokens))
        audio_mask, text_mask = ones
        alone, *_ = module(audio[row : row + 1, :frames], audio_mask, text[row : row + 1, :tokens], text_mask)
        assert_close(alone[0], memory[row, mask[row] == 1], atol=1e-5, rtol=1e-4)

    (memory[mask == 1] ** 3).sum().backward()
    for stream, stream_mask in ((audio, AUDIO_MASK), (text, TEXT_MASK)):
        assert stream.grad is not None
        assert stream.grad[stream_mask == 0].abs().max() == 0
        assert (stream.grad[stream_mask == 1].abs().amax(-1) > 0).all()


@pytest.mark.parametrize("fusion", tuple(FUSION_CLASSES))
@torch.no_grad()
def test_every_position_of_the_memory_reacts_to_what_the_fusion_uses(
    streams: tuple[Tensor, Tensor], fusion: str
):
    """After two layers, since a bottleneck's streams meet in the second."""
    module = build(fusion, fusion_layers=2)
    settings = config(fusion)
    audio, text = streams
    plain, mask, *_ = module(audio, AUDIO_MASK, text, TEXT_MASK)
    for other, used in (((-2 * audio, text), settings.uses_audio), ((audio, -2 * text), settings.uses_text)):
        memory, *_ = module(other[0], AUDIO_MASK, other[1], TEXT_MASK)
        moved = (memory - plain).abs().amax(-1)[mask == 1]
        assert moved.min() > 1e-3 if used else moved.max() == 0


def linear(layer: nn.Linear, states: Tensor) -> Tensor:
    out = states @ layer.weight.T
    return out if layer.bias is None else out + layer.bias


def norm(layer: nn.LayerNorm, states: Tensor) -> Tensor:
    centred = states - states.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.weight + layer.bias


def feed_forward(block: nn.Sequential, states: Tensor) -> Tensor:
    hidden = linear(block[1], norm(block[0], states))
    return linear(block[4], hidden * (1 + torch.erf(hidden / 2**0.5)) / 2)


def attend(module: Attention, query: Tensor, memory: Tensor) -> Tensor:
    """`query [q, d]` to `memory [k, d]`, head by head (Vaswani et al. 2017, arXiv 1706.03762)."""
    q, k, v = linear(module.q_proj, query), linear(module.k_proj, memory), linear(module.v_proj, memory)
    heads = []
    for head in range(4):
        part = slice(8 * head, 8 * head + 8)
        heads.append((q[:, part] @ k[:, part].T / 8**0.5).softmax(-1) @ v[:, part])
    return linear(module.o_proj, torch.cat(heads, -1))


def cross_layer(layer: fusion_module.CrossAttentionLayer, stream: Tensor, other: Tensor) -> Tensor:
    """MulT's equations of a crossmodal block, pre-norm: attend and add, feed forward and add."""
    stream = stream + attend(layer.attention, norm(layer.norm1, stream), norm(layer.norm2, other))
    return stream + feed_forward(layer.feed_forward, stream)


def self_layer(layer: fusion_module.SelfAttentionLayer, states: Tensor) -> Tensor:
    normed = norm(layer.norm, states)
    states = states + attend(layer.attention, normed, normed)
    return states + feed_forward(layer.feed_forward, states)


def refined(module: fusion_module.OneStream, stream: Tensor) -> Tensor:
    for layer in module.layers:
        stream = stream + feed_forward(layer, stream)
    return norm(module.norm, stream)


def plain_cross_attention(module: fusion_module.CrossAttentionFusion, audio: Tensor, text: Tensor) -> Tensor:
    for text_layer, audio_layer in zip(module.text_layers, module.audio_layers, strict=True):
        audio, text = cross_layer(audio_layer, audio, text), cross_layer(text_layer, text, audio)
    return torch.cat([audio, text])


def plain_audio_to_text(module: fusion_module.AudioToText, audio: Tensor, text: Tensor) -> Tensor:
    for layer in module.layers:
        text = cross_layer(layer, text, audio)
    return text


def plain_text_to_audio(module: fusion_module.TextToAudio, audio: Tensor, text: Tensor) -> Tensor:
    for layer in module.layers:
        audio = cross_layer(layer, audio, text)
    return audio


def plain_merged(module: fusion_module.MergedFusion, audio: Tensor, text: Tensor) -> Tensor:
    states = torch.cat([audio + module.modality.weight[0], text + module.modality.weight[1]])
    for layer in module.layers:
        states = self_layer(layer, states)
    return states


def plain_bottleneck(module: fusion_module.BottleneckFusion, audio: Tensor, text: Tensor) -> Tensor:
    """MBT: [z_i, z_fsn_i] = Transformer_i([z_i, z_fsn]) of each modality i; z_fsn = mean of z_fsn_i."""
    latent = module.bottlenecks.weight
    count = len(latent)
    for text_layer, audio_layer in zip(module.text_layers, module.audio_layers, strict=True):
        joint_audio = self_layer(audio_layer, torch.cat([audio, latent]))
        joint_text = self_layer(text_layer, torch.cat([text, latent]))
        audio, text = joint_audio[:-count], joint_text[:-count]
        latent = torch.stack([joint_audio[-count:], joint_text[-count:]]).mean(0)
    return torch.cat([audio, text, latent])


def plain_mixture(module: fusion_module.MixtureFusion, audio: Tensor, text: Tensor) -> Tensor:
    """x + FFN of its modality (VLMo) + Σ g_i FFN_i; g_i = σ(w_i u) for the two greatest σ(w_i u) + b_i."""
    frames = len(audio)
    states = torch.cat([audio + module.modality.weight[0], text + module.modality.weight[1]])
    for gate, layer in zip(module.gates, module.layers, strict=True):
        utterance = torch.cat([states[:frames].mean(0), states[frames:].mean(0)])
        utterance = (utterance - utterance.mean()) / (utterance.var(correction=0) + 1e-5).sqrt()
        scores = [float((row @ utterance).sigmoid()) for row in gate.weight]
        biased = [score + float(bias) for score, bias in zip(scores, gate.choice_bias, strict=True)]
        chosen = sorted(range(4), key=lambda expert: biased[expert])[2:]
        normed = norm(layer.norm, states)
        states = states + attend(layer.attention, normed, normed)
        own = [
            feed_forward(layer.audio_expert, states[:frames]),
            feed_forward(layer.text_expert, states[frames:]),
        ]
        experts, width = layer.routed_experts, 37 // 3
        added = torch.zeros_like(states) + experts.down_proj.bias
        for expert in chosen:
            part = slice(width * expert, width * (expert + 1))
            hidden = norm(experts.norm, states) @ experts.up_proj.weight[part].T + experts.up_proj.bias[part]
            hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
            added = added + scores[expert] * (hidden @ experts.down_proj.weight[:, part].T)
        states = states + torch.cat(own) + added
    return states


def plain_gated(module: fusion_module.GatedFusion, a: Tensor, t: Tensor) -> Tensor:
    """GMU: h_v = tanh(W_v x_v), h_t = tanh(W_t x_t), z = σ(W_z [x_v, x_t]), h = z * h_v + (1 - z) * h_t."""
    h_v, h_t = (module.audio_hidden.weight @ a).tanh(), (module.text_hidden.weight @ t).tanh()
    z = (module.gate.weight @ torch.cat([a, t])).sigmoid()
    return z * h_v + (1 - z) * h_t


def plain_low_rank(module: fusion_module.LowRankFusion, a: Tensor, t: Tensor) -> Tensor:
    """LMF, equations 2 to 5, before they are made cheap: h = W · Z, with Z the outer product of [a; 1] and
    [t; 1], and W the sum over r of the outer products of the modalities' factors."""
    one = torch.ones(1)
    outer = torch.outer(torch.cat([a, one]), torch.cat([t, one]))
    tensor = torch.zeros(32, 33, 33)
    for r in range(module.rank):
        audio, text = (
            factors.weight[32 * r : 32 * r + 32] for factors in (module.audio_factors, module.text_factors)
        )
        tensor = tensor + torch.einsum("di,dj->dij", audio, text)
    return torch.einsum("dij,ij->d", tensor, outer)


def plain_film(module: fusion_module.FilmFusion, a: Tensor, t: Tensor) -> Tensor:
    """FiLM: γ * a + β, with γ = 1 + Δγ; Δγ and β are one linear function of the text."""
    scale, shift = module.modulation.weight[:32], module.modulation.weight[32:]
    gamma, beta = 1 + scale @ t + module.modulation.bias[:32], shift @ t + module.modulation.bias[32:]
    return gamma * a + beta


def plain_concat(module: fusion_module.ConcatFusion, a: Tensor, t: Tensor) -> Tensor:
    return linear(module.projection, torch.cat([a, t]))


SEQUENCES: dict[str, Callable[..., Tensor]] = {
    "cross_attention": plain_cross_attention,
    "audio_to_text": plain_audio_to_text,
    "text_to_audio": plain_text_to_audio,
    "merged": plain_merged,
    "bottleneck": plain_bottleneck,
    "mixture": plain_mixture,
}


FORMULAS: dict[str, Callable[..., Tensor]] = {
    "gated": plain_gated,
    "low_rank": plain_low_rank,
    "film": plain_film,
    "concat": plain_concat,
}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("fusion", SEQUENCES)
@torch.no_grad()
def test_attention_over_sequences_is_the_papers(streams: tuple[Tensor, Tensor], fusion: str, attention: str):
    """Row by row over the real positions alone, two layers deep."""
    module = build(fusion, attention, fusion_layers=2)
    audio, text = streams
    memory, mask, *_ = module(audio, AUDIO_MASK, text, TEXT_MASK)
    for row in range(2):
        plain = SEQUENCES[fusion](module, audio[row, AUDIO_MASK[row] == 1], text[row, TEXT_MASK[row] == 1])
        assert_close(memory[row, mask[row] == 1], norm(module.norm, plain), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("fusion", FORMULAS)
@torch.no_grad()
def test_every_position_is_the_papers_formula_of_it_and_the_other_mean(
    streams: tuple[Tensor, Tensor], fusion: str
):
    module = build(fusion, fusion_layers=2, fusion_rank=3)
    audio, text = streams
    memory, mask, *_ = module(audio, AUDIO_MASK, text, TEXT_MASK)
    for row in range(2):
        frames = refined(module.audio_branch, audio[row, AUDIO_MASK[row] == 1])
        tokens = refined(module.text_branch, text[row, TEXT_MASK[row] == 1])
        heard = [FORMULAS[fusion](module, frame, tokens.mean(0)) for frame in frames]
        read = [FORMULAS[fusion](module, frames.mean(0), token) for token in tokens]
        expected = norm(module.norm, torch.stack([*heard, *read]))
        assert_close(memory[row, mask[row] == 1], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("fusion", ["low_rank", "film", "concat"])
@torch.no_grad()
def test_the_mean_of_either_half_is_the_formula_of_both_means(streams: tuple[Tensor, Tensor], fusion: str):
    """So the head pools the paper's utterance vector; without the closing norm, which is not affine."""
    module = build(fusion)
    module.norm = nn.Identity()
    audio, text = streams
    memory, *_ = module(audio, torch.ones(2, 5), text, torch.ones(2, 3))
    for row in range(2):
        means = (
            refined(module.audio_branch, audio[row]).mean(0),
            refined(module.text_branch, text[row]).mean(0),
        )
        expected = FORMULAS[fusion](module, *means)
        assert_close(memory[row, :5].mean(0), expected, atol=1e-4, rtol=1e-4)
        assert_close(memory[row, 5:].mean(0), expected, atol=1e-4, rtol=1e-4)


def test_one_layer_of_bottlenecks_fuses_in_its_tokens_alone(streams: tuple[Tensor, Tensor]):
    """As in the paper: what a token heard of one stream, the other reads a layer later."""
    module = build("bottleneck", fusion_bottlenecks=2)
    audio, text = streams
    memory, mask, *_ = module(audio, AUDIO_MASK, text, TEXT_MASK)
    assert memory.shape == (2, 5 + 3 + 2, 32) and mask[:, 8:].all()
    other, *_ = module(audio, AUDIO_MASK, text * -2.0, TEXT_MASK)
    moved = (other - memory).abs().amax(-1)
    assert moved[:, :5].max() == 0 and moved[:, 5:].min() > 1e-3


def test_a_fresh_models_fusion_starts_as_the_papers_do():
    """Bottlenecks and modalities from a normal of deviation .02, factors (the 1's too) by Xavier."""

    def fresh(fusion: str) -> nn.Module:
        settings = MmsrConfig.from_preset("tiny", fusion=fusion, hidden_size=256, fusion_bottlenecks=64)
        return MmsrForSentimentReasoning(settings).encoder.fusion

    for table in (fresh("bottleneck").bottlenecks.weight, fresh("merged").modality.weight):
        assert_close(table.std().item(), 0.02, atol=2e-3, rtol=0)
    factors = fresh("low_rank").audio_factors.weight
    assert factors.shape == (4 * 256, 257)
    assert_close(factors.std().item(), (2 / (4 * 256 + 257)) ** 0.5, atol=1e-3, rtol=0)
    assert factors[:, -1].abs().min() > 0


class Sum(nn.Module):
    """The smallest fusion: both streams, each position plus one learned vector."""

    def __init__(self, config: MmsrConfig) -> None:
        super().__init__()
        self.shift = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, audio: Tensor, audio_mask: Tensor, text: Tensor, text_mask: Tensor) -> Fused:
        return self.shift(torch.cat([audio, text], 1)), torch.cat([audio_mask, text_mask], 1), ()


def test_a_new_fusion_is_one_class_and_one_line(
    monkeypatch: pytest.MonkeyPatch,
    make_model: Callable[..., MmsrForSentimentReasoning],
    ragged: dict[str, Tensor],
    labels: Tensor,
    tmp_path: Path,
):
    """The whole model learns, writes, saves and comes back with it; without the line, its name raises."""
    with monkeypatch.context() as patch:
        patch.setitem(FUSION_CLASSES, "sum", Sum)
        model = make_model(fusion="sum")
        output = model(**ragged, labels=labels, sentiment_labels=torch.tensor([0, 1, 2]))
        output.loss.backward()
        assert model.encoder.fusion.shift.weight.grad.abs().max() > 0
        sequences = model.generate(**ragged, max_new_tokens=4)  # type: ignore[misc]
        assert len(sequences) == 3
        model.save_pretrained(tmp_path)
        loaded = MmsrForSentimentReasoning.from_pretrained(tmp_path)
        assert type(loaded.encoder.fusion) is Sum
        again = loaded(**ragged, labels=labels)
        assert torch.equal(again.sentiment_logits, output.sentiment_logits)
        assert torch.equal(again.logits, output.logits)
    with pytest.raises(
        ValueError, match="fusion='sum' does not exist; accepted: cross_attention, audio_to_t"
    ):
        MmsrForSentimentReasoning.from_pretrained(tmp_path)


@pytest.mark.parametrize("fusion", tuple(FUSION_CLASSES))
def test_gradient_checkpointing_covers_the_fusions_layers(
    make_model: Callable[..., MmsrForSentimentReasoning], batch: dict[str, Tensor], fusion: str
):
    """Each runs again in the backward pass, and the gradient stays."""
    model = make_model(fusion=fusion, fusion_layers=2, rationale_format="none", dropout=0.0).train()
    layers = [
        layer
        for stack in model.encoder.fusion.modules()
        if isinstance(stack, nn.ModuleList)
        for layer in stack
        if not isinstance(layer, Gate)  # which counts, and so runs once
    ]
    runs: list[nn.Module] = []
    for layer in layers:
        first = next(part for part in layer.modules() if isinstance(part, nn.Linear))
        first.register_forward_pre_hook(lambda part, _: runs.append(part))
    gradients = []
    for enable in (False, True):
        if enable:
            model.gradient_checkpointing_enable()
        runs.clear()
        model.zero_grad()
        torch.manual_seed(0)
        model(**batch, sentiment_labels=torch.tensor([0, 1, 2])).loss.backward()
        assert len(runs) == len(layers) * (1 + enable)
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert_close(gradients[1], gradients[0])


def test_attention_weights_are_dropped_in_training_alone():
    query, key = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 5, 4)
    module = torch.nn.Module()
    _, dropped = layers.eager_attention(module.train(), query, key, key, None, dropout=0.5)
    _, kept = layers.eager_attention(module.eval(), query, key, key, None, dropout=0.5)
    assert (dropped == 0).any() and (kept > 0).all()


def test_the_fusion_that_the_documentation_adds_works(monkeypatch: pytest.MonkeyPatch):
    """One class and one line, as docs/howto/fusion.md shows them."""
    page = (Path(__file__).parents[2] / "docs" / "howto" / "fusion.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "FUSION_CLASSES" in block)
    monkeypatch.setattr(fusion_module, "FUSION_CLASSES", fusion_module.FUSION_CLASSES.copy())
    exec(code, namespace := {})
    assert set(fusion_module.FUSION_CLASSES) == {*FUSION_CLASSES, "sum"}
    settings = config("sum")
    audio, text = torch.randn(2, 5, 32), torch.randn(2, 3, 32)
    memory, mask, _ = namespace["Sum"](settings)(audio, AUDIO_MASK, text, TEXT_MASK)
    assert torch.equal(mask, TEXT_MASK)
    half = namespace["Sum"](settings).bfloat16()
    assert half(audio.bfloat16(), AUDIO_MASK, text.bfloat16(), TEXT_MASK)[0].dtype == torch.bfloat16
    assert_close(memory[1, 0], nn.functional.layer_norm(text[1, 0] + audio[1, :3].mean(0), (32,)))

"""Fusion: how the audio frames and the transcript's tokens become one memory.

A fusion is a class in `FUSION_CLASSES`, with the signature

    (audio [b, f, d], audio_mask [b, f], text [b, t, d], text_mask [b, t])
        -> (memory [b, m, d], memory_mask [b, m], attentions: tuple with one entry per layer)

A fusion of experts (`mixture`) returns the weights of its gates `[b, layers, e]` as a fourth value.

Masks: 1 = real. Shapes: b batch, f audio frames, t text tokens, m memory, h heads, l latent (bottleneck)
tokens, r rank, e experts, d width. A row without a modality has one learned vector in its place. A fusion of
one modality declares it in `modalities`. A fusion with attentions declares in `attention_map`, for each of a
layer's weights, what its queries and its keys are: "audio", "text", "latents", in order.

| name | idea | memory | paper |
|---|---|---|---|
| `cross_attention` | each stream attends to the other | [A; T] | MulT, Tsai et al. 2019, arXiv 1906.00295 |
| `audio_to_text` | text attends to audio | T | one direction of MulT |
| `text_to_audio` | audio attends to text | A | one direction of MulT |
| `merged` | self-attention over both as one sequence | [A; T] | METER, Dou et al. 2022, arXiv 2111.02387 |
| `bottleneck` | streams meet in few latent tokens | [A; T; L] | MBT, Nagrani et al. 2021, arXiv 2107.00135 |
| `mixture` | `merged`, by experts that a gate chooses | [A; T] | VLMo, Bao et al. 2021, arXiv 2111.02358 |
| `gated` | a gate weighs one against the other | [A; T] | GMU, Arevalo et al. 2017, arXiv 1702.01992 |
| `low_rank` | products of the two, of low rank | [A; T] | LMF, Liu et al. 2018, arXiv 1806.00064 |
| `film` | text scales and shifts audio | [A; T] | FiLM, Perez et al. 2018, arXiv 1709.07871 |
| `concat` | one linear layer over both | [A; T] | late fusion, Baltrušaitis et al. 2019, arXiv 1705.09406 |
| `text_only`, `audio_only` | controls | T, A | |

`gated`, `low_rank`, `film` and `concat` are formulas F(a, t) over one vector per modality, but the rationale
decoder attends to positions. So they evaluate F at every position, against the mean of the other stream: the
memory is [F(A_i, mean T); F(mean A, T_j)], and all that the head pools has passed through F. Since F (but for
`gated`) is affine in each argument, the mean over either half is, up to the closing norm, F(mean A, mean T):
the paper's formula over the utterance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from einops import reduce
from torch import Tensor, nn

from mmsr.model.layers import (
    CrossAttentionLayer,
    FeedForwardLayer,
    FusionConfig,
    Gate,
    MixtureLayer,
    SelfAttentionLayer,
)
from mmsr.model.pooling import MeanPooling

Attentions = tuple[tuple[Tensor | None, ...], ...]
Fused = tuple[Tensor, Tensor, Attentions]
FusedByExperts = tuple[Tensor, Tensor, Attentions, Tensor]
AttentionMap = tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
"""Queries and keys of each of the weights that a layer returns."""


class CrossAttentionFusion(nn.Module):
    """Cross-attention in both directions; the memory is both enriched streams, audio first.

    The crossmodal transformer of MulT (Tsai et al. 2019, arXiv 1906.00295). Deviation: the streams are joined
    along time, not along width, so that the rationale decoder can attend to frames and words.

        A ──► A attends T ──► A' ─┐
               ╲ ╱                ├─► memory = [A'; T']
               ╱ ╲                │
        T ──► T attends A ──► T' ─┘

    `attentions`: per layer (weights of the text's queries over the audio `[b, h, t, f]`, of the audio's over
        the text `[b, h, f, t]`).
    """

    attention_map = ((("text",), ("audio",)), (("audio",), ("text",)))

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.text_layers = nn.ModuleList(CrossAttentionLayer(config) for _ in range(config.fusion_layers))
        self.audio_layers = nn.ModuleList(CrossAttentionLayer(config) for _ in range(config.fusion_layers))
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, audio: Tensor, audio_mask: Tensor, text: Tensor, text_mask: Tensor) -> Fused:
        """Fuse both streams; see the module's docstring for shapes."""
        attentions = []
        for text_layer, audio_layer in zip(self.text_layers, self.audio_layers, strict=True):
            enriched_text, text_weights = text_layer(text, audio, audio_mask)
            audio, audio_weights = audio_layer(audio, text, text_mask)
            text = enriched_text
            attentions.append((text_weights, audio_weights))
        memory = self.norm(torch.cat([audio, text], dim=1))
        return memory, torch.cat([audio_mask, text_mask], dim=1), tuple(attentions)


class OneDirection(nn.Module):
    """Layers in which one stream attends to the other."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CrossAttentionLayer(config) for _ in range(config.fusion_layers))
        self.norm = nn.LayerNorm(config.hidden_size)

    def enrich(self, stream: Tensor, other: Tensor, other_mask: Tensor) -> tuple[Tensor, Attentions]:
        """`stream [b, n, d]` enriched by `other [b, k, d]`, and per layer weights `[b, h, n, k]`."""
        attentions = []
        for layer in self.layers:
            stream, weights = layer(stream, other, other_mask)
            attentions.append((weights,))
        return self.norm(stream), tuple(attentions)


class AudioToText(OneDirection):
    """Text attends to audio; the memory is the enriched text.

    MulT's crossmodal transformer A → T (Tsai et al. 2019, arXiv 1906.00295), named after the way of the
    information. All layers attend to the same audio.

        A ────────┐ keys, values
                  ▼
        T ──► T attends A ──► T' = memory

    `attentions`: per layer (weights of the text's queries over the audio `[b, h, t, f]`,).
    """

    attention_map = ((("text",), ("audio",)),)

    def forward(self, audio: Tensor, audio_mask: Tensor, text: Tensor, text_mask: Tensor) -> Fused:
        """Enrich the text by the audio; see the module's docstring for shapes."""
        memory, attentions = self.enrich(text, audio, audio_mask)
        return memory, text_mask, attentions


class TextToAudio(OneDirection):
    """Audio attends to text; the memory is the enriched audio. MulT's crossmodal transformer T → A.

        A ──► A attends T ──► A' = memory
                  ▲
        T ────────┘ keys, values

    `attentions`: per layer (weights of the audio's queries over the text `[b, h, f, t]`,).
    """

    attention_map = ((("audio",), ("text",)),)

    def forward(self, audio: Tensor, audio_mask: Tensor, text: Tensor, text_mask: Tensor) -> Fused:
        """Enrich the audio by the text; see the module's docstring for shapes."""
        memory, attentions = self.enrich(audio, text, text_mask)
        return memory, audio_mask, attentions


class MergedFusion(nn.Module):
    """Self-attention over both streams as one sequence, audio first, with a learned vector per modality.

    The merged attention of METER (Dou et al. 2022, arXiv 2111.02387), also called single-stream.

        A + e_audio ─┐
                     ├─► [A; T] ──► self-attention ──► memory = [A'; T']
        T + e_text ──┘

    `attentions`: per layer (weights `[b, h, f + t, f + t]`,).
    """

    attention_map = ((("audio", "text"), ("audio", "text")),)

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.modality = nn.Embedding(2, config.hidden_size)
        self.layers = nn.ModuleList(SelfAttentionLayer(config) for _ in range(config.fusion_layers))
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, audio: Tensor, audio_mask: Tensor, text: Tensor, text_mask: Tensor) -> Fused:
        """Fuse both streams; see the module's docstring for shapes."""
        is_audio, is_text = self.modality.weight
        memory = torch.cat([audio + is_audio, text + is_text], dim=1)
        mask = torch.cat([audio_mask, text_mask], dim=1)
        attentions = []
        for layer in self.layers:
            memory, weights = layer(memory, mask)
            attentions.append((weights,))
        return self.norm(memory), mask, tuple(attentions)


class BottleneckFusion(nn.Module):
    """Each stream attends to itself and to a few latent tokens, which carry information between the two.

    MBT (Nagrani et al. 2021, arXiv 2107.00135): every stream has its own layers and updates its own copy of
    the bottleneck tokens L; the mean of both copies enters the next layer.

        A ─► [A; L] ─► self-attention ─► A', L_audio ─┐
                 ▲                                    ├─► L' = mean ─► next layer ─► memory = [A'; T'; L']
                 L                                    │
                 ▼                                    │
        T ─► [T; L] ─► self-attention ─► T', L_text ──┘

    Deviation: the memory ends with the bottleneck tokens, in place of MBT's CLS tokens; with one layer
    nothing else would be fused.

    `attentions`: per layer (weights of text and latents `[b, h, t + l, t + l]`, of audio and latents
        `[b, h, f + l, f + l]`).
    """

    attention_map = ((("text", "latents"), ("text", "latents")), (("audio", "latents"), ("audio", "latents")))

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.bottlenecks = nn.Embedding(config.fusion_bottlenecks, config.hidden_size)
        self.text_layers = nn.ModuleList(SelfAttentionLayer(config) for _ in range(config.fusion_layers))
        self.audio_layers = nn.ModuleList(SelfAttentionLayer(config) for _ in range(config.fusion_layers))
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, audio: Tensor, audio_mask: Tensor, text: Tensor, text_mask: Tensor) -> Fused:
        """Fuse both streams; see the module's docstring for shapes."""
        frames, tokens = audio.shape[1], text.shape[1]
        shared = self.bottlenecks.weight.expand(len(audio), -1, -1)
        shared_mask = audio_mask.new_ones(shared.shape[:2])
        audio_keys, text_keys = (torch.cat([mask, shared_mask], dim=1) for mask in (audio_mask, text_mask))
        attentions = []
        for text_layer, audio_layer in zip(self.text_layers, self.audio_layers, strict=True):
            text_states, text_weights = text_layer(torch.cat([text, shared], dim=1), text_keys)
            audio_states, audio_weights = audio_layer(torch.cat([audio, shared], dim=1), audio_keys)
            text, audio = text_states[:, :tokens], audio_states[:, :frames]
            shared = (text_states[:, tokens:] + audio_states[:, frames:]) / 2
            attentions.append((text_weights, audio_weights))
        memory = self.norm(torch.cat([audio, text, shared], dim=1))
        return memory, torch.cat([audio_mask, text_mask, shared_mask], dim=1), tuple(attentions)


class MixtureFusion(nn.Module):
    """`merged` with a mixture of experts in place of each feed-forward block.

    The self-attention over both streams and the expert of each modality are VLMo's (Bao et al. 2021, arXiv
    2111.02358). Beside them `fusion_active_experts` of `fusion_experts` routed experts, which both modalities
    share, are added, as beside the shared experts of DeepSeekMoE (Dai et al. 2024, arXiv 2401.06066).

        A + e_audio ─┐                             ┌─► audio's expert ─┐
                     ├─► [A; T] ─► self-attention ─┼─► text's expert  ─┼─► + ─► memory = [A'; T']
        T + e_text ──┘     │                       └─► expert 1 ... e ─┘
                           └─► [mean A; mean T] ─► gate ──────┘

    Deviation: a gate reads the mean of each stream that enters its layer, and so chooses once for a whole
    utterance, not for each position. Where a modality is absent, its mean is its absent state. The loads are
    balanced by a bias of the choice (`Gate`), not by an auxiliary loss, which is a product of means over a
    batch: the losses here are means over the targets of a step, however its rows are batched.

    `attentions`: per layer (weights `[b, h, f + t, f + t]`,).
    """

    attention_map = ((("audio", "text"), ("audio", "text")),)

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.experts = config.fusion_experts
        self.modality = nn.Embedding(2, config.hidden_size)
        self.pooling = MeanPooling(config)
        # not in the layers, which gradient checkpointing runs twice: a gate counts
        self.gates = nn.ModuleList(Gate(config, 2 * config.hidden_size) for _ in range(config.fusion_layers))
        self.layers = nn.ModuleList(MixtureLayer(config) for _ in range(config.fusion_layers))
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, audio: Tensor, audio_mask: Tensor, text: Tensor, text_mask: Tensor) -> FusedByExperts:
        """Fuse both streams; see the module's docstring for shapes."""
        frames = audio.shape[1]
        is_audio, is_text = self.modality.weight
        memory = torch.cat([audio + is_audio, text + is_text], dim=1)
        mask = torch.cat([audio_mask, text_mask], dim=1)
        attentions, weights = [], [memory.new_zeros(len(memory), 0, self.experts)]
        for gate, layer in zip(self.gates, self.layers, strict=True):
            mean_audio = self.pooling(memory[:, :frames].float(), audio_mask)
            mean_text = self.pooling(memory[:, frames:].float(), text_mask)
            chosen = gate(torch.cat([mean_audio, mean_text], dim=-1))
            memory, attention = layer(memory, mask, chosen, frames)
            attentions.append((attention,))
            weights.append(chosen[:, None])
        return self.norm(memory), mask, tuple(attentions), torch.cat(weights, dim=1)


class OneStream(nn.Module):
    """Feed-forward layers over one stream, so that fusions without attention are as deep as the others."""

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FeedForwardLayer(config) for _ in range(config.fusion_layers))
        self.norm = nn.LayerNorm(config.hidden_size)

    def refine(self, stream: Tensor) -> Tensor:
        """Feed-forward layers with residuals, `[b, n, d] -> [b, n, d]`."""
        for layer in self.layers:
            stream = stream + layer(stream)
        return self.norm(stream)


class TextOnly(OneStream):
    """The transcript alone, a control: memory = T."""

    modalities = ("text",)

    def forward(
        self, audio: Tensor | None, audio_mask: Tensor | None, text: Tensor, text_mask: Tensor
    ) -> Fused:
        """Refine the transcript's states."""
        return self.refine(text), text_mask, ()


class AudioOnly(OneStream):
    """The audio alone, a control: memory = A."""

    modalities = ("audio",)

    def forward(
        self, audio: Tensor, audio_mask: Tensor, text: Tensor | None, text_mask: Tensor | None
    ) -> Fused:
        """Refine the audio's states."""
        return self.refine(audio), audio_mask, ()


class PairFusion(nn.Module, ABC):
    """Base of the formulas F over two vectors: F at every position, against the mean of the other stream.

        A ─► layers ─► A_i ─────┬───────► F(A_i, mean T) ─┐
                                └► mean A ─┐              ├─► norm ─► memory
                                ┌► mean T  ▼              │
        T ─► layers ─► T_j ─────┴───────► F(mean A, T_j) ─┘

    The layers before F are each modality's own (LMF's unimodal subnetworks). `attentions` is empty.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.text_branch = OneStream(config)
        self.audio_branch = OneStream(config)
        self.pooling = MeanPooling(config)
        self.norm = nn.LayerNorm(config.hidden_size)

    @abstractmethod
    def fuse(self, audio: Tensor, text: Tensor) -> Tensor:
        """The formula F over the last axis, `[..., d]` and `[..., d]` -> `[..., d]`."""

    def forward(self, audio: Tensor, audio_mask: Tensor, text: Tensor, text_mask: Tensor) -> Fused:
        """Fuse both streams; see the module's docstring for shapes."""
        audio, text = self.audio_branch.refine(audio), self.text_branch.refine(text)
        mean_audio = self.pooling(audio, audio_mask)[:, None]
        mean_text = self.pooling(text, text_mask)[:, None]
        at_audio = self.fuse(audio, mean_text.expand_as(audio))
        at_text = self.fuse(mean_audio.expand_as(text), text)
        memory = self.norm(torch.cat([at_audio, at_text], dim=1))
        return memory, torch.cat([audio_mask, text_mask], dim=1), ()


class GatedFusion(PairFusion):
    """Gated multimodal unit (GMU, Arevalo et al. 2017, arXiv 1702.01992).

        a ─► tanh W_a a ───────────────► * z ──────┐
        [a; t] ─► z = sigmoid W_z [a; t]           + ─► F(a, t)
        t ─► tanh W_t t ───────────────► * (1 - z) ┘

    Without biases, as in the paper.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.audio_hidden = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.text_hidden = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.gate = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)

    def fuse(self, audio: Tensor, text: Tensor) -> Tensor:
        """F = z * tanh(W_a a) + (1 - z) * tanh(W_t t)."""
        gate = torch.sigmoid(self.gate(torch.cat([audio, text], dim=-1)))
        audio, text = torch.tanh(self.audio_hidden(audio)), torch.tanh(self.text_hidden(text))
        return gate * audio + (1 - gate) * text


class LowRankFusion(PairFusion):
    """Low-rank multimodal fusion (LMF, Liu et al. 2018, arXiv 1806.00064) of rank `config.fusion_rank`.

        [a; 1] ─► r projections ─┐
                                 * ─► sum over r ─► F(a, t)
        [t; 1] ─► r projections ─┘

    Products of all elements of audio and text, weighted by a tensor of low rank; the appended 1 adds each
    modality alone. Without the paper's output bias, which the product of the two 1s replaces.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.rank = config.fusion_rank
        size = config.hidden_size
        self.audio_factors = nn.Linear(size + 1, self.rank * size, bias=False)
        self.text_factors = nn.Linear(size + 1, self.rank * size, bias=False)

    def fuse(self, audio: Tensor, text: Tensor) -> Tensor:
        """F = sum over r of (W_a^r [a; 1]) * (W_t^r [t; 1])."""
        audio = self.audio_factors(nn.functional.pad(audio, (0, 1), value=1.0))
        text = self.text_factors(nn.functional.pad(text, (0, 1), value=1.0))
        return reduce(audio * text, "... (r d) -> ... d", "sum", r=self.rank)


class FilmFusion(PairFusion):
    """Feature-wise linear modulation (FiLM, Perez et al. 2018, arXiv 1709.07871): text modulates audio.

        a ──────────────────────► * γ ─► + β ─► F(a, t)
                                  ▲      ▲
        t ─► linear ─► 1 + Δγ, β ─┴──────┘

    As in the paper, the scale is learned as its difference Δγ from 1.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.modulation = nn.Linear(config.hidden_size, 2 * config.hidden_size)

    def fuse(self, audio: Tensor, text: Tensor) -> Tensor:
        """F = γ(t) * a + β(t)."""
        scale, shift = self.modulation(text).chunk(2, dim=-1)
        return (1 + scale) * audio + shift


class ConcatFusion(PairFusion):
    """Late fusion by concatenation, the baseline (survey: Baltrušaitis et al. 2019, arXiv 1705.09406).

    a ─┐
       ├─► W [a; t] + b ─► F(a, t)
    t ─┘
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.projection = nn.Linear(2 * config.hidden_size, config.hidden_size)

    def fuse(self, audio: Tensor, text: Tensor) -> Tensor:
        """F = W [a; t] + b."""
        return self.projection(torch.cat([audio, text], dim=-1))


FUSION_CLASSES: dict[str, type[nn.Module]] = {
    "cross_attention": CrossAttentionFusion,
    "audio_to_text": AudioToText,
    "text_to_audio": TextToAudio,
    "merged": MergedFusion,
    "bottleneck": BottleneckFusion,
    "mixture": MixtureFusion,
    "gated": GatedFusion,
    "low_rank": LowRankFusion,
    "film": FilmFusion,
    "concat": ConcatFusion,
    "text_only": TextOnly,
    "audio_only": AudioOnly,
}


def attention_map(fusion: str) -> AttentionMap:
    """The `attention_map` of a fusion; empty without attention."""
    return getattr(FUSION_CLASSES[fusion], "attention_map", ())

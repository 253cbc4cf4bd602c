"""Training objectives beside the losses of the model, chosen by name in the YAML.

    audio_stream, text_stream ─► pooled_streams ─► {audio, text}: vectors [b, d], present [b] ─► objectives

They read the two streams before the fusion, averaged over positions. A row whose modality is absent or was
dropped is left out of the losses that need this modality. Their weights are in the training's checkpoints,
not in `model/`.

To add one, write an `nn.Module` and add it to `LOSSES`. It is made as `(width, labels, *, weight, ...)` from
the width of the streams, the number of labels and the numbers or switches of the YAML, `weight` first. It is
called outside autocast as `objective(streams, labels)` with the `Pooled` streams and the sentiment labels
`[b]` (-100 where unknown), and returns a mean over its targets in the batch, or a vector of such means, whose
length is its `terms`. `objective.targets(present, labels)` are the numbers of these targets, of the same
shape, by which batches are joined; `present` has a mask `[b]` of each modality. Its loss, the sum of the
means, is logged as `train_<name>_loss` and added times `weight`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmsr.model.configuration import check_choice
from mmsr.model.joint_encoder import MmsrEncoder
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.outliers import MODALITIES
from mmsr.model.pooling import MeanPooling


@dataclass
class Pooled:
    """A modality of a batch before the fusion: `vectors [b, d]` float32, and `present [b]`."""

    vectors: Tensor
    present: Tensor


@contextmanager
def pooled_streams(encoder: MmsrEncoder, rows: int) -> Iterator[dict[str, Pooled]]:
    """Yield the streams of the forward of `encoder` within it, averaged over positions.

    A modality that no row of the batch has stays zero and absent.
    """
    device, width = encoder.device, encoder.config.hidden_size
    pooling = MeanPooling(encoder.config)
    streams = {
        name: Pooled(
            torch.zeros(rows, width, device=device), torch.zeros(rows, dtype=torch.bool, device=device)
        )
        for name in MODALITIES
    }

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, Tensor], tuple[Tensor, Tensor]], None]:
        def hook(_: nn.Module, given: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
            streams[name] = Pooled(pooling(output[0].float(), output[1]), given[1].any(-1))

        return hook

    handles = [
        getattr(encoder, f"{name}_stream").register_forward_hook(keep(name))
        for name in MODALITIES
        if hasattr(encoder, f"{name}_stream")
    ]
    try:
        yield streams
    finally:
        for handle in handles:
            handle.remove()


# ---------------------------------------------------------------------- losses


def contrastive_loss(audio: Tensor, text: Tensor, scale: Tensor | float) -> Tensor:
    """Symmetric InfoNCE of paired rows `[n, d]`, as in CLIP (Radford et al. 2021, arXiv 2103.00020).

    The logits are cosine similarities times `scale`; zero without rows.
    """
    similarity = scale * F.normalize(audio, dim=-1) @ F.normalize(text, dim=-1).T
    targets = torch.arange(len(audio), device=audio.device)
    by_audio = F.cross_entropy(similarity, targets, reduction="sum")
    by_text = F.cross_entropy(similarity.T, targets, reduction="sum")
    return (by_audio + by_text) / (2 * max(len(audio), 1))


def supervised_contrastive_loss(features: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """L_out of Khosla et al. 2020 (arXiv 2004.11362) over `features [n, d]` with `labels [n]`.

    Anchors whose label no other row has are left out; zero without anchors.
    """
    features = F.normalize(features, dim=-1)
    itself = torch.eye(len(features), dtype=torch.bool, device=features.device)
    similarity = (features @ features.T / temperature).masked_fill(itself, -torch.inf)
    log_shares = similarity.log_softmax(-1).masked_fill(itself, 0.0)
    positive = (labels[:, None] == labels) & ~itself
    partners = positive.sum(-1)
    per_anchor = -(log_shares * positive).sum(-1) / partners.clamp(min=1)
    return per_anchor.sum() / (partners > 0).sum().clamp(min=1)


def symmetric_divergence(first: Tensor, second: Tensor) -> Tensor:
    """½ (KL(p ‖ q) + KL(q ‖ p)) of two predictions of the same rows, logits `[n, c]`, a mean over rows.

    The regulariser of R-Drop (Liang et al. 2021, arXiv 2106.14448) for two draws of dropout.
    """
    p, q = first.float().log_softmax(-1), second.float().log_softmax(-1)
    return ((p.exp() - q.exp()) * (p - q)).sum() / (2 * max(len(p), 1))


class Contrastive(nn.Module):
    """Contrastive loss of audio and transcript of a row against the batch (under DDP: this process's rows).

    `temperature` is the initial one; its inverse, the scale of the similarities, is learned, up to 100.
    """

    terms = 1

    def __init__(self, width: int, labels: int, *, weight: float, temperature: float = 0.07) -> None:
        super().__init__()
        self.weight = weight
        self.projections = nn.ModuleDict({name: nn.Linear(width, width, bias=False) for name in MODALITIES})
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))

    def forward(self, streams: Mapping[str, Pooled], labels: Tensor) -> Tensor:
        """InfoNCE over the rows that have both."""
        both = streams["audio"].present & streams["text"].present
        audio, text = (self.projections[name](streams[name].vectors[both]) for name in MODALITIES)
        return contrastive_loss(audio, text, self.log_scale.exp().clamp(max=100.0))

    def targets(self, present: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """Number of rows that have both."""
        return (present["audio"] & present["text"]).sum().float()


class SupervisedContrastive(nn.Module):
    """Supervised contrastive loss within and across modalities; a row's two streams are its two views."""

    terms = 1

    def __init__(self, width: int, labels: int, *, weight: float, temperature: float = 0.1) -> None:
        super().__init__()
        self.weight = weight
        self.temperature = temperature
        self.projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, streams: Mapping[str, Pooled], labels: Tensor) -> Tensor:
        """The loss over all streams that are present in rows with a known label."""
        kept = {name: streams[name].present & (labels >= 0) for name in MODALITIES}
        features = torch.cat([streams[name].vectors[kept[name]] for name in MODALITIES])
        targets = torch.cat([labels[kept[name]] for name in MODALITIES])
        return supervised_contrastive_loss(self.projection(features), targets, self.temperature)

    def targets(self, present: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """Number of anchors: streams whose label another stream has."""
        known = torch.cat([labels[present[name] & (labels >= 0)] for name in MODALITIES])
        return ((known[:, None] == known).sum(-1) > 1).sum().float()


class AuxiliaryHeads(nn.Module):
    """A linear head on each stream predicts the label alone; the loss is the sum of both cross-entropies."""

    terms = 2

    def __init__(self, width: int, labels: int, *, weight: float) -> None:
        super().__init__()
        self.weight = weight
        self.heads = nn.ModuleDict({name: nn.Linear(width, labels) for name in MODALITIES})

    def logits(self, streams: Mapping[str, Pooled]) -> dict[str, Tensor]:
        """Logits `[b, c]` of each head; without meaning where the modality is absent."""
        return {name: self.heads[name](streams[name].vectors) for name in MODALITIES}

    def forward(self, streams: Mapping[str, Pooled], labels: Tensor) -> Tensor:
        """Cross-entropy of each head `[2]`, means over the rows that have its modality and a known label."""
        losses = []
        for name, logits in self.logits(streams).items():
            known = streams[name].present & (labels >= 0)
            targets = labels.masked_fill(~known, -100)
            losses.append(F.cross_entropy(logits, targets, reduction="sum") / known.sum().clamp(min=1))
        return torch.stack(losses)

    def targets(self, present: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """Number of rows of each head `[2]`."""
        return torch.stack([(present[name] & (labels >= 0)).sum() for name in MODALITIES]).float()


# ---------------------------------------------------------------------- gradients


class OgmGe:
    """OGM-GE of Peng et al. 2022 (arXiv 2203.15332): scales down gradients of the stronger modality.

    s_m is the sum of the probabilities that modality m gives to the true labels, over the rows of a step with
    both modalities. The gradients of the modality with the greater s_m are multiplied by
    k_m = 1 - tanh(alpha · s_m / s_other); then the gradients of both get normal noise of the deviation that
    they had. Here s_m comes from the auxiliary heads, since the fusion is not linear as in the paper, and
    noise goes to every matrix of an encoder and its stream, not to convolutions alone.

    Args:
        alpha: Strength, 0 to 1 in the paper.
        noise: Whether to add noise (GE).
    """

    def __init__(self, *, alpha: float, noise: bool = True) -> None:
        self.alpha = alpha
        self.noise = noise
        self.scores = dict.fromkeys(MODALITIES, 0.0)

    def observe(self, logits: Mapping[str, Tensor], streams: Mapping[str, Pooled], labels: Tensor) -> None:
        """Add a batch's rows to the scores of the step."""
        rows = streams["audio"].present & streams["text"].present & (labels >= 0)
        for name in MODALITIES:
            probabilities = logits[name][rows].detach().softmax(-1)
            self.scores[name] += float(probabilities.gather(1, labels[rows, None]).sum())

    def modulate(self, model: MmsrForSentimentReasoning) -> dict[str, float]:
        """Change the gradients of a step, reset the scores, and return k of each modality.

        Without rows that have both modalities nothing is changed, and the result is empty.
        """
        audio, text = (self.scores[name] for name in MODALITIES)
        self.scores = dict.fromkeys(MODALITIES, 0.0)
        if not audio or not text:
            return {}
        factors = {}
        for name, ratio in (("audio", audio / text), ("text", text / audio)):
            factors[name] = 1 - math.tanh(self.alpha * ratio) if ratio > 1 else 1.0
            for part in (f"{name}_encoder", f"{name}_stream"):
                for weight in getattr(model.encoder, part).parameters():
                    if weight.grad is not None:
                        deviation = weight.grad.std(correction=0)
                        weight.grad *= factors[name]
                        if self.noise and weight.ndim > 1:
                            weight.grad += torch.randn_like(weight.grad) * deviation
        return factors


# ---------------------------------------------------------------------- by name

LOSSES: dict[str, type[Contrastive | SupervisedContrastive | AuxiliaryHeads]] = {
    "contrastive": Contrastive,
    "supervised_contrastive": SupervisedContrastive,
    "auxiliary_heads": AuxiliaryHeads,
}
OBJECTIVES: dict[str, type] = {**LOSSES, "ogm_ge": OgmGe}


def check_objectives(objectives: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of each objective by name; a bare number is its first setting (`weight` or `alpha`).

    Raises:
        ValueError: An objective or setting is unknown, a value is not positive, or `ogm_ge` lacks
            `auxiliary_heads`.
    """
    settings: dict[str, dict[str, Any]] = {}
    for name, value in objectives.items():
        check_choice("objectives", name, tuple(OBJECTIVES))
        parameters = inspect.signature(OBJECTIVES[name]).parameters.values()
        fields = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        first = next(iter(fields))
        given = dict(value) if isinstance(value, Mapping) else {first: value}
        for field, entry in given.items():
            check_choice(f"objectives.{name}", field, tuple(fields))
            switch = isinstance(fields[field], bool)
            number = isinstance(entry, int | float) and not isinstance(entry, bool)
            if not (isinstance(entry, bool) if switch else number and entry > 0):
                accepted = "true or false" if switch else "a number above 0"
                raise ValueError(f"objectives.{name}.{field} is {entry!r}; accepted: {accepted}")
        if first not in given:
            raise ValueError(f"objectives.{name} lacks {first}; accepted: a number, or {', '.join(fields)}")
        settings[name] = given
    if "ogm_ge" in settings and "auxiliary_heads" not in settings:
        raise ValueError("objectives ogm_ge compares the modalities by auxiliary_heads: give both")
    return settings

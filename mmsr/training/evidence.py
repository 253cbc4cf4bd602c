"""Fits what a model without a decoder names as its evidence (`mmsr.model.evidence`), after its training.

voice of an audio_only model ─► its stream, layers and head, copied              (`copy_voice_emotions`)
texts ─► the trained model ─► text stream, and gradients of each label's logit ─┐
texts' own emotions and languages ──────────────────────────────────────────────┴► heads (`fit_text_evidence`)

The words that decide are marked once, by integrated gradients of the model's own logits (Sundararajan et al.
2017, arXiv 1703.01365), and the head learns these marks: so an answer needs no gradients. Whether they were
the right words is measured otherwise, by leaving them out (`mmsr.evaluation.explain.erasure`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mmsr.model.outliers import OutlierDetector
from mmsr.progress import show_progress
from mmsr.records import ATTENTION_MASK, INPUT_IDS

if TYPE_CHECKING:
    from mmsr.model.evidence import TextEvidence
    from mmsr.model.modeling import MmsrForSentimentReasoning
    from mmsr.model.processing import MmsrProcessor


@dataclass(frozen=True, kw_only=True)
class MarkedText:
    """A text to learn from.

    Attributes:
        text: The transcript.
        emotions: Emotions that were marked in it; empty where that is not known.
        language: Its language; None where that is not known.
    """

    text: str
    emotions: Sequence[str] = ()
    language: str | None = None


@dataclass
class _Learned:
    """What the heads learn from a text: states, and targets, with nan where a target is not known."""

    stream: Tensor  # [t, d]
    statistics: Tensor  # [2 e]
    pooled: Tensor  # [2 d]
    marks: Tensor  # [t], a distribution over tokens
    label: int  # that the marks are of


def copy_voice_emotions(model: MmsrForSentimentReasoning, voice: MmsrForSentimentReasoning) -> None:
    """Give a model the emotions of an `audio_only` model, trained on the same frozen encoder.

    Raises:
        ValueError: The other model has another fusion, or its encoder other weights.
    """
    if voice.config.fusion != "audio_only":
        raise ValueError(f"the voice's model has fusion={voice.config.fusion!r}; accepted: 'audio_only'")
    own, theirs = (part.encoder.audio_encoder.state_dict() for part in (model, voice))
    if own.keys() != theirs.keys() or not all(torch.equal(own[name], theirs[name]) for name in own):
        raise ValueError("the audio encoders differ; accepted: models on one encoder that stayed frozen")
    model.encoder.add_voice_emotions(voice.config.labels)
    head = model.encoder.voice_emotions
    head.stream.load_state_dict(voice.encoder.audio_stream.state_dict())
    head.fusion.load_state_dict(voice.encoder.fusion.state_dict())
    head.head.load_state_dict(voice.sentiment_head.state_dict())


def fit_text_evidence(
    model: MmsrForSentimentReasoning,
    processor: MmsrProcessor,
    texts: Sequence[MarkedText],
    *,
    emotions: Sequence[str],
    steps: int = 4,
    epochs: int = 6,
    learning_rate: float = 2e-3,
    batch_size: int = 64,
    bf16: bool = False,
    seed: int = 0,
) -> Mapping[str, float]:
    """Add the heads of texts to a model, and fit them; its other weights stay as they are.

    Args:
        model: A trained model with a detector of text outliers.
        processor: Its processor.
        texts: To learn from.
        emotions: Names to tell apart; rows without any of them teach the other heads alone.
        steps: Of the integration.
        epochs: Passes over the texts.
        learning_rate: Its largest value; it falls to zero.
        batch_size: Texts at a time.
        bf16: Compute states and gradients in bfloat16 autocast.
        seed: Of the order.

    Returns:
        Losses of the last epoch, by head.

    Raises:
        ValueError: There are no texts, or none has an emotion or a language.
    """
    languages = sorted({text.language for text in texts if text.language is not None})
    if len(languages) < 2 or not any(set(text.emotions) & set(emotions) for text in texts):
        raise ValueError("the texts have no two languages or no emotion; accepted: texts with both")
    encoder = model.encoder
    encoder.add_text_evidence(emotions, languages)
    model.eval()
    learned = _marked(model, processor, [row.text for row in texts], steps, batch_size, bf16)
    of_emotions = torch.zeros(len(texts), len(emotions))
    of_languages = torch.zeros(len(texts), len(languages))
    for place, row in enumerate(texts):
        for emotion in set(row.emotions) & set(emotions):
            of_emotions[place, list(emotions).index(emotion)] = 1
        if row.language is not None:
            of_languages[place, languages.index(row.language)] = 1
    of_emotions /= of_emotions.sum(1, keepdim=True).clamp(min=1)
    heads: TextEvidence = encoder.text_evidence
    heads.requires_grad_(True)
    count = epochs * -(-len(texts) // batch_size)
    optimizer = torch.optim.AdamW(heads.parameters(), learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=count)
    generator = torch.Generator().manual_seed(seed)
    losses: dict[str, float] = {}
    for _ in range(epochs):
        sums: dict[str, Tensor] = {}
        for batch in torch.randperm(len(texts), generator=generator).split(batch_size):
            rows = [learned[place] for place in batch.tolist()]
            stream = nn.utils.rnn.pad_sequence([row.stream for row in rows], batch_first=True).float()
            marks = nn.utils.rnn.pad_sequence([row.marks for row in rows], batch_first=True)
            picked = torch.tensor([row.label for row in rows])
            tokens = heads.tokens(stream)[torch.arange(len(rows)), :, picked]
            found = {
                "tokens": _cross_entropy(tokens.masked_fill(marks < 0, -torch.inf), marks.clamp(min=0)),
                "emotions": _cross_entropy(
                    heads.emotions(torch.stack([row.pooled for row in rows])), of_emotions[batch]
                ),
                "languages": _cross_entropy(
                    heads.languages(torch.stack([row.statistics for row in rows])), of_languages[batch]
                ),
            }
            optimizer.zero_grad()
            torch.stack([*found.values()]).sum().backward()
            optimizer.step()
            schedule.step()
            sums = {name: sums.get(name, 0) + loss.detach() * len(rows) for name, loss in found.items()}
        losses = {name: float(total) / len(texts) for name, total in sums.items()}
    heads.requires_grad_(False)
    return losses


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the rows with a target; `[b, n]` both."""
    known = targets.sum(1) > 0
    losses = -(targets * logits.log_softmax(-1).masked_fill(targets == 0, 0.0)).sum(1)
    return losses[known].sum() / known.sum().clamp(min=1)


def _marked(
    model: MmsrForSentimentReasoning,
    processor: MmsrProcessor,
    texts: Sequence[str],
    steps: int,
    batch_size: int,
    bf16: bool,
) -> list[_Learned]:
    """States and marks of texts, in their order; every fourth text's marks are of another label."""
    encoder, found, show = model.encoder, {}, show_progress()
    embed = encoder.get_input_embeddings()
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        inputs = processor(text=[texts[place] for place in places], return_tensors="pt")
        ids, mask = inputs[INPUT_IDS], inputs[ATTENTION_MASK]
        word = torch.zeros_like(mask, dtype=torch.bool)
        for row, place in enumerate(places):
            for position, (_, end) in enumerate(processor.token_spans(texts[place])):
                word[row, position] = end > 0
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            encoded = encoder.text_encoder(ids, mask)
            stream, _ = encoder.text_stream.of(encoded, len(ids))
            states = encoder.outlier_states("text", encoded.states)
            statistics = OutlierDetector.statistics(states, mask)
            pooled = encoder.text_evidence.pooling(stream.float(), mask)
            actual = embed(ids)
            nothing = embed(torch.where(word, processor.tokenizer.pad_token_id, ids))
            labels = model.classify(input_ids=ids, attention_mask=mask, head_only=True).head_logits.argmax(-1)
        others = torch.tensor([place % 4 == 0 for place in places])
        shift = 1 + torch.tensor(places) // 4 % (len(model.config.labels) - 1)
        labels = torch.where(others, (labels + shift) % len(model.config.labels), labels)
        added = torch.zeros(ids.shape)
        for step in range(steps):
            between = nothing + (actual - nothing) * ((step + 0.5) / steps)
            between.requires_grad_(True)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits = model.classify(
                    inputs_embeds=between, attention_mask=mask, head_only=True
                ).head_logits.float()
            chosen = logits.gather(1, labels[:, None])[:, 0]
            apart = (chosen - (logits.sum(1) - chosen) / (logits.shape[1] - 1)).sum()
            (gradient,) = torch.autograd.grad(apart, between)
            added += ((actual - nothing) * gradient).sum(-1).detach()
        marks = added.clamp(min=0).masked_fill(~word, 0.0)
        marks = (marks / marks.sum(1, keepdim=True).clamp(min=1e-9)).masked_fill(~word, -1.0)
        for row, place in enumerate(places):
            length = int(mask[row].sum())
            found[place] = _Learned(
                stream[row, :length].half(),
                statistics[row],
                pooled[row],
                marks[row, :length],
                int(labels[row]),
            )
        show("marking the words that decide", start + len(places), len(order))
    return [found[place] for place in range(len(texts))]

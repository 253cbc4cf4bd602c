"""Fits what a model without a decoder names as its evidence (`mmsr.model.evidence`), after its training.

an audio_only model ─► its stream, layers and head, copied ────────► the voice's emotion
texts ─► the trained model ─► gradients of a label's logit ────────► the weight of each token
texts, with emotions and languages ─► states of two layers ────────► the words' emotion and language

The words that decide are marked once, by integrated gradients of the model's own logits (Sundararajan et al.
2017, arXiv 1703.01365), and the head learns these marks: so an answer needs no gradients. Whether they were
the right words is measured otherwise, by leaving them out (`mmsr.evaluation.explain.erasure`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
class TaughtText:
    """A text to learn from.

    Attributes:
        text: The transcript.
        emotions: Emotions that were found in it; empty where that is not known.
        language: Its language; None where that is not known.
    """

    text: str
    emotions: Sequence[str] = ()
    language: str | None = None


@dataclass
class _Marked:
    """What the weights of tokens are learned from."""

    stream: Tensor  # [t, d]
    marks: Tensor  # [t], a distribution over the tokens of words; -1 at others
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
    *,
    marked: Sequence[TaughtText],
    named: Sequence[TaughtText],
    emotions: Sequence[str],
    steps: int = 2,
    epochs: int = 12,
    learning_rate: float = 3e-3,
    batch_size: int = 64,
    bf16: bool = False,
    seed: int = 0,
) -> Mapping[str, float]:
    """Add the heads of texts to a model, and fit them; its other weights stay as they are.

    Args:
        model: A trained model with a detector of text outliers.
        processor: Its processor.
        marked: Texts in which the words that decide are marked, which takes as long as training on `steps`
            times as many.
        named: Texts with emotions. Both teach languages.
        emotions: Names to tell apart; a text with several counts for each in part.
        steps: Of the integration.
        epochs: Passes over the texts.
        learning_rate: Its largest value; it falls to zero.
        batch_size: Texts at a time.
        bf16: Compute states and gradients in bfloat16 autocast.
        seed: Of the order.

    Returns:
        Losses of the last pass, by head.

    Raises:
        ValueError: There are no texts to mark, or the others lack emotions or two languages.
    """
    languages = sorted({row.language for row in (*marked, *named) if row.language is not None})
    if not marked or len(languages) < 2 or not any(set(row.emotions) & set(emotions) for row in named):
        raise ValueError(
            f"{len(marked)} texts to mark, and {len(named)} with {len(languages)} languages; accepted: texts "
            "of both, some with emotions, in two languages or more"
        )
    encoder = model.encoder
    encoder.add_text_evidence(emotions, languages)
    model.eval()
    heads: TextEvidence = encoder.text_evidence
    heads.requires_grad_(True)
    generator = torch.Generator().manual_seed(seed)
    both = [*named, *marked]
    statistics = _statistics(model, processor, [row.text for row in both], batch_size, bf16)
    of_emotions = _targets([row.emotions for row in both], emotions)
    of_languages = _targets([[row.language] if row.language else [] for row in both], languages)
    found = _marks(model, processor, [row.text for row in marked], steps, batch_size, bf16)

    def loss_of_emotions(rows: Tensor) -> Tensor:
        return _cross_entropy(heads.emotions(statistics[rows].flatten(1)), of_emotions[rows])

    def loss_of_languages(rows: Tensor) -> Tensor:
        return _cross_entropy(heads.languages(statistics[rows, 0]), of_languages[rows])

    def loss_of_tokens(rows: Tensor) -> Tensor:
        batch = [found[row] for row in rows.tolist()]
        stream = nn.utils.rnn.pad_sequence([row.stream for row in batch], batch_first=True).float()
        marks = nn.utils.rnn.pad_sequence([row.marks for row in batch], batch_first=True, padding_value=-1)
        labels = torch.tensor([row.label for row in batch])
        logits = heads.tokens(stream)[torch.arange(len(batch)), :, labels]
        return _cross_entropy(logits.masked_fill(marks < 0, -1e9), marks.clamp(min=0))

    losses = {}
    for name, linear, loss_of, number in (
        ("tokens", heads.tokens, loss_of_tokens, len(marked)),
        ("emotions", heads.emotions, loss_of_emotions, len(named)),  # which come first
        ("languages", heads.languages, loss_of_languages, len(both)),
    ):
        orders = (torch.randperm(number, generator=generator).split(batch_size) for _ in range(epochs))
        steps_in_all = epochs * -(-number // batch_size)
        losses[name] = _fit_linear(linear, loss_of, orders, number_of_steps=steps_in_all, rate=learning_rate)
    heads.requires_grad_(False)
    return losses


def _fit_linear(
    linear: nn.Linear,
    loss_of: Callable[[Tensor], Tensor],
    passes: Iterable[Sequence[Tensor]],
    *,
    number_of_steps: int,
    rate: float,
) -> float:
    """Fit a layer by batches of row numbers `[n]`, pass by pass; returns the mean loss of the last pass."""
    optimizer = torch.optim.AdamW(linear.parameters(), rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=number_of_steps)
    for batches in passes:
        total, number = 0.0, 0
        for rows in batches:
            optimizer.zero_grad()
            loss = loss_of(rows)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
            number += len(rows)
    return total / number


def _targets(names: Sequence[Sequence[str]], classes: Sequence[str]) -> Tensor:
    """A distribution over classes for each row `[n, c]`; zeros where none is known."""
    targets = torch.zeros(len(names), len(classes))
    for row, known in enumerate(names):
        for name in set(known) & set(classes):
            targets[row, list(classes).index(name)] = 1
    return targets / targets.sum(1, keepdim=True).clamp(min=1)


def _by_length(texts: Sequence[str], batch_size: int) -> Iterator[list[int]]:
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    yield from (order[start : start + batch_size] for start in range(0, len(order), batch_size))


@torch.no_grad()
def _statistics(
    model: MmsrForSentimentReasoning,
    processor: MmsrProcessor,
    texts: Sequence[str],
    batch_size: int,
    bf16: bool,
) -> Tensor:
    """Statistics of texts' outlier layer and last layer, `[n, 2, 2 e]`."""
    encoder, show, done = model.encoder, show_progress(), 0
    found: dict[int, Tensor] = {}
    for places in _by_length(texts, batch_size):
        inputs = processor(text=[texts[place] for place in places], return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            states, mask = encoder.encode_text(inputs[INPUT_IDS], inputs[ATTENTION_MASK])
        layers = (encoder.outlier_states("text", states), states[:, :, -1])
        found |= zip(
            places,
            torch.stack([OutlierDetector.statistics(layer, mask) for layer in layers], dim=1),
            strict=True,
        )
        done += len(places)
        show("reading texts", done, len(texts))
    return torch.stack([found[place] for place in range(len(texts))])


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the rows with a target; `[b, n]` both."""
    known = targets.sum(1) > 0
    losses = -(targets * logits.log_softmax(-1).masked_fill(targets == 0, 0.0)).sum(1)
    return losses[known].sum() / known.sum().clamp(min=1)


def _marks(
    model: MmsrForSentimentReasoning,
    processor: MmsrProcessor,
    texts: Sequence[str],
    steps: int,
    batch_size: int,
    bf16: bool,
) -> list[_Marked]:
    """Marks of texts, in their order, of the predicted label, but of another one for each fourth text."""
    encoder, show, done = model.encoder, show_progress(), 0
    embed, labels_of = encoder.get_input_embeddings(), len(model.config.labels)
    found: dict[int, _Marked] = {}
    for places in _by_length(texts, batch_size):
        inputs = processor(text=[texts[place] for place in places], return_tensors="pt")
        ids, mask = inputs[INPUT_IDS], inputs[ATTENTION_MASK]
        word = torch.zeros_like(mask, dtype=torch.bool)
        for row, place in enumerate(places):
            for position, (_, end) in enumerate(processor.token_spans(texts[place])):
                word[row, position] = end > 0
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            stream, _ = encoder.text_stream.of(encoder.text_encoder(ids, mask), len(ids))
            actual = embed(ids)
            nothing = embed(torch.where(word, processor.tokenizer.pad_token_id, ids))
            labels = model.classify(input_ids=ids, attention_mask=mask, head_only=True).head_logits.argmax(-1)
        turn = torch.tensor(places)
        other = (labels + 1 + turn // 4 % (labels_of - 1)) % labels_of
        labels = torch.where(turn % 4 == 0, other, labels)
        added = torch.zeros(ids.shape)
        for step in range(steps):
            between = (nothing + (actual - nothing) * ((step + 0.5) / steps)).requires_grad_(True)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                answered = model.classify(inputs_embeds=between, attention_mask=mask, head_only=True)
            logits = answered.head_logits.float()
            chosen = logits.gather(1, labels[:, None])[:, 0]
            (gradient,) = torch.autograd.grad(
                (chosen - (logits.sum(1) - chosen) / (labels_of - 1)).sum(), between
            )
            added += ((actual - nothing) * gradient).sum(-1).detach() / steps
        marks = added.clamp(min=0).masked_fill(~word, 0.0)
        marks = (marks / marks.sum(1, keepdim=True).clamp(min=1e-9)).masked_fill(~word, -1.0)
        for row, place in enumerate(places):
            length = int(mask[row].sum())
            found[place] = _Marked(stream[row, :length].half(), marks[row, :length], int(labels[row]))
        done += len(places)
        show("marking the words that decide", done, len(texts))
    return [found[place] for place in range(len(texts))]

"""Evidence: what a checkpoint without a decoder names as the reason of its label.

    states of the audio encoder ─► own stream ─► feed-forward ─► statistics ─► emotion of the voice [b, e]
    text stream [b, t, d] ─► weight of each token for each label [b, t, c]
    states of the text encoder, of its outlier layer and its last ─► statistics ─► emotion of the words [b, k]
    states of its outlier layer ─► statistics ─► language [b, l]

All are logits. None sees the other modality: what is said of a voice is the same beside any text. They are
fitted after training, by `mmsr.training.evidence`, and `mmsr.inference.template` makes a rationale of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmsr.model.configuration import MmsrConfig
from mmsr.model.fusion import AudioOnly
from mmsr.model.outliers import OutlierDetector
from mmsr.model.pooling import SentimentHead
from mmsr.model.stream import Stream


class VoiceEmotions(nn.Module):
    """The emotion of a voice: an `audio_only` model of its own on the states of the shared encoder.

    Args:
        stream: Its stream, of the same shape as the model's.
        config: The model's, with `voice_emotions`.
    """

    def __init__(self, stream: Stream, config: MmsrConfig) -> None:
        super().__init__()
        self.stream = stream
        self.fusion = AudioOnly(config)
        self.head = SentimentHead(config, len(config.voice_emotions or ()))

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Logits `[b, e]` of an encoder's states `[b, f, l, e]`, with their mask `[b, f]`."""
        stream, mask = self.stream(states, mask)
        memory, mask, _ = self.fusion(stream, mask, None, None)
        return self.head(memory, mask)


class TextEvidence(nn.Module):
    """The tokens that decide for each label, the emotion of the words, and their language.

    Args:
        width: Width of the text encoder's states.
        config: The model's, with `text_emotions` and `text_languages`.
    """

    def __init__(self, width: int, config: MmsrConfig) -> None:
        super().__init__()
        self.tokens = nn.Linear(config.hidden_size, len(config.labels))
        self.emotions = nn.Linear(4 * width, len(config.text_emotions or ()))
        self.languages = nn.Linear(2 * width, len(config.text_languages or ()))

    def forward(
        self, stream: Tensor, layers: Sequence[Tensor], mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of tokens `[b, t, c]`, of emotions `[b, k]` and of languages `[b, l]`.

        Args:
            stream: The text stream `[b, t, d]`.
            layers: States of the outlier layer and of the last, `[b, t, e]` each.
            mask: Of all `[b, t]`.
        """
        statistics = [OutlierDetector.statistics(states, mask) for states in layers]
        return self.tokens(stream), self.emotions(torch.cat(statistics, -1)), self.languages(statistics[0])

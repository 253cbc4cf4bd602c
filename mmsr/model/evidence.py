"""Evidence: what a checkpoint without a decoder names as the reason of its label.

    states of the audio encoder ─► own stream ─► feed-forward ─► statistics ─► emotion of the voice [b, e]
    text stream [b, t, d] ─┬─► weight of each token for each label [b, t, c]
                           └─► statistics ─► emotion of the words [b, k]
    states of the text encoder's outlier layer ─► statistics ─► language [b, l]

All are logits. None sees the other modality: what is said of a voice is the same beside any text. They are
fitted after training, by `mmsr.training.evidence`, and `mmsr.inference.template` makes a rationale of them.
"""

from __future__ import annotations

from torch import Tensor, nn

from mmsr.model.configuration import MmsrConfig
from mmsr.model.fusion import AudioOnly
from mmsr.model.outliers import OutlierDetector
from mmsr.model.pooling import SentimentHead, StatisticsPooling
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
        self.pooling = StatisticsPooling(config)
        self.emotions = nn.Linear(2 * config.hidden_size, len(config.text_emotions or ()))
        self.languages = nn.Linear(2 * width, len(config.text_languages or ()))

    def forward(self, stream: Tensor, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of tokens `[b, t, c]`, of emotions `[b, k]` and of languages `[b, l]`.

        Args:
            stream: The text stream `[b, t, d]`.
            states: Of the outlier layer `[b, t, e]`.
            mask: Of both `[b, t]`.
        """
        emotions = self.emotions(self.pooling(stream, mask))
        return self.tokens(stream), emotions, self.languages(OutlierDetector.statistics(states, mask))

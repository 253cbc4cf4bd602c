"""The model card: README.md beside a checkpoint, as the Hub shows it.

It says what can be known from the configuration. Whoever trained the model adds what only they know: a
README.md that is there already is left alone.
"""

from __future__ import annotations

from huggingface_hub import ModelCard, ModelCardData

from mmsr.model.configuration import MmsrConfig

_TEMPLATE = """---
{metadata}
---

# {name}

An [mmsr](https://arxiv.org/abs/2407.21054) checkpoint (multimodal sentiment reasoning): it hears an
utterance, reads its transcript, or both, says which sentiment it has, and {answers}.

| | |
|---|---|
| labels | {labels} |
| audio encoder | {audio} |
| text encoder | {text} |
| fusion | `{fusion}` |
| rationale | {rationale} |
| parameters | {parameters} |

## Use

```python
import mmsr  # makes the model known to transformers
from transformers import pipeline

pipe = pipeline("sentiment-reasoning", model="{name}")
pipe({{"audio": "utterance.wav", "text": "what was said"}})
```

Audio is mono at {rate:,} Hz (other rates are resampled). Either modality may be missing.

## Data, figures, limits

Not stated by whoever saved this checkpoint. Before relying on it, evaluate it on rows and speakers of your
own: `mmsr evaluate --model {name} --manifest yours.csv --out report`. It is no medical device.
"""


def model_card(config: MmsrConfig, *, name: str, parameters: int) -> ModelCard:
    """The card of a model.

    Args:
        config: the model's.
        name: the checkpoint's, as it would be loaded.
        parameters: how many weights it has.
    """
    writes = config.format is not None
    metadata = ModelCardData(
        library_name="transformers",
        tags=["mmsr", "sentiment-analysis", "multimodal", "audio", *(["rationale"] if writes else [])],
    )

    def part(part: str, used: bool) -> str:
        return f"`{config.part(part).model_type}`" if used else "none"

    return ModelCard(
        _TEMPLATE.format(
            metadata=metadata.to_yaml(),
            name=name,
            answers="writes down why" if writes else "no more (it writes no rationale)",
            labels=", ".join(config.labels),
            audio=part("audio_encoder", config.uses_audio),
            text=part("text_encoder", config.uses_text),
            fusion=config.fusion,
            rationale=f"`{config.rationale_format}`, by {part('decoder', writes)} ({config.decoder_type})"
            if writes
            else "none",
            parameters=f"{parameters:,}",
            rate=config.sampling_rate,
        )
    )

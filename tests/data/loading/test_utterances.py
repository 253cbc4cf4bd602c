"""A batch of utterances: features stand where their tokens do."""

from typing import Any

import numpy as np
import torch

from mmsr.data.loading.utterances import Collator, LoadedUtterance, UtteranceDataset


def test_text_features_stand_where_their_tokens_do():
    """Whatever side is padded, with rows that have no text."""

    class Padded:
        def __call__(self, **inputs: Any) -> dict[str, torch.Tensor]:
            mask = torch.tensor([[0, 1, 1], [0, 0, 0], [1, 1, 1]])
            return {"input_ids": mask * 7, "attention_mask": mask}

    collate = Collator(Padded(), rationales=False)  # type: ignore[arg-type]
    lengths = {"u0": 2, "u2": 3}

    def utterance(name: str) -> LoadedUtterance:
        states = torch.arange(1.0, lengths.get(name, 0) + 1)[:, None, None].half()
        text, features = ("x", states) if name in lengths else (None, None)
        audio = np.ones(3, dtype=np.float32)
        return LoadedUtterance(name, text, None, None, audio=audio, text_features=features)

    found = collate([utterance(name) for name in ("u0", "u1", "u2")])["text_features"]
    assert found.dtype == torch.float32 and found.shape == (3, 3, 1, 1)
    assert found.squeeze().tolist() == [[0, 1, 2], [0, 0, 0], [1, 2, 3]]


def test_rows_without_a_soft_label_have_their_label_alone():
    class Labelled:
        labels = ("negative", "neutral", "positive")

        def __call__(self, **inputs: Any) -> dict[str, torch.Tensor]:
            known = [-100 if name is None else self.labels.index(name) for name in inputs["sentiment"]]
            return {"sentiment_labels": torch.tensor(known)}

    rows = [
        {"id": f"u{number}", "audio": None, "text": "x", "rationale": None, "label": label, **soft}
        for number, (label, soft) in enumerate(
            [("positive", {"soft_label": '{"positive": 3, "neutral": 1}'}), ("negative", {}), ("neutral", {})]
        )
    ]
    data = UtteranceDataset(rows, seconds=np.zeros(3), tokens=np.ones(3))
    collate = Collator(Labelled(), rationales=False)  # type: ignore[arg-type]
    assert collate([data[0], data[1]])["soft_targets"].tolist() == [[0, 0.25, 0.75], [1, 0, 0]]
    assert "soft_targets" not in collate([data[1], data[2]])

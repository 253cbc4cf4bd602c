"""transformers' Trainer: the loss and gradient of a step do not depend on how its rows are batched."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

from mmsr.model.configuration import MmsrConfig
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.training.trainer import MmsrTrainer


def row(index: int, *, uneven: bool) -> dict[str, torch.Tensor]:
    """With `uneven`, some rows lack rationale or label, and rationales differ in length."""
    words = (index % 3 and 2 + index % 5) if uneven else 3
    labels = torch.full((8,), -100)
    if words:
        labels[: words + 2] = torch.tensor([5 + index % 3, *range(20 + index, 20 + index + words), 2])
    known = not uneven or index % 4
    return {
        "input_ids": torch.arange(9 + index, 16 + index),
        "attention_mask": torch.ones(7, dtype=torch.long),
        "sentiment_labels": torch.tensor(index % 3 if known else -100),
        "labels": labels,
    }


def step(
    folder: Path, trainer_class: type[Trainer], rows: int, steps: int, *, uneven: bool, **settings: Any
) -> dict[str, float]:
    """Loss and gradient norm of one optimiser step over 16 rows."""
    torch.manual_seed(1)
    config = MmsrConfig.from_preset("tiny", **{"fusion": "text_only", "dropout": 0.0, **settings})
    model = MmsrForSentimentReasoning(config)
    for part in model.modules():
        for name in ("p", "dropout", "activation_dropout"):
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, 0.0)
    trainer = trainer_class(
        model=model,
        args=TrainingArguments(
            str(folder),
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=steps,
            max_steps=1,
            learning_rate=0.0,
            logging_steps=1,
            report_to=[],
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
            max_grad_norm=1e9,
        ),
        train_dataset=[row(index, uneven=uneven) for index in range(16)],
        data_collator=lambda rows: {name: torch.stack([row[name] for row in rows]) for name in rows[0]},
    )
    trainer.train()
    logged = trainer.state.log_history[0]
    return {name: logged[name] for name in ("loss", "grad_norm")}


WEIGHTED = {"class_weights": [1.0, 0.0, 3.0], "label_smoothing": 0.1, "rationale_loss_weight": 4.0}


@pytest.mark.parametrize(
    "settings", [{}, WEIGHTED, {"rationale_format": "post_thinking"}], ids=["plain", "weighted", "learned"]
)
def test_a_step_is_that_of_one_large_batch(tmp_path: Path, settings: dict[str, Any]):
    whole = step(tmp_path, MmsrTrainer, 16, 1, uneven=True, **settings)
    assert whole == step(tmp_path, Trainer, 16, 1, uneven=True, **settings)
    for rows, steps in ((3, 6), (1, 16)):
        found = step(tmp_path, MmsrTrainer, rows, steps, uneven=True, **settings)
        assert found == pytest.approx(whole, rel=1e-4), (rows, steps)


@pytest.mark.parametrize(("rows", "steps"), [(16, 1), (4, 4)])
def test_experts_are_balanced_once_a_step(tmp_path: Path, rows: int, steps: int):
    models: list[Any] = []

    class Kept(MmsrTrainer):
        def train(self, *args: Any, **kwargs: Any) -> Any:
            models.append(self.model)
            return super().train(*args, **kwargs)

    settings = {"fusion": "mixture", "fusion_balance_rate": 0.5, "rationale_loss_weight": 1.0}
    step(tmp_path, Kept, rows, steps, uneven=True, **settings)
    (gate,) = models[0].encoder.fusion.gates
    assert gate.loads is None and gate.choice_bias.abs().max() == 0.5


def test_the_plain_trainer_is_right_where_batches_have_equally_many_targets(tmp_path: Path):
    whole = step(tmp_path, Trainer, 16, 1, uneven=False)
    for rows, steps in ((4, 4), (1, 16)):
        assert step(tmp_path, Trainer, rows, steps, uneven=False) == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("size", [1, 3, 16])
def test_the_loss_of_an_evaluation_is_a_mean_over_targets(tmp_path: Path, size: int):
    settings = {"rationale_loss_weight": 4.0, "class_weights": [1.0, 2.0, 3.0]}
    model = MmsrForSentimentReasoning(MmsrConfig.from_preset("tiny", fusion="text_only", **settings))
    rows = [row(index, uneven=True) for index in range(16)]
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    trainer = MmsrTrainer(
        model=model,
        args=TrainingArguments(
            str(tmp_path), per_device_eval_batch_size=size, report_to=[], use_cpu=True, disable_tqdm=True
        ),
        eval_dataset=rows,
        data_collator=lambda rows: {name: torch.stack([row[name] for row in rows]) for name in rows[0]},
    )
    whole = float(model.eval()(**batch).loss.detach())
    for _ in range(2):  # an evaluation starts anew
        assert trainer.evaluate()["eval_loss"] == pytest.approx(whole, rel=1e-5)
    assert trainer.predict(rows).metrics["test_loss"] == pytest.approx(whole, rel=1e-5)

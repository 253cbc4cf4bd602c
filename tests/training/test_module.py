"""What each setting does to a training run."""

import copy
import csv
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from torch.nn import functional as F

from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.training.module import MmsrModule
from mmsr.training.objectives import LOSSES
from mmsr.training.parameters import transformer_layers
from mmsr.training.settings import TrainingSettings

pytestmark = pytest.mark.filterwarnings("ignore")
LABELS = ["negative", "neutral", "positive"]
OWN_TABLES = {"tie_word_embeddings": False}


class Watch(Callback):
    """Copies of the weights when training starts and after each epoch, and each epoch's figures."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []
        self.figures: list[dict[str, float]] = []

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.weights.append({name: value.clone() for name, value in module.state_dict().items()})

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.on_train_start(trainer, module)
        self.figures.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    def changed(self, epoch: int = 0) -> set[str]:
        """Names of the weights that changed in an epoch."""
        before, after = self.weights[epoch : epoch + 2]
        return {name for name in after if not torch.equal(before[name], after[name])}


def train(
    corpus: Path,
    *more: Callback,
    epochs: int = 1,
    batches: int = 2,
    precision: Any = "32-true",
    **switches: Any,
) -> tuple[MmsrModule, Watch]:
    """A run of two small batches an epoch."""
    module, watch = MmsrModule(TrainingSettings(**{"preset": "tiny", "vocab_size": 600, **switches})), Watch()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        precision=precision,
        limit_train_batches=batches,
        limit_val_batches=1,
        logger=False,
        callbacks=[watch, *more],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    trainer.fit(module, datamodule=MmsrDataModule(str(corpus), batch_rows=8))
    return module, watch


def layer_numbers(names: set[str], encoder: str) -> set[str]:
    """Which of an encoder's layers are among the names: `0`, `1`, or `other` for what is in none."""
    within = [
        name.removeprefix(f"model.joint_encoder.{encoder}.model.")
        for name in names
        if name.startswith(f"model.joint_encoder.{encoder}.")
    ]
    return {
        part.split(".")[2] if part.startswith(("encoder.layer.", "encoder.layers.")) else "other"
        for part in within
    }


@pytest.fixture(scope="module")
def plain(demo_corpus):
    return train(demo_corpus)


def test_without_switches_every_part_learns(plain):
    for encoder in ("audio_encoder", "text_encoder"):
        assert layer_numbers(plain[1].changed(), encoder) == {"0", "1", "other"}


def test_frozen_and_partly_frozen_encoders(demo_corpus):
    _, watch = train(
        demo_corpus, freeze=["text_encoder"], train_layers={"audio_encoder": 1}, config=OWN_TABLES
    )
    assert layer_numbers(watch.changed(), "audio_encoder") == {"1"}
    assert layer_numbers(watch.changed(), "text_encoder") == set()
    assert any(name.startswith("model.rationale_decoder.") for name in watch.changed())


def test_gradual_unfreezing_by_epoch(demo_corpus):
    steps = {"audio_encoder": 1, "text_encoder": 2}
    _, watch = train(demo_corpus, epochs=4, gradual_unfreezing=steps, config=OWN_TABLES)
    audio = [layer_numbers(watch.changed(epoch), "audio_encoder") for epoch in range(4)]
    text = [layer_numbers(watch.changed(epoch), "text_encoder") for epoch in range(4)]
    assert audio == [set(), {"1"}, {"0", "1"}, {"0", "1", "other"}]
    assert text == [set(), {"0", "1"}, {"0", "1", "other"}, {"0", "1", "other"}]


def test_lora_alone_is_trained_in_its_encoder(demo_corpus):
    pytest.importorskip("peft")
    module, watch = train(demo_corpus, lora={"audio_encoder": {"r": 2}})
    learnt = {name for name in watch.changed() if ".audio_encoder." in name}
    assert learnt and all(".lora_" in name for name in learnt)
    assert not any("lora_" in name for name in watch.weights[0] if ".text_encoder." in name)


def test_layer_decay_reaches_the_optimiser(demo_corpus):
    rates = {}

    class Rates(Callback):
        def on_train_start(self, trainer, module):
            for group in trainer.optimizers[0].param_groups:
                rates.update({id(weight): group["initial_lr"] for weight in group["params"]})

    switches = {"learning_rate": 1e-3, "encoder_learning_rate": 1e-4, "layer_decay": 0.8}
    module, _ = train(demo_corpus, Rates(), **switches)
    low, top = transformer_layers(module.model.encoder.audio_encoder.model)
    assert {rates[id(weight)] for weight in top.parameters()} == {1e-4}
    assert {rates[id(weight)] for weight in low.parameters()} == {0.8 * 1e-4}
    assert rates[id(module.model.head.classifier.weight)] == 1e-3


def test_gradient_checkpointing_computes_twice_and_changes_nothing(demo_corpus, plain):
    calls = {}

    class Count(Callback):
        def on_train_start(self, trainer, module):
            layer = transformer_layers(module.model.encoder.text_encoder.model)[0]
            layer.attention.register_forward_hook(
                lambda part, *_: calls.update({part.training: calls.get(part.training, 0) + 1})
            )

    _, watch = train(demo_corpus, Count(), gradient_checkpointing=True)
    assert calls[True] == 2 * 2  # two batches, forward and again in backward
    for name, value in watch.weights[-1].items():
        torch.testing.assert_close(value, plain[1].weights[-1][name], rtol=1e-4, atol=1e-5, msg=name)


def test_attention_is_computed_as_it_was_asked_for_and_learns_the_same(demo_corpus, plain):
    module, watch = train(demo_corpus, attention="eager")
    parts = [part for part in module.model.modules() if hasattr(part, "config")]
    assert {part.config._attn_implementation for part in parts} == {"eager"}
    assert plain[0].model.config._attn_implementation == "sdpa"
    for name, value in watch.weights[-1].items():
        if name.endswith(("key.bias", "k_proj.bias")):
            continue  # its gradient is rounding (it moves a query's scores alike), of which Adam makes steps
        torch.testing.assert_close(value, plain[1].weights[-1][name], rtol=1e-4, atol=1e-5, msg=name)


def test_attention_that_is_not_there_is_refused_in_one_line(demo_corpus):
    for unknown in ("flsh", *(("flash_attention_2",) if find_spec("flash_attn") is None else ())):
        with pytest.raises(
            ValueError, match=rf"^attention='{unknown}' cannot be used here: .*accepted: sdpa"
        ) as told:
            train(demo_corpus, attention=unknown)
        assert "\n" not in str(told.value)


def test_uncertainty_weighting_learns_variances(demo_corpus):
    module, watch = train(demo_corpus, batches=4, uncertainty_weighting=True)
    assert {"log_variances.sentiment_loss", "log_variances.rationale_loss"} <= watch.changed()
    figures = watch.figures[0]
    assert figures["train_rationale_loss_log_variance"] != 0
    assert figures["dev_loss"] == pytest.approx(figures["dev_sentiment_loss"] + figures["dev_rationale_loss"])
    losses = {name: torch.tensor(value) for name, value in (("sentiment_loss", 0.7), ("rationale_loss", 3.0))}
    losses["loss"] = torch.tensor(3.7)
    with torch.no_grad():
        module.log_variances["sentiment_loss"].fill_(0.5)
        module.log_variances["rationale_loss"].fill_(-1.0)
    batch = {"sentiment_labels": torch.tensor([1, -100]), "labels": torch.tensor([[5, 9], [5, -100]])}
    expected = math.exp(-0.5) * 0.7 + 0.25 + math.exp(1.0) * 3.0 - 0.5
    assert float(module.uncertainty_weighted(losses, batch)) == pytest.approx(expected)
    batch["labels"][:, 1:] = -100  # labels' tokens alone: no rationale is known
    losses["rationale_loss"] = torch.tensor(0.0)
    total = module.uncertainty_weighted(losses, batch)
    assert float(total) == pytest.approx(math.exp(-0.5) * 0.7 + 0.25)
    (gradient,) = torch.autograd.grad(total, [module.log_variances["rationale_loss"]])
    assert gradient == 0


def test_batches_without_a_rationale_are_learned_from(demo_corpus, tmp_path):
    """All batches but one have no `labels`, which the variances and R-Drop look at."""
    rows = list(csv.DictReader(demo_corpus.open(encoding="utf-8")))
    manifest = demo_corpus.parent / "one-rationale.csv"
    kept = next(row["id"] for row in rows if row["split"] == "train" and row["rationale"])
    with manifest.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row if row["id"] == kept else {**row, "rationale": ""} for row in rows)
    module, watch = train(manifest, uncertainty_weighting=True, r_drop=1.0)
    assert {"log_variances.sentiment_loss", "log_variances.rationale_loss"} <= set(watch.changed())
    assert watch.figures[0]["train_r_drop"] > 0 and watch.figures[0]["train_rationale_loss"] > 0
    assert "dev_rationale_loss" not in watch.figures[0]


def test_a_frozen_decoder_keeps_still_but_for_its_label_tokens(demo_corpus):
    module, watch = train(demo_corpus, freeze=["decoder"], config=OWN_TABLES)
    learnt = {name for name in watch.changed() if name.startswith("model.rationale_decoder.")}
    assert learnt and all(name.endswith(".parametrizations.weight.0.rows") for name in learnt)
    assert not any(part.training for part in module.model.decoder.model.modules())
    with pytest.raises(
        ValueError, match="freeze= names decoder, whose word embeddings are the text_encoder's"
    ):
        train(demo_corpus, freeze=["decoder"])


def test_label_smoothing_and_class_weights_are_in_the_loss(demo_corpus):
    module, _ = train(demo_corpus, label_smoothing=0.2, class_weights=[1.0, 2.0, 4.0])
    model = module.model.eval()
    batch = {"input_ids": torch.randint(5, 200, (4, 6)), "sentiment_labels": torch.tensor([0, 1, 2, 2])}
    output = model(**batch)
    expected = F.cross_entropy(
        output.sentiment_logits,
        batch["sentiment_labels"],
        weight=torch.tensor([1.0, 2.0, 4.0]),
        label_smoothing=0.2,
    )
    torch.testing.assert_close(output.sentiment_loss, expected)


def test_r_drop_adds_the_divergence_of_two_draws_of_dropout(demo_corpus, plain):
    _, watch = train(demo_corpus, r_drop=2.0)
    figures = watch.figures[0]
    assert figures["train_r_drop"] > 0
    model_loss = figures["train_sentiment_loss"] + figures["train_rationale_loss"]
    assert figures["train_loss"] == pytest.approx(model_loss + figures["train_r_drop"], rel=1e-4)
    _, still = train(demo_corpus, r_drop=2.0, config={"dropout": 0.0}, preset="tiny")
    assert still.figures[0]["train_r_drop"] < figures["train_r_drop"]


def test_objectives_are_trained_weighed_and_logged(demo_corpus):
    weights = {"contrastive": 0.1, "supervised_contrastive": 0.2, "auxiliary_heads": 0.3}
    module, watch = train(demo_corpus, objectives=weights)
    own = {name for name in watch.weights[0] if name.startswith("objectives.")}
    assert {name.split(".")[1] for name in own} == set(LOSSES) and own <= watch.changed()
    figures = watch.figures[0]
    expected = figures["train_sentiment_loss"] + figures["train_rationale_loss"]
    expected += sum(weight * figures[f"train_{name}_loss"] for name, weight in weights.items())
    assert figures["train_loss"] == pytest.approx(expected, rel=1e-4)
    assert not any("objectives" in name for name in module.model.state_dict())


def test_objectives_are_computed_in_full_precision(demo_corpus):
    """Under autocast a similarity times a scale of 14 would be rounded to steps of 1/16."""
    seen = []

    class Seen(Callback):
        def on_train_start(self, trainer, module):
            text = module.objectives["contrastive"].projections["text"]
            text.register_forward_hook(lambda _, given, made: seen.append(made.dtype))

    _, watch = train(demo_corpus, Seen(), precision="bf16-mixed", objectives={"contrastive": 0.1})
    _, full = train(demo_corpus, objectives={"contrastive": 0.1})
    assert set(seen) == {torch.float32}
    name = "train_contrastive_loss"
    assert watch.figures[0][name] == pytest.approx(full.figures[0][name], rel=0.02)


def test_ogm_ge_changes_the_gradients_of_the_stronger_modality(demo_corpus):
    switches = {"audio_dropout": 0.0, "text_dropout": 0.0, "batches": 1}
    balance = {"alpha": 0.9, "noise": False}
    gradients = {}

    class Gradients(Callback):
        def __init__(self, name):
            self.name = name

        def on_train_batch_end(self, trainer, module, *_):
            gradients[self.name] = {n: w.grad for n, w in module.model.named_parameters()}

    train(demo_corpus, Gradients("plain"), objectives={"auxiliary_heads": 0.3}, **switches)
    objectives = {"auxiliary_heads": 0.3, "ogm_ge": balance}
    _, watch = train(demo_corpus, Gradients("balanced"), objectives=objectives, **switches)
    factors = {name: watch.figures[0][f"train_ogm_ge_{name}"] for name in ("audio", "text")}
    assert sorted(factor < 1 for factor in factors.values()) == [False, True]
    for name, gradient in gradients["plain"].items():
        factor = next((k for m, k in factors.items() if name.startswith(f"joint_encoder.{m}_")), 1.0)
        torch.testing.assert_close(
            gradients["balanced"][name], factor * gradient, rtol=1e-3, atol=1e-6, msg=name
        )


def test_the_average_is_what_is_judged_and_kept(demo_corpus):
    steps, judged = [], {}

    class Steps(Callback):
        def on_train_batch_end(self, trainer, module, *_):
            steps.append(copy.deepcopy(module.model.state_dict()))

        def on_validation_batch_end(self, trainer, module, *_):
            judged.update(copy.deepcopy(module.model.state_dict()))

    module, _ = train(demo_corpus, Steps(), batches=3, ema_decay=0.6)
    averages = [c for c in module.trainer.callbacks if isinstance(c, EMAWeightAveraging)]
    assert len(averages) == 1
    for name, kept in module.model.state_dict().items():
        expected = steps[0][name]
        for step in steps[1:]:
            expected = 0.6 * expected + 0.4 * step[name]
        torch.testing.assert_close(judged[name], expected, rtol=1e-4, atol=1e-6, msg=name)
        torch.testing.assert_close(kept, expected, rtol=1e-4, atol=1e-6, msg=name)


def test_a_fresh_model_reads_the_prefix_of_transcripts_too(demo_corpus):
    module, _ = train(demo_corpus, batches=1, text_prefix="query: ")
    tokens = {
        prefix: module.processor.tokenizer(f"{prefix}so kind")["input_ids"] for prefix in ("", "query: ")
    }
    assert module.processor(text="so kind")["input_ids"] == [tokens["query: "]] != [tokens[""]]

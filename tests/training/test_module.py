"""What each setting does to a training run."""

import copy
import csv
import json
import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging
from torch.nn import functional as F

from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.model.modeling import MmsrOutput
from mmsr.training.checkpoints import Continuation
from mmsr.training.losses import NonFiniteLossError, Window
from mmsr.training.module import MmsrModule, _adamw, load_lightning_checkpoint
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


def test_the_optimiser_of_cpus_steps_as_the_plain_one_and_gradients_are_clipped():
    weights = [torch.randn(7, 5), torch.randn(5)]
    ours, plain = ([torch.nn.Parameter(weight.clone()) for weight in weights] for _ in range(2))
    settings = {"lr": 0.01, "weight_decay": 0.1}
    fused = _adamw([{"params": ours[:1], **settings}, {"params": ours[1:], **settings, "weight_decay": 0.0}])
    reference = torch.optim.AdamW(
        [{"params": plain[:1]}, {"params": plain[1:], "weight_decay": 0.0}], foreach=False, **settings
    )
    for _ in range(5):
        for one, other in zip(ours, plain, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        fused.step()
        reference.step()
    assert fused.defaults["fused"]
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
    plugin = L.pytorch.plugins.MixedPrecision("bf16-mixed", "cpu")
    plugin.clip_gradients(fused, 1e-3)
    total = sum(float(one.grad.square().sum()) for one in ours)
    assert total <= 1.01e-6


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
    means = {"sentiment_loss": torch.tensor(0.7), "rationale_loss": torch.tensor(3.0)}
    with torch.no_grad():
        module.log_variances["sentiment_loss"].fill_(0.5)
        module.log_variances["rationale_loss"].fill_(-1.0)

    def total(labels: list[list[int]]) -> torch.Tensor:
        batch = {"sentiment_labels": torch.tensor([1, -100]), "labels": torch.tensor(labels)}
        _, _, shares = Window([batch], count=module._targets).next()
        terms = module._terms([MmsrOutput(**means)], batch)
        return sum(term.weighted * shares[name] for name, term in terms.items())

    expected = math.exp(-0.5) * 0.7 + 0.25 + math.exp(1.0) * 3.0 - 0.5
    assert float(total([[5, 9], [5, -100]])) == pytest.approx(expected)
    without = total([[5, -100], [5, -100]])  # labels' tokens alone: no rationale is known
    assert float(without) == pytest.approx(math.exp(-0.5) * 0.7 + 0.25)
    (gradient,) = torch.autograd.grad(without, [module.log_variances["rationale_loss"]])
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


def test_soft_targets_are_learned_and_do_not_select(demo_corpus, tmp_path):
    with open(demo_corpus, newline="", encoding="utf-8") as file:
        rows = [{**row, "audio": str(demo_corpus.parent / row["audio"])} for row in csv.DictReader(file)]

    def figures(soft: Callable[[dict[str, str]], str]) -> dict[str, float]:
        path = tmp_path / "soft.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*rows[0], "soft_label"])
            writer.writeheader()
            writer.writerows({**row, "soft_label": soft(row)} for row in rows)
        return train(path)[1].figures[0]

    others = '{"negative": 1, "neutral": 1, "positive": 1}'
    none = figures(lambda row: "")
    certain = figures(lambda row: json.dumps({row["label"]: 1}))
    assert certain["train_sentiment_loss"] == pytest.approx(none["train_sentiment_loss"], rel=1e-5)
    assert certain["dev_loss"] == pytest.approx(none["dev_loss"], rel=1e-5)
    unsure = figures(lambda row: others if row["split"] == "train" else "")
    assert abs(unsure["train_sentiment_loss"] - none["train_sentiment_loss"]) > 1e-3
    selecting = figures(lambda row: others if row["split"] == "dev" else "")
    assert selecting["dev_loss"] == pytest.approx(none["dev_loss"], rel=1e-5)


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


# ---------------------------------------------------------------------- means over targets


class NoDropout(Callback):
    """Dropout is off, so that batches differ in nothing but their rows."""

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        for part in module.modules():
            if isinstance(part, torch.nn.Dropout):
                part.p = 0.0
            for name in ("dropout", "activation_dropout"):
                if isinstance(getattr(part, name, None), float):
                    setattr(part, name, 0.0)


class Gradients(Callback):
    """The gradients of each optimiser step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_before_optimizer_step(self, trainer: L.Trainer, module: L.LightningModule, optimizer: Any) -> None:
        named = module.named_parameters()
        self.steps.append({name: weight.grad.clone() for name, weight in named if weight.grad is not None})


@pytest.fixture(scope="module")
def sparse(demo_corpus):
    """The demo corpus with a rationale in three rows of ten, and no label in one of five."""
    rows = list(csv.DictReader(demo_corpus.open(encoding="utf-8")))
    manifest = demo_corpus.parent / "sparse.csv"
    with manifest.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for index, row in enumerate(rows):
            row["rationale"] = row["rationale"] if index % 10 < 3 else ""
            row["label"] = row["label"] if index % 5 else ""
            writer.writerow(row)
    return manifest


def one_epoch(manifest: Path, batch_rows: int, accumulate: int, **switches: Any):
    """The gradients and logged losses of an epoch, at a learning rate near zero."""
    settings = {"preset": "tiny", "vocab_size": 600, "learning_rate": 1e-12, "audio_dropout": 0.0}
    settings |= {"text_dropout": 0.0, "fusion": "text_only", **switches}
    watch, gradients = Watch(), Gradients()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        precision="32-true",
        accumulate_grad_batches=accumulate,
        logger=False,
        callbacks=[NoDropout(), watch, gradients],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    data = MmsrDataModule(str(manifest), batch_rows=batch_rows, batch_seconds=1e6, batch_tokens=10**6)
    trainer.fit(MmsrModule(TrainingSettings(**settings)), datamodule=data)
    return gradients.steps, watch.figures[0]


def assert_equal_gradients(found, expected, rtol=1e-3):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=rtol, atol=2e-5, msg=name)


LOSSES_OF_TEXT = [
    {},
    {"class_weights": [1.0, 0.0, 3.0], "label_smoothing": 0.1, "config": {"rationale_loss_weight": 4.0}},
    {"uncertainty_weighting": True, "rationale_format": "post_thinking"},
    {"rationale_format": "none"},
]


@pytest.mark.parametrize("switches", LOSSES_OF_TEXT, ids=["plain", "weighted", "uncertainty", "label"])
def test_losses_and_gradients_are_means_over_targets_whatever_the_batches(sparse, switches):
    (expected,), figures = one_epoch(sparse, 60, 1, **switches)
    names = [name for name in figures if name.endswith("loss")]
    assert {"dev_loss", "train_loss", "dev_sentiment_loss", "train_sentiment_loss"} <= set(names)
    for batch_rows in (7, 2):  # the optimiser steps at the end of the epoch
        (found,), logged = one_epoch(sparse, batch_rows, 1000, **switches)
        assert_equal_gradients(found, expected)
        for name in names:
            assert logged[name] == pytest.approx(figures[name], rel=1e-5), name


def test_auxiliary_heads_are_means_over_targets_too(sparse):
    switches = {"fusion": "concat", "objectives": {"auxiliary_heads": 0.5}, "batch_rows": 60}
    (expected,), figures = one_epoch(sparse, accumulate=1, **switches)
    (found,), logged = one_epoch(sparse, accumulate=1000, **{**switches, "batch_rows": 5})
    assert_equal_gradients(found, expected)
    assert logged["train_auxiliary_heads_loss"] == pytest.approx(figures["train_auxiliary_heads_loss"])
    assert logged["train_loss"] == pytest.approx(figures["train_loss"], rel=1e-5)


def test_loads_of_experts_are_those_of_a_step_whatever_its_batches(sparse):
    settings = {"fusion_layers": 2, "dropout": 0.0}
    switches = {"fusion": "mixture", "rationale_format": "none", "config": settings}
    (expected,), figures = one_epoch(sparse, 60, 1, **switches)
    (found,), logged = one_epoch(sparse, 7, 1000, **switches)
    assert_equal_gradients(found, expected)
    assert figures["train_expert_overload"] > 0
    assert logged["train_expert_overload"] == pytest.approx(figures["train_expert_overload"])


def test_the_bias_of_a_gate_moves_once_a_step_and_not_in_a_development_batch(demo_corpus):
    module, watch = train(demo_corpus, fusion="mixture", batches=3, config={"fusion_balance_rate": 0.125})
    (name,) = (name for name in watch.weights[0] if name.endswith("choice_bias"))
    start, end = (weights[name] for weights in watch.weights)
    assert not start.any() and end.any() and name in watch.changed()
    assert torch.equal((end / 0.125).round(), end / 0.125) and end.abs().max() <= 3 * 0.125
    assert all(gate.loads is None for _, gate in module._gates())


def test_each_step_of_an_epoch_is_the_mean_of_its_batches_and_the_last_may_have_fewer(sparse):
    single, _ = one_epoch(sparse, 5, 1)
    steps, _ = one_epoch(sparse, 5, 4)
    assert len(single) % 4 == 1, "the last step has one batch"
    assert len(steps) == math.ceil(len(single) / 4)
    module = MmsrModule(TrainingSettings(preset="tiny", vocab_size=600, fusion="text_only"))
    data = MmsrDataModule(str(sparse), batch_rows=5, batch_seconds=1e6, batch_tokens=10**6)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=0, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(module, datamodule=data)
    counts = [
        module.model.target_weights(sentiment_labels=batch["sentiment_labels"])["sentiment_loss"]
        for batch in data.train_dataloader()
    ]
    name = "model.sentiment_head.classifier.bias"  # which has a gradient of the sentiment loss alone
    for step, found in enumerate(steps):
        part = slice(4 * step, 4 * step + 4)
        weights = torch.stack(counts[part])
        means = torch.stack([gradients[name] for gradients in single[part]])
        expected = (weights[:, None] * means).sum(0) / weights.sum()
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6)


def test_a_development_batch_without_any_label_counts_no_rows(sparse):
    rows = list(csv.DictReader(sparse.open(encoding="utf-8")))
    manifest = sparse.parent / "unlabelled-batch.csv"
    with manifest.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, "label": ""} if row["split"] == "dev" and len(row["text"]) < 30 else row)
    for rationale_format in ("multitask", "post_thinking"):
        _, whole = one_epoch(manifest, 60, 1, rationale_format=rationale_format)
        _, figures = one_epoch(manifest, 1, 1000, rationale_format=rationale_format)
        for name in (name for name in whole if name.startswith("dev_")):
            assert figures[name] == pytest.approx(whole[name], rel=1e-5), name


# ---------------------------------------------------------------------- a loss that is not finite


class Spoil(Callback):
    """Makes weights, or audio of one row, NaN before a batch."""

    def __init__(self, what: str, stage: str) -> None:
        self.what, self.stage = what, stage
        self.ids: list[str] = []

    def spoil(self, module: MmsrModule, batch: dict[str, Any], batch_idx: int) -> None:
        if batch_idx == 1:
            self.ids = batch["ids"]
            if self.what == "weights":
                module.model.head.classifier.weight.data.fill_(math.nan)
            else:
                batch["input_values"][0, 0] = math.inf

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if self.stage == "training":
            self.spoil(module, batch, batch_idx)

    def on_validation_batch_start(self, trainer, module, batch, batch_idx, dataloader_idx=0):
        if self.stage == "development":
            self.spoil(module, batch, batch_idx)


@pytest.mark.parametrize(
    ("what", "stage", "cause"),
    [
        ("weights", "training", r"weights were not finite before it.*lower learning_rate=0\.001"),
        ("weights", "development", r"weights were not finite before it"),
        ("audio", "training", r"input_values of '[^']+' is not finite"),
    ],
)
def test_a_loss_that_is_not_finite_ends_the_run_and_names_rows_and_causes(demo_corpus, what, stage, cause):
    spoil = Spoil(what, stage)
    limits = {"limit_val_batches": 3, "limit_train_batches": 3}
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        callbacks=[spoil],
        enable_checkpointing=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        **limits,
    )
    module = MmsrModule(TrainingSettings(preset="tiny", vocab_size=600))
    expected = rf"^the loss is not finite in epoch 0, {stage} batch 1 \(sentiment_loss nan.*{cause}"
    with pytest.raises(NonFiniteLossError, match=expected) as told:
        trainer.fit(module, datamodule=MmsrDataModule(str(demo_corpus), batch_rows=2))
    assert "\n" not in str(told.value) and len(spoil.ids) == 2
    assert all(repr(name) in str(told.value) for name in spoil.ids)


def test_a_loss_of_float16_names_its_precision(demo_corpus):
    module, _ = train(demo_corpus, class_weights=[1.0, 2.0, 3.0])
    module.trainer = L.Trainer(
        accelerator="cpu", precision="16-true", logger=False, enable_checkpointing=False
    )
    terms = module._terms([MmsrOutput(sentiment_loss=torch.tensor(math.inf))], {})
    told = module._why_not_finite(terms, {}, [f"row{index}" for index in range(25)], place="training batch 3")
    assert "float16 overflows above 65,504: --trainer.precision bf16-mixed or 32-true" in told
    assert "'row19' and 5 more" in told and "'row20'" not in told
    assert "class_weights=[1.0, 2.0, 3.0]" in told


# ---------------------------------------------------------------------- checkpoints


def test_the_module_of_a_checkpoint_loads(demo_corpus, tmp_path):
    module, _ = train(demo_corpus, uncertainty_weighting=True, objectives={"auxiliary_heads": 0.3})
    module.trainer.save_checkpoint(tmp_path / "run.ckpt")
    loaded = MmsrModule.load_from_checkpoint(tmp_path / "run.ckpt")
    expected = module.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in loaded.state_dict().items())
    assert loaded.settings == module.settings and not loaded.model.training
    batch = loaded.processor(text=["so kind"], return_tensors="pt")
    assert torch.equal(loaded.model(**batch).sentiment_logits, module.model.eval()(**batch).sentiment_logits)
    with pytest.raises(ValueError, match=r"load_from_checkpoint\(learning_rate=\): a checkpoint has its own"):
        MmsrModule.load_from_checkpoint(tmp_path / "run.ckpt", learning_rate=0.1)
    with pytest.raises(ValueError, match="nothing.ckpt: no such file; accepted: a .ckpt file"):
        MmsrModule.load_from_checkpoint(tmp_path / "nothing.ckpt")


def test_a_checkpoint_of_earlier_names_loads_and_is_exported(demo_corpus, tmp_path):
    module, _ = train(demo_corpus)
    module.trainer.save_checkpoint(tmp_path / "new.ckpt")
    checkpoint = torch.load(tmp_path / "new.ckpt", weights_only=False)
    earlier = {
        "model.joint_encoder.": "model.encoder.",
        "model.sentiment_head.classifier.": "model.head.out.",
        "model.sentiment_head.": "model.head.",
        "model.rationale_decoder.": "model.decoder.",
        ".norm1.": ".query_norm.",
        ".norm2.": ".memory_norm.",
    }
    names = {}
    for name in checkpoint["state_dict"]:
        names[name] = name
        for new, old in earlier.items():
            if names[name].startswith(new) or (new.startswith(".") and ".fusion." in name):
                names[name] = names[name].replace(new, old, 1)
    checkpoint["state_dict"] = {names[name]: weight for name, weight in checkpoint["state_dict"].items()}
    assert "model.encoder.fusion.text_layers.0.query_norm.weight" in checkpoint["state_dict"]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    expected = module.model.state_dict()
    for model in (
        MmsrModule.load_from_checkpoint(tmp_path / "old.ckpt").model,
        load_lightning_checkpoint(tmp_path / "old.ckpt")[0],
    ):
        assert model.state_dict().keys() == expected.keys()
        assert all(torch.equal(weight, expected[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize(
    ("accumulate", "fusion"), [(1, "text_only"), (2, "text_only"), (3, "text_only"), (3, "mixture")]
)
def test_a_run_resumed_within_an_epoch_ends_as_the_unbroken_one(demo_corpus, tmp_path, accumulate, fusion):
    """Dropout, frozen parts, the loads of experts and the epoch's training losses go on where they were."""

    class Save(Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if batch_idx == 3 and not trainer.ckpt_path:
                trainer.save_checkpoint(tmp_path / "within.ckpt")

    def run(checkpoint: Path | None) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        settings = {"preset": "tiny", "vocab_size": 600, "fusion": fusion, "config": OWN_TABLES}
        module = MmsrModule(TrainingSettings(**settings, train_layers={"text_encoder": 1}))
        watch = Watch()
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=1,
            precision="32-true",
            accumulate_grad_batches=accumulate,
            limit_train_batches=7,
            logger=False,
            callbacks=[watch, Save(), Continuation()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        data = MmsrDataModule(str(demo_corpus), batch_rows=5)
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=False)
        return watch.weights[-1], watch.figures[-1]

    weights, figures = run(None)
    torch.manual_seed(99)
    resumed, again = run(tmp_path / "within.ckpt")
    for name, weight in weights.items():
        assert torch.equal(resumed[name], weight), name
    assert {name: again[name] for name in figures} == figures

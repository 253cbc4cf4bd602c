"""Frozen encoders behind the feature store."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import soundfile
import torch
from lightning.pytorch.callbacks import Callback
from transformers import AutoConfig

from mmsr.data.features.encoders import stored_audio
from mmsr.data.features.store import FeatureStore
from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.model.configuration import MmsrConfig
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor
from mmsr.training.module import MmsrModule
from mmsr.training.settings import TrainingSettings


def test_stored_states_of_one_window_are_not_another_windows(tmp_path: Path):
    whisper = AutoConfig.for_model(
        "whisper", d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=24
    )
    processor = MmsrProcessor.train(["kind words"] * 3, vocab_size=300)
    recording = tmp_path / "speech.wav"
    soundfile.write(recording, np.random.default_rng(0).standard_normal(16_000) * 0.1, 16_000)

    def states(seconds: float) -> torch.Tensor:
        torch.manual_seed(0)
        config = MmsrConfig.from_preset(
            "tiny", fusion="audio_only", audio_encoder=whisper, audio_window_seconds=seconds
        )
        model = MmsrForSentimentReasoning(config)
        return stored_audio(model, processor, tmp_path / "store", bf16=False)(str(recording))

    half, whole = states(0.5), states(1.0)
    assert half.shape == whole.shape == (50, 1, 16)
    assert not torch.equal(half, whole)
    assert torch.equal(states(0.5), half)


def test_level_and_dynamic_range_are_part_of_the_key_where_they_are_set(tmp_path: Path):
    """Without them a key is that of earlier releases, whose stores are still read."""
    whisper = AutoConfig.for_model(
        "whisper", d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=24
    )
    recording = tmp_path / "speech.wav"
    soundfile.write(recording, np.random.default_rng(0).standard_normal(16_000) * 0.01, 16_000)

    def states(name: str, level: float | None, decades: float | None) -> tuple[torch.Tensor, dict[str, Any]]:
        torch.manual_seed(0)
        config = MmsrConfig.from_preset(
            "tiny",
            fusion="audio_only",
            audio_encoder=whisper,
            audio_window_seconds=1.0,
            audio_dynamic_range=decades,
        )
        processor = MmsrProcessor.train(["kind words"] * 3, vocab_size=300, target_level=level)
        model = MmsrForSentimentReasoning(config)
        found = stored_audio(model, processor, tmp_path / name, bf16=False)(str(recording))
        (maker,) = (tmp_path / name).glob("*/maker.json")
        return found, json.loads(maker.read_text("utf-8"))["processing"]

    plain, key = states("plain", None, None)
    assert set(key) == {"config", "layers", "window_seconds", "feature_extractor", "bf16"}
    levelled, of_level = states("level", -23, None)
    assert of_level == {**key, "target_level": -23.0} and not torch.equal(levelled, plain)
    lifted, of_range = states("range", None, 1)
    assert of_range == {**key, "dynamic_range": 1.0} and not torch.equal(lifted, plain)


class Watch(Callback):
    """Each step's loss, and how often the frozen encoders ran in training."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.ran = {"audio_encoder": 0, "text_encoder": 0}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        model, _ = pl_module.parts()  # type: ignore[operator]
        for name in self.ran:
            getattr(model.encoder, name).register_forward_hook(lambda *_, name=name: self.count(name))

    def count(self, name: str) -> None:
        self.ran[name] += 1

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, *_: Any
    ) -> None:
        self.losses.append(float(outputs["loss"]))


def train(corpus: Path, folder: Path, **switches: Any) -> Watch:
    watch = Watch()
    options: dict[str, Any] = {"freeze": ["audio_encoder", "text_encoder"], **switches}
    settings = TrainingSettings(
        preset="tiny",
        vocab_size=600,
        config={"tie_word_embeddings": False, "text_layer_mix": True},
        learning_rate=1e-2,
        text_dropout=0.3,
        **options,
    )
    trainer = L.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=2,
        precision="32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[watch],
    )
    trainer.fit(MmsrModule(settings), datamodule=MmsrDataModule(str(corpus), batch_rows=8))
    return watch


@pytest.fixture(scope="module")
def heard(demo_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Watch:
    """A training that runs its frozen encoders in each step."""
    return train(demo_corpus, tmp_path_factory.mktemp("heard"))


# what the store rounds: nothing but the order of sums; 11 bits; 8 bits
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-5), ("float16", 2e-3), ("bfloat16", 2e-2)])
def test_losses_on_stored_features_are_those_of_the_running_encoders(
    demo_corpus: Path, tmp_path: Path, heard: Watch, dtype: str, tolerance: float
):
    stored = train(demo_corpus, tmp_path, feature_store=str(tmp_path / "store"), feature_dtype=dtype)
    assert heard.ran["audio_encoder"] > 8 and heard.ran["text_encoder"] > 8
    assert stored.ran == {"audio_encoder": 0, "text_encoder": 0}
    assert len(heard.losses) == len(stored.losses) > 8
    assert heard.losses[-1] < 0.9 * heard.losses[0]
    np.testing.assert_allclose(stored.losses, heard.losses, rtol=tolerance)
    makers = FeatureStore(tmp_path / "store").makers()
    assert {one["name"].split(",")[0] for one in makers} == {"audio", "text"}


@pytest.mark.filterwarnings("ignore")
def test_one_frozen_encoder_is_stored_and_the_other_trained(demo_corpus: Path, tmp_path: Path, heard: Watch):
    folder = str(tmp_path / "store")
    stored = train(demo_corpus, tmp_path, feature_store=folder, freeze=["text_encoder"])
    assert stored.ran["text_encoder"] == 0 and stored.ran["audio_encoder"] > 8
    first = FeatureStore(folder).runs()
    assert [run["hits"] for run in first] == [0] and first[0]["misses"] > 0
    train(demo_corpus, tmp_path, feature_store=folder, freeze=["text_encoder"])
    assert FeatureStore(folder).runs()[1]["misses"] == 0, "a second run encodes nothing"

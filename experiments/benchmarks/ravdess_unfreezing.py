"""RAVDESS, development pairs alone: poolings, and training the layer read, against the frozen default.

    python experiments/benchmarks/ravdess_unfreezing.py --folds 0 1 2 3 --seeds 0 1

Trains the streams, fusion and head of `experiments/ravdess.yaml` in each fold and answers its development
pair, never its test speakers. What makes training a layer of Whisper cheap on a CPU: the configuration reads
layer 3 alone, so that the layers above it need not run, and those below it are frozen, so that their answer
(layer 2 over the whole window: Whisper hears the padding too) is stored once. The window is `--seconds` long
in place of 30 s, for the frozen default too, which all others are compared with.

    waveform ─► layers 1, 2 (stored) ─► layer 3 (stored, or trained) ─► the clip's frames ─► fusion, head

The epoch is the last: none is chosen. Differences are paired by row, with a bootstrap over the development
speakers. A run leaves OUT/<variant>-fold<f>-seed<s>-... and is found again; prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from datasets import Dataset
from ravdess import CONFIG, macro_f1
from rich.progress import track
from torch import Tensor, nn
from transformers import PreTrainedModel, get_cosine_schedule_with_warmup

from mmsr.data.audio.decoding import Audio
from mmsr.data.features.store import FeatureStore, StoredFeatures, encoder_fingerprint, file_digest
from mmsr.data.loading.splits import speaker_fold
from mmsr.data.manifest.manifest import load_manifest
from mmsr.evaluation.significance import paired_bootstrap
from mmsr.files import write_file
from mmsr.model.encoders.spectrogram import WhisperAudioEncoder
from mmsr.model.modeling import MmsrForSentimentReasoning, MmsrOutput
from mmsr.model.processing import MmsrProcessor
from mmsr.training.parameters import add_lora, eval_frozen, parameter_groups, transformer_layers
from mmsr.training.run import is_bf16
from mmsr.training.settings import Lora, Optimisation

LINEAR = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "fc1", "fc2")
LAYER = 3  # the one that ravdess.yaml reads, counted from 1; `layers[LAYER - 1]` makes it
SAMPLES_A_FRAME = 320  # 20 ms at 16 kHz


@dataclass(frozen=True)
class Variant:
    """What differs from the frozen default; `rate` is that of the trained layer or its update."""

    config: dict[str, Any] = field(default_factory=dict)
    train_layer: bool = False
    lora: Lora | None = None
    rate: float | None = None


VARIANTS = {
    "frozen": Variant(),
    "mean": Variant(config={"pooling": "mean"}),
    "attention": Variant(config={"pooling": "attention"}),
    "lora": Variant(lora={"r": 8, "alpha": 16}, rate=5e-4),
    "unfrozen": Variant(train_layer=True, rate=5e-5),
}


@dataclass(frozen=True)
class Corpus:
    """The rows: states `[n, w, e]` of the layer below the one read and of that one, and frames `[n]`."""

    below: Tensor
    at: Tensor
    frames: Tensor
    sentences: list[str]
    labels: np.ndarray
    speakers: np.ndarray


def hear(settings: dict[str, Any], table: Dataset, *, seconds: float) -> Corpus:
    """Both layers' states of every clip over the whole window, kept in the experiment's feature store."""
    model = MmsrForSentimentReasoning.from_encoders(
        audio=settings["model"]["audio"],
        fusion="audio_only",
        audio_layer_mix=True,
        audio_window_seconds=seconds,
    ).eval()
    encoder, load = model.encoder.audio_encoder, Audio()
    # one layer above stays: the mix gives the top layer's state behind the closing norm
    del transformer_layers(encoder.model)[LAYER + 1 :]

    @torch.inference_mode()
    def encode(paths: Sequence[str]) -> list[Tensor]:
        (path,) = paths
        waveform = torch.from_numpy(load(path))
        if len(waveform) > encoder.window:
            raise ValueError(
                f"{path} lasts {len(waveform) / 16_000:.2f} s; accepted: up to --seconds {seconds:g}"
            )
        full = F.pad(waveform, (0, encoder.window - len(waveform)))[None]
        with bf16():
            states, _ = model.encoder.encode_audio(full, torch.ones_like(full).long())
        return [states[0, :, LAYER - 1 : LAYER + 1]]

    features = StoredFeatures(
        FeatureStore(settings["model"]["feature_store"]),
        encode,
        content=file_digest,
        encoder=encoder_fingerprint(encoder.model),
        processing={
            "what": f"layers {LAYER - 1} and {LAYER}, whole window",
            "seconds": seconds,
            "bf16": is_bf16(),
        },
        name=f"whisper, layers {LAYER - 1} and {LAYER}",
    )
    states = torch.stack([features(path) for path in track(table["audio"], description="states")])
    samples = torch.tensor([len(load(path)) for path in table["audio"]])
    return Corpus(
        below=states[:, :, 0].contiguous(),
        at=states[:, :, 1].contiguous(),
        frames=-(-samples // SAMPLES_A_FRAME),
        sentences=list(table["text"]),
        labels=np.array(table["label"]),
        speakers=np.array(table["speaker"]),
    )


class Study(nn.Module):
    """The model of one run over rows of a corpus; of its encoders, at most layer `LAYER` is trained."""

    def __init__(
        self,
        settings: dict[str, Any],
        variant: Variant,
        *,
        corpus: Corpus,
        audio: PreTrainedModel,
        train: list[int],
    ) -> None:
        super().__init__()
        given = settings["model"]
        config = {**given["config"], **variant.config}
        for name in ("audio_layer_mix", "audio_layers"):  # the one layer comes by itself
            del config[name]
        self.model = MmsrForSentimentReasoning.from_encoders(
            audio=audio, text=given["text"], fusion=given["fusion"], **config
        )
        self.names = self.model.config.labels
        self.corpus = corpus
        encoder = self.model.encoder
        for part in (encoder.audio_encoder, encoder.text_encoder):
            part.requires_grad_(False)
        if variant.lora is not None:
            targets = [f"layers.{LAYER - 1}.{name}" for name in LINEAR]
            add_lora(self.model, {"audio_encoder": {**variant.lora, "target_modules": targets}})
        layer = transformer_layers(encoder.audio_encoder.model)[LAYER - 1]
        if variant.train_layer:
            layer.requires_grad_(True)
        self.layer = layer if variant.lora or variant.train_layer else None
        heard = torch.cat([corpus.at[row, : corpus.frames[row]].float() for row in train[::4]])  # [f, e]
        encoder.audio_stream.deviation[0], encoder.audio_stream.mean[0] = torch.std_mean(heard, dim=0)
        self._read(given)

    @torch.no_grad()
    def _read(self, given: dict[str, Any]) -> None:
        """The text encoder's states of the corpus's few sentences."""
        processor = MmsrProcessor.from_encoders(
            audio=given["audio"],
            text=given["text"],
            text_prefix=given["text_prefix"],
            rationale_format="none",
        )
        distinct = sorted(set(self.corpus.sentences))
        tokens = processor(text=distinct, return_tensors="pt")
        self.text_states, self.text_mask = self.model.encoder.eval().encode_text(
            tokens["input_ids"], tokens["attention_mask"]
        )
        self.sentence = torch.tensor([distinct.index(sentence) for sentence in self.corpus.sentences])

    def forward(self, rows: Tensor, *, text_dropout: float = 0.0) -> MmsrOutput:
        """Answer rows `[b]` of the corpus; with its probability a row loses its transcript."""
        corpus, frames = self.corpus, self.corpus.frames[rows]
        longest = int(frames.max())
        if self.layer is None:
            states = corpus.at[rows, :longest].float()
        else:  # it attends over the whole window
            states = self.layer(corpus.below[rows].float(), None)[:, :longest]
        mute = torch.rand(len(rows)) < text_dropout
        return self.model(
            audio_features=states[:, :, None],
            audio_features_mask=(torch.arange(longest) < frames[:, None]).long(),
            text_features=self.text_states[self.sentence[rows]],
            attention_mask=self.text_mask[self.sentence[rows]].masked_fill(mute[:, None], 0),
            sentiment_labels=torch.tensor([self.names.index(label) for label in corpus.labels[rows]]),
        )

    def learn(self, settings: dict[str, Any], *, rows: list[int], epochs: int, rate: float | None) -> None:
        """Train on rows as `mmsr fit` does with these settings, but for its batches of like length."""
        given = settings["model"]
        optimizer = torch.optim.AdamW(
            parameter_groups(
                self.model,
                self.model,
                Optimisation(learning_rate=given["learning_rate"], encoder_learning_rate=rate),
            ),
            foreach=True,
        )
        trained = [weight for group in optimizer.param_groups for weight in group["params"]]
        batch = settings["data"]["batch_rows"]
        steps = epochs * -(-len(rows) // batch)
        schedule = get_cosine_schedule_with_warmup(optimizer, -(-steps // 10), steps)
        self.train()
        eval_frozen(self.model.encoder.audio_encoder)
        eval_frozen(self.model.encoder.text_encoder)
        for _ in range(epochs):
            for some in torch.tensor(rows)[torch.randperm(len(rows))].split(batch):
                with bf16():
                    loss = self(some, text_dropout=given["text_dropout"]).loss
                loss.backward()
                nn.utils.clip_grad_norm_(trained, 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()

    @torch.inference_mode()
    def answer(self, rows: list[int]) -> list[str]:
        """The predicted label of each row."""
        self.eval()
        with bf16():
            logits = torch.cat([self(some).sentiment_logits.float() for some in torch.tensor(rows).split(32)])
        return [self.names[label] for label in logits.argmax(-1).tolist()]


def check_layer(corpus: Corpus, audio: PreTrainedModel) -> None:
    """Layer `LAYER` over the stored states below it is the stored layer: what is trained is what was read.

    Raises:
        ValueError: It is not, to bfloat16's precision.
    """
    with torch.inference_mode(), bf16():
        again = transformer_layers(audio)[LAYER - 1](corpus.below[:4].float(), None)
    off = (again.float() - corpus.at[:4].float()).norm() / corpus.at[:4].float().norm()
    if off > 0.01:
        raise ValueError(
            f"layer {LAYER} made again differs from the stored one by {off:.3f}; accepted: up to 0.01"
        )


def bf16() -> torch.autocast:
    """Autocast as `mmsr fit` chooses it."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bf16())


def macro_f1s(gold: np.ndarray, answers: np.ndarray) -> str:
    """Mean over the seeds, and each seed's."""
    each = [macro_f1(gold, one) for one in answers]
    return f"{np.mean(each):.3f} ({', '.join(f'{one:.3f}' for one in each)})"


def main() -> None:
    """Run what is not there yet, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=6.0, help="Of the window.")
    parser.add_argument("--out", type=Path, default=Path("runs/ravdess-unfreezing"))
    args = parser.parse_args()
    settings = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    table = load_manifest(settings["data"]["manifest"])
    folds = {fold: speaker_fold(table, fold=fold) for fold in args.folds}
    corpus = hear(settings, table, seconds=args.seconds)
    audio = WhisperAudioEncoder.load(settings["model"]["audio"])
    check_layer(corpus, audio)

    def run(name: str, *, fold: int, seed: int) -> dict[str, Any]:
        """One training, or what it left when it was run before."""
        path = args.out / f"{name}-fold{fold}-seed{seed}-epochs{args.epochs}-{args.seconds:g}s.json"
        if not path.exists():
            torch.manual_seed(seed)
            study = Study(settings, VARIANTS[name], corpus=corpus, audio=audio, train=folds[fold]["train"])
            started = time.process_time()
            torch.manual_seed(seed)  # building draws differently for each variant
            study.learn(settings, rows=folds[fold]["train"], epochs=args.epochs, rate=VARIANTS[name].rate)
            left = {
                "answers": study.answer(folds[fold]["dev"]),
                "trained_parameters": sum(one.numel() for one in study.parameters() if one.requires_grad),
                "cpu_seconds": time.process_time() - started,
            }
            write_file(path, json.dumps(left).encode())
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    held_out = np.concatenate([folds[fold]["dev"] for fold in args.folds])
    gold, speakers = corpus.labels[held_out], corpus.speakers[held_out]
    frozen: np.ndarray | None = None
    print("| variant | macro-F1 | against frozen | trained weights | processor time an epoch |")
    print("|---|---|---|---|---|")
    for name in args.variants:
        runs = [[run(name, fold=fold, seed=seed) for fold in args.folds] for seed in args.seeds]
        answers = np.array([[label for one in row for label in one["answers"]] for row in runs])
        against = ""
        if name == "frozen":
            frozen = answers
        elif frozen is not None:
            found = paired_bootstrap(gold, answers, frozen, clusters=speakers)
            against = f"{found.a - found.b:+.3f} [{found.interval[0]:+.3f}, {found.interval[1]:+.3f}]"
        seconds = np.mean([one["cpu_seconds"] for row in runs for one in row]) / args.epochs
        weights = runs[0][0]["trained_parameters"]
        cells = (name, macro_f1s(gold, answers), against, f"{weights:,}", f"{seconds:.0f} s")
        print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()

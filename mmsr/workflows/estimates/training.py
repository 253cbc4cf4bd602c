"""How long a training takes: its own program is run for some batches, into a temporary folder.

arguments of `mmsr fit` ─► the whole epoch's batches ─► some of them, trained on and timed ─┐
                        └► files and texts to encode ─► some of them, encoded and timed ────┴─► `Estimate`
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pyarrow.compute as pc
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.data import DataLoader

from mmsr.data.audio.reading import read_each, seconds_of
from mmsr.data.features.store import StoredFeatures
from mmsr.data.loading.batching import SeededLoader
from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.data.loading.splits import Split
from mmsr.data.manifest.manifest import column_of
from mmsr.records import SAMPLE_RATE
from mmsr.training.arguments import with_packaged_configs
from mmsr.training.callbacks import calibrate_model
from mmsr.training.factory import open_feature_store
from mmsr.training.module import MmsrModule
from mmsr.training.run import MmsrCLI, fit, quieten
from mmsr.training.settings import ENCODERS, TrainingSettings
from mmsr.workflows.estimates.costs import (
    Clock,
    Estimate,
    Measured,
    Part,
    constant,
    linear,
    peak_memory,
    spread_order,
    start_of,
    this_machine,
)

ENCODING = "encoding "  # and the modality, the name of a part
_ENCODING_SHARE = 0.3  # share of the time for encoders with a feature store
_DEV_BATCHES = 3
_WARM_UP, _FEWEST = 2, 3  # batches that are not timed, and that are in any case
_LENGTHS_READ = 2000  # files and texts of the store whose lengths tell those of all
_SAMPLES = 2 * SAMPLE_RATE  # bytes of a second in the data module's cache
_ENOUGH = 2000  # batches


@dataclasses.dataclass(frozen=True)
class Epoch:
    """The batches of an epoch.

    Attributes:
        rows: Row numbers of each batch.
        seconds: Of audio, of each row of the split.
        tokens: Of the transcript.
        characters: Of the rationale.
        caches: Whether a file is decoded once.
    """

    rows: list[list[int]]
    seconds: np.ndarray
    tokens: np.ndarray
    characters: np.ndarray
    caches: bool

    @classmethod
    def of(cls, loader: DataLoader[Any]) -> Epoch:
        """The batches that a loader of the data module makes."""
        dataset: Any = loader.dataset
        batches = [
            [row[1] if isinstance(row, tuple) else row for row in batch]
            for batch in loader.batch_sampler  # type: ignore[union-attr]
        ]
        rationales = column_of(dataset.rows, "rationale")
        return cls(
            batches,
            dataset.seconds,
            dataset.tokens,
            pc.fill_null(pc.utf8_length(rationales), 0).to_numpy(),
            dataset.caches,
        )

    def sizes(self, batch: int, *, decoded: set[int]) -> tuple[float, ...]:
        """What a batch's seconds depend on.

        These are padded seconds, 1, padded tokens, rows, padded characters of the rationales, and the seconds
        that are decoded. The last is of its loading, which depends on rows too, the others of its step.

        Args:
            batch: Its number.
            decoded: Rows that are in the cache; those of the batch are added.
        """
        rows = self.rows[batch]
        fresh = [row for row in set(rows) if row not in decoded] if self.caches else rows
        decoded.update(fresh)
        count = float(len(rows))
        seconds, tokens, characters = (
            count * float(of[rows].max()) for of in (self.seconds, self.tokens, self.characters)
        )
        return (seconds, 1.0, tokens, count, characters, float(self.seconds[fresh].sum()))

    def whole(self, *, epochs: float, batches: float | None = None) -> np.ndarray:
        """The sizes of epochs, of which each has `batches`; by default all."""
        decoded: set[int] = set()
        sizes = np.array([self.sizes(batch, decoded=decoded) for batch in range(len(self.rows))])
        total = sizes.sum(axis=0)
        share = 1.0 if batches is None else batches / len(self.rows)
        times = np.full(len(total), epochs * share)
        if self.caches:
            times[-1] = min(max(1.0, share), times[-1])
        return total * times

    def order(self) -> list[int]:
        """The batches, the most costly first."""
        shares = np.zeros(len(self.rows))
        for of in (self.seconds, self.tokens):
            padded = np.array([len(rows) * float(of[rows].max()) for rows in self.rows])
            shares += padded / max(float(padded.max()), 1e-9)
        return spread_order(shares.tolist())


class SampledData(MmsrDataModule):
    """The data module of a run, of which some training batches are made, spread over their lengths."""

    epoch: Epoch
    sample: list[int]

    def train_dataloader(self) -> DataLoader[Any]:
        """The sampled batches, again and again."""
        if self.streaming:
            raise ValueError(
                "--data.streaming true has no number of rows; accepted: a table, such as some of the rows"
            )
        loader: Any = super().train_dataloader()
        batches = list(loader.batch_sampler)
        self.epoch = Epoch.of(loader)
        order = self.epoch.order()
        if self.epoch.caches:  # each comes again after the next one, without decoding
            again = [order[0], *itertools.chain.from_iterable(zip(order[1:], order, strict=False))]
            order = again + order[-1:]
        self.sample = list(itertools.islice(itertools.cycle(order), _ENOUGH))
        return SeededLoader(
            loader.dataset,
            batch_sampler=[batches[batch] for batch in self.sample],
            collate_fn=loader.collate_fn,
            num_workers=self.num_workers,
            pin_memory=loader.pin_memory,
        )


@dataclasses.dataclass
class Encoding:
    """Timed batches of a frozen encoder, and what is left to encode.

    Attributes:
        modality: `audio` or `text`.
        inputs: Number of distinct files or texts.
        whole: Their sizes: seconds or characters, batches, inputs.
        measured: What was timed.
        disk: Bytes of the states of all.
        known: Share of the states that the run's own store has already.
    """

    modality: str
    inputs: int
    whole: np.ndarray
    measured: list[Measured]
    disk: float
    known: float


class Watch(Callback):
    """Times the parts of a training, and ends it when its time is over."""

    def __init__(self) -> None:
        self.ends = math.inf
        self.clock = Clock()
        self.left_out = np.zeros(2)  # seconds of what a real run does not do at that place
        self.loading: list[Measured] = []
        self.training: list[Measured] = []
        self.development: list[Measured] = []
        self.dev_epoch: Epoch | None = None
        self.dev_rows = 0
        self.encodings: list[Encoding] = []
        self.making = (0.0, 0.0)
        self.between = np.zeros(2)
        self.saves, self.epochs = 0, 0
        self.saving = (0.0, 0.0)
        self.cached = 0.0  # seconds of audio in memory
        self._sizes: tuple[float, ...] = ()
        self._decoded: dict[str, set[int]] = {"train": set(), "dev": set()}

    def _lap(self) -> tuple[float, float]:
        wall, processor = np.array(self.clock.lap()) - self.left_out
        self.left_out = np.zeros(2)
        return max(float(wall), 0.0), max(float(processor), 0.0)

    def _loaded(self, epoch: Epoch, batch: int, split: Split) -> None:
        """Time the loading of a batch."""
        self._sizes = epoch.sizes(batch, decoded=self._decoded[split])
        self.cached += self._sizes[-1] if epoch.caches else 0.0
        wall, processor = self._lap()
        self.loading.append(Measured(sizes=_loading(self._sizes), seconds=wall, processor_seconds=processor))

    def _computed(self) -> Measured:
        """Time what is done with the batch that was loaded."""
        wall, processor = self._lap()
        return Measured(sizes=self._sizes[:-1], seconds=wall, processor_seconds=processor)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The model is made."""
        trainer.fit_loop.min_epochs = None  # the time ends this run
        self.making = self._lap()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Time the loading of a training batch."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._loaded(data.epoch, data.sample[batch_idx], "train")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Time a training batch, with its step of the optimiser."""
        self.training.append(self._computed())
        enough = len(self.training) >= _WARM_UP + _FEWEST
        if enough and time.perf_counter() + self.training[-1].seconds > self.ends:
            trainer.should_stop = True

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Time what is between training and validation."""
        self.between += self._lap()
        self.epochs += 1
        loader: Any = trainer.val_dataloaders
        self.dev_epoch = Epoch.of(loader)

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Time the loading of a development batch."""
        assert self.dev_epoch is not None
        self._loaded(self.dev_epoch, batch_idx, "dev")

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Time a development batch."""
        self.development.append(self._computed())

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Count the checkpoints."""
        self.saves += 1

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Time a checkpoint."""
        self.between += self._lap()
        saves = self.saves
        trainer.save_checkpoint(Path(trainer.default_root_dir) / "timed.ckpt")
        self.saves = saves
        self.saving = self._lap()


class CalibratedModule(MmsrModule):
    """The module of a run whose parts are timed."""

    def __init__(self, settings: TrainingSettings) -> None:
        super().__init__(settings)
        self.watch = Watch()
        self.whole_dev: Epoch | None = None
        self.whole_dev_rows = 0

    def configure_callbacks(self) -> list[Callback]:
        """The watch too."""
        return [*super().configure_callbacks(), self.watch]

    def configure_model(self) -> None:
        """Make the model, and keep some of the development rows."""
        super().configure_model()
        data: MmsrDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.whole_dev is None:
            self.whole_dev, self.whole_dev_rows = Epoch.of(data.val_dataloader()), len(data.dev_rows)
            some = self.whole_dev.order()[:_DEV_BATCHES]
            data.keep("dev", sorted(row for batch in some for row in self.whole_dev.rows[batch]))
            self.watch.dev_rows = len(data.dev_rows)

    def use_feature_store(self) -> None:
        """Encode some of the inputs into a store of its own; the others once a batch has them."""
        folder = str(Path(self.trainer.default_root_dir) / "features")
        settings, watch = dataclasses.replace(self.settings, feature_store=folder), self.watch
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        opened = open_feature_store(settings, *self.parts(), self.trainer)
        stores = [(modality, features, inputs) for modality, features, inputs in opened if inputs]
        own = Path(str(self.settings.feature_store))
        for modality, features, inputs in stores:
            began = watch.clock.now()
            ends = began[0] + max(0.0, watch.ends - began[0]) * _ENCODING_SHARE / len(stores)
            watch.encodings.append(_encode(modality, features, inputs, ends=ends, own=own))
            setattr(data, f"{modality}_features", _LeftOut(features, watch))
            watch.left_out += np.subtract(watch.clock.now(), began)


class _LeftOut:
    """A frozen encoder's states, whose encoding does not count where a batch is the first to need them."""

    def __init__(self, features: StoredFeatures, watch: Watch) -> None:
        self._features, self._watch = features, watch
        self._known: set[str] = set()

    def __call__(self, source: str) -> Tensor:
        if source not in self._known:
            began = self._watch.clock.now()
            self._features(source)
            self._watch.left_out += np.subtract(self._watch.clock.now(), began)
            self._known.add(source)
        return self._features(source)


def _encode(
    modality: str, features: StoredFeatures, inputs: Sequence[str], *, ends: float, own: Path
) -> Encoding:
    """Encode and time some of the inputs, the largest batch first.

    Args:
        modality: `audio` or `text`.
        features: The encoder, with an empty store.
        inputs: Distinct files or texts of the run.
        ends: When the time for it is over.
        own: The store of the run, which may have some of the states already.
    """
    some = inputs[:: math.ceil(len(inputs) / _LENGTHS_READ) or 1]
    if modality == "audio":
        read = read_each(some, seconds_of)
        lengths = {
            source: length for source, length in zip(some, read, strict=True) if isinstance(length, float)
        }
    else:
        lengths = {source: float(len(source)) for source in some}
    batches = [list(batch) for batch in features.batches(list(lengths))]
    sizes = [(sum(lengths[source] for source in batch), 1.0, float(len(batch))) for batch in batches]
    measured: list[Measured] = []
    encoded = 0.0
    clock = Clock()
    for turn, place in enumerate(spread_order([size[0] for size in sizes])):
        clock.restart()
        list(features.fill(batches[place]))
        wall, processor = clock.lap()
        encoded += sizes[place][0]
        if turn or len(batches) == 1:  # the first is slow
            measured.append(Measured(sizes=sizes[place], seconds=wall, processor_seconds=processor))
        if len(measured) >= _FEWEST and time.perf_counter() + wall > ends:
            break
    whole = np.sum(sizes, axis=0) * (len(inputs) / len(lengths))
    entries = list(features.store.entries())
    stored = [(own / entry.path.relative_to(features.store.root)).is_file() for entry in entries]
    return Encoding(
        modality=modality,
        inputs=len(inputs),
        whole=whole,
        measured=measured,
        disk=sum(entry.bytes for entry in entries) / encoded * float(whole[0]),
        known=sum(stored) / len(stored),
    )


def _loading(sizes: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    """What the loading of batches depends on: seconds that are decoded, and rows."""
    return float(sizes[5]), float(sizes[3])


def make_calibrated(**settings: Any) -> CalibratedModule:
    """Model and training, whose parts are timed."""
    return CalibratedModule(TrainingSettings(**settings))


class _CalibratedCLI(MmsrCLI):
    """`mmsr fit` with a watch."""

    module_factory = staticmethod(make_calibrated)
    data_class = SampledData


def estimate_training(
    args: Sequence[str], *, hours: float | None = None, calibrate: float = 60.0, compare: bool = True
) -> Estimate:
    """Time, memory and disk of `mmsr fit`.

    The run itself is begun, in a temporary folder: its model is made, some of its batches are trained on,
    some development rows are evaluated, and a checkpoint and the model are written. Loggers are left out.

    Example:
        >>> words = ["-c", "own.yaml", "--data.manifest", "my/manifest.csv"]
        >>> print(estimate_training(words, hours=50).table())

    Args:
        args: The arguments of `mmsr fit`.
        hours: Hours of audio of the training rows, of which the manifest's are a sample; the development rows
            grow with them. By default what the manifest has.
        calibrate: Seconds for timing, beyond those for loading. Five training batches, three of development
            rows, and four of each frozen encoder with a feature store are worked on in any case.
        compare: Time it with a feature store too, where encoders are frozen and there is none.

    Raises:
        ValueError: As `mmsr fit`; or rows are streamed, or have no audio for `hours`.
    """
    started = time.perf_counter()
    machine = this_machine()
    start = constant("start of the program", start_of("mmsr.training.run"))
    cli = _parsed(args)
    settings, data = cli.model.settings, cli.datamodule
    can_store = (
        bool(settings.frozen & set(ENCODERS)) and not settings.feature_store and not data.augmentations
    )
    share = calibrate / 2 if compare and can_store else calibrate
    with peak_memory() as memory:
        estimate = _estimate(args, start, hours=hours, calibrate=share)
    alternatives = {}
    if compare and can_store:
        stored = [*args, "--model.feature_store", "features"]
        other = _estimate(stored, start, hours=hours, calibrate=share)
        alternatives["--model.feature_store FOLDER"] = other.seconds
    return dataclasses.replace(
        estimate,
        memory=estimate.memory + memory["memory"],
        gpu_memory=memory.get("gpu_memory"),
        machine=machine,
        calibration_seconds=time.perf_counter() - started,
        alternatives=alternatives,
    )


def _estimate(args: Sequence[str], start: Part, *, hours: float | None, calibrate: float) -> Estimate:
    """Begin the run in a temporary folder, and add up its parts; `memory` is what its caches add."""
    clock = Clock()
    found: list[Any] = []

    def parse(words: Sequence[str]) -> MmsrCLI:
        cli = _CalibratedCLI(words)
        cli.model.watch.clock, cli.model.watch.ends = clock, time.perf_counter() + calibrate
        found.append(cli)
        return cli

    with tempfile.TemporaryDirectory(prefix="mmsr-plan-") as folder:
        here = ["--trainer.default_root_dir", folder, "--trainer.enable_progress_bar", "false"]
        alone = ["--trainer.logger", "false", "--trainer.devices", "1"]
        with contextlib.redirect_stderr(io.StringIO()):
            fit([*args, *here, *alone], parse=parse)
            (cli,) = found
            ending = np.array(clock.lap())
            model, processor = cli.model.parts()
            calibrate_model(model, processor, cli.datamodule)
            calibration = np.array(clock.lap())
        disk = {
            "checkpoints": _size(Path(folder) / "checkpoints"),
            "model": _size(Path(folder) / "model"),
        }
    return _whole(cli, start, ending, calibration, disk, hours=hours)


def _whole(
    cli: Any,
    start: Part,
    ending: np.ndarray,
    calibration: np.ndarray,
    disk: dict[str, float],
    *,
    hours: float | None,
) -> Estimate:
    """The estimate of a run of which parts were timed."""
    module: CalibratedModule = cli.model
    data: SampledData = cli.datamodule
    watch, trainer, epoch = module.watch, cli.trainer, data.epoch
    assert module.whole_dev is not None
    audio = float(epoch.seconds.sum()) / 3600
    if hours is not None and not audio:
        raise ValueError(f"--hours {hours:g}: the training rows have no audio; accepted: rows with audio")
    factor = 1.0 if hours is None else hours / audio
    batches = _limited(len(epoch.rows) * factor, trainer.limit_train_batches)
    epochs = float(trainer.max_epochs) if (trainer.max_epochs or -1) > 0 else math.inf
    if trainer.max_steps > 0:
        epochs = min(epochs, trainer.max_steps / math.ceil(batches / trainer.accumulate_grad_batches))
    every = trainer.val_check_interval
    validations = epochs / (trainer.check_val_every_n_epoch or 1)
    validations *= batches / every if isinstance(every, int) else 1 / every
    dev_batches = _limited(len(module.whole_dev.rows) * factor, trainer.limit_val_batches)

    parts = [start, constant("reading rows, making the model", watch.making)]
    for encoding in watch.encodings:
        left = factor * (1 - encoding.known)
        amount = f"{encoding.inputs * left:,.0f} {'files' if encoding.modality == 'audio' else 'texts'}"
        part = linear(
            f"encoding {encoding.modality}", encoding.measured, encoding.whole * left, amount=amount
        )
        parts.append(part)
        disk["feature store"] = disk.get("feature store", 0.0) + encoding.disk * factor
    train_sizes = epoch.whole(epochs=epochs, batches=batches)
    dev_sizes = module.whole_dev.whole(epochs=validations, batches=dev_batches)
    loading = linear(
        "loading rows",
        watch.loading[_WARM_UP:],
        np.add(_loading(train_sizes), _loading(dev_sizes)),
        amount=f"{train_sizes[1] + dev_sizes[1]:,.0f} batches",
    )
    training = linear(
        "training",
        watch.training[_WARM_UP:],
        train_sizes[:-1],
        amount=f"{epochs:,.3g} epochs × {batches:,.0f} batches",
    )
    validation = linear(
        "validation",
        watch.development,
        dev_sizes[:-1],
        amount=f"{validations:,.3g} × {dev_batches:,.0f} batches",
    )
    saving = np.array(watch.saving)
    between = np.maximum(0.0, watch.between - watch.saves * saving) / max(watch.epochs, 1)
    keeping = constant(
        "checkpoints and metrics",
        tuple(2 * saving + between),
        times=epochs,
        amount=f"{2 * epochs:,.3g} checkpoints",
    )
    growth = module.whole_dev_rows * factor / watch.dev_rows - 1
    end = constant("calibrating, writing the model", tuple(ending + calibration * growth))
    cached = 0.0
    if epoch.caches:
        cached = _SAMPLES * (
            float(epoch.seconds.sum() + module.whole_dev.seconds.sum()) * factor - watch.cached
        )
    rows = len(epoch.seconds) * factor
    return Estimate(
        job=f"{epochs:,.3g} epochs of {rows:,.0f} training rows, {audio * factor:.3g} h of audio",
        parts=[*parts, loading, training, validation, keeping, end],
        memory=max(0.0, cached),
        disk=disk,
        notes=_notes(module, data, cli),
        facts={
            "epochs": epochs,
            "batches_per_epoch": batches,
            "rows": rows,
            "hours": audio * factor,
            "seconds_per_epoch": sum(part.seconds for part in (loading, training, validation, keeping))
            / epochs,
        },
    )


def _notes(module: CalibratedModule, data: SampledData, cli: Any) -> list[str]:
    """What an estimate of this run does not know."""
    notes = ["early stopping may end it before"]
    if module.settings.gradual_unfreezing:
        notes.append("later epochs train more layers (gradual_unfreezing) and are slower than the first")
    if data.num_workers:
        notes.append("processor time is without that of the workers that read the rows")
    if cli.datamodule.audio_features and (known := max(found.known for found in module.watch.encodings)):
        notes.append(f"{known:.0%} of the looked-at states are in the feature store already")
    return notes


def _parsed(args: Sequence[str]) -> MmsrCLI:
    """The arguments, checked as `mmsr fit` does, without making a model."""
    quieten()
    return MmsrCLI(with_packaged_configs(args))


def _limited(batches: float, limit: float) -> float:
    """Batches under Lightning's limit, a number or a share."""
    return min(batches, limit) if isinstance(limit, int) else batches * limit


def _size(folder: Path) -> float:
    """Bytes of the files in a folder."""
    return float(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))

"""The Lightning data module: a manifest's splits as batches of the processor's tensors.

manifest ─► splits (column `split`, or folds by speaker) ─► lengths ─► batches of row numbers ─► batches
or, streaming: rows of a split one by one ─► windows of rows ─► batches
"""

import itertools
import logging
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import datasets
import numpy as np
import pyarrow.compute as pc
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from mmsr.data.audio.augmentation import Augmentations
from mmsr.data.audio.decoding import AudioError
from mmsr.data.audio.reading import read_each, seconds_of
from mmsr.data.loading.batching import (
    Balance,
    BudgetBatchSampler,
    EpochBatchSampler,
    ResumableLoader,
    SeededLoader,
)
from mmsr.data.loading.controls import RATIONALES, Rationales, control_rationales
from mmsr.data.loading.splits import Split, select_rows
from mmsr.data.loading.streaming import StreamedBatches
from mmsr.data.loading.utterances import AudioFeatures, Collator, TextFeatures, UtteranceDataset
from mmsr.data.manifest.manifest import (
    DURATION,
    Issue,
    ManifestError,
    Row,
    column_of,
    distinct,
    load_manifest,
    rows_in_languages,
    stream_manifest,
)
from mmsr.languages import unified
from mmsr.records import INPUT_IDS, SENTIMENT_LABELS, SOFT_TARGETS

if TYPE_CHECKING:
    from mmsr.model.processing import MmsrProcessor

logger = logging.getLogger(__name__)

_COUNTED_ROWS = 20_000  # of a split; the tokens of more rows are estimated: counting takes 40 µs a row
_SAMPLED_ROWS = 20_000  # of a stream, to train a tokenizer on
_CACHED_SECONDS = 4 * 3600.0  # 460 MB of 16 kHz int16


class MmsrDataModule(LightningDataModule):
    """Batches of utterances from a manifest.

    Call `attach(processor)` before a loader is made; the processor's labels are the label set. The rows of
    each split can be read before, to train a tokenizer. Set `audio_features` to replace the waveforms with a
    frozen encoder's states, and `text_features` to add those of the tokens.

    Under DDP, use `Trainer(use_distributed_sampler=False)`: the batch sampler divides the batches.

    Args:
        manifest: A csv, tsv, jsonl, parquet or xlsx file, its URL, or a dataset in the Hub's format.
        text_column: The transcript that the model reads: human (`text`) or recognised (`asr_text`).
        train_split: Value of the manifest's column `split` in training rows.
        dev_split: Value of `split` in development rows, on which models are selected.
        test_split: Value of `split` in test rows.
        columns: Names of columns in this manifest, such as `{rationale: human_justification}`.
        label_map: Names of labels in this manifest and ours, such as `{pos: positive}`.
        batch_seconds: Most seconds of audio in a batch, padding included.
        batch_tokens: Most transcript tokens in a batch, padding included.
        batch_rows: Most rows in a batch; by default the other two limits decide.
        num_workers: Processes that decode audio; 0 decodes in the training process.
        seed: Seed of the order of the batches.
        streaming: Read the training rows one by one, in passes without end, instead of loading the table: for
            remote shards, or tables with audio that are larger than the disk. Training is then measured in
            steps (`trainer.max_steps`, an int as `trainer.val_check_interval`), and rows are shuffled only
            within windows.
        stream_window: Rows in a window.
        balance: Sample training rows so that each label, each language, or each label in each language is
            equally frequent. An epoch keeps its length: rare rows are repeated in it, and frequent ones are
            not in each. With `augment`, the copies of a row differ. `auto` is `label` if the most frequent
            label has more than twice the training rows of the rarest one, and none otherwise.
        language_temperature: Sample training rows so that a language with n rows has a share proportional to
            n^(1/T): 1 keeps the languages' shares, and a greater T makes them more equal (XLM-R: 3.3,
            multilingual BERT: 1.4). With `balance: label`, labels are equal within each language.
        cache_audio: Keep up to 4 hours (14,400 s) of decoded audio in memory as 16-bit samples. With
            `num_workers` above 0 samples are rounded to 16 bits all the same, and nothing is kept.
        fold: Ignore the column `split` and split by speaker: this fold's speakers are the test split.
        folds: Number of folds that the sorted speakers are cut into.
        dev_speakers: Number of speakers after the fold's own, cyclically, in the development split. The
            others are the training split.
        augment: Augmentations of the training rows with their options, in order, such as
            `{reverb: {p: 0.3}, noise: {snr_db: [5, 20], p: 0.5}}`: noise, reverb, speed, pitch, gain, codec,
            equalizer, band_limit, time_mask, silence, noise_gate; with a feature store only spec_augment. See
            `mmsr.data.audio.augmentation`.
        languages: Take rows of these languages only, such as `[vi]`, in all splits.
        train_languages: Train, and select models, on rows of these languages only, such as `[vi]`; test rows
            of the others are then zero-shot.
        rationales: Rationales of training and development rows: their own (`given`), another row's
            (`permuted`), another row's of the same label (`permuted_within_label`), or the label's most
            frequent one (`template`). All but the first are controls: see `mmsr.data.loading.controls`.
    """

    audio_features: AudioFeatures | None = None
    text_features: TextFeatures | None = None

    def __init__(
        self,
        manifest: str,
        *,
        text_column: Literal["text", "asr_text"] = "text",
        train_split: str = "train",
        dev_split: str = "dev",
        test_split: str = "test",
        columns: dict[str, str] | None = None,
        label_map: dict[str, str] | None = None,
        batch_seconds: float = 48.0,
        batch_tokens: int = 4096,
        batch_rows: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        streaming: bool = False,
        stream_window: int = 4096,
        balance: Literal["label", "language", "label,language", "auto"] | None = None,
        language_temperature: float | None = None,
        cache_audio: bool = True,
        fold: int | None = None,
        folds: int = 4,
        dev_speakers: int = 2,
        augment: dict[str, dict[str, Any]] | None = None,
        languages: list[str] | None = None,
        train_languages: list[str] | None = None,
        rationales: Rationales = "given",
    ):
        super().__init__()
        for name, value, least in (
            ("batch_tokens", batch_tokens, 1),
            ("batch_rows", batch_rows, 1),
            ("num_workers", num_workers, 0),
            ("seed", seed, 0),
            ("folds", folds, 2),
            ("dev_speakers", dev_speakers, 1),
            ("stream_window", stream_window, 1),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}; accepted: {least} or more")
        if batch_seconds <= 0:
            raise ValueError(f"batch_seconds is {batch_seconds}; accepted: a positive number of seconds")
        if fold is not None and not 0 <= fold < folds:
            raise ValueError(f"fold is {fold}; accepted: 0 to {folds - 1}, since folds is {folds}")
        if balance not in (None, "label", "language", "label,language", "auto"):
            raise ValueError(f"balance is {balance!r}; accepted: label, language, label,language, or auto")
        if language_temperature is not None and not language_temperature >= 1:
            raise ValueError(f"language_temperature is {language_temperature:g}; accepted: 1 or more")
        if language_temperature is not None and "language" in (balance or ""):
            raise ValueError(
                f"balance={balance!r} makes languages equal, and "
                f"language_temperature={language_temperature:g} does not: give one or the other"
            )
        self.manifest = manifest
        self.text_column = text_column
        self.split_names: dict[Split, str] = {"train": train_split, "dev": dev_split, "test": test_split}
        self.columns, self.label_map = columns, label_map
        self.batch_seconds, self.batch_tokens, self.batch_rows = batch_seconds, batch_tokens, batch_rows
        self.num_workers, self.seed = num_workers, seed
        self.streaming, self.stream_window = streaming, stream_window
        if rationales not in RATIONALES:
            raise ValueError(f"rationales is {rationales!r}; accepted: {', '.join(RATIONALES)}")
        self.languages, self.train_languages, self.rationales = languages, train_languages, rationales
        table = {
            "fold": fold,
            "languages": languages,
            "balance": balance,
            "language_temperature": language_temperature,
            "train_languages": train_languages,
            "rationales": None if rationales == "given" else rationales,
        }
        if streaming and (given := [name for name, value in table.items() if value is not None]):
            raise ValueError(
                f"streaming reads rows as they come, and {', '.join(given)} needs them all; accepted: one or "
                "the other"
            )
        self._given_balance, self.language_temperature = balance, language_temperature
        self.cache_audio = cache_audio
        self.fold, self.folds, self.dev_speakers = fold, folds, dev_speakers
        self.augmentations = Augmentations(augment) if augment else None

        self.processor: MmsrProcessor | None = None
        self._rationales = True
        self._tables: dict[tuple[str, ...] | None, datasets.Dataset] = {}  # the manifest, by its labels
        self._rows: dict[Split, datasets.Dataset] = {}
        self._datasets: dict[Split, UtteranceDataset] = {}
        self._cached_seconds = 0.0

    def attach(self, processor: "MmsrProcessor", *, rationales: bool = True) -> None:
        """Set the model's processor.

        Args:
            processor: Makes the tensors; its labels are the label set.
            rationales: Whether the model writes rationales; if not, batches have no `labels`.
        """
        self.processor = processor
        self._rationales = rationales
        known = set(processor.labels)
        if not all(known.issuperset(distinct(rows, "label")) for rows in self._rows.values()):
            self._rows.clear()  # read again: indices become labels, and unknown labels raise
        self._datasets.clear()
        self._cached_seconds = 0.0

    def check_augment(self, *, stored: bool) -> None:
        """Check that the model reads what the augmentations change.

        Args:
            stored: Whether the audio encoder's states come from a store, in place of waveforms.

        Raises:
            ValueError: An augmentation would have no effect.
        """
        if self.augmentations is None:
            return
        if stored and (names := self.augmentations.names("waveform")):
            raise ValueError(
                f"augment: {', '.join(names)} would change waveforms, and a feature store keeps the encoder's"
                " states of the clean ones; accepted: spec_augment, or no feature_store"
            )
        if not stored and (names := self.augmentations.names("states")):
            raise ValueError(
                f"augment: {', '.join(names)} masks a frozen encoder's stored states, and there is no"
                " feature_store; accepted: time_mask, or mask_time_prob in a wav2vec2's own configuration"
            )

    def check_rationales(self) -> None:
        """Refuse to train a decoder on rows without rationales.

        It would stay random, and what it writes would be shown as the rationale. A stream is not checked,
        since only its first rows are known.

        Raises:
            ManifestError: No row of the training split has a rationale.
        """
        if self.streaming:
            return
        column = column_of(self.train_rows, "rationale")
        if column.null_count == len(column):
            raise self._error(
                "rationale",
                f"no row of {self.split_names['train']!r} has one, and the model is to write them; "
                "accepted: rationales, or --model.rationale_format none for the label alone",
            )

    def setup(self, stage: str | None = None) -> None:
        """Read the manifest, and check the splits of the stage.

        Raises:
            ManifestError: The manifest has issues, a split is empty, or there are too few speakers for folds.
        """
        needed: dict[str | None, tuple[Split, ...]]
        needed = {"fit": ("train", "dev"), "validate": ("dev",), "test": ("test",)}
        for split in needed.get(stage, ()):
            self._split_rows(split)

    @property
    def on_hub(self) -> bool:
        """Whether the manifest is a dataset on the Hub."""
        return not os.path.exists(self.manifest) and not Path(self.manifest).suffix

    @property
    def source(self) -> str:
        """Id of a dataset on the Hub, or the manifest's name without its folders."""
        return self.manifest if self.on_hub else Path(self.manifest).name

    @property
    def balance(self) -> Literal["label", "language", "label,language"] | None:
        """What is sampled equally; `auto` is decided by the training rows."""
        if self._given_balance != "auto":
            return self._given_balance
        counts = self.label_counts
        return "label" if counts and max(counts.values()) > 2 * min(counts.values()) else None

    @property
    def label_counts(self) -> Counter[str]:
        """Number of training rows of each label."""
        return Counter(label for label in self.train_rows["label"] if label is not None)

    @property
    def train_rows(self) -> datasets.Dataset:
        """Rows of the training split."""
        return self._split_rows("train")

    @property
    def dev_rows(self) -> datasets.Dataset:
        """Rows of the development split."""
        return self._split_rows("dev")

    @property
    def test_rows(self) -> datasets.Dataset:
        """Rows of the test split."""
        return self._split_rows("test")

    def train_seconds(self) -> np.ndarray:
        """Durations `[n]` of the recordings of the training rows that have one.

        Raises:
            ManifestError: Recordings cannot be read.
        """
        rows = self.train_rows
        return self._seconds(rows.select(np.flatnonzero(column_of(rows, "audio").is_valid().to_numpy())))

    def table(self, labels: Sequence[str] | None = None) -> datasets.Dataset:
        """All rows of the manifest, which is read once.

        Args:
            labels: See `load_manifest`.

        Raises:
            ManifestError: The manifest has issues.
        """
        key = None if labels is None else tuple(labels)
        if key not in self._tables:
            self._tables[key] = load_manifest(
                self.manifest, labels=labels, columns=self.columns, label_map=self.label_map
            )
        return self._tables[key]

    def take_tables(self, other: "MmsrDataModule") -> None:
        """Take what another module has read of the same manifest."""
        self._tables |= other._tables

    def keep(self, split: Split, rows: Sequence[int]) -> None:
        """Leave out all rows of a split but these, for the loaders that are made from now on."""
        self._rows[split] = self._split_rows(split).select(rows)
        self._datasets.pop(split, None)

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches; the loader can be resumed in the middle of an epoch."""
        return self._stream_loader() if self.streaming else self._loader("train")

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches of the development split, short rows first."""
        return self._loader("dev")

    def test_dataloader(self) -> DataLoader[Any]:
        """Batches of the test split, short rows first."""
        return self._loader("test")

    def batches_of(self, split: Split, rows: np.ndarray) -> Iterator[tuple[list[int], dict[str, Any]]]:
        """Some rows of a split without augmentation, all in this process, short ones first.

        Args:
            split: The split.
            rows: Numbers of its rows `[n]`.

        Yields:
            Places in `rows`, and the batch of inputs of these rows.
        """
        dataset = self._dataset(split)
        alone = {**self._batching, "rank": 0, "world_size": 1}
        sampler = BudgetBatchSampler(dataset.seconds[rows], dataset.tokens[rows], shuffle=False, **alone)
        collate = Collator(self._attached(), rationales=False)
        for places in sampler:
            batch = collate([dataset[int(rows[place])] for place in places])
            targets = (SENTIMENT_LABELS, SOFT_TARGETS)
            yield places, {name: value for name, value in batch.items() if name not in targets}

    # ------------------------------------------------------------------ rows

    def _stream(self, split: Split) -> Iterator[Row]:
        """The rows of a split, read one by one."""
        labels = None if self.processor is None else self.processor.labels
        rows = stream_manifest(
            self.manifest,
            labels=labels,
            split=self.split_names[split],
            columns=self.columns,
            label_map=self.label_map,
        )
        for row in rows:
            if row["audio"] is None and row[self.text_column] is None:
                problem = f"no audio and no {self.text_column}; accepted: at least one of the two"
                raise self._error(self.text_column, f"row with id {row['id']!r}: {problem}")
            yield row

    def _split_rows(self, split: Split) -> datasets.Dataset:
        if self.streaming and split not in self._rows:
            # the first training rows suffice for a tokenizer and class weights
            rows = list(itertools.islice(self._stream(split), _SAMPLED_ROWS if split == "train" else None))
            if rows:
                self._rows[split] = datasets.Dataset.from_list(rows)
        if not self._rows and not self.streaming:
            labels = None if self.processor is None else self.processor.labels
            rows = self.table(labels)
            if self.languages is not None:
                rows = self._in_languages(rows, self.languages, setting="languages")
            self._check_utterances(rows)
            self._rows = self._selected(rows)
            for name in self._rows.keys() & {"train", "dev"}:
                if self.train_languages is not None:
                    self._rows[name] = self._in_languages(
                        self._rows[name], self.train_languages, setting="train_languages"
                    )
                self._rows[name] = control_rationales(self._rows[name], self.rationales, seed=self.seed)
        if split not in self._rows:
            found = ", ".join(self.split_names[name] for name in self._rows) or "none of the three"
            problem = (
                f"no row is in {self.split_names[split]!r}; found: {found};"
                f" accepted: a column `split` with this value (mmsr data split {shlex.quote(self.manifest)}"
                f" --out FILE makes it), its name in --data.{split}_split, or --data.fold 0 to fold speakers"
            )
            raise self._error("split", problem)
        return self._rows[split]

    def _check_utterances(self, rows: datasets.Dataset) -> None:
        absent = [pc.is_null(column_of(rows, column)) for column in ("audio", self.text_column)]
        empty = np.flatnonzero(pc.and_(*absent).to_numpy())
        if len(empty):
            problem = f"no audio and no {self.text_column}; accepted: at least one of the two"
            names = rows.select(empty)["id"]
            raise self._error(self.text_column, *(f"row with id {name!r}: {problem}" for name in names))
        if self.text_column == "asr_text" and column_of(rows, "asr_text").null_count == len(rows):
            raise self._error("asr_text", "is empty in all rows; accepted: transcripts, or text_column text")

    def _selected(self, rows: datasets.Dataset) -> dict[Split, datasets.Dataset]:
        """The rows of each split that is not empty."""
        names = self.split_names
        groups = select_rows(
            rows,
            split=names["test"],
            train_split=names["train"],
            dev_split=names["dev"],
            fold=self.fold,
            folds=self.folds,
            dev_speakers=self.dev_speakers,
            source=self.manifest,
        )
        if (unused := len(rows) - sum(map(len, groups.values()))) and unused < len(rows):
            used = ", ".join(self.split_names.values())
            others = [repr(name) for name in distinct(rows, "split") if name not in self.split_names.values()]
            found = ", ".join(others) or "none"
            name = Path(self.manifest).name
            logger.warning("%s: %d rows are in no split of %s (theirs: %s)", name, unused, used, found)
        return {split: part for split, part in groups.items() if len(part)}

    def _in_languages(
        self, rows: datasets.Dataset, languages: list[str], *, setting: str
    ) -> datasets.Dataset:
        kept, absent = rows_in_languages(rows, languages)
        if absent or not languages:
            found = ", ".join(distinct(rows, "language"))
            raise self._error("language", f"no row is in {setting} {absent}; accepted: of {found}")
        return kept

    def _error(self, column: str, *problems: str) -> ManifestError:
        return ManifestError([Issue(Path(self.manifest).name, None, column, problem) for problem in problems])

    # ------------------------------------------------------------------ batches

    @property
    def _batching(self) -> dict[str, Any]:
        """Arguments that samplers and streams share: limits, seed and rank."""
        return {
            "max_seconds": self.batch_seconds,
            "max_tokens": self.batch_tokens,
            "max_rows": self.batch_rows,
            "seed": self.seed,
            "rank": 0 if self.trainer is None else self.trainer.global_rank,
            "world_size": 1 if self.trainer is None else self.trainer.world_size,
        }

    def _loader(self, split: Split) -> DataLoader[Any]:
        processor = self._attached()
        dataset = self._dataset(split)
        augmentations = dataset.augmentations
        sampler = (BudgetBatchSampler if augmentations is None else EpochBatchSampler)(
            dataset.seconds if augmentations is None else augmentations.longest(dataset.seconds),
            dataset.tokens,
            shuffle=split == "train",
            balance=self._balance(dataset.rows) if split == "train" else None,
            **self._batching,
        )
        loader_class: type[DataLoader[Any]] = ResumableLoader if split == "train" else SeededLoader
        loader = loader_class(
            dataset,
            batch_sampler=sampler,
            collate_fn=self._collator(processor),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
        if isinstance(loader, ResumableLoader):
            loader.step_size = self._step_size
        return loader

    def _collator(self, processor: "MmsrProcessor") -> Collator:
        # a trainer names the rows of a batch whose loss is not finite
        return Collator(processor, rationales=self._rationales, ids=self.trainer is not None)

    def _step_size(self, batch: int) -> int | None:
        """Number of batches from one (of an epoch) to the optimiser's step; None without accumulation.

        The last step of an epoch may have fewer.
        """
        if self.trainer is None or self.trainer.accumulate_grad_batches == 1:
            return None
        size = self.trainer.accumulate_grad_batches
        end = min((batch // size + 1) * size, self.trainer.num_training_batches)
        return max(1, int(end) - batch)

    def _stream_loader(self) -> ResumableLoader:
        processor, trainer = self._attached(), self.trainer
        if trainer is not None and (trainer.max_steps < 1 or not isinstance(trainer.val_check_interval, int)):
            raise ValueError(
                "streaming has no epochs; accepted: --trainer.max_steps N, and an int as "
                "--trainer.val_check_interval, after how many steps the development split is evaluated"
            )
        if self.audio_features is not None or self.text_features is not None:
            raise ValueError("streaming keeps no row for a second pass; accepted: no feature_store with it")
        self.check_augment(stored=False)
        nothing = np.zeros(0)
        batches = StreamedBatches(
            lambda: self._stream("train"),
            utterances=lambda rows: UtteranceDataset(
                rows,
                seconds=nothing,
                tokens=nothing,
                text_column=self.text_column,
                augmentations=self.augmentations,
                seed=self.seed,
            ),
            tokens=lambda rows: _count_tokens(processor, [row[self.text_column] for row in rows]),
            collate=self._collator(processor),
            window=self.stream_window,
            **self._batching,
        )
        loader = ResumableLoader(
            batches, batch_size=None, num_workers=self.num_workers, pin_memory=torch.cuda.is_available()
        )
        loader.step_size = self._step_size
        return loader

    def _attached(self) -> "MmsrProcessor":
        if self.processor is None:
            raise RuntimeError("no processor yet; call datamodule.attach(processor) before using a loader")
        return self.processor

    def _balance(self, rows: datasets.Dataset) -> Balance | None:
        """Shares of the training rows; None to take each once."""
        temperature = self.language_temperature
        columns = self.balance.split(",") if self.balance else []
        values = {
            name: column_of(rows, name).to_pylist()
            for name in [*columns, *(["language"] if temperature is not None else [])]
        }
        for name, cells in values.items():
            if missing := sum(cell is None for cell in cells):
                switch = "balance" if name in columns else "language_temperature"
                raise self._error(
                    name, f"is missing in {missing} training rows; accepted: a {name} in each, for {switch}"
                )
        if "language" in values:
            values["language"] = unified(values["language"])
        if temperature is not None:
            return Balance.tempered(values["language"], temperature=temperature, within=values.get("label"))
        if not columns:
            return None
        return Balance.equal(
            values[columns[0]] if len(columns) == 1 else list(zip(*values.values(), strict=True))
        )

    def _dataset(self, split: Split) -> "UtteranceDataset":
        """The split's dataset, kept so that its lengths and cache outlive a loader."""
        dataset = self._datasets.get(split)
        features = (self.audio_features, self.text_features)
        if dataset is None or (dataset.audio_features, dataset.text_features) != features:
            self.check_augment(stored=self.audio_features is not None)
            rows = self._split_rows(split)
            seconds, tokens = self._seconds(rows), self._tokens(rows)
            # rounded with workers too, which have no cache: their number changes nothing that is learned
            short = self.audio_features is None and self._may_cache(float(seconds.sum()))
            dataset = UtteranceDataset(
                rows,
                seconds=seconds,
                tokens=tokens,
                text_column=self.text_column,
                audio_features=self.audio_features,
                text_features=self.text_features,
                rounded=short,
                cache=short and not self.num_workers,
                augmentations=self.augmentations if split == "train" else None,
                seed=self.seed,
            )
            self._datasets[split] = dataset
        return dataset

    def _may_cache(self, seconds: float) -> bool:
        if not self.cache_audio:
            return False
        if self._cached_seconds + seconds > _CACHED_SECONDS:
            hours = (self._cached_seconds + seconds) / 3600
            if not self.num_workers:
                logger.warning(
                    "audio is decoded in each epoch: %.1f h is more than the 4 h that are cached", hours
                )
            return False
        self._cached_seconds += seconds
        return True

    def _seconds(self, rows: datasets.Dataset) -> np.ndarray:
        """Duration `[n]` of each row's audio, from the manifest or the file's header; 0 without audio."""
        paths = column_of(rows, "audio")
        seconds = np.zeros(len(rows))
        if DURATION in rows.column_names:
            seconds = pc.fill_null(column_of(rows, DURATION), 0.0).to_numpy().copy()
        asked = np.flatnonzero(~paths.is_null().to_numpy() & (seconds == 0))

        lengths = list(read_each(paths.take(asked).to_pylist(), seconds_of))
        problems = [
            f"row with id {rows[int(row)]['id']!r}: {length}"
            for row, length in zip(asked, lengths, strict=True)
            if isinstance(length, AudioError)
        ]
        if problems:
            raise self._error("audio", *problems)
        seconds[asked] = [length for length in lengths if not isinstance(length, AudioError)]
        return seconds

    def _tokens(self, rows: datasets.Dataset) -> np.ndarray:
        """Token count `[n]` of each row's transcript; for a large split estimated from characters."""
        assert self.processor is not None
        texts = column_of(rows, self.text_column)
        characters = pc.fill_null(pc.utf8_length(texts), 0).to_numpy()
        some = np.flatnonzero(characters)
        if len(some) > _COUNTED_ROWS:
            some = np.random.default_rng(0).choice(some, _COUNTED_ROWS, replace=False)
        counts = _count_tokens(self.processor, texts.take(some).to_pylist())
        if len(some) < np.count_nonzero(characters):
            # languages differ in tokens per character: nine of ten rows have at most this
            share = np.quantile(counts / characters[some], 0.9)
            logger.info(
                "tokens of %d rows counted, of the others estimated: %.2f a character", len(some), share
            )
            tokens = np.ceil(characters * share).astype(np.int64)
        else:
            tokens = np.zeros(len(rows), dtype=np.int64)
        tokens[some] = counts
        return tokens


def _count_tokens(processor: "MmsrProcessor", texts: Sequence[str | None]) -> np.ndarray:
    """Token count `[n]` of each transcript; 0 without one."""
    if not any(texts):
        return np.zeros(len(texts), dtype=np.int64)
    counted = processor.tokenizer([text or "" for text in texts])[INPUT_IDS]
    return np.array([len(ids) if text else 0 for ids, text in zip(counted, texts, strict=True)])

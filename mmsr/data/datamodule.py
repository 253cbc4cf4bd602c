"""The Lightning data module: a manifest's splits as batches of the processor's tensors.

    manifest ─► splits (column `split`, or folds by speaker) ─► lengths ─► batches of row numbers
    row ─► Audio ─► waveform [s]              ─┐
           or audio_features ─► [f, l, d]      ├─► processor ─► batch
           transcript, label, rationale        │
           and text_features ─► [t, l, d]     ─┘

Notation used for tensor shapes: `b` batch, `s` samples, `f` audio frames, `t` text tokens, `l` encoder
layers, `d` width.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import datasets
import numpy as np
import pyarrow.compute as pc
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from mmsr.data.audio import Audio, AudioError
from mmsr.data.augmentation import Augmentations, row_generator
from mmsr.data.batching import Balance, BudgetBatchSampler, ResumableLoader
from mmsr.data.manifest import (
    DURATION,
    Fault,
    ManifestError,
    column_of,
    distinct,
    load_manifest,
    rows_with,
    speaker_fold,
)

if TYPE_CHECKING:
    from mmsr.model.processing import MmsrProcessor

logger = logging.getLogger(__name__)

Split = Literal["train", "dev", "test"]
AudioFeatures = Callable[[str], torch.Tensor]
"""Path of an audio file to a frozen encoder's states `[f, l, d]`."""
TextFeatures = Callable[[str], torch.Tensor]
"""Transcript to a frozen encoder's states `[t, l, d]`, one for each token that the processor makes of it."""

_COUNTED_ROWS = 20_000  # of a split, beyond which tokens are estimated: counting takes 40 µs a row
_CACHED_SECONDS = 4 * 3600.0  # 460 MB of 16 kHz int16


class MmsrDataModule(LightningDataModule):
    """Batches of utterances from a manifest.

    Before a loader is asked for, the training program calls `attach(processor)`, whose labels are the label
    set; it may set `audio_features`, which then takes the waveforms' place, and `text_features`, which goes
    beside the tokens. The rows of each split can be read before that, as training a tokenizer wants.

    Under DDP, use `Trainer(use_distributed_sampler=False)`: the ranks are dealt out by the batch sampler.

    Args:
        manifest: A csv, tsv, jsonl, parquet or xlsx file, its URL, or a dataset in the Hub's format.
        text_column: Which transcript the model reads, the human one or the ASR's.
        train_split: Value of the manifest's column `split` in training rows.
        dev_split: Value of `split` in development rows, on which models are selected.
        test_split: Value of `split` in test rows.
        columns: Names that columns have in this manifest, such as `{rationale: human_justification}`.
        label_map: What labels are called in this manifest, such as `{pos: positive}`.
        batch_seconds: Most seconds of audio in a batch, padding included.
        batch_tokens: Most transcript tokens in a batch, padding included.
        batch_rows: Most rows in a batch. Without it the other two limits decide.
        num_workers: Processes that decode audio; 0 decodes in the training process.
        seed: Seed of the order of the batches.
        balance: Draw training rows so that each label, each language or each label in each language that
            there is comes equally often: rows of rare ones several times an epoch, of frequent ones not in
            each. An epoch stays as long. Development and test rows are never resampled.
        language_temperature: Draw training rows so that a language with n of them has a share proportional
            to n^(1/T): 1 leaves the languages as they are, and the greater, the more alike they are (XLM-R
            took 3.3, multilingual BERT 1.4). With `balance: label` the labels are equal within each language.
        cache_audio: Keep decoded audio in memory as 16-bit samples, up to 4 hours (14,400 s) in all, so that
            it is decoded once. Without effect when `num_workers` is above 0.
        fold: Ignore the column `split` and split by speaker: this fold's speakers are the test split.
        folds: Into how many folds the sorted speakers are cut.
        dev_speakers: How many speakers after the fold's own, cyclically, are the development split. The
            others are the training split.
        augment: Augmentations of the training rows and their options, in the order in which they are made,
            such as `{reverb: {p: 0.3}, noise: {snr_db: [5, 20], p: 0.5}}`: noise, reverb, speed, pitch, gain,
            codec, time_mask; over a feature store spec_augment alone. What each does to the evidence in a
            voice: `mmsr.data.augmentation`.
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
        balance: Literal["label", "language", "label,language"] | None = None,
        language_temperature: float | None = None,
        cache_audio: bool = True,
        fold: int | None = None,
        folds: int = 4,
        dev_speakers: int = 2,
        augment: dict[str, dict[str, Any]] | None = None,
    ):
        super().__init__()
        for name, value, least in (
            ("batch_tokens", batch_tokens, 1),
            ("batch_rows", batch_rows, 1),
            ("num_workers", num_workers, 0),
            ("seed", seed, 0),
            ("folds", folds, 2),
            ("dev_speakers", dev_speakers, 1),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}; accepted: {least} or more")
        if batch_seconds <= 0:
            raise ValueError(f"batch_seconds is {batch_seconds}; accepted: a positive number of seconds")
        if fold is not None and not 0 <= fold < folds:
            raise ValueError(f"fold is {fold}; accepted: 0 to {folds - 1}, since folds is {folds}")
        if balance not in (None, "label", "language", "label,language"):
            raise ValueError(f"balance is {balance!r}; accepted: label, language, or label,language")
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
        self.columns = columns
        self.label_map = label_map
        self.batch_seconds, self.batch_tokens, self.batch_rows = batch_seconds, batch_tokens, batch_rows
        self.num_workers = num_workers
        self.seed = seed
        self.balance, self.language_temperature = balance, language_temperature
        self.cache_audio = cache_audio
        self.fold, self.folds, self.dev_speakers = fold, folds, dev_speakers
        self.augmentations = Augmentations(augment) if augment else None

        self.processor: MmsrProcessor | None = None
        self._rationales = True
        self._rows: dict[Split, datasets.Dataset] = {}
        self._datasets: dict[Split, UtteranceDataset] = {}
        self._cached_seconds = 0.0

    def attach(self, processor: "MmsrProcessor", *, rationales: bool = True) -> None:
        """Set the processor that makes the tensors, and whose labels are the label set.

        Args:
            processor: The model's processor.
            rationales: Whether the model writes rationales; without, batches have no `labels`.
        """
        self.processor = processor
        self._rationales = rationales
        known = set(processor.labels)
        if not all(known.issuperset(distinct(rows, "label")) for rows in self._rows.values()):
            self._rows.clear()  # read again: indices become labels, unknown ones raise
        self._datasets.clear()
        self._cached_seconds = 0.0

    def check_augment(self, *, stored: bool) -> None:
        """Refuse augmentations that could change nothing.

        Args:
            stored: Whether the audio encoder's states come from a store, and no waveform is heard.

        Raises:
            ValueError: There is an augmentation of what the model does not read.
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

    def setup(self, stage: str | None = None) -> None:
        """Read the manifest and find what is wrong with the stage's splits before anything runs.

        Raises:
            ManifestError: The manifest has faults, a split is empty, or there are too few speakers to fold.
        """
        needed: dict[str | None, tuple[Split, ...]] = {
            "fit": ("train", "dev"),
            "validate": ("dev",),
            "test": ("test",),
        }
        for split in needed.get(stage, ()):
            self._split_rows(split)

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

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled batches that can be gone on with from the middle of an epoch."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches of the development split, short rows first."""
        return self._loader("dev")

    def test_dataloader(self) -> DataLoader[Any]:
        """Batches of the test split, short rows first."""
        return self._loader("test")

    # ------------------------------------------------------------------ rows

    def _split_rows(self, split: Split) -> datasets.Dataset:
        if not self._rows:
            labels = None if self.processor is None else self.processor.labels
            rows = load_manifest(self.manifest, labels=labels, columns=self.columns, label_map=self.label_map)
            self._check_utterances(rows)
            groups: Mapping[Split, Sized] = (
                self._by_split(rows) if self.fold is None else self._by_speaker(rows)
            )
            self._rows = {name: rows.select(indices) for name, indices in groups.items() if len(indices)}
        if split not in self._rows:
            raise self._error("split", self._missing_split(split))
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

    def _by_split(self, rows: datasets.Dataset) -> dict[Split, np.ndarray]:
        return {split: rows_with(rows, "split", [name]) for split, name in self.split_names.items()}

    def _by_speaker(self, rows: datasets.Dataset) -> dict[Split, list[int]]:
        assert self.fold is not None
        parts = speaker_fold(
            rows,
            fold=self.fold,
            folds=self.folds,
            dev_speakers=self.dev_speakers,
            source=Path(self.manifest).name,
        )
        return {"train": parts["train"], "dev": parts["dev"], "test": parts["test"]}

    def _missing_split(self, split: Split) -> str:
        found = ", ".join(self.split_names[name] for name in self._rows) or "none of the three"
        return (
            f"no row is in {self.split_names[split]!r}; found: {found};"
            f" accepted: a column `split` with this value, another {split}_split, or a fold (by speaker)"
        )

    def _error(self, column: str, *problems: str) -> ManifestError:
        return ManifestError([Fault(Path(self.manifest).name, None, column, problem) for problem in problems])

    # ------------------------------------------------------------------ batches

    def _loader(self, split: Split) -> DataLoader[Any]:
        if self.processor is None:
            raise RuntimeError(
                "no processor yet; call datamodule.attach(processor) before its loaders are used"
            )
        dataset = self._dataset(split)
        trainer = self.trainer
        augmentations = dataset.augmentations
        stretch = 1.0 if augmentations is None else augmentations.stretch
        sampler = (BudgetBatchSampler if augmentations is None else EpochBatchSampler)(
            dataset.seconds * stretch,
            dataset.tokens,
            max_seconds=self.batch_seconds,
            max_tokens=self.batch_tokens,
            max_rows=self.batch_rows,
            shuffle=split == "train",
            seed=self.seed,
            balance=self._balance(dataset.rows) if split == "train" else None,
            rank=0 if trainer is None else trainer.global_rank,
            world_size=1 if trainer is None else trainer.world_size,
        )
        loader: type[DataLoader[Any]] = ResumableLoader if split == "train" else DataLoader
        return loader(
            dataset,
            batch_sampler=sampler,
            collate_fn=Collator(self.processor, rationales=self._rationales),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _balance(self, rows: datasets.Dataset) -> Balance | None:
        """How often the training rows are drawn; None for each once."""
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
        if temperature is not None:
            return Balance.tempered(values["language"], temperature=temperature, within=values.get("label"))
        if not columns:
            return None
        return Balance.equal(
            values[columns[0]] if len(columns) == 1 else list(zip(*values.values(), strict=True))
        )

    def _dataset(self, split: Split) -> "UtteranceDataset":
        """The split's dataset, measured once and kept, so that its cache outlives a loader."""
        dataset = self._datasets.get(split)
        features = (self.audio_features, self.text_features)
        if dataset is None or (dataset.audio_features, dataset.text_features) != features:
            self.check_augment(stored=self.audio_features is not None)
            rows = self._split_rows(split)
            seconds, tokens = self._seconds(rows), self._tokens(rows)
            dataset = UtteranceDataset(
                rows,
                seconds=seconds,
                tokens=tokens,
                text_column=self.text_column,
                audio_features=self.audio_features,
                text_features=self.text_features,
                cache=self.audio_features is None and self._may_cache(float(seconds.sum())),
                augmentations=self.augmentations if split == "train" else None,
                seed=self.seed,
            )
            self._datasets[split] = dataset
        return dataset

    def _may_cache(self, seconds: float) -> bool:
        if not self.cache_audio or self.num_workers:
            return False
        if self._cached_seconds + seconds > _CACHED_SECONDS:
            hours = (self._cached_seconds + seconds) / 3600
            logger.warning(
                "audio is decoded in each epoch: %.1f h is more than the 4 h that are cached", hours
            )
            return False
        self._cached_seconds += seconds
        return True

    def _seconds(self, rows: datasets.Dataset) -> np.ndarray:
        """Length `[n]` of each row's audio: as the manifest says, or from its header; 0 without audio."""
        paths = column_of(rows, "audio")
        seconds = np.zeros(len(rows))
        if DURATION in rows.column_names:
            seconds = pc.fill_null(column_of(rows, DURATION), 0.0).to_numpy().copy()
        asked = np.flatnonzero(~paths.is_null().to_numpy() & (seconds == 0))

        def measure(path: str) -> float | AudioError:
            try:
                length = Audio.duration(path)
            except AudioError as error:
                return error
            return length or AudioError(f"{path}: has length zero; accepted: at least one sample")

        with ThreadPoolExecutor() as pool:
            lengths = list(pool.map(measure, paths.take(asked).to_pylist()))
        faults = [
            f"row with id {rows[int(row)]['id']!r}: {length}"
            for row, length in zip(asked, lengths, strict=True)
            if isinstance(length, AudioError)
        ]
        if faults:
            raise self._error("audio", *faults)
        seconds[asked] = [length for length in lengths if not isinstance(length, AudioError)]
        return seconds

    def _tokens(self, rows: datasets.Dataset) -> np.ndarray:
        """Transcript tokens `[n]` of each row; 0 without transcript.

        Of many rows only some are counted; the others' tokens follow from their characters.
        """
        assert self.processor is not None
        texts = column_of(rows, self.text_column)
        characters = pc.fill_null(pc.utf8_length(texts), 0).to_numpy()
        some = np.flatnonzero(characters)
        if len(some) > _COUNTED_ROWS:
            some = np.random.default_rng(0).choice(some, _COUNTED_ROWS, replace=False)
        counted = self.processor.tokenizer(texts.take(some).to_pylist())["input_ids"] if len(some) else []
        counts = np.array([len(ids) for ids in counted], dtype=np.int64)
        if len(some) < np.count_nonzero(characters):
            # languages differ in tokens per character: of ten rows, nine have not more than this
            share = np.quantile(counts / characters[some], 0.9)
            logger.info(
                "tokens of %d rows counted, of the others estimated: %.2f a character", len(some), share
            )
            tokens = np.ceil(characters * share).astype(np.int64)
        else:
            tokens = np.zeros(len(rows), dtype=np.int64)
        tokens[some] = counts
        return tokens


class EpochBatchSampler(BudgetBatchSampler):
    """Gives each row together with its epoch, from which its augmentation is drawn.

    Workers that persist keep the dataset as it was when they started: what changes from epoch to epoch has to
    come to them with the rows.
    """

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:  # type: ignore[override]  # the dataset knows both
        """The epoch's batches of (epoch, row)."""
        epoch = self.epoch
        for batch in super().__iter__():
            yield [(epoch, row) for row in batch]


class UtteranceDataset(Dataset[dict[str, Any]]):
    """Rows with their audio decoded, or in its place a frozen encoder's states.

    `dataset[row]` is the row as it is, `dataset[epoch, row]` as it is augmented in this epoch.

    A row is `id`, `text`, `rationale`, `sentiment` (text or None), and either `audio` (`[s]` float32 at
    16 kHz, or None) or `audio_features` (`[f, l, d]`, or None); with a text encoder's states `text_features`
    (`[t, l, d]`, or None) too.

    Args:
        rows: A split of a manifest.
        seconds: Length `[n]` of each row's audio.
        tokens: Length `[n]` of each row's transcript.
        text_column: Which column is `text`.
        audio_features: Gives the audio encoder's states of a path.
        text_features: Gives the text encoder's states of a transcript.
        cache: Keep decoded audio, rounded to 16 bits (the first time too, so that all epochs are alike);
            it is kept as it is without augmentation.
        augmentations: Change rows that are asked for with their epoch.
        seed: Of the augmentations, with the epoch and the row's id.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        *,
        seconds: np.ndarray,
        tokens: np.ndarray,
        text_column: str = "text",
        audio_features: AudioFeatures | None = None,
        text_features: TextFeatures | None = None,
        cache: bool = False,
        augmentations: Augmentations | None = None,
        seed: int = 0,
    ):
        self.rows = rows
        self.seconds, self.tokens = seconds, tokens
        self.text_column = text_column
        self.audio_features, self.text_features = audio_features, text_features
        self.augmentations, self.seed = augmentations, seed
        self._audio = Audio()
        self._cache: dict[int, np.ndarray] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        epoch, index = index if isinstance(index, tuple) else (None, index)
        row = self.rows[int(index)]
        utterance = {"id": row["id"], "text": row[self.text_column], "rationale": row["rationale"]}
        utterance["sentiment"] = row["label"]
        if self.text_features is not None:
            text = utterance["text"]
            utterance["text_features"] = None if text is None else self.text_features(text)
        path = row["audio"]
        try:
            if self.audio_features is not None:
                states = (
                    None if path is None else self._augmented(self.audio_features(path), epoch, row["id"])
                )
                return {**utterance, "audio_features": states}
            if path is None:
                return {**utterance, "audio": None}
            waveform = torch.from_numpy(self._waveform(index, path))
            return {**utterance, "audio": self._augmented(waveform, epoch, row["id"]).numpy()}
        except AudioError as error:
            raise AudioError(f"row with id {row['id']!r}, column audio: {error}") from error

    def _augmented(self, values: torch.Tensor, epoch: int | None, row_id: str) -> torch.Tensor:
        if self.augmentations is None or epoch is None:
            return values
        return self.augmentations(values, generator=row_generator(self.seed, epoch=epoch, row_id=row_id))[0]

    def _waveform(self, index: int, path: str) -> np.ndarray:
        if self._cache is None:
            return self._audio(path)
        if index not in self._cache:
            self._cache[index] = np.clip(np.round(self._audio(path) * 32768), -32768, 32767).astype(np.int16)
        return self._cache[index].astype(np.float32) / 32768


class Collator:
    """Turns rows into one batch: the processor's tensors, and encoders' states where rows have those.

    A modality that no row of a batch has is not given to the processor.

    Args:
        processor: Makes `input_values`, `input_ids`, `labels`, `sentiment_labels` and their masks.
        rationales: Whether to make `labels`.
    """

    def __init__(self, processor: "MmsrProcessor", *, rationales: bool = True):
        self.processor = processor
        self.rationales = rationales

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch.

        Returns:
            The processor's tensors; with features, `audio_features` `[b, f, l, d]` float32 and
            `audio_features_mask` `[b, f]`, where a row without audio is all zero, and no waveform;
            `text_features` `[b, t, l, d]` float32, whose mask is `attention_mask`.
        """
        features = [row.get("audio_features") for row in rows]
        inputs = {name: [row.get(name) for row in rows] for name in ("audio", "text", "rationale")}
        heard = [feature is not None for feature in features]
        if any(heard) and None in inputs["text"]:
            # The processor wants audio or text in every row. These rows' audio is their features: one sample
            # stands for it, and goes away again.
            inputs["audio"] = [np.zeros(1, dtype=np.float32) if there else None for there in heard]
        if not self.rationales:
            del inputs["rationale"]
        given = {
            name: values for name, values in inputs.items() if any(value is not None for value in values)
        }
        sentiment = [row["sentiment"] for row in rows]
        batch = dict(self.processor(**given, sentiment=sentiment, sampling_rate=16000, return_tensors="pt"))
        if any(heard):
            batch.pop("input_values", None)
            batch.pop("input_values_mask", None)
            batch["audio_features"], batch["audio_features_mask"] = _pad(features)
        written = [row.get("text_features") for row in rows]
        if any(feature is not None for feature in written):
            batch["text_features"] = _placed(written, batch["attention_mask"])
        return batch


def _pad(features: Sequence[torch.Tensor | None]) -> tuple[torch.Tensor, torch.Tensor]:
    """Features `[f, l, d]`, None where there is no audio -> `[b, f, l, d]` float32 and its mask `[b, f]`."""
    longest = max((feature for feature in features if feature is not None), key=len)
    padded = torch.zeros(len(features), *longest.shape)
    mask = torch.zeros(len(features), len(longest), dtype=torch.long)
    for row, feature in enumerate(features):
        if feature is not None:
            padded[row, : len(feature)] = feature
            mask[row, : len(feature)] = 1
    return padded, mask


def _placed(features: Sequence[torch.Tensor | None], mask: torch.Tensor) -> torch.Tensor:
    """Features `[n, l, d]` of n tokens, None for no text, and where these are `[b, t]` -> `[b, t, l, d]`."""
    shape = next(feature.shape[1:] for feature in features if feature is not None)
    placed = torch.zeros(*mask.shape, *shape)
    for row, feature in enumerate(features):
        if feature is not None:
            placed[row, mask[row] == 1] = feature.float()
    return placed

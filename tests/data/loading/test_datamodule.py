"""The data module: splits, folds, batches, caches, augmentation, balance and resumed training."""

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from jsonargparse import ArgumentParser
from lightning import Trainer

from mmsr.data.audio.decoding import Audio, AudioError
from mmsr.data.loading.datamodule import MmsrDataModule
from mmsr.data.manifest.manifest import ManifestError

LABELS = ["negative", "neutral", "positive"]


def test_splits_come_from_the_column_and_batches_cover_them(manifest: Path, module: Any, rows_of: Any):
    data = module(manifest)
    data.setup("fit")
    assert [len(rows) for rows in (data.train_rows, data.dev_rows, data.test_rows)] == [24, 12, 12]
    for loader, residues in (
        (data.train_dataloader(), {0, 1}),
        (data.val_dataloader(), {2}),
        (data.test_dataloader(), {3}),
    ):
        batches = list(loader)
        assert len(batches) == len(loader)
        rows = [row for batch in batches for row in rows_of(batch)]
        assert sorted(rows) == [row for row in range(48) if row % 4 in residues]
        for batch in batches:
            assert set(batch) == {"input_values", "input_ids", "labels", "sentiment_labels"}
            assert batch["sentiment_labels"].tolist() == [row % 3 for row in rows_of(batch)]
            assert batch["input_values"].numel() <= 2.0 * 16000


def test_rows_can_be_read_before_a_processor_is_there_but_not_batches(manifest: Path):
    data = MmsrDataModule(str(manifest))
    assert set(data.train_rows["label"]) == set(LABELS)
    with pytest.raises(RuntimeError, match="no processor yet; call datamodule.attach"):
        data.train_dataloader()


def test_the_processor_s_labels_are_the_label_set(manifest: Path, processor: Any, change: Any, module: Any):
    change(manifest, lambda number, row: row.update(label="2" if number % 2 else "neutral"))
    data = MmsrDataModule(str(manifest))
    assert set(data.train_rows["label"]) == {"2", "neutral"}
    data.attach(processor)
    assert set(data.train_rows["label"]) == {"positive", "neutral"}
    rows = data.train_rows
    data.attach(processor)
    assert data.train_rows is rows
    change(manifest, lambda number, row: row.update(label="cheerful"))
    with pytest.raises(
        ManifestError, match="row 2, column label: 'cheerful' is unknown; accepted: negative,"
    ):
        module(manifest).setup("fit")


def test_split_names_and_columns_can_differ(manifest: Path, change: Any, module: Any):
    change(manifest, lambda _, row: row.update(split={"dev": "valid"}.get(row["split"], row["split"])))
    data = module(manifest, dev_split="valid", columns={"text": "asr_text"})
    assert len(data.dev_rows) == 12 and set(data.dev_rows["text"]) == {"heard this"}
    data = module(manifest)
    text = "m.csv, column split: no row is in 'dev'; found: train, test; accepted: a column `split` with this"
    with pytest.raises(ManifestError, match=text):
        data.setup("fit")
    data.setup("test")


def test_the_asr_transcript_can_be_read(manifest: Path, change: Any, module: Any):
    batch = next(iter(module(manifest, text_column="asr_text").val_dataloader()))
    assert batch["input_ids"].shape[1] == 2
    change(manifest, lambda _, row: row.update(asr_text=""))
    with pytest.raises(
        ManifestError, match="column asr_text: is empty in all rows; accepted: transcripts, or"
    ):
        module(manifest, text_column="asr_text").setup("fit")
    change(manifest, lambda number, row: row.update(audio="" if number == 1 else row["audio"], asr_text=""))
    text = "column asr_text: row with id 'u1': no audio and no asr_text; accepted: at least one of the two"
    with pytest.raises(ManifestError, match=text):
        module(manifest, text_column="asr_text").setup("fit")


def test_folds_are_by_speaker_and_each_speaker_is_tested_once(manifest: Path, module: Any):
    tested = []
    for fold in range(4):
        data = module(manifest, fold=fold)
        splits = [set(rows["speaker"]) for rows in (data.train_rows, data.dev_rows, data.test_rows)]
        assert [len(speakers) for speakers in splits] == [4, 2, 2]
        assert not splits[0] & splits[1] and not splits[1] & splits[2] and not splits[0] & splits[2]
        assert len(data.train_rows) + len(data.dev_rows) + len(data.test_rows) == 48
        tested += sorted(splits[2])
    assert tested == [f"s{speaker:02d}" for speaker in range(8)]
    last = module(manifest, fold=3)
    assert set(last.test_rows["speaker"]) == {"s06", "s07"}
    assert set(last.dev_rows["speaker"]) == {"s00", "s01"}


def test_folds_need_speakers(manifest: Path, change: Any, module: Any):
    with pytest.raises(
        ManifestError, match="column speaker: has 8 speakers; accepted: enough for 9 folds, 2 dev"
    ):
        module(manifest, fold=0, folds=9).setup("fit")
    with pytest.raises(ManifestError, match="accepted: enough for 4 folds, 6 development speakers and one"):
        module(manifest, fold=0, dev_speakers=6).setup("fit")
    change(manifest, lambda number, row: row.update(speaker="" if number < 3 else row["speaker"]))
    with pytest.raises(
        ManifestError, match=r"speaker: is missing in 3 of \d+ rows; accepted: a speaker in each, for"
    ):
        module(manifest, fold=0).setup("fit")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_seconds": 0}, "batch_seconds is 0; accepted: a positive number of seconds"),
        ({"batch_tokens": 0}, "batch_tokens is 0; accepted: 1 or more"),
        ({"batch_rows": 0}, "batch_rows is 0; accepted: 1 or more"),
        ({"num_workers": -1}, "num_workers is -1; accepted: 0 or more"),
        ({"fold": 4}, "fold is 4; accepted: 0 to 3, since folds is 4"),
        ({"dev_speakers": 0}, "dev_speakers is 0; accepted: 1 or more"),
        ({"balance": "speaker"}, "balance is 'speaker'; accepted: label, language, label,language, or auto"),
        ({"language_temperature": 0.5}, "language_temperature is 0.5; accepted: 1 or more"),
        (
            {"balance": "label,language", "language_temperature": 2},
            "balance='label,language' makes languages equal, and language_temperature=2 does not: give",
        ),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], text: str):
    with pytest.raises(ValueError, match=text):
        MmsrDataModule("m.csv", **options)


def test_unusable_audio_is_told_with_its_row(manifest: Path, tmp_path: Path, module: Any):
    (tmp_path / "0.wav").write_text("words")
    soundfile.write(tmp_path / "5.wav", np.zeros(0), 16000)
    with pytest.raises(ManifestError) as error:
        module(manifest).train_dataloader()
    first, second = str(error.value).split("\n")
    assert first.startswith(f"m.csv, column audio: row with id 'u0': {tmp_path}/0.wav: holds no audio")
    assert second == (
        f"m.csv, column audio: row with id 'u5': {tmp_path}/5.wav: has length zero;"
        " accepted: at least one sample"
    )


def test_nan_audio_is_told_with_its_row(manifest: Path, tmp_path: Path, module: Any):
    soundfile.write(tmp_path / "4.wav", np.full(1600, np.nan), 16000, subtype="FLOAT")
    text = r"row with id 'u4', column audio: .*4\.wav: 1600 of 1600 samples are NaN or infinite"
    with pytest.raises(AudioError, match=text):
        list(module(manifest).train_dataloader())
    data = module(manifest)
    data.audio_features = lambda path: torch.as_tensor(Audio()(path))[:, None, None]
    with pytest.raises(AudioError, match=text):
        list(data.train_dataloader())


def test_a_missing_modality_is_left_to_the_processor(manifest: Path, change: Any, module: Any):
    def edit(number: int, row: dict[str, str]) -> None:
        if number % 4 == 2:  # development rows without audio
            row["audio"] = ""
        elif number % 8 == 0:
            row["text"] = row["rationale"] = row["label"] = ""

    data = module(change(manifest, edit))
    for batch in data.val_dataloader():
        assert set(batch) == {"input_ids", "labels", "sentiment_labels"}
    assert sum((batch["sentiment_labels"] == -100).sum() for batch in data.train_dataloader()) == 6
    calls: list[dict[str, Any]] = data.processor.calls  # type: ignore[union-attr]
    assert any(None in call["text"] for call in calls if "text" in call)


def test_a_model_without_rationales_gets_none(manifest: Path, processor: Any, module: Any):
    data = module(manifest)
    data.attach(processor, rationales=False)
    assert set(next(iter(data.train_dataloader()))) == {"input_values", "input_ids", "sentiment_labels"}


def test_cached_audio_is_decoded_once_and_the_same(
    manifest: Path, monkeypatch: pytest.MonkeyPatch, module: Any
):
    data = module(manifest)
    first = list(data.val_dataloader())
    plain = list(module(manifest, cache_audio=False).val_dataloader())
    monkeypatch.setattr("mmsr.data.audio.decoding.soundfile.SoundFile", None)
    again = list(data.val_dataloader())
    for one, other, uncached in zip(first, again, plain, strict=True):
        assert torch.equal(one["input_values"], other["input_values"])
        torch.testing.assert_close(one["input_values"], uncached["input_values"], atol=2e-5, rtol=0)


def test_a_large_corpus_is_not_cached(
    manifest: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, module: Any
):
    monkeypatch.setattr("mmsr.data.loading.datamodule._CACHED_SECONDS", 5.0)
    data = module(manifest)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            data.train_dataloader()
    assert data._datasets["train"]._cache is None
    assert [record.getMessage() for record in caplog.records] == [
        "audio is decoded in each epoch: 0.0 h is more than the 4 h that are cached"
    ]


def test_workers_give_the_same_batches(manifest: Path, module: Any):
    alone = list(module(manifest, cache_audio=False).train_dataloader())
    shared = list(module(manifest, num_workers=2).train_dataloader())
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one["input_values"], other["input_values"])


def test_features_take_the_place_of_waveforms(manifest: Path, tmp_path: Path, change: Any, module: Any):
    def edit(number: int, row: dict[str, str]) -> None:
        if number % 8 == 0:
            row["audio"] = ""
        elif number % 8 == 1:
            row["text"] = ""

    def features(path: str) -> torch.Tensor:
        row = int(Path(path).stem)
        return torch.full((row + 1, 2, 3), float(row), dtype=torch.float16)

    data = module(change(manifest, edit))
    data.audio_features = features
    seen = 0
    for batch in data.train_dataloader():
        assert "input_values" not in batch
        states, mask = batch["audio_features"], batch["audio_features_mask"]
        assert states.dtype == torch.float32 and states.shape[2:] == (2, 3) and states.shape[:2] == mask.shape
        for values, real in zip(states, mask, strict=True):
            frames = int(real.sum())
            row = frames - 1
            assert real.tolist() == [1] * frames + [0] * (len(real) - frames)
            assert frames == 0 or (values[:frames] == row).all()
            assert not values[frames:].any()
            seen += frames > 0
    assert seen == 18  # 24 training rows, 6 of them without audio


def waveforms(
    data: MmsrDataModule, epoch: int, *, start: int = 0, workers_loader: Any = None
) -> dict[int, Any]:
    """Row -> its training samples in an epoch, by the loader from batch `start` on."""
    loader = workers_loader or data.train_dataloader()
    loader.batch_sampler.set_epoch(epoch)
    loader.batch_sampler.start = start
    collate, found = loader.collate_fn, {}
    processor: Any = data.processor
    assert collate.processor is processor
    for batch in loader:
        for number, values in zip(batch["row"], batch["input_values"], strict=True):
            found[int(number)] = values[values != 0].tolist()
    return found


@pytest.mark.parametrize("cache", [True, False])
def test_augmentation_depends_on_seed_epoch_and_row_alone(numbered: Path, cache: bool, augmented: Any):
    data = augmented(numbered, cache_audio=cache)
    first, second = waveforms(data, 0), waveforms(data, 1)
    assert set(first) == set(second) == {row for row in range(48) if row % 4 < 2}
    assert all(first[row] != second[row] for row in first)
    assert waveforms(data, 0) == first
    assert waveforms(augmented(numbered, cache_audio=cache, batch_seconds=1.0), 0) == first  # other batches
    assert waveforms(augmented(numbered, cache_audio=cache, seed=1), 0) != first
    rest = waveforms(augmented(numbered, cache_audio=cache), 1, start=3)
    assert 0 < len(rest) < len(second) and all(second[row] == samples for row, samples in rest.items())


def test_workers_that_persist_hear_of_the_epoch(numbered: Path, augmented: Any):
    alone = augmented(numbered, cache_audio=False)
    shared = augmented(numbered, num_workers=2)
    loader = shared.train_dataloader()
    assert loader.persistent_workers
    heard = []
    for epoch in (0, 1, 0):
        heard.append(waveforms(shared, epoch, workers_loader=loader))
        assert heard[-1] == waveforms(alone, epoch)
    assert heard[0] == heard[2] and all(heard[0][row] != heard[1][row] for row in heard[0])


def test_development_and_test_rows_are_never_augmented(numbered: Path, augmented: Any):
    plain = MmsrDataModule(str(numbered), batch_seconds=2.0)
    changed = augmented(numbered)
    plain.attach(changed.processor)
    for name in ("val_dataloader", "test_dataloader"):
        for one, other in zip(getattr(plain, name)(), getattr(changed, name)(), strict=True):
            assert torch.equal(one["input_values"], other["input_values"])
    assert waveforms(changed, 0).keys() == waveforms(plain, 0).keys()
    assert waveforms(changed, 0) != waveforms(plain, 0)
    dataset = changed._dataset("train")
    assert np.array_equal(dataset[3].audio, plain._dataset("train")[3].audio)  # without an epoch: clean


def test_batches_keep_to_their_budget_when_rows_become_longer(numbered: Path, augmented: Any):
    data = augmented(numbered, augment={"speed": {"factors": [0.5], "p": 1}})
    sizes = [batch["input_values"].shape for batch in data.train_dataloader()]
    assert max(rows * samples for rows, samples in sizes) <= 2.0 * 16000 + 8
    assert max(samples for _, samples in sizes) > 8000


def test_augmentation_and_a_feature_store_contradict(numbered: Path, augmented: Any):
    data = augmented(numbered)
    data.audio_features = lambda path: torch.ones(50, 1, 2)
    text = (
        "augment: speed, noise would change waveforms, and a feature store .* accepted: spec_augment, or no"
    )
    with pytest.raises(ValueError, match=text):
        data.train_dataloader()
    with pytest.raises(
        ValueError, match="augment: spec_augment masks a frozen .* no feature_store; accepted"
    ):
        augmented(numbered, augment={"spec_augment": {}}).train_dataloader()
    with pytest.raises(ValueError, match="augment: 'nois' is unknown; accepted: noise, reverb"):
        augmented(numbered, augment={"nois": {}})


def test_stored_states_are_masked_in_training_alone(numbered: Path, augmented: Any):
    data = augmented(numbered, augment={"spec_augment": {"frames": 20, "share": 0.5}})
    states = torch.randn(50, 2, 3)
    data.audio_features = lambda path: states.half()
    train = data._dataset("train")
    one, other = train[0, 0, 0].audio_features, train[1, 0, 0].audio_features
    assert not torch.equal(one, other) and not torch.equal(one, states.half())
    assert torch.equal(train[0, 0, 0].audio_features, one)
    assert torch.equal(data._dataset("dev")[0].audio_features, states.half())
    assert not any(
        torch.equal(row, states.half().float())
        for b in data.train_dataloader()
        for row in b["audio_features"]
    )


def test_training_rows_alone_are_balanced(manifest: Path, change: Any, module: Any):
    def edit(number: int, row: dict[str, str]) -> None:
        row["label"] = "negative" if number < 8 else "positive"
        row["text"] = "word"

    change(manifest, edit)
    labels = [
        [int(label) for batch in loader for label in batch["sentiment_labels"]]
        for data in [module(manifest, balance="label")]
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    ]
    assert [(drawn.count(0), drawn.count(2)) for drawn in labels] == [(12, 12), (2, 10), (2, 10)]


def test_a_language_is_balanced_as_one_however_it_is_written(manifest: Path, change: Any, module: Any):
    written = ("vi", "vie", "Tiếng Việt")

    def edit(number: int, row: dict[str, str]) -> None:
        language = "en" if number % 5 == 0 else written[number % 3]
        row |= {"language": language, "label": "negative" if language == "en" else "positive"}

    change(manifest, edit)
    loader = module(manifest, balance="language").train_dataloader()
    labels = [int(label) for batch in loader for label in batch["sentiment_labels"]]
    assert labels.count(0) == labels.count(2) == len(labels) / 2


@pytest.mark.parametrize("workers", [0, 2])
def test_a_row_drawn_again_in_an_epoch_is_augmented_in_another_way(
    numbered: Path, workers: int, change: Any, augmented: Any
):
    change(numbered, lambda number, row: row.update(label="negative" if number < 8 else "positive"))
    once = waveforms(augmented(numbered), 1)
    data = augmented(numbered, balance="label", num_workers=workers)

    def copies() -> dict[int, list[list[float]]]:
        loader = data.train_dataloader()
        loader.batch_sampler.set_epoch(1)
        heard: dict[int, list[list[float]]] = {}
        for batch in loader:
            for number, values in zip(batch["row"], batch["input_values"], strict=True):
                heard.setdefault(int(number), []).append(values[values != 0].tolist())
        return heard

    heard = copies()
    assert {number: len(heard[number]) for number in (0, 1, 4, 5)} == dict.fromkeys((0, 1, 4, 5), 3)
    for number, sounds in heard.items():
        assert sounds.count(once[number]) == 1, "the first draw is that of an epoch without balance"
        assert len({tuple(sound) for sound in sounds}) == len(sounds)
    assert copies() == heard


def test_what_is_balanced_by_must_be_there(manifest: Path, module: Any):
    text = "m.csv, column language: is missing in 24 training rows; accepted: a language in each, for "
    with pytest.raises(ManifestError, match=text + "balance"):
        module(manifest, balance="language").train_dataloader()
    with pytest.raises(ManifestError, match=text + "language_temperature"):
        module(manifest, balance="label", language_temperature=2.0).train_dataloader()


def test_a_command_line_can_be_built_from_it():
    parser = ArgumentParser()
    parser.add_class_arguments(MmsrDataModule, "data")
    options = parser.parse_args(
        [
            "--data.manifest=m.csv",
            "--data.text_column=asr_text",
            "--data.fold=1",
            "--data.columns={text: asr}",
            "--data.augment={reverb: {}, noise: {snr_db: [5, 20], p: 0.5}}",
        ]
    )
    assert options.data.fold == 1 and options.data.columns == {"text": "asr"}
    assert options.data.augment == {"reverb": {}, "noise": {"snr_db": [5, 20], "p": 0.5}}
    help_text = re.sub(r"\s+", " ", parser.format_help())
    assert "Number of speakers after the fold's own, cyclically, in the development split." in help_text
    assert "Most seconds of audio in a batch, padding included." in help_text


@pytest.mark.filterwarnings("ignore")
def test_lightning_changes_the_epoch_and_goes_on_from_any_checkpoint(
    manifest: Path, tmp_path: Path, fit: Any
):
    whole = fit(manifest, tmp_path / "whole", workers=0).steps
    steps = len(whole) // 3
    assert [number for number, _ in whole] == sorted([0, 1, 2] * steps)
    epochs = [[rows for number, rows in whole if number == epoch] for epoch in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    for batches in epochs:
        assert sorted(sum(batches, [])) == [row for row in range(48) if row % 4 < 2]
    for step in range(1, len(whole)):
        resumed = fit(
            manifest, tmp_path / "resumed", workers=0, resume=tmp_path / "whole" / f"step={step}.ckpt"
        )
        assert resumed.steps == whole[step:], step


@pytest.mark.filterwarnings("ignore")
def test_lightning_goes_on_with_workers(manifest: Path, tmp_path: Path, fit: Any):
    whole = fit(manifest, tmp_path / "whole", workers=0).steps
    step = len(whole) // 3 + 2
    checkpoint = tmp_path / "whole" / f"step={step}.ckpt"
    assert fit(manifest, tmp_path / "resumed", workers=2, resume=checkpoint).steps == whole[step:]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [0, 2])
def test_lightning_goes_on_where_rows_are_balanced(
    manifest: Path, tmp_path: Path, workers: int, change: Any, fit: Any
):
    change(manifest, lambda number, row: row.update(label="negative" if number % 8 == 0 else "positive"))
    whole = fit(manifest, tmp_path / "whole", workers=0, balance="label").steps
    steps = len(whole) // 3
    assert [number for number, _ in whole] == sorted([0, 1, 2] * steps)
    for number in range(3):
        drawn = [row for epoch, rows in whole if epoch == number for row in rows]
        assert sum(row % 8 == 0 for row in drawn) == sum(row % 8 != 0 for row in drawn) == 12
    step = steps + 2
    checkpoint = tmp_path / "whole" / f"step={step}.ckpt"
    resumed = fit(manifest, tmp_path / "resumed", workers=workers, resume=checkpoint, balance="label")
    assert resumed.steps == whole[step:]


def test_what_a_stream_cannot_do_is_said(manifest: Path, module: Any):
    with pytest.raises(ValueError, match="and fold, balance needs them all; accepted: one or the other"):
        MmsrDataModule(str(manifest), streaming=True, fold=0, balance="label")
    data = module(manifest, streaming=True)
    data.trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False)
    with pytest.raises(ValueError, match="streaming has no epochs; accepted: --trainer.max_steps N, and an"):
        data.train_dataloader()
    with pytest.raises(ManifestError, match="no row is in 'training'; found: none of the three"):
        _ = module(manifest, streaming=True, train_split="training").train_rows


def test_rows_in_no_split_are_counted(
    manifest: Path, caplog: pytest.LogCaptureFixture, change: Any, module: Any
):
    change(manifest, lambda number, row: row.update(split="Train") if number < 8 else None)
    with caplog.at_level(logging.WARNING):
        assert len(module(manifest).train_rows) == 20
    assert "m.csv: 8 rows are in no split of train, dev, test (theirs: 'Train')" in caplog.text


def test_models_are_trained_and_selected_on_some_languages_and_tested_on_all(manifest: Path, change: Any):
    change(manifest, lambda number, row: row.update(language=("vi", "en", "de")[number % 3]))
    data = MmsrDataModule(str(manifest), train_languages=["vi", "de"])
    assert set(data.train_rows["language"]) == set(data.dev_rows["language"]) == {"vi", "de"}
    assert set(data.test_rows["language"]) == {"vi", "en", "de"}
    assert len(data.train_rows) == 16
    named = MmsrDataModule(str(manifest), train_languages=["Vietnamese", "ger"])
    assert named.train_rows["id"] == data.train_rows["id"]
    for wrong, told in ((["fr", "vi"], r"\['fr'\]"), ([], r"\[\]")):
        with pytest.raises(ManifestError, match=rf"in train_languages {told}; accepted: of de, en, vi"):
            _ = MmsrDataModule(str(manifest), train_languages=wrong).train_rows


def test_all_splits_may_be_of_some_languages(manifest: Path, change: Any):
    change(manifest, lambda number, row: row.update(language=("vi", "en", "de")[number % 3]))
    data = MmsrDataModule(str(manifest), languages=["Vietnamese", "de"], train_languages=["vi"])
    assert set(data.train_rows["language"]) == set(data.dev_rows["language"]) == {"vi"}
    assert set(data.test_rows["language"]) == {"vi", "de"}
    with pytest.raises(ManifestError, match=r"no row is in languages \['fr'\]; accepted: of de, en, vi"):
        _ = MmsrDataModule(str(manifest), languages=["fr"]).test_rows
    with pytest.raises(ValueError, match="streaming reads rows as they come, and languages needs them all"):
        MmsrDataModule(str(manifest), languages=["vi"], streaming=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_audio_that_is_damaged_later_is_one_line_that_names_its_row(manifest, module, workers):
    data = module(manifest, num_workers=workers)
    loader = data.train_dataloader()  # lengths are measured here
    for path in manifest.parent.rglob("*.wav"):
        path.write_text("no sound")
    with pytest.raises(AudioError) as error:
        list(loader)
    assert re.fullmatch(r"row with id '[^']+', column audio: .*\.wav: holds no audio.*", str(error.value))

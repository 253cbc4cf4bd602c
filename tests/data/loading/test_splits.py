"""Splits keep groups whole, strata even, and all else in the file as it was."""

import csv
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import openpyxl
import pandas
import pytest
import soundfile

from mmsr.data.loading.splits import (
    fold_rows,
    select_rows,
    speaker_fold,
    split_manifest,
    split_rows,
    splits_of_fold,
)
from mmsr.data.manifest.manifest import load_manifest

LABELS = ("negative", "neutral", "positive")


def corpus(*, rows: int = 600, speakers: int = 30, seed: int = 0) -> list[dict[str, Any]]:
    """Speakers of unlike size and mood, in two languages."""
    rng = np.random.default_rng(seed)
    owners = np.sort(rng.choice(speakers, rows, p=rng.dirichlet(np.full(speakers, 3.0))))
    moods = rng.dirichlet([2.0, 1.0, 0.5], speakers)
    return [
        {
            "id": f"r{number}",
            "text": f"what was said in the utterance {number}",
            "label": LABELS[rng.choice(3, p=moods[owner])],
            "language": ("en", "vi")[owner % 2],
            "speaker": f"s{owner:02d}",
        }
        for number, owner in enumerate(owners)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    frame = pandas.DataFrame(rows, dtype=object)
    if path.suffix in (".csv", ".tsv"):
        frame.to_csv(path, index=False, sep="," if path.suffix == ".csv" else "\t")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_excel(path, index=False)
    return path


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> datasets.Dataset:
    return load_manifest(write(tmp_path_factory.mktemp("splits") / "m.csv", corpus()))


def together(groups: list[Any], made: np.ndarray) -> bool:
    """Whether no group is cut."""
    return all(
        len({part for group, part in zip(groups, made, strict=True) if group == one}) == 1
        for one in set(groups)
    )


def share(made: np.ndarray, split: str, labels: list[str], label: str) -> float:
    return np.mean(np.array(labels)[made == split] == label)


def test_single_rows_are_dealt_out_to_within_a_row_of_each_share(rows):
    made = split_rows(rows, by="stratified", stratify=["label", "language"])
    counts = {name: int((made == name).sum()) for name in ("train", "dev", "test")}
    assert counts == {"train": 480, "dev": 60, "test": 60}
    labels, languages = rows["label"][:], rows["language"][:]
    for label in LABELS:
        for language in ("en", "vi"):
            own = np.array([pair == (label, language) for pair in zip(labels, languages, strict=True)])
            for name, part in (("train", 0.8), ("dev", 0.1), ("test", 0.1)):
                assert abs((own & (made == name)).sum() - part * own.sum()) <= 1.5


def test_rows_are_dealt_alike_however_their_language_is_written(rows):
    named = rows.map(
        lambda row, n: {
            "language": row["language"] if n % 3 else {"vi": "Tiếng Việt"}.get(row["language"], "eng")
        },
        with_indices=True,
    )
    made = [split_rows(table, by="stratified", stratify=["label", "language"]) for table in (rows, named)]
    assert (made[0] == made[1]).all()


def test_no_speaker_is_cut_and_labels_are_more_even_than_by_chance(rows):
    speakers, labels = rows["speaker"][:], rows["label"][:]
    whole = np.ones(len(rows), dtype=bool)

    def unevenness(stratify: list[str], seed: int) -> float:
        made = split_rows(
            rows, by="speaker", stratify=stratify, seed=seed, shares={"train": 0.7, "dev": 0.1, "test": 0.2}
        )
        assert together(speakers, made)
        assert abs((made == "train").mean() - 0.7) < 0.05
        names = np.where(whole, "all", "")
        return sum(
            abs(share(made, split, labels, label) - share(names, "all", labels, label))
            for split in ("train", "dev", "test")
            for label in LABELS
        )

    seeds = range(5)
    even, chance = (np.mean([unevenness(stratify, seed) for seed in seeds]) for stratify in (["label"], []))
    assert even < 0.6 * chance


def test_blocks_of_consecutive_rows_stay_together(rows):
    made = split_rows(rows, by="block", block_rows=25)
    assert together([number // 25 for number in range(len(rows))], made)
    assert set(made) == {"train", "dev", "test"}
    assert not together([number // 50 for number in range(len(rows))], made)


def test_rows_with_one_sentence_stay_together_if_asked(tmp_path):
    table = corpus(rows=120, speakers=12)
    for number, row in enumerate(table):
        row["text"] = (
            f"sentence number {number // 8} of the script, spoken by all" if number % 3 else "thank you"
        )
    texts = ["" if row["text"] == "thank you" else row["text"] for row in table]
    rows = load_manifest(write(tmp_path / "m.csv", table))
    long = [number for number, text in enumerate(texts) if text]
    loose = split_rows(rows, by="stratified")
    assert not together([texts[number] for number in long], loose[long])
    made = split_rows(rows, by="stratified", keep_texts=True)
    assert together([texts[number] for number in long], made[long])
    assert len({made[number] for number, text in enumerate(texts) if not text}) > 1  # a greeting binds nobody
    made = split_rows(rows, by="block", block_rows=10, keep_texts=True)
    assert together([texts[number] for number in long], made[long])
    assert together([number // 10 for number in range(len(table))], made)


def test_the_seed_decides(rows):
    one, same, other = (split_rows(rows, by="speaker", seed=seed) for seed in (1, 1, 2))
    assert (one == same).all() and (one != other).any()
    one, same, other = (fold_rows(rows, by="stratified", folds=3, seed=seed) for seed in (1, 1, 2))
    assert (one == same).all() and (one != other).any()


def test_few_large_groups_leave_no_split_empty(tmp_path):
    table = [{"text": f"{number}", "label": "neutral", "speaker": f"s{number % 4}"} for number in range(40)]
    rows = load_manifest(write(tmp_path / "m.csv", table))
    made = split_rows(rows, by="speaker")
    assert sorted((made == name).sum() for name in ("train", "dev", "test")) == [10, 10, 20]
    with pytest.raises(
        ValueError, match="m.csv, column speaker: has 4 speakers that can be parted; accepted: enough for"
    ):
        split_rows(rows, by="speaker", shares=dict.fromkeys("abcde", 1.0), source="m.csv")


@pytest.mark.parametrize("by", ["speaker", "block", "stratified"])
def test_folds_are_even_and_cut_no_group(rows, by):
    folds = fold_rows(rows, by=by, folds=5, block_rows=10)
    assert set(folds) == set(range(5))
    groups = {
        "speaker": rows["speaker"][:],
        "block": [n // 10 for n in range(600)],
        "stratified": list(range(600)),
    }[by]
    assert together(groups, folds)
    labels = np.array(rows["label"][:])

    def spread(folds: np.ndarray) -> float:
        shares = [[np.mean(labels[folds == fold] == label) for fold in range(5)] for label in LABELS]
        return sum(max(of_label) - min(of_label) for of_label in shares)

    if by == "stratified":
        assert spread(folds) < 0.03
    else:
        assert spread(folds) < 0.75 * spread(fold_rows(rows, by="speaker", folds=5, stratify=[]))


def test_speaker_folds_without_strata_are_those_of_training(rows):
    folds = fold_rows(rows, by="speaker", folds=4, stratify=[])
    for fold in range(4):
        assert np.flatnonzero(folds == fold).tolist() == speaker_fold(rows, fold=fold, folds=4)["test"]


def test_leaving_one_speaker_out_makes_a_fold_of_each(rows):
    folds = fold_rows(rows, by="leave-one-speaker-out")
    assert together(rows["speaker"][:], folds)
    assert len(set(folds)) == len(set(rows["speaker"]))


def test_a_fold_as_splits():
    folds = np.array([0, 1, 2, 2, 0])
    assert splits_of_fold(folds, 2).tolist() == ["dev", "train", "test", "test", "dev"]
    for fold in (-1, 3):
        with pytest.raises(ValueError, match="accepted: 0 to 2"):
            splits_of_fold(folds, fold)
    with pytest.raises(ValueError, match="three folds or more"):
        splits_of_fold(np.array([0, 1]), 0)


@pytest.mark.parametrize("out", ["csv", "tsv", "jsonl", "parquet", "xlsx"])
@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet", "xlsx"])
def test_a_copy_keeps_everything_else_in_every_format(tmp_path, ending, out):
    (tmp_path / "audio").mkdir()
    table = []
    for number in range(12):
        soundfile.write(tmp_path / "audio" / f"{number}.wav", np.full(100, number / 20), 16000)
        row = {
            "id": f"{number:03d}",
            "audio": f"audio/{number}.wav",
            "text": f'says "{number}",\tđa dạng',
            "label": "neutral",
        }
        table.append(row | {"speaker": f"s{number}", "split": "old", "note": f"kept {number}"})
    source = write(tmp_path / f"m.{ending}", table)
    before = load_manifest(source).to_list()
    recipe = split_manifest(
        source, tmp_path / "sub" / f"new.{out}", by="speaker", seed=5, replace_column=True
    )
    after = load_manifest(tmp_path / "sub" / f"new.{out}").to_list()
    assert [row | {"split": None} for row in after] == [row | {"split": None} for row in before]
    counts = {name: sum(row["split"] == name for row in after) for name in recipe["counts"]}
    assert counts == {name: entry["rows"] for name, entry in recipe["counts"].items()}
    assert sum(counts.values()) == 12 and set(counts) == {"train", "dev", "test"}
    assert "kept 7" in notes(tmp_path / "sub" / f"new.{out}")
    assert {path.name for path in (tmp_path / "sub").iterdir()} == {f"new.{out}", "new.split.json"}


def notes(path: Path) -> list[str]:
    """A column of which mmsr knows nothing."""
    if path.suffix == ".parquet":
        return pandas.read_parquet(path)["note"].tolist()
    if path.suffix == ".xlsx":
        header, *cells = openpyxl.load_workbook(path).worksheets[0].iter_rows(values_only=True)
        return [row[header.index("note")] for row in cells]
    if path.suffix == ".jsonl":
        return [json.loads(line)["note"] for line in path.read_text(encoding="utf-8").splitlines()]
    with open(path, encoding="utf-8", newline="") as file:
        return [row["note"] for row in csv.DictReader(file, delimiter="," if path.suffix == ".csv" else "\t")]


def test_the_recipe_says_how_it_was_made(tmp_path):
    source = write(tmp_path / "m.csv", corpus(rows=60, speakers=6))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    made = split_manifest(
        source, source, by="speaker", folds=3, stratify=("label",), seed=7, command="mmsr data split"
    )
    recipe = json.loads((tmp_path / "m.split.json").read_text(encoding="utf-8"))
    assert recipe == made
    assert recipe["source"] == {"manifest": "m.csv", "sha256": digest}
    assert recipe["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest() != digest
    assert (recipe["by"], recipe["folds"], recipe["fold"], recipe["column"]) == ("speaker", 3, None, "fold")
    assert (recipe["seed"], recipe["stratify"], recipe["command"]) == (7, ["label"], "mmsr data split")
    assert set(recipe["counts"]) == {"0", "1", "2"}
    assert sum(entry["speakers"] for entry in recipe["counts"].values()) == 6
    assert set(recipe["counts"]["0"]["label"]) == set(LABELS)
    assert "split" not in pandas.read_csv(source).columns and set(pandas.read_csv(source)["fold"]) == {
        0,
        1,
        2,
    }


def test_absolute_paths_urls_and_archives_stay_right(tmp_path):
    audio = ["a.wav", str(tmp_path / "b.wav"), "https://example.org/c.wav", "zip://d.wav::all.zip", None]
    table = [{"audio": path, "text": "words", "label": "neutral"} for path in audio]
    split_manifest(write(tmp_path / "m.jsonl", table), tmp_path / "x" / "y" / "m.jsonl", by="stratified")
    lines = (tmp_path / "x" / "y" / "m.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["audio"] for line in lines] == [
        *(
            "../../a.wav",
            str(tmp_path / "b.wav"),
            "https://example.org/c.wav",
            "zip://d.wav::../../all.zip",
            None,
        )
    ]


def test_blank_rows_are_left_out_and_columns_have_other_names(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("said,who,part\none,a,\n\ntwo,b,\nthree,c,\n", encoding="utf-8")
    columns = {"text": "said", "speaker": "who", "split": "part"}
    split_manifest(path, tmp_path / "n.csv", by="speaker", columns=columns)
    written = pandas.read_csv(tmp_path / "n.csv")
    assert list(written.columns) == ["said", "who", "part"] and sorted(written["part"]) == [
        "dev",
        "test",
        "train",
    ]


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(("column", "folds"), [("split", None), ("fold", 3)])
def test_splits_and_folds_that_are_there_are_lost_only_if_asked_for(tmp_path, ending, column, folds):
    table = [{**row, column: "" if place < 57 else "1"} for place, row in enumerate(corpus(rows=60))]
    source = write(tmp_path / f"m.{ending}", table)
    with pytest.raises(ValueError) as error:
        split_manifest(source, tmp_path / "new.csv", by="stratified", folds=folds)
    accepted = "accepted: --replace, and the copy loses them"
    assert str(error.value) == f"m.{ending}, column {column}: has values in 3 rows already; {accepted}"
    assert list(tmp_path.iterdir()) == [source]
    split_manifest(source, tmp_path / "new.csv", by="stratified", folds=folds, replace_column=True)
    empty = write(tmp_path / f"e.{ending}", [{**row, column: ""} for row in table])
    split_manifest(empty, tmp_path / "same.csv", by="stratified", folds=folds)  # blank: nothing is lost
    assert (tmp_path / "same.csv").read_text() == (tmp_path / "new.csv").read_text()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"by": "speaker", "shares": {"train": 1.0, "test": 0.0}}, "--shares test=0.0; accepted: a positive"),
        ({"by": "speaker", "shares": {"train": float("nan")}}, "--shares train=nan; accepted: a positive"),
        ({"by": "speaker", "folds": 1}, "--folds is 1; accepted: 2 or more"),
        ({"by": "speaker", "folds": 99}, "m.csv, column speaker: has 6 speakers .* 99 folds"),
        ({"by": "speaker", "folds": 3, "shares": {"a": 1.0}}, "--shares and folds do not go together"),
        ({"by": "block", "block_rows": 0}, "--block-rows is 0; accepted: 1 or more"),
        ({"by": "block", "block_rows": 50}, "m.csv: has 2 blocks of rows that can be parted"),
        ({"by": "stratified", "stratify": ["text"]}, "--stratify text; accepted: label, language"),
        ({"by": "leave-one-speaker-out", "fold": 6}, "--fold is 6 of 6; accepted: 0 to 5"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_and_nothing_is_written(tmp_path, settings, message):
    source = write(tmp_path / "m.csv", corpus(rows=60, speakers=6))
    with pytest.raises(ValueError, match=message):
        split_manifest(source, tmp_path / "new.csv", **settings)
    assert list(tmp_path.iterdir()) == [source]


def test_rows_without_a_speaker_and_faulty_manifests_are_refused(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("text,speaker\na,s\nb,\n")
    with pytest.raises(
        ValueError,
        match="m.csv, column speaker: is missing in 1 of 2 rows, first in row 2; accepted: a speaker",
    ):
        split_manifest(path, tmp_path / "n.csv", by="speaker")
    path.write_text("id,text\n1,a\n1,b\n")
    with pytest.raises(ValueError, match="m.csv, row 3, column id"):
        split_manifest(path, tmp_path / "n.csv", by="stratified")
    with pytest.raises(ValueError, match=r"n.doc: has the ending '.doc'; accepted: .csv"):
        split_manifest(path, tmp_path / "n.doc", by="stratified")


# ---------------------------------------------------------------------- selecting


def test_rows_of_splits_are_selected_by_the_column(tmp_path: Path) -> None:
    made = corpus(rows=30, speakers=6)
    for number, row in enumerate(made):
        row["split"] = ("train", "val", "test")[number % 3]
    table = load_manifest(write(tmp_path / "m.csv", made))
    parts = select_rows(table, dev_split="val", required=["test", "dev"])
    assert list(parts) == ["train", "dev", "test"]
    assert {part: set(rows["split"]) for part, rows in parts.items()} == {
        "train": {"train"},
        "dev": {"val"},
        "test": {"test"},
    }
    assert parts["dev"]["id"] == [f"r{number}" for number in range(1, 30, 3)]
    assert not len(select_rows(table)["dev"])
    with pytest.raises(
        ValueError, match="^m.csv, column split: no row is in 'dev'; found: test, train, val$"
    ):
        select_rows(table, required=["dev"], source="m.csv")


def test_rows_of_a_fold_are_selected_by_speaker(rows: datasets.Dataset) -> None:
    parts = select_rows(rows, fold=1, folds=3, dev_speakers=4, required=["test"])
    expected = speaker_fold(rows, fold=1, folds=3, dev_speakers=4)
    assert {part: chosen["id"] for part, chosen in parts.items()} == {
        part: rows.select(numbers)["id"] for part, numbers in expected.items()
    }
    with pytest.raises(ValueError, match="fold is 3; accepted: 0 to 2"):
        select_rows(rows, fold=3, folds=3)


def test_a_manifest_without_splits_is_its_test_rows_if_they_are_required(
    rows: datasets.Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert not any(map(len, select_rows(rows).values())) and not caplog.messages
        parts = select_rows(rows, required=["test"], source="folder/m.csv")
    assert {part: len(chosen) for part, chosen in parts.items()} == {"train": 0, "dev": 0, "test": len(rows)}
    assert caplog.messages == ["m.csv: no row has a split, so all 600 rows are taken"]
    with pytest.raises(ValueError, match="no row is in 'dev'; found: none"):
        select_rows(rows, required=["test", "dev"])

"""The paper's spreadsheets and its Hub dataset, whose rows are all kept."""

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
import soundfile

from mmsr.data.corpora import CORPORA
from mmsr.data.corpora.conversion import convert
from mmsr.data.manifest.manifest import load_manifest

RATE = 16_000
HEADER = ["Unnamed: 0", "human_justification", "label", "text"]
LANGUAGES = {"": "vi", "_eng": "en", "_zh": "zh", "_german": "de", "_fr": "fr"}


def sheet(path: Path, header: list[str], rows: list[list[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    for values in (header, *rows):
        book.active.append(values)
    book.save(path)
    return path


@pytest.fixture
def spreadsheets(root: Path) -> Path:
    for ending in LANGUAGES:
        rows = [[n, f"vì {n}", n % 3, f"câu {n}{ending}"] for n in range(6)]
        sheet(root / f"train{ending}.xlsx", HEADER, rows)
    sheet(root / "test.xlsx", HEADER, [[n, f"vì {n}", n % 3, f"thử {n}"] for n in range(3)])
    sheet(
        root / "test_asr.xlsx", ["asr", "label", "text"], [[f"nghe {n}", n % 3, f"thử {n}"] for n in range(3)]
    )
    return root


def test_the_paper_s_spreadsheets_lose_no_row(spreadsheets: Path, converted: Any) -> None:
    done = converted("sentiment-reasoning", spreadsheets)
    counts = done.record["counts"]
    assert counts["language"] == {"vi": 9, "en": 6, "zh": 6, "de": 6, "fr": 6}
    assert counts["split"] == {"train": 30, "test": 3} and sum(counts["read"].values()) == 33
    row = done.rows["en-train-2"]
    assert (row["text"], row["label"], row["rationale"]) == ("câu 0_eng", "negative", "vì 0")
    # The translations of a row stand together.
    numbers = [name.rpartition("-")[2] for name, row in done.rows.items() if row["split"] == "train"]
    assert numbers == [str(number) for number in range(2, 8) for _ in LANGUAGES]
    assert [row["asr_text"] for row in done.rows.values() if row["split"] == "test"] == [
        f"nghe {n}" for n in range(3)
    ]


def test_asr_transcripts_of_other_rows_stay_apart(spreadsheets: Path, converted: Any) -> None:
    rows = [[f"nghe {n}", n % 3, f"khác {n}"] for n in range(2)]
    sheet(spreadsheets / "test_asr.xlsx", ["asr", "label", "text"], rows)
    done = converted("sentiment-reasoning", spreadsheets)
    assert done.record["counts"]["split"] == {"train": 30, "test": 3, "test_asr": 2}
    assert "test_asr.xlsx, row 2" in done.record["notes"][0]


def test_the_sheet_of_a_book_that_is_read_is_the_first_that_is_seen(
    spreadsheets: Path, converted: Any, refused: Any
) -> None:
    book = openpyxl.load_workbook(spreadsheets / "train_eng.xlsx")
    notes = book.create_sheet("Notes", 0)
    notes.append(["text", "label"])
    notes.append(["hidden", 0])
    notes.sheet_state = "hidden"
    book.save(spreadsheets / "train_eng.xlsx")
    assert converted("sentiment-reasoning", spreadsheets).rows["en-train-2"]["text"] == "câu 0_eng"
    book["Sheet"]["C3"] = "=1+1"
    book.save(spreadsheets / "train_eng.xlsx")
    message = refused("sentiment-reasoning", spreadsheets)
    assert "train_eng.xlsx, sheet 'Sheet', row 3, column label: Sheet!C3 holds a formula" in message


def test_csv_of_a_spreadsheet_is_read_with_its_delimiter(spreadsheets: Path, converted: Any) -> None:
    rows = ["human_justification;label;text", *(f"vì {n};{n % 3};câu, {n}" for n in range(6))]
    (spreadsheets / "train_eng.xlsx").unlink()
    (spreadsheets / "train_eng.csv").write_bytes("\r\n".join(rows).encode("utf-16"))
    done = converted("sentiment-reasoning", spreadsheets)
    assert done.rows["en-train-2"]["text"] == "câu, 0" and done.rows["en-train-3"]["label"] == "neutral"


def test_spreadsheet_faults_name_file_row_and_column(spreadsheets: Path, refused: Any) -> None:
    sheet(spreadsheets / "train.xlsx", HEADER, [[0, "vì", 7, "câu"], [1, "vì", 1, None]])
    message = refused("sentiment-reasoning", spreadsheets)
    assert "train.xlsx, row 2, column label: '7' is unknown; accepted: negative, neutral, positive" in message
    assert "train.xlsx, row 3, column text: is missing" in message
    sheet(spreadsheets / "train.xlsx", ["a", "b"], [[0, 1]])
    assert "train.xlsx, column text: 'text' is not in the file" in refused(
        "sentiment-reasoning", spreadsheets
    )
    sheet(spreadsheets / "more.xlsx", HEADER, [[0, "vì", 1, "câu"]])
    message = refused("sentiment-reasoning", spreadsheets)
    assert (
        "more.xlsx names no single split and language (found: neither); accepted: train, dev or test"
        in message
    )


def hub_table(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def encoded(form: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.full(800, 0.1), RATE, format=form)
    return file.getvalue()


def test_the_hub_dataset_brings_its_audio(root: Path, converted: Any) -> None:
    for language, form in (("Vietnamese", "FLAC"), ("English", "WAV")):
        for shard in range(2):
            hub_table(
                root / language / f"train-0000{shard}-of-00002.parquet",
                [
                    {
                        "text": f"{language} {shard} {n}",
                        "label": n,
                        "human_justification": "vì",
                        "audio": {"bytes": encoded(form), "path": "x"},
                    }
                    for n in range(3)
                ],
            )
    done = converted("sentiment-reasoning", root)
    assert list(done.rows)[:4] == ["en-train-1", "vi-train-1", "en-train-2", "vi-train-2"]
    row = done.rows["vi-train-4"]
    assert (row["text"], row["label"], row["audio"]) == (
        "Vietnamese 1 0",
        "negative",
        "audio/vi-train-4.flac",
    )
    assert (done.folder / row["audio"]).read_bytes() == encoded("FLAC")
    assert done.rows["en-train-4"]["audio"] == "audio/en-train-4.wav"
    assert Counter(done.column("label")) == {"negative": 4, "neutral": 4, "positive": 4}


def test_hub_faults_are_named(root: Path, refused: Any) -> None:
    path = root / "data" / "train-00000-of-00001.parquet"
    hub_table(path, [{"text": "a", "label": 1}, {"text": "b", "label": 3}])
    message = refused("sentiment-reasoning", root)
    assert "data/train-00000-of-00001.parquet, row 2, column label: 3 is unknown" in message
    hub_table(path, [{"transcript": "a", "label": 1}])
    message = refused("sentiment-reasoning", root)
    assert "no column text; found: transcript, label" in message
    path.write_bytes(b"no parquet")
    assert "train-00000-of-00001.parquet: cannot be read" in refused("sentiment-reasoning", root)


def test_real_spreadsheets_lose_no_row(shared_data: Path, tmp_path: Path) -> None:
    done = convert(CORPORA["sentiment-reasoning"], shared_data / "sentiment-reasoning", tmp_path / "out")
    assert done.left_out == ()
    rows = load_manifest(done.manifest, labels=["negative", "neutral", "positive"])
    assert Counter(zip(rows["language"], rows["label"], strict=True)) == {
        (language, label): count
        for language in ("vi", "en")
        for label, count in (("negative", 1694), ("neutral", 2844), ("positive", 1157))
    }
    assert all(rows["text"]) and all(rows["rationale"])

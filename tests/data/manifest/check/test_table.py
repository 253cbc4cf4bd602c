"""A manifest in which nearly everything is wrong, and one in which nothing is."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from mmsr.data.manifest.check.codes import CODES
from mmsr.data.manifest.check.report import summary
from mmsr.data.manifest.check.table import CheckedManifest, check_manifest

# code, id of its row, column, and what its message must say
EXPECTED: list[tuple[str, str, str | None, tuple[str, ...]]] = [
    ("audio-missing", "missing", "audio", ("'gone.wav' does not exist", "accepted: a path relative")),
    ("audio-empty", "empty", "audio", ("'empty.wav' is empty (0 bytes)", "accepted")),
    ("audio-corrupt", "corrupt", "audio", ("'text.wav' holds no audio", "accepted")),
    (
        "audio-truncated",
        "truncated",
        "audio",
        ("'cut.wav' is cut off: its header states 2.00 s, 1.00 s are there", "accepted: a whole audio file"),
    ),
    ("audio-truncated", "truncated-flac", "audio", ("'cut.flac' is cut off", "accepted: a whole audio file")),
    ("audio-zero-length", "zero-length", "audio", ("'zero.wav' has length zero", "accepted")),
    ("audio-nan", "nan", "audio", ("'nan.wav' 1 of 16000 samples are NaN", "accepted: finite")),
    ("audio-scale", "scale", "audio", ("'scale.wav' peak", "far beyond full scale", "accepted")),
    ("audio-silent", "silent", "audio", ("'silent.wav' is silent (peak:", "accepted: a peak above -60 dB")),
    ("audio-silent", "constant", "audio", ("'constant.wav' is silent (peak: ",)),
    ("audio-clipped", "clipped", "audio", ("'clipped.wav' is clipped (", "accepted: at most 0.1%")),
    ("audio-short", "short", "audio", ("'short.wav' lasts 0.050 s; accepted: at least 0.1 s",)),
    ("audio-long", "long", "audio", ("'long.wav' lasts 4.2 s; accepted: at most 4.1 s (--max-seconds)",)),
    (
        "audio-duplicate",
        "copy",
        "audio",
        ("'copy.wav' has the same bytes as 'clean0.wav' of row 1", "accepted"),
    ),
    (
        "audio-in-two-splits",
        "leak",
        "audio",
        ("train (row 2) and test (row 27)", "accepted: each sound in one"),
    ),
    ("speech-too-fast", "fast", "text", ("100.0 letters a second; accepted: 1 to 40",)),
    (
        "label-misspelt",
        "label-case",
        "label",
        ("'Positive ' is no label, but 'positive' is", "accepted: neg"),
    ),
    (
        "label-unknown",
        "label-typo",
        "label",
        ("'negatve' is unknown, 'negative' is near; accepted: negative,",),
    ),
    ("label-unknown", "label-number", "label", ("'7' is unknown; accepted", "indices 0 to 2")),
    ("label-missing", "unlabelled", "label", ("is missing, while", "of split 'train'", "accepted: a label")),
    (
        "label-conflict",
        "two-labels",
        "label",
        ("neutral (2 rows, first row", "and positive (row", "accepted"),
    ),
    (
        "language-unknown",
        "language-name",
        "language",
        ("'English' is no ISO 639 code, 'en' is meant", "accepted"),
    ),
    ("language-unknown", "language-country", "language", ("'vn' is no ISO 639 code, 'vi' is meant",)),
    ("language-script", "language-script", "language", ("is not written in 'zh'; accepted",)),
    ("whitespace", "language-space", "language", ("'en ' has spaces around it; accepted: 'en'",)),
    ("whitespace", "speaker-space", "speaker", ("' odd' has spaces around it; accepted: 'odd'",)),
    ("split-misspelt", "split-case", "split", ("'Train' is no split, but 'train' is; accepted: train, dev",)),
    ("split-misspelt", "split-typo", "split", ("'tets' is no split, but 'test' is",)),
    ("split-unknown", "split-other", "split", ("'test2' is unknown; accepted: train, dev, test, or --data",)),
    ("split-missing", "split-none", "split", ("is missing, while others have one; accepted: train",)),
    ("rationale-without-label", "unlabelled", "rationale", ("'because' explains no label; accepted",)),
    ("row-empty", "no-input", "audio", ("no audio and no text; accepted: at least one",)),
    ("row-duplicate", "again-2", None, ("again but for the id; accepted: each utterance once",)),
    ("text-replacement", "replacement", "text", ("has lost letters (U+FFFD); accepted",)),
    (
        "text-mojibake",
        "mojibake",
        "text",
        ('read as Windows-1252; accepted: "l\'infirmière a tout expliqué"',),
    ),
    ("text-control", "control", "text", ("(U+0007, U+200B); accepted: text without",)),
    ("text-form", "decomposed", "text", ("is not in Unicode NFC", "accepted: NFC in all")),
    ("text-wordless", "wordless", "text", ("'...' has no letter and no digit; accepted",)),
    ("text-short", "letter", "text", ("'m' is a single letter; accepted: words",)),
    ("value-no-text", "value", "text", ("holds a list; accepted: text",)),
    (
        "speaker-in-two-splits",
        "speaker",
        "speaker",
        ("'train-0' is in train (3 rows, first row 1) and test (row",),
    ),
    (
        "text-in-two-splits",
        "shared-2",
        "text",
        ("is in train (row", "and test (row", "accepted: each sentence"),
    ),
]


def told(checked: CheckedManifest, code: str, identity: str | None = None) -> list[str]:
    """Messages of a code, in the row of an id."""
    numbers = {name: int(n) for name, n in zip(checked.table["id"].to_pylist(), checked.numbers, strict=True)}
    return [
        str(fault)
        for fault in checked.issues
        if fault.code == code and (identity is None or fault.row == numbers[identity])
    ]


@pytest.mark.parametrize(
    ("code", "identity", "column", "parts"), EXPECTED, ids=[f"{e[0]}-{e[1]}" for e in EXPECTED]
)
def test_every_fault_names_file_row_column_value_and_remedy(faulty, code, identity, column, parts):
    (line,) = told(faulty, code, identity)
    assert line.startswith("m.jsonl, row ")
    assert column is None or f", column {column}: " in line
    for part in parts:
        assert part in line


def test_one_run_names_faults_of_other_kinds_too(faulty):
    (line,) = told(faulty, "column-misspelt")
    assert line == (
        "m.jsonl, column kinds: 'kinds' is no column, but 'kind' is; accepted: id, audio, text, asr_text,"
        " label, rationale, language, speaker, split, kind"
    )
    (line,) = told(faulty, "id-twice")
    assert "column id: 'composed' is the id of row" in line and "accepted: each id once" in line
    (line,) = told(faulty, "row-blank")
    assert line.endswith("is blank; accepted: rows with audio or text")
    assert ["JSON" in line and "accepted" in line for line in told(faulty, "ragged-row")] == [True, True]
    assert told(faulty, "language-absent")[0].startswith(
        "m.jsonl, column language: split 'dev' has no row in"
    )
    assert "split 'dev'" not in "".join(told(faulty, "class-absent"))
    assert "'test' has no row of" not in "".join(told(faulty, "class-absent"))
    (line,) = told(faulty, "class-rare")
    assert "split 'train' has 2 of" in line and "rows of 'negative'; accepted: at least 1 %" in line
    assert len({fault.code for fault in faulty.issues}) >= 40
    assert all("accepted" in fault.problem for fault in faulty.issues)
    assert all(fault.severity == CODES[fault.code].severity for fault in faulty.issues)


def test_what_is_right_in_the_same_run_is_not_told(faulty):
    """Each of these is near to a fault."""
    rows = dict(zip(faulty.table["id"].to_pylist(), faulty.numbers.tolist(), strict=True))
    told_of = {(fault.row, fault.code) for fault in faulty.issues}
    for identity in (
        "label-index",
        "language-region",
        "language-three",
        "genuine",
        "greeting-1",
        "greeting-2",
    ):
        assert not [code for row, code in told_of if row == rows[identity]], identity
    assert not {code for row, code in told_of if row in range(1, 13)}  # the clean ones
    assert not told(faulty, "audio-duplicate", "leak")  # it is told already that this is in two splits
    labels = dict(zip(faulty.table["id"].to_pylist(), faulty.table["label"].to_pylist(), strict=True))
    assert labels["label-index"] == "neutral"


def test_a_clean_manifest_has_no_faults(clean):
    checked = check_manifest(clean)
    assert checked.issues == () and checked.errors == checked.warnings == 0
    assert checked.seconds == pytest.approx(2.0)
    assert "12 rows, no faults" in summary(checked)


def test_recordings_without_a_speaker_are_told(changed, clean):
    some = changed(clean, lambda place, row: row | ({"speaker": None} if place in (3, 4) else {}))
    (line,) = told(check_manifest(some, audio=False), "speaker-missing")
    assert line.startswith(f"{some.name}, row 4, column speaker: is missing in 2 of 12 rows with audio, so")
    none = changed(clean, lambda place, row: row | {"speaker": None})
    (line,) = told(check_manifest(none, audio=False), "speaker-missing")
    assert line == (
        f"{none.name}, column speaker: no row has one, so rows cannot be split by speaker;"
        " accepted: a speaker in each"
    )
    words = changed(clean, lambda place, row: row | {"speaker": None, "audio": None})
    assert "speaker-missing" not in codes_of(words)


def test_the_demo_corpus_has_no_errors(demo_corpus):
    checked = check_manifest(demo_corpus)
    assert [str(fault) for fault in checked.issues if fault.severity == "error"] == []
    assert {fault.code for fault in checked.issues} <= {"language-absent", "text-form"}


def codes_of(path: Path, **options: Any) -> list[str]:
    return [fault.code for fault in check_manifest(path, **options).issues]


def test_allow_forgives_and_strict_makes_errors(changed, clean):
    path = changed(
        clean, lambda place, row: row | {"speaker": "all", "split": "trian" if place == 0 else row["split"]}
    )
    assert sorted(codes_of(path)) == ["speaker-in-two-splits", "split-misspelt"]
    checked = check_manifest(path, allow=["speaker-in-two-splits", "split-misspelt"])
    assert checked.issues == () and len(checked.forgiven) == 2
    with pytest.raises(
        ValueError, match="--allow speakers-in-two-splits is no code, 'speaker-in-two-splits' is near"
    ):
        check_manifest(path, allow=["speakers-in-two-splits"])
    path = changed(clean, lambda place, row: row | {"language": "xx"})
    assert (check_manifest(path).errors, check_manifest(path).warnings) == (0, 12)
    assert (check_manifest(path, strict=True).errors, check_manifest(path, strict=True).warnings) == (12, 0)


def test_a_language_is_one_however_it_is_written(changed, clean):
    written = ("en", "eng", "en_US.UTF-8"), ("vi", "vie", "vi-VN")
    languages = {"en": written[0], "vi": written[1]}
    path = changed(
        clean, lambda place, row: row | {"language": languages.get(row["language"], written[0])[place % 3]}
    )
    assert codes_of(path) == []
    script = [
        {"language": name, "text": "words in Latin letters"} for name in ("zho_Hans", "cmn", "yue", "chi")
    ]
    path = changed(clean, lambda place, row: row | (script[place] if place < len(script) else {}))
    assert codes_of(path).count("language-script") == len(script)


def test_a_class_that_collapses_in_a_split_is_an_error(changed, clean):
    path = changed(clean, lambda place, row: None if place == 3 else row)
    (fault,) = check_manifest(path).issues
    assert str(fault) == (
        "changed.jsonl, column label: split 'dev' has no row of 'negative' among 2 with labels;"
        " accepted: some of each"
    )
    path = changed(clean, lambda place, row: row | {"split": None, "label": "neutral"})
    assert codes_of(path) == ["class-absent", "class-absent"]
    assert codes_of(path, labels=["neutral"]) == []
    assert codes_of(changed(clean, lambda place, row: row | {"label": None, "rationale": None})) == []


def test_a_scripted_corpus_is_one_warning_and_not_thousands(changed, clean):
    path = changed(clean, lambda place, row: row | {"text": f"the same sentence in all splits {place % 2}"})
    (fault,) = check_manifest(path).issues
    assert fault.code == "texts-scripted" and "2 of 2 sentences" in fault.problem


def test_a_split_that_is_not_there_is_a_warning(changed, clean):
    assert codes_of(changed(clean, lambda place, row: None if row["split"] == "dev" else row)) == [
        "split-absent"
    ]


def test_a_corpus_decomposed_throughout_is_told_once(changed, clean):
    assert codes_of(changed(clean, lambda place, row: row | {"text": row["text"] + " e\u0301"})) == [
        "text-form"
    ]


def test_required_columns(clean):
    (fault,) = check_manifest(clean, require=["kind"]).issues
    assert (fault.code, fault.column) == ("column-missing", "kind")


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_every_line_that_is_not_utf_8_is_named(tmp_path, ending):
    path = tmp_path / f"m.{ending}"
    path.write_bytes("text\nfine\nun café noir\nfine\ndéjà\n".encode("cp1252"))
    checked = check_manifest(path)
    assert [(fault.code, fault.row) for fault in checked.issues] == [("not-utf-8", 3), ("not-utf-8", 5)]
    assert "byte 0xe9" in str(checked.issues[0]) and "'un café noir'" in str(checked.issues[0])
    assert "accepted: text saved as UTF-8" in str(checked.issues[0]) and checked.errors == 2
    path.write_bytes("text\nfine\n".encode("utf-16")[:-1])
    (fault,) = [fault for fault in check_manifest(path).issues if fault.code == "not-utf-8"]
    assert f"{path.name}: is not UTF-16" in str(fault)


def test_a_header_with_a_column_twice_and_ragged_rows(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("text,text\na,b\n")
    assert codes_of(path) == ["column-twice"]
    path.write_text(
        "text,label\n" + "".join(f"word {label},{label}\n" for label in ("negative", "neutral")) + "a\n"
    )
    assert codes_of(path, labels=["negative", "neutral"]) == ["ragged-row"]
    path.write_text("text,label\n")
    assert codes_of(path) == ["table-empty"]


def test_a_stray_quote_is_a_fault_of_its_row(tmp_path):
    path = tmp_path / "m.tsv"
    path.write_text('text\tlabel\n"good words here\tpositive\nbad words here\tnegative\n')
    (line,) = told(check_manifest(path), "quote-stray")
    assert line.startswith("m.tsv, row 2: cannot be read (unexpected end of data): '\"good words here")


def test_what_cannot_be_read_at_all_raises(tmp_path):
    for name, problem in (("no.csv", "no such file"), ("m.doc", "accepted: .csv")):
        with pytest.raises(ValueError, match=problem):
            check_manifest(tmp_path / name)


def test_real_speech_has_no_errors(shared_data):
    checked = check_manifest(shared_data / "ravdess16k" / "manifest.csv", audio=False)
    assert checked.issues == ()


@pytest.mark.slow
def test_a_large_table_takes_seconds(tmp_path):
    import time

    size = 200_000
    table = {
        "id": pa.array(np.arange(size)).cast(pa.string()),
        "audio": [f"audio/{number}.wav" for number in range(size)],
        "text": [f"dies ist der lange satz nummer {number} über äpfel" for number in range(size)],
        "label": np.array(["negative", "neutral", "positive"])[np.arange(size) % 3],
        "speaker": [f"s{number % 5000}" for number in range(size)],
        "split": np.array(["train"] * 8 + ["dev", "test"])[np.arange(size) % 5000 % 10],
        "language": ["de"] * size,
    }
    pyarrow.parquet.write_table(pa.table(table), tmp_path / "m.parquet")
    started = time.perf_counter()
    assert check_manifest(tmp_path / "m.parquet", audio=False).issues == ()
    assert time.perf_counter() - started < 40

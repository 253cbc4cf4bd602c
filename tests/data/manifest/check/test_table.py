"""A manifest in which nearly everything is wrong, and one in which nothing is."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import soundfile

from mmsr.data.manifest.check import (
    CODES,
    CheckedManifest,
    as_json,
    check_manifest,
    code_table,
    summary,
    write_page,
)

RATE = 16_000
WORDS = "the nurse explained it very well today"


def tone(seconds: float, *, seed: int, level: float = 0.3) -> np.ndarray:
    """Sound unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    return level * (
        np.sin(np.arange(int(seconds * RATE)) * 0.05) + 0.1 * rng.standard_normal(int(seconds * RATE))
    )


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def clean_rows(folder: Path) -> list[dict[str, Any]]:
    """Twelve utterances in two languages: all labels, both languages and other speakers in each split."""
    openings = ["my doctor", "our nurse", "the surgeon", "a dentist"]
    rows = []
    for number in range(12):
        split, label = (
            ("train", "dev", "test", "train")[number // 3],
            ("negative", "neutral", "positive")[number % 3],
        )
        name = f"clean{number}.wav"
        soundfile.write(folder / name, tone(2.0, seed=number), RATE)
        text = f"{openings[number // 3]} spoke of matter {number} for a while"
        row = {
            "id": f"c{number}",
            "audio": name,
            "text": text,
            "label": label,
            "rationale": f"because {number}",
        }
        rows.append(row | {"language": "en", "speaker": f"{split}-{number // 3}", "split": split})
    return rows


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "clean.jsonl", clean_rows(tmp_path))


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> CheckedManifest:
    """One run over a manifest with one row for each fault, after the clean ones."""
    folder = tmp_path_factory.mktemp("faulty")
    rows: list[Any] = clean_rows(folder)

    def sound(name: str, samples: np.ndarray, **options: Any) -> str:
        soundfile.write(folder / name, samples, RATE, **options)
        return name

    whole = (folder / sound("whole.wav", tone(2, seed=50))).read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (folder / sound("cut.flac", tone(2, seed=49))).write_bytes((folder / "cut.flac").read_bytes()[:20_000])
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is no sound")
    (folder / "copy.wav").write_bytes((folder / "clean0.wav").read_bytes())
    (folder / "leak.wav").write_bytes((folder / "clean1.wav").read_bytes())
    broken = tone(1, seed=51)
    broken[100] = np.nan
    audio: dict[str, dict[str, Any]] = {
        "missing": {"audio": "gone.wav"},
        "empty": {"audio": "empty.wav"},
        "corrupt": {"audio": "text.wav"},
        "truncated": {"audio": "cut.wav"},
        "truncated-flac": {"audio": "cut.flac"},
        "zero-length": {"audio": sound("zero.wav", np.zeros(0))},
        "nan": {"audio": sound("nan.wav", broken, subtype="FLOAT")},
        "scale": {"audio": sound("scale.wav", tone(1, seed=52) * 32768, subtype="FLOAT")},
        "silent": {"audio": sound("silent.wav", np.full(RATE, 1e-4), subtype="FLOAT")},
        "constant": {"audio": sound("constant.wav", np.full(RATE, 0.2))},
        "clipped": {"audio": sound("clipped.wav", np.clip(tone(2, seed=53) * 9, -1, 1))},
        "short": {"audio": sound("short.wav", tone(0.05, seed=54)), "text": "a b"},
        "long": {"audio": sound("long.wav", tone(4.2, seed=55)), "text": "words enough " * 5},
        "copy": {"audio": "copy.wav"},
        "leak": {"audio": "leak.wav", "split": "test"},
        "fast": {"audio": sound("fast.wav", tone(0.5, seed=56)), "text": "much is said " * 5},
        "fast-zh": {
            "audio": sound("zh.wav", tone(1, seed=57)),
            "text": "护士非常耐心地解释了一切",
            "language": "zh",
        },
        "slow": {"audio": sound("slow.wav", tone(4.0, seed=58)), "text": None, "asr_text": "no"},
    }
    texts: dict[str, dict[str, Any]] = {
        "label-case": {"label": "Positive "},
        "label-typo": {"label": "negatve"},
        "label-number": {"label": "7"},
        "label-index": {"label": "1"},
        "language-name": {"language": "English"},
        "language-country": {"language": "vn"},
        "language-region": {"language": "zh-CN", "text": "护士很好"},
        "language-three": {"language": "yue", "text": "護士好好"},
        "language-space": {"language": "en "},
        "language-script": {"language": "zh"},
        "split-case": {"split": "Train"},
        "split-typo": {"split": "tets"},
        "split-other": {"split": "test2"},
        "split-none": {"split": None},
        "unlabelled": {"label": None, "rationale": "because"},
        "no-input": {"text": None},
        "replacement": {"text": "das Pflegeteam war \ufffdu\u00dferst nett"},
        "mojibake": {"text": "l'infirmi\u00c3\u00a8re a tout expliqu\u00c3\u00a9", "language": "fr"},
        "genuine": {"text": "« L\u00c0 » \u2026 \u1ebf\u201d Ng\u00e3\u2026", "language": "fr"},
        "control": {"text": "the doctor\u200b was \x07 kind"},
        "decomposed": {"text": unicodedata.normalize("NFD", "điều dưỡng rất tốt"), "language": "vi"},
        "composed": {"text": "bác sĩ nói nhanh", "language": "vi"},
        "wordless": {"text": "..."},
        "letter": {"text": "m"},
        "value": {"text": ["a", "list"]},
        "speaker": {"speaker": "train-0", "split": "test"},
        "speaker-space": {"speaker": " odd"},
        "shared-1": {"text": "It was a really good visit, I think."},
        "shared-2": {"text": "it was a REALLY good visit i think", "split": "test", "speaker": "other"},
        "greeting-1": {"text": "thank you"},
        "greeting-2": {"text": "Thank you!", "split": "test", "speaker": "other"},
    }
    same = {"text": "this one is said twice by mistake", "speaker": "s", "split": "train", "label": "neutral"}
    usual = {"label": "neutral", "language": "en", "speaker": "s", "split": "train"}
    for name, row in {**audio, **texts}.items():
        text = f"{WORDS} {name}" if name not in audio else WORDS[:12]
        rows.append({"id": name, "text": text} | usual | row)
    rows += ["", {**same, "id": "again-1"}, {**same, "id": "again-2"}, "not json", "[1]"]
    rows += [{"id": "composed", **same, "text": "an id is used twice in here"}]
    rows += [{"id": "two-labels", **same, "label": "positive"}]
    rows += [{**usual, "id": f"many-{number}", "text": f"filler number {number}"} for number in range(200)]
    for row in rows:
        if isinstance(row, dict):
            row["kinds"] = "unused"
    return check_manifest(write_jsonl(folder / "m.jsonl", rows), max_seconds=4.1)


# code, id of its row, column, and what its message must say
EXPECTED: list[tuple[str, str, str | None, tuple[str, ...]]] = [
    ("audio-missing", "missing", "audio", ("'gone.wav' does not exist", "accepted: a path relative")),
    ("audio-empty", "empty", "audio", ("'empty.wav' is empty (0 bytes)", "accepted")),
    ("audio-corrupt", "corrupt", "audio", ("'text.wav' holds no audio", "accepted")),
    (
        "audio-truncated",
        "truncated",
        "audio",
        ("'cut.wav' ends 32,022 bytes before", "accepted: a whole audio file"),
    ),
    ("audio-corrupt", "truncated-flac", "audio", ("'cut.flac' ", "accepted: a whole audio file")),
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


def test_the_demo_corpus_has_no_errors(demo_corpus):
    checked = check_manifest(demo_corpus)
    assert [str(fault) for fault in checked.issues if fault.severity == "error"] == []
    assert {fault.code for fault in checked.issues} <= {"language-absent", "text-form"}


def changed(clean: Path, change: Callable[[int, dict[str, Any]], dict[str, Any] | None]) -> Path:
    rows = [change(place, json.loads(line)) for place, line in enumerate(clean.read_text().splitlines())]
    return write_jsonl(clean.parent / "changed.jsonl", [row for row in rows if row is not None])


def codes_of(path: Path, **options: Any) -> list[str]:
    return [fault.code for fault in check_manifest(path, **options).issues]


def test_allow_forgives_and_strict_makes_errors(clean):
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


def test_a_class_that_collapses_in_a_split_is_an_error(clean):
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


def test_a_scripted_corpus_is_one_warning_and_not_thousands(clean):
    path = changed(clean, lambda place, row: row | {"text": f"the same sentence in all splits {place % 2}"})
    (fault,) = check_manifest(path).issues
    assert fault.code == "texts-scripted" and "2 of 2 sentences" in fault.problem


def test_a_split_that_is_not_there_is_a_warning(clean):
    assert codes_of(changed(clean, lambda place, row: None if row["split"] == "dev" else row)) == [
        "split-absent"
    ]


def test_a_corpus_decomposed_throughout_is_told_once(clean):
    assert codes_of(changed(clean, lambda place, row: row | {"text": row["text"] + " e\u0301"})) == [
        "text-form"
    ]


def test_audio_is_not_opened_when_not_asked_for(clean):
    path = changed(clean, lambda place, row: row | {"audio": "gone.wav" if place in (0, 1) else row["audio"]})
    assert sorted(codes_of(path)) == ["audio-missing", "audio-missing", "label-conflict"]
    checked = check_manifest(path, audio=False)
    assert sorted(fault.code for fault in checked.issues) == ["audio-duplicate", "label-conflict"]
    assert np.isnan(checked.seconds).all()


def test_audio_in_an_archive_is_heard(clean, tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for number in range(12):
            archive.write(tmp_path / f"clean{number}.wav", f"clean{number}.wav")
    path = changed(clean, lambda place, row: row | {"audio": f"zip://{row['audio']}::all.zip"})
    checked = check_manifest(path)
    assert checked.issues == () and checked.seconds == pytest.approx(2.0)
    path = changed(clean, lambda place, row: row | {"audio": f"zip://no{row['audio']}::all.zip"})
    assert set(codes_of(path)) == {"audio-missing"}


def test_a_duration_that_is_not_the_audio_s_length_is_an_error(clean):
    told_seconds = ["5", "2.09", "1.5", None]  # the audio lasts 2 s, of the last row 20 s

    def durations(number: int, row: dict[str, Any]) -> dict[str, Any]:
        return row | {"duration": told_seconds[number] if number < 4 else 20.3 if number == 11 else 2}

    path = changed(clean, durations)
    soundfile.write(path.parent / "clean11.wav", tone(20.0, seed=11), RATE)
    checked = check_manifest(path, allow=["speech-too-slow"])
    accepted = "accepted: its length, to within 0.1 s or 2%"
    assert [str(fault) for fault in checked.issues] == [
        f"{path.name}, row 1, column duration: is 5 s, but 'clean0.wav' lasts 2.00 s; {accepted}",
        f"{path.name}, row 3, column duration: is 1.5 s, but 'clean2.wav' lasts 2.00 s; {accepted}",
    ]
    assert {fault.code for fault in checked.issues} == {"duration-wrong"} and checked.errors == 2
    assert codes_of(path, audio=False) == []


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
    path.write_text("text\nfine\n", encoding="utf-16")
    (fault,) = check_manifest(path).issues
    assert "is UTF-16" in str(fault)


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
    for name, problem in (("no.csv", "does not exist"), ("m.doc", "accepted: .csv")):
        with pytest.raises(ValueError, match=problem):
            check_manifest(tmp_path / name)


def test_json_has_every_fault_and_the_terminal_the_first(faulty):
    found = json.loads(json.dumps(as_json(faulty)))
    assert len(found["faults"]) == len(faulty.issues) == found["errors"] + found["warnings"]
    assert set(found["faults"][0]) == {"file", "row", "column", "code", "severity", "message"}
    assert found["counts"]["rows"] == len(faulty.table) and found["counts"]["label"]["positive"] >= 4
    text = summary(faulty, shown=1)
    assert "error label-unknown (2): a label is not in the label set -> correct it, or give --labels" in text
    assert "... and 1 more (all with --json)" in text
    assert all(code in text for code in {fault.code for fault in faulty.issues})


def test_the_page_shows_counts_and_faults_and_loads_nothing(faulty, tmp_path):
    write_page(faulty, tmp_path / "new" / "check.html")
    html = (tmp_path / "new" / "check.html").read_text(encoding="utf-8")
    for code in {fault.code for fault in faulty.issues}:
        assert f"<code>{code}</code>" in html
    assert html.count("<svg") == 2 and html.count("<rect") == 48
    assert "<script" not in html and "http" not in html and "src=" not in html
    assert "negatve" in html and "<td>–</td>" in html
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "check.html"]


def test_the_page_escapes_what_a_manifest_says(clean, tmp_path):
    path = changed(clean, lambda place, row: row | {"label": "<script>alert(1)</script>"})
    write_page(check_manifest(path, audio=False), tmp_path / "check.html")
    assert "<script" not in (tmp_path / "check.html").read_text(encoding="utf-8")


def test_codes_are_kebab_case_and_in_the_table():
    lines = code_table().splitlines()
    assert len(lines) == len(CODES)
    for code, line in zip(CODES, lines, strict=True):
        assert (
            code == code.lower()
            and " " not in code
            and line.startswith(code)
            and CODES[code].severity in line
        )


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

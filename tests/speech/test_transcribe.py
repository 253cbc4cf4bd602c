"""A manifest is copied with its transcripts, by a run that may be killed."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile

from mmsr.cli.main import main
from mmsr.data.manifest.manifest import ManifestError, load_manifest
from mmsr.data.manifest.tables import read_table
from mmsr.records import SAMPLE_RATE
from mmsr.speech.recogniser import Transcriber
from mmsr.speech.transcribe import transcribe_manifest

pytest.importorskip("jiwer", reason="error rates need jiwer: pip install 'mmsr[asr]'")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, waves):
    """A manifest of nine clips, one twice, with a column of which mmsr knows nothing."""
    root = tmp_path_factory.mktemp("data")
    (root / "audio").mkdir()
    lines = ["id,audio,text,note,language,speaker,split"]
    for place, wave in enumerate(waves(*np.linspace(0.3, 1.5, 8))):
        soundfile.write(root / "audio" / f"{place}.wav", wave, SAMPLE_RATE)
        split = "test" if place % 2 else "train"
        lines.append(f'r{place},audio/{place}.wav,"Hello, no. {place}",007,en,s{place % 3},{split}')
    lines.append("again,audio/3.wav,hello,008,en,s1,test")
    (root / "m.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def test_a_file_that_is_no_journal_is_named(folder, ctc, tmp_path):
    (tmp_path / "a.csv.journal.jsonl").write_text("mine\n")
    with pytest.raises(ValueError, match=r"a.csv.journal.jsonl, byte 0: no line of a journal"):
        transcribe_manifest(folder / "m.csv", Transcriber(ctc), tmp_path / "a.csv")
    assert (tmp_path / "a.csv.journal.jsonl").read_text() == "mine\n"


def transcribe(*arguments: object) -> None:
    main(["transcribe", *map(str, arguments), "--dtype", "float32"])


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet", "xlsx"])
def test_the_copy_keeps_columns_rows_and_audio(folder, ctc, tmp_path, ending):
    out = tmp_path / "deep" / "er" / f"heard.{ending}"
    transcribe("--manifest", folder / "m.csv", "--asr", ctc, "--out", out)
    source, copy = read_table(folder / "m.csv"), read_table(out)
    assert copy.columns == [*source.columns, "asr_text"]
    kept = [column for column in source.columns if column != "audio"]
    assert [[row[c] for c in kept] for row in copy.rows] == [[row[c] for c in kept] for row in source.rows]
    rows = load_manifest(out)  # audio is where the copy says
    assert all(row["asr_text"] for row in rows)
    assert rows["audio"] == load_manifest(folder / "m.csv")["audio"]
    assert not os.path.isabs(copy.rows[0]["audio"])
    assert rows[3]["asr_text"] == rows[8]["asr_text"]


def test_error_rates_are_those_of_the_rows_with_a_transcript(folder, ctc, tmp_path, capsys):
    transcribe("--manifest", folder / "m.csv", "--asr", ctc, "--out", tmp_path / "a.csv", "--json")
    answer = capsys.readouterr()
    rates = json.loads(answer.out)
    assert rates["n"] == 9 and set(rates["by_language"]) == {"en"} and rates["words"] == 8 * 3 + 1
    assert "8 utterances transcribed, 1 known" in answer.err


def test_a_journal_of_before_is_read_without_annotations_and_loops(folder, ctc, tmp_path):
    out, transcriber = tmp_path / "a.csv", Transcriber(ctc, dtype="float32")
    transcribe_manifest(folder / "m.csv", transcriber, out)
    journal = tmp_path / "a.csv.journal.jsonl"
    texts = ["[BLANK_AUDIO]", "thank you. " * 20, "Yes (coughs) I do", *["words"] * 5]
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    lines = [json.dumps(entry | {"text": text}) for entry, text in zip(entries, texts, strict=True)]
    journal.write_text("".join(f"{line}\n" for line in lines))
    again = transcribe_manifest(folder / "m.csv", transcriber, out)
    assert again.transcribed == 0
    assert sorted({row["asr_text"] for row in again.rows}) == ["", "Yes I do", "words"]


def test_a_choice_of_rows_leaves_the_others_as_they_are(folder, ctc, tmp_path):
    source = tmp_path / "old.csv"
    table = (folder / "m.csv").read_text().replace("audio/", f"{folder}/audio/").splitlines()
    source.write_text("\n".join([table[0] + ",asr_text", *(line + ",old" for line in table[1:])]))
    model = ("--manifest", source, "--asr", ctc, "--out")
    transcribe(*model, tmp_path / "split.csv", "--split", "test")
    old = {row["id"] for row in load_manifest(tmp_path / "split.csv") if row["asr_text"] == "old"}
    assert old == {"r0", "r2", "r4", "r6"}
    transcribe(*model, tmp_path / "speakers.csv", "--speakers", "[s0,s2]")
    old = {row["id"] for row in load_manifest(tmp_path / "speakers.csv") if row["asr_text"] == "old"}
    assert old == {"r1", "r4", "r7", "again"}
    with pytest.raises(SystemExit):
        transcribe(*model, tmp_path / "no.csv", "--speakers", "[nobody]")
    assert not (tmp_path / "no.csv").exists()


def test_words_stand_beside_the_copy(folder, ctc, tmp_path):
    transcribe(
        "--manifest", folder / "m.csv", "--asr", ctc, "--out", tmp_path / "a.csv", "--timestamps", "word"
    )
    lines = [json.loads(line) for line in (tmp_path / "a.csv.words.jsonl").read_text().splitlines()]
    texts = load_manifest(tmp_path / "a.csv", check_audio=False)["asr_text"]
    assert [line["id"] for line in lines] == [f"r{place}" for place in range(8)] + ["again"]
    assert [" ".join(chunk["text"] for chunk in line["chunks"]) for line in lines] == texts
    assert lines[0]["timestamps"] == "word" and set(lines[0]["chunks"][0]) == {"text", "start", "end"}
    rows = load_manifest(tmp_path / "a.csv", check_audio=False)
    assert [json.loads(words) for words in rows["asr_words"]] == [line["chunks"] for line in lines]
    again = transcribe_manifest(tmp_path / "a.csv", Transcriber(ctc, dtype="float32"), tmp_path / "b.csv")
    assert again.transcribed == 8  # without times: those of another transcript do not stay
    assert set(load_manifest(tmp_path / "b.csv", check_audio=False)["asr_words"]) == {None}


def test_nothing_is_heard_twice_in_another_order_or_a_grown_manifest(folder, ctc, tmp_path):
    out, transcriber = tmp_path / "a.csv", Transcriber(ctc, dtype="float32")
    lines = (folder / "m.csv").read_text().replace("audio/", f"{folder}/audio/").splitlines()
    manifest = tmp_path / "m.csv"
    manifest.write_text("\n".join(lines[:6]))
    assert transcribe_manifest(manifest, transcriber, out).transcribed == 5
    manifest.write_text("\n".join([lines[0], *reversed(lines[1:])]))
    grown = transcribe_manifest(manifest, transcriber, out)
    assert (grown.transcribed, grown.known) == (3, 6)
    again = transcribe_manifest(manifest, transcriber, out)
    assert again.transcribed == 0 and again.rows == grown.rows
    worded = Transcriber(ctc, timestamps="word", dtype="float32")  # another option: heard anew
    assert transcribe_manifest(manifest, worded, out).transcribed == 8


@pytest.mark.slow
def test_a_killed_run_goes_on_and_hears_nothing_twice(folder, ctc, tmp_path):
    """The run is killed in its second batch, in the middle of a line of the journal."""
    out = tmp_path / "a.csv"
    code = """
import sys, time
from mmsr.speech.recogniser import Transcriber
from mmsr.files import Journal
from mmsr.cli.main import main
hear, kept = Transcriber.transcribe, []
def counted(self, samples, **options):
    print("heard", len(samples), flush=True)
    return hear(self, samples, **options)
Transcriber.transcribe = counted
add = Journal.add
def stop(self, *entries):
    add(self, *entries)
    kept.append(1)
    if len(kept) == 2 and sys.argv[1] == "stop":
        self._file.write(b'{"key": "torn')
        self._file.flush()
        print("now", flush=True)
        time.sleep(60)
Journal.add = stop
main(sys.argv[2:])
"""
    arguments = ["transcribe", "--manifest", folder / "m.csv", "--asr", ctc, "--out", out]
    arguments += ["--batch_size", "3", "--dtype", "float32"]
    command = [sys.executable, "-c", code]

    def start(mode: str) -> subprocess.Popen:
        flags = [*command, mode, *map(str, arguments)]
        return subprocess.Popen(flags, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    killed = start("stop")
    lines = []
    for line in killed.stdout:
        lines.append(line.strip())
        if line == "now\n":
            break
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=30)
    assert lines == ["heard 3", "heard 3", "now"] and killed.returncode == -signal.SIGKILL
    assert not out.exists()
    second = start("go")
    answer, errors = second.communicate(timeout=60)
    assert second.returncode == 0, errors
    assert [line for line in answer.splitlines() if line.startswith("heard")] == ["heard 2"]
    answer, errors = start("go").communicate(timeout=60)
    assert "heard" not in answer and "0 utterances transcribed, 9 known" in errors
    whole = tmp_path / "whole.csv"
    transcribe("--manifest", folder / "m.csv", "--asr", ctc, "--out", whole)
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.csv", "a.csv.journal.jsonl", "whole.csv", "whole.csv.journal.jsonl",
    ]  # fmt: skip


def test_an_interruption_ends_with_130_and_leaves_no_output(folder, ctc, tmp_path):
    code = """
import sys, time
from mmsr.speech.recogniser import Transcriber
from mmsr.cli.main import main
def slow(self, samples, **options):
    print("now", flush=True)
    time.sleep(60)
Transcriber.transcribe = slow
main(sys.argv[1:])
"""
    arguments = ["transcribe", "--manifest", folder / "m.csv", "--asr", ctc, "--out", tmp_path / "a.csv"]
    run = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert run.stdout.readline() == "now\n"
    time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=30)
    assert run.returncode == 130 and errors.splitlines()[-1] == "interrupted"
    assert not (tmp_path / "a.csv").exists()


def test_faulty_audio_stops_a_run_before_it_hears_anything(folder, ctc, tmp_path, monkeypatch, capsys, waves):
    for name, wave in zip(("good", "bad"), waves(0.5, 0.5), strict=True):
        soundfile.write(tmp_path / f"{name}.wav", wave, SAMPLE_RATE)
    cut = (tmp_path / "bad.wav").read_bytes()
    (tmp_path / "bad.wav").write_bytes(cut[:20])
    manifest = tmp_path / "m.csv"
    manifest.write_text("audio,asr_text\ngood.wav,\nbad.wav,old\ngone.wav,old\n")
    arguments = ("--manifest", manifest, "--asr", ctc, "--out", tmp_path / "a.csv")
    manifest_error = pytest.raises(
        ManifestError, transcribe_manifest, manifest, Transcriber(ctc), tmp_path / "x.csv"
    )
    assert "m.csv, row 4, column audio" in str(manifest_error.value)
    manifest.write_text("audio,asr_text\ngood.wav,\nbad.wav,old\n")
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(Transcriber, "transcribe", lambda *_, **__: pytest.fail("heard a faulty manifest"))
        transcribe(*arguments)
    assert stopped.value.code == 2
    line = capsys.readouterr().err.strip()
    assert "m.csv, row 3, column audio" in line and "bad.wav" in line and "accepted" in line
    manifest.write_text("audio,asr_text\ngood.wav,\nbad.wav,old\ngone.wav,old\n")
    transcribe(*arguments, "--keep-going")
    said = capsys.readouterr().err
    assert "row 3" in said and "row 4" in said and "1 utterances transcribed" in said
    texts = [row["asr_text"] for row in read_table(tmp_path / "a.csv").rows]
    assert texts[0] and texts[1:] == ["", ""]


def test_bad_input_is_one_line(folder, whisper, tmp_path, capsys):
    manifest = folder / "m.csv"
    out = ("--asr", whisper, "--out", tmp_path / "a.csv")
    for arguments, parts in (
        (("--manifest", tmp_path / "no.csv", *out), ("no.csv", "no such file")),
        (("--manifest", manifest, *out, "--language", "de"), ("'de'", "accepted: en, vi")),
        (("--manifest", manifest, *out, "--split", "dev"), ("m.csv", "'dev'", "test, train")),
        (("--manifest", manifest, "--asr", whisper, "--out", tmp_path / "a.txt"), ("a.txt", ".jsonl")),
        (
            ("--manifest", manifest, "--asr", whisper, "--out", manifest),
            ("file that is read", "another file"),
        ),
    ):
        with pytest.raises(SystemExit) as stopped:
            transcribe(*arguments)
        assert stopped.value.code == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if "columns not used" not in line]
        assert len(lines) == 1 and all(part in lines[0] for part in parts), lines


@pytest.fixture
def inside(folder, tmp_path):
    """A parquet file with its audio inside."""
    audio = [(folder / "audio" / f"{place}.wav").read_bytes() for place in range(3)]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    held = pyarrow.array([{"bytes": content, "path": "a.wav"} for content in audio], kind)
    table = pyarrow.table({"id": list("abc"), "audio": held, "text": ["so"] * 3, "language": ["en"] * 3})
    pyarrow.parquet.write_table(table, path := tmp_path / "inside.parquet")
    return path


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "xlsx"])
def test_audio_inside_a_table_is_refused_before_hearing_and_the_advice_works(
    inside, ctc, tmp_path, monkeypatch, ending
):
    transcriber = Transcriber(ctc, dtype="float32")
    with monkeypatch.context() as patch:
        patch.setattr(Transcriber, "transcribe", lambda *_, **__: pytest.fail("heard"))
        with pytest.raises(ManifestError, match=rf"heard.{ending}, .*column audio: audio inside.*\.parquet"):
            transcribe_manifest(inside, transcriber, tmp_path / f"heard.{ending}")
    assert [path.name for path in tmp_path.iterdir()] == ["inside.parquet"]
    done = transcribe_manifest(inside, transcriber, tmp_path / "heard.parquet")
    assert done.transcribed == 3
    copy, source = (pyarrow.parquet.read_table(tmp_path / f"{name}.parquet") for name in ("heard", "inside"))
    assert copy["audio"].equals(source["audio"]) and copy.schema.field("audio") == source.schema.field(
        "audio"
    )
    assert all(row["asr_text"] for row in load_manifest(tmp_path / "heard.parquet"))


@pytest.mark.parametrize(("first", "then"), [("csv", "parquet"), ("xlsx", "csv"), ("jsonl", "tsv")])
def test_what_was_heard_for_one_format_is_known_for_another(folder, ctc, tmp_path, first, then):
    transcriber = Transcriber(ctc, dtype="float32")
    before = transcribe_manifest(folder / "m.csv", transcriber, tmp_path / f"heard.{first}")
    after = transcribe_manifest(folder / "m.csv", transcriber, tmp_path / f"heard.{then}")
    assert (before.transcribed, after.transcribed, after.known) == (8, 0, 9) and after.rows == before.rows
    assert transcribe_manifest(folder / "m.csv", transcriber, tmp_path / f"other.{then}").transcribed == 8


LONG = " ".join(f"word{number}" for number in range(1000))  # no loop, which would be dropped


def test_a_transcript_that_the_format_cannot_hold_is_not_lost(folder, ctc, tmp_path, monkeypatch):
    transcriber = Transcriber(ctc, dtype="float32")
    with monkeypatch.context() as patch:
        patch.setattr("mmsr.data.manifest.spreadsheets.MOST_CHARACTERS", 9)
        with pytest.raises(ManifestError, match="m.xlsx, row 2, column text: has 12 characters; accepted"):
            transcribe_manifest(folder / "m.csv", transcriber, tmp_path / "m.xlsx")
        assert not list(tmp_path.iterdir())  # before hearing
        manifest = tmp_path / "m.csv"
        manifest.write_text(f"audio\n{folder}/audio/7.wav\n", encoding="utf-8")
        patch.setattr("mmsr.data.manifest.spreadsheets.MOST_CHARACTERS", len(f"{folder}/audio/7.wav"))
        hear = Transcriber.transcribe

        def at_length(self, samples, **options):
            return [replace(answer, text=LONG) for answer in hear(self, samples, **options)]

        patch.setattr(Transcriber, "transcribe", at_length)
        with pytest.raises(ManifestError, match="m.xlsx, row 2, column asr_text: has 7,889 characters"):
            transcribe_manifest(manifest, transcriber, tmp_path / "m.xlsx")
    done = transcribe_manifest(manifest, transcriber, tmp_path / "heard.csv")
    assert done.transcribed == 1  # another name, another journal
    done = transcribe_manifest(manifest, transcriber, tmp_path / "m.jsonl")
    assert done.transcribed == 0 and done.rows[0]["asr_text"] == LONG


def test_outputs_that_cannot_be_written_are_refused_before_hearing(folder, ctc, tmp_path, monkeypatch):
    monkeypatch.setattr(Transcriber, "transcribe", lambda *_, **__: pytest.fail("heard"))
    (tmp_path / "d.csv").mkdir()
    (tmp_path / "file").touch()
    transcriber = Transcriber(ctc)
    for out, problem in (
        ("d.csv", "is a folder"),
        ("file/m.csv", "file is a file; accepted: another folder"),
        ("m.txt", "has the ending '.txt'"),
        ("n" * 236 + ".csv", "File name too long"),  # that of the words beside it
    ):
        with pytest.raises(ValueError, match=problem):
            transcribe_manifest(folder / "m.csv", transcriber, tmp_path / out)
    monkeypatch.setattr("mmsr.extras.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs openpyxl: pip"):
        transcribe_manifest(folder / "m.csv", transcriber, tmp_path / "m.xlsx")


def test_a_language_that_the_model_lacks_names_the_row(whisper, folder, tmp_path):
    text = (folder / "m.csv").read_text().replace("audio/", f"{folder}/audio/").replace("008,en", "008,de")
    (tmp_path / "m.csv").write_text(text)
    transcriber = Transcriber(whisper, dtype="float32")
    with pytest.raises(ManifestError, match=r"m.csv, row 10, column language: .*'de'; accepted: en, vi"):
        transcribe_manifest(tmp_path / "m.csv", transcriber, tmp_path / "a.csv")
    done = transcribe_manifest(tmp_path / "m.csv", transcriber, tmp_path / "a.csv", language="detect")
    assert {row["language"] for row in done.rows} <= {"en", "vi"}


def test_rows_whose_audio_cannot_be_read_are_left_and_the_others_are_heard(
    folder, ctc, tmp_path, capsys, monkeypatch
):
    for place in range(3):
        (tmp_path / f"{place}.wav").write_bytes((folder / "audio" / f"{place}.wav").read_bytes())
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / "0.wav", "a.wav")
    content = bytearray((tmp_path / "all.zip").read_bytes())
    content[3000:3010] = bytes(255 - byte for byte in content[3000:3010])
    (tmp_path / "all.zip").write_bytes(content)
    lines = ["id,audio", "a,0.wav", "b,zip://a.wav::all.zip", "c,1.wav", "d,2.wav"]
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ManifestError, match=r"^m\.csv, row 3, column audio: .*Bad CRC-32.*$"):
        transcribe_manifest(tmp_path / "m.csv", Transcriber(ctc), tmp_path / "heard.csv")
    heard = Transcriber.transcribe

    def losing(self, samples, **options):  # as a disk that is taken away while the first batch is heard
        (tmp_path / "2.wav").unlink(missing_ok=True)
        return heard(self, samples, **options)

    monkeypatch.setattr(Transcriber, "transcribe", losing)
    arguments = (tmp_path / "m.csv", Transcriber(ctc, batch_size=1), tmp_path / "heard.csv")
    done = transcribe_manifest(*arguments, keep_going=True)
    assert [issue.row for issue in done.issues] == [3, 5] and done.transcribed == 2
    assert "does not exist" in str(done.issues[1])
    rows = read_table(tmp_path / "heard.csv").rows
    assert [bool(row["asr_text"]) for row in rows] == [True, False, True, False]
    assert len((tmp_path / "heard.csv.journal.jsonl").read_text().splitlines()) == 2

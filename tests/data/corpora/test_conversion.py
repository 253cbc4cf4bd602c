"""A conversion writes everything or nothing, and accounts for every row."""

import csv
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from mmsr.cli.main import main
from mmsr.data.audio.decoding import Audio
from mmsr.data.corpora import CORPORA
from mmsr.data.corpora.conversion import convert
from mmsr.data.corpora.source import Corpus, CorpusError, Protocol, Segment, Source, Utterance
from mmsr.data.manifest.manifest import load_manifest

RATE = 16_000
MINE = {"emotion": Protocol(name="mine", labels=("happy", "sad"), metrics=("uar",), source="doi:1")}


def test_recordings_stay_where_they_are_unless_copied(emodb: Path, converted: Any) -> None:
    done = converted("emodb", emodb)
    assert not (done.folder / "audio").exists()
    assert done.rows["03a01Fa"]["audio"] == "../source/wav/03a01Fa.wav"
    copied = converted("emodb", emodb, copy=True)
    assert copied.rows["03a01Fa"]["audio"] == "audio/03a01Fa.wav"
    assert (copied.folder / "audio" / "03a01Fa.wav").read_bytes() == (
        emodb / "wav" / "03a01Fa.wav"
    ).read_bytes()


def test_broken_recordings_are_left_out_with_their_reasons(
    emodb: Path, tone: Any, write: Any, converted: Any, caplog: pytest.LogCaptureFixture
) -> None:
    write(emodb / "wav" / "03a01Fa.wav", "broken")
    soundfile.write(emodb / "wav" / "03a01Wa.wav", np.zeros(0), RATE)
    tone(emodb / "wav" / "03x99Fa.wav")
    done = converted("emodb", emodb, copy=True)
    assert len(done.rows) == 14 == len(os.listdir(done.folder / "audio"))  # no broken file is copied
    assert not {"03a01Fa", "03a01Wa", "03x99Fa"} & set(done.rows)
    assert sum(done.record["counts"]["left_out"].values()) == 3
    assert done.record["counts"]["left_out"]["its recording is missing or broken"] == 2
    with open(done.folder / "left_out.csv", encoding="utf-8", newline="") as file:
        told = {row["where"]: row["reason"] for row in csv.DictReader(file)}
    unreadable = "its recording is missing or broken: "
    assert told["wav/03a01Fa.wav"].startswith(unreadable + "holds no audio that can be read; accepted: ")
    assert told["wav/03a01Wa.wav"] == unreadable + "has length zero; accepted: at least one sample"
    assert told["wav/03x99Fa.wav"].startswith("is no EmoDB name; accepted: ")
    assert "2 rows left out (wav/03a01Fa.wav, wav/03a01Wa.wav): its recording is missing" in caplog.text
    assert "emodb: 14 rows, but 535 in the published corpus" in caplog.text


def test_a_corpus_of_broken_recordings_alone_is_refused(root: Path, write: Any, refused: Any) -> None:
    write(root / "wav" / "03a01Fa.wav", "broken")
    message = refused("emodb", root)
    assert "no row to write (wav/03a01Fa.wav: holds no audio that can be read; accepted: " in message


def test_a_folder_that_is_taken_stays_as_it_is(emodb: Path, tmp_path: Path, write: Any) -> None:
    taken = write(tmp_path / "mine" / "notes.txt", "precious").parent
    with pytest.raises(CorpusError, match="exists already; accepted: a new folder"):
        convert(CORPORA["emodb"], emodb, taken)
    assert os.listdir(taken) == ["notes.txt"]
    with pytest.raises(
        CorpusError, match="labels 'moods' is no protocol of emodb; accepted: sentiment, emotion"
    ):
        convert(CORPORA["emodb"], emodb, tmp_path / "out", labels="moods")


def read_mine(source: Source) -> Iterator[Utterance]:
    for path in source.recordings():
        speaker, emotion, _ = path.stem.split("_")
        yield Utterance(id=path.stem, where=source.name(path), audio=path, label=emotion, speaker=speaker)


def test_one_function_and_one_line_add_a_corpus(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tone: Any
) -> None:
    tone(root / "anna_happy_3.wav")
    tone(root / "ben_sad_1.wav")
    mine = Corpus(name="mine", read=read_mine, layout="SPEAKER_EMOTION_N.wav", home="us", protocols=MINE)
    monkeypatch.setitem(CORPORA, "mine", mine)
    out = root.parent / "out"
    main(["data", "convert", "--from", "mine", "--source", str(root), "--out", str(out)])
    rows = load_manifest(out / "manifest.csv", labels=["happy", "sad"])
    assert list(zip(rows["speaker"], rows["label"], strict=True)) == [("anna", "happy"), ("ben", "sad")]
    assert "label: happy 1, sad 1" in capsys.readouterr().out


def test_an_adapter_that_loses_rows_is_found_out(root: Path, tone: Any) -> None:
    def forgetful(source: Source) -> Iterator[Utterance]:
        yield from (utterance for utterance in read_mine(source) if utterance.label != "sad")

    tone(root / "anna_happy_3.wav")
    tone(root / "ben_sad_1.wav")
    corpus = Corpus(name="mine", read=forgetful, layout="x", home="us", protocols=MINE)
    with pytest.raises(CorpusError, match="2 rows were read, but 1 are in the manifest and 0 left out"):
        convert(corpus, root, root.parent / "out")
    assert not (root.parent / "out").exists()


def test_the_command_line_takes_from_and_copy(
    emodb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["--source", str(emodb), "--out", str(out), "--copy", "--labels", "emotion"]
    main(["data", "convert", "--from", "emodb", *arguments])
    printed = capsys.readouterr()
    assert "16 rows read, 16 written, 0 left out" in printed.out and "neutral 10" in printed.out
    assert "--data.folds 10" in printed.err  # all ten speakers are there, so these are the protocol's folds
    assert sorted(os.listdir(out)) == ["audio", "corpus.json", "left_out.csv", "manifest.csv"]
    for arguments, expected in (
        (["--from", "emodn"], "--from emodn is no known corpus; accepted: sentiment-reasoning, emodb"),
        (["--from=emodb"], "out exists already"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["data", "convert", *arguments, "--source", str(emodb), "--out", str(out)])
        assert stop.value.code == 2 and expected in capsys.readouterr().err


def test_the_manifest_s_reader_tells_of_our_own_columns_once(
    emodb: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = convert(CORPORA["emodb"], emodb, tmp_path / "out")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        load_manifest(done.manifest)
    assert caplog.messages == ["manifest.csv: columns not used: emotion, fold"]


@pytest.mark.skipif(os.name != "posix", reason="names that are bytes")
def test_a_recording_whose_name_is_not_utf_8_is_copied_under_another(tmp_path: Path) -> None:
    happy = tmp_path / "source" / "happy"
    happy.mkdir(parents=True)
    names = [os.fsdecode(b"caf\xe9.wav"), os.fsdecode(b"caf\xea.wav"), "phở.wav"]
    for place, name in enumerate(names):
        samples = np.random.default_rng(place).normal(0, 0.1, RATE)
        soundfile.write(tmp_path / "one.wav", samples, RATE)
        (tmp_path / "one.wav").rename(happy / name)
    done = convert(CORPORA["folder"], tmp_path / "source", tmp_path / "out")
    rows = {row["id"]: row for row in load_manifest(done.manifest)}
    assert set(rows) == {"happy-caf\\xe9", "happy-caf\\xea", "happy-phở"}
    assert rows["happy-phở"]["audio"] == str(happy / "phở.wav")
    for name, identity in zip(names, ("happy-caf\\xe9", "happy-caf\\xea"), strict=False):
        copy = Path(rows[identity]["audio"])
        assert copy.parent == tmp_path / "out" / "audio" and copy.read_bytes() == (happy / name).read_bytes()
    (happy / names[0]).write_text("no sound")
    (gap,) = convert(CORPORA["folder"], tmp_path / "source", tmp_path / "again").left_out
    assert gap.where == "happy/caf\\xe9.wav" and gap.detail.startswith("holds no audio")


def test_audio_of_any_kind_inside_a_corpus_goes_through_the_door(root: Path, tone: Any) -> None:
    """Bytes that libsndfile does not read, and a part of an MP3 whose length it only estimates."""
    sound = (0.4 * np.sin(np.arange(3 * RATE) / 5)).astype(np.float32)
    file = io.BytesIO()
    with av.open(file, "w", format="ipod") as out:
        stream = out.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        out.mux([*stream.encode(frame), *stream.encode(None)])
    with av.open(str(root / "long.mp3"), "w", format="mp3", container_options={"write_xing": "0"}) as out:
        stream = out.add_stream("libmp3lame", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        out.mux([*stream.encode(frame), *stream.encode(None)])

    def read(source: Source) -> Iterator[Utterance]:
        source.read["rows"] += 3
        yield Utterance(id="a", where="row 1", audio=file.getvalue(), label="sad")
        yield Utterance(id="b", where="row 2", audio=Segment(root / "long.mp3", 1.0, 2.0), label="sad")
        yield Utterance(id="c", where="row 3", audio=Segment(root / "long.mp3", 2.0, 2.5), label="happy")

    corpus = Corpus(name="mine", read=read, layout="x", home="us", protocols=MINE)
    rows = load_manifest(convert(corpus, root, root.parent / "out").manifest)
    assert [os.path.basename(path) for path in rows["audio"]] == ["a.mp4", "b.flac", "c.flac"]
    lengths = [Audio.duration(path) for path in rows["audio"]]
    assert lengths == pytest.approx([3.0, 1.0, 0.5], abs=0.01)

    def broken(source: Source) -> Iterator[Utterance]:
        source.read["rows"] += 1
        yield Utterance(id="a", where="row 1", audio=file.getvalue()[:5000], label="sad")

    corpus = Corpus(name="mine", read=broken, layout="x", home="us", protocols=MINE)
    with pytest.raises(CorpusError, match=r"row 1: is cut off: .*; accepted: a whole audio file"):
        convert(corpus, root, root.parent / "none")

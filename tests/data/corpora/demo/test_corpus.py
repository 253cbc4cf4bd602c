"""The demo corpus: reproducible, split cleanly, labelled by its rule, audible."""

import csv
import json
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mmsr import records
from mmsr.data.corpora.demo.corpus import (
    MINIMUM,
    ceilings,
    make_demo,
    manifest_row,
    plan,
    quoted_evidence,
    respeak,
    speak,
    utterance_of,
    voices_of,
)
from mmsr.data.corpora.demo.grammar import DESIGN, LABELS, LANGUAGES, MANNERS, RULE, VARIANTS

needs_espeak = pytest.mark.skipif(
    find_spec("espeakng_loader") is None, reason="espeakng_loader is not installed"
)
UTTERANCES = 90


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return make_demo(
        tmp_path_factory.mktemp("demo") / "corpus", utterances=UTTERANCES, seed=3, progress=False
    ).parent


@pytest.fixture(scope="module")
def rows(corpus) -> list[dict[str, str]]:
    with open(corpus / "manifest.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_ceilings():
    for modality in ceilings().values():
        assert 1 / 3 < modality["macro_f1"] <= modality["best_macro_f1"] <= 0.70
        assert modality["best_macro_f1"] - modality["macro_f1"] <= 0.02


def test_label_follows_the_manner(utterance):
    assert utterance().label == "positive"
    assert utterance().rationale == 'satisfaction: "feels much better" in an even voice'
    sarcasm = replace(utterance(), manner="upset")
    assert (sarcasm.label, sarcasm.kind, sarcasm.speaker) == ("negative", "conflict", "en-us-m1")
    assert sarcasm.rationale == 'sarcasm: "feels much better" in an upset voice'
    assert utterance(manner="cheerful").kind == "agreement"


def test_plan_of_the_whole_corpus():
    drawn = plan(2400, 0)
    assert Counter(split for split, _ in drawn) == {"train": 1680, "dev": 240, "test": 480}
    for split in ("train", "dev", "test"):
        members = [row for of, row in drawn if of == split]
        assert Counter(row.kind for row in members) == dict.fromkeys(DESIGN, len(members) // 3)
        assert Counter(row.language for row in members) == dict.fromkeys(LANGUAGES, len(members) // 5)
        labels = Counter(row.label for row in members)
        assert min(labels.values()) >= 0.25 * len(members)
        voices = Counter(row.voice for row in members)
        assert max(voices.values()) - min(voices.values()) <= 2
    for language in LANGUAGES:
        assert len({row.sentence for _, row in drawn if row.language == language}) >= 400
    heard = {(row.language, row.phrase) for split, row in drawn if split == "train"}
    assert {(row.language, row.phrase) for _, row in drawn} == heard


def test_no_voice_and_no_sentence_in_two_splits_whatever_the_seed():
    variants = [variant for variants in VARIANTS.values() for variant in variants]
    assert len(set(variants)) == len(variants)
    where: dict[str, set[str]] = {}
    for seed in range(3):
        for split, row in plan(1200, seed):
            where.setdefault(row.sentence, set()).add(split)
            where.setdefault(row.voice.partition("+")[2], set()).add(split)
    assert all(len(splits) == 1 for splits in where.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((MINIMUM - 1, 0), f"utterances = {MINIMUM - 1}: .* at least {MINIMUM}"), ((100, -1), "seed = -1")],
)
def test_bad_size_and_seed(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan(*arguments)


@needs_espeak
def test_same_seed_same_bytes_in_a_fresh_process(corpus, tmp_path):
    again = "import sys; from mmsr.data.corpora.demo.corpus import make_demo; "
    again += "make_demo(sys.argv[1], utterances=90, seed=3)"
    subprocess.run([sys.executable, "-c", again, str(tmp_path / "a")], check=True, capture_output=True)
    first = contents(corpus)
    assert len(first) == UTTERANCES + 2
    assert contents(tmp_path / "a") == first


@needs_espeak
def test_manifest_follows_the_plan(rows):
    drawn = plan(UTTERANCES, 3)
    assert [row["id"] for row in rows] == [f"demo-{i:06d}" for i in range(UTTERANCES)]
    assert Counter(row["kind"] for row in rows) == dict.fromkeys(DESIGN, UTTERANCES // 3)
    for row, (split, spoken) in zip(rows, drawn, strict=True):
        assert row["label"] == RULE[spoken.valence, spoken.manner][0]
        assert (row["split"], row["text"]) == (split, spoken.sentence)
        quoted = row["rationale"].split('"')[1]
        assert quoted == spoken.phrase and quoted in row["text"]
        assert row["asr_text"]
    assert 0.3 < statistics.mean(row["asr_text"] != row["text"] for row in rows) < 0.95
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        for column in ("speaker", "text"):
            assert not {row[column] for row in rows if row["split"] == one} & {
                row[column] for row in rows if row["split"] == other
            }


@needs_espeak
def test_audio(corpus, rows):
    for row in rows:
        info = soundfile.info(corpus / row["audio"])
        assert (info.samplerate, info.channels, info.format, info.subtype) == (16000, 1, "FLAC", "PCM_16")
        samples, _ = soundfile.read(corpus / row["audio"])
        assert 0.6 < len(samples) / 16000 < 8
        assert np.sqrt(np.mean(samples**2)) > 0.005
        assert np.abs(samples).max() < 0.98


@needs_espeak
def test_the_same_corpus_is_kept_and_another_is_refused(corpus, tmp_path, capsys):
    before = (corpus / "manifest.csv").stat().st_mtime_ns
    assert make_demo(corpus, utterances=UTTERANCES, seed=3) == corpus / "manifest.csv"
    assert "already" in capsys.readouterr().err
    assert (corpus / "manifest.csv").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="holds another corpus .*'seed': 4.*remove it"):
        make_demo(corpus, utterances=UTTERANCES, seed=4)
    (tmp_path / "note").write_text("mine")
    with pytest.raises(ValueError, match="holds something else"):
        make_demo(tmp_path, utterances=UTTERANCES)
    assert [file.name for file in tmp_path.iterdir()] == ["note"]
    with pytest.raises(ValueError, match="holds something else"):
        make_demo(tmp_path / "note", utterances=UTTERANCES)


@needs_espeak
def test_interrupted_it_leaves_nothing(tmp_path):
    command = "import sys; from mmsr.data.corpora.demo.corpus import make_demo; make_demo(sys.argv[1])"
    process = subprocess.Popen(
        [sys.executable, "-c", command, str(tmp_path / "corpus")], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".*.corpus/audio/*.flac")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
    assert list(tmp_path.iterdir()) == []


@needs_espeak
def test_a_row_sounds_the_same_alone_and_among_others(corpus, rows):
    drawn = [spoken for _, spoken in plan(UTTERANCES, 3)]
    for i in (0, 41):
        (alone,) = speak([drawn[i]])
        written, _ = soundfile.read(corpus / rows[i]["audio"], dtype="float32")
        np.testing.assert_array_equal(alone, written)
    one, two = speak([drawn[0], replace(drawn[0], take=99)])
    assert len(one) != len(two) or not np.allclose(one, two)


@needs_espeak
def test_manners_differ_in_speed_and_loudness(utterance):
    seconds: dict[str, float] = {}
    level: dict[str, float] = {}
    for manner in MANNERS:
        waveforms = speak(
            [
                utterance(manner=manner, voice=voice, take=i)
                for i, voice in enumerate(voices_of("en", "train"))
            ]
        )
        seconds[manner] = statistics.median(len(waveform) / 16000 for waveform in waveforms)
        level[manner] = statistics.median(
            20 * np.log10(np.sqrt(np.mean(waveform**2))) for waveform in waveforms
        )
    assert seconds["upset"] * 1.15 < seconds["cheerful"] * 1.05 < seconds["even"] < seconds["weary"] / 1.15
    assert level["upset"] - 3 > level["cheerful"] > level["even"] + 1 > level["weary"] + 5


@needs_espeak
def test_corpus_card(corpus):
    card = json.loads((corpus / "corpus.json").read_text())
    assert (card["utterances"], card["seed"], card["version"]) == (UTTERANCES, 3, 1)


def test_every_row_is_read_back_into_what_was_spoken():
    for i, (split, spoken) in enumerate(plan(300, seed=5)):
        found = utterance_of(records.Utterance.from_row({**manifest_row(i, split, spoken), "id": f"u{i}"}))
        assert found is not None and replace(found, take=spoken.take) == spoken


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("text", "my knee sings"),
        ("language", "it"),
        ("language", None),
        ("speaker", "anna"),
        ("speaker", None),
        ("label", "negative"),
        ("rationale", 'satisfaction: "feels much better" in a strange voice'),
    ],
)
def test_a_row_of_another_making_is_not_read_back(column, value, utterance):
    row = records.Utterance.from_row({**manifest_row(0, "test", utterance()), "id": "u0"})
    assert utterance_of(row) is not None
    assert utterance_of(replace(row, **{column: value})) is None


@needs_espeak
@pytest.mark.parametrize("change", ["manner", "voice"])
def test_rows_spoken_again_differ_in_one_thing(corpus, rows, tmp_path, change):
    known = [records.Utterance.from_row(row) for row in rows[:12]]
    asked = [*known, replace(known[0], id="other", text="not ours")]
    again = respeak(asked, tmp_path / "again", change=change, progress=False)
    assert [row.id for row in again] == [row.id for row in known]
    for old, new in zip(known, again, strict=True):
        was, is_now = utterance_of(old), utterance_of(new)
        assert is_now == replace(was, **{change: getattr(is_now, change)})
        assert getattr(is_now, change) != getattr(was, change)
        assert new.kind in DESIGN and is_now.label == new.label
        assert soundfile.info(new.audio).samplerate == 16_000
        if change == "voice":
            assert is_now.voice in voices_of(is_now.language, "test")
            assert (new.label, new.rationale) == (old.label, old.rationale)
    files = contents(tmp_path / "again")
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "again").rglob("*.flac")}
    assert respeak(asked, tmp_path / "again", change=change, progress=False) == again
    assert {file: file.stat().st_mtime_ns for file in times} == times  # used again, not spoken again
    respeak(asked, tmp_path / "twin", change=change, progress=False)
    assert contents(tmp_path / "twin") == files
    with pytest.raises(ValueError, match="holds another corpus .* name another folder, or remove it"):
        respeak(asked[:5], tmp_path / "again", change=change, progress=False)


def test_what_to_change_is_checked(tmp_path):
    with pytest.raises(ValueError, match="change 'mood' is unknown; accepted: manner, voice"):
        respeak([], tmp_path, change="mood")


@pytest.mark.parametrize("language", list(LANGUAGES))
def test_a_rationale_s_evidence_is_read_back_in_every_language(language, utterance):
    grammar = LANGUAGES[language]
    for valence in LABELS:
        for phrase, manner in zip(grammar.phrases(valence), list(MANNERS) * 3, strict=False):
            spoken = utterance(language=language, phrase=phrase, valence=valence, manner=manner)
            assert quoted_evidence(spoken.rationale, language) == (phrase, grammar.voices[manner])
    assert quoted_evidence("nothing of the kind", language) == (None, None)
    assert quoted_evidence(spoken.rationale, "it") == (None, None)

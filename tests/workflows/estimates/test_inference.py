"""Estimates of answers: the batches are those of `mmsr predict`, and grow with the hours."""

import itertools

import pytest
import soundfile

from mmsr.data.manifest.manifest import load_manifest
from mmsr.records import Utterance
from mmsr.workflows.estimates import inference
from mmsr.workflows.estimates.inference import Answers, estimate_inference


@pytest.fixture(autouse=True)
def no_start(monkeypatch):
    """A start of no other Python, which takes seconds."""
    monkeypatch.setattr(inference, "start_of", lambda module: (1.0, 1.0))


def test_recordings_are_batched_as_by_predict_and_scaled_by_hours(demo_corpus):
    folder = demo_corpus.parent / "audio"
    lengths = [soundfile.info(path).duration for path in folder.glob("*.flac")]
    found = estimate_inference([folder], Answers(model="demo", batch_size=16), calibrate=0.1)
    assert found.facts["utterances"] == len(lengths) == 60
    assert found.facts["batches"] == 4
    assert found.facts["hours"] == pytest.approx(sum(lengths) / 3600)
    assert [part.name for part in found.parts] == ["start of the program", "loading the model", "answering"]
    assert found.parts[-1].measured >= 3 and found.memory > 1e8
    more = estimate_inference(
        [folder], Answers(model="demo", batch_size=16), hours=5 * sum(lengths) / 3600, calibrate=0.1
    )
    # of more rows, each batch is full
    assert more.facts["utterances"] == pytest.approx(16 * more.facts["batches"], abs=16)
    assert more.facts["utterances"] == pytest.approx(300, rel=0.2)


def test_a_sample_smaller_than_a_batch_tells_of_whole_batches(demo_corpus):
    some = sorted((demo_corpus.parent / "audio").glob("*.flac"))[:3]
    seconds = sum(soundfile.info(path).duration for path in some)
    found = estimate_inference(some, Answers(model="demo"), hours=320 * seconds / 3 / 3600, calibrate=0.1)
    assert found.facts["utterances"] == pytest.approx(320, rel=0.02)
    assert found.facts["batches"] == pytest.approx(10, abs=0.6)  # of 32, not of 3
    rows = [Utterance(id=path.stem, audio=str(path)) for path in some]
    job = inference._job(rows, Answers(), 10.0, None, demo_corpus.parent)
    assert {len(batch) for batch in job.batches} == {32}
    # each file of the job is checked once
    assert len(job.checked) == 3 and job.checked_factor == pytest.approx(10 * 3600 / seconds)
    assert sum(job.checked.values()) * job.checked_factor == pytest.approx(10 * 3600)


def test_what_cannot_be_read_is_not_counted(demo_corpus, tmp_path):
    some = sorted((demo_corpus.parent / "audio").glob("*.flac"))[:3]
    (tmp_path / "a.wav").write_bytes(b"no sound")
    note = "without 1 of 4 recordings, which cannot be read and get no answer"
    found = estimate_inference([tmp_path / "a.wav", *some], Answers(model="demo"), calibrate=0.1)
    assert found.facts["utterances"] == 3 and found.notes == [note]
    found = estimate_inference(
        [tmp_path / "a.wav", *some], Answers(model="demo", batch_size=4), hours=1, seconds=2, calibrate=0.1
    )
    assert found.facts["utterances"] == 1800  # the broken one is no sound to cut


def test_slow_batches_are_timed_in_parts(demo_corpus, monkeypatch):
    """What is timed beyond the given seconds: the largest batch, and two quarters of one."""
    answered = []
    monkeypatch.setattr(inference, "_answering", lambda *_: lambda batch: answered.append(len(batch)))
    ticks = itertools.count()
    monkeypatch.setattr(inference.time, "perf_counter", lambda: 100.0 * next(ticks))
    rows = inference._rows([demo_corpus.parent / "audio"], None, None, None)
    job = inference._job(rows, Answers(batch_size=16), None, None, demo_corpus.parent)
    inference._batches(job, Answers(batch_size=16), None, None, ends=0.0)
    assert answered == [1, len(job.batches[0]), 4, 4]


def test_a_manifest_is_checked_and_sorted_within_chunks(demo_corpus):
    rows = inference._rows((), demo_corpus, inference.load_pipeline("demo"), None)
    job = inference._job(rows, Answers(batch_size=8), None, None, demo_corpus.parent)
    lengths = [length for batch in job.seconds for length in batch]
    assert lengths == sorted(lengths) and job.manifest and len(job.batches) == 8
    found = estimate_inference((), Answers(model="demo"), manifest=demo_corpus, calibrate=0.1)
    assert [part.name for part in found.parts[-2:]] == ["checking audio", "answering"]
    assert found.facts["utterances"] == len(load_manifest(demo_corpus))


def test_audio_is_made_of_given_lengths(tmp_path):
    sources = inference._packaged()
    assert len(sources) == 9
    paths = list(inference._made(sources, [0.5, 7.25], tmp_path))
    assert [soundfile.info(path).duration for path in paths] == [0.5, 7.25]
    assert sum(inference._lengths(4.0, 100)) == pytest.approx(400)
    found = estimate_inference((), Answers(model="demo", batch_size=4), hours=2, seconds=1, calibrate=0.1)
    assert found.facts["utterances"] == 7200 and found.facts["batches"] == 1800


def test_timelines_are_counted_by_recordings():
    pytest.importorskip("silero_vad", reason="speech is found by silero-vad: pip install 'mmsr[segments]'")
    found = estimate_inference((), Answers(model="demo", timeline=True), hours=1, seconds=4, calibrate=0.1)
    assert found.facts["recordings"] == 900 and found.parts[-1].name == "timelines"
    assert found.disk == {"scratch file": 4 * 4 * 16_000}


def test_what_cannot_be_estimated_is_told(tmp_path):
    with pytest.raises(ValueError, match="give recordings, a manifest, or --hours H"):
        estimate_inference()
    with pytest.raises(ValueError, match=r"no\.wav: no such file"):
        estimate_inference([tmp_path / "no.wav"], Answers(model="demo"))
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    with pytest.raises(ValueError, match=r"bad\.wav: none of the recordings can be read"):
        estimate_inference([tmp_path / "bad.wav"], Answers(model="demo"))

"""Rows made worse: as much as was asked, and alike for every model."""

import io
import time
from dataclasses import replace

import numpy as np
import pytest
import soundfile

pytest.importorskip("jiwer", reason="alignments need jiwer: pip install 'mmsr[asr]'")

from mmsr.data.audio.decoding import Audio
from mmsr.evaluation.error_rates import word_error_rate
from mmsr.evaluation.robustness.perturbations import Material, perturbations
from mmsr.evaluation.robustness.registry import PERTURBATIONS


def samples(row) -> np.ndarray:
    return soundfile.read(io.BytesIO(row.audio), dtype="float32")[0]


def points(material, kind, *values):
    curves = perturbations(material, kinds=[kind], severities={kind: values} if values else None)
    return {curve.name(point): point for curve in curves for point in curve.points}


def test_noise_is_as_loud_as_asked_and_the_same_each_time(material, rows):
    point = points(material, "noise", "10")["noise_10"]
    for row in rows[:4]:
        clean, worse = Audio()(row.audio), samples(point.change(row))
        assert len(clean) == len(worse)
        gain = float(clean @ worse / (clean @ clean))  # what is loud may have been turned down as a whole
        noise = worse - gain * clean
        ratio = 10 * np.log10(np.mean((gain * clean) ** 2) / np.mean(noise**2))
        assert ratio == pytest.approx(10, abs=0.7)
        assert worse.tobytes() == samples(points(material, "noise", "10")["noise_10"].change(row)).tobytes()
    assert point.change(rows[0]).text == rows[0].text
    other = Material(material.rows, material.confusions, seed=1)
    assert points(other, "noise", "10")["noise_10"].change(rows[0]) != point.change(rows[0])


def test_the_clock_leaves_no_trace(material, rows):
    point = points(material, "clip", "0.5")["clip_start_0.5"]
    first = point.change(rows[0]).audio
    time.sleep(1.1)  # libsndfile would write whole seconds
    assert point.change(rows[0]).audio == first


def test_pieces_are_of_the_start_or_the_middle(material, rows):
    found = points(material, "clip", "0.5")
    clean = Audio()(rows[0].audio)
    start = (len(clean) - 8000) // 2
    assert np.allclose(samples(found["clip_start_0.5"].change(rows[0])), clean[:8000])
    assert np.allclose(samples(found["clip_middle_0.5"].change(rows[0])), clean[start : start + 8000])


def test_transcripts_go_wrong_as_often_as_asked(material, rows):
    for name, point in points(material, "wer", "0.2", "0.5").items():
        if name.startswith("wer_simulated"):
            worse = [point.change(row).text or "" for row in rows]
            found = word_error_rate([r.text for r in rows], worse, [r.language for r in rows])
            assert found["wer"] == pytest.approx(point.severity, abs=0.06)
            assert point.measured == pytest.approx(point.severity, abs=0.04)
    heard = [name for name in points(material, "wer") if name.startswith("wer_asr_text")]
    assert len(heard) == 1, "the corpus's own asr_text is a point too"


def test_a_larger_share_lacks_what_a_smaller_one_lacks(material, rows):
    found = points(material, "missing", "0.25", "0.5", "1")
    lost = {
        share: {row.id for row in rows if found[f"missing_audio_{share}"].change(row).audio is None}
        for share in ("0.25", "0.5", "1")
    }
    assert lost["0.25"] < lost["0.5"] < lost["1"] == {row.id for row in rows}
    assert len(lost["0.5"]) == round(0.5 * len(rows))
    text = found["missing_text_0.25"]
    assert sum(text.change(row).text is None for row in rows) == round(0.25 * len(rows))
    assert all(text.change(row).audio for row in rows)


def test_what_cannot_be_is_refused(material, rows):
    for kinds, severities, told in (
        (["hum"], None, "kind 'hum' is unknown; accepted: noise, reverb, codec, wer, missing, clip"),
        (["noise"], {"noise": ["loud"]}, "severity noise=loud is no number"),
        (["missing"], {"missing": ["1.5"]}, "missing: share is 1.5; accepted: above 0, to 1"),
        (["clip"], {"clip": ["0.01"]}, "clip: 0.01 s; accepted: 0.1 or more"),
    ):
        with pytest.raises(ValueError, match=told):
            perturbations(material, kinds=kinds, severities=severities)
    silent = Material([replace(row, audio=None) for row in rows], material.confusions)
    assert {curve.kind for curve in perturbations(silent)} == {"wer"}
    with pytest.raises(ValueError, match="kind 'noise' needs audio in every row; accepted here: wer"):
        perturbations(silent, kinds=["noise"])


def test_every_curve_says_what_its_severities_are(material):
    curves = perturbations(material)
    assert {curve.kind for curve in curves} == set(PERTURBATIONS)
    assert all(curve.axis not in PERTURBATIONS and len(curve.axis.split()) > 1 for curve in curves)


def test_codecs_and_rooms_change_the_sound_and_nothing_else(material, rows):
    usual = [*points(material, "codec").items(), *points(material, "reverb", "0.3").items()]
    assert len(usual) == len(PERTURBATIONS["codec"].usual) + 1
    for _, point in usual:
        worse = point.change(rows[0])
        assert replace(worse, audio=None) == replace(rows[0], audio=None)
        assert len(samples(worse)) > 0.8 * len(Audio()(rows[0].audio))
        assert not np.allclose(samples(worse)[:8000], Audio()(rows[0].audio)[:8000], atol=1e-3)

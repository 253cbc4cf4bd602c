"""Estimates of ablations: runs to do are counted, and states of frozen encoders once for all."""

import pytest
import yaml

from mmsr.ablation import estimate
from mmsr.ablation.estimate import estimate_config
from mmsr.workflows.estimates.costs import Estimate, constant


@pytest.fixture
def asked(monkeypatch):
    """The settings of each training that was estimated, which takes 10 s, and 4 s for audio states."""
    found = []

    def estimate_training(words, *, hours=None, calibrate, compare=True):
        found.append((yaml.safe_load(open(words[1])), words[2:], hours, calibrate))
        parts = [constant("start", (1.0, 1.0)), constant("encoding audio", (4.0, 4.0))]
        disk = {"model": 5.0, "feature store": 100.0}
        return Estimate(job="a run", parts=[*parts, constant("training", (10.0, 9.0))], memory=1, disk=disk)

    monkeypatch.setattr(estimate, "estimate_training", estimate_training)
    return found


def test_the_runs_of_variants_add_up(asked, demo_corpus, tmp_path):
    settings = {
        "model.preset": "tiny",
        "model.vocab_size": 600,
        "model.freeze": ["audio_encoder"],
        "data.manifest": str(demo_corpus),
    }
    grid = {"model.fusion": ["gated", "concat"]}
    file = tmp_path / "ablation.yaml"
    content = {"settings": settings, "grid": grid, "seeds": [0, 1, 2], "out": str(tmp_path / "out")}
    file.write_text(yaml.safe_dump(content))
    found = estimate_config(file, hours=3, calibrate=30)
    assert [given[0]["model"]["fusion"] for given in asked] == ["gated", "concat"]
    assert [given[2:] for given in asked] == [(3, 15.0), (3, 15.0)]
    assert [part.seconds for part in found.parts] == [1.0, 4.0, 30.0, 30.0]
    assert found.facts == {"runs": 6} and found.disk == {"model": 30.0, "feature store": 100.0}
    with pytest.raises(ValueError, match="--trainer.max_epochs with the ablation"):
        estimate_config(file, ["--trainer.max_epochs", "3"])


def test_a_file_of_fit_is_a_training(asked):
    estimate_config("demo.yaml", ["--data.manifest", "m.csv"], calibrate=7)
    ((content, words, hours, calibrate),) = asked
    assert content["model"]["preset"] == "small" and words == ["--data.manifest", "m.csv"]
    assert (hours, calibrate) == (None, 7)

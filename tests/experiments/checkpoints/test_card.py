"""The card of `base`: the run's facts, the log's figures, and nothing that was not measured."""

import copy
import json
import shutil
import sys
from pathlib import Path

import baselines
import card
import pandas as pd
import pytest
import score
import yaml
from held_out import RULE
from huggingface_hub import ModelCard

from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.packaged import checkpoint
from mmsr.model.processing import MmsrProcessor
from mmsr.model.weight_storage import save_int8
from mmsr.records import Answer

SETTINGS = yaml.safe_load(Path(card.__file__).with_name("base.yaml").read_text(encoding="utf-8"))


def predict(utterances):
    """Neutral, and abstains from what is audio alone."""
    scores = {"negative": 0.2, "neutral": 0.5, "positive": 0.3}
    return [
        Answer(label="neutral", score=0.5, scores=scores, abstained=one.text is None) for one in utterances
    ]


@pytest.fixture(scope="module")
def run(tmp_path_factory, corpora):
    """What a run leaves, with the packaged `demo` in 8 bits for its model, and the log of its scorings."""
    folder = tmp_path_factory.mktemp("runs") / "base"
    model = MmsrForSentimentReasoning.from_pretrained(checkpoint("demo"))
    save_int8(model, folder / "base")
    MmsrProcessor.from_pretrained(checkpoint("demo")).save_pretrained(folder / "base")
    shutil.copytree(checkpoint("demo"), folder / "packing")
    (folder / "base.yaml").write_text(yaml.safe_dump({"share": 1.0, **SETTINGS}))
    (folder / "seconds.json").write_text('{"corpus": 95.1, "voice": 1204.0}')
    pairs = pd.DataFrame(
        {"text": ["so kind", "how awful", "a table"] * 2, "split": ["train"] * 2 + ["dev"] * 4}
    )
    pairs = pairs.assign(id=range(6), label="neutral", kind="text", language="en")
    pairs.to_csv(folder / "pairs.csv", index=False)
    baselines.run(corpora, None, None, folder / "baselines")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score, "open_model", lambda model, **_: predict)
        patch.setattr(score, "OUTLIERS", 1)
        score.Scoring(
            model=str(folder / "base"),
            data=corpora,
            baselines=folder / "baselines",
            log=folder / "log.jsonl",
            pairs=6,
            progress=lambda *_: None,
        ).run()
    return folder


@pytest.fixture(scope="module")
def collected(run):
    return card.collect(run / "base", run, run / "log.jsonl", compared=3)


@pytest.fixture
def facts(collected):
    return copy.deepcopy(collected)


def test_the_facts_are_those_of_the_run(facts, run):
    assert (facts["name"], facts["seed"], facts["share"]) == ("base", SETTINGS["seed"], 1)
    assert facts["weights"] == score.weights_digest(run / "base") and facts["stored_as"] == "int8"
    assert facts["settings"] == SETTINGS and facts["seconds"] == {"corpus": 95.1, "voice": 1204.0}
    assert facts["rows"] == {"pairs, and each alone": {"train": {"text": 2}, "dev": {"text": 4}}}
    assert facts["agreement"]["n"] == 3 and facts["agreement"]["label"] == 1
    assert 0 < facts["agreement"]["largest_difference_of_a_probability"] < 0.1  # the two are not the same
    assert tuple(facts["scorings"]) == score.ALL and "unpaired" not in facts


def test_the_card_has_every_set_its_figures_and_the_baseline_beside_them(facts):
    text = card.card(facts)
    for name in score.SETS:
        assert f"- `{name}`: " in text and f"| {name} |" in text
    crema = facts["scorings"]["crema"]
    low, high = crema["metrics"]["interval"]["macro_f1"]
    figure = f"| crema | 12 | {crema['metrics']['macro_f1']:.3f} [{low:.3f}, {high:.3f}] |"
    assert figure in text and "| majority | " in text
    for heading in ("Voice alone", "Text alone", "Voice and text", "Calibration", "What it should refuse"):
        assert f"### {heading}" in text
    assert "| conflicting (the voice decides) | voice | text | neither |" in text and "is no accuracy" in text
    assert "| calibration | n | ECE |" in text and "| outliers | n | abstained |" in text
    assert "scored on each set, these included: crema 1, ravdess 1, " in text
    assert "corpus 95, voice 1,204; 1,299 in all" in text and RULE in text


def test_it_names_terms_languages_and_limits(facts):
    text = card.card(facts)
    told = " ".join(text.split())
    notice = "Contains information from CREMA-D, which is made available under the ODbL / DbCL 1.0"
    assert notice in told and "H. Cao, D. G. Cooper" in told
    for name in ("XED", "BRIGHTER", "GoEmotions", "Topical-Chat", "Kajava", "Tatoeba", "Whisper", "e5-small"):
        assert name in told.partition("## Terms")[2]
    assert "Languages of the voice: English alone. Languages of the text: de, en, fr, vi, zh." in told
    assert "not for clinical use" in told and "decision about a person" in told
    data = ModelCard(text).data
    assert data.license == "other" and data.license_name and data.language == ["de", "en", "fr", "vi", "zh"]


def test_what_is_not_known_is_left_out(facts):
    facts["scorings"] = {"ravdess": facts["scorings"]["ravdess"]}
    del facts["seconds"], facts["agreement"]
    facts["rows"] = {}
    text = card.card(facts)
    assert "### Voice alone" in text and "| ravdess |" in text
    for absent in (
        "crema`",
        "### Text",
        "### Voice and text",
        "### Calibration",
        "Seconds of",
        "rows that select, the",
    ):
        assert absent not in text
    facts["scorings"] = {}
    text = card.card(facts)
    assert "## Figures" not in text and "macro-F1" not in text
    assert "## Abstaining" in text and "{" not in text.partition("## How it was made")[2]


def test_the_last_scoring_of_these_weights_counts_and_no_trial(tmp_path):
    lines = [
        {"set": "paper", "weights": "a", "limit": None, "n": 1},
        {"set": "crema", "weights": "a", "limit": None, "n": 2},
        {"set": "crema", "weights": "a", "limit": None, "n": 3},
        {"set": "crema", "weights": "a", "limit": 50, "n": 4},
        {"set": "crema", "weights": "b", "limit": None, "n": 5},
    ]
    log = tmp_path / "log.jsonl"
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    found = card.last_scorings(log, "a")
    assert {name: record["n"] for name, record in found.items()} == {"crema": 3, "paper": 1}
    assert card.scored_versions(log) == {"crema": 2, "paper": 1}
    assert card.last_scorings(log, "c") == card.last_scorings(tmp_path / "none.jsonl", "a") == {}


def test_detectors_of_outliers_are_described_only_where_there_are_some(facts):
    assert facts["outliers"] == {} and "It has no detector of outliers" in card.card(facts)
    facts["outliers"] = {"audio": {"layer": 2, "threshold": 0.625}}
    text = card.card(facts)
    assert "recordings without speech" in text and "0.625" in text and "`abstain_below`" in text
    assert "texts in a language" not in text


def test_a_comparison_without_pairs_and_a_trial_are_told(facts):
    facts["unpaired"] = facts["scorings"]["pairs"]
    facts["share"] = 0.05
    text = card.card(facts)
    assert "### Without pairs in training" in text and "0.05: a trial" in text


def test_a_copy_has_the_card_and_names_no_folder_of_this_machine(run, tmp_path, monkeypatch, capsys):
    out = tmp_path / "package" / "base"
    command = ["card.py", f"--run={run}", f"--log={run / 'log.jsonl'}", f"--out={out}", "--compared=0"]
    monkeypatch.setattr(sys, "argv", command)
    card.main()
    assert "MB, with the figures of crema, ravdess" in capsys.readouterr().out
    written = {name: (out / name).read_text(encoding="utf-8") for name in ("README.md", "checkpoint.json")}
    facts = json.loads(written["checkpoint.json"])
    assert written["README.md"] == card.card(facts) and "agreement" not in facts
    assert not any(str(run.parent) in text or str(tmp_path) in text for text in written.values())
    assert (out / "model.safetensors").read_bytes() == (run / "base" / "model.safetensors").read_bytes()
    assert not (run / "base" / "checkpoint.json").exists()


def test_a_folder_that_no_run_left_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"has no base.yaml; accepted: a folder that base.py left"):
        card.collect(run / "base", tmp_path, run / "log.jsonl", compared=0)

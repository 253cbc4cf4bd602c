"""Figures of a checkpoint on held-out rows, and the log that keeps every scoring."""

import json
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import score
import torch
from held_out import KINDS, SENTIMENTS, SETS, load_sets
from safetensors.torch import save_file

from mmsr.data.audio.decoding import Audio
from mmsr.evaluation.run import prediction_lines
from mmsr.model.configuration import MmsrConfig
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor
from mmsr.records import Answer, Prediction, Utterance

WORDS = {"awful": "negative", "plain": "neutral", "lovely": "positive"}


def answer(label, p=0.8):
    scores = dict.fromkeys(SENTIMENTS, (1 - p) / 2) | {label: p}
    return Answer(label=label, score=p, scores=scores)


class Listener:
    """Knows the label of a voice by its level, and of a text by a word; given both, it follows the voice."""

    def __init__(self):
        self.given = []

    def __call__(self, utterances):
        self.given += utterances
        return [self.answer(one) for one in utterances]

    def answer(self, given):
        if given.audio is not None:
            made = isinstance(given.audio, np.ndarray)  # an outlier
            level = np.std(given.audio if made else Audio()(given.audio))
            return answer(SENTIMENTS[int(level > 0.05) + int(level > 0.2)], 0.9)
        return answer(next((label for word, label in WORDS.items() if word in given.text), "neutral"))


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A folder with weights, which the listener stands in for."""
    folder, listener = tmp_path / "model", Listener()
    folder.mkdir()
    save_file({"a": torch.zeros(2)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    monkeypatch.setattr(score, "open_model", lambda model, **_: listener)
    return folder, listener


def scoring(model, corpora, tmp_path, **options):
    quiet = {"data": corpora, "log": tmp_path / "log.jsonl", "pairs": 6, "progress": lambda *_: None}
    return score.Scoring(model=str(model[0]), **(quiet | options))


def lines(tmp_path):
    return (tmp_path / "log.jsonl").read_bytes().splitlines(keepends=True)


def test_each_set_is_a_line_of_the_log_and_no_line_is_ever_changed(model, corpora, tmp_path):
    (tmp_path / "log.jsonl").write_bytes(b'{"set": "of long ago"}\n')
    first = scoring(model, corpora, tmp_path, sets=["paper", "crema"]).run()
    assert [record["set"] for record in first] == ["crema", "paper"]
    once = lines(tmp_path)
    assert len(once) == 3 and once[0] == b'{"set": "of long ago"}\n'
    scoring(model, corpora, tmp_path, sets=["crema"]).run()
    twice = lines(tmp_path)
    assert len(twice) == 4 and twice[:3] == once
    record = json.loads(twice[3])
    assert record | {"time": 0} == json.loads(twice[1]) | {"time": 0}  # the same rows, to the digit
    assert len(record["weights"]) == len(record["data"]) == 16 and record["n"] == 12
    assert record["model"] == "model" and str(tmp_path) not in twice[3].decode()
    save_file({"a": torch.ones(2)}, model[0] / "model.safetensors")
    (other,) = scoring(model, corpora, tmp_path, sets=["crema"]).run()
    assert other["weights"] != record["weights"] and other["data"] == record["data"]


def test_a_log_that_cannot_be_read_is_refused_before_anything_is_scored(model, corpora, tmp_path):
    (tmp_path / "log.jsonl").write_text("no json\n")
    with pytest.raises(ValueError, match="log.jsonl, byte 0: no line of a journal"):
        scoring(model, corpora, tmp_path, sets=["crema"]).run()
    assert not model[1].given and (tmp_path / "log.jsonl").read_text() == "no json\n"


def test_no_row_of_another_part_is_given_to_the_model(model, corpora, tmp_path):
    scoring(model, corpora, tmp_path, sets=[*SETS, "pairs", "calibration"]).run()
    sets = load_sets(corpora, SETS)
    clips = {row.audio for one in sets if one.column == "audio" for row in one.rows}
    texts = {row.text for one in sets if one.column == "text" for row in one.rows}
    assert {one.audio for one in model[1].given} - {None} == clips
    assert {one.text for one in model[1].given} - {None} <= texts
    assert all(one.label is None and one.speaker is None for one in model[1].given)
    answered = [(one.audio, one.text) for one in model[1].given]
    assert len(set(answered)) == len(answered)  # nothing twice


def test_audio_is_scored_alone_and_over_speakers(model, corpora, tmp_path):
    (record,) = scoring(model, corpora, tmp_path, sets=["crema"]).run()
    assert record["input"] == "audio" and record["metrics"]["macro_f1"] == 1
    assert all(one.text is None for one in model[1].given)


def test_two_labels_are_told_apart_by_their_probabilities():
    rows = [
        Prediction(
            id="a", label="positive", predicted_label="neutral", scores=dict(zip(SENTIMENTS, p, strict=True))
        )
        for p in ((0.1, 0.7, 0.2), (0.25, 0.7, 0.05))
    ]
    found = score.restricted(rows, ("negative", "positive"))
    assert [row.predicted_label for row in found] == ["positive", "negative"]
    assert found[0].scores == pytest.approx({"negative": 1 / 3, "positive": 2 / 3})


def test_late_fusion_is_the_mean_of_log_probabilities():
    def row(*p):
        return Prediction(id="a", predicted_label="neutral", scores=dict(zip(SENTIMENTS, p, strict=True)))

    (found,) = score.late_fusion([row(0.6, 0.3, 0.1)], [row(0.1, 0.4, 0.5)])
    expected = np.sqrt([0.06, 0.12, 0.05])
    assert list(found.scores.values()) == pytest.approx(expected / expected.sum())
    assert found.predicted_label == "neutral"
    assert score.late_fusion([row(1, 0, 0)], [row(0, 0.5, 0.5)])[0].scores["negative"] > 0


def test_pairs_are_compared_with_either_part_and_conflicts_with_the_rule(model, corpora, tmp_path):
    (record,) = scoring(model, corpora, tmp_path, sets=["pairs"]).run()
    assert all(kind in record for kind in KINDS)
    assert record["agreeing"]["fused"]["macro_f1"] == record["agreeing"]["text"]["macro_f1"] == 1
    assert record["agreeing"]["differences"]["fused - audio"]["difference"] == 0
    assert record["neutral_text"]["fused"]["macro_f1"] == 1 > record["neutral_text"]["text"]["macro_f1"]
    # it follows the voice, which is neutral where the text decides
    assert record["neutral_voice"]["fused"]["macro_f1"] < record["neutral_voice"]["text"]["macro_f1"]
    assert record["neutral_voice"]["differences"]["fused - text"]["difference"] < 0
    conflicting = record["conflicting"]
    assert record["rule"] == "the voice decides" and conflicting["n"] == 6
    assert conflicting["fused"]["voice"]["value"] == 1 and conflicting["text"]["text"]["value"] == 1
    for entry in (conflicting[name] for name in ("fused", "audio", "text", "late_fusion")):
        assert sum(entry[part]["value"] for part in ("voice", "text", "neither")) == pytest.approx(1)
    # the more certain part decides late fusion
    assert conflicting["late_fusion"]["voice"]["value"] == 1


def test_calibration_is_of_each_input(model, corpora, tmp_path):
    (record,) = scoring(model, corpora, tmp_path, sets=["calibration"]).run()
    assert record["audio"]["n"] == 12 and record["audio+text"]["n"] == 18
    sets = load_sets(corpora, ["goemotions", "brighter", "xed_neutral"])
    assert record["text"]["n"] == sum(len(one.rows) for one in sets)
    assert record["audio"]["ece"] == pytest.approx(0.1)  # always right, at .9
    assert record["text"]["ece"] == pytest.approx(0.2)


def test_baselines_are_compared_by_language_with_the_sign_of_model_minus_baseline(model, corpora, tmp_path):
    rows = [row for one in load_sets(corpora, SETS) for row in one.rows]
    always = Answer(label="neutral", score=0.6, scores=dict(zip(SENTIMENTS, (0.3, 0.6, 0.1), strict=True)))
    made = {row.id: Prediction.from_answer(row, always, condition="text") for row in rows}
    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines" / "baselines.json").write_text("{}")
    (tmp_path / "baselines" / "majority.jsonl").write_text(prediction_lines(made.values()))
    audio = [row for row in made.values() if row.id.startswith("crema")]
    (tmp_path / "baselines" / "probe.jsonl").write_text(prediction_lines(audio))
    found = scoring(model, corpora, tmp_path, sets=SETS, baselines=tmp_path / "baselines").run()
    records = {record["set"]: record for record in found}
    assert records["crema"]["baselines"].keys() == {"majority", "probe"}
    assert records["ravdess"]["baselines"].keys() == {"majority"}
    assert records["kajava"]["baselines"]["majority"].keys() == {"all", "en", "fr"}
    for group, entry in records["xed"]["baselines"]["majority"].items():
        assert entry["macro_f1"] == [1, pytest.approx(1 / 3, abs=0.05)]  # negative, of two labels
        low, high = entry["interval"]
        assert 0 <= low <= entry["difference"] <= high and entry["difference"] > 0.5, group
    assert records["crema"]["baselines"]["majority"]["all"]["macro_f1"][1] == pytest.approx(1 / 6, abs=1e-6)
    assert records["paper"]["languages"]["en - vi"] | {"interval": 0} == {
        "n": 9,
        "macro_f1": [1, 1],
        "difference": 0,
        "interval": 0,
        "over": "rows",
    }
    table = score.table(found)
    assert "| kajava, fr |" in table and "| paper, en - vi | 9 |" in table and "majority | 0.167 |" in table


def test_texts_of_the_training_are_left_out_and_the_log_says_how_many(model, corpora, tmp_path):
    seen = load_sets(corpora, ["goemotions"])[0].rows[0].text
    (tmp_path / "texts.csv").write_text(f"text,label,language,source,split\n{seen},neutral,en,a,train\n")
    (record,) = scoring(model, corpora, tmp_path, sets=["goemotions"], texts=tmp_path / "texts.csv").run()
    assert (record["n"], record["left_out"]) == (29, 1) and seen not in {one.text for one in model[1].given}
    assert record["texts"] is not None


def test_a_trial_has_fewer_rows_drawn_by_the_seed_and_says_so(model, corpora, tmp_path):
    first, same, other = (
        scoring(model, corpora, tmp_path, sets=["goemotions"], rows=5, seed=seed).run()[0]
        for seed in (1, 1, 2)
    )
    assert first["n"] == first["limit"] == 5
    assert first["data"] == same["data"] != other["data"]


def test_outliers_are_scored_where_there_is_a_module_of_them(model, corpora, tmp_path, monkeypatch):
    monkeypatch.setattr(score.importlib.util, "find_spec", lambda name: None)
    assert scoring(model, corpora, tmp_path, sets=["outliers"]).run() == []
    made = SimpleNamespace(
        sounds=lambda number, seed, test: [
            SimpleNamespace(waveform=np.full(9, i, "f4"), kind="music") for i in range(4)
        ],
        test_texts=lambda: [SimpleNamespace(text="hola", kind="es")],
        nonsense=lambda texts, number, seed, test: [SimpleNamespace(text="xkq", kind="letters")],
    )
    monkeypatch.setattr(score.importlib.util, "find_spec", lambda name: made)
    monkeypatch.setattr(score.importlib, "import_module", lambda name: made)
    monkeypatch.setattr(model[1], "answer", lambda given: answer("neutral"))
    (record,) = scoring(model, corpora, tmp_path, sets=["outliers"]).run()
    assert {kind: entry["n"] for kind, entry in record["abstained"].items()} == {
        "music": 4,
        "other language": 1,
        "other language: es": 1,
        "nonsense": 1,
    }
    assert record["abstained"]["music"]["value"] == 0


def test_abstained_answers_are_a_share_of_a_set():
    rows = [
        Prediction(
            id=str(i),
            label="neutral",
            predicted_label="neutral",
            scores=answer("neutral").scores,
            abstained=i < 1,
        )
        for i in range(4)
    ]
    assert score.entry_of(rows, SENTIMENTS)["abstained"]["value"] == 0.25


def test_the_commit_is_dirty_with_any_changed_file_but_the_log(tmp_path):
    def git(*arguments):
        options = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *options, *arguments], cwd=tmp_path, check=True, capture_output=True)

    log = tmp_path / "deep" / "log.jsonl"
    assert score.commit_of(tmp_path, besides=log) == {"commit": None, "dirty": None}
    git("init", "-q")
    log.parent.mkdir()
    (tmp_path / "code.py").write_text("a = 1")
    log.write_text("")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    log.write_text("{}\n")
    clean = score.commit_of(tmp_path, besides=log)
    assert len(clean["commit"]) == 40 and clean["dirty"] is False
    (tmp_path / "code.py").write_text("a = 2")
    assert score.commit_of(tmp_path / "deep", besides=log) == clean | {"dirty": True}


def test_an_unknown_set_and_a_folder_without_weights_are_refused(model, corpora, tmp_path):
    with pytest.raises(ValueError, match="set is emodb; accepted: crema"):
        scoring(model, corpora, tmp_path, sets=["emodb"]).run()
    (model[0] / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model has no weights; accepted: a folder with \*.safetensors"):
        scoring(model, corpora, tmp_path, sets=["crema"]).run()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folders of a tiny model with our labels, and of one with others."""
    processor = MmsrProcessor.train(["lovely glad plain awful"] * 4, vocab_size=300)
    folders = []
    for labels in (SENTIMENTS, ("bad", "good")):
        folder = tmp_path_factory.mktemp("tiny")
        config = MmsrConfig.from_preset(
            "tiny", vocab_size=len(processor.tokenizer), decoder_type="none", rationale_format="none",
            fusion="cross_attention", id2label=dict(enumerate(labels)),
            label2id={label: i for i, label in enumerate(labels)},
        )  # fmt: skip
        MmsrForSentimentReasoning(config).save_pretrained(folder)
        processor.save_pretrained(folder)
        folders.append(folder)
    return folders


def test_a_checkpoint_is_scored_with_stored_states_as_without(tiny, corpora, tmp_path):
    figures = []
    for store in (None, tmp_path / "store"):
        figures += scoring([tiny[0]], corpora, tmp_path, sets=["pairs"], feature_store=store).run()
    assert figures[0] | {"time": 0} == figures[1] | {"time": 0}


def test_a_checkpoint_with_other_labels_is_refused(tiny):
    with pytest.raises(
        ValueError, match=r"labels of .* are bad, good; accepted: negative, neutral, positive"
    ):
        score.open_model(str(tiny[1]), feature_store=None, batch_size=2)


def test_utterances_are_answered_once_whatever_holds_their_audio():
    given = []
    predict = score.Remembered(lambda rows: given.extend(rows) or [answer("neutral") for _ in rows])
    rows = [
        Utterance(audio=np.zeros(3)),
        Utterance(audio=np.zeros(3)),
        Utterance(audio=np.ones(3)),
        Utterance(text="a"),
    ]
    assert len(predict(rows)) == 4 and len(predict(rows[1:])) == 3 and len(given) == 3

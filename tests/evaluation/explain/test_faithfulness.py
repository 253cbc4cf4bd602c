"""Faithfulness: measures that tell a rationale that decides from one that gives away or makes up."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mmsr.evaluation.explain.faithfulness import (
    Explained,
    Material,
    agreement,
    counterfactuals,
    faithfulness,
    matching,
    simulatability,
    tfidf_judge,
)
from mmsr.evaluation.report.faithfulness import markdown, write_faithfulness_report
from mmsr.evaluation.run import json_document
from mmsr.records import Answer, Prediction, Utterance

LABELS = ["negative", "neutral", "positive"]
WORDS = {"negative": "sarcasm heard", "neutral": "plain report", "positive": "true delight"}


def utterances(count):
    """Rows whose text says nothing of the label."""
    return [
        Utterance(
            id=f"u{n}",
            text=f"knee {n % 5}",
            label=LABELS[n % 3],
            rationale=WORDS[LABELS[n % 3]],
            speaker=f"s{n % 8}",
        )
        for n in range(count)
    ]


def explained(count, *, rationale):
    """Such rows, and what a model that is always right predicts."""
    return [
        Explained(
            row.text,
            Prediction(
                id=row.id,
                label=row.label,
                rationale=row.rationale,
                predicted_label=row.label,
                predicted_rationale=rationale(row.label, n),
                speaker=row.speaker,
            ),
        )
        for n, row in enumerate(utterances(count))
    ]


def predicted(count, *, rationale):
    return [row.prediction for row in explained(count, rationale=rationale)]


def test_a_rationale_that_tells_the_label_has_an_effect_and_one_that_does_not_has_none():
    telling = explained(90, rationale=lambda label, n: WORDS[label])
    found = simulatability(telling[:60], telling[60:])
    assert found["accuracy"]["text+rationale"]["value"] == 1
    assert found["effect"]["value"] > 0.4
    assert (found["leaking"]["n"], found["not_leaking"]) == (30, {"n": 0})
    assert "las" not in found  # all leak: there is nothing to average with
    silent = explained(90, rationale=lambda label, n: "because")
    assert simulatability(silent[:60], silent[60:])["effect"]["value"] == pytest.approx(0, abs=0.01)


def test_las_is_the_mean_effect_of_both_groups_however_large():
    """A judge of the rationale alone is right in 9 rows of 12; each group's effect is known."""
    rows = explained(12, rationale=lambda label, n: f"r{n}")
    gold = [row.prediction.predicted_label for row in rows]

    def judge(train, labels, test):
        right = {
            ("rationale",): range(9),
            ("text",): [*range(6), 9],
            ("text", "rationale"): range(12),
        }[("text", "rationale") if len(test[0]) == 2 else ("rationale",) if test[0][0] == "r0" else ("text",)]
        return [label if n in right else "wrong" for n, label in enumerate(gold)]

    found = simulatability(rows, rows, judge=judge)
    assert (found["leaking"]["n"], found["not_leaking"]["n"]) == (9, 3)
    assert found["leaking"]["value"] == pytest.approx(3 / 9)
    assert found["not_leaking"]["value"] == pytest.approx(2 / 3)
    assert found["effect"]["value"] == pytest.approx(5 / 12)
    assert found["las"]["value"] == pytest.approx((3 / 9 + 2 / 3) / 2)
    low, high = found["las"]["interval"]
    assert low < found["las"]["value"] < high and found["las"]["over"] == "speakers"


def test_rationales_that_name_their_label_are_told_apart():
    rows = explained(30, rationale=lambda label, n: f"it is Positive {n}")
    found = simulatability(rows, rows)["label_not_named"]
    assert found["effect"]["n"] == 20  # of negative and neutral rows


def test_agreement_beside_what_the_judge_can_do():
    train = utterances(30)
    good = predicted(12, rationale=lambda label, n: WORDS[label])
    assert agreement(train, good)["agreement"]["value"] == 1
    turned = dict(zip(LABELS, [*LABELS[1:], LABELS[0]], strict=True))
    bad = predicted(12, rationale=lambda label, n: WORDS[turned[label]])
    found = agreement(train, bad)
    assert (found["agreement"]["value"], found["judge"]["value"]) == (0, 1)


@pytest.mark.parametrize(("obeys", "share"), [(True, 1), (False, 0)])
def test_a_forced_label_is_read_off_its_rationale(obeys, share):
    rows = [replace(row, text=f"row {n}") for n, row in enumerate(utterances(12))]
    predictions = predicted(12, rationale=lambda label, n: WORDS[label])
    own = {row.text: told.predicted_rationale for row, told in zip(rows, predictions, strict=True)}

    def force(forced):
        def predict(records):
            said = [WORDS[forced] if obeys else own[record.text] for record in records]
            return [Answer(label="", score=0.0, scores={}, rationale=rationale) for rationale in said]

        return predict

    found = counterfactuals(force, predictions, rows, utterances(30), labels=LABELS)
    assert found["label_read"]["n"] == 24
    assert (found["label_read"]["value"], found["rationale_changes"]["value"]) == (share, share)


def test_a_judge_of_one_label_says_that():
    assert tfidf_judge([("a",), ("b",)], ["x", "x"], [("c",)]) == ["x"]


def test_a_judge_reads_texts_that_are_all_empty():
    fields = [("", "good"), ("", "bad")] * 5
    assert tfidf_judge(fields, ["p", "n"] * 5, [("", "bad"), ("", "good")]) == ["n", "p"]


# ---------------------------------------------------------------------- rationales within a label

PHRASES = [
    "was so kind",
    "lost my file",
    "came on time",
    "never called back",
    "healed the knee",
    "smelled bad",
]


def spoken(count, *, language="en"):
    """Rows of two labels, and rationales that quote what was said, with templates of their label."""
    words = [f"well the doctor number {n} {PHRASES[n % 6]} today" for n in range(count)]
    return [
        Utterance(
            id=f"u{n}",
            text=words[n],
            label=LABELS[2 * (n % 2)],
            rationale=f'{WORDS[LABELS[2 * (n % 2)]]}: "number {n} {PHRASES[n % 6]}"',
            speaker=f"s{n % 8}",
            language=language,
        )
        for n in range(count)
    ]


def explaining(rows, rationales):
    return [
        Prediction.of(row, predicted_label=row.label, predicted_rationale=rationale)
        for row, rationale in zip(rows, rationales, strict=True)
    ]


def test_rationales_that_are_exchanged_within_their_label_do_not_match():
    """Where overlap with the reference and a judge of labels see nearly nothing, this measure does."""
    rows = spoken(80)
    true = [row.rationale for row in rows]
    exchanged = [rows[(n + 2 * (1 + n % 7)) % 80].rationale for n in range(80)]  # of the same label
    good, bad = (matching(explaining(rows, told), rows) for told in (true, exchanged))
    assert good["own"]["value"] > 0.95 and good["own"] == good["reference"] == bad["reference"]
    low, high = good["permuted"]["interval"]
    assert low < 0.5 < high and good["permuted"]["n"] == 80 and good["permuted"]["over"] == "speakers"
    assert good["difference"]["interval"][0] > 0.3
    low, high = bad["own"]["interval"]
    assert low < 0.5 < high and bad["own"]["value"] < 0.65
    assert bad["difference"]["interval"][0] < 0 < bad["difference"]["interval"][1]
    assert good["quoted"]["value"] == good["grounded"]["value"] == 1
    assert good["grounded_permuted"]["value"] == bad["grounded"]["value"] == 0
    lessons = spoken(40)
    assert agreement(lessons, explaining(rows, exchanged))["agreement"]["value"] == 1


def test_constant_rationales_match_as_well_as_any_others():
    rows = spoken(20)
    found = matching(explaining(rows, ["because"] * 20), rows)
    assert (found["own"]["value"], found["permuted"]["value"], found["quoted"]["value"]) == (0.5, 0.5, 0)
    assert found["grounded"] == {"n": 0}


def test_a_rationale_is_compared_within_its_label_its_language_and_other_words():
    asked = []

    def fit(transcripts, rationales):
        asked.append(list(rationales))
        return np.eye(len(transcripts))

    rows = [*spoken(6), *spoken(4, language="vi"), replace(spoken(1)[0], text=None, rationale=None)]
    rows[2] = replace(rows[2], text=rows[0].text.upper())  # the same words, which are no others
    predictions = explaining(rows, [f"r{n}" for n in range(11)])
    found = matching(predictions, rows, fit=fit)
    assert asked[:4] == [["r0", "r2", "r4"], ["r1", "r3", "r5"], ["r6", "r8"], ["r7", "r9"]]
    assert (found["own"]["n"], found["own"]["value"]) == (4, 1.0), "rows 1, 3, 4 and 5 have two others"
    assert matching(predictions[6:10], rows[6:10], fit=fit) == {}


def answers(records):
    answer = Answer(label="neutral", score=1.0, scores={"neutral": 1.0}, rationale="plain report")
    return [answer for _ in records]


def test_what_cannot_be_measured_is_said(tmp_path):
    rows = utterances(6)
    found = faithfulness(
        answers, rows, labels=LABELS, material=Material(train_rows=rows, respoken={"voice": []})
    )
    assert found["left_out"]["simulatability"].startswith("6 training rows with label and rationale")
    assert found["left_out"]["follow"] == "audio cannot be edited without load_audio"
    assert json.loads(json_document(found)) == found
    write_faithfulness_report(tmp_path, found, title="model, rationales")
    for table in (markdown(found), (tmp_path / "report.md").read_text(encoding="utf-8")):
        assert "Left out: respoken, another voice (none of the rows is the demo generator's)." in table


def test_all_of_it_comes_into_the_report(tmp_path):
    rows = [replace(row, audio="x.wav") for row in utterances(40)]
    material = Material(
        train_rows=rows,
        force=lambda label: answers,
        load_audio=lambda path: np.ones(160, dtype=np.float32),
        respoken={"manner": rows[:30]},
        evidence_of=lambda rationale, language: (None, None),
    )
    found = faithfulness(answers, rows, labels=LABELS, material=material)
    assert found["respoken"]["manner"]["not_respoken"] == 10
    assert found["left_out"] == {"LAS": "all 40 rows are leaking, and it is the mean over both groups"}
    table = markdown(found)
    assert "10 of 40 rows could not be spoken in another manner." in table
    for line in (
        "label read off the rationale is the predicted one | 1.000",
        "forced label: rationale changes | 0.000",
        "voice silenced: label changes | 0.000",
    ):
        assert line in table
    machine = {"platform": "p", "cpu": "fast", "cores": 2}
    about = {"training_seed": 7, "seed": 3, "data_fingerprint": "f1f2", "command": "mmsr faithfulness x"}
    words = {"words": ["so", "kind"], "word_weights": np.array([0.1, -0.2]), "label": "positive"}
    saliency = {**words, "frame_weights": np.ones(4), "waveform": np.zeros(160), "rate": 160}
    write_faithfulness_report(
        tmp_path, {**found, **about, "machine": machine}, title="t", saliencies={"a/b 1": saliency}
    )
    for page in ("report.html", "report.md"):
        text = (tmp_path / page).read_text(encoding="utf-8")
        origin = ("7 (training), 3 (evaluation)", "f1f2", "mmsr faithfulness x", "fast, 2 cores")
        assert all(said in text for said in (*origin, "95 % over speakers", "voice silenced: label changes"))
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert html.count("data:image/svg+xml") == 2 and "<script" not in html
    assert sorted(file.name for file in tmp_path.glob("*.png")) == ["faithfulness.png", "saliency-a_b_1.png"]


def test_a_model_without_rationales_is_refused():
    def predict(records):
        return [replace(answer, rationale=None) for answer in answers(records)]

    with pytest.raises(ValueError, match="the model writes no rationales; accepted: one with a decoder"):
        faithfulness(predict, utterances(3), labels=LABELS, material=Material())

"""Findings: each is found in rows made for it, and is not found in their neighbours."""

import re

import numpy as np
import pytest

from mmsr.evaluation.entries import evaluate_rows
from mmsr.evaluation.report.findings import CHECKS, Examined, examine, headline, unpaired_interval
from mmsr.evaluation.run import evaluate
from mmsr.records import Answer, Prediction, Utterance

LABELS = ["negative", "neutral", "positive"]
OTHER = dict(zip(LABELS, [*LABELS[1:], LABELS[0]], strict=True))


def rows(right, *, sure=None, **fields) -> list[Prediction]:
    """Predictions of labels in turn; `right` says which are right, `fields` have a value a row."""
    made = []
    for i, correct in enumerate(right):
        label = fields["label"][i] if "label" in fields else LABELS[i % 3]
        predicted = label if correct else OTHER[label]
        p = 0.8 if sure is None else sure[i]
        scores = {name: p if name == predicted else (1 - p) / 2 for name in LABELS}
        given = {name: values[i] for name, values in fields.items() if name != "label"}
        made.append(Prediction(id=f"r{i}", label=label, predicted_label=predicted, scores=scores, **given))
    return made


def found(name: str, made: list[Prediction], **fields) -> list[str]:
    conditions = {"audio+text": evaluate_rows(made, LABELS), **fields.pop("conditions", {})}
    return CHECKS[name].find(Examined(conditions, made, **fields))


def why_not(name: str, made: list[Prediction], **fields) -> str:
    conditions = {"audio+text": evaluate_rows(made, LABELS), **fields.pop("conditions", {})}
    (check,) = (c for c in examine(Examined(conditions, made, **fields))["checks"] if c["name"] == name)
    return check["not_checked"]


def share(n: int, of: float) -> list[bool]:
    """Right and wrong answers, spread evenly, this share of them right."""
    return [int((i + 1) * of) > int(i * of) for i in range(n)]


def never(n: int, of: str) -> list[Prediction]:
    made = rows([True] * 30, label=["negative", "neutral"] * 15)
    made += [
        Prediction(id=f"p{i}", label=of, predicted_label="neutral", scores={"neutral": 1.0}) for i in range(n)
    ]
    return made


def test_a_label_that_is_never_predicted():
    assert found("never_predicted", never(10, "positive")) == ["Never predicted: positive (true in 10)."]
    assert found("never_predicted", never(9, "positive")) == [], "too few rows"
    assert found("never_predicted", rows(share(60, 0.7))) == []
    assert why_not("never_predicted", [Prediction(id="a", predicted_label="neutral")]) == "no row has a label"


def test_a_gap_between_development_and_test_rows():
    test, same, better = (rows(share(120, of)) for of in (0.5, 0.55, 0.8))
    dev = {"development": evaluate_rows(better, LABELS)}
    (message,) = found("development_gap", test, **dev)
    assert "answered worse than development rows" in message
    difference, low, high = map(float, re.findall(r"[+-]\d\.\d+", message))
    assert low < difference < high < 0
    assert found("development_gap", test, development=evaluate_rows(same, LABELS)) == []
    assert why_not("development_gap", test) == "no labelled development rows"
    assert why_not("development_gap", test[:29], **dev) == "29 labelled rows on a side"
    (message,) = found("development_gap", better, development=evaluate_rows(test, LABELS))
    assert "answered better" in message


def test_one_speaker_who_carries_the_score():
    star = [i % 2 == 0 for i in range(120)]
    names = ["star" if own else f"s{i % 6}" for i, own in enumerate(star)]
    carried = rows([own or i % 3 == 0 for i, own in enumerate(star)], speaker=names)
    (message,) = found("few_speakers", carried)
    assert message.startswith(
        "One speaker carries the score: without star (60 of 120 rows) accuracy is 0.333"
    )
    assert found("few_speakers", rows(share(120, 0.7), speaker=names)) == []
    assert why_not("few_speakers", carried[:31]) == "without any speaker fewer than 30 rows are left"
    assert why_not("few_speakers", rows(share(40, 0.5))) == "not every row names its speaker"
    assert why_not("few_speakers", rows(share(40, 0.5), speaker=["a"] * 40)) == "one speaker alone"


def test_two_of_twenty_speakers_who_carry_the_score():
    names = ["a"] * 30 + ["b"] * 30 + [f"s{i % 18}" for i in range(60)]
    right = [True] * 60 + share(60, 0.55)
    (message,) = found("few_speakers", rows(right, speaker=names))
    assert message.startswith("2 speakers carry the score: without a, b (60 of 120 rows)")
    few = ["a"] * 30 + ["b"] * 30 + [f"s{i % 8}" for i in range(60)]
    assert found("few_speakers", rows(right, speaker=few)) == [], "two of ten are not few"


def beside(both, alone, *, name: str = "text", n: int = 240):
    """The rows under audio + text, and the entry of another condition with its difference."""

    def predict(right):
        left = iter(right)

        def answer(utterances: list[Utterance]) -> list[Answer]:
            labels = [LABELS[int(str(u.text or u.audio).strip("t.wav")) % 3] for u in utterances]
            said = [label if next(left) else OTHER[label] for label in labels]
            return [Answer(label=label, score=1.0, scores={label: 1.0}) for label in said]

        return answer

    given = [Utterance(id=f"r{i}", text=f"t{i}", audio=f"{i}.wav", label=LABELS[i % 3]) for i in range(n)]
    right = {"audio+text": both, name: alone}
    answers = iter([predict(right[condition]) for condition in ("audio+text", name)])
    now = next(answers)
    seen = 0

    def route(utterances):
        nonlocal now, seen
        if seen == n:
            now = next(answers)
        seen += len(utterances)
        return now(utterances)

    metrics, predictions = evaluate(route, given, labels=LABELS, conditions=["audio+text", name])
    return Examined(metrics, [row for row in predictions if row.condition == "audio+text"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("text", "Text alone is no worse"),
        ("audio", "Audio alone is no worse"),
        ("shuffled_audio", "The text with another row's audio is no worse"),
    ],
)
def test_one_modality_that_is_as_good_as_both(name, said):
    check = CHECKS["one_modality"].find
    both = share(240, 0.7)
    (message,) = check(
        beside(both, [not right if i in (3, 7) else right for i, right in enumerate(both)], name=name)
    )
    assert message.startswith(said)
    assert check(beside(both, share(240, 0.4), name=name)) == []
    (message,) = check(beside(share(240, 0.4), both, name=name))
    assert "is better than audio + text" in message


def test_few_rows_cannot_say_that_one_modality_is_as_good():
    generator = np.random.default_rng(0)
    few = beside(generator.random(24) < 0.6, generator.random(24) < 0.6, n=24)
    (check,) = (c for c in examine(few)["checks"] if c["name"] == "one_modality")
    assert re.fullmatch(
        r"too few rows: they would show only a difference of 0\.[1-9]\d+ or more", check["not_checked"]
    )


def with_baseline(model: float, baseline: float, n: int = 300) -> Examined:
    """A model beside a baseline that has the paired difference of two shares of the same rows."""
    from mmsr.evaluation.entries import differences

    ours, theirs = rows(share(n, model)), rows(share(n, baseline))
    entry = evaluate_rows(theirs, LABELS) | {"difference": differences(theirs, ours)}
    return Examined({"text": evaluate_rows(ours, LABELS), "baselines": {"tfidf": entry}}, ours)


def test_a_baseline_that_is_better_or_as_good():
    check = CHECKS["below_baseline"].find
    (message,) = check(with_baseline(0.5, 0.8))
    assert message.startswith("Worse than a baseline: macro-F1 0.500 against 0.800 of TF-IDF")
    assert check(with_baseline(0.8, 0.5)) == []
    (message,) = check(with_baseline(0.7, 0.7))
    assert message.startswith("Not shown to be better than a baseline")
    assert check(with_baseline(0.55, 0.5, n=20)) == [], "so few rows show nothing"


def test_constant_rationales_are_a_baseline_of_rationales():
    difference = {"rougeL": {"value": 0.1, "interval": [0.05, 0.15], "detectable": 0.3}}
    entry = {"n": 50, "rougeL": 0.4, "difference": difference}
    run = Examined({"text": {"n": 50, "rougeL": 0.3}, "baselines": {"constant_rationale": entry}}, [])
    (message,) = CHECKS["below_baseline"].find(run)
    assert message.startswith("Worse than a baseline: ROUGE-L 0.300 against 0.400 of constant rationale")
    assert "-0.100 [-0.150, -0.050]" in message


def test_probabilities_that_cannot_be_believed():
    right = share(200, 0.6)
    (message,) = found("badly_calibrated", rows(right, sure=[0.95] * 200))
    assert message.startswith("Badly calibrated: ECE 0.350") and "too sure" in message
    assert found("badly_calibrated", rows(right, sure=[0.6] * 200)) == []
    assert "not sure enough" in found("badly_calibrated", rows(share(200, 0.9), sure=[0.5] * 200))[0]
    generator = np.random.default_rng(1)
    chance = generator.uniform(0.4, 0.95, 40)
    calibrated = rows(generator.random(40) < chance, sure=chance)
    assert found("badly_calibrated", calibrated) == [], "an ECE of few rows is large by chance"
    assert why_not("badly_calibrated", rows(right[:29])) == "29 labelled rows"


def test_few_rows():
    assert found("few_rows", rows(share(120, 0.6))) == []
    (message,) = found("few_rows", rows(share(60, 0.5)))
    assert message.startswith("Few rows: 60 have a label, accuracy 0.500 [0.377, 0.623]")
    lacking = rows([True] * 109, label=["negative", "neutral"] * 50 + ["positive"] * 9)
    assert found("few_rows", lacking) == [
        "Few rows of a label: positive (9). Its F1 can change by a third with a row."
    ]


def test_a_language_that_is_far_behind():
    languages = ["en"] * 90 + ["de"] * 60
    behind = rows(share(90, 0.8) + share(60, 0.3), language=languages)
    (message,) = found("language_behind", behind)
    assert message.startswith("de is far behind: accuracy 0.300 on 60 rows against 0.800")
    assert found("language_behind", rows(share(150, 0.7), language=languages)) == []
    assert found("language_behind", rows(share(90, 0.8) + share(60, 0.72), language=languages)) == []
    few = rows(share(90, 0.8) + share(29, 0.3), language=["en"] * 90 + ["de"] * 29)
    assert why_not("language_behind", few) == "no language has 30 rows, as have the others"
    assert why_not("language_behind", rows(share(40, 0.8))) == "one language, or none is named"


def test_the_headline_has_the_best_trivial_baseline_beside_the_main_figure():
    run = with_baseline(0.8, 0.5)
    text = headline(run.conditions)
    assert text.startswith("From text alone, the model reaches macro-F1 0.800 [") and " on 300 rows; " in text
    assert "the best trivial baseline, TF-IDF + logistic regression, reaches 0.500 [" in text
    difference, low, high = map(float, re.findall(r"[+-]\d\.\d+", text))
    assert low < difference == 0.3 < high
    others = {"majority": {"n": 300, "macro_f1": 0.6}, "constant_rationale": {"n": 1, "macro_f1": 0.9}}
    best = run.conditions["baselines"] | others
    assert "majority label, reaches 0.600 (" in headline({**run.conditions, "baselines": best})
    assert headline({"text": run.conditions["text"]}).endswith("no training rows for a trivial baseline.")
    assert headline({"text": {"n": 4}}) == (
        "The model answers 4 rows from text alone; none has a label to judge it by."
    )


def test_an_interval_of_other_rows_is_wider_than_either_and_narrower_than_both():
    low, high = unpaired_interval(0.5, (0.4, 0.6), 0.7, (0.65, 0.75))
    assert low == pytest.approx(-0.2 - np.hypot(0.1, 0.05)) and high == pytest.approx(
        -0.2 + np.hypot(0.1, 0.05)
    )


def test_examine_keeps_what_was_checked_and_why_not():
    told = examine(Examined({"text": evaluate_rows(never(10, "positive"), LABELS)}, never(10, "positive")))
    assert {"name", "message", "section"} == set(told["findings"][0])
    assert [check["name"] for check in told["checks"]] == list(CHECKS)
    by_name = {check["name"]: check for check in told["checks"]}
    assert by_name["never_predicted"]["found"] == 1 and by_name["one_modality"]["found"] is None
    assert by_name["one_modality"]["not_checked"] == "the model was not given both audio and text"

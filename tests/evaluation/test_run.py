import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mmsr.evaluation.provenance import Provenance
from mmsr.evaluation.run import evaluate, predict_rows, prediction_lines, shuffle, write_run
from mmsr.records import Answer, Prediction, Utterance

LABELS = ["negative", "neutral", "positive"]
RUN = Provenance(seed=3, data_fingerprint="abc", command="mmsr evaluate", seconds=1.23456)


def predict(records: Sequence[Utterance]) -> list[Answer]:
    """Reads the label in the name of the audio file, else in the text."""
    answers = []
    for record in records:
        label = next((name for name in LABELS if name in (record.audio or record.text or "")), "neutral")
        scores = {name: 0.8 if name == label else 0.1 for name in LABELS}
        answers.append(Answer(label=label, score=0.8, scores=scores, rationale=f"it sounds {label}"))
    return answers


@pytest.fixture
def rows(utterance):
    return [
        utterance(
            f"r{i}",
            label=label,
            audio=f"/sounds/{i}-{label}.wav",
            text=f"words {i} {label}",
            rationale=f"it sounds {label}",
            language=["en", "zh"][i % 2],
            speaker="s",
            kind="voice",
        )
        for i, label in enumerate(LABELS * 2)
    ]


def test_each_condition_gets_its_records(rows) -> None:
    seen: dict[str, list[Utterance]] = {}
    condition = ""

    def spy(records: Sequence[Utterance]) -> list[Answer]:
        calls.append(list(records))
        return predict(records)

    for condition in ("audio+text", "text", "audio", "shuffled_audio"):
        calls: list[list[Utterance]] = []
        evaluate(spy, rows, labels=LABELS, conditions=[condition])
        (seen[condition],) = calls
    assert seen["audio+text"][1] == Utterance(audio=rows[1].audio, text=rows[1].text, language="zh")
    assert all(given.audio is None and given.text for given in seen["text"])
    assert all(given.text is None and given.audio for given in seen["audio"])
    shuffled = seen["shuffled_audio"]
    assert [given.text for given in shuffled] == [row.text for row in rows]
    assert sorted(str(given.audio) for given in shuffled) == sorted(row.audio for row in rows)
    language = {row.audio: row.language for row in rows}
    for given, row in zip(shuffled, rows, strict=True):
        assert given.audio != row.audio
        assert language[given.audio] == row.language


def test_metrics_and_predictions(rows) -> None:
    told = []
    metrics, predictions = evaluate(
        predict, rows, labels=LABELS, train_rows=rows, chunk=4, progress=lambda *step: told.append(step)
    )
    assert list(metrics) == ["audio+text", "text", "audio", "shuffled_audio", "baselines"]
    assert metrics["audio+text"]["macro_f1"] == metrics["audio+text"]["rougeL"] == 1.0
    assert metrics["shuffled_audio"]["accuracy"] < 1.0
    assert set(metrics["baselines"]) == {
        "majority",
        "constant_rationale",
        "constant_rationale_oracle",
        "nearest_rationale",
        "consensus_rationale",
        "tfidf",
    }
    assert metrics["baselines"]["constant_rationale"]["accuracy"] == 1.0
    assert told[:2] == [("audio+text", 4, 6), ("audio+text", 6, 6)]
    assert len(predictions) == 4 * 6
    assert predictions[0].to_row() == {
        "id": "r0",
        "label": "negative",
        "rationale": "it sounds negative",
        "predicted_label": "negative",
        "scores": {"negative": 0.8, "neutral": 0.1, "positive": 0.1},
        "predicted_rationale": "it sounds negative",
        "language": "en",
        "speaker": "s",
        "kind": "voice",
        "condition": "audio+text",
    }


def test_a_row_that_lacks_a_modality_is_left_out_of_the_condition(rows) -> None:
    changes = ({"audio": None}, {"text": " "}, {"asr_text": "noisy positive"})
    rows[:3] = [replace(row, **change) for row, change in zip(rows, changes, strict=False)]
    metrics, predictions = evaluate(predict, rows, labels=LABELS)
    sizes = {name: entry["n"] for name, entry in metrics.items()}
    assert sizes == {"audio+text": 4, "text": 5, "audio": 5, "shuffled_audio": 4, "asr": 1, "audio+asr": 1}
    assert [row.id for row in predictions if row.condition == "asr"] == ["r2"]


def test_the_seed_decides_the_shuffle(rows) -> None:
    def labels(seed: int) -> list[str]:
        _, predictions = evaluate(predict, rows, labels=LABELS, conditions=["shuffled_audio"], seed=seed)
        return [row.predicted_label for row in predictions]

    assert labels(1) == labels(1)
    assert len({tuple(labels(seed)) for seed in range(6)}) > 1


@pytest.mark.parametrize(
    "languages",
    [
        ["en"] * 2,
        ["en", "vi"],
        ["en", "en", "vi"],
        ["en", "vi", "zh", "zh", None],
        ["en", "vi"] * 5,
        [None] * 7,
    ],
)
def test_no_row_keeps_its_audio_and_each_is_heard_once(languages: list[str | None]) -> None:
    for seed in range(20):
        donors = shuffle(languages, seed=seed)
        assert sorted(donors) == list(range(len(languages)))
        assert all(donor != i for i, donor in enumerate(donors))
        if all(languages.count(language) > 1 for language in languages):
            assert [languages[donor] for donor in donors] == languages


def test_one_row_cannot_be_shuffled() -> None:
    with pytest.raises(ValueError, match="between two rows or more"):
        shuffle(["en"], seed=0)


def test_another_number_of_answers_raises(rows) -> None:
    with pytest.raises(ValueError, match=r"condition 'text': predict gave 5 answers to 6 utterances"):
        evaluate(lambda records: predict(records)[1:], rows, labels=LABELS, conditions=["text"])


def test_bad_rows_raise_before_the_model_is_asked(rows) -> None:
    def never(records: Sequence[Utterance]) -> list[Answer]:
        raise AssertionError("asked")

    with pytest.raises(
        ValueError, match="row 'r1': label 'joy' is not one of 'negative', 'neutral', 'positive'"
    ):
        evaluate(never, [rows[0], replace(rows[1], label="joy")], labels=LABELS)
    with pytest.raises(ValueError, match="row 1: id 'r0' is missing or repeated"):
        evaluate(never, [rows[0], rows[0]], labels=LABELS)
    with pytest.raises(ValueError, match="condition 'video' is not one of 'audio\\+text', 'text'"):
        evaluate(never, rows, labels=LABELS, conditions=["video"])
    with pytest.raises(ValueError, match=r"condition 'asr': no row has what it needs \(asr_text\)"):
        evaluate(never, rows, labels=LABELS, conditions=["asr"])
    with pytest.raises(ValueError, match="no rows to evaluate"):
        evaluate(never, [], labels=LABELS)


def test_a_label_the_model_invents_names_the_row(rows) -> None:
    def invent(records: Sequence[Utterance]) -> list[Answer]:
        return [replace(answer, label="angry") for answer in predict(records)]

    with pytest.raises(ValueError, match="row 'r0': predicted_label 'angry' is not one of"):
        evaluate(invent, rows, labels=LABELS)


def test_every_row_is_checked_before_the_first_is_predicted(rows) -> None:
    def never(records: Sequence[Utterance]) -> list[Answer]:
        raise AssertionError("predicted")

    rows[4] = replace(rows[4], audio=None, text=None, asr_text="noisy positive")
    with pytest.raises(
        ValueError,
        match="row 'r4': no audio and no text; accepted: at least one of the two, or text_column asr_text, ",
    ):
        predict_rows(never, rows)
    rows[4] = replace(rows[4], asr_text=None)
    with pytest.raises(
        ValueError, match="row 'r4': no audio and no asr_text; accepted: at least one of the two$"
    ):
        predict_rows(never, rows, text_column="asr_text")


def test_the_text_column_is_what_the_model_reads(rows) -> None:
    rows[0] = replace(rows[0], asr_text="noisy words")
    rows[1] = replace(rows[1], audio=None, asr_text="only this")
    seen: list[Utterance] = []

    def spy(records: Sequence[Utterance]) -> list[Answer]:
        seen.extend(records)
        return predict(records)

    answered = predict_rows(spy, rows, text_column="asr_text")
    assert [given.text for given in seen] == ["noisy words", "only this", None, None, None, None]
    assert [row.condition for row in answered] == ["audio+asr", "asr", *["audio"] * 4]
    assert {row.condition for row in predict_rows(predict, rows)} == {"audio+text", "text"}


def test_the_files_of_a_run(tmp_path: Path, rows) -> None:
    rows[0] = replace(rows[0], rationale="mô tả khách quan")
    metrics, predictions = evaluate(predict, rows, labels=LABELS, train_rows=rows)
    document = write_run(tmp_path / "run", {"test": metrics}, predictions, provenance=RUN, extra={"epoch": 4})
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["metrics.json", "predictions.jsonl"]
    written = json.loads((tmp_path / "run/metrics.json").read_text("utf-8"))
    assert written == document
    assert written["test"]["audio+text"]["n"] == 6
    assert {key: written[key] for key in ("seed", "data_fingerprint", "command", "epoch")} == {
        "seed": 3,
        "data_fingerprint": "abc",
        "command": "mmsr evaluate",
        "epoch": 4,
    }
    assert written["seconds"] == 1.235
    assert written["versions"]["python"].startswith("3.")
    assert written["machine"]["cores"] >= 1 and written["machine"]["platform"]
    text = (tmp_path / "run/predictions.jsonl").read_text("utf-8")
    assert "mô tả khách quan" in text
    assert [Prediction.from_row(json.loads(line)) for line in text.splitlines()] == predictions
    assert text == prediction_lines(predictions)


def test_a_figure_that_is_no_number_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_run(tmp_path / "run", {"test": {"text": {"n": 1, "uar": float("nan")}}}, [], provenance=RUN)
    assert not (tmp_path / "run").exists()


def test_extra_may_not_replace_what_the_contract_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"extra may not repeat the keys \['seed'\]"):
        write_run(tmp_path, {"test": {}}, [], provenance=RUN, extra={"seed": 1})


def test_audio_is_shuffled_within_a_language_however_it_is_written() -> None:
    languages = ["zh", "vi", "Chinese", "vie", "cmn", "Tiếng Việt"]
    for seed in range(20):
        assert {donor % 2 for donor in shuffle(languages, seed=seed)[::2]} == {0}


def test_the_share_of_abstained_rows_is_reported(rows) -> None:
    def refuse(records: Sequence[Utterance]) -> list[Answer]:
        because, sounds = "no speech was heard", ["audio"]
        first, *others = predict(records)
        refused = replace(first, abstained=True, abstained_because=because, outliers=sounds)
        return [refused, *(replace(answer, abstained=False, outliers=[]) for answer in others)]

    metrics, predictions = evaluate(refuse, rows, labels=LABELS, conditions=["audio"])
    assert metrics["audio"]["abstained"] == 1 / len(rows)
    assert predictions[0].abstained_because == "no speech was heard" and predictions[0].outliers == ["audio"]
    assert "abstained" not in evaluate(predict, rows, labels=LABELS, conditions=["audio"])[0]["audio"]

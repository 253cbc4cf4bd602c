"""The commands of inference: answers, and one clear line with exit code 2 on bad input."""

import html
import json
import os
import shutil
from pathlib import Path

import numpy as np
import openpyxl
import pytest
import soundfile

import mmsr
from mmsr.cli.inference import format_answer
from mmsr.cli.main import main
from mmsr.model.modeling import MmsrForSentimentReasoning, save_model
from mmsr.model.processing import MmsrProcessor
from mmsr.quotations import quotations


def test_predict_answers_in_words_and_in_json(model, clip, capsys):
    main(["predict", "--model", str(model), "--audio", str(clip), "--text", "thank you doctor"])
    out = capsys.readouterr().out
    assert "label:" in out and "rationale:" in out
    main(["predict", "--model", str(model), "--audio", str(clip), "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == {"label", "score", "scores", "rationale", "grounded", "evidence"}
    assert sum(answer["scores"].values()) == pytest.approx(1, abs=1e-5)
    main(["predict", "--model", str(model), "--text", "thank you", "--force_label", "negative", "--json"])
    assert json.loads(capsys.readouterr().out)["forced_label"] == "negative"


@pytest.mark.parametrize(
    ("seconds", "volume", "said"),
    [(0.01, 0.1, "lasts 10 ms: too short for speech"), (1, 0, "is silent: the answer says nothing of it")],
)
def test_what_cannot_be_told_from_a_recording_is_said_beside_the_answer(
    model, capsys, tmp_path, seconds, volume, said
):
    samples = volume * np.sin(np.arange(int(seconds * 16_000)) / 9)
    soundfile.write(tmp_path / "a.wav", samples, 16_000)
    main(["predict", "--model", str(model), "--audio", str(tmp_path / "a.wav")])
    captured = capsys.readouterr()
    assert "label:" in captured.out and said in captured.err


def test_how_much_of_a_recording_is_speech_is_printed():
    answer = {"label": "a", "score": 1.0, "scores": {"a": 1.0}, "rationale": None}
    lines = format_answer({**answer, "audio_seconds": 80.23, "speech_seconds": 27.06}).splitlines()
    assert lines[-1] == "  speech: 27.1 of 80.2 s" and "speech" not in format_answer(answer)


def test_a_clip_of_speech_gets_no_advice(model, clip, capsys):
    main(["predict", "--model", str(model), "--audio", str(clip)])
    assert capsys.readouterr().err == ""


def test_predict_answers_each_recording_with_its_path(model, demo_corpus, tmp_path, capsys, refused):
    clips = sorted((demo_corpus.parent / "audio").glob("*.flac"))[:3]
    folder = tmp_path / "clips" / "below"
    folder.mkdir(parents=True)
    (tmp_path / "clips" / "notes.txt").write_text("no recording")
    inside = [shutil.copy(clip, folder / clip.name) for clip in clips[:2]]
    paths = [str(clips[2]), *map(str, inside)]
    asked = ["predict", str(clips[2]), str(tmp_path / "clips"), "--model", str(model)]
    main([*asked, "--json", "--alternatives"])
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer.pop("audio") for answer in answers] == paths
    for path, answer in zip(paths, answers, strict=True):
        main(["predict", path, "--model", str(model), "--json", "--alternatives"])
        alone = json.loads(capsys.readouterr().out)
        assert answer["scores"] == pytest.approx(alone["scores"], abs=1e-4) and set(answer) == set(alone)
    main([*asked, "--batch-size", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == paths
    assert sum(line.startswith("  label: ") for line in lines) == 3
    line = refused(*asked, "--text", "thank you")
    assert "--text with 3 recordings; accepted: with a recording" in line
    (tmp_path / "empty").mkdir()
    assert "empty: no recordings here; accepted: .aif" in refused("predict", str(tmp_path / "empty"))
    assert "gone.wav: no such file" in refused("predict", str(clips[0]), "gone.wav")


def test_a_manifest_needs_no_flag(model, demo_corpus, tmp_path, capsys):
    out = tmp_path / "p.jsonl"
    main(["predict", str(demo_corpus), "--model", str(model), "--out", str(out)])
    rows = out.read_text(encoding="utf-8")
    main(["predict", "--manifest", str(demo_corpus), "--model", str(model), "--out", str(out)])
    assert rows == out.read_text(encoding="utf-8") and rows.count("\n") == 60
    capsys.readouterr()
    main(["data", "check", str(demo_corpus)])
    assert "60 rows, no faults" in capsys.readouterr().out


def test_predictions_are_refused_a_place_before_a_model_is_loaded(tmp_path, refused, monkeypatch):
    (tmp_path / "m.jsonl").write_text('{"text": "thank you"}\n')
    (tmp_path / "d.jsonl").mkdir()
    (tmp_path / "d.csv").mkdir()
    monkeypatch.setattr("mmsr.inference.loading.load_pipeline", lambda *_: pytest.fail("loaded"))
    predict = ["predict", str(tmp_path / "m.jsonl"), "--out"]
    for out, problem in (
        ("m.jsonl", "m.jsonl is a file that is read; accepted: another file"),
        ("d.jsonl", "d.jsonl is a folder; accepted: a file"),
        ("m.jsonl/p.jsonl", "m.jsonl is a file; accepted: another folder"),
        ("d.csv", "d.csv is a folder; accepted: a file"),
        ("clip.WAV", "clip.WAV has the ending of a recording; accepted: .csv"),  # perhaps a row's recording
    ):
        line = refused(*predict, str(tmp_path / out))
        assert line.startswith(f"--out {tmp_path}") and problem in line
    page = str(tmp_path / "d.html")
    (tmp_path / "d.html").mkdir()
    assert f"--html {page} is a folder" in refused("predict", "--text", "thank you", "--html", page)
    assert "--html p.pdf has another ending" in refused("predict", "--text", "thank you", "--html", "p.pdf")


@pytest.mark.parametrize(
    ("out", "problem"),
    [
        ("m.csv", "is a file that is read; accepted: another file"),
        ("linked.csv", "is a file that is read; accepted: another file"),
        ("d.csv", "is a folder; accepted: a file"),
        ("m.csv/heard.csv", "m.csv is a file; accepted: another folder"),
        ("clip.wav", "has the ending '.wav'; accepted: .csv"),
    ],
)
def test_transcripts_are_refused_a_place_before_a_recogniser_is_loaded(tmp_path, refused, out, problem):
    (tmp_path / "m.csv").write_text("audio\nclip.wav\n")
    (tmp_path / "linked.csv").symlink_to(tmp_path / "m.csv")
    (tmp_path / "d.csv").mkdir()
    line = refused("transcribe", str(tmp_path / "m.csv"), "--asr", "no/model", "--out", str(tmp_path / out))
    assert problem in line and "no/model" not in line


@pytest.mark.parametrize("what", ["formulas.xlsx", "torn.csv"])
def test_a_table_with_faults_is_refused_by_predict_as_by_check(model, tmp_path, refused, capsys, what):
    path = tmp_path / what
    if what == "formulas.xlsx":
        book = openpyxl.Workbook()
        for row in (["id", "text", "label"], ["a", "so bad", '=IF(1>0,"negative","positive")']):
            book.active.append(row)
        book.save(path)
    else:
        path.write_bytes(b"id,text\na,so bad\n\0\0\0")
    line = refused("predict", str(path), "--model", str(model))
    with pytest.raises(SystemExit):
        main(["data", "check", str(path), "--json"])
    faults = json.loads(capsys.readouterr().out)["faults"]
    (fault,) = [fault for fault in faults if fault["code"] in ("formula-uncomputed", "text-nul")]
    assert fault["message"] in line and f"{what}, row {fault['row']}" in line


def test_predict_over_a_manifest_writes_the_contract_s_rows(model, demo_corpus, tmp_path):
    out = tmp_path / "p.jsonl"
    main(["predict", "--model", str(model), "--manifest", str(demo_corpus), "--out", str(out)])
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 60
    assert set(rows[0]) == {
        *("id", "label", "rationale", "predicted_label", "scores", "predicted_rationale"),
        *("language", "speaker", "kind", "condition", "grounded", "evidence"),
        *("audio", "text", "asr_text", "split"),  # of the manifest
    }
    assert {row["condition"] for row in rows} == {"audio+text"}
    quoted = [quotations(row["predicted_rationale"]) for row in rows]
    assert all(len(row["evidence"]) <= len(found) for row, found in zip(rows, quoted, strict=True))


def test_predict_marks_the_answers_that_it_abstains_from(model, demo_corpus, tmp_path, capsys, refused):
    predict = ["predict", "--model", str(model)]
    out = tmp_path / "p.jsonl"
    main([*predict, "--manifest", str(demo_corpus), "--out", str(out)])
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    sure = sorted(row["scores"][row["predicted_label"]] for row in rows)
    middle = (sure[20] + sure[21]) / 2
    main([*predict, "--manifest", str(demo_corpus), "--out", str(out), "--abstain-below", str(middle)])
    assert "abstained from 21 of 60" in capsys.readouterr().err
    marked = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    for row, before in zip(marked, rows, strict=True):
        assert row.pop("abstained") == (before["scores"][before["predicted_label"]] < middle)
        assert row["predicted_label"] == before["predicted_label"]
    for below, abstained in (("1e-6", False), ("1", True)):
        main([*predict, "--text", "thank you", "--abstain-below", below, "--json"])
        answer = json.loads(capsys.readouterr().out)
        assert answer["abstained"] is abstained and answer["label"] in answer["scores"]
        main([*predict, "--text", "thank you", "--abstain-below", below])
        assert ("abstained" in capsys.readouterr().out) is abstained
    line = refused(*predict, "--text", "thank you", "--abstain-below", "60")
    assert "--abstain-below 60; accepted: a probability, above 0, to 1" in line


def test_bad_input_to_predict_is_one_line(model, clip, tmp_path, refused):
    predict = ["predict", "--model", str(model)]
    assert "give recordings, a manifest or --text; inputs stand before lists" in refused(*predict)
    line = refused(*predict, "--audio", str(tmp_path / "no.wav"))
    assert "no.wav" in line and "no such file" in line
    assert "--text" in refused(*predict, "--text", "  ")
    (tmp_path / "text.wav").write_text("this is no sound")
    line = refused(*predict, "--audio", str(tmp_path / "text.wav"))
    assert "text.wav" in line and "accepted" in line
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 16_000)
    line = refused(*predict, "--audio", str(tmp_path / "empty.wav"))
    assert "empty.wav" in line and "accepted" in line
    soundfile.write(tmp_path / "nan.wav", np.full(16_000, np.nan), 16_000, subtype="FLOAT")
    line = refused(*predict, "--audio", str(tmp_path / "nan.wav"))
    assert "nan.wav" in line and "NaN" in line
    line = refused(*predict, "--audio", str(clip), "--force_label", "angry")
    assert "'angry'" in line and "negative, neutral, positive" in line


def test_predict_needs_no_model_of_one_s_own(tmp_path, monkeypatch, capsys):
    """The packaged checkpoint `base` answers from any folder, and names its evidence."""
    monkeypatch.chdir(tmp_path)
    main(["predict", "--text", "I am so happy, thank you!", "--html", "a.html"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["  label", "  scores", "  rationale"]
    assert "positive" in lines[0] and "thank you" in lines[2]
    assert "<mark>" in Path("a.html").read_text("utf-8")
    main(["predict", "--text", "good", "--alternatives"])
    assert "  rationale (if it were negative): " in capsys.readouterr().out


def test_a_model_without_rationales_has_no_line_for_them(tmp_path, capsys, refused):
    model = MmsrForSentimentReasoning.from_pretrained(mmsr.checkpoint("base"))
    for field in ("voice_emotions", "text_emotions", "text_languages"):
        setattr(model.config, field, None)
    del model.encoder.voice_emotions, model.encoder.text_evidence
    save_model(model, MmsrProcessor.from_pretrained(mmsr.checkpoint("base")), tmp_path / "plain")
    asked = ["predict", "--text", "good", "--model", str(tmp_path / "plain")]
    main([*asked, "--html", str(tmp_path / "a.html")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["  label", "  scores"]
    assert "Rationale" not in (tmp_path / "a.html").read_text("utf-8")
    assert "gives a label only (decoder_type='none'); accepted: a model with" in refused(
        *asked, "--alternatives"
    )


def test_the_page_of_predict_holds_what_was_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    soundfile.write("hum.wav", 0.1 * np.sin(np.arange(16_000) / 20), 16_000)
    asked = ["--audio", "hum.wav", "--text", "thank you <b>so</b> much", "--model", "demo", "--alternatives"]
    main(["predict", *asked, "--html", "a.html", "--abstain-below", "1", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == {
        *("label", "score", "scores", "rationale", "grounded", "evidence", "alternatives", "abstained")
    }
    assert set(answer["alternatives"]) | {answer["label"]} == set(answer["scores"])
    page = Path("a.html").read_text("utf-8")
    assert "data:audio/flac" in page and "&lt;b&gt;" in page and "<b>" not in page
    assert all(text in html.unescape(page) for text in answer["alternatives"].values())
    main(["predict", "--model", "demo", "--text", "thank you", "--alternatives"])
    assert capsys.readouterr().out.count("rationale (if it were ") == 2


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--manifest", "{m}", "--asr", "whisper"], "--asr with a manifest; accepted: with a recording or"),
        (["{m}", "--html", "a.html"], "--html with a manifest"),
        (["{m}", "--alternatives"], "--alternatives with a manifest"),
        (["{m}", "--text", "good"], "--text with a manifest"),
        (["{m}", "--manifest", "{m}"], "m.csv is a manifest; accepted: one manifest alone, or recordings"),
        (["--text", "good", "--asr", "whisper"], "--asr whisper writes transcripts of recordings; accepted"),
        (
            ["--text", "good", "--language", "vi"],
            "--language vi is for a recogniser; accepted: with --asr",
        ),
        (["--text", "good", "--html", "a.pdf"], "--html a.pdf has another ending; accepted: .html"),
        (["--text", "good", "--model", "x"], "x: no such folder, and no packaged checkpoint is called 'x'"),
    ],
)
def test_predict_refuses_flags_that_do_not_go_together(tmp_path, flags, expected, refused):
    (tmp_path / "m.csv").write_text("text\ngood\n")
    given = [flag.format(m=tmp_path / "m.csv") for flag in flags]
    assert expected in refused("predict", *given)


def test_unreadable_checkpoints_are_named(model, tmp_path, refused):
    def broken(name: str) -> Path:
        return Path(shutil.copytree(model, tmp_path / name))

    (broken("cut") / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:1000])
    (broken("json") / "config.json").write_text("{")
    (broken("none") / "config.json").unlink()
    (broken("weightless") / "model.safetensors").unlink()
    (broken("wordless") / "tokenizer.json").unlink()
    for name in ("cut", "json", "none", "weightless", "wordless"):
        line = refused("predict", "--model", str(tmp_path / name), "--text", "good")
        assert str(tmp_path / name) in line and "accepted" in line, line


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        ("audio,text,label", "gone.wav,hello,neutral", ("row 2", "audio", "gone.wav", "accepted")),
        ("text,label", "hello,angry", ("row 2", "label", "angry", "negative, neutral, positive")),
        ("sentence,label", "hello,neutral", ("sentence", "accepted")),
        ("audio,text,label", ",,neutral", ("row 2", "audio", "text")),
    ],
)
def test_bad_manifests_name_file_row_column_and_value(
    model, tmp_path, capsys, header, row, expected, refused
):
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"{header}\n{row}\n")
    out = tmp_path / "out.jsonl"
    line = refused("predict", "--model", str(model), "--manifest", str(manifest), "--out", str(out))
    assert all(part in line for part in ("m.csv", *expected)), line
    assert sorted(os.listdir(tmp_path)) == ["m.csv"]  # nothing half-written
    with pytest.raises(SystemExit) as exit_:
        main(["data", "check", "--manifest", str(manifest)])
    assert exit_.value.code == 1  # the manifest could be read; 2 is for what cannot
    out = capsys.readouterr().out
    assert all(part in out for part in expected), out


@pytest.mark.skipif(os.name != "posix", reason="names that are bytes")
def test_predict_answers_the_others_and_names_what_it_cannot_read(tmp_path, capsys):
    folder = tmp_path / "sounds"
    folder.mkdir()
    names = ["a.wav", os.fsdecode(b"b-caf\xe9.wav"), "c.wav", "d.wav"]
    for place, name in enumerate(names):
        soundfile.write(tmp_path / "one.wav", np.random.default_rng(place).normal(0, 0.1, 16000), 16000)
        (tmp_path / "one.wav").rename(folder / name)
    (folder / "c.wav").write_text("no sound")
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(folder), "--model", "demo", "--json"])
    assert stop.value.code == 1
    told = capsys.readouterr()
    answered = [json.loads(line)["audio"] for line in told.out.splitlines()]
    assert answered == [str(folder / name) for name in names if name != "c.wav"]
    assert told.err.startswith("loading demo, to answer 4 recordings, 32 at a time ...\n")
    (line,) = [line for line in told.err.splitlines() if "left without an answer" in line]
    assert f"{folder}/c.wav: holds no audio" in line
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(folder / "c.wav"), "--model", "demo"])
    assert stop.value.code == 2  # alone, it is bad input
    (tmp_path / "m.csv").write_text("id,audio\nx,sounds/c.wav\ny,sounds/a.wav\n")
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(tmp_path / "m.csv"), "--model", "demo", "--out", str(tmp_path / "p.jsonl")])
    assert stop.value.code == 1 and "m.csv, row 2, column audio: " in capsys.readouterr().err
    assert [json.loads(line)["id"] for line in (tmp_path / "p.jsonl").read_text().splitlines()] == ["y"]


def test_an_answer_says_what_the_model_does_not_know():
    answer = {"label": "x", "score": 0.5, "scores": {"x": 0.5}, "rationale": None}
    refused = {"outliers": ["audio"], "abstained": True, "abstained_because": "no speech was heard"}
    assert format_answer(answer | refused).splitlines() == [
        "  label: x (0.50), abstained: no speech was heard",
        "  scores: x 0.50",
    ]
    left_out = format_answer(answer | {"outliers": ["audio"], "abstained": False}).splitlines()
    assert left_out[2:] == ["  answered from the rest alone: no speech was heard"]

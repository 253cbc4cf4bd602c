"""Errors of all commands: one line on stderr and exit code 2."""

import os

import pytest

from mmsr.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("timeline", "AUDIO is required (mmsr timeline --help)"),
        ("transcribe --out x.csv", "MANIFEST and --asr are required (mmsr transcribe --help)"),
        ("human make a=b", "--manifest and --out are required (mmsr human make --help)"),
        ("predict --text hi --batch-size two", "--batch-size two; accepted: int (mmsr predict --help)"),
        ("predict --xyzzy 3", "Unknown option: --xyzzy. (mmsr predict --help)"),
        ("predict --text hi --num-beams 0", "--num-beams 0; accepted: 1 or more (mmsr predict --help)"),
        ("timeline a.wav --batch-size -1", "--batch-size -1; accepted: 1 or more (mmsr timeline --help)"),
        (
            "transcribe m.csv --asr a --out b.csv --batch-size 0",
            "--batch-size 0; accepted: 1 or more (mmsr transcribe --help)",
        ),
        (
            "evaluate m.csv --model m --out o --num-beams 0",
            "--num-beams 0; accepted: 1 or more (mmsr evaluate --help)",
        ),
        (
            "evaluate m.csv --model m --out o --batch-size 0",
            "--batch-size 0; accepted: 1 or more (mmsr evaluate --help)",
        ),
        (
            "evaluate m.csv --model m --out o --examples -1",
            "--examples -1; accepted: 0 or more (mmsr evaluate --help)",
        ),
        (
            "evaluate m.csv --model m --out o --seed -1",
            "--seed -1; accepted: 0 or more (mmsr evaluate --help)",
        ),
        (
            "calibrate m.csv --model m --batch-size 0",
            "--batch-size 0; accepted: 1 or more (mmsr calibrate --help)",
        ),
        (
            "robustness m.csv --model m --out o --batch-size 0",
            "--batch-size 0; accepted: 1 or more (mmsr robustness --help)",
        ),
        (
            "faithfulness m.csv --model m --out o --erased -1",
            "--erased -1; accepted: 0 or more (mmsr faithfulness --help)",
        ),
        (
            "export --format onnx --model m --out o --batch-size 0",
            "--batch-size 0; accepted: 1 or more (mmsr export --help)",
        ),
        ("demo --epochs 0", "--epochs 0; accepted: 1 or more (mmsr demo --help)"),
        ("data check m.csv --max-seconds 0", "--max-seconds 0; accepted: above 0"),
        ("data check m.csv --labels joy fear joy", "--labels joy fear joy; accepted: each label once"),
        ("predict --audio .", "--audio .: a folder; accepted: an audio file, or --manifest for many"),
        (
            "predict --text hi --out x.csv",
            "--out x.csv is a table of recordings; accepted: recordings or a manifest, no --text",
        ),
    ],
)
def test_what_is_typed_wrongly_is_one_line_in_the_words_of_who_typed_it(arguments, said, refused):
    assert refused(*arguments.split()) == said


@pytest.mark.parametrize("command", ["evaluate", "ablate"])
def test_another_commands_report_is_not_written_over(command, demo_corpus, tmp_path, refused):
    (tmp_path / "robustness.json").write_text("{}")
    asked = {
        "evaluate": ["--model", "demo", "--manifest", str(demo_corpus)],
        "ablate": ["-c", "experiments/ablations/fusions.yaml"],
    }
    line = refused(command, *asked[command], "--out", str(tmp_path))
    assert f"--out {tmp_path} has robustness.json, whose report.html would be lost" in line
    assert [path.name for path in tmp_path.iterdir()] == ["robustness.json"]


@pytest.mark.parametrize("own", [None, "ACTIVE"])
def test_threads_that_wait_sleep_unless_the_user_says_otherwise(own: str | None, monkeypatch):
    """Set before a command imports torch, which reads it once."""
    monkeypatch.setenv("OMP_WAIT_POLICY", own or "")
    if own is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    seen: list[str | None] = []
    monkeypatch.setattr("mmsr.cli.main.application", lambda words: seen.append(os.getenv("OMP_WAIT_POLICY")))
    main(["doctor"])
    assert seen == [own or "PASSIVE"]

"""`mmsr plan`: what it prints and writes, and how it refuses bad input."""

import json

import pytest

from mmsr.cli.main import main
from mmsr.workflows.estimates import inference, training


@pytest.fixture(autouse=True)
def no_start(monkeypatch):
    """A start of no other Python, which takes seconds."""
    for module in (inference, training):
        monkeypatch.setattr(module, "start_of", lambda name: (1.0, 1.0))


def test_answers_by_hours_alone(tmp_path, capsys):
    out = tmp_path / "plan.json"
    flags = ["--model", "demo", "--batch-size", "4", "--seconds", "1", "--calibrate", "1"]
    main(["plan", "--hours", "1", *flags, "--out", str(out)])
    printed, told = capsys.readouterr()
    assert printed.startswith("answers to 1 h of audio by demo, 3,600 utterances of 1.0 s\n")
    assert "| answering " in printed and "| 900 batches |" in printed and "under a load of" in told
    assert json.loads(out.read_text("utf-8"))["utterances"] == 3600


def test_a_training_by_its_settings(demo_corpus, capsys):
    settings = ["--data.manifest", str(demo_corpus), "--model.preset", "tiny", "--model.attention=eager"]
    main(["plan", "-c", "demo.yaml", *settings, "--trainer.max_epochs", "2", "--calibrate", "1", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["epochs"] == 2 and found["seconds_per_epoch"] > 0
    assert found["seconds"] == pytest.approx(sum(part["seconds"] for part in found["parts"]), abs=0.01)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give recordings, a manifest, --hours H, or -c FILE"),
        (["--hour", "3"], "--hour: no such flag; did you mean --hours?"),
        (["--data.manifest", "m.csv"], "settings of a training are given with -c FILE"),
        (["--hours", "0"], "accepted: 0.001 or more"),
        (["no.wav"], "no.wav: no such file"),
        (["no.csv"], "--manifest no.csv: no such file"),
        (["--hours", "1", "--model", "nothing"], "nothing: no such folder"),
        (["-c", "demo.yaml", "--model", "demo"], "--model with -c demo.yaml; accepted: settings of"),
        (["-c", "no.yaml"], "no.yaml: no such file"),
        (["-c", "demo.yaml", "--data.manifest", "no.csv"], "no.csv"),
    ],
)  # fmt: skip
def test_bad_input_ends_with_one_line(words, told, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["plan", *words])
    assert exit_.value.code == 2
    out, err = capsys.readouterr()
    line = err.strip().splitlines()[-1]
    assert out == "" and line.startswith("mmsr: error: ") and told in line, (out, err)
    assert err.count("\n") <= 2  # what is timed, and the error

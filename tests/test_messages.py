"""What errors add: the nearest name, and what is wrong with a path."""

import os

import pytest

from mmsr.data.manifest.issues import Issue, ManifestError
from mmsr.messages import did_you_mean, no_such_file, one_line

SETTINGS = ["model.fusion", "model.freeze", "trainer.max_epochs", "trainer.min_epochs", "data.manifest"]


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("model.fuson", "; did you mean model.fusion?"),
        ("fusion", "; did you mean model.fusion?"),
        ("epochs", "; did you mean trainer.max_epochs?"),
        ("max_epoch", "; did you mean trainer.max_epochs?"),
        ("manifst", "; did you mean data.manifest?"),
        ("xyzzy", ""),
    ],
)
def test_the_nearest_name_is_offered(typed, hint):
    assert did_you_mean(typed, SETTINGS) == hint


@pytest.mark.skipif(os.sep != "/", reason="paths as on Linux and macOS")
@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("speach.wav", "speach.wav: no such file; did you mean speech.wav?"),
        ("other.wav", "other.wav: no such file"),
        ("clip/", "clip/: no such folder; did you mean clips?"),
        ("clips/spech.wav", "clips/spech.wav: no such file; did you mean clips/speech.wav?"),
        ("no/where/a.wav", "no/where/a.wav: no such file, nor the folder no/where"),
        ("~/a.wav", "~/a.wav: no such file; the shell has not replaced ~, write $HOME"),
        ("C:\\clips\\a.wav", "C:\\clips\\a.wav: no such file; it is written as on Windows"),
        (
            "runs/demo/corpus/manifest.csv",
            "runs/demo/corpus/manifest.csv: no such file; mmsr data make-demo --out runs/demo/corpus makes "
            "it, or mmsr demo with all that follows",
        ),
        ("clips\\a.wav", "clips\\a.wav: no such file; it is written as on Windows"),
    ],
)
def test_a_path_that_is_not_there_is_explained(path, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").mkdir()
    for name in ("speech.wav", "clips/speech.wav", "1.wav", "2.wav"):
        (tmp_path / name).touch()
    said = no_such_file(path)
    assert said == line or (said.startswith(line) and "Windows" in line)


def test_errors_become_one_line(tmp_path):
    assert one_line(ValueError("first\nsecond  part")) == "first second  part"
    assert one_line(ValueError()) == "ValueError"
    with pytest.raises(OSError) as caught:
        (tmp_path / "none").read_text()
    assert one_line(caught.value) == f"{tmp_path / 'none'}: no such file or directory"
    issues = [Issue("m.csv", row, "label", "'x' is unknown") for row in range(2, 1500)]
    line = "m.csv, row 2, column label: 'x' is unknown"
    assert one_line(ManifestError(issues)) == f"{line} (1,497 more; for all: mmsr data check MANIFEST)"
    assert one_line(ManifestError(issues[:1])) == line
    unlisted = one_line(ManifestError(issues[:3], listed_by=None))
    assert unlisted == f"{line} (2 more: m.csv, row 3, m.csv, row 4)"
    assert one_line(ManifestError(issues, listed_by=None)).endswith("m.csv, row 22, ...)")


def test_a_setting_s_end_is_found_in_its_own_section():
    accepted = ["trainer.max_epochs", "trainer.min_epochs", "model.vocab_size", "trainer.gradient_clip_val"]
    assert did_you_mean("trainer.epochs", accepted) == "; did you mean trainer.max_epochs?"
    assert did_you_mean("model.size", accepted) == "; did you mean model.vocab_size?"

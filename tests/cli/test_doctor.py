"""`mmsr doctor` tells the truth of an installation."""

import io
import json
import re
import sys
from importlib.metadata import version

import pytest
import torch

from mmsr.cli import doctor
from mmsr.cli.main import main


def found(findings: list[doctor.Finding], topic: str, name: str) -> doctor.Finding:
    return next(one for one in findings if (one.topic, one.name) == (topic, name))


def test_this_installation_answers(capsys):
    main(["doctor", "--json"])  # exit code 0: no SystemExit
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is True
    by_name = {(one["topic"], one["name"]): one for one in said["findings"]}
    assert by_name["core", "torch"]["said"] == version("torch")
    assert by_name["checkpoint", "base"]["state"] == "ok"
    labels = "(positive|neutral|negative)"
    assert re.search(
        rf"answered in .* on cpu: {labels} \(0\.\d\d\), words of praise",
        by_name["checkpoint", "base"]["said"],
    )
    (demo,) = doctor.answers("demo")
    assert demo.state == "ok" and re.search(rf"on cpu: {labels} \([01]\.\d\d\), \w", demo.said)
    assert set(by_name["core", "torch"]) == {"topic", "name", "state", "said", "remedy"}


def test_a_checkpoint_that_cannot_be_read_is_broken(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(SystemExit) as exit_:
        main(["doctor", "--model", str(tmp_path)])
    assert exit_.value.code == 1
    out = capsys.readouterr().out
    assert re.search(
        rf"broken +checkpoint +ValueError: checkpoint {re.escape(str(tmp_path))} cannot be read", out
    )
    assert "ok      torch" in out, "the rest is looked at all the same"


def test_extras_that_lack_something_name_it_and_the_command(monkeypatch):
    needs = {
        "": ["torch>=2", "numpy>=99", "no-such-package"],
        "train": ["no-such-package>=1", "numpy"],
        "report": ["numpy>=1"],
        "all": ["mmsr[train,report]"],
    }
    declared = {extra: [doctor.Requirement(line) for line in lines] for extra, lines in needs.items()}
    monkeypatch.setattr(doctor, "requirements", lambda: declared)
    extras = list(doctor.extras())
    assert [(one.name, one.state) for one in extras] == [("train", "missing"), ("report", "ok")]
    assert (extras[0].said, extras[0].remedy) == (
        "no-such-package is not installed",
        "pip install 'mmsr[train]'",
    )
    core = list(doctor.core())
    assert found(core, "core", "torch").state == "ok"
    numpy = found(core, "core", "numpy")
    assert (numpy.state, numpy.remedy) == ("broken", "pip install 'numpy>=99'")
    assert numpy.said == f"numpy {version('numpy')} is installed, >=99 is needed"
    assert doctor.broken(core) and not doctor.broken(extras)


def test_programs_that_are_not_on_path_are_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    programs = list(doctor.programs())
    one = found(programs, "programs", "chromium")
    assert one.state == "missing" and "not on PATH" in one.said and "apt install" in str(one.remedy)
    (tmp_path / "chromium").write_text("#!/bin/sh\n")
    (tmp_path / "chromium").chmod(0o755)
    assert found(list(doctor.programs()), "programs", "chromium").said == str(tmp_path / "chromium")


def test_what_a_look_raises_is_a_finding(monkeypatch):
    def raises():
        raise OSError("libcudart.so.13: cannot open shared object file")

    monkeypatch.setattr(doctor, "devices", raises)
    monkeypatch.setattr(doctor, "answers", lambda checkpoint: iter(()))
    device = found(doctor.examine("demo"), "devices", "devices")
    assert (
        device.state == "broken" and device.said == "OSError: libcudart.so.13: cannot open shared object file"
    )


@pytest.mark.parametrize(
    ("able", "expected"), [({"avx512_bf16": True}, "native"), ({"avx2": True}, "emulated")]
)
def test_bfloat16_is_native_where_training_would_use_it(monkeypatch, able, expected):
    pytest.importorskip("lightning")
    from mmsr.training.run import mixed_precision

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    said = found(list(doctor.devices()), "devices", "bfloat16").said
    assert expected in said
    assert (mixed_precision() == "bf16-mixed") == (expected == "native")


class Terminal(io.StringIO):
    """Output that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "no_color", "coloured"),
    [(Terminal, None, True), (Terminal, "1", False), (io.StringIO, None, False)],
)
def test_colours_are_for_terminals_that_want_them(monkeypatch, stream, no_color, coloured):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    if no_color:
        monkeypatch.setenv("NO_COLOR", no_color)
    out = stream()
    monkeypatch.setattr(sys, "stdout", out)
    doctor.show(
        [doctor.Finding(topic="core", name="torch", state="broken", said="no", remedy="[pip] install")]
    )
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]m", out.getvalue())) is coloured
    assert "torch" in out.getvalue() and "[pip] install" in out.getvalue()

"""`mmsr completion` prints scripts that shells read, and that complete."""

import shutil
import subprocess

import pytest

from mmsr.cli.main import main


def completed(script, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    code = f'source {script}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _mmsr; echo "${{COMPREPLY[*]}}"'
    done = subprocess.run(["bash", "-c", code, "_", "mmsr", *words], capture_output=True, text=True)
    assert not done.stderr, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_that_the_shell_reads(shell, capsys, tmp_path):
    main(["completion", shell])
    script = capsys.readouterr().out
    assert "transcribe" in script and "abstain-below" in script and "--label_map" not in script
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} to read it; it was printed")
    (tmp_path / "completion").write_text(script)
    assert subprocess.run([shell, "-n", str(tmp_path / "completion")], capture_output=True).returncode == 0


def test_bash_completes_commands_flags_choices_and_files(capsys, tmp_path):
    main(["completion", "bash"])
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    assert completed(script, "tra") == ["transcribe"]
    assert completed(script, "data", "seg") == ["segment"]
    assert completed(script, "predict", "--abst") == ["--abstain-below"]
    assert completed(script, "data", "segment", "--no-k") == ["--no-keep-label"]
    assert completed(script, "timeline", "--player", "in") == ["inline"]
    # where nothing is known, bash completes names of files
    assert completed(script, "predict", "cli") == [] and "complete -o default" in script.read_text()


def test_completion_refuses_other_shells(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["completion", "tcsh"])
    assert exit_.value.code == 2
    assert "SHELL tcsh; accepted: bash, zsh, fish" in capsys.readouterr().err

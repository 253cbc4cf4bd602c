"""A model that the commands use, and how they refuse bad input."""

from collections.abc import Callable

import pytest

from mmsr.cli.main import main


@pytest.fixture(scope="session")
def model(demo_corpus, tmp_path_factory):
    """A tiny model trained for one epoch through the command line."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    main(
        ["fit", "--model.preset", "tiny", "--model.vocab_size", "600", "--data.manifest", str(demo_corpus)]
        + ["--trainer.max_epochs", "1", "--trainer.default_root_dir", str(folder)]
        + ["--trainer.enable_progress_bar", "false"]
    )
    return folder / "model"


@pytest.fixture
def clip(demo_corpus):
    return next((demo_corpus.parent / "audio").glob("*.flac"))


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail with exit code 2, and returns its one line."""

    def run(*words: str) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main(list(words))
        assert exit_.value.code == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and err.startswith("mmsr: error: "), (out, err)
        return err.strip().removeprefix("mmsr: error: ")

    return run

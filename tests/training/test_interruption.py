"""Ctrl-C and SIGTERM end a training in one line, which says what continues it."""

import os
import signal
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import Callback

from mmsr.cli.main import main
from mmsr.training.run import MmsrCLI


def run_with(monkeypatch: pytest.MonkeyPatch, callback: Callback) -> None:
    whole = MmsrCLI.instantiate_trainer

    def with_callback(self, **kwargs):
        trainer = whole(self, **kwargs)
        trainer.callbacks.append(callback)
        return trainer

    monkeypatch.setattr(MmsrCLI, "instantiate_trainer", with_callback)


class Send(Callback):
    """Sends this process a signal in the first step of an epoch."""

    def __init__(self, number: int, epoch: int) -> None:
        self.number, self.epoch = number, epoch

    def on_train_batch_start(self, trainer, *_):
        if trainer.current_epoch == self.epoch:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_signal_ends_in_one_line_that_says_what_continues(
    demo_corpus: Path, tmp_path, monkeypatch, capsys, number, code, word, epoch
):
    folder = tmp_path / "run"
    words = ["fit", "--model.preset", "tiny", "--model.vocab_size", "600", "--model.fusion", "text_only"]
    words += ["--data.manifest", str(demo_corpus), "--trainer.default_root_dir", str(folder)]
    words += ["--trainer.max_epochs", "2", "--trainer.enable_progress_bar", "false"]
    run_with(monkeypatch, Send(number, epoch))
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == code
    signal.signal(signal.SIGINT, before[1])
    assert signal.getsignal(signal.SIGTERM) == before[0]
    last = folder / "checkpoints" / "last.ckpt"
    remedy = f"the same command continues from {last}" if epoch else "the same command starts again"
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{word}: ") and line.endswith(remedy)
    assert last.exists() == bool(epoch) and not (folder / "model").exists()
    monkeypatch.undo()
    main(words)
    assert (folder / "model").exists()

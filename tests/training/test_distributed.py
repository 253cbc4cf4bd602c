"""One run on two processes of one machine, over gloo."""

import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

# Runs `mmsr fit` as it is, in each process, and writes down what that process saw.
PROGRAM = """
import hashlib, json, os, sys
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback

from mmsr.data.loading.datamodule import UtteranceDataset
from mmsr.training.run import MmsrCLI, fit

out, *arguments = sys.argv[1:]
read, losses = [], []
item = UtteranceDataset.__getitem__
UtteranceDataset.__getitem__ = lambda self, index: (read.append(self.rows[index]["id"]), item(self, index))[1]


class Watch(Callback):
    def on_train_epoch_start(self, trainer, module):
        read.clear()

    def on_train_batch_end(self, trainer, module, outputs, *_):
        losses.append(float(outputs["loss"]))

    def on_validation_start(self, trainer, module):
        self.ids = list(read)

    def on_train_start(self, trainer, module):
        if os.environ.get("NO_DROPOUT"):
            for part in module.modules():
                for name in ("p", "dropout", "activation_dropout"):
                    if isinstance(getattr(part, name, None), float):
                        setattr(part, name, 0.0)

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if trainer.is_global_zero and os.environ.get("NO_DROPOUT"):
            gradients = {name: weight.grad for name, weight in module.named_parameters()}
            torch.save(gradients, Path(out) / "gradients.pt")

    def on_train_epoch_end(self, trainer, module):
        digest = hashlib.sha256()
        for name, value in sorted(module.state_dict().items()):
            digest.update(name.encode() + value.cpu().numpy().tobytes())
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        seen = {"ids": self.ids, "weights": digest.hexdigest(), "losses": list(losses), "metrics": metrics}
        path = Path(out) / f"rank{trainer.global_rank}-epoch{trainer.current_epoch}.json"
        path.write_text(json.dumps(seen))


whole = MmsrCLI.instantiate_trainer


def watched(self, **kwargs):
    trainer = whole(self, **kwargs)
    trainer.callbacks.append(Watch())
    return trainer


MmsrCLI.instantiate_trainer = watched
fit(arguments)
"""


def fit(folder: Path, manifest: Path, *more: str, program: str = PROGRAM) -> subprocess.CompletedProcess[str]:
    """Two epochs on two processes; what each saw lies in `folder`."""
    file = folder / "program.py"
    file.write_text(program, encoding="utf-8")
    settings = {
        "model.preset": "tiny",
        "model.vocab_size": "600",
        "data.manifest": str(manifest),
        "data.batch_rows": "8",
        "trainer.default_root_dir": str(folder / "run"),
        "trainer.max_epochs": "2",
        "trainer.precision": "32-true",
        "trainer.accelerator": "cpu",
        "trainer.devices": "2",
        "trainer.strategy": "ddp",
        "trainer.enable_progress_bar": "false",
    }
    flags = [item for name, value in settings.items() for item in (f"--{name}", value)]
    command = [sys.executable, str(file), str(folder), *flags, *more]
    processes = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
        start_new_session=True,
    )
    try:
        out, err = processes.communicate(timeout=400)
    except subprocess.TimeoutExpired:
        os.killpg(processes.pid, signal.SIGKILL)  # both, which wait for each other
        pytest.fail("the processes wait for each other")
    return subprocess.CompletedProcess(command, processes.returncode, out, err)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "more",
    [[], ["--data.balance", "label"], ["--model.fusion", "mixture"]],
    ids=["plain", "balanced", "experts"],
)
def test_two_processes_share_an_epoch_and_learn_the_same(demo_corpus: Path, tmp_path: Path, more: list[str]):
    from mmsr.data.manifest.manifest import load_manifest

    done = fit(tmp_path, demo_corpus, *more)
    assert done.returncode == 0, done.stderr[-3000:]
    train = load_manifest(demo_corpus, split="train")
    drawn = []
    for epoch in range(2):
        ranks = [json.loads((tmp_path / f"rank{rank}-epoch{epoch}.json").read_text()) for rank in range(2)]
        ids = [name for rank in ranks for name in rank["ids"]]
        drawn.append(ids)
        if "--data.balance" in more:
            assert len(ids) == len(train)
            counts = [
                sum(train["label"][train["id"].index(name)] == label for name in ids) for label in LABELS
            ]
            assert max(counts) - min(counts) <= 1
        else:
            assert sorted(ids) == sorted(train["id"]), "each row once, by one of the two"
        assert len(ranks[0]["losses"]) == len(ranks[1]["losses"])
        assert ranks[0]["losses"] != ranks[1]["losses"], "each saw its own rows"
        assert ranks[0]["weights"] == ranks[1]["weights"]
        assert ranks[0]["metrics"] == ranks[1]["metrics"]
    assert drawn[0] != drawn[1]
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("rationale_format", ["multitask", "post_thinking"])
def test_batches_that_lack_a_modality_or_rationales_are_learned_from(
    demo_corpus: Path, tmp_path: Path, rationale_format: str
):
    """Two rows at a time, of which many lack the same: one process then waits for no part of the other."""
    rows = list(csv.DictReader(demo_corpus.open(encoding="utf-8", newline="")))
    for index, row in enumerate(rows):
        row["audio"] = str(demo_corpus.parent / row["audio"])
        if index % 3:  # longer together, so that they meet in a batch
            row["audio" if index % 3 == 1 else "text"] = ""
        if index % 4:
            row["rationale"] = ""
    manifest = tmp_path / "manifest.csv"
    with manifest.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    done = fit(tmp_path, manifest, "--data.batch_rows", "2", "--model.rationale_format", rationale_format)
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"rank{rank}-epoch1.json").read_text()) for rank in range(2)]
    assert ranks[0]["weights"] == ranks[1]["weights"] and ranks[0]["metrics"] == ranks[1]["metrics"]
    assert {"train_rationale_loss", "dev_rationale_loss"} <= ranks[0]["metrics"].keys()
    assert all(math.isfinite(value) for value in ranks[0]["metrics"].values())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_have_the_gradient_of_one_with_all_rows(
    demo_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """An epoch is a step: of one batch, of a batch in each process, and of many accumulated ones."""
    rows = list(csv.DictReader(demo_corpus.open(encoding="utf-8", newline="")))
    manifest = tmp_path / "manifest.csv"
    with manifest.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for index, row in enumerate(rows):
            row |= {"audio": "", "rationale": row["rationale"] if index % 10 < 3 else ""}
            writer.writerow(row | ({} if index % 5 else {"label": ""}))
    monkeypatch.setenv("NO_DROPOUT", "1")
    found = {}
    for name, devices, batch_rows, accumulated in (("one", 1, 60, 1), ("two", 2, 60, 1), ("many", 2, 4, 99)):
        (tmp_path / name).mkdir()
        flags = {
            "model.fusion": "text_only",
            "model.class_weights": "[1, 0, 3]",
            "model.learning_rate": "1e-12",
            "data.batch_tokens": "1000000",
            "data.batch_rows": str(batch_rows),
            "trainer.devices": str(devices),
            "trainer.strategy": "auto" if devices == 1 else "ddp",
            "trainer.accumulate_grad_batches": str(accumulated),
            "trainer.max_epochs": "1",
            "trainer.gradient_clip_val": "null",
        }
        done = fit(tmp_path / name, manifest, *(word for k, v in flags.items() for word in (f"--{k}", v)))
        assert done.returncode == 0, done.stderr[-3000:]
        metrics = json.loads((tmp_path / name / "rank0-epoch0.json").read_text())["metrics"]
        found[name] = (torch.load(tmp_path / name / "gradients.pt"), metrics)
    gradients, metrics = found.pop("one")
    for name, (others, logged) in found.items():
        for weight, gradient in gradients.items():
            torch.testing.assert_close(
                others[weight], gradient, rtol=1e-3, atol=2e-5, msg=f"{name}: {weight}"
            )
        for loss in (loss for loss in metrics if loss.endswith("loss")):
            assert logged[loss] == pytest.approx(metrics[loss], rel=1e-4), f"{name}: {loss}"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_loss_that_is_not_finite_in_one_process_ends_both_and_names_its_rows(
    demo_corpus: Path, tmp_path: Path
):
    program = PROGRAM.replace(
        "        read.clear()\n",
        "        read.clear()\n"
        "        if trainer.global_rank == 1:\n"
        "            module.model.head.classifier.weight.data.fill_(float('nan'))\n",
    )
    assert program != PROGRAM
    done = fit(tmp_path, demo_corpus, program=program)
    assert done.returncode != 0
    told = re.findall(r"the loss is not finite in epoch 0, training batch 0 \(.*rows '.*'.*", done.stderr)
    assert told and "weights were not finite before it" in told[-1]


LABELS = ("negative", "neutral", "positive")

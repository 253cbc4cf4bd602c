"""What people do wrong on the command line: each ends in one line, which names the thing and the remedy."""

import json
import shlex
import shutil
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import soundfile
import torch

import mmsr
from mmsr.data.audio.segments import silero

ROWS = """id,audio,text,label,split
a,0.wav,the médecin was kind,positive,train
b,1.wav,the médecin was late,negative,train
c,0.wav,a médecin,neutral,dev
d,1.wav,fine,positive,test
"""
ABLATION = "base: fit.yaml\ngrid: {model.fusion: [gated, concat]}\nseeds: [0]\nout: runs\n"
FIT = (
    "fit --data.manifest {} --model.preset tiny --model.rationale_format none --trainer.default_root_dir run"
)
SPLIT = "data split m.csv --out s.csv --by block --shares train=.5 dev=.5"


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with the files that the mistakes are made with."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("0.wav", "1.wav"):
        noise = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
        soundfile.write(folder / name, noise * 0.1, 16_000)
    columns = [line.split(",") for line in ROWS.splitlines()]
    texts = {
        "m.csv": ROWS,
        "no_label.csv": "\n".join(",".join((*row[:3], row[4])) for row in columns),
        "no_audio.csv": ROWS.replace(".wav", ".flac"),
        "no_column.csv": "name,words\na,hello\n",
        "happy.csv": ROWS.replace("neutral", "happy"),
        "empty.csv": "",
        "notes.txt": "the doctor was kind\n",
        "file": "",
        "fit.yaml": "model: {preset: tiny}\ndata: {manifest: m.csv}\n",
        "key.yaml": "model: {preset: tiny}\ndata: {manifst: m.csv}\n",
        "tabs.yaml": "data:\n\tmanifest: m.csv\n",
        "grid.yaml": ABLATION,
        "gird.yaml": ABLATION.replace("grid", "gird"),
        "fuson.yaml": ABLATION.replace("fusion", "fuson"),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "latin1.csv").write_text(ROWS, encoding="latin-1")
    (folder / "empty.wav").touch()
    torch.save({"state_dict": {}}, folder / "last.ckpt")
    for name in ("folder", "whisper", "pickled", "cut", "run_of_fit"):
        (folder / name).mkdir()
    (folder / "whisper" / "config.json").write_text(json.dumps({"model_type": "whisper", "d_model": 8}))
    torch.save({}, folder / "pickled" / "pytorch_model.bin")
    demo = mmsr.checkpoint("demo")
    for name in ("pickled", "cut"):
        for file in demo.glob("*.json"):
            shutil.copy(file, folder / name)
    (folder / "cut" / "model.safetensors").write_bytes((demo / "model.safetensors").read_bytes()[:5000])
    shutil.copytree(demo, folder / "run_of_fit" / "model", ignore=lambda *_: ["model.safetensors"])
    return folder


MISTAKES = [
    # commands
    ("predct 0.wav", 'Unknown command "predct". Did you mean "predict"?'),
    ("train -c fit.yaml", 'Unknown command "train". Did you mean "fit"?'),
    ("0.wav", "0.wav is a file or folder, and no command; did you mean mmsr predict 0.wav?"),
    ("predict 0.wav --modle demo", "Unknown option: --modle. Did you mean --model?"),
    # recordings and words
    (
        "predict 'the doctor was kind'",
        "the doctor was kind: no such file; ... words of a transcript after --text",
    ),
    ("predict '~/0.wav'", "~/0.wav: no such file; the shell has not replaced ~, write $HOME"),
    (r"predict 'C:\clips\0.wav'", r"C:\clips\0.wav: no such file; it is written as on Windows"),
    (
        "predict https://127.0.0.1:9/a.wav",
        "https://127.0.0.1:9/a.wav: cannot be read ... accepted: a URL that",
    ),
    ("predict notes.txt --model demo", "notes.txt: holds no audio that can be read; accepted: wav, flac"),
    ("predict empty.wav --model demo", "empty.wav: is empty (0 bytes); accepted: at least one sample"),
    ("predict --audio folder", "--audio folder: a folder; accepted: an audio file"),
    ("timeline folder", "--audio folder: a folder; accepted: one file"),
    ("predict 0.wav --language english", "--language english is for a recogniser; accepted: with --asr"),
    (
        "predict 0.wav --out file/x.csv",
        "file/x.csv cannot be written, since file is a file; accepted: another",
    ),
    (
        "predict --text good --abstain-below -0.5",
        "--abstain-below -0.5; accepted: a probability, above 0, to 1",
    ),
    (
        "predict --text good --model demo --force-label happy",
        "unknown label 'happy'; accepted: negative, neutral",
    ),
    # models
    ("predict --text good --model bse", "bse: no such folder, ... did you mean base?; accepted: base, demo"),
    ("predict --text good --model folder", "folder has no config.json; accepted: a folder that `mmsr fit`"),
    (
        "predict --text good --model run_of_fit",
        "run_of_fit has no config.json; did you mean run_of_fit/model?",
    ),
    (
        "predict --text good --model whisper",
        "... it is a whisper model, and no checkpoint of mmsr ... --model.audio",
    ),
    (
        "predict --text good --model pickled",
        "pickled has pickled weights (pytorch_model.bin), which are not read",
    ),
    ("predict --text good --model cut", "checkpoint cut cannot be read (... header"),
    (
        "predict --text good --model last.ckpt",
        "last.ckpt is a checkpoint of Lightning; accepted: ... mmsr export",
    ),
    (
        "export last.ckpt --out new",
        "last.ckpt is no checkpoint of `mmsr fit` ... accepted: a .ckpt file in its",
    ),
    ("export folder --out new", "folder: a folder; accepted: a .ckpt file"),
    # manifests
    ("predict m.cvs", "m.cvs: no such file; did you mean m.csv?; accepted: audio files"),
    (
        "predict latin1.csv --model demo",
        "latin1.csv: is not UTF-8 (byte 0xe9); accepted: text saved as UTF-8",
    ),
    (
        "predict no_column.csv --model demo",
        "no_column.csv: none of audio, text, asr_text is in the file; found: name",
    ),
    (
        "evaluate no_audio.csv --model demo --out e",
        "no_audio.csv, row 2, column audio: '0.flac' does not exist",
    ),
    (
        "evaluate no_label.csv --model demo --out e",
        "no_label.csv: no row of 'test' has a label ... mmsr predict",
    ),
    ("evaluate m.csv --model demo --out file/e", "--out file/e cannot be written, since file is a file"),
    (FIT.format("empty.csv"), "empty.csv: is empty; accepted: a header and at least one row"),
    (FIT.format("folder"), "folder: is an empty folder; accepted: a manifest file (.csv"),
    (FIT.format("0.wav"), "0.wav: has the ending '.wav'; accepted: .csv"),
    (
        FIT.format("no_label.csv"),
        "monitor dev_loss is not logged: no development row has a label (column label)",
    ),
    (
        FIT.format("no_audio.csv"),
        "no_audio.csv, row 2, column audio: '0.flac' does not exist; accepted: a path",
    ),
    (
        FIT.format("happy.csv"),
        "happy.csv, row 4, column label: 'happy' is unknown; accepted: negative, neutral",
    ),
    # settings
    (
        FIT.format("m.csv") + " --model.fuson gated",
        "--model.fuson: no such setting; did you mean --model.fusion?",
    ),
    (
        FIT.format("m.csv") + " --model.fusion gatd",
        "fusion='gatd' does not exist; did you mean gated?; accepted:",
    ),
    (FIT.format("m.csv") + " --epochs 3", "--epochs: no such setting; did you mean --trainer.max_epochs?"),
    (FIT.format("m.csv") + " --lr 1e-3", "--lr: ... accepted: --model.learning_rate"),
    (FIT.format("m.csv") + " --trainer.max_epochs 0", "--trainer.max_epochs 0; accepted: 1 or more"),
    (FIT.format("m.csv") + " --trainer.devices 0", "--trainer.devices 0; accepted: auto"),
    (
        FIT.format("m.csv").replace("_dir run", "_dir file/run"),
        "--trainer.default_root_dir file/run cannot be",
    ),
    # configurations
    ("fit fit.yaml", "fit.yaml: more words than expected; accepted: -c fit.yaml"),
    ("fit -c folder", "-c folder: a folder; accepted: a YAML file"),
    ("fit -c key.yaml", "data.manifst: no such setting; did you mean data.manifest?"),
    ("fit -c tabs.yaml", "-c tabs.yaml: ... perhaps a tab where spaces belong, ... line 2"),
    ("fit -c grid.yaml", "grid.model.fusion: is of an ablation; accepted: mmsr ablate -c FILE"),
    (
        "ablate -c fit.yaml",
        "fit.yaml is a configuration of `mmsr fit`, ... To train by it: mmsr fit -c fit.yaml",
    ),
    ("ablate -c gird.yaml", "gird.yaml: 'gird' is no key; did you mean grid?"),
    ("ablate -c fuson.yaml", "fuson.yaml: ... 'model.fuson' is no setting; did you mean model.fusion?"),
]


@pytest.mark.parametrize(("typed", "said"), MISTAKES, ids=[typed[:60] for typed, _ in MISTAKES])
def test_a_mistake_is_told_in_one_line_with_its_remedy(typed, said, desk, monkeypatch, refused):
    monkeypatch.chdir(desk)
    line = refused(*shlex.split(typed))
    start, *parts = said.split("...")
    assert line.startswith(start.strip()) and all(part.strip() in line for part in parts), line
    assert len(line) < 400 and not (desk / "run" / "model").exists() and not (desk / "e").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="of machines without a GPU")
def test_a_gpu_that_is_not_there_is_refused(desk, monkeypatch, refused):
    monkeypatch.chdir(desk)
    line = refused(*FIT.format("m.csv").split(), "--trainer.accelerator", "gpu")
    assert line.startswith("--trainer.accelerator gpu: this machine has none; accepted: auto")


@pytest.mark.parametrize(
    ("module", "typed", "said"),
    [
        ("gradio", "app", "the web page needs gradio: pip install 'mmsr[app]'"),
        ("ray", "ablate -c grid.yaml --ray local", "--ray needs ray: pip install 'mmsr[ray]'"),
        (
            "onnxscript",
            "export --format onnx --model demo --out o",
            "--format onnx needs onnxscript: pip install",
        ),
        ("openpyxl", "predict 0.wav --out x.xlsx", "x.xlsx needs openpyxl: pip install 'mmsr[xlsx]'"),
        (
            "silero_vad",
            "timeline 0.wav --model demo",
            "finding speech needs silero-vad: pip install 'mmsr[seg",
        ),
        ("scipy.sparse", f"{SPLIT} --keep-texts", "--keep-texts needs scipy: pip install 'mmsr[report]'"),
        ("jsonargparse", FIT.format("m.csv"), "mmsr fit needs jsonargparse: pip install 'mmsr[train]'"),
    ],
)
def test_a_missing_package_is_told_with_its_extra(module, typed, said, desk, monkeypatch, refused):
    monkeypatch.chdir(desk)
    silero.cache_clear()  # and mmsr.training is imported as in a new process
    monkeypatch.delitem(sys.modules, "mmsr.training.run", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    line = refused(*shlex.split(typed))
    assert line.startswith(said), line


@pytest.mark.parametrize(
    ("logger", "package", "remedy"),
    [
        ("WandbLogger", "wandb", "WandbLogger needs wandb: pip install 'mmsr[loggers]'"),
        ("CometLogger", "comet_ml", "CometLogger needs comet-ml: pip install comet-ml"),
    ],
)
def test_a_logger_without_its_package_is_refused(logger, package, remedy, desk, monkeypatch, refused):
    if find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    monkeypatch.chdir(desk)
    assert refused(*FIT.format("m.csv").split(), "--trainer.logger", logger) == remedy

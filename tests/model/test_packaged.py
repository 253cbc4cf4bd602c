"""The checkpoints in the box: whole, described, and one line answers with them, offline, from anywhere."""

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModel

import mmsr
from mmsr.data.audio.decoding import Audio
from mmsr.model.card import is_generated
from mmsr.model.outliers import OUTLIER_REASONS
from mmsr.model.packaged import FOLDER

ROOT = Path(__file__).resolve().parents[2]

# A process of its own: the network is gone, and the folder is another.
OFFLINE = """
import socket
import sys

def refuse(*args, **kwargs):
    raise AssertionError("the network was asked")

socket.socket.connect = socket.getaddrinfo = refuse
"""
DEFAULT_MODEL = """
import mmsr
import torch
from transformers import pipeline

pipe = pipeline("sentiment-reasoning")
assert {weight.dtype for weight in pipe.model.parameters()} == {torch.float32}
given = mmsr.MmsrForSentimentReasoning.from_pretrained(mmsr.checkpoint("base")).state_dict()
assert all(torch.equal(weight, given[name]) for name, weight in pipe.model.state_dict().items())
said = {"text": "thank you so much, the doctor was so kind"}
first, second = pipe(said), mmsr.load_pipeline()(said)
assert first == second and first["label"] == "positive", (first, second)
heavy = {"sklearn", "lightning", "librosa", "timm", "datasets", "mmsr.evaluation.metrics"} & set(sys.modules)
assert not heavy, f"an answer brought {heavy}"
"""


CALLED_DEMO = """
import mmsr
import torch

pipe = mmsr.load_pipeline("demo")
assert {weight.dtype for weight in pipe.model.state_dict().values()} == {torch.float32}
assert pipe({"text": "thank you so much, the doctor was so kind"})["rationale"]
"""

# One everyday sentence in each language of `base`, and a language that it does not know.
KNOWN = {
    "en": "I am so happy, thank you!",
    "vi": "Hôm nay tôi rất vui, cảm ơn bác sĩ nhiều lắm.",
    "zh": "我今天很高兴，谢谢医生的帮助。",
    "de": "Ich bin heute sehr froh, vielen Dank für Ihre Hilfe.",
    "fr": "Je suis très contente aujourd'hui, merci pour votre aide.",
}
SPANISH = "La enfermera llegó tarde y nadie nos explicó lo que pasaba."


def test_demo_is_small_and_half_precise():
    folder = mmsr.checkpoint("demo")
    assert folder.is_absolute() and folder.name == "demo"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 5.5e6
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F16"}  # noqa: SIM118
    assert json.loads((folder / "config.json").read_text("utf-8"))["dtype"] == "float32"


def test_the_card_of_demo_says_where_it_comes_from():
    folder = mmsr.checkpoint("demo")
    facts = json.loads((folder / "checkpoint.json").read_text("utf-8"))
    card = (folder / "README.md").read_text("utf-8")
    assert not is_generated(folder / "README.md")
    told = " ".join(card.split())
    assert "synthetic voices" in told and "not for use on patients" in told
    for said in (facts["data_fingerprint"], facts["trained_by"], f"seed {facts['seed']}", facts["stored_as"]):
        assert said in card
    assert f"{facts['test']['audio+text']['macro_f1']:.3f}" in card
    assert facts["agreement"]["label"] == facts["agreement"]["rationale"] == 1
    assert facts["agreement"]["n"] == facts["test"]["audio+text"]["n"] == 480


def test_demo_is_calibrated_and_its_card_says_what_that_does():
    folder = mmsr.checkpoint("demo")
    found = json.loads((folder / "checkpoint.json").read_text("utf-8"))["calibration"]
    temperature = json.loads((folder / "config.json").read_text("utf-8"))["temperature"]
    assert temperature == found["temperature"] == found["after"]["temperature"] != 1
    assert found["before"]["temperature"] == 1
    assert all(found["after"][name] < found["before"][name] for name in ("ece", "nll", "brier"))
    card = (folder / "README.md").read_text("utf-8")
    for one in (found["before"], found["after"]):
        assert "| {temperature:.3f} | {ece:.3f} | {nll:.3f} | {brier:.3f} |".format(**one) in card


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(ValueError, match=r"no packaged checkpoint is called 'x'; accepted: base, demo$"):
        mmsr.checkpoint("x")
    with pytest.raises(ValueError, match="nemo: no such folder, and no packaged .* accepted: base, demo$"):
        mmsr.load_pipeline("nemo")


def test_a_checkpoint_in_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "config.json").write_text("{")
    with pytest.raises(ValueError, match="checkpoint demo cannot be read"):
        mmsr.load_pipeline("demo")


@pytest.mark.parametrize("code", [DEFAULT_MODEL, CALLED_DEMO], ids=["base", "demo"])
def test_one_line_answers_from_anywhere_without_network(code, tmp_path, run_afresh):
    done = run_afresh(OFFLINE + code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["base", "demo"])
def test_the_wheel_carries_it(name):
    """As the build rules say: what is in the package's folder and not ignored by git."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]
    assert "/mmsr" in build["wheel"]["include"] and "exclude" not in build["wheel"]
    names = {file.name for file in mmsr.checkpoint(name).iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "checkpoint.json"} <= names
    files = [*mmsr.checkpoint(name).iterdir(), ROOT / "mmsr" / "inference" / "answer.html.jinja"]
    ignored = subprocess.run(
        ["git", "check-ignore", *map(str, files)], cwd=ROOT, capture_output=True, text=True
    )
    if ignored.returncode == 128:
        pytest.skip("not a git checkout")
    assert ignored.stdout == ""


# ---------------------------------------------------------------------- base


@pytest.fixture(scope="module")
def base():
    return mmsr.load_pipeline("base", device="cpu")


def test_base_is_at_most_45_mb():
    folder = mmsr.checkpoint("base")
    assert folder == FOLDER / "base" and folder.is_absolute()
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 45e6


def test_base_loads_as_a_transformers_model(base):
    model = AutoModel.from_pretrained(mmsr.checkpoint("base"))
    assert type(model) is mmsr.MmsrForSentimentReasoning and not model.training
    given = base.model.state_dict()
    assert all(torch.equal(weight, given[name]) for name, weight in model.state_dict().items())


def test_base_is_the_default(base):
    given = str(mmsr.checkpoint("base"))
    assert mmsr.load_pipeline().model.name_or_path == base.model.name_or_path == given


def test_base_names_its_evidence(base):
    assert list(base.model.config.labels) == ["negative", "neutral", "positive"]
    assert base.model.decoder is None and base.model.config.rationale_format == "none"
    answer = base({"text": KNOWN["en"]}, alternatives=True)
    assert answer["rationale"] == 'words of gratitude: "happy, thank you"' and answer["voice"] is None
    assert answer["alternatives"].keys() == {"negative", "neutral"}


@pytest.mark.parametrize("language", KNOWN)
def test_base_quotes_words_in_each_language(base, language):
    answer = base({"text": KNOWN[language]})
    assert answer["grounded"] and len(answer["evidence"]) == 1
    said = json.loads((ROOT / "mmsr/inference/phrases.json").read_text("utf-8"))[language]["text"].values()
    assert any(answer["rationale"].startswith(phrase) for phrase in said)


def test_base_calls_a_voice_the_same_beside_any_text(base):
    angry = str(ROOT / "mmsr/examples/people/anger.mp3")
    answers = [base({"audio": angry, "text": text}) for text in (None, KNOWN["en"], "It's eleven o'clock.")]
    assert all(answer["rationale"].endswith("an angry voice") for answer in answers)


@pytest.mark.parametrize("language", KNOWN)
def test_base_answers_text_in_its_languages(base, language):
    answer = base({"text": KNOWN[language]})
    assert answer["label"] in base.model.config.labels and sum(answer["scores"].values()) == pytest.approx(1)
    assert answer["outliers"] == [] and not answer["abstained"]


@pytest.mark.parametrize(
    ("text", "label"),
    [("I am so happy, thank you!", "positive"), ("This is terrible and I hate it.", "negative")],
)
def test_base_knows_a_clear_case(base, text, label):
    answer = base({"text": text})
    assert answer["label"] == label and answer["score"] == max(answer["scores"].values())


def test_base_answers_a_waveform(base):
    wave = Audio(16_000)(ROOT / "mmsr" / "examples" / "en.mp3")
    alone = base((wave, 16_000))
    assert sum(alone["scores"].values()) == pytest.approx(1) and set(alone["outliers"]) <= {"audio"}
    both = base({"audio": wave, "text": KNOWN["en"]})
    assert both["label"] in base.model.config.labels and not both["abstained"]


@pytest.mark.parametrize(
    ("given", "outlier"),
    [({"audio": np.zeros(32_000, dtype=np.float32)}, "audio"), ({"text": SPANISH}, "text")],
)
def test_base_abstains_from_what_it_does_not_know(base, given, outlier):
    answer = base(given)
    assert answer["abstained"] and answer["outliers"] == [outlier]
    assert answer["abstained_because"] == OUTLIER_REASONS[outlier]


def test_base_leaves_silence_beside_words_out(base):
    silence = np.zeros(32_000, dtype=np.float32)
    answer = base({"audio": silence, "text": KNOWN["en"]})
    assert answer["outliers"] == ["audio"] and not answer["abstained"]
    assert answer["scores"] == pytest.approx(base({"text": KNOWN["en"]})["scores"], abs=1e-4)


def test_the_first_answers_of_the_readme_are_bases() -> None:
    """On another machine the last digit may differ; label and rationale do not."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```\n(\$ mmsr predict .*?)```", readme, re.DOTALL)
    assert block is not None
    explain = mmsr.load_pipeline("base")
    commands = re.findall(r"\$ (.+)\n((?:  .+\n)+)", block[1])
    assert len(commands) == 2
    for command, said in commands:
        words = shlex.split(command)
        text = words[words.index("--text") + 1]
        given = {"text": text} | ({"audio": str(ROOT / words[2])} if words[2] != "--text" else {})
        answer = explain(given)
        label, score, rationale = re.search(r"label: (\w+) \((.+)\)\n.*\n  rationale: (.+)\n", said).groups()
        assert (answer["label"], answer["rationale"]) == (label, rationale)
        assert answer["score"] == pytest.approx(float(score), abs=0.02)


def test_the_people_of_the_examples_have_what_their_readme_says() -> None:
    folder = ROOT / "mmsr" / "examples" / "people"
    told = (folder / "README.md").read_text(encoding="utf-8")
    listed = json.loads((folder / "examples.json").read_text(encoding="utf-8"))
    assert {one["emotion"] for one in listed} == {"anger", "happiness", "sadness", "neutral"}
    for one in listed:
        assert f"| {one['audio']} |" in told and mmsr.Audio.duration(folder / one["audio"]) < 4
    for term in ("re-synthesised", "Open Database License", "Database Contents License", "CREMA-D"):
        assert term in told
    assert "mmsr/examples/people" in (ROOT / "NOTICE").read_text(encoding="utf-8")

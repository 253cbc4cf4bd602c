"""The file of a language model: paths beside it, defaults, and what is refused with file and setting."""

from pathlib import Path

import pytest
import yaml

from mmsr.inference.language_models.prompt import Prompt
from mmsr.inference.language_models.settings import LanguageModelSettings

FOLDER = Path(__file__).resolve().parents[3] / "experiments/sentiment_reasoning"
EXPERIMENTS = [  # the other files there are of `mmsr fit` and `mmsr ablate`
    path
    for path in sorted(FOLDER.glob("*.yaml"))
    if isinstance(yaml.safe_load(path.read_text(encoding="utf-8")).get("model"), str)
]


def written(folder: Path, content: str) -> Path:
    (folder / "llm.yaml").write_text(content, encoding="utf-8")
    return folder / "llm.yaml"


def test_paths_are_beside_the_file_and_other_names_stay(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "own.jinja").touch()
    content = "model: weights\nprompt: own.jinja\nexamples: {choose: nearest, encoder: owner/e5, number: 2}\n"
    settings = LanguageModelSettings.from_file(written(tmp_path, content))
    assert settings.model == str(tmp_path / "weights") and settings.prompt == str(tmp_path / "own.jinja")
    assert settings.examples.encoder == "owner/e5" and settings.examples.number == 2
    assert settings.reads == "likelihood" and settings.name == "weights" and not settings.is_served
    served = "model: http://localhost:8000/v1\nserved_name: owner/name\nlabels: [joy, anger]\n"
    settings = LanguageModelSettings.from_file(written(tmp_path, served))
    assert (
        settings.reads == "parsed" and settings.name == "owner/name" and settings.labels == ["joy", "anger"]
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[a]", r"holds \['a'\]; accepted: keys model, served_name"),
        ("model: m\nmax_token: 3", "key 'max_token'; accepted: max_tokens?"),
        ("prompt: zero_shot", "no key model; accepted: a folder, a Hub id"),
        ("model: m\nread: guess", "read 'guess'; accepted: likelihood, constrained, parsed, logprobs"),
        ("model: m\nread: logprobs", "read logprobs of a local model; accepted: likelihood, constrained"),
        ("model: http://h/v1\nserved_name: n\nread: likelihood", "of a server; accepted: parsed, logprobs"),
        ("model: http://h/v1", "model http://h/v1 is a server; accepted: with served_name"),
        ("model: m\nserved_name: n", "served_name with model m; accepted: with a server's http address"),
        ("model: m\nlabels: [good, Good]", "labels .* accepted: two or more different ones"),
        ("model: m\nlabels: [yes, no]", "labels .* accepted: a list"),
        ("model: m\nfallback: sad", "fallback 'sad'; accepted: negative, neutral, positive"),
        ("model: m\nmax_tokens: many", "max_tokens 'many'; accepted: a whole number"),
        ("model: m\naudio: 1", "audio 1; accepted: true or false"),
        ("model: m\nrationale_format: cot", "'cot'; accepted: none, post_thinking, pre_thinking"),
        ("model: m\nexamples: 3", "holds 3; accepted: keys choose, number"),
        ("model: m\nexamples: {choose: nearest}", "encoder None with choose: nearest; accepted: an encoder"),
        ("model: m\nexamples: {number: 0}", "number 0; accepted: 1 or more"),
        ("model: [", "is no YAML"),
    ],
)
def test_a_faulty_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"llm\.yaml:? .*" + message.replace("?", r"\?")):
        LanguageModelSettings.from_file(written(tmp_path, content))


def test_there_are_files_to_begin_with() -> None:
    assert len(EXPERIMENTS) >= 6


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_each_experiment_is_accepted_with_its_prompt(path: Path) -> None:
    settings = LanguageModelSettings.from_file(path)
    prompt = Prompt.open(settings.prompt)
    assert prompt.shows_examples or settings.examples.choose == "none"
    assert settings.rationale_format == (
        "pre_thinking" if path.stem == "chain_of_thought" else "post_thinking"
    )


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.yaml: no such file; accepted: the YAML file"):
        LanguageModelSettings.from_file(tmp_path / "none.yaml")

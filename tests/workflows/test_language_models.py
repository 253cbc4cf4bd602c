"""A language model in the tables of checkpoints: conditions, controls, costs, and what is refused."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmsr.cli.main import main
from mmsr.data.manifest.manifest import load_manifest
from mmsr.inference.language_models.settings import LanguageModelSettings
from mmsr.workflows.language_models import evaluate_language_model
from mmsr.workflows.settings import Measures, Rows


def written(path: Path, **settings: Any) -> Path:
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def test_the_command_fills_the_tables_of_a_checkpoint(
    demo_corpus: Path, language_model: Path, tmp_path: Path, results: Callable[[Path], dict[str, Any]], capsys
) -> None:
    examples = {"choose": "random", "number": 2}
    file = written(
        tmp_path / "llm.yaml",
        model=str(language_model),
        prompt="few_shot",
        rationale_format="post_thinking",
        max_tokens=4,
        examples=examples,
    )
    command = ["evaluate", str(demo_corpus), "--model", str(file), "--out", str(tmp_path / "run")]
    main([*command, "--batch-size", "8", "--examples", "2"])
    printed = capsys.readouterr()
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text("utf-8"))
    test = metrics["test"]
    assert set(test) == {"text", "asr", "baselines"}, "a model that hears nothing reads transcripts"
    assert {"majority", "tfidf", "constant_rationale"} <= set(test["baselines"])
    entry = test["text"]
    assert entry["n"] == 12 and entry["calibration"]["n"] == 12 and "rougeL" in entry
    assert entry["usage"]["requests"] == 12 and entry["usage"]["generated_tokens"] > 0
    assert "12 requests" in printed.err and "\n| condition | n |" in printed.out
    known = metrics["language_model"]
    assert known["examples"] == {**examples, "seed": 0, "encoder": None, "prefix": "", "column": "text"}
    assert len(known["prompt_digest"]) == 16 and known["identity"]["weights"] and known["temperature"] == 0
    lines = (tmp_path / "run" / "predictions.jsonl").read_text("utf-8").splitlines()
    predictions = [json.loads(line) for line in lines]
    assert entry["usage"]["prompt_tokens"] == sum(
        row["usage"]["prompt_tokens"] for row in predictions if row["condition"] == "text"
    )
    report = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "Cost of the language model" in report and "generated tokens" in report

    before = results(tmp_path / "run")
    main([*command, "--batch-size", "3", "--examples", "2"])
    assert results(tmp_path / "run") == before
    assert "0 requests asked" in capsys.readouterr().err

    checkpoint = ["evaluate", str(demo_corpus), "--model", "demo", "--conditions", "text", "--examples", "0"]
    main([*checkpoint, "--out", str(tmp_path / "demo")])
    main(["compare", str(tmp_path / "run"), f"{tmp_path / 'demo'}:text", "--json", "--resamples", "200"])
    compared = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert compared["metric"] == "macro_f1" and len(compared["interval"]) == 2


def test_another_rows_audio_changes_the_request(demo_corpus: Path, chat_server: Any, tmp_path: Path) -> None:
    chat_server.respond = lambda body: chat_server.completion("Label: positive")
    settings = LanguageModelSettings(model=chat_server.address, served_name="m", audio=True)
    measures = Measures(conditions=["audio+text", "shuffled_audio"])
    asked: dict[str, list[str]] = {}

    def note(condition: str, done: int, total: int) -> None:
        asked.setdefault(condition, [json.dumps(body["messages"]) for body in chat_server.bodies])
        chat_server.bodies.clear()

    rows = Rows(demo_corpus)
    options: dict[str, Any] = {"measures": measures, "examples": 0, "batch_size": 32}
    evaluation = evaluate_language_model(settings, rows, tmp_path / "run", progress=note, **options)
    own, shuffled = (asked[name] for name in measures.conditions or ())
    assert len(own) == len(shuffled) == 12 and not set(own) & set(shuffled)

    def words(requests: list[str]) -> list[str]:
        return sorted(json.loads(one)[-1]["content"][1]["text"] for one in requests)

    assert words(own) == words(shuffled)
    assert set(evaluation.conditions) == {"audio+text", "shuffled_audio"}


def test_unparsable_answers_are_counted_and_lower_the_score(
    demo_corpus: Path, chat_server: Any, tmp_path: Path
) -> None:
    rows = [row for row in load_manifest(demo_corpus).to_list() if row["split"] == "test"]
    texts = {row["text"]: row["label"] for row in rows}

    def respond(body: dict[str, Any]) -> tuple[int, Any]:
        (text,) = [text for text in texts if f"Transcript: {text}" in body["messages"][-1]["content"]]
        named = text != rows[0]["text"]
        return chat_server.completion(f"Label: {texts[text]}" if named else "Who knows?")

    chat_server.respond = respond
    wrong = next(label for label in ("positive", "negative") if label != rows[0]["label"])
    settings = LanguageModelSettings(model=chat_server.address, served_name="m", fallback=wrong)
    evaluation = evaluate_language_model(
        settings, Rows(demo_corpus), tmp_path / "run", measures=Measures(conditions=["text"])
    )
    entry = evaluation.conditions["text"]
    unparsable = sum(row["text"] == rows[0]["text"] for row in rows)
    assert entry["unparsable"] == unparsable and entry["accuracy"] == pytest.approx(1 - unparsable / 12)
    assert "calibration" not in entry, "an answer without probabilities has none"
    report = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert f"answers that name no label; they count as {wrong}" in report
    assert any(f", {unparsable} unparsable" in line for line in evaluation.notes())


def test_examples_are_training_rows_whatever_is_evaluated(
    demo_corpus: Path, chat_server: Any, tmp_path: Path
) -> None:
    chat_server.respond = lambda body: chat_server.completion("Label: positive")
    rows = load_manifest(demo_corpus).to_list()
    allowed = {row["text"] for row in rows if row["split"] == "train"}
    others = {row["text"] for row in rows if row["split"] != "train"} - allowed
    settings = {
        "model": chat_server.address,
        "served_name": "m",
        "prompt": "few_shot",
        "examples": {"choose": "random", "number": 5},
    }
    file = written(tmp_path / "llm.yaml", **settings)
    measures = Measures(conditions=["text"])
    evaluate_language_model(file, Rows(demo_corpus), tmp_path / "run", measures=measures, examples=0)
    for body in chat_server.bodies:
        *shown, own = body["messages"][-1]["content"].split("Transcript: ")[1:]
        assert len(shown) == 5 and own.strip() in others | allowed
        assert all(part.split("\nLabel:")[0] in allowed for part in shown)
    with pytest.raises(ValueError, match="examples: 0 training rows have label, text and are not evaluated"):
        whole = Rows(demo_corpus, split="train")
        evaluate_language_model(file, whole, tmp_path / "train", measures=measures)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--conditions", "audio+text"], "the model hears nothing (audio: false); accepted: text, asr"),
        (["--num-beams", "4"], "--num-beams 4 with a language model; accepted: 1"),
        (["--conformal", "0.9"], "--conformal needs probabilities, and read: parsed"),
        ([], "accepted: a folder or Hub id of a causal language model"),
        (["--model", "none.yaml"], "none.yaml: no such file; accepted: the YAML file"),
    ],
)
def test_what_a_model_does_not_read_is_refused(
    demo_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    file = written(tmp_path / "llm.yaml", model=str(tmp_path / "none"), read="parsed")
    command = ["evaluate", str(demo_corpus), "--out", str(tmp_path / "run")]
    model = [] if "--model" in more else ["--model", str(file)]
    with pytest.raises(SystemExit) as stop:
        main([*command, *model, *more])
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_label_sets_of_a_language_model(demo_corpus: Path, language_model: Path, tmp_path: Path) -> None:
    settings = LanguageModelSettings(model=str(language_model))
    measures = Measures(conditions=["text"], conformal=0.8)
    evaluation = evaluate_language_model(
        settings, Rows(demo_corpus), tmp_path / "run", measures=measures, examples=0
    )
    assert evaluation.conditions["text"]["conformal"]["asked"] == 0.8


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(demo_corpus: Path, chat_server: Any, tmp_path: Path) -> None:
    killed = threading.Event()

    def respond(body: dict[str, Any]) -> tuple[int, Any]:
        if len(chat_server.bodies) > 6:
            killed.wait(60)
        return chat_server.completion("Label: positive")

    chat_server.respond = respond
    file = written(tmp_path / "llm.yaml", model=chat_server.address, served_name="m")
    command = ["evaluate", str(demo_corpus), "--model", str(file), "--out", str(tmp_path / "run")]
    command += ["--conditions", "text", "--examples", "0", "--batch-size", "1"]
    process = subprocess.Popen([sys.executable, "-m", "mmsr", *command], stderr=subprocess.DEVNULL)
    try:
        while len(chat_server.bodies) < 7:
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        killed.set()
    chat_server.bodies.clear()
    chat_server.respond = lambda body: chat_server.completion("Label: positive")
    main(command)
    rows = [row["text"] for row in load_manifest(demo_corpus).to_list() if row["split"] == "test"]
    assert len(chat_server.bodies) == len(set(rows)) - 6

"""A server of chat completions, for which a function on this machine stands in."""

import base64
import io
import math
from typing import Any

import numpy as np
import pytest
import soundfile

from mmsr.inference.language_models.prompt import Layout, Message
from mmsr.inference.language_models.requests import Reply, Request, Task
from mmsr.inference.language_models.server import ServedModel
from mmsr.inference.language_models.settings import LanguageModelSettings

LABELS = ("negative", "neutral", "positive")
PARSED = Task(Layout(LABELS, "post_thinking"), "parsed", 40)
REQUESTS = [Request(Message("Judge.", f"text {i}")) for i in range(5)]


def opened(address: str, **settings: Any) -> ServedModel:
    given = LanguageModelSettings(model=address, served_name="owner/model", **settings)
    return ServedModel(given, batch_size=3, wait=0.01)


def replies(model: ServedModel, task: Task = PARSED, requests: list[Request] = REQUESTS) -> list[Reply]:
    return [reply for _, reply in sorted(model.answer(requests, task), key=lambda item: item[0])]


def test_requests_are_asked_and_their_text_is_read(chat_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def respond(body: dict[str, Any]) -> tuple[int, Any]:
        number = int(body["messages"][-1]["content"].split()[-1])
        text = f"Label: {LABELS[number % 3]}\nRationale: because {number}" if number < 4 else "I cannot say"
        return chat_server.completion(text)

    chat_server.respond = respond
    monkeypatch.setenv("SOME_KEY", "secret-17")
    model = opened(chat_server.address, api_key_variable="SOME_KEY", template={"enable_thinking": False})
    found = replies(model)
    assert [reply.label for reply in found] == ["negative", "neutral", "positive", "negative", None]
    assert [reply.rationale for reply in found] == [*(f"because {i}" for i in range(4)), None]
    assert found[4].text == "I cannot say" and found[0].scores == {}
    usage = dict(found[0].usage)
    assert usage.pop("seconds") > 0 and usage == {"prompt_tokens": 11, "generated_tokens": 3}
    body = chat_server.bodies[0]
    assert body["model"] == "owner/model" and body["temperature"] == 0 and body["max_tokens"] == 40
    assert body["messages"][0] == {"role": "system", "content": "Judge."} and "logprobs" not in body
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert set(chat_server.keys) == {"Bearer secret-17"} and "secret-17" not in str(model.identity)


def test_a_recording_is_sent_as_a_file(chat_server: Any) -> None:
    wave = np.sin(np.arange(8000) / 20).astype(np.float32)
    replies(opened(chat_server.address, audio=True), requests=[Request(Message("", "Listen."), wave)])
    (message,) = chat_server.bodies[0]["messages"]
    sound, words = message["content"]
    assert words == {"type": "text", "text": "Listen."} and sound["type"] == "input_audio"
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sound["input_audio"]["data"])))
    assert rate == 16000 and samples == pytest.approx(wave, abs=1e-3)


def tokens(*texts: str, **tops: dict[str, float]) -> dict[str, Any]:
    """Logprobs of a text's tokens; `tops` are the likeliest at the place of their number, `at2={…}`."""
    content = []
    for i, text in enumerate(texts):
        top = tops.get(f"at{i}", {text: 1.0})
        listed = [{"token": token, "logprob": math.log(p)} for token, p in top.items()]
        content.append({"token": text, "logprob": math.log(top[text]), "top_logprobs": listed})
    return {"logprobs": {"content": content}}


def test_logprobs_of_the_labels_first_token_are_its_probabilities(chat_server: Any) -> None:
    task = Task(Layout(LABELS), "logprobs", 40)
    top = {" pos": 0.5, " Positive": 0.1, " neg": 0.2, " happy": 0.1, " ne": 0.05, " the": 0.01}
    given = tokens("Label", ":", " pos", "itive", at2=top)
    chat_server.respond = lambda body: chat_server.completion("Label: positive", **given)
    (found,) = replies(opened(chat_server.address), task, REQUESTS[:1])
    assert chat_server.bodies[0]["logprobs"] is True and chat_server.bodies[0]["top_logprobs"] == 20
    # neutral is not listed: it has the least that is; " ne" begins two labels, and counts for none
    expected = {"negative": 0.2 / 0.81, "neutral": 0.01 / 0.81, "positive": 0.6 / 0.81}
    assert found.label == "positive" and found.scores == pytest.approx(expected)

    given = tokens("Label", ":", " ne", "gative", at2=top)
    chat_server.respond = lambda body: chat_server.completion("Label: negative", **given)
    (found,) = replies(opened(chat_server.address), task, REQUESTS[:1])
    assert found.label == "negative" and found.scores == {}
    chat_server.respond = lambda body: chat_server.completion("Label: neutral")
    with pytest.raises(ValueError, match=r"gives no logprobs; accepted: read: parsed"):
        replies(opened(chat_server.address), task)


def test_a_busy_server_is_asked_again_and_a_refusal_ends(chat_server: Any) -> None:
    busy = iter([(503, {}), (429, {})])
    chat_server.respond = lambda body: next(busy, None) or chat_server.completion("Label: neutral")
    (found,) = replies(opened(chat_server.address), requests=REQUESTS[:1])
    assert found.label == "neutral" and len(chat_server.bodies) == 3
    chat_server.respond = lambda body: (400, {"error": "no such model"})
    with pytest.raises(ValueError, match=r"/v1/chat/completions answers 400: .*no such model.*"):
        replies(opened(chat_server.address), requests=REQUESTS[:1])
    assert len(chat_server.bodies) == 4
    chat_server.respond = lambda body: (200, {"text": "old"})
    with pytest.raises(ValueError, match="no chat completion, but"):
        replies(opened(chat_server.address), requests=REQUESTS[:1])
    with pytest.raises(ValueError, match=r"http://127\.0\.0\.1:9/v1/chat/completions cannot be reached"):
        replies(opened("http://127.0.0.1:9/v1"), requests=REQUESTS[:1])


def test_a_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(ValueError, match=r"api_key_variable SOME_KEY is not set; accepted: export SOME_KEY="):
        opened("http://127.0.0.1:9/v1", api_key_variable="SOME_KEY")

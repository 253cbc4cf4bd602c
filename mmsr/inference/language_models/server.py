"""A server of chat completions, as vLLM, llama.cpp, and services with OpenAI's interface are.

Its weights are not known here: the answers of an address and a name are taken to stay the same.
"""

from __future__ import annotations

import base64
import io
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

from mmsr.inference.language_models.prompt import Parsed
from mmsr.inference.language_models.requests import Reply, Request, Task
from mmsr.inference.language_models.settings import MOST_LOGPROBS, LanguageModelSettings
from mmsr.records import SAMPLE_RATE

if TYPE_CHECKING:
    import httpx

_TRIES = 5
_BUSY = (408, 409, 425, 429, 500, 502, 503, 504)  # answers that another try may better


class ServedModel:
    """A model at an address.

    Args:
        settings: The address and its options.
        batch_size: Requests at a time.
        wait: Seconds before the second try of a request; each further one waits twice as long.

    Attributes:
        identity: Address, name and options, on which its answers depend.

    Raises:
        ValueError: The environment lacks the variable of the key.
    """

    def __init__(self, settings: LanguageModelSettings, *, batch_size: int = 32, wait: float = 1.0) -> None:
        variable = settings.api_key_variable
        if variable is not None and not os.environ.get(variable):
            raise ValueError(f"api_key_variable {variable} is not set; accepted: export {variable}=...")
        self._key = None if variable is None else os.environ[variable]
        self._address = settings.model.rstrip("/")
        self._name = str(settings.served_name)
        self._timeout, self._batch_size, self._wait = settings.timeout, batch_size, wait
        self._options: dict[str, Any] = (
            {"chat_template_kwargs": dict(settings.template)} if settings.template else {}
        )
        self.identity: Mapping[str, Any] = {"address": self._address, "name": self._name, **self._options}

    def answer(self, requests: Sequence[Request], task: Task) -> Iterator[tuple[int, Reply]]:
        """Answer requests, several at a time, in the order in which the server does.

        Raises:
            ValueError: The server cannot be reached, or refuses a request; told when what was on its way is
                answered.
        """
        import httpx

        headers = {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
        fault: Exception | None = None
        with (
            httpx.Client(headers=headers, timeout=self._timeout) as client,
            ThreadPoolExecutor(self._batch_size) as pool,
        ):
            asked = {pool.submit(self._ask, client, request, task): i for i, request in enumerate(requests)}
            try:
                for done in as_completed(asked):
                    if done.cancelled():
                        continue
                    try:
                        reply = done.result()
                    except Exception as error:  # what is on its way is still waited for, and kept
                        fault = fault or error
                        _cancel(asked)
                        continue
                    yield asked[done], reply
            finally:
                _cancel(asked)
        if fault is not None:
            raise fault

    def _ask(self, client: httpx.Client, request: Request, task: Task) -> Reply:
        """Send one request, and read the reply."""
        body = {
            "model": self._name,
            "messages": _messages(request),
            "max_tokens": task.max_tokens,
            "temperature": 0,
            **self._options,
        }
        if task.read == "logprobs":
            body |= {"logprobs": True, "top_logprobs": MOST_LOGPROBS}
        started = time.perf_counter()
        content = self._post(client, body)
        seconds = round(time.perf_counter() - started, 6)
        try:
            choice = content["choices"][0]
            text = choice["message"]["content"] or ""
        except (KeyError, IndexError, TypeError):
            raise ValueError(f"{self._address}: no chat completion, but {str(content)[:200]!r}") from None
        found = task.layout.parse(text)
        scores: dict[str, float] = {}
        if task.read == "logprobs":
            tokens = (choice.get("logprobs") or {}).get("content")
            if not tokens:
                raise ValueError(
                    f"{self._address} gives no logprobs; accepted: read: parsed, or a server that gives them"
                )
            scores = _scores(tokens, found, task.layout.labels)
        known = content.get("usage") or {}
        counts = {"prompt_tokens": "prompt_tokens", "generated_tokens": "completion_tokens"}
        usage = {name: int(known[theirs]) for name, theirs in counts.items() if theirs in known}
        return Reply(
            text=text,
            label=found.label,
            scores=scores,
            rationale=found.rationale,
            usage={**usage, "seconds": seconds},
        )

    def _post(self, client: httpx.Client, body: Mapping[str, Any]) -> Any:
        """Send a body, again where the server is busy or the line broke."""
        import httpx

        address = f"{self._address}/chat/completions"
        for tried in range(1, _TRIES + 1):
            wait = self._wait * 2 ** (tried - 1)
            try:
                answer = client.post(address, json=body)
                if answer.is_success:
                    return answer.json()
                fault = f"answers {answer.status_code}: {' '.join(answer.text.split())[:200]}"
                if answer.status_code not in _BUSY:
                    break
                after = answer.headers.get("Retry-After", "")
                wait = float(after) if after.isdigit() else wait
            except httpx.TransportError as error:
                fault = f"cannot be reached ({error or type(error).__name__})"
            except ValueError as error:
                raise ValueError(f"{address} gives no JSON ({error})") from error
            if tried < _TRIES:
                time.sleep(wait)
        raise ValueError(f"{address} {fault}; accepted: a server of chat completions that has {self._name}")


def _cancel(asked: Iterable[Future[Reply]]) -> None:
    """Cancel what has not begun."""
    for waiting in asked:
        waiting.cancel()


def _messages(request: Request) -> list[dict[str, Any]]:
    """The messages of a request; a recording is sent as a WAV file."""
    system, user = request.message
    content: Any = user
    if request.audio is not None:
        data = base64.b64encode(_wav(request)).decode()
        content = [
            {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}},
            {"type": "text", "text": user},
        ]
    pairs = [("system", system), ("user", content)]
    return [{"role": role, "content": content} for role, content in pairs if content]


def _wav(request: Request) -> bytes:
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, request.samples(SAMPLE_RATE), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def _scores(tokens: Sequence[Mapping[str, Any]], found: Parsed, labels: Sequence[str]) -> dict[str, float]:
    """Probabilities of labels from the server's most likely tokens where the label begins.

    A token counts for a label that it is the beginning of. A label without one gets the least probability in
    the list, which is the most that it can have.

    Returns:
        The probabilities; none where the text names no label, or its token begins two of them.
    """
    if found.start is None:
        return {}
    end = 0
    for token in tokens:
        end += len(token["token"])
        if end > found.start:
            break
    else:
        return {}
    begun = [label for label in labels if _begins(token["token"], label)]
    if begun != [found.label]:
        return {}
    known = {str(one["token"]): math.exp(one["logprob"]) for one in [*token["top_logprobs"], token]}
    mass = dict.fromkeys(labels, 0.0)
    for text, probability in known.items():
        named = [label for label in labels if _begins(text, label)]
        if len(named) == 1:
            mass[named[0]] += probability
    least = min(known.values())
    mass = {label: value or least for label, value in mass.items()}
    total = sum(mass.values())
    return {label: value / total for label, value in mass.items()}


def _begins(token: str, label: str) -> bool:
    """Whether a token is a label's beginning, or the label with what follows it."""
    text, whole = token.strip(" *\n").casefold(), label.casefold()
    return bool(text) and (whole.startswith(text) or text.startswith(whole))

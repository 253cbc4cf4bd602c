"""A causal language model of transformers on this machine, or an audio language model.

message ─► chat template (or plain text) ─► tokens, with audio placeholders ─► label, rationale

What is read from the model, with the lines of an answer (`prompt.Layout`) begun for it:

    likelihood   log p(tokens of each label | prompt, "Label:"), softmax over labels
    constrained  greedy decoding after "Label:" in which only the labels' tokens are allowed
    parsed       greedy decoding of the whole answer

Notation of shapes: b requests, t tokens, v vocabulary.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jinja2 import TemplateError

from mmsr.data.storage import digest
from mmsr.inference.language_models.prompt import LABEL, RATIONALE
from mmsr.inference.language_models.requests import Reply, Request, Task
from mmsr.inference.language_models.settings import LanguageModelSettings

Tokens = list[int]


class _Begun(NamedTuple):
    """The beginning of a text that the model goes on with, and the samples that it hears, `[s]`."""

    text: str
    wave: np.ndarray | None


_Parts = tuple[dict[str, Any], int, int]
"""Fields of a reply, and the tokens that were read and written."""


class _Written(NamedTuple):
    """What the model wrote, and the tokens of prompt and text."""

    text: str
    prompt_tokens: int
    generated_tokens: int


class LocalModel:
    """A causal language model, or an audio language model with its processor.

    Args:
        settings: The model and its options.
        batch_size: Requests at a time.

    Attributes:
        identity: What its answers depend on: weights, precision and chat template.

    Raises:
        ValueError: It cannot be read.
    """

    def __init__(self, settings: LanguageModelSettings, *, batch_size: int = 32) -> None:
        name, hears = settings.model, settings.audio
        self._processor, self._model = _load(name, hears=hears, dtype=settings.dtype)
        self._tokenizer = self._processor.tokenizer if hears else self._processor
        if settings.device is not None or torch.cuda.is_available():
            self._model.to(settings.device or "cuda")
        self._batch_size = batch_size
        self._template = dict(settings.template)
        self._hears = hears
        self._chats = getattr(self._processor, "chat_template", None) is not None
        if hears and not self._chats:
            raise ValueError(
                f"model {name}: its processor has no chat template that says where audio stands; accepted: "
                "one that has, such as Qwen2-Audio's, or the address of a server that runs the model"
            )
        self._keeps_logits = "logits_to_keep" in inspect.signature(self._model.forward).parameters
        eos = self._model.generation_config.eos_token_id
        eos = self._tokenizer.eos_token_id if eos is None else eos
        self._eos: list[int] = eos if isinstance(eos, list) else [] if eos is None else [eos]
        pad = self._tokenizer.pad_token_id
        self._pad = int(pad if pad is not None else (self._eos or [0])[0])
        self.identity: Mapping[str, Any] = {
            "weights": _weights(name, self._model),
            "dtype": str(self._model.dtype).removeprefix("torch."),
            "template": self._template,
        }

    def answer(self, requests: Sequence[Request], task: Task) -> Iterator[tuple[int, Reply]]:
        """Answer requests in batches of similar length.

        Raises:
            ValueError: A recording is longer than the model hears, or its labels cannot be told apart.
        """
        texts = [self._chat(request) for request in requests]
        # those with a recording apart, since a processor takes one for each text of a batch
        order = sorted(range(len(texts)), key=lambda i: (requests[i].audio is None, len(texts[i])))
        read = self._parsed if task.read == "parsed" else self._asked
        for heard in (True, False):
            part = [i for i in order if (requests[i].audio is not None) == heard]
            for start in range(0, len(part), self._batch_size):
                batch = part[start : start + self._batch_size]
                begun = [_Begun(texts[i], self._wave(requests[i])) for i in batch]
                started = time.perf_counter()
                replies = read(begun, task)
                seconds = (time.perf_counter() - started) / len(batch)
                for i, (reply, prompt_tokens, generated_tokens) in zip(batch, replies, strict=True):
                    usage = {
                        "prompt_tokens": prompt_tokens,
                        "generated_tokens": generated_tokens,
                        "seconds": round(seconds, 6),
                    }
                    yield i, Reply(**reply, usage=usage)

    # ------------------------------------------------------------------ answers of a batch

    def _parsed(self, begun: Sequence[_Begun], task: Task) -> list[_Parts]:
        """Let the model write whole answers, and read these."""
        replies = []
        for written in self._write(begun, task.max_tokens):
            found = task.layout.parse(written.text)
            reply: dict[str, Any] = {
                "text": written.text,
                "label": found.label,
                "scores": {},
                "rationale": found.rationale,
            }
            replies.append((reply, written.prompt_tokens, written.generated_tokens))
        return replies

    def _asked(self, begun: Sequence[_Begun], task: Task) -> list[_Parts]:
        """Ask for the label and, before or after it, for the rationale."""
        layout = task.layout
        counts = np.zeros((len(begun), 2), dtype=int)  # tokens of prompts, and generated ones
        rationales: list[str | None] = [None] * len(begun)
        written: list[_Written] = []
        if layout.rationale_format == "pre_thinking":
            opened = [_Begun(f"{text}{RATIONALE}", wave) for text, wave in begun]
            written = self._write(opened, task.max_tokens, stop=LABEL)
            rationales = [_before(one.text, LABEL) for one in written]
            begun = [
                _Begun(f"{text}{RATIONALE} {rationale}\n", wave)
                for (text, wave), rationale in zip(begun, rationales, strict=True)
            ]
        opened = [_Begun(f"{text}{LABEL}", wave) for text, wave in begun]
        ask = self._likelihoods if task.read == "likelihood" else self._constrained
        labelled, lengths = ask(opened, layout.labels)
        counts[:, 0] += lengths
        if layout.rationale_format == "post_thinking":
            opened = [
                _Begun(f"{text}{LABEL} {label}\n{RATIONALE}", wave)
                for (text, wave), (label, _) in zip(begun, labelled, strict=True)
            ]
            written = self._write(opened, task.max_tokens)
            rationales = [_before(one.text, LABEL) for one in written]
        if written:
            counts += [[one.prompt_tokens, one.generated_tokens] for one in written]
        texts = [one.text for one in written] or [""] * len(begun)
        return [
            ({"text": text, "label": label, "scores": scores, "rationale": rationale}, int(read), int(made))
            for text, (label, scores), rationale, (read, made) in zip(
                texts, labelled, rationales, counts, strict=True
            )
        ]

    # ------------------------------------------------------------------ labels

    def _likelihoods(
        self, begun: Sequence[_Begun], labels: Sequence[str]
    ) -> tuple[list[tuple[str, dict[str, float]]], list[int]]:
        """The likeliest label with the probability of each, and how many tokens were read."""
        prefixes, tails, features = self._continued(begun, labels)
        logs = torch.zeros(len(begun), len(labels), dtype=torch.float64)
        lengths = [0] * len(begun)
        if all(len(tail) == 1 for row in tails for tail in row):
            last = self._log_probabilities(prefixes, [1] * len(prefixes), features)
            for i, (step, row) in enumerate(zip(last, tails, strict=True)):
                logs[i] = step[0, [tail[0] for tail in row]]
                lengths[i] = len(prefixes[i])
        else:
            for column in range(len(labels)):
                rows = [row[column] for row in tails]
                given = [prefix + tail[:-1] for prefix, tail in zip(prefixes, rows, strict=True)]
                found = self._log_probabilities(given, [len(tail) for tail in rows], features)
                for i, (steps, tail) in enumerate(zip(found, rows, strict=True)):
                    logs[i, column] = steps[range(len(tail)), tail].sum()
                    lengths[i] += len(given[i])
        scores = logs.softmax(1).tolist()
        chosen = [(labels[int(np.argmax(row))], dict(zip(labels, row, strict=True))) for row in scores]
        return chosen, lengths

    def _constrained(
        self, begun: Sequence[_Begun], labels: Sequence[str]
    ) -> tuple[list[tuple[str, dict[str, float]]], list[int]]:
        """The label by greedy decoding, without probabilities, and how many tokens were read."""
        prefixes, tails, features = self._continued(begun, labels)
        width = max(map(len, prefixes))

        def allowed(row: int, tokens: torch.Tensor) -> list[int]:
            made = tokens[width:].tolist()
            going = [tail for tail in tails[row] if tail[: len(made)] == made and len(tail) > len(made)]
            return sorted({tail[len(made)] for tail in going}) or [self._pad]  # a label is complete

        most = max(len(tail) for row in tails for tail in row)
        made = self._generate(prefixes, features, most, prefix_allowed_tokens_fn=allowed)
        chosen = []
        for row, tokens in zip(tails, made, strict=True):
            place = next(i for i, tail in enumerate(row) if tokens[: len(tail)] == tail)
            chosen.append((labels[place], dict[str, float]()))
        return chosen, [len(prefix) for prefix in prefixes]

    def _continued(
        self, begun: Sequence[_Begun], labels: Sequence[str]
    ) -> tuple[list[Tokens], list[list[Tokens]], dict[str, torch.Tensor]]:
        """The tokens that all labels share, those of each label after them, and features of the audio.

        A label's tokens are those of the whole text, so that no border is put where the tokeniser has none.
        """
        tails: list[list[Tokens]] = []
        for text, _ in begun:
            whole: list[Tokens] = [self._tokens(f"{text} {label}") for label in labels]
            shared = len(os.path.commonprefix(whole))  # of lists too
            tails.append([tokens[shared:] for tokens in whole])
        for row in tails:
            for label, tail in zip(labels, row, strict=True):
                pairs = zip(labels, row, strict=True)
                longer = [other for other, more in pairs if other != label and more[: len(tail)] == tail]
                if longer:
                    raise ValueError(
                        f"label {label!r}: its tokens are the beginning of those of {longer[0]!r}, which "
                        "would never be likelier; accepted: labels that differ, or read: parsed"
                    )
        given, features = self._encode([_Begun(f"{text} {labels[0]}", wave) for text, wave in begun])
        prefixes = [tokens[: -len(row[0])] for tokens, row in zip(given, tails, strict=True)]
        return prefixes, tails, features

    @torch.inference_mode()
    def _log_probabilities(
        self, rows: Sequence[Tokens], last: Sequence[int], features: Mapping[str, torch.Tensor]
    ) -> list[torch.Tensor]:
        """Log-probabilities `[n, v]` of the next token after each of the `last` n tokens of each row.

        Padded on the right, where no causal model looks.
        """
        ids, mask = self._padded(rows, left=False)
        places = [range(len(row) - n, len(row)) for row, n in zip(rows, last, strict=True)]
        kept = sorted({place for row in places for place in row})
        options = {"logits_to_keep": torch.tensor(kept, device=ids.device)} if self._keeps_logits else {}
        logits = self._model(input_ids=ids, attention_mask=mask, **features, **options).logits
        if not self._keeps_logits:
            logits = logits[:, kept]
        column = {place: i for i, place in enumerate(kept)}
        return [
            logits[i, [column[place] for place in row]].float().log_softmax(-1).double().cpu()
            for i, row in enumerate(places)
        ]

    # ------------------------------------------------------------------ text

    def _write(self, begun: Sequence[_Begun], most: int, stop: str | None = None) -> list[_Written]:
        """Let the model go on, greedily, to its end, to `stop`, or to the most tokens."""
        rows, features = self._encode(begun)
        stops = [text for text in (stop, None if self._chats else "\n\n") if text]
        options = {"tokenizer": self._tokenizer} if stops else {}
        written = []
        for row, made in zip(rows, self._generate(rows, features, most, stops, **options), strict=True):
            text = self._tokenizer.decode(made, skip_special_tokens=True)
            if not self._chats:
                text = text.split("\n\n")[0] if text.strip() else ""
            written.append(_Written(text.strip(), len(row), len(made)))
        return written

    @torch.inference_mode()
    def _generate(
        self,
        rows: Sequence[Tokens],
        features: Mapping[str, torch.Tensor],
        most: int,
        stops: Sequence[str] = (),
        **options: Any,
    ) -> list[Tokens]:
        """New tokens of each row, by greedy decoding, with the one that ends it."""
        from transformers import GenerationConfig

        ids, mask = self._padded(rows, left=True)
        config = GenerationConfig(
            max_new_tokens=most,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,  # some models bring another one
            eos_token_id=self._eos or None,
            pad_token_id=self._pad,
            stop_strings=list(stops) or None,
        )
        made = self._model.generate(
            input_ids=ids, attention_mask=mask, generation_config=config, **features, **options
        )
        return [self._until_end(tokens) for tokens in made[:, ids.shape[1] :].tolist()]

    def _until_end(self, tokens: Tokens) -> Tokens:
        ends = [i for i, token in enumerate(tokens) if token in self._eos]
        if ends:
            return tokens[: ends[0] + 1]
        while tokens and tokens[-1] == self._pad:  # a row that stopped before others
            tokens = tokens[:-1]
        return tokens

    # ------------------------------------------------------------------ tokens

    def _chat(self, request: Request) -> str:
        """The text after which the model's answer is due."""
        system, user = request.message
        if not self._chats:
            return "".join(f"{part}\n\n" for part in (system, user) if part)
        given = {"tokenize": False, "add_generation_prompt": True, **self._template}
        try:
            return self._processor.apply_chat_template(self._messages(system, user, request), **given)
        except TemplateError:  # of a model that has no system messages
            whole = "\n\n".join(filter(None, (system, user)))
            return self._processor.apply_chat_template(self._messages("", whole, request), **given)

    def _messages(self, system: str, user: str, request: Request) -> list[dict[str, Any]]:
        """The messages for a chat template."""
        if not self._hears:
            pairs: list[tuple[str, Any]] = [("system", system), ("user", user)]
            return [{"role": role, "content": text} for role, text in pairs if text]
        audio = [] if request.audio is None else [{"type": "audio"}]
        parts = [("system", [], system), ("user", audio, user)]
        return [
            {"role": role, "content": [*sound, {"type": "text", "text": text}]}
            for role, sound, text in parts
            if text
        ]

    def _tokens(self, text: str) -> Tokens:
        """Tokens of a text; a chat template brings its special tokens along."""
        return self._tokenizer(text, add_special_tokens=not self._chats)["input_ids"]

    def _encode(self, begun: Sequence[_Begun]) -> tuple[list[Tokens], dict[str, torch.Tensor]]:
        """Tokens of texts, with a place for each frame of audio, and the audio's features."""
        if begun[0].wave is None:
            return [self._tokens(text) for text, _ in begun], {}
        inputs = self._processor(
            text=[text for text, _ in begun],
            audio=[wave for _, wave in begun],
            sampling_rate=self._processor.feature_extractor.sampling_rate,
            add_special_tokens=not self._chats,
            padding=True,
            return_tensors="pt",
        ).to(self._model.device)
        ids, mask = inputs.pop("input_ids"), inputs.pop("attention_mask").bool()
        rows = [row[real].tolist() for row, real in zip(ids, mask, strict=True)]
        return rows, {
            name: value.to(self._model.dtype) if value.is_floating_point() else value
            for name, value in inputs.items()
        }

    def _padded(self, rows: Sequence[Tokens], *, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and their mask, `[b, t]` each."""
        width = max(map(len, rows))
        pads = [[self._pad] * (width - len(row)) for row in rows]
        zeros = [[0] * len(pad) for pad in pads]
        ones = [[1] * len(row) for row in rows]
        ids = [pad + row if left else row + pad for row, pad in zip(rows, pads, strict=True)]
        mask = [zero + one if left else one + zero for one, zero in zip(ones, zeros, strict=True)]
        device = self._model.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _wave(self, request: Request) -> np.ndarray | None:
        """The samples of a request's recording, `[s]`."""
        if request.audio is None:
            return None
        extractor = self._processor.feature_extractor
        wave = request.samples(extractor.sampling_rate)
        longest, seconds = getattr(extractor, "chunk_length", None), len(wave) / extractor.sampling_rate
        if longest is not None and seconds > longest:
            raise ValueError(
                f"a recording of {seconds:.1f} s; accepted: {longest} s at most, which is all that this "
                "model hears (`mmsr data segment` cuts recordings)"
            )
        return wave


def _before(text: str, mark: str) -> str:
    """What stands before a mark, in one line."""
    return " ".join(text.partition(mark)[0].split())


def _load(name: str, *, hears: bool, dtype: str) -> tuple[Any, Any]:
    """The tokenizer or processor of a model, and the model."""
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForMultimodalLM,
        AutoProcessor,
        AutoTokenizer,
    )
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    kinds: tuple[Any, Any] = (
        (AutoProcessor, AutoModelForMultimodalLM) if hears else (AutoTokenizer, AutoModelForCausalLM)
    )
    try:
        processor, model = kinds[0].from_pretrained(name), kinds[1].from_pretrained(name, dtype=dtype)
    except Exception as error:  # transformers, safetensors and json raise many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        kind = "an audio language model with its processor" if hears else "a causal language model"
        raise ValueError(
            f"model {name} cannot be read ({reason}); accepted: a folder or Hub id of {kind}"
        ) from error
    return processor, model.eval()


def _weights(name: str, model: Any) -> str:
    """The commit of a model of the Hub, else the digest of the files in its folder."""
    if not os.path.isdir(name):
        return f"{name}@{getattr(model.config, '_commit_hash', None)}"
    files = sorted(path for path in Path(name).iterdir() if path.is_file())
    digests = {path.name: digest(str(path)).hex() for path in files}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:16]

"""The file of a language model: what answers, what it is asked, and how its label is read.

Nothing heavy is imported here, so that a faulty file is refused before weights are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import yaml

from mmsr.model.configuration import DEFAULT_LABELS

Choose = Literal["none", "random", "nearest"]
Format = Literal["none", "post_thinking", "pre_thinking"]
Read = Literal["likelihood", "constrained", "parsed", "logprobs"]

SETTINGS_OF_THE_MACHINE = ("timeout", "device", "api_key_variable")
"""Settings of `LanguageModelSettings` that change no answer, and are no part of a model's identity."""

MOST_LOGPROBS = 20  # that chat completions give for a token


@dataclass(frozen=True, kw_only=True)
class ExampleSettings:
    """Which training rows the prompt shows.

    Attributes:
        choose: none; `random`: the same rows in every prompt, as many of each label; or `nearest`: those
            whose transcripts are nearest to the utterance's.
        number: How many rows.
        seed: Of the random choice.
        encoder: Folder or Hub id of the text encoder that `nearest` compares transcripts with.
        prefix: What this encoder expects before a text, such as `"query: "` of e5.
        column: The transcript that is shown, text or asr_text.

    Raises:
        ValueError: A setting is not accepted, or contradicts another one.
    """

    choose: Choose = "none"
    number: int = 6
    seed: int = 0
    encoder: str | None = None
    prefix: str = ""
    column: Literal["text", "asr_text"] = "text"

    def __post_init__(self) -> None:
        _check_types(self)
        if self.number < 1:
            raise ValueError(f"number {self.number}; accepted: 1 or more, or choose: none")
        if (self.choose == "nearest") != (self.encoder is not None):
            given = f"encoder {self.encoder!r} with choose: {self.choose}"
            raise ValueError(f"{given}; accepted: an encoder with nearest, and only there")


@dataclass(frozen=True, kw_only=True)
class LanguageModelSettings:
    """A language model as a row of a table of results.

    Attributes:
        model: Folder or Hub id of a causal language model, or the address of a server of chat completions,
            such as `http://localhost:8000/v1`.
        served_name: The model's name at that server.
        api_key_variable: Environment variable with the server's key; the key itself is stored nowhere.
        timeout: Seconds that an answer of the server may take.
        audio: Whether the model hears recordings. A local one is then loaded as a multimodal model with its
            processor; a server gets WAV files.
        prompt: A jinja file (relative to this file), or the name of one that mmsr has: zero_shot, few_shot,
            chain_of_thought.
        labels: The labels, as the manifest and the prompt name them.
        rationale_format: none; `post_thinking`: the label, then the rationale; or `pre_thinking`: the
            rationale, then the label.
        read: How the label is read. Of a local model: `likelihood`, the probability of each label's tokens
            (the default); `constrained`, greedy decoding in which only labels can be written; `parsed`, from
            the text that it writes. Of a server: `parsed` (the default), or `logprobs`, parsed, with the
            probabilities that the server gives for the label's first token.
        fallback: The label of an answer that names none; by default the training rows' most frequent one.
        max_tokens: The most tokens that an answer may have.
        dtype: Of a local model's weights, such as bfloat16; auto is that of its files.
        device: Such as cpu or cuda:0; by default the first accelerator.
        template: Options of the chat template, such as `enable_thinking: false`.
        examples: Which training rows the prompt shows.

    Raises:
        ValueError: A setting is not accepted, or contradicts another one.
    """

    model: str
    served_name: str | None = None
    api_key_variable: str | None = None
    timeout: float = 120.0
    audio: bool = False
    prompt: str = "zero_shot"
    labels: Sequence[str] = tuple(DEFAULT_LABELS.values())
    rationale_format: Format = "none"
    read: Read | None = None
    fallback: str | None = None
    max_tokens: int = 128
    dtype: str = "auto"
    device: str | None = None
    template: Mapping[str, Any] = field(default_factory=dict)
    examples: ExampleSettings = field(default_factory=ExampleSettings)

    def __post_init__(self) -> None:
        _check_types(self)
        served = ["served_name", "api_key_variable"]
        if not self.is_served and (given := [name for name in served if getattr(self, name) is not None]):
            raise ValueError(f"{given[0]} with model {self.model}; accepted: with a server's http address")
        if self.is_served and self.served_name is None:
            raise ValueError(f"model {self.model} is a server; accepted: with served_name, its model's name")
        accepted = ("parsed", "logprobs") if self.is_served else ("likelihood", "constrained", "parsed")
        if self.read is not None and self.read not in accepted:
            kind = "a server" if self.is_served else "a local model"
            raise ValueError(f"read {self.read} of {kind}; accepted: {', '.join(accepted)}")
        if len(self.labels) < 2 or len(set(map(str.casefold, self.labels))) < len(self.labels):
            raise ValueError(f"labels {list(self.labels)}; accepted: two or more different ones")
        if self.fallback is not None and self.fallback not in self.labels:
            raise ValueError(f"fallback {self.fallback!r}; accepted: {', '.join(self.labels)}")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens {self.max_tokens}; accepted: 1 or more")

    @property
    def is_served(self) -> bool:
        """Whether a server answers."""
        return self.model.startswith(("http://", "https://"))

    @property
    def reads(self) -> Read:
        """How the label is read, with the default."""
        return self.read or ("parsed" if self.is_served else "likelihood")

    @property
    def name(self) -> str:
        """The model's name in a report."""
        return self.served_name or Path(self.model).name

    @classmethod
    def from_file(cls, path: str | Path) -> LanguageModelSettings:
        """Read a YAML file. Paths in it are relative to it; what is no path there is a Hub id or a name.

        Raises:
            ValueError: It cannot be read, or a setting is not accepted; names file and setting.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"{path}: no such file; accepted: the YAML file of a language model")
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
        try:
            given = _mapping(cls, content)
            given["examples"] = ExampleSettings(**_mapping(ExampleSettings, given.get("examples") or {}))
            settings = cls(**given)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error
        return settings.beside(path)

    def beside(self, path: Path) -> LanguageModelSettings:
        """The settings with paths that are relative to the folder of `path`."""
        from dataclasses import replace

        def found(name: str | None) -> str | None:
            return str(path.parent / name) if name and (path.parent / name).exists() else name

        examples = replace(self.examples, encoder=found(self.examples.encoder))
        return replace(self, model=str(found(self.model)), prompt=str(found(self.prompt)), examples=examples)


def _mapping(cls: type, content: Any) -> dict[str, Any]:
    """The content of a mapping whose keys are fields of a dataclass."""
    names = [known.name for known in fields(cls)]
    if not isinstance(content, dict):
        raise ValueError(f"holds {content!r}; accepted: keys {', '.join(names)}")
    for key in content:
        if key not in names:
            near = get_close_matches(str(key), names, n=1)
            raise ValueError(f"key {key!r}; accepted: {f'{near[0]}?' if near else ', '.join(names)}")
    if cls is LanguageModelSettings and "model" not in content:
        raise ValueError("no key model; accepted: a folder, a Hub id, or a server's address")
    return dict(content)


_KINDS: dict[Any, tuple[tuple[type, ...], str]] = {
    str: ((str,), "text"),
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    Sequence[str]: ((list, tuple), "a list"),
    Mapping[str, Any]: ((dict,), "keys and values"),
}


def _check_types(settings: Any) -> None:
    """Refuse values of another type than the field's; YAML reads `no` as false, and 1e3 as text."""
    for name, kind in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        options = [option for option in get_args(kind) if option is not type(None)]
        if type(None) in get_args(kind):
            if value is None:
                continue
            kind = options[0]
        choices = get_args(kind) if kind not in _KINDS else ()
        if choices and all(isinstance(choice, str) for choice in choices):
            if value not in choices:
                raise ValueError(f"{name} {value!r}; accepted: {', '.join(choices)}")
        elif kind in _KINDS:
            types, accepted = _KINDS[kind]
            wrong = not isinstance(value, types) or (isinstance(value, bool) and kind is not bool)
            if wrong or (kind == Sequence[str] and not all(isinstance(item, str) for item in value)):
                raise ValueError(f"{name} {value!r}; accepted: {accepted}")

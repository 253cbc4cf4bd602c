"""A local language model: labels by likelihood, constrained or parsed, and rationales."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mmsr.inference.language_models.local import LocalModel
from mmsr.inference.language_models.prompt import Layout, Message
from mmsr.inference.language_models.requests import Reply, Request, Task
from mmsr.inference.language_models.settings import LanguageModelSettings

LABELS = ("negative", "neutral", "positive")
TEXTS = ("it hurts", "the appointment is on Tuesday", "bác sĩ rất tận tâm với tôi")
REQUESTS = [Request(Message("Judge.", text)) for text in TEXTS]


def opened(folder: Path, *, batch_size: int = 32, **settings: Any) -> LocalModel:
    given = LanguageModelSettings(model=str(folder), dtype="float32", **settings)
    return LocalModel(given, batch_size=batch_size)


def replies(model: LocalModel, task: Task, requests: Sequence[Request] = REQUESTS) -> list[Reply]:
    return [reply for _, reply in sorted(model.answer(requests, task), key=lambda item: item[0])]


def by_hand(folder: Path, text: str) -> dict[str, float]:
    """The probability of each label's tokens after `text`, token by token in a plain forward pass."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    logs = {}
    for label in LABELS:
        before = tokenizer(text)["input_ids"]
        whole = tokenizer(f"{text} {label}")["input_ids"]
        assert whole[: len(before)] == before
        with torch.no_grad():
            logits = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        logs[label] = sum(float(logits[i - 1, whole[i]]) for i in range(len(before), len(whole)))
    total = sum(map(math.exp, logs.values()))
    return {label: math.exp(value) / total for label, value in logs.items()}


@pytest.mark.parametrize("whole", [False, True], ids=["labels of many tokens", "labels of one token"])
def test_the_likelihood_of_labels_is_the_product_over_their_tokens(
    make_language_model: Callable[..., Path], whole: bool
) -> None:
    folder = make_language_model(words=tuple(f" {label}" for label in LABELS) if whole else ())
    found = replies(opened(folder), Task(Layout(LABELS), "likelihood", 8))
    for text, reply in zip(TEXTS, found, strict=True):
        chat = f"<|im_start|>system\nJudge.<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n"
        expected = by_hand(folder, f"{chat}<|im_start|>assistant\nLabel:")
        assert reply.scores == pytest.approx(expected, abs=1e-5)
        assert reply.label == max(expected, key=expected.__getitem__)
        assert reply.text == "" and reply.rationale is None and reply.usage["generated_tokens"] == 0
    assert len({round(reply.scores["negative"], 4) for reply in found}) == 3, "the prompt changes nothing"


def test_a_batch_answers_as_single_requests_do(language_model: Path) -> None:
    for form in ("none", "post_thinking", "pre_thinking"):
        task = Task(Layout(LABELS, form), "likelihood", 6)
        batch, single = (replies(opened(language_model, batch_size=size), task) for size in (32, 1))
        for one, other in zip(batch, single, strict=True):
            assert one.scores == pytest.approx(other.scores, abs=1e-4)
            assert (one.label, one.rationale, one.text) == (other.label, other.rationale, other.text)


def test_a_rationale_after_the_label_explains_it_and_one_before_it_decides(language_model: Path) -> None:
    model = opened(language_model)
    plain = replies(model, Task(Layout(LABELS), "likelihood", 6))
    after = replies(model, Task(Layout(LABELS, "post_thinking"), "likelihood", 6))
    before = replies(model, Task(Layout(LABELS, "pre_thinking"), "likelihood", 6))
    for one, explained, thought, text in zip(plain, after, before, TEXTS, strict=True):
        assert explained.scores == pytest.approx(one.scores, abs=1e-5)
        assert thought.scores != pytest.approx(one.scores, abs=1e-3)
        assert explained.rationale is not None and explained.rationale != thought.rationale
        assert 0 < explained.usage["generated_tokens"] <= 6
        assert explained.usage["prompt_tokens"] > one.usage["prompt_tokens"]
        chat = f"<|im_start|>system\nJudge.<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n"
        begun = f"{chat}<|im_start|>assistant\nRationale: {thought.rationale}\nLabel:"
        assert thought.scores == pytest.approx(by_hand(language_model, begun), abs=1e-5)


def test_constrained_decoding_writes_nothing_but_labels(language_model: Path) -> None:
    model = opened(language_model)
    free = replies(model, Task(Layout(LABELS), "parsed", 12))
    assert all(reply.label is None and reply.text for reply in free)  # random weights name no label
    found = replies(model, Task(Layout(LABELS), "constrained", 12))
    tokenizer, network = model._tokenizer, model._model
    for text, reply in zip(TEXTS, found, strict=True):
        chat = f"<|im_start|>system\nJudge.<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n"
        ids, going, made = tokenizer(f"{chat}<|im_start|>assistant\nLabel: ")["input_ids"], list(LABELS), ""
        while len(going) > 1:  # greedily, byte by byte
            logits = network(torch.tensor([ids])).logits[0, -1].detach()
            nexts = {label[len(made)] for label in going}
            made += max(nexts, key=lambda byte: float(logits[tokenizer(byte)["input_ids"][0]]))
            ids = tokenizer(f"{chat}<|im_start|>assistant\nLabel: {made}")["input_ids"]
            going = [label for label in going if label.startswith(made)]
        assert reply.label == going[0] and reply.scores == {}


def test_a_model_without_chat_template_or_system_messages(make_language_model: Callable[..., Path]) -> None:
    plain = make_language_model(chat=None)
    found = replies(opened(plain), Task(Layout(LABELS), "likelihood", 8))
    assert found[0].scores == pytest.approx(by_hand(plain, f"Judge.\n\n{TEXTS[0]}\n\nLabel:"), abs=1e-5)
    refuses = "{{ raise_exception('no system') if messages[0].role == 'system' }}[{{ messages[0].content }}]"
    folder = make_language_model(chat=refuses)
    found = replies(opened(folder), Task(Layout(LABELS), "likelihood", 8))
    assert found[0].scores == pytest.approx(by_hand(folder, f"[Judge.\n\n{TEXTS[0]}]Label:"), abs=1e-5)


def test_what_cannot_be_asked_is_refused(language_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"label 'sad': its tokens are the beginning of those of 'sadness'"):
        replies(opened(language_model), Task(Layout(("sad", "sadness")), "likelihood", 8))
    with pytest.raises(ValueError, match=r"cannot be read \(.*\); accepted: a folder or Hub id of a causal"):
        opened(tmp_path)


def test_the_identity_is_of_the_weights_and_not_of_their_place(language_model: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(language_model, tmp_path / "copy"))
    assert opened(copy).identity == opened(language_model).identity
    (copy / "chat_template.jinja").write_text("{{ messages[-1].content }}")
    assert opened(copy).identity != opened(language_model).identity


# ---------------------------------------------------------------------- audio


@pytest.fixture(scope="module")
def audio_model(make_language_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Qwen2-Audio that hears 4 s, with its own processor and chat template."""
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2AudioConfig,
        Qwen2AudioEncoderConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        Qwen2Config,
        WhisperFeatureExtractor,
    )

    folder = tmp_path_factory.mktemp("audio-model")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(make_language_model(chat=None))
    places = ["<|im_start|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": places})
    extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=4)
    Qwen2AudioProcessor(feature_extractor=extractor, tokenizer=tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2AudioConfig(
        audio_config=Qwen2AudioEncoderConfig(
            num_mel_bins=16,
            encoder_layers=1,
            encoder_attention_heads=2,
            encoder_ffn_dim=32,
            d_model=16,
            max_source_positions=200,
        ),
        text_config=Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            intermediate_size=64,
            initializer_range=0.2,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    Qwen2AudioForConditionalGeneration(config).save_pretrained(folder)
    return folder


def tone(period: float, seconds: float = 1.0) -> np.ndarray:
    return np.sin(np.arange(round(16000 * seconds)) / period).astype(np.float32)


HEARD = [
    Request(Message("Judge.", "said"), tone(7)),
    Request(Message("Judge.", "said"), tone(7, 0.5)),
    Request(Message("Judge.", "said more"), tone(20, 2.0)),
    Request(Message("Judge.", "said"), None),
]


def test_an_audio_model_hears_and_its_likelihoods_are_those_of_a_plain_pass(audio_model: Path) -> None:
    from transformers import AutoModelForMultimodalLM, AutoProcessor

    found = replies(opened(audio_model, audio=True), Task(Layout(LABELS), "likelihood", 4), HEARD)
    assert len({round(reply.scores["neutral"], 5) for reply in found}) == 4, "audio changes nothing"
    processor = AutoProcessor.from_pretrained(audio_model)
    model = AutoModelForMultimodalLM.from_pretrained(audio_model)
    system = "<|im_start|>system\nJudge.<|im_end|>\n<|im_start|>user\n"
    sound = "Audio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\n"
    for request, reply in zip(HEARD, found, strict=True):
        heard = "" if request.audio is None else sound
        text = f"{system}{heard}{request.message.user}<|im_end|>\n<|im_start|>assistant\nLabel: "
        logs = []
        for label in LABELS:
            audio = {} if request.audio is None else {"audio": [request.audio], "sampling_rate": 16000}
            inputs = processor(text=[text + label], return_tensors="pt", **audio)
            ids, n = inputs["input_ids"][0], len(label)  # a token is a byte
            with torch.no_grad():
                steps = model(**inputs).logits[0].log_softmax(-1)[-n - 1 : -1]
            logs.append(float(steps[range(n), ids[-n:]].sum()))
        expected = torch.tensor(logs).softmax(0).tolist()
        assert list(reply.scores.values()) == pytest.approx(expected, abs=1e-4)


def test_an_audio_model_answers_in_batches_as_one_by_one(audio_model: Path) -> None:
    for read in ("likelihood", "constrained", "parsed"):
        task = Task(Layout(LABELS, "pre_thinking"), read, 5)
        batch, single = (
            replies(opened(audio_model, audio=True, batch_size=size), task, HEARD) for size in (8, 1)
        )
        for one, other in zip(batch, single, strict=True):
            assert one.scores == pytest.approx(other.scores, abs=1e-4)
            assert (one.label, one.rationale, one.text) == (other.label, other.rationale, other.text)


def test_what_an_audio_model_would_not_hear_is_refused(audio_model: Path, language_model: Path) -> None:
    long = [Request(Message("", "said"), tone(7, 4.5))]
    with pytest.raises(ValueError, match=r"a recording of 4\.5 s; accepted: 4 s at most"):
        replies(opened(audio_model, audio=True), Task(Layout(LABELS), "likelihood", 4), long)
    with pytest.raises(ValueError, match=r"accepted: a folder or Hub id of an audio language model"):
        opened(language_model, audio=True)

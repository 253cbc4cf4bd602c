"""Tiny random recognisers of each kind, which tests build in a folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import (
    GenerationConfig,
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    PreTrainedTokenizerFast,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from mmsr.records import SAMPLE_RATE

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _waves(*seconds: float, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.normal(0, 0.1, round(SAMPLE_RATE * length)).astype(np.float32) for length in seconds]


def _save_whisper(folder: Path) -> Path:
    """A random Whisper of 16 units that speaks English and Vietnamese, in pairs of letters."""
    torch.manual_seed(0)
    # pairs of letters, half of them with a space before (Ġ), so that what it writes are words
    letters = [("Ġ" if place % 2 else "") + a + b for a in LETTERS for place, b in enumerate(LETTERS)][:256]
    special = [
        "<|endoftext|>",
        "<|startoftranscript|>",
        "<|en|>",
        "<|vi|>",
        "<|translate|>",
        "<|transcribe|>",
    ]
    special += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    times = [f"<|{step * 0.02:.2f}|>" for step in range(1501)]
    ids = {token: place for place, token in enumerate([*letters, *special, *times])}
    tokenizer = WhisperTokenizer(vocab={token: ids[token] for token in letters}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.add_tokens(times)
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in ids} == ids
    config = WhisperConfig(
        vocab_size=len(ids), d_model=16, num_mel_bins=16,
        encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, init_std=1.0, max_target_positions=48,
        pad_token_id=ids["<|endoftext|>"], bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|endoftext|>"], decoder_start_token_id=ids["<|startoftranscript|>"],
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        pad_token_id=ids["<|endoftext|>"], eos_token_id=ids["<|endoftext|>"],
        decoder_start_token_id=ids["<|startoftranscript|>"], no_timestamps_token_id=ids["<|notimestamps|>"],
        lang_to_id={"<|en|>": ids["<|en|>"], "<|vi|>": ids["<|vi|>"]},
        task_to_id={"translate": ids["<|translate|>"], "transcribe": ids["<|transcribe|>"]},
        is_multilingual=True, max_length=48, max_initial_timestamp_index=50,
        suppress_tokens=[ids[token] for token in special[1:]], begin_suppress_tokens=[ids["<|endoftext|>"]],
    )  # fmt: skip
    model.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(feature_size=16), tokenizer).save_pretrained(folder)
    return folder


def _save_moonshine(folder: Path) -> Path:
    torch.manual_seed(0)
    vocabulary = {token: place for place, token in enumerate(["<unk>", "<s>", "</s>", "▁", *LETTERS])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")),
        unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>",
    )  # fmt: skip
    config = MoonshineConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=32,
        encoder_num_hidden_layers=1, decoder_num_hidden_layers=1,
        encoder_num_attention_heads=2, decoder_num_attention_heads=2,
        encoder_num_key_value_heads=2, decoder_num_key_value_heads=2, initializer_range=1.0,
        bos_token_id=1, eos_token_id=2, pad_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    MoonshineForConditionalGeneration(config).save_pretrained(folder)
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(return_attention_mask=True), tokenizer).save_pretrained(folder)
    return folder


def _save_ctc(folder: Path, *, norm: str = "layer", adapters: tuple[str, ...] = ()) -> Path:
    """A random wav2vec2 with CTC; with adapters one as MMS, where a language has its own alphabet."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = {token: place for place, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS])}
    vocabulary = {name: alphabet for name in adapters} if adapters else alphabet
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = Wav2Vec2CTCTokenizer(
        str(folder / "vocab.json"), target_lang=adapters[0] if adapters else None
    )
    config = Wav2Vec2Config(
        vocab_size=len(alphabet), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, conv_dim=(16, 16), conv_stride=(20, 16), conv_kernel=(20, 16),
        feat_extract_norm=norm, do_stable_layer_norm=norm == "layer", num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, initializer_range=1.0, pad_token_id=0,
        adapter_attn_dim=4 if adapters else None,
    )  # fmt: skip
    model = Wav2Vec2ForCTC(config)
    model.lm_head.weight.data.normal_(0, 1)
    model.save_pretrained(folder)
    for name in adapters:
        torch.manual_seed(len(name) + ord(name[0]))
        weights = {key: torch.randn_like(value) for key, value in model._get_adapters().items()}
        from safetensors.torch import save_file

        save_file(weights, folder / f"adapter.{name}.safetensors", metadata={"format": "pt"})
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer")
    Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return _save_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def ctc(tmp_path_factory):
    return _save_ctc(tmp_path_factory.mktemp("ctc") / "model")


def _built(kind: str, folder: Path) -> Path:
    if kind == "whisper":
        return _save_whisper(folder / kind)
    if kind == "moonshine":
        return _save_moonshine(folder / kind)
    return _save_ctc(folder / kind, norm="group" if kind == "ctc-group" else "layer")


@pytest.fixture(scope="session")
def waves() -> Callable[..., Any]:
    return _waves


@pytest.fixture(scope="session")
def save_whisper() -> Callable[..., Any]:
    return _save_whisper


@pytest.fixture(scope="session")
def save_moonshine() -> Callable[..., Any]:
    return _save_moonshine


@pytest.fixture(scope="session")
def save_ctc() -> Callable[..., Any]:
    return _save_ctc


@pytest.fixture(scope="session")
def built() -> Callable[..., Any]:
    return _built

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
)

from mmsr.model.configuration import MmsrConfig
from mmsr.model.encoders.text import TextEncoder
from mmsr.model.modeling import MmsrForSentimentReasoning

TIGHT = {"atol": 2e-5, "rtol": 1e-4}


OF_ENCODER_DECODERS = ("t5", "mbart")
TEXT_TYPES = (
    *("xlm-roberta", "bert", "roberta", "electra", "deberta-v2", "distilbert", "mpnet", "mistral"),
    *OF_ENCODER_DECODERS,
)


def text_config(model_type: str) -> Any:
    shape: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 37,
    }
    if model_type == "distilbert":
        shape = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 37}
    elif model_type == "deberta-v2":  # as published
        shape |= {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
        shape |= {"position_buckets": 4, "norm_rel_ebd": "layer_norm", "share_att_key": True}
        shape |= {"type_vocab_size": 0}
    elif model_type == "mistral":
        shape |= {"num_key_value_heads": 2, "head_dim": 8}
    elif model_type == "t5":
        shape = {"d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4}
    elif model_type == "mbart":
        shape = {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 37}
        shape |= {"decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 37}
    shared = {"vocab_size": 300, "max_position_embeddings": 40, "pad_token_id": 1}
    return AutoConfig.for_model(model_type, **shared, **shape)


def text_encoder(model_type: str, **overrides: Any) -> TextEncoder:
    torch.manual_seed(1)
    joint = MmsrConfig.from_preset(
        "tiny", fusion="text_only", text_encoder=text_config(model_type), **overrides
    )
    encoder = TextEncoder(joint).eval()
    for parameter in encoder.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_normal_(parameter)
    return encoder


@pytest.mark.parametrize("mix", [False, True])
@pytest.mark.parametrize("model_type", TEXT_TYPES)
@torch.no_grad()
def test_text_states_are_those_of_transformers_on_either_side_of_padding(model_type: str, mix: bool):
    encoder = text_encoder(model_type, text_layer_mix=mix)
    assert not any("pooler" in name for name, _ in encoder.named_parameters())
    ids = torch.randint(5, 60, (1, 6))
    expected = encoder.model(input_ids=ids, output_hidden_states=True)
    left, right = nn.functional.pad(ids, (4, 0), value=33), nn.functional.pad(ids, (0, 4), value=44)
    mask = torch.tensor([[0] * 4 + [1] * 6, [1] * 6 + [0] * 4, [0] * 10])
    encoded = encoder(torch.cat([left, right, right]), mask, output_hidden_states=True)
    assert encoded.mask.tolist() == [[1] * 6 + [0] * 4] * 2 + [[0] * 10]
    for index in (0, 1):
        assert_close(encoded.states[index, :6, -1], expected.last_hidden_state[0], **TIGHT)
        for layer in range(encoder.num_states - 1):
            assert_close(encoded.states[index, :6, layer], expected.hidden_states[layer][0], **TIGHT)
        for of_batch, of_row in zip(encoded.hidden_states, expected.hidden_states, strict=True):
            assert_close(of_batch[index, :6], of_row[0], **TIGHT)
    assert encoded.states.shape == (3, 10, encoder.num_states, 32) and encoded.states.isfinite().all()
    assert encoder.num_states == (3 if mix else 1)


@torch.no_grad()
def test_padding_is_the_text_encoders_own_token():
    """RoBERTa's kind gives a padding token no position; the joint model's may belong to a decoder."""
    encoder = text_encoder("roberta", pad_token_id=0)
    seen = []
    encoder.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True
    )
    encoder(torch.tensor([[7, 8, 9]]), torch.tensor([[1, 1, 0]]))
    assert seen[0].tolist() == [[7, 8, 1]]


@pytest.mark.parametrize("model_type", OF_ENCODER_DECODERS)
@torch.no_grad()
def test_of_an_encoder_decoder_the_pretrained_encoder_is_taken(model_type: str, tmp_path: Path):
    torch.manual_seed(3)
    whole = AutoModel.from_config(text_config(model_type)).eval()
    whole.save_pretrained(tmp_path)
    loaded = TextEncoder.load(tmp_path).eval()
    ids = torch.randint(5, 60, (2, 6))
    assert torch.equal(
        loaded(input_ids=ids).last_hidden_state, whole.get_encoder()(input_ids=ids).last_hidden_state
    )
    assert not any("decoder" in name for name, _ in loaded.named_parameters())


@pytest.mark.parametrize("model_type", ["hubert", "whisper"])
def test_what_is_no_text_encoder_is_refused(model_type: str, tmp_path: Path):
    config = AutoConfig.for_model(model_type)
    joint = MmsrConfig.from_preset("tiny", fusion="text_only", text_encoder=config, rationale_format="none")
    message = f"text_encoder has model_type='{model_type}', which is no text encoder; accepted: a text enc"
    with pytest.raises(ValueError, match=message):
        TextEncoder(joint)
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        TextEncoder.load(tmp_path)


@pytest.mark.slow
@torch.no_grad()
def test_the_real_e5_equals_transformers(shared_models: Path):
    folder = shared_models / "multilingual-e5-small-30k"
    model = MmsrForSentimentReasoning.from_encoders(text=folder, fusion="text_only").eval()
    texts = ["query: bác sĩ rất tận tâm với tôi", "query: kind"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
    encoded = model.encoder.text_encoder(batch["input_ids"], batch["attention_mask"])
    whole = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    for row, text in enumerate(texts):
        expected = whole(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        assert encoded.mask[row].sum() == len(expected)
        assert_close(encoded.states[row, : len(expected), 0], expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("mix", [False, True])
@pytest.mark.parametrize("model_type", TEXT_TYPES)
def test_every_text_family_learns_and_reloads(
    check_gradient_and_reload: Callable[..., None],
    make_model: Callable[..., MmsrForSentimentReasoning],
    batch: dict[str, Tensor],
    model_type: str,
    mix: bool,
):
    model = make_model(text_encoder=text_config(model_type), text_layer_mix=mix, rationale_format="none")
    batch["attention_mask"][1, 4:] = 0
    check_gradient_and_reload(model, "text_encoder", batch)

"""Freezing, LoRA and learning rates, on every kind of encoder."""

import copy
import sys
from typing import Any

import pytest
import torch
from transformers import AutoConfig, get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup

from mmsr.model.configuration import MmsrConfig
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.training.parameters import (
    add_lora,
    check_shared_table,
    eval_frozen,
    free_label_tokens,
    freeze_encoders,
    joined,
    merge_lora,
    model_part,
    parameter_groups,
    rate_factor,
    transformer_layers,
)
from mmsr.training.settings import Freezing, Optimisation

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 37}
# as many convolutions as transformer layers, so that one list could be taken for the other
CONVOLUTIONS = {
    "conv_dim": (16, 16, 16),
    "conv_kernel": (20, 8, 4),
    "conv_stride": (10, 8, 4),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "mask_time_prob": 0.0,
    "layerdrop": 0.0,
}
WHISPER = {
    "d_model": 32,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 37,
    "max_source_positions": 50,
}
AUDIO = {
    **{
        name: {**SIZES, **CONVOLUTIONS}
        for name in ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech-sat", "wav2vec2-conformer")
    },
    "whisper": WHISPER,
}
TEXT = ("xlm-roberta", "bert", "deberta-v2", "modernbert", "electra")


def build(audio: str = "wav2vec2", text: str = "xlm-roberta", **sizes: int) -> MmsrForSentimentReasoning:
    tokens = {"vocab_size": 256, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    config = MmsrConfig.from_preset(
        "tiny",
        rationale_format="none",
        audio_encoder=AutoConfig.for_model(audio, **{**AUDIO[audio], **sizes}),
        text_encoder=AutoConfig.for_model(text, **{**SIZES, **sizes}, **tokens),
    )
    return MmsrForSentimentReasoning(config)


def inputs(rows: int = 2) -> dict[str, torch.Tensor]:
    return {
        "input_values": torch.randn(rows, 4000),
        "input_ids": torch.randint(5, 200, (rows, 6)),
        "sentiment_labels": torch.arange(rows) % 3,
    }


def changed_by_a_step(model: MmsrForSentimentReasoning) -> set[str]:
    """Names of the weights that one step of gradient descent changes."""
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    model(**inputs()).loss.backward()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    torch.optim.SGD(trained, lr=1.0).step()
    return {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}


PAIRS = [(audio, "xlm-roberta") for audio in AUDIO] + [("wav2vec2", text) for text in TEXT[1:]]


@pytest.mark.parametrize(("audio", "text"), PAIRS)
def test_only_the_top_layers_learn(audio, text):
    model = build(audio, text)
    freeze_encoders(model, train_layers={"audio_encoder": 1, "text_encoder": 2})
    changed = changed_by_a_step(model.train())
    for name, top in (("audio_encoder", 1), ("text_encoder", 2)):
        part = model_part(model, name, setting="train_layers")
        layers = transformer_layers(part)
        assert len(layers) == 3
        inside = {id(weight): number for number, layer in enumerate(layers) for weight in layer.parameters()}
        learnt = {
            inside.get(id(weight))
            for key, weight in model.named_parameters()
            if key in changed and key.startswith(f"joint_encoder.{name}.")
        }
        assert learnt == set(range(3 - top, 3))
    assert {"sentiment_head.classifier.weight", "joint_encoder.audio_stream.projection.weight"} <= changed


def test_layers_thaw_from_the_top_by_epoch_alone():
    model = build()
    part = model.encoder.text_encoder.model
    embeddings = part.embeddings.word_embeddings.weight
    counts = []
    for epoch in (0, 1, 2, 3, 1):
        freeze_encoders(model, gradual_unfreezing={"text_encoder": 2}, epoch=epoch)
        thawed = [all(w.requires_grad for w in layer.parameters()) for layer in transformer_layers(part)]
        counts.append((thawed, embeddings.requires_grad))
    one = ([False, True, True], False)
    assert counts == [
        ([False] * 3, False),
        one,
        ([True] * 3, True),
        ([True] * 3, True),
        one,  # what an interrupted run finds when it goes on in epoch 1
    ]
    freeze_encoders(model, gradual_unfreezing={"text_encoder": 1}, epoch=3)
    assert not embeddings.requires_grad  # the embeddings come one epoch after the lowest layer
    assert all(weight.requires_grad for weight in model.encoder.audio_encoder.parameters())


def test_frozen_layers_have_no_dropout_and_trained_ones_have():
    model = build().train()
    freeze_encoders(model, freeze=["audio_encoder"], train_layers={"text_encoder": 1})
    eval_frozen(model.encoder.audio_encoder)
    eval_frozen(model.encoder.text_encoder)
    assert not any(module.training for module in model.encoder.audio_encoder.modules())
    layers = transformer_layers(model.encoder.text_encoder.model)
    assert [{module.training for module in layer.modules()} for layer in layers] == [{False}, {False}, {True}]
    assert model.head.training


def test_a_trained_front_end_keeps_spec_augment():
    """Wav2Vec2 masks spans where it is in training mode as a whole, which its top layers' training keeps."""
    model = build().train()
    freeze_encoders(model, train_layers={"audio_encoder": 1})
    eval_frozen(model.encoder.audio_encoder)
    assert model.encoder.audio_encoder.model.training
    assert not model.encoder.audio_encoder.model.feature_extractor.training


@pytest.mark.parametrize(("audio", "text"), PAIRS)
def test_lora_alone_learns_and_merges_into_a_plain_model(audio, text, tmp_path):
    pytest.importorskip("peft")
    model = build(audio, text)
    plain_names = set(model.state_dict())
    plain = copy.deepcopy(model).eval()
    add_lora(model, {"audio_encoder": {"r": 4}, "text_encoder": {"r": 2, "alpha": 8}})
    model.eval()
    batch = inputs()
    torch.testing.assert_close(model(**batch).sentiment_logits, plain(**batch).sentiment_logits)
    model.train()
    updates = {name for name, _ in model.named_parameters() if "lora_" in name}
    changed = set().union(*(changed_by_a_step(model) for _ in range(4)))  # B starts at zero: A learns later
    assert {name for name in updates if "lora_B" in name} <= changed
    assert {name for name in updates if "lora_A" in name} <= changed
    assert not {
        n for n in changed - updates if n.startswith(("joint_encoder.audio_enc", "joint_encoder.text_enc"))
    }
    model.eval()
    expected = model(**batch).sentiment_logits
    merge_lora(model)
    assert set(model.state_dict()) == plain_names
    torch.testing.assert_close(model(**batch).sentiment_logits, expected, rtol=1e-4, atol=1e-5)
    model.save_pretrained(tmp_path)
    loaded = MmsrForSentimentReasoning.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(**batch).sentiment_logits, expected, rtol=1e-4, atol=1e-5)


def quantized(seed=0, **settings):
    torch.manual_seed(seed)
    model = build(hidden_size=64, intermediate_size=128)
    plain = copy.deepcopy(model).eval()
    add_lora(
        model, {name: {"r": 4, "quantize": "nf4", **settings} for name in ("audio_encoder", "text_encoder")}
    )
    return model.eval(), plain


def test_what_lora_freezes_is_kept_in_four_bits_and_comes_out_of_them():
    pytest.importorskip("peft")
    pytest.importorskip("bitsandbytes", reason="QLoRA needs bitsandbytes: pip install 'mmsr[qlora]'")
    model, plain = quantized(target_modules=["query", "q_proj"])
    layers = dict(model.encoder.named_modules())
    small = {
        name: layer for name, layer in layers.items() if type(layer).__module__.startswith("bitsandbytes")
    }
    assert (
        sum(name.endswith("base_layer") for name in small) == 6
    )  # all linear layers, not the updated ones alone
    assert len(small) == 2 * 3 * 6 and {layer.weight.dtype for layer in small.values()} == {torch.uint8}
    batch = inputs()
    rounded, exact = model(**batch).sentiment_logits, plain(**batch).sentiment_logits
    assert 0 < (rounded - exact).abs().max() < 0.2 * exact.abs().max()

    model.train()
    changed = set().union(*(changed_by_a_step(model) for _ in range(4)))
    encoders = {
        name for name in changed if name.startswith(("joint_encoder.audio_enc", "joint_encoder.text_enc"))
    }
    assert encoders and all(".lora_" in name for name in encoders)
    other, _ = quantized(seed=1, target_modules=["query", "q_proj"])
    other.load_state_dict(model.state_dict())  # as a checkpoint is read
    expected = model.eval()(**batch).sentiment_logits
    assert torch.equal(other(**batch).sentiment_logits, expected)

    merge_lora(other)
    assert set(other.state_dict()) == set(plain.state_dict())
    torch.testing.assert_close(other(**batch).sentiment_logits, expected, rtol=1e-4, atol=1e-5)
    for name, weight in other.encoder.text_encoder.model.named_parameters():
        before = plain.encoder.text_encoder.model.get_parameter(name)
        if weight.dim() == 2 and "layer." in name and "query" not in name:  # as rounded as the paper says
            assert 0.08 < (weight - before).std() / before.std() < 0.11, name


def test_a_part_whose_layers_are_too_narrow_is_not_kept_in_four_bits():
    pytest.importorskip("peft")
    pytest.importorskip("bitsandbytes")
    with pytest.raises(
        ValueError, match=r"quantize='nf4': \w+ has no linear layer that reads a multiple of 64"
    ):
        add_lora(build(), {"text_encoder": {"quantize": "nf4"}})


def test_without_bitsandbytes_four_bits_are_refused(monkeypatch):
    pytest.importorskip("peft")
    monkeypatch.setitem(sys.modules, "bitsandbytes.nn", None)
    with pytest.raises(ValueError, match=r"lora quantize= needs bitsandbytes: pip install 'mmsr\[qlora\]'"):
        quantized()


def test_lora_s_targets_can_be_chosen():
    pytest.importorskip("peft")
    model = build()
    add_lora(model, {"text_encoder": {"target_modules": ["query"]}})
    updated = {name.split(".lora_")[0] for name, _ in model.named_parameters() if ".lora_" in name}
    assert len(updated) == 3 and all(name.endswith("attention.self.query") for name in updated)
    with pytest.raises(ValueError, match=r"lora=\{audio_encoder: \{'target_modules': \['nosuch'\]\}\}: "):
        add_lora(build(), {"audio_encoder": {"target_modules": ["nosuch"]}})


def test_without_peft_lora_alone_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    model = build()
    add_lora(model, {})
    merge_lora(model)
    with pytest.raises(ValueError, match=r"lora= needs peft: pip install 'mmsr\[lora\]'"):
        add_lora(model, {"text_encoder": {}})


def test_rates_fall_with_depth():
    model = build()
    speeds = Optimisation(learning_rate=1.0, encoder_learning_rate=0.1, layer_decay=0.5, weight_decay=0.01)
    groups = parameter_groups(model, model, speeds)
    rates = {id(weight): group["lr"] for group in groups for weight in group["params"]}
    decays = {id(weight): group["weight_decay"] for group in groups for weight in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    for name in ("audio_encoder", "text_encoder"):
        part = model_part(model, name, setting="layer_decay")
        found = [{rates[id(weight)] for weight in layer.parameters()} for layer in transformer_layers(part)]
        assert found == [{0.1 * 0.5**2}, {0.1 * 0.5}, {0.1}]
    embeddings = model.encoder.text_encoder.model.embeddings
    assert {rates[id(weight)] for weight in embeddings.parameters()} == {0.1 * 0.5**3}
    assert {rates[id(weight)] for weight in model.head.parameters()} == {1.0}
    assert all(decays[id(weight)] == (0.01 if weight.ndim > 1 else 0.0) for weight in model.parameters())


def test_what_an_encoder_cannot_do_is_named():
    model = build()
    with pytest.raises(ValueError, match=r"train_layers=\{text_encoder: 4\}; accepted: 1 to 3, its layers"):
        freeze_encoders(model, train_layers={"text_encoder": 4})
    alone = MmsrForSentimentReasoning(
        MmsrConfig.from_preset("tiny", fusion="text_only", rationale_format="none")
    )
    with pytest.raises(ValueError, match="train_layers= names audio_encoder, which a model with"):
        freeze_encoders(alone, train_layers={"audio_encoder": 1})
    with pytest.raises(ValueError, match="freeze= names decoder, which a model with fusion='text"):
        freeze_encoders(alone, freeze=["decoder"])
    freeze_encoders(alone, freeze=["audio_encoder", "text_encoder"])  # what is not there needs no freezing
    assert not any(weight.requires_grad for weight in alone.encoder.text_encoder.parameters())
    part = model.encoder.text_encoder.model
    part.config.num_hidden_layers = 7
    with pytest.raises(ValueError, match="model_type='xlm-roberta' has no list of transformer layers"):
        transformer_layers(part)


# ---------------------------------------------------------------------- decoders

NARROW = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 37}
READING = {"is_decoder": True, "add_cross_attention": True}
DECODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "mbart": ("cross_attention", "mbart", {"d_model": 24, "encoder_layers": 1, "decoder_layers": 1}),
    "t5": ("cross_attention", "t5", {"d_model": 24, "d_kv": 12, "d_ff": 37, "num_layers": 1, "num_heads": 2}),
    "xlm-roberta": ("cross_attention", "xlm-roberta", {**NARROW, **READING}),  # its output has a bias
    "llama": ("prefix", "llama", {**NARROW, "num_key_value_heads": 1}),  # input and output are two tables
    "llama-tied": ("prefix", "llama", {**NARROW, "num_key_value_heads": 1, "tie_word_embeddings": True}),
}
LABEL_TOKENS = [5, 6, 7]


def writer(kind: str) -> MmsrForSentimentReasoning:
    """A model whose decoder is of its own vocabulary, with weights of unit gain."""
    decoder_type, model_type, settings = DECODERS[kind]
    if model_type == "mbart":
        settings = {**settings, **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)}
    torch.manual_seed(1)
    config = MmsrConfig.from_preset(
        "tiny",
        fusion="text_only",
        rationale_format="post_thinking",
        decoder_type=decoder_type,
        decoder=AutoConfig.for_model(model_type, vocab_size=256, **settings),
        decoder_start_token_id=0,
        dropout=0.0,
    )
    model = MmsrForSentimentReasoning(config)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return model


def written() -> dict[str, torch.Tensor]:
    labels = torch.tensor([[5, 20, 21, 2], [6, 30, 2, -100], [7, 31, 32, 2]])
    return {"input_ids": torch.tensor([[8, 9, 10], [11, 12, 13], [14, 15, 16]]), "labels": labels}


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("lora", [False, True], ids=["frozen", "lora"])
def test_label_tokens_alone_of_a_frozen_decoder_s_vocabulary_are_trained(kind, lora, tmp_path):
    if lora:
        pytest.importorskip("peft")
    model = writer(kind).eval()
    before = copy.deepcopy(model)
    if lora:
        add_lora(model, {"decoder": {"r": 2}})
    else:
        freeze_encoders(model, freeze=["decoder"])
    free_label_tokens(model)
    torch.testing.assert_close(model(**written()).logits, before(**written()).logits)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    for _ in range(2):
        model.zero_grad()
        model(**written()).loss.backward()
        torch.optim.SGD(trained, lr=0.1).step()
    expected = model(**written()).logits
    merge_lora(model)
    torch.testing.assert_close(model(**written()).logits, expected, rtol=1e-4, atol=1e-4)
    assert set(model.state_dict()) == set(before.state_dict())
    for table in ("get_input_embeddings", "get_output_embeddings"):
        old = getattr(before.decoder.model, table)().weight
        new = getattr(model.decoder.model, table)().weight
        moved = (old != new).any(-1).nonzero().flatten().tolist()
        assert moved == LABEL_TOKENS, table
    tied = (model.decoder.model, before.decoder.model)
    tables = [[m.get_input_embeddings().weight, m.get_output_embeddings().weight] for m in tied]
    assert (tables[0][0] is tables[0][1]) == (tables[1][0] is tables[1][1])
    for name, weight in model.decoder.model.named_parameters():
        same = torch.equal(weight, before.decoder.model.get_parameter(name))
        table = any(weight is one for one in tables[0])
        assert table or same or lora, name
    model.save_pretrained(tmp_path)
    loaded = MmsrForSentimentReasoning.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(**written()).logits, expected, rtol=1e-4, atol=1e-4)


def test_lora_of_word_embeddings_merges_and_of_a_shared_table_is_refused():
    pytest.importorskip("peft")
    model = MmsrForSentimentReasoning(MmsrConfig.from_preset("tiny", tie_word_embeddings=False)).eval()
    plain = set(model.state_dict())
    add_lora(model, {"text_encoder": {"target_modules": ["word_embeddings"]}})
    update = model.encoder.text_encoder.model.embeddings.word_embeddings
    torch.nn.init.normal_(update.lora_embedding_B["default"])
    torch.nn.init.normal_(update.lora_embedding_A["default"])
    expected = model(**(batch := inputs())).sentiment_logits
    merge_lora(model)
    assert set(model.state_dict()) == plain
    torch.testing.assert_close(model(**batch).sentiment_logits, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="embed_tokens shares its weights with another layer; accepted: tar"):
        add_lora(writer("mbart"), {"decoder": {"target_modules": ["embed_tokens"]}})


def test_a_loaded_decoder_learns_like_the_encoders():
    model = writer("llama")

    def rates(loaded: bool) -> dict[int, float]:
        speeds = Optimisation(learning_rate=1.0, encoder_learning_rate=0.1)
        groups = parameter_groups(model, model, speeds, decoder_loaded=loaded)
        return {id(weight): group["lr"] for group in groups for weight in group["params"]}

    fresh, loaded = rates(False), rates(True)
    assert {fresh[id(weight)] for weight in model.decoder.parameters()} == {1.0}
    assert {loaded[id(weight)] for weight in model.decoder.model.parameters()} == {0.1}
    assert {loaded[id(weight)] for weight in model.decoder.projection.parameters()} == {1.0}
    assert {loaded[id(weight)] for weight in model.head.parameters()} == {1.0}


@pytest.mark.parametrize(
    "switches",
    [
        {"freeze": ["text_encoder"]},
        {"freeze": ["decoder"]},
        {"train_layers": {"text_encoder": 1}},
        {"gradual_unfreezing": {"text_encoder": 1}},
        {"lora": {"decoder": {}}},
        {"lora": {"text_encoder": {}}, "freeze": ["audio_encoder"]},
    ],
)
def test_shared_word_embeddings_are_not_frozen_for_one_part_alone(switches):
    shared = MmsrForSentimentReasoning(MmsrConfig.from_preset("tiny"))
    own = MmsrForSentimentReasoning(MmsrConfig.from_preset("tiny", tie_word_embeddings=False))
    check_shared_table(own, Freezing(**switches))
    check_shared_table(shared, Freezing(freeze=["audio_encoder", "text_encoder", "decoder"]))
    with pytest.raises(
        ValueError, match=r"would be frozen for both; accepted: a model with config: \{tie_word"
    ):
        check_shared_table(shared, Freezing(**switches))


def test_moonshine_s_layers_are_its_encoder_s():
    depths = {"encoder_num_hidden_layers": 3, "decoder_num_hidden_layers": 1}
    heads = {"encoder_num_attention_heads": 4, "decoder_num_attention_heads": 4}
    audio = AutoConfig.for_model(
        "moonshine", hidden_size=32, intermediate_size=37, vocab_size=60, **heads, **depths
    )
    config = MmsrConfig.from_preset("tiny", fusion="audio_only", rationale_format="none", audio_encoder=audio)
    model = MmsrForSentimentReasoning(config)
    layers = transformer_layers(model.encoder.audio_encoder.model)
    assert len(layers) == 3 and model.encoder.audio_encoder.num_states in (1, 4)


@pytest.mark.parametrize(("warmup", "steps"), [(0, 7), (3, 11), (1, 1)])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_schedule_is_that_of_transformers(schedule, warmup, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    if schedule == "cosine":
        theirs = get_cosine_schedule_with_warmup(optimizer, warmup, steps).lr_lambdas[0]
    else:
        theirs = get_constant_schedule_with_warmup(optimizer, warmup).lr_lambdas[0]
    settings = Optimisation(schedule=schedule, warmup_steps=warmup)
    ours = [rate_factor(step, settings=settings, steps=steps) for step in range(steps + 2)]
    assert ours == pytest.approx([theirs(step) for step in range(steps + 2)])


def test_what_took_no_part_gets_a_gradient_of_zero_and_the_rest_its_own():
    model = MmsrForSentimentReasoning(MmsrConfig.from_preset("tiny", tie_word_embeddings=False)).eval()
    model.encoder.text_encoder.requires_grad_(False)
    batch = {"input_ids": torch.randint(8, 256, (2, 5)), "sentiment_labels": torch.tensor([0, 1])}
    plain = model(**batch).loss
    plain.backward()
    own = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    loss = joined(model(**batch).loss, model)
    loss.backward()
    assert torch.equal(loss, plain)
    idle = [name for name, weight in model.named_parameters() if weight.requires_grad and own[name] is None]
    assert any("audio_encoder" in name for name in idle) and any("decoder" in name for name in idle)
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            assert weight.grad is None
        else:
            expected = torch.zeros_like(weight) if own[name] is None else own[name]
            torch.testing.assert_close(weight.grad, expected)

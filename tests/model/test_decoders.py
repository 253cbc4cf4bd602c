import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
    PreTrainedConfig,
)

from mmsr.model.configuration import RATIONALE_FORMATS, MmsrConfig
from mmsr.model.decoders import (
    CACHE,
    DECODER_CLASSES,
    CrossAttentionDecoder,
    LabelGrammar,
    PrefixDecoder,
    RationaleDecoder,
    SampledCandidates,
)
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor

BERT = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 37,
    "max_position_embeddings": 64,
}
LLAMA = {**BERT, "num_key_value_heads": 1, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
BART = {
    "d_model": 24,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 37,
    "decoder_ffn_dim": 37,
    "max_position_embeddings": 64,
    "decoder_start_token_id": 2,
}
T5 = {"d_model": 24, "d_kv": 12, "d_ff": 37, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0}
GPT2 = {"n_embd": 24, "n_layer": 1, "n_head": 2, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 2}

FAMILIES: dict[tuple[str, str], dict[str, Any]] = {
    ("cross_attention", "bart"): BART,
    ("cross_attention", "mbart"): BART,
    ("cross_attention", "t5"): T5,
    ("cross_attention", "mt5"): T5,
    ("cross_attention", "gpt2"): {**GPT2, "add_cross_attention": True},
    ("cross_attention", "bert"): {**BERT, "is_decoder": True, "add_cross_attention": True},
    ("cross_attention", "xlm-roberta"): {**BERT, "is_decoder": True, "add_cross_attention": True},
    ("prefix", "gpt2"): GPT2,
    ("prefix", "llama"): LLAMA,
    ("prefix", "qwen2"): LLAMA,
}
FAMILY = pytest.mark.parametrize(
    ("decoder_type", "model_type"), [pytest.param(*names, id="-".join(names)) for names in FAMILIES]
)


def part(decoder_type: str, model_type: str, **overrides: Any) -> PreTrainedConfig:
    settings = {**FAMILIES[decoder_type, model_type], **overrides}
    return AutoConfig.for_model(model_type, vocab_size=256, **settings)


def joint(decoder_type: str, decoder: PreTrainedConfig, **overrides: Any) -> MmsrConfig:
    start = {"decoder_start_token_id": getattr(decoder, "decoder_start_token_id", None) or 0}
    return MmsrConfig.from_preset(
        "tiny", decoder_type=decoder_type, decoder=decoder, **{**start, **overrides}
    )


def lively(module: torch.nn.Module) -> Any:
    torch.manual_seed(2)
    for parameter in module.parameters():
        if parameter.ndim > 1:
            torch.nn.init.xavier_normal_(parameter)
    return module.eval()


def made(decoder_type: str, model_type: str, attention: str = "sdpa") -> RationaleDecoder:
    decoder = lively(DECODER_CLASSES[decoder_type](joint(decoder_type, part(decoder_type, model_type))))
    decoder.model.set_attn_implementation(attention)
    return decoder


MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0]])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@FAMILY
@torch.no_grad()
def test_a_decoder_reads_the_memory_and_not_the_future(decoder_type: str, model_type: str, attention: str):
    decoder = made(decoder_type, model_type, attention)
    torch.manual_seed(4)
    ids, memory = torch.randint(8, 256, (2, 6)), torch.randn(2, 5, 32)

    def logits(ids: Tensor, memory: Tensor) -> Tensor:
        return decoder(memory, MASK, input_ids=ids).logits

    before = logits(ids, memory)
    assert before.shape == (2, 6, 256)
    changed = ids.clone()
    changed[:, 3] = (ids[:, 3] + 50) % 240 + 8
    moved = (logits(changed, memory) - before).abs().amax(-1)
    assert moved[:, :3].max() < 1e-5 and (moved[:, 3:] > 1e-4).all()
    other = torch.where(MASK[:, :, None] == 1, memory, torch.randn(2, 5, 32))
    assert_close(logits(ids, other), before, atol=1e-5, rtol=1e-4)
    scaled = memory * torch.tensor([1.0, -2.0]).repeat(16)
    assert ((logits(ids, scaled) - before).abs().amax(-1) > 1e-4).all()


@FAMILY
@torch.no_grad()
def test_a_memory_without_its_padding_and_a_cache_give_the_same(decoder_type: str, model_type: str):
    decoder = made(decoder_type, model_type)
    torch.manual_seed(4)
    ids, memory = torch.randint(8, 256, (2, 6)), torch.randn(2, 5, 32)
    whole = decoder(memory, MASK, input_ids=ids).logits
    alone = decoder(memory[1:, [0, 2]], torch.ones(1, 2), input_ids=ids[1:]).logits
    assert_close(alone[0], whole[1], atol=2e-5, rtol=1e-4)
    cache, steps = None, []
    for new in (ids[:, :2], ids[:, 2:3], ids[:, 3:]):
        answer = decoder(memory, MASK, input_ids=new, cache=cache, use_cache=True)
        cache = answer[CACHE]
        steps.append(answer.logits)
    assert_close(torch.cat(steps, 1), whole, atol=2e-5, rtol=1e-4)
    embedded = decoder.model.get_input_embeddings()(ids)
    assert_close(decoder(memory, MASK, inputs_embeds=embedded).logits, whole, atol=2e-5, rtol=1e-4)


@FAMILY
def test_every_weight_of_a_decoder_is_trained(decoder_type: str, model_type: str):
    decoder = made(decoder_type, model_type).train()
    output = decoder(torch.randn(2, 5, 32), MASK, input_ids=torch.randint(8, 256, (2, 6)))
    output.logits.logsumexp(-1).sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or name.endswith(("k_proj.bias", "key.bias")), name


@FAMILY
@torch.no_grad()
def test_a_joint_model_of_each_family_generates_saves_and_loads(
    decoder_type: str, model_type: str, batch: dict[str, Tensor], tmp_path: Path
):
    """Beams equal those without a cache; each weight is saved once."""
    config = joint(decoder_type, part(decoder_type, model_type), rationale_format="post_thinking")
    model = lively(MmsrForSentimentReasoning(config))
    settings = {"max_new_tokens": 7, "num_beams": 2, "do_sample": False}
    written = model.generate(**batch, **settings)
    assert torch.equal(written, model.generate(**batch, **settings, use_cache=False))
    assert torch.isin(written[:, 1], torch.tensor(config.label_token_ids)).all()
    model.save_pretrained(tmp_path)
    again = MmsrForSentimentReasoning.from_pretrained(tmp_path).eval()
    assert torch.equal(written, again.generate(**batch, **settings))
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


@pytest.mark.parametrize("model_type", ["bart", "t5"])
def test_the_encoder_of_an_encoder_decoder_is_taken_out_and_the_rest_carried_over(
    model_type: str, tmp_path: Path
):
    pretrained = lively(AutoModelForSeq2SeqLM.from_config(part("cross_attention", model_type)))
    pretrained.save_pretrained(tmp_path)
    loaded = CrossAttentionDecoder.load(tmp_path)
    weights = dict(loaded.named_parameters())
    assert not any("encoder." in f".{name}".replace(".decoder.", ".") for name in weights)
    for name, weight in weights.items():
        assert torch.equal(weight, pretrained.get_parameter(name)), name
    memory, ids = torch.randn(2, 5, 24), torch.randint(8, 256, (2, 4))
    ours = loaded(encoder_outputs=(memory,), decoder_input_ids=ids).logits
    assert_close(ours, pretrained(encoder_outputs=(memory,), decoder_input_ids=ids).logits)


def test_new_cross_attention_of_a_pretrained_decoder_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    pretrained = lively(AutoModelForCausalLM.from_config(part("prefix", "gpt2")))
    pretrained.save_pretrained(tmp_path)
    logging.getLogger("transformers").propagate = True
    with caplog.at_level("WARNING"):
        loaded = CrossAttentionDecoder.load(tmp_path)
    assert "brings no weights for transformer.h.0.crossattention.c_attn.bias" in caplog.text
    assert "start from random numbers" in caplog.text
    for name, weight in pretrained.named_parameters():
        assert torch.equal(loaded.get_parameter(name), weight), name


def test_pretrained_decoder_keeps_its_weights_tokenizer_and_label_tokens(
    tmp_path: Path, batch: dict[str, Tensor]
):
    """`from_encoders` with a tiny text encoder and a causal language model as prefix decoder."""
    ours = MmsrProcessor.train(["kind words", "sharp words"] * 3, vocab_size=300, labels=["sad", "glad"])
    theirs = MmsrProcessor.train(["freundliche Worte"] * 3, vocab_size=320, labels=["x"])
    size = len(theirs.tokenizer)
    config = AutoConfig.for_model("llama", vocab_size=size, **LLAMA)
    language_model = lively(AutoModelForCausalLM.from_config(config))
    for folder, tokenizer in (("text", ours.tokenizer), ("lm", theirs.tokenizer)):
        tokenizer.save_pretrained(tmp_path / folder)
    language_model.save_pretrained(tmp_path / "lm")
    AutoModel.from_config(MmsrConfig.from_preset("tiny", vocab_size=300).text_encoder).save_pretrained(
        tmp_path / "text"
    )
    processor = MmsrProcessor.from_encoders(
        text=tmp_path / "text",
        decoder=tmp_path / "lm",
        labels=["sad", "glad"],
        rationale_format="post_thinking",
    )
    assert len(processor.rationale_tokenizer) == size + 2 and len(processor.tokenizer) == len(ours.tokenizer)
    model = MmsrForSentimentReasoning.from_encoders(
        text=tmp_path / "text",
        decoder=tmp_path / "lm",
        processor=processor,
        fusion="text_only",
        decoder_type="prefix",
        hidden_size=32,
    ).eval()
    assert model.config.label_token_ids == [size, size + 1]
    for name, weight in language_model.named_parameters():
        kept = model.decoder.model.get_parameter(name)  # type: ignore[union-attr]
        assert torch.equal(kept[:size] if "embed_tokens" in name or "lm_head" in name else kept, weight), name
    inputs = processor(
        text=["kind words"], rationale=["freundliche Worte"], sentiment=["glad"], return_tensors="pt"
    )
    assert inputs["labels"][0, 0] == size + 1 and model(**inputs).loss.isfinite()
    model.save_pretrained(tmp_path / "joint")
    processor.save_pretrained(tmp_path / "joint")
    again = MmsrProcessor.from_pretrained(tmp_path / "joint")
    assert again.rationale_format == "post_thinking"
    assert again.decoder_tokenizer is not None and again.label_token_ids == [size, size + 1]
    assert torch.equal(
        again(text=["kind words"], rationale=["freundliche Worte"], sentiment=["glad"], return_tensors="pt")[
            "labels"
        ],
        inputs["labels"],
    )
    reloaded = MmsrForSentimentReasoning.from_pretrained(tmp_path / "joint").eval()
    assert_close(reloaded(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize(
    ("decoder_type", "model_type"),
    [pytest.param(*names, id="-".join(names)) for names in FAMILIES if names[1] != "mt5"],
)
def test_a_pretrained_decoder_grows_by_label_tokens_that_differ(
    decoder_type: str, model_type: str, tmp_path: Path
):
    """Its table grows by one row a label, which starts as the label's name and not as the table's mean."""
    processor = MmsrProcessor.train(["sad", "glad"] * 3, vocab_size=290, labels=["x"])
    size = len(processor.tokenizer)
    settings = {k: v for k, v in FAMILIES[decoder_type, model_type].items() if k != "add_cross_attention"}
    config = AutoConfig.for_model(model_type, vocab_size=size, **settings)
    factory = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    lively(factory.from_config(config)).save_pretrained(tmp_path)
    processor.tokenizer.save_pretrained(tmp_path)
    ours = MmsrProcessor.from_encoders(
        audio=None, decoder=tmp_path, labels=["sad", "glad"], rationale_format="post_thinking"
    )
    assert ours.label_token_ids == [size, size + 1]
    speech = AutoModel.from_config(MmsrConfig.from_preset("tiny").audio_encoder)
    model = MmsrForSentimentReasoning.from_encoders(
        audio=speech,
        decoder=tmp_path,
        processor=ours,
        fusion="audio_only",
        decoder_type=decoder_type,
        hidden_size=32,
    ).eval()
    table = model.decoder.model.get_input_embeddings().weight  # type: ignore[union-attr]
    assert len(table) == size + 2 == model.config.decoder.vocab_size
    for label, token in zip(ours.labels, ours.label_token_ids, strict=True):
        pieces = ours.rationale_tokenizer(label, add_special_tokens=False)["input_ids"]
        assert_close(table[token], table[pieces].mean(0))
    assert (table[size] - table[size + 1]).norm() > 0.1
    model.save_pretrained(tmp_path / "joint")
    again = MmsrForSentimentReasoning.from_pretrained(tmp_path / "joint").eval()
    batch = {
        "input_values": torch.randn(2, 4000),
        "decoder_input_ids": torch.tensor([[0, size], [0, size + 1]]),
    }
    assert torch.equal(again(**batch).logits, model(**batch).logits)


def test_a_prefix_beyond_the_positions_says_so(batch: dict[str, Tensor]):
    decoder = PrefixDecoder(joint("prefix", part("prefix", "gpt2", n_positions=8)))
    with pytest.raises(
        ValueError, match="up to 8 positions, and got 6 of memory, 0 of prompt and 3 of ration"
    ):
        decoder(torch.randn(2, 6, 32), torch.ones(2, 6), input_ids=torch.ones(2, 3, dtype=torch.long))


@pytest.mark.parametrize("model_type", ["mistral", "gemma2", "gemma3_text"])
@torch.no_grad()
def test_padding_takes_no_room_in_a_window(model_type: str):
    """Attention over the last 8 positions: padding between memory and text would fill them."""
    window = {**LLAMA, "num_hidden_layers": 2, "head_dim": 12, "sliding_window": 8}
    config = AutoConfig.for_model(model_type, vocab_size=256, **window)
    decoder = lively(PrefixDecoder(joint("prefix", config)))
    ids, prompt = torch.randint(8, 256, (2, 4)), torch.randint(8, 256, (2, 3))
    memory, mask = torch.randn(2, 12, 32), torch.ones(2, 12)
    mask[1, 3:] = mask[1, 0] = 0
    prompt_mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    given = {"prompt_ids": prompt, "prompt_mask": prompt_mask}
    whole = decoder(memory, mask, input_ids=ids, **given).logits
    alone = decoder(memory[1:, 1:3], mask[1:, 1:3], input_ids=ids[1:], prompt_ids=prompt[1:, :1]).logits
    assert_close(alone[0], whole[1], atol=2e-5, rtol=1e-4)
    first = decoder(memory, mask, input_ids=ids[:, :2], use_cache=True, **given)
    rest = decoder(memory, mask, input_ids=ids[:, 2:], cache=first[CACHE], **given)
    assert_close(torch.cat([first.logits, rest.logits], 1), whole, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("model_type", ["mamba", "mamba2"])
def test_a_state_space_model_is_refused(model_type: str):
    shape = {"hidden_size": 24, "num_hidden_layers": 1, "state_size": 4}
    if model_type == "mamba2":
        shape |= {"num_heads": 4, "head_dim": 12, "n_groups": 1}
    with pytest.raises(ValueError, match=f"model_type='{model_type}', a state-space model, .*; accepted: a"):
        PrefixDecoder(joint("prefix", AutoConfig.for_model(model_type, vocab_size=256, **shape)))


def test_a_prefix_has_no_room_in_a_static_cache(batch: dict[str, Tensor]):
    model = lively(MmsrForSentimentReasoning(joint("prefix", part("prefix", "llama"))))
    with pytest.raises(ValueError, match="cache_implementation='static' .*; accepted: 'dynamic'"):
        model.generate(**batch, max_new_tokens=4, cache_implementation="static")


def test_an_audio_language_model_is_a_configuration(batch: dict[str, Tensor]):
    """Prefix over audio frames, transcript in the prompt: its words move the text, and padding does not."""
    config = MmsrConfig.from_preset(
        "tiny",
        fusion="audio_only",
        decoder_type="prefix",
        prompt_transcript=True,
        rationale_format="post_thinking",
    )
    model = lively(MmsrForSentimentReasoning(config))
    with torch.no_grad():
        plain = model(**batch)
        other = model(**{**batch, "input_ids": batch["input_ids"].flip(1)})
        assert_close(other.sentiment_logits, plain.sentiment_logits)
        assert (other.logits - plain.logits).abs().amax() > 1e-3
        padded = {
            **batch,
            "input_ids": torch.nn.functional.pad(batch["input_ids"], (3, 0), value=99),
            "attention_mask": torch.nn.functional.pad(batch["attention_mask"], (3, 0)),
        }
        assert_close(model(**padded).logits, plain.logits, atol=2e-5, rtol=1e-4)
        beams = {"max_new_tokens": 6, "num_beams": 2, "do_sample": False}
        written = model.generate(**batch, **beams)
        assert torch.equal(written, model.generate(**padded, **beams))
        assert torch.equal(written, model.generate(**batch, **beams, use_cache=False))
        deaf = model.generate(input_values=batch["input_values"], **beams)
        assert deaf.shape[0] == 3  # without any transcript it still answers


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"fusion": "cross_attention"}, "prompt_transcript=True contradicts .*fusion='cross_attention'"),
        ({"decoder_type": "cross_attention"}, "contradicts decoder_type='cross_attention'"),
    ],
)
def test_a_prompt_elsewhere_is_refused(overrides: dict[str, Any], message: str):
    settings = {"fusion": "audio_only", "decoder_type": "prefix", "prompt_transcript": True}
    with pytest.raises(ValueError, match=message):
        MmsrConfig.from_preset("tiny", **{**settings, **overrides})


def test_a_missing_decoder_config_is_asked_for():
    config = MmsrConfig.from_preset("tiny")
    config.decoder = None
    with pytest.raises(
        ValueError, match="decoder_type='cross_attention': decoder is needed but None; accepted"
    ):
        CrossAttentionDecoder(config)


def test_a_decoder_without_cross_attention_raises():
    for name in ("llama", "gpt2"):
        with pytest.raises(
            ValueError, match=f"model_type='{name}', which has no cross-attention; .*'prefix'"
        ):
            CrossAttentionDecoder(joint("cross_attention", part("prefix", name)))


def test_an_encoder_decoder_as_prefix_decoder_raises():
    with pytest.raises(ValueError, match="wants a causal language model, not model_type='t5'"):
        PrefixDecoder(joint("prefix", part("cross_attention", "t5")))


# ---------------------------------------------------------------------- the grammar of what is written


def allowed(grammar: LabelGrammar, *written: list[int]) -> list[set[int]]:
    scores = grammar(torch.tensor(written), torch.zeros(len(written), 12))
    return [set(row.isfinite().nonzero()[:, 0].tolist()) for row in scores]


LABELS = [5, 6, 7]
WORDS = set(range(12)) - set(LABELS)


def grammar(name: str, **settings: Any) -> LabelGrammar:
    layout = RATIONALE_FORMATS[name]
    assert layout is not None
    return LabelGrammar(layout, label_tokens=LABELS, eos_token_id=2, **{"max_length": 8, **settings})


def test_a_label_comes_first_and_once():
    rules = grammar("post_thinking")
    assert allowed(rules, [0], [0]) == [{5, 6, 7}, {5, 6, 7}]
    assert allowed(rules, [0, 6], [0, 5]) == [WORDS, WORDS]
    assert allowed(rules, [0, 6, 9, 10, 11, 9, 9]) == [WORDS]


def test_a_label_comes_last_and_closes_the_text():
    rules = grammar("pre_thinking")
    assert allowed(rules, [0, 9, 9], [0, 9, 6]) == [set(range(12)) - {2}, {2}]
    assert allowed(rules, [0, 9, 9, 9, 9, 9]) == [{5, 6, 7}], "no room for more words"
    forced = grammar("pre_thinking", forced=torch.tensor([2, 0]))
    assert allowed(forced, [0, 9], [0, 9]) == [(WORDS - {2}) | {7}, (WORDS - {2}) | {5}]
    beams = allowed(forced, [0, 9], [0, 8], [0, 9], [0, 6])
    assert beams[:3] == [(WORDS - {2}) | {7}, (WORDS - {2}) | {7}, (WORDS - {2}) | {5}]
    assert beams[3] == {2}


@pytest.mark.parametrize("num_beams", [1, 3])
@torch.no_grad()
def test_every_generated_text_parses_and_ends_on_a_forced_label(batch: dict[str, Tensor], num_beams: int):
    config = MmsrConfig.from_preset("tiny", rationale_format="pre_thinking")
    model = lively(MmsrForSentimentReasoning(config))
    tokens = torch.tensor(config.label_token_ids)
    for forced in (None, torch.tensor([2, 0, 1])):
        written = model.generate(
            **batch, forced_sentiment=forced, num_beams=num_beams, max_new_tokens=8, do_sample=False
        )
        closing = torch.isin(written, tokens)
        assert (closing.sum(1) == 1).all()
        if forced is not None:
            assert torch.equal(written[closing], tokens[forced])


def test_candidates_are_the_greedy_one_and_samples_of_the_model():
    """Gumbel noise gives each token as often as its probability says, without the rare ones."""
    probabilities = torch.tensor([0.6, 0.3, 0.095, 0.005])
    scores = probabilities.log()[None] + 5  # of one row
    candidates = SampledCandidates(8001, seed=1, epsilon=0.02)
    found = candidates(torch.zeros(8001, 1), scores.expand(8001, -1)).argmax(-1)
    assert found[0] == 0
    shares = found[1:].bincount(minlength=4) / 8000
    assert torch.allclose(shares, torch.tensor([0.603, 0.302, 0.095, 0.0]), atol=0.02) and shares[3] == 0
    two = SampledCandidates(8001, seed=1, epsilon=0.02)
    both = two(torch.zeros(16002, 1), scores.expand(16002, -1)).argmax(-1)
    assert torch.equal(both, found.repeat(2)), "each row has the samples that it has alone"
    flat = torch.full((4, 100), -torch.inf)
    flat[:, 10:] = 0.0  # 90 tokens, all of them rare
    assert SampledCandidates(4)(torch.zeros(4, 1), flat)[:, :10].eq(-torch.inf).all()
    assert SampledCandidates(4)(torch.zeros(4, 1), flat)[1].isfinite().any()


@torch.no_grad()
def test_whispers_decoder_writes_as_it_does_and_reads_the_mask(tmp_path: Path):
    torch.manual_seed(0)
    sides = {f"{side}_{name}": 4 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    config = AutoConfig.for_model(
        "whisper",
        vocab_size=120,
        d_model=32,
        **sides,
        encoder_ffn_dim=48,
        decoder_ffn_dim=40,
        num_mel_bins=8,
        max_source_positions=10,
        max_target_positions=20,
        **{"pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3},
        begin_suppress_tokens=None,
    )
    whisper = lively(AutoModelForSpeechSeq2Seq.from_config(config))
    whisper.save_pretrained(tmp_path)
    ours = CrossAttentionDecoder.load(tmp_path).eval()
    ids, memory, ones = torch.randint(4, 120, (2, 7)), torch.randn(2, 10, 32), torch.ones(2, 10)
    expected = whisper(encoder_outputs=(memory,), decoder_input_ids=ids).logits
    given = {"input_ids": ids, "encoder_hidden_states": memory}
    assert_close(ours(**given, encoder_attention_mask=ones).logits, expected, atol=1e-5, rtol=1e-4)
    half = torch.cat([ones[:, :5], 0 * ones[:, 5:]], 1)
    masked = ours(**given, encoder_attention_mask=half).logits
    alone = ours(input_ids=ids, encoder_hidden_states=memory[:, :5], encoder_attention_mask=ones[:, :5])
    assert_close(masked, alone.logits, atol=1e-5, rtol=1e-4)
    assert (masked - expected).abs().max() > 0.01

"""What `generate` writes, from which inputs, and what it refuses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmsr.model.modeling import MmsrForSentimentReasoning

Batch = dict[str, Tensor]
MakeModel = Callable[..., MmsrForSentimentReasoning]

TIGHT = {"atol": 2e-5, "rtol": 1e-4}
FORMATS = ("multitask", "post_thinking", "pre_thinking")


def generate(model: MmsrForSentimentReasoning, **arguments: Any) -> Tensor:
    """8 tokens after the prompt, each another: a model that is not trained would repeat its last."""
    settings = {"do_sample": False, "max_new_tokens": 8, "min_new_tokens": 8, "no_repeat_ngram_size": 1}
    settings |= arguments
    return model.generate(**settings)  # type: ignore[misc]


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_cached_generation_equals_uncached(make_model: MakeModel, ragged: Batch, attention: str, beams: int):
    model = make_model(attention)
    kept = {"num_beams": beams, "output_logits": True, "return_dict_in_generate": True}
    cached, uncached = (generate(model, **ragged, **kept, use_cache=cache) for cache in (True, False))
    assert torch.equal(cached.sequences, uncached.sequences)
    assert_close(torch.stack(cached.logits), torch.stack(uncached.logits), **TIGHT)
    assert cached.past_key_values is not None and uncached.past_key_values is None
    assert len(cached.sequences.unique(dim=0)) == 3


@pytest.mark.parametrize("beams", [1, 3])
def test_a_rationale_starts_from_its_rows_label(make_model: MakeModel, batch: Batch, beams: int):
    model = make_model()
    with torch.no_grad():  # so that the rows differ in their label
        model.head.classifier.bias -= model(**batch).sentiment_logits.mean(0)
    predicted = model(**batch).sentiment_logits.argmax(-1)
    assert len(set(predicted.tolist())) > 1
    tokens = torch.tensor(model.config.label_token_ids)
    sequences = generate(model, **batch, num_beams=beams)
    assert sequences.shape == (3, 10) and (sequences[:, 0] == model.config.decoder_start_token_id).all()
    assert torch.equal(sequences[:, 1], tokens[predicted])

    forced = (predicted + torch.tensor([1, 2, 1])) % 3
    counterfactual = generate(model, **batch, num_beams=beams, forced_sentiment=forced)
    assert torch.equal(counterfactual[:, 1], tokens[forced])
    assert (counterfactual[:, 2:] != sequences[:, 2:]).any(-1).all()
    assert torch.equal(model(**batch, forced_sentiment=forced).logits, model(
        **batch, decoder_input_ids=counterfactual[:, :2]
    ).logits)  # fmt: skip


@pytest.mark.parametrize("forced", [[0, 1, 3], [-1, 0, 0], [1]])
def test_a_forced_label_that_is_none_raises(make_model: MakeModel, batch: Batch, forced: list[int]):
    with pytest.raises(
        ValueError, match=r"forced_sentiment=\[.*\]; accepted: one label id per row, of .*posit"
    ):
        generate(make_model(), **batch, forced_sentiment=torch.tensor(forced))


@pytest.mark.parametrize("beams", [1, 3])
def test_the_memory_is_made_once_per_utterance(make_model: MakeModel, batch: Batch, beams: int):
    model = make_model()
    rows: list[int] = []
    parts = (model.encoder, model.encoder.audio_encoder.model, model.encoder.text_encoder.model)
    for part in parts:
        part.register_forward_hook(lambda module, args, output: rows.append(len(output[0])))
    generate(model, **batch, num_beams=beams)
    assert rows == [3, 3, 3]


def test_the_head_pools_the_memory_once_however_long_the_text(
    make_model: MakeModel, batch: Batch, monkeypatch
):
    model = make_model()
    head, calls = model.head.forward, []
    monkeypatch.setattr(model.head, "forward", lambda *given: (calls.append(1), head(*given))[1])
    generate(model, **batch)
    assert len(calls) == 1


def test_given_targets_do_not_leak_into_generation(make_model: MakeModel, batch: Batch, labels: Tensor):
    model = make_model()
    wrong = (model(**batch).sentiment_logits.argmax(-1) + 1) % 3
    labels[:, 0] = torch.tensor(model.config.label_token_ids)[wrong]
    answer = generate(model, **batch, sentiment_labels=wrong, labels=labels)
    assert torch.equal(answer, generate(model, **batch))


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("fusion", ["cross_attention", "audio_only"])
def test_generation_from_audio_alone_reads_no_transcript(
    make_model: MakeModel, batch: Batch, fusion: str, beams: int
):
    model = make_model(fusion=fusion)
    heard = {name: batch[name] for name in ("input_values", "input_values_mask")}
    expected = generate(model, encoder_outputs=model.encoder(**heard), num_beams=beams)
    assert torch.equal(generate(model, **heard, num_beams=beams), expected)
    features, mask = model.encoder.encode_audio(**heard)
    from_features = generate(model, audio_features=features, audio_features_mask=mask, num_beams=beams)
    assert torch.equal(from_features, expected)


def test_generation_from_embeddings_equals_that_from_ids(make_model: MakeModel, batch: Batch):
    model = make_model()
    expected = generate(model, **batch)
    embeds = model.get_input_embeddings()(batch.pop("input_ids"))
    assert torch.equal(generate(model, inputs_embeds=embeds, **batch), expected)


def test_generation_without_a_decoder_raises(make_model: MakeModel, batch: Batch):
    with pytest.raises(ValueError, match="gives a label only .* no rationale to generate"):
        generate(make_model(rationale_format="none"), **batch)


def test_the_first_source_that_is_given_tells_the_batch(make_model: MakeModel, batch: Batch):
    model = make_model()
    features, mask = model.encoder.encode_audio(batch["input_values"], batch["input_values_mask"])
    stored = {"audio_features": features, "audio_features_mask": mask}
    expected = generate(model, **stored)
    assert torch.equal(
        generate(model, input_ids=None, input_values=None, inputs_embeds=None, **stored), expected
    )


def test_generation_reads_stored_states_of_a_transcript(make_model: MakeModel, ragged: Batch):
    """Alone and beside audio, with their mask and without."""
    model = make_model()
    heard = {name: ragged[name] for name in ("input_values", "input_values_mask")}
    features, mask = model.encoder.encode_text(ragged["input_ids"], ragged["attention_mask"])
    for given in (
        {"text_features": features},
        {"text_features": features, "attention_mask": mask},
        {"text_features": features, "attention_mask": mask, **heard},
    ):
        assert torch.equal(
            generate(model, **given), generate(model, encoder_outputs=model.encoder(**given))
        ), given.keys()


@pytest.mark.parametrize("nothing", [{}, {"input_values": None}, {"attention_mask": torch.ones(2, 3)}])
def test_generation_from_no_utterance_raises(make_model: MakeModel, nothing: dict[str, Any]):
    with pytest.raises(ValueError, match="no utterance: pass input_values"):
        generate(make_model(), **nothing)


# ---------------------------------------------------------------------- labels in what is written


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("decoder_type", ["cross_attention", "prefix"])
@pytest.mark.parametrize("rationale_format", FORMATS)
def test_a_sampled_text_keeps_to_its_format(
    make_model: MakeModel, batch: Batch, rationale_format: str, decoder_type: str, beams: int
):
    """However few tokens sampling leaves: of those that the format allows, not of all."""
    model = make_model(rationale_format=rationale_format, decoder_type=decoder_type)
    settings = {"do_sample": True, "max_new_tokens": 6, "num_beams": beams}
    for narrow in ({}, {"top_k": 2}, {"top_p": 0.05}, {"min_p": 0.9}, {"temperature": 0.1}):
        for forced in (None, torch.tensor([2, 0, 1])):
            written = model.generate(**batch, forced_sentiment=forced, **settings, **narrow)  # type: ignore[misc]
            labels = model.written_labels(written)
            assert (labels >= 0).all(), (narrow, written)
            assert forced is None or torch.equal(labels, forced)
            assert (torch.isin(written, torch.tensor(model.config.label_token_ids)).sum(1) == 1).all()


@pytest.mark.parametrize("forced", [1, [1, 1, 1], torch.tensor(1), torch.tensor([1, 1, 1])])
@pytest.mark.parametrize("rationale_format", FORMATS)
def test_a_label_is_forced_by_number_list_or_tensor(
    make_model: MakeModel, batch: Batch, rationale_format: str, forced: Any
):
    model = make_model(rationale_format=rationale_format)
    written = model.generate(**batch, forced_sentiment=forced, max_new_tokens=4, num_beams=2)  # type: ignore[misc]
    assert model.written_labels(written).tolist() == [1, 1, 1]


def test_a_partial_text_is_continued_to_the_forced_label(make_model: MakeModel, batch: Batch):
    model = make_model(rationale_format="pre_thinking")
    begun = torch.tensor([[0, 30], [0, 40], [0, 50]])
    forced = torch.tensor([2, 0, 1])
    written = model.generate(  # type: ignore[misc]
        **batch, decoder_input_ids=begun, forced_sentiment=forced, max_new_tokens=5, do_sample=False
    )
    assert torch.equal(written[:, :2], begun) and torch.equal(model.written_labels(written), forced)
    with pytest.raises(ValueError, match=r"forced_sentiment=\[0, 5, 1\]; accepted: one label id per row"):
        generate(model, **batch, decoder_input_ids=begun, forced_sentiment=[0, 5, 1])


@pytest.mark.parametrize("rationale_format", ["multitask", "post_thinking"])
def test_a_forced_label_beside_the_text_that_holds_it_raises(
    make_model: MakeModel, batch: Batch, rationale_format: str
):
    with pytest.raises(
        ValueError, match=r"forced_sentiment=\[0, 2, 1\] contradicts decoder_input_ids: .* one or the other"
    ):
        generate(
            make_model(rationale_format=rationale_format),
            **batch,
            decoder_input_ids=torch.tensor([[0, 5]] * 3),
            forced_sentiment=torch.tensor([0, 2, 1]),
        )


@pytest.mark.parametrize("rationale_format", ["post_thinking", "pre_thinking"])
def test_a_text_too_short_for_its_label_raises(make_model: MakeModel, batch: Batch, rationale_format: str):
    model = make_model(rationale_format=rationale_format)
    with pytest.raises(
        ValueError,
        match=f"max_new_tokens=1 leaves no room for the label that rationale_format='{rationale_format}' "
        r"writes; accepted: 2 \(label and end\) or more",
    ):
        model.generate(**batch, max_new_tokens=1)  # type: ignore[misc]
    shortest = model.generate(**batch, max_new_tokens=2)  # type: ignore[misc]
    assert (model.written_labels(shortest) >= 0).all()


def test_generation_without_an_end_raises(make_model: MakeModel, batch: Batch):
    with pytest.raises(ValueError, match="eos_token_id=None; accepted, to generate: the token that ends"):
        generate(make_model(eos_token_id=None), **batch)


# ---------------------------------------------------------------------- classification


@pytest.mark.parametrize("rationale_format", ["none", "multitask"])
@torch.no_grad()
def test_the_head_classifies(make_model: MakeModel, ragged: Batch, rationale_format: str):
    model = make_model(rationale_format=rationale_format)
    found = model.classify(**ragged)
    expected = model(**ragged)
    assert torch.equal(found.head_logits, expected.sentiment_logits)
    assert torch.equal(found.memory.last_hidden_state, expected.encoder_last_hidden_state)
    assert torch.equal(found.labels, expected.sentiment_logits.argmax(-1))
    assert (found.decoder_logits, found.decoder_labels, found.sequences) == (None, None, None)
    given: Any = tuple(found.memory.values())[:2]
    for memory in (found.memory, given):
        assert torch.equal(model.classify(encoder_outputs=memory).head_logits, found.head_logits)


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("rationale_format", ["post_thinking", "pre_thinking"])
@torch.no_grad()
def test_the_decoder_classifies_where_it_gives_the_label(
    make_model: MakeModel, ragged: Batch, rationale_format: str, beams: int
):
    """As `generate` and the scores of what it wrote say; with the label first two tokens are enough."""
    model = make_model(rationale_format=rationale_format)
    found = model.classify(**ragged, max_new_tokens=6, num_beams=beams)
    written = model.generate(**ragged, max_new_tokens=6, num_beams=beams, do_sample=False)  # type: ignore[misc]
    assert torch.equal(found.sequences, written)
    assert torch.equal(found.decoder_labels, model.written_labels(written))
    assert torch.equal(found.labels, found.decoder_labels)
    assert found.head_logits.shape == found.decoder_logits.shape == (3, 3)
    place = (written[:, 1:, None] == torch.tensor(model.config.label_token_ids)).any(-1).long().argmax(-1)
    logits = model(**ragged, decoder_input_ids=written[:, :-1]).logits[torch.arange(3), place]
    assert_close(found.decoder_logits, logits[:, model.config.label_token_ids], **TIGHT)
    again = model.classify(encoder_outputs=found.memory, max_new_tokens=6, num_beams=beams)
    assert torch.equal(again.decoder_logits, found.decoder_logits)
    head = model.classify(**ragged, head_only=True)
    assert torch.equal(head.head_logits, found.head_logits) and head.sequences is None
    if rationale_format == "post_thinking":
        assert model.classify(**ragged).sequences.shape == (3, 3)
        assert torch.equal(
            model.classify(**ragged).decoder_labels, model.written_labels(generate(model, **ragged))
        )


def test_gradients_pass_through_the_head(make_model: MakeModel, batch: Batch):
    model = make_model(rationale_format="post_thinking")
    batch["input_values"].requires_grad_()
    model.classify(**batch, head_only=True).head_logits.sum().backward()
    assert batch["input_values"].grad is not None and batch["input_values"].grad.abs().max() > 0

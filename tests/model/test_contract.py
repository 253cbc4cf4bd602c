"""What every valid combination of fusion, decoder and rationale format keeps to, on the tiny preset."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from mmsr.model.configuration import DECODERS, RATIONALE_FORMATS, MmsrConfig, without_decoder
from mmsr.model.fusion import FUSION_CLASSES
from mmsr.model.modeling import MmsrForSentimentReasoning

Batch = dict[str, Tensor]
MakeModel = Callable[..., MmsrForSentimentReasoning]
TIGHT = {"atol": 5e-5, "rtol": 1e-4}

COMBINATIONS = [
    (fusion, decoder, layout)
    for fusion in tuple(FUSION_CLASSES)
    for decoder in DECODERS
    for layout in RATIONALE_FORMATS
    if (decoder == "none") == without_decoder(layout)
]
COMBINATION = pytest.mark.parametrize(
    ("fusion", "decoder", "layout"), [pytest.param(*names, id="-".join(names)) for names in COMBINATIONS]
)


@pytest.fixture
def make(make_model: MakeModel) -> Callable[[str, str, str], MmsrForSentimentReasoning]:
    def made(fusion: str, decoder: str, layout: str) -> MmsrForSentimentReasoning:
        return make_model("eager", fusion=fusion, decoder_type=decoder, rationale_format=layout)

    return made


Make = Callable[[str, str, str], MmsrForSentimentReasoning]


def targets(labels: Tensor, layout: str) -> Batch:
    """Targets whose label stands where the format wants it."""
    given = {"sentiment_labels": torch.tensor([0, 1, 2])}
    if layout == "pre_thinking":
        last = torch.full_like(labels, -100)
        for index, target in enumerate(labels):
            kept = target[target >= 0]
            last[index, : len(kept)] = torch.cat([kept[1:-1], kept[:1], kept[-1:]])
        labels = last
    return given if without_decoder(layout) else {**given, "labels": labels}


def test_the_combinations_are_all_of_them():
    assert len(COMBINATIONS) == 12 * (2 * 3 + 2)


@pytest.mark.parametrize(
    ("decoder", "layout"),
    [("none", name) for name in RATIONALE_FORMATS if not without_decoder(name)]
    + [(name, "none") for name in DECODERS if name != "none"]
    + [(name, "retrieval") for name in DECODERS if name != "none"],
)
def test_an_invalid_combination_says_why(decoder: str, layout: str):
    with pytest.raises(ValueError, match=f"decoder_type='{decoder}' contradicts rationale_format='{layout}'"):
        MmsrConfig.from_preset("tiny", decoder_type=decoder, rationale_format=layout)


@pytest.mark.parametrize("field", ["fusion", "decoder_type", "rationale_format", "pooling"])
def test_an_unknown_name_lists_what_exists(field: str):
    near = "; did you mean gated\\?" if field == "fusion" else ""
    with pytest.raises(ValueError, match=f"{field}='gatted' does not exist{near}; accepted: .*, "):
        MmsrConfig.from_preset("tiny", **{field: "gatted"})


@COMBINATION
def test_a_step_reaches_every_weight(
    make: Make, ragged: Batch, labels: Tensor, fusion: str, decoder: str, layout: str
):
    model = make(fusion, decoder, layout).train()
    output = model(**ragged, **targets(labels, layout))
    assert (output.decoder_sentiment_logits is not None) == layout.endswith("thinking")
    output.loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or name.endswith(("k_proj.bias", "key.bias")), name


@COMBINATION
@torch.no_grad()
def test_a_mixed_batch_equals_its_rows_and_padding_changes_nothing(
    make: Make, ragged: Batch, labels: Tensor, fusion: str, decoder: str, layout: str
):
    """Row 1 has no audio, row 2 no transcript; values, labels and what is written with two beams."""
    model = make(fusion, decoder, layout)
    padded = {
        name: nn.functional.pad(value, (3, 2) if value.shape[1] < 100 else (50, 70), value=fill)
        for (name, value), fill in zip(ragged.items(), (99, 0, torch.nan, 0), strict=True)
    }
    given = targets(labels, layout)
    beams = {"num_beams": 2, "max_new_tokens": 5, "do_sample": False}
    plain, other = model(**ragged, **given), model(**padded, **given)
    names = ["sentiment_logits", *(["logits"] if decoder != "none" else [])]
    for name in names:
        assert_close(other[name], plain[name], **TIGHT)
    if decoder != "none":
        written = model.generate(**ragged, **beams)
        assert torch.equal(model.generate(**padded, **beams), written)
        assert torch.equal(model.generate(**ragged, **beams, use_cache=False), written)
    for index in range(3):
        alone = {}
        for values, mask in (("input_ids", "attention_mask"), ("input_values", "input_values_mask")):
            if length := int(ragged[mask][index].sum()):
                alone[values] = ragged[values][index : index + 1, :length]
        single = model(**alone, **{name: value[index : index + 1] for name, value in given.items()})
        for name in names:
            assert_close(single[name][0], plain[name][index], **TIGHT)
        if decoder != "none":
            text, end = model.generate(**alone, **beams)[0], model.config.pad_token_id
            assert torch.equal(text[text != end], written[index][written[index] != end])


@COMBINATION
@torch.no_grad()
def test_a_modality_matters_exactly_where_it_is_used(
    make: Make, batch: Batch, labels: Tensor, fusion: str, decoder: str, layout: str
):
    model = make(fusion, decoder, layout)
    given = targets(labels, layout)
    plain = model(**batch, **given)
    words, voice = dict(batch), dict(batch)
    words["input_ids"] = (batch["input_ids"] + 50) % 240 + 8
    voice["input_values"] = batch["input_values"].roll(400, 1) * 2.0
    for changed, used in ((words, model.config.uses_text), (voice, model.config.uses_audio)):
        other = model(**changed, **given)
        for name in ("sentiment_logits", *(["logits"] if decoder != "none" else [])):
            moved = (other[name] - plain[name]).abs().flatten(1).amax(1)
            assert (moved > 1e-4).all() if used else (moved == 0).all(), (name, moved)


@pytest.mark.parametrize(
    ("fusion", "decoder", "layout"),
    [
        pytest.param(*names, id="-".join(names))
        for names in COMBINATIONS
        if names[0] == "cross_attention" or names[1] == "none"  # each fusion, and each decoder and format
    ],
)
@torch.no_grad()
def test_a_saved_model_answers_as_before(
    make: Make, ragged: Batch, labels: Tensor, fusion: str, decoder: str, layout: str, tmp_path: Path
):
    model = make(fusion, decoder, layout)
    model.save_pretrained(tmp_path)
    again = MmsrForSentimentReasoning.from_pretrained(tmp_path, attn_implementation="eager").eval()
    given: dict[str, Any] = targets(labels, layout)
    before, after = model(**ragged, **given), again(**ragged, **given)
    assert torch.equal(after.loss, before.loss)
    assert torch.equal(after.sentiment_logits, before.sentiment_logits)


@COMBINATION
@torch.no_grad()
def test_a_forced_label_is_the_one_explained(
    make: Make, batch: Batch, fusion: str, decoder: str, layout: str
):
    model = make(fusion, decoder, layout)
    if without_decoder(layout):
        with pytest.raises(ValueError, match="a label only .* there is no rationale to generate"):
            model.generate(**batch)
        return
    tokens = torch.tensor(model.config.label_token_ids)
    for forced in (torch.tensor([0, 1, 2]), torch.tensor([2, 2, 0])):
        written = model.generate(**batch, forced_sentiment=forced, max_new_tokens=6, do_sample=False)
        assert torch.equal(written[torch.isin(written, tokens)], tokens[forced])


@pytest.mark.parametrize(
    ("fusion", "decoder", "layout"),
    [
        pytest.param(*names, id="-".join(names))
        for names in (
            ("text_only", "none", "none"),
            ("audio_only", "none", "none"),
            ("mixture", "none", "none"),
            ("cross_attention", "cross_attention", "multitask"),
            ("cross_attention", "prefix", "post_thinking"),
        )
    ],
)
@torch.no_grad()
def test_an_evaluated_model_is_one_graph(
    make_model: MakeModel, ragged: Batch, labels: Tensor, fusion: str, decoder: str, layout: str
):
    """`torch.compile` without graph breaks; what is tested is the capture, so no compiler is needed."""
    torch.compiler.reset()
    model = make_model(fusion=fusion, decoder_type=decoder, rationale_format=layout)
    given = {} if without_decoder(layout) else {"decoder_input_ids": labels.clamp(min=0)}
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    expected, output = model(**ragged, **given), compiled(**ragged, **given)
    assert_close(output.sentiment_logits, expected.sentiment_logits)
    if given:
        assert_close(output.logits, expected.logits)


@pytest.mark.parametrize("fusion", tuple(FUSION_CLASSES))
@torch.no_grad()
def test_an_evaluated_fusion_is_one_graph(make_model: MakeModel, ragged: Batch, fusion: str):
    """Each by itself: what is around it is the same for all, and is tested above."""
    torch.compiler.reset()
    model = make_model(fusion=fusion, decoder_type="none", rationale_format="none")
    seen: list[Any] = []
    hook = model.encoder.fusion.register_forward_hook(lambda module, *call: seen.append(call))
    model(**ragged)
    hook.remove()
    ((streams, (memory, mask, *_)),) = seen
    compiled = torch.compile(model.encoder.fusion, fullgraph=True, backend="eager")
    found_memory, found_mask, *_ = compiled(*streams)
    assert_close(found_memory, memory)
    assert torch.equal(found_mask, mask)

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import AutoConfig, AutoModel, AutoTokenizer

from mmsr.model.configuration import POOLINGS, MmsrConfig
from mmsr.model.fusion import FUSION_CLASSES
from mmsr.model.modeling import MmsrForSentimentReasoning, MmsrOutput
from mmsr.model.processing import MmsrProcessor

Batch = dict[str, Tensor]


MakeModel = Callable[..., MmsrForSentimentReasoning]


TIGHT = {"atol": 2e-5, "rtol": 1e-4}


def text_config(model_type: str, **overrides: Any) -> Any:
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
    return AutoConfig.for_model(
        model_type, vocab_size=256, max_position_embeddings=64, pad_token_id=1, **{**shape, **overrides}
    )


def row(batch: Batch, index: int, *, drop_absent: bool = False) -> Batch:
    """One row of a batch, without its padding (on the right) and, if asked, without what it lacks."""
    single = {}
    for values, mask in (("input_ids", "attention_mask"), ("input_values", "input_values_mask")):
        length = int(batch[mask][index].sum())
        if length or not drop_absent:
            length = length or batch[mask].shape[1]
            single[values] = batch[values][index : index + 1, :length]
            single[mask] = batch[mask][index : index + 1, :length]
    return single


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_a_future_token_changes_nothing_before_it(make_model: MakeModel, batch: Batch, attention: str):
    model = make_model(attention)
    ids = torch.randint(8, 256, (3, 9))
    before = model(**batch, decoder_input_ids=ids).logits
    for position in (1, 4, 8):
        changed = ids.clone()
        changed[:, position] = (ids[:, position] + 50) % 240 + 8
        after = model(**batch, decoder_input_ids=changed).logits
        assert_close(after[:, :position], before[:, :position], atol=1e-6, rtol=0)
        assert ((after - before)[:, position:].abs().amax(-1) > 1e-3).all()


@pytest.mark.parametrize("encoder", ["xlm-roberta", "bert"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_what_stands_in_it_change_nothing(
    make_model: MakeModel, batch: Batch, labels: Tensor, side: str, attention: str, encoder: str
):
    """Neither values nor gradients: 3 tokens of random ids, 1,234 samples of NaN."""
    model = make_model(attention, text_encoder=text_config(encoder))
    ends = (3, 0) if side == "left" else (0, 3), (1234, 0) if side == "left" else (0, 1234)
    padded = {
        "input_ids": nn.functional.pad(batch["input_ids"], ends[0], value=99),
        "attention_mask": nn.functional.pad(batch["attention_mask"], ends[0]),
        "input_values": nn.functional.pad(batch["input_values"], ends[1], value=torch.nan),
        "input_values_mask": nn.functional.pad(batch["input_values_mask"], ends[1]),
    }
    targets = {"labels": labels, "sentiment_labels": torch.tensor([0, 1, 2])}
    plain, other = model(**batch, **targets), model(**padded, **targets)
    assert_close(other.sentiment_logits, plain.sentiment_logits, **TIGHT)
    assert_close(other.logits, plain.logits, **TIGHT)
    assert_close(gradients(model, other.loss), gradients(model, plain.loss), **TIGHT)


@pytest.mark.parametrize("fusion", tuple(FUSION_CLASSES))
def test_what_stands_in_an_absent_row_changes_nothing(make_model: MakeModel, ragged: Batch, fusion: str):
    model = make_model(fusion=fusion)
    targets = {"labels": torch.full((3, 4), 9), "sentiment_labels": torch.tensor([0, 1, 2])}
    plain = model(**ragged, **targets)
    before = gradients(model, plain.loss)
    ragged["input_values"][1] = torch.nan
    ragged["input_ids"][2] = torch.randint(8, 256, (7,))
    garbage = model(**ragged, **targets)
    assert garbage.sentiment_logits.isfinite().all()
    assert torch.equal(garbage.sentiment_logits, plain.sentiment_logits)
    assert torch.equal(garbage.logits, plain.logits)
    assert_close(gradients(model, garbage.loss), before, atol=0, rtol=0)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("fusion", tuple(FUSION_CLASSES))
@torch.no_grad()
def test_a_row_in_a_batch_equals_the_row_alone(
    make_model: MakeModel, ragged: Batch, fusion: str, attention: str
):
    """Row 1 has no audio and row 2 no transcript: alone, they come without that input altogether."""
    model = make_model(attention, fusion=fusion)
    ids = torch.randint(8, 256, (3, 4))
    whole = model(**ragged, decoder_input_ids=ids)
    for index in range(3):
        for drop in (False, True):
            single = model(**row(ragged, index, drop_absent=drop), decoder_input_ids=ids[index : index + 1])
            assert_close(single.sentiment_logits[0], whole.sentiment_logits[index], **TIGHT)
            assert_close(single.logits[0], whole.logits[index], **TIGHT)


@pytest.mark.parametrize("pooling", POOLINGS)
@torch.no_grad()
def test_sdpa_equals_eager(make_model: MakeModel, ragged: Batch, pooling: str):
    ids = torch.randint(8, 256, (3, 4))
    eager, sdpa = (
        make_model(attention, pooling=pooling)(**ragged, decoder_input_ids=ids)
        for attention in ("eager", "sdpa")
    )
    assert_close(sdpa.sentiment_logits, eager.sentiment_logits, **TIGHT)
    assert_close(sdpa.logits, eager.logits, **TIGHT)


@pytest.mark.parametrize("fusion", tuple(FUSION_CLASSES))
@torch.no_grad()
def test_each_modality_moves_the_output_where_it_is_used(make_model: MakeModel, batch: Batch, fusion: str):
    model = make_model(fusion=fusion)
    ids = torch.randint(8, 256, (3, 4))
    plain = model(**batch, decoder_input_ids=ids)
    words, voice = dict(batch), dict(batch)
    words["input_ids"] = batch["input_ids"].clone()
    words["input_ids"][:, 3] = (words["input_ids"][:, 3] + 50) % 240 + 8
    voice["input_values"] = batch["input_values"].clone()
    voice["input_values"][:, 2000:2400] *= -2.0
    for changed, used in ((words, model.config.uses_text), (voice, model.config.uses_audio)):
        other = model(**changed, decoder_input_ids=ids)
        for name in ("sentiment_logits", "logits"):
            moved = (other[name] - plain[name]).abs().flatten(1).amax(1)
            assert (moved > 1e-4).all() if used else (moved == 0).all(), (name, moved)


@pytest.mark.parametrize("rationale_format", ["none", "multitask"])
@pytest.mark.parametrize("fusion", tuple(FUSION_CLASSES))
def test_gradients_reach_every_parameter(
    make_model: MakeModel, ragged: Batch, labels: Tensor, fusion: str, rationale_format: str
):
    """The encoders' too, and the absent states'. A key's bias alone has no gradient but rounding."""
    model = make_model(
        "eager",
        fusion=fusion,
        rationale_format=rationale_format,
        hidden_size=24,
        audio_layer_mix=fusion != "text_only",
        text_layer_mix=fusion != "audio_only",
    ).train()
    targets = {"labels": labels} if rationale_format == "multitask" else {}
    grads = gradients(model, model(**ragged, **targets, sentiment_labels=torch.tensor([0, 1, 2])).loss)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad
        assert name in grads and grads[name].isfinite().all(), name
        if not name.endswith(("k_proj.bias", "key.bias")):
            assert grads[name].abs().max() > 1e-9, name


def test_the_labels_position_carries_no_loss_but_is_read(make_model: MakeModel, batch: Batch, labels: Tensor):
    model = make_model()
    output = model(**batch, labels=labels)
    expected = nn.functional.cross_entropy(output.logits[:, 1:].flatten(0, 1), labels[:, 1:].flatten())
    assert_close(output.rationale_loss, expected)
    (slope,) = torch.autograd.grad(output.rationale_loss, output.logits)
    assert (slope[:, 0] == 0).all() and (slope[:, 1] != 0).any(-1).all()

    other = labels.clone()
    other[:, 0] = torch.tensor([6, 7, 5])
    forced = model(**batch, labels=other)
    assert torch.equal(forced.logits[:, 0], output.logits[:, 0])
    assert ((forced.logits - output.logits)[:, 1:].abs().amax(-1) > 1e-4).all()


def test_targets_are_shifted_right(make_model: MakeModel, labels: Tensor):
    model = make_model()
    shifted = model.prepare_decoder_input_ids_from_labels(labels)
    assert shifted[1].tolist() == [0, *labels[1, :4].tolist(), 1]


def test_a_row_without_a_rationale_adds_nothing(make_model: MakeModel, batch: Batch, labels: Tensor):
    model = make_model()
    labels[1] = -100
    first, third = (model(**row(batch, i), labels=labels[i : i + 1]).rationale_loss for i in (0, 2))
    counts = torch.tensor([5.0, 4.0])
    expected = (first * counts[0] + third * counts[1]) / counts.sum()
    assert_close(model(**batch, labels=labels).rationale_loss, expected, **TIGHT)


def test_a_batch_without_any_target_has_a_loss_of_zero(make_model: MakeModel, batch: Batch):
    model = make_model()
    nothing = {"labels": torch.full((3, 4), -100), "sentiment_labels": torch.full((3,), -100)}
    output = model(**batch, **nothing)
    assert output.loss == output.sentiment_loss == output.rationale_loss == 0.0
    assert all(grad.isfinite().all() for grad in gradients(model, output.loss).values())
    assert model(**batch).loss is None


@pytest.mark.parametrize("weights", [[1, 2, 4], [0.5, 1.0, 3.0]])
def test_losses_are_weighted_and_smoothed_as_configured(
    make_model: MakeModel, batch: Batch, labels: Tensor, weights: list[float]
):
    sentiment = torch.tensor([2, -100, 0])
    model = make_model(class_weights=weights, label_smoothing=0.2, rationale_loss_weight=0.3)
    output = model(**batch, labels=labels, sentiment_labels=sentiment)
    expected = nn.functional.cross_entropy(
        output.sentiment_logits, sentiment, weight=torch.tensor(weights).float(), label_smoothing=0.2
    )
    assert_close(output.sentiment_loss, expected)
    assert_close(output.loss, expected + 0.3 * output.rationale_loss)
    plain = make_model()(**batch, labels=labels, sentiment_labels=sentiment)
    assert_close(plain.loss, plain.sentiment_loss + plain.rationale_loss)
    assert (plain.sentiment_loss - expected).abs() > 1e-3


@pytest.mark.parametrize("weights", [None, [0.5, 0.0, 3.0]])
def test_soft_targets_take_the_place_of_labels(
    make_model: MakeModel, batch: Batch, weights: list[float] | None
):
    model = make_model(rationale_format="none", class_weights=weights, label_smoothing=0.2)
    known = torch.tensor([2, -100, 0])
    hard = model(**batch, sentiment_labels=known).loss
    certain = torch.tensor([[0.0, 0.0, 1.0], [0.3, 0.3, 0.4], [1.0, 0.0, 0.0]])
    assert_close(model(**batch, sentiment_labels=known, soft_targets=certain).loss, hard)
    shared = certain.clone()
    shared[0] = torch.tensor([0.5, 0.0, 0.5])
    output = model(**batch, sentiment_labels=known, soft_targets=shared)
    scale = torch.ones(3) if weights is None else torch.tensor(weights)
    smoothed = 0.8 * shared + 0.2 / 3
    rows = -(smoothed * scale * output.sentiment_logits.log_softmax(-1)).sum(-1)
    assert_close(output.loss, (rows[0] + rows[2]) / (scale[2] + scale[0]))
    assert (output.loss - hard).abs() > 1e-3


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_a_label_of_weight_zero_counts_nothing(make_model: MakeModel, batch: Batch, label_smoothing: float):
    model = make_model(
        rationale_format="none", class_weights=[1.0, 0.0, 2.0], label_smoothing=label_smoothing
    )
    output = model(**batch, sentiment_labels=torch.tensor([1, 1, -100]))
    assert output.loss == 0.0 and all(
        grad.isfinite().all() for grad in gradients(model, output.loss).values()
    )
    mixed = model(**batch, sentiment_labels=torch.tensor([0, 1, 2]))
    alone = model(**batch, sentiment_labels=torch.tensor([0, -100, 2]))
    assert_close(mixed.loss, alone.loss)
    assert mixed.loss > 0


@pytest.mark.parametrize("rationale_format", ["multitask", "post_thinking"])
def test_target_weights_join_the_losses_of_batches(
    make_model: MakeModel, batch: Batch, labels: Tensor, rationale_format: str
):
    model = make_model(rationale_format=rationale_format, class_weights=[1.0, 0.0, 2.5], label_smoothing=0.1)
    targets = {"labels": labels, "sentiment_labels": torch.tensor([2, 1, 0])}
    whole = model(**batch, **targets)
    sums = dict.fromkeys(("sentiment_loss", "rationale_loss"), 0.0)
    weights = dict.fromkeys(sums, 0.0)
    for rows in (slice(0, 1), slice(1, 2), slice(2, 3)):
        part = {name: values[rows] for name, values in targets.items()}
        output = model(**{name: values[rows] for name, values in batch.items()}, **part)
        for name, weight in model.target_weights(**part).items():
            sums[name] += float(weight * output[name].detach())
            weights[name] += float(weight)
    for name, total in sums.items():
        assert total / weights[name] == pytest.approx(float(whole[name].detach()), rel=1e-4), name
    assert {name: float(w) for name, w in model.target_weights(**targets).items()} == weights


def test_a_rationale_without_a_decoder_raises(make_model: MakeModel, batch: Batch, labels: Tensor):
    model = make_model(rationale_format="none")
    assert model(**batch).logits is None
    with pytest.raises(ValueError, match="labels .* were given to a model with decoder_type='none'"):
        model(**batch, labels=labels)


def test_outputs_hold_every_layer(make_model: MakeModel, batch: Batch):
    model = make_model("eager")
    output = model(
        **batch,
        decoder_input_ids=torch.full((3, 4), 9),
        output_attentions=True,
        output_hidden_states=True,
    )
    assert len(output.encoder_hidden_states) == len(output.audio_hidden_states) == 3
    assert len(output.decoder_hidden_states) == 3
    frames = output.audio_hidden_states[0].shape[1]
    assert output.encoder_hidden_states[0].shape == (3, 7, 32)
    assert [a.shape for a in output.encoder_attentions] == [(3, 4, 7, 7)] * 2
    assert [a.shape for a in output.audio_attentions] == [(3, 4, frames, frames)] * 2
    assert [a.shape for a in output.decoder_attentions] == [(3, 4, 4, 4)] * 2
    assert [a.shape for a in output.cross_attentions] == [(3, 4, 4, frames + 7)] * 2
    ((text_to_audio, audio_to_text),) = output.fusion_attentions
    assert text_to_audio.shape == (3, 4, 7, frames) and audio_to_text.shape == (3, 4, frames, 7)
    assert_close(text_to_audio.sum(-1), torch.ones(3, 4, 7))
    assert output.memory_mask.shape == output.encoder_last_hidden_state.shape[:2] == (3, frames + 7)
    assert model(**batch).encoder_hidden_states is None and model(**batch).fusion_attentions is None


def test_a_tuple_is_the_output_without_its_names(make_model: MakeModel, batch: Batch, labels: Tensor):
    model = make_model()
    targets = {"labels": labels, "sentiment_labels": torch.tensor([0, 1, 2])}
    named = model(**batch, **targets, use_cache=False)
    plain = model(**batch, **targets, use_cache=False, return_dict=False)
    assert isinstance(named, MmsrOutput) and isinstance(plain, tuple)
    assert list(named)[:2] == ["loss", "logits"]  # where transformers' own programs look for them
    assert len(plain) == len(named.to_tuple())
    assert all(torch.equal(a, b) for a, b in zip(plain, named.to_tuple(), strict=True))
    memory = model.encoder(**batch, return_dict=False)
    assert_close(model(encoder_outputs=memory, labels=labels).logits, named.logits)


@torch.no_grad()
def test_embeddings_in_place_of_ids_give_the_same(make_model: MakeModel, batch: Batch):
    model = make_model()
    ids = torch.randint(8, 256, (3, 4))
    expected = model(**batch, decoder_input_ids=ids)
    batch["inputs_embeds"] = model.get_input_embeddings()(batch.pop("input_ids"))
    scale = model.decoder.model.get_input_embeddings()(ids)
    output = model(**batch, decoder_inputs_embeds=scale)
    assert_close(output.sentiment_logits, expected.sentiment_logits)
    assert_close(output.logits, expected.logits)


@pytest.mark.parametrize("fusion", tuple(FUSION_CLASSES))
@torch.no_grad()
def test_resizing_keeps_text_encoder_and_decoder_in_step(make_model: MakeModel, batch: Batch, fusion: str):
    model = make_model(fusion=fusion)
    before = model(**batch, decoder_input_ids=torch.full((3, 2), 9))
    embeddings = model.resize_token_embeddings(300)
    assert embeddings is model.get_input_embeddings() and embeddings.weight.shape == (300, 32)
    after = model(**batch, decoder_input_ids=torch.full((3, 2), 9))
    assert_close(after.sentiment_logits, before.sentiment_logits)
    assert_close(after.logits[..., :256], before.logits)
    assert after.logits.shape[-1] == model.config.decoder.vocab_size == 300
    assert model.get_output_embeddings().weight is model.decoder.model.get_input_embeddings().weight
    if model.config.uses_text:
        assert model.config.text_encoder.vocab_size == 300
        assert model.encoder.text_encoder.model.get_input_embeddings().weight.shape[0] == 300


def test_a_decoder_with_its_own_tokenizer_is_not_resized(make_model: MakeModel):
    model = make_model(shared_vocabulary=False)
    model.resize_token_embeddings(300)
    assert (model.config.text_encoder.vocab_size, model.config.decoder.vocab_size) == (300, 256)
    assert model.get_output_embeddings().weight.shape[0] == 256


def test_parts_have_the_names_of_transformers(make_model: MakeModel):
    model = make_model()
    assert model.get_encoder() is model.encoder and model.get_decoder() is model.decoder.model
    assert model.get_encoder("audio") is model.encoder.audio_encoder.model
    assert model.get_encoder("text") is model.encoder.text_encoder.model
    assert model.can_generate()
    silent = make_model(fusion="audio_only")
    assert silent.get_input_embeddings() is silent.decoder.model.get_input_embeddings()
    with pytest.raises(NotImplementedError, match="fusion='audio_only' has no text encoder"):
        make_model(fusion="audio_only", rationale_format="none").get_input_embeddings()


def test_gradient_checkpointing_changes_no_gradient(make_model: MakeModel, ragged: Batch, labels: Tensor):
    model = make_model().train()
    inputs = {**ragged, "labels": labels, "sentiment_labels": torch.tensor([0, 1, 2]), "use_cache": False}
    torch.manual_seed(0)  # the same dropout both times
    plain = model(**inputs)
    before = gradients(model, plain.loss)
    model.gradient_checkpointing_enable()
    assert sum(getattr(module, "gradient_checkpointing", False) for module in model.modules()) >= 3
    torch.manual_seed(0)
    again = model(**inputs)
    assert_close(again.loss, plain.loss)
    assert_close(gradients(model, again.loss), before)


FRESH_PROCESS = """
import sys, torch, mmsr
from transformers import AutoModel
folder = sys.argv[1]
model, batch = AutoModel.from_pretrained(folder).eval(), torch.load(f"{folder}/batch.pt")
with torch.no_grad():
    output = model(**batch)
sequences = model.generate(**batch, num_beams=2, max_new_tokens=6)
torch.save((type(model).__name__, output.sentiment_logits, output.logits, sequences), f"{folder}/answer.pt")
"""


def test_saved_equals_loaded_in_a_fresh_process(
    make_model: MakeModel, ragged: Batch, tmp_path: Path, run_afresh: Callable[..., Any]
):
    model = make_model(audio_layer_mix=True, hidden_size=24)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    torch.save(ragged, tmp_path / "batch.pt")
    code = f"import torch; torch.set_num_threads(1)\n{FRESH_PROCESS}"
    run_afresh(code, tmp_path).check_returncode()
    name, sentiment_logits, logits, sequences = torch.load(tmp_path / "answer.pt")
    with torch.no_grad():
        expected = model(**ragged)
    assert name == "MmsrForSentimentReasoning"
    assert torch.equal(sentiment_logits, expected.sentiment_logits)
    assert torch.equal(logits, expected.logits)
    assert torch.equal(sequences, model.generate(**ragged, num_beams=2, max_new_tokens=6))  # type: ignore[misc]


@pytest.mark.parametrize("fusion", tuple(FUSION_CLASSES))
@pytest.mark.parametrize("rationale_format", ["none", "multitask"])
def test_a_checkpoint_holds_each_weight_once_and_loads_whole(
    make_model: MakeModel, tmp_path: Path, fusion: str, rationale_format: str
):
    model = make_model(fusion=fusion, rationale_format=rationale_format)
    model.save_pretrained(tmp_path)
    loaded = MmsrForSentimentReasoning.from_pretrained(tmp_path)
    assert_close(loaded.state_dict(), model.state_dict(), atol=0, rtol=0)


@pytest.fixture
def checkpoint(make_model: MakeModel, tmp_path: Path) -> Path:
    make_model().save_pretrained(tmp_path)
    return tmp_path


def test_a_checkpoint_of_a_later_format_raises(checkpoint: Path):
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "format_version": 99}))
    with pytest.raises(Exception, match="format_version=99; this mmsr reads up to 2: install a later mmsr"):
        MmsrForSentimentReasoning.from_pretrained(checkpoint)


@pytest.mark.parametrize("saved_as", [torch.float16, None])
def test_parts_are_built_in_the_models_dtype(saved_as: torch.dtype | None, batch: Batch, tmp_path: Path):
    config = MmsrConfig.from_preset("tiny")
    for name in config.sub_configs:
        config.part(name).dtype = saved_as
    model = MmsrForSentimentReasoning(config)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    model.save_pretrained(tmp_path)
    half = MmsrForSentimentReasoning.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    output = half(**batch, labels=torch.full((3, 4), 9), sentiment_labels=torch.tensor([0, 1, 2]))
    assert output.loss.isfinite() and output.logits.dtype == torch.bfloat16


@pytest.fixture
def parts(trained_processor: MmsrProcessor, tmp_path: Path) -> dict[str, str]:
    """Folders of a tiny speech encoder and a tiny text encoder without label tokens."""
    config = MmsrConfig.from_preset("tiny")
    AutoModel.from_config(config.audio_encoder).save_pretrained(tmp_path / "audio")
    trained_processor.feature_extractor.save_pretrained(tmp_path / "audio")
    size = len(trained_processor.tokenizer)
    bert = text_config("bert")
    bert.vocab_size = size
    AutoModel.from_config(bert).save_pretrained(tmp_path / "text")
    tokenizer = AutoTokenizer.from_pretrained(_saved(trained_processor.tokenizer, tmp_path / "text"))
    assert len(tokenizer) == size
    return {"audio": str(tmp_path / "audio"), "text": str(tmp_path / "text")}


def _saved(tokenizer: Any, folder: Path) -> Path:
    tokenizer.save_pretrained(folder)
    return folder


def test_pretrained_encoders_keep_their_weights_and_configs(parts: dict[str, str], tmp_path: Path):
    processor = MmsrProcessor.from_encoders(**parts, labels=["angry", "calm"])
    model = MmsrForSentimentReasoning.from_encoders(
        **parts, decoder="tiny", processor=processor, hidden_size=24, audio_layer_mix=True
    )
    audio = load_file(Path(parts["audio"]) / "model.safetensors")
    loaded = model.encoder.audio_encoder.model.state_dict()
    assert audio and all(torch.equal(loaded[name], weight) for name, weight in audio.items())
    vocabulary = len(processor.tokenizer)
    assert model.config.labels == ["angry", "calm"]
    assert model.config.text_encoder.vocab_size == model.config.decoder.vocab_size == vocabulary
    assert model.config.label_token_ids == processor.label_token_ids == [vocabulary - 2, vocabulary - 1]
    assert not any("pooler" in name for name, _ in model.named_parameters())

    model.save_pretrained(tmp_path / "joint")
    again = MmsrForSentimentReasoning.from_pretrained(tmp_path / "joint")
    inputs = processor(text=["kind words"], audio=[[0.1] * 2000], return_tensors="pt")
    assert torch.equal(again(**inputs).logits, model.eval()(**inputs).logits)


def test_encoders_without_a_decoder_give_a_label_only(parts: dict[str, str]):
    model = MmsrForSentimentReasoning.from_encoders(text=parts["text"], fusion="text_only", hidden_size=24)
    assert model.decoder is None and model.config.rationale_format == "none"
    assert model.config.audio_encoder is None


def test_a_part_that_the_fusion_needs_is_asked_for(parts: dict[str, str]):
    with pytest.raises(ValueError, match="fusion='cross_attention' needs audio=: Hub id or folder"):
        MmsrForSentimentReasoning.from_encoders(text=parts["text"])
    with pytest.raises(ValueError, match="fusion='text_only' needs text="):
        MmsrForSentimentReasoning.from_encoders(audio=parts["audio"], fusion="text_only")
    with pytest.raises(ValueError, match="decoder='tiny' needs processor="):
        MmsrForSentimentReasoning.from_encoders(**parts, decoder="tiny")
    with pytest.raises(
        ValueError, match="model_type='bert', which is no known speech encoder; accepted: wav2ve"
    ):
        MmsrForSentimentReasoning.from_encoders(audio=parts["text"], text=parts["text"])


@pytest.mark.slow
def test_real_encoders_join(shared_models: Path):
    folders = {"audio": shared_models / "whisper-base", "text": shared_models / "multilingual-e5-small-30k"}
    processor = MmsrProcessor.from_encoders(**folders, text_prefix="query: ")
    model = MmsrForSentimentReasoning.from_encoders(
        **folders, decoder="tiny", processor=processor, hidden_size=32, audio_layer_mix=True
    ).eval()
    assert model.dtype == torch.float32
    generator = torch.Generator().manual_seed(0)
    inputs = processor(
        text=["the doctor was kind", None],
        audio=[None, (torch.randn(16_000, generator=generator) * 0.1).numpy()],
        return_tensors="pt",
    )
    whole = model(**inputs)
    assert whole.memory_mask.sum(-1).tolist() == [1 + int(inputs["attention_mask"][0].sum()), 51]
    text_alone = processor(text=["the doctor was kind"], return_tensors="pt")
    assert_close(model(**text_alone).sentiment_logits[0], whole.sentiment_logits[0], **TIGHT)
    sequences: Any = model.generate(**inputs, do_sample=False, max_new_tokens=8)  # type: ignore[misc]
    assert (
        sequences[:, 1] == torch.tensor(processor.label_token_ids)[whole.sentiment_logits.argmax(-1)]
    ).all()


@torch.no_grad()
def test_the_gates_of_a_mixture_are_in_the_output(make_model: MakeModel, ragged: Batch):
    """By row, whatever its neighbours and its padding; an absent modality moves them."""
    model = make_model(fusion="mixture", fusion_layers=2, fusion_experts=5, fusion_active_experts=3)
    for parameter in model.encoder.fusion.gates.parameters():
        nn.init.normal_(parameter, std=0.2)
    gates = model(**ragged).fusion_gates
    assert gates.shape == (3, 2, 5)
    assert torch.equal((gates > 0).sum(-1), torch.full((3, 2), 3)) and gates.max() < 1
    for index in range(3):
        assert_close(model(**row(ragged, index, drop_absent=True)).fusion_gates[0], gates[index], **TIGHT)
    assert_close(model.encoder(**ragged).fusion_gates, gates)
    mute = {**ragged, "input_values_mask": torch.zeros_like(ragged["input_values_mask"])}
    moved = (model(**mute).fusion_gates - gates).abs().amax((1, 2)) > 1e-3
    assert moved.tolist() == [True, False, True], "row 1 had no audio before"
    assert make_model(fusion="merged")(**ragged).fusion_gates is None

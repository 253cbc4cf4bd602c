"""A memory of rationales on disk: saved as loaded, kept, left out, and refused where it does not fit."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers.utils.logging import get_logger

from mmsr.model.memory import TEXTS, VECTORS, RationaleMemory, RememberedRow
from mmsr.model.modeling import MmsrForSentimentReasoning

MakeModel = Callable[..., MmsrForSentimentReasoning]
ROWS = [
    RememberedRow("positive", "vi", "bác sĩ tốt bụng"),
    RememberedRow("negative", None, "nobody listened"),
    RememberedRow("positive", "vi", "bác sĩ tốt bụng"),
]


@pytest.fixture
def model(make_model: MakeModel) -> MmsrForSentimentReasoning:
    model = make_model(rationale_format="retrieval")
    vectors = torch.nn.functional.normalize(torch.randn(3, model.encoder.embedding_width), dim=1).half()
    model.memory = RationaleMemory(vectors, ROWS, source="clinic.csv")
    return model


def same(first: RationaleMemory | None, second: RationaleMemory | None) -> bool:
    assert first is not None and second is not None
    return (
        torch.equal(first.vectors, second.vectors)
        and first.rows == second.rows
        and first.source == second.source
    )


def test_saved_is_loaded_and_saved_again(model: MmsrForSentimentReasoning, tmp_path: Path):
    model.save_pretrained(tmp_path / "first")
    loaded = MmsrForSentimentReasoning.from_pretrained(tmp_path / "first")
    assert same(loaded.memory, model.memory) and loaded.writes_rationales
    loaded.save_pretrained(tmp_path / "second")
    for name in (VECTORS, TEXTS):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert json.loads((tmp_path / "first" / TEXTS).read_text("utf-8"))["rationales"] == [
        "bác sĩ tốt bụng",
        "nobody listened",
    ], "each text once"


def test_a_forward_pass_embeds_only_for_a_memory(make_model: MakeModel, batch: dict[str, torch.Tensor]):
    assert make_model(rationale_format="none").encoder(**batch).embedding is None
    for embedding in ("text", "fused"):
        model = make_model(rationale_format="retrieval", memory_embedding=embedding)
        found = model.encoder(**batch).embedding
        assert found.shape == (3, model.encoder.embedding_width)
        padded = {
            **batch,
            "input_ids": torch.nn.functional.pad(batch["input_ids"], (0, 3), value=1),
            "attention_mask": torch.nn.functional.pad(batch["attention_mask"], (0, 3)),
        }
        torch.testing.assert_close(model.encoder(**padded).embedding, found, atol=5e-5, rtol=1e-4)
        quiet = {**batch, "input_values": torch.zeros_like(batch["input_values"])}
        assert torch.equal(model.encoder(**quiet).embedding, found) == (embedding == "text")
    alone = {name: batch[name] for name in ("input_values", "input_values_mask")}
    text = make_model(rationale_format="retrieval")
    assert not text.encoder(**alone).embedding.any(), "without a transcript nothing is known"
    heard = make_model(rationale_format="retrieval", fusion="audio_only").encoder(**alone).embedding
    assert heard.any(dim=1).all(), "without a text encoder the memory is of the fused states"


def test_a_model_without_its_memory_gives_labels_and_says_so_once(
    model: MmsrForSentimentReasoning, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    model.save_pretrained(tmp_path)
    for name in (VECTORS, TEXTS):
        (tmp_path / name).unlink()
    logger = get_logger("mmsr.model.modeling")
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.WARNING):
            loaded = MmsrForSentimentReasoning.from_pretrained(tmp_path)
    finally:
        logger.removeHandler(caplog.handler)
    assert loaded.memory is None and not loaded.writes_rationales
    assert f"{tmp_path} lacks {VECTORS} and {TEXTS}, so that its model gives labels" in caplog.text


def test_an_older_checkpoint_and_another_format_have_none(
    model: MmsrForSentimentReasoning, make_model: MakeModel, tmp_path: Path
):
    model.save_pretrained(tmp_path)
    assert MmsrForSentimentReasoning.from_pretrained(tmp_path, rationale_format="none").memory is None
    make_model(rationale_format="multitask").save_pretrained(tmp_path)
    assert not (tmp_path / TEXTS).exists(), "texts of another model are not handed on"
    assert MmsrForSentimentReasoning.from_pretrained(tmp_path).memory is None


def test_files_that_do_not_belong_together_are_refused(model: MmsrForSentimentReasoning, tmp_path: Path):
    model.save_pretrained(tmp_path)
    texts = (tmp_path / TEXTS).read_text("utf-8")
    for content, said in (
        (texts.replace('["negative", null, 1], ', ""), "a memory of 2 rationales with vectors of shape"),
        (texts[:40], "cannot be read"),
        (texts.replace('"negative", null, 1', '"negative", null, 9'), "cannot be read"),
        (texts.replace('"negative"', '"furious"'), "labels furious, positive; accepted: width"),
    ):
        (tmp_path / TEXTS).write_text(content, "utf-8")
        with pytest.raises(ValueError, match=said):
            MmsrForSentimentReasoning.from_pretrained(tmp_path)
    (tmp_path / TEXTS).unlink()
    with pytest.raises(ValueError, match=f"lacks {TEXTS}; accepted: {VECTORS} and {TEXTS}, which belong"):
        MmsrForSentimentReasoning.from_pretrained(tmp_path)


def test_vectors_are_of_the_model_s_width(model: MmsrForSentimentReasoning, tmp_path: Path):
    model.memory = RationaleMemory(torch.ones(3, 5).half(), ROWS, source="clinic.csv")
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="vectors of width 5 .* accepted: width"):
        MmsrForSentimentReasoning.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"a memory of 0 rationales .* accepted: one row or more"):
        RationaleMemory(torch.ones(0, 5).half(), [], source="clinic.csv")


def test_the_card_counts_rows_and_languages_and_names_the_texts(
    model: MmsrForSentimentReasoning, tmp_path: Path
):
    model.save_pretrained(tmp_path)
    card = " ".join((tmp_path / "README.md").read_text("utf-8").split())
    for said in (
        "`retrieval`, from a memory of 3 training rows (the 32 nearest by `text`)",
        f"`{TEXTS}` holds the rationales of 3 rows of `clinic.csv` (vi 2, unknown 1), word for word",
        "delete both files: it then gives labels alone",
    ):
        assert said in card, said
    model.memory = None
    model.save_pretrained(tmp_path)
    assert "Texts of training rows" not in (tmp_path / "README.md").read_text("utf-8")

"""Where a model looks, by attention and by gradients, whatever its fusion and its tokenizer."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import (
    AutoConfig,
    BertTokenizer,
    BertTokenizerLegacy,
    PhobertTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)

from mmsr.data.audio.decoding import Audio
from mmsr.evaluation.explain.attribution import (
    ATTRIBUTIONS,
    Method,
    attention,
    attention_matrix,
    attributions,
    eager_attention,
    gradients,
    last_layer,
    saliency,
)
from mmsr.evaluation.explain.faithfulness import Material, faithfulness
from mmsr.evaluation.rationales import word_spans
from mmsr.evaluation.report.pictures import draw_saliency, rendered
from mmsr.inference.loading import load_pipeline, predictor
from mmsr.model.configuration import MmsrConfig
from mmsr.model.fusion import FUSION_CLASSES, Fused, attention_map
from mmsr.model.layers import CrossAttentionLayer
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.model.processing import MmsrProcessor
from mmsr.records import Attribution

MakeModel = Callable[..., MmsrForSentimentReasoning]
TEXT = "the doctor, was kind"
GEMMA = {
    "hidden_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 12,
    "intermediate_size": 37,
}


def needs_captum() -> None:
    pytest.importorskip("captum", reason="captum is not installed: pip install 'mmsr[explain]'")


def fit_to(make_model: MakeModel, processor: MmsrProcessor, **settings: Any) -> MmsrForSentimentReasoning:
    return make_model(vocab_size=len(processor.tokenizer), **processor.config_kwargs(), **settings)


@pytest.fixture
def model(make_model: MakeModel, processor: MmsrProcessor) -> MmsrForSentimentReasoning:
    return fit_to(make_model, processor)


@pytest.fixture
def audio(waveforms: list[np.ndarray]) -> np.ndarray:
    return waveforms[0]


def weights_of(parts: Any) -> list[float]:
    return [part.weight for part in parts]


# ---------------------------------------------------------------------- attention


def test_attention_weighs_every_word_and_frame(
    model: MmsrForSentimentReasoning, processor: MmsrProcessor, audio: np.ndarray
):
    """Of all tokens, and of those of words alone, as the fusion's weights have it."""
    inputs = processor(text=[TEXT], audio=[audio], return_tensors="pt")
    to_frames, to_tokens = (weights[0].mean(0) for weights in last_layer(model, inputs))
    spoken = slice(1, inputs["input_ids"].shape[1] - 1)  # between <s> and </s>
    for queries, rows in (("tokens", slice(None)), ("words", spoken)):
        found = attention(model, processor, audio=audio, text=TEXT, queries=queries)
        assert [TEXT[word.start : word.end] for word in found.words] == TEXT.split()
        assert [word.word for word in found.words] == TEXT.split()
        assert_close(torch.tensor(weights_of(found.frames)), to_frames[rows].mean(0))
        assert sum(weights_of(found.words)) == pytest.approx(float(to_tokens.mean(0)[spoken].sum()))
        assert found.frames[0].start == 0 and found.frames[-1].end == pytest.approx(len(audio) / 16_000)
        assert all(one.end == pytest.approx(two.start) for one, two in pairwise(found.frames))
    spans = word_spans(TEXT)
    found = attention(model, processor, audio=audio, text=TEXT, words=spans)
    assert [(word.start, word.end) for word in found.words] == spans
    assert sum(weights_of(found.words)) == pytest.approx(float(to_tokens.mean(0)[spoken].sum()))


@pytest.mark.parametrize("fusion", tuple(FUSION_CLASSES))
def test_attention_weighs_what_is_attended_to(
    make_model: MakeModel, processor: MmsrProcessor, audio: np.ndarray, fusion: str
):
    attended = {
        "cross_attention": (True, True),
        "merged": (True, True),
        "mixture": (True, True),
        "bottleneck": (True, True),
        "audio_to_text": (False, True),
        "text_to_audio": (True, False),
    }
    model = fit_to(make_model, processor, fusion=fusion)
    words, frames = attended.get(fusion, (False, False))
    assert bool(attention_map(fusion)) == (words or frames)
    found = attention(model, processor, audio=audio, text=TEXT)
    assert (found.words is not None, found.frames is not None) == (words, frames)
    found = attention(model, processor, audio=audio, text=None)
    assert (found.words is not None, found.frames is not None) == (False, frames)
    found = attention(model, processor, audio=None, text=TEXT)
    assert (found.words is not None, found.frames is not None) == (words, False)


def test_the_matrix_is_a_distribution_over_frames_for_each_token(
    make_model: MakeModel, processor: MmsrProcessor, audio: np.ndarray
):
    processor.text_prefix, text = "so: ", "the doctor was kind"
    for fusion, drawn in (("cross_attention", True), ("audio_to_text", True), ("text_to_audio", False)):
        model = fit_to(make_model, processor, fusion=fusion)
        implementation = model.config._attn_implementation
        seen = attention_matrix(model, processor, audio=audio, text=text)
        assert model.config._attn_implementation == implementation
        assert (seen is not None) == drawn
        if seen is not None:
            assert seen["weights"].shape[0] == len(seen["tokens"])
            np.testing.assert_allclose(seen["weights"].sum(1), 1, atol=1e-4)
            assert "".join(seen["tokens"]).replace("▁", "") == text.replace(" ", "")
            assert seen["waveform"] is audio and seen["rate"] == 16_000
            assert attention_matrix(model, processor, audio=None, text=text) is None
            assert attention_matrix(model, processor, audio=audio, text=None) is None


def implementations(model: nn.Module) -> list[str | None]:
    return [part.config._attn_implementation for part in model.modules() if isinstance(part, PreTrainedModel)]


def prefix(decoder: PreTrainedConfig) -> MmsrConfig:
    return MmsrConfig.from_preset("tiny", decoder_type="prefix", decoder=decoder)


def test_every_part_has_its_own_attention_back(make_model: MakeModel, batch: dict[str, Tensor]):
    """Also where they differ, and where a decoder knows eager attention alone (Gemma 2)."""
    mixed = make_model()
    mixed.set_attn_implementation({"": "sdpa", "decoder": "eager"})
    gemma = AutoConfig.for_model("gemma2", vocab_size=256, **GEMMA)
    for model in (mixed, MmsrForSentimentReasoning(prefix(gemma))):
        before = implementations(model)
        assert len(set(before)) == 2
        with eager_attention(model):
            assert model.config._attn_implementation == "eager"
        assert implementations(model) == before
        assert last_layer(model, batch)[0].shape[:2] == (3, 4)
        assert implementations(model) == before


class Asking(nn.Module):
    """A fusion of a user's: the audio asks the text, and the text itself."""

    attention_map = ((("audio",), ("text",)), (("text",), ("text",)))

    def __init__(self, config: MmsrConfig) -> None:
        super().__init__()
        self.ask, self.think = CrossAttentionLayer(config), CrossAttentionLayer(config)

    def forward(self, audio: Tensor, audio_mask: Tensor, text: Tensor, text_mask: Tensor) -> Fused:
        heard, asked = self.ask(audio, text, text_mask)
        read, thought = self.think(text, text, text_mask)
        return torch.cat([heard, read], 1), torch.cat([audio_mask, text_mask], 1), ((asked, thought),)


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setitem(FUSION_CLASSES, "asking", Asking)
    yield "asking"


def test_a_new_fusion_that_attends_is_looked_at(
    asking: str, make_model: MakeModel, processor: MmsrProcessor, audio: np.ndarray
):
    model = fit_to(make_model, processor, fusion=asking)
    found = attention(model, processor, audio=audio, text=TEXT, queries="words")
    assert found.frames is None
    inputs = processor(text=[TEXT], audio=[audio], return_tensors="pt")
    asked, thought = (weights[0].mean(0) for weights in last_layer(model, inputs))
    words = processor.word_tokens(TEXT)
    spoken = [position for word in words for position in word.positions]
    over = (asked.mean(0) + thought[spoken].mean(0)) / 2
    expected = torch.stack([over[list(word.positions)].sum() for word in words])
    assert_close(torch.tensor(weights_of(found.words)), expected)


# ---------------------------------------------------------------------- gradients


def test_gradients_share_out_the_difference_of_logits(
    model: MmsrForSentimentReasoning, processor: MmsrProcessor
):
    """Words add up to what the transcript adds; special tokens stay as they are, and add nothing."""
    needs_captum()
    found = gradients(model, processor, audio=None, text=TEXT, steps=200)
    inputs = processor(text=[TEXT], return_tensors="pt")
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    blank = torch.where(ids > 2, processor.tokenizer.pad_token_id, ids)
    with torch.no_grad():
        # embeddings, since a model counts positions otherwise where it sees the ids of padding
        embedded = model.encoder.get_input_embeddings()(blank)
        none = model.classify(inputs_embeds=embedded, attention_mask=mask).head_logits[0]
        full = model(**inputs).sentiment_logits[0]
    label = full.argmax()
    assert found.label == model.config.labels[label] and found.frames is None
    assert abs(float(full[label] - none[label])) > 0.01
    assert sum(weights_of(found.words)) == pytest.approx(float(full[label] - none[label]), rel=0.02)


@pytest.mark.parametrize(("absent", "left"), [("audio", "words"), ("text", "frames")])
def test_gradients_of_one_modality(
    model: MmsrForSentimentReasoning, processor: MmsrProcessor, audio: np.ndarray, absent: str, left: str
):
    needs_captum()
    given: dict[str, Any] = {"audio": audio, "text": TEXT, absent: None}
    found = gradients(model, processor, **given, steps=2)
    assert [name for name in ("words", "frames") if getattr(found, name) is not None] == [left]


def test_saliency_is_what_the_picture_shows(
    model: MmsrForSentimentReasoning, processor: MmsrProcessor, audio: np.ndarray
):
    needs_captum()
    shown = saliency(model, processor, audio=audio, text=TEXT)
    assert shown["words"] == ["the", "doctor", "was", "kind"]
    assert len(shown["word_weights"]) == 4
    assert len(shown["frame_weights"]) == len(audio) // 320
    assert shown["label"] in model.config.labels
    assert rendered(lambda: draw_saliency(shown)).png.startswith(b"\x89PNG")


# ---------------------------------------------------------------------- slow tokenizers, and the methods

SLOW_TEXT = "The doctor, was unkind 🙂 today."
WORDPIECES = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] the doctor was un ##kind , . <|negative|> <|neutral|> <|positive|>"
)


@pytest.fixture
def twins(processor: MmsrProcessor, tmp_path: Path) -> dict[bool, MmsrProcessor]:
    """Processors with the same tokenizer, fast and slow."""
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDPIECES.split()) + "\n", encoding="utf-8")
    kinds = (BertTokenizer, BertTokenizerLegacy)
    made = [MmsrProcessor(processor.feature_extractor, kind(str(path))) for kind in kinds]
    return {one.tokenizer.is_fast: one for one in made}


@pytest.mark.parametrize("name", list(ATTRIBUTIONS))
@pytest.mark.parametrize("words", [None, word_spans(SLOW_TEXT)])
def test_a_slow_tokenizer_weighs_as_its_fast_twin(
    make_model: MakeModel, twins: dict[bool, MmsrProcessor], audio: np.ndarray, name: str, words: Any
):
    if not ATTRIBUTIONS[name].installed:
        needs_captum()
    model = fit_to(make_model, twins[True])
    options = {"steps": 4} if name == "gradients" else {}
    fast, slow = (
        ATTRIBUTIONS[name].attribute(model, twins[kind], audio=audio, text=SLOW_TEXT, words=words, **options)
        for kind in (True, False)
    )
    count = len(SLOW_TEXT.split() if words is None else words)
    assert len(fast.words) == len({word.weight for word in fast.words}) == count
    assert [word[:3] for word in slow.words] == [word[:3] for word in fast.words]
    assert weights_of(slow.words) == pytest.approx(weights_of(fast.words), abs=1e-6)
    assert weights_of(slow.frames) == pytest.approx(weights_of(fast.frames), abs=1e-6)


def test_what_phobert_s_tokenizer_reads_is_attributed_and_erased(
    make_model: MakeModel, processor: MmsrProcessor, tmp_path: Path, audio: np.ndarray, utterance: Any
):
    """A tokenizer that exists in Python alone, in a checkpoint."""
    (tmp_path / "vocab.txt").write_text("bác 9\ns@@ 8\nĩ 7\nrất 6\nt@@ 5\nốt 4\n", encoding="utf-8")
    (tmp_path / "bpe.codes").write_text("á c</w> 9\nb ác</w> 8\nr ấ 7\nrấ t</w> 6\nố t</w> 5\n", "utf-8")
    tokenizer = PhobertTokenizer(str(tmp_path / "vocab.txt"), str(tmp_path / "bpe.codes"))
    made = MmsrProcessor(processor.feature_extractor, tokenizer, max_rationale_tokens=4)
    made.add_label_tokens()
    made.save_pretrained(tmp_path / "model")
    fit_to(make_model, made, label_token_ids=made.label_token_ids).save_pretrained(tmp_path / "model")
    pipe = load_pipeline(tmp_path / "model", device="cpu")
    assert not pipe.processor.tokenizer.is_fast
    methods = attributions(pipe.model, pipe.processor)
    assert "attention" in methods
    text = "bác sĩ rất tốt"
    for attribute in methods.values():
        found = attribute(audio=audio, text=text)
        assert [word.word for word in found.words] == text.split()
        assert all(word.weight for word in found.words)
    matrix = attention_matrix(pipe.model, pipe.processor, audio=audio, text=text)
    assert matrix is not None and matrix["tokens"] == tokenizer.tokenize(text)

    path = tmp_path / "x.wav"
    soundfile.write(path, audio, 16_000, subtype="FLOAT")
    material = Material(
        load_audio=Audio(), attributions=methods, predict_labels=predictor(pipe, rationale=False)
    )
    rows = [utterance(f"u{n}", audio=str(path), text=text) for n in range(2)]
    figures = faithfulness(predictor(pipe), rows, labels=pipe.model.config.labels, material=material)
    assert list(figures["erasure"]) == list(methods)
    assert all(list(figures["erasure"][name]) == ["text", "audio"] for name in methods)


def test_a_method_is_one_entry(
    model: MmsrForSentimentReasoning, processor: MmsrProcessor, monkeypatch: pytest.MonkeyPatch
):
    def nothing(model: Any, processor: Any, **utterance: Any) -> Attribution:
        return Attribution()

    monkeypatch.setitem(ATTRIBUTIONS, "nothing", Method(nothing))
    monkeypatch.setitem(ATTRIBUTIONS, "absent", Method(nothing, "no_such_package"))
    methods = attributions(model, processor)
    assert "nothing" in methods and "absent" not in methods
    assert methods["nothing"](audio=None, text=TEXT) == Attribution()

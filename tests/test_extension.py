"""Each kind of thing is added by one entry in one place, and is then found wherever it is used.

CONTRIBUTING.md names the places; `PLACES` holds both together.
"""

import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig

from mmsr.cli.main import main
from mmsr.data.corpora import CORPORA
from mmsr.data.corpora.source import Corpus, Protocol, Source, Utterance
from mmsr.evaluation.metrics import METRICS, Metric
from mmsr.evaluation.report.run import SECTIONS
from mmsr.evaluation.robustness.curves import Curve, Point
from mmsr.evaluation.robustness.perturbations import Material
from mmsr.evaluation.robustness.registry import PERTURBATIONS, Perturbation
from mmsr.model.configuration import RATIONALE_FORMATS, MmsrConfig, RationaleFormat
from mmsr.model.encoders.registry import AUDIO_ENCODERS
from mmsr.model.encoders.waveform import WaveformEncoder
from mmsr.model.fusion import FUSION_CLASSES
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.training.settings import TrainingSettings

ROOT = Path(__file__).resolve().parents[1]
PLACES = (
    "mmsr.model.fusion.FUSION_CLASSES",
    "mmsr.model.pooling.POOLING_CLASSES",
    "mmsr.model.encoders.registry.AUDIO_ENCODERS",
    "mmsr.model.decoders.DECODER_CLASSES",
    "mmsr.model.configuration.RATIONALE_FORMATS",
    "mmsr.data.corpora.CORPORA",
    "mmsr.evaluation.metrics.METRICS",
    "mmsr.evaluation.explain.attribution.ATTRIBUTIONS",
    "mmsr.evaluation.robustness.registry.PERTURBATIONS",
    "mmsr.evaluation.report.run.SECTIONS",
    "mmsr.cli.main.COMMANDS",
)


@pytest.mark.parametrize("place", PLACES)
def test_contributing_names_the_place(place: str) -> None:
    module, name = place.rsplit(".", 1)
    assert getattr(importlib.import_module(module), name)
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    source = f"{module.replace('.', '/')}.py"
    source = source if (ROOT / source).is_file() else f"{module.replace('.', '/')}/__init__.py"
    assert f"`{name}` in [`{source}`]({source})" in text


@pytest.fixture
def help_of(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`help_of("data", "convert")`: what --help prints, on one line."""

    def shown(*words: str) -> str:
        try:
            main([*words])
        except SystemExit as stop:
            assert not stop.code
        return " ".join(capsys.readouterr().out.replace("│", " ").split())

    return shown


class Sum(nn.Module):
    """memory = T + mean A"""

    def __init__(self, config: MmsrConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, audio: Tensor, audio_mask: Tensor, text: Tensor, text_mask: Tensor) -> Any:
        return self.norm(text + audio.mean(1, keepdim=True)), text_mask, ()


def test_a_fusion(monkeypatch: pytest.MonkeyPatch, help_of: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match="fusion"):
        TrainingSettings(fusion="sum")
    monkeypatch.setitem(FUSION_CLASSES, "sum", Sum)
    assert TrainingSettings(fusion="sum").fusion == "sum"
    model = MmsrForSentimentReasoning(MmsrConfig.from_preset("tiny", fusion="sum")).eval()
    with torch.no_grad():
        output = model(input_values=torch.randn(2, 4000), input_ids=torch.randint(10, 200, (2, 5)))
    assert output.sentiment_logits.shape == (2, 3)
    assert "low_rank, film, concat, text_only, audio_only, sum" in help_of("fit", "--help_all")


class ToyConfig(PreTrainedConfig):
    """Another name for wav2vec2's architecture."""

    model_type = "toy-speech"


class ToyEncoder(WaveformEncoder):
    """wav2vec2 under another name."""


def test_an_audio_encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = MmsrConfig.from_preset("tiny")
    before = MmsrForSentimentReasoning(config)
    assert type(before.encoder.audio_encoder) is WaveformEncoder
    monkeypatch.setitem(AUDIO_ENCODERS, "wav2vec2", ToyEncoder)
    assert type(MmsrForSentimentReasoning(config).encoder.audio_encoder) is ToyEncoder
    AutoConfig.register("toy-speech", ToyConfig, exist_ok=True)
    with pytest.raises(ValueError, match="toy-speech.*no known speech encoder; accepted: wav2vec2"):
        MmsrForSentimentReasoning(MmsrConfig.from_preset("tiny", audio_encoder=ToyConfig()))


def test_a_rationale_format(monkeypatch: pytest.MonkeyPatch, help_of: Callable[..., str]) -> None:
    monkeypatch.setitem(RATIONALE_FORMATS, "toy", RationaleFormat(label_first=True, label_learned=True))
    assert TrainingSettings(rationale_format="toy").rationale_format == "toy"
    config = MmsrConfig.from_preset("tiny", rationale_format="toy")
    labels = torch.tensor([[5, 40, 41, 2]])
    output = MmsrForSentimentReasoning(config)(input_ids=torch.tensor([[10, 11]]), labels=labels)
    assert output.decoder_sentiment_logits.shape == (1, 3)
    assert "post_thinking, pre_thinking, retrieval, toy" in help_of("fit", "--help_all")


def read_toy(source: Source) -> Iterator[Utterance]:
    """One row a recording, labelled by its name."""
    for path in source.recordings():
        speaker, label = path.stem.split("_")
        yield Utterance(id=path.stem, where=source.name(path), audio=path, label=label, speaker=speaker)


def test_a_corpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, demo_corpus: Path, help_of: Callable[..., str]
) -> None:
    protocol = Protocol(name="toy", labels=("glad", "sad"), metrics=("uar",), source="none")
    protocols = {"emotion": protocol}
    toy = Corpus(name="toy", read=read_toy, layout="S_LABEL.flac", home="here", protocols=protocols)
    monkeypatch.setitem(CORPORA, "toy", toy)
    assert "folder, toy" in help_of("data", "convert", "--help")
    clips = sorted((demo_corpus.parent / "audio").rglob("*.flac"))[:2]
    (tmp_path / "source").mkdir()
    for clip, name in zip(clips, ("a_glad", "b_sad"), strict=True):
        (tmp_path / "source" / f"{name}.flac").write_bytes(clip.read_bytes())
    help_of("data", "convert", str(tmp_path / "source"), "--from", "toy", "--out", str(tmp_path / "out"))
    record = json.loads((tmp_path / "out" / "corpus.json").read_text(encoding="utf-8"))
    assert record["counts"]["label"] == {"glad": 1, "sad": 1}


def test_a_metric(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, demo_corpus: Path, help_of: Callable[..., str]
) -> None:
    """In metrics.json, `compare`, its help, the report, an ablation's file and `--monitor`."""
    from mmsr.ablation.spec import read_ablation
    from mmsr.training.monitor import mode_of

    toy = Metric(name="error", title="error rate", from_confusion=error_rate, higher_is_better=False)
    monkeypatch.setitem(METRICS, "error", toy)
    out = str(tmp_path / "run")
    manifest, model = str(demo_corpus), ["--model", "demo", "--examples", "0"]
    help_of("evaluate", manifest, *model, "--out", out, "--conditions", "text", "audio+text")
    entry = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))["test"]["text"]
    assert entry["error"] == pytest.approx(1 - entry["accuracy"])
    assert "error rate" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    shown = help_of("compare", f"{out}:text", f"{out}:audio+text", "--metric", "error", "--resamples", "100")
    assert "Differences in error rate (text - audio+text)" in shown
    assert ", length, error; chrf" in help_of("compare", "--help")
    assert mode_of("dev_error") == "min"
    file = tmp_path / "ablation.yaml"
    file.write_text(
        f"base: {ROOT / 'experiments' / 'demo.yaml'}\n"
        f"settings: {{data.manifest: {manifest}}}\n"
        "variants: {a: {model.fusion: gated}, b: {model.fusion: film}}\n"
        "seeds: [0]\n"
        "evaluation: {metric: error, also: [rouge1, bleu]}\n"
    )
    assert read_ablation(file).evaluation.metric == "error"


def error_rate(confusion: Any) -> Any:
    """One minus the accuracy."""
    return 1 - METRICS["accuracy"].from_confusion(confusion)


def shouted(material: Material, values: Any) -> list[Curve]:
    """The transcript in capital letters."""
    points = [Point(value, lambda row: replace(row, text=row.text.upper())) for value in values]
    return [Curve("shouted", "loudness (1)", 0.0, tuple(points))]


def test_a_perturbation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, demo_corpus: Path, help_of: Callable[..., str]
) -> None:
    monkeypatch.setitem(
        PERTURBATIONS, "shouted", Perturbation("in capitals", "loudness", ("text",), (1,), "toys:shouted")
    )
    monkeypatch.setattr(Perturbation, "load", lambda self: shouted)
    shown = help_of("robustness", "--help")
    assert "clip, shouted" in shown and "shouted: loudness" in shown
    command = ["robustness", str(demo_corpus), "--model", "demo", "--out", str(tmp_path / "out")]
    assert "in capitals" in help_of(*command, "--kinds", "shouted", "--condition", "text")
    assert "in capitals" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_a_report_section(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, demo_corpus: Path, help_of: Callable[..., str]
) -> None:
    monkeypatch.setitem(SECTIONS, "A toy section", lambda run: [f"It is of the split {run.split}."])
    command = ["evaluate", str(demo_corpus), "--model", "demo", "--examples", "0", "--conditions", "text"]
    help_of(*command, "--out", str(tmp_path))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "A toy section" in page and "It is of the split test." in page

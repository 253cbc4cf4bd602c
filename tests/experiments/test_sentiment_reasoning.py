"""The paper's table and the formats of thinking: every variant is accepted, and runs with tiny weights."""

import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PhobertTokenizer,
    PreTrainedTokenizerFast,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

pytest.importorskip("lightning")

from mmsr.ablation.ablate import ablate
from mmsr.ablation.plan import resolved
from mmsr.ablation.runner import Event
from mmsr.ablation.spec import Ablation, read_ablation
from mmsr.inference.loading import open_predictor

FOLDER = Path(__file__).parents[2] / "experiments" / "sentiment_reasoning"
E5 = "../shared/models/multilingual-e5-small-30k"
ARCHITECTURES = {
    "vinai/phobert-base-v2": "phobert",
    "demdecuong/vihealthbert-base-word": "phobert",
    "emilyalsentzer/Bio_ClinicalBERT": "bert",
    "FacebookAI/xlm-roberta-base": "xlm-roberta",
    E5: "bert",
    "intfloat/multilingual-e5-small": "bert",
    "VietAI/vit5-base": "t5",
    "luqh/ClinicalT5-base": "t5",
    "google/mt5-base": "mt5",
    "vinai/bartpho-syllable": "mbart",
    "../shared/models/whisper-base": "whisper",
    "openai/whisper-large-v3": "whisper",
    "vtrungnhan9/vmlu-llm": "llama",
    "Viet-Mistral/Vistral-7B-Chat": "mistral",
    "Qwen/Qwen2.5-7B-Instruct": "qwen2",
}
"""The architecture of each model of the table; `phobert` is RoBERTa's with a tokenizer of its own."""
NOT_HERE = "Qwen/Qwen2-Audio-7B-Instruct"  # stays an id; tests/inference has a tiny one
_BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
_BART = {
    "d_model": 32,
    **{f"{side}_layers": 2 for side in ("encoder", "decoder")},
    **{f"{side}_attention_heads": 4 for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": 48 for side in ("encoder", "decoder")},
}
_T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
_LLAMA = {**_BERT, "num_key_value_heads": 2}
SHAPES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta"), {**_BERT, "max_position_embeddings": 258}),
    **dict.fromkeys(("t5", "mt5"), {**_T5, "decoder_start_token_id": 0}),
    "mbart": {**_BART, "max_position_embeddings": 258, "decoder_start_token_id": 2},
    "whisper": {**_BART, "num_mel_bins": 80, "decoder_start_token_id": 1, "begin_suppress_tokens": None},
    **dict.fromkeys(("llama", "mistral", "qwen2"), {**_LLAMA, "max_position_embeddings": 4096}),
}
LABELS = ("negative", "neutral", "positive")
WORDS = {"vi": "bác sĩ rất tận tâm với tôi", "en": "the doctor was kind to me today"}


def stand_in(folder: Path, model_type: str, *, seed: int) -> Path:
    """A random model of this architecture, with a few thousand weights, and its tokenizer."""
    torch.manual_seed(seed)
    if model_type == "phobert":
        model_type, tokenizer = "roberta", phobert_tokenizer(folder)
    else:
        tokenizer = byte_tokenizer()
    tokenizer.save_pretrained(folder)
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    size = {"vocab_size": len(tokenizer), **special}
    config = AutoConfig.for_model(model_type, **SHAPES[model_type], **size)
    if model_type == "whisper":
        WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
        model: Any = WhisperForConditionalGeneration(config)
    elif config.is_encoder_decoder:
        model = AutoModelForSeq2SeqLM.from_config(config)
    elif model_type in ("llama", "mistral", "qwen2"):
        model = AutoModelForCausalLM.from_config(config)
    else:
        model = AutoModel.from_config(config)
    assert sum(weight.numel() for weight in model.parameters()) < 500_000
    model.save_pretrained(folder)
    return folder


def byte_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    )


def phobert_tokenizer(folder: Path) -> PhobertTokenizer:
    """PhoBERT's own tokenizer, of syllables and single letters."""
    folder.mkdir(parents=True, exist_ok=True)
    text = " ".join(WORDS.values())
    letters = [*sorted(set(text) - {" "}), *(f"{letter}@@" for letter in sorted(set(text) - {" "}))]
    (folder / "vocab.txt").write_text("".join(f"{piece} 1\n" for piece in letters), encoding="utf-8")
    (folder / "bpe.codes").write_text("t ô 5\ntô i</w> 4\n", encoding="utf-8")
    return PhobertTokenizer(str(folder / "vocab.txt"), str(folder / "bpe.codes"))


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The folder that stands for each id."""
    root = tmp_path_factory.mktemp("weights")
    return {
        name: str(stand_in(root / str(seed), model_type, seed=seed))
        for seed, (name, model_type) in enumerate(ARCHITECTURES.items())
    }


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows with recording, both transcripts and rationale, in ten blocks, in Vietnamese and English."""
    folder = tmp_path_factory.mktemp("rows")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(30):
        audio = folder / f"{number}.wav"
        with wave.open(str(audio), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes(rng.integers(-9000, 9000, 8_000).astype("<i2").tobytes())
        for language, words in WORDS.items():
            rows.append(
                {
                    "id": f"{language}{number}",
                    "audio": audio.name,
                    "text": " ".join(words.split()[: 3 + number % 4]),
                    "asr_text": words.split()[number % 4],
                    "label": LABELS[number % 3],
                    "rationale": words.split()[number % 3],
                    "language": language,
                    "fold": f"block{number // 3}",
                }
            )
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


class InProcess:
    """Runs in this process, where an error is raised."""

    def run(self, work: Any, runs: Any) -> Any:
        for run in runs:
            run.folder.mkdir(parents=True, exist_ok=True)
            yield Event(run)
            work(run)
            yield Event(run, "finished")


def replaced(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: replaced(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [replaced(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, str) else value


@pytest.fixture(scope="module")
def shrunk(
    stand_ins: dict[str, str], manifest: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Ablation]:
    """`shrunk(file, variants)`: these variants of a file, with stand-ins, two steps, a language, a seed."""
    root = tmp_path_factory.mktemp("table")

    def shrink(name: str, chosen: Callable[[str], bool]) -> Ablation:
        folder = root / str(len(list(root.iterdir())))
        folder.mkdir()
        content = replaced(yaml.safe_load((FOLDER / name).read_text(encoding="utf-8")), stand_ins)
        content["variants"] = {key: value for key, value in content["variants"].items() if chosen(key)}
        for variant in content["variants"].values():
            variant.pop("trainer.precision", None)
            if "grid" in content:
                variant["grid"] = {"language": ["vi"], **(variant.get("grid") or {})}
            if (file := variant.get("language_model")) is not None:
                settings = replaced(yaml.safe_load((FOLDER / file).read_text(encoding="utf-8")), stand_ins)
                small = {"dtype": "float32", "max_tokens": 6}
                (folder / file).write_text(yaml.safe_dump({**settings, **small}), encoding="utf-8")
        content["settings"] |= {
            "trainer.max_steps": 2,
            "trainer.precision": "32-true",
            "data.manifest": str(manifest),
            "data.batch_rows": 4,
        }
        content |= {"seeds": [0], "out": str(folder / "out")}
        if "base" in content:
            base = replaced(yaml.safe_load((FOLDER / content["base"]).read_text(encoding="utf-8")), stand_ins)
            (folder / "base.yaml").write_text(yaml.safe_dump(base, allow_unicode=True), encoding="utf-8")
            content["base"] = str(folder / "base.yaml")
            content["settings"]["data.languages"] = ["vi"]
        content["reference"] = next(iter(content["variants"]))
        if "grid" in content:
            (language, *_), (transcript, *_) = (
                next(iter(content["variants"].values()))["grid"].get(axis, list(content["grid"][axis]))
                for axis in ("language", "transcript")
            )
            content["reference"] += f", {language}, {transcript}"
        content["evaluation"] |= {"block_rows": 2}
        path = folder / name
        path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return read_ablation(path)

    return shrink


def run(ablation: Ablation) -> dict[str, Any]:
    return ablate(ablation, open_model=open_predictor, runner=InProcess())


def table() -> Ablation:
    return read_ablation(FOLDER / "table.yaml")


def test_every_model_of_the_table_has_a_stand_in() -> None:
    ablation = table()
    named = {
        str(settings["model"][part])
        for settings in ablation.variants.values()
        for part in ("text", "audio", "decoder")
        if settings["model"].get(part)
    }
    named |= {settings.model for settings in ablation.language_models.values()}
    assert named - set(ARCHITECTURES) == {NOT_HERE}
    assert len(ablation.variants) > 150 and len(ablation.seeds) >= 3


def test_the_table_has_each_system_on_both_transcripts_in_the_languages_of_its_model() -> None:
    names = set(table().variants)
    for system in ("XLM-R, label", "e5-small, label + rationale", "Qwen2.5-7B, post-thinking"):
        for language in ("vi", "en", "zh", "de", "fr"):
            assert {f"{system}, {language}, human", f"{system}, {language}, asr"} <= names
    assert {name for name in names if name.startswith("PhoBERT")} == {
        "PhoBERT, label, vi, human",
        "PhoBERT, label, vi, asr",
    }
    assert "Whisper -> e5-small, cascade, fr, asr" in names
    assert "Whisper -> e5-small, cascade, fr, human" not in names


@pytest.mark.parametrize("file", ["table.yaml", "thinking.yaml", "thinking_official.yaml"])
@pytest.mark.slow
def test_every_variant_is_what_fit_accepts(file: str) -> None:
    ablation = read_ablation(FOLDER / file)
    once = {}
    for settings in ablation.variants.values():  # but for their languages, which the tests of the data check
        settings = {**settings, "data": {**settings["data"], "languages": ["vi"]}}
        once[json.dumps(settings, sort_keys=True)] = settings
    assert all(resolved(settings) for settings in once.values())
    assert ablation.skips_unavailable


def test_the_recipe_differs_from_its_reference_in_the_text_encoder_alone() -> None:
    ablation = read_ablation(FOLDER / "best_ablation.yaml")
    first, second = (resolved(settings) for settings in ablation.variants.values())
    models = [settings.pop("model") for settings in (first, second)]
    e5 = {"text": "../shared/models/multilingual-e5-small-30k", "text_prefix": "query: "}
    assert first == second
    assert models[0] == {**models[1], **e5} and models[1]["text"] == "base"
    assert first["monitor"] == "last_epoch" and len(ablation.folds) == 5


SYSTEMS = list(yaml.safe_load((FOLDER / "table.yaml").read_text(encoding="utf-8"))["variants"])
QUICK = ("BARTpho, label + rationale", "e5-small + Whisper's decoder, label + rationale")


def check(results: dict[str, Any]) -> None:
    """Each variant was trained, or answered untrained, and has figures on the transcript that it names."""
    assert results["failed"] == [] and results["not_run"] == []
    for name, variant in results["variants"].items():
        (entry,) = variant["runs"]
        assert variant["mean"] is not None, name
        transcript = "asr" if name.endswith(", asr") else "text"
        assert variant["condition"].rpartition("+")[2] == transcript, name
        untrained = "language_model" in variant["settings"]
        assert entry["epochs"] == (0 if untrained else 1), name
        assert (variant["trained_parameters"] == 0) == untrained, name


def test_some_systems_run_on_both_transcripts(shrunk: Callable[..., Ablation]) -> None:
    results = run(shrunk("table.yaml", lambda name: name in QUICK))
    check(results)
    assert len(results["variants"]) == 4
    runs = {variant["runs"][0]["name"] for variant in results["variants"].values()}
    assert len(runs) == 2, "the transcripts of a system are two conditions of one training"
    human, asr = (results["variants"][f"BARTpho, label + rationale, vi, {kind}"] for kind in ("human", "asr"))
    assert human["test"].keys() == {"text"} and asr["test"].keys() == {"asr"}
    assert human["constant_rationale"] is not None


HEARS = ("Whisper + Qwen2.5-7B, audio-language", "Whisper + e5-small, audio + text")


@pytest.mark.parametrize(
    "system", [name for name in SYSTEMS if name not in (*QUICK, "Qwen2-Audio, zero-shot")]
)
@pytest.mark.slow
def test_every_system_runs_on_both_transcripts(shrunk: Callable[..., Ablation], system: str) -> None:
    results = run(shrunk("table.yaml", lambda name: name == system))
    check(results)
    conditions = {variant["condition"] for variant in results["variants"].values()}
    if system == "Whisper -> e5-small, cascade":
        assert conditions == {"asr"}
    else:
        assert conditions == ({"audio+text", "audio+asr"} if system in HEARS else {"text", "asr"})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_formats_of_thinking_are_one_table(shrunk: Callable[..., Ablation]) -> None:
    results = run(shrunk("thinking_official.yaml", lambda name: True))
    check(results)
    assert list(results["variants"]) == [
        *("label only", "multitask", "post-thinking", "pre-thinking"),
        *("retrieval memory", "retrieval-augmented"),
    ]
    assert results["variants"]["retrieval memory"]["test"]["text"]["rougeL"] > 0
    assert results["variants"]["retrieval-augmented"]["difference"] is not None


def test_what_is_not_here_is_left_out_and_named(shrunk: Callable[..., Ablation]) -> None:
    ablation = shrunk("table.yaml", lambda name: name in ("PhoBERT, label", "Qwen2-Audio, zero-shot"))
    results = run(ablation)
    reason = f"weights {NOT_HERE} not here"
    assert [(row["variant"], row["reason"]) for row in results["not_run"]] == [
        (f"Qwen2-Audio, zero-shot, vi, {transcript}", reason) for transcript in ("human", "asr")
    ]
    shown = (ablation.out / "table.md").read_text(encoding="utf-8")
    assert f"| `Qwen2-Audio, zero-shot, vi, asr` | not run: {reason} |" in shown
    assert "2 variants cannot run on this machine" in results["paragraph"]
    assert "Qwen2-Audio" not in (ablation.out / "table.tex").read_text(encoding="utf-8")

"""Variants that cannot run here are left out, and the reason is told."""

from pathlib import Path

import pandas as pd
import pytest
from huggingface_hub.constants import HF_HUB_CACHE

from mmsr.ablation.ablate import ablate
from mmsr.ablation.availability import available, explained
from mmsr.ablation.spec import read_ablation
from mmsr.cli.main import main
from mmsr.inference.loading import open_predictor


@pytest.fixture
def manifest(tmp_path):
    splits = ["train"] * 6 + ["dev"] * 3 + ["test"] * 3
    rows = pd.DataFrame({"text": [f"kind words {i}" for i in range(12)], "split": splits, "language": "en"})
    rows["id"] = rows.index
    rows["label"] = ["negative", "neutral", "positive"] * 4
    rows["asr_text"] = rows["text"].where(rows["split"] == "test")
    rows.to_csv(tmp_path / "manifest.csv", index=False)
    return tmp_path / "manifest.csv"


def variants_of(text_encoder):
    return {
        "here": {"model.text": str(text_encoder)},
        "elsewhere": {"model.text": "owner/words"},
        "no folder": {"model.text": "./nowhere"},
        "spoken": {
            "model.text": str(text_encoder),
            "model.fusion": "concat",
            "model.audio": str(text_encoder),
        },
        "asr alone": {"model.text": str(text_encoder), "test_transcript": "asr_text"},
        "trained on asr": {"model.text": str(text_encoder), "data.text_column": "asr_text"},
        "german": {"model.text": str(text_encoder), "data.languages": ["de"]},
        "asked": {"language_model": "llm.yaml"},
    }


REASONS = {
    "elsewhere": "weights owner/words not here",
    "no folder": "weights ./nowhere not here",
    "spoken": "no test row has audio",
    "trained on asr": "no training row has asr_text",
    "german": "no row is in de",
    "asked": "weights owner/llm not here",
}


def settings(manifest):
    fixed = {"model.fusion": "text_only", "model.rationale_format": "none", "data.manifest": str(manifest)}
    return {**fixed, "trainer.max_steps": 1, "trainer.precision": "32-true"}


@pytest.fixture
def file(write, tmp_path, manifest, text_encoder):
    (tmp_path / "llm.yaml").write_text("model: owner/llm\n")
    return write(
        tmp_path,
        settings=settings(manifest),
        variants=variants_of(text_encoder),
        seeds=[0],
        reference="elsewhere",
        unavailable="skip",
        out=str(tmp_path / "out"),
    )


def test_each_reason_is_found_and_told_in_one_line(file):
    ablation, not_run = available(read_ablation(file))
    assert not_run == REASONS
    assert list(ablation.variants) == list(ablation.changes) == ["here", "asr alone"]
    assert ablation.reference == "here", "the file's cannot run"
    lines = explained({**not_run, "again": "weights owner/words not here"})
    assert lines[0] == "not run: weights owner/words not here, hf download owner/words (elsewhere; again)"
    assert lines[1] == "not run: weights ./nowhere not here (no folder)" and len(lines) == len(REASONS)


def test_weights_in_the_cache_of_the_hub_are_here(file):
    file.with_name("llm.yaml").write_text("model: owner/cached\n")
    snapshot = Path(HF_HUB_CACHE) / "models--owner--cached" / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("0")
    (snapshot / "config.json").write_text("{}")
    _, not_run = available(read_ablation(file))
    assert "asked" in not_run, "a configuration without weights"
    (snapshot / "model.safetensors").write_bytes(b"")
    _, not_run = available(read_ablation(file))
    assert "asked" not in not_run


def test_without_the_key_nothing_is_left_out(write, tmp_path, manifest, text_encoder):
    (tmp_path / "llm.yaml").write_text("model: owner/llm\n")
    path = write(tmp_path, settings=settings(manifest), variants=variants_of(text_encoder))
    ablation = read_ablation(path)
    assert available(ablation) == (ablation, {})


def test_that_no_variant_can_run_is_an_error(write, tmp_path, manifest):
    path = write(
        tmp_path,
        settings=settings(manifest),
        variants={"elsewhere": {"model.text": "owner/words"}},
        unavailable="skip",
    )
    with pytest.raises(ValueError, match="no variant can run here .elsewhere: weights owner/words not here"):
        available(read_ablation(path))


def test_the_table_names_what_was_not_run_and_the_dry_run_too(file, make_runner, tmp_path, capsys):
    main(["ablate", "-c", str(file), "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(REASONS), "both variants that can run are one run"
    assert lines[1].startswith("not run: weights owner/words not here, hf download")
    results = ablate(read_ablation(file), open_model=open_predictor, runner=make_runner())
    assert results["failed"] == [] and set(results["variants"]) == {"here", "asr alone"}
    assert {row["variant"]: row["reason"] for row in results["not_run"]} == REASONS
    shown = (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    assert "| `spoken` | not run: no test row has audio |" in shown
    assert "6 variants cannot run on this machine" in results["paragraph"]
    assert "spoken" not in (tmp_path / "out" / "table.tex").read_text(encoding="utf-8")
    assert results["variants"]["asr alone"]["condition"] == "asr"

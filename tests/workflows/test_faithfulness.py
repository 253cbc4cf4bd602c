"""Faithfulness examined from Python: typed results, and the same files as the command's."""

import json
from pathlib import Path

import pytest

from mmsr.cli.main import main
from mmsr.data.manifest.manifest import load_manifest
from mmsr.model.configuration import MmsrConfig
from mmsr.model.modeling import MmsrForSentimentReasoning
from mmsr.workflows.faithfulness import examine_faithfulness
from mmsr.workflows.settings import Rows


def test_the_function_returns_what_it_writes_and_the_command_writes_the_same(
    demo_corpus, results, tmp_path, capsys
):
    table = load_manifest(demo_corpus).to_list()
    few = [row for split, count in (("train", 20), ("test", 4)) for row in of_split(table, split)[:count]]
    manifest = demo_corpus.with_name("few.jsonl")
    manifest.write_text("".join(json.dumps(row) + "\n" for row in few))
    respoken = tmp_path / "respoken"
    capsys.readouterr()
    examined = examine_faithfulness(
        "demo", Rows(manifest), tmp_path / "function", respoken=respoken, erased=1, pictures=0
    )
    assert capsys.readouterr() == ("", "")
    assert examined.document["n"] == 4 and examined.document["respoken"]["manner"]["label_right"]["n"] == 4
    assert "agreement" in examined.document and "attention" in examined.document["erasure"]
    assert json.loads((tmp_path / "function" / "faithfulness.json").read_text("utf-8")) == examined.document
    assert examined.report.is_file() and (respoken / "voice" / "manifest.csv").is_file()
    command = ["faithfulness", "--model", "demo", "--manifest", str(manifest), "--respoken", str(respoken)]
    main([*command, "--out", str(tmp_path / "command"), "--erased", "1", "--pictures", "0"])
    assert results(tmp_path / "command") == results(tmp_path / "function")


def of_split(rows: list[dict], split: str) -> list[dict]:
    return [row for row in rows if row["split"] == split]


def test_what_cannot_be_examined_is_refused(demo_corpus: Path, tmp_path: Path, processor) -> None:
    rows = Rows(demo_corpus)
    with pytest.raises(ValueError, match="--pictures -1; accepted: 0 or more"):
        examine_faithfulness("demo", rows, tmp_path / "f", pictures=-1)
    sizes = {"vocab_size": len(processor.tokenizer), "rationale_format": "none", "decoder_type": "none"}
    MmsrForSentimentReasoning(MmsrConfig.from_preset("tiny", **sizes)).save_pretrained(tmp_path / "mute")
    processor.save_pretrained(tmp_path / "mute")
    with pytest.raises(ValueError, match="mute writes no rationales; accepted: a model with a decoder"):
        examine_faithfulness(tmp_path / "mute", rows, tmp_path / "f")
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(ValueError, match=r"has metrics\.json"):
        examine_faithfulness("demo", rows, tmp_path)

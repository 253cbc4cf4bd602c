"""Robustness measured from Python: typed results, and the same files as the command's."""

import json
import logging

import pytest

pytest.importorskip("jiwer", reason="alignments need jiwer: pip install 'mmsr[asr]'")

from mmsr.cli.main import main
from mmsr.data.manifest.manifest import load_manifest
from mmsr.workflows.robustness import measure_robustness
from mmsr.workflows.settings import Degradation, Rows


def test_the_function_returns_what_it_writes_and_the_command_writes_the_same(
    demo_corpus, results, tmp_path, capsys, caplog
):
    manifest = demo_corpus.with_name("unlabelled.jsonl")
    rows = load_manifest(demo_corpus).to_list()
    next(row for row in rows if row["split"] == "test")["label"] = None
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    degradation = Degradation(kinds=["missing"], severities={"missing": ["1"]})
    capsys.readouterr()
    with caplog.at_level(logging.WARNING):
        measured = measure_robustness("demo", Rows(manifest), tmp_path / "function", degradation=degradation)
    assert capsys.readouterr() == ("", "")
    assert "1 of 12 rows left out: no label, or not all of audio+text" in caplog.messages
    assert set(measured.predictions) == {"clean", "missing_audio_1", "missing_text_1"}
    assert json.loads((tmp_path / "function" / "robustness.json").read_text("utf-8")) == measured.document
    assert measured.document["model"] == "demo" and measured.document["training_seed"] == 0
    assert measured.report.is_file()
    command = ["robustness", "--model", "demo", "--manifest", str(manifest)]
    command += ["--kinds", "missing", "--severities", "missing=1"]
    main([*command, "--out", str(tmp_path / "command")])
    assert results(tmp_path / "command") == results(tmp_path / "function")
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(ValueError, match=r"has metrics\.json, whose report\.html would be lost"):
        measure_robustness("demo", Rows(manifest), tmp_path)

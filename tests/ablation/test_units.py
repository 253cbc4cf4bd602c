"""Units of intervals and tests."""

import csv
import shutil

import pytest

from mmsr.data.manifest.manifest import load_manifest
from mmsr.evaluation.significance import paired_bootstrap

SETTINGS = {
    "model.preset": "tiny",
    "model.vocab_size": 600,
    "model.rationale_format": "none",
    "data.batch_rows": 8,
    "trainer.max_epochs": 1,
    "trainer.precision": "32-true",
}


def test_blocks_of_rows_are_drawn_together(told_again, said, copied, demo_corpus):
    out, path = copied
    results = told_again(out, path, evaluation={"conditions": ["shuffled_audio"], "block_rows": 7})
    difference = results["variants"]["text_only"]["difference"]
    ours, theirs = (said(out, results, name) for name in ("text_only", "concat"))
    places = {id_: row for row, id_ in enumerate(load_manifest(demo_corpus)["id"])}
    blocks = [places[row["id"]] // 7 for row in ours[0]]
    assert difference["over"] == "blocks of 7 rows and seeds" and difference["units"] == len(set(blocks))
    assert 1 < len(set(blocks)) < len(blocks)
    assert results["variants"]["concat"]["over"] == "blocks of 7 rows"
    one = told_again(out, path, seeds=[0], evaluation={"conditions": ["shuffled_audio"], "block_rows": 7})
    labels = [[row["predicted_label"] for row in side[0]] for side in (ours, theirs)]
    found = paired_bootstrap([row["label"] for row in ours[0]], *labels, clusters=blocks)
    assert one["variants"]["text_only"]["difference"]["interval"] == pytest.approx(found.interval)
    assert f"blocks of 7 rows ({len(set(blocks))})" in (out / "report.md").read_text(encoding="utf-8")


def test_values_of_a_column_are_drawn_together_and_rows_without_one_stand_alone(
    told_again, said, copied, tmp_path, demo_corpus
):
    out, path = copied
    moved = shutil.copytree(demo_corpus.parent, tmp_path / "moved") / demo_corpus.name
    with open(moved, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for place, row in enumerate(rows):
        row |= {"recording": f"r{place // 5}" if place % 5 else "", "session": "one"}
    with open(moved, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    settings = {**SETTINGS, "data.manifest": str(moved)}
    conditions = {"conditions": ["shuffled_audio"]}
    results = told_again(out, path, settings=settings, evaluation={**conditions, "cluster": "recording"})
    known = {row["id"]: row["recording"] or row["id"] for row in rows}
    units = {known[row["id"]] for row in said(out, results, "concat")[0]}
    difference = results["variants"]["text_only"]["difference"]
    assert difference["over"] == "values of recording and seeds" and difference["units"] == len(units)
    by_kind = told_again(out, path, settings=settings, evaluation={**conditions, "cluster": "kind"})
    assert by_kind["variants"]["text_only"]["difference"]["units"] == len({row["kind"] for row in rows})
    for column, message in (
        (
            "recroding",
            r"evaluation cluster 'recroding': .*'recroding' is not in the file; found: .*recording",
        ),
        ("session", r"evaluation cluster 'session': manifest.csv has not two values there; .*, speaker"),
    ):
        with pytest.raises(ValueError, match=message):
            told_again(out, path, settings=settings, evaluation={**conditions, "cluster": column})

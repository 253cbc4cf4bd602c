"""Sheets and scores of people's ratings called from Python: the same files as the commands'."""

import json

import pytest

from mmsr.cli.main import main
from mmsr.evaluation.human.sheet import SheetDesign
from mmsr.workflows.human import make_rating_sheets, score_ratings


@pytest.fixture
def sheets(predictions, tmp_path):
    """Arguments of `make_rating_sheets` for twelve rows of text."""
    lines = [f"r{i},utterance {i},{('negative', 'neutral', 'positive')[i % 3]},en" for i in range(12)]
    (tmp_path / "manifest.csv").write_text("\n".join(["id,text,label,language", *lines]) + "\n")
    return [f"{name}={predictions / name}.jsonl" for name in ("right", "wrong")], tmp_path / "manifest.csv"


def test_the_function_and_the_command_make_the_same_sheets(sheets, results, tmp_path, capsys):
    runs, manifest = sheets
    design = SheetDesign(items=4, raters=2, shared=2)
    made = make_rating_sheets(runs, manifest, tmp_path / "function", design=design, seed=3)
    assert capsys.readouterr() == ("", "")
    assert [sheet.name for sheet in made.sheets] == ["sheet-1.html", "sheet-2.html"] and made.rows == 6
    command = ["human", "make", *runs, "--manifest", str(manifest), "--out", str(tmp_path / "command")]
    main([*command, "--items", "4", "--raters", "2", "--shared", "2", "--seed", "3"])
    assert results(tmp_path / "command") == results(tmp_path / "function")
    for sheet in made.sheets:
        other = tmp_path / "command" / "sheets" / sheet.name
        assert other.read_bytes() == sheet.read_bytes()


def test_the_function_and_the_command_score_alike(sheets, results, tmp_path, capsys):
    runs, manifest = sheets
    made = make_rating_sheets(runs, manifest, tmp_path / "h", design=SheetDesign(items=6))
    key = json.loads(made.key.read_text("utf-8"))
    (sheet,) = key["sheets"]
    items = []
    for item in key["sheets"][sheet]["items"]:
        points = {
            side: {name: 4 if item[side] == "right" else 2 for name in key["criteria"]}
            for side in ("left", "right")
        }
        liked = "left" if item["left"] == "right" else "right"
        items.append({"item": item["item"], **points, "preference": liked, "seconds": 1.0, "plays": 0})
    answers = {"format": "mmsr-ratings-1", "sheet": sheet, "rater": "a", "complete": True, "items": items}
    ratings = tmp_path / "ratings-a.json"
    ratings.write_text(json.dumps(answers))
    scored = score_ratings([ratings], made.key, out=tmp_path / "function", resamples=200)
    assert capsys.readouterr() == ("", "")
    assert scored.left_out == 0 and scored.report == tmp_path / "function" / "report.html"
    assert {contrast.difference for contrast in scored.scores.contrasts[:3]} == {2.0}
    assert scored.document["data_fingerprint"] == key["data_fingerprint"]
    assert score_ratings([ratings], made.key, resamples=200).report is None
    command = ["human", "score", str(ratings), "--key", str(made.key), "--resamples", "200"]
    main([*command, "--out", str(tmp_path / "command")])
    assert results(tmp_path / "command") == results(tmp_path / "function")
    with pytest.raises(ValueError, match="--resamples 50; accepted: 100 or more"):
        score_ratings([ratings], made.key, resamples=50)
    with pytest.raises(ValueError, match="no such file"):
        score_ratings(["none.json"], made.key)

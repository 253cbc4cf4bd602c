"""Runs in a folder, grouped by settings and data, and ranked."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mmsr.evaluation.compare import CompareError
from mmsr.evaluation.entries import evaluate_rows
from mmsr.evaluation.leaderboard import boards, find_runs
from mmsr.evaluation.report.leaderboard import leaderboard_table, write_leaderboard
from mmsr.evaluation.run import prediction_lines
from mmsr.records import Prediction

LABELS = ["negative", "neutral", "positive"]


@pytest.fixture
def make(tmp_path: Path):
    """Writes a run whose wrong answers are each `wrong`th row."""

    def make(name: str, wrong: int, *, seed: int = 0, n: int = 60, data: str = "f00d", **document) -> Path:
        rows = []
        for i in range(n):
            label = LABELS[i % 3]
            predicted = LABELS[(i + 1) % 3] if (i + seed) % wrong == 0 else label
            rows.append(
                Prediction(
                    id=f"r{i}",
                    label=label,
                    predicted_label=predicted,
                    scores={predicted: 1.0},
                    language=["en", "de"][i % 2],
                    condition="text",
                )
            )
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        content = {
            "test": {"text": evaluate_rows(rows, LABELS)},
            "data_fingerprint": data,
            "training_seed": seed,
            "seconds": 2.0,
            "model": {"fusion": "concat", "parameters": 1_250_000, "settings": name.rpartition("-")[0]},
            **document,
        }
        (folder / "metrics.json").write_text(json.dumps(content))
        (folder / "predictions.jsonl").write_text(prediction_lines(rows))
        (folder / "report.html").write_text("r")
        return folder

    return make


@pytest.fixture
def root(make, tmp_path: Path) -> Path:
    for seed in (0, 1):
        make(f"deep/good-{seed}", 20, seed=seed)
        make(f"bad-{seed}", 2, seed=seed)
    make("alone-0", 31)
    make("other-0", 30, data="beef")
    return tmp_path / "runs"


def test_seeds_are_one_system_and_other_data_another_table(root: Path) -> None:
    first, second = boards(find_runs([root]), resamples=200)
    assert [(s.name, len(s.runs)) for s in first.standings] == [("alone-0", 1), ("deep/good", 2), ("bad", 2)]
    assert (first.fingerprint, first.rows, second.fingerprint) == ("f00d", 60, "beef")
    assert [s.name for s in second.standings] == ["other-0"] and second.standings[0].comparison is None
    best, good, bad = first.standings
    assert best.interval("macro_f1")[1] == "rows" and good.interval("macro_f1")[1] == "seeds"
    assert good.comparison.p_holm > 0.05 > bad.comparison.p_holm
    assert bad.comparison.difference == pytest.approx(best.value - bad.value)
    assert bad.comparison.p_holm == pytest.approx(2 * bad.comparison.p_value), "two comparisons"


def test_the_same_seed_twice_is_no_further_seed(make, tmp_path: Path) -> None:
    make("a-0", 20)
    make("again/a-0", 20, model={"fusion": "concat", "settings": "a"})
    make("without-settings-1", 5, seed=1, model={})
    make("without-settings-2", 5, seed=2, model={})
    (board,) = boards(find_runs([tmp_path / "runs"]), resamples=200)
    assert sorted((s.name, len(s.runs)) for s in board.standings) == [
        ("a-0", 1),
        ("again/a-0", 1),
        ("without-settings", 2),
    ]


def test_lower_is_better_where_it_is(make, tmp_path: Path) -> None:
    for name, copied in (("much-0", 0.9), ("little-0", 0.1)):
        folder = make(name, 20)
        document = json.loads((folder / "metrics.json").read_text())
        document["test"]["text"]["verbatim_from_training"] = copied
        (folder / "metrics.json").write_text(json.dumps(document))
    (board,) = boards(find_runs([tmp_path / "runs"]), metric="verbatim_from_training")
    assert [standing.name for standing in board.standings] == ["little-0", "much-0"]
    assert board.standings[1].why_not == "verbatim_from_training is of all rows together"


def test_runs_without_predictions_are_ranked_and_not_compared(make, tmp_path: Path) -> None:
    make("a-0", 20)
    (make("b-0", 2) / "predictions.jsonl").unlink()
    (board,) = boards(find_runs([tmp_path / "runs"]))
    assert (
        board.standings[1].comparison is None
        and "predictions.jsonl: no such file" in board.standings[1].why_not
    )


@pytest.mark.parametrize(
    ("metric", "said"),
    [("f2", "metric 'f2' is unknown; accepted: accuracy, "), ("rougeL", "no run has rougeL; accepted: ")],
)
def test_a_metric_that_no_run_has_is_refused(root: Path, metric: str, said: str) -> None:
    with pytest.raises(CompareError, match=re.escape(said)):
        boards(find_runs([root]), metric=metric)


def test_folders_without_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CompareError, match="no metrics.json with results; accepted: folders that mmsr evaluate"
    ):
        find_runs([tmp_path])
    with pytest.raises(CompareError, match="gone: no such folder"):
        find_runs([tmp_path / "gone"])
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(CompareError, match=r"metrics\.json: no JSON"):
        find_runs([tmp_path])


def test_the_page_has_a_table_a_test_set_and_links_to_reports(root: Path, tmp_path: Path) -> None:
    found = boards(find_runs([root]), resamples=200)
    path = write_leaderboard(tmp_path / "board.html", found, document={"seed": 0, "command": "c"})
    html, text = path.read_text("utf-8"), path.with_suffix(".md").read_text("utf-8")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
        "Data f00d: 60 rows of split test",
        "Data beef: 60 rows of split test",
        "Provenance",
    ]
    assert '<a href="runs/deep/good-0/report.html">deep/good</a>' in html
    assert not re.search(r"https?://|<link|@import|src=\"(?!data:)", html)
    assert "1.25 M" in html and "concat" in html and "by language under the first" in html
    assert (tmp_path / "board-1.png").is_file() and not (tmp_path / "board-2.png").exists()


def test_a_click_on_a_heading_sorts(root: Path, tmp_path: Path, browser) -> None:
    found = boards(find_runs([root]), resamples=200)
    path = write_leaderboard(tmp_path / "board.html", found, document={"seed": 0, "command": "c"})
    page = browser.new_page(offline=True)
    page.goto(path.as_uri())
    table = page.locator("table.sortable").first

    def names() -> list[str]:
        return [name.strip() for name in table.locator("tbody th").all_inner_texts()]

    assert names() == ["alone-0", "deep/good", "bad"]
    table.get_by_role("button", name="system").click()
    assert names() == ["alone-0", "bad", "deep/good"]
    table.get_by_role("button", name="macro-F1", exact=True).click()
    assert names() == ["alone-0", "deep/good", "bad"]
    table.get_by_role("button", name="macro-F1", exact=True).click()
    assert names() == ["bad", "deep/good", "alone-0"]
    assert table.locator("th[aria-sort]").count() == 1
    table.get_by_role("button", name="p (Holm)").click()
    assert names()[-1] == "alone-0", "the best has no p"
    page.close()


def test_a_run_of_an_ablation_is_read_from_its_model(make, tmp_path: Path) -> None:
    folder = make("runs/abc-seed0", 20)
    document = json.loads((folder / "metrics.json").read_text())
    del document["model"]
    (folder / "metrics.json").write_text(json.dumps(document))
    (folder / "report.html").unlink()
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text('{"fusion": "film"}')
    save_file({"a": np.zeros((3, 4)), "b": np.zeros(5)}, folder / "model" / "model.safetensors")
    (run,) = find_runs([tmp_path])
    assert run.model == {"fusion": "film", "parameters": 17} and run.report is None
    for name in ("report.html", "results.json"):
        (folder.parents[1] / name).write_text("{}")
    assert run.report == folder.parents[1] / "report.html"


def test_formats(root: Path) -> None:
    found = boards(find_runs([root]), resamples=200)
    csv = leaderboard_table(found, "csv").splitlines()
    assert csv[0].startswith("system,data,split,rank,macro-F1,") and csv[1].startswith("alone-0,f00d,test,1,")
    assert len(csv) == 1 + 4 and csv[-1].startswith("other-0,beef,test,1,") and ",text alone,de,en," in csv[0]
    latex = leaderboard_table(found, "latex")
    assert (
        latex.count(r"\begin{table}") == 2 and r"\textbf{deep/good}" in latex and r"\textbf{bad}" not in latex
    )
    assert r"\label{tab:leaderboard-macro-f1-f00d-test}" in latex
    assert "\n\n| system | rank | macro-F1 |" in leaderboard_table(found, "md")
    assert leaderboard_table(found, "csv", ["data", "rank"]).startswith("system,data,rank,baseline\n")

"""A comparison called from Python: typed results, and the same as the command's."""

import json
from dataclasses import asdict

import pytest

from mmsr.cli.main import main
from mmsr.workflows.comparison import compare_runs
from mmsr.workflows.settings import ComparisonSettings


def test_the_function_and_the_command_say_the_same(predictions, tmp_path, capsys):
    runs = [f"{name}={predictions / name}.jsonl" for name in ("right", "wrong")]
    page, picture = tmp_path / "c.html", tmp_path / "c.png"
    compared = compare_runs(
        runs, ComparisonSettings(metric="accuracy", resamples=500), report=page, plot=picture
    )
    assert capsys.readouterr() == ("", "")
    (comparison,) = compared.comparisons
    assert comparison.difference == 0.5 and comparison.over == "speakers"
    assert compared.unlabelled == compared.left_out == 0
    assert picture.read_bytes().startswith(b"\x89PNG") and "right and wrong" in page.read_text("utf-8")
    assert page.with_suffix(".md").is_file()
    main(["compare", *runs, "--metric", "accuracy", "--resamples", "500", "--json"])
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(asdict(comparison)))


def test_clusters_come_from_a_table(predictions, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("id,take\n" + "".join(f"r{i},t{i % 2}\n" for i in range(12)))
    runs = [str(predictions / f"{name}.jsonl") for name in ("right", "wrong")]
    compared = compare_runs(runs, ComparisonSettings(cluster="take", cluster_table=table, resamples=100))
    assert compared.comparisons[0].units == 2
    with pytest.raises(ValueError, match="has no column mood; its columns: id, take"):
        compare_runs(runs, ComparisonSettings(cluster="mood", cluster_table=table))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"plot": "p.pdf"}, "--plot p.pdf has another ending; accepted: .png"),
        ({"report": "p.md"}, "--report p.md has another ending; accepted: .html"),
    ],
)
def test_files_of_another_ending_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        compare_runs(["a", "b"], **settings)

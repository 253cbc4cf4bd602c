"""A comparison called from Python: typed results, and the same as the command's."""

import json
from dataclasses import asdict

import pytest

from mmsr.cli.main import main
from mmsr.workflows.comparison import compare_runs, rank_runs
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


def test_a_leaderboard_from_python_and_from_the_command(demo_corpus, tmp_path, capsys):
    for name in ("a", "b"):
        command = ["evaluate", str(demo_corpus), "--model", "demo", "--out", str(tmp_path / "runs" / name)]
        main([*command, "--conditions", "text", "--examples", "0"])
    capsys.readouterr()
    settings = ComparisonSettings(metric="accuracy", resamples=100)
    (board,) = rank_runs([tmp_path / "runs"], settings, page=tmp_path / "function.html")
    assert [standing.name for standing in board.standings] == ["a", "b"]
    model = board.standings[0].runs[0].model
    assert model["name"] == "demo" and model["fusion"] == "cross_attention" and model["parameters"] > 1e6
    assert capsys.readouterr() == ("", "")
    page = tmp_path / "command.html"
    options = ["--metric", "accuracy", "--resamples", "100", "--format", "csv"]
    main(["compare", str(tmp_path / "runs"), "--leaderboard", str(page), *options])
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0].startswith("system,data,split,rank,accuracy,")
    assert f"leaderboard: {page}" in printed.err and page.is_file()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"page": "b.md"}, "--leaderboard b.md has another ending; accepted: .html"),
        ({"settings": ComparisonSettings(all_pairs=True)}, "--all-pairs with --leaderboard; accepted: one"),
    ],
)
def test_a_leaderboard_that_cannot_be_made_is_refused(given, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        rank_runs([tmp_path], **given)

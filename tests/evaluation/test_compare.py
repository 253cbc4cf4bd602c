"""`mmsr compare` as a person calls it, on small files of predictions."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score

from mmsr.cli.main import main
from mmsr.evaluation.compare import System, compare
from mmsr.evaluation.report.pictures import draw_differences, rendered
from mmsr.records import Prediction

LABELS = ["negative", "neutral", "positive"]


@pytest.fixture
def write(prediction, tmp_path):
    """Writes a run of 60 rows and eight speakers, of which every `wrong`-th label is wrong."""

    def write(
        name: str, *, wrong: int, first: int = 0, rows: int = 60, condition="text", **cells: Any
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        lines = []
        for i in range(rows):
            gold = LABELS[i % 3]
            said = LABELS[(i + 1) % 3] if i % wrong == first else gold
            row = prediction(
                f"r{i}",
                label=gold,
                predicted_label=said,
                rationale=f"voice number {i}",
                predicted_rationale=f"voice {'number' if gold == said else ''} {i}",
                speaker=f"s{i % 8}",
                condition=condition,
            )
            lines.append(json.dumps(row.to_row() | cells) + "\n")
        with (folder / "predictions.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(lines)
        return folder

    return write


def printed(capsys, *arguments: Any) -> list[dict[str, Any]]:
    main(["compare", "--json", *map(str, arguments)])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def refused(capsys, *arguments: Any) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(["compare", *map(str, arguments)])
    assert exit_.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_two_runs_as_json(write, capsys) -> None:
    a, b = write("a", wrong=10), write("b", wrong=3, first=1)
    (found,) = printed(capsys, a, b / "predictions.jsonl")
    assert list(found)[:4] == ["metric", "difference", "interval", "p_value"]
    gold = [LABELS[i % 3] for i in range(60)]
    of_a = [LABELS[(i + 1) % 3] if i % 10 == 0 else LABELS[i % 3] for i in range(60)]
    of_b = [LABELS[(i + 1) % 3] if i % 3 == 1 else LABELS[i % 3] for i in range(60)]
    figures = [f1_score(gold, said, average="macro") for said in (of_a, of_b)]
    assert found["difference"] == pytest.approx(figures[0] - figures[1])
    assert [found["figure_a"], found["figure_b"]] == pytest.approx(figures)
    low, high = found["interval"]
    assert 0 < low < found["difference"] < high
    assert (found["metric"], found["over"], found["units"], found["rows"]) == ("macro_f1", "speakers", 8, 60)
    assert found["p_value"] == found["p_holm"] < 0.05
    assert found["mcnemar"]["only_a"] > found["mcnemar"]["only_b"]
    assert found["seeds"] is None
    (back,) = printed(capsys, b, a)
    assert back["difference"] == -found["difference"] and back["p_value"] == found["p_value"]


def test_weighted_f1_is_compared(write, capsys) -> None:
    a, b = write("a", wrong=10), write("b", wrong=3, first=1)
    (found,) = printed(capsys, a, b, "--metric", "weighted_f1")
    rows = [
        [json.loads(line) for line in (run / "predictions.jsonl").open(encoding="utf-8")] for run in (a, b)
    ]
    figures = [
        f1_score([row["label"] for row in run], [row["predicted_label"] for row in run], average="weighted")
        for run in rows
    ]
    assert [found["figure_a"], found["figure_b"]] == pytest.approx(figures)
    assert found["difference"] == pytest.approx(figures[0] - figures[1])
    low, high = found["interval"]
    assert 0 < low < found["difference"] < high and found["metric"] == "weighted_f1"
    line = refused(capsys, a, b, "--metric", "bleu")
    assert (
        "metric 'bleu' is of all rows together, and cannot be compared; accepted: accuracy, macro_f1," in line
    )
    assert line.endswith("rationale_exact, length")


def test_a_column_of_the_files_own_is_a_cluster(write, capsys) -> None:
    runs = [write(name, wrong=wrong) for name, wrong in (("a", 10), ("b", 3))]
    for run in runs:
        rows = [json.loads(line) for line in (run / "predictions.jsonl").open(encoding="utf-8")]
        lines = [json.dumps(row | {"recording": f"t{i // 5}"}) + "\n" for i, row in enumerate(rows)]
        (run / "predictions.jsonl").write_text("".join(lines), encoding="utf-8")
    (found,) = printed(capsys, *runs, "--cluster", "recording")
    assert (found["over"], found["units"]) == ("recordings", 12)


def test_several_runs_are_corrected_and_drawn(write, tmp_path, capsys) -> None:
    a, b, c = write("a", wrong=10), write("b", wrong=4, first=1), write("c", wrong=3, first=1)
    main(["compare", f"ours={a}", f"b={b}", f"c={c}", "--plot", str(tmp_path / "p.png")])
    out = capsys.readouterr().out
    assert "ours - b" in out and "ours - c" in out and "b - c" not in out and "p (Holm)" in out
    assert "60 rows" in out and "8 speakers" in out and "80 % power" in out
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    found = printed(capsys, a, b, c, "--all-pairs")
    assert len(found) == 3
    assert max(one["p_holm"] - one["p_value"] for one in found) > 0
    assert ".png" in refused(capsys, a, b, "--plot", "p.pdf")


def test_a_caption_names_data_seeds_and_resamples(write, capsys) -> None:
    runs = [write("a", wrong=9), write("b", wrong=4), write("c", wrong=5)]
    for run in runs:
        (run / "metrics.json").write_text(json.dumps({"data_fingerprint": "f00d"}), encoding="utf-8")
    asked = ["--resamples", "200", "--seed", "3", "--format", "latex"]
    main(["compare", *map(str, runs), *asked])
    latex = capsys.readouterr().out
    assert "Data f00d; training seeds: 1 of each system; 200 resamples with seed 3.}" in latex
    label = next(line for line in latex.splitlines() if line.startswith(r"\label"))
    main(["compare", *map(str, runs[:2]), *asked])
    assert label not in capsys.readouterr().out  # two tables of one metric in one paper


def test_a_report_says_where_it_comes_from(write, tmp_path, capsys) -> None:
    a, b, _ = write("a", wrong=10), write("b", wrong=3, first=1), write("c", wrong=4, first=1)
    (a / "metrics.json").write_text(
        json.dumps({"training_seed": 7, "data_fingerprint": "f00d", "command": "me"})
    )
    page = tmp_path / "out" / "F.html"
    (found,) = printed(capsys, f"ours={a}", b, "--report", page)
    html, text = page.read_text("utf-8"), page.with_suffix(".md").read_text("utf-8")
    low, high = found["interval"]
    shown = f"{found['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"
    assert shown in text and shown.partition(" ")[0] in html and html.count("data:image/svg+xml") == 1
    assert (page.parent / "F-differences.png").read_bytes().startswith(b"\x89PNG")
    assert "95 % over 8 speakers" in text and "**seed**: 0 (evaluation)" in text and "**processor**: " in text
    assert "| ours | a | 7 (training) | f00d | me |" in text and "**data fingerprint**: f00d, unknown" in text
    assert "## Seeds" not in text
    printed(capsys, f"s={tmp_path}/[bc]", a, "--report", page)
    assert "## Seeds" in page.with_suffix(".md").read_text("utf-8")
    assert "--report F.pdf has another ending; accepted: .html" in refused(capsys, a, b, "--report", "F.pdf")


def test_a_picture_shows_what_it_is_given(write) -> None:
    systems = [System.parse(str(write(name, wrong=n))) for name, n in (("a", 10), ("b", 3))]
    (one,), _ = compare(systems)

    def picture(comparison):
        return rendered(lambda: draw_differences([comparison])).png

    pictures = {picture(each) for each in (one, replace(one, p_holm=1.0), replace(one, interval=(-0.5, 0.5)))}
    assert len(pictures) == 3
    # a name from which no installed font has the letters, or that is half a formula
    assert picture(replace(one, a="$x", b="\U0001f600"))


def test_seeds_of_a_system_are_a_pattern(write, tmp_path, capsys) -> None:
    for seed, wrong in enumerate((10, 12, 15)):
        write(f"a-seed{seed}", wrong=wrong)
        write(f"b-seed{seed}", wrong=3 + seed % 2, first=1)
    (found,) = printed(capsys, f"a={tmp_path}/a-seed*", f"b={tmp_path}/b-seed*")
    assert (found["a"], found["b"], found["mcnemar"]) == ("a", "b", None)
    seeds = found["seeds"]
    assert len(seeds["a"]) == len(seeds["b"]) == 3
    assert found["difference"] == pytest.approx(sum(seeds["a"]) / 3 - sum(seeds["b"]) / 3)
    assert seeds["p_value"] == pytest.approx(0.1)  # the least that three against three can show
    assert seeds["interval"][0] < found["difference"] < seeds["interval"][1]
    assert (found["interval_over"], found["over"]) == ("speakers and seeds", "speakers")
    (low, high), (fixed_low, fixed_high) = found["interval"], found["interval_fixed_seeds"]
    assert low < fixed_low < found["difference"] < fixed_high < high
    assert found["p_value"] != found["p_value_fixed_seeds"] and found["p_holm"] == found["p_value"]
    (one,) = printed(capsys, f"a={tmp_path}/a-seed*", f"b={tmp_path}/b-seed0")
    assert one["seeds"]["interval"] is None and one["seeds"]["interval_b"] is None
    assert one["seeds"]["interval_a"] is not None and one["interval_over"] == "speakers"
    assert (one["interval"], one["p_value"]) == (one["interval_fixed_seeds"], one["p_value_fixed_seeds"])
    main(["compare", f"a={tmp_path}/a-seed*", f"b={tmp_path}/b-seed*"])
    out = capsys.readouterr().out
    assert "3 and 3 seeds" in out and "hold for other seeds and other speakers" in out
    assert "with these seeds alone" in out and "of these trainings alone" not in out
    page = tmp_path / "F.html"
    printed(
        capsys, f"a={tmp_path}/a-seed*", f"b={tmp_path}/b-seed*", f"b0={tmp_path}/b-seed0", "--report", page
    )
    text = page.with_suffix(".md").read_text("utf-8")
    assert "95 % over 8 speakers and the seeds, or 8 speakers" in text and "these seeds as they are" in text


def _lucky_seeds(generator, *, seeds: int, rows: int = 200) -> list[dict[str, Prediction]]:
    """Runs of one way of training: how often each is right is its seed's luck."""
    runs = []
    for share in generator.normal(0.6, 0.1, seeds):
        right = generator.random(rows) < share
        runs.append(
            {
                f"r{i}": Prediction(id=f"r{i}", label="neutral", predicted_label=LABELS[1 + (not is_right)])
                for i, is_right in enumerate(right)
            }
        )
    return runs


def test_luck_of_the_seeds_is_no_effect(monkeypatch) -> None:
    """Of 200 comparisons of a way of training with itself about one in twenty finds a difference."""
    generator = np.random.default_rng(0)
    systems = [System(name, (Path("p"),) * 3, "text") for name in "ab"]
    holds, fixed, apart = [], [], []
    for _ in range(200):
        runs = [_lucky_seeds(generator, seeds=3) for _ in systems]
        monkeypatch.setattr("mmsr.evaluation.compare.read_runs", lambda *_, runs=runs: (["text"] * 2, runs))
        (one,), _ = compare(systems, metric="accuracy", cluster="none", resamples=200)
        holds.append(one.p_holm < 0.05)
        apart.append(not one.interval[0] <= 0 <= one.interval[1])
        fixed.append(one.p_value_fixed_seeds < 0.05)
        assert one.disagreement is None
    assert 0.005 <= np.mean(holds) <= 0.09 and holds == apart
    assert np.mean(fixed) > 0.3, "with the seeds as they are, luck of the seeds is taken for an effect"


def test_where_interval_and_p_disagree_it_is_said(write, tmp_path, capsys) -> None:
    a, b = write("a", wrong=100, first=99, rows=10), write("b", wrong=2, first=1, rows=10)
    options = ["--metric", "accuracy", "--cluster", "none"]
    (found,) = printed(capsys, a, b, *options, "--report", tmp_path / "F.html")
    assert found["interval"][0] > 0 and found["p_value"] == pytest.approx(2 / 2**5)
    main(["compare", str(a), str(b), *options])
    said = "interval and p disagree: [+"
    assert said in capsys.readouterr().out and said in (tmp_path / "F.md").read_text("utf-8")
    (a, b) = write("c", wrong=10), write("d", wrong=3, first=1)
    main(["compare", str(a), str(b)])
    assert "disagree" not in capsys.readouterr().out


def test_the_picture_names_what_varies(write, tmp_path) -> None:
    for seed in range(2):
        write(f"a-seed{seed}", wrong=10 + seed)
        write(f"b-seed{seed}", wrong=3 + seed, first=1)
    systems = [System.parse(f"{name}={tmp_path}/{name}-seed*") for name in "ab"]
    (one,), _ = compare(systems, resamples=200)
    (legend,) = draw_differences([one]).legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == ["over 8 speakers and the seeds; p < .05", "p not below .05", "over seeds alone"]


def test_conditions_of_one_run(write, capsys) -> None:
    run = write("a", wrong=3)
    write("a", wrong=10, condition="audio+text")
    (found,) = printed(capsys, f"{run}:audio+text", f"{run}:text")
    assert found["difference"] > 0 and found["condition"] == "audio+text - text"
    other = write("b", wrong=3)
    (found,) = printed(capsys, run, other)  # the first that both have
    assert found["condition"] == "text" and found["difference"] == 0 and found["p_value"] == 1
    write("c", wrong=3, condition="audio")
    assert "no condition that all runs have" in refused(capsys, other, run.parent / "c")
    line = refused(capsys, run, other, "--condition", "audio+text")
    assert "b/predictions.jsonl: no row has condition 'audio+text'; accepted: text" in line


def test_rationales(write, capsys) -> None:
    a, b = write("a", wrong=10), write("b", wrong=3, first=1)
    (found,) = printed(capsys, a, b, "--metric", "rougeL")
    assert (found["metric"], found["mcnemar"]) == ("rougeL", None)
    rouge = (54 + 6 * 0.8) / 60, (40 + 20 * 0.8) / 60  # two of three words are an F-measure of .8
    assert [found["figure_a"], found["figure_b"]] == pytest.approx(rouge)
    (chrf,) = printed(capsys, a, b, "--metric", "chrf")
    assert 0 < chrf["figure_b"] < chrf["figure_a"] < 1
    main(["compare", str(a), str(b), "--metric", "chrf"])
    assert "the mean of the rows' chrF; metrics.json has the corpus's" in capsys.readouterr().out
    silent = write("silent", wrong=3, predicted_rationale=None)
    line = refused(capsys, a, silent, "--metric", "rougeL")
    assert "silent/predictions.jsonl: no row has a predicted_rationale; accepted: accuracy" in line


def test_clusters(write, tmp_path, capsys) -> None:
    a, b = write("a", wrong=10), write("b", wrong=3, first=1)
    (rows,) = printed(capsys, a, b, "--cluster", "none")
    assert (rows["over"], rows["units"]) == ("rows", 60)
    table = tmp_path / "segments.csv"
    table.write_text("id,recording\n" + "".join(f"r{i},{i // 5}\n" for i in range(60)))
    (recordings,) = printed(capsys, a, b, "--cluster", "recording", "--cluster_table", table)
    assert (recordings["over"], recordings["units"]) == ("recordings", 12)
    line = refused(capsys, a, b, "--cluster", "recording")
    assert "row 'r0' and 59 others have none" in line and "--cluster-table" in line
    assert "has no column take; its columns: id, recording" in refused(
        capsys, a, b, "--cluster", "take", "--cluster_table", table
    )
    few = [write(name, wrong=3, speaker="one") for name in ("c", "d")]
    assert printed(capsys, *few)[0]["over"] == "rows"
    assert "all rows have 'one'" in refused(capsys, *few, "--cluster", "speaker")


def test_rows_that_are_not_the_same_are_named(write, capsys) -> None:
    a, short = write("a", wrong=10), write("short", wrong=3, rows=50)
    line = refused(capsys, a, short)
    assert "short/predictions.jsonl: no answer to 10 of 60 rows" in line and "'r50', 'r51', 'r52' ..." in line
    assert "--common" in line
    main(["compare", str(a), str(short), "--common", "--json"])
    answer = capsys.readouterr()
    assert json.loads(answer.out)["rows"] == 50 and "10 rows left out" in answer.err
    other = write("other", wrong=3, label="neutral")
    line = refused(capsys, a, other)
    assert "row 'r0': label 'negative' in" in line and "'neutral' in" in line
    assert "repeated in condition text" in refused(capsys, a, write("short", wrong=3))


def test_what_is_no_run_is_named(write, tmp_path, capsys) -> None:
    a = write("a", wrong=10)
    assert "1 run; accepted: two or more" in refused(capsys, a)
    assert "nowhere: no such run" in refused(capsys, a, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "empty: no predictions.jsonl in it" in refused(capsys, a, tmp_path / "empty")
    assert "metric 'f2' is unknown; accepted: accuracy" in refused(capsys, a, a, "--metric", "f2")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"id": "r0"}\n')
    assert "broken.jsonl, line 1: no label, rationale" in refused(capsys, a, broken)
    broken.write_text("{\n")
    assert "broken.jsonl, line 1: no JSON" in refused(capsys, a, broken)


def test_help_is_light() -> None:
    code = "import sys, mmsr.cli.main as c\ntry: c.main(['compare', '--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'transformers', 'scipy', 'sklearn'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "RUNS" in done.stdout and "--cluster-table" in done.stdout and "Two or more" in done.stdout

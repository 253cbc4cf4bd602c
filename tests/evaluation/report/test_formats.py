"""Tables for papers: what LaTeX is given compiles, and CSV has every cell."""

import csv
import io
import shutil
import subprocess
from pathlib import Path

import pytest

from mmsr.evaluation.report.formats import render
from mmsr.evaluation.report.names import MISSING
from mmsr.evaluation.report.page import Quote, Row, Table

TABLE = Table(
    ["variant", "macro-F1", "95 % rows", "difference", "reads", "n"],
    [
        Row("`cross_attention`", ["0.912", "[0.881, 0.940]", MISSING, "audio + text", "1,200"]),
        Row("`50 % of {a}`", ["0.95", "[0.90, 0.98]", "+0.038†", "text & more", "87 k"]),
        Row("majority label", ["0.222", MISSING, "-0.690", Quote("words_of"), MISSING], baseline=True),
    ],
    "Macro-F1 & what it costs, †: p < .05",
)


def test_markdown_is_the_tables_own_below_its_caption():
    assert render(TABLE, "md", label="one") == f"{TABLE.caption}\n\n{TABLE.markdown()}"


def test_columns_are_chosen_by_their_headings():
    columns = ["difference", "macro_f1"]  # case and signs are free
    rows = list(csv.reader(io.StringIO(render(TABLE, "csv", columns=columns, label="one"))))
    assert rows[0] == ["variant", "difference", "macro-F1", "baseline"]
    assert rows[2] == ["50 % of {a}", "+0.038†", "0.95", ""]
    latex = render(TABLE, "latex", columns=columns, bold={(1, 1), (1, 2)}, label="one")
    assert r"50 \% of \{a\}} & +0.038$^\dagger$ & \bfseries 0.95 \\" in latex and "[0.90" not in latex
    assert "majority" not in render(
        TABLE, "latex", columns=["95 % rows"], label="one"
    )  # it has no value there
    with pytest.raises(ValueError) as refusal:
        render(TABLE, "md", columns=["macro_f2"], label="one")
    assert str(refusal.value) == (
        "--table-columns macro_f2: no such column; did you mean macro-F1?;"
        " accepted: macro-F1, 95 % rows, difference, reads, n"
    )


def test_a_label_is_made_of_any_name():
    for name, label in (("my run/ü_2", "my-run-2"), ("fusions", "fusions"), ("–", "results")):
        assert rf"\label{{tab:{label}}}" in render(TABLE, "latex", label=name)


def test_csv_has_every_cell_and_tells_baselines():
    rows = list(csv.reader(io.StringIO(render(TABLE, "csv", label="one"))))
    assert rows[0] == [*TABLE.columns, "baseline"]
    assert rows[1] == ["cross_attention", "0.912", "[0.881, 0.940]", "", "audio + text", "1,200", ""]
    assert rows[3] == ["majority label", "0.222", "", "-0.690", "words_of", "", "yes"]


def test_latex_aligns_numbers_and_escapes_text():
    lines = render(TABLE, "latex", bold={(1, 1), (1, 2)}, label="one").splitlines()
    assert r"\begin{tabular}{l S[table-format=1.3] r S[table-format=+1.3] l r}" in lines
    assert r"variant & {macro-F1} & 95 \% rows & {difference} & reads & n \\" in lines
    assert r"\texttt{cross\_attention} & 0.912 & [0.881, 0.940] & {--} & audio + text & 1,200 \\" in lines
    assert lines[8].startswith("variant")
    second = (
        r"\texttt{50 \% of \{a\}} & \bfseries 0.95 & \textbf{[0.90, 0.98]} & +0.038$^\dagger$ & text \& more"
    )
    assert rf"{second} & 87 k \\" in lines and r"\label{tab:one}" in lines
    baseline = lines.index(r"majority label & 0.222 & -- & -0.690 & words\_of & -- \\")
    assert lines[baseline - 1] == r"\midrule" and lines[baseline + 1] == r"\bottomrule"
    assert r"\caption{Macro-F1 \& what it costs, $^\dagger$: p $<$ .05}" in lines


def test_p_values_are_aligned_and_minus_signs_are_no_hyphens():
    cells = [[".034", "-0.69 [-0.72, -.6]", "< .001"], ["1.000", "0.1 [0.0, 0.2]", MISSING]]
    rows = [Row("a-1 - b", cells[0]), Row("c", cells[1])]
    lines = render(Table(["a - b", "p", "difference", "McNemar p"], rows, "-1 is < 0"), "latex", label="one")
    assert r"\begin{tabular}{l S[table-format=1.3] r S[table-format=<1.3]}" in lines
    assert r"a-1 $-$ b & 0.034 & $-$0.69 [$-$0.72, $-$.6] & <0.001 \\" in lines
    assert r"a $-$ b & {p} & difference & {McNemar p} \\" in lines
    assert r"c & 1.000 & 0.1 [0.0, 0.2] & {--} \\" in lines and r"\caption{$-$1 is $<$ 0}" in lines


@pytest.mark.slow
def test_latex_compiles(tmp_path: Path):
    if (
        shutil.which("pdflatex") is None
        or subprocess.run(["kpsewhich", "siunitx.sty"], check=False).returncode
    ):
        pytest.skip(
            "no pdflatex with booktabs and siunitx: apt-get install texlive-latex-recommended texlive-science"
        )
    table = render(TABLE, "latex", bold={(1, 1)}, label="one")
    packages = "".join(
        line.removeprefix("% ").partition("%")[0] for line in table.splitlines() if line[:1] == "%"
    )
    document = rf"\documentclass{{article}}{packages}\begin{{document}}{table}\end{{document}}"
    (tmp_path / "t.tex").write_text(document.replace(packages, packages.replace("  ", " ")), encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and (tmp_path / "t.pdf").is_file(), done.stdout[-2000:]

"""Comparing runs: their difference on the same rows, with a picture and a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmsr.data.manifest.tables import read_column
from mmsr.evaluation.compare import Comparison, System, compare
from mmsr.evaluation.provenance import Provenance
from mmsr.evaluation.report.comparison import write_comparison
from mmsr.evaluation.report.pictures import draw_differences, rendered
from mmsr.evaluation.significance import RESAMPLES
from mmsr.files import write_file


@dataclass(frozen=True)
class ComparedRuns:
    """Comparisons of runs, and what was left out of them.

    Attributes:
        comparisons: One of each pair of runs.
        unlabelled: How many rows were left out because their true label or rationale is not known.
        left_out: How many rows were left out because a run has no answer to them.
    """

    comparisons: list[Comparison]
    unlabelled: int
    left_out: int


def compare_runs(
    runs: Sequence[str],
    *,
    metric: str = "macro_f1",
    condition: str | None = None,
    cluster: str | None = None,
    cluster_table: str | Path | None = None,
    common: bool = False,
    all_pairs: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
    plot: str | Path | None = None,
    report: str | Path | None = None,
) -> ComparedRuns:
    """Compare the first run with each other one on the same rows.

    Example:
        >>> compared = compare_runs(["ours=runs/cross-seed*", "theirs=runs/text-seed*"], report="ours.html")
        >>> compared.comparisons[0].interval

    Args:
        runs: Two or more of `[NAME=]PATH[:CONDITION]`: a folder of an evaluation, a predictions file, or a
            pattern that matches the seeds of one system.
        metric: The metric to compare.
        condition: The condition of the rows, such as `audio+text`; by default the first that all runs have.
        cluster: The column whose values are resampled whole, or `none` for rows; by default `speaker` where
            every row has one and there are more than five.
        cluster_table: A table with `id` and the column `cluster`, where predictions do not have it.
        common: Leave out rows that a run has no answer to, instead of raising.
        all_pairs: Compare each run with each other.
        resamples: Of the bootstrap and of the permutation test.
        seed: The seed of both.
        plot: A PNG file to write, with the differences and their intervals.
        report: An HTML file to write; Markdown and a picture lie beside it.

    Returns:
        The comparisons, and how many rows were left out.

    Raises:
        ValueError: A file has another ending, `cluster_table` has no such column, or the runs cannot be
            compared.
    """
    for flag, path, ending in (("plot", plot, ".png"), ("report", report, ".html")):
        if path is not None and Path(path).suffix.lower() != ending:
            raise ValueError(f"--{flag} {path} has another ending; accepted: {ending}")
    if cluster_table is not None and cluster in (None, "none"):
        raise ValueError("--cluster_table has a column of clusters; accepted: with --cluster COLUMN")
    systems = [System.parse(run) for run in runs]
    comparisons, paired = compare(
        systems,
        metric=metric,
        condition=condition,
        cluster=cluster,
        cluster_of=None if cluster_table is None else read_column(cluster_table, str(cluster)),
        common=common,
        all_pairs=all_pairs,
        resamples=resamples,
        seed=seed,
    )
    if plot is not None:
        write_file(Path(plot), rendered(lambda: draw_differences(comparisons)).png)
    if report is not None:
        write_comparison(report, comparisons, systems, document=Provenance(seed=seed).to_dict())
    return ComparedRuns(comparisons, paired.unlabelled, paired.left_out)

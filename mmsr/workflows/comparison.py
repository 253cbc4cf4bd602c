"""Compares runs: their difference on the same rows, with picture and report; or ranks all in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmsr.data.manifest.tables import read_column
from mmsr.evaluation.compare import Comparison, System, compare
from mmsr.evaluation.leaderboard import Board, boards, find_runs
from mmsr.evaluation.provenance import Provenance
from mmsr.evaluation.report.comparison import write_comparison
from mmsr.evaluation.report.leaderboard import write_leaderboard
from mmsr.evaluation.report.pictures import draw_differences, rendered
from mmsr.files import check_output, write_file
from mmsr.workflows.settings import ComparisonSettings


@dataclass(frozen=True)
class ComparedRuns:
    """Comparisons of runs, and what was left out of them.

    Attributes:
        comparisons: One of each pair of runs.
        unlabelled: Number of rows left out because their true label or rationale is not known.
        left_out: Number of rows left out because a run has no answer to them.
    """

    comparisons: list[Comparison]
    unlabelled: int
    left_out: int


def compare_runs(
    runs: Sequence[str],
    settings: ComparisonSettings | None = None,
    *,
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
        settings: How they are compared.
        plot: A PNG file to write, with the differences and their intervals.
        report: An HTML file to write; Markdown and a picture lie beside it.

    Raises:
        ValueError: A file has another ending, a table has no such column, or the runs cannot be compared.
    """
    _check_files(plot=(plot, ".png"), report=(report, ".html"))
    settings = settings or ComparisonSettings()
    systems = [System.parse(run) for run in runs]
    comparisons, paired = compare(
        systems,
        metric=settings.metric,
        condition=settings.condition,
        cluster=settings.cluster,
        cluster_of=_clusters(settings),
        common=settings.common,
        all_pairs=settings.all_pairs,
        resamples=settings.resamples,
        seed=settings.seed,
    )
    if plot is not None:
        write_file(Path(plot), rendered(lambda: draw_differences(comparisons)).png)
    if report is not None:
        write_comparison(report, comparisons, systems, document=Provenance(seed=settings.seed).to_dict())
    return ComparedRuns(comparisons, paired.unlabelled, paired.left_out)


def rank_runs(
    folders: Sequence[str | Path],
    settings: ComparisonSettings | None = None,
    *,
    page: str | Path | None = None,
) -> list[Board]:
    """Rank all runs in folders and their subfolders; runs on different data are apart.

    Example:
        >>> boards = rank_runs(["runs"], page="leaderboard.html")
        >>> [standing.name for standing in boards[0].standings]

    Args:
        folders: Folders with runs of `mmsr evaluate` or `mmsr ablate`, found by their metrics.json.
        settings: The metric and the condition that rank, and how the best is compared with the others.
        page: An HTML file to write, whose tables readers sort; Markdown and pictures lie beside it.

    Raises:
        ValueError: `page` has another ending, `settings` compares all pairs, a metrics.json cannot be read,
            or no run has the metric.
    """
    _check_files(leaderboard=(page, ".html"))
    settings = settings or ComparisonSettings()
    if settings.all_pairs:
        raise ValueError(
            "--all-pairs with --leaderboard; accepted: one of them, a leaderboard compares the best"
        )
    found = boards(
        find_runs(folders),
        metric=settings.metric,
        condition=settings.condition,
        cluster=settings.cluster,
        cluster_of=_clusters(settings),
        common=settings.common,
        resamples=settings.resamples,
        seed=settings.seed,
    )
    if page is not None:
        write_leaderboard(page, found, document=Provenance(seed=settings.seed).to_dict())
    return found


def _check_files(**files: tuple[str | Path | None, str]) -> None:
    """Refuse files to write that have another ending or cannot be written; a flag has its file's name."""
    for flag, (path, ending) in files.items():
        if path is not None and Path(path).suffix.lower() != ending:
            raise ValueError(f"--{flag} {path} has another ending; accepted: {ending}")
        if path is not None:
            check_output(path, name=f"--{flag}")


def _clusters(settings: ComparisonSettings) -> dict[str, str] | None:
    """The cluster of each id, where a table has them."""
    table = settings.cluster_table
    return None if table is None else read_column(table, str(settings.cluster))

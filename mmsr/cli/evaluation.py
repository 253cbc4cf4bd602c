"""The commands of evaluation: metrics, calibration, comparison, human ratings."""

from __future__ import annotations

from dataclasses import dataclass
from json import dumps
from typing import Annotated, Literal

from cyclopts import Parameter

from mmsr.cli.application import FLAT, Count, Lists, Number, Pairs, TableColumns
from mmsr.cli.console import must_be_there
from mmsr.evaluation.report.names import TableFormat
from mmsr.progress import log, show_progress
from mmsr.workflows.settings import ComparisonSettings, Degradation, Measures, Rows

_Hidden = Annotated[str, Parameter(parse=False)]
_REGISTRY = "mmsr.evaluation.robustness.registry"
_COMPARABLE = "{mmsr.evaluation.metrics:comparable_names}"


@dataclass(frozen=True, kw_only=True)
class RowFlags(Rows):
    """Rows, with mappings as they are typed."""

    columns: Pairs | None = None
    label_map: Pairs | None = None


@dataclass(frozen=True, kw_only=True)
class TrainTestRowFlags(RowFlags):
    """Rows of a command that has no use for development rows."""

    dev_split: _Hidden = "dev"


@dataclass(frozen=True, kw_only=True)
class TestRowFlags(TrainTestRowFlags):
    """Rows of a command that has no use for training rows either."""

    train_split: _Hidden = "train"


@dataclass(frozen=True, kw_only=True)
class DevRowFlags(RowFlags):
    """Rows of a command that fits to the development rows alone; --split names these.

    Attributes:
        dev_split: Rows to fit to, which the model has not learned from and is not evaluated on.
    """

    split: _Hidden = "test"
    train_split: _Hidden = "train"
    dev_split: Annotated[str, Parameter(name="--split")] = "dev"


@dataclass(frozen=True, kw_only=True)
class DegradationFlags(Degradation):
    """Ways to make rows worse, with mappings as they are typed."""

    kinds: Annotated[
        list[str] | None,
        Parameter(help=f"Of {{{_REGISTRY}:PERTURBATIONS}}; by default all that the rows allow."),
    ] = None
    severities: Annotated[
        Lists | None,
        Parameter(
            help=f"Other severities than the usual ones, such as noise=20,0 codec=gsm. {{{_REGISTRY}:units}}"
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class ComparisonFlags(ComparisonSettings):
    """How runs are compared, with the metrics that there are."""

    metric: Annotated[str, Parameter(help=f"One of {_COMPARABLE}; chrf: the rows' mean.")] = "macro_f1"


def evaluate(
    rows: Annotated[RowFlags, FLAT],
    *,
    model: str,
    out: str,
    measures: Annotated[Measures | None, FLAT] = None,
    batch_size: Count = 32,
    num_beams: Count = 1,
    num_candidates: Count = 1,
    examples: Number = 6,
    seed: Number = 0,
    format: TableFormat = "md",
    table_columns: TableColumns = None,
) -> None:
    """Evaluate a model on a split: metrics, controls, baselines, and a report.

    Writes metrics.json, predictions.jsonl and report.html with its pictures, and report.md for a README. A
    language model that was not trained by mmsr, local or on a server, is evaluated alike: its YAML file names
    model, prompt and examples. What it answers is kept in OUT/answers.jsonl, and never asked for twice.

    Example: mmsr evaluate runs/demo/corpus/manifest.csv --model runs/demo/model --out runs/demo
    Example: mmsr evaluate my/manifest.csv --model llm.yaml --out runs/llm

    Args:
        rows: The manifest and its rows.
        model: Folder or Hub id of a checkpoint, or the YAML file of a language model.
        out: Folder for the results.
        measures: What is measured.
        batch_size: Number of rows in a batch; of a server, of requests at a time.
        num_beams: Beams of the rationales' generation; a language model has one.
        num_candidates: Write this many rationales of each row, sampled but for the first, and keep the one
            most like all of them (minimum Bayes risk by ROUGE-L); a language model writes one.
        examples: Number of utterances that the report plays.
        seed: Seed of the shuffling of audio between rows, and of sampled rationales.
        format: Of the printed table; latex is for booktabs and siunitx.
        table_columns: Columns of the printed table by their headings, such as macro-F1; by default all.
    """
    must_be_there(manifest=rows.manifest, slice_table=measures.slice_table if measures else None)
    if table_columns is not None:
        from mmsr.evaluation.report.run import check_conditions_columns

        check_conditions_columns(table_columns)
    if model.endswith((".yaml", ".yml")):
        from mmsr.workflows.language_models import evaluate_language_model as evaluate_model

        for flag, count in (("--num-beams", num_beams), ("--num-candidates", num_candidates)):
            if count != 1:
                raise ValueError(f"{flag} {count} with a language model; accepted: 1")
    else:
        from functools import partial

        from mmsr.workflows.evaluation import evaluate_checkpoint

        evaluate_model = partial(evaluate_checkpoint, num_beams=num_beams, num_candidates=num_candidates)
    evaluation = evaluate_model(
        model,
        rows,
        out,
        measures=measures,
        batch_size=batch_size,
        examples=examples,
        seed=seed,
        progress=show_progress(),
    )
    print(evaluation.table(format, table_columns))
    found = [f"finding: {message}" for message in evaluation.findings()]
    left = [f"not checked: {'; '.join(checks)}" for checks in [evaluation.not_checked()] if checks]
    log("\n".join([*evaluation.notes(), *found, *left, f"report: {evaluation.report}"]))


def calibrate(
    rows: Annotated[DevRowFlags, FLAT],
    *,
    model: str,
    text_column: Literal["text", "asr_text"] = "text",
    batch_size: Count = 32,
    out: str | None = None,
) -> None:
    """Fit a checkpoint's temperature to development rows, so that its probabilities can be believed.

    Rewrites `temperature` in MODEL/config.json, or in that of a copy; labels and rationales stay the same.
    `mmsr fit` does this at its end. It is of use for an exported checkpoint, and for rows unlike those of the
    training.

    Example: mmsr calibrate runs/demo/corpus/manifest.csv --model runs/demo/model
    Example: mmsr calibrate mine.csv --model demo --out demo-of-mine

    Args:
        rows: The manifest and its rows.
        model: Folder of a checkpoint; with --out, base and demo are the packaged ones.
        text_column: Transcript that the model reads, the human one or the ASR's.
        batch_size: Number of rows in a batch.
        out: New folder for a calibrated copy; by default the checkpoint itself is rewritten.
    """
    must_be_there(manifest=rows.manifest)
    from mmsr.evaluation.calibration import calibration_line
    from mmsr.workflows.calibration import calibrate_checkpoint

    calibration = calibrate_checkpoint(model, rows, text_column=text_column, batch_size=batch_size, out=out)
    log(f"{calibration.config}: {calibration_line(calibration.found)}")


def compare(
    *runs: str,
    settings: Annotated[ComparisonFlags | None, FLAT] = None,
    plot: str | None = None,
    report: str | None = None,
    leaderboard: str | None = None,
    format: TableFormat = "md",
    table_columns: TableColumns = None,
    json: bool = False,
) -> None:
    """Compare a run with others on the same rows: difference, interval, tests, effect size.

    A RUN is `[NAME=]PATH[:CONDITION]`: a folder of `mmsr evaluate`, a predictions file, or a pattern in
    quotes that matches the seeds of one system. The first is compared with each other one. With two seeds or
    more on both sides, interval and p hold for other seeds too; else they hold for these trainings alone.

    Example: mmsr compare "ours=runs/cross-seed*" "theirs=runs/text-seed*"

    What the voice adds: mmsr compare runs/demo:audio+text runs/demo:text

    All runs of a folder, ranked: mmsr compare runs --leaderboard leaderboard.html

    Args:
        runs: Two or more; with --leaderboard folders, whose subfolders are searched for runs.
        settings: How they are compared.
        plot: PNG file to write: differences with their intervals.
        report: HTML file to write: table, picture, seeds and where they come from; Markdown beside it.
        leaderboard: HTML file to write: all runs in the folders, ranked in tables that readers sort; runs
            that differ in their seed are one system, and runs on different data stand in different tables.
        format: Of the printed table; latex is for booktabs and siunitx.
        table_columns: Columns of the printed table by their headings, such as difference; by default all.
        json: Print a JSON object a line for each comparison.
    """
    must_be_there(cluster_table=settings.cluster_table if settings else None)
    from dataclasses import asdict

    from mmsr.evaluation.report.formats import comparison_table
    from mmsr.evaluation.report.leaderboard import leaderboard_table
    from mmsr.workflows.comparison import compare_runs, rank_runs

    if leaderboard is not None:
        if plot or report or json:
            flag = "--plot" if plot else "--report" if report else "--json"
            raise ValueError(f"{flag} with --leaderboard; accepted: one of them")
        print(leaderboard_table(rank_runs(runs, settings, page=leaderboard), format, table_columns))
        log(f"leaderboard: {leaderboard}")
        return
    compared = compare_runs(runs, settings, plot=plot, report=report)
    if compared.unlabelled:
        log(f"{compared.unlabelled:,} rows left out, whose true label or rationale is not known")
    if compared.left_out:
        log(f"{compared.left_out:,} rows left out, to which a run has no answer")
    if json:
        for comparison in compared.comparisons:
            print(dumps(asdict(comparison), ensure_ascii=False))
    else:
        print(comparison_table(compared.comparisons, format, table_columns))
    for name, path in (("picture", plot), ("report", report)):
        if path is not None:
            log(f"{name}: {path}")


def make_sheets(
    *runs: str,
    manifest: str,
    out: str,
    items: Count = 30,
    raters: Count = 1,
    shared: int | None = None,
    repeats: Number = 0,
    differing: bool = False,
    condition: str | None = None,
    criteria: Pairs | None = None,
    columns: Pairs | None = None,
    seed: Number = 0,
) -> None:
    """Make blinded sheets on which people rate the answers of runs: HTML pages that need no network.

    Writes OUT/sheets/, one HTML file a rater with the recordings inside, and OUT/key.json, which names the
    runs of the answers and is not for raters. A RUN is `[NAME=]PATH[:CONDITION]`, as in `mmsr compare`.

    Example: mmsr human make runs/demo:audio+text runs/demo:text --manifest corpus/manifest.csv --out h

    Args:
        runs: Two or more; each item shows a pair of them.
        manifest: Table of utterances that the runs answered, for recordings and transcripts.
        out: A new folder.
        items: Number of utterances on each sheet, each label and language with its share.
        raters: Number of sheets.
        shared: Number of utterances that are on every sheet, for agreement; all by default.
        repeats: Number of items that come twice on a sheet, for a rater's agreement with themselves.
        differing: Draw only utterances whose rationales differ.
        condition: Of the runs' rows, such as audio+text; by default the first that all runs have.
        criteria: Criteria to rate from 1 to 5, such as `clarity="The reason is easy to understand."`; by
            default correctness, clarity, relevance.
        columns: Names that columns have in this manifest.
        seed: The same seed gives the same sheets.
    """
    must_be_there(manifest=manifest)
    from mmsr.evaluation.human.sheet import CRITERIA, SheetDesign
    from mmsr.workflows.human import make_rating_sheets

    design = SheetDesign(
        items=items,
        raters=raters,
        shared=shared,
        repeats=repeats,
        differing=differing,
        criteria=CRITERIA if criteria is None else criteria,
    )
    made = make_rating_sheets(
        runs,
        manifest,
        out,
        design=design,
        condition=condition,
        columns=columns,
        seed=seed,
        progress=show_progress(),
    )
    for sheet in made.sheets:
        print(f"{sheet} ({sheet.stat().st_size / 1e6:.1f} MB)")
    log(f"{made.rows:,} utterances of {made.candidates:,}; for the raters: {made.sheets[0].parent}")
    log(f"not for the raters: {made.key}")


def score_ratings(
    *ratings: str,
    key: str,
    out: str | None = None,
    partial: bool = False,
    resamples: int = 10_000,
    seed: Number = 0,
    json: bool = False,
) -> None:
    """Score the raters' saved sheets: means, differences, tests, agreement, items needed.

    Example: mmsr human score ratings-*.json --key human/key.json --out human/scores

    Args:
        ratings: Files that the sheets saved.
        key: key.json of `mmsr human make`.
        out: Folder for report.html, report.md, scores.png and scores.json.
        partial: Leave out items with a missing answer.
        resamples: Resamples of the bootstraps and of the permutation tests.
        seed: Seed of both.
        json: Print one JSON object instead of tables.
    """
    from mmsr.evaluation.report.ratings import markdown
    from mmsr.workflows.human import score_ratings as score

    scored = score(ratings, key, out=out, partial=partial, resamples=resamples, seed=seed)
    if scored.left_out:
        log(f"{scored.left_out:,} items left out, in which an answer is missing")
    if json:
        print(dumps(scored.document, ensure_ascii=False))
    else:
        print(markdown(scored.scores, differing=scored.document["differing"]))
    if scored.report is not None:
        log(f"report: {scored.report}")


def faithfulness(
    rows: Annotated[TrainTestRowFlags, FLAT],
    *,
    model: str,
    out: str,
    respoken: str | None = None,
    erased: Number = 100,
    pictures: Number = 3,
    batch_size: Count = 32,
    seed: Number = 0,
) -> None:
    """Examine whether rationales are grounded in voice and words, and name what decided.

    Writes faithfulness.json, and report.html and report.md with pictures of what the label's logit is made
    of. Rows of the demo corpus are spoken again, in another manner and in another voice. Gradients need
    captum: pip install 'mmsr[explain]'.

    Example: mmsr faithfulness runs/demo/corpus/manifest.csv --model runs/demo/model --out faith

    Args:
        rows: The manifest and its rows.
        model: Folder or Hub id of a checkpoint that writes rationales.
        out: Folder for the results.
        respoken: Folder for the demo's rows spoken again, which several models can share; by default
            OUT/respoken.
        erased: Number of rows whose most attended words and frames are erased, spread over the split.
        pictures: Number of utterances to draw.
        batch_size: Number of rows in a batch.
        seed: Seed of resamples, controls and exchanges.
    """
    must_be_there(manifest=rows.manifest)
    from mmsr.evaluation.report.faithfulness import markdown
    from mmsr.workflows.faithfulness import examine_faithfulness

    examined = examine_faithfulness(
        model,
        rows,
        out,
        respoken=respoken,
        erased=erased,
        pictures=pictures,
        batch_size=batch_size,
        seed=seed,
        progress=show_progress(),
    )
    print(markdown(examined.document), end="")
    log(f"report: {examined.report}")


def robustness(
    rows: Annotated[TestRowFlags, FLAT],
    *,
    model: str,
    out: str,
    degradation: Annotated[DegradationFlags | None, FLAT] = None,
    condition: str = "audio+text",
    rationales: bool = False,
    slice_rows: Count = 30,
    batch_size: Count = 32,
    seed: Number = 0,
) -> None:
    """Measure how much worse a model answers as rows get worse: noise, rooms, codecs, word errors, gaps.

    Writes robustness.json, report.html, report.md, robustness.png and predictions/POINT.jsonl. The same seed
    makes the same rows worse alike for every model, so that mmsr compare can pair
    A/predictions/noise_0.jsonl with B's.

    Example: mmsr robustness runs/demo/corpus/manifest.csv --model runs/demo/model --out runs/worse

    Args:
        rows: The manifest and its rows.
        model: Folder or Hub id of a checkpoint.
        out: Folder for the results.
        degradation: How rows are made worse.
        condition: Inputs of the rows before they are made worse: audio+text, audio, text, asr, audio+asr.
        rationales: Write rationales too, for ROUGE-L; takes longer.
        slice_rows: Number of rows that a slice needs to be named as the worst.
        batch_size: Number of rows in a batch.
        seed: Seed of all draws.
    """
    must_be_there(manifest=rows.manifest, confusions=degradation.confusions if degradation else None)
    from mmsr.evaluation.report.robustness import markdown
    from mmsr.workflows.robustness import measure_robustness

    measured = measure_robustness(
        model,
        rows,
        out,
        degradation=degradation,
        condition=condition,
        rationales=rationales,
        slice_rows=slice_rows,
        batch_size=batch_size,
        seed=seed,
        progress=show_progress(),
    )
    print(markdown(measured.document))
    log(f"report: {measured.report}")

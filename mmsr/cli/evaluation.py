"""The commands of evaluation: metrics, calibration, comparison, human ratings."""

from __future__ import annotations

from json import dumps
from typing import Literal

from mmsr.cli.application import Pairs
from mmsr.cli.console import log, must_be_there, progress_bar
from mmsr.evaluation.robustness.registry import PERTURBATIONS


def evaluate(
    manifest: str,
    *,
    model: str,
    out: str,
    split: str = "test",
    train_split: str = "train",
    dev_split: str = "dev",
    fold: int | None = None,
    folds: int = 4,
    dev_speakers: int = 2,
    columns: Pairs | None = None,
    label_map: Pairs | None = None,
    conditions: list[str] | None = None,
    conformal: float | None = None,
    bertscore: str | None = None,
    bertscore_layer: int | None = None,
    slices: list[str] | None = None,
    slice_table: str | None = None,
    slice_rows: int = 30,
    batch_size: int = 32,
    num_beams: int = 1,
    examples: int = 6,
    seed: int = 0,
) -> None:
    """Figures, controls and baselines of a model on a split, and a report.

    Writes metrics.json, predictions.jsonl and report.html with its pictures, and report.md for a README.

    Example: mmsr evaluate runs/demo/corpus/manifest.csv --model runs/demo/model --out runs/demo

    Args:
        manifest: Table of utterances with labels.
        model: Folder or Hub id of a checkpoint.
        out: Folder for the results.
        split: Rows to evaluate, by the manifest's column `split`; all rows if it has no values.
        train_split: Rows that the baselines learn from.
        dev_split: Rows that --conformal is calibrated on.
        fold: Evaluate this speaker fold's test rows instead of a split, as in training with --data.fold.
        folds: Into how many folds the speakers are cut.
        dev_speakers: How many speakers were the development split in training with --data.dev_speakers, from
            which the baselines do not learn either.
        columns: Names that columns have in this manifest, as in training with --data.columns.
        label_map: What labels are called in it, as in training with --data.label_map.
        conditions: Which inputs to try, such as audio+text text; by default all that the rows allow.
        conformal: Sets of labels too, which are to hold the true one in this share of rows, such as 0.9.
        bertscore: Judge rationales by BERTScore too, with this text encoder: folder or Hub id.
        bertscore_layer: Its layer to compare, from 1; by default the one that BERTScore's authors chose for a
            model of that name, and the last of any other.
        slices: Figures by these columns of the manifest too, such as gender age, beside language, kind,
            speaker, length of audio and transcript.
        slice_table: Table with id and these columns, where the manifest does not have them.
        slice_rows: Rows that a slice needs to be told of as the worst.
        batch_size: Rows at a time.
        num_beams: Beams of the rationales' generation.
        examples: How many utterances the report plays.
        seed: Of the shuffling of audio between rows.
    """
    must_be_there("manifest", manifest)
    if slice_table is not None:
        must_be_there("slice_table", slice_table)
    from mmsr.workflows.evaluation import Measures, evaluate_checkpoint
    from mmsr.workflows.inputs import Rows

    rows = Rows(
        manifest,
        split=split,
        train_split=train_split,
        dev_split=dev_split,
        fold=fold,
        folds=folds,
        dev_speakers=dev_speakers,
        columns=columns,
        label_map=label_map,
    )
    measures = Measures(
        conditions=conditions,
        conformal=conformal,
        bertscore=bertscore,
        bertscore_layer=bertscore_layer,
        slices=slices or (),
        slice_table=slice_table,
        slice_rows=slice_rows,
    )
    evaluation = evaluate_checkpoint(
        model,
        rows,
        out,
        measures=measures,
        batch_size=batch_size,
        num_beams=num_beams,
        examples=examples,
        seed=seed,
        progress=progress_bar(),
    )
    print(evaluation.table())
    log("\n".join([*evaluation.notes(), f"report: {evaluation.report}"]))


def calibrate(
    manifest: str,
    *,
    model: str,
    split: str = "dev",
    fold: int | None = None,
    folds: int = 4,
    dev_speakers: int = 2,
    columns: Pairs | None = None,
    label_map: Pairs | None = None,
    text_column: Literal["text", "asr_text"] = "text",
    batch_size: int = 32,
    out: str | None = None,
) -> None:
    """Fit a checkpoint's temperature to development rows, so that its probabilities can be believed.

    Rewrites `temperature` in MODEL/config.json, or in that of a copy; labels and rationales stay as they are.
    `mmsr fit` does this at its end. Of use for an exported checkpoint, and for rows unlike those of the
    training.

    Example: mmsr calibrate runs/demo/corpus/manifest.csv --model runs/demo/model
    Example: mmsr calibrate mine.csv --model demo --out demo-of-mine

    Args:
        manifest: Table of utterances with labels.
        model: Folder of a checkpoint; with --out, demo is the packaged one.
        split: Rows to fit to, which the model has not learned from and is not evaluated on.
        fold: Fit to the development rows of this speaker fold instead, as in training with --data.fold.
        folds: Into how many folds the speakers are cut.
        dev_speakers: How many speakers are the development split, as in training.
        columns: Names that columns have in this manifest.
        label_map: What labels are called in it.
        text_column: Which transcript the model reads, the human one or the ASR's.
        batch_size: Rows at a time.
        out: New folder for a calibrated copy; by default the checkpoint itself is rewritten.
    """
    must_be_there("manifest", manifest)
    from mmsr.evaluation.calibration import calibration_line
    from mmsr.workflows.calibration import calibrate_checkpoint
    from mmsr.workflows.inputs import Rows

    rows = Rows(
        manifest,
        dev_split=split,
        fold=fold,
        folds=folds,
        dev_speakers=dev_speakers,
        columns=columns,
        label_map=label_map,
    )
    calibration = calibrate_checkpoint(model, rows, text_column=text_column, batch_size=batch_size, out=out)
    log(f"{calibration.config}: {calibration_line(calibration.found)}")


def compare(
    *runs: str,
    metric: str = "macro_f1",
    condition: str | None = None,
    cluster: str | None = None,
    cluster_table: str | None = None,
    common: bool = False,
    all_pairs: bool = False,
    resamples: int = 10_000,
    seed: int = 0,
    plot: str | None = None,
    report: str | None = None,
    json: bool = False,
) -> None:
    """Whether a run is better than others on the same rows: difference, interval, tests, effect size.

    A RUN is `[NAME=]PATH[:CONDITION]`: a folder of `mmsr evaluate`, a predictions file, or a pattern in
    quotes that matches the seeds of one system. The first is compared with each other one. With two seeds or
    more on both sides interval and p hold for other seeds too; else they speak of these trainings alone.

    Example: mmsr compare "ours=runs/cross-seed*" "theirs=runs/text-seed*"

    What the voice adds: mmsr compare runs/demo:audio+text runs/demo:text

    Args:
        runs: Two or more.
        metric: accuracy, macro_f1, weighted_f1, uar; or of rationales rouge1, rouge2, rougeL, rougeLsum, each
            with _ascii too, rationale_exact, chrf (the mean of the rows'), length.
        condition: Of the rows, such as audio+text; by default the first that all runs have.
        cluster: Column whose values are resampled and swapped whole, or none for rows; by default speaker
            where every row has one and they are more than five.
        cluster_table: Table with columns id and the one of --cluster, where predictions do not have it, such
            as the manifest, or segments.csv of `mmsr data segment` for recording.
        common: Leave rows out that a run has no answer to.
        all_pairs: Compare each run with each.
        resamples: Of the bootstrap and of the permutation test.
        seed: Of both.
        plot: Picture to write, a PNG: differences with their intervals.
        report: Page to write, .html: table, picture, seeds and where they come from; Markdown beside it.
        json: Print a JSON object a line for each comparison.
    """
    if cluster_table is not None:
        must_be_there("cluster_table", cluster_table)
    from dataclasses import asdict

    from mmsr.evaluation.compare import markdown_table
    from mmsr.workflows.comparison import compare_runs

    compared = compare_runs(
        runs,
        metric=metric,
        condition=condition,
        cluster=cluster,
        cluster_table=cluster_table,
        common=common,
        all_pairs=all_pairs,
        resamples=resamples,
        seed=seed,
        plot=plot,
        report=report,
    )
    if compared.unlabelled:
        log(f"{compared.unlabelled:,} rows left out, of which it is not known what is right")
    if compared.left_out:
        log(f"{compared.left_out:,} rows left out, to which a run has no answer")
    if json:
        for comparison in compared.comparisons:
            print(dumps(asdict(comparison), ensure_ascii=False))
    else:
        print(markdown_table(compared.comparisons))
    if plot is not None:
        log(f"picture: {plot}")
    if report is not None:
        log(f"report: {report}")


def make_sheets(
    *runs: str,
    manifest: str,
    out: str,
    items: int = 30,
    raters: int = 1,
    shared: int | None = None,
    repeats: int = 0,
    differing: bool = False,
    condition: str | None = None,
    criteria: Pairs | None = None,
    columns: Pairs | None = None,
    seed: int = 0,
) -> None:
    """Blinded sheets on which people rate what runs said: a page for a browser, without a network.

    Writes OUT/sheets/, one HTML file a rater with the recordings inside, and OUT/key.json, which says whose
    answers they are and which no rater gets. A RUN is `[NAME=]PATH[:CONDITION]`, as in `mmsr compare`.

    Example: mmsr human make runs/demo:audio+text runs/demo:text --manifest corpus/manifest.csv --out h

    Args:
        runs: Two or more; with more, each item shows one pair of them.
        manifest: Table of utterances that the runs answered, for recordings and transcripts.
        out: A new folder.
        items: Different utterances on each sheet, each label and language with its share.
        raters: How many sheets.
        shared: Utterances that are on every sheet, for agreement; all by default.
        repeats: Items that come twice on a sheet, to see whether a rater says the same again.
        differing: Draw only utterances whose rationales are different.
        condition: Of the runs' rows, such as audio+text; by default the first that all runs have.
        criteria: What is rated from 1 to 5, such as `clarity="The reason is easy to understand."`; by
            default correctness, clarity, relevance.
        columns: Names that columns have in this manifest.
        seed: The same seed gives the same sheets.
    """
    must_be_there("manifest", manifest)
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
        progress=progress_bar(),
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
    seed: int = 0,
    json: bool = False,
) -> None:
    """What raters' saved sheets say of the runs: means, differences, tests, agreement, items needed.

    Example: mmsr human score ratings-*.json --key human/key.json --out human/scores

    Args:
        ratings: Files that the sheets saved.
        key: key.json of `mmsr human make`.
        out: Folder for report.html, report.md, scores.png and scores.json.
        partial: Leave items out of which an answer is missing.
        resamples: Of the bootstraps and of the permutation tests.
        seed: Of both.
        json: Print one JSON object instead of tables.
    """
    from mmsr.evaluation.report.ratings import markdown
    from mmsr.workflows.human import score_ratings as score

    scored = score(ratings, key, out=out, partial=partial, resamples=resamples, seed=seed)
    if scored.left_out:
        log(f"{scored.left_out:,} items left out, of which an answer is missing")
    if json:
        print(dumps(scored.document, ensure_ascii=False))
    else:
        print(markdown(scored.scores, differing=scored.document["differing"]))
    if scored.report is not None:
        log(f"report: {scored.report}")


def faithfulness(
    manifest: str,
    *,
    model: str,
    out: str,
    split: str = "test",
    train_split: str = "train",
    columns: Pairs | None = None,
    label_map: Pairs | None = None,
    respoken: str | None = None,
    erased: int = 100,
    pictures: int = 3,
    batch_size: int = 32,
    seed: int = 0,
) -> None:
    """Whether rationales are grounded in voice and words, and say what decided.

    Writes faithfulness.json, and report.html and report.md with pictures of what the label's logit is made
    of. Rows of the demo corpus are spoken again, in another manner and in another voice. Gradients need
    captum: pip install 'mmsr[explain]'.

    Example: mmsr faithfulness runs/demo/corpus/manifest.csv --model runs/demo/model --out faith

    Args:
        manifest: Table of utterances.
        model: Folder or Hub id of a checkpoint that writes rationales.
        out: Folder for the results.
        split: Rows to examine, by the manifest's column `split`.
        train_split: Rows that the judges learn from.
        columns: Names that columns have in this manifest.
        label_map: What labels are called in it.
        respoken: Folder for the demo's rows spoken again, which several models can share; by default
            OUT/respoken.
        erased: Rows whose most attended words and frames are erased, spread over the split.
        pictures: How many utterances to draw.
        batch_size: Rows at a time.
        seed: Of resamples, controls and exchanges.
    """
    must_be_there("manifest", manifest)
    from mmsr.evaluation.report.faithfulness import markdown
    from mmsr.workflows.faithfulness import examine_faithfulness
    from mmsr.workflows.inputs import Rows

    rows = Rows(manifest, split=split, train_split=train_split, columns=columns, label_map=label_map)
    examined = examine_faithfulness(
        model,
        rows,
        out,
        respoken=respoken,
        erased=erased,
        pictures=pictures,
        batch_size=batch_size,
        seed=seed,
        progress=progress_bar(),
    )
    print(markdown(examined.document), end="")
    log(f"report: {examined.report}")


def robustness(
    manifest: str,
    *,
    model: str,
    out: str,
    kinds: list[str] | None = None,
    severities: Pairs | None = None,
    condition: str = "audio+text",
    split: str = "test",
    fold: int | None = None,
    folds: int = 4,
    dev_speakers: int = 2,
    columns: Pairs | None = None,
    label_map: Pairs | None = None,
    confusions: str | None = None,
    noise: str | None = None,
    rationales: bool = False,
    slice_rows: int = 30,
    batch_size: int = 32,
    seed: int = 0,
) -> None:
    """How much worse a model answers as rows get worse: noise, rooms, codecs, misheard words, gaps.

    Writes robustness.json, report.html, report.md, robustness.png and predictions/POINT.jsonl. The same seed
    makes the same rows worse alike for every model, so that mmsr compare can pair
    A/predictions/noise_0.jsonl with B's.

    Example: mmsr robustness runs/demo/corpus/manifest.csv --model runs/demo/model --out runs/worse

    Args:
        manifest: Table of utterances with labels.
        model: Folder or Hub id of a checkpoint.
        out: Folder for the results.
        kinds: Of {kinds}; by default all that the rows allow.
        severities: Other points than the usual, such as noise=20,0 codec=gsm. {units}.
        condition: What the rows have where nothing is worse: audio+text, audio, text, asr, audio+asr.
        split: Rows to answer, by the manifest's column `split`.
        fold: Answer this speaker fold's test rows instead, as in training with --data.fold.
        folds: Into how many folds the speakers are cut.
        dev_speakers: How many speakers were the development split in training.
        columns: Names that columns have in this manifest.
        label_map: What labels are called in it.
        confusions: Recogniser's errors for wer, a manifest with asr_text beside text, or a confusions.json of
            `mmsr data degrade`; by default words are taken for others of the manifest's in their language.
        noise: Folder of recorded noise; by default pink noise is made.
        rationales: Write rationales too, for ROUGE-L; takes longer.
        slice_rows: Rows that a slice needs to be told of as the worst.
        batch_size: Rows at a time.
        seed: Of all draws.
    """
    must_be_there("manifest", manifest)
    if confusions is not None:
        must_be_there("confusions", confusions)
    from mmsr.evaluation.report.robustness import markdown
    from mmsr.workflows.inputs import Rows
    from mmsr.workflows.robustness import Degradation, measure_robustness

    rows = Rows(
        manifest,
        split=split,
        fold=fold,
        folds=folds,
        dev_speakers=dev_speakers,
        columns=columns,
        label_map=label_map,
    )
    degradation = Degradation(
        kinds=kinds,
        severities={kind: values.split(",") for kind, values in (severities or {}).items()},
        confusions=confusions,
        noise=noise,
    )
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
        progress=progress_bar(),
    )
    print(markdown(measured.document))
    log(f"report: {measured.report}")


robustness.__doc__ = (robustness.__doc__ or "").format(
    kinds=", ".join(PERTURBATIONS),
    units="; ".join(f"{name}: {kind.unit}" for name, kind in PERTURBATIONS.items()),
)

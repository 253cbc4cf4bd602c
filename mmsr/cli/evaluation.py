"""The commands of evaluation: figures, calibration, comparison, people's ratings.

As in `mmsr.cli.main`, functions import what they need when they run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from json import dumps, loads
from pathlib import Path
from shutil import copytree
from typing import Any, Literal

from mmsr.cli.console import must_be_there, progress_bar, say
from mmsr.evaluation.robustness.registry import PERTURBATIONS


def evaluate(
    model: str,
    manifest: str,
    out: str,
    split: str = "test",
    train_split: str = "train",
    dev_split: str = "dev",
    fold: int | None = None,
    folds: int = 4,
    dev_speakers: int = 2,
    columns: dict[str, str] | None = None,
    label_map: dict[str, str] | None = None,
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

    Example: mmsr evaluate --model runs/demo/model --manifest runs/demo/corpus/manifest.csv --out runs/demo

    Args:
        model: Folder or Hub id of a checkpoint.
        manifest: Table of utterances with labels.
        out: Folder for the results.
        split: Rows to evaluate, by the manifest's column `split`.
        train_split: Rows that the baselines learn from.
        dev_split: Rows that --conformal is calibrated on.
        fold: Evaluate this speaker fold's test rows instead of a split, as in training with --data.fold.
        folds: Into how many folds the speakers are cut.
        dev_speakers: How many speakers were the development split in training with --data.dev_speakers, from
            which the baselines do not learn either.
        columns: Names that columns have in this manifest, as in training with --data.columns.
        label_map: What labels are called in it, as in training with --data.label_map.
        conditions: Which inputs to try, such as [audio+text,text]; by default all that the rows allow.
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
    started = time.perf_counter()
    must_be_there("manifest", manifest)
    own_folder(out, "metrics.json")
    if conformal is not None and not 0 < conformal < 1:
        raise ValueError(f"--conformal {conformal:g}; accepted: a share above 0 and below 1, such as 0.9")
    if bertscore_layer is not None and bertscore is None:
        raise ValueError("--bertscore_layer is a layer of an encoder; accepted: with --bertscore ENCODER")
    if slice_table is not None and not slices:
        raise ValueError(f"--slice_table {slice_table}; accepted: with --slices COLUMN ...")
    foreign = {name: column_by_id(slice_table or manifest, name, flag="slice_table") for name in slices or ()}
    from mmsr.data.loading.splits import speaker_fold
    from mmsr.data.manifest.manifest import fingerprint, load_manifest
    from mmsr.evaluation.bertscore import BertScorer
    from mmsr.evaluation.calibration import conformal_text
    from mmsr.evaluation.report import markdown_table, write_report
    from mmsr.evaluation.run import conformal_entries, write_run
    from mmsr.evaluation.run import evaluate as evaluate_rows
    from mmsr.evaluation.slices import worst_slice_line
    from mmsr.inference.loading import examples as shown_examples
    from mmsr.inference.loading import load_pipeline, predictor

    scorer = None if bertscore is None else BertScorer(bertscore, layer=bertscore_layer)
    pipe = load_pipeline(model)
    labels = pipe.model.config.labels
    table = load_manifest(manifest, labels=labels, columns=columns, label_map=label_map)
    if fold is None:
        rows, train_rows = (
            rows_of(table, split, manifest),
            [row for row in table if row["split"] == train_split],
        )
        dev_rows = [] if conformal is None else rows_of(table, dev_split, manifest)
    else:
        parts = speaker_fold(
            table, fold=fold, folds=folds, dev_speakers=dev_speakers, source=Path(manifest).name
        )
        rows, train_rows, dev_rows = (
            table.select(parts[name]).to_list() for name in ("test", "train", "dev")
        )
    figures, predictions = evaluate_rows(
        predictor(pipe, batch_size=batch_size, num_beams=num_beams),
        rows,
        labels=labels,
        train_rows=train_rows,
        conditions=conditions,
        temperature=pipe.model.config.label_temperature,
        bertscore=scorer,
        attributes=lengths(rows) | foreign,
        slice_rows=slice_rows,
        seed=seed,
        progress=progress_bar(),
    )
    if conformal is not None:
        sets = conformal_entries(
            predictor(pipe, batch_size=batch_size, rationale=False),
            dev_rows,
            predictions,
            labels=labels,
            coverage=conformal,
            seed=seed,
            progress=progress_bar(),
        )
        for name, entry in sets.items():
            figures[name]["conformal"] = entry
    metrics = write_run(
        out,
        {split: figures},
        predictions,
        seed=seed,
        data_fingerprint=fingerprint(table),
        command=" ".join(sys.argv),
        seconds=time.perf_counter() - started,
        extra=corpus_beside(manifest)
        | seed_of_training(model)
        | ({} if scorer is None else {"bertscore": scorer.settings}),
    )
    history = Path(model).parent / "history.json"
    report = write_report(
        out,
        title=f"{name_of(model)}: {Path(manifest).name}, {split}",
        metrics=metrics,
        predictions=predictions,
        labels=labels,
        history=loads(history.read_text(encoding="utf-8")) if history.exists() else None,
        examples=shown_examples(pipe, spread(rows, examples)),  # type: ignore[arg-type]
        split=split,
    )
    print(markdown_table(metrics, split=split))
    for name, entry in metrics[split].items():
        if "worst_slice" in entry:
            say(f"{name}: {worst_slice_line(entry['worst_slice'], least=slice_rows)}")
        if "conformal" in entry:
            say(f"{name}: {conformal_text(entry['conformal'])}")
    say(f"report: {report}")


def calibrate(
    model: str,
    manifest: str,
    split: str = "dev",
    fold: int | None = None,
    folds: int = 4,
    dev_speakers: int = 2,
    columns: dict[str, str] | None = None,
    label_map: dict[str, str] | None = None,
    text_column: Literal["text", "asr_text"] = "text",
    batch_size: int = 32,
    out: str | None = None,
) -> None:
    """Fit a checkpoint's temperature to development rows, so that its probabilities can be believed.

    Rewrites `temperature` in MODEL/config.json, or in that of a copy; labels and rationales stay as they are.
    `mmsr fit` does this at its end. Of use for an exported checkpoint, and for rows unlike those of the
    training.

    Example: mmsr calibrate --model runs/demo/model --manifest runs/demo/corpus/manifest.csv
    Example: mmsr calibrate --model demo --manifest mine.csv --out demo-of-mine

    Args:
        model: Folder of a checkpoint; with --out, demo is the packaged one.
        manifest: Table of utterances with labels.
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
    from mmsr.inference.packaged import checkpoint, is_packaged

    if is_packaged(model) and out is None:
        raise ValueError(
            f"--model {model} is packaged with mmsr and stays as it is; accepted: with --out FOLDER, for a "
            "calibrated copy"
        )
    folder = checkpoint(model) if is_packaged(model) else Path(model)
    if not (folder / "config.json").is_file():
        raise ValueError(f"--model {model}: no config.json there; accepted: a folder that `mmsr fit` wrote")
    if out is not None and Path(out).exists():
        raise ValueError(f"--out {out} exists already; accepted: a new folder")
    from mmsr.data.loading.splits import speaker_fold
    from mmsr.data.manifest.manifest import load_manifest
    from mmsr.evaluation.calibration import CalibrationError, calibration_line
    from mmsr.evaluation.calibration import calibrate as fit_to
    from mmsr.files import atomic_write, write_file
    from mmsr.inference.loading import load_pipeline, predictor

    pipe = load_pipeline(model)
    config = pipe.model.config
    table = load_manifest(manifest, labels=config.labels, columns=columns, label_map=label_map)
    if fold is None:
        rows = rows_of(table, split, manifest)
    else:
        parts = speaker_fold(
            table, fold=fold, folds=folds, dev_speakers=dev_speakers, source=Path(manifest).name
        )
        rows = table.select(parts["dev"]).to_list()
    config.temperature = config.decoder_temperature = 1.0
    try:
        found = fit_to(
            predictor(pipe, batch_size=batch_size, rationale=False),
            rows,
            labels=config.labels,
            text_column=text_column,
        )
    except CalibrationError as error:
        place = f"split {split}" if fold is None else f"development rows of fold {fold}"
        raise ValueError(f"{manifest}, {place}: {error}") from None
    settings = loads((folder / "config.json").read_text(encoding="utf-8"))
    settings |= {name: value for name, value in found.items() if name.endswith("temperature")}
    content = (dumps(settings, indent=2, sort_keys=True) + "\n").encode()
    if out is None:
        write_file(folder / "config.json", content)
    else:
        with atomic_write(out) as copy:
            copytree(folder, copy)
            (copy / "config.json").write_bytes(content)
    say(f"{Path(out or folder) / 'config.json'}: {calibration_line(found)}")


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
        metric: accuracy, macro_f1, uar; or of rationales rouge1, rouge2, rougeL, rougeLsum, each with _ascii
            too, rationale_exact, chrf (the mean of the rows').
        condition: Of the rows, such as audio+text; by default the first that all runs have.
        cluster: Column whose values are resampled and swapped whole, or none for rows; by default speaker
            where every row has one and they are more than five.
        cluster_table: Table with columns id and the one of --cluster, where predictions do not have it, such
            as the manifest, or segments.csv of `mmsr data segment` for recording.
        common: Leave rows out that a run has no answer to (--common alone will do).
        all_pairs: Compare each run with each (--all-pairs alone will do).
        resamples: Of the bootstrap and of the permutation test.
        seed: Of both.
        plot: Picture to write, a PNG: differences with their intervals.
        report: Page to write, .html: table, picture, seeds and where they come from; Markdown beside it.
        json: Print a JSON object a line for each comparison (--json alone will do).
    """
    if plot is not None and Path(plot).suffix.lower() != ".png":
        raise ValueError(f"--plot {plot} has another ending; accepted: .png")
    if report is not None and Path(report).suffix.lower() != ".html":
        raise ValueError(f"--report {report} has another ending; accepted: .html")
    if cluster_table is not None and cluster in (None, "none"):
        raise ValueError("--cluster_table has a column of clusters; accepted: with --cluster COLUMN")
    from dataclasses import asdict

    from mmsr.evaluation.compare import System, markdown_table
    from mmsr.evaluation.compare import compare as compare_systems

    systems = [System.parse(run) for run in runs]
    compared, paired = compare_systems(
        systems,
        metric=metric,
        condition=condition,
        cluster=cluster,
        cluster_of=None if cluster_table is None else column_by_id(cluster_table, str(cluster)),
        common=common,
        all_pairs=all_pairs,
        resamples=resamples,
        seed=seed,
    )
    if paired.unlabelled:
        say(f"{paired.unlabelled:,} rows left out, of which it is not known what is right")
    if paired.left_out:
        say(f"{paired.left_out:,} rows left out, to which a run has no answer")
    if json:
        for one in compared:
            print(dumps(asdict(one), ensure_ascii=False))
    else:
        print(markdown_table(compared))
    if plot is not None:
        from mmsr.evaluation.report import differences_picture
        from mmsr.files import write_file

        write_file(Path(plot), differences_picture(compared))
        say(f"picture: {plot}")
    if report is not None:
        from mmsr.evaluation.provenance import machine, versions
        from mmsr.evaluation.report.comparison import write_comparison

        document = {"command": " ".join(sys.argv), "machine": machine(), "versions": versions()}
        write_comparison(report, compared, systems, document={**document, "seed": seed})
        say(f"report: {report}")


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
    criteria: dict[str, str] | None = None,
    columns: dict[str, str] | None = None,
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
        differing: Draw only utterances whose rationales are different (--differing alone will do).
        condition: Of the runs' rows, such as audio+text; by default the first that all runs have.
        criteria: What is rated from 1 to 5, such as `clarity="The reason is easy to understand."`; by
            default correctness, clarity, relevance.
        columns: Names that columns have in this manifest.
        seed: The same seed gives the same sheets.
    """
    must_be_there("manifest", manifest)
    from mmsr.data.audio.decoding import Audio
    from mmsr.data.manifest.manifest import fingerprint, load_manifest
    from mmsr.evaluation.compare import System
    from mmsr.evaluation.human.sheet import RATE
    from mmsr.evaluation.human.sheet import make_sheets as make

    systems = [System.parse(run) for run in runs]
    table = load_manifest(manifest, columns=columns)
    made = make(
        systems,
        table.to_list(),
        out,
        listen=Audio(RATE),
        items=items,
        raters=raters,
        shared=shared,
        repeats=repeats,
        differing=differing,
        condition=condition,
        criteria=criteria,
        seed=seed,
        command=" ".join(sys.argv),
        data_fingerprint=fingerprint(table),
        progress=progress_bar(),
    )
    for sheet in made.sheets:
        print(f"{sheet} ({sheet.stat().st_size / 1e6:.1f} MB)")
    say(f"{made.rows:,} utterances of {made.candidates:,}; for the raters: {made.sheets[0].parent}")
    say(f"not for the raters: {made.key}")


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
        partial: Leave items out of which an answer is missing (--partial alone will do).
        resamples: Of the bootstraps and of the permutation tests.
        seed: Of both.
        json: Print one JSON object instead of tables (--json alone will do).
    """
    started = time.perf_counter()
    for path in (key, *ratings):
        if not Path(path).is_file():
            raise ValueError(f"{path}: no such file")
    own_folder(out, "scores.json")
    if resamples < 100:
        raise ValueError(f"--resamples {resamples}; accepted: 100 or more")
    from dataclasses import asdict

    from mmsr.evaluation.human.ratings import ratings_fingerprint, read_key, read_ratings
    from mmsr.evaluation.human.scores import score
    from mmsr.evaluation.provenance import machine, versions
    from mmsr.evaluation.report.ratings import markdown, write_ratings
    from mmsr.files import write_file

    known = read_key(key)
    read, left_out = read_ratings(ratings, known, partial=partial)
    if left_out:
        say(f"{left_out:,} items left out, of which an answer is missing")
    scores = score(read, known, resamples=resamples, seed=seed)
    found = {
        "key": key,
        "differing": known["differing"],
        **asdict(scores),
        "agreement": {name: one._asdict() for name, one in scores.agreement.items()},
        "seed": seed,
        "data_fingerprint": known.get("data_fingerprint") or "unknown",  # older keys have none
        "ratings_fingerprint": ratings_fingerprint(ratings),
        "command": " ".join(sys.argv),
        "versions": versions(),
        "machine": machine(),
        "seconds": round(time.perf_counter() - started, 3),
    }
    print(dumps(found, ensure_ascii=False) if json else markdown(scores, differing=known["differing"]))
    if out is not None:
        content = dumps(found, ensure_ascii=False, indent=2)
        write_file(Path(out) / "scores.json", f"{content}\n".encode())
        say(f"report: {write_ratings(out, scores, key=known, document=found)}")


def faithfulness(
    model: str,
    manifest: str,
    out: str,
    split: str = "test",
    train_split: str = "train",
    columns: dict[str, str] | None = None,
    label_map: dict[str, str] | None = None,
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

    Example: mmsr faithfulness --model runs/demo/model --manifest runs/demo/corpus/manifest.csv --out faith

    Args:
        model: Folder or Hub id of a checkpoint that writes rationales.
        manifest: Table of utterances.
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
    started = time.perf_counter()
    must_be_there("manifest", manifest)
    own_folder(out, "faithfulness.json")
    for flag, count in (("erased", erased), ("pictures", pictures)):
        if count < 0:
            raise ValueError(f"--{flag} {count}; accepted: 0 or more")
    from mmsr.data.audio.decoding import Audio
    from mmsr.data.corpora.demo.corpus import quoted_evidence, respeak, utterance_of
    from mmsr.data.manifest.manifest import fingerprint, load_manifest
    from mmsr.evaluation.explain.attribution import attributions, saliency
    from mmsr.evaluation.explain.faithfulness import Material, write_faithfulness
    from mmsr.evaluation.explain.faithfulness import faithfulness as examine
    from mmsr.evaluation.provenance import machine, versions
    from mmsr.evaluation.report.faithfulness import markdown, write_faithfulness_report
    from mmsr.inference.loading import load_pipeline, predictor

    pipe = load_pipeline(model)
    labels = pipe.model.config.labels
    if pipe.model.decoder is None:
        raise ValueError(f"--model {model} writes no rationales; accepted: a model with a decoder")
    table = load_manifest(manifest, labels=labels, columns=columns, label_map=label_map)
    rows = rows_of(table, split, manifest)
    again: dict[str, list[dict[str, str]]] = {"manner": [], "voice": []}
    if any(utterance_of(row) for row in rows):
        folder = Path(out) / "respoken" if respoken is None else Path(respoken)
        again = {change: respeak(rows, folder / change, change=change) for change in ("manner", "voice")}
    load_audio = Audio(pipe.processor.feature_extractor.sampling_rate)
    methods = attributions(pipe.model, pipe.processor)
    if "gradients" not in methods:
        say("captum is not installed: no gradients, no pictures; pip install 'mmsr[explain]'")
    found = examine(
        predictor(pipe, batch_size=batch_size),
        rows,
        labels=labels,
        material=Material(
            train_rows=[row for row in table if row["split"] == train_split],
            force=lambda label: predictor(pipe, batch_size=batch_size, forced_label=label),
            load_audio=load_audio,
            attributions=methods,
            erased=erased,
            predict_labels=predictor(pipe, batch_size=batch_size, rationale=False),
            respoken=again,
            evidence_of=quoted_evidence,
        ),
        seed=seed,
        progress=progress_bar(),
    )
    shown = {
        row["id"]: saliency(
            pipe.model,
            pipe.processor,
            audio=None if row["audio"] is None else load_audio(row["audio"]),
            text=row["text"],
        )
        for row in (spread(rows, pictures) if "gradients" in methods else [])
    }
    document = {
        **found,
        "model": model,
        "split": split,
        **seed_of_training(model),
        "seed": seed,
        "data_fingerprint": fingerprint(table),
        "command": " ".join(sys.argv),
        "versions": versions(),
        "machine": machine(),
        "seconds": round(time.perf_counter() - started, 3),
    }
    write_faithfulness(out, document)
    title = f"{name_of(model)}: {Path(manifest).name}, {split}, rationales"
    report = write_faithfulness_report(out, document, title=title, saliencies=shown)
    print(markdown(document), end="")
    say(f"report: {report}")


def robustness(
    model: str,
    manifest: str,
    out: str,
    kinds: list[str] | None = None,
    severities: dict[str, str] | None = None,
    condition: str = "audio+text",
    split: str = "test",
    fold: int | None = None,
    folds: int = 4,
    dev_speakers: int = 2,
    columns: dict[str, str] | None = None,
    label_map: dict[str, str] | None = None,
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

    Example: mmsr robustness --model runs/demo/model --manifest runs/demo/corpus/manifest.csv --out runs/worse

    Args:
        model: Folder or Hub id of a checkpoint.
        manifest: Table of utterances with labels.
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
        rationales: Write rationales too, for ROUGE-L; takes longer (--rationales alone will do).
        slice_rows: Rows that a slice needs to be told of as the worst.
        batch_size: Rows at a time.
        seed: Of all draws.
    """
    started = time.perf_counter()
    must_be_there("manifest", manifest)
    own_folder(out, "robustness.json")
    if confusions is not None:
        must_be_there("confusions", confusions)
    from mmsr.data.loading.splits import speaker_fold
    from mmsr.data.manifest.manifest import fingerprint, load_manifest
    from mmsr.evaluation.report.robustness import markdown, write_robustness_report
    from mmsr.evaluation.robustness.confusions import Confusions
    from mmsr.evaluation.robustness.curves import clean_rows, measure, write_robustness
    from mmsr.evaluation.robustness.perturbations import Material, perturbations
    from mmsr.inference.loading import load_pipeline, predictor

    pipe = load_pipeline(model)
    labels = pipe.model.config.labels
    table = load_manifest(manifest, labels=labels, columns=columns, label_map=label_map)
    if fold is None:
        rows = rows_of(table, split, manifest)
    else:
        parts = speaker_fold(
            table, fold=fold, folds=folds, dev_speakers=dev_speakers, source=Path(manifest).name
        )
        rows = table.select(parts["test"]).to_list()
    in_split, rows = len(rows), clean_rows(rows, condition)
    if len(rows) < in_split:
        say(f"{in_split - len(rows):,} of {in_split:,} rows left out: no label, or not all of {condition}")
    if confusions is None:
        spoken = [row for row in table if row["text"]]
        errors = Confusions.of_vocabulary(*([row[name] for row in spoken] for name in ("text", "language")))
    else:
        errors = Confusions.open(confusions, columns=columns)
    material = Material(rows, errors, noise=noise, seed=seed)
    asked = {kind: values.split(",") for kind, values in (severities or {}).items()}
    document, predictions = measure(
        predictor(pipe, batch_size=batch_size, rationale=None if rationales else False),
        rows,
        perturbations(material, kinds=kinds, severities=asked),
        labels=labels,
        condition=condition,
        slice_rows=slice_rows,
        seed=seed,
        progress=progress_bar(),
    )
    whole = write_robustness(
        out,
        document,
        predictions,
        seed=seed,
        data_fingerprint=fingerprint(table),
        command=" ".join(sys.argv),
        seconds=time.perf_counter() - started,
        extra={"model": model, "split": split, **seed_of_training(model)},
    )
    title = f"{name_of(model)}: {Path(manifest).name}, {split}, made worse"
    report = write_robustness_report(out, whole, title=title)
    print(markdown(whole))
    say(f"report: {report}")


robustness.__doc__ = (robustness.__doc__ or "").format(
    kinds=", ".join(PERTURBATIONS),
    units="; ".join(f"{name}: {kind.unit}" for name, kind in PERTURBATIONS.items()),
)

EVALUATION_COMMANDS: dict[str, Any] = {
    "evaluate": evaluate,
    "robustness": robustness,
    "calibrate": calibrate,
    "compare": compare,
    "human": {
        "_help": "Human evaluation: blinded sheets for raters, and what they say.",
        "make": make_sheets,
        "score": score_ratings,
    },
    "faithfulness": faithfulness,
}


# ---------------------------------------------------------------------- helpers of the commands


def rows_of(table: Any, split: str, manifest: str) -> list[dict[str, Any]]:
    """The rows of one split."""
    rows = [row for row in table if row["split"] == split]
    if not rows:
        found = ", ".join(sorted({str(value) for value in table["split"]}))
        raise ValueError(f"{manifest}, column split: no row is in {split!r}; found: {found}")
    return rows


def own_folder(out: str | None, file: str) -> None:
    """Refuse a folder that has another command's report, which this one's would replace."""
    for other in ("metrics.json", "robustness.json", "faithfulness.json", "scores.json", "results.json"):
        if out is not None and other != file and (Path(out) / other).is_file():
            raise ValueError(
                f"--out {out} has {other}, whose report.html would be lost; accepted: another folder"
            )


def corpus_beside(manifest: str) -> dict[str, Any]:
    """What the corpus.json beside a manifest says, protocol and all, as metrics.json carries it."""
    path = Path(manifest).with_name("corpus.json")
    return {"corpus": loads(path.read_text(encoding="utf-8"))} if path.is_file() else {}


def name_of(model: str) -> str:
    """What a report calls a checkpoint: its run's folder, or its own name where it has no run's."""
    return Path(model).resolve().parent.name if (Path(model) / "config.json").is_file() else model


def seed_of_training(model: str) -> dict[str, Any]:
    """The seed that a checkpoint was trained with, where the run.yaml of `mmsr fit` lies beside it."""
    from mmsr.inference.packaged import checkpoint, is_packaged

    if is_packaged(model):
        facts = loads((checkpoint(model) / "checkpoint.json").read_text(encoding="utf-8"))
        return {"training_seed": facts["seed"]}
    path = Path(model).parent / "run.yaml"
    if not path.is_file():
        return {}
    from yaml import safe_load

    settings = safe_load(path.read_text(encoding="utf-8"))
    return {"training_seed": settings["seed_everything"]} if "seed_everything" in settings else {}


def spread(rows: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Some rows of each kind, English first since its attention picture needs no special font."""
    groups: dict[tuple[Any, Any], list[dict[str, Any]]] = {}
    for row in rows:
        if row["audio"] or row["text"]:
            groups.setdefault((row["language"] != "en", row["kind"]), []).append(row)
    ordered = [groups[key] for key in sorted(groups, key=str)]
    turns = (group[turn] for turn in range(len(rows)) for group in ordered if turn < len(group))
    return [row for row, _ in zip(turns, range(count), strict=False)]


def lengths(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Seconds of audio, and words (characters of Chinese) of transcript, by id."""
    from mmsr.data.audio.decoding import Audio
    from mmsr.evaluation.rationales import UnicodeTokenizer

    tokenize = UnicodeTokenizer().tokenize
    texts = {row["id"]: row["text"] or row["asr_text"] for row in rows}
    return {
        "audio_seconds": {row["id"]: Audio.duration(row["audio"]) for row in rows if row["audio"]},
        "transcript_words": {id: float(len(tokenize(text))) for id, text in texts.items() if text},
    }


def column_by_id(path: str, column: str, *, flag: str = "cluster_table") -> dict[str, str]:
    """A table's column by its column id."""
    must_be_there(flag, path)
    from mmsr.data.manifest.tables import read_table

    table = read_table(Path(path))
    for name in ("id", column):
        if name not in table.columns:
            raise ValueError(f"{path} has no column {name}; its columns: {', '.join(table.columns)}")
    return {str(row["id"]): str(row[column]) for row in table.rows if row[column]}

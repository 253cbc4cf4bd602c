"""The commands `mmsr data ...`: corpora, manifests, their audio, the feature store."""

from __future__ import annotations

import os
import re
import sys
import time
from json import dumps
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from mmsr.cli.application import FLAT, Count, KeepLabel, Number, Pairs, SegmentFlags, Shares
from mmsr.cli.console import check_page, must_be_there, print_json
from mmsr.files import check_output
from mmsr.progress import log, show_progress


def make_demo(*, out: str, utterances: Count = 2400, seed: Number = 0) -> None:
    """Synthesise the packaged five-language corpus; writes OUT/manifest.csv and OUT/audio/.

    Example: mmsr data make-demo --out runs/demo/corpus

    Args:
        out: Folder to write.
        utterances: Number of utterances.
        seed: The same seed gives the same bytes.
    """
    from mmsr.data.corpora.demo.corpus import make_demo as make

    check_output(out, folder=True, name="--out")
    log(f"corpus: {make(Path(out), utterances=utterances, seed=seed)}")


def check(
    manifest: str | None = None,
    *,
    labels: list[str] | None = None,
    columns: Pairs | None = None,
    label_map: Pairs | None = None,
    require: list[str] | None = None,
    no_audio: bool = False,
    max_seconds: float = 60.0,
    allow: list[str] | None = None,
    strict: bool = False,
    report: str | None = None,
    json: bool = False,
    codes: bool = False,
) -> None:
    """Find all faults of a manifest and its audio: file, row, column, value and remedy.

    The terminal shows the first faults of each kind, --json all of them. The exit code is 1 if there is an
    error, and 0 if there are only warnings. `mmsr data check --codes` lists the kinds.

    Example: mmsr data check my/manifest.csv --report check.html

    Args:
        manifest: A csv, tsv, jsonl, parquet or xlsx file.
        labels: Accepted labels; negative, neutral, positive by default.
        columns: Names that columns have in this manifest, such as rationale=human_justification.
        label_map: Names that labels have in this manifest, such as pos=positive.
        require: Columns in which a missing value is an error.
        no_audio: Do not open the audio files.
        max_seconds: Longer audio is a warning.
        allow: Codes of faults to forgive, such as speaker-in-two-splits.
        strict: Warnings are errors.
        report: HTML page to write: counts, lengths, labels by language and split, faults.
        json: Print one JSON object with all faults instead of text.
        codes: Print code, severity, meaning and remedy of each kind of fault, and exit.
    """
    from mmsr.data.manifest.check.report import as_json, code_table, summary, write_page
    from mmsr.data.manifest.check.table import LABELS, check_manifest

    if codes:
        print(code_table())
        return
    if manifest is None:
        raise ValueError("give a manifest or --codes; inputs stand before lists, or after --")
    _refuse_recordings(manifest)
    check_page(manifest, report=report)
    if max_seconds <= 0:
        raise ValueError(f"--max-seconds {max_seconds:g}; accepted: above 0")
    if labels and len(set(labels)) < len(labels):
        raise ValueError(f"--labels {' '.join(labels)}; accepted: each label once")
    checked = check_manifest(
        manifest,
        labels=labels or LABELS,
        columns=columns,
        label_map=label_map,
        require=require or (),
        audio=not no_audio,
        max_seconds=max_seconds,
        allow=allow or (),
        strict=strict,
        progress=show_progress(),
    )
    print_json(as_json(checked)) if json else print(summary(checked))
    if report is not None:
        write_page(checked, report)
        log(f"report: {report}")
    if checked.errors:
        sys.exit(1)


def split(
    manifest: str,
    *,
    out: str,
    by: Literal["speaker", "block", "stratified", "leave-one-speaker-out"],
    shares: Shares | None = None,
    folds: int | None = None,
    fold: int | None = None,
    stratify: list[str] | None = None,
    block_rows: int = 50,
    keep_texts: bool = False,
    replace: bool = False,
    columns: Pairs | None = None,
    seed: Number = 0,
) -> None:
    """Divide the rows of a manifest into splits or folds; writes a copy and OUT.split.json, its recipe.

    A speaker (--by speaker) or a block of consecutive rows (--by block), such as one recording's, is never
    divided.

    Example: mmsr data split my/all.csv --out my/manifest.csv --by speaker --shares train=.8 dev=.2

    Args:
        manifest: A csv, tsv, jsonl, parquet or xlsx file.
        out: The copy, in any of these formats. Its other columns stay as they were.
        by: Which rows are kept together; with stratified, none.
        shares: Splits and their shares; train=.8 dev=.1 test=.1 by default.
        folds: Number of folds; the column `fold` is written instead of `split`.
        fold: Write `split` after all: this fold is test, the next one dev, the others train.
        stratify: Columns whose values are spread evenly over the splits: label by default, none if no name
            follows. By speaker and with none, the folds are those of `mmsr fit --data.fold`.
        block_rows: Number of rows in a block.
        keep_texts: Keep rows with the same sentence together too.
        replace: Replace the values that the column `split` (or `fold`) has already.
        columns: Names that columns have in this manifest.
        seed: The same seed gives the same splits.
    """
    from mmsr.data.loading.splits import STRATIFY, split_manifest
    from mmsr.evaluation.provenance import command_line

    recipe = split_manifest(
        manifest,
        out,
        by=by,
        shares=shares,
        folds=folds,
        fold=fold,
        replace_column=replace,
        columns=columns,
        command=command_line(),
        stratify=STRATIFY if stratify is None else stratify,
        block_rows=block_rows,
        keep_texts=keep_texts,
        seed=seed,
    )
    for name, entry in recipe["counts"].items():
        labels = ", ".join(f"{label} {count:,}" for label, count in entry["label"].items())
        speakers = f", {entry['speakers']:,} speakers" if entry["speakers"] else ""
        print(f"{recipe['column']} {name}: {entry['rows']:,} rows{speakers}; {labels or 'no labels'}")
    log(f"{out}, and how it was made: {Path(out).with_suffix('.split.json')}")


def convert(
    source: str,
    *,
    from_: Annotated[str, Parameter(name="--from")],
    out: str,
    labels: str | None = None,
    copy: bool = False,
    language: str | None = None,
    encoding: str | None = None,
    speaker_from: str | None = None,
) -> None:
    """Turn a published corpus on disk into a manifest; writes OUT/manifest.csv, corpus.json and left_out.csv.

    A recording that cannot be read is left out, named, and written to left_out.csv with the reason; the
    others are converted. MELD, CMU-MOSI, CMU-MOSEI and Sentiment Reasoning keep such a row with its text.

    Example: mmsr data convert ~/emodb --from emodb --out corpora/emodb
    Example: mmsr data convert recordings --from folder --out corpora/mine --speaker-from "^([0-9]+)_"

    corpus.json has the corpus's evaluation protocol, which `mmsr evaluate` puts beside its metrics.

    Args:
        source: Folder of the corpus.
        from_: Which corpus: {mmsr.data.corpora:CORPORA}; a `folder` has one of recordings for each label, or
            recordings without.
        out: A new folder.
        labels: Which labels, if the corpus has several: sentiment (the default) or emotion; of cmu-mosi and
            cmu-mosei sentiment, acc2, acc2_nonnegative or acc7; of a folder none, if folders are no labels.
        copy: Copy the recordings; by default the manifest names them in their folder.
        language: Language of a `folder`, such as vi: of its rows, and to find the encoding of transcripts.
        encoding: Encoding of the transcripts of a `folder`, such as gb18030, where it is not found.
        speaker_from: Regular expression that finds the speaker in the name of each recording of a `folder`,
            or in its path below SOURCE if it has a /: its first group, or the one named `speaker`.
            Recordings with other names have no speaker, and are counted.
    """
    from mmsr.data.corpora import CORPORA
    from mmsr.data.corpora.conversion import convert as convert_corpus
    from mmsr.evaluation.provenance import command_line

    if from_ not in CORPORA:
        raise ValueError(f"--from {from_} is no known corpus; accepted: {', '.join(CORPORA)}")
    done = convert_corpus(
        CORPORA[from_],
        source,
        out,
        labels=labels,
        copy=copy,
        language=language,
        encoding=encoding,
        speaker_from=speaker_from,
        command=command_line(),
        progress=show_progress(),
    )
    counts, protocol = done.record["counts"], done.record["protocol"]
    for column in ("label", "split", "language", "kind"):
        if counts[column]:
            print(f"{column}: {', '.join(f'{value} {count:,}' for value, count in counts[column].items())}")
    if counts["speakers"]:
        print(f"speakers: {counts['speakers']:,}")
    print(f"with recording {counts['audio']:,}, with transcript {counts['text']:,}")
    if not counts["text"]:
        log(f"no row has a transcript: mmsr transcribe {Path(out) / 'manifest.csv'} --asr MODEL adds them")
    left_out = sum(counts["left_out"].values())
    print(f"{sum(counts['read'].values()):,} rows read, {counts['rows']:,} written, {left_out:,} left out")
    if protocol["folds"] == len(counts["fold"]):  # otherwise speakers share a fold
        log(f"folds by {protocol['fold_by']}: mmsr fit --data.fold 0 --data.folds {protocol['folds']} ...")
    if done.left_out:
        log(f"left out, with reasons: {done.manifest.with_name('left_out.csv')}")
    log(f"manifest: {done.manifest}")


def segment(
    manifest: str,
    *,
    out: str,
    cut: Annotated[SegmentFlags | None, FLAT] = None,
    columns: Pairs | None = None,
    keep_text: bool = False,
    keep_label: KeepLabel = True,
) -> None:
    """Cut a manifest's long recordings into segments of speech, one row for each.

    Writes OUT/manifest.csv, the segments as OUT/audio/<id>/0001.flac ..., and OUT/segments.csv with their
    times. Rows whose audio is not longer than --max-seconds and columns of other names are kept. After an
    interruption the same command continues.

    Example: mmsr data segment my/manifest.csv --out my/segments

    Args:
        manifest: A csv, tsv, jsonl, parquet or xlsx file.
        out: Folder to write.
        cut: How speech is cut.
        columns: Names that columns have in this manifest, such as text=transcript.
        keep_text: Give each segment the text and rationale of the whole recording.
        keep_label: Give each segment the label of the whole recording.
    """
    must_be_there(manifest=manifest)
    from mmsr.data.audio.segments import Segmentation
    from mmsr.data.manifest.segmentation import segment_manifest

    done = segment_manifest(
        manifest,
        out,
        settings=Segmentation(**vars(cut or SegmentFlags())),
        columns=columns,
        keep_text=keep_text,
        keep_label=keep_label,
        progress=show_progress(),
    )
    if done.silent:
        shown = ", ".join(done.silent[:5]) + (" ..." if len(done.silent) > 5 else "")
        silent = f"{len(done.silent)} of {done.recordings} recordings"
        log(f"no speech in {silent}, which have no row now: {shown}")
    log(
        f"{done.recordings} recordings, {done.seconds / 60:.1f} min -> {done.segments} segments,"
        f" {done.speech_seconds / 60:.1f} min; {done.rows} rows in all -> {done.manifest}"
    )


def features(
    store: str,
    *,
    evict_to: str | None = None,
    older_than: str | None = None,
    clear: bool = False,
    json: bool = False,
) -> None:
    """Show what a feature store holds and how often it was used, or remove entries.

    A training that uses the store at the same time encodes again what was removed.

    Example: mmsr data features runs/features --evict-to 2GB

    Args:
        store: Folder of the store, as in training with --model.feature_store.
        evict_to: Remove the least recently used entries down to this size, such as 2GB or 500MB.
        older_than: Remove entries that were not used for this time, such as 30d or 12h.
        clear: Remove all entries.
        json: Print JSON instead of a table.
    """
    if not os.path.isdir(store):
        raise ValueError(f"--store {store}: no such folder")
    if clear and (evict_to or older_than):
        raise ValueError("--clear removes all entries; accepted: without --evict-to and --older-than")
    to_bytes = 0 if clear else as_bytes(evict_to)
    seconds = as_seconds(older_than)
    from mmsr.data.features.store import FeatureStore

    found = FeatureStore(store)
    if to_bytes is not None or seconds is not None:
        removed, freed = found.evict(to_bytes=to_bytes, older_than=seconds)
        log(f"{removed:,} entries removed, {freed / 1e6:,.1f} MB")
    makers, runs = found.makers(), found.runs()
    if json:
        print(dumps({"store": store, "encoders": makers, "runs": runs}))
        return
    for maker in makers:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(maker["used"]))
        held = f"{maker['entries']:>9,} entries  {maker['bytes'] / 1e6:>10,.1f} MB  last used {used}"
        print(f"{maker['maker']}  {held}  {maker['dtype'] or '-'}  {maker['name']}")
    entries, size = (sum(maker[what] for maker in makers) for what in ("entries", "bytes"))
    print(f"{entries:,} entries, {size / 1e6:,.1f} MB")
    for run in runs:
        asked = run["hits"] + run["misses"]
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run["time"]))
        share = f" ({run['hits'] / asked:.0%})" if asked else ""
        print(f"{when}  {run['run']}: {run['hits']:,} of {asked:,} were there{share}")


def degrade(
    manifest: str,
    *,
    confusions: str,
    wer: list[float],
    out: str,
    seed: Number = 0,
    columns: Pairs | None = None,
) -> None:
    """Make asr_text from text at chosen error rates, with the errors of a recogniser; for robustness curves.

    Writes OUT/wer-0.10.csv and so on, and OUT/confusions.json. `mmsr evaluate` on each file gives a point of
    the curve, in its conditions asr and audio+asr.

    Example: mmsr data degrade m.csv --confusions heard.csv --wer .1 .2 .4 --out degraded

    Args:
        manifest: Table of utterances with text.
        confusions: Errors of the recogniser: a manifest with asr_text beside text, or a confusions.json.
        wer: Error rates to reach, from 0 to 1: of words, or of characters in languages without spaces.
        out: Folder to write.
        seed: The same seed gives the same errors; a higher rate adds errors to those of a lower one.
        columns: Names that columns have in this manifest, such as text=transcript.
    """
    must_be_there(manifest=manifest, confusions=confusions)
    from mmsr.evaluation.error_rates import markdown_table
    from mmsr.evaluation.robustness.confusions import Confusions, degrade_manifest

    learned = Confusions.open(confusions, columns=columns)
    measured = degrade_manifest(manifest, learned, out, wer=wer, seed=seed, columns=columns)
    for path, rates in measured.items():
        print(f"{path}\n{markdown_table(rates)}\n")


def as_bytes(size: str | None) -> int | None:
    """2GB as a number of bytes."""
    from datasets.utils.py_utils import convert_file_size_to_int

    if size is None:
        return None
    try:
        return int(convert_file_size_to_int(size))
    except ValueError:
        raise ValueError(f"--evict-to {size!r} is no size; accepted: such as 2GB or 500MB") from None


def as_seconds(duration: str | None) -> float | None:
    """30d as a number of seconds."""
    if duration is None:
        return None
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|h|d|w)", duration)
    if parts is None:
        raise ValueError(f"--older-than {duration!r} is no duration; accepted: such as 30d, 12h or 15min")
    return float(parts[1]) * {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800}[parts[2]]


def _refuse_recordings(manifest: str) -> None:
    """Refuse a folder of recordings, whose text files would be read as a table."""
    from mmsr.data.corpora.source import SOUND

    if not Path(manifest).is_dir():
        return
    endings = {path.suffix.lower() for path in Path(manifest).rglob("*")}
    tables = {".csv", ".tsv", ".json", ".jsonl", ".parquet", ".arrow"}
    if endings & SOUND and not endings & tables:
        raise ValueError(
            f"{manifest} is a folder of recordings; accepted: a manifest, as of "
            f"mmsr data convert {manifest} --from folder --out FOLDER"
        )

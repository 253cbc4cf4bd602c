"""Human evaluation: sheets on which people rate the answers of runs, and scores of their ratings."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmsr.data.audio.decoding import Audio
from mmsr.data.manifest.manifest import fingerprint, load_manifest, utterances
from mmsr.evaluation.compare import System
from mmsr.evaluation.human.ratings import ratings_fingerprint, read_key, read_ratings
from mmsr.evaluation.human.scores import Scores, score
from mmsr.evaluation.human.sheet import Made, SheetDesign, make_sheets
from mmsr.evaluation.provenance import Provenance, command_line
from mmsr.evaluation.report.page import check_out
from mmsr.evaluation.report.ratings import write_ratings
from mmsr.evaluation.significance import RESAMPLES
from mmsr.files import check_output, write_file
from mmsr.messages import no_such_file
from mmsr.records import SAMPLE_RATE, Progress


def make_rating_sheets(
    runs: Sequence[str],
    manifest: str | Path,
    out: str | Path,
    *,
    design: SheetDesign | None = None,
    condition: str | None = None,
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Made:
    """Make blinded sheets on which people rate the answers of runs.

    Writes `out`/sheets, one HTML file a rater, and `out`/key.json, which names the runs of the answers.

    Example:
        >>> design = SheetDesign(items=20, raters=3)
        >>> runs = ["runs/demo:audio+text", "runs/demo:text"]
        >>> make_rating_sheets(runs, "runs/demo/corpus/manifest.csv", "human", design=design).sheets

    Args:
        runs: Two or more of `[NAME=]PATH[:CONDITION]`, as for `compare_runs`.
        manifest: A table of the utterances, for recordings and transcripts.
        out: A new folder.
        design: What is on the sheets.
        condition: The condition of the runs' rows; by default the first that all runs have.
        columns: Where a column has another name in the manifest.
        seed: The seed of every draw.
        progress: Called as recordings are read.

    Raises:
        ValueError: The runs or the manifest cannot be read, numbers of the design do not fit each other or
            the rows, or `out` is not new.
    """
    check_output(out, folder=True, name="--out")
    systems = [System.parse(run) for run in runs]
    table = load_manifest(manifest, columns=columns)
    return make_sheets(
        systems,
        utterances(table),
        Path(out),
        listen=Audio(SAMPLE_RATE),
        design=design or SheetDesign(),
        condition=condition,
        seed=seed,
        command=command_line(),
        data_fingerprint=fingerprint(table),
        progress=progress,
    )


@dataclass(frozen=True)
class RatingScores:
    """Scores, the content of scores.json, the number of items left out, and the path of report.html."""

    scores: Scores
    document: dict[str, Any]
    left_out: int
    report: Path | None


def score_ratings(
    ratings: Sequence[str | Path],
    key: str | Path,
    *,
    out: str | Path | None = None,
    partial: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> RatingScores:
    """Score saved ratings: means, differences, tests, agreement, items needed.

    Example:
        >>> score_ratings(["ratings-1.json", "ratings-2.json"], "human/key.json").scores.contrasts

    Args:
        ratings: The files that the sheets saved.
        key: The key.json of `make_rating_sheets`.
        out: A folder for scores.json and a report.
        partial: Leave out items with a missing answer, instead of raising.
        resamples: Resamples of the bootstraps and of the permutation tests.
        seed: The seed of both.

    Raises:
        ValueError: A file is missing or is not of this key, an answer is missing, `resamples` is below 100,
            or `out` holds another command's report.
    """
    started = time.perf_counter()
    for path in (key, *ratings):
        if not Path(path).is_file():
            raise ValueError(no_such_file(path))
    if out is not None:
        check_out(out, "scores.json")
    if resamples < 100:
        raise ValueError(f"--resamples {resamples}; accepted: 100 or more")
    known = read_key(Path(key))
    files = [Path(path) for path in ratings]
    read, left_out = read_ratings(files, known, partial=partial)
    scores = score(read, known, resamples=resamples, seed=seed)
    data_fingerprint = known.get("data_fingerprint") or "unknown"  # older keys have none
    seconds = time.perf_counter() - started
    document = {
        "key": str(key),
        "differing": known["differing"],
        **asdict(scores),
        "agreement": {measure: alpha._asdict() for measure, alpha in scores.agreement.items()},
        "ratings_fingerprint": ratings_fingerprint(files),
        **Provenance(seed=seed, data_fingerprint=data_fingerprint, seconds=seconds).to_dict(),
    }
    report = None
    if out is not None:
        content = json.dumps(document, ensure_ascii=False, indent=2)
        write_file(Path(out) / "scores.json", f"{content}\n".encode())
        report = write_ratings(Path(out), scores, key=known, document=document)
    return RatingScores(scores, document, left_out, report)

"""Reports of `mmsr data check`: text, JSON and an HTML page.

CheckedManifest ─► counts ─┬─► summary: text for the terminal, the first issues of each kind
                           ├─► as_json: one object, every issue
                           └─► write_page: one HTML file
"""

import os
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow.compute as pc

from mmsr.data.manifest.check.codes import CODES
from mmsr.data.manifest.check.table import SPLITS, CheckedManifest
from mmsr.data.manifest.issues import Issue
from mmsr.data.manifest.sentences import codes
from mmsr.files import write_file
from mmsr.progress import duration

_BINS = 24


def counts(checked: CheckedManifest) -> dict[str, Any]:
    """Rows, hours and seconds, speakers, and rows by split, label, language and kind."""
    seconds = checked.seconds[~np.isnan(checked.seconds)]
    entry: dict[str, Any] = {
        "rows": len(checked.table),
        "audio": len(checked.table) - checked.table["audio"].null_count,
        "hours": round(float(seconds.sum()) / 3600, 4) if len(seconds) else None,
        "seconds": round(float(seconds.sum()), 3) if len(seconds) else None,
        "speakers": pc.count_distinct(checked.table["speaker"]).as_py(),
    }
    for column in ("split", "label", "language", "kind"):
        rows = pc.value_counts(checked.table[column].drop_null()).to_pylist()
        entry[column] = dict(sorted((row["values"], row["counts"]) for row in rows))
    return entry


def summary(checked: CheckedManifest, *, shown: int = 3) -> str:
    """Counts and issues as text: for each code their number and the first `shown`."""
    entry = counts(checked)
    lines = []
    for column in ("split", "label", "language", "kind"):
        there = ", ".join(f"{name} {count:,}" for name, count in entry[column].items())
        lines.append(f"{column}: {there or 'not given'}")
    sound = f", {entry['audio']:,} with audio" if entry["audio"] else ""
    hours = f" ({duration(entry['seconds'])})" if entry["seconds"] is not None else ""
    speakers = f", {entry['speakers']:,} speakers" if entry["speakers"] else ""
    lines.append(f"{entry['rows']:,} rows{sound}{hours}{speakers}")
    for code, issues in by_code(checked.issues).items():
        severity = issues[0].severity
        lines.append(f"\n{severity} {code} ({len(issues):,}): {CODES[code].meaning} -> {CODES[code].remedy}")
        lines += [f"  {issue}" for issue in issues[:shown]]
        if len(issues) > shown:
            lines.append(f"  ... and {len(issues) - shown:,} more (all with --json)")
    for code, issues in by_code(checked.forgiven).items():
        lines.append(f"\nallowed {code} ({len(issues):,}): {CODES[code].meaning}")
    lines.append(f"\n{checked.name}: {verdict(checked)}")
    return "\n".join(lines)


def verdict(checked: CheckedManifest) -> str:
    """The result in one line."""
    rows = f"{len(checked.table):,} rows"
    if not checked.issues:
        return f"{rows}, no faults"
    errors = f"{checked.errors:,} error" + "s" * (checked.errors != 1)
    return f"{rows}, {errors}, {checked.warnings:,} warning" + "s" * (checked.warnings != 1)


def as_json(checked: CheckedManifest) -> dict[str, Any]:
    """Counts and every issue as JSON values."""
    return {
        "manifest": checked.name,
        "counts": counts(checked),
        "errors": checked.errors,
        "warnings": checked.warnings,
        "forgiven": {code: len(issues) for code, issues in by_code(checked.forgiven).items()},
        "faults": [
            {
                "file": issue.file,
                "row": issue.row,
                "column": issue.column,
                "code": issue.code,
                "severity": issue.severity,
                "message": issue.problem,
            }
            for issue in checked.issues
        ],
    }


def by_code(issues: Sequence[Issue]) -> dict[str, list[Issue]]:
    """Issues of each code, errors first, then in the order of `CODES`."""
    order = {code: place for place, code in enumerate(CODES)}
    ordered = sorted(issues, key=lambda issue: (issue.severity != "error", order[issue.code]))
    return {code: list(group) for code, group in groupby(ordered, key=lambda issue: issue.code)}


def code_table() -> str:
    """Every code with its severity, meaning and remedy, a line each."""
    width = max(map(len, CODES))
    return "\n".join(
        f"{code:{width}}  {kind.severity:7}  {kind.meaning} -> {kind.remedy}" for code, kind in CODES.items()
    )


def write_page(checked: CheckedManifest, path: str | os.PathLike[str], *, shown: int = 10) -> None:
    """Write an HTML page: counts, lengths, labels by language and split, issues with examples."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files("mmsr.data.manifest.check").joinpath("report.html.jinja").read_text("utf-8")
    template = environment.from_string(source)
    seconds = checked.seconds[~np.isnan(checked.seconds)]
    lengths = pc.utf8_length(checked.table["text"]).drop_null().to_numpy()
    histograms = (
        _histogram(seconds, "Seconds of audio in a row", "s"),
        _histogram(lengths.astype(float), "Characters of text in a row", ""),
    )
    html = template.render(
        checked=checked,
        verdict=verdict(checked),
        counts=(entry := counts(checked)),
        length=None if entry["seconds"] is None else duration(entry["seconds"]),
        cells=_cells(checked),
        speakers=_speakers(checked),
        histograms=list(filter(None, histograms)),
        issues=[(code, CODES[code], group, group[:shown]) for code, group in by_code(checked.issues).items()],
        forgiven=[(code, CODES[code], group) for code, group in by_code(checked.forgiven).items()],
    )
    write_file(path, html.encode())


def _by_split(checked: CheckedManifest) -> dict[str, np.ndarray]:
    """Which rows `[n]` are in each split; "all" without splits."""
    numbers, names = codes(checked.table["split"])
    ordered = [name for name in SPLITS if name in names] + sorted(set(names).difference(SPLITS))
    splits = {name: numbers == names.index(name) for name in ordered}
    if (numbers < 0).any():
        splits["no split" if splits else "all"] = numbers < 0
    return splits


def _cells(checked: CheckedManifest) -> dict[str, Any]:
    """Rows by label and language (down) and split (across)."""
    splits = _by_split(checked)
    labels, label_names = codes(checked.table["label"])
    languages, language_names = codes(checked.table["language"])
    label_order = [label for label in checked.labels if label in label_names]
    label_order += sorted(set(label_names) - set(label_order))
    body = []
    for language in [*sorted(language_names), None]:
        spoken = languages == (-1 if language is None else language_names.index(language))
        for label in [*label_order, None]:
            rows = spoken & (labels == (-1 if label is None else label_names.index(label)))
            if rows.any():
                there = [int((rows & split).sum()) for split in splits.values()]
                body.append((language or "no language", label or "no label", there, int(rows.sum())))
    return {"splits": list(splits), "totals": [int(split.sum()) for split in splits.values()], "body": body}


def _speakers(checked: CheckedManifest) -> Mapping[str, tuple[int, int, int, int]]:
    """Number of speakers of each split, and fewest, median and most rows of a speaker."""
    numbers, names = codes(checked.table["speaker"])
    table = {}
    for split, rows in _by_split(checked).items() if names else ():
        there = np.bincount(numbers[rows & (numbers >= 0)], minlength=len(names))
        there = there[there > 0]
        if len(there):
            table[split] = (len(there), int(there.min()), int(np.median(there)), int(there.max()))
    return table


def _histogram(values: np.ndarray, title: str, unit: str) -> dict[str, Any] | None:
    """A histogram of values, for a drawing 640 wide and 150 high; None without values."""
    if not len(values):
        return None
    heights, edges = np.histogram(values, bins=_BINS, range=(0, max(float(values.max()), 1e-9)))
    width = 640 / _BINS
    bars = [
        {
            "x": round(place * width + 1, 1),
            "width": round(width - 2, 1),
            "height": round(150 * count / heights.max(), 1),
            "title": f"{edges[place]:.4g} to {edges[place + 1]:.4g}{unit and ' ' + unit}: {count:,} rows",
        }
        for place, count in enumerate(heights.tolist())
    ]
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    spread = f"median {middle:.4g}, 5 % to 95 %: {low:.4g} to {high:.4g}"
    ticks = [(640 * part / 4, f"{edges[-1] * part / 4:.3g}") for part in range(5)]
    return {
        "title": title,
        "spread": f"{spread}; least {values.min():.4g}, most {values.max():.4g}",
        "bars": bars,
        "most": int(heights.max()),
        "ticks": ticks,
    }

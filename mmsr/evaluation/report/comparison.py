"""The report of a comparison: runs side by side, as a page like those of runs.

comparisons of `mmsr.evaluation.compare`, metrics.json beside the predictions ─► page
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmsr.evaluation.compare import Comparison, System, as_interval, as_p_value, corpus_note
from mmsr.evaluation.metrics import METRICS
from mmsr.evaluation.report.names import MISSING, NAMES, number
from mmsr.evaluation.report.page import Notes, Page, Section, Table, TableRow, origin, picture, write_page
from mmsr.evaluation.report.pictures import draw_differences


def write_comparison(
    path: Path | str,
    comparisons: Sequence[Comparison],
    systems: Sequence[System],
    *,
    document: Mapping[str, Any],
) -> Path:
    """Writes the report of comparisons to `path`, Markdown and picture beside it, and returns `path`.

    `document` says where the comparison comes from, with the keys that metrics.json has for it: `seed`,
    `command`, `machine`, `versions`.
    """
    path = Path(path)
    first = comparisons[0]
    metric = METRICS[first.metric].title
    conditions = ", ".join(dict.fromkeys(NAMES.get(pair.condition, pair.condition) for pair in comparisons))
    runs = [(system.name, file) for system in systems for file in system.files]
    described = {file: _beside(file) for _, file in runs}
    data = dict.fromkeys(str(found.get("data_fingerprint", "unknown")) for found in described.values())
    provenance = {
        **origin(document),
        "intervals": f"95 % over {', or '.join(dict.fromkeys(pair.drawn for pair in comparisons))}",
        "data fingerprint": ", ".join(data),
    }
    drawn = picture(
        f"{path.stem}-differences",
        partial(draw_differences, comparisons),
        caption="Differences with their 95 % intervals. A filled mark is a difference with p below .05 after "
        "Holm's correction, an open one is not.",
        alt="Marks with intervals, one a comparison, beside a line at no difference; the table above has the "
        "same figures.",
        provenance=provenance,
        pan=True,
    )
    page = Page(
        title=f"{first.a} compared" if len(comparisons) > 1 else f"{first.a} and {first.b}",
        lead=f"{metric}; {conditions}; the same {first.rows:,} rows answered by all.",
        sections=[
            Section("Differences", [_differences(comparisons, metric), drawn, Notes(_notes(comparisons))]),
            _seeds(comparisons, metric),
            _runs(runs, described),
        ],
        provenance=provenance,
    )
    return write_page(page, path)


def _differences(comparisons: Sequence[Comparison], metric: str) -> Table:
    columns = ["a - b", "a", "b", "difference", "p", "p (Holm)", "McNemar p", "effect", "detectable"]
    rows = [
        TableRow(
            f"{pair.a} - {pair.b}",
            [
                number(pair.figure_a),
                number(pair.figure_b),
                number(pair.difference, pair.interval, signed=True),
                as_p_value(pair.p_value),
                as_p_value(pair.p_holm),
                as_p_value(pair.mcnemar["p_value"]) if pair.mcnemar else MISSING,
                MISSING if pair.effect_size["value"] is None else f"{pair.effect_size['value']:+.2f}",
                number(pair.detectable),
            ],
        )
        for pair in comparisons
    ]
    return Table(columns, rows, f"Differences of {metric}. Brackets: 95 % intervals.")


def _notes(comparisons: Sequence[Comparison]) -> list[tuple[str, str]]:
    first = comparisons[0]
    cohen = first.effect_size["name"] == "cohen_h"
    notes = []
    if any(pair.seeds_vary for pair in comparisons):
        notes.append(
            ("interval and p, seeds on both sides", f"Student's t: the variance over {first.units:,} "
             f"{first.over} and that over seeds add up, so that both hold for other seeds and {first.over}.")
        )  # fmt: skip
    if not all(pair.seeds_vary for pair in comparisons):
        notes.append(
            ("interval and p, one seed on a side", f"paired bootstrap over {first.units:,} {first.over}, and "
             f"permutation test: the two systems' answers are swapped for whole {first.over}. Both speak of "
             "these trainings alone: another seed may say otherwise.")
        )  # fmt: skip
    notes += [(f"{pair.a} - {pair.b}", f"{pair.disagreement}.") for pair in comparisons if pair.disagreement]
    if note := corpus_note(first.metric):
        notes.append((METRICS[first.metric].title, note))
    return [
        *notes,
        ("p (Holm)", "corrected for all comparisons of this page."),
        ("McNemar p", "of the rows that one system alone has right; it takes rows as independent."),
        ("effect", "Cohen's h." if cohen else f"the difference in standard deviations of {first.over}."),
        ("detectable", "the smallest true difference that such rows and as many seeds show with 80 % power."),
    ]  # fmt: skip


def _seeds(comparisons: Sequence[Comparison], metric: str) -> Section | None:
    """What the seeds of the systems say."""
    rows = []
    for pair in comparisons:
        if (seeds := pair.seeds) is not None:
            both = "no interval with one seed on a side"
            if seeds.interval is not None and seeds.p_value is not None:
                both = f"{as_interval(seeds.interval)}, p {as_p_value(seeds.p_value)}"
            fixed = f"{as_interval(pair.interval_fixed_seeds)}, p {as_p_value(pair.p_value_fixed_seeds)}"
            values = (", ".join(map(number, side)) for side in (seeds.a, seeds.b))
            rows.append(
                TableRow(f"{pair.a} - {pair.b}", [*values, number(pair.difference, signed=True), both, fixed])
            )
    if not rows:
        return None
    columns = [
        "a - b",
        "seeds of a",
        "seeds of b",
        "difference of the means",
        "95 % over seeds alone (Welch)",
    ]
    columns.append(f"95 % over {comparisons[0].over}, these seeds as they are")
    return Section("Seeds", [Table(columns, rows, f"{metric} of each seed.", words=True)])


def _runs(runs: Sequence[tuple[str, Path]], described: Mapping[Path, Mapping[str, Any]]) -> Section:
    """Where each system's predictions come from, as far as a metrics.json beside them says."""
    rows = []
    for name, file in runs:
        found = origin(described[file])
        keys = ("seed", "data fingerprint", "command", "processor")
        rows.append(TableRow(name, [file.parent.name, *(found.get(key, MISSING) for key in keys)]))
    columns = ["system", "run", "seed", "data fingerprint", "command", "processor"]
    return Section("Runs", [Table(columns, rows, "Predictions that are compared.", words=True)])


def _beside(predictions: Path) -> Mapping[str, Any]:
    path = predictions.with_name("metrics.json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

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
    conditions = ", ".join(dict.fromkeys(NAMES.get(one.condition, one.condition) for one in comparisons))
    runs = [(system.name, file) for system in systems for file in system.files]
    described = {file: _beside(file) for _, file in runs}
    data = dict.fromkeys(str(found.get("data_fingerprint", "unknown")) for found in described.values())
    provenance = {
        **origin(document),
        "intervals": f"95 % over {', or '.join(dict.fromkeys(one.drawn for one in comparisons))}",
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
            f"{one.a} - {one.b}",
            [
                number(one.figure_a),
                number(one.figure_b),
                number(one.difference, one.interval, signed=True),
                as_p_value(one.p_value),
                as_p_value(one.p_holm),
                as_p_value(one.mcnemar["p_value"]) if one.mcnemar else MISSING,
                MISSING if one.effect_size["value"] is None else f"{one.effect_size['value']:+.2f}",
                number(one.detectable),
            ],
        )
        for one in comparisons
    ]
    return Table(columns, rows, f"Differences of {metric}. Brackets: 95 % intervals.")


def _notes(comparisons: Sequence[Comparison]) -> list[tuple[str, str]]:
    one = comparisons[0]
    cohen = one.effect_size["name"] == "cohen_h"
    notes = []
    if any(each.seeds_vary for each in comparisons):
        notes.append(
            ("interval and p, seeds on both sides", f"Student's t: the variance over {one.units:,} "
             f"{one.over} and that over seeds add up, so that both hold for other seeds and {one.over}.")
        )  # fmt: skip
    if not all(each.seeds_vary for each in comparisons):
        notes.append(
            ("interval and p, one seed on a side", f"paired bootstrap over {one.units:,} {one.over}, and "
             f"permutation test: the two systems' answers are swapped for whole {one.over}. Both speak of "
             "these trainings alone: another seed may say otherwise.")
        )  # fmt: skip
    notes += [(f"{each.a} - {each.b}", f"{each.disagreement}.") for each in comparisons if each.disagreement]
    if note := corpus_note(one.metric):
        notes.append((METRICS[one.metric].title, note))
    return [
        *notes,
        ("p (Holm)", "corrected for all comparisons of this page."),
        ("McNemar p", "of the rows that one system alone has right; it takes rows as independent."),
        ("effect", "Cohen's h." if cohen else f"the difference in standard deviations of {one.over}."),
        ("detectable", "the smallest true difference that such rows and as many seeds show with 80 % power."),
    ]  # fmt: skip


def _seeds(comparisons: Sequence[Comparison], metric: str) -> Section | None:
    """What the seeds of the systems say."""
    rows = []
    for one in comparisons:
        if (seeds := one.seeds) is not None:
            both = "no interval with one seed on a side"
            if seeds.interval is not None and seeds.p_value is not None:
                both = f"{as_interval(seeds.interval)}, p {as_p_value(seeds.p_value)}"
            fixed = f"{as_interval(one.interval_fixed_seeds)}, p {as_p_value(one.p_value_fixed_seeds)}"
            values = (", ".join(map(number, side)) for side in (seeds.a, seeds.b))
            rows.append(
                TableRow(f"{one.a} - {one.b}", [*values, number(one.difference, signed=True), both, fixed])
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

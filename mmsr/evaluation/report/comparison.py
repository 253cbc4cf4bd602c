"""The report of a comparison of runs.

comparisons of `mmsr.evaluation.compare`, metrics.json beside the predictions ─► page
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mmsr.evaluation.compare import Comparison, System, as_interval, as_p_value, corpus_note
from mmsr.evaluation.metrics import METRICS
from mmsr.evaluation.report.names import MISSING, NAMES, number
from mmsr.evaluation.report.page import Block, Picture, Row, Table, origin, write_page
from mmsr.evaluation.report.pictures import draw_differences


class Compared(NamedTuple):
    """The content of the report."""

    comparisons: Sequence[Comparison]  # one or more, of one metric
    # for each predictions file, its system, path and `page.origin`
    origins: Sequence[tuple[str, Path, Mapping[str, str]]]
    name: str  # beginning of the pictures' names

    @property
    def first(self) -> Comparison:
        """The first comparison."""
        return self.comparisons[0]

    @property
    def metric(self) -> str:
        """The title of the metric."""
        return METRICS[self.first.metric].title


def write_comparison(
    path: Path | str,
    comparisons: Sequence[Comparison],
    systems: Sequence[System],
    *,
    document: Mapping[str, Any],
) -> Path:
    """Write the report of comparisons to `path`, Markdown and picture beside it; return `path`.

    `document` is the provenance of the comparison, with keys of metrics.json: `seed`, `command`, `machine`,
    `versions`.
    """
    path, first = Path(path), comparisons[0]
    origins = [(system.name, file, _origin_beside(file)) for system in systems for file in system.files]
    compared = Compared(comparisons, origins, path.stem)
    conditions = ", ".join(dict.fromkeys(NAMES.get(pair.condition, pair.condition) for pair in comparisons))
    data = dict.fromkeys(found.get("data fingerprint", "unknown") for _, _, found in origins)
    return write_page(
        path,
        SECTIONS,
        compared,
        title=f"{first.a} compared" if len(comparisons) > 1 else f"{first.a} and {first.b}",
        lead=f"{compared.metric}; {conditions}; the same {first.rows:,} rows answered by all.",
        provenance={
            **origin(document),
            "intervals": f"95 % over {', or '.join(dict.fromkeys(pair.drawn for pair in comparisons))}",
            "data fingerprint": ", ".join(data),
        },
    )


def differences(compared: Compared) -> list[Block]:
    """A row for each pair of systems."""
    columns = ["a - b", "a", "b", "difference", "p", "p (Holm)", "McNemar p", "effect", "detectable"]
    rows = [
        Row(
            f"{pair.a} - {pair.b}",
            [
                number(pair.figure_a),
                number(pair.figure_b),
                number(pair.difference, pair.interval, signed=True),
                as_p_value(pair.p_value),
                as_p_value(pair.p_holm),
                as_p_value(pair.mcnemar["p_value"]) if pair.mcnemar else MISSING,
                number(pair.effect_size["value"], signed=True, digits=2),
                number(pair.detectable),
            ],
        )
        for pair in compared.comparisons
    ]
    return [
        Table(columns, rows, f"Differences of {compared.metric}. Brackets: 95 % intervals."),
        Picture(
            f"{compared.name}-differences",
            partial(draw_differences, compared.comparisons),
            caption="Differences with their 95 % intervals. A filled mark is a difference with p below .05 "
            "after Holm's correction, an open one is not.",
            alt="Marks with intervals, one a comparison, beside a line at no difference; the table above has "
            "the same figures.",
            pan=True,
        ),
        _notes(compared),
    ]


def _notes(compared: Compared) -> dict[str, str]:
    first, comparisons = compared.first, compared.comparisons
    notes = {}
    if any(pair.seeds_vary for pair in comparisons):
        notes["interval and p, seeds on both sides"] = (
            f"Student's t: the variance over {first.units:,} {first.over} and that over seeds add up, so "
            f"that both hold for other seeds and {first.over}."
        )
    if not all(pair.seeds_vary for pair in comparisons):
        notes["interval and p, one seed on a side"] = (
            f"paired bootstrap over {first.units:,} {first.over}, and permutation test: the two systems' "
            f"answers are swapped for whole {first.over}. Both speak of these trainings alone: another seed "
            "may say otherwise."
        )
    notes |= {f"{pair.a} - {pair.b}": f"{pair.disagreement}." for pair in comparisons if pair.disagreement}
    if note := corpus_note(first.metric):
        notes[compared.metric] = note
    cohen = first.effect_size["name"] == "cohen_h"
    return notes | {
        "p (Holm)": "corrected for all comparisons of this page.",
        "McNemar p": "of the rows that one system alone has right; it takes rows as independent.",
        "effect": "Cohen's h." if cohen else f"the difference in standard deviations of {first.over}.",
        "detectable": "the smallest true difference that such rows and as many seeds show with 80 % power.",
    }


def seeds(compared: Compared) -> list[Block]:
    """The metric of each seed, and intervals over seeds and with fixed seeds."""
    rows = []
    for pair in compared.comparisons:
        if pair.seeds is None:
            continue
        over_seeds = "no interval with one seed on a side"
        if pair.seeds.interval is not None and pair.seeds.p_value is not None:
            over_seeds = f"{as_interval(pair.seeds.interval)}, p {as_p_value(pair.seeds.p_value)}"
        fixed = f"{as_interval(pair.interval_fixed_seeds)}, p {as_p_value(pair.p_value_fixed_seeds)}"
        values = (", ".join(map(number, side)) for side in (pair.seeds.a, pair.seeds.b))
        difference = number(pair.difference, signed=True)
        rows.append(Row(f"{pair.a} - {pair.b}", [*values, difference, over_seeds, fixed]))
    columns = ["a - b", "seeds of a", "seeds of b", "difference of the means"]
    columns += ["95 % over seeds alone (Welch)", f"95 % over {compared.first.over}, these seeds as they are"]
    return [Table(columns, rows, f"{compared.metric} of each seed.", words=True)] if rows else []


def runs(compared: Compared) -> list[Block]:
    """The provenance of each system's predictions, from the metrics.json beside them."""
    keys = ("seed", "data fingerprint", "command", "processor")
    rows = [
        Row(name, [file.parent.name, *(found.get(key, MISSING) for key in keys)])
        for name, file, found in compared.origins
    ]
    return [Table(["system", "run", *keys], rows, "Predictions that are compared.", words=True)]


SECTIONS: dict[str, Callable[[Compared], Sequence[Block]]] = {
    "Differences": differences,
    "Seeds": seeds,
    "Runs": runs,
}


def _origin_beside(predictions: Path) -> dict[str, str]:
    path = predictions.with_name("metrics.json")
    return origin(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

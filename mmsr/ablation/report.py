"""The results of an ablation for people: a table, a plot, and a paragraph filled with numbers.

results of `mmsr.ablation.summary` ─► results.json, table.{md,tex,csv}, report.{html,md}, plot.{png,pdf}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from mmsr.ablation.summary import CHOOSE_DEV_ROWS
from mmsr.evaluation.compare import LEVEL, as_p_value
from mmsr.evaluation.metrics import METRICS
from mmsr.evaluation.provenance import ORIGIN
from mmsr.evaluation.report.formats import render
from mmsr.evaluation.report.names import MISSING, NAMES, TableFormat, brackets, number, weight_count
from mmsr.evaluation.report.page import Block, Picture, Row, Table, origin, write_page
from mmsr.evaluation.report.pictures import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    Effect,
    as_pdf,
    draw_effects,
    make_figure,
    p_text,
)
from mmsr.files import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_report(out: Path, results: dict[str, Any]) -> None:
    """Write results.json, the table, the report and the plot; add `paragraph` to the results."""
    results["paragraph"] = paragraph(results)
    parts = [table(results), results["paragraph"], *_differing(results)]
    parts += [f"failed: {run['run']} ({run['settings']}): {run['error']}" for run in results["failed"]]
    content = json.dumps(results, ensure_ascii=False, indent=1, allow_nan=False)
    write_file(out / "results.json", content.encode())
    write_file(out / "table.md", "\n".join(f"{part.rstrip()}\n" for part in parts).encode())
    write_file(out / "table.tex", table(results, "latex").encode())
    write_file(out / "table.csv", table(results, "csv").encode())
    if any(variant["values"] for variant in results["variants"].values()):
        write_file(out / "plot.pdf", as_pdf(partial(draw, results)))
    _write_page(out, results)


def _write_page(out: Path, results: Mapping[str, Any]) -> None:
    variants = results["variants"].values()
    rows = sorted({variant["over"] for variant in variants if variant["over"]})
    paired = sorted({variant["difference"]["over"] for variant in variants if variant["difference"]})
    drawn = " and ".join(["95 % over seeds", *(f"over {over}" for over in rows)])
    provenance = {
        **origin(results),
        "seed": ", ".join(map(str, results["seeds"])),
        "intervals": "; of differences ".join([drawn, *(f"over {over}" for over in paired)]),
        "data fingerprint": ", ".join(results["data_fingerprints"]),
    }
    for differing in _differing(results):
        provenance["differing"] = differing
    if (reporter := results["reported_by"]) != {name: results[name] for name in ORIGIN}:
        version = reporter["versions"].get("mmsr", "of no version")
        provenance["report"] = f"by {reporter['command']}, mmsr {version}, {reporter['machine']['cpu']}"
    folds = f" × {len(results['folds'])} folds" if results["folds"] else ""
    lead = (
        f"{len(variants)} variants × {len(results['seeds'])} seeds{folds}, test rows. The "
        f"reference is `{results['reference']}`. Every figure is in results.json."
    )
    title = f"Ablation {results['ablation']}"
    write_page(out / "report.html", SECTIONS, results, title=title, lead=lead, provenance=provenance)


def table(results: Mapping[str, Any], form: TableFormat = "md", columns: Sequence[str] | None = None) -> str:
    """The results as a table: variants in the order of the file, those that were not run, then the baselines.

    LaTeX has what a paper shows: the metric and its interval over rows, the difference from the reference
    with its interval, and further metrics, or the columns that are asked for. The best variant is bold; a
    dagger marks a difference whose p-value, corrected by Holm, is below .05.
    """
    label = results["ablation"]
    whole = _table(results)
    if results["data_fingerprints"]:  # a report has its provenance at its end
        data = ", ".join(results["data_fingerprints"])
        whole = replace(whole, caption=f"{whole.caption} Data {data}.")
    if form != "latex":
        return render(whole, form, columns=columns, label=label)
    metric = f"{_title(results)} (test)"
    paper = [metric, "95 % over rows", "difference", "95 % paired"]
    paper += [METRICS[name].title for name in results["also"]]
    names = list(results["variants"])
    marked = whole.columns.index("difference") - 1
    rows = []
    not_run = {f"`{variant['variant']}`" for variant in results["not_run"]}
    for row in whole.rows:
        if row.name in not_run:
            continue
        cells = [str(cell) for cell in row.cells]
        difference = results["variants"].get(row.name.strip("`"), {}).get("difference") or {}
        if difference.get("p_holm", 1.0) < LEVEL:
            cells[marked] += "†"
        rows.append(row._replace(cells=[MISSING if cell == "reference" else cell for cell in cells]))
    means = [results["variants"][name]["mean"] for name in names]
    best = max((mean for mean in means if mean is not None), default=None)
    worst = min((mean for mean in means if mean is not None), default=None)
    best = best if METRICS[results["metric"]].higher_is_better else worst
    first = [place for place, row in enumerate(rows) if not row.baseline]
    bold = {
        (place, whole.columns.index(metric))
        for place, mean in zip(first, means, strict=True)
        if mean is not None and mean == best
    }
    caption = f"{whole.caption} Bold: the best variant. †: p (Holm) below {LEVEL}."
    return render(
        replace(whole, rows=rows, caption=caption),
        "latex",
        columns=paper if columns is None else columns,
        bold=bold,
        label=label,
    )


# ---------------------------------------------------------------------- sections


def overview(results: Mapping[str, Any]) -> list[Block]:
    """The table, the paragraph and the plot."""
    variants = results["variants"].values()
    blocks: list[Block] = [_table(results), results["paragraph"], *_differing(results)]
    if any(variant["values"] for variant in variants):
        blocks.append(
            Picture(
                "plot",
                partial(draw, results),
                caption=f"{_title(results)} of each variant: a dot for each seed, the mean and its interval "
                "over seeds.",
                alt="Dots, means and intervals by variant; the table above has the same figures.",
                pan=True,
            )
        )
    if effects := _effects(results):
        blocks.append(
            Picture(
                "differences",
                partial(
                    draw_effects, effects, label=f"{_title(results)}, difference from {results['reference']}"
                ),
                caption=f"Differences of {_title(results)} from `{results['reference']}` with their paired "
                f"95 % intervals. A filled mark has p (Holm) below {LEVEL}, an open one has not.",
                alt="Marks with intervals, one a variant, beside a line at no difference, as in the table.",
                pan=True,
            )
        )
    counts: dict[str, set[int]] = {}
    for variant in variants:
        if variant["over"]:
            counts.setdefault(variant["over"], set()).add(variant["units"])
    units = [f"{over} ({', '.join(map(str, sorted(counts[over])))})" for over in sorted(counts)]
    notes = {
        "95 % over seeds": "t-interval of the mean: what another seed would change.",
        "95 % over rows": f"bootstrap of the seeds' mean over {', '.join(units) or 'test rows'}: what other "
        "rows would.",
        "difference, 95 % paired": "from the reference, over the same seeds and the same test rows.",
        "p (Holm)": "corrected for the number of variants.",
        "macro-F1 (dev)": "of the development rows, by which alone one may choose.",
    }
    if any(variant["constant_rationale"] for variant in variants):
        notes["constant rationale"] = (
            "of each label the training split's most frequent one in the row's language: what a model could "
            "write that knows the label alone."
        )
    return [*blocks, notes]


def seeds(results: Mapping[str, Any]) -> list[Block]:
    """The metric of each seed."""
    rows = [
        Row(f"`{name}`", [", ".join(map(number, variant["values"]))])
        for name, variant in results["variants"].items()
        if variant["values"]
    ]
    caption = f"{_title(results)} of each finished seed, in their order."
    return [Table(["variant", "figures"], rows, caption, words=True)] if rows else []


def settings(results: Mapping[str, Any]) -> list[Block]:
    """The settings of each variant."""
    rows = [
        Row(f"`{name}`", [json.dumps(variant["settings"], ensure_ascii=False)])
        for name, variant in results["variants"].items()
    ]
    return [Table(["variant", "settings"], rows, "What each variant sets.", words=True)]


def failed(results: Mapping[str, Any]) -> list[Block]:
    """Failed runs and their errors."""
    rows = [Row(run["run"], [str(run["settings"]), run["error"]]) for run in results["failed"]]
    columns = ["run", "settings", "error"]
    return [Table(columns, rows, "They have no part in any figure.", words=True)] if rows else []


SECTIONS: dict[str, Callable[[Mapping[str, Any]], Sequence[Block]]] = {
    "Results": overview,
    "Seeds": seeds,
    "Variants": settings,
    "Failed runs": failed,
}


# ---------------------------------------------------------------------- the table


def _table(results: Mapping[str, Any]) -> Table:
    metric, also, variants = results["metric"], results["also"], results["variants"]
    title = _title(results)
    further = dict.fromkeys(
        condition
        for variant in variants.values()
        for condition in variant["test"]
        if condition != variant["condition"]
    )
    languages = sorted({language for variant in variants.values() for language in variant["by_language"]})
    columns = ["reads", f"{title} (test)", "95 % over seeds", "95 % over rows"]
    columns += [
        "difference",
        "95 % paired",
        "p",
        "p (Holm)",
        *(f"{title}, {NAMES[name]}" for name in further),
    ]
    columns += [f"{title}, {language}" for language in languages]
    columns += [*(METRICS[name].title for name in also), "macro-F1 (dev)", "trained", "s an epoch"]

    def by_language(entry: Mapping[str, Any]) -> dict[str, str]:
        return {f"{title}, {language}": number(entry["by_language"].get(language)) for language in languages}

    def further_metrics(entry: Mapping[str, Any]) -> dict[str, str]:
        return {METRICS[name].title: number(entry.get(name)) for name in also}

    def row(name: str, cells: Mapping[str, str], *, baseline: bool = False) -> Row:
        return Row(name, [cells.get(column, MISSING) for column in columns], baseline)

    rows = []
    for name, variant in variants.items():
        difference = variant["difference"] or {}
        cells = {
            "reads": NAMES[variant["condition"]],
            f"{title} (test)": number(variant["mean"]),
            "95 % over seeds": brackets(variant["interval"]),
            "95 % over rows": brackets(variant["interval_rows"]),
            "difference": number(difference.get("mean"), signed=True),
            "95 % paired": brackets(difference.get("interval"), signed=True),
            "macro-F1 (dev)": number(variant["dev"]),
            "trained": weight_count(variant["trained_parameters"]),
            "s an epoch": number(variant["seconds_an_epoch"], digits=1),
            **by_language(variant),
            **further_metrics(variant["test"][variant["condition"]]),
        }
        for condition in further:
            value = variant["test"].get(condition, {}).get(metric)
            cells[f"{title}, {NAMES[condition]}"] = number(value)
        if name == results["reference"]:
            cells["difference"] = "reference"
        if difference:
            cells["p"], cells["p (Holm)"] = (as_p_value(difference[key]) for key in ("p_value", "p_holm"))
        rows.append(row(f"`{name}`", cells))
        if constant := variant["constant_rationale"]:
            title_of_row = f"constant rationale of the labels of `{name}`"
            rows.append(row(title_of_row, further_metrics(constant), baseline=True))
    for variant in results["not_run"]:
        reason = f"not run: {variant['reason']}"
        rows.append(row(f"`{variant['variant']}`", {"reads": reason}))
    for name, entry in results["baselines"].items():
        own = {f"{title} (test)": number(entry.get(metric))}
        rows.append(row(NAMES[name], own | by_language(entry) | further_metrics(entry), baseline=True))
    return Table(["variant", *columns], rows, _caption(results))


def _caption(results: Mapping[str, Any]) -> str:
    """What the table shows: metric, rows, seeds, intervals, tests and data."""
    variants = results["variants"].values()
    differences = [variant["difference"] for variant in variants if variant["difference"]]
    seeds, folds = results["seeds"], results["folds"]
    made = f"mean of {len(seeds)} seeds ({', '.join(map(str, seeds))})"
    if len(seeds) == 1:
        made = f"seed {seeds[0]}"
    made += f", {len(folds)} folds" if folds else ""
    parts = [f"{_title(results)} of each variant on test rows, {made}."]
    if over := list(dict.fromkeys(f"{one['units']:,} {one['over']}" for one in variants if one["over"])):
        parts.append(f"Intervals: 95 %, over rows a bootstrap over {' or '.join(over)}.")
    if differences:
        rows = " or ".join(dict.fromkeys(f"{one['n']:,}" for one in differences))
        paired = " or ".join(dict.fromkeys(one["over"] for one in differences))
        parts.append(
            f"Difference: from {results['reference']} on the same {rows} rows, paired; interval and p over "
            f"{paired}, p corrected by Holm."
        )
    return " ".join(parts)


def _title(results: Mapping[str, Any]) -> str:
    """The title of the ablation's metric."""
    return METRICS[results["metric"]].title


# ---------------------------------------------------------------------- the paragraph


def paragraph(results: Mapping[str, Any]) -> str:
    """Sentences that are chosen and filled by the numbers alone."""
    done = {name: variant for name, variant in results["variants"].items() if variant["runs"]}
    if not done:
        return "No run is finished."
    finished = sum(len(variant["runs"]) for variant in done.values())
    asked = len(results["variants"]) * len(results["seeds"]) * max(1, len(results["folds"]))
    sentences = [f"{finished} of {asked} runs are finished."]
    if (reference := results["reference"]) in done:
        variant = done[reference]
        spreads = {"seeds": variant["interval"], variant["over"]: variant["interval_rows"]}
        spread = ",".join(
            f" {brackets(interval)} over {over}" for over, interval in spreads.items() if interval
        )
        sentences.append(
            f"The reference `{reference}` has {_title(results)} {number(variant['mean'])}{spread}."
        )
    sentences += _on_differences(done)
    ranges = {
        name: max(variant["values"]) - min(variant["values"])
        for name, variant in done.items()
        if len(variant["values"]) > 1
    }
    if ranges:
        widest = max(ranges, key=lambda name: ranges[name])
        sentences.append(
            f"Two seeds of one variant lie up to {number(ranges[widest])} apart (`{widest}`), "
            f"{number(median(ranges.values()))} in the median variant."
        )
    sentences += _on_development_rows(done)
    sentences += _on_constant_rationales(done, results["also"])
    trained = {name: variant for name, variant in done.items() if variant["seconds_an_epoch"] is not None}
    if trained:
        cheapest = min(trained, key=lambda name: trained[name]["seconds_an_epoch"])
        smallest = min(trained, key=lambda name: trained[name]["trained_parameters"])
        sentences.append(
            f"Cheapest is `{cheapest}` with {number(trained[cheapest]['seconds_an_epoch'], digits=1)} s an "
            f"epoch; fewest weights has `{smallest}` "
            f"({weight_count(trained[smallest]['trained_parameters'])})."
        )
    if count := len(results["not_run"]):
        sentences.append(f"{count} variants cannot run on this machine and were left out.")
    if results["failed"]:
        sentences.append(f"{len(results['failed'])} runs failed.")
    return " ".join(sentences)


def _on_differences(done: Mapping[str, Any]) -> list[str]:
    compared = {name: variant["difference"] for name, variant in done.items() if variant["difference"]}
    if not compared:
        return []
    beyond = "; ".join(
        f"`{name}` {number(difference['mean'], difference['interval'], signed=True)}, "
        f"p {as_p_value(difference['p_holm'])}"
        for name, difference in compared.items()
        if difference["p_holm"] < LEVEL
    )
    count = sum(difference["p_holm"] < LEVEL for difference in compared.values())
    sentence = f"{count} of {len(compared)} differ from it beyond a Holm-corrected {LEVEL:g}"
    sentences = [f"{sentence}: {beyond}." if beyond else f"{sentence}."]
    if all(len(variant["runs"]) == 1 for variant in done.values()):
        sentences.append(
            "There is one run of each: the intervals are over test rows, and another seed may differ."
        )
    return sentences


def _on_development_rows(done: Mapping[str, Any]) -> list[str]:
    dev = {name: variant["dev"] for name, variant in done.items() if variant["dev"] is not None}
    if not dev:
        return []
    differing = [
        key
        for key in CHOOSE_DEV_ROWS
        if len({repr(variant["settings"].get(key)) for variant in done.values()}) > 1
    ]
    if differing:
        return [
            f"The variants' development rows differ ({', '.join(differing)}): "
            "their figures on them cannot be compared."
        ]
    best = max(dev, key=lambda name: dev[name])
    return [
        f"On the development rows, by which alone one may choose, `{best}` leads with "
        f"macro-F1 {number(dev[best])}."
    ]


def _on_constant_rationales(done: Mapping[str, Any], also: Sequence[str]) -> list[str]:
    """Variants whose rationales are no better than constant ones, a sentence for each metric."""
    sentences = []
    for metric in (METRICS[name] for name in also if METRICS[name].higher_is_better):
        pairs = {
            name: (variant["test"][variant["condition"]][metric.name], constant)
            for name, variant in done.items()
            if (constant := (variant["constant_rationale"] or {}).get(metric.name)) is not None
        }
        below = ", ".join(
            f"`{name}` ({number(written)} against {number(constant)})"
            for name, (written, constant) in pairs.items()
            if written is None or written <= constant
        )
        if below:
            sentences.append(
                f"Not above the constant rationale of its own labels in {metric.title}: {below}."
            )
        elif pairs:
            sentences.append(
                f"All that write rationales are above the constant one of their labels in {metric.title}."
            )
    return sentences


def _differing(results: Mapping[str, Any]) -> list[str]:
    """A sentence on runs with different versions, machines or commands, if there are any."""
    listed = [f"{key}: {' / '.join(map(str, values))}" for key, values in results["differing"].items()]
    return [f"The runs were not made alike ({'; '.join(listed)})."] if listed else []


def _effects(results: Mapping[str, Any]) -> list[Effect]:
    """The differences from the reference, to draw."""
    return [
        Effect(
            name,
            difference["mean"],
            difference["interval"],
            difference["p_holm"] < LEVEL,
            p_text(difference["p_holm"]),
        )
        for name, variant in results["variants"].items()
        if (difference := variant["difference"])
    ]


def draw(results: Mapping[str, Any]) -> Figure:
    """Draw a dot for each seed of each variant, means with their intervals, and the means of controls."""
    metric = results["metric"]
    done = {name: variant for name, variant in results["variants"].items() if variant["values"]}
    figure, (axis,) = make_figure(1, width=7.5, height=1.5 + 0.38 * len(done))
    reference = done.get(results["reference"], {}).get("mean")
    if reference is not None:
        axis.axvline(reference, color=GREY, linewidth=1, linestyle="--", zorder=0, label="reference's mean")
    for y, variant in enumerate(done.values()):
        values, interval = variant["values"], variant["interval"]
        axis.scatter(values, [y + 0.24] * len(values), s=22, color=BLUE, alpha=0.75, label="one seed")
        if interval is not None:
            axis.plot(interval, [y, y], color=ORANGE, linewidth=2, label="95 % over seeds")
        axis.scatter([variant["mean"]], [y], s=46, color=ORANGE, marker="D", label="mean")
        control = variant["test"].get("shuffled_audio", {}).get(metric)
        if control is not None:
            axis.scatter([control], [y], s=40, marker="x", color=INK, label=NAMES["shuffled_audio"])
    low, high = axis.get_xlim()
    axis.set_xlim(max(low, -0.02), min(high, 1.02))  # an interval over two seeds exceeds the range of metrics
    axis.set_yticks(range(len(done)), list(done))
    axis.set_ylim(len(done) - 0.5, -0.4)
    axis.set_xlabel(f"{_title(results)}, test rows")
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    handles = {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    columns: dict[str, Any] = {"ncols": len(handles), "fontsize": 8, "columnspacing": 1.2}
    labels = list(handles)
    figure.legend(list(handles.values()), labels, loc="outside lower center", frameon=False, **columns)
    return figure

"""What an ablation found: figures with their intervals, a table, a plot, and a paragraph made of numbers.

result.json, metrics.json, predictions.jsonl of each run, its training rows ─► results.json ─► table.md,
report.html, report.md, plot.png

Nothing here trains or predicts, so a finished folder can be told of again, with other units or figures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsr.ablation.summary import CHOOSE_DEV_ROWS
from mmsr.evaluation.compare import as_p_value
from mmsr.evaluation.metrics import METRICS
from mmsr.evaluation.provenance import ORIGIN
from mmsr.evaluation.report.names import MISSING, NAMES, number
from mmsr.evaluation.report.page import (
    Notes,
    Page,
    Section,
    Table,
    TableRow,
    Text,
    origin,
    picture,
    write_page,
)
from mmsr.evaluation.report.pictures import BLUE, GREY, INK, ORANGE, make_figure
from mmsr.files import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVEL = 0.05


def write_report(out: Path, results: dict[str, Any]) -> None:
    """Write results.json, table.md, the report and plot.png; adds `paragraph` to the results."""
    results["paragraph"] = paragraph(results)
    text = f"{table(results)}\n{results['paragraph']}\n"
    if differing := _differing(results):
        text += f"\n{differing}\n"
    for line in results["failed"]:
        text += f"\nfailed: {line['run']} ({line['settings']}): {line['error']}\n"
    content = json.dumps(results, ensure_ascii=False, indent=1, allow_nan=False)
    write_file(out / "results.json", content.encode())
    write_file(out / "table.md", text.encode())
    write_page(page(results), out / "report.html")


# ---------------------------------------------------------------------- for people


def page(results: Mapping[str, Any]) -> Page:
    """The results as a page."""
    over = {one["difference"]["over"] for one in results["variants"].values() if one["difference"]}
    drawn = " and ".join(["95 % over seeds", *(f"over {one}" for one in _drawn_units(results))])
    provenance = {
        **origin(results),
        "seed": ", ".join(map(str, results["seeds"])),
        "intervals": "; of differences ".join([drawn, *(f"over {one}" for one in sorted(over))]),
        "data fingerprint": ", ".join(results["data_fingerprints"]),
    }
    if results["differing"]:
        provenance["differing"] = _differing(results)
    if (reporter := results["reported_by"]) != {name: results[name] for name in ORIGIN}:
        version = reporter["versions"].get("mmsr", "of no version")
        provenance["report"] = f"by {reporter['command']}, mmsr {version}, {reporter['machine']['cpu']}"
    sections = [
        _results(results, provenance),
        _by_seed_section(results),
        _settings(results),
        _failed(results),
    ]
    folds = f" × {len(results['folds'])} folds" if results["folds"] else ""
    lead = (
        f"{len(results['variants'])} variants × {len(results['seeds'])} seeds{folds}, test rows. The "
        f"reference is `{results['reference']}`. Every figure is in results.json."
    )
    return Page(f"Ablation {results['ablation']}", lead, sections, provenance)


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table, variants in the order of the file, then the baselines."""
    return _table(results).markdown()


def _results(results: Mapping[str, Any], provenance: Mapping[str, str]) -> Section:
    """The table, what it says, and its picture."""
    blocks: list[Any] = [_table(results), Text(results["paragraph"])]
    if differing := _differing(results):
        blocks.append(Text(differing))
    if any(figures["values"] for figures in results["variants"].values()):
        blocks.append(
            picture(
                "plot",
                partial(draw, results),
                caption=f"{_title(results)} of each variant: a dot for each seed, the mean and "
                "its interval over seeds.",
                alt="Dots, means and intervals by variant; the table above has the same figures.",
                provenance=provenance,
                pan=True,
            )
        )
    notes = [
        ("95 % over seeds", "t-interval of the mean: what another seed would change."),
        (
            "95 % over rows",
            f"bootstrap of the seeds' mean over {_told_units(results)}: what other rows would.",
        ),
        ("difference, 95 % paired", "from the reference, over the same seeds and the same test rows."),
        ("p (Holm)", "corrected for the number of variants."),
        ("macro-F1 (dev)", "of the development rows, by which alone one may choose."),
    ]
    if any(one["constant_rationale"] for one in results["variants"].values()):
        notes.append(
            (
                "constant rationale",
                "of each label the training split's most frequent one in the row's language: what a model "
                "could write that knows the label alone.",
            )
        )
    return Section("Results", [*blocks, Notes(notes)])


def _by_seed_section(results: Mapping[str, Any]) -> Section | None:
    """Each seed's figure."""
    done = {name: figures for name, figures in results["variants"].items() if figures["values"]}
    rows = [TableRow(f"`{name}`", [", ".join(map(number, one["values"]))]) for name, one in done.items()]
    caption = f"{_title(results)} of each finished seed, in their order."
    return Section("Seeds", [Table(["variant", "figures"], rows, caption, words=True)]) if rows else None


def _settings(results: Mapping[str, Any]) -> Section:
    """What makes each variant."""
    rows = [
        TableRow(f"`{name}`", [json.dumps(figures["settings"], ensure_ascii=False)])
        for name, figures in results["variants"].items()
    ]
    return Section("Variants", [Table(["variant", "settings"], rows, "What each variant sets.", words=True)])


def _failed(results: Mapping[str, Any]) -> Section | None:
    """Runs that failed, and why."""
    rows = [TableRow(one["run"], [str(one["settings"]), one["error"]]) for one in results["failed"]]
    columns = ["run", "settings", "error"]
    return (
        Section("Failed runs", [Table(columns, rows, "They have no part in any figure.", words=True)])
        if rows
        else None
    )


def _table(results: Mapping[str, Any]) -> Table:
    """Variants in the order of the file, then the baselines."""
    metric, also = results["metric"], results["also"]
    title = _title(results)
    further = list(
        dict.fromkeys(
            condition
            for figures in results["variants"].values()
            for condition in figures["test"]
            if condition != figures["condition"]
        )
    )
    languages = sorted({name for figures in results["variants"].values() for name in figures["by_language"]})
    head = ["variant", "reads", f"{title} (test)", "95 % over seeds", "95 % over rows"]
    head += [
        "difference",
        "95 % paired",
        "p",
        "p (Holm)",
        *(f"{title}, {NAMES[name]}" for name in further),
    ]
    head += [f"{title}, {language}" for language in languages]
    head += [*(METRICS[name].title for name in also), "macro-F1 (dev)", "trained", "s an epoch"]
    rows = []
    for name, figures in results["variants"].items():
        difference = figures["difference"] or {}
        is_reference = name == results["reference"]
        own = figures["test"][figures["condition"]]
        rows.append(
            TableRow(
                f"`{name}`",
                [
                    NAMES[figures["condition"]],
                    number(figures["mean"]),
                    _interval(figures["interval"]),
                    _interval(figures["interval_rows"]),
                    "reference" if is_reference else number(difference.get("mean"), signed=True),
                    _interval(difference.get("interval"), signed=True),
                    *(_p_value(difference.get(key)) for key in ("p_value", "p_holm")),
                    *(number(figures["test"].get(other, {}).get(metric)) for other in further),
                    *(number(figures["by_language"].get(language)) for language in languages),
                    *(number(own[key]) for key in also),
                    number(figures["dev"]),
                    _count(figures["trained_parameters"]),
                    _seconds(figures["seconds_an_epoch"]),
                ],
            )
        )
        if constant := figures["constant_rationale"]:  # beneath the variant that it is to be held against
            cells = [MISSING] * (8 + len(further) + len(languages))
            cells += [*(number(constant.get(key)) for key in also), *[MISSING] * 3]
            rows.append(TableRow(f"constant rationale of the labels of `{name}`", cells, baseline=True))
    for name, figures in results["baselines"].items():
        cells = [
            MISSING,
            number(figures.get(metric)),
            *[MISSING] * (6 + len(further)),
            *(number(figures["by_language"].get(language)) for language in languages),
            *(number(figures.get(key)) for key in also),
            *[MISSING] * 3,
        ]
        rows.append(TableRow(NAMES[name], cells, baseline=True))
    caption = f"{title} of each variant, its difference from the reference, and what it costs."
    return Table(head, rows, caption)


def _title(results: Mapping[str, Any]) -> str:
    """What tables call the ablation's metric."""
    return METRICS[results["metric"]].title


def _p_value(value: float | None) -> str:
    return MISSING if value is None else as_p_value(value)


def _interval(bounds: Sequence[float] | None, *, signed: bool = False) -> str:
    return MISSING if bounds is None else f"[{', '.join(number(bound, signed=signed) for bound in bounds)}]"


def _count(value: int | None) -> str:
    if value is None:
        return MISSING
    return f"{value / 1e6:.2f} M" if value >= 1e6 else f"{value / 1e3:.0f} k"


def _seconds(value: float | None) -> str:
    return MISSING if value is None else f"{value:.1f}"


def _asked(results: Mapping[str, Any]) -> int:
    return len(results["variants"]) * len(results["seeds"]) * max(1, len(results["folds"]))


def paragraph(results: Mapping[str, Any]) -> str:
    """What the numbers say, in sentences that numbers alone choose and fill."""
    done = {name: figures for name, figures in results["variants"].items() if figures["runs"]}
    if not done:
        return "No run is finished."
    metric, reference = _title(results), results["reference"]
    runs = sum(len(figures["runs"]) for figures in done.values())
    sentences = [f"{runs} of {_asked(results)} runs are finished."]
    if reference in done:
        figures = done[reference]
        spreads = {"seeds": figures["interval"], figures["over"]: figures["interval_rows"]}
        spread = ",".join(f" {_interval(bounds)} over {over}" for over, bounds in spreads.items() if bounds)
        sentences.append(f"The reference `{reference}` has {metric} {number(figures['mean'])}{spread}.")
    compared = {name: figures["difference"] for name, figures in done.items() if figures["difference"]}
    beyond = [name for name, difference in compared.items() if difference["p_holm"] < LEVEL]
    if compared:
        told = "; ".join(
            f"`{name}` {number(compared[name]['mean'], signed=True)} "
            f"{_interval(compared[name]['interval'], signed=True)}, p {_p_value(compared[name]['p_holm'])}"
            for name in beyond
        )
        sentences.append(
            f"{len(beyond)} of {len(compared)} differ from it beyond a Holm-corrected {LEVEL:g}"
            + (f": {told}." if beyond else ".")
        )
    if compared and all(len(figures["runs"]) == 1 for figures in done.values()):
        sentences.append(
            "There is one run of each: the intervals are over test rows, and another seed may differ."
        )
    ranges = {
        name: max(figures["values"]) - min(figures["values"])
        for name, figures in done.items()
        if len(figures["values"]) > 1
    }
    if ranges:
        widest = max(ranges, key=lambda name: ranges[name])
        sentences.append(
            f"Two seeds of one variant lie up to {number(ranges[widest])} apart (`{widest}`), "
            f"{number(float(np.median(list(ranges.values()))))} in the median variant."
        )
    if leading := {name: figures["dev"] for name, figures in done.items() if figures["dev"] is not None}:
        best = max(leading, key=lambda name: leading[name])
        if differing := _of_dev_rows(done):
            sentences.append(
                f"The variants' development rows differ ({', '.join(differing)}): "
                "their figures on them cannot be compared."
            )
        else:
            sentences.append(
                f"On the development rows, by which alone one may choose, `{best}` leads with "
                f"macro-F1 {number(leading[best])}."
            )
    sentences += _of_constant_rationales(done, results["also"])
    cheapest = min(done, key=lambda name: done[name]["seconds_an_epoch"])
    smallest = min(done, key=lambda name: done[name]["trained_parameters"])
    sentences.append(
        f"Cheapest is `{cheapest}` with {_seconds(done[cheapest]['seconds_an_epoch'])} s an epoch; "
        f"fewest weights has `{smallest}` ({_count(done[smallest]['trained_parameters'])})."
    )
    if results["failed"]:
        sentences.append(f"{len(results['failed'])} runs failed.")
    return " ".join(sentences)


def _of_constant_rationales(variants: Mapping[str, Any], also: Sequence[str]) -> list[str]:
    """Whose rationales are worth no more than the label, a sentence for each metric."""
    sentences = []
    for figure in (name for name in also if METRICS[name].higher_is_better):
        sides = {
            name: (one["test"][one["condition"]][figure], one["constant_rationale"][figure])
            for name, one in variants.items()
            if one["constant_rationale"] and one["constant_rationale"].get(figure) is not None
        }
        below = [
            name for name, (written, constant) in sides.items() if written is None or written <= constant
        ]
        told = ", ".join(f"`{name}` ({' against '.join(map(number, sides[name]))})" for name in below)
        title = METRICS[figure].title
        if below:
            sentences.append(f"Not above the constant rationale of its own labels in {title}: {told}.")
        elif sides:
            sentences.append(
                f"All that write rationales are above the constant one of their labels in {title}."
            )
    return sentences


def _drawn_units(results: Mapping[str, Any]) -> list[str]:
    """What intervals over test rows are over."""
    return sorted({one["over"] for one in results["variants"].values() if one["over"]})


def _told_units(results: Mapping[str, Any]) -> str:
    """The same, with how many there are."""
    counts: dict[str, set[int]] = {}
    for one in results["variants"].values():
        if one["over"]:
            counts.setdefault(one["over"], set()).add(one["units"])
    told = [f"{over} ({', '.join(map(str, sorted(counts[over])))})" for over in sorted(counts)]
    return ", ".join(told) or "test rows"


def _differing(results: Mapping[str, Any]) -> str:
    """In what the runs differ that should be the same, as a sentence; nothing where they do not."""
    told = [f"{key}: {' / '.join(map(str, values))}" for key, values in results["differing"].items()]
    return f"The runs were not made alike ({'; '.join(told)})." if told else ""


def _of_dev_rows(variants: Mapping[str, Any]) -> list[str]:
    """The settings in which the variants' development rows differ."""
    told = [{key: repr(one["settings"].get(key)) for key in CHOOSE_DEV_ROWS} for one in variants.values()]
    return [key for key in CHOOSE_DEV_ROWS if len({one[key] for one in told}) > 1]


def draw(results: Mapping[str, Any]) -> Figure:
    """Of each variant a dot per seed, the mean and its interval, and the controls' means."""
    metric = results["metric"]
    done = {name: figures for name, figures in results["variants"].items() if figures["values"]}
    figure, (axis,) = make_figure(1, width=7.5, height=1.5 + 0.38 * len(done))
    reference = done.get(results["reference"], {}).get("mean")
    if reference is not None:
        axis.axvline(reference, color=GREY, linewidth=1, linestyle="--", zorder=0, label="reference's mean")
    for y, figures in enumerate(done.values()):
        values, interval = figures["values"], figures["interval"]
        axis.scatter(values, [y + 0.24] * len(values), s=22, color=BLUE, alpha=0.75, label="one seed")
        if interval is not None:
            axis.plot(interval, [y, y], color=ORANGE, linewidth=2, label="95 % over seeds")
        axis.scatter([figures["mean"]], [y], s=46, color=ORANGE, marker="D", label="mean")
        control = figures["test"].get("shuffled_audio", {}).get(metric)
        if control is not None:
            axis.scatter([control], [y], s=40, marker="x", color=INK, label=NAMES["shuffled_audio"])
    low, high = axis.get_xlim()
    axis.set_xlim(max(low, -0.02), min(high, 1.02))  # of two seeds the interval goes far beyond what can be
    axis.set_yticks(range(len(done)), list(done))
    axis.set_ylim(len(done) - 0.5, -0.4)
    axis.set_xlabel(f"{_title(results)}, test rows")
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    handles = {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    place = figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=len(handles),
        fontsize=8,
        columnspacing=1.2,
    )
    place.set_frame_on(False)
    return figure

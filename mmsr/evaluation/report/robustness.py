"""The report of a model's answers to rows made worse: curves, where each is lowest, and the slice that pays.

robustness.json of `mmsr.evaluation.robustness.curves` ─► sections ─► page
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsr.evaluation.metrics import METRICS
from mmsr.evaluation.report.names import MISSING, NAMES, number
from mmsr.evaluation.report.page import (
    Notes,
    Page,
    Picture,
    Section,
    Table,
    TableRow,
    Text,
    origin,
    picture,
    told,
    write_page,
)
from mmsr.evaluation.report.pictures import BLUE, GREY, LINES
from mmsr.evaluation.robustness.curves import MEASURED
from mmsr.evaluation.robustness.registry import titles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def write_robustness_report(out_dir: Path | str, document: Mapping[str, Any], *, title: str) -> Path:
    """Writes report.html, report.md and robustness.png to `out_dir` and returns the path of report.html.

    `document` is the content of robustness.json.
    """
    over = document["interval_over"]
    asked = f"{NAMES[document['condition']]}, {document['n']:,} rows"
    provenance = {**origin(document), "intervals": f"95 % over {over}"}
    drawn = picture(
        "robustness",
        partial(draw_robustness, document),
        caption=f"Macro-F1 over what was made worse, {asked}. Bars: 95 % intervals over {over}. Dashed line "
        "and grey band: the clean rows and their interval.",
        alt="A panel for each kind: macro-F1 with intervals over severity, beside the figure of clean rows; "
        "the table of all points has the same figures.",
        provenance=provenance,
        pan=True,
    )
    page = Page(
        title=title,
        lead=f"How much worse the answers become as the input does: {asked}. Every figure is in "
        "robustness.json, every answer in predictions/.",
        sections=[_curves(drawn), _worst(document), _points(document)],
        provenance=provenance,
    )
    return write_page(page, Path(out_dir) / "report.html")


def markdown(document: Mapping[str, Any]) -> str:
    """The tables for a terminal."""
    return told([_points(document), _worst(document)])


def _curves(drawn: Picture) -> Section:
    return Section("Curves", [drawn])


def _worst(document: Mapping[str, Any]) -> Section:
    """Where each curve is lowest, and which rows pay most there."""
    rows = []
    for curve in document["curves"]:
        if (worst := curve.get("worst")) is None:
            continue
        point = next(one for one in curve["points"][1:] if one["severity"] == worst["severity"])
        lost, sliced = point["difference"]["macro_f1"], worst["worst_slice"]
        cells = [
            _severity(point) if lost["value"] < 0 else "none is below clean",
            number(point["macro_f1"], point["interval"]["macro_f1"]),
            number(lost["value"], lost["interval"], signed=True),
        ]
        if sliced is None:
            cells += [MISSING] * 3
        else:
            cells += [
                f"{sliced['attribute']} {sliced['value']} ({sliced['n']} rows)",
                number(sliced["accuracy"], sliced["interval"]["accuracy"]),
                number(sliced["expected"], sliced["expected_interval"]),
            ]
        rows.append(TableRow(_name(curve), cells))
    columns = ["made worse by", "worst at", "macro-F1", "macro-F1 - clean"]
    columns += ["worst slice there", "its accuracy", "by chance"]
    blocks: list[Any] = [Table(columns, rows, "The lowest point of each curve, and its worst slice.")]
    if all(curve.get("worst", {}).get("worst_slice") is None for curve in document["curves"]):
        blocks.append(
            Text(f"No slice is called the worst: fewer than two have {document['slice_rows']} rows.")
        )
    notes = [
        ("worst at", "the severity with the lowest macro-F1; of equal ones the mildest."),
        ("worst slice", f"of languages, kinds and speakers with {document['slice_rows']} rows or more, the "
         "one with the lowest accuracy."),
        ("by chance", "what the lowest accuracy of as many slices would be if slices made no difference."),
    ]  # fmt: skip
    return Section("Worst points", [*blocks, Notes(notes)])


def _points(document: Mapping[str, Any]) -> Section:
    """A row for each point: figures with their intervals, and what was lost of the first of them."""
    shown = [name for name in MEASURED if any(name in curve["points"][0] for curve in document["curves"])]
    rows = []
    for i, curve in enumerate(document["curves"]):
        # the clean rows are the same in all curves: once in the table
        for j, point in enumerate(curve["points"][i > 0 :], start=int(i > 0)):
            lost = point["difference"]["macro_f1"]
            cells = [number(point.get(name), point["interval"].get(name)) for name in shown]
            difference = number(lost["value"], lost["interval"], signed=True) if j else MISSING
            severity = _severity(point) if j else "clean"
            rows.append(
                TableRow(_name(curve) if j else "nothing", [severity, str(point["n"]), *cells, difference])
            )
    columns = ["made worse by", "severity", "n", *(METRICS[name].title for name in shown), "macro-F1 - clean"]
    over = document["interval_over"]
    note = (
        f"Input: {NAMES[document['condition']]}, {document['n']:,} rows. Brackets: 95 % bootstrap intervals "
        f"over {over}; those of differences are paired with the clean answers to the same rows."
    )
    return Section("All points", [Table(columns, rows, "Figures of each point."), Text(note)])


def draw_robustness(document: Mapping[str, Any]) -> "Figure":
    """Draws macro-F1 over severity, a panel for each kind, on one scale; bad is on the right."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    kinds = [(kind, list(curves)) for kind, curves in groupby(document["curves"], lambda one: one["kind"])]
    columns = min(3, len(kinds))
    rows = -(-len(kinds) // columns)
    size = (1.2 + 3.5 * columns, 0.4 + 3.1 * rows)
    figure = Figure(figsize=size, dpi=150, layout=ConstrainedLayoutEngine(h_pad=0.12))
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    clean = document["curves"][0]["points"][0]
    for i, (ax, (kind, curves)) in enumerate(zip(axes.flat, kinds, strict=False)):
        ax.axhspan(*clean["interval"]["macro_f1"], color=GREY, alpha=0.18, linewidth=0)
        ax.axhline(clean["macro_f1"], color=GREY, linestyle="--", linewidth=1)
        _draw_panel(ax, curves)
        ax.set(title=titles(kind)[0], xlabel=curves[0]["axis"])
        ax.set_ylabel("macro-F1" if i % columns == 0 else "")
        ax.grid(axis="y", alpha=0.3)
    for ax in axes.flat[len(kinds) :]:
        ax.set_visible(False)
    low = min(
        point["interval"]["macro_f1"][0] for _, one in kinds for curve in one for point in curve["points"]
    )
    axes[0, 0].set_ylim(max(0.0, np.floor(10 * low - 0.5) / 10), 1.02)
    return figure


def _draw_panel(ax: "Axes", curves: Sequence[Mapping[str, Any]]) -> None:
    """Draws one kind's curves; where the clean rows have no number, severities stand at equal steps."""
    numeric = all(not isinstance(curve["points"][0]["severity"], str) for curve in curves)
    if not numeric:
        steps = [_named(point["severity"]) for point in curves[0]["points"]]
        ax.set_xticks(range(len(steps)), steps)
        ax.set_xlim(-0.3, len(steps) - 0.7)
    colours = [BLUE, *LINES[1:]]
    # side by side, so that no interval hides another's
    spread = (
        0.012 * np.ptp([point["severity"] for curve in curves for point in curve["points"]])
        if numeric
        else 0.06
    )
    for i, curve in enumerate(curves):
        points = curve["points"]
        places = [
            point.get("measured", point["severity"]) if numeric else step for step, point in enumerate(points)
        ]
        x = np.array(places, dtype=float) + spread * (i - (len(curves) - 1) / 2)
        y = np.array([point["macro_f1"] for point in points])
        low, high = np.array([point["interval"]["macro_f1"] for point in points]).T
        style: dict[str, Any] = {"color": colours[i % len(colours)], "marker": "osD^"[i % 4]}
        ax.vlines(x, low, high, color=style["color"], linewidth=1.2)
        label = titles(curve["kind"], curve["series"])[1] or None
        ax.plot(x, y, linewidth=1.8, markersize=5, label=label, **style)
    if any(curve["series"] for curve in curves):
        ax.legend(frameon=False, fontsize=9, loc="lower left")


def _name(curve: Mapping[str, Any]) -> str:
    """What a curve is called, with the unit of its severities."""
    name = ", ".join(filter(None, titles(curve["kind"], curve["series"])))
    return f"{name}: {curve['axis']}"


def _severity(point: Mapping[str, Any]) -> str:
    measured = f" (measured {point['measured']:.3f})" if "measured" in point else ""
    return _named(point["severity"]) + measured


def _named(severity: float | str) -> str:
    return severity if isinstance(severity, str) else f"{severity:.3g}"

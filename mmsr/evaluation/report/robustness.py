"""The report of robustness: curves, where each is lowest, and its worst slice.

robustness.json of `mmsr.evaluation.robustness.curves` ─► page
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsr.evaluation.metrics import METRICS
from mmsr.evaluation.report.names import MISSING, NAMES, number
from mmsr.evaluation.report.page import Block, Picture, Row, Table, as_markdown, origin, write_page
from mmsr.evaluation.report.pictures import GREY, LINES
from mmsr.evaluation.robustness.curves import MEASURED
from mmsr.evaluation.robustness.registry import titles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def write_robustness_report(out_dir: Path | str, document: Mapping[str, Any], *, title: str) -> Path:
    """Write report.html, report.md and robustness.png to `out_dir`; return the path of report.html.

    `document` is the content of robustness.json.
    """
    return write_page(
        Path(out_dir) / "report.html",
        SECTIONS,
        document,
        title=title,
        lead=f"How much worse the answers become as the input does: {_rows(document)}. Every figure is in "
        "robustness.json, every answer in predictions/.",
        provenance={**origin(document), "intervals": f"95 % over {document['interval_over']}"},
    )


def markdown(document: Mapping[str, Any]) -> str:
    """The tables for a terminal."""
    return as_markdown([*points(document), *worst_points(document)])


def curves(document: Mapping[str, Any]) -> list[Block]:
    """Macro-F1 over severity."""
    return [
        Picture(
            "robustness",
            partial(draw_robustness, document),
            caption=f"Macro-F1 over what was made worse, {_rows(document)}. Bars: 95 % intervals over "
            f"{document['interval_over']}. Dashed line and grey band: the clean rows and their interval.",
            alt="A panel for each kind: macro-F1 with intervals over severity, beside the figure of clean "
            "rows; the table of all points has the same figures.",
            pan=True,
        )
    ]


def worst_points(document: Mapping[str, Any]) -> list[Block]:
    """The lowest point of each curve, and its worst slice."""
    rows = []
    for curve in document["curves"]:
        if (worst := curve.get("worst")) is None:
            continue
        point = next(point for point in curve["points"][1:] if point["severity"] == worst["severity"])
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
        rows.append(Row(_name(curve), cells))
    columns = ["made worse by", "worst at", "macro-F1", "macro-F1 - clean"]
    columns += ["worst slice there", "its accuracy", "by chance"]
    least = document["slice_rows"]
    blocks: list[Block] = [Table(columns, rows, "The lowest point of each curve, and its worst slice.")]
    if all(curve.get("worst", {}).get("worst_slice") is None for curve in document["curves"]):
        blocks.append(f"No slice is called the worst: fewer than two have {least} rows.")
    notes = {
        "worst at": "the severity with the lowest macro-F1; of equal ones the mildest.",
        "worst slice": f"of languages, kinds and speakers with {least} rows or more, the one with the lowest "
        "accuracy.",
        "by chance": "what the lowest accuracy of as many slices would be if slices made no difference.",
    }
    return [*blocks, notes]


def points(document: Mapping[str, Any]) -> list[Block]:
    """Metrics of each point with their intervals, and how much macro-F1 is lost."""
    shown = [name for name in MEASURED if any(name in curve["points"][0] for curve in document["curves"])]
    rows = []
    for i, curve in enumerate(document["curves"]):
        # all curves have the same clean rows, which the table shows once
        for j, point in enumerate(curve["points"][i > 0 :], start=int(i > 0)):
            lost = point["difference"]["macro_f1"]
            cells = [number(point.get(name), point["interval"].get(name)) for name in shown]
            difference = number(lost["value"], lost["interval"], signed=True) if j else MISSING
            severity = _severity(point) if j else "clean"
            rows.append(
                Row(_name(curve) if j else "nothing", [severity, str(point["n"]), *cells, difference])
            )
    columns = ["made worse by", "severity", "n", *(METRICS[name].title for name in shown), "macro-F1 - clean"]
    return [
        Table(columns, rows, "Figures of each point."),
        f"Input: {_rows(document)}. Brackets: 95 % bootstrap intervals over {document['interval_over']}; "
        "those of differences are paired with the clean answers to the same rows.",
    ]


SECTIONS: dict[str, Callable[[Mapping[str, Any]], Sequence[Block]]] = {
    "Curves": curves,
    "Worst points": worst_points,
    "All points": points,
}


def draw_robustness(document: Mapping[str, Any]) -> "Figure":
    """Draw macro-F1 over severity, one panel for each kind, mild on the left."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    kinds = [
        (kind, list(curves)) for kind, curves in groupby(document["curves"], lambda curve: curve["kind"])
    ]
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
    low = min(point["interval"]["macro_f1"][0] for curve in document["curves"] for point in curve["points"])
    axes[0, 0].set_ylim(max(0.0, np.floor(10 * low - 0.5) / 10), 1.02)
    return figure


def _draw_panel(ax: "Axes", curves: Sequence[Mapping[str, Any]]) -> None:
    """Draw the curves of one kind; severities without a number for clean rows are at equal steps."""
    numeric = all(not isinstance(curve["points"][0]["severity"], str) for curve in curves)
    if not numeric:
        steps = [_named(point["severity"]) for point in curves[0]["points"]]
        ax.set_xticks(range(len(steps)), steps)
        ax.set_xlim(-0.3, len(steps) - 0.7)
    # side by side, so that no interval hides another
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
        style: dict[str, Any] = {"color": LINES[i % len(LINES)], "marker": "osD^"[i % 4]}
        ax.vlines(x, low, high, color=style["color"], linewidth=1.2)
        label = titles(curve["kind"], curve["series"])[1] or None
        ax.plot(x, y, linewidth=1.8, markersize=5, label=label, **style)
    if any(curve["series"] for curve in curves):
        ax.legend(frameon=False, fontsize=9, loc="lower left")


def _rows(document: Mapping[str, Any]) -> str:
    return f"{NAMES[document['condition']]}, {document['n']:,} rows"


def _name(curve: Mapping[str, Any]) -> str:
    """The title of a curve, with the unit of its severities."""
    name = ", ".join(filter(None, titles(curve["kind"], curve["series"])))
    return f"{name}: {curve['axis']}"


def _severity(point: Mapping[str, Any]) -> str:
    measured = f" (measured {point['measured']:.3f})" if "measured" in point else ""
    return _named(point["severity"]) + measured


def _named(severity: float | str) -> str:
    return severity if isinstance(severity, str) else f"{severity:.3g}"

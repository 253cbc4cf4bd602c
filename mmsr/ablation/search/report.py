"""The results of a search for people: tables, a plot, and sentences filled with numbers.

results of `search` ─► search.json, search.csv, search.html, search.md, plot.png, plot.pdf
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsr.evaluation.compare import as_p_value
from mmsr.evaluation.metrics import METRICS
from mmsr.evaluation.report.formats import as_csv, render
from mmsr.evaluation.report.names import MISSING, TableFormat, brackets, number
from mmsr.evaluation.report.page import Block, Picture, Row, Table, origin, write_page
from mmsr.evaluation.report.pictures import BLUE, GREY, ORANGE, as_pdf, make_figure
from mmsr.files import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 10  # trials in the table of a terminal


def write_report(out: Path, results: dict[str, Any]) -> None:
    """Write search.json, the table, the page and the plot; add `paragraph` to the results."""
    results["paragraph"] = paragraph(results)
    content = json.dumps(results, ensure_ascii=False, indent=1, allow_nan=False)
    write_file(out / "search.json", content.encode())
    write_file(out / "search.csv", as_csv(_table(results, results["trials"])).encode())
    if results["best"] is not None:
        write_file(out / "plot.pdf", as_pdf(partial(draw, results)))
    minutes = results["search_seconds"] / 60
    lead = (
        f"{len(results['trials'])} trials in {minutes:.1f} minutes, {results['sampler']}. Trial 0 is the "
        "default. Every value is of development rows, and is in search.json."
    )
    write_page(
        out / "search.html",
        SECTIONS,
        results,
        title=f"Search of settings: {results['search']}",
        lead=lead,
        provenance=origin(results),
    )


def table(
    results: Mapping[str, Any],
    form: TableFormat = "md",
    *,
    shown: int | None = None,
    columns: Sequence[str] | None = None,
) -> str:
    """The trials as a table, the best first; the default is in it even where only some are shown."""
    trials = _ranked(results)
    if shown is not None and len(trials) > shown:
        trials = [trial for place, trial in enumerate(trials) if place < shown or trial["number"] == 0]
    return render(_table(results, trials), form, columns=columns, label=f"search-{results['search']}")


def _ranked(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The trials by value, those without a value last."""
    sign = -1 if results["higher_is_better"] else 1
    return sorted(
        results["trials"],
        key=lambda trial: (
            trial["value"] is None,
            0 if trial["value"] is None else sign * trial["value"],
            trial["number"],
        ),
    )


def _table(results: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> Table:
    names = list(results["space"])
    short = [name.rpartition(".")[2] for name in names]
    titles = [last if short.count(last) == 1 else name for last, name in zip(short, names, strict=True)]
    default = results["default"]["value"]
    rows = []
    for trial in trials:
        value = trial["value"]
        difference = None if None in (value, default) or not trial["number"] else value - default
        settings = _settings(results, trial)
        state = trial["state"] if trial["same_as"] is None else f"as trial {trial['same_as']}"
        rows.append(
            Row(
                f"{trial['number']}{' (default)' if trial['number'] == 0 else ''}",
                [
                    number(value, digits=4),
                    number(difference, signed=True, digits=4),
                    *(_setting(settings.get(name)) for name in names),
                    str(trial["epochs"] or MISSING),
                    number(trial["seconds"] or None, digits=0),
                    state,
                ],
            )
        )
    columns = ["trial", results["metric"], "to default", *titles, "epochs", "seconds", "state"]
    caption = (
        f"Trials of {results['sampler']} by {results['metric']} on development rows, of one training each; "
        "to default: the difference from trial 0, the settings as they were."
    )
    return Table(columns, rows, caption)


def _settings(results: Mapping[str, Any], trial: Mapping[str, Any]) -> Mapping[str, Any]:
    """The searched settings of a trial; the first has the default's."""
    found: Mapping[str, Any] = (trial if trial["number"] else results["default"])["settings"]
    return found


def _setting(value: Any) -> str:
    if value is None:
        return MISSING
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# ---------------------------------------------------------------------- sentences


def paragraph(results: Mapping[str, Any]) -> str:
    """Sentences that are chosen and filled by the numbers alone."""
    trials, best = results["trials"], results["best"]
    counts = {
        state: sum(trial["state"] == state for trial in trials) for state in ("complete", "pruned", "failed")
    }
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    sentences = [f"{len(trials)} trials ({said or 'none ended'})."]
    if best is None:
        return " ".join([*sentences, "No trial has a value."])
    metric, default = results["metric"], results["default"]["value"]
    if best["number"] == 0:
        sentences.append(f"The default has the best {metric}, {number(best['value'], digits=4)}.")
    else:
        settings = ", ".join(f"{name} {_setting(value)}" for name, value in best["settings"].items())
        against = "which has none" if default is None else f"which has {number(default, digits=4)}"
        sentences.append(
            f"Trial {best['number']} is the best with {metric} {number(best['value'], digits=4)}, against "
            f"the default, {against}: {settings}."
        )
    if best["number"] != 0:
        sentences.append(
            f"It is the best of {counts['complete']} values on the same development rows, and therefore "
            "optimistic: on other rows less of the gain is left."
        )
    confirmation = results["confirmation"]
    sentences += [_confirmed(confirmation)] if confirmation is not None else []
    return " ".join(sentences)


def _confirmed(confirmation: Mapping[str, Any]) -> str:
    if "note" in confirmation:
        return str(confirmation["note"])
    failed, difference = confirmation["failed"], confirmation["difference"]
    if difference is None:
        return f"The comparison with the default has no result; {len(failed)} of its runs failed."
    title = METRICS[confirmation["metric"]].title
    rows = "held-back development rows" if confirmation["held_back"] else "test rows"
    values = [number(confirmation["variants"][name]["mean"]) for name in ("best", "default")]
    low, high = difference["interval"]
    positive, negative = (low > 0, high < 0)
    if not METRICS[confirmation["metric"]].higher_is_better:
        positive, negative = negative, positive
    outcome = "The gain is not shown to be real: the interval holds 0."
    if positive:
        outcome = "The gain is real beyond the rows and the seeds: the interval leaves 0 out."
    elif negative:
        outcome = "The default is better there: the interval leaves 0 out on its side."
    seeds = len(difference["seeds"])
    if seeds == 1 and positive:
        outcome = "With one seed, the interval is over rows alone; another seed may differ."
    found = number(difference["mean"], difference["interval"], signed=True)
    trained = f"{seeds} new seed{'s' if seeds > 1 else ''}"
    return (
        f"On {difference['n']:,} {rows}, which chose nothing, with {trained}: {title} "
        f"{values[0]} against the default's {values[1]}, difference {found} (95 % over "
        f"{difference['over']}), p {as_p_value(difference['p_value'])}. {outcome}"
    )


# ---------------------------------------------------------------------- sections


def overview(results: Mapping[str, Any]) -> list[Block]:
    """The sentences, the trials and the plot."""
    blocks: list[Block] = [results["paragraph"], _table(results, _ranked(results))]
    if results["best"] is not None:
        blocks.append(
            Picture(
                "plot",
                partial(draw, results),
                caption=f"{results['metric']} by trial and by searched setting. The line is the best so far, "
                "the dashes are the default, crosses are trials that failed or were pruned.",
                alt="Values by trial and by setting; the table above has the same figures.",
                pan=True,
            )
        )
    return blocks


def space(results: Mapping[str, Any]) -> list[Block]:
    """What was searched, and how much each setting mattered."""
    importances = results["importances"]
    rows = [
        Row(
            f"`{name}`",
            [
                values,
                _setting(results["default"]["settings"][name]),
                _setting((results["best"] or {"settings": {}})["settings"].get(name)),
                MISSING if importances is None else number(importances.get(name), digits=2),
            ],
        )
        for name, values in results["space"].items()
    ]
    caption = (
        "Importance: the setting's share in the differences between trials (PED-ANOVA, Watanabe et al. 2023, "
        f"arXiv 2304.10255){'; too few trials to tell' if importances is None else ''}."
    )
    return [Table(["setting", "values", "default", "best", "importance"], rows, caption, words=True)]


def confirmation(results: Mapping[str, Any]) -> list[Block]:
    """Best and default with new seeds, on rows that chose nothing."""
    found = results["confirmation"]
    if found is None or "note" in found:
        return []
    title = METRICS[found["metric"]].title
    rows = [
        Row(
            name,
            [
                number(variant["mean"]),
                ", ".join(map(number, variant["values"])),
                brackets(variant["interval"]),
                brackets(variant["interval_rows"]),
            ],
        )
        for name, variant in found["variants"].items()
    ]
    columns = ["", title, "each seed", "95 % over seeds", "95 % over rows"]
    caption = (
        f"{title} of new trainings with the seeds {', '.join(map(str, found['seeds']))}; confirm/report.html."
    )
    return [Table(columns, rows, caption), _confirmed(found)]


def without_value(results: Mapping[str, Any]) -> list[Block]:
    """Trials that failed or were pruned, with the reason."""
    rows = [
        Row(
            str(trial["number"]),
            [trial["state"], trial["reason"], json.dumps(trial["settings"], ensure_ascii=False)],
        )
        for trial in results["trials"]
        if trial["state"] in ("failed", "pruned")
    ]
    columns = ["trial", "state", "reason", "settings"]
    return [Table(columns, rows, "They have no value.", words=True)] if rows else []


SECTIONS: dict[str, Callable[[Mapping[str, Any]], Sequence[Block]]] = {
    "Trials": overview,
    "Searched settings": space,
    "Best and default on other rows": confirmation,
    "Trials without a value": without_value,
}


# ---------------------------------------------------------------------- the plot


def draw(results: Mapping[str, Any]) -> Figure:
    """Draw the value of each trial in their order, and below it by each searched setting."""
    from matplotlib.ticker import MaxNLocator

    names = list(results["space"])
    heights = [1.3, *[1.0] * len(names)]
    figure, axes = make_figure(
        len(heights), width=7.5, height=1.9 * sum(heights), heights=heights, sharex=False
    )
    known = [trial for trial in results["trials"] if trial["value"] is not None]
    lost = [trial["number"] for trial in results["trials"] if trial["state"] in ("failed", "pruned")]
    best = max if results["higher_is_better"] else min
    numbers, values = [trial["number"] for trial in known], [trial["value"] for trial in known]
    first = axes[0]
    first.step(numbers, [best(values[: i + 1]) for i in range(len(values))], where="post", color=ORANGE)
    first.scatter(numbers, values, s=24, color=BLUE)
    first.scatter(lost, [min(values)] * len(lost), s=30, marker="x", color=GREY)
    first.set_xlabel("trial")
    first.xaxis.set_major_locator(MaxNLocator(integer=True))
    for name, axis in zip(names, axes[1:], strict=True):
        pairs = [(_settings(results, trial).get(name), trial["value"]) for trial in known]
        _by_setting(axis, [pair for pair in pairs if pair[0] is not None], log=name in results["log"])
        axis.set_xlabel(name)
    for axis in axes:
        if (default := results["default"]["value"]) is not None:
            axis.axhline(default, color=GREY, linewidth=1, linestyle="--", zorder=0)
        axis.set_ylabel(results["metric"])
        axis.grid(axis="y", alpha=0.3)
    return figure


def _by_setting(axis: Axes, pairs: Sequence[tuple[Any, float]], *, log: bool) -> None:
    """Dots of values over a setting's numbers, or over its choices side by side."""
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value, _ in pairs)
    if numeric:
        axis.scatter([value for value, _ in pairs], [value for _, value in pairs], s=24, color=BLUE)
        if log:
            axis.set_xscale("log")
        return
    choices = list(dict.fromkeys(_setting(value) for value, _ in pairs))
    places = [choices.index(_setting(value)) for value, _ in pairs]
    axis.scatter(places, [value for _, value in pairs], s=24, color=BLUE)
    axis.set_xticks(range(len(choices)), choices)
    axis.set_xlim(-0.5, len(choices) - 0.5)

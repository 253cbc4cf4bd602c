"""The report of people's ratings.

scores of `mmsr.evaluation.human.scores`, key.json of the sheets ─► page
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mmsr.evaluation.compare import as_p_value
from mmsr.evaluation.human.scores import LEAST_RATERS, Contrast, Scores
from mmsr.evaluation.report.names import MISSING, NAMES, brackets, number
from mmsr.evaluation.report.page import Block, Picture, Row, Table, as_markdown, origin, write_page
from mmsr.evaluation.report.pictures import draw_ratings


class Rated(NamedTuple):
    """The content of the report: scores of `score`, and the key of the sheets."""

    scores: Scores
    key: Mapping[str, Any]


def write_ratings(
    out_dir: Path | str, scores: Scores, *, key: Mapping[str, Any], document: Mapping[str, Any]
) -> Path:
    """Write report.html, report.md and scores.png to `out_dir`; return the path of report.html.

    Args:
        out_dir: A folder.
        scores: The result of `score`.
        key: The result of `read_key`.
        document: The provenance of the scores, with keys of metrics.json, the manifest's `data_fingerprint`
            and the `ratings_fingerprint` of the raters' files.
    """
    items = max(contrast.items for contrast in scores.contrasts)
    ratings = sum(rater.items for rater in scores.raters)
    return write_page(
        Path(out_dir) / "report.html",
        SECTIONS,
        Rated(scores, key),
        title=" and ".join(dict.fromkeys(mean.system for mean in scores.figures)) + ", rated by people",
        lead=f"{len(scores.raters)} raters, {ratings:,} ratings of {items:,} items. Every figure is in "
        "scores.json.",
        provenance={
            **origin(document),
            "seed": f"{document['seed']} (intervals), {key.get('seed', 'unknown')} (sheets)",
            "intervals": f"95 % over {items:,} items",
            "data fingerprint": f"{document['data_fingerprint']} (manifest), "
            f"{document['ratings_fingerprint']} (ratings)",
            "sheets made by": key.get("command") or "unknown",
        },
    )


def markdown(scores: Scores, *, differing: bool) -> str:
    """The scores as tables for a terminal."""
    rated = Rated(scores, {"differing": differing})
    return as_markdown([*means(rated), *differences(rated), *raters(rated)])


def means(rated: Rated) -> list[Block]:
    """Mean ratings of each system."""
    rows = [
        Row(
            mean.system,
            [mean.criterion, number(mean.mean, mean.interval, digits=2), f"{mean.items}", f"{mean.ratings}"],
        )
        for mean in rated.scores.figures
    ]
    columns = ["system", "criterion", "mean", "items", "ratings"]
    blocks: list[Block] = [
        Table(columns, rows, "Mean ratings, from 1 to 5. Brackets: 95 % intervals over items."),
        Picture(
            "scores",
            partial(draw_ratings, rated.scores),
            caption="Left: mean rating of each system on each criterion, with its 95 % interval over items. "
            "Right: items on which the one or the other is better in the mean of its raters.",
            alt="Marks with intervals on the scale from 1 to 5, and bars of items won, tied and lost; the "
            "tables have the same figures.",
            pan=True,
        ),
    ]
    if rated.key["differing"]:
        blocks.append(
            "The items were drawn among those whose rationales are different: so do the figures speak."
        )
    return blocks


def differences(rated: Rated) -> list[Block]:
    """Pairs of systems, on each criterion and in the preference."""
    columns = ["a - b", "measure", "a", "b", "difference", "over items and raters", "p", "p (Holm)"]
    columns += ["win / tie / loss", "detectable", "items needed"]
    contrasts = rated.scores.contrasts
    rows = [Row(f"{contrast.a} - {contrast.b}", _cells(contrast)) for contrast in contrasts]
    blocks: list[Block] = [
        Table(columns, rows, "Differences of a and b. Brackets: 95 % intervals over items.")
    ]
    if few := sorted({contrast.raters for contrast in contrasts if contrast.interval_raters is None}):
        who = " or ".join("one rater" if count == 1 else f"{count} raters" for count in few)
        blocks.append(
            f"What {who} said tells nothing of what other raters would say: an interval over items and "
            f"raters wants {LEAST_RATERS} raters or more. The one over items speaks of these raters on other "
            "items."
        )
    notes = {
        "difference": "paired bootstrap over items: these raters on other items.",
        "over items and raters": "both drawn, each by itself; Student's t, raters - 1, within what the scale "
        "allows: other raters on other items.",
        "p": "swaps of the systems within items; of the preference, the sign test over items. Holm's "
        "correction is for all lines.",
        "win / tie / loss": "items, by the mean of their raters.",
        "detectable": "smallest true difference found with 80 % power with these items.",
        "items needed": "to find a difference so large with 80 % power, by these raters.",
    }
    return [*blocks, notes]


def _cells(contrast: Contrast) -> list[str]:
    return [
        contrast.measure,
        number(contrast.figure_a, digits=2),
        number(contrast.figure_b, digits=2),
        number(contrast.difference, contrast.interval, signed=True, digits=2),
        brackets(contrast.interval_raters, signed=True, digits=2),
        as_p_value(contrast.p_value),
        as_p_value(contrast.p_holm),
        f"{contrast.wins} / {contrast.ties} / {contrast.losses}",
        number(contrast.detectable, digits=2),
        ", ".join(f"{target}: {items}" for target, items in contrast.items_needed.items()),
    ]


def raters(rated: Rated) -> list[Block]:
    """How much raters agree with each other and with themselves, and which side they prefer."""
    agreement = [
        Row(measure, [number(found.alpha, found.interval), f"{found.units}"])
        for measure, found in rated.scores.agreement.items()
    ]
    work = []
    for rater in rated.scores.raters:
        counts = [f"{rater.items}", f"{rater.seconds:.0f}", f"{rater.unheard}", f"{rater.repeats}"]
        same = MISSING if rater.same_preference is None else f"{rater.same_preference:.0%}"
        work.append(Row(rater.name, [*counts, same, number(rater.mean_change, digits=2)]))
    sides = rated.scores.sides
    columns = ["rater", "items", "median seconds", "not listened to", "repeated", "same preference"]
    return [
        Table(
            ["agreement", "Krippendorff's alpha (ordinal)", "rated twice or more"],
            agreement,
            "Agreement between raters: 1 is agreement, 0 chance. Brackets: 95 % intervals over items.",
        ),
        Table([*columns, "mean change"], work, "Each rater's work, and what the same item got again."),
        f"Preferred side: left {sides.left}, right {sides.right}, neither {sides.same} "
        f"(p {as_p_value(sides.p_value)}).",
    ]


def systems(rated: Rated) -> list[Block]:
    """The provenance of the rated predictions."""
    rows = []
    for name, system in rated.key["systems"].items():
        found = origin(system.get("metrics", {}))
        condition = NAMES.get(system["condition"], system["condition"])
        cells = [condition, system["file"], system["sha256"][:16]]
        rows.append(Row(name, [*cells, found.get("seed", MISSING), found.get("command", MISSING)]))
    columns = ["system", "reads", "predictions", "sha256", "seed", "command"]
    return [Table(columns, rows, "Predictions that were rated.", words=True)]


SECTIONS: dict[str, Callable[[Rated], Sequence[Block]]] = {
    "Ratings": means,
    "Differences": differences,
    "Raters": raters,
    "Systems": systems,
}

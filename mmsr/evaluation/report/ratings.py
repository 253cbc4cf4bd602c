"""The report of people's ratings, as a page like those of runs.

scores of `mmsr.evaluation.human.scores`, key.json of the sheets ─► sections ─► page
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmsr.evaluation.compare import as_p_value
from mmsr.evaluation.human.scores import LEAST_RATERS, Contrast, Scores
from mmsr.evaluation.report.names import MISSING, NAMES
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
from mmsr.evaluation.report.pictures import draw_ratings
from mmsr.evaluation.significance import Interval

DIFFERING = "The items were drawn among those whose rationales are different: so do the figures speak."


def write_ratings(
    out_dir: Path | str, scores: Scores, *, key: Mapping[str, Any], document: Mapping[str, Any]
) -> Path:
    """Writes report.html, report.md and scores.png to `out_dir` and returns the path of report.html.

    Args:
        out_dir: A folder.
        scores: Of `score`.
        key: Of `read_key`.
        document: Where the scores come from, with the keys that metrics.json has for it, `data_fingerprint`
            of the manifest and `ratings_fingerprint` of the files that raters saved.
    """
    items = max(one.items for one in scores.contrasts)
    provenance = {
        **origin(document),
        "seed": f"{document['seed']} (intervals), {key.get('seed', 'unknown')} (sheets)",
        "intervals": f"95 % over {items:,} items",
        "data fingerprint": f"{document['data_fingerprint']} (manifest), "
        f"{document['ratings_fingerprint']} (ratings)",
        "sheets made by": key.get("command") or "unknown",
    }
    drawn = picture(
        "scores",
        partial(draw_ratings, scores),
        caption="Left: mean rating of each system on each criterion, with its 95 % interval over items. "
        "Right: items on which the one or the other is better in the mean of its raters.",
        alt="Marks with intervals on the scale from 1 to 5, and bars of items won, tied and lost; the tables "
        "have the same figures.",
        provenance=provenance,
        pan=True,
    )
    ratings = sum(one.items for one in scores.raters)
    page = Page(
        title=" and ".join(dict.fromkeys(one.system for one in scores.figures)) + ", rated by people",
        lead=f"{len(scores.raters)} raters, {ratings:,} ratings of {items:,} items. Every figure is in "
        "scores.json.",
        sections=sections(scores, differing=key["differing"], drawn=drawn) + [_systems(key)],
        provenance=provenance,
    )
    return write_page(page, Path(out_dir) / "report.html")


def markdown(scores: Scores, *, differing: bool) -> str:
    """The scores as tables for a terminal."""
    return told(sections(scores, differing=differing))


def sections(scores: Scores, *, differing: bool, drawn: Picture | None = None) -> list[Section]:
    """What the ratings say, without where they come from."""
    return [_ratings(scores, drawn, differing=differing), _differences(scores), _raters(scores)]


def _ratings(scores: Scores, drawn: Picture | None, *, differing: bool) -> Section:
    """Means of each system."""
    rows = [
        TableRow(
            one.system,
            [
                one.criterion,
                f"{one.mean:.2f} [{one.interval[0]:.2f}, {one.interval[1]:.2f}]",
                f"{one.items}",
                f"{one.ratings}",
            ],
        )
        for one in scores.figures
    ]
    columns = ["system", "criterion", "mean", "items", "ratings"]
    caption = "Mean ratings, from 1 to 5. Brackets: 95 % intervals over items."
    blocks: list[Any] = [Table(columns, rows, caption)]
    blocks += [drawn] if drawn else []
    return Section("Ratings", [*blocks, Text(DIFFERING)] if differing else blocks)


def _differences(scores: Scores) -> Section:
    """Systems in pairs, on each criterion and in the preference."""
    columns = ["a - b", "measure", "a", "b", "difference", "over items and raters", "p", "p (Holm)"]
    columns += ["win / tie / loss", "detectable", "items needed"]
    rows = [TableRow(f"{one.a} - {one.b}", _cells(one)) for one in scores.contrasts]
    blocks: list[Any] = [Table(columns, rows, "Differences of a and b. Brackets: 95 % intervals over items.")]
    if few := sorted({one.raters for one in scores.contrasts if one.interval_raters is None}):
        who = " or ".join("one rater" if count == 1 else f"{count} raters" for count in few)
        blocks.append(
            Text(
                f"What {who} said tells nothing of what other raters would say: an interval over items and "
                f"raters wants {LEAST_RATERS} raters or more. The one over items speaks of these raters on "
                "other items."
            )
        )
    notes = [
        ("difference", "paired bootstrap over items: these raters on other items."),
        ("over items and raters", "both drawn, each by itself; Student's t, raters - 1, within what the "
         "scale allows: other raters on other items."),
        ("p", "swaps of the systems within items; of the preference, the sign test over items. Holm's "
         "correction is for all lines."),
        ("win / tie / loss", "items, by the mean of their raters."),
        ("detectable", "smallest true difference found with 80 % power with these items."),
        ("items needed", "to find a difference so large with 80 % power, by these raters."),
    ]  # fmt: skip
    return Section("Differences", [*blocks, Notes(notes)])


def _raters(scores: Scores) -> Section:
    """How far the raters can be believed."""
    agreement = [
        TableRow(
            measure,
            [
                MISSING
                if one.alpha is None
                else f"{one.alpha:.3f}" + (f" [{_numbers(one.interval, '.3f')}]" if one.interval else ""),
                f"{one.units}",
            ],
        )
        for measure, one in scores.agreement.items()
    ]
    raters = [
        TableRow(
            one.name,
            [
                f"{one.items}",
                f"{one.seconds:.0f}",
                f"{one.unheard}",
                f"{one.repeats}",
                MISSING if one.same_preference is None else f"{one.same_preference:.0%}",
                MISSING if one.mean_change is None else f"{one.mean_change:.2f}",
            ],
        )
        for one in scores.raters
    ]
    sides = scores.sides
    columns = ["rater", "items", "median seconds", "not listened to", "repeated", "same preference"]
    return Section(
        "Raters",
        [
            Table(
                ["agreement", "Krippendorff's alpha (ordinal)", "rated twice or more"],
                agreement,
                "Agreement between raters: 1 is agreement, 0 chance. Brackets: 95 % intervals over items.",
            ),
            Table([*columns, "mean change"], raters, "Each rater's work, and what the same item got again."),
            Text(
                f"Preferred side: left {sides.left}, right {sides.right}, neither {sides.same} "
                f"(p {as_p_value(sides.p_value)})."
            ),
        ],
    )


def _systems(key: Mapping[str, Any]) -> Section:
    """Whose answers were rated."""
    rows = []
    for name, system in key["systems"].items():
        found = origin(system.get("metrics", {}))
        condition = NAMES.get(system["condition"], system["condition"])
        cells = [condition, system["file"], system["sha256"][:16]]
        rows.append(TableRow(name, [*cells, found.get("seed", MISSING), found.get("command", MISSING)]))
    columns = ["system", "reads", "predictions", "sha256", "seed", "command"]
    return Section("Systems", [Table(columns, rows, "Predictions that were rated.", words=True)])


def _cells(one: Contrast) -> list[str]:
    return [
        one.measure,
        f"{one.figure_a:.2f}",
        f"{one.figure_b:.2f}",
        f"{one.difference:+.2f} [{_numbers(one.interval, '+.2f')}]",
        f"[{_numbers(one.interval_raters, '+.2f')}]" if one.interval_raters else MISSING,
        as_p_value(one.p_value),
        as_p_value(one.p_holm),
        f"{one.wins} / {one.ties} / {one.losses}",
        f"{one.detectable:.2f}",
        ", ".join(f"{target}: {items}" for target, items in one.items_needed.items()),
    ]


def _numbers(interval: Interval, form: str) -> str:
    return ", ".join(f"{bound:{form}}" for bound in interval)

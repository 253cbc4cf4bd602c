"""The report of what rationales are worth: what they tell of the label, what answers follow, what is erased.

faithfulness.json of `mmsr.evaluation.explain.faithfulness`, saliencies ─► sections ─► page
"""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmsr.evaluation.report.names import MISSING, number
from mmsr.evaluation.report.page import (
    Notes,
    Page,
    Section,
    Table,
    TableRow,
    Text,
    origin,
    picture,
    told,
    write_page,
)
from mmsr.evaluation.report.pictures import BLUE, Saliency, draw_saliency, make_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES: Mapping[str, Mapping[str, str]] = {
    "simulatability": {
        "las": "leakage-adjusted simulatability (LAS)",
        "effect": "judge's gain by the rationale, all rows",
        "leaking": "... where the rationale alone tells the label",
        "not_leaking": "... where it does not",
        "label_not_named/las": "LAS where the label is not named",
        "label_not_named/effect": "gain where the label is not named",
        "accuracy/text+rationale": "judge of transcript and rationale",
        "accuracy/text": "judge of the transcript",
        "accuracy/rationale": "judge of the rationale",
    },
    "agreement": {
        "agreement": "label read off the rationale is the predicted one",
        "judge": "... of true rationales, the true one",
    },
    "counterfactuals": {
        "rationale_changes": "forced label: rationale changes",
        "label_read": "forced label is read off its rationale",
    },
    "respoken": {
        "manner/label_right": "another manner: label right",
        "manner/label_must_change": "... where the right label changes",
        "manner/label_must_stay": "... where it stays",
        "manner/manner_named": "another manner: right manner named",
        "manner/words_named": "another manner: right words named",
        "manner/evidence_stays": "another manner: names what it named before",
        "voice/label_right": "another voice: label right",
        "voice/label_stays": "another voice: label stays",
        "voice/evidence_stays": "another voice: named evidence stays",
        "voice/manner_named": "another voice: right manner named",
    },
    "follow": {
        f"{edit}/{what}": f"{said}: {changed}"
        for edit, said in (
            ("silenced", "voice silenced"),
            ("swapped", "voice of another row"),
            ("named_words_dropped", "named words dropped"),
            ("other_words_dropped", "as many random words dropped"),
        )
        for what, changed in (
            ("label_changes", "label changes"),
            ("rationale_changes", "rationale changes"),
            ("words_unnamed", "they are not named any more"),
        )
    },
}

COLUMNS = ("measure", "figure", "intervals over", "n")


def write_faithfulness_report(
    out_dir: Path | str,
    document: Mapping[str, Any],
    *,
    title: str,
    saliencies: Mapping[str, Saliency] | None = None,
) -> Path:
    """Writes report.html, report.md and pictures to `out_dir` and returns the path of report.html.

    `document` is the content of faithfulness.json, `saliencies` what utterances' labels are made of, by id.
    """
    over = sorted({figure["over"] for _, figure in _figures(document, *LINES) if "over" in figure})
    provenance = {**origin(document), "intervals": f"95 % over {' or '.join(over) or 'none'}"}
    page = Page(
        title=title,
        lead="Whether rationales are grounded in voice and words, and say what decided: "
        f"{document['n']:,} rows. Every figure is in faithfulness.json.",
        sections=[*sections(document, provenance), _saliencies(saliencies or {}, provenance)],
        provenance=provenance,
    )
    return write_page(page, Path(out_dir) / "report.html")


def markdown(document: Mapping[str, Any]) -> str:
    """The tables for a terminal, with what was left out."""
    return told(sections(document))


def sections(
    document: Mapping[str, Any], provenance: Mapping[str, str] | None = None
) -> list[Section | None]:
    """What was found; with its picture where there is a provenance for it."""
    return [_judged(document), _followed(document, provenance), _erased(document), _left_out(document)]


def _judged(document: Mapping[str, Any]) -> Section | None:
    """What a judge reads off the rationales."""
    rows = [_row(name, figure) for name, figure in _figures(document, "simulatability", "agreement")]
    notes = [
        ("LAS", "leakage-adjusted simulatability (Hase et al., 2020): how much better a judge foretells the "
         "label by the rationale, the mean over rows whose rationale alone tells the label and rows where it "
         "does not."),
        ("judge", "learns labels from texts of the training rows."),
    ]  # fmt: skip
    table = Table(COLUMNS, rows, "What rationales tell of the label. Brackets: 95 % intervals.")
    return Section("What rationales tell", [table, Notes(notes)]) if rows else None


def _followed(document: Mapping[str, Any], provenance: Mapping[str, str] | None) -> Section | None:
    """What answers follow when label, voice or words are others."""
    found = _figures(document, "counterfactuals", "respoken", "follow")
    if not found:
        return None
    caption = "Shares of answers that change, stay or are right. Brackets: 95 % intervals."
    blocks: list[Any] = [Table(COLUMNS, [_row(*one) for one in found], caption)]
    if provenance is not None:
        drawn = picture(
            "faithfulness",
            partial(draw_shares, found),
            caption="The shares of the table with their 95 % intervals.",
            alt="A mark with its interval for each share of the table above.",
            provenance=provenance,
            pan=True,
        )
        blocks.append(drawn)
    blocks += [
        Text(
            f"{figures['not_respoken']:,} of {document['n']:,} rows could not be spoken in another {change}."
        )
        for change, figures in document.get("respoken", {}).items()
        if figures["not_respoken"]
    ]
    return Section("What answers follow", blocks)


def _erased(document: Mapping[str, Any]) -> Section | None:
    """What the label loses with the words and moments that an attribution calls important."""
    rows = []
    for attribution, modalities in document.get("erasure", {}).items():
        for modality, measures in modalities.items():
            for measure, figures in measures.items():
                chosen, random, difference = (figures[key] for key in ("chosen", "random", "difference"))
                cells = [
                    number(chosen["value"], chosen.get("interval")),
                    number(random["value"], random.get("interval")),
                    number(difference["value"], difference.get("interval"), signed=True),
                ]
                name = f"{measure} of {attribution}, {modality}"
                rows.append(TableRow(name, [*cells, chosen.get("over", MISSING), f"{chosen['n']:,}"]))
    notes = [
        ("comprehensiveness", "what the predicted label's probability loses without the words or moments "
         "that the attribution weighs most: the more the better."),
        ("sufficiency", "what it loses with these alone: the less the better."),
        ("random", "as many words at random; as many moments, moved along the time axis."),
    ]  # fmt: skip
    columns = ["measure", "chosen", "random", "chosen - random", "intervals over", "n"]
    table = Table(
        columns, rows, "Probability of the predicted label lost by erasing. Brackets: 95 % intervals."
    )
    return Section("What erasing costs", [table, Notes(notes)]) if rows else None


def _saliencies(saliencies: Mapping[str, Saliency], provenance: Mapping[str, str]) -> Section | None:
    """What the labels of some utterances are made of."""
    drawn = [
        picture(
            "saliency-" + re.sub(r"[^\w.-]+", "_", id_),
            partial(draw_saliency, saliency),
            caption=f"What each moment and each word adds to the logit of {saliency['label']}, utterance "
            f"{id_}. Words from top to bottom: {', '.join(saliency['words'])}.",
            alt=f"Waveform of {id_}, and bars of what moments and words add to the label's logit.",
            provenance=provenance,
            pan=True,
        )
        for id_, saliency in saliencies.items()
    ]
    return Section("What labels are made of", drawn) if drawn else None


def _left_out(document: Mapping[str, Any]) -> Section | None:
    """What could not be measured, and why."""
    lines = [Text(f"Left out: {measure} ({why}).") for measure, why in document["left_out"].items()]
    return Section("Left out", lines) if lines else None


def draw_shares(found: list[tuple[str, Mapping[str, Any]]]) -> "Figure":
    """Draws named shares with their intervals, the first on top."""
    figure, (ax,) = make_figure(1, width=8.5, height=1.0 + 0.32 * len(found))
    for y, (_, one) in enumerate(found):
        ax.plot(
            one.get("interval", [one["value"]] * 2), [y, y], color=BLUE, linewidth=2.5, solid_capstyle="butt"
        )
        ax.plot(one["value"], y, color=BLUE, marker="o", markersize=7)
        ax.text(1.03, y, f"{one['value']:.3f}", transform=ax.get_yaxis_transform(), va="center", fontsize=10)
    ax.set_yticks(range(len(found)), [name for name, _ in found], fontsize=10)
    ax.set(xlim=(-0.02, 1.02), xlabel="share, with its 95 % interval")
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.grid(axis="x", alpha=0.3)
    return figure


def _figures(document: Mapping[str, Any], *parts: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Names and figures of parts, as far as there are."""
    return [
        (name, figure)
        for part in parts
        for path, name in LINES[part].items()
        if (figure := _at(document.get(part, {}), path))
    ]


def _at(figures: Any, path: str) -> Mapping[str, Any] | None:
    """The figure at a path of keys; None where there is none, or it has no rows."""
    for key in path.split("/"):
        figures = figures.get(key, {})
    return figures if "value" in figures else None


def _row(name: str, figure: Mapping[str, Any]) -> TableRow:
    cells = [number(figure["value"], figure.get("interval")), figure.get("over", MISSING), f"{figure['n']:,}"]
    return TableRow(name, cells)

"""The report of faithfulness: what rationales say about the label, what answers follow, what erasing costs.

faithfulness.json of `mmsr.evaluation.explain.faithfulness`, saliencies ─► page
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mmsr.evaluation.report.names import MISSING, number
from mmsr.evaluation.report.page import Block, Picture, Row, Table, as_markdown, origin, write_page
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
    "matching": {
        "own": "own rationale fits the transcript better than others of its label",
        "permuted": "... rationales exchanged within their label",
        "difference": "... difference",
        "reference": "... reference rationales",
        "quoted": "rationale quotes the transcript",
        "grounded": "... and all that it quotes is there",
        "grounded_permuted": "... rationales exchanged within their label",
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
        f"{edit}/{measure}": f"{title}: {change}"
        for edit, title in (
            ("silenced", "voice silenced"),
            ("swapped", "voice of another row"),
            ("named_words_dropped", "named words dropped"),
            ("other_words_dropped", "as many random words dropped"),
        )
        for measure, change in (
            ("label_changes", "label changes"),
            ("rationale_changes", "rationale changes"),
            ("words_unnamed", "they are not named any more"),
        )
    },
}

COLUMNS = ("measure", "figure", "intervals over", "n")


class Examined(NamedTuple):
    """The content of the report."""

    document: Mapping[str, Any]  # content of faithfulness.json
    saliencies: Mapping[str, Saliency] = {}  # of utterances to draw, by id

    def measured(self, *parts: str) -> list[tuple[str, Mapping[str, Any]]]:
        """The titles and values of the measures in parts of the document, where they have rows."""
        found = []
        for part in parts:
            for path, title in LINES[part].items():
                value = self.document.get(part, {})
                for key in path.split("/"):
                    value = value.get(key, {})
                if "value" in value:
                    found.append((title, value))
        return found


def write_faithfulness_report(
    out_dir: Path | str,
    document: Mapping[str, Any],
    *,
    title: str,
    saliencies: Mapping[str, Saliency] | None = None,
) -> Path:
    """Write report.html, report.md and pictures to `out_dir`; return the path of report.html.

    `document` is the content of faithfulness.json, `saliencies` are of utterances to draw, by id.
    """
    examined = Examined(document, saliencies or {})
    over = sorted({value["over"] for _, value in examined.measured(*LINES) if "over" in value})
    return write_page(
        Path(out_dir) / "report.html",
        SECTIONS,
        examined,
        title=title,
        lead="Whether rationales are grounded in voice and words, and say what decided: "
        f"{document['n']:,} rows. Every figure is in faithfulness.json.",
        provenance={**origin(document), "intervals": f"95 % over {' or '.join(over) or 'none'}"},
    )


def markdown(document: Mapping[str, Any]) -> str:
    """The tables for a terminal, and what was left out."""
    return as_markdown(block for blocks in SECTIONS.values() for block in blocks(Examined(document)))


def simulatability(examined: Examined) -> list[Block]:
    """What a judge predicts from rationales."""
    rows = [_row(*measure) for measure in examined.measured("simulatability", "agreement", "matching")]
    notes = {
        "LAS": "leakage-adjusted simulatability (Hase et al., 2020): how much better a judge foretells the "
        "label by the rationale, the mean over rows whose rationale alone tells the label and rows where it "
        "does not.",
        "judge": "learns labels from texts of the training rows.",
        "fits": "by the cosine of TF-IDF; the share of rationales of other rows with the same predicted "
        "label and language that fit less. Constant rationales and those of other rows have about .5.",
    }
    caption = "What rationales tell of the label and of their row. Brackets: 95 % intervals."
    return [Table(COLUMNS, rows, caption), notes] if rows else []


def follow(examined: Examined) -> list[Block]:
    """How answers change with another label, voice or words."""
    measures = examined.measured("counterfactuals", "respoken", "follow")
    if not measures:
        return []
    caption = "Shares of answers that change, stay or are right. Brackets: 95 % intervals."
    return [
        Table(COLUMNS, [_row(*measure) for measure in measures], caption),
        Picture(
            "faithfulness",
            partial(draw_shares, measures),
            caption="The shares of the table with their 95 % intervals.",
            alt="A mark with its interval for each share of the table above.",
            pan=True,
        ),
        *(
            f"{count:,} of {examined.document['n']:,} rows could not be spoken in another {change}."
            for change, values in examined.document.get("respoken", {}).items()
            if (count := values["not_respoken"])
        ),
    ]


def erasure(examined: Examined) -> list[Block]:
    """What erasing the words and frames with the highest attribution costs."""
    rows = []
    for attribution, modalities in examined.document.get("erasure", {}).items():
        for modality, measures in modalities.items():
            for measure, values in measures.items():
                chosen, random, difference = (values[key] for key in ("chosen", "random", "difference"))
                cells = [
                    number(chosen["value"], chosen.get("interval")),
                    number(random["value"], random.get("interval")),
                    number(difference["value"], difference.get("interval"), signed=True),
                ]
                name = f"{measure} of {attribution}, {modality}"
                rows.append(Row(name, [*cells, chosen.get("over", MISSING), f"{chosen['n']:,}"]))
    columns = ["measure", "chosen", "random", "chosen - random", "intervals over", "n"]
    caption = "Probability of the predicted label lost by erasing. Brackets: 95 % intervals."
    notes = {
        "comprehensiveness": "what the predicted label's probability loses without the words or moments "
        "that the attribution weighs most: the more the better.",
        "sufficiency": "what it loses with these alone: the less the better.",
        "random": "as many words at random; as many moments, moved along the time axis.",
    }
    return [Table(columns, rows, caption), notes] if rows else []


def left_out(examined: Examined) -> list[Block]:
    """What could not be measured, and why."""
    return [f"Left out: {measure} ({why})." for measure, why in examined.document["left_out"].items()]


def saliencies(examined: Examined) -> list[Block]:
    """A picture for each saliency."""
    return [
        Picture(
            "saliency-" + re.sub(r"[^\w.-]+", "_", id_),
            partial(draw_saliency, saliency),
            caption=f"What each moment and each word adds to the logit of {saliency['label']}, utterance "
            f"{id_}. Words from top to bottom: {', '.join(saliency['words'])}.",
            alt=f"Waveform of {id_}, and bars of what moments and words add to the label's logit.",
            pan=True,
        )
        for id_, saliency in examined.saliencies.items()
    ]


SECTIONS: dict[str, Callable[[Examined], Sequence[Block]]] = {
    "What rationales tell": simulatability,
    "What answers follow": follow,
    "What erasing costs": erasure,
    "Left out": left_out,
    "What labels are made of": saliencies,
}


def draw_shares(shares: Sequence[tuple[str, Mapping[str, Any]]]) -> "Figure":
    """Draw shares with their names and intervals, the first on top."""
    figure, (ax,) = make_figure(1, width=8.5, height=1.0 + 0.32 * len(shares))
    for y, (_, share) in enumerate(shares):
        value = share["value"]
        interval = share.get("interval", [value] * 2)
        ax.plot(interval, [y, y], color=BLUE, linewidth=2.5, solid_capstyle="butt")
        ax.plot(value, y, color=BLUE, marker="o", markersize=7)
        ax.text(1.03, y, f"{value:.3f}", transform=ax.get_yaxis_transform(), va="center", fontsize=10)
    ax.set_yticks(range(len(shares)), [name for name, _ in shares], fontsize=10)
    ax.set(xlim=(-0.02, 1.02), xlabel="share, with its 95 % interval")
    ax.set_ylim(len(shares) - 0.5, -0.5)
    ax.grid(axis="x", alpha=0.3)
    return figure


def _row(title: str, value: Mapping[str, Any]) -> Row:
    cells = [number(value["value"], value.get("interval")), value.get("over", MISSING), f"{value['n']:,}"]
    return Row(title, cells)

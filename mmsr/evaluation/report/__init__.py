"""Reports of all that is measured: self-contained HTML, Markdown beside it, and their pictures.

names ─► pictures ─► page ─► run, comparison, robustness, faithfulness, ratings
                             (and `mmsr.ablation.report`)
"""

from mmsr.evaluation.report.names import MISSING, NAMES
from mmsr.evaluation.report.pictures import (
    BLUE,
    GREY,
    ORANGE,
    differences_picture,
    draw_attention,
    draw_confusion,
    ratings_picture,
    saliency_picture,
)
from mmsr.evaluation.report.run import Example, markdown_table, write_report

__all__ = [
    "BLUE",
    "GREY",
    "MISSING",
    "NAMES",
    "ORANGE",
    "Example",
    "differences_picture",
    "draw_attention",
    "draw_confusion",
    "markdown_table",
    "ratings_picture",
    "saliency_picture",
    "write_report",
]

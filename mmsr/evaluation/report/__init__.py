"""Reports: self-contained HTML, Markdown beside it, and pictures.

names ─► pictures ─► page ─► run, comparison, robustness, faithfulness, ratings
                             (and `mmsr.ablation.report`)
"""

from mmsr.evaluation.report.pictures import draw_attention, draw_confusion
from mmsr.evaluation.report.run import Example, markdown_table, write_report

__all__ = ["Example", "draw_attention", "draw_confusion", "markdown_table", "write_report"]

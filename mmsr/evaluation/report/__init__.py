"""Reports: self-contained HTML, Markdown beside it, and pictures.

names ─► pictures ─► page ─► run, comparison, robustness, faithfulness, ratings
                             (and `mmsr.ablation.report`)
"""

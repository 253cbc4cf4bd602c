"""Ablations: variants of a configuration times seeds, each run once, compared in one table.

spec     FILE.yaml ─► variants, seeds, folds, evaluation
plan     ─► runs, named by a digest of their settings and data
runs     one run: its folder, its training and evaluation, its result
runner   runs in processes of this machine; ray: on a cluster
units    test rows that intervals and tests draw together
summary  results of runs ─► metrics with intervals, differences, baselines
report   ─► results.json, table.md, report.html, plot.png
ablate   all of it

Equal settings on equal data are the same run, wherever the files lie and whatever the variant is called: it
is found again, not repeated. Test rows choose nothing: epochs are chosen on the development split, and the
file names the reference.
"""

"""A search for better settings of one configuration, on development rows alone.

spec     FILE.yaml ─► the default's settings, the space of each searched setting, trials, minutes
trials   a trial ─► a run in its folder ─► its value, in a journal from which a killed search is resumed
pruning  trials that fall behind are ended
search   all of it, and the comparison of best and default on rows that chose nothing
report   ─► search.json, search.csv, search.html, search.md, plot.png, plot.pdf, best.yaml

It stands beside the ablations, since a trial is one of their runs: spec, runs and runners are theirs, and the
best settings are confirmed by an ablation of two variants. Optuna proposes the settings.
"""

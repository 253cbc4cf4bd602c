"""`mmsr data check`: every issue of a manifest and its audio, in one run.

    table.py (rows, columns, splits) + audio.py (each file) ─► issues, by the codes of codes.py ─► report.py

A new check is a function in table.py that yields issues, and a line in codes.py.
"""

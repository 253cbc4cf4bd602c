"""`mmsr data check`: every issue of a manifest and its audio, in one run.

    table.py (rows, columns, splits) + audio.py (each file) ─► issues, by the codes of codes.py ─► report.py

A new check is a function in table.py that yields issues, and a line in codes.py.
"""

from mmsr.data.manifest.check.codes import CODES
from mmsr.data.manifest.check.report import as_json, code_table, summary, write_page
from mmsr.data.manifest.check.table import LABELS, CheckedManifest, check_manifest

__all__ = [
    "CODES",
    "LABELS",
    "CheckedManifest",
    "as_json",
    "check_manifest",
    "code_table",
    "summary",
    "write_page",
]

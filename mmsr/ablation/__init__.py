"""Ablations: variants times seeds, their runs, tables and reports."""

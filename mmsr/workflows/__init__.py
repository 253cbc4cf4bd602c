"""Workflows: one function for each command of evaluation, which the command runs and a notebook calls."""

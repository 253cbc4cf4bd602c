"""Workflows: what a command runs and a notebook calls."""

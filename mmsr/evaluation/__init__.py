"""Figures, baselines, the evaluation run and its report; knows models only as a `predict` callable."""

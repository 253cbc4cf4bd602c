"""Robustness: what noise, lost words and lost modalities cost."""

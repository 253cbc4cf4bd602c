"""Finds the package mmsr for `trust_remote_code=True`: pip install mmsr."""

from mmsr import MmsrConfig, MmsrForSentimentReasoning, MmsrProcessor  # noqa: F401

"""Explanations: where a model looks, and whether its rationales can be believed."""

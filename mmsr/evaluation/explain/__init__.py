"""Explanations: attributions, and the faithfulness of rationales."""

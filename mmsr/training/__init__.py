"""Training: the Lightning module, its callbacks, and one run in a folder."""

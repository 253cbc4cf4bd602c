"""The feature store, and frozen encoders behind it."""

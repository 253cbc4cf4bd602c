"""Manifests, audio, batches, stored features and corpora."""

"""Manifests: tables of utterances, read, checked and written."""

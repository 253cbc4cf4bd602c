"""The spoken demo corpus."""

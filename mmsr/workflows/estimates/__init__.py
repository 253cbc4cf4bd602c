"""How long a job takes and what it needs, from parts of it that are timed on this machine."""

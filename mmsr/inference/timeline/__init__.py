"""A whole recording as answers along the time axis."""

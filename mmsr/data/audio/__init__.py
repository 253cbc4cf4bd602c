"""Audio: any file or samples to 16 kHz mono."""

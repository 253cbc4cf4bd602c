"""The encoders of audio and text."""

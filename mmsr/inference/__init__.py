"""Answers from a checkpoint: pipeline, timeline, ONNX."""

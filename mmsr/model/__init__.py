"""The model: configuration, encoders, fusion, decoders, the composed network, its processor and pipeline."""

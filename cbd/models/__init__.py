"""Models: checkpoints, families, Trans, interpolation, forward passes, generation, sources."""

"""Measurements: held-out loss, bits per byte, downstream tasks."""

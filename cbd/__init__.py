"""cbd: an open replication of Chain-based Distillation (arXiv 2605.07783)."""

__version__ = "0.1.0"

"""The paper's experiments: one module each, scale and seed -> recipes -> tidy rows."""

from cbd.experiments.core import EXPERIMENTS, design_of, run

__all__ = ["EXPERIMENTS", "design_of", "run"]

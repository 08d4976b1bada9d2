"""E7 on public checkpoints: the figure of the families, from their table."""

from cbd.report.figures.families import families

FIGURES = {"public_checkpoints": families}

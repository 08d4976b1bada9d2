"""E7 on public checkpoints: the figure of the families, from their table."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from cbd.report.figures.families import families


def public_checkpoints(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
    """As `families`."""
    return families(table, scale, date)


FIGURES = (public_checkpoints,)

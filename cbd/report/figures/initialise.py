"""E2, E10, Q3: every start of every size before any training."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cbd.report import stats
from cbd.report.figures import drawing
from cbd.report.names import RANDOM


@drawing.styled
def initialise(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
    """Loss of every target size and start at step zero.

    Reads metric "loss" by method and spec. Random initialisation has an axis of its own above the rest.
    """
    rows = drawing.pick(table, "loss")
    specs, styles = drawing.sizes_of(rows), drawing.styles_of(rows["method"])
    summary = stats.summarise(rows, ["method", "spec"])
    figure = drawing.new_figure(3.9)
    far = summary["method"] == RANDOM
    split = far.any() and not far.all() and _apart(summary[~far], summary[far])
    cells = figure.add_gridspec(2, 1, height_ratios=(0.32, 1))
    panels = drawing.broken_axes(figure, cells, 0, 0) if split else (figure.add_subplot(cells[:, 0]),)
    near = [method for method in styles if not (split and method == RANDOM)]
    step = 0.7 / max(len(near), 2)
    for method, style in styles.items():
        part = summary[summary["method"] == method]
        alone = split and method == RANDOM
        shift = 0 if alone else (near.index(method) - (len(near) - 1) / 2) * step
        places = [list(specs).index(spec) + shift for spec in part["spec"]]
        drawing.dots(panels[0] if alone else panels[-1], places, part, style, markersize=6)
    for axes in panels[::-1]:
        drawing.sizes_axis(axes, specs)
    panels[-1].set(xlabel="target: layers x width, parameters", ylabel=drawing.LOSS)
    if split:
        panels[0].set_ylim(*drawing.limits(summary[far], 0.35))
        panels[-1].set_ylim(*drawing.limits(summary[~far]))
    drawing.legend(figure, styles, 3, line=False)
    text = (
        "Each target lies between two anchors of the chain; sizes rise to the right. "
        "No model has been trained after its initialisation."
    )
    drawing.caption(figure, text, [summary], scale, date)
    return figure


def _apart(low: pd.DataFrame, high: pd.DataFrame) -> bool:
    """Whether `high` lies so far above `low` that one axis would flatten it."""
    bottom, top = drawing.limits(low)
    return float(high["point"].min()) - top > 0.5 * (top - bottom)


FIGURES = (initialise,)

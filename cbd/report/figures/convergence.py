"""E5: recovery training from each start, and what it saves in tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from cbd.errors import CbdError, si
from cbd.recipes.starts import BLUE
from cbd.report import stats
from cbd.report.figures import drawing
from cbd.report.names import CBD, RANDOM

SPEEDUPS = {
    "speedup_to_random_final": "to random's final loss",
    "speedup_to_cbd_final": "to CBD's final loss",
}


@drawing.styled
def convergence(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
    """Validation loss against training tokens for each start; columns are sizes, rows budgets.

    Reads metric "loss" by method, spec, budget and tokens. The upper
    part of each panel holds what random initialisation passes through, on a coarser scale.
    """
    summary = stats.summarise(drawing.pick(table, "loss"), ["method", "spec", "budget", "tokens"])
    specs, styles = drawing.sizes_of(drawing.pick(table, "loss")), drawing.styles_of(summary["method"])
    compared = summary.groupby("budget")["method"].nunique()  # a longer run of one start alone is not a row
    budgets = sorted(compared[compared == compared.max()].index)
    figure = drawing.new_figure(1.3 + 2.5 * len(budgets), max(drawing.WIDTH, 1 + 2.1 * len(specs)))
    cells = figure.add_gridspec(2 * len(budgets), len(specs), height_ratios=(0.42, 1) * len(budgets))
    for i, budget in enumerate(budgets):
        row = summary[summary["budget"] == budget]
        for j, (spec, label) in enumerate(specs.items()):
            panels = _convergence_panel(figure, (cells, i, j), row, spec, styles)
            panels[0].set_title(label if i == 0 else "")
            panels[-1].set_xlabel("training tokens" if i == len(budgets) - 1 else "")
            if j == 0:
                panels[-1].set_ylabel(f"budget {si(budget)} tokens\nloss (nats per token)")
            else:
                for axes in panels:
                    axes.tick_params(axis="y", labelleft=False)
    drawing.legend(figure, styles, 4)
    text = (
        "Validation loss; every start sees the same batches, each at its own tuned learning rate. Thin line: "
        "the loss of CBD at step zero. Above the break the scale is coarser."
    )
    drawing.caption(figure, text, [summary], scale, date)
    return figure


def _convergence_panel(
    figure: Figure,
    place: tuple[GridSpec, int, int],
    row: pd.DataFrame,
    spec: str,
    styles: dict[str, dict[str, Any]],
) -> tuple[Axes, ...]:
    """One size at one budget, on the scales that the whole row shares."""
    near = row[row["method"] != RANDOM]
    split = 0 < len(near) < len(row) and drawing.limits(row)[1] > drawing.limits(near)[1] + 0.5 * np.ptp(drawing.limits(near))
    cells, i, j = place
    panels = drawing.broken_axes(figure, *place) if split else (figure.add_subplot(cells[2 * i : 2 * i + 2, j]),)
    part = row[row["spec"] == spec]
    at = drawing.tokens_axis(panels[-1], row["tokens"])  # the axes share their x
    for method, style in styles.items():
        line = part[part["method"] == method].sort_values("tokens")
        for axes in panels if method == RANDOM else panels[-1:]:
            drawing.curve(axes, line, at(line["tokens"]), style)
    start = part[(part["method"] == CBD) & (part["tokens"] == 0)]
    if len(start):
        panels[-1].axhline(start["point"].iloc[0], color=BLUE, linewidth=0.8, zorder=0)
    bottom, top = drawing.limits(row, 0.06)
    if split:
        edge = drawing.limits(near)
        bottom = min(edge[0], float(row["point"].min()) - 0.08 * np.ptp(edge))
        panels[0].set_ylim(edge[1], top)
        panels[1].set_ylim(bottom, edge[1])
    else:
        panels[0].set_ylim(bottom, top)
    return panels


@drawing.styled
def speedup(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
    """How many times fewer tokens than random initialisation, for each size and budget.

    Reads metrics "speedup_to_random_final" and "speedup_to_cbd_final" and, where a start never got there, the
    same with "_lower_bound" (drawn hollow, with an arrow). `cbd.experiments.convergence` defines both.
    """
    parts = {m: stats.with_lower_bounds(table, m) for m in SPEEDUPS if (table["metric"] == m).any()}
    if not parts:
        raise CbdError(f"the table has no rows of metric {' or '.join(SPEEDUPS)}; run the experiment")
    rows = pd.concat(parts.values())
    runs = rows[["spec", "budget"]].drop_duplicates()
    specs = list(drawing.sizes_of(table[table["metric"].isin(parts)]))
    places = sorted(zip(runs["spec"], runs["budget"], strict=True), key=lambda r: (r[1], specs.index(r[0])))
    styles = drawing.styles_of(rows["method"])
    figure = drawing.new_figure(1.5 + 0.33 * len(places))
    panels = figure.subplots(1, len(parts), sharex=True, sharey=True, squeeze=False)[0]
    summaries = []
    for letter, axes, (metric, part) in zip("ab", panels, parts.items(), strict=False):
        summaries.append(_speedup_panel(axes, part, places, styles))
        drawing.panel_title(axes, letter, SPEEDUPS[metric])
    panels[0].set_yticks(range(len(places)), [f"{spec}, {si(b)} tokens" for spec, b in places])
    panels[0].set_ylim(len(places) - 0.5, -0.5)
    if len(styles) > 1:
        drawing.legend(figure, styles, 4, line=False)
    text = (
        "Tokens that random initialisation needs, over those that CBD needs (at least one step), "
        "to reach a loss: without the cost of the chain."
    )
    if any(part["bound"].any() for part in parts.values()):
        text += " Hollow with an arrow: a lower bound, since the loss was not reached within the longest run."
    drawing.caption(figure, text, summaries, scale, date)
    return figure


def _speedup_panel(
    axes: Axes, part: pd.DataFrame, places: list[tuple[str, int]], styles: dict[str, dict[str, Any]]
) -> pd.DataFrame:
    summary = stats.summarise(part, ["method", "spec", "budget"])
    bounds = part.groupby(["method", "spec", "budget"])["bound"].any()
    axes.set_xscale("log")
    axes.axvline(1, color="0.6", linewidth=0.8, zorder=0)
    for k, (method, style) in enumerate(styles.items()):
        shift = (k - (len(styles) - 1) / 2) * 0.22
        for _, row in summary[(summary["method"] == method) & np.isfinite(summary["point"])].iterrows():
            y = places.index((row["spec"], row["budget"])) + shift
            bound = bounds[method, row["spec"], row["budget"]]
            look = {"markersize": 6.5, "markeredgewidth": 1.2}
            if bound:
                look |= {"markerfacecolor": "white", "markeredgecolor": style["color"]}
                drawing.arrow(axes, row["point"], y, 28, style["color"])
                row = row.where(~row.index.isin(["low", "high"]), np.nan)  # the least, not an estimate
            drawing.dots(axes, [y], row.to_frame().T, style, flat=True, **look)
            text = f"{'≥ ' * bool(bound)}{row['point']:.3g}x"
            look = {"ha": "center", "fontsize": 8, "bbox": {"color": "white", "pad": 0.5}}
            axes.annotate(text, (row["point"], y), (0, 7), textcoords="offset points", **look)
    axes.set_xlabel("times fewer tokens than random")
    axes.margins(x=0.15)
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    return summary


FIGURES = (convergence, speedup)

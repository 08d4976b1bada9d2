"""E16: what N sizes cost by each way to make them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cbd.report import stats
from cbd.report.figures.drawing import curve, new_figure, pick, provenance, styled, styles_of, underline
from cbd.report.names import CHAIN


@styled
def paper_map(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
    """Cumulative cost of N target sizes, for each way to make them.

    Reads metric "cumulative_flops": method, sizes and value (FLOPs).
    """
    rows = pick(table, "cumulative_flops")
    summary = stats.summarise(rows, ["method", "sizes"])
    styles = styles_of(summary["method"])
    figure = new_figure(3.3, 5.4)
    axes = figure.subplots()
    exponent = int(np.floor(np.log10(summary["point"].max())))
    for method, style in styles.items():
        line = summary[summary["method"] == method].sort_values("sizes")
        scaled = line.assign(**{c: line[c] / 10**exponent for c in ("point", "low", "high")})
        curve(axes, scaled, line["sizes"], style)
        axes.annotate(
            method, (line["sizes"].iloc[-1], scaled["point"].iloc[-1]), (8, 0), textcoords="offset points",
            va="center", color=style["color"],
        )  # fmt: skip
    axes.set(xlabel="number of target sizes", ylabel=f"cumulative cost ($10^{{{exponent}}}$ FLOPs)")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    text = "Cost of making N sizes from the same recipes that are run, each shared recipe counted once."
    underline(figure, [text, *_paid_back(summary)], provenance(scale, date))
    return figure


def _paid_back(summary: pd.DataFrame) -> list[str]:
    """For each other method, after how many sizes the chain has paid for itself."""
    cost = summary[["method", "sizes", "point"]].rename(columns={"point": "value"})
    others = [method for method in styles_of(cost["method"]) if method != CHAIN]
    found = {other: stats.break_even(cost, CHAIN, other) for other in others}
    starts = {other: f"from N\u00a0=\u00a0{n}" if n else "at no N shown" for other, n in found.items()}
    said = [f"than {other} {start}" for other, start in starts.items()]
    return [f"The chain's own cost is included: it costs less {', '.join(said)}."]


FIGURES = (paper_map,)

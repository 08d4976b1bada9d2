"""E16: what N sizes cost by each way to make them."""

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from cbd.report import stats
from cbd.report.figures import drawing
from cbd.report.names import CHAIN


@drawing.captioned
def paper_map(table: pd.DataFrame) -> drawing.Drawn:
    """Cumulative cost of N target sizes, for each way to make them, and from which N on the chain is cheaper."""
    rows = drawing.pick(table, "cumulative_flops")
    exponent = int(np.floor(np.log10(rows["value"].max())))
    figure = drawing.new_figure(3.3, 5.4)
    axes = figure.subplots()
    text = (
        "Cost of making N sizes from the same recipes that are run, each shared recipe counted once. The "
        "chain's own cost is included: it costs less"
    )
    said = []
    for method, style in drawing.styles_of(rows["method"]).items():
        line = rows[rows["method"] == method].sort_values("sizes")
        axes.plot(line["sizes"].astype(float), line["value"] / 10.0**exponent, label=method, **style)
        if method != CHAIN:
            start = stats.break_even(rows, CHAIN, method)
            said.append(f"than {method} " + (f"from N\u00a0=\u00a0{start}" if start else "at no N shown"))
    axes.set(xlabel="number of target sizes", ylabel=f"cumulative cost ($10^{{{exponent}}}$ FLOPs)")
    axes.set_ylim(bottom=0)
    axes.legend()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, f"{text} {', '.join(said)}.", []


FIGURES = {"paper_map": paper_map}

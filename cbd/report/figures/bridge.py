"""E15, Q10: a chain from a source of another architecture, by each bridge."""

import pandas as pd

from cbd.recipes.starts import DOTTED, GREY
from cbd.report import stats
from cbd.report.figures import drawing
from cbd.report.names import SOURCE


@drawing.captioned
def bridge(table: pd.DataFrame) -> drawing.Drawn:
    """Bits per byte along the chain, from the proxy to the interpolated SLM, by each way to the proxy."""
    rows = drawing.pick(table, "bits_per_byte")
    models = rows[rows["stage"] != SOURCE]
    summary = stats.summarise(models, ["method", "source", "stage"])
    stages = {stage: i for i, stage in enumerate(dict.fromkeys(models["stage"]))}  # in the table's order
    styles = drawing.styles_of(summary["method"])
    aside = drawing.shifts(styles, 0.11)
    sources = {source: source for source in sorted(set(summary["source"]))}
    figure, panels = drawing.grid({"": "bits per byte, held-out text"}, sources, "", height=2.1)
    for (_, source), axes in panels.items():
        for method, style in styles.items():
            part = summary[(summary["method"] == method) & (summary["source"] == source)]
            drawing.dots(axes, part["stage"].map(stages) + aside[method], part, style)
        own = drawing.pick(table, "bits_per_byte", stage=SOURCE, source=source)["value"].mean()
        axes.axhline(own, color=GREY, linewidth=1, linestyle=DOTTED, zorder=0)
        axes.annotate(f"source, {own:.2f}", (0, own), (2, 3), textcoords="offset points", fontsize=8)
        axes.set_xticks(range(len(stages)), list(stages))
    drawing.legend(figure, styles, 3, linestyle="none")
    text = (
        "Lower is better. Anchors below a proxy are distilled from it; the SLM is interpolated, not trained."
    )
    return figure, text, [summary]


FIGURES = {"bridge": bridge}

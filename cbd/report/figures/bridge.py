"""E15, Q10: a chain from a source of another architecture, by each bridge."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from cbd.recipes.starts import DOTTED, GREY
from cbd.report import stats
from cbd.report.figures import drawing
from cbd.report.names import SOURCE


@drawing.styled
def bridge(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
    """Bits per byte along the chain, from the source to the interpolated SLM, by each way to the proxy.

    Reads metric "bits_per_byte" by method, source and stage; the
    source's own row is a line across the panel. One panel a source.
    """
    rows = drawing.pick(table, "bits_per_byte")
    own = rows[rows["stage"] == SOURCE]
    models = rows[rows["stage"] != SOURCE]
    summary = stats.summarise(models, ["method", "source", "stage"])
    stages = list(dict.fromkeys(models["stage"]))  # in the order of the table
    sources, styles = sorted(set(summary["source"])), drawing.styles_of(summary["method"])
    figure = drawing.new_figure(3.4, max(drawing.WIDTH, 3.6 * len(sources)))
    panels = figure.subplots(1, len(sources), sharey=True, squeeze=False)[0]
    for axes, source in zip(panels, sources, strict=True):
        for i, (method, style) in enumerate(styles.items()):
            part = summary[(summary["method"] == method) & (summary["source"] == source)]
            part = part.set_index("stage").reindex([s for s in stages if s in set(part["stage"])])
            places = [stages.index(stage) + (i - (len(styles) - 1) / 2) * 0.11 for stage in part.index]
            drawing.dots(axes, places, part.reset_index(), style)
        value = own[own["source"] == source]["value"].mean()
        axes.axhline(value, color=GREY, linewidth=1, linestyle=DOTTED, zorder=0)
        axes.annotate(f"source, {value:.2f}", (0, value), (2, 3), textcoords="offset points", fontsize=8)
        axes.set_xticks(range(len(stages)), stages)
        axes.set_title(source)
    panels[0].set_ylabel("bits per byte, held-out text")
    drawing.legend(figure, styles, 3, line=False)
    text = (
        "Lower is better. Anchors below a proxy are distilled from it; the SLM is interpolated, not trained."
    )
    drawing.caption(figure, text, [summary], scale, date)
    return figure


FIGURES = (bridge,)

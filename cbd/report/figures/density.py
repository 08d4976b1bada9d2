"""Chains of few and of many anchors: the sizes in between before and after recovery."""

import pandas as pd

from cbd.report import stats
from cbd.report.figures import drawing
from cbd.report.findings.convergence import ends


@drawing.captioned
def density(table: pd.DataFrame) -> drawing.Drawn:
    """Loss of every size in between, a marker a chain: untrained above, after recovery below."""
    losses = drawing.pick(table, "loss")
    budget = int(losses["budget"].max())
    panels = {"untrained": losses[losses["tokens"] == 0], f"after {budget:,} tokens": ends(table)}
    figure = drawing.new_figure(4.6)
    styles, summaries, labels = drawing.styles_of(losses["method"]), [], drawing.sizes_of(losses)
    places = {spec: i for i, spec in enumerate(labels)}
    for axes, (title, rows) in zip(figure.subplots(2, 1, sharex=True), panels.items(), strict=True):
        summary = stats.summarise(rows, ["method", "spec"])
        for (method, style), aside in zip(styles.items(), drawing.shifts(styles, 0.18).values(), strict=True):
            part = summary[summary["method"] == method]
            drawing.dots(axes, [places[spec] + aside for spec in part["spec"]], part, style)
        axes.set_title(title)
        axes.set_ylabel(drawing.LOSS)
        drawing.sizes_axis(axes, labels)
        summaries.append(summary)
    drawing.legend(figure, styles, len(styles), linestyle="none")
    text = (
        "Lower is better. Sizes between the anchors, mixed (union) in chains of few and of many anchors over "
        "one span, all with the same total of training tokens."
    )
    return figure, text, summaries


FIGURES = {"density": density}

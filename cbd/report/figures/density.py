"""Chains of few and of many anchors: the sizes in between before and after recovery."""

import pandas as pd

from cbd.report import stats
from cbd.report.figures import drawing
from cbd.report.findings.convergence import ends


def before_and_after(table: pd.DataFrame, text: str) -> drawing.Drawn:
    """Loss of every size, a marker a method: untrained above, after recovery below."""
    losses = drawing.pick(table, "loss")
    panels = {"untrained": losses[losses["tokens"] == 0]}
    panels[f"after {int(losses['budget'].max()):,} tokens"] = ends(table)
    figure, labels = drawing.new_figure(4.6), drawing.sizes_of(losses)
    styles, summaries = drawing.styles_of(losses["method"]), []
    places = {spec: i for i, spec in enumerate(labels)}
    for axes, (title, rows) in zip(figure.subplots(2, 1, sharex=True), panels.items(), strict=True):
        summary = stats.summarise(rows, ["method", "spec"])
        for (method, style), aside in zip(styles.items(), drawing.shifts(styles, 0.14).values(), strict=True):
            part = summary[summary["method"] == method]
            drawing.dots(axes, [places[spec] + aside for spec in part["spec"]], part, style)
        axes.set_title(title)
        axes.set_ylabel(drawing.LOSS)
        drawing.sizes_axis(axes, labels)
        summaries.append(summary)
    drawing.legend(figure, styles, min(len(styles), 5), linestyle="none")
    return figure, f"Lower is better. {text}", summaries


@drawing.captioned
def density(table: pd.DataFrame) -> drawing.Drawn:
    """Sizes in between in chains of few and of many anchors."""
    return before_and_after(
        table,
        "Sizes between the anchors, mixed (union) in chains of few and of many anchors over one span, all with "
        "the same total of training tokens.",
    )


FIGURES = {"density": density}

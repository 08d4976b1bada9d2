"""Slices of principal axes against slices of important channels."""

import pandas as pd

from cbd.recipes.starts import DOTTED, GREY
from cbd.report import stats
from cbd.report.figures import drawing
from cbd.report.names import SOURCE


@drawing.captioned
def basis(table: pd.DataFrame) -> drawing.Drawn:
    """Loss of every anchor, sliced and distilled, and of every start in between; a panel a family."""
    rows = drawing.pick(table, "loss")
    models = rows[rows["method"] != SOURCE]
    summary = stats.summarise(models, ["method", "family", "spec", "stage"])
    places = {key: i for i, key in enumerate(dict.fromkeys(zip(models["spec"], models["stage"], strict=True)))}
    styles, families = drawing.styles_of(summary["method"]), list(dict.fromkeys(models["family"]))
    figure = drawing.new_figure(1.4 + 1.8 * len(families))
    panels = figure.subplots(len(families), 1, sharex=True, squeeze=False)[:, 0]
    for axes, family in zip(panels, families, strict=True):
        for (method, style), aside in zip(styles.items(), drawing.shifts(styles, 0.18).values(), strict=True):
            part = summary[(summary["method"] == method) & (summary["family"] == family)]
            x = [places[key] + aside for key in zip(part["spec"], part["stage"], strict=True)]
            drawing.dots(axes, x, part, style)
        own = rows[(rows["method"] == SOURCE) & (rows["family"] == family)]["value"].mean()
        axes.axhline(own, color=GREY, linewidth=1, linestyle=DOTTED, zorder=0)
        beside = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
        axes.annotate(f"source\n{own:.2f}", (1, own), (3, 0), fontsize=8, **beside)
        axes.set_ylabel(f"{family}\n{drawing.LOSS}")
        drawing.sizes_axis(axes, {key: f"{key[0]}\n{key[1]}" for key in places})
    drawing.legend(figure, styles, 2, linestyle="none")
    text = (
        "Lower is better. What an anchor's slices are taken from: before and after its distillation, and the "
        "sizes in between, mixed (union), grown from the anchor below or cut from the one above."
    )
    return figure, text, [summary]


FIGURES = {"basis": basis}

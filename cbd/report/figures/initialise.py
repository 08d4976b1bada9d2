"""E2, E10, Q3: every start of every size before any training."""

import pandas as pd

from cbd.report import stats
from cbd.report.figures import drawing


@drawing.captioned
def initialise(table: pd.DataFrame) -> drawing.Drawn:
    """Loss of every target size and start at step zero."""
    rows = drawing.pick(table, "loss")
    specs, styles = drawing.sizes_of(rows), drawing.styles_of(rows["method"])
    summary = stats.summarise(rows, ["method", "spec"])
    figure = drawing.new_figure(3.9)
    axes = figure.subplots()
    drawing.coarser_above(axes, summary)
    for method, aside in drawing.shifts(styles, 0.7 / len(styles)).items():
        part = summary[summary["method"] == method]
        places = [list(specs).index(spec) + aside for spec in part["spec"]]
        drawing.dots(axes, places, part, styles[method], markersize=6)
    drawing.sizes_axis(axes, specs)
    axes.set(xlabel=f"target: {drawing.SIZE}", ylabel=drawing.LOSS)
    drawing.legend(figure, styles, 3, linestyle="none")
    text = (
        "Each target lies between two anchors of the chain; sizes rise to the right. No model has been "
        "trained after its initialisation. Above a dotted line the scale is coarser."
    )
    return figure, text, [summary]


FIGURES = {"initialise": initialise}

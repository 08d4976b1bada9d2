"""Losses for a step of the chain over learning rates."""

import pandas as pd

from cbd.report import stats
from cbd.report.figures import drawing


@drawing.captioned
def distillers(table: pd.DataFrame) -> drawing.Drawn:
    """Final loss over the rate, a line a loss, a panel a student."""
    rows = drawing.pick(table, "final_loss")
    rates = list(dict.fromkeys(rows["stage"]))
    summary = stats.summarise(rows, ["source", "spec", "method", "stage"])
    styles = drawing.styles_of(rows["method"])
    students = list(dict.fromkeys(zip(rows["source"], rows["spec"], strict=True)))
    figure = drawing.new_figure(4.4)
    panels = figure.subplots(1, len(students), squeeze=False)[0]
    places, aside = summary["stage"].map(rates.index), drawing.shifts(styles, 0.05)
    for axes, (source, spec) in zip(panels, students, strict=True):
        for method, style in styles.items():
            part = summary[(summary[["source", "spec", "method"]] == [source, spec, method]).all(axis=1)]
            x = places[part.index] + aside[method]
            axes.plot(x.sort_values(), part.loc[x.sort_values().index, "point"], **style | {"marker": ""})
            drawing.dots(axes, x, part, style)
        axes.set_title(f"{spec} from {source}")
        axes.set_xticks(range(len(rates)), rates)
    panels[0].set_ylabel(drawing.LOSS)
    drawing.legend(figure, styles, 2)
    text = "Lower is better. Each student starts from slices of its teacher, has the same batches, and is trained"
    return figure, f"{text} at every rate (in times of the chain's own).", [summary]


FIGURES = {"distillers": distillers}

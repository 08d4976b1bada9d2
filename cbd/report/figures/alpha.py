"""E7: the loss at step zero against alpha."""

import pandas as pd
from matplotlib.figure import Figure

from cbd.recipes.starts import DASHED, DOTTED, GREY, SOLID, STARTS
from cbd.report import stats
from cbd.report.figures import drawing
from cbd.report.findings.shared import rule_alphas

RULE = {"color": GREY, "linewidth": 1, "linestyle": DOTTED}
TEXT = (
    "Step zero; alpha = 1 is the smaller anchor alone, alpha = 0 the larger one. Markers: each curve's "
    "minimum on the grid of its mean (hollow: lossy expansion)."
)


@drawing.captioned
def alpha(table: pd.DataFrame) -> drawing.Drawn:
    """Step-zero loss against alpha, a column for each target and a row for each kind of anchors."""
    rows = drawing.pick(table, "loss")
    kinds = sorted(set(rows["method"]), key=lambda kind: (kind != "inherited", kind))
    names = {kind: f"{kind} anchors\n{drawing.LOSS}" for kind in kinds}
    figure, summary = over_alpha(rows, table, {"method": names, "spec": drawing.sizes_of(rows)})
    return figure, TEXT, [summary]


def over_alpha(
    rows: pd.DataFrame, table: pd.DataFrame, places: dict[str, dict[str, str]], sharey: bool | str = "row"
) -> tuple[Figure, pd.DataFrame]:
    """The rows' curves over alpha, each one's minimum marked, and the alpha of the table's rule.

    places: the columns that set a panel's row and column, each with its values' names. sharey: as in `grid`.
    """
    summary = stats.summarise(rows, ["family", "method", "spec", "mixing", "operator", "alpha"])
    summary = summary.sort_values(["mixing", "operator", "alpha"], ascending=[True, False, True])
    rule = rule_alphas(table, "family", "spec")
    (down, names), (across, titles) = places.items()
    figure, panels = drawing.grid(names, titles, "alpha", sharey=sharey)
    looks = {}
    for (row, column), axes in panels.items():
        part = summary[(summary[down] == row) & (summary[across] == column)]
        for (mixing, operator), line in part.groupby(["mixing", "operator"], sort=False):
            start, lossy = STARTS[mixing], operator == "lossy"
            style = {"color": start.color, "marker": start.marker, "linestyle": DASHED if lossy else SOLID}
            look = looks[f"{mixing}, {operator}"] = drawing.filled(style, not lossy)
            best = stats.best_alpha(list(line["alpha"]), list(line["point"]))
            drawing.curve(axes, line, "alpha", look | {"marker": ""})
            axes.plot([best.alpha], [best.loss], clip_on=False, zorder=5, **look)
        for key in rule.keys() & set(zip(part["family"], part["spec"], strict=True)):
            axes.axvline(rule[key], **RULE, zorder=0)
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    drawing.legend(figure, looks | {"alpha of the rule": RULE})
    return figure, summary


FIGURES = {"alpha": alpha}

"""E5: recovery training from each start."""

import pandas as pd

from cbd.errors import si
from cbd.recipes.starts import BLUE
from cbd.report import stats
from cbd.report.figures import drawing
from cbd.report.names import CBD


@drawing.captioned
def convergence(table: pd.DataFrame) -> drawing.Drawn:
    """Validation loss against training tokens for each start; columns are sizes, rows budgets."""
    rows = drawing.pick(table, "loss")
    compared = rows.groupby("budget")["method"].nunique()  # a longer run of one start alone is not a row
    budgets = sorted(compared[compared == compared.max()].index)
    rows = rows[rows["budget"].isin(budgets)]
    summary = stats.summarise(rows, ["method", "spec", "budget", "tokens"])
    styles = drawing.styles_of(summary["method"])
    names = {budget: f"budget {si(budget)} tokens\n{drawing.LOSS}" for budget in budgets}
    figure, panels = drawing.grid(names, drawing.sizes_of(rows), "training tokens", height=2.4)
    for (budget, spec), axes in panels.items():
        drawing.coarser_above(axes, summary)
        part = summary[(summary["spec"] == spec) & (summary["budget"] == budget)]
        for method, style in styles.items():
            drawing.curve(axes, part[part["method"] == method], "tokens", style)
        for start in part.loc[(part["method"] == CBD) & (part["tokens"] == 0), "point"]:
            axes.axhline(start, color=BLUE, linewidth=0.8, zorder=0)
    drawing.tokens_axis(axes, summary["tokens"])
    drawing.legend(figure, styles, 4 if len(styles) <= 4 else 3)
    text = (
        "Validation loss; every start sees the same batches, each at its own tuned learning rate. Thin line: "
        "the loss of CBD at step zero. Above a dotted line the scale is coarser."
    )
    return figure, text, [summary]


FIGURES = {"convergence": convergence}

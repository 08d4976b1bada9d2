"""E5: recovery training from each start, and what it saves in tokens."""

import pandas as pd

from cbd.errors import si
from cbd.recipes.starts import BLUE
from cbd.report import stats
from cbd.report.figures import drawing
from cbd.report.names import CBD

SPEEDUPS = {
    "speedup_to_random_final": "to random's final loss",
    "speedup_to_cbd_final": "to CBD's final loss",
}


@drawing.captioned
def convergence(table: pd.DataFrame) -> drawing.Drawn:
    """Validation loss against training tokens for each start; columns are sizes, rows budgets.

    Reads metric "loss" by method, spec, budget and tokens.
    """
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
    drawing.legend(figure, styles)
    text = (
        "Validation loss; every start sees the same batches, each at its own tuned learning rate. Thin line: "
        "the loss of CBD at step zero. Above a dotted line the scale is coarser."
    )
    return figure, text, [summary]


@drawing.captioned
def speedup(table: pd.DataFrame) -> drawing.Drawn:
    """How many times fewer tokens than random initialisation, for each size and budget.

    Reads metrics "speedup_to_random_final" and "speedup_to_cbd_final" and, where a start never got there, the
    same with "_lower_bound" (drawn hollow, with an arrow). `cbd.experiments.convergence` defines both.
    """
    found = [drawing.pick(table, metric) for metric in SPEEDUPS]
    rows = pd.concat(stats.with_lower_bounds(table, metric) for metric in SPEEDUPS)
    by = ["metric", "method", "spec", "budget"]
    summary = stats.summarise(rows, by).merge(rows.groupby(by, as_index=False)["bound"].any())
    specs, styles = drawing.sizes_of(pd.concat(found)), drawing.styles_of(rows["method"])
    runs = [(spec, budget) for budget in sorted(set(rows["budget"])) for spec in specs]
    aside = drawing.shifts(styles, 0.22)
    figure = drawing.new_figure(1.5 + 0.33 * len(runs))
    panels = dict(zip(SPEEDUPS, figure.subplots(1, 2, sharex=True, sharey=True), strict=True))
    for axes in panels.values():
        axes.set(xscale="log", xlabel="times fewer tokens than random")
        axes.axvline(1, color="0.6", linewidth=0.8, zorder=0)
        axes.margins(x=0.15)
    for _, row in summary.dropna(subset="point").iterrows():
        axes, style, bound, x = panels[row["metric"]], styles[row["method"]], row["bound"], row["point"]
        y = runs.index((row["spec"], row["budget"])) + aside[row["method"]]
        if bound:
            drawing.arrow(axes, x, y, 28, style["color"])
            row = row.drop(["low", "high"]).reindex(row.index)  # the least, not an estimate
        drawing.dots(axes, [y], row.to_frame().T, drawing.filled(style, not bound), flat=True)
        look = {"ha": "center", "fontsize": 8, "bbox": {"color": "white", "pad": 0.5}}
        axes.annotate(f"{'≥ ' * bound}{x:.3g}x", (x, y), (0, 7), textcoords="offset points", **look)
    ticks = drawing.log_ticks(*axes.get_xlim())
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_yticks(range(len(runs)), [f"{spec}, {si(budget)} tokens" for spec, budget in runs])
    axes.set_ylim(len(runs) - 0.5, -0.5)
    drawing.letter(panels.values(), SPEEDUPS.values())
    drawing.legend(figure, styles, linestyle="none")
    text = (
        "Tokens that random initialisation needs, over those that CBD needs (at least one step), to reach a "
        "loss: without the cost of the chain. Hollow with an arrow: a lower bound, since the loss was not "
        "reached within the longest run."
    )
    return figure, text, [summary]


FIGURES = {"convergence": convergence, "speedup": speedup}

"""E4, E13: CBD and random weights after the same recovery training."""

import numpy as np
import pandas as pd

from cbd.errors import si
from cbd.report import stats
from cbd.report.figures import drawing
from cbd.report.figures.tasks import tasks_of
from cbd.report.findings.shared import chance
from cbd.report.names import RANDOM

RUN = ["method", "spec", "budget", "seed"]


@drawing.captioned
def equal_budget(table: pd.DataFrame) -> drawing.Drawn:
    """CBD and random weights after the same budgets, for each size: the loss, and the mean over the tasks.

    A method has a colour and a marker, which is the fuller the more tokens.
    """
    loss, tasks = drawing.pick(table, "loss"), tasks_of(table, "equal_budget")
    scores = [
        100 * np.mean([drawing.pick(table, task, **run)["value"].mean() for task in tasks])
        for run in loss[RUN].to_dict("records")
    ]
    parts = [stats.summarise(rows, RUN[:3]) for rows in (loss, loss.assign(value=scores))]
    specs, styles, looks = drawing.sizes_of(loss), drawing.styles_of(loss["method"]), {}
    budgets = sorted(set(loss["budget"]))
    fullness = dict(zip(budgets[::-1], np.linspace(1, 0, len(budgets)), strict=True))
    figure = drawing.new_figure(3.6)
    panels = figure.subplots(1, 2)
    runs = [(method, budget) for method in styles for budget in budgets]
    for (method, budget), aside in drawing.shifts(runs, 0.64 / len(runs)).items():
        look = drawing.filled(styles[method], fullness[budget])
        looks[f"{method}, {si(budget)} tokens"] = look | {"linestyle": "none"}
        for spec in specs:
            others = set(loss.loc[loss["spec"] == spec, "method"]) - {RANDOM, method}
            if method == RANDOM or not others:  # below the chain another start stands for CBD
                drawing.pick(loss, "loss", method=method, budget=budget, spec=spec)
        for axes, part in zip(panels, parts, strict=True):
            own = part[(part["method"] == method) & (part["budget"] == budget)]
            drawing.dots(axes, [list(specs).index(spec) + aside for spec in own["spec"]], own, look)
    guess = 100 * float(np.mean([chance(table, task) for task in tasks]))
    if np.isfinite(guess):
        panels[1].axhline(guess, **drawing.CHANCE, zorder=0)
        looks["chance"] = drawing.CHANCE
    drawing.letter(panels, ("held-out text", "mean of the tasks"))
    for axes, label in zip(panels, (drawing.LOSS, "mean score (%)"), strict=True):
        drawing.sizes_axis(axes, specs)
        axes.set(xlabel=drawing.SIZE, ylabel=label)
    drawing.legend(figure, looks, 3)
    text = (
        "Every start trained on the same tokens, each at its own tuned learning rate; sizes rise to the "
        f"right. (b) Mean over {', '.join(f'{task} ({score})' for task, score in tasks.values())}."
    )
    return figure, text, parts


FIGURES = {"equal_budget": equal_budget}

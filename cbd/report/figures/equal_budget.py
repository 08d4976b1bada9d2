"""E4, E13: CBD and random weights after the same recovery training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cbd.errors import si
from cbd.report import stats
from cbd.report.figures import drawing
from cbd.report.figures.tasks import CHANCE, filled, in_percent, missing, score_of, task_of, with_tasks
from cbd.report.findings.shared import chance, main_metrics


@drawing.styled
def equal_budget(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
    """CBD and random weights after the same budgets, for each size: the loss, and the tasks.

    Reads metric "loss" and the main metric of each task with its "<metric> chance", by method, spec, budget
    and seed. A run's score is the mean over the tasks, in percent.
    """
    with_tasks(table, "equal_budget")
    tasks, loss = main_metrics(table), drawing.pick(table, "loss")
    scores = _averaged(table, tasks, loss)
    specs, looks = drawing.sizes_of(loss), _budget_looks(loss)
    figure = drawing.new_figure(3.6)
    panels = figure.subplots(1, 2)
    parts = [stats.summarise(rows, ["method", "spec", "budget"]) for rows in (loss, scores)]
    for axes, part in zip(panels, parts, strict=True):
        _budget_panel(axes, part, specs, looks)
    panels[0].set_ylabel(drawing.LOSS)
    panels[1].set_ylabel("mean score (%)")
    drawing.panel_title(panels[0], "a", "held-out text")
    drawing.panel_title(panels[1], "b", f"mean of {len(tasks)} tasks" if tasks[1:] else task_of(tasks[0]))
    handles = [
        Line2D([], [], linestyle="none", label=f"{method}, {si(budget)} tokens", **look)
        for (method, budget), look in looks.items()
    ]
    guess = 100 * float(np.mean([chance(table, task) for task in tasks]))
    if np.isfinite(guess):
        panels[1].axhline(guess, **CHANCE, zorder=0)
        handles.append(Line2D([], [], label="chance", **CHANCE))
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    text = (
        "Every start trained on the same tokens, each at its own tuned learning rate; sizes rise to the "
        f"right. (b) Mean over {', '.join(f'{task_of(t)} ({score_of(t)})' for t in tasks)}."
    )
    drawing.caption(figure, text, parts, scale, date)
    return figure


def _averaged(table: pd.DataFrame, tasks: Sequence[str], loss: pd.DataFrame) -> pd.DataFrame:
    """One row for each run that has a loss: the mean of its tasks, in percent."""
    run = ["method", "spec", "budget", "seed"]
    wide = in_percent(table, tasks).pivot_table(index=run, columns="metric", values="value")
    wide = wide.reindex(index=pd.MultiIndex.from_frame(loss[run]), columns=list(tasks))
    lacking = wide.isna().to_numpy().nonzero()
    if lacking[0].size:
        of = ", ".join(str(value) for value in wide.index[lacking[0][0]])
        raise missing(f"{wide.columns[lacking[1][0]]} for {of}", "equal_budget")
    return wide.mean(axis=1).rename("value").reset_index()


def _budget_looks(loss: pd.DataFrame) -> dict[tuple[str, int], dict[str, Any]]:
    """Colour and marker by method, filling by budget: the more tokens, the fuller."""
    budgets = sorted(set(loss["budget"]))
    shares = np.linspace(0, 1, len(budgets)) if len(budgets) > 1 else [1.0]
    return {
        (method, budget): {"color": style["color"], "marker": style["marker"], **filled(style, share)}
        for method, style in drawing.styles_of(loss["method"]).items()
        for budget, share in zip(budgets, shares, strict=True)
    }


def _budget_panel(
    axes: Axes, part: pd.DataFrame, specs: dict[str, str], looks: dict[tuple[str, int], dict[str, Any]]
) -> None:
    """A column for each size, and in it a marker for each method and budget side by side."""
    order = list(specs)
    step = 0.64 / max(len(looks) - 1, 1)
    for k, ((method, budget), look) in enumerate(looks.items()):
        own = part[(part["method"] == method) & (part["budget"] == budget)]
        places = [order.index(spec) + (k - (len(looks) - 1) / 2) * step for spec in own["spec"]]
        lacking = [spec for spec in order if spec not in set(own["spec"])]
        if lacking:
            raise missing(f"row of {method!r} of size {lacking[0]} with budget {budget}", "equal_budget")
        drawing.dots(axes, places, own, look, **look)
    drawing.sizes_axis(axes, specs)
    axes.set_xlabel("layers x width, parameters")


FIGURES = (equal_budget,)

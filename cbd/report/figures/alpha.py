"""E7: the loss at step zero against alpha."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from cbd.recipes.starts import DASHED, DOTTED, GREY, STARTS
from cbd.report import stats
from cbd.report.figures.drawing import WIDTH, caption, new_figure, pick, sizes_of, styled
from cbd.report.findings.shared import rule_alphas


@styled
def alpha(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
    """Step-zero loss against alpha, a column for each target and a row for each kind of anchors.

    Reads metric "loss" by method, spec, mixing, operator and alpha, and metric "rule_alpha" (the value is the
    alpha of the parameter-distance rule) by spec.
    """
    summary = stats.summarise(pick(table, "loss"), ["method", "spec", "mixing", "operator", "alpha"])
    rule = rule_alphas(table, "spec")
    specs = sizes_of(table[table["metric"] == "loss"])
    kinds = sorted(set(summary["method"]), key=lambda kind: (kind != "inherited", kind))
    figure = new_figure(1.2 + 2.15 * len(kinds), max(WIDTH, 1.2 + 1.75 * len(specs)))
    panels = figure.subplots(len(kinds), len(specs), sharex=True, sharey="row", squeeze=False)
    looks = alpha_styles(summary)
    for i, kind in enumerate(kinds):
        for j, (spec, label) in enumerate(specs.items()):
            part = summary[(summary["method"] == kind) & (summary["spec"] == spec)]
            alpha_panel(panels[i, j], part, rule.get(spec), looks)
            panels[i, j].set_title(label if i == 0 else "")
        panels[i, 0].set_ylabel(f"{kind} anchors\nloss (nats per token)")
    for axes in panels[-1]:
        axes.set_xlabel("alpha")
    alpha_legend(figure, looks, columns=3)
    text = (
        "Loss at step zero; alpha = 1 is the smaller anchor alone, alpha = 0 the larger one. Markers: each "
        "curve's minimum on the grid of its mean (hollow: lossy expansion)."
    )
    caption(figure, text, [summary], scale, date)
    return figure


def alpha_styles(summary: pd.DataFrame) -> dict[tuple[str, str], dict[str, Any]]:
    """Colour and marker by mixing, line style and filling by operator."""
    pairs = set(zip(summary["mixing"], summary["operator"], strict=True))
    looks = {}
    for mixing, operator in sorted(pairs, key=lambda pair: (pair[0], pair[1] == "lossy")):
        start, lossy = STARTS[mixing], operator == "lossy"
        looks[mixing, operator] = {
            "color": start.color,
            "marker": start.marker,
            "linestyle": DASHED if lossy else "-",
            "markerfacecolor": "white" if lossy else start.color,
            "markeredgecolor": start.color,
            "markeredgewidth": 1.2,
            "markersize": 6,
        }
    return looks


def alpha_legend(figure: Figure, looks: dict[tuple[str, str], dict[str, Any]], columns: int) -> None:
    """The readings above the figure, and the line of the rule."""
    handles = [Line2D([], [], label=f"{mixing}, {operator}", **look) for (mixing, operator), look in looks.items()]
    handles.append(Line2D([], [], color=GREY, linewidth=1, linestyle=DOTTED, label="alpha of the rule"))
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), columns))


def alpha_panel(
    axes: Axes, part: pd.DataFrame, rule: float | None, looks: dict[tuple[str, str], dict[str, Any]]
) -> None:
    """One target's curves over alpha, each one's minimum marked, and the alpha of the rule."""
    if rule is not None:
        axes.axvline(rule, color=GREY, linewidth=1, linestyle=DOTTED, zorder=0)
    for (mixing, operator), look in looks.items():
        line = part[(part["mixing"] == mixing) & (part["operator"] == operator)].sort_values("alpha")
        if line.empty:
            continue
        axes.plot(line["alpha"], line["point"], color=look["color"], linestyle=look["linestyle"])
        axes.fill_between(
            line["alpha"], line["low"], line["high"], color=look["color"], alpha=0.15, linewidth=0
        )
        best = stats.best_alpha(list(line["alpha"]), list(line["point"]))
        axes.plot([best.alpha], [best.loss], clip_on=False, zorder=5, **look)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_xticks([0.25, 0.75], minor=True)
    axes.xaxis.set_minor_formatter(NullFormatter())


FIGURES = (alpha,)

"""E1, E6, Q4: down the chain, and stepwise against direct distillation."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from cbd.errors import si
from cbd.recipes.starts import BLUE, DASHDOT, DASHED, DOTTED, FINE, LONG
from cbd.report import stats
from cbd.report.figures import drawing
from cbd.report.names import DIRECT_COMPUTE, DIRECT_TOKENS, SOURCE, STEPWISE


@drawing.styled
def chain(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
    """The chain's curves, stepwise against direct distillation, and what each step loses.

    Reads metrics "loss" (curves by method, spec and tokens), "final_loss", "lost" (an anchor's loss minus its
    teacher's), "train_loss" and "loss_noise" (nats per token).
    """
    curves = stats.summarise(drawing.pick(table, "loss"), ["method", "spec", "parameters", "tokens"])
    final = stats.summarise(drawing.pick(table, "final_loss"), ["method", "spec", "parameters"])
    smallest = curves.sort_values("parameters")["spec"].iloc[0]
    figure = drawing.new_figure(6.0)
    panels = figure.subplots(2, 2).ravel()
    _chain_models(panels[0], curves)
    styles = drawing.styles_of(set(final["method"]) - {SOURCE})
    place = drawing.tokens_axis(panels[1], curves.loc[curves["spec"] == smallest, "tokens"])
    for method, style in styles.items():
        line = curves[(curves["method"] == method) & (curves["spec"] == smallest)]
        drawing.curve(panels[1], line, place(line["tokens"]), style)
    panels[1].set(xlabel="training tokens", ylabel=drawing.LOSS)
    drawing.panel_title(panels[1], "b", f"{smallest}: stepwise or direct")
    _chain_steps(panels[2], final, drawing.pick(table, "lost"))
    _strips(panels[3], table[table["spec"] == smallest], styles)
    drawing.panel_title(panels[3], "d", f"{smallest}: stability of training")
    panels[1].legend(handles=drawing.handles_of(styles), loc="best")
    text = (
        "Validation loss, but for (d). (a) The source, and each anchor, distilled from the one before it. "
        "(c) Numbers: loss of an anchor minus its teacher's. (d) Training loss of one seed, whose level depends "
        "on the objective; numbers: the standard deviation of the training loss' successive differences."
    )
    drawing.caption(figure, text, [curves, final], scale, date)
    return figure


def _chain_models(axes: Axes, curves: pd.DataFrame) -> None:
    """Validation loss of every model of the chain, from the source (dark) to the smallest anchor (light)."""
    own = curves[curves["method"].isin([SOURCE, STEPWISE])].sort_values("parameters", ascending=False)
    names = list(dict.fromkeys(zip(own["method"], own["spec"], strict=True)))
    shades = sns.color_palette("mako", len(names) + 2).as_hex()[1:-1]
    place = drawing.tokens_axis(axes, own["tokens"])
    lines = ["-", DASHED, DASHDOT, DOTTED, LONG, FINE]
    for i, ((method, spec), color) in enumerate(zip(names, shades, strict=True)):
        line = own[(own["method"] == method) & (own["spec"] == spec)].sort_values("tokens")
        style = {"color": color, "marker": "*osD^v"[i % 6], "linestyle": lines[i % 6]}
        drawing.curve(axes, line, place(line["tokens"]), style, label=spec + " (source)" * (method == SOURCE))
    axes.legend(loc="best", handlelength=2.4)
    axes.set(xlabel="training tokens", ylabel=drawing.LOSS)
    drawing.panel_title(axes, "a", "down the chain")


def _chain_steps(axes: Axes, final: pd.DataFrame, lost: pd.DataFrame) -> None:
    """Final loss against size, and what each step lost."""
    order = {spec: i for i, spec in enumerate(reversed(drawing.sizes_of(final)))}
    own = final[final["method"].isin([SOURCE, STEPWISE])].sort_values("parameters", ascending=False)
    axes.plot([order[s] for s in own["spec"]], own["point"], color=BLUE, linewidth=1, zorder=1)
    for method, style in drawing.styles_of(final["method"]).items():
        rows = final[final["method"] == method]
        shift = {DIRECT_COMPUTE: 0.12, DIRECT_TOKENS: 0.24}.get(method, 0)
        drawing.dots(axes, [order[s] + shift for s in rows["spec"]], rows, style, markersize=6)
    steps = stats.summarise(lost[lost["method"] == STEPWISE], ["spec"]).set_index("spec")["point"]
    for (_, above), (_, model) in pairwise(own.iterrows()):
        middle = (order[model["spec"]] - 0.5, (above["point"] + model["point"]) / 2)
        axes.text(*middle, f"{steps[model['spec']]:+.3f}", color=BLUE, fontsize=8.5, ha="center",
                  va="center", bbox={"color": "white", "pad": 1.5})  # fmt: skip
    labels = drawing.sizes_of(final)
    axes.set_xticks(list(order.values()), [labels[spec] for spec in order])
    axes.margins(x=0.12, y=0.22)
    axes.set(xlabel="layers x width, parameters", ylabel="final " + drawing.LOSS)
    drawing.panel_title(axes, "c", "what each step loses")


def _strips(axes: Axes, table: pd.DataFrame, styles: dict[str, dict[str, Any]]) -> None:
    """A narrow panel for each method's training loss, one above the other on the same scales."""
    curves = drawing.pick(table, "train_loss")
    noise = stats.summarise(drawing.pick(table, "loss_noise"), ["method"]).set_index("method")["point"]
    methods = [method for method in styles if method in set(curves["method"])]
    first = curves[curves["seed"] == curves["seed"].min()]
    low, high = np.percentile(first["value"], [0, 99.5])
    height = 1 / len(methods)
    for i, method in enumerate(methods):
        strip = axes.inset_axes([0, 1 - (i + 1) * height, 1, height * 0.92])
        line = first[first["method"] == method].sort_values("tokens")
        strip.plot(line["tokens"].astype(float), line["value"], color=styles[method]["color"], linewidth=0.9)
        strip.set_xlim(0, float(first["tokens"].max()))
        strip.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))
        strip.yaxis.set_major_locator(MaxNLocator(2))
        strip.xaxis.set_major_locator(MaxNLocator(5))
        strip.xaxis.set_major_formatter(FuncFormatter(lambda x, _: si(x)))
        strip.tick_params(axis="x", labelbottom=i == len(methods) - 1)
        strip.text(0.98, 0.92, f"{method}: {noise[method]:.3f}", transform=strip.transAxes, ha="right", va="top", fontsize=9)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("training tokens", labelpad=18)
    axes.set_ylabel("training loss (nats per token)", labelpad=26)


FIGURES = (chain,)

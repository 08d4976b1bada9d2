"""Figures: tables and intervals -> pictures. No torch, no training, and nothing that pops up by itself.

A function an experiment (`FIGURES`), each from its table alone to a `Figure`; intervals come from
`cbd.report.stats`, and what they share (style, methods' looks, captions, files) from `cbd.report.drawing`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from cbd.errors import CbdError, si
from cbd.recipes.starts import BLUE, DASHDOT, DASHED, DOTTED, FINE, GREEN, GREY, LONG, RED
from cbd.report import results, stats
from cbd.report.drawing import (
    LOSS,
    WIDTH,
    arrow,
    broken_axes,
    caption,
    curve,
    dots,
    file_bytes,
    handles_of,
    legend,
    limits,
    new_figure,
    panel_title,
    pick,
    provenance,
    sizes_of,
    styled,
    styles_of,
    tokens_axis,
    underline,
)
from cbd.report.headline_figures import equal_budget, gap, scratch_vs_cbd
from cbd.report.names import CBD, DIRECT_COMPUTE, DIRECT_TOKENS, RANDOM, SOURCE, STEPWISE

# ----------------------------------------------------------------------------------------------------
# The experiments


@styled
def paper_map(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
    """E16: cumulative cost of N target sizes, for each way to make them.

    Reads metric "cumulative_flops": method, sizes and value (FLOPs).
    """
    rows = pick(table, "cumulative_flops")
    summary = stats.summarise(rows, ["method", "sizes"])
    styles = styles_of(summary["method"])
    figure = new_figure(3.3, 5.4)
    axes = figure.subplots()
    exponent = int(np.floor(np.log10(summary["point"].max())))
    for method, style in styles.items():
        line = summary[summary["method"] == method].sort_values("sizes")
        scaled = line.assign(**{c: line[c] / 10**exponent for c in ("point", "low", "high")})
        curve(axes, scaled, line["sizes"], style)
        axes.annotate(
            method, (line["sizes"].iloc[-1], scaled["point"].iloc[-1]), (8, 0), textcoords="offset points",
            va="center", color=style["color"],
        )  # fmt: skip
    axes.set(xlabel="number of target sizes", ylabel=f"cumulative cost ($10^{{{exponent}}}$ FLOPs)")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    text = "Cost of making N sizes from the same recipes that are run, each shared recipe counted once."
    underline(figure, [text, *_paid_back(summary)], provenance(scale, date))
    return figure


def _paid_back(summary: pd.DataFrame) -> list[str]:
    """For each other method, after how many sizes the chain has paid for itself."""
    chain = "chain (CBD)"
    cost = summary[["method", "sizes", "point"]].rename(columns={"point": "value"})
    others = [method for method in styles_of(cost["method"]) if method != chain]
    if chain not in set(cost["method"]) or not others:
        return []
    found = {other: stats.break_even(cost, chain, other) for other in others}
    starts = {other: f"from N\u00a0=\u00a0{n}" if n else "at no N shown" for other, n in found.items()}
    said = [f"than {other} {start}" for other, start in starts.items()]
    return [f"The chain's own cost is included: it costs less {', '.join(said)}."]


@styled
def chain(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
    """E1, E6b and Q4: the chain's curves, stepwise against direct distillation, and what each step loses.

    Reads metrics "loss" (curves by method, spec and tokens), "final_loss", and where present "lost" (an
    anchor's loss minus its teacher's), "train_loss" and "loss_noise" (nats per token).
    """
    curves = stats.summarise(pick(table, "loss"), ["method", "spec", "parameters", "tokens"])
    final = stats.summarise(pick(table, "final_loss"), ["method", "spec", "parameters"])
    smallest = curves.sort_values("parameters")["spec"].iloc[0]
    noisy = not pick(table, "train_loss", optional=True).empty
    figure = new_figure(6.0 if noisy else 5.6)
    panels = figure.subplots(2, 2).ravel()
    _chain_models(panels[0], curves)
    styles = styles_of(set(final["method"]) - {SOURCE})
    place = tokens_axis(panels[1], curves.loc[curves["spec"] == smallest, "tokens"])
    for method, style in styles.items():
        line = curves[(curves["method"] == method) & (curves["spec"] == smallest)]
        curve(panels[1], line, place(line["tokens"]), style)
    panels[1].set(xlabel="training tokens", ylabel=LOSS)
    panel_title(panels[1], "b", f"{smallest}: stepwise or direct")
    _chain_steps(panels[2], final, pick(table, "lost", optional=True))
    _chain_noise(panels[3], table, smallest, styles)
    panels[1].legend(handles=handles_of(styles), loc="best")
    text = (
        "Validation loss, but for (d). (a) The source, and each anchor, distilled from the one before it. "
        "(c) Numbers: loss of an anchor minus its teacher's. (d) "
    )
    text += (
        "Training loss of one seed, whose level depends on the objective; numbers: the s" if noisy else "S"
    )
    text += "tandard deviation of the training loss' successive differences."
    caption(figure, text, [curves, final], scale, date)
    return figure


def _chain_models(axes: Axes, curves: pd.DataFrame) -> None:
    """Validation loss of every model of the chain, from the source (dark) to the smallest anchor (light)."""
    own = curves[curves["method"].isin([SOURCE, STEPWISE])].sort_values("parameters", ascending=False)
    names = list(dict.fromkeys(zip(own["method"], own["spec"], strict=True)))
    shades = sns.color_palette("mako", len(names) + 2).as_hex()[1:-1]
    place = tokens_axis(axes, own["tokens"])
    lines = ["-", DASHED, DASHDOT, DOTTED, LONG, FINE]
    for i, ((method, spec), color) in enumerate(zip(names, shades, strict=True)):
        line = own[(own["method"] == method) & (own["spec"] == spec)].sort_values("tokens")
        style = {"color": color, "marker": "*osD^v"[i % 6], "linestyle": lines[i % 6]}
        curve(axes, line, place(line["tokens"]), style, label=spec + " (source)" * (method == SOURCE))
    axes.legend(loc="best", handlelength=2.4)
    axes.set(xlabel="training tokens", ylabel=LOSS)
    panel_title(axes, "a", "down the chain")


def _chain_steps(axes: Axes, final: pd.DataFrame, lost: pd.DataFrame) -> None:
    """Final loss against size, and what each step lost."""
    order = {spec: i for i, spec in enumerate(reversed(sizes_of(final)))}
    own = final[final["method"].isin([SOURCE, STEPWISE])].sort_values("parameters", ascending=False)
    axes.plot([order[s] for s in own["spec"]], own["point"], color=BLUE, linewidth=1, zorder=1)
    for method, style in styles_of(final["method"]).items():
        rows = final[final["method"] == method]
        shift = {DIRECT_COMPUTE: 0.12, DIRECT_TOKENS: 0.24}.get(method, 0)
        dots(axes, [order[s] + shift for s in rows["spec"]], rows, style, markersize=6)
    steps = lost[lost["method"] == STEPWISE]
    if len(steps):
        steps = stats.summarise(steps, ["spec"]).set_index("spec")["point"]
        for (_, above), (_, model) in pairwise(own.iterrows()):
            if model["spec"] in steps.index:
                middle = (order[model["spec"]] - 0.5, (above["point"] + model["point"]) / 2)
                axes.text(*middle, f"{steps[model['spec']]:+.3f}", color=BLUE, fontsize=8.5, ha="center",
                          va="center", bbox={"color": "white", "pad": 1.5})  # fmt: skip
    labels = {spec: text.replace(" parameters", "") for spec, text in sizes_of(final).items()}
    axes.set_xticks(list(order.values()), [labels[spec] for spec in order])
    axes.margins(x=0.12, y=0.22)
    axes.set(xlabel="layers x width, parameters", ylabel="final " + LOSS)
    panel_title(axes, "c", "what each step loses")


def _chain_noise(axes: Axes, table: pd.DataFrame, spec: str, styles: dict[str, dict[str, Any]]) -> None:
    """Training curves of the smallest anchor, or without them its noise alone."""
    noise = pick(table, "loss_noise", optional=True)
    noise = stats.summarise(noise[noise["spec"] == spec], ["method"]).set_index("method")
    curves = pick(table, "train_loss", optional=True)
    curves = curves[curves["spec"] == spec]
    panel_title(axes, "d", f"{spec}: stability of training")
    if len(curves):
        _strips(axes, curves, noise["point"], [m for m in styles if m in set(curves["method"])], styles)
        return
    present = [method for method in styles if method in noise.index]
    for i, method in enumerate(present):
        dots(axes, [i], noise.loc[[method]], styles[method], markersize=6)
    axes.set_xticks(range(len(present)), [method.replace(", ", ",\n") for method in present])
    axes.set(ylabel="noise (nats per token)")
    axes.margins(x=0.2, y=0.2)


def _strips(
    axes: Axes, curves: pd.DataFrame, noise: pd.Series, methods: list[str], styles: dict[str, dict[str, Any]]
) -> None:
    """A narrow panel for each method's training loss, one above the other on the same scales."""
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
        text = f"{method}: {noise[method]:.3f}" if method in noise.index else method
        strip.text(0.98, 0.92, text, transform=strip.transAxes, ha="right", va="top", fontsize=9)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("training tokens", labelpad=18)
    axes.set_ylabel("training loss (nats per token)", labelpad=26)


@styled
def initialise(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
    """E2, Q2 and Q3: loss of every target size and initialisation, at step zero and after a short recovery.

    Reads metric "loss": tokens 0, and where present the last token count above 0. Random initialisation has
    an axis of its own above the rest.
    """
    rows = pick(table, "loss")
    last = rows.groupby(["method", "spec"])["tokens"].transform("max")
    moments = [("before any training", rows[rows["tokens"] == 0])]
    if (rows["tokens"] > 0).any():
        after = rows[(rows["tokens"] > 0) & (rows["tokens"] == last)]
        moments.append((f"after {si(after['tokens'].max())} tokens of recovery", after))
    if moments[0][1].empty:
        raise CbdError("the table has no loss at 0 tokens, which this figure draws; run the experiment")
    specs, styles = sizes_of(rows), styles_of(rows["method"])
    figure = new_figure(3.9 if len(moments) == 1 else 4.2, WIDTH if len(moments) == 1 else WIDTH + 1)
    cells = figure.add_gridspec(2, len(moments), height_ratios=(0.32, 1))
    summaries = []
    for column, (title, part) in enumerate(moments):
        summary = stats.summarise(part, ["method", "spec"])
        top = _ladder(figure, (cells, column), summary, specs, styles)
        if len(moments) > 1:
            panel_title(top, "ab"[column], title)
        summaries.append(summary)
    legend(figure, styles, 3, line=False)
    text = "Each target lies between two anchors of the chain; sizes rise to the right."
    if len(moments) == 1:
        text += " No model has been trained after its initialisation."
    caption(figure, text, summaries, scale, date)
    return figure


def _ladder(
    figure: Figure,
    place: tuple[GridSpec, int],
    summary: pd.DataFrame,
    specs: dict[str, str],
    styles: dict[str, dict[str, Any]],
) -> Axes:
    """A column for each size, a marker for each method, random above a break; returns the upper axes."""
    far = summary["method"] == RANDOM
    split = far.any() and not far.all() and _apart(summary[~far], summary[far])
    panels = (
        broken_axes(figure, place[0], 0, place[1]) if split else (figure.add_subplot(place[0][:, place[1]]),)
    )
    order = {spec: i for i, spec in enumerate(specs)}
    near = [method for method in styles if not (split and method == RANDOM)]
    step = 0.7 / max(len(near), 2)
    for method, style in styles.items():
        part = summary[summary["method"] == method]
        alone = split and method == RANDOM
        shift = 0 if alone else (near.index(method) - (len(near) - 1) / 2) * step
        dots(
            panels[0] if alone else panels[-1],
            [order[s] + shift for s in part["spec"]],
            part,
            style,
            markersize=6,
        )
    lower = panels[-1]
    lower.set_xticks(list(order.values()), [text.replace(" parameters", "") for text in specs.values()])
    lower.set_xlim(-0.55, len(order) - 0.45)
    for axes in panels:
        for edge in np.arange(0.5, len(order) - 1):
            axes.axvline(edge, color="0.88", linewidth=0.8, zorder=0)
    lower.set(xlabel="target: layers x width, parameters", ylabel=LOSS)
    if split:
        panels[0].set_ylim(*limits(summary[far], 0.35))
        lower.set_ylim(*limits(summary[~far]))
    return panels[0]


def _apart(low: pd.DataFrame, high: pd.DataFrame) -> bool:
    """Whether `high` lies so far above `low` that one axis would flatten it."""
    bottom, top = limits(low)
    return float(high["point"].min()) - top > 0.5 * (top - bottom)


@styled
def alpha(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
    """E7: step-zero loss against alpha, a column for each target and a row for each kind of anchors.

    Reads metric "loss" by method, spec, mixing, operator and alpha, and metric "rule_alpha" (the value is the
    alpha of the parameter-distance rule) by spec.
    """
    summary = stats.summarise(pick(table, "loss"), ["method", "spec", "mixing", "operator", "alpha"])
    rule = pick(table, "rule_alpha", optional=True).groupby("spec")["value"].mean()
    specs = sizes_of(table[table["metric"] == "loss"])
    kinds = sorted(set(summary["method"]), key=lambda kind: (kind != "inherited", kind))
    figure = new_figure(1.2 + 2.15 * len(kinds), max(WIDTH, 1.2 + 1.75 * len(specs)))
    panels = figure.subplots(len(kinds), len(specs), sharex=True, sharey="row", squeeze=False)
    looks = _alpha_styles(summary)
    for i, kind in enumerate(kinds):
        for j, (spec, label) in enumerate(specs.items()):
            part = summary[(summary["method"] == kind) & (summary["spec"] == spec)]
            _alpha_panel(panels[i, j], part, rule.get(spec), looks)
            if i == 0:
                panels[i, j].set_title(label.replace(" parameters", ""))
        panels[i, 0].set_ylabel(f"{kind} anchors\nloss (nats per token)")
    for axes in panels[-1]:
        axes.set_xlabel("alpha")
    _alpha_legend(figure, looks, with_rule=len(rule) > 0, columns=3)
    text = (
        "Loss at step zero; alpha = 1 is the smaller anchor alone, alpha = 0 the larger one. Markers: each "
        "curve's minimum on the grid of its mean (hollow: lossy expansion)."
    )
    caption(figure, text, [summary], scale, date)
    return figure


def _alpha_styles(summary: pd.DataFrame) -> dict[tuple[str, str], dict[str, Any]]:
    """Colour and marker by mixing, line style and filling by operator."""
    colors = {"literal": (RED, "D"), "union": (BLUE, "o")}
    pairs = sorted(
        set(zip(summary["mixing"], summary["operator"], strict=True)), key=lambda p: (p[0], p[1] == "lossy")
    )
    looks = {}
    for mixing, operator in pairs:
        color, marker = colors.get(mixing, (GREEN, "^"))
        lossy = operator == "lossy"
        looks[mixing, operator] = {
            "color": color,
            "marker": marker,
            "linestyle": DASHED if lossy else "-",
            "markerfacecolor": "white" if lossy else color,
            "markeredgecolor": color,
            "markeredgewidth": 1.2,
            "markersize": 6,
        }
    return looks


def _alpha_legend(
    figure: Figure, looks: dict[tuple[str, str], dict[str, Any]], with_rule: bool, columns: int
) -> None:
    handles = [Line2D([], [], label=f"{m}, {o}" if o else m, **look) for (m, o), look in looks.items()]
    if with_rule:
        handles.append(Line2D([], [], color=GREY, linewidth=1, linestyle=DOTTED, label="alpha of the rule"))
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), columns))


def _alpha_panel(
    axes: Axes, part: pd.DataFrame, rule: float | None, looks: dict[tuple[str, str], dict[str, Any]]
) -> None:
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


@styled
def convergence(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
    """E5: validation loss against training tokens for each start; columns are sizes, rows budgets.

    Reads metric "loss" by method, spec, budget and tokens. The upper
    part of each panel holds what random initialisation passes through, on a coarser scale.
    """
    summary = stats.summarise(pick(table, "loss"), ["method", "spec", "budget", "tokens"])
    specs, styles = sizes_of(pick(table, "loss")), styles_of(summary["method"])
    compared = summary.groupby("budget")["method"].nunique()  # a longer run of one start alone is not a row
    budgets = sorted(compared[compared == compared.max()].index)
    figure = new_figure(1.3 + 2.5 * len(budgets), max(WIDTH, 1 + 2.1 * len(specs)))
    cells = figure.add_gridspec(2 * len(budgets), len(specs), height_ratios=(0.42, 1) * len(budgets))
    for i, budget in enumerate(budgets):
        row = summary[summary["budget"] == budget]
        for j, (spec, label) in enumerate(specs.items()):
            panels = _convergence_panel(figure, (cells, i, j), row, spec, styles)
            if i == 0:
                panels[0].set_title(label.replace(" parameters", ""))
            panels[-1].set_xlabel("training tokens" if i == len(budgets) - 1 else "")
            if j == 0:
                panels[-1].set_ylabel(f"budget {si(budget)} tokens\nloss (nats per token)")
            else:
                for axes in panels:
                    axes.tick_params(axis="y", labelleft=False)
    legend(figure, styles, 4)
    text = (
        "Validation loss; every start sees the same batches, each at its own tuned learning rate. Thin line: "
        "the loss of CBD at step zero. Above the break the scale is coarser."
    )
    caption(figure, text, [summary], scale, date)
    return figure


def _convergence_panel(
    figure: Figure,
    place: tuple[GridSpec, int, int],
    row: pd.DataFrame,
    spec: str,
    styles: dict[str, dict[str, Any]],
) -> tuple[Axes, ...]:
    """One size at one budget, on the scales that the whole row shares."""
    near = row[row["method"] != RANDOM]
    split = 0 < len(near) < len(row) and limits(row)[1] > limits(near)[1] + 0.5 * np.ptp(limits(near))
    cells, i, j = place
    panels = broken_axes(figure, *place) if split else (figure.add_subplot(cells[2 * i : 2 * i + 2, j]),)
    part = row[row["spec"] == spec]
    at = tokens_axis(panels[-1], row["tokens"])  # the axes share their x
    for method, style in styles.items():
        line = part[part["method"] == method].sort_values("tokens")
        for axes in panels if method == RANDOM else panels[-1:]:
            curve(axes, line, at(line["tokens"]), style)
    start = part[(part["method"] == CBD) & (part["tokens"] == 0)]
    if len(start):
        panels[-1].axhline(start["point"].iloc[0], color=BLUE, linewidth=0.8, zorder=0)
    bottom, top = limits(row, 0.06)
    if split:
        edge = limits(near)
        bottom = min(edge[0], float(row["point"].min()) - 0.08 * np.ptp(edge))
        panels[0].set_ylim(edge[1], top)
        panels[1].set_ylim(bottom, edge[1])
    else:
        panels[0].set_ylim(bottom, top)
    return panels


SPEEDUPS = {
    "speedup_to_random_final": "to random's final loss",
    "speedup_to_cbd_final": "to CBD's final loss",
}


@styled
def speedup(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
    """E5: how many times fewer tokens than random initialisation, for each size and budget.

    Reads metrics "speedup_to_random_final" and "speedup_to_cbd_final" and, where a start never got there, the
    same with "_lower_bound" (drawn hollow, with an arrow). `cbd.experiments.convergence` defines both.
    """
    parts = {m: stats.with_lower_bounds(table, m) for m in SPEEDUPS if (table["metric"] == m).any()}
    if not parts:
        raise CbdError(f"the table has no rows of metric {' or '.join(SPEEDUPS)}; run the experiment")
    rows = pd.concat(parts.values())
    runs = rows[["spec", "budget"]].drop_duplicates()
    specs = list(sizes_of(table[table["metric"].isin(parts)]))
    places = sorted(zip(runs["spec"], runs["budget"], strict=True), key=lambda r: (r[1], specs.index(r[0])))
    styles = styles_of(rows["method"])
    figure = new_figure(1.5 + 0.33 * len(places))
    panels = figure.subplots(1, len(parts), sharex=True, sharey=True, squeeze=False)[0]
    summaries = []
    for letter, axes, (metric, part) in zip("ab", panels, parts.items(), strict=False):
        summaries.append(_speedup_panel(axes, part, places, styles))
        panel_title(axes, letter, SPEEDUPS[metric])
    panels[0].set_yticks(range(len(places)), [f"{spec}, {si(b)} tokens" for spec, b in places])
    panels[0].set_ylim(len(places) - 0.5, -0.5)
    if len(styles) > 1:
        legend(figure, styles, 4, line=False)
    text = (
        "Tokens that random initialisation needs, over those that CBD needs (at least one step), to reach "
        "a loss: "
        "without the cost of the chain."
    )
    if any(part["bound"].any() for part in parts.values()):
        text += " Hollow with an arrow: a lower bound, since the loss was not reached within the longest run."
    caption(figure, text, summaries, scale, date)
    return figure


def _speedup_panel(
    axes: Axes, part: pd.DataFrame, places: list[tuple[str, int]], styles: dict[str, dict[str, Any]]
) -> pd.DataFrame:
    summary = stats.summarise(part, ["method", "spec", "budget"])
    bounds = part.groupby(["method", "spec", "budget"])["bound"].any()
    axes.set_xscale("log")
    axes.axvline(1, color="0.6", linewidth=0.8, zorder=0)
    for k, (method, style) in enumerate(styles.items()):
        shift = (k - (len(styles) - 1) / 2) * 0.22
        for _, row in summary[(summary["method"] == method) & np.isfinite(summary["point"])].iterrows():
            y = places.index((row["spec"], row["budget"])) + shift
            bound = bounds[method, row["spec"], row["budget"]]
            look = {"markersize": 6.5, "markeredgewidth": 1.2}
            if bound:
                look |= {"markerfacecolor": "white", "markeredgecolor": style["color"]}
                arrow(axes, row["point"], y, 28, style["color"])
                row = row.where(~row.index.isin(["low", "high"]), np.nan)  # the least, not an estimate
            dots(axes, [y], row.to_frame().T, style, flat=True, **look)
            text = f"{'≥ ' * bool(bound)}{row['point']:.3g}x"
            look = {"ha": "center", "fontsize": 8, "bbox": {"color": "white", "pad": 0.5}}
            axes.annotate(text, (row["point"], y), (0, 7), textcoords="offset points", **look)
    axes.set_xlabel("times fewer tokens than random")
    axes.margins(x=0.15)
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    return summary


@styled
def bridge(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
    """E15: bits per byte along the chain, from the source to the interpolated SLM, by each way to the proxy.

    Reads metric "bits_per_byte" by method, source and stage; the
    source's own row is a line across the panel. One panel a source.
    """
    rows = pick(table, "bits_per_byte")
    own = rows[rows["stage"] == SOURCE]
    models = rows[rows["stage"] != SOURCE]
    summary = stats.summarise(models, ["method", "source", "stage"])
    stages = list(dict.fromkeys(models["stage"]))  # in the order of the table
    sources, styles = sorted(set(summary["source"])), styles_of(summary["method"])
    figure = new_figure(3.4, max(WIDTH, 3.6 * len(sources)))
    panels = figure.subplots(1, len(sources), sharey=True, squeeze=False)[0]
    for axes, source in zip(panels, sources, strict=True):
        for i, (method, style) in enumerate(styles.items()):
            part = summary[(summary["method"] == method) & (summary["source"] == source)]
            part = part.set_index("stage").reindex([s for s in stages if s in set(part["stage"])])
            places = [stages.index(stage) + (i - (len(styles) - 1) / 2) * 0.11 for stage in part.index]
            dots(axes, places, part.reset_index(), style)
        value = own[own["source"] == source]["value"].mean()
        axes.axhline(value, color=GREY, linewidth=1, linestyle=DOTTED, zorder=0)
        axes.annotate(f"source, {value:.2f}", (0, value), (2, 3), textcoords="offset points", fontsize=8)
        axes.set_xticks(range(len(stages)), stages)
        axes.set_title(source)
    panels[0].set_ylabel("bits per byte, held-out text")
    legend(figure, styles, 3, line=False)
    text = (
        "Lower is better. Anchors below a proxy are distilled from it; the SLM is interpolated, not trained."
    )
    caption(figure, text, [summary], scale, date)
    return figure


@styled
def families(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
    """E7 in every family: bits per byte at step zero against alpha; columns are families, rows sizes.

    Reads metric "bits_per_byte" by family, spec, mixing, operator and alpha, and metric "rule_alpha".
    """
    rows = pick(table, "bits_per_byte")
    curves = rows[rows["method"] == "CBD"]
    summary = stats.summarise(curves, ["family", "spec", "mixing", "operator", "alpha"])
    rule = pick(table, "rule_alpha", optional=True).groupby(["family", "spec"])["value"].first()
    kinds, specs = list(dict.fromkeys(curves["family"])), sizes_of(curves)
    looks = _alpha_styles(summary)
    figure = new_figure(1.2 + 1.9 * len(specs), max(WIDTH, 1.8 * len(kinds)))
    panels = figure.subplots(len(specs), len(kinds), sharex=True, squeeze=False)
    for i, spec in enumerate(specs):
        for j, family in enumerate(kinds):
            part = summary[(summary["family"] == family) & (summary["spec"] == spec)]
            _alpha_panel(panels[i, j], part, rule.get((family, spec)), looks)
            panels[i, j].set_title(family if i == 0 else "")
        panels[i, 0].set_ylabel(f"{spec}\nbits per byte")
    for axes in panels[-1]:
        axes.set_xlabel("alpha")
    _alpha_legend(figure, looks, with_rule=len(rule) > 0, columns=4)
    text = (
        "Step zero; alpha = 1 is the smaller anchor alone, alpha = 0 the larger one. Markers: each curve's "
        "minimum (hollow: lossy expansion). Vocabularies differ, so bits per byte."
    )
    caption(figure, text, [summary], scale, date)
    return figure


# ----------------------------------------------------------------------------------------------------
# Files

FIGURES: dict[str, Callable[..., Figure]] = {
    "paper_map": paper_map,
    "chain": chain,
    "initialise": initialise,
    "alpha": alpha,
    "convergence": convergence,
    "speedup": speedup,
    "bridge": bridge,
    "families": families,
    "public_checkpoints": families,
    "scratch_vs_cbd": scratch_vs_cbd,
    "gap": gap,
    "equal_budget": equal_budget,
}
"""Figure name -> function of (table, scale=None, date=None)."""

TABLES = {"speedup": "convergence", "gap": "scratch_vs_cbd"}
"""Figures that read another experiment's table than the one they are called after."""


def draw(scale: str, name: str) -> Figure:
    """A figure from the table and records on disk; the caption's date is that of the newest finished run.

    Raises `CbdError` for an unknown name, or as `results.read_table` does.
    """
    if name not in FIGURES:
        raise CbdError(f"there is no figure {name!r}; choose one of {', '.join(FIGURES)}")
    experiment = TABLES.get(name, name)
    table = results.read_table(scale, experiment)
    dated = results.records_path(scale, experiment).is_file()
    date = results.newest(results.read_records(scale, experiment)) if dated else None
    return FIGURES[name](table, scale=scale, date=date)


def save(figure: Figure, scale: str, name: str) -> list[Path]:
    """Writes figures/<scale>/<name>.png (150 dpi) and .svg, equal bytes for equal figures; returns the
    paths."""
    folder = results.figures_folder(scale)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for kind in ("png", "svg"):
        path = folder / f"{name}.{kind}"
        temporary = folder / f".{name}.{os.getpid()}.{kind}"
        temporary.write_bytes(file_bytes(figure, kind, salt=name))
        os.replace(temporary, path)
        paths.append(path)
    return paths


def draw_all(scale: str) -> list[Path]:
    """Draws and saves every figure whose table exists at this scale; returns the paths written."""
    names = [name for name in FIGURES if results.table_path(scale, TABLES.get(name, name)).is_file()]
    return [path for name in names for path in save(draw(scale, name), scale, name)]

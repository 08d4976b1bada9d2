"""E3, E8: CBD with no training of its own against random weights with ever more of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cbd.errors import CbdError, si
from cbd.report import stats
from cbd.report.crossing import Crossing, crossing
from cbd.report.figures import drawing
from cbd.report.figures.tasks import (
    CHANCE,
    filled,
    in_percent,
    is_generative,
    missing,
    score_of,
    short,
    task_of,
    unit_of,
    with_tasks,
    without_owner,
)
from cbd.report.findings.shared import chance
from cbd.report.names import CHAIN_TOKENS, RANDOM, minus_random

PER_ROW = 4  # panels side by side; more tasks go to further rows


@drawing.styled
def scratch_vs_cbd(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
    """Random weights after each budget against CBD at zero tokens; columns are metrics, rows sizes.

    Reads metric "loss" and the main metric of each task with its "<metric> chance": method "random" by spec
    and tokens, every other method by spec at zero tokens; "chain_tokens" of those. `crossing` says where
    the curve meets a line.
    """
    metrics = with_tasks(table, "scratch_vs_cbd")
    rows = in_percent(table, metrics)
    rows = rows[(rows["method"] == RANDOM) == (rows["tokens"] > 0)]
    specs, styles = drawing.sizes_of(rows), drawing.styles_of(rows["method"])
    panels = _grid(metrics, specs, 1.95 if len(styles) < 4 else 2.3)
    figure = next(iter(panels.values())).figure
    summaries = []
    for (metric, spec), axes in panels.items():
        part = rows[(rows["metric"] == metric) & (rows["spec"] == spec)]
        summaries += _saved_panel(axes, part, (metric, spec), styles)
        if np.isfinite(level := 100 * chance(table, metric)):
            axes.axhline(level, **CHANCE, zorder=0)
    handles = [*drawing.handles_of(short(styles)), Line2D([], [], label="chance", **CHANCE)]
    figure.legend(handles=handles, loc="outside upper center", ncols=4 if len(handles) < 5 else 3)
    text = (
        "Curve: random weights after each token budget, a finished run each. Level lines: CBD with no "
        "training. Rows: sizes (layers x width, parameters). Markers on a line, and the numbers above: the "
        "tokens after which random weights are first as good, with their interval; hollow or with an arrow "
        "where that lies beyond the budgets trained."
    )
    drawing.caption(figure, text + _chain_costs(table, specs, styles), summaries, scale, date)
    return figure


def _chain_costs(table: pd.DataFrame, specs: dict[str, str], styles: dict[str, dict[str, Any]]) -> str:
    """A sentence on what the chains cost: the curve's axis counts scratch's tokens, and none of a chain's."""
    rows = table[table["metric"] == CHAIN_TOKENS]
    worth = rows.groupby(["method", "spec"])["value"].mean()
    costs = "; ".join(
        f"{without_owner(method)} {', '.join(si(worth[method, spec]) for spec in specs)}"
        for method in styles
        if all((method, spec) in worth.index for spec in specs)
    )
    what = "Tokens of random weights (by row) that cost as much as the whole chain"
    return f" {what}: {costs}." if costs else ""


def _grid(metrics: Sequence[str], specs: dict[str, str], width: float) -> dict[tuple[str, str], Axes]:
    """Panels by metric and size, `PER_ROW` metrics side by side; a metric has one y axis for all sizes."""
    columns = min(len(metrics), PER_ROW)
    blocks = -(-len(metrics) // columns)
    figure = drawing.new_figure(1.25 + 2.0 * blocks * len(specs), max(drawing.WIDTH, 0.4 + width * columns))
    cells = figure.add_gridspec(blocks * len(specs), columns)
    panels: dict[tuple[str, str], Axes] = {}
    for k, metric in enumerate(metrics):
        block, column = divmod(k, columns)
        for i, (spec, label) in enumerate(specs.items()):
            first = panels.get((metric, next(iter(specs))))
            axes = figure.add_subplot(cells[block * len(specs) + i, column], sharex=first, sharey=first)
            size = label.replace("\n", ", ") + "\n" if column == 0 else ""
            axes.set_ylabel(size + unit_of(metric))
            axes.set_title(task_of(metric) if i == 0 else "", pad=20)
            axes.set_xlabel("training tokens" if i == len(specs) - 1 else "")
            axes.tick_params(axis="x", labelbottom=i == len(specs) - 1)
            panels[metric, spec] = axes
    return panels


def _saved_panel(
    axes: Axes, part: pd.DataFrame, place: tuple[str, str], styles: dict[str, dict[str, Any]]
) -> list[pd.DataFrame]:
    """One metric and size: the curve, the lines, and where they meet; returns what was summarised."""
    scratch, others = part[part["method"] == RANDOM], part[part["method"] != RANDOM]
    if scratch.empty or others.empty:
        which = f"method {RANDOM!r} after training" if scratch.empty else "CBD at zero tokens"
        raise missing(f"row of {which} with metric {place[0]!r} and size {place[1]}", "scratch_vs_cbd")
    line = stats.summarise(scratch, ["tokens"])
    tokens = line["tokens"].astype(float)
    drawing.budgets_axis(axes, tokens, labels=3.2)
    levels = stats.summarise(others, ["method"])
    met = {}
    for method in (m for m in styles if m in set(levels["method"])):
        row = levels[levels["method"] == method].iloc[0]
        _level(axes, row, styles[method])
        own = others[others["method"] == method]
        found = crossing(scratch, own, lower_is_better=place[0] == "loss")
        met[method] = _Mark.of(found, tokens.min(), tokens.max())
        met[method].draw(axes, row["point"], styles[method])
    drawing.curve(axes, line, tokens, styles[RANDOM], zorder=2.5)
    handles = [mark.handle(styles[method]) for method, mark in met.items()]
    axes.legend(
        handles=handles, loc="lower center", bbox_to_anchor=(0.5, 0.98), ncols=len(handles), fontsize=8.5,
        handlelength=1, handletextpad=0.3, columnspacing=1.2, borderpad=0.2,
    )  # fmt: skip
    return [line, levels]


def _level(axes: Axes, row: pd.Series, style: dict[str, Any]) -> None:
    """A line across the panel with a band for its interval."""
    axes.axhline(row["point"], color=style["color"], linestyle=style["linestyle"], linewidth=1.2, zorder=2)
    if np.isfinite(row["low"]):
        axes.axhspan(row["low"], row["high"], color=style["color"], alpha=0.18, linewidth=0)


@dataclass(frozen=True)
class _Mark:
    """A crossing as it is drawn: tokens, the ends of its bar, what lies beyond the ladder, and its name.

    beyond: -1 when the true crossing lies below the ladder, 1 when above, else 0; `before` and `after`: the
    ends of the interval which do.
    """

    tokens: float
    low: float
    high: float
    beyond: int
    before: bool
    after: bool

    @classmethod
    def of(cls, found: Crossing, first: float, last: float) -> _Mark:
        never = bool(np.isnan(found.tokens))
        tokens = last if never else found.tokens
        low = tokens if np.isnan(found.low) else min(found.low, last)
        high = tokens if np.isnan(found.high) else min(found.high, last)
        beyond = -1 if found.upper_bound else int(never)
        before = found.upper_bound or found.low <= first
        after = never or found.high == np.inf
        # the mean curve can meet the line outside what the resamples do: the bar still starts at its marker
        return cls(tokens, min(low, tokens), max(high, tokens), beyond, bool(before), bool(after))

    @property
    def text(self) -> str:
        return {-1: "≤ ", 0: "", 1: "> "}[self.beyond] + si(self.tokens)

    def draw(self, axes: Axes, level: float, style: dict[str, Any]) -> None:
        summary = pd.DataFrame({"point": [self.tokens], "low": [self.low], "high": [self.high]})
        caps = {"capsize": 4.0 if self.low < self.high else 0.0, "capthick": 1.4}  # the bar lies on the line
        drawing.dots(axes, [level], summary, style, flat=True, zorder=4, **caps, **self._look(style))
        for end, beyond, points in ((self.low, self.before, -13), (self.high, self.after, 13)):
            if beyond:
                drawing.arrow(axes, end, level, points, style["color"])

    def handle(self, style: dict[str, Any]) -> Line2D:
        look = {"color": style["color"], "marker": style["marker"], "linestyle": "none"}
        return Line2D([], [], label=self.text, **look, **self._look(style))

    def _look(self, style: dict[str, Any]) -> dict[str, Any]:
        return filled(style, 0.0 if self.beyond else 1.0)


@drawing.styled
def gap(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
    """CBD at zero tokens minus random weights after each budget; columns are sizes, rows tasks.

    Reads metric "<metric> minus random", with " low" and " high" for its interval over seeds and items, by
    method, spec and tokens (random's), for the generative task (Dolly, where present) and the first that is
    scored by likelihood; the metrics themselves say how many seeds.
    """
    metrics = with_tasks(table, "scratch_vs_cbd")[1:]
    generative = [metric for metric in metrics if is_generative(metric)]
    chosen = [metric for metric in generative if "dolly" in metric][:1] or generative[:1]
    chosen += [metric for metric in metrics if not is_generative(metric)][:1]
    gaps = {metric: _gaps(table, metric) for metric in chosen}
    rows = pd.concat(gaps.values())
    specs, styles = drawing.sizes_of(rows), drawing.styles_of(rows["method"])
    figure = drawing.new_figure(1.3 + 1.9 * len(chosen), max(drawing.WIDTH, 1 + 2.1 * len(specs)))
    panels = figure.subplots(len(chosen), len(specs), sharex=True, sharey="row", squeeze=False)
    for i, (metric, found) in enumerate(gaps.items()):
        for j, (spec, label) in enumerate(specs.items()):
            _gap_panel(panels[i, j], found[found["spec"] == spec], f"{metric}, {spec}", styles)
            panels[i, j].set_title(label.replace("\n", ", ") if i == 0 else "")
        panels[i, 0].set_ylabel(f"{task_of(metric)}, {score_of(metric)}\nminus random (points)")
    drawing.budgets_axis(panels[0, 0], sorted(set(rows["tokens"].astype(float))), labels=4.5)
    for axes in panels[-1]:
        axes.set_xlabel("training tokens")
    drawing.legend(figure, short(styles), 4)
    _gap_caption(figure, table, chosen, scale, date)
    return figure


def _gaps(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Differences in percentage points with their interval: method, spec, parameters, tokens, point, low,
    high."""
    keys = ["method", "spec", "parameters", "tokens"]
    ends = {"point": "", "low": "low", "high": "high"}
    parts = [
        drawing.pick(table, minus_random(metric, end)).set_index(keys)["value"].astype(float).rename(name) * 100
        for name, end in ends.items()
    ]
    for part in parts:
        if part.index.duplicated().any():
            raise CbdError(f"more than one gap of {metric} for {part.index[part.index.duplicated()][0]}")
    return pd.concat(parts, axis=1).reset_index()


def _gap_panel(axes: Axes, part: pd.DataFrame, place: str, styles: dict[str, dict[str, Any]]) -> None:
    """A line a method through points with bars, which stand side by side since most overlap."""
    axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    tokens = part["tokens"].astype(float)
    step = max(tokens.max() / tokens.min(), 2) ** 0.016
    for k, (method, style) in enumerate(styles.items()):
        line = part[part["method"] == method].sort_values("tokens")
        if line.empty:
            raise missing(f"gap of {method} in {place}", "scratch_vs_cbd")
        places = line["tokens"].astype(float) * step ** (k - (len(styles) - 1) / 2)
        axes.plot(places, line["point"], color=style["color"], linestyle=style["linestyle"], linewidth=1.2)
        drawing.dots(axes, places, line, style, markersize=5.5, markeredgecolor="white", markeredgewidth=0.6)


def _gap_caption(
    figure: Figure, table: pd.DataFrame, metrics: Sequence[str], scale: str | None, date: str | None
) -> None:
    seeds = min(drawing.pick(table, metric)["seed"].nunique() for metric in metrics)
    text = (
        "CBD with no training minus random weights after each token budget, in percentage points on the same "
        "items; above zero CBD is better. A line's points share one CBD model a seed: they move together. "
        "Columns: sizes (layers x width, parameters)."
    )
    over = "seeds and items" if seeds > 1 else "items alone"
    count = f"{seeds}\u00a0seeds" if seeds > 1 else "one seed"
    bars = f"Bars: 95\u00a0% bootstrap interval over {over}."
    drawing.underline(figure, [text, bars], [count, *drawing.provenance(scale, date)])


FIGURES = (scratch_vs_cbd, gap)

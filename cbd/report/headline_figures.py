"""Figures of the headline: CBD with no training of its own against random weights with ever more of it.

Three functions, each from a table alone to a figure, registered in `cbd.report.figures`. Scores of tasks
are drawn in percent. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cbd.errors import CbdError, si
from cbd.report import headline, stats
from cbd.report.crossing import Crossing, crossing
from cbd.report.drawing import (
    LOSS,
    WIDTH,
    arrow,
    budgets_axis,
    caption,
    curve,
    dots,
    handles_of,
    legend,
    new_figure,
    panel_title,
    pick,
    provenance,
    sizes_of,
    styled,
    styles_of,
    underline,
)
from cbd.report.names import CHAIN_TOKENS, RANDOM, minus_random

PER_ROW = 4  # panels side by side; more tasks go to further rows
SCORES = {"acc_norm": "acc_norm", "acc": "accuracy", "rougeL": "Rouge-L"}
CHANCE = {"color": "0.55", "linewidth": 1, "linestyle": (0, (1, 2.2))}


# ----------------------------------------------------------------------------------------------------
# Tokens saved


@styled
def scratch_vs_cbd(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
    """E3: random weights after each budget against CBD at zero tokens; columns are metrics, rows sizes.

    Reads metric "loss" and the main metric of each task with its "<metric> chance": method "random" by spec
    and tokens, every other method by spec at zero tokens; "chain_tokens" of those. `crossing` says where
    the curve meets a line.
    """
    metrics = _with_tasks(table, "scratch_vs_cbd")
    rows = _in_percent(table, metrics)
    rows = rows[(rows["method"] == RANDOM) == (rows["tokens"] > 0)]
    specs, styles = sizes_of(rows), styles_of(rows["method"])
    panels = _grid(metrics, specs, 1.95 if len(styles) < 4 else 2.3)
    figure = next(iter(panels.values())).figure
    summaries = []
    for (metric, spec), axes in panels.items():
        part = rows[(rows["metric"] == metric) & (rows["spec"] == spec)]
        summaries += _saved_panel(axes, part, (metric, spec), styles)
        if np.isfinite(level := 100 * headline.chance(table, metric)):
            axes.axhline(level, **CHANCE, zorder=0)
    handles = [*handles_of(_short(styles)), Line2D([], [], label="chance", **CHANCE)]
    figure.legend(handles=handles, loc="outside upper center", ncols=4 if len(handles) < 5 else 3)
    text = (
        "Curve: random weights after each token budget, a finished run each. Level lines: CBD with no "
        "training. Rows: sizes (layers x width, parameters). Markers on a line, and the numbers above: the "
        "tokens after which random weights are first as good, with their interval; hollow or with an arrow "
        "where that lies beyond the budgets trained."
    )
    caption(figure, text + _chain_costs(table, specs, styles), summaries, scale, date)
    return figure


def _chain_costs(table: pd.DataFrame, specs: dict[str, str], styles: dict[str, dict[str, Any]]) -> str:
    """A sentence on what the chains cost: the curve's axis counts scratch's tokens, and none of a chain's."""
    rows = table[table["metric"] == CHAIN_TOKENS]
    worth = rows.groupby(["method", "spec"])["value"].mean()
    costs = "; ".join(
        f"{_without_owner(method)} {', '.join(si(worth[method, spec]) for spec in specs)}"
        for method in styles
        if all((method, spec) in worth.index for spec in specs)
    )
    what = "Tokens of random weights (by row) that cost as much as the whole chain"
    return f" {what}: {costs}." if costs else ""


def _grid(metrics: Sequence[str], specs: dict[str, str], width: float) -> dict[tuple[str, str], Axes]:
    """Panels by metric and size, `PER_ROW` metrics side by side; a metric has one y axis for all sizes."""
    columns = min(len(metrics), PER_ROW)
    blocks = -(-len(metrics) // columns)
    figure = new_figure(1.25 + 2.0 * blocks * len(specs), max(WIDTH, 0.4 + width * columns))
    cells = figure.add_gridspec(blocks * len(specs), columns)
    panels: dict[tuple[str, str], Axes] = {}
    for k, metric in enumerate(metrics):
        block, column = divmod(k, columns)
        for i, (spec, label) in enumerate(specs.items()):
            first = panels.get((metric, next(iter(specs))))
            axes = figure.add_subplot(cells[block * len(specs) + i, column], sharex=first, sharey=first)
            size = f"{_size(label)}\n" if column == 0 else ""
            axes.set_ylabel(size + _unit(metric))
            axes.set_title(_task(metric) if i == 0 else "", pad=20)
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
        raise _missing(f"row of {which} with metric {place[0]!r} and size {place[1]}", "scratch_vs_cbd")
    line = stats.summarise(scratch, ["tokens"])
    tokens = line["tokens"].astype(float)
    budgets_axis(axes, tokens, labels=3.2)
    levels = stats.summarise(others, ["method"])
    met = {}
    for method in (m for m in styles if m in set(levels["method"])):
        row = levels[levels["method"] == method].iloc[0]
        _level(axes, row, styles[method])
        own = others[others["method"] == method]
        found = crossing(scratch, own, lower_is_better=place[0] == "loss")
        met[method] = _Mark.of(found, tokens.min(), tokens.max())
        met[method].draw(axes, row["point"], styles[method])
    curve(axes, line, tokens, styles[RANDOM], zorder=2.5)
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
        dots(axes, [level], summary, style, flat=True, zorder=4, **caps, **self._look(style))
        for end, beyond, points in ((self.low, self.before, -13), (self.high, self.after, 13)):
            if beyond:
                arrow(axes, end, level, points, style["color"])

    def handle(self, style: dict[str, Any]) -> Line2D:
        look = {"color": style["color"], "marker": style["marker"], "linestyle": "none"}
        return Line2D([], [], label=self.text, **look, **self._look(style))

    def _look(self, style: dict[str, Any]) -> dict[str, Any]:
        return _filled(style, 0.0 if self.beyond else 1.0)


# ----------------------------------------------------------------------------------------------------
# The gap


@styled
def gap(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
    """E8: CBD at zero tokens minus random weights after each budget; columns are sizes, rows tasks.

    Reads metric "<metric> minus random", with " low" and " high" for its interval over seeds and items, by
    method, spec and tokens (random's), for the generative task (Dolly, where present) and the first that is
    scored by likelihood; the metrics themselves say how many seeds.
    """
    metrics = _with_tasks(table, "scratch_vs_cbd")[1:]
    generative = [metric for metric in metrics if _is_generative(metric)]
    chosen = [metric for metric in generative if "dolly" in metric][:1] or generative[:1]
    chosen += [metric for metric in metrics if not _is_generative(metric)][:1]
    gaps = {metric: _gaps(table, metric) for metric in chosen}
    rows = pd.concat(gaps.values())
    specs, styles = sizes_of(rows), styles_of(rows["method"])
    figure = new_figure(1.3 + 1.9 * len(chosen), max(WIDTH, 1 + 2.1 * len(specs)))
    panels = figure.subplots(len(chosen), len(specs), sharex=True, sharey="row", squeeze=False)
    for i, (metric, found) in enumerate(gaps.items()):
        for j, (spec, label) in enumerate(specs.items()):
            _gap_panel(panels[i, j], found[found["spec"] == spec], f"{metric}, {spec}", styles)
            panels[i, j].set_title(_size(label) if i == 0 else "")
        panels[i, 0].set_ylabel(f"{_task(metric)}, {SCORES[_score(metric)]}\nminus random (points)")
    budgets_axis(panels[0, 0], sorted(set(rows["tokens"].astype(float))), labels=4.5)
    for axes in panels[-1]:
        axes.set_xlabel("training tokens")
    legend(figure, _short(styles), 4)
    _gap_caption(figure, table, chosen, scale, date)
    return figure


def _gaps(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Differences in percentage points with their interval: method, spec, parameters, tokens, point, low,
    high."""
    keys = ["method", "spec", "parameters", "tokens"]
    ends = {"point": "", "low": "low", "high": "high"}
    parts = [
        pick(table, minus_random(metric, end)).set_index(keys)["value"].astype(float).rename(name) * 100
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
            raise _missing(f"gap of {method} in {place}", "scratch_vs_cbd")
        places = line["tokens"].astype(float) * step ** (k - (len(styles) - 1) / 2)
        axes.plot(places, line["point"], color=style["color"], linestyle=style["linestyle"], linewidth=1.2)
        dots(axes, places, line, style, markersize=5.5, markeredgecolor="white", markeredgewidth=0.6)


def _gap_caption(
    figure: Figure, table: pd.DataFrame, metrics: Sequence[str], scale: str | None, date: str | None
) -> None:
    seeds = min(pick(table, metric)["seed"].nunique() for metric in metrics)
    text = (
        "CBD with no training minus random weights after each token budget, in percentage points on the same "
        "items; above zero CBD is better. A line's points share one CBD model a seed: they move together. "
        "Columns: sizes (layers x width, parameters)."
    )
    over = "seeds and items" if seeds > 1 else "items alone"
    count = f"{seeds}\u00a0seeds" if seeds > 1 else "one seed"
    bars = f"Bars: 95\u00a0% bootstrap interval over {over}."
    underline(figure, [text, bars], [count, *provenance(scale, date)])


# ----------------------------------------------------------------------------------------------------
# Equal budgets


@styled
def equal_budget(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
    """E4 and E13: CBD and random weights after the same budgets, for each size: the loss, and the tasks.

    Reads metric "loss" and the main metric of each task with its "<metric> chance", by method, spec, budget
    and seed. A run's score is the mean over the tasks, in percent.
    """
    _with_tasks(table, "equal_budget")
    tasks, loss = headline.main_metrics(table), pick(table, "loss")
    scores = _averaged(table, tasks, loss)
    specs, looks = sizes_of(loss), _budget_looks(loss)
    figure = new_figure(3.6)
    panels = figure.subplots(1, 2)
    parts = [stats.summarise(rows, ["method", "spec", "budget"]) for rows in (loss, scores)]
    for axes, part in zip(panels, parts, strict=True):
        _budget_panel(axes, part, specs, looks)
    panels[0].set_ylabel(LOSS)
    panels[1].set_ylabel("mean score (%)")
    panel_title(panels[0], "a", "held-out text")
    panel_title(panels[1], "b", f"mean of {len(tasks)} tasks" if tasks[1:] else _task(tasks[0]))
    handles = [
        Line2D([], [], linestyle="none", label=f"{method}, {si(budget)} tokens", **look)
        for (method, budget), look in looks.items()
    ]
    chance = 100 * float(np.mean([headline.chance(table, task) for task in tasks]))
    if np.isfinite(chance):
        panels[1].axhline(chance, **CHANCE, zorder=0)
        handles.append(Line2D([], [], label="chance", **CHANCE))
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    text = (
        "Every start trained on the same tokens, each at its own tuned learning rate; sizes rise to the "
        f"right. (b) Mean over {', '.join(f'{_task(t)} ({SCORES[_score(t)]})' for t in tasks)}."
    )
    caption(figure, text, parts, scale, date)
    return figure


def _averaged(table: pd.DataFrame, tasks: Sequence[str], loss: pd.DataFrame) -> pd.DataFrame:
    """One row for each run that has a loss: the mean of its tasks, in percent."""
    run = ["method", "spec", "budget", "seed"]
    wide = _in_percent(table, tasks).pivot_table(index=run, columns="metric", values="value")
    wide = wide.reindex(index=pd.MultiIndex.from_frame(loss[run]), columns=list(tasks))
    lacking = wide.isna().to_numpy().nonzero()
    if lacking[0].size:
        of = ", ".join(str(value) for value in wide.index[lacking[0][0]])
        raise _missing(f"{wide.columns[lacking[1][0]]} for {of}", "equal_budget")
    return wide.mean(axis=1).rename("value").reset_index()


def _budget_looks(loss: pd.DataFrame) -> dict[tuple[str, int], dict[str, Any]]:
    """Colour and marker by method, filling by budget: the more tokens, the fuller."""
    budgets = sorted(set(loss["budget"]))
    shares = np.linspace(0, 1, len(budgets)) if len(budgets) > 1 else [1.0]
    return {
        (method, budget): {"color": style["color"], "marker": style["marker"], **_filled(style, share)}
        for method, style in styles_of(loss["method"]).items()
        for budget, share in zip(budgets, shares, strict=True)
    }


def _budget_panel(
    axes: Axes, part: pd.DataFrame, specs: dict[str, str], looks: dict[tuple[str, int], dict[str, Any]]
) -> None:
    """A column for each size, and in it a marker for each method and budget side by side."""
    order = {spec: i for i, spec in enumerate(specs)}
    step = 0.64 / max(len(looks) - 1, 1)
    for k, ((method, budget), look) in enumerate(looks.items()):
        own = part[(part["method"] == method) & (part["budget"] == budget)]
        places = [order[spec] + (k - (len(looks) - 1) / 2) * step for spec in own["spec"]]
        lacking = [spec for spec in order if spec not in set(own["spec"])]
        if lacking:
            raise _missing(f"row of {method!r} of size {lacking[0]} with budget {budget}", "equal_budget")
        dots(axes, places, own, look, **look)
    axes.set_xticks(list(order.values()), [label.replace(" parameters", "") for label in specs.values()])
    axes.set_xlim(-0.55, len(order) - 0.45)
    for edge in np.arange(0.5, len(order) - 1):
        axes.axvline(edge, color="0.88", linewidth=0.8, zorder=0)
    axes.set_xlabel("layers x width, parameters")


# ----------------------------------------------------------------------------------------------------
# Metrics


def _with_tasks(table: pd.DataFrame, experiment: str) -> list[str]:
    """The loss, the first task scored by likelihood, the first that generates, then the rest, by metric."""
    pick(table, "loss")
    tasks = headline.main_metrics(table)
    if not tasks:
        raise _missing("score of a task", experiment)
    first = [metric for metric in tasks if not _is_generative(metric)][:1]
    first += [metric for metric in tasks if _is_generative(metric)][:1]
    return ["loss", *first, *(metric for metric in tasks if metric not in first)]


def _missing(what: str, experiment: str) -> CbdError:
    return CbdError(f"the table has no {what}, which this figure draws; run `cbd run {experiment}`")


def _in_percent(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The rows of some metrics, the scores of tasks times 100."""
    rows = table[table["metric"].isin(metrics)]
    return rows.assign(value=rows["value"].astype(float) * np.where(rows["metric"] == "loss", 1, 100))


def _is_generative(metric: str) -> bool:
    return _score(metric) == "rougeL"


def _task(metric: str) -> str:
    """The task of a metric: "cbd_reply" of "cbd_reply/rougeL"."""
    return metric.split("/")[0]


def _score(metric: str) -> str:
    return metric.split("/")[-1]


def _size(label: str) -> str:
    return label.replace("\n", ", ").replace(" parameters", "")


def _short(styles: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same looks under the names of a legend."""
    return {_without_owner(method): style for method, style in styles.items()}


def _without_owner(method: str) -> str:
    """A method's name without the hub's owner of its source."""
    return re.sub(r": [^/]*/", ": ", method)


def _unit(metric: str) -> str:
    return LOSS if metric == "loss" else f"{SCORES[_score(metric)]} (%)"


def _filled(style: dict[str, Any], share: float) -> dict[str, Any]:
    """How a marker is filled: with its colour (1), with white (0), or with a tint between."""
    face = to_hex([1 - share * (1 - part) for part in to_rgb(style["color"])])
    return {
        "markerfacecolor": face,
        "markeredgecolor": style["color"],
        "markeredgewidth": 1.2,
        "markersize": 6,
    }

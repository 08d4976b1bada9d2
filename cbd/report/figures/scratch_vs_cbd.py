"""E3, E8: CBD with no training of its own against random weights with ever more of it."""

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from cbd.errors import si
from cbd.report import stats
from cbd.report.crossing import Crossing, crossing
from cbd.report.figures import drawing
from cbd.report.figures.tasks import tasks_of
from cbd.report.findings.shared import chance
from cbd.report.names import CHAIN_TOKENS, RANDOM, minus_random


@drawing.captioned
def scratch_vs_cbd(table: pd.DataFrame) -> drawing.Drawn:
    """Random weights after each budget against CBD at zero tokens; rows are metrics, columns sizes."""
    drawing.pick(table, "loss")
    tasks = tasks_of(table, "scratch_vs_cbd").items()
    labels = {"loss": drawing.LOSS} | {metric: f"{task}\n{score} (%)" for metric, (task, score) in tasks}
    rows = table[table["metric"].isin(list(labels)) & ((table["method"] == RANDOM) == (table["tokens"] > 0))]
    rows = rows.assign(value=rows["value"].astype(float) * np.where(rows["metric"] == "loss", 1, 100))
    specs, styles = drawing.sizes_of(rows), drawing.styles_of(rows["method"])
    figure, panels = drawing.grid(labels, specs, "training tokens")
    summaries = []
    for (metric, spec), axes in panels.items():
        scratch = drawing.pick(rows, metric, spec=spec, method=RANDOM)
        others = drawing.pick(rows, metric, spec=spec, tokens=0)
        line, levels = stats.summarise(scratch, ["tokens"]), stats.summarise(others, ["method"])
        marks = []
        for method, style in styles.items():
            for _, level in levels[levels["method"] == method].iterrows():
                axes.axhline(level["point"], **style | {"marker": "", "linewidth": 1.2})
                if np.isfinite(level["low"]):
                    axes.axhspan(level["low"], level["high"], color=style["color"], alpha=0.18, linewidth=0)
                own = others[others["method"] == method]
                found = crossing(scratch, own, lower_is_better=metric == "loss")
                marks.append(_mark(axes, found, level["point"], tuple(line["tokens"].iloc[[0, -1]]), style))
        drawing.curve(axes, line, "tokens", styles[RANDOM])
        tight = {"handlelength": 1, "handletextpad": 0.3, "columnspacing": 1.2, "borderpad": 0.2}
        above = {"loc": "lower center", "bbox_to_anchor": (0.5, 0.97), "ncols": len(marks), "fontsize": 8.5}
        axes.legend(*zip(*marks, strict=True), **above, **tight)
        if np.isfinite(level := 100 * chance(table, metric)):
            axes.axhline(level, **drawing.CHANCE, zorder=0)
        axes.set_title(axes.get_title(), pad=20)
        summaries += [line, levels]
    drawing.tokens_axis(axes, rows.loc[rows["method"] == RANDOM, "tokens"])
    drawing.legend(figure, styles | {"chance": drawing.CHANCE})
    text = (
        "Curve: random weights after each token budget, a finished run each. Level lines: CBD with no "
        "training. Columns: sizes (layers x width, parameters). Markers on a line, and the numbers above: "
        "the tokens after which random weights are first as good, with their interval; hollow or with an arrow "
        "where that lies beyond the budgets trained."
    )
    return figure, text + _chain_costs(table, specs, styles), summaries


def _mark(
    axes: Axes, found: Crossing, level: float, ladder: tuple[float, float], style: drawing.Look
) -> tuple[Artist, str]:
    """Marks where the curve meets a line, with its interval; returns the marker and its name for a legend.

    ladder: the first and the last budget. An arrow says that the crossing, or an end of the interval, lies
    beyond; the marker is hollow where the crossing does.
    """
    first, last = ladder
    never = bool(np.isnan(found.tokens))
    tokens = last if never else found.tokens
    # the mean curve can meet the line outside what the resamples do: the bar still starts at its marker
    low, high = np.fmin(found.low, tokens), min(np.fmax(found.high, tokens), last)
    caps = {"capsize": 4.0 if low < high else 0.0, "capthick": 1.4}  # the bar lies on the line
    look = drawing.filled(style, not (never or found.upper_bound))
    summary = pd.DataFrame({"point": [tokens], "low": [low], "high": [high]})
    marker = drawing.dots(axes, [level], summary, look, flat=True, zorder=4, **caps)[0]
    if found.upper_bound or found.low <= first:
        drawing.arrow(axes, low, level, -13, style["color"])
    if never or found.high == np.inf:
        drawing.arrow(axes, high, level, 13, style["color"])
    return marker, ("≤ " if found.upper_bound else "> " * never) + si(tokens)


def _chain_costs(table: pd.DataFrame, specs: dict[str, str], styles: dict[str, drawing.Look]) -> str:
    """A sentence on what the chains cost: the curve's axis counts scratch's tokens, and none of a chain's."""
    rows = table[table["metric"] == CHAIN_TOKENS]
    worth = rows.groupby(["method", "spec"])["value"].mean().unstack().reindex(columns=list(specs)).dropna()
    costs = [f"{drawing.short(m)} {', '.join(map(si, worth.loc[m]))}" for m in styles if m in worth.index]
    what = "Tokens of random weights (by column) that cost as much as the whole chain"
    return f" {what}: {'; '.join(costs)}." if costs else ""


@drawing.captioned
def gap(table: pd.DataFrame) -> drawing.Drawn:
    """CBD at zero tokens minus random weights after each budget; columns are sizes, rows tasks."""
    tasks = tasks_of(table, "scratch_vs_cbd")
    rows = drawing.pick(table, minus_random(next(iter(tasks))))
    styles, tokens = drawing.styles_of(rows["method"]), rows["tokens"].astype(float)
    labels = {metric: f"{task}\ngap in {score} (points)" for metric, (task, score) in tasks.items()}
    figure, panels = drawing.grid(labels, drawing.sizes_of(rows), "training tokens")
    step = max(tokens.max() / tokens.min(), 2) ** 0.016
    for (metric, spec), axes in panels.items():
        axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
        for method, aside in drawing.shifts(styles, 1).items():  # side by side, since most bars overlap
            style = styles[method] | {"linewidth": 1.2, "markersize": 5.5, "markeredgecolor": "white"}
            found = _gaps(table, metric, method=method, spec=spec)
            drawing.dots(axes, found.index * step**aside, found, style, linestyle=style["linestyle"])
    drawing.tokens_axis(axes, tokens)
    drawing.legend(figure, styles)
    seeds = min(drawing.pick(table, metric)["seed"].nunique() for metric in tasks)
    over = f"{seeds}\u00a0seeds and the items" if seeds > 1 else "the items alone, of one seed"
    text = (
        "CBD with no training minus random weights after each token budget, in percentage points on the same "
        "items; above zero CBD is better. A line's points share one CBD model a seed: they move together. "
        f"Columns: sizes (layers x width, parameters). Bars: 95\u00a0% bootstrap interval over {over}."
    )
    return figure, text, []


def _gaps(table: pd.DataFrame, metric: str, **cells: str) -> pd.DataFrame:
    """Differences in percentage points with their interval by tokens: point, low and high."""
    ends = {"point": "", "low": "low", "high": "high"}
    rows = {name: drawing.pick(table, minus_random(metric, end), **cells) for name, end in ends.items()}
    values = {name: 100 * part.set_index("tokens")["value"].astype(float) for name, part in rows.items()}
    return pd.DataFrame(values).sort_index()


FIGURES = {"scratch_vs_cbd": scratch_vs_cbd, "gap": gap}

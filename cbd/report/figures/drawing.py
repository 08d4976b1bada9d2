"""What the figures share: style, how each method looks, small multiples, axes, captions and files. No torch.

A method keeps its colour, marker and line style in every figure; no two in one figure share all three, so
grey prints can be read too.
"""

import io
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cbd.errors import require, si
from cbd.recipes.starts import DASHED, DOTTED, FINE, GREY, LONG
from cbd.report.findings.shared import sizes
from cbd.report.names import LOOKS, RANDOM
from cbd.report.stats import MANY

WIDTH = 7.0  # inches: the text width of a page
STYLE = {
    **sns.axes_style("ticks"),
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so that machines agree
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.handlelength": 2.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "lines.markeredgewidth": 0.6,
}
SPARE = [("#fbafe4", ">", LONG), ("#949494", "h", DASHED), ("#ece133", "p", FINE)]
CHANCE = {"color": "0.55", "linewidth": 1, "linestyle": (0, (1, 2.2))}
Look = dict[str, Any]  # colour, marker, line: keywords of matplotlib
Drawn = tuple[Figure, str, Sequence[pd.DataFrame]]  # a figure, what it shows in words, the summaries drawn
LOSS = "loss (nats per token)"
SIZE = "layers x width, parameters"


class Picture(Figure):
    """A figure that a notebook shows by itself, and that has the project's style wherever it is drawn."""

    def draw(self, renderer: Any) -> None:
        with matplotlib.rc_context(STYLE):  # ticks are made only now, and read their style now
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        return file_bytes(self, "png")


def captioned(draw: Callable[[pd.DataFrame], Drawn]) -> Callable[..., Figure]:
    """Makes a figure's function of a table one of (table, scale=None, date=None), in the project's style.

    The caption says in words what is shown, then the interval and the seeds (from the `n` of the summaries,
    if there are any), the scale and the date of the results.
    """

    @wraps(draw)
    def figure_of(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
        with matplotlib.rc_context(STYLE):
            figure, text, summaries = draw(table)
            seeds = {int(n) for summary in summaries for n in summary["n"]}
            facts = [f"scale {scale}"] * bool(scale) + [f"results of {date}"] * bool(date)
            if seeds == {1}:
                facts.insert(0, "one seed (so no interval)")
            elif seeds:
                how = "bootstrap" if min(seeds) >= MANY else "Student's t"
                text += f" Bands and bars: 95\u00a0% interval of the mean over seeds ({how})."
                facts.insert(0, " to ".join(str(n) for n in sorted({min(seeds), max(seeds)})) + "\u00a0seeds")
            closing = ", ".join(facts)
            text += f" {closing[0].upper()}{closing[1:]}." if closing else ""
            lines = textwrap.fill(text, int(figure.get_figwidth() * 16.6))
            figure.supxlabel(lines, x=0.01, ha="left", fontsize=8, color="#333333")
        return figure

    return figure_of


def new_figure(height: float, width: float = WIDTH) -> Picture:
    """An empty figure, inches, that leaves room for titles, legend and caption."""
    figure = Picture(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.03, wspace=0.02, hspace=0.02)
    return figure


def grid(
    rows: Mapping[Any, str], columns: Mapping[Any, str], xlabel: str, height: float = 1.9, sharey: Any = "row"
) -> tuple[Picture, dict[tuple[Any, Any], Axes]]:
    """Small multiples, `height` inches a row: a figure, and (row, column) -> its panel.

    rows, columns: key -> name; rows are named on the y axis, columns in titles.
    """
    figure = new_figure(1.3 + height * len(rows), max(WIDTH, 0.7 + 1.7 * len(columns)))
    panels = figure.subplots(len(rows), len(columns), sharex=True, sharey=sharey, squeeze=False)
    for line, name in zip(panels, rows.values(), strict=True):
        line[0].set_ylabel(name)
    for line, name in zip(panels.T, columns.values(), strict=True):
        line[0].set_title(name)
        line[-1].set_xlabel(xlabel)
    return figure, {(r, c): panels[i, j] for i, r in enumerate(rows) for j, c in enumerate(columns)}


def styles_of(methods: Iterable[str]) -> dict[str, Look]:
    """Colour, marker and line style for each method, in legend order; unknown ones get the spare styles."""
    present = set(methods)
    unknown = sorted(present - set(LOOKS))
    some = f"{len(unknown)} methods have no style of their own"
    require(len(unknown) <= len(SPARE), f"{some}; name them in cbd.report.names")
    chosen = {m: LOOKS[m] for m in LOOKS if m in present} | dict(zip(unknown, SPARE, strict=False))
    return {m: dict(zip(("color", "marker", "linestyle"), look, strict=True)) for m, look in chosen.items()}


def filled(style: Look, share: float) -> Look:
    """The style with large markers, filled with its colour (share 1), white (0), or a tint between."""
    face = to_hex([1 - share * (1 - part) for part in to_rgb(style["color"])])
    edge = {"markeredgecolor": style["color"], "markeredgewidth": 1.2}
    return style | edge | {"markerfacecolor": face, "markersize": 6}


def pick(table: pd.DataFrame, metric: str, **cells: Any) -> pd.DataFrame:
    """The rows of a metric with these cells; raises `CbdError` when there are none."""
    cells = {"metric": metric} | cells
    rows = table[np.logical_and.reduce([table[column] == value for column, value in cells.items()])]
    lacking = ", ".join(f"{column} '{value}'" for column, value in cells.items())
    remedy = f"make it with `cbd run {next(iter(table['experiment']), '<experiment>')}`"
    require(len(rows), f"the table has no row with {lacking}, which this figure draws; {remedy}")
    return rows


def sizes_of(table: pd.DataFrame) -> dict[str, str]:
    """spec -> its label with parameters, from small to large."""
    return {spec: f"{spec}\n{si(count)}" for spec, count in sizes(table).items()}


def sizes_axis(axes: Axes, specs: dict[str, str]) -> None:
    """An axis with a column for each size, thin lines between them."""
    axes.set_xticks(range(len(specs)), list(specs.values()))
    axes.set_xlim(-0.55, len(specs) - 0.45)
    for edge in np.arange(0.5, len(specs) - 1):
        axes.axvline(edge, color="0.88", linewidth=0.8, zorder=0)


def shifts(names: Iterable[Any], step: float) -> dict[Any, float]:
    """name -> how far aside it stands, so that markers at one place are `step` apart."""
    names = list(names)
    return {name: step * (i - (len(names) - 1) / 2) for i, name in enumerate(names)}


def letter(panels: Iterable[Axes], titles: Iterable[str]) -> None:
    """Names panels: a letter, and what each shows."""
    for letter, axes, title in zip("abcd", panels, titles, strict=False):
        axes.set_title(f"({letter}) {title}", loc="left")


def curve(axes: Axes, summary: pd.DataFrame, x: str, style: Look, **more: Any) -> None:
    """A line over column `x` through the points, with a band for the interval."""
    summary = summary.sort_values(x)
    edge = {} if style["marker"] in "X*" else {"markeredgecolor": "white"}
    places = summary[x].astype(float)
    axes.plot(places, summary["point"], **style, **edge, **more)
    axes.fill_between(places, summary["low"], summary["high"], color=style["color"], alpha=0.18, linewidth=0)


def dots(
    axes: Axes, x: Sequence[float], summary: pd.DataFrame, style: Look, flat: bool = False, **more: Any
) -> ErrorbarContainer:
    """Markers with an error bar for the interval, upright unless `flat`."""
    ends = np.array([summary["point"] - summary["low"], summary["high"] - summary["point"]], dtype=float)
    bars = np.nan_to_num(ends).clip(min=0)  # one seed has no interval: the marker stands alone
    look = style | {"linestyle": "none", "elinewidth": 1.2} | more
    if flat:
        return axes.errorbar(summary["point"], x, xerr=bars, **look)
    return axes.errorbar(x, summary["point"], yerr=bars, **look)


def short(method: str) -> str:
    """A method's name without the hub's owner of its source."""
    return re.sub(r": [^/]*/", ": ", method)


def legend(figure: Figure, looks: Mapping[str, Look], columns: int = 4, **more: Any) -> None:
    """What each look means, above the figure."""
    handles = [Line2D([], [], label=short(name), **look | more) for name, look in looks.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=columns)


def tokens_axis(axes: Axes, tokens: pd.Series) -> None:
    """A logarithmic axis of training tokens, with room for an arrow at either end.

    Step zero, where there is one, stands at the left edge: up to the next token count the scale is linear.
    """
    positive = tokens[tokens > 0].astype(float)
    first, last = positive.min(), positive.max()
    room = max(last / first, 2) ** 0.14
    powers = 10.0 ** np.arange(np.floor(np.log10(first)), np.ceil(np.log10(last)) + 1)
    steps = (1,) if last / first > 100 else (1, 2, 5)  # two and five times them on a short axis
    ticks = [s * power for power in powers for s in steps if first <= s * power <= last * 1.01] or [first]
    if (tokens == 0).any():
        axes.set_xscale("symlog", linthresh=first, linscale=0.4)
        axes.set_xlim(-0.15 * first, last * 1.15)
        ticks = [0, *ticks]
    else:
        axes.set_xscale("log")
        axes.set_xlim(first / room, last * room)
    axes.set_xticks(ticks, [si(tick) for tick in ticks])
    axes.set_xticks([], minor=True)


def coarser_above(axes: Axes, summary: pd.DataFrame) -> None:
    """Draws what random weights alone reach on a coarser scale, above a dotted line, where it is far off."""
    ends = summary[["point", "low", "high"]].astype(float)
    near = ends[summary["method"] != RANDOM]
    low, top = near.min().min(), ends.max().max()
    edge = near.max().max() + 0.08 * (near.max().max() - low)
    if not top - edge > 0.5 * (edge - low):  # nor when either is missing, and so nan
        return
    share = 0.4 * (edge - low) / (top - edge)
    scales = (
        lambda y: np.where(y > edge, edge + (y - edge) * share, y),
        lambda y: np.where(y > edge, edge + (y - edge) / share, y),
    )
    axes.set_yscale("function", functions=scales)
    below, above = MaxNLocator(5).tick_values(low, edge), MaxNLocator(2).tick_values(edge, top)
    below = below[below <= edge]
    apart = 0.08 * (edge - low)  # nearer than that to the edge, labels on its sides touch
    first = edge + max(apart - (edge - below[-1]), 0) / share
    axes.set_yticks([*below, *above[(above > first) & (above <= top)]])
    axes.axhline(edge, color=GREY, linewidth=0.8, linestyle=DOTTED, zorder=0)


def arrow(axes: Axes, x: float, y: float, points: float, color: str) -> None:
    """A level arrow from a marker, `points` long, to the left where negative: the value lies beyond."""
    look = {"arrowstyle": "<-", "color": color, "shrinkA": 0, "shrinkB": 4}
    axes.annotate("", (x, y), (points, 0), textcoords="offset points", arrowprops=look)


def file_bytes(figure: Figure, kind: str, salt: str = "cbd") -> bytes:
    """A figure as a file with nothing of the moment in it: no date, no random ids, no software version."""
    metadata = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}[kind]
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": salt, "svg.fonttype": "path"}):
        figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()

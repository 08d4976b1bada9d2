"""What the figures share: style, how each method looks, panels, captions and files. No torch.

A method keeps its colour, marker and line style in every figure; no two in one figure share all three, so
grey prints can be read too.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from cbd.errors import CbdError, si
from cbd.recipes.starts import DASHDOT, DASHED, FINE, LONG
from cbd.report.findings.shared import sizes
from cbd.report.names import LOOKS

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
    "axes.linewidth": 0.8,
    "xtick.major.size": 3.5,
    "ytick.major.size": 3.5,
    "xtick.minor.size": 2,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "lines.markeredgewidth": 0.6,
}
SPARE = [
    ("#fbafe4", ">", LONG),
    ("#949494", "h", DASHED),
    ("#ece133", "p", FINE),
    ("#000000", "d", DASHDOT),
]
LOSS = "loss (nats per token)"


class Picture(Figure):
    """A figure that a notebook shows by itself, and that has the project's style wherever it is drawn."""

    def draw(self, renderer: Any) -> None:
        with matplotlib.rc_context(STYLE):  # ticks are made only now, and read their style now
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        return file_bytes(self, "png")


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Runs a drawing function under the project's style, leaving the user's settings as they were."""

    @wraps(draw)
    def styled(*args: Any, **kwargs: Any) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled


def new_figure(height: float, width: float = WIDTH) -> Picture:
    """An empty figure, inches, that leaves room for titles, legend and caption."""
    figure = Picture(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.03, wspace=0.02, hspace=0.02)
    return figure


def styles_of(methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and line style for each method, in legend order; unknown ones get the spare styles."""
    present = set(methods)
    unknown = sorted(present - set(LOOKS))
    if len(unknown) > len(SPARE):
        raise CbdError(f"{len(unknown)} methods have no style of their own; name them in cbd.report.names")
    chosen = {m: LOOKS[m] for m in LOOKS if m in present} | dict(zip(unknown, SPARE, strict=False))
    return {
        m: {"color": color, "marker": marker, "linestyle": line}
        for m, (color, marker, line) in chosen.items()
    }


def pick(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of a metric; raises `CbdError` when there are none."""
    rows = table[table["metric"] == metric]
    if rows.empty:
        wrong = f"the table has no rows of metric {metric!r}, which this figure draws"
        raise CbdError(f"{wrong}; run the experiment")
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


def panel_title(axes: Axes, letter: str, title: str = "") -> None:
    """Names a panel: its letter, and what it shows."""
    axes.set_title(f"({letter}) {title}".rstrip(), loc="left")


def curve(axes: Axes, summary: pd.DataFrame, x: Sequence[float], style: dict[str, Any], **more: Any) -> None:
    """A line through the points with a band for the interval."""
    edge = {} if style["marker"] in "X*" else {"markeredgecolor": "white"}
    axes.plot(x, summary["point"], **style, **edge, **more)
    axes.fill_between(x, summary["low"], summary["high"], color=style["color"], alpha=0.18, linewidth=0)


def dots(axes: Axes, x: Sequence[float], summary: pd.DataFrame, style: dict[str, Any], **more: Any) -> None:
    """Markers with an error bar for the interval, upright unless `flat`."""
    flat = more.pop("flat", False)
    ends = np.array([summary["point"] - summary["low"], summary["high"] - summary["point"]], dtype=float)
    bars = np.nan_to_num(ends).clip(min=0)  # one seed has no interval: the marker stands alone
    look = {"color": style["color"], "marker": style["marker"], "linestyle": "none", "elinewidth": 1.2}
    look |= more
    if flat:
        axes.errorbar(summary["point"], x, xerr=bars, **look)
    else:
        axes.errorbar(x, summary["point"], yerr=bars, **look)


def legend(figure: Figure, styles: dict[str, dict[str, Any]], columns: int, line: bool = True) -> None:
    """The methods above the figure; `line`: with their lines, not the markers alone."""
    figure.legend(handles=handles_of(styles, line), loc="outside upper center", ncols=columns)


def handles_of(styles: dict[str, dict[str, Any]], line: bool = True) -> list[Line2D]:
    """What a legend shows of each method, as in `legend`."""
    looks = {name: style if line else style | {"linestyle": "none"} for name, style in styles.items()}
    return [Line2D([], [], label=name, **look) for name, look in looks.items()]


def caption(
    figure: Figure, text: str, summaries: Sequence[pd.DataFrame], scale: str | None, date: str | None
) -> None:
    """The lines under a figure: what it shows, the interval, scale, seeds and the date of the results."""
    counts = pd.concat([summary["n"] for summary in summaries])
    low, high = int(counts.min()), int(counts.max())
    if high == 1:
        underline(figure, [text], ["one seed (so no interval)", *provenance(scale, date)])
        return
    spread = "Bands and bars: 95\u00a0% bootstrap interval of the mean over seeds"
    spread += " (with three seeds, their range)." if high == 3 else "."
    seeds = f"{high}\u00a0seeds" if low == high else f"{low} to {high}\u00a0seeds"
    underline(figure, [text, spread], [seeds, *provenance(scale, date)])


def provenance(scale: str | None, date: str | None) -> list[str]:
    """Scale and date of the results, as far as they are known, for a caption's last sentence."""
    return [f"scale {scale}"] * bool(scale) + [f"results of {date}"] * bool(date)


def underline(figure: Figure, sentences: Sequence[str], facts: Sequence[str]) -> None:
    """Sentences under a figure, wrapped to its width; the facts make one more."""
    closing = ", ".join(facts)
    text = " ".join([*sentences, closing[:1].upper() + closing[1:] + "." if closing else ""]).strip()
    characters = int(figure.get_figwidth() * 16.6)
    figure.supxlabel(textwrap.fill(text, characters), x=0.01, ha="left", fontsize=8, color="#333333")


def tokens_axis(axes: Axes, tokens: pd.Series) -> Callable[[Any], np.ndarray]:
    """A logarithmic axis of tokens with step zero at its left edge; returns tokens -> place on the axis."""
    positive = tokens[tokens > 0].astype(float)
    if positive.empty:
        raise CbdError("a curve needs evaluations after step zero, and the table holds none: run it again")
    first, last = positive.min(), positive.max()
    zero = first / max((last / first) ** 0.18, 1.6)
    axes.set_xscale("log")
    axes.set_xlim(zero / 1.12, last * 1.15)
    decades = np.arange(np.floor(np.log10(first)), np.ceil(np.log10(last)) + 1)
    steps = (1,) if last / first > 30 else (1, 2, 5)
    ticks = [s * 10**d for d in decades for s in steps if first <= s * 10**d <= last * 1.01]
    axes.xaxis.set_major_locator(FixedLocator([zero, *(tick for tick in ticks if tick > zero * 1.3)]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "0" if x <= zero * 1.001 else si(x)))
    axes.xaxis.set_minor_locator(NullLocator())
    gap = np.sqrt(zero * first)  # the two strokes where the logarithmic scale begins
    for place in (gap / 1.06, gap * 1.06):
        axes.plot(
            [place / 1.03, place * 1.03], [-0.018, 0.018], transform=axes.get_xaxis_transform(),
            color="black", linewidth=0.8, clip_on=False,
        )  # fmt: skip
    return lambda values: np.where(np.asarray(values, float) > 0, np.asarray(values, float), zero)


def budgets_axis(axes: Axes, budgets: Sequence[float], labels: float) -> None:
    """A logarithmic axis of tokens with a tick at each budget, and room for an arrow beyond either end.

    The first budget is labelled, and each that is far enough from the last one labelled: about `labels` fit.
    """
    first, last = min(budgets), max(budgets)
    ratio = max(last / first, 2)
    named = [first]
    for budget in sorted(budgets):
        if budget >= named[-1] * ratio ** (1 / labels):
            named.append(budget)
    axes.set_xscale("log")
    axes.set_xlim(first / ratio**0.14, last * ratio**0.15)
    axes.xaxis.set_major_locator(FixedLocator(named))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: si(x)))
    axes.xaxis.set_minor_locator(FixedLocator([budget for budget in budgets if budget not in named]))
    axes.xaxis.set_minor_formatter(NullFormatter())


def arrow(axes: Axes, x: float, y: float, points: float, color: str) -> None:
    """A level arrow from a marker, `points` long, to the left where negative: the value lies beyond."""
    look = {"arrowstyle": "<-", "color": color, "shrinkA": 0, "shrinkB": 4}
    axes.annotate("", (x, y), (points, 0), textcoords="offset points", arrowprops=look)


def broken_axes(figure: Figure, cells: GridSpec, row: int, column: int) -> tuple[Axes, Axes]:
    """Two axes over one x axis, the upper one for values that would flatten the rest: (upper, lower).

    They fill the grid's rows 2 * row and 2 * row + 1; one grid for a whole figure keeps its columns equal.
    """
    lower = figure.add_subplot(cells[2 * row + 1, column])
    upper = figure.add_subplot(cells[2 * row, column], sharex=lower)
    upper.spines["bottom"].set_visible(False)
    upper.tick_params(axis="x", which="both", bottom=False, labelbottom=False)
    stroke = {"marker": [(-1, -0.6), (1, 0.6)], "markersize": 7, "markeredgewidth": 0.8, "color": "black"}
    for axes, y in ((upper, 0), (lower, 1)):
        axes.plot([0], [y], transform=axes.transAxes, linestyle="none", clip_on=False, **stroke)
    upper.yaxis.set_major_locator(MaxNLocator(3))
    return upper, lower


def limits(summary: pd.DataFrame, pad: float = 0.08) -> tuple[float, float]:
    """The span of points and intervals, with some air."""
    ends = summary[["point", "low", "high"]].astype(float)
    low, high = float(ends.min().min()), float(ends.max().max())
    air = max(high - low, 1e-3) * pad
    return low - air, high + air


def file_bytes(figure: Figure, kind: str, salt: str = "cbd") -> bytes:
    """A figure as a file with nothing of the moment in it: no date, no random ids, no software version."""
    metadata = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}[kind]
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": salt, "svg.fonttype": "path"}):
        figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    return buffer.getvalue()

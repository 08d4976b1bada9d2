"""E1, E6, Q4: down the chain, and stepwise against direct distillation."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cbd.errors import si
from cbd.recipes.starts import BLUE, SOLID
from cbd.report import stats
from cbd.report.figures import drawing
from cbd.report.names import ALONE, DIRECT_COMPUTE, DIRECT_TOKENS, SOURCE, STEPWISE


@drawing.captioned
def chain(table: pd.DataFrame) -> drawing.Drawn:
    """The chain's curves, stepwise against direct distillation, and what each step loses."""
    curves = stats.summarise(drawing.pick(table, "loss"), ["method", "spec", "parameters", "tokens"])
    final = stats.summarise(drawing.pick(table, "final_loss"), ["method", "spec", "parameters"])
    smallest = curves.sort_values("parameters")["spec"].iloc[0]
    styles = drawing.styles_of(set(final["method"]) - {SOURCE})
    ways = {method: style for method, style in styles.items() if method != ALONE}  # it has another loss
    figure = drawing.new_figure(6.0)
    cells = figure.add_gridspec(2 * len(ways), 2)
    upper, lower = slice(0, len(ways)), slice(len(ways), None)
    models, direct, steps = (figure.add_subplot(cells[c]) for c in ((upper, 0), (upper, 1), (lower, 0)))
    strips = [figure.add_subplot(cells[len(ways) + i, 1]) for i in range(len(ways))]
    own = curves[curves["method"].isin([SOURCE, STEPWISE])]
    names = own.drop_duplicates("spec").sort_values("parameters", ascending=False)
    shades = sns.color_palette("mako", len(names) + 2).as_hex()[1:-1]
    looks = {
        spec: {"color": color, "marker": "*osD^v"[i % 6], "linestyle": SOLID}
        for i, (spec, color) in enumerate(zip(names["spec"], shades, strict=True))
    }
    _curves(models, own, "spec", looks)
    _curves(direct, curves[curves["spec"] == smallest], "method", styles, 0.35)
    _steps(steps, final, drawing.pick(table, "lost", method=STEPWISE))
    _strips(strips, table[table["spec"] == smallest], ways)
    titles = ("down the chain", "stepwise or direct", "what each step loses", "stability of training")
    drawing.letter((models, direct, steps, strips[0]), titles)
    text = (
        "Validation loss, but for (d). (a) The source, and each anchor, distilled from the one before it. "
        f"(b), (d) {smallest}. (c) Numbers: loss of an anchor minus its teacher's. (d) Training loss of one "
        "seed, whose level depends on the objective; numbers: standard deviation of the training loss' "
        "successive differences."
    )
    return figure, text, [curves, final]


def _curves(
    axes: Axes, curves: pd.DataFrame, by: str, looks: dict[str, drawing.Look], room: float = 0.0
) -> None:
    """Validation loss against tokens, a curve a value of column `by`. room: for the legend, above them."""
    drawing.tokens_axis(axes, curves["tokens"])
    for name, look in looks.items():
        line = curves[curves[by] == name]
        label = f"{name} (source)" if set(line["method"]) == {SOURCE} else name
        drawing.curve(axes, line, "tokens", look, label=label)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + room * (high - low))
    axes.legend(loc="upper right")
    axes.set(xlabel="training tokens", ylabel=drawing.LOSS)


def _steps(axes: Axes, final: pd.DataFrame, lost: pd.DataFrame) -> None:
    """Final loss against size, and what each step lost."""
    labels = dict(reversed(drawing.sizes_of(final).items()))
    order = {spec: i for i, spec in enumerate(labels)}
    final = final.assign(place=final["spec"].map(order)).sort_values("place")
    own = final[final["method"].isin([SOURCE, STEPWISE])].set_index("place")["point"]
    axes.plot(own.index, own, color=BLUE, linewidth=1, zorder=1)
    for method, style in drawing.styles_of(final["method"]).items():
        rows = final[final["method"] == method]
        aside = {ALONE: -0.12, DIRECT_COMPUTE: 0.12, DIRECT_TOKENS: 0.24}.get(method, 0)
        drawing.dots(axes, rows["place"] + aside, rows, style, markersize=6)
    for spec, value in lost.groupby("spec")["value"].mean().items():
        place = {"xycoords": axes.get_xaxis_transform(), "ha": "center"}  # below every point
        axes.annotate(f"{value:+.3f}", (order[spec], 0.04), color=BLUE, **place)
    axes.set_xticks(range(len(labels)), list(labels.values()))
    axes.margins(x=0.12, y=0.22)
    axes.set(xlabel=drawing.SIZE, ylabel="final " + drawing.LOSS)


def _strips(panels: Sequence[Axes], table: pd.DataFrame, styles: dict[str, drawing.Look]) -> None:
    """A narrow panel for each method's training loss, one above the other on the same scales."""
    curves = drawing.pick(table, "train_loss")
    first = curves[curves["seed"] == curves["seed"].min()]
    low, high = np.percentile(first["value"], [0, 99.5])
    for axes, (method, style) in zip(panels, styles.items(), strict=True):
        line = first[first["method"] == method].sort_values("tokens")
        noise = drawing.pick(table, "loss_noise", method=method)["value"].mean()
        axes.plot(line["tokens"].astype(float), line["value"], color=style["color"], linewidth=0.9)
        axes.text(0.98, 0.92, f"{method}: {noise:.3f}", transform=axes.transAxes, ha="right", va="top")
        axes.set(xlim=(0, float(first["tokens"].max())), ylim=(0.9 * low, 1.1 * high))
        axes.yaxis.set_major_locator(MaxNLocator(2))
        axes.xaxis.set_major_formatter(lambda x, _: si(x))
        axes.tick_params(axis="x", labelbottom=axes is panels[-1])
    panels[len(panels) // 2].set_ylabel("training " + drawing.LOSS)
    panels[-1].set_xlabel("training tokens")


FIGURES = {"chain": chain}

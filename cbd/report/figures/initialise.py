"""E2, E10, Q3: every start of every size before any training."""

import pandas as pd

from cbd.errors import si
from cbd.report import stats
from cbd.report.figures import drawing
from cbd.report.figures.tasks import SCORES
from cbd.report.findings.shared import chance, main_metrics, sizes
from cbd.report.names import BOOMERANG, BOOMERANG_KL, CBD, CHOSEN, LARGER, LITERAL, PRUNED, SMALLER, loss_on

COLUMNS = 4
# of many panels; the other readings would hide them
DRAWN = (CBD, LITERAL, SMALLER, LARGER, BOOMERANG, BOOMERANG_KL, PRUNED, CHOSEN)


@drawing.captioned
def initialise(table: pd.DataFrame) -> drawing.Drawn:
    """Step zero: loss of every target size and start, or, of more texts and tasks than one, a panel each."""
    texts = [m for m in table["metric"].unique() if m == "loss" or m.startswith(loss_on(""))]
    measured = {metric: _title(metric) for metric in (*texts, *main_metrics(table))}
    return _columns(table) if len(measured) == 1 else _panels(table, measured)


def _title(metric: str) -> str:
    """What a panel shows: a text, or a task with its score."""
    task, _, score = metric.partition("/")
    if score:
        return f"{task.replace('_', ' ')} ({SCORES[score]})"
    return "loss on its own text" if metric == "loss" else metric


def _panels(table: pd.DataFrame, measured: dict[str, str]) -> drawing.Drawn:
    """A panel for each metric: a line a start over the sizes."""
    rows = table[table["metric"].isin(measured) & table["method"].isin(DRAWN)]
    counts = list(sizes(rows).values())
    rows = rows.assign(place=rows["parameters"].map(counts.index))
    styles = drawing.styles_of(rows["method"])
    height = -(-len(measured) // COLUMNS)
    figure = drawing.new_figure(1.3 + 1.9 * height, 10.0)
    panels = list(figure.subplots(height, COLUMNS, sharex=True, squeeze=False).flat)
    summary = stats.summarise(rows, ["metric", "method", "spec", "place"])
    for axes, (metric, title) in zip(panels, measured.items(), strict=False):
        own = summary[summary["metric"] == metric]
        for method in filter(set(own["method"]).__contains__, styles):
            drawing.curve(axes, own[own["method"] == method], "place", styles[method])
        axes.set_title(title, loc="left")
        axes.set_xticks(range(len(counts)), [si(count) for count in counts], fontsize=7)
        guessed = chance(table, metric)
        if guessed == guessed:
            axes.axhline(guessed, **drawing.CHANCE)
    for axes in panels[len(measured) :]:
        axes.set_axis_off()
    figure.supylabel("loss (nats per token), or share of right answers", fontsize=9.5)
    drawing.legend(figure, styles, 4)
    text = (
        "Every size before any training; parameters on the horizontal axis. Losses are of held-out text; the "
        "grey dotted line is what guessing gets on a task. Random weights and the other readings of the formula "
        "are in the table."
    )
    return figure, text, [summary]


def _columns(table: pd.DataFrame) -> drawing.Drawn:
    """Loss of every target size and start at step zero."""
    rows = drawing.pick(table, "loss")
    specs, styles = drawing.sizes_of(rows), drawing.styles_of(rows["method"])
    summary = stats.summarise(rows, ["method", "spec"])
    figure = drawing.new_figure(3.9)
    axes = figure.subplots()
    drawing.coarser_above(axes, summary)
    for method, aside in drawing.shifts(styles, 0.7 / len(styles)).items():
        part = summary[summary["method"] == method]
        places = [list(specs).index(spec) + aside for spec in part["spec"]]
        drawing.dots(axes, places, part, styles[method], markersize=6)
    drawing.sizes_axis(axes, specs)
    axes.set(xlabel=f"target: {drawing.SIZE}", ylabel=drawing.LOSS)
    drawing.legend(figure, styles, 3, linestyle="none")
    text = (
        "Each target lies between two anchors of the chain; sizes rise to the right. No model has been "
        "trained after its initialisation. Above a dotted line the scale is coarser."
    )
    return figure, text, [summary]


FIGURES = {"initialise": initialise}

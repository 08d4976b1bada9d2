"""The terms of Theorem 3.1 along the chain."""

import pandas as pd

from cbd.report.figures import drawing
from cbd.report.findings.theorem import ADDED, terms
from cbd.report.names import FROM_SOURCE, ONE_STEP, SIMILARITY

DASHED = {"linestyle": (0, (4, 2)), "marker": "D", "color": "#555555"}


@drawing.captioned
def theorem(table: pd.DataFrame) -> drawing.Drawn:
    """(a) How far each anchor is from its teacher and from the source; (b) how alike neighbours are."""
    found = terms(table)
    anchors = list(dict.fromkeys(found["spec"]))
    figure = drawing.new_figure(3.6)
    left, right = figure.subplots(1, 2)
    styles = drawing.styles_of([ONE_STEP, FROM_SOURCE])
    lines = {name: (style, name, "forward_kl") for name, style in styles.items()}
    lines |= {ADDED: (DASHED, FROM_SOURCE, ADDED)}
    for style, method, metric in lines.values():
        part = found[(found["method"] == method) & (found["metric"] == metric)]
        drawing.curve(left, part.assign(place=part["spec"].map(anchors.index)), "place", style)
    left.set_xticks(range(len(anchors)), anchors)
    left.set_xlabel("anchor, down the chain")
    left.set_ylabel("forward KL (nats per token)")
    for i, spec in enumerate(anchors):
        shade = {"color": str(0.15 + 0.6 * i / len(anchors)), "marker": "osD^vP"[i % 6], "linestyle": "-"}
        part = found[(found["method"] == ONE_STEP) & (found["spec"] == spec)]
        part = part[part["metric"].str.startswith(SIMILARITY)]
        part = part.assign(depth=part["metric"].str.removeprefix(SIMILARITY).astype(float))
        drawing.curve(right, part, "depth", shade, label=spec)
    right.set_xlabel("share of the blocks")
    right.set_ylabel("mean canonical correlation")
    low, high = right.get_ylim()
    right.set_ylim(low - 0.3 * (high - low), high)  # room for the legend
    right.legend(loc="lower center", ncols=2)
    drawing.letter((left, right), ("divergence of each anchor", "likeness to its teacher"))
    drawing.legend(figure, {name: style for name, (style, *_) in lines.items()}, 3)
    text = "Divergence from its teacher and from the source, down the chain, and the sum of the steps so far."
    return figure, f"{text} Right: states after equal shares of the blocks.", [found]


FIGURES = {"theorem": theorem}

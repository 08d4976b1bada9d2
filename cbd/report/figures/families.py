"""Q9: the curve over alpha in every family."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from cbd.report import stats
from cbd.report.figures.alpha import alpha_legend, alpha_panel, alpha_styles
from cbd.report.figures.drawing import WIDTH, caption, new_figure, pick, sizes_of, styled
from cbd.report.findings.shared import rule_alphas


@styled
def families(table: pd.DataFrame, scale: str | None = None, date: str | None = None) -> Figure:
    """Bits per byte at step zero against alpha; columns are families, rows sizes.

    Reads metric "bits_per_byte" by family, spec, mixing, operator and alpha, and metric "rule_alpha".
    """
    rows = pick(table, "bits_per_byte")
    curves = rows[rows["method"] == "CBD"]
    summary = stats.summarise(curves, ["family", "spec", "mixing", "operator", "alpha"])
    rule = rule_alphas(table, "family", "spec")
    kinds, specs = list(dict.fromkeys(curves["family"])), sizes_of(curves)
    looks = alpha_styles(summary)
    figure = new_figure(1.2 + 1.9 * len(specs), max(WIDTH, 1.8 * len(kinds)))
    panels = figure.subplots(len(specs), len(kinds), sharex=True, squeeze=False)
    for i, spec in enumerate(specs):
        for j, family in enumerate(kinds):
            part = summary[(summary["family"] == family) & (summary["spec"] == spec)]
            alpha_panel(panels[i, j], part, rule.get((family, spec)), looks)
            panels[i, j].set_title(family if i == 0 else "")
        panels[i, 0].set_ylabel(f"{spec}\nbits per byte")
    for axes in panels[-1]:
        axes.set_xlabel("alpha")
    alpha_legend(figure, looks, columns=4)
    text = (
        "Step zero; alpha = 1 is the smaller anchor alone, alpha = 0 the larger one. Markers: each curve's "
        "minimum (hollow: lossy expansion). Vocabularies differ, so bits per byte."
    )
    caption(figure, text, [summary], scale, date)
    return figure


FIGURES = (families,)

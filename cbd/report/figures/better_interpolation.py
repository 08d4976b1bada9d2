"""Mixtures with learned alphas beside the rule's and beside either anchor, before and after recovery."""

import pandas as pd

from cbd.report.figures import drawing
from cbd.report.figures.density import before_and_after


@drawing.captioned
def better_interpolation(table: pd.DataFrame) -> drawing.Drawn:
    """Loss of every size from each start, a marker a start."""
    return before_and_after(
        table,
        "Alphas by the parameter distance (union), or learned on a few tokens for the model, each block or each "
        "tensor, beside either anchor alone; recovery takes the tokens of the alphas off.",
    )


FIGURES = {"better_interpolation": better_interpolation}

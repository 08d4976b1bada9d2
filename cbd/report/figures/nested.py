"""Slices of one nested run beside the chain's mixtures, before and after recovery."""

import pandas as pd

from cbd.report.figures import drawing
from cbd.report.figures.density import before_and_after


@drawing.captioned
def nested(table: pd.DataFrame) -> drawing.Drawn:
    """Loss of every size from each start, a marker a start."""
    return before_and_after(
        table,
        "Sizes between the anchors: mixed from the two around them (union), or cut from one model whose slices "
        "were all trained at once, with the FLOPs of the whole chain.",
    )


FIGURES = {"nested": nested}

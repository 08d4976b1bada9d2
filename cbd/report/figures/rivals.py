"""CBD and other papers' initialisers, before and after recovery."""

import pandas as pd

from cbd.report.figures import drawing
from cbd.report.figures.density import before_and_after


@drawing.captioned
def rivals(table: pd.DataFrame) -> drawing.Drawn:
    """Loss of every size from each start, a marker a start."""
    return before_and_after(
        table,
        "Each start comes from the same two anchors, and is trained on the same batches at a rate and warm-up "
        "of its own search.",
    )


FIGURES = {"rivals": rivals}

"""Q9: the curve over alpha in every family."""

import pandas as pd

from cbd.report.figures import drawing
from cbd.report.figures.alpha import TEXT, over_alpha


@drawing.captioned
def families(table: pd.DataFrame) -> drawing.Drawn:
    """Bits per byte at step zero against alpha; columns are families, rows sizes."""
    rows = drawing.pick(table, "bits_per_byte", method="CBD")
    sizes = {spec: f"{spec}\nbits per byte" for spec in drawing.sizes_of(rows)}
    names = {family: family for family in dict.fromkeys(rows["family"])}
    figure, summary = over_alpha(rows, table, {"spec": sizes, "family": names}, sharey=False)
    return figure, f"{TEXT} Vocabularies differ, so bits per byte.", [summary]


FIGURES = {"families": families}

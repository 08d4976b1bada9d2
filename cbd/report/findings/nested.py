"""Whether one nested run is a better way to all sizes than a chain, at equal compute."""

import pandas as pd

from cbd.report.findings.convergence import ends
from cbd.report.findings.initialise import CLEAR
from cbd.report.findings.shared import against, units
from cbd.report.names import CBD, NESTED, STEPWISE
from cbd.report.verdicts import Facts, Tables, less, more

ANCHOR, ZERO, AFTER = "as an anchor", "at step zero", "after recovery"


def nested_against(table: pd.DataFrame) -> pd.DataFrame:
    """A nested run's slices minus the chain's anchors, and minus its mixtures, untrained and after recovery.

    Columns: those of `shared.against`, and `when`.
    """
    losses = table[table["metric"] == "loss"]
    parts = [against(table, STEPWISE, "final_loss").assign(when=ANCHOR)]
    for rows, when in ((losses[losses["tokens"] == 0], ZERO), (ends(losses), AFTER)):
        parts.append(against(rows, CBD).assign(when=when))
    return pd.concat(parts, ignore_index=True)


def _nested(tables: Tables, when: str) -> pd.DataFrame:
    found = nested_against(tables["nested"])
    return units(found[(found["when"] == when) & (found["method"] == NESTED)], "{spec}")


PREDICTIONS = {
    "as an anchor, a slice is worse than the chain's, which was trained for its size alone": (
        lambda tables: _nested(tables, ANCHOR),
        more("Each anchor's size: a slice of the nested run minus the anchor"),
    ),
    "untrained, a slice of a size in between starts below the mixture": (
        lambda tables: _nested(tables, ZERO),
        less("Step zero, each size: a slice of the nested run minus CBD"),
    ),
    "after recovery the two are within a few hundredths of a nat": (
        lambda tables: _nested(tables, AFTER),
        Facts(
            f"After recovery, each size: a slice of the nested run minus CBD, within {CLEAR}",
            lambda r: r.low >= -CLEAR and r.high <= CLEAR,
            "+.3f",
        ),
    ),
}
"""Fixed on 2026-11-30, before the first run. One at the anchors' rate was thrown away: it was not tuned."""

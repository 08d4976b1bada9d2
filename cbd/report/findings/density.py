"""E11: what anchors between give to the sizes around them, at the same total of training tokens."""

import pandas as pd

from cbd.report.findings.convergence import ends
from cbd.report.findings.initialise import CLEAR
from cbd.report.findings.shared import against, units
from cbd.report.names import ANCHORS
from cbd.report.verdicts import Control, Entry, Facts, Tables, less, more

ZERO, AFTER = "at step zero", "after {budget:,} tokens"


def densest_against(table: pd.DataFrame) -> pd.DataFrame:
    """The chain of most anchors minus each other: every size in between, at step zero and after recovery.

    Columns: those of `shared.against`, `when`, and `minus` (the other chain).
    """
    losses, found = table[table["metric"] == "loss"], []
    *sparser, densest = sorted(set(losses["method"]), key=ANCHORS.index)
    for rows, when in ((losses[losses["tokens"] == 0], ZERO), (ends(table), AFTER)):
        for other in sparser:
            pair = rows[rows["method"].isin([densest, other])]
            gaps = against(pair, other, by=["budget", "spec"]).assign(minus=other)
            found.append(gaps.assign(when=[when.format(budget=int(b)) for b in gaps["budget"]]))
    return pd.concat(found, ignore_index=True)


def smallest_anchor(table: pd.DataFrame) -> pd.DataFrame:
    """The loss of the smallest anchor in the chain of most anchors, minus that in each other chain."""
    rows = table[table["metric"] == "final_loss"]
    *sparser, densest = sorted(set(rows["method"]), key=ANCHORS.index)
    pairs = (rows[rows["method"].isin([densest, other])] for other in sparser)
    found = [against(p, o, "final_loss").assign(minus=o) for p, o in zip(pairs, sparser, strict=True)]
    return pd.concat(found, ignore_index=True)


def _between(tables: Tables) -> pd.DataFrame:
    return units(densest_against(tables["density"]), "{spec} {when}, minus {minus}", "{when}, minus {minus}")


ROWS = {
    "E11": Entry(
        _between,
        less("Each size in between, step zero and after recovery: the densest chain minus each sparser one"),
        control=Control("a sparser chain, equal tokens", "fair"),
    ),
}

PREDICTIONS = {
    "untrained, every size in between starts lower from the densest chain": (
        lambda tables: _between(tables).query("when == @ZERO"),
        less("Step zero: the densest chain minus each sparser one"),
    ),
    "after recovery little of that is left": (
        lambda tables: _between(tables).query("when != @ZERO"),
        Facts(
            f"After recovery: the densest chain minus each sparser one, within {CLEAR}",
            lambda r: r.low >= -CLEAR and r.high <= CLEAR,
            "+.3f",
        ),
    ),
    "the smallest anchor itself is worse for being reached in more steps": (
        lambda tables: units(smallest_anchor(tables["density"]), "minus {minus}"),
        more("Smallest anchor: the densest chain minus each sparser one"),
    ),
}
"""Fixed on 2026-11-30, before the first run."""

"""E9, Q8: CBD against other papers' initialisers, untrained and after the same recovery training."""

from itertools import pairwise

import pandas as pd

from cbd.report import stats
from cbd.report.findings.convergence import ends
from cbd.report.findings.shared import against, sizes, units, with_verdict
from cbd.report.names import CBD, LEARNGENE
from cbd.report.verdicts import Control, Entry, Tables, less, more

ZERO, AFTER = "at step zero", "after recovery"


def head_to_head(table: pd.DataFrame) -> pd.DataFrame:
    """CBD (union) minus each rival in each size, untrained and after recovery.

    Columns: those of `shared.against` without `method`, `when`, and `minus` (the rival).
    """
    losses, found = table[table["metric"] == "loss"], []
    for rows, when in ((losses[losses["tokens"] == 0], ZERO), (ends(table), AFTER)):
        for rival in losses["method"].drop_duplicates():
            if rival != CBD:
                pair = rows[rows["method"].isin([CBD, rival])]
                found.append(against(pair, rival).assign(when=when, minus=rival))
    return pd.concat(found, ignore_index=True).drop(columns="method")


def fewer_parameters(table: pd.DataFrame) -> pd.DataFrame:
    """CBD minus Learngene at the next larger size, both after recovery (E9), paired by seed.

    Columns: spec, method, point, low, high, n, verdict; no row where there is one size alone.
    """
    rows, found = ends(table), []
    for small, large in pairwise(sizes(rows)):
        ours = rows[(rows["method"] == CBD) & (rows["spec"] == small)]
        theirs = rows[(rows["method"] == LEARNGENE) & (rows["spec"] == large)]
        pair = pd.concat([ours, theirs]).assign(spec=f"{small} against {large}")
        found.append(stats.paired(pair, ["spec"], baseline=LEARNGENE))
    none = pd.DataFrame(columns=["spec", "method", "point", "low", "high", "n"])
    return with_verdict(pd.concat(found, ignore_index=True) if found else none)


def _head_to_head(tables: Tables, when: str) -> pd.DataFrame:
    found = head_to_head(tables["rivals"])
    return units(found[found["when"] == when], "{spec}, minus {minus}", "minus {minus}")


ROWS = {
    "E9": Entry(
        lambda tables: units(fewer_parameters(tables["rivals"]), "{spec}"),
        less("After recovery: CBD minus Learngene at the next larger size"),
        control=Control("Learngene from the same anchor, equal tokens", "fair"),
    ),
    "Q8": Entry(
        lambda tables: _head_to_head(tables, AFTER),
        less("After recovery, each size: CBD (union) minus each other initialiser"),
        control=Control("each tuned alike, equal tokens", "fair"),
    ),
}


def _learngene_last(tables: Tables) -> pd.DataFrame:
    rows = ends(tables["rivals"])
    others = [m for m in rows["method"].drop_duplicates() if m not in (CBD, LEARNGENE)]
    pairs = (rows[rows["method"].isin([LEARNGENE, other])] for other in others)
    found = [against(p, other).assign(minus=other) for p, other in zip(pairs, others, strict=True)]
    return units(pd.concat(found, ignore_index=True), "{spec}, minus {minus}", "minus {minus}")


PREDICTIONS = {
    "untrained, CBD starts below every rival": (
        lambda tables: _head_to_head(tables, ZERO),
        less("Step zero, each size: CBD (union) minus each other initialiser"),
    ),
    "after recovery it is still ahead of every one": (
        lambda tables: _head_to_head(tables, AFTER),
        less("After recovery, each size: CBD (union) minus each other initialiser"),
    ),
    "Learngene, most of whose weights are random, is the last of them": (
        _learngene_last,
        more("After recovery, each size: Learngene minus each other rival"),
    ),
}
"""Fixed on 2026-11-30, before the first run."""

"""The terms of Theorem 3.1 along the chain: divergences, capacities, and how alike neighbours are."""

import pandas as pd

from cbd.report import stats
from cbd.report.findings.shared import by_size, units
from cbd.report.names import FROM_SOURCE, ONE_STEP, SIMILARITY
from cbd.report.verdicts import Tables, less, more

ADDED = "sum of the steps"  # a metric: the steps' divergences so far
FIRST, LAST = f"{SIMILARITY}0", f"{SIMILARITY}1"


def terms(table: pd.DataFrame) -> pd.DataFrame:
    """Every metric of each anchor against its teacher and the source, with interval, down the chain.

    Columns: spec, parameters, method (whom it is compared with), metric, point, low, high, n.
    """
    found = stats.summarise(_with_sums(table), ["spec", "parameters", "method", "metric"])
    return by_size(found, table, "spec")[::-1].reset_index(drop=True)


def _with_sums(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with one more metric, `ADDED`, beside each anchor's divergence from the source."""
    steps = table[(table["method"] == ONE_STEP) & (table["metric"] == "forward_kl")]
    steps = steps.sort_values("parameters", ascending=False)
    summed = steps.assign(value=steps.groupby("seed")["value"].cumsum(), metric=ADDED, method=FROM_SOURCE)
    return pd.concat([table, summed], ignore_index=True)


def _wide(table: pd.DataFrame, method: str, *metrics: str) -> pd.DataFrame:
    """A row an anchor and seed, from large to small, a column a metric."""
    rows = _with_sums(table)
    rows = rows[(rows["method"] == method) & rows["metric"].isin(metrics)]
    wide = rows.pivot(index=["parameters", "spec", "seed"], columns="metric", values="value")
    return wide.sort_index(level="parameters", ascending=False, sort_remaining=True).reset_index()


def _each(wide: pd.DataFrame, value: pd.Series) -> pd.DataFrame:
    found = wide.assign(value=value).dropna(subset="value")
    return units(stats.summarise(found, ["spec"]), "{spec}")


def _grown(tables: Tables) -> pd.DataFrame:
    """How much further from the source each anchor is than the one above it."""
    wide = _wide(tables["theorem"], FROM_SOURCE, "forward_kl")
    return _each(wide, wide.groupby("seed")["forward_kl"].diff())


def _surplus(tables: Tables) -> pd.DataFrame:
    """The steps' divergences minus that from the source, at every anchor that is more than one step away."""
    wide = _wide(tables["theorem"], FROM_SOURCE, "forward_kl", ADDED)
    below = wide["parameters"] < wide["parameters"].max()
    return _each(wide[below], (wide[ADDED] - wide["forward_kl"])[below])


def _unlike(tables: Tables) -> pd.DataFrame:
    """How much less alike neighbours are in their last states than in their first."""
    wide = _wide(tables["theorem"], ONE_STEP, FIRST, LAST)
    return _each(wide, wide[LAST] - wide[FIRST])


PREDICTIONS = {
    "every step leads further from the source": (
        _grown,
        more("Forward KL from the source: each anchor minus the one above it"),
    ),
    "the steps' divergences add up to more than that from the source": (
        _surplus,
        more("Forward KL: the sum of the steps minus that from the source"),
    ),
    "neighbours are less alike at their ends than at their beginnings": (
        _unlike,
        less("Mean canonical correlation of each anchor with its teacher: last states minus first", "of 1"),
    ),
}
"""Fixed on 2026-11-30, before the first run."""

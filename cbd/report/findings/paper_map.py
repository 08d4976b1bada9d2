"""E16, Q7: what N sizes cost by each way to make them; counted, not measured."""

import math

import pandas as pd

from cbd.report import stats
from cbd.report.findings.shared import exact
from cbd.report.names import CHAIN
from cbd.report.verdicts import Entry, Facts, Tables, above, below


def _cost(tables: Tables) -> pd.DataFrame:
    rows = tables["paper_map"]
    return rows[rows["metric"] == "cumulative_flops"]


def _ratios(tables: Tables) -> pd.DataFrame:
    """The chain's FLOPs over each other way's, for all sizes, and for each size after the first."""
    cost = _cost(tables).pivot(index="sizes", columns="method", values="value")
    total, growth = cost.iloc[-1], cost.iloc[-1] - cost.iloc[0]
    ratios = {}
    for other in cost.columns.drop(CHAIN):
        ratios[f"share of {other}, {cost.index[-1]} sizes"] = total[CHAIN] / total[other]
        ratios[f"share of {other}, one more size"] = growth[CHAIN] / growth[other]
    return exact(ratios)


def _break_even(tables: Tables) -> pd.DataFrame:
    """From how many sizes on the chain is cheaper; infinite where it is not within the ladder."""
    cost = _cost(tables)
    others = [method for method in dict.fromkeys(cost["method"]) if method != CHAIN]
    counts = {f"sizes needed against {other}": stats.break_even(cost, CHAIN, other) for other in others}
    return exact({unit: math.inf if n is None else n for unit, n in counts.items()})


ROWS = {
    "E16": Entry(
        _ratios, below("FLOPs of the chain over each other way's, all sizes and one more size", 1, ".2f")
    ),
    "Q7": Entry(
        _break_even,
        Facts(
            "Each other way: from some number of sizes on, the chain is cheaper",
            lambda row: math.isfinite(row.point),
            ".0f",
        ),
    ),
}


def _first_size(tables: Tables) -> pd.DataFrame:
    first = _cost(tables).query("sizes == 1").set_index("method")["value"]
    return exact({f"over {other}": first[CHAIN] / first[other] for other in first.index.drop(CHAIN)})


PREDICTIONS = {
    "the chain is the dearest way to get one size": (
        _first_size,
        above("FLOPs of the chain for one size over each other way's", 1, ".2f"),
    ),
    "its cost is flat from there on": (
        lambda tables: _ratios(tables).iloc[1::2],
        below("What further sizes cost with the chain over each other way's", 0.01, ".2f"),
    ),
}

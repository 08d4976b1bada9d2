"""E16, Q7: what N sizes cost by each way to make them: counted, and to the same loss, as measured.

And E14: which sizes between two anchors a method can make at all.
"""

from collections.abc import Callable

import pandas as pd

from cbd.report import stats
from cbd.report.findings import convergence
from cbd.report.findings.shared import exact, units
from cbd.report.names import CBD, CHAIN, RANDOM, REACH
from cbd.report.verdicts import Control, Entry, Facts, Tables, above, below

FREE = 0.1  # of scratch's tokens: up to which a further size is "nearly free"


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


def _same_loss(tables: Tables, value: Callable[[pd.DataFrame], pd.Series]) -> pd.DataFrame:
    """A number from `convergence.needed` for each size and budget of random weights, as units."""
    found = convergence.needed(tables["convergence"]).query("`to` == @convergence.TO_RANDOM")
    found = found.assign(value=value).dropna(subset="value")
    if found.empty:
        return found
    return units(stats.summarise(found, ["spec", "budget"]), "{spec}, {budget:,} tokens")


def _break_even(tables: Tables) -> pd.DataFrame:
    """Sizes of a kind from which on the chain, and their training to scratch's loss, cost less than scratch.

    Infinite where CBD needs no fewer tokens than scratch.
    """
    saved = lambda found: (found["random"] - found["cbd"]).where(lambda tokens: tokens > 0, 0)  # noqa: E731
    found = _same_loss(tables, lambda found: found["chain"] / saved(found))
    return found.assign(sizes=int(_cost(tables)["sizes"].max()))


def reach(table: pd.DataFrame) -> pd.DataFrame:
    """The share of the sizes between two neighbours of the chain that each method makes; a row a gap."""
    rows = table[table["metric"] == REACH]
    return rows.pivot_table("value", ["spec", "sizes"], "method", sort=False)


def _reach_over(tables: Tables) -> pd.DataFrame:
    """CBD's share minus each other method's, in each gap."""
    shares = reach(tables["paper_map"])
    more = shares.drop(columns=CBD).rsub(shares[CBD], axis=0).stack()
    return exact({f"{gap}, over {other}": value for (gap, _, other), value in more.items()})


SCRATCH_SAME = Control("scratch to the same loss", "fair", trained=RANDOM)

ROWS = {
    "E14": Entry(
        _reach_over,
        above(
            "By arithmetic, each gap of the chain: the share of the sizes in between that CBD makes, minus "
            "that of each other method",
            form="+.2f",
        ),
        control=Control("HyperCloning and stacking from the smaller anchor", "fair"),
    ),
    "E16": Entry(
        lambda tables: _same_loss(tables, lambda found: found["cbd"] / found["random"]),
        below(
            "One more size, trained to the loss of scratch after each budget: its tokens over scratch's",
            FREE,
            ".2f",
        ),
        needs=("paper_map", "convergence"),
        control=SCRATCH_SAME,
    ),
    "Q7": Entry(
        _break_even,
        Facts(
            "At the loss of scratch after each budget: sizes from which on chain and recovery cost fewer "
            "FLOPs than scratch, no more than the cost figure has",
            lambda row: row.high <= row.sizes,
            ".1f",
        ),
        needs=("paper_map", "convergence"),
        control=SCRATCH_SAME,
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

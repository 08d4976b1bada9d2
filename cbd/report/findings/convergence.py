"""E5, E12, Q2: recovery training from each start, and how many tokens random weights need to catch up."""

import pandas as pd

from cbd.report import stats
from cbd.report.findings.chain import with_gap
from cbd.report.findings.initialise import start_against_better
from cbd.report.findings.shared import BETTER, NATS, TOLERATED, against, paired, units, with_better
from cbd.report.names import CBD, LARGER, RANDOM, SMALLER
from cbd.report.verdicts import Entry, Facts, Tables, above, below

SPEEDUPS = ("speedup_to_random_final", "speedup_to_cbd_final")


def ends(table: pd.DataFrame) -> pd.DataFrame:
    """The last point of every curve: one row for each (method, spec, budget, seed)."""
    rows = table[table["metric"] == "loss"]
    return rows[rows["tokens"] == rows.groupby("recipe")["tokens"].transform("max")]


def against_better_anchor(table: pd.DataFrame) -> pd.DataFrame:
    """CBD (union) minus the better single anchor after each budget, by size."""
    rows = ends(table)
    rows = with_better(rows[rows["method"] != RANDOM])
    return against(rows[rows["method"].isin([CBD, BETTER])], BETTER, by=["budget", "spec"])


def insurance(table: pd.DataFrame) -> pd.DataFrame:
    """What always taking one start costs at worst, over sizes and seeds, against the better single anchor.

    A row a budget, in nats per token. Which anchor will be better is not known beforehand.
    """
    runs = with_better(ends(table)).set_index(["method", "budget", "spec", "seed"])["value"]
    lost = {method: runs[method] - runs[BETTER] for method in (CBD, SMALLER, LARGER)}
    return pd.DataFrame(lost).groupby("budget").max()


def speedups(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and interval of each speed-up, a row a size and budget; `bound` marks lower bounds."""
    bounds, keys = table["metric"].str.extract(r"^(speedup_.*)_lower_bound$")[0], ["metric", "spec", "budget"]
    rows = table.assign(metric=bounds.fillna(table["metric"]), bound=bounds.notna())
    rows = rows[rows["metric"].isin(SPEEDUPS)]
    # of a value that is missing and its bound the bound; what has none stays missing, lest it flatters
    runs = rows.groupby([*keys, "seed"]).agg(value=("value", "first"), bound=("bound", "any")).reset_index()
    found = stats.summarise(runs, keys).join(runs.groupby(keys)["bound"].any(), on=keys)
    place = lambda names: names.map(SPEEDUPS.index)  # noqa: E731
    return found.sort_values("metric", key=place, kind="stable", ignore_index=True)


def _zero_and_after(tables: Tables) -> pd.DataFrame:
    """CBD's loss at zero tokens, and the other starts' after the smallest budget."""
    rows = tables["convergence"]
    rows = rows[(rows["metric"] == "loss") & (rows["budget"] == rows["budget"].min())]
    start = rows[(rows["method"] == CBD) & (rows["tokens"] == 0)]
    return pd.concat([start, ends(rows[rows["method"] != CBD])])


def _against_better(tables: Tables) -> pd.DataFrame:
    """CBD minus the better single anchor, at step zero and after each budget."""
    zero = start_against_better(tables).assign(group="at step zero")
    after = units(against_better_anchor(tables["convergence"]), "", "after {budget:,} tokens")
    return units(pd.concat([zero, after], ignore_index=True), "{spec} {group}")


ROWS = {
    "E5": Entry(
        lambda tables: paired(_zero_and_after(tables), CBD, RANDOM),
        below(f"Each size: CBD at zero tokens minus random after the smallest budget, {NATS}"),
        control=RANDOM,
    ),
    "E12": Entry(
        lambda tables: paired(with_better(_zero_and_after(tables)), CBD, BETTER),
        below(
            f"Each size: CBD at zero tokens minus the better single anchor after the smallest budget, {NATS}"
        ),
    ),
    "Q2": Entry(
        _against_better,
        below(
            f"Step zero and after each budget, each size: CBD (union) minus the better single anchor, {NATS}"
        ),
        needs=("initialise", "convergence"),
    ),
}


def _longest_random(tables: Tables) -> pd.DataFrame:
    """Random at the end of its longest run minus CBD at zero tokens."""
    rows = ends(tables["convergence"])
    longest = rows[(rows["method"] == RANDOM) & (rows["budget"] == rows["budget"].max())]
    return paired(pd.concat([longest, _zero_and_after(tables).query("tokens == 0")]), RANDOM, CBD)


def _after(tables: Tables, method: str, *others: str) -> pd.DataFrame:
    """One start minus others after each budget."""
    rows, found = ends(tables["convergence"]), []
    for other in others:
        pair = rows[rows["method"].isin([method, other])]
        found.append(against(pair, other, by=["budget", "spec", "parameters"]).assign(other=other))
    return units(pd.concat(found, ignore_index=True), "{spec} after {budget:,}, minus {other}")


PREDICTIONS = {
    "random weights do not reach CBD's step-zero loss within the budgets": (
        _longest_random,
        above(f"Random after its longest run minus CBD at zero tokens, {NATS}"),
    ),
    "after recovery CBD and the pruned larger anchor are within a few hundredths of a nat": (
        lambda tables: _after(tables, LARGER, CBD),
        Facts(
            f"The pruned larger anchor minus CBD after each budget: within {TOLERATED}",
            lambda r: r.low >= -TOLERATED and r.high <= TOLERATED,
            "+.3f",
        ),
    ),
    "the grown smaller anchor is worst of the three where the anchors' gap is wide": (
        lambda tables: with_gap(_after(tables, SMALLER, CBD, LARGER), tables).query(f"gap > {TOLERATED}"),
        above(f"The grown smaller anchor minus each, where anchors are over {TOLERATED} apart"),
    ),
}

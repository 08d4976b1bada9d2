"""E5, E12, Q2, Q11: training on from each start, and how many tokens random weights need to catch up."""

import math

import numpy as np
import pandas as pd

from cbd.report import stats
from cbd.report.findings.chain import with_gap
from cbd.report.findings.initialise import CLEAR, against_oracle, start_against
from cbd.report.findings.shared import (
    BETTER,
    NATS,
    NEAREST,
    SINGLE,
    TRAINED,
    against,
    by_size,
    judged,
    nearest,
    on_every_text,
    paired,
    units,
    with_better,
    with_nearest,
)
from cbd.report.names import CBD, CHAIN_TOKENS, LARGER, RANDOM, SMALLER, SOURCE
from cbd.report.verdicts import MARGIN, Entry, Facts, Tables, above, less

TO_RANDOM, TO_CBD = "random's final loss", "CBD's final loss"


def ends(table: pd.DataFrame) -> pd.DataFrame:
    """The last point of every curve: one row for each (method, spec, budget, seed)."""
    rows = table[(table["metric"] == "loss") & (table["tokens"] > 0)]
    return rows[rows["tokens"] == rows.groupby("recipe")["tokens"].transform("max")]


def by_start(table: pd.DataFrame) -> pd.DataFrame:
    """Every finished run, a row a size, budget and start: losses on every text and scores (`judged`)."""
    done = table[table["tokens"] == table["budget"]]
    return judged(done, ["parameters", "spec", "budget", "method"])


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


def source_ahead(table: pd.DataFrame, chain: pd.DataFrame) -> pd.DataFrame:
    """Random weights after their longest run minus the source, by size (see `shared.against`).

    chain: the table of the chain. A source that is hardly ahead has no knowledge to hand down.
    """
    longest = _longest(table)
    source = chain.query("metric == 'final_loss' and method == @SOURCE").assign(metric="loss")
    beside = [source.assign(spec=spec) for spec in longest["spec"].unique()]
    return against(pd.concat([longest, *beside]), SOURCE)


def needed(table: pd.DataFrame) -> pd.DataFrame:
    """Tokens with which random weights and CBD reach the same losses, a row a size, seed, loss and budget.

    Columns: spec, seed, to ("random's final loss" after its budget, as the paper counts, or "CBD's final
    loss" after its own), budget, random, cbd (tokens; 0 where CBD starts below; inf where never), chain
    (tokens of a model of this size that cost as many FLOPs as CBD's chain did, its source given).
    """
    losses, rows = table[table["metric"] == "loss"], []
    chain = table[table["metric"] == CHAIN_TOKENS].set_index(["spec", "seed"])["value"]
    for (spec, seed), here in losses.groupby(["spec", "seed"]):
        curves = {
            method: [
                curve.sort_values("tokens") for _, curve in here[here["method"] == method].groupby("budget")
            ]
            for method in (RANDOM, CBD)
        }
        for to, method in ((TO_RANDOM, RANDOM), (TO_CBD, CBD)) if all(curves.values()) else ():
            for run in curves[method]:
                loss, budget = run["value"].iloc[-1], int(run["budget"].iloc[0])
                spent = {method: int(run["tokens"].iloc[-1])}
                other = CBD if method == RANDOM else RANDOM
                spent[other] = min(_reached(curve, loss) for curve in curves[other])
                row = {"spec": spec, "seed": seed, "to": to, "budget": budget}
                row |= {"random": spent[RANDOM], "cbd": spent[CBD]}
                rows.append(row | {"chain": chain.get((spec, seed), math.nan)})
    return by_size(pd.DataFrame(rows), table, "to", "spec", "budget", "seed")


def _reached(curve: pd.DataFrame, loss: float) -> float:
    tokens = stats.tokens_to_reach(curve, loss)
    return math.inf if math.isnan(tokens) else tokens


def speedups(table: pd.DataFrame) -> pd.DataFrame:
    """How much less CBD needs to the same loss; means over seeds, a row a loss, size and budget.

    random, cbd: tokens. at_least: random weights never get there, and `random` is their longest run, or CBD
    starts below, and `random` is the budget which it saves whole. tokens: random over cbd, inf where CBD
    starts below. flops_1, flops_10: the same in FLOPs, the chain counted once, divided over 1 and 10 sizes.
    """
    found, keys = needed(table), ["to", "spec", "budget"]
    longest = table.loc[table["method"] == RANDOM].groupby("spec")["tokens"].max()
    found = found.assign(at_least=np.isinf(found["random"]) | (found["cbd"] == 0))
    found["random"] = found["random"].where(np.isfinite(found["random"]), found["spec"].map(longest))
    means = found.groupby(keys, sort=False).agg(
        {"random": "mean", "cbd": "mean", "chain": "mean", "at_least": "any"}
    )
    means["tokens"] = means["random"] / means["cbd"]
    for sizes in (1, 10):
        means[f"flops_{sizes}"] = means["random"] / (means["cbd"] + means["chain"] / sizes)
    return means.reset_index().drop(columns="chain")


def _zero_and_after(tables: Tables) -> pd.DataFrame:
    """CBD's loss at zero tokens, and the other starts' after the smallest budget."""
    rows = tables["convergence"]
    rows = rows[(rows["metric"] == "loss") & (rows["budget"] == rows["budget"].min())]
    start = rows[(rows["method"] == CBD) & (rows["tokens"] == 0)]
    return pd.concat([start, ends(rows[rows["method"] != CBD])])


def _against(tables: Tables, baseline: str) -> pd.DataFrame:
    """CBD minus the nearest or the better single anchor, at step zero and after each budget."""
    zero = start_against(tables, baseline).assign(group="at step zero")
    rows = with_better(ends(tables["convergence"]))
    rows = with_nearest(rows, nearest(tables))
    found = against(rows[rows["method"].isin([CBD, baseline])], baseline, by=["budget", "spec"])
    after = units(found, "", "after {budget:,} tokens")
    return units(pd.concat([zero, after], ignore_index=True), "{spec} {group}")


def _zero_against(tables: Tables, baseline: str) -> pd.DataFrame:
    """CBD at zero tokens minus the nearest or the better single anchor after the smallest budget."""
    rows = with_better(_zero_and_after(tables))
    return paired(with_nearest(rows, nearest(tables)), CBD, baseline)


def _leads(tables: Tables) -> pd.DataFrame:
    """By how much less CBD is ahead of random weights after each larger budget than after the smallest."""
    rows = ends(tables["convergence"])
    wide = rows.pivot_table("value", ["spec", "budget", "seed"], "method").dropna()
    lead = (wide[RANDOM] - wide[CBD]).rename("value").reset_index()
    lead["method"] = lead["budget"].astype(str)
    found = stats.paired(lead, ["spec"], baseline=str(lead["budget"].min()))
    return units(by_size(found, rows, "spec", "method"), "{spec} after {method}")


ROWS = {
    "E5": Entry(
        on_every_text("convergence", lambda tables: paired(_zero_and_after(tables), CBD, RANDOM)),
        less("Each size: CBD at zero tokens minus random after the smallest budget"),
        control=TRAINED,
    ),
    "E12": Entry(
        on_every_text("convergence", lambda tables: _zero_against(tables, NEAREST)),
        less("Each size: CBD at zero tokens minus the nearest single anchor after the smallest budget"),
        lambda tables: against_oracle(_zero_against(tables, BETTER)),
        needs=("initialise", "convergence"),
        control=SINGLE,
    ),
    "Q2": Entry(
        on_every_text(("initialise", "convergence"), lambda tables: _against(tables, NEAREST)),
        less("Step zero and after each budget, each size: CBD (union) minus the nearest single anchor"),
        lambda tables: against_oracle(_against(tables, BETTER)),
        needs=("initialise", "convergence"),
        control=SINGLE,
    ),
    "Q11": Entry(
        on_every_text("convergence", _leads),
        less("Each size: CBD's lead over random weights after equal tokens, minus that after the fewest"),
        control=TRAINED,
    ),
}


def _longest(table: pd.DataFrame) -> pd.DataFrame:
    """Random weights at the end of their longest runs."""
    rows = ends(table)
    return rows[(rows["method"] == RANDOM) & (rows["budget"] == rows["budget"].max())]


def _longest_random(tables: Tables) -> pd.DataFrame:
    """Random at the end of its longest run minus CBD at zero tokens."""
    longest = _longest(tables["convergence"])
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
            f"The pruned larger anchor minus CBD after each budget: within {CLEAR}",
            lambda r: r.low >= -CLEAR and r.high <= CLEAR,
            "+.3f",
        ),
    ),
    "the grown smaller anchor is worst of the three where the anchors' gap is wide": (
        lambda tables: with_gap(_after(tables, SMALLER, CBD, LARGER), tables).query(f"gap > {CLEAR}"),
        above(f"The grown smaller anchor minus each, where anchors are over {CLEAR} apart"),
    ),
    "the mixture costs no more than a tie against the better anchor": (
        lambda tables: units(against_better_anchor(tables["convergence"]), "{spec} after {budget:,}"),
        Facts(
            f"CBD minus the better single anchor after each budget: interval not beyond {MARGIN:g}",
            lambda r: r.high <= MARGIN,
            "+.3f",
        ),
    ),
}

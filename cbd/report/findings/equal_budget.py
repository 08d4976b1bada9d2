"""E4, E13: CBD and random weights after the same recovery training."""

import pandas as pd

from cbd.report import stats
from cbd.report.findings.shared import (
    TRAINED,
    against,
    by_size,
    chance,
    main_metrics,
    sizes,
    task_means,
    units,
    with_verdict,
)
from cbd.report.names import AVERAGE, CBD, RANDOM, minus_random
from cbd.report.verdicts import Entry, Facts, Tables, above, less, more


def averages(table: pd.DataFrame) -> pd.DataFrame:
    """E4's table: the mean over tasks of 100 x each one's main metric, CBD and random at each budget.

    Columns: spec, tokens, CBD, random (means over seeds), difference with low, high, n and verdict (paired by
    seed), chance.
    """
    metrics = main_metrics(table)
    scores = task_means(table, ["spec", "method", "tokens", "seed"])
    mean = scores.groupby(["spec", "tokens", "method"])["value"].mean()
    found = by_size(stats.paired(scores, ["spec", "tokens"], baseline=RANDOM), table, "spec", "tokens")
    found = with_verdict(found).rename(columns={"point": "difference"})
    found = found.join(mean.rename("CBD"), on=["spec", "tokens", "method"])  # or what stands for it
    found = found.join(mean.xs(RANDOM, level="method").rename("random"), on=["spec", "tokens"])
    found["chance"] = 100 * sum(chance(table, metric) for metric in metrics) / len(metrics)
    columns = ["spec", "tokens", "CBD", "random", "difference", "low", "high", "n", "verdict", "chance"]
    return found[columns].astype({"tokens": int})


def losses(table: pd.DataFrame) -> pd.DataFrame:
    """CBD minus random weights after the same tokens, nats per token (see `shared.against`)."""
    return against(table, RANDOM, by=["spec", "tokens"])


def _floored(tables: Tables) -> pd.DataFrame:
    """The average of the tasks, floored at guessing, minus random weights', with items resampled, too."""
    table, name = tables["equal_budget"], minus_random(AVERAGE)
    rows = table[table["metric"].str.startswith(name)]
    if rows.empty:
        return rows
    ends = rows["metric"].str.removeprefix(name).str.strip().replace("", "point")
    wide = rows.assign(end=ends).pivot(index=["spec", "budget"], columns="end", values="value").reset_index()
    seeds = table.groupby("spec")["seed"].nunique()
    return units(
        by_size(wide.assign(n=wide["spec"].map(seeds)), table, "spec", "budget"), "{spec}, {budget:,} tokens"
    )


def _inside(tables: Tables) -> pd.DataFrame:
    """Of the sizes inside the chain, which CBD can start."""
    found, table = _floored(tables), tables["equal_budget"]
    return found[found["spec"].isin(table.loc[table["method"] == CBD, "spec"])] if len(found) else found


def _smallest(tables: Tables) -> pd.DataFrame:
    """Of the smallest size; below the chain the smallest anchor is cut for it."""
    found, smallest = _floored(tables), next(iter(sizes(tables["equal_budget"])))
    return found[found["spec"] == smallest] if len(found) else found


def _levels(tables: Tables) -> str:
    """The averages themselves, of CBD, random weights and guessing."""
    found = averages(tables["equal_budget"])
    ends = [f"{name} {found[name].min():.2f} to {found[name].max():.2f}" for name in ("CBD", "random")]
    return f"Averages: {', '.join(ends)}, guessing {found['chance'].mean():.2f}"


_FLOORED = "points, each task floored at guessing, interval over seeds and items"

ROWS = {
    "E4": Entry(
        _inside,
        above(f"Average of the tasks, each size and budget: CBD minus random, {_FLOORED}", 0, "+.2f"),
        _levels,
        control=TRAINED,
    ),
    "E13": Entry(
        _smallest,
        above(
            "Average of the tasks, smallest size (below the chain: the smallest anchor, cut): start minus "
            f"random, {_FLOORED}",
            0,
            "+.2f",
        ),
        control=TRAINED,
    ),
}

FEW = 5  # points of 100: "a few points"


def _leads(tables: Tables, by: str, along: str) -> pd.DataFrame:
    """By how much CBD is ahead in loss, minus the same at the first (smallest) of a column's values."""
    rows = tables["equal_budget"].query("metric == 'loss'").sort_values(["parameters", "tokens"])
    ours = rows["method"].where(rows["method"] == RANDOM, CBD)  # or what stands for it below the chain
    rows = rows.assign(method=ours, place=rows[along].astype(str), value=-rows["value"])
    wide = rows.pivot_table("value", [by, "place", "seed"], "method").eval(f"`{CBD}` - `{RANDOM}`")
    lead = wide.rename("value").reset_index().rename(columns={"place": "method"})
    return units(stats.paired(lead, [by], baseline=rows["place"].iloc[0]), f"{{method}}, {{{by}}}")


PREDICTIONS = {
    "CBD is ahead in loss everywhere": (
        lambda tables: units(losses(tables["equal_budget"]), "{spec} after {tokens:,}"),
        less("CBD minus random"),
    ),
    "by less at the larger budget": (
        lambda tables: _leads(tables, "spec", "tokens"),
        less("CBD's lead in loss minus that at the smallest budget"),
    ),
    "by less at the smallest size": (
        lambda tables: _leads(tables, "tokens", "spec"),
        more("CBD's lead in loss minus that at the smallest size"),
    ),
    "the average of the tasks moves with the loss, by a few points at most": (
        _inside,
        Facts(
            f"CBD minus random: above 0, at most {FEW} points", lambda r: r.low > 0 and r.point <= FEW, "+.2f"
        ),
    ),
}

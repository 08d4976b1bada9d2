"""Where in its depth a model decides: margins, accuracy and favourite options after its first blocks."""

import pandas as pd

from cbd.report import stats
from cbd.report.findings.shared import chance, main_metrics, units
from cbd.report.verdicts import Facts, Tables, less, more

LEAD, MARGIN, FAVOURITE = "lead", "margin", "favourite"
HALF, LATE = 0.5, 0.8
SOME = 0.25


def phases(table: pd.DataFrame) -> pd.DataFrame:
    """What is read of each model after each share of its blocks, with interval, down the chain.

    Columns: source (the model), task, metric, share, point, low, high, n. Metrics: `LEAD`, the share of right
    answers above guessing; `MARGIN`, nats by which the right option is more likely than the best other one,
    less what a guessed option has; `FAVOURITE`, how much more often than an equal share the option is taken
    that is taken most.
    """
    rows = _by_seed(table).astype({"share": float})
    order = list(dict.fromkeys(table["source"]))
    found = stats.summarise(rows, ["source", "task", "metric", "share"])
    return found.sort_values(
        ["source", "task", "metric", "share"],
        key=lambda c: c.map(order.index) if c.name == "source" else c,
        ignore_index=True,
    )


def _by_seed(table: pd.DataFrame) -> pd.DataFrame:
    """The same by seed: source, share, seed, task, metric, value."""
    about = ["source", "stage", "seed"]
    wide = table.pivot_table(index=about, columns="metric", values="value")
    parts = []
    for metric in main_metrics(table):
        task = metric.split("/")[0]
        options = [name for name in wide if name.startswith(f"{task}/option ")]
        read = {LEAD: wide[metric] - chance(table, metric)}
        if f"{task}/margin" in wide:
            read[MARGIN] = wide[f"{task}/margin"] - wide[f"{task}/margin chance"]
        if options:
            read[FAVOURITE] = wide[options].max(axis=1) - 1 / len(options)
        for name, value in read.items():
            parts.append(value.rename("value").reset_index().assign(task=task, metric=name))
    return pd.concat(parts, ignore_index=True).rename(columns={"stage": "share"})


def _reached(tables: Tables, share: float) -> pd.DataFrame:
    """Of the lead that each model has in the end, what it has after a share of its blocks, by seed.

    Tasks on which it is within two points of guessing in the end say nothing about when it decides.
    """
    rows = _by_seed(tables["decisions"])
    rows = rows[rows["metric"] == LEAD].astype({"share": float})
    wide = rows.pivot_table(index=["source", "task", "seed"], columns="share", values="value")
    wide = wide[wide[1.0] > 0.02]
    return (wide[share] / wide[1.0]).rename("value").reset_index()


def _silent(tables: Tables) -> pd.DataFrame:
    found = stats.summarise(_reached(tables, HALF), ["source", "task"])
    return units(found, "{source} {task}")


def _later(tables: Tables) -> pd.DataFrame:
    """The smallest anchor minus the source, each task that both can do."""
    rows = _reached(tables, LATE)
    models = list(dict.fromkeys(tables["decisions"]["source"]))
    ends = rows[rows["source"].isin([models[0], models[-1]])]
    wide = ends.pivot_table(index=["task", "seed"], columns="source", values="value")
    if not {models[0], models[-1]} <= set(wide):
        return units(pd.DataFrame(columns=["task", "point", "low", "high", "n"]), "{task}")
    gap = (wide[models[-1]] - wide[models[0]]).dropna().rename("value").reset_index()
    return units(stats.summarise(gap, ["task"]), "{task}")


def _favoured(tables: Tables) -> pd.DataFrame:
    """The favourite's surplus after half of the blocks, minus that in the end."""
    rows = _by_seed(tables["decisions"])
    rows = rows[rows["metric"] == FAVOURITE].astype({"share": float})
    wide = rows.pivot_table(index=["source", "task", "seed"], columns="share", values="value")
    gap = (wide[HALF] - wide[1.0]).rename("value").reset_index()
    return units(stats.summarise(gap, ["source", "task"]), "{source} {task}")


PREDICTIONS = {
    "half of its blocks tell a model little: the first phase is silent": (
        _silent,
        Facts(
            f"The lead over guessing after half of the blocks is below {SOME} of that after all",
            lambda r: r.high < SOME,
            ".2f",
        ),
    ),
    "the smallest anchor decides later in its depth than the source": (
        _later,
        less("Share of the last lead that 0.8 of the blocks have: smallest anchor minus source", "of 1"),
    ),
    "before it decides, a model has a favourite option": (
        _favoured,
        more("Surplus of the option that is taken most: after half of the blocks minus after all", "of 1"),
    ),
}
"""Fixed on 2026-12-01, before the first run."""

"""E1, E6, Q4: what each step of the chain loses, and stepwise against direct distillation."""

import pandas as pd

from cbd.report import stats
from cbd.report.findings.shared import NATS, TOLERATED, against, by_size, sizes, units
from cbd.report.names import ALONE, STEPWISE
from cbd.report.verdicts import Entry, Facts, Tables, above, below, listed


def steps_lost(table: pd.DataFrame) -> pd.DataFrame:
    """What each step of the chain loses and what is lost since the source, nats with interval."""
    rows = table[table["metric"].isin(["lost", "lost_since_source"])]
    found = by_size(stats.summarise(rows, ["metric", "spec"]), rows, "spec")[::-1]  # down the chain
    return found.sort_values("metric", kind="stable", ignore_index=True)


def stepwise_or_direct(table: pd.DataFrame) -> pd.DataFrame:
    """The smallest anchor, direct minus stepwise: final loss and noise of training, with verdict."""
    rows = table[(table["spec"] == next(iter(sizes(table)))) & (table["method"] != ALONE)]
    parts = [against(rows, STEPWISE, metric).assign(metric=metric) for metric in ("final_loss", "loss_noise")]
    return pd.concat(parts)[["metric", "spec", "method", "point", "low", "high", "n", "verdict"]]


def _lost(tables: Tables, metric: str = "lost_since_source", unit: str = "at {spec}") -> pd.DataFrame:
    return units(steps_lost(tables["chain"]).query("metric == @metric"), unit)


def _direct_against_stepwise(tables: Tables) -> pd.DataFrame:
    found = stepwise_or_direct(tables["chain"])
    how, what = found["method"].str.removeprefix("direct, "), found["metric"].str.replace("_", " ")
    return units(found.assign(how=how, what=what), "{what}, {how}")


ROWS = {
    "E1": Entry(
        lambda tables: _lost(tables, "lost", "to {spec}"),
        below(f"Each step of the chain: what it loses, {NATS}", TOLERATED),
    ),
    "E6": Entry(
        _direct_against_stepwise,
        above(
            "Smallest anchor, direct minus stepwise at equal tokens and at equal compute: "
            f"final loss, and noise of the training loss, {NATS}"
        ),
    ),
    "Q4": Entry(
        lambda tables: _lost(tables).tail(1),
        above(f"From the source to the smallest anchor: what is lost, {NATS}"),
        lambda tables: listed(_lost(tables).iloc[:-1]),
    ),
}


def with_gap(found: pd.DataFrame, tables: Tables) -> pd.DataFrame:
    """The rows with `gap`: by how many nats per token their size's larger anchor is better than the smaller.

    Rows without a chain's table, or of a size below the chain, are left out.
    """
    if "chain" not in tables:
        return found.iloc[:0]
    lost = tables["chain"].query("metric == 'lost'").groupby("parameters")["value"].mean()
    smaller = found["parameters"].map(lambda n: lost.index[lost.index < n].max())
    return found.assign(gap=smaller.map(lost)).dropna(subset="gap")


PREDICTIONS = {
    "stepwise beats direct at equal tokens": (
        lambda tables: _direct_against_stepwise(tables).query("unit == 'final loss, equal tokens'"),
        above("Smallest anchor, direct minus stepwise"),
    ),
    "direct wins or ties at equal compute": (
        lambda tables: _direct_against_stepwise(tables).query("unit == 'final loss, equal compute'"),
        Facts("Smallest anchor, direct minus stepwise: interval not above 0", lambda r: r.low <= 0, "+.3f"),
    ),
}

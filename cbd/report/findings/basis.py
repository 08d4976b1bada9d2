"""Beyond the paper: what an anchor's slices are taken from (important channels, or principal axes)."""

import pandas as pd

from cbd.report import stats
from cbd.report.findings.shared import NATS, units, with_verdict
from cbd.report.names import AXES, BETWEEN, DISTILLED, SLICED, SORTED
from cbd.report.verdicts import MARGIN, Facts, Tables, below, less


def losses(table: pd.DataFrame) -> pd.DataFrame:
    """Mean loss (nats per token): a row a family, size and stage, a column a basis."""
    rows = table[(table["metric"] == "loss") & (table["stage"] != "")]
    keys = ["family", "spec", "stage"]
    wide = rows.pivot_table(index=keys, columns="method", values="value", aggfunc="mean", sort=False)
    return wide[[SORTED, AXES]]


def gaps(table: pd.DataFrame) -> pd.DataFrame:
    """Axes minus important channels, by seed, in each family, size and stage (columns: `shared.against`)."""
    rows = table[(table["metric"] == "loss") & table["method"].isin([SORTED, AXES])]
    return with_verdict(stats.paired(rows, ["family", "spec", "stage"], baseline=SORTED))


def _units(tables: Tables, *stages: str) -> pd.DataFrame:
    found = gaps(tables["basis"])
    return units(found[found["stage"].isin(stages)], "{family} {spec} {stage}")


def _against_grown(tables: Tables) -> pd.DataFrame:
    """On the axes: union and cut minus the smaller anchor, grown, in each family and size."""
    rows = tables["basis"].query("metric == 'loss' and method == @AXES")
    rows = rows[rows["stage"].isin(BETWEEN)].assign(method=rows["stage"])
    return units(stats.paired(rows, ["family", "spec"], baseline="grown"), "{family} {spec} {method}")


START = 0.2  # nats per token: what a better start is worth before any training
PREDICTIONS = {
    "slices of principal axes start far lower": (
        lambda tables: _units(tables, SLICED),
        below(f"Each anchor before training: axes minus important channels, {NATS}", -START),
    ),
    "distilled on the same tokens, they still end lower": (
        lambda tables: _units(tables, DISTILLED),
        less("Each anchor: axes minus important channels"),
    ),
    "sizes in between start lower, too, by union and cut": (
        lambda tables: _units(tables, "union", "cut"),
        less("Each size in between: axes minus important channels"),
    ),
    "in between nothing beats the smaller anchor, grown": (
        _against_grown,
        Facts(
            f"On the axes, each other start minus the smaller anchor, grown: interval not below -{MARGIN:g}",
            lambda r: r.high >= -MARGIN,
            "+.3f",
        ),
    ),
}
"""Fixed on 2026-11-29, before the table was made, and after one seed of two small GPT-2s."""

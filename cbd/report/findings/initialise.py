"""E2, E10, Q3: every start at step zero, without training."""

import pandas as pd

from cbd.recipes.starts import STARTS
from cbd.report.findings.chain import with_gap
from cbd.report.findings.shared import BETTER, NATS, TOLERATED, against, paired, sizes, units, with_better
from cbd.report.names import CBD, LARGER, LITERAL, RANDOM, SMALLER
from cbd.report.verdicts import Entry, Facts, Tables, above, below


def step_zero(table: pd.DataFrame) -> pd.DataFrame:
    """Mean step-zero loss (nats per token), a row a target size, a column a method."""
    rows = table[table["metric"] == "loss"]
    wide = rows.pivot_table(index="spec", columns="method", values="value", aggfunc="mean")
    return wide.loc[list(sizes(rows))]


def against_better_anchor(table: pd.DataFrame) -> pd.DataFrame:
    """Every other start minus the better single anchor of each size and seed (see `shared.against`)."""
    rows = with_better(table)
    return against(rows[~rows["method"].isin([SMALLER, LARGER])], BETTER)


def start_against_better(tables: Tables) -> pd.DataFrame:
    """CBD minus the better single anchor, as units."""
    return paired(with_better(tables["initialise"]), CBD, BETTER)


def _other_operators(tables: Tables) -> pd.DataFrame:
    """Every other operator minus union, in groups by operator."""
    rows, mixed = tables["initialise"], [start.label for start in STARTS.values() if start.operator]
    found = against(rows[rows["method"].isin(mixed)], CBD)
    return units(found.sort_values("method", kind="stable"), "{method} {spec}", "{method}")


ROWS = {
    "E2": Entry(
        lambda tables: paired(tables["initialise"], CBD, RANDOM),
        below(f"Step zero, each size: CBD (union) minus random, {NATS}"),
    ),
    "E10": Entry(
        start_against_better,
        below(f"Step zero, each size: CBD (union) minus the better single anchor, {NATS}"),
    ),
    "Q3": Entry(_other_operators, above(f"Step zero, each size: each other operator minus union, {NATS}")),
}

WIDE = 1.0  # nats per token: "a wide margin"


def _union_by_gap(tables: Tables) -> pd.DataFrame:
    found = paired(tables["initialise"], CBD, SMALLER)
    found = with_gap(found.assign(parameters=found["spec"].map(sizes(tables["initialise"]))), tables)
    return units(found, "{spec} (anchors {gap:.2f} apart)")


PREDICTIONS = {
    "all starts beat random by a wide margin": (
        lambda tables: units(against(tables["initialise"], RANDOM), "{method} {spec}"),
        below(f"Each start minus random, {NATS}", -WIDE),
    ),
    "literal mixing never beats the grown smaller anchor": (
        lambda tables: paired(tables["initialise"], LITERAL, SMALLER),
        Facts("Literal minus the grown smaller anchor: interval not below 0", lambda r: r.high >= 0, "+.3f"),
    ),
    "union beats the grown smaller anchor only where the anchors differ clearly": (
        _union_by_gap,
        Facts(
            f"Union minus the grown smaller anchor: not below 0, or anchors over {TOLERATED} apart",
            lambda r: r.high >= 0 or abs(r.gap) > TOLERATED,
            "+.3f",
        ),
    ),
}

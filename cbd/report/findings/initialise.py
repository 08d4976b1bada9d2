"""E2, E10, Q3: every start at step zero, without training."""

import pandas as pd

from cbd.recipes.starts import STARTS
from cbd.report.findings.chain import with_gap
from cbd.report.findings.shared import (
    BETTER,
    NATS,
    NEAREST,
    SINGLE,
    WEAK,
    against,
    judged,
    nearest,
    on_every_text,
    paired,
    sizes,
    task_means,
    units,
    with_better,
    with_nearest,
)
from cbd.report.names import AVERAGE, CBD, LARGER, LITERAL, RANDOM, SMALLER, SOURCE, STEPWISE, loss_on
from cbd.report.verdicts import MARGIN, Control, Entry, Facts, Tables, below, less, more, number


def minus(table: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Every other start minus one: a row a size and start, a column a text; means over seeds, nats per token.

    Random weights are left out, and sizes without the baseline.
    """
    found = judged(table[table["method"] != RANDOM], ["parameters", "spec", "method"])
    losses = [name for name in found if name == "loss" or name.startswith(loss_on(""))]
    one = found[found["method"] == baseline].set_index("spec")[losses]
    others = found[found["spec"].isin(one.index) & (found["method"] != baseline)].set_index(
        ["spec", "method"]
    )
    return others[losses].sub(one, level="spec")


def step_zero(table: pd.DataFrame) -> pd.DataFrame:
    """Mean step-zero loss (nats per token), a row a target size, a column a method."""
    rows = table[table["metric"] == "loss"]
    wide = rows.pivot_table(index="spec", columns="method", values="value", aggfunc="mean")
    return wide.loc[list(sizes(rows))]


def against_better_anchor(table: pd.DataFrame) -> pd.DataFrame:
    """Every other start minus the better single anchor of each size and seed (see `shared.against`)."""
    rows = with_better(table)
    return against(rows[~rows["method"].isin([SMALLER, LARGER])], BETTER)


def tasks(tables: Tables) -> pd.DataFrame:
    """CBD minus the nearest single anchor, untrained: the mean of the tasks in points of 100, as units.

    Empty where no task was scored at step zero.
    """
    found = task_means(tables["initialise"], ["spec", "parameters", "method", "seed"]).assign(metric=AVERAGE)
    return paired(with_nearest(found, nearest(tables), AVERAGE), CBD, NEAREST, AVERAGE)


def every_size(initialise: pd.DataFrame, chain: pd.DataFrame) -> pd.DataFrame:
    """What a chain gives, a row a size from small to large: its models, and untrained CBD in between.

    Columns: parameters, spec, method, the loss on every text (nats per token), each task's score. Means over
    seeds; NaN where a score was not taken.
    """
    own = chain[chain["method"].isin([SOURCE, STEPWISE]) & (chain["metric"] != "loss")]
    own = own.assign(metric=own["metric"].replace({"final_loss": "loss"}))
    rows = pd.concat([own, initialise[initialise["method"] == CBD]], ignore_index=True)
    return judged(rows, ["parameters", "spec", "method"])


def start_against(tables: Tables, baseline: str) -> pd.DataFrame:
    """CBD minus the nearest or the better single anchor, as units."""
    rows = with_better(tables["initialise"])
    return paired(with_nearest(rows, nearest(tables)), CBD, baseline)


def _other_operators(tables: Tables) -> pd.DataFrame:
    """Every other operator minus union, in groups by operator."""
    rows, mixed = tables["initialise"], [start.label for start in STARTS.values() if start.operator]
    found = against(rows[rows["method"].isin(mixed)], CBD)
    return units(found.sort_values("method", kind="stable"), "{method} {spec}", "{method}")


def against_oracle(found: pd.DataFrame) -> str:
    """The same against the better anchor, which nobody knows beforehand."""
    return f"Against the better anchor, known afterwards: {number(found, '+.3f')}"


def _beside(tables: Tables) -> str:
    """What stands beside E10's verdict, which is that of the losses."""
    said, found = against_oracle(start_against(tables, BETTER)), tasks(tables)
    return f"{said}. Average of the tasks, points: {number(found, '+.2f')}" if len(found) else said


ROWS = {
    "E2": Entry(
        on_every_text("initialise", lambda tables: paired(tables["initialise"], CBD, RANDOM)),
        less("Step zero, each size: CBD (union) minus random"),
        control=WEAK,
    ),
    "E10": Entry(
        on_every_text("initialise", lambda tables: start_against(tables, NEAREST)),
        less("Step zero, each size: CBD (union) minus the nearest single anchor"),
        _beside,
        control=SINGLE,
    ),
    "Q3": Entry(
        on_every_text("initialise", _other_operators),
        more("Step zero, each size: each other operator minus union"),
        control=Control("the other readings of the formula", "fair"),
    ),
}

WIDE, CLEAR = 1.0, 0.05  # nats per token: "a wide margin", "differ clearly"


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
        Facts(
            f"Literal minus the grown smaller anchor: interval not below -{MARGIN:g}",
            lambda r: r.high >= -MARGIN,
            "+.3f",
        ),
    ),
    "union beats the grown smaller anchor only where the anchors differ clearly": (
        _union_by_gap,
        Facts(
            f"Union minus the grown smaller anchor: not below -{MARGIN:g}, or anchors over {CLEAR} apart",
            lambda r: r.high >= -MARGIN or abs(r.gap) > CLEAR,
            "+.3f",
        ),
    ),
}

"""E1, E6, Q4: what each step of the chain loses, with and without a teacher, and stepwise or direct."""

import pandas as pd

from cbd.report import stats
from cbd.report.findings.shared import against, by_size, on_every_text, sizes, units
from cbd.report.names import ALONE, STEPWISE
from cbd.report.verdicts import MARGIN, Control, Entry, Facts, Tables, less, listed, more


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


def taught(table: pd.DataFrame, method: str = STEPWISE, baseline: str = ALONE) -> pd.DataFrame:
    """At each anchor: distilled minus trained on by cross-entropy alone, nats per token; or the reverse."""
    rows = table.query("metric == 'final_loss' and method in [@STEPWISE, @ALONE]")
    rows = rows[rows["spec"].isin(rows.loc[rows["method"] == ALONE, "spec"])]
    return against(rows, baseline, "final_loss") if len(rows) else rows.iloc[:0]


def _taught(tables: Tables, method: str, baseline: str) -> pd.DataFrame:
    return units(taught(tables["chain"], method, baseline), "{spec}")


def _direct(tables: Tables, metric: str) -> pd.DataFrame:
    return _direct_against_stepwise(tables).query("metric == @metric")


TEACHERLESS = Control("cross-entropy alone, equal tokens", "fair")

ROWS = {
    "E1": Entry(
        on_every_text("chain", lambda tables: _taught(tables, STEPWISE, ALONE), "final_loss"),
        less("Each anchor, distilled minus trained on by cross-entropy alone"),
        lambda tables: f"Lost at each step: {listed(_lost(tables, 'lost', 'to {spec}'))}",
        control=TEACHERLESS,
    ),
    "E6": Entry(
        on_every_text("chain", lambda tables: _direct(tables, "final_loss"), "final_loss"),
        more("Smallest anchor, direct minus stepwise at equal tokens and at equal compute"),
        lambda tables: listed(_direct(tables, "loss_noise")),
        control=Control("direct distillation, equal tokens and equal compute", "fair"),
    ),
    "Q4": Entry(
        lambda tables: _lost(tables).tail(1),
        more("From the source to the smallest anchor: what is lost"),
        lambda tables: listed(_lost(tables).iloc[:-1]),
        control=Control("its source, which is larger", "weak"),
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
    "every anchor gains by its teacher": (
        lambda tables: _taught(tables, STEPWISE, ALONE),
        less("Each anchor, distilled minus trained on by cross-entropy alone"),
    ),
    "stepwise beats direct at equal tokens": (
        lambda tables: _direct(tables, "final_loss").query("unit == 'final loss, equal tokens'"),
        more("Smallest anchor, direct minus stepwise"),
    ),
    "direct wins or ties at equal compute": (
        lambda tables: _direct(tables, "final_loss").query("unit == 'final loss, equal compute'"),
        Facts(
            f"Smallest anchor, direct minus stepwise: interval not above {MARGIN:g}",
            lambda r: r.low <= MARGIN,
            "+.3f",
        ),
    ),
}

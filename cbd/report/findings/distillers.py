"""Q5: whether another loss is better for a step of the chain, every loss at the best of its rates."""

import pandas as pd

from cbd.report.findings.initialise import CLEAR
from cbd.report.findings.shared import against, units
from cbd.report.names import (
    ALONE,
    FORWARD,
    JSD,
    MINILLM,
    ON_POLICY,
    PURE,
    REVERSE,
    SEQKD,
    STATES,
    rate_named,
)
from cbd.report.verdicts import Control, Entry, Facts, Tables, less, more

STUDENT = ["source", "spec"]  # a teacher and the size that it teaches
OWN = rate_named(1)  # the chain's


def best_rates(table: pd.DataFrame) -> pd.DataFrame:
    """The rate of each student and loss whose final loss is lowest, the mean over seeds.

    Columns: source (its teacher), spec, method, stage (the rate), value (nats per token), edge (whether it is
    the lowest or the highest of those that were tried), gain (how much lower than at the chain's own rate).
    """
    rows = table[table["metric"] == "final_loss"]
    tried = list(dict.fromkeys(rows["stage"]))
    means = rows.groupby([*STUDENT, "method", "stage"], sort=False)["value"].mean()
    best = means.loc[means.groupby(level=[0, 1, 2], sort=False).idxmin()].reset_index()
    own = means.xs(OWN, level="stage").rename("own")
    best = best.join(own, on=[*STUDENT, "method"])
    edge = best["stage"].isin([tried[0], tried[-1]])
    return best.assign(edge=edge, gain=best["own"] - best["value"]).drop(columns="own")


def minus(table: pd.DataFrame, baseline: str = REVERSE) -> pd.DataFrame:
    """Every other loss minus a baseline, both at their best rates, with intervals over seeds.

    Columns: those of `shared.against`, by teacher (`source`) and size.
    """
    chosen = best_rates(table)[[*STUDENT, "method", "stage"]]
    return against(table.merge(chosen, on=[*STUDENT, "method", "stage"]), baseline, "final_loss", STUDENT)


def _units(tables: Tables, *methods: str, baseline: str = REVERSE) -> pd.DataFrame:
    found = minus(tables["distillers"], baseline)
    wanted = found["method"].isin(methods or set(found["method"]) - {baseline})
    return units(found[wanted], "{spec} from {source}: {method}", "{spec} from {source}")


def _best_other(tables: Tables) -> pd.DataFrame:
    found = _units(tables)
    return found.loc[found.groupby("group", sort=False)["point"].idxmin()].drop(columns="group")


def _own_rate(tables: Tables) -> pd.DataFrame:
    """Reverse KL at its best rate minus at the chain's own."""
    table = tables["distillers"].query("metric == 'final_loss' and method == @REVERSE")
    best = best_rates(table).set_index(STUDENT)["stage"]
    chosen = pd.Series([best[key] for key in zip(table["source"], table["spec"], strict=True)], table.index)
    two = [
        table[table["stage"] == OWN].assign(method=OWN),
        table[table["stage"] == chosen].assign(method="best"),
    ]
    found = against(pd.concat(two), OWN, "final_loss", STUDENT)
    return units(found[found["method"] == "best"], "{spec} from {source}")


ROWS = {
    "Q5": Entry(
        _best_other,
        less("The chain's second step and its last: the best other loss minus reverse KL, both tuned alike"),
        control=Control("reverse KL, tuned alike, equal tokens", "fair"),
    ),
}

PREDICTIONS = {
    "every loss on the teacher's distribution beats cross-entropy alone": (
        lambda tables: _units(tables, REVERSE, PURE, FORWARD, JSD, STATES, baseline=ALONE),
        less("Each student: a loss with a teacher minus cross-entropy alone"),
    ),
    "forward KL and Jensen-Shannon are no clearly different from reverse KL": (
        lambda tables: _units(tables, FORWARD, JSD),
        Facts(
            f"Each student: forward KL and Jensen-Shannon minus reverse KL, within {CLEAR}",
            lambda r: r.low >= -CLEAR and r.high <= CLEAR,
            "+.3f",
        ),
    ),
    "the teacher's text teaches less than the corpus itself": (
        lambda tables: _units(tables, SEQKD, baseline=ALONE),
        more("Each student: cross-entropy on the teacher's text minus on the corpus"),
    ),
    "the chain's own rate is too low": (
        _own_rate,
        less("Each student, reverse KL: at its best rate minus at the chain's own"),
    ),
    "at equal tokens a student's own text teaches less than the corpus": (
        lambda tables: _units(tables, ON_POLICY, MINILLM),
        more("Each student: GKD and MiniLLM minus reverse KL on the corpus"),
    ),
}
"""Fixed on 2026-11-30, before the first run; the last one before the first run that has its methods."""

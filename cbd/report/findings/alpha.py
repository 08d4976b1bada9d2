"""E7, Q6: where the best alpha lies, and what the rule's alpha loses against it."""

from __future__ import annotations

import pandas as pd

from cbd.report import stats
from cbd.report.findings.shared import NATS, TOLERATED, by_size, counted, near, rule_alphas, sizes, units
from cbd.report.findings.shared import optima as optima_of
from cbd.report.verdicts import Entry, Facts, Sides, Tables

NEAR = 0.25  # how far the best alpha may lie from the rule's: a quarter of the way between the anchors


def optima(table: pd.DataFrame) -> pd.DataFrame:
    """The best alpha of every curve; method is the kind of anchors (columns: see `shared.optima`)."""
    rows = table[table["metric"] == "loss"]
    keys = ["method", "mixing", "operator", "spec"]
    found = optima_of(rows, keys, rule_alphas(table, "spec"))
    return by_size(found, rows, "method", "mixing", "operator", "spec")


def lossy_hypothesis(table: pd.DataFrame) -> str:
    """The verdict on "the paper's interior optimum measures a lossy expansion", by a rule.

    Supported when, with inherited anchors and the literal formula, every target's best alpha is interior
    under the lossy expansion and at alpha = 1 under the preserving one; partly when this holds for some; else
    not.
    """
    found = optima(table)
    curves = found[(found["method"] == "inherited") & (found["mixing"] == "literal")]
    curves = curves.set_index(["operator", "spec"])
    specs = list(sizes(table[table["metric"] == "loss"]))
    lossy = [bool(curves.loc[("lossy", s), "interior"]) for s in specs]
    preserving = [curves.loc[("preserving", s), "best_alpha"] == 1.0 for s in specs]
    both = sum(a and b for a, b in zip(lossy, preserving, strict=True))
    word = "supported" if both == len(specs) else "partly supported" if both else "not supported"
    return (
        f"{word}: with inherited anchors and the literal formula the best alpha is interior for "
        f"{sum(lossy)} of {len(specs)} targets under the lossy expansion, "
        f"and alpha = 1 is best for {sum(preserving)} of {len(specs)} under the preserving one"
    )


# ---- the scorecard


def _inherited(tables: Tables) -> pd.DataFrame:
    rows = tables["alpha"]
    return rows[(rows["metric"] == "loss") & (rows["method"] == "inherited")]


def _best_alphas(tables: Tables) -> pd.DataFrame:
    """Each seed's best alpha with inherited anchors; the column `rule` is the parameter distance's."""
    keys = ["mixing", "operator", "spec"]
    rows = [
        dict(zip([*keys, "seed"], key, strict=True))
        | {"value": stats.best_alpha(list(curve["alpha"]), list(curve["value"])).alpha}
        for key, curve in _inherited(tables).groupby([*keys, "seed"], sort=False)
    ]
    found = stats.summarise(pd.DataFrame(rows), keys)
    found = found.assign(rule=found["spec"].map(rule_alphas(tables["alpha"], "spec")))
    return units(found, "{mixing}, {operator} {spec}", "{mixing}, {operator}")


def _regret(tables: Tables) -> pd.DataFrame:
    """What the rule's alpha loses against the best one, which each seed picks for itself: too strict."""
    rows = _inherited(tables)
    rule = rule_alphas(tables["alpha"], "spec")
    rows = rows[(rows["mixing"] == "union") & (rows["operator"] == "preserving")]
    lost = [
        {"spec": spec, "seed": seed, "value": near(curve, rule[spec]) - curve["value"].min()}
        for (spec, seed), curve in rows.groupby(["spec", "seed"])
    ]
    return units(by_size(stats.summarise(pd.DataFrame(lost), ["spec"]), rows, "spec"), "{spec}")


ROWS = {
    "E7": Entry(
        ("alpha",),
        _best_alphas,
        Facts(
            "Inherited anchors, each reading and target: the interval of the best alpha lies inside 0 to 1, "
            f"and its mean within {NEAR:g} of the alpha by distance",
            lambda row: row.low > 0 and row.high < 1 and abs(row.point - row.rule) <= NEAR,
        ),
    ),
    "Q6": Entry(
        ("alpha",),
        _regret,
        Sides(
            "Inherited anchors, union, each target: loss at the grid's alpha nearest to that by distance "
            f"minus loss at the best alpha, {NATS}",
            "below",
            TOLERATED,
        ),
    ),
}


# ---- what the notebook predicted before the runs

PREDICTIONS = {
    "with independent anchors an end wins": (
        lambda tables: counted(optima(tables["alpha"]).query("method == 'independent'"), "gain", "{spec}"),
        Facts("What the best alpha gains over both ends: nothing", lambda r: r.point <= 0, ".3f"),
    ),
    "union has an interior optimum near the rule": (
        lambda tables: units(_best_alphas(tables).query("mixing == 'union'"), "{spec} (rule {rule:.2f})"),
        Facts(
            f"Inherited anchors: best alpha inside 0 to 1, within {NEAR} of the rule's", ROWS["E7"].rule.test
        ),
    ),
}

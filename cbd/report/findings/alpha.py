"""E7, Q6: where the best alpha lies, and what the rule's alpha loses against it."""

import pandas as pd

from cbd.report import stats
from cbd.report.findings.shared import (
    NATS,
    by_seed,
    by_size,
    counted,
    near,
    on_every_text,
    rule_alphas,
    units,
)
from cbd.report.findings.shared import optima as optima_of
from cbd.report.verdicts import MARGIN, Entry, Facts, Tables, below

NEAR = 0.25  # how far the best alpha may lie from the rule's: a quarter of the way between the anchors


def optima(table: pd.DataFrame) -> pd.DataFrame:
    """The best alpha of every curve; method is the kind of anchors (columns: see `shared.optima`)."""
    rows = table[table["metric"] == "loss"]
    keys = ["method", "mixing", "operator", "spec"]
    return by_size(optima_of(rows, keys, rule_alphas(table, "spec")), rows, *keys)


def _inherited(tables: Tables) -> pd.DataFrame:
    return tables["alpha"].query("metric == 'loss' and method == 'inherited'")


def _best_alphas(tables: Tables) -> pd.DataFrame:
    """Each seed's best alpha with inherited anchors; the column `rule` is the parameter distance's."""
    best = lambda curve: stats.best_alpha(curve["alpha"], curve["value"]).alpha  # noqa: E731
    found = by_seed(_inherited(tables), ["mixing", "operator", "spec"], best)
    rule = found["spec"].map(rule_alphas(tables["alpha"], "spec"))
    return units(found.assign(rule=rule), "{spec}, {mixing} {operator} (rule {rule:.2f})")


def _best_readings(tables: Tables) -> pd.DataFrame:
    """The best alphas of the reading that is lowest at its best alpha, for each size."""
    lowest = optima(tables["alpha"]).query("method == 'inherited'")
    lowest = lowest.loc[lowest.groupby("spec", sort=False)["value"].idxmin()]
    return lowest[["spec", "mixing", "operator"]].merge(_best_alphas(tables))


def _regret(tables: Tables) -> pd.DataFrame:
    """What the rule's alpha loses against the best one, which each seed picks for itself: too strict."""
    rows = _inherited(tables).query("mixing == 'union' and operator == 'preserving'")
    rule = rule_alphas(tables["alpha"], "spec")
    lost = lambda curve: near(curve, rule[curve["spec"].iloc[0]]) - curve["value"].min()  # noqa: E731
    return units(by_size(by_seed(rows, ["spec"], lost), rows, "spec"), "{spec}")


def _literal(tables: Tables) -> pd.DataFrame:
    """Where the best alpha lies with inherited anchors and the literal formula, by expansion."""
    found = optima(tables["alpha"]).query("method == 'inherited' and mixing == 'literal'")
    return counted(found, "best_alpha", "{operator} {spec}")


ROWS = {
    "E7": Entry(
        on_every_text("alpha", _best_readings),
        Facts(
            "Inherited anchors, each target by the reading with the lowest loss: the interval of the best "
            f"alpha lies inside 0 to 1, and its mean within {NEAR:g} of the alpha by distance",
            lambda row: row.low > 0 and row.high < 1 and abs(row.point - row.rule) <= NEAR,
        ),
    ),
    "Q6": Entry(
        on_every_text("alpha", _regret),
        below(
            "Inherited anchors, union, each target: loss at the grid's alpha nearest to that by distance "
            f"minus loss at the best alpha, {NATS}",
            MARGIN,
        ),
    ),
}

PREDICTIONS = {
    "H: the paper's interior optimum measures the loss of its expansion": (
        _literal,
        Facts(
            "Inherited anchors, literal: best alpha inside 0 to 1 by the lossy expansion, at 1 by the other",
            lambda r: r.interior if r.operator == "lossy" else r.point == 1,
        ),
    ),
    "with independent anchors an end wins": (
        lambda tables: counted(optima(tables["alpha"]).query("method == 'independent'"), "gain", "{spec}"),
        Facts("What the best alpha gains over both ends: nothing", lambda r: r.point <= 0, ".3f"),
    ),
    "union has an interior optimum near the rule": (
        lambda tables: _best_alphas(tables).query("mixing == 'union'"),
        Facts(
            f"Inherited anchors: best alpha inside 0 to 1, within {NEAR} of the rule's", ROWS["E7"].rule.test
        ),
    ),
}

"""Q9: one chain in each family, and whether mixing its anchors gains anything."""

import pandas as pd

from cbd.report.findings.initialise import against_oracle
from cbd.report.findings.shared import SINGLE, by_seed, counted, near, rule_alphas, units
from cbd.report.findings.shared import optima as optima_of
from cbd.report.verdicts import BITS, Entry, Facts, Tables, less


def optima(table: pd.DataFrame) -> pd.DataFrame:
    """The best alpha of every family's curves, in bits per byte (columns: see `shared.optima`)."""
    rows = table[(table["metric"] == "bits_per_byte") & (table["method"] == "CBD")]
    return optima_of(rows, ["family", "spec", "mixing", "operator"], rule_alphas(table, "family", "spec"))


def _against_end(tables: Tables, better: bool = False) -> pd.DataFrame:
    """Union at the rule's alpha minus the nearest, or the better, end of the grid, in families but GPT-2."""
    rule = rule_alphas(tables["families"], "family", "spec")
    rows = tables["families"].query("metric == 'bits_per_byte' and family != 'gpt2'")

    def gap(curve: pd.DataFrame) -> float:
        alpha = rule[tuple(curve[["family", "spec"]].iloc[0])]
        ends = curve.loc[curve["alpha"].isin([0, 1] if better else [float(alpha >= 0.5)]), "value"]
        return near(curve, alpha) - ends.min()

    curves = rows.query("method == 'CBD' and mixing == 'union'")
    return units(by_seed(curves, ["family", "spec"], gap), "{family} {spec}", "{family}")


ROWS = {
    "Q9": Entry(
        _against_end,
        less("Each family but GPT-2: union at the alpha by distance minus the nearest end of the grid", BITS),
        lambda tables: against_oracle(_against_end(tables, better=True)),
        control=SINGLE,
    )
}


def _literal(tables: Tables, column: str) -> pd.DataFrame:
    found = optima(tables["families"]).query("mixing == 'literal' and operator == 'preserving'")
    return counted(found, column, "{family} {spec}")


def _shapes(tables: Tables) -> pd.DataFrame:
    """In which share of the families a curve's best alpha is interior."""
    keys = ["mixing", "operator", "spec"]
    shares = optima(tables["families"]).groupby(keys, sort=False)["interior"].mean().reset_index()
    return counted(shares, "interior", "{mixing}, {operator} {spec}")


PREDICTIONS = {
    "the curves over alpha have one shape in all four families": (
        _shapes,
        Facts(
            "Each curve: the best alpha is interior in all families (1) or in none (0)",
            lambda r: r.point in (0, 1),
        ),
    ),
    "with the literal formula and preserving expansion an end is best": (
        lambda tables: _literal(tables, "gain"),
        Facts("What the best alpha gains over both ends: nothing", lambda r: r.point <= 0, ".3f"),
    ),
    "the rule's alpha is not best there": (
        lambda tables: _literal(tables, "best_alpha"),
        Facts(
            "Best alpha: over 0.1, a step of the grid, from the rule's", lambda r: abs(r.point - r.rule) > 0.1
        ),
    ),
}

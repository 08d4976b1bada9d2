"""Whether alphas learned from text make a mixture better than the rule's, or than the nearest anchor (Q6)."""

import re
from typing import Any

import pandas as pd

from cbd.report.findings.convergence import ends
from cbd.report.findings.shared import NATS, NEAREST, against, judged, nearest, units, with_nearest
from cbd.report.names import CBD, FITTED
from cbd.report.verdicts import MARGIN, Tables, above, less

ZERO, AFTER = "at step zero", "after recovery"


def learned_against(table: pd.DataFrame) -> pd.DataFrame:
    """Each mixture with learned alphas minus the rule's, and minus the nearest anchor alone, in each size.

    Columns: those of `shared.against`, `when` (untrained, or after equal tokens), and `minus` (the other).
    """
    losses, found = with_nearest(table, nearest({"alpha": table})), []
    for rows, when in ((losses[losses["tokens"] == 0], ZERO), (ends(losses), AFTER)):
        for other in (CBD, NEAREST):
            for method in FITTED.values():
                pair = rows[rows["method"].isin([method, other])]
                found.append(against(pair, other).assign(when=when, minus=other))
    return pd.concat(found, ignore_index=True)


def by_start(table: pd.DataFrame) -> pd.DataFrame:
    """Every start, untrained (budget 0) and after recovery: losses on every text and scores (`judged`)."""
    losses = table[table["metric"] == "loss"]
    untrained, others = losses[losses["tokens"] == 0], table[table["metric"] != "loss"]
    rows = pd.concat([untrained.assign(budget=0), ends(table), others[others["metric"] != "rule_alpha"]])
    return judged(rows, ["parameters", "spec", "budget", "method"])


def learned(records: list[dict[str, Any]]) -> pd.DataFrame:
    """What each kind of tensor takes from the smaller anchor, where each has an alpha of its own.

    Columns: tensor, alpha (the mean over blocks, sizes and seeds), below 0.1 and above 0.9 (shares), n.
    """
    found = [
        {"tensor": re.sub(r"\.\d+\.", ".#.", name), "alpha": alpha}
        for record in records
        if record.get("recipe") == "Fitted" and record["fields"].get("per", "tensor") == "tensor"
        for name, alpha in record["alphas"].items()
    ]
    groups = pd.DataFrame(found, columns=["tensor", "alpha"]).groupby("tensor", sort=False)["alpha"]
    shares = {
        "below 0.1": groups.apply(lambda a: (a < 0.1).mean()),
        "above 0.9": groups.apply(lambda a: (a > 0.9).mean()),
    }
    return pd.DataFrame({"alpha": groups.mean(), **shares, "n": groups.size()}).reset_index()


def _by_tensor(tables: Tables, when: str, minus: str) -> pd.DataFrame:
    found = learned_against(tables["better_interpolation"])
    wanted = (found["method"] == FITTED["tensor"]) & (found["when"] == when) & (found["minus"] == minus)
    return units(found[wanted], "{spec}")


PREDICTIONS = {
    "untrained, an alpha a tensor starts below the nearest anchor in every size": (
        lambda tables: _by_tensor(tables, ZERO, NEAREST),
        less("Step zero: an alpha a tensor minus the nearest anchor"),
    ),
    "after equal tokens it is still below the nearest anchor in every size": (
        lambda tables: _by_tensor(tables, AFTER, NEAREST),
        less("After recovery: an alpha a tensor minus the nearest anchor"),
    ),
    "and gains nothing over the rule's alpha": (
        lambda tables: _by_tensor(tables, AFTER, CBD),
        above(f"After recovery: an alpha a tensor minus the rule's alpha, {NATS}", -MARGIN),
    ),
}
"""Fixed on 2026-11-30, before the first run but a pilot of step zero with one seed, where the first held."""

"""The ladder check: a finished run must not end above a longer run's own curve at the same tokens. No torch.

The longer run has not annealed its rate there. Where it is ahead all the same, the shorter one lacked warm-up
or rate, and what is compared with it beats a baseline that was not tuned.
"""

from collections.abc import Iterable
from itertools import combinations

import numpy as np
import pandas as pd

from cbd.report import results
from cbd.report.names import CURVE
from cbd.report.verdicts import Tables

SLACK = 0.02  # nats per token


def ladder(table: pd.DataFrame) -> pd.DataFrame:
    """Every finished run against each longer one of its method, size and seed that left a curve.

    Columns: method, spec, seed, budget, longer (the other's budget), loss (at the end), curve (the longer
    run's at the same tokens, linear in their logarithm), excess (loss - curve). Losses in nats per token.
    """
    found, keys = [], ["method", "spec", "seed"]
    metric = CURVE if (table["metric"] == CURVE).any() else "loss"
    rows = table[(table["metric"] == metric) & (table["tokens"] > 0)].sort_values("tokens")
    for key, runs in rows.groupby(keys):
        curves = [(budget, run[["tokens", "value"]].astype(float)) for budget, run in runs.groupby("budget")]
        for (budget, run), (longer, curve) in combinations(curves, 2):
            tokens, loss = run.iloc[-1]
            if len(curve) > 1:
                level = np.interp(np.log(tokens), np.log(curve["tokens"]), curve["value"])
                found.append((*key, budget, longer, loss, level, loss - level))
    return pd.DataFrame(found, columns=[*keys, "budget", "longer", "loss", "curve", "excess"])


def worst(tables: Tables) -> dict[str, pd.Series]:
    """Method -> its run that ends highest above a longer one's curve, over all tables that have curves."""
    runs = [run for table in tables.values() for _, run in ladder(table).iterrows()]
    return {run["method"]: run for run in sorted(runs, key=lambda run: run["excess"])}  # the last one stays


def failing(tables: Tables, needed: Iterable[str], method: str) -> set[tuple[str, int]]:
    """The runs of a method in the tables `needed`, by size and budget, that fail the check in any table."""
    needed = [tables[name] for name in needed]
    rows = [table.loc[table["method"] == method, ["spec", "budget"]].dropna() for table in needed]
    own = {pair for row in rows for pair in row.itertuples(index=False, name=None)}
    runs = [run for table in tables.values() for run in ladder(table).itertuples() if run.method == method]
    return own & {(run.spec, run.budget) for run in runs if run.excess > SLACK}


def told(scale: str) -> str:
    """The check of every method at a scale, a line each."""
    lines, tables = [], {name: results.read_table(scale, name) for name in results.names(scale)}
    for method, run in sorted(worst(tables).items()):
        verdict = "fails" if run["excess"] > SLACK else "holds"
        run = f"{run['spec']}, {run['budget']:,} tokens: {run['excess']:+.3f} nats against {run['longer']:,}"
        lines.append(f"ladder check {verdict} for {method} (at worst {run})")
    return "\n".join(lines)

"""Q1: whether seeds stand behind every measured table."""

import pandas as pd

from cbd.report.findings.shared import exact
from cbd.report.verdicts import Entry, Facts, Tables

SEEDS = 3


def _seeds(tables: Tables) -> pd.DataFrame:
    """Seeds of each table with standard errors and with anything drawn at random."""
    seeded = {name: table.dropna(subset=["stderr", "seed"]) for name, table in tables.items()}
    counts = {name: int(table["seed"].nunique()) for name, table in seeded.items() if len(table)}
    return exact(counts).assign(n=list(counts.values()))


ROWS = {
    "Q1": Entry(
        _seeds,
        Facts(f"Each measured table: at least {SEEDS} seeds", lambda row: row.n >= SEEDS, ".0f"),
        needs=(),
    )
}

"""What results/ has of an experiment from an earlier run: it need not be made again when the store is empty.

So a table can be made seed by seed, or get one more size, on a machine that has nothing of the others.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from cbd.errors import CbdError
from cbd.recipes.base import Recipe
from cbd.recipes.evaluation import Downstream
from cbd.recipes.training import Run
from cbd.report import results

Items = dict[str, dict[str, list[float]]]
"""Recipe's key -> metric -> the score of every item."""


@dataclass(frozen=True)
class Earlier:
    """Rows by what they are about (`labels`), records by key, and scores of items."""

    rows: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    records: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    items: Items = field(default_factory=dict)
    seeds: Set[int] = frozenset()

    @classmethod
    def read(cls, name: str, scale: str) -> "Earlier":
        """Of a table that is as it was written; nothing otherwise."""
        if not results.intact(scale, name):
            return cls()
        try:
            table = results.read_table(scale, name)
        except CbdError:  # of another schema
            return cls()
        rows = dict(iter(table.groupby(labels(table), sort=False)))
        records = {record["key"]: record for record in results.read_records(scale, name)}
        return cls(rows, records, results.read_items(scale, name), set(table["seed"].dropna()))

    def of(self, about: str, recipe: Recipe, metric: str) -> list[dict]:
        """The rows of a measurement, none where it has to be made. about: its labels."""
        if recipe.key not in self.records or about not in self.rows:
            return []
        if isinstance(recipe, Downstream) and recipe.key not in self.items:
            return []
        found = self.rows[about]
        if isinstance(recipe, Run):  # a curve; what is derived from a run has rows of the same labels
            found = found[found["metric"] == metric]
        return found.to_dict("records")

    def run_records(self, recipes: Iterable[Recipe]) -> dict[str, dict[str, Any]]:
        """The records of those of the recipes that have one, and of the machines that they ran on, by key."""
        found = {r.key: self.records[r.key] for r in recipes if r.key in self.records}
        return found | {run["ran_on"]: self.records[run["ran_on"]] for run in found.values()}


def labels(frame: pd.DataFrame) -> list[str]:
    """What each row is about, seed and recipe included, as the lines of a table have it."""
    said = frame.drop(columns=["tokens", "flops", "metric", "value", "stderr"])
    return said.to_csv(index=False, header=False, float_format=results.DIGITS).splitlines()

"""What the findings share: sizes, paired differences, the better anchor, curves over alpha, tasks.

The scorecard's measures give a table with a row a unit: unit (its name), point, low, high (mean and 95 %
interval over seeds), n (seeds; 0 where numbers are counted), and group where units are many (see
`cbd.report.verdicts`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from cbd.report import names, stats
from cbd.report.names import LARGER, RANDOM, SMALLER

NATS = "nats per token"
TOLERATED = 0.05  # nats per token, 5 % of perplexity: what may get lost or be missed without much harm
BETTER = "better single anchor"
BEST_FIRST = ("acc_norm", "acc", "rougeL")  # which of a task's metrics stands for it


# ---- sizes and differences


def sizes(table: pd.DataFrame) -> dict[str, int]:
    """Parameters of each spec of a table, from small to large."""
    rows = table.dropna(subset=["parameters"]).drop_duplicates("spec").sort_values("parameters")
    return {spec: int(n) for spec, n in zip(rows["spec"], rows["parameters"], strict=True)}


def by_size(found: pd.DataFrame, table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The rows sorted by these columns, `spec` among them from the table's smallest size to its largest."""
    order = {spec: i for i, spec in enumerate(sizes(table))}
    place = lambda column: column.map(order) if column.name == "spec" else column  # noqa: E731
    return found.sort_values(list(columns), key=place, ignore_index=True)


def against(
    table: pd.DataFrame, baseline: str, metric: str = "loss", by: Sequence[str] = ("spec",)
) -> pd.DataFrame:
    """Paired differences to `baseline` in each group, with interval and verdict.

    table: one row for each seed, method and group (the columns `by`). Columns: `by`, method, point, low, high
    (unit of the metric, negative: lower than the baseline), n, verdict ("lower", "higher", or "undecided"
    where the interval holds zero).
    """
    rows = table[table["metric"] == metric]
    return with_verdict(by_size(stats.paired(rows, by, baseline=baseline), rows, *by, "method"))


def with_verdict(found: pd.DataFrame) -> pd.DataFrame:
    """The rows with the verdict of their interval."""
    ends = zip(found["low"], found["high"], strict=True)
    return found.assign(verdict=[stats.verdict(low, high) for low, high in ends])


def with_better(rows: pd.DataFrame) -> pd.DataFrame:
    """The losses with one more method, `BETTER`: the better single anchor of each size, budget and seed.

    It is a control that knows the answer. rows: one for each size, budget, seed and method.
    """
    rows = rows[rows["metric"] == "loss"]
    singles = rows[rows["method"].isin([SMALLER, LARGER])]
    best = singles.groupby(["spec", "budget", "seed"], dropna=False)["value"].idxmin()
    return pd.concat([rows, singles.loc[best].assign(method=BETTER)])


# ---- units of the scorecard


def units(found: pd.DataFrame, unit: str, group: str | None = None) -> pd.DataFrame:
    """The rows with `unit` (and `group`) written from their columns."""
    rows = found.to_dict("records")
    named = found.assign(unit=[unit.format(**row) for row in rows])
    return named.assign(group=[group.format(**row) for row in rows]) if group else named


def paired(rows: pd.DataFrame, method: str, baseline: str, metric: str = "loss") -> pd.DataFrame:
    """method minus baseline in each size, by seed, as units."""
    two = rows[rows["method"].isin([method, baseline]) & rows["seed"].notna()]
    return units(against(two, baseline, metric), "{spec}")


def exact(values: Mapping[str, float]) -> pd.DataFrame:
    """Units whose numbers are counted: an interval of no width, no seeds."""
    points = [float(value) for value in values.values()]
    return pd.DataFrame({"unit": list(values), "n": 0} | dict.fromkeys(("point", "low", "high"), points))


def counted(found: pd.DataFrame, column: str, unit: str) -> pd.DataFrame:
    """The rows as units whose number, without an interval, is that of a column."""
    return units(found.assign(**dict.fromkeys(("point", "low", "high"), found[column]), n=0), unit)


# ---- curves over alpha


def rule_alphas(table: pd.DataFrame, *by: str) -> dict:
    """The alpha of the parameter distance by the columns `by` (a value of the one, or a tuple)."""
    keys = list(by) if len(by) > 1 else by[0]
    return table[table["metric"] == "rule_alpha"].groupby(keys)["value"].mean().to_dict()


def near(curve: pd.DataFrame, alpha: float) -> float:
    """The value of one seed's curve at the grid's alpha nearest to this one."""
    return float(curve.loc[(curve["alpha"] - alpha).abs().idxmin(), "value"])


def optima(curves: pd.DataFrame, keys: Sequence[str], rule: Mapping) -> pd.DataFrame:
    """The best point of each curve over alpha, that of its mean over seeds.

    keys: the columns that tell curves apart. rule: spec, or (family, spec), -> alpha of the parameter
    distance. Columns: keys, best_alpha, value (at it), small and large (at alpha 1 and 0), gain (over the
    better end), interior, seeds_interior ("2/3": in how many seeds alone the optimum is), rule.
    """
    found = []
    for key, rows in curves.groupby(list(keys), sort=False):
        mean = rows.groupby("alpha")["value"].mean()
        best = stats.best_alpha(list(mean.index), list(mean))
        single = [
            stats.best_alpha(list(curve["alpha"]), list(curve["value"])).interior
            for _, curve in rows.groupby("seed", dropna=False)
        ]
        labels = dict(zip(keys, key, strict=True))
        at = (labels["family"], labels["spec"]) if "family" in labels else labels["spec"]
        found.append(
            {**labels, "best_alpha": best.alpha, "value": best.loss, "small": mean.get(1.0)}
            | {"large": mean.get(0.0), "gain": best.advantage, "interior": best.interior}
            | {"seeds_interior": f"{sum(single)}/{len(single)}", "rule": rule.get(at)}
        )
    return pd.DataFrame(found)


# ---- tasks


def main_metrics(table: pd.DataFrame) -> list[str]:
    """The metric that stands for each task, in the table's order: acc_norm, else acc, else Rouge-L."""
    present = list(dict.fromkeys(table["metric"]))
    found = []
    for task in dict.fromkeys(m.split("/")[0] for m in present if "/" in m):
        found += [f"{task}/{name}" for name in BEST_FIRST if f"{task}/{name}" in present][:1]
    return found


def generative(table: pd.DataFrame) -> list[str]:
    """The main metrics of the tasks that generate text."""
    return [metric for metric in main_metrics(table) if metric.endswith("/rougeL")]


def chance(table: pd.DataFrame, metric: str) -> float:
    """What guessing gets on a task's metric; nan where it has no chance level (a loss)."""
    return float(table.loc[table["metric"] == names.chance(metric), "value"].mean())


def detectable(table: pd.DataFrame) -> pd.DataFrame:
    """The power note: the smallest true difference to random weights that these seeds could have shown.

    A paired two-sided t-test at 5 % over all comparisons of the table (Bonferroni), with power 80 %. Columns:
    metric, comparisons, smallest (the median over sizes, methods and budgets), largest, n.
    """
    rows = table[table["seed"].notna()]
    found = []
    for metric in ["loss", *main_metrics(table)]:
        pairs = list(_differences(rows[rows["metric"] == metric]))
        least = [stats.smallest_difference(values, comparisons=len(pairs)) for values in pairs]
        summary = {"smallest": float(pd.Series(least).median()), "largest": max(least, default=math.nan)}
        n = min((len(values) for values in pairs), default=0)
        found.append({"metric": metric, "comparisons": len(pairs)} | summary | {"n": n})
    return pd.DataFrame(found)


def _differences(rows: pd.DataFrame) -> Iterator[list[float]]:
    """By seed: each method minus random at each of random's budgets (at its own, where it has one)."""
    for _, part in rows.groupby("spec", sort=False):
        runs = {key: run.set_index("seed")["value"] for key, run in part.groupby(["method", "tokens"])}
        for (method, tokens), own in runs.items():
            for (other, budget), random in runs.items():
                if method != RANDOM and other == RANDOM and tokens in (0, budget):
                    yield list((own - random).dropna())

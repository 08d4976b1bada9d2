"""Findings of the headline: where scratch reaches CBD, what equal budgets give, what could have been seen.

Tables in, small tables and sentences out; every number from results. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from cbd.errors import CbdError, si
from cbd.report import names, stats
from cbd.report.crossing import Crossing, crossing
from cbd.report.names import CHAIN_TOKENS, RANDOM

BEST_FIRST = ("acc_norm", "acc", "rougeL")  # which of a task's metrics stands for it
LOWER = ("loss", "bits_per_byte", "nll")


def main_metrics(table: pd.DataFrame) -> list[str]:
    """The metric that stands for each task, in the table's order: acc_norm, else acc, else Rouge-L."""
    present = list(dict.fromkeys(table["metric"]))
    tasks = dict.fromkeys(m.split("/")[0] for m in present if "/" in m)
    found = []
    for task in tasks:
        found += [f"{task}/{name}" for name in BEST_FIRST if f"{task}/{name}" in present][:1]
    return found


def chance(table: pd.DataFrame, metric: str) -> float:
    """What guessing gets on a task's metric; nan where it has no chance level (a loss)."""
    return float(table.loc[table["metric"] == names.chance(metric), "value"].mean())


def above_chance(table: pd.DataFrame, spec: str, method: str, metric: str) -> bool:
    """Whether a method's mean at zero tokens, or that of the longest scratch run, lies above guessing.

    Its interval over seeds must; a metric without a chance level counts as above it.
    """
    guess = chance(table, metric)
    curve, line = _curve_and_line(table, spec, method, metric)
    tops = (line, curve[curve["tokens"] == curve["tokens"].max()])
    return math.isnan(guess) or any(stats.interval(top["value"]).low > guess for top in tops)


def lower_is_better(metric: str) -> bool:
    return metric.split("/")[-1] in LOWER


def crossing_of(table: pd.DataFrame, spec: str, method: str, metric: str) -> Crossing:
    """Where scratch, trained on more and more tokens, reaches a method at zero tokens (see `crossing`).

    Raises `CbdError` when the table lacks either.
    """
    curve, line = _curve_and_line(table, spec, method, metric)
    if curve.empty or line.empty:
        raise CbdError(f"no rows of {metric} for {method} and {RANDOM} at {spec}: run scratch_vs_cbd")
    columns = ["seed", "tokens", "value"]
    return crossing(curve[columns], line[columns], lower_is_better=lower_is_better(metric))


def _curve_and_line(
    table: pd.DataFrame, spec: str, method: str, metric: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of scratch, and those of a method at zero tokens."""
    rows = table[(table["spec"] == spec) & (table["metric"] == metric)]
    return rows[rows["method"] == RANDOM], rows[(rows["method"] == method) & (rows["tokens"] == 0)]


def crossings(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each size, method and metric: loss and the tasks' main metrics (E3).

    Columns: spec, method, metric, cbd and scratch (their means, scratch's at its longest budget), chance,
    above_chance (whether either of the two is: where guessers meet says nothing), tokens, low, high (the
    crossing and its 95 % interval over seeds), verdict ("reached", "reached at the smallest budget", "not
    reached"), lower_bound, extrapolated (by a power law through the ladder: not measured), n, chain (tokens
    of scratch that cost as many FLOPs as the chain did, its source given).
    """
    measured = table[table["tokens"].notna()]
    rows = []
    for spec in _sizes(measured):
        for method in _methods(measured, spec):
            for metric in ["loss", *main_metrics(table)]:
                found = crossing_of(measured, spec, method, metric)
                rows.append(
                    {"spec": spec, "method": method, "metric": metric}
                    | _means(measured, spec, method, metric)
                    | {"chance": chance(table, metric)}
                    | {"above_chance": above_chance(measured, spec, method, metric)}
                    | {"tokens": found.tokens, "low": found.low, "high": found.high}
                    | {"verdict": _verdict(found), "lower_bound": found.lower_bound}
                    | {"extrapolated": found.extrapolated, "n": found.n, "chain": _chain(table, spec, method)}
                )
    return pd.DataFrame(rows)


def _sizes(table: pd.DataFrame) -> list[str]:
    rows = table.dropna(subset=["parameters"]).drop_duplicates("spec").sort_values("parameters")
    return list(rows["spec"])


def _methods(table: pd.DataFrame, spec: str) -> list[str]:
    present = dict.fromkeys(table.loc[(table["spec"] == spec) & (table["tokens"] == 0), "method"])
    return [method for method in present if method != RANDOM]


def _means(table: pd.DataFrame, spec: str, method: str, metric: str) -> dict[str, float]:
    curve, line = _curve_and_line(table, spec, method, metric)
    longest = curve[curve["tokens"] == curve["tokens"].max()]
    return {"cbd": float(line["value"].mean()), "scratch": float(longest["value"].mean())}


def _chain(table: pd.DataFrame, spec: str, method: str) -> float:
    rows = table[(table["metric"] == CHAIN_TOKENS) & (table["spec"] == spec)]
    return float(rows.loc[rows["method"] == method, "value"].mean())


def _verdict(found: Crossing) -> str:
    if math.isnan(found.tokens):
        return "not reached"
    return "reached at the smallest budget" if found.upper_bound else "reached"


def saved(table: pd.DataFrame) -> str:
    """How many tokens of scratch CBD stands for, and how many its chain costs, size by size, in sentences."""
    found, parts = crossings(table), []
    for (spec, method), rows in found.groupby(["spec", "method"], sort=False):
        words = "; ".join(f"{r.metric} {_tokens(r)}" for r in rows.itertuples())
        parts.append(
            f"{spec}, {method}: {words}; its chain costs as much as {si(rows['chain'].iloc[0])} tokens"
        )
    judged = found[found["above_chance"]]
    reached = (judged["verdict"] != "not reached").sum()
    longest = table.loc[table["method"] == RANDOM, "tokens"].max()
    return (
        f"Scratch, on up to {si(longest)} tokens, gets as good as CBD at zero tokens on {reached} of "
        f"{len(judged)} losses and tasks. The tokens that it needs: {'. '.join(parts)}."
    )


def _tokens(row) -> str:
    if not row.above_chance:
        return "neither above chance"
    if row.verdict == "not reached":
        guess = "" if math.isnan(row.extrapolated) else f" (extrapolated {si(row.extrapolated)})"
        return f"more than {si(row.lower_bound)}{guess}"
    if row.verdict != "reached":
        return f"at most {si(row.tokens)}"
    high = "beyond the ladder" if math.isinf(row.high) else si(row.high)
    return f"{si(row.tokens)} [{si(row.low)}, {high}]"


def gaps(table: pd.DataFrame, metrics: list[str] | None = None) -> pd.DataFrame:
    """CBD minus scratch at each budget with its interval over seeds and items (E8, Q11).

    Columns: spec, method, metric, tokens (scratch's), point, low, high, verdict.
    """
    found = []
    for metric in metrics or main_metrics(table):
        for name, rows in _gap_rows(table, metric):
            low, high = rows["low"], rows["high"]
            verdict = stats.verdict(low, high)
            found.append(dict(zip(("spec", "method", "tokens"), name, strict=True)) | {"metric": metric})
            found[-1] |= {"point": rows["point"], "low": low, "high": high, "verdict": verdict}
    frame = pd.DataFrame(found)
    return frame[["spec", "method", "metric", "tokens", "point", "low", "high", "verdict"]]


def _gap_rows(table: pd.DataFrame, metric: str) -> Iterator[tuple[tuple, dict[str, float]]]:
    wide = {
        name: table[table["metric"] == names.minus_random(metric, end)]
        for name, end in (("point", ""), ("low", "low"), ("high", "high"))
    }
    keys = ["spec", "method", "tokens"]
    joined = wide["point"][keys]
    for key in joined.itertuples(index=False, name=None):
        same = {end: rows[(rows[keys] == key).all(axis=1)]["value"] for end, rows in wide.items()}
        yield key, {end: float(values.iloc[0]) for end, values in same.items()}


def averages(table: pd.DataFrame) -> pd.DataFrame:
    """E4's table: the mean over tasks of 100 x each one's main metric, CBD and random at each budget.

    Columns: spec, tokens, CBD, random (means over seeds), difference with low, high, n and verdict (paired by
    seed), chance.
    """
    metrics = main_metrics(table)
    rows = table[table["metric"].isin(metrics) & table["seed"].notna()]
    keys = ["spec", "method", "tokens", "seed"]
    scores = rows.groupby(keys, sort=False)["value"].mean().mul(100).reset_index()
    guess = 100 * sum(chance(table, metric) for metric in metrics) / len(metrics)
    mean = scores.groupby(["spec", "tokens", "method"])["value"].mean().unstack()
    found = stats.paired(scores, ["spec", "tokens"], baseline=RANDOM)
    found = _ordered(found, table)
    return pd.DataFrame(
        [
            {"spec": r.spec, "tokens": int(r.tokens), "CBD": mean.loc[(r.spec, r.tokens), r.method]}
            | {"random": mean.loc[(r.spec, r.tokens), RANDOM], "difference": r.point}
            | {"low": r.low, "high": r.high, "n": r.n, "chance": guess}
            | {"verdict": stats.verdict(r.low, r.high)}
            for r in found.itertuples()
        ]
    )


def losses(table: pd.DataFrame) -> pd.DataFrame:
    """CBD minus random weights after the same tokens, nats per token: spec, tokens, point, low, high, n."""
    found = stats.paired(table[table["metric"] == "loss"], ["spec", "tokens"], baseline=RANDOM)
    return _ordered(found, table)[["spec", "tokens", "method", "point", "low", "high", "n"]]


def _ordered(found: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Rows by size and budget, from small to large."""
    order = _sizes(table)
    by_size = lambda column: column.map(order.index) if column.name == "spec" else column  # noqa: E731
    return found.sort_values(["spec", "tokens"], key=by_size, ignore_index=True)


def equal(table: pd.DataFrame) -> str:
    """E4, E13 in a sentence: CBD minus random in the average of tasks, each size at each budget."""
    found = averages(table)
    words = [
        f"{r.spec} after {si(r.tokens)} tokens {r.difference:+.2f} [{r.low:+.2f}, {r.high:+.2f}]"
        for r in found.itertuples()
    ]
    return (
        f"Average of the tasks, CBD minus random at equal tokens, points of 100 "
        f"({stats.tally(found['verdict'])}): {'; '.join(words)}."
    )


def detectable(table: pd.DataFrame, metrics: list[str] | None = None) -> pd.DataFrame:
    """The power note: the smallest true difference to random weights that these seeds could have shown.

    A paired two-sided t-test at 5 % over all comparisons of the table (Bonferroni), with power 80 %. Columns:
    metric, comparisons, smallest (the median over sizes, methods and budgets), largest, n.
    """
    rows = table[table["seed"].notna()]
    found = []
    for metric in metrics or ["loss", *main_metrics(table)]:
        differences = list(_differences(rows[rows["metric"] == metric]))
        sizes = [stats.smallest_difference(d, comparisons=len(differences)) for d in differences]
        summary = {"smallest": float(pd.Series(sizes).median()), "largest": max(sizes, default=math.nan)}
        n = min((len(d) for d in differences), default=0)
        found.append({"metric": metric, "comparisons": len(differences)} | summary | {"n": n})
    return pd.DataFrame(found)


def _differences(rows: pd.DataFrame) -> Iterator[list[float]]:
    """By seed: each method minus random at each of random's budgets (at its own, where it has one)."""
    for _, part in rows.groupby("spec", sort=False):
        runs = {key: run.set_index("seed")["value"] for key, run in part.groupby(["method", "tokens"])}
        for (method, tokens), own in runs.items():
            for (other, budget), random in runs.items():
                comparable = tokens in (0, budget)
                if method != RANDOM and other == RANDOM and comparable:
                    yield list((own - random).dropna())

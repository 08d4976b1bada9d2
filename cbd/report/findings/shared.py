"""What the findings share: sizes, paired differences, the better anchor, curves over alpha, tasks.

The scorecard's measures give a table with a row a unit: unit (its name), point, low, high (mean and 95 %
interval over seeds), n (seeds; 0 where numbers are counted), and group where units are many (see
`cbd.report.verdicts`).
"""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from cbd.report import names, stats
from cbd.report.names import CBD, LARGER, PRUNED, RANDOM, SMALLER
from cbd.report.verdicts import Control

NATS = "nats per token"
BETTER, NEAREST = "better single anchor", "nearest single anchor"
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
    return found.assign(verdict=list(map(stats.verdict, found["low"], found["high"])))


def with_better(rows: pd.DataFrame) -> pd.DataFrame:
    """The losses with one more method, `BETTER`: the better single anchor of each size, budget and seed.

    It is a control that knows the answer, the larger one by its better blocks among the choices where they
    were measured. rows: one for each size, budget, seed and method.
    """
    rows = rows[rows["metric"] == "loss"]
    singles = rows[rows["method"].isin([SMALLER, LARGER, PRUNED])]
    best = singles.groupby(["spec", "budget", "seed"], dropna=False)["value"].idxmin()
    return pd.concat([rows, singles.loc[best].assign(method=BETTER)])


def nearest(tables: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Spec -> the start from the anchor that is nearer in parameters: what one would take without measuring.

    The alpha by distance is the smaller anchor's nearness; the tables `initialise` (CBD's own rows: a rival
    may have other anchors) and `alpha` have it. In the middle the larger one is taken: it has lost less.
    """
    alphas = rule_alphas(tables["alpha"], "spec") if "alpha" in tables else {}
    if "initialise" in tables:
        mixed = tables["initialise"]
        alphas |= mixed[mixed["method"] == CBD].groupby("spec")["alpha"].mean().to_dict()
    return {spec: SMALLER if alpha > 0.5 else LARGER for spec, alpha in alphas.items()}


def with_nearest(rows: pd.DataFrame, choice: Mapping[str, str], metric: str = "loss") -> pd.DataFrame:
    """The rows of a metric with one more method, `NEAREST`: the single anchor that `nearest` names.

    Sizes of which it names none are left out.
    """
    rows = rows[(rows["metric"] == metric) & rows["spec"].isin(choice)]
    return pd.concat([rows, rows[rows["method"] == rows["spec"].map(choice)].assign(method=NEAREST)])


WEAK = Control("random weights", "weak")
TRAINED = Control("random weights", "weak", trained=RANDOM)
SINGLE = Control("the nearest anchor alone", "fair")


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


def on_every_text(
    read: str | Sequence[str],
    measure: Callable[[Mapping[str, pd.DataFrame]], pd.DataFrame],
    own: str = "loss",
) -> Callable[[Mapping[str, pd.DataFrame]], pd.DataFrame]:
    """A measure of one table or several, on each text that all have losses on; a unit says which other text.

    own: the metric that the measure reads, on the scale's own text.
    """
    read = [read] if isinstance(read, str) else read

    def measured(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
        first, *others = (list(tables[name]["metric"].unique()) for name in read)
        parts = [measure(tables)]
        for metric in first:
            if metric.startswith(names.loss_on("")) and all(metric in other for other in others):
                moved = {name: tables[name].replace({"metric": {own: "", metric: own}}) for name in read}
                found = measure({**tables, **moved})
                parts.append(found.assign(unit=found["unit"] + metric.removeprefix("loss")))
        return pd.concat(parts, ignore_index=True)

    return measured


def exact(values: Mapping[str, float]) -> pd.DataFrame:
    """Units whose numbers are counted: an interval of no width, no seeds."""
    return counted(pd.DataFrame(values.items(), columns=["name", "value"]), "value", "{name}")


def counted(found: pd.DataFrame, column: str, unit: str) -> pd.DataFrame:
    """The rows as units whose number, without an interval, is that of a column."""
    point = found[column].astype(float)
    return units(found.assign(point=point, low=point, high=point, n=0), unit)


# ---- curves over alpha


def rule_alphas(table: pd.DataFrame, *by: str) -> dict:
    """The alpha of the parameter distance by the columns `by` (a value of the one, or a tuple)."""
    keys = list(by) if len(by) > 1 else by[0]
    return table[table["metric"] == "rule_alpha"].groupby(keys)["value"].mean().to_dict()


def near(curve: pd.DataFrame, alpha: float) -> float:
    """The value of one seed's curve at the grid's alpha nearest to this one."""
    return float(curve.loc[(curve["alpha"] - alpha).abs().idxmin(), "value"])


def by_seed(curves: pd.DataFrame, keys: Sequence[str], value: Callable) -> pd.DataFrame:
    """value(curve), a number of each seed's curve, with its interval over seeds; `keys` tell curves apart."""
    found = [(*key, value(curve)) for key, curve in curves.groupby([*keys, "seed"], sort=False)]
    return stats.summarise(pd.DataFrame(found, columns=[*keys, "seed", "value"]), keys)


def optima(curves: pd.DataFrame, keys: Sequence[str], rule: Mapping) -> pd.DataFrame:
    """The best point of each curve over alpha, that of its mean over seeds.

    keys: the columns that tell curves apart. rule: spec, or (family, spec), -> alpha of the parameter
    distance. Columns: keys, best_alpha, value (at it), small and large (at alpha 1 and 0), gain (over the
    better end), interior, seeds_interior ("2/3": in how many seeds alone the optimum is), rule.
    """
    found = []
    for key, rows in curves.groupby(list(keys), sort=False):
        mean = rows.groupby("alpha")["value"].mean()
        best = stats.best_alpha(mean.index, mean)
        runs = [run for _, run in rows.groupby("seed", dropna=False)]
        single = [stats.best_alpha(run["alpha"], run["value"]).interior for run in runs]
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
    present = [metric for metric in table["metric"].unique() if "/" in metric]
    found = []
    for task in dict.fromkeys(metric.split("/")[0] for metric in present):
        found += [f"{task}/{name}" for name in BEST_FIRST if f"{task}/{name}" in present][:1]
    return found


def judged(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """A row a group of `keys`, sorted by them: the loss on every text (nats per token), each task's score.

    Means over seeds; NaN where something was not measured.
    """
    wanted = [m for m in rows["metric"].unique() if m == "loss" or m.startswith(names.loss_on(""))]
    wanted += main_metrics(rows)
    rows = rows[rows["metric"].isin(wanted)]
    found = rows.pivot_table(index=list(keys), columns="metric", values="value", aggfunc="mean")[wanted]
    return found.reset_index().rename_axis(columns=None)


def task_means(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Columns `keys` and `value`, the mean over the tasks of 100 x each one's main metric.

    A group that lacks a task is left out: its mean would be of other tasks.
    """
    metrics = main_metrics(table)
    rows = table[table["metric"].isin(metrics) & table["seed"].notna()]
    wide = rows.pivot_table("value", list(keys), "metric", aggfunc="mean").reindex(columns=metrics).dropna()
    return wide.mean(axis=1).mul(100).rename("value").reset_index()


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
    rows, keys = table[table["seed"].notna()], ["metric", "spec", "seed"]
    random = rows.loc[rows["method"] == RANDOM, [*keys, "tokens", "value"]]
    both = rows[rows["method"] != RANDOM].merge(random, on=keys, suffixes=("", "_random"))
    both = both[(both["tokens"] == 0) | (both["tokens"] == both["tokens_random"])]
    both = both.assign(value=both["value"] - both["value_random"]).dropna(subset="value")
    found = []
    for metric in ["loss", *main_metrics(table)]:
        runs = both[both["metric"] == metric].groupby(["spec", "method", "tokens", "tokens_random"])["value"]
        least = runs.apply(stats.smallest_difference, comparisons=runs.ngroups).astype(float)
        summary = {"smallest": least.median(), "largest": least.max(skipna=False)}
        n = 0 if least.empty else runs.size().min()
        found.append({"metric": metric, "comparisons": len(least)} | summary | {"n": n})
    return pd.DataFrame(found)

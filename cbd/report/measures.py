"""What the scorecard judges: tables by name -> a row a unit with its mean and 95 % interval over seeds.

Each function answers for one row of the scorecard. Columns: unit, point, low, high, n (seeds; 0 where numbers
are counted), and group where units are many (`verdicts`). Where the better of two anchors is meant, it
is the better of each size and seed: a control that knows the answer. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pandas as pd

from cbd.report import findings, headline, stats
from cbd.report.names import BRIDGED, CBD, CHAIN, LARGER, RANDOM, RAW, RAW_COMPUTE, SEQUENCE, SMALLER
from cbd.report.verdicts import number

Tables = Mapping[str, pd.DataFrame]

TOLERATED = 0.05  # nats per token, 5 % of perplexity: what may get lost or be missed without much harm
NEAR = 0.25  # how far the best alpha may lie from the rule's: a quarter of the way between the anchors
SHARE = 0.5  # of the longest budget: the smaller of the paper's two savings is 5B of 10B tokens
SEEDS = 3
SINGLE = "better single anchor"


# ---- the chain


def steps_lost(tables: Tables) -> pd.DataFrame:
    """E1: what each step of the chain loses."""
    found = findings.steps_lost(tables["chain"])
    return _named(found[found["metric"] == "lost"], "to {spec}")


def lost_since_source(tables: Tables) -> pd.DataFrame:
    """Q4: what is lost from the source to the smallest anchor."""
    found = findings.steps_lost(tables["chain"])
    return _named(found[found["metric"] == "lost_since_source"].tail(1), "at {spec}")


def lost_above(tables: Tables) -> str:
    """Q4: the same at the anchors above it."""
    found = findings.steps_lost(tables["chain"])
    return _listed(_named(found[found["metric"] == "lost_since_source"].iloc[:-1], "at {spec}"))


def direct_against_stepwise(tables: Tables) -> pd.DataFrame:
    """E6: direct minus stepwise distillation of the smallest anchor, final loss and noise."""
    found = findings.stepwise_or_direct(tables["chain"])
    how, what = found["method"].str.removeprefix("direct, "), found["metric"].str.replace("_", " ")
    return _named(found.assign(how=how, what=what), "{what}, {how}")


def cost_ratios(tables: Tables) -> pd.DataFrame:
    """E16: the chain's FLOPs over each other way's, for all sizes, and for each size after the first."""
    cost = _cost(tables).pivot(index="sizes", columns="method", values="value")
    total, growth = cost.iloc[-1], cost.iloc[-1] - cost.iloc[0]
    ratios = {}
    for other in cost.columns.drop(CHAIN):
        ratios[f"share of {other}, {cost.index[-1]} sizes"] = total[CHAIN] / total[other]
        ratios[f"share of {other}, one more size"] = growth[CHAIN] / growth[other]
    return _exact(ratios)


def break_even(tables: Tables) -> pd.DataFrame:
    """Q7: from how many sizes on the chain is cheaper; infinite where it is not within the ladder."""
    cost = _cost(tables)
    others = [method for method in dict.fromkeys(cost["method"]) if method != CHAIN]
    counts = {other: stats.break_even(cost, CHAIN, other) for other in others}
    return _exact(
        {f"sizes needed against {other}": math.inf if n is None else n for other, n in counts.items()}
    )


# ---- step zero


def start_against_random(tables: Tables) -> pd.DataFrame:
    """E2."""
    return _paired(tables["initialise"], CBD, RANDOM)


def start_against_single(tables: Tables) -> pd.DataFrame:
    """E10."""
    return _paired(_with_single(tables["initialise"]), CBD, SINGLE)


def other_operators(tables: Tables) -> pd.DataFrame:
    """Q3: every other operator minus union, in groups by operator."""
    rows = tables["initialise"]
    names = sorted({name for name in rows["method"] if name.startswith("CBD (")} - {CBD})
    parts = [_paired(rows, name, CBD).assign(group=name) for name in names]
    found = pd.concat(parts, ignore_index=True)
    return found.assign(unit=found["group"] + " " + found["unit"])


# ---- alpha


def best_alphas(tables: Tables) -> pd.DataFrame:
    """E7: each seed's best alpha with inherited anchors; the column `rule` is the parameter distance's."""
    keys = ["mixing", "operator", "spec"]
    rows = [
        dict(zip([*keys, "seed"], key, strict=True))
        | {"value": stats.best_alpha(list(curve["alpha"]), list(curve["value"])).alpha}
        for key, curve in _inherited(tables).groupby([*keys, "seed"], sort=False)
    ]
    found = stats.summarise(pd.DataFrame(rows), keys)
    found = found.assign(rule=found["spec"].map(_rule_alphas(tables["alpha"], "spec")))
    return _named(found, "{mixing}, {operator} {spec}", "{mixing}, {operator}")


def regret(tables: Tables) -> pd.DataFrame:
    """Q6: what the rule's alpha loses against the best one, which each seed picks for itself: too strict."""
    rows = _inherited(tables)
    rule = _rule_alphas(tables["alpha"], "spec")
    rows = rows[(rows["mixing"] == "union") & (rows["operator"] == "preserving")]
    lost = [
        {"spec": spec, "seed": seed, "value": _nearest(curve, rule[spec]) - curve["value"].min()}
        for (spec, seed), curve in rows.groupby(["spec", "seed"])
    ]
    order = list(findings.sizes(rows))
    found = stats.summarise(pd.DataFrame(lost), ["spec"])
    return _named(found.sort_values("spec", key=lambda column: column.map(order.index)), "{spec}")


def families(tables: Tables) -> pd.DataFrame:
    """Q9: CBD at the rule's alpha minus the better end of the grid, in every family but GPT-2."""
    ends = lambda curve, random: curve.loc[curve["alpha"].isin([0, 1]), "value"].min()  # noqa: E731
    return _families(tables["families"], ends)


def families_against_random(tables: Tables) -> str:
    """The same minus random weights, in a few words, with the sizes."""
    found = _families(tables["families"], lambda curve, random: random)
    sizes = tables["families"].loc[tables["families"]["method"] == "CBD", "parameters"]
    ends = f"{found['point'].min():+.3f} to {found['point'].max():+.3f}"
    return f"Minus random {ends}; sizes of {sizes.min():,} to {sizes.max():,} parameters"


# ---- recovery


def start_against_trained_random(tables: Tables) -> pd.DataFrame:
    """E5: CBD at zero tokens minus random weights after the smallest budget."""
    return _paired(_zero_and_after(tables["convergence"]), CBD, RANDOM)


def start_against_trained_single(tables: Tables) -> pd.DataFrame:
    """E12: CBD at zero tokens minus the better single anchor after the smallest budget."""
    return _paired(_with_single(_zero_and_after(tables["convergence"])), CBD, SINGLE)


def against_single(tables: Tables) -> pd.DataFrame:
    """Q2: CBD minus the better single anchor, at step zero and after each budget."""
    parts = [start_against_single(tables).assign(group="at step zero")]
    ends = findings.final(tables["convergence"])
    ends = ends[ends["method"] != RANDOM]
    for budget in sorted(set(ends["budget"])):
        found = _paired(_with_single(ends[ends["budget"] == budget]), CBD, SINGLE)
        parts.append(found.assign(group=f"after {budget:,} tokens"))
    found = pd.concat(parts, ignore_index=True)
    return found.assign(unit=found["unit"] + " " + found["group"])


def speedups(tables: Tables) -> str:
    """E5: the range of both speed-ups over sizes and budgets."""
    found = findings.speedups(tables["convergence"]).dropna(subset="point")
    words = []
    for name in ("random", "cbd"):
        rows = found[found["metric"] == f"speedup_to_{name}_final"]
        least = "at least " * bool(rows["bound"].any())
        ends = f"{least}{rows['point'].min():.3g}x to {rows['point'].max():.3g}x"
        words.append(f"{ends} to {name.replace('cbd', 'CBD')}'s final loss")
    return f"Speed-up {'; '.join(words)}"


def averages(tables: Tables) -> pd.DataFrame:
    """E4: average of the tasks, CBD minus random at equal tokens."""
    found = headline.averages(tables["equal_budget"]).rename(columns={"difference": "point"})
    return _named(found, "{spec} after {tokens:,}")


def smallest_averages(tables: Tables) -> pd.DataFrame:
    """E13: the same at the smallest size."""
    return averages(_smallest(tables))


def average_levels(tables: Tables) -> str:
    """E4: the averages themselves, of CBD, random weights and guessing."""
    found = headline.averages(tables["equal_budget"])
    ends = [f"{name} {found[name].min():.2f} to {found[name].max():.2f}" for name in ("CBD", "random")]
    return f"Averages: {', '.join(ends)}, guessing {found['chance'].mean():.2f}"


# ---- scratch


def crossings(tables: Tables) -> pd.DataFrame:
    """E3: tokens with which random weights reach CBD, as a share of their longest budget; inf where never."""
    table, found = tables["scratch_vs_cbd"], []
    longest = int(table["tokens"].max())
    for spec in findings.sizes(table):
        metrics = ["loss", *headline.main_metrics(table)]
        for metric in (m for m in metrics if headline.above_chance(table, spec, CBD, m)):
            at = headline.crossing_of(table, spec, CBD, metric)
            tokens = math.inf if math.isnan(at.tokens) else at.tokens
            ends = {"point": tokens / longest, "low": at.low / longest, "high": at.high / longest}
            found.append({"unit": f"{spec} {metric}", "group": metric, "n": at.n} | ends)
    return pd.DataFrame(found)


def silent_tasks(tables: Tables) -> str:
    """E3: the longest budget, and the tasks on which neither CBD nor random weights get above chance."""
    table = tables["scratch_vs_cbd"]
    budget = f"Longest budget {int(table['tokens'].max()):,} tokens"
    silent = _silent(table, headline.main_metrics(table))
    return f"{budget}; at chance, not judged: {', '.join(silent)}" if silent else budget


def silent_generation(tables: Tables) -> str:
    """E8: where the gap compares scores that are no better than chance."""
    table = tables["scratch_vs_cbd"]
    silent = _silent(table, _generative(table))
    return f"Neither is above chance: {', '.join(silent)}" if silent else ""


def generation_gaps(tables: Tables) -> pd.DataFrame:
    """E8: Rouge-L, CBD minus random at the longest budget, and what the gap has shrunk by since the first."""
    table = tables["scratch_vs_cbd"]
    parts = []
    for metric in _generative(table):
        random = table[(table["metric"] == metric) & (table["method"] == RANDOM)]
        first, last = random["tokens"].min(), random["tokens"].max()
        left = _paired(table[table["tokens"].isin([0, last])], CBD, RANDOM, metric)
        named = random["tokens"].map({first: "first", last: "last"})
        shrunk = _paired(random.assign(method=named), "last", "first", metric)
        parts += [left.assign(unit=left["unit"] + " left"), shrunk.assign(unit=shrunk["unit"] + " shrunk by")]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def shrinking(tables: Tables) -> pd.DataFrame:
    """Q11: by how much the gap in loss shrinks from each budget to the next: what random weights gain."""
    table = tables["scratch_vs_cbd"]
    random = table[(table["metric"] == "loss") & (table["method"] == RANDOM)]
    budgets = sorted(set(random["tokens"]))
    parts = []
    for i, tokens in enumerate(budgets[1:]):
        named = random["tokens"].map({budgets[i]: "before", tokens: "after"}).fillna("")
        parts.append(_paired(random.assign(method=named), "before", "after").assign(step=f"to {tokens:,}"))
    found = pd.concat(parts, ignore_index=True)
    return found.assign(group=found["unit"], unit=found["unit"] + " " + found["step"])


def loss_gaps(tables: Tables) -> str:
    """Q11: the gap itself, random minus CBD at zero tokens, at the shortest and at the longest budget."""
    table = tables["scratch_vs_cbd"]
    random = table[(table["metric"] == "loss") & (table["method"] == RANDOM)]
    words = []
    for tokens in (random["tokens"].min(), random["tokens"].max()):
        gap = _paired(table[table["tokens"].isin([0, tokens])], RANDOM, CBD)
        words.append(f"at {tokens:,} tokens {_listed(gap)}")
    return f"Advantage {'; '.join(words)}"


# ---- the bridge


def bridges(tables: Tables) -> pd.DataFrame:
    """Q10: the SLM of a chain by each bridge, minus no bridge at equal tokens."""
    found = _slms(tables, RAW)
    return found[found["method"] != RAW_COMPUTE]


def bridged(tables: Tables) -> pd.DataFrame:
    """E15: by generated text minus both chains without a bridge; on Rouge-L, the GPT-2 source minus it."""
    parts = []
    for baseline in (RAW, RAW_COMPUTE):
        found = _slms(tables, baseline)
        found = found[found["method"] == SEQUENCE]
        parts.append(found.assign(unit=found["unit"] + " against " + baseline.split(", ")[1]))
    table = tables.get("scratch_vs_cbd", pd.DataFrame({"metric": [], "method": []}))
    names = sorted({name for name in table["method"] if name.startswith(BRIDGED)})
    for metric in _generative(table):
        for name in names:
            found = _paired(table, CBD, name, metric)
            parts.append(found.assign(unit=found["unit"] + f" {metric}, against {name}"))
    return pd.concat(parts, ignore_index=True)


# ---- all tables


def seeds(tables: Tables) -> pd.DataFrame:
    """Q1: seeds behind each measured table: one with standard errors, and with anything drawn at random."""
    seeded = {name: table.dropna(subset=["stderr", "seed"]) for name, table in tables.items()}
    counts = {name: int(table["seed"].nunique()) for name, table in seeded.items() if len(table)}
    return _exact(counts).assign(n=list(counts.values()))


# ---- helpers


def _paired(rows: pd.DataFrame, method: str, baseline: str, metric: str = "loss") -> pd.DataFrame:
    """method minus baseline in each size, by seed."""
    two = rows[rows["method"].isin([method, baseline]) & rows["seed"].notna()]
    return _named(findings.against(two, baseline, metric), "{spec}")


def _with_single(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the loss with one more method: the better single anchor of each size and seed."""
    rows = rows[rows["metric"] == "loss"]
    singles = rows[rows["method"].isin([SMALLER, LARGER])]
    best = singles.loc[singles.groupby(["spec", "seed"])["value"].idxmin()]
    return pd.concat([rows, best.assign(method=SINGLE)])


def _zero_and_after(table: pd.DataFrame) -> pd.DataFrame:
    """CBD's loss at zero tokens, and the other starts' after the smallest budget."""
    rows = table[(table["metric"] == "loss") & (table["method"] != RANDOM)]
    first = rows["budget"].min()
    rows = table[(table["metric"] == "loss") & (table["budget"] == first)]
    start = rows[(rows["method"] == CBD) & (rows["tokens"] == 0)]
    return pd.concat([start, findings.final(rows[rows["method"] != CBD])])


def _inherited(tables: Tables) -> pd.DataFrame:
    rows = tables["alpha"]
    return rows[(rows["metric"] == "loss") & (rows["method"] == "inherited")]


def _rule_alphas(table: pd.DataFrame, *by: str) -> dict:
    keys = list(by) if len(by) > 1 else by[0]
    return table[table["metric"] == "rule_alpha"].groupby(keys)["value"].mean().to_dict()


def _nearest(curve: pd.DataFrame, alpha: float) -> float:
    """The value at the grid's alpha nearest to this one."""
    return float(curve.loc[(curve["alpha"] - alpha).abs().idxmin(), "value"])


def _families(table: pd.DataFrame, baseline: Callable[[pd.DataFrame, float], float]) -> pd.DataFrame:
    """Union at the rule's alpha minus baseline(curve, random's value), in each family but GPT-2."""
    rule = _rule_alphas(table, "family", "spec")
    rows = table[(table["metric"] == "bits_per_byte") & (table["family"] != "gpt2")]
    keys = ["family", "spec", "seed"]
    random = rows[rows["method"] == RANDOM].set_index(keys)["value"]
    curves = rows[(rows["method"] == "CBD") & (rows["mixing"] == "union")]
    found = [
        dict(zip(keys, key, strict=True))
        | {"value": _nearest(curve, rule[key[:2]]) - baseline(curve, random[key])}
        for key, curve in curves.groupby(keys, sort=False)
    ]
    return _named(stats.summarise(pd.DataFrame(found), ["family", "spec"]), "{family} {spec}", "{family}")


def _slms(tables: Tables, baseline: str) -> pd.DataFrame:
    found = findings.bridged(tables["bridge"], baseline)
    found = found[found["stage"] == "SLM"]
    several = found["source"].nunique() > 1
    return _named(found, "{method}, {source}" if several else "{method}")


def _cost(tables: Tables) -> pd.DataFrame:
    rows = tables["paper_map"]
    return rows[rows["metric"] == "cumulative_flops"]


def _smallest(tables: Tables) -> Tables:
    """The table of equal budgets, its smallest size only."""
    table = tables["equal_budget"]
    return {"equal_budget": table[table["spec"] == next(iter(findings.sizes(table)))]}


def _generative(table: pd.DataFrame) -> list[str]:
    return [metric for metric in headline.main_metrics(table) if metric.endswith("/rougeL")]


def _silent(table: pd.DataFrame, metrics: list[str]) -> list[str]:
    specs = findings.sizes(table)
    return [f"{s} {m}" for s in specs for m in metrics if not headline.above_chance(table, s, CBD, m)]


def _listed(found: pd.DataFrame) -> str:
    return "; ".join(f"{r.unit} {number(r.point, r.low, r.high, '+.3f')}" for r in found.itertuples())


def _exact(values: Mapping[str, float]) -> pd.DataFrame:
    """Units whose numbers are counted: an interval of no width, no seeds."""
    points = [float(value) for value in values.values()]
    ends = dict.fromkeys(("point", "low", "high"), points)
    return pd.DataFrame({"unit": list(values), "n": 0} | ends)


def _named(found: pd.DataFrame, unit: str, group: str | None = None) -> pd.DataFrame:
    """The rows with `unit` (and `group`) written from their columns."""
    rows = found.to_dict("records")
    named = found.assign(unit=[unit.format(**row) for row in rows])
    return named.assign(group=[group.format(**row) for row in rows]) if group else named

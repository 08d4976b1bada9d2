"""E3, E8, Q11: CBD with no training of its own against random weights with more and more of it."""

from __future__ import annotations

import math
from itertools import product

import pandas as pd

from cbd.report import stats
from cbd.report.crossing import Crossing, crossing
from cbd.report.findings.shared import NATS, chance, exact, generative, main_metrics, paired, sizes, units
from cbd.report.names import BRIDGED, CBD, CHAIN_TOKENS, RANDOM, minus_random
from cbd.report.verdicts import MOST, Entry, Sides, Tables, listed

SHARE = 0.5  # of the longest budget: the smaller of the paper's two savings is 5B of 10B tokens


def crossings(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each size, method and metric: loss and the tasks' main metrics (E3).

    Columns: spec, method, metric, cbd and scratch (their means, scratch's at its longest budget), chance,
    above_chance (whether either of the two is: where guessers meet says nothing), tokens, low, high (the
    crossing and its 95 % interval over seeds), verdict ("reached", "reached at the smallest budget", "not
    reached"), lower_bound, extrapolated (by a power law through the ladder: not measured), n, chain (tokens
    of scratch that cost as many FLOPs as the chain did, its source given). above_chance: the mean of either
    must be, its interval over seeds too; a metric without a chance level counts as above it.
    """
    rows = []
    for spec in sizes(table):
        here = table[table["spec"] == spec]
        scratch = here[here["method"] == RANDOM]
        zero = here[(here["tokens"] == 0) & (here["method"] != RANDOM)]
        for method, metric in product(dict.fromkeys(zero["method"]), ["loss", *main_metrics(table)]):
            curve = scratch[scratch["metric"] == metric]
            line = zero[(zero["method"] == method) & (zero["metric"] == metric)]
            if curve.empty or line.empty:  # not every method has every task
                continue
            found, guess = crossing(curve, line, lower_is_better=metric == "loss"), chance(table, metric)
            tops = (line["value"], curve.loc[curve["tokens"] == curve["tokens"].max(), "value"])
            above = math.isnan(guess) or any(stats.interval(top).low > guess for top in tops)
            rows.append(
                {"spec": spec, "method": method, "metric": metric}
                | {"cbd": float(tops[0].mean()), "scratch": float(tops[1].mean())}
                | {"chance": guess, "above_chance": above}
                | {"tokens": found.tokens, "low": found.low, "high": found.high}
                | {"verdict": _verdict(found), "lower_bound": found.lower_bound}
                | {"extrapolated": found.extrapolated, "n": found.n, "chain": _chain(table, spec, method)}
            )
    return pd.DataFrame(rows)


def _chain(table: pd.DataFrame, spec: str, method: str) -> float:
    rows = table[(table["metric"] == CHAIN_TOKENS) & (table["spec"] == spec)]
    return float(rows.loc[rows["method"] == method, "value"].mean())


def _verdict(found: Crossing) -> str:
    if math.isnan(found.tokens):
        return "not reached"
    return "reached at the smallest budget" if found.upper_bound else "reached"


# ---- the scorecard


def _shares(tables: Tables) -> pd.DataFrame:
    """Tokens with which random weights reach CBD, as a share of their longest budget; inf where never."""
    longest = int(tables["scratch_vs_cbd"]["tokens"].max())
    found = crossings(tables["scratch_vs_cbd"])
    found = found[(found["method"] == CBD) & found["above_chance"]]
    found = found.assign(point=found["tokens"].fillna(math.inf))
    ends = ["point", "low", "high"]
    return units(found.assign(**(found[ends] / longest)), "{spec} {metric}", "{metric}")


def _silent(table: pd.DataFrame, metrics: list[str]) -> str:
    """The sizes and tasks on which neither CBD nor random weights get above chance."""
    found = crossings(table)
    rows = found[(found["method"] == CBD) & ~found["above_chance"] & found["metric"].isin(metrics)]
    return ", ".join(f"{row.spec} {row.metric}" for row in rows.itertuples())


def _silent_tasks(tables: Tables) -> str:
    """The longest budget, and the tasks that are not judged."""
    table = tables["scratch_vs_cbd"]
    budget = f"Longest budget {int(table['tokens'].max()):,} tokens"
    silent = _silent(table, main_metrics(table))
    return f"{budget}; at chance, not judged: {silent}" if silent else budget


def _silent_generation(tables: Tables) -> str:
    """Where the gap compares scores that are no better than chance."""
    table = tables["scratch_vs_cbd"]
    silent = _silent(table, generative(table))
    return f"Neither is above chance: {silent}" if silent else ""


def _generation_gaps(tables: Tables) -> pd.DataFrame:
    """Rouge-L, CBD minus random at the longest budget, and what the gap has shrunk by since the first."""
    table = tables["scratch_vs_cbd"]
    parts = []
    for metric in generative(table):
        random = table[(table["metric"] == metric) & (table["method"] == RANDOM)]
        first, last = random["tokens"].min(), random["tokens"].max()
        left = paired(table[table["tokens"].isin([0, last])], CBD, RANDOM, metric)
        named = random["tokens"].map({first: "first", last: "last"})
        shrunk = paired(random.assign(method=named), "last", "first", metric)
        parts += [left.assign(unit=left["unit"] + " left"), shrunk.assign(unit=shrunk["unit"] + " shrunk by")]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _losses_of_random(tables: Tables) -> pd.DataFrame:
    table = tables["scratch_vs_cbd"]
    return table[(table["metric"] == "loss") & (table["method"] == RANDOM)]


def _shrinking(tables: Tables) -> pd.DataFrame:
    """By how much the gap in loss shrinks from each budget to the next: what random weights gain."""
    random = _losses_of_random(tables)
    budgets = sorted(set(random["tokens"]))
    parts = []
    for i, tokens in enumerate(budgets[1:]):
        named = random["tokens"].map({budgets[i]: "before", tokens: "after"}).fillna("")
        parts.append(paired(random.assign(method=named), "before", "after").assign(step=f"to {tokens:,}"))
    return units(pd.concat(parts, ignore_index=True), "{spec} {step}", "{spec}")


def _loss_gaps(tables: Tables) -> str:
    """The gap itself, random minus CBD at zero tokens, at the shortest and at the longest budget."""
    table, random = tables["scratch_vs_cbd"], _losses_of_random(tables)
    words = []
    for tokens in (random["tokens"].min(), random["tokens"].max()):
        gap = paired(table[table["tokens"].isin([0, tokens])], RANDOM, CBD)
        words.append(f"at {tokens:,} tokens {listed(gap)}")
    return f"Advantage {'; '.join(words)}"


ROWS = {
    "E3": Entry(
        ("scratch_vs_cbd",),
        _shares,
        Sides(
            "Each size, loss and tasks above chance: tokens with which random weights reach CBD at zero "
            "tokens, as a share of their longest budget",
            "above",
            SHARE,
            ".2f",
        ),
        _silent_tasks,
    ),
    "E8": Entry(
        ("scratch_vs_cbd",),
        _generation_gaps,
        Sides(
            "Rouge-L, each size: CBD at zero tokens minus random at its longest budget; "
            "and how far that gap has shrunk since the shortest",
            "above",
        ),
        _silent_generation,
    ),
    "Q11": Entry(
        ("scratch_vs_cbd",),
        _shrinking,
        Sides(
            f"Each size and budget of random weights: CBD's advantage minus that at the next budget, {NATS}",
            "above",
        ),
        _loss_gaps,
    ),
}


# ---- what the notebook predicted before the runs

FOLLOWS = -0.5  # a rank correlation with the loss from which on a score "follows" it


def _bridged_first(tables: Tables) -> pd.DataFrame:
    """Tokens with which scratch reaches the loss of a bridged SLM, over those to the chain's."""
    found = crossings(tables["scratch_vs_cbd"]).query("metric == 'loss'").fillna({"tokens": math.inf})
    bridged, ours = found[found["method"].str.startswith(BRIDGED)], found[found["method"] == CBD]
    both = bridged.merge(ours, on="spec", suffixes=("", "_ours"))
    ratios = {"point": both["tokens"] / both["tokens_ours"]}
    ratios |= {"low": both["low"] / both["high_ours"], "high": both["high"] / both["low_ours"]}
    return units(both.assign(**ratios), "{spec}, {method}")


def _undecided_gaps(tables: Tables) -> pd.DataFrame:
    """The share of the tasks' gaps to random weights, over all budgets, whose interval holds zero."""
    table, undecided = tables["scratch_vs_cbd"], []
    for metric in main_metrics(table):
        ends = table[table["metric"].isin([minus_random(metric, end) for end in ("low", "high")])]
        undecided += list(ends.groupby(["spec", "method", "tokens"])["value"].prod() <= 0)
    return exact({f"of {len(undecided)} gaps": sum(undecided) / max(len(undecided), 1)})


def _followed(tables: Tables) -> pd.DataFrame:
    """Rank correlation of Rouge-L with the loss over all models of a size."""
    table, [metric] = tables["scratch_vs_cbd"], generative(tables["scratch_vs_cbd"])
    rows = table[table["metric"].isin([metric, "loss"]) & table["seed"].notna()]
    wide = rows.pivot_table("value", ["spec", "seed", "method", "tokens"], "metric")
    found = wide.groupby(["spec", "seed"]).corr("spearman")[metric].xs("loss", level="metric")
    return units(stats.summarise(found.rename("value").reset_index(), ["spec"]), "{spec}")


_LADDER = "Tokens with which scratch reaches the SLM's loss, as a share of its longest budget"

PREDICTIONS = {
    "on the loss, scratch reaches the smaller SLM within the ladder": (
        lambda tables: _shares(tables).query("group == 'loss'").head(1),
        Sides(_LADDER, "below", 1, ".2f"),
    ),
    "it reaches the larger one late or not at all": (
        lambda tables: _shares(tables).query("group == 'loss'").tail(1),
        Sides(_LADDER, "above", SHARE, ".2f"),
    ),
    "the bridged SLM is reached earlier": (
        _bridged_first,
        Sides("Tokens to the loss of the bridged SLM over those to the chain's", "below", 1, ".2f"),
    ),
    "on tasks, most intervals of the gap hold zero": (
        _undecided_gaps,
        Sides("Share of them that holds zero", "above", MOST, ".2f"),
    ),
    "after fine-tuning, Rouge-L follows the loss": (
        _followed,
        Sides("Rank correlation of Rouge-L with the loss", "below", FOLLOWS, "+.2f"),
    ),
}

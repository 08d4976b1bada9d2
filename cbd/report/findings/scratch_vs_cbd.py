"""E3, E8: CBD with no training of its own against random weights with more and more of it."""

import math
from collections.abc import Callable
from itertools import product

import pandas as pd

from cbd.report import stats
from cbd.report.crossing import crossing
from cbd.report.findings.shared import TRAINED, chance, exact, generative, main_metrics, paired, sizes, units
from cbd.report.names import BRIDGED, CBD, CHAIN_TOKENS, RANDOM, minus_random
from cbd.report.verdicts import MOST, Entry, Facts, Tables, above, below

SHARE = 0.5  # of the longest budget: the smaller of the paper's two savings is 5B of 10B tokens


def crossings(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each size, method and metric: loss and the tasks' main metrics (E3).

    Columns: spec, method, metric, cbd and scratch (their means, scratch's at its longest budget), chance,
    above_chance (whether either of the two is: where guessers meet says nothing), tokens, low, high (the
    crossing and its 95 % interval over seeds), verdict ("reached", "reached at the smallest budget", "not
    reached"), lower_bound, extrapolated (by a power law through the ladder: not measured), n, chain (tokens
    of scratch that cost as many FLOPs as the chain did, its source given). above_chance: the mean of either
    must be, its interval over seeds too, or, of one seed, over items; a metric without a chance level counts
    as above it.
    """
    rows = []
    for spec in sizes(table):
        here = table[table["spec"] == spec]
        scratch = here[here["method"] == RANDOM]
        zero = here[(here["tokens"] == 0) & (here["method"] != RANDOM)]
        for method, metric in product(zero["method"].unique(), ["loss", *main_metrics(table)]):
            curve = scratch[scratch["metric"] == metric]
            line = zero[(zero["method"] == method) & (zero["metric"] == metric)]
            if curve.empty or line.empty:  # not every method has every task
                continue
            found, guess = crossing(curve, line, lower_is_better=metric == "loss"), chance(table, metric)
            tops = (line, curve[curve["tokens"] == curve["tokens"].max()])
            above = math.isnan(guess) or any(_lowest(top) > guess for top in tops)
            chain = here.loc[(here["method"] == method) & (here["metric"] == CHAIN_TOKENS), "value"].mean()
            reached = "reached at the smallest budget" if found.upper_bound else "reached"
            rows.append(
                {"spec": spec, "method": method, "metric": metric}
                | {"cbd": tops[0]["value"].mean(), "scratch": tops[1]["value"].mean()}
                | {"chance": guess, "above_chance": above}
                | {"tokens": found.tokens, "low": found.low, "high": found.high}
                | {"verdict": "not reached" if math.isnan(found.tokens) else reached}
                | {"lower_bound": found.lower_bound, "extrapolated": found.extrapolated}
                | {"n": found.n, "chain": chain}
            )
    return pd.DataFrame(rows)


def _lowest(rows: pd.DataFrame) -> float:
    """The lower end of the 95 % interval of one score over seeds; of one seed, over items."""
    if len(rows) > 1:
        return stats.interval(rows["value"]).low
    row = rows.iloc[0]
    return row["value"] - 1.96 * row["stderr"]


def _shares(tables: Tables) -> pd.DataFrame:
    """Tokens with which random weights reach CBD, as a share of their longest budget; inf where never."""
    found = crossings(tables["scratch_vs_cbd"]).query("method == @CBD and above_chance")
    ends = found[["tokens", "low", "high"]].fillna({"tokens": math.inf}).rename(columns={"tokens": "point"})
    longest = int(tables["scratch_vs_cbd"]["tokens"].max())
    return units(found.assign(**(ends / longest)), "{spec} {metric}", "{metric}")


def _silent(tables: Tables, tasks: Callable[[pd.DataFrame], list[str]], words: str) -> str:
    """Words, and the sizes and tasks on which neither CBD nor random weights get above chance, if any."""
    table = tables["scratch_vs_cbd"]
    rows = crossings(table).query("method == @CBD and not above_chance")
    rows = rows[rows["metric"].isin(tasks(table))]
    return f"{words}: {', '.join(rows['spec'] + ' ' + rows['metric'])}" if len(rows) else ""


def _silent_tasks(tables: Tables) -> str:
    """The longest budget, and the tasks that are not judged."""
    budget = f"Longest budget {int(tables['scratch_vs_cbd']['tokens'].max()):,} tokens"
    return "; ".join(filter(None, (budget, _silent(tables, main_metrics, "at chance, not judged"))))


def _random(tables: Tables, metric: str = "loss") -> pd.DataFrame:
    """Random weights after each budget, which is the method."""
    rows = tables["scratch_vs_cbd"].query("metric == @metric and method == @RANDOM")
    return rows.assign(method=rows["tokens"].astype(str)).sort_values("tokens", kind="stable")


def _generation_gaps(tables: Tables) -> pd.DataFrame:
    """Rouge-L, CBD minus random at the longest budget, and its shrinking since the first (gain)."""
    parts = [pd.DataFrame()]
    for metric in generative(tables["scratch_vs_cbd"]):
        random = _random(tables, metric)
        first, *_, last = random["tokens"].unique()
        left = paired(tables["scratch_vs_cbd"].query("tokens in (0, @last)"), CBD, RANDOM, metric)
        shrunk = paired(random, str(last), str(first), metric)
        left["gain"], left["gain_low"] = shrunk["point"].to_numpy(), shrunk["low"].to_numpy()
        parts.append(units(left, "{spec} (shrunk by {gain:.3f})"))
    return pd.concat(parts, ignore_index=True)


ROWS = {
    "E3": Entry(
        _shares,
        above(
            "Each size, loss and tasks above chance: tokens with which random weights reach CBD at zero "
            "tokens, as a share of their longest budget",
            SHARE,
            ".2f",
        ),
        _silent_tasks,
        control=TRAINED,
    ),
    "E8": Entry(
        _generation_gaps,
        Facts(
            "Rouge-L, each size: CBD at zero tokens minus random at its longest budget lies above 0, and "
            "that gap has shrunk since the shortest",
            lambda row: row.low > 0 and row.gain_low > 0,
            "+.3f",
        ),
        lambda tables: _silent(tables, generative, "Neither is above chance"),
        control=TRAINED,
    ),
}

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
        below(_LADDER, 1, ".2f"),
    ),
    "it reaches the larger one late or not at all": (
        lambda tables: _shares(tables).query("group == 'loss'").tail(1),
        above(_LADDER, SHARE, ".2f"),
    ),
    "the bridged SLM is reached earlier": (
        _bridged_first,
        below("Tokens to the loss of the bridged SLM over those to the chain's", 1, ".2f"),
    ),
    "on tasks, most intervals of the gap hold zero": (
        _undecided_gaps,
        above("Share of them that holds zero", MOST, ".2f"),
    ),
    "after fine-tuning, Rouge-L follows the loss": (
        _followed,
        below("Rank correlation of Rouge-L with the loss", FOLLOWS, "+.2f"),
    ),
}

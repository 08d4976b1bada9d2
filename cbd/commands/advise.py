"""`cbd plan --targets`: the way to a user's sizes: scratch, direct distillation, a nested run or a chain."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cbd.errors import require, si
from cbd.experiments.scales import NOTHING_SHOWN, SCALES
from cbd.recipes import advice
from cbd.recipes.advice import Way
from cbd.report import ladder, results, stats
from cbd.report.findings import convergence, nested
from cbd.report.names import NESTED, RANDOM

SHARE = 0.5  # of the budget that goes to the anchors unless their tokens are given


@dataclass(frozen=True)
class Worth:
    """What a start of the chain was measured to save, in tokens of scratch over the tokens of each anchor.

    low, high: over sizes, from the ends of their intervals; high is infinite where a start is at once as good
    as scratch after its longest budget. ratio: the source's tokens over an anchor's, 0 for a public one.
    """

    scale: str
    low: float
    high: float
    ratio: float


def advise(
    sizes: Sequence[float], budget: float, source: float, anchor_tokens: int | None = None
) -> Iterator[str]:
    """The advice, line by line. sizes, source: parameters. budget: FLOPs, for all sizes together.

    Raises `CbdError` when a size is not below the source's, or the anchors' tokens cost the whole budget.
    """
    sizes = sorted(set(sizes))
    beyond = f"--targets {si(sizes[-1])} is not below --source {si(source)}: a chain leads down"
    require(sizes[-1] < source, beyond)
    cost = advice.chain_cost(source, sizes[0])
    given = SHARE * budget / cost if anchor_tokens is None else anchor_tokens
    enough = budget / cost
    much = f"--anchor-tokens {si(given)} leave nothing of --budget: give fewer than {si(enough)}"
    require(0 < given < enough, much)
    ways = [advice.scratch(sizes), advice.direct(sizes, source), advice.chain(sizes, source, given)]
    if len(sizes) > 1:
        ways.insert(2, advice.nested(sizes, source))
    yield from _table(ways, budget, given)
    needs = ways[-1].break_even(budget, ways[0].mean_loss(budget)) / given
    worth = measured()
    yield ""
    yield from _recommended(needs, worth)
    yield ""
    yield from _commands(ways[-1], budget, source, given, needs)


def _table(ways: Sequence[Way], budget: float, given: float) -> Iterator[str]:
    """What each way can afford, and what must be true for it to be as good as scratch."""
    line = "{:<20}{:>10}{:>22}{:>8}  {}"
    yield line.format("way", "fixed", "tokens a size", "loss", "as good as scratch if")
    other = ways[0].mean_loss(budget)
    for way in ways:
        tokens = way.tokens(budget)
        spread = " to ".join(dict.fromkeys((si(min(tokens)), si(max(tokens)))))
        condition = "-"
        if way.fixed:
            worth = way.break_even(budget, other)
            times = f"{worth / given:.2g} times an anchor's {si(given)}"
            condition = f"each start is worth {si(worth)} tokens, {times}"
        elif way is not ways[0]:
            condition = f"a token is worth {way.needed_factor(budget, other):.2g} of scratch's"
        yield line.format(way.name, si(way.fixed, " "), spread, f"{way.mean_loss(budget):.3f}", condition)
    yield "(loss: mean over sizes by the law of arXiv 2404.10102, starts worth nothing; fixed: FLOPs)"
    if other > advice.GUESSING:
        yield "(So few tokens are far outside the law: it has training worse than guessing. Raise --budget.)"


def measured() -> Worth | None:
    """What was measured at the largest scale whose baseline is tuned; None where there is no such table."""
    for name in reversed([name for name in SCALES if name != NOTHING_SHOWN]):
        if "convergence" in results.names(name):
            table = results.read_table(name, "convergence")
            tried = ladder.worst({"convergence": table}).get(RANDOM, {"excess": 0})
            if tried["excess"] <= ladder.SLACK and table["seed"].nunique() > 1:
                return _worth(name, table)
    return None


def _worth(name: str, table: pd.DataFrame) -> Worth:
    """The tokens saved in each size, at the longest budget of random weights whose loss CBD's runs reach."""
    found, keys = convergence.needed(table).query("`to` == @convergence.TO_RANDOM"), ["spec", "budget"]
    reached = np.isfinite(found["cbd"]).groupby([found[key] for key in keys]).transform("all")
    last = (
        found.assign(reached=reached).sort_values(["reached", "budget"]).drop_duplicates("spec", keep="last")
    )
    found = found.merge(last[keys], on=keys)
    scale = SCALES[name]
    anchor = scale.anchor_training.tokens
    saved = found.assign(value=(found["random"] - found["cbd"]).clip(lower=0) / anchor)
    ends = stats.summarise(saved, ["spec"])
    whole = (found["cbd"] == 0).groupby(found["spec"]).all().any()
    source = scale.source_training.tokens / anchor if scale.source_training else 0.0
    return Worth(name, max(0.0, ends["low"].min()), math.inf if whole else ends["high"].max(), source)


def _recommended(needs: float, worth: Worth | None) -> Iterator[str]:
    yield "What decides: how many tokens of scratch a start of the chain is worth."
    if worth is None:
        yield "Nothing here has measured it against a tuned baseline, so no way is recommended."
        return
    most = "or more" if math.isinf(worth.high) else f"to {worth.high:.2g}"
    span = f"{worth.low:.2g} {most}"
    yield f"At {worth.scale} scale: {span} times an anchor's tokens, by size. Needed: {needs:.2g} times."
    if needs < worth.low:
        yield "Recommended, if that carries over to these sizes: the chain."
    elif needs > worth.high:
        yield "Recommended, if that carries over to these sizes: scratch."
    else:
        yield "That span holds what is needed: try the chain at the smallest size first, and compare."
    if worth.ratio:
        yield f"(Its source saw {worth.ratio:.3g} times an anchor's tokens; one that saw more may know more.)"
    yield from _beside_the_chain(worth.scale)
    yield "Direct distillation has not been measured against scratch here."


def _beside_the_chain(scale: str) -> Iterator[str]:
    """What a nested run of the chain's compute gave at a scale: the range over sizes, nats per token."""
    if "nested" not in results.names(scale):
        yield "A nested run has not been measured here."
        return
    found = nested.nested_against(results.read_table(scale, "nested"))
    ranges = {when: rows["point"] for when, rows in found[found["method"] == NESTED].groupby("when")}
    told = {when: f"{points.min():+.2f} to {points.max():+.2f}" for when, points in ranges.items()}
    yield f"A nested run there, minus the chain, in nats: {told[nested.ANCHOR]} at the anchors' sizes;"
    yield f"in between {told[nested.ZERO]} untrained and {told[nested.AFTER]} after recovery."


def _commands(way: Way, budget: float, source: float, given: float, needs: float) -> Iterator[str]:
    sizes, tokens = way.sizes, way.tokens(budget, needs * given)
    down = ",".join(map(si, advice.anchors(source, sizes[0])))
    yield f"The chain, its source of {si(source)} in `source` and text in `texts`:"
    yield f"  cbd chain --source source --anchors {down} --corpus texts --tokens {round(given)} --out chain"
    for size, count in zip(sizes, tokens, strict=True):
        name = si(size)
        yield f"  cbd init --chain chain --parameters {name} --out start-{name}"
        if count >= 1:
            yield f"  cbd recover start-{name} --corpus texts --tokens {round(count)} --out slm-{name}"

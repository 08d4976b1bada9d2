"""E5: recovery from each start on the same batches, and the tokens that random weights need to catch up."""

import math
from collections.abc import Iterable

import pandas as pd

from cbd.experiments.run import Design, Measurement, row_labels
from cbd.experiments.scales.base import Scale
from cbd.experiments.starts import recovery, starts
from cbd.report import stats
from cbd.report.names import CBD, RANDOM

BOUND = "_lower_bound"


def design(scale: Scale, seed: int) -> Design:
    """Four starts, all budgets, all sizes; random weights also at the long budget."""
    found = []
    for spec in scale.convergence_targets:
        for method, start in starts(scale, seed, spec).items():
            budgets = scale.budgets + ((scale.scratch,) if method == RANDOM else ())
            for tokens in budgets:
                run = recovery(scale, seed, spec, method, start, tokens)
                found.append(Measurement(run, method, labels={"budget": tokens}))
    return Design(tuple(found), _speedups)


def _speedups(frame: pd.DataFrame, designs: dict[int, Design]) -> Iterable[dict]:
    """How many times fewer tokens CBD needs, both ways that one may mean it, and what they are made from.

    speedup_to_cbd_final: tokens with which random weights first reach CBD's final loss, over CBD's budget.
    Random weights may use any of their runs. speedup_to_random_final: the budget over the tokens with which
    CBD first reaches the final loss of random weights at the same budget, one step at least; the paper's 80x
    and 218x can only be of this kind. A loss never reached: "<metric>_lower_bound" is the longest run's.
    """
    losses = frame[frame.metric == "loss"]
    ours = [(seed, m) for seed, design in designs.items() for m in design.measurements if m.method == CBD]
    for seed, m in ours:
        here = losses[(losses.seed == seed) & (losses.spec == m.recipe.spec.name)]
        random, own = here[here.method == RANDOM], here[here.recipe == m.recipe.key].sort_values("tokens")
        budget, step = m.recipe.tokens, m.recipe.training.batch * m.recipe.training.context
        to_start, unmet = _first_tokens(random, own.value.iloc[0])
        found = {f"random_tokens_to_cbd_step_zero{BOUND if unmet else ''}": to_start}
        to_end, unmet = _first_tokens(random, own.value.iloc[-1])
        found["speedup_to_cbd_final"] = math.nan if unmet else to_end / budget
        if unmet:
            found[f"speedup_to_cbd_final{BOUND}"] = to_end / budget
        same = random[random.budget == m.labels["budget"]].sort_values("tokens")
        needed, unmet = _first_tokens(own, same.value.iloc[-1])
        # CBD may end above random: no speed-up at all
        found["speedup_to_random_final"] = math.nan if unmet else budget / max(needed, step)
        labels = row_labels(m) | {"seed": seed, "tokens": budget}
        yield from (labels | {"metric": metric, "value": value} for metric, value in found.items())


def _first_tokens(curves: pd.DataFrame, loss: float) -> tuple[float, bool]:
    """The fewest tokens with which any of these runs reaches the loss, or else the longest run's, a bound."""
    reached = [stats.tokens_to_reach(curve, loss) for _, curve in curves.groupby("budget")]
    fewest = min((tokens for tokens in reached if pd.notna(tokens)), default=None)
    return (float(curves.tokens.max()), True) if fewest is None else (fewest, False)

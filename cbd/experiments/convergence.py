"""E5, E12, Q2, Q11: recovery from each start on the same batches, and what the starts' chain costs."""

from collections.abc import Iterable

from cbd.experiments.run import Design, Measurement, row_labels
from cbd.experiments.scales.base import Scale
from cbd.experiments.starts import given, recovery, starts
from cbd.recipes import costs
from cbd.report.names import CBD, CHAIN_TOKENS, RANDOM


def design(scale: Scale, seed: int) -> Design:
    """Four starts, all budgets, all sizes; random weights also at the long budget."""
    found = []
    for spec in scale.convergence_targets:
        for method, start in starts(scale, seed, spec).items():
            budgets = scale.budgets + ((scale.scratch,) if method == RANDOM else ())
            for tokens in budgets:
                run = recovery(scale, seed, spec, method, start, tokens)
                found.append(Measurement(run, method, labels={"budget": tokens}))

    return Design(tuple(found), lambda frame, designs, items: _chain_tokens(scale, designs))


def _chain_tokens(scale: Scale, designs: dict[int, Design]) -> Iterable[dict]:
    """What the chain of each size's start costs, in training tokens of a model of that size."""
    for seed, design in designs.items():
        for m in design.measurements:
            if m.method == CBD and m.labels["budget"] == scale.budgets[0]:
                work = costs.flops([m.recipe.start], given(scale, seed))
                spent = {"flops": work, "value": work / m.recipe.flops_per_token}
                yield row_labels(m) | {"seed": seed, "metric": CHAIN_TOKENS} | spent

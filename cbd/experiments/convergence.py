"""E5, E12, Q2, Q11: recovery from each start on the same batches, and what the starts' chain costs."""

from collections.abc import Iterable

from cbd.experiments.run import Design, Measurement, row_labels
from cbd.experiments.scales.base import Scale
from cbd.experiments.starts import controls, given, recovery, starts
from cbd.experiments.tasks import benchmarked, chosen, elsewhere
from cbd.recipes import costs
from cbd.report.names import CBD, CHAIN_TOKENS, RANDOM


def design(scale: Scale, seed: int) -> Design:
    """Each start, all budgets, all sizes; random weights also at the long budget.

    Where the scale has other texts, losses on them: of every finished run, and of CBD at step zero. Tasks
    after the largest common budget, where they are scored at step zero.
    """
    found = []
    for spec in scale.convergence_targets:
        more, first = (controls(scale, s, spec) for s in (seed, 0))
        for method, start in (starts(scale, seed, spec) | more).items():
            budgets = scale.budgets + ((scale.scratch,) if method == RANDOM else ())
            for tokens in budgets:
                run = recovery(scale, seed, spec, method, start, tokens, first.get(method))
                found.append(Measurement(run, method, labels={"budget": tokens}))
                found += elsewhere(scale, run, method, tokens)
                if tokens == max(scale.budgets) and method in benchmarked(scale):
                    scores = chosen(scale, run)
                    found += [Measurement(score, method, labels={"budget": tokens}) for score in scores]
            if method == CBD:
                found += elsewhere(scale, start, method, min(budgets))
    return Design(tuple(found), lambda frame, designs, items: _chain_tokens(scale, designs))


def _chain_tokens(scale: Scale, designs: dict[int, Design]) -> Iterable[dict]:
    """What the chain of each size's start costs, in training tokens of a model of that size."""
    for seed, design in designs.items():
        for m in design.measurements:
            if m.method == CBD and m.metric == "loss" and m.recipe.tokens == scale.budgets[0]:
                work = costs.flops([m.recipe.start], given(scale, seed))
                spent = {"flops": work, "value": work / m.recipe.flops_per_token}
                yield row_labels(m) | {"seed": seed, "metric": CHAIN_TOKENS} | spent

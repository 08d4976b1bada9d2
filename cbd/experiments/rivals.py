"""E9, Q8: other papers' ways to initialise a model of any size, head to head with CBD."""

from cbd.errors import require
from cbd.experiments.run import Design, Measurement
from cbd.experiments.scales.base import Scale
from cbd.experiments.starts import recovery, starts


def runs_at(scale: Scale) -> bool:
    """Whether the scale names rivals."""
    return bool(scale.rivals)


def design(scale: Scale, seed: int) -> Design:
    """Every start from the same two anchors, untrained, and trained on the same batches at its own rate."""
    require(runs_at(scale), f"the scale {scale.name} names no rivals to compare: try --scale smoke")
    found, budget = [], scale.budgets[0]
    for spec in scale.convergence_targets:
        for method, start in starts(scale, seed, spec, ("union", *scale.rivals)).items():
            run = recovery(scale, seed, spec, method, start, budget)
            found.append(Measurement(run, method, labels={"budget": budget}))
    return Design(tuple(found))

"""E4, E13: CBD and random weights after the same recovery training, at several budgets and sizes.

Below the chain, where there are no two anchors to mix, the smallest anchor, cut, stands for CBD.
"""

from cbd.experiments.run import Design, Measurement
from cbd.experiments.scales.base import Scale
from cbd.experiments.starts import recovery, starts
from cbd.experiments.tasks import gaps, scored
from cbd.report.names import CBD, CURVE, LARGER, RANDOM


def design(scale: Scale, seed: int) -> Design:
    """Loss and tasks after each budget; each kind of start trains at the best rate of its own search."""
    found = []
    for spec in scale.scratch_vs_cbd.equal_targets:
        begin = starts(scale, seed, spec)
        for method in (CBD if CBD in begin else LARGER, RANDOM):
            for tokens in scale.scratch_vs_cbd.equal_budgets:
                run = recovery(scale, seed, spec, method, begin[method], tokens)
                found += scored(scale, run, seed, method, budget=tokens)
                found.append(Measurement(run, method, CURVE, {"budget": tokens}))
    return Design(tuple(found), gaps)

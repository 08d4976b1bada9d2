"""Beyond the paper: anchors that start from slices of principal axes against slices of important channels.

The same source, sizes, tokens and loss in either basis; only what the slices are taken from differs.
"""

from dataclasses import replace

from cbd.experiments.families import chain, corpus_of, dial_of, runs_at, targets
from cbd.experiments.run import Design, Measurement
from cbd.experiments.scales.base import Scale
from cbd.recipes.starts import STARTS
from cbd.report.names import AXES, BETWEEN, DISTILLED, SLICED, SORTED, SOURCE

__all__ = ["design", "runs_at"]

BASES = {SORTED: "sorted", AXES: "axes"}


def design(scale: Scale, seed: int) -> Design:
    """Every anchor before and after its distillation, and every size in between from each start."""
    found = []
    for family in dial_of(scale).turned:
        here = replace(scale, corpus=corpus_of(scale, family))
        for method, basis in BASES.items():
            knowledge = chain(scale, seed, family, basis)
            for anchor in knowledge.models[1:]:
                for stage, model in ((SLICED, anchor.start), (DISTILLED, anchor)):
                    found.append(Measurement(here.evaluated(model), method, labels={"stage": stage}))
            for spec in targets(scale, family):
                small, large = knowledge.pair_around(spec)
                for key in BETWEEN:
                    start = STARTS[key].recipe(small, large, spec, here.corpus)
                    found.append(Measurement(here.evaluated(start), method, labels={"stage": key}))
        found.append(Measurement(here.evaluated(knowledge.models[0]), SOURCE))
    return Design(tuple(found))

"""Theorem 3.1: what its bound is made of, along the chain, as far as it can be computed."""

from itertools import pairwise

from cbd.experiments.run import Design, Measurement
from cbd.experiments.scales.base import Scale
from cbd.experiments.starts import chain
from cbd.recipes.evaluation import Compared
from cbd.report.names import FROM_SOURCE, ONE_STEP


def design(scale: Scale, seed: int) -> Design:
    """Each anchor against its teacher, and against the source; the first has both in one."""
    models, found = chain(scale, seed, "inherited").models, []
    pairs = [(ONE_STEP, above, below) for above, below in pairwise(models)]
    pairs += [(FROM_SOURCE, models[0], anchor) for anchor in models[1:]]
    for method, teacher, model in pairs:
        measured = Compared(model, teacher, scale.corpus, scale.sample, scale.recovery.context)
        found.append(Measurement(measured, method, labels={"source": teacher.spec.name}))
    return Design(tuple(found))

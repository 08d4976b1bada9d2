"""E2, Q2, Q3: SLMs of many sizes at step zero: CBD by every operator, either anchor alone, random weights."""

from __future__ import annotations

from cbd.experiments.run import Design, Measurement
from cbd.experiments.scales.base import Scale
from cbd.experiments.starts import chain, starts
from cbd.recipes.evaluation import Evaluated
from cbd.recipes.models import Interpolated
from cbd.recipes.operators import OPERATORS
from cbd.report.names import CBD


def design(scale: Scale, seed: int) -> Design:
    """Every size of the ladder, initialised in every way, evaluated without training."""
    found = []
    for spec in scale.ladder:
        small, large = chain(scale, seed).pair_around(spec)
        for method, start in starts(scale, seed, spec).items():
            if method != CBD:
                found.append(Measurement(_evaluated(start, scale), method))
        for name, operator in OPERATORS.items():
            start = Interpolated(small, large, spec, "distance", operator)
            labels = {"mixing": operator.mixing, "operator": name}
            found.append(Measurement(_evaluated(start, scale), f"CBD ({name})", labels=labels))
    return Design(tuple(found))


def _evaluated(start, scale: Scale) -> Evaluated:
    return Evaluated(start, scale.corpus, scale.sample, scale.recovery.context)

"""E2, Q2, Q3: SLMs of many sizes at step zero: CBD by every operator, either anchor alone, random weights."""

from __future__ import annotations

from cbd.experiments.core import Design, Measurement
from cbd.experiments.models import chain, starts
from cbd.names import CBD
from cbd.operators import OPERATORS
from cbd.recipes import Evaluated, Interpolated
from cbd.scales import Scale


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
            found.append(Measurement(_evaluated(start, scale), f"CBD ({name})", None, operator.mixing, name))
    return Design(tuple(found))


def _evaluated(start, scale: Scale) -> Evaluated:
    return Evaluated(start, scale.corpus, scale.sample, scale.recovery.context)

"""E2, Q2, Q3: SLMs of many sizes at step zero: CBD by every operator, either anchor alone, random weights."""

from cbd.experiments.run import Design, Measurement
from cbd.experiments.scales.base import Scale
from cbd.experiments.starts import starts
from cbd.recipes.operators import OPERATORS
from cbd.recipes.starts import STARTS


def design(scale: Scale, seed: int) -> Design:
    """Every size of the ladder, initialised in every way, evaluated without training."""
    alone = [key for key, start in STARTS.items() if start.operator is None]
    labels = {STARTS[key].label: {"mixing": o.mixing, "operator": key} for key, o in OPERATORS.items()}
    found = []
    for spec in scale.ladder:
        for method, start in starts(scale, seed, spec, [*alone, *OPERATORS]).items():
            found.append(Measurement(scale.evaluated(start), method, labels=labels.get(method, {})))
    return Design(tuple(found))

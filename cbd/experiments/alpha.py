"""E7: step-zero loss against alpha; inherited and independent anchors, literal and union, preserving and
lossy.
"""

from __future__ import annotations

from cbd.experiments.run import Design, Measurement
from cbd.experiments.scales.base import Scale
from cbd.experiments.starts import chain
from cbd.recipes.evaluation import Evaluated
from cbd.recipes.models import Interpolated
from cbd.recipes.operators import LITERAL, LOSSY, UNION, Operator, distance_alpha

# label of the table's operator column -> operator
READINGS: dict[tuple[str, str], Operator] = {
    ("literal", "preserving"): LITERAL,
    ("union", "preserving"): UNION,
    ("literal", "lossy"): LOSSY,
}


def design(scale: Scale, seed: int) -> Design:
    """A grid of alphas for each target, kind of anchor and reading of the formula."""
    found = []
    for kind in ("inherited", "independent"):
        knowledge = chain(scale, seed, kind)
        for spec in scale.alpha_targets:
            small, large = knowledge.pair_around(spec)
            for (mixing, expansion), operator in READINGS.items():
                for alpha in scale.alphas:
                    start = Interpolated(small, large, spec, alpha, operator)
                    evaluated = Evaluated(start, scale.corpus, scale.sample, scale.recovery.context)
                    labels = {"alpha": alpha, "mixing": mixing, "operator": expansion}
                    found.append(Measurement(evaluated, kind, labels=labels))
    return Design(tuple(found), lambda frame, designs: _rule(scale, designs))


def _rule(scale: Scale, designs: dict[int, Design]):
    """Where the parameter-distance rule puts alpha for each target."""
    for seed in designs:
        for spec in scale.alpha_targets:
            small, large = chain(scale, seed).pair_around(spec)
            alpha = distance_alpha(small.spec, large.spec, spec)
            labels = {"method": "parameter distance", "family": spec.family, "spec": spec.name, "seed": seed}
            yield labels | {"parameters": spec.parameters, "metric": "rule_alpha", "value": alpha}

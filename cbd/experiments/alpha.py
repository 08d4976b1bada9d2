"""E7: step-zero loss against alpha; inherited and independent anchors, literal and union, preserving and
lossy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pandas as pd

from cbd.experiments.run import Design, Measurement
from cbd.experiments.scales.base import Scale
from cbd.experiments.starts import chain
from cbd.recipes.base import Recipe
from cbd.recipes.evaluation import Evaluated
from cbd.recipes.models import Chain, Interpolated
from cbd.recipes.operators import LITERAL, LOSSY, UNION, Operator, distance_alpha
from cbd.recipes.specs import ModelSpec

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
            for start, labels in readings(small, large, spec, scale.alphas):
                evaluated = Evaluated(start, scale.corpus, scale.sample, scale.recovery.context)
                found.append(Measurement(evaluated, kind, labels=labels))

    def derive(frame: pd.DataFrame, designs: dict[int, Design]) -> Iterator[dict]:
        for seed in designs:
            for spec in scale.alpha_targets:
                yield rule(chain(scale, seed), spec) | {"seed": seed}

    return Design(tuple(found), derive)


def readings(
    small: Recipe, large: Recipe, spec: ModelSpec, alphas: Iterable[float]
) -> Iterator[tuple[Interpolated, dict]]:
    """A target by every reading of the formula at every alpha, with the labels of its rows."""
    for (mixing, expansion), operator in READINGS.items():
        for alpha in alphas:
            labels = {"alpha": alpha, "mixing": mixing, "operator": expansion}
            yield Interpolated(small, large, spec, alpha, operator), labels


def rule(chain: Chain, spec: ModelSpec) -> dict:
    """The row that says where the parameter-distance rule puts alpha for a target."""
    small, large = chain.pair_around(spec)
    labels = {"method": "parameter distance", "family": spec.family, "spec": spec.name}
    alpha = distance_alpha(small.spec, large.spec, spec)
    return labels | {"parameters": spec.parameters, "metric": "rule_alpha", "value": alpha}

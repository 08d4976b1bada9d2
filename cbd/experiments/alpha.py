"""E7: step-zero loss against alpha: both kinds of anchors, by three readings of the formula."""

from collections.abc import Callable, Iterable
from functools import partial

import pandas as pd

from cbd.experiments.earlier import Items
from cbd.experiments.run import Design, Measurement
from cbd.experiments.scales.base import Scale
from cbd.experiments.starts import chain
from cbd.recipes.base import Recipe
from cbd.recipes.evaluation import Evaluated
from cbd.recipes.models import Interpolated
from cbd.recipes.operators import LITERAL, LOSSY, UNION, distance_alpha
from cbd.recipes.specs import ModelSpec
from cbd.recipes.training import Run

# label of the table's mixing and operator columns -> operator
READINGS = {("literal", "preserving"): LITERAL, ("union", "preserving"): UNION, ("literal", "lossy"): LOSSY}


def over_alpha(
    pair: tuple[Recipe, Recipe],
    spec: ModelSpec,
    scale: Scale,
    measured: Callable[[Recipe], Evaluated],
    method: str,
    metric: str = "loss",
    **labels,
) -> list[Measurement]:
    """A target between two anchors at each of the scale's alphas, by each reading of the formula."""
    return [
        Measurement(
            measured(Interpolated(*pair, spec, alpha, operator)),
            method,
            metric,
            labels={"alpha": alpha, "mixing": mixing, "operator": expansion, **labels},
        )
        for (mixing, expansion), operator in READINGS.items()
        for alpha in scale.alphas
    ]


def by_rule(frame: pd.DataFrame, designs: dict[int, Design], items: Items) -> Iterable[dict]:
    """Where the parameter-distance rule puts alpha for each target."""
    for seed, design in designs.items():
        recipes = [m.recipe for m in design.measurements]
        models = (r.start if isinstance(r, Run) else r.model for r in recipes)
        targets = {model.spec: model for model in models if isinstance(model, Interpolated)}
        for spec, model in targets.items():
            labels = {"method": "parameter distance", "family": spec.family, "spec": spec.name, "seed": seed}
            alpha = distance_alpha(model.small.spec, model.large.spec, spec)
            yield labels | {"parameters": spec.parameters, "metric": "rule_alpha", "value": alpha}


def design(scale: Scale, seed: int) -> Design:
    """A grid of alphas for each target, kind of anchor and reading of the formula."""
    found = []
    for kind in ("inherited", "independent") if scale.independent else ("inherited",):
        knowledge = chain(scale, seed, kind)
        for spec in scale.alpha_targets:
            for metric, text in scale.texts.items():
                measured = partial(scale.evaluated, corpus=text)
                found += over_alpha(knowledge.pair_around(spec), spec, scale, measured, kind, metric)
    return Design(tuple(found), by_rule)

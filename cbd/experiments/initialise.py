"""E2, Q2, Q3: SLMs of many sizes at step zero: CBD by every operator, one anchor, a rival, random weights."""

from cbd.experiments.run import Design, Measurement
from cbd.experiments.scales.base import Scale
from cbd.experiments.starts import by_scores, controls, starts
from cbd.experiments.tasks import benchmarked, chosen
from cbd.recipes.operators import OPERATORS
from cbd.recipes.starts import STARTS


def design(scale: Scale, seed: int) -> Design:
    """Every size of the ladder, initialised in every way, evaluated without training on every text.

    Of some ways, as the scale says, the tasks are scored, too.
    """
    alone = [key for key, start in STARTS.items() if start.operator is None]
    labels = {STARTS[key].label: {"mixing": o.mixing, "operator": key} for key, o in OPERATORS.items()}
    scored, found = benchmarked(scale), []
    for spec in scale.ladder:
        ways = starts(scale, seed, spec, [*alone, *OPERATORS])
        ways |= controls(scale, seed, spec) | by_scores(scale, seed, spec)
        for method, start in ways.items():
            said = labels.get(method, {})
            for metric, text in scale.texts.items():
                found.append(Measurement(scale.evaluated(start, corpus=text), method, metric, said))
            if method in scored:
                found += [Measurement(recipe, method, labels=said) for recipe in chosen(scale, start)]
    return Design(tuple(found))

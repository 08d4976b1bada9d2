"""E2, Q2, Q3: SLMs of many sizes at step zero: CBD by every operator, one anchor, a rival, random weights."""

from cbd.experiments.run import Design, Measurement
from cbd.experiments.scales.base import Scale
from cbd.experiments.starts import boomerang, by_loss, starts
from cbd.experiments.tasks import chosen
from cbd.recipes.operators import OPERATORS
from cbd.recipes.starts import STARTS
from cbd.report.names import BOOMERANG, CHOSEN, PRUNED


def design(scale: Scale, seed: int) -> Design:
    """Every size of the ladder, initialised in every way, evaluated without training on every text.

    Of some ways, as the scale says, the tasks are scored, too.
    """
    alone = [key for key, start in STARTS.items() if start.operator is None]
    labels = {STARTS[key].label: {"mixing": o.mixing, "operator": key} for key, o in OPERATORS.items()}
    benchmarked = {STARTS[key].label for key in scale.benchmarked} | {BOOMERANG, PRUNED, CHOSEN}
    found = []
    for spec in scale.ladder:
        rival = boomerang(scale, seed, spec)
        ways = starts(scale, seed, spec, [*alone, *OPERATORS]) | by_loss(scale, seed, spec)
        ways |= {BOOMERANG: rival} if rival else {}
        for method, start in ways.items():
            said = labels.get(method, {})
            for metric, text in scale.texts.items():
                found.append(Measurement(scale.evaluated(start, corpus=text), method, metric, said))
            if method in benchmarked:
                found += [Measurement(recipe, method, labels=said) for recipe in chosen(scale, start)]
    return Design(tuple(found))

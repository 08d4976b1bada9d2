"""E11: chains of few and of many anchors over one span, all with the same total of training tokens."""

from dataclasses import replace

from cbd.errors import require
from cbd.experiments.run import Design, Measurement
from cbd.experiments.scales.base import Scale
from cbd.experiments.starts import chain, initialised, recovery
from cbd.recipes.models import Chain
from cbd.report.names import CBD, anchors_named


def runs_at(scale: Scale) -> bool:
    """Whether the scale names chains to compare."""
    return len(scale.densities) > 1


def thinned(scale: Scale, places: tuple[int, ...]) -> Scale:
    """The scale with some of its anchors only; each is trained longer, so that the total of tokens stays."""
    training = scale.anchor_training
    each = training.tokens * len(scale.anchors) // len(places)
    anchors = tuple(scale.anchors[place] for place in places)
    return replace(scale, anchors=anchors, anchor_training=replace(training, tokens=each))


def chains(scale: Scale, seed: int) -> dict[str, Chain]:
    """Method -> chain, from the sparsest to the densest; the paper compares two anchors with four."""
    return {anchors_named(len(places)): chain(thinned(scale, places), seed) for places in scale.densities}


def design(scale: Scale, seed: int) -> Design:
    """The smallest anchor of each chain, and every size in between at step zero and after recovery.

    All sizes recover at the rate and warm-up that were found for the scale's own chain, on the same batches.
    """
    require(runs_at(scale), f"the scale {scale.name} names no chains of different density: try --scale smoke")
    found = []
    for method, knowledge in chains(scale, seed).items():
        found.append(Measurement(scale.evaluated(knowledge.models[-1]), method, "final_loss"))
        for spec in scale.convergence_targets:
            start, budget = initialised(knowledge, spec), scale.budgets[0]
            run = recovery(scale, seed, spec, CBD, start, budget)
            found.append(Measurement(run, method, labels={"budget": budget}))
    return Design(tuple(found))

"""E3, E8: CBD with no training of its own against random weights that are trained on more and more tokens."""

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from cbd.experiments.bridge import bridges
from cbd.experiments.earlier import Items
from cbd.experiments.run import Design, Measurement, row_labels
from cbd.experiments.scales.base import Scale
from cbd.experiments.starts import chain, given, initialised, recovery
from cbd.experiments.tasks import gaps, scored
from cbd.recipes import costs
from cbd.recipes.base import Recipe
from cbd.recipes.models import Random
from cbd.recipes.specs import ModelSpec
from cbd.recipes.steplaw import by_step_law
from cbd.recipes.training import Trained
from cbd.report.names import BRIDGED, CBD, CHAIN_TOKENS, CURVE, RANDOM, SEQUENCE


def seeds(scale: Scale) -> int:
    return scale.scratch_vs_cbd.seeds


def initialisations(scale: Scale, seed: int, spec: ModelSpec) -> dict[str, tuple[str, Recipe]]:
    """Method -> (source's name, SLM at zero tokens), for the chain and for every bridged one.

    The bridge is the paper's, at the level of sequences.
    """
    found = {CBD: ("chain", initialised(chain(scale, seed), spec))}
    if not scale.scratch_vs_cbd.bridged:
        return found
    several = len(scale.bridge.sources) > 1
    for ways in bridges(scale, seed):
        slm = initialised(ways.chain(ways.proxies()[SEQUENCE]), spec)
        found[f"{BRIDGED}: {ways.source.name}" if several else BRIDGED] = (ways.source.name, slm)
    return found


def scratch(scale: Scale, seed: int, spec: ModelSpec, tokens: int) -> Trained:
    """Random weights, trained for a budget with a finished schedule of its own, at a rate of their own.

    Rate and warm-up come from a search, or rate and batch from the Step Law.
    """
    start = Random(spec, scale.corpus, seed)
    if scale.scratch_vs_cbd.step_law:
        return Trained(start, scale.corpus, by_step_law(replace(scale.recovery, seed=seed), spec, tokens))
    return recovery(scale, seed, spec, RANDOM, start, tokens)


def design(scale: Scale, seed: int) -> Design:
    """Loss and tasks of every initialisation at zero tokens, and of scratch at every step of the ladder."""
    found = []
    for spec in scale.scratch_vs_cbd.targets:
        for method, (name, slm) in initialisations(scale, seed, spec).items():
            found += scored(scale, slm, seed, method, source=name)
        for tokens in scale.scratch_vs_cbd.ladder:
            run = scratch(scale, seed, spec, tokens)
            found += scored(scale, run, seed, RANDOM, budget=tokens)
            found.append(Measurement(run, RANDOM, CURVE, {"budget": tokens}))

    def derive(frame: pd.DataFrame, designs: dict[int, Design], items: Items) -> Iterator[dict]:
        yield from gaps(frame, designs, items)
        yield from chain_tokens(scale, seed)

    return Design(tuple(found), derive)


def chain_tokens(scale: Scale, seed: int) -> Iterator[dict]:
    """What each start's chain costs, in training tokens of random weights of the start's size.

    The source LLMs are given; anchors, and a bridge's text and proxy, are counted.
    """
    bridged = bridges(scale, seed) if scale.scratch_vs_cbd.bridged else []
    free = [*given(scale, seed), *(ways.llm for ways in bridged)]
    for spec in scale.scratch_vs_cbd.targets:
        for method, (name, slm) in initialisations(scale, seed, spec).items():
            work = costs.flops([slm], free)
            tokens = work / spec.training_flops(scale.recovery.context)
            labels = row_labels(Measurement(slm, method, labels={"source": name}))
            yield labels | {"flops": work, "metric": CHAIN_TOKENS, "value": tokens}

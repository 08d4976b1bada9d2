"""What several experiments share: the source, the knowledge chain, and the starts that are compared."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from cbd.experiments.scales.base import Scale
from cbd.recipes.base import Recipe
from cbd.recipes.data import Corpus
from cbd.recipes.models import Chain, Interpolated, Random, Source
from cbd.recipes.operators import UNION
from cbd.recipes.specs import ModelSpec
from cbd.recipes.starts import STARTS
from cbd.recipes.training import Anchor, Loss, Trained, Training, TunedRate
from cbd.report.names import RANDOM

COMPARED = ("union", "grown", "cut", "random")  # starts that are trained on; Q2's nearer anchor is among them
SEARCH_SEED = 1000  # the order of batches in the search for rates: one that no reported run uses


def source(scale: Scale, seed: int) -> Recipe:
    """The source LLM: the scale's public checkpoint, or a model trained here from random weights."""
    if isinstance(scale.source, Source):
        return scale.source
    training = replace(scale.source_training, seed=seed)
    return Trained(Random(scale.source, scale.corpus, seed), scale.corpus, training)


def inherited(
    source: Recipe, specs: Iterable[ModelSpec], corpus: Corpus, training: Training, loss: Loss
) -> Chain:
    """A chain below `source`: each anchor starts from slices of the model above it, and learns from it."""
    models = [source]
    for spec in specs:
        models.append(Anchor.inherited(models[-1], spec, corpus, training, loss))
    return Chain(tuple(models))


def chain(scale: Scale, seed: int, kind: Literal["default", "inherited", "independent"] = "default") -> Chain:
    """The knowledge chain by stepwise distillation (the paper's section 3).

    kind: "inherited" anchors start from slices of their teacher, "independent" ones from their own random
    weights; "default" starts from the scale's public checkpoints where it names them, else inherited.
    """
    corpus, loss = scale.corpus, scale.loss
    training = replace(scale.anchor_training, seed=seed)
    models = [source(scale, seed)]
    for given, spec in zip(scale.anchors, scale.anchor_specs, strict=True):
        if kind == "independent":
            slow = from_random(scale, training)
            anchor = Anchor.from_random(models[-1], spec, corpus, slow, loss)
        elif kind == "default" and isinstance(given, Source):
            anchor = Anchor(models[-1], given, corpus, training, loss)
        else:
            anchor = Anchor.inherited(models[-1], spec, corpus, training, loss)
        models.append(anchor)
    return Chain(tuple(models))


def from_random(scale: Scale, training: Training) -> Training:
    """The same budget at the rate that random starts need."""
    return replace(training, lr=scale.source_training.lr if scale.source_training else scale.random_rates[0])


def initialised(chain: Chain, spec: ModelSpec) -> Interpolated:
    """An SLM of any size inside the chain, as `cbd init` makes it unless told otherwise."""
    return Interpolated(*chain.pair_around(spec), spec, operator=UNION)


def starts(scale: Scale, seed: int, spec: ModelSpec, keys: Iterable[str] = COMPARED) -> dict[str, Recipe]:
    """Method -> what a run of the target may start from, for some of `cbd.recipes.starts.STARTS`."""
    small, large = chain(scale, seed).pair_around(spec)
    chosen = [STARTS[key] for key in keys]
    return {start.label: start.recipe(small, large, spec, scale.corpus, seed) for start in chosen}


def tuned(scale: Scale, spec: ModelSpec, method: str, tokens: int) -> TunedRate:
    """The best rate for a kind of start at a budget, searched with the first seed's chain."""
    start = starts(scale, 0, spec)[method]
    training = replace(scale.recovery, tokens=tokens, seed=SEARCH_SEED, evaluations=1)
    rates = scale.random_rates if method == RANDOM else scale.rates
    return TunedRate.search(Trained(start, scale.corpus, training), rates)


def recovery(scale: Scale, seed: int, spec: ModelSpec, method: str, start: Recipe, tokens: int) -> Trained:
    """One run: the start, trained for `tokens` at its kind's own rate, on the batches of `seed`.

    The rate is the best at the smallest budget, for every kind of start alike.
    """
    rate = tuned(scale, spec, method, scale.budgets[0])
    return Trained(start, scale.corpus, replace(scale.recovery, tokens=tokens, seed=seed, lr=rate))

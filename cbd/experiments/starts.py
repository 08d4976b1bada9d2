"""What several experiments share: the source, the knowledge chain, and the starts that are compared."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal

from cbd.experiments.scales.base import Scale
from cbd.recipes.base import Recipe
from cbd.recipes.data import Corpus
from cbd.recipes.models import (
    Chain,
    Interpolated,
    Patched,
    Pruned,
    Random,
    Rotated,
    Sorted,
    Source,
    Transferred,
)
from cbd.recipes.operators import PATCH, UNION, distance_alpha
from cbd.recipes.specs import ModelSpec
from cbd.recipes.starts import RIVALS, STARTS
from cbd.recipes.training import Anchor, Loss, Search, Trained, Training
from cbd.report.names import (
    BOOMERANG,
    BOOMERANG_KL,
    BY_SCORE,
    CHOSEN,
    CORRECTED,
    LEARNGENE,
    PRUNED,
    RANDOM,
)

COMPARED = ("union", "grown", "cut", "random")  # starts that are trained on; Q2's nearer anchor is among them


def source(scale: Scale, seed: int) -> Recipe:
    """The source LLM: the scale's public checkpoint, or a model trained here from random weights."""
    if isinstance(scale.source, Source):
        return scale.source
    training = replace(scale.source_training, seed=seed)
    return Trained(Random(scale.source, scale.corpus, seed), scale.corpus, training)


def given(scale: Scale, seed: int) -> list[Recipe]:
    """What no cost counts: the source LLM and the text, which the source may have written."""
    return [source(scale, seed), scale.corpus]


def inherited(
    source: Recipe,
    specs: Iterable[ModelSpec],
    corpus: Corpus,
    training: Training,
    loss: Loss,
    basis: str = "sorted",
    rate: Callable[[ModelSpec], float] | None = None,
) -> Chain:
    """A chain below `source`: each anchor starts from slices of the model above it, and learns from it.

    basis: of that model: "sorted", by "activations" or in its principal "axes" on the corpus, or "auto":
    these where width shrinks.
    rate: an anchor's learning rate by its shape; None: the training's for all.
    """
    models = [source]
    for spec in specs:
        above = models[-1]
        axes = basis == "axes" or (basis == "auto" and spec.width < above.spec.width)
        measured = axes or basis == "activations"
        read = Rotated(above, corpus, context=training.context, axes=axes) if measured else Sorted(above)
        own = training if rate is None else replace(training, lr=rate(spec))
        models.append(Anchor.inherited(above, spec, corpus, own, loss, read))
    return Chain(tuple(models))


def stage(scale: Scale, training: Training, seed: int, number: int) -> Training:
    """The training of one stage on its own part of the seed's stream: anchors are 0, 1, ..., recovery last.

    Else a model would see the very windows again that its ancestors were trained on.
    """
    before = scale.source_training.steps if scale.source_training else 0
    return replace(training, seed=seed, skip=before + number * scale.anchor_training.steps)


Kind = Literal["default", "inherited", "independent", "alone"]


def chain(scale: Scale, seed: int, kind: Kind = "default") -> Chain:
    """The knowledge chain by stepwise distillation (the paper's section 3).

    kind: "inherited" anchors start from slices of their teacher, "independent" ones from their own random
    weights; "default" starts from the scale's public checkpoints where it names them, else inherited; "alone"
    is the control: inherited, but trained on by cross-entropy alone.
    """
    corpus, loss = scale.corpus, scale.loss
    models = [source(scale, seed)]
    for number, (given, spec) in enumerate(zip(scale.anchors, scale.anchor_specs, strict=True)):
        training = stage(scale, scale.anchor_training, seed, number)
        if kind == "alone":
            anchor = Trained(Transferred(Sorted(models[-1]), spec), corpus, training)
        elif kind == "independent":
            fast = from_random(scale, training)
            anchor = Anchor.from_random(models[-1], spec, corpus, fast, loss)
        elif kind == "default" and isinstance(given, Source):
            anchor = Anchor(models[-1], given, corpus, training, loss)
        else:
            anchor = Anchor.inherited(models[-1], spec, corpus, training, loss)
        models.append(anchor)
    return Chain(tuple(models))


def from_random(scale: Scale, training: Training) -> Training:
    """The same budget at the rate that random starts need."""
    return replace(training, lr=scale.source_training.lr if scale.source_training else scale.tuning.random_lr)


def initialised(chain: Chain, spec: ModelSpec) -> Interpolated:
    """An SLM of any size inside the chain, as `cbd init` makes it unless told otherwise."""
    return Interpolated(*chain.pair_around(spec), spec, operator=UNION)


def boomerang(scale: Scale, seed: int, spec: ModelSpec) -> Interpolated | None:
    """A size between the rival's student and the source; None where there is no rival, or no such size."""
    llm, dial = source(scale, seed), scale.boomerang
    if dial is None or not dial.layers <= spec.layers or replace(spec, layers=llm.spec.layers) != llm.spec:
        return None
    training = stage(scale, dial.training, seed, 0)
    student = Anchor.boomerang(llm, dial.layers, scale.corpus, training, dial.loss)
    return Interpolated(student, llm, spec, operator=PATCH)


def by_loss(scale: Scale, seed: int, spec: ModelSpec) -> dict[str, Recipe]:
    """The larger anchor without the blocks that the scale's text misses least, and the mixture with it.

    For the mixture those stay that the smaller anchor's blocks stand for. None where depth is the same, or at
    a scale that does not compare them.
    """
    if not scale.pruned:
        return {}
    small, large = chain(scale, seed).pair_around(spec)
    if large.spec.layers == spec.layers:
        return {}
    how = {"context": scale.recovery.context, "precision": scale.recovery.precision}
    # greedy choices nest: a size begins at the next larger one of the ladder, so that rounds are shared
    depths = {s.layers for s in scale.ladder if spec.layers < s.layers < large.spec.layers} | {spec.layers}
    alone = beside = large
    for layers in sorted(depths, reverse=True):
        alone = Pruned(alone, layers, scale.corpus, 0, **how)
        beside = Pruned(beside, layers, scale.corpus, small.spec.layers, **how)
    alpha = distance_alpha(small.spec, large.spec, spec)  # by the whole larger anchor
    return {
        PRUNED: Transferred(alone, spec, UNION.trans),
        CHOSEN: Interpolated(small, beside, spec, alpha, UNION),
    }


def controls(scale: Scale, seed: int, spec: ModelSpec) -> dict[str, Recipe]:
    """Method -> start, of what the scale compares beside `starts`: blocks by loss, and the direct rival."""
    rival = boomerang(scale, seed, spec)
    return by_loss(scale, seed, spec) | ({BOOMERANG: rival} if rival else {})


def by_scores(scale: Scale, seed: int, spec: ModelSpec) -> dict[str, Recipe]:
    """Method -> start, whose blocks are chosen by how far the model moves: the larger anchor's, the rival's.

    None at a scale that does not compare them, and of the anchor's none where depth is the same.
    """
    if not scale.scores:
        return {}
    _, large = chain(scale, seed).pair_around(spec)
    how = {"context": scale.recovery.context, "precision": scale.recovery.precision}
    found: dict[str, Recipe] = {}
    if large.spec.layers > spec.layers:
        scored = {name: {"score": key} for key, name in BY_SCORE.items()}
        scored[CORRECTED] = {"score": "logits", "corrected": True}
        for name, options in scored.items():
            fewer = Pruned(large, spec.layers, scale.corpus, **how, **options)
            found[name] = Transferred(fewer, spec, UNION.trans)
    if rival := boomerang(scale, seed, spec):
        found[BOOMERANG_KL] = Patched(rival.small, rival.large, spec.layers, scale.corpus, **how)
    return found


def starts(scale: Scale, seed: int, spec: ModelSpec, keys: Iterable[str] = COMPARED) -> dict[str, Recipe]:
    """Method -> what a run of the target may start from, for some of `cbd.recipes.starts`, rivals included.

    Below the chain there are no two anchors to mix: the smallest one is cut, and random weights are drawn.
    """
    knowledge = chain(scale, seed)
    if below(scale, spec):
        keys, small, large = ("cut", "random"), None, Sorted(knowledge.models[-1])
    else:
        small, large = knowledge.pair_around(spec)
    chosen = [(STARTS | RIVALS)[key] for key in keys]
    return {start.label: start.recipe(small, large, spec, scale.corpus, seed) for start in chosen}


def below(scale: Scale, spec: ModelSpec) -> bool:
    """Whether a size lies below the scale's smallest anchor."""
    return spec.parameters < scale.anchor_specs[-1].parameters


def tuned(scale: Scale, spec: ModelSpec, method: str, tokens: int, first: Recipe | None = None) -> Search:
    """The best rate and warm-up for a kind of start at a budget, searched with the first seed's chain.

    Random weights are drawn for each seed of the search: one draw can be lucky, and they cost nothing. first:
    the first seed's start, where `method` is none of `starts`.
    """
    start, dial = first or starts(scale, 0, spec, (*COMPARED, *RIVALS))[method], scale.tuning
    tokens = nearest(tokens, dial.budgets or (tokens,))
    # begun at the others' rate, the walk of a start whose weights are mostly random ends far from its best
    drawn = method in (RANDOM, LEARNGENE)
    lr, warmup = (dial.random_lr, dial.random_warmup) if drawn else (dial.lr, dial.warmup)
    begin = {"lr": lr, "warmup_tokens": min(warmup, tokens * 2 // 3), "evaluations": 1}
    training = stage(scale, replace(scale.recovery, tokens=tokens, **begin), 0, len(scale.anchors))
    others = [Random(spec, scale.corpus, i) for i in range(1, len(dial.seeds))] if method == RANDOM else []
    return Search(start, scale.corpus, training, dial.seeds, tuple(others), dial.least)


def _beyond(scale: Scale, tokens: int) -> dict[str, Any]:
    """What is different in a run that is longer than all that are searched; nothing in any other.

    It keeps its rate until the last fifth: what is best for a short cosine is too low, on average, for a long
    one. And its curve has a point where every shorter run of the scale ends, for the ladder check.
    """
    budgets, dial = scale.tuning.budgets, scale.scratch_vs_cbd
    if not budgets or tokens <= max(budgets):
        return {}
    shorter = {*scale.budgets, scale.scratch, *dial.ladder, *dial.equal_budgets}
    return {"schedule": "wsd", "looks": tuple(sorted(budget for budget in shorter if budget < tokens))}


def nearest(tokens: int, budgets: Iterable[int]) -> int:
    """The budget that is nearest to these tokens as a ratio."""
    return min(budgets, key=lambda budget: (abs(math.log(budget / tokens)), budget))


def recovery(
    scale: Scale,
    seed: int,
    spec: ModelSpec,
    method: str,
    start: Recipe,
    tokens: int,
    first: Recipe | None = None,
) -> Trained:
    """One run: the start, trained for `tokens` at its kind's own rate and warm-up, on the batches of `seed`.

    They are searched at this very budget, or at the nearest of the scale's (`base.Tuning.budgets`), for every
    kind of start alike. first: as for `tuned`.
    """
    found = {"lr": tuned(scale, spec, method, tokens, first), **_beyond(scale, tokens)}
    training = replace(scale.recovery, tokens=tokens, **found)
    return Trained(start, scale.corpus, stage(scale, training, seed, len(scale.anchors)))

"""E1, E6b, Q4: the knowledge chain step by step, without a teacher, and its smallest anchor directly."""

import json
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd

from cbd.experiments.earlier import Items
from cbd.experiments.run import Design, Measurement, row_labels
from cbd.experiments.scales.base import Scale
from cbd.experiments.starts import chain, source, stage
from cbd.experiments.tasks import chosen
from cbd.realize import store
from cbd.recipes.models import Source
from cbd.recipes.training import Anchor
from cbd.report.names import ALONE, DIRECT_COMPUTE, DIRECT_TOKENS, SOURCE, STEPWISE


def direct(scale: Scale, seed: int) -> dict[str, Anchor]:
    """The smallest anchor distilled straight from the source, with the chain's tokens or with its compute.

    It starts, like the stepwise one, from slices of its teacher, and has the chain's loss and rate.
    """
    llm, anchors = source(scale, seed), chain(scale, seed, "inherited").models[1:]
    training = stage(scale, scale.anchor_training, seed, 0)
    same_tokens = Anchor.inherited(llm, scale.anchor_specs[-1], scale.corpus, training, scale.loss)
    budget = sum(anchor.tokens * anchor.flops_per_token for anchor in anchors)
    tokens = budget // same_tokens.flops_per_token
    same_compute = replace(same_tokens, training=replace(training, tokens=tokens))
    return {DIRECT_COMPUTE: same_compute, DIRECT_TOKENS: same_tokens}


def design(scale: Scale, seed: int) -> Design:
    """Curves of every step and of the direct runs, and all of them on the same held-out text at the end."""
    llm, *anchors = chain(scale, seed, "inherited").models
    models = [(SOURCE, llm)] + [(STEPWISE, anchor) for anchor in anchors] + list(direct(scale, seed).items())
    models += [(ALONE, anchor) for anchor in chain(scale, seed, "alone").models[1:]]
    curves = [Measurement(model, method) for method, model in models if not isinstance(model, Source)]
    ends = [Measurement(scale.evaluated(model), method, "final_loss") for method, model in models]
    others = {metric: text for metric, text in scale.texts.items() if metric != "loss"}
    for method, model in models:
        for metric, text in others.items():
            ends.append(Measurement(scale.evaluated(model, corpus=text), method, metric))
        if scale.benchmarked:
            ends += [Measurement(recipe, method) for recipe in chosen(scale, model)]
    return Design(tuple(curves + ends), _derive, by_parts=False)


def _derive(frame: pd.DataFrame, designs: dict[int, Design], items: Items) -> Iterable[dict]:
    """What each step loses (Q4), and how steady training was (E6b)."""
    # a public source is one recipe in all seeds
    finals = frame[frame.metric == "final_loss"].drop_duplicates("recipe").set_index("recipe").value
    for seed, design in designs.items():
        ends = [m for m in design.measurements if m.metric == "final_loss" and m.method in (SOURCE, STEPWISE)]
        for above, below in pairwise(ends):
            labels = row_labels(below) | {"seed": seed}
            loss = finals[below.recipe.key]
            yield labels | {"metric": "lost", "value": loss - finals[above.recipe.key]}
            yield labels | {"metric": "lost_since_source", "value": loss - finals[ends[0].recipe.key]}
        smallest = min(m.recipe.spec.parameters for m in ends)
        for m in design.measurements:
            if isinstance(m.recipe, Anchor):
                compared = m.recipe.spec.parameters == smallest
                yield from _stability(row_labels(m) | {"seed": seed}, m.recipe, compared)


def _stability(labels: dict, run: Anchor, with_curve: bool) -> Iterable[dict]:
    """The noise of a training loss: the standard deviation of its successive differences, in nats per token.

    The first tenth, where the loss falls steeply, is left out. Runs of different budgets have equal batches.
    The training curve itself, thinned to 150 steps, is kept for the runs that are compared.
    """
    steps = json.loads((store.folder(run) / "steps.json").read_text())
    losses = np.array([step["loss"] for step in steps])
    yield labels | {"metric": "loss_noise", "value": float(np.std(np.diff(losses[len(losses) // 10 :])))}
    if with_curve:
        per_step = run.training.batch * run.training.context
        for i in range(0, len(losses), max(1, len(losses) // 150)):
            yield labels | {"tokens": (i + 1) * per_step, "metric": "train_loss", "value": float(losses[i])}

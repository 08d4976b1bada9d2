"""What is measured on every model that is compared with scratch: held-out loss and tasks, item by item."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd

from cbd.experiments.run import Design, Measurement, metric_name, pretrained, row_labels
from cbd.experiments.scales.base import Scale
from cbd.realize import store
from cbd.recipes.base import Recipe
from cbd.recipes.evaluation import Downstream
from cbd.recipes.training import Tuned
from cbd.report import stats
from cbd.report.names import RANDOM, minus_random


def scored(scale: Scale, model: Recipe, seed: int, method: str, **labels) -> list[Measurement]:
    """Loss on the test split, tasks scored by likelihood, and, after fine-tuning, those that generate.

    Every model gets the same fine-tuning, in the same order of pairs for the same seed.
    """
    dial = scale.evaluation
    tuned = Tuned(model, dial.pairs, replace(dial.tuning, seed=seed))
    measured = [scale.evaluated(model, "test")]
    for shots in dial.shots:
        asked = {"shots": shots, "limit": dial.limit}
        measured.append(Downstream(model, dial.choice, items=dial.items, **asked))
        measured.append(Downstream(tuned, dial.generation, pairs=dial.pairs, **asked))
    return [Measurement(recipe, method, labels=labels) for recipe in measured]


def gaps(frame: pd.DataFrame, designs: dict[int, Design]) -> Iterator[dict]:
    """Every method's tasks minus those of random weights of the same size; of the same budget, if it has one.

    A row's `budget` and `tokens` are the random weights'.
    """
    by_seed = [[m for m in d.measurements if isinstance(m.recipe, Downstream)] for d in designs.values()]
    asked = lambda m: (m.recipe.spec, m.recipe.tasks, m.recipe.shots)  # noqa: E731
    for (i, ours), (j, random) in product(enumerate(by_seed[0]), repeat=2):
        kinds = ours.method != RANDOM and random.method == RANDOM and asked(ours) == asked(random)
        if kinds and ours.labels.get("budget", random.labels["budget"]) == random.labels["budget"]:
            yield from paired_items([(found[i], found[j]) for found in by_seed])


def paired_items(pairs: Sequence[tuple[Measurement, Measurement]]) -> Iterator[dict]:
    """The first minus the second of each pair (one a seed), over seeds and items, for every task and metric.

    The interval resamples seeds and items, independently of each other (`stats.crossed_interval`): rows
    "<task>/<metric> minus random", with " low" and " high" for its ends.
    """
    first, second = ([_items(m.recipe) for m in side] for side in zip(*pairs, strict=True))
    ours, random = pairs[0]
    tokens = pretrained(random.recipe.model).tokens
    labels = row_labels(ours) | {"budget": random.labels["budget"], "tokens": tokens, "recipe": ""}
    for name in first[0]:
        differences = np.array([np.subtract(a[name], b[name]) for a, b in zip(first, second, strict=True)])
        found = stats.crossed_interval(differences)
        ends = {"": found.point, "low": found.low, "high": found.high}
        for end, value in ends.items():
            yield labels | {"metric": minus_random(name, end), "value": value}


def _items(recipe: Downstream) -> dict[str, list[float]]:
    found = json.loads((store.folder(recipe) / "items.json").read_text())
    return {
        metric_name(task, metric, recipe.shots): values
        for task, metrics in found.items()
        for metric, values in metrics.items()
    }

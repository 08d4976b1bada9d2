"""What is measured on every model that is compared with scratch: held-out loss and tasks, item by item."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd

from cbd.experiments.earlier import Items
from cbd.experiments.run import Design, Measurement, pretrained, row_labels
from cbd.experiments.scales.base import Scale
from cbd.recipes.base import Recipe
from cbd.recipes.evaluation import Downstream
from cbd.recipes.starts import STARTS
from cbd.recipes.training import Tuned
from cbd.report import stats
from cbd.report.findings.shared import chance, main_metrics
from cbd.report.names import AVERAGE, BOOMERANG, RANDOM, minus_random


def scored(scale: Scale, model: Recipe, seed: int, method: str, **labels) -> list[Measurement]:
    """Loss on the test split, tasks scored by likelihood, and, after fine-tuning, those that generate.

    Every model gets the same fine-tuning, in the same order of pairs for the same seed.
    """
    dial = scale.evaluation
    tuned = Tuned(model, dial.pairs, replace(dial.tuning, seed=seed))
    measured = [scale.evaluated(model, "test")]
    for choice in chosen(scale, model):
        generation = replace(choice, model=tuned, tasks=dial.generation, items=None, pairs=dial.pairs)
        measured += [choice, generation]
    return [Measurement(recipe, method, labels=labels) for recipe in measured]


def benchmarked(scale: Scale) -> set[str]:
    """The methods whose tasks are scored, at step zero and after training: the scale's, and the rival."""
    named = {STARTS[key].label for key in scale.benchmarked}
    return named | {BOOMERANG} if named else named


def chosen(scale: Scale, model: Recipe) -> list[Downstream]:
    """The tasks that are scored by likelihood, the model as it is; one recipe a number of examples.

    In the precision in which the scale trains.
    """
    dial = scale.evaluation
    asked = {"items": dial.items, "limit": dial.limit, "precision": scale.recovery.precision}
    return [Downstream(model, dial.choice, shots=shots, **asked) for shots in dial.shots]


def elsewhere(scale: Scale, model: Recipe, method: str, budget: int) -> list[Measurement]:
    """The losses of a model on the texts that the scale does not train on."""
    texts = {metric: text for metric, text in scale.texts.items() if metric != "loss"}
    judged = {metric: scale.evaluated(model, corpus=text) for metric, text in texts.items()}
    return [Measurement(loss, method, metric, {"budget": budget}) for metric, loss in judged.items()]


def gaps(frame: pd.DataFrame, designs: dict[int, Design], items: Items) -> Iterator[dict]:
    """Every method's tasks minus those of random weights of the same size; of the same budget, if it has one.

    Then their average (`_average`). A row's `budget` and `tokens` are the random weights'.
    """
    by_seed = [[m for m in d.measurements if isinstance(m.recipe, Downstream)] for d in designs.values()]
    asked = lambda m: (m.recipe.spec, m.recipe.tasks, m.recipe.shots)  # noqa: E731
    together: dict[tuple, list] = {}
    for (i, ours), (j, random) in product(enumerate(by_seed[0]), repeat=2):
        kinds = ours.method != RANDOM and random.method == RANDOM and asked(ours) == asked(random)
        if kinds and ours.labels.get("budget", random.labels["budget"]) == random.labels["budget"]:
            pairs = [(found[i], found[j]) for found in by_seed]
            yield from paired_items(pairs, items)
            # the task that is scored by likelihood comes first, then the one after fine-tuning
            together.setdefault(_about(pairs[0]), []).append(pairs)
    for pairs in together.values():
        yield from _average(frame, pairs, items)


def paired_items(pairs: Sequence[tuple[Measurement, Measurement]], items: Items) -> Iterator[dict]:
    """The first minus the second of each pair (one a seed), over seeds and items, for every task and metric.

    The interval resamples seeds and items, independently of each other (`stats.crossed_interval`): rows
    "<task>/<metric> minus random", with " low" and " high" for its ends.
    """
    first, second = ([items[m.recipe.key] for m in side] for side in zip(*pairs, strict=True))
    ours, random = pairs[0]
    tokens = pretrained(random.recipe.model).tokens
    labels = row_labels(ours) | {"budget": random.labels["budget"], "tokens": tokens, "recipe": ""}
    for name in first[0]:
        differences = np.array([np.subtract(a[name], b[name]) for a, b in zip(first, second, strict=True)])
        found = stats.crossed_interval(differences)
        ends = {"": found.point, "low": found.low, "high": found.high}
        for end, value in ends.items():
            yield labels | {"metric": minus_random(name, end), "value": value}


def _about(pair: tuple[Measurement, Measurement]) -> tuple:
    """What an average is of: method and source, size and shots, and the random weights' budget."""
    ours, random = pair
    shots = ours.recipe.shots
    return ours.method, ours.labels.get("source"), ours.recipe.spec.name, shots, random.labels["budget"]


def _average(
    frame: pd.DataFrame, sets: Sequence[Sequence[tuple[Measurement, Measurement]]], items: Items
) -> Iterator[dict]:
    """The mean over tasks of the difference, in points of 100, each score floored at what guessing gets.

    sets: for each set of tasks a pair a seed. A score below guessing is no skill less: a model that writes
    nothing sensible is not worse than one that writes at random. The interval resamples seeds and, in each
    task, items.
    """
    ours, random = sets[0][0]
    scored = [[[items[m.recipe.key] for m in pair] for pair in pairs] for pairs in sets]
    tables = []
    for metric in main_metrics(frame):
        for pairs in scored:
            if metric in pairs[0][0]:
                both = [np.array([pair[side][metric] for pair in pairs]) for side in (0, 1)]
                tables.append((*both, chance(frame, metric)))
    found = stats.floored_average(tables)
    tokens = pretrained(random.recipe.model).tokens
    labels = row_labels(ours) | {"budget": random.labels["budget"], "tokens": tokens, "recipe": ""}
    name = f"{AVERAGE}@{ours.recipe.shots}" if ours.recipe.shots else AVERAGE
    for end, value in {"": found.point, "low": found.low, "high": found.high}.items():
        yield labels | {"metric": minus_random(name, end), "value": 100 * value}

"""What is being made: steps done of all, the step at work, and when the rest may be done."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

from tqdm.std import tqdm

from cbd.data import progress
from cbd.recipes import data, evaluation, models, training
from cbd.recipes.base import Recipe

SOON, SHARE = 20, 0.02  # seconds, and share of the work, before which nobody knows when the rest is done
VERBS: dict[type[Recipe], str] = {
    data.Corpus: "tokenize",
    data.Written: "tokenize",
    data.Items: "cut items",
    data.Pairs: "cut pairs",
    models.Source: "fetch",
    models.Random: "draw",
    models.Sorted: "sort",
    models.Transferred: "transfer",
    models.Interpolated: "interpolate",
    models.Generated: "generate",
    training.Trained: "train",
    training.Anchor: "distil",
    training.Bridged: "bridge",
    training.Tuned: "tune",
    training.TunedRate: "choose a rate",
    training.Scored: "read",
    evaluation.Evaluated: "evaluate",
    evaluation.BitsPerByte: "evaluate",
    evaluation.Downstream: "benchmark",
}
"""What making each kind of recipe is called."""


def named(recipe: Recipe) -> str:
    """The step in words: what is done, and to what size, as in "distil 20x576"."""
    verb = VERBS[type(recipe)]
    return f"{verb} {recipe.spec.name}" if hasattr(recipe, "spec") else verb


class Steps:
    """The steps that are to be made, shown while they are: a bar, or a line now and then in a log.

    before: how many of all were finished already.
    """

    def __init__(
        self, todo: list[Recipe], before: int = 0, stream: TextIO | None = None, clock=time.monotonic
    ):
        self.total, self.work, self.before = len(todo), sum(recipe.flops for recipe in todo), before
        self.count, self.done, self.running = 0, 0, {}
        self.stream, self.clock = stream or sys.stderr, clock
        self.began, self.said = clock(), float("-inf")
        self._bar: tqdm | None = None

    def __enter__(self) -> "Steps":
        if progress.lively(self.stream):
            looks = "{n_fmt}/{total_fmt} steps |{bar:20}| {desc}"
            self._bar = progress.bar(total=self.total, file=self.stream, bar_format=looks, delay=0)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        if self.count == self.total:
            self._say(self.summary)

    @contextmanager
    def step(self, recipe: Recipe) -> Iterator[None]:
        """While the recipe is made; its end counts unless an error is raised."""
        self.begin(recipe)
        yield
        self.end(recipe)

    def begin(self, recipe: Recipe) -> None:
        self.running[recipe.key] = recipe
        if self._bar is not None:
            self._bar.set_description_str(self._told(self.running.values()))

    def end(self, recipe: Recipe) -> None:
        self.running.pop(recipe.key)
        self.count, self.done = self.count + 1, self.done + recipe.flops
        now = self.clock()
        if self._bar is not None:
            self._bar.set_description_str(self._told(self.running.values()), refresh=False)
            self._bar.update()
            self._bar.refresh()
        elif now - self.said >= progress.EVERY or self.count == self.total:
            self.said = now
            self._say(f"[{self.count}/{self.total}] {self._told([recipe])}")

    def _say(self, line: str) -> None:
        if not progress.silent():
            print(line, file=self.stream, flush=True)

    def _told(self, recipes: Iterable[Recipe]) -> str:
        """These steps, and when the rest may be done, by the FLOPs so far, once that means something."""
        told = [", ".join(map(named, recipes))]
        seconds = self.clock() - self.began
        if seconds >= SOON and SHARE * self.work <= self.done < self.work:
            told.append(f"about {spoken(seconds * (self.work - self.done) / self.done)} left")
        return "; ".join(filter(None, told))

    @property
    def summary(self) -> str:
        before = f"; {self.before} were finished before" if self.before else ""
        if not self.total:
            return f"nothing to make{before}"
        steps = "1 step" if self.count == 1 else f"{self.count} steps"
        return f"made {steps} in {spoken(self.clock() - self.began)}{before}"


def spoken(seconds: float) -> str:
    """A time in its two largest units: 200 -> "3 min 20 s"."""
    seconds = round(seconds)
    sizes = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    first = next((i for i, (_, size) in enumerate(sizes) if seconds >= size), len(sizes) - 1)
    parts = []
    for unit, size in sizes[first : first + 2]:
        number, seconds = divmod(seconds, size)
        if number or not parts:
            parts.append(f"{number} {unit}")
    return " ".join(parts)

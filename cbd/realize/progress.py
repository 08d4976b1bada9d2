"""What is being made: steps done of all, the step at work, and when the rest may be done."""

import sys
import time
from collections.abc import Iterable
from itertools import dropwhile
from typing import TextIO

from cbd.data import progress
from cbd.recipes import data, evaluation, models, onpolicy, training
from cbd.recipes.base import Recipe

SOON, SHARE = 20, 0.02  # seconds, and share of the work, before which nobody knows when the rest is done
VERBS: dict[type[Recipe], str] = {
    data.Corpus: "tokenize",
    data.Written: "tokenize",
    data.SelfWritten: "tokenize",
    data.Items: "cut items",
    data.Pairs: "cut pairs",
    models.Source: "fetch",
    models.Random: "draw",
    models.Sorted: "sort",
    models.Rotated: "turn",
    models.Pruned: "leave blocks out for",
    models.Factorised: "factorise",
    models.Patched: "patch",
    models.Transferred: "transfer",
    models.Learngene: "graft",
    models.Interpolated: "interpolate",
    models.Generated: "generate",
    training.Trained: "train",
    training.Anchor: "distil",
    onpolicy.OnPolicy: "distil",
    onpolicy.MiniLLM: "distil",
    training.Bridged: "bridge",
    training.Tuned: "tune",
    training.Nested: "nest sizes in",
    training.Search: "search a rate for",
    training.Fitted: "fit alphas of",
    training.Scored: "read",
    evaluation.Evaluated: "evaluate",
    evaluation.BitsPerByte: "evaluate",
    evaluation.Compared: "compare",
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

    def __enter__(self) -> "Steps":
        looks = "{n_fmt}/{total_fmt} steps |{bar:20}| {desc}"
        plain = progress.silent() or not progress.lively(self.stream)
        self._bar = progress.bar(total=self.total, file=self.stream, bar_format=looks, delay=0, disable=plain)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if self.count == self.total:
            self.say(self.summary)

    def begin(self, recipe: Recipe) -> None:
        self.running[recipe.key] = recipe
        self._bar.set_description_str(self._told(self.running.values()))

    def end(self, recipe: Recipe) -> None:
        self.running.pop(recipe.key)
        self.count, self.done = self.count + 1, self.done + recipe.flops
        now = self.clock()
        if not self._bar.disable:
            self._bar.set_description_str(self._told(self.running.values()), refresh=False)
            self._bar.update()
            self._bar.refresh()
        elif now - self.said >= progress.EVERY or self.count == self.total:
            self.said = now
            self.say(f"[{self.count}/{self.total}] {self._told([recipe])}")

    def say(self, line: str) -> None:
        """A line of its own, unless it is empty or this is one of the silent processes of a launch."""
        if line and not progress.silent():
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
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    largest = list(dropwhile(lambda part: not part[0], parts))[:2]
    return " ".join(f"{number} {unit}" for number, unit in largest if number) or "0 s"

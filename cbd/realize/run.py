"""From recipes to their folders: what is missing is made, once."""

from collections.abc import Iterable
from pathlib import Path

from cbd.realize import store
from cbd.realize.progress import Steps
from cbd.realize.workers import launched, make, make_in_parallel, set_threads
from cbd.recipes.base import Recipe, walk
from cbd.recipes.data import Pairs
from cbd.recipes.evaluation import LOCAL, Downstream
from cbd.recipes.models import Source


def pending(recipes: Iterable[Recipe]) -> list[Recipe]:
    """What is missing for these recipes, inputs first; what only finished recipes needed is left out."""
    return list(walk(recipes, skip=store.finished).values())


def realize(recipe: Recipe) -> Path:
    """The folder of the finished recipe, making what is missing, once and without a word.

    Inputs of a finished recipe are not needed and not made. Under `accelerate launch` every process calls
    this: trainings run in all of them, everything else in the main one.
    """
    for missing in pending([recipe]):
        make(missing)
    return store.folder(recipe)


def realize_all(recipes: Iterable[Recipe], jobs: int = 1, threads: int | None = None) -> str:
    """Make all that is missing, in up to `jobs` processes of `threads` threads each (None: torch's choice).

    Interrupted, what is finished stays and trainings go on from their last state. Returns what
    was made, in a line, which is also shown unless nothing was missing.
    """
    needed = list(recipes)
    todo = pending(needed)
    steps = Steps(todo, before=sum(map(store.finished, walk(needed).values())))
    if not todo:
        return steps.summary
    _check_available(todo)
    with steps:
        if jobs == 1 or len(todo) == 1 or launched():
            set_threads(threads)
            for recipe in todo:
                steps.begin(recipe)
                make(recipe)
                steps.end(recipe)
        else:
            make_in_parallel(todo, jobs, threads, steps)
    return steps.summary


def _check_available(todo: list[Recipe]) -> None:
    """Refuse a missing or gated source, and tasks whose data cannot be had, before any work."""
    from cbd.data.documents import load_dataset
    from cbd.models.sources import check_available  # torch

    for recipe in todo:
        if isinstance(recipe, Source):
            check_available(recipe)
        if isinstance(recipe, Pairs) and recipe.kind == "dolly":
            load_dataset(recipe.location or recipe.name)
    tasks = {name for recipe in todo if isinstance(recipe, Downstream) for name in recipe.tasks}
    if tasks - set(LOCAL):
        from cbd.evaluation.benchmark import check_available as check_tasks

        check_tasks(sorted(tasks))

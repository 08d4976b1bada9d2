"""From recipes to their folders: what is missing is made, once."""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from cbd.realize import store
from cbd.realize.progress import Steps
from cbd.realize.shared import Shared
from cbd.realize.workers import launched, make, make_in_parallel, set_threads
from cbd.recipes import costs
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


def realize_all(
    recipes: Iterable[Recipe], jobs: int = 1, threads: int | None = None, lean: bool = False
) -> str:
    """Make all that is missing, in up to `jobs` processes of `threads` threads each (None: torch's choice).

    lean: of what is made here, light recipes that nothing here needs any longer are thrown away, all but
    their records: a grid of untrained models of 100 M parameters would take a hundred gigabytes. Interrupted,
    what is finished stays and trainings go on from their last state. Returns what was made, in a line, which
    is also shown unless nothing was missing.
    """
    needed = list(recipes)
    todo = pending(needed)
    steps = Steps(todo, before=sum(map(store.finished, walk(needed).values())))
    if not todo:
        return steps.summary
    _check_available(todo)
    spare = _spare(todo, keep={recipe.key for recipe in needed}) if lean and not launched() else lambda _: ()
    shared = Shared(() if launched() else todo)

    def end(recipe: Recipe) -> None:
        steps.end(recipe)
        shared.end(recipe)
        for one in spare(recipe):
            store.shed(one)

    with steps, shared:
        steps.say(_short_of_room(todo))
        if jobs == 1 or len(todo) == 1 or launched():
            set_threads(threads)
            for recipe in todo:
                steps.begin(recipe)
                make(recipe)
                end(recipe)
        else:
            make_in_parallel(todo, jobs, threads, steps.begin, end)
    return steps.summary


def _spare(todo: list[Recipe], keep: set[str]) -> Callable[[Recipe], list[Recipe]]:
    """Tells, of a recipe that was made, which light inputs that were made before nothing waits for now."""
    waiting = Counter(source.key for recipe in todo for source in recipe.inputs)
    made = {recipe.key for recipe in todo}

    def after(recipe: Recipe) -> list[Recipe]:
        waiting.subtract(source.key for source in recipe.inputs)
        own = {s.key: s for s in recipe.inputs if s.light and s.key in made and s.key not in keep}
        return [source for key, source in own.items() if waiting[key] == 0]

    return after


def _short_of_room(todo: list[Recipe]) -> str:
    """A line where the weights to come need more room than the disk has; no error, it can be freed."""
    needed, free = costs.weights(todo), store.free()
    if needed <= free:
        return ""
    what = f"the weights to come take {needed / 1e9:.1f} GB, {store.root()} has room for {free / 1e9:.1f}"
    return f"{what}: free some meanwhile, or set CBD_STORE to a larger disk; what is finished stays"


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

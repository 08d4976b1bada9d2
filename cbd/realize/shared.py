"""Which teachers' states are kept while recipes are made: those that several of the runs learn from.

Only there does keeping them pay: a state costs as much to compute as to compute and keep. They lie in
`states/` of the store (`cbd.training.states`) and go when no run here needs them any longer. One command at a
time keeps them, so that it may throw away what a killed one left.
"""

import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from filelock import FileLock

from cbd.errors import CbdError
from cbd.realize import store
from cbd.realize.workers import launched
from cbd.recipes.base import Recipe
from cbd.recipes.training import Anchor

LIMIT = 8.0  # gigabytes in all, unless CBD_STATES_GB says otherwise; beyond, teachers are asked live


def place(recipe: Anchor) -> Path | None:
    """Where the states that a run learns from are kept; None where they are not."""
    folder = _folder(recipe)
    alone = recipe.learns_from_states and not launched()  # several processes have a part of a batch each
    return folder if alone and folder.is_dir() else None


class Shared:
    """Keeps, while it is entered, the states that several of these recipes learn from.

    None where another command keeps some.
    """

    def __init__(self, todo: Iterable[Recipe]):
        groups: dict[Path, list[Anchor]] = defaultdict(list)
        for recipe in todo:
            if isinstance(recipe, Anchor) and recipe.learns_from_states:
                groups[_folder(recipe)].append(recipe)
        room = min(_limit(), store.free() / 2)
        self.lock = FileLock(store.root() / "locks" / "states.lock")
        self.waiting: dict[Path, set[str]] = {}
        for folder, runs in sorted(groups.items(), key=lambda group: -_saved(group[1])):
            if _saved(runs) and _bytes(runs) <= room:
                room -= _bytes(runs)
                self.waiting[folder] = {run.key for run in runs}

    def __enter__(self) -> Self:
        if self.waiting:
            try:
                self.lock.acquire(timeout=0)
            except OSError:  # a timeout is one; an unwritable store is told by what is made
                self.waiting = {}
            else:
                shutil.rmtree(_root(), ignore_errors=True)
        for folder in self.waiting:
            folder.mkdir(parents=True)
        return self

    def end(self, recipe: Recipe) -> None:
        """Told of a recipe that was made: what nothing waits for is thrown away."""
        for folder, runs in self.waiting.items():
            runs.discard(recipe.key)
            if not runs:
                shutil.rmtree(folder, ignore_errors=True)

    def __exit__(self, *_: object) -> None:
        for folder in self.waiting:
            shutil.rmtree(folder, ignore_errors=True)
        self.lock.release()


def _root() -> Path:
    return store.root() / "states"


def _folder(recipe: Anchor) -> Path:
    """Named by what the states hang on, which is the teacher and the stream, not where a run begins in it."""
    training = recipe.training
    stream = (training.seed, training.batch, training.context, training.precision)
    text = json.dumps((recipe.teacher.key, recipe.corpus.key, *stream))
    return _root() / hashlib.sha256(text.encode()).hexdigest()[:20]


def _steps(recipe: Anchor) -> range:
    """Its part of the stream."""
    training = recipe.training
    return range(training.skip, training.skip + training.steps)


def _saved(runs: list[Anchor]) -> int:
    """FLOPs of the teacher's passes that reading spares."""
    steps = sum(len(_steps(run)) for run in runs) - len(set().union(*map(_steps, runs)))
    training = runs[0].training
    per_step = training.batch * training.context * runs[0].teacher.spec.forward_flops(training.context)
    return steps * per_step


def _bytes(runs: list[Anchor]) -> int:
    training = runs[0].training
    each = 4 * training.batch * training.context * runs[0].teacher.spec.width
    return each * len(set().union(*map(_steps, runs)))


def _limit() -> float:
    """In bytes."""
    given = os.environ.get("CBD_STATES_GB") or LIMIT
    try:
        return float(given) * 1e9
    except ValueError:
        wrong = f"CBD_STATES_GB is {given!r}"
        raise CbdError(f"{wrong}: set it to the gigabytes that teachers' states may take, or to 0") from None

"""The search for a learning rate and a warm-up: a walk on a grid to the lowest final validation loss.

A point of the grid is the rate and warm-up where the search begins, times powers of `RATE` and `WARMUP`; the
longest warm-up lasts the whole run. The walk goes on to the best neighbour while one is better, so what wins
has been compared with all four: a grid that is too narrow cannot hide a better edge. One seed walks; the two
best points are run with every seed, and the lower mean wins (a race in two rounds, after successive halving,
arXiv 1502.07943). Where that is not the walk's end, the best of its neighbours that has not been raced runs
with every seed as well, and so on while one is better.
"""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import PartialState

from cbd.errors import Diverged, require
from cbd.files import write_text
from cbd.recipes.training import Training
from cbd.training.lessons import Lesson
from cbd.training.loop import train

RATE, WARMUP = 1.5, 2.0

Point = tuple[int, int]
"""The powers of `RATE` and of `WARMUP`."""


def walk(
    loss: Callable[[Point, int], float],
    seeds: tuple[int, ...],
    inside: Callable[[Point], bool],
    least: float = 0.0,
) -> Point:
    """The point with the lowest mean loss over the seeds where the first seed's walk ends, or beside it.

    loss(point, seed): in nats per token, inf where training diverged; asked again for the same, it must give
    the same. inside: whether a point may be tried. least: nats by which a point has to be better for the walk
    to go on from there. Raises `CbdError` when every point diverges.
    """
    at, first = (0, 0), seeds[0]
    mean = lambda point: math.fsum(loss(point, seed) for seed in seeds) / len(seeds)  # noqa: E731

    def around(point: Point) -> list[Point]:
        """The neighbours, from the best for the first seed to the worst."""
        rates, warmups = (
            [(point[0] + i, point[1]) for i in (-1, 1)],
            [(point[0], point[1] + i) for i in (-1, 1)],
        )
        return sorted(filter(inside, [*rates, *warmups]), key=lambda point: loss(point, first))

    while (near := around(at)) and loss(near[0], first) < loss(at, first) - least:
        at = near[0]
    raced = [at, *near[:1]]
    best = min(raced, key=mean)
    # where all seeds together choose another point than the walk, its own neighbours have to be compared, too
    ahead = lambda one, other: mean(one) < mean(other) - least  # noqa: E731
    while ahead(best, at) and (near := [point for point in around(best) if point not in raced]):
        raced.append(near[0])
        if not ahead(near[0], best):
            break
        best = near[0]
    require(math.isfinite(mean(best)), "training diverged at every rate of the search: begin at a lower one")
    return best


def search(
    starts: Sequence[Path],
    lesson: Lesson,
    training: Training,
    seeds: tuple[int, ...],
    out: Path,
    state: Path,
    title: str = "train",
    least: float = 0.0,
) -> dict[str, Any]:
    """What `walk` finds for trainings of checkpoints, one for each seed, in all else like `training`.

    starts: the checkpoints' folders. state: a folder in which finished runs, and the one at work, survive a
    kill. Returns, and writes to search.json in the folder `out`, `best` (lr and warmup_tokens) and `tried`:
    lr, warmup_tokens, seed and loss of every run, None where it diverged. Of several processes that train
    together the main one writes.
    """
    place = state / "tried.json"
    tried: dict[str, dict[str, Any]] = json.loads(place.read_text()) if place.is_file() else {}

    def warmup(power: int) -> int:
        return round(training.warmup_tokens * WARMUP**power)

    def at(point: Point) -> dict[str, Any]:
        rate = float(f"{training.lr * RATE ** point[0]:.4g}")
        return {"lr": rate, "warmup_tokens": min(warmup(point[1]), training.tokens)}

    def loss(point: Point, seed: int) -> float:
        name = f"{point[0]},{point[1]},{seed}"
        if name not in tried:
            run = replace(training, **at(point), seed=seed)
            final = _final_loss(starts[seeds.index(seed)], lesson, run, state / name, title)
            tried[name] = at(point) | {"seed": seed, "loss": final}
            if PartialState().is_main_process:
                write_text(place, json.dumps(tried))
                shutil.rmtree(state / name, ignore_errors=True)
        found = tried[name]["loss"]
        return math.inf if found is None else found

    step = training.batch * training.context  # a shorter warm-up is none
    inside = lambda p: step <= warmup(p[1]) and warmup(p[1] - 1) < training.tokens  # noqa: E731
    found = {"best": at(walk(loss, seeds, inside, least)), "tried": list(tried.values())}
    if PartialState().is_main_process:
        write_text(out / "search.json", json.dumps(found))
    return found


def _final_loss(start: Path, lesson: Lesson, training: Training, place: Path, title: str) -> float | None:
    """Of one run, whose state and checkpoint lie in `place`; None where it diverges."""
    out, state = place / "out", place / "state"
    for folder in (out, state):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        return train(start, lesson, training, training.lr, out, state, title)["final_loss"]
    except Diverged:
        return None

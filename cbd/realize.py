"""From a recipe to its folder: a few lines for each kind of recipe, and the order in which they are made."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, singledispatch
from itertools import islice
from pathlib import Path
from threading import Thread, current_thread, main_thread
from typing import Any

from tqdm import tqdm

from cbd import store
from cbd.bridges import BitsPerByte, Bridged, Generated, Scored, Written
from cbd.errors import CbdError
from cbd.evaluations import LOCAL, Downstream, Items, Pairs, Tuned
from cbd.recipes import (
    Anchor,
    Corpus,
    Evaluated,
    Interpolated,
    Random,
    Recipe,
    Sorted,
    Source,
    Trained,
    Transferred,
    TunedRate,
)


def realize(recipe: Recipe) -> Path:
    """The folder of the finished recipe, making what is missing, once.

    Inputs of a finished recipe are not needed and not made. Under `accelerate launch` every process calls
    this: trainings run in all of them, everything else in the main one.
    """
    for missing in pending([recipe]):
        _make(missing)
    return store.folder(recipe)


def realize_all(recipes: Iterable[Recipe], jobs: int = 1, threads: int | None = None) -> None:
    """Make all that is missing, in up to `jobs` processes of `threads` threads each (None: torch's choice).

    Progress is shown in FLOPs. Interrupted, what is finished stays and trainings go on from their last state.
    """
    todo = pending(recipes)
    if not todo:
        return
    _check_available(todo)
    with tqdm(
        total=sum(map(_weight, todo)), desc="recipes", unit="FLOP", unit_scale=True, smoothing=0
    ) as bar:
        if jobs == 1 or len(todo) == 1 or _launched():
            _set_threads(threads)
            for recipe in todo:
                _make(recipe)
                bar.update(_weight(recipe))
        else:
            _make_in_parallel(todo, jobs, threads, bar)


def pending(recipes: Iterable[Recipe]) -> list[Recipe]:
    """What is missing for these recipes, inputs first; what only finished recipes needed is left out."""
    found: dict[str, Recipe] = {}

    def visit(recipe: Recipe) -> None:
        if recipe.key in found or store.finished(recipe):
            return
        for source in recipe.inputs:
            visit(source)
        found[recipe.key] = recipe

    for recipe in recipes:
        visit(recipe)
    return list(found.values())


def _check_available(todo: list[Recipe]) -> None:
    """Refuse a missing or gated source, and tasks whose data cannot be had, before any work."""
    sources = [recipe for recipe in todo if isinstance(recipe, Source)]
    if sources:
        from cbd.sources import check_available

        for source in sources:
            check_available(source)
    tasks = {name for recipe in todo if isinstance(recipe, Downstream) for name in recipe.tasks}
    if tasks - set(LOCAL):
        from cbd.downstream import check_available as check_tasks

        check_tasks(sorted(tasks))
    dolly = {recipe for recipe in todo if isinstance(recipe, Pairs) and recipe.kind == "dolly"}
    if dolly:
        from cbd.data import load_dataset

        for recipe in dolly:
            load_dataset(recipe.location or recipe.name)


def _weight(recipe: Recipe) -> int:
    return max(recipe.flops, 1)


def _make_in_parallel(todo: list[Recipe], jobs: int, threads: int | None, bar: tqdm) -> None:
    """A ready recipe goes to a free process; of several, the one with the longest way to the end."""
    urgency = _urgency(todo)
    waiting = sorted(todo, key=lambda recipe: -urgency[recipe.key])
    unfinished = set(urgency)
    running: dict[Future, Recipe] = {}
    with _pool(jobs, threads) as pool:
        try:
            while waiting or running:
                ready = (r for r in waiting if not any(s.key in unfinished for s in r.inputs))
                for recipe in list(islice(ready, jobs - len(running))):
                    waiting.remove(recipe)
                    with _interrupts_held():
                        running[pool.submit(_make, recipe)] = recipe
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    recipe = running.pop(future)
                    future.result()
                    unfinished.remove(recipe.key)
                    bar.update(_weight(recipe))
        except BrokenProcessPool:
            raise CbdError(
                "a worker process died (out of memory?): run the same command again, it goes on"
            ) from None
        except BaseException:
            _stop(pool)
            raise


# What every worker needs, torch's compiler (which its optimizers import) included: seconds for each of them.
# None of it touches an accelerator when it is imported: what is forked after that could not use one.
_PRELOADED = ["cbd.training", "cbd.evaluation", "transformers.models.gpt2.modeling_gpt2", "torch._dynamo"]


def _pool(jobs: int, threads: int | None) -> ProcessPoolExecutor:
    """Processes without a thread pool of their parent's, each with a line for its progress bar.

    On Linux they are forked from a server that has imported what they need, once. Elsewhere they are spawned:
    macOS' own libraries do not survive a fork.
    """
    context = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
    context.set_forkserver_preload(_PRELOADED)
    lines, lock = context.SimpleQueue(), context.RLock()
    for line in range(1, jobs + 1):
        lines.put(line)
    tqdm.set_lock(lock)
    start = (threads, lock, lines, dict(os.environ))
    return ProcessPoolExecutor(jobs, context, initializer=_start_worker, initargs=start)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Put Ctrl-C off while a process starts, lest it is missed when the workers are ended. Processes started
    here inherit the mask and never hear of it: their parent stops them.
    """
    came: list[int] = []
    main = current_thread() is main_thread()  # the only one that may have handlers, and that they interrupt
    handler = signal.signal(signal.SIGINT, lambda number, frame: came.append(number)) if main else None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if main:
            signal.signal(signal.SIGINT, handler)
    if came:
        signal.raise_signal(signal.SIGINT)


def _stop(pool: ProcessPoolExecutor) -> None:
    """End the workers now: a training may take minutes more, and its state is on disk."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()


def _urgency(todo: list[Recipe]) -> dict[str, int]:
    """FLOPs on the longest path from each recipe to the end of what is to be made."""
    users: dict[str, list[str]] = {recipe.key: [] for recipe in todo}
    for recipe in todo:
        for source in recipe.inputs:
            if source.key in users:
                users[source.key].append(recipe.key)
    urgency: dict[str, int] = {}
    for recipe in reversed(todo):
        urgency[recipe.key] = _weight(recipe) + max((urgency[user] for user in users[recipe.key]), default=0)
    return urgency


def _start_worker(threads: int | None, lock: Any, lines: Any, environment: dict[str, str]) -> None:
    os.environ.clear()  # a server's may be older than the command's, which names the store
    os.environ.update(environment)
    Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    tqdm.set_lock(lock)
    os.environ["TQDM_POSITION"] = str(lines.get())  # read by tqdm: each worker's bar on a line of its own
    _set_threads(threads)


def _end_with(parent: Any) -> None:
    """End this worker when the command was killed: nobody would ever take its result or stop it."""
    parent.join()
    os._exit(1)


def _set_threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def _launched() -> bool:
    """Whether this is one of several processes of `accelerate launch` or `torchrun`, which train together."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _make(recipe: Recipe) -> None:
    """Make one recipe whose inputs are finished, in one process or together with the others of a launch."""
    if not _launched():
        store.make(recipe, partial(build, recipe))
        return
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    # left to itself, PartialState sees one process on a CPU, however many were launched
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    state = PartialState(cpu=cpu)
    together = isinstance(recipe, (Trained, Anchor, Bridged, Tuned))
    work = store.root() / "work" / recipe.key
    state.wait_for_everyone()
    if state.is_main_process:
        store.make(recipe, partial(build, recipe))
    elif together:
        build(recipe, work / "out", work / "state")
    state.wait_for_everyone()


@singledispatch
def build(recipe: Recipe, out: Path, state: Path) -> dict[str, Any]:
    """Fill `out` with what the recipe describes; its inputs are finished. Returns what was measured."""
    raise TypeError(f"no way to make a {type(recipe).__name__}")


@build.register
def _(recipe: Corpus, out: Path, state: Path) -> dict[str, Any]:
    from cbd.data import build as build_corpus

    build_corpus(recipe, out)
    return {}


@build.register
def _(recipe: Source, out: Path, state: Path) -> dict[str, Any]:
    from cbd.sources import fetch

    return fetch(recipe, out)


@build.register
def _(recipe: Random, out: Path, state: Path) -> dict[str, Any]:
    from cbd.sources import initialise_randomly

    return initialise_randomly(recipe.spec, store.folder(recipe.corpus), recipe.seed, out)


@build.register
def _(recipe: Sorted, out: Path, state: Path) -> dict[str, Any]:
    from cbd.interpolation import transfer
    from cbd.operators import Trans

    transfer(store.folder(recipe.model), recipe.spec, out, Trans(cut_width="sorted"))
    return {}


@build.register
def _(recipe: Transferred, out: Path, state: Path) -> dict[str, Any]:
    from cbd.interpolation import transfer

    transfer(store.folder(recipe.model), recipe.spec, out, recipe.trans)
    return {}


@build.register
def _(recipe: Interpolated, out: Path, state: Path) -> dict[str, Any]:
    from cbd.interpolation import initialize

    small, large = store.folder(recipe.small), store.folder(recipe.large)
    return initialize(small, large, recipe.spec, out, recipe.alpha, recipe.operator)


@build.register(Trained)
@build.register(Anchor)
@build.register(Bridged)
@build.register(Tuned)
def _(recipe: Trained | Anchor | Bridged | Tuned, out: Path, state: Path) -> dict[str, Any]:
    from cbd.training import Lesson, train

    lr = recipe.training.lr
    if isinstance(lr, TunedRate):
        lr = json.loads((store.folder(lr) / "rate.json").read_text())["lr"]
    corpus = None if isinstance(recipe, Tuned) else store.folder(recipe.corpus)
    lesson = Lesson(corpus, recipe.loss)
    if isinstance(recipe, Anchor):
        lesson = replace(lesson, teacher=store.folder(recipe.teacher), shared_vocab=recipe.shared_vocab)
    elif isinstance(recipe, Bridged):
        lesson = replace(lesson, scores=store.folder(recipe.scored))
    elif isinstance(recipe, Tuned):
        lesson = replace(lesson, pairs=store.folder(recipe.pairs))
    return train(store.folder(recipe.start), lesson, recipe.training, lr, out, state)


@build.register
def _(recipe: Generated, out: Path, state: Path) -> dict[str, Any]:
    from cbd.generation import generate

    return generate(store.folder(recipe.source), recipe.corpus, recipe.sampling, out, state)


@build.register
def _(recipe: Written, out: Path, state: Path) -> dict[str, Any]:
    from cbd.data import build_written
    from cbd.generation import texts

    build_written(texts(store.folder(recipe.text)), store.folder(recipe.corpus), out)
    return {}


@build.register
def _(recipe: Scored, out: Path, state: Path) -> dict[str, Any]:
    from cbd.data import training_documents
    from cbd.scoring import score

    texts = training_documents(recipe.corpus)
    return score(store.folder(recipe.teacher), store.folder(recipe.corpus), texts, recipe, out, state)


@build.register
def _(recipe: BitsPerByte, out: Path, state: Path) -> dict[str, Any]:
    from cbd.bits import bits_per_byte
    from cbd.data import Tokens

    metrics = bits_per_byte(store.folder(recipe.model), Tokens(store.folder(recipe.corpus)), recipe)
    (out / "metrics.json").write_text(json.dumps(metrics))
    return {"metrics": metrics}


@build.register
def _(recipe: Items, out: Path, state: Path) -> dict[str, Any]:
    from cbd.items import build as build_items

    return build_items(recipe, out)


@build.register
def _(recipe: Pairs, out: Path, state: Path) -> dict[str, Any]:
    from cbd.pairs import build as build_pairs

    return build_pairs(recipe, out)


@build.register
def _(recipe: Downstream, out: Path, state: Path) -> dict[str, Any]:
    from cbd.downstream import evaluate

    data = {n: store.folder(r) for n, r in (("items", recipe.items), ("pairs", recipe.pairs)) if r}
    scores = evaluate(store.folder(recipe.model), recipe.tasks, data, recipe.shots, recipe.limit)
    (out / "metrics.json").write_text(json.dumps({task: score.summary() for task, score in scores.items()}))
    (out / "items.json").write_text(json.dumps({task: score.items for task, score in scores.items()}))
    return {}


@build.register
def _(recipe: TunedRate, out: Path, state: Path) -> dict[str, Any]:
    losses = {c.training.lr: store.record(c)["final_loss"] for c in recipe.candidates}
    result = {
        "lr": min(losses, key=losses.__getitem__),
        "final_loss": {f"{lr:g}": x for lr, x in losses.items()},
    }
    (out / "rate.json").write_text(json.dumps(result))
    return result


@build.register
def _(recipe: Evaluated, out: Path, state: Path) -> dict[str, Any]:
    import torch

    from cbd.data import Tokens
    from cbd.evaluation import HeldOut, evaluate
    from cbd.recipes import Loss
    from cbd.training import Objective, load

    held_out = HeldOut.of(Tokens(store.folder(recipe.corpus)), recipe.split, recipe.sample, recipe.context)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    objective = Objective(load(store.folder(recipe.model)).to(device), Loss())
    metrics = evaluate(objective, held_out, device)
    (out / "metrics.json").write_text(json.dumps(metrics))
    return {"metrics": metrics}


__all__ = ["build", "pending", "realize", "realize_all"]

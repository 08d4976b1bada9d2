"""Processes side by side that make recipes."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import islice
from threading import Thread, current_thread, main_thread
from typing import Any

from tqdm import tqdm

from cbd.data import progress
from cbd.errors import CbdError
from cbd.realize import store
from cbd.recipes.base import Recipe
from cbd.recipes.training import Run


def make_in_parallel(
    todo: list[Recipe],
    jobs: int,
    threads: int | None,
    begin: Callable[[Recipe], None],
    end: Callable[[Recipe], None],
) -> None:
    """A ready recipe goes to a free process; of several, the one with the longest way to the end.

    begin, end: told of each recipe that is begun, and that is made.
    """
    longest_first = urgency(todo)
    # what is light is as urgent as what waits for it, and comes after what is: a lean run holds few of them
    waiting = sorted(todo, key=lambda recipe: (-longest_first[recipe.key], recipe.light))
    unfinished = set(longest_first)
    running: dict[Future, Recipe] = {}
    with _pool(jobs, threads) as pool:
        try:
            while waiting or running:
                ready = (r for r in waiting if not any(s.key in unfinished for s in r.inputs))
                for recipe in list(islice(ready, jobs - len(running))):
                    waiting.remove(recipe)
                    with _interrupts_held():
                        running[pool.submit(make, recipe)] = recipe
                    begin(recipe)
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    recipe = running.pop(future)
                    future.result()
                    unfinished.remove(recipe.key)
                    end(recipe)
        except BrokenProcessPool:
            wrong = "a worker process died (out of memory?)"
            raise CbdError(f"{wrong}: run the same command again, it goes on") from None
        except BaseException:
            _stop(pool)
            raise


def urgency(todo: list[Recipe]) -> dict[str, int]:
    """FLOPs on the longest path from each recipe to the end; `todo` has inputs first."""
    longest = {recipe.key: 0 for recipe in todo}
    for recipe in reversed(todo):  # what needs it is done already
        longest[recipe.key] += 0 if recipe.light else max(recipe.flops, 1)
        for source in recipe.inputs:
            if source.key in longest:
                longest[source.key] = max(longest[source.key], longest[recipe.key])
    return longest


# What every worker needs, torch's compiler (which its optimizers import) included: seconds for each of them.
# None of it touches an accelerator when it is imported: what is forked after that could not use one.
_PRELOADED = ["cbd.realize.builders", "transformers.models.gpt2.modeling_gpt2", "torch._dynamo"]


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
    """Put Ctrl-C off while a process starts, lest it is missed when the workers are ended.

    Processes started here inherit the mask and never hear of it: their parent stops them.
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


def _start_worker(threads: int | None, lock: Any, lines: Any, environment: dict[str, str]) -> None:
    os.environ.clear()  # a server's may be older than the command's, which names the store
    os.environ.update(environment)
    Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    tqdm.set_lock(lock)
    progress.line = lines.get()
    set_threads(threads)


def _end_with(parent: Any) -> None:
    """End this worker when the command was killed: nobody would ever take its result or stop it."""
    parent.join()
    os._exit(1)


def set_threads(threads: int | None) -> None:
    import torch

    if threads is not None:
        torch.set_num_threads(threads)


def launched() -> bool:
    """Whether this is one of several processes of `accelerate launch` or `torchrun`, which train together."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def make(recipe: Recipe) -> None:
    """Make one recipe whose inputs are finished, in one process or together with the others of a launch.

    An input that another command has shed meanwhile is made again.
    """
    from cbd.realize.builders import build  # torch

    if not launched():
        for source in recipe.inputs:
            if source.light and not store.finished(source) and not store.finished(recipe):
                make(source)
        store.make(recipe, partial(build, recipe))
        return
    import torch
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    # left to itself, PartialState sees one process on a CPU, however many were launched
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    state = PartialState(cpu=cpu)
    work = store.root() / "work" / recipe.key
    state.wait_for_everyone()
    if state.is_main_process:
        store.make(recipe, partial(build, recipe))
    elif isinstance(recipe, Run):
        build(recipe, work / "out", work / "state")
    state.wait_for_everyone()

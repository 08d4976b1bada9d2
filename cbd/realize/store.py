"""Content-addressed folders: one a recipe, made once, trusted only when finished.

exca, redun and joblib were weighed first: each keeps results or task state as pickles and none hands a step a
folder that is published by one rename, so this stays ours. The lock is `filelock`'s.

Layout below `root()`: `Trained/<key>/` (finished, with `record.json`), `work/<key>/out` (being written;
thrown away by the next try), `work/<key>/state` (what a killed training goes on from), `records/` (of what
was made and shed), `states/` (teachers' states while several runs need them, `cbd.realize.shared`), `locks/`.
"""

import json
import os
import platform
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

import cbd
from cbd.errors import CbdError
from cbd.files import publish, write_text
from cbd.recipes.base import Recipe

RECORD = "record.json"


def root() -> Path:
    """Where artefacts live: the environment variable CBD_STORE, or ~/.cache/cbd."""
    return Path(os.environ.get("CBD_STORE") or Path.home() / ".cache" / "cbd").absolute()


def free() -> int:
    """Bytes of room for more, on the disk where the store is or will be."""
    place = next(place for place in (root(), *root().parents) if place.exists())
    return shutil.disk_usage(place).free


def folder(recipe: Recipe) -> Path:
    """The folder of a recipe, finished or not."""
    return root() / type(recipe).__name__ / recipe.key


def finished(recipe: Recipe) -> bool:
    """Whether the recipe's folder is there, whole."""
    return (folder(recipe) / RECORD).exists()


def record(recipe: Recipe) -> dict[str, Any]:
    """What was measured while a recipe was made: tokens, FLOPs, seconds, versions, machine.

    It is there for what was thrown away to save room, too (`shed`).
    """
    return json.loads(_record_of(recipe).read_text())


def recorded(recipe: Recipe) -> bool:
    """Whether there is a record: the recipe is finished, or was, until it was shed."""
    return _record_of(recipe).exists()


def _record_of(recipe: Recipe) -> Path:
    there = folder(recipe) / RECORD
    return there if there.exists() else root() / "records" / f"{recipe.key}.json"


def make(recipe: Recipe, build: Callable[[Path, Path], dict[str, Any]]) -> Path:
    """The recipe's finished folder, built by `build(out, state)` if it is missing.

    `build` fills the empty folder `out` and may keep in `state` what a later try shall go on from; what it
    returns goes into the record. Of two processes, one builds and the other waits. Killed at any instant,
    nothing half-made is ever found: the folder appears by one rename.
    """
    final = folder(recipe)
    if finished(recipe):
        return final
    with _locked(recipe):
        if finished(recipe):
            return final
        work = root() / "work" / recipe.key
        out, state = work / "out", work / "state"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        state.mkdir(exist_ok=True)
        started = time.time()
        measured = build(out, state)
        _write_record(out, recipe, measured, started)
        publish(out, final)  # a folder that is there without a record is damaged
        shutil.rmtree(work, ignore_errors=True)
    return final


def discard(recipe: Recipe) -> None:
    """Throw the folder of a recipe away: gone by one rename, so that nobody finds half of it."""
    trash = root() / "work" / f"{recipe.key}.gone"
    with _locked(recipe):
        shutil.rmtree(trash, ignore_errors=True)
        if folder(recipe).exists():
            folder(recipe).replace(trash)
        shutil.rmtree(trash, ignore_errors=True)


def shed(recipe: Recipe) -> None:
    """Throw a finished folder away and keep its record: what is light is made again when it is needed."""
    if not finished(recipe):  # another command was first
        return
    kept = root() / "records" / f"{recipe.key}.json"
    kept.parent.mkdir(exist_ok=True)
    write_text(kept, (folder(recipe) / RECORD).read_text())
    discard(recipe)


def _locked(recipe: Recipe) -> AbstractContextManager:
    """The recipe's lock, held until the end of the `with`; the system gives it back when the holder dies."""
    path = root() / "locks" / f"{recipe.key}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(path).acquire()
    except OSError as error:
        what = f"cannot write the store {root()} ({error.strerror})"
        raise CbdError(f"{what}: set CBD_STORE to a writable folder") from None


def _write_record(out: Path, recipe: Recipe, measured: dict[str, Any], started: float) -> None:
    """What is made again after it was shed keeps its first record: records do not hang on what had room."""
    if recorded(recipe):
        shutil.copyfile(_record_of(recipe), out / RECORD)
        return
    content = {
        "key": recipe.key,
        "recipe": type(recipe).__name__,
        "spec": recipe.spec.name if hasattr(recipe, "spec") else None,
        "tokens": recipe.tokens,
        "flops": recipe.flops,
        "seconds": time.time() - started,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "tree": recipe.tree(),
    }
    (out / RECORD).write_text(json.dumps(content | surroundings() | measured, indent=1) + "\n")


@cache
def surroundings() -> dict[str, Any]:
    """Versions, commit and machine: what a measured number depends on besides its recipe."""
    packages = ("torch", "transformers", "tokenizers", "datasets", "accelerate", "numpy", "safetensors")
    ours = {"cbd": cbd.__version__, "python": platform.python_version()}
    return {
        "versions": ours | {p: version(p) for p in packages},
        "commit": _commit(),
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.system()},
    }


def _commit() -> str | None:
    here = Path(__file__).parent.parent  # the whole package

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        return head + ("+changes" if head and git("status", "--porcelain", "--", ".") else "") or None
    except FileNotFoundError:
        return None


def _processor() -> str:
    place = Path("/proc/cpuinfo")
    lines = place.read_text().splitlines() if place.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())

"""Files: folders and files that appear whole or not at all, even when the power goes, and their hash."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_text(path: Path, text: str) -> Path:
    """Replace the file's content, as UTF-8, at once; returns `path`."""
    return write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> Path:
    """Replace the file's content at once; returns `path`."""
    with replacing(path) as fresh:
        fresh.write_bytes(content)
    return path


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A free place beside `path`, for a file or a folder, that becomes `path` when the block ends.

    It has the suffix of `path`, by which some libraries choose a format. When the block raises, `path` stays
    what it was and nothing is left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield fresh
        publish(fresh, path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True) if fresh.is_dir() else fresh.unlink(missing_ok=True)


def publish(fresh: Path, path: Path) -> None:
    """Give a finished file or folder its name, by one rename; a folder of that name is thrown away.

    All of it is on disk before it is visible: a power cut must not leave trusted, empty files.
    """
    for place in (fresh, *fresh.rglob("*")):
        if place.is_file():
            with place.open("rb") as file:
                os.fsync(file.fileno())
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    fresh.replace(path)

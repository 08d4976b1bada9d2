"""The data behind our own lm-eval tasks, from folders that `cbd` made; lm-eval loads this file by name."""

from pathlib import Path

from datasets import Dataset

from cbd.data.items import HELD_OUT, read
from cbd.errors import CbdError


def items(items: str | None = None, file: str = "", **_) -> dict[str, Dataset]:
    """The items of a task, by split, from a folder of `cbd.recipes.data.Items`."""
    return _splits(items, "items", lambda split: f"{file}.{split}.jsonl")


def pairs(pairs: str | None = None, **_) -> dict[str, Dataset]:
    """Prompts and responses, by split, from a folder of `cbd.recipes.data.Pairs`."""
    return _splits(pairs, "pairs", lambda split: f"{split}.jsonl")


def _splits(folder: str | None, what: str, name) -> dict[str, Dataset]:
    if folder is None:
        raise CbdError(f'this task reads a folder: --metadata \'{{"{what}": "DIR"}}\', or use `cbd eval`')
    return {split: Dataset.from_list(read(Path(folder) / name(split))) for split in HELD_OUT}

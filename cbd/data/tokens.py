"""Packed token ids, memory-mapped: batches and evaluation windows as pure functions of a folder's content."""

import json
from pathlib import Path

import numpy as np

from cbd.data.documents import SPLITS, Split
from cbd.errors import CbdError, require

DTYPES = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}  # little-endian on every machine


class Tokens:
    """The token ids of a built folder, memory-mapped.

    Raises `CbdError` when a file is missing, unreadable or not as long as corpus.json says.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._arrays: dict[str, np.memmap] = {}
        self._bytes: dict[str, int] = {}
        try:
            content = json.loads((self.folder / "corpus.json").read_text("utf-8"))
            self.vocab_size: int = content["vocab_size"]
            self.eos: int = content["eos"]
            for split in SPLITS:
                said = content["splits"][split]
                ids = np.memmap(self.folder / f"{split}.bin", DTYPES[content["dtype"]], mode="r")
                if len(ids) != said["tokens"]:
                    raise ValueError(f"{split}.bin has {len(ids):,} tokens, not {said['tokens']:,}")
                self._arrays[split], self._bytes[split] = ids, said["bytes"]
        except FileNotFoundError as error:
            raise CbdError(f"{error.filename} is missing; build the corpus again") from error
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise CbdError(f"{self.folder} is no finished corpus ({error}); build it again") from error

    def count(self, split: Split) -> int:
        """Tokens of the split, end-of-text ids included."""
        return len(self.array(split))

    def array(self, split: Split) -> np.memmap:
        """All ids of the split, read-only, shape (count,), uint16 or uint32."""
        require(split in SPLITS, f"split {split!r}: choose train, validation or test")
        return self._arrays[split]

    def bytes_per_token(self, split: Split) -> float:
        """UTF-8 bytes of the split's documents over its tokens; an end-of-text id counts and has no bytes."""
        tokens = self.count(split)
        return self._bytes[split] / tokens

    def batch(self, seed: int, step: int, batch: int, context: int) -> np.ndarray:
        """Random windows of training text, int64 (batch, context + 1): inputs [:, :-1], targets [:, 1:].

        A pure function of the corpus and the arguments. Row i does not depend on the other rows, so a smaller
        batch is the beginning of a larger one. Raises `CbdError` when the split is shorter than a window.
        """
        starts = self.starts(seed, step, batch, context)
        return self.array("train")[starts[:, None] + np.arange(context + 1)].astype(np.int64)

    def starts(self, seed: int, step: int, batch: int, context: int, limit: int | None = None) -> np.ndarray:
        """Where the windows of `batch` begin, int64 of shape (batch,), within the first `limit` ids."""
        places = (limit or self.count("train")) - context
        self._require_window(places, "train", context)
        return drawn(seed, step, batch, places)

    def windows(self, split: Split, tokens: int, context: int) -> np.ndarray:
        """The first n = tokens // context windows, int64 of shape (n, context + 1); fewer in a short split.

        Neighbours share one id, the last target of one and the first input of the next, so that each target
        comes once. Raises `CbdError` when there is not one whole window.
        """
        wrong = f"{tokens:,} tokens do not fill one window of {context:,}"
        require(tokens >= context, f"{wrong}; evaluate on more tokens")
        count = min(tokens, self.count(split) - 1) // context
        self._require_window(count, split, context)
        places = np.arange(count)[:, None] * context + np.arange(context + 1)
        return self.array(split)[places].astype(np.int64)

    def _require_window(self, count: int, split: str, context: int) -> None:
        few = f"the {split} split has {self.count(split):,} tokens, fewer than a window of context + 1 = "
        require(count >= 1, f"{few}{context + 1:,}; shorten the context or add documents")


def drawn(seed: int, step: int, count: int, places: int) -> np.ndarray:
    """(count,) int64 below `places`: each is the same whatever the others are, in every NumPy."""
    key = np.array([seed % 2**64, step % 2**64], np.uint64)
    # `Generator.integers` may take several raw numbers for one
    return (np.random.Philox(key=key).random_raw(count) % np.uint64(places)).astype(np.int64)

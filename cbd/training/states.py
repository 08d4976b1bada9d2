"""A teacher's final hidden states on disk, for runs that read the same batches: the teacher once.

The head turns them into the logits that the teacher would give. They are kept as they were computed, in fp32
(4 bytes a channel and token), so that a run that reads them is the very run that computes them.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from cbd.files import replacing

BLOCK = 16  # steps a file: one is made durable in the time of a few small steps


class States:
    """The states of one teacher on one stream of batches, by the step's place in the stream.

    folder: where blocks of steps are kept, for every process that reads this stream; without it nothing is
    kept, also when it goes meanwhile. read, computed: steps so far.
    """

    def __init__(self, folder: Path):
        self.folder, self.number = folder, -1
        self.block: np.ndarray | None = None
        self.fresh: list[np.ndarray] = []
        self.read = self.computed = 0

    def at(self, step: int, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """(B, T, D) of a step: from its block, or else computed, and kept when its block is whole."""
        number, place = divmod(step, BLOCK)
        if number != self.number:
            self.number, self.block, self.fresh = number, self._load(number), []
        if self.block is not None:
            self.read += 1
            return self.block[place]
        self.computed += 1
        found = compute()
        if place == len(self.fresh):  # a run that begins within a block leaves it to others
            self.fresh.append(found)
        if len(self.fresh) == BLOCK and self.folder.is_dir():
            with replacing(self._path(number)) as path:
                np.save(path, np.stack(self.fresh))
        return found

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npy"

    def _load(self, number: int) -> np.ndarray | None:
        try:
            return np.load(self._path(number), allow_pickle=False)
        except FileNotFoundError:
            return None

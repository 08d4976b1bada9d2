"""Which blocks a model can best do without, by a score on a text (`cbd.recipes.models.Pruned`).

Every block that may go is left out by itself, and the one without which the score is lowest goes for good;
then the same again. The states before a block do not depend on it: they are computed once a round, and every
trial begins there, so that a round costs half of what whole passes would.
"""

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from cbd.data import progress
from cbd.errors import require
from cbd.evaluation.held_out import BATCH
from cbd.files import write_text
from cbd.models.families import Family
from cbd.models.forward import container, inside, made_of
from cbd.recipes.operators import kept
from cbd.training.judge import Judge, Rows


class Given(nn.Module):
    """Stands for all blocks up to one: the states (B, T, D) that they gave are known."""

    def __init__(self, states: Tensor):
        super().__init__()
        self.states = states

    def forward(self, *_: Any, **__: Any) -> Tensor:
        return self.states


def least_missed(
    model: nn.Module,
    family: Family,
    windows: np.ndarray,
    layers: int,
    keep: int,
    state: Path,
    title: str,
    score: Literal["loss", "kl", "logits"] = "loss",
) -> dict[str, list]:
    """Leave blocks out one by one, until `layers` are left, each the one that is missed least.

    windows: (rows, T + 1) ids, of text that is no held-out one. keep: how many blocks may not go, counted
    from both ends as a cut in the middle keeps them: those that a smaller anchor stands for. state: a folder
    in which finished rounds survive a kill; title: of the progress. score: what says how much a block is
    missed (`cbd.training.judge`). Returns `blocks` (the places of those that stay), `removed` (in the order
    in which they went) and `scores` (of all blocks, then after each that went). Raises `CbdError` for more
    blocks than there are.
    """
    name, place = container(model, family), state / "removed.json"
    blocks = list(model.get_submodule(name))
    possible = 0 < layers <= len(blocks) and keep <= layers
    require(possible, f"of {len(blocks)} blocks {layers} cannot stay, {keep} of them the outermost")
    found = json.loads(place.read_text()) if place.is_file() else {"removed": [], "scores": []}
    fixed, judge = set(kept(len(blocks), keep, "ends")), Judge(model, score, batches(model, windows))
    known = len(found["scores"])
    for _ in progress.bar(range(known, len(blocks) - layers + 1), title, initial=known, unit=" rounds"):
        left = [i for i in range(len(blocks)) if i not in found["removed"]]
        if not found["scores"]:
            found["scores"].append(fmean(chain(*map(judge, range(len(judge.rows))))))
        else:
            free = [place for place, i in enumerate(left) if i not in fixed]
            trials = _without(judge, name, [blocks[i] for i in left], free)
            scores = {left[place]: score for place, score in zip(free, trials, strict=True)}
            least = min(scores, key=scores.__getitem__)
            found["removed"].append(least)
            found["scores"].append(scores[least])
        write_text(place, json.dumps(found))
    return {"blocks": [i for i in range(len(blocks)) if i not in found["removed"]]} | found


def batches(model: nn.Module, windows: np.ndarray) -> Rows:
    """Windows of (rows, T + 1) ids as a judge takes them."""
    parts = torch.from_numpy(windows).to(next(model.parameters()).device).split(BATCH)
    return [(part[:, :-1], part[:, 1:]) for part in parts]


def _without(judge: Judge, name: str, blocks: Sequence[nn.Module], free: Sequence[int]) -> list[float]:
    """The mean score without each of the free blocks in turn."""
    model = judge.model
    with torch.no_grad(), made_of(model, name, blocks):
        before = [inside(model, ids).states for ids, _ in judge.rows]
    scores = []
    for i in free:
        each = []
        for batch, states in enumerate(before):
            with made_of(model, name, [Given(states[i]), *blocks[i + 1 :]]):
                each += judge(batch)
        scores.append(fmean(each))
    return scores

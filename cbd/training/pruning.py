"""Which blocks a model can best do without, by its loss on a text (`cbd.recipes.models.Pruned`).

Every block that may go is left out by itself, and the one without which the loss is lowest goes for good;
then the same again. The states before a block do not depend on it: they are computed once a round, and every
trial begins there, so that a round costs half of what whole passes would.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cbd.data import progress
from cbd.errors import require
from cbd.evaluation.held_out import BATCH
from cbd.files import write_text
from cbd.models.families import Family
from cbd.models.forward import inside
from cbd.recipes.operators import kept
from cbd.recipes.training import Loss
from cbd.training.lessons import Objective


class Given(nn.Module):
    """Stands for all blocks up to one: the states (B, T, D) that they gave are known."""

    def __init__(self, states: Tensor):
        super().__init__()
        self.states = states

    def forward(self, *_: Any, **__: Any) -> Tensor:
        return self.states


def least_missed(
    model: nn.Module, family: Family, windows: np.ndarray, layers: int, keep: int, state: Path, title: str
) -> dict[str, list]:
    """Leave blocks out one by one, until `layers` are left, each the one that is missed least.

    windows: (rows, T + 1) ids, of text that is no held-out one. keep: how many blocks may not go, counted
    from both ends as a cut in the middle keeps them: those that a smaller anchor stands for. state: a folder
    in which finished rounds survive a kill; title: of the progress. Returns `blocks` (the places of those
    that stay), `removed` (in the order in which they went) and `losses` (nats per token: of all blocks, then
    after each that went). Raises `CbdError` for more blocks than there are.
    """
    name, place = _container(model, family), state / "removed.json"
    blocks = list(model.get_submodule(name))
    possible = 0 < layers <= len(blocks) and keep <= layers
    require(possible, f"of {len(blocks)} blocks {layers} cannot stay, {keep} of them the outermost")
    found = json.loads(place.read_text()) if place.is_file() else {"removed": [], "losses": []}
    fixed, device = set(kept(len(blocks), keep, "ends")), next(model.parameters()).device
    rows = [(w[:, :-1], w[:, 1:]) for w in torch.from_numpy(windows).to(device).split(BATCH)]
    objective = Objective(model, Loss())
    known = len(found["losses"])
    for _ in progress.bar(range(known, len(blocks) - layers + 1), title, initial=known, unit=" rounds"):
        left = [i for i in range(len(blocks)) if i not in found["removed"]]
        if not found["losses"]:
            found["losses"].append(fmean(_losses(objective, rows)))
        else:
            free = [place for place, i in enumerate(left) if i not in fixed]
            trials = _without(objective, name, [blocks[i] for i in left], free, rows)
            losses = {left[place]: loss for place, loss in zip(free, trials, strict=True)}
            worst = min(losses, key=losses.__getitem__)
            found["removed"].append(worst)
            found["losses"].append(losses[worst])
        write_text(place, json.dumps(found))
    return {"blocks": [i for i in range(len(blocks)) if i not in found["removed"]]} | found


def _without(
    objective: Objective,
    name: str,
    blocks: Sequence[nn.Module],
    free: Sequence[int],
    rows: Sequence[tuple[Tensor, Tensor]],
) -> list[float]:
    """The mean loss without each of the free blocks in turn."""
    model = objective.student
    with torch.no_grad(), _made_of(model, name, blocks):
        before = [inside(model, ids).states for ids, _ in rows]
    losses = []
    for i in free:
        each = []
        for part, states in zip(rows, before, strict=True):
            with _made_of(model, name, [Given(states[i]), *blocks[i + 1 :]]):
                each += _losses(objective, [part])
        losses.append(fmean(each))
    return losses


def _losses(objective: Objective, rows: Sequence[tuple[Tensor, Tensor]]) -> list[float]:
    """Of each row, in nats per token."""
    with torch.no_grad():
        return torch.cat([objective(*part, per_row=True) for part in rows]).tolist()


def _container(model: nn.Module, family: Family) -> str:
    """What the loaded model calls the list of its blocks."""
    role = next(role for role in family.roles if role.per_layer)
    return family.parameter(role.name).split(".{layer}")[0]


@contextmanager
def _made_of(model: nn.Module, name: str, blocks: Sequence[nn.Module]) -> Iterator[None]:
    """The model with other blocks."""
    above, _, attribute = name.rpartition(".")
    parent, own = model.get_submodule(above), model.get_submodule(name)
    setattr(parent, attribute, nn.ModuleList(blocks))
    try:
        yield
    finally:
        setattr(parent, attribute, own)

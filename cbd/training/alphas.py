"""Alphas by gradient: what each part of a mixture should take from either anchor, learned on a few tokens.

With theta = B + alpha * D, where D is what the small anchor adds to the large one (nothing where the small
one has no unit, as union mixes), the gradient of an alpha is that of its tensors, projected on their D.
"""

import math
import shutil
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cbd.data import progress
from cbd.models.checkpoints import Checkpoint
from cbd.models.forward import load
from cbd.models.interpolation import Mixer, initialize
from cbd.recipes.operators import UNION, distance_alpha
from cbd.recipes.specs import ModelSpec
from cbd.recipes.training import Loss, Training
from cbd.training.lessons import Objective, Text, tokens_for


@dataclass
class Part:
    """A tensor of the mixture. group: the place of its alpha. large, adds: B and D above."""

    name: str
    group: int
    weight: nn.Parameter
    large: Tensor
    adds: Tensor


def parts_of(model: nn.Module, small: Checkpoint, large: Checkpoint, spec: ModelSpec, per: str) -> list[Part]:
    """The tensors of the loaded mixture that both anchors have a part in; equal groups share an alpha."""
    ends = [Mixer(small, large, spec, alpha, UNION) for alpha in (1.0, 0.0)]
    groups: dict[Hashable, int] = {}
    found = []
    for role, layer, name in small.family.tensors(spec):
        weight = model.get_parameter(small.family.parameter(name))
        # copies: a tensor that is only cut is a view of the file
        one, other = (end.tensor(role, layer).clone().to(weight.device) for end in ends)
        adds = one.sub_(other)
        if adds.any():
            key = {"model": None, "block": layer, "tensor": name}[per]
            found.append(Part(name, groups.setdefault(key, len(groups)), weight, other, adds))
    return found


@torch.no_grad()
def mix(parts: list[Part], alphas: Tensor) -> None:
    """Set the weights to the mixture at these alphas (one a group)."""
    for part in parts:
        part.weight.copy_(part.large).add_(part.adds, alpha=float(alphas[part.group]))


@torch.no_grad()
def gradients(parts: list[Part], groups: int) -> Tensor:
    """(groups,): of the alphas, from the gradients that the weights hold."""
    found = torch.zeros(groups)
    for part in parts:
        found[part.group] += (part.weight.grad * part.adds).sum().cpu()
    return found


def fit(
    small: Path,
    large: Path,
    spec: ModelSpec,
    corpus: Path,
    training: Training,
    per: str,
    out: Path,
    state: Path,
    title: str = "fit alphas",
) -> dict[str, Any]:
    """Write the mixture of two checkpoints with fitted alphas into the folder `out`; see `recipes.Fitted`.

    state: a folder for the mixture that it begins with. Returns the alphas by tensor and the losses of the
    first and the last step. Raises `CbdError` where the anchors or the text do not fit.
    """
    first, second = Checkpoint(small), Checkpoint(large)
    begin = state / "begin"
    shutil.rmtree(begin, ignore_errors=True)
    begin.mkdir(parents=True)
    rule = distance_alpha(first.spec, second.spec, spec)
    initialize(first, second, spec, begin, rule, UNION)
    model = load(begin).to("cuda" if torch.cuda.is_available() else "cpu")
    parts = parts_of(model, first, second, spec, per)
    text, objective = Text(tokens_for(corpus, model)), Objective(model, Loss())
    alphas = torch.full((1 + max(part.group for part in parts),), rule, requires_grad=True)
    optimizer = torch.optim.Adam([alphas], betas=(0.9, 0.95))
    losses = []
    for step in progress.bar(range(training.steps), title, total=training.steps, unit=" steps"):
        for group in optimizer.param_groups:
            group["lr"] = training.lr * 0.5 * (1 + math.cos(math.pi * step / training.steps))
        mix(parts, alphas)
        losses.append(_backward(objective, text, training, step))
        alphas.grad = gradients(parts, len(alphas))
        model.zero_grad(set_to_none=True)
        optimizer.step()
        with torch.no_grad():
            alphas.clamp_(0, 1)
    found = alphas.detach().tolist()
    by_name = {part.name: round(found[part.group], 6) for part in parts}
    done = initialize(first, second, spec, out, sum(by_name.values()) / len(by_name), UNION, alphas=by_name)
    return done | {"alphas": by_name, "first_loss": losses[0], "last_loss": losses[-1]}


def _backward(objective: Objective, text: Text, training: Training, step: int) -> float:
    """The mean loss of a step's batch, its gradient left in the weights."""
    device = next(objective.parameters()).device
    arrays = text.parts(training, training.skip + step)
    batch = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    mean = objective(**batch).total / int((arrays["labels"] >= 0).sum())
    mean.backward()
    return float(mean.detach())

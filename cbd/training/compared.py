"""How far a model is from its teacher: divergences, the likeness of their states, and effective rank."""

import math
import statistics
from typing import Any

import torch
from torch import Tensor, nn

from cbd.evaluation.held_out import BATCH, HeldOut
from cbd.models.forward import inside
from cbd.recipes.evaluation import DEPTHS
from cbd.recipes.training import Loss
from cbd.training.losses import chunked

KINDS = ("forward_kl", "reverse_kl")
ROWS = 8192  # tokens whose states are compared, at most
SMALL = 1e-4  # a direction whose singular value is below this share of the largest is rounding


def compare(student: nn.Module, teacher: nn.Module, text: HeldOut, device: torch.device) -> dict[str, Any]:
    """Metric -> {"value", "stderr"} on held-out text: both divergences, in nats per token, means over rows;
    "effective_rank" of the student's last states; and "similarity", a list, how alike the states are at each
    of `DEPTHS`.

    Alike: the mean canonical correlation (SVCCA, arXiv 1706.05806, of all directions); 1 where either's are a
    linear map of the other's, and about the root of width over tokens where they have nothing in common.
    stderr: over rows, of the divergences alone.
    """
    apart: dict[str, list[float]] = {kind: [] for kind in KINDS}
    states: tuple[list, list] = ([], [])
    batches = (torch.from_numpy(a).split(BATCH) for a in (text.inputs, text.labels))
    for ids, labels in zip(*batches, strict=True):
        with torch.no_grad():
            own, head, _ = inside(student, ids.to(device))
            other, their_head, _ = inside(teacher, ids.to(device))
            for ours, theirs, targets in zip(own[-1], other[-1], labels.to(device), strict=True):
                for kind, found in apart.items():
                    sums = chunked(ours, head, targets, Loss(kind, 0.0), (theirs, their_head))
                    found.append(sums.divergence.item() / int((targets >= 0).sum()))
        if len(states[0]) * ids.numel() < ROWS:
            for side, found in zip(states, (own, other), strict=True):
                side.append(_at_depths(found))
    pairs = zip(
        *([torch.cat(parts)[:ROWS] for parts in zip(*side, strict=True)] for side in states), strict=True
    )
    found = {kind: _mean(values) for kind, values in apart.items()}
    last = torch.cat([batch[-1] for batch in states[0]])[:ROWS]
    found["effective_rank"] = {"value": effective_rank(last)}
    return found | {"similarity": [{"value": canonical_correlation(*pair)} for pair in pairs]}


def _mean(rows: list[float]) -> dict[str, float]:
    spread = statistics.stdev(rows) / math.sqrt(len(rows)) if len(rows) > 1 else math.nan
    return {"value": statistics.fmean(rows), "stderr": spread}


def _at_depths(states: tuple[Tensor, ...]) -> list[Tensor]:
    """(tokens, width) after each of `DEPTHS`' shares of the blocks."""
    return [states[round(depth * (len(states) - 1))].flatten(0, 1).double().cpu() for depth in DEPTHS]


def canonical_correlation(first: Tensor, second: Tensor) -> float:
    """The mean canonical correlation of columns (n, a) and (n, b), over the smaller one's rank."""
    one, other = _directions(first), _directions(second)
    found = torch.linalg.svdvals(one.T @ other)
    return float(found.clamp(max=1).mean())


def _directions(columns: Tensor) -> Tensor:
    """An orthonormal basis of what the columns span about their means."""
    left, values, _ = torch.linalg.svd(columns - columns.mean(0), full_matrices=False)
    return left[:, values > SMALL * values[0]]


def effective_rank(columns: Tensor) -> float:
    """The exponential of the entropy of singular values' shares (Roy and Vetterli, 2007): 1 to the width."""
    values = torch.linalg.svdvals(columns - columns.mean(0))
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp())

"""What a change of a model's blocks costs on fixed rows: its loss, or how far it is from the whole model.

The Logit Disruption Score is one less the cosine between a token's logits before and after, over those that
are highest before ("Logits-Based Block Pruning with Affine Transformations", Findings of EACL 2026). How
many it leaves open; ours: `TOP`.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from cbd.models.forward import hidden_states
from cbd.recipes.training import Loss
from cbd.training.losses import chunked, per_row_loss

TOP = 64

Rows = Sequence[tuple[Tensor, Tensor]]
"""Batches of ids and next tokens, (B, T) each, where the model lies."""


class Judge:
    """A score of the model as it is now, the lower the better.

    score: as in `cbd.recipes.models.Pruned`; "kl" and "logits" compare with the model as it was when the
    judge was made: what they need of it is kept, final states or the highest logits.
    """

    def __init__(self, model: nn.Module, score: Literal["loss", "kl", "logits"], rows: Rows):
        self.model, self.score, self.rows = model, score, rows
        self._whole = [None if score == "loss" else self._kept(ids) for ids, _ in rows]

    @torch.no_grad()
    def __call__(self, batch: int, model: nn.Module | None = None) -> list[float]:
        """The score of each row of a batch: the mean over its tokens. model: another than the judge's own."""
        ids, labels = self.rows[batch]
        hidden, head = hidden_states(model or self.model, ids)
        if self.score == "loss":
            return per_row_loss(hidden, head, labels).tolist()
        if self.score == "logits":
            top, logits = self._whole[batch]
            return (1 - cosine_similarity(_logits(hidden, head, top), logits, dim=-1)).mean(1).tolist()
        whole, whole_head = self._whole[batch]
        kl, sides = Loss("forward_kl", 0.0), zip(hidden, whole, labels, strict=True)
        return [(chunked(h, head, y, kl, (w, whole_head)).divergence / len(y)).item() for h, w, y in sides]

    @torch.no_grad()
    def _kept(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Final states and head, or the highest logits: their tokens, and their values."""
        hidden, head = hidden_states(self.model, ids)
        if self.score == "kl":
            return hidden, head
        with torch.autocast(hidden.device.type, enabled=False):
            top = torch.stack([(row.float() @ head.T).topk(min(TOP, len(head))).indices for row in hidden])
        return top, _logits(hidden, head, top)


def _logits(hidden: Tensor, head: Tensor, top: Tensor) -> Tensor:
    """(B, T, K): the logits of the tokens `top`, (B, T, K), alone."""
    with torch.autocast(hidden.device.type, enabled=False):
        rows = zip(hidden.float(), top, strict=True)
        return torch.stack([torch.einsum("td,tkd->tk", states, head[ids]) for states, ids in rows])

"""A model as factors that its blocks share, from which one of any depth is made.

In the manner of FINE (arXiv 2409.19289): in each kind of matrix, block l holds U S(l) V^T, with U and V
shared by all blocks. There the factors are trained; here they are those of a model that is trained already,
the leading singular vectors of its blocks side by side and one above the other (the higher-order SVD), and
S(l) is what a block has in them. FINE trains the S(l) of another depth; here they are interpolated between
those of the blocks around, and so is what is no matrix. Which share of the directions is kept is ours.
"""

import math
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from cbd.errors import require
from cbd.models.checkpoints import Checkpoint
from cbd.models.families import Role


class Factorised(Checkpoint):
    """A checkpoint read through shared factors, at another depth.

    share: of a matrix' directions, on either side; 1 at the model's own depth is the model. Raises `CbdError`
    for a share outside of (0, 1].
    """

    def __init__(self, model: Checkpoint, layers: int, share: float):
        require(0 < share <= 1, f"a share of {share:g} of the directions: give one in (0, 1]")
        self.__dict__ |= vars(model)
        self._model, self._share, self._stored = model, share, model.dtype
        self.spec = replace(model.spec, layers=layers)
        self.config = model.family.config(self.spec, model.config)
        self._places = {name: (role, layer) for role, layer, name in model.family.tensors(self.spec)}
        self.energies = {}
        self._factors = cache(self._worked_out)

    def tensor(self, name: str) -> Tensor:
        """A tensor by its full name, in the stored dtype."""
        role, layer = self._places[name]
        if layer is None:
            return self._model.tensor(name)
        last, new = self._model.spec.layers - 1, self.spec.layers
        place = layer * last / (new - 1) if new > 1 else 0.0
        below, part = int(place), place - int(place)
        left, cores, right = self._factors(role)
        core = torch.lerp(cores[below], cores[min(below + 1, last)], part)
        return (core if left is None else left @ core @ right.T).to(self._stored)

    def _worked_out(self, role: Role) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """(a, r), (layers, r, s) and (b, s); of vectors the vectors alone."""
        names = (role.name.format(layer=layer) for layer in range(self._model.spec.layers))
        stacked = torch.stack([self._model.tensor(name).double() for name in names])
        if stacked.ndim < 3:
            return None, stacked, None
        sides = torch.einsum("lab,lcb->ac", stacked, stacked), torch.einsum("lab,lac->bc", stacked, stacked)
        ranks = (math.ceil(self._share * len(side)) for side in sides)
        axes = (torch.linalg.eigh(side).eigenvectors for side in sides)  # by rising singular value
        left, right = (each[:, -rank:] for each, rank in zip(axes, ranks, strict=True))
        return left, left.T @ stacked @ right, right

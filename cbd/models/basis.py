"""The basis of a model: the order of its channels, heads and neurons, which changes nothing that it computes.

Mixing two models coordinate by coordinate means something only where equal places hold equal units. An anchor
inherits leading slices of its teacher *sorted by importance*: the two share a basis only once the teacher is
brought into that order (`shared`). Of checkpoints without such a history `compare` says, from their weights,
whether they share a basis, differ by an order alone (found as in Git Re-Basin, arXiv 2209.04836), or were
trained apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from cbd.models.checkpoints import Checkpoint
from cbd.models.families import Role
from cbd.models.trans import Transfer, UnitMap
from cbd.recipes.operators import Trans
from cbd.recipes.specs import ModelSpec

ROWS = 8192  # of the embeddings: enough to tell a shared channel from chance
# Mean correlations of matched units. By place, units of one basis reach 0.8 and more after training, those of
# others 0.1; by the best order, models that were trained apart reach 0.75 in the stream (embeddings share the
# frequency of tokens) but only 0.25 in heads and neurons.
ALIKE = 0.3
PERMUTED = 0.5

Maps = dict[tuple[str, int], UnitMap]


@dataclass(frozen=True)
class Basis:
    """An order of units: unit i comes from the model's unit `order[i]`.

    stream: (width,). kv, heads, ffn: for each block (key-value heads,), (query heads,), (neurons,).
    """

    stream: tuple[int, ...]
    kv: tuple[tuple[int, ...], ...]
    heads: tuple[tuple[int, ...], ...]
    ffn: tuple[tuple[int, ...], ...]

    @classmethod
    def by_importance(cls, model: Checkpoint) -> Basis:
        """The order into which `Sorted` brings a model."""
        spec = model.spec
        moved = Transfer(model.family, spec, spec, Trans(cut_width="sorted"), model.tensor)
        return cls.of(moved)

    @classmethod
    def of(cls, moved: Transfer) -> Basis:
        """The order that a `Transfer` at an unchanged shape makes."""
        maps = {
            unit: tuple(moved.units(unit, layer).source for layer in range(moved.old.layers))
            for unit in ("kv", "heads", "ffn")
        }
        return cls(moved.stream.source, **maps)

    @property
    def maps(self) -> Maps:
        """The same as `Transfer` takes it."""
        found = {("stream", 0): UnitMap(self.stream)}
        for unit in ("kv", "heads", "ffn"):
            found |= {(unit, i): UnitMap(order) for i, order in enumerate(getattr(self, unit))}
        return found

    def then(self, inner: Basis, layers: Sequence[int]) -> Basis:
        """This order with its leading units in the order `inner` of a smaller model that has those alone.

        layers: for each block of the smaller model the block of this one that it came from.
        """
        found = {unit: list(getattr(self, unit)) for unit in ("kv", "heads", "ffn")}
        for place, layer in enumerate(layers):
            for unit, orders in found.items():
                orders[layer] = _leading(orders[layer], getattr(inner, unit)[place])
        return Basis(_leading(self.stream, inner.stream), **{unit: tuple(o) for unit, o in found.items()})


def _leading(order: Sequence[int], inner: Sequence[int]) -> tuple[int, ...]:
    return tuple(order[i] for i in inner) + tuple(order[len(inner) :])


def shared(models: Sequence[Checkpoint]) -> list[Basis]:
    """For each model of a chain, from large to small, the order that puts all of them into one basis.

    Each but the first started from slices of its predecessor, sorted by importance and cut by depth at the
    default ends. The last one keeps its order; the orders of all steps below are carried up to the first.
    """
    found = [_as_it_is(models[-1].spec)]
    for model, below in zip(models[-2::-1], models[:0:-1], strict=True):
        layers = Transfer(model.family, model.spec, below.spec, Trans(), model.tensor).layers
        found.insert(0, Basis.by_importance(model).then(found[0], layers))
    return found


def _as_it_is(spec: ModelSpec) -> Basis:
    per_block = {u: (tuple(range(getattr(spec, u))),) * spec.layers for u in ("kv", "heads", "ffn")}
    return Basis(tuple(range(spec.width)), **per_block)


class Reordered(Checkpoint):
    """A checkpoint whose units are read in another order: the same function."""

    def __init__(self, model: Checkpoint, basis: Basis):
        self.__dict__ |= vars(model)
        self._stored = model.dtype
        self._moved = Transfer(model.family, model.spec, model.spec, Trans(), model.tensor, basis.maps)
        self._places = {name: (role, layer) for role, layer, name in model.family.tensors(model.spec)}

    def tensor(self, name: str) -> Tensor:
        """A tensor by its full name, in the stored dtype."""
        return self._moved.tensor(*self._places[name]).to(self._stored)


@dataclass(frozen=True)
class Relation:
    """How the units of two checkpoints lie to each other.

    kind: "same" (one basis), "permuted" (one basis once the larger is read in the order `basis`), or "apart".
    stream, blocks: mean correlation of the weights of matched channels, and of heads and neurons.
    """

    kind: Literal["same", "permuted", "apart"]
    stream: float
    blocks: float
    basis: Basis | None = None


def compare(small: Checkpoint, large: Checkpoint) -> Relation:
    """The relation of two checkpoints of one family, by their weights.

    Channels are compared by their columns of the embeddings, heads and neurons by what they read from and
    write to the channels that both models have, in the blocks that Trans aligns.
    """
    layers = Transfer(large.family, large.spec, small.spec, Trans(), large.tensor).layers
    _, stream, blocks = _matched(small, large, layers, search=False)
    if min(stream, blocks) >= ALIKE:
        return Relation("same", stream, blocks)
    basis, stream, blocks = _matched(small, large, layers, search=True)
    kind = "permuted" if min(stream, blocks) >= PERMUTED else "apart"
    return Relation(kind, stream, blocks, basis if kind == "permuted" else None)


def _matched(
    small: Checkpoint, large: Checkpoint, layers: Sequence[int], search: bool
) -> tuple[Basis, float, float]:
    """An order of the larger model's units beside the smaller one's, and how alike the matched ones are.

    search: the best order of all; otherwise units are matched by their place.
    """
    table = small.family.roles[0].name
    rows = slice(0, min(ROWS, small.spec.vocab))
    order, stream = _match(small.tensor(table)[rows].T, large.tensor(table)[rows].T, search)
    basis = replace(_as_it_is(large.spec), stream=order)
    view = Reordered(large, basis)
    found: dict[str, list[tuple[int, ...]]] = {u: list(getattr(basis, u)) for u in ("kv", "heads", "ffn")}
    likeness = []
    for place, layer in enumerate(layers):
        sides = lambda unit, p=place, n=layer: [  # noqa: E731
            _signature(model, unit, block, small.spec.width) for model, block in ((small, p), (view, n))
        ]
        for unit in ("ffn", "kv" if large.spec.group > 1 else "heads"):
            found[unit][layer], like = _match(*sides(unit), search)
            likeness.append(like)
        if large.spec.group == 1:  # each query head has its own key-value head: the two orders are one
            found["kv"][layer] = found["heads"][layer]
        else:
            found["heads"][layer] = _in_groups(*sides("heads"), found["kv"][layer], large.spec.group, search)
    blocks = {unit: tuple(orders) for unit, orders in found.items()}
    return replace(basis, **blocks), stream, sum(likeness) / len(likeness)


def _in_groups(
    small: Tensor, large: Tensor, groups: Sequence[int], size: int, search: bool
) -> tuple[int, ...]:
    """Query heads go with their key-value head, and inside its group in the order of the smaller side's."""
    pairs = list(zip(small.split(size), groups, strict=False))
    found = [(g, _match(mine, large[g * size : (g + 1) * size], search)[0]) for mine, g in pairs]
    found += [(g, tuple(range(size))) for g in groups[len(pairs) :]]
    return tuple(g * size + slot for g, inside in found for slot in inside)


def _signature(model: Checkpoint, unit: str, layer: int, width: int) -> Tensor:
    """(units, features): all weights of each unit that read from or write to the first `width` channels."""
    parts = [part for role in model.family.roles for part in _rows(model, role, unit, layer, width)]
    return torch.cat(parts, 1)


def _rows(model: Checkpoint, role: Role, unit: str, layer: int, width: int) -> Iterator[Tensor]:
    if len(role.axes) != 2 or unit not in (axes := [axis.unit for axis in role.axes]):
        return
    dim = axes.index(unit)
    axis = role.axes[dim]
    weight = model.tensor(role.name.format(layer=layer)).to(torch.float32).movedim(dim, 0)[:, :width]
    blocks = weight.reshape(axis.repeat, -1, axis.block(model.spec), weight.shape[1])
    yield blocks.movedim(0, 1).flatten(1)


def _match(small: Tensor, large: Tensor, search: bool) -> tuple[tuple[int, ...], float]:
    """The larger side's units in the order of the smaller side's, and the mean correlation of the pairs."""
    one, other = (_unit_rows(side.to(torch.float32)) for side in (small, large))
    alike = one @ other.T
    if not search:
        return tuple(range(len(other))), float(alike.diagonal().mean())
    mine, theirs = linear_sum_assignment(alike.numpy(), maximize=True)
    chosen = theirs.tolist()
    rest = sorted(set(range(len(other))) - set(chosen))
    return tuple(chosen + rest), float(alike[mine, theirs].mean())


def _unit_rows(side: Tensor) -> Tensor:
    centred = side - side.mean(1, keepdim=True)
    return centred / centred.norm(dim=1, keepdim=True).clamp_min(1e-12)

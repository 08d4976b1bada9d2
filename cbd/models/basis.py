"""The basis of a model: the order of its channels, heads and neurons, which changes nothing that it computes.

Mixing two models coordinate by coordinate means something only where equal places hold equal units. An anchor
inherits leading slices of its teacher *sorted by importance*, or of its principal axes
(`cbd.models.rotation`): the two share a basis only once the teacher is read in that way. Of checkpoints
without such a history `compare` says, from their weights, whether they share a basis, differ by an order
alone (found as in Git Re-Basin, arXiv 2209.04836), or were trained apart.

An `Order` says for each (kind of unit, block) where its units come from: unit i from the model's order[i].
The stream, which all blocks share, is block 0's; the other kinds are "kv", "heads" (query heads) and "ffn".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

from cbd.models.checkpoints import Checkpoint
from cbd.models.trans import Scores, Transfer, UnitMap, unit_weights
from cbd.recipes.operators import Trans
from cbd.recipes.specs import ModelSpec

Order = dict[tuple[str, int], tuple[int, ...]]
BLOCK_UNITS = ("kv", "heads", "ffn")
ROWS = 8192  # of the embeddings: enough to tell a shared channel from chance
# Mean correlations of matched units. By place, units of one basis reach 0.8 and more after training, those of
# others 0.1; by the best order, models that were trained apart reach 0.75 in the stream (embeddings share the
# frequency of tokens) but only 0.25 in heads and neurons.
ALIKE = 0.3
PERMUTED = 0.5


def as_it_is(spec: ModelSpec) -> Order:
    """The order that leaves a model as it is."""
    blocks = {(unit, i): getattr(spec, unit) for unit in BLOCK_UNITS for i in range(spec.layers)}
    return {place: tuple(range(count)) for place, count in {("stream", 0): spec.width, **blocks}.items()}


def by_importance(model: Checkpoint, measured: Scores | None = None) -> Order:
    """The order into which `Sorted` brings a model, or that of scores which were measured."""
    trans = Trans(cut_width="sorted")
    moved = Transfer(model.family, model.spec, model.spec, trans, model.tensor, measured=measured or {})
    return {place: moved.units(*place).source for place in as_it_is(model.spec)}


def nested(outer: Order, inner: Order, layers: Sequence[int]) -> Order:
    """`outer`, its leading units in the order `inner` of a smaller model that has those alone.

    layers: for each block of the smaller model the block of the larger one that it came from.
    """
    found = dict(outer)
    for (unit, layer), order in inner.items():
        place = unit, 0 if unit == "stream" else layers[layer]
        found[place] = tuple(outer[place][i] for i in order) + outer[place][len(order) :]
    return found


def aligned_blocks(large: Checkpoint, small: ModelSpec) -> tuple[int, ...]:
    """For each block of the smaller model the larger one's that Trans takes it from."""
    return Transfer(large.family, large.spec, small, Trans(), large.tensor).layers


class Reordered(Checkpoint):
    """A checkpoint whose units are read in another order: the same function."""

    def __init__(self, model: Checkpoint, order: Order):
        self.__dict__ |= vars(model)
        self._stored = model.dtype
        maps = {place: UnitMap(units) for place, units in order.items()}
        self._moved = Transfer(model.family, model.spec, model.spec, Trans(), model.tensor, maps)
        self._places = {name: (role, layer) for role, layer, name in model.family.tensors(model.spec)}
        self.energies = {norm: e[list(order["stream", 0])] for norm, e in model.energies.items()}

    def tensor(self, name: str) -> Tensor:
        """A tensor by its full name, in the stored dtype."""
        return self._moved.tensor(*self._places[name]).to(self._stored)


@dataclass(frozen=True)
class Relation:
    """How the units of two checkpoints lie to each other.

    kind: "same" (one basis), "permuted" (one basis once the larger is read in `order`), or "apart". stream,
    blocks: mean correlation of the weights of matched channels, and of heads and neurons.
    """

    kind: Literal["same", "permuted", "apart"]
    stream: float
    blocks: float
    order: Order


def compare(small: Checkpoint, large: Checkpoint) -> Relation:
    """The relation of two checkpoints of one family, by their weights.

    Channels are compared by their columns of the embeddings, heads and neurons by what they read from and
    write to the channels that both models have, in the blocks that Trans aligns.
    """
    order, stream, blocks = _matched(small, large, search=False)
    if min(stream, blocks) >= ALIKE:
        return Relation("same", stream, blocks, order)
    order, stream, blocks = _matched(small, large, search=True)
    return Relation("permuted" if min(stream, blocks) >= PERMUTED else "apart", stream, blocks, order)


def _matched(small: Checkpoint, large: Checkpoint, search: bool) -> tuple[Order, float, float]:
    """An order of the larger model's units beside the smaller one's, and how alike the matched ones are.

    search: the best order of all; otherwise units are matched by their place.
    """
    table, rows = small.family.roles[0].name, slice(0, min(ROWS, small.spec.vocab))
    order = as_it_is(large.spec)
    order["stream", 0], stream = _match(small.tensor(table)[rows].T, large.tensor(table)[rows].T, search)
    view, group, likeness = Reordered(large, order), large.spec.group, []
    for place, layer in enumerate(aligned_blocks(large, small.spec)):
        for unit in ("ffn", "kv" if group > 1 else "heads"):
            sides = _weights(small, unit, place, small.spec), _weights(view, unit, layer, small.spec)
            order[unit, layer], like = _match(*sides, search)
            likeness.append(like)
        if search and sum(likeness) < ALIKE * len(likeness):
            break  # strangers: the other blocks would cost seconds each and say the same
        if group == 1:  # each query head has its own key-value head: the two orders are one
            order["kv", layer] = order["heads", layer]
            continue
        sides = _weights(small, "heads", place, small.spec), _weights(view, "heads", layer, small.spec)
        order["heads", layer] = _in_groups(*sides, order["kv", layer], group, search)
    return order, stream, sum(likeness) / len(likeness)


def _in_groups(
    small: Tensor, large: Tensor, groups: Sequence[int], size: int, search: bool
) -> tuple[int, ...]:
    """Query heads go with their key-value head, and inside its group in the order of the smaller side's."""
    pairs = list(zip(small.split(size), groups, strict=False))
    found = [(g, _match(mine, large[g * size : (g + 1) * size], search)[0]) for mine, g in pairs]
    found += [(g, tuple(range(size))) for g in groups[len(pairs) :]]
    return tuple(g * size + slot for g, inside in found for slot in inside)


def _weights(model: Checkpoint, unit: str, layer: int, narrow: ModelSpec) -> Tensor:
    """(units, features): all weights of each unit that read from or write to the channels of `narrow`."""
    weights = unit_weights(model.family, model.spec, unit, layer, model.tensor)
    return torch.cat([weight[..., : narrow.width].movedim(0, 1).flatten(1) for _, weight in weights], 1)


def _match(small: Tensor, large: Tensor, search: bool) -> tuple[tuple[int, ...], float]:
    """The larger side's units in the order of the smaller side's, and the mean correlation of the pairs."""
    sides = (side.to(torch.float32) for side in (small, large))
    one, other = (normalize(side - side.mean(1, keepdim=True)) for side in sides)
    alike = one @ other.T
    if not search:
        return tuple(range(len(other))), float(alike.diagonal().mean())
    mine, theirs = linear_sum_assignment(alike.numpy(), maximize=True)
    rest = sorted(set(range(len(other))) - set(theirs.tolist()))
    return (*theirs.tolist(), *rest), float(alike[mine, theirs].mean())

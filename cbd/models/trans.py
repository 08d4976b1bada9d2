"""Trans: a model's tensors at another depth, width, head count and feed-forward width.

Chain-based Distillation (arXiv 2605.07783, section 3) brings each anchor to the target's shape by *subset*
(cut) or *expansion* (grow). Both are one operation here: every axis has a map from new units to old ones, and
units without an old one are filled by a rule that depends on what the tensor does there. Pure functions on
tensors; fp32 throughout.

Why padding preserves the function under LayerNorm: if each writer's new channels hold the mean of its
channels, the stream's new channels hold the stream's mean, which stays as it was, so they are zero after
centring, and the variance shrinks by d/D. Gains times sqrt(d/D) and epsilon times d/D undo that. The weights
that read the new channels, and the insides of new heads and neurons (whose output rows are zero), do not
matter to the function: they are copies of their neighbours, since a unit that is zero on both sides would
never receive a gradient. RMSNorm does not centre: there the new channels hold zero, and the rest is the same.

Where several query heads share one key-value head, such a group stays whole: groups are mapped first, then
the query heads inside each.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor

from cbd.errors import require
from cbd.models.families import Axis, Family, Role
from cbd.recipes.operators import Trans, kept
from cbd.recipes.specs import ModelSpec

Read = Callable[[str], Tensor]
Scores = Mapping[tuple[str, int], Tensor]
"""(kind of unit, block) -> how important each unit is, (units,)."""


@dataclass(frozen=True)
class UnitMap:
    """New units of one axis: `source[i]` is the old unit that new unit i is taken from, or -1."""

    source: tuple[int, ...]

    @cached_property
    def exists(self) -> Tensor:
        """(new,) bool: whether the old model has the unit."""
        return torch.tensor(self.source) >= 0

    @cached_property
    def shares(self) -> Tensor:
        """(new,) fp32: one over the number of new units that share an old one."""
        counts = torch.bincount(torch.tensor([max(s, 0) for s in self.source])[self.exists])
        return torch.tensor([1.0 / counts[s].item() if s >= 0 else 1.0 for s in self.source])

    @property
    def copied(self) -> bool:
        kept = [s for s in self.source if s >= 0]
        return len(set(kept)) < len(kept)


@dataclass
class Transfer:
    """Trans of one model: maps worked out once, then tensors one at a time.

    read: gives an old tensor by its full name. maps: (unit, block) -> where its units come from, worked out
    from `trans` where that is not given; the stream's block is 0. measured: of heads, neurons and channels,
    instead of the norms of their weights. energies: a norm's gain -> how much of the stream's mean square
    each channel holds (`cbd.models.rotation`): slices of it keep their scale.
    """

    family: Family
    old: ModelSpec
    new: ModelSpec
    trans: Trans
    read: Read
    maps: dict[tuple[str, int], UnitMap] = field(default_factory=dict)
    measured: Scores = field(default_factory=dict)
    energies: Mapping[str, Tensor] = field(default_factory=dict)
    _scored: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_transferable(self.old, self.new)

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """For each new block the old block it is taken from, or -1 - neighbour for a new, silent block."""
        old, new, cut = self.old.layers, self.new.layers, self.trans.cut_layers
        if new < old and cut == "importance":
            return tuple(sorted(_by_score(self._layer_scores())[:new]))
        if new < old:
            return kept(old, new, cut)
        if self.trans.grow_layers == "stack":
            return tuple(i % old for i in range(new))
        if self.trans.grow_layers == "copy":
            return tuple(i * old // new for i in range(new))
        first = math.ceil(old / 2)  # grown where "ends" cuts, by silent copies of the block before
        return (*range(first), *(-first,) * (new - old), *range(first, old))

    @property
    def stream(self) -> UnitMap:
        """Where the channels of the residual stream come from."""
        return self.units("stream", 0)

    @cached_property
    def gain_factor(self) -> float:
        """What the norms' gains are multiplied by, so that a diluted variance changes nothing."""
        if self.trans.grow_width not in ("pad", "duplicate"):
            return 1.0
        return math.sqrt(int(self.stream.exists.sum()) / self.new.width)

    def _kept_scale(self, norm: str) -> float:
        """A norm divides by the root mean square of the channels that are left: what that changes, undone."""
        if norm not in self.energies or self.new.width >= self.old.width:
            return 1.0
        energy = self.energies[norm]
        kept = energy[torch.tensor(self.stream.source)].sum() / energy.sum()
        return math.sqrt(float(kept) * self.old.width / self.new.width)

    def epsilon(self, epsilon: float) -> float:
        """The norms' epsilon after Trans: one for all norms."""
        kept = [self._kept_scale(norm) ** 2 for norm in self.energies] or [1.0]
        return epsilon * self.gain_factor**2 * sum(kept) / len(kept)

    def tensor(self, role: Role, layer: int | None) -> Tensor:
        """One tensor of the new model, fp32."""
        old_layer, silent = self._old_layer(layer)
        tensor = self.read(role.name.format(layer=old_layer)).to(torch.float32)
        for dim, axis in enumerate(role.axes):
            tensor = self._resize(tensor, dim, role, axis, self._map(axis, old_layer))
        if role.kind == "gain":
            tensor = tensor * self.gain_factor * self._kept_scale(role.name.format(layer=old_layer))
        if role.feeds_head and self.old.tied and self.stream.copied:
            tensor = tensor * self.stream.shares  # the tied head reads each copy: its norm divides instead
        zero = silent and (role.output or self.trans.grow_width == "raw_pad")
        return torch.zeros_like(tensor) if zero else tensor

    def exists(self, role: Role, layer: int | None) -> list[Tensor] | None:
        """For each axis the coordinates that the old model has; None when the whole block is new."""
        old_layer, silent = self._old_layer(layer)
        if silent:
            return None
        units = [(axis, self._map(axis, old_layer).exists) for axis in role.axes]
        return [mask.repeat_interleave(axis.block(self.new)).repeat(axis.repeat) for axis, mask in units]

    def _old_layer(self, layer: int | None) -> tuple[int, bool]:
        if layer is None:
            return 0, False
        source = self.layers[layer]
        return (source, False) if source >= 0 else (-1 - source, True)

    def _map(self, axis: Axis, layer: int) -> UnitMap:
        if axis.unit in ("vocab", "positions", "head_dim"):
            return UnitMap(tuple(range(axis.units(self.new))))
        return self.units(axis.unit, 0 if axis.unit == "stream" else layer)

    def units(self, unit: str, layer: int) -> UnitMap:
        """Where the units of one kind come from in an old block (0 for the stream, which has none)."""
        if (unit, layer) not in self.maps:
            if unit == "heads":
                self.maps[unit, layer] = self._heads(layer)
            else:
                sizes = (Axis(unit).units(spec) for spec in (self.old, self.new))
                self.maps[unit, layer] = self._unit_map(*sizes, unit, partial(self._scores, unit, layer))
        return self.maps[unit, layer]

    def _scores(self, unit: str, layer: int) -> Tensor:
        """(units,); a key-value head is as important as its group of query heads together."""
        if (unit, layer) in self.measured:
            return self.measured[unit, layer]
        if unit == "stream":
            return stream_scores(self.family, self.old, self.read)
        if unit == "kv":
            return self._head_scores(layer).sum(1)
        return unit_scores(self.family, self.old, unit, layer, self.read)

    def _heads(self, layer: int) -> UnitMap:
        """Query heads: the groups in their new order, and in each its heads."""
        groups = self.units("kv", layer)
        old, new = self.old.group, self.new.group
        inside = [
            self._unit_map(old, new, "heads", lambda g=g: self._head_scores(layer)[g]).source
            for g in range(self.old.kv)
        ]
        pairs = ((g, slot) for g in groups.source for slot in (inside[g] if g >= 0 else (-1,) * new))
        return UnitMap(tuple(g * old + slot if slot >= 0 else -1 for g, slot in pairs))

    def _head_scores(self, layer: int) -> Tensor:
        """(groups, heads of a group), worked out once a block."""
        if layer not in self._scored:
            self._scored[layer] = self._scores("heads", layer).reshape(self.old.kv, self.old.group)
        return self._scored[layer]

    def _unit_map(self, old: int, new: int, unit: str, scores: Callable[[], Tensor]) -> UnitMap:
        if new <= old:
            if self.trans.cut_width == "sorted":
                return UnitMap(tuple(_by_score(scores())[:new]))
            if self.trans.cut_width == "leading" or new == old:
                return UnitMap(tuple(range(new)))
            return UnitMap(tuple(sorted(_by_score(scores())[:new])))
        if self.trans.grow_width == "tile" or (self.trans.grow_width == "duplicate" and unit != "stream"):
            return UnitMap(tuple(i % old for i in range(new)))
        if self.trans.grow_width == "duplicate":  # only whole copies keep a norm's mean: the rest is padded
            whole = new // old * old
            return UnitMap(tuple(i % old if i < whole else -1 for i in range(new)))
        return UnitMap(tuple(i if i < old else -1 for i in range(new)))

    def _layer_scores(self) -> Tensor:
        """(layers,): norm of what each block can add to the stream."""
        outputs = [role for role in self.family.roles if role.output]
        norms = [
            sum(self.read(role.name.format(layer=i)).to(torch.float32).square().sum() for role in outputs)
            for i in range(self.old.layers)
        ]
        return torch.stack(norms)

    def _resize(self, tensor: Tensor, dim: int, role: Role, axis: Axis, units: UnitMap) -> Tensor:
        """Gather one axis by its unit map and fill what is new."""
        block = axis.block(self.old)
        n = tensor.shape[dim] // (axis.repeat * block)
        shape = tensor.shape[:dim] + (axis.repeat, n, block) + tensor.shape[dim + 1 :]
        if units.source == tuple(range(len(units.source))):  # a view where the layout allows
            cut = tensor.reshape(shape).narrow(dim + 1, 0, len(units.source))
            return cut.reshape(tensor.shape[:dim] + (-1,) + tensor.shape[dim + 1 :])
        # new units are copies of their neighbours at first; `_fill` says where that would change the function
        places = [s if s >= 0 else i % n for i, s in enumerate(units.source)]
        grown = _gathered(tensor.reshape(shape), dim + 1, places)
        if units.copied and axis.reads:
            grown.mul_(units.shares.reshape(-1, *[1] * (grown.ndim - dim - 2)))
        if not units.exists.all():
            fill = self._fill(tensor, dim, role, axis)
            if fill is not None:
                put(grown, dim + 1, ~units.exists, fill)
        return grown.reshape(tensor.shape[:dim] + (-1,) + tensor.shape[dim + 1 :])

    def _fill(self, tensor: Tensor, dim: int, role: Role, axis: Axis) -> Tensor | float | None:
        """What new units hold: a value, or None where the copies may stay since nothing reads them."""
        if self.trans.grow_width == "raw_pad":
            return 0.0
        if axis.unit != "stream":
            return 0.0 if axis.reads else None
        if axis.reads or role.kind == "gain":
            return None
        if role.kind == "shift" or self.family.norm == "rms":
            return 0.0
        mean = tensor.mean(dim, keepdim=True)
        return mean.unsqueeze(dim).unsqueeze(dim)


def _by_score(scores: Tensor) -> list[int]:
    """Indices by falling score; ties keep their order, so that every machine gives the same result."""
    return scores.argsort(descending=True, stable=True).tolist()


def _gathered(tensor: Tensor, dim: int, places: list[int]) -> Tensor:
    """`index_select`, but by whole copies where the places run through all units again and again."""
    n = tensor.shape[dim]
    if all(place == i % n for i, place in enumerate(places)):
        copies, rest = divmod(len(places), n)
        return torch.cat([tensor] * copies + [tensor.narrow(dim, 0, rest)] * (rest > 0), dim)
    return tensor.index_select(dim, torch.tensor(places))


def put(tensor: Tensor, dim: int, where: Tensor, values: Tensor | float) -> None:
    """tensor[..., where, ...] = values, in place; fast where the places are all at the end of the axis.

    values: a number, or a tensor that fits `tensor` but for this axis, where it has one or all places.
    """
    first = int(where.int().argmax()) if where.any() else len(where)
    if where[first:].all():
        end = tensor.narrow(dim, first, len(where) - first)
        if isinstance(values, Tensor) and values.shape[dim] == len(where):
            values = values.narrow(dim, first, len(where) - first)
        end.copy_(values) if isinstance(values, Tensor) else end.fill_(values)
        return
    here = (slice(None),) * dim + (where,)
    wide = isinstance(values, Tensor) and values.shape[dim] == len(where)
    tensor[here] = values[here] if wide else values


def check_transferable(old: ModelSpec, new: ModelSpec) -> None:
    """Raise `CbdError` where Trans has no meaning: another family, vocabulary, head or head dimension."""
    kept = {"family": "families", "vocab": "vocabularies", "tied": "tied-ness of the head"}
    for name, what in (kept | {"positions": "positions"}).items():
        one, other = getattr(old, name), getattr(new, name)
        remedy = "use anchors that share them, or a bridge"
        require(one == other, f"{what} differ ({one} and {other}): Trans keeps them; {remedy}")
    size = old.head_dim
    why = "" if old.traits.learned_positions else ", since rotary positions turn pairs of its channels"
    remedy = f"{new.width}/{size} = {new.width / size:g} heads, or a width that {size} divides"
    require(size == new.head_dim, f"head dimension {size} cannot become {new.head_dim}{why}: choose {remedy}")


def unit_scores(family: Family, spec: ModelSpec, unit: str, layer: int, read: Read) -> Tensor:
    """(units,): norm of the contribution of each head or neuron, from the weights alone.

    The product of the norm of what goes in (for GPT-2's heads: query, key and value; for a head that shares
    its key and value: the query) and of what comes out.
    """
    inside, outside = torch.zeros(2, getattr(spec, unit))
    for axis, weight in unit_weights(family, spec, unit, layer, read):
        (outside if axis.reads else inside).add_(weight.square().sum((0, 2, 3)))
    return (inside * outside).sqrt()


def unit_weights(
    family: Family, spec: ModelSpec, unit: str, layer: int, read: Read
) -> Iterator[tuple[Axis, Tensor]]:
    """Every matrix of a block that has an axis of these units: (repeat, units, block, other axis), fp32."""
    for role in family.roles:
        for dim, axis in enumerate(role.axes):
            if axis.unit == unit and len(role.axes) == 2:
                weight = read(role.name.format(layer=layer)).to(torch.float32).movedim(dim, 0)
                yield axis, weight.reshape(axis.repeat, -1, axis.block(spec), weight.shape[1])


def stream_scores(family: Family, spec: ModelSpec, read: Read) -> Tensor:
    """(width,): norm of each channel's writers (what it carries) times that of its readers."""
    written, heard = torch.zeros(spec.width), torch.zeros(spec.width)
    for role, _, name in family.tensors(spec):
        if role.kind != "weight" or len(role.axes) != 2:
            continue
        dim = next(i for i, axis in enumerate(role.axes) if axis.unit == "stream")
        weight = read(name).to(torch.float32).movedim(dim, 0)
        if role.axes[dim].reads:
            heard += weight.square().sum(1)
        else:  # an embedding writes one row a token, a projection all its rows
            written += weight.square().sum(1) if role.per_layer else weight.square().mean(1)
    return (written * heard).sqrt()

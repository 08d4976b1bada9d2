"""The basis of principal axes: a model turned so that its leading channels carry most of its residual stream.

After SliceGPT (arXiv 2401.15024): the norms' gains are folded into what reads from them, then everything that
writes to the stream or reads from it is turned by one orthogonal matrix, and slices of the leading channels
lose the least. There each block has a basis of its own; here all share one, so that the model keeps its shape
and two anchors can be mixed.

LayerNorm subtracts the mean of the channels, so the turn must keep the mean's direction, and slices must find
their axes where the mean of the channels that are left is subtracted. Helmert's basis has both: its vector k
lives on the first k + 1 channels, sums to zero there, and is constant on the channels before it, which
LayerNorm takes away. A slice of d channels holds exactly the first d - 1 axes.

A tied head reads the table that the embeddings are written from, so the last gain cannot be folded into it.
It is replaced by the diagonal that changes the logits least: the one loss of this basis. The channels with
the most unusual gains are not turned (`APART`), which keeps it small: SmolLM2-135M, whose gains lie between
-2 and 3, loses 0.02 nats so, and everything without. Under LayerNorm such channels make the mean of a slice a
little wrong, so they are left alone only where gains vary (`VARIED`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cbd.errors import require
from cbd.models.basis import Order, Reordered, as_it_is, by_importance, nested
from cbd.models.checkpoints import BASIS, ENERGY, Checkpoint
from cbd.models.families import Family, Role
from cbd.models.forward import hidden_states, hooked
from cbd.models.interpolation import rewrite
from cbd.models.trans import Scores

ORDER, TURN = "order/", "turn"  # names of a basis' tensors
APART = 0.1  # share of the channels of a tied model that keep an axis of their own
VARIED = 0.1  # under LayerNorm only where the gains' deviation from their median is beyond this share of it


@dataclass(frozen=True)
class Statistics:
    """What a model does on a text.

    covariances: a norm's gain -> (D, D), the mean of x xT over tokens, with x the norm's input at unit mean
        square. scores: (unit, block) -> (units,), root mean square of what each head or neuron adds to the
        stream.
    """

    covariances: Mapping[str, Tensor]
    scores: Scores


def measured(model: nn.Module, checkpoint: Checkpoint, rows: Iterable[Tensor]) -> Statistics:
    """Run a loaded model over rows of ids, (B, T) each, where the model lies.

    It keeps two matrices of width x width a block: 80 MB for SmolLM2-135M, 0.8 GB for a width of 2,048.
    """
    family, spec = checkpoint.family, checkpoint.spec
    norms = [name for role, _, name in family.tensors(spec) if role.norm]
    outputs = {
        name: (unit, layer)
        for role, layer, name in family.tensors(spec)
        if role.output and len(role.axes) == 2 and (unit := _inside(role))
    }
    covariances: dict[str, Tensor] = {}
    squares: dict[str, Tensor] = {}
    tokens, device = 0, next(model.parameters()).device

    def see(name: str, x: Tensor, _: Tensor) -> None:
        x = x.detach().float().flatten(0, -2)
        if name in outputs:
            squares[name] = squares.get(name, 0) + x.square().sum(0)
            return
        x = x - x.mean(1, keepdim=True) if family.norm == "layer" else x
        x = x * x.square().mean(1, keepdim=True).clamp_min(1e-12).rsqrt()
        covariances[name] = covariances.get(name, 0) + x.T @ x

    with torch.no_grad(), hooked(model, [*norms, *outputs], see):
        for ids in rows:
            hidden_states(model, ids.to(device))
            tokens += ids.numel()
    scores = {}
    for name, (unit, layer) in outputs.items():
        role = next(role for role in family.roles if role.name.format(layer=layer) == name)
        dim = 1 - next(i for i, axis in enumerate(role.axes) if axis.unit == "stream")
        weights = checkpoint.tensor(name).float().square().sum(1 - dim)
        each = (weights * squares[name].cpu() / tokens).reshape(getattr(spec, unit), -1)
        scores[unit, layer] = each.sum(1).sqrt()
    return Statistics({name: total.cpu() / tokens for name, total in covariances.items()}, scores)


def _last_gain(family: Family) -> str:
    """The gain of the norm before the head."""
    return next(role.name for role in family.roles if role.norm and role.feeds_head)


def _inside(role: Role) -> str:
    """The units that an output projection reads from."""
    return next((axis.unit for axis in role.axes if axis.unit != "stream"), "")


def helmert(size: int) -> Tensor:
    """(size, size) orthogonal, fp64: column 0 is constant, column k has its support on the first k + 1."""
    k = torch.arange(1, size, dtype=torch.float64)
    upper = torch.ones(size, size - 1, dtype=torch.float64).triu()
    below = torch.diag_embed(-k, offset=-1)[:, : size - 1]
    constant = torch.full((size, 1), size**-0.5, dtype=torch.float64)
    return torch.cat([constant, (upper + below) / (k * (k + 1)).sqrt()], 1)


def principal_axes(
    statistics: Statistics, family: Family, last_gain: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The turn, (D, D) orthogonal with new = old @ turn, and each norm's energy in the leading channels.

    last_gain: (D,), of a tied model. energy: a norm's gain -> (D,) with sum D; a slice of d channels holds
    the sum of its first d entries.
    """
    total = torch.stack(list(statistics.covariances.values())).double().mean(0)
    mean, free = family.norm == "layer", _free(len(total), family, last_gain)
    axes, turn = (torch.eye(len(total), dtype=total.dtype) for _ in range(2))
    axes[free[:, None], free], turn[free[:, None], free] = _turned_axes(total[free][:, free], mean)
    order = _by_energy(((total @ axes) * axes).sum(0), free, mean)
    axes, turn = axes[:, order], turn[:, order]
    energies = {
        name: ((covariance.double() @ axes) * axes).sum(0).float()
        for name, covariance in statistics.covariances.items()
    }
    return turn.float(), energies


def _free(size: int, family: Family, last_gain: Tensor | None) -> Tensor:
    """The channels that may be turned, in their order."""
    if last_gain is None:
        return torch.arange(size)
    unusual = (last_gain - last_gain.median()).abs()
    varied = unusual.square().mean().sqrt() > VARIED * last_gain.median().abs()
    apart = int(APART * size) if varied or family.norm == "rms" else 0
    return unusual.argsort(stable=True)[: size - apart].sort().values


def _turned_axes(covariance: Tensor, mean: bool) -> tuple[Tensor, Tensor]:
    """The axes by falling energy, and the turn that brings them to the leading channels.

    mean: whether the norm takes the mean away. Its direction is then the first axis, and carries nothing.
    """
    if not mean:
        axes = torch.linalg.eigh(covariance).eigenvectors.flip(1)
        return axes, axes
    basis = helmert(len(covariance))
    inner = basis[:, 1:].T @ covariance @ basis[:, 1:]
    axes = basis[:, 1:] @ torch.linalg.eigh(inner).eigenvectors.flip(1)
    axes = torch.cat([basis[:, :1], axes], 1)
    return axes, axes @ basis.T


def _by_energy(energy: Tensor, free: Tensor, mean: bool) -> Tensor:
    """The channels by falling energy; the free ones keep their order, that of the mean before the others."""
    falling = energy[free]
    falling[0] = torch.inf if mean else falling[0]
    energy = energy.index_copy(0, free, falling.cummin(0).values)
    return energy.argsort(descending=True, stable=True)


class Turned(Checkpoint):
    """A checkpoint whose stream is read in another orthogonal basis, its norms folded: the same function.

    Where the head is tied, the function changes by what a diagonal last gain loses. Raises `CbdError` for a
    family whose norms have a shift and readers without a bias to take it.
    """

    def __init__(self, model: Checkpoint, turn: Tensor):
        for reader in self._norms_of(model.family):
            bias = reader.removesuffix("weight") + "bias"
            known = model.family.norm == "rms" or reader == model.family.head.name
            known = known or any(role.name == bias for role in model.family.roles)
            require(known, f"{reader} has no bias to take its norm's shift: keep the model's own basis")
        self.__dict__ |= vars(model)
        self._model, self._turn, self._stored = model, turn, model.dtype
        self._places = {name: (role, layer) for role, layer, name in model.family.tensors(model.spec)}
        self._norms = self._norms_of(model.family)
        self.energies = {}

    @staticmethod
    def _norms_of(family: Family) -> dict[str, str]:
        """What reads from the stream -> the norm before it; the adapters list a norm before its readers."""
        found, norm = {}, ""
        for role in (*family.roles, family.head):
            norm = role.name if role.norm else norm
            if any(axis.unit == "stream" and axis.reads for axis in role.axes):
                found[role.name] = norm
        return found

    def tensor(self, name: str) -> Tensor:
        """A tensor by its full name, in the stored dtype."""
        role, layer = self._places[name]
        return self._tensor(role, layer).to(self._stored)

    def _read(self, name: str, layer: int | None) -> Tensor:
        return self._model.tensor(name.format(layer=layer)).float()

    def _tensor(self, role: Role, layer: int | None) -> Tensor:
        last = role.feeds_head
        if role.norm:
            return self._last_gain if last and self.spec.tied else torch.ones(self.spec.width)
        if role.kind == "shift":
            return self._last_shift(role) if last else torch.zeros(self.spec.width)
        tensor = self._read(role.name, layer)
        dims = [i for i, axis in enumerate(role.axes) if axis.unit == "stream"]
        if not dims:
            return self._with_shift(role, tensor, layer)
        [dim] = dims
        tensor = tensor.movedim(dim, -1)
        if role.axes[dim].reads:
            tensor = tensor * self._read(self._norms[role.name], layer)
        return (tensor @ self._turn).movedim(-1, dim)

    def _with_shift(self, role: Role, bias: Tensor, layer: int | None) -> Tensor:
        """A reader's bias with what the norm's shift brings it."""
        weight = role.name.removesuffix("bias") + "weight"
        if role.name == weight or weight not in self._norms:
            return bias
        reader = next(r for r in self.family.roles if r.name == weight)
        dim = next(i for i, axis in enumerate(reader.axes) if axis.unit == "stream")
        shift = self._read(self._norms[weight].removesuffix("weight") + "bias", layer)
        return bias + self._read(weight, layer).movedim(dim, -1) @ shift

    @property
    def _embeddings(self) -> Tensor:
        return self._read(self.family.roles[0].name, None)

    @cached_property
    def _last_gain(self) -> Tensor:
        """The diagonal that gives a tied head the nearest logits, over all tokens alike."""
        plain = self._embeddings @ self._turn
        wanted = (self._embeddings * self._read(_last_gain(self.family), None)) @ self._turn
        return (plain * wanted).sum(0) / plain.square().sum(0).clamp_min(1e-12)

    def _last_shift(self, role: Role) -> Tensor:
        """The last norm's shift: the head reads it as it is, or divided by the gain that was folded in."""
        shift = self._read(role.name, None)
        if not self.spec.tied:
            gain = self._read(role.name.removesuffix("bias") + "weight", None)
            wrong = f"{self.folder}: the last norm has gains of zero, which no head can hold"
            require((gain != 0).all(), f"{wrong}: use the model's own basis")
            shift = shift / gain
        return shift @ self._turn


@dataclass(frozen=True)
class Basis:
    """How a model is read so that a smaller one's units are its leading ones: turned, then in an order.

    turn: None where the order alone changes. energies: what each channel then holds, where that was measured.
    """

    order: Order
    turn: Tensor | None = None
    energies: Mapping[str, Tensor] = field(default_factory=dict)

    def seen(self, model: Checkpoint) -> Checkpoint:
        """The model in this basis."""
        view = Reordered(model if self.turn is None else Turned(model, self.turn), self.order)
        view.energies = dict(self.energies)
        return view

    def within(self, outer: Checkpoint, layers: Sequence[int]) -> "Basis":
        """The same change for the leading units of a larger model; layers: its blocks, for each of ours."""
        order, turn = nested(as_it_is(outer.spec), self.order, layers), self.turn
        if turn is not None:
            rest = torch.eye(outer.spec.width - len(turn))
            turn = torch.block_diag(turn, rest)
        return Basis(order, turn, outer.energies)

    def save(self, path: Path) -> None:
        tensors = {f"{ORDER}{unit}/{layer}": torch.tensor(o) for (unit, layer), o in self.order.items()}
        tensors |= {ENERGY + norm: energy for norm, energy in self.energies.items()}
        path.parent.mkdir(exist_ok=True)
        save_file(tensors | ({} if self.turn is None else {TURN: self.turn.contiguous()}), path)

    @classmethod
    def load(cls, path: Path) -> "Basis":
        found, order = load_file(path), {}
        for name in [name for name in found if name.startswith(ORDER)]:
            unit, layer = name.removeprefix(ORDER).split("/")
            order[unit, int(layer)] = tuple(found.pop(name).tolist())
        turn = found.pop(TURN, None)
        return cls(order, turn, {name.removeprefix(ENERGY): energy for name, energy in found.items()})


def rotate(model: Checkpoint, statistics: Statistics, out: Path, axes: bool = True) -> None:
    """Write the model in its principal axes into the existing folder `out`, and there, as `BASIS`, how.

    Its heads and neurons are ordered by what they add to the stream. axes: where False, its channels are only
    ordered, by falling energy. Raises `CbdError` as `Turned` does.
    """
    basis = _along_axes(model, statistics) if axes else _by_activations(model, statistics)
    rewrite(basis.seen(model), out)
    basis.save(out / BASIS)


def _along_axes(model: Checkpoint, statistics: Statistics) -> Basis:
    gain = model.tensor(_last_gain(model.family)).float() if model.spec.tied else None
    turn, energies = principal_axes(statistics, model.family, gain)
    scores = {**statistics.scores, ("stream", 0): -torch.arange(model.spec.width)}
    return Basis(by_importance(Turned(model, turn), scores), turn, energies)


def _by_activations(model: Checkpoint, statistics: Statistics) -> Basis:
    energies = {norm: covariance.diagonal() for norm, covariance in statistics.covariances.items()}
    carried = torch.stack(list(energies.values())).mean(0)  # the norms weigh alike, as in the axes
    order = by_importance(model, {**statistics.scores, ("stream", 0): carried})
    places = list(order["stream", 0])
    return Basis(order, energies={norm: energy[places] for norm, energy in energies.items()})

"""Initialisation by interpolation: theta = alpha * Trans(small) + (1 - alpha) * Trans(large).

Chain-based Distillation (arXiv 2605.07783), section 3. Tensor by tensor from safetensors and in fp32 whatever
the storage dtype, so that memory peaks at about the target plus one tensor of each anchor.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal, Self

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from cbd.errors import require
from cbd.models.checkpoints import BASIS, ENERGY, Checkpoint, write
from cbd.models.families import Role
from cbd.models.trans import Transfer, check_transferable, put
from cbd.recipes.models import encloses
from cbd.recipes.operators import LITERAL, Operator, Trans, patched, resolve_alpha
from cbd.recipes.specs import ModelSpec


def check_anchors(small: ModelSpec, large: ModelSpec, target: ModelSpec, *, outside: bool = False) -> None:
    """Raise `CbdError` unless the target can be made from the two anchors.

    outside: allow a target whose depth or width does not lie between theirs.
    """
    check_transferable(small, target)
    check_transferable(large, target)
    wrong = f"target {target.name} lies outside the anchors {small.name} and {large.name}"
    remedy = "choose a size between them, or allow it with --outside"
    require(outside or encloses(small, large, target), f"{wrong}: {remedy}")


def check_inside(model: ModelSpec, target: ModelSpec, *, grown: bool) -> None:
    """Raise `CbdError` unless the target can be made from one model alone, grown or cut on both axes."""
    check_transferable(model, target)
    ends = (model, target) if grown else (target, model)
    wrong = f"target {target.name} is {'smaller' if grown else 'larger'} than {model.name} on some axis"
    inside = encloses(*ends, target) and encloses(*ends, model)
    require(inside, f"{wrong}: take the other start, or another size")


def check_alike(small: Checkpoint, large: Checkpoint) -> None:
    """Raise `CbdError` where equal shapes hide a difference: other token ids, or another activation."""
    vocabularies = small.vocabulary, large.vocabulary
    wrong = "the anchors' vocabularies have one size but other tokens"
    same = None in vocabularies or vocabularies[0] == vocabularies[1]
    require(same, f"{wrong}: use anchors of one tokenizer, or a bridge")
    found = small.family.differences(small.config, large.config)
    require(not found, f"the anchors differ in {', '.join(found)}: use anchors of one kind")


class Mixer:
    """The interpolation of two opened checkpoints at `spec`; one tensor at a time.

    alphas: the full name of a tensor -> an alpha of its own, instead of `alpha`.
    """

    def __init__(
        self,
        small: Checkpoint,
        large: Checkpoint,
        spec: ModelSpec,
        alpha: float,
        operator: Operator,
        alphas: Mapping[str, float] | None = None,
    ):
        both = [moved(m, spec, operator.trans) for m in (small, large)]
        self.small, self.large = both
        self.alpha, self.alphas, self.union = alpha, alphas or {}, operator.mixing == "union"
        one, other = (
            t.epsilon(t.family.norm_epsilon(m.config)) for t, m in zip(both, (small, large), strict=True)
        )
        self.epsilon = alpha * one + (1 - alpha) * other  # the norms', mixed like the weights

    def tensor(self, role: Role, layer: int | None) -> Tensor:
        """One tensor of the target, fp32."""
        alpha = self.alphas.get(role.name.format(layer=layer), self.alpha)
        if alpha == 1.0 and not self.union:
            return self.small.tensor(role, layer)
        large = self.large.tensor(role, layer)
        if alpha == 0.0:
            return large
        exists = self.small.exists(role, layer) if self.union else []
        if exists is None:
            return large
        mixed = self.small.tensor(role, layer).mul(alpha).add_(large, alpha=1 - alpha)
        for dim, mask in enumerate(exists):
            if not mask.all():
                put(mixed, dim, ~mask, large)
        return mixed


def stitched(small: Checkpoint, spec: ModelSpec, alpha: float) -> dict[str, float]:
    """The alphas of a small model's lower blocks below a large one's others (`Operator`, "stitch").

    alpha: the small model's share of the blocks, and of a table of embeddings that is the head, too.
    """
    first, family = round(alpha * spec.layers), small.family

    def share(role: Role, layer: int | None) -> float:
        if spec.tied and role == family.roles[0]:
            return alpha
        behind = role.feeds_head or role == family.head
        place = layer if layer is not None else spec.layers - 1 if behind else 0
        return float(place < first)

    return {name: share(role, layer) for role, layer, name in family.tensors(spec)}


class Patch:
    """A small model with the large one's blocks put back.

    blocks: which, as `cbd.recipes.operators.patched` has them. What comes before the blocks is the small
    model's, and so is a head that is tied to it; what comes after them is the large one's, once its last
    block is; with all blocks back it is the large one. Raises `CbdError` unless depth alone tells the two
    apart.
    """

    def __init__(self, small: Checkpoint, large: Checkpoint, blocks: Sequence[int]):
        remedy = "mix them by another operator"
        wrong = f"{small.spec.name} and {large.spec.name} differ in more than depth: {remedy}"
        require(replace(small.spec, layers=large.spec.layers) == large.spec, wrong)
        self.small, self.large, self.blocks = small, large, blocks
        self.epsilon = small.family.norm_epsilon(small.config)

    @classmethod
    def in_order(cls, small: Checkpoint, large: Checkpoint, layers: int, operator: Operator) -> Self:
        """As many blocks put back, from the end on, as make `layers`. Not after a cut by importance."""
        cut = operator.trans.cut_layers
        require(cut != "importance", "blocks chosen by importance cannot be put back: use another cut")
        return cls(small, large, patched(small.spec.layers, large.spec.layers, layers, cut))

    def tensor(self, role: Role, layer: int | None) -> Tensor:
        """One tensor of the target, fp32."""
        source = self.blocks[-1 if layer is None else layer]
        after = role.feeds_head or role == self.large.family.head
        theirs = source >= 0 and (layer is not None or after or min(self.blocks) >= 0)
        block = source if source >= 0 else -1 - source
        model = self.large if theirs else self.small
        return model.tensor(role.name.format(layer=block)).to(torch.float32)


def initialize(
    small: str | Path | Checkpoint,
    large: str | Path | Checkpoint,
    spec: ModelSpec,
    out: Path,
    alpha: float | Literal["distance"] = "distance",
    operator: Operator = LITERAL,
    outside: bool = False,
    alphas: Mapping[str, float] | None = None,
) -> dict:
    """Write the interpolation of two checkpoints at `spec` into the existing folder `out`.

    alphas: tensors that have an alpha of their own (see `Mixer`); a patch or a stitch knows none.
    Returns what was done, as JSON (also written to `cbd.json`): alpha, operator, the three specs.
    Raises `CbdError` for anchors that do not fit together, before anything is written.
    """
    first, second = opened(small), opened(large)
    check_anchors(first.spec, second.spec, spec, outside=outside)
    check_alike(first, second)
    value = resolve_alpha(alpha, first.spec, second.spec, spec)
    if operator.mixing == "patch":
        mix: Mixer | Patch = Patch.in_order(first, second, spec.layers, operator)
    else:
        alphas = stitched(first, spec, value) if operator.mixing == "stitch" else alphas
        mix = Mixer(first, second, spec, value, operator, alphas)
    config = first.family.with_norm_epsilon(first.family.config(spec, first.config), mix.epsilon)
    _write(out, first, spec, config, mix.tensor, f"initialise {spec.name}")
    return {
        "alpha": value,
        "alpha_rule": alpha if alpha == "distance" else "given",
        "operator": asdict(operator),
        "target": asdict(spec),
        "small": asdict(first.spec),
        "large": asdict(second.spec),
    }


def moved(model: Checkpoint, spec: ModelSpec, trans: Trans) -> Transfer:
    """Trans of an open checkpoint."""
    return Transfer(model.family, model.spec, spec, trans, model.tensor, energies=model.energies)


def opened(model: str | Path | Checkpoint) -> Checkpoint:
    """The checkpoint in a folder, or one that is open already."""
    return model if isinstance(model, Checkpoint) else Checkpoint(model)


def transfer(model: str | Path | Checkpoint, spec: ModelSpec, out: Path, trans: Trans) -> None:
    """Write Trans(model) at `spec` into the existing folder `out`."""
    source = opened(model)
    cut = moved(source, spec, trans)
    epsilon = cut.epsilon(source.family.norm_epsilon(source.config))
    config = source.family.with_norm_epsilon(source.family.config(spec, source.config), epsilon)
    _write(out, source, spec, config, cut.tensor, f"Trans to {spec.name}")


def graft(model: str | Path | Checkpoint, below: str | Path | Checkpoint, first: int, out: Path) -> None:
    """Write `below` into the existing folder `out`, its blocks from `first` on those of Trans(model)."""
    stock = opened(below)
    cut = moved(opened(model), stock.spec, Trans())

    def make(role: Role, layer: int | None) -> Tensor:
        inherited = layer is not None and layer >= first
        return cut.tensor(role, layer) if inherited else stock.tensor(role.name.format(layer=layer))

    _write(out, stock, stock.spec, stock.config, make, f"graft {stock.spec.name}")


def put_back(small: Path, large: Path, blocks: Sequence[int], out: Path) -> None:
    """Write `Patch` of two checkpoints into the existing folder `out`."""
    first = opened(small)
    spec = replace(first.spec, layers=len(blocks))
    config = first.family.config(spec, first.config)
    _write(out, first, spec, config, Patch(first, opened(large), blocks).tensor, f"patch {spec.name}")


def rewrite(model: Checkpoint, out: Path) -> None:
    """Write an open checkpoint, such as one that reads its units in another order, into the folder `out`.

    With what each channel of a turned model holds of the stream, which a cut of its width has to know.
    """
    make = lambda role, layer: model.tensor(role.name.format(layer=layer))  # noqa: E731
    _write(out, model, model.spec, model.config, make, f"write {model.spec.name}")
    if model.energies:
        (out / BASIS).parent.mkdir(exist_ok=True)
        save_file({f"{ENERGY}{norm}": energy for norm, energy in model.energies.items()}, out / BASIS)


def _write(
    out: Path, like: Checkpoint, spec: ModelSpec, config: dict, make: Callable[..., Tensor], title: str
) -> None:
    """Every tensor of the target in the dtype of `like`, with progress where it takes long."""
    tensors = {}
    for role, layer, name in tqdm(list(like.family.tensors(spec)), desc=title, leave=False, delay=2):
        tensor = make(role, layer).to(like.dtype)
        # a view would write (or keep) the whole mapped file, or memory that another tensor shares
        if tensor._is_view() or not tensor.is_contiguous():
            tensor = tensor.clone(memory_format=torch.contiguous_format)
        tensors[name] = tensor
    write(out, config, tensors, tokenizer=like.folder)

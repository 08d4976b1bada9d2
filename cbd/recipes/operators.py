"""How Trans changes a shape and how two anchors are mixed: choices as data, without torch.

The paper (arXiv 2605.07783) names *subset* and *expansion* but does not specify them, so every plausible
reading is an option here, and the experiments put them side by side. `cbd.models.trans` carries them out.
"""

import math
from dataclasses import dataclass
from typing import Literal

from cbd.errors import require
from cbd.recipes.base import check_choices
from cbd.recipes.specs import ModelSpec


@dataclass(frozen=True)
class Trans:
    """Trans, the paper's change of shape: one choice for each axis and direction.

    grow_layers: "zero" adds blocks whose output projections are zero (preserves the function); "copy" repeats
        the neighbouring block (lossy); "stack" puts whole copies of the model on each other (G_stack, arXiv
        2405.15319; lossy), the last one cut off where the depth is no multiple.
    grow_width: "pad" fills each writer's new channels with the mean of its channels and corrects the norms
        (preserves); "duplicate" makes whole copies and divides the readers, the HyperCloning rule (arXiv
        2409.12903), and pads what is left over (preserves); "raw_pad" pads with zeros and leaves the norms
        alone (lossy); "tile" repeats channels cyclically, dividing the readers, also where the copies do not
        come out even (lossy then).
    cut_layers: which blocks stay: the outer ones ("ends", aligned with how "zero" grows), evenly spaced ones,
        the first ones, or those whose output projections have the largest norm.
    cut_width: which heads, neurons and channels stay: the first ("leading"), those with the largest norm of
        contribution in their old order ("importance"), or the same by falling norm ("sorted": at an unchanged
        shape a permutation, which preserves the function).
    """

    grow_layers: Literal["zero", "copy", "stack"] = "zero"
    grow_width: Literal["pad", "duplicate", "raw_pad", "tile"] = "pad"
    cut_layers: Literal["ends", "even", "prefix", "importance"] = "ends"
    cut_width: Literal["leading", "importance", "sorted"] = "leading"

    __post_init__ = check_choices

    @property
    def preserving(self) -> bool:
        """Whether growth with these choices keeps the function exactly (up to rounding)."""
        return self.grow_layers == "zero" and self.grow_width in ("pad", "duplicate")


@dataclass(frozen=True)
class Operator:
    """A Trans and a way to mix.

    mixing: "literal" applies alpha * Trans(small) + (1 - alpha) * Trans(large) to every coordinate, as the
        paper's formula reads; "union" keeps the larger anchor's weight where the small one has no unit;
        "patch" puts the larger one's blocks back into a small one that was cut from it by `trans`
        (boomerang distillation, arXiv 2510.05064; see `patched`). It has no use for alpha. "stitch" takes
        the lower blocks from the small anchor, alpha of them, and the others from the large one, as Learngene
        Pool does (arXiv 2312.05743); the embeddings, which both read, are mixed.
    """

    mixing: Literal["literal", "union", "patch", "stitch"] = "literal"
    trans: Trans = Trans()

    __post_init__ = check_choices


LITERAL, UNION = Operator("literal"), Operator("union")
LOSSY = Operator("literal", Trans(grow_layers="copy", grow_width="raw_pad"))
DUPLICATE = Operator("literal", Trans(grow_width="duplicate"))
TILE = Operator("literal", Trans(grow_layers="copy", grow_width="tile"))
PATCH = Operator("patch", Trans(cut_layers="even"))
STITCH = Operator("stitch")
OPERATORS = {"literal": LITERAL, "union": UNION, "lossy": LOSSY, "duplicate": DUPLICATE, "tile": TILE}


def kept(old: int, new: int, cut: Literal["ends", "even", "prefix"]) -> tuple[int, ...]:
    """The blocks of `old` that a cut to `new` keeps, where that follows from the numbers alone."""
    if cut == "prefix":
        return tuple(range(new))
    if cut == "even":
        return tuple(round(i * (old - 1) / (new - 1)) if new > 1 else 0 for i in range(new))
    first = math.ceil(new / 2)  # cut in the middle: aligned from both ends
    return (*range(first), *range(old - new + first, old))


def patched(small: int, large: int, target: int, cut: Literal["ends", "even", "prefix"]) -> tuple[int, ...]:
    """The blocks of a boomerang model: block i of the small model as -1 - i, block i of the large one as i.

    Each block of the small model stands for itself and for those after it that were cut away. From the end
    on, such a block is replaced by the large model's own, as the paper does for most families, until there
    are `target` of them. Where a whole group is more than is missing, its last blocks alone are put back:
    the paper makes no such size, this is ours. In the paper the large model's norm and head come with its
    last blocks (see `cbd.models.interpolation.Patch`).
    """
    if target == large > small:
        return tuple(range(large))
    places, missing = (*kept(large, small, cut), large), target - small
    found: list[int] = []
    for i in reversed(range(small)):
        own = list(range(places[i], places[i + 1]))
        whole = 0 < missing >= len(own) - 1
        group = own if whole else [-1 - i, *own[len(own) - missing :]]
        missing -= len(group) - 1
        found = group + found
    return tuple(found)


def distance_alpha(small: ModelSpec, large: ModelSpec, target: ModelSpec) -> float:
    """The rule: (N_large - N_target) / (N_large - N_small) in parameters, cut to [0, 1]; 0.94 for SLM-138M.

    arXiv 2605.07783 lets alpha follow the target's relative distance to the anchors; which distance is ours.
    """
    if large.parameters == small.parameters:
        return 1.0
    alpha = (large.parameters - target.parameters) / (large.parameters - small.parameters)
    return min(max(alpha, 0.0), 1.0)


def resolve_alpha(
    alpha: float | Literal["distance"], small: ModelSpec, large: ModelSpec, target: ModelSpec
) -> float:
    """A given alpha, checked, or the rule's. Raises `CbdError` for anything else."""
    if alpha == "distance":
        return distance_alpha(small, large, target)
    share = isinstance(alpha, (int, float)) and 0 <= alpha <= 1
    remedy = 'give a number in [0, 1], or "distance" for the parameter-distance rule'
    require(share, f"alpha is {alpha!r}: {remedy}")
    return float(alpha)

"""Which alpha: given, or by the rule. Without torch."""

from __future__ import annotations

from typing import Literal

from cbd.errors import CbdError
from cbd.specs import ModelSpec


def distance_alpha(small: ModelSpec, large: ModelSpec, target: ModelSpec) -> float:
    """The rule: (N_large - N_target) / (N_large - N_small) in parameters, cut to [0, 1]; 0.94 for SLM-138M.

    arXiv 2605.07783 lets alpha follow the target's relative distance to the two anchors; the distance is our
    reading.
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
    if not isinstance(alpha, (int, float)) or not 0 <= alpha <= 1:
        raise CbdError(
            f'alpha is {alpha!r}: give a number in [0, 1], or "distance" for the parameter-distance rule'
        )
    return float(alpha)

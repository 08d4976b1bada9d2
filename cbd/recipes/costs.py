"""What recipes cost, from the same trees that are run: FLOPs and tokens, shared parts counted once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cbd.recipes.base import Recipe


def flops(recipes: Iterable[Recipe], given: Iterable[Recipe] = ()) -> int:
    """FLOPs of making all these recipes: teacher forwards, student steps, evaluations.

    given: recipes that exist already (a public source LLM): neither they nor what made them is counted.
    """
    return sum(recipe.flops for recipe in needed(recipes, given))


def tokens(recipes: Iterable[Recipe], given: Iterable[Recipe] = ()) -> int:
    """Training tokens of making all these recipes."""
    return sum(recipe.tokens for recipe in needed(recipes, given))


def needed(recipes: Iterable[Recipe], given: Iterable[Recipe] = ()) -> list[Recipe]:
    """Every recipe that must run, each once, inputs first; the way to a `given` recipe is left out."""
    have = {recipe.key for recipe in given}
    found: dict[str, Recipe] = {}

    def visit(recipe: Recipe) -> None:
        if recipe.key in have or recipe.key in found:
            return
        for source in recipe.inputs:
            visit(source)
        found[recipe.key] = recipe

    for recipe in recipes:
        visit(recipe)
    return list(found.values())


@dataclass(frozen=True)
class Accelerator:
    """A device to quote hours for: peak in FLOP/s of its training precision, and the share that training
    reaches.
    """

    name: str
    peak: float
    utilisation: float

    def hours(self, work: float) -> float:
        return work / (self.peak * self.utilisation) / 3600


# Peaks are the makers' dense bf16 figures, and a large matrix product's where the laptop results were made.
# 40 % is a usual share on cards, and what the run records there show for models of a million parameters;
# below half a million it is less.
H100 = Accelerator("H100 SXM, bf16", 989e12, 0.40)
A100 = Accelerator("A100, bf16", 312e12, 0.40)
CPU = Accelerator("two CPU cores, fp32", 150e9, 0.40)

ACCELERATORS = {"h100": H100, "a100": A100, "cpu": CPU}

__all__ = ["ACCELERATORS", "Accelerator", "flops", "needed", "tokens"]

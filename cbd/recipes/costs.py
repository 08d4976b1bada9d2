"""What recipes cost, from the same trees that are run: FLOPs, shared parts counted once."""

from collections.abc import Iterable
from dataclasses import dataclass

from cbd.recipes.base import Recipe, walk
from cbd.recipes.models import Patched, Rotated, Source
from cbd.recipes.training import Run, Search

MODELS = (Source, Rotated, Patched, Run)  # those whose weights may stay; a search keeps what it found alone


def flops(recipes: Iterable[Recipe], given: Iterable[Recipe] = ()) -> int:
    """FLOPs of making all these recipes: teacher forwards, student steps, evaluations.

    given: recipes that exist already (a public source LLM): neither they nor what made them is counted.
    """
    have = {recipe.key for recipe in given}
    return sum(recipe.flops for recipe in walk(recipes, skip=lambda recipe: recipe.key in have).values())


def weights(recipes: Iterable[Recipe]) -> int:
    """Bytes of those of these recipes that are models and stay in the store: fp32, without their inputs.

    What a lean run throws away is left out, and so is what a training keeps while it runs.
    """
    models = (recipe for recipe in recipes if isinstance(recipe, MODELS) and not isinstance(recipe, Search))
    return sum(4 * recipe.spec.parameters for recipe in models if not recipe.light)


@dataclass(frozen=True)
class Accelerator:
    """A device to quote hours for."""

    name: str
    peak: float
    """FLOP/s of its training precision."""
    utilisation: float
    """The share of the peak that training reaches."""

    def hours(self, work: float) -> float:
        return work / (self.peak * self.utilisation) / 3600


# Peaks are the makers' dense bf16 figures, and a large matrix product's where the laptop results were made.
# 40 % is a usual share on cards, and what the run records there show for models of a million parameters;
# below half a million it is less. The 60 % of bf16 on a CPU are those of the smollm scale's chain on an AMD
# processor, two runs side by side.
H100 = Accelerator("H100 SXM, bf16", 989e12, 0.40)
A100 = Accelerator("A100, bf16", 312e12, 0.40)
CPU = Accelerator("two CPU cores, fp32", 150e9, 0.40)

CPU_BF16 = Accelerator("two CPU cores with AVX-512 bf16", 660e9, 0.6)

ACCELERATORS = {"h100": H100, "a100": A100, "cpu": CPU, "cpu-bf16": CPU_BF16}

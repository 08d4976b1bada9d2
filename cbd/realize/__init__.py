"""From recipes to their folders: store, workers, a builder for each kind of recipe, the plan.

The package can be called: `from cbd import realize` gives it, and `realize(recipe)` makes a recipe.
"""

import sys
from pathlib import Path
from types import ModuleType

from cbd.realize.run import pending, realize, realize_all
from cbd.recipes.base import Recipe


class _Realize(ModuleType):
    def __call__(self, recipe: Recipe) -> Path:
        return realize(recipe)


sys.modules[__name__].__class__ = _Realize

__all__ = ["pending", "realize", "realize_all"]

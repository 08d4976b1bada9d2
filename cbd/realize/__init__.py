"""From recipes to their folders: store, order, workers, a builder for each kind of recipe, the plan."""

from cbd.realize.order import pending
from cbd.realize.run import realize, realize_all

__all__ = ["pending", "realize", "realize_all"]

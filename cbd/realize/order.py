"""Which recipes are missing, and in which order they are made."""

from __future__ import annotations

from collections.abc import Iterable

from cbd.realize import store
from cbd.recipes.base import Recipe, walk


def pending(recipes: Iterable[Recipe]) -> list[Recipe]:
    """What is missing for these recipes, inputs first; what only finished recipes needed is left out."""
    return list(walk(recipes, skip=store.finished).values())


def urgency(todo: list[Recipe]) -> dict[str, int]:
    """FLOPs on the longest path from each recipe to the end of what is to be made."""
    users: dict[str, list[str]] = {recipe.key: [] for recipe in todo}
    for recipe in todo:
        for source in recipe.inputs:
            if source.key in users:
                users[source.key].append(recipe.key)
    longest: dict[str, int] = {}
    for recipe in reversed(todo):
        after = max((longest[user] for user in users[recipe.key]), default=0)
        longest[recipe.key] = max(recipe.flops, 1) + after
    return longest

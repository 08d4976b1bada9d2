"""Recipes: every model and measurement of the paper as a frozen dataclass that names its inputs.

A recipe does nothing. `cbd.realize` makes it, `recipes.costs` counts it, and `Recipe.key` names it: a hash of
the recipe's own fields, its inputs' keys and the version of the step that makes it. No torch.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args, get_origin

from cbd.errors import require


@dataclass(frozen=True)
class Recipe:
    """What every recipe shares.

    `version` is raised by hand in a subclass when the step's *result* changes, so that moving code keeps
    finished work and changing its meaning does not.
    """

    version: ClassVar[int] = 1
    light: ClassVar[bool] = False
    """Whether its weights need not be kept: a step on the way to a measurement, made again when asked for."""

    @cached_property
    def key(self) -> str:
        """Twenty hexadecimal digits that name this recipe's content, never its files' times or places."""
        content = {"recipe": type(self).__name__, "version": self.version, "fields": _content(self)}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    @cached_property
    def inputs(self) -> "tuple[Recipe, ...]":
        """The recipes that must be finished before this one, in the order of the fields."""
        return tuple(_recipes_in(self))

    @property
    def flops(self) -> int:
        """What this step itself costs, without its inputs (`costs.flops` counts the whole tree)."""
        return 0

    @property
    def tokens(self) -> int:
        """Training tokens that this step itself consumes."""
        return 0

    def describe(self) -> dict[str, Any]:
        """This step's own fields as JSON, its inputs by key, defaults left out."""
        return {"recipe": type(self).__name__, "version": self.version} | _content(self, places=True)

    def tree(self) -> dict[str, Any]:
        """Everything that the recipe is made from, itself last: key -> description. Its provenance."""
        return {key: recipe.describe() for key, recipe in walk([self]).items()}


def _content(item: Any, places: bool = False) -> Any:
    """A value as the key sees it: an input by its key, fields marked `key=False` left out (unless `places`).

    So is a field at its default: an option added later keeps the work that was finished without it.
    """
    if is_dataclass(item):
        kept = [f for f in fields(item) if places or f.metadata.get("key", True)]
        values = {f.name: getattr(item, f.name) for f in kept if getattr(item, f.name) != f.default}
        return {name: _named(value, places) for name, value in values.items()}
    return [_named(value, places) for value in item] if isinstance(item, (tuple, list)) else item


def _named(value: Any, places: bool) -> Any:
    return value.key if isinstance(value, Recipe) else _content(value, places)


def check_choices(item: Any) -> None:
    """Raise `CbdError` when a dataclass' field that is a `Literal` has a value that it does not allow."""
    for f in fields(item):
        if get_origin(f.type) is Literal:
            value, allowed = getattr(item, f.name), get_args(f.type)
            require(value in allowed, f"{f.name} is {value!r}; choose one of {', '.join(map(str, allowed))}")


def _recipes_in(item: Any) -> Iterator[Recipe]:
    values = [getattr(item, f.name) for f in fields(item)] if is_dataclass(item) else item
    for value in values:
        if isinstance(value, Recipe):
            yield value
        elif is_dataclass(value) or isinstance(value, (tuple, list)):
            yield from _recipes_in(value)


def walk(recipes: Iterable[Recipe], skip: Callable[[Recipe], bool] = lambda _: False) -> dict[str, Recipe]:
    """All recipes that these need, each once, inputs before what uses them, by key.

    skip: says of a recipe that neither it nor what it alone is made from is needed.
    """
    found: dict[str, Recipe] = {}

    def visit(recipe: Recipe) -> None:
        if recipe.key not in found and not skip(recipe):
            for source in recipe.inputs:
                visit(source)
            found[recipe.key] = recipe

    for recipe in recipes:
        visit(recipe)
    return found

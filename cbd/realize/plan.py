"""`cbd plan`: what an experiment needs, before anything runs. Without torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from cbd.errors import si
from cbd.realize import store
from cbd.recipes import costs
from cbd.recipes.base import Recipe, walk


@dataclass
class Group:
    """Recipes of one kind, size and budget: a line of the plan."""

    number: int
    kind: str
    spec: str
    tokens: int
    recipes: list[Recipe] = field(default_factory=list)
    needs: set[int] = field(default_factory=set)

    @property
    def flops(self) -> int:
        return sum(recipe.flops for recipe in self.recipes)

    @property
    def done(self) -> int:
        return sum(store.finished(recipe) for recipe in self.recipes)


def grouped(recipes: Iterable[Recipe]) -> list[Group]:
    """The tree of these recipes, shared parts once, inputs first; equal steps (seeds, alphas) grouped."""
    groups: dict[tuple, Group] = {}
    number_of: dict[str, int] = {}
    for recipe in walk(recipes).values():
        spec = recipe.spec.name if hasattr(recipe, "spec") else ""
        needs = {number_of[source.key] for source in recipe.inputs}
        signature = (type(recipe).__name__, spec, recipe.tokens, frozenset(needs))
        group = groups.setdefault(signature, Group(len(groups) + 1, signature[0], spec, recipe.tokens))
        group.recipes.append(recipe)
        group.needs |= needs
        number_of[recipe.key] = group.number
    return list(groups.values())


def overview(designs: Mapping[str, Iterable[Recipe]], accelerator: costs.Accelerator) -> str:
    """A plan on one screen: a line an experiment with what it needs and costs, then the totals.

    designs: experiment -> its recipes. A recipe that several need is counted at the first of them; one that
    needs none has no line.
    """
    columns = ("{:<20}", "{:>7}", "{:>7}", "{:>18}", "{:>10}", "{:>9}", "{:>11}")
    lines = [_line(columns, ("experiment", "steps", "runs", "tokens", "FLOPs", "hours", "done"))]
    counted: dict[str, Recipe] = {}
    shared = 0
    for name, recipes in designs.items():
        needed = walk(recipes)
        own = [recipe for key, recipe in needed.items() if key not in counted]
        shared += len(needed) - len(own)
        counted |= needed
        if needed:
            tokens, work = sum(recipe.tokens for recipe in own), sum(recipe.flops for recipe in own)
            runs = sum(recipe.tokens > 0 for recipe in own)
            done = f"{sum(map(store.finished, own))}/{len(own)}"
            hours = _hours(accelerator.hours(work))
            lines.append(_line(columns, (name, len(own), runs, f"{tokens:,}", si(work, " "), hours, done)))
    if shared:
        lines.append("(what several experiments need is counted at the first of them)")
    return "\n".join([*lines, totals(counted.values(), accelerator)])


def render(recipes: list[Recipe], accelerator: costs.Accelerator, done: bool = True) -> str:
    """The plan as a tree: a line a group of equal steps with the groups that it needs, then the totals.

    done: also say what the store holds already and what is left to do.
    """
    columns = ("{:>4}  ", "{:<13}", "{:<10}", "{:>5}  ", "{:>14}  ", "{:>9}", "{:>9}", "{:>9}", "  {}")
    finished = "done" if done else None
    lines = [
        _line(columns, ("#", "step", "size", "runs", "tokens each", "FLOPs", "hours", finished, "needs"))
    ]
    for g in grouped(recipes):
        needs = ", ".join(f"#{n}" for n in sorted(g.needs))
        finished = f"{g.done}/{len(g.recipes)}" if done else None
        tokens = f"{g.tokens:,}" if g.tokens else "-"
        work, hours = (si(g.flops, " "), _hours(accelerator.hours(g.flops))) if g.flops else ("-", "-")
        line = (g.number, g.kind, g.spec, len(g.recipes), tokens, work, hours, finished, needs)
        lines.append(_line(columns, line))
    return "\n".join([*lines, totals(walk(recipes).values(), accelerator, done)])


def totals(recipes: Collection[Recipe], accelerator: costs.Accelerator, done: bool = True) -> str:
    """What these recipes are and cost in all, as a sentence."""
    total = sum(recipe.flops for recipe in recipes)
    left = sum(recipe.flops for recipe in recipes if not (done and store.finished(recipe)))
    trained = sum(recipe.tokens for recipe in recipes)
    return (
        f"in all {len(recipes)} recipes, {trained:,} training tokens, {si(total, ' ')} FLOPs"
        + (f", of which {si(left, ' ')} are left" if done else "")
        + f": {_hours(accelerator.hours(left))} h on {accelerator.name} at {accelerator.utilisation:.0%} of "
        "its peak"
    )


def _line(columns: tuple[str, ...], values: tuple) -> str:
    """The columns of a line; one whose value is None is left out."""
    cells = zip(columns, values, strict=True)
    return "".join(column.format(value) for column, value in cells if value is not None).rstrip()


def _hours(hours: float) -> str:
    return "0" if not hours else f"{hours:,.1f}" if hours >= 0.05 else "< 0.1"

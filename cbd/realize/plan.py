"""`cbd plan`: what an experiment needs, before anything runs. Without torch."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from cbd.errors import si
from cbd.realize import store
from cbd.recipes import costs
from cbd.recipes.base import Recipe, walk


@dataclass(frozen=True)
class Group:
    """Recipes of one kind, size and budget that need the same groups: a line of the plan."""

    number: int
    needs: frozenset[int]
    recipes: list[Recipe] = field(default_factory=list)

    @property
    def flops(self) -> int:
        return sum(recipe.flops for recipe in self.recipes)


def grouped(recipes: Iterable[Recipe]) -> list[Group]:
    """The tree of these recipes, shared parts once, inputs first; equal steps (seeds, alphas) grouped."""
    groups: dict[tuple, Group] = {}
    number_of: dict[str, int] = {}
    for recipe in walk(recipes).values():
        needs = frozenset(number_of[source.key] for source in recipe.inputs)
        signature = (type(recipe), _size(recipe), recipe.tokens, needs)
        group = groups.setdefault(signature, Group(len(groups) + 1, needs))
        group.recipes.append(recipe)
        number_of[recipe.key] = group.number
    return list(groups.values())


def _size(recipe: Recipe) -> str:
    return recipe.spec.name if hasattr(recipe, "spec") else ""


def overview(designs: Mapping[str, Iterable[Recipe]], accelerator: costs.Accelerator) -> str:
    """A plan on one screen: a line an experiment with what it needs and costs, then the totals.

    designs: experiment -> its recipes. A recipe that several need is counted at the first of them; one that
    needs none has no line.
    """
    line = "{:<20}{:>7}{:>7}{:>18}{:>10}{:>9}{:>11}"
    lines = [line.format("experiment", "steps", "runs", "tokens", "FLOPs", "hours", "done")]
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
            lines.append(line.format(name, len(own), runs, f"{tokens:,}", si(work, " "), hours, done))
    if shared:
        lines.append("(what several experiments need is counted at the first of them)")
    return "\n".join([*lines, totals(counted.values(), accelerator)])


def render(recipes: list[Recipe], accelerator: costs.Accelerator, done: bool = True) -> str:
    """The plan as a tree: a line a group of equal steps with the groups that it needs, then the totals.

    done: also say what the store holds already and what is left to do.
    """
    line = "{:>4}  {:<13}{:<10}{:>5}  {:>14}  {:>9}{:>9}" + "{:>9}" * done + "  {}"
    finished = ["done"] * done
    lines = [line.format("#", "step", "size", "runs", "tokens each", "FLOPs", "hours", *finished, "needs")]
    for g in grouped(recipes):
        first, runs = g.recipes[0], len(g.recipes)
        needs = ", ".join(f"#{n}" for n in sorted(g.needs))
        finished = [f"{sum(map(store.finished, g.recipes))}/{runs}"] * done
        tokens = f"{first.tokens:,}" if first.tokens else "-"
        work, hours = (si(g.flops, " "), _hours(accelerator.hours(g.flops))) if g.flops else ("-", "-")
        said = (g.number, type(first).__name__, _size(first), runs, tokens, work, hours, *finished, needs)
        lines.append(line.format(*said).rstrip())
    return "\n".join([*lines, totals(walk(recipes).values(), accelerator, done)])


def totals(recipes: Collection[Recipe], accelerator: costs.Accelerator, done: bool = True) -> str:
    """What these recipes are and cost in all, as a sentence."""
    total = sum(recipe.flops for recipe in recipes)
    left = sum(recipe.flops for recipe in recipes if not (done and store.finished(recipe)))
    trained = sum(recipe.tokens for recipe in recipes)
    time = f"{_hours(accelerator.hours(left))} h on {accelerator.name} at {accelerator.utilisation:.0%}"
    rest = f", of which {si(left, ' ')} are left" if done else ""
    work = f"{si(total, ' ')} FLOPs{rest}"
    return f"in all {len(recipes)} recipes, {trained:,} training tokens, {work}: {time} of its peak"


def _hours(hours: float) -> str:
    return "0" if not hours else f"{hours:,.1f}" if hours >= 0.05 else "< 0.1"

"""`cbd plan`: what an experiment needs, before anything runs. Without torch."""

from collections.abc import Collection, Iterable, Mapping

from cbd.errors import si
from cbd.realize import store
from cbd.recipes import costs
from cbd.recipes.base import Recipe, walk

# what equal steps share: kind, size, tokens, and the numbers of the groups that they need
Kind = tuple[str, str, int, tuple[int, ...]]


def grouped(recipes: Iterable[Recipe]) -> dict[Kind, list[Recipe]]:
    """The tree of these recipes, shared parts once, inputs first; equal steps (seeds, alphas) grouped.

    A group's number is its place, from 1.
    """
    groups: dict[Kind, list[Recipe]] = {}
    numbers: dict[Kind, int] = {}
    number_of: dict[str, int] = {}
    for recipe in walk(recipes).values():
        needs = {number_of[source.key] for source in recipe.inputs}
        size = recipe.spec.name if hasattr(recipe, "spec") else ""
        kind = (type(recipe).__name__, size, recipe.tokens, tuple(sorted(needs)))
        groups.setdefault(kind, []).append(recipe)
        number_of[recipe.key] = numbers.setdefault(kind, len(groups))
    return groups


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
            done = f"{sum(map(store.recorded, own))}/{len(own)}"
            hours = short(accelerator.hours(work))
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
    for number, ((kind, size, tokens, needs), runs) in enumerate(grouped(recipes).items(), start=1):
        finished = [f"{sum(map(store.recorded, runs))}/{len(runs)}"] * done
        work = sum(recipe.flops for recipe in runs)
        cost = (si(work, " "), short(accelerator.hours(work))) if work else ("-", "-")
        each, needed = f"{tokens:,}" if tokens else "-", ", ".join(f"#{n}" for n in needs)
        said = (number, kind, size, len(runs), each, *cost, *finished, needed)
        lines.append(line.format(*said).rstrip())
    return "\n".join([*lines, totals(walk(recipes).values(), accelerator, done)])


def totals(recipes: Collection[Recipe], accelerator: costs.Accelerator, done: bool = True) -> str:
    """What these recipes are and cost in all, as a sentence."""
    total = sum(recipe.flops for recipe in recipes)
    left = sum(recipe.flops for recipe in recipes if not (done and store.finished(recipe)))
    trained = sum(recipe.tokens for recipe in recipes)
    time = f"{short(accelerator.hours(left))} h on {accelerator.name} at {accelerator.utilisation:.0%}"
    rest = f", of which {si(left, ' ')} are left" if done else ""
    work = f"{si(total, ' ')} FLOPs{rest}"
    said = f"in all {len(recipes)} recipes, {trained:,} training tokens, {work}: {time} of its peak"
    return f"{said}; the weights that are kept take {short(costs.weights(recipes) / 1e9)} GB"


def short(number: float) -> str:
    """A number of hours or gigabytes, to one decimal."""
    return "0" if not number else f"{number:,.1f}" if number >= 0.05 else "< 0.1"

"""E16: what N sizes cost by training from scratch, by direct distillation, and by the chain.

And E14: which sizes between two anchors a method can make at all. Both are counted, nothing is run.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pandas as pd

from cbd.experiments.run import Design, frame_of
from cbd.experiments.scales.base import Scale
from cbd.experiments.starts import chain, from_random, given, initialised, source
from cbd.recipes import costs
from cbd.recipes.base import Recipe
from cbd.recipes.models import Random
from cbd.recipes.specs import ModelSpec
from cbd.recipes.training import Anchor, Trained
from cbd.report.names import CBD, CHAIN, CLONED, DIRECT, REACH, SCRATCH, STACKED


def trees(scale: Scale, seed: int, specs: tuple[ModelSpec, ...]) -> dict[str, list[Recipe]]:
    """The recipes of every target, by method: the trees that the other experiments run."""
    llm, knowledge = source(scale, seed), chain(scale, seed)
    scratch = replace(scale.recovery, tokens=scale.scratch, seed=seed, lr=scale.tuning.random_lr)
    distil = from_random(scale, replace(scale.anchor_training, seed=seed))
    return {
        SCRATCH: [Trained(Random(spec, scale.corpus, seed), scale.corpus, scratch) for spec in specs],
        DIRECT: [Anchor.from_random(llm, spec, scale.corpus, distil, scale.loss) for spec in specs],
        CHAIN: [initialised(knowledge, spec) for spec in specs],
    }


def cumulative(scale: Scale, seed: int = 0) -> pd.DataFrame:
    """FLOPs of the first N targets of the ladder, N = 1, 2, ...; source LLM and text are given."""
    rows, free = [], given(scale, seed)
    for method, recipes in trees(scale, seed, scale.ladder).items():
        for n in range(1, len(recipes) + 1):
            work = costs.flops(recipes[:n], free)
            row = {"method": method, "family": scale.source_spec.family, "sizes": n, "flops": work}
            row |= {"metric": "cumulative_flops", "value": float(work), "recipe": recipes[n - 1].key}
            rows.append(row | {"seed": seed})
    return frame_of("paper_map", rows)


def reach(scale: Scale, seed: int = 0) -> Iterator[dict]:
    """Which share of the sizes between two neighbours of the chain each method makes exactly (E14).

    The sizes: every depth, and every width of whole heads, from the small model's to the large one's, but for
    the two themselves. HyperCloning (arXiv 2409.12903) multiplies a model's width, stacking (G_stack, arXiv
    2405.15319) its depth; what they make here begins at the small one, as nothing below the large one can.
    """
    for large, small in pairwise((scale.source_spec, *scale.anchor_specs)):
        depths, step = range(small.layers, large.layers + 1), small.head_dim * small.group
        widths = range(small.width, large.width + 1, step)
        sizes = {(n, w) for n in depths for w in widths} - {(m.layers, m.width) for m in (small, large)}
        both = {(n, w) for n, w in sizes if n % small.layers == w % small.width == 0}
        made = {
            CBD: sizes,
            CLONED: {(n, w) for n, w in both if n == small.layers},
            STACKED: {(n, w) for n, w in both if w == small.width},
            f"{CLONED} and {STACKED}": both,
        }
        for method, those in made.items() if sizes else ():
            row = {"method": method, "family": small.family, "spec": f"{small.name} to {large.name}"}
            row |= {"sizes": len(sizes), "metric": REACH, "value": len(those) / len(sizes)}
            yield row | {"seed": seed}


def counted(scale: Scale, seed: int = 0) -> pd.DataFrame:
    """The whole table."""
    return frame_of("paper_map", [*cumulative(scale, seed).to_dict("records"), *reach(scale, seed)])


def design(scale: Scale, seed: int) -> Design:
    """Nothing is measured: the rows are derived from the trees."""
    return Design((), lambda frame, designs, items: counted(scale, min(designs)).to_dict("records"))

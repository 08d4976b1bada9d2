"""E16: what N sizes cost by training from scratch, by direct distillation, and by the chain."""

from dataclasses import replace

import pandas as pd

from cbd.experiments.run import Design, frame_of
from cbd.experiments.scales.base import Scale
from cbd.experiments.starts import chain, from_random, given, initialised, source
from cbd.recipes import costs
from cbd.recipes.base import Recipe
from cbd.recipes.models import Random
from cbd.recipes.specs import ModelSpec
from cbd.recipes.training import Anchor, Trained
from cbd.report.names import CHAIN, DIRECT, SCRATCH


def trees(scale: Scale, seed: int, specs: tuple[ModelSpec, ...]) -> dict[str, list[Recipe]]:
    """The recipes of every target, by method: the trees that the other experiments run."""
    llm, knowledge = source(scale, seed), chain(scale, seed)
    lr = scale.tuning.random_lr if scale.tuning else scale.random_rates[0]
    scratch = replace(scale.recovery, tokens=scale.scratch, seed=seed, lr=lr)
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


def design(scale: Scale, seed: int) -> Design:
    """Nothing is measured: the rows are derived from the trees."""
    return Design((), lambda frame, designs, items: cumulative(scale, min(designs)).to_dict("records"))

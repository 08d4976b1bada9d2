"""Where in its depth a model decides: the scores of its first blocks alone, for the source and its anchors.

The states after a block, read by the model's own last norm and head, are what a model of its first blocks
says. After "Understanding Performance Collapse in Layer-Pruned LLMs via Decision Representation Transitions"
(arXiv 2605.07271): the decision margin, and how often each option is taken, tell a silent phase from a
decisive one.
"""

from dataclasses import replace

from cbd.errors import require
from cbd.experiments.run import Design, Measurement
from cbd.experiments.scales.base import Scale
from cbd.experiments.starts import chain
from cbd.recipes.base import Recipe
from cbd.recipes.evaluation import Downstream
from cbd.recipes.models import Transferred
from cbd.recipes.operators import Trans
from cbd.report.names import FIRST_BLOCKS


def runs_at(scale: Scale) -> bool:
    """Whether the scale says after which blocks."""
    return scale.decisions is not None


def first_blocks(model: Recipe, share: float) -> Recipe:
    """The model without its last blocks; at least one stays."""
    fewer = replace(model.spec, layers=max(round(share * model.spec.layers), 1))
    return model if fewer == model.spec else Transferred(model, fewer, Trans(cut_layers="prefix"))


def design(scale: Scale, seed: int) -> Design:
    """Every model of the chain, cut after each share of its blocks, on tasks with options."""
    wrong = f"the scale {scale.name} does not say after which blocks models are asked"
    require(runs_at(scale), f"{wrong}: try --scale smoke")
    dial, found = scale.decisions, []
    asked = {"items": scale.evaluation.items, "limit": dial.limit, "precision": scale.recovery.precision}
    for model in chain(scale, seed).models:
        for share in dial.shares:
            scored = Downstream(first_blocks(model, share), dial.tasks, **asked)
            labels = {"source": model.spec.name, "stage": f"{share:g}"}
            found.append(Measurement(scored, FIRST_BLOCKS, labels=labels))
    return Design(tuple(found))

"""Beyond the paper: one nested run, whose slices are all sizes, instead of a chain, at its compute."""

from dataclasses import replace

from cbd.errors import require
from cbd.experiments.run import Design, Measurement
from cbd.experiments.scales.base import Scale
from cbd.experiments.starts import chain, initialised, recovery, stage
from cbd.recipes.models import Sorted, Transferred
from cbd.recipes.specs import ModelSpec
from cbd.recipes.training import Nested
from cbd.report.names import CBD, NESTED, STEPWISE

# Times the anchors' rate. Searched for at the laptop scale, seed 0, by the mean loss over all sizes: 4.450 at
# 1, 4.358 at 2, 4.321 at 4, 4.392 at 8, 4.516 at 16.
RATE = 4.0


def runs_at(scale: Scale) -> bool:
    """Whether the scale compares it."""
    return scale.nested


def sizes(scale: Scale) -> tuple[ModelSpec, ...]:
    """All that the nested run trains, from small to large: the anchors, and every size between them."""
    served = {*scale.anchor_specs, *scale.ladder, *scale.convergence_targets}
    return tuple(sorted(served, key=lambda spec: (spec.parameters, spec.name)))


def nested(scale: Scale, seed: int) -> Nested:
    """The run: from the source, sorted as for the first anchor, with the anchors' loss and FLOPs."""
    llm, *anchors = chain(scale, seed, "inherited").models
    given = replace(scale.anchor_training, lr=RATE * scale.anchor_training.lr)
    training = replace(stage(scale, given, seed, 0), evaluations=4)  # each point of its curve looks at all
    run = Nested(llm, Sorted(llm), sizes(scale), scale.corpus, training, scale.loss)
    budget = sum(anchor.tokens * anchor.flops_per_token for anchor in anchors)
    return replace(run, training=replace(training, tokens=budget // run.flops_per_token))


def design(scale: Scale, seed: int) -> Design:
    """Every anchor's size from both, and the sizes between them, untrained and after recovery."""
    require(runs_at(scale), f"the scale {scale.name} has no nested run: try --scale smoke")
    knowledge, found, budget = chain(scale, seed, "inherited"), [], scale.budgets[0]
    cut = lambda i, spec: Transferred(nested(scale, i), spec)  # noqa: E731
    for anchor in knowledge.models[1:]:
        for method, model in ((STEPWISE, anchor), (NESTED, cut(seed, anchor.spec))):
            found.append(Measurement(scale.evaluated(model), method, "final_loss"))
    for spec in scale.convergence_targets:
        begin = {CBD: (initialised(knowledge, spec), None), NESTED: (cut(seed, spec), cut(0, spec))}
        for method, (start, first) in begin.items():
            run = recovery(scale, seed, spec, method, start, budget, first)
            found.append(Measurement(run, method, labels={"budget": budget}))
    return Design(tuple(found))

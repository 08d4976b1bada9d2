"""Alphas learned on a few tokens, for the model, each block or each tensor, against the rule's (Q6)."""

from dataclasses import replace

from cbd.errors import require
from cbd.experiments.alpha import by_rule
from cbd.experiments.run import Design, Measurement
from cbd.experiments.scales.base import Scale
from cbd.experiments.starts import chain, recovery, stage, starts
from cbd.experiments.tasks import chosen, elsewhere
from cbd.recipes.specs import ModelSpec
from cbd.recipes.training import Fitted
from cbd.report.names import CBD, FITTED

BESIDE = ("union", "grown", "cut")


def runs_at(scale: Scale) -> bool:
    """Whether the scale says on what alphas are learned."""
    return scale.fitting is not None


def fitted(scale: Scale, seed: int, spec: ModelSpec) -> dict[str, Fitted]:
    """Method -> the mixture with learned alphas; the text is the first of the stream that recovery reads."""
    small, large = chain(scale, seed).pair_around(spec)
    training = stage(scale, scale.fitting, seed, len(scale.anchors))
    return {name: Fitted(small, large, spec, scale.corpus, training, per) for per, name in FITTED.items()}


def design(scale: Scale, seed: int) -> Design:
    """Every start, untrained and after recovery: equal tokens in all, those of the alphas included.

    A mixture recovers at the rate and warm-up found for CBD, whatever its alphas. Where the scale has other
    texts, losses on them, of the untrained with a budget of 0. Tasks after recovery, where `initialise`
    scores them, too.
    """
    wrong = f"the scale {scale.name} learns no alphas"
    require(runs_at(scale), f"{wrong}: try --scale smoke")
    found, budget = [], scale.budgets[0]
    for spec in scale.convergence_targets:
        plain = starts(scale, seed, spec, BESIDE)
        runs = {name: recovery(scale, seed, spec, name, start, budget) for name, start in plain.items()}
        for name, start in fitted(scale, seed, spec).items():
            whole = recovery(scale, seed, spec, CBD, start, budget)
            skip = whole.training.skip + start.training.steps
            rest = replace(whole.training, tokens=budget - start.tokens, skip=skip)
            runs[name] = replace(whole, training=rest)
        for name, run in runs.items():
            found.append(Measurement(run, name, labels={"budget": budget}))
            found += elsewhere(scale, run, name, budget) + elsewhere(scale, run.start, name, 0)
            scores = chosen(scale, run) if scale.benchmarked else []
            found += [Measurement(score, name, labels={"budget": budget}) for score in scores]
    return Design(tuple(found), by_rule)

"""Q5: other losses than reverse KL for two steps of the chain."""

from collections.abc import Iterator
from dataclasses import replace

from cbd.errors import require
from cbd.experiments.run import Design, Measurement
from cbd.experiments.scales.base import Scale
from cbd.experiments.starts import chain, stage
from cbd.recipes.base import Recipe
from cbd.recipes.data import Written
from cbd.recipes.models import Generated, Sorted, Transferred
from cbd.recipes.onpolicy import MiniLLM, OnPolicy
from cbd.recipes.specs import ModelSpec
from cbd.recipes.training import Anchor, Loss, Trained, Training
from cbd.report.names import (
    ALONE,
    ATTENTION,
    FORWARD,
    JSD,
    MINILLM,
    ON_POLICY,
    PURE,
    REVERSE,
    SEQKD,
    STATES,
    rate_named,
)


def runs_at(scale: Scale) -> bool:
    """Whether the scale compares them."""
    return scale.distillers is not None


def losses(scale: Scale) -> dict[str, Loss]:
    """Objective -> loss, all but the paper's own with the chain's share of cross-entropy.

    "States" adds the cosine distance to the teacher's states in the channels that the student inherited,
    "attention" the divergence from where its heads look.
    """
    share = scale.loss.cross_entropy
    found = {
        REVERSE: Loss("reverse_kl", share),
        PURE: Loss("reverse_kl", 0.0),
        FORWARD: Loss("forward_kl", share),
        JSD: Loss("jsd", share),
        STATES: Loss("reverse_kl", share, alignment=1.0),
    }
    more = {ATTENTION: Loss("reverse_kl", share, attention=1.0)} if scale.distillers.every else {}
    return found | more


def students(scale: Scale, seed: int) -> Iterator[tuple[Recipe, ModelSpec, int]]:
    """Teacher, size and stage of the steps that are compared: the chain's second and its last."""
    models = chain(scale, seed, "inherited").models
    for number in sorted({1, len(scale.anchors) - 1}):
        yield models[number], scale.anchor_specs[number], number


def taught(scale: Scale, teacher: Recipe, spec: ModelSpec, training: Training) -> dict[str, Recipe]:
    """Objective -> the student, which always starts from the same slices of its teacher.

    SeqKD trains on text that the teacher wrote (arXiv 1606.07947, sampled instead of searched by beams).
    """
    basis, corpus = Sorted(teacher), scale.corpus
    start = Transferred(basis, spec)
    written = Written(Generated(teacher, corpus, scale.distillers.sampling), corpus)
    found: dict[str, Recipe] = {
        ALONE: Trained(start, corpus, training),
        SEQKD: Trained(start, written, training),
    }
    for method, loss in losses(scale).items():
        found[method] = Anchor(basis if loss.inner else teacher, start, corpus, training, loss)
    return found | (on_policy(scale, teacher, start, training) if scale.distillers.every else {})


def on_policy(scale: Scale, teacher: Recipe, start: Recipe, training: Training) -> dict[str, Recipe]:
    """Objective -> the student, which writes its own text in the second half of its tokens.

    In the first it learns by the chain's own loss: slices alone cannot write, and both papers begin at a
    student that can.
    """
    half = replace(training, tokens=training.tokens // 2)
    able = Anchor(teacher, start, scale.corpus, half, scale.loss)
    rest = replace(half, skip=half.skip + half.steps)
    common, prompt = (teacher, able, scale.corpus, rest), scale.distillers.sampling.prompt
    return {ON_POLICY: OnPolicy(*common, prompt=prompt), MINILLM: MiniLLM(*common, prompt=prompt)}


def design(scale: Scale, seed: int) -> Design:
    """Every objective at every rate, on the same batches, by the held-out loss at the end."""
    require(runs_at(scale), f"the scale {scale.name} compares no objectives: try --scale smoke")
    found = []
    for teacher, spec, number in students(scale, seed):
        training = stage(scale, scale.anchor_training, seed, number)
        for times in scale.distillers.rates:
            at = replace(training, lr=times * training.lr)
            for method, student in taught(scale, teacher, spec, at).items():
                labels = {"source": teacher.spec.name, "stage": rate_named(times)}
                found.append(Measurement(scale.evaluated(student), method, "final_loss", labels))
    return Design(tuple(found))

"""E2, E7, Q9: one chain in each family: does the curve over alpha keep its shape beyond GPT-2?"""

from collections.abc import Iterable
from dataclasses import replace

from cbd.errors import require
from cbd.experiments.alpha import by_rule, over_alpha
from cbd.experiments.run import Design, Measurement
from cbd.experiments.scales.base import Families, Scale, family_shapes
from cbd.experiments.starts import inherited
from cbd.recipes.data import Corpus
from cbd.recipes.models import Chain, Random
from cbd.recipes.specs import ModelSpec
from cbd.recipes.training import Trained
from cbd.report.names import RANDOM


def dial_of(scale: Scale) -> Families:
    """The scale's small chains. Raises `CbdError` where it trains none."""
    remedy = "`cbd run public_checkpoints` compares those that exist"
    require(scale.families, f"scale {scale.name} trains no chain in every family: {remedy}")
    return scale.families


def corpus_of(scale: Scale, family: str) -> Corpus:
    """The scale's text in the family's vocabulary."""
    return replace(scale.corpus, vocab_size=dict(dial_of(scale).vocabularies)[family])


def _shapes(scale: Scale, family: str, sizes: Iterable[tuple[int, int]]) -> list[ModelSpec]:
    shape = family_shapes(family, corpus_of(scale, family).vocab_size, scale.source_spec.positions)
    return [shape(*size) for size in sizes]


def targets(scale: Scale, family: str) -> list[ModelSpec]:
    """The sizes between the family's anchors that are interpolated."""
    return _shapes(scale, family, dial_of(scale).targets)


def chain(scale: Scale, seed: int, family: str, basis: str = "sorted") -> Chain:
    """A source trained here in the family, and anchors inherited from it step by step (see `inherited`)."""
    dial, corpus = dial_of(scale), corpus_of(scale, family)
    top, *rest = _shapes(scale, family, dial.sizes)
    source = Trained(Random(top, corpus, seed), corpus, replace(dial.source_training, seed=seed))
    return inherited(source, rest, corpus, replace(dial.anchor_training, seed=seed), scale.loss, basis)


def runs_at(scale: Scale) -> bool:
    """Whether `cbd run all` runs this at a scale: where small chains are trained."""
    return scale.families is not None


def design(scale: Scale, seed: int) -> Design:
    """Bits per byte of each family's models, and of every target over alpha by every reading."""
    found = []
    for family, _ in dial_of(scale).vocabularies:
        knowledge = chain(scale, seed, family)
        here = replace(scale, corpus=corpus_of(scale, family))
        source, *anchors = map(here.evaluated, knowledge.models)
        found += [Measurement(source, "source"), *(Measurement(anchor, "anchor") for anchor in anchors)]
        for spec in targets(scale, family):
            found.append(Measurement(here.evaluated(Random(spec, here.corpus, seed)), RANDOM))
            found += over_alpha(knowledge.pair_around(spec), spec, scale, here.evaluated, "CBD")
    return Design(tuple(found), by_rule)

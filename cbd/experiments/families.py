"""E2, E7, Q9: one chain in each family: does the curve over alpha keep its shape beyond GPT-2?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from cbd.errors import CbdError
from cbd.experiments.alpha import readings, rule
from cbd.experiments.run import Design, Measurement
from cbd.experiments.scales.base import Families, Scale, family_shapes
from cbd.experiments.starts import inherited
from cbd.recipes.data import Corpus
from cbd.recipes.evaluation import Evaluated
from cbd.recipes.models import Chain, Random
from cbd.recipes.specs import ModelSpec
from cbd.recipes.training import Trained
from cbd.report.names import RANDOM, SOURCE


def _dial(scale: Scale) -> Families:
    if scale.families is None:
        raise CbdError(
            f"scale {scale.name} trains no chain in every family: "
            f"`cbd run public_checkpoints` compares those that exist"
        )
    return scale.families


def corpus_of(scale: Scale, family: str) -> Corpus:
    """The scale's text in the family's vocabulary."""
    return replace(scale.corpus, vocab_size=dict(_dial(scale).vocabularies)[family])


def targets(scale: Scale, family: str) -> list[ModelSpec]:
    """The sizes between the family's anchors that are interpolated."""
    shape = family_shapes(family, corpus_of(scale, family).vocab_size, scale.source_spec.positions)
    return [shape(*size) for size in _dial(scale).targets]


def chain(scale: Scale, seed: int, family: str) -> Chain:
    """A source trained here in the family, and anchors inherited from it step by step."""
    dial, corpus = _dial(scale), corpus_of(scale, family)
    shape = family_shapes(family, corpus.vocab_size, scale.source_spec.positions)
    top, *rest = (shape(*size) for size in dial.sizes)
    source = Trained(Random(top, corpus, seed), corpus, replace(dial.source_training, seed=seed))
    return inherited(source, rest, corpus, replace(dial.anchor_training, seed=seed), scale.loss)


def runs_at(scale: Scale) -> bool:
    """Whether `cbd run all` runs this at a scale: where small chains are trained."""
    return scale.families is not None


def design(scale: Scale, seed: int) -> Design:
    """Bits per byte of each family's models, and of every target over alpha by every reading."""
    found = []
    for family, _ in _dial(scale).vocabularies:
        corpus, models = corpus_of(scale, family), chain(scale, seed, family)
        shown = [(model, "anchor" if i else SOURCE, {}) for i, model in enumerate(models.models)]
        for spec in targets(scale, family):
            small, large = models.pair_around(spec)
            shown.append((Random(spec, corpus, seed), RANDOM, {}))
            curves = readings(small, large, spec, scale.alphas)
            shown += [(start, "CBD", labels) for start, labels in curves]
        for model, method, labels in shown:
            evaluated = Evaluated(model, corpus, scale.sample, scale.recovery.context)
            found.append(Measurement(evaluated, method, labels=labels))

    def derive(frame: pd.DataFrame, designs: dict[int, Design]) -> Iterator[dict]:
        for seed in designs:
            for family, _ in _dial(scale).vocabularies:
                for spec in targets(scale, family):
                    yield rule(chain(scale, seed, family), spec) | {"seed": seed}

    return Design(tuple(found), derive)

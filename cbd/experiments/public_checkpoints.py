"""E2, E7 on public checkpoints: the paper's premise itself, without any training.

Loss and bits per byte on WikiText-2 against alpha, for sizes between two checkpoints of a family.
"""

from dataclasses import replace
from functools import partial

from cbd.experiments.alpha import over_alpha
from cbd.experiments.run import Design, Measurement
from cbd.experiments.scales.base import Scale
from cbd.experiments.scales.hub import PUBLIC, WIKITEXT, Public
from cbd.recipes.data import Corpus
from cbd.recipes.evaluation import Evaluated
from cbd.recipes.models import Source

NO_SEED = {"seed": None}  # a label: nothing here is drawn at random


def corpus_for(source: Source, text: Corpus = WIKITEXT) -> Corpus:
    """The text in the ids of a checkpoint's own tokenizer."""
    ids = {"name": f"{text.name} for {source.name}", "tokenizer": source.location or source.name}
    return replace(text, location=text.location or text.name, **ids)


def runs_at(scale: Scale) -> bool:
    """Whether `cbd run all` runs this: never, it needs the hub and is asked for by name."""
    return False


def design(scale: Scale, seed: int, pairs: tuple[Public, ...] = PUBLIC, text: Corpus = WIKITEXT) -> Design:
    """Both checkpoints, and every target over alpha by every reading; nothing depends on the seed."""
    found = []
    for pair in pairs if seed == 0 else ():
        corpus = corpus_for(pair.small, text)
        asked = {"sample": 65_536, "context": min(1024, pair.small.spec.positions), "split": "test"}
        measured = partial(Evaluated, corpus=corpus, **asked)
        ends = pair.small, pair.large
        found += [Measurement(measured(model), "anchor", labels=NO_SEED) for model in ends]
        for spec in pair.targets:
            found += over_alpha(ends, spec, scale, measured, "CBD", **NO_SEED)
    return Design(tuple(found))

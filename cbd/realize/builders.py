"""From a recipe to its folder: a few lines for each kind of recipe.

A builder fills the folder `out` with what its recipe describes, whose inputs are finished, and returns what
was measured. What its work can go on from after a kill lies in `state`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbd.realize.store import folder, record
from cbd.recipes.base import Recipe
from cbd.recipes.data import Corpus, Items, Pairs, Written
from cbd.recipes.evaluation import BitsPerByte, Downstream, Evaluated
from cbd.recipes.models import Generated, Interpolated, Random, Sorted, Source, Transferred
from cbd.recipes.operators import Trans
from cbd.recipes.training import Anchor, Bridged, Scored, Trained, Tuned, TunedRate

if TYPE_CHECKING:
    from cbd.training.lessons import Lesson

Measured = dict[str, Any] | None


def build(recipe: Recipe, out: Path, state: Path) -> dict[str, Any]:
    """Make one recipe with the builder of its kind."""
    _, builder = BUILDERS[type(recipe)]
    return builder(recipe, out, state) or {}


def named(recipe: Recipe) -> str:
    """The step in words: what is done, and to what size, as in "distil 20x576"."""
    verb, _ = BUILDERS[type(recipe)]
    return f"{verb} {recipe.spec.name}" if hasattr(recipe, "spec") else verb


# Data ------------------------------------------------------------------------------------------------------


def corpus(recipe: Corpus, out: Path, state: Path) -> Measured:
    from cbd.data.corpus import build

    build(recipe, out)


def written(recipe: Written, out: Path, state: Path) -> Measured:
    from cbd.data.corpus import build_written
    from cbd.models.generation import texts

    build_written(texts(folder(recipe.text)), folder(recipe.corpus), out)


def items(recipe: Items, out: Path, state: Path) -> Measured:
    from cbd.data.items import build

    return build(recipe, out)


def pairs(recipe: Pairs, out: Path, state: Path) -> Measured:
    from cbd.data.pairs import build

    return build(recipe, out)


# Models ----------------------------------------------------------------------------------------------------


def source(recipe: Source, out: Path, state: Path) -> Measured:
    from cbd.models.sources import fetch

    return fetch(recipe, out)


def random(recipe: Random, out: Path, state: Path) -> Measured:
    from cbd.models.sources import initialise_randomly

    return initialise_randomly(recipe.spec, folder(recipe.corpus), recipe.seed, out)


def transferred(recipe: Sorted | Transferred, out: Path, state: Path) -> Measured:
    from cbd.models.interpolation import transfer

    trans = recipe.trans if isinstance(recipe, Transferred) else Trans(cut_width="sorted")
    transfer(folder(recipe.model), recipe.spec, out, trans)


def interpolated(recipe: Interpolated, out: Path, state: Path) -> Measured:
    from cbd.models.interpolation import initialize

    small, large = folder(recipe.small), folder(recipe.large)
    return initialize(small, large, recipe.spec, out, recipe.alpha, recipe.operator)


def generated(recipe: Generated, out: Path, state: Path) -> Measured:
    from cbd.models.generation import generate

    return generate(folder(recipe.source), recipe.corpus, recipe.sampling, out, state)


# Training --------------------------------------------------------------------------------------------------


def trained(recipe: Trained, out: Path, state: Path) -> Measured:
    from cbd.training.lessons import PlainLesson

    return _train(recipe, PlainLesson(folder(recipe.corpus)), out, state)


def anchor(recipe: Anchor, out: Path, state: Path) -> Measured:
    from cbd.training.lessons import DistilledLesson

    folders = folder(recipe.corpus), folder(recipe.teacher)
    return _train(recipe, DistilledLesson(*folders, recipe.loss, recipe.shared_vocab), out, state)


def bridged(recipe: Bridged, out: Path, state: Path) -> Measured:
    from cbd.training.lessons import BridgedLesson

    folders = folder(recipe.corpus), folder(recipe.scored)
    return _train(recipe, BridgedLesson(*folders, recipe.loss), out, state)


def tuned(recipe: Tuned, out: Path, state: Path) -> Measured:
    from cbd.training.lessons import TunedLesson

    return _train(recipe, TunedLesson(folder(recipe.pairs)), out, state)


def _train(recipe: Trained | Anchor | Bridged | Tuned, lesson: Lesson, out: Path, state: Path) -> Measured:
    from cbd.training.loop import train

    lr = recipe.training.lr
    if isinstance(lr, TunedRate):
        lr = json.loads((folder(lr) / "rate.json").read_text())["lr"]
    return train(folder(recipe.start), lesson, recipe.training, lr, out, state)


def tuned_rate(recipe: TunedRate, out: Path, state: Path) -> Measured:
    losses = {run.training.lr: record(run)["final_loss"] for run in recipe.candidates}
    by_rate = {f"{lr:g}": loss for lr, loss in losses.items()}
    result = {"lr": min(losses, key=losses.__getitem__), "final_loss": by_rate}
    (out / "rate.json").write_text(json.dumps(result))
    return result


def scored(recipe: Scored, out: Path, state: Path) -> Measured:
    from cbd.data.documents import training_documents
    from cbd.training.likelihoods import read_likelihoods

    folders = folder(recipe.teacher), folder(recipe.corpus)
    return read_likelihoods(*folders, training_documents(recipe.corpus), recipe, out, state)


# Evaluation ------------------------------------------------------------------------------------------------


def evaluated(recipe: Evaluated, out: Path, state: Path) -> Measured:
    import torch

    from cbd.data.tokens import Tokens
    from cbd.evaluation.held_out import HeldOut, evaluate
    from cbd.models.forward import load
    from cbd.recipes.training import Loss
    from cbd.training.lessons import Objective

    held_out = HeldOut.of(Tokens(folder(recipe.corpus)), recipe.split, recipe.sample, recipe.context)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    objective = Objective(load(folder(recipe.model)).to(device), Loss())
    return _measured(evaluate(objective, held_out, device), out)


def bits_per_byte(recipe: BitsPerByte, out: Path, state: Path) -> Measured:
    from cbd.data.tokens import Tokens
    from cbd.evaluation.bits import bits_per_byte

    return _measured(bits_per_byte(folder(recipe.model), Tokens(folder(recipe.corpus)), recipe), out)


def _measured(metrics: dict[str, Any], out: Path) -> Measured:
    (out / "metrics.json").write_text(json.dumps(metrics))
    return {"metrics": metrics}


def downstream(recipe: Downstream, out: Path, state: Path) -> Measured:
    from cbd.evaluation.benchmark import evaluate

    data = {name: folder(r) for name, r in (("items", recipe.items), ("pairs", recipe.pairs)) if r}
    scores = evaluate(folder(recipe.model), recipe.tasks, data, recipe.shots, recipe.limit)
    (out / "metrics.json").write_text(json.dumps({task: score.summary() for task, score in scores.items()}))
    (out / "items.json").write_text(json.dumps({task: score.items for task, score in scores.items()}))


# what making each kind is called, and its builder
BUILDERS: dict[type[Recipe], tuple[str, Callable[[Any, Path, Path], Measured]]] = {
    Corpus: ("tokenize", corpus),
    Written: ("tokenize", written),
    Items: ("cut items", items),
    Pairs: ("cut pairs", pairs),
    Source: ("fetch", source),
    Random: ("draw", random),
    Sorted: ("sort", transferred),
    Transferred: ("transfer", transferred),
    Interpolated: ("interpolate", interpolated),
    Generated: ("generate", generated),
    Trained: ("train", trained),
    Anchor: ("distil", anchor),
    Bridged: ("bridge", bridged),
    Tuned: ("tune", tuned),
    TunedRate: ("choose a rate", tuned_rate),
    Scored: ("read", scored),
    Evaluated: ("evaluate", evaluated),
    BitsPerByte: ("evaluate", bits_per_byte),
    Downstream: ("benchmark", downstream),
}

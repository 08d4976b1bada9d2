"""From a recipe to its folder: a few lines for each kind of recipe."""

from __future__ import annotations

import json
from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbd.realize import store
from cbd.recipes.base import Recipe
from cbd.recipes.data import Corpus, Items, Pairs, Written
from cbd.recipes.evaluation import BitsPerByte, Downstream, Evaluated
from cbd.recipes.models import Generated, Interpolated, Random, Sorted, Source, Transferred
from cbd.recipes.training import Anchor, Bridged, Scored, Trained, Tuned, TunedRate

if TYPE_CHECKING:
    from cbd.training.lessons import Lesson


@singledispatch
def build(recipe: Recipe, out: Path, state: Path) -> dict[str, Any]:
    """Fill `out` with what the recipe describes; its inputs are finished. Returns what was measured."""
    raise TypeError(f"no way to make a {type(recipe).__name__}")


@build.register
def _(recipe: Corpus, out: Path, state: Path) -> dict[str, Any]:
    from cbd.data.corpus import build as build_corpus

    build_corpus(recipe, out)
    return {}


@build.register
def _(recipe: Source, out: Path, state: Path) -> dict[str, Any]:
    from cbd.models.sources import fetch

    return fetch(recipe, out)


@build.register
def _(recipe: Random, out: Path, state: Path) -> dict[str, Any]:
    from cbd.models.sources import initialise_randomly

    return initialise_randomly(recipe.spec, store.folder(recipe.corpus), recipe.seed, out)


@build.register
def _(recipe: Sorted, out: Path, state: Path) -> dict[str, Any]:
    from cbd.models.interpolation import transfer
    from cbd.recipes.operators import Trans

    transfer(store.folder(recipe.model), recipe.spec, out, Trans(cut_width="sorted"))
    return {}


@build.register
def _(recipe: Transferred, out: Path, state: Path) -> dict[str, Any]:
    from cbd.models.interpolation import transfer

    transfer(store.folder(recipe.model), recipe.spec, out, recipe.trans)
    return {}


@build.register
def _(recipe: Interpolated, out: Path, state: Path) -> dict[str, Any]:
    from cbd.models.interpolation import initialize

    small, large = store.folder(recipe.small), store.folder(recipe.large)
    return initialize(small, large, recipe.spec, out, recipe.alpha, recipe.operator)


@build.register(Trained)
@build.register(Anchor)
@build.register(Bridged)
@build.register(Tuned)
def _(recipe: Trained | Anchor | Bridged | Tuned, out: Path, state: Path) -> dict[str, Any]:
    from cbd.training.loop import train

    lr = recipe.training.lr
    if isinstance(lr, TunedRate):
        lr = json.loads((store.folder(lr) / "rate.json").read_text())["lr"]
    lesson = _lesson(recipe)
    return train(store.folder(recipe.start), lesson, recipe.training, lr, out, state)


def _lesson(recipe: Trained | Anchor | Bridged | Tuned) -> Lesson:
    from cbd.training.lessons import BridgedLesson, DistilledLesson, PlainLesson, TunedLesson

    if isinstance(recipe, Tuned):
        return TunedLesson(store.folder(recipe.pairs))
    corpus = store.folder(recipe.corpus)
    if isinstance(recipe, Anchor):
        return DistilledLesson(corpus, store.folder(recipe.teacher), recipe.loss, recipe.shared_vocab)
    if isinstance(recipe, Bridged):
        return BridgedLesson(corpus, store.folder(recipe.scored), recipe.loss)
    return PlainLesson(corpus)


@build.register
def _(recipe: Generated, out: Path, state: Path) -> dict[str, Any]:
    from cbd.models.generation import generate

    return generate(store.folder(recipe.source), recipe.corpus, recipe.sampling, out, state)


@build.register
def _(recipe: Written, out: Path, state: Path) -> dict[str, Any]:
    from cbd.data.corpus import build_written
    from cbd.models.generation import texts

    build_written(texts(store.folder(recipe.text)), store.folder(recipe.corpus), out)
    return {}


@build.register
def _(recipe: Scored, out: Path, state: Path) -> dict[str, Any]:
    from cbd.data.documents import training_documents
    from cbd.training.likelihoods import read_likelihoods

    texts = training_documents(recipe.corpus)
    folders = store.folder(recipe.teacher), store.folder(recipe.corpus)
    return read_likelihoods(*folders, texts, recipe, out, state)


@build.register
def _(recipe: BitsPerByte, out: Path, state: Path) -> dict[str, Any]:
    from cbd.data.tokens import Tokens
    from cbd.evaluation.bits import bits_per_byte

    metrics = bits_per_byte(store.folder(recipe.model), Tokens(store.folder(recipe.corpus)), recipe)
    (out / "metrics.json").write_text(json.dumps(metrics))
    return {"metrics": metrics}


@build.register
def _(recipe: Items, out: Path, state: Path) -> dict[str, Any]:
    from cbd.data.items import build as build_items

    return build_items(recipe, out)


@build.register
def _(recipe: Pairs, out: Path, state: Path) -> dict[str, Any]:
    from cbd.data.pairs import build as build_pairs

    return build_pairs(recipe, out)


@build.register
def _(recipe: Downstream, out: Path, state: Path) -> dict[str, Any]:
    from cbd.evaluation.benchmark import evaluate

    data = {n: store.folder(r) for n, r in (("items", recipe.items), ("pairs", recipe.pairs)) if r}
    scores = evaluate(store.folder(recipe.model), recipe.tasks, data, recipe.shots, recipe.limit)
    (out / "metrics.json").write_text(json.dumps({task: score.summary() for task, score in scores.items()}))
    (out / "items.json").write_text(json.dumps({task: score.items for task, score in scores.items()}))
    return {}


@build.register
def _(recipe: TunedRate, out: Path, state: Path) -> dict[str, Any]:
    losses = {c.training.lr: store.record(c)["final_loss"] for c in recipe.candidates}
    result = {
        "lr": min(losses, key=losses.__getitem__),
        "final_loss": {f"{lr:g}": x for lr, x in losses.items()},
    }
    (out / "rate.json").write_text(json.dumps(result))
    return result


@build.register
def _(recipe: Evaluated, out: Path, state: Path) -> dict[str, Any]:
    import torch

    from cbd.data.tokens import Tokens
    from cbd.evaluation.held_out import HeldOut, evaluate
    from cbd.models.forward import load
    from cbd.recipes.training import Loss
    from cbd.training.lessons import Objective

    held_out = HeldOut.of(Tokens(store.folder(recipe.corpus)), recipe.split, recipe.sample, recipe.context)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    objective = Objective(load(store.folder(recipe.model)).to(device), Loss())
    metrics = evaluate(objective, held_out, device)
    (out / "metrics.json").write_text(json.dumps(metrics))
    return {"metrics": metrics}

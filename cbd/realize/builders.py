"""From a recipe to its folder: a few lines for each kind of recipe.

A builder fills the folder `out` with what its recipe describes, whose inputs are finished, and returns what
was measured. What its work can go on from after a kill lies in `state`. Imports torch.
"""

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cbd.data import corpus, items, pairs
from cbd.data.documents import training_documents
from cbd.data.tokens import Tokens
from cbd.evaluation import bits, held_out
from cbd.models import factors, sources
from cbd.models.checkpoints import Checkpoint, Replaced, Selected
from cbd.models.correction import corrected
from cbd.models.forward import load
from cbd.models.generation import generate, texts
from cbd.models.interpolation import graft, initialize, put_back, rewrite, transfer
from cbd.models.rotation import measured, rotate
from cbd.realize import shared
from cbd.realize.progress import named
from cbd.realize.store import folder
from cbd.recipes.base import Recipe
from cbd.recipes.data import Corpus, Items, Pairs, SelfWritten, Written
from cbd.recipes.evaluation import BitsPerByte, Compared, Downstream, Evaluated
from cbd.recipes.models import (
    Factorised,
    Generated,
    Interpolated,
    Learngene,
    Patched,
    Pruned,
    Random,
    Rotated,
    Sorted,
    Source,
    Transferred,
)
from cbd.recipes.onpolicy import MiniLLM, OnPolicy
from cbd.recipes.operators import Trans
from cbd.recipes.training import Anchor, Bridged, Fitted, Loss, Nested, Run, Scored, Search, Trained, Tuned
from cbd.training import lessons
from cbd.training.alphas import fit
from cbd.training.compared import compare
from cbd.training.likelihoods import read_likelihoods
from cbd.training.loop import train
from cbd.training.minillm import MiniLLMLesson
from cbd.training.nested import NestedLesson
from cbd.training.onpolicy import OnPolicyLesson
from cbd.training.patching import nearest
from cbd.training.pruning import least_missed
from cbd.training.search import search

Measured = dict[str, Any] | None


def build(recipe: Recipe, out: Path, state: Path) -> dict[str, Any]:
    """Make one recipe with the builder of its kind."""
    return BUILDERS[type(recipe)](recipe, out, state) or {}


def run(lesson: Callable[[Any], lessons.Lesson]) -> Callable[[Run, Path, Path], Measured]:
    """The builder of a kind of training. lesson: what a recipe teaches."""

    def train_on(recipe: Run, out: Path, state: Path) -> Measured:
        training = recipe.training
        if isinstance(training.lr, Search):
            best = _read(folder(training.lr) / "search.json")["best"]
            best["warmup_tokens"] = min(best["warmup_tokens"], training.tokens)  # of a shorter run
            training = replace(training, **best)
        return train(folder(recipe.start), lesson(recipe), training, training.lr, out, state, named(recipe))

    return train_on


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def rotated(recipe: Rotated, out: Path, state: Path) -> Measured:
    model = Checkpoint(folder(recipe.model))
    loaded = load(model.folder).to(_device())
    tokens = lessons.tokens_for(folder(recipe.corpus), loaded)
    windows = torch.from_numpy(tokens.windows("train", recipe.sample, recipe.context)[:, :-1])
    rotate(model, measured(loaded, model, windows.split(8)), out, recipe.axes)


def pruned(recipe: Pruned, out: Path, state: Path) -> Measured:
    model, device = Checkpoint(folder(recipe.model)), _device()
    loaded = load(model.folder).to(device)
    tokens = lessons.tokens_for(folder(recipe.corpus), loaded)
    windows = tokens.windows("train", recipe.sample, recipe.context)
    how = windows, recipe.layers, recipe.keep, state, named(recipe), recipe.score
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        found = least_missed(loaded, model.family, *how)
    left: Checkpoint = Selected(model, found["blocks"])
    if recipe.corrected:
        left = Replaced(left, corrected(loaded, model, found["blocks"], torch.from_numpy(windows[:, :-1])))
    rewrite(left, out)
    return found


def patched(recipe: Patched, out: Path, state: Path) -> Measured:
    folders, device = (folder(recipe.student), folder(recipe.teacher)), _device()
    student, teacher = (load(place).to(device) for place in folders)
    windows = lessons.tokens_for(folder(recipe.corpus), teacher).windows(
        "train", recipe.sample, recipe.context
    )
    family = Checkpoint(folders[0]).family
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        found = nearest(student, teacher, family, windows, recipe.layers, state, named(recipe))
    put_back(*folders, found["blocks"], out)
    return found


def grafted(recipe: Learngene, out: Path, state: Path) -> Measured:
    drawn = state / "random"
    shutil.rmtree(drawn, ignore_errors=True)
    drawn.mkdir()
    sources.initialise_randomly(recipe.spec, folder(recipe.corpus), recipe.seed, drawn)
    graft(folder(recipe.model), drawn, recipe.first, out)


def fitted(recipe: Fitted, out: Path, state: Path) -> Measured:
    pair = folder(recipe.small), folder(recipe.large)
    text, training = folder(recipe.corpus), recipe.training
    return fit(*pair, recipe.spec, text, training, recipe.per, out, state, named(recipe))


def searched(recipe: Search, out: Path, state: Path) -> Measured:
    lesson = lessons.PlainLesson(folder(recipe.corpus))
    starts = [folder(start) for start in recipe.starts]
    found = search(starts, lesson, recipe.training, recipe.seeds, out, state, named(recipe), recipe.least)
    each = {name: getattr(recipe, name) // recipe.fewest for name in ("tokens", "flops")}
    return found | {name: spent * len(found["tried"]) for name, spent in each.items()}


def evaluated(recipe: Evaluated, out: Path, state: Path) -> Measured:
    tokens = Tokens(folder(recipe.corpus))
    text = held_out.HeldOut.of(tokens, recipe.split, recipe.sample, recipe.context)
    device = _device()
    objective = lessons.Objective(load(folder(recipe.model)).to(device), Loss())
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        return _written(held_out.evaluate(objective, text, device), out)


def compared(recipe: Compared, out: Path, state: Path) -> Measured:
    text = held_out.HeldOut.of(Tokens(folder(recipe.corpus)), recipe.split, recipe.sample, recipe.context)
    student, teacher = (load(folder(model)).to(_device()) for model in (recipe.model, recipe.teacher))
    return _written(compare(student, teacher, text, _device()), out)


def _written(metrics: dict[str, Any], out: Path) -> Measured:
    (out / "metrics.json").write_text(json.dumps(metrics))
    return {"metrics": metrics}


def downstream(recipe: Downstream, out: Path, state: Path) -> Measured:
    from cbd.evaluation.benchmark import evaluate  # lm-eval: only where it scores

    data = {name: folder(r) for name, r in (("items", recipe.items), ("pairs", recipe.pairs)) if r}
    asked = (recipe.shots, recipe.limit, recipe.precision)
    scores = evaluate(folder(recipe.model), recipe.tasks, data, *asked)
    (out / "metrics.json").write_text(json.dumps({task: score.summary() for task, score in scores.items()}))
    (out / "items.json").write_text(json.dumps({task: score.items for task, score in scores.items()}))


def _texts(recipe: SelfWritten) -> list[str]:
    return [text for part in recipe.texts for text in texts(folder(part))]


def _documents(recipe: Corpus | SelfWritten) -> Iterable[str]:
    """The training split's."""
    if isinstance(recipe, SelfWritten):
        return corpus.self_written_documents(_texts(recipe), recipe)
    return training_documents(recipe)


BUILDERS: dict[type[Recipe], Callable[[Any, Path, Path], Measured]] = {
    Corpus: lambda r, out, state: corpus.build(
        r, out, folder(r.tokenizer) if isinstance(r.tokenizer, Recipe) else None
    ),
    Written: lambda r, out, state: corpus.build_written(texts(folder(r.text)), folder(r.corpus), out),
    SelfWritten: lambda r, out, state: corpus.build_self_written(_texts(r), r, folder(r.source), out),
    Items: lambda r, out, state: items.build(r, out),
    Pairs: lambda r, out, state: pairs.build(r, out),
    Source: lambda r, out, state: sources.fetch(r, out),
    Random: lambda r, out, state: sources.initialise_randomly(r.spec, folder(r.corpus), r.seed, out),
    Sorted: lambda r, out, state: transfer(folder(r.model), r.spec, out, Trans(cut_width="sorted")),
    Rotated: rotated,
    Pruned: pruned,
    Factorised: lambda r, out, state: rewrite(
        factors.Factorised(Checkpoint(folder(r.model)), r.layers, r.share), out
    ),
    Patched: patched,
    Transferred: lambda r, out, state: transfer(folder(r.model), r.spec, out, r.trans),
    Learngene: grafted,
    Interpolated: lambda r, out, state: initialize(
        folder(r.small), folder(r.large), r.spec, out, r.alpha, r.operator
    ),
    Generated: lambda r, out, state: generate(folder(r.source), r.corpus, r.sampling, out, state),
    Trained: run(lambda r: lessons.PlainLesson(folder(r.corpus))),
    Anchor: run(
        lambda r: lessons.DistilledLesson(
            folder(r.corpus), folder(r.teacher), r.loss, r.shared_vocab, r.aligned, shared.place(r)
        )
    ),
    OnPolicy: run(lambda r: OnPolicyLesson(folder(r.corpus), folder(r.teacher), r.loss, r.share, r.prompt)),
    MiniLLM: run(lambda r: MiniLLMLesson(folder(r.corpus), folder(r.teacher), r)),
    Nested: run(lambda r: NestedLesson(folder(r.corpus), folder(r.teacher), r.specs, r.loss, r.drawn)),
    Bridged: run(lambda r: lessons.BridgedLesson(folder(r.corpus), folder(r.scored), r.loss)),
    Tuned: run(lambda r: lessons.TunedLesson(folder(r.pairs))),
    Search: searched,
    Fitted: fitted,
    Scored: lambda r, out, state: read_likelihoods(
        folder(r.teacher), folder(r.corpus), _documents(r.corpus), r, out, state
    ),
    Evaluated: evaluated,
    Compared: compared,
    BitsPerByte: lambda r, out, state: _written(
        bits.bits_per_byte(folder(r.model), Tokens(folder(r.corpus)), r), out
    ),
    Downstream: downstream,
}

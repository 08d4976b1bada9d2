"""Recipes: what their keys depend on and what not, their order, what they cost. Nothing here needs torch."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbd.errors import CbdError
from cbd.experiments import EXPERIMENTS, paper_map
from cbd.experiments.run import design_of
from cbd.experiments.scales import SCALES, scale_named
from cbd.experiments.starts import chain, initialised
from cbd.experiments.starts import given as free_at
from cbd.recipes import costs
from cbd.recipes.base import Recipe, walk
from cbd.recipes.data import Corpus, Items, Pairs, SelfWritten, Written
from cbd.recipes.evaluation import BitsPerByte, Compared, Downstream, Evaluated
from cbd.recipes.models import (
    Chain,
    Factorised,
    Generated,
    Interpolated,
    Learngene,
    Patched,
    Pruned,
    Random,
    Rotated,
    Sampling,
    Sorted,
    Source,
    Transferred,
    aligned,
    encloses,
)
from cbd.recipes.onpolicy import MiniLLM, OnPolicy
from cbd.recipes.operators import LITERAL, OPERATORS, UNION, Operator, Trans, distance_alpha, resolve_alpha
from cbd.recipes.specs import NAMED, gpt2, qwen3
from cbd.recipes.training import (
    Anchor,
    Bridged,
    BridgeLoss,
    Fitted,
    Loss,
    Nested,
    Scored,
    Search,
    Trained,
    Training,
    Tuned,
)

SPEC, OTHER = gpt2(2, 64), gpt2(3, 64)
GPT2_B, GPT2_M, GPT2_L = (NAMED[f"GPT2-{size}"] for size in "BML")
SLM_51M, SLM_138M, SLM_380M, SLM_537M = (NAMED[f"SLM-{size}M"] for size in (51, 138, 380, 537))
CORPUS = Corpus(fingerprint="a")
TRAINING = Training(tokens=100_000, lr=1e-3)
PUBLIC = Source("some/model", SPEC)
RANDOM = Random(SPEC, CORPUS)
TRAINED = Trained(RANDOM, CORPUS, TRAINING)
SEARCH = Search(RANDOM, CORPUS, replace(TRAINING, warmup_tokens=10_000), (1000, 1001))
SEARCHED = replace(TRAINING, lr=SEARCH)
TRANS = Trans()
TEXT = Generated(PUBLIC, CORPUS, Sampling(7))
TOLD = Generated(PUBLIC, None, Sampling(7, opening="text"))
SCORED = Scored(PUBLIC, CORPUS, 1000)
PAIRS = Pairs(CORPUS)

# For every kind of recipe one example, and another value for each of its fields.
EXAMPLES: list[tuple[Recipe, dict]] = [
    (
        CORPUS,
        {
            "kind": "folder",
            "name": "other",
            "config": "en",
            "column": "story",
            "fingerprint": "b",
            "vocab_size": 300,
            "tokenizer": "gpt2",
            "held_out": 0.1,
            "max_documents": 7,
            "location": "/elsewhere",
            "tokenizer_location": "/elsewhere",
        },
    ),
    (
        PUBLIC,
        {
            "name": "other/model",
            "spec": OTHER,
            "revision": "v2",
            "fingerprint": "b",
            "location": "/elsewhere",
            "package": "models==1",
            "gguf": "model.gguf",
            "parts": ("models-part1==1",),
        },
    ),
    (RANDOM, {"spec": OTHER, "corpus": replace(CORPUS, vocab_size=300), "seed": 1}),
    (
        SEARCH,
        {
            "start": PUBLIC,
            "corpus": replace(CORPUS, fingerprint="b"),
            "training": replace(SEARCH.training, lr=2e-3),
            "seeds": (1000,),
            "others": (PUBLIC,),
            "least": 0.01,
        },
    ),
    (Sorted(TRAINED), {"model": RANDOM}),
    (
        Rotated(TRAINED, CORPUS),
        {"model": RANDOM, "corpus": replace(CORPUS, vocab_size=300), "sample": 1000, "context": 64}
        | {"axes": False},
    ),
    (
        Pruned(TRAINED, 1, CORPUS),
        {"model": RANDOM, "corpus": replace(CORPUS, vocab_size=300), "sample": 1000, "context": 64}
        | {"layers": 2, "keep": 1, "precision": "bf16", "score": "kl", "corrected": True},
    ),
    (Factorised(TRAINED, 1), {"model": RANDOM, "layers": 2, "share": 0.25}),
    (
        Patched(TRAINED, PUBLIC, 2, CORPUS),
        {"student": RANDOM, "teacher": RANDOM, "corpus": replace(CORPUS, vocab_size=300), "sample": 1000}
        | {"layers": 3, "context": 64, "precision": "bf16"},
    ),
    (
        Learngene(TRAINED, SPEC, CORPUS),
        {"model": RANDOM, "spec": OTHER, "corpus": replace(CORPUS, fingerprint="b"), "seed": 1},
    ),
    (Transferred(TRAINED, SPEC), {"model": RANDOM, "spec": OTHER, "trans": Trans(grow_width="duplicate")}),
    (
        Interpolated(RANDOM, TRAINED, SPEC),
        {"small": TRAINED, "large": RANDOM, "spec": OTHER, "alpha": 0.5, "operator": UNION},
    ),
    (
        TRAINED,
        {
            "start": PUBLIC,
            "corpus": replace(CORPUS, fingerprint="b"),
            "training": replace(TRAINING, lr=2e-3),
        },
    ),
    (
        Anchor(PUBLIC, RANDOM, CORPUS, TRAINING),
        {
            "teacher": TRAINED,
            "start": PUBLIC,
            "corpus": replace(CORPUS, fingerprint="b"),
            "training": replace(TRAINING, seed=1),
            "loss": Loss("jsd", 0.0),
            "shared_vocab": 300,
        },
    ),
    (
        Evaluated(TRAINED, CORPUS),
        {
            "model": RANDOM,
            "corpus": replace(CORPUS, fingerprint="b"),
            "sample": 99,
            "context": 64,
            "split": "test",
            "precision": "bf16",
        },
    ),
    (
        OnPolicy(TRAINED, RANDOM, CORPUS, TRAINING),
        {
            "teacher": RANDOM,
            "start": TRAINED,
            "corpus": replace(CORPUS, fingerprint="b"),
            "training": replace(TRAINING, seed=1),
            "loss": Loss("forward_kl", 0.0),
            "share": 1.0,
            "prompt": 8,
        },
    ),
    (
        MiniLLM(TRAINED, RANDOM, CORPUS, TRAINING),
        {
            "teacher": RANDOM,
            "start": TRAINED,
            "corpus": replace(CORPUS, fingerprint="b"),
            "training": replace(TRAINING, seed=1),
            "mixed": 0.1,
            "clip": 0.1,
            "pretraining": 0.5,
            "collected": 2,
            "passes": 1,
            "prompt": 8,
        },
    ),
    (
        Nested(TRAINED, Random(OTHER, CORPUS), (gpt2(1, 64), SPEC), CORPUS, TRAINING),
        {
            "teacher": RANDOM,
            "start": Random(OTHER, CORPUS, 1),
            "specs": (SPEC, OTHER),
            "corpus": replace(CORPUS, fingerprint="b"),
            "training": replace(TRAINING, lr=2e-3),
            "loss": Loss("jsd"),
            "drawn": 1,
        },
    ),
    (
        Fitted(RANDOM, TRAINED, SPEC, CORPUS, TRAINING),
        {
            "small": TRAINED,
            "large": RANDOM,
            "spec": OTHER,
            "corpus": replace(CORPUS, fingerprint="b"),
            "training": replace(TRAINING, seed=1),
            "per": "block",
        },
    ),
    (TEXT, {"source": TRAINED, "corpus": replace(CORPUS, fingerprint="b"), "sampling": Sampling(9)}),
    (
        SelfWritten(PUBLIC, (TOLD,)),
        {
            "source": TRAINED,
            "texts": (TOLD, replace(TOLD, sampling=Sampling(7, opening="user"))),
            "held_out": 0.1,
        },
    ),
    (Written(TEXT, CORPUS), {"text": replace(TEXT, source=TRAINED), "corpus": replace(CORPUS, column="b")}),
    (
        SCORED,
        {
            "teacher": TRAINED,
            "corpus": replace(CORPUS, fingerprint="b"),
            "sample": 99,
            "context": 64,
            "top": 3,
        },
    ),
    (
        Bridged(RANDOM, SCORED, TRAINING),
        {
            "start": PUBLIC,
            "scored": replace(SCORED, sample=99),
            "training": replace(TRAINING, seed=1),
            "loss": BridgeLoss("uld"),
        },
    ),
    (
        Compared(TRAINED, RANDOM, CORPUS),
        {
            "model": RANDOM,
            "teacher": TRAINED,
            "corpus": replace(CORPUS, fingerprint="b"),
            "sample": 99,
            "context": 64,
            "split": "test",
        },
    ),
    (
        BitsPerByte(TRAINED, CORPUS),
        {
            "model": RANDOM,
            "corpus": replace(CORPUS, fingerprint="b"),
            "sample": 99,
            "window": 64,
            "split": "test",
        },
    ),
    (Items(CORPUS), {"corpus": replace(CORPUS, fingerprint="b"), "count": 9, "words": 20, "answer": 3}),
    (
        PAIRS,
        {
            "corpus": replace(CORPUS, fingerprint="b"),
            "kind": "dolly",
            "count": 9,
            "tests": 8,
            "words": 20,
            "answer": 3,
            "name": "other/set",
            "location": "/elsewhere",
            "fingerprint": "b",
            "held_out": 0.1,
        },
    ),
    (
        Tuned(TRAINED, PAIRS, TRAINING),
        {"start": RANDOM, "pairs": replace(PAIRS, count=9), "training": replace(TRAINING, seed=1)},
    ),
    (
        Downstream(TRAINED, ("boolq",)),
        {
            "model": RANDOM,
            "tasks": ("piqa",),
            "items": Items(CORPUS),
            "pairs": PAIRS,
            "shots": 5,
            "limit": 9,
            "precision": "bf16",
        },
    ),
]
NESTED: list[tuple[object, dict]] = [
    (
        TRAINING,
        {
            "tokens": 100_001,
            "lr": SEARCH,
            "batch": 8,
            "context": 64,
            "seed": 1,
            "schedule": "wsd",
            "warmup": 0.1,
            "decay": 0.1,
            "final": 0.0,
            "weight_decay": 0.0,
            "betas": (0.9, 0.95),
            "clip": 0.5,
            "accumulation": 2,
            "precision": "bf16",
            "evaluations": 3,
            "evaluation_tokens": 99,
            "warmup_tokens": 512,
            "looks": (2048,),
            "skip": 3,
        },
    ),
    (
        Loss("jsd", 0.5),
        {"divergence": "forward_kl", "cross_entropy": 0.2, "temperature": 2.0, "beta": 0.1, "alignment": 1.0}
        | {"attention": 1.0},
    ),
    (
        TRANS,
        {"grow_layers": "copy", "grow_width": "tile", "cut_layers": "even", "cut_width": "importance"},
    ),
    (
        Sampling(7),
        {
            "documents": 8,
            "prompt": 3,
            "new": 4,
            "temperature": 0.5,
            "top_k": 5,
            "seed": 1,
            "batch": 2,
            "opening": "user",
            "top_p": 0.9,
            "precision": "bf16",
        },
    ),
    (BridgeLoss(), {"divergence": "uld", "cross_entropy": 0.1, "temperature": 2.0}),
    (LITERAL, {"mixing": "union", "trans": Trans(cut_layers="prefix")}),
    (
        qwen3(2, 64, 4, 2, 99, head_dim=8),
        {
            "layers": 5,
            "width": 128,
            "heads": 2,
            "ffn": 77,
            "vocab": 300,
            "positions": 64,
            "family": "llama",
            "tied": False,
            "kv_heads": 1,
            "head_size": 32,
        },
    ),
]
SMOKE = scale_named("smoke")
ALL = [(name, recipes) for name in EXPERIMENTS if (recipes := design_of(name, SMOKE, 0).recipes)]


def holder(part: object) -> Recipe:
    """A recipe that has this choice somewhere inside."""
    return {
        Training: lambda: Trained(RANDOM, CORPUS, part),
        Loss: lambda: Anchor.boomerang(PUBLIC, 1, CORPUS, TRAINING, part),
        Trans: lambda: Interpolated(RANDOM, TRAINED, SPEC, 0.5, Operator("union", part)),
        Operator: lambda: Interpolated(RANDOM, TRAINED, SPEC, 0.5, part),
        Sampling: lambda: Generated(PUBLIC, CORPUS if part.opening == "document" else None, part),
        BridgeLoss: lambda: Bridged(RANDOM, SCORED, TRAINING, part),
        type(SPEC): lambda: Evaluated(Random(part, CORPUS), CORPUS),
    }[type(part)]()


def changed(recipe: Recipe, name: str, value: object) -> Recipe:
    """The recipe with another value, and what that value needs beside it."""
    others = {"corpus": None} if value == "dolly" else {}
    if isinstance(recipe, SelfWritten) and name == "source":
        others = {"texts": tuple(replace(text, source=value) for text in recipe.texts)}
    return replace(recipe, **{name: value}, **others)


# Keys


def test_keys_that_were_published_stay() -> None:
    """A change here throws away all finished work: raise the version of the step that changed instead."""
    corpus = Corpus(fingerprint="pinned", vocab_size=512)
    run = Trained(Random(gpt2(2, 64), corpus), corpus, Training(tokens=100_000, lr=1e-3))
    mixed = Interpolated(run, Source("pinned", gpt2(4, 128)), gpt2(3, 64), alpha=0.25, operator=UNION)
    assert run.key == "d4e95bb09a45076adaef"
    assert mixed.key == "e91b03535aa338129cd9"


@pytest.mark.parametrize(("recipe", "other"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_every_field_but_the_place_is_in_the_key(recipe: Recipe, other: dict) -> None:
    assert set(other) == {field.name for field in fields(recipe)}, "give a value for the new field"
    keys = {n: changed(recipe, n, value).key for n, value in other.items() if not n.endswith("location")}
    assert len({recipe.key, *keys.values()}) == 1 + len(keys)
    for place in other.keys() - keys.keys():
        assert changed(recipe, place, other[place]).key == recipe.key


@pytest.mark.parametrize(("part", "other"), NESTED, ids=lambda value: type(value).__name__)
def test_every_choice_inside_a_recipe_is_in_its_key(part: object, other: dict) -> None:
    assert set(other) == {field.name for field in fields(part)}, "give a value for the new field"
    keys = {holder(replace(part, **{name: value})).key for name, value in other.items()}
    assert len({holder(part).key} | keys) == 1 + len(other)


def test_every_kind_of_recipe_has_an_example_here() -> None:
    assert {type(recipe) for recipe, _ in EXAMPLES} == {
        kind for kind in Recipe.__subclasses__() if kind.__module__.startswith("cbd.")
    }


@given(st.data())
def test_equal_recipes_have_equal_keys_and_others_not(data: st.DataObject) -> None:
    corpora = st.builds(
        Corpus, vocab_size=st.sampled_from([300, 512, 2048]), max_documents=st.none() | st.integers(1, 2)
    )
    budgets = st.builds(
        Training,
        tokens=st.sampled_from([1024, 2048]),
        lr=st.sampled_from([1e-3, 2e-3]) | st.just(SEARCH),
        seed=st.integers(0, 1),
        betas=st.sampled_from([(0.9, 0.98), (0.9, 0.95)]),
    )
    starts = st.builds(Random, st.sampled_from([SPEC, OTHER]), corpora, st.integers(0, 1)) | st.just(PUBLIC)
    runs = st.builds(Trained, starts, corpora, budgets) | st.builds(Anchor, starts, starts, corpora, budgets)
    first, second = data.draw(runs), data.draw(runs)
    assert (first.key == second.key) == (first == second)
    assert replace(first).key == first.key
    assert re.fullmatch("[0-9a-f]{20}", first.key)


def test_a_whole_number_is_the_same_rate_or_alpha_as_its_float() -> None:
    whole, real = (Interpolated(RANDOM, TRAINED, SPEC, alpha) for alpha in (1, 1.0))
    assert whole == real
    assert whole.key == real.key


def test_a_tuple_may_be_given_as_a_list() -> None:
    assert replace(SEARCH, seeds=list(SEARCH.seeds)).key == SEARCH.key


@pytest.mark.parametrize("kind", [type(recipe) for recipe, _ in EXAMPLES])
def test_a_new_version_of_a_step_changes_it_and_what_is_made_from_it(kind, monkeypatch) -> None:
    everything = [replace(recipe) for recipe, _ in EXAMPLES]
    before = {recipe: recipe.key for recipe in everything}
    touched = {recipe for recipe in everything if any(type(r) is kind for r in walk([recipe]).values())}
    monkeypatch.setattr(kind, "version", kind.version + 1)
    # keys are remembered by each recipe: fresh copies, all the way down
    after = {recipe: rebuilt(recipe).key for recipe in everything}
    assert {recipe for recipe in everything if before[recipe] != after[recipe]} == touched


def rebuilt(item):
    """An equal copy that shares no recipe."""
    if is_dataclass(item):
        return replace(item, **{f.name: rebuilt(getattr(item, f.name)) for f in fields(item)})
    return type(item)(map(rebuilt, item)) if isinstance(item, (tuple, list)) else item


def test_an_option_added_later_keeps_the_work_finished_without_it() -> None:
    def step(later: bool):
        @dataclass(frozen=True)
        class Step(Recipe):
            model: Recipe
            size: int = 3

        @dataclass(frozen=True)
        class Later(Step):
            option: str = "as before"
            trans: Trans = Trans()

        Later.__name__ = "Step"
        return Later if later else Step

    before, now = step(False), step(True)
    assert now(RANDOM).key == before(RANDOM).key
    assert now(RANDOM, 4).key == before(RANDOM, 4).key != before(RANDOM).key
    assert now(RANDOM, option="new").key != before(RANDOM).key
    assert now(RANDOM, trans=Trans(cut_width="sorted")).key != before(RANDOM).key


def test_a_key_is_the_same_in_another_process() -> None:
    """Whatever Python's hash seed is."""
    code = (
        "from cbd.experiments.run import design_of; from cbd.experiments.scales import scale_named\n"
        "print([m.key for m in design_of('convergence', scale_named('smoke'), 0).recipes])"
    )
    expected = [recipe.key for recipe in design_of("convergence", SMOKE, 0).recipes]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(expected)


# Inputs and order


def below(item) -> set[Recipe]:
    """Every recipe inside, by plain recursion over the fields."""
    values = [getattr(item, f.name) for f in fields(item)] if is_dataclass(item) else item
    found = set()
    for value in values:
        if isinstance(value, Recipe):
            found |= {value} | below(value)
        elif is_dataclass(value) or isinstance(value, (tuple, list)):
            found |= below(value)
    return found


def test_inputs_are_the_recipes_in_the_fields_in_their_order() -> None:
    anchor = Anchor(PUBLIC, RANDOM, CORPUS, replace(TRAINING, lr=SEARCH))
    assert anchor.inputs == (PUBLIC, RANDOM, CORPUS, SEARCH)
    drawn = replace(SEARCH, others=(TRAINED,))
    assert drawn.inputs == (RANDOM, CORPUS, TRAINED)
    assert CORPUS.inputs == PUBLIC.inputs == ()
    assert Interpolated(RANDOM, TRAINED, SPEC).inputs == (RANDOM, TRAINED)


@pytest.mark.parametrize(("name", "recipes"), ALL, ids=[name for name, _ in ALL])
def test_a_walk_has_everything_once_and_inputs_first(name: str, recipes: list[Recipe]) -> None:
    found = walk(recipes)
    assert set(found.values()) == set(recipes) | set().union(*map(below, recipes))
    assert all(key == recipe.key for key, recipe in found.items())
    place = {key: i for i, key in enumerate(found)}
    assert all(place[source.key] < place[key] for key, recipe in found.items() for source in recipe.inputs)
    assert len(walk(recipes + recipes[::-1])) == len(found)


def test_provenance_is_json_that_names_all_that_a_recipe_is_made_from() -> None:
    recipe = Evaluated(Interpolated(TRAINED, PUBLIC, SPEC, operator=UNION), CORPUS)
    tree = json.loads(json.dumps(recipe.tree()))
    assert list(tree) == list(walk([recipe]))
    assert list(tree)[-1] == recipe.key
    assert tree[recipe.key]["model"] == recipe.model.key
    assert tree[recipe.model.key]["operator"]["mixing"] == "union"
    assert tree[TRAINED.key]["training"]["lr"] == TRAINING.lr


# What a run is


@given(st.integers(1, 3000), st.integers(0, 30))
def test_evaluated_steps(steps: int, evaluations: int) -> None:
    training = Training(tokens=steps * 512 + 511, lr=1e-3, evaluations=evaluations)
    points = training.evaluated_steps
    assert training.steps == steps
    assert points[0] == 0
    assert points[-1] == steps
    assert list(points) == sorted(set(points))
    assert len(points) <= max(evaluations, 1) + 1
    later = points[2:]
    # log-spaced: no point is further from its predecessor than one ratio, but for rounding to whole steps
    if evaluations > 1:
        ratio = 100 ** (1 / (evaluations - 1))
        assert all(b <= (a + 0.5) * ratio + 0.5 for a, b in zip(points[1:], later, strict=False))
        assert points[1] == max(round(steps / 100), 1)


def test_the_points_of_a_long_run() -> None:
    training = Training(tokens=10_000 * 512, lr=1e-3, evaluations=3)
    assert training.evaluated_steps == (0, 100, 1000, 10_000)


@given(st.integers(1, 400), st.lists(st.integers(0, 200_000), max_size=4))
def test_a_curve_has_a_point_where_it_is_asked_for_one(steps: int, looks: list[int]) -> None:
    plain = Training(tokens=steps * 512, lr=1e-3)
    training = replace(plain, looks=tuple(looks))
    asked = {min(tokens // 512, steps) for tokens in looks}
    assert set(training.evaluated_steps) == set(plain.evaluated_steps) | asked
    assert list(training.evaluated_steps) == sorted(set(training.evaluated_steps))
    names = [Trained(RANDOM, CORPUS, t).key for t in (plain, training)]
    assert (names[0] == names[1]) == (not looks), "finished work keeps its name"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Loss("kl"), "choose one of none, forward_kl, reverse_kl, jsd"),
        (lambda: Loss("jsd", -0.1), r"must lie in \[0, 1\]"),
        (lambda: Loss("jsd", 1.1), r"must lie in \[0, 1\]"),
        (lambda: Loss("jsd", math.nan), r"must lie in \[0, 1\]"),
        (lambda: Loss("none", 0.5), "set cross_entropy to 1"),
        (lambda: Loss("jsd", 0.5, temperature=0), "must be positive"),
        (lambda: Loss("jsd", 0.5, beta=1.5), r"must lie in \[0, 1\]"),
        (lambda: Training(511, 1e-3), "fewer than one step of 4 x 128; raise the tokens"),
        (lambda: Training(10_000, 1e-3, batch=4, accumulation=3), "does not divide into 3"),
        (lambda: Training(10_000, 1e-3, schedule="linear"), "choose one of cosine, wsd"),
        (
            lambda: Training(10_000, 1e-3, warmup_tokens=10_001),
            "a warm-up of 10,001 tokens must lie in 0..10,000",
        ),
        (lambda: Training(10_000, 1e-3, skip=-1), "a stream begins at batch 0"),
        (lambda: replace(SEARCH, training=TRAINING), "a warm-up in tokens: give both"),
        (lambda: replace(SEARCH, training=SEARCHED), "begins at a rate"),
        (lambda: replace(SEARCH, seeds=()), "at least one seed"),
        (lambda: Corpus(held_out=0), r"must lie in \(0, 0.25\]"),
        (lambda: Corpus(held_out=0.26), r"must lie in \(0, 0.25\]"),
        (lambda: Corpus(vocab_size=256), "too small"),
        (lambda: Trans(grow_layers="zeros"), "choose one of zero, copy, stack"),
        (lambda: Trans(cut_width="largest"), "choose one of leading, importance, sorted"),
        (lambda: Operator("mean"), "choose one of literal, union"),
        (lambda: scale_named("huge"), "choose one of smoke, laptop, smollm, gpu, paper"),
        (lambda: design_of("nothing", SMOKE, 0), "choose one of alpha"),
        pytest.param(
            lambda: Training(10_000, 1e-3, batch=0),
            "batch",
        ),
        pytest.param(
            lambda: Training(10_000, 1e-3, accumulation=0),
            "accumulation",
        ),
        pytest.param(
            lambda: Training(10_000, 1e-3, precision="fp16"),
            "choose one of fp32, bf16",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(make, message: str) -> None:
    with pytest.raises(CbdError, match=message):
        make()


def test_a_tokenizer_by_name_needs_no_size() -> None:
    assert Corpus(tokenizer="gpt2", vocab_size=1).tokenizer == "gpt2"


# Costs


def test_a_distillation_step_pays_the_students_training_and_the_teachers_forward() -> None:
    teacher = Source("t", gpt2(4, 128))
    anchor = Anchor(teacher, RANDOM, CORPUS, TRAINING)
    steps = TRAINING.tokens // (4 * 128)
    assert anchor.tokens == steps * 4 * 128
    step = 3 * SPEC.forward_flops(128) + teacher.spec.forward_flops(128)
    looked = len(TRAINING.evaluated_steps) * TRAINING.evaluation_tokens * SPEC.forward_flops(128)
    assert anchor.flops == steps * 512 * step + looked
    assert TRAINED.flops == steps * 512 * 3 * SPEC.forward_flops(128) + looked
    assert Evaluated(TRAINED, CORPUS, 1000, 64).flops == 1000 * SPEC.forward_flops(64)
    assert Interpolated(RANDOM, TRAINED, SPEC).flops == Transferred(TRAINED, SPEC).flops == RANDOM.flops == 0


@pytest.mark.parametrize(("name", "recipes"), ALL, ids=[name for name, _ in ALL])
def test_a_set_of_recipes_counts_shared_ones_once(name: str, recipes: list[Recipe]) -> None:
    expected = set(recipes) | set().union(*map(below, recipes))
    assert costs.flops(recipes) == sum(recipe.flops for recipe in expected)
    assert costs.flops(recipes * 2) == costs.flops(recipes)
    apart = sum(costs.flops([recipe]) for recipe in recipes)
    # public checkpoints share nothing that costs: they exist
    assert costs.flops(recipes) < apart or name == "public_checkpoints"
    assert costs.flops(recipes) >= max(costs.flops([recipe]) for recipe in recipes)


def test_what_is_given_is_not_counted_nor_what_made_it() -> None:
    teacher = Trained(Random(OTHER, CORPUS), CORPUS, TRAINING)
    anchor = Anchor(teacher, Transferred(Sorted(teacher), SPEC), CORPUS, TRAINING)
    assert costs.flops([anchor], given=[teacher]) == anchor.flops
    assert costs.flops([anchor]) == anchor.flops + teacher.flops
    assert costs.flops([anchor], given=[anchor]) == 0
    left = lambda *recipes: list(walk(recipes, skip=lambda r: r == teacher).values())  # noqa: E731
    assert left(anchor) == [anchor.start.model, anchor.start, CORPUS, anchor]
    # a part that something else needs as well is still counted
    assert CORPUS in left(anchor, TRAINED)


def test_a_tuned_run_pays_for_its_search() -> None:
    one = Trained(RANDOM, CORPUS, SEARCH.training)
    searched = Trained(RANDOM, CORPUS, SEARCHED)
    # at the least: the beginning and its four neighbours, and the better two again with the other seed
    assert costs.flops([searched]) == searched.flops + 7 * one.flops and SEARCH.tokens == 7 * one.tokens


@pytest.mark.parametrize("scale", SCALES.values(), ids=list(SCALES))
def test_the_cost_of_n_sizes_comes_from_the_trees_that_are_run(scale) -> None:
    frame = paper_map.cumulative(scale, seed=1)
    trees = paper_map.trees(scale, 1, scale.ladder)
    free = free_at(scale, 1)
    assert set(frame.method) == set(trees)
    for method, rows in frame.groupby("method"):
        values = rows.sort_values("sizes").value.tolist()
        expected = [costs.flops(trees[method][:n], given=free) for n in range(1, len(scale.ladder) + 1)]
        assert values == [float(value) for value in expected]
        assert values == sorted(values)
        growth = [b - a for a, b in pairwise(values)]
        if method == "chain (CBD)":  # O(1): no target costs anything once the anchors around it are there
            assert values[-1] <= costs.flops(chain(scale, 1).models, given=free)
            anchors = {recipe.key for tree in trees[method] for recipe in tree.inputs}
            assert sum(step > 0 for step in growth) <= len(anchors)
        else:  # O(N): each target costs its own run
            assert growth == [float(tree.flops) for tree in trees[method][1:]]
            assert min(growth) > 0


def test_the_chain_of_the_cost_figure_is_the_one_that_the_experiments_run() -> None:
    ran = walk(design_of("initialise", SMOKE, 0).recipes) | walk(design_of("chain", SMOKE, 0).recipes)
    tree = walk(paper_map.trees(SMOKE, 0, SMOKE.ladder)["chain (CBD)"])
    assert set(tree) <= set(ran)


def test_plans_are_built_without_torch_and_quickly() -> None:
    """Every experiment at every scale, the paper's included, as `cbd plan` renders it."""
    code = """
import sys, time
start = time.process_time()
from cbd import cli
from cbd.experiments import EXPERIMENTS
for scale in ("smoke", "laptop", "gpu", "paper"):
    for name in ("all", *EXPERIMENTS):
        refused = name in ("families", "basis", "distillers", "nested") and scale in ("gpu", "paper")
        assert cli.main(["plan", name, "--scale", scale]) == (2 if refused else 0)
heavy = {"torch", "transformers", "datasets"} & set(sys.modules)
assert not heavy, heavy
print(time.process_time() - start, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("in all ") == 4 * (1 + len(EXPERIMENTS)) - 8
    assert float(done.stderr.split()[-1]) < 20  # processor seconds, import of pandas included


def test_a_plan_says_how_much_is_left() -> None:
    from cbd.realize.plan import grouped, render

    recipes = design_of("chain", SMOKE, 0).recipes
    groups = grouped(recipes)
    assert [step for group in groups.values() for step in group] == list(walk(recipes).values())
    needed_by = {number: needs for number, (*_, needs) in enumerate(groups, start=1)}
    assert all(max(needs, default=0) < number for number, needs in needed_by.items())
    text = render(recipes, costs.H100)
    needed = walk(recipes).values()
    assert f"in all {len(needed)} recipes, {sum(r.tokens for r in needed):,} training tokens" in text


# Alpha by the rule


def test_alpha_of_the_papers_example() -> None:
    assert distance_alpha(GPT2_B, GPT2_M, SLM_138M) == pytest.approx(0.94, abs=0.005)


@given(st.integers(1, 24), st.integers(1, 16))
def test_alpha_is_one_at_the_small_anchor_and_falls_with_size(layers: int, heads: int) -> None:
    small, large = gpt2(4, 256), gpt2(20, 1024)
    target = gpt2(layers, 64 * heads)
    alpha = distance_alpha(small, large, target)
    assert 0 <= alpha <= 1
    assert distance_alpha(small, large, gpt2(layers + 1, 64 * heads)) <= alpha
    assert (distance_alpha(small, large, small), distance_alpha(small, large, large)) == (1, 0)
    if encloses(small, large, target):
        mixed = alpha * small.parameters + (1 - alpha) * large.parameters
        assert mixed == pytest.approx(target.parameters)
    assert distance_alpha(small, small, target) == 1


def test_a_given_alpha_is_kept_and_the_word_means_the_rule() -> None:
    assert resolve_alpha(0.3, SPEC, OTHER, SPEC) == 0.3
    assert resolve_alpha(1, SPEC, OTHER, SPEC) == 1.0
    assert resolve_alpha("distance", GPT2_B, GPT2_M, SLM_138M) == distance_alpha(GPT2_B, GPT2_M, SLM_138M)


@pytest.mark.parametrize("alpha", [-0.01, 1.01, math.nan, math.inf, "half", "", None, [0.5]])
def test_any_other_alpha_is_refused(alpha) -> None:
    with pytest.raises(CbdError, match=r'give a number in \[0, 1\], or "distance"'):
        resolve_alpha(alpha, SPEC, OTHER, SPEC)


# The chain


def inherited_chain(*specs) -> Chain:
    models: list[Recipe] = [Source("top", specs[0])]
    for spec in specs[1:]:
        models.append(Anchor.inherited(models[-1], spec, CORPUS, TRAINING, Loss("reverse_kl", 0.5)))
    return Chain(tuple(models))


def test_a_target_gets_the_two_neighbours_around_it() -> None:
    knowledge = inherited_chain(GPT2_L, GPT2_M, GPT2_B)
    top, middle, bottom = knowledge.models
    small, large = knowledge.pair_around(SLM_138M)
    assert (small, large) == (bottom, Sorted(middle))
    assert knowledge.pair_around(SLM_380M) == (middle, Sorted(top))
    assert knowledge.pair_around(SLM_537M) == (middle, Sorted(top))
    # a shape that two pairs enclose belongs to the larger pair; an anchor's own shape is inside
    assert knowledge.pair_around(GPT2_M) == (middle, Sorted(top))
    assert knowledge.pair_around(GPT2_B) == (bottom, Sorted(middle))


@pytest.mark.parametrize("spec", [SLM_51M, gpt2(48, 1600), gpt2(12, 1280), gpt2(36, 768)])
def test_a_target_outside_the_chain_is_refused(spec) -> None:
    with pytest.raises(
        CbdError, match="lies between no two neighbours of the chain 36x1280 > 24x1024 > 12x768"
    ):
        inherited_chain(GPT2_L, GPT2_M, GPT2_B).pair_around(spec)


def test_an_anchor_is_aligned_with_a_smaller_one_only_where_that_inherited_from_it() -> None:
    teacher, stranger = Source("teacher", GPT2_M), Source("stranger", GPT2_M)
    inherited = Anchor.inherited(teacher, GPT2_B, CORPUS, TRAINING, Loss("jsd", 0.5))
    independent = Anchor.from_random(teacher, GPT2_B, CORPUS, TRAINING, Loss("jsd", 0.5))
    plain_cut = Anchor(teacher, Transferred(teacher, GPT2_B), CORPUS, TRAINING)
    assert aligned(teacher, inherited) == Sorted(teacher) == inherited.start.model
    assert aligned(stranger, inherited) == stranger
    for small in (independent, plain_cut, Source("b", GPT2_B)):
        assert aligned(teacher, small) == teacher


def test_independent_anchors_have_their_own_random_weights() -> None:
    kinds = {kind: chain(SMOKE, 0, kind) for kind in ("inherited", "independent")}
    assert kinds["inherited"].models[0] == kinds["independent"].models[0]
    starts = [anchor.start for anchor in kinds["independent"].models[1:]]
    assert all(isinstance(start, Random) for start in starts)
    seeds = {start.seed for start in starts} | {kinds["independent"].models[0].start.seed}
    assert chain(SMOKE, 0, "independent").models[0].start.seed not in {start.seed for start in starts}
    assert len(seeds) > 1
    for teacher, anchor in zip(kinds["inherited"].models, kinds["inherited"].models[1:], strict=False):
        assert anchor.teacher == teacher
        assert anchor.start == Transferred(Sorted(teacher), anchor.spec)


@pytest.mark.parametrize("scale", SCALES.values(), ids=list(SCALES))
def test_every_target_of_a_scale_lies_in_its_chain(scale) -> None:
    for seed in (0, 1):
        for spec in {*scale.ladder, *scale.alpha_targets, *scale.convergence_targets}:
            recipe = initialised(chain(scale, seed), spec)
            assert encloses(recipe.small.spec, recipe.large.spec, spec)
            assert 0 <= resolve_alpha("distance", recipe.small.spec, recipe.large.spec, spec) <= 1
            assert spec not in (recipe.small.spec, recipe.large.spec)


def test_the_named_operators_are_distinct_choices() -> None:
    assert len(set(OPERATORS.values())) == len(OPERATORS)
    preserving = {name for name, operator in OPERATORS.items() if operator.trans.preserving}
    assert preserving >= {"literal", "union", "duplicate"} and not preserving & {"lossy", "tile"}

"""The search for a rate and a warm-up: where its walk ends, its cost, and that a run takes what it found."""

import json
import math
import shutil
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cbd.errors import CbdError, Diverged
from cbd.realize import realize, store
from cbd.recipes.models import Random
from cbd.recipes.specs import gpt2
from cbd.recipes.training import Search, Trained, Training
from cbd.training import search
from cbd.training.search import walk

CONTEXT = 16
TRAINING = Training(
    tokens=6 * 2 * CONTEXT,
    lr=1e-3,
    warmup_tokens=3 * 2 * CONTEXT,
    batch=2,
    context=CONTEXT,
    evaluations=1,
    evaluation_tokens=8 * CONTEXT,
)
EVERYWHERE = lambda point: True  # noqa: E731


def around(point):
    return [(point[0] + i, point[1]) for i in (-1, 1)] + [(point[0], point[1] + i) for i in (-1, 1)]


@given(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), st.floats(0.1, 3), st.floats(0.1, 3))
def test_a_bowl_is_walked_to_its_bottom_and_every_run_is_made_once(bottom, a, b):
    asked = []

    def loss(point, seed):
        asked.append((point, seed))
        return a * (point[0] - bottom[0]) ** 2 + b * (point[1] - bottom[1]) ** 2

    assert walk(loss, (1, 2, 3), EVERYWHERE) == bottom
    steps = abs(bottom[0]) + abs(bottom[1])
    assert len(set(asked)) <= 5 + 3 * steps + 4, "it walks, it does not sweep"


@given(st.dictionaries(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), st.floats(1, 5)), st.data())
def test_on_any_landscape_the_end_beats_its_neighbours_and_the_start(heights, data):
    """Of a rough landscape too: no edge of a grid can win, since the grid goes on."""
    noise = data.draw(st.dictionaries(st.integers(2, 3), st.floats(-0.5, 0.5), min_size=2, max_size=2))
    ground = lambda point: heights.get(point, 10 + abs(point[0]) + abs(point[1]))  # noqa: E731
    loss = lambda point, seed: ground(point) + noise.get(seed, 0.0) * (point[0] % 2)  # noqa: E731
    best = walk(loss, (1, 2, 3), EVERYWHERE)
    assert best == walk(loss, (1, 2, 3), EVERYWHERE)
    walked = walk(loss, (1,), EVERYWHERE)
    assert all(ground(walked) <= ground(point) for point in around(walked))
    assert ground(walked) <= ground((0, 0))
    mean = lambda point: sum(loss(point, seed) for seed in (1, 2, 3)) / 3  # noqa: E731
    assert mean(best) <= mean(walked) + 1e-9


def test_where_the_seeds_disagree_with_the_walk_it_goes_on_from_their_choice():
    """The first seed sees its bottom at (0, 0), the others far from there."""
    asked = set()

    def loss(point, seed):
        asked.add((point, seed))
        return (point[0] + (0 if seed == 1 else 4)) ** 2 + 50 * point[1] ** 2

    assert walk(loss, (1, 2, 3), EVERYWHERE) == (-3, 0), "where the mean is lowest on the grid"
    assert {(-4, 0), (-2, 0)} <= {point for point, seed in asked if seed == 3}
    assert walk(loss, (2, 3), EVERYWHERE) == (-4, 0) and walk(loss, (1,), EVERYWHERE) == (0, 0)


@given(st.floats(0.01, 3), st.integers(-6, 6))
def test_a_walk_goes_on_for_no_less_than_it_is_told(least, bottom):
    """Down a line, a step of which is a gain of 1 nat: it is walked, or one point is looked at and taken."""
    asked = set()

    def loss(point, seed):
        asked.add(point)
        return abs(point[0] - bottom) + 10.0 * abs(point[1])

    end = walk(loss, (1,), EVERYWHERE, least)
    assert end[0] == (bottom if least < 1 or abs(bottom) <= 1 else math.copysign(1, bottom))
    assert least < 1 or len(asked) == 5
    assert walk(loss, (1, 2), EVERYWHERE, least) == end


def test_a_walk_stays_inside_and_steps_over_what_diverges():
    loss = lambda point, seed: math.inf if point[0] > 1 else -point[0] - point[1]  # noqa: E731
    assert walk(loss, (1, 2), lambda point: point[1] <= 2) == (1, 2)
    with pytest.raises(CbdError, match="begin at a lower one"):
        walk(lambda point, seed: math.inf, (1, 2), EVERYWHERE)


@pytest.mark.parametrize(("longest", "tried"), [(True, {64, 128, 192}), (False, {16 * 2, 64, 128, 192})])
def test_the_longest_warm_up_is_the_whole_run(tmp_path, monkeypatch, longest, tried):
    run = replace(TRAINING, warmup_tokens=128)
    asked = []

    def loss(start, lesson, training, place, title):
        asked.append(training.warmup_tokens)
        return abs(math.log(training.lr / run.lr)) + (-1 if longest else 1) * training.warmup_tokens / 1000

    monkeypatch.setattr(search, "_final_loss", loss)
    best = search.search([tmp_path] * 2, None, run, (1, 2), tmp_path, tmp_path)["best"]
    assert best == {"lr": run.lr, "warmup_tokens": run.tokens if longest else 32} and set(asked) == tried


@pytest.fixture
def searched(tiny_corpus, tmp_path, monkeypatch) -> Search:
    """Each of its seeds has random weights of its own."""
    monkeypatch.setenv("CBD_STORE", str(tmp_path / "store"))
    spec = gpt2(1, 32, head_dim=16, vocab=300, positions=32)
    first, second = (Random(spec, tiny_corpus, seed) for seed in (0, 1))
    return Search(first, tiny_corpus, TRAINING, (1000, 1001), (second,))


def found(recipe: Search) -> dict:
    return json.loads((realize(recipe) / "search.json").read_text())


def test_a_search_is_of_real_runs_and_says_what_it_cost(searched):
    result, record = found(searched), store.record(searched)
    tried = {(r["lr"], r["warmup_tokens"], r["seed"]): r["loss"] for r in result["tried"]}
    assert len(tried) == len(result["tried"]) >= searched.fewest
    best = result["best"]["lr"], result["best"]["warmup_tokens"]
    for start, seed in zip(searched.starts, searched.seeds, strict=True):  # the very losses of plain runs
        training = replace(TRAINING, lr=best[0], warmup_tokens=best[1], seed=seed)
        run = Trained(start, searched.corpus, training)
        realize(run)
        assert store.record(run)["final_loss"] == tried[*best, seed]
        assert record["tokens"] == len(tried) * run.tokens and record["flops"] == len(tried) * run.flops
    lr, warmup, _ = min((run for run in tried if run[2] == 1000), key=tried.get)
    rates = [rate for rate, tokens, seed in tried if seed == 1000 and tokens == warmup]
    assert min(rates) < lr < max(rates), "a rate on either side of the walk's end was tried"


def test_a_run_trains_at_what_its_search_found(searched):
    run = Trained(searched.start, searched.corpus, replace(TRAINING, lr=searched, warmup_tokens=None, seed=5))
    folder, best = realize(run), found(searched)["best"]
    fixed = realize(replace(run, training=replace(TRAINING, **best, seed=5)))
    assert (folder / "model.safetensors").read_bytes() == (fixed / "model.safetensors").read_bytes()
    assert store.record(run)["lr"] == best["lr"]


def test_a_killed_search_repeats_no_finished_run(searched, monkeypatch):
    train, made, kills = search.train, [], [1, 4]

    def counted(*args, **kwargs):
        if len(made) in kills:
            kills.remove(len(made))
            raise KeyboardInterrupt
        made.append(args[2])
        return train(*args, **kwargs)

    monkeypatch.setattr(search, "train", counted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            realize(searched)
    result = found(searched)
    assert len(made) == len(set(made)) == len(result["tried"])
    shutil.rmtree(store.folder(searched))
    monkeypatch.setattr(search, "train", train)
    assert found(searched) == result


def test_a_rate_that_diverges_is_told_apart_from_a_mistake(searched, monkeypatch):
    train = search.train

    def wild(start, lesson, training, lr, *rest):
        if lr > TRAINING.lr:
            raise Diverged("training diverged")
        return train(start, lesson, training, lr, *rest)

    monkeypatch.setattr(search, "train", wild)
    result = found(searched)
    assert any(run["loss"] is None for run in result["tried"]) and result["best"]["lr"] <= TRAINING.lr

    def broken(*args):
        raise CbdError("no such tokenizer")

    monkeypatch.setattr(search, "train", broken)
    with pytest.raises(CbdError, match="no such tokenizer"):
        realize(replace(searched, seeds=(7,), others=()))


def test_other_starts_are_one_for_each_seed_after_the_first(searched):
    with pytest.raises(CbdError, match="one for each seed after the first"):
        replace(searched, seeds=(1, 2, 3))
    same = replace(searched, others=())
    assert same.starts == (searched.start,) * 2 and same.key != searched.key

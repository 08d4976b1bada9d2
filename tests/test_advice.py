"""`cbd plan --targets`: the arithmetic against independent references, and what the advice says."""

from __future__ import annotations

import itertools
import math
import shlex
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_scorecard import empty, nest, recovery  # noqa: F401  (a fixture)

from cbd import cli
from cbd.commands.advise import advise, measured
from cbd.errors import CbdError
from cbd.experiments.scales import SCALES
from cbd.recipes import advice
from cbd.recipes.data import Corpus
from cbd.recipes.models import Random, Source
from cbd.recipes.specs import NAMED
from cbd.recipes.training import Anchor, Loss, Nested, Training
from cbd.report import results
from cbd.report.names import RANDOM

SIZES = st.lists(st.floats(1e6, 5e8), min_size=1, max_size=5, unique=True)
BUDGETS = st.floats(1e17, 1e22)
SOURCE = 7.74e8


def ways(sizes):
    return [
        advice.scratch(sizes),
        advice.direct(sizes, SOURCE),
        advice.chain(sizes, SOURCE, 1e8),
        advice.nested(sizes, SOURCE),
    ]


# ---- the arithmetic


@given(SIZES, BUDGETS, st.floats(0, 1e10))
def test_the_whole_budget_is_spent_and_no_more(sizes, budget, worth):
    for way in ways(sizes):
        spent = way.fixed + sum(map(float.__mul__, way.tokens(budget, worth), way.each))
        assert spent == pytest.approx(max(budget, way.fixed), rel=1e-6)


@given(SIZES.filter(lambda sizes: len(sizes) > 1), BUDGETS, st.floats(0, 1e10), st.data())
def test_no_other_division_of_the_budget_has_a_lower_mean_loss(sizes, budget, worth, data):
    way = advice.scratch(sizes)
    tokens = list(way.tokens(budget, worth))
    giver, taker = data.draw(st.permutations(range(len(sizes))))[:2]
    moved = data.draw(st.floats(0, 1)) * tokens[giver] * way.each[giver]
    total = lambda after: sum(advice.loss(n, t + worth) for n, t in zip(sizes, after, strict=True))  # noqa: E731
    best = total(tokens)
    tokens[giver] -= moved / way.each[giver]
    tokens[taker] += moved / way.each[taker]
    assert total(tokens) >= best - 1e-6


def test_the_law_agrees_with_the_chinchilla_run_that_it_was_fitted_to():
    """arXiv 2203.15556: 70e9 parameters, 1.4e12 tokens; its fit there gives 1.94, the refit is close."""
    assert advice.loss(70e9, 1.4e12) == pytest.approx(1.94, abs=0.05)
    assert math.isinf(advice.loss(1e8, 0))


@given(SIZES, BUDGETS)
def test_at_break_even_a_way_is_as_good_as_scratch(sizes, budget):
    scratch, *others = ways(sizes)
    other = scratch.mean_loss(budget)
    for way in others:
        factor = way.needed_factor(budget, other) if way.mean_loss(budget) < math.inf else None
        if factor is not None:
            assert way.mean_loss(budget, factor=factor) == pytest.approx(other, abs=1e-6)
    chain = others[1]
    if chain.fixed < budget:
        needed = chain.break_even(budget, other)
        assert needed > 0 and chain.mean_loss(budget, needed) == pytest.approx(other, abs=1e-6)


@given(st.floats(1e6, 5e8))
def test_anchors_are_the_fewest_with_no_gap_too_wide(smallest):
    found = (SOURCE, *advice.anchors(SOURCE, smallest))
    gaps = [a / b for a, b in itertools.pairwise(found)]
    assert found[-1] == smallest and max(gaps) <= advice.WIDEST * 1.001
    assert max(gaps) == pytest.approx(min(gaps))
    fewer = len(gaps) - 1
    assert fewer == 0 or (SOURCE / smallest) ** (1 / fewer) > advice.WIDEST


def test_the_costs_are_those_of_the_recipes():
    """Counted by shape, with attention, they differ from 6 N and 2 N by less than a tenth."""
    large, middle, small = NAMED["GPT2-L"], NAMED["GPT2-M"], NAMED["GPT2-B"]
    training, corpus = Training(1_000_000, 1e-3, context=256), Corpus()
    steps = [
        Anchor(Source("teacher", t), Random(s, corpus), corpus, training, Loss("reverse_kl"))
        for t, s in ((large, middle), (middle, small))
    ]
    exact = sum(step.flops_per_token for step in steps)
    pairs = ((large, middle), (middle, small))
    counted = sum(advice.trained(s.parameters) + advice.read(t.parameters) for t, s in pairs)
    assert counted == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_a_nested_step_costs_what_its_recipe_says(count):
    llm, corpus = Source("teacher", NAMED["GPT2-L"]), Corpus()
    specs = tuple(replace(llm.spec, layers=layers) for layers in range(10, 10 + count))
    run = Nested(llm, llm, specs, corpus, Training(1_000_000, 1e-3, context=256))
    way = advice.nested([spec.parameters for spec in specs], llm.spec.parameters)
    assert sum(way.each) == pytest.approx(run.flops_per_token, rel=0.1)
    assert len(set(way.tokens(1e18))) == 1


# ---- what it says


def write(start: float, end: float) -> None:
    """`convergence`: where CBD starts and ends against random's 6.0 after 400,000 and 800,000 tokens."""
    table = recovery([6.0 + start] * 3, single=6.0, random=6.0, end=end)
    longer = {name: table[name] * 4000 for name in ("tokens", "budget")}
    results.write_table(table.assign(**longer, experiment="convergence"), "laptop", "convergence")


def told() -> list[str]:
    return list(advise([51e6, 138e6, 380e6], 1e20, SOURCE))


def test_without_a_measured_table_nothing_is_recommended(empty):  # noqa: F811
    assert measured() is None
    lines = told()
    assert any("no way is recommended" in line for line in lines)
    assert not any(line.startswith("Recommended") for line in lines)


def test_the_recommendation_follows_what_starts_were_measured_to_save(empty):  # noqa: F811
    write(start=-1.0, end=-2.0)  # scratch's 800,000 tokens, twice an anchor's, are saved whole
    found = measured()
    assert found.low == pytest.approx(800_000 / SCALES["laptop"].anchor_training.tokens)
    assert math.isinf(found.high)
    needs = [line for line in told() if "or more times an anchor's tokens" in line]
    assert len(needs) == 1
    assert any(line.endswith("the chain.") for line in told())
    alone = advise([51e6], 1e20, SOURCE)  # one size has to pay for the whole chain
    assert any(line.startswith("That span holds") for line in alone)
    write(start=1.0, end=0.5)  # CBD never gets there: a start saves nothing
    assert measured().high == 0
    assert any(line.endswith("scratch.") for line in told())


def test_a_nested_run_stands_beside_the_chain_as_it_was_measured(empty):  # noqa: F811
    write(start=-1.0, end=-1.0)
    assert "A nested run has not been measured here." in told()
    results.write_table(nest(0.25, -0.5, 0.125).assign(experiment="nested"), "laptop", "nested")
    said = " ".join(told())
    assert "minus the chain, in nats: +0.25 to +0.25 at the anchors' sizes;" in said
    assert "in between -0.50 to -0.50 untrained and +0.12 to +0.12 after recovery." in said


def test_a_budget_whose_loss_no_run_of_ours_was_long_enough_to_reach_says_nothing(empty):  # noqa: F811
    """Scratch was trained much longer than CBD: that CBD's short runs end above it shows no saving of 0."""
    write(start=-1.0, end=-2.0)
    table = results.read_table("laptop", "convergence")
    random = (table["method"] == RANDOM) & (table["budget"] == table["budget"].max())
    far = table[random].assign(budget=8_000_000, recipe=table.loc[random, "recipe"] + "longer")
    far["tokens"] = far["tokens"].where(far["tokens"] == 0, 8_000_000)
    far["value"] = far["value"].where(far["tokens"] == 0, 1.0)
    before = measured()
    results.write_table(pd.concat([table, far], ignore_index=True), "laptop", "convergence")
    assert measured() == before and before.low > 0


def test_an_untuned_baseline_is_not_believed(empty):  # noqa: F811
    write(start=-1.0, end=-2.0)
    table = results.read_table("laptop", "convergence")
    long = table["budget"] == table["budget"].max()
    early = table[long & (table["method"] == RANDOM) & (table["tokens"] > 0)]
    early = early.assign(tokens=int(table["budget"].min()), value=4.0)
    results.write_table(pd.concat([table, early], ignore_index=True), "laptop", "convergence")
    assert measured() is None


@pytest.mark.parametrize(("budget", "outside"), [(1e15, True), (1e18, False)])
def test_a_budget_far_outside_the_law_is_said_to_be(budget, outside):
    said = [line for line in advise([51e6, 138e6], budget, SOURCE) if "worse than guessing" in line]
    assert bool(said) == outside


def test_the_printed_commands_are_commands():
    lines = [line.strip() for line in told() if line.startswith("  cbd ")]
    assert [line.split()[1] for line in lines] == ["chain", *["init", "recover"] * 3]
    for line in lines:
        cli.parser().parse_args(shlex.split(line)[1:])


def test_what_is_left_out_or_cannot_be_is_refused(capsys):
    def refused(*words: str) -> str:
        assert cli.main(["plan", *words]) == 2
        return capsys.readouterr().err

    assert "needs --budget" in refused("--targets", "51M")
    assert "write 1e20" in refused("--targets", "51M", "--budget", "much", "--source", "774M")
    assert "not below --source" in refused("--targets", "51M,1B", "--budget", "1e20", "--source", "774M")
    more = ("--targets", "51M", "--budget", "1e20", "--source", "774M", "--anchor-tokens", "900B")
    assert "leave nothing of --budget" in refused(*more)
    with pytest.raises(CbdError, match="not below"):
        next(advise([SOURCE], 1e20, SOURCE))

"""Statistics: intervals over seeds and items, pairing, power, tokens to reach a loss, the best alpha."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pandas as pd
import pytest
from conftest import tidy
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from cbd.errors import CbdError
from cbd.report import stats

nan = float("nan")


def frame(values, **columns):
    """A row a seed and method: values[method] is a list over seeds."""
    return pd.DataFrame(
        [
            {"method": method, "seed": seed, "value": value} | columns
            for method, over_seeds in values.items()
            for seed, value in enumerate(over_seeds)
        ]
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=7, unique=True))
def test_few_seeds_give_students_t(values):
    """Its ends are the values at which the t-test over these seeds is just significant."""
    found = stats.interval(values)
    for end in (found.low, found.high):
        assert ttest_1samp(values, end).pvalue == pytest.approx(0.05, abs=1e-6)
    assert found.point == pytest.approx(np.mean(values), abs=1e-9) and found.n == len(values)


def test_many_seeds_give_the_bootstrap():
    found = stats.interval([*range(7), 100])
    assert 0 < found.low < found.point < found.high < 100
    assert found.high - found.point > 1.2 * (found.point - found.low), "it is as lopsided as the values"


def test_coverage_is_what_the_docstring_says():
    """The mean of a normal: 95 % of three-seed intervals hold it, and close to that of those of thirty."""
    rng = np.random.default_rng(7)
    held = {n: np.mean([_holds(stats.interval(rng.normal(size=n))) for _ in range(400)]) for n in (3, 30)}
    assert held[3] == pytest.approx(0.95, abs=0.033)  # three standard errors of 400 draws
    assert held[30] == pytest.approx(0.935, abs=0.037)


def _holds(found):
    return found.low <= 0 <= found.high


def test_degenerate_samples_make_no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert stats.interval([2.5] * 4) == stats.Interval(2.5, 2.5, 2.5, 4)
        one = stats.interval([2.5])
        lost = stats.interval([2.5, nan, float("inf")])
    assert (one.point, one.n) == (2.5, 1) and math.isnan(one.low) and math.isnan(one.high)
    assert all(map(math.isnan, (lost.point, lost.low, lost.high))) and lost.n == 3
    with pytest.raises(CbdError, match="at least one"):
        stats.interval([])


def test_the_global_generator_is_neither_used_nor_moved():
    values = np.arange(12.0) ** 2
    np.random.seed(1)
    first = stats.interval(values)
    state = np.random.get_state()[1].copy()
    np.random.seed(2)
    assert stats.interval(values) == first
    np.random.seed(1)
    stats.interval(values)
    assert (np.random.get_state()[1] == state).all()


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(10)))
def test_summaries_do_not_depend_on_the_order_of_rows(order):
    data = frame({"a": [1.1, 2.7, 3.1, 4.9, 5.2], "b": [0.1, 0.2, 0.3, 0.9, 0.7]}, spec="4x80")
    shuffled = data.iloc[list(order)]
    by = ["method", "spec"]
    pd.testing.assert_frame_equal(stats.summarise(shuffled, by), stats.summarise(data, by), check_exact=True)
    pd.testing.assert_frame_equal(
        stats.paired(shuffled, ["spec"], baseline="a"),
        stats.paired(data, ["spec"], baseline="a"),
        check_exact=True,
    )


def test_other_groups_do_not_move_an_interval():
    data = frame({"a": [1.1, 2.7, 3.1, 4.9], "b": [0.1, 0.2, 0.3, 0.9]})
    alone = stats.summarise(data[data["method"] == "b"], ["method"])
    pd.testing.assert_frame_equal(
        stats.summarise(data, ["method"]).iloc[1:].reset_index(drop=True), alone, check_exact=True
    )


def test_summaries_keep_missing_groups_and_types():
    rows = [
        {
            "experiment": "e",
            "method": "m",
            "metric": "loss",
            "alpha": alpha,
            "seed": seed,
            "tokens": 8,
            "value": seed,
        }
        for alpha in (0.5, None)
        for seed in (0, 1)
    ]
    summary = stats.summarise(tidy(rows), ["alpha", "tokens"])
    assert summary["n"].tolist() == [2, 2] and math.isnan(summary["alpha"][1])
    assert summary["tokens"].dtype == "Int64"


def test_a_seed_counted_twice_is_refused():
    data = frame({"a": [1, 2]}, tokens=0)
    with pytest.raises(CbdError, match="more than one row for method a, seed 0"):
        stats.summarise(pd.concat([data, data.assign(tokens=9)]), ["method"])
    assert len(stats.summarise(pd.concat([data, data.assign(tokens=9)]), ["method", "tokens"])) == 2
    with pytest.raises(CbdError, match="column 'spec' is not in the table"):
        stats.summarise(data, ["spec"])


def test_pairing_removes_what_the_seed_moves_in_both():
    seeds = np.array([0.0, 1.0, -1.0, 2.0])
    data = frame({"random": 5 + seeds, "CBD": 4.9 + seeds + [0.01, -0.01, 0, 0]}, spec="x")
    difference = stats.paired(data, ["spec"], baseline="random").iloc[0]
    assert difference["method"] == "CBD" and difference["point"] == pytest.approx(-0.1)
    assert difference["high"] < 0
    apart = stats.summarise(data, ["method"]).set_index("method")
    assert apart.loc["CBD", "high"] > apart.loc["random", "low"]  # unpaired, the two overlap


def test_pairing_matches_seeds_not_rows():
    data = frame({"a": [1.0, 2.0, 3.0], "b": [1.5, 2.5, 3.5]}, spec="x")
    found = stats.paired(data.iloc[[2, 0, 1, 4, 5, 3]], ["spec"], baseline="a")
    assert found[["point", "low", "high"]].iloc[0].tolist() == [0.5, 0.5, 0.5]
    assert found["spec"].tolist() == ["x"] and found["n"].tolist() == [3]


def test_unmatched_pairs_are_refused():
    data = frame({"a": [1.0, 2.0], "b": [1.5, 2.5, 3.5]}, spec="x")
    with pytest.raises(CbdError, match="seeds of 'b'"):
        stats.paired(data, ["spec"], baseline="a")
    with pytest.raises(CbdError, match="baseline 'c'"):
        stats.paired(data, ["spec"], baseline="c")


@pytest.mark.parametrize("chunk", [stats.CHUNK, 3 * 700])  # all at once; fifteen chunks, the last one short
def test_seeds_and_items_are_drawn_independently(monkeypatch, chunk):
    """The reference: the mean of every choice of three seeds and, apart from them, three items."""
    monkeypatch.setattr(stats, "CHUNK", chunk)
    data = np.array([[0.3, 2.0, -1.0], [2.4, 2.6, -0.7], [-1.9, 1.6, -1.3]])
    draws = [list(draw) for draw in itertools.product(range(3), repeat=3)]
    exact = [data[seeds][:, items].mean() for seeds in draws for items in draws]
    monkeypatch.setattr(stats, "CONFIDENCE", 0.8)
    found = stats.crossed_interval(data)
    assert found.point == pytest.approx(data.mean()) and found.n == 3
    for share, end in ((0.1, found.low), (0.9, found.high)):
        assert np.quantile(exact, share - 0.015) <= end <= np.quantile(exact, share + 0.015)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(-3, 3), st.floats(0.1, 10))
def test_a_crossed_interval_moves_with_shift_and_scale(seed, shift, scale):
    data = np.random.default_rng(seed).normal(size=(3, 20))
    one = stats.crossed_interval(data)
    two = stats.crossed_interval(data * scale + shift)
    assert (two.point, two.low, two.high) == pytest.approx(
        tuple(v * scale + shift for v in (one.point, one.low, one.high)), abs=1e-9
    )
    assert one.low < one.point < one.high


def test_what_is_not_drawn_leaves_the_other():
    values = np.random.default_rng(0).normal(size=40)
    items, seeds = stats.crossed_interval(values[None]), stats.crossed_interval(values[:, None])
    alone = stats.interval(values)
    for found, n in ((items, 1), (seeds, 40)):
        assert found.n == n and found.point == pytest.approx(alone.point)
        assert found.low == pytest.approx(alone.low, abs=0.02)
        assert found.high == pytest.approx(alone.high, abs=0.02)


def test_the_crossed_interval_is_conservative(monkeypatch):
    """Noise of the cells alone counts three times over; of ten seeds' and fifty items' effects, once."""
    monkeypatch.setattr(stats, "RESAMPLES", 500)
    rng = np.random.default_rng(11)
    noise = [stats.crossed_interval(rng.normal(size=(10, 50))) for _ in range(60)]
    widths = np.array([found.high - found.low for found in noise])
    expected = 2 * 1.96 * np.sqrt((0.9 / 10 / 50) + 0.98 / 50 / 10 + 0.9 * 0.98 / 500)
    assert widths.mean() == pytest.approx(expected, rel=0.06)
    held = [_holds(stats.crossed_interval(_crossed(rng))) for _ in range(300)]
    assert np.mean(held) == pytest.approx(0.93, abs=0.045)


def _crossed(rng):
    return rng.normal(size=(10, 1)) * 0.1 + rng.normal(size=50) * 0.3 + rng.normal(size=(10, 50)) * 0.5


def test_degenerate_crossed_tables():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = stats.crossed_interval([[2.5]])
        lost = stats.crossed_interval([[1.0, nan], [2.0, 3.0]])
        assert stats.crossed_interval(np.full((3, 4), 0.1)) == stats.Interval(0.1, 0.1, 0.1, 3)
    assert (one.point, one.n) == (2.5, 1) and math.isnan(one.low) and math.isnan(one.high)
    assert all(map(math.isnan, (lost.point, lost.low, lost.high))) and lost.n == 2
    for table, message in (
        ([1.0, 2.0], "one row a seed"),
        (np.empty((0, 3)), "at least one"),
        (np.empty((3, 0)), "at least one"),
    ):
        with pytest.raises(CbdError, match=message):
            stats.crossed_interval(table)


def test_a_crossed_interval_leaves_the_global_generator_alone():
    data = np.random.default_rng(4).normal(size=(4, 30))
    state = np.random.get_state()[1].copy()
    first = stats.crossed_interval(data)
    assert (np.random.get_state()[1] == state).all()
    np.random.seed(5)
    assert stats.crossed_interval(data) == first


@pytest.mark.parametrize(
    ("n", "power", "level", "comparisons"),
    [(5, 0.8, 0.05, 1), (5, 0.8, 0.05, 12), (3, 0.5, 0.05, 1), (2, 0.8, 0.1, 2), (20, 0.9, 0.01, 1)],
)
def test_a_t_test_finds_the_smallest_difference_that_often(monkeypatch, n, power, level, comparisons):
    values = 7 + np.random.default_rng(n).normal(size=n) * 0.3
    monkeypatch.setattr(stats, "POWER", power)
    monkeypatch.setattr(stats, "LEVEL", level)
    smallest = stats.smallest_difference(values, comparisons)
    trials = np.random.default_rng(0).normal(smallest, values.std(ddof=1), size=(20_000, n))
    found = (ttest_1samp(trials, 0, axis=1).pvalue < level / comparisons).mean()
    assert found == pytest.approx(power, abs=3 * math.sqrt(power * (1 - power) / 20_000))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=8, unique=True), st.floats(0.01, 100))
def test_the_smallest_difference_follows_the_spread_only(values, scale):
    values = np.array(values)
    if values.std() < 1e-3:
        return
    smallest = stats.smallest_difference(values)
    assert stats.smallest_difference(values * scale + 3) == pytest.approx(smallest * scale, rel=1e-6)
    assert stats.smallest_difference(values, comparisons=5) > smallest


def test_the_smallest_difference_rises_with_every_demand(monkeypatch):
    """From two seeds and a thousand comparisons on; scipy's lower tail is nan in places and must not get
    in.
    """
    for n in (2, 3, 4, 6, 10, 30):
        found = []
        for power in (0.1, 0.5, 0.8, 0.9, 0.99):
            monkeypatch.setattr(stats, "POWER", power)
            found.append([stats.smallest_difference(range(n), c) for c in (1, 2, 10, 100, 1000)])
        assert np.isfinite(found).all()
        assert (np.diff(found, axis=0) > 0).all() and (np.diff(found, axis=1) > 0).all()


def test_degenerate_smallest_differences():
    assert math.isnan(stats.smallest_difference([])) and math.isnan(stats.smallest_difference([1.0]))
    assert math.isnan(stats.smallest_difference([1.0, nan, 2.0]))
    assert stats.smallest_difference([0.1] * 3) == 0
    with pytest.raises(CbdError, match="comparisons"):
        stats.smallest_difference([1.0, 2.0], comparisons=0)


def curve(*points):
    return pd.DataFrame(points, columns=["tokens", "value"])


def test_tokens_to_reach_interpolates_in_log_tokens():
    loss = curve((0, 8.0), (100, 6.0), (10_000, 4.0), (20_000, 5.0))
    assert stats.tokens_to_reach(loss, 9) == 0
    assert stats.tokens_to_reach(loss, 7) == pytest.approx(50)  # linear from step zero
    assert stats.tokens_to_reach(loss, 6) == 100
    assert stats.tokens_to_reach(loss, 5) == pytest.approx(1_000)
    assert stats.tokens_to_reach(loss.iloc[::-1], 5) == pytest.approx(1_000)
    assert math.isnan(stats.tokens_to_reach(loss, 3.9))
    assert stats.tokens_to_reach(curve((0, nan), (100, 6.0)), 7) == 100
    with pytest.raises(CbdError, match="one run at a time"):
        stats.tokens_to_reach(pd.concat([loss, loss]), 5)


def test_tokens_to_reach_reads_the_columns_of_a_results_table():
    rows = [
        {"experiment": "e", "method": "m", "metric": "loss", "tokens": t, "value": 8 - t / 100}
        for t in (0, 100)
    ]
    assert stats.tokens_to_reach(tidy(rows), 7.5) == pytest.approx(50)


def test_best_alpha_is_a_point_of_the_grid():
    found = stats.best_alpha([1, 0.5, 0], [4.6, 4.5, 4.8])
    assert (found.alpha, found.loss, found.interior) == (0.5, 4.5, True)
    assert found.advantage == pytest.approx(0.1)
    assert stats.best_alpha([0, 0.5, 1], [4.8, 4.7, 4.6]) == stats.BestAlpha(1.0, 4.6, False, 0.0)
    assert stats.best_alpha([0, 0.5, 1], [4.8, 4.6, 4.6]).alpha == 1  # a tie goes to the end
    assert stats.best_alpha([0.3], [4.8]).alpha == 0.3
    for alphas, losses in (([0, 1], [1]), ([], []), ([0, 1], [1, nan]), ([0, 0], [1, 2])):
        with pytest.raises(CbdError):
            stats.best_alpha(alphas, losses)


# Tests made together


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holms_correction_keeps_order_and_never_helps(p):
    found = stats.holm(np.array(p))
    assert (found >= np.array(p) - 1e-12).all() and (found <= 1).all()
    order = np.argsort(p, kind="stable")
    assert (np.diff(found[order]) >= 0).all(), "a smaller p stays the smaller"
    assert found.min() == pytest.approx(min(1, min(p) * len(p)))
    if len(p) == 1:
        assert found[0] == p[0]


def test_holms_correction_by_hand():
    # 4 x 0.01, 3 x 0.02, 2 x 0.03 (0.06 is no less than what came before), 1 x 0.5
    assert stats.holm(np.array([0.5, 0.01, 0.03, 0.02])) == pytest.approx([0.5, 0.04, 0.06, 0.06])


@given(
    st.lists(st.floats(-3, 3), min_size=2, max_size=7, unique=True),
    st.floats(-2, 2),
    st.sampled_from([-1, 1]),
)
def test_a_p_value_is_that_of_the_t_test(values, line, sign):
    """Against scipy's own test of the values that the interval was made from."""
    found = pd.DataFrame([stats.interval(values)])
    side = "above" if sign > 0 else "below"
    [p] = stats.p_values(found, line, side)
    ahead = sign * (np.mean(values) - line) > 0
    assert p == pytest.approx(ttest_1samp(values, line).pvalue if ahead else 1.0, rel=1e-6, abs=1e-9)
    outside = found["low"].iloc[0] > line if sign > 0 else found["high"].iloc[0] < line
    assert (p < 0.05) == outside, "alone it says what the interval says"


def test_what_is_counted_or_endless_is_sure():
    inf, nan = math.inf, math.nan
    rows = [(2, 2, 2, 0), (0, 0, 0, 3), (inf, 2, inf, 5), (inf, 0.5, inf, 5), (2, nan, nan, 1)]
    found = pd.DataFrame(rows, columns=["point", "low", "high", "n"])
    assert list(stats.p_values(found, 1.0, "above")) == [0, 1, 0, 1, 1]


def test_break_even_counts_sizes():
    cost = pd.DataFrame(
        [{"method": m, "sizes": n, "value": v} for n in (1, 2, 3) for m, v in (("chain", 2.5), ("direct", n))]
    )
    assert stats.break_even(cost, "chain", "direct") == 3
    assert stats.break_even(cost[cost["sizes"] < 3], "chain", "direct") is None


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-2, -1, "lower"), (1, 2, "higher"), (-1, 1, "undecided"), (0, 1, "undecided"), (-1, 0, "undecided")],
)
def test_a_verdict_says_where_an_interval_lies(low, high, said):
    assert stats.verdict(low, high) == said
    mirrored = {"lower": "higher", "higher": "lower", "undecided": "undecided"}
    assert stats.verdict(-high, -low) == mirrored[said]


def test_one_seed_decides_nothing():
    only = stats.interval([3.0])
    assert stats.verdict(only.low, only.high) == "undecided"

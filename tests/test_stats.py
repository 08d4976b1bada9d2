"""Statistics: intervals over seeds, pairing, tokens to reach a loss, the best alpha."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cbd import results, stats
from cbd.errors import CbdError

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
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=3))
def test_two_or_three_seeds_give_their_range(values):
    found = stats.interval(values)
    assert found.low == pytest.approx(min(values), abs=1e-9)
    assert found.high == pytest.approx(max(values), abs=1e-9)
    assert found.point == pytest.approx(np.mean(values), abs=1e-9) and found.n == len(values)


def test_with_four_seeds_the_interval_is_inside_the_range():
    found = stats.interval([1, 2, 3, 4])
    assert 1 < found.low < found.point < found.high < 4


def test_coverage_is_what_the_docstring_says():
    """The mean of a normal: 75 % of three-seed intervals hold it, and close to 95 % of those of thirty."""
    rng = np.random.default_rng(7)
    held = {n: np.mean([_holds(stats.interval(rng.normal(size=n))) for _ in range(400)]) for n in (3, 30)}
    assert held[3] == pytest.approx(0.75, abs=0.065)  # three standard errors of 400 draws
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
    with pytest.raises(CbdError, match="confidence"):
        stats.interval([1, 2], confidence=95)


def test_the_generator_is_explicit_and_the_global_one_untouched():
    values = np.arange(12.0) ** 2
    np.random.seed(1)
    first = stats.interval(values)
    state = np.random.get_state()[1].copy()
    np.random.seed(2)
    assert stats.interval(values) == first
    np.random.seed(1)
    stats.interval(values)
    assert (np.random.get_state()[1] == state).all()
    assert stats.interval(values, rng=5) != first
    assert stats.interval(values, rng=5) == stats.interval(values, rng=np.random.default_rng(5))


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
    summary = stats.summarise(results.table(rows), ["alpha", "tokens"])
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
    data = frame({"random": 5 + seeds, "CBD": 4.9 + seeds + [0.01, -0.01, 0, 0]})
    difference = stats.paired(data, [], baseline="random").iloc[0]
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
    data = frame({"a": [1.0, 2.0], "b": [1.5, 2.5, 3.5]})
    with pytest.raises(CbdError, match="seeds of 'b'"):
        stats.paired(data, [], baseline="a")
    with pytest.raises(CbdError, match="baseline 'c'"):
        stats.paired(data, [], baseline="c")
    with pytest.raises(CbdError, match="leave it out"):
        stats.paired(data, ["method"], baseline="a")


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
    assert stats.tokens_to_reach(results.table(rows), 7.5) == pytest.approx(50)


def test_lower_bounds_stand_in_for_runs_that_never_got_there():
    base = {"experiment": "convergence", "method": "CBD", "spec": "4x80", "operator": "budget 9"}
    rows = [base | {"metric": "speedup_final", "seed": s, "value": v} for s, v in ((0, 3.0), (1, nan))]
    rows += [base | {"metric": "speedup_final_lower_bound", "seed": s, "value": 1.5} for s in (1, 0)]
    found = stats.with_lower_bounds(results.table(rows), "speedup_final")
    assert found["value"].tolist() == [3.0, 1.5] and found["bound"].tolist() == [False, True]
    with pytest.raises(CbdError, match="more than one row"):
        stats.with_lower_bounds(results.table(rows + rows), "speedup_final")


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


def test_break_even_counts_sizes():
    cost = pd.DataFrame(
        [{"method": m, "sizes": n, "value": v} for n in (1, 2, 3) for m, v in (("chain", 2.5), ("direct", n))]
    )
    assert stats.break_even(cost, "chain", "direct") == 3
    assert stats.break_even(cost[cost["sizes"] < 3], "chain", "direct") is None

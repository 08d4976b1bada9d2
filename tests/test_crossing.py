"""Where a curve over token budgets crosses a line, and the power law that extrapolates it."""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import astuple

import numpy as np
import pandas as pd
import pytest
from conftest import tidy
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from cbd.errors import CbdError
from cbd.report.crossing import PowerLaw, crossing, fit_power_law

nan, inf = float("nan"), float("inf")
BUDGETS = np.array([1e6, 2e6, 4e6, 8e6, 16e6])


def ladder(*seeds, tokens=BUDGETS):
    """A row a seed and budget: each argument is one seed's values over the budgets."""
    rows = [
        (s, t, v)
        for s, values in enumerate(seeds)
        for t, v in zip(tokens[: len(values)], values, strict=True)
    ]
    return pd.DataFrame(rows, columns=["seed", "tokens", "value"])


def level(*values):
    return pd.DataFrame({"seed": range(len(values)), "value": list(values)})


def test_the_crossing_is_linear_in_log_tokens():
    curves = ladder([5.0, 4.0, 3.0, 2.0, 1.0], [7.0, 6.0, 5.0, 4.0, 3.0])
    assert crossing(curves, level(3.5, 3.5)).tokens == pytest.approx(1e6 * 2**2.5)
    assert crossing(curves, level(3.0, 4.0)).tokens == pytest.approx(1e6 * 2**2.5)  # the mean line
    at = crossing(curves, level(4.0, 4.0))
    assert at.tokens == pytest.approx(4e6) and at.n == 2
    assert not at.upper_bound and math.isnan(at.lower_bound) and math.isnan(at.extrapolated)


def test_a_curve_that_crosses_again_has_reached_the_line_the_first_time():
    wavy = ladder([5.0, 3.0, 4.5, 2.0, 1.0])
    assert crossing(wavy, level(4.0)).tokens == pytest.approx(1e6 * 2**0.5)
    assert crossing(wavy, level(2.5)).tokens == pytest.approx(4e6 * 2**0.8)
    lost = crossing(ladder([5.0, 3.0, 4.5, 4.5, 4.5]), level(4.0))
    assert lost.tokens == pytest.approx(1e6 * 2**0.5) and math.isnan(lost.lower_bound)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=5, max_size=5), st.floats(-5, 5))
def test_one_curve_agrees_with_a_search_on_a_fine_grid(values, target):
    """An independent reference: the first of very many tokens at which the interpolated curve is at the
    line.
    """
    fine = np.linspace(np.log(BUDGETS[0]), np.log(BUDGETS[-1]), 40_001)
    reached = np.interp(fine, np.log(BUDGETS), values) <= target
    found = crossing(ladder(values), level(target))
    touches = min(abs(v - target) for v in values) < 1e-9  # a rounding decides
    if touches:
        return
    assert found.upper_bound == (values[0] <= target)
    if reached.any():
        assert np.log(found.tokens) == pytest.approx(fine[reached.argmax()], abs=2 * (fine[1] - fine[0]))
    else:
        assert math.isnan(found.tokens) and found.lower_bound == BUDGETS[-1]


def test_the_smallest_budget_is_an_upper_bound():
    found = crossing(ladder([2.0, 1.0], [2.5, 1.0]), level(3.0, 3.0))
    assert found.upper_bound and found.tokens == found.low == found.high == 1e6
    found = crossing(ladder([4.0, 1.0], [2.0, 1.0], [2.5, 1.0]), level(3.0, 3.0, 3.0))
    assert found.upper_bound and found.low == 1e6 < found.high  # some resamples start above the line


def test_where_higher_is_better_the_curve_rises_to_the_line():
    rising = ladder([0.1, 0.2, 0.3, 0.4, 0.5])
    found = crossing(rising, level(0.25), lower_is_better=False)
    assert found.tokens == pytest.approx(1e6 * 2**1.5) and not found.upper_bound
    assert crossing(rising, level(0.1), lower_is_better=False).upper_bound
    assert crossing(rising, level(0.6), lower_is_better=False).lower_bound == 16e6
    mirrored = rising.assign(value=-rising["value"])
    assert crossing(mirrored, level(-0.25)).tokens == found.tokens


def brute(gaps):
    """The crossing of every resample of the seeds, by a plain loop; inf where there is none."""
    found = []
    for seeds in itertools.product(range(len(gaps)), repeat=len(gaps)):
        mean, crossed = np.mean([gaps[s] for s in seeds], axis=0), inf
        for i, gap in enumerate(mean):
            if gap <= 0:
                share = mean[i - 1] / (mean[i - 1] - gap) if i else 0.0
                crossed = math.exp(
                    math.log(BUDGETS[max(i - 1, 0)]) + share * math.log(BUDGETS[i] / BUDGETS[max(i - 1, 0)])
                )
                break
        found.append(crossed)
    return np.array(found)


@pytest.mark.parametrize("target", [4.0, 2.4, 2.0])
def test_three_seeds_give_the_exact_bootstrap_distribution(target):
    """Every crossing of the 27 resamples has probability 1/27 or more, beyond the 2.5 % that is cut off."""
    curves = [[6.0, 5.1, 3.9, 3.2, 2.2], [5.5, 4.2, 4.3, 2.7, 1.9], [6.4, 5.0, 4.1, 3.3, 3.1]]
    lines = np.array([target, target + 0.3, target - 0.2])
    exact = brute(np.array(curves) - lines[:, None])
    found = crossing(ladder(*curves), level(*lines))
    assert found.low == pytest.approx(exact.min()) and found.high == pytest.approx(exact.max())
    assert (found.high == inf) == (not np.isfinite(exact).all()) and np.isfinite(found.low)


def test_ends_lie_where_the_exact_quantiles_do(monkeypatch):
    rng = np.random.default_rng(3)
    curves = 5 - np.arange(5) + rng.normal(size=(4, 5)) * 0.5
    exact = np.sort(brute(curves - 2.6))
    monkeypatch.setattr("cbd.report.crossing.CONFIDENCE", 0.8)
    found = crossing(ladder(*curves), level(*[2.6] * 4))
    for share, end in ((0.1, found.low), (0.9, found.high)):
        nearby = np.quantile(exact, [share - 0.015, share + 0.015])
        assert nearby[0] * (1 - 1e-9) <= end <= nearby[1] * (1 + 1e-9)
    assert exact[0] < found.low < found.tokens < found.high < exact[-1]


def test_the_line_is_resampled_with_the_curve_of_its_seed():
    """What a seed moves in both cancels; drawn apart the interval would span all budgets."""
    offsets = np.array([0.0, 1.5, -2.0])
    curve = np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    found = crossing(ladder(*(curve + o for o in offsets)), level(*(2.5 + offsets)))
    assert (found.low, found.high) == (pytest.approx(found.tokens), pytest.approx(found.tokens))
    crossed = crossing(ladder(*(curve + o for o in offsets)), level(*(2.5 - offsets)))
    assert crossed.high > 2 * crossed.low


def test_an_interval_that_never_reaches_the_line_is_infinite():
    curves = ladder([5.0, 4.0], [5.0, 3.9], [5.0, 4.4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        none = crossing(curves, level(1.0, 1.0, 1.0))
        some = crossing(curves, level(4.0, 4.0, 4.0))  # the means of the three are above, of two at the line
    assert (none.low, none.high, none.lower_bound) == (inf, inf, 2e6)
    assert math.isnan(none.tokens) and math.isnan(none.extrapolated)  # two budgets make no power law
    assert math.isnan(some.tokens) and some.low < 2e6 and some.high == inf


def test_one_seed_has_no_interval():
    found = crossing(ladder([5.0, 3.0]), level(4.0))
    assert found.n == 1 and np.isfinite(found.tokens)
    assert all(map(math.isnan, (found.low, found.high)))


def test_coverage_is_what_the_docstring_says():
    """Five seeds hold the crossing of the expected curve about 84 % of the time, thirty close to 95 %."""
    rng = np.random.default_rng(7)
    held = {n: np.mean([_holds(rng, n) for _ in range(50)]) for n in (5, 30)}
    assert held[5] == pytest.approx(0.84, abs=0.16)  # three standard errors of 50 draws
    assert held[30] == pytest.approx(0.94, abs=0.1)


def _holds(rng, n):
    seeds = rng.normal(size=n)  # moves curve and line alike, far more than the noise of a run
    curves = 5 - 0.6 * np.arange(5) + seeds[:, None] + rng.normal(size=(n, 5)) * 0.05
    lines = 5 - 0.6 * 2.4 + seeds + rng.normal(size=n) * 0.05
    found = crossing(ladder(*curves), level(*lines))
    return found.low <= 1e6 * 2**2.4 <= found.high


def test_neither_the_order_of_rows_nor_the_global_generator_matters():
    rng = np.random.default_rng(1)
    curves = ladder(*(5 - np.arange(5) + rng.normal(size=(9, 5)) * 0.3))  # nine: so that draws differ
    lines = level(*rng.normal(3, 0.2, size=9))
    np.random.seed(1)
    state = np.random.get_state()[1].copy()
    found = crossing(curves, lines)
    assert (np.random.get_state()[1] == state).all()
    shuffled = crossing(curves.sample(frac=1, random_state=1), lines.iloc[::-1])
    np.testing.assert_equal(astuple(shuffled), astuple(found))


def test_crossing_reads_the_columns_of_a_results_table():
    base = {"experiment": "e", "method": "random", "metric": "loss"}
    rows = [base | {"seed": 0, "tokens": t, "value": v} for t, v in ((100, 5.0), (400, 3.0))]
    line = [base | {"method": "CBD", "seed": 0, "tokens": 0, "value": 4.0}]
    assert crossing(tidy(rows), tidy(line)).tokens == pytest.approx(200)


@pytest.mark.parametrize(
    ("curves", "lines", "message"),
    [
        (ladder([5.0, 4.0]).drop(columns="tokens"), level(4.0), "column 'tokens' is not in the table"),
        (ladder([5.0, 4.0]), level(4.0).drop(columns="value"), "column 'value' is not in the table"),
        (ladder([5.0, 4.0]).iloc[:0], level(4.0), "curves is empty or"),
        (ladder([5.0, 4.0]), level(4.0, 4.0), "are not those of the line"),
        (ladder([5.0, 4.0], [5.0, 4.0]), level(4.0), "are not those of the line"),
        (ladder([5.0, 4.0], [5.0]), level(4.0, 4.0), "not every seed was trained on 2e\\+06"),
        (pd.concat([ladder([5.0, 4.0])] * 2), level(4.0), "more than one row"),
        (ladder([5.0, 4.0]), pd.concat([level(4.0)] * 2), "more than one row"),
        (ladder([5.0, nan]), level(4.0), "curves is .* not finite"),
        (ladder([5.0, 4.0]), level(inf), "line is .* not finite"),
        (ladder([5.0, 4.0], tokens=np.array([0.0, 1.0])), level(4.0), "leave that budget out"),
    ],
)
def test_bad_tables_are_refused(curves, lines, message):
    with pytest.raises(CbdError, match=message):
        crossing(curves, lines)


def test_a_line_never_reached_is_extrapolated():
    law = PowerLaw(floor=3.0, scale=200.0, exponent=0.3)
    curves = ladder(law(BUDGETS), law(BUDGETS) + 0.2)
    target = float(law(64e6)) + 0.1  # the mean of both seeds' offsets
    found = crossing(curves, level(target, target))
    assert found.lower_bound == 16e6 and found.extrapolated == pytest.approx(64e6, rel=1e-4)
    assert math.isnan(crossing(curves, level(3.05, 3.05)).extrapolated)  # below the floor


def test_where_higher_is_better_the_error_is_extrapolated():
    law = PowerLaw(floor=0.2, scale=20.0, exponent=0.25)
    accuracy, target = 1 - law(BUDGETS), 1 - float(law(64e6))
    found = crossing(ladder(accuracy), level(target), lower_is_better=False)
    assert found.lower_bound == 16e6 and found.extrapolated == pytest.approx(64e6, rel=1e-4)
    assert math.isnan(crossing(ladder(accuracy), level(0.85), lower_is_better=False).extrapolated)
    percent = crossing(ladder(100 * accuracy), level(100 * target), lower_is_better=False)
    assert math.isnan(percent.extrapolated) and percent.lower_bound == 16e6
    for offset in (0.64, -0.64):  # the means are shares, the values of one seed of five are not
        outside = ladder(accuracy + offset, *[accuracy - offset / 4] * 4)
        found = crossing(outside, level(*[target] * 5), lower_is_better=False)
        assert math.isnan(found.extrapolated) and found.lower_bound == 16e6
    below = crossing(ladder(accuracy - 0.5), level(target - 0.5), lower_is_better=False)
    assert math.isnan(below.extrapolated)


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 5), st.floats(0.05, 2), st.floats(0.1, 5))
def test_an_exact_power_law_is_recovered(floor, exponent, fall):
    """`fall`: how far the value falls from the first to the last of the budgets."""
    scale = fall / (BUDGETS[0] ** -exponent - BUDGETS[-1] ** -exponent)
    law = PowerLaw(floor, scale, exponent)
    found = fit_power_law(BUDGETS, law(BUDGETS))
    assert found.exponent == pytest.approx(exponent, rel=1e-5)
    assert found.scale == pytest.approx(scale, rel=1e-4)
    assert found.floor == pytest.approx(floor, abs=1e-4)
    np.testing.assert_allclose(found(BUDGETS), law(BUDGETS), rtol=1e-6)
    assert law.tokens_at(float(law(5e6))) == pytest.approx(5e6, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.01, 0.3, 3.0]))
def test_no_other_search_finds_a_smaller_error(seed, noise):
    rng = np.random.default_rng(seed)
    values = 3 + 300 * BUDGETS**-0.35 + rng.normal(size=5) * noise
    found = fit_power_law(BUDGETS, values)
    error = ((found(BUDGETS) - values) ** 2).sum()
    assert found.floor >= 0 and found.scale >= 0 and found.exponent > 0
    for start in ([values.min(), 1.0, 0.5], [0.0, values.max(), 0.1], [3.0, 1.0, 2.0]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            best, _ = curve_fit(
                lambda d, a, b, c: a + b * d**-c,
                BUDGETS / 1e6,
                values,
                p0=np.maximum(start, [0.0, 0.0, 1e-3]),
                bounds=([0, 0, 1e-3], [np.inf, np.inf, 10]),
                max_nfev=2000,
            )
        other = ((best[0] + best[1] * (BUDGETS / 1e6) ** -best[2] - values) ** 2).sum()
        assert error <= other * (1 + 1e-6) + 1e-12


def test_values_that_do_not_fall_make_a_flat_law():
    for values in ([1.0, 2.0, 3.0, 4.0], [2.0] * 4):
        law = fit_power_law(BUDGETS[:4], np.array(values))
        assert law.scale == pytest.approx(0, abs=1e-9) and law(1e9) == pytest.approx(np.mean(values))
        assert math.isnan(law.tokens_at(np.mean(values) - 0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert PowerLaw(2.0, 0.0, 1.0).tokens_at(3.0) == 0
        assert PowerLaw(0.0, 5.0, 1e-3).tokens_at(1.0) == inf
        assert math.isnan(PowerLaw(2.0, 1.0, 1.0).tokens_at(2.0))
        assert math.isnan(PowerLaw(2.0, 1.0, 1.0).tokens_at(nan))

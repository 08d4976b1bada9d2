"""Statistics: tables -> points and intervals over seeds. No torch, and never the global random generator.

Every interval of the project is made here; figures and notebooks only show them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import bootstrap, nct
from scipy.stats import t as student_t

from cbd.errors import CbdError

CONFIDENCE = 0.95
RESAMPLES = 9999  # with three seeds the extremes are then the 2.5 % points for certain (see `interval`)
SEED = 0  # of each bootstrap's own generator: equal values, equal interval
POWER, LEVEL = 0.8, 0.05  # of the test behind `smallest_difference`
CHUNK = 1 << 19  # values of a crossed bootstrap worked on at a time: 4 MiB an array
POINTS = ["point", "low", "high", "n"]


@dataclass(frozen=True)
class Interval:
    """A mean over `n` seeds and the ends of its interval, in the unit of the values."""

    point: float
    low: float
    high: float
    n: int


def interval(values: Sequence[float]) -> Interval:
    """The mean of one value a seed, with the 95 % percentile bootstrap interval of that mean.

    A 95 % percentile bootstrap of *three* seeds is simply the range of the three values: a resample repeats
    the smallest three times with probability 1/27 = 3.7 %, more than the 2.5 % cut off. It then holds the
    mean of a symmetric distribution 75 % of the time, not 95 %: read it as a range, not as a test. With one
    value low and high are nan; when all are equal, both are that value. A value that is not finite makes
    point, low and high nan: leaving it out would flatter. Raises `CbdError` when there are no values.
    """
    data = np.sort(np.asarray(values, dtype=float).ravel())  # sorted: the order of rows must not matter
    _check(data)
    nan = float("nan")
    if not np.isfinite(data).all():
        return Interval(nan, nan, nan, data.size)
    if data.size == 1:
        return Interval(float(data[0]), nan, nan, 1)
    if data[0] == data[-1]:
        return Interval(float(data[0]), float(data[0]), float(data[0]), data.size)
    ends = bootstrap(
        (data,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return Interval(float(data.mean()), float(ends.low), float(ends.high), data.size)


def summarise(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean and interval over seeds of each group: columns `by`, then point, low, high (unit of `value`), n.

    Groups come sorted by `by`, whatever the order of the rows. Raises `CbdError` when a column is missing, or
    when a group holds a seed twice: that would count one run as two and pretend to replicate.
    """
    by = list(by)
    _once_per_seed(frame, by)
    rows = [
        (*key, *astuple(interval(group["value"].astype(float))))
        for key, group in frame.groupby(by, dropna=False, sort=True)
    ]
    return _typed_like(pd.DataFrame(rows, columns=[*by, *POINTS]), frame, by)


def paired(frame: pd.DataFrame, by: Sequence[str], *, baseline: str) -> pd.DataFrame:
    """Differences method - baseline, matched by seed within each group, with their interval over seeds.

    The interval of paired differences leaves out what the seed moves in both; two overlapping intervals of
    `summarise` say nothing against a paired one that excludes zero. Columns: `by`, method (never the
    baseline), then point, low, high (unit of `value`; negative: lower than the baseline) and n. Raises
    `CbdError` when a group lacks the baseline or a method's seeds are not the baseline's, or as `summarise`
    does.
    """
    by = list(by)
    if "method" in by:
        raise CbdError("column 'method' is what is compared; leave it out of `by`")
    _once_per_seed(frame, [*by, "method"])
    groups = frame.groupby(by, dropna=False, sort=True) if by else [((), frame)]
    rows = [
        (*key, name, *astuple(interval(differences)))
        for key, group in groups
        for name, differences in _differences(group, baseline, key)
    ]
    return _typed_like(pd.DataFrame(rows, columns=[*by, "method", *POINTS]), frame, [*by, "method"])


def verdict(low: float, high: float) -> str:
    """Where the interval of a difference lies: "lower", "higher", or "undecided" (holds zero, or is nan)."""
    return "lower" if high < 0 else "higher" if low > 0 else "undecided"


def crossed_interval(differences: np.ndarray) -> Interval:
    """The mean of differences[seed, item], with its 95 % interval over both seeds and items; n counts seeds.

    differences: (seeds, items), the paired differences of two methods on the same items under the same seed,
    in any unit. A percentile bootstrap which draws seeds and items independently of each other: the
    "pigeonhole" bootstrap of Owen 2007 (The Annals of Applied Statistics 1(2)), which is conservative, since
    it counts the noise of single cells about three times over. `interval` of each seed's mean says how far
    the result holds for other seeds on *these* items, this one for other items as well. The seeds' part of
    it suffers from few seeds as `interval` does.

    With one seed only items are drawn, with one item only seeds: the interval is silent on what was not
    drawn. With one value in all low and high are nan; when all are equal, both are that value. A value that
    is not finite makes point, low and high nan. Raises `CbdError` when the table is empty or has not two
    dimensions.
    """
    data = np.asarray(differences, dtype=float)
    if data.ndim != 2:
        raise CbdError(f"differences have shape {data.shape}; pass one row a seed and one column an item")
    _check(data)
    seeds, nan = len(data), float("nan")
    if not np.isfinite(data).all():
        return Interval(nan, nan, nan, seeds)
    if data.size == 1:
        return Interval(float(data[0, 0]), nan, nan, seeds)
    if data.min() == data.max():
        return Interval(*[float(data[0, 0])] * 3, seeds)
    means = _crossed_means(data, np.random.default_rng(SEED))
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(data.mean()), float(low), float(high), seeds)


def smallest_difference(values: Sequence[float], comparisons: int = 1) -> float:
    """The smallest true difference, in the unit of the values, which a test over these seeds would find.

    values: one paired difference a seed. The test is the two-sided paired t-test at 5 % divided by
    `comparisons` (Bonferroni); "would find" means with probability 80 % (non-central t distribution), if
    the true standard deviation is that of the values. It says what "no difference found" can rule out, and
    depends on the spread of the values only, not on their mean. With few seeds the spread itself is rough:
    with five its 95 % interval reaches from 0.6 to 2.9 times the estimate.

    nan with fewer than two values or one that is not finite, 0 when all are equal. Raises `CbdError` unless
    comparisons is at least 1.
    """
    if comparisons < 1:
        raise CbdError(f"{comparisons} comparisons make no test; count at least 1")
    data = np.asarray(values, dtype=float).ravel()
    if data.size < 2 or not np.isfinite(data).all():
        return float("nan")
    if data.min() == data.max():
        return 0.0
    return float(_noncentrality(data.size, LEVEL / comparisons) * data.std(ddof=1) / data.size**0.5)


def tokens_to_reach(curve: pd.DataFrame, target: float) -> float:
    """Training tokens at which a curve (columns tokens and value) first falls to `target` or below.

    Between two evaluations the value is taken as linear in the logarithm of the tokens, from step zero to the
    first evaluation as linear in the tokens. nan when the curve never reaches the target: its last token
    count is then a lower bound. Raises `CbdError` when a token count occurs twice (the curves of several
    seeds, mixed) or is negative.
    """
    points = curve[["tokens", "value"]].astype(float).sort_values("tokens")
    tokens, values = points["tokens"].to_numpy(), points["value"].to_numpy()
    if (np.diff(tokens) == 0).any() or (tokens < 0).any():
        raise CbdError("a curve needs one value for each token count, from 0 up; pass one run at a time")
    reached = np.flatnonzero(values <= target)
    if not reached.size:
        return float("nan")
    i = int(reached[0])
    if i == 0 or not np.isfinite(values[i - 1]):
        return float(tokens[i])
    share = (values[i - 1] - target) / (values[i - 1] - values[i])
    if tokens[i - 1] == 0:
        return float(share * tokens[i])
    return float(tokens[i - 1] * (tokens[i] / tokens[i - 1]) ** share)


def with_lower_bounds(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of `metric`, each missing value replaced by that of `<metric>_lower_bound` in the same run.

    Adds the column `bound`: whether the value is a lower bound. A run is recognised by method, spec, budget
    and seed. Raises `CbdError` when a run occurs twice.
    """
    run = ["method", "spec", "budget", "seed"]
    _once_per_seed(frame[frame["metric"] == metric], run[:-1])
    rows = frame[frame["metric"] == metric].copy()
    bounds = frame[frame["metric"] == f"{metric}_lower_bound"][[*run, "value"]]
    _once_per_seed(bounds, run[:-1])
    found = rows[run].merge(bounds, on=run, how="left")["value"].to_numpy(dtype=float)
    rows["bound"] = rows["value"].isna().to_numpy()
    rows["value"] = np.where(rows["bound"], found, rows["value"].astype(float))
    return rows


@dataclass(frozen=True)
class BestAlpha:
    """The best point of an alpha grid.

    interior: whether it beats both ends of the grid. advantage: loss of the better end minus `loss`, in nats
    per token, zero when an end is best.
    """

    alpha: float
    loss: float
    interior: bool
    advantage: float


def best_alpha(alphas: Sequence[float], losses: Sequence[float]) -> BestAlpha:
    """The grid point with the lowest loss; no curve is fitted, so the answer is a loss that was measured.

    A tie with an end goes to the end: mixing must earn its place. The lowest of several noisy losses
    flatters; judge its advantage by its interval over seeds. Raises `CbdError` when the two differ in length,
    are empty or not finite, or repeat an alpha.
    """
    points = sorted(zip(map(float, alphas), map(float, losses), strict=False))
    if not points or len(alphas) != len(losses):
        raise CbdError(f"{len(alphas)} alphas and {len(losses)} losses do not make a grid")
    if not np.isfinite(points).all() or len({alpha for alpha, _ in points}) < len(points):
        raise CbdError("an alpha grid needs finite losses and each alpha once; average over seeds first")
    end = min(points[0], points[-1], key=lambda point: point[1])
    best = min(points, key=lambda point: point[1])
    if best[1] >= end[1]:
        return BestAlpha(*end, interior=False, advantage=0.0)
    return BestAlpha(*best, interior=True, advantage=end[1] - best[1])


def break_even(cost: pd.DataFrame, method: str, other: str) -> int | None:
    """The smallest number of sizes for which `method` costs less than `other`; None when it never does.

    cost: columns method, sizes (whole numbers) and value (FLOPs), one row for each method and number.
    """
    wide = cost.pivot(index="sizes", columns="method", values="value").sort_index()
    cheaper = wide.index[wide[method] < wide[other]]
    return int(cheaper[0]) if len(cheaper) else None


def _check(data: np.ndarray) -> None:
    if not data.size:
        raise CbdError("an interval needs at least one value: run what is measured first")


def _crossed_means(data: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Means (RESAMPLES,) of data (seeds, items) over rows and columns drawn independently."""
    seeds, items = data.shape
    chunk = max(1, CHUNK // items)
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, chunk):
        size = min(chunk, RESAMPLES - start)
        weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=size) / seeds
        drawn = rng.integers(items, size=(size, items))
        means[start : start + size] = np.take_along_axis(weights @ data, drawn, axis=1).mean(axis=1)
    return means


def _noncentrality(n: int, level: float) -> float:
    """True mean of n differences, in standard errors, which a two-sided t-test finds with `POWER`."""
    df = n - 1
    threshold = student_t.isf(level / 2, df)

    def excess(shift: float) -> float:
        # The lower tail as the mirrored upper one: for a small tail scipy's nct.cdf may answer nan.
        return float(nct.sf(threshold, df, shift) + nct.sf(threshold, df, -shift) - POWER)

    high = 1.0
    while excess(high) < 0:
        high *= 2
    return float(brentq(excess, 0.0, high))


def _differences(group: pd.DataFrame, baseline: str, key: tuple) -> Iterator[tuple[str, pd.Series]]:
    """(method, its values minus the baseline's by seed) of one group, methods sorted."""
    runs = {name: rows.set_index("seed")["value"].astype(float) for name, rows in group.groupby("method")}
    if baseline not in runs:
        raise CbdError(
            f"no rows of the baseline {baseline!r} in {key or 'the table'}; run it or choose another"
        )
    for name in sorted(set(runs) - {baseline}):
        if set(runs[name].index) != set(runs[baseline].index):
            raise CbdError(
                f"the seeds of {name!r} {sorted(runs[name].index)} are not those of {baseline!r} "
                f"{sorted(runs[baseline].index)} in {key or 'the table'}; run the missing ones"
            )
        yield name, runs[name] - runs[baseline]


def _once_per_seed(frame: pd.DataFrame, by: list[str]) -> None:
    for column in [*by, "seed", "value"]:
        if column not in frame.columns:
            raise CbdError(f"column {column!r} is not in the table")
    twice = frame.duplicated([*by, "seed"])
    if twice.any():
        row = frame.loc[twice, [*by, "seed"]].iloc[0]
        where = ", ".join(f"{column} {row[column]}" for column in [*by, "seed"])
        raise CbdError(
            f"more than one row for {where}: an interval takes one value a seed; group by more columns"
        )


def _typed_like(summary: pd.DataFrame, frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    return summary.astype({column: frame[column].dtype for column in columns})

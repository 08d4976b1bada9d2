"""Statistics: tables -> points and intervals over seeds. No torch, and never the global random generator.

Every interval of the project is made here; figures and notebooks only show them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import bootstrap, nct, norm
from scipy.stats import t as student_t

from cbd.errors import CbdError, require

CONFIDENCE = 0.95
RESAMPLES = 9999
MANY = 8  # seeds from which on an interval is the bootstrap's
SEED = 0  # of each bootstrap's own generator: equal values, equal interval
POWER, LEVEL = 0.8, 0.05  # of the test behind `smallest_difference`
CHUNK = 1 << 19  # values of a crossed bootstrap worked on at a time: 4 MiB an array


class Interval(NamedTuple):
    """A mean over `n` seeds and the ends of its interval, in the unit of the values."""

    point: float
    low: float
    high: float
    n: int


def interval(values: Sequence[float]) -> Interval:
    """The mean of one value a seed, with its 95 % interval: Student's t, from `MANY` seeds on the bootstrap.

    A percentile bootstrap of three seeds is simply their range, which holds the mean 75 % of the time. The
    bootstrap of many asks for no normal distribution. With one value low and high are nan; equal values give
    that value; one that is not finite makes all three nan. Raises `CbdError` when there are no values.
    """
    data = np.sort(np.asarray(values, dtype=float).ravel())  # sorted: the order of rows must not matter
    if found := _without_resampling(data, data.size):
        return found
    point, n = float(data.mean()), data.size
    if n < MANY:
        margin = float(student_t.isf((1 - CONFIDENCE) / 2, n - 1) * data.std(ddof=1) / n**0.5)
        return Interval(point, point - margin, point + margin, n)
    rng, resampled = np.random.default_rng(SEED), {"n_resamples": RESAMPLES, "method": "percentile"}
    found = bootstrap((data,), np.mean, confidence_level=CONFIDENCE, rng=rng, **resampled)
    return Interval(point, *map(float, found.confidence_interval), n)


def summarise(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean and interval over seeds of each group: columns `by`, then point, low, high (unit of `value`), n.

    Groups come sorted by `by`, whatever the order of the rows. Raises `CbdError` when a column is missing, or
    when a group holds a seed twice: that would count one run as two and pretend to replicate.
    """
    once_per_seed(frame, by)
    groups = frame.groupby(list(by), dropna=False)
    rows = [(*key, *interval(group["value"].astype(float))) for key, group in groups]
    return _summary(rows, frame, by)


def paired(frame: pd.DataFrame, by: Sequence[str], *, baseline: str) -> pd.DataFrame:
    """Differences method - baseline, matched by seed within each group, with their interval over seeds.

    The interval of paired differences leaves out what the seed moves in both; two overlapping intervals of
    `summarise` say nothing against a paired one that excludes zero. Columns: `by`, method (never the
    baseline), then point, low, high (unit of `value`; negative: lower than the baseline) and n. Raises
    `CbdError` when a group lacks the baseline or a method's seeds are not the baseline's, or as `summarise`
    does.
    """
    once_per_seed(frame, [*by, "method"])
    rows = []
    for key, group in frame.groupby(list(by), dropna=False):
        runs = {name: own.set_index("seed")["value"].astype(float) for name, own in group.groupby("method")}
        require(baseline in runs, f"no rows of the baseline {baseline!r} in {key}; run it or choose another")
        for name in sorted(runs.keys() - {baseline}):
            ours, theirs = (set(runs[method].index.tolist()) for method in (name, baseline))
            wrong = f"the seeds of {name!r} {ours} are not those of {baseline!r} {theirs} in {key}"
            require(ours == theirs, f"{wrong}; run the missing ones")
            rows.append((*key, name, *interval(runs[name] - runs[baseline])))
    return _summary(rows, frame, [*by, "method"])


def verdict(low: float, high: float) -> str:
    """Where the interval of a difference lies: "lower", "higher", or "undecided" (holds zero, or is nan)."""
    return "lower" if high < 0 else "higher" if low > 0 else "undecided"


def p_values(found: pd.DataFrame, line: float, side: str) -> np.ndarray:
    """For each row (point, low, high, n) how likely such an interval is if the true value is the `line`.

    Two-sided, for a value that is claimed to lie "below" or "above" the line; 1 where the point lies on the
    other side or there is no interval. From the half of the interval that is turned to the line: it is
    Student's t quantile times the standard error where it is one of `interval` over few seeds, else taken as
    1.96 times it. What is counted or infinite is sure: 0 or 1.
    """
    sign = 1.0 if side == "below" else -1.0
    found_p = []
    for point, low, high, n in found[["point", "low", "high", "n"]].itertuples(index=False):
        toward = high if side == "below" else low
        lead, half = sign * (line - point), sign * (toward - point)
        if np.isnan(toward) or not lead > 0:
            found_p.append(1.0)
        elif not np.isfinite(half) or half == 0:
            found_p.append(float(not sign * (line - toward) > 0))
        else:
            few = 1 < n < MANY and np.isclose(high - point, point - low)
            quantile, tail = (
                (student_t.isf(LEVEL / 2, n - 1), n - 1) if few else (norm.isf(LEVEL / 2), np.inf)
            )
            found_p.append(2 * float(student_t.sf(lead / half * quantile, tail)))
    return np.array(found_p)


def holm(p: np.ndarray) -> np.ndarray:
    """The p-values of tests made together, adjusted so that at 5 % none is wrong with 95 % confidence.

    The k-th smallest of m is multiplied by m - k + 1, and none is below a smaller one's (Holm 1979, the
    Scandinavian Journal of Statistics 6(2)).
    """
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def crossed_interval(differences: np.ndarray) -> Interval:
    """The mean of differences[seed, item], with its 95 % interval over both seeds and items; n counts seeds.

    differences: (seeds, items), the paired differences of two methods on the same items under the same seed,
    in any unit. A percentile bootstrap that draws seeds and items independently: the "pigeonhole" bootstrap
    of Owen 2007 (The Annals of Applied Statistics 1(2)), which is conservative. `interval` of each seed's
    mean says how far the result holds for other seeds on *these* items, this one for other items as well.

    With one seed only items are drawn, with one item only seeds. A single value, equal ones, and one that is
    not finite are as in `interval`. Raises `CbdError` when the table is empty or has not two dimensions.
    """
    data = np.asarray(differences, dtype=float)
    shape = f"differences have shape {data.shape}"
    require(data.ndim == 2, f"{shape}; pass one row a seed and one column an item")
    seeds, items = data.shape
    if found := _without_resampling(data, seeds):
        return found
    rng, means = np.random.default_rng(SEED), np.empty(RESAMPLES)
    chunk = max(1, CHUNK // items)
    for part in np.split(means, range(chunk, RESAMPLES, chunk)):
        weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=part.size) / seeds
        drawn = rng.integers(items, size=(part.size, items))
        part[:] = np.take_along_axis(weights @ data, drawn, axis=1).mean(axis=1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(data.mean()), float(low), float(high), seeds)


def floored_average(tasks: Sequence[tuple[np.ndarray, np.ndarray, float]]) -> Interval:
    """The mean over tasks of max(first, floor) - max(second, floor), with its interval over seeds and items.

    tasks: for each one the scores of two methods, (seeds, items) each, on the same items and the same seeds,
    and the floor, nan for none. first, second: a method's mean over seeds and items. The bootstrap draws
    seeds once for all tasks and items in each task by itself; else as `crossed_interval`, of which this is
    the mean over tasks where no score lies below its floor.
    """
    require(tasks, "an average needs at least one task")
    seeds = len(tasks[0][0])
    rng = np.random.default_rng(SEED)
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds
    everything = np.full((1, seeds), 1 / seeds)

    def differences(weights: np.ndarray, resampled: bool) -> np.ndarray:
        total = np.zeros(len(weights))
        for first, second, floor in tasks:
            counts = _counts(rng, first.shape[1], len(weights) if resampled else 0)
            means = [np.fmax(((weights @ scores) * counts).sum(axis=1), floor) for scores in (first, second)]
            total += (means[0] - means[1]) / len(tasks)
        return total

    point = float(differences(everything, resampled=False)[0])
    if seeds == 1:
        return Interval(point, float("nan"), float("nan"), seeds)
    means = differences(drawn, resampled=True)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(point, float(low), float(high), seeds)


def _counts(rng: np.random.Generator, items: int, resamples: int) -> np.ndarray:
    """(resamples, items): the share of each item in each resample; all alike, (1, items), for none."""
    if not resamples:
        return np.full((1, items), 1 / items)
    return rng.multinomial(items, np.full(items, 1 / items), size=resamples) / items


def smallest_difference(values: Sequence[float], comparisons: int = 1) -> float:
    """The smallest true difference, in the unit of the values, which a test over these seeds would find.

    values: one paired difference a seed. The test is the two-sided paired t-test at 5 % divided by
    `comparisons` (Bonferroni); "would find" means with probability 80 % (non-central t distribution), if
    the true standard deviation is that of the values: with five seeds its own 95 % interval reaches from 0.6
    to 2.9 times the estimate. It says what "no difference found" can rule out.

    nan with fewer than two values or one that is not finite, 0 when all are equal. Raises `CbdError` unless
    comparisons is at least 1.
    """
    require(comparisons >= 1, f"{comparisons} comparisons make no test; count at least 1")
    data = np.asarray(values, dtype=float).ravel()
    if data.size < 2 or not np.isfinite(data).all():
        return float("nan")
    if data.min() == data.max():
        return 0.0
    df = data.size - 1
    threshold = student_t.isf(LEVEL / comparisons / 2, df)

    def excess(shift: float) -> float:
        # The lower tail as the mirrored upper one: for a small tail scipy's nct.cdf may answer nan.
        return float(nct.sf(threshold, df, shift) + nct.sf(threshold, df, -shift) - POWER)

    high = 1.0  # the true mean in standard errors
    while excess(high) < 0:
        high *= 2
    return float(brentq(excess, 0.0, high) * data.std(ddof=1) / data.size**0.5)


def tokens_to_reach(curve: pd.DataFrame, target: float) -> float:
    """Training tokens at which a curve (columns tokens and value) first falls to `target` or below.

    Between two evaluations the value is taken as linear in the logarithm of the tokens, from step zero to the
    first evaluation as linear in the tokens. nan when the curve never reaches the target: its last token
    count is then a lower bound. Raises `CbdError` when a token count occurs twice (the curves of several
    seeds, mixed) or is negative.
    """
    tokens, values = curve[["tokens", "value"]].astype(float).sort_values("tokens").to_numpy().T
    once = (np.diff(tokens) > 0).all() and (tokens >= 0).all()
    require(once, "a curve needs one value for each token count, from 0 up; pass one run at a time")
    if not (values <= target).any():
        return float("nan")
    i = int((values <= target).argmax())
    if i == 0 or not np.isfinite(values[i - 1]):
        return float(tokens[i])
    share = (values[i - 1] - target) / (values[i - 1] - values[i])
    if tokens[i - 1] == 0:
        return float(share * tokens[i])
    return float(tokens[i - 1] * (tokens[i] / tokens[i - 1]) ** share)


class BestAlpha(NamedTuple):
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
    whole = len(alphas) == len(losses) == len(dict(points)) > 0 and np.isfinite(points).all()
    require(whole, "an alpha grid needs finite losses, and each alpha once; average over seeds first")
    end = min(points[0], points[-1], key=lambda point: point[1])
    best = min(end, *points, key=lambda point: point[1])  # the first of equals
    return BestAlpha(*best, interior=best != end, advantage=end[1] - best[1])


def break_even(cost: pd.DataFrame, method: str, other: str) -> int | None:
    """The smallest number of sizes for which `method` costs less than `other`; None when it never does.

    cost: columns method, sizes (whole numbers) and value (FLOPs), one row for each method and number.
    """
    wide = cost.pivot(index="sizes", columns="method", values="value").sort_index()
    cheaper = wide.index[wide[method] < wide[other]]
    return int(cheaper[0]) if len(cheaper) else None


def once_per_seed(frame: pd.DataFrame, by: Sequence[str]) -> None:
    """Raises `CbdError` when a column is missing, or when a group by these columns holds a seed twice."""
    keys = [*by, "seed"]
    for column in [*keys, "value"]:
        require(column in frame, f"column {column!r} is not in the table")
    if (twice := frame.duplicated(keys)).any():
        where = ", ".join(f"{column} {value}" for column, value in frame.loc[twice, keys].iloc[0].items())
        wrong = f"more than one row for {where}: an interval takes one value a seed"
        raise CbdError(f"{wrong}; group by more columns, or select one run each")


def _without_resampling(data: np.ndarray, n: int) -> Interval | None:
    """The interval of values that leave nothing to draw: lost ones, a single one, or equal ones."""
    require(data.size, "an interval needs at least one value: run what is measured first")
    point, nan = float(data.flat[0]), float("nan")
    if not np.isfinite(data).all():
        return Interval(nan, nan, nan, n)
    if data.size == 1:
        return Interval(point, nan, nan, n)
    return Interval(point, point, point, n) if data.min() == data.max() else None


def _summary(rows: list[tuple], frame: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """A row a group, with the columns `keys` in the types that they have in the frame."""
    found = pd.DataFrame(rows, columns=[*keys, *Interval._fields])
    return found.astype({column: frame[column].dtype for column in keys})

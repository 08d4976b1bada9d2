"""Where a training curve over token budgets crosses a line: what an initialisation is worth in tokens. No
torch, and never the global random generator.

The question behind it: on how many tokens must random initialisation be trained to be as good as CBD at zero
tokens? The curve is a ladder of finished runs, one a seed and budget, each with its own learning rate
schedule, so neighbouring budgets are independent models and the curve need not be monotone.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar, nnls

from cbd.errors import require
from cbd.report.stats import CONFIDENCE, RESAMPLES, SEED, once_per_seed

FEWEST_BUDGETS = 4  # three parameters, and one point left to miss
# Fitted exponents of language models lie between 0.05 and 1; the ends are nearly a logarithm and a step.
EXPONENTS = np.geomspace(1e-3, 10, 401)


@dataclass(frozen=True)
class Crossing:
    """Where the mean curve over `n` seeds first reaches the mean line; token counts are training tokens.

    tokens: the crossing; nan when the curve never reaches the line. upper_bound: the smallest budget is
    already at or better than the line; tokens is then that budget. lower_bound: the longest budget when the
    line is never reached, else nan. low, high: ends of the bootstrap interval over seeds; nan with one seed,
    inf where the resample at that end never reaches the line. extrapolated: tokens by the power law fitted to
    the mean curve, when the line is never reached; nan when no law was fitted, or its floor is too high.
    """

    tokens: float
    low: float
    high: float
    lower_bound: float
    extrapolated: float
    n: int
    upper_bound: bool


@dataclass(frozen=True)
class PowerLaw:
    """value(D) = floor + scale * D**-exponent, D in tokens, floor and scale in the unit of the value."""

    floor: float
    scale: float
    exponent: float

    def __call__(self, tokens: float | np.ndarray) -> float | np.ndarray:
        """The value after `tokens` > 0 tokens, in the shape of `tokens`."""
        return self.floor + self.scale * np.asarray(tokens, dtype=float) ** -self.exponent

    def tokens_at(self, value: float) -> float:
        """Tokens at which the law reaches `value`; nan when it is at or below the floor.

        Zero for a flat law (scale 0) above its floor, inf beyond the largest float.
        """
        if not value > self.floor:
            return float("nan")
        with np.errstate(divide="ignore", over="ignore"):  # log(0) of a flat law; beyond the largest float
            return float(np.exp((np.log(self.scale) - np.log(value - self.floor)) / self.exponent))


def crossing(curves: pd.DataFrame, line: pd.DataFrame, *, lower_is_better: bool = True) -> Crossing:
    """The training tokens at which the mean curve over seeds first reaches the mean line, with its interval.

    curves: columns seed, tokens (> 0) and value, one row for each seed and budget. line: columns seed and
    value, one row for each seed of the curves. Values are in one unit, whatever it is.

    The crossing lies between the *first* budget whose mean is at or better than the line and the budget
    before it, by interpolation linear in the logarithm of the tokens. Noise makes the first crossing early
    rather than late, so it understates what the line is worth.

    The interval is a percentile bootstrap which resamples seeds, the curve and the line of a seed together;
    its ends are resamples, not interpolated, since some may be inf. At 95 % with five seeds it holds the
    crossing of the expected curve about 84 % of the time; with three it is their range, not a test. It
    knows nothing of what lies between the budgets.

    Extrapolation fits `fit_power_law` to the mean curve: to 1 - value where higher is better, and then only
    if all values lie in [0, 1]; it needs four budgets. A result below `lower_bound` says that the law does
    not describe the last budgets.

    Raises `CbdError` when a column, a value or a budget of a seed is missing or not finite, when a row occurs
    twice, when the seeds of the two differ, or when a token count is not positive.
    """
    tokens, values, level = _ladder(curves, line)
    gaps = values - level[:, None] if lower_is_better else level[:, None] - values
    mean, nan = gaps.mean(axis=0), float("nan")
    point = float(_first_reached(tokens, mean[None])[0])
    low, high = _over_seeds(tokens, gaps) if len(gaps) > 1 else (nan, nan)
    ends = {"low": low, "high": high, "n": len(values), "upper_bound": bool(mean[0] <= 0)}
    if np.isfinite(point):
        return Crossing(tokens=point, lower_bound=nan, extrapolated=nan, **ends)
    beyond, inside = nan, values.min() >= 0 and values.max() <= 1 and level.min() >= 0 and level.max() <= 1
    if len(tokens) >= FEWEST_BUDGETS and (lower_is_better or inside):
        error = (lambda x: x) if lower_is_better else (lambda x: 1 - x)
        beyond = fit_power_law(tokens, error(values.mean(axis=0))).tokens_at(error(float(level.mean())))
    return Crossing(tokens=nan, lower_bound=float(tokens[-1]), extrapolated=beyond, **ends)


def fit_power_law(tokens: np.ndarray, values: np.ndarray) -> PowerLaw:
    """The power law with the least squared error in the values, floor >= 0, scale >= 0, exponent in
    [0.001, 10].

    tokens (> 0), values: (n,) with at least four different token counts. For a given exponent the best floor
    and scale are a non-negative least-squares problem, so only the exponent is searched, on a grid and then
    within its best cell (variable projection, Golub and Pereyra 1973): no starting point, and the same answer
    each time. A scale of 0 means that the values do not fall with the tokens.
    """
    ratios = tokens / tokens.min()  # powers of a ratio stay in range whatever the exponent

    def best(exponent: float) -> tuple[float, float, float]:
        """(error, floor, scale)"""
        powers = ratios**-exponent
        (floor, scale), error = nnls(np.stack([np.ones_like(powers), powers], axis=1), values)
        return error, floor, scale

    at = int(np.argmin([best(exponent)[0] for exponent in EXPONENTS]))
    cell = np.log(EXPONENTS[[max(at - 1, 0), min(at + 1, len(EXPONENTS) - 1)]])
    search = {"method": "bounded", "bounds": cell, "options": {"xatol": 1e-10}}
    inside = float(np.exp(minimize_scalar(lambda x: best(np.exp(x))[0], **search).x))
    exponent = min(inside, float(EXPONENTS[at]), key=lambda exponent: best(exponent)[0])
    _, floor, scale = best(exponent)
    return PowerLaw(float(floor), float(scale * tokens.min() ** exponent), exponent)


def _first_reached(tokens: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """First tokens (curves,) at which the gaps (curves, budgets) to the line are zero or less; else inf."""
    reached = gaps <= 0
    rows, first = np.arange(len(gaps)), reached.argmax(axis=1)
    before = np.maximum(first - 1, 0)
    above, below = gaps[rows, before], gaps[rows, first]
    share = np.divide(above, above - below, out=np.ones_like(above), where=above > below)
    crossed = tokens[before] * (tokens[first] / tokens[before]) ** share
    return np.where(reached.any(axis=1), crossed, np.inf)


def _over_seeds(tokens: np.ndarray, gaps: np.ndarray) -> tuple[float, float]:
    """(low, high) of the crossing over resampled rows (seeds) of the gaps."""
    n = len(gaps)
    counts = np.random.default_rng(SEED).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    found = np.sort(_first_reached(tokens, counts @ gaps / n))
    # Order statistics: between a finite resample and one that never crosses there is nothing to interpolate.
    cut = int((1 - CONFIDENCE) / 2 * (RESAMPLES - 1))
    return float(found[cut]), float(found[-1 - cut])


def _ladder(curves: pd.DataFrame, line: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Budgets (budgets,) rising, the curves (seeds, budgets) and the line (seeds,), in the order of seeds."""
    for name, frame, by in (("curves", curves, ["tokens"]), ("line", line, [])):
        once_per_seed(frame, by)
        cells = frame[[*by, "seed", "value"]]
        whole = not cells.empty and not (cells.isna() | cells.isin([np.inf, -np.inf])).any(axis=None)
        wrong = f"the table of the {name} is empty or has a value that is not finite"
        require(whole, f"{wrong}; run it again or drop that budget")
    wide = curves.astype({"tokens": float}).pivot(index="seed", columns="tokens", values="value")
    level = line.set_index("seed")["value"]
    seeds, others = wide.index.tolist(), sorted(level.index.tolist())
    wrong = f"the seeds of the curves {seeds} are not those of the line {others}"
    require(seeds == others, f"{wrong}; run the missing ones")
    for budget, values in wide.items():
        require(budget > 0, f"token count {budget:g} has no logarithm; leave that budget out")
        wrong = f"not every seed was trained on {budget:g} tokens"
        require(values.notna().all(), f"{wrong}; run the rest or drop that budget")
    return wide.columns.to_numpy(), wide.to_numpy(float), level[wide.index].to_numpy(float)

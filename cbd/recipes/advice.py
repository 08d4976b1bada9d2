"""How far a budget of compute takes several sizes, by each way to make them: arithmetic, nothing measured.

A model of N parameters that is trained from random weights on D tokens gets the loss of the published law
L(N, D) = E + A N^-a + B D^-b (arXiv 2203.15556, with the constants of arXiv 2404.10102). A start that is
worth W tokens counts as if the model had been trained on D + W. What a start is worth, no law says: it is the
assumption that decides, so `break_even` turns the question round.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from scipy.optimize import brentq

GUESSING = math.log(32_000)  # nats per token, with the vocabulary that the law was fitted with
FLOOR, SIZE, DATA = 1.8172, (482.01, 0.3478), (2085.43, 0.3658)  # nats per token; (factor, exponent)
WIDEST = 3.0  # gap between neighbours of a chain, in parameters; the paper's chains have 2 to 2.9
POWERS = 18  # of ten: between which break-even is sought


def loss(parameters: float, tokens: float) -> float:
    """The law's loss in nats per token; infinite for no tokens."""
    data = DATA[0] * tokens ** -DATA[1] if tokens > 0 else math.inf
    return FLOOR + SIZE[0] * parameters ** -SIZE[1] + data


def trained(parameters: float) -> float:
    """FLOPs of training on one token."""
    return 6 * parameters


def read(parameters: float) -> float:
    """FLOPs of a teacher's forward pass over one token."""
    return 2 * parameters


def anchors(source: float, smallest: float) -> tuple[float, ...]:
    """The fewest anchors, from below the source to the smallest size: even gaps, none above `WIDEST`."""
    steps = max(1, math.ceil(math.log(source / smallest) / math.log(WIDEST) - 1e-9))
    ratio = (smallest / source) ** (1 / steps)
    return (*(source * ratio**i for i in range(1, steps)), smallest)


@dataclass(frozen=True)
class Way:
    """One way to make all sizes (parameters, each).

    fixed: FLOPs before any size is trained. each: FLOPs of a training token, for each size. together: whether
    all sizes are trained on the same tokens at once, and `each` is what a size adds.
    """

    name: str
    sizes: tuple[float, ...]
    fixed: float
    each: tuple[float, ...]
    together: bool = False

    def tokens(self, budget: float, worth: float = 0.0) -> tuple[float, ...]:
        """Training tokens of each size that make the mean loss lowest, for a budget in FLOPs.

        worth: tokens that every start counts for. A size whose start is good enough gets none.
        """
        left = budget - self.fixed
        if left <= 0 or self.together:
            return (max(left, 0.0) / sum(self.each),) * len(self.sizes)

        def spread(level: float) -> tuple[float, ...]:
            # where one more FLOP lowers the loss of each size equally
            equal = (math.exp((level - math.log(cost)) / (1 + DATA[1])) for cost in self.each)
            return tuple(max(0.0, tokens - worth) for tokens in equal)

        def over(level: float) -> float:
            spent = sum(tokens * cost for tokens, cost in zip(spread(level), self.each, strict=True))
            return spent / left - 1

        high = 1.0
        while over(high) < 0:
            high *= 2
        return spread(brentq(over, 0.0, high, xtol=1e-12))

    def mean_loss(self, budget: float, worth: float = 0.0, factor: float = 1.0) -> float:
        """The law's loss after those tokens, the mean over sizes, in nats per token.

        factor: tokens of plain training from random weights that one token of this way is worth.
        """
        after = self.tokens(budget, worth)
        losses = [loss(n, t * factor + worth) for n, t in zip(self.sizes, after, strict=True)]
        return sum(losses) / len(losses)

    def break_even(self, budget: float, other: float) -> float:
        """Tokens that every start must be worth for the mean loss to be no higher than `other`."""
        gap = lambda power: self.mean_loss(budget, worth=10**power) - other  # noqa: E731
        return 0.0 if gap(0) <= 0 else 10 ** brentq(gap, 0, POWERS, xtol=1e-9)

    def needed_factor(self, budget: float, other: float) -> float:
        """The factor at which the mean loss equals `other`."""
        gap = lambda power: self.mean_loss(budget, factor=10**power) - other  # noqa: E731
        return 10 ** brentq(gap, -POWERS, POWERS, xtol=1e-9)


def scratch(sizes: Sequence[float]) -> Way:
    """Every size from random weights, on text."""
    return Way("scratch", tuple(sizes), 0.0, tuple(map(trained, sizes)))


def direct(sizes: Sequence[float], source: float) -> Way:
    """Every size from random weights, distilled from the source."""
    return Way("direct distillation", tuple(sizes), 0.0, tuple(trained(n) + read(source) for n in sizes))


def nested(sizes: Sequence[float], source: float) -> Way:
    """One run whose slices are the sizes (`cbd.recipes.training.Nested`), distilled from the source.

    Each step trains the largest, the smallest and two of those between, and the source reads it once.
    """
    ends, between = (min(sizes), max(sizes)), len(sizes) - 2
    share = lambda n: 1.0 if n in ends else min(2, between) / between  # noqa: E731
    each = tuple(trained(n) * share(n) + read(source) / len(sizes) for n in sizes)
    return Way("nested run", tuple(sizes), 0.0, each, together=True)


def chain(sizes: Sequence[float], source: float, tokens: float) -> Way:
    """Anchors distilled on so many tokens each, every size started from two of them and trained on text."""
    return Way("chain", tuple(sizes), tokens * chain_cost(source, min(sizes)), tuple(map(trained, sizes)))


def chain_cost(source: float, smallest: float) -> float:
    """FLOPs of a token given to every anchor."""
    models = (source, *anchors(source, smallest))
    return sum(trained(student) + read(teacher) for teacher, student in pairwise(models))

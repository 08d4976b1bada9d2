"""Verdicts by rule: measured intervals in, a word out. No torch.

A rule writes its own text from the fields that it judges by, so that the two cannot drift apart. What it
judges is a table with a row a unit (a size, a task, a step): unit (its name), point, low, high (the mean and
its 95 % interval), n (seeds; 0 where numbers are counted, not measured), and perhaps group (under which many
units are told together).

Rules, lines and margins were fixed on the day `FIXED`, before the runs that are younger.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from cbd.report import stats

Tables = Mapping[str, pd.DataFrame]
"""Experiment -> its table."""

FIXED = "2026-11-29"
MARGIN = 0.01  # nats per token: a smaller difference is a tie, in every rule
MARGIN_BITS = 0.004  # bits per byte: the same, at the 3.4 bytes a token of our text
MOST = 0.5  # "most" is more than this share of the units
LISTED = 4  # more units than these are told as ranges
NOT_RUN = "not yet run at this scale"
ONE_SEED = "measured with one seed, so not judged"  # which makes no interval
NOT_TUNED = "baseline not tuned"  # see `cbd.report.ladder`
UNJUDGED = (NOT_RUN, ONE_SEED, NOT_TUNED)
OTHER = {"below": "above", "above": "below"}
SIGN = {"below": "<", "above": ">"}
BITS = "bits per byte"


@dataclass(frozen=True)
class Words:
    """The three verdicts. none_is_no: a claim that holds for no unit, tested by itself, is no, not mixed."""

    yes: str
    mixed: str
    no: str
    none_is_no: bool


EXPERIMENT = Words("reproduced", "partly", "not", none_is_no=True)
QUESTION = Words("answered yes", "undecided", "answered no", none_is_no=False)


@dataclass(frozen=True)
class Rule:
    """What judges each unit. what: the quantity or the test, in words."""

    what: str

    def verdict(self, found: pd.DataFrame, words: Words) -> str:
        """One of the words; `NOT_RUN` with nothing measured, `ONE_SEED` with one seed behind all of it."""
        if found.empty:
            return NOT_RUN
        if _untested(found):
            return ONE_SEED
        if self.holds(found).all():
            return words.yes
        return words.no if self.refuted(found, words) else words.mixed

    def told(self, found: pd.DataFrame) -> str:
        """The numbers: unit by unit, or, where they are many, the range of each group and its counts."""
        if len(found) <= LISTED:
            return listed(found, self.form)
        groups = found.groupby("group", sort=False) if "group" in found else [("", found)]
        told = [(name, number(rows, self.form), self.counts(found, rows.index)) for name, rows in groups]
        lines = [(f"{name} {numbers}".lstrip(), counts) for name, numbers, counts in told]
        return "; ".join(", ".join(filter(None, line)) for line in lines)


def _untested(found: pd.DataFrame) -> bool:
    """Whether one seed is behind all of it, which makes no interval."""
    return bool(((found["n"] == 1) & found["low"].isna()).all())


@dataclass(frozen=True)
class Sides(Rule):
    """Judges each unit by the side of a line on which its interval lies, the units of a row tested together.

    side: where the claim puts it, "below" or "above" the `line`. margin: how far beyond the line it must lie,
    on either side, to be no tie. form: how its numbers are printed.
    """

    side: str
    line: float = 0.0
    margin: float = 0.0
    form: str = "+.3f"

    def bound(self, side: str) -> float:
        """What the interval must lie beyond to be on this side."""
        return self.line - self.margin if side == "below" else self.line + self.margin

    def holds(self, found: pd.DataFrame, side: str = "") -> pd.Series:
        """Whether each unit lies on this side, the claim's if none is named, by Holm's correction."""
        side = side or self.side
        adjusted = stats.holm(stats.p_values(found, self.bound(side), side))
        return pd.Series(adjusted < stats.LEVEL, index=found.index)

    def refuted(self, found: pd.DataFrame, words: Words) -> bool:
        """Whether most units lie on the other side, or, where that refutes, none on the claim's.

        None by itself: that many units tested together can show less is no evidence against any of them.
        """
        alone = stats.p_values(found, self.bound(self.side), self.side) < stats.LEVEL
        fails = self.holds(found, OTHER[self.side]).mean() > MOST
        return fails or (words.none_is_no and not alone.any())

    def text(self, words: Words) -> str:
        """The rule in words."""
        none = "none by itself, or " if words.none_is_no else ""
        toward, away = (f"{SIGN[side]} {self.bound(side):g}" for side in (self.side, OTHER[self.side]))
        return (
            f"{self.what}. {words.yes.capitalize()} if all {toward}; "
            f"{words.no} if {none}over {MOST:.0%} {away}; else {words.mixed}"
        )

    def counts(self, found: pd.DataFrame, some: pd.Index) -> str:
        """How many of some units lie where, all of them tested together; of one seed, how many points do."""
        other = OTHER[self.side]
        if _untested(found):
            bound, point = self.bound(self.side), found.loc[some, "point"]
            there = point < bound if self.side == "below" else point > bound
            return f"{there.sum()} of {len(some)} points {self.side} {bound:g}"
        holds, fails = (self.holds(found, side)[some].sum() for side in (self.side, other))
        against = f", {fails} {other}{f' {self.bound(other):g}' * bool(self.margin)}" if fails else ""
        return f"{holds} of {len(some)} {self.side} {self.bound(self.side):g}{against}"


def below(what: str, line: float = 0.0, form: str = "+.3f", margin: float = 0.0) -> Sides:
    """The rule that the quantity lies below the line."""
    return Sides(what, "below", line, margin, form)


def above(what: str, line: float = 0.0, form: str = "+.3f", margin: float = 0.0) -> Sides:
    """The rule that the quantity lies above the line."""
    return Sides(what, "above", line, margin, form)


def less(what: str, unit: str = "nats per token") -> Sides:
    """The rule that a difference of losses is negative, and no tie."""
    return below(f"{what}, {unit}", margin=MARGIN_BITS if unit == BITS else MARGIN)


def more(what: str, unit: str = "nats per token") -> Sides:
    """The rule that a difference of losses is positive, and no tie."""
    return above(f"{what}, {unit}", margin=MARGIN_BITS if unit == BITS else MARGIN)


@dataclass(frozen=True)
class Facts(Rule):
    """Judges each unit by a test of its row, where a claim has no two sides; nothing is corrected."""

    test: Callable[..., bool]
    form: str = ".2f"

    def holds(self, found: pd.DataFrame) -> pd.Series:
        """Whether each row passes."""
        return pd.Series([bool(self.test(row)) for row in found.itertuples()], index=found.index)

    def refuted(self, found: pd.DataFrame, words: Words) -> bool:
        """Whether no row passes."""
        return not self.holds(found).any()

    def text(self, words: Words) -> str:
        """The rule in words."""
        yes = words.yes.capitalize()
        return f"{self.what}. {yes} if it holds for all; {words.no} if for none; else {words.mixed}"

    def counts(self, found: pd.DataFrame, some: pd.Index) -> str:
        """How many of some rows pass; nothing where there are no intervals to test."""
        return "" if _untested(found) else f"holds for {self.holds(found)[some].sum()} of {len(some)}"


@dataclass(frozen=True)
class Control:
    """What a row compares with.

    strength: "weak" where every trained model should win, "fair" where only the claim makes it win. trained:
    the method that must pass the ladder check, else the row's verdict is `NOT_TUNED`.
    """

    words: str
    strength: str
    trained: str = ""

    def __str__(self) -> str:
        return f"{self.strength}: {self.words}"


@dataclass(frozen=True)
class Entry:
    """How a row of the scorecard is measured and judged.

    measure: tables -> the units that the rule judges. note: further numbers from the tables. needs: the
    tables that it cannot do without; None: that of the experiment in whose module it stands. control: what it
    compares with; None where there is nothing to compare.
    """

    measure: Callable[[Tables], pd.DataFrame]
    rule: Sides | Facts
    note: Callable[[Tables], str] = lambda tables: ""
    needs: tuple[str, ...] | None = None
    control: Control | None = None


def listed(found: pd.DataFrame, form: str = "+.3f") -> str:
    """Every unit with its interval."""
    return "; ".join(f"{found['unit'].iloc[i]} {number(found.iloc[[i]], form)}" for i in range(len(found)))


def number(rows: pd.DataFrame, form: str) -> str:
    """The mean of a unit, or the range of several, with the hull of the intervals; alone where exact."""

    def said(end: str, of: str) -> str:
        value = getattr(rows[of], end)(skipna=False)  # a run that diverged must show
        return "∞" if math.isinf(value) else format(value, form)

    point = " to ".join(dict.fromkeys((said("min", "point"), said("max", "point"))))
    if (rows["low"] == rows["high"]).all():
        return point
    if rows[["low", "high"]].isna().any(axis=None):
        return f"{point} (no interval)"
    return f"{point} [{said('min', 'low')}, {said('max', 'high')}]"

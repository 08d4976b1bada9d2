"""Verdicts by rule: measured intervals in, a word out. No torch.

A rule writes its own text from the fields that it judges by, so that the two cannot drift apart. What it
judges is a table with a row a unit (a size, a task, a step): unit (its name), point, low, high (the mean and
its 95 % interval), n (seeds; 0 where numbers are counted, not measured), and perhaps group (under which many
units are told together).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

Tables = Mapping[str, pd.DataFrame]
"""Experiment -> its table."""

MOST = 0.5  # "most" is more than this share of the units
LISTED = 4  # more units than these are told as ranges
NOT_RUN = "not yet run at this scale"
OTHER = {"below": "above", "above": "below"}
SIGN = {"below": "<", "above": ">"}


@dataclass(frozen=True)
class Words:
    """The three verdicts. none_is_no: whether a claim that holds for no unit is refuted, not just open."""

    yes: str
    mixed: str
    no: str
    none_is_no: bool


EXPERIMENT = Words("reproduced", "partly", "not", none_is_no=True)
QUESTION = Words("answered yes", "undecided", "answered no", none_is_no=False)


@dataclass(frozen=True)
class Sides:
    """Judges each unit by the side of a line on which its whole interval lies.

    what: the quantity, in words. side: where the claim puts it, "below" or "above" the `line`. form: how its
    numbers are printed.
    """

    what: str
    side: str
    line: float = 0.0
    form: str = "+.3f"

    def verdict(self, found: pd.DataFrame, words: Words) -> str:
        """One of the words; `NOT_RUN` with nothing measured, or with one seed, which makes no interval."""
        if _too_little(found):
            return NOT_RUN
        holds, fails = self._on(found, self.side), self._on(found, OTHER[self.side])
        if holds.all():
            return words.yes
        refuted = fails.mean() > MOST or (words.none_is_no and not holds.any())
        return words.no if refuted else words.mixed

    def text(self, words: Words) -> str:
        """The rule in words."""
        none = "none, or " if words.none_is_no else ""
        toward, away = (f"{SIGN[side]} {self.line:g}" for side in (self.side, OTHER[self.side]))
        return (
            f"{self.what}. {words.yes.capitalize()} if all intervals {toward}; {words.no} if {none}over "
            f"{MOST:.0%} {away}; else {words.mixed}"
        )

    def told(self, found: pd.DataFrame) -> str:
        """The numbers: unit by unit, or, where they are many, the range of each group and its counts."""
        return told(found, self.form, self._counts)

    def listed(self, found: pd.DataFrame) -> str:
        """The numbers unit by unit."""
        return listed(found, self.form)

    def _counts(self, found: pd.DataFrame) -> str:
        holds, fails = (int(self._on(found, side).sum()) for side in (self.side, OTHER[self.side]))
        against = f", {fails} {OTHER[self.side]}" if fails else ""
        return f"{holds} of {len(found)} {self.side} {self.line:g}{against}"

    def _on(self, found: pd.DataFrame, side: str) -> pd.Series:
        return found["high"] < self.line if side == "below" else found["low"] > self.line


@dataclass(frozen=True)
class Facts:
    """Judges each unit by a test of its row, where a claim has no two sides. what: the test, in words."""

    what: str
    test: Callable[..., bool]
    form: str = ".2f"

    def verdict(self, found: pd.DataFrame, words: Words) -> str:
        """One of the words; `NOT_RUN` as for `Sides`."""
        if _too_little(found):
            return NOT_RUN
        holds = self._holds(found)
        return words.yes if all(holds) else words.mixed if any(holds) else words.no

    def text(self, words: Words) -> str:
        """The rule in words."""
        yes = words.yes.capitalize()
        return f"{self.what}. {yes} if it holds for all; {words.no} if for none; else {words.mixed}"

    def told(self, found: pd.DataFrame) -> str:
        """The numbers, as `Sides` tells them."""
        return told(found, self.form, lambda rows: f"holds for {sum(self._holds(rows))} of {len(rows)}")

    listed = Sides.listed

    def _holds(self, found: pd.DataFrame) -> list[bool]:
        return [bool(self.test(row)) for row in found.itertuples()]


@dataclass(frozen=True)
class Entry:
    """How a row of the scorecard is measured and judged.

    needs: the tables that it cannot do without. measure: tables -> the units that the rule judges. note:
    further numbers from the tables.
    """

    needs: tuple[str, ...]
    measure: Callable[[Tables], pd.DataFrame]
    rule: Sides | Facts
    note: Callable[[Tables], str] | None = None


def told(found: pd.DataFrame, form: str, counts: Callable[[pd.DataFrame], str]) -> str:
    """Units with their intervals; more than `LISTED` as ranges of the points and hulls of the intervals."""
    if len(found) <= LISTED:
        return listed(found, form)
    return "; ".join(f"{name}{_range(rows, form)}, {counts(rows)}" for name, rows in _groups(found))


def listed(found: pd.DataFrame, form: str = "+.3f") -> str:
    """Every unit with its interval."""
    return "; ".join(f"{row.unit} {number(row.point, row.low, row.high, form)}" for row in found.itertuples())


def number(point: float, low: float, high: float, form: str) -> str:
    """A mean with its interval; alone where it is exact."""
    if low == high:
        return _one(point, form)
    if math.isnan(low) or math.isnan(high):
        return f"{_one(point, form)} (no interval)"
    return f"{_one(point, form)} [{_one(low, form)}, {_one(high, form)}]"


def _too_little(found: pd.DataFrame) -> bool:
    """Whether nothing is measured, or each unit once: one seed makes no interval."""
    return found.empty or bool(((found["n"] == 1) & found["low"].isna()).all())


def _groups(found: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    if "group" not in found:
        yield "", found
        return
    for name, rows in found.groupby("group", sort=False):
        yield f"{name} ", rows


def _range(rows: pd.DataFrame, form: str) -> str:
    low, high = rows["low"].min(skipna=False), rows["high"].max(skipna=False)  # a run that diverged must show
    ends = _ends(rows["point"].min(skipna=False), rows["point"].max(skipna=False), form)
    if (rows["low"] == rows["high"]).all():
        return ends
    return f"{ends} [{_one(low, form)}, {_one(high, form)}]"


def _ends(low: float, high: float, form: str) -> str:
    return _one(low, form) if low == high else f"{_one(low, form)} to {_one(high, form)}"


def _one(value: float, form: str) -> str:
    return "∞" if math.isinf(value) else format(value, form)

"""The scorecard: verdicts turn with the numbers, a rule's text is made from what it judges by, and the block
in README.md is not stale.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import fields, replace

import pandas as pd
import pytest
from conftest import tidy
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import t as student_t

from cbd.commands import findings as findings_page
from cbd.errors import CbdError, si
from cbd.experiments import EXPERIMENTS
from cbd.experiments.run import names_at
from cbd.experiments.scales import SCALES
from cbd.report import findings, ladder, readme, results, scorecard, verdicts
from cbd.report.claims import claims, reported
from cbd.report.findings import ROWS
from cbd.report.names import (
    ALONE,
    CBD,
    FIRST_BLOCKS,
    FITTED,
    FORWARD,
    FROM_SOURCE,
    JSD,
    LARGER,
    LEARNGENE,
    NESTED,
    ONE_STEP,
    PURE,
    RANDOM,
    REVERSE,
    SEQKD,
    SIMILARITY,
    SMALLER,
    STATES,
    STEPWISE,
    rate_named,
)
from cbd.report.scorecard import NOTHING
from cbd.report.verdicts import EXPERIMENT, NOT_RUN, NOT_TUNED, ONE_SEED, OTHER, QUESTION, SIGN, Facts, Sides

IDS = [f"E{i}" for i in range(1, 17)] + [f"Q{i}" for i in range(1, 12)]
YES, MIXED, NO = "yes", "mixed", "no"
SPECS = {"2x32": 1000, "4x64": 2000, "6x96": 3000}
smallest = next(iter(SPECS))
SEEDS = (0, 1, 2)


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """A root without results."""
    monkeypatch.setenv("CBD_ROOT", str(tmp_path))
    return tmp_path


def words(name: str):
    return EXPERIMENT if name.startswith("E") else QUESTION


def judged(name: str, tables: dict[str, pd.DataFrame]) -> str:
    """ "yes", "mixed", "no" or the words for what cannot be judged: one row's verdict on these tables."""
    entry = ROWS[name]
    assert set(entry.needs) <= set(tables)
    found = entry.rule.verdict(entry.measure(tables), words(name))
    said = {getattr(words(name), word): word for word in (YES, MIXED, NO)}
    said |= {NOT_RUN: NOT_RUN, ONE_SEED: ONE_SEED}
    return said[found]


# ---- tables by hand


def table(rows: list[dict], experiment: str = "x") -> pd.DataFrame:
    common = {"experiment": experiment, "family": "gpt2", "metric": "loss", "tokens": 0}
    sized = [{"parameters": SPECS[row["spec"]]} if row.get("spec") in SPECS else {} for row in rows]
    return tidy([common | size | row for size, row in zip(sized, rows, strict=True)])


def runs(method: str, spec: str, value: float, seeds=SEEDS, spread: float = 0.01, **more) -> list[dict]:
    """A row a seed; the same seeds move every method alike, and each a little by itself."""
    wobble = 0.001 * (sum(map(ord, method)) % 3)
    return [
        {"method": method, "spec": spec, "seed": seed, "stderr": 0.02}
        | {"value": value + spread * seed + wobble * (seed == 1)}
        | {"recipe": f"{method}{spec}{seed}{more.get('operator', '')}{more.get('budget', '')}"}
        | more
        for seed in seeds
    ]


def starts(over_single: list[float], random: float = 7.0, others: float = 1.0) -> pd.DataFrame:
    """`initialise`: how far CBD lies above the better single anchor in each size, and other operators above
    CBD.
    """
    rows = []
    for spec, gap in zip(SPECS, over_single, strict=True):
        rows += runs(
            CBD, spec, 4.0 + gap, alpha=0.8, mixing="union"
        )  # the smaller anchor is nearer, and better
        rows += runs(SMALLER, spec, 4.0) + runs(LARGER, spec, 5.0)
        rows += runs(RANDOM, spec, random) + runs("CBD (literal)", spec, 4.0 + gap + others)
    return table(rows)


def recovery(
    zero: list[float],
    single: float = 4.0,
    random: float = 6.0,
    end: float = -0.5,
    gained: tuple[float, ...] = (0.0, 0.0, 0.0),
    chain_tokens: float = 100.0,
) -> pd.DataFrame:
    """`convergence`: CBD starts at `zero` in each size and ends `end` above the better single anchor.

    gained: what random weights gain in each size between the two budgets.
    """
    rows = []
    for spec, start, gain in zip(SPECS, zero, gained, strict=True):
        rows += runs(CBD, spec, chain_tokens, spread=0, metric="chain_tokens")
        for budget in (100, 200):
            label, later = {"budget": budget}, random - gain * (budget == 200)
            rows += runs(CBD, spec, start, **label)
            rows += runs(CBD, spec, single + end, tokens=budget, **label)
            for method, value in ((SMALLER, single), (LARGER, single + 1), (RANDOM, later)):
                rows += runs(method, spec, 8.0, **label) + runs(method, spec, value, tokens=budget, **label)
    return table(rows)


def chain(
    lost: list[float],
    compute: float = 0.5,
    tokens: float = 0.5,
    alone: tuple[float, ...] = (0.1, 0.1, 0.1),
) -> pd.DataFrame:
    """`chain`: what each step loses; direct, and without a teacher, minus stepwise."""
    rows, total = [], 0.0
    for spec, loss, gap in zip(reversed(SPECS), lost, alone, strict=True):
        total += loss
        rows += runs("stepwise", spec, loss, metric="lost")
        rows += runs("stepwise", spec, total, metric="lost_since_source")
        rows += runs(ALONE, spec, 4.0 + gap, metric="final_loss")
        if spec != smallest:
            rows += runs("stepwise", spec, 4.0, metric="final_loss")
    for metric, gaps in (("final_loss", (compute, tokens)), ("loss_noise", (0.1, -0.1))):
        rows += runs("stepwise", smallest, 4.0, metric=metric)
        for how, gap in zip(("compute", "tokens"), gaps, strict=True):
            rows += runs(f"direct, equal {how}", smallest, 4.0 + gap, metric=metric)
    return table(rows)


GRID = (0.0, 0.25, 0.5, 0.75, 1.0)


def alphas(best: list[float], rule: float = 0.5, depth: float = 1.0) -> pd.DataFrame:
    """`alpha`: parabolas with their minimum at `best`, a size each, in every reading."""
    rows = []
    for spec, at in zip(SPECS, best, strict=True):
        for mixing, operator in (("literal", "preserving"), ("union", "preserving"), ("literal", "lossy")):
            for alpha in GRID:
                label = {"alpha": alpha, "mixing": mixing, "operator": operator}
                rows += runs("inherited", spec, 4 + depth * (alpha - at) ** 2, **label)
        rows += runs("parameter distance", spec, rule, spread=0, metric="rule_alpha")
    return table(rows).assign(value=lambda t: t["value"].where(t["metric"] != "rule_alpha", rule))


def kindred(gains: list[float]) -> pd.DataFrame:
    """`families`: so much CBD in the middle of the grid is below its better end, a family each."""
    rows = []
    for family, gain in zip(("gpt2", "llama", "qwen3"), [9.0, *gains], strict=True):
        label = {"family": family, "metric": "bits_per_byte"}
        for alpha in GRID:
            value = 3 - gain * (alpha == 0.5)
            rows += runs("CBD", "2x32", value, alpha=alpha, mixing="union", operator="preserving", **label)
        rows += runs(RANDOM, "2x32", 5.0, **label)
        rows += runs("parameter distance", "2x32", 0.5, spread=0, family=family, metric="rule_alpha")
    return table(rows).assign(value=lambda t: t["value"].where(t["metric"] != "rule_alpha", 0.5))


BUDGETS = (100, 200, 400, 800)


def scratch(
    line: float, losses: list[float], cbd: float | list[float] = 0.6, rouge: list[float] | None = None
) -> pd.DataFrame:
    """`scratch_vs_cbd`: CBD's loss and Rouge-L, and those of random weights by budget; chance is 0.1."""
    rows = []
    for spec, own in zip(SPECS, cbd if isinstance(cbd, list) else [cbd] * 3, strict=True):
        rows += runs(CBD, spec, line) + runs(CBD, spec, own, metric="t/rougeL")
        rows += runs(f"{CBD[:-7]}(bridged)", spec, 0.5, metric="t/rougeL")
        for tokens, loss, score in zip(BUDGETS, losses, rouge or [0.2] * 4, strict=True):
            rows += runs(RANDOM, spec, loss, tokens=tokens)
            rows += runs(RANDOM, spec, score, metric="t/rougeL", tokens=tokens)
        rows += runs(CBD, spec, 0.1, spread=0, metric="t/rougeL chance")
    return table(rows)


def equal(gaps: list[float], width: float = 1.0) -> pd.DataFrame:
    """`equal_budget`: so many points CBD is above random weights in each size, give or take `width`."""
    rows = []
    for spec, gap in zip(SPECS, gaps, strict=True):
        for metric in ("t/acc", "u/rougeL"):
            rows += runs(CBD, spec, 0.4 + gap / 100, metric=metric, tokens=100)
            rows += runs(RANDOM, spec, 0.4, metric=metric, tokens=100)
            rows += runs(CBD, spec, 0.1, spread=0, metric=f"{metric} chance", tokens=100)
        for end, value in (("", gap), (" low", gap - width), (" high", gap + width)):
            label = {"metric": f"average minus random{end}", "budget": 100, "tokens": 100}
            rows.append({"method": CBD, "spec": spec, "value": value} | label)
    return table(rows)


def bridge(sequence: float, likelihoods: float = 0.0, compute: float = 0.0) -> pd.DataFrame:
    """`bridge`: bits per byte of the SLM above those of no bridge at equal tokens."""
    gaps = {"sequence-level": sequence, "likelihoods (ALM)": likelihoods, "likelihoods (ULD)": likelihoods}
    gaps |= {"no bridge, equal tokens": 0.0, "no bridge, equal compute": compute}
    label = {"metric": "bits_per_byte", "source": "llm", "stage": "SLM"}
    # the proxies say the opposite: only the SLM may count
    proxies = [
        row for m, gap in gaps.items() for row in runs(m, "4x64", 3 - gap, **(label | {"stage": "proxy"}))
    ]
    return table(proxies + [row for m, gap in gaps.items() for row in runs(m, "2x32", 3 + gap, **label)])


def costs(chain_at: list[float], per_size: float = 2.0) -> pd.DataFrame:
    """`paper_map`: the chain's FLOPs by number of sizes; the others cost `per_size` and half more each."""
    rows = []
    for i, value in enumerate(chain_at, start=1):
        each = {"chain (CBD)": value, "scratch": per_size * i, "direct distillation": 1.5 * per_size * i}
        rows += [
            {"method": m, "sizes": i, "seed": 0, "metric": "cumulative_flops", "value": v}
            for m, v in each.items()
        ]
    return table(rows)


def reached(others: list[float]) -> pd.DataFrame:
    """`paper_map`: the share of each gap's sizes that another method makes; CBD makes them all."""
    rows = []
    for gap, share in zip(("2x32 to 4x64", "4x64 to 6x96"), others, strict=True):
        for method, value in ((CBD, 1.0), ("HyperCloning", share)):
            rows.append(
                {"method": method, "spec": gap, "sizes": 4, "seed": 0, "metric": "reach", "value": value}
            )
    return table(rows)


def versus(ours: list[float], theirs: list[float], zero: float = 6.0, last: float = 0.0) -> pd.DataFrame:
    """`rivals`: the losses of CBD and of two rivals in each size after recovery; before it CBD's is 6.

    last: how far Learngene lies above the other rival. zero: where rivals start.
    """
    rows = []
    for spec, mine, other in zip(SPECS, ours, theirs, strict=True):
        for method, first, loss in (
            (CBD, 6.0, mine),
            (LEARNGENE, zero, other + last),
            ("stacking", zero, other),
        ):
            rows += runs(method, spec, first, budget=100) + runs(method, spec, loss, budget=100, tokens=100)
    return table(rows)


def dense(gaps: list[float]) -> pd.DataFrame:
    """`density`: so far the chain of many anchors lies above that of one, in each size, before and after."""
    rows = []
    for spec, gap in zip(SPECS, gaps, strict=True):
        for tokens in (0, 100):
            label = {"budget": 100, "tokens": tokens}
            rows += runs("1 anchor", spec, 5.0, **label) + runs("4 anchors", spec, 5.0 + gap, **label)
    for method, loss in (("1 anchor", 5.0), ("4 anchors", 5.0 + gaps[0])):
        rows += runs(method, smallest, loss, metric="final_loss")
    return table(rows)


def learned(zero: float, after: float, rule: float) -> pd.DataFrame:
    """`better_interpolation`: how far learned alphas, and the rule's, lie above the nearest anchor."""
    rows = []
    for spec in SPECS:
        rows += runs(CBD, spec, 0.9, spread=0, metric="rule_alpha")
        for tokens, gap in ((0, zero), (100, after)):
            label = {"budget": 100, "tokens": tokens}
            rows += runs(SMALLER, spec, 5.0, **label) + runs(LARGER, spec, 6.0, **label)
            rows += runs(CBD, spec, 5.0 + rule, **label)
            for method in FITTED.values():
                rows += runs(method, spec, 5.0 + gap, **label)
    return table(rows)


def nest(anchor: float, zero: float, after: float) -> pd.DataFrame:
    """`nested`: how far slices of a nested run lie above the chain's models."""
    rows = []
    for spec in SPECS:
        rows += runs(STEPWISE, spec, 4.0, metric="final_loss")
        rows += runs(NESTED, spec, 4.0 + anchor, metric="final_loss")
        for tokens, gap in ((0, zero), (100, after)):
            label = {"budget": 100, "tokens": tokens}
            rows += runs(CBD, spec, 5.0, **label) + runs(NESTED, spec, 5.0 + gap, **label)
    return table(rows)


def objectives(others: list[float], alone: float = 0.5, text: float = 1.0, own: float = 0.0) -> pd.DataFrame:
    """`distillers`: how far other losses lie above reverse KL, and the chain's own rate above twice it."""
    rows = []
    for spec, other in zip(SPECS, others, strict=False):
        above = dict.fromkeys((FORWARD, JSD, PURE, STATES), other) | {REVERSE: 0.0, ALONE: alone, SEQKD: text}
        for times, more in ((1, own), (2, 0.0), (4, 0.3)):
            label = {"metric": "final_loss", "source": "6x192", "stage": rate_named(times)}
            for method, gap in above.items():
                rows += runs(method, spec, 4.0 + gap + more, **label)
    return table(rows)


def apart(steps: list[float], source: list[float], ends: float = -0.2) -> pd.DataFrame:
    """`theorem`: each anchor's divergences, and how much more alike it is at its end than at its start."""
    rows = []
    for spec, step, whole in zip(reversed(SPECS), steps, source, strict=True):
        for method, value in ((ONE_STEP, step), (FROM_SOURCE, whole)):
            for metric in ("forward_kl", "reverse_kl"):
                rows += runs(method, spec, value, spread=0.001, metric=metric, source="x")
            rows += runs(method, spec, 20.0, spread=0.1, metric="effective_rank", source="x")
            for depth in (0, 0.5, 1):
                alike = 0.6 + depth * ends
                rows += runs(method, spec, alike, spread=0.001, metric=f"{SIMILARITY}{depth:g}", source="x")
    return table(rows)


def asked(half: float, late: float, smaller_late: float, favoured: float) -> pd.DataFrame:
    """`decisions`: of a lead of 0.4, the share after half and after 0.8 of the blocks, of both models;
    how much more often the favourite is taken after half of them than in the end.
    """
    rows = []
    for model, later in (("6x192", late), ("2x32", smaller_late)):
        for share, part, more in (("0.5", half, favoured), ("0.8", later, 0.0), ("1", 1.0, 0.0)):
            label = {"source": model, "stage": share}
            say = lambda metric, value, spread=0.01, label=label: runs(  # noqa: E731
                FIRST_BLOCKS, "2x32", value, spread=spread, metric=f"t/{metric}", **label
            )
            rows += say("acc", 0.5 + 0.4 * part) + say("acc chance", 0.5, 0)
            rows += say("margin", 2.0 * part) + say("margin chance", -1.0, 0)
            rows += say("option 1", 0.55 + more) + say("option 2", 0.45 - more)
    return table(rows)


UP, DOWN, FLAT = [0.5, 0.5, 0.5], [-0.5, -0.5, -0.5], [0.0, 0.0, 0.0]
RISING = [0.2, 0.3, 0.4, 0.5]
FLIPS = [
    ("E1", {"chain": chain(FLAT)}, YES),
    ("E1", {"chain": chain(FLAT, alone=(0.1, 0.1, 0.0))}, MIXED),
    ("E1", {"chain": chain(FLAT, alone=(0.1, -0.1, -0.1))}, NO),
    ("E1", {"chain": chain(FLAT, alone=(0.005, 0.005, 0.005))}, NO),
    ("E2", {"initialise": starts(UP)}, YES),
    ("E2", {"initialise": starts([0.0, 0.0, 9.0])}, MIXED),
    ("E2", {"initialise": starts(UP, random=4.0)}, NO),
    ("E3", {"scratch_vs_cbd": scratch(3.0, [6, 5, 4, 3.5])}, YES),
    ("E3", {"scratch_vs_cbd": scratch(5.5, [6, 5, 4, 3.5], cbd=0.6)}, MIXED),
    ("E3", {"scratch_vs_cbd": scratch(5.5, [6, 5, 4, 3.5], cbd=0.1)}, NO),
    ("E4", {"equal_budget": equal([5, 5, 5])}, YES),
    ("E4", {"equal_budget": equal([5, 5, -5])}, MIXED),
    ("E4", {"equal_budget": equal([5, -5, -5])}, NO),
    ("E5", {"convergence": recovery([5, 5, 5])}, YES),
    ("E5", {"convergence": recovery([5, 5, 7])}, MIXED),
    ("E5", {"convergence": recovery([7, 7, 5])}, NO),
    ("E6", {"chain": chain([0, 0, 0])}, YES),
    ("E6", {"chain": chain([0, 0, 0], compute=-0.5)}, MIXED),
    ("E6", {"chain": chain([0, 0, 0], compute=-0.5, tokens=-0.5)}, NO),
    ("E6", {"chain": chain([0, 0, 0], compute=0.005, tokens=0.005)}, NO),
    ("E7", {"alpha": alphas([0.5, 0.5, 0.75])}, YES),
    ("E7", {"alpha": alphas([0.5, 0.5, 1.0])}, MIXED),
    ("E7", {"alpha": alphas([0.0, 0.0, 1.0])}, NO),
    ("E7", {"alpha": alphas([0.75, 0.75, 0.75], rule=0.2)}, NO),
    ("E8", {"scratch_vs_cbd": scratch(3.0, [6] * 4, rouge=RISING)}, YES),
    ("E8", {"scratch_vs_cbd": scratch(3.0, [6] * 4, rouge=RISING, cbd=[0.6, 0.6, 0.3])}, MIXED),
    ("E8", {"scratch_vs_cbd": scratch(3.0, [6] * 4, rouge=[0.5, 0.4, 0.3, 0.2])}, NO),
    ("E8", {"scratch_vs_cbd": scratch(3.0, [6] * 4, rouge=[0.5, 0.6, 0.8, 0.9])}, NO),
    ("E8", {"scratch_vs_cbd": scratch(3.0, [6] * 4, rouge=[0.9, 0.9, 0.8, 0.8])}, NO),
    ("E9", {"rivals": versus([4.0, 4.0, 4.0], [9.0, 4.5, 4.5])}, YES),
    ("E9", {"rivals": versus([4.0, 4.0, 4.0], [9.0, 4.5, 3.5])}, MIXED),
    ("E9", {"rivals": versus([4.0, 4.0, 4.0], [9.0, 3.5, 3.5])}, NO),
    ("E10", {"initialise": starts(DOWN)}, YES),
    ("E10", {"initialise": starts([-0.5, -0.5, 0.5])}, MIXED),
    ("E10", {"initialise": starts([-0.5, 0.5, 0.5])}, NO),
    ("E11", {"density": dense(DOWN)}, YES),
    ("E11", {"density": dense([-0.5, -0.5, 0.5])}, MIXED),
    ("E11", {"density": dense([0.005, 0.005, 0.005])}, NO),
    ("E12", {"initialise": starts(UP), "convergence": recovery([3, 3, 3])}, YES),
    ("E12", {"initialise": starts(UP), "convergence": recovery([3, 3, 5])}, MIXED),
    ("E12", {"initialise": starts(UP), "convergence": recovery([5, 5, 5])}, NO),
    ("E13", {"equal_budget": equal([5, -5, -5])}, YES),
    ("E13", {"equal_budget": equal([-5, 5, 5])}, NO),
    ("E13", {"equal_budget": equal([5, 5, 5], width=6)}, NO),
    ("E15", {"bridge": bridge(-0.5)}, YES),
    ("E15", {"bridge": bridge(-0.5, compute=-0.9)}, MIXED),
    ("E15", {"bridge": bridge(0.5)}, NO),
    ("E14", {"paper_map": reached([0.0, 0.5])}, YES),
    ("E14", {"paper_map": reached([0.0, 1.0])}, MIXED),
    ("E14", {"paper_map": reached([1.0, 1.0])}, NO),
    ("E16", {"paper_map": costs([1] * 4), "convergence": recovery([5, 5, 5])}, YES),
    ("E16", {"paper_map": costs([1] * 4), "convergence": recovery([5, 5, 7])}, MIXED),
    ("E16", {"paper_map": costs([1] * 4), "convergence": recovery([7, 7, 7])}, NO),
    ("Q1", {"chain": chain([0, 0, 0])}, YES),
    ("Q1", {"chain": chain([0, 0, 0]), "alpha": alphas([0, 0, 0]).query("seed < 2")}, MIXED),
    ("Q1", {"alpha": alphas([0, 0, 0]).query("seed < 1"), "paper_map": costs([1])}, NO),
    ("Q2", {"initialise": starts(DOWN), "convergence": recovery(UP)}, YES),
    ("Q2", {"initialise": starts(UP), "convergence": recovery(UP)}, MIXED),
    ("Q2", {"initialise": starts(DOWN), "convergence": recovery(DOWN, end=0.5)}, NO),
    ("Q3", {"initialise": starts(UP)}, YES),
    ("Q3", {"initialise": starts(UP, others=-0.1)}, NO),
    ("Q3", {"initialise": starts(UP, others=0.0)}, MIXED),
    ("Q4", {"chain": chain([0.0, 0.1, 0.1])}, YES),
    ("Q4", {"chain": chain([0.5, 0.1, -0.9])}, NO),
    ("Q4", {"chain": chain([0.0, 0.0, -0.01])}, MIXED),
    ("Q5", {"distillers": objectives([-0.1, -0.1])}, YES),
    ("Q5", {"distillers": objectives([0.1, 0.1], alone=-0.1)}, YES),
    ("Q5", {"distillers": objectives([-0.1, 0.0])}, MIXED),
    ("Q5", {"distillers": objectives([0.1, 0.1])}, NO),
    ("Q6", {"alpha": alphas([0.5, 0.5, 0.5])}, YES),
    ("Q6", {"alpha": alphas([0.5, 0.5, 1.0])}, MIXED),
    ("Q6", {"alpha": alphas([0.5, 0.0, 1.0])}, NO),
    ("Q6", {"alpha": alphas([0.5, 0.0, 1.0], depth=0.03)}, YES),
    ("Q7", {"paper_map": costs([1] * 4), "convergence": recovery([5] * 3, chain_tokens=100)}, YES),
    ("Q7", {"paper_map": costs([1] * 4), "convergence": recovery([5] * 3, chain_tokens=700)}, MIXED),
    ("Q7", {"paper_map": costs([1] * 4), "convergence": recovery([5] * 3, chain_tokens=9e9)}, NO),
    ("Q7", {"paper_map": costs([1] * 4), "convergence": recovery([9] * 3, end=3)}, NO),
    ("Q8", {"rivals": versus([4.0, 4.0, 4.0], [4.5, 4.5, 4.5])}, YES),
    ("Q8", {"rivals": versus([4.0, 4.0, 4.0], [4.5, 4.5, 3.5])}, MIXED),
    ("Q8", {"rivals": versus([4.0, 4.0, 4.0], [3.5, 3.5, 4.5])}, NO),
    ("Q9", {"families": kindred([0.5, 0.5])}, YES),
    ("Q9", {"families": kindred([0.5, -0.5])}, MIXED),
    ("Q9", {"families": kindred([-0.5, -0.5])}, NO),
    ("Q10", {"bridge": bridge(-0.5, -0.5)}, YES),
    ("Q10", {"bridge": bridge(0.5, -0.5)}, MIXED),
    ("Q10", {"bridge": bridge(-0.5, 0.5)}, NO),
    ("Q11", {"convergence": recovery(UP, gained=(1.0, 1.0, 1.0))}, YES),
    ("Q11", {"convergence": recovery(UP, gained=(1.0, 1.0, 0.0))}, MIXED),
    ("Q11", {"convergence": recovery(UP, gained=(-1.0, -1.0, 1.0))}, NO),
]


@pytest.mark.parametrize(("name", "tables", "verdict"), FLIPS)
def test_a_verdict_turns_with_the_numbers(name, tables, verdict):
    assert judged(name, tables) == verdict


def test_every_rule_is_turned_every_way():
    """A row of one unit is refuted by an experiment that cannot tell: it has no third verdict."""
    for name in ROWS:
        ways = {YES, NO} if name == "E13" else {YES, MIXED, NO}
        assert {verdict for other, _, verdict in FLIPS if other == name} == ways, name


@pytest.mark.parametrize("name", [n for n, entry in ROWS.items() if n not in ("E4", "E13", "E14", "Q1")])
def test_one_seed_decides_nothing(name):
    """The intervals of E4 and E13 come with their table, E14 is counted; to Q1 one seed is an answer."""
    tables = next(tables for other, tables, verdict in FLIPS if (other, verdict) == (name, YES))
    single = {key: frame[frame["seed"].isna() | (frame["seed"] == 0)] for key, frame in tables.items()}
    assert judged(name, single) == ONE_SEED


def test_of_one_seed_points_are_counted_and_nothing_is_called_tested():
    points = [-0.3, -0.2, 0.0, -0.005, -1.0, 0.2]
    found = pd.DataFrame({"unit": [f"u{i}" for i in range(6)], "point": points})
    found = found.assign(low=math.nan, high=math.nan, n=1)
    assert verdicts.less("x").told(found) == "-1.000 to +0.200 (no interval), 3 of 6 points below -0.01"
    assert verdicts.more("x").told(found) == "-1.000 to +0.200 (no interval), 1 of 6 points above 0.01"
    assert Facts("x", lambda row: row.low < 1).told(found) == "-1.00 to 0.20 (no interval)"
    both = found.assign(low=found["point"] - 0.001, high=found["point"] + 0.001, n=3)
    assert verdicts.less("x").told(both).endswith("3 of 6 below -0.01, 1 above 0.01")


def test_a_size_that_diverged_is_not_passed_over():
    frame = starts(UP)
    frame.loc[(frame["method"] == CBD) & (frame["spec"] == "2x32") & (frame["seed"] == 0), "value"] = float(
        "nan"
    )
    assert judged("E2", {"initialise": frame}) == MIXED
    entry = ROWS["E2"]
    assert "nan" in entry.rule.told(entry.measure({"initialise": frame}))


# ---- the rules themselves

ends = st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)).map(sorted), min_size=1, max_size=8)


def units(intervals, n: int = 3) -> pd.DataFrame:
    rows = [
        {"unit": f"u{i}", "point": (low + high) / 2, "low": low, "high": high, "n": n}
        for i, (low, high) in enumerate(intervals)
    ]
    return pd.DataFrame(rows)


def by_t_tests(intervals, line: float, side: str) -> list[float]:
    """The p-value of each unit: t tests of three seeds against the line."""
    ps = []
    for low, high in intervals:
        lead = ((low + high) / 2 - line) * (1 if side == "above" else -1)
        error = (high - low) / 2 / student_t.ppf(0.975, 2)
        ps.append(1.0 if lead <= 0 else 0.0 if error == 0 else 2 * student_t.sf(lead / error, 2))
    return ps


def counted(intervals, line: float, side: str) -> int:
    """How many units Holm's procedure rejects, step by step."""
    ps, rejected = by_t_tests(intervals, line, side), 0
    for p in sorted(ps):
        if p >= 0.05 / (len(ps) - rejected):
            break
        rejected += 1
    return rejected


@given(
    ends,
    st.sampled_from(sorted(OTHER)),
    st.floats(-2, 2),
    st.floats(0, 0.5),
    st.sampled_from([EXPERIMENT, QUESTION]),
)
def test_sides_are_judged_as_the_rule_says(intervals, side, line, margin, said):
    """An independent count of what lies where."""
    ps = by_t_tests(intervals, line + margin, "above") + by_t_tests(intervals, line - margin, "below")
    edges = [0.05 / k for k in range(1, len(intervals) + 1)]
    assume(all(abs(p - edge) > 1e-9 for p in ps for edge in edges))  # where rounding alone decides
    rule = Sides("x", side, line, margin)
    found = rule.verdict(units(intervals), said)
    above, below = counted(intervals, line + margin, "above"), counted(intervals, line - margin, "below")
    toward, away = (above, below) if side == "above" else (below, above)
    alone = sum(
        counted([one], line + margin if side == "above" else line - margin, side) for one in intervals
    )
    assert (found == said.yes) == (toward == len(intervals))
    if away * 2 > len(intervals):
        assert found == said.no
    elif alone > 0 and toward < len(intervals):
        assert found == said.mixed
    elif alone == 0:
        assert found == (said.no if said is EXPERIMENT else said.mixed)


@given(ends, st.floats(-2, 2), st.sampled_from([EXPERIMENT, QUESTION]))
def test_sides_are_mirror_images(intervals, line, said):
    mirrored = [(-high, -low) for low, high in intervals]
    below, above = Sides("x", "below", line), Sides("x", "above", -line)
    assert below.verdict(units(intervals), said) == above.verdict(units(mirrored), said)


@given(ends, st.floats(0, 3), st.data())
def test_better_numbers_never_make_a_worse_verdict(intervals, gain, data):
    rank = {EXPERIMENT.no: 0, EXPERIMENT.mixed: 1, EXPERIMENT.yes: 2}
    i = data.draw(st.integers(0, len(intervals) - 1))
    better = [(low + gain * (j == i), high + gain * (j == i)) for j, (low, high) in enumerate(intervals)]
    rule = Sides("x", "above")
    before, after = (rule.verdict(units(each), EXPERIMENT) for each in (intervals, better))
    assert rank[after] >= rank[before]


@pytest.mark.parametrize("name", list(ROWS))
def test_the_rule_text_is_made_from_what_the_rule_judges_by(name):
    rule, said = ROWS[name].rule, words(name)
    text = rule.text(said)
    assert all(word.lower() in text.lower() for word in (said.yes, said.mixed, said.no))
    if isinstance(rule, Facts):
        return
    assert f"all {SIGN[rule.side]} {rule.bound(rule.side):g};" in text
    assert f"{SIGN[OTHER[rule.side]]} {rule.bound(OTHER[rule.side]):g};" in text
    assert replace(rule, side=OTHER[rule.side]).text(said) != text
    assert replace(rule, line=rule.line + 1).text(said) != text


def test_numbers_are_told_with_their_intervals():
    rule = Sides("x", "below")
    assert rule.told(units([(-2, -1), (1, 1)])) == "u0 -1.500 [-2.000, -1.000]; u1 +1.000"
    many = units([(-2.1, -1.9), (-1, 1), (1.9, 2.1), (2.9, 3.1), (0.1, 4)])
    assert rule.told(many) == "-2.000 to +3.000 [-2.100, +4.000], 1 of 5 below 0, 2 above"
    grouped = rule.told(many.assign(group=["a", "a", "b", "b", "b"]))
    assert grouped.startswith("a -2.000 to +0.000 [-2.100, +1.000], 1 of 2 below 0; b ")
    assert replace(rule, margin=0.5).told(many).endswith("1 of 5 below -0.5, 2 above 0.5")
    assert rule.told(units([(float("inf"), float("inf"))])) == "u0 ∞"


# ---- the table


def test_every_row_once_in_order(empty):
    card = scorecard.scorecard("laptop")
    assert list(card["id"]) == IDS
    assert list(card.columns) == [field.name for field in fields(scorecard.Row)]
    assert set(ROWS) <= set(IDS) and (card["claim"] != "").all() and (card["rule"] != "").all()


def test_without_tables_nothing_is_claimed(empty):
    card = scorecard.scorecard("laptop")
    assert set(card["verdict"]) == {NOT_RUN} and set(card["ours"]) == {NOTHING} and set(card["seeds"]) == {0}


def test_with_some_tables_only_their_rows_are_judged(empty):
    results.write_table(starts(DOWN).assign(experiment="initialise"), "laptop", "initialise")
    card = scorecard.scorecard("laptop").set_index("id")
    assert set(card.index[card["verdict"] != NOT_RUN]) == {
        "E2",
        "E10",
        "Q1",
        "Q3",
    }  # Q2 needs convergence too
    assert set(card.loc[["E2", "E10", "Q3"], "seeds"]) == {3}
    assert card.loc["E10", "ours"].startswith("2x32 -0.50")
    assert card.loc["E10", "verdict"] == "reproduced"
    assert card.loc["Q1", "ours"] == "initialise 3"


def ladder_of(short: float, method: str = RANDOM) -> pd.DataFrame:
    """Two finished runs, the shorter of which ends at `short`; the longer one stands at 5.0 there."""
    curve = ((50, 6.0), (200, 4.0), (400, 3.5))
    rows = runs(method, "2x32", 7.0, budget=100, tokens=0) + runs(
        method, "2x32", short, budget=100, tokens=100
    )
    for tokens, loss in curve:
        rows += runs(method, "2x32", loss, budget=400, tokens=tokens)
    return table(rows, "convergence")


def test_the_ladder_check_reads_the_longer_curve_in_log_tokens():
    found = ladder.ladder(ladder_of(5.3))
    assert list(found["seed"]) == list(SEEDS)
    assert set(found["budget"]) == {100} and set(found["longer"]) == {400}
    assert found["curve"].iloc[0] == pytest.approx(5.0)
    assert found["excess"].tolist() == pytest.approx([0.3] * 3)
    finals = ladder_of(5.3).query("tokens == 100 or tokens == 400")
    assert ladder.ladder(finals).empty, "runs that left no curve say nothing"


@pytest.mark.parametrize(("short", "tuned"), [(4.8, True), (5.019, True), (5.03, False)])
def test_a_row_against_a_baseline_that_fails_the_ladder_check_is_not_judged(empty, short, tuned):
    tables = {"convergence": recovery([3.0, 3.0, 3.0])}
    steps = ladder_of(short).assign(method=RANDOM, spec="9x9")
    both = pd.concat([tables["convergence"].assign(experiment="convergence"), steps])
    both = both[~((both["method"] == RANDOM) & (both["spec"] != "9x9") & (both["tokens"] == 0))]
    results.write_table(both, "laptop", "convergence")
    card = scorecard.scorecard("laptop").set_index("id")
    assert (card.loc["E5", "verdict"] == NOT_TUNED) == (not tuned)
    assert ROWS["E12"].control.trained == "", "it compares with anchors, which pass"
    assert f"{'holds' if tuned else 'fails'} for random" in ladder.told("laptop")
    tables = {"convergence": both, "one": both[both["budget"] == 100], "other": both[both["budget"] == 400]}
    assert ladder.failing(tables, ["one"], RANDOM) == (set() if tuned else {("9x9", 100)})
    assert not ladder.failing(tables, ["other"], RANDOM), "a row that does not rest on that run"


def test_entries_need_tables_that_exist():
    assert {name for entry in ROWS.values() for name in entry.needs} <= set(EXPERIMENTS)


def test_every_note_can_be_written():
    for name, entry in ROWS.items():
        for other, tables, _ in FLIPS:
            if name == other:
                assert isinstance(entry.note(tables), str)


def test_tasks_at_chance_are_named_and_not_judged():
    tables = {"scratch_vs_cbd": scratch(3.0, [6, 5, 4, 3.5], cbd=0.05, rouge=[0.05] * 4)}
    entry = ROWS["E3"]
    assert set(entry.measure(tables)["group"]) == {"loss"}
    assert "at chance, not judged: 2x32 t/rougeL" in entry.note(tables)
    assert ROWS["E8"].note(tables).startswith("Neither is above chance")


@pytest.mark.parametrize(("score", "above"), [(0.15, True), (0.13, False)])
def test_one_seed_is_above_chance_where_its_items_say_so(score, above):
    """The standard error over items is 0.02 in these rows."""
    table = scratch(3.0, [6, 5, 4, 3.5], cbd=score, rouge=[0.05] * 4)
    found = findings.scratch_vs_cbd.crossings(table[table["seed"] == 0]).query("method == @CBD")
    assert set(found.loc[found["metric"] == "t/rougeL", "above_chance"]) == {above}


def test_the_papers_numbers_are_those_reported(empty):
    card = scorecard.scorecard("laptop").set_index("id")
    said = {claim.id: claim.said for claim in claims()}
    for name, text in card["paper"].items():
        rows = reported().query("experiment == @name")
        for row in rows.itertuples():
            assert (
                f"{row.method} {row.value:g}" in text
                or f"{row.method} {row.params_millions:g}M {row.value:g}" in text
            )
        # no other number: what is left is the sizes, the tokens, and the words of claims.csv
        left = text.removesuffix(said[name])
        known = {f"{value:g}" for value in rows["value"]} | {f"{size:g}" for size in rows["params_millions"]}
        known |= {si(t).rstrip("MG") for t in rows["tokens"].dropna()} | {"2", "4"}  # 2-anchors
        assert set(re.findall(r"\d+(?:\.\d+)?", left)) <= known, name
    assert card.loc["E4", "paper"].startswith("average at 78M tokens: Rand 39.67, CBD 46.33")
    assert card.loc["E9", "paper"].endswith("CBD 134M 42.44")
    assert "speedup vs rand at 10B tokens: CBD" in card.loc["E5", "paper"]
    assert card.loc["E1", "paper"] == NOTHING


# ---- what is written


def test_the_readme_block_is_the_one_that_the_results_give():
    """README.md cannot go stale: what stands between the markers is what `make figures` would write."""
    text = (results.root() / "README.md").read_text()
    assert readme.update(text) == text
    assert readme.commands() in text and max(map(len, readme.commands().splitlines())) <= 120
    lines = readme.block().splitlines()
    assert len(lines) <= 12 and max(map(len, lines)) <= 120
    linked = re.findall(r"\]\((\S+)\)", readme.block())
    assert len(linked) > 10 and all((results.root() / place).is_file() for place in linked)


@pytest.mark.parametrize("scale", readme.SCALES)
def test_the_page_is_the_one_that_the_results_give(scale):
    assert scorecard.page(scale).read_text() == scorecard.markdown(scale)


def test_the_block_tells_every_claim_by_its_verdict(empty):
    told = readme.block(["laptop"])
    assert re.findall(r"\*\*(.+?):\*\*", told) == ["Open", "Questions"] and "11 open" in told
    assert all(claim.short in " ".join(told.split()) for claim in claims() if not claim.is_question)
    results.write_table(starts(DOWN).assign(experiment="initialise"), "laptop", "initialise")
    (empty / "notebooks").mkdir()
    (empty / "notebooks" / "02_initialise.ipynb").touch()
    first = " ".join(readme.block(["laptop"]).split(" - **Open")[0].split())
    shorts = {claim.id: claim.short for claim in claims()}
    for name in ("E2", "E10"):
        assert f"[{shorts[name]}](notebooks/02_initialise.ipynb)" in first


def test_the_block_tells_the_verdict_of_the_first_scale_that_judges(empty):
    """One seed judges nothing; what no scale judges is told as the first has it."""
    results.write_table(starts(DOWN).assign(experiment="initialise"), "laptop", "initialise")
    told = lambda: " ".join(readme.block(["smollm", "laptop"]).split())  # noqa: E731
    title = lambda: re.search(r"\*\*([^*]+):\*\* (?:(?!\*\*).)*two anchors start better than one(°?)", told())  # noqa: E731
    assert title().groups() == ("Reproduced", "°")
    results.write_table(
        starts(DOWN).query("seed == 0").assign(experiment="initialise"), "smollm", "initialise"
    )
    assert title().groups() == ("Reproduced", "°"), "one seed does not judge"
    results.write_table(starts(UP).assign(experiment="initialise"), "smollm", "initialise")
    assert title().groups() == ("Not reproduced", "")


def test_the_block_is_written_once_between_the_markers(empty):
    text = f"before\n{readme.START}\nstale text\n{readme.END}\nafter\n"
    new = readme.update(text, ["laptop"])
    assert new.startswith(f"before\n{readme.START}\n") and new.endswith(f"{readme.END}\nafter\n")
    assert "stale text" not in new and readme.block(["laptop"]) in new
    assert readme.update(new, ["laptop"]) == new
    results.write_table(starts(DOWN).assign(experiment="initialise"), "laptop", "initialise")
    assert readme.update(new, ["laptop"]) != new


def test_commands_stand_with_what_they_took_and_what_came_of_them(empty):
    (empty / "results" / "bench").mkdir(parents=True)
    rows = [{"command": "cbd chain", "seconds": 200, "said": "3.10 nats"}]
    rows += [{"command": "cbd eval", "seconds": 80, "said": "piqa 60"}]
    (empty / "results" / "bench" / "commands.json").write_text(json.dumps({"rows": rows}))
    markers = f"{readme.START}\n{readme.END}\n"
    new = readme.update(f"{markers}{readme.RUN}\nstale\n{readme.RUN_END}\n", ["laptop"])
    assert "cbd chain\n# 3 min: 3.10 nats\ncbd eval\n# 80 s: piqa 60\n" in new and "stale" not in new
    with pytest.raises(CbdError, match="needs the two lines"):
        readme.update(f"{markers}{readme.RUN}", ["laptop"])


@pytest.mark.parametrize("text", ["", readme.START, f"{readme.END}\n{readme.START}"])
def test_a_text_without_both_markers_is_refused(text):
    with pytest.raises(CbdError, match="needs the two lines"):
        readme.update(text, ["laptop"])


def test_the_page_has_a_table_of_every_row_and_the_numbers_of_each_experiment(empty):
    results.write_table(starts(DOWN).assign(experiment="initialise"), "laptop", "initialise")
    page = scorecard.write("laptop")
    text = page.read_text()
    assert page == empty / "results" / "laptop" / "SCORECARD.md"
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert [line.split("|")[1].strip() for line in lines[1:]] == IDS
    assert {line.count("|") for line in lines} == {7}
    told = text.split("## In numbers")[1].strip().splitlines()
    assert [line.split(".**")[0] for line in told] == [f"- **{name}" for name in ("E2", "E10", "Q1", "Q3")]
    assert told[1].count("; ") == 2 and told[1].count(" -0.500 [") == 3
    assert len(re.findall(r"\dx\d\d ", told[3])) == 3, "every size of every operator"
    assert scorecard.tally(scorecard.scorecard("laptop")) in text


def test_the_tally_counts_every_row(empty):
    results.write_table(starts(UP).assign(experiment="initialise"), "laptop", "initialise")
    lines = scorecard.tally(scorecard.scorecard("laptop")).split("\n\n")[0].splitlines()
    told = [
        re.match(r"- \*\*(\d+) of (\d+) (claims|questions) (.+?)\.\*\* ", line).groups() for line in lines
    ]
    assert told[0] == ("1", "16", "claims", "reproduced") and told[1] == (
        "1",
        "16",
        "claims",
        "not reproduced",
    )
    assert told[2] == ("14", "16", "claims", "not yet run at this scale")
    assert sum(int(count) for count, _, what, _ in told if what == "questions") == 11
    for line, (count, *_) in zip(lines, told, strict=True):
        assert len(re.findall(r"\([EQ]\d+[,)]", line)) == int(count)
    assert sorted(re.findall(r"\(([EQ]\d+)[,)]", "\n".join(lines))) == sorted(IDS)
    weak = {name for name, entry in ROWS.items() if entry.control and entry.control.strength == "weak"}
    assert set(re.findall(r"\(([EQ]\d+), weak control\)", "\n".join(lines))) == weak


def test_the_scorecard_needs_no_torch():
    code = "import sys, cbd.report.scorecard as s; s.markdown('laptop'); sys.exit('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr or "cbd.report.scorecard imports torch"


# ---- other texts


def on_another_text(own: pd.DataFrame, other: pd.DataFrame, metric: str = "loss") -> pd.DataFrame:
    """One table with the losses of both, the second's on another text."""
    moved = other[other["metric"] == metric].assign(metric="loss on prose")
    moved["recipe"] += "prose"
    return pd.concat([own, moved], ignore_index=True)


@pytest.mark.parametrize("name", ["E1", "E2", "E5", "E6", "E7", "E10", "E12", "Q2", "Q3", "Q6", "Q11"])
def test_a_row_is_judged_on_every_text(name):
    if name in ("E2", "E10", "Q3"):
        yes, no = {"initialise": starts(DOWN)}, {"initialise": starts([3.5] * 3, others=-1.0)}
    elif name in ("E7", "Q6"):
        yes, no = {"alpha": alphas([0.5] * 3)}, {"alpha": alphas([0.1] * 3, rule=0.9)}
    elif name in ("E5", "E12", "Q2", "Q11"):
        yes = {"convergence": recovery([3] * 3, gained=(1, 1, 1)), "initialise": starts(DOWN)}
        no = {"convergence": recovery([7] * 3, end=0.5, gained=(-1, -1, -1)), "initialise": starts(UP)}
    else:
        lost = [0.1] * 3
        yes, no = {"chain": chain(lost)}, {"chain": chain(lost, -0.5, -0.5, (-0.1, -0.1, -0.1))}
    metric = "final_loss" if "chain" in yes else "loss"
    both = {table: on_another_text(yes[table], no[table], metric) for table in yes}
    alike = {table: on_another_text(yes[table], yes[table], metric) for table in yes}
    assert judged(name, yes) == judged(name, alike) == YES
    assert judged(name, both) != YES, "it does not hold on the other text"
    units = ROWS[name].measure(both)["unit"]
    assert sum(units.str.endswith(" on prose")) == len(units) / 2


# ---- the page over all scales


def parts_of(page: str) -> dict[str, str]:
    """Heading -> what stands below it."""
    return {text.split("\n", 1)[0]: text.split("\n", 1)[1] for text in page.split("## ")[1:]}


def test_the_page_of_findings_is_the_one_that_the_results_give():
    page = findings_page.page()
    assert (results.root() / "results" / "FINDINGS.md").read_text() == page
    assert "`: ." not in page, "a scale without a number beside it"
    parts = parts_of(page)
    shown = [scale for scale in SCALES if scale != "smoke" and results.names(scale)]
    verdicts = {scale: scorecard.scorecard(scale) for scale in shown}
    for heading, words in findings_page.HEADINGS.items():
        for card in verdicts.values():
            for row in card[card["verdict"].isin(words) & (card["verdict"] != NOT_RUN)].itertuples():
                assert f"**{row.claim}** ({row.id})" in parts[heading]
    assert all((results.root() / "results" / place).is_file() for place in re.findall(r"\]\((\S+)\)", page))


def test_a_claim_that_two_scales_judge_differently_is_told_under_both(empty):
    for scale, gaps in (("laptop", DOWN), ("smollm", UP)):
        results.write_table(starts(gaps).assign(experiment="initialise"), scale, "initialise")
    parts, claim = parts_of(findings_page.page()), "**Two anchors start better than a single one** (E10)"
    assert f"{claim}, `laptop`: 3 of 3 below -0.01. Fair control" in parts["What holds"]
    assert f"{claim}, `smollm`: 0 of 3 below -0.01, 3 above 0.01. Fair" in parts["What does not hold"]
    assert "(E10): `laptop` reproduced, `smollm` not." in parts["Where the scales disagree"]
    assert "(E2)" in parts["What holds"] and "(E2)" not in parts["Where the scales disagree"]
    both = next(line for line in parts["What holds"].splitlines() if "(E2)" in line)
    assert "`laptop`: 3 of 3" in both and "`smollm`: 3 of 3" in both, "one line for one verdict"
    assert "(E10)" not in parts["What has not been run"] and "(E1)" in parts["What has not been run"]


def test_what_one_seed_measured_is_told_with_its_numbers_and_not_judged(empty):
    for scale, seeds in (("laptop", (0, 1, 2)), ("smollm", (0,))):
        table = starts(UP).assign(experiment="initialise")
        results.write_table(table[table["seed"].isin(seeds)], scale, "initialise")
    parts = parts_of(findings_page.page())
    told = parts["What was measured with one seed, and is not judged"].splitlines()
    told = next(line for line in told if "(E10)" in line)
    numbers = re.search(r"`smollm`: (.*?)\. Fair control", told)[1]
    assert re.findall(r"[+-]\d\.\d{3}", numbers) and "interval" not in numbers
    assert "`laptop`" not in told, "three seeds are judged"
    assert "(E10)" not in parts["Where the scales disagree"]
    card = scorecard.scorecard("smollm").set_index("id")
    assert card.loc["E10", "verdict"] == ONE_SEED and "(1 seed)" in scorecard.table(card.reset_index())


def test_what_only_a_gpu_could_settle_is_what_one_has_not_run(empty):
    commands = lambda: set(re.findall(r"`cbd run (\w+) --scale gpu`", findings_page.page()))  # noqa: E731
    results.write_table(starts(DOWN).assign(experiment="initialise"), "laptop", "initialise")
    assert commands() == set(names_at(SCALES["gpu"])) - {"paper_map"}
    results.write_table(starts(DOWN).assign(experiment="initialise"), "gpu", "initialise")
    assert commands() == set(names_at(SCALES["gpu"])) - {"paper_map", "initialise"}

"""Figures of tasks: what is drawn is what a small table with known numbers says."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import tidy
from matplotlib.colors import same_color

from cbd.errors import CbdError
from cbd.report import figures, results
from cbd.report.figures import FIGURES
from cbd.report.names import LOOKS

SEEDS = (0, 1, 2)
LADDER = (1_000, 2_000, 4_000, 8_000)
SIZES = {"4x96": 650_000, "2x48": 160_000}  # not in their order on the page
UNION, BRIDGED, RANDOM = "CBD (union)", "CBD (bridged)", "random"
CHOICE, WORD, REPLY = "cbd_continuation/acc_norm", "cbd_cloze/acc", "cbd_reply/rougeL"
CHANCE = {CHOICE: 0.25, WORD: 0.06, REPLY: 0.05}
SCRATCH = {
    "loss": (6.0, 5.5, 5.0, 4.5),
    CHOICE: (0.25, 0.25, 0.30, 0.35),
    WORD: (0.04, 0.06, 0.10, 0.16),
    REPLY: (0.04, 0.05, 0.06, 0.07),
}
AT_ZERO = {
    UNION: {"loss": 4.75, CHOICE: 0.325, WORD: 0.08, REPLY: 0.055},
    BRIDGED: {"loss": 4.0, CHOICE: 0.20, WORD: 0.08, REPLY: 0.10},  # never reached, from the start, ...
}
MARGIN = 4.302653 / 3**0.5  # of Student's t with three seeds, in standard deviations
SPREAD = {"loss": (0.05, 0.02), **dict.fromkeys(CHANCE, (0.005, 0.002))}  # of scratch and CBD, a seed


def row(experiment, metric, method, spec, seed, value, **more):
    base = {"experiment": experiment, "family": "gpt2", "metric": metric, "method": method, "spec": spec}
    return base | {"parameters": SIZES[spec], "seed": seed, "value": value} | more


def scores(experiment, metric, method, spec, value, spread, **more):
    """A row a seed, seed 0 the lowest and seed 2 the highest, and what guessing gets."""
    for seed in SEEDS:
        yield row(experiment, metric, method, spec, seed, value + spread * (seed - 1), **more)
        if metric in CHANCE:
            yield row(experiment, f"{metric} chance", method, spec, seed, CHANCE[metric], **more)


def scratch_table(at_zero=AT_ZERO, sizes=tuple(SIZES)):
    """Every score a bit better in the larger size; gaps of exactly the means, plus and minus 0.01."""
    name, found = "scratch_vs_cbd", []
    for spec in sizes:
        for metric, values in SCRATCH.items():
            noise, quiet = SPREAD[metric]
            for method, levels in at_zero.items():
                found += scores(name, metric, method, spec, levels[metric], quiet, tokens=0)
            for tokens, value in zip(LADDER, values, strict=True):
                more = {"tokens": tokens, "budget": tokens}
                found += scores(name, metric, RANDOM, spec, value, noise, **more)
                for method, levels in at_zero.items() if metric in CHANCE else ():
                    for end, shift in (("", 0), (" low", -0.01), (" high", 0.01)):
                        gap = levels[metric] - value + shift
                        found.append(
                            row(name, f"{metric} minus random{end}", method, spec, None, gap, **more)
                        )
    return tidy(found)


EQUAL = {UNION: (4.6, 4.5), RANDOM: (5.4, 5.2)}


def equal_table():
    found = []
    for spec in SIZES:
        for method, losses in EQUAL.items():
            for budget, loss in zip((150_000, 300_000), losses, strict=True):
                more = {"tokens": budget, "budget": budget}
                found += scores("equal_budget", "loss", method, spec, loss, 0.05, **more)
                for metric in CHANCE:
                    value = CHANCE[metric] + (6 - loss) / 20
                    found += scores("equal_budget", metric, method, spec, value, 0.01, **more)
    return tidy(found)


@pytest.fixture(scope="module")
def scratch():
    return scratch_table()


@pytest.fixture(scope="module")
def saved(scratch):
    return FIGURES["scratch_vs_cbd"](scratch, "laptop", "2026-12-01")


@pytest.fixture(scope="module")
def panels(saved):
    """(metric, size) -> its axes, in the order of the page."""
    metrics = ("loss", CHOICE, WORD, REPLY)
    places = [(metric, spec) for metric in metrics for spec in ("2x48", "4x96")]
    return dict(zip(places, saved.axes, strict=True))


@pytest.fixture(scope="module")
def gaps(scratch):
    return FIGURES["gap"](scratch, "laptop", "2026-12-01")


@pytest.fixture(scope="module")
def equal():
    return FIGURES["equal_budget"](equal_table(), "laptop", "2026-12-01")


def caption(figure):
    return " ".join(figure.get_supxlabel().replace("\u00a0", " ").split())


def color(method):
    return LOOKS[method][0]


def line_of(axes, method, points):
    """The line of a method with so many points."""
    return next(
        line
        for line in axes.lines
        if len(line.get_xdata()) == points and same_color(line.get_color(), color(method))
    )


def mark_of(axes, method):
    """(x, y, low, high, is hollow) of the crossing on a method's line."""
    box = next(box for box in axes.containers if same_color(box.lines[0].get_color(), color(method)))
    marker, _, (bar,) = box.lines
    (low, _), (high, _) = bar.get_segments()[0]
    hollow = same_color(marker.get_markerfacecolor(), "white")
    return marker.get_xdata()[0], marker.get_ydata()[0], low, high, hollow


def arrows(axes, method):
    """Where each arrow of a method starts, and whether it points left (-1) or right (1)."""
    return [
        (text.xy[0], int(np.sign(text.xyann[0])))
        for text in axes.texts
        if text.arrow_patch is not None and same_color(text.arrow_patch.get_edgecolor(), color(method))
    ]


def said(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


# Tokens saved ------------------------------------------------------------------------------------------


def test_sizes_stand_in_columns_and_the_loss_and_the_tasks_in_rows(saved, panels):
    assert [axes.get_title() for axes in saved.axes] == ["2x48\n160k", "4x96\n650k", *[""] * 6]
    labels = [panels[metric, "2x48"].get_ylabel() for metric in ("loss", CHOICE, WORD, REPLY)]
    assert labels == [
        "loss (nats per token)", "cbd_continuation\nacc_norm (%)", "cbd_cloze\naccuracy (%)",
        "cbd_reply\nRouge-L (%)",
    ]  # fmt: skip
    assert panels[REPLY, "4x96"].get_xlabel() == "training tokens"


@pytest.mark.parametrize("metric", SCRATCH)
def test_curves_lines_and_bands_are_the_tables(panels, metric):
    unit = 1 if metric == "loss" else 100
    noise, quiet = (MARGIN * spread for spread in SPREAD[metric])
    axes = panels[metric, "4x96"]
    curve = line_of(axes, RANDOM, 4)
    assert list(curve.get_xdata()) == list(LADDER)
    assert list(curve.get_ydata()) == pytest.approx(np.multiply(SCRATCH[metric], unit))
    assert curve.get_marker() == "X"
    (band,) = axes.collections[-1].get_paths()
    edges = sorted(y for x, y in band.vertices if x == LADDER[1])
    assert edges[0] == pytest.approx(unit * (SCRATCH[metric][1] - noise))
    assert edges[-1] == pytest.approx(unit * (SCRATCH[metric][1] + noise))
    for method, span in zip((UNION, BRIDGED), axes.patches, strict=True):
        level = unit * AT_ZERO[method][metric]
        assert list(line_of(axes, method, 2).get_ydata()) == pytest.approx([level, level])
        assert span.get_y() == pytest.approx(level - unit * quiet)
        assert span.get_height() == pytest.approx(2 * unit * quiet)
    chance = [
        line for line in axes.lines if len(line.get_xdata()) == 2 and same_color(line.get_color(), "0.55")
    ]
    assert len(chance) == (metric != "loss")
    if chance:
        assert chance[0].get_ydata()[0] == pytest.approx(100 * CHANCE[metric])


def test_a_crossing_is_marked_with_its_interval(panels):
    x, y, low, high, hollow = mark_of(panels["loss", "4x96"], UNION)
    assert x == pytest.approx(4_000 * 2**0.5) and y == pytest.approx(4.75) and not hollow
    # the gap at 4k and 8k is 0.25 and -0.25, give or take 0.03 a seed; three seeds: the range of the seeds
    assert (low, high) == (pytest.approx(4_000 * 2**0.44), pytest.approx(4_000 * 2**0.56))
    assert arrows(panels["loss", "4x96"], UNION) == []
    x, y, *_, hollow = mark_of(panels[REPLY, "2x48"], UNION)
    assert x == pytest.approx(2_000 * 2**0.5) and y == pytest.approx(5.5) and not hollow
    assert said(panels["loss", "4x96"]) == ["5.66k", "> 8k"]


@pytest.mark.parametrize(
    ("metric", "place", "way", "text"), [("loss", 8_000, 1, "> 8k"), (CHOICE, 1_000, -1, "≤ 1k")]
)
def test_what_lies_beyond_the_ladder_is_hollow_with_an_arrow(panels, metric, place, way, text):
    axes = panels[metric, "2x48"]
    x, y, low, high, hollow = mark_of(axes, BRIDGED)
    assert (x, low, high) == (place, place, place) and hollow
    assert y == pytest.approx(AT_ZERO[BRIDGED][metric] * (1 if metric == "loss" else 100))
    assert arrows(axes, BRIDGED) == [(place, way)]
    assert said(axes)[1] == text
    low, high = axes.get_xlim()
    assert low < LADDER[0] and high > LADDER[-1], "room for the arrow"


def test_an_interval_that_leaves_the_ladder_ends_in_an_arrow():
    """Only the mean and two seeds cross: the marker is filled, its bar goes to the last budget and beyond."""
    levels = AT_ZERO | {UNION: AT_ZERO[UNION] | {"loss": 4.48}}
    table = scratch_table(levels, sizes=("2x48",))
    steep = (table["metric"] == "loss") & (table["tokens"] == 8_000)
    table.loc[steep, "value"] = 4.46 + 0.05 * (table.loc[steep, "seed"].astype(float) - 1)
    axes = FIGURES["scratch_vs_cbd"](table).axes[0]
    x, _, low, high, hollow = mark_of(axes, UNION)
    assert 4_000 < low < x < 8_000 and high == 8_000 and not hollow
    assert arrows(axes, UNION) == [(8_000, 1)]


def test_bridged_sources_have_looks_of_their_own(scratch):
    sources = [f"{BRIDGED}: meta-llama/Meta-Llama-3-8B", f"{BRIDGED}: Qwen/Qwen3-4B"]
    for methods in ([UNION, BRIDGED, RANDOM], [UNION, *sources, RANDOM]):
        looks = [LOOKS[method] for method in methods]
        for part in zip(*looks, strict=True):
            assert len(set(part)) == len(methods)
    table = scratch_table({UNION: AT_ZERO[UNION], **dict.fromkeys(sources, AT_ZERO[BRIDGED])}, ("2x48",))
    (legend,) = FIGURES["scratch_vs_cbd"](table).legends
    assert [text.get_text() for text in legend.get_texts()] == [
        UNION, f"{BRIDGED}: Meta-Llama-3-8B", f"{BRIDGED}: Qwen3-4B", RANDOM, "chance",
    ]  # fmt: skip


# The gap -----------------------------------------------------------------------------------------------


def test_the_caption_says_what_the_chains_cost(scratch, saved):
    cost = {"2x48": 3_000_000, "4x96": 1_500_000}
    rows = [
        row("scratch_vs_cbd", "chain_tokens", method, spec, None, times * tokens)
        for spec, tokens in cost.items()
        for times, method in ((1, UNION), (10, BRIDGED))
    ]
    more = pd.concat([scratch, tidy(rows)], ignore_index=True)
    sentence = f"as much as the whole chain: {UNION} 3M, 1.5M; {BRIDGED} 30M, 15M."
    assert sentence in caption(FIGURES["scratch_vs_cbd"](more))
    assert "whole chain" not in caption(saved)


def test_the_gap_is_drawn_in_points_with_its_interval(gaps):
    assert [axes.get_title() for axes in gaps.axes] == ["2x48\n160k", "4x96\n650k", *[""] * 4]
    labels = [axes.get_ylabel() for axes in gaps.axes[::2]]
    assert labels == [
        "cbd_continuation\ngap in acc_norm (points)", "cbd_cloze\ngap in accuracy (points)",
        "cbd_reply\ngap in Rouge-L (points)",
    ]  # fmt: skip
    for axes, metric in zip(gaps.axes, np.repeat([CHOICE, WORD, REPLY], 2), strict=True):
        assert len(axes.containers) == 2
        zero = [line for line in axes.lines if list(line.get_ydata()) == [0, 0]]
        assert len(zero) == 1
        for box, method in zip(axes.containers, (UNION, BRIDGED), strict=True):
            marker, _, (bars,) = box.lines
            assert same_color(marker.get_color(), color(method))
            expected = 100 * (AT_ZERO[method][metric] - np.array(SCRATCH[metric]))
            assert marker.get_ydata() == pytest.approx(expected)
            assert marker.get_xdata() == pytest.approx(LADDER, rel=0.05)  # side by side
            ends = np.array([segment[:, 1] for segment in bars.get_segments()])
            assert ends == pytest.approx(np.column_stack([expected - 1, expected + 1]))


def test_the_gap_reads_scratchs_table_and_names_seeds_and_items(gaps, scratch):
    assert figures.TABLES["gap"] == "scratch_vs_cbd"
    assert "interval over 3 seeds and the items. Scale laptop" in caption(gaps)
    alone = FIGURES["gap"](scratch[scratch["seed"].isna() | (scratch["seed"] == 0)])
    assert "interval over the items alone, of one seed." in caption(alone)


# Equal budgets -----------------------------------------------------------------------------------------


def test_equal_budgets_show_the_loss_and_the_mean_of_the_tasks(equal):
    loss, tasks = equal.axes
    assert [text.get_text() for text in loss.get_xticklabels()] == ["2x48\n160k", "4x96\n650k"]
    runs = [(method, i) for method in (UNION, RANDOM) for i in (0, 1)]
    for axes in (loss, tasks):
        assert len(axes.containers) == len(runs)
        for box, (method, i) in zip(axes.containers, runs, strict=True):
            marker, _, (bars,) = box.lines
            assert same_color(marker.get_color(), color(method))
            assert same_color(marker.get_markerfacecolor(), color(method) if i else "white")
            mean, spread = EQUAL[method][i], 0.05
            if axes is tasks:
                mean, spread = 100 * (np.mean([*CHANCE.values()]) + (6 - mean) / 20), 1.0
            assert list(marker.get_ydata()) == pytest.approx([mean, mean])
            assert bars.get_segments()[1][:, 1] == pytest.approx(
                [mean - MARGIN * spread, mean + MARGIN * spread]
            )
            assert [round(x) for x in marker.get_xdata()] == [0, 1]
    places = np.concatenate([box.lines[0].get_xdata() for box in loss.containers])
    assert len({round(x, 6) for x in places}) == 8, "marks stand side by side"
    chance = [line for line in tasks.lines if same_color(line.get_color(), "0.55")]
    assert [line.get_ydata()[0] for line in chance] == [pytest.approx(12)]
    assert "Mean over cbd_continuation (acc_norm), cbd_cloze (accuracy), cbd_reply (Rouge-L)." in caption(
        equal
    )


def test_the_legend_names_every_budget(equal):
    (legend,) = equal.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        *(f"{method}, {budget} tokens" for method in (UNION, RANDOM) for budget in ("150k", "300k")),
        "chance",
    ]


# All of them -------------------------------------------------------------------------------------------


def test_captions_say_scale_seeds_date_and_interval(saved, equal):
    for figure in (saved, equal):
        assert "95 % interval of the mean over seeds (Student's t)" in caption(figure)
        assert caption(figure).endswith("3 seeds, scale laptop, results of 2026-12-01.")


def test_one_seed_is_drawn_without_an_interval(scratch, recwarn):
    alone = scratch[scratch["seed"].isna() | (scratch["seed"] == 0)]
    figure = FIGURES["scratch_vs_cbd"](alone, scale="smoke")
    assert "One seed (so no interval), scale smoke." in caption(figure)
    for axes in figure.axes:
        assert not axes.patches
        for method in (UNION, BRIDGED):
            x, _, low, high, _ = mark_of(axes, method)
            assert low == x == high
    table = equal_table()
    figure = FIGURES["equal_budget"](table[table["seed"] == 0], scale="smoke")
    assert "One seed (so no interval), scale smoke." in caption(figure)
    figure._repr_png_()
    assert not recwarn.list


def test_one_budget_is_enough(scratch):
    table = scratch[(scratch["tokens"] == 0) | (scratch["tokens"] == 4_000)]
    assert said(FIGURES["scratch_vs_cbd"](table).axes[0]) == ["> 4k", "> 4k"]
    assert len(FIGURES["gap"](table).axes) == 6


def without(table, **cells):
    """The table less the rows with these values."""
    drop = np.logical_and.reduce([table[column].eq(value).fillna(False) for column, value in cells.items()])
    return table[~drop]


@pytest.mark.parametrize(
    ("figure", "cells", "message"),
    [
        ("scratch_vs_cbd", {"metric": "loss"}, "metric 'loss'.*`cbd run scratch_vs_cbd`"),
        ("scratch_vs_cbd", {"method": RANDOM}, "method 'random',.*`cbd run scratch_vs_cbd`"),
        ("scratch_vs_cbd", {"tokens": 0}, "spec '2x48', tokens '0'.*`cbd run scratch_vs_cbd`"),
        ("scratch_vs_cbd", {"method": RANDOM, "spec": "4x96", "metric": REPLY}, "rougeL', spec '4x96'"),
        ("scratch_vs_cbd", {"method": RANDOM, "seed": 1}, "run the missing ones"),
        ("gap", {"metric": f"{REPLY} minus random low"}, "minus random low'.*`cbd run scratch_vs"),
        ("gap", {"method": UNION, "spec": "2x48"}, "'CBD .union.', spec '2x48'.*`cbd run"),
        ("equal_budget", {"metric": "loss"}, "metric 'loss'.*`cbd run equal_budget`"),
        ("equal_budget", {"metric": WORD, "seed": 1, "method": UNION}, "acc', method 'CBD.*`cbd run"),
        ("equal_budget", {"spec": "4x96", "method": RANDOM}, "budget '150000', spec '4x96'.*`cbd run"),
    ],
)  # fmt: skip
def test_missing_rows_are_refused_with_a_remedy(scratch, figure, cells, message):
    table = equal_table() if figure == "equal_budget" else scratch
    with pytest.raises(CbdError, match=message):
        FIGURES[figure](without(table, **cells))


@pytest.mark.parametrize("figure", ["scratch_vs_cbd", "gap", "equal_budget"])
def test_a_table_without_tasks_is_refused(scratch, figure):
    with pytest.raises(CbdError, match=r"no score of a task; .*`cbd run (scratch_vs_cbd|equal_budget)`"):
        FIGURES[figure](scratch[scratch["metric"] == "loss"])


SCRIPT = """
import sys
from cbd.report import figures
figures.draw_all("laptop")
print(sorted({"torch", "transformers", "lm_eval"} & set(sys.modules)))
"""


def test_files_are_the_same_bytes_in_every_process_without_torch(scratch, tmp_path, monkeypatch):
    monkeypatch.setenv("CBD_ROOT", str(tmp_path))
    small = scratch[(scratch["spec"] == "2x48") & ~scratch["metric"].str.startswith("cbd_cloze")]
    results.write_table(small, "laptop", "scratch_vs_cbd")
    results.write_table(equal_table(), "laptop", "equal_budget")
    first = {path: path.read_bytes() for path in figures.draw_all("laptop")}
    assert {path.stem for path in first} == {"scratch_vs_cbd", "gap", "equal_budget"} and len(first) == 6
    for path in first:
        path.unlink()
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout == "[]\n"
    assert {path: path.read_bytes() for path in first} == first

"""Figures: drawn from small tables shaped like the experiments', with plausible numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product

import matplotlib
import numpy as np
import pandas as pd
import pytest
from conftest import tidy
from test_scorecard import apart, asked, objectives

from cbd.errors import CbdError, si
from cbd.recipes.starts import BLUE, RIVALS
from cbd.report import figures, results, stats
from cbd.report.figures import FIGURES, drawing
from cbd.report.names import FITTED, NESTED

SEEDS = (0, 1, 2)
SIZES = {
    "2x48": 160_000, "3x48": 190_000, "3x64": 290_000, "4x64": 340_000, "4x80": 480_000, "4x96": 650_000,
    "6x96": 870_000, "6x144": 1_810_000,
}  # fmt: skip


def rows(experiment, metric, method, spec="", noise=0.0, seeds=SEEDS, **more):
    """One row a seed; `value` gets a deviation that depends on the seed and the place of the row."""
    base = {"experiment": experiment, "family": "gpt2", "metric": metric, "method": method, "spec": spec}
    key = sum(map(ord, method + spec + metric))
    for seed in seeds:
        shift = noise * np.random.default_rng([seed or 0, key]).standard_normal()
        row = base | {"parameters": SIZES.get(spec), "seed": seed, "recipe": f"{key:04d}{seed}"} | more
        yield row | {"value": more["value"] + shift}


def curve(tokens, start, end, rate=60_000):
    return end + (start - end) / (1 + np.asarray(tokens, float) / rate) ** 1.2


def paper_map_table():
    found = []
    for n in range(1, 11):
        for method, cost in (
            ("scratch", 9.1e20 * n), ("direct distillation", 3.2e20 * n), ("chain (CBD)", 8.5e20 + 1e16 * n),
        ):  # fmt: skip
            found += rows("paper_map", "cumulative_flops", method, sizes=n, seeds=(None,), value=cost)
    return tidy(found)


def chain_table():
    tokens = [0, 2_000, 4_000, 9_000, 20_000, 45_000, 95_000, 200_000]
    runs = [("source", "6x144", 7.62, 4.50), ("stepwise", "4x96", 5.10, 4.53),
                ("stepwise", "3x64", 5.43, 4.60),
            ("stepwise", "2x48", 5.81, 4.74), ("direct, equal compute", "2x48", 6.4, 4.79),
            ("direct, equal tokens", "2x48", 6.4, 4.86)]  # fmt: skip
    found, above = [], None
    for method, spec, start, end in runs:
        for t in tokens:
            value = curve(t, start, end, 25_000)
            found += rows("chain", "loss", method, spec, 0.012, tokens=t, value=value)
        found += rows("chain", "final_loss", method, spec, 0.012, tokens=tokens[-1], value=value)
        if method == "stepwise":
            found += rows("chain", "lost", method, spec, 0.004, value=value - above)
        above = value if method in ("source", "stepwise") else above
        rough = 0.09 if method == "stepwise" else 0.16
        found += rows("chain", "loss_noise", method, spec, 0.004, value=rough)
        for seed, t in product(SEEDS, range(1_000, 200_001, 2_000)):
            wobble = rough * np.random.default_rng([seed, t]).standard_normal()
            found += rows("chain", "train_loss", method, spec, seeds=(seed,), tokens=t,
                          value=curve(t, start, end, 25_000) + wobble)  # fmt: skip
    return tidy(found)


METHODS = {"random": 2.9, "smaller anchor, grown": 0.03, "larger anchor, pruned": 0.17, "CBD (union)": 0.0,
           "CBD (literal)": 0.31, "CBD (duplicate)": 0.02, "CBD (lossy)": 0.44}  # fmt: skip


def initialise_table():
    found = []
    for i, spec in enumerate(["3x48", "3x64", "4x64", "4x80", "4x96", "6x96"]):
        for method, above in METHODS.items():
            value = 4.71 - 0.02 * i + above * (1 + 0.1 * np.sin(3 * i))
            found += rows("initialise", "loss", method, spec, 0.02, tokens=0, value=value)
    return tidy(found)


def alpha_table():
    found = []
    for kind, spec, mixing, operator in product(
        ("inherited", "independent"), ("3x64", "4x80", "4x96"), ("literal", "union"), ("preserving", "lossy")
    ):
        barrier = (0.3 if mixing == "literal" else -0.12) + (0.9 if kind == "independent" else 0)
        for a in np.linspace(0, 1, 11):
            end = 4.78 * (1 - a) + (4.67 + 0.08 * (operator == "lossy")) * a
            value = (
                end
                + barrier * 4 * a * (1 - a) * (1 - 0.2 * a)
                - 0.1 * (operator == "lossy") * a**8 * (1 - a) * 9
            )
            found += rows("alpha", "loss", kind, spec, 0.02, mixing=mixing, operator=operator,
                        alpha=a, tokens=0,
                          value=value)  # fmt: skip
    for spec, rule in (("3x64", 0.82), ("4x80", 0.55), ("4x96", 0.3)):
        found += rows("alpha", "rule_alpha", "rule", spec, seeds=(None,), value=rule)
    return tidy(found)


STARTS = {"random": (7.62, 5.1, 60_000), "smaller anchor, grown": (4.67, 4.60, 90_000),
          "larger anchor, pruned": (4.78, 4.47, 40_000), "CBD (union)": (4.68, 4.46, 40_000)}  # fmt: skip


def convergence_table():
    found = []
    for i, spec in enumerate(["3x64", "4x80", "4x96"]):
        for budget in (150_000, 600_000):
            tokens = [0, *np.geomspace(budget / 100, budget, 8).round().astype(int)]
            for method, (start, end, rate) in STARTS.items():
                end = end - 0.35 * (method == "random" and budget > 200_000)
                for t in tokens:
                    value = curve(t, start, end - 0.05 * (budget > 200_000), rate) - 0.03 * i
                    found += rows(
                        "convergence", "loss", method, spec, 0.012, budget=budget, tokens=t, value=value
                    )
    return tidy(found)


def before_and_after(experiment, methods):
    found = []
    for i, spec in enumerate(("3x64", "4x80", "4x96")):
        for j, method in enumerate(methods):
            for t, level in ((0, 4.9), (50_000, 4.6), (150_000, 4.5)):
                more = {"budget": 150_000, "tokens": t, "value": level - 0.1 * i - 0.05 * j}
                found += rows(experiment, "loss", method, spec, 0.012, **more)
    return tidy(found)


WAYS = {"sequence-level": 0.09, "likelihoods (ALM)": -0.02, "likelihoods (ULD)": 0.01,
        "no bridge, equal tokens": 0.0, "no bridge, equal compute": -0.1}  # fmt: skip


def bridge_table():
    found = []
    for source, level in (("Llama3-8B", 0.0), ("Qwen3-4B", 0.1)):
        found += rows("bridge", "bits_per_byte", "source", "4x96", source=source, stage="source",
                      value=0.9 + level)  # fmt: skip
        for i, stage in enumerate(("proxy", "anchor 1", "anchor 2", "SLM")):
            for way, above in WAYS.items():
                value = 1.8 + level + above + 0.05 * i
                found += rows("bridge", "bits_per_byte", way, f"{4 - i % 2}x64", 0.01, source=source,
                              stage=stage, value=value)  # fmt: skip
    return tidy(found)


def families_table(experiment="families"):
    found = []
    for i, (family, spec) in enumerate(product(("gpt2", "gpt_neox", "llama", "qwen3"), ("3x64", "4x80"))):
        more = {"family": family}
        rule = rows(experiment, "rule_alpha", "parameter distance", spec, seeds=(0,), value=0.4)
        found += [row | more for row in rule]
        for (mixing, operator), a in product((("literal", "preserving"), ("union", "preserving"),
                                              ("literal", "lossy")), np.linspace(0, 1, 6)):  # fmt: skip
            value = 2.1 + 0.01 * i + 0.2 * (a - 0.5) ** 2 * (1 if mixing == "union" else -1)
            found += [row | more for row in rows(experiment, "bits_per_byte", "CBD", spec, 0.01,
                                                 mixing=mixing, operator=operator, alpha=a, tokens=0,
                                                 value=value)]  # fmt: skip
    return tidy(found)


TABLES = {
    "bridge": bridge_table,
    "families": families_table,
    "public_checkpoints": lambda: families_table("public_checkpoints"),
    "paper_map": paper_map_table,
    "chain": chain_table,
    "initialise": initialise_table,
    "alpha": alpha_table,
    "convergence": convergence_table,
    "density": lambda: before_and_after("density", ("1 anchor", "2 anchors", "4 anchors")),
    "better_interpolation": lambda: before_and_after(
        "better_interpolation", ("CBD (union)", "smaller anchor, grown", *FITTED.values())
    ),
    "decisions": lambda: asked(0.1, 0.8, 0.5, 0.2).assign(experiment="decisions"),
    "distillers": lambda: objectives([0.1, -0.1], own=0.05).assign(experiment="distillers"),
    "theorem": lambda: apart([0.1, 0.2, 0.3], [0.1, 0.2, 0.4]).assign(experiment="theorem"),
    "nested": lambda: before_and_after("nested", ("CBD (union)", NESTED)),
    "rivals": lambda: before_and_after("rivals", ("CBD (union)", *(r.label for r in RIVALS.values()))),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A root with a table and a record of every experiment."""
    root = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CBD_ROOT", str(root))
        for name, make in TABLES.items():
            results.write_table(make(), "laptop", name)
            finished = [
                {"key": key, "finished": f"2026-01-0{day}T10:00:00Z"} for key, day in (("b", 5), ("a", 4))
            ]
            results.write_records(finished, "laptop", name)
        yield root


def caption(figure):
    return " ".join(figure.get_supxlabel().replace("\u00a0", " ").split())


def axes_with_labels(figure):
    return [axes for axes in figure.axes if axes.get_ylabel()]


@pytest.fixture(scope="module")
def drawn(folder):
    names = [name for name in FIGURES if figures.TABLES[name] in TABLES]
    return {name: figures.draw("laptop", name) for name in names}


def test_every_axis_has_a_label_with_its_unit(drawn):
    for name, figure in drawn.items():
        labels = [axes.get_xlabel() for axes in figure.axes] + [axes.get_ylabel() for axes in figure.axes]
        if name == "paper_map":
            assert any("FLOPs" in label for label in labels)
        elif name == "theorem":
            assert any("nats per token" in label for label in labels)
        elif name == "decisions":
            assert any("(nats)" in label for label in labels)
        elif name in ("bridge", "families", "public_checkpoints"):
            assert any("bits per byte" in label for label in labels)
        else:
            assert all("nats per token" in axes.get_ylabel() for axes in axes_with_labels(figure))
            assert len(axes_with_labels(figure)) >= 1
        if name in ("chain", "convergence"):
            assert "training tokens" in labels


def test_captions_say_scale_seeds_date_and_interval(drawn):
    for name, figure in drawn.items():
        assert "cale laptop" in caption(figure) and "results of 2026-01-05" in caption(figure), name
        if name != "paper_map":
            assert "3 seeds" in caption(figure)
            assert "95 % interval of the mean over seeds (Student's t)" in caption(figure)


def test_the_bridge_has_a_panel_a_source_and_a_mark_a_method_and_stage(drawn):
    panels = drawn["bridge"].axes
    assert [axes.get_title() for axes in panels] == ["Llama3-8B", "Qwen3-4B"]
    for axes, own in zip(panels, (0.9, 1.0), strict=True):
        assert [text.get_text() for text in axes.get_xticklabels()] == [
            "proxy",
            "anchor 1",
            "anchor 2",
            "SLM",
        ]
        assert len(axes.containers) == len(WAYS)
        assert f"source, {own:.2f}" in [text.get_text() for text in axes.texts]
        places = np.concatenate([np.asarray(box.lines[0].get_xdata(), float) for box in axes.containers])
        assert len(set(np.round(places, 6))) == 4 * len(WAYS), "marks stand side by side"


def test_families_stand_in_columns_and_sizes_in_rows(drawn):
    panels = drawn["families"].axes
    assert [axes.get_title() for axes in panels[:4]] == ["gpt2", "gpt_neox", "llama", "qwen3"]
    assert len(panels) == 8 and panels[4].get_ylabel().startswith("4x80")


def test_the_cost_figure_says_when_the_chain_pays(drawn):
    axes = drawn["paper_map"].axes[0]
    names = ["chain (CBD)", "direct distillation", "scratch"]
    assert [line.get_label() for line in axes.lines] == names
    assert [text.get_text() for text in axes.get_legend().get_texts()] == names
    assert "less than direct distillation from N = 3, than scratch from N = 1" in caption(drawn["paper_map"])


def test_the_chain_figure_has_its_panels(drawn):
    models, smallest, steps, *strips = drawn["chain"].axes
    named = [line for line in models.lines if not line.get_label().startswith("_")]
    assert [line.get_label() for line in named] == ["6x144 (source)", "4x96", "3x64", "2x48"]
    assert len([line for line in smallest.lines if len(line.get_xdata()) == 8]) == 3
    assert sum(text.get_text().startswith(("+", "-")) for text in steps.texts) == 3
    said = [axes.texts[0].get_text() for axes in strips]
    assert [text.split(":")[0] for text in said] == [
        "stepwise", "direct, equal compute", "direct, equal tokens",
    ]  # fmt: skip
    with pytest.raises(CbdError, match="metric 'train_loss'"):
        FIGURES["chain"](chain_table().query("metric != 'train_loss'"))


def test_random_stands_on_a_coarser_scale(drawn):
    (axes,) = drawn["initialise"].axes
    assert len(axes.containers) == len(METHODS)
    table = initialise_table().groupby("method")["value"]
    edge = next(line.get_ydata()[0] for line in axes.lines if list(line.get_xdata()) == [0, 1])
    assert table.max().drop("random").max() < edge < table.min()["random"]
    place = axes.transScale.transform
    heights = [place((0, y))[1] for y in (edge - 0.2, edge - 0.1, edge, edge + 0.1, edge + 0.2)]
    below, _, above, far = np.diff(heights)
    assert 0 < above < below and above == pytest.approx(far)
    (tick,) = {axes.get_yaxis().get_transform().inverted().transform([heights[-1]])[0]}
    assert tick == pytest.approx(edge + 0.2)
    labels = np.diff([axes.transData.transform((0, y))[1] for y in axes.get_yticks()])
    assert labels.min() > 10  # pixels, at 100 an inch: no label lies on another
    near = initialise_table()
    near = near[near["method"] != "random"]
    assert FIGURES["initialise"](near).axes[0].get_yscale() == "linear"


def test_several_texts_and_tasks_get_a_panel_each():
    own = initialise_table()
    other = own.assign(metric="loss on prose", value=own["value"] + 1)
    task = own.query("method in ['CBD (union)', 'larger anchor, pruned']").assign(
        metric="piqa/acc", value=0.6
    )
    guess = task.assign(metric="piqa/acc chance", value=0.5)
    drawn = FIGURES["initialise"](pd.concat([own, other, task, guess], ignore_index=True))
    panels = [axes for axes in drawn.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in panels] == [
        "loss on its own text", "loss on prose", "piqa (accuracy)",
    ]  # fmt: skip
    lines = 4  # union, literal and either anchor; random weights and the other readings are left out
    assert [len(axes.lines) for axes in panels] == [lines, lines, 2 + 1]
    assert [float(y) for y in panels[2].lines[-1].get_ydata()] == [0.5, 0.5]
    cbd = own[own["method"] == "CBD (union)"].groupby("parameters")["value"].mean()
    assert list(panels[0].lines[0].get_ydata()) == pytest.approx(list(cbd))


def test_alpha_panels_mark_the_rule_and_each_minimum(drawn):
    panels = drawn["alpha"].axes
    assert len(panels) == 2 * 3
    summary = stats.summarise(
        alpha_table().query("metric == 'loss'"), ["method", "spec", "mixing", "operator", "alpha"]
    )
    for axes in panels:
        curves = [line for line in axes.lines if len(line.get_xdata()) == 11]
        marks = [line for line in axes.lines if len(line.get_xdata()) == 1]
        assert len(curves) == len(marks) == 4 and len(axes.lines) == 9
        for curve_, mark in zip(curves, marks, strict=True):
            assert mark.get_ydata()[0] == min(curve_.get_ydata())
    drawn_points = [
        line.get_ydata()[3] for axes in panels for line in axes.lines if len(line.get_xdata()) == 11
    ]
    computed = summary.loc[np.isclose(summary["alpha"], 0.3), "point"]
    assert sorted(drawn_points) == pytest.approx(sorted(computed))


def test_convergence_shows_step_zero_at_the_left_edge(drawn):
    figure = drawn["convergence"]
    assert len(figure.axes) == 2 * 3
    axes = figure.axes[0]
    cbd = next(line for line in axes.lines if line.get_color() == BLUE and len(line.get_xdata()) == 9)
    tokens = sorted(convergence_table().query("budget == 150_000")["tokens"].dropna().unique())
    assert list(cbd.get_xdata()) == tokens and tokens[0] == 0
    ticks = [text.get_text() for text in figure.axes[-1].get_xticklabels()]
    assert axes.get_xticks()[0] == 0 and ticks[0] == "0"
    assert axes.get_xlim()[0] < 0
    assert all(axes.get_yscale() == "function" for axes in figure.axes)
    across = [line for line in axes.lines if list(line.get_xdata()) == [0, 1] and line.get_color() == BLUE]
    assert across[0].get_ydata()[0] == cbd.get_ydata()[0]


def test_one_seed_is_drawn_without_an_interval(recwarn):
    for name, make in TABLES.items():
        table = make()
        table = table[table["seed"].isna() | (table["seed"] == 0)]
        figure = FIGURES[name](table, scale="smoke")
        if name != "paper_map":
            assert "One seed (so no interval), scale smoke." in caption(figure)
    assert not recwarn.list


def test_methods_of_one_figure_differ_in_more_than_colour():
    for methods in (
        [*METHODS],
        [*STARTS],
        ["stepwise", "direct, equal compute", "direct, equal tokens", "source"],
    ):
        looks = drawing.styles_of([*methods, "mine", "yours"]).values()
        assert len({look["marker"] for look in looks}) == len(looks)
        assert len({look["color"] for look in looks}) == len(looks)
    with pytest.raises(CbdError, match="no style of their own"):
        drawing.styles_of(f"method {i}" for i in range(9))


def test_wrong_tables_are_refused(folder):
    with pytest.raises(CbdError, match="metric 'loss'"):
        FIGURES["alpha"](tidy([]))
    with pytest.raises(CbdError, match="there is no figure 'beta'"):
        figures.draw("laptop", "beta")
    with pytest.raises(CbdError, match="cbd run convergence --scale gpu"):
        figures.draw("gpu", "convergence")
    assert figures.draw_all("gpu") == []


def test_counts_are_short():
    numbers = (0, 950, 1_000, 99_999, 150_000, 999_600, 1_810_000, 124_440_000, 3e12)
    assert [si(n) for n in numbers] == ["0", "950", "1k", "100k", "150k", "1M", "1.81M", "124M", "3T"]
    assert [si(n, " ") for n in (950, 254e9, 70.5e18)] == ["950", "254 G", "70.5 E"]


def test_drawing_leaves_the_users_matplotlib_alone(drawn):
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    picture = FIGURES["paper_map"](paper_map_table())
    assert picture._repr_png_().startswith(b"\x89PNG")
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


SCRIPT = """
import sys
from cbd.report import figures
names = sys.argv[1:]
paths = [path for name in names for path in figures.save(figures.draw("laptop", name), "laptop", name)]
heavy = {"torch", "transformers", "datasets", "accelerate"} & set(sys.modules)
print(len(paths), sorted(heavy))
"""


def test_files_are_the_same_bytes_in_every_process_without_torch(folder, drawn):
    """Figures saved here and drawn again by a process with other hashes: the same files."""
    some = ("chain", "alpha", "convergence")  # panels, legends and annotations of every kind
    first = {}
    for name, figure in ((name, drawn[name]) for name in some):
        first |= {path: path.read_bytes() for path in figures.save(figure, "laptop", name)}
    for path in first:
        path.unlink()
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "CBD_ROOT": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *some],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.split(maxsplit=1) == [str(2 * len(some)), "[]\n"]
    assert {path: path.read_bytes() for path in first} == first
    assert sorted(path.name for path in (folder / "figures" / "laptop").iterdir()) == sorted(
        p.name for p in first
    )
    assert all(b"<dc:date>" not in content for content in first.values())

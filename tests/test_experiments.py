"""What experiments promise: complete tables and records, numbers that agree, the same bytes twice."""

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import random_model
from hypothesis import given
from hypothesis import strategies as st
from test_findings import UNRUN
from transformers import AutoModelForCausalLM, AutoTokenizer

from cbd.data import items, pairs
from cbd.data.documents import folder_corpus
from cbd.errors import CbdError
from cbd.experiments import (
    EXPERIMENTS,
    PAPER,
    better_interpolation,
    bridge,
    convergence,
    decisions,
    density,
    distillers,
    families,
    nested,
    paper_map,
    public_checkpoints,
    rivals,
    scratch_vs_cbd,
)
from cbd.experiments import starts as models
from cbd.experiments.run import design_of, kept, names_at, rows_of, run, seeds_of
from cbd.experiments.scales import SCALES
from cbd.experiments.scales.base import (
    Boomerang,
    Bridge,
    Distillers,
    Evaluation,
    Families,
    HomeGrown,
    Scale,
    ScratchVsCbd,
    Tuning,
)
from cbd.experiments.scales.hub import Public
from cbd.models.sources import local
from cbd.realize import realize, store
from cbd.realize.run import realize_all
from cbd.recipes.base import walk
from cbd.recipes.data import Items, Pairs
from cbd.recipes.evaluation import CLOZE, CONTINUATION, REPLY, Downstream
from cbd.recipes.models import Rotated, Sampling, Sorted, Transferred, encloses
from cbd.recipes.onpolicy import MiniLLM, OnPolicy
from cbd.recipes.operators import OPERATORS, distance_alpha
from cbd.recipes.specs import gpt2, llama, pythia, qwen3
from cbd.recipes.training import Loss, Search, Training, Tuned
from cbd.report import figures, findings, results, scorecard, stats
from cbd.report.findings.shared import BETTER, detectable, main_metrics, sizes, with_better
from cbd.report.names import (
    ALONE,
    BOOMERANG_KL,
    BY_SCORE,
    CBD,
    CHOSEN,
    CORRECTED,
    DIRECT_COMPUTE,
    DIRECT_TOKENS,
    FITTED,
    LARGER,
    LEARNGENE,
    NESTED,
    PRUNED,
    RANDOM,
    REVERSE,
    SMALLER,
    STATES,
)
from cbd.report.searches import searches

CONTEXT, BATCH = 16, 2
STEP = BATCH * CONTEXT
SEEDS = (0, 1)
BUDGETS, SCRATCH = (8 * STEP, 16 * STEP), 24 * STEP
LOCAL = [name for name in EXPERIMENTS if name != "public_checkpoints"]  # it needs the hub
# paper_map runs nothing, and the bridge measures bits per byte alone
MEASURED = [name for name in LOCAL if name not in ("paper_map", "bridge")]


def shape(layers: int, width: int):
    return gpt2(layers, width, head_dim=16, vocab=300, positions=64)


@pytest.fixture(scope="module")
def micro(tiny_corpus) -> Scale:
    """The smoke scale with everything cut to the bone."""
    training = Training(
        tokens=40 * STEP, lr=5e-3, batch=BATCH, context=CONTEXT, evaluations=4, evaluation_tokens=8 * CONTEXT
    )
    return replace(
        SCALES["smoke"],
        name="micro",
        corpus=tiny_corpus,
        source=shape(3, 48),
        source_training=training,
        anchors=(shape(2, 48), shape(1, 16)),
        anchor_training=replace(training, tokens=20 * STEP),
        ladder=(shape(1, 32), shape(2, 32)),
        alpha_targets=(shape(2, 32),),
        alphas=(0.0, 0.5, 1.0),
        convergence_targets=(shape(1, 32), shape(2, 32)),
        recovery=replace(training, tokens=BUDGETS[0], lr=2e-3),
        budgets=BUDGETS,
        scratch=SCRATCH,
        tuning=Tuning(2e-3, 4 * STEP, 5e-3, 8 * STEP, seeds=(1000,)),
        seeds=len(SEEDS),
        sample=8 * CONTEXT,
        jobs=1,
        bridge=Bridge(
            sources=(HomeGrown("a Llama", llama(1, 32, 2, 1, 48, vocab=330, positions=64), training),),
            sampling=Sampling(documents=10, prompt=3, new=20, batch=5),
            scored=1500,
            context=24,
            proxy=shape(2, 48),
            proxy_training=training,
            anchors=(shape(2, 32), shape(1, 16)),
            anchor_training=replace(training, tokens=10 * STEP),
            target=shape(1, 32),
            bytes=600,
        ),
        pruned=False,
        scores=False,
        densities=((1,), (0, 1)),
        rivals=("stacking", "learngene"),
        nested=True,
        distillers=Distillers((1.0, 3.0), Sampling(documents=8, prompt=4, new=28, batch=8), every=True),
        fitting=replace(training, tokens=4 * STEP, lr=0.05),
        families=Families(
            vocabularies=(("gpt2", 300), ("gpt_neox", 300), ("llama", 330), ("qwen3", 300)),
            sizes=((2, 64), (1, 32)),
            targets=((2, 32),),
            source_training=training,
            anchor_training=replace(training, tokens=10 * STEP),
        ),
        evaluation=Evaluation(
            choice=(CONTINUATION, CLOZE),
            generation=(REPLY,),
            tuning=replace(training, tokens=4 * STEP, evaluations=1),
            pairs=Pairs(tiny_corpus, count=20, tests=2, words=12, answer=8),
            items=Items(tiny_corpus, count=4, words=6, answer=3),
        ),
        scratch_vs_cbd=ScratchVsCbd(
            targets=(shape(1, 32),),
            ladder=tuple(2 * STEP * 4**i for i in range(4)),
            seeds=len(SEEDS),
            equal_targets=(shape(1, 32),),
            equal_budgets=BUDGETS[:1],
        ),
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """`ran(i, scale, names)`: experiments (all that need no hub) in store i; root folder and tables."""
    done = {}

    def go(i: int, scale: Scale, names=tuple(LOCAL)) -> tuple[Path, dict[str, pd.DataFrame]]:
        if i not in done:
            root = tmp_path_factory.mktemp("experiments")
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("CBD_STORE", str(root / "store"))
                patch.setenv("CBD_ROOT", str(root))
                for module in (items, pairs):  # a grammar of few words: whatever is held out was seen before
                    patch.setattr(module, "seen_in_training", lambda texts, corpus: set())
                done[i] = root, {name: run(name, scale, jobs=1) for name in names}
        return done[i]

    return go


@pytest.fixture(autouse=True)
def root(ran, micro, monkeypatch) -> Path:
    folder, _ = ran(0, micro)
    monkeypatch.setenv("CBD_ROOT", str(folder))
    monkeypatch.setenv("CBD_STORE", str(folder / "store"))
    return folder


@pytest.fixture
def tables() -> dict[str, pd.DataFrame]:
    return {name: results.read_table("micro", name) for name in LOCAL}


def only(table: pd.DataFrame, **values) -> pd.DataFrame:
    for column, value in values.items():
        table = table[table[column] == value]
    return table


def the(table: pd.DataFrame, **values) -> float:
    """The value of the only such row."""
    rows = only(table, **values)
    assert len(rows) == 1, (values, len(rows))
    return float(rows["value"].iloc[0])


# Whole -------------------------------------------------------------------------------------------------


def test_what_run_returns_is_what_it_wrote(ran, micro, tables):
    _, returned = ran(0, micro)
    for name, table in tables.items():
        pd.testing.assert_frame_equal(results.validate(returned[name]), table, rtol=1e-6)
        assert (table["experiment"] == name).all()


def test_two_runs_in_two_stores_write_the_same_bytes(ran, micro):
    # the second with one seed: its lines must be those of that seed (but for those over all seeds)
    one = replace(micro, seeds=1, scratch_vs_cbd=replace(micro.scratch_vs_cbd, seeds=1))
    names = ("paper_map", "initialise", "bridge", "scratch_vs_cbd")  # between them every kind of recipe
    first, second = ran(0, micro)[0], ran(1, one, names)[0]
    for name in names:
        a, b = (lines_of_seed(root / "results" / "micro" / f"{name}.csv", "0") for root in (first, second))
        assert a == b and len(a) > 1, name


def lines_of_seed(path: Path, seed: str) -> list[str]:
    head, *lines = path.read_text().splitlines()
    column = list(results.COLUMNS).index("seed")
    cells = csv.reader(lines)
    return [head] + [line for line, cell in zip(lines, cells, strict=True) if cell[column] == seed]


def test_a_second_run_makes_nothing_anew_and_writes_the_same(micro, root):
    before = {path: path.stat().st_mtime_ns for path in (root / "store").rglob("record.json")}
    table = results.table_path("micro", "chain").read_bytes()
    run("chain", micro, jobs=1, fresh=True)
    assert {path: path.stat().st_mtime_ns for path in (root / "store").rglob("record.json")} == before
    assert results.table_path("micro", "chain").read_bytes() == table


@pytest.mark.parametrize("name", MEASURED)
def test_every_seed_is_there_and_every_value_is_finite(tables, name):
    table = tables[name].dropna(subset="seed")  # what is worked out over all seeds has none
    assert set(table["seed"]) == set(SEEDS)
    assert table.groupby("seed").size().nunique() == 1
    empty = table[~np.isfinite(table["value"].astype(float))]
    assert set(empty["metric"]) <= {"speedup_to_cbd_final", "speedup_to_random_final"}
    measured = table[table["metric"].isin(["loss", "final_loss"])]
    assert (measured["value"].between(0, 20) & measured["stderr"].between(0, 5)).all()
    assert (measured["parameters"] > 0).all() and measured["recipe"].str.fullmatch("[0-9a-f]{20}").all()


@pytest.mark.parametrize("name", MEASURED)
def test_the_two_seeds_are_two_replicates(tables, name):
    measured = ["loss", "final_loss", "forward_kl"] if name != "decisions" else ["cbd_continuation/margin"]
    losses = tables[name][tables[name]["metric"].isin(measured)]
    recipes = losses.groupby("seed")["recipe"].agg(set)
    assert not recipes[0] & recipes[1]
    means = losses.groupby("seed")["value"].mean()
    assert means[0] != means[1]


@pytest.mark.parametrize("name", LOCAL)
def test_the_records_hold_every_run_and_everything_it_came_from(tables, micro, name):
    records = {record["key"]: record for record in results.read_records("micro", name)}
    assert len(records.pop("table")["sha256"]) == 64
    if name == "paper_map":
        assert not records
        return
    assert set(tables[name]["recipe"]) - {""} <= set(records)
    places = {key: records.pop(key) for key in list(records) if key.startswith("ran-")}
    assert all({"versions", "commit", "machine"} <= set(place) for place in places.values())
    for record in records.values():
        mentioned = set(re.findall(r'"([0-9a-f]{20})"', json.dumps(record["fields"])))
        assert mentioned <= set(records), "an input has no record"
        assert {"seconds", "tokens", "flops", "finished"} <= set(record)
        assert record["ran_on"] in places
        assert record["recipe"] == record["fields"]["recipe"]
    designed = [m for s in SEEDS for m in design_of(name, micro, s).measurements]
    for measurement in designed:
        assert records[measurement.recipe.key]["tokens"] == measurement.recipe.tokens
    assert results.newest("micro", name) is not None


# Committed results ---------------------------------------------------------------------------------------


@pytest.fixture
def committed(monkeypatch):
    """The repository's own results, and nothing in the store."""
    monkeypatch.delenv("CBD_ROOT")
    monkeypatch.setenv("CBD_STORE", "/nowhere")
    monkeypatch.setattr("cbd.experiments.run._realised", unexpected_run)


def unexpected_run(*_):
    raise AssertionError("runs, although the table fits its design")


@pytest.mark.parametrize("name", [name for name in names_at(SCALES["laptop"]) if name not in UNRUN])
def test_every_committed_table_fits_its_design(committed, name, capsys):
    scale = SCALES["laptop"]
    designs = {s: design_of(name, scale, s) for s in seeds_of(name, scale)}
    on_disk = results.read_table("laptop", name)
    if name == "paper_map":  # counted, not measured: every cell can be counted again
        counted = paper_map.counted(scale)
        pd.testing.assert_frame_equal(counted, on_disk, rtol=1e-7)
        return
    assert kept(name, scale, designs) is not None
    records = {record["key"] for record in results.read_records("laptop", name)}
    keys = {m.recipe.key for design in designs.values() for m in design.measurements}
    assert keys <= records and keys <= set(on_disk["recipe"])
    pd.testing.assert_frame_equal(run(name, scale), on_disk)
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{name}: results/laptop/{name}.csv, last run 20")
    assert "fresh=True" in line and f"`cbd run {name} --scale laptop --fresh`" in line


def test_a_committed_table_answers_at_once_without_torch(tmp_path):
    code = (
        "import sys, time; from cbd.experiments.run import run; from cbd.experiments.scales import SCALES;"
        "start = time.process_time(); run('alpha', SCALES['laptop']); assert 'torch' not in sys.modules;"
        "assert time.process_time() - start < 2"
    )
    environment = {k: v for k, v in os.environ.items() if k != "CBD_ROOT"} | {"CBD_STORE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def designs_of(name: str, scale: Scale, first: int = 0):
    return {s: design_of(name, scale, s) for s in seeds_of(name, scale, first)}


@pytest.mark.parametrize("name", [*MEASURED, "bridge"])
def test_a_table_that_does_not_fit_its_design_is_never_shown(micro, name, monkeypatch):
    """A changed design, other seeds, a table cut anywhere: all lead to a run."""
    designs = designs_of(name, micro)
    assert kept(name, micro, designs) is not None
    assert kept(name, micro, designs_of(name, micro, 1)) is None, "other seeds"
    assert kept(name, micro, {0: designs[0]}) is None, "fewer seeds"
    first, *others = designs[0].measurements
    relabelled = replace(first, labels={**first.labels, "stage": "another"})
    renamed = replace(first, method="another")
    for changed in (tuple(others), (relabelled, *others), (renamed, *others)):
        assert kept(name, micro, designs | {0: replace(designs[0], measurements=changed)}) is None
    longer = replace(micro, sample=16 * CONTEXT, bridge=replace(micro.bridge, bytes=700))
    longer = replace(longer, recovery=replace(micro.recovery, lr=3e-3, weight_decay=0.0))
    longer = replace(longer, anchor_training=replace(micro.anchor_training, weight_decay=0.0))
    assert kept(name, longer, designs_of(name, longer)) is None, "other recipes"
    monkeypatch.setattr("cbd.experiments.run._realised", unexpected_run)
    with pytest.raises(AssertionError, match="although"):
        run(name, micro, fresh=True)
    path = results.table_path("micro", name)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    try:
        for cut in (lines[:-1], lines[:-10], [lines[0], *lines[2:]], lines[:1], []):
            path.write_bytes(b"".join(cut))
            with pytest.raises(AssertionError, match="although"):
                run(name, micro)
        path.unlink()
        assert kept(name, micro, designs) is None
    finally:
        path.write_bytes(whole)
    assert len(run(name, micro)) == len(lines) - 1


@pytest.fixture
def elsewhere(root, tmp_path, monkeypatch) -> Path:
    """A copy of the results alone: the store of that machine is empty."""
    shutil.copytree(root / "results", tmp_path / "results")
    monkeypatch.setenv("CBD_ROOT", str(tmp_path))
    monkeypatch.setenv("CBD_STORE", str(tmp_path / "store"))
    return tmp_path


@pytest.mark.parametrize("name", [name for name in MEASURED if name != "chain"])
def test_a_table_grows_by_a_seed_from_results_alone(name, micro, root, elsewhere, tables, monkeypatch):
    """Made with one seed, then with one more, from a store that has nothing of the first."""
    made, (first, second) = [], (design_of(name, micro, s).recipes for s in (0, 1))

    def realised(recipes, *_):
        made.append({recipe.key for recipe in recipes})
        shutil.rmtree(elsewhere / "store", ignore_errors=True)
        (elsewhere / "store" / "records").mkdir(parents=True)
        for key, recipe in walk(recipes).items():
            if (there := root / "store" / type(recipe).__name__ / key).exists():
                shutil.copytree(there, store.folder(recipe))
            else:  # shed
                shutil.copy(root / "store" / "records" / f"{key}.json", elsewhere / "store" / "records")

    monkeypatch.setattr("cbd.experiments.run._realised", realised)
    results.table_path("micro", name).unlink()
    one = run(name, micro, seeds=1)
    assert set(one["seed"].dropna()) == {0} and len(one) < len(tables[name])
    whole = run(name, micro)
    keys = [{recipe.key for recipe in recipes} for recipes in (first, second)]
    assert made == [keys[0], keys[1] - keys[0]]
    with pytest.raises(CbdError, match="would lose the seeds 1: ask for as many"):
        run(name, micro, seeds=1)
    pd.testing.assert_frame_equal(whole, tables[name], rtol=1e-6)
    again = {record["key"]: record for record in results.read_records("micro", name)}
    monkeypatch.setenv("CBD_ROOT", str(root))
    before = {record["key"]: record for record in results.read_records("micro", name)}
    before["table"] = again["table"]  # rounded twice: a digit may differ
    assert again == before


@pytest.mark.parametrize("name", ["chain", "bridge"])
def test_what_needs_more_of_a_run_than_its_rows_is_made_whole(name, micro, elsewhere, monkeypatch):
    made = []
    monkeypatch.setattr("cbd.experiments.run._realised", lambda recipes, *_: made.extend(recipes))
    with pytest.raises(FileNotFoundError):  # nothing was made
        run(name, micro, seeds=len(SEEDS) + 1)
    assert set(made) == {r for seed in range(len(SEEDS) + 1) for r in design_of(name, micro, seed).recipes}


def test_a_measurement_without_all_that_is_asked_of_it_is_made_again(micro, elsewhere, monkeypatch):
    """No record, no scores of items, other labels, a damaged table: each alone is enough."""
    made = []

    def stop(recipes, *_):
        made.append({recipe.key for recipe in recipes})
        raise KeyboardInterrupt

    monkeypatch.setattr("cbd.experiments.run._realised", stop)
    folder = results.results_folder("micro")
    runs, items_file = folder / "equal_budget.runs.jsonl", folder / "equal_budget.items.parquet"
    measured = [recipe for seed in SEEDS for recipe in design_of("equal_budget", micro, seed).recipes]
    more = {recipe.key for recipe in design_of("equal_budget", micro, len(SEEDS)).recipes}
    tasks = {recipe.key for recipe in measured if isinstance(recipe, Downstream)}

    def asked() -> set[str]:
        with pytest.raises(KeyboardInterrupt):
            run("equal_budget", micro, seeds=len(SEEDS) + 1)
        return made.pop() - more

    whole = runs.read_text()
    runs.write_text(
        "".join(line for line in whole.splitlines(True) if f'"key": "{measured[0].key}"' not in line)
    )
    assert asked() == {measured[0].key}
    runs.write_text(whole)
    items_file.rename(items_file.with_suffix(".gone"))
    assert asked() == tasks
    items_file.with_suffix(".gone").rename(items_file)
    table = folder / "equal_budget.csv"
    table.write_text(table.read_text().replace("0.0", "0.1", 1))
    assert asked() == {recipe.key for recipe in measured}


def test_samples_are_kept_beside_the_table(micro, tables, monkeypatch, root):
    found = results.read_samples("micro", "bridge")
    ways = [bridge.SEQUENCE, bridge.ALM, bridge.ULD, bridge.RAW, bridge.RAW_COMPUTE]
    assert [row["model"] for row in found["written"]] == ["source", *ways, "SLM"]
    assert all(row["text"].startswith(found["prompt"]) for row in found["written"])
    [aligned] = found["aligned"]
    assert 0 < aligned["groups"] <= min(aligned["tokens"], aligned["tokens of the source"])
    place = results.samples_path("micro", "bridge")
    monkeypatch.setattr(results, "samples_path", lambda *_: place.with_name("gone"))
    assert kept("bridge", micro, designs_of("bridge", micro)) is None
    with pytest.raises(CbdError, match="cbd run bridge --scale micro"):
        results.read_samples("micro", "bridge")


def test_the_committed_samples_are_those_of_every_model(committed):
    found = results.read_samples("laptop", "bridge")
    assert found["prompt"] == bridge.PROMPT and found["sentence"] == bridge.SENTENCE
    [ways] = bridge.bridges(SCALES["laptop"], 0)
    assert [row["model"] for row in found["written"]] == ["source", *ways.proxies(), "SLM"]
    assert {row["source"] for row in found["written"] + found["aligned"]} == {ways.source.name}


def test_every_figure_is_drawn(root):
    drawn = figures.draw_all("micro")
    names = set(figures.FIGURES) - {"public_checkpoints"}
    assert {path.stem for path in drawn} == names
    assert {path.suffix for path in drawn} == {".png", ".svg"} and len(drawn) == 2 * len(names)
    assert all(path.stat().st_size > 1000 and root in path.parents for path in drawn)


def test_an_unknown_experiment_is_refused(micro):
    with pytest.raises(
        CbdError, match="no experiment 'nonsense'; choose one of alpha, basis, better_interpolation, bridge"
    ):
        run("nonsense", micro)


# The chain ---------------------------------------------------------------------------------------------


def test_the_chain_has_every_step_and_both_direct_runs(tables, micro):
    table = tables["chain"]
    assert set(table["method"]) == {"source", "stepwise", ALONE, DIRECT_COMPUTE, DIRECT_TOKENS}
    assert set(only(table, method=ALONE, metric="final_loss")["spec"]) == {"2x48", "1x16"}
    assert list(only(table, method="stepwise", metric="final_loss", seed=0)["spec"]) == ["2x48", "1x16"]
    for method in (DIRECT_COMPUTE, DIRECT_TOKENS):
        assert set(only(table, method=method)["spec"]) == {"1x16"}
    curves = only(table, metric="loss")
    for _, rows in curves.groupby("recipe"):
        assert rows["tokens"].iloc[0] == 0 and rows["tokens"].is_monotonic_increasing
    # the control has the same start, batches and tokens: only the teacher is missing
    first = only(curves, spec="2x48", tokens=0)
    assert first.groupby("seed")["value"].nunique().eq(1).all() and len(first) == 2 * len(SEEDS)
    tokens = curves.groupby(["method", "spec"])["tokens"].max()
    assert tokens[ALONE, "1x16"] == tokens["stepwise", "1x16"]
    assert tokens["source", "3x48"] == micro.source_training.tokens
    assert tokens["stepwise", "1x16"] == tokens[DIRECT_TOKENS, "1x16"] == micro.anchor_training.tokens


def test_equal_compute_is_the_chains_to_within_a_step(tables, micro):
    curves = only(tables["chain"], metric="loss", seed=0)
    spent = curves.groupby(["method", "spec"])["flops"].max()
    chain = spent["stepwise", "2x48"] + spent["stepwise", "1x16"]
    one_step = STEP * (
        spent[DIRECT_COMPUTE, "1x16"] / curves[curves["method"] == DIRECT_COMPUTE]["tokens"].max()
    )
    assert 0 <= chain - spent[DIRECT_COMPUTE, "1x16"] < one_step


def test_what_a_step_loses_is_the_difference_of_two_measured_losses(tables):
    table = tables["chain"]
    for seed in SEEDS:
        ends = [
            the(table, metric="final_loss", seed=seed, spec=spec, method=method)
            for spec, method in (("3x48", "source"), ("2x48", "stepwise"), ("1x16", "stepwise"))
        ]
        for (above, below), spec in zip(pairwise(ends), ("2x48", "1x16"), strict=True):
            assert the(table, metric="lost", seed=seed, spec=spec) == pytest.approx(below - above, abs=1e-6)
            lost = the(table, metric="lost_since_source", seed=seed, spec=spec)
            assert lost == pytest.approx(below - ends[0], abs=1e-6)


def test_the_noise_is_that_of_the_training_curve_in_the_same_table(tables):
    table = tables["chain"]
    for seed in SEEDS:
        for method in ("stepwise", DIRECT_COMPUTE, DIRECT_TOKENS):
            rows = only(table, seed=seed, method=method, spec="1x16")
            losses = only(rows, metric="train_loss").sort_values("tokens")
            steps = len(losses)
            assert list(losses["tokens"]) == [STEP * (i + 1) for i in range(steps)]
            late = losses["value"].to_numpy()[steps // 10 :]
            moves = late[1:] - late[:-1]
            noise = math.sqrt(np.mean((moves - moves.mean()) ** 2))
            assert the(rows, metric="loss_noise") == pytest.approx(noise, rel=1e-5)


# Step zero ---------------------------------------------------------------------------------------------


def test_every_start_of_every_size_is_measured(tables, micro):
    table = tables["initialise"]
    methods = {SMALLER, LARGER, RANDOM} | {f"CBD ({name})" for name in OPERATORS}
    for seed in SEEDS:
        for spec in micro.ladder:
            rows = only(table, metric="loss", seed=seed, spec=spec.name)
            assert sorted(rows["method"]) == sorted(methods)
            assert (rows["parameters"] == spec.parameters).all() and (rows["tokens"] == 0).all()
    alphas = only(table, metric="loss", seed=0, method="CBD (union)").set_index("spec")["alpha"]
    small, large = micro.anchor_specs[1], micro.anchor_specs[0]
    for spec in micro.ladder:
        assert alphas[spec.name] == pytest.approx(distance_alpha(small, large, spec), rel=1e-6)
    uniform = only(table, metric="loss", method=RANDOM)["value"]
    assert (uniform - math.log(300)).abs().max() < 0.3, "random weights know nothing"


def test_bits_per_byte_are_the_loss_by_one_factor(tables):
    table = tables["initialise"]
    losses, bits = (only(table, metric=m).set_index("recipe")["value"] for m in ("loss", "bits_per_byte"))
    ratio = bits / losses
    assert set(losses.index) == set(bits.index) and ratio.max() - ratio.min() < 1e-6 * ratio.mean()


def test_the_alpha_curves_are_whole_and_their_ends_are_the_anchors(tables, micro):
    table = only(tables["alpha"], metric="loss")
    curves = table.groupby(["seed", "method", "mixing", "operator", "spec"])["alpha"].agg(list)
    assert len(curves) == len(SEEDS) * 2 * 3 * len(micro.alpha_targets)
    assert all(alphas == list(micro.alphas) for alphas in curves)
    # the literal formula at alpha 0 and 1 is either anchor alone: the same numbers as in the other experiment
    starts = only(tables["initialise"], metric="loss")
    literal = only(table, method="inherited", mixing="literal", operator="preserving")
    for seed in SEEDS:
        for spec in (s.name for s in micro.alpha_targets):
            for alpha, method in ((1.0, SMALLER), (0.0, LARGER)):
                ours = the(literal, seed=seed, spec=spec, alpha=alpha)
                assert ours == the(starts, seed=seed, spec=spec, method=method), (spec, method)
    rules = only(tables["alpha"], metric="rule_alpha")
    assert len(rules) == len(SEEDS) * len(micro.alpha_targets) and rules["value"].between(0, 1).all()


# Recovery ----------------------------------------------------------------------------------------------


def test_every_start_is_trained_on_every_budget(tables, micro):
    table = only(tables["convergence"], metric="loss")
    for seed in SEEDS:
        for spec in micro.convergence_targets:
            rows = only(table, seed=seed, spec=spec.name)
            runs = rows.groupby(["method", "budget"])["tokens"].agg(list)
            wanted = {(m, b) for m in (CBD, SMALLER, LARGER, RANDOM) for b in BUDGETS}
            assert set(runs.index) == wanted | {(RANDOM, SCRATCH)}
            for (_, budget), tokens in runs.items():
                assert tokens[0] == 0 and tokens[-1] == budget
            same = [tokens for (_, budget), tokens in runs.items() if budget == BUDGETS[0]]
            assert all(tokens == same[0] for tokens in same), "curves are comparable point by point"
    # before training, a start is what the ladder measured: the shares of one start at both budgets are equal
    zero = only(table, tokens=0).groupby(["seed", "spec", "method"])["value"].nunique()
    assert (zero == 1).all()


def first_reached(curve: pd.DataFrame, target: float) -> float:
    """Tokens at which a curve through the points, over log tokens, falls to the target; inf if never."""
    points = [(float(t), float(v)) for t, v in zip(curve["tokens"], curve["value"], strict=True)]
    if points[0][1] <= target:
        return points[0][0]
    for (t0, v0), (t1, v1) in pairwise(sorted(points)):
        if v1 <= target:
            share = (v0 - target) / (v0 - v1)
            return t1 * share if t0 == 0 else math.exp(math.log(t0) + share * math.log(t1 / t0))
    return math.inf


def check_needed(losses: pd.DataFrame, found: pd.DataFrame, micro: Scale) -> None:
    """Compute every number of tokens to a loss anew."""
    for seed in SEEDS:
        for spec in (s.name for s in micro.convergence_targets):
            here = only(losses, seed=seed, spec=spec)
            runs = {m: [run for _, run in only(here, method=m).groupby("budget")] for m in (CBD, RANDOM)}
            for to, method, other in (
                ("random's final loss", RANDOM, CBD),
                ("CBD's final loss", CBD, RANDOM),
            ):
                for end in runs[method]:
                    budget, loss = end["budget"].iloc[0], end.sort_values("tokens")["value"].iloc[-1]
                    [row] = only(found, seed=seed, spec=spec, to=to, budget=budget).to_dict("records")
                    spent = {CBD: row["cbd"], RANDOM: row["random"]}
                    assert spent[method] == end["tokens"].max()
                    wanted = min(first_reached(curve, loss) for curve in runs[other])
                    assert spent[other] == pytest.approx(wanted, rel=1e-5), (seed, spec, budget)


def test_the_tokens_to_a_loss_follow_from_the_curves(tables, micro):
    table = tables["convergence"]
    found = findings.convergence.needed(table)
    check_needed(only(table, metric="loss"), found, micro)
    for row in found.drop_duplicates(["spec", "seed"]).itertuples():
        spec = next(s for s in micro.convergence_targets if s.name == row.spec)
        given = models.source(micro, row.seed)
        made = walk([models.starts(micro, row.seed, spec)[CBD]], skip=[given].__contains__)
        work = sum(recipe.flops for recipe in made.values())
        assert row.chain == pytest.approx(work / spec.training_flops(CONTEXT), rel=1e-6)


@pytest.mark.parametrize("lead", [-1.0, 0.0, 0.5, 3.0])
def test_the_tokens_to_a_loss_of_any_curves_follow_from_them(tables, micro, lead):
    """On invented curves, so that every case occurs: random weights catch up early, late, just, or never."""
    losses = only(tables["convergence"], metric="loss").copy()
    draw = np.random.default_rng(0)
    fall = np.log1p(losses["tokens"].astype(float) / STEP) * draw.uniform(0.2, 0.6, len(losses))
    losses["value"] = 6 - fall - lead * (losses["method"] == CBD)
    found = findings.convergence.needed(losses)
    check_needed(losses, found, micro)
    never = np.isinf(only(found, to="CBD's final loss")["random"])
    assert never.any() == (lead >= 0) and never.all() == (lead == 3)
    starts_below = only(found, to="random's final loss")["cbd"] == 0
    assert starts_below.all() == (lead == 3)
    told = findings.convergence.speedups(losses)
    assert told["at_least"].all() == (lead == 3) and np.isfinite(told["random"]).all()


# Costs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCALES)
def test_the_sizes_in_reach_are_those_that_can_be_made(name):
    """By trying: Trans to every size of a gap grows a whole number of times, or it does not."""
    scale = SCALES[name]
    specs = (scale.source_spec, *scale.anchor_specs)
    rows = list(paper_map.reach(scale))
    for large, small in pairwise(specs):
        here = {r["method"]: r for r in rows if r["spec"] == f"{small.name} to {large.name}"}
        inside, made = 0, dict.fromkeys(("HyperCloning", "stacking", "HyperCloning and stacking"), 0)
        for layers, width in product(range(1, 64), range(16, 2049, 16)):
            try:
                spec = small.resized(layers, width)
            except CbdError:  # no whole number of heads
                continue
            if (layers, width) in {(m.layers, m.width) for m in (small, large)} or not encloses(
                small, large, spec
            ):
                continue
            inside += 1
            deep, wide = spec.layers / small.layers, spec.width / small.width
            made["HyperCloning"] += deep == 1 and wide.is_integer()
            made["stacking"] += wide == 1 and deep.is_integer()
            made["HyperCloning and stacking"] += deep.is_integer() and wide.is_integer()
        assert not here or {r["sizes"] for r in here.values()} == {inside}
        assert bool(here) == (inside > 0)
        for method, count in made.items() if here else ():
            assert here[method]["value"] == pytest.approx(count / inside)
        assert not here or here[CBD]["value"] == 1


@pytest.mark.parametrize("name", ["micro", *SCALES])
def test_costs_accumulate_over_sizes_at_every_scale(micro, name):
    scale = micro if name == "micro" else SCALES[name]
    table = paper_map.cumulative(scale)
    assert set(table["method"]) == set(paper_map.trees(micro, 0, ()))
    for method, rows in table.groupby("method"):
        assert list(rows["sizes"]) == [n + 1 for n in range(len(scale.ladder))] and set(rows["spec"]) == {""}
        steps = np.diff(rows["value"].astype(float))
        if method == "chain (CBD)":
            assert (steps == 0).all() or steps.max() < 1e-3 * rows["value"].iloc[0], "further sizes are free"
        else:
            assert (steps > 0).all()
    first = table[table["sizes"] == 1].set_index("method")["value"]
    training = replace(scale.recovery, tokens=scale.scratch)
    target, context = scale.ladder[0], scale.recovery.context
    steps = training.tokens // (training.batch * context)
    width, shared = target.width, target.kv * target.head_dim  # SmolLM2's heads share keys and values
    matrices = 2 * width * (width + shared) + (2 + target.traits.gated) * width * target.ffn
    forward = 2 * (target.layers * (matrices + width * (context + 1)) + target.vocab * width)
    evaluated = len(training.evaluated_steps) * training.evaluation_tokens
    by_hand = forward * (3 * steps * training.batch * context + evaluated)
    assert first["scratch"] == pytest.approx(by_hand, rel=1e-12)


# Findings ----------------------------------------------------------------------------------------------


def test_the_findings_read_these_tables(tables, micro):
    ladder = [spec.name for spec in micro.ladder]
    zero = findings.initialise.step_zero(tables["initialise"])
    assert list(zero.index) == ladder and not zero.isna().any().any()
    assert list(sizes(tables["initialise"])) == ladder

    best = with_better(tables["initialise"])
    for seed in SEEDS:
        for spec in ladder:
            both = [the(best, seed=seed, spec=spec, method=BETTER)]
            rows = only(tables["initialise"], metric="loss", seed=seed, spec=spec)
            assert both == [rows[rows["method"].isin([SMALLER, LARGER])]["value"].min()]
    found = findings.initialise.against_better_anchor(tables["initialise"]).set_index(["spec", "method"])
    for spec in ladder:
        pairs = [
            the(best, seed=s, spec=spec, method=CBD) - the(best, seed=s, spec=spec, method=BETTER)
            for s in SEEDS
        ]
        row = found.loc[(spec, CBD)]
        assert row["point"] == pytest.approx(np.mean(pairs), abs=1e-6) and row["n"] == len(SEEDS)
        # Student's t over two seeds is wider than their range
        assert row["low"] <= min(pairs) + 1e-6 and max(pairs) - 1e-6 <= row["high"]

    ends = findings.convergence.ends(tables["convergence"])
    assert len(ends) == len(SEEDS) * len(micro.convergence_targets) * (4 * len(BUDGETS) + 1)
    assert len(findings.alpha.optima(tables["alpha"])) == 2 * 3 * len(micro.alpha_targets)
    ratios = findings.convergence.speedups(tables["convergence"])
    assert len(ratios) == len(micro.convergence_targets) * (2 * len(BUDGETS) + 1)
    assert (ratios["flops_1"] < ratios["flops_10"]).all() and (ratios["flops_10"] < ratios["tokens"]).all()
    lost = findings.chain.steps_lost(tables["chain"])
    assert list(lost["spec"]) == ["2x48", "1x16"] * 2
    direct = findings.chain.stepwise_or_direct(tables["chain"])
    assert set(direct["method"]) == {DIRECT_COMPUTE, DIRECT_TOKENS} and len(direct) == 4
    after = findings.convergence.against_better_anchor(tables["convergence"])
    assert list(after["budget"]) == [b for b in BUDGETS for _ in micro.convergence_targets]
    assert scorecard.numbers("micro").count("\n- **") == len(findings.ROWS) - 1


# The bridge ----------------------------------------------------------------------------------------------


def test_every_way_to_a_proxy_is_measured_at_every_stage(tables):
    table = only(tables["bridge"], metric="bits_per_byte")
    ways = {bridge.SEQUENCE, bridge.ALM, bridge.ULD, bridge.RAW, bridge.RAW_COMPUTE}
    for seed in SEEDS:
        here = only(table, seed=seed)
        assert set(here["method"]) - ways == {"source"} and set(here["source"]) == {"a Llama"}
        for way in ways:
            assert list(only(here, method=way)["stage"]) == ["proxy", "anchor 1", "anchor 2", "SLM"]
    assert table["value"].between(1, 12).all()


@pytest.mark.parametrize(("scale", "anchors"), [("laptop", 3), ("gpu", 1)])
def test_a_chain_of_any_length_names_its_stages(scale, anchors):
    for ways in bridge.bridges(SCALES[scale], 0):
        found = bridge.models(ways, bridge.RAW)
        assert list(found) == ["proxy", *(f"anchor {i + 1}" for i in range(anchors)), "SLM"]
        assert found["SLM"].spec == SCALES[scale].bridge.target


def test_what_the_source_does_is_done_once_for_all_seeds(tables):
    table = tables["bridge"]
    for metric in ("generated_tokens", "scored_tokens"):
        rows = only(table, metric=metric)
        assert len(rows) == len(SEEDS) and rows["recipe"].nunique() == 1
    assert only(table, metric="bits_per_byte", method="source")["recipe"].nunique() == 1


def test_equal_compute_counts_the_generation(tables, micro):
    costs = only(tables["bridge"], metric="flops", seed=0).set_index("method")["value"]
    raw = next(iter(bridge.bridges(micro, 0))).proxies()[bridge.RAW]
    evaluations = 3 * raw.training.evaluation_tokens * raw.spec.forward_flops(CONTEXT)  # at other steps
    step = STEP * raw.flops_per_token
    assert abs(costs[bridge.RAW_COMPUTE] - costs[bridge.SEQUENCE]) <= step + evaluations
    assert costs[bridge.RAW] < costs[bridge.SEQUENCE]


def test_the_bridges_differences_are_paired_by_seed(tables):
    table = tables["bridge"]
    found = findings.bridge.differences(table).set_index(["stage", "method"])
    for stage in ("proxy", "SLM"):
        values = only(table, metric="bits_per_byte", stage=stage).set_index(["method", "seed"])["value"]
        gaps = [values[bridge.SEQUENCE, seed] - values[bridge.RAW, seed] for seed in SEEDS]
        assert found.loc[(stage, bridge.SEQUENCE), "point"] == pytest.approx(np.mean(gaps), abs=1e-6)


def test_a_public_proxy_is_measured_as_it_is_too_and_on_texts_that_no_model_wrote(
    ran, micro, wide, tiny_corpus_folder, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("public")
    random_model(micro.bridge.proxy, seed=5).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_corpus_folder).save_pretrained(folder)
    nothing = replace(micro.bridge.sampling, opening="text")
    dial = replace(micro.bridge, proxy=local(folder), sampling=nothing)
    scale = replace(wide, name="public", bridge=dial)
    _, tables = ran(4, scale, ("bridge",))
    table = tables["bridge"]
    [ways] = bridge.bridges(scale, 0)
    assert ways.text.corpus is None, "nothing that the proxy's corpus has begins the text"
    assert ways.proxies()[bridge.AS_IS] == dial.proxy
    assert only(table, method=bridge.AS_IS, stage="proxy")["recipe"].nunique() == 2, (
        "a text each, of all seeds"
    )
    stages = only(table, metric="bits_per_byte on other text").groupby("method")["stage"].agg(list)
    assert len(stages) == 7 and stages[bridge.AS_IS] == ["proxy", "anchor 1", "anchor 2", "SLM"] * len(SEEDS)
    scored = table[table["metric"] == "cbd_cloze/acc"]
    assert set(scored["method"]) == set(ways.proxies()) and set(scored["stage"]) == {"SLM"}
    units = findings.ROWS["E15"].measure(tables)
    against = ("equal tokens", "equal compute", "no training")
    assert list(units["unit"]) == [f"sequence-level on other text against {name}" for name in against]
    values = only(table, metric="bits_per_byte on other text", stage="SLM").set_index(["method", "seed"])[
        "value"
    ]
    gaps = [values[bridge.SEQUENCE, seed] - values[bridge.AS_IS, seed] for seed in SEEDS]
    assert units["point"].iloc[2] == pytest.approx(np.mean(gaps), abs=1e-6)


def test_a_chain_of_several_seeds_can_begin_at_one_public_source(
    ran, micro, tiny_corpus_folder, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("source")
    random_model(micro.source, seed=6).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_corpus_folder).save_pretrained(folder)
    scale = replace(micro, name="shared", source=local(folder), source_training=None)
    _, tables = ran(5, scale, ("chain",))
    table = tables["chain"]
    losses = only(table, metric="final_loss").set_index(["method", "spec", "seed"])["value"]
    [loss] = set(only(table, metric="final_loss", method="source")["value"])
    smallest = micro.anchor_specs[-1].name
    for _, row in only(table, metric="lost_since_source", spec=smallest).iterrows():
        assert row["value"] == pytest.approx(losses["stepwise", smallest, row["seed"]] - loss, abs=1e-6)
    assert len(only(table, metric="lost")) == len(SEEDS) * len(micro.anchors)


# Families ------------------------------------------------------------------------------------------------


def test_every_family_has_its_chain_and_its_curves(tables, micro):
    table = tables["families"]
    for family, vocabulary in micro.families.vocabularies:
        [target] = families.targets(micro, family)
        assert target.family == family and target.vocab == vocabulary
        curve = only(table, family=family, metric="bits_per_byte", method="CBD", seed=0)
        assert len(curve) == 3 * len(micro.alphas) and set(curve["spec"]) == {target.name}
        assert the(table, family=family, metric="rule_alpha", seed=0) == pytest.approx(
            distance_alpha(*(m.spec for m in families.chain(micro, 0, family).pair_around(target)), target)
        )


def test_the_optima_are_the_least_of_the_mean_curves(tables):
    table = only(tables["families"], metric="bits_per_byte", method="CBD")
    for row in findings.families.optima(tables["families"]).itertuples():
        curve = only(table, family=row.family, spec=row.spec, mixing=row.mixing, operator=row.operator)
        mean = curve.groupby("alpha")["value"].mean()
        assert row.value == pytest.approx(mean.min(), rel=1e-6)
        assert mean[row.best_alpha] == pytest.approx(mean.min(), rel=1e-6)


def test_a_scale_without_small_chains_points_to_the_public_ones():
    with pytest.raises(CbdError, match="cbd run public_checkpoints"):
        design_of("families", SCALES["gpu"], 0)


def test_public_checkpoints_run_on_folders_of_the_same_shape(
    micro, tiny_corpus, tiny_corpus_folder, tmp_path
):
    """GPT-2, Pythia and Qwen3 shrunk, with tables padded beyond the tokenizer as the real ones are."""
    sizes = {"vocab": 320, "positions": 64}
    shapes = {
        "gpt2": [gpt2(n, d, head_dim=16, **sizes) for n, d in ((2, 32), (3, 64), (3, 48))],
        "pythia": [pythia(n, d, head_dim=16, **sizes) for n, d in ((2, 32), (3, 64), (2, 48))],
        "qwen3": [qwen3(2, d, 4, 2, 3 * d, head_dim=16, **sizes) for d in (32, 64, 48)],
    }
    pairs = []
    for name, (*ends, target) in shapes.items():
        sources = []
        for i, spec in enumerate(ends):
            folder = tmp_path / f"{name}{i}"
            random_model(spec, seed=i, mean=0.0).save_pretrained(folder)
            AutoTokenizer.from_pretrained(tiny_corpus_folder).save_pretrained(folder)
            sources.append(local(folder))
        pairs.append(Public(*sources, (target,)))
    design = public_checkpoints.design(micro, 0, tuple(pairs), tiny_corpus)
    realize_all(design.recipes)
    rows = pd.DataFrame([row for m in design.measurements for row in rows_of(m)])
    assert rows[rows.metric == "loss"].groupby("family").size().to_dict() == dict.fromkeys(
        ("gpt2", "gpt_neox", "qwen3"), 2 + 3 * len(micro.alphas)
    )
    assert rows["value"].between(0, 20).all()
    assert all(m.labels["seed"] is None for m in design.measurements), "nothing is drawn at random"
    assert not public_checkpoints.design(micro, 1, tuple(pairs), tiny_corpus).recipes


# Scratch against CBD -----------------------------------------------------------------------------------


def test_every_initialisation_and_every_budget_is_scored(tables, micro):
    table = tables["scratch_vs_cbd"]
    metrics = ["loss", "bits_per_byte", "cbd_continuation/acc_norm", "cbd_cloze/nll", "cbd_reply/rougeL"]
    for metric in metrics:
        rows = only(table, metric=metric)
        for seed in SEEDS:
            own = only(rows, seed=seed)
            assert sorted(own[own.tokens == 0]["method"]) == ["CBD (bridged)", CBD]
            random = only(own, method=RANDOM)
            assert sorted(random["tokens"]) == sorted(micro.scratch_vs_cbd.ladder)
            assert len(own) == 2 + len(micro.scratch_vs_cbd.ladder)


def test_the_experiment_has_seeds_of_its_own(micro):
    more = replace(micro, scratch_vs_cbd=replace(micro.scratch_vs_cbd, seeds=5))
    assert list(seeds_of("scratch_vs_cbd", more, 3)) == [3, 4, 5, 6, 7]
    assert len(seeds_of("equal_budget", more)) == micro.seeds
    laptop = SCALES["laptop"]
    assert laptop.scratch_vs_cbd.seeds >= 3 and laptop.scratch_vs_cbd.ladder[0] == laptop.budgets[0]


def test_scratch_takes_the_rate_of_the_nearest_search_or_the_step_laws(micro):
    spec = micro.scratch_vs_cbd.targets[0]
    low, high = BUDGETS
    few = replace(micro, tuning=replace(micro.tuning, budgets=BUDGETS))
    for tokens, nearest in ((STEP, low), (low, low), (high, high), (100 * high, high)):
        found = scratch_vs_cbd.scratch(few, 0, spec, tokens).training
        assert found.lr.training.tokens == nearest and found.tokens == tokens
        own = scratch_vs_cbd.scratch(micro, 0, spec, tokens).training
        assert own.lr.training.tokens == tokens, "where no budgets are named, each has a search of its own"
        assert own.lr.training.warmup_tokens <= tokens
    law = replace(micro, scratch_vs_cbd=replace(micro.scratch_vs_cbd, step_law=True))
    rates = [scratch_vs_cbd.scratch(law, 0, spec, 10**n).training.lr for n in (6, 8)]
    assert rates[1] / rates[0] == pytest.approx(100**0.307, rel=1e-2)


def test_runs_that_are_longer_than_any_search_keep_their_rate_and_meet_the_shorter_ones(micro):
    """Every kind of start alike; where no budgets are named, nothing is longer than its own search."""
    spec, (low, high) = micro.scratch_vs_cbd.targets[0], BUDGETS
    longest = 100 * high
    dial = replace(micro.scratch_vs_cbd, ladder=(high, longest))
    few = replace(micro, tuning=replace(micro.tuning, budgets=BUDGETS), scratch_vs_cbd=dial)
    for method, start in models.starts(few, 0, spec, ("union", "random")).items():
        short, long = (
            models.recovery(few, 0, spec, method, start, tokens).training for tokens in (high, longest)
        )
        assert (short.schedule, short.looks) == ("cosine", ())
        assert long.schedule == "wsd" and {low, high} <= set(long.looks) and max(long.looks) < longest
        ends = [tokens // (long.batch * long.context) for tokens in long.looks]
        assert set(ends) <= set(long.evaluated_steps)
        assert models.recovery(micro, 0, spec, method, start, longest).training.schedule == "cosine"


def test_every_model_gets_the_same_fine_tuning(micro):
    for seed in SEEDS:
        measured = (
            design_of("scratch_vs_cbd", micro, seed).recipes + design_of("equal_budget", micro, seed).recipes
        )
        tuned = [r.model for r in measured if isinstance(r, Downstream) and isinstance(r.model, Tuned)]
        assert len(tuned) > 6 and {(t.pairs, t.training) for t in tuned} == {
            (micro.evaluation.pairs, replace(micro.evaluation.tuning, seed=seed))
        }


def test_the_gap_is_the_difference_of_the_means_and_inside_its_interval(tables, micro):
    table = tables["scratch_vs_cbd"]
    for tokens in micro.scratch_vs_cbd.ladder:
        for metric in ("cbd_cloze/nll", "cbd_reply/rougeL"):
            own = only(table, metric=metric, method=CBD)["value"].mean()
            random = only(table, metric=metric, method=RANDOM, tokens=tokens)["value"].mean()
            labels = {"method": CBD, "tokens": tokens}
            gap = the(table, metric=f"{metric} minus random", **labels)
            assert gap == pytest.approx(own - random, abs=1e-6)
            low, high = (
                the(table, metric=f"{metric} minus random {end}", **labels) for end in ("low", "high")
            )
            assert low - 1e-9 <= gap <= high + 1e-9


def test_equal_budgets_compare_at_equal_tokens(tables, micro):
    table = tables["equal_budget"]
    losses = only(table, metric="loss")
    assert set(losses["tokens"]) == set(micro.scratch_vs_cbd.equal_budgets)
    found = findings.equal_budget.losses(table)
    own, random = (only(losses, method=m)["value"].mean() for m in (CBD, RANDOM))
    assert found["point"].iloc[0] == pytest.approx(own - random)


def test_the_averages_are_of_the_tasks_main_metrics(tables):
    table = tables["equal_budget"]
    metrics = ["cbd_continuation/acc_norm", "cbd_cloze/acc", "cbd_reply/rougeL"]
    assert main_metrics(table) == metrics
    [row] = findings.equal_budget.averages(table).to_dict("records")
    for column, method in (("CBD", CBD), ("random", RANDOM)):
        scores = [only(table, metric=m, method=method)["value"].mean() for m in metrics]
        assert row[column] == pytest.approx(100 * np.mean(scores))
    guesses = [only(table, metric=f"{m} chance")["value"].mean() for m in metrics]
    assert row["chance"] == pytest.approx(100 * np.mean(guesses))
    assert row["difference"] == pytest.approx(row["CBD"] - row["random"])


def test_crossings_say_what_the_table_says(tables, micro):
    table = tables["scratch_vs_cbd"]
    found = findings.scratch_vs_cbd.crossings(table)
    assert len(found) == 2 * 4 and set(found["verdict"]) <= {
        "reached",
        "reached at the smallest budget",
        "not reached",
    }
    losses = only(table, metric="loss")
    for row in found[found.metric == "loss"].itertuples():
        line = only(losses, method=row.method)["value"].mean()
        curve = only(losses, method=RANDOM).groupby("tokens")["value"].mean()
        assert (row.verdict == "not reached") == (curve > line).all()
        assert row.cbd == pytest.approx(line) and row.scratch == pytest.approx(curve.iloc[-1])
    for row in found[found["above_chance"]].itertuples():
        assert math.isnan(row.chance) or max(row.cbd, row.scratch) > row.chance
    power = detectable(table)
    assert (power["comparisons"] == 2 * len(micro.scratch_vs_cbd.ladder)).all() and (
        power["n"] == len(SEEDS)
    ).all()


def test_the_chains_cost_stands_beside_what_it_saves(tables, micro):
    """Its FLOPs, all but the source's, in tokens of random weights: as the recipes and records have them."""
    table, spec = tables["scratch_vs_cbd"], micro.scratch_vs_cbd.targets[0]
    found = findings.scratch_vs_cbd.crossings(table).groupby("method")["chain"].agg(["min", "max"])
    sources = {CBD: models.source(micro, 0), "CBD (bridged)": bridge.bridges(micro, 0)[0].llm}
    for method, (_, slm) in scratch_vs_cbd.initialisations(micro, 0, spec).items():
        made = [recipe for key, recipe in walk([slm]).items() if key not in walk([sources[method]])]
        assert sum(recipe.tokens > 0 for recipe in made) >= len(micro.anchors)
        work = sum(store.record(recipe)["flops"] for recipe in made)
        tokens = work / spec.training_flops(micro.recovery.context)
        assert found.loc[method, "min"] == found.loc[method, "max"] == pytest.approx(tokens)


def test_experiments_are_found_and_say_themselves_when_all_leaves_them_out(micro):
    assert len(EXPERIMENTS) == 18 and {"chain", "public_checkpoints"} <= set(EXPERIMENTS)
    assert not {"earlier", "run", "starts", "tasks", "scales"} & set(EXPERIMENTS)
    assert names_at(micro) == LOCAL
    assert set(LOCAL) - set(names_at(SCALES["gpu"])) == {"basis", "distillers", "families", "nested"}


def test_names_are_known_without_heavy_imports():
    code = (
        "import sys; from cbd.experiments import EXPERIMENTS, PAPER; from cbd import cli; cli.parser();"
        "assert PAPER['E1'] == 'chain' and 'Q2' not in PAPER;"
        "sys.exit(sorted({'pandas', 'numpy', 'torch'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", PAPER)
def test_every_experiment_of_the_paper_names_one_of_ours(name):
    assert PAPER[name] in EXPERIMENTS


@pytest.mark.parametrize("name", ["convergence", "scratch_vs_cbd", "equal_budget"])
def test_every_search_is_in_the_records_with_its_cost(name, micro):
    found = searches(results.read_records("micro", name))
    needed = [r for r in walk(design_of(name, micro, 0).recipes).values() if isinstance(r, Search)]
    assert len(found) == len(needed) > 0 and not found.duplicated(["spec", "start", "tokens"]).any()
    records = {record["key"]: record for record in results.read_records("micro", name)}
    wanted = []
    for recipe in needed:
        best, tried = (records[recipe.key][name] for name in ("best", "tried"))
        losses = [run["loss"] for run in tried if best.items() <= run.items()]
        assert len(losses) == len(recipe.seeds) and len(tried) >= recipe.fewest
        one = recipe.tokens // recipe.fewest
        wanted.append((recipe.spec.name, one, *best.values(), np.mean(losses), len(tried), len(tried) * one))
    columns = ["spec", "tokens", "lr", "warmup", "loss", "runs", "search_tokens"]
    for row, right in zip(sorted(found[columns].itertuples(index=False)), sorted(wanted), strict=True):
        assert row.spec == right[0] and tuple(row)[1:] == pytest.approx(right[1:])
    assert (found["next"] >= 0).all() and (found["search_flops"] > 0).all()


def test_searches_of_all_starts_are_told_apart(micro):
    found = searches(results.read_records("micro", "convergence"))
    kinds = {"Interpolated", "Random"} | {f"Transferred from {spec.name}" for spec in micro.anchors}
    assert set(found["start"]) == kinds
    scratch = searches(results.read_records("micro", "scratch_vs_cbd"))
    assert set(scratch["start"]) == {"Random"}
    assert sorted(scratch["tokens"]) == sorted(micro.scratch_vs_cbd.ladder), "one at every step of the ladder"
    assert searches(results.read_records("micro", "chain")).empty


def test_both_bases_share_their_source_and_their_training(micro):
    for family in micro.families.turned:
        ours, theirs = (families.chain(micro, 1, family, basis).models for basis in ("sorted", "axes"))
        assert ours[0] == theirs[0] and type(ours[1].start.model) is Sorted
        for one, other in zip(ours[1:], theirs[1:], strict=True):
            assert type(other.start.model) is Rotated and other.start.model.model == other.teacher
            assert (one.spec, one.training, one.loss) == (other.spec, other.training, other.loss)


def test_chains_of_any_density_have_one_source_and_one_total_of_tokens(micro, tables):
    ways = density.chains(micro, 1)
    assert list(ways) == ["1 anchor", "2 anchors"]
    assert [len(one.models) for one in ways.values()] == [2, 3]
    assert len({one.models[0] for one in ways.values()}) == 1
    assert len({sum(anchor.tokens for anchor in one.models[1:]) for one in ways.values()}) == 1
    assert ways["2 anchors"] == models.chain(micro, 1), "the densest is the scale's own"
    theirs = {m.recipe for m in density.design(micro, 1).measurements if m.method == "2 anchors"}
    own = {m.recipe for m in convergence.design(micro, 1).measurements if m.method == CBD}
    assert len(theirs & own) == len(micro.convergence_targets), "what convergence trains anyway"
    zero = only(tables["density"], metric="loss", tokens=0)
    wanted = [(m, s, seed) for m in ways for s in ("1x32", "2x32") for seed in SEEDS]
    assert sorted(zip(zero["method"], zero["spec"], zero["seed"], strict=True)) == wanted
    with pytest.raises(CbdError, match="names no chains of different density"):
        density.design(replace(micro, densities=()), 0)


def test_rivals_start_from_the_same_anchors_and_have_searches_of_their_own(micro, tables):
    measured = rivals.design(micro, 1).measurements
    own = {m.recipe for m in convergence.design(micro, 1).measurements if m.method == CBD}
    searched = set()
    for spec in micro.convergence_targets:
        small, large = models.chain(micro, 1).pair_around(spec)
        runs = {m.method: m.recipe for m in measured if m.recipe.spec == spec}
        assert set(runs) == {CBD, "stacking", LEARNGENE} and runs[CBD] in own
        assert runs["stacking"].start.model == small and runs[LEARNGENE].start.model == large
        begun = {method: run.training.lr.training.lr for method, run in runs.items()}
        dial = micro.tuning
        assert begun == {CBD: dial.lr, "stacking": dial.lr, LEARNGENE: dial.random_lr}, (
            "mostly random weights"
        )
        trainings = [run.training for run in runs.values()]
        assert len({(t.tokens, t.skip, t.seed) for t in trainings}) == 1
        searched |= {t.lr for t in trainings}
    assert len(searched) == 3 * len(micro.convergence_targets)
    ends = findings.rivals.head_to_head(tables["rivals"])
    assert len(ends) == 2 * 2 * len(micro.convergence_targets) and set(ends["n"]) == {len(SEEDS)}
    with pytest.raises(CbdError, match="names no rivals"):
        rivals.design(replace(micro, rivals=()), 0)


def test_a_models_first_blocks_say_what_its_states_do_read_by_its_own_head(micro, tables):
    source, *_, anchor = models.chain(micro, 0).models
    for model in (source, anchor):
        early = decisions.first_blocks(model, 0.5)
        assert early.spec.layers == max(round(model.spec.layers / 2), 1)
        whole, cut = (
            AutoModelForCausalLM.from_pretrained(realize(recipe)).eval() for recipe in (model, early)
        )
        ids = torch.arange(16)[None]
        with torch.no_grad():
            states = whole(ids, output_hidden_states=True).hidden_states[early.spec.layers]
            last = early.spec.layers == model.spec.layers  # transformers gives the last states normed
            lens = whole.lm_head(states if last else whole.transformer.ln_f(states))
            torch.testing.assert_close(cut(ids).logits, lens, atol=1e-5, rtol=1e-5)


def test_what_a_model_says_early_is_told_for_every_model_of_the_chain(micro, tables):
    found = findings.decisions.phases(tables["decisions"])
    chain = [model.spec.name for model in models.chain(micro, 0).models]
    assert list(dict.fromkeys(found["source"])) == chain and set(found["share"]) == {0.5, 0.8, 1.0}
    rows = only(tables["decisions"], metric="cbd_continuation/acc_norm", stage="1", seed=0)
    for _, row in rows.iterrows():
        model = next(m for m in models.chain(micro, 0).models if m.spec.name == row["source"])
        assert row["spec"] == model.spec.name and row["tokens"] == model.tokens
    lead = found.query("metric == 'lead' and share == 1.0")
    chance = only(tables["decisions"], metric="cbd_continuation/acc_norm chance")["value"].iloc[0]
    for _, row in lead.iterrows():
        own = only(tables["decisions"], metric="cbd_continuation/acc_norm", stage="1", source=row["source"])[
            "value"
        ]
        assert row["point"] == pytest.approx(own.mean() - chance)
    with pytest.raises(CbdError, match="does not say after which blocks"):
        decisions.design(replace(micro, decisions=None), 0)


def test_learned_alphas_are_paid_with_tokens_of_the_recovery(micro, tables):
    measured = better_interpolation.design(micro, 1).measurements
    own = {m.recipe for m in convergence.design(micro, 1).measurements}
    for spec in micro.convergence_targets:
        runs = {m.method: m.recipe for m in measured if m.recipe.spec == spec}
        assert set(runs) == {CBD, SMALLER, LARGER, *FITTED.values()}
        assert {runs[m] for m in (CBD, SMALLER, LARGER)} <= own, "what convergence trains anyway"
        for name in FITTED.values():
            start, training = runs[name].start, runs[name].training
            assert (start.small, start.large) == models.chain(micro, 1).pair_around(spec)
            assert start.tokens + training.tokens == BUDGETS[0]
            assert start.training.skip + start.training.steps == training.skip, "no window is read twice"
            assert training.lr == runs[CBD].training.lr
    found = findings.better_interpolation.learned_against(tables["better_interpolation"])
    assert len(found) == 2 * 2 * 3 * len(micro.convergence_targets) and set(found["n"]) == {len(SEEDS)}
    taken = findings.better_interpolation.learned(results.read_records("micro", "better_interpolation"))
    assert taken["alpha"].between(0, 1).all() and (taken["n"] >= len(SEEDS)).all()
    with pytest.raises(CbdError, match="learns no alphas"):
        better_interpolation.design(replace(micro, fitting=None), 0)


def test_a_nested_run_costs_what_the_chain_does(micro, tables):
    run, anchors = nested.nested(micro, 1), models.chain(micro, 1, "inherited").models[1:]
    spent = sum(anchor.tokens * anchor.flops_per_token for anchor in anchors)
    assert 0 <= spent - run.tokens * run.flops_per_token < STEP * run.flops_per_token
    assert {*micro.anchor_specs, *micro.ladder} <= set(run.specs)
    measured = nested.design(micro, 1).measurements
    for spec in micro.convergence_targets:
        runs = {m.method: m.recipe for m in measured if m.recipe.spec == spec and m.metric == "loss"}
        assert runs[NESTED].start.model == run and runs[NESTED].training.lr != runs[CBD].training.lr
        assert runs[NESTED].training.lr.start.model == nested.nested(micro, 0), "the first seed's searches"
        assert runs[NESTED].training.skip == runs[CBD].training.skip
    found = findings.nested.nested_against(tables["nested"])
    assert len(found) == len(anchors) + 2 * len(micro.convergence_targets)
    with pytest.raises(CbdError, match="has no nested run"):
        nested.design(replace(micro, nested=False), 0)


def test_every_loss_is_tried_at_every_rate_from_one_start_on_the_same_batches(micro, tables):
    measured = distillers.design(micro, 1).measurements
    _, above, last = models.chain(micro, 1, "inherited").models
    students = [m.recipe.model for m in measured]
    assert len(measured) == 2 * 10 and {m.labels["source"] for m in measured} == {above.spec.name}
    rates = {times * micro.anchor_training.lr for times in micro.distillers.rates}
    assert {student.training.lr for student in students} == rates
    writers = [student for student in students if isinstance(student, OnPolicy | MiniLLM)]
    assert len(writers) == 2 * 2
    for writer in writers:
        first = writer.start
        assert first.start == Transferred(Sorted(above), last.spec) and first.loss == micro.loss
        assert first.tokens + writer.tokens == last.tokens and writer.training.lr == first.training.lr
        assert writer.training.skip == first.training.skip + first.training.steps, "batches of its own"
    students = [student for student in students if student not in writers]
    assert {student.start for student in students} == {Transferred(Sorted(above), last.spec)}
    assert len({replace(student.training, lr=1.0) for student in students}) == 1
    own = {m.method: m.recipe.model for m in measured if m.labels["stage"] == "1 x rate"}
    assert own[REVERSE] == last, "the chain's own run, not a second one"
    assert own[ALONE].training == last.training and own[STATES].aligned
    best = findings.distillers.best_rates(tables["distillers"])
    assert len(best) == 10 and (best["gain"] >= 0).all() and best["edge"].all(), "of two rates both are ends"
    rows = tables["distillers"].query("metric == 'final_loss'").groupby(["source", "spec", "method", "stage"])
    lowest = rows["value"].mean().groupby(level=[0, 1, 2]).min()
    keys = ["source", "spec", "method"]
    assert best.set_index(keys)["value"].sort_index().to_numpy() == pytest.approx(
        lowest.sort_index().to_numpy()
    )
    with pytest.raises(CbdError, match="compares no objectives"):
        distillers.design(replace(micro, distillers=None), 0)
    few = replace(micro, distillers=replace(micro.distillers, every=False))
    assert len(distillers.design(few, 1).measurements) == 2 * 7


def test_every_stage_has_its_own_part_of_the_stream(micro):
    """No model sees the batches again that its ancestors were trained on."""
    for kind in ("inherited", "independent", "alone"):
        ends = 0
        for model in models.chain(micro, 1, kind).models:
            assert model.training.skip == ends and model.training.seed == 1
            ends += model.training.steps
    spec = micro.convergence_targets[0]
    for method, start in models.starts(micro, 1, spec).items():
        assert models.recovery(micro, 1, spec, method, start, BUDGETS[0]).training.skip == ends
    assert scratch_vs_cbd.scratch(micro, 1, spec, BUDGETS[0]).training.skip == ends


def test_below_the_chain_the_smallest_anchor_is_cut():
    scale = SCALES["smoke"]
    spec = scale.scratch_vs_cbd.equal_targets[0]
    assert models.below(scale, spec) and not models.below(scale, scale.ladder[0])
    found = models.starts(scale, 0, spec)
    assert set(found) == {LARGER, RANDOM}
    assert found[LARGER].model.model == models.chain(scale, 0).models[-1]
    methods = {m.method for m in design_of("equal_budget", scale, 0).measurements if m.recipe.spec == spec}
    assert methods == {LARGER, RANDOM}


@given(st.data())
def test_an_average_floors_every_task_at_guessing(data):
    """Against a plain computation; and with no floor it is the mean of the tasks' own differences."""
    seeds, draw = data.draw(st.integers(1, 4)), np.random.default_rng(data.draw(st.integers(0, 99)))
    tasks = [
        (draw.random((seeds, n)), draw.random((seeds, n)), floor) for n, floor in ((5, 0.4), (9, math.nan))
    ]
    found = stats.floored_average(tasks)
    floored = [max(a.mean(), f) - max(b.mean(), f) if f == f else a.mean() - b.mean() for a, b, f in tasks]
    assert found.point == pytest.approx(np.mean(floored)) and found.n == seeds
    if seeds > 1:
        assert found.low <= found.high
        assert found == stats.floored_average(tasks), "no global generator"
    hopeless = [(a, b, 2.0) for a, b, _ in tasks]
    assert stats.floored_average(hopeless).point == 0, "below guessing no model is worse than another"


def test_the_average_is_in_the_table_with_its_interval(tables):
    table = tables["equal_budget"]
    point, low, high = (the(table, metric=f"average minus random{end}") for end in ("", " low", " high"))
    assert low <= point <= high
    ours = {m: only(table, metric=m, method=CBD)["value"].mean() for m in main_metrics(table)}
    random = {m: only(table, metric=m, method=RANDOM)["value"].mean() for m in ours}
    floors = {m: only(table, metric=f"{m} chance")["value"].mean() for m in ours}
    wanted = [max(ours[m], floors[m]) - max(random[m], floors[m]) for m in ours]
    assert point == pytest.approx(100 * np.mean(wanted), abs=1e-6)


# Other texts and tasks at step zero ----------------------------------------------------------------------


WIDE = ("chain", "initialise", "alpha", "convergence", "better_interpolation")


@pytest.fixture(scope="module")
def wide(micro, tiny_corpus, tmp_path_factory) -> Scale:
    """Models judged on another text as well, and on tasks before any training."""
    folder = tmp_path_factory.mktemp("other")
    for i in range(12):
        (folder / f"{i}.txt").write_text("the dog likes the rain before the king. " * (4 + i), "utf-8")
    other = folder_corpus(folder, tokenizer=tiny_corpus, held_out=0.25)
    other = replace(other, name="other text")
    rival = Boomerang(1, micro.anchor_training, Loss("forward_kl", 0.9, alignment=2.0))
    sizes = {"ladder": (shape(1, 32), shape(2, 48)), "convergence_targets": (shape(2, 48),)}
    more = {"domains": (other,), "benchmarked": ("union", "grown"), "independent": False, "boomerang": rival}
    return replace(micro, name="wide", pruned=True, scores=True, **sizes, **more)


def test_models_are_judged_on_every_text_and_chosen_starts_on_tasks(ran, wide):
    _, tables = ran(2, wide, WIDE)
    losses = ("loss", "loss on other text")
    about = ["spec", "method", "mixing", "operator", "alpha", "seed"]
    for name, own in (("chain", "final_loss"), ("initialise", "loss"), ("alpha", "loss")):
        ours, other = (only(tables[name], metric=metric) for metric in (own, losses[1]))
        assert ours[about].reset_index(drop=True).equals(other[about].reset_index(drop=True))
        assert set(ours["recipe"]).isdisjoint(other["recipe"]), "measured on the other text"
        apart = np.abs(ours["value"].to_numpy() - other["value"].to_numpy())
        assert apart.min() > 0
    assert set(tables["alpha"].query("metric == 'loss'")["method"]) == {"inherited"}
    at_zero = tables["initialise"]
    scored = at_zero[at_zero["metric"] == "cbd_cloze/acc"]
    benchmarked = {"CBD (union)", "smaller anchor, grown"}
    for spec, methods in (("1x32", benchmarked), ("2x48", benchmarked | {"boomerang"})):
        assert set(only(scored, spec=spec)["method"]) == methods
    assert set(scored["tokens"]) == {0}
    by_score = {*BY_SCORE.values(), CORRECTED, BOOMERANG_KL}
    assert by_score <= set(only(at_zero, spec="2x48")["method"]), (
        "the rival's depths alone, and a cut in depth"
    )
    assert by_score.isdisjoint(only(tables["convergence"], budget=BUDGETS[-1])["method"])
    # a cut that keeps what the smaller anchor stands for is that of the mixture at the rule's alpha
    shares = at_zero[at_zero["method"].isin([CBD, CHOSEN])].groupby("spec")["alpha"].nunique()
    assert (shares == 1).all(), "the alpha of the whole larger anchor"
    better = with_better(only(at_zero, metric="loss")).query("method == @BETTER")
    alone = only(at_zero, metric="loss")[lambda t: t["method"].isin([SMALLER, LARGER, PRUNED])]
    assert list(better["value"]) == list(alone.groupby(["spec", "seed"])["value"].min())
    chains = tables["chain"].query("metric == 'cbd_cloze/acc'")
    assert set(chains["method"]) == set(tables["chain"].query("metric == 'final_loss'")["method"])
    for metric in losses:
        bits = metric.replace("loss", "bits_per_byte")
        both = [
            only(at_zero, metric=m).set_index(["spec", "method", "seed"])["value"] for m in (metric, bits)
        ]
        ratio = both[0] / both[1]
        assert ratio.max() - ratio.min() < 1e-6 * ratio.mean()


def test_what_recovered_is_judged_on_every_text(ran, wide, monkeypatch):
    folder, tables = ran(2, wide, WIDE)
    table, about = tables["convergence"], ["method", "budget", "seed"]
    own, other = only(table, metric="loss"), only(table, metric="loss on other text")
    done = findings.convergence.ends(table)
    assert set(done["method"]) == {CBD, SMALLER, LARGER, RANDOM, PRUNED, CHOSEN, "boomerang"}
    wanted = {*map(tuple, done[about].to_numpy())}
    after = other[other["tokens"] > 0]
    assert {*map(tuple, after[about].to_numpy())} == wanted and len(after) == len(wanted)
    zero = only(other, tokens=0)
    assert set(zero["method"]) == {CBD} and set(zero["budget"]) == {BUDGETS[0]} and len(zero) == len(SEEDS)
    at_zero = only(tables["initialise"], metric="loss on other text", method=CBD, spec="2x48")
    assert sorted(zero["value"]) == pytest.approx(sorted(at_zero["value"]))
    assert set(own["recipe"]).isdisjoint(other["recipe"])
    scored = table[table["metric"] == "cbd_cloze/acc"]
    assert set(scored["method"]) == {CBD, SMALLER, "boomerang"}
    assert set(scored["budget"]) == {BUDGETS[-1]}
    monkeypatch.setenv("CBD_ROOT", str(folder))
    searched = [r["fields"]["start"] for r in results.read_records("wide", "convergence") if "tried" in r]
    assert len(searched) == 7 * len(BUDGETS) + 1, "each start at each budget; random also at the long one"
    units = findings.ROWS["Q2"].measure(tables)["unit"]
    assert sum(units.str.endswith(" on other text")) == len(units) / 2 == len(wide.ladder) + len(BUDGETS)


def test_learned_alphas_are_judged_on_every_text_and_after_recovery_on_tasks(ran, wide):
    _, tables = ran(2, wide, WIDE)
    table = tables["better_interpolation"]
    found = findings.better_interpolation.by_start(table)
    for budget, rows in found.groupby("budget"):
        assert set(rows["method"]) == {CBD, SMALLER, LARGER, *FITTED.values()}
        assert rows[["loss", "loss on other text"]].notna().all(axis=None)
        assert rows["cbd_cloze/acc"].notna().all() == (budget > 0)
    assert set(found["budget"]) == {0, BUDGETS[0]}
    assert len(only(table, metric="rule_alpha")) == len(SEEDS) * len(wide.convergence_targets)


def test_a_scale_without_a_source_of_another_family_has_no_bridge(micro):
    without = replace(micro, bridge=None)
    assert "bridge" not in names_at(without) and "bridge" in names_at(micro)
    with pytest.raises(CbdError, match="no source of another family"):
        design_of("bridge", without, 0)

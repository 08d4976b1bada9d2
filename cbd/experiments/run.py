"""What every experiment is: measurements for a scale and a seed, run, tabulated and written the same way."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from cbd.errors import CbdError, require
from cbd.experiments import EXPERIMENTS, PAPER
from cbd.experiments.earlier import Earlier, Items, labels
from cbd.experiments.scales.base import Scale
from cbd.realize import realize_all, store
from cbd.recipes.base import Recipe, walk
from cbd.recipes.costs import ACCELERATORS
from cbd.recipes.evaluation import DEPTHS, BitsPerByte, Compared, Downstream
from cbd.recipes.models import Interpolated
from cbd.recipes.operators import resolve_alpha
from cbd.recipes.training import Run, Tuned
from cbd.report import results
from cbd.report.names import SIMILARITY, chance, loss_on


@dataclass(frozen=True)
class Measurement:
    """A recipe whose outcome becomes rows: a loss, bits per byte, a `Downstream`'s tasks, a training's curve.

    metric: what the loss is called in the table. labels: further columns of the table, such as `budget`;
    alpha is the recipe's, where it has one and they do not say it.
    """

    recipe: Recipe
    method: str
    metric: str = "loss"
    labels: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Design:
    """An experiment at one scale and seed.

    derive: from the table of all seeds, the designs by seed and the scores of all items to further rows, such
    as a speed-up. samples: what a reader is shown beside the table, as JSON; the first seed's is written to
    results/<scale>/<name>.samples.json. by_parts: whether rows of an earlier table may stand for runs that
    are not in the store; not where `derive` reads more of a run than that.
    """

    measurements: tuple[Measurement, ...]
    derive: "Callable[[pd.DataFrame, dict[int, Design], Items], Iterable[dict]] | None" = None
    samples: Callable[[], dict[str, Any]] | None = None
    by_parts: bool = True

    @property
    def recipes(self) -> list[Recipe]:
        return [measurement.recipe for measurement in self.measurements]


def design_of(name: str, scale: Scale, seed: int) -> Design:
    """What an experiment measures. Raises `CbdError` for an unknown name."""
    return _module(name).design(scale, seed)


def seeds_of(name: str, scale: Scale, first: int = 0, count: int | None = None) -> range:
    """The seeds that an experiment runs at a scale: `count`, else the scale's, or a number of its own."""
    require(count is None or count >= 1, f"--seeds {count} runs nothing: ask for at least 1")
    if count is None:
        count = getattr(_module(name), "seeds", lambda scale: scale.seeds)(scale)
    return range(first, first + count)


def _module(name: str) -> ModuleType:
    require(name in EXPERIMENTS, f"no experiment {name!r}; choose one of {', '.join(EXPERIMENTS)}")
    return import_module(f"cbd.experiments.{name}")


def names_at(scale: Scale, experiment: str = "all") -> list[str]:
    """The experiments meant at a scale: by "all", those whose module does not say otherwise (`runs_at`)."""
    if experiment != "all":
        return [PAPER.get(experiment, experiment)]
    always = lambda scale: True  # noqa: E731
    return [name for name in EXPERIMENTS if getattr(_module(name), "runs_at", always)(scale)]


def plan(names: Iterable[str], scale: Scale, seed: int = 0, on: str = "", tree: bool = False) -> str:
    """What experiments need at a scale, as text: a line each, or the tree of every step. Nothing is run.

    on: what to count hours on, a name in `cbd.recipes.costs.ACCELERATORS` (default: the scale's machine).
    """
    from cbd.realize.plan import overview, render

    seeds = {name: seeds_of(name, scale, seed) for name in names}
    designs = {n: [r for s in each for r in design_of(n, scale, s).recipes] for n, each in seeds.items()}
    accelerator = ACCELERATORS[on or scale.machine]
    everything = [recipe for recipes in designs.values() for recipe in recipes]
    told = render(everything, accelerator) if tree else overview(designs, accelerator)
    return f"{scale.name}: {scale.cost}; {max(map(len, seeds.values()))} seeds\n{told}"


def run(
    name: str,
    scale: Scale,
    seed: int = 0,
    jobs: int | None = None,
    fresh: bool = False,
    seeds: int | None = None,
) -> pd.DataFrame:
    """The tidy table of an experiment for the scale's seeds, from `seed` on (see `cbd.report.results`).

    A table in results/<scale>/ that was made from these very recipes answers, and a line says so. Otherwise
    what neither that table nor the store has is realised, and table, records and items are written; all of
    it when a `fresh` one is asked for. jobs: processes side by side; where it is not given, CBD_JOBS or else
    the scale says it. seeds: how many, instead of the scale's number.
    """
    designs = {s: design_of(name, scale, s) for s in seeds_of(name, scale, seed, seeds)}
    if not fresh and (table := kept(name, scale, designs)) is not None:
        print(_told(name, scale))
        return table
    first = designs[seed]
    earlier = Earlier.read(name, scale.name) if first.by_parts and not fresh else Earlier()
    dropped = ", ".join(map(str, sorted(earlier.seeds - set(designs)))) if seeds else ""
    wrong = f"the table of {name} would lose the seeds {dropped}"
    require(not dropped, f"{wrong}: ask for as many --seeds as it has, or for a --fresh one")
    measured = [(s, m) for s, design in designs.items() for m in design.measurements]
    rows, made = _rows(name, scale, measured, earlier, jobs)
    asked = [m.recipe for _, m in measured]
    items = {r.key: earlier.items.get(r.key) or _items(r) for r in asked if isinstance(r, Downstream)}
    frame = frame_of(name, rows)
    if first.derive is not None:
        frame = frame_of(name, rows + list(first.derive(frame, designs, items)))
    if first.samples is not None:
        results.write_samples(first.samples(), scale.name, name)
    results.write_table(frame, scale.name, name)
    if items:
        results.write_items(items, scale.name, name)
    known = earlier.run_records(walk(asked).values())
    results.write_records((known | _records(made)).values(), scale.name, name)
    return frame


def _rows(
    name: str, scale: Scale, measured: list[tuple[int, Measurement]], earlier: Earlier, jobs: int | None
) -> tuple[list[dict], list[Recipe]]:
    """The rows of all measurements, from an earlier table or made now, and the recipes that were made."""
    about = zip(labels(_wanted(name, measured)), measured, strict=True)
    here = [earlier.of(words, m.recipe, m.metric) for words, (_, m) in about]
    made = [m.recipe for (_, m), rows in zip(measured, here, strict=True) if not rows]
    if len(made) < len(measured):
        print(f"{name}: {len(measured) - len(made)} of {len(measured)} measurements are in results/ already")
    _realised(made, scale, jobs)
    found = [rows or rows_of(m) for rows, (_, m) in zip(here, measured, strict=True)]
    return [{"seed": s} | row for rows, (s, _) in zip(found, measured, strict=True) for row in rows], made


def kept(name: str, scale: Scale, designs: dict[int, Design]) -> pd.DataFrame | None:
    """The table on disk when it is whole and its measurements are exactly those of the designs; else None.

    Whole: as its records' fingerprint has it. What is only counted, like `paper_map`, is counted anew.
    """
    measured = [(s, m) for s, design in designs.items() for m in design.measurements]
    if not measured or not results.intact(scale.name, name):
        return None
    if any(d.samples for d in designs.values()) and not results.samples_path(scale.name, name).is_file():
        return None
    try:
        table = results.read_table(scale.name, name)
    except CbdError:  # of another schema
        return None
    wanted = _wanted(name, measured)
    here = table["recipe"].isin(set(wanted["recipe"])) | table["stderr"].notna()
    return table if set(labels(table[here])) == set(labels(wanted)) else None


def _wanted(name: str, measured: list[tuple[int, Measurement]]) -> pd.DataFrame:
    """A row without a value for every measurement of a seed."""
    return frame_of(name, [{"seed": s, "metric": m.metric} | row_labels(m) for s, m in measured])


def _told(name: str, scale: Scale) -> str:
    """Where a table on disk comes from, with date and commit of its last run, and how to have it anew."""
    place = results.table_path(scale.name, name).relative_to(results.root())
    records = {record["key"]: record for record in results.read_records(scale.name, name)}
    last = max((r for r in records.values() if "finished" in r), key=lambda r: r["finished"])
    commit = records[last["ran_on"]]["commit"]
    return (
        f"{name}: {place}, last run {results.newest(scale.name, name)} at commit {commit}; "
        f"for a fresh one: fresh=True, or `cbd run {name} --scale {scale.name} --fresh`"
    )


def _realised(recipes: list[Recipe], scale: Scale, jobs: int | None) -> None:
    jobs = jobs or int(os.environ.get("CBD_JOBS", scale.jobs))
    realize_all(recipes, jobs=jobs, threads=scale.threads, lean=True)


def frame_of(name: str, rows: list[dict]) -> pd.DataFrame:
    """A validated table from rows that leave out what they do not know."""
    frame = pd.DataFrame(rows).reindex(columns=list(results.COLUMNS))
    frame["experiment"] = name
    return results.validate(frame)


def rows_of(measurement: Measurement) -> list[dict]:
    """The rows of one finished measurement, without experiment and seed."""
    recipe, metric, labels = measurement.recipe, measurement.metric, row_labels(measurement)
    folder = store.folder(recipe)
    if isinstance(recipe, Run):
        rows = []
        for point in json.loads((folder / "curve.json").read_text()):
            spent = {"tokens": point["trained"], "flops": point["trained"] * recipe.flops_per_token}
            rows.append({"metric": metric, "value": point["loss"], "stderr": point["stderr"]} | spent)
        return [labels | row for row in rows]
    metrics = json.loads((folder / "metrics.json").read_text())
    model = pretrained(recipe.model)
    labels |= {"tokens": model.tokens, "flops": model.flops}
    if isinstance(recipe, Downstream):
        return [labels | row for row in _task_rows(metrics, recipe.shots)]
    if isinstance(recipe, Compared):
        named = {
            f"{SIMILARITY}{d:g}": alike for d, alike in zip(DEPTHS, metrics.pop("similarity"), strict=True)
        }
        return [labels | {"metric": name} | found for name, found in (metrics | named).items()]
    other = metric.removeprefix("loss") if metric.startswith(loss_on("")) else ""
    bits = labels | {"metric": f"bits_per_byte{other}", "value": metrics["bits_per_byte"]}
    error = {"stderr": metrics["stderr"]}
    if isinstance(recipe, BitsPerByte):
        return [bits | error]
    return [labels | {"metric": metric, "value": metrics["loss"]} | error, bits]


def _task_rows(metrics: dict[str, dict], shots: int) -> Iterator[dict]:
    """A row a task and metric, its standard error over items; beside it " chance" and the options' shares."""
    for task, found in metrics.items():
        shares = found.pop("option_frequency", ())
        for metric, score in found.items():
            name = metric_name(task, metric, shots)
            yield {"metric": name, "value": score["value"], "stderr": score["stderr"]}
            if "chance" in score:
                yield {"metric": chance(name), "value": score["chance"]}
        for place, share in enumerate(shares, start=1):
            yield {"metric": metric_name(task, f"option {place}", shots), "value": share}


def _items(recipe: Downstream) -> dict[str, list[float]]:
    """The score of every item, by metric, as exact as a table of items has it."""
    found = json.loads((store.folder(recipe) / "items.json").read_text())
    return {
        metric_name(task, metric, recipe.shots): np.float32(values).tolist()
        for task, metrics in found.items()
        for metric, values in metrics.items()
    }


def metric_name(task: str, metric: str, shots: int = 0) -> str:
    """What a task's metric is called in a table: "cbd_cloze/acc", "hellaswag@5/acc_norm"."""
    return f"{task}{f'@{shots}' if shots else ''}/{metric}"


def pretrained(model: Recipe) -> Recipe:
    """The model before its fine-tuning for a task, whose tokens and FLOPs do not count as the method's."""
    return model.start if isinstance(model, Tuned) else model


def row_labels(measurement: Measurement) -> dict:
    """The columns that say what a row is about."""
    spec = measurement.recipe.spec
    model = getattr(measurement.recipe, "model", measurement.recipe)
    said = {"method": measurement.method, "family": spec.family, "spec": spec.name}
    said |= {"parameters": spec.parameters, "recipe": measurement.recipe.key}
    if isinstance(model, Interpolated):
        said["alpha"] = resolve_alpha(model.alpha, model.small.spec, model.large.spec, model.spec)
    return said | measurement.labels


# The tree, and an interpolation's shapes and operator, stand in the fields of its recipe and its inputs'.
_SAID_ELSEWHERE = {"tree", "small", "large", "target", "operator"}


def _records(recipes: Iterable[Recipe]) -> dict[str, dict]:
    """One record a recipe that was run for these, by key, the tree flattened: each names its inputs by key.

    Versions, commit and machine are the same for most: they are records of their own, named by `ran_on`.
    """
    found: dict[str, dict] = {}
    for recipe in walk(recipes).values():
        if store.recorded(recipe):
            record = {k: v for k, v in store.record(recipe).items() if k not in _SAID_ELSEWHERE}
            place = {name: record.pop(name) for name in ("versions", "commit", "machine")}
            name = "ran-" + hashlib.sha256(json.dumps(place, sort_keys=True).encode()).hexdigest()[:8]
            found[name] = {"key": name, **place}
            found[recipe.key] = record | {"ran_on": name, "fields": recipe.describe()}
    return found

"""`results/<scale>/CARD.md`: what a scale's smallest trained model can do, what it cost, how it is made."""

import math
from pathlib import Path

import pandas as pd

from cbd.errors import si
from cbd.experiments.scales.base import Scale
from cbd.experiments.starts import given, starts
from cbd.files import write_text
from cbd.recipes import costs
from cbd.recipes.models import Source
from cbd.recipes.starts import MIXED, STARTS
from cbd.report import results
from cbd.report.findings.convergence import by_start
from cbd.report.findings.shared import chance, main_metrics
from cbd.report.names import RANDOM, SOURCE, loss_on

NEEDS = {"chain", "convergence"}
CLEAR = 2  # standard errors above guessing
LOSS = "loss on its own text"


def possible(scale: Scale) -> bool:
    """Whether the scale's tables say what its trained models can do."""
    there = set(results.names(scale.name))
    return there >= NEEDS and bool(main_metrics(results.read_table(scale.name, "convergence")))


def write(scale: Scale) -> Path:
    """Writes results/<scale>/CARD.md and returns its path."""
    return write_text(results.results_folder(scale.name) / "CARD.md", page(scale))


def page(scale: Scale) -> str:
    """The card, in Markdown: of the smallest size after the largest budget, by the start that was best."""
    table, chain = (results.read_table(scale.name, name) for name in ("convergence", "chain"))
    runs = by_start(table)
    runs = runs[(runs["parameters"] == runs["parameters"].min()) & runs["method"].isin(_known())]
    runs = runs[runs["budget"] == runs["budget"].max()].sort_values("loss")
    best = runs.iloc[0]
    ends = table[(table["spec"] == best.spec) & (table["tokens"] == best.budget)]
    ends = ends[ends["budget"] == best.budget]
    models = {"this model": _measured(ends[ends["method"] == best.method])}
    models[f"{best.spec}, random weights trained as long"] = _measured(ends[ends["method"] == RANDOM])
    end = chain.assign(metric=chain["metric"].replace({"loss": "curve", "final_loss": "loss"}))
    models["its source"] = _measured(end[end["method"] == SOURCE])
    seeds = table["seed"].nunique()
    lead = (
        f"{best.spec}, {best.parameters:,.0f} parameters. It begins as *{best.method}*, the best of "
        f"{len(runs)} starts after {best.budget:,.0f} tokens of training, and descends from the chain of "
        f"{scale.source.name if isinstance(scale.source, Source) else 'a source trained here'}. Numbers are "
        + ("of one seed." if seeds == 1 else f"means over {seeds} seeds.")
    )
    parts = [
        f"# What {si(best.parameters)} parameters can do",
        f"Written by `cbd figures --scale {scale.name}`.",
    ]
    parts += [lead, _numbers(models, chain), _said(models["this model"], chain), "## What it cost"]
    parts += [_cost(scale, best), "## How it is made", _commands(scale, best)]
    return "\n\n".join(parts) + "\n"


def _known() -> dict[str, str]:
    """Method -> what `cbd init --start` calls it."""
    alone = {s.label: key for key, s in STARTS.items() if s.alone and s.label != RANDOM}
    return alone | {STARTS["union"].label: MIXED}


def _measured(rows: pd.DataFrame) -> pd.DataFrame:
    """Value and standard error by metric, means over seeds."""
    return rows.groupby("metric", sort=False)[["value", "stderr"]].mean()


def _numbers(models: dict[str, pd.DataFrame], chain: pd.DataFrame) -> str:
    """A row a text and task, a column a model, and what guessing gets."""
    first = next(iter(models.values()))
    texts = [metric for metric in first.index if metric == "loss" or metric.startswith(loss_on(""))]
    lines = [f"| | {' | '.join(models)} | guessing |", "|---" * (len(models) + 2) + "|"]
    for metric in (*texts, *_tasks(first)):
        name = f"{LOSS if metric == 'loss' else metric}, nats per token" if metric in texts else metric
        cells = [_cell(found, metric) for found in models.values()]
        guessed = chance(chain, metric)
        lines.append(f"| {name} | {' | '.join(cells)} | {'' if math.isnan(guessed) else f'{guessed:.3f}'} |")
    return "\n".join(lines)


def _tasks(found: pd.DataFrame) -> list[str]:
    return main_metrics(found.reset_index())


def _cell(found: pd.DataFrame, metric: str) -> str:
    if metric not in found.index:
        return ""
    value, error = found.loc[metric]
    return f"{value:.3f}" + ("" if math.isnan(error) else f" ± {error:.3f}")


def _said(found: pd.DataFrame, chain: pd.DataFrame) -> str:
    """Which tasks it does better than guessing."""
    clear = {}
    for task in _tasks(found):
        value, error = found.loc[task]
        clear[task.split("/")[0]] = value - chance(chain, task) > CLEAR * error
    can = ", ".join(task for task, better in clear.items() if better) or "none"
    cannot = ", ".join(task for task, better in clear.items() if not better) or "none"
    return (
        f"±: standard error over the items of a task and the rows of a text. More than {CLEAR} of them above "
        f"guessing: {can}. Not so: {cannot}. The source's licence applies."
    )


def _cost(scale: Scale, best: pd.Series) -> str:
    seed = 0
    spec = next(s for s in scale.convergence_targets if s.name == best.spec)
    start = starts(scale, seed, spec)[best.method]
    chain = costs.flops([start], given(scale, seed))
    own = best.budget * spec.training_flops(scale.recovery.context)
    return (
        f"{own:.1e} FLOPs for its own {best.budget:,.0f} tokens; {chain:.1e} for the chain, which all its "
        f"sizes share: {len(scale.anchors)} anchors of {scale.anchor_training.tokens:,} tokens each. The "
        "text and the search for a rate are not counted."
    )


def _commands(scale: Scale, best: pd.Series) -> str:
    """The user's own way, with this scale's numbers."""
    anchors = ",".join(spec.name for spec in scale.anchor_specs)
    layers, width = best.spec.split("x")
    start, training = _known()[best.method], scale.anchor_training
    how = f"--corpus texts --context {training.context} --batch {training.batch}"
    lines = [
        f"cbd chain --source my-model --anchors {anchors} --tokens {training.tokens} {how} --out chain",
        f"cbd init --chain chain --layers {layers} --width {width} --start {start} --out slm",
        f"cbd recover slm --tokens {best.budget:.0f} {how} --out slm-tuned",
    ]
    told = "From a folder of text of your own; `cbd.realize` of the scale's recipes makes this very model."
    return f"{told}\n\n```\n" + "\n".join(lines) + "\n```"

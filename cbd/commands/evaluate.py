"""`cbd eval`: the scores of a user's own checkpoint on downstream tasks, as a table and as JSON."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from cbd.errors import require
from cbd.experiments.scales.base import Evaluation
from cbd.realize import realize
from cbd.recipes.evaluation import FROM_ITEMS, FROM_PAIRS, LOCAL


def evaluate_checkpoint(
    checkpoint: str | Path,
    tasks: Sequence[str],
    dial: Evaluation,
    shots: int = 0,
    limit: int | None = None,
    out: str | Path | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> Mapping[str, dict]:
    """Task -> metric -> value, stderr, items and chance, of any Hugging Face checkpoint folder.

    dial: whose items and pairs our own tasks read; they are made if they are missing. out: a JSON file for
    the scores with those of every single item. precision: of the weights on a CPU. Raises `CbdError`, before
    any work, for a folder that is no checkpoint, an unknown task, or a place that cannot be written.
    """
    folder = Path(checkpoint)
    config = folder / "config.json"
    require(config.is_file(), f"{folder} holds no config.json: name the folder of a Hugging Face checkpoint")
    possible = shots >= 0 and (limit is None or limit >= 1)
    require(possible, f"shots {shots} must not be negative and the limit {limit} at least 1")
    if out is not None:
        place = Path(out).absolute()
        require(place.parent.is_dir(), f"there is no folder {place.parent} to write {place.name} into")
    from cbd.evaluation import benchmark  # torch and lm-eval: only when there is something to score

    benchmark.check_known(tasks)
    scores = benchmark.evaluate(folder, tasks, _data(tasks, dial), shots, limit, precision)
    found = {task: score.summary() for task, score in scores.items()}
    if out is not None:
        items = {task: score.items for task, score in scores.items()}
        content = {"checkpoint": str(checkpoint), "shots": shots, "scores": found, "items": items}
        place.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    return found


def _data(tasks: Sequence[str], dial: Evaluation) -> dict[str, Path]:
    """The folders behind our own tasks, made if they are missing."""
    data = {}
    for name, needed, recipe in (("items", FROM_ITEMS, dial.items), ("pairs", FROM_PAIRS, dial.pairs)):
        if not set(tasks) & set(needed):
            continue
        ours = ", ".join(set(tasks) & set(LOCAL))
        require(recipe, f"this scale makes no {name} for {ours}: take --scale laptop, or --corpus")
        data[name] = realize(recipe)
    return data


def lines(scores: Mapping[str, dict]) -> Iterator[str]:
    """A table for the terminal: a line a task and metric, its standard error and what guessing gets.

    Then what was asked otherwise than the hub's data would have it.
    """
    from cbd.evaluation.packaged import notes  # lm-eval

    yield f"{'task':<20}{'metric':<12}{'value':>10}{'stderr':>10}{'chance':>10}{'items':>8}"
    for task, metrics in scores.items():
        for metric, found in metrics.items():
            if metric == "option_frequency":
                shares = " ".join(f"{share:.2f}" for share in found)
                yield f"{task:<20}options picked: {shares} (no preference: {1 / len(found):.2f})"
                continue
            numbers = (found["value"], found["stderr"], found.get("chance", math.nan))
            shown = "".join(f"{'' if math.isnan(x) else f'{x:.4f}':>10}" for x in numbers)
            yield f"{task:<20}{metric:<12}{shown}{found['items']:>8}"
    yield from notes(scores)

"""What the figures of tasks share: their order, names and units, and how markers are filled."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex, to_rgb

from cbd.errors import CbdError
from cbd.report.figures.drawing import LOSS, pick
from cbd.report.findings.shared import main_metrics

SCORES = {"acc_norm": "acc_norm", "acc": "accuracy", "rougeL": "Rouge-L"}
CHANCE = {"color": "0.55", "linewidth": 1, "linestyle": (0, (1, 2.2))}


def with_tasks(table: pd.DataFrame, experiment: str) -> list[str]:
    """The loss, the first task scored by likelihood, the first that generates, then the rest, by metric."""
    pick(table, "loss")
    tasks = main_metrics(table)
    if not tasks:
        raise missing("score of a task", experiment)
    first = [metric for metric in tasks if not is_generative(metric)][:1]
    first += [metric for metric in tasks if is_generative(metric)][:1]
    return ["loss", *first, *(metric for metric in tasks if metric not in first)]


def missing(what: str, experiment: str) -> CbdError:
    """The error for a table that lacks what a figure draws."""
    return CbdError(f"the table has no {what}, which this figure draws; run `cbd run {experiment}`")


def in_percent(table: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """The rows of some metrics, the scores of tasks times 100."""
    rows = table[table["metric"].isin(metrics)]
    return rows.assign(value=rows["value"].astype(float) * np.where(rows["metric"] == "loss", 1, 100))


def is_generative(metric: str) -> bool:
    """Whether the task is to write text."""
    return metric.endswith("/rougeL")


def task_of(metric: str) -> str:
    """The task of a metric: "cbd_reply" of "cbd_reply/rougeL"."""
    return metric.split("/")[0]


def score_of(metric: str) -> str:
    """What is scored, in words: "Rouge-L" of "cbd_reply/rougeL"."""
    return SCORES[metric.split("/")[-1]]


def short(styles: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same looks under the names of a legend."""
    return {without_owner(method): style for method, style in styles.items()}


def without_owner(method: str) -> str:
    """A method's name without the hub's owner of its source."""
    return re.sub(r": [^/]*/", ": ", method)


def unit_of(metric: str) -> str:
    """What an axis of this metric is called."""
    return LOSS if metric == "loss" else f"{score_of(metric)} (%)"


def filled(style: dict[str, Any], share: float) -> dict[str, Any]:
    """How a marker is filled: with its colour (1), with white (0), or with a tint between."""
    face = to_hex([1 - share * (1 - part) for part in to_rgb(style["color"])])
    return {
        "markerfacecolor": face,
        "markeredgecolor": style["color"],
        "markeredgewidth": 1.2,
        "markersize": 6,
    }

"""What the figures of tasks share: their names and units."""

import pandas as pd

from cbd.errors import require
from cbd.report.findings.shared import main_metrics

SCORES = {"acc_norm": "acc_norm", "acc": "accuracy", "rougeL": "Rouge-L"}


def tasks_of(table: pd.DataFrame, experiment: str) -> dict[str, tuple[str, str]]:
    """The metric of each task -> the task and what is scored: "cbd_reply", "Rouge-L" for "cbd_reply/rougeL".

    Raises `CbdError` when there is none.
    """
    found = [(metric, *metric.split("/")) for metric in main_metrics(table)]
    require(found, f"the table has no score of a task; make it with `cbd run {experiment}`")
    return {metric: (task, SCORES[score]) for metric, task, score in found}

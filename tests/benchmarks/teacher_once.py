"""A step of distillation that reads the teacher's states from disk, beside one that asks it, and a plain one.

    python tests/benchmarks/teacher_once.py      # results/bench/teacher_once.json and a table

Whole optimiser steps of the project's own loop, of random weights: the first step of SmolLM2-135M's chain,
20x576 from 30x576 under bf16 autocast, and a step of the laptop's. All variants live in one process and take
a step in turn, so that whatever else the computer does falls on all alike; the ratio is the median of the
rounds' ratios. The losses are compared, too: those of `read` and `live` must be equal to the bit.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from _common import surroundings, table, write

from cbd.experiments.scales import SCALES
from cbd.realize import store
from cbd.realize.run import realize
from cbd.recipes.models import Random
from cbd.recipes.specs import ModelSpec
from cbd.recipes.training import Training
from cbd.training.lessons import DistilledLesson, PlainLesson
from cbd.training.loop import Run
from cbd.training.states import BLOCK

ROUNDS = BLOCK - 1  # one more, before, warms up
TEXT = SCALES["laptop"].corpus
PAIRS = {name: SCALES[name] for name in ("laptop", "smollm")}


def main() -> None:
    torch.set_num_threads(1)
    rows = [row for name, scale in PAIRS.items() for row in measure(name, scale)]
    write("teacher_once", {"rows": rows, "rounds": ROUNDS, "threads": 1, **surroundings()})
    table(rows)


def measure(name: str, scale) -> list[dict]:
    """A row a variant."""
    teacher, student = (scale.source_spec, *scale.anchor_specs)[:2]
    training = replace(scale.anchor_training, tokens=100_000_000, evaluation_tokens=1024)
    with tempfile.TemporaryDirectory() as place:
        runs = variants(student, teacher, training, scale.loss, Path(place))
        times: dict[str, list[float]] = {variant: [] for variant in runs}
        losses: dict[str, list[float]] = {variant: [] for variant in runs}
        for _ in range(ROUNDS + 1):
            for variant, run in runs.items():
                began = time.perf_counter()
                losses[variant].append(float(run.optimise()["loss"]))
                times[variant].append(time.perf_counter() - began)
                run.progress.step += 1
    assert losses["read"] == losses["live"], "a run that reads states is the one that computes them"
    assert runs["read"].feed.states.computed == 0
    tokens = training.batch * training.context
    return [
        {
            "scale": name,
            "student": student.name,
            "teacher": teacher.name,
            "variant": variant,
            "tokens_per_second": round(tokens / statistics.median(took[1:]), 1),
            "times_plain": round(statistics.median(map(float.__truediv__, took[1:], times["plain"][1:])), 3),
            "bytes_per_token": 4 * teacher.width if variant == "read" else 0,
        }
        for variant, took in times.items()
    ]


def variants(student: ModelSpec, teacher: ModelSpec, training: Training, loss, place: Path) -> dict[str, Run]:
    """Three runs from the same weights on the same batches, the states of one of them on disk."""
    start, guide = (realize(Random(spec, TEXT)) for spec in (student, teacher))
    corpus = store.folder(TEXT)
    lessons = {
        "plain": PlainLesson(corpus),
        "live": DistilledLesson(corpus, guide, loss),
        "read": DistilledLesson(corpus, guide, loss, states=place),
    }
    filling = Run(start, lessons["read"], training, 1e-3)
    for step in range(BLOCK):
        filling.feed.parts(training, training.skip + step)
    return {name: Run(start, lesson, training, 1e-4) for name, lesson in lessons.items()}


if __name__ == "__main__":
    main()

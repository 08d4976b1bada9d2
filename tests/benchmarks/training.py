"""Training throughput at laptop shapes: tokens/s and model-FLOPs utilisation of plain training and of
distillation.

Utilisation is (FLOPs that the model's matrices need) / seconds / (sgemm peak of this machine, measured
between the runs, with as many threads). Whole optimiser steps of the project's own loop are timed: batch,
forward, loss, backward, clipping, AdamW. Run with `make bench`; the result is results/bench/training.json.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

import torch
from _common import surroundings, table, write

from cbd.experiments.scales import SCALES
from cbd.realize import store
from cbd.realize.run import realize
from cbd.recipes.models import Random
from cbd.training.lessons import DistilledLesson, PlainLesson
from cbd.training.loop import Run

STEPS, REPEATS = 12, 5
SCALE = SCALES["laptop"]
SOURCE, *ANCHORS = SCALE.source_spec, *SCALE.anchor_specs
STEPS_OF_CHAIN = zip(ANCHORS, [SOURCE, *ANCHORS], strict=False)
PAIRS = [(SOURCE, None), (SCALE.ladder[-2], None), *STEPS_OF_CHAIN]


def main() -> None:
    rows = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for student, teacher in PAIRS:
            rows.append(measure(student, teacher, threads))
    write("training", {"rows": rows, "steps": STEPS, "repeats": REPEATS, **surroundings()})
    table(rows)


def measure(student, teacher, threads: int) -> dict:
    """Median over repeats, the sgemm peak taken before each."""
    run = prepare(student, teacher)
    per_token = student.training_flops(run.training.context)
    per_token += teacher.forward_flops(run.training.context) if teacher else 0
    tokens = STEPS * run.training.batch * run.training.context
    advance(run)  # warm-up
    rates, shares = [], []
    for _ in range(REPEATS):
        peak = sgemm_peak()
        began = time.perf_counter()
        advance(run)
        rates.append(tokens / (time.perf_counter() - began))
        shares.append(rates[-1] * per_token / peak)
    return {
        "student": student.name,
        "teacher": teacher.name if teacher else None,
        "threads": threads,
        "tokens_per_second": round(statistics.median(rates), 1),
        "utilisation": round(statistics.median(shares), 4),
        "utilisation_range": [round(min(shares), 4), round(max(shares), 4)],
    }


def prepare(student, teacher) -> Run:
    """The project's own run on the laptop corpus, from random weights."""
    start = realize(Random(student, SCALE.corpus))
    training = replace(SCALE.recovery, tokens=10_000_000)
    lesson = PlainLesson(store.folder(SCALE.corpus))
    if teacher:
        lesson = DistilledLesson(lesson.corpus, realize(Random(teacher, SCALE.corpus)), SCALE.loss)
    return Run(start, lesson, training, 1e-3)


def advance(run: Run) -> None:
    for _ in range(STEPS):
        run.optimise()
        run.progress.step += 1


def sgemm_peak(n: int = 2048, repeats: int = 3) -> float:
    """FLOP/s of an fp32 matrix product of n x n matrices: the best of a few."""
    a, b, out = torch.randn(n, n), torch.randn(n, n), torch.empty(n, n)
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        torch.mm(a, b, out=out)
        times.append(time.perf_counter() - began)
    return 2 * n**3 / min(times)


if __name__ == "__main__":
    main()

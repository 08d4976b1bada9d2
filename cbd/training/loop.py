"""The one training loop: plain or distilled, on accelerate, resumable to the bit.

The batch of a step is a pure function of (corpus, seed, step), there is no dropout, and the state (weights,
AdamW's moments, step, curve) is written as safetensors and JSON: a killed run goes on with the same numbers.
"""

import contextlib
import json
import math
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from cbd.data import progress
from cbd.errors import Diverged, require
from cbd.evaluation.held_out import evaluate
from cbd.files import replacing
from cbd.models.checkpoints import Checkpoint, write
from cbd.models.forward import load
from cbd.recipes.training import Training
from cbd.training.lessons import Lesson
from cbd.training.losses import Sums

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def lr_factor(step: int, training: Training) -> float:
    """The share of the peak learning rate at `step` (from 0): warm-up, then cosine or constant and decay."""
    steps = training.steps
    share = training.warmup
    if training.warmup_tokens is not None:
        share = training.warmup_tokens / (steps * training.batch * training.context)
    warm = max(1, min(round(share * steps), steps))
    if step < warm:
        return (step + 1) / warm
    if training.schedule == "cosine":
        progress = (step - warm) / max(1, steps - warm)
        return training.final + (1 - training.final) * 0.5 * (1 + math.cos(math.pi * progress))
    tail = max(1, round(training.decay * steps))
    left = min(1.0, (steps - step) / tail)
    return training.final + (1 - training.final) * left


@dataclass
class Progress:
    """Where a run is: what its state on disk holds beside the weights and moments."""

    step: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    steps: list[dict[str, float]] = field(default_factory=list)


def accelerator(training: Training) -> Accelerator:
    """What runs the training in its precision, whatever that of the process' earlier runs was.

    accelerate keeps a process to its first one, and has only this private way to forget it.
    """
    precision = "bf16" if training.precision == "bf16" else "no"
    if AcceleratorState._shared_state.get("_mixed_precision", precision) != precision:
        AcceleratorState._reset_state()
    return Accelerator(mixed_precision=precision)


class Run:
    """One training run in flight."""

    def __init__(self, start: Path, lesson: Lesson, training: Training, lr: float):
        self.training, self.lr, self.progress = training, lr, Progress()
        self.accelerator = accelerator(training)
        count, parts = self.accelerator.num_processes, training.accumulation
        wrong = f"batch {training.batch} does not divide into {count} processes x {parts} micro-batches"
        require(training.batch % (count * parts) == 0, f"{wrong}; change --batch or the number of processes")
        student = load(start)
        objective, self.feed = lesson.prepare(student, start, training, self.accelerator.device)
        matrices = [p for p in student.parameters() if p.ndim >= 2]
        vectors = [p for p in student.parameters() if p.ndim < 2]
        groups = [
            {"params": matrices, "weight_decay": training.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=lr, betas=training.betas, fused=True)
        self.objective, prepared = self.accelerator.prepare(objective, optimizer)
        self.optimizer = prepared.optimizer
        self.held_out = self.feed.held_out(training)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is trained; with several processes in the model's order, by which FSDP's clipping knows it."""
        if self.accelerator.num_processes > 1:
            return list(self.objective.parameters())
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def optimise(self) -> dict[str, Tensor]:
        """One optimiser step on the step's batch; returns sums over this process's tokens."""
        step, training = self.progress.step, self.training
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * lr_factor(step, training)
        sums, trained = self._accumulate(self.feed.parts(training, training.skip + step))
        norm = self.accelerator.clip_grad_norm_(self.parameters, training.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        total, cross_entropy, divergence = self.accelerator.reduce(sums, reduction="sum") / trained
        return {
            "loss": total,
            "cross_entropy": cross_entropy,
            "divergence": divergence,
            "gradient_norm": norm,
        }

    def _accumulate(self, arrays: dict[str, np.ndarray]) -> tuple[Tensor, int]:
        """Gradients of the step's mean loss, whatever the number of processes and micro-batches.

        The denominator is the number of tokens trained on in the whole step; DDP and FSDP average over
        processes, so that each multiplies by their number.
        """
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        device = self.accelerator.device
        trained = int((arrays["labels"] >= 0).sum())  # counted where it costs no wait for the device
        mine = {name: torch.from_numpy(a).to(device).chunk(world)[rank] for name, a in arrays.items()}
        pieces = self.training.accumulation
        sums = torch.zeros(3, device=device)
        for i in range(pieces):
            part = {name: tensor.chunk(pieces)[i] for name, tensor in mine.items()}
            last = i == pieces - 1
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.objective):
                result: Sums = self.objective(**part)
                self.accelerator.backward(result.total * (world / trained))
            sums += torch.stack([result.total.detach(), result.cross_entropy, result.divergence])
        return sums, trained

    def measure(self) -> None:
        """One point of the validation curve."""
        point = evaluate(self.objective, self.held_out, self.accelerator.device)
        self.check_finite("validation loss", point["loss"])
        tokens = self.progress.step * self.training.batch * self.training.context
        self.progress.curve.append({"step": self.progress.step, "trained": tokens} | point)

    def check_finite(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            remedy = f"training diverged; lower the learning rate ({self.lr:g})"
            raise Diverged(f"the {name} is {value} at step {self.progress.step}: {remedy}")


def train(
    start: Path, lesson: Lesson, training: Training, lr: float, out: Path, state: Path, title: str = "train"
) -> dict:
    """Train the checkpoint in `start` and write the result into the folder `out`.

    state: a folder in which the run keeps what it goes on from when it was killed. title: of its progress.
    Returns what was measured. Raises `CbdError` when teacher and student share no vocabulary, and `Diverged`
    when the loss is no longer finite.
    """
    run = Run(start, lesson, training, lr)
    _restore(run, state)
    began, saved = time.monotonic() - run.progress.seconds, time.monotonic()
    every = float(os.environ.get("CBD_CHECKPOINT_SECONDS", "60"))
    evaluated = set(training.evaluated_steps)
    if run.progress.step == 0 and not run.progress.curve:
        run.measure()
    shown = {"initial": run.progress.step, "total": training.steps, "unit": " steps"}
    steps = progress.bar(range(run.progress.step, training.steps), title, **shown)
    for step in steps:
        values = {name: float(value) for name, value in run.optimise().items()}
        run.progress.step = step + 1
        run.check_finite("loss", values["loss"])
        run.progress.steps.append({"step": run.progress.step} | values)
        steps.set_postfix_str(f"loss {values['loss']:.3f}", refresh=False)
        if run.progress.step in evaluated:
            run.measure()
        if _agree(run, time.monotonic() - saved >= every) and run.progress.step < training.steps:
            run.progress.seconds = time.monotonic() - began
            _save(run, state)
            saved = time.monotonic()
    _finish(run, start, out)
    seconds = time.monotonic() - began
    states = getattr(run.feed, "states", None)  # kept for several runs: those read cost no time of a teacher
    read = {} if states is None else {"states_read": states.read}
    return {
        "seconds": seconds,
        "tokens_per_second": run.progress.step * training.batch * training.context / seconds,
        "final_loss": run.progress.curve[-1]["loss"],
        "lr": lr,
        "processes": run.accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "device": str(run.accelerator.device),
        **read,
    }


def _agree(run: Run, due: bool) -> bool:
    """Whether the main process finds a checkpoint due: all processes must take part in one."""
    if run.accelerator.num_processes == 1:
        return due
    flag = torch.tensor([float(due and run.accelerator.is_main_process)], device=run.accelerator.device)
    return bool(run.accelerator.reduce(flag, reduction="sum").item())


def _save(run: Run, state: Path) -> None:
    """Write the run's state beside the last one, then replace it by one rename."""
    model, optimizer = get_state_dict(run.objective, run.optimizer, options=WHOLE)
    if not run.accelerator.is_main_process:
        return
    moments = {f"{name}/{kind}": t for name, kinds in optimizer["state"].items() for kind, t in kinds.items()}
    final = state / f"step-{run.progress.step:09d}"
    with replacing(final) as fresh:
        fresh.mkdir()
        parts = {"model": model, "optimizer": moments}
        if kept := getattr(run.feed, "kept", None):  # drawn from weights that are no more
            parts["feed"] = kept
        for name, tensors in parts.items():
            copies = {key: tensor.contiguous().clone() for key, tensor in tensors.items()}
            save_file(copies, fresh / f"{name}.safetensors")
        (fresh / "progress.json").write_text(json.dumps(vars(run.progress)))
    for old in state.iterdir():  # what a killed process was writing, too
        if old != final:
            shutil.rmtree(old, ignore_errors=True)


def _restore(run: Run, state: Path) -> None:
    """Go on from the newest state, if there is one."""
    saved = sorted(state.glob("step-*"))
    if not saved:
        return
    model = load_file(saved[-1] / "model.safetensors")
    moments: dict[str, dict[str, Tensor]] = {}
    for name, tensor in load_file(saved[-1] / "optimizer.safetensors").items():
        parameter, kind = name.rsplit("/", 1)
        moments.setdefault(parameter, {})[kind] = tensor
    # for its groups alone; with WHOLE only the first process would get them
    _, optimizer = get_state_dict(run.objective, run.optimizer)
    optimizer["state"] = moments
    set_state_dict(
        run.objective, run.optimizer, model_state_dict=model, optim_state_dict=optimizer, options=WHOLE
    )
    if (kept := saved[-1] / "feed.safetensors").exists():
        run.feed.kept.update(load_file(kept))
    run.progress = Progress(**json.loads((saved[-1] / "progress.json").read_text()))


def _finish(run: Run, start: Path, out: Path) -> None:
    """Write the trained checkpoint with its curves."""
    model, _ = get_state_dict(run.objective, run.optimizer, options=WHOLE)
    if not run.accelerator.is_main_process:
        return
    source = Checkpoint(start)
    tensors = {
        name: model[f"student.{source.family.parameter(name)}"].to(torch.float32)
        for _, _, name in source.family.tensors(source.spec)
    }
    write(out, source.config | {"dtype": "float32"}, tensors, tokenizer=start)
    (out / "curve.json").write_text(json.dumps(run.progress.curve))
    (out / "steps.json").write_text(json.dumps(run.progress.steps))

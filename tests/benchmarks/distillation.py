"""Distillation at two vocabularies: our chunked loss beside TRL's, the same models, batch and optimiser.

    python tests/benchmarks/distillation.py                      # results/bench/distillation.json and a table
    python tests/benchmarks/distillation.py --pairs smollm2 --threads 1 --repeats 3

The pairs of teacher and student: a small GPT-2 in fp32, and the first step of SmolLM2-135M's chain, 20x576
from 30x576, under bf16 autocast; all with random weights. A step is what training does: teacher forward,
student forward, reverse KL, backward, AdamW. `cbd` takes the bodies' hidden states and `losses.chunked`.
`trl` does what `GKDTrainer.compute_loss` (arXiv 2306.13649) does: both models' logits and
`generalized_jsd_loss` with beta 1.
`floor` is the step of `cbd` with the matrix products alone, no softmax, no divergence: no loss that computes
exact logits and gradients of every token can be faster with this library's products.

Each variant lives in a process of its own. For the times all are alive, and each takes a step in turn, so
that whatever else the computer does falls on all alike; the ratio is the median of the rounds' ratios. Memory
is the process' largest resident set, and its growth over the resident set when models and optimiser were
ready.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from _common import surroundings, write

ROOT = Path(__file__).resolve().parents[2]
VARIANTS = ("cbd", "trl", "floor")
GPT2 = {"model_type": "gpt2", "vocab_size": 50257}
SMOLLM2 = {
    "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
    "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True,
}  # fmt: skip
PAIRS = {  # teacher, student, and whether products are bf16
    "gpt2": (
        GPT2 | {"n_layer": 6, "n_embd": 512, "n_head": 8},
        GPT2 | {"n_layer": 4, "n_embd": 256, "n_head": 4},
        False,
    ),
    "smollm2": (SMOLLM2 | {"num_hidden_layers": 30}, SMOLLM2 | {"num_hidden_layers": 20}, True),
}
MIB = 1 << 20


# In a variant's process.


def build(shape: dict[str, Any], seed: int) -> Any:
    """A model of this shape with random weights and no dropout."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout"), 0.0)
    # Ten times the usual spread: two untrained models would agree on everything, and a loss of zero proves
    # nothing.
    config = AutoConfig.for_model(**shape, use_cache=False, initializer_range=0.2, **dropout)
    return AutoModelForCausalLM.from_config(config)


def chunked_loss(student: Any, teacher: Any, ids: Any) -> Any:
    """Mean reverse KL in nats per predicted token, through `cbd.training.losses.chunked`."""
    import torch

    from cbd.recipes.training import Loss
    from cbd.training.losses import chunked

    def states(model: Any) -> Any:
        return model.base_model(ids).last_hidden_state[:, :-1].flatten(0, 1)

    with torch.no_grad():
        taught = states(teacher), teacher.lm_head.weight
    labels = ids[:, 1:].flatten()
    sums = chunked(states(student), student.lm_head.weight, labels, Loss("reverse_kl", 0.0), taught)
    return sums.total / len(labels)


def trl_loss(student: Any, teacher: Any, ids: Any) -> Any:
    """The same as `GKDTrainer.compute_loss` computes it."""
    import torch
    from trl.experimental.gkd import GKDTrainer

    logits = student(input_ids=ids).logits
    with torch.no_grad():
        teacher_logits = teacher(input_ids=ids).logits
    return GKDTrainer.generalized_jsd_loss(
        student_logits=logits[:, :-1, :],
        teacher_logits=teacher_logits[:, :-1, :],
        labels=ids[:, 1:],
        beta=1.0,
        num_items_in_batch=ids[:, 1:].numel(),
    )


def loss_of(variant: str, width: int) -> Callable[[Any, Any, Any], Any]:
    """The variant's loss; imports what it needs, so that this is not measured. width: of the student."""
    if variant == "trl":
        import trl.experimental.gkd  # noqa: F401

        return trl_loss
    import torch

    from cbd.models import cpu
    from cbd.training import losses

    cpu.suit(width)
    if variant == "floor":
        # What lies between the products, and nothing else; the values are then meaningless.
        losses._in_place = lambda logits, *_: torch.ones_like(logits[0, :, :1])
    return chunked_loss


def serve(variant: str, pair: str, threads: int, batch: int, context: int) -> None:
    """Answer each line of the standard input with one training step's time, loss and memory, as a line of
    JSON.
    """
    import torch

    torch.set_num_threads(threads)
    shapes, bf16 = PAIRS[pair][:2], PAIRS[pair][2]
    teacher, student = (build(shape, seed) for seed, shape in enumerate(shapes, start=1))
    teacher.eval()
    loss_function = loss_of(variant, student.config.hidden_size)
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-5, fused=True)
    numbers = torch.Generator().manual_seed(3)
    ids = torch.randint(student.config.vocab_size, (batch, context), generator=numbers)
    before = resident()
    print(json.dumps({"before": before}), flush=True)
    for _ in sys.stdin:
        start, cpu = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = loss_function(student, teacher, ids)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        answer = {"seconds": seconds, "cpu": cpu, "loss": loss.item(), "peak": peak, "growth": peak - before}
        print(json.dumps(answer), flush=True)


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


# In the parent's.


class Child:
    """A variant's process."""

    def __init__(self, variant: str, pair: str, threads: int, options: argparse.Namespace):
        command = [sys.executable, __file__, "--serve", variant, "--pairs", pair, "--threads", str(threads)]
        command += ["--batch", str(options.batch), "--context", str(options.context)]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "TRL_EXPERIMENTAL_SILENCE": "1",
        }
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        self.before = self.read()["before"]

    def read(self) -> dict[str, float]:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(
                f"a variant's process ended with code {self.process.wait()}: see its message above"
            )
        return json.loads(line)

    def step(self) -> dict[str, float]:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.read()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def measure(pair: str, threads: int, options: argparse.Namespace) -> dict[str, Any]:
    """All variants with this number of threads: medians, and ratios against TRL."""
    children = {name: Child(name, pair, threads, options) for name in VARIANTS}
    first = {name: child.step() for name, child in children.items()}  # also warms up
    rounds = [{name: child.step() for name, child in children.items()} for _ in range(options.repeats)]
    for child in children.values():
        child.close()
    tokens = options.batch * options.context
    result: dict[str, Any] = {"pair": pair, "threads": threads}
    for name in VARIANTS:
        seconds = [answers[name]["seconds"] for answers in rounds]
        last = rounds[-1][name]
        result[name] = {
            "tokens_per_second": tokens / statistics.median(seconds),
            "seconds": seconds,
            "cpu_seconds": [answers[name]["cpu"] for answers in rounds],
            "peak_mib": last["peak"] / MIB,
            "growth_mib": last["growth"] / MIB,
            "first_loss": first[name]["loss"],
            "last_loss": last["loss"],
        }

    def faster(name: str, clock: str) -> float:
        return statistics.median(answers["trl"][clock] / answers[name][clock] for answers in rounds)

    ours, theirs = result["cbd"], result["trl"]
    result["ratios"] = {
        "speed": faster("cbd", "seconds"),
        "speed_floor": faster("floor", "seconds"),
        "cpu": faster("cbd", "cpu"),
        "peak": ours["peak_mib"] / theirs["peak_mib"],
        "growth": ours["growth_mib"] / theirs["growth_mib"],
    }
    result["loss_difference"] = max(abs(ours[key] - theirs[key]) for key in ("first_loss", "last_loss"))
    return result


def table(results: list[dict[str, Any]]) -> str:
    lines = [
        f"{'pair':<8} {'threads':>7}  {'variant':<7} {'tokens/s':>9} {'peak MiB':>9} {'growth MiB':>11}  loss"
    ]
    for result in results:
        for name in VARIANTS:
            row = result[name]
            loss = "" if name == "floor" else f"{row['first_loss']:.6f} -> {row['last_loss']:.6f}"
            lines.append(
                f"{result['pair']:<8} {result['threads']:>7}  {name:<7} {row['tokens_per_second']:>9.0f} "
                f"{row['peak_mib']:>9.0f} {row['growth_mib']:>11.0f}  {loss}"
            )
        ratios = result["ratios"]
        lines.append(
            f"         {ratios['speed']:.2f} times TRL's speed (by processor time {ratios['cpu']:.2f}, the "
            f"floor "
            f"{ratios['speed_floor']:.2f}), "
            f"{ratios['peak']:.2f} of its peak memory, {ratios['growth']:.2f} of its growth"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=7, help="steps of each variant that count")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--serve", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve, options.pairs[0], options.threads[0], options.batch, options.context)
    if importlib.util.find_spec("trl") is None:
        raise SystemExit("trl is not installed: pip install -r requirements-bench.txt")
    results = [measure(pair, threads, options) for pair in options.pairs for threads in options.threads]
    report = {
        "pairs": {pair: PAIRS[pair] for pair in options.pairs},
        "batch": options.batch,
        "context": options.context,
        "repeats": options.repeats,
        "trl": version("trl"),
        **surroundings(),
        "results": results,
    }
    write("distillation", report)
    print(table(results))


if __name__ == "__main__":
    main()

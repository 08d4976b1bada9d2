"""`cbd init` for SLM-138M between GPT2-B and GPT2-M, against reading both files whole and writing one.

    python tests/benchmarks/init.py              # results/bench/init.json and a table
    python tests/benchmarks/init.py --repeats 3 --folder /tmp/anchors    # keeps the anchors for the next time

The anchors have the published shapes, 124M and 355M parameters in fp32, and random weights. `cbd` is the
command itself, hashes of both anchors, card and all; `floor` copies every tensor of both files into memory
and writes a file of the target's size, with safetensors. Each is a process of its own from start to end,
imports included, with the files in the page cache; they take turns, so that whatever else the computer does
falls on both alike, and the ratio is the median of the rounds' ratios. Memory is sampled: `anonymous` is what
the process holds itself, `resident` has the pages of the files that it maps as well, which the system takes
back when it needs them.

Where mergekit is installed its `linear` merge of two equal shapes must agree with ours within 3e-8.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from _common import surroundings, table, write

from cbd.recipes.specs import NAMED, ModelSpec, gpt2

GPT2_B, GPT2_M, SLM_138M = (NAMED[name] for name in ("GPT2-B", "GPT2-M", "SLM-138M"))
ROOT = Path(__file__).resolve().parents[2]
AIM = 1.5
TOLERANCE = 3e-8
MIB = 1 << 20

FLOOR = """
import sys, torch
from safetensors import safe_open
from safetensors.torch import save_file
from cbd.models.families import FAMILIES
from cbd.recipes.specs import NAMED
small, large, out = sys.argv[1:]
SLM_138M = NAMED["SLM-138M"]
torch.set_num_threads(1)
for path in (small, large):
    with safe_open(path, framework="pt") as file:
        for name in file.keys():
            file.get_tensor(name).clone()
sizes = {**vars(SLM_138M), "stream": SLM_138M.width, "heads": SLM_138M.width}
tensors = FAMILIES["gpt2"].tensors(SLM_138M)
shapes = {n: [sizes[a.unit] * a.repeat for a in role.axes] for role, _, n in tensors}
save_file({name: torch.ones(shape) for name, shape in shapes.items()}, out)
"""


def make_anchor(folder: Path, spec: ModelSpec, seed: int) -> Path:
    """A checkpoint with random weights of a trained model's size, if it is not there yet."""
    if (folder / "config.json").exists():
        return folder
    import torch

    from cbd.models import checkpoints
    from cbd.models.families import FAMILIES

    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    sizes = {**vars(spec), "stream": spec.width, "heads": spec.width}
    tensors = {}
    for role, _, name in FAMILIES["gpt2"].tensors(spec):
        shape = [sizes[axis.unit] * axis.repeat for axis in role.axes]
        noise = torch.randn(shape, generator=generator).mul_(0.02)
        tensors[name] = noise.add_(1) if role.kind == "gain" else noise
    checkpoints.write(folder, FAMILIES["gpt2"].config(spec) | {"dtype": "float32"}, tensors)
    return folder


def measured(command: list[str]) -> dict[str, float]:
    """Seconds, processor seconds of all threads, and the largest memory of a process from start to end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    peaks = {"anonymous_mib": 0.0, "resident_mib": 0.0}
    sampler = threading.Thread(target=sample, args=(process.pid, peaks))
    sampler.start()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    sampler.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command[:4])} ... ended with code {process.returncode}: see above")
    return {"seconds": seconds, "processor_seconds": used.ru_utime + used.ru_stime} | peaks


def sample(pid: int, peaks: dict[str, float]) -> None:
    """Follow a process' memory until it ends."""
    fields = {"RssAnon": "anonymous_mib", "VmRSS": "resident_mib"}
    while True:
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            return
        found = dict(line.split(":", 1) for line in lines)
        if "VmRSS" not in found:  # a zombie has no memory
            return
        for field, name in fields.items():
            peaks[name] = max(peaks[name], int(found[field].split()[0]) / 1024)
        time.sleep(0.01)


def times(small: Path, large: Path, folder: Path, repeats: int) -> dict[str, list[dict[str, float]]]:
    """Every variant in turn, `repeats` times, after a round that fills the page cache."""
    out = folder / "out"
    line = [
        f"--small={small}",
        f"--large={large}",
        f"--layers={SLM_138M.layers}",
        f"--width={SLM_138M.width}",
        "--unaligned",  # these stand-ins were never trained
    ]
    weights = [str(anchor / "model.safetensors") for anchor in (small, large)]
    commands = {
        "cbd": [sys.executable, "-m", "cbd.cli", "init", *line, f"--out={out}"],
        "floor": [sys.executable, "-c", FLOOR, *weights, str(out)],
    }
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for i in range(repeats + 1):
        for name, command in commands.items():
            result = measured(command)
            shutil.rmtree(out) if out.is_dir() else out.unlink()
            if i:
                rounds[name].append(result)
    return rounds


def merge_difference(folder: Path, alpha: float) -> float:
    """The largest difference from mergekit's linear merge, on two models of one shape."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge
    from safetensors.torch import load_file

    from cbd.models.interpolation import initialize

    spec = replace(gpt2(3, 128), vocab=1000, positions=64)
    anchors = [make_anchor(folder / name, spec, seed) for seed, name in enumerate(("first", "second"))]
    models = [
        {"model": str(anchor), "parameters": {"weight": weight}}
        for anchor, weight in zip(anchors, (alpha, 1 - alpha), strict=True)
    ]
    config = MergeConfiguration.model_validate(
        {"merge_method": "linear", "models": models, "dtype": "float32"}
    )
    options = MergeOptions(copy_tokenizer=False, quiet=True, write_model_card=False)
    run_merge(config, str(folder / "merged"), options)
    ours = folder / "ours"
    ours.mkdir()
    initialize(*anchors, spec, ours, alpha)
    theirs = {k: v for path in (folder / "merged").glob("*.safetensors") for k, v in load_file(path).items()}
    found = load_file(ours / "model.safetensors")
    missing = found.keys() - theirs.keys()
    if missing:
        raise SystemExit(f"mergekit's merge lacks {sorted(missing)}")
    return max((theirs[name] - tensor).abs().max().item() for name, tensor in found.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count")
    parser.add_argument(
        "--folder", type=Path, help="where the anchors are made and kept (default: temporary)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        small = make_anchor(folder / "GPT2-B", GPT2_B, 0)
        large = make_anchor(folder / "GPT2-M", GPT2_M, 1)
        rounds = times(small, large, Path(scratch), options.repeats)
        report = {"small": GPT2_B.name, "large": GPT2_M.name, "target": SLM_138M.name, "rounds": rounds}
        report["target_mib"] = SLM_138M.parameters * 4 / MIB
        report["medians"] = {
            name: {key: statistics.median(r[key] for r in results) for key in results[0]}
            for name, results in rounds.items()
        }
        pairs = zip(rounds["cbd"], rounds["floor"], strict=True)
        report["ratio"] = statistics.median(ours["seconds"] / floor["seconds"] for ours, floor in pairs)
        report["aim"] = AIM
        report["processor_ratio"] = statistics.median(
            ours["processor_seconds"] / floor["processor_seconds"]
            for ours, floor in zip(rounds["cbd"], rounds["floor"], strict=True)
        )
        if importlib.util.find_spec("mergekit"):
            difference = merge_difference(Path(scratch), alpha=0.9385)
            report["mergekit"] = {"version": version("mergekit"), "difference": difference}
        else:
            print(
                "mergekit is not installed, so nothing is compared: "
                "pip install --no-deps -r requirements-bench.txt"
            )
    print(write("init", report | surroundings()))
    table(
        [
            {"variant": name} | {k: round(v, 2) for k, v in row.items()}
            for name, row in report["medians"].items()
        ]
    )
    print(
        f"cbd init takes {report['ratio']:.2f} times as long as the floor (aim: {AIM}), and "
        f"{report['processor_ratio']:.2f} times its processor time"
    )
    if "mergekit" in report:
        print(f"largest difference from mergekit's linear merge: {difference:.1e} (at most {TOLERANCE:.0e})")
        if difference > TOLERANCE:
            raise SystemExit("error: the merges differ")


if __name__ == "__main__":
    main()

"""How fast every size of the real LLM's chain reads and writes on this CPU: what its user pays for a token.

    python tests/benchmarks/sizes.py        # results/bench/sizes.json and a table

Weights do not matter for time: each shape is drawn at random, and run by plain transformers in bf16. Reading:
a batch of texts, tokens a second. Writing: one text, greedily, with the key-value cache.
"""

from __future__ import annotations

import statistics
import time

import torch
from _common import surroundings, table, write
from transformers import AutoConfig, AutoModelForCausalLM

from cbd.experiments.scales import SCALES
from cbd.experiments.starts import chain
from cbd.models import cpu
from cbd.models.families import family_of
from cbd.recipes.specs import ModelSpec

SCALE = SCALES["smollm"]
READ, WRITTEN, PROMPT, REPEATS, THREADS = (8, 256), 32, 16, 5, 2
NEVER = 49_151  # a token that hardly any text holds, as its end


def main() -> None:
    torch.set_num_threads(THREADS)
    shapes = {model.spec for model in chain(SCALE, 0).models} | set(SCALE.ladder)
    rows = [measured(spec) for spec in sorted(shapes, key=lambda spec: spec.parameters)]
    about = {"threads": THREADS, "read": READ, "prompt": PROMPT, "written": WRITTEN, "precision": "bf16"}
    write("sizes", about | {"rows": rows, **surroundings()})
    table(rows)


def measured(spec: ModelSpec) -> dict:
    config = AutoConfig.for_model(**family_of(spec.family).config(spec))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    cpu.suit(spec.width)
    draw = torch.Generator().manual_seed(0)
    batch, prompt = (torch.randint(0, spec.vocab, shape, generator=draw) for shape in (READ, (1, PROMPT)))
    asked = {"max_new_tokens": WRITTEN, "min_new_tokens": WRITTEN, "do_sample": False}
    asked |= {"eos_token_id": NEVER, "pad_token_id": 0}
    ways = {
        "reads": (lambda: model.base_model(batch, use_cache=False), batch.numel()),
        "writes": (lambda: model.generate(prompt, **asked), WRITTEN),
    }
    found = {"spec": spec.name, "parameters": spec.parameters}
    for name, (work, tokens) in ways.items():
        times = []
        with torch.inference_mode():
            for _ in range(REPEATS + 1):
                began = time.perf_counter()
                work()
                times.append(time.perf_counter() - began)
        found[name] = round(tokens / statistics.median(times[1:]), 1)  # the first warms up
    return found


if __name__ == "__main__":
    main()

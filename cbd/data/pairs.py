"""Prompts and responses for supervised fine-tuning: their sources, templates and batches' text.

The paper (arXiv 2605.07783) tunes on databricks-dolly-15k; its template is not stated: ours is below.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from cbd.data.documents import documents, load_dataset, split_of
from cbd.data.items import HELD_OUT, grams_of, seen_in_training, write
from cbd.errors import require
from cbd.recipes.data import Pairs

REPLY_TEMPLATE = "{context}\nReply:"
CONTINUE_TEMPLATE = "{context}\nContinue:"
# after Stanford Alpaca's, without its preamble
DOLLY_TEMPLATE = "### Instruction:\n{instruction}\n\n{input}### Response:"
DOLLY_INPUT = "### Input:\n{context}\n\n"
SHORTEST = 3  # words of a response


def build(recipe: Pairs, out: Path) -> dict[str, int]:
    """Write `out`/<split>.jsonl with lines {"prompt", "response"}; returns how many of each split.

    A response begins with a space, which belongs to its first word. Raises `CbdError` when a split stays
    empty or the data set cannot be loaded.
    """
    found = _dolly(recipe) if recipe.kind == "dolly" else _replies(recipe)
    counts = {}
    for split, most in (("train", recipe.count), ("validation", recipe.tests), ("test", recipe.tests)):
        rows = sorted(found[split], key=lambda row: hashlib.sha256(json.dumps(row).encode()).digest())[:most]
        prose = f"prose with sentences of at most {recipe.words} words, or raise the pairs' words"
        wrong = f"no prompts with responses for the {split} split"
        require(rows, f"{wrong}: add dialogues (a line a turn) or {prose}")
        write(out / f"{split}.jsonl", ({"prompt": prompt, "response": reply} for prompt, reply in rows))
        counts[f"pairs_{split}"] = len(rows)
    return counts


def _replies(recipe: Pairs) -> dict[str, dict[tuple[str, str], str]]:
    """Split -> (prompt, response), each once -> the passage that they are cut from.

    A held-out one that shares eight words in a row with training text is left out.
    """
    found: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)
    for text in documents(recipe.corpus):
        found[split_of(text, recipe.corpus.held_out)].update(_pairs_of(text, recipe))
    seen = seen_in_training((text for split in HELD_OUT for text in found[split].values()), recipe.corpus)
    for split in HELD_OUT:
        found[split] = {p: text for p, text in found[split].items() if seen.isdisjoint(grams_of(text))}
    return found


def _pairs_of(text: str, recipe: Pairs) -> Iterator[tuple[tuple[str, str], str]]:
    """A line of a dialogue and the next, or a sentence of prose and the first words of the next."""
    dialogue = "\n" in text
    template = REPLY_TEMPLATE if dialogue else CONTINUE_TEMPLATE
    for given, following in pairwise(text.split("\n") if dialogue else re.split(r"(?<=[.!?]) ", text)):
        words = following.split()
        if not dialogue:
            words = words[: recipe.answer]
        if 1 <= len(given.split()) <= recipe.words and SHORTEST <= len(words) <= recipe.answer:
            answer = " ".join(words)
            yield (template.format(context=given), f" {answer}"), f"{given} {answer}"


def _dolly(recipe: Pairs) -> dict[str, list[tuple[str, str]]]:
    data = load_dataset(recipe.location or recipe.name)
    missing = ", ".join(sorted({"instruction", "context", "response"} - set(data.column_names)))
    require(not missing, f"{recipe.location or recipe.name} has no column {missing}")
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in data:
        given = DOLLY_INPUT.format(context=row["context"]) if row["context"] else ""
        prompt = DOLLY_TEMPLATE.format(instruction=row["instruction"], input=given)
        if row["response"].strip():
            found[split_of(prompt, recipe.held_out)].append((prompt, f" {row['response'].strip()}"))
    return found

"""Prompts and responses for supervised fine-tuning: their sources, templates and batches' text.

The paper (arXiv 2605.07783) tunes on databricks-dolly-15k; its template is not stated: ours is below.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from cbd.data.documents import documents, load_dataset, split_of
from cbd.data.items import HELD_OUT, grams_of, seen_in_training, write
from cbd.errors import CbdError
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
    most = {"train": recipe.count, "validation": recipe.tests, "test": recipe.tests}
    for split, size in most.items():
        rows = sorted(found[split], key=lambda row: hashlib.sha256(json.dumps(row).encode()).digest())[:size]
        if not rows:
            raise CbdError(
                f"no prompts with responses for the {split} split: add dialogues (a line a turn) or prose "
                f"with sentences of at most {recipe.words} words, or raise the pairs' words"
            )
        write(out / f"{split}.jsonl", ({"prompt": prompt, "response": reply} for prompt, reply in rows))
        found[split] = rows
    return {f"pairs_{split}": len(found[split]) for split in most}


def read(path: Path) -> list[dict]:
    """The rows of a .jsonl file. Raises `CbdError` when it is missing or not JSON."""
    try:
        return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]
    except FileNotFoundError:
        raise CbdError(f"{path} is missing: name a folder of items or pairs that is finished") from None
    except ValueError as error:
        raise CbdError(f"{path} holds a line that is no JSON ({error}): make the folder again") from None


def _replies(recipe: Pairs) -> dict[str, list[tuple[str, str]]]:
    """Pairs by split; a held-out one that shares eight words in a row with training text is left out."""
    found: dict[str, list[Pair]] = defaultdict(list)
    for text in documents(recipe.corpus):
        found[split_of(text, recipe.corpus.held_out)] += _pairs_of(text, recipe)
    held_out = [pair for split in HELD_OUT for pair in found[split]]
    seen = seen_in_training((pair.passage for pair in held_out), recipe.corpus)
    for split in HELD_OUT:
        found[split] = [pair for pair in found[split] if seen.isdisjoint(grams_of(pair.passage))]
    return {split: list(dict.fromkeys((p.prompt, p.response) for p in rows)) for split, rows in found.items()}


@dataclass(frozen=True)
class Pair:
    """Two neighbouring pieces of a document: the one that is given and its answer."""

    template: str
    context: str
    answer: str

    @property
    def prompt(self) -> str:
        return self.template.format(context=self.context)

    @property
    def response(self) -> str:
        return f" {self.answer}"

    @property
    def passage(self) -> str:
        return f"{self.context} {self.answer}"


def _pairs_of(text: str, recipe: Pairs) -> Iterator[Pair]:
    """A line of a dialogue and the next, or a sentence of prose and the first words of the next."""
    if "\n" in text:
        template, parts, longest = REPLY_TEMPLATE, text.split("\n"), recipe.answer
    else:
        template, parts, longest = CONTINUE_TEMPLATE, re.split(r"(?<=[.!?]) ", text), None
    for given, following in pairwise(parts):
        words = following.split()
        if longest is None:
            words = words[: recipe.answer]
        if 1 <= len(given.split()) <= recipe.words and SHORTEST <= len(words) <= recipe.answer:
            yield Pair(template, given, " ".join(words))


def _dolly(recipe: Pairs) -> dict[str, list[tuple[str, str]]]:
    data = load_dataset(recipe.location or recipe.name)
    missing = {"instruction", "context", "response"} - set(data.column_names)
    if missing:
        raise CbdError(f"{recipe.location or recipe.name} has no column {', '.join(sorted(missing))}")
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in data:
        given = DOLLY_INPUT.format(context=row["context"]) if row["context"] else ""
        prompt = DOLLY_TEMPLATE.format(instruction=row["instruction"], input=given)
        if row["response"].strip():
            found[split_of(prompt, recipe.held_out)].append((prompt, f" {row['response'].strip()}"))
    return found

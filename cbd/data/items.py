"""Downstream items from held-out text: which words go on with a passage, and what its last word is.

Everything is decided by the text itself (hashes of passages), so equal corpora give equal items. A passage
that shares eight words in a row with the training split is left out.
"""

import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbd.data.documents import documents, split_of, training_documents
from cbd.errors import CbdError, require
from cbd.recipes.data import Corpus, Items

GRAM = 8  # words in a row that no passage may share with training text
OPTIONS = 4
HELD_OUT = ("validation", "test")
LAST_WORD = re.compile(r"(?P<word>[A-Za-z']{4,})[.,;:!?]*$")


@dataclass(frozen=True)
class Passage:
    """Words of a document in a row: those that are given and those that follow."""

    document: int
    kind: str
    context: str
    answer: str

    @property
    def text(self) -> str:
        return f"{self.context} {self.answer}"

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.text.encode()).digest()


def build(recipe: Items, out: Path) -> dict[str, int]:
    """Write `out`/<task>.<split>.jsonl for both tasks and held-out splits; returns how many of each.

    Raises `CbdError` when the held-out text is too little for an item.
    """
    clean = uncontaminated(held_out_passages(recipe), recipe.corpus)
    counts = {}
    for split in HELD_OUT:
        ordered = sorted(clean[split], key=lambda passage: passage.digest)
        chosen = ordered[: min(recipe.count, len(ordered) // 2)]
        rest = [passage for passage in ordered[len(chosen) :] if LAST_WORD.search(passage.text)]
        tasks = {"continuation": continuations(chosen, ordered), "cloze": clozes(rest[: recipe.count])}
        for task, rows in tasks.items():
            wrong = f"the {split} split of {recipe.corpus.name} is too little text for a {task} item"
            require(rows, f"{wrong}: add documents, raise held_out, or lower the items' count or words")
            write(out / f"{task}.{split}.jsonl", rows)
            counts[f"{task}_{split}"] = len(rows)
    return counts


def held_out_passages(recipe: Items) -> dict[str, list[Passage]]:
    """All passages of the held-out splits, in the order of the corpus."""
    found: dict[str, list[Passage]] = {split: [] for split in HELD_OUT}
    for number, text in enumerate(documents(recipe.corpus)):
        split = split_of(text, recipe.corpus.held_out)
        if split in found:
            found[split] += passages(number, text, recipe.words, recipe.answer)
    return found


def passages(document: int, text: str, words: int, answer: int) -> Iterator[Passage]:
    """Passages of words + answer words that do not overlap; the cut between the two is one space.

    A line's end is never the cut: it would give the right option away.
    """
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    kind = "lines" if "\n" in text else "prose"
    first = 0
    while first + words + answer <= len(spans):
        cut = first + words
        if text[spans[cut - 1][1] : spans[cut][0]] != " ":
            first += 1
            continue
        last = cut + answer
        context = text[spans[first][0] : spans[cut - 1][1]]
        yield Passage(document, kind, context, text[spans[cut][0] : spans[last - 1][1]])
        first = last


def uncontaminated(found: dict[str, list[Passage]], corpus: Corpus) -> dict[str, list[Passage]]:
    """The passages none of whose eight words in a row occur in the training split, and each text once."""
    seen = seen_in_training((p.text for part in found.values() for p in part), corpus)
    return {
        split: list({p.text: p for p in part if seen.isdisjoint(grams_of(p.text))}.values())
        for split, part in found.items()
    }


def seen_in_training(texts: Iterable[str], corpus: Corpus) -> set[str]:
    """The runs of eight words of these texts that the training split has, too.

    Memory goes with the texts, not with the training split, which is read once.
    """
    grams = {gram for text in texts for gram in grams_of(text)}
    return {gram for text in training_documents(corpus) for gram in grams_of(text) if gram in grams}


def grams_of(text: str) -> Iterator[str]:
    """All runs of eight words, in lower case and without punctuation; a shorter text is one run."""
    words = re.findall(r"\w+", text.lower())
    for first in range(max(1, len(words) - GRAM + 1)):
        yield " ".join(words[first : first + GRAM])


def continuations(chosen: Sequence[Passage], pool: Sequence[Passage]) -> list[dict[str, Any]]:
    """An item a passage: context, four options and the place of the right one.

    The right option stands at each place equally often, so that a model with a favourite place is at chance.
    """
    rows = []
    for passage in chosen:
        others = _others(passage, pool)
        if len(others) == OPTIONS - 1:
            place = len(rows) % OPTIONS
            options = [*others[:place], passage.answer, *others[place:]]
            rows.append({"context": passage.context, "options": options, "answer": place})
    return rows


def _others(passage: Passage, pool: Sequence[Passage]) -> list[str]:
    """Answers of three other documents of the same kind, drawn by the passage's own hash."""
    draw = random.Random(passage.digest)
    # draws with repetition are cheaper than a shuffle of a large pool, and as good
    size = len(pool)
    places = draw.sample(range(size), size) if size < 64 else (draw.randrange(size) for _ in range(256))
    documents, found = {passage.document}, [passage.answer]
    for other in map(pool.__getitem__, places):
        if other.kind == passage.kind and other.document not in documents and other.answer not in found:
            documents.add(other.document)
            found.append(other.answer)
        if len(found) == OPTIONS:
            break
    return found[1:]


def clozes(chosen: Iterable[Passage]) -> list[dict[str, Any]]:
    """An item a passage: all but its last word, and that word without the punctuation behind it.

    The answer begins with the space before it, as a token of it does.
    """
    rows = []
    for passage in chosen:
        found = LAST_WORD.search(passage.text)
        context = passage.text[: found.start()]
        if context.endswith(" ") and context.strip():
            rows.append({"context": context.rstrip(), "answer": f" {found['word']}"})
    return rows


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl file. Raises `CbdError` when it is missing or not JSON."""
    try:
        return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    except FileNotFoundError:
        raise CbdError(f"{path} is missing: name a folder of items or pairs that is finished") from None
    except ValueError as error:
        raise CbdError(f"{path} holds a line that is no JSON ({error}): make the folder again") from None
